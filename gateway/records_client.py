"""Store predictions in records; nobody is given an answer that is not stored."""

import time
from dataclasses import asdict
from typing import Any

import structlog
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from gateway.metrics import PredictionMetrics
from gateway.predictor import Outcome, remaining_s
from gateway.problems import BadUpstream, IdempotencyMismatch, NotStored, UpstreamUnavailable
from gateway.schemas import NewPrediction
from gateway.uploads import Upload
from gateway.upstream import Answer, Upstream
from healthguard.problems import Forbidden, Problem, Unauthorized
from healthguard.tokens import Caller

log = structlog.get_logger()

GATEWAY_HEADER = "X-HealthGuard-Gateway"
ANONYMOUS_HEADER = "X-HealthGuard-Anonymous"
REFUSALS: dict[str, type[Problem]] = {"idempotency-mismatch": IdempotencyMismatch, "patient-not-allowed": Forbidden}
"""Problems of records that the client has caused; any other refusal is between records and us."""
AGAIN = (
    "It is not known whether the prediction was stored. Send it again with an Idempotency-Key to have it stored once."
)


class Records:
    """The records service, as the gateway uses it."""

    def __init__(self, upstream: Upstream, secret: str, metrics: PredictionMetrics) -> None:
        self.upstream = upstream
        self._secret = secret
        self._metrics = metrics

    def headers_for(self, caller: Caller | None) -> dict[str, str]:
        """Return the headers that say who asks: the caller's own token, or our word for a caller without one."""
        if caller is not None:
            return {"Authorization": f"Bearer {caller.token}"}
        return {GATEWAY_HEADER: self._secret, ANONYMOUS_HEADER: "1"}

    async def save(
        self,
        outcome: Outcome,
        upload: Upload,
        caller: Caller | None,
        *,
        request_id: str,
        deadline: float,
        patient: str | None = None,
        idempotency_key: str | None = None,
    ) -> NewPrediction:
        """
        Store a prediction for *caller*; return it as records has it.

        With an idempotency key that records has seen for the same image and model, that earlier prediction is returned.

        Args:
            deadline: by the event loop's clock. It may shorten the time that records has by half at most: a prediction
                that was made should not be thrown away because its making took long.

        Raises:
            NotStored: records is away, late or failing.
            IdempotencyMismatch: the idempotency key was used for another image, model or patient.
            Unauthorized, Forbidden: records refused the caller's token, which may have expired meanwhile.
            BadUpstream: records' answer is not of the agreed form.
        """
        headers = {**self.headers_for(caller), GATEWAY_HEADER: self._secret, "Content-Type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        started = time.perf_counter()
        try:
            answer = await self.upstream.call(
                "POST",
                "/v1/predictions",
                request_id=request_id,
                headers=headers,
                body=to_json(new_record(outcome, upload, patient)),
                timeout_s=max(remaining_s(deadline), self.upstream.timeout_s / 2),
            )
        except UpstreamUnavailable as exc:
            raise NotStored(AGAIN) from exc
        model, version = outcome.contract.model, outcome.contract.version
        self._metrics.observe_phases(model, version, {"save": time.perf_counter() - started})
        stored = _stored(answer)
        self._metrics.made(model, version, outcome.finding.outcome, outcome.caller_kind)
        stored.cached = outcome.cached
        return stored


def new_record(outcome: Outcome, upload: Upload, patient: str | None) -> dict[str, Any]:
    """Return what is stored of a prediction."""
    contract, finding = outcome.contract, outcome.finding
    record = {
        "model": contract.model,
        "version": contract.version,
        "weights_digest": contract.weights_digest,
        "task": contract.task,
        "outcome": finding.outcome,
        "score": outcome.score,
        "confidence": finding.confidence,
        "ood_score": outcome.ood_score,
        "recommendation": finding.recommendation,
        "image_hmac": outcome.image_hmac,
        "image_size_bytes": len(upload.image.content),
        "timings": asdict(outcome.timings),
        "filename": upload.filename,
        "patient": patient,
    }
    return {name: value for name, value in record.items() if value is not None}


def _stored(answer: Answer) -> NewPrediction:
    """
    Return the prediction of records' answer, or raise what its refusal means here.

    Raises:
        NotStored, IdempotencyMismatch, Unauthorized, Forbidden, BadUpstream: as `save` says.
    """
    if answer.status == 201:
        try:
            return NewPrediction.model_validate_json(answer.body)
        except ValidationError as exc:
            raise BadUpstream from exc
    slug = _slug(answer)
    log.warning("prediction_not_stored", status=answer.status, problem=slug)
    if answer.status >= 500 or answer.status == 429:
        raise NotStored(AGAIN)
    if answer.status == 401:
        raise Unauthorized("The access token does not hold.", error="invalid_token")
    raise REFUSALS.get(slug, BadUpstream)


def _slug(answer: Answer) -> str:
    """Return the last part of a problem's type; the rest of the body may hold more than a log should."""
    try:
        return str(from_json(answer.body)["type"]).rpartition(":")[2][:64]
    except (ValueError, KeyError, TypeError):
        return "unknown"
