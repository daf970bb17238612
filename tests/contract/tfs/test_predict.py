"""Predict, as TensorFlow Serving answers and refuses it."""

from collections.abc import Callable

import grpc
import numpy as np
import pytest

from serving.tfs.protos import ModelSpec, PredictRequest, TensorProto, TensorShapeProto
from serving.tfs.tensors import from_array, to_array
from tests.contract.tfs.harness import (
    LITERT,
    Server,
    both_backends,
    floats,
    ours,
    request,
    slow,
)

pytestmark = both_backends

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
    assert refusal(server, refused) == (code, details)
    assert list(server.predict(request({"x": ROW})).outputs["y"].float_val) == [2, 4]


# The text of these is the runtime's, and differs between versions of TensorFlow: only the code is promised.
MISFITS = {
    "another element type": request({"x": ROW.astype(np.int32)}),
    "a rank too low": request({"x": np.float32(3)}, "fixed"),
    "strings for numbers": request({"x": np.array([[b"a", b"b"]])}),
}


@pytest.mark.parametrize("refused", MISFITS.values(), ids=MISFITS.keys())
def test_predict_refuses_what_the_graph_cannot_run(server: Server, refused: PredictRequest) -> None:
    """A tensor that does not fit its place is INVALID_ARGUMENT, and the server lives."""
    assert refusal(server, refused)[0] == "INVALID_ARGUMENT"
    assert list(server.predict(request({"x": ROW})).outputs["y"].float_val) == [2, 4]


# LiteRT's kernels rely on the declared shapes, so they are held; TensorFlow Serving holds no client to them.
SHAPES = {
    "another element type": (
        request({"x": ROW.astype(np.int32)}),
        "Type mismatch: actual int32 vs. expect float",
    ),
    "a rank too low": (
        request({"image": np.zeros((4, 4, 3), np.uint8)}, "brightness"),
        "Shape mismatch: actual [4, 4, 3] vs. expect [-1, 4, 4, 3]",
    ),
    "another inner shape": (
        request({"image": np.zeros((1, 4, 4, 5), np.uint8)}, "brightness"),
        "Shape mismatch: actual [1, 4, 4, 5] vs. expect [-1, 4, 4, 3]",
    ),
    "no rows": (request({"x": np.zeros((0, 2), np.float32)}), "input x has no elements"),
    "unequal 0th dimensions": (
        request({"a": np.ones(1, np.float32), "b": np.ones(2, np.float32)}, "pair"),
        "Batching session Run() input tensors must have equal 0th-dimension size",
    ),
}


@pytest.mark.parametrize(("refused", "details"), SHAPES.values(), ids=SHAPES.keys())
def test_predict_holds_litert_to_the_declared_shapes(
    server: Server, backend: str, refused: PredictRequest, details: str
) -> None:
    """With LiteRT a tensor of another shape never reaches a kernel."""
    if backend == LITERT:
        assert refusal(server, refused) == ("INVALID_ARGUMENT", details)


def test_predict_runs_shapes_that_were_not_declared(server: Server, backend: str) -> None:
    """TensorFlow runs a vector where the signature says matrix, as the original does."""
    if backend != LITERT:
        answer = server.predict(request({"x": np.array([1, 2, 3], np.float32)})).outputs["y"]
        assert (list(answer.float_val), len(answer.tensor_shape.dim)) == ([2, 4, 6], 1)


def refusal(server: Server, refused: PredictRequest) -> tuple[str, str]:
    """Return code and text of a request that is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(refused)
    return caught.value.code().name, caught.value.details() or ""


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


@ours("the original takes 2 GiB")
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
    assert server.predict(request({"x": ROW})).outputs["y"].float_val
