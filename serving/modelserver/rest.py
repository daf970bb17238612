"""
The REST API: an ASGI application over the same inference as the gRPC services, on uvicorn.

No framework: seven paths, of which a regular expression decides, do not need one, and the image stays small.
"""

import asyncio
import functools
import socket
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
import uvicorn
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from serving.modelserver import answers, rest_json, rest_paths
from serving.modelserver.backend import LoadedModel
from serving.modelserver.cores import usable_cores
from serving.modelserver.examples import INPUTS
from serving.modelserver.flags import Flags
from serving.modelserver.inference import Inference, off_the_loop
from serving.modelserver.model_spec import Asked
from serving.modelserver.monitoring import CONTENT_TYPE, Metrics
from serving.modelserver.predict import Question, question
from serving.modelserver.refusals import Refused, invalid_argument
from serving.modelserver.rest_connection import CONNECTIONS_MAX, Connection
from serving.modelserver.rest_examples import read_request
from serving.modelserver.rest_json import Document
from serving.tfs.protos import (
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelSpec,
    SignatureDefMap,
)
from serving.tfs.signatures import DEFAULT_SIGNATURE
from serving.tfs.tensors import Array

logger = structlog.get_logger()

BODY_BYTES_MAX = 32 * 1024 * 1024
"""
Largest body, also after decompression: some 50 images of 224 by 224 as numbers.

Python parses JSON while it holds its lock: other requests wait for about a tenth of a second per 10 MB meanwhile. Who
has large inputs uses gRPC, or base64.
"""

BODIES_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of all bodies that are in the server at the same time."""

LARGE_BYTES = 1024 * 1024
LARGE_AT_ONCE = 2
"""Bodies above LARGE_BYTES that are parsed and run at once: as objects they take up to twenty times their size."""

LISTEN_BACKLOG = 512

# CANCELLED has no standard status; 499 is what proxies use.
STATUSES: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}
JSON = "application/json"
CORS = (
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "POST, GET"),
    ("access-control-allow-headers", "Content-Type"),
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class TooLarge(Exception):
    """A body above the limit; HTTP has a status of its own for it, gRPC's codes have none."""


class RestApi:
    """The application."""

    def __init__(
        self,
        inference: Inference,
        metrics: Metrics | None,
        *,
        timeout_s: float,
        at_once: int,
        cors: bool,
        check_method: bool,
    ) -> None:
        self._inference = inference
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._headers = CORS if cors else ()
        self._cors = cors
        self._check_method = check_method
        # Documents in memory at once; who comes later waits, within the deadline.
        self._places, self._large = asyncio.Semaphore(at_once), asyncio.Semaphore(LARGE_AT_ONCE)
        self._bodies = Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        # The path as it was sent: a name may hold an encoded slash.
        path = bytes(scope["raw_path"]).decode("latin-1")
        if self._metrics and path == self._metrics.path:
            await self._send(send, 200, self._metrics.page(), CONTENT_TYPE)
        elif not rest_paths.is_api(path):
            await self._send(send, 404, b"", "text/plain")
        elif self._cors and scope["method"] == "OPTIONS":
            await self._send(send, 200, b"", JSON)
        else:
            await self._send(send, *await self._answered(scope, path, receive), JSON)

    async def _send(self, send: Send, status: int, body: bytes, content_type: str) -> None:
        headers = [("content-type", content_type), ("content-length", str(len(body))), *self._headers]
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async def _answered(self, scope: Scope, path: str, receive: Receive) -> tuple[int, bytes]:
        """Return status and body; whatever goes wrong has both."""
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                call = rest_paths.read_path(scope["method"], path)
                return 200, await self._answer(call, scope, receive, deadline)
        except Refused as exc:
            return STATUSES.get(exc.code, 500), rest_json.error(exc.details)
        except TimeoutError:
            return 504, rest_json.error("Deadline Exceeded")
        except TooLarge:
            return 413, rest_json.error(f"the body is larger than {BODY_BYTES_MAX} bytes")
        except Exception:
            logger.exception("request_failed")
            return 500, rest_json.error("the model server failed")

    async def _answer(self, call: rest_paths.Call, scope: Scope, receive: Receive, deadline: float) -> bytes:
        """
        Return the body of an answer.

        Raises:
            Refused: as the method says.
            TooLarge: the request's body.
        """
        models = self._inference.models
        if call.what == "status":
            known = answers.status(models, GetModelStatusRequest(model_spec=_spec(call.asked)))
            return rest_json.written(_plain(known))
        if call.what == "metadata":
            return rest_json.written(self._metadata(call.asked))
        # Read before there is a place: whoever sends slowly keeps nobody else waiting.
        with self._bodies.reading() as held:
            body = await read_body(scope, receive, held)
            async with self._large if len(body) > LARGE_BYTES else nullcontext(), self._places:
                # The parser holds Python's lock, so a thread keeps only the rest of the work off the event loop.
                document = await asyncio.to_thread(rest_json.parse, body)
                if call.what == "predict":
                    return await self._predict(call.asked, document, deadline)
                return await self._examples(call, document, deadline)

    def _metadata(self, asked: Asked) -> Document:
        """
        Say what the signatures take and give.

        Raises:
            Refused: NOT_FOUND.
        """
        request = GetModelMetadataRequest(model_spec=_spec(asked), metadata_field=["signature_def"])
        found = answers.metadata(self._inference.models, request)
        signatures = SignatureDefMap()
        found.metadata["signature_def"].Unpack(signatures)
        return {"model_spec": _plain(found.model_spec), "metadata": {"signature_def": _plain(signatures)}}

    async def _predict(self, asked: Asked, document: Document, deadline: float) -> bytes:
        """
        Run a signature.

        Raises:
            Refused: the document or its tensors are wrong, or the model could not be run.
        """
        name = rest_json.signature_name(document)
        found = await self._inference.run(
            asked,
            functools.partial(_question, document, name),
            api="predict",
            entrypoint="REST",
            time_left_s=_left_s(deadline),
            heavy=True,
        )
        outputs = {alias: found.outputs[alias] for alias in found.question.outputs}
        answer = functools.partial(_written, outputs, rows=rest_json.by_rows(document))
        return await off_the_loop(answer, values=sum(array.size for array in outputs.values()))

    async def _examples(self, call: rest_paths.Call, document: Document, deadline: float) -> bytes:
        """
        Classify or regress.

        Raises:
            Refused: the examples are wrong, the version runs on LiteRT, or the model could not be run.
        """
        method, read, shown = read_request(call.what, document, check_method=self._check_method)
        found = await self._inference.run(
            call.asked, read, api=method.api.lower(), entrypoint="REST", time_left_s=_left_s(deadline), heavy=True
        )
        count = len(found.question.inputs[INPUTS])
        self._inference.observer.examples_read(model=call.asked.name, count=count)
        values = sum(array.size for array in found.outputs.values())
        return await off_the_loop(lambda: rest_json.written(shown(count, found.outputs)), values=values)


def _written(outputs: Mapping[str, Array], *, rows: bool) -> bytes:
    """
    Return the body of an answer to predict.

    Raises:
        Refused: INVALID_ARGUMENT; rows were asked for, and there are none.
    """
    return rest_json.written(rest_json.predictions(outputs, rows=rows))


def _left_s(deadline: float) -> float:
    """Return how long it is until *deadline*, which the event loop's clock tells."""
    return deadline - asyncio.get_running_loop().time()


def _question(document: Document, name: str, model: LoadedModel) -> Question:
    """
    Turn a document into a question to *model*.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    signature = model.signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise invalid_argument(f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def')
    return question(model, name, rest_json.read_inputs(document, signature))


def _spec(asked: Asked) -> ModelSpec:
    spec = ModelSpec(name=asked.name)
    if asked.version is not None:
        spec.version.value = asked.version
    if asked.label is not None:
        spec.version_label = asked.label
    return spec


def _plain(message: Message) -> Document:
    """Return a message as TensorFlow Serving prints it: its own field names, and zeros too."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


@dataclass
class Bodies:
    """How much of all bodies is in memory."""

    size: int = 0

    @contextmanager
    def reading(self) -> Iterator["Held"]:
        """Count one body for as long as its request lasts."""
        held = Held(self)
        try:
            yield held
        finally:
            self.size -= held.size


@dataclass
class Held:
    """What one request has in memory of its body."""

    bodies: Bodies
    size: int = 0

    def grow(self, count: int) -> None:
        """
        Count more bytes.

        Raises:
            Refused: UNAVAILABLE; all bodies together are too large.
        """
        if self.bodies.size + count > BODIES_BYTES_MAX:
            raise Refused(grpc.StatusCode.UNAVAILABLE, "the server holds as much of requests as it may")
        self.size += count
        self.bodies.size += count


async def read_body(scope: Scope, receive: Receive, held: Held) -> bytes:
    """
    Read a body of bounded size, decompressed where it is gzip.

    Raises:
        TooLarge: it is larger than the limit, before or after decompression.
        Refused: INVALID_ARGUMENT for bad gzip, CANCELLED where the client went, UNAVAILABLE where too much is here.
    """
    headers = dict(scope["headers"])
    if int(headers.get(b"content-length", b"0")) > BODY_BYTES_MAX:
        raise TooLarge
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(grpc.StatusCode.CANCELLED, "the client went")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        held.grow(len(parts[-1]))
        if size > BODY_BYTES_MAX:
            raise TooLarge
        more = message.get("more_body", False)
    body = b"".join(parts)
    if headers.get(b"content-encoding") != b"gzip":
        return body
    content = await asyncio.to_thread(_unzipped, body)
    held.grow(len(content))
    return content


def _unzipped(body: bytes) -> bytes:
    """
    Decompress gzip of bounded size.

    Raises:
        TooLarge: there is more in it than the limit.
        Refused: INVALID_ARGUMENT; it is not gzip, or cut short.
    """
    # 16 above the window's size means: with gzip's header.
    unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        content = unzip.decompress(body, BODY_BYTES_MAX + 1)
    except zlib.error as exc:
        raise invalid_argument("the body is no gzip") from exc
    if len(content) > BODY_BYTES_MAX:
        raise TooLarge
    if not unzip.eof:
        raise invalid_argument("the body is no whole gzip")
    return content


class _Server(uvicorn.Server):
    """A server inside another: signals are the outer one's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class RestServer:
    """The REST port, from when it is opened until what is in flight has ended."""

    def __init__(self, flags: Flags, inference: Inference, metrics: Metrics | None, *, grace_s: float) -> None:
        """
        Open the port; requests wait there until `start`.

        Raises:
            OSError: it is taken, or the address is not this machine's.
        """
        family = socket.AF_INET6 if ":" in flags.listen_address else socket.AF_INET
        address = (flags.listen_address, flags.rest_api_port)
        self._port = socket.create_server(address, family=family, backlog=LISTEN_BACKLOG)
        app = RestApi(
            inference,
            metrics,
            timeout_s=flags.rest_api_timeout_in_ms / 1000,
            at_once=flags.rest_api_num_threads or 4 * usable_cores(),
            cors=flags.rest_api_enable_cors_support,
            check_method=flags.enable_signature_method_name_check,
        )
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=int(grace_s),
        )
        self._server = _Server(config)

    def start(self) -> None:
        """Begin to answer."""
        self._serving = asyncio.ensure_future(self._server.serve([self._port]))

    async def stop(self) -> None:
        """Take no more, and finish what is in flight."""
        self._server.should_exit = True
        await self._serving
