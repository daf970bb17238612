"""
Plan: from a ServedModel and what was observed of it to what is to be done and what its status says. Pure.

Every reason and message here goes word for word into a condition, where `kubectl describe` shows it: a message says
what is so and, where somebody has to act, what to do.

The conditions, in the order of a pod's life:

    Scheduled          nodes take the pods (GPUs!)
    ArtifactVerified   the stager found every byte as the digest says
    Loaded             the server has the version AVAILABLE
    GoldenTestPassed   the server answers the golden cases as measured
    TrafficReady       at least one pod takes requests
    VersionsServed     all versions of the spec are served, not only the stable one
    Ready              the newest spec is served by as many pods as asked for
    Reconciling        it is being brought about; wait
    Stalled            it will not come about by waiting

The last three mean what kstatus says, so that `helm --wait` and `kubectl wait` are right.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from serving.operator import failures
from serving.operator.manifests import Manifest, children, endpoint, revision_of
from serving.operator.observe import Child, Container, Deployment, Observed, Pod
from serving.operator.settings import OperatorSettings
from serving.operator.spec import InvalidSpec, ServedModelSpec, read
from serving.operator.storage import BadAddress

RESTARTS_STALLED = 3
"""After so many restarts a container that fails is taken for one that will not succeed by waiting."""

_CANNOT_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_CANNOT_START = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})

_PROBER_DIED = "ProberFailed"

Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Finding:
    """What is so about one condition."""

    status: Status
    reason: str
    message: str
    stalled: bool = False
    """Whether waiting will not help."""
    pod: str = ""
    """The pod that failed, where one did."""


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order, and the status to write after it."""

    apply: tuple[Manifest, ...]
    delete: tuple[Child, ...]
    status: dict[str, Any]
    again_s: float | None = None
    """When to look again although nothing may be heard until then, seconds."""


@dataclass(frozen=True)
class _View:
    """What the decisions about one version need."""

    spec: ServedModelSpec
    version: int
    endpoint: str
    pods: tuple[Pod, ...]
    """The pods of the newest revision."""
    ready: int
    """Pods of this version that take requests, of any revision."""
    deployment: Deployment | None
    """The Deployment, where it already has the newest form."""


def plan(observed: Observed, settings: OperatorSettings, *, now: str, certificate: str = "") -> Plan:
    """
    Decide what to do about one ServedModel.

    Args:
        now: the time, RFC 3339, for conditions that change.
    """
    try:
        spec = read(observed.spec)
        manifests = children(observed.owner, spec, settings, certificate)
    except (InvalidSpec, BadAddress) as error:
        finding = Finding("False", "InvalidSpec", f"Nothing was changed: {error}.", stalled=True)
        return Plan((), (), _status(observed, _summary(finding), now=now))
    if observed.foreign:
        # It may be what an earlier model of this name left, and Kubernetes is about to remove.
        return Plan((), (), _status(observed, _summary(_name_taken(observed.foreign)), now=now), again_s=15.0)
    view = _view(observed, spec, revision_of(manifests))
    findings = _findings(view)
    complete = findings["Ready"].status == "True"
    # The version before goes only when its successor is complete: until then it is what answers.
    delete = observed.outdated if complete else ()
    status = _status(observed, findings, now=now) | _counts(view, findings)
    return Plan(tuple(manifests), delete, status)


def refused(observed: Observed, plan: Plan, what: str, why: str, *, now: str) -> dict[str, Any]:
    """Return the status of a plan that could not be carried out because the API server refused *what*."""
    message = f"The API server refused {what}: {why}. The operator tries again by itself."
    finding = Finding("False", "ApplyRefused", message, stalled=True)
    return plan.status | _status(observed, _summary(finding), now=now)


def _view(observed: Observed, spec: ServedModelSpec, revision: str) -> _View:
    version = spec.stable.version
    pods = tuple(pod for pod in observed.pods if pod.version == version)
    found = next((each for each in observed.deployments if each.version == version), None)
    newest = found is not None and found.revision == revision and found.wanted == spec.min_replicas and found.settled
    return _View(
        spec=spec,
        version=version,
        endpoint=endpoint(observed.owner, version),
        pods=tuple(pod for pod in pods if pod.revision == revision),
        ready=sum(pod.ready for pod in pods),
        deployment=found if newest else None,
    )


def _findings(view: _View) -> dict[str, Finding]:
    steps = {
        "Scheduled": _scheduled(view),
        "ArtifactVerified": _verified(view),
        "Loaded": _loaded(view),
        "GoldenTestPassed": _golden(view),
    }
    ready = _ready(view, list(steps.values()))
    return steps | {"TrafficReady": _traffic(view), "VersionsServed": _others(view)} | _summary(ready)


def _name_taken(foreign: Sequence[Child]) -> Finding:
    names = ", ".join(f"{child.kind} {child.name}" for child in foreign)
    return Finding(
        "False",
        "NameTaken",
        f"Nothing was changed: {names} exists and belongs to somebody else. Remove it, or name the model otherwise.",
        stalled=True,
    )


# ---- the steps of a pod's life


def _scheduled(view: _View) -> Finding:
    if view.deployment and view.deployment.refused:
        message = f"Pods of version {view.version} may not be made: {view.deployment.refused}"
        return Finding("False", "PodsRefused", message, stalled=True)
    waiting = next((pod for pod in view.pods if pod.unschedulable), None)
    if waiting is not None:
        return _unschedulable(view, waiting)
    if not view.pods:
        return Finding("Unknown", "NoPods", f"No pod of version {view.version} was made yet.")
    return Finding("True", "Scheduled", f"All pods of version {view.version} have a node.")


def _unschedulable(view: _View, pod: Pod) -> Finding:
    devices = ", ".join(f"{name}: {amount}" for name, amount in view.spec.gpus.items())
    told = f"No node takes a pod of version {view.version}. The scheduler says: {pod.unschedulable.rstrip('.')}."
    lacking = ("no nodes available", *(f"Insufficient {name}" for name in view.spec.gpus))
    if devices and any(words in pod.unschedulable for words in lacking):
        todo = (
            f" Each pod asks for {devices}. Add a node that has it free (its device plugin must run there), free one, "
            "or ask for less in spec.resources.limits."
        )
        return Finding("False", "InsufficientGPU", told + todo)
    todo = " Look at spec.resources, spec.nodeSelector and spec.tolerations, and at the claim that storageUri names."
    return Finding("False", "Unschedulable", told + todo)


def _verified(view: _View) -> Finding:
    failed = next((pod for pod in view.pods if pod.stager.ended and not pod.stager.succeeded), None)
    if failed is not None:
        failure = failures.read(failed.stager.message, otherwise="StagerFailed")
        message = f"Version {view.version} is not served: {failure.message}."
        # A claim that is being filled, or a store that is away, is right at one of the next tries.
        stalled = failed.stager.restarts >= RESTARTS_STALLED
        return Finding("False", failure.reason, message, stalled=stalled, pod=failed.name)
    stuck = _stuck(view, lambda pod: pod.stager, "stager")
    if stuck is not None:
        return stuck
    if any(pod.stager.succeeded for pod in view.pods):
        return Finding(
            "True", "Verified", f"Every byte of version {view.version} is as {view.spec.stable.digest} says."
        )
    return Finding("Unknown", "Staging", f"Version {view.version} is not fetched and checked yet.")


def _loaded(view: _View) -> Finding:
    told = _told(view, "LoadFailed")
    if told is not None:
        return told
    ended = next((pod for pod in view.pods if pod.server.ended and not pod.ready), None)
    if ended is not None:
        return _server_ended(view, ended)
    stuck = _stuck(view, lambda pod: pod.server, "server") or _stuck(view, lambda pod: pod.prober, "prober")
    if stuck is not None:
        return stuck
    # A pod is ready only after its server had the version, and a failed golden test needs a loaded one, too.
    if any(pod.ready or pod.prober.ended for pod in view.pods):
        return Finding("True", "Available", f"The server has version {view.version} available.")
    return Finding("Unknown", "Loading", f"No server has version {view.version} available yet.")


def _server_ended(view: _View, pod: Pod) -> Finding:
    stalled = pod.server.restarts >= RESTARTS_STALLED
    times = f"{pod.server.restarts} times" if pod.server.restarts > 1 else "once"
    if pod.server.ended == "OOMKilled":
        message = f"The server of version {view.version} needed more memory than it may have: raise "
        return Finding("False", "OutOfMemory", message + "spec.resources.limits.memory.", stalled=stalled, pod=pod.name)
    failure = failures.read(pod.server.message, otherwise="LoadFailed")
    message = f"The server of version {view.version} ended by itself, {times}; its last words: {failure.message}"
    return Finding("False", "LoadFailed", message, stalled=stalled, pod=pod.name)


def _golden(view: _View) -> Finding:
    failed = next((pod for pod in view.pods if pod.prober.ended and not pod.ready), None)
    if failed is not None:
        failure = failures.read(failed.prober.message, otherwise=_PROBER_DIED)
        if failure.reason != "LoadFailed":
            message = f"Version {view.version} gets no requests: {failure.message}."
            # A prober that was killed has found nothing out; it is started again.
            stalled = failure.reason != _PROBER_DIED
            return Finding("False", failure.reason, message, stalled=stalled, pod=failed.name)
    if any(pod.ready for pod in view.pods):
        return Finding("True", "Passed", f"Version {view.version} answers its golden cases as they were measured.")
    return Finding("Unknown", "NotTested", f"Version {view.version} was not asked its golden cases yet.")


def _told(view: _View, reason: str) -> Finding | None:
    """Return what a prober said before it ended, if it was for *reason*."""
    for pod in view.pods:
        if pod.prober.ended and not pod.ready:
            failure = failures.read(pod.prober.message, otherwise=_PROBER_DIED)
            if failure.reason == reason:
                message = f"Version {view.version} gets no requests: {failure.message}."
                return Finding("False", reason, message, stalled=True, pod=pod.name)
    return None


def _stuck(view: _View, pick: Callable[[Pod], Container], name: str) -> Finding | None:
    """Return why a container cannot be started at all, if so."""
    for pod in view.pods:
        waiting = pick(pod).waiting
        if waiting in _CANNOT_PULL:
            message = f"The image of the {name} cannot be pulled ({waiting}): look at its name and the pull secrets."
            return Finding("False", "ImageNotPulled", message, pod=pod.name)
        if waiting in _CANNOT_START:
            message = f"The {name} cannot be started ({waiting}): `kubectl describe pod {pod.name}` says why."
            return Finding("False", "ContainerNotStarted", message, pod=pod.name)
    return None


# ---- the whole


def _traffic(view: _View) -> Finding:
    if view.ready:
        pods = "1 pod takes" if view.ready == 1 else f"{view.ready} pods take"
        return Finding("True", "EndpointsReady", f"{pods} requests for version {view.version} at {view.endpoint}.")
    return Finding("False", "NoReadyPods", f"No pod takes requests for version {view.version}.")


def _others(view: _View) -> Finding:
    others = [str(version.version) for version in view.spec.versions if version.version != view.version]
    if not others:
        return Finding("True", "AllServed", f"Version {view.version} is the only one, and it is the stable one.")
    message = f"Of the versions only the stable one, {view.version}, is served; canaries are not supported yet. "
    return Finding("False", "OnlyStableServed", f"{message}Not served: {', '.join(others)}.")


def _ready(view: _View, steps: Iterable[Finding]) -> Finding:
    """Return whether the spec is served as asked for; if not, the first step that is not done says why."""
    wanted = view.spec.min_replicas
    for step in steps:
        if step.status == "False":
            return step
    deployment = view.deployment
    if deployment and deployment.updated == deployment.available == deployment.total == wanted:
        pods = "1 pod serves" if wanted == 1 else f"{wanted} pods serve"
        return Finding("True", "Serving", f"{pods} version {view.version}.")
    for step in steps:
        if step.status == "Unknown":
            return replace(step, status="False")
    available = deployment.available if deployment else 0
    message = f"{available} of {wanted} pods of version {view.version} are available in their newest form."
    return Finding("False", "RollingOut", message)


def _summary(ready: Finding) -> dict[str, Finding]:
    """Return the three conditions that kstatus reads."""
    working = ready.status != "True" and not ready.stalled
    idle = Finding("False", "Idle", "Nothing is being changed.")
    moving = Finding("False", "NotStalled", "Nothing is wrong that waiting cannot mend.")
    return {
        "Ready": ready,
        "Reconciling": replace(ready, status="True") if working else idle,
        "Stalled": replace(ready, status="True") if ready.stalled else moving,
    }


def _counts(view: _View, findings: dict[str, Finding]) -> dict[str, Any]:
    served = {
        "state": _state(findings),
        "replicas": view.spec.min_replicas,
        "ready": view.ready,
        "endpoint": view.endpoint,
    }
    versions = [
        {"version": version.version, "digest": version.digest}
        | (served if version.version == view.version else {"state": "NotServed"})
        for version in view.spec.versions
    ]
    return {"versions": versions, "readyReplicas": view.ready}


def _state(findings: dict[str, Finding]) -> str:
    if findings["Stalled"].status == "True":
        return "Failed"
    if findings["TrafficReady"].status == "True":
        return "Serving"
    stages = {"Scheduled": "Waiting", "ArtifactVerified": "Staging", "Loaded": "Loading"}
    return next((state for step, state in stages.items() if findings[step].status != "True"), "Testing")


def _status(observed: Observed, findings: dict[str, Finding], *, now: str) -> dict[str, Any]:
    before = {condition["type"]: condition for condition in observed.status.get("conditions", [])}
    conditions = [
        {
            "type": kind,
            "status": finding.status,
            "observedGeneration": observed.generation,
            "lastTransitionTime": _since(before.get(kind), finding, now),
            "reason": finding.reason,
            "message": finding.message,
        }
        for kind, finding in findings.items()
    ]
    status: dict[str, Any] = {"observedGeneration": observed.generation, "conditions": conditions}
    failure = _last_failure(observed, findings["Ready"], now)
    return status | ({"lastFailure": failure} if failure else {})


def _since(before: dict[str, Any] | None, finding: Finding, now: str) -> str:
    return str(before["lastTransitionTime"]) if before and before["status"] == finding.status else now


def _last_failure(observed: Observed, ready: Finding, now: str) -> dict[str, Any] | None:
    """Return the failure to remember: the one that is, or else the one that was."""
    before: dict[str, Any] | None = observed.status.get("lastFailure")
    if not ready.stalled and not ready.pod:
        return before
    if before and (before.get("reason"), before.get("message")) == (ready.reason, ready.message):
        return before
    failure = {"reason": ready.reason, "message": ready.message, "time": now}
    return failure | ({"pod": ready.pod} if ready.pod else {})
