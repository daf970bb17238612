"""
Write down what was found: the conditions of a ServedModel, the measured split, and the last failure. Pure.

The conditions, in the order of a pod's life. Those of the steps tell of the version that is furthest from serving:

    Scheduled          nodes take the pods (GPUs!)
    ArtifactVerified   the stager found every byte as the digest says
    Approved           somebody who may has signed that it may be used; only where that is asked for
    Loaded             the server has the version AVAILABLE
    GoldenTestPassed   the server answers the golden cases as measured
    TrafficReady       at least one pod of the version that answers takes requests
    VersionsServed     all versions in traffic take requests, not only the one that answers
    RolloutBlocked     no device is free for a new version, so it is not begun
    Autoscaled         an autoscaler decides how many pods there are; only where that is asked for
    Ready              the newest spec is served by as many pods as asked for, and no version on trial is under way
    Reconciling        it is being brought about; wait
    Stalled            it will not come about by waiting

The last three mean what kstatus says, so that `helm --wait` and `kubectl wait` are right.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from serving.operator.findings import Finding
from serving.operator.observe import Child, Observed

KINDS = (
    *("Scheduled", "ArtifactVerified", "Approved", "Loaded", "GoldenTestPassed"),
    *("TrafficReady", "VersionsServed", "RolloutBlocked", "Autoscaled", "Ready", "Reconciling", "Stalled"),
)
"""The conditions by name."""

_SPLIT_TOLD = 2.0
"""Percent points by which the measured split must have moved to be told again: each telling wakes every watcher."""


def summary(ready: Finding) -> dict[str, Finding]:
    """Return the three conditions that kstatus reads."""
    working = ready.status != "True" and not ready.stalled
    idle = Finding("False", "Idle", "Nothing is being changed.")
    moving = Finding("False", "NotStalled", "Nothing is wrong that waiting cannot mend.")
    return {
        "Ready": ready,
        "Reconciling": replace(ready, status="True") if working else idle,
        "Stalled": replace(ready, status="True") if ready.stalled else moving,
    }


def worst(steps: Iterable[dict[str, Finding]]) -> dict[str, Finding]:
    """Return for each step what is so of the version that is furthest from having done it; the first one at a tie."""
    found: dict[str, Finding] = {}
    for of_version in steps:
        for kind, finding in of_version.items():
            if kind not in found or order(finding) < order(found[kind]):
                found[kind] = finding
    return found


def order(found: Finding) -> tuple[int, bool]:
    """Return what the worse of two findings is the smaller by; what is tolerated hides no failure that is not."""
    return ("False", "Unknown", "True").index(found.status), found.tolerated


def name_taken(foreign: Sequence[Child]) -> Finding:
    """Return that a name which we need belongs to somebody else."""
    names = ", ".join(f"{child.kind} {child.name}" for child in foreign)
    return Finding(
        "False",
        "NameTaken",
        f"Nothing was changed: {names} exists and belongs to somebody else. Remove it, or name the model otherwise.",
        stalled=True,
    )


def write(observed: Observed, findings: Mapping[str, Finding], *, now: str) -> dict[str, Any]:
    """Return the conditions and the last failure, as the status has them."""
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
    failure = _last_failure(observed, findings, now)
    return status | ({"lastFailure": failure} if failure else {})


def _since(before: dict[str, Any] | None, finding: Finding, now: str) -> str:
    return str(before["lastTransitionTime"]) if before and before["status"] == finding.status else now


def _last_failure(observed: Observed, findings: Mapping[str, Finding], now: str) -> dict[str, Any] | None:
    """Return the failure to remember: the one that is, or else the one that was."""
    before: dict[str, Any] | None = observed.status.get("lastFailure")
    found = min((found for found in findings.values() if found.failed), key=order, default=None)
    if found is None:
        return before
    if before and (before.get("reason"), before.get("version", 0)) == (found.reason, found.version):
        return before
    failure = {"reason": found.reason, "message": found.message, "time": now}
    more = {"pod": found.pod, "version": found.version}
    return failure | {key: value for key, value in more.items() if value}


def split(observed: Observed, measured: Mapping[int, float] | None, versions: Iterable[int]) -> list[dict[str, Any]]:
    """
    Return the measured split of the requests, as the status has it; what was told last while there is no news.

    Args:
        measured: percent by version; None: nobody asked anything lately, or no gateway could be asked.
        versions: those that are served; of others nothing is told.
    """
    told = {int(each["version"]): float(each["percent"]) for each in observed.status.get("traffic", [])}
    told = {version: percent for version, percent in told.items() if version in versions}
    if measured is not None:
        moved = any(abs(told.get(version, -100.0) - percent) >= _SPLIT_TOLD for version, percent in measured.items())
        told = {version: round(percent, 1) for version, percent in measured.items()} if moved else told
    return [{"version": version, "percent": told[version]} for version in sorted(told)]
