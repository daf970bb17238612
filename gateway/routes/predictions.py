"""Make a prediction and store it: the main job."""

from fastapi import APIRouter, Response, status

from gateway.deps import Caller, IdempotencyKey, Image, Model, ModelPredictor, Patient, Records, RequestId
from gateway.openapi import image_body, prediction_responses
from gateway.problems import BadUpstream, IdempotencyMismatch, NotStored
from gateway.schemas import Prediction
from healthguard.problems import Forbidden

router = APIRouter(prefix="/api/v1", tags=["predictions"])


@router.post(
    "/models/{model}/predictions",
    status_code=status.HTTP_201_CREATED,
    summary="Make a prediction",
    description="The image goes in, the stored prediction comes out; the image itself is not kept.",
    response_description="The prediction, stored. Its place is in the Location header.",
    responses=prediction_responses(Forbidden, IdempotencyMismatch, NotStored, BadUpstream),
    openapi_extra=image_body(patient=True),
)
async def create_prediction(
    *,
    caller: Caller,
    model: Model,
    image: Image,
    patient: Patient,
    predictor: ModelPredictor,
    records: Records,
    request_id: RequestId,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Prediction:
    """Predict, save, answer: in this order, so that no answer is given that is not stored."""
    outcome = await predictor.predict(model, image)
    prediction = await records.save(
        outcome, image, caller, request_id=request_id, patient=patient, idempotency_key=idempotency_key
    )
    response.headers["Location"] = f"/api/v1/predictions/{prediction.id}"
    return prediction
