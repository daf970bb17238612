"""
Decide about a ServedModel: how far each version is, who has how many pods, and who answers. Pure.

The version before the stable one answers until its successor is complete, so that no request finds nobody. Gateways
are told by `status.answering`; a version on trial has its share by `status.rollout`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from serving.operator import annotations, findings, rollout, sizes
from serving.operator.findings import Finding, View
from serving.operator.gateways import Look
from serving.operator.manifests import child_name, endpoint
from serving.operator.observe import Observed
from serving.operator.rollout import VersionState
from serving.operator.rollout_status import RolloutState
from serving.operator.sizes import Asked, Sizes
from serving.operator.spec import ServedModelSpec


@dataclass(frozen=True)
class Case:
    """One ServedModel at one moment, as far as it is decided."""

    asked: Asked
    views: Mapping[int, View]
    steps: Mapping[int, dict[str, Finding]]
    state: RolloutState | None
    sizes: Sizes
    answering: int

    @property
    def observed(self) -> Observed:
        """What was observed."""
        return self.asked.observed

    @property
    def spec(self) -> ServedModelSpec:
        """What is asked for."""
        return self.asked.spec


def in_traffic(spec: ServedModelSpec) -> list[int]:
    """Return the versions in traffic, the stable one first."""
    beside = [part.version for part in (spec.traffic.canary, spec.traffic.shadow) if part is not None]
    return list(dict.fromkeys([spec.traffic.stable, *beside]))


def decide(asked: Asked, revisions: Mapping[int, str], look: Look, now: datetime) -> Case:
    """
    Decide about one ServedModel.

    Args:
        revisions: what tells the newest form of each version's pods, by version; of all in traffic.
    """
    observed = asked.observed
    numbers = dict.fromkeys([*revisions, *(each.version for each in observed.deployments)])
    views = {number: _view(asked, number, revisions.get(number), now) for number in numbers}
    steps = {number: findings.steps(views[number]) for number in revisions}
    state = _rollout(asked, views, steps, look, now)
    if state is not None and state.phase == "Promoted":
        steps[asked.stable] = findings.spare(steps[asked.stable])
    decided = sizes.decide(asked, state, hold=_fails(steps[asked.stable]))
    rolling = {number: sizes.rolling(asked, number, revision) for number, revision in revisions.items()}
    blocked = dict(decided.blocked) | {number: found for number, found in rolling.items() if found is not None}
    decided = replace(decided, blocked=blocked)
    views |= {number: _sized(views[number], _wanted(asked, decided, number)) for number in decided.pods}
    return Case(asked, views, steps, state, decided, _answering(asked, views, steps, state, decided))


def _view(asked: Asked, number: int, revision: str | None, now: datetime) -> View:
    """Return what is seen of one version; without a revision any form of its pods is the newest."""
    pods = tuple(pod for pod in asked.observed.pods if pod.version == number)
    found = asked.observed.deployment(number)
    newest = found is not None and found.settled and revision in (None, found.revision)
    return View(
        spec=asked.spec,
        version=number,
        name=child_name(asked.observed.owner.name, number),
        now=now,
        answers=number == asked.answering,
        endpoint=endpoint(asked.observed.owner, number),
        pods=tuple(pod for pod in pods if revision in (None, pod.revision)),
        ready=sum(pod.ready for pod in pods),
        deployment=found if newest else None,
        wanted=asked.full,
    )


def _sized(view: View, wanted: int) -> View:
    """Return a view with the number of pods that there are to be; a Deployment that asks for another one is old."""
    found = view.deployment
    return replace(view, wanted=wanted, deployment=found if found and found.wanted == wanted else None)


def _wanted(asked: Asked, decided: Sizes, number: int) -> int:
    if decided.shrink and number == asked.stable:
        # It may have fewer for the moment, and is complete with all.
        return asked.full
    deployment = asked.observed.deployment(number)
    scaled = asked.scales and number == asked.answering and deployment is not None and not deployment.ours
    return deployment.wanted if scaled and deployment else decided.pods[number]


def _rollout(
    asked: Asked,
    views: Mapping[int, View],
    steps: Mapping[int, dict[str, Finding]],
    look: Look,
    now: datetime,
) -> RolloutState | None:
    """Return how far the version on trial is; None: there is none, or its share is the spec's own business."""
    wish = asked.wish
    if wish is None:
        return None
    before = RolloutState.read(asked.observed.status.get("rollout"))
    word = annotations.word_of(asked.observed.annotations)
    states = {number: _version_state(asked, views[number], steps[number]) for number in steps}
    state = rollout.decide(wish, before, states, look.measured, word=word, now=now)
    blocked = sizes.decide(asked, state).blocked.get(wish.version)
    if blocked is None:
        return state
    held = VersionState(wish.version, "Blocked", reason=blocked.reason, message=blocked.message)
    return rollout.decide(wish, before, states | {wish.version: held}, look.measured, word=word, now=now)


def _version_state(asked: Asked, view: View, steps: dict[str, Finding]) -> VersionState:
    bad = next((found for found in steps.values() if found.status != "True"), None)
    failed = next((found for found in steps.values() if found.stalled), None)
    told = failed or bad
    return VersionState(
        version=view.version,
        state=findings.state(view, steps),
        wanted=asked.full,
        ready=view.ready,
        failed=failed is not None,
        reason=told.reason if told else "",
        message=told.message if told else "",
    )


def _answering(
    asked: Asked,
    views: Mapping[int, View],
    steps: Mapping[int, dict[str, Finding]],
    state: RolloutState | None,
    decided: Sizes,
) -> int:
    """Return the version that answers what no version on trial does."""
    stable, before = asked.stable, asked.answering
    if state is not None and state.phase == "Promoted":
        return state.version
    old, new = views.get(before), views[stable]
    if old is None or (not old.ready and new.ready):
        # Nothing is lost. Where neither has a ready pod the one before stays named, and with that its pods: a moment
        # without readiness must not cost the only version that can answer.
        return stable
    if state is not None and state.version == before and new.ready:
        # It was promoted, and taken back: whoever is there answers better than it.
        return stable
    complete = findings.served(new, steps[stable].values()).status == "True"
    outgrown = _outgrown(asked, decided, old) and not _fails(steps[stable])
    return stable if complete or outgrown else before


def _fails(found: Mapping[str, Finding]) -> bool:
    """Tell whether pods of a successor failed: until that is mended the version before gives nothing more up for it."""
    return any(finding.failed for finding in found.values())


def _outgrown(asked: Asked, decided: Sizes, old: View) -> bool:
    """Tell whether the two versions change places pod by pod, and the stable one is the larger half by now."""
    deployment = asked.observed.deployment(asked.stable)
    # Of two equal halves the one that grows: the next pod of the other is about to go. Pods that gateways had no time
    # to hear of do not count.
    return asked.answering in decided.shrink and deployment is not None and deployment.available >= max(old.ready, 1)
