"""Observe: what the API server says about one ServedModel and its objects, read into values that plan decides on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.operator import devices, hpa
from serving.operator.kubernetes import FIELD_MANAGER, Api, CallFailed, Object
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
    told: str = ""
    """What it left behind when it ended well."""


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
    ours: bool = True
    """Whether the number of its pods is what we applied; no longer, once an autoscaler has changed it."""


@dataclass(frozen=True)
class Child:
    """An object that is there, by kind, name and identity."""

    kind: str
    name: str
    uid: str
    version: int = 0
    found: Object = field(default_factory=dict, repr=False)
    """The object itself, as the API server has it."""


@dataclass(frozen=True)
class Observed:
    """One ServedModel with all that belongs to it, at one moment."""

    owner: Owner
    generation: int
    spec: Any
    status: Any
    resource_version: str = ""
    """Which form of the ServedModel this is."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    foreign: tuple[Child, ...] = ()
    """Objects under the names of ours that belong to somebody else."""
    deployments: tuple[Deployment, ...] = ()
    pods: tuple[Pod, ...] = ()
    children: tuple[Child, ...] = ()
    """Objects of ours, of all versions."""
    autoscalers: Mapping[int, hpa.Autoscaler] = field(default_factory=dict)
    """What scales, by version."""

    def deployment(self, version: int) -> Deployment | None:
        """Return the Deployment of a version, if there is one."""
        return next((each for each in self.deployments if each.version == version), None)


async def observe(api: Api, namespace: str, name: str, kinds: Iterable[str] = CHILD_KINDS) -> Observed | None:
    """
    Return what there is, or None where the ServedModel is gone or going.

    Args:
        kinds: of the objects that a version may have.

    Raises:
        CallFailed: the API server refused, or did not answer.
    """
    model = await api.get("ServedModel", namespace, name)
    if model is None or "deletionTimestamp" in model["metadata"]:
        return None
    owner = Owner(name, namespace, model["metadata"]["uid"])
    versions = _in_traffic(model)
    listed = await _listed(api, owner, kinds)
    needed = [kind for kind in kinds if kind not in _AUTOSCALERS or "autoscaling" in model["spec"]]
    running = {child.version for child in listed if child.kind == "Deployment"}
    present = listed + await _unlabelled(api, owner, needed, listed, versions | running)
    ours = [child for child in present if _owned(child.found, owner)]
    pods = await api.list("Pod", namespace, {MODEL_LABEL: name})
    return Observed(
        owner=owner,
        generation=int(model["metadata"]["generation"]),
        spec=model.get("spec"),
        status=model.get("status") or {},
        resource_version=model["metadata"]["resourceVersion"],
        annotations=model["metadata"].get("annotations") or {},
        foreign=tuple(child for child in present if child not in ours and child.version in versions),
        deployments=tuple(read_deployment(child) for child in ours if child.kind == "Deployment"),
        pods=tuple(read_pod(pod) for pod in pods if "deletionTimestamp" not in pod["metadata"]),
        children=tuple(ours),
        autoscalers={child.version: hpa.read(child.found) for child in ours if child.kind in _AUTOSCALERS},
    )


async def observe_devices(api: Api) -> devices.Devices | None:
    """
    Return which devices the nodes have, and who has them; None where we may not look.

    Raises:
        CallFailed: the API server refused for another reason, or did not answer.
    """
    try:
        return devices.read(await api.list("Node", None), await api.list("Pod", None))
    except CallFailed as error:
        if error.status != _FORBIDDEN:
            raise
        return None


_FORBIDDEN = 403
_NOT_FOUND = 404
_AUTOSCALERS = frozenset({"HorizontalPodAutoscaler", "ScaledObject"})
_CUSTOM = frozenset({"ScaledObject"})
"""Kinds that a cluster knows only once somebody has installed their definition."""


def _in_traffic(model: Object) -> set[int]:
    """Return the versions in traffic as far as the spec can be understood; plan says so where it cannot."""
    traffic = (model.get("spec") or {}).get("traffic") or {}
    found = [traffic.get("stable"), *((traffic.get(part) or {}).get("version") for part in ("canary", "shadow"))]
    return {number for number in found if isinstance(number, int)}


async def _listed(api: Api, owner: Owner, kinds: Iterable[str]) -> list[Child]:
    """
    Return the objects with the model's label, of any version: also what was left of one that is long gone.

    Raises:
        CallFailed: the API server refused, or did not answer.
    """
    found: list[Child] = []
    for kind in kinds:
        try:
            listed = await api.list(kind, owner.namespace, {MODEL_LABEL: owner.name})
        except CallFailed as error:
            # A kind without its definition has no objects. With a Role of an older release they are looked for by name.
            unknown = error.status == _NOT_FOUND and kind in _CUSTOM
            if not unknown and (error.status != _FORBIDDEN or kind == "Deployment"):
                raise
            listed = []
        found += [_child(kind, each, _named(owner, each)) for each in listed]
    return [child for child in found if child.name == child_name(owner.name, child.version)]


def _named(owner: Owner, found: Object) -> int:
    """Return the version that an object's name says, which nobody can change as they can a label; 0: it is not ours."""
    text = found["metadata"]["name"].removeprefix(child_name(owner.name, 0).removesuffix("0"))
    return int(text) if text.isdecimal() else 0


async def _unlabelled(
    api: Api, owner: Owner, kinds: Iterable[str], listed: Iterable[Child], versions: Iterable[int]
) -> list[Child]:
    """
    Return what stands under a name that we need although it does not carry our labels (any more).

    Raises:
        CallFailed: the API server refused, or did not answer.
    """
    known = {(child.kind, child.version) for child in listed}
    found = []
    for kind, version in ((kind, version) for version in sorted(versions) for kind in kinds):
        name = child_name(owner.name, version)
        there = None if (kind, version) in known else await api.get(kind, owner.namespace, name)
        if there is not None:
            found.append(_child(kind, there, version))
    return found


def _child(kind: str, found: Object, version: int) -> Child:
    metadata = found["metadata"]
    return Child(kind, metadata["name"], metadata["uid"], version, found)


def _owned(found: Object, owner: Owner) -> bool:
    references = found["metadata"].get("ownerReferences", [])
    return any(reference.get("controller") and reference["uid"] == owner.uid for reference in references)


def _version(found: Object) -> int:
    # Of pods, whose names say nothing: by this label their ReplicaSet knows them.
    text = found["metadata"].get("labels", {}).get(VERSION_LABEL, "")
    return int(text) if text.isdigit() else 0


def read_deployment(child: Child) -> Deployment:
    """Read a Deployment."""
    found = child.found
    spec, status = found["spec"], found.get("status", {})
    refused = [
        condition.get("message", "")
        for condition in status.get("conditions", [])
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True"
    ]
    return Deployment(
        version=child.version,
        revision=spec["template"]["metadata"].get("annotations", {}).get(REVISION, ""),
        wanted=spec.get("replicas", 1),
        settled=status.get("observedGeneration", 0) >= found["metadata"]["generation"],
        updated=status.get("updatedReplicas", 0),
        available=status.get("availableReplicas", 0),
        total=status.get("replicas", 0),
        refused=refused[0] if refused else "",
        ours=hpa.owns_replicas(found, FIELD_MANAGER),
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
    ended = state.get("terminated", {})
    succeeded = ended.get("exitCode") == 0
    return Container(
        running="running" in state,
        ready=bool(entry.get("ready")),
        succeeded=succeeded,
        restarts=entry.get("restartCount", 0),
        waiting=state.get("waiting", {}).get("reason", ""),
        ended=bad.get("reason", "Error") if bad else "",
        message=bad.get("message", "") if bad else "",
        told=ended.get("message", "") if succeeded else "",
    )
