"""Store predictions in records; nobody is given an answer that is not stored."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from gateway.metrics import PredictionMetrics
from gateway.predictor import Outcome, remaining_s
from gateway.problems import BadUpstream, NotStored, UpstreamUnavailable
from gateway.saves import Save, Saves
from gateway.schemas import NewPrediction
from gateway.uploads import Upload
from gateway.upstream import Answer, Upstream
from healthguard.problems import Forbidden, IdempotencyMismatch, Problem, Unauthorized
from healthguard.tokens import Caller

log = structlog.get_logger()

GATEWAY_HEADER = "X-HealthGuard-Gateway"
ANONYMOUS_HEADER = "X-HealthGuard-Anonymous"
JSON = {"Content-Type": "application/json"}
REFUSALS: dict[str, type[Problem]] = {"idempotency-mismatch": IdempotencyMismatch, "patient-not-allowed": Forbidden}
"""Problems of records that the client has caused; any other refusal is between records and us."""


class _Saved(BaseModel):
    """Records' answer to several saves."""

    saved: list[NewPrediction]


class Records:
    """The records service, as the gateway uses it."""

    def __init__(self, upstream: Upstream, secret: str, metrics: PredictionMetrics) -> None:
        self.upstream = upstream
        self._secret = secret
        self._metrics = metrics
        self._saves = Saves(self._store_one, self._store_many)

    def headers_for(self, caller: Caller | None) -> dict[str, str]:
        """Return the headers that say who asks: the caller's own token, or our word for a caller without one."""
        return self._headers_of(caller.token if caller is not None else None)

    def _headers_of(self, token: str | None) -> dict[str, str]:
        if token is not None:
            return {"Authorization": f"Bearer {token}"}
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
        timeout_s = max(remaining_s(deadline), self.upstream.timeout_s / 2)
        token = caller.token if caller is not None else None
        save = Save(token, to_json(new_record(outcome, upload, patient)), request_id)
        started = time.perf_counter()
        if idempotency_key is None:
            stored = await self._saves.store(save, timeout_s)
        else:
            # A repeat may be refused, or get another record than its own: that is between it and records alone.
            stored = await self._store_one(save, timeout_s, {"Idempotency-Key": idempotency_key})
        model, version = outcome.contract.model, outcome.contract.version
        self._metrics.observe_phases(model, version, {"save": time.perf_counter() - started})
        self._metrics.made(model, version, outcome.finding.outcome, outcome.caller_kind)
        stored.cached = outcome.cached
        return stored

    async def _store_one(
        self, save: Save, timeout_s: float | None, headers: Mapping[str, str] | None = None
    ) -> NewPrediction:
        """
        Store one record for its caller.

        Raises:
            Problem: as `save` says.
        """
        asking = self._headers_of(save.token) | {GATEWAY_HEADER: self._secret} | JSON | dict(headers or {})
        return _stored(await self._call("/v1/predictions", asking, save.record, save.request_id, timeout_s))

    async def _store_many(self, saves: Sequence[Save]) -> Sequence[NewPrediction] | None:
        """
        Store several records, all or none; None: they were refused.

        Raises:
            NotStored: records is away, late or failing.
            BadUpstream: records' answer is not of the agreed form.
        """
        asking = {GATEWAY_HEADER: self._secret, **JSON}
        each = (b'{"token":%b,"record":%b}' % (to_json(save.token), save.record) for save in saves)
        body = b'{"saves":[%b]}' % b",".join(each)
        answer = await self._call("/v1/predictions/together", asking, body, saves[0].request_id, None)
        if 400 <= answer.status < 500 and answer.status != 429:
            log.info("predictions_refused_together", status=answer.status, problem=_slug(answer))
            return None
        if answer.status != 201:
            log.warning("predictions_not_stored", status=answer.status, problem=_slug(answer), count=len(saves))
            raise NotStored
        try:
            found = _Saved.model_validate_json(answer.body).saved
        except ValidationError as exc:
            raise BadUpstream from exc
        if len(found) != len(saves):
            raise BadUpstream
        return found

    async def _call(
        self, path: str, headers: Mapping[str, str], body: bytes, request_id: str, timeout_s: float | None
    ) -> Answer:
        """
        Send something to be stored.

        Raises:
            NotStored: records is away or late.
        """
        try:
            return await self.upstream.call(
                "POST", path, request_id=request_id, headers=headers, body=body, timeout_s=timeout_s
            )
        except UpstreamUnavailable as exc:
            raise NotStored from exc


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
        raise NotStored
    if answer.status == 401:
        raise Unauthorized("The access token does not hold.", error="invalid_token")
    raise REFUSALS.get(slug, BadUpstream)


def _slug(answer: Answer) -> str:
    """Return the last part of a problem's type; the rest of the body may hold more than a log should."""
    try:
        return str(from_json(answer.body)["type"]).rpartition(":")[2][:64]
    except (ValueError, KeyError, TypeError):
        return "unknown"
