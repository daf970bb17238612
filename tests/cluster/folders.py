"""Where the cluster keeps what it builds (kept) and what it runs on (removed)."""

import os
import shutil
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "healthguard" / "cluster"
RUNS = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "healthguard" / "cluster"

_KEPT = 2
"""How many builds of a thing stay in the cache: this tree's, and that of the branch beside it."""


def keep_newest(cache: Path, name: str, suffix: str = "") -> None:
    """Remove all but the newest builds of a thing, which are called NAME-KEY and a suffix, with their locks."""
    # A key is hexadecimal, so that "helm" is not taken for "helm-something"; and a program is not its image.
    digits = "[0-9a-f]" * 12
    found = cache.glob(f"{name}-{digits}{suffix}")
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        Path(f"{path}.lock").unlink(missing_ok=True)
