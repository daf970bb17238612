"""
What holds for every suite: a test that could not run is named at the end, and in CI it is a failure.

A skip is the only way in which a suite may say that a machine lacks something it needs; it must not hide among hundreds
of dots.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.skips import DID_NOT_RUN, in_ci

_skipped: Counter[tuple[str, str]] = Counter()
"""How many tests of a file did not run for a reason."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what was skipped, from this process and from xdist's workers alike."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped[report.nodeid.partition("::")[0], reason.removeprefix("Skipped: ")] += 1


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make a run in CI that skipped anything a failed one."""
    if _skipped and in_ci() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what did not run, and why, or leave that to who runs several suites."""
    if not _skipped:
        return
    lines = [f"{file} ({count} tests): {reason}" for (file, reason), count in _skipped.items()]
    if collected_in := os.environ.get(DID_NOT_RUN):
        with Path(collected_in).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        return
    terminalreporter.section("did not run", sep="!", red=True)
    for line in lines:
        terminalreporter.write_line(line)
