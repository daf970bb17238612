"""The derivatives that heat maps are made of are TensorFlow's own, for all that may follow a last convolution."""

import json
from typing import Any

import pytest

from tests.integration.importing.conftest import in_training
from tests.training import needs_training

pytestmark = [*needs_training, pytest.mark.xdist_group("importing")]

HEADS = {
    "mean": "tf.reduce_mean(maps, [1, 2])",
    "mean, kept": "flat(tf.reduce_mean(maps, [1, 2], keepdims=True), 5)",
    "max": "tf.reduce_max(maps, [1, 2])",
    "flatten": "flat(maps, 6 * 7 * 5)",
    "max pool": "flat(tf.nn.max_pool2d(maps, (2, 1), (2, 1), 'VALID'), 3 * 7 * 5)",
    "max pool that cuts off": "flat(tf.nn.max_pool2d(maps, 2, 2, 'VALID'), 3 * 3 * 5)",
    "average pool": "flat(tf.nn.avg_pool2d(maps, 3, 3, 'VALID'), 2 * 2 * 5)",
    "relu": "tf.nn.relu(tf.reduce_mean(maps, [1, 2]) @ square)",
    "relu6": "tf.nn.relu6(4 * tf.reduce_mean(maps, [1, 2]) @ square + row)",
    "leaky": "tf.nn.leaky_relu(tf.reduce_mean(maps, [1, 2]) @ square, 0.3)",
    "tanh": "tf.tanh(tf.reduce_mean(maps, [1, 2]) @ square)",
    "sigmoid": "tf.sigmoid(tf.reduce_mean(maps, [1, 2]) @ square)",
    "normalised": "((tf.reduce_mean(maps, [1, 2]) - row) * (row + 2)) / (row + 3) + row",
    "turned": "row + (2 * tf.reduce_mean(maps, [1, 2]))",
    "transposed": "tf.linalg.matmul(tf.reduce_mean(maps, [1, 2]), square, transpose_b=True)",
}
UNKNOWN = {
    "overlapping windows": ("flat(tf.nn.max_pool2d(maps, 3, 2, 'VALID'), 2 * 3 * 5)", "MaxPool"),
    "softplus": ("tf.nn.softplus(tf.reduce_mean(maps, [1, 2]))", "Softplus"),
    "other axes": ("flat(tf.reduce_mean(maps, [1, 3], keepdims=True), 7)", "Mean"),
    "subtracted from": ("row - tf.reduce_mean(maps, [1, 2])", "Sub"),
    "two branches": ("tf.reduce_mean(maps, [1, 2]) * tf.reduce_max(maps, [1, 2])", "branches"),
}

COMPARE = """
import json, sys
import numpy as np
import tensorflow as tf
from models.importing import reading, scaling, walk
from models.importing.frozen import _frozen
from models.importing.network import Network
rng = np.random.default_rng(3)
kernel = tf.constant(rng.normal(size=(3, 3, 3, 5)).astype(np.float32))
square = tf.constant(rng.normal(size=(5, 5)).astype(np.float32))
row = tf.constant(np.abs(rng.normal(size=5)).astype(np.float32))
def flat(values, size):
    return tf.reshape(values, [-1, size])
told = {}
pixels = rng.integers(0, 256, (3, 6, 7, 3), dtype=np.uint8)
asked = [(name, head, sign) for name, head in json.loads(sys.argv[1]).items() for sign in (1, -1)]
for name, head, sign in asked:
    # Evidence either way: a map of nothing but zeros would agree with everything.
    def tail(maps, head=head, sign=sign):
        values = eval(head)
        last = sign * np.linspace(-1, 2, int(values.shape[-1]), dtype=np.float32)[:, None]
        return tf.linalg.matmul(values, tf.constant(last))
    def features(values):
        return tf.nn.relu(tf.nn.conv2d(values, kernel, 1, "SAME"))
    whole = tf.function(lambda values: tf.sigmoid(tail(features(values))))
    source = _frozen(whole.get_concrete_function(tf.TensorSpec([None, 6, 7, 3], tf.float32)), (6, 7))
    found = walk.read(source, None)
    if found.tail is None:
        told[name] = found.why_no_tail
        continue
    network = Network(source, found, reading.Reading("score", (0.5,)), scaling.SCALINGS["unit"], "grad-cam")
    explain = tf.function(lambda values: network.grad_cam(network.run(values))["heatmap"])
    ours = explain(tf.constant(pixels)).numpy()
    with tf.GradientTape() as tape:
        maps = features(pixels.astype(np.float32) / 255)
        tape.watch(maps)
        logit = tail(maps)
    weights = tf.reduce_mean(tape.gradient(logit, maps), [1, 2], keepdims=True)
    theirs = tf.nn.relu(tf.reduce_sum(weights * maps, -1))
    theirs = theirs / (tf.reduce_max(theirs, [1, 2], keepdims=True) + 1e-6)
    before = told.get(name, [0.0, 0.0])
    found = [float(np.abs(ours - theirs.numpy()).max()), float(ours.max())]
    told[name] = [max(pair) for pair in zip(before, found, strict=True)]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def compared() -> Any:
    """Compare all heads in one process."""
    return in_training(COMPARE, json.dumps(HEADS | {name: head for name, (head, _) in UNKNOWN.items()}))


@pytest.mark.parametrize("name", HEADS)
def test_heat_map_is_that_of_the_tape(compared: Any, name: str) -> None:
    """Within rounding, and with something to see."""
    difference, highest = compared[name]
    assert difference <= 1e-4
    assert highest > 0.5


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_derivative_is_a_reason_and_not_a_guess(compared: Any, name: str) -> None:
    """The operation is named."""
    assert UNKNOWN[name][1] in compared[name]
