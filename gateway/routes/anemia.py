"""The prediction paths of the anemia application, as its clients know them (docs/existing-api.md)."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from gateway.contracts import INDETERMINATE
from gateway.deps import (
    CallerOrAnonymous,
    Deadline,
    IdempotencyKey,
    ModelPredictor,
    Records,
    RequestId,
    SmallImage,
    served,
)
from gateway.direct import DirectRoute
from gateway.forwarding import Passed, forward
from gateway.openapi import image_body, prediction_responses
from gateway.problems import BadUpstream, Indeterminate, NotStored, TooManyRequests
from gateway.schemas import OldRisk, Prediction
from gateway.served import ServedModel
from healthguard.problems import IdempotencyMismatch

router = APIRouter(prefix="/api", tags=["anemia, old names"], route_class=DirectRoute)

RESULTS = Passed("/results", ("GET",))

AnemiaModel = Annotated[ServedModel, Depends(served("anemia"))]


@router.post(
    "/predict",
    summary="Make a prediction and store it",
    description="The image is smaller than 5 MB. Works without a token only where the installation allows it.",
    responses=prediction_responses(Indeterminate, IdempotencyMismatch, NotStored, BadUpstream, TooManyRequests),
    openapi_extra=image_body(),
)
async def predict(
    *,
    caller: CallerOrAnonymous,
    deadline: Deadline,
    model: AnemiaModel,
    image: SmallImage,
    predictor: ModelPredictor,
    records: Records,
    request_id: RequestId,
    idempotency_key: IdempotencyKey = None,
) -> OldRisk:
    """Predict, save, answer; an indeterminate image is refused and nothing is stored."""
    outcome = await predictor.predict(model, image, caller=caller, deadline=deadline)
    if outcome.finding.outcome == INDETERMINATE:
        raise Indeterminate(outcome.finding.recommendation)
    stored = await records.save(
        outcome, image, caller, request_id=request_id, deadline=deadline, idempotency_key=idempotency_key
    )
    return old_risk(stored)


@router.get(
    RESULTS.path,
    response_model=None,
    # OpenAPI gets it from records' own document.
    include_in_schema=False,
)
async def results(request: Request, caller: CallerOrAnonymous, records: Records) -> Response:
    """Ask records."""
    return await forward(request, records.upstream, RESULTS.path, headers=records.headers_for(caller))


def old_risk(stored: Prediction) -> OldRisk:
    """Return a stored prediction as these clients know it."""
    return OldRisk(
        condition=stored.model or "",
        risk_level=stored.outcome.lower(),
        confidence=stored.confidence or 0.0,
        recommendation=stored.recommendation,
        analysis_date=stored.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        message_id=f"pred_{stored.id.hex}",
    )
