"""The model server against its limit: the same model in a bare loop on every core, before and after in one run."""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.load.bench.processes import (
    ROOT,
    START_S,
    Failed,
    cpu_s,
    machine_busy_s,
    memory_mb,
    python_of,
    workers,
)
from tests.load.bench.result import Case, Limit, Start

NETWORKS = ROOT / "build" / "bench" / "references"
REFERENCES = ("small", "mobilenet")
MODELS: Mapping[str, Path] = {
    **{name: NETWORKS / name for name in REFERENCES},
    "cancer": ROOT / "models" / "cancer",
    "anemia": ROOT / "models" / "anemia",
}
BACKENDS = ("litert", "tensorflow")
CONCURRENCY = (1, 8, 32)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Server:
    """A running model server."""

    pid: int
    address: str
    ready_s: float


def make_networks() -> None:
    """
    Make the reference networks, unless they are there.

    Raises:
        Failed: the training environment is missing, or could not make them.
    """
    if all((NETWORKS / name / "1").is_dir() for name in REFERENCES):
        return
    python = python_of("tensorflow")
    if not python.exists():
        raise Failed("the reference networks are made in .venv-train: run `make test-deps` first")
    command = [str(python), "-m", "tests.load.bench.networks", str(NETWORKS)]
    if subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode:
        raise Failed("the reference networks could not be made")


@contextmanager
def serving(backend: str, models: Mapping[str, Path], port: int | None = None) -> Iterator[Server]:
    """
    Run a model server until the block ends, at a *port*, or else at a unix socket.

    Raises:
        Failed: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="hg-") as home:
        config, log, sock = Path(home) / "models", Path(home) / "log", Path(home) / "s"
        entries = "".join(
            f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}\n'
            for name, path in models.items()
        )
        config.write_text(f"model_config_list {{\n{entries}}}")
        door = ("--port=0", f"--grpc_socket_path={sock}") if port is None else (f"--port={port}",)
        flags = [f"--model_config_file={config}", "--drain_notice_seconds=0", *door]
        with log.open("w") as output:
            started = time.monotonic()
            process = subprocess.Popen(
                [str(python_of(backend)), "-m", "serving.modelserver", *flags], cwd=ROOT, stdout=output, stderr=output
            )
        try:
            ready_s = _wait_started(process, log, started)
            yield Server(process.pid, f"unix:{sock}" if port is None else f"127.0.0.1:{port}", ready_s)
        finally:
            process.kill()
            process.wait()


def _wait_started(process: "subprocess.Popen[bytes]", log: Path, started: float) -> float:
    """
    Return how long the server took until it listened.

    Raises:
        Failed: it ended, or took too long.
    """
    while "model_server_started" not in log.read_text():
        if process.poll() is not None or time.monotonic() - started > START_S:
            raise Failed(f"the model server did not start: {log.read_text()[-1000:]}")
        time.sleep(0.01)
    return time.monotonic() - started


def version_of(name: str) -> Path:
    """Return the folder of a model's newest version, which is the one that a model server loads."""
    return max((path for path in MODELS[name].iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


def limit(
    backend: str, folder: Path, cores: Sequence[int], seconds: float, jpegs: Path | None = None
) -> dict[str, float]:
    """Measure the bare loop on all cores at once, then on one; with *jpegs* it decodes them, too."""
    calls = [(backend, folder, core, *([jpegs] if jpegs else [])) for core in cores]
    with workers(python_of(backend), "tests.load.bench.bare", calls) as loops:
        for loop in loops:
            loop.tell(str(seconds))
        together = [loop.answer() for loop in loops]
        loops[0].tell(str(seconds / 2))
        alone = loops[0].answer()
    return {
        "images_per_s": sum(each["images_per_s"] for each in together),
        "alone_p50_ms": alone["p50_ms"],
        "cpu_ms": statistics.fmean(each["cpu_ms"] for each in together),
    }


def measure(backend: str, name: str, *, cores: Sequence[int], seconds: float, say: Say) -> tuple[Limit, list[Case]]:
    """Measure one model on one backend: limit, server at every concurrency, limit again."""
    folder = version_of(name)
    say(f"{backend} {name}: limit")
    before = limit(backend, folder, cores, seconds)
    points = []
    with serving(backend, {name: MODELS[name]}) as server:
        generator = (server.address, name)
        with workers(python_of("litert"), "tests.load.bench.closed_loop", [generator]) as (load,):
            load.tell("2 0.5")
            load.answer()
            for concurrency in CONCURRENCY:
                say(f"{backend} {name}: {concurrency} at once")
                points.append(_point(server, load, concurrency, seconds))
    after = limit(backend, folder, cores, seconds)
    found = Limit.of(backend, name, before, after)
    return found, [Case.of(found, point, cores=len(cores)) for point in points]


def _point(server: Server, load: Any, concurrency: int, seconds: float) -> dict[str, Any]:
    """Measure one concurrency, and what the server and all others used meanwhile."""
    busy, used, started = machine_busy_s(), cpu_s(server.pid), time.monotonic()
    load.tell(f"{concurrency} {seconds}")
    found: dict[str, Any] = load.answer()
    elapsed, used = time.monotonic() - started, cpu_s(server.pid) - used
    generator_s = found["generator_cpu_ms"] * found["requests"] / 1e3
    return {
        **found,
        "concurrency": concurrency,
        "server_cpu_ms": used / max(1, found["requests"]) * 1e3,
        "others_cores": (machine_busy_s() - busy - used - generator_s) / elapsed,
    }


def start(backend: str) -> Start:
    """Measure how long a server with both of our models takes to be ready, and what it then has in memory."""
    times: list[float] = []
    memory: Mapping[str, float] = {}
    for _ in range(3):
        with serving(backend, {name: MODELS[name] for name in ("cancer", "anemia")}) as server:
            times.append(server.ready_s)
            memory = memory_mb(server.pid)
    return Start(backend, ready_s=round(min(times), 2), **memory)
