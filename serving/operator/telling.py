"""
Tell what was decided about a ServedModel: its status, word for word. Pure.

What `kubectl get`, `kubectl describe`, `kubectl wait` and the gateways read.
"""

from dataclasses import replace
from typing import Any

from serving.operator import conditions, findings, hpa
from serving.operator.decision import Case, in_traffic
from serving.operator.findings import Finding
from serving.operator.gateways import Look


def status(case: Case, look: Look, now: str, *, seen: bool) -> dict[str, Any]:
    """
    Return the whole status.

    Args:
        now: the time, RFC 3339.
        seen: whether somebody could look which devices are free.
    """
    told = _findings(case, seen=seen)
    made = conditions.write(case.observed, told, now=now)
    answering = case.views.get(case.answering)
    made |= {
        "answering": case.answering,
        "versions": _versions(case),
        "readyReplicas": answering.ready if answering else 0,
    }
    split = conditions.split(case.observed, look.traffic, case.views.keys())
    if split:
        made["traffic"] = split
    if case.state is not None:
        made["rollout"] = case.state.status()
    return made


def _findings(case: Case, *, seen: bool) -> dict[str, Finding]:
    begun = [number for number in case.sizes.pods if number not in case.sizes.blocked or case.views[number].pods]
    told = conditions.worst([case.steps[number] for number in begun] or [case.steps[case.asked.stable]])
    told |= {
        "TrafficReady": _traffic(case),
        "VersionsServed": _served(case),
        "RolloutBlocked": _blocked(case, seen=seen),
    }
    if case.spec.autoscaling is not None:
        told["Autoscaled"] = _autoscaled(case)
    return told | conditions.summary(_ready(case))


def _traffic(case: Case) -> Finding:
    view = case.views.get(case.answering)
    if view is not None and view.ready:
        pods = "1 pod takes" if view.ready == 1 else f"{view.ready} pods take"
        return Finding("True", "EndpointsReady", f"{pods} requests for version {view.version} at {view.endpoint}.")
    return Finding("False", "NoReadyPods", f"No pod takes requests for version {case.answering}.")


def _served(case: Case) -> Finding:
    asked = in_traffic(case.spec)
    away = [str(number) for number in asked if not case.views[number].ready]
    listed = ", ".join(str(number) for number in asked)
    if not away:
        return Finding("True", "AllServed", f"All versions in traffic take requests: {listed}.")
    message = f"In traffic are versions {listed}; these take no requests: {', '.join(away)}."
    return Finding("False", "NotAllServed", message)


def _blocked(case: Case, *, seen: bool) -> Finding:
    for found in case.sizes.blocked.values():
        return replace(found, status="True")
    if case.spec.gpus and not seen:
        message = (
            "Whether devices are free is not looked at: the operator may not list nodes and pods of the whole cluster. "
            "A new version is begun, and waits where none is free. The chart's operator.seeDevices lets it look."
        )
        return Finding("Unknown", "DevicesNotSeen", message)
    return Finding("False", "NotBlocked", "No version waits for a device to become free.")


def _autoscaled(case: Case) -> Finding:
    if not case.asked.scales:
        message = (
            "There is no signal to scale by: the operator was installed without a source of metrics, and the pods ask "
            f"for no CPUs. There are as many pods as spec.minReplicas says: {case.spec.min_replicas}."
        )
        return Finding("False", "NoSignal", message)
    status, reason, message = hpa.finding(case.observed.autoscalers.get(case.answering))
    return Finding(status, reason, message)


def _ready(case: Case) -> Finding:
    """Return whether the spec is served as asked for, and no version on trial is under way."""
    for found in case.sizes.blocked.values():
        return replace(found, stalled=True)
    state = case.state
    if state is not None and state.phase == "RolledBack":
        return Finding("False", state.reason, state.message, stalled=True, version=state.version)
    on_trial = case.asked.wish.version if case.asked.wish else None
    for number in case.sizes.pods:
        found = findings.served(case.views[number], case.steps[number].values())
        if found.status != "True" and (number != on_trial or _settled(case)):
            return found
    if state is not None and not _settled(case):
        return Finding("False", state.reason, state.message, version=state.version)
    if state is not None:
        return Finding("True", state.reason, state.message)
    return findings.served(case.views[case.asked.stable], case.steps[case.asked.stable].values())


def _settled(case: Case) -> bool:
    """Tell whether nothing but a person's word, or another spec, moves the version on trial."""
    return case.state is not None and (case.state.over or case.state.reason == "WaitingForPromotion")


def _versions(case: Case) -> list[dict[str, Any]]:
    digests = {version.version: version.digest for version in case.spec.versions}
    return [_version(case, number, digests.get(number)) for number in sorted(digests.keys() | case.views.keys())]


def _version(case: Case, number: int, digest: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"version": number} | ({"digest": digest} if digest else {})
    view, blocked = case.views.get(number), case.sizes.blocked.get(number)
    state = case.state if case.state is not None and case.state.version == number else None
    if state is not None and state.phase == "RolledBack":
        word = "NotServed" if state.reason == "Aborted" else "Failed"
        return entry | {"state": word, "replicas": 0, "ready": view.ready if view else 0, "message": state.message}
    if view is None or (number not in case.sizes.pods and not view.ready):
        return entry | {"state": "NotServed"}
    entry |= {"replicas": view.wanted, "ready": view.ready, "endpoint": view.endpoint}
    if number not in case.sizes.pods:
        kept = view.deployment.wanted if view.deployment else view.ready
        return entry | {"state": "Serving", "replicas": kept, "message": "It serves until its successor is complete."}
    if blocked is not None and not view.ready:
        return entry | {"state": "Blocked", "replicas": 0, "message": blocked.message}
    steps = case.steps[number]
    word = findings.state(view, steps)
    undone = [found for found in steps.values() if found.status != "True"]
    bad = min(undone, key=conditions.order, default=None)
    return entry | {"state": word} | ({"message": bad.message} if bad else {})
