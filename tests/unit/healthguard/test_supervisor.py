"""The supervisor over real processes."""

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from healthguard.local.lifecycle import START_TRIES_MAX, Phase, Plan
from healthguard.local.logs import LINE_BYTES_MAX
from healthguard.local.process import Command, alive
from healthguard.local.supervisor import Report, Service, ServiceFailed, Supervisor

DEADLINE_S = 20.0
FOREVER = "import time; open({ready!r}, 'w'); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({ready!r}, 'w'); time.sleep(600)"


def _service(folder: Path, name: str, code: str = FOREVER, **plan: object) -> Service:
    """Return a process that makes a file when it is ready; the file is gone before each start."""
    mark = folder / f"{name}.ready"

    async def ready() -> bool:
        return mark.exists()

    return Service(
        Plan(name, **plan),  # type: ignore[arg-type]
        lambda: Command((sys.executable, "-S", "-E", "-c", code.format(ready=str(mark))), folder),
        ready,
        prepare=lambda: mark.unlink(missing_ok=True),
    )


@contextlib.asynccontextmanager
async def _running(supervisor: Supervisor) -> AsyncIterator["asyncio.Task[None]"]:
    """Run for the block; then stop, and wait until nothing is left."""
    keeping = asyncio.create_task(supervisor.run())
    try:
        yield keeping
    finally:
        supervisor.stop()
        await asyncio.wait_for(asyncio.wait([keeping]), DEADLINE_S)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


def _phase(supervisor: Supervisor, name: str) -> Phase:
    return supervisor.states[name].phase


async def test_supervisor_starts_in_order_and_stops_in_reverse(tmp_path: Path) -> None:
    """A service starts after what it needs is ready, and stops before it does."""
    reports: list[Report] = []
    services = [
        _service(tmp_path, "first"),
        _service(tmp_path, "second", needs=frozenset({"first"})),
    ]
    supervisor = Supervisor(services, tmp_path / "logs", on_change=reports.append)
    async with _running(supervisor):
        await _until(lambda: _phase(supervisor, "second") is Phase.READY)
    seen = [(report.name, report.state.phase) for report in reports]
    assert seen.index(("first", Phase.READY)) < seen.index(("second", Phase.STARTING))
    assert seen.index(("second", Phase.STOPPED)) < seen.index(("first", Phase.STOPPING))


async def test_supervisor_restarts_what_was_killed(tmp_path: Path) -> None:
    """A killed service comes back as another process; its neighbour stays."""
    supervisor = Supervisor([_service(tmp_path, "one"), _service(tmp_path, "two")], tmp_path / "logs")
    async with _running(supervisor):
        await _until(lambda: {_phase(supervisor, "one"), _phase(supervisor, "two")} == {Phase.READY})
        one, two = supervisor.pid("one"), supervisor.pid("two")
        assert one is not None
        os.kill(one, signal.SIGKILL)
        await _until(lambda: supervisor.pid("one") not in {None, one} and _phase(supervisor, "one") is Phase.READY)
        assert supervisor.pid("two") == two
        assert supervisor.states["one"].restarts == 1


async def test_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    """After the stop no process runs: not one that ignores SIGTERM, and not the child of a child."""
    child = tmp_path / "child.pid"
    parent = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-S', '-E', '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(child)!r}, 'w').write(str(child.pid)); open({{ready!r}}, 'w'); time.sleep(600)"
    )
    services = [_service(tmp_path, "stubborn", STUBBORN, stop_s_max=0.2), _service(tmp_path, "parent", parent)]
    supervisor = Supervisor(services, tmp_path / "logs")
    async with _running(supervisor):
        await _until(lambda: all(state.phase is Phase.READY for state in supervisor.states.values()))
        pids = [supervisor.pid("stubborn"), supervisor.pid("parent"), int(child.read_text())]
        assert all(pid is not None and alive(pid) for pid in pids)
    await _until(lambda: not any(alive(pid) for pid in pids if pid is not None))


async def test_supervisor_fails_with_the_last_words_of_what_never_starts(tmp_path: Path) -> None:
    """A service that dies at each start ends everything, and its output says why."""
    services = [
        _service(tmp_path, "good"),
        _service(tmp_path, "broken", "print('no such setting'); raise SystemExit(3)"),
    ]
    supervisor = Supervisor(services, tmp_path / "logs")
    with pytest.raises(ServiceFailed) as failed:
        await asyncio.wait_for(supervisor.run(), DEADLINE_S)
    assert failed.value.name == "broken"
    assert failed.value.last_lines == ("no such setting",) * START_TRIES_MAX
    assert _phase(supervisor, "good") is Phase.STOPPED


async def test_supervisor_skips_a_task_that_is_not_needed(tmp_path: Path) -> None:
    """Such a task runs no process, and what needs it starts."""
    command = Command((sys.executable, "-c", "raise SystemExit(1)"), tmp_path)
    task = Service(Plan("task", task=True), lambda: command, needed=lambda: False)
    supervisor = Supervisor([task, _service(tmp_path, "after", needs=frozenset({"task"}))], tmp_path / "logs")
    async with _running(supervisor):
        await _until(lambda: _phase(supervisor, "after") is Phase.READY)
        assert _phase(supervisor, "task") is Phase.DONE


async def test_supervisor_bounds_a_line_without_an_end(tmp_path: Path) -> None:
    """A service that writes without a line feed fills neither memory nor disk."""
    lines: list[str] = []
    flood = "import time; print('x' * 3_000_000 + '\\nlast', flush=True); open({ready!r}, 'w'); time.sleep(600)"
    supervisor = Supervisor(
        [_service(tmp_path, "loud", flood)], tmp_path / "logs", on_line=lambda _name, line: lines.append(line)
    )
    async with _running(supervisor):
        await _until(lambda: "last" in lines)
    # What the pipe brought in one piece after the cut may follow once.
    assert max(map(len, lines)) <= LINE_BYTES_MAX + 64 * 1024
    assert (tmp_path / "logs" / "loud.log").stat().st_size <= LINE_BYTES_MAX + 10


async def test_supervisor_killed_takes_its_children_along(tmp_path: Path) -> None:
    """Nobody is left to stop the children when the supervisor is killed: the kernel does it."""
    child = tmp_path / "child.pid"
    script = textwrap.dedent(
        f"""
        import asyncio, sys
        from pathlib import Path
        from healthguard.local.lifecycle import Plan
        from healthguard.local.process import Command
        from healthguard.local.supervisor import Service, Supervisor

        code = "import os, time; open({str(child)!r}, 'w').write(str(os.getpid())); time.sleep(600)"

        async def ready():
            return True

        service = Service(Plan("child"), lambda: Command((sys.executable, "-S", "-c", code), Path("/")), ready)
        asyncio.run(Supervisor([service], Path({str(tmp_path)!r}) / "logs").run())
        """
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    await _until(lambda: child.exists() and child.read_text() != "")
    pid = int(child.read_text())
    assert alive(pid)
    parent.kill()
    await parent.wait()
    await _until(lambda: not alive(pid))


async def test_supervisor_reads_on_where_logs_cannot_be_written(tmp_path: Path) -> None:
    """A full disk, or a terminal that is gone, costs log lines; the service must not block on its full pipe."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "loud.log").symlink_to("/dev/full")
    seen: list[str] = []

    def show(_name: str, line: str) -> None:
        seen.append(line)
        raise BrokenPipeError

    loud = "import time; [print('x' * 1000) for _ in range(3000)]; open({ready!r}, 'w'); time.sleep(600)"
    supervisor = Supervisor([_service(tmp_path, "loud", loud)], tmp_path / "logs", on_line=show)
    async with _running(supervisor):
        await _until(lambda: _phase(supervisor, "loud") is Phase.READY)
    assert len(seen) > 2000


async def test_supervisor_does_not_start_what_cannot_be_prepared(tmp_path: Path) -> None:
    """While the preparation fails after a death, nothing runs and the reason is told; then it heals."""
    needed = tmp_path / "needed"
    needed.touch()

    def prepare() -> None:
        if not needed.exists():
            raise RuntimeError("what it needs is gone")

    service = replace(_service(tmp_path, "one"), prepare=prepare)
    supervisor = Supervisor([service], tmp_path / "logs")
    async with _running(supervisor):
        await _until(lambda: _phase(supervisor, "one") is Phase.READY)
        needed.unlink()
        pid = supervisor.pid("one")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await _until(lambda: supervisor.states["one"].restarts >= 3)
        assert supervisor.pid("one") is None
        assert supervisor.reason("one") == "what it needs is gone"
        needed.touch()
        await _until(lambda: _phase(supervisor, "one") is Phase.READY)
        assert supervisor.reason("one") is None
