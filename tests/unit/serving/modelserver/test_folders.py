"""Version folders are found by their numbers, and a changed one is told from an unchanged one."""

import os
from pathlib import Path

from serving.modelserver.folders import fingerprint, version_folders


def test_version_folders_are_numbers(tmp_path: Path) -> None:
    """Only folders whose names are numbers are versions; leading zeros do not count."""
    for name in ("1", "00000002", "3-staged", "-4", "五", str(2**63)):
        (tmp_path / name).mkdir()
    (tmp_path / "6").write_text("")
    assert version_folders(tmp_path) == {1: tmp_path / "1", 2: tmp_path / "00000002"}


def test_version_folders_of_the_same_number_are_one(tmp_path: Path) -> None:
    """Of two folders with one number, one is the version."""
    (tmp_path / "01").mkdir()
    (tmp_path / "1").mkdir()
    assert set(version_folders(tmp_path)) == {1}


def test_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    """A file that grows, appears, is replaced or goes changes the fingerprint; looking twice does not."""
    folder = tmp_path / "1"
    (folder / "assets.extra").mkdir(parents=True)
    seen = [fingerprint(folder)]

    def note() -> None:
        assert fingerprint(folder) == fingerprint(folder)
        seen.append(fingerprint(folder))

    (folder / "model.tflite").write_bytes(b"half")
    note()
    (folder / "model.tflite").write_bytes(b"half and half")
    note()
    (folder / "assets.extra" / "golden").write_bytes(b"x")
    note()
    os.utime(folder / "model.tflite", ns=(1, 1))
    note()
    (folder / "model.tflite").unlink()
    note()
    assert len(set(seen)) == len(seen)


def test_fingerprint_of_nothing_is_empty(tmp_path: Path) -> None:
    """A folder that is gone has none."""
    assert fingerprint(tmp_path / "1") == ""


def test_fingerprint_takes_names_that_are_no_text(tmp_path: Path) -> None:
    """A file may have any bytes for a name; none ends the look at a model's versions."""
    before = fingerprint(tmp_path)
    (tmp_path / os.fsdecode(b"\xff")).write_text("")
    assert fingerprint(tmp_path) not in ("", before)
