"""Hold a trained network as plain arrays, batch normalisation folded into the convolutions."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Convolution:
    """`kernel` float32[h, w, in, out], `bias` float32[out]; padding is `same` and ReLU follows."""

    kernel: Array
    bias: Array
    stride: int


@dataclass(frozen=True)
class Familiarity:
    """
    How far features may lie from those of familiar images, which come in *m* modes.

    `centre` and `scale` float32[m, f] standardise features; `directions` float32[m, f, k] are orthonormal, `precision`
    float32[m, k] is one over the variance along each, and `rest` float32[m] that of all that is left over; `limit` is
    the distance that counts as 1.
    """

    centre: Array
    scale: Array
    directions: Array
    precision: Array
    rest: Array
    limit: float

    def arrays(self) -> dict[str, Array]:
        """Return every number by its name."""
        return {
            "centre": self.centre,
            "scale": self.scale,
            "directions": self.directions,
            "precision": self.precision,
            "rest": self.rest,
            "limit": np.array(self.limit, np.float32),
        }


@dataclass(frozen=True)
class Weights:
    """
    All numbers of a model version that were learned or measured.

    `density`: the network sees optical density. `head` float32[f] and `bias` give the logit, which is divided by
    `temperature` before the sigmoid. `familiarity` holds a part for each set of features, in the order of
    `graph.PARTS`.
    """

    density: bool
    convolutions: tuple[Convolution, ...]
    head: Array
    bias: float
    temperature: float
    familiarity: tuple[Familiarity, ...]

    def arrays(self) -> dict[str, Array]:
        """Return every number by a name, in an order that is always the same."""
        named: dict[str, Array] = {"density": np.array(self.density, np.float32)}
        for index, convolution in enumerate(self.convolutions):
            named[f"convolution_{index}/kernel"] = convolution.kernel
            named[f"convolution_{index}/bias"] = convolution.bias
            named[f"convolution_{index}/stride"] = np.array(convolution.stride, np.float32)
        named["head/kernel"] = self.head
        named["head/bias"] = np.array(self.bias, np.float32)
        named["calibration/temperature"] = np.array(self.temperature, np.float32)
        for index, part in enumerate(self.familiarity):
            named |= {f"familiarity_{index}/{name}": array for name, array in part.arrays().items()}
        return named

    def digest(self) -> str:
        """Return the SHA-256 over names, shapes and little-endian values: the same model has the same digest."""
        state = hashlib.sha256()
        for name, array in self.arrays().items():
            state.update(f"{name} {list(array.shape)}\n".encode())
            state.update(np.ascontiguousarray(array, "<f4").tobytes())
        return f"sha256:{state.hexdigest()}"

    def save(self, path: Path) -> None:
        """Write all arrays to an .npz file."""
        np.savez(path, allow_pickle=False, **self.arrays())

    @classmethod
    def load(cls, path: Path) -> "Weights":
        """
        Read what `save` wrote.

        Raises:
            KeyError: an array is missing.
        """
        with np.load(path, allow_pickle=False) as file:
            count = sum(name.endswith("/stride") for name in file.files)
            parts = sum(name.endswith("/limit") for name in file.files)
            return cls(
                bool(file["density"]),
                tuple(
                    Convolution(
                        file[f"convolution_{i}/kernel"],
                        file[f"convolution_{i}/bias"],
                        int(file[f"convolution_{i}/stride"]),
                    )
                    for i in range(count)
                ),
                file["head/kernel"],
                float(file["head/bias"]),
                float(file["calibration/temperature"]),
                tuple(
                    Familiarity(
                        file[f"familiarity_{i}/centre"],
                        file[f"familiarity_{i}/scale"],
                        file[f"familiarity_{i}/directions"],
                        file[f"familiarity_{i}/precision"],
                        file[f"familiarity_{i}/rest"],
                        float(file[f"familiarity_{i}/limit"]),
                    )
                    for i in range(parts)
                ),
            )


Folded = tuple[tuple[Convolution, ...], Array, float]
"""Convolutions, head float32[f] and bias of a network without batch normalisations."""


def fold(network: Any, strides: tuple[int, ...]) -> Folded:
    """
    Fold each batch normalisation of a trained Keras *network* into the convolution before it.

    Returns:
        The convolutions, the head float32[f] and its bias.

    Raises:
        ValueError: the head turned the evidence round, so that a heat map would show the opposite.
    """
    convolutions = []
    for index, stride in enumerate(strides):
        (kernel,) = network.get_layer(f"convolution_{index}").get_weights()
        normalisation = network.get_layer(f"normalisation_{index}")
        gamma, beta, mean, variance = normalisation.get_weights()
        scale = gamma / np.sqrt(variance + normalisation.epsilon)
        convolutions.append(
            Convolution((kernel * scale).astype(np.float32), (beta - mean * scale).astype(np.float32), stride)
        )
    (evidence,) = network.get_layer("evidence").get_weights()
    gain, bias = network.get_layer("head").get_weights()
    if gain[0, 0] <= 0:
        raise ValueError("the head turned the evidence round")
    return tuple(convolutions), (evidence[0, 0, :, 0] * gain[0, 0]).astype(np.float32), float(bias[0])
