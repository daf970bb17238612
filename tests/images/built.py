"""The images of this tree, built once for every suite of a run that needs them."""

import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from k8s.images import build
from tests.cluster.folders import CACHE
from tests.cluster.tools import Unavailable
from tests.images import base
from tests.images.archive import Archive

ROOT = Path(__file__).parents[2]
PREFIX = "localhost/healthguard-test"
"""Not what `make images` calls them: a person's own images, perhaps on another base, stay in the builder's store."""
FOLDERS = Path(tempfile.gettempdir())
_NAMED = "healthguard-images-"
_BUILD_S = 3000


@dataclass(frozen=True)
class Built:
    """What `make images` made."""

    builder: str
    base: str
    images: dict[str, build.Image]
    archives: dict[str, Archive]


def build_images(folder: Path, builder: str, on: str, *options: str) -> dict[str, build.Image]:
    """Run the build as `make images` does; return its images by service."""
    command = [sys.executable, "k8s/images/build.py", "--builder", builder, "--base", on, "--output", str(folder)]
    command += ["--prefix", PREFIX]
    with _alone():
        run = subprocess.run(
            [*command, *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=_BUILD_S
        )
    assert run.returncode == 0, run.stdout + run.stderr
    images = [build.Image(**image) for image in json.loads((folder / "images.json").read_text())]
    return {image.service: image for image in images}


@contextmanager
def _alone() -> Iterator[None]:
    """Wait for the tests of another checkout: the names are the same, and one would write out what the other built."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def built() -> Built:
    """
    Build every image whose code is in the tree; steps that did not change come from the builder's cache.

    The archives lie in this process's folder: whoever calls this first removes it at the end of the session.

    Raises:
        Unavailable: this machine cannot build images.
    """
    try:
        builder = build.choose_builder()
    except build.BuildFailed as reason:
        raise Unavailable(str(reason)) from reason
    on = base.base()
    images = build_images(folder("archives"), builder, on)
    archives = {service: Archive(Path(image.archive)) for service, image in images.items()}
    return Built(builder, on, images, archives)


def folder(name: str) -> Path:
    """Return a folder of this process's own, for what is too big to be left behind."""
    own = FOLDERS / f"{_NAMED}{os.getpid()}"
    # Root file systems have programs that run as root for everybody: nobody else gets in.
    own.mkdir(mode=0o700, exist_ok=True)
    (own / name).mkdir(exist_ok=True)
    return own / name


@contextmanager
def own_folders() -> Iterator[None]:
    """Remove this process's folders at the end, and first those of processes that were killed."""
    for path in FOLDERS.glob(f"{_NAMED}*"):
        if not Path("/proc", path.name.removeprefix(_NAMED)).exists():
            shutil.rmtree(path)
    yield
    shutil.rmtree(FOLDERS / f"{_NAMED}{os.getpid()}", ignore_errors=True)
