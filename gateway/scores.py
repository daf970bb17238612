"""What goes to a model and comes back: rank, shape and type are checked both ways."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.contracts import BadScores, InputSpec
from gateway.images import Pixels
from healthguard.problems import InternalError
from serving.tfs.client import Prediction as Answer


@dataclass(frozen=True)
class Scored:
    """A version's answer, as far as it is compared with another's."""

    version: int
    score: float
    outcome: str


def rows_of(pixels: Pixels, spec: InputSpec) -> Pixels:
    """
    Return one picture as a batch of one, once rank, shape and type are what the model takes.

    A server may abort on a tensor of another rank (a fault of oneDNN in TensorFlow 2.21), and take other requests with
    it.

    Raises:
        InternalError: they are not.
    """
    if pixels.shape != (spec.height, spec.width, 3) or pixels.dtype != np.uint8:
        raise InternalError
    return pixels[None]


def scores_of(answer: Answer) -> tuple[float, float]:
    """
    Return the probability and the out-of-distribution score of a batch of one.

    Raises:
        BadScores: an output is missing, or not one number.
    """
    return _score(answer, "probability"), _score(answer, "ood_score")


def _score(answer: Answer, output: str) -> float:
    values: np.ndarray[Any, Any] | None = answer.outputs.get(output)
    if values is None or values.shape != (1,) or values.dtype != np.float32:
        raise BadScores
    return float(values[0])
