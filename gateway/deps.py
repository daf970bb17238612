"""
What handlers may ask for: a handler's signature is its list of needs.

All of these are coroutines, also where nothing is awaited: FastAPI runs a plain function in a worker thread, which
costs more than the function.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Annotated, TypedDict, cast

from fastapi import Depends, Header, Path, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from gateway.credentials import KEY_HEADER, Credentials
from gateway.headers import CALLER, STANDING
from gateway.limits import CallerLimits
from gateway.open_inference import OpenInference
from gateway.predictor import Predictor
from gateway.problems import Overloaded, UnknownModel
from gateway.records_client import Records as RecordsClient
from gateway.served import ServedModel
from gateway.uploads import Upload, UploadBudget, UploadLimits, patient_of, read_upload
from gateway.upstream import Upstream
from healthguard.idempotency import IdempotencyText
from healthguard.problems import Forbidden, ValidationFailed, request_id_of
from healthguard.sources import Network, address_of
from healthguard.tokens import Caller as TokenCaller
from healthguard.tokens import Role

SMALL_IMAGE_BYTES_MAX = 5 * 1024 * 1024 - 1
"""POST /api/predict has always taken images below 5 MB."""


REQUEST_TIMEOUT_MIN_S, REQUEST_TIMEOUT_MAX_S = 0.1, 3600.0
"""Less than the shortest is a mistake (milliseconds for seconds, a sum gone wrong): nothing could be answered in it."""


class State(TypedDict):
    """The long-lived objects, built by the lifespan."""

    credentials: Credentials
    models: dict[str, ServedModel]
    predictor: Predictor
    open_inference: OpenInference
    records: RecordsClient
    auth: Upstream
    upload_limits: UploadLimits
    upload_budget: UploadBudget
    forwarded_budget: UploadBudget
    trusted_hops: int
    trusted_proxies: tuple[Network, ...]
    limits: CallerLimits
    predict_timeout_s: float


def state_of(request: Request) -> State:
    """Return the long-lived objects of the application that serves *request*."""
    return cast(State, request.scope["state"])


def client_of(request: Request) -> str:
    """Return the network address of who asks, behind as many proxies as the setting says."""
    state = state_of(request)
    return address_of(request, state["trusted_hops"], state["trusted_proxies"])


Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(HTTPBearer(auto_error=False, bearerFormat="JWT", description="An access token: log in to get one.")),
]
"""Tells OpenAPI about the token; the header itself is read by `bearer_token`, which answers with our problem."""


ApiKey = Annotated[
    str | None,
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key, for programs.")),
]


async def verify_caller(request: Request, _token: Bearer = None, _key: ApiKey = None) -> TokenCaller:
    """
    Return who asks, from the access token, checked here without a call; or from an API key.

    Raises:
        Unauthorized: there is no token or key, or one that does not hold.
        Unavailable: auth's public keys were never had, or auth is away and the API key is not known here.
        TooManyRequests: this caller has used up the requests of this minute.
    """
    state, headers = state_of(request), request.headers
    caller = await state["credentials"].caller(
        headers.get("authorization"),
        headers.get(KEY_HEADER),
        source=client_of(request),
        request_id=request_id_of(request),
    )
    request.scope[CALLER] = caller
    request.scope[STANDING] = await state["limits"].hit(caller.subject)
    return caller


async def verify_caller_or_anonymous(
    request: Request, _token: Bearer = None, _key: ApiKey = None
) -> TokenCaller | None:
    """
    Return who asks; None for a caller without a token, where the setting allows one, within the rate for such.

    Raises:
        Unauthorized, Unavailable: as `verify_caller`.
        TooManyRequests: the caller, or the address without a token, has used up its requests.
    """
    limits = state_of(request)["limits"]
    if limits.anonymous and "authorization" not in request.headers and KEY_HEADER not in request.headers:
        request.scope[STANDING] = await limits.hit_anonymous(client_of(request))
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


async def model_to_ask(
    request: Request, model: Annotated[str, Path(max_length=63, examples=["cancer"])]
) -> ServedModel:
    """
    Return the model that the path names, if it may be asked now: a refusal should come before the image is read.

    Raises:
        UnknownModel: none of this name is served here.
        Overloaded: too many predictions of it are in flight.
    """
    found = await model_named(request, model)
    if found.limit.full:
        state_of(request)["predictor"].refused(found)
        raise Overloaded(retry_after_ms=found.limit.retry_after_ms())
    return found


def served(name: str) -> Callable[[Request], Awaitable[ServedModel]]:
    """Return a dependency on the model called *name*, to ask it, for paths that name none."""

    async def find(request: Request) -> ServedModel:
        return await model_to_ask(request, name)

    return find


async def deadline_of(request: Request) -> float:
    """
    Return until when the request may take, by the event loop's clock; it counts from before the image is read.

    The header is read by hand, which costs a hundredth of FastAPI's way; `openapi.image_body` documents it.

    Raises:
        ValidationFailed: X-Request-Timeout is no time.
    """
    timeout_s = state_of(request)["predict_timeout_s"]
    if (wished := request.headers.get("x-request-timeout")) is not None:
        timeout_s = min(timeout_s, _seconds(wished))
    return asyncio.get_running_loop().time() + timeout_s


def _seconds(text: str) -> float:
    """
    Return a number of seconds, from a tenth to an hour.

    Raises:
        ValidationFailed: it is none.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not REQUEST_TIMEOUT_MIN_S <= seconds <= REQUEST_TIMEOUT_MAX_S:
        raise ValidationFailed(errors=[{"location": "header.x-request-timeout", "code": "invalid"}])
    return seconds


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
    limits = replace(general, image_bytes_max=min(SMALL_IMAGE_BYTES_MAX, general.image_bytes_max))
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
ModelToAsk = Annotated[ServedModel, Depends(model_to_ask)]
Deadline = Annotated[float, Depends(deadline_of)]
Image = Annotated[Upload, Depends(read_image)]
SmallImage = Annotated[Upload, Depends(read_small_image)]
Patient = Annotated[str | None, Depends(named_patient)]
ModelPredictor = Annotated[Predictor, Depends(_predictor)]
Records = Annotated[RecordsClient, Depends(_records)]
RequestId = Annotated[str, Depends(_request_id)]
IdempotencyKey = Annotated[
    IdempotencyText | None,
    Header(
        description="The same key again, with the same image, gives the first answer's record instead of a second one.",
    ),
]
