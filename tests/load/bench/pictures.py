"""Pictures without end, no two alike, at next to no cost; and the requests that carry them."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.tfs.protos import ModelSpec, PredictRequest, TensorProto, TensorShapeProto

SIDE_PX = 224
SEED = 1
# Of so many different ones each is sent on with another number written over its first pixels.
DIFFERENT = 64


def noise() -> list[NDArray[np.uint8]]:
    """Return pictures of noise, uint8[1, 224, 224, 3]."""
    random = np.random.default_rng(SEED)
    return list(random.integers(0, 256, (DIFFERENT, 1, SIDE_PX, SIDE_PX, 3), dtype=np.uint8))


@dataclass
class Pictures:
    """Pictures for a loop that runs a model itself."""

    _all: list[NDArray[np.uint8]] = field(default_factory=noise)
    _count: Iterator[int] = field(default_factory=itertools.count)

    def next(self) -> NDArray[np.uint8]:
        """Return a picture that was not there before; it is the caller's until 63 others were asked for."""
        number = next(self._count)
        picture = self._all[number % DIFFERENT]
        picture[0, 0, 0:2] = np.frombuffer(number.to_bytes(6, "little"), np.uint8).reshape(2, 3)
        return picture


@dataclass
class Requests:
    """Serialized PredictRequests for a generator of load, so that it costs little itself."""

    model: str
    alias: str = "image"
    _parts: list[tuple[bytes, bytes]] = field(default_factory=list)
    _count: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        """Cut each request in two around the six bytes that will differ."""
        for picture in noise():
            content = picture.tobytes()
            tensor: Any = TensorProto(
                dtype="DT_UINT8",
                tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in picture.shape]),
                tensor_content=content,
            )
            spec = ModelSpec(name=self.model)
            whole = PredictRequest(model_spec=spec, inputs={self.alias: tensor}).SerializeToString()
            at = whole.index(content)
            self._parts.append((whole[:at], whole[at + 6 :]))

    def next(self) -> bytes:
        """Return a request with a picture that was not sent before."""
        number = next(self._count)
        head, tail = self._parts[number % DIFFERENT]
        return b"".join((head, number.to_bytes(6, "little"), tail))
