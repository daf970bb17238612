"""Train one network on phantoms, the same way each time: same seed, same weights."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.random import Generator
from numpy.typing import NDArray

from models import definition, graph
from models.catalog import Purpose
from models.phantoms import Phantoms

BATCH = 32
LEARNING_RATE = 2e-3
GUIDANCE_EVERYWHERE = 10.0
GUIDANCE_IN_MASK = 2.0
"""
Weights of the local loss, which shows the network where to look long before the one bit for each image would.

Where all cells count most of them are easy, so that the mean loss of a cell is small and needs the larger weight.
"""

THREADS = 2
"""Fixed, because the number of threads decides the order of sums."""


def make_deterministic(seed: int) -> None:
    """Seed everything and fix the order of sums; call before TensorFlow runs anything."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    if not tf.config.threading.get_intra_op_parallelism_threads():
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(1)


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training phantoms came to; losses in nats, validation without augmentation."""

    loss: float
    validation_loss: float
    seconds: float


def train(
    purpose: Purpose, training: Phantoms, validation: Phantoms, *, report: Callable[[int, Epoch], None]
) -> tuple[Any, list[Epoch]]:
    """Train the network of *purpose*; return it with the curve of its losses."""
    make_deterministic(purpose.seed)
    network = definition.build(purpose.model)
    rng = np.random.default_rng([purpose.seed, 1])
    steps = len(training.target) // BATCH
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, purpose.epochs * steps, warmup_target=LEARNING_RATE, warmup_steps=steps // 2
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-3)
    step = _step(purpose, network, optimizer)
    curve: list[Epoch] = []
    for number in range(purpose.epochs):
        start = time.monotonic()
        order = rng.permutation(len(training.target))[: steps * BATCH].reshape(steps, BATCH)
        losses = [float(step(*_batch(rng, training, i, purpose.mirrors))) for i in order]
        loss = _loss(logits(purpose, network, validation.images), validation.target)
        curve.append(Epoch(float(np.mean(losses)), loss, time.monotonic() - start))
        report(number + 1, curve[-1])
    return network, curve


def _batch(rng: Generator, phantoms: Phantoms, index: NDArray[np.int64], mirrors: tuple[int, ...]) -> tuple[Any, ...]:
    """Return images, targets and masks of a batch, about half of it mirrored along each of the axes *mirrors*."""
    images, masks = phantoms.images[index], phantoms.mask[index]
    for axis in mirrors:
        mirrored = np.flatnonzero(rng.random(len(index)) < 0.5)
        images[mirrored] = np.flip(images[mirrored], axis)
        masks[mirrored] = np.flip(masks[mirrored], axis)
    return images, phantoms.target[index], masks


def logits(purpose: Purpose, network: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the network's uncalibrated logits float32[n] for uint8[n, h, w, 3]."""
    density = definition.NETWORKS[purpose.model].density
    run = tf.function(
        lambda batch: network(graph.encode(batch, density=density), training=False)[0], reduce_retracing=True
    )
    parts = [run(tf.constant(images[i : i + BATCH])).numpy() for i in range(0, len(images), BATCH)]
    return np.asarray(np.concatenate(parts)[:, 0], np.float32)


def _loss(logit: NDArray[np.float32], target: NDArray[np.float32]) -> float:
    return float(np.mean(np.logaddexp(0, logit) - target * logit))


def _step(purpose: Purpose, network: Any, optimizer: Any) -> Callable[..., Any]:
    """Return a function that takes images, targets and masks, moves the weights once and returns the loss."""
    density = definition.NETWORKS[purpose.model].density
    local_loss = _loss_everywhere if purpose.guided_everywhere else _loss_in_mask

    def step(images: Any, target: Any, mask: Any) -> Any:
        with tf.GradientTape() as tape:
            logit, local = network(graph.encode(images, density=density), training=True)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(target, logit[:, 0]))
            covered = tf.image.resize(tf.cast(mask, tf.float32)[..., None], tf.shape(local)[1:3], method="area")
            total = loss + local_loss(target[:, None, None, None], covered, local)
        gradients = tape.gradient(total, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return loss

    compiled: Callable[..., Any] = tf.function(step)
    return compiled


def _loss_everywhere(target: Any, covered: Any, local: Any) -> Any:
    """Hold each cell to the target as far as the evidence covers it, and to nothing found where it does not."""
    losses = tf.nn.sigmoid_cross_entropy_with_logits(covered * target, local)
    return GUIDANCE_EVERYWHERE * tf.reduce_mean(losses)


def _loss_in_mask(target: Any, covered: Any, local: Any) -> Any:
    """Hold each cell that is mostly evidence to the target; the others may say what they like."""
    counted = tf.cast(covered > 0.5, tf.float32)
    losses = counted * tf.nn.sigmoid_cross_entropy_with_logits(target * tf.ones_like(local), local)
    return GUIDANCE_IN_MASK * tf.reduce_sum(losses) / (tf.reduce_sum(counted) + 1)
