"""Make a model from nothing: draw phantoms, train, calibrate, measure, write the card and the version folder."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models import (
    artifact,
    calibration,
    card,
    contract,
    definition,
    evaluation,
    export,
    golden,
    graph,
    measures,
    strange,
    training,
)
from models.catalog import SIDE_PX, Purpose
from models.phantoms import Phantoms, dataset, resize
from models.weights import Familiarity, Weights, fold

OOD_REFUSED = 0.01
"""Share of familiar images that the out-of-distribution limit refuses by construction."""

FOLDED_WITHIN = 1e-3
"""How far the logits of the folded network may be from those of the trained one; 1e-5 is usual."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sets:
    """Phantoms that share no image: for training, for all that is fitted after it, for the figures of the card."""

    training: Phantoms
    validation: Phantoms
    test: Phantoms


def draw_sets(purpose: Purpose, say: Say) -> Sets:
    """Draw all phantoms of a model; each set has a seed of its own."""
    counts = {"training": purpose.training, "validation": purpose.validation, "test": purpose.test}
    drawn = {}
    for number, (name, count) in enumerate(counts.items()):
        start = time.monotonic()
        drawn[name] = dataset(purpose.model, count, seed=purpose.seed + 10 * (number + 1), side_px=SIDE_PX)
        say(f"{purpose.model}: drew {count} phantoms for {name} in {time.monotonic() - start:.0f} s")
    return Sets(**drawn)


def train(purpose: Purpose, sets: Sets, say: Say) -> tuple[Weights, dict[str, Any]]:
    """Train, calibrate and measure; return the weights and the training record."""

    def report(number: int, epoch: training.Epoch) -> None:
        say(
            f"{purpose.model}: epoch {number}/{purpose.epochs}, loss {epoch.loss:.4f}, "
            f"validation {epoch.validation_loss:.4f}, {epoch.seconds:.0f} s"
        )

    network, curve = training.train(purpose, sets.training, sets.validation, report=report)
    logit = training.logits(network, sets.validation.images)
    weights = _fit(purpose, network, logit, sets)
    say(f"{purpose.model}: measuring on {purpose.test} test phantoms")
    record = {
        "model": purpose.model,
        "version": purpose.version,
        "seed": purpose.seed,
        "phantoms": {"training": purpose.training, "validation": purpose.validation, "test": purpose.test},
        "parameters": network.count_params(),
        "weights_digest": weights.digest(),
        **_measured(purpose, weights, logit, sets),
        "curve": [
            {"loss": round(epoch.loss, 5), "validation_loss": round(epoch.validation_loss, 5)} for epoch in curve
        ],
    }
    return weights, record


def _fit(purpose: Purpose, network: Any, logit: NDArray[np.float32], sets: Sets) -> Weights:
    """Fold the trained *network*, calibrate it by its validation *logit*, and learn what is familiar to it."""
    strides = tuple(block.stride for block in definition.BLOCKS[purpose.model])
    convolutions, head, bias = fold(network, strides, definition.POOLING_GAIN)
    # One feature stands in until the features can be computed, which needs the convolutions.
    nothing = Familiarity(np.zeros(1, np.float32), np.zeros((1, 1), np.float32))
    weights = Weights(convolutions, head, bias, calibration.temperature(logit, sets.validation.target), nothing)
    folded = _in_batches(sets.validation.images, lambda image: graph.logit(weights, image))[:, 0]
    if np.abs(folded - logit).max() > FOLDED_WITHIN:
        raise export.ExportError("the folded network does not answer as the trained one")
    features = _in_batches(sets.training.images, lambda image: graph.features(weights, image))
    return replace(weights, familiarity=calibration.familiarity(features))


def _measured(purpose: Purpose, weights: Weights, logit: NDArray[np.float32], sets: Sets) -> dict[str, Any]:
    """Return everything that was measured, so that card and contract have one source."""
    validated, familiar = _answers(weights, sets.validation.images)
    score, strange_score = _answers(weights, sets.test.images)
    heatmaps = _in_batches(sets.test.images, lambda image: graph.explain(weights, image)["heatmap"])
    limit = float(np.quantile(familiar, 1 - OOD_REFUSED))
    kinds = strange.images(purpose.model, sets.test.images, seed=purpose.seed + 80)
    refused = {kind: float((_answers(weights, images)[1] > limit).mean()) for kind, images in kinds.items()}
    truth = measures.chosen(sets.validation.target, purpose.thresholds)
    binary = purpose.task == "binary"
    table = None if binary else calibration.confidence_table(validated, truth, purpose.thresholds)
    return {
        "temperature": round(weights.temperature, 6),
        "confidence": table,
        "grid": list(heatmaps.shape[1:]),
        "ood_limit": limit,
        "refused": {"test phantoms of its own": float((strange_score > limit).mean()), **refused},
        "calibration_error": {
            "before": measures.calibration_error(calibration.sigmoid(logit), sets.validation.target),
            "after": measures.calibration_error(score, sets.test.target),
        },
        "figures": evaluation.figures(purpose, score, heatmaps, sets.test),
        "thumbnail_auc": evaluation.thumbnail_auc(sets.training, sets.test) if binary else None,
        "subgroups": evaluation.subgroups(purpose, score, sets.test),
    }


def _answers(weights: Weights, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return probabilities and out-of-distribution scores, float32[n] each, for uint8[n, h, w, 3]."""
    both = _in_batches(images, lambda image: tf.stack(list(graph.predict(weights, image).values()), -1))
    return both[:, 0], both[:, 1]


def _in_batches(images: NDArray[np.uint8], function: Callable[[Any], Any]) -> NDArray[np.float32]:
    run = tf.function(function, input_signature=[tf.TensorSpec([None, *images.shape[1:]], tf.uint8)])
    return np.concatenate([run(tf.constant(images[i : i + 32])).numpy() for i in range(0, len(images), 32)])


def write(home: Path, purpose: Purpose, weights: Weights, record: dict[str, Any], say: Say) -> None:
    """Write card, training record, version folder and manifest of a model under *home*."""
    text = card.render(purpose, record)
    measured = contract.Measured(record["confidence"], record["ood_limit"], record["grid"])
    document = contract.document(purpose, weights, measured, text)
    folder = home / str(purpose.version)
    with export.replacing(folder) as made:
        export.write(made, weights, document, text)
        say(f"{purpose.model}: choosing golden cases")
        run = export.load_saved_model(made)
        limit = float(document["out_of_distribution"]["limit"])
        cases = golden.choose(purpose, run, ood_limit=limit, seed=purpose.seed + 90)
        golden.write(made / "assets.extra" / "golden", purpose, cases)
        images = np.stack([resize(case.image, SIDE_PX) for case in cases])
        difference = export.check(made, contract.text(document), images)
    say(f"{purpose.model}: SavedModel and LiteRT file agree within {difference:.1e}")
    (home / "card.md").write_text(text, encoding="utf-8")
    (home / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (home / "servedmodel.yaml").write_text(manifest(purpose, artifact.digest(folder)), encoding="utf-8")
    say(f"{purpose.model}: wrote version {purpose.version}")


def manifest(purpose: Purpose, digest: str) -> str:
    """Return the ServedModel of a model with one version."""
    return f"""\
# Written by `make models`. Which versions of this model are served, and with what proof.
apiVersion: serving.healthguard.io/v1alpha1
kind: ServedModel
metadata:
  name: {purpose.model}
spec:
  runtime:
    name: embedded
  versions:
    - version: {purpose.version}
      storageUri: pvc://models/{purpose.model}/{purpose.version}
      digest: {digest}
  traffic:
    stable: {purpose.version}
  goldenTest:
    maxDifference: {golden.TOLERANCE}
"""
