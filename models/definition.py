"""Define the networks in Keras: convolutions, the evidence of each cell of the last one, average pooling."""

from dataclasses import dataclass
from types import MappingProxyType

import keras

from models.catalog import PURPOSES, SIDE_PX

PARAMETERS_MAX = 300_000

POOLING_GAIN = 8.0
"""A finding fills a few cells of many, and the average thins it out: the gain starts the logit at the right scale."""


@dataclass(frozen=True)
class Block:
    """A convolution without bias, batch normalisation and ReLU."""

    filters: int
    kernel: int
    stride: int


@dataclass(frozen=True)
class Network:
    """
    What a network is made of.

    `density`: it sees optical density, the negative logarithm of light, in which lamp and camera add to what tissue
    absorbs instead of multiplying it, so that differences between neighbours are free of them.
    """

    blocks: tuple[Block, ...]
    density: bool


NETWORKS: MappingProxyType[str, Network] = MappingProxyType(
    {
        # Fine calcifications are a pixel or two wide and spicules hardly more: two layers look at every fourth pixel
        # or finer, two at every eighth.
        "cancer": Network(
            (
                Block(16, 3, 2),
                Block(24, 3, 2),
                Block(48, 3, 2),
                Block(64, 3, 1),
                Block(96, 3, 2),
                Block(96, 3, 1),
                Block(96, 3, 1),
            ),
            density=False,
        ),
        "anemia": Network(
            (
                Block(16, 3, 2),
                Block(24, 3, 2),
                Block(32, 3, 2),
                Block(48, 3, 1),
                Block(64, 3, 2),
                Block(64, 3, 1),
            ),
            density=True,
        ),
    }
)


def build(model: str) -> keras.Model:
    """
    Build the untrained network of *model*.

    Input: float32[n, 224, 224, 3], as `graph.encode` gives it. Outputs: the logit float32[n, 1], and the local logit
    float32[n, h, w, 1] of every cell of the last convolution, which guides training by the truth masks and is not
    exported. Both come from the same evidence, so that what the masks teach is what Grad-CAM will show.

    Raises:
        KeyError: no such model.
        ValueError: the network has more than PARAMETERS_MAX parameters.
    """
    layer = inputs = keras.Input((SIDE_PX, SIDE_PX, 3))
    for index, block in enumerate(NETWORKS[model].blocks):
        layer = keras.layers.Conv2D(
            block.filters, block.kernel, block.stride, padding="same", use_bias=False, name=f"convolution_{index}"
        )(layer)
        layer = keras.layers.BatchNormalization(momentum=0.95, name=f"normalisation_{index}")(layer)
        layer = keras.layers.ReLU(name=f"activation_{index}")(layer)
    evidence = keras.layers.Conv2D(1, 1, use_bias=False, name="evidence")(layer)
    # Where every cell is asked, few hold evidence: a bias that says so saves the first thousand steps from learning it.
    bias = keras.initializers.Constant(-2.0 if PURPOSES[model].guided_everywhere else 0.0)
    local = keras.layers.Conv2D(1, 1, kernel_initializer="ones", bias_initializer=bias, name="local")(evidence)
    gain = keras.initializers.Constant(POOLING_GAIN)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooling")(evidence)
    logit = keras.layers.Dense(1, kernel_initializer=gain, name="head")(pooled)
    network = keras.Model(inputs, [logit, local], name=model)
    if network.count_params() > PARAMETERS_MAX:
        raise ValueError(f"{model} has {network.count_params()} parameters; at most {PARAMETERS_MAX} are allowed")
    return network
