"""Call a model: within the model's limit and the request's deadline, at a replica that is well, once more where due."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc
import numpy as np
import structlog

from gateway.balancer import Replica, choose, choose_again, now_s
from gateway.contracts import BadHeatMap, BadScores, Contract
from gateway.metrics import PredictionMetrics
from gateway.outliers import is_outlier
from gateway.problems import ModelUnavailable, Overloaded, PredictionTimeout
from gateway.served import ServedModel, ServedVersion
from healthguard.problems import InternalError, Problem
from healthguard.telemetry import metadata_for_call
from serving.tfs.client import CallFailed
from serving.tfs.client import Prediction as Answer

log = structlog.get_logger()

Inputs = Mapping[str, np.ndarray[Any, Any]]

PROBLEMS_BY_CODE: dict[grpc.StatusCode, type[Problem]] = {
    grpc.StatusCode.UNAVAILABLE: ModelUnavailable,
    grpc.StatusCode.NOT_FOUND: ModelUnavailable,  # not loaded yet, or not any more
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: PredictionTimeout,
    grpc.StatusCode.INVALID_ARGUMENT: InternalError,  # the tensor is ours, and so is the mistake
}
"""What the client is told when a model server answers so; every other code is an InternalError."""

CONGESTION = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
)
"""Codes of a server that may have too much to do: fewer are sent at once after them."""

BLAMED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Codes that count against the replica."""

SCORES = "serving_default"
"""The signature by which versions are judged: heat maps take longer, and are asked for by few."""

PATIENCE_S = 1.0
"""A deadline that is shorter is the client's own wish: that it passed says nothing of the replica."""

GRACE_S = 0.05
"""How much later than gRPC's own deadline we give up a call, so that what happened is known to be a late server."""


@dataclass
class Attempt:
    """One prediction that is being made: which version it came to, and until when it may take."""

    model: ServedModel
    deadline: float
    """By the event loop's clock."""
    version: int | None = None
    congested: bool = False


class Calls:
    """Calls the model servers; too many at once for one model are refused."""

    def __init__(self, metrics: PredictionMetrics, random: Random) -> None:
        self.metrics = metrics
        self._random = random

    @asynccontextmanager
    async def admitted(
        self, model: ServedModel, deadline: float, problems: Mapping[grpc.StatusCode, type[Problem]] = PROBLEMS_BY_CODE
    ) -> AsyncIterator[Attempt]:
        """
        Take one place of the model's limit for the block, bound, time and count it; what goes wrong becomes a problem.

        Raises:
            Overloaded: the limit is reached.
            PredictionTimeout: the deadline passed.
            Problem: what *problems* say of a failed call, or the problem that the block raised.
        """
        attempt = Attempt(model, deadline)
        in_flight = self.metrics.in_flight.labels(model.name)
        with self._failures(attempt, problems):
            if not model.limit.take():
                self.metrics.shed.labels(model.name).inc()
                raise Overloaded(retry_after_ms=model.limit.retry_after_ms())
            in_flight.inc()
            started = now_s()
            try:
                async with asyncio.timeout_at(deadline + GRACE_S):
                    yield attempt
            except TimeoutError:
                attempt.congested = True
                raise
            finally:
                elapsed_s = now_s() - started
                model.limit.give_back(elapsed_s, started + elapsed_s, late=attempt.congested)
                in_flight.dec()
                self.metrics.duration.labels(model.name).observe(elapsed_s)

    @contextmanager
    def _failures(self, attempt: Attempt, problems: Mapping[grpc.StatusCode, type[Problem]]) -> Iterator[None]:
        """
        Turn what went wrong into a problem, and count it.

        Raises:
            Problem: as `admitted` says.
        """
        name = attempt.model.name
        try:
            try:
                yield
            except CallFailed as exc:
                log.warning("prediction_call_failed", model=name, code=exc.code.name)
                raise problems.get(exc.code, InternalError)() from exc
            except TimeoutError as exc:
                raise PredictionTimeout from exc
            except BadScores as exc:
                if not isinstance(exc, BadHeatMap):
                    self.metrics.call_failed(name, attempt.version or 0)
                log.error("prediction_scores_refused", model=name)  # noqa: TRY400 - the text of scores stays out of logs
                raise InternalError from exc
        except Problem as problem:
            self.metrics.failures.labels(name, attempt.version or "", problem.slug).inc()
            raise

    async def call(
        self, attempt: Attempt, version: ServedVersion, contract: Contract, signature: str, inputs: Inputs
    ) -> Answer:
        """
        Call a version; where a server is UNAVAILABLE, once more if `choose_again` and the budget say so.

        Only UNAVAILABLE: any other code says that the call arrived, and would cost or fail the same again.

        Raises:
            CallFailed: the call, or its second try, failed.
            ModelUnavailable: no server has the version.
            TimeoutError: no time is left.
        """
        replicas = version.serving(contract)
        retries = attempt.model.retries
        retries.earn()
        replica = choose(replicas, self._random, now_s())
        try:
            return await self.once(version, replica, signature, inputs, attempt.deadline)
        except CallFailed as exc:
            attempt.congested = exc.code in CONGESTION and replica.client.connected
            if exc.code is not grpc.StatusCode.UNAVAILABLE:
                raise
            again = choose_again(version.serving(contract), replica, self._random, now_s())
            if again is None or not retries.spend():
                raise
        self.metrics.retries.labels(version.model).inc()
        return await self.once(version, again, signature, inputs, attempt.deadline)

    async def once(
        self, version: ServedVersion, replica: Replica, signature: str, inputs: Inputs, deadline: float
    ) -> Answer:
        """
        Call one replica with the time that is left, and keep account of how it behaves.

        Raises:
            CallFailed: any gRPC code but OK.
            TimeoutError: no time is left.
        """
        timeout_s = deadline - asyncio.get_running_loop().time()
        if timeout_s <= 0:
            raise TimeoutError
        replica.in_flight += 1
        started = now_s()
        try:
            answer = await replica.client.predict(
                version.model, version.number, signature, inputs, timeout_s=timeout_s, metadata=metadata_for_call()
            )
        except CallFailed as exc:
            # A deadline that was the client's own wish says nothing of the replica, and nothing of the version: counted
            # as a call that did not fail, it would be evidence for one that only hangs.
            if exc.code is not grpc.StatusCode.DEADLINE_EXCEEDED or timeout_s >= PATIENCE_S:
                self._count(version, signature, started, exc.code)
                self._blame(version, replica, exc.code)
            raise
        finally:
            replica.in_flight -= 1
        self._count(version, signature, started)
        replica.conduct.answered(now_s() - started)
        if len(version.replicas) > 1:
            self._judge(version, replica)
        return answer

    def _count(
        self, version: ServedVersion, signature: str, started: float, failed: grpc.StatusCode | None = None
    ) -> None:
        """Count a call by which the version is judged."""
        if signature != SCORES:
            return
        self.metrics.called(version.model, version.number, now_s() - started)
        if failed is not None:
            self.metrics.call_failed(version.model, version.number, failed.name)

    def _blame(self, version: ServedVersion, replica: Replica, code: grpc.StatusCode) -> None:
        if code not in BLAMED:
            return
        if code in CONGESTION:
            replica.doubted.set()
        replica.conduct.failed()
        self._judge(version, replica)

    def _judge(self, version: ServedVersion, replica: Replica) -> None:
        """Leave a replica out for a while where it does much worse than the others."""
        now = now_s()
        peers = [other.conduct for other in version.replicas if other is not replica and other.contract is not None]
        if replica.conduct.ejected_until > now or not is_outlier(replica.conduct, peers, now):
            return
        out_s = replica.conduct.eject(now)
        # After that it begins small again.
        replica.ready_at = now + out_s
        self.metrics.ejections.labels(version.model).inc()
        log.warning("model_server_ejected", model=version.model, version=version.number, for_s=out_s)
