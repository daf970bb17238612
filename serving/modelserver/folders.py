"""Version folders on the file system: which there are, and whether one has changed."""

import hashlib
import itertools
import os
from pathlib import Path

import structlog

logger = structlog.get_logger()

VERSION_MAX = 2**63 - 1
FILES_MAX = 10_000
"""Files of a version folder that are looked at for a change."""


def version_folders(base_path: Path) -> dict[int, Path]:
    """
    Return the version folders of a model: the children whose names are numbers.

    Raises:
        OSError: the base path cannot be read.
    """
    found: dict[int, Path] = {}
    for child in sorted(base_path.iterdir()):
        if child.name.isascii() and child.name.isdigit() and int(child.name) <= VERSION_MAX and child.is_dir():
            if int(child.name) in found:
                logger.warning("version_folder_ignored", version=int(child.name), reason="the number is there twice")
                continue
            found[int(child.name)] = child
    return found


def fingerprint(folder: Path) -> str:
    """Return a digest of the names, sizes and times of a folder's files, not of their content; "" if it is gone."""
    digest = hashlib.sha256()
    try:
        for path in sorted(itertools.islice(folder.rglob("*"), FILES_MAX)):
            found = path.stat()
            digest.update(os.fsencode(path))
            digest.update(f"\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ino}\n".encode())
        folder.stat()
    except OSError:
        return ""
    return digest.hexdigest()
