"""
Errors as `application/problem+json` (RFC 9457): one class per kind of error, four handlers in all.

    Problem
    ├── InvalidRequest      400  the request cannot be read
    ├── Unauthorized        401  no token, or one that does not hold
    ├── Forbidden           403  this caller may not do this
    ├── NotFound            404  nothing here that this caller may see
    ├── MethodNotAllowed    405  the path is right, the method is not
    ├── RequestTooSlow      408  the request does not arrive in time
    ├── PayloadTooLarge     413  the body is longer than this path takes
    ├── UnsupportedMedia    415  the body is of a type that this path does not take
    ├── ValidationFailed    422  a field is missing or not valid
    ├── IdempotencyMismatch 422  the Idempotency-Key was used for something else
    ├── HeadTooLarge        431  the request line or the headers are too long
    ├── Unavailable         503  something we need is away; try again
    └── InternalError       500  our fault; only the request id is told

Each service's `problems.py` adds its own. Nothing that a client sent, and no exception text, is ever echoed: both can
hold patient data. `docs/problems.md` lists every type, and a test keeps it so.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from healthguard.logging import frames_of

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
STANDARD_MEMBERS = frozenset({"type", "title", "status", "detail", "instance", "request_id"})

_JSON_TYPES: dict[type, str] = {int: "integer", float: "number", str: "string", list: "array", bool: "boolean"}


class Problem(Exception):
    """
    An error as the client will see it.

    Subclasses set `status`, `slug` (the last part of the problem type's URI) and `title`, and name their extra
    `members` with a type each. A member called `retry_after_ms` also becomes the Retry-After header, in whole
    seconds, rounded up.
    """

    status: ClassVar[int]
    slug: ClassVar[str]
    title: ClassVar[str]
    members: ClassVar[Mapping[str, type]] = {}

    def __init_subclass__(cls) -> None:
        """Refuse a subclass whose extra members would overwrite the standard ones."""
        if overwritten := STANDARD_MEMBERS & cls.members.keys():
            raise TypeError(f"{cls.__name__} overwrites the standard members {sorted(overwritten)}")

    def __init__(self, detail: str | None = None, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        """
        Args:
            detail: one sentence of ours for this occurrence; never a part of the request.
            headers: further response headers.
            members: values for the extra members that the class declares.

        Raises:
            TypeError: a member that the class does not declare.
        """
        if unknown := members.keys() - self.members.keys():
            raise TypeError(f"{type(self).__name__} has no member {sorted(unknown)}")
        super().__init__(self.title)
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = members

    @classmethod
    def uri(cls) -> str:
        """Return the problem type as the URI that stands in the body."""
        return f"urn:healthguard:problem:{cls.slug}"

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """Return the JSON schema of this problem's body, for OpenAPI."""
        properties: dict[str, Any] = {
            "type": {"type": "string", "const": cls.uri()},
            "title": {"type": "string", "const": cls.title},
            "status": {"type": "integer", "const": cls.status},
            "detail": {"type": "string"},
            "request_id": {"type": "string"},
        }
        properties |= {name: {"type": _JSON_TYPES[kind]} for name, kind in cls.members.items()}
        return {
            "type": "object",
            "title": cls.__name__,
            "properties": properties,
            "required": ["type", "title", "status", "request_id"],
        }

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Return an example body, for OpenAPI."""
        return {"type": cls.uri(), "title": cls.title, "status": cls.status, "request_id": "4f9d0c6b2a1e4c35"}

    def response(self, request_id: str, **protocol_members: str) -> JSONResponse:
        """Return the HTTP response for this problem; a protocol that others defined may want members of its own."""
        body: dict[str, Any] = {
            "type": self.uri(),
            "title": self.title,
            "status": self.status,
            "request_id": request_id,
        }
        if self.detail is not None:
            body["detail"] = self.detail
        headers = {"Cache-Control": "no-store"} | self.headers
        if (retry_after_ms := self.extra.get("retry_after_ms")) is not None:
            headers.setdefault("Retry-After", str(math.ceil(retry_after_ms / 1000)))
        return JSONResponse(body | protocol_members | self.extra, self.status, headers, MEDIA_TYPE)


class InvalidRequest(Problem):
    """The request cannot be read: its framing, encoding or JSON is broken."""

    status, slug, title = 400, "invalid-request", "The request cannot be read"


class Unauthorized(Problem):
    """No token was sent, or one that does not hold: malformed, expired, or of another issuer."""

    status, slug, title = 401, "unauthorized", "A valid access token is needed"

    def __init__(self, detail: str | None = None, *, error: str | None = None) -> None:
        """
        Args:
            error: the RFC 6750 code for a token that was sent but does not hold, e.g. `invalid_token`.
        """
        challenge = "Bearer" if error is None else f'Bearer error="{error}"'
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class Forbidden(Problem):
    """The caller is known and may not do this."""

    status, slug, title = 403, "forbidden", "This is not allowed for this caller"


class NotFound(Problem):
    """Nothing is here, or nothing that this caller may see: the two are not told apart."""

    status, slug, title = 404, "not-found", "Nothing is here for this caller"


class MethodNotAllowed(Problem):
    """The path exists and does not take this method; the Allow header names those that it takes."""

    status, slug, title = 405, "method-not-allowed", "This path does not take this method"


class RequestTooSlow(Problem):
    """The request arrives so slowly that the server hears no more of it; the connection ends."""

    status, slug, title = 408, "request-too-slow", "The request did not arrive in time"


class PayloadTooLarge(Problem):
    """The body is longer than this path takes; `limit_bytes` says how much it takes."""

    status, slug, title = 413, "payload-too-large", "The body is too large"
    members: ClassVar[Mapping[str, type]] = {"limit_bytes": int}


class UnsupportedMedia(Problem):
    """The body is of a media type that this path does not take."""

    status, slug, title = 415, "unsupported-media-type", "This path does not take a body of this type"


class ValidationFailed(Problem):
    """A field is missing or not valid; `errors` names each place and what is wrong there, never the value."""

    status, slug, title = 422, "validation-failed", "A field is missing or not valid"
    members: ClassVar[Mapping[str, type]] = {"errors": list}


class IdempotencyMismatch(Problem):
    """The Idempotency-Key was used before, for another request."""

    status, slug, title = 422, "idempotency-mismatch", "This Idempotency-Key was used for something else"


class HeadTooLarge(Problem):
    """The request line is too long, or there are too many or too long headers; the connection ends."""

    status, slug, title = 431, "head-too-large", "The request line or the headers are too long"


class Unavailable(Problem):
    """Something that this service needs is away for now; the same request may go through later."""

    status, slug, title = 503, "unavailable", "Temporarily unavailable; try again"
    members: ClassVar[Mapping[str, type]] = {"retry_after_ms": int}

    def __init__(self, detail: str | None = None, *, retry_after_ms: int = 1000) -> None:
        super().__init__(detail, retry_after_ms=retry_after_ms)


class InternalError(Problem):
    """A fault of ours; the request id leads to it in the logs."""

    status, slug, title = 500, "internal-error", "Something went wrong on our side"


_ROUTER_PROBLEMS: dict[int, type[Problem]] = {
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: PayloadTooLarge,
    415: UnsupportedMedia,
}


def responses(*kinds: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's `responses=` for these problems: a schema a status, `oneOf` where several share it."""
    by_status: dict[int | str, list[type[Problem]]] = {}
    distinct: dict[type[Problem], None] = dict.fromkeys([*kinds, ValidationFailed, InternalError])
    for kind in distinct:
        by_status.setdefault(kind.status, []).append(kind)
    return {
        status: {
            "description": "; ".join(kind.title for kind in found),
            "content": {
                MEDIA_TYPE: {
                    "schema": _one_of(found),
                    "examples": {kind.slug: {"value": kind.example()} for kind in found},
                }
            },
        }
        for status, found in by_status.items()
    }


def _one_of(kinds: Sequence[type[Problem]]) -> dict[str, Any]:
    schemas = [kind.schema() for kind in kinds]
    return schemas[0] if len(schemas) == 1 else {"oneOf": schemas}


def request_id_of(request: Request) -> str:
    """Return the request's id; the middleware of `healthguard.http` gave it one."""
    return cast(str, request.scope["request_id"])


async def on_problem(request: Request, problem: Problem) -> JSONResponse:
    """Answer with the problem that was raised."""
    return problem.response(request_id_of(request))


async def on_http_exception(request: Request, exc: HTTPException) -> JSONResponse:
    """Answer what the router itself refuses (no such path, no such method) in the same form."""
    kind = _ROUTER_PROBLEMS.get(exc.status_code, InvalidRequest if exc.status_code < 500 else InternalError)
    return kind(headers=exc.headers).response(request_id_of(request))


async def on_validation_error(request: Request, exc: RequestValidationError) -> JSONResponse:
    """Answer a failed validation with places and codes only: FastAPI's default body repeats the input."""
    return failed(exc).response(request_id_of(request))


def failed(exc: RequestValidationError) -> ValidationFailed:
    """Return the problem that a failed validation is."""
    return ValidationFailed(errors=[_safe_error(error) for error in exc.errors()])


async def on_anything_else(request: Request, exc: Exception) -> JSONResponse:
    """
    Answer a fault of ours; the log gets the exception's type and frames; its text may hold patient data.

    That a client left while its body was read is no fault, and clients that do so on purpose must not fill the log.
    """
    if isinstance(exc, ClientDisconnect):
        return InvalidRequest("The client left before its body had arrived.").response(request_id_of(request))
    log.error("request_failed", exception=type(exc).__qualname__, frames=frames_of(exc))
    return InternalError().response(request_id_of(request))


def _safe_error(error: Mapping[str, Any]) -> dict[str, str]:
    """Keep of a pydantic error what cannot repeat the input: the code, and the place without invented names."""
    place: Sequence[Any] = error["loc"]
    if error["type"] == "extra_forbidden":
        place = place[:-1]
    return {"location": ".".join(str(part) for part in place), "code": str(error["type"])}


def install(app: FastAPI) -> None:
    """Register the handlers for problems, the router's own errors and failed validations (the fourth is in `http`)."""
    app.add_exception_handler(Problem, on_problem)  # type: ignore[arg-type]  # Starlette types handlers by Exception
    app.add_exception_handler(HTTPException, on_http_exception)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, on_validation_error)  # type: ignore[arg-type]
