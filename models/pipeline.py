"""Make a model from nothing: draw phantoms, train, calibrate, measure, write the card and the version folder."""

import json
import tempfile
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
    baseline,
    calibration,
    card,
    contract,
    definition,
    evaluation,
    export,
    familiarity,
    golden,
    graph,
    int8,
    measures,
    phantoms,
    plots,
    strange,
    timing,
    training,
)
from models.catalog import SIDE_PX, Purpose
from models.phantoms import Phantoms, dataset, resize
from models.weights import Familiarity, Folded, Weights, fold

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
    drawn: dict[str, Phantoms] = {}
    for number, (name, count) in enumerate(counts.items()):
        start = time.monotonic()
        drawn[name] = dataset(purpose.model, count, seed=purpose.seed + 10 * (number + 1), side_px=SIDE_PX)
        say(f"{purpose.model}: drew {count} phantoms for {name} in {time.monotonic() - start:.0f} s")
    return Sets(**drawn)


def train(purpose: Purpose, sets: Sets, say: Say) -> tuple[Weights, dict[str, Any]]:
    """Train, calibrate and measure; return the weights and the training record."""
    left = Countdown(purpose.epochs)

    def report(number: int, epoch: training.Epoch) -> None:
        say(
            f"{purpose.model}: epoch {number}/{purpose.epochs}, loss {epoch.loss:.4f}, "
            f"validation {epoch.validation_loss:.4f}, {epoch.seconds:.0f} s, {left.after(number):.0f} s left to train"
        )

    network, curve = training.train(purpose, sets.training, sets.validation, report=report)
    logit = training.logits(purpose, network, sets.validation.images)
    say(f"{purpose.model}: learning what is familiar")
    weights = fit(purpose, folded(purpose, network), logit, sets)
    say(f"{purpose.model}: measuring on {purpose.test} test phantoms")
    record = {
        "model": purpose.model,
        "version": purpose.version,
        "seed": purpose.seed,
        "phantoms": {
            "version": phantoms.VERSION,
            "training": purpose.training,
            "validation": purpose.validation,
            "test": purpose.test,
        },
        "parameters": network.count_params(),
        "weights_digest": weights.digest(),
        **measured(purpose, weights, logit, sets),
        "curve": [
            {"loss": round(epoch.loss, 5), "validation_loss": round(epoch.validation_loss, 5)} for epoch in curve
        ],
    }
    return weights, record


class Countdown:
    """Tell how long the rest of some even steps will take, judged by those that are done."""

    def __init__(self, steps: int) -> None:
        """Start the clock."""
        self._steps, self._start = steps, time.monotonic()

    def after(self, done: int) -> float:
        """Return the seconds left when *done* steps, at least one, are done."""
        return (time.monotonic() - self._start) / done * (self._steps - done)


def folded(purpose: Purpose, network: Any) -> Folded:
    """Fold the batch normalisations of a trained *network* into its convolutions."""
    return fold(network, tuple(block.stride for block in definition.NETWORKS[purpose.model].blocks))


def fit(purpose: Purpose, trained: Folded, logit: NDArray[np.float32], sets: Sets) -> Weights:
    """
    Calibrate what was *trained* by its validation *logit*, and learn what is familiar to it.

    Raises:
        ExportError: the folded network does not answer as the trained one, whose answers *logit* are.
    """
    convolutions, head, bias = trained
    shift, temperature = calibration.chosen_by_error(logit, sets.validation.target)
    density = definition.NETWORKS[purpose.model].density
    weights = Weights(density, convolutions, head, bias + shift, temperature, ())
    answered = _in_batches(sets.validation.images, lambda image: {"logit": graph.logit(weights, image)})["logit"]
    if np.abs(answered[:, 0] - shift - logit).max() > FOLDED_WITHIN:
        raise export.ExportError("the folded network does not answer as the trained one")
    seen, held = (
        _in_batches(part.images, lambda image: graph.features(weights, image))
        for part in (sets.training, sets.validation)
    )
    modes = sets.training.groups[purpose.modes]
    return replace(weights, familiarity=tuple(_familiar(seen[name], modes, held[name]) for name in graph.PARTS))


def _familiar(seen: NDArray[np.float32], modes: NDArray[np.str_], held: NDArray[np.float32]) -> Familiarity:
    """Learn from the features *seen*; what is rare among those *held* out is the unit, so that parts compare."""
    part = familiarity.fit(seen, modes)
    return replace(part, limit=float(np.quantile(familiarity.distance(part, held), 1 - OOD_REFUSED)))


def measured(purpose: Purpose, weights: Weights, logit: NDArray[np.float32], sets: Sets) -> dict[str, Any]:
    """Return everything that was measured, so that card and contract have one source."""
    ask = evaluation.asking(_running(weights))
    validated, answers = ask(sets.validation.images), ask(sets.test.images)
    limit = float(np.quantile(validated.ood_score, 1 - OOD_REFUSED))
    kinds = strange.images(purpose.model, sets.test.images, seed=purpose.seed + 80)
    truth = measures.chosen(sets.validation.target, purpose.thresholds)
    table = None
    if purpose.task == "risk":
        table = calibration.confidence_table(validated.probability, truth, purpose.thresholds)
    return {
        "temperature": round(weights.temperature, 6),
        "confidence": table,
        "grid": list(answers.heatmap.shape[1:]),
        "ood_limit": limit,
        "refused": {
            "test phantoms of its own": {
                "images": len(answers.ood_score),
                "share": float((answers.ood_score > limit).mean()),
            },
            **evaluation.refusals(ask, kinds, limit),
        },
        "calibration": calibration.compared(logit, sets.validation.target),
        "reliability": measures.reliability(answers.probability, sets.test.target),
        **evaluation.report(purpose, answers, sets.test, seed=purpose.seed),
        "baselines": baseline.areas(sets.training, sets.test, purpose.thresholds),
    }


def _running(weights: Weights) -> evaluation.Run:
    """Return the graph of *weights* as a loaded model, before it is written."""
    specification = tf.TensorSpec([None, SIDE_PX, SIDE_PX, 3], tf.uint8)
    signatures = {
        "serving_default": tf.function(lambda image: graph.predict(weights, image), input_signature=[specification]),
        "explain": tf.function(lambda image: graph.explain(weights, image), input_signature=[specification]),
    }

    def run(signature: str, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {name: value.numpy() for name, value in signatures[signature](tf.constant(images)).items()}

    return run


def _in_batches(images: NDArray[np.uint8], function: Callable[[Any], dict[str, Any]]) -> dict[str, NDArray[np.float32]]:
    """Run a *function* of uint8[n, h, w, 3] over any number of images."""
    run = tf.function(function, input_signature=[tf.TensorSpec([None, *images.shape[1:]], tf.uint8)])
    parts = [run(tf.constant(images[i : i + 32])) for i in range(0, len(images), 32)]
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}


def write(
    home: Path, purpose: Purpose, weights: Weights, record: dict[str, Any], say: Say, *, in_int8: bool = False
) -> None:
    """
    Write card, training record, version folder and manifest of a model under *home*.

    *in_int8* stores the convolutions of the LiteRT file in 8 bits; record, card and contract say so, and the golden
    cases are that file's.

    Raises:
        ExportError: the two files of the version do not agree, or one does not answer with numbers.
    """
    if in_int8:
        say(f"{purpose.model}: measuring what 8 bits cost")
        record = {**record, "int8": int8_cost(purpose, weights, record)}
    texts = {name: card.render(purpose, record, language) for language, name in card.NAMES.items()}
    folder = home / str(purpose.version)
    say(f"{purpose.model}: writing the version and choosing its golden cases")
    with export.replacing(folder) as made:
        difference = _write_version(made, purpose, weights, record, texts)
    say(f"{purpose.model}: SavedModel and LiteRT file agree within {difference:.1e}")
    for name, text in texts.items():
        (home / name).write_text(text, encoding="utf-8")
    plots.write(home, record)
    (home / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    tolerance = int8.TOLERANCE if in_int8 else golden.TOLERANCE
    (home / "servedmodel.yaml").write_text(manifest(purpose, artifact.digest(folder), tolerance), encoding="utf-8")
    say(f"{purpose.model}: wrote version {purpose.version}")


def _write_version(
    made: Path, purpose: Purpose, weights: Weights, record: dict[str, Any], texts: dict[str, str]
) -> float:
    """Write a version folder, and return how far its two files are apart."""
    in_int8 = "int8" in record
    document = _contract(purpose, weights, record, texts[card.NAMES["en"]], in_int8=in_int8)
    export.write(made, weights, document, texts[card.NAMES["en"]], in_int8=in_int8)
    for name, text in texts.items():
        (made / "assets.extra" / name).write_text(text, encoding="utf-8")
    # In 8 bits the file that differs is the one whose answers are listed: most servers of such a version run it.
    run = export.load_litert(made / "model.tflite") if in_int8 else export.load_saved_model(made)
    cases = _golden(purpose, run, document)
    tolerance = int8.TOLERANCE if in_int8 else golden.TOLERANCE
    golden.write(made / "assets.extra" / "golden", purpose, cases, tolerance=tolerance)
    return export.check(made, contract.text(document), _pixels(cases), within=int8.WITHIN if in_int8 else {})


def _contract(
    purpose: Purpose, weights: Weights, record: dict[str, Any], text: str, *, in_int8: bool
) -> dict[str, Any]:
    """Return the contract of a version whose card is *text*."""
    found = contract.Measured(record["confidence"], record["ood_limit"], record["grid"])
    return contract.document(purpose, weights, found, text, limitations=(int8.LIMITATION,) if in_int8 else ())


def _golden(purpose: Purpose, run: golden.Run, document: dict[str, Any]) -> list[golden.Case]:
    limit = float(document["out_of_distribution"]["limit"])
    return golden.choose(purpose, run, ood_limit=limit, seed=purpose.seed + 90)


def _pixels(cases: list[golden.Case]) -> NDArray[np.uint8]:
    return np.stack([resize(case.image, SIDE_PX) for case in cases])


def int8_cost(purpose: Purpose, weights: Weights, record: dict[str, Any]) -> dict[str, Any]:
    """
    Return what int8 convolutions cost on golden cases, and the bounds that it is held to.

    The card tells it, and the version holds the card's digest: so it is measured before, on files that differ from
    the version's in that digest alone, and are of the same size.
    """
    with tempfile.TemporaryDirectory() as scratch:
        paths = {name: Path(scratch, f"{name}.tflite") for name in ("float", "int8")}
        for name, path in paths.items():
            document = _contract(purpose, weights, record, "", in_int8=name == "int8")
            signatures = export.signatures_of(weights, contract.text(document))
            export.write_litert(path, signatures, in_int8=name == "int8")
        cases = _golden(purpose, export.load_litert(paths["int8"]), document)
        cost = timing.int8_cost(paths["float"], paths["int8"], _pixels(cases))
    return {**cost, "within": dict(int8.WITHIN), "tolerance": int8.TOLERANCE}


def manifest(purpose: Purpose, digest: str, difference_max: float) -> str:
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
    maxDifference: {difference_max}
"""
