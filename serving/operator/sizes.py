"""
Which versions have pods, and how many: the part of the plan about numbers. Pure.

The stable version has as many as the spec asks for, or as an autoscaler has decided. A version on trial has its share
of that, sized for the share that it will get next. A version that was taken back has none. The version before the
stable one keeps what it has until its successor is complete.

Where every device (GPU) is taken, a new version cannot come beside the old one: it is refused before it starts, or the
two change places one pod at a time, as the spec says.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from serving.operator import hpa, rollout
from serving.operator.findings import Finding
from serving.operator.manifests import Size, child_name
from serving.operator.observe import Deployment, Observed
from serving.operator.rollout import RolloutWish
from serving.operator.rollout_status import RolloutState
from serving.operator.settings import OperatorSettings
from serving.operator.spec import ServedModelSpec


@dataclass(frozen=True)
class Asked:
    """One ServedModel, as the questions about numbers need it."""

    spec: ServedModelSpec
    observed: Observed
    settings: OperatorSettings
    wish: RolloutWish | None
    room: int | None
    """How many more pods find their devices free; None: it asks for none, or nobody may look."""

    @property
    def stable(self) -> int:
        """The version that the spec wants to answer."""
        return self.spec.traffic.stable

    @property
    def answering(self) -> int:
        """The version that answers by the status, which gateways obey."""
        told = self.observed.status.get("answering")
        return self._found_answering if told is None else int(told)

    @property
    def _found_answering(self) -> int:
        """The version that answers where no status says it: an operator before this one wrote none."""
        serving = {pod.version for pod in self.observed.pods if pod.ready} - self.on_trial
        return self.stable if self.stable in serving or not serving else max(serving)

    @property
    def on_trial(self) -> set[int]:
        """The versions in traffic besides the stable one."""
        traffic = self.spec.traffic
        return {part.version for part in (traffic.canary, traffic.shadow) if part is not None}

    @property
    def scales(self) -> bool:
        """Whether an autoscaler decides how many pods answer."""
        name = child_name(self.observed.owner.name, self.stable)
        owner = self.observed.owner
        return hpa.autoscaler(name, owner.name, owner.namespace, self.spec, self.settings) is not None

    @property
    def full(self) -> int:
        """How many pods it takes to answer all requests."""
        least, most = self.spec.min_replicas, self.spec.max_replicas or self.spec.min_replicas
        now = self.observed.deployment(self.answering)
        return min(max(least, now.wanted), most) if self.scales and now is not None else least

    @property
    def recreates(self) -> bool:
        """Whether a pod may go before its successor comes."""
        return self.spec.rollout is not None and self.spec.rollout.when_no_device == "Recreate"


@dataclass(frozen=True)
class Sizes:
    """What is decided about numbers."""

    pods: Mapping[int, int]
    """By version, of all that are served."""
    blocked: Mapping[int, Finding]
    """Versions whose pods are not made, or not replaced, and why."""
    shrink: Mapping[int, int]
    """Versions that make room for their successor, and how many pods they keep."""


def decide(asked: Asked, state: RolloutState | None, *, hold: bool = False) -> Sizes:
    """
    Return which versions have pods, and how many.

    Args:
        hold: whether the version before the stable one keeps what it has, since its successor fails.
    """
    wanted = {asked.stable: asked.full} | _on_trial(asked, state)
    if state is not None and state.phase == "Promoted":
        # As large as the one that answers has become, and never smaller than it is: a person's abort finds it whole.
        before = asked.observed.deployment(asked.stable)
        wanted[asked.stable] = max(asked.full, before.wanted if before else 0)
    blocked = {version: found for version in wanted if (found := _obstacle(asked, version, wanted[version]))}
    shrink: dict[int, int] = {}
    if _swaps(asked, wanted[asked.stable]):
        blocked.pop(asked.stable, None)
        wanted[asked.stable], shrink = _swapped(asked, wanted[asked.stable], hold=hold)
    return Sizes(wanted, blocked, shrink)


def _on_trial(asked: Asked, state: RolloutState | None) -> dict[int, int]:
    canary, shadow = asked.spec.traffic.canary, asked.spec.traffic.shadow
    wanted: dict[int, int] = {}
    refused = state.version if state is not None and state.phase == "RolledBack" else None
    if shadow is not None and shadow.version != refused:
        wanted[shadow.version] = rollout.replicas_for(shadow.percent, asked.full)
    if canary is not None and canary.version != refused:
        if asked.wish is not None and state is not None:
            pods = rollout.replicas(asked.wish, state, asked.full)
        else:
            pods = rollout.replicas_for(canary.percent or 0, asked.full)
        wanted[canary.version] = max(pods, wanted.get(canary.version, 0))
    return wanted


def size(asked: Asked, sizes: Sizes, version: int, answering: int) -> Size:
    """Return how many pods a version's Deployment is to name, and how they are replaced."""
    pods, deployment = sizes.pods[version], asked.observed.deployment(version)
    scaled = asked.scales and version == answering
    surge = not (asked.room == 0 and (asked.recreates or not _serves(asked, version)))
    if not scaled:
        return Size(pods, surge=surge)
    if deployment is None:
        return Size(pods, scaled=True, surge=surge)
    # Left out once the autoscaler has written it. Before that it is ours alone: left out, it would fall back to 1.
    least = max(asked.spec.min_replicas, pods, deployment.wanted)
    return Size(least if deployment.ours else None, scaled=True, surge=surge)


# ---- devices


def _obstacle(asked: Asked, version: int, pods: int) -> Finding | None:
    """Return why the pods of a version are not begun, if so."""
    if asked.room is None:
        return None
    deployment = asked.observed.deployment(version)
    if deployment is None:
        beside = any(pod.ready for pod in asked.observed.pods)
        return _no_device(asked, version, pods) if beside and asked.room < pods else None
    return None


def rolling(asked: Asked, version: int, revision: str) -> Finding | None:
    """Return why the pods of a version may not be replaced by those of a newer *revision*, if so."""
    deployment = asked.observed.deployment(version)
    if asked.room is None or asked.room > 0 or deployment is None or deployment.revision == revision:
        return None
    if asked.recreates or not _serves(asked, version):
        return None
    return _no_device(asked, version, 1)


def _no_device(asked: Asked, version: int, pods: int) -> Finding:
    devices = ", ".join(f"{name}: {amount}" for name, amount in asked.spec.gpus.items())
    needs = "1 more pod" if pods == 1 else f"{pods} more pods"
    room = f"{asked.room} of them find" if asked.room else "none finds"
    message = (
        f"Version {version} is not begun, and nothing was changed: it needs {needs} with {devices} each, and {room} "
        "that free on a node. Free some, add a node, or set spec.rollout.whenNoDevice to Recreate, which takes pods "
        "of the version before away first when traffic.stable moves."
    )
    return Finding("False", "NoDeviceFree", message, version=version)


def _serves(asked: Asked, version: int) -> bool:
    return any(pod.ready and pod.version == version for pod in asked.observed.pods)


def _swaps(asked: Asked, pods: int) -> bool:
    """Tell whether the stable version and the one before it change places one pod at a time."""
    if asked.room is None or not asked.recreates or asked.answering == asked.stable:
        return False
    return asked.observed.deployment(asked.answering) is not None and _placed(asked) + asked.room < pods


def _swapped(asked: Asked, pods: int, *, hold: bool) -> tuple[int, dict[int, int]]:
    """Return how many pods the stable version may have now, and how many the one before it keeps."""
    before = asked.observed.deployment(asked.answering)
    after = asked.observed.deployment(asked.stable) or Deployment(asked.stable, "", 0, settled=True)
    room = asked.room or 0
    kept = before.wanted if before else 0
    # One goes when all that may be there are: never more than one is missing.
    if not hold and room == 0 and kept > 0 and kept + after.available >= pods:
        kept -= 1
    return min(pods, max(after.wanted, _placed(asked) + room)), {asked.answering: kept}


def _placed(asked: Asked) -> int:
    """Return how many pods of the stable version are there with a device of their own, or are about to get one."""
    # Not what its Deployment asks for: a pod that is not made yet would be counted beside the device that it will take.
    return sum(pod.version == asked.stable and not pod.unschedulable for pod in asked.observed.pods)
