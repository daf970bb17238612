"""Observe: what the API server says about one ServedModel and its objects, read into values that plan decides on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from serving.operator.kubernetes import Api, Object
from serving.operator.manifests import CHILD_KINDS, MODEL_LABEL, REVISION, VERSION_LABEL, Owner, child_name
from serving.operator.pod import PROBER_NAME, SERVER_NAME, STAGER_NAME


@dataclass(frozen=True)
class Container:
    """What the kubelet says about one container of a pod."""

    running: bool = False
    ready: bool = False
    succeeded: bool = False
    restarts: int = 0
    waiting: str = ""
    """Why it does not run, in the kubelet's word: ImagePullBackOff, CreateContainerConfigError and the like."""
    ended: str = ""
    """Why it ended badly the last time, in the kubelet's word: Error, OOMKilled; empty: it did not."""
    message: str = ""
    """What it left behind when it did."""


@dataclass(frozen=True)
class Pod:
    """One model pod."""

    name: str
    version: int
    revision: str
    ready: bool = False
    unschedulable: str = ""
    """Why no node takes it, in the scheduler's words; empty: one did, or it was not tried yet."""
    stager: Container = Container()
    server: Container = Container()
    prober: Container = Container()


@dataclass(frozen=True)
class Deployment:
    """The Deployment of one version."""

    version: int
    revision: str
    wanted: int
    settled: bool
    """Whether its controller has seen its newest form."""
    updated: int = 0
    available: int = 0
    total: int = 0
    refused: str = ""
    """Why pods could not be made, in the API server's words (quota, Pod Security)."""


@dataclass(frozen=True)
class Child:
    """An object that is there, by kind, name and identity."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True)
class Observed:
    """One ServedModel with all that belongs to it, at one moment."""

    owner: Owner
    generation: int
    spec: Any
    status: Any
    foreign: tuple[Child, ...] = ()
    """Objects under the names of ours that belong to somebody else."""
    deployments: tuple[Deployment, ...] = ()
    pods: tuple[Pod, ...] = ()
    outdated: tuple[Child, ...] = ()
    """Objects of ours of versions that are not the stable one."""


async def observe(api: Api, namespace: str, name: str) -> Observed | None:
    """
    Return what there is, or None where the ServedModel is gone or going.

    Raises:
        CallFailed: the API server refused, or did not answer.
    """
    model = await api.get("ServedModel", namespace, name)
    if model is None or "deletionTimestamp" in model["metadata"]:
        return None
    owner = Owner(name, namespace, model["metadata"]["uid"])
    labels = {MODEL_LABEL: name}
    deployments = await api.list("Deployment", namespace, labels)
    pods = await api.list("Pod", namespace, labels)
    stable = _stable(model)
    present = await _children(api, owner, {stable, *(_version(deployment) for deployment in deployments)})
    ours, foreign = _divide(present, owner)
    keep = child_name(name, stable)
    return Observed(
        owner=owner,
        generation=int(model["metadata"]["generation"]),
        spec=model.get("spec"),
        status=model.get("status") or {},
        foreign=tuple(child for child in foreign if child.name == keep),
        deployments=tuple(read_deployment(each) for each in deployments if _owned(each, owner)),
        pods=tuple(read_pod(pod) for pod in pods if "deletionTimestamp" not in pod["metadata"]),
        outdated=tuple(child for child in ours if child.name != keep),
    )


def _stable(model: Object) -> int:
    """Return the stable version's number as far as the spec can be understood; plan says so where it cannot."""
    try:
        return int(model["spec"]["traffic"]["stable"])
    except (KeyError, TypeError, ValueError):
        return 0


async def _children(api: Api, owner: Owner, versions: Iterable[int]) -> list[tuple[str, Object]]:
    found = []
    for version in sorted(versions):
        for kind in CHILD_KINDS:
            child = await api.get(kind, owner.namespace, child_name(owner.name, version)) if version else None
            if child is not None:
                found.append((kind, child))
    return found


def _divide(present: list[tuple[str, Object]], owner: Owner) -> tuple[list[Child], list[Child]]:
    ours: list[Child] = []
    foreign: list[Child] = []
    for kind, found in present:
        child = Child(kind, found["metadata"]["name"], found["metadata"]["uid"])
        (ours if _owned(found, owner) else foreign).append(child)
    return ours, foreign


def _owned(found: Object, owner: Owner) -> bool:
    references = found["metadata"].get("ownerReferences", [])
    return any(reference.get("controller") and reference["uid"] == owner.uid for reference in references)


def _version(found: Object) -> int:
    text = found["metadata"].get("labels", {}).get(VERSION_LABEL, "")
    return int(text) if text.isdigit() else 0


def read_deployment(found: Object) -> Deployment:
    """Read a Deployment."""
    spec, status = found["spec"], found.get("status", {})
    refused = [
        condition.get("message", "")
        for condition in status.get("conditions", [])
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True"
    ]
    return Deployment(
        version=_version(found),
        revision=spec["template"]["metadata"].get("annotations", {}).get(REVISION, ""),
        wanted=spec.get("replicas", 1),
        settled=status.get("observedGeneration", 0) >= found["metadata"]["generation"],
        updated=status.get("updatedReplicas", 0),
        available=status.get("availableReplicas", 0),
        total=status.get("replicas", 0),
        refused=refused[0] if refused else "",
    )


def read_pod(found: Object) -> Pod:
    """Read a pod."""
    status = found.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    scheduled = conditions.get("PodScheduled", {})
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    containers = {
        entry["name"]: read_container(entry)
        for entry in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    }
    return Pod(
        name=found["metadata"]["name"],
        version=_version(found),
        revision=found["metadata"].get("annotations", {}).get(REVISION, ""),
        ready=conditions.get("Ready", {}).get("status") == "True",
        unschedulable=scheduled.get("message", "no reason given") if unschedulable else "",
        stager=containers.get(STAGER_NAME, Container()),
        server=containers.get(SERVER_NAME, Container()),
        prober=containers.get(PROBER_NAME, Container()),
    )


def read_container(entry: Object) -> Container:
    """Read the status of one container; one that waits to be started again tells its end in `lastState`."""
    state = entry.get("state", {})
    ends = [part["terminated"] for part in (state, entry.get("lastState", {})) if "terminated" in part]
    bad = next((end for end in ends if end.get("exitCode", 0) != 0), None)
    return Container(
        running="running" in state,
        ready=bool(entry.get("ready")),
        succeeded=state.get("terminated", {}).get("exitCode") == 0,
        restarts=entry.get("restartCount", 0),
        waiting=state.get("waiting", {}).get("reason", ""),
        ended=bad.get("reason", "Error") if bad else "",
        message=bad.get("message", "") if bad else "",
    )
