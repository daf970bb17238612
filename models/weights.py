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
    What tells familiar images from strange ones: pooled features, centred and whitened.

    `centre` float32[f]; `whitening` float32[f, k].
    """

    centre: Array
    whitening: Array


@dataclass(frozen=True)
class Weights:
    """
    All numbers of a model version that were learned or measured.

    `head` float32[f] and `bias` give the logit, which is divided by `temperature` before the sigmoid.
    """

    convolutions: tuple[Convolution, ...]
    head: Array
    bias: float
    temperature: float
    familiarity: Familiarity

    def arrays(self) -> dict[str, Array]:
        """Return every number by a name, in an order that is always the same."""
        named: dict[str, Array] = {}
        for index, convolution in enumerate(self.convolutions):
            named[f"convolution_{index}/kernel"] = convolution.kernel
            named[f"convolution_{index}/bias"] = convolution.bias
            named[f"convolution_{index}/stride"] = np.array(convolution.stride, np.float32)
        named["head/kernel"] = self.head
        named["head/bias"] = np.array(self.bias, np.float32)
        named["calibration/temperature"] = np.array(self.temperature, np.float32)
        named["familiarity/centre"] = self.familiarity.centre
        named["familiarity/whitening"] = self.familiarity.whitening
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
            return cls(
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
                Familiarity(file["familiarity/centre"], file["familiarity/whitening"]),
            )


def fold(network: Any, strides: tuple[int, ...], pooling_gain: float) -> tuple[tuple[Convolution, ...], Array, float]:
    """
    Fold each batch normalisation of a trained Keras *network* into the convolution before it.

    Returns:
        The convolutions, the head float32[f] and its bias.
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
    head, bias = network.get_layer("head").get_weights()
    return tuple(convolutions), (head[:, 0] * pooling_gain).astype(np.float32), float(bias[0])
