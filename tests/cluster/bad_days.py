"""
An API server that has bad days: a proxy before the real one that refuses some calls, is late, or loses them.

What happens to a call is decided by the test that holds the proxy, call by call, so that a day can be had again. What
comes in speaks as one account of the cluster, with the rights of that account and no others.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal
from unittest import mock

import aiohttp
from aiohttp import web
from yarl import URL

from serving.operator.kubernetes import Access, access
from tests.cluster.cluster import Cluster

_TOLD = ("Content-Type", "Accept")
_START_S = 10.0
_GOODBYE_S = 0.25
_WATCH_S = 400.0
_LINE_BYTES = 4 << 20
_BODY_BYTES = 4 << 20


@dataclass(frozen=True)
class Call:
    """One call, as it came in."""

    method: str
    path: str
    query: str
    watch: bool

    @property
    def writes(self) -> bool:
        """Whether it would change something."""
        return self.method != "GET"

    def of(self, model: str) -> bool:
        """Tell whether it is about one model: the object itself, or what belongs to it."""
        return model in self.path or model in self.query


@dataclass(frozen=True)
class Fault:
    """What is done to a call; by default it is passed on as it is."""

    status: int = 0
    """Answer this, and ask nobody."""
    delay_s: float = 0.0
    lost: Literal["", "before", "after"] = ""
    """Close the connection: instead of passing the call on, or after it was carried out."""
    then: Callable[[], None] | None = None
    """Called when it is lost."""
    events: int | None = None
    """End a watch after so many events."""
    ending: Literal["cut", "expired", "silent"] = "cut"
    """How a watch ends: by a closed connection, by the error 410 in its stream, or by telling nothing any more."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        watch = "410" if self.ending == "expired" else self.ending
        return f"{self.status or self.lost or ('late' if self.delay_s else watch)}"


Judge = Callable[[Call], Fault | None]


def good_day(_: Call) -> Fault | None:
    """Leave every call alone."""
    return None


def bad_day(seed: int, share: float) -> Judge:
    """Return a judge that does something to about *share* of calls, by chance, and to watches each fault in turn."""
    chance = random.Random(seed)
    calls = (
        Fault(status=409),
        Fault(status=429),
        Fault(status=500),
        Fault(status=503),
        Fault(delay_s=0.7),
        Fault(lost="before"),
        Fault(lost="after"),
    )
    # There are few of them, so chance would leave some out.
    watches = itertools.cycle(
        (
            # Not as a status: a real API server says so in the stream.
            Fault(events=0, ending="expired"),
            Fault(status=500),
            Fault(events=0),
            Fault(events=2),
            Fault(events=1, ending="expired"),
            Fault(delay_s=0.7),
        )
    )

    def judge(call: Call) -> Fault | None:
        if call.watch:
            return next(watches)
        if chance.random() >= share:
            return None
        fault = chance.choice(calls)
        # A read conflicts with nothing.
        return None if fault.status == HTTPStatus.CONFLICT and not call.writes else fault

    return judge


@dataclass
class Proxy:
    """The proxy: who it speaks as, what it does to calls (to be set at any time), and what it has seen."""

    upstream: Access
    account: str
    judge: Judge = good_day
    url: str = ""
    calls: list[Call] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    _watches: set[asyncio.Transport] = field(default_factory=set, repr=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)

    @property
    def kubeconfig(self) -> str:
        """A kubeconfig that leads here."""
        entry = {"name": "here"}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [entry | {"context": {"cluster": "here", "user": "here"}}],
            "clusters": [entry | {"cluster": {"server": self.url}}],
            "users": [entry | {"user": {}}],
        }
        return json.dumps(document)

    def cut_watches(self) -> None:
        """Close every watch that is open, as a restart of the API server does."""
        assert self._loop is not None
        for transport in list(self._watches):
            self._loop.call_soon_threadsafe(transport.abort)

    async def answer(self, request: web.Request, session: aiohttp.ClientSession) -> web.StreamResponse:
        """Answer one call, or do to it what the judge says."""
        call = Call(request.method, request.path, request.query_string, "watch" in request.query)
        self.calls.append(call)
        fault = self.judge(call) or Fault()
        if fault != Fault():
            self.faults[fault.name] += 1
        await asyncio.sleep(fault.delay_s)
        if fault.status:
            return _refusal(fault.status)
        if fault.lost == "before":
            return _lose(request, fault)
        async with self._forward(request, session) as answer:
            if fault.lost:
                await answer.read()
                return _lose(request, fault)
            if not call.watch:
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
            return await self._tell(request, answer, fault)

    def _forward(
        self, request: web.Request, session: aiohttp.ClientSession
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        headers = {name: request.headers[name] for name in _TOLD if name in request.headers}
        return session.request(
            request.method,
            URL(self.upstream.server + request.raw_path, encoded=True),
            data=request.content if request.body_exists else None,
            headers={**self.upstream.headers, **headers, "Impersonate-User": self.account},
            ssl=self.upstream.tls or True,
        )

    async def _tell(self, request: web.Request, answer: aiohttp.ClientResponse, fault: Fault) -> web.StreamResponse:
        """Pass a watch on, event by event."""
        told = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]})
        transport = request.transport
        if transport is None:
            return told
        assert isinstance(transport, asyncio.Transport)
        self._watches.add(transport)
        try:
            await told.prepare(request)
            count = 0
            while count != fault.events and (line := await answer.content.readline()):
                await told.write(line)
                count += 1
            if count == fault.events:
                await _end(told, transport, fault)
        except (ConnectionError, aiohttp.ClientError):
            transport.abort()
        finally:
            self._watches.discard(transport)
        return told


async def _end(told: web.StreamResponse, transport: asyncio.Transport, fault: Fault) -> None:
    if fault.ending == "silent":
        await asyncio.sleep(_WATCH_S)
    if fault.ending == "expired":
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}
        await told.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
    else:
        transport.abort()


def _lose(request: web.Request, fault: Fault) -> web.Response:
    if fault.then is not None:
        fault.then()
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _refusal(status: int) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "a bad day", "code": status}
    return web.json_response(body, status=status, headers={"Retry-After": "1"} if status == 429 else {})


@contextmanager
def proxied(cluster: Cluster, account: str) -> Iterator[Proxy]:
    """
    Run a proxy before *cluster* on a free port of 127.0.0.1 meanwhile.

    Args:
        account: the user as which the API server sees whoever comes in, such as `system:serviceaccount:NAMESPACE:NAME`.
    """
    proxy = Proxy(upstream(cluster), account)
    started, loop = threading.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(_serve(proxy, started),), daemon=True)
    thread.start()
    try:
        assert started.wait(_START_S), "the proxy did not start"
        yield proxy
    finally:
        loop.call_soon_threadsafe(_cancel_all, loop)
        thread.join(_START_S)
        loop.close()


def upstream(cluster: Cluster) -> Access:
    """Return the way to the real API server, as the cluster's administrator."""
    with mock.patch.dict(os.environ, cluster.environment()):
        return access()


def trusted(found: Access) -> ssl.SSLContext | bool:
    """Return what httpx is told to trust."""
    return found.tls or True


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


async def _serve(proxy: Proxy, started: threading.Event) -> None:
    timeout = aiohttp.ClientTimeout(total=None, connect=10)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        timeout=timeout, connector=connector, trust_env=False, read_bufsize=_LINE_BYTES
    ) as session:

        async def answer(request: web.Request) -> web.StreamResponse:
            return await proxy.answer(request, session)

        application = web.Application(client_max_size=_BODY_BYTES)
        application.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            proxy.url, proxy._loop = f"http://{host}:{port}", asyncio.get_running_loop()
            started.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        finally:
            await runner.cleanup()
    # Connections with TLS say goodbye first.
    await asyncio.sleep(_GOODBYE_S)
