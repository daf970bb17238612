"""Metrics: TensorFlow Serving's names and labels, and ours beside them."""

from collections.abc import Iterator

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.tfs.harness import (
    QUICK,
    Server,
    add_version,
    both_backends,
    floats,
    folder,
    ours,
    request,
    running,
    start,
)

pytestmark = both_backends

PATH = "/metrics/of/models"


@pytest.fixture(scope="module")
def server(backend: str) -> Iterator[Server]:
    """Run a server with batching and metrics, and ask it a few things."""
    with folder() as home:
        add_version(home / "arithmetic", 1)
        (home / "monitoring").write_text(f'prometheus_config {{ enable: true path: "{PATH}" }}')
        (home / "batching").write_text(
            "max_batch_size { value: 4 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 9 } "
            "num_batch_threads { value: 1 } allowed_batch_sizes: 4"
        )
        flags = (
            f"--model_base_path={home / 'arithmetic'}",
            "--model_name=arithmetic",
            f"--monitoring_config_file={home / 'monitoring'}",
            "--enable_batching",
            f"--batching_parameters_file={home / 'batching'}",
            "--max_num_load_retries=0",
        )
        with running(*flags, backend=backend, rest=True) as started:
            ask(started)
            yield started


def ask(server: Server) -> None:
    """Predict by both doors, and be refused for a model that is there and for one that is not."""
    server.predict(request({"x": floats((1, 2), (3, 4))}))
    httpx.post(
        f"{server.rest_url}/v1/models/arithmetic:predict", json={"instances": [[1, 2]]}, timeout=20, trust_env=False
    ).raise_for_status()
    for asked in (request({"x": floats((1, 2))}, "nope"), request({}, model="a-name-made-up")):
        with pytest.raises(grpc.RpcError):
            server.predict(asked)


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(server: Server) -> Samples:
    """Return every sample by name and labels."""
    response = httpx.get(server.rest_url + PATH, timeout=20, trust_env=False)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return one sample, 0 if it is not there; the parser writes _total behind the name of every counter."""
    key = tuple(sorted(labels.items()))
    return samples.get((name, key), samples.get((f"{name}_total", key), 0.0))


def test_metrics_count_requests_and_time_those_answered(server: Server) -> None:
    """request_count has the model's name and the code; request_latency has the door, and only what was answered."""
    samples = scraped(server)
    assert value(samples, ":tensorflow:serving:request_count", model_name="arithmetic", status="OK") == 2
    latency = ":tensorflow:serving:request_latency_count"
    assert value(samples, latency, model_name="arithmetic", API="Predict", entrypoint="GRPC") == 1
    assert value(samples, latency, model_name="arithmetic", API="predict", entrypoint="REST") == 1
    total = ":tensorflow:serving:request_latency_sum"
    assert value(samples, total, model_name="arithmetic", API="Predict", entrypoint="GRPC") > 10


def test_metrics_say_counter_and_histogram(server: Server) -> None:
    """The types are those that TensorFlow Serving states, without a suffix of the library's."""
    page = httpx.get(server.rest_url + PATH, timeout=20, trust_env=False).text
    for line in (
        "# TYPE :tensorflow:serving:request_count counter",
        "# TYPE :tensorflow:serving:request_latency histogram",
        "# TYPE :tensorflow:serving:runtime_latency histogram",
    ):
        assert line in page.splitlines()


def test_metrics_have_the_original_buckets(server: Server) -> None:
    """33 limits, each 1.8 times the one before, from 10 microseconds, and infinity."""
    limits = sorted(
        float(dict(labels)["le"])
        for name, labels in scraped(server)
        if name == ":tensorflow:serving:request_latency_bucket" and ("entrypoint", "GRPC") in labels
    )
    assert limits[:3] == pytest.approx([10, 18, 32.4])
    assert len(limits) >= 33
    assert limits[-1] == float("inf")


@ours("the original batches its sessions in ways that its version decides")
def test_metrics_tell_batches(server: Server) -> None:
    """Runs, rows and padding: two requests of 2 rows and 1 row, each filled up to 4."""
    samples = scraped(server)
    session = ":tensorflow:serving:batching_session:"
    assert value(samples, f"{session}wrapped_run_count", model_name="arithmetic") == 2
    assert value(samples, f"{session}processed_batch_size_sum", model_name="arithmetic") == 8
    assert value(samples, f"{session}input_batch_size_sum", model_name="arithmetic") == 3
    padding = f"{session}padding_size_sum"
    assert value(samples, padding, model_name="arithmetic", execution_batch_size="4") == 5
    assert value(samples, f"{session}queuing_latency_count", model_name="arithmetic") == 2


@ours("these are ours")
def test_metrics_know_versions_and_states(server: Server) -> None:
    """Ours say which version answered, how full its runs were, and in which state it is."""
    samples = scraped(server)
    version = {"model": "arithmetic", "version": "1"}
    assert value(samples, "healthguard_modelserver_batch_rows_sum", **version) == 3
    assert value(samples, "healthguard_modelserver_batch_requests_count", **version) == 2
    assert value(samples, "healthguard_modelserver_version_state", **version, state="AVAILABLE") == 1
    assert value(samples, "healthguard_modelserver_version_state", **version, state="LOADING") == 0
    answered = value(
        samples, "healthguard_modelserver_requests_total", **version, api="predict", entrypoint="GRPC", status="OK"
    )
    assert answered == 1


@ours("the original makes a series of whatever name a client sends")
def test_metrics_keep_no_name_that_a_client_made_up(server: Server) -> None:
    """A name that is not configured counts as unknown, so that nobody can make series without end."""
    samples = scraped(server)
    assert value(samples, ":tensorflow:serving:request_count", model_name="unknown", status="NOT_FOUND") == 1
    assert not any("made-up" in text for _, labels in samples for _, text in labels)


def test_metrics_are_at_their_path_alone(server: Server) -> None:
    """Nothing else answers with metrics."""
    assert httpx.get(f"{server.rest_url}/metrics", timeout=20, trust_env=False).status_code == 404


@ours("the original serves no metrics then, and says nothing")
def test_metrics_without_a_port_are_refused(backend: str) -> None:
    """Metrics that nobody could read are a mistake, told at the start."""
    with folder() as home:
        (home / "monitoring").write_text("prometheus_config { enable: true }")
        log = home / "log"
        flags = (f"--model_base_path={home}", f"--monitoring_config_file={home / 'monitoring'}", *QUICK)
        process = start(*flags, log=log, backend=backend)
        assert process.wait(timeout=90) == 2
        assert "--rest_api_port" in log.read_text()
