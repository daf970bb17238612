"""Gateways are found, asked and added up; what cannot be had makes the answer older or incomplete, never better."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from gateway.metrics import PredictionMetrics
from healthguard.install.certificates import issue, make_authority
from serving.operator import gateways as module
from serving.operator.gateways import Gateways, addresses
from serving.operator.kubernetes import Access, Api, connect
from serving.operator.rollout_status import RolloutState
from serving.operator.settings import OperatorSettings
from tests.unit.serving.operator import served

START = datetime(2026, 11, 22, 10, tzinfo=UTC)
STATE = RolloutState(4, 3, "Progressing", 0, 5, START, START, "Measuring", "So it is.")
SLICES = "/apis/discovery.k8s.io/v1/namespaces/clinic/endpointslices"


BUCKET = b'healthguard_model_call_duration_seconds_bucket{model="cancer",version="4",le="%s"} 1\n'


@dataclass
class Door:
    """A gateway's /metrics."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    port: int = 0
    status: int = 200
    body: bytes | None = None

    def __post_init__(self) -> None:
        self.metrics = PredictionMetrics(self.registry)

    async def answer(self, _: web.Request) -> web.Response:
        """Answer as a gateway does, or worse."""
        body = generate_latest(self.registry) if self.body is None else self.body
        return web.Response(body=body, status=self.status)

    def restart(self) -> None:
        """Count from 0 again."""
        self.registry = CollectorRegistry()
        self.metrics = PredictionMetrics(self.registry)


def endpoint_slice(port: int, **conditions: bool) -> dict[str, Any]:
    """Return an EndpointSlice with one gateway on this machine."""
    endpoint = {"addresses": ["127.0.0.1"], "conditions": {"ready": True} | conditions}
    return {"addressType": "IPv4", "ports": [{"name": "http", "port": port}], "endpoints": [endpoint]}


@dataclass
class Clinic:
    """An API server that knows of gateways, the gateways, and a clock that is set by hand."""

    doors: list[Door]
    gateways: Gateways = field(init=False)
    now: float = 1000.0
    lists: int = 0
    status: int = 200

    async def slices(self, request: web.Request) -> web.Response:
        """Answer as the API server does."""
        assert request.query["labelSelector"] == "kubernetes.io/service-name=hg-gateway"
        self.lists += 1
        items = [endpoint_slice(door.port) for door in self.doors]
        return web.json_response({"items": items, "metadata": {}}, status=self.status)

    async def ask(self, *, later_s: float = 3.0) -> None:
        """Let time pass, and ask all gateways."""
        self.now += later_s
        await self.gateways.ask()


async def _no_pause(_: float) -> None:
    return


@asynccontextmanager
async def clinic(count: int = 2, tls: ssl.SSLContext | None = None, **settings: Any) -> AsyncIterator[Clinic]:
    """Yield a clinic with *count* gateways whose model `cancer` is followed."""
    found = Clinic([Door() for _ in range(count)])
    runners = []

    async def listen(path: str, handler: Any, context: ssl.SSLContext | None = None) -> int:
        application = web.Application()
        application.router.add_get(path, handler)
        runner = web.AppRunner(application)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        return int(runner.addresses[0][1])

    try:
        for door in found.doors:
            door.port = await listen("/metrics", door.answer, tls)
        port = await listen(SLICES, found.slices)
        chosen = served.settings(gateway_service="hg-gateway", **settings)
        access = Access(f"http://127.0.0.1:{port}", {}, None)
        async with connect(lambda: access, _no_pause) as api, _connected(api, chosen, found) as found.gateways:
            assert found.gateways.look("clinic", "cancer", None) == module.Look(None, None)
            yield found
    finally:
        for runner in runners:
            await runner.cleanup()


@asynccontextmanager
async def _connected(api: Api, settings: OperatorSettings, found: Clinic) -> AsyncIterator[Gateways]:
    async with module.connect(api, settings) as gateways:
        gateways._clock = lambda: found.now
        yield gateways


def call(door: Door, times: int, version: int = 4) -> None:
    """Have a gateway call a version, and answer clients with what it said."""
    for _ in range(times):
        door.metrics.called("cancer", version, 0.02)
        door.metrics.made("cancer", version, "Positive", "doctor")


async def test_what_gateways_measured_is_added_up() -> None:
    """All of them together, from the step's beginning on."""
    async with clinic() as found:
        one, two = found.doors
        call(one, 50)
        await found.ask()
        assert found.gateways.look("clinic", "cancer", STATE).measured is not None
        call(one, 5)
        call(two, 7)
        two.metrics.call_failed("cancer", 4)
        await found.ask()
        measured = found.gateways.look("clinic", "cancer", STATE).measured
        assert measured is not None
        assert (measured.requests, measured.errors, measured.complete) == (12, 1, True)


async def test_each_step_is_measured_anew() -> None:
    """What came before it does not count."""
    async with clinic(1) as found:
        await found.ask()
        found.gateways.look("clinic", "cancer", STATE)
        call(found.doors[0], 9)
        await found.ask()
        later = replace(STATE, step_started_at=START + timedelta(minutes=2))
        for state, requests in ((STATE, 9), (later, 0)):
            measured = found.gateways.look("clinic", "cancer", state).measured
            assert measured is not None
            assert measured.requests == requests


async def test_restart_of_a_gateway_loses_nothing_that_was_heard() -> None:
    """Its counters begin again, ours do not."""
    async with clinic(1) as found:
        await found.ask()
        found.gateways.look("clinic", "cancer", STATE)
        call(found.doors[0], 9)
        await found.ask()
        found.doors[0].restart()
        call(found.doors[0], 2)
        await found.ask()
        measured = found.gateways.look("clinic", "cancer", STATE).measured
        assert measured is not None
        assert measured.requests == 11


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(500, None, id="an error"),
        pytest.param(302, None, id="somewhere else"),
        pytest.param(200, b"healthguard_predictions_in_flight{model=nonsense", id="nonsense"),
        pytest.param(200, b"\xff\xfe", id="no text"),
        pytest.param(200, b"#" * 3000, id="too long"),
        pytest.param(200, b'healthguard_predictions_in_flight{model="cancer"} NaN\n', id="no number"),
        pytest.param(200, BUCKET % b"soon", id="no bound"),
        pytest.param(200, BUCKET % b"NaN", id="no bound's number"),
    ],
)
async def test_gateway_that_is_not_heard_makes_it_incomplete(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes | None
) -> None:
    """What the others measured is told, and no number of what is in flight, since it would be too small."""
    async with clinic() as found:
        await found.ask()
        found.gateways.look("clinic", "cancer", STATE)
        assert found.gateways.in_flight("clinic", "cancer") == 0
        call(found.doors[0], 4)
        found.doors[1].status, found.doors[1].body = status, body
        if body and len(body) == 3000:
            monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 2999)
            found.doors[0].body = b""
        await found.ask()
        measured = found.gateways.look("clinic", "cancer", STATE).measured
        assert measured is not None
        assert not measured.complete
        assert found.gateways.in_flight("clinic", "cancer") is None


async def test_gateway_whose_text_breaks_the_parser_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser is a library's, and says nothing of what it raises."""

    def read(_: str) -> None:
        raise KeyError("label")

    async with clinic(1) as found:
        monkeypatch.setattr(module, "read", read)
        await found.ask()
        assert found.gateways.in_flight("clinic", "cancer") is None


async def test_more_gateways_than_are_asked_make_it_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of those that are left out may be the one that sees the errors."""
    monkeypatch.setattr(module, "GATEWAYS_MAX", 1)
    async with clinic() as found:
        await found.ask()
        measured = found.gateways.look("clinic", "cancer", STATE).measured
        assert measured is not None
        assert not measured.complete
        assert found.gateways.in_flight("clinic", "cancer") is None
        await found.ask()
        assert found.lists == 1


async def test_namespace_without_a_model_of_ours_is_not_asked_about() -> None:
    """Who may read external metrics could have any number of namespaces asked otherwise."""
    async with clinic() as found:
        await found.ask()
        for number in range(3):
            assert found.gateways.in_flight(f"elsewhere-{number}", "cancer") is None
        await found.ask()
        assert found.gateways._followed.keys() == {"clinic"}


async def test_no_gateway_is_no_measurement() -> None:
    """Neither nought requests nor nothing in flight: nobody knows."""
    async with clinic(0) as found:
        await found.ask()
        assert found.gateways.look("clinic", "cancer", STATE).measured is None
        assert found.gateways.in_flight("clinic", "cancer") is None


async def test_old_news_are_none() -> None:
    """What was heard before a while is told no more."""
    async with clinic() as found:
        found.doors[0].metrics.in_flight.labels("cancer").set(3)
        found.doors[1].metrics.in_flight.labels("cancer").set(4)
        await found.ask()
        assert found.gateways.in_flight("clinic", "cancer") == 7
        assert found.gateways.in_flight("clinic", "anemia") == 0
        found.now += 60
        assert found.gateways.in_flight("clinic", "cancer") is None
        assert found.gateways.look("clinic", "cancer", STATE).measured is None


async def test_api_server_away_makes_it_incomplete() -> None:
    """Gateways that were made meanwhile would be missing."""
    async with clinic() as found:
        await found.ask()
        await found.ask(later_s=14)
        assert found.gateways.in_flight("clinic", "cancer") == 0
        found.status = 403
        await found.ask()
        assert found.gateways.in_flight("clinic", "cancer") is None
        found.status = 200
        await found.ask()
        assert found.gateways.in_flight("clinic", "cancer") == 0


async def test_gateways_are_listed_now_and_then_and_after_a_failure() -> None:
    """A call each time would be a load; one that went away is looked for at once."""
    async with clinic() as found:
        for _ in range(2):
            await found.ask()
        assert found.lists == 1
        found.doors[1].status = 500
        await found.ask()
        gone = found.doors.pop()
        await found.ask()
        assert found.lists == 2
        assert found.gateways.in_flight("clinic", "cancer") == 0
        assert gone.status == 500


async def test_split_is_that_of_the_last_minute() -> None:
    """As it was answered, not as it was wished."""
    async with clinic() as found:
        for _ in range(3):
            call(found.doors[0], 90, version=3)
            await found.ask(later_s=30)
        for _ in range(2):
            call(found.doors[0], 40, version=3)
            call(found.doors[1], 10, version=4)
            await found.ask(later_s=30)
        assert found.gateways.look("clinic", "cancer", None).traffic == {3: 80, 4: 20}
        for _ in range(3):
            await found.ask(later_s=30)
        assert found.gateways.look("clinic", "cancer", None).traffic is None


async def test_rollout_that_is_over_is_not_measured() -> None:
    """Nothing would come of it."""
    async with clinic() as found:
        await found.ask()
        assert found.gateways.look("clinic", "cancer", replace(STATE, phase="Promoted")).measured is None


async def test_namespace_that_nobody_looks_at_is_asked_about_no_more() -> None:
    """Its models are gone."""
    async with clinic() as found:
        await found.ask(later_s=module.FOLLOWED_S + 1)
        assert found.lists == 0


async def test_gateways_are_known_by_their_certificate(tmp_path: Path) -> None:
    """They are asked by address, and must have the Service's name; any other's is not heard."""
    now = datetime.now(UTC)
    authority = make_authority(now)
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    for name, known in (("hg-gateway.clinic.svc", True), ("hg-gateway.elsewhere.svc", False)):
        pair = issue(authority, [name], now)
        (tmp_path / "tls.crt").write_bytes(pair.certificate)
        (tmp_path / "tls.key").write_bytes(pair.key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
        async with clinic(1, context, gateway_ca_file=tmp_path / "ca.crt") as found:
            await found.ask()
            assert (found.gateways.in_flight("clinic", "cancer") == 0) is known


def test_only_gateways_that_take_requests_are_asked() -> None:
    """Each once, of one address family, at the port that is named so."""
    two_families = [
        endpoint_slice(8004),
        endpoint_slice(8004),
        endpoint_slice(8005, ready=False),
        endpoint_slice(8006) | {"ports": [{"name": "grpc", "port": 8006}]},
        endpoint_slice(8004) | {"addressType": "IPv6", "endpoints": [{"addresses": ["::1"]}]},
        endpoint_slice(8004) | {"endpoints": None},
    ]
    assert addresses(two_families) == ("127.0.0.1:8004",)
    assert addresses(two_families[4:]) == ("[::1]:8004",)
    with pytest.raises(ValueError, match="EndpointSlice"):
        addresses([endpoint_slice(8004) | {"endpoints": [{}]}])
