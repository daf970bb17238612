"""What the gateway measures of predictions: by model, version and outcome, never by caller."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from healthguard.metrics import DURATION_BUCKETS_S


class PredictionMetrics:
    """The gateway's own metrics; the first two have the names of old dashboards, where `condition` is the model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.predictions = Counter(
            "healthguard_predictions",
            "Predictions that were stored, or answered where nothing is stored.",
            ["condition", "version", "outcome"],
            registry=registry,
        )
        self.duration = Histogram(
            "healthguard_prediction_duration_seconds",
            "Time from the image in memory to the finding: decoding and the model.",
            ["condition"],
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.phases = Histogram(
            "healthguard_prediction_phase_seconds",
            "Time of one phase: read, queue (for a thread), decode, inference, save.",
            ["model", "phase"],
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.failures = Counter(
            "healthguard_prediction_failures",
            "Predictions that ended with a problem, by the problem's type.",
            ["model", "problem"],
            registry=registry,
        )
        self.retries = Counter(
            "healthguard_prediction_retries",
            "Calls made a second time because a model server was unavailable.",
            ["model"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "healthguard_predictions_in_flight", "Predictions being made at the moment.", ["model"], registry=registry
        )

    def made(self, model: str, version: int, outcome: str) -> None:
        """Count one prediction, once its client can have it."""
        self.predictions.labels(model, version, outcome).inc()
