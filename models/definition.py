"""Define the networks in Keras: strided convolutions, a last convolution, average pooling and a linear head."""

from dataclasses import dataclass
from types import MappingProxyType

import keras

from models.catalog import SIDE_PX

PARAMETERS_MAX = 300_000

POOLING_GAIN = 8.0
"""Folded into the head's weights at export."""


@dataclass(frozen=True)
class Block:
    """A convolution without bias, batch normalisation and ReLU."""

    filters: int
    kernel: int
    stride: int


BLOCKS: MappingProxyType[str, tuple[Block, ...]] = MappingProxyType(
    {
        # Fine calcifications are a pixel or two wide, so the grid of the last convolution stays at 14 x 14.
        "cancer": (
            Block(16, 3, 2),
            Block(24, 3, 2),
            Block(40, 3, 2),
            Block(48, 3, 1),
            Block(72, 3, 2),
            Block(96, 3, 1),
        ),
        # Pallor is a matter of large areas compared with each other: a wide view counts, detail does not.
        "anemia": (
            Block(12, 3, 2),
            Block(16, 3, 2),
            Block(24, 3, 2),
            Block(32, 3, 2),
            Block(64, 3, 2),
            Block(64, 3, 1),
        ),
    }
)


def build(model: str) -> keras.Model:
    """
    Build the untrained network of *model*.

    Input: float32[n, 224, 224, 3], RGB in 0..1. Outputs: the logit float32[n, 1], and the local logit
    float32[n, h, w, 1] of every cell of the last convolution, which guides training by the truth masks and is not
    exported.

    Raises:
        KeyError: no such model.
        ValueError: the network has more than PARAMETERS_MAX parameters.
    """
    layer = inputs = keras.Input((SIDE_PX, SIDE_PX, 3))
    for index, block in enumerate(BLOCKS[model]):
        layer = keras.layers.Conv2D(
            block.filters, block.kernel, block.stride, padding="same", use_bias=False, name=f"convolution_{index}"
        )(layer)
        layer = keras.layers.BatchNormalization(momentum=0.95, name=f"normalisation_{index}")(layer)
        layer = keras.layers.ReLU(name=f"activation_{index}")(layer)
    local = keras.layers.Conv2D(1, 1, name="local")(layer)
    # A finding fills a few cells of many, and the average thins it out: the gain starts the head at the right scale.
    pooled = keras.layers.Rescaling(POOLING_GAIN)(keras.layers.GlobalAveragePooling2D(name="pooling")(layer))
    network = keras.Model(inputs, [keras.layers.Dense(1, name="head")(pooled), local], name=model)
    if network.count_params() > PARAMETERS_MAX:
        raise ValueError(f"{model} has {network.count_params()} parameters; at most {PARAMETERS_MAX} are allowed")
    return network
