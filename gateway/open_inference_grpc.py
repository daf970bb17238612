"""The Open Inference Protocol over gRPC, on a port of its own: with a token or an API key in the call's metadata."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import grpc
import grpc.aio
import numpy as np
import structlog
from google.protobuf.message import DecodeError, Message

from gateway.credentials import KEY_HEADER, Credentials
from gateway.limits import CallerLimits
from gateway.open_inference import (
    EXTENSIONS,
    NAME,
    PLATFORM,
    Inferred,
    OpenInference,
    Question,
    SentTensor,
    TensorKind,
    inputs_of,
    outputs_of,
    version_named,
)
from gateway.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from gateway.problems import BadTensor, ModelUnavailable, UnknownModel
from gateway.served import ServedModel
from healthguard import __version__
from healthguard.logging import frames_of
from healthguard.problems import InternalError, Problem
from healthguard.tokens import Caller

log = structlog.get_logger()

SERVICE = "inference.GRPCInferenceService"
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
"""A message is in memory before we hear of it, so this times `CALLS_MAX` is what all together may take."""
CALLS_MAX = 32
IDLE_MS = 300_000
HANDSHAKE_MS = 8_000
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", CALLS_MAX),
    ("grpc.max_connection_idle_ms", IDLE_MS),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    # Two gateways on one port would share it without anybody noticing.
    ("grpc.so_reuseport", 0),
)

CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""A problem's status in gRPC's words; every other one is INTERNAL."""

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request", bound=Message)


class Service:
    """The protocol's six calls."""

    def __init__(
        self, protocol: OpenInference, credentials: Credentials, limits: CallerLimits, *, timeout_s: float
    ) -> None:
        """
        Args:
            timeout_s: how long a call may take; a client may ask for less by its deadline.
        """
        self._protocol = protocol
        self._credentials = credentials
        self._limits = limits
        self._timeout_s = timeout_s

    def handlers(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return what a gRPC server is to answer."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "ServerLive": _method(self.live, ServerLiveRequest),
                "ServerReady": _method(self.ready, ServerReadyRequest),
                "ServerMetadata": _method(self.server_metadata, ServerMetadataRequest),
                "ModelReady": _method(self.model_ready, ModelReadyRequest),
                "ModelMetadata": _method(self.model_metadata, ModelMetadataRequest),
                "ModelInfer": _method(self.infer, ModelInferRequest),
            },
        )

    async def live(self, _request: ServerLiveRequest, _context: Context) -> ServerLiveResponse:
        """Say that this process lives."""
        return ServerLiveResponse(live=True)

    async def ready(self, _request: ServerReadyRequest, _context: Context) -> ServerReadyResponse:
        """Say whether every model can be asked."""
        return ServerReadyResponse(ready=await self._protocol.ready())

    async def server_metadata(self, _request: ServerMetadataRequest, _context: Context) -> ServerMetadataResponse:
        """Say what this server is."""
        return ServerMetadataResponse(name=NAME, version=__version__, extensions=EXTENSIONS)

    async def model_ready(self, request: ModelReadyRequest, context: Context) -> ModelReadyResponse:
        """
        Say whether a model can be asked.

        Raises:
            Unauthorized, TooManyRequests, UnknownModel, UnknownVersion: see `gateway.problems`.
        """
        await self._caller(context)
        try:
            self._protocol.contract(self._model(request.name), version_named(request.version))
        except ModelUnavailable:
            return ModelReadyResponse(ready=False)
        return ModelReadyResponse(ready=True)

    async def model_metadata(self, request: ModelMetadataRequest, context: Context) -> ModelMetadataResponse:
        """
        Say what a model takes and gives.

        Raises:
            Unauthorized, TooManyRequests, UnknownModel, UnknownVersion, ModelUnavailable: see `gateway.problems`.
        """
        await self._caller(context)
        model, version = self._model(request.name), version_named(request.version)
        contract = self._protocol.contract(model, version)
        versions = sorted(model.versions) if version is None else [version]
        return ModelMetadataResponse(
            name=model.name,
            versions=[str(number) for number in versions],
            platform=PLATFORM,
            inputs=[_metadata(kind) for kind in inputs_of(contract)],
            outputs=[_metadata(kind) for kind in outputs_of(contract)],
        )

    async def infer(self, request: ModelInferRequest, context: Context) -> ModelInferResponse:
        """
        Ask a model.

        Raises:
            Problem: see `OpenInference.infer`.
        """
        caller = await self._caller(context)
        left_s = context.time_remaining()
        timeout_s = self._timeout_s if left_s is None else min(self._timeout_s, left_s)
        inferred = await self._protocol.infer(
            self._model(request.model_name),
            question_of(request),
            caller=caller,
            deadline=asyncio.get_running_loop().time() + timeout_s,
        )
        return answer_of(request, inferred)

    async def _caller(self, context: Context) -> Caller:
        """
        Return who asks.

        Raises:
            Unauthorized, Unavailable: as `Credentials.caller`.
            TooManyRequests: they have used up their requests.
        """
        shown = {str(key): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        caller = await self._credentials.caller(
            shown.get("authorization"),
            shown.get(KEY_HEADER),
            source=address_in(context.peer()),
            request_id=structlog.contextvars.get_contextvars()["request_id"],
        )
        await self._limits.hit(caller.subject)
        return caller

    def _model(self, name: str) -> ServedModel:
        """
        Return the model called *name*.

        Raises:
            UnknownModel: none of this name is served here.
        """
        found = self._protocol.models.get(name)
        if found is None:
            raise UnknownModel
        return found


def _metadata(kind: TensorKind) -> ModelMetadataResponse.TensorMetadata:
    return ModelMetadataResponse.TensorMetadata(name=kind.name, datatype=kind.datatype, shape=kind.shape)


def address_in(peer: str) -> str:
    """Return the address of gRPC's name for a peer: `ipv4:192.0.2.7:4711`, `ipv6:%5B::1%5D:4711`, `unix:`."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return "unknown"
    return rest.rpartition(":")[0].strip("[]")


def question_of(request: ModelInferRequest) -> Question:
    """
    Return what a request asks.

    Raises:
        BadTensor: raw contents are not as many as the inputs, or come beside values.
        UnknownVersion: the version is no number.
    """
    raw = request.raw_input_contents
    if raw and (len(raw) != len(request.inputs) or any(tensor.HasField("contents") for tensor in request.inputs)):
        raise BadTensor("Raw contents are one for each input, and then no input has values of its own.")
    tensors = [
        SentTensor(
            tensor.name,
            tensor.datatype,
            tuple(tensor.shape),
            # The protocol carries small unsigned numbers in the field of 32-bit ones.
            raw[place] if raw else tensor.contents.uint_contents,
        )
        for place, tensor in enumerate(request.inputs)
    ]
    return Question(tensors, [output.name for output in request.outputs], version_named(request.model_version))


def answer_of(request: ModelInferRequest, inferred: Inferred) -> ModelInferResponse:
    """Return what a model answered: raw where the question was raw, as the protocol has it."""
    answer = ModelInferResponse(model_name=inferred.model, model_version=str(inferred.version), id=request.id)
    for name, values in inferred.outputs.items():
        output = answer.outputs.add(name=name, datatype="FP32", shape=values.shape)
        if request.raw_input_contents:
            answer.raw_output_contents.append(np.ascontiguousarray(values, dtype="<f4").tobytes())
        else:
            output.contents.fp32_contents.extend(values.tolist())
    return answer


def _method(
    handler: Callable[[Request, Context], Awaitable[Message]], takes: type[Request]
) -> "grpc.RpcMethodHandler[bytes, Message]":
    """Wire one coroutine to one call: a problem becomes its status, and a fault of ours INTERNAL."""

    async def respond(body: bytes, context: Context) -> Message:
        request_id = uuid.uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        context.set_trailing_metadata((("x-request-id", request_id),))
        try:
            return await handler(_parsed(takes, body), context)
        except Problem as problem:
            found = problem
        except Exception as exc:
            log.error("request_failed", exception=type(exc).__qualname__, frames=frames_of(exc))  # noqa: TRY400
            found = InternalError()
        # Never of the request: the detail is a sentence of ours.
        await context.abort(CODES.get(found.status, grpc.StatusCode.INTERNAL), found.detail or found.title)
        raise AssertionError("abort raises")

    # gRPC would parse on its own, and tell the client of a failure in protobuf's words.
    return grpc.unary_unary_rpc_method_handler(respond, response_serializer=lambda answer: answer.SerializeToString())


def _parsed(takes: type[Request], body: bytes) -> Request:
    """
    Return the message of a call.

    Raises:
        BadTensor: the bytes are none.
    """
    try:
        return takes.FromString(body)
    except DecodeError as exc:
        raise BadTensor("The message cannot be read.") from exc


def credentials_from(cert_file: Path, key_file: Path) -> grpc.ServerCredentials:
    """
    Return what the server shows: the files' certificate, read again for each new connection.

    Raises:
        OSError: a file cannot be read.
    """

    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(key_file.read_bytes(), cert_file.read_bytes())])

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        try:
            return configuration()
        except OSError:
            # They are being replaced at this moment: those in use go on.
            return None

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        renewed,  # type: ignore[arg-type]  # None is allowed, and means that nothing is new
        require_client_authentication=False,
    )


async def start(service: Service, address: str, credentials: grpc.ServerCredentials | None) -> grpc.aio.Server:
    """
    Listen at *address* (`host:port`); without credentials in plain text.

    Raises:
        OSError: the port is taken.
    """
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=CALLS_MAX)
    server.add_generic_rpc_handlers((service.handlers(),))
    try:
        if credentials is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, credentials)
    except RuntimeError as exc:
        raise OSError(f"cannot listen for gRPC at {address}") from exc
    await server.start()
    return server
