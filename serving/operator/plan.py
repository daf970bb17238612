"""
Plan: from a ServedModel and what was observed of it to what is to be done and what its status says. Pure.

It puts the decisions together, and each has a page of its own: `findings` (how far a version's pods are), `rollout`
(how far a version on trial is), `sizes` (who has how many pods), `decision` (who answers), `telling` and `conditions`
(how all of it is told). What is left here is what is written, and what may go: objects of a version go only when the
status that gateways obey has said before that it gets no requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from serving.operator import conditions, expiry, findings, hpa, rollout, sizes, telling
from serving.operator.decision import Case, decide, in_traffic
from serving.operator.devices import Devices
from serving.operator.drift import stands
from serving.operator.findings import Finding
from serving.operator.gateways import Look
from serving.operator.manifests import Manifest, children, revision_of
from serving.operator.observe import Child, Observed
from serving.operator.settings import OperatorSettings
from serving.operator.sizes import Asked
from serving.operator.spec import InvalidSpec, read
from serving.operator.storage import BadAddress

BLOCKED_S = 30.0
"""How often is looked whether a device has become free: nothing tells of it."""
GONE_S = 1.0
"""When to look again for what may go once the status is written."""
_TAKEN_S = 15.0


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order, and the status to write after it."""

    apply: tuple[Manifest, ...]
    delete: tuple[Child, ...]
    status: dict[str, Any]
    again_s: float | None = None
    """When to look again although nothing may be heard until then, seconds."""
    shrink: Mapping[str, int] = field(default_factory=dict)
    """Deployments that make room for their successor, by name, and how many pods they keep."""
    awaits_device: bool = False
    """Whether a device that becomes free changes what is to be done."""


def plan(
    observed: Observed,
    settings: OperatorSettings,
    *,
    now: str,
    certificate: str = "",
    look: Look | None = None,
    devices: Devices | None = None,
) -> Plan:
    """
    Decide what to do about one ServedModel.

    Args:
        now: the time, RFC 3339, for conditions that change.
        certificate: what tells the model servers' certificate from the one before.
        look: what the gateways measured; None: nobody asked them.
        devices: what the nodes have; None: nobody may look, or nothing asks for devices.
    """
    try:
        spec = read(observed.spec)
        revisions = {
            number: revision_of(children(observed.owner, spec, settings, certificate, version=spec.version(number)))
            for number in in_traffic(spec)
        }
    except (InvalidSpec, BadAddress) as error:
        finding = Finding("False", "InvalidSpec", f"Nothing was changed: {error}.", stalled=True)
        return _only(observed, finding, now)
    if observed.foreign:
        # It may be what an earlier model of this name left, and Kubernetes is about to remove.
        return replace(_only(observed, conditions.name_taken(observed.foreign), now), again_s=_TAKEN_S)
    asked = Asked(spec, observed, settings, rollout.wish_of(spec), devices.room(spec) if devices else None)
    case = decide(asked, revisions, look or Look(None, None), datetime.fromisoformat(now))
    made = _manifests(case, certificate)
    kept = _kept(case)
    gone = _gone(case, kept, made)
    status = telling.status(case, look or Look(None, None), now, seen=devices is not None)
    awaits = bool(case.sizes.blocked or case.sizes.shrink)
    return Plan(_changed(observed, made), gone, status, _again_s(case, kept), _shrink(case), awaits)


def refused(observed: Observed, plan: Plan, what: str, why: str, *, now: str) -> dict[str, Any]:
    """Return the status of a plan that could not be carried out because the API server refused *what*."""
    message = f"The API server refused {what}: {why}. The operator tries again by itself."
    finding = Finding("False", "ApplyRefused", message, stalled=True)
    told = conditions.write(observed, conditions.summary(finding), now=now)
    rest = {key: value for key, value in plan.status.items() if key not in _OBEYED}
    return rest | told | _careful(observed.status, plan.status)


_OBEYED = ("answering", "rollout")
"""What gateways obey in a status."""


def _careful(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what gateways are told where not all was done: nobody gets more requests, and a canary may get fewer."""
    told = {key: before[key] for key in _OBEYED if key in before}
    share = (before.get("rollout") or {}).get("canaryPercent", 0)
    fewer = "rollout" in after and after["rollout"]["canaryPercent"] <= share
    return told | ({"rollout": after["rollout"]} if fewer else {})


def _only(observed: Observed, finding: Finding, now: str) -> Plan:
    """Return the plan that changes nothing but the conditions."""
    told = conditions.write(observed, conditions.summary(finding), now=now)
    return Plan((), (), told | _careful(observed.status, {}))


# ---- what is to be done


def _manifests(case: Case, certificate: str) -> list[Manifest]:
    made: list[Manifest] = []
    for number in case.sizes.pods:
        if number in case.sizes.blocked:
            continue
        size = sizes.size(case.asked, case.sizes, number, case.answering)
        version = case.spec.version(number)
        owner, settings = case.observed.owner, case.asked.settings
        made += children(owner, case.spec, settings, certificate, version=version, size=size)
    return made


def _changed(observed: Observed, made: Sequence[Manifest]) -> tuple[Manifest, ...]:
    """Return what is not there yet, or not as it should be."""
    there = {(child.kind, child.name): child.found for child in observed.children}
    return tuple(
        manifest
        for manifest in made
        if not stands(manifest, there.get((manifest["kind"], manifest["metadata"]["name"]), {}))
    )


def _kept(case: Case) -> set[int]:
    """Return the versions whose objects stay although nothing asks for them any more."""
    written = case.observed.status.get("rollout") or {}
    reached = {int(written["version"])} if written.get("canaryPercent") else set()
    # What gateways were told last: they may still send there.
    reached |= {case.asked.answering, case.answering}
    return reached - case.sizes.pods.keys()


def _gone(case: Case, kept: set[int], made: Sequence[Manifest]) -> tuple[Child, ...]:
    needed = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in made}
    gone = [
        child
        for child in case.observed.children
        if (child.version not in kept and child.version not in case.sizes.pods)
        or ((child.kind, child.name) not in needed and _unscaled(case, child))
    ]
    # By its Deployment a version is found again, should this be interrupted.
    return tuple(sorted(gone, key=lambda child: child.kind == "Deployment"))


def _unscaled(case: Case, child: Child) -> bool:
    """Tell whether an object scales what is not to be scaled: pods of the version that answers are, written or not."""
    scaled = case.asked.scales and child.version == case.answering and child.version not in case.sizes.shrink
    return child.kind in hpa.kinds(case.asked.settings) and not scaled


def _shrink(case: Case) -> dict[str, int]:
    return {
        child.name: case.sizes.shrink[child.version]
        for child in case.observed.children
        if child.kind == "Deployment" and child.version in case.sizes.shrink
    }


def _again_s(case: Case, kept: set[int]) -> float | None:
    times = [rollout.look_again_s(case.state) if case.state else None]
    times += [BLOCKED_S if case.sizes.blocked or case.sizes.shrink else None]
    leaving = kept and case.answering not in kept and any(child.version in kept for child in case.observed.children)
    times += [GONE_S if leaving else None, _expires_s(case)]
    return min((time for time in times if time is not None), default=None)


def _expires_s(case: Case) -> float | None:
    """Return when the next approval is over, seconds; None: not before everything is looked at anyway."""
    ends = ((findings.approved_until(view), view.now) for view in case.views.values())
    left = (-expiry.over_s(until, now) for until, now in ends if until is not None)
    soon = (max(left_s, 1.0) for left_s in left if 0 < left_s <= 2 * case.asked.settings.resync_s)
    return min(soon, default=None)
