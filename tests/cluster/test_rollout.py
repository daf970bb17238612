"""A new version under real load: step by step to all requests, or taken back, and nobody's request fails."""

import itertools
import json
import math
import os
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models import artifact
from tests import committed
from tests.cluster import tools
from tests.cluster import trial_versions as trial
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import own_namespace
from tests.cluster.predicting import Clients, predicting
from tests.cluster.product import HOST, RELEASE, Installed, make_door, values
from tests.cluster.runs import wait_until
from tests.deploy.charts import merged

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(2400)]

OLD, NEW = 1, committed.version("cancer")
FOLDER = committed.MODELS / "cancer"
GOLDEN = committed.folder("cancer") / "assets.extra" / "golden"
ALIKE, UNLIKE = GOLDEN / "positive-01.png", GOLDEN / "positive-03.png"
"""Pictures of which the two versions say the same, and not the same."""
WHOLE = bool(os.environ.get("HEALTHGUARD_PROVE"))
COUNTED = 5000 if WHOLE else 400
"""Answers over which the split is measured."""
SHARE = 25
_SOON_S = 240.0
_ROLLOUT: dict[str, Any] = {
    "steps": [SHARE],
    "intervalSeconds": 5,
    "minRequests": 30,
    "timeoutSeconds": 600,
    # The machine is shared, so its slowest calls say little; the unit tests have the limits.
    "gates": {"errorRate": 0.01, "p99Ms": 20_000, "agreement": 0.95},
}


@dataclass(frozen=True)
class Release:
    """The product with version OLD of one model, and who trusts its door."""

    installed: Installed
    trusted: ssl.SSLContext


@pytest.fixture(scope="module")
def installed_once(
    cluster: Cluster, product_images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Release]:
    """Install the product, once for all tests here: that takes longer than most of them."""
    assert product_images
    folder = tmp_path_factory.mktemp("release")
    with own_namespace(cluster) as namespace:
        installed = Installed(cluster, namespace, 4)
        trusted = make_door(cluster, namespace, folder)
        try:
            installed.apply(folder, _values())
            installed.wait_for_models()
            yield Release(installed, trusted)
        finally:
            installed.helm("uninstall", RELEASE, "--no-hooks", "--ignore-not-found")


@pytest.fixture
def release(installed_once: Release) -> Release:
    """Return the release, with version OLD answering and nothing on trial."""
    installed = installed_once.installed
    change(installed, {"traffic": {"stable": OLD, "canary": None, "shadow": None}})
    alone = {f"model-cancer-v{OLD}"}
    wait_until(lambda: models_of(installed) == alone, "the old version to be alone", _SOON_S)
    return installed_once


def _values() -> dict[str, Any]:
    versions = [
        {
            "version": number,
            "storageUri": f"pvc://models/cancer/{number}",
            "digest": artifact.digest(FOLDER / str(number)),
        }
        for number in (OLD, NEW)
    ]
    given = values(ingress={"enabled": True, "host": HOST, "tls": {"enabled": True, "secretName": "door"}})
    return merged(
        given,
        {
            "models": {
                "anemia": {"enabled": False},
                "cancer": {"spec": {"runtime": trial.QUIRKY, "versions": versions, "traffic": {"stable": OLD}}},
            },
            "operator": {"settings": {"drain_pods_s": 5, "gateway_interval_s": 1.0}},
            # Each request is to reach a model server, also the thousandth with the same picture.
            "gateway": {"settings": {"answers_kept_max": 0, "requests_per_minute": 0}},
        },
    )


def test_new_version_is_rolled_out_promoted_and_aborted(cluster: Cluster, release: Release) -> None:
    """
    From the old version to the new one under load: its share is what was asked for, then all; then it is the stable.

    The old version comes back as a canary, and a person takes it back. No request fails from first to last.
    """
    installed = release.installed
    with predicting(cluster, release.trusted, ALIKE) as clients:
        change(installed, {"traffic": {"canary": {"version": NEW}}, "rollout": _ROLLOUT})
        until(installed, lambda found: found["canaryPercent"] == SHARE)
        word(installed, "pause")
        until(installed, lambda found: found["phase"] == "Paused")
        measured = counted(clients, COUNTED)
        assert abs(measured[NEW] / measured.total() - SHARE / 100) < tolerance(measured.total())
        split = {part["version"]: part["percent"] for part in status(installed)["traffic"]}
        assert set(split) == {OLD, NEW}

        word(installed, "resume")
        done = healthguard(installed, "rollout", "status", "cancer", "--timeout", "300")
        assert done.returncode == 0, done.stdout + done.stderr
        assert [line.split()[1] for line in done.stdout.splitlines()][-1] == "Promoted"
        assert counted(clients, 30).keys() == {NEW}

        change(installed, {"traffic": {"stable": NEW, "canary": None}})
        alone = {f"model-cancer-v{NEW}"}
        wait_until(lambda: models_of(installed) == alone, "the old version's pods to go", _SOON_S)
        assert "rollout" not in status(installed)
        assert counted(clients, 30).keys() == {NEW}

        change(installed, {"traffic": {"canary": {"version": OLD}}})
        until(installed, lambda found: found["canaryPercent"] == SHARE)
        word(installed, "abort")
        assert taken_back(installed, OLD)["reason"] == "Aborted"
        wait_until(lambda: models_of(installed) == alone, "what was taken back to go", _SOON_S)
        assert counted(clients, 30).keys() == {NEW}
    assert clients.failed == []
    promoted = ["Preparing", "Progressing", "Paused", "Progressing", "Promoted"]
    assert told(installed) == [*promoted, "Preparing", "Progressing", "RolledBack"]


def test_version_that_disagrees_is_taken_back(cluster: Cluster, release: Release) -> None:
    """Of a picture on which the two differ, the new version's answers end with its share; shadowed, nobody gets one."""
    installed = release.installed
    with predicting(cluster, release.trusted, UNLIKE) as clients:
        change(installed, {"traffic": {"shadow": {"version": NEW}, "canary": {"version": NEW}}, "rollout": _ROLLOUT})
        found = taken_back(installed, NEW)
        assert found["reason"] == "Agreement"
        assert f"Version {OLD} answers all requests." in found["message"]
        assert clients.versions.keys() == {OLD}

        change(installed, {"traffic": {"shadow": None, "canary": None}})
        wait_until(lambda: "rollout" not in status(installed), "the rollout to be forgotten", _SOON_S)
        change(installed, {"traffic": {"canary": {"version": NEW}}})
        assert taken_back(installed, NEW)["reason"] == "Agreement"
        done = healthguard(installed, "rollout", "status", "cancer")
        assert (done.returncode, "was taken back" in done.stdout) == (1, True)
        assert counted(clients, 30).keys() == {OLD}
        assert 0 < clients.versions[NEW] < clients.versions.total() / 2
    assert clients.failed == []


def test_versions_that_err_or_are_slow_are_taken_back(
    cluster: Cluster, release: Release, product_images: dict[str, str], tmp_path: Path
) -> None:
    """Both have passed every proof; with real requests one fails and one is late, and each goes for its own reason."""
    steps = (trial.sound, trial.erring, trial.slow)
    made = [trial.make(tmp_path, number, step) for number, step in enumerate(steps, start=1)]
    installed, where = release.installed, f"--namespace={release.installed.namespace}"
    trial.put(cluster, installed.namespace, product_images["operator"], tmp_path)
    cluster.apply(json.dumps(trial.served_model(made)), where)
    cluster.kubectl("wait", "servedmodel", trial.MODEL, where, "--for=condition=Ready", "--timeout=180s")
    rollout = _ROLLOUT | {"gates": {"errorRate": 0.01, "p99Ms": 100}}
    with predicting(cluster, release.trusted, trial.bright(tmp_path), model=trial.MODEL) as clients:
        for version, reason in ((2, "ErrorRate"), (3, "Latency")):
            change(installed, {"traffic": {"canary": {"version": version}}, "rollout": rollout}, trial.MODEL)
            assert taken_back(installed, version, trial.MODEL)["reason"] == reason
            assert counted(clients, 30).keys() == {1}
            failed = len(clients.failed)
            assert counted(clients, 100).keys() == {1}
            assert len(clients.failed) == failed
    assert 0 < len(clients.failed) < SHARE / 100 * clients.versions.total()


def change(installed: Installed, spec: dict[str, Any], model: str = "cancer") -> None:
    """Change a part of a model's spec, as a person or a GitOps tool does."""
    patch = f"--patch={json.dumps({'spec': spec})}"
    where = f"--namespace={installed.namespace}"
    installed.cluster.kubectl("patch", "servedmodel", model, where, "--type=merge", patch)


def status(installed: Installed, model: str = "cancer") -> dict[str, Any]:
    """Return a model's status."""
    found: dict[str, Any] = installed.get("servedmodel", model).get("status", {})
    return found


def until(installed: Installed, condition: Callable[[dict[str, Any]], bool], model: str = "cancer") -> dict[str, Any]:
    """Wait until the rollout is so, and return it; fail with what it is instead."""
    try:
        wait_until(lambda: condition(status(installed, model).get("rollout") or NONE), "the rollout", _SOON_S)
    except TimeoutError as late:
        log = installed.cluster.kubectl(
            "logs", f"deploy/{RELEASE}-operator", f"--namespace={installed.namespace}", "--tail=20"
        )
        raise AssertionError(f"{late}\n{json.dumps(status(installed, model), indent=1)}\n{log}") from late
    found: dict[str, Any] = status(installed, model)["rollout"]
    return found


def taken_back(installed: Installed, version: int, model: str = "cancer") -> dict[str, Any]:
    """Wait until a version is taken back, and return its rollout."""
    return until(installed, lambda found: (found["version"], found["phase"]) == (version, "RolledBack"), model)


NONE = {"version": 0, "phase": "", "canaryPercent": 0}


def word(installed: Installed, verb: str) -> None:
    """Say a person's word."""
    done = healthguard(installed, "rollout", verb, "cancer")
    assert done.returncode == 0, done.stdout + done.stderr


def healthguard(installed: Installed, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would, with this cluster's kubeconfig and kubectl."""
    path = f"{tools.program('kubectl').parent}{os.pathsep}{os.environ['PATH']}"
    environment = installed.cluster.environment() | {"PATH": path}
    command = [sys.executable, "-m", "healthguard", *words, f"--namespace={installed.namespace}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)


def models_of(installed: Installed) -> set[str]:
    """Return the names of the cancer model's Deployments."""
    found = installed.get("deployments", "--selector=serving.healthguard.io/model=cancer")
    return {each["metadata"]["name"] for each in found["items"]}


def told(installed: Installed) -> list[str]:
    """Return the phases that events tell of the model's rollouts, in order."""
    found = [one for one in installed.get("events.events.k8s.io")["items"] if one["regarding"]["name"] == "cancer"]
    reasons = [one["reason"] for one in sorted(found, key=lambda one: str(one["eventTime"]))]
    phases = [reason.removeprefix("Rollout") for reason in reasons if reason.startswith("Rollout")]
    return [phase for phase, _ in itertools.groupby(phases)]


def counted(clients: Clients, count: int) -> Counter[int]:
    """Return who gave the next *count* answers, from a moment on when those in flight are done."""
    settled = clients.versions.total() + 20
    wait_until(lambda: clients.versions.total() >= settled, "requests in flight to end", _SOON_S)
    before = Counter(clients.versions)
    wait_until(lambda: clients.versions.total() - before.total() >= count, f"{count} answers", 1200)
    return Counter(clients.versions) - before


def tolerance(count: int) -> float:
    """Return how far a measured share may be from the true one: 2 %, or what chance explains of so few."""
    return max(0.02, 4 * math.sqrt(SHARE / 100 * (1 - SHARE / 100) / count))
