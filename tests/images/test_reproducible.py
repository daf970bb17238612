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
    """
    Two builds that take no step from the cache end with the same bytes.

    A step from the cache may stem from an equal base of another name, which stands in the image's history.
    """
    once, again = (
        build_images(folder(name), built.builder, built.base, "--fresh", service)[service] for name in ("once", "again")
    )
    assert again.digest == once.digest
    figures[service] |= {"same_digest_twice": True, "build_anew_s": again.build_s}
