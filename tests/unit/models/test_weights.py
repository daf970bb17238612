"""Trained weights as arrays: what the digest depends on, and the way to disk and back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.weights import Convolution, Familiarity, Weights, fold

FAMILIARITY = Familiarity(
    np.zeros((2, 4), np.float32),
    np.ones((2, 4), np.float32),
    np.ones((2, 4, 3), np.float32),
    np.ones((2, 3), np.float32),
    np.ones(2, np.float32),
    1.25,
)


@pytest.fixture
def weights() -> Weights:
    """Return small weights."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 3, 2)).astype(np.float32)
    return Weights(
        density=False,
        convolutions=(Convolution(kernel, np.ones(2, np.float32), 2),),
        head=np.array([1.5, -2], np.float32),
        bias=0.25,
        temperature=1.5,
        familiarity=(FAMILIARITY, replace(FAMILIARITY, limit=2.0)),
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
        replace(weights, density=True),
        replace(weights, familiarity=(weights.familiarity[0],)),
        replace(weights, familiarity=(replace(FAMILIARITY, rest=np.zeros(2, np.float32)), weights.familiarity[1])),
    ]
    assert len({weights.digest(), *(other.digest() for other in others)}) == 9


def test_weights_survive_the_disk(weights: Weights, tmp_path: Path) -> None:
    """What is loaded has the digest of what was saved."""
    weights.save(tmp_path / "weights.npz")
    assert Weights.load(tmp_path / "weights.npz").digest() == weights.digest()


class Layer:
    """A layer of a network, as far as folding looks at it."""

    epsilon = 1e-3

    def __init__(self, *arrays: NDArray[np.floating]) -> None:
        """Hold the weights."""
        self._arrays = [np.asarray(array, np.float32) for array in arrays]

    def get_weights(self) -> list[NDArray[np.float32]]:
        """Return them."""
        return self._arrays


class Network:
    """A network of one convolution."""

    def __init__(self, *, gain: float) -> None:
        """Make its layers; the head multiplies the evidence by *gain*."""
        rng = np.random.default_rng(5)
        self.kernel, self.statistics = rng.normal(size=(1, 1, 3, 4)), rng.uniform(0.5, 2, (4, 4))
        self.evidence = rng.normal(size=(1, 1, 4, 1))
        self.layers = {
            "convolution_0": Layer(self.kernel),
            "normalisation_0": Layer(*self.statistics),
            "evidence": Layer(self.evidence),
            "head": Layer(np.array([[gain]]), np.array([0.5])),
        }

    def get_layer(self, name: str) -> Layer:
        """Return a layer."""
        return self.layers[name]


def test_folded_convolution_answers_as_convolution_and_normalisation() -> None:
    """One kernel and one bias do what a kernel and four statistics of a batch did."""
    network = Network(gain=2.0)
    (convolution,), head, bias = fold(network, (2,))
    pixel = np.array([0.2, 0.5, 0.9])
    gamma, beta, mean, variance = network.statistics
    expected = (pixel @ network.kernel[0, 0] - mean) / np.sqrt(variance + Layer.epsilon) * gamma + beta
    assert pixel @ convolution.kernel[0, 0] + convolution.bias == pytest.approx(expected, rel=1e-5)
    assert head == pytest.approx(2 * network.evidence[0, 0, :, 0])
    assert (bias, convolution.stride) == (0.5, 2)


def test_head_that_turns_the_evidence_round_is_refused() -> None:
    """A heat map of such a network would show what speaks against the finding."""
    with pytest.raises(ValueError, match="round"):
        fold(Network(gain=-1.0), (2,))
