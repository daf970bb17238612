"""Routes without FastAPI's walk answer as those with it: the same application under both, request by request."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from gateway.direct import DirectRoute, needs_of
from gateway.routes import anemia, cancer, predictions
from healthguard import problems
from healthguard.http import RequestContext
from healthguard.metrics import HttpMetrics
from healthguard.problems import Forbidden
from healthguard.telemetry import NO_TELEMETRY

events: list[str] = []
"""What the application below did, in order."""


class Answer(BaseModel):
    """What its handler returns."""

    name: str
    number: int
    tag: str | None
    who: str


async def caller(request: Request, _token: Annotated[Any, Security(HTTPBearer(auto_error=False))] = None) -> str:
    """Return who asks; nobody may be called Eve."""
    events.append("caller")
    if request.headers.get("x-caller") == "eve":
        raise Forbidden
    return request.headers.get("x-caller", "nobody")


async def opened(who: Annotated[str, Depends(caller)]) -> AsyncIterator[str]:
    """Give something that is to be closed after the answer."""
    events.append(f"opened for {who}")
    yield who
    events.append("closed")


async def tagged(
    thing: Annotated[str, Depends(opened)], x_tag: Annotated[str | None, Header(max_length=3)] = None
) -> str | None:
    """Return a header, which may be wrong."""
    events.append(f"tagged {thing}")
    return x_tag


async def handle(
    *,
    who: Annotated[str, Depends(caller)],
    name: Annotated[str, Path(max_length=4)],
    thing: Annotated[str, Depends(opened)],
    tag: Annotated[str | None, Depends(tagged)],
    response: Response,
    number: Annotated[int, Query(ge=0)] = 7,
) -> Answer:
    """Answer with all that came."""
    events.append("handled")
    response.headers["X-Thing"] = thing
    return Answer(name=name, number=number, tag=tag, who=who)


async def teapot(who: Annotated[str, Depends(caller)]) -> Response:
    """Answer with a response of its own."""
    return Response(who.encode(), 418)


async def gate(x_gate: Annotated[str | None, Header()] = None) -> None:
    """Let in who says the word; given where the router is included."""
    events.append("gate")
    if x_gate != "open":
        raise Forbidden


def application(kind: type[APIRoute]) -> FastAPI:
    """Return the application under one kind of route."""
    router = APIRouter(route_class=kind)
    router.post("/things/{name}", status_code=201)(handle)
    router.get("/teapot", response_model=Answer)(teapot)
    router.get("/named/{name}", response_model_include={"name", "tag"})(handle)
    router.get("/numbered/{name}", response_model_exclude={"name"})(handle)
    router.get("/short/{name}", response_model_exclude_none=True)(handle)
    router.get("/set/{name}", response_model_exclude_unset=True)(handle)
    router.get("/odd/{name}", response_model_exclude_defaults=True)(handle)
    app = FastAPI(telemetry=NO_TELEMETRY)
    app.add_middleware(RequestContext, http_metrics=HttpMetrics(), trust_request_id=True)
    problems.install(app)
    app.include_router(router)
    app.include_router(router, prefix="/gated", dependencies=[Depends(gate)])
    return app


async def asked(app: FastAPI, method: str, path: str, headers: dict[str, str]) -> tuple[Any, ...]:
    """Return the answer, as far as it may not differ, and what was done for it."""
    events.clear()
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        found = await client.request(method, path, headers=headers | {"X-Request-Id": "0123456789"})
    return found.status_code, found.content, sorted(found.headers.multi_items()), list(events)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/things/a", {}),
        ("POST", "/things/a?number=3", {"X-Tag": "red", "X-Caller": "ann"}),
        ("POST", "/things/a", {"X-Caller": "eve"}),
        ("POST", "/things/a", {"X-Tag": "purple"}),
        ("POST", "/things/a?number=-1", {"X-Tag": "purple"}),
        ("POST", "/things/long-name?number=x", {}),
        ("POST", "/things/a?other=1", {"Authorization": "Bearer x"}),
        ("GET", "/teapot", {"X-Caller": "ann"}),
        ("GET", "/things/a", {}),
        ("POST", "/gated/things/a", {}),
        ("POST", "/gated/things/a", {"X-Gate": "open", "X-Tag": "red"}),
        *(("GET", f"/{part}/a", {}) for part in ("named", "numbered", "short", "set", "odd")),
    ],
    ids=str,
)
async def test_direct_route_does_what_fastapi_does(method: str, path: str, headers: dict[str, str]) -> None:
    """Status, body, headers, and which functions run in which order: each once, the open one closed at the end."""
    expected = await asked(application(APIRoute), method, path, headers)
    assert await asked(application(DirectRoute), method, path, headers) == expected


async def test_direct_route_heeds_what_is_asked_for_where_it_is_included() -> None:
    """A guard that `include_router` is given stands before every handler; without its word nothing is done."""
    app = application(DirectRoute)
    status, *_, done = await asked(app, "POST", "/gated/things/a", {})
    assert (status, done) == (403, ["gate"])
    status, *_, done = await asked(app, "POST", "/gated/things/a", {"X-Gate": "open"})
    assert (status, done[0], done[-2:]) == (201, "gate", ["handled", "closed"])


async def test_direct_route_leaves_overrides_to_fastapi() -> None:
    """Whoever replaces a dependency is heard."""
    app = application(DirectRoute)
    app.dependency_overrides[caller] = lambda: "somebody else"
    status, content, *_ = await asked(app, "POST", "/things/a", {})
    assert (status, b"somebody else" in content) == (201, True)


@pytest.mark.parametrize(
    "router", [predictions.router, cancer.router, anemia.router], ids=["predictions", "cancer", "anemia"]
)
def test_main_job_has_direct_routes(router: APIRouter) -> None:
    """Every path that predicts is one whose needs are all known beforehand; otherwise FastAPI would do it, unseen."""
    routes = [route for route in router.routes if isinstance(route, APIRoute) and "POST" in (route.methods or ())]
    assert routes
    for route in routes:
        assert isinstance(route, DirectRoute)
        assert needs_of(route.dependant) is not None
