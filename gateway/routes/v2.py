"""The Open Inference Protocol over HTTP: so that the clients of KServe and Triton work here as they are."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from gateway.deps import Caller, Deadline, Model, ModelToAsk, state_of
from gateway.open_inference import (
    EXTENSIONS,
    NAME,
    PLATFORM,
    Inferred,
    OpenInference,
    SentTensor,
    TensorKind,
    inputs_of,
    outputs_of,
    version_named,
)
from gateway.open_inference_json import (
    BINARY_TYPE,
    HEADER_LENGTH,
    InferRequest,
    InferResponse,
    encode,
    parse,
    question_of,
)
from gateway.openapi import PREDICTION_PROBLEMS, REQUEST_TIMEOUT, TOKEN_PROBLEMS, Responses
from gateway.problems import BadTensor, ModelUnavailable, Overloaded, UnknownModel, UnknownVersion, UploadTooSlow
from gateway.uploads import read_body
from healthguard import __version__
from healthguard.problems import (
    InvalidRequest,
    PayloadTooLarge,
    Problem,
    UnsupportedMedia,
    failed,
    request_id_of,
    responses,
)

NOT_READY: Responses = {503: {"description": "Not ready"}}
INFER_PROBLEMS: tuple[type[Problem], ...] = (
    *TOKEN_PROBLEMS,
    *PREDICTION_PROBLEMS,
    BadTensor,
    InvalidRequest,
    UnknownVersion,
    UploadTooSlow,
    PayloadTooLarge,
    UnsupportedMedia,
    Overloaded,
)


class Route(APIRoute):
    """Adds to each problem the member `error`, where the protocol's clients look for what went wrong."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler that FastAPI makes, with its problems answered here."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as exc:
                problem: Problem = failed(exc)
            except Problem as exc:
                problem = exc
            return problem.response(request_id_of(request), error=problem.detail or problem.title)

        return answer


router = APIRouter(prefix="/v2", tags=["open inference protocol"], route_class=Route)


class Live(BaseModel):
    """Whether this process lives."""

    live: bool


class Ready(BaseModel):
    """Whether what was asked about takes requests."""

    ready: bool


class ModelReady(Ready):
    """Whether a model takes requests."""

    name: str


class ServerMetadata(BaseModel):
    """What this server is."""

    name: Annotated[str, Field(examples=[NAME])]
    version: str
    extensions: Annotated[list[str], Field(examples=[list(EXTENSIONS)])]


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives; -1 is any number of pictures."""

    name: Annotated[str, Field(examples=["image"])]
    datatype: Annotated[str, Field(examples=["UINT8"])]
    shape: Annotated[list[int], Field(examples=[[-1, 224, 224, 3]])]

    @classmethod
    def of(cls, kind: TensorKind) -> "TensorMetadata":
        """Return a tensor as clients see it."""
        return cls(name=kind.name, datatype=kind.datatype, shape=list(kind.shape))


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: Annotated[str, Field(examples=["cancer"])]
    versions: Annotated[list[str], Field(examples=[["1"]])]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


async def _door(request: Request) -> OpenInference:
    return state_of(request)["open_inference"]


async def _no_version() -> int | None:
    return None


async def _version(version: Annotated[str, Path(max_length=63, examples=["1"])]) -> int | None:
    """
    Return the version that the path names.

    Raises:
        UnknownVersion: it is no number.
    """
    return version_named(version)


Protocol = Annotated[OpenInference, Depends(_door)]
Version = Annotated[int | None, Depends(_version)]


@router.get("", summary="What this server is")
async def server_metadata() -> ServerMetadata:
    """Return name, version and the protocol's extensions that are spoken."""
    return ServerMetadata(name=NAME, version=__version__, extensions=list(EXTENSIONS))


@router.get("/health/live", summary="This process lives")
async def live() -> Live:
    """Answer."""
    return Live(live=True)


@router.get("/health/ready", summary="Every model can be asked", response_model=Ready, responses=NOT_READY)
async def ready(protocol: Protocol) -> JSONResponse:
    """Return whether requests should come here."""
    well = await protocol.ready()
    return JSONResponse({"ready": well}, 200 if well else 503)


@router.get(
    "/models/{model}/ready",
    summary="The model can be asked",
    response_model=ModelReady,
    responses=responses(*TOKEN_PROBLEMS, UnknownModel, UnknownVersion, ModelUnavailable),
)
async def model_ready(_caller: Caller, model: Model, protocol: Protocol) -> ModelReady:
    """Return whether the version that answers is loaded."""
    protocol.contract(model, None)
    return ModelReady(name=model.name, ready=True)


@router.get(
    "/models/{model}/versions/{version}/ready",
    summary="The version can be asked",
    response_model=ModelReady,
    responses=responses(*TOKEN_PROBLEMS, UnknownModel, UnknownVersion, ModelUnavailable),
)
async def version_ready(_caller: Caller, model: Model, version: Version, protocol: Protocol) -> ModelReady:
    """Return whether it is loaded."""
    protocol.contract(model, version)
    return ModelReady(name=model.name, ready=True)


@router.get(
    "/models/{model}",
    summary="What the model takes and gives",
    responses=responses(*TOKEN_PROBLEMS, UnknownModel, UnknownVersion, ModelUnavailable),
)
async def model_metadata(_caller: Caller, model: Model, protocol: Protocol) -> ModelMetadata:
    """Return its tensors, as the stable version's contract says."""
    return _metadata(model.name, [str(number) for number in sorted(model.versions)], protocol.contract(model, None))


@router.get(
    "/models/{model}/versions/{version}",
    summary="What the version takes and gives",
    responses=responses(*TOKEN_PROBLEMS, UnknownModel, UnknownVersion, ModelUnavailable),
)
async def version_metadata(_caller: Caller, model: Model, version: Version, protocol: Protocol) -> ModelMetadata:
    """Return its tensors, as its contract says."""
    contract = protocol.contract(model, version)
    return _metadata(model.name, [str(contract.version)], contract)


def _metadata(name: str, versions: list[str], contract: Any) -> ModelMetadata:
    return ModelMetadata(
        name=name,
        versions=versions,
        platform=PLATFORM,
        inputs=[TensorMetadata.of(kind) for kind in inputs_of(contract)],
        outputs=[TensorMetadata.of(kind) for kind in outputs_of(contract)],
    )


# The body is read by hand: it may be JSON and bytes in one.
INFER: dict[str, Any] = {
    "summary": "Ask the model, and store nothing",
    "response_model": InferResponse,
    "responses": {200: {"content": {BINARY_TYPE: {"schema": {"type": "string", "format": "binary"}}}}}
    | responses(*INFER_PROBLEMS),
    "openapi_extra": {
        "parameters": [REQUEST_TIMEOUT],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": InferRequest.model_json_schema()},
                BINARY_TYPE: {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
}
HeaderLength = Annotated[
    int | None,
    Header(alias=HEADER_LENGTH, ge=2, le=2**31, description="How many bytes of the body are JSON; tensors follow it."),
]


@router.post("/models/{model}/infer", **INFER)
async def infer(
    *,
    caller: Caller,
    deadline: Deadline,
    model: ModelToAsk,
    protocol: Protocol,
    request: Request,
    header_length: HeaderLength = None,
) -> Response:
    """Ask the version that answers at the moment."""
    async with _read(request, header_length) as (asked, tensors):
        question = question_of(asked, tensors, None)
        return _response(asked, await protocol.infer(model, question, caller=caller, deadline=deadline))


@router.post("/models/{model}/versions/{version}/infer", **INFER)
async def infer_version(
    *,
    caller: Caller,
    deadline: Deadline,
    model: ModelToAsk,
    version: Version,
    protocol: Protocol,
    request: Request,
    header_length: HeaderLength = None,
) -> Response:
    """Ask this version."""
    async with _read(request, header_length) as (asked, tensors):
        question = question_of(asked, tensors, version)
        return _response(asked, await protocol.infer(model, question, caller=caller, deadline=deadline))


@asynccontextmanager
async def _read(request: Request, header_length: int | None) -> AsyncIterator[tuple[InferRequest, list[SentTensor]]]:
    """
    Read a question; its bytes count against the budget of uploads until the block ends.

    Raises:
        UnsupportedMedia, PayloadTooLarge, Overloaded, UploadTooSlow, InvalidRequest, BadTensor: see `gateway.problems`.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("A compressed body is not taken: tensors of pictures do not shrink.")
    state = state_of(request)
    async with read_body(request, state["upload_limits"], state["upload_budget"]) as body:
        if header_length is not None and header_length > len(body):
            raise BadTensor("The body is shorter than its JSON should be.")
        yield await parse(body, header_length)


def _response(asked: InferRequest, inferred: Inferred) -> Response:
    body, length = encode(asked, inferred)
    if length is None:
        return Response(body, media_type="application/json")
    return Response(body, media_type=BINARY_TYPE, headers={HEADER_LENGTH: str(length)})
