"""
Draw anemia phantoms: conjunctiva, palm or nail bed, whose pallor follows a hemoglobin value.

Tissue absorbs light as exp(-(blood + melanin)): blood strongest in green, melanin by skin tone, strongest in blue. How
much blood tissue holds is hemoglobin times perfusion, and perfusion differs between people and with the cold; the lamp,
the camera's white and the cloth under the hand tint the picture as well. A pale picture is thus not yet a pale person.
What tells is fine: inside a small vessel there is blood and nothing else, so that its contrast to the tissue around it
follows hemoglobin under every lamp.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from models.fields import Column, Field, grid, lines, normal, step, texture, uniform
from models.scene import Scene

SITES = ("conjunctiva", "palm", "nail bed")
SKIN_TONES = ("I-II", "III-IV", "V-VI")
"""Fitzpatrick's phototypes, in pairs."""
LIGHTS = ("dim", "even", "bright")

BANDS_G_DL = ((12.0, 16.0), (8.0, 12.0), (4.0, 8.0))
"""
Hemoglobin of LOW, MEDIUM and HIGH risk, in g/dL: no anemia, mild or moderate, severe.

Source: WHO, "Guideline on haemoglobin cutoffs to define anaemia in individuals and populations" (2024), non-pregnant
women from 15 years: 12.0 and above none, 8.0 to 11.9 mild or moderate, below 8.0 severe.
"""

RISK_MIDDLE_G_DL = 10.0
RISK_SLOPE = float(np.log(0.7 / 0.3)) / 2.0
"""Chosen so that the risk score passes 0.3 at 12 g/dL and 0.7 at 8 g/dL, the thresholds of the contract."""

_BLOOD = np.array([0.012, 0.075, 0.052], np.float32)
_MELANIN = np.array([0.45, 0.85, 1.25], np.float32)
_SKIN = np.array([0.93, 0.80, 0.72], np.float32)
_WHITE = np.array([0.90, 0.89, 0.87], np.float32)


PERFUSION_SIGMA = 0.55
"""Deviation of the logarithm of perfusion: how much blood tissue holds, whatever is in the blood."""

VESSEL_DEPTH = 0.5
"""Hemoglobin that light meets in a vessel, as a share of what it meets in tissue that is full of blood."""

_LAMP_SIGMA = (0.32, 0.0, 0.36)
"""Deviations of the logarithm of red, green and blue by lamp and camera: candle light to shade, badly balanced."""


@dataclass(frozen=True)
class Blood:
    """
    What of a person's blood the light meets, each value float32[n, 1, 1].

    `tissue` is hemoglobin times perfusion, `vessels` hemoglobin times the depth of a vessel, `spacing` the distance of
    vessels in half canvases.
    """

    tissue: Column
    vessels: Column
    spacing: Column

    def of(self, index: NDArray[np.int64]) -> "Blood":
        """Return the blood of the people *index*."""
        return Blood(self.tissue[index], self.vessels[index], self.spacing[index])

    def beneath(self, rng: Generator, flow: NDArray[np.floating], size_px: int) -> Field:
        """Return what light meets in tissue of which *flow* is the share of blood, with vessels through all of it."""
        return np.asarray(self.tissue * flow + self.vessels * lines(rng, self.spacing, size_px), np.float32)


def risk(hemoglobin_g_dl: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the risk score in 0..1 that a perfect model gives for a hemoglobin value."""
    return np.asarray(1 / (1 + np.exp((hemoglobin_g_dl - RISK_MIDDLE_G_DL) * RISK_SLOPE)), np.float32)


def hemoglobin(score: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the hemoglobin value in g/dL that a risk score stands for: the inverse of `risk`."""
    bounded = np.clip(score, 1e-6, 1 - 1e-6)
    return np.asarray(RISK_MIDDLE_G_DL - np.log(bounded / (1 - bounded)) / RISK_SLOPE, np.float32)


def draw(rng: Generator, index: NDArray[np.int64], size_px: int) -> Scene:
    """Draw one scene for each of *index*; the class is the index modulo 3."""
    count = len(index)
    low, high = np.array(BANDS_G_DL)[index % 3].T
    truth = rng.uniform(low, high).astype(np.float32)
    site, tone = rng.integers(0, len(SITES), count), rng.integers(0, len(SKIN_TONES), count)
    melanin = np.array([0.10, 0.45, 1.0], np.float32)[tone][:, None, None] * uniform(rng, 0.7, 1.3, count)
    blood = Blood(
        truth[:, None, None] * np.exp(normal(rng, 0, PERFUSION_SIGMA, count)),
        # What no picture can tell: vessels of one hemoglobin value differ a little in how wide they are.
        truth[:, None, None] * normal(rng, VESSEL_DEPTH, 0.04 * VESSEL_DEPTH, count),
        uniform(rng, 0.10, 0.13, count),
    )
    albedo = np.empty((count, size_px, size_px, 3), np.float32)
    mask = np.empty((count, size_px, size_px), np.bool_)
    for number, paint in enumerate((_conjunctiva, _palm, _nail_bed)):
        here = np.flatnonzero(site == number)
        if len(here):
            albedo[here], mask[here] = paint(rng, blood.of(here), melanin[here], size_px)
    level = rng.integers(0, len(LIGHTS), count)
    return Scene(
        _illuminate(rng, albedo, level, size_px),
        risk(truth),
        truth,
        mask,
        {
            "site": np.array(SITES)[site],
            "skin tone": np.array(SKIN_TONES)[tone],
            "lighting": np.array(LIGHTS)[level],
        },
    )


Painted = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Albedo float32[n, s, s, 3] in 0..1, and where blood shows bool[n, s, s]."""


def _tissue(base: NDArray[np.float32], blood: Field, melanin: Field) -> NDArray[np.float32]:
    """Return the albedo of tissue with *blood* (g/dL times share) and *melanin* (0..1) over *base* float32[..., 3]."""
    return np.asarray(base * np.exp(-(blood[..., None] * _BLOOD + melanin[..., None] * _MELANIN)), np.float32)


def _ground(rng: Generator, count: int) -> NDArray[np.float32]:
    """Return the colour of tissue without blood, float32[n, 1, 1, 3]: keratin, collagen and bilirubin tint it."""
    return np.asarray(_SKIN * np.exp(rng.normal(-0.05, 0.2, (count, 1, 1, 3))), np.float32)


def _mix(under: NDArray[np.float32], over: NDArray[np.float32], share: Field) -> NDArray[np.float32]:
    """Lay *over* upon *under* where *share* is 1."""
    return np.asarray(under + (over - under) * share[..., None], np.float32)


def _turned(rng: Generator, count: int, size_px: int) -> tuple[Field, Field]:
    """Return the coordinates y and x, shifted, scaled and turned a little for each phantom."""
    y, x = grid(size_px)
    turn, scale = normal(rng, 0, 0.12, count), uniform(rng, 0.85, 1.15, count)
    dy, dx = y - normal(rng, 0, 0.06, count), x - normal(rng, 0, 0.06, count)
    return (
        np.asarray((dy * np.cos(turn) - dx * np.sin(turn)) * scale, np.float32),
        np.asarray((dx * np.cos(turn) + dy * np.sin(turn)) * scale, np.float32),
    )


def _conjunctiva(rng: Generator, blood: Blood, melanin: Column, size_px: int) -> Painted:
    """Paint a lower lid pulled down: the eye above, a red crescent, skin below."""
    count = len(melanin)
    y, x = _turned(rng, count, size_px)
    bend = uniform(rng, 0.15, 0.35, count)
    upper = uniform(rng, -0.35, -0.15, count) - bend * (x**2 - 0.3)
    lower = upper + uniform(rng, 0.45, 0.65, count) * np.clip(1 - 0.7 * x**2, 0.05, 1)
    mottle = texture(rng, uniform(rng, 1.4, 1.8, count), size_px)
    skin = _tissue(
        _SKIN, 0.30 * blood.tissue * (1 + 0.08 * mottle), np.asarray(melanin * (1 + 0.08 * mottle), np.float32)
    )
    red = _tissue(_ground(rng, count), blood.beneath(rng, 0.6 * (1 + 0.07 * mottle), size_px), 0 * mottle)
    veins = np.exp(-np.abs(texture(rng, uniform(rng, 1.2, 1.4, count), size_px)) / 0.05)
    white = _tissue(_WHITE, np.asarray(0.10 * blood.tissue * (0.3 + veins), np.float32), 0 * mottle)
    iris_from = np.hypot(y - upper + uniform(rng, 0.25, 0.5, count), x - normal(rng, 0, 0.2, count))
    iris = np.array([0.16, 0.12, 0.09], np.float32) * np.ones_like(white)
    eye = _mix(white, iris, step(0.42 - iris_from, 0.015))
    band = step(y - upper, 0.012) * step(lower - y, 0.02)
    albedo = _mix(_mix(eye, skin, step(y - lower, 0.02)), red, np.asarray(band, np.float32))
    return albedo, band > 0.5


def _palm(rng: Generator, blood: Blood, melanin: Column, size_px: int) -> Painted:
    """Paint a palm with its three main creases, the roots of four fingers above and the wrist below, on a cloth."""
    count = len(melanin)
    y, x = _turned(rng, count, size_px)
    mottle = texture(rng, uniform(rng, 1.4, 1.8, count), size_px)
    shape = 0.82 - (np.abs(x / uniform(rng, 0.95, 1.1, count)) ** 3 + np.abs(y / 1.05) ** 3) ** (1 / 3)
    hand = step(np.asarray(np.maximum(shape, _limbs(y, x)) + 0.02 * mottle, np.float32), 0.012)
    creases = np.zeros_like(mottle)
    for height, bend in ((-0.35, 0.5), (-0.05, 0.6), (0.2, -0.9)):
        line = y - normal(rng, height, 0.05, count) - bend * (x + normal(rng, 0, 0.1, count)) ** 2 * 0.5
        creases = np.maximum(creases, np.exp(-((line / 0.018) ** 2)))
    flow = 0.6 * (1 + 0.10 * mottle + 0.25 * creases)
    # Palms carry little melanin at any skin tone, but their creases hold more of it.
    under = blood.beneath(rng, flow, size_px)
    skin = _tissue(_ground(rng, count), under, np.asarray(melanin * (0.22 + 0.25 * creases), np.float32))
    return _mix(_sheet(rng, count, size_px), skin, hand), hand > 0.5


def _limbs(y: Field, x: Field) -> Field:
    """Return how far inside the fingers (upwards) or the wrist (downwards) of a hand each pixel is."""
    fingers = np.minimum(0.19 - np.abs((x + 0.84) % 0.42 - 0.21), np.minimum(0.82 - np.abs(x), -0.4 - y))
    return np.asarray(np.maximum(fingers, np.minimum(0.5 - np.abs(x), y - 0.2)), np.float32)


def _nail_bed(rng: Generator, blood: Blood, melanin: Column, size_px: int) -> Painted:
    """Paint a fingertip from above, with nail bed, lunula and a reflection, on a sheet of white."""
    count = len(melanin)
    y, x = _turned(rng, count, size_px)
    mottle = texture(rng, uniform(rng, 1.4, 1.8, count), size_px)
    half = uniform(rng, 0.55, 0.68, count)
    tip = np.where(y < -0.2, np.hypot(x, (y + 0.2) * 0.95), np.abs(x))
    finger = step(np.asarray(half - tip, np.float32), 0.012)
    rough = np.asarray(melanin * (1 + 0.10 * mottle), np.float32)
    skin = _tissue(_SKIN, np.asarray(0.33 * blood.tissue * (1 + 0.08 * mottle), np.float32), rough)
    from_nail = ((np.abs(x) / (half * 0.68)) ** 3 + (np.abs(y + 0.15) / 0.5) ** 3) ** (1 / 3)
    nail = step(np.asarray(1 - from_nail, np.float32), 0.02)
    lunula = step(np.asarray(0.22 - np.hypot(x / 1.6, y - 0.32), np.float32), 0.02)
    under = blood.beneath(rng, 0.65 * (1 + 0.05 * mottle) * (1 - 0.5 * lunula), size_px)
    bed = _tissue(_ground(rng, count), under, np.asarray(melanin * 0.08 + 0 * mottle, np.float32))
    streak = np.exp(-(((x - uniform(rng, -0.2, 0.2, count)) / 0.05) ** 2)) * step(0.3 - np.abs(y + 0.2), 0.05)
    shine = np.asarray(uniform(rng, 0.0, 0.4, count) * streak, np.float32)
    bed = _mix(bed, np.ones_like(bed), shine)
    albedo = _mix(_mix(_sheet(rng, count, size_px), skin, finger), bed, np.asarray(nail * finger, np.float32))
    return albedo, nail * finger > 0.5


def _sheet(rng: Generator, count: int, size_px: int) -> NDArray[np.float32]:
    """Return a ground of paper or cloth, of any tint so that it is no white to compare with, float32[n, s, s, 3]."""
    grey = uniform(rng, 0.45, 0.8, count) * (1 + 0.015 * texture(rng, uniform(rng, 0.6, 1.2, count), size_px))
    tint = np.exp(rng.normal(0, 0.25, (count, 1, 1, 3))).astype(np.float32)
    return np.asarray((grey[..., None] * tint).clip(0, 1), np.float32)


def _illuminate(
    rng: Generator, albedo: NDArray[np.float32], level: NDArray[np.int64], size_px: int
) -> NDArray[np.float32]:
    """Light the scene unevenly, with a lamp and a camera whose white is a little off, and encode with gamma."""
    count = len(albedo)
    y, x = grid(size_px)
    gain = np.array([0.55, 0.75, 0.95], np.float32)[level][:, None, None] * uniform(rng, 0.9, 1.1, count)
    slope = normal(rng, 0, 0.10, count) * y + normal(rng, 0, 0.10, count) * x
    shade = np.asarray(gain * (1 + slope), np.float32)[..., None]
    white = np.exp(rng.normal(0, _LAMP_SIGMA, (count, 1, 1, 3))).astype(np.float32)
    return np.asarray(np.clip(albedo * shade * white, 0, 1) ** (1 / 2.2), np.float32)
