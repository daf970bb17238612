"""Check a version folder before it is served: every byte, the signatures of people, the contract, the answers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from healthguard import approval, dsse
from models import artifact, signing
from models.artifact import ArtifactError, TamperedError
from models.importing.documents import outcome
from models.importing.pictures import read
from models.importing.request import CannotImport
from models.litert import LiteRtVersion


@dataclass(frozen=True)
class Asked:
    """
    What a version is held to.

    `digest` is what a manifest or a person names, None where nobody does; `keys` are PEM files of trusted people.
    Signature and approval are checked where there are keys and they are there, and must be there where required.
    Whoever gives keys asks for one of them at least: a version that has neither is refused.
    """

    digest: str | None = None
    keys: tuple[Path, ...] = ()
    signature_required: bool = False
    approval_required: bool = False
    golden: bool = True


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `passed` is None where it was not, and `detail` says why, or what was found."""

    name: str
    passed: bool | None
    detail: str


def vouched(folder: Path) -> str | None:
    """
    Return the digest that the manifest beside a version folder names for it, None where there is none.

    Raises:
        artifact.ManifestError: the manifest cannot be read.
    """
    path = folder.parent / artifact.MANIFEST_NAME
    if not path.is_file() or not folder.name.isdecimal():
        return None
    versions = artifact.read_manifest(path).versions
    return next((version.digest for version in versions if version.number == int(folder.name)), None)


def verify(folder: Path, asked: Asked, *, now: datetime) -> list[Check]:
    """
    Check a version folder and return what was found, in order.

    After a failure nothing of the folder is run: bytes that nobody vouches for are not for an interpreter to read.
    """
    checks = [check_digest(folder, asked.digest)]
    if checks[0].passed is not False:
        checks += [
            _checked("signature", lambda: _signature(folder, asked)),
            _checked("approval", lambda: _approval(folder, asked, now)),
        ]
    for name, look in (("contract", _contract), ("golden", _golden)):
        if any(check.passed is False for check in checks):
            checks.append(Check(name, None, "not looked at after a failure"))
        elif name == "golden" and not asked.golden:
            checks.append(Check(name, None, "not asked for"))
        else:
            checks.append(_checked(name, lambda look=look: look(folder)))  # type: ignore[misc]
    return checks


def passed(checks: Sequence[Check]) -> bool:
    """Tell whether nothing failed."""
    return all(check.passed is not False for check in checks)


def check_digest(folder: Path, vouched_for: str | None) -> Check:
    """Check every byte of a folder; where no digest is vouched for, only against the folder's own list of files."""
    return _checked("digest", lambda: _digest(folder, vouched_for))


def check_contents(folder: Path) -> None:
    """
    Check contract and golden cases of a folder that is known to be trusted.

    Raises:
        ArtifactError: they are not right; the text says which.
    """
    _contract(folder)
    _golden(folder)


class _NotThere(Exception):
    """There is nothing to check, and nobody requires it."""


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except _NotThere as error:
        return Check(name, None, str(error))
    except (ArtifactError, signing.SignatureRefused, signing.SigningNotInstalled) as error:
        return Check(name, False, str(error))
    except (approval.ApprovalRefused, dsse.KeyRefused) as error:
        return Check(name, False, str(error))
    except OSError as error:
        return Check(name, False, f"{Path(error.filename or '?').name} cannot be read")


def _digest(folder: Path, vouched_for: str | None) -> str:
    found = artifact.digest(folder)
    changed = artifact.differences(folder)
    if changed:
        raise TamperedError("; ".join(changed))
    if vouched_for is None:
        raise _NotThere(f"{found}, which nobody vouches for: give --digest, or a manifest beside the folder")
    if found != vouched_for:
        raise TamperedError(f"the folder has {found}, and not {vouched_for}, which is vouched for")
    return found


def _signature(folder: Path, asked: Asked) -> str:
    if not signing.beside(folder).exists() and not asked.signature_required:
        if asked.keys and not approval.beside(folder).exists():
            raise signing.SignatureRefused("neither signed nor approved: there is nothing to check with --key")
        raise _NotThere("not signed")
    if not asked.keys:
        _no_keys(asked.signature_required, "signature")
    return f"by the key in {signing.verify(folder, asked.keys).name}"


def _approval(folder: Path, asked: Asked, now: datetime) -> str:
    path = approval.beside(folder)
    if not path.exists():
        if asked.approval_required:
            raise approval.ApprovalRefused(f"there is no approval {path.name}")
        raise _NotThere("not approved by anybody")
    if not asked.keys:
        _no_keys(asked.approval_required, "approval")
    trusted = [dsse.public_key(_start(key, dsse.KEY_BYTES_MAX)) for key in asked.keys]
    # While it is made, a folder has no number yet; the contract is held to the folder's name after this.
    named = (folder.parent.name, int(folder.name)) if folder.name.isdecimal() else None
    envelope = _start(path, approval.BYTES_MAX + 1)
    found = approval.verify(envelope, artifact.digest(folder), trusted, now=now, named=named)
    return f"by {found.signer} for {found.intended_use!r} until {found.expires.date().isoformat()}"


def _no_keys(required: bool, what: str) -> None:
    text = f"the {what} was not checked: name the key of a trusted person with --key"
    raise signing.SignatureRefused(text) if required else _NotThere(text)


def _start(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _contract(folder: Path) -> str:
    version = LiteRtVersion(folder)
    says = (version.contract["model"], str(version.contract["version"]))
    # While it is made, a folder has no number yet.
    if folder.name.isdecimal() and says != (folder.parent.name, folder.name):
        raise ArtifactError(
            f"the contract is of {'/'.join(says)}, and the folder is {folder.parent.name}/{folder.name}"
        )
    if _parsed(version.told_contract()) != version.contract:
        raise ArtifactError("the contract in model.tflite is not contract.json")
    card = folder / "assets.extra" / "card.md"
    if version.contract["card_digest"] != f"sha256:{artifact.sha256(card)}":
        raise ArtifactError("card.md is not the card that the contract names")
    return f"of {version.contract['model']}, version {version.contract['version']}"


def _parsed(document: bytes) -> Any:
    try:
        return json.loads(document)
    except (ValueError, RecursionError) as error:
        raise ArtifactError("the contract in model.tflite is not JSON") from error


def _golden(folder: Path) -> str:
    """Ask the version by LiteRT about its golden cases."""
    version, golden = LiteRtVersion(folder), artifact.golden(folder)
    if not golden.cases:
        raise ArtifactError("there is no golden case")
    largest = 0.0
    for case in golden.cases:
        probability, ood_score = version.score(_picture(case.path, version.size))
        difference = max(abs(probability - case.probability), abs(ood_score - case.ood_score))
        # Written so that "not a number" fails, too.
        if not difference <= golden.tolerance:
            raise ArtifactError(f"{case.path.name} is answered {difference:.2g} away from what it should be")
        if outcome(version.contract, probability, ood_score) != case.label:
            raise ArtifactError(f"{case.path.name} is answered with another label")
        largest = max(largest, difference)
    return f"{len(golden.cases)} cases, at most {largest:.1e} away"


def _picture(path: Path, size: tuple[int, int]) -> Any:
    try:
        return read(path, size)
    except CannotImport as error:
        raise ArtifactError(str(error)) from error
