"""
Approve a version for use: a signed statement of who lets which bytes be used for what, and until when.

The statement is an in-toto statement in a DSSE envelope. It lies beside the version folder, because it names the digest
of all that is in it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from healthguard import dsse

PREDICATE_TYPE = "urn:healthguard:approval:v1"
BYTES_MAX = 64 * 1024


class ApprovalRefused(Exception):
    """A version is not approved; the text says why."""


class NotTrusted(ApprovalRefused):
    """None of the signatures is by a trusted key."""


class Unsigned(ApprovalRefused):
    """Nobody signed it."""


class Expired(ApprovalRefused):
    """The time of the approval is over, or has not begun."""


class OtherVersion(ApprovalRefused):
    """The approval is for other bytes, or for a version of another name."""


class Malformed(ApprovalRefused):
    """The file is no approval."""


@dataclass(frozen=True)
class Approval:
    """What was signed: `digest` is "sha256:" and 64 hexadecimal digits; times are UTC."""

    model: str
    version: int
    digest: str
    intended_use: str
    signer: str
    approved: datetime
    expires: datetime


def beside(version_folder: Path) -> Path:
    """Return where the approval of a version lies: outside of the folder, whose bytes it vouches for."""
    return version_folder.with_name(f"{version_folder.name}.approval.json")


def sign(approval: Approval, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the signed statement, as JSON."""
    payload = json.dumps(_statement(approval), sort_keys=True).encode()
    return json.dumps(dsse.sealed(payload, key), indent=1).encode() + b"\n"


def _statement(approval: Approval) -> dict[str, Any]:
    return {
        "_type": dsse.STATEMENT_TYPE,
        "subject": [
            {
                "name": f"{approval.model}/{approval.version}",
                "digest": {"sha256": approval.digest.removeprefix("sha256:")},
            }
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "intendedUse": approval.intended_use,
            "signer": approval.signer,
            "approved": approval.approved.astimezone(UTC).isoformat(),
            "expires": approval.expires.astimezone(UTC).isoformat(),
        },
    }


def verify(
    envelope: bytes,
    digest: str,
    trusted: Sequence[ec.EllipticCurvePublicKey],
    *,
    now: datetime,
    named: tuple[str, int] | None,
) -> Approval:
    """
    Return the approval in *envelope*, if it is for the bytes with this *digest*, by a trusted key, and in force *now*.

    The signature comes first: nothing that an unknown hand wrote is read further than needed for that. The intended use
    is told and not judged: no program knows what an answer is used for.

    Args:
        named: the model and version as which it is used, which the approval has to name; None: it has no number yet.

    Raises:
        ApprovalRefused: it is not; one of its subclasses says in which way.
    """
    approval = _read(_opened(envelope, trusted))
    if approval.digest != digest:
        raise OtherVersion(f"the approval is for the digest {approval.digest}, and this version has {digest}")
    if named not in (None, (approval.model, approval.version)):
        raise OtherVersion(f"the approval is for {approval.model}/{approval.version}, and not for this version's name")
    if now >= approval.expires:
        raise Expired(f"the approval expired on {approval.expires.date().isoformat()}")
    if now < approval.approved:
        raise Expired(f"the approval is not in force before {approval.approved.isoformat()}")
    return approval


def _opened(envelope: bytes, trusted: Sequence[ec.EllipticCurvePublicKey]) -> bytes:
    """
    Return the statement in an envelope.

    Raises:
        ApprovalRefused: there is none, or nobody who is trusted has signed it.
    """
    if len(envelope) > BYTES_MAX:
        raise Malformed(f"the approval is larger than {BYTES_MAX} bytes")
    try:
        return dsse.opened(json.loads(envelope), trusted)
    except dsse.Unsigned as error:
        raise Unsigned("nobody signed the approval") from error
    except dsse.NotTrusted as error:
        raise NotTrusted("the approval is not signed by a trusted key") from error
    except (dsse.NoEnvelope, ValueError, RecursionError) as error:
        raise Malformed("the approval is no DSSE envelope with an in-toto statement") from error


def _read(payload: bytes) -> Approval:
    try:
        statement = json.loads(payload)
        (subject,) = statement["subject"]
        predicate = statement["predicate"]
        _same((statement["_type"], statement["predicateType"]), (dsse.STATEMENT_TYPE, PREDICATE_TYPE))
        model, _, version = subject["name"].partition("/")
        return Approval(
            model,
            int(version),
            f"sha256:{subject['digest']['sha256']}",
            str(predicate["intendedUse"]),
            str(predicate["signer"]),
            _time(predicate["approved"]),
            _time(predicate["expires"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Malformed("what is signed is no approval of a model version") from error


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise ValueError("type")


def _time(text: str) -> datetime:
    """Read a time; one without a zone could be read as hours earlier or later."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("zone")
    return found.astimezone(UTC)
