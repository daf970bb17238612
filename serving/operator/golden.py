"""
Golden cases of a version: pictures with the answer that its maker measured.

Only pictures that already have the model's input size are asked: how a picture is resized is the gateway's, and is
tested there; here the question is whether this server, on this machine, computes what it must.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.operator.failures import Failure

_FILE_BYTES_MAX = 1024 * 1024
_SIDE_PX_MAX = 4096
CASES_MAX = 256

Ask = Callable[[NDArray[np.uint8]], Awaitable[dict[str, float]]]
"""Asks the server about one picture, uint8[H, W, 3], and returns its outputs by name."""


class Unusable(Exception):
    """The golden cases cannot be read; the text says why."""


@dataclass(frozen=True)
class Case:
    """A picture, uint8[H, W, 3], and the outputs that a right server gives."""

    name: str
    picture: NDArray[np.uint8]
    outputs: dict[str, float]


@dataclass(frozen=True)
class Golden:
    """The cases of a version; outputs may differ by `tolerance`, absolute."""

    tolerance: float
    cases: tuple[Case, ...]


def load(folder: Path) -> Golden:
    """
    Read the golden cases of the version in *folder*; a version without any has no `golden` folder.

    Raises:
        Unusable: the files are there but cannot be understood.
    """
    extra = folder / "assets.extra"
    path = extra / "golden" / "cases.json"
    if not path.exists():
        return Golden(0.0, ())
    try:
        height, width = _input_size(extra / "contract.json")
        document = _document(path)
        found = [_case(path.parent, entry) for entry in document["cases"][:CASES_MAX]]
        fitting = tuple(case for case in found if case.picture.shape[:2] == (height, width))
        return Golden(float(document["tolerance"]), fitting)
    except (OSError, KeyError, TypeError, ValueError, Image.DecompressionBombError) as error:
        raise Unusable("the version's golden cases cannot be read") from error


def _input_size(contract: Path) -> tuple[int, int]:
    given = _document(contract)["input"]
    return int(given["height"]), int(given["width"])


def _document(path: Path) -> Any:
    with path.open("rb") as file:
        content = file.read(_FILE_BYTES_MAX + 1)
    if len(content) > _FILE_BYTES_MAX:
        raise ValueError("too large")
    return json.loads(content)


def _case(folder: Path, entry: Any) -> Case:
    name = str(entry["file"])
    if "/" in name:
        raise ValueError("a case's file lies beside its list")
    with Image.open(folder / name, formats=["PNG"]) as image:
        if max(image.size) > _SIDE_PX_MAX:
            raise ValueError("too large")
        picture = np.asarray(image.convert("RGB"))
    return Case(name, picture, {key: float(entry[key]) for key in ("probability", "ood_score")})


async def failure_of(golden: Golden, ask: Ask, *, difference_max: float | None, required: bool) -> Failure | None:
    """Ask about every case, and return what is wrong with the answers, or None if all are right."""
    if not golden.cases:
        message = "the version has no golden case of its input's size; add some, or set spec.goldenTest.required=false"
        return Failure("NoGoldenCases", message) if required else None
    bound = golden.tolerance if difference_max is None else difference_max
    for case in golden.cases:
        answer = await ask(case.picture)
        for output, expected in case.outputs.items():
            difference = abs(answer.get(output, float("nan")) - expected)
            # Written so that "not a number" is a failure too.
            if not difference <= bound:
                message = f"{output} of {case.name} is {difference:.4g} away from the measured one, more than {bound:g}"
                return Failure("GoldenTestFailed", message)
    return None
