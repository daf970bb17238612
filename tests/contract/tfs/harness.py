"""A model server as a separate process, and the version folders that it serves."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from serving.tfs.protos import (
    GetModelStatusRequest,
    ModelSpec,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
    TensorProto,
)
from serving.tfs.tensors import from_array
from tests.contract.tfs.stubs import ModelServiceStub, PredictionServiceStub

ROOT = Path(__file__).parents[3]
ARITHMETIC = Path(__file__).with_name("fixtures") / "arithmetic.tflite"
TIMEOUT_S = 20.0

# One worker makes queues predictable; no waiting between tries makes failures quick.
QUICK = ("--tensorflow_inter_op_parallelism=1", "--max_num_load_retries=0", "--file_system_poll_wait_seconds=1")


@dataclass
class Server:
    """A running server and the official stubs that speak to it."""

    process: subprocess.Popen[str]
    address: str
    channel: grpc.Channel
    log: Path

    def __post_init__(self) -> None:
        self.predictions = PredictionServiceStub(self.channel)
        self.models = ModelServiceStub(self.channel)

    def predict(self, request: PredictRequest, timeout_s: float = TIMEOUT_S) -> PredictResponse:
        """Call Predict."""
        response: PredictResponse = self.predictions.Predict(request, timeout=timeout_s)
        return response

    def states(self, model: str = "arithmetic") -> dict[int, tuple[str, int]]:
        """Return state and error code by version."""
        request = GetModelStatusRequest(model_spec=ModelSpec(name=model))
        answer = self.models.GetModelStatus(request, timeout=TIMEOUT_S)
        name = ModelVersionStatus.State.Name
        return {each.version: (name(each.state), each.status.error_code) for each in answer.model_version_status}


def add_version(base_path: Path, version: int, content: bytes | None = None) -> Path:
    """Put a version folder in place by one rename, as a careful person would."""
    staged = base_path / f"staged-{version}"
    staged.mkdir(parents=True)
    (staged / "model.tflite").write_bytes(ARITHMETIC.read_bytes() if content is None else content)
    return staged.rename(base_path / str(version))


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder whose path is short enough for a unix socket, and remove it."""
    path = Path(tempfile.mkdtemp(prefix="hg-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def start(*flags: str, log: Path) -> subprocess.Popen[str]:
    """Start a server with *flags*; its output goes to *log*."""
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "serving.modelserver", *flags],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextmanager
def running(*flags: str) -> Iterator[Server]:
    """Run a server on a unix socket until the block ends; fail with its log if it does not come up."""
    with folder() as home:
        socket, log = home / "s", home / "log"
        process = start("--port=0", f"--grpc_socket_path={socket}", *flags, log=log)
        address = f"unix:{socket}"
        with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
            try:
                wait_until(lambda: process.poll() is not None or "model_server_started" in log.read_text())
                assert process.poll() is None, log.read_text()
                yield Server(process, address, channel, log)
            finally:
                process.kill()
                process.wait()


def wait_until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """
    Look until *condition* holds.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def request(
    inputs: Mapping[str, Any], signature: str = "", *, model: str = "arithmetic", version: int | None = None
) -> PredictRequest:
    """Build a request from numpy arrays or ready tensors."""
    tensors = {
        alias: value if isinstance(value, TensorProto) else from_array(np.asarray(value))
        for alias, value in inputs.items()
    }
    built = PredictRequest(model_spec=ModelSpec(name=model, signature_name=signature), inputs=tensors)
    if version is not None:
        built.model_spec.version.value = version
    return built


def floats(*rows: tuple[float, float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return rows for serving_default."""
    return np.array(rows, dtype=np.float32)


def slow(rounds: int) -> PredictRequest:
    """Return a request that keeps an interpreter busy, some 0.15 ms a round."""
    return request({"rounds": np.array([rounds], np.int32)}, "slow")
