"""
What must hold across the fields of a ServedModel: in CEL for the API server, and in Python for objects that it let in.

The second is needed where the CRD is older than this code: Helm never upgrades one. A table test asks both the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.operator.spec import ServedModelSpec


@dataclass(frozen=True)
class Rule:
    """One rule; `message` tells a person what to do."""

    cel: str
    message: str
    holds: Callable[["ServedModelSpec"], bool]


def _listed(spec: "ServedModelSpec", part: str) -> bool:
    trial = getattr(spec.traffic, part)
    return trial is None or trial.version in spec.numbers


def _apart(spec: "ServedModelSpec", part: str) -> bool:
    trial = getattr(spec.traffic, part)
    return trial is None or trial.version != spec.traffic.stable


def _canary_has_a_share(spec: "ServedModelSpec") -> bool:
    canary = spec.traffic.canary
    return canary is None or spec.rollout is not None or canary.percent is not None


def _ceiling_is_said(spec: "ServedModelSpec") -> bool:
    canary, rollout = spec.traffic.canary, spec.rollout
    return canary is None or rollout is None or rollout.automatic or canary.percent is not None


def _steps_rise(spec: "ServedModelSpec") -> bool:
    return spec.rollout is None or spec.rollout.steps == sorted(set(spec.rollout.steps))


def _vouched(spec: "ServedModelSpec") -> bool:
    return spec.approval.required or spec.approval.signature_required


def _bounds_are_in_order(spec: "ServedModelSpec") -> bool:
    return spec.max_replicas is None or spec.max_replicas >= spec.min_replicas


RULES = (
    Rule(
        "self.versions.exists(v, v.version == self.traffic.stable)",
        "traffic.stable names a version that is not in versions: add it there",
        lambda spec: spec.traffic.stable in spec.numbers,
    ),
    Rule(
        "!has(self.traffic.canary) || self.versions.exists(v, v.version == self.traffic.canary.version)",
        "traffic.canary names a version that is not in versions: add it there",
        lambda spec: _listed(spec, "canary"),
    ),
    Rule(
        "!has(self.traffic.shadow) || self.versions.exists(v, v.version == self.traffic.shadow.version)",
        "traffic.shadow names a version that is not in versions: add it there",
        lambda spec: _listed(spec, "shadow"),
    ),
    Rule(
        "!has(self.traffic.canary) || self.traffic.canary.version != self.traffic.stable",
        "traffic.canary is the stable version: remove traffic.canary, or name another version in it",
        lambda spec: _apart(spec, "canary"),
    ),
    Rule(
        "!has(self.traffic.shadow) || self.traffic.shadow.version != self.traffic.stable",
        "traffic.shadow is the stable version: remove traffic.shadow, or name another version in it",
        lambda spec: _apart(spec, "shadow"),
    ),
    Rule(
        "!has(self.traffic.canary) || has(self.rollout) || has(self.traffic.canary.percent)",
        "traffic.canary has no share: set traffic.canary.percent, or rollout, whose steps decide it",
        _canary_has_a_share,
    ),
    Rule(
        "!has(self.traffic.canary) || !has(self.rollout) || self.rollout.automatic || has(self.traffic.canary.percent)",
        "rollout.automatic is false: set traffic.canary.percent, up to which the canary may go",
        _ceiling_is_said,
    ),
    Rule(
        "!has(self.rollout) || "
        "self.rollout.steps.isSorted() && self.rollout.steps.all(s, self.rollout.steps.exists_one(o, o == s))",
        "rollout.steps must rise, each share once: such as [5, 25, 50]; 100 follows by itself",
        _steps_rise,
    ),
    Rule(
        "!has(self.maxReplicas) || self.maxReplicas >= self.minReplicas",
        "maxReplicas is less than minReplicas: raise the one or lower the other",
        _bounds_are_in_order,
    ),
    Rule(
        "has(self.maxReplicas) == has(self.autoscaling)",
        "maxReplicas and autoscaling need each other: set both, or neither to serve with minReplicas pods always",
        lambda spec: (spec.max_replicas is None) == (spec.autoscaling is None),
    ),
    Rule(
        "!has(self.approval) || !(self.approval.required || self.approval.signatureRequired) || "
        "size(self.approval.trustedKeys) > 0",
        "approval.required and signatureRequired need approval.trustedKeys: the public keys of those whose word counts",
        lambda spec: not _vouched(spec) or bool(spec.approval.trusted_keys),
    ),
    Rule(
        "!has(self.approval) || !(self.approval.required || self.approval.signatureRequired) || "
        "self.versions.all(v, !v.storageUri.startsWith('oci://'))",
        "approval.required (or signatureRequired) and oci:// do not go together: nothing can lie beside an image",
        lambda spec: not _vouched(spec) or not any(each.storage_uri.startswith("oci://") for each in spec.versions),
    ),
)


def broken(spec: "ServedModelSpec") -> Rule | None:
    """Return the first rule that does not hold; none where all do."""
    return next((rule for rule in RULES if not rule.holds(spec)), None)
