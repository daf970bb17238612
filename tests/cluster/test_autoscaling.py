"""Autoscaling on a real node: up under load, down without a failed request, and frozen while the signal is lost."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.operator import registration
from tests import committed
from tests.cluster.cluster import Cluster
from tests.cluster.predicting import predicting
from tests.cluster.product import HOST, RELEASE, Installed, make_door, values
from tests.cluster.runs import wait_until
from tests.cluster.trial_versions import QUIRKY
from tests.deploy.charts import merged

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(2400)]

log = logging.getLogger(__name__)

PODS_MAX = 3
WINDOW_S = 10
"""How long the autoscaler waits for less to be wanted; five minutes by default."""
CLIENTS_MAX = 8
BUSY, QUIET = (CLIENTS_MAX, 0.0), (1, 2.0)
"""How many clients predict, and how long each pauses: of a quiet one less than a request is in flight on average."""
_SCALED_S = 240.0
_HELD_S = 3.0 * WINDOW_S
_STEADY_S = 600.0 if os.environ.get("HEALTHGUARD_PROVE") == "1" else WINDOW_S
"""How long the same load is to mean the same number of pods."""

_QUICKLY = {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 5}]}
SCALED = {
    "models": {
        "anemia": {"enabled": False},
        "cancer": {
            "spec": {
                "runtime": QUIRKY,
                "minReplicas": 1,
                "maxReplicas": PODS_MAX,
                "autoscaling": {
                    "target": 1,
                    "cpuPercent": 100,
                    "behavior": {
                        "scaleUp": {"stabilizationWindowSeconds": 0, **_QUICKLY},
                        "scaleDown": {"stabilizationWindowSeconds": WINDOW_S, **_QUICKLY},
                    },
                },
                # Requests wait for others to run with: so long each is in flight, however fast the machine is.
                "batching": {"maxBatchSize": 32, "batchTimeoutMicros": 400_000},
                "resources": {"requests": {"cpu": "150m", "memory": "128Mi"}},
            }
        },
    },
    "autoscaling": {"provider": "builtin"},
    "operator": {"settings": {"drain_pods_s": 5, "gateway_interval_s": 1.0}},
    # Each request is to reach a model server, also the thousandth with the same picture.
    "gateway": {"settings": {"answers_kept_max": 0, "requests_per_minute": 0}},
}


@pytest.fixture
def release(cluster: Cluster, namespace: str, product_images: dict[str, str]) -> Iterator[Installed]:
    """Have a place for a release, by Helm 4, whose server-side apply would meet the autoscaler first."""
    installed = Installed(cluster, namespace, 4)
    yield installed
    installed.helm("uninstall", RELEASE, "--no-hooks", "--ignore-not-found")
    # The test ends with the namespace gone, of which Helm keeps its notes.
    beside = ("clusterrole,clusterrolebinding", f"{namespace}-{RELEASE}-operator-metrics", "--ignore-not-found")
    cluster.kubectl("delete", *beside)


def test_pods_follow_the_load_and_freeze_without_a_signal(
    cluster: Cluster, namespace: str, release: Installed, tmp_path: Path
) -> None:
    """
    From one pod to three under load; an upgrade keeps them, and so does the loss of the signal; then back to one.

    No request fails throughout: the pods that go have let the gateway leave first.
    """
    trusted = make_door(cluster, namespace, tmp_path)
    given = merged(
        values(ingress={"enabled": True, "host": HOST, "tls": {"enabled": True, "secretName": "door"}}), SCALED
    )
    release.apply(tmp_path, given)
    release.wait_for_models()
    assert pods(release) == (1, 1)
    picture = committed.folder("cancer") / "assets.extra" / "golden" / "positive-01.png"
    with predicting(cluster, trusted, picture, count=CLIENTS_MAX, busy=0) as clients:
        clients.busy, clients.pause_s = QUIET
        wait_until(lambda: autoscaled(release) == ("True", "Scaling"), "the autoscaler to have its signals", _SCALED_S)
        assert signals(release) == {"External", "ContainerResource"}

        clients.busy, clients.pause_s = BUSY
        began = time.monotonic()
        wait_until(lambda: pods(release) == (PODS_MAX, PODS_MAX), "as many pods as there may be", _SCALED_S)
        log.info("pods were ready after %.0f s", time.monotonic() - began)
        assert stays(lambda: pods(release)[0] == PODS_MAX, _STEADY_S)
        given = merged(given, {"operator": {"settings": {"log_level": "DEBUG"}}})
        before = operator_pod(release)
        release.apply(tmp_path, given, command="upgrade")
        assert operator_pod(release) != before
        assert pods(release)[0] == PODS_MAX

        wait_until(lambda: autoscaled(release) == ("True", "Scaling"), "the new operator to be asked", _SCALED_S)
        lead_metrics(release, "nowhere")
        wait_until(lambda: "External" not in signals(release), "the signal to be lost", _SCALED_S)
        wait_until(lambda: autoscaled(release) == ("False", "MetricsLost"), "the loss to be told", _SCALED_S)
        clients.busy, clients.pause_s = QUIET
        assert stays(lambda: pods(release)[0] == PODS_MAX, _HELD_S)

        lead_metrics(release, f"{RELEASE}-operator-metrics")
        began = time.monotonic()
        wait_until(lambda: pods(release) == (1, 1), "the pods that nobody needs to go", _SCALED_S)
        log.info("pods were gone after %.0f s", time.monotonic() - began)
        log.info("%d requests were answered", clients.versions.total())
        wait_until(lambda: autoscaled(release) == ("True", "Scaling"), "the signal's return to be told", _SCALED_S)
        # The pods that have gone have taken nothing with them.
        assert clients.failed == []
        assert clients.versions.total() > PODS_MAX

    leaves_with_its_namespace(cluster, release)


def pods(release: Installed) -> tuple[int, int]:
    """Return how many pods are wanted and how many are ready."""
    found = release.get("deployment", f"model-cancer-v{committed.version('cancer')}")
    return int(found["spec"]["replicas"]), int(found["status"].get("readyReplicas", 0))


def autoscaled(release: Installed) -> tuple[str, str]:
    """Return status and reason of the model's condition about scaling."""
    conditions = release.get("servedmodel", "cancer").get("status", {}).get("conditions", [])
    found = {each["type"]: (each["status"], each["reason"]) for each in conditions}
    return found.get("Autoscaled", ("", ""))


def signals(release: Installed) -> set[str]:
    """Return the kinds of signals that the autoscaler has values of."""
    found = release.get("hpa", f"model-cancer-v{committed.version('cancer')}")
    return {metric["type"] for metric in found["status"].get("currentMetrics") or []}


def operator_pod(release: Installed) -> str:
    """Return the name of the operator's pod."""
    selector = "--selector=app.kubernetes.io/component=operator"
    running = [one for one in release.get("pods", selector)["items"] if "deletionTimestamp" not in one["metadata"]]
    return str(running[0]["metadata"]["name"])


def lead_metrics(release: Installed, service: str) -> None:
    """Lead the API server's questions for metrics to *service*."""
    # Not by the Service's selector: connections that are open would go on to answer.
    change = {"spec": {"service": {"name": service}}}
    patch = ("--type=merge", f"--patch={json.dumps(change)}")
    release.cluster.kubectl("patch", "apiservice", registration.NAME, *patch)


def stays(condition: Callable[[], bool], for_s: float) -> bool:
    """Tell whether *condition* holds all the time, for so many seconds: that nothing happens cannot be waited for."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        if not condition():
            return False
        time.sleep(1.0)
    return True


def leaves_with_its_namespace(cluster: Cluster, release: Installed) -> None:
    """Check that a namespace that is deleted under a running operator goes, and takes the APIService with it."""
    cluster.kubectl("get", "apiservice", registration.NAME)
    cluster.kubectl("delete", "namespace", release.namespace, "--timeout=180s", timeout_s=200)
    assert not cluster.kubectl("get", "apiservice", registration.NAME, "--ignore-not-found")
