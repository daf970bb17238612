"""How `make test` runs the suites: which together, which alone, and that nothing is left out in silence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.__main__ import FIXTURES_APART, all_suites, runs, verdict
from tests.skips import DID_NOT_RUN, in_ci

ROOT = Path(__file__).parents[2]
SUITES = ("tests/unit", "tests/deploy", "tests/images", "tests/cluster")


def test_runs_put_what_loads_the_machine_after_the_rest_and_alone() -> None:
    """The ordinary suites share the cores; faults under load, images and cluster come in a run of their own."""
    assert list(runs([], SUITES).items()) == [
        ("ordinary suites", ["-n", "2", "--dist", "loadgroup", "tests/unit", "tests/deploy"]),
        ("suites that load the whole machine", [*FIXTURES_APART, "tests/images", "tests/cluster"]),
    ]


def test_runs_take_only_what_was_named_and_pass_options_on() -> None:
    """`make test ARGS="tests/cluster/test_node.py -k gpu"` starts one run, of that file, with that option."""
    found = runs(["tests/cluster/test_node.py", "-k", "gpu"], SUITES)
    assert found == {"suites that load the whole machine": [*FIXTURES_APART, "-k", "gpu", "tests/cluster/test_node.py"]}


def test_all_suites_has_every_folder_with_tests() -> None:
    """What `make test` runs includes the suites that somebody has to think of to run by hand."""
    assert {"tests/unit", "tests/integration", "tests/contract", *SUITES} <= set(all_suites())
    assert all((ROOT / suite).is_dir() for suite in all_suites())


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((5, 0), 0), ((5, 5), 5), ((5, 1), 1), ((2,), 2)],
)
def test_verdict_is_the_worst_of_all_runs(statuses: tuple[int, ...], expected: int) -> None:
    """One failed run fails the whole; an option that chose nothing from one run (5) does not."""
    assert verdict(statuses) == expected


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("1", True), ("", False), ("false", False)])
def test_in_ci_is_what_the_variable_says(value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """CI services set CI=true; a person who has switched it off is a person."""
    monkeypatch.setenv("CI", value)
    assert in_ci() is expected


def test_skipped_test_is_named_and_fails_in_ci(tmp_path: Path) -> None:
    """It is named at the end with the reason, and a machine gets a failure."""
    (tmp_path / "test_lacking.py").write_text("import pytest\n\ndef test_x():\n    pytest.skip('there is no moon')\n")
    run = _pytest(tmp_path, {"CI": "true"})
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "test_lacking.py (1 tests): there is no moon" in run.stdout


def test_skipped_test_is_told_to_who_runs_several_suites(tmp_path: Path) -> None:
    """With two runs of pytest there is still one list; for a person, a skip is no failure."""
    (tmp_path / "test_lacking.py").write_text("import pytest\n\n@pytest.mark.skip('no sun')\ndef test_x(): ...\n")
    told = tmp_path / "told"
    told.write_text("before\n")
    run = _pytest(tmp_path, {"CI": "", DID_NOT_RUN: str(told)})
    assert run.returncode == pytest.ExitCode.OK
    assert told.read_text() == "before\ntest_lacking.py (1 tests): no sun\n"


def _pytest(folder: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder), "-p", "tests.conftest"]
    # The run that this test is part of has a list of its own.
    inherited = {name: value for name, value in os.environ.items() if name != DID_NOT_RUN}
    return subprocess.run(
        [*command, str(folder)],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
