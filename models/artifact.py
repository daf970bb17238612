"""
Read, digest and verify model versions on disk.

A manifest (`servedmodel.yaml`) names the versions of a model with the digest of each folder; a version is served only
if its folder has exactly that digest. Nothing here imports a machine-learning framework.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MANIFEST_NAME = "servedmodel.yaml"
MANIFEST_BYTES_MAX = 256 * 1024
CASES_BYTES_MAX = 1024 * 1024
CARD_BYTES_MAX = 1024 * 1024
FILES_MAX = 10_000
SUMS_NAME = "assets.extra/SHA256SUMS"
"""Lists the SHA-256 of all other files of a version, as `sha256sum` does, so that a check can name what was changed."""
_SUMS_BYTES_MAX = 4 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_CASE_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class ArtifactError(Exception):
    """
    A model version or its manifest is not what it must be.

    ManifestError: the manifest cannot be read. TamperedError: a folder is not what its manifest says.
    """


class ManifestError(ArtifactError):
    """The manifest is missing, too large, not YAML or not a ServedModel."""


class TamperedError(ArtifactError):
    """A version folder is not what the manifest vouches for."""


@dataclass(frozen=True)
class Version:
    """One version of a model as the manifest names it: `digest` is "sha256:" and 64 hexadecimal digits."""

    number: int
    storage_uri: str
    digest: str


@dataclass(frozen=True)
class Manifest:
    """What a ServedModel says about versions; the rest of the object is the operator's to read."""

    model: str
    versions: tuple[Version, ...]
    stable: int

    def version(self, number: int) -> Version:
        """
        Return the version *number*.

        Raises:
            ManifestError: the manifest does not name it.
        """
        for version in self.versions:
            if version.number == number:
                return version
        raise ManifestError(f"{self.model} has no version {number}")


@dataclass(frozen=True)
class GoldenCase:
    """An image with the answer that the model gave when it was made, decode and resize included."""

    path: Path
    label: str
    probability: float
    ood_score: float


@dataclass(frozen=True)
class Golden:
    """All golden cases of a version; outputs may differ from theirs by `tolerance`, absolute."""

    tolerance: float
    cases: tuple[GoldenCase, ...]


def read_manifest(path: Path) -> Manifest:
    """
    Read the manifest of one model.

    Raises:
        ManifestError: the file is missing, too large, not YAML or not a ServedModel.
    """
    try:
        document = yaml.safe_load(_bounded(path, MANIFEST_BYTES_MAX, ManifestError))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise ManifestError(f"{path.name} cannot be read") from error
    try:
        return _manifest(document)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ManifestError(f"{path.name} is not a ServedModel that names its versions") from error


def _manifest(document: Any) -> Manifest:
    if document["kind"] != "ServedModel":
        raise ValueError("kind")
    spec = document["spec"]
    versions = tuple(_version(entry) for entry in spec["versions"])
    manifest = Manifest(_matching(_NAME, document["metadata"]["name"]), versions, int(spec["traffic"]["stable"]))
    numbers = [version.number for version in versions]
    if len(set(numbers)) != len(numbers) or manifest.stable not in numbers:
        raise ValueError("versions")
    return manifest


def _version(entry: Any) -> Version:
    number = int(entry["version"])
    if number < 1:
        raise ValueError("version")
    return Version(number, str(entry["storageUri"]), _matching(_DIGEST, entry["digest"]))


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError("value")
    return value


def manifests(models: Path) -> list[Path]:
    """Return the manifest files of all models under the folder *models*, by name."""
    return sorted(models.glob(f"*/{MANIFEST_NAME}"))


def folder(models: Path, version: Version) -> Path:
    """
    Return where a version lies: the claim `models` of `pvc://models/…` is the folder *models*.

    Raises:
        ManifestError: the address is not in that claim, or leads out of it.
    """
    prefix = "pvc://models/"
    parts = Path(version.storage_uri.removeprefix(prefix)).parts
    if not version.storage_uri.startswith(prefix) or not parts or ".." in parts or parts[0] == "/":
        raise ManifestError("only versions under pvc://models/ are on this machine")
    return models.joinpath(*parts)


def digest(version_folder: Path) -> str:
    """
    Return the digest over all files of a folder: SHA-256 of the sorted lines "<sha256>  <relative path>".

    Raises:
        TamperedError: there is no such folder, or it holds a link, a special file or too many files.
    """
    lines = sorted(f"{sha256(path)}  {path.relative_to(version_folder).as_posix()}\n" for path in files(version_folder))
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def files(version_folder: Path) -> list[Path]:
    """
    Return every file under a folder, sorted.

    Raises:
        TamperedError: there is no such folder, or it holds a link, a special file or too many files.
    """
    if version_folder.is_symlink() or not version_folder.is_dir():
        raise TamperedError(f"there is no version folder {version_folder.name}")
    found: list[Path] = []
    for root, folders, names in os.walk(version_folder, onerror=_refuse):
        for name in [*folders, *names]:
            path = Path(root, name)
            # With a line break in a name, one file could read like two in the lines of the digest.
            if not name.isprintable():
                raise TamperedError(f"the name of a file has a strange letter: {name!a}")
            # A link may lead to a file that nobody vouches for and that changes after the check.
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise TamperedError(f"{path.relative_to(version_folder).as_posix()} is not a plain file")
        found += [Path(root, name) for name in names]
        if len(found) > FILES_MAX:
            raise TamperedError(f"more than {FILES_MAX} files")
    return sorted(found)


def _refuse(error: OSError) -> None:
    """Pass on that a folder cannot be read; otherwise what lies in it would not count."""
    raise error


def write_sums(version_folder: Path) -> None:
    """Write the list of the files of a version that is otherwise complete."""
    listed = [path for path in files(version_folder) if path != version_folder / SUMS_NAME]
    lines = [f"{sha256(path)}  {path.relative_to(version_folder).as_posix()}\n" for path in listed]
    (version_folder / SUMS_NAME).write_text("".join(lines), encoding="utf-8")


def differences(version_folder: Path) -> list[str] | None:
    """
    Return in words which files are not as their own list says; None where a version has no list.

    Who changes a file can change the list: it only names what the digest, which counts the list too, has found out.

    Raises:
        TamperedError: the folder holds what no version may hold, or the list cannot be read.
    """
    if not (version_folder / SUMS_NAME).is_file():
        return None
    try:
        text = _bounded(version_folder / SUMS_NAME, _SUMS_BYTES_MAX, TamperedError).decode()
        listed = {path: found for found, _, path in (line.partition("  ") for line in text.splitlines())}
    except UnicodeDecodeError as error:
        raise TamperedError(f"{SUMS_NAME} cannot be read") from error
    found = {path.relative_to(version_folder).as_posix(): path for path in files(version_folder)}
    found.pop(SUMS_NAME)
    return [
        *(f"{name} is missing" for name in sorted(listed.keys() - found.keys())),
        *(f"{name} is not on the list" for name in sorted(found.keys() - listed.keys())),
        *(
            f"{name} was changed"
            for name in sorted(listed.keys() & found.keys())
            if sha256(found[name]) != listed[name]
        ),
    ]


def manifest_text(model: str, version: int, digest_: str, *, difference_max: float) -> str:
    """Return the ServedModel of a model with one version."""
    return f"""\
# Which versions of this model are served, and with what proof.
apiVersion: serving.healthguard.io/v1alpha1
kind: ServedModel
metadata:
  name: "{model}"
spec:
  runtime:
    name: embedded
  versions:
    - version: {version}
      storageUri: pvc://models/{model}/{version}
      digest: {digest_}
  traffic:
    stable: {version}
  goldenTest:
    maxDifference: {difference_max}
"""


def verify(version_folder: Path, version: Version) -> None:
    """
    Check that a folder is what the manifest vouches for, every byte of it.

    Raises:
        TamperedError: a file was changed, removed or added, or the folder holds what no version may hold.
    """
    if digest(version_folder) != version.digest:
        raise TamperedError(f"version {version.number} does not have the digest that its manifest names")


def card(version_folder: Path) -> str:
    """
    Return the card of a version, as Markdown.

    Raises:
        ArtifactError: it is too large, or no text.
        OSError: it cannot be read.
    """
    try:
        return _bounded(version_folder / "assets.extra" / "card.md", CARD_BYTES_MAX, ArtifactError).decode()
    except UnicodeDecodeError as error:
        raise ArtifactError("card.md is no text") from error


def golden(version_folder: Path) -> Golden:
    """
    Return the golden cases of a version.

    Raises:
        ArtifactError: the list is missing, too large or malformed, or names a file that is not beside it.
    """
    path = version_folder / "assets.extra" / "golden" / "cases.json"
    try:
        document = json.loads(_bounded(path, CASES_BYTES_MAX, ArtifactError))
        cases = tuple(_case(path.parent, entry) for entry in document["cases"])
        return Golden(float(document["tolerance"]), cases)
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError("the golden cases cannot be read") from error


def _case(where: Path, entry: Any) -> GoldenCase:
    path = where / _matching(_CASE_FILE, entry["file"])
    if not path.is_file():
        raise ValueError("file")
    return GoldenCase(path, str(entry["label"]), float(entry["probability"]), float(entry["ood_score"]))


def _bounded(path: Path, bytes_max: int, error: type[ArtifactError]) -> bytes:
    """Read a whole file, but never more than *bytes_max*."""
    with path.open("rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise error(f"{path.name} is larger than {bytes_max} bytes")
    return data


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        state = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()
