"""Predict, as TensorFlow Serving answers and refuses it."""

from collections.abc import Callable

import grpc
import numpy as np
import pytest

from serving.tfs.protos import ModelSpec, PredictRequest, TensorProto, TensorShapeProto
from serving.tfs.tensors import from_array, to_array
from tests.contract.tfs.harness import QUICK, Server, add_version, floats, folder, request, running, slow

ROW = floats((1, 2))


def shape(*sizes: int) -> TensorShapeProto:
    """Return a TensorShapeProto."""
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


def changed(change: Callable[[PredictRequest], object]) -> PredictRequest:
    """Return a good request after *change*."""
    built = request({"x": ROW})
    change(built)
    return built


REFUSALS = {
    "no model_spec": (PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    "an empty name": (
        PredictRequest(model_spec=ModelSpec(signature_name="x")),
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    ),
    "an unknown model": (
        request({"x": ROW}, model="other"),
        "NOT_FOUND",
        "Servable not found for request: Latest(other)",
    ),
    "an unknown version": (
        request({"x": ROW}, version=9),
        "NOT_FOUND",
        "Servable not found for request: Specific(arithmetic, 9)",
    ),
    "an unknown label": (
        changed(lambda built: setattr(built.model_spec, "version_label", "canary")),
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: canary",
    ),
    "an unknown signature": (
        request({"x": ROW}, "nonsense"),
        "FAILED_PRECONDITION",
        'Serving signature key "nonsense" not found.',
    ),
    "an input missing": (
        request({"a": np.ones(1, np.float32)}, "pair"),
        "INVALID_ARGUMENT",
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}.",
    ),
    "an input too many": (
        request({"x": ROW, "z": ROW}),
        "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}.",
    ),
    "another input": (
        request({"z": ROW}),
        "INVALID_ARGUMENT",
        "Signature input alias: x not found in request. Inputs expected to be in the set {x}.",
    ),
    "content that is too short for its shape": (
        request({"x": TensorProto(dtype="DT_FLOAT", tensor_shape=shape(1, 2), tensor_content=b"1234")}),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    "more values than the shape has": (
        request({"x": TensorProto(dtype="DT_FLOAT", tensor_shape=shape(1, 2), float_val=[1, 2, 3])}),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    "a negative dimension": (
        request({"x": TensorProto(dtype="DT_FLOAT", tensor_shape=shape(-1, 2), float_val=[1])}),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    "a tensor of a few bytes that asks for terabytes": (
        request({"x": TensorProto(dtype="DT_FLOAT", tensor_shape=shape(2**40, 2), float_val=[1])}),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    "another element type": (
        request({"x": ROW.astype(np.int32)}),
        "INVALID_ARGUMENT",
        "Type mismatch: actual int32 vs. expect float",
    ),
    "a rank too low": (
        request({"image": np.zeros((4, 4, 3), np.uint8)}, "brightness"),
        "INVALID_ARGUMENT",
        "Shape mismatch: actual [4, 4, 3] vs. expect [-1, 4, 4, 3]",
    ),
    "another inner shape": (
        request({"image": np.zeros((1, 4, 4, 5), np.uint8)}, "brightness"),
        "INVALID_ARGUMENT",
        "Shape mismatch: actual [1, 4, 4, 5] vs. expect [-1, 4, 4, 3]",
    ),
    "no rows": (request({"x": np.zeros((0, 2), np.float32)}), "INVALID_ARGUMENT", "input x has no elements"),
    "unequal 0th dimensions": (
        request({"a": np.ones(1, np.float32), "b": np.ones(2, np.float32)}, "pair"),
        "INVALID_ARGUMENT",
        "Batching session Run() input tensors must have equal 0th-dimension size",
    ),
    "an unknown output": (
        changed(lambda built: built.output_filter.append("z")),
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
    ),
    "a doubled output": (
        changed(lambda built: built.output_filter.extend(["y", "y"])),
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: y",
    ),
}


@pytest.mark.parametrize(("refused", "code", "details"), REFUSALS.values(), ids=REFUSALS.keys())
def test_predict_refuses(server: Server, refused: PredictRequest, code: str, details: str) -> None:
    """Each wrong request gets TensorFlow Serving's code and text, and the next good one its answer."""
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(refused)
    assert (caught.value.code().name, caught.value.details()) == (code, details)
    assert list(server.predict(request({"x": ROW})).outputs["y"].float_val) == [2, 4]


def test_predict_truncates_long_details(server: Server) -> None:
    """A text is cut at 1024 characters, and says so."""
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(request({"x": ROW}, "s" * 3000))
    details = caught.value.details() or ""
    assert details.endswith("sss...TRUNCATED")
    assert len(details) == 1024 + len("...TRUNCATED")


def test_predict_names_what_answered(server: Server) -> None:
    """The response carries the newest version and the default signature, which the request left open."""
    spec = server.predict(request({"x": ROW})).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("arithmetic", 2, "serving_default")
    assert server.predict(request({"x": ROW}, version=1)).model_spec.version.value == 1


def test_predict_answers_in_typed_lists(server: Server) -> None:
    """Numbers come as float_val with their shape, strings as string_val, whatever form the input had."""
    answer = server.predict(request({"x": floats((1, 2), (3, 4))})).outputs["y"]
    assert (list(answer.float_val), answer.tensor_content) == ([2, 4, 6, 8], b"")
    assert [dim.size for dim in answer.tensor_shape.dim] == [2, 2]
    text = server.predict(request({"n": np.zeros(2, np.int32)}, "text")).outputs["json"]
    assert list(text.string_val) == [b'{"schema": "test"}'] * 2


def test_predict_repeats_the_last_value_of_a_short_list(server: Server) -> None:
    """A list that is shorter than its shape goes on with its last value."""
    short = TensorProto(dtype="DT_FLOAT", tensor_shape=shape(2, 2), float_val=[1, 5])
    assert list(server.predict(request({"x": short})).outputs["y"].float_val) == [2, 10, 10, 10]


def test_predict_takes_a_long_typed_list(server: Server) -> None:
    """A list that is read off the event loop gives the same answer."""
    rows = np.arange(20_000, dtype=np.float32).reshape(-1, 2)
    answer = server.predict(request({"x": from_array(rows, typed=True)})).outputs["y"]
    np.testing.assert_array_equal(to_array(answer), rows * 2)


def test_predict_answers_only_the_filtered_outputs(server: Server) -> None:
    """output_filter picks outputs; without it all come."""
    pair = request({"a": np.array([5], np.float32), "b": np.array([2], np.float32)}, "pair")
    assert set(server.predict(pair).outputs) == {"total", "difference"}
    pair.output_filter.append("difference")
    assert {alias: list(tensor.float_val) for alias, tensor in server.predict(pair).outputs.items()} == {
        "difference": [3]
    }


def test_predict_runs_signatures_without_a_batch_dimension(server: Server) -> None:
    """A scalar answer has no dimensions."""
    answer = server.predict(request({"x": np.array([1, 2, 3], np.float32)}, "fixed")).outputs["sum"]
    assert (list(answer.float_val), len(answer.tensor_shape.dim)) == ([6], 0)


def test_predict_cuts_large_batches_into_slices_unnoticed(server: Server) -> None:
    """Rows that do not fit one run come back in their order."""
    images = np.arange(20_000, dtype=np.int64).reshape(-1, 1, 1, 1) % 251 + np.zeros((1, 4, 4, 3), np.int64)
    answer = server.predict(request({"image": images.astype(np.uint8)}, "brightness")).outputs["mean"]
    np.testing.assert_allclose(to_array(answer), np.arange(20_000) % 251, rtol=1e-6)


def test_predict_ends_at_the_deadline(server: Server) -> None:
    """A call whose deadline passes while it runs ends with DEADLINE_EXCEEDED, and the server goes on."""
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(slow(3000), timeout_s=0.05)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert server.predict(request({"x": ROW})).outputs["y"].float_val


def test_predict_refuses_messages_above_the_limit(server: Server) -> None:
    """gRPC itself refuses what is larger than the server takes."""
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(request({"x": np.zeros((17_000_000, 2), np.float32)}))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    # The number tells the server's limit from the client's own.
    assert str(128 * 1024 * 1024) in (caught.value.details() or "")


def test_predict_survives_bytes_that_are_no_message(server: Server) -> None:
    """Bytes that are no PredictRequest fail alone."""
    raw = server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict", bytes, bytes)
    with pytest.raises(grpc.RpcError):
        raw(b"\xff" * 100, timeout=20)
    assert server.process.poll() is None
    assert server.predict(request({"x": ROW})).outputs["y"].float_val


def test_predict_answers_unimplemented_to_what_it_does_not_have(server: Server) -> None:
    """A method that LiteRT cannot serve says so by gRPC's own code."""
    raw = server.channel.unary_unary("/tensorflow.serving.PredictionService/Classify", bytes, bytes)
    with pytest.raises(grpc.RpcError) as caught:
        raw(b"", timeout=20)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_predict_answers_raw_bytes_when_told_to() -> None:
    """--enable_serialization_as_tensor_content changes the form of the outputs."""
    with folder() as home:
        add_version(home / "arithmetic", 1)
        base_path = f"--model_base_path={home / 'arithmetic'}"
        flags = ("--model_name=arithmetic", "--enable_serialization_as_tensor_content")
        with running(base_path, *flags, *QUICK) as server:
            answer = server.predict(request({"x": ROW})).outputs["y"]
            assert (list(answer.float_val), answer.tensor_content) == ([], floats((2, 4)).tobytes())


def test_predict_survives_random_malformed_tensors(server: Server) -> None:
    """Tensors of random type, shape, list and content are answered or refused; the process lives and does not grow."""
    random = np.random.default_rng(20261122)
    before = resident_mb(server.process.pid)
    codes = set()
    for _ in range(1500):
        tensor = TensorProto(dtype=int(random.integers(0, 24)), tensor_shape=shape(*_sizes(random)))  # type: ignore[arg-type]
        tensor.tensor_content = random.bytes(int(random.integers(0, 200)))
        tensor.float_val.extend(random.normal(size=int(random.integers(0, 4))).tolist())
        tensor.int_val.extend(random.integers(-(2**31), 2**31, size=int(random.integers(0, 4))).tolist())
        alias, signature = [("x", ""), ("image", "brightness"), ("n", "text"), ("x", "fixed")][random.integers(0, 4)]
        try:
            server.predict(request({alias: tensor}, signature))
            codes.add("OK")
        except grpc.RpcError as error:
            codes.add(error.code().name)
    assert codes <= {"OK", "INVALID_ARGUMENT"}
    assert server.process.poll() is None
    assert resident_mb(server.process.pid) < before + 20


def _sizes(random: np.random.Generator) -> list[int]:
    """Return a random shape with the sizes that break things."""
    return [int(random.choice([0, 1, 2, 3, 4, -1, 2**31, 2**62])) for _ in range(int(random.integers(0, 6)))]


def resident_mb(pid: int) -> float:
    """Return a process's resident memory, MB."""
    with open(f"/proc/{pid}/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * 4096 / 1e6
