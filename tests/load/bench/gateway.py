"""The product over HTTP against its limit: decoding and the same model in a bare loop, before and after in one run."""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.load.bench import jpegs, stack
from tests.load.bench.modelserver import CONCURRENCY, REFERENCES, Say, limit, version_of
from tests.load.bench.processes import Worker, family_cpu_s, machine_busy_s, workers
from tests.load.bench.result import Limit, StackCase

SIDES_PX = (224, 1024)
PATHS = {"full": "/api/v1/models/{model}/predictions", "norecords": "/api/inference/predict"}
STATUS = {"full": "201", "norecords": "200"}
STACKS = tuple(PATHS)


def model_of(network: str) -> str:
    """Return the name under which a network is served: the path that stores nothing knows one model only."""
    return "cancer" if network in REFERENCES else network


def measure(
    shared: stack.Base, network: str, sides_px: Sequence[int], *, cores: Sequence[int], seconds: float, say: Say
) -> Iterator[tuple[Limit, list[StackCase]]]:
    """Measure one network in both stacks, with JPEGs of each size."""
    model = model_of(network)
    with tempfile.TemporaryDirectory(prefix="hg-") as home:
        for side_px in sides_px:
            folder, image = Path(home) / str(side_px), f"{side_px}.jpg"
            say(f"{network} {image}: limit")
            jpegs.write(folder, model, version_of(model), side_px)
            before = limit("litert", version_of(network), cores, seconds, folder)
            points = _points(shared, network, folder, seconds, say)
            after = limit("litert", version_of(network), cores, seconds, folder)
            found = Limit.of("litert", network, before, after, image)
            yield found, [StackCase.of(found, point, stack=name, cores=len(cores)) for name, point in points]


def _points(
    shared: stack.Base, network: str, folder: Path, seconds: float, say: Say
) -> list[tuple[str, Mapping[str, object]]]:
    """Measure both stacks, as far as there is a path for this model, at every concurrency."""
    model, points = model_of(network), []
    with stack.running(shared, model, version_of(network)) as running:
        for name in STACKS if model == "cancer" else ("full",):
            with _generator(running, shared, name, model, folder) as load:
                load.tell(f"2 {min(1.0, seconds)}")
                load.answer()
                for concurrency in CONCURRENCY:
                    say(f"{network} {folder.name}.jpg: {name}, {concurrency} at once")
                    points.append((name, _point(running, load, concurrency, seconds)))
    return points


@contextmanager
def _generator(running: stack.Stack, shared: stack.Base, name: str, model: str, folder: Path) -> Iterator[Worker]:
    call = (running.port, PATHS[name].format(model=model), STATUS[name], folder)
    with workers(Path(sys.executable), "tests.load.bench.http_load", [call], shared.generator_env()) as (load,):
        yield load


def _point(running: stack.Stack, load: Worker, concurrency: int, seconds: float) -> Mapping[str, object]:
    """Measure one concurrency, what each process and all others used meanwhile, and how long each phase took."""
    phases, busy, started = running.phases(), machine_busy_s(), time.monotonic()
    before = {name: family_cpu_s(pid) for name, pid in running.pids.items()}
    load.tell(f"{concurrency} {seconds}")
    found = load.answer()
    used = {name: family_cpu_s(pid) - before[name] for name, pid in running.pids.items()}
    elapsed, busy = time.monotonic() - started, machine_busy_s() - busy
    done = max(1, found["requests"])
    used["generator"] = found["generator_cpu_ms"] * done / 1e3
    return {
        **found,
        "concurrency": concurrency,
        "cpu_ms": {name: seconds / done * 1e3 for name, seconds in used.items()},
        "phase_ms": _means(phases, running.phases()),
        "others_cores": (busy - sum(used.values())) / elapsed,
    }


def _means(before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return the mean of each phase between two looks, milliseconds."""
    found = {}
    for phase, (seconds, count) in after.items():
        earlier = before.get(phase, (0.0, 0.0))
        if count > earlier[1]:
            found[phase] = (seconds - earlier[0]) / (count - earlier[1]) * 1e3
    return found
