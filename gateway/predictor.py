"""From an image to a finding: decode it, choose a version, call it under a deadline, read the scores."""

import asyncio
import time
from dataclasses import dataclass
from random import Random

from gateway.answers import Answers, Scores, key_of
from gateway.calls import Attempt, Calls
from gateway.contracts import Contract, Finding, decide
from gateway.explain import Grid, grid_of
from gateway.images import Decoder, Pixels
from gateway.problems import NoExplanation
from gateway.scores import Scored, rows_of, scores_of
from gateway.served import ServedModel, ServedVersion
from gateway.shadows import Shadows
from gateway.traffic import drawn_for
from gateway.uploads import Upload
from healthguard.tokens import Caller


@dataclass(frozen=True)
class Timings:
    """How long each phase of a prediction took; milliseconds."""

    read_ms: float
    decode_ms: float
    inference_ms: float


@dataclass(frozen=True)
class Explanation:
    """Which part of the picture the score came from, and the picture as the model saw it."""

    grid: Grid
    pixels: Pixels


@dataclass(frozen=True)
class Outcome:
    """A finding with what it came from: all that is recorded; of the picture nothing but its keyed hash."""

    contract: Contract
    finding: Finding
    score: float
    ood_score: float
    image_hmac: str
    timings: Timings
    caller_kind: str
    cached: bool = False
    """Whether the scores are those that the version gave for the same pixels before."""
    explanation: Explanation | None = None


def kind_of(caller: Caller | None) -> str:
    """Return what kind of caller asks, for metrics: never who."""
    if caller is None:
        return "anonymous"
    return "api_key" if "api_key" in caller.methods else caller.role.value


class Predictor:
    """Makes predictions with the served models."""

    def __init__(
        self,
        decoder: Decoder,
        calls: Calls,
        shadows: Shadows,
        answers: Answers | None,
        *,
        sticky_key: bytes,
        random: Random,
    ) -> None:
        """
        Args:
            answers: where answers are kept for the same pixels; None: every picture is asked.
            sticky_key: the key of the hash by which callers stay with a canary.
        """
        self._decoder = decoder
        self._calls = calls
        self._metrics = calls.metrics
        self._shadows = shadows
        self._answers = answers
        self._sticky_key = sticky_key
        self._random = random

    async def predict(
        self,
        model: ServedModel,
        upload: Upload,
        *,
        caller: Caller | None,
        deadline: float,
        explain: bool = False,
    ) -> Outcome:
        """
        Make a prediction with the version that answers this request.

        Args:
            deadline: by the event loop's clock.
            explain: ask for the heat map, too.

        Raises:
            Overloaded: too many predictions of this model are in flight, here or at its servers.
            ModelUnavailable: no server has the version.
            BrokenImage: the image cannot be decoded to its end.
            PredictionTimeout: it took too long.
            NoExplanation: one was asked for, and the version gives none.
            InternalError: the model refused our tensor, or gave no probability.
        """
        async with self._calls.admitted(model, deadline) as attempt:
            version, contract = model.answering(self.draw(model, caller))
            attempt.version = version.number
            decoded = await self._decoder.decode(upload.image, contract.input)
            rows = rows_of(decoded.pixels, contract.input)
            asked_at = time.perf_counter()
            scores, cached = await self._scores(attempt, version, contract, rows, decoded.hmac)
            finding = decide(contract, *scores)
            explanation = await self._explain(attempt, version, contract, rows) if explain else None
            inference_s = time.perf_counter() - asked_at
        phases = {"read": upload.read_s, "queue": decoded.queue_s, "decode": decoded.decode_s, "inference": inference_s}
        self._metrics.observe_phases(contract.model, contract.version, phases)
        if not cached:
            self._shadows.compare(model, rows, Scored(version.number, scores[0], finding.outcome))
        timings = Timings(*(round(1000 * phases[name], 3) for name in ("read", "decode", "inference")))
        return Outcome(
            contract, finding, *scores, decoded.hmac, timings, kind_of(caller), cached=cached, explanation=explanation
        )

    def draw(self, model: ServedModel, caller: Caller | None) -> float:
        """Return the draw by which this request gets its version; a caller's own where the canary is sticky."""
        canary = model.traffic.canary
        if canary is not None and canary.sticky and caller is not None:
            return drawn_for(self._sticky_key, model.name, model.traffic, caller.subject)
        return self._random.random()

    async def _scores(
        self, attempt: Attempt, version: ServedVersion, contract: Contract, rows: Pixels, image_hmac: str
    ) -> tuple[Scores, bool]:
        """
        Return the version's scores for these pixels, and whether they were known before.

        Raises:
            CallFailed, ModelUnavailable, TimeoutError: the call failed.
            BadScores: what came back are no scores.
        """
        if self._answers is None:
            return scores_of(
                await self._calls.call(attempt, version, contract, "serving_default", {"image": rows})
            ), False
        key = key_of(contract, image_hmac)
        known = await self._answers.get(key)
        self._metrics.cache.labels(contract.model, "miss" if known is None else "hit").inc()
        if known is not None:
            return known, True
        scores = scores_of(await self._calls.call(attempt, version, contract, "serving_default", {"image": rows}))
        # Before it is kept: what is no probability must not come back from there, either.
        decide(contract, *scores)
        await self._answers.put(key, scores)
        return scores, False

    async def _explain(self, attempt: Attempt, version: ServedVersion, contract: Contract, rows: Pixels) -> Explanation:
        """
        Return which part of the picture the score came from.

        Raises:
            NoExplanation: this version gives none.
            CallFailed, ModelUnavailable, TimeoutError: the call failed.
            BadScores: what came back is no heat map.
        """
        if contract.explain.method == "none":
            raise NoExplanation
        answer = await self._calls.call(attempt, version, contract, "explain", {"image": rows})
        return Explanation(grid_of(answer, contract), rows[0])

    def refused(self, model: ServedModel) -> None:
        """Count a prediction that was refused before its image was read."""
        self._metrics.shed.labels(model.name).inc()

    def answered(self, outcome: Outcome) -> None:
        """Count a prediction that was answered and is not stored; those that are, `Records.save` counts."""
        self._metrics.made(
            outcome.contract.model, outcome.contract.version, outcome.finding.outcome, outcome.caller_kind
        )


def remaining_s(deadline: float) -> float:
    """Return the time that is left, seconds; 0 where none is."""
    return max(0.0, deadline - asyncio.get_running_loop().time())
