"""From an image to a finding: decode it, choose a replica, call the model under a deadline, read the scores."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc
import numpy as np
import structlog

from gateway.balancer import Replica, choose, choose_again
from gateway.contracts import BadScores, Contract, Finding, InputSpec, decide
from gateway.images import Decoder, Pixels
from gateway.metrics import PredictionMetrics
from gateway.problems import ModelUnavailable, Overloaded, PredictionTimeout
from gateway.served import ServedModel
from gateway.uploads import Upload
from healthguard.problems import InternalError, Problem
from serving.tfs.client import CallFailed
from serving.tfs.client import Prediction as Answer

log = structlog.get_logger()

PROBLEMS_BY_CODE: dict[grpc.StatusCode, type[Problem]] = {
    grpc.StatusCode.UNAVAILABLE: ModelUnavailable,
    grpc.StatusCode.NOT_FOUND: ModelUnavailable,  # not loaded yet, or not any more
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: PredictionTimeout,
    grpc.StatusCode.INVALID_ARGUMENT: InternalError,  # the tensor is ours, and so is the mistake
}
"""What the client is told when a model server answers so; every other code is an InternalError."""


@dataclass(frozen=True)
class Timings:
    """How long each phase of a prediction took; milliseconds."""

    read_ms: float
    decode_ms: float
    inference_ms: float


@dataclass(frozen=True)
class Outcome:
    """A finding with what it came from: all that is recorded; of the picture nothing but its keyed hash."""

    contract: Contract
    finding: Finding
    score: float
    ood_score: float
    image_hmac: str
    timings: Timings


class Predictor:
    """Makes predictions with the served models; too many at once of one model are refused."""

    def __init__(
        self, decoder: Decoder, metrics: PredictionMetrics, *, timeout_s: float, in_flight_max: int, random: Random
    ) -> None:
        self._decoder = decoder
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._in_flight_max = in_flight_max
        self._random = random

    async def predict(self, model: ServedModel, upload: Upload) -> Outcome:
        """
        Make a prediction with the model's stable version.

        Raises:
            Overloaded: too many predictions of this model are in flight, here or at its servers.
            ModelUnavailable: no server has the version.
            BrokenImage: the image cannot be decoded to its end.
            PredictionTimeout: it took too long.
            InternalError: the model refused our tensor, or gave no probability.
        """
        async with self._measured(model) as deadline:
            contract = model.contract()
            decoded = await self._decoder.decode(upload.image, contract.input)
            asked_at = time.perf_counter()
            answer = await self._ask(model, contract, decoded.pixels, deadline)
            inference_s = time.perf_counter() - asked_at
            score, ood_score = scores_of(answer)
            finding = decide(contract, score, ood_score)
        phases = {"read": upload.read_s, "queue": decoded.queue_s, "decode": decoded.decode_s, "inference": inference_s}
        self._observe(contract, phases)
        timings = Timings(*(round(1000 * phases[name], 3) for name in ("read", "decode", "inference")))
        return Outcome(contract, finding, score, ood_score, decoded.hmac, timings)

    @asynccontextmanager
    async def _measured(self, model: ServedModel) -> AsyncIterator[asyncio.Timeout]:
        """Count, time and bound one prediction; what goes wrong in it becomes a problem."""
        in_flight = self._metrics.in_flight.labels(model.name)
        with self._failures(model):
            if model.in_flight >= self._in_flight_max:
                raise Overloaded
            model.in_flight += 1
            in_flight.set(model.in_flight)
            try:
                with self._metrics.duration.labels(model.name).time():
                    async with asyncio.timeout(self._timeout_s) as deadline:
                        yield deadline
            finally:
                model.in_flight -= 1
                in_flight.set(model.in_flight)

    @contextmanager
    def _failures(self, model: ServedModel) -> Iterator[None]:
        """
        Turn what went wrong into a problem, and count it.

        Raises:
            Problem: what `PROBLEMS_BY_CODE` says of a failed call; a timeout; or the problem itself.
        """
        try:
            try:
                yield
            except CallFailed as exc:
                log.warning("prediction_call_failed", model=model.name, code=exc.code.name)
                raise PROBLEMS_BY_CODE.get(exc.code, InternalError)() from exc
            except TimeoutError as exc:
                raise PredictionTimeout from exc
            except BadScores as exc:
                log.error("prediction_scores_refused", model=model.name)  # noqa: TRY400 - the text of scores stays out of logs
                raise InternalError from exc
        except Problem as problem:
            self._metrics.failures.labels(model.name, problem.slug).inc()
            raise

    async def _ask(self, model: ServedModel, contract: Contract, pixels: Pixels, deadline: asyncio.Timeout) -> Answer:
        """
        Call the model; where a server is UNAVAILABLE, once more if `choose_again` and the budget say so.

        Only UNAVAILABLE: any other code says that the call arrived, and would cost or fail the same again.

        Raises:
            CallFailed: the call, or its second try, failed.
            ModelUnavailable: no server has the version.
        """
        rows = rows_of(pixels, contract.input)
        replicas = model.serving(contract)
        model.retries.earn()
        replica = choose(replicas, self._random)
        try:
            return await _call(replica, contract, rows, deadline)
        except CallFailed as exc:
            again = choose_again(replicas, replica, self._random)
            if exc.code is not grpc.StatusCode.UNAVAILABLE or again is None or not model.retries.spend():
                raise
        self._metrics.retries.labels(model.name).inc()
        return await _call(again, contract, rows, deadline)

    def answered(self, outcome: Outcome) -> None:
        """Count a prediction that was answered and is not stored; those that are, `Records.save` counts."""
        self._metrics.made(outcome.contract.model, outcome.contract.version, outcome.finding.outcome)

    def _observe(self, contract: Contract, phases: dict[str, float]) -> None:
        for phase, seconds in phases.items():
            self._metrics.phases.labels(contract.model, phase).observe(seconds)


async def _call(replica: Replica, contract: Contract, rows: Pixels, deadline: asyncio.Timeout) -> Answer:
    """
    Call one replica with the time that is left.

    Raises:
        CallFailed: any gRPC code but OK.
        TimeoutError: no time is left.
    """
    timeout_s = (deadline.when() or 0.0) - asyncio.get_running_loop().time()
    if timeout_s <= 0:
        raise TimeoutError
    replica.in_flight += 1
    try:
        return await replica.client.predict(
            contract.model, contract.version, "serving_default", {"image": rows}, timeout_s=timeout_s
        )
    except CallFailed as exc:
        if exc.code is grpc.StatusCode.UNAVAILABLE:
            replica.doubted.set()
        raise
    finally:
        replica.in_flight -= 1


def rows_of(pixels: Pixels, spec: InputSpec) -> Pixels:
    """
    Return one picture as a batch of one, once rank, shape and type are what the model takes.

    A server may abort on a tensor of another rank (a fault of oneDNN in TensorFlow 2.21), and take other requests with
    it.

    Raises:
        InternalError: they are not.
    """
    if pixels.shape != (spec.height, spec.width, 3) or pixels.dtype != np.uint8:
        raise InternalError
    return pixels[None]


def scores_of(answer: Answer) -> tuple[float, float]:
    """
    Return the probability and the out-of-distribution score of a batch of one.

    Raises:
        BadScores: an output is missing, or not one number.
    """
    return _score(answer, "probability"), _score(answer, "ood_score")


def _score(answer: Answer, output: str) -> float:
    values: np.ndarray[Any, Any] | None = answer.outputs.get(output)
    if values is None or values.shape != (1,) or values.dtype != np.float32:
        raise BadScores
    return float(values[0])
