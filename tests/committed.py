"""The versions that the repository's manifests serve, so that no test names a number that the next training changes."""

from pathlib import Path

from models import artifact

MODELS = Path(artifact.__file__).parent


def version(model: str) -> int:
    """Return the number of the stable version of *model*."""
    return artifact.read_manifest(MODELS / model / artifact.MANIFEST_NAME).stable


def folder(model: str) -> Path:
    """Return its folder."""
    return MODELS / model / str(version(model))
