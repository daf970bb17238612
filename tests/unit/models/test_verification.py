"""Verification of version folders: whatever was changed is refused by name, before any of it is run."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from healthguard import approval, dsse
from models import artifact, signing, verification
from models.litert import LiteRtVersion
from models.verification import Asked

MODELS = Path(artifact.__file__).parent
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """Return a copy of a committed version with a list of its files, under a manifest that vouches for it."""
    manifest = artifact.read_manifest(MODELS / "anemia" / artifact.MANIFEST_NAME)
    folder = tmp_path / "anemia" / str(manifest.stable)
    shutil.copytree(artifact.folder(MODELS, manifest.version(manifest.stable)), folder)
    artifact.write_sums(folder)
    text = artifact.manifest_text("anemia", manifest.stable, artifact.digest(folder), difference_max=0.001)
    (folder.parent / artifact.MANIFEST_NAME).write_text(text)
    return folder


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two pairs of keys: `ours` and `theirs`."""
    folder = tmp_path_factory.mktemp("keys")
    form, no_password = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    for name in ("ours", "theirs"):
        key = ec.generate_private_key(ec.SECP256R1())
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        (folder / f"{name}.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, no_password))
        (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))
    return folder


def asked(folder: Path, **wishes: object) -> Asked:
    """Return what to ask of a version: the digest of its manifest, and what else a test wishes."""
    return replace(Asked(verification.vouched(folder)), **wishes)  # type: ignore[arg-type]


def found(folder: Path, **wishes: object) -> dict[str, verification.Check]:
    """Verify, and return the checks by name."""
    return {check.name: check for check in verification.verify(folder, asked(folder, **wishes), now=NOW)}


def approve(
    folder: Path, keys: Path, *, name: str = "ours", expires: datetime = NOW + timedelta(days=1), number: int = 2
) -> None:
    """Write an approval beside a folder."""
    began = NOW - timedelta(days=1)
    statement = approval.Approval("anemia", number, artifact.digest(folder), "Use", "Dr A", began, expires)
    key = dsse.private_key((keys / f"{name}.pem").read_bytes())
    approval.beside(folder).write_bytes(approval.sign(statement, key))


def test_untouched_version_passes(version: Path) -> None:
    """Digest, contract and golden cases are right; nobody signed or approved, and nobody asked for it."""
    checks = found(version)
    assert {name: check.passed for name, check in checks.items()} == {
        "digest": True,
        "signature": None,
        "approval": None,
        "contract": True,
        "golden": True,
    }
    assert verification.passed(list(checks.values()))


def _flip(folder: Path) -> None:
    path = folder / "model.tflite"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _remove(folder: Path) -> None:
    (folder / "assets.extra" / "card.md").unlink()


def _add(folder: Path) -> None:
    (folder / ".gitignore").write_text("*")


def _link(folder: Path) -> None:
    (folder / "assets.extra" / "card.md").unlink()
    (folder / "assets.extra" / "card.md").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (_flip, "model.tflite was changed"),
        (_remove, "assets.extra/card.md is missing"),
        (_add, ".gitignore is not on the list"),
        (_link, "assets.extra/card.md is not a plain file"),
    ],
    ids=["a byte", "a missing file", "an extra file", "a link"],
)
def test_tampered_version_is_refused_by_the_name_of_the_file(
    version: Path, tamper: Callable[[Path], None], named: str
) -> None:
    """The file is named, and nothing of the folder is run."""
    tamper(version)
    checks = found(version)
    assert (checks["digest"].passed, checks["digest"].detail) == (False, named)
    assert checks["golden"].passed is None
    assert not verification.passed(list(checks.values()))


def test_tamperer_who_mends_the_list_is_found_by_the_manifest(version: Path) -> None:
    """The list only names; it is the digest that vouches."""
    _flip(version)
    artifact.write_sums(version)
    checks = found(version)
    assert checks["digest"].passed is False
    assert "vouched" in checks["digest"].detail


@pytest.mark.parametrize("tamper", [_flip, _remove, _add], ids=["a byte", "a missing file", "an extra file"])
def test_signature_names_what_was_changed(version: Path, keys: Path, tamper: Callable[[Path], None]) -> None:
    """Where no manifest vouches, the OpenSSF signature still does, file by file."""
    signing.sign(version, keys / "ours.pem")
    before = {path for path in version.rglob("*") if path.is_file()}
    tamper(version)
    touched = ({path for path in version.rglob("*") if path.is_file()} ^ before) or {version / "model.tflite"}
    artifact.write_sums(version)
    check = {
        each.name: each
        for each in verification.verify(version, Asked(keys=(keys / "theirs.pub", keys / "ours.pub")), now=NOW)
    }["signature"]
    assert check.passed is False
    assert all(path.name in check.detail for path in touched)


def test_signed_and_approved_version_passes(version: Path, keys: Path) -> None:
    """With the right key, both are required and both are there."""
    signing.sign(version, keys / "ours.pem")
    approve(version, keys)
    checks = found(version, keys=(keys / "ours.pub",), signature_required=True, approval_required=True)
    assert {check.passed for check in checks.values()} == {True}
    assert "Dr A" in checks["approval"].detail


def test_key_that_is_none_is_refused_by_name(version: Path, keys: Path) -> None:
    """A private key, or any file, where a public key belongs: a sentence, and no crash."""
    signing.sign(version, keys / "ours.pem")
    approve(version, keys)
    checks = found(version, keys=(keys / "ours.pem",), signature_required=True)
    assert (checks["signature"].passed, checks["approval"].passed) == (False, False)
    assert "public key" in checks["signature"].detail
    with pytest.raises(dsse.KeyRefused):
        signing.sign(version, keys / "ours.pub")


def test_digest_that_nobody_vouches_for_is_not_called_right(version: Path) -> None:
    """Without manifest and digest, only the folder's own list was looked at."""
    checks = verification.verify(version, Asked(), now=NOW)
    assert checks[0].passed is None
    assert verification.passed(checks)


@pytest.mark.parametrize("told", [b"no JSON", b"[" * 60_000])
def test_graph_that_tells_no_contract_is_refused(version: Path, told: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the graph says is not trusted to be JSON."""
    monkeypatch.setattr(LiteRtVersion, "told_contract", lambda _: told)
    with pytest.raises(artifact.ArtifactError, match="not JSON"):
        verification.check_contents(version)


@pytest.mark.parametrize("content", ["[" * 60_000, "[]", '{"labels": []}'])
def test_contract_that_is_none_is_refused(version: Path, content: str) -> None:
    """Nested too deeply, or not an object: a sentence, and no crash."""
    (version / "assets.extra" / "contract.json").write_text(content)
    with pytest.raises(artifact.ArtifactError, match="contract"):
        verification.check_contents(version)


def test_wrong_key_is_refused(version: Path, keys: Path) -> None:
    """What is signed by a stranger is signed by nobody."""
    signing.sign(version, keys / "theirs.pem")
    approve(version, keys, name="theirs")
    checks = found(version, keys=(keys / "ours.pub",))
    assert (checks["signature"].passed, checks["approval"].passed) == (False, False)
    assert "not by this key" in checks["signature"].detail
    assert "trusted" in checks["approval"].detail


def test_expired_approval_is_refused(version: Path, keys: Path) -> None:
    """The day is named."""
    approve(version, keys, expires=NOW)
    check = found(version, keys=(keys / "ours.pub",))["approval"]
    assert (check.passed, check.detail) == (False, "the approval expired on 2026-11-22")


def test_approval_of_another_version_is_refused(version: Path, keys: Path) -> None:
    """As pods refuse it; a folder that has no number yet cannot be held to one."""
    approve(version, keys, number=1)
    check = found(version, keys=(keys / "ours.pub",))["approval"]
    assert (check.passed, "anemia/1" in check.detail) == (False, True)
    unnumbered = version.rename(version.with_name("new"))
    approve(unnumbered, keys, number=1)
    checks = verification.verify(unnumbered, Asked(keys=(keys / "ours.pub",), golden=False), now=NOW)
    assert {check.name: check.passed for check in checks}["approval"] is True


def test_required_proof_that_is_not_there_is_a_failure(version: Path, keys: Path) -> None:
    """What may be left out where nobody asks must not be left out where somebody does."""
    checks = found(version, keys=(keys / "ours.pub",), signature_required=True, approval_required=True)
    assert (checks["signature"].passed, checks["approval"].passed) == (False, False)


def test_required_proof_without_a_key_to_check_it_is_a_failure(version: Path, keys: Path) -> None:
    """A signature that was not looked at is not a good one."""
    signing.sign(version, keys / "ours.pem")
    approve(version, keys)
    checks = found(version, signature_required=True, approval_required=True)
    assert (checks["signature"].passed, checks["approval"].passed) == (False, False)
    unchecked = found(version)
    assert (unchecked["signature"].passed, unchecked["approval"].passed) == (None, None)


@pytest.mark.parametrize(
    ("member", "value", "named"),
    [
        ("task", "guess", "task"),
        ("model", "other", "contract is of other"),
        ("intended_use", "Everything.", "contract in model.tflite"),
        ("surprise", 1, "its top"),
    ],
)
def test_contract_that_is_not_the_graphs_is_refused(version: Path, member: str, value: object, named: str) -> None:
    """The file beside the graph keeps to the schema and says what the graph says."""
    path = version / "assets.extra" / "contract.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {member: value}))
    with pytest.raises(artifact.ArtifactError, match=named):
        verification.check_contents(version)


def test_card_that_is_not_the_contracts_is_refused(version: Path) -> None:
    """Nobody can write another card under the same contract."""
    (version / "assets.extra" / "card.md").write_text("A wonder.")
    with pytest.raises(artifact.ArtifactError, match="card"):
        verification.check_contents(version)


@pytest.mark.parametrize("change", [{"probability": 0.123}, {"label": "Indeterminate"}, {"probability": float("nan")}])
def test_golden_case_that_is_answered_otherwise_is_refused(version: Path, change: dict[str, object]) -> None:
    """The answers count, and so do the labels; NaN is no answer."""
    path = version / "assets.extra" / "golden" / "cases.json"
    document = json.loads(path.read_text())
    document["cases"][0] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(artifact.ArtifactError, match=document["cases"][0]["file"]):
        verification.check_contents(version)


def test_damaged_model_is_refused(version: Path) -> None:
    """A file that is no LiteRT model ends in a sentence, not in a crash."""
    (version / "model.tflite").write_bytes(b"\0" * 64)
    with pytest.raises(artifact.ArtifactError, match="damaged"):
        verification.check_contents(version)


def test_absent_folder_is_refused(tmp_path: Path) -> None:
    """A typing error is not a crash."""
    checks = verification.verify(tmp_path / "7", Asked(), now=NOW)
    assert checks[0].passed is False


def test_key_with_nothing_to_check_is_a_failure(version: Path, keys: Path) -> None:
    """Whoever names a trusted person must not take a folder that nobody signed for theirs."""
    checks = found(version, keys=(keys / "ours.pub",))
    assert checks["signature"].passed is False
    assert "neither signed nor approved" in checks["signature"].detail
    assert found(version)["signature"].passed is None
