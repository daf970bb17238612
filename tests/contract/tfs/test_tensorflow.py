"""Any SavedModel on TensorFlow: every form that people have, and what its kernels would die of."""

import subprocess
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from serving.tfs.protos import GetModelMetadataRequest, ModelSpec, SignatureDefMap
from serving.tfs.tensors import to_array
from tests.contract.tfs.harness import (
    FIXTURES,
    FOREIGN,
    OFFICIAL,
    START_S,
    TENSORFLOW,
    Server,
    folder,
    ours,
    request,
    running,
    start,
)
from tests.training import PYTHON, needs_training

pytestmark = needs_training

KINDS = ("tf1", "tf2", "keras3")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a server with the same network saved by TensorFlow 1, TensorFlow 2 and Keras."""
    with folder() as home:
        subprocess.run([str(PYTHON), FIXTURES / "make_kinds.py", home], check=True, capture_output=True, timeout=300)
        config = home / "models.config"
        entries = "".join(
            f'config {{ name: "{kind}" base_path: "{home / kind}" model_platform: "tensorflow" }}' for kind in KINDS
        )
        config.write_text(f"model_config_list {{ {entries} }}")
        flags = (f"--model_config_file={config}", "--max_num_load_retries=0")
        with running(*flags, backend=OFFICIAL if FOREIGN else TENSORFLOW) as started:
            yield started


def alias(server: Server, kind: str) -> tuple[str, str]:
    """Return the names of a model's input and output: each form has its own habits."""
    asked = GetModelMetadataRequest(model_spec=ModelSpec(name=kind), metadata_field=["signature_def"])
    found = SignatureDefMap()
    server.predictions.GetModelMetadata(asked, timeout=20).metadata["signature_def"].Unpack(found)
    default = found.signature_def["serving_default"]
    return next(iter(default.inputs)), next(iter(default.outputs))


@pytest.mark.parametrize("kind", KINDS)
def test_tensorflow_serves_every_form(server: Server, kind: str) -> None:
    """Variables are restored, and rows answered one by one, whoever saved the model."""
    image, total = alias(server, kind)
    pictures = np.stack([np.zeros((8, 8, 3), np.float32), np.ones((8, 8, 3), np.float32)])
    response = server.predict(request({image: pictures}, model=kind))
    # A kernel of ones over ones: at each of 64 places the neighbours that are there, for 3 channels in and 2 out.
    assert to_array(response.outputs[total]).tolist() == [0.0, 22 * 22 * 3 * 2]


@pytest.mark.parametrize("kind", KINDS)
def test_tensorflow_outlives_an_image_without_its_batch(server: Server, kind: str) -> None:
    """The tensor of rank 3 that ends a process with oneDNN is refused, and the next request served."""
    image, _ = alias(server, kind)
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(request({image: np.ones((8, 8, 3), np.float32)}, model=kind))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert server.process.poll() is None
    server.predict(request({image: np.ones((1, 8, 8, 3), np.float32)}, model=kind))


@pytest.mark.parametrize("kind", KINDS)
def test_tensorflow_never_casts(server: Server, kind: str) -> None:
    """Another type is refused in TensorFlow's words."""
    image, _ = alias(server, kind)
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(request({image: np.ones((1, 8, 8, 3), np.int32)}, model=kind))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Type mismatch: actual int32 vs. expect float" in (caught.value.details() or "")


def test_tensorflow_runs_shapes_that_are_not_declared(server: Server) -> None:
    """A picture of another size runs where the graph can run it: the declared shape is no promise."""
    image, total = alias(server, "tf1")
    response = server.predict(request({image: np.zeros((1, 5, 5, 3), np.float32)}, model="tf1"))
    assert to_array(response.outputs[total]).tolist() == [0.0]


def test_tensorflow_tells_a_kernels_refusal(server: Server) -> None:
    """A shape that the graph cannot run is the caller's mistake, in the kernel's words; nothing is hurt."""
    image, _ = alias(server, "tf1")
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(request({image: np.zeros((1, 8, 8, 5), np.float32)}, model="tf1"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert server.process.poll() is None


@ours("the original says it otherwise")
def test_tensorflow_refuses_what_is_no_model() -> None:
    """A version that does not load ends with its error; a server that has nothing else says so and ends."""
    with folder() as home:
        entries = ""
        for name, content in (("empty", b""), ("other", b"not a model")):
            (home / name / "1").mkdir(parents=True)
            (home / name / "1" / "saved_model.pb").write_bytes(content)
            entries += f'config {{ name: "{name}" base_path: "{home / name}" model_platform: "tensorflow" }}'
        config, log = home / "models.config", home / "log"
        config.write_text(f"model_config_list {{ {entries} }}")
        flags = ("--port=0", f"--grpc_socket_path={home / 's'}", "--file_system_poll_wait_seconds=0")
        process = start(
            f"--model_config_file={config}", "--max_num_load_retries=0", *flags, log=log, backend=TENSORFLOW
        )
        assert process.wait(timeout=START_S) == 1
        assert "empty version 1: Could not find meta graph def matching supplied tags" in log.read_text()
        assert "other version 1: " in log.read_text()
