"""
Runs the processes that `lifecycle` decides on: starts, asks whether they are ready, restarts, forwards logs, stops.

Everything happens on one event loop; each life of a process is one task, which tells the loop what it saw by a queue.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from os import killpg
from pathlib import Path

from healthguard.local import lifecycle
from healthguard.local.lifecycle import Act, Phase, Plan, State, Step
from healthguard.local.logs import LINE_BYTES_MAX, LogFile
from healthguard.local.process import Command

READY_POLL_S = 0.03
_CHUNK_BYTES = 64 * 1024
_LOG_END_S_MAX = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """A process to keep running, or a task to run once."""

    plan: Plan
    command: Callable[[], Command]
    """Called at each start."""
    ready: Callable[[], Awaitable[bool]] | None = None
    """Asked again and again after a start; none: a task, which is ready when it ended well."""
    needed: Callable[[], bool] | None = None
    """Asked in a thread before a task is started: one that is not needed counts as done."""
    prepare: Callable[[], None] | None = None
    """Called in a thread before each start; where it raises, the service is not started, and tried again later."""
    settle: Callable[[], None] | None = None
    """Called in a thread after the first good answer of all, before others see the service as ready."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the outside is told when something changed."""

    name: str
    state: State
    pid: int | None
    """Of the running process; none: nothing runs."""


class ServiceFailed(RuntimeError):
    """A service never became ready."""

    def __init__(self, name: str, last_lines: Sequence[str]) -> None:
        super().__init__(f"{name} did not start")
        self.name = name
        self.last_lines = tuple(last_lines)


@dataclass(frozen=True, slots=True)
class _Spawned:
    name: str


@dataclass(frozen=True, slots=True)
class _Answered:
    name: str


@dataclass(frozen=True, slots=True)
class _Ended:
    name: str
    status: int


class Supervisor:
    """Keeps services running until it is told to stop."""

    def __init__(
        self,
        services: Sequence[Service],
        logs: Path,
        *,
        on_change: Callable[[Report], None] = lambda report: None,
        on_line: Callable[[str, str], None] = lambda name, line: None,
    ) -> None:
        """
        Args:
            logs: folder for one bounded log file per service.
            on_change: told of every change.
            on_line: told of every line that a service wrote: its name, the line.
        """
        self._services = {service.plan.name: service for service in services}
        self._plans = [service.plan for service in services]
        self._states = {plan.name: State() for plan in self._plans}
        self._logs = {plan.name: LogFile(logs / f"{plan.name}.log") for plan in self._plans}
        self._on_change = on_change
        self._on_line = on_line
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._reasons: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._events: asyncio.Queue[_Spawned | _Answered | _Ended | None] = asyncio.Queue()
        self._stopping = False
        self._failed: str | None = None

    @property
    def states(self) -> Mapping[str, State]:
        """How each service stands."""
        return self._states

    def pid(self, name: str) -> int | None:
        """Return the process id of a service; none where nothing runs."""
        process = self._processes.get(name)
        return process.pid if process else None

    def reason(self, name: str) -> str | None:
        """Return why a service could not be started; none where it is ready, or was not kept from starting."""
        return self._reasons.get(name)

    def stop(self) -> None:
        """Stop everything, in order; asked a second time, kill everything."""
        if self._stopping:
            for name in self._processes:
                self._signal(name, signal.SIGKILL)
        self._stopping = True
        self._events.put_nowait(None)

    async def run(self) -> None:
        """
        Run until told to stop, and return when nothing is left.

        Raises:
            ServiceFailed: a service never became ready; all others were stopped.
        """
        try:
            while not self._over():
                for step in lifecycle.steps(self._plans, self._states, time.monotonic(), stopping=self._stopping):
                    self._act(step)
                self._take(await self._next_event())
        finally:
            await self._close()
        if self._failed is not None:
            raise ServiceFailed(self._failed, self._logs[self._failed].last)

    def _over(self) -> bool:
        """Tell whether everything has stopped; while stopping, count what does not run as stopped."""
        if self._stopping:
            for plan in self._plans:
                self._change(plan.name, lifecycle.at_rest(self._states[plan.name]))
        return all(state.phase in lifecycle.ENDED for state in self._states.values())

    async def _next_event(self) -> _Spawned | _Answered | _Ended | None:
        """Return the next event, or nothing when a decision is due without one."""
        due = lifecycle.next_at(self._plans, self._states, stopping=self._stopping)
        wait_s = None if due == float("inf") else max(0.0, due - time.monotonic()) + 0.001
        try:
            async with asyncio.timeout(wait_s):
                return await self._events.get()
        except TimeoutError:
            return None

    def _act(self, step: Step) -> None:
        now = time.monotonic()
        match step.act:
            case Act.START:
                self._change(step.name, lifecycle.started(self._states[step.name], now))
                self._spawn_task(self._live(self._services[step.name]))
            case Act.STOP:
                self._change(step.name, lifecycle.asked_to_stop(self._states[step.name], now))
                self._signal(step.name, self._services[step.name].command().stop_signal)
            case Act.KILL:
                self._change(step.name, lifecycle.killed(self._states[step.name], now))
                self._signal(step.name, signal.SIGKILL)

    def _take(self, event: _Spawned | _Answered | _Ended | None) -> None:
        """Bring the states up to date with what a task saw."""
        now = time.monotonic()
        match event:
            case _Spawned(name):
                self._change(name, self._states[name], even_if_same=True)
                if self._states[name].phase is Phase.STOPPING:  # asked before there was a process to ask
                    self._signal(name, self._services[name].command().stop_signal)
            case _Answered(name):
                self._reasons.pop(name, None)
                self._change(name, lifecycle.became_ready(self._states[name], now))
            case _Ended(name, status):
                plan = self._services[name].plan
                state = lifecycle.ended(plan, self._states[name], now, status=status, stopping=self._stopping)
                self._change(name, state, even_if_same=True)
                if state.phase is Phase.FAILED:
                    self._failed = self._failed or name
                    self._stopping = True

    def _change(self, name: str, state: State, *, even_if_same: bool = False) -> None:
        changed = state != self._states[name]
        self._states[name] = state
        if changed or even_if_same:
            self._on_change(Report(name, state, self.pid(name)))

    def _signal(self, name: str, sig: signal.Signals) -> None:
        """Signal a service: SIGKILL reaches its whole process group, a request to stop its leader."""
        if (process := self._processes.get(name)) is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if sig is signal.SIGKILL:
                killpg(process.pid, sig)
            else:
                process.send_signal(sig)

    async def _live(self, service: Service) -> None:
        """Be one life of a process, from its start to its end."""
        name = service.plan.name
        status = 1
        try:
            if service.needed is not None and not await asyncio.to_thread(service.needed):
                status = 0
                return
            process = await self._spawn(service)
            self._processes[name] = process
            self._events.put_nowait(_Spawned(name))
            self._spawn_task(self._forward(name, process))
            asking = asyncio.create_task(self._until_ready(service))
            try:
                status = await process.wait()
            finally:
                asking.cancel()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                killpg(process.pid, signal.SIGKILL)  # what it may have left in its group
        except (OSError, RuntimeError) as exc:
            self._note(name, exc)
        finally:
            self._processes.pop(name, None)
            self._events.put_nowait(_Ended(name, status))

    async def _spawn(self, service: Service) -> asyncio.subprocess.Process:
        if service.prepare is not None:
            await asyncio.to_thread(service.prepare)
        command = service.command()
        return await asyncio.create_subprocess_exec(
            *command.guarded_argv(),
            cwd=command.folder,
            env=command.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # A session of its own: Ctrl-C at the terminal is for us, who stop the others in order.
            start_new_session=True,
        )

    async def _until_ready(self, service: Service) -> None:
        """Ask until the first good answer; a task gives none, its end is the answer."""
        if service.ready is None:
            return
        while not await service.ready():  # noqa: ASYNC110 - another process has no event of ours to set
            await asyncio.sleep(READY_POLL_S)
        if service.settle is not None and not self._states[service.plan.name].was_ready:
            try:
                await asyncio.to_thread(service.settle)
            except (OSError, RuntimeError) as exc:
                self._note(service.plan.name, exc)
                self._signal(service.plan.name, signal.SIGKILL)
                return
        self._events.put_nowait(_Answered(service.plan.name))

    async def _forward(self, name: str, process: asyncio.subprocess.Process) -> None:
        """Hand on what the process writes, line by line; a line without an end is cut."""
        assert process.stdout is not None  # noqa: S101 - for the type checker: it was asked for
        rest = b""
        while chunk := await process.stdout.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._line(name, line.decode(errors="replace"))
            rest = rest[:LINE_BYTES_MAX]
        if rest:
            self._line(name, rest.decode(errors="replace"))

    def _note(self, name: str, why: Exception) -> None:
        """Keep why a service cannot start, for whoever asks how it stands, and log it."""
        self._reasons[name] = str(why)
        self._line(name, f"ERROR {why}")

    def _line(self, name: str, line: str) -> None:
        """Hand on one line; never fails, since who does not read makes the service block on its full pipe."""
        self._logs[name].write(line)
        with contextlib.suppress(OSError):  # the terminal is gone, or the disk is full that our output goes to
            self._on_line(name, line)

    def _spawn_task(self, life: Awaitable[None]) -> None:
        task = asyncio.ensure_future(life)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self) -> None:
        """Leave nothing behind, also where the loop itself was interrupted."""
        for name in list(self._processes):
            self._signal(name, signal.SIGKILL)
        if self._tasks:
            _, pending = await asyncio.wait(self._tasks, timeout=_LOG_END_S_MAX)
            for task in pending:
                task.cancel()
        for log in self._logs.values():
            log.close()
