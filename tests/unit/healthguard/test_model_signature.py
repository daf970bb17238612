"""Signatures of versions: what OpenSSF's own tool signs holds, and nothing else."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from healthguard import dsse
from healthguard.model_signature import SignatureRefused, verify
from models import signing

CURVES = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())


def sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="module", params=CURVES, ids=lambda curve: curve.name)
def signed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ec.EllipticCurvePrivateKey]:
    """Have a version signed by the package model-signing; return its folder and the key."""
    folder = tmp_path_factory.mktemp("models") / "1"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "model.tflite").write_bytes(b"flat")
    (folder / "assets.extra" / "contract.json").write_text("{}")
    key = ec.generate_private_key(request.param)
    form = serialization.PrivateFormat.PKCS8
    pem = folder.parent / "key.pem"
    pem.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    signing.sign(folder, pem)
    return folder, key


def test_signature_of_the_official_tool_holds(signed: tuple[Path, ec.EllipticCurvePrivateKey]) -> None:
    """By any key of the list, on every curve that we know."""
    folder, key = signed
    stranger = ec.generate_private_key(ec.SECP256R1())
    verify(signing.beside(folder).read_bytes(), sums(folder), [stranger.public_key(), key.public_key()])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(lambda files: files | {"model.tflite": "0" * 64}, "model.tflite", id="a changed file"),
        pytest.param(lambda files: files | {"more": "0" * 64}, "more", id="a file more"),
        pytest.param(lambda files: {"model.tflite": files["model.tflite"]}, "contract.json", id="a file less"),
    ],
)
def test_signature_is_of_exactly_these_files(
    signed: tuple[Path, ec.EllipticCurvePrivateKey],
    change: Callable[[dict[str, str]], dict[str, str]],
    told: str,
) -> None:
    """The text names the file."""
    folder, key = signed
    with pytest.raises(SignatureRefused, match=told):
        verify(signing.beside(folder).read_bytes(), change(sums(folder)), [key.public_key()])


def test_signature_of_a_stranger_is_refused(signed: tuple[Path, ec.EllipticCurvePrivateKey]) -> None:
    """Also where the stranger has signed the very same files."""
    folder, _ = signed
    stranger = ec.generate_private_key(ec.SECP256R1())
    for trusted in ([stranger.public_key()], []):
        with pytest.raises(SignatureRefused, match="trusted key"):
            verify(signing.beside(folder).read_bytes(), sums(folder), trusted)


def test_changed_statement_is_refused(signed: tuple[Path, ec.EllipticCurvePrivateKey]) -> None:
    """Who changes a file and its sum in the statement has broken the signature."""
    folder, key = signed
    bundle = json.loads(signing.beside(folder).read_bytes())
    statement = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    files = sums(folder) | {"model.tflite": "0" * 64}
    changed = statement.replace(sums(folder)["model.tflite"].encode(), b"0" * 64)
    assert changed != statement
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
    with pytest.raises(SignatureRefused, match="trusted key"):
        verify(json.dumps(bundle).encode(), files, [key.public_key()])


@pytest.mark.parametrize(
    "change",
    [
        {"predicateType": "urn:healthguard:approval:v1"},
        {"predicate": {}},
        {"predicate": {"serialization": {"method": "shards", "hash_type": "sha256"}, "resources": []}},
        {"predicate": {"serialization": {"method": "files", "hash_type": "md5"}, "resources": []}},
        {
            "predicate": {
                "serialization": {"method": "files", "hash_type": "sha256"},
                "resources": [{"name": "a", "digest": "0", "algorithm": "sha256"}] * 2,
            }
        },
    ],
)
def test_another_signed_statement_is_no_signature_of_files(change: dict[str, Any]) -> None:
    """An approval, or sums of another kind, cannot pass for it, though a trusted key has signed them."""
    key = ec.generate_private_key(ec.SECP256R1())
    statement = {"predicateType": "https://model_signing/signature/v1.0"} | change
    bundle = {"dsseEnvelope": dsse.sealed(json.dumps(statement).encode(), key)}
    with pytest.raises(SignatureRefused, match="no bundle"):
        verify(json.dumps(bundle).encode(), {}, [key.public_key()])


@pytest.mark.parametrize("bundle", [b"", b"{}", b"[]", b"[" * 100_000, b'{"dsseEnvelope": 7}'])
def test_what_is_no_bundle_is_refused(bundle: bytes) -> None:
    """Whatever lies there."""
    with pytest.raises(SignatureRefused, match="no bundle"):
        verify(bundle, {}, [])
