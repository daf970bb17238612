"""The same tree gives the same image, so anybody can check that an image is what its source says."""

import os
from pathlib import Path

import pytest

from k8s.images import build
from tests.images.conftest import Built, build_images

pytestmark = [pytest.mark.xdist_group("images"), pytest.mark.timeout(3600)]

ALL = build.buildable()
# The one with the most and the oddest dependencies; `make prove` builds every image twice.
SERVICES = ALL if os.environ.get("HEALTHGUARD_PROVE") else ["gateway"]


@pytest.mark.parametrize("service", SERVICES)
def test_image_built_anew_has_the_same_digest(built: Built, service: str, tmp_path: Path) -> None:
    """A build that takes no step from the cache ends with the same bytes."""
    again = build_images(tmp_path, built.builder, built.base, "--fresh", service)
    assert again[service].digest == built.images[service].digest
    Path(again[service].archive).unlink()  # pytest keeps its temporary folders; this file has 200 MB
