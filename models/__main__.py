"""Make, train, export, time, evaluate or show the models: `python -m models make`. The first four need TensorFlow."""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from models import exam, plots
from models.catalog import PURPOSES, Purpose
from models.phantoms import draw
from models.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Callable

HOME = Path(__file__).resolve().parent
WEIGHTS_NAME = "weights.npz"
RECORD_NAME = "training.json"
COMMANDS = ("make", "train", "export", "time", "evaluate", "sheets")


def main(arguments: list[str] | None = None) -> None:
    """Run one command for the models named, or for all."""
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("models", nargs="*", type=_purpose, metavar="model", help="default: all")
    parser.add_argument("--home", type=Path, default=HOME, help="folder of the version folders")
    parser.add_argument("--build", type=Path, default=HOME.parent / "build" / "models", help="folder of the weights")
    parser.add_argument("--int8", action="store_true", help="make, export: convolutions of model.tflite in 8 bits")
    parser.add_argument("--seed", type=int, default=exam.SEEDS_FROM, help="evaluate: seed of the fresh phantoms")
    parser.add_argument("--phantoms", type=int, default=exam.Sizes.test, help="evaluate: how many are drawn")
    parser.add_argument("--pictures", type=Path, help="evaluate: folder of images that must be refused")
    parser.add_argument("--json", action="store_true", help="evaluate: for programs")
    options = parser.parse_args(arguments)
    purposes = options.models or list(PURPOSES.values())
    if options.int8:
        _refuse_to_replace(options.home, purposes)
    steps: dict[str, Callable[[Purpose, argparse.Namespace], None]] = {
        "time": _time,
        "evaluate": _evaluate,
        "sheets": _sheet,
    }
    if options.command in ("make", "train", "export", "time"):
        _need_tensorflow()
    for purpose in purposes:
        if options.command in ("make", "train"):
            _train(purpose, options.build / purpose.model)
        if options.command in ("make", "export"):
            _export(purpose, options.build / purpose.model, options.home / purpose.model, in_int8=options.int8)
        if options.command in steps:
            steps[options.command](purpose, options)


def _need_tensorflow() -> None:
    """End where this interpreter has no TensorFlow."""
    if importlib.util.find_spec("tensorflow") is None:
        sys.exit(
            f"This needs TensorFlow, which {sys.executable} has not: call it with .venv-train/bin/python, "
            "an environment that `make test-deps` makes"
        )


def _purpose(name: str) -> Purpose:
    if name not in PURPOSES:
        raise argparse.ArgumentTypeError(f"there is no model {name!r}, only {', '.join(PURPOSES)}")
    return PURPOSES[name]


def _train(purpose: Purpose, build: Path) -> None:
    from models import pipeline  # noqa: PLC0415  TensorFlow, which only training and export need

    start = time.monotonic()
    weights, record = pipeline.train(purpose, pipeline.draw_sets(purpose, _say), _say)
    build.mkdir(parents=True, exist_ok=True)
    weights.save(build / WEIGHTS_NAME)
    (build / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    _say(f"{purpose.model}: trained in {time.monotonic() - start:.0f} s, weights {record['weights_digest']}")


def _refuse_to_replace(home: Path, purposes: list[Purpose]) -> None:
    """
    End where a version is there already: in 8 bits it would answer otherwise under the same number.

    A float export of the same weights gives the same bytes again, and may replace them.
    """
    for purpose in purposes:
        if exam.newest(home, purpose.model).exists():
            sys.exit(
                f"{purpose.model}: version {purpose.version} is there already and 8 bits would change its answers; "
                "name another folder with --home, or raise `version` in models/catalog.py"
            )


def _export(purpose: Purpose, build: Path, home: Path, *, in_int8: bool) -> None:
    from models import pipeline  # noqa: PLC0415  TensorFlow, which only training and export need

    try:
        weights = Weights.load(build / WEIGHTS_NAME)
        record = json.loads((build / RECORD_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.exit(f"{purpose.model}: no trained weights in {build}; run `python -m models train` first")
    pipeline.write(home, purpose, weights, record, _say, in_int8=in_int8)


def _time(purpose: Purpose, options: argparse.Namespace) -> None:
    from models import timing  # noqa: PLC0415  TensorFlow again

    with tempfile.TemporaryDirectory() as scratch:
        build = options.build / purpose.model
        weights = Weights.load(build / WEIGHTS_NAME)
        limit = json.loads((build / RECORD_NAME).read_text(encoding="utf-8"))["ood_limit"]
        found = timing.compare(purpose, weights, Path(scratch), phantoms=options.phantoms, ood_limit=limit)
    _say(json.dumps({"model": purpose.model, **found}, indent=1))


def _evaluate(purpose: Purpose, options: argparse.Namespace) -> None:
    folder = exam.newest(options.home, purpose.model)
    sizes = exam.Sizes(test=options.phantoms, baseline=options.phantoms)
    quiet = (lambda _: None) if options.json else _say
    found = exam.examine(folder, purpose, sizes, seed=options.seed, pictures=options.pictures, say=quiet)
    _say(json.dumps(found) if options.json else exam.table(found))


def _sheet(purpose: Purpose, options: argparse.Namespace) -> None:
    """Write a contact sheet of 24 phantoms into docs."""
    phantoms = draw(purpose.model, 24, seed=purpose.seed, size_px=256)
    folder = options.home.parent / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"phantoms-{purpose.model}.jpg"
    plots.contact_sheet(phantoms.images, columns=8, side_px=144).save(path, quality=82, optimize=True)
    _say(f"{purpose.model}: wrote {path.name}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
