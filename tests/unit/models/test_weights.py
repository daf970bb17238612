"""Trained weights as arrays: what the digest depends on, and the way to disk and back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.weights import Convolution, Familiarity, Weights


@pytest.fixture
def weights() -> Weights:
    """Return small weights."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 3, 2)).astype(np.float32)
    return Weights(
        (Convolution(kernel, np.ones(2, np.float32), 2),),
        np.array([1.5, -2], np.float32),
        0.25,
        1.5,
        Familiarity(np.zeros(4, np.float32), np.eye(4, dtype=np.float32)),
    )


def test_digest_of_equal_weights_is_equal(weights: Weights) -> None:
    """The digest depends on values alone."""
    assert replace(weights).digest() == weights.digest()
    assert weights.digest().startswith("sha256:")


def test_digest_depends_on_every_part(weights: Weights) -> None:
    """A change of any part changes the digest."""
    convolution = weights.convolutions[0]
    others = [
        replace(weights, head=weights.head + 1),
        replace(weights, bias=0.5),
        replace(weights, temperature=1.0),
        replace(weights, convolutions=(replace(convolution, stride=1),)),
        replace(weights, convolutions=(replace(convolution, bias=convolution.bias * 2),)),
        replace(weights, familiarity=replace(weights.familiarity, centre=np.ones(4, np.float32))),
    ]
    assert len({weights.digest(), *(other.digest() for other in others)}) == 7


def test_weights_survive_the_disk(weights: Weights, tmp_path: Path) -> None:
    """What is loaded has the digest of what was saved."""
    weights.save(tmp_path / "weights.npz")
    assert Weights.load(tmp_path / "weights.npz").digest() == weights.digest()
