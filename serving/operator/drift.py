"""
Tell whether an object still is as it was applied, so that what needs no change costs no write. Pure.

The API server adds defaults, and others add fields of their own: what counts is that all of ours stand. A field that
we no longer name would stand, too: the digest of what was applied last, which the object carries, tells of those.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from serving.operator.spec import GROUP

APPLIED = f"{GROUP}/applied"
"""Annotation of all our objects: the digest of what was applied."""

Manifest = dict[str, Any]


def stamped(manifest: Manifest) -> Manifest:
    """Return the manifest with its own digest."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations", {}) | {APPLIED: digest}
    return manifest | {"metadata": metadata | {"annotations": annotations}}


def stands(manifest: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Tell whether an object that was found, as one of a list, has all that a stamped manifest says."""
    # Lists leave out of each item what they say of all.
    return _within({key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}, found)


def _within(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, Mapping):
        if not isinstance(theirs, Mapping):
            return False
        # What is empty is left out when the API server writes it.
        return all(_within(value, theirs[key]) if key in theirs else not value for key, value in ours.items())
    if isinstance(ours, list):
        return isinstance(theirs, list) and len(ours) == len(theirs) and all(map(_within, ours, theirs))
    # Quantities may come back as text. One in another notation is applied again each time, which changes nothing.
    return bool(ours == theirs or str(ours) == str(theirs))
