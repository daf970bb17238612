"""
What holds for every suite: a test that could not run is named at the end, and in CI it is a failure.

A skip is the only way in which a suite may say that a machine lacks something it needs; it must not hide among hundreds
of dots.
"""

import os

import pytest

_did_not_run: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect what was skipped, from this process and from xdist's workers alike."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _did_not_run.append(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make a run in CI that skipped anything a failed one."""
    if _did_not_run and os.environ.get("CI") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what did not run, and why."""
    if _did_not_run:
        terminalreporter.section("did not run", sep="!", red=True)
        for line in _did_not_run:
            terminalreporter.write_line(line)
