"""
Derivatives of what may follow a last convolution, written with operations that LiteRT has.

TensorFlow's own gradients (ReluGrad, MaxPoolGrad …) cannot be converted. These few can, and cover the usual heads of
classifiers: pooling, dense layers, normalisation.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import tensorflow as tf

Backward = Callable[[Any, list[Any], Any, Any], Any]
"""
From an operation's definition, its inputs (first the one that depends on the picture), its output and the derivative
by the output, to the derivative by that first input. Raises NotImplementedError where it is not known.
"""

COMMUTING = frozenset({"Add", "AddV2", "Mul"})
"""Operations whose inputs may come in either order."""


def _reshape(_definition: Any, inputs: list[Any], _output: Any, gradient: Any) -> Any:
    return tf.reshape(gradient, [-1, *inputs[0].shape[1:]])


def _matmul(definition: Any, inputs: list[Any], _output: Any, gradient: Any) -> Any:
    return tf.linalg.matmul(gradient, inputs[1], transpose_b=not definition.get_attr("transpose_b"))


def _relu6(_definition: Any, _inputs: list[Any], output: Any, gradient: Any) -> Any:
    return gradient * tf.cast((output > 0) & (output < 6), tf.float32)


def _leaky(definition: Any, inputs: list[Any], _output: Any, gradient: Any) -> Any:
    return tf.where(inputs[0] > 0, gradient, gradient * definition.get_attr("alpha"))


def _mean(definition: Any, inputs: list[Any], _output: Any, gradient: Any) -> Any:
    _, height, width, channels = _over_cells(definition, inputs)
    shared = tf.reshape(gradient, [-1, 1, 1, channels]) / float(height * width)
    return shared + tf.zeros_like(inputs[0])


def _over_cells(definition: Any, inputs: list[Any]) -> Any:
    """
    Return the shape of what is reduced over height and width.

    Raises:
        NotImplementedError: it is reduced over something else.
    """
    axes = tf.get_static_value(inputs[1])
    if axes is None or inputs[0].shape.rank != 4 or sorted(axes.reshape(-1).tolist()) != [1, 2]:
        raise NotImplementedError(definition.type)
    return inputs[0].shape


def _max(definition: Any, inputs: list[Any], output: Any, gradient: Any) -> Any:
    channels = _over_cells(definition, inputs)[3]
    highest = tf.cast(tf.equal(inputs[0], tf.reshape(output, [-1, 1, 1, channels])), tf.float32)
    ties = tf.reduce_sum(highest, [1, 2], keepdims=True)
    return highest * tf.reshape(gradient, [-1, 1, 1, channels]) / ties


def _max_pool(definition: Any, inputs: list[Any], output: Any, gradient: Any) -> Any:
    """Give the derivative to the highest cell of each window; where several are, each gets its share."""
    window = _window(definition, inputs[0])
    highest = tf.cast(tf.equal(inputs[0], _spread(output, inputs[0], window)), tf.float32)
    ties = tf.nn.avg_pool2d(highest, window, window, "VALID") * float(window[0] * window[1])
    return highest * _spread(gradient / tf.maximum(ties, 1.0), inputs[0], window)


def _average_pool(definition: Any, inputs: list[Any], _output: Any, gradient: Any) -> Any:
    window = _window(definition, inputs[0])
    return _spread(gradient / float(window[0] * window[1]), inputs[0], window)


def _window(definition: Any, source: Any) -> tuple[int, int]:
    """
    Return the height and width of a pooling's windows.

    Raises:
        NotImplementedError: they overlap, or some are cut off at the edge.
    """
    _, height, width, _ = definition.get_attr("ksize")
    whole = source.shape[1] % height == 0 and source.shape[2] % width == 0
    if list(definition.get_attr("strides")) != [1, height, width, 1] or not (
        whole or definition.get_attr("padding") == b"VALID"
    ):
        raise NotImplementedError(definition.type)
    return int(height), int(width)


def _spread(values: Any, source: Any, window: tuple[int, int]) -> Any:
    """Repeat each cell over its window, with nothing in the rows and columns that no window reaches."""
    wide = tf.repeat(tf.repeat(values, window[0], axis=1), window[1], axis=2)
    rest = [source.shape[i] - values.shape[i] * window[i - 1] for i in (1, 2)]
    return tf.pad(wide, [[0, 0], [0, rest[0]], [0, rest[1]], [0, 0]]) if any(rest) else wide


BACKWARD: MappingProxyType[str, Backward] = MappingProxyType(
    {
        "Identity": lambda _definition, _inputs, _output, gradient: gradient,
        "BiasAdd": lambda _definition, _inputs, _output, gradient: gradient,
        "Add": lambda _definition, _inputs, _output, gradient: gradient,
        "AddV2": lambda _definition, _inputs, _output, gradient: gradient,
        "Mul": lambda _definition, inputs, _output, gradient: gradient * inputs[1],
        "RealDiv": lambda _definition, inputs, _output, gradient: gradient / inputs[1],
        "Sub": lambda _definition, _inputs, _output, gradient: gradient,
        "MatMul": _matmul,
        "Reshape": _reshape,
        "Squeeze": _reshape,
        "Relu": lambda _definition, _inputs, output, gradient: gradient * tf.cast(output > 0, tf.float32),
        "Relu6": _relu6,
        "LeakyRelu": _leaky,
        "Sigmoid": lambda _definition, _inputs, output, gradient: gradient * output * (1 - output),
        "Tanh": lambda _definition, _inputs, output, gradient: gradient * (1 - output * output),
        "Mean": _mean,
        "Max": _max,
        "MaxPool": _max_pool,
        "AvgPool": _average_pool,
    }
)
"""By the name of the operation."""
