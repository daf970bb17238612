"""The cluster leaves the machine as it was, however it ends."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import tools
from tests.cluster.cluster import start, stop
from tests.cluster.runs import Run, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(1800)]

_ROOT = Path(__file__).parents[2]
_GONE_S = 180.0
_ADDONS = ("coredns", "policies", "storage")
"""Enough for a node to have a pod, with its mounts, its link and its rules."""
_START = """
import sys
from tests.cluster.cluster import start
from tests.cluster.runs import Run

start(Run(sys.argv[1]), attached=True, addons=sys.argv[2:])
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run() -> Iterator[Run]:
    """Name a cluster of this test's own, and end it if the test did not."""
    try:
        tools.check_machine()
    except tools.Unavailable as reason:
        pytest.skip(str(reason))
    mine = Run(f"traces-{os.getpid()}")
    yield mine
    stop(mine)


def traces() -> dict[str, list[str]]:
    """Return all that a node could leave on this machine."""
    rules = [_output("iptables-save"), _output("iptables-save", "-t", "nat")]
    return {
        # Image builders mount below their own storage while they work, and may do so beside this test.
        "mounts": sorted(
            line for line in _read(Path("/proc/self/mounts")).splitlines() if "containers/storage" not in line
        ),
        "links": re.findall(r"^\d+: ([^:@]+)", _output("ip", "-o", "link"), re.MULTILINE),
        "network namespaces": sorted(path.name for path in Path("/run/netns").glob("*")),
        "rules": [line for text in rules for line in text.splitlines() if line.startswith("-A")],
        "forwarding": [Path("/proc/sys/net/ipv4/ip_forward").read_text()],
        "control groups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob("**/healthguard-traces-*")),
        "files": sorted(str(path) for folder in _FOLDERS for path in Path(folder).glob("*")),
    }


# Where kubelet, containerd and CNI write by themselves.
_FOLDERS = (
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/log/pods",
    "/var/log/containers",
    "/run/containerd",
)


def processes(run: Run) -> list[str]:
    """Return the command lines of this machine's processes that name *run*."""
    return [
        text
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if run.name in (text := _read(path)) and path.parent.name != str(os.getpid())
    ]


def test_down_leaves_nothing(run: Run) -> None:
    """After a stop, mounts, links, namespaces, rules, control groups, files and processes are what they were."""
    before = traces()
    cluster = start(run, attached=True, addons=_ADDONS)
    during = traces()
    cluster.stop()
    assert traces() == before
    assert processes(run) == []
    assert not run.folder.exists()
    # The comparison sees what it is for: control groups are the one thing that a running node shows outside.
    assert during["control groups"] != before["control groups"]


def test_killed_test_run_takes_its_cluster_with_it(run: Run) -> None:
    """A test run that ends by kill -9 stops nothing by itself, and still nothing of its cluster stays."""
    before = traces()
    with subprocess.Popen(
        [sys.executable, "-c", _START, run.name, *_ADDONS],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        owner.send_signal(signal.SIGKILL)
        owner.wait(_GONE_S)
    wait_until(lambda: not run.folder.exists() and not processes(run), "the cluster to be gone", _GONE_S)
    assert traces() == before


def test_killed_keeper_takes_its_node_with_it(run: Run) -> None:
    """If the keeper itself is killed, every process ends at once, and the next start removes the files."""
    before = traces()
    cluster = start(run, attached=True, addons=_ADDONS)
    record = run.read()
    assert record is not None
    assert record.node is not None
    node = record.node
    os.kill(record.keeper.pid, signal.SIGKILL)
    wait_until(lambda: not node.alive and not processes(run), "the node to be gone", _GONE_S)
    assert run.folder.exists()
    cluster.stop()
    assert not run.folder.exists()
    assert traces() == before


def _output(*command: str) -> str:
    path = tools.search_path()
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}).stdout


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
