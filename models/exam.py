"""Examine a version as it is served, its LiteRT file, on phantoms of a fresh seed. This needs no TensorFlow."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from models import baseline, evaluation, strange
from models.catalog import PURPOSES, SIDE_PX, Purpose
from models.phantoms import dataset

SEEDS_FROM = 500_000_000
"""Seeds of training, validation, test and golden cases lie far below, so that no phantom of an exam was ever seen."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """How many phantoms are asked about, how many the baselines learn from, and how many images are of each kind."""

    test: int = 3000
    baseline: int = 3000
    strange: int = 400


def examine(
    folder: Path, purpose: Purpose, sizes: Sizes, *, seed: int, pictures: Path | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """
    Return the figures of the version in *folder*: what the card says, measured again on phantoms of *seed*.

    *pictures* is a folder of photographs and other images that must be refused.

    Raises:
        ValueError: *seed* may be one that was trained with.
        OSError: a file of the version is missing.
    """
    if seed < SEEDS_FROM:
        raise ValueError(f"a seed from {SEEDS_FROM} on is certain to be fresh")
    contract = json.loads((folder / "assets.extra" / "contract.json").read_text(encoding="utf-8"))
    limit = float(contract["out_of_distribution"]["limit"])
    ask = evaluation.asking(litert(folder / "model.tflite"))
    say(f"{purpose.model}: drawing {sizes.test} + {sizes.baseline} phantoms")
    test = dataset(purpose.model, sizes.test, seed=seed, side_px=SIDE_PX)
    training = dataset(purpose.model, sizes.baseline, seed=seed + 1, side_px=SIDE_PX)
    say(f"{purpose.model}: asking the model")
    answers = ask(test.images)
    kinds = strange.images(purpose.model, test.images, seed=seed + 2, count=sizes.strange)
    if pictures is not None:
        kinds |= {f"pictures: {kind}": found for kind, found in strange.pictures(pictures, seed=seed).items()}
    say(f"{purpose.model}: asking about {sum(map(len, kinds.values()))} strange images")
    own = {"images": sizes.test, "share": float((answers.ood_score > limit).mean())}
    return {
        "model": purpose.model,
        "version": contract["version"],
        "seed": seed,
        "phantoms": sizes.test,
        **evaluation.report(purpose, answers, test, seed=seed),
        "refused": {"phantoms of its own": own, **evaluation.refusals(ask, kinds, limit)},
        "baselines": baseline.areas(training, test, purpose.thresholds),
    }


def litert(path: Path) -> evaluation.Run:
    """Load a LiteRT file on one thread."""
    runners = {name: runner(path, name) for name in ("serving_default", "explain")}

    def run(signature: str, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return dict(runners[signature](image=images))

    return run


def runner(path: Path, signature: str) -> Callable[..., dict[str, NDArray[Any]]]:
    """Load one signature of a LiteRT file on one thread."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    found: Callable[..., dict[str, NDArray[Any]]] = interpreter.get_signature_runner(signature)
    return found


def newest(home: Path, model: str) -> Path:
    """Return the folder of the newest version of *model* under *home*."""
    return home / model / str(PURPOSES[model].version)


def table(found: dict[str, Any]) -> str:
    """Return the figures of an exam as lines for people."""
    lines = [f"{found['model']} version {found['version']}, {found['phantoms']} phantoms of seed {found['seed']}"]
    for name, figure in found["figures"].items():
        lines.append(f"  {name:<42} {figure['value']:.3f}  ({figure['low']:.3f} to {figure['high']:.3f})")
    lines += [f"  {f'AUC of {name}':<42} {area:.3f}" for name, area in found["baselines"].items()]
    for kind, groups in found["subgroups"].items():
        for name, figure in groups.items():
            lines.append(f"  {f'right, {kind} {name}':<42} {figure['value']:.3f}  of {figure['cases']}")
    for kind, refused in found["refused"].items():
        lines.append(f"  {f'refused, {kind}':<58} {refused['share']:.4f}  of {refused['images']}")
    return "\n".join(lines)
