"""Fixtures: the images of this tree, built once a session, to be read as archives and to be run."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from k8s.images import build
from tests.images import base
from tests.images.archive import Archive
from tests.images.container import Container

ROOT = Path(__file__).parents[2]
BUILD_TIMEOUT_S = 3000


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
    command += ["--prefix", "localhost/healthguard-test"]
    run = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S
    )
    assert run.returncode == 0, run.stdout + run.stderr
    images = [build.Image(**image) for image in json.loads((folder / "images.json").read_text())]
    return {image.service: image for image in images}


@pytest.fixture(scope="session")
def built() -> Iterator[Built]:
    """Build every image whose code is in the tree; steps that did not change come from the builder's cache."""
    try:
        builder, on = build.choose_builder(), base.base()
    except (build.BuildFailed, base.Unavailable) as reason:
        pytest.skip(f"No image was built: {reason}")
    with tempfile.TemporaryDirectory(prefix="hg-images-") as name:
        images = build_images(Path(name), builder, on)
        archives = {service: Archive(Path(image.archive)) for service, image in images.items()}
        yield Built(builder, on, images, archives)


@pytest.fixture(scope="session")
def container(built: Built) -> Iterator[Callable[[str], Container]]:
    """Return what runs a service's image; its files are laid out once."""
    if built.builder == "buildah" and os.geteuid() != 0:
        pytest.skip("No image was run: that needs root, docker or podman.")
    with ExitStack() as stack:
        made: dict[str, Container] = {}

        def make(service: str) -> Container:
            if service not in made:
                made[service] = _container(built, service, stack)
            return made[service]

        yield make


def _container(built: Built, service: str, stack: ExitStack) -> Container:
    archive = built.archives[service]
    rootfs = None
    if built.builder == "buildah":
        rootfs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"hg-{service}-")))
        rootfs.chmod(0o755)
        archive.unpack(rootfs)
    variables = dict(variable.split("=", 1) for variable in archive.config["config"]["Env"])
    user = archive.config["config"]["User"]
    return Container(built.builder, built.images[service].reference, rootfs, user, variables)
