"""What is told of a supervisor in the background that did not come up."""

import subprocess
import sys
from pathlib import Path

import pytest

from healthguard.local import detach
from healthguard.local.detach import TAIL_LINES, NotStarted


def _ended(code: str, log: Path, wait_s: float = 20.0) -> NotStarted:
    with log.open("wb") as out, subprocess.Popen([sys.executable, "-S", "-c", code], stdout=out) as child:
        return detach.ended(child, log, wait_s)


def test_start_tells_all_lines_of_the_reason(tmp_path: Path) -> None:
    """The command line is refused in several lines, and with the status of a refusal."""
    with pytest.raises(NotStarted, match=r"(?s)Usage.*No such option") as refused:
        detach.start(["--no-such-option"], tmp_path / "supervisor.log")
    assert refused.value.status == 2


def test_ended_tells_the_tail_of_a_long_log(tmp_path: Path) -> None:
    """The end says why; the beginning of a long log does not matter."""
    found = _ended("[print('line', n) for n in range(10_000)]; raise SystemExit(1)", tmp_path / "log")
    assert str(found).splitlines() == [f"line {number}" for number in range(10_000 - TAIL_LINES, 10_000)]
    assert found.status == 1


def test_ended_without_a_word_names_the_logs(tmp_path: Path) -> None:
    """An empty log is no reason to break."""
    assert str(tmp_path) in str(_ended("raise SystemExit(1)", tmp_path / "log"))


def test_ended_kills_what_does_not_end(tmp_path: Path) -> None:
    """Nobody waits for ever, and nothing is left that nobody knows of."""
    found = _ended("import time; print('half way', flush=True); time.sleep(600)", tmp_path / "log", wait_s=0.5)
    assert "neither started nor ended" in str(found)
    assert found.status == 1
