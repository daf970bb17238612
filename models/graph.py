"""
Write a model version as a TensorFlow graph in which every weight is a constant.

The same three functions make the SavedModel and the LiteRT file, so that neither can say something else.
"""

import tensorflow as tf

from models.catalog import SIDE_PX
from models.weights import Convolution, Weights


def _convolve(layer: tf.Tensor, convolution: Convolution) -> tf.Tensor:
    kernel, bias = tf.constant(convolution.kernel), tf.constant(convolution.bias)
    return tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(layer, kernel, convolution.stride, "SAME"), bias))


def _pixels(image: tf.Tensor) -> tf.Tensor:
    """
    Scale uint8[n, 224, 224, 3] to 0..1, here and nowhere else, and refuse every other shape.

    Servers do not hold a request to the shapes that a signature declares. A convolution would take a smaller image as
    it is, and with oneDNN a tensor of another rank ends the whole process; a reshape that cannot be is a plain error.
    """
    rows = tf.shape(image)[:1]
    whole = tf.reshape(image, tf.concat([rows, [SIDE_PX, SIDE_PX, 3]], 0))
    return tf.cast(whole, tf.float32) * (1 / 255)


def _layers(weights: Weights, image: tf.Tensor) -> list[tf.Tensor]:
    """Run the convolutions over uint8[n, 224, 224, 3] and return what each gives."""
    layer = _pixels(image)
    layers = []
    for convolution in weights.convolutions:
        layer = _convolve(layer, convolution)
        layers.append(layer)
    return layers


def _pooled(image: tf.Tensor, layers: list[tf.Tensor]) -> tf.Tensor:
    """
    Return what an image looks like to each layer, float32[n, f]: mean and spread of every channel.

    The pixels themselves come first: their colour alone tells many photographs from a mammogram.
    """
    pixels = _pixels(image)
    red, green, blue = (pixels[..., i : i + 1] for i in range(3))
    colours = tf.concat([pixels, tf.abs(red - green), tf.abs(green - blue)], -1)
    parts = []
    for layer in [colours, *layers]:
        mean = tf.reduce_mean(layer, [1, 2])
        square = tf.reduce_mean(tf.square(layer), [1, 2])
        parts += [mean, tf.sqrt(square + 1e-6)]
    return tf.concat(parts, -1)


def features(weights: Weights, image: tf.Tensor) -> tf.Tensor:
    """Return the features that familiarity is judged by, float32[n, f], for images uint8[n, 224, 224, 3]."""
    return _pooled(image, _layers(weights, image))


def logit(weights: Weights, image: tf.Tensor) -> tf.Tensor:
    """Return the uncalibrated logit float32[n, 1] for images uint8[n, 224, 224, 3]."""
    return _logit(weights, _layers(weights, image))


def _logit(weights: Weights, layers: list[tf.Tensor]) -> tf.Tensor:
    means = tf.reduce_mean(layers[-1], [1, 2])
    return tf.linalg.matmul(means, tf.constant(weights.head[:, None])) + weights.bias


def predict(weights: Weights, image: tf.Tensor) -> dict[str, tf.Tensor]:
    """Score images uint8[n, 224, 224, 3]: calibrated `probability` float32[n] and `ood_score` float32[n]."""
    layers = _layers(weights, image)
    probability = tf.sigmoid(_logit(weights, layers) * (1 / weights.temperature))
    centred = _pooled(image, layers) - tf.constant(weights.familiarity.centre)
    whitened = tf.linalg.matmul(centred, tf.constant(weights.familiarity.whitening))
    distance = tf.sqrt(tf.reduce_mean(tf.square(whitened), -1))
    return {"probability": tf.reshape(probability, [-1]), "ood_score": tf.reshape(distance, [-1])}


def explain(weights: Weights, image: tf.Tensor) -> dict[str, tf.Tensor]:
    """
    Return the Grad-CAM `heatmap` float32[n, h, w] in 0..1 for images uint8[n, 224, 224, 3].

    For average pooling and a linear head the gradient of the logit is the head's own weight divided by the number of
    cells, so that no tape is needed, which LiteRT could not convert.

    Source: Selvaraju et al., "Grad-CAM" (2017); the closed form is Zhou et al., "Learning deep features" (2016).
    """
    last = _layers(weights, image)[-1]
    evidence = tf.nn.relu(tf.reduce_sum(last * tf.constant(weights.head), -1))
    return {"heatmap": evidence / (tf.reduce_max(evidence, [1, 2], keepdims=True) + 1e-6)}


def contract(document: str, n: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return the contract once for each element of int32[n], since batching gives every signature a batch dimension."""
    return {"json": tf.fill(tf.shape(n), tf.constant(document))}
