"""Write an imported network into a graph as a version's signatures: scaled, read, calibrated, explained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models import graph
from models.export import COUNT, Input, Signatures
from models.importing.frozen import Frozen
from models.importing.gradients import BACKWARD
from models.importing.reading import Reading
from models.importing.request import OCCLUSION_CELLS, Explain
from models.importing.scaling import Scaling
from models.importing.walk import Anatomy
from models.weights import Familiarity

_GREY = 127.0


@dataclass(frozen=True)
class Network:
    """An imported network and all that was decided about it; `familiarity` is None where no pictures were given."""

    frozen: Frozen
    anatomy: Anatomy
    reading: Reading
    scaling: Scaling
    explain: Explain
    temperature: float = 1.0
    familiarity: Familiarity | None = None

    def signatures(self, document: str) -> Signatures:
        """Return the signatures of the version whose contract is *document*."""
        image: Input = ("image", tf.uint8, [None, *self.frozen.size, 3])
        seen: dict[Any, Mapping[str, Any]] = {}

        def shared(pixels: Any) -> Mapping[str, Any]:
            # In one graph, prediction and explanation are written once: weights of hundreds of megabytes, not twice.
            if pixels.ref() not in seen:
                seen[pixels.ref()] = self.run(pixels)
            return seen[pixels.ref()]

        made: dict[str, Any] = {"serving_default": (image, lambda pixels: self.predict(pixels, shared(pixels)))}
        if self.explain == "grad-cam":
            made["explain"] = (image, lambda pixels: self.grad_cam(shared(pixels)))
        if self.explain == "occlusion":
            made["explain"] = (image, self.occlusion)
        return made | {"contract": (COUNT, lambda n: graph.contract(document, n))}

    def run(self, pixels: Any) -> Mapping[str, Any]:
        """Run the network on uint8[n, h, w, 3]; return the tensors that are needed of it, by name."""
        names = {self.anatomy.logits, *filter(None, [self.anatomy.feature])}
        if self.explain == "grad-cam" and self.anatomy.tail is not None:
            names |= {f"{name}:0" for name, _ in self.anatomy.tail.steps}
            names |= {name for _, inputs in self.anatomy.tail.steps for name in inputs}
        wanted = sorted(names)
        found = tf.graph_util.import_graph_def(
            self.frozen.graph,
            input_map={self.frozen.source: self._scaled(pixels)},
            return_elements=wanted,
            name="network",
        )
        return dict(zip(wanted, found, strict=True))

    def _scaled(self, pixels: Any) -> Any:
        """
        Scale uint8 or float32[n, h, w, 3], and refuse every other shape.

        Servers do not hold a request to the declared shape, and with oneDNN a tensor of another rank ends the process.
        """
        whole = tf.reshape(pixels, tf.concat([tf.shape(pixels)[:1], [*self.frozen.size, 3]], 0))
        values = tf.cast(whole, tf.float32)
        if self.scaling.bgr:
            values = tf.concat([values[..., 2:3], values[..., 1:2], values[..., 0:1]], -1)
        return values * tf.constant(self.scaling.factor) + tf.constant(self.scaling.offset)

    def logits(self, ran: Mapping[str, Any]) -> Any:
        """Return float32[n, k]."""
        return tf.reshape(ran[self.anatomy.logits], [-1, self.reading.outputs])

    def _scores(self, ran: Mapping[str, Any]) -> Any:
        """Return float32[n] in 0..1; `reading.scores` says the same of the source's own answers."""
        logits = self.logits(ran)
        if self.anatomy.activation == "probability":
            if self.reading.kind == "score":
                return tf.clip_by_value(logits[:, 0], 0.0, 1.0)
            logits = tf.math.log(tf.maximum(logits, 1e-30))
        logits = logits / self.temperature
        if self.reading.kind == "score":
            return tf.sigmoid(logits[:, 0])
        if self.reading.kind == "pair":
            return tf.sigmoid(logits[:, 1] - logits[:, 0])
        return _banded(logits, self.reading.outputs)

    def features(self, pixels: Any, ran: Mapping[str, Any]) -> Any:
        """
        Return what an image looks like to the network, float32[n, f]: mean and spread of colours and of each channel.

        The features are those of our own models, with the last feature map in place of all layers.
        """
        values = tf.cast(pixels, tf.float32) * (1 / 255)
        red, green, blue = (values[..., i : i + 1] for i in range(3))
        colours = tf.concat([values, tf.abs(red - green), tf.abs(green - blue)], -1)
        parts = []
        for layer in [colours, *([ran[self.anatomy.feature]] if self.anatomy.feature else [])]:
            parts += [tf.reduce_mean(layer, [1, 2]), tf.sqrt(tf.reduce_mean(tf.square(layer), [1, 2]) + 1e-6)]
        return tf.concat(parts, -1)

    def predict(self, pixels: Any, ran: Mapping[str, Any]) -> dict[str, Any]:
        """Return `probability` and `ood_score`, float32[n] each; without familiarity the latter is always 0."""
        score = self._scores(ran)
        if self.familiarity is None:
            return {"probability": score, "ood_score": tf.zeros_like(score)}
        return {"probability": score, "ood_score": graph.distance(self.familiarity, self.features(pixels, ran))}

    def evidence(self, ran: Mapping[str, Any]) -> Any:
        """Return the logit that is explained, float32[n]: of the one score, or of the last label against the first."""
        logits = self.logits(ran)
        return logits[:, 0] if self.reading.outputs == 1 else logits[:, -1] - logits[:, 0]

    def grad_cam(self, ran: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the Grad-CAM `heatmap` float32[n, h, w] in 0..1, differentiating only what follows the last feature map.

        Source: Selvaraju et al., "Grad-CAM" (2017).

        Raises:
            ValueError: the network has no tail that can be differentiated.
        """
        if self.anatomy.tail is None:
            raise ValueError(self.anatomy.why_no_tail)
        direction = [[1.0]] if self.reading.outputs == 1 else [[-1.0, *[0.0] * (self.reading.outputs - 2), 1.0]]
        gradient = tf.zeros_like(self.logits(ran)) + tf.constant(direction)
        gradient = tf.reshape(gradient, [-1, *ran[self.anatomy.logits].shape[1:]])
        for name, inputs in self.anatomy.tail.steps:
            output = ran[f"{name}:0"]
            gradient = BACKWARD[output.op.type](output.op, [ran[each] for each in inputs], output, gradient)
        weights = tf.reduce_mean(gradient, [1, 2], keepdims=True)
        return _heatmap(tf.reduce_sum(weights * ran[self.anatomy.tail.feature], -1))

    def occlusion(self, pixels: Any) -> dict[str, Any]:
        """
        Return the `heatmap` float32[n, 7, 7]: how much the evidence falls when a cell of the picture is made grey.

        Source: Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2014).
        """
        height, width = self.frozen.size
        cells = OCCLUSION_CELLS
        values = tf.reshape(tf.cast(pixels, tf.float32), [-1, 1, 1, height, width * 3])
        # Two narrow masks in turn, not one for each cell: as constants, those would be larger than most networks.
        covered = (values - _GREY) * _strips(height, cells, 1).reshape(1, cells, 1, height, 1)
        covered = covered * _strips(width, cells, 3).reshape(1, 1, cells, 1, width * 3)
        pictures = tf.reshape(values - covered, [-1, height, width, 3])
        without = tf.reshape(self.evidence(self.run(pictures)), [-1, cells, cells])
        whole = tf.reshape(self.evidence(self.run(pixels)), [-1, 1, 1])
        return _heatmap(whole - without)


def _heatmap(evidence: Any) -> dict[str, Any]:
    positive = tf.nn.relu(evidence)
    return {"heatmap": positive / (tf.reduce_max(positive, [1, 2], keepdims=True) + 1e-6)}


def _strips(length: int, cells: int, channels: int) -> NDArray[np.float32]:
    """Return float32[cells, length * channels]: 1 where a strip of the picture is."""
    strip = np.repeat(np.arange(length) * cells // length, channels)
    return np.asarray(strip[None] == np.arange(cells)[:, None], np.float32)


def _banded(logits: Any, classes: int) -> Any:
    likely = tf.nn.softmax(logits)
    best = tf.cast(tf.argmax(logits, -1, output_type=tf.int32), tf.float32)
    mean = tf.reduce_sum(likely * tf.range(classes, dtype=tf.float32), -1)
    return (best + 0.5 + 0.5 * (mean - best) / (classes - 1)) / classes
