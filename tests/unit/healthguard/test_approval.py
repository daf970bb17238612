"""Approvals: what a trusted person signed holds for these bytes and until that day, and for nothing else."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from healthguard import approval, dsse
from healthguard.approval import Approval

DIGEST = "sha256:" + "ab" * 32
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
STATEMENT = Approval(
    "cancer", 3, DIGEST, "Second reading", "Dr A, radiology", NOW - timedelta(days=1), NOW + timedelta(days=30)
)
KEY = ec.generate_private_key(ec.SECP256R1())


def verify(envelope: bytes, digest: str = DIGEST, *, key: ec.EllipticCurvePrivateKey = KEY) -> Approval:
    """Verify with one trusted key, now."""
    return approval.verify(envelope, digest, [key.public_key()], now=NOW, named=("cancer", 3))


def changed(envelope: bytes, **members: Any) -> bytes:
    """Return an envelope with other members."""
    return json.dumps(json.loads(envelope) | members).encode()


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_approval_comes_out_as_it_was_signed(curve: ec.EllipticCurve) -> None:
    """Every curve that is allowed works, and nothing is lost on the way."""
    key = ec.generate_private_key(curve)
    assert verify(approval.sign(STATEMENT, key), key=key) == STATEMENT


def test_approval_by_any_trusted_key_is_enough() -> None:
    """Who is on the list may approve, whatever the place on it."""
    others = [ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(2)]
    found = approval.verify(approval.sign(STATEMENT, KEY), DIGEST, [*others, KEY.public_key()], now=NOW, named=None)
    assert found.signer == "Dr A, radiology"


def test_approval_by_another_key_is_refused() -> None:
    """A signature counts only by a key on the list."""
    with pytest.raises(approval.NotTrusted):
        verify(approval.sign(STATEMENT, ec.generate_private_key(ec.SECP256R1())))


def test_approval_without_trusted_keys_is_refused() -> None:
    """An empty list trusts nobody."""
    with pytest.raises(approval.NotTrusted):
        approval.verify(approval.sign(STATEMENT, KEY), DIGEST, [], now=NOW, named=None)


def test_approval_of_other_bytes_is_refused() -> None:
    """The digest is of all files: one changed byte, and nobody has approved it."""
    with pytest.raises(approval.OtherVersion, match="ab" * 32):
        verify(approval.sign(STATEMENT, KEY), "sha256:" + "cd" * 32)


@pytest.mark.parametrize("named", [("anemia", 3), ("cancer", 4)])
def test_approval_of_another_name_is_refused(named: tuple[str, int]) -> None:
    """The same bytes served as another model's, or under another number, are not what somebody approved."""
    with pytest.raises(approval.OtherVersion, match="cancer/3"):
        approval.verify(approval.sign(STATEMENT, KEY), DIGEST, [KEY.public_key()], now=NOW, named=named)


def test_approval_ends_on_its_day() -> None:
    """At the very moment of expiry it is over, and before it was given it was not there."""
    with pytest.raises(approval.Expired, match="2026-11-22"):
        verify(approval.sign(replace(STATEMENT, expires=NOW), KEY))
    with pytest.raises(approval.Expired):
        verify(approval.sign(replace(STATEMENT, approved=NOW + timedelta(seconds=1)), KEY))
    assert verify(approval.sign(replace(STATEMENT, expires=NOW + timedelta(microseconds=1)), KEY))


def test_changed_statement_is_refused() -> None:
    """Who makes the time longer breaks the signature."""
    envelope = approval.sign(STATEMENT, KEY)
    statement = base64.b64decode(json.loads(envelope)["payload"]).replace(b"2026-12", b"2036-12")
    with pytest.raises(approval.NotTrusted):
        verify(changed(envelope, payload=base64.b64encode(statement).decode()))


def test_signature_over_another_type_of_payload_is_refused() -> None:
    """The type is part of what is signed: a signature made for another purpose is none for this one."""
    payload = base64.b64decode(json.loads(approval.sign(STATEMENT, KEY))["payload"])
    for signed in (payload, b"DSSEv1 4 text %d %s" % (len(payload), payload)):
        signature = base64.b64encode(KEY.sign(signed, ec.ECDSA(dsse.HASHES["secp256r1"]))).decode()
        with pytest.raises(approval.NotTrusted):
            verify(changed(approval.sign(STATEMENT, KEY), signatures=[{"sig": signature}]))


def test_another_signed_statement_is_no_approval() -> None:
    """A trusted person also signs other things; those approve nothing."""
    for member in ("_type", "predicateType"):
        statement = approval._statement(STATEMENT) | {member: "https://example.org/other"}
        payload = json.dumps(statement).encode()
        signature = KEY.sign(dsse.encoded(dsse.PAYLOAD_TYPE, payload), ec.ECDSA(dsse.HASHES["secp256r1"]))
        envelope = {
            "payloadType": dsse.PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"sig": base64.b64encode(signature).decode()}],
        }
        with pytest.raises(approval.Malformed):
            verify(json.dumps(envelope).encode())


def test_time_after_the_end_of_the_calendar_is_refused() -> None:
    """West of Greenwich its last day ends in a year that there is not."""
    statement = approval._statement(STATEMENT)
    statement["predicate"]["expires"] = "9999-12-31T23:59:59-01:00"
    with pytest.raises(approval.Malformed):
        verify(json.dumps(dsse.sealed(json.dumps(statement).encode(), KEY)).encode())
    assert verify(approval.sign(replace(STATEMENT, expires=datetime.max.replace(tzinfo=UTC)), KEY))


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"payload": "e30=", "signatures": 1}',
        b'{"payload": "\xff", "signatures": []}',
        b'{"payload": "not base64!", "signatures": []}',
        b"[" * 100_000,
        b" " * (approval.BYTES_MAX + 1),
    ],
    ids=["nothing", "list", "null", "empty", "numbers", "not UTF-8", "not base64", "deep", "long"],
)
def test_what_is_no_envelope_is_refused(envelope: bytes) -> None:
    """Whatever lies in the file, the answer is a refusal."""
    with pytest.raises(approval.Malformed):
        verify(envelope)


def test_only_keys_on_nist_curves_are_read() -> None:
    """Another kind of key is refused by name, not used in some other way."""
    form, no_password = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    wrong = ed25519.Ed25519PrivateKey.generate()
    public = wrong.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(dsse.KeyRefused):
        dsse.public_key(public)
    with pytest.raises(dsse.KeyRefused):
        dsse.private_key(wrong.private_bytes(serialization.Encoding.PEM, form, no_password))
    with pytest.raises(dsse.KeyRefused):
        dsse.public_key(b"no key")


def test_encrypted_key_needs_its_password() -> None:
    """With the password the key is read; without it, or with another one, it is refused."""
    secret = serialization.BestAvailableEncryption(b"right")
    pem = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    assert dsse.private_key(pem, b"right").private_numbers() == KEY.private_numbers()
    for password in (None, b"wrong"):
        with pytest.raises(dsse.KeyRefused):
            dsse.private_key(pem, password)
