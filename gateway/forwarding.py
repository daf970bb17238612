"""Routes that auth or records answer: `/api` and the service's own path; only the declared ones exist."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from gateway.deps import client_of, state_of
from gateway.headers import CALLER
from gateway.uploads import UploadLimits, read_body
from gateway.upstream import ANSWER_HEADERS, REQUEST_HEADERS, Answer, Upstream, passed
from healthguard.problems import InvalidRequest, NotFound, request_id_of

PUBLIC_PREFIX = "/api"
BODY_BYTES_MAX = 64 * 1024
BODY_TIMEOUT_S = 10.0
QUERY_CHARS_MAX = 4096

# What may stand in a path's variable places; anything else is a path that does not exist.
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NUMBER = re.compile(r"[0-9]{1,19}")
_VARIABLES = {"number": _NUMBER, "user_id": _NUMBER}


@dataclass(frozen=True)
class Passed:
    """A path of a service that is open to the public, and the methods that it takes."""

    path: str
    methods: tuple[str, ...]


Choose = Callable[[Request], Upstream]
"""Returns the service that answers."""


def add_passed(router: APIRouter, table: tuple[Passed, ...], choose: Choose, **options: Any) -> None:
    """Add a route for each row of *table*; OpenAPI gets them from the service's own document."""
    for row in table:
        router.add_api_route(
            PUBLIC_PREFIX + row.path,
            _endpoint(row.path, choose),
            methods=list(row.methods),
            include_in_schema=False,
            response_model=None,
            **options,
        )


def _endpoint(path: str, choose: Choose) -> Callable[[Request], Awaitable[Response]]:
    async def pass_on(request: Request) -> Response:
        return await forward(request, choose(request), path.format(**_checked(request.path_params)))

    return pass_on


def _checked(variables: Mapping[str, str]) -> Mapping[str, str]:
    """
    Return the variable parts of a path, once they are ids: what a client typed becomes part of another URL.

    Raises:
        NotFound: one is no id.
    """
    if all(_VARIABLES.get(name, _UUID).fullmatch(value) for name, value in variables.items()):
        return variables
    raise NotFound


async def forward(
    request: Request, upstream: Upstream, path: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    """
    Pass *request* on to *path* of a service, and its answer back.

    Args:
        headers: what the service gets beside those that pass, or instead of them.

    Raises:
        InvalidRequest: the query is too long.
        PayloadTooLarge, UploadTooSlow, Overloaded: as `uploads.read_body` says.
        UpstreamUnavailable, BadUpstream: as `Upstream.call` says.
    """
    if len(request.url.query) > QUERY_CHARS_MAX:
        raise InvalidRequest("The query is too long.")
    sent = passed(request.headers, REQUEST_HEADERS)
    if (caller := request.scope.get(CALLER)) is not None:
        # The services behind know tokens only; whoever showed an API key has one by now.
        sent["authorization"] = f"Bearer {caller.token}"
    # One address, whatever came: auth counts log-ins by it, and trusts one hop, which is us.
    sent["x-forwarded-for"] = client_of(request)
    limits = UploadLimits(BODY_BYTES_MAX, 0, BODY_TIMEOUT_S)
    async with read_body(request, limits, state_of(request)["forwarded_budget"]) as body:
        answer = await upstream.call(
            request.method,
            path,
            request_id=request_id_of(request),
            query=request.url.query,
            headers=sent | dict(headers or {}),
            body=bytes(body),
        )
    return _response(answer)


def _response(answer: Answer) -> Response:
    headers = passed(answer.headers, ANSWER_HEADERS)
    if headers.get("location", "").startswith("/"):
        headers["location"] = PUBLIC_PREFIX + headers["location"]
    return Response(answer.body, answer.status, headers)
