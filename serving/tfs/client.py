"""A typed asyncio client of TensorFlow Serving's gRPC API; every call has a deadline."""

import asyncio
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
import numpy as np

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
from serving.tfs.tensors import Array, BadTensor, from_array, to_array

MESSAGE_BYTES_MAX = 128 * 1024 * 1024
"""Both ways; gRPC's own default of 4 MB would refuse an answer that the server was free to send."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # Whether and where to try again is the caller's decision: it knows the other replicas and the budget.
    ("grpc.enable_retries", 0),
)

FRAMED_BYTES_MIN = 4096
FRAMES_MAX = 64
"""Forms of requests that a client remembers: a model, version, signature and shape each."""

CLOSED = "the channel was closed"

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Tls:
    """Whom a connection trusts, under which name, and what it shows of itself; PEM."""

    authority: bytes
    server_name: str
    """What the server's certificate must name, whatever address it was reached at: pods have addresses of a day."""
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


def channel_to(target: str, tls: Tls | None, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
    """Return a channel to *target* (`host:port`, `unix:/path`), which connects when first used; no TLS: plaintext."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=[*CHANNEL_OPTIONS, *options])
    credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
    named = (("grpc.ssl_target_name_override", tls.server_name), ("grpc.default_authority", tls.server_name))
    return grpc.aio.secure_channel(target, credentials, options=[*CHANNEL_OPTIONS, *options, *named])


class CallFailed(Exception):
    """A call that ended with a gRPC code other than OK; *details* may quote the request: never show or log it."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(code.name)
        self.code = code
        self.details = details


@dataclass(frozen=True)
class Prediction:
    """What a model answered, and which version did."""

    model: str
    version: int
    signature: str
    outputs: Mapping[str, Array]


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version; *error* is set where it ended because of one."""

    version: int
    state: str
    error_code: int
    error: str

    @property
    def available(self) -> bool:
        """Whether requests for this version are answered."""
        return self.state == "AVAILABLE"


class Client:
    """A client of one model server; safe to share between tasks of one event loop."""

    def __init__(
        self, target: str | grpc.aio.Channel, *, tls: Tls | None = None, options: Sequence[tuple[str, Any]] = ()
    ) -> None:
        """Connect to *target* (as `channel_to`, lazily) or speak over a channel that its owner closes."""
        self._own = isinstance(target, str)
        channel = channel_to(target, tls, options) if isinstance(target, str) else target
        self._channel = channel
        self._frames: dict[tuple[object, ...], tuple[bytes, bytes]] = {}
        self._predict = channel.unary_unary(
            f"/{PREDICTION_SERVICE}/Predict",
            request_serializer=None,
            response_deserializer=PredictResponse.FromString,
        )
        self._metadata = channel.unary_unary(
            f"/{PREDICTION_SERVICE}/GetModelMetadata",
            request_serializer=GetModelMetadataRequest.SerializeToString,
            response_deserializer=GetModelMetadataResponse.FromString,
        )
        self._status = channel.unary_unary(
            f"/{MODEL_SERVICE}/GetModelStatus",
            request_serializer=GetModelStatusRequest.SerializeToString,
            response_deserializer=GetModelStatusResponse.FromString,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether the connection stands at the moment; it is made when first needed."""
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def close(self) -> None:
        """Close the channel if it is ours."""
        if self._own:
            await self._channel.close(None)

    async def predict(
        self,
        model: str,
        version: int | None,
        signature: str,
        inputs: Mapping[str, Array],
        *,
        timeout_s: float,
        metadata: Metadata = (),
    ) -> Prediction:
        """
        Run *signature* of *model* on *inputs*; version None is the newest that is available.

        Raises:
            CallFailed: the server or the way to it refused, or the deadline passed.
            BadTensor: an input has a type that cannot be carried.
        """
        response = await _call(self._predict, self._written(model, version, signature, inputs), timeout_s, metadata)
        spec = response.model_spec
        try:
            outputs = {alias: to_array(tensor) for alias, tensor in response.outputs.items()}
        except BadTensor as exc:
            raise CallFailed(grpc.StatusCode.INTERNAL, "the answer holds a malformed tensor") from exc
        return Prediction(spec.name, spec.version.value, spec.signature_name, outputs)

    def _written(self, model: str, version: int | None, signature: str, inputs: Mapping[str, Array]) -> bytes:
        """
        Return a PredictRequest as it goes over the wire.

        Of a picture in a known form all but its bytes has been written before: protobuf would copy them three times.
        """
        if len(inputs) == 1:
            ((alias, array),) = inputs.items()
            if array.dtype == np.uint8 and array.nbytes >= FRAMED_BYTES_MIN and array.flags.c_contiguous:
                form = (model, version, signature, alias, array.shape)
                if (frame := self._frames.get(form)) is None:
                    frame = _framed(model, version, signature, alias, array.shape)
                    if len(self._frames) < FRAMES_MAX:
                        self._frames[form] = frame
                return b"".join((frame[0], array.data, frame[1]))
        return _request(model, version, signature, inputs)

    async def metadata(
        self, model: str, version: int | None, *, timeout_s: float, metadata: Metadata = ()
    ) -> tuple[int, Mapping[str, signatures.Signature]]:
        """
        Return the version that answered, and its signatures by name.

        Raises:
            CallFailed: the server or the way to it refused, or the deadline passed.
        """
        request = GetModelMetadataRequest(model_spec=_spec(model, version), metadata_field=["signature_def"])
        response = await _call(self._metadata, request, timeout_s, metadata)
        found = SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)
        try:
            by_name = {name: signatures.from_proto(proto) for name, proto in found.signature_def.items()}
        except BadTensor as exc:
            raise CallFailed(grpc.StatusCode.INTERNAL, "a signature has a type that we do not carry") from exc
        return response.model_spec.version.value, by_name

    async def status(self, model: str, *, timeout_s: float, metadata: Metadata = ()) -> list[VersionStatus]:
        """
        Return the state of every version that the server has known since it started, newest first.

        Raises:
            CallFailed: the server or the way to it refused, or the deadline passed; NOT_FOUND for an unknown model.
        """
        response = await _call(self._status, GetModelStatusRequest(model_spec=_spec(model, None)), timeout_s, metadata)
        found = [
            VersionStatus(
                version=status.version,
                state=ModelVersionStatus.State.Name(status.state),
                error_code=int(status.status.error_code),
                error=status.status.error_message,
            )
            for status in response.model_version_status
        ]
        return sorted(found, key=lambda status: status.version, reverse=True)


def _request(model: str, version: int | None, signature: str, inputs: Mapping[str, Array]) -> bytes:
    request = PredictRequest(
        model_spec=_spec(model, version, signature),
        inputs={alias: from_array(array) for alias, array in inputs.items()},
    )
    return request.SerializeToString()


def _framed(model: str, version: int | None, signature: str, alias: str, shape: tuple[int, ...]) -> tuple[bytes, bytes]:
    """Return what stands before and after the bytes of a picture in a request: of one whose place is unmistakable."""
    picture = np.frombuffer(os.urandom(math.prod(shape)), dtype=np.uint8).reshape(shape)
    head, _, tail = _request(model, version, signature, {alias: picture}).partition(picture.tobytes())
    return head, tail


def _spec(model: str, version: int | None, signature: str = "") -> ModelSpec:
    spec = ModelSpec(name=model, signature_name=signature)
    if version is not None:
        spec.version.value = version
    return spec


async def _call(call: Any, request: object, timeout_s: float, metadata: Metadata) -> Any:
    """
    Make one call; gRPC's errors become ours.

    A call that meets a closed channel, or under which the channel is closed, ends with gRPC's UsageError, or with the
    CancelledError that else says that the waiting task was cancelled; neither went to a server that has answered.

    Raises:
        CallFailed: any code but OK; UNAVAILABLE where the channel was closed.
        CancelledError: the task that waits was cancelled.
        ValueError: the deadline is not a positive, finite number of seconds.
    """
    if not 0 < timeout_s < math.inf:
        raise ValueError("a call needs a deadline: seconds, positive and finite")
    try:
        return await call(request, timeout=timeout_s, metadata=list(metadata))
    except grpc.aio.AioRpcError as exc:
        raise CallFailed(exc.code(), exc.details() or "") from exc
    except grpc.aio.UsageError as exc:
        raise CallFailed(grpc.StatusCode.UNAVAILABLE, CLOSED) from exc
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise CallFailed(grpc.StatusCode.UNAVAILABLE, CLOSED) from exc
