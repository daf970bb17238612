"""The prediction paths of the breast-cancer application, as its clients know them (docs/existing-api.md)."""

from typing import Annotated

from fastapi import APIRouter, Depends, status

from gateway.contracts import INDETERMINATE
from gateway.deps import Caller, Deadline, IdempotencyKey, Image, ModelPredictor, Records, RequestId, served
from gateway.direct import DirectRoute
from gateway.openapi import image_body, prediction_responses
from gateway.predictor import Outcome
from gateway.problems import BadUpstream, Indeterminate, NotStored
from gateway.schemas import OldPrediction, OldPredictionAndRecord, OldRecord
from gateway.served import ServedModel
from gateway.uploads import Upload
from healthguard.problems import IdempotencyMismatch

router = APIRouter(prefix="/api", tags=["breast cancer, old names"], route_class=DirectRoute)

CancerModel = Annotated[ServedModel, Depends(served("cancer"))]


@router.post(
    "/inference/predict",
    summary="Make a prediction and store nothing",
    responses=prediction_responses(Indeterminate),
    openapi_extra=image_body(),
)
async def predict(
    caller: Caller, deadline: Deadline, model: CancerModel, image: Image, predictor: ModelPredictor
) -> OldPrediction:
    """Predict and answer."""
    outcome = await predictor.predict(model, image, caller=caller, deadline=deadline)
    prediction = old_prediction(outcome, image)
    predictor.answered(outcome)
    return prediction


@router.post(
    "/workflow/predict-and-save",
    status_code=status.HTTP_201_CREATED,
    summary="Make a prediction and store it",
    responses=prediction_responses(Indeterminate, IdempotencyMismatch, NotStored, BadUpstream),
    openapi_extra=image_body(),
)
async def predict_and_save(
    *,
    caller: Caller,
    deadline: Deadline,
    model: CancerModel,
    image: Image,
    predictor: ModelPredictor,
    records: Records,
    request_id: RequestId,
    idempotency_key: IdempotencyKey = None,
) -> OldPredictionAndRecord:
    """Predict, save, answer; an indeterminate image is refused and nothing is stored."""
    outcome = await predictor.predict(model, image, caller=caller, deadline=deadline)
    prediction = old_prediction(outcome, image)
    stored = await records.save(
        outcome, image, caller, request_id=request_id, deadline=deadline, idempotency_key=idempotency_key
    )
    return OldPredictionAndRecord(prediction=prediction, record=OldRecord.of(stored))


def old_prediction(outcome: Outcome, image: Upload) -> OldPrediction:
    """
    Return an outcome as these clients know it.

    Raises:
        Indeterminate: they know no such answer.
    """
    finding = outcome.finding
    if finding.outcome == INDETERMINATE or finding.confidence is None:
        raise Indeterminate(finding.recommendation)
    return OldPrediction(prediction=finding.outcome, confidence=finding.confidence, filename=image.filename)
