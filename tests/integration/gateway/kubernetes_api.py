"""
A part of the Kubernetes API for the gateway's watch: lists and watches of two kinds, and what goes wrong with them.

It is no fake of the API server but a script of it: tests say what it answers next. The real one is asked by the suite
that runs the product on a node.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Object = dict[str, Any]

TOKEN = "the-token-of-a-service-account"


@dataclass
class Kind:
    """The objects of one kind, the events that happened to them, and how calls about them fail."""

    objects: dict[str, Object] = field(default_factory=dict)
    events: list[tuple[int, Object]] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    """Status codes with which the next calls fail, one each."""
    lists: int = 0
    watches: int = 0
    page: int = 1000
    selectors: set[str] = field(default_factory=set)


@dataclass
class Api:
    """Two kinds under one resource version."""

    kinds: dict[str, Kind] = field(default_factory=lambda: {"servedmodels": Kind(), "endpointslices": Kind()})
    version: int = 1
    oldest: int = 0
    """Watches from before here are told that their place has expired."""
    token: str = TOKEN
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    cut: int = 0
    """Counts how often all watches were cut."""

    def app(self) -> Starlette:
        """Return it as an application."""
        return Starlette(routes=[Route("/apis/{group}/{version}/namespaces/clinic/{kind}", self.answer)])

    async def put(self, kind: str, name: str, found: Object) -> None:
        """Make or change an object."""
        known = self.kinds[kind].objects
        event = "MODIFIED" if name in known else "ADDED"
        await self._happen(kind, event, name, found)
        known[name] = found

    async def delete(self, kind: str, name: str) -> None:
        """Remove an object."""
        await self._happen(kind, "DELETED", name, self.kinds[kind].objects.pop(name))

    async def cut_watches(self) -> None:
        """End every watch, without a word."""
        async with self.changed:
            self.cut += 1
            self.changed.notify_all()

    async def _happen(self, kind: str, event: str, name: str, found: Object) -> None:
        async with self.changed:
            self.version += 1
            metadata = found.get("metadata", {}) | {"name": name, "resourceVersion": str(self.version)}
            found["metadata"] = metadata
            self.kinds[kind].events.append((self.version, {"type": event, "object": json.loads(json.dumps(found))}))
            self.changed.notify_all()

    async def answer(self, request: Request) -> Response:
        """Answer a list or a watch."""
        kind = self.kinds[request.path_params["kind"]]
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return JSONResponse({"code": 401}, 401)
        if kind.failures:
            return JSONResponse({}, kind.failures.pop(0))
        kind.selectors.add(request.query_params.get("labelSelector", ""))
        if request.query_params.get("watch"):
            kind.watches += 1
            return StreamingResponse(self._watch(kind, int(request.query_params["resourceVersion"]), self.cut))
        return self._list(kind, int(request.query_params.get("continue", "0")))

    def _list(self, kind: Kind, start: int) -> Response:
        kind.lists += 1
        items = [kind.objects[name] for name in sorted(kind.objects)][start : start + kind.page]
        more = start + kind.page < len(kind.objects)
        metadata = {"resourceVersion": str(self.version)} | ({"continue": str(start + kind.page)} if more else {})
        return JSONResponse({"items": items, "metadata": metadata})

    async def _watch(self, kind: Kind, since: int, cut: int) -> AsyncIterator[bytes]:
        if since < self.oldest:
            yield json.dumps({"type": "ERROR", "object": {"code": 410}}).encode() + b"\n"
            return
        while self.cut == cut:
            async with self.changed:
                for version, event in kind.events:
                    if version > since:
                        since = version
                        yield json.dumps(event).encode() + b"\n"
                await self.changed.wait()
