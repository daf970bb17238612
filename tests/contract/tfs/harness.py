"""
A model server as a separate process, and the version folders that it serves.

The same suite holds the original to our list of what it does: HEALTHGUARD_TFS_IMAGE names an image of TensorFlow
Serving that is started for each server that a test wants, and HEALTHGUARD_TFS_ADDRESS a server that runs already and
serves versions 1 and 2 of `arithmetic`.
"""

import os
import shutil
import socket
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
import pytest

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
from tests.training import PYTHON as TRAINING_PYTHON
from tests.training import needs_training

ROOT = Path(__file__).parents[3]
FIXTURES = Path(__file__).with_name("fixtures")
ARITHMETIC = FIXTURES / "arithmetic.tflite"
SAVED_MODEL = FIXTURES / "arithmetic.saved_model.pb"
TIMEOUT_S = 20.0
START_S = 180.0
"""TensorFlow takes its time to be imported."""

# One worker makes queues predictable; no waiting between tries makes failures quick.
QUICK = ("--tensorflow_inter_op_parallelism=1", "--max_num_load_retries=0", "--file_system_poll_wait_seconds=1")
# What only our server knows: it ends at once when it is told to.
HASTY = ("--drain_notice_seconds=0",)

IMAGE = os.environ.get("HEALTHGUARD_TFS_IMAGE", "")
ADDRESS = os.environ.get("HEALTHGUARD_TFS_ADDRESS", "")
FOREIGN = bool(IMAGE or ADDRESS)

LITERT, TENSORFLOW, OFFICIAL = "litert", "tensorflow", "official"
BACKENDS = [OFFICIAL] if FOREIGN else [LITERT, pytest.param(TENSORFLOW, marks=needs_training)]

both_backends = pytest.mark.parametrize("backend", BACKENDS, indirect=True)
"""Run with LiteRT and with TensorFlow (in a training environment); or with the original."""


def ours(reason: str) -> pytest.MarkDecorator:
    """
    Mark what is ours alone, or where we differ from the original on purpose, with the reason.

    Such a test is not asked of another server. It is left out and not skipped: nothing is missing that could be there.
    """
    return pytest.mark.ours(reason)


@dataclass
class Server:
    """A running server and the official stubs that speak to it."""

    process: subprocess.Popen[str]
    address: str
    channel: grpc.Channel
    log: Path
    rest_url: str = ""

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
    (staged / "saved_model.pb").write_bytes(SAVED_MODEL.read_bytes() if content is None else content)
    return staged.rename(base_path / str(version))


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder whose path is short enough for a unix socket, and remove it."""
    path = Path(tempfile.mkdtemp(prefix="hg-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def start(*flags: str, log: Path, backend: str = LITERT) -> subprocess.Popen[str]:
    """Start our server with *flags*; its output goes to *log*."""
    python = TRAINING_PYTHON if backend == TENSORFLOW else sys.executable
    return _spawn([str(python), "-m", "serving.modelserver", *flags], log)


def _spawn(command: list[str], log: Path) -> subprocess.Popen[str]:
    with log.open("w") as output:
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, text=True)


@contextmanager
def running(
    *flags: str, backend: str = LITERT, rest: bool = False, credentials: grpc.ChannelCredentials | None = None
) -> Iterator[Server]:
    """
    Run a server until the block ends; fail with its log if it does not come up.

    Args:
        flags: those of the original, or ours.
        backend: which runtime of ours; without effect on the original.
        rest: open a REST port too.
        credentials: what the channel is made with where the server speaks TLS.
    """
    if ADDRESS:
        pytest.skip("needs a server with flags of its own")
    with folder() as home:
        rest_port = free_port() if rest else 0
        flags = (*flags, f"--rest_api_port={rest_port}") if rest else flags
        launch = _original if IMAGE else _ours
        with launch(home, flags, backend, rest_port) as (process, address, log):
            options = [("grpc.max_send_message_length", -1), ("grpc.ssl_target_name_override", "models.test")]
            channel = (
                grpc.secure_channel(address, credentials, options=options)
                if credentials
                else grpc.insecure_channel(address, options=options[:1])
            )
            with channel:
                yield Server(process, address, channel, log, f"http://127.0.0.1:{rest_port}" if rest else "")


Launched = tuple["subprocess.Popen[str]", str, Path]


@contextmanager
def _ours(home: Path, flags: tuple[str, ...], backend: str, _rest_port: int) -> Iterator[Launched]:
    """Run our server on a unix socket."""
    sock, log = home / "s", home / "log"
    mine = ("--port=0", f"--grpc_socket_path={sock}", "--listen_address=127.0.0.1", *HASTY)
    process = start(*mine, *flags, log=log, backend=backend)
    try:
        _wait_for_start(process, log)
        yield process, f"unix:{sock}", log
    finally:
        process.kill()
        process.wait()


def _wait_for_start(process: subprocess.Popen[str], log: Path) -> None:
    """Wait until a server says that it listens, in its own words; fail with its log if it ends before."""
    said = ("model_server_started", "Running gRPC ModelServer at")
    wait_until(lambda: process.poll() is not None or any(words in log.read_text() for words in said), START_S)
    assert process.poll() is None, log.read_text()


@contextmanager
def _original(home: Path, flags: tuple[str, ...], _backend: str, rest_port: int) -> Iterator[Launched]:
    """Run the original in a container that sees the tests' folders where they are."""
    port, log, name, temporary = free_port(), home / "log", f"tfs-{home.name}", tempfile.gettempdir()
    ports = ["--publish", f"127.0.0.1:{port}:{port}"]
    ports += ["--publish", f"127.0.0.1:{rest_port}:{rest_port}"] if rest_port else []
    container = ["--name", name, "--volume", f"{temporary}:{temporary}:ro", *ports]
    command = ["docker", "run", "--rm", *container, "--entrypoint", "tensorflow_model_server", IMAGE]
    process = _spawn([*command, f"--port={port}", *flags], log)
    try:
        _wait_for_start(process, log)
        yield process, f"127.0.0.1:{port}", log
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def already_running() -> Iterator[Server]:
    """Speak to the server that HEALTHGUARD_TFS_ADDRESS names."""
    with grpc.insecure_channel(ADDRESS) as channel, subprocess.Popen(["true"], text=True) as nobody:
        yield Server(nobody, ADDRESS, channel, Path(os.devnull))


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
