"""The heat map: checked, quantised, laid over the picture."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gateway.contracts import BadScores, parse_contract
from gateway.explain import grid_of, overlay
from gateway.routes.predictions import wants_png
from serving.tfs.client import Prediction
from tests.factories import contract_bytes

CONTRACT = parse_contract(contract_bytes(explain={"method": "grad-cam", "grid": [2, 3]}), "cancer", 1)


def answer(heat: Any) -> Prediction:
    """Return a model's answer."""
    return Prediction("cancer", 1, "explain", {"heatmap": heat})


def test_heat_becomes_whole_numbers() -> None:
    """0..1 is 0..255, rounded; what rounding in the graph added is cut off."""
    heat = np.array([[[0.0, 0.5, 1.0], [1.0005, -0.0005, 0.002]]], np.float32)
    np.testing.assert_array_equal(grid_of(answer(heat), CONTRACT), [[0, 128, 255], [255, 0, 1]])


@pytest.mark.parametrize(
    "heat",
    [
        np.zeros((1, 3, 2), np.float32),
        np.zeros((2, 3), np.float32),
        np.zeros((2, 2, 3), np.float32),
        np.zeros((1, 2, 3), np.float64),
        np.full((1, 2, 3), np.nan, np.float32),
        np.full((1, 2, 3), 1.5, np.float32),
        np.full((1, 2, 3), -0.5, np.float32),
        None,
    ],
    ids=["turned", "no batch", "two rows", "doubles", "nan", "above", "below", "missing"],
)
def test_heat_of_another_form_is_refused(heat: Any) -> None:
    """It would be laid over the wrong place, or not be heat at all."""
    with pytest.raises(BadScores):
        grid_of(answer(heat), CONTRACT)


def test_overlay_shows_the_picture_and_the_hot_place() -> None:
    """A PNG of the picture's size: as it was where it is cold, and changed where it is hot."""
    pixels = np.full((64, 48, 3), (10, 120, 200), np.uint8)
    grid = np.zeros((4, 3), np.uint8)
    grid[0, 0] = 255
    shown = np.asarray(Image.open(io.BytesIO(overlay(pixels, grid))))
    assert shown.shape == pixels.shape
    np.testing.assert_array_equal(shown[-1, -1], pixels[-1, -1])
    assert np.abs(shown[2, 2].astype(int) - pixels[2, 2]).max() > 60


@pytest.mark.parametrize(
    ("accept", "png"),
    [
        ("image/png", True),
        ("image/png;q=0.9, */*;q=0.1", True),
        ("*/*", False),
        ("", False),
        ("application/json, image/png", False),
        ("image/*", False),
    ],
)
def test_picture_is_for_who_names_it(accept: str, png: bool) -> None:
    """Everybody else gets the record."""
    assert wants_png(accept) is png
