# ruff: noqa: T201 - a command's answer
"""
The limit: a model in a loop on one core, with nothing around it.
`python -m tests.load.bench.bare BACKEND FOLDER CORE [JPEGS]`; with JPEGS, a folder of them, it decodes them, too.

It says `ready`, waits for a line with a number of seconds, runs for as long, and says what it did as JSON; until its
input ends. Every picture is another one.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tests.load.bench.pictures import Pictures

Run = Callable[[Any], object]


class Source(Protocol):
    """Gives pictures without end."""

    def next(self) -> Any:
        """Return one that was not there before."""


def litert(folder: Path) -> Run:
    """Return a call of the interpreter, by tensor: there is no shorter way."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=(folder / "model.tflite").read_bytes(), num_threads=1)
    runner = interpreter.get_signature_runner("serving_default")
    (alias,) = runner.get_input_details()
    return lambda picture: runner(**{alias: picture})


def tensorflow(folder: Path) -> Run:
    """Return a call of a session with one thread."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.saved_model.loader_impl import SavedModelLoader  # type: ignore[import-not-found]

    v1 = tf.compat.v1
    config = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    session = v1.Session(graph=tf.Graph(), config=config)
    loader = SavedModelLoader(str(folder))
    with session.graph.as_default():
        loader.load_graph(session.graph, ["serve"])
    signature = loader.get_meta_graph_def_from_tags(["serve"]).signature_def["serving_default"]
    options = config_pb2.CallableOptions(  # type: ignore[attr-defined]
        feed=[info.name for info in signature.inputs.values()],
        fetch=[info.name for info in signature.outputs.values()],
    )
    options.run_options.inter_op_thread_pool = -1
    call: Run = session._make_callable_from_options(options)
    return call


def measured(run: Run, pictures: Source, seconds: float) -> dict[str, float]:
    """Run for some seconds; return images per second, and milliseconds of wall and of CPU per image."""
    took = []
    cpu, started = time.process_time(), time.perf_counter()
    end = started + seconds
    while (now := time.perf_counter()) < end:
        run(pictures.next())
        took.append(time.perf_counter() - now)
    elapsed = time.perf_counter() - started
    return {
        "images_per_s": len(took) / elapsed,
        "p50_ms": float(np.percentile(took, 50)) * 1e3,
        "cpu_ms": (time.process_time() - cpu) / len(took) * 1e3,
    }


def source(jpegs: Path | None) -> Source:
    """Return pixels, or where a folder of JPEGs is given, those decoded as the gateway does."""
    if jpegs is None:
        return Pictures()
    # Not for the others: the training environment, where TensorFlow runs, has no decoders.
    from tests.load.bench.jpegs import DecodedJpegs, Jpegs

    return DecodedJpegs(Jpegs.read(jpegs))


def main(backend: str, folder: Path, core: int, jpegs: Path | None = None) -> None:
    """Load, warm up, and measure as often as asked."""
    os.sched_setaffinity(0, {core})
    run, pictures = {"litert": litert, "tensorflow": tensorflow}[backend](folder), source(jpegs)
    measured(run, pictures, 0.3)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(measured(run, pictures, float(line))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), *map(Path, sys.argv[4:]))
