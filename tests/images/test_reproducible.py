"""The same tree gives the same image, so anybody can check that an image is what its source says."""

import os

import pytest

from k8s.images import build
from tests.images.built import Built, build_images, folder
from tests.images.conftest import Figures

pytestmark = [pytest.mark.xdist_group("images"), pytest.mark.timeout(3600)]

ALL = build.buildable()
# The one with the most and the oddest dependencies; `make prove` builds every image twice.
SERVICES = ALL if os.environ.get("HEALTHGUARD_PROVE") else ["gateway"]


@pytest.mark.parametrize("service", SERVICES)
def test_image_built_anew_has_the_same_digest(built: Built, figures: Figures, service: str) -> None:
    """A build that takes no step from the cache ends with the same bytes."""
    again = build_images(folder("again"), built.builder, built.base, "--fresh", service)
    assert again[service].digest == built.images[service].digest
    figures[service] |= {"same_digest_twice": True, "build_anew_s": again[service].build_s}
