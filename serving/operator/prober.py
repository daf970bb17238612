"""
The prober: a sidecar that is the readiness of a model pod.

It asks the server for the version's state, runs the golden cases once the version is AVAILABLE, and answers /readyz
with 200 only while both are as they must be. A version that failed to load, or that answers wrongly, ends this process
with a termination message: the kubelet shows it, the operator reads it, and the restart is the next try.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import grpc
import numpy as np
import structlog
from aiohttp import web
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from healthguard.logging import configure_logging
from serving.operator import certificates, golden
from serving.operator.failures import Failure
from serving.tfs.client import CallFailed, Client, Tls, VersionStatus

log = structlog.get_logger()

STATUS_TIMEOUT_S = 2.0
PREDICT_TIMEOUT_S = 60.0
"""The first request of a server may compile kernels."""
_POLL_S = 1.0

TIMEOUTS_MAX = 3
"""How many time-outs in a row a server that serves may have: a busy one is late, and still right."""


class State(Enum):
    """Where a server stands, as /status and the metric tell it."""

    LOADING = "Loading"
    TESTING = "Testing"
    SERVING = "Serving"


class Wrong(Exception):
    """The server can never become right; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True)
class Question:
    """What a prober is asked to prove."""

    model: str
    version: int
    folder: Path
    difference_max: float | None
    required: bool


class Prober:
    """Follows one version on one server."""

    def __init__(self, question: Question, client: Client) -> None:
        self._question = question
        self._client = client
        self.state = State.LOADING
        self._unanswered = 0
        self.registry = CollectorRegistry()
        self._serving = Gauge(
            "healthguard_model_server_ready", "Whether the version is loaded and right.", registry=self.registry
        )
        self._tests = Counter(
            "healthguard_golden_tests", "Golden tests that passed or failed.", ["result"], registry=self.registry
        )

    async def step(self) -> None:
        """
        Look once, and test if there is something new to test.

        Raises:
            Wrong: the version failed to load, or answers wrongly.
        """
        try:
            status = await self._status()
        except CallFailed as error:
            self._unanswered += 1
            self._enter(state_unanswered(self.state, error.code, self._unanswered))
            return
        self._unanswered = 0
        _raise_if_ended(status)
        if status is None or not status.available:
            # After a restart of the server everything is to be proved again.
            self._enter(State.LOADING)
        elif self.state is not State.SERVING:
            self._enter(State.TESTING)
            await self._test()

    async def _status(self) -> VersionStatus | None:
        found = await self._client.status(self._question.model, timeout_s=STATUS_TIMEOUT_S)
        return next((status for status in found if status.version == self._question.version), None)

    async def _test(self) -> None:
        try:
            cases = golden.load(self._question.folder)
            failure = await golden.failure_of(
                cases, self._ask, difference_max=self._question.difference_max, required=self._question.required
            )
        except golden.Unusable as error:
            failure = Failure("GoldenCasesUnusable", str(error))
        except CallFailed as error:
            if error.code.name in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "NOT_FOUND"):
                # The server went away meanwhile; that is for the next look.
                return
            failure = Failure("GoldenTestFailed", f"a golden case was refused with {error.code.name}")
        self._tests.labels("failed" if failure else "passed").inc()
        if failure:
            raise Wrong(failure)
        self._enter(State.SERVING)

    async def _ask(self, picture: NDArray[np.uint8]) -> dict[str, float]:
        asked = self._question
        answer = await self._client.predict(
            asked.model, asked.version, "", {"image": picture[None]}, timeout_s=PREDICT_TIMEOUT_S
        )
        return {name: float(np.ravel(array)[0]) for name, array in answer.outputs.items() if array.dtype.kind == "f"}

    def _enter(self, state: State) -> None:
        if state is not self.state:
            log.info("model_server_state_changed", state=state.value, model=self._question.model)
        self.state = state
        self._serving.set(state is State.SERVING)


def state_unanswered(state: State, code: grpc.StatusCode, in_a_row: int) -> State:
    """
    Return where a server stands after a look that it did not answer.

    Args:
        state: where it stood before.
        code: how this look failed.
        in_a_row: how many looks have failed since the last answer, this one among them.
    """
    # A server under load misses deadlines. Were it taken for gone at the first, its load would go to the other
    # replicas, and it would have the golden cases to answer on top. Every other code says that it is not there.
    late = code is grpc.StatusCode.DEADLINE_EXCEEDED and in_a_row <= TIMEOUTS_MAX
    return State.SERVING if state is State.SERVING and late else State.LOADING


def _raise_if_ended(status: VersionStatus | None) -> None:
    # A code without OK is how both servers say that the version did not load; without one it was taken away.
    if status is not None and status.state == "END" and status.error_code:
        raise Wrong(Failure("LoadFailed", f"the server could not load the version: {status.error}"))


def application(prober: Prober) -> web.Application:
    """Return the HTTP application: /livez, /readyz, /status and /metrics."""

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        ready = prober.state is State.SERVING
        return web.json_response({"status": "ready" if ready else "unavailable"}, status=200 if ready else 503)

    async def status(_: web.Request) -> web.Response:
        return web.json_response({"state": prober.state.value})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(prober.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    made = web.Application(client_max_size=1024)
    paths: Mapping[str, object] = {"/livez": livez, "/readyz": readyz, "/status": status, "/metrics": metrics}
    made.add_routes([web.get(path, handler) for path, handler in paths.items()])  # type: ignore[arg-type]  # all alike
    return made


async def run(question: Question, *, target: str, tls: Tls | None, port: int) -> None:
    """
    Probe until SIGTERM.

    Raises:
        Wrong: the version failed to load, or answers wrongly.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with Client(target, tls=tls) as client:
        prober = Prober(question, client)
        runner = web.AppRunner(application(prober), access_log=None)
        await runner.setup()
        try:
            # The kubelet asks from outside of the pod.
            await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104
            await _follow(prober, stopped)
        finally:
            await runner.cleanup()


async def _follow(prober: Prober, stopped: asyncio.Event) -> None:
    while not stopped.is_set():
        await prober.step()
        try:
            await asyncio.wait_for(stopped.wait(), _POLL_S)
        except TimeoutError:
            continue


def main(arguments: list[str]) -> int:
    """Probe; return 0 after an orderly end, 1 with a termination message where the version is wrong."""
    parser = argparse.ArgumentParser(prog="python -m serving.operator.prober", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", required=True, type=int)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--target", default="127.0.0.1:8500")
    parser.add_argument("--certificate", type=Path, help="folder of the certificate to show; none: plain gRPC")
    parser.add_argument("--server-name", default="", help="the name that the server's certificate must have")
    parser.add_argument("--port", type=int, default=8502)
    parser.add_argument("--max-difference", type=float, default=None)
    parser.add_argument("--golden-optional", action="store_true")
    options = parser.parse_args(arguments)
    configure_logging("prober")
    question = Question(
        options.model, options.version, options.folder, options.max_difference, not options.golden_optional
    )
    try:
        tls = certificates.read(options.certificate, options.server_name) if options.certificate else None
        asyncio.run(run(question, target=options.target, tls=tls, port=options.port))
    except certificates.Unusable as error:
        Failure("CertificateUnusable", str(error)).write()
        return 1
    except Wrong as wrong:
        log.warning("model_server_refused", reason=wrong.failure.reason, detail=wrong.failure.message)
        wrong.failure.write()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
