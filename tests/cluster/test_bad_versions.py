"""Versions that are refused before they get a single request, each at its gate, by itself; and an approval's end."""

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from healthguard import approval
from models import artifact
from tests.cluster import trial_versions
from tests.cluster.cluster import Cluster
from tests.cluster.operator_pod import apply
from tests.cluster.runs import wait_until
from tests.cluster.trial_versions import Made

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(1800)]

_SERVED_S = 180.0
_CAUGHT_S = 180.0
_PUT_S = 120.0
_DAY, _SOON = datetime.timedelta(days=1), datetime.timedelta(seconds=_PUT_S + _SERVED_S)
"""Soon is after all that may be waited for until a version serves: on no machine it ends before its stager looks."""
STABLE = 1
BAD = {
    "flipped": (2, "DigestMismatch"),
    "unapproved": (3, "ApprovalMissing"),
    "expired": (4, "ApprovalExpired"),
    "unloadable": (5, "LoadFailed"),
    "wrong": (6, "GoldenTestFailed"),
}
"""By the model's name: the bad version, and the reason for which it is taken back."""
APPROVED = {"unapproved": STABLE, "expired": 7}
"""By the model's name: its stable version, where that has to be approved. An approval is for one name, so it is two."""


@dataclass(frozen=True)
class Shelf:
    """Version folders to be put into the claim, and the key of who approves them."""

    folder: Path
    key: ec.EllipticCurvePrivateKey

    @property
    def public_key(self) -> str:
        """The key that a ServedModel trusts."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def place(self, number: int) -> Path:
        """Return where a version is."""
        return self.folder / "versions" / trial_versions.MODEL / str(number)

    def approve(self, made: Made, name: str, *, expires: datetime.timedelta) -> None:
        """Let a version be used as model *name* from two days ago on, until *expires* from now."""
        now = datetime.datetime.now(datetime.UTC)
        said = approval.Approval(name, made.number, made.digest, "Tests.", "Ada", now - 2 * _DAY, now + expires)
        approval.beside(self.place(made.number)).write_bytes(approval.sign(said, self.key))

    def again(self, number: int) -> Made:
        """Return a version whose files were changed, as its maker would name it then."""
        return Made(number, artifact.digest(self.place(number)))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Have a place for version folders."""
    return Shelf(tmp_path_factory.mktemp("versions"), ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def versions(cluster: Cluster, namespace: str, product_images: dict[str, str], shelf: Shelf) -> dict[int, Made]:
    """Fill the claim `models` with the stable version and the bad ones; return them by number."""
    numbers = {STABLE, *APPROVED.values(), *(number for number, _ in BAD.values())}
    made = {number: trial_versions.make(shelf.folder, number, trial_versions.sound) for number in numbers}
    flip(shelf.place(BAD["flipped"][0]) / "model.tflite")
    (shelf.place(BAD["unloadable"][0]) / "model.tflite").write_bytes(b"\x18\x00\x00\x00TFL3" + bytes(64))
    tell_another(shelf.place(BAD["wrong"][0]) / "assets.extra" / "golden" / "cases.json")
    for name in ("unloadable", "wrong"):
        made[BAD[name][0]] = shelf.again(BAD[name][0])
    for name, number in APPROVED.items():
        shelf.approve(made[number], name, expires=_DAY)
    shelf.approve(made[BAD["expired"][0]], "expired", expires=-_DAY)
    claim(cluster, namespace)
    trial_versions.put(cluster, namespace, product_images["operator"], shelf.folder)
    return made


def claim(cluster: Cluster, namespace: str) -> None:
    """Make the claim that versions are put into."""
    made = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": trial_versions.CLAIM},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}},
    }
    apply(cluster, namespace, made)


@pytest.mark.usefixtures("operator")
def test_bad_version_is_taken_back_before_it_gets_a_request(
    cluster: Cluster, namespace: str, versions: dict[int, Made], shelf: Shelf
) -> None:
    """A flipped byte, no approval, one that is over, a file that does not load, golden cases that do not fit."""
    where = f"--namespace={namespace}"
    for name, (number, _) in BAD.items():
        model = trial_versions.served_model([versions[APPROVED.get(name, STABLE)], versions[number]])
        model["metadata"]["name"] = name
        if name in APPROVED:
            model["spec"]["approval"] = {"required": True, "trustedKeys": [shelf.public_key]}
        apply(cluster, namespace, model)
    ready = ("--for=condition=Ready", f"--timeout={_SERVED_S:.0f}s")
    cluster.kubectl("wait", "servedmodel", *BAD, where, *ready, timeout_s=_SERVED_S + 20)

    for name, (number, _) in BAD.items():
        wish = {"traffic": {"canary": {"version": number}}, "rollout": {"steps": [50], "timeoutSeconds": 3600}}
        patch = json.dumps({"spec": wish})
        cluster.kubectl("patch", "servedmodel", name, where, "--type=merge", f"--patch={patch}")
    shares: dict[str, set[int]] = {name: set() for name in BAD}

    def all_taken_back() -> bool:
        found = {name: rollout(cluster, namespace, name) for name in BAD}
        for name in BAD:
            shares[name].add(found[name]["canaryPercent"])
        return all(one["phase"] == "RolledBack" for one in found.values())

    try:
        wait_until(all_taken_back, "every bad version to be taken back", _CAUGHT_S)
    except TimeoutError as late:
        told = {name: status(cluster, namespace, name) for name in BAD}
        raise AssertionError(f"{late}: {json.dumps(told, indent=1)}") from late
    for name, (_, reason) in BAD.items():
        found = status(cluster, namespace, name)
        assert found["rollout"]["reason"] == reason, found["rollout"]
        assert found["lastFailure"]["reason"] == reason
        stable = APPROVED.get(name, STABLE)
        assert (shares[name], found["answering"]) == ({0}, stable)
        serves = next(one for one in found["versions"] if one["version"] == stable)
        assert (serves["state"], serves["ready"]) == ("Serving", 1)
    gone = {f"model-{name}-v{number}" for name, (number, _) in BAD.items()}
    wait_until(lambda: not gone & deployments(cluster, namespace), "what was taken back to go", _SERVED_S)


@pytest.mark.usefixtures("operator")
def test_approval_that_ends_is_told_and_takes_nothing_away(
    cluster: Cluster, namespace: str, product_images: dict[str, str], shelf: Shelf
) -> None:
    """Within a minute, by what the kubelet has carried from the stager; a new approval counts with the next pod."""
    where, name, number = f"--namespace={namespace}", "ending", 8
    made = trial_versions.make(shelf.folder, number, trial_versions.sound)
    claim(cluster, namespace)
    ends = datetime.datetime.now(datetime.UTC) + _SOON
    shelf.approve(made, name, expires=_SOON)
    trial_versions.put(cluster, namespace, product_images["operator"], shelf.folder)
    model = trial_versions.served_model([made], approval={"required": True, "trustedKeys": [shelf.public_key]})
    model["metadata"]["name"] = name
    apply(cluster, namespace, model)
    ready = ("--for=condition=Ready", f"--timeout={_SERVED_S:.0f}s")
    cluster.kubectl("wait", "servedmodel", name, where, *ready, timeout_s=_SERVED_S + 20)
    pods = pod_uids(cluster, namespace, name)

    wait_until(lambda: approved(cluster, namespace, name)["reason"] == "ApprovalExpired", "the end", 3 * _SERVED_S)
    told = datetime.datetime.fromisoformat(approved(cluster, namespace, name)["lastTransitionTime"])
    assert ends < told < ends + datetime.timedelta(minutes=1)
    found = status(cluster, namespace, name)
    assert (found["lastFailure"]["reason"], found["answering"], found["readyReplicas"]) == ("ApprovalExpired", 8, 1)
    assert condition(found, "Ready")["status"] == "True"
    assert pod_uids(cluster, namespace, name) == pods

    shelf.approve(made, name, expires=_DAY)
    trial_versions.put(cluster, namespace, product_images["operator"], shelf.folder)
    cluster.kubectl("rollout", "restart", f"deployment/model-{name}-v{number}", where)
    wait_until(lambda: approved(cluster, namespace, name)["status"] == "True", "the new approval to count", _SERVED_S)


def pod_uids(cluster: Cluster, namespace: str, name: str) -> set[str]:
    """Return the identities of a model's pods."""
    found: Any = cluster.get("pods", f"--namespace={namespace}", f"--selector=serving.healthguard.io/model={name}")
    return {one["metadata"]["uid"] for one in found["items"]}


def approved(cluster: Cluster, namespace: str, name: str) -> dict[str, str]:
    """Return a model's condition about its approval."""
    return condition(status(cluster, namespace, name), "Approved")


def condition(found: dict[str, Any], kind: str) -> dict[str, str]:
    """Return a condition of a status."""
    return next(dict(one) for one in found["conditions"] if one["type"] == kind)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def tell_another(cases: Path) -> None:
    """Have golden cases tell another probability than was measured."""
    document = json.loads(cases.read_text())
    for case in document["cases"]:
        case["probability"] = (case["probability"] + 0.5) % 1
    cases.write_text(json.dumps(document))


def status(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """Return a model's status."""
    found: Any = cluster.get("servedmodel", name, f"--namespace={namespace}")
    told: dict[str, Any] = found.get("status", {})
    return told


def rollout(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """Return what was decided of a model's version on trial."""
    found: dict[str, Any] = status(cluster, namespace, name).get("rollout", {"phase": "", "canaryPercent": 0})
    return found


def deployments(cluster: Cluster, namespace: str) -> set[str]:
    """Return the names of the Deployments that there are."""
    found: Any = cluster.get("deployments", f"--namespace={namespace}")
    return {one["metadata"]["name"] for one in found["items"]}
