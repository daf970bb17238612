"""SIGTERM: clients are told, what is in flight is answered, nothing new is taken, and the process ends well in time."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from serving.tfs.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tests.contract.tfs.harness import (
    QUICK,
    Server,
    add_version,
    floats,
    folder,
    request,
    running,
    slow,
    start,
    wait_until,
)
from tests.contract.tfs.stubs import PredictionServiceStub

CLIENTS = 32
NOTICE_S = 2
PROBE_S = 0.2
GRACE_S = 10.0
"""Well under Kubernetes' 30 seconds."""


@contextmanager
def serving(*flags: str) -> Iterator[Server]:
    """Run a server with one version of one model."""
    with folder() as home:
        add_version(home / "arithmetic", 1)
        base_path = f"--model_base_path={home / 'arithmetic'}"
        with running(base_path, "--model_name=arithmetic", *QUICK, *flags) as server:
            yield server


def health_of(server: Server) -> Any:
    """Return the call that asks a server for its health."""
    return server.channel.unary_unary(
        "/grpc.health.v1.Health/Check", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
    )


@dataclass
class Clients:
    """Clients that send one request after the other for as long as the health service says that they may."""

    server: Server
    answered: list[int] = field(default_factory=lambda: [0] * CLIENTS)
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._leave = threading.Event()
        self._channels = [grpc.insecure_channel(self.server.address, [("x", number)]) for number in range(CLIENTS)]
        self._check = health_of(self.server)
        self._threads = [
            threading.Thread(target=self._ask_for_health),
            *(threading.Thread(target=self._send, args=(number,)) for number in range(CLIENTS)),
        ]
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """Stop sending, and wait until the last call has ended."""
        self._leave.set()
        for thread in self._threads:
            thread.join(60)
        for channel in self._channels:
            channel.close()

    def _ask_for_health(self) -> None:
        """Ask now and then, as a probe does, and let everybody leave at the first answer that is not SERVING."""
        while not self._leave.wait(PROBE_S):
            try:
                if self._check(HealthCheckRequest(), timeout=20).status == HealthCheckResponse.SERVING:
                    continue
            except grpc.RpcError:
                pass
            self._leave.set()

    def _send(self, number: int) -> None:
        stub = PredictionServiceStub(self._channels[number])
        while not self._leave.is_set():
            try:
                stub.Predict(slow(20), timeout=60)
                self.answered[number] += 1
            except grpc.RpcError as error:
                self.failed.append(error.code().name)
                return


def end_under_load(server: Server) -> tuple[Clients, int | None]:
    """Do what a kubelet does: SIGTERM, the grace period, SIGKILL. Return the clients, and the status if it ended."""
    clients = Clients(server)
    wait_until(lambda: min(clients.answered) > 0)
    server.process.send_signal(signal.SIGTERM)
    try:
        status: int | None = server.process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        status = None
        server.process.kill()
        server.process.wait()
    clients.leave()
    return clients, status


def test_modelserver_leaves_under_load_without_a_failed_request() -> None:
    """Of 32 clients that honour health none sees a failure, and the process ends by itself within the grace period."""
    with serving(f"--drain_notice_seconds={NOTICE_S}") as server:
        clients, status = end_under_load(server)
        assert (clients.failed, status) == ([], 0)
        assert "model_server_stopped" in server.log.read_text()


@pytest.mark.parametrize("grace_s", [2.0])
def test_modelserver_with_quirks_fails_its_clients(grace_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As bad as the original: SIGTERM is ignored, health says nothing, and what is in flight dies with the process."""
    monkeypatch.setattr(f"{__name__}.GRACE_S", grace_s)
    with serving("--tfs_quirks") as server:
        clients, status = end_under_load(server)
    assert status is None
    assert clients.failed


def test_modelserver_answers_what_is_in_flight_before_it_ends() -> None:
    """A running call and those that wait behind it get their answers after SIGTERM; the exit status is 0."""
    with serving() as server:
        server.predict(request({"x": floats((1, 2))}))
        # Over one connection, in this order: once the last one is refused, the others have arrived.
        busy = server.predictions.Predict.future(slow(5000), timeout=60)
        waiting = [server.predictions.Predict.future(request({"x": floats((n, n))}), timeout=60) for n in range(20)]
        with pytest.raises(grpc.RpcError):
            server.predict(request({"x": floats((1, 2))}, model="absent"))
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "model_server_draining" in server.log.read_text())
        assert not busy.done()
        with grpc.insecure_channel(server.address) as late:
            stub = PredictionServiceStub(late)
            with pytest.raises(grpc.RpcError) as refused:
                stub.Predict(request({"x": floats((1, 2))}), timeout=60)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert list(busy.result(timeout=60).outputs["done"].int_val) == [5000]
        for n, future in enumerate(waiting):
            assert list(future.result(timeout=60).outputs["y"].float_val) == [2 * n, 2 * n]
        assert server.process.wait(30) == 0
        assert "model_server_stopped" in server.log.read_text()


def test_modelserver_ends_at_once_at_the_second_signal() -> None:
    """While it leaves it answers, and says no for each model too; whoever asks again cuts that time short."""
    with serving("--drain_notice_seconds=100") as server:
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "model_server_leaving" in server.log.read_text())
        assert list(server.predict(request({"x": floats((1, 2))})).outputs["y"].float_val) == [2, 4]
        for name in ("", "arithmetic", "arithmetic/1"):
            assert health_of(server)(HealthCheckRequest(service=name), timeout=20).status == (
                HealthCheckResponse.NOT_SERVING
            )
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_modelserver_ends_while_it_still_waits_for_a_model() -> None:
    """SIGTERM before the first version came ends the process well too."""
    with folder() as home:
        log = home / "log"
        process = start(f"--model_base_path={home / 'absent'}", "--port=0", f"--grpc_socket_path={home / 's'}", log=log)
        try:
            wait_until(lambda: "base_path_unreadable" in log.read_text())
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def test_modelserver_ends_while_a_load_hangs() -> None:
    """A file that is never read to its end (here a pipe that nobody writes to) keeps no process alive."""
    batching = ("--enable_batching", "--enable_per_model_batching_parameters", "--drain_notice_seconds=0")
    with folder() as home:
        add_version(home / "arithmetic", 1)
        with running(
            f"--model_base_path={home / 'arithmetic'}", "--model_name=arithmetic", *QUICK, *batching
        ) as server:
            hanging = add_version(home / "staging", 2)
            os.mkfifo(hanging / "batching_params.pbtxt")
            hanging.rename(home / "arithmetic" / "2")
            wait_until(lambda: server.states().get(2, ("", 0))[0] == "LOADING")
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(30) == 0
