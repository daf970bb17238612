"""Make, train or export the models: `python -m models make`."""

import argparse
import json
import sys
import time
from pathlib import Path

from models import pipeline
from models.catalog import PURPOSES, Purpose
from models.weights import Weights

HOME = Path(__file__).resolve().parent
WEIGHTS_NAME = "weights.npz"
RECORD_NAME = "training.json"


def main(arguments: list[str] | None = None) -> None:
    """Run one command for the models named, or for all."""
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__)
    parser.add_argument("command", choices=("make", "train", "export"))
    parser.add_argument("models", nargs="*", type=_purpose, metavar="model", help="default: all")
    parser.add_argument("--home", type=Path, default=HOME, help="folder of the version folders")
    parser.add_argument("--build", type=Path, default=HOME.parent / "build" / "models", help="folder of the weights")
    options = parser.parse_args(arguments)
    for purpose in options.models or PURPOSES.values():
        build = options.build / purpose.model
        if options.command in ("make", "train"):
            _train(purpose, build)
        if options.command in ("make", "export"):
            _export(purpose, build, options.home / purpose.model)


def _purpose(name: str) -> Purpose:
    if name not in PURPOSES:
        raise argparse.ArgumentTypeError(f"there is no model {name!r}, only {', '.join(PURPOSES)}")
    return PURPOSES[name]


def _train(purpose: Purpose, build: Path) -> None:
    start = time.monotonic()
    weights, record = pipeline.train(purpose, pipeline.draw_sets(purpose, _say), _say)
    build.mkdir(parents=True, exist_ok=True)
    weights.save(build / WEIGHTS_NAME)
    (build / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    _say(f"{purpose.model}: trained in {time.monotonic() - start:.0f} s, weights {record['weights_digest']}")


def _export(purpose: Purpose, build: Path, home: Path) -> None:
    try:
        weights = Weights.load(build / WEIGHTS_NAME)
        record = json.loads((build / RECORD_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.exit(f"{purpose.model}: no trained weights in {build}; run `python -m models train` first")
    pipeline.write(home, purpose, weights, record, _say)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
