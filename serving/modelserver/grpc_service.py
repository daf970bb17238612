"""TensorFlow Serving's gRPC services over the models and the scheduler."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio
import structlog

from serving.modelserver.batching import Scheduler
from serving.modelserver.lifecycle import Models, Version
from serving.modelserver.predict import answer, is_heavy, read_question
from serving.modelserver.refusals import Refused, invalid_argument
from serving.tfs import signatures
from serving.tfs.protos import (
    MODEL_SERVICE,
    PREDICTION_SERVICE,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelSpec,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
)

logger = structlog.get_logger()

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Request, Context], Awaitable[Response]]


class Services:
    """The RPCs that this server answers; gRPC itself answers UNIMPLEMENTED to the others."""

    def __init__(self, models: Models, scheduler: Scheduler, *, typed_outputs: bool) -> None:
        self._models = models
        self._scheduler = scheduler
        self._typed = typed_outputs

    def handlers(self) -> "list[grpc.GenericRpcHandler[Any, Any]]":
        """Return what a gRPC server is to answer."""
        return [
            grpc.method_handlers_generic_handler(
                PREDICTION_SERVICE,
                {
                    "Predict": _method(self.predict, PredictRequest, PredictResponse),
                    "GetModelMetadata": _method(self.metadata, GetModelMetadataRequest, GetModelMetadataResponse),
                },
            ),
            grpc.method_handlers_generic_handler(
                MODEL_SERVICE, {"GetModelStatus": _method(self.status, GetModelStatusRequest, GetModelStatusResponse)}
            ),
        ]

    async def predict(self, request: PredictRequest, context: Context) -> PredictResponse:
        """
        Run a signature.

        Raises:
            Refused: see predict.read_question and Scheduler.run.
        """
        with self._models.serving(*_wanted(request)) as version:
            # A thread only for long typed lists, whose reading takes milliseconds.
            if is_heavy(request):
                question = await asyncio.to_thread(read_question, request, version.model.signatures)
            else:
                question = read_question(request, version.model.signatures)
            outputs = await self._scheduler.run(version, question, context.time_remaining())
            return answer(request, version.number, question, outputs, typed=self._typed)

    async def metadata(self, request: GetModelMetadataRequest, _context: Context) -> GetModelMetadataResponse:
        """
        Say what a version's signatures take and give.

        Raises:
            Refused: the model is not served, or another field than signature_def is asked for.
        """
        name, number = _wanted(request)
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid_argument(f"Metadata field {field} is not supported")
        with self._models.serving(name, number) as version:
            known = version.model.signatures.items()
            packed = SignatureDefMap(signature_def={key: signatures.to_proto(signature) for key, signature in known})
            response = GetModelMetadataResponse(model_spec=ModelSpec(name=name))
            response.model_spec.version.value = version.number
            response.metadata["signature_def"].Pack(packed)
            return response

    async def status(self, request: GetModelStatusRequest, _context: Context) -> GetModelStatusResponse:
        """
        Say in which state the versions of a model are.

        Raises:
            Refused: the model or the version was never there.
        """
        name, number = _wanted(request)
        known = self._models.versions(name)
        if not known:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        chosen = [version for version in known if number is None or version.number == number]
        if not chosen:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Could not find version {number} of model {name}")
        return GetModelStatusResponse(model_version_status=[_status(version) for version in chosen])


def _wanted(request: PredictRequest | GetModelMetadataRequest | GetModelStatusRequest) -> tuple[str, int | None]:
    """
    Return the model and the version that a request names.

    Raises:
        Refused: INVALID_ARGUMENT; it names none, or a label (there are no labels).
    """
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    if spec.HasField("version_label"):
        raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
    return spec.name, spec.version.value if spec.HasField("version") else None


def _status(version: Version) -> ModelVersionStatus:
    status = ModelVersionStatus(version=version.number, state=ModelVersionStatus.State.Name(version.state.value))
    status.status.error_code = version.error.number if version.error else 0  # type: ignore[assignment]
    status.status.error_message = version.error.details if version.error else ""
    return status


def _method(handler: Handler[Request, Response], takes: Any, gives: Any) -> "grpc.RpcMethodHandler[Request, Response]":
    """Wire one coroutine to one RPC: a refusal becomes its status, and a bug of ours an INTERNAL that says no more."""

    async def respond(request: Request, context: Context) -> Response:
        try:
            return await handler(request, context)
        except Refused as exc:
            await context.abort(exc.code, exc.details)
        except Exception:
            logger.exception("request_failed")
            await context.abort(grpc.StatusCode.INTERNAL, "the model server failed")
        raise AssertionError("abort raises")

    return grpc.unary_unary_rpc_method_handler(
        respond,
        request_deserializer=takes.FromString,
        response_serializer=gives.SerializeToString,
    )
