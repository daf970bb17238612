"""
Approve a version for use: a signed statement of who lets which bytes be used for what, and until when.

The statement is an in-toto statement in a DSSE envelope, as supply-chain tools write them, signed with an elliptic
key. It lies beside the version folder, because it names the digest of all that is in it. Nothing here needs more than
`cryptography`, so that whoever puts a version in place can check it there.

Source: the DSSE protocol 1.0.0 (secure-systems-lab/dsse) and the in-toto attestation framework's Statement v1.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:healthguard:approval:v1"
BYTES_MAX = 64 * 1024
KEY_BYTES_MAX = 16 * 1024
SIGNATURES_MAX = 16

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


class KeyRefused(Exception):
    """A file is not a PEM key on a NIST curve, or its password is wrong."""


class ApprovalRefused(Exception):
    """A version is not approved; the text says why."""


class NotTrusted(ApprovalRefused):
    """None of the signatures is by a trusted key."""


class Expired(ApprovalRefused):
    """The time of the approval is over, or has not begun."""


class OtherVersion(ApprovalRefused):
    """The approval is for other bytes."""


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


def public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """
    Read a public key.

    Raises:
        KeyRefused: it is none that we know.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRefused("this is no PEM public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise KeyRefused("only keys on P-256, P-384 and P-521 are known")
    return key


def private_key(pem: bytes, password: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """
    Read a private key.

    Raises:
        KeyRefused: it is none that we know, or its password is missing or wrong.
    """
    try:
        key = serialization.load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyRefused("this is no PEM private key, or its password is missing or wrong") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _HASHES:
        raise KeyRefused("only keys on P-256, P-384 and P-521 are known")
    return key


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key's DER form, in hexadecimal."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def sign(approval: Approval, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the signed statement, as JSON."""
    payload = json.dumps(_statement(approval), sort_keys=True).encode()
    public = key.public_key()
    signature = key.sign(_encoded(PAYLOAD_TYPE, payload), ec.ECDSA(_HASHES[public.curve.name]))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id(public), "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(envelope, indent=1).encode() + b"\n"


def _statement(approval: Approval) -> dict[str, Any]:
    return {
        "_type": STATEMENT_TYPE,
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


def verify(envelope: bytes, digest: str, trusted: Sequence[ec.EllipticCurvePublicKey], *, now: datetime) -> Approval:
    """
    Return the approval in *envelope*, if it is for the bytes with this *digest*, by a trusted key, and in force *now*.

    The signature comes first: nothing that an unknown hand wrote is read further than needed for that.

    Raises:
        ApprovalRefused: it is not; one of its subclasses says in which way.
    """
    payload, signatures = _opened(envelope)
    signed = _encoded(PAYLOAD_TYPE, payload)
    if not any(_is_by(key, signature, signed) for key in trusted for signature in signatures):
        raise NotTrusted("the approval is not signed by a trusted key")
    approval = _read(payload)
    if approval.digest != digest:
        raise OtherVersion(f"the approval is for the digest {approval.digest}, and this version has {digest}")
    if now >= approval.expires:
        raise Expired(f"the approval expired on {approval.expires.date().isoformat()}")
    if now < approval.approved:
        raise Expired(f"the approval is not in force before {approval.approved.isoformat()}")
    return approval


def _encoded(kind: str, payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding of type and payload."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def _opened(envelope: bytes) -> tuple[bytes, list[bytes]]:
    """Return the payload and the signatures of an envelope."""
    if len(envelope) > BYTES_MAX:
        raise Malformed(f"the approval is larger than {BYTES_MAX} bytes")
    try:
        document = json.loads(envelope)
        found = [base64.b64decode(each["sig"], validate=True) for each in document["signatures"][:SIGNATURES_MAX]]
        # The type is part of what is signed, and is not read from here: another one makes a wrong signature.
        return base64.b64decode(document["payload"], validate=True), found
    except (KeyError, TypeError, ValueError, RecursionError, binascii.Error) as error:
        raise Malformed("the approval is no DSSE envelope with an in-toto statement") from error


def _is_by(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed, ec.ECDSA(_HASHES[key.curve.name]))
    except InvalidSignature:
        return False
    return True


def _read(payload: bytes) -> Approval:
    try:
        statement = json.loads(payload)
        (subject,) = statement["subject"]
        predicate = statement["predicate"]
        _same((statement["_type"], statement["predicateType"]), (STATEMENT_TYPE, PREDICATE_TYPE))
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
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
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
