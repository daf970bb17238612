"""Which runtime a version folder is loaded with, and the loading: model, warm-up, batching parameters of its own."""

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc

from serving.modelserver import litert
from serving.modelserver.backend import LoadedModel, Servable
from serving.modelserver.config import BadConfig, Batching, batching_file
from serving.modelserver.flags import Flags
from serving.modelserver.observer import Observer
from serving.modelserver.refusals import Refused, invalid_argument
from serving.modelserver.warmup import warm_up

Platform = Literal["litert", "tensorflow"]

SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
BATCHING_FILE = "batching_params.pbtxt"


@dataclass(frozen=True)
class LoadOptions:
    """What every version is loaded with."""

    flags: Flags
    batching: Batching
    instances: int
    """How many runs go on at the same time."""

    threads: int = 1
    """Threads within one run."""


def choose(*, saved_model: bool, tflite: bool, tensorflow: bool, prefer_tflite: bool) -> Platform:
    """
    Say which runtime serves a folder.

    TensorFlow Serving takes the SavedModel unless it is told to prefer LiteRT. Without TensorFlow there is no choice.

    Args:
        saved_model: the folder has one.
        tflite: the folder has a LiteRT model.
        tensorflow: it is installed.
        prefer_tflite: --prefer_tflite_model.

    Raises:
        Refused: NOT_FOUND; nothing in the folder can be run here.
    """
    if tflite and (prefer_tflite or not (saved_model and tensorflow)):
        return "litert"
    if saved_model and tensorflow:
        return "tensorflow"
    if saved_model:
        raise Refused(
            grpc.StatusCode.NOT_FOUND, f"the version folder has no {litert.FILE}, and TensorFlow is not installed"
        )
    raise Refused(grpc.StatusCode.NOT_FOUND, f"Could not find SavedModel .pb or .pbtxt, or {litert.FILE}")


def tensorflow_installed() -> bool:
    """Say whether TensorFlow could be imported, without importing it."""
    return importlib.util.find_spec("tensorflow") is not None


def load(folder: Path, options: LoadOptions, observer: Observer) -> Servable:
    """
    Load a version folder and warm it up.

    Raises:
        Refused: there is no usable model in it, its batching parameters are wrong, or a warm-up request failed.
    """
    batching = _batching(folder, options)
    model = _model(folder, options)
    if options.flags.enable_model_warmup:
        started = time.monotonic()
        status = "OK"
        try:
            warm_up(model, folder, workers=options.instances, iterations=options.flags.warmup_iterations)
        except Refused as exc:
            status = exc.code.name
            model.close()
            raise
        finally:
            observer.warmed_up(model_path=str(folder), status=status, seconds=time.monotonic() - started)
    return Servable(model, batching)


def _model(folder: Path, options: LoadOptions) -> LoadedModel:
    """
    Load the model with the runtime that is chosen for it.

    Raises:
        Refused: there is no usable model.
    """
    platform = choose(
        saved_model=any((folder / name).is_file() for name in SAVED_MODEL),
        tflite=(folder / litert.FILE).is_file(),
        tensorflow=tensorflow_installed(),
        prefer_tflite=options.flags.prefer_tflite_model,
    )
    if platform == "litert":
        return litert.load(folder, options.instances, threads=options.threads)
    # Only here: a server of LiteRT models never pays for TensorFlow.
    from serving.modelserver import tensorflow_backend  # noqa: PLC0415

    return tensorflow_backend.load(folder, options)


def _batching(folder: Path, options: LoadOptions) -> Batching:
    """
    Return how requests to this version are run together.

    With --enable_per_model_batching_parameters a version folder says so itself, and one that says nothing is not
    batched; the number of workers is the server's in any case.

    Raises:
        Refused: INVALID_ARGUMENT; the parameters are wrong.
    """
    if not options.flags.enable_per_model_batching_parameters or not options.batching.enabled:
        return options.batching
    path = folder / BATCHING_FILE
    if not path.exists():
        return Batching()
    try:
        return batching_file(path)
    except BadConfig as exc:
        raise invalid_argument(str(exc)) from exc
