"""Run the operator: kopf's watches, the workers that reconcile, the regular look at everything, and the health port."""

import asyncio
import random
import time
from collections import Counter as Count
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

import kopf
import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.operator import conditions, external_metrics, gateways, handlers, hpa
from serving.operator.apply import carry_out, clock
from serving.operator.autoscalers import Autoscalers
from serving.operator.certificates import fingerprint
from serving.operator.devices import Devices
from serving.operator.findings import Status
from serving.operator.gateways import Gateways, Look
from serving.operator.kubernetes import Api, CallFailed, connect
from serving.operator.manifests import CHILD_KINDS
from serving.operator.observe import Observed, observe, observe_devices
from serving.operator.plan import plan
from serving.operator.rollout_status import RolloutState
from serving.operator.settings import OperatorSettings
from serving.operator.watch_age import WatchAge
from serving.operator.workqueue import Key, WorkQueue

log = structlog.get_logger()

WORKERS = 4
RECONCILE_TIMEOUT_S = 300.0
LOOK_S = 60.0
"""How often the objects are listed, to compare with what the watch told."""
WATCH_AGE_MAX_S = 180.0
LOOKS_FAILED_MAX = 5
DEVICES_S = 5.0
"""How long a look at the devices is good for: one serves all models that ask for some."""


class Metrics:
    """The operator's metrics; no label ever is a model's or a namespace's name."""

    def __init__(self, queue: WorkQueue, age: WatchAge) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "healthguard_operator_reconciles", "Reconciles by their end.", ["result"], registry=self.registry
        )
        self.duration = Histogram(
            "healthguard_operator_reconcile_duration_seconds", "Time of one reconcile.", registry=self.registry
        )
        Gauge("healthguard_operator_queue_length", "ServedModels to look at.", registry=self.registry).set_function(
            lambda: float(len(queue))
        )
        Gauge(
            "healthguard_operator_watch_age_seconds", "How long the watch owes a change.", registry=self.registry
        ).set_function(lambda: age.age_s)
        self.models = Gauge(
            "healthguard_operator_served_models",
            "ServedModels by what a condition of theirs said when they were last listed.",
            ["condition", "status"],
            registry=self.registry,
        )

    def count(self, models: Iterable[dict[str, Any]]) -> None:
        """Count ServedModels by condition and status; of conditions that are not ours, nothing."""
        told = (condition for model in models for condition in model.get("status", {}).get("conditions", ()))
        found = Count((condition["type"], condition["status"]) for condition in told)
        for kind in conditions.KINDS:
            for status in get_args(Status):
                self.models.labels(kind, status).set(found[kind, status])


@dataclass
class Operator:
    """The operator's parts, and what it knows about itself."""

    api: Api
    settings: OperatorSettings
    queue: WorkQueue = field(default_factory=WorkQueue)
    age: WatchAge = field(default_factory=lambda: WatchAge(time.monotonic))
    gateways: Gateways | None = None
    looks_failed: int = 0
    looked: bool = False
    _devices: Devices | None = None
    _devices_at: float = -DEVICES_S

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.queue, self.age)

    @property
    def alive(self) -> bool:
        """Whether a restart would not help: the watch tells, and the API server answers."""
        return self.age.age_s < WATCH_AGE_MAX_S and self.looks_failed < LOOKS_FAILED_MAX

    async def reconcile(self, key: Key) -> None:
        """
        Bring one ServedModel to what it says.

        Raises:
            CallFailed: the API server refused, or did not answer.
            Unusable: the model servers' certificate cannot be read.
        """
        kinds = (*CHILD_KINDS, *hpa.kinds(self.settings))
        observed = await observe(self.api, key.namespace, key.name, kinds)
        if observed is None:
            # Its objects go with it, by their owner reference.
            return
        certificate, look = fingerprint(self.settings.model_tls_cert_file), self._look(observed)
        devices, now = await self._free_devices(observed), clock()
        decided = plan(observed, self.settings, now=now, certificate=certificate, look=look, devices=devices)
        if devices is not None and (decided.apply or decided.awaits_device):
            # What was free a moment ago may be somebody's now, and what was taken may have become free: of the end of
            # a pod, whose device another waits for, is heard once.
            devices = await self._free_devices(observed, good_for_s=0.0)
            decided = plan(observed, self.settings, now=now, certificate=certificate, look=look, devices=devices)
        await carry_out(self.api, observed, decided)
        if decided.again_s is not None:
            self.queue.add(key, after_s=decided.again_s)

    def _look(self, observed: Observed) -> Look | None:
        """Return what the gateways measured of a model."""
        if self.gateways is None:
            return None
        state = RolloutState.read(observed.status.get("rollout"))
        return self.gateways.look(observed.owner.namespace, observed.owner.name, state)

    async def _free_devices(self, observed: Observed, *, good_for_s: float = DEVICES_S) -> Devices | None:
        """
        Return what devices there are; None where we may not look, or the model asks for none.

        Args:
            good_for_s: how old the answer may be, seconds.

        Raises:
            CallFailed: the API server did not answer.
        """
        limits = (observed.spec or {}).get("resources", {}).get("limits", {})
        if not self.settings.see_devices or not any("/" in name for name in limits):
            return None
        if time.monotonic() - self._devices_at >= good_for_s:
            self._devices = await observe_devices(self.api)
            self._devices_at = time.monotonic()
        return self._devices

    async def work(self) -> None:
        """Reconcile what is due, for ever."""
        while True:
            key = await self.queue.take()
            started = time.monotonic()
            # Whatever one object provokes must not end the work on all others.
            try:
                await asyncio.wait_for(self.reconcile(key), RECONCILE_TIMEOUT_S)
            except Exception as error:
                status = error.status if isinstance(error, CallFailed) else None
                unexpected = not isinstance(error, CallFailed | TimeoutError)
                log.warning("reconcile_failed", model=key.name, status=status, exc_info=unexpected)
                self.metrics.reconciles.labels("failed").inc()
                self.queue.failed(key)
            else:
                self.metrics.reconciles.labels("done").inc()
                self.queue.done(key)
            self.metrics.duration.observe(time.monotonic() - started)

    async def look_regularly(self) -> None:
        """List all objects every minute, for ever: what the watch did not tell is looked at anyway."""
        next_resync = 0.0
        while True:
            everything = time.monotonic() >= next_resync
            try:
                await self.look(everything=everything)
                self.looks_failed, self.looked = 0, True
            except CallFailed as error:
                self.looks_failed += 1
                log.warning("look_failed", status=error.status)
            else:
                if everything:
                    # Jitter: several operators, or many restarts, do not fall into step.
                    next_resync = time.monotonic() + self.settings.resync_s * random.uniform(0.8, 1.2)  # noqa: S311
            await asyncio.sleep(min(LOOK_S, self.settings.resync_s))

    async def look(self, *, everything: bool) -> None:
        """
        List the objects; reconcile those whose newest spec no status tells of, or all.

        Raises:
            CallFailed: the API server refused, or did not answer.
        """
        models: list[dict[str, Any]] = []
        for namespace in self.settings.namespaces or {None}:
            listed = await self.api.list("ServedModel", namespace)
            for model in listed:
                metadata = model["metadata"]
                seen = model.get("status", {}).get("observedGeneration") == metadata["generation"]
                if everything or not seen:
                    self.queue.add(Key(metadata["namespace"], metadata["name"]))
            models += listed
        self.age.compare({model["metadata"]["uid"]: model["metadata"]["resourceVersion"] for model in models})
        self.metrics.count(models)


def application(operator: Operator) -> web.Application:
    """Return the HTTP application: /livez, /readyz and /metrics."""

    def answer(*, well: bool) -> web.Response:
        return web.json_response({"status": "ok" if well else "unavailable"}, status=200 if well else 503)

    async def livez(_: web.Request) -> web.Response:
        return answer(well=operator.alive)

    async def readyz(_: web.Request) -> web.Response:
        return answer(well=operator.looked)

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(operator.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    made = web.Application(client_max_size=1024)
    made.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return made


async def operate(settings: OperatorSettings) -> None:
    """Run until SIGTERM or Ctrl-C, which kopf hears; a part that ends by itself ends all."""
    async with connect() as api, gateways.connect(api, settings) as asked:
        operator = Operator(api, settings, gateways=asked)
        builtin = settings.metrics_provider == "builtin"
        runner = web.AppRunner(application(operator), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
            await _until_one_ends(
                # A watch that the API server refuses ends the process: a run of kopf's after another waits for a log-in
                # that does not come. One that expired is told so in the stream, and begins anew with a list.
                kopf.operator(
                    registry=handlers.registry(operator.queue, operator.age),
                    settings=handlers.settings(),
                    # Two operators at once write the same objects to the same form, so none needs to stand back.
                    standalone=True,
                    namespaces=sorted(settings.namespaces),
                    clusterwide=not settings.namespaces,
                ),
                operator.look_regularly(),
                asked.ask_regularly(),
                Autoscalers(api, settings, operator.queue.add).look_regularly(),
                *(
                    [external_metrics.serve(api, settings, asked.in_flight, operator.metrics.registry)]
                    if builtin
                    else []
                ),
                *(operator.work() for _ in range(WORKERS)),
            )
        finally:
            await runner.cleanup()


async def _until_one_ends(*parts: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(part) for part in parts]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    for task in done:
        task.result()
