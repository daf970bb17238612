"""A base to build images on where no registry is reached: Debian with Python, made from its packages."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster import progress
from tests.cluster.folders import CACHE, keep_newest
from tests.cluster.tools import Unavailable, search_path

SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv", "ca-certificates")
TIMEOUT_S = 600
# mmdebstrap writes no later time than this into the archive, so that the same packages give the same bytes.
EPOCH = {"SOURCE_DATE_EPOCH": "1"}


def base() -> str:
    """
    Return what BASE names, or a root file system made here once (a minute) and kept in the cache.

    Raises:
        Unavailable: there is neither.
    """
    return os.environ.get("BASE") or str(_made())


def rootfs() -> Path:
    """
    Return the base as a root file system in a tar file, for who takes no image from a registry.

    Raises:
        Unavailable: there is none, and none can be made here.
    """
    found = Path(base())
    if not found.is_file():
        raise Unavailable("BASE names an image in a registry; the cluster takes a root file system in a tar file.")
    return found


def _made() -> Path:
    key = hashlib.sha256(" ".join((SUITE, *PACKAGES, *EPOCH.values())).encode()).hexdigest()[:12]
    target = CACHE / f"{SUITE}-{key}.tar"
    if target.exists():
        return target
    if not shutil.which("mmdebstrap", path=search_path()) or os.geteuid() != 0:
        raise Unavailable(
            "There is no base image: set BASE to one, or run `make test-deps` as root on Debian or Ubuntu."
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    # Made under another name: a file of the right one is whole.
    unfinished = target.with_suffix(f".{os.getpid()}.tar")
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(unfinished)]
    with progress.step("making a base image of Debian packages", estimate_s=60):
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=os.environ | EPOCH
        )
    if run.returncode != 0:
        unfinished.unlink(missing_ok=True)
        raise Unavailable(f"mmdebstrap could not make a base image: {run.stderr[-500:]}")
    unfinished.rename(target)
    keep_newest(CACHE, SUITE, ".tar")
    return target
