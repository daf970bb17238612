"""
Write a model version as a TensorFlow graph in which every weight is a constant.

The same three functions make the SavedModel and the LiteRT file, so that neither can say something else.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from models.catalog import SIDE_PX
from models.weights import Convolution, Familiarity, Weights

PARTS = ("surface", "layers")
"""The sets of features that familiarity is judged by, each on its own."""

LAYOUT = 4
"""Rows and columns of the layout that an image's surface is looked at in."""

_SCALES = 3


def _convolve(layer: tf.Tensor, convolution: Convolution) -> tf.Tensor:
    kernel, bias = tf.constant(convolution.kernel), tf.constant(convolution.bias)
    return tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(layer, kernel, convolution.stride, "SAME"), bias))


def encode(image: tf.Tensor, *, density: bool) -> tf.Tensor:
    """
    Return what a network sees of an image uint8[n, h, w, 3]: light in 0..1, or its optical density in 0..4.2.

    Training and serving both come through here. A floor of 4 of 255 keeps black from being infinitely dense.
    """
    light = tf.cast(image, tf.float32)
    return -tf.math.log((light + 4) * (1 / 259)) if density else light * (1 / 255)


def _whole(image: tf.Tensor) -> tf.Tensor:
    """
    Return uint8[n, 224, 224, 3] as it is, and refuse every other shape.

    Servers do not hold a request to the shapes that a signature declares. A convolution would take a smaller image as
    it is, and with oneDNN a tensor of another rank ends the whole process; a reshape that cannot be is a plain error.
    """
    return tf.reshape(image, tf.concat([tf.shape(image)[:1], [SIDE_PX, SIDE_PX, 3]], 0))


def _layers(weights: Weights, image: tf.Tensor) -> list[tf.Tensor]:
    """Run the convolutions over uint8[n, 224, 224, 3] and return what each gives."""
    layer = encode(image, density=weights.density)
    layers = []
    for convolution in weights.convolutions:
        layer = _convolve(layer, convolution)
        layers.append(layer)
    return layers


def _mean(plane: tf.Tensor) -> tf.Tensor:
    """
    Return the mean of each channel of float32[n, h, w, c].

    Columns first, then rows: LiteRT adds one number after the other, and 50,000 of them lose four digits.
    """
    return tf.reduce_mean(tf.reduce_mean(plane, 2), 1)


def _pooled(light: tf.Tensor, layers: list[tf.Tensor]) -> tf.Tensor:
    """
    Return what an image looks like to each layer, float32[n, f]: mean and spread of every channel.

    The pixels themselves come first: their colour alone tells many photographs from a mammogram.
    """
    red, green, blue = (light[..., i : i + 1] for i in range(3))
    colours = tf.concat([light, tf.abs(red - green), tf.abs(green - blue)], -1)
    parts = []
    for layer in [colours, *layers]:
        parts += [_mean(layer), tf.sqrt(_mean(tf.square(layer)) + 1e-6)]
    return tf.concat(parts, -1)


def _surface(light: tf.Tensor) -> tf.Tensor:
    """
    Return what an image looks like before any network, float32[n, f]: where it is bright, how sharp, and which way.

    A network learns to overlook blur and turns; here are the colours of a 4 by 4 layout, the logarithms of the first
    and second differences between neighbours at three scales (noise and detail are in them, and blur takes them away),
    and how edges run in each field of the layout (turning swaps them).
    """
    rows = tf.shape(light)[:1]
    field = SIDE_PX // LAYOUT
    parts = [tf.nn.avg_pool2d(light, field, field, "VALID")]
    grey = tf.reduce_mean(light, -1, keepdims=True)
    for _ in range(_SCALES):
        down, across = grey[:, 1:] - grey[:, :-1], grey[:, :, 1:] - grey[:, :, :-1]
        changes = (down, across, down[:, 1:] - down[:, :-1], across[:, :, 1:] - across[:, :, :-1])
        parts += [tf.math.log(_mean(tf.abs(change)) + 1e-4) for change in changes]
        grey = tf.nn.avg_pool2d(grey, 2, 2, "VALID")
    side = field >> _SCALES
    for change in (grey[:, 1:, :-1] - grey[:, :-1, :-1], grey[:, :-1, 1:] - grey[:, :-1, :-1]):
        padded = tf.pad(tf.abs(change), [[0, 0], [0, 1], [0, 1], [0, 0]])
        parts.append(tf.math.log(tf.nn.avg_pool2d(padded, side, side, "VALID") + 1e-3))
    return tf.concat([tf.reshape(part, tf.concat([rows, [-1]], 0)) for part in parts], -1)


def _features(image: tf.Tensor, layers: list[tf.Tensor]) -> dict[str, tf.Tensor]:
    light = encode(image, density=False)
    return {"surface": _surface(light), "layers": _pooled(light, layers)}


def features(weights: Weights, image: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return each of PARTS that familiarity is judged by, float32[n, f], for images uint8[n, 224, 224, 3]."""
    return _features(image, _layers(weights, image))


def logit(weights: Weights, image: tf.Tensor) -> tf.Tensor:
    """Return the uncalibrated logit float32[n, 1] for images uint8[n, 224, 224, 3]."""
    return _logit(weights, _layers(weights, image))


def _logit(weights: Weights, layers: list[tf.Tensor]) -> tf.Tensor:
    means = tf.reduce_mean(layers[-1], [1, 2])
    return tf.linalg.matmul(means, tf.constant(weights.head[:, None])) + weights.bias


def distance(part: Familiarity, found: tf.Tensor) -> tf.Tensor:
    """Return how far features float32[n, f] are from the nearest mode of *part*, its limit being 1: float32[n]."""
    modes = []
    for mode in range(len(part.centre)):
        directions = tf.constant(part.directions[mode])
        standard = (found - tf.constant(part.centre[mode])) * tf.constant(part.scale[mode])
        along = tf.linalg.matmul(standard, directions)
        # Subtracting squares from each other would be half the work, and would lose half the digits.
        left = standard - tf.linalg.matmul(along, tf.transpose(directions))
        squares = tf.reduce_sum(tf.square(along) * tf.constant(part.precision[mode]), -1)
        modes.append(squares + tf.reduce_sum(tf.square(left), -1) * float(part.rest[mode]))
    nearest = tf.reduce_min(tf.stack(modes, -1), -1)
    return tf.sqrt(nearest * (1 / part.centre.shape[-1])) * (1 / part.limit)


Ran = Callable[[tf.Tensor], tuple[tf.Tensor, list[tf.Tensor]]]
"""Give the whole of an image and what each convolution makes of it."""


def running(weights: Weights) -> Ran:
    """Return a function that runs the convolutions once for each tensor, whichever signatures ask for it."""
    ran: dict[Any, tuple[tf.Tensor, list[tf.Tensor]]] = {}

    def run(image: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        if image.ref() not in ran:
            whole = _whole(image)
            ran[image.ref()] = whole, _layers(weights, whole)
        return ran[image.ref()]

    return run


def predict(weights: Weights, image: tf.Tensor, run: Ran | None = None) -> dict[str, tf.Tensor]:
    """
    Score images uint8[n, 224, 224, 3]: calibrated `probability` float32[n] and `ood_score` float32[n].

    An image is as strange as the strangest of its parts. Signatures of one graph share what *run* remembers.
    """
    image, layers = (run or running(weights))(image)
    probability = tf.sigmoid(_logit(weights, layers) * (1 / weights.temperature))
    found = _features(image, layers)
    distances = [distance(part, found[name]) for name, part in zip(PARTS, weights.familiarity, strict=True)]
    strangest = tf.reduce_max(tf.stack(distances, -1), -1)
    return {"probability": tf.reshape(probability, [-1]), "ood_score": tf.reshape(strangest, [-1])}


def explain(weights: Weights, image: tf.Tensor, run: Ran | None = None) -> dict[str, tf.Tensor]:
    """
    Return the Grad-CAM `heatmap` float32[n, h, w] in 0..1 for images uint8[n, 224, 224, 3].

    For average pooling and a linear head the gradient of the logit is the head's own weight divided by the number of
    cells, so that no tape is needed, which LiteRT could not convert.

    Source: Selvaraju et al., "Grad-CAM" (2017); the closed form is Zhou et al., "Learning deep features" (2016).
    """
    last = (run or running(weights))(image)[1][-1]
    evidence = tf.nn.relu(tf.reduce_sum(last * tf.constant(weights.head), -1))
    return {"heatmap": evidence / (tf.reduce_max(evidence, [1, 2], keepdims=True) + 1e-6)}


def contract(document: str, n: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return the contract once for each element of int32[n], since batching gives every signature a batch dimension."""
    return {"json": tf.fill(tf.shape(n), tf.constant(document))}
