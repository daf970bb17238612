"""The digest of a version folder, defined as in models/artifact.py; a test holds both equal on committed versions."""

import hashlib
import os
from pathlib import Path

FILES_MAX = 10_000
_CHUNK_BYTES = 1024 * 1024


class NotAFolderOfFiles(Exception):
    """A version folder that holds what no version may hold; the text says what."""


def digest(folder: Path) -> str:
    """
    Return "sha256:" and the SHA-256 of the sorted lines "<sha256>  <relative path>" of all files in *folder*.

    Raises:
        NotAFolderOfFiles: there is no such folder, or it holds a link, a special file or too many files.
    """
    lines = sorted(f"{found}  {name}\n" for name, found in sums(folder).items())
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def sums(folder: Path) -> dict[str, str]:
    """
    Return the SHA-256 of each file in hexadecimal, by its path in *folder*.

    Raises:
        NotAFolderOfFiles: there is no such folder, or it holds a link, a special file or too many files.
    """
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files(folder)}


def files(folder: Path) -> list[Path]:
    """
    Return every file under *folder*, sorted.

    Raises:
        NotAFolderOfFiles: there is no such folder, or it holds a link, a special file or too many files.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise NotAFolderOfFiles("there is no such folder")
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(root, name)
            # With a line break in a name, one file could read like two in the lines of the digest.
            if not name.isprintable():
                raise NotAFolderOfFiles("the name of a file has a strange letter")
            # A link may lead to a file that nobody vouches for and that changes after the check.
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise NotAFolderOfFiles("it holds a link or a special file")
        found += [Path(root, name) for name in names]
        if len(found) > FILES_MAX:
            raise NotAFolderOfFiles(f"it holds more than {FILES_MAX} files")
    return sorted(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        state = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()
