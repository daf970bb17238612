"""The number of workers follows the control group, never the host."""

from pathlib import Path

import pytest

from serving.modelserver.cores import cores_within, quotas, usable_cores


@pytest.mark.parametrize(
    ("affinity", "limits", "cores"),
    [(8, [], 8), (8, [2.0], 2), (8, [4.0, 1.5], 1), (8, [0.5], 1), (2, [16.0], 2)],
)
def test_cores_are_whole_and_at_least_one(affinity: int, limits: list[float], cores: int) -> None:
    """The tightest limit counts, rounded down."""
    assert cores_within(affinity, limits) == cores


def test_cores_read_every_level_of_version_2(tmp_path: Path) -> None:
    """A limit of a group above ours binds us too; `max` is none."""
    inner = tmp_path / "pod" / "container"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (tmp_path / "pod" / "cpu.max").write_text("250000 100000\n")
    assert quotas(tmp_path, "/pod/container") == [2.5]


def test_cores_read_version_1(tmp_path: Path) -> None:
    """Version 1 keeps quota and period in two files; -1 is none."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert quotas(tmp_path, "") == [1.5]
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert quotas(tmp_path, "") == []


def test_cores_of_this_process_are_known() -> None:
    """Whatever this machine is, the answer is a number of cores."""
    assert usable_cores() >= 1
