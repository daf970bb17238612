"""What the gateway measures of predictions: by model, version, outcome and kind of caller, never by caller."""

import asyncio
from collections.abc import Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.served import ServedModel
from healthguard.metrics import DURATION_BUCKETS_S

DIFFERENCE_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
LAG_INTERVAL_S = 0.25
# Finer than the durations of requests: a rollout is judged by how many calls are slower than a limit.
CALL_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.5, 5.0, 10.0, 30.0),
)


class PredictionMetrics:
    """The gateway's own metrics; the first two have the names of old dashboards, where `condition` is the model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._of_predictions()
        self._of_servers_and_versions()
        self._of_this_process()

    def _of_predictions(self) -> None:
        self.predictions = self._counter(
            "predictions",
            "Predictions that were stored, or answered where nothing is stored.",
            *("condition", "version", "outcome"),
        )
        self.duration = self._histogram(
            "prediction_duration_seconds",
            "Time from the image in memory to the finding: decoding and the model.",
            "condition",
        )
        self.callers = self._counter(
            "prediction_callers",
            "The same predictions by the kind of caller: a role, api_key or anonymous.",
            *("model", "version", "caller"),
        )
        self.phases = self._histogram(
            "prediction_phase_seconds",
            "Time of one phase: read, queue (for a thread), decode, inference, save.",
            *("model", "version", "phase"),
        )
        self.failures = self._counter(
            "prediction_failures",
            "Predictions that ended with a problem, by the problem's type; no version: before one was chosen.",
            *("model", "version", "problem"),
        )

    def _of_servers_and_versions(self) -> None:
        self.retries = self._counter(
            "prediction_retries", "Calls made a second time because a model server was unavailable.", "model"
        )
        self.shed = self._counter("predictions_shed", "Predictions refused because too many were in flight.", "model")
        self.ejections = self._counter(
            "model_server_ejections", "Times that a replica was left out for a while.", "model"
        )
        self.cache = self._counter(
            "prediction_cache", "Questions to the cache of answers: hit or miss.", *("model", "result")
        )
        self.calls = self._histogram(
            "model_call_duration_seconds",
            "Time of one call for scores, failed ones too, whoever asked: a client, or a comparison.",
            *("model", "version"),
            buckets=CALL_BUCKETS_S,
        )
        self.call_failures = self._counter(
            "model_call_failures",
            "Such calls that failed, by gRPC code, or whose answer held no scores (BAD_SCORES).",
            *("model", "version", "code"),
        )
        self.comparisons = self._counter(
            "version_comparisons",
            "Answers of a version on trial (canary or shadow) held against the stable one's: agree, differ, failed, "
            "dropped, incomparable.",
            *("model", "version", "result"),
        )
        self.comparison_difference = self._histogram(
            "version_score_difference",
            "How far the two scores were apart.",
            *("model", "version"),
            buckets=DIFFERENCE_BUCKETS,
        )

    def _of_this_process(self) -> None:
        self.lag = self._histogram(
            "event_loop_lag_seconds", "How late the event loop wakes a sleeper.", buckets=LAG_BUCKETS_S
        )
        self.in_flight = Gauge(
            "healthguard_predictions_in_flight",
            "Predictions being made at the moment.",
            ["model"],
            registry=self._registry,
        )
        self.limit = Gauge(
            "healthguard_predictions_in_flight_limit",
            "How many predictions may be made at once.",
            ["model"],
            registry=self._registry,
        )
        self.discovery_age = Gauge(
            "healthguard_discovery_age_seconds",
            "How long ago the quieter watch of the Kubernetes API was last heard of; 0 where there is none.",
            registry=self._registry,
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"healthguard_{name}", text, labels, registry=self._registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = DURATION_BUCKETS_S
    ) -> Histogram:
        return Histogram(f"healthguard_{name}", text, labels, buckets=buckets, registry=self._registry)

    def made(self, model: str, version: int, outcome: str, caller_kind: str) -> None:
        """Count one prediction, once its client can have it."""
        self.predictions.labels(model, version, outcome).inc()
        self.callers.labels(model, version, caller_kind).inc()

    def called(self, model: str, version: int, seconds: float) -> None:
        """Observe one call for scores."""
        self.calls.labels(model, version).observe(seconds)

    def call_failed(self, model: str, version: int, code: str = "BAD_SCORES") -> None:
        """Count a call for scores that gave none."""
        self.call_failures.labels(model, version, code).inc()

    def observe_phases(self, model: str, version: int, phases: Mapping[str, float]) -> None:
        """Observe how long each phase of one prediction took, seconds."""
        for phase, seconds in phases.items():
            self.phases.labels(model, version, phase).observe(seconds)

    def follow_limits(self, models: Mapping[str, ServedModel]) -> None:
        """Show the adaptive limit of each model, as it is whenever somebody looks."""
        self.limit.clear()
        for name, model in models.items():
            self.limit.labels(name).set_function(partial(_limit_of, model))

    async def watch_lag(self) -> None:
        """Measure how late the event loop is, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self.lag.observe(max(0.0, loop.time() - due))


def _limit_of(model: ServedModel) -> float:
    return float(int(model.limit.limit))
