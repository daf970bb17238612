"""
What handlers may ask for: a handler's signature is its list of needs.

All of these are coroutines, also where nothing is awaited: FastAPI runs a plain function in a worker thread, which
costs more than the function.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, TypedDict, cast

from fastapi import Depends, Header, Path, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from gateway.limits import AnonymousLimit, address_of
from gateway.predictor import Predictor
from gateway.problems import UnknownModel
from gateway.records_client import Records as RecordsClient
from gateway.served import ServedModel
from gateway.uploads import Upload, UploadBudget, UploadLimits, patient_of, read_upload
from gateway.upstream import Upstream
from healthguard.problems import Forbidden, ValidationFailed, request_id_of
from healthguard.tokens import Caller as TokenCaller
from healthguard.tokens import Role, TokenVerifier, bearer_token

SMALL_IMAGE_BYTES_MAX = 5 * 1024 * 1024 - 1
"""POST /api/predict has always taken images below 5 MB."""


class State(TypedDict):
    """The long-lived objects, built by the lifespan."""

    verifier: TokenVerifier
    models: dict[str, ServedModel]
    predictor: Predictor
    records: RecordsClient
    auth: Upstream
    upload_limits: UploadLimits
    upload_budget: UploadBudget
    forwarded_budget: UploadBudget
    trusted_hops: int
    anonymous: AnonymousLimit


def state_of(request: Request) -> State:
    """Return the long-lived objects of the application that serves *request*."""
    return cast(State, request.scope["state"])


def client_of(request: Request) -> str:
    """Return the network address of who asks, behind as many proxies as the setting says."""
    return address_of(request, state_of(request)["trusted_hops"])


Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(HTTPBearer(auto_error=False, bearerFormat="JWT", description="An access token: log in to get one.")),
]
"""Tells OpenAPI about the token; the header itself is read by `bearer_token`, which answers with our problem."""


async def verify_caller(request: Request, _documented: Bearer = None) -> TokenCaller:
    """
    Return who asks, from the access token; checked here, without a call.

    Raises:
        Unauthorized: there is no token, or one that does not hold.
        Unavailable: auth's keys were never had.
    """
    return await state_of(request)["verifier"].verify(bearer_token(request.headers.get("authorization")))


async def verify_caller_or_anonymous(request: Request, _documented: Bearer = None) -> TokenCaller | None:
    """
    Return who asks; None for a caller without a token, where the setting allows one, within the rate for such.

    Raises:
        Unauthorized, Unavailable: as `verify_caller`.
        TooManyRequests: the address has used up its requests without a token.
    """
    anonymous = state_of(request)["anonymous"]
    if anonymous.allowed and "authorization" not in request.headers:
        anonymous.hit(client_of(request))
        return None
    return await verify_caller(request)


async def model_named(request: Request, model: Annotated[str, Path(max_length=63, examples=["cancer"])]) -> ServedModel:
    """
    Return the model that the path names.

    Raises:
        UnknownModel: none of this name is served here.
    """
    found = state_of(request)["models"].get(model)
    if found is None:
        raise UnknownModel
    return found


def served(name: str) -> Callable[[Request], Awaitable[ServedModel]]:
    """Return a dependency on the model called *name*, for paths that name none."""

    async def find(request: Request) -> ServedModel:
        return await model_named(request, name)

    return find


async def read_image(request: Request) -> AsyncIterator[Upload]:
    """
    Read the image of the request, under the general limits.

    Raises:
        Problem: see `uploads.read_upload`.
    """
    state = state_of(request)
    async with read_upload(request, state["upload_limits"], state["upload_budget"]) as upload:
        yield upload


async def read_small_image(request: Request) -> AsyncIterator[Upload]:
    """
    Read the image of the request, below 5 MB.

    Raises:
        Problem: see `uploads.read_upload`.
    """
    state = state_of(request)
    general = state["upload_limits"]
    bytes_max = min(SMALL_IMAGE_BYTES_MAX, general.image_bytes_max)
    limits = UploadLimits(bytes_max, general.image_pixels_max, general.timeout_s)
    async with read_upload(request, limits, state["upload_budget"]) as upload:
        yield upload


async def named_patient(
    caller: Annotated[TokenCaller, Depends(verify_caller)],
    upload: Annotated[Upload, Depends(read_image)],
    x_patient: Annotated[
        str | None, Header(description="Whom the image is about; doctors only. Or the form field `patient`.")
    ] = None,
) -> str | None:
    """
    Return whom the image is about, as a form field or a header says; never the URL, which is logged everywhere.

    Raises:
        ValidationFailed: the name is not a valid one, or field and header differ.
        Forbidden: somebody who is no doctor names a patient.
    """
    in_header = patient_of(x_patient.encode("latin-1")) if x_patient is not None else None
    if in_header and upload.patient and in_header != upload.patient:
        raise ValidationFailed(errors=[{"location": "patient", "code": "ambiguous"}])
    patient = upload.patient or in_header
    if patient is not None and caller.role is not Role.DOCTOR:
        raise Forbidden("Only a doctor says whom an image is about.")
    return patient


async def _predictor(request: Request) -> Predictor:
    return state_of(request)["predictor"]


async def _records(request: Request) -> RecordsClient:
    return state_of(request)["records"]


async def _request_id(request: Request) -> str:
    return request_id_of(request)


Caller = Annotated[TokenCaller, Depends(verify_caller)]
CallerOrAnonymous = Annotated[TokenCaller | None, Depends(verify_caller_or_anonymous)]
Model = Annotated[ServedModel, Depends(model_named)]
Image = Annotated[Upload, Depends(read_image)]
SmallImage = Annotated[Upload, Depends(read_small_image)]
Patient = Annotated[str | None, Depends(named_patient)]
ModelPredictor = Annotated[Predictor, Depends(_predictor)]
Records = Annotated[RecordsClient, Depends(_records)]
RequestId = Annotated[str, Depends(_request_id)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,128}$",
        description="The same key again, with the same image, gives the first answer's record instead of a second one.",
    ),
]
