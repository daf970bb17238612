"""
The rights that the operator needs, each with its need: `python -m serving.operator.rbac` writes them as YAML.

By default they are a Role of one namespace; with --cluster-wide a ClusterRole with the same rules.
"""

import sys
from dataclasses import dataclass
from typing import Any

import yaml

from serving.operator.spec import GROUP, PLURAL

NAME = "healthguard-operator"


@dataclass(frozen=True)
class Rule:
    """One rule, and what it is needed for."""

    need: str
    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]

    @property
    def manifest(self) -> dict[str, Any]:
        """The rule in Kubernetes' words."""
        return {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}


_MAKE = ("get", "list", "create", "patch", "delete")

RULES = (
    Rule("Read what is to be served, and hear of changes.", GROUP, (PLURAL,), ("get", "list", "watch")),
    Rule("Tell what is so.", GROUP, (f"{PLURAL}/status",), ("patch",)),
    Rule("Run one Deployment per served version, hear how it goes, remove that of a version no longer served.",
         "apps", ("deployments",), (*_MAKE, "watch")),
    Rule("See why a model pod is not ready: its conditions and its containers' last words.",
         "", ("pods",), ("list", "watch")),
    Rule("Name the pods of a version, and give its server its configuration.", "", ("services", "configmaps"), _MAKE),
    Rule("Let only gateways reach model pods.", "networking.k8s.io", ("networkpolicies",), _MAKE),
    Rule("Keep a drained node from taking all pods of a version.", "policy", ("poddisruptionbudgets",), _MAKE),
    Rule("Have as many pods as there is to do, and see where a signal for that is lost.",
         "autoscaling", ("horizontalpodautoscalers",), _MAKE),
    Rule("Find the gateways, which have measured how a version does.",
         "discovery.k8s.io", ("endpointslices",), ("list",)),
    Rule("Tell how it came to be so.", "events.k8s.io", ("events",), ("create", "patch")),
)  # fmt: skip

DEVICES = (
    Rule("See which devices nodes have, and whether a new pod would find one.", "", ("nodes",), ("list",)),
    Rule("See which pods hold devices, of whomever.", "", ("pods",), ("list",)),
)
"""For the whole cluster, and only where a person grants it: without them a rollout begins and waits for a GPU."""


def role(*, cluster_wide: bool) -> dict[str, Any]:
    """Return the Role or ClusterRole."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole" if cluster_wide else "Role",
        "metadata": {"name": NAME},
        "rules": [rule.manifest for rule in RULES],
    }


def text(*, cluster_wide: bool) -> str:
    """Return the role as YAML, a comment before each rule."""
    head = {key: value for key, value in role(cluster_wide=cluster_wide).items() if key != "rules"}
    note = "# Made by `python -m serving.operator.rbac`; a test holds them equal.\n"
    rules = "".join(f"  # {rule.need}\n  - {_line(rule.manifest)}\n" for rule in RULES)
    return note + yaml.safe_dump(head, sort_keys=False) + "rules:\n" + rules


def _line(manifest: dict[str, Any]) -> str:
    return yaml.safe_dump(manifest, sort_keys=False, default_flow_style=True, width=200).strip()


if __name__ == "__main__":
    sys.stdout.write(text(cluster_wide="--cluster-wide" in sys.argv[1:]))
