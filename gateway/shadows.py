"""Ask a second version beside the one that answered, and count whether they agree; nobody waits for it."""

import asyncio
from random import Random

import structlog

from gateway.balancer import choose, now_s
from gateway.calls import Calls
from gateway.contracts import BadScores, Contract, decide
from gateway.images import Pixels
from gateway.problems import ModelUnavailable
from gateway.scores import Scored, scores_of
from gateway.served import ServedModel
from gateway.traffic import shadow_for
from serving.tfs.client import CallFailed

log = structlog.get_logger()


class Shadows:
    """Asks beside, a few at a time; while they are busy the rest is dropped and counted, and nothing waits."""

    def __init__(self, calls: Calls, random: Random, *, in_flight_max: int, timeout_s: float) -> None:
        self._calls = calls
        self._metrics = calls.metrics
        self._random = random
        self._in_flight_max = in_flight_max
        self._timeout_s = timeout_s
        self._tasks: set[asyncio.Task[None]] = set()

    def compare(self, model: ServedModel, rows: Pixels, answered: Scored) -> None:
        """Have another version asked about *rows*, where the model's split says so; return at once."""
        number = shadow_for(model.traffic, answered.version, self._random.random())
        if number is None or number == answered.version:
            return
        # Of the two, the one on trial is counted.
        trial = answered.version if number == model.stable else number
        if len(self._tasks) >= self._in_flight_max:
            self._count(model, trial, "dropped")
            return
        task = asyncio.create_task(self._compare(model, number, trial, rows, answered))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is being asked."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _compare(self, model: ServedModel, number: int, trial: int, rows: Pixels, answered: Scored) -> None:
        try:
            version, contract = model.version(number)
            if rows.shape[1:3] != (contract.input.height, contract.input.width):
                self._count(model, trial, "incomparable")
                return
            replica = choose(version.serving(contract), self._random, now_s())
            deadline = asyncio.get_running_loop().time() + self._timeout_s
            answer = await self._calls.once(version, replica, "serving_default", {"image": rows}, deadline)
            self._weigh(model, trial, answered, _scored(contract, *scores_of(answer)))
        except BadScores:
            self._metrics.call_failed(model.name, number)
            self._count(model, trial, "failed")
        except (CallFailed, ModelUnavailable, TimeoutError):
            self._count(model, trial, "failed")

    def _weigh(self, model: ServedModel, trial: int, one: Scored, other: Scored) -> None:
        self._count(model, trial, "agree" if one.outcome == other.outcome else "differ")
        self._metrics.comparison_difference.labels(model.name, trial).observe(abs(one.score - other.score))

    def _count(self, model: ServedModel, trial: int, result: str) -> None:
        self._metrics.comparisons.labels(model.name, trial, result).inc()


def _scored(contract: Contract, probability: float, ood_score: float) -> Scored:
    return Scored(contract.version, probability, decide(contract, probability, ood_score).outcome)
