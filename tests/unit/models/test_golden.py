"""Golden cases: clear ones only, of every class and of several sizes, and files that can be read back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models import artifact, golden, phantoms
from models.catalog import PURPOSES

CANCER = PURPOSES["cancer"]
LIMIT = 2.0


def knowing(purpose_seed: int, *, ood_score: float = 1.0) -> golden.Run:
    """Return a model that knows the truth of every candidate of a seed, by heart."""
    truth = {
        phantoms.resize(candidate.image, 224).tobytes(): candidate.label
        for _, batch in zip(range(4), golden.candidates(CANCER, seed=purpose_seed), strict=False)
        for candidate in batch
    }

    def run(_: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        label = truth[inputs["image"][0].tobytes()]
        return {"probability": np.array([0.1 + 0.8 * label]), "ood_score": np.array([ood_score])}

    return run


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw few phantoms at a time, since each here is as good as the next."""
    monkeypatch.setattr(golden, "BATCH_MAX", 4)
    monkeypatch.setattr(golden, "_ROUNDS_MAX", 4)
    monkeypatch.setattr(golden, "CASES_MIN", 7)


def test_cases_are_of_every_class_and_several_sizes() -> None:
    """Each class has as many cases as promised, in more than one size."""
    cases = golden.choose(CANCER, knowing(1), ood_limit=LIMIT, seed=1)
    assert [case.label for case in cases] == [0] * 4 + [1] * 4
    assert len({len(case.image) for case in cases if case.label == 1}) >= 2


def test_choosing_fails_where_nothing_is_familiar() -> None:
    """A model that finds its own phantoms strange has no golden cases, and is not exported."""
    with pytest.raises(golden.GoldenError):
        golden.choose(CANCER, knowing(1, ood_score=LIMIT), ood_limit=LIMIT, seed=1)


@pytest.mark.parametrize(
    ("label", "probability", "ood_score", "clear"),
    [
        (1, 0.9, 1.0, True),
        (0, 0.1, 1.0, True),
        (0, 0.9, 1.0, False),
        (1, 0.55, 1.0, False),
        (1, 0.9, 1.95, False),
    ],
    ids=["right", "right the other way", "wrong", "too near the threshold", "too near the limit"],
)
def test_clear_means_right_far_and_familiar(label: int, probability: float, ood_score: float, *, clear: bool) -> None:
    """Each condition alone is enough to leave a case out."""
    assert golden.is_clear(label, probability, ood_score, CANCER, LIMIT) is clear


def test_written_cases_are_read_back(tmp_path: Path) -> None:
    """The list and the files are what the readers of a version folder expect; a mammogram's file is grey."""
    shades = [np.full((8, 8, 3), value, np.uint8) for value in (3, 4, 5)]
    cases = [
        golden.Case(shades[0], 0, 0.1, 0.5),
        golden.Case(shades[1], 1, 0.9, 0.6),
        golden.Case(shades[2], 1, 0.8, 0.7),
    ]
    (tmp_path / "assets.extra").mkdir()
    golden.write(tmp_path / "assets.extra" / "golden", CANCER, cases)
    found = artifact.golden(tmp_path)
    assert [(case.path.name, case.label, case.probability) for case in found.cases] == [
        ("negative-01.png", "Negative", 0.1),
        ("positive-01.png", "Positive", 0.9),
        ("positive-02.png", "Positive", 0.8),
    ]
    with Image.open(found.cases[2].path) as image:
        assert (image.mode, image.getpixel((0, 0))) == ("L", 5)
