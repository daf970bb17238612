"""
What `kubectl describe` and event exporters show of a ServedModel: an Event for each turn of its Ready condition.

The conditions say how it is; events say how it came to be so, for as long as the API server keeps them.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from serving.operator.manifests import MANAGER, Manifest, Owner
from serving.operator.spec import API_VERSION, GROUP, KIND

NOTE_LENGTH_MAX = 1024
"""The API server refuses longer ones."""

Status = Mapping[str, Any]


def turn(owner: Owner, before: Status, after: Status, *, now: str, instance: str) -> Manifest | None:
    """
    Return the Event to write where Ready has taken another state or reason; none where it has not.

    Args:
        now: the time, RFC 3339, without a fraction.
        instance: the name of this operator's pod.
    """
    was, ready = _condition(before, "Ready"), _condition(after, "Ready")
    if (was.get("status"), was.get("reason")) == (ready["status"], ready["reason"]):
        return None
    lost = was.get("status") == "True" and ready["status"] != "True"
    bad = lost or _condition(after, "Stalled").get("status") == "True"
    told = f"{ready['reason']} {ready['message']} {now}"
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        # The same turn told twice, after a lost answer, is one Event.
        "metadata": {
            "name": f"{owner.name}.{hashlib.sha256(told.encode()).hexdigest()[:16]}",
            "namespace": owner.namespace,
        },
        "eventTime": now.replace("Z", ".000000Z"),
        "type": "Warning" if bad else "Normal",
        "reason": ready["reason"],
        "action": "Reconcile",
        "note": ready["message"][:NOTE_LENGTH_MAX],
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
