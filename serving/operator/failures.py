"""
How a container of a model pod tells the operator why it ended: a small JSON document as its termination message.

The kubelet carries it into the pod's status, so the operator needs no way to the pod and the pod none to the API.
"""

import json
from dataclasses import dataclass
from pathlib import Path

TERMINATION_LOG = Path("/dev/termination-log")
BYTES_MAX = 4096
"""The kubelet's own bound."""
_MESSAGE_LENGTH_MAX = 1000
_REASON_LENGTH_MAX = 64


@dataclass(frozen=True)
class Failure:
    """Why a container ended: a reason in one CamelCase word, and a sentence that says what to do."""

    reason: str
    message: str

    def write(self, path: Path = TERMINATION_LOG) -> None:
        """Leave the failure where the kubelet reads it; outside of a pod there is no such place, and nobody to read."""
        if path.exists():
            path.write_text(json.dumps({"reason": self.reason, "message": self.message[:_MESSAGE_LENGTH_MAX]}))


def read(text: str, *, otherwise: str) -> Failure:
    """
    Return the failure that a termination message holds.

    A message that is not ours (a log's last lines, or nothing) becomes the failure *otherwise* with that text.
    """
    try:
        document = json.loads(text[:BYTES_MAX])
        reason, message = document["reason"], document["message"]
    except (ValueError, KeyError, TypeError):
        return Failure(otherwise, _plain(text))
    if not isinstance(reason, str) or not reason.isalnum() or len(reason) > _REASON_LENGTH_MAX:
        return Failure(otherwise, _plain(str(message)))
    return Failure(reason, _plain(str(message)))


def _plain(text: str) -> str:
    """Keep the end of a text, in one line of printable characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[-_MESSAGE_LENGTH_MAX:] or "its container left no message"
