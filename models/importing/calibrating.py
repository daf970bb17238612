"""Fit what an imported network leaves open, on labelled pictures: temperature, confidence, what is familiar."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models import calibration, familiarity, measures
from models.importing.documents import Calibration
from models.importing.reading import Activation, Reading, scores
from models.weights import Familiarity

FAMILIAR_SHARE = 0.99
"""Share of the labelled pictures that the out-of-distribution limit lets pass."""

Array = NDArray[np.floating]


def fit(reading: Reading, activation: Activation, answers: Array, truth: NDArray[np.int64]) -> Calibration:
    """
    Fit a temperature for two labels, a table of confidence for more.

    Args:
        answers: the source's own, float[n, k].

    Returns:
        All but what is familiar, which needs features and not answers.
    """
    before = scores(reading, activation, answers, 1.0)
    if len(reading.thresholds) > 1:
        return Calibration(len(truth), confidence=calibration.confidence_table(before, truth, reading.thresholds))
    if activation == "probability" and reading.kind == "score":
        return Calibration(len(truth))
    target = truth.astype(np.float64)
    logit = np.log(np.clip(before, 1e-12, 1)) - np.log(np.clip(1 - before, 1e-12, 1))
    # Half is fitted and half is measured: on the pictures that it was fitted to, every temperature looks good.
    fitted, held = np.arange(len(truth)) % 2 == 0, np.arange(len(truth)) % 2 == 1
    trial = scores(reading, activation, answers[held], calibration.temperature(logit[fitted], target[fitted]))
    error = tuple(measures.calibration_error(score, target[held]) for score in (before[held], trial))
    return Calibration(len(truth), calibration.temperature(logit, target), error=(error[0], error[1]))


def familiar(features: NDArray[np.float32]) -> Familiarity:
    """
    Learn from *features* float32[n, f] what is familiar; at a distance of 1 it ends.

    Every other picture fits it and the rest set the limit: seen pictures are nearer to their own mean than new ones.
    """
    found = familiarity.fit(features[::2], np.full(len(features[::2]), "all"))
    limit = float(np.quantile(familiarity.distance(found, features[1::2]), FAMILIAR_SHARE))
    return replace(found, limit=limit)
