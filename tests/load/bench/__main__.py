# ruff: noqa: T201 - a command's answer
"""
`make bench`: measure, print, and write build/bench.json, build/bench.svg (a picture) and build/bench.md (tables).

Figures say something on a quiet machine only; each case says how many cores others used meanwhile.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.load.bench import gateway, modelserver, stack
from tests.load.bench.picture import svg
from tests.load.bench.processes import ROOT, Failed
from tests.load.bench.result import AnyCase, Limit, StackCase, Start, document
from tests.load.bench.table import markdown

Found = Iterator[tuple[Limit, Sequence[AnyCase]]]


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for; return 1 if something could not be measured, or a request failed."""
    asked = _arguments(arguments)
    cores, started = sorted(os.sched_getaffinity(0)), time.monotonic()
    limits: list[Limit] = []
    cases: list[AnyCase] = []
    starts: list[Start] = []
    failed = False

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", file=sys.stderr, flush=True)

    try:
        modelserver.make_networks()
        for part in asked.parts:
            for limit, points in PARTS[part](asked, cores, say):
                limits.append(limit)
                cases.extend(points)
                for case in points:
                    say(_line(case))
        if "modelserver" in asked.parts:
            starts = [modelserver.start(backend) for backend in asked.backends]
    except Failed as exc:
        # What was measured until then is worth keeping.
        failed = True
        say(str(exc))
    _write(asked.output, limits, cases, starts)
    _tell(limits, cases, starts)
    return int(failed or any(case.errors for case in cases))


def _model_server(asked: argparse.Namespace, cores: Sequence[int], say: modelserver.Say) -> Found:
    for backend in asked.backends:
        for model in asked.models:
            yield modelserver.measure(backend, model, cores=cores, seconds=asked.seconds, say=say)


def _gateway(asked: argparse.Namespace, cores: Sequence[int], say: modelserver.Say) -> Found:
    with stack.base() as shared:
        for model in asked.models:
            yield from gateway.measure(shared, model, asked.sides, cores=cores, seconds=asked.seconds, say=say)


PARTS: dict[str, Callable[[argparse.Namespace, Sequence[int], modelserver.Say], Found]] = {
    "modelserver": _model_server,
    "gateway": _gateway,
}


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--sides", nargs="+", type=int, default=list(gateway.SIDES_PX), help="of the JPEGs, pixels")
    parser.add_argument("--backends", nargs="+", choices=modelserver.BACKENDS, default=modelserver.BACKENDS)
    parser.add_argument("--models", nargs="+", choices=modelserver.MODELS, default=list(modelserver.MODELS))
    parser.add_argument("--seconds", type=float, default=4.0, help="of each point (default 4)")
    parser.add_argument("--output", type=Path, default=ROOT / "build", help="folder for bench.json and bench.svg")
    return parser.parse_args(arguments)


def _line(case: AnyCase) -> str:
    if isinstance(case, StackCase):
        return _stack_line(case)
    return (
        f"{case.backend:10} {case.model:10} {case.concurrency:3}: {case.rps:7.1f}/s = {case.share_of_limit:.2f} "
        f"({case.share_beside_generator:.2f} beside the generator), "
        f"p50 {case.p50_ms:7.2f} p99 {case.p99_ms:7.2f} ms, CPU {case.cpu_ms:.2f} + {case.generator_cpu_ms:.2f} ms "
        f"= {case.cpu_share:.2f}, others {case.others_cores:.2f} cores"
    )


def _stack_line(case: StackCase) -> str:
    cpu = ", ".join(f"{name} {value:.2f}" for name, value in case.cpu_ms_per_request.items())
    phases = ", ".join(f"{name} {value:.2f}" for name, value in case.phase_ms.items())
    return (
        f"{case.stack:10} {case.network:10} {case.image:8} {case.concurrency:3}: {case.rps:7.1f}/s = "
        f"{case.share_of_limit:.2f} ({case.share_beside_generator:.2f} beside the generator), "
        f"p50 {case.p50_ms:7.2f} p99 {case.p99_ms:7.2f} ms, CPU ms {cpu}, beyond the limit "
        f"{case.beyond_limit_cpu_ms:.2f}; phases {phases}; errors {sum(case.errors.values())}, "
        f"others {case.others_cores:.2f} cores"
    )


def _write(folder: Path, limits: list[Limit], cases: list[AnyCase], starts: list[Start]) -> None:
    machine = {"cores": len(os.sched_getaffinity(0)), "processor": _processor(), "python": platform.python_version()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(document(machine, limits, cases, starts), indent=1) + "\n")
    (folder / "bench.svg").write_text(svg(cases))
    (folder / "bench.md").write_text(markdown(limits, cases, starts))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _tell(limits: list[Limit], cases: list[AnyCase], starts: list[Start]) -> None:
    for limit in limits:
        print(
            f"limit {limit.key:28} {limit.images_per_s:7.1f} images/s "
            f"({limit.before}, {limit.after}), alone p50 {limit.alone_p50_ms} ms, CPU {limit.cpu_ms} ms"
        )
    for case in cases:
        print(_line(case))
    for start in starts:
        print(f"start {start.backend}: ready in {start.ready_s} s, {start.rss_mb} MB (PSS {start.pss_mb})")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
