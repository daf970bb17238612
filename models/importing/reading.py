"""What a network's numbers stand for: how they become one score, and at which thresholds labels begin."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.importing.request import CannotImport, Request

Activation = Literal["sigmoid", "softmax", "probability", "logit"]
"""
How the network ends: in a sigmoid or a softmax, which are taken off to calibrate; or in numbers that the person says
are probabilities or logits.
"""

MARGIN = 0.01
"""How far a golden case is from another label: in its score or, for several classes, in its logits."""

GOLDEN_MAX = 24

Kind = Literal["score", "pair", "classes"]


@dataclass(frozen=True)
class Reading:
    """
    `score`: one number is the score. `pair`: the second of two classes is. `classes`: of more, the likeliest counts.
    """

    kind: Kind
    thresholds: tuple[float, ...]

    @property
    def outputs(self) -> int:
        """Return how many numbers the network gives for an image."""
        return {"score": 1, "pair": 2, "classes": len(self.thresholds) + 1}[self.kind]


def read(request: Request, outputs: int) -> Reading:
    """
    Return what *outputs* numbers for each image stand for.

    Raises:
        CannotImport: they do not fit the labels, or thresholds are needed and missing.
    """
    labels = len(request.labels)
    if request.task == "binary" and labels != 2:
        raise CannotImport(f"A binary model has two labels; --labels names {labels}. Is it --task risk?")
    if outputs not in (1, labels):
        raise CannotImport(f"The network answers {outputs} numbers for each image, but --labels names {labels}.")
    if outputs > 2 and request.thresholds is not None:
        raise CannotImport("--thresholds cut one score; this network has a number for each label and needs none.")
    if outputs > 2:
        return Reading("classes", tuple(round(i / outputs, 6) for i in range(1, outputs)))
    thresholds = request.thresholds or ((0.5,) if labels == 2 else None)
    if thresholds is None or len(thresholds) != labels - 1:
        raise CannotImport(
            f"The network answers one score for {labels} labels. Say where each label after the first begins with "
            f"--thresholds, {labels - 1} rising number{'s' if labels > 2 else ''} between 0 and 1."
        )
    return Reading("pair" if outputs == 2 else "score", thresholds)


def check_exclusive(reading: Reading, activation: Activation) -> None:
    """
    Refuse numbers that do not choose one label.

    Raises:
        CannotImport: each is a yes or no of its own, or there is one that is always 1.
    """
    if reading.kind != "score" and activation == "sigmoid":
        raise CannotImport(
            f"The network ends in {reading.outputs} sigmoids, each a yes or no of its own; only networks that choose "
            "one label can be served."
        )
    if reading.kind == "score" and activation == "softmax":
        raise CannotImport("The network ends in a softmax of one number, which is 1 for every picture.")


def scores(
    reading: Reading, activation: Activation, answers: NDArray[np.floating], temperature: float
) -> NDArray[np.float64]:
    """
    Return what a version must answer, float64[n], from what the source *answers*, float[n, k].

    The graph of a version says the same in its own terms; this is what it is held to.
    """
    values = np.asarray(answers, np.float64).reshape(len(answers), reading.outputs)
    if reading.kind == "score" and activation == "probability":
        return np.clip(values[:, 0], 0, 1)
    logits = _logits(activation, values)
    if reading.kind == "score":
        return 1 / (1 + np.exp(-logits[:, 0] / temperature))
    if reading.kind == "pair":
        return 1 / (1 + np.exp(-(logits[:, 1] - logits[:, 0]) / temperature))
    return _banded(logits / temperature)


def golden_choice(
    reading: Reading, activation: Activation, answers: NDArray[np.floating], temperature: float
) -> NDArray[np.int64]:
    """
    Return which pictures become golden cases, by the source's *answers* to them, float[n, k]: clear ones.

    Raises:
        CannotImport: there is none.
    """
    found = np.flatnonzero(_clear(reading, activation, answers, temperature))[:GOLDEN_MAX]
    if not len(found):
        raise CannotImport(
            "The network answers none of the pictures clearly, so none can test a server. Give pictures of its own "
            "kind with --golden."
        )
    return found


def _clear(
    reading: Reading, activation: Activation, answers: NDArray[np.floating], temperature: float
) -> NDArray[np.bool_]:
    """Tell which answers are so far from another label that rounding cannot change it."""
    if reading.kind == "classes":
        values = np.asarray(answers, np.float64).reshape(len(answers), reading.outputs)
        logits = np.sort(_logits(activation, values) / temperature, axis=-1)
        return np.asarray(logits[:, -1] - logits[:, -2] >= MARGIN)
    score = scores(reading, activation, answers, temperature)
    return np.asarray(np.abs(score[:, None] - np.array(reading.thresholds)).min(axis=-1) >= MARGIN)


def _logits(activation: Activation, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if activation == "logit":
        return values
    likely = np.clip(values, 1e-30, 1)
    return np.log(likely) - np.log(np.clip(1 - values, 1e-30, 1)) if activation == "sigmoid" else np.log(likely)


def _banded(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Put each image into the band of its likeliest class, i / k to (i + 1) / k.

    Within the band the score leans to the neighbours that are likely, too. The plain mean of the class numbers would
    be smoother, but could name a class that the network itself thinks unlikely.
    """
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    likely = shifted / shifted.sum(axis=-1, keepdims=True)
    classes = likely.shape[-1]
    best = likely.argmax(axis=-1)
    mean = likely @ np.arange(classes)
    place: NDArray[np.float64] = (best + 0.5 + 0.5 * (mean - best) / (classes - 1)) / classes
    return place
