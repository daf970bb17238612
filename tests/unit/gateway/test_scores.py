"""What is checked before a tensor is sent, and after one came back."""

from typing import Any

import grpc
import numpy as np
import pytest

from gateway.calls import PROBLEMS_BY_CODE
from gateway.contracts import BadScores, InputSpec
from gateway.scores import rows_of, scores_of
from healthguard.problems import InternalError
from serving.tfs.client import Prediction

SPEC = InputSpec(height=4, width=6, channels="RGB", resize="area", fit="stretch")


def answer(**outputs: Any) -> Prediction:
    """Return a model's answer with these outputs beside good ones."""
    good = {"probability": np.array([0.25], np.float32), "ood_score": np.array([2.0], np.float32)}
    return Prediction("cancer", 1, "serving_default", good | outputs)


def test_rows_are_one_picture() -> None:
    """A batch dimension is added, and nothing else."""
    pixels = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    np.testing.assert_array_equal(rows_of(pixels, SPEC), pixels[None])


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((6, 4, 3), np.uint8),
        np.zeros((4, 6), np.uint8),
        np.zeros((1, 4, 6, 3), np.uint8),
        np.zeros((4, 6, 4), np.uint8),
        np.zeros((4, 6, 3), np.float32),
    ],
    ids=["turned", "rank 2", "rank 4", "four channels", "floats"],
)
def test_tensor_of_another_form_is_never_sent(pixels: Any) -> None:
    """A rank that the graph does not expect can end the process of a model server."""
    with pytest.raises(InternalError):
        rows_of(pixels, SPEC)


def test_scores_are_read() -> None:
    """Both, as Python numbers."""
    assert scores_of(answer()) == (0.25, 2.0)


@pytest.mark.parametrize("output", ["probability", "ood_score"])
@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2,), np.float32),
        np.zeros((1, 1), np.float32),
        np.zeros((1,), np.float64),
        np.zeros((1,), np.int32),
        None,
    ],
    ids=["two rows", "rank 2", "doubles", "integers", "missing"],
)
def test_answer_of_another_form_is_no_score(output: str, values: Any) -> None:
    """What is read from it would be another row's, or nothing."""
    with pytest.raises(BadScores):
        scores_of(answer(**{output: values}))


def test_every_retry_later_is_a_503_or_504() -> None:
    """No code that may heal becomes a 500, and none that is our fault a 503."""
    assert {code.name: kind.status for code, kind in PROBLEMS_BY_CODE.items()} == {
        "UNAVAILABLE": 503,
        "NOT_FOUND": 503,
        "RESOURCE_EXHAUSTED": 503,
        "DEADLINE_EXCEEDED": 504,
        "INVALID_ARGUMENT": 500,
    }
    assert grpc.StatusCode.INTERNAL not in PROBLEMS_BY_CODE
