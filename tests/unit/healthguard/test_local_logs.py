"""The logs of an installation: bounded, private, and quiet on the terminal."""

import stat
from pathlib import Path

import pytest

from healthguard.local import logs
from healthguard.local.logs import LINE_BYTES_MAX, LogFile


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_log_file_has_a_bound(tmp_path: Path) -> None:
    """Old lines go, new ones stay; a long line is cut; nobody else can read it."""
    log = LogFile(tmp_path / "service.log", bytes_max=1000)
    for number in range(500):
        log.write(f"line {number}")
    log.write("x" * LINE_BYTES_MAX * 2)
    log.write("the end")
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["service.log", "service.log.1"]
    assert sum(path.stat().st_size for path in files) < 2 * 1000 + LINE_BYTES_MAX
    assert files[0].read_text().endswith("the end\n")
    assert [_mode(path) for path in files] == [0o600, 0o600]
    assert log.last[-1] == "the end"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"level": "info", "message": "request_served"}', False),
        ('{"level": "warning", "message": "database_unavailable"}', True),
        ('{"level": "error"', False),
        ("LOG:  database system is ready to accept connections", False),
        ("FATAL:  the database system is starting up", False),
        ("FATAL:  could not write to file", True),
        ("Traceback (most recent call last):", True),
        ("INFO: all is well", False),
    ],
)
def test_serious_lines_are_warnings_and_worse(line: str, expected: bool) -> None:
    """Only what a person should see at once is shown at once."""
    assert logs.serious(line) is expected


def test_log_file_counts_the_lines_that_cannot_be_written(tmp_path: Path) -> None:
    """On a full disk nothing is raised; once there is room again the log says how many lines are missing."""
    path = tmp_path / "service.log"
    path.symlink_to("/dev/full")
    log = LogFile(path)
    log.write("lost")
    log.write("lost too")
    assert log.dropped == 2
    assert list(log.last) == ["lost", "lost too"]
    path.unlink()
    log._rotate()  # as a full disk that has room again: the same log, and a file that can be written
    log.write("kept")
    log.close()
    assert path.read_text() == "(2 lines could not be written here)\nkept\n"


def test_log_file_survives_a_rotation_that_fails(tmp_path: Path) -> None:
    """What stands in the way is dropped lines, not an error; when it is gone, the log goes on."""
    path = tmp_path / "service.log"
    log = LogFile(path, bytes_max=100)
    log.write("x" * 90)
    (tmp_path / "service.log.1").mkdir()
    log.write("y" * 90)
    assert log.dropped == 1
    (tmp_path / "service.log.1").rmdir()
    log.write("z" * 50)
    log.close()
    assert path.read_text().endswith("z" * 50 + "\n")
    assert log.dropped == 0
