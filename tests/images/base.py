"""A base to build images on where no registry is reached: Debian with Python, made from its packages."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv", "ca-certificates")
TIMEOUT_S = 600


class Unavailable(Exception):
    """This machine cannot make a base; the message says what it lacks."""


def base() -> str:
    """
    Return what BASE names, or a root file system made here once (a minute) and kept in the cache.

    Raises:
        Unavailable: there is neither.
    """
    return os.environ.get("BASE") or str(_rootfs())


def _rootfs() -> Path:
    key = hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "healthguard" / "images"
    target = cache / f"{SUITE}-{key}.tar"
    if target.exists():
        return target
    if not shutil.which("mmdebstrap") or os.geteuid() != 0:
        raise Unavailable("there is no base image: set BASE to one, or run as root with mmdebstrap installed")
    cache.mkdir(parents=True, exist_ok=True)
    # Made under another name: a file of the right one is whole.
    unfinished = target.with_suffix(f".{os.getpid()}.tar")
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(unfinished)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if run.returncode != 0:
        unfinished.unlink(missing_ok=True)
        raise Unavailable(f"mmdebstrap could not make a base image: {run.stderr[-500:]}")
    return unfinished.rename(target)
