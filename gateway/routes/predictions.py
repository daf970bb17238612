"""Make a prediction and store it: the main job."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status

from gateway.deps import (
    Caller,
    Deadline,
    IdempotencyKey,
    Image,
    ModelPredictor,
    ModelToAsk,
    Patient,
    Records,
    RequestId,
)
from gateway.direct import DirectRoute
from gateway.explain import overlay
from gateway.openapi import OVERLAY, image_body, prediction_responses
from gateway.predictor import Outcome
from gateway.problems import BadUpstream, NoExplanation, NotStored
from gateway.schemas import Explanation, NewPrediction
from healthguard.problems import Forbidden, IdempotencyMismatch

router = APIRouter(prefix="/api/v1", tags=["predictions"], route_class=DirectRoute)

PNG = "image/png"

Explain = Annotated[
    bool,
    Query(description="Also say which part of the image the score came from: as numbers, or, to `Accept: image/png`, "
    "as that image instead of the record, whose place is then in the Location header."),
]  # fmt: skip


@router.post(
    "/models/{model}/predictions",
    status_code=status.HTTP_201_CREATED,
    summary="Make a prediction",
    description="The image goes in, the stored prediction comes out; the image itself is not kept.",
    response_description="The prediction, stored. Its place is in the Location header.",
    responses=OVERLAY | prediction_responses(Forbidden, NoExplanation, IdempotencyMismatch, NotStored, BadUpstream),
    openapi_extra=image_body(patient=True),
    response_model=NewPrediction,
    response_model_exclude_none=False,
)
async def create_prediction(
    *,
    caller: Caller,
    deadline: Deadline,
    model: ModelToAsk,
    image: Image,
    patient: Patient,
    predictor: ModelPredictor,
    records: Records,
    request_id: RequestId,
    request: Request,
    response: Response,
    explain: Explain = False,
    idempotency_key: IdempotencyKey = None,
) -> NewPrediction | Response:
    """Predict, save, answer: in this order, so that no answer is given that is not stored."""
    outcome = await predictor.predict(model, image, caller=caller, deadline=deadline, explain=explain)
    prediction = await records.save(
        outcome,
        image,
        caller,
        request_id=request_id,
        deadline=deadline,
        patient=patient,
        idempotency_key=idempotency_key,
    )
    headers = {"Location": f"/api/v1/predictions/{prediction.id}", **_cache_status(outcome)}
    if outcome.explanation is not None and wants_png(request.headers.get("accept", "")):
        picture = overlay(outcome.explanation.pixels, outcome.explanation.grid)
        return Response(picture, status.HTTP_201_CREATED, headers, PNG)
    if outcome.explanation is not None:
        prediction.explanation = Explanation.of(outcome.contract, outcome.explanation.grid.tolist())
    response.headers.update(headers)
    return prediction


def wants_png(accept: str) -> bool:
    """Tell whether a client names PNG and not JSON; who takes anything gets the record."""
    named = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return PNG in named and "application/json" not in named


def _cache_status(outcome: Outcome) -> dict[str, str]:
    """Return how the cache was used. Source: RFC 9211."""
    return {"Cache-Status": "HealthGuard; hit"} if outcome.cached else {}
