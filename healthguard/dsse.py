"""
Signed statements as supply-chain tools write them: an in-toto statement in a DSSE envelope, signed with elliptic keys.

Nothing here needs more than `cryptography`, so that whoever puts a model in place can check there what vouches for it.

Source: the DSSE protocol 1.0.0 (secure-systems-lab/dsse) and the in-toto attestation framework's Statement v1.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
KEY_BYTES_MAX = 16 * 1024
SIGNATURES_MAX = 16

HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


class KeyRefused(Exception):
    """A file is not a PEM key on a NIST curve, or its password is wrong."""


class NotSigned(Exception):
    """
    An envelope holds nothing that a trusted key has signed.

    NoEnvelope: it is none. Unsigned: nobody signed it. NotTrusted: none of those who did is trusted.
    """


class NoEnvelope(NotSigned):
    """It is no DSSE envelope."""


class Unsigned(NotSigned):
    """Nobody signed it."""


class NotTrusted(NotSigned):
    """None of the signatures is by a trusted key."""


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
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in HASHES:
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
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in HASHES:
        raise KeyRefused("only keys on P-256, P-384 and P-521 are known")
    return key


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key's DER form, in hexadecimal."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def sealed(payload: bytes, key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """Return an envelope with *payload*, a statement as JSON, signed."""
    public = key.public_key()
    signature = key.sign(encoded(PAYLOAD_TYPE, payload), ec.ECDSA(HASHES[public.curve.name]))
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id(public), "sig": base64.b64encode(signature).decode()}],
    }


def opened(envelope: Any, trusted: Sequence[ec.EllipticCurvePublicKey]) -> bytes:
    """
    Return the statement in *envelope*, if a trusted key has signed it; who else did does not matter.

    Raises:
        NotSigned: none has; its subclasses say in which way.
    """
    try:
        signatures = [base64.b64decode(each["sig"], validate=True) for each in envelope["signatures"][:SIGNATURES_MAX]]
        # The type is part of what is signed, and is not read from here: another one makes a wrong signature.
        payload = base64.b64decode(envelope["payload"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise NoEnvelope("this is no DSSE envelope with an in-toto statement") from error
    if not signatures:
        raise Unsigned("nobody signed it")
    signed = encoded(PAYLOAD_TYPE, payload)
    if not any(_is_by(key, signature, signed) for key in trusted for signature in signatures):
        raise NotTrusted("it is not signed by a trusted key")
    return payload


def encoded(kind: str, payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding of type and payload."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def _is_by(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed, ec.ECDSA(HASHES[key.curve.name]))
    except InvalidSignature:
        return False
    return True
