"""
Run every suite: `python -m tests [pytest's arguments]`, which `make test` does.

Two runs of pytest, not one: the ordinary suites share the machine's cores; those that load a gateway, build images and
run a cluster come after them and alone, because beside them a test of deadlines would tell of the machine's load.
What could not run is named once, at the end, for both.

Arguments that begin with `tests/` choose what runs; all others go to pytest as they are.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.skips import DID_NOT_RUN, in_ci

ROOT = Path(__file__).parents[1]
ALONE = ("tests/load", "tests/images", "tests/cluster")
"""The suites that load the whole machine."""
FIXTURES_APART = ("-o", "timeout_func_only=true")
"""Starting and stopping a cluster is not the time of the first or last test; its steps have bounds of their own."""
NOTHING_COLLECTED = 5


def runs(arguments: Sequence[str], suites: Sequence[str]) -> dict[str, list[str]]:
    """Return the arguments of each run of pytest, by name; a run for which nothing was chosen is left out."""
    chosen = [argument for argument in arguments if argument.startswith("tests/")]
    options = [argument for argument in arguments if argument not in chosen]
    targets = chosen or suites
    together = [target for target in targets if not target.startswith(ALONE)]
    alone = [target for target in targets if target.startswith(ALONE)]
    wanted = {
        "ordinary suites": ["-n", "2", "--dist", "loadgroup", *options, *together] if together else [],
        "suites that load the whole machine": [*FIXTURES_APART, *options, *alone] if alone else [],
    }
    return {name: line for name, line in wanted.items() if line}


def all_suites() -> list[str]:
    """Return every folder of tests/ that holds tests: a new one cannot be forgotten."""
    folders = {path.relative_to(ROOT).parts[1] for path in ROOT.glob("tests/*/**/test_*.py")}
    return [f"tests/{folder}" for folder in sorted(folders)]


def verdict(statuses: Sequence[int]) -> int:
    """Return the worst status; that an option chose nothing from one run is no failure, if it did from another."""
    failed = [status for status in statuses if status not in {0, NOTHING_COLLECTED}]
    return failed[0] if failed else min(statuses, default=NOTHING_COLLECTED)


def main() -> int:
    """Run the suites and return the exit status."""
    statuses = {}
    with tempfile.NamedTemporaryFile(prefix="healthguard-did-not-run-") as skipped:
        for name, line in runs(sys.argv[1:], all_suites()).items():
            started = time.monotonic()
            status = _pytest(line, {**os.environ, DID_NOT_RUN: skipped.name})
            statuses[f"{name}: {_said(status)}, {time.monotonic() - started:.0f} s"] = status
            if status == 2:
                break  # Interrupted: who stops one run means all of it.
        left_out = Path(skipped.name).read_text()
    if left_out:
        note = ", which counts as failed in CI" if in_ci() else ""
        sys.stdout.write(f"\nDid not run{note}:\n{left_out}")
    sys.stdout.write("\n" + "\n".join(statuses) + "\n")
    return verdict(list(statuses.values()))


def _pytest(line: Sequence[str], environment: dict[str, str]) -> int:
    run = subprocess.Popen([sys.executable, "-m", "pytest", *line], cwd=ROOT, env=environment)
    # Ctrl-C reaches pytest by itself; it takes its fixtures down and then ends, and this process waits for that.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: run.send_signal(signal.SIGINT))
    return run.wait()


def _said(status: int) -> str:
    return {0: "passed", 2: "interrupted", NOTHING_COLLECTED: "nothing chosen"}.get(status, "failed")


if __name__ == "__main__":
    sys.exit(main())
