"""
Process 1 of the cluster's own namespaces: it lays out network and mounts, starts the components, and restarts what
ends.

Everything that a node leaves on a machine (mounts, links, packet filter rules, network namespaces, processes) is made
in here, so that the kernel takes all of it away with this process, whatever ended it. A clean-up list would have to be
complete, and would not run after a kill -9.
"""

import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import network, tools
from tests.cluster.components import Component, components

_RESTART_AFTER_S = 1.0
_PORT_WAIT_S = 120.0
_OVERLAID = ("/var/lib", "/var/log")
"""Folders into which kubelet, CNI and containerd write at paths that no flag moves."""


def run(folder: Path) -> None:
    """Be the node whose files are in *folder*, until killed."""
    _mounts(folder)
    _network()
    (folder / "logs").mkdir(exist_ok=True)
    _supervise(folder, components(folder, tools.program))


def _mounts(folder: Path) -> None:
    # The kubelet hands mounts on to containers, which needs propagation inside; the host's own tree is already cut off.
    _call("mount", "--make-rshared", "/")
    _call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for path in ("/run/healthguard", "/run/netns", "/run/lock"):
        Path(path).mkdir(mode=0o755)
    for path in _OVERLAID:
        layers = [folder / "overlay" / path.strip("/").replace("/", "-") / name for name in ("upper", "work")]
        for layer in layers:
            layer.mkdir(parents=True)
        _call(
            "mount", "-t", "overlay", "-o", f"lowerdir={path},upperdir={layers[0]},workdir={layers[1]}", "overlay", path
        )


def _network() -> None:
    socket.sethostname(network.NODE)
    _call("ip", "link", "set", "lo", "up")
    # A bridge without ports stands in for the network card: not every kernel has dummy links, every node's has bridges.
    _call("ip", "link", "add", "node0", "type", "bridge")
    _call("ip", "address", "add", network.NODE_NETWORK, "dev", "node0")
    _call("ip", "link", "set", "node0", "up")
    # There is no way out, and who tries is told so at once.
    _call("ip", "route", "add", "unreachable", "default")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


@dataclass
class _Processes:
    folder: Path
    running: dict[int, Component] = field(default_factory=dict)

    def start(self, component: Component) -> None:
        log = (self.folder / "logs" / f"{component.name}.log").open("ab")
        # PATH names the folders of iptables, conntrack, mount and runc.
        process = subprocess.Popen(
            component.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": tools.search_path(), "HOME": "/root"},
        )
        log.close()
        self.running[process.pid] = component
        # Process 1 collects every child itself; Popen must not wait for them a second time.
        process.returncode = 0


def _supervise(folder: Path, wanted: tuple[Component, ...]) -> None:
    processes = _Processes(folder)
    for component in wanted:
        _wait_for_port(component.after)
        processes.start(component)
    while True:
        pid, _ = os.wait()
        ended = processes.running.pop(pid, None)
        if ended:
            time.sleep(_RESTART_AFTER_S)
            processes.start(ended)


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + _PORT_WAIT_S
    while port and time.monotonic() < deadline:
        for address in ("127.0.0.1", network.NODE_ADDRESS):
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((address, port)) == 0:
                    return
        time.sleep(0.1)


def _call(*command: str) -> None:
    subprocess.run(command, check=True, env={"PATH": tools.search_path()})
