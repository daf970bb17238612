"""
What `kubectl describe` and event exporters show of a ServedModel: an Event for each turn of Ready, of a rollout, and of
an approval.

The conditions say how it is; events say how it came to be so, for as long as the API server keeps them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.operator.manifests import MANAGER, Manifest, Owner
from serving.operator.spec import API_VERSION, GROUP, KIND

NOTE_LENGTH_MAX = 1024
"""The API server refuses longer ones."""

Status = Mapping[str, Any]


def turns(owner: Owner, before: Status, after: Status, *, now: str, instance: str) -> list[Manifest]:
    """
    Return the Events to write: where Ready took another state or reason, a rollout moved, an approval ended or is back.

    Args:
        now: the time, RFC 3339, without a fraction.
        instance: the name of this operator's pod.
    """
    found = [_of_rollout(before, after), _of_approval(before, after), _of_ready(before, after)]
    return [_event(owner, told, now=now, instance=instance) for told in found if told is not None]


@dataclass(frozen=True)
class _Told:
    reason: str
    message: str
    bad: bool


def _of_ready(before: Status, after: Status) -> _Told | None:
    was, ready = _condition(before, "Ready"), _condition(after, "Ready")
    if (was.get("status"), was.get("reason")) == (ready["status"], ready["reason"]):
        return None
    lost = was.get("status") == "True" and ready["status"] != "True"
    bad = lost or _condition(after, "Stalled").get("status") == "True"
    return _Told(ready["reason"], ready["message"], bad)


def _of_rollout(before: Status, after: Status) -> _Told | None:
    """Return a turn of the rollout: another phase, or another share of the requests."""
    was, rollout = before.get("rollout") or {}, after.get("rollout")
    moved = ("version", "phase", "canaryPercent")
    if rollout is None or [was.get(key) for key in moved] == [rollout[key] for key in moved]:
        return None
    return _Told(f"Rollout{rollout['phase']}", rollout["message"], rollout["phase"] in ("RolledBack", "Blocked"))


def _of_approval(before: Status, after: Status) -> _Told | None:
    """Return a turn of an approval between in force and not, which Ready does not tell: what serves goes on."""
    was, approved = _condition(before, "Approved"), _condition(after, "Approved")
    lost = approved.get("status") == "False"
    # Unknown is no turn: pods of a changed spec are not looked at yet.
    turned = lost != (was.get("status") == "False") and approved.get("status") in ("True", "False")
    if not turned or _condition(after, "Ready")["reason"] == approved["reason"]:
        return None
    return _Told(approved["reason"], approved["message"], bad=lost)


def _event(owner: Owner, told: _Told, *, now: str, instance: str) -> Manifest:
    text = f"{told.reason} {told.message} {now}"
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        # The same turn told twice, after a lost answer, is one Event.
        "metadata": {
            "name": f"{owner.name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}",
            "namespace": owner.namespace,
        },
        "eventTime": now.replace("Z", ".000000Z"),
        "type": "Warning" if told.bad else "Normal",
        "reason": told.reason,
        "action": "Reconcile",
        "note": told.message[:NOTE_LENGTH_MAX],
        "regarding": {
            "apiVersion": f"{GROUP}/{API_VERSION}",
            "kind": KIND,
            "name": owner.name,
            "namespace": owner.namespace,
            "uid": owner.uid,
        },
        "reportingController": f"{GROUP}/{MANAGER}",
        "reportingInstance": instance,
    }


def _condition(status: Status, kind: str) -> dict[str, Any]:
    return next((dict(found) for found in status.get("conditions", ()) if found["type"] == kind), {})
