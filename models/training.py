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

from models import definition
from models.catalog import Purpose
from models.phantoms import Phantoms

BATCH = 32
LEARNING_RATE = 2e-3
GUIDANCE = 10.0
"""Weight of the local loss, which shows the network where to look long before the one bit for each image would."""

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
    step = _step(network, optimizer)
    curve: list[Epoch] = []
    for number in range(purpose.epochs):
        start = time.monotonic()
        order = rng.permutation(len(training.target))[: steps * BATCH].reshape(steps, BATCH)
        losses = [float(step(*_batch(rng, training, i, purpose.mirrors))) for i in order]
        loss = _loss(logits(network, validation.images), validation.target)
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


def logits(network: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the network's uncalibrated logits float32[n] for uint8[n, h, w, 3]."""
    run = tf.function(lambda batch: network(tf.cast(batch, tf.float32) / 255, training=False)[0], reduce_retracing=True)
    parts = [run(tf.constant(images[i : i + BATCH])).numpy() for i in range(0, len(images), BATCH)]
    return np.asarray(np.concatenate(parts)[:, 0], np.float32)


def _loss(logit: NDArray[np.float32], target: NDArray[np.float32]) -> float:
    return float(np.mean(np.logaddexp(0, logit) - target * logit))


def _step(network: Any, optimizer: Any) -> Callable[..., Any]:
    """Return a function that takes images, targets and masks, moves the weights once and returns the loss."""

    def step(images: Any, target: Any, mask: Any) -> Any:
        with tf.GradientTape() as tape:
            logit, local = network(tf.cast(images, tf.float32) / 255, training=True)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(target, logit[:, 0]))
            guide = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(_local_target(target, mask, local), local))
            total = loss + GUIDANCE * guide
        gradients = tape.gradient(total, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return loss

    compiled: Callable[..., Any] = tf.function(step)
    return compiled


def _local_target(target: Any, mask: Any, local: Any) -> Any:
    """Return what each cell of *local* should say: the target, as far as the evidence covers the cell."""
    covered = tf.cast(mask, tf.float32)[..., None] * target[:, None, None, None]
    return tf.image.resize(covered, tf.shape(local)[1:3], method="area")
