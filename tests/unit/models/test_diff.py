"""Two versions compared: agreement, distances, and who says what."""

from pathlib import Path

import pytest

from models import artifact, diff
from models.diff import Pair

MODELS = Path(artifact.__file__).parent


def stable(model: str) -> Path:
    """Return the folder of a model's stable version."""
    manifest = artifact.read_manifest(MODELS / model / artifact.MANIFEST_NAME)
    return artifact.folder(MODELS, manifest.version(manifest.stable))


def test_measure_counts_agreement_and_distance() -> None:
    """Two of three agree; the table has every outcome of either version."""
    found = diff.measure(
        [Pair(("No", "No"), (0.1, 0.2)), Pair(("Yes", "No"), (0.6, 0.3)), Pair(("Yes", "Yes"), (0.9, 0.9))]
    )
    assert found.agreement == pytest.approx(2 / 3)
    assert found.score_difference_max == pytest.approx(0.3)
    assert found.score_difference_mean == pytest.approx(0.4 / 3)
    assert found.confusion == {"No": {"No": 1, "Yes": 0}, "Yes": {"No": 1, "Yes": 1}}


def test_version_agrees_with_itself() -> None:
    """Compared with itself on its own golden cases, nothing differs."""
    folder = stable("anemia")
    found = diff.compare(folder, folder, folder / "assets.extra" / "golden", each=list)
    assert found.pictures == len(artifact.golden(folder).cases)
    assert (found.agreement, found.score_difference_max) == (1.0, 0.0)


def test_versions_with_other_labels_cannot_be_compared() -> None:
    """A risk is no finding."""
    with pytest.raises(artifact.ArtifactError, match="labels"):
        diff.compare(stable("anemia"), stable("cancer"), stable("cancer"), each=list)


def test_folder_without_pictures_cannot_be_compared(tmp_path: Path) -> None:
    """Nothing compared is no agreement."""
    with pytest.raises(artifact.ArtifactError, match="0 pictures"):
        diff.compare(stable("cancer"), stable("cancer"), tmp_path, each=list)
