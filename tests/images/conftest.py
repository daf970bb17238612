"""Fixtures: the images of this tree, built once a session, to be read as archives and to be run."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.tools import Unavailable
from tests.images import built as building
from tests.images.built import ROOT, Built, folder
from tests.images.container import Container

Figures = dict[str, dict[str, object]]
"""What was measured, by service."""


@pytest.fixture(scope="session", autouse=True)
def _folders() -> Iterator[None]:
    """Leave no archive and no root file system behind."""
    with building.own_folders():
        yield


@pytest.fixture(scope="session")
def built() -> Built:
    """Build every image whose code is in the tree; steps that did not change come from the builder's cache."""
    try:
        return building.built()
    except Unavailable as reason:
        pytest.skip(f"No image was built: {reason}")


@pytest.fixture(scope="session")
def figures(built: Built) -> Iterator[Figures]:
    """Collect figures of the images; build/images.json has them after the session."""
    measured: Figures = {
        service: {
            "digest": image.digest,
            "megabytes_over_base": round(image.bytes_over_base / 1e6, 1),
            "base_megabytes": round(image.base_bytes / 1e6, 1),
            "build_s": image.build_s,
        }
        for service, image in built.images.items()
    }
    yield measured
    target = ROOT / "build" / "images.json"
    target.parent.mkdir(exist_ok=True)
    load = [round(number, 1) for number in os.getloadavg()]
    target.write_text(json.dumps({"builder": built.builder, "load_average": load, "images": measured}, indent=1) + "\n")


@pytest.fixture(scope="session")
def container(built: Built) -> Callable[[str], Container]:
    """Return what runs a service's image; its files are laid out once."""
    if built.builder == "buildah" and os.geteuid() != 0:
        pytest.skip("No image was run: that needs root, docker or podman.")
    made: dict[str, Container] = {}

    def make(service: str) -> Container:
        if service not in made:
            made[service] = _container(built, service)
        return made[service]

    return make


def _container(built: Built, service: str) -> Container:
    archive = built.archives[service]
    rootfs: Path | None = None
    if built.builder == "buildah":
        rootfs = folder(service)
        archive.unpack(rootfs)
    variables = dict(variable.split("=", 1) for variable in archive.config["config"]["Env"])
    user = archive.config["config"]["User"]
    return Container(built.builder, built.images[service].reference, rootfs, user, variables)
