"""Measures of answers: the pointing game, figures with intervals, refusals."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models import evaluation
from models.catalog import PURPOSES
from models.phantoms import Phantoms


def test_pointing_game_is_won_where_the_brightest_cell_touches_the_mask() -> None:
    """One pixel of evidence in the brightest cell is enough, one in the cell beside it is not."""
    heatmaps = np.zeros((2, 2, 2), np.float32)
    heatmaps[:, 0, 1] = 1
    mask = np.zeros((2, 8, 8), np.bool_)
    mask[0, 3, 4] = mask[1, 4, 4] = True
    assert evaluation.points_at_evidence(heatmaps, mask).tolist() == [True, False]


CANCER = PURPOSES["cancer"]


def phantoms(count: int) -> Phantoms:
    """Return black images, every second one positive with its evidence in the first quarter."""
    target = (np.arange(count) % 2).astype(np.float32)
    mask = np.zeros((count, 8, 8), np.bool_)
    mask[:, :4, :4] = target[:, None, None] > 0
    images = np.zeros((count, 8, 8, 3), np.uint8)
    return Phantoms(images, target, target, mask, {"density": np.where(np.arange(count) < count // 2, "A", "B")})


def test_report_measures_each_figure_and_subgroup() -> None:
    """A model that knows all but one case, and points right where it is positive, is reported so."""
    test = phantoms(40)
    heatmap = np.zeros((40, 2, 2), np.float32)
    heatmap[:, 0, 0] = 1
    score = 0.1 + 0.8 * test.target
    score[39] = 0.1
    answers = evaluation.Answers(score, np.zeros(40, np.float32), heatmap)
    found = evaluation.report(CANCER, answers, test, seed=1)
    assert found["figures"]["accuracy"]["value"] == pytest.approx(39 / 40)
    assert found["figures"]["AUC"]["value"] == pytest.approx(1 - 0.5 / 20)
    assert found["figures"]["pointing game, on positives"] == {"value": 1, "low": 1, "high": 1, "cases": 20}
    assert found["figures"]["expected calibration error"]["value"] == pytest.approx(((0.1 * 21 - 1) + 0.1 * 19) / 40)
    assert found["subgroups"]["density"]["A"]["value"] == 1
    assert found["subgroups"]["density"]["B"] | {"low": 0, "high": 0} == {
        "value": 0.95,
        "low": 0,
        "high": 0,
        "cases": 20,
    }


def test_refusals_count_what_is_above_the_limit() -> None:
    """The limit itself is still familiar."""

    def ask(images: NDArray[np.uint8]) -> evaluation.Answers:
        scores = images[:, 0, 0, 0].astype(np.float32)
        return evaluation.Answers(scores, scores, np.zeros((len(images), 1, 1), np.float32))

    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    assert evaluation.refusals(ask, {"kind": images}, 1.0) == {"kind": {"images": 4, "share": 0.5}}


def test_asking_keeps_the_order_of_many_images() -> None:
    """More images than are asked at once come back one answer for each, in order."""

    def run(_: str, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        first = images[:, 0, 0, 0].astype(np.float32)
        return {"probability": first, "ood_score": first + 1, "heatmap": first[:, None, None]}

    images = np.arange(70, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    answers = evaluation.asking(run)(images)
    assert answers.probability.tolist() == list(range(70))
    assert answers.ood_score.tolist() == list(range(1, 71))
    assert answers.heatmap.shape == (70, 1, 1)
