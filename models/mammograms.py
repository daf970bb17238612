"""
Draw cancer phantoms: a breast in projection, with benign or malignant findings.

Both classes hold masses and calcifications of the same contrast and size, so that the answer lies in their shape: a
malignant mass is spiculated and a benign one smooth; malignant calcifications are many, fine and clustered, benign
ones few and coarse, or fine and scattered.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from models.fields import Column, Field, grid, normal, step, texture, uniform
from models.scene import Scene

DENSITIES = ("A", "B", "C", "D")
"""Breast density classes, from almost entirely fat to extremely dense. Source: ACR BI-RADS Atlas, 5th edition."""

FINDINGS = ("none", "smooth mass", "coarse calcifications", "spiculated mass", "clustered microcalcifications")
"""The first three are not malignant."""

_ANGLES = 720
_SPECK_PEAK = (0.25, 0.5)
"""Attenuation that a calcification adds at its middle, fine or coarse alike."""


@dataclass(frozen=True)
class Outline:
    """
    Half an ellipse against the left (`side` 1) or right (-1) edge, each value float32[n, 1, 1].

    `height` and `width` are its half-axes and `lift` the height of its middle, in half canvases.
    """

    side: Column
    height: Column
    width: Column
    lift: Column

    def at(self, angle: NDArray[np.floating], reach: NDArray[np.floating]) -> tuple[Column, Column]:
        """Return y and x of the point *reach* (0 middle of the chest wall, 1 skin) away in direction *angle*."""
        y = self.lift + self.height * reach * np.sin(angle)
        x = self.side * (self.width * reach * np.cos(angle) - 1)
        return np.asarray(y, np.float32), np.asarray(x, np.float32)

    def rim(self, size_px: int) -> Field:
        """Return how far inside each pixel is: 1 in the middle of the chest wall, 0 at the skin, negative outside."""
        y, x = grid(size_px)
        across, along = (y - self.lift) / self.height, (x * self.side + 1) / self.width
        return np.asarray(1 - np.hypot(across, along), np.float32)


def draw(rng: Generator, index: NDArray[np.int64], size_px: int) -> Scene:
    """Draw one scene for each of *index*; those with an odd index are malignant."""
    count = len(index)
    malignant = index % 2 == 1
    finding = np.where(malignant, rng.integers(3, 5, count), rng.integers(0, 3, count))
    density = rng.integers(0, len(DENSITIES), count)
    side = rng.choice([-1.0, 1.0], (count, 1, 1)).astype(np.float32)
    outline = Outline(
        side, uniform(rng, 0.75, 0.95, count), uniform(rng, 1.2, 1.75, count), uniform(rng, -0.1, 0.1, count)
    )
    rim = outline.rim(size_px)
    inside = step(rim, 0.008)
    centre = outline.at(uniform(rng, -1.1, 1.1, count), uniform(rng, 0.25, 0.68, count))
    lesion, mask = _findings(rng, finding, centre, size_px)
    tissue = _tissue(rng, rim, density) + (lesion + _scattered(rng, outline, size_px)) * inside
    light = _expose(rng, tissue, inside)
    truth = malignant.astype(np.float32)
    return Scene(
        np.repeat(light[..., None], 3, axis=-1),
        truth,
        truth,
        mask & malignant[:, None, None],
        {
            "density": np.array(DENSITIES)[density],
            "finding": np.array(FINDINGS)[finding],
            "side": np.where(side[:, 0, 0] > 0, "left", "right"),
        },
    )


def _tissue(rng: Generator, rim: Field, density: NDArray[np.int64]) -> Field:
    """Return the attenuation of fat, glands, strands and skin."""
    count, size_px = len(rim), rim.shape[-1]
    # The compressed breast is of even thickness but for its rim.
    thickness = np.sqrt(np.clip(rim * 6, 0, 1))
    level = np.array([-0.9, -0.3, 0.3, 0.9], np.float32)[density][:, None, None]
    glands = step(texture(rng, uniform(rng, 1.3, 1.7, count), size_px) + level, 0.45)
    strands = texture(rng, uniform(rng, 1.0, 1.2, count), size_px)
    tissue = 0.22 + 0.26 * glands + 0.028 * strands
    skin = 0.10 * np.exp(-(((rim - 0.015) / 0.015) ** 2))
    return np.asarray(tissue * thickness + skin, np.float32)


def _findings(
    rng: Generator, finding: NDArray[np.int64], centre: tuple[Column, Column], size_px: int
) -> tuple[Field, NDArray[np.bool_]]:
    """Return the extra attenuation of each phantom's finding, and where it is."""
    count = len(finding)
    field = np.zeros((count, size_px, size_px), np.float32)
    mask = np.zeros(field.shape, np.bool_)
    y, x = grid(size_px)
    painters = (None, _smooth_mass, _coarse_calcifications, _spiculated_mass, _microcalcifications)
    for number, paint in enumerate(painters):
        here = np.flatnonzero(finding == number)
        if paint is None or not len(here):
            continue
        dy, dx = y - centre[0][here], x - centre[1][here]
        radius = uniform(rng, 0.10, 0.18, len(here))
        field[here] = paint(rng, np.asarray(dy, np.float32), np.asarray(dx, np.float32), radius)
        mask[here] = np.hypot(dy, dx) < 1.3 * radius
    return field, mask


def _contrast(rng: Generator, count: int) -> Column:
    """Draw how much a mass adds to the attenuation; benign and malignant masses do not differ in it."""
    return uniform(rng, 0.14, 0.24, count)


def _smooth_mass(rng: Generator, dy: Field, dx: Field, radius: Column) -> Field:
    """Draw an ellipse with a clear edge."""
    count = len(radius)
    turn, stretch = uniform(rng, 0, np.pi, count), uniform(rng, 0.75, 1.0, count)
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    inside = 1 - np.hypot(along / radius, across / (radius * stretch))
    return _contrast(rng, count) * step(inside, uniform(rng, 0.06, 0.14, count))


def _spiculated_mass(rng: Generator, dy: Field, dx: Field, radius: Column) -> Field:
    """Draw a core with a ragged outline from which spicules radiate, thinner the farther out."""
    count = len(radius)
    outline, rays = _silhouette(rng, count)
    direction = np.arctan2(dy, dx) % (2 * np.pi) / (2 * np.pi) * _ANGLES
    index = direction.astype(np.int64).clip(0, _ANGLES - 1).reshape(count, -1)
    outline_here, rays_here = (
        np.take_along_axis(table, index, 1).reshape(direction.shape) for table in (outline, rays)
    )
    relative = np.hypot(dy, dx) / radius
    core = step(np.asarray(outline_here - relative, np.float32), 0.10)
    # A ray is a wedge in angle; raising it to the distance keeps its width in pixels about constant.
    spread = rays_here ** np.clip(relative, 0.5, 3) * np.exp(-np.clip(relative - 0.6, 0, None) / 1.0)
    return np.asarray(_contrast(rng, count) * np.maximum(core, spread), np.float32)


def _silhouette(rng: Generator, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return, by angle, the radius of the core and the strength of the spicules, float32[count, _ANGLES] each."""
    theta = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    orders = np.arange(3, 10)[:, None]
    waves = np.cos(orders * theta + rng.uniform(0, 2 * np.pi, (count, 7, 1)))
    outline = 0.72 * (1 + (rng.normal(0, 0.07, (count, 7, 1)) * waves).sum(axis=1))
    away = rng.uniform(0, 2 * np.pi, (count, 14, 1)) - theta
    lengths = rng.uniform(0.5, 1.0, (count, 14, 1)) * (rng.random((count, 14, 1)) < 0.85)
    rays = (lengths * np.exp((np.cos(away) - 1) / 0.008)).max(axis=1)
    return outline.astype(np.float32), rays.astype(np.float32)


def _microcalcifications(rng: Generator, dy: Field, dx: Field, radius: Column) -> Field:
    """Draw 12 to 23 fine specks in a cluster."""
    return _cluster(rng, (dy, dx), radius, number=(12, 24), sigma_px=(0.5, 0.9))


def _coarse_calcifications(rng: Generator, dy: Field, dx: Field, radius: Column) -> Field:
    """Draw one to four large specks near each other."""
    return _cluster(rng, (dy, dx), radius, number=(1, 5), sigma_px=(1.4, 2.6))


def _cluster(
    rng: Generator,
    offset: tuple[Field, Field],
    radius: Column,
    *,
    number: tuple[int, int],
    sigma_px: tuple[float, float],
) -> Field:
    """Draw between number[0] and number[1] - 1 specks, even over a disk of *radius* around where *offset* is 0."""
    count, most, size_px = len(radius), number[1] - 1, offset[0].shape[-2]
    # The offsets start at the canvas' corner, (-1, -1), so that they give the centre back.
    centre = (-1 - offset[0][:, 0, 0], -1 - offset[1][:, 0, 0])
    present = np.arange(most) < rng.integers(*number, (count, 1))
    away = radius[:, :, 0] * np.sqrt(rng.random((count, most)))
    turn = rng.uniform(0, 2 * np.pi, (count, most))
    y, x = centre[0][:, None] + away * np.sin(turn), centre[1][:, None] + away * np.cos(turn)
    heights = rng.uniform(*_SPECK_PEAK, (count, most)) * present
    return _specks((y, x), rng.uniform(*sigma_px, (count, most)), heights, size_px)


def _scattered(rng: Generator, outline: Outline, size_px: int) -> Field:
    """Draw up to five fine calcifications anywhere in the breast: alone they mean nothing, in either class."""
    shape = (len(outline.side), 1, 5)
    y, x = outline.at(rng.uniform(-1.4, 1.4, shape), np.sqrt(rng.random(shape)) * 0.9)
    count = rng.integers(0, 6, (shape[0], 1, 1))
    heights = rng.uniform(*_SPECK_PEAK, shape) * (np.arange(5) < count)
    return _specks((y[:, 0], x[:, 0]), rng.uniform(0.5, 0.9, shape)[:, 0], heights[:, 0], size_px)


def _specks(
    at: tuple[NDArray[np.floating], NDArray[np.floating]],
    sigma_px: NDArray[np.floating],
    heights: NDArray[np.floating],
    size_px: int,
) -> Field:
    """Add Gaussian specks at (y, x), each float[n, k]; sigma is in pixels of a 224-pixel canvas."""
    reach = 9
    sigma = (sigma_px * size_px / 224)[..., None, None]
    row, column = ((value[..., None, None] + 1) / 2 * (size_px - 1) for value in at)
    offset = np.arange(-reach, reach + 1)
    rows, columns = np.rint(row).astype(np.int64) + offset[:, None], np.rint(column).astype(np.int64) + offset
    values = heights[..., None, None] * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2))
    field = np.zeros((len(heights), size_px + 2 * reach, size_px + 2 * reach), np.float32)
    which = np.arange(len(heights))[:, None, None, None]
    # Specks beyond the picture land in a margin that is cut off.
    margin = size_px + 2 * reach - 1
    np.add.at(field, (which, (rows + reach).clip(0, margin), (columns + reach).clip(0, margin)), values)
    return field[:, reach:-reach, reach:-reach]


def _expose(rng: Generator, attenuation: Field, inside: Field) -> Field:
    """Apply what differs between detectors: gain, offset, gamma and the air beside the breast."""
    count = len(attenuation)
    gain, gamma = uniform(rng, 0.9, 1.2, count), uniform(rng, 0.85, 1.15, count)
    air = uniform(rng, 0.01, 0.04, count)
    light = np.clip(attenuation * gain, 0, 1) ** gamma * inside + air
    return np.asarray(light + normal(rng, 0, 0.005, count), np.float32).clip(0, 1)
