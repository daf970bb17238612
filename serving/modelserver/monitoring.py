"""
Metrics, in TensorFlow Serving's names and beside them in ours, which know versions, queues and batches.

TensorFlow Serving labels by whatever model name a client sends, so that a scanner makes series without end; here a name
that is not configured counts as `unknown`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from serving.modelserver.batching import Scheduler
from serving.modelserver.config import BadConfig, read
from serving.modelserver.flags import Flags
from serving.modelserver.lifecycle import Models, State
from serving.modelserver.observer import Entrypoint, Observer
from serving.tfs.monitoring_config_pb2 import MonitoringConfig

PATH = "/monitoring/prometheus/metrics"
"""Where the metrics are if the configuration names no path."""

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4

TFS = ":tensorflow:serving:"
LATENCY_BUCKETS_US = tuple(10 * 1.8**power for power in range(33))
EXAMPLE_BUCKETS = tuple(float(2**power) for power in range(15))
# From a row alone to the largest batch that anybody configures, in seconds from a tenth of a millisecond.
ROWS_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0)
SECONDS_BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_RUNTIMES = {"tensorflow": "TF1", "litert": "TFLite"}
_UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class _Now(Collector):
    """Gauges of what is so at the moment of a scrape."""

    models: Models
    scheduler: Scheduler

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read queues and states."""
        queue = GaugeMetricFamily("healthguard_modelserver_queue_rows", "Rows that wait.", labels=["model", "version"])
        for (model, version), rows in self.scheduler.waiting().items():
            queue.add_metric([model, str(version)], rows)
        yield queue
        state = GaugeMetricFamily(
            "healthguard_modelserver_version_state",
            "1 for the state that a version is in.",
            labels=["model", "version", "state"],
        )
        for model in self.models.names():
            for known in self.models.versions(model):
                for each in State:
                    state.add_metric([model, str(known.number), each.name], float(known.state is each))
        yield state


@dataclass
class Metrics(Observer):
    """Counts what the server does."""

    path: str = PATH
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=self.registry)
        self._now: _Now | None = None
        # A gauge, since the library would write the counter's name with _total behind it.
        self._requests = Gauge(f"{TFS}request_count", "Requests.", ["model_name", "status"], registry=self.registry)
        self._latency = self._histogram(
            "request_latency", "Requests answered OK, microseconds.", LATENCY_BUCKETS_US, "model_name API entrypoint"
        )
        self._runtime = self._histogram(
            "runtime_latency", "Runs of a model, microseconds.", LATENCY_BUCKETS_US, "model_name API runtime"
        )
        self._examples = self._histogram("request_example_counts", "Examples per request.", EXAMPLE_BUCKETS, "model")
        self._example_total = Counter(f"{TFS}request_example_count", "Examples.", ["model"], registry=self.registry)
        self._warmup = self._histogram(
            "model_warmup_latency", "Warm-ups, microseconds.", LATENCY_BUCKETS_US, "model_path status"
        )
        self._batching()
        self._ours()

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], labels: str) -> Histogram:
        return Histogram(f"{TFS}{name}", text, labels.split(), buckets=buckets, registry=self.registry)

    def _batching(self) -> None:
        """Make the metrics that TensorFlow Serving's batching has."""
        session = "batching_session:"
        self._queuing = self._histogram(
            f"{session}queuing_latency", "Time in the queue, microseconds.", LATENCY_BUCKETS_US, "model_name"
        )
        self._input_size = self._histogram(
            f"{session}input_batch_size", "Rows of a request.", EXAMPLE_BUCKETS, "model_name"
        )
        self._processed_size = self._histogram(
            f"{session}processed_batch_size", "Rows of a run, filled up.", EXAMPLE_BUCKETS, "model_name"
        )
        self._padding = self._histogram(
            f"{session}padding_size", "Rows that fill a run up.", EXAMPLE_BUCKETS, "model_name execution_batch_size"
        )
        self._wrapped = Gauge(
            f"{TFS}{session}wrapped_run_count", "Runs of batches.", ["model_name"], registry=self.registry
        )

    def _ours(self) -> None:
        """Make the metrics that know versions."""
        ours, version = "healthguard_modelserver_", ["model", "version"]
        self._answers = Counter(
            f"{ours}requests", "Requests.", [*version, "api", "entrypoint", "status"], registry=self.registry
        )
        self._runs = Histogram(
            f"{ours}run_seconds", "Runs.", [*version, "signature"], buckets=SECONDS_BUCKETS, registry=self.registry
        )
        self._waits = Histogram(
            f"{ours}queue_seconds", "Time in the queue.", version, buckets=SECONDS_BUCKETS, registry=self.registry
        )
        self._rows = Histogram(
            f"{ours}batch_rows", "Rows of requests in a run.", version, buckets=ROWS_BUCKETS, registry=self.registry
        )
        self._tasks = Histogram(
            f"{ours}batch_requests", "Requests in a run.", version, buckets=ROWS_BUCKETS, registry=self.registry
        )

    def attach(self, models: Models, scheduler: Scheduler) -> None:
        """Say where states and queues can be asked for at each scrape, and which names are known."""
        self._now = _Now(models, scheduler)
        self.registry.register(self._now)

    def page(self) -> bytes:
        """Return all metrics in Prometheus' text form."""
        page = generate_latest(self.registry)
        for name in ("request_count", "batching_session:wrapped_run_count"):
            full = f"# TYPE {TFS}{name} ".encode()
            page = page.replace(full + b"gauge", full + b"counter")
        return page

    def _known(self, model: str) -> str:
        """Bound a label: only what is configured makes a series of its own."""
        return model if self._now and model in self._now.models.names() else _UNKNOWN

    def request_ended(
        self, *, model: str, version: int | None, api: str, entrypoint: Entrypoint, status: str, seconds: float
    ) -> None:
        """Count a request; as in TensorFlow Serving, only the duration of answered ones."""
        name = self._known(model)
        self._requests.labels(name, status).inc()
        if status == "OK":
            self._latency.labels(name, api, entrypoint).observe(seconds * 1e6)
        number = "" if version is None else str(version)
        self._answers.labels(name, number, api.lower(), entrypoint, status).inc()

    def queued(self, *, model: str, version: int, rows: int, waited_s: float) -> None:
        """Count the wait of a request."""
        self._queuing.labels(model).observe(waited_s * 1e6)
        self._input_size.labels(model).observe(rows)
        self._waits.labels(model, str(version)).observe(waited_s)

    def ran(
        self,
        *,
        model: str,
        version: int,
        platform: str,
        signature: str,
        rows: int,
        padding: int,
        tasks: int,
        seconds: float,
    ) -> None:
        """Count a run; the scheduler does not know by which method it was asked for, and most ask by Predict."""
        self._runtime.labels(model, "Predict", _RUNTIMES.get(platform, platform)).observe(seconds * 1e6)
        self._processed_size.labels(model).observe(rows + padding)
        self._padding.labels(model, str(rows + padding)).observe(padding)
        self._wrapped.labels(model).inc()
        number = str(version)
        self._runs.labels(model, number, signature).observe(seconds)
        self._rows.labels(model, number).observe(rows)
        self._tasks.labels(model, number).observe(tasks)

    def examples_read(self, *, model: str, count: int) -> None:
        """Count the examples of a Classify, Regress or MultiInference."""
        self._examples.labels(model).observe(count)
        self._example_total.labels(model).inc(count)

    def warmed_up(self, *, model_path: str, status: str, seconds: float) -> None:
        """Count a warm-up."""
        self._warmup.labels(model_path, status).observe(seconds * 1e6)


def metrics_of(flags: Flags) -> Metrics | None:
    """
    Return the metrics that the configuration asks for, or None.

    Raises:
        BadConfig: the file is not usable, or there is no port to serve metrics on.
    """
    if not flags.monitoring_config_file:
        return None
    config = read(Path(flags.monitoring_config_file), MonitoringConfig).prometheus_config
    if not config.enable:
        return None
    if not flags.rest_api_port:
        raise BadConfig("metrics are served on the REST port: give --rest_api_port beside --monitoring_config_file")
    if config.path and not config.path.startswith("/"):
        raise BadConfig("prometheus_config.path does not begin with /")
    return Metrics(path=config.path or PATH)
