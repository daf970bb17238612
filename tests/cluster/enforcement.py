"""
Enforce network policies on the node: read the cluster's objects twice a second, and load the rules that follow from
them.

Reading again and again instead of watching costs a few milliseconds on one node, and cannot miss anything. The rules
are in table mangle, before those of kube-proxy, which accepts what it forwards without asking anybody.
"""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.cluster import api, policies

_EVERY_S = 0.5
_HOOKS = ("FORWARD", "INPUT")
"""Between pods, and from a pod to the node; what the node sends to a pod passes neither."""


def run(pki: Path) -> None:
    """Enforce until killed, as the user whose certificate is in *pki*."""
    loaded: list[str] = []
    with api.connect(pki, "policies") as client:
        while True:
            wanted = _wanted(client)
            if wanted is not None and wanted != loaded:
                _load(loaded, wanted)
                loaded = wanted
            time.sleep(_EVERY_S)


def _wanted(client: httpx.Client) -> list[str] | None:
    """Return the rules for what the cluster holds now, or None where it cannot be read: the old rules then stay."""
    try:
        found = [
            api.items(client, path)
            for path in ("api/v1/pods", "api/v1/namespaces", "apis/networking.k8s.io/v1/networkpolicies")
        ]
    except httpx.HTTPError:
        return None
    namespaces = {item["metadata"]["name"]: item["metadata"].get("labels", {}) for item in found[1]}
    return policies.rules(found[2], policies.pods(found[0]), namespaces)


def _load(before: Sequence[str], after: Sequence[str]) -> None:
    stale = sorted(policies.chains(before) - policies.chains(after))
    # One transaction: at no moment is a pod without its rules, nor the table without its chains.
    hooks = [] if before else [f"-I {hook} -j {policies.MAIN}" for hook in _HOOKS]
    lines = [*after, *hooks, *(f"-F {chain}" for chain in stale), *(f"-X {chain}" for chain in stale)]
    text = "\n".join(["*mangle", *lines, "COMMIT", ""])
    subprocess.run(["iptables-restore", "--noflush", "--wait"], input=text, text=True, check=True)
