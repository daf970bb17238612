"""Random fields and coordinates that the scenes of all phantoms are drawn from."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""float32[n, s, s]: one plane for each phantom of a batch."""

Column = NDArray[np.float32]
"""float32[n, 1, 1]: one value for each phantom, which broadcasts over its plane."""


def uniform(rng: Generator, low: float, high: float, count: int) -> Column:
    """Draw one value for each phantom."""
    return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)


def normal(rng: Generator, mean: float, sigma: float, count: int) -> Column:
    """Draw one value for each phantom from a normal distribution."""
    return rng.normal(mean, sigma, (count, 1, 1)).astype(np.float32)


def grid(size_px: int) -> tuple[Field, Field]:
    """Return y float32[1, s, 1] and x float32[1, 1, s], each from -1 to 1."""
    axis = np.linspace(-1, 1, size_px, dtype=np.float32)
    return axis[None, :, None], axis[None, None, :]


def texture(rng: Generator, slope: Column, size_px: int) -> Field:
    """
    Draw noise whose amplitude falls with spatial frequency as f**-slope, with mean 0 and deviation 1.

    Source: Burgess, Jacobson, Judy, "Human observer detection experiments with mammograms and power-law noise",
    Medical Physics 28 (2001): mammograms have a power spectrum of about f**-3, thus an amplitude of f**-1.5.
    """
    frequency = _frequency(size_px)
    frequency[0, 0] = 1
    weight = frequency[None] ** -slope
    weight[:, 0, 0] = 0
    return _filtered(rng, weight, size_px)


def lines(rng: Generator, spacing: Column, size_px: int) -> Field:
    """
    Draw a maze of lines, 1 in their middle and 0 between them, evenly thick and about *spacing* half canvases apart.

    They follow the zeros of noise of one wavelength: unlike those of a texture, they cover the same share everywhere.
    """
    cycles = _frequency(size_px)[None] * (size_px * spacing)
    ripples = _filtered(rng, np.exp(-(((cycles - 1) / 0.2) ** 2)).astype(np.float32), size_px)
    return np.asarray(np.exp(-((ripples / 0.4) ** 2)), np.float32)


def _frequency(size_px: int) -> NDArray[np.float32]:
    """Return the spatial frequency of each term of a real transform, in cycles per pixel."""
    return np.asarray(np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)), np.float32)


def _filtered(rng: Generator, weight: NDArray[np.float32], size_px: int) -> Field:
    """Draw noise of mean 0 and deviation 1 whose spectrum is *weight* float32[n, s, s / 2 + 1]."""
    white = rng.standard_normal((len(weight), size_px, size_px), dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * weight, s=(size_px, size_px))
    return np.asarray(field / field.std(axis=(1, 2), keepdims=True), np.float32)


def step(distance: Field, width: Column | float) -> Field:
    """Rise smoothly from 0 to 1 where *distance* passes 0, over about *width*."""
    return np.asarray(1 / (1 + np.exp(-np.clip(distance / width, -30, 30))), np.float32)
