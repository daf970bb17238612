"""Fakes, each with a test that it shares with the real thing."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import grpc.aio
import numpy as np

from serving.tfs.protos import (
    MODEL_SERVICE,
    PREDICTION_SERVICE,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
)
from serving.tfs.tensors import from_array, to_array

Context = Any


@dataclass
class FakeModelServer:
    """
    TensorFlow Serving's gRPC API over one version of one model, which answers what a test tells it to.

    The real server is in `serving.modelserver`; tests/integration/gateway/test_model_servers.py holds both to the same.
    """

    contract: dict[str, Any]
    probability: float = 0.9
    ood_score: float = 1.0
    state: str = "AVAILABLE"
    failures: list[grpc.StatusCode] = field(default_factory=list)
    """Codes with which the next predictions fail, one each."""
    hold: asyncio.Event | None = None
    """Predictions wait for it, where set."""
    heat: float = 0.5
    """What every place of a heat map has."""
    images: list[np.ndarray[Any, Any]] = field(default_factory=list)
    """What it was asked about."""
    traceparents: list[str | None] = field(default_factory=list)
    """Of which trace each of them was."""
    predict_calls: int = 0
    explain_calls: int = 0
    address: str = ""

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers(
            (
                _service(PREDICTION_SERVICE, "Predict", self._predict, PredictRequest),
                _service(MODEL_SERVICE, "GetModelStatus", self._status, GetModelStatusRequest),
            )
        )
        port = self._server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = self.address or f"127.0.0.1:{port}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def _predict(self, request: PredictRequest, context: Context) -> PredictResponse:
        spec = request.model_spec
        if (spec.name, spec.version.value) != (self.contract["model"], self.contract["version"]):
            await context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
        response = PredictResponse(model_spec=spec)
        if spec.signature_name == "contract":
            rows = len(to_array(request.inputs["n"]))
            document = json.dumps(self.contract).encode()
            response.outputs["json"].CopyFrom(from_array(np.array([document] * rows, dtype=object)))
            return response
        if spec.signature_name == "explain":
            self.explain_calls += 1
            shape = (len(to_array(request.inputs["image"])), *self.contract["explain"]["grid"])
            response.outputs["heatmap"].CopyFrom(from_array(np.full(shape, self.heat, np.float32), typed=True))
            return response
        self.predict_calls += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.failures:
            await context.abort(self.failures.pop(0), "as the test said")
        images = to_array(request.inputs["image"])
        self.images.append(images)
        sent: dict[str, Any] = dict(context.invocation_metadata() or ())
        self.traceparents.append(sent.get("traceparent"))
        for output, value in (("probability", self.probability), ("ood_score", self.ood_score)):
            response.outputs[output].CopyFrom(from_array(np.full(len(images), value, np.float32), typed=True))
        return response

    async def _status(self, request: GetModelStatusRequest, context: Context) -> GetModelStatusResponse:
        if request.model_spec.name != self.contract["model"]:
            await context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
        state = self.state
        version = ModelVersionStatus(version=self.contract["version"], state=state)
        return GetModelStatusResponse(model_version_status=[version])


def _service(name: str, method: str, handler: Any, request: Any) -> "grpc.GenericRpcHandler[Any, Any]":
    unary = grpc.unary_unary_rpc_method_handler(
        handler,
        request_deserializer=request.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    return grpc.method_handlers_generic_handler(name, {method: unary})
