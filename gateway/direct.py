"""
Routes whose handlers get what they ask for without FastAPI's walk.

FastAPI finds out anew with each request what a handler needs: it walks the tree of dependencies, asks of every function
what kind it is, and reads each kind of parameter of each, also where there is none. For the main job this took as long
as all else that this process does in Python. Here the walk is done once, when the route is made, from FastAPI's own
reading of the signatures: handlers, their documentation and their tests are the same under either.

What is not needed here is left to FastAPI: bodies that it would parse, cookies, functions that are no coroutines,
overridden dependencies, answers of which a part is left out.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any, cast

from fastapi import Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, _effective_route_context_var

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_MISSING: Any = object()
"""What a dependency gives whose own parameters are wrong: whoever needs it is not called, as in FastAPI."""


@dataclass(frozen=True)
class Need:
    """A function to be called once for a request, and where its arguments come from."""

    call: Callable[..., Any]
    opens: bool
    """Whether it is a context that stays open until the answer was sent."""
    needs: tuple[tuple[str, int], ...]
    """Names of arguments, and the places of the needs that give them."""
    own: Dependant
    """Its own parameters, as FastAPI has read them from its signature."""
    absent: Mapping[str, Any] | None
    """Its query and header parameters where the request has none of them; None: there is one that must be there."""
    headers: frozenset[bytes]

    def arguments(
        self, request: Request, response: Response, sent: frozenset[bytes], found: Sequence[Any], errors: list[Any]
    ) -> dict[str, Any] | None:
        """Return the arguments of the call; None where one is missing or wrong."""
        given = {name: found[place] for name, place in self.needs}
        before = len(errors)
        own = self.own
        if own.path_params:
            _read(own.path_params, request.path_params, given, errors)
        if self.absent is not None and not request.scope["query_string"] and self.headers.isdisjoint(sent):
            given.update(self.absent)
        else:
            _read(own.query_params, request.query_params, given, errors)
            _read(own.header_params, request.headers, given, errors)
        for name in (own.request_param_name, own.http_connection_param_name):
            if name:
                given[name] = request
        if own.response_param_name:
            given[own.response_param_name] = response
        return None if len(errors) > before or _MISSING in given.values() else given


def _read(fields: Sequence[Any], sent: Any, given: dict[str, Any], errors: list[Any]) -> None:
    if fields:
        values, wrong = request_params_to_args(fields, sent)
        given.update(values)
        errors.extend(wrong)


def needs_of(dependant: Dependant) -> list[Need] | None:
    """Return what is to be called for a handler, itself last; None where that takes more than is done here."""
    found: list[Need] = []
    places: dict[Callable[..., Any], int] = {}
    return found if _add(dependant, found, places) is not None else None


def _add(dependant: Dependant, found: list[Need], places: dict[Callable[..., Any], int]) -> int | None:
    """Add a dependency after those that it needs itself; return its place."""
    call = dependant.call
    if call is None or not _is_plain(dependant):
        return None
    if call in places:
        return places[call]
    needs = []
    for each in dependant.dependencies:
        if (place := _add(each, found, places)) is None:
            return None
        if each.name is not None:
            needs.append((each.name, place))
    opens = isasyncgenfunction(call)
    fields = [*dependant.query_params, *dependant.header_params]
    found.append(
        Need(
            asynccontextmanager(call) if opens else call,
            opens,
            tuple(needs),
            dependant,
            None if any(field.field_info.is_required() for field in fields) else _defaults(fields),
            frozenset(field.alias.lower().encode() for field in dependant.header_params),
        )
    )
    places[call] = len(found) - 1
    return places[call]


def _defaults(fields: Sequence[Any]) -> dict[str, Any]:
    return {field.name: field.default for field in fields}


def _is_plain(dependant: Dependant) -> bool:
    """Tell whether what a function asks for is among what is done here."""
    call = dependant.call
    other = (
        *(dependant.cookie_params, dependant.body_params, dependant.background_tasks_param_name),
        *(dependant.websocket_param_name, dependant.security_scopes_param_name, dependant.concurrency),
        # It would be closed before the answer is sent.
        isasyncgenfunction(call) and dependant.scope == "function",
    )
    return dependant.use_cache and not any(other) and (isasyncgenfunction(call) or _is_coroutine(call))


def _is_coroutine(call: Any) -> bool:
    """Tell whether *call* is awaited, as a function or as an object, such as FastAPI's schemes of security."""
    return iscoroutinefunction(call) or iscoroutinefunction(getattr(type(call), "__call__", None))  # noqa: B004


class DirectRoute(APIRoute):
    """A route that calls what its handler needs, one after the other."""

    def get_route_handler(self) -> Handler:
        """Return the handler, or FastAPI's where more is asked for than is done here."""
        usual: Handler = super().get_route_handler()
        route = self._included()
        needs, field = needs_of(route.dependant), route.response_field
        if needs is None or field is None or _is_partial(route) or not _is_json(route):
            return usual

        async def handle(request: Request) -> Response:
            if request.scope["app"].dependency_overrides:
                return await usual(request)
            response = Response()
            answer = await _run(needs, request, response)
            if isinstance(answer, Response):
                return answer
            content = field.serialize_json(answer, by_alias=route.response_model_by_alias)
            written = Response(content, route.status_code or 200, media_type="application/json")
            written.raw_headers.extend(header for header in response.raw_headers if header[0] != b"content-length")
            return written

        return handle

    def _included(self) -> APIRoute:
        """
        Return this route as `include_router` has it: with the dependencies that were given there.

        FastAPI makes a handler for each inclusion, and tells of which by this variable, as its own method reads it. It
        is no public name; a test would say that it has gone.
        """
        included = _effective_route_context_var.get()
        return cast(APIRoute, included) if included is not None and included.original_route is self else self


def _is_partial(route: APIRoute) -> bool:
    """Tell whether parts of what the handler returns are left out of the answer."""
    named = (route.response_model_include, route.response_model_exclude)
    return (
        any(each is not None for each in named)
        or route.response_model_exclude_unset
        or route.response_model_exclude_defaults
        or route.response_model_exclude_none
    )


def _is_json(route: APIRoute) -> bool:
    """Tell whether the answer is of the usual kind: nobody named another."""
    return isinstance(route.response_class, DefaultPlaceholder)


async def _run(needs: Sequence[Need], request: Request, response: Response) -> Any:
    """
    Call what is needed, the handler last, and return what that returns.

    Raises:
        RequestValidationError: parameters are missing or wrong: all of them are told at once.
    """
    stack: AsyncExitStack = request.scope["fastapi_inner_astack"]
    sent = frozenset(name for name, _ in request.scope["headers"])
    found: list[Any] = []
    errors: list[Any] = []
    for need in needs:
        given = need.arguments(request, response, sent, found, errors)
        if given is None:
            found.append(_MISSING)
        elif need is needs[-1] and errors:
            break
        elif need.opens:
            found.append(await stack.enter_async_context(need.call(**given)))
        else:
            found.append(await need.call(**given))
    if errors:
        raise RequestValidationError(errors)
    return found[-1]
