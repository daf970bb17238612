"""
grpc.health.v1: whether this server takes requests, and whether a model or a version can be asked.

The service names are "" and TensorFlow Serving's two (the server as a whole), `MODEL`, and `MODEL/VERSION`. The
original sets the first three once and never again; ours follow the truth, and all say no as soon as the server leaves.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import grpc
import grpc.aio

from serving.modelserver.lifecycle import Models
from serving.tfs.health_pb2 import HealthCheckRequest, HealthCheckResponse

HEALTH_SERVICE = "grpc.health.v1.Health"
SERVER_NAMES = ("", "ModelService", "PredictionService")

Context = grpc.aio.ServicerContext[Any, Any]


class Health:
    """The health service; *frozen* knows no models, as the original."""

    def __init__(self, models: Models, *, frozen: bool = False) -> None:
        self._models = models
        self._frozen = frozen
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Say no from now on: no new requests should come."""
        self._leaving.set()

    def status(self, service: str) -> "HealthCheckResponse.ServingStatus":
        """Return the state of one service name."""
        if service in SERVER_NAMES:
            return _status(not self._leaving.is_set())
        if self._frozen:
            return HealthCheckResponse.SERVICE_UNKNOWN
        name, slash, number = service.rpartition("/")
        known = self._models.versions(name if slash else service)
        if slash:
            known = [version for version in known if str(version.number) == number]
        if not known and not (self._models.configured(service) and not slash):
            return HealthCheckResponse.SERVICE_UNKNOWN
        return _status(not self._leaving.is_set() and any(version.available for version in known))

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return what a gRPC server is to answer."""
        request, response = HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString
        return grpc.method_handlers_generic_handler(
            HEALTH_SERVICE,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self.check, request, response),
                "Watch": grpc.unary_stream_rpc_method_handler(self.watch, request, response),
            },
        )

    async def check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """Answer the state now; an unknown name is NOT_FOUND."""
        status = self.status(request.service)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return HealthCheckResponse(status=status)

    async def watch(self, request: HealthCheckRequest, _context: Context) -> AsyncIterator[HealthCheckResponse]:
        """Answer the state now, and each time it changes; the last word is that the server leaves."""
        told: HealthCheckResponse.ServingStatus | None = None
        while True:
            leaving, change = self._leaving.is_set(), self._models.next_change
            status = self.status(request.service)
            if status != told:
                yield HealthCheckResponse(status=status)
                told = status
            if leaving:
                # An open stream would hold up the end of the server.
                return
            await _first(change.wait(), self._leaving.wait())


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of several things."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _status(serving: bool) -> "HealthCheckResponse.ServingStatus":
    return HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
