"""TensorFlow Serving's gRPC services: each RPC to the function that answers it."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio
import structlog

from serving.modelserver import answers
from serving.modelserver.example_calls import ExampleCalls
from serving.modelserver.inference import Inference
from serving.modelserver.refusals import Refused
from serving.modelserver.reload import reload
from serving.tfs.protos import (
    MODEL_SERVICE,
    PREDICTION_SERVICE,
    ClassificationRequest,
    ClassificationResponse,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    MultiInferenceRequest,
    MultiInferenceResponse,
    PredictRequest,
    PredictResponse,
    RegressionRequest,
    RegressionResponse,
    ReloadConfigRequest,
    ReloadConfigResponse,
)

logger = structlog.get_logger()

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Request, Context], Awaitable[Response]]


class Services:
    """The RPCs that this server answers; gRPC itself answers UNIMPLEMENTED to the others."""

    def __init__(self, inference: Inference, *, check_method: bool = False) -> None:
        self._inference = inference
        self._models = inference.models
        self._examples = ExampleCalls(inference, check_method=check_method)

    def handlers(self) -> "list[grpc.GenericRpcHandler[Any, Any]]":
        """Return what a gRPC server is to answer."""
        return [
            grpc.method_handlers_generic_handler(
                PREDICTION_SERVICE,
                {
                    "Predict": _method(self.predict, PredictRequest, PredictResponse),
                    "Classify": _method(self.classify, ClassificationRequest, ClassificationResponse),
                    "Regress": _method(self.regress, RegressionRequest, RegressionResponse),
                    "MultiInference": _method(self.multi_inference, MultiInferenceRequest, MultiInferenceResponse),
                    "GetModelMetadata": _method(self.metadata, GetModelMetadataRequest, GetModelMetadataResponse),
                },
            ),
            grpc.method_handlers_generic_handler(
                MODEL_SERVICE,
                {
                    "GetModelStatus": _method(self.status, GetModelStatusRequest, GetModelStatusResponse),
                    "HandleReloadConfigRequest": _method(self.reload, ReloadConfigRequest, ReloadConfigResponse),
                },
            ),
        ]

    async def predict(self, request: PredictRequest, context: Context) -> PredictResponse:
        """Run a signature. Raises Refused."""
        return await self._inference.predict(request, entrypoint="GRPC", time_left_s=context.time_remaining())

    async def classify(self, request: ClassificationRequest, context: Context) -> ClassificationResponse:
        """Label examples. Raises Refused."""
        return await self._examples.classify(request, context.time_remaining())

    async def regress(self, request: RegressionRequest, context: Context) -> RegressionResponse:
        """Give examples numbers. Raises Refused."""
        return await self._examples.regress(request, context.time_remaining())

    async def multi_inference(self, request: MultiInferenceRequest, context: Context) -> MultiInferenceResponse:
        """Do several of both on the same examples. Raises Refused."""
        return await self._examples.multi_inference(request, context.time_remaining())

    async def metadata(self, request: GetModelMetadataRequest, _context: Context) -> GetModelMetadataResponse:
        """Say what a version's signatures take and give. Raises Refused."""
        return answers.metadata(self._models, request)

    async def status(self, request: GetModelStatusRequest, _context: Context) -> GetModelStatusResponse:
        """Say in which state the versions of a model are. Raises Refused."""
        return answers.status(self._models, request)

    async def reload(self, request: ReloadConfigRequest, _context: Context) -> ReloadConfigResponse:
        """Replace the configuration. Raises Refused."""
        return await reload(self._models, request)


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
