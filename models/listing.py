"""List the versions in a folder of models, by what they say of themselves."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from healthguard import approval
from models import artifact, signing

_CONTRACT_BYTES_MAX = 64 * 1024


@dataclass(frozen=True)
class Listed:
    """
    One version folder; nothing of it was verified.

    `served` tells whether its model's manifest names it stable; `signed` and `approved`, whether such a file is there.
    """

    model: str
    version: int
    served: bool
    task: str
    labels: list[str]
    explain: str
    demonstration: bool
    formats: list[str]
    signed: bool
    approved: bool


def versions(home: Path) -> list[Listed]:
    """
    Return every version under a folder of models, by model and number.

    Raises:
        artifact.ArtifactError: a manifest or a contract cannot be read.
    """
    return sorted(_found(home), key=lambda found: (found.model, found.version))


def _found(home: Path) -> Iterator[Listed]:
    for contract in home.glob("*/*/assets.extra/contract.json"):
        folder = contract.parents[1]
        if folder.name.isdecimal():
            yield _listed(folder, _read(contract))


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return json.loads(file.read(_CONTRACT_BYTES_MAX))
    except (ValueError, RecursionError) as error:
        raise artifact.ArtifactError(f"the contract of {path.parents[1]} cannot be read") from error


def _listed(folder: Path, contract: Any) -> Listed:
    manifest = folder.parent / artifact.MANIFEST_NAME
    stable = artifact.read_manifest(manifest).stable if manifest.is_file() else None
    try:
        return Listed(
            model=contract["model"],
            version=int(folder.name),
            served=stable == int(folder.name),
            task=contract["task"],
            labels=contract["labels"],
            explain=contract["explain"]["method"],
            demonstration=contract["demonstration"],
            formats=[name for name in ("saved_model.pb", "model.tflite") if (folder / name).is_file()],
            signed=signing.beside(folder).is_file(),
            approved=approval.beside(folder).is_file(),
        )
    except (KeyError, TypeError) as error:
        raise artifact.ArtifactError(f"the contract of {folder} lacks a part") from error


def line(found: Listed) -> str:
    """Return what a person reads of a version."""
    marks = [
        name
        for name, there in (
            (f"stable in {artifact.MANIFEST_NAME}", found.served),
            ("a signature is there, not checked", found.signed),
            ("an approval is there, not checked", found.approved),
            ("demonstration", found.demonstration),
            ("LiteRT only", "saved_model.pb" not in found.formats),
        )
        if there
    ]
    return f"{found.model}/{found.version}  {found.task}: {', '.join(found.labels)}  ({', '.join(marks)})"
