"""
Look after one run of the cluster from outside its namespaces, and remove it when its time is over.

Its time is over when somebody says so (SIGTERM), when the node ends, or when the test run that asked for it is gone:
that run holds the other end of this process's standard input, which closes however the run ends, kill -9 included. If
the keeper itself is killed, the kernel ends the node with it, and the next start removes the files.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from tests.cluster import certificates, forward, network, tools
from tests.cluster.components import files
from tests.cluster.runs import Process, Record, Run, wait_until

# All the namespaces in which a node leaves something behind. With the first process of a process namespace, all others
# end.
_NAMESPACES = ("--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")
_START_S = 60.0


def keep(run: Run, *, attached: bool) -> None:
    """
    Start the node of *run* and return when it is over and gone.

    Args:
        attached: end also when standard input closes.
    """
    run.write(Record(keeper=Process.of(os.getpid())))
    prepare(run)
    try:
        asyncio.run(_look_after(run, attached=attached))
    finally:
        record = run.read()
        if record and record.node:
            record.node.end(signal.SIGKILL)
    # Not where it failed: whoever started it reads the logs first, and then clears.
    run.remove()


def prepare(run: Run) -> None:
    """Write the certificates and configuration files that the node reads, and make its control groups."""
    run.make_cgroups()
    certificates.write_all(run.folder / "pki")
    for name, text in files(run.folder, run.cgroup, tools.CNI_PLUGINS).items():
        target = run.folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)


async def _look_after(run: Run, *, attached: bool) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    node = [sys.executable, "-m", "tests.cluster", "node", run.name]
    process = await asyncio.create_subprocess_exec(
        # Process 1 takes this process's death for its own.
        *("setpriv", "--pdeathsig", "KILL", "unshare", *_NAMESPACES, *node),
        stdin=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PATH": tools.search_path()},
    )
    _open_ways_in(run, _first_child(process.pid))
    endings: list[asyncio.Task[object]] = [asyncio.create_task(process.wait()), asyncio.create_task(told.wait())]
    if attached:
        endings.append(asyncio.create_task(_owner_gone()))
    await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
    for task in endings:
        task.cancel()
    await _end(run, process)


async def _end(run: Run, process: asyncio.subprocess.Process) -> None:
    record = run.read()
    if record and record.node and record.node.alive:
        os.kill(record.node.pid, signal.SIGKILL)
    # Unshare returns only when the kernel has ended every process of the namespace.
    await process.wait()


def _open_ways_in(run: Run, node: Process) -> None:
    """Record the node, and open the ports of 127.0.0.1 by which it is reached."""
    api, http, https = (forward.listen() for _ in range(3))
    ports = [listener.getsockname()[1] for listener in (api, http, https)]
    server = f"https://127.0.0.1:{ports[0]}"
    certificates.write_kubeconfig(run.kubeconfig, run.folder / "pki", "admin", server)
    run.write(Record(Process.of(os.getpid()), node, *ports))
    routes = {
        api: (network.NODE_ADDRESS, network.API_PORT),
        http: (network.NODE_ADDRESS, network.INGRESS_HTTP),
        https: (network.NODE_ADDRESS, network.INGRESS_HTTPS),
    }
    threading.Thread(target=_forward, args=(node.pid, routes), daemon=True).start()


def _forward(pid: int, routes: dict[socket.socket, tuple[str, int]]) -> None:
    forward.enter_network(pid)
    asyncio.run(forward.serve(routes))


def _first_child(pid: int) -> Process:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: bool(children.exists() and children.read_text().strip()), "the node's first process", _START_S)
    return Process.of(int(children.read_text().split()[0]))


async def _owner_gone() -> object:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return await reader.read()
