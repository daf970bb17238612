"""Measure what folding gains and int8 costs: milliseconds for each image, on one thread, and changed answers."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models import definition, evaluation, exam, export, graph, measures
from models.catalog import SIDE_PX, Purpose
from models.phantoms import dataset
from models.weights import Weights

_ROUNDS = 30


def int8_cost(whole: Path, int8: Path, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Return bytes and milliseconds of two LiteRT files, and how their answers differ on *images* uint8[n, h, w, 3]."""
    paths = {"float": whole, "int8": int8}
    one, other = exam.litert(whole), exam.litert(int8)
    differences: dict[str, float] = {}
    for signature in ("serving_default", "explain"):
        expected, found = one(signature, images), other(signature, images)
        differences |= {alias: float(np.abs(value - found[alias]).max()) for alias, value in expected.items()}
    return {
        "bytes": {name: path.stat().st_size for name, path in paths.items()},
        "milliseconds": {name: round(_milliseconds(_litert(path, images[:1])), 1) for name, path in paths.items()},
        "cases": len(images),
        "differences": {alias: round(difference, 4) for alias, difference in differences.items()},
    }


def compare(purpose: Purpose, weights: Weights, scratch: Path, *, phantoms: int, ood_limit: float) -> dict[str, Any]:
    """
    Return milliseconds and bytes of each way to run *purpose*'s network, and how int8 convolutions change its answers.

    Files are written into *scratch*. The network without folding has weights at random, which take as long.
    """
    image = np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8)
    signatures = export.signatures_of(weights, "{}")
    logit: export.Signatures = {
        "serving_default": (signatures["serving_default"][0], lambda pixels: {"logit": graph.logit(weights, pixels)})
    }
    paths = {name: scratch / f"{name}.tflite" for name in ("folded", "whole", "int8")}
    export.write_litert(paths["folded"], logit)
    export.write_litert(paths["whole"], signatures)
    export.write_litert(paths["int8"], signatures, in_int8=True)
    export.write_saved_model(scratch / "folded", logit)
    unfolded = _unfolded(purpose)
    saved = export.load_saved_model(scratch / "folded")
    runs = {
        "TensorFlow, batch normalisations apart": lambda: unfolded(tf.constant(image)),
        "TensorFlow, folded": lambda: saved("serving_default", {"image": image}),
        **{f"LiteRT, {name}": _litert(path, image) for name, path in paths.items()},
    }
    return {
        "milliseconds": {name: round(_milliseconds(run), 3) for name, run in runs.items()},
        "bytes": {name: path.stat().st_size for name, path in paths.items()},
        **_cost(purpose, paths, phantoms, ood_limit),
    }


def _cost(purpose: Purpose, paths: dict[str, Path], count: int, ood_limit: float) -> dict[str, Any]:
    """Return how answers with int8 convolutions differ from those of the float model, on fresh phantoms."""
    drawn = dataset(purpose.model, count, seed=exam.SEEDS_FROM + 7, side_px=SIDE_PX)
    answers = {name: evaluation.asking(exam.litert(paths[name]))(drawn.images) for name in ("whole", "int8")}
    whole, int8 = answers["whole"], answers["int8"]
    truth = measures.chosen(drawn.target, purpose.thresholds)
    return {
        "largest difference": {
            "probability": float(np.abs(whole.probability - int8.probability).max()),
            "ood_score": float(np.abs(whole.ood_score - int8.ood_score).max()),
        },
        "accuracy": {
            name: float((measures.chosen(answer.probability, purpose.thresholds) == truth).mean())
            for name, answer in answers.items()
        },
        "refused": {name: float((answer.ood_score > ood_limit).mean()) for name, answer in answers.items()},
    }


def _unfolded(purpose: Purpose) -> Callable[[Any], Any]:
    network, density = definition.build(purpose.model), definition.NETWORKS[purpose.model].density
    specification = tf.TensorSpec([None, SIDE_PX, SIDE_PX, 3], tf.uint8)
    run = tf.function(
        lambda image: network(graph.encode(image, density=density), training=False)[0], input_signature=[specification]
    )
    concrete: Callable[[Any], Any] = run.get_concrete_function()
    return concrete


def _litert(path: Path, image: NDArray[np.uint8]) -> Callable[[], Any]:
    runner = exam.runner(path, "serving_default")
    return lambda: runner(image=image)


def _milliseconds(run: Callable[[], Any]) -> float:
    """Return the median of some runs, after a few that warm up."""
    taken = []
    for number in range(_ROUNDS + 5):
        start = time.perf_counter()
        run()
        if number >= 5:
            taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)
