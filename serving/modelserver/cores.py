"""How many cores this process may use: its affinity and its control group's quota, never the host's count."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
PROC_CGROUP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return how many single-threaded workers this process can keep busy without being throttled; at least 1."""
    return cores_within(len(os.sched_getaffinity(0)), quotas(CGROUP, _own_group(PROC_CGROUP)))


def cores_within(affinity: int, limits: list[float]) -> int:
    """Return whole cores: a worker on a fraction of a core would spend part of each period throttled."""
    return max(1, int(min([affinity, *limits])))


def quotas(root: Path, group: str) -> list[float]:
    """Return the CPU limits, in cores, of *group* and of the groups above it, in either version of control groups."""
    found = []
    folder = root / group.strip("/")
    for level in (folder, *folder.parents):
        if not level.is_relative_to(root):
            break
        found.append(_v2(level / "cpu.max"))
    found.append(_v1(root / "cpu"))
    return [limit for limit in found if limit is not None]


def _own_group(path: Path) -> str:
    """Return this process's version 2 group, as the line `0::/…` says it; "" where there is none."""
    for line in _text(path).splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::")
    return ""


def _v2(path: Path) -> float | None:
    """Read `cpu.max`: `<quota> <period>` in microseconds, or `max <period>`."""
    words = _text(path).split()
    if len(words) != 2 or words[0] == "max":
        return None
    return int(words[0]) / int(words[1])


def _v1(folder: Path) -> float | None:
    """Read version 1's pair of files; a quota of -1 is no limit."""
    quota, period = _text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip()
    if not quota.isdigit() or not period.isdigit():
        return None
    return int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
