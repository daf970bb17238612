"""
What is so about one version's pods: a finding for each step of a pod's life. Pure.

Every reason and message goes word for word into a condition, where `kubectl describe` shows it: a message says what is
so and, where somebody has to act, what to do.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from serving.operator import expiry, failures
from serving.operator.observe import Container, Deployment, Pod
from serving.operator.spec import ServedModelSpec

RESTARTS_STALLED = 3
"""After so many restarts a container that fails is taken for one that will not succeed by waiting."""

_CANNOT_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_CANNOT_START = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})

_PROBER_DIED = "ProberFailed"
_OF_APPROVAL = ("Approval", "Signature", "KeyUnusable")
"""How the stager's reasons begin where the bytes are right, and nobody let them be used."""

Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Finding:
    """What is so about one condition."""

    status: Status
    reason: str
    message: str
    stalled: bool = False
    """Whether waiting will not help."""
    tolerated: bool = False
    """Whether the version is served all the same: it is told, and stops nothing."""
    pod: str = ""
    """The pod that failed, where one did."""
    version: int = 0
    """The version that it is about; 0: none of them in particular."""

    @property
    def failed(self) -> bool:
        """Whether something went wrong, rather than is waited for."""
        return self.status == "False" and (self.stalled or bool(self.pod))


@dataclass(frozen=True)
class View:
    """What the findings about one version need."""

    spec: ServedModelSpec
    version: int
    name: str
    """What its objects are called."""
    now: datetime
    answers: bool
    """Whether gateways were told that it answers: without it nobody would."""
    endpoint: str
    pods: tuple[Pod, ...]
    """The pods of the newest revision."""
    ready: int
    """Pods of this version that take requests, of any revision."""
    deployment: Deployment | None
    """The Deployment, where it already has the newest form."""
    wanted: int
    """Pods that it is to have."""


def steps(view: View) -> dict[str, Finding]:
    """Return the findings in the order of a pod's life, by condition."""
    found = {"Scheduled": _scheduled(view), "ArtifactVerified": _verified(view)}
    approved = _approved(view)
    if view.spec.approval.required or view.spec.approval.signature_required or approved.status == "False":
        found["Approved"] = approved
    found |= {"Loaded": _loaded(view), "GoldenTestPassed": _golden(view)}
    return {kind: replace(finding, version=view.version) for kind, finding in found.items()}


def spare(found: Mapping[str, Finding]) -> dict[str, Finding]:
    """Return the findings of a version that is kept for a person's abort alone: its approval's end stops nothing."""
    lost = {kind: finding for kind, finding in found.items() if kind == "Approved" and finding.status == "False"}
    return dict(found) | {kind: replace(finding, stalled=False, tolerated=True) for kind, finding in lost.items()}


def served(view: View, found: Iterable[Finding]) -> Finding:
    """Return whether the version is served as asked for; if not, the first step that is not done says why."""
    found = list(found)
    for step in found:
        if step.status == "False" and not step.tolerated:
            return step
    deployment, wanted = view.deployment, view.wanted
    if deployment and deployment.updated == deployment.available == deployment.total == wanted:
        pods = "1 pod serves" if wanted == 1 else f"{wanted} pods serve"
        return Finding("True", "Serving", f"{pods} version {view.version}.", version=view.version)
    for step in found:
        if step.status == "Unknown":
            return replace(step, status="False")
    available = deployment.available if deployment else 0
    message = f"{available} of {wanted} pods of version {view.version} are available in their newest form."
    return Finding("False", "RollingOut", message, version=view.version)


def state(view: View, found: dict[str, Finding]) -> str:
    """Return where a version stands, in one word of `status.versions`."""
    if view.ready:
        return "Serving"
    if any(finding.stalled for finding in found.values()):
        return "Failed"
    stages = {"Scheduled": "Waiting", "ArtifactVerified": "Staging", "Approved": "Staging", "Loaded": "Loading"}
    undone = {kind for kind, finding in found.items() if finding.status != "True" and not finding.tolerated}
    return next((word for step, word in stages.items() if step in undone), "Testing")


def _scheduled(view: View) -> Finding:
    if view.deployment and view.deployment.refused:
        message = f"Pods of version {view.version} may not be made: {view.deployment.refused}"
        return Finding("False", "PodsRefused", message, stalled=True)
    waiting = next((pod for pod in view.pods if pod.unschedulable), None)
    if waiting is not None:
        return _unschedulable(view, waiting)
    if not view.pods:
        return Finding("Unknown", "NoPods", f"No pod of version {view.version} was made yet.")
    return Finding("True", "Scheduled", f"All pods of version {view.version} have a node.")


def _unschedulable(view: View, pod: Pod) -> Finding:
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


def _verified(view: View) -> Finding:
    refused = _refused(view)
    if refused is not None and not refused.reason.startswith(_OF_APPROVAL):
        return refused
    stuck = _stuck(view, lambda pod: pod.stager, "stager")
    if stuck is not None:
        return stuck
    # Whether somebody let it be used is asked last, of bytes that are right.
    if refused is not None or any(pod.stager.succeeded for pod in view.pods):
        digest = view.spec.version(view.version).digest
        return Finding("True", "Verified", f"Every byte of version {view.version} is as {digest} says.")
    return Finding("Unknown", "Staging", f"Version {view.version} is not fetched and checked yet.")


def _approved(view: View) -> Finding:
    refused = _refused(view)
    if refused is not None and refused.reason.startswith(_OF_APPROVAL):
        return refused
    if not any(pod.stager.succeeded for pod in view.pods):
        return Finding("Unknown", "NotChecked", f"The approval of version {view.version} was not looked at yet.")
    until = approved_until(view)
    if until is not None and expiry.over_s(until, view.now) >= 0:
        return _expired(view, until)
    more = f", and approved until {_written(until)}" if until else ""
    return Finding("True", "Approved", f"Version {view.version} is signed by a key of spec.approval.trustedKeys{more}.")


def approved_until(view: View) -> datetime | None:
    """Return until when a version may be used by the newest approval that one of its stagers saw; None: none says."""
    told = (expiry.read(pod.stager.told) for pod in view.pods)
    return max((expires for expires in told if expires is not None), default=None)


def _expired(view: View, until: datetime) -> Finding:
    """Return what is so of a version that was let in, and may not be used any more."""
    pod = next(pod for pod in view.pods if expiry.read(pod.stager.told) == until)
    # Nobody is helped by a service that ends at midnight: whoever answers goes on. Nobody else may begin, or go on.
    now = (
        "it still answers, since nobody else would, but no pod of it can start any more"
        if view.answers
        else "it may not be used any more"
    )
    message = (
        f"The approval of version {view.version} expired at {_written(until)}: {now}. Serve another version, or "
        f"approve it again and start its pods anew: kubectl rollout restart deployment {view.name}."
    )
    return Finding("False", "ApprovalExpired", message, stalled=not view.answers, tolerated=view.answers, pod=pod.name)


def _written(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _refused(view: View) -> Finding | None:
    """Return why a stager refused the version, if one did."""
    failed = next((pod for pod in view.pods if pod.stager.ended and not pod.stager.succeeded), None)
    if failed is None:
        return None
    failure = failures.read(failed.stager.message, otherwise="StagerFailed")
    what = f"A pod of version {view.version} is not started" if view.ready else f"Version {view.version} is not served"
    message = f"{what}: {failure.message}."
    # A claim that is being filled, or a store that is away, is right at one of the next tries.
    stalled = failed.stager.restarts >= RESTARTS_STALLED
    return Finding("False", failure.reason, message, stalled=stalled, pod=failed.name)


def _loaded(view: View) -> Finding:
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


def _server_ended(view: View, pod: Pod) -> Finding:
    stalled = pod.server.restarts >= RESTARTS_STALLED
    times = f"{pod.server.restarts} times" if pod.server.restarts > 1 else "once"
    if pod.server.ended == "OOMKilled":
        message = f"The server of version {view.version} needed more memory than it may have: raise "
        return Finding("False", "OutOfMemory", message + "spec.resources.limits.memory.", stalled=stalled, pod=pod.name)
    failure = failures.read(pod.server.message, otherwise="LoadFailed")
    message = f"The server of version {view.version} ended by itself, {times}; its last words: {failure.message}"
    return Finding("False", "LoadFailed", message, stalled=stalled, pod=pod.name)


def _golden(view: View) -> Finding:
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


def _told(view: View, reason: str) -> Finding | None:
    """Return what a prober said before it ended, if it was for *reason*."""
    for pod in view.pods:
        if pod.prober.ended and not pod.ready:
            failure = failures.read(pod.prober.message, otherwise=_PROBER_DIED)
            if failure.reason == reason:
                message = f"Version {view.version} gets no requests: {failure.message}."
                return Finding("False", reason, message, stalled=True, pod=pod.name)
    return None


def _stuck(view: View, pick: Callable[[Pod], Container], name: str) -> Finding | None:
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
