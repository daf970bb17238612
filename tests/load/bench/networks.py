"""
The fixed reference networks, made where TensorFlow is and kept below build/.

Run in the training environment: `python -m tests.load.bench.networks FOLDER`. Their weights are random, from a seed:
they are for measuring, and say nothing about pictures. Each has the signatures of a model of ours, and the contract of
one called `cancer`: under this name the gateway serves it on the path that stores nothing.
"""

# mypy: disable-error-code="misc,untyped-decorator"

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (  # type: ignore[import-not-found]
    convert_variables_to_constants_v2,
)

from models import graph
from models.export import COUNT, Signatures, write_litert, write_saved_model

SEED = 7
SIDE_PX = 224
NO_DIGEST = "sha256:" + 64 * "0"
CONTRACT = {
    "schema": "healthguard.io/contract/v1",
    "model": "cancer",
    "version": 1,
    "task": "binary",
    "labels": ["Negative", "Positive"],
    "thresholds": [0.5],
    "input": {"height": SIDE_PX, "width": SIDE_PX, "channels": "RGB", "resize": "area", "fit": "stretch"},
    "calibration": {"method": "temperature", "temperature": 1.0},
    "confidence": {"method": "max"},
    "out_of_distribution": {"method": "mahalanobis", "limit": 1.0},
    "explain": {"method": "none", "grid": []},
    "recommendations": dict.fromkeys(("Negative", "Positive", "Indeterminate"), "None: this network is for measuring."),
    "intended_use": "Measuring.",
    "demonstration": True,
    "weights_digest": NO_DIGEST,
    "card_digest": NO_DIGEST,
}


def small() -> Any:
    """Return a plain convolutional network of 110 k parameters."""
    layers: list[Any] = [keras.Input((SIDE_PX, SIDE_PX, 3))]
    for filters in (32, 64, 128):
        layers += [keras.layers.Conv2D(filters, 3, padding="same", activation="relu"), keras.layers.MaxPooling2D()]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(128, activation="relu")]
    return keras.Sequential([*layers, keras.layers.Dense(1, activation="sigmoid")])


def mobilenet() -> Any:
    """Return MobileNetV2 with one output."""
    return keras.applications.MobileNetV2(weights=None, classes=1, classifier_activation="sigmoid")


NETWORKS: dict[str, Callable[[], Any]] = {"small": small, "mobilenet": mobilenet}


def write(network: Any, folder: Path) -> None:
    """Write both forms of *network* into a version folder, frozen as our own models are."""

    @tf.function(input_signature=[tf.TensorSpec([None, SIDE_PX, SIDE_PX, 3], tf.uint8, name="image")])
    def live(image: Any) -> Any:
        scaled = tf.cast(image, tf.float32) / 127.5 - 1.0
        return network(scaled, training=False)[:, 0]

    frozen = convert_variables_to_constants_v2(live.get_concrete_function())

    def serve(image: Any) -> dict[str, Any]:
        probability = frozen(image)[0]
        return {"probability": probability, "ood_score": tf.zeros_like(probability)}

    signatures: Signatures = {
        "serving_default": (("image", tf.uint8, [None, SIDE_PX, SIDE_PX, 3]), serve),
        "contract": (COUNT, lambda n: graph.contract(json.dumps(CONTRACT), n)),
    }
    write_saved_model(folder, signatures)
    write_litert(folder / "model.tflite", signatures)


def main(target: Path) -> None:
    """Write each network that is not there yet, as version 1 of a model of its name."""
    for name, make in NETWORKS.items():
        if not (target / name / "1").exists():
            keras.utils.set_random_seed(SEED)
            staged = target / name / "staged"
            write(make(), staged)
            staged.rename(target / name / "1")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
