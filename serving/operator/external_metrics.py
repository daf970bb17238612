"""
The external metrics API of Kubernetes, served by the operator: what is in flight, for autoscalers.

It answers the API server alone, which finds it by an APIService and passes on what autoscalers ask. One metric is
enough: the sum of the gateways' `healthguard_predictions_in_flight` of one model. Where that is not known the answer is
an error, and the autoscaler removes no pod; it is never a number that was made up.

Source: kubernetes/design-proposals-archive, instrumentation/external-metrics-api.md.
"""

import asyncio
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge

from healthguard.install.certificates import Pair, is_due, issue, make_authority
from serving.operator.front_proxy import Door, NotConfigured
from serving.operator.hpa import METRIC, MODEL_SELECTOR
from serving.operator.in_flight import InFlight
from serving.operator.kubernetes import Api, CallFailed
from serving.operator.registration import GROUP, VERSION, Registration
from serving.operator.settings import OperatorSettings
from serving.operator.spec import NAME_LENGTH_MAX, NAME_PATTERN

log = structlog.get_logger()

SAMPLE_S = 3.0
LEAVING_S = 2.0
"""How often it is asked whether our namespace is about to go: five seconds are left then."""
UPHOLD_S = 30.0

_SELECTOR = re.compile(rf"{MODEL_SELECTOR}={NAME_PATTERN.strip('^$')}")


class Metrics:
    """What the operator tells about this API."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.answers = Counter(
            "healthguard_operator_external_metrics", "Questions of autoscalers by result: value, unknown.",
            ["result"], registry=registry,
        )  # fmt: skip
        self.registered = Gauge(
            "healthguard_operator_external_metrics_registered", "Whether the API server asks us.", registry=registry
        )


def resources() -> dict[str, Any]:
    """Return what this API has, as discovery asks for it."""
    metric = {
        "name": METRIC,
        "singularName": "",
        "namespaced": True,
        "kind": "ExternalMetricValueList",
        "verbs": ["get"],
    }
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{GROUP}/{VERSION}",
        "resources": [metric],
    }


def values(model: str, amount: float, *, now: datetime) -> dict[str, Any]:
    """Return the answer to a question that has one; *amount* to a thousandth."""
    item = {
        "metricName": METRIC,
        "metricLabels": {MODEL_SELECTOR: model},
        "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "value": f"{round(amount * 1000)}m",
    }
    kind = {"kind": "ExternalMetricValueList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}}
    return kind | {"items": [item]}


def refusal(code: int, reason: str, message: str) -> web.Response:
    """Return an answer that is none, in Kubernetes' words."""
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return web.json_response(body | {"code": code, "reason": reason, "message": message}, status=code)


def model_of(selector: str) -> str | None:
    """Return the model that a label selector asks for; None where it is not of the one form that we answer."""
    found = _SELECTOR.fullmatch(selector)
    model = selector.partition("=")[2]
    return model if found and len(model) <= NAME_LENGTH_MAX else None


def application(in_flight: InFlight, door: Door, metrics: Metrics, namespaces: frozenset[str]) -> web.Application:
    """
    Return the HTTP application.

    Args:
        namespaces: those whose models are known here; empty: all.
    """

    @web.middleware
    async def only_the_proxy(request: web.Request, handler: Any) -> web.StreamResponse:
        if not door.knows(request.get_extra_info("ssl_object")):
            gone = refusal(403, "Forbidden", "the authority of this connection was replaced; connect again")
            gone.force_close()
            return gone
        if not door.lets_in(request.get_extra_info("peercert")):
            return refusal(403, "Forbidden", "only the API server may ask here")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def discover(_: web.Request) -> web.Response:
        return web.json_response(resources())

    async def answer(request: web.Request) -> web.Response:
        model = model_of(request.query.get("labelSelector", ""))
        known = not namespaces or request.match_info["namespace"] in namespaces
        if request.match_info["metric"] != METRIC or model is None or not known:
            return refusal(404, "NotFound", f"the metric is {METRIC}, for a selector {MODEL_SELECTOR}=<name>")
        amount = in_flight.average(request.match_info["namespace"], model)
        metrics.answers.labels("unknown" if amount is None else "value").inc()
        if amount is None:
            return refusal(
                503, "ServiceUnavailable", "not every gateway could be read, so what is in flight is unknown"
            )
        return web.json_response(values(model, amount, now=datetime.now(UTC)))

    made = web.Application(client_max_size=1024, middlewares=[only_the_proxy])
    base = f"/apis/{GROUP}/{VERSION}"
    made.add_routes([web.get(base, discover), web.get(f"{base}/namespaces/{{namespace}}/{{metric}}", answer)])
    return made


async def serve(
    api: Api, settings: OperatorSettings, look: Callable[[str, str], float | None], registry: CollectorRegistry
) -> None:
    """
    Serve until cancelled, or until our namespace is about to go, and wait then to be ended.

    Args:
        look: what is in flight for a namespace and a model now; None where that is not known.
    """
    identity = _Identity(f"{settings.metrics_service}.{settings.own_namespace}.svc")
    registration = Registration(
        api,
        namespace=settings.own_namespace,
        service=settings.metrics_service,
        authority=identity.authority.certificate,
    )
    in_flight, metrics = InFlight(look, time.monotonic), Metrics(registry)
    metrics.registered.set_function(lambda: float(registration.holds))
    await _wait_for_the_cluster(identity.door, api)
    runner = web.AppRunner(application(in_flight, identity.door, metrics, settings.namespaces), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.metrics_port, ssl_context=identity.door.context).start()
        await asyncio.gather(_sample(in_flight), _uphold(registration, identity, api))
    finally:
        await runner.cleanup()


class _Identity:
    """Who this server is: an authority of its own, known to the APIService alone, and a certificate of it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.door = Door()
        self.authority = make_authority(datetime.now(UTC))
        self._pair: Pair | None = None
        self.renew()

    def renew(self) -> None:
        """Have a certificate that lasts."""
        now = datetime.now(UTC)
        if self._pair is None or is_due(self._pair.certificate, self.authority, [self._name], now):
            self._pair = issue(self.authority, [self._name], now)
            self.door.show(self._pair)


async def _wait_for_the_cluster(door: Door, api: Api) -> None:
    while True:
        try:
            await door.refresh(api)
        except (CallFailed, NotConfigured) as error:
            log.warning("front_proxy_unknown", reason=type(error).__name__)
            await asyncio.sleep(UPHOLD_S)
        else:
            return


async def _sample(in_flight: InFlight) -> None:
    while True:
        in_flight.sample()
        await asyncio.sleep(SAMPLE_S)


async def _uphold(registration: Registration, identity: _Identity, api: Api) -> None:
    next_look = 0.0
    leaving = False
    while not leaving:
        try:
            leaving = await registration.withdraw_if_leaving()
            if not leaving and time.monotonic() >= next_look:
                identity.renew()
                await identity.door.refresh(api)
                await registration.uphold()
                next_look = time.monotonic() + UPHOLD_S
        except (CallFailed, NotConfigured) as error:
            log.warning("external_metrics_api_not_upheld", reason=type(error).__name__)
        await asyncio.sleep(LEAVING_S)
