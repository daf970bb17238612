"""A version is served only where trusted people let it be used, and the reason says what is missing."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from healthguard import approval
from models import signing
from serving.operator import expiry, stager
from serving.operator.approving import Demand
from serving.operator.artifact import digest
from serving.operator.stager import CannotStage, stage

NOW = datetime.now(UTC)
KEY, STRANGER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public key as a ServedModel names it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """Make a version folder."""
    folder = tmp_path / "source" / "1"
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(b"flat" * 1000)
    return folder


def approve(
    version: Path,
    key: ec.EllipticCurvePrivateKey = KEY,
    *,
    of: str = "",
    model: str = "cancer",
    number: int = 1,
    expires: datetime = NOW + timedelta(days=1),
    **members: Any,
) -> None:
    """Write an approval beside *version*; *members* replace those of its envelope."""
    began = NOW - timedelta(days=9)
    statement = approval.Approval(model, number, of or digest(version), "Tests", "Dr A", began, expires)
    envelope = json.loads(approval.sign(statement, key)) | members
    approval.beside(version).write_text(json.dumps(envelope))


def reason_of(version: Path, target: Path, *, required: bool = True, keys: tuple[str, ...] = (pem(KEY),)) -> str:
    """Return for which reason a version is refused, or nothing where it is in place."""
    asked = Demand("cancer", 1, keys, approval=required)
    try:
        stage(f"file://{version}", digest(version), target, bytes_max=10**6, demand=asked)
    except CannotStage as refused:
        assert not target.exists()
        return refused.failure.reason
    assert digest(target) == digest(version)
    return ""


def test_version_with_an_approval_in_force_is_put_in_place(version: Path, tmp_path: Path) -> None:
    """Signed by one of the trusted keys, for these bytes, until a later day."""
    approve(version)
    assert reason_of(version, tmp_path / "models" / "1", keys=(pem(STRANGER), pem(KEY))) == ""


@pytest.mark.parametrize(("required", "until"), [(True, NOW + timedelta(days=1)), (False, None)])
def test_end_of_the_approval_is_left_for_the_operator(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, required: bool, until: datetime | None
) -> None:
    """A pod may run for longer than its approval; without one there is no end to tell."""
    approve(version)
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setattr(expiry.write, "__defaults__", (log,))
    monkeypatch.setattr(stager, "configure_logging", lambda _: None)
    arguments = ["--model=cancer", "--version=1", f"--uri=file://{version}", f"--digest={digest(version)}"]
    arguments += [f"--trusted-key={pem(KEY)}", "--approval-required"] if required else []
    assert stager.main([*arguments, f"--target={tmp_path / 'models' / '1'}"]) == 0
    assert expiry.read(log.read_text()) == until


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        pytest.param("SignatureInvalid", {"key": STRANGER}, id="signed by a stranger"),
        pytest.param("SignatureMissing", {"signatures": []}, id="signed by nobody"),
        pytest.param("ApprovalExpired", {"expires": NOW - timedelta(seconds=1)}, id="over"),
        pytest.param("ApprovalInvalid", {"of": "sha256:" + "0" * 64}, id="of other bytes"),
        pytest.param("ApprovalInvalid", {"model": "anemia"}, id="of another model"),
        pytest.param("ApprovalInvalid", {"number": 2}, id="of another version"),
        pytest.param("ApprovalInvalid", {"payload": 7}, id="no approval"),
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_version_with_an_approval_that_does_not_hold_is_refused(
    version: Path, tmp_path: Path, reason: str, told: dict[str, Any], required: bool
) -> None:
    """Where keys are named, an approval that is there has to hold, wanted or not."""
    approve(version, **told)
    assert reason_of(version, tmp_path / "models" / "1", required=required) == reason


def test_version_without_an_approval_is_refused_where_one_is_required(version: Path, tmp_path: Path) -> None:
    """No approval is no reason where nobody asks for one; a link in its place is none."""
    target = tmp_path / "models" / "1"
    assert reason_of(version, target) == "ApprovalMissing"
    assert reason_of(version, target, required=False) == ""
    approve(version)
    approval.beside(version).rename(tmp_path / "elsewhere")
    approval.beside(version).symlink_to(tmp_path / "elsewhere")
    assert reason_of(version, tmp_path / "models" / "2") == "ApprovalMissing"


def test_approval_is_not_looked_at_where_nobody_is_trusted(version: Path, tmp_path: Path) -> None:
    """Without keys and without a demand the digest alone decides; with a demand nothing can meet it."""
    approve(version, STRANGER)
    assert reason_of(version, tmp_path / "models" / "1", required=False, keys=()) == ""
    assert reason_of(version, tmp_path / "models" / "2", required=True, keys=()) == "SignatureInvalid"


def test_trusted_key_that_is_none_is_told(version: Path, tmp_path: Path) -> None:
    """A mistake in the ServedModel is no fault of whoever approved."""
    approve(version)
    assert reason_of(version, tmp_path / "models" / "1", keys=("no key",)) == "KeyUnusable"


def test_image_has_no_place_for_an_approval(version: Path) -> None:
    """What is mounted from an image cannot be approved beside it, and is refused where that is required."""
    approve(version)
    demand = Demand("cancer", 1, (pem(KEY),), approval=True)
    with pytest.raises(CannotStage) as refused:
        stage("oci://registry.test/a:1", digest(version), version, bytes_max=0, demand=demand)
    assert refused.value.failure.reason == "ApprovalMissing"


def test_version_with_a_signature_of_its_files_is_put_in_place(version: Path, tmp_path: Path) -> None:
    """By the official tool, with a trusted key; of other files, or by a stranger, it is refused, wanted or not."""
    sign(version, tmp_path, KEY)
    for number, wanted in enumerate((True, False)):
        stage_signed(version, tmp_path / "models" / str(number), wanted=wanted)
        (version / "model.tflite").write_bytes(b"other" * 1000)
        with pytest.raises(CannotStage, match=r"model\.tflite") as refused:
            stage_signed(version, tmp_path / "models" / "9", wanted=wanted)
        assert refused.value.failure.reason == "SignatureInvalid"
        (version / "model.tflite").write_bytes(b"flat" * 1000)
    sign(version, tmp_path, STRANGER)
    with pytest.raises(CannotStage, match="trusted key"):
        stage_signed(version, tmp_path / "models" / "9", wanted=False)


def test_version_without_a_signature_is_refused_where_one_is_required(version: Path, tmp_path: Path) -> None:
    """An approval is none."""
    approve(version)
    with pytest.raises(CannotStage) as refused:
        stage_signed(version, tmp_path / "models" / "1", wanted=True)
    assert refused.value.failure.reason == "SignatureMissing"


def sign(version: Path, folder: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Sign *version*, keeping the key in *folder*."""
    form, file = serialization.PrivateFormat.PKCS8, folder / "key.pem"
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    signing.sign(version, file)


def stage_signed(version: Path, target: Path, *, wanted: bool) -> None:
    """
    Stage *version* with one trusted key.

    Raises:
        CannotStage: it is refused.
    """
    demand = Demand("cancer", 1, (pem(KEY),), signature=wanted)
    stage(f"file://{version}", digest(version), target, bytes_max=10**6, demand=demand)
