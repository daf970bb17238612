"""
Which waiting requests run next, and together.

Requests wait in one queue per version, signature and row shape. A worker thread that becomes free takes the next ones
by itself, without a way through the event loop, so no core idles while a request waits. Nothing waits for company
unless a window is configured.
"""

import asyncio
import math
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import grpc
import numpy as np
import structlog

from serving.modelserver.backend import LoadedModel, RunFailed
from serving.modelserver.config import Batching
from serving.modelserver.predict import Question
from serving.modelserver.refusals import Refused, invalid_argument
from serving.tfs.tensors import Array

logger = structlog.get_logger()

JOIN_S = 1.0

QUEUE_FULL = (
    "The batch scheduling queue to which this task was submitted is full; currently {tasks} tasks enqueued, "
    "max_enqueued_batches limits it to {rows} rows"
)


class Runnable(Protocol):
    """A version that requests are run on."""

    @property
    def model(self) -> LoadedModel:
        """The model in memory."""


@dataclass(eq=False)
class Task:
    """One request on its way through the queue; times are of the monotonic clock, seconds."""

    version: Runnable
    question: Question
    deadline: float
    queued: float
    done: asyncio.Future[Mapping[str, Array]]

    def dead(self, now: float) -> bool:
        """Whether nobody waits for the answer any more."""
        return now >= self.deadline or self.done.done()


QueueKey = tuple[Runnable, str, tuple[tuple[int, ...], ...]]


def key_of(task: Task) -> QueueKey:
    """Return what requests must share to run together: version, signature and the shape of a row."""
    return task.version, task.question.signature, tuple(array.shape[1:] for array in task.question.inputs.values())


def tasks_to_take(rows: Sequence[int], *, rows_max: int, workers: int) -> int:
    """
    Return how many of the first tasks one worker takes, of which it takes at least one.

    No more than the worker's fair share: taking all that waits would leave the other cores without work.
    """
    limit = min(rows_max, math.ceil(sum(rows) / workers))
    taken, total = 0, 0
    for size in rows:
        if taken and total + size > limit:
            break
        taken, total = taken + 1, total + size
    return taken


def wait_s(oldest: float, rows: int, now: float, batching: Batching) -> float:
    """Return how long a queue still waits for company: 0 when it is full, or its oldest task has waited the window."""
    if rows >= batching.rows_max:
        return 0.0
    return max(0.0, oldest + batching.window_s - now)


@dataclass
class Scheduler:
    """The queues, and the threads that empty them."""

    batching: Batching
    workers: int
    clock: Callable[[], float] = time.monotonic
    _queues: OrderedDict[QueueKey, deque[Task]] = field(default_factory=OrderedDict)
    _waiting: Counter[Runnable] = field(default_factory=Counter)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start one thread per worker."""
        self._threads = [
            threading.Thread(target=self._work, args=(worker,), name=f"interpreter-{worker}", daemon=True)
            for worker in range(self.workers)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Let the threads finish what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            # Bounded: a run that takes longer has nobody left who waits for it, and the threads are daemons.
            thread.join(JOIN_S)

    async def run(self, version: Runnable, question: Question, time_left_s: float | None) -> Mapping[str, Array]:
        """
        Queue a request and return its outputs.

        Raises:
            Refused: too large for a batch, the queue is full, the deadline passed, or the model could not run it.
        """
        if self.batching.enabled and question.rows > self.batching.rows_max:
            raise invalid_argument(
                f"Task size {question.rows} is larger than maximum input batch size {self.batching.rows_max}"
            )
        now = self.clock()
        deadline = math.inf if time_left_s is None else now + time_left_s
        task = Task(version, question, deadline, now, asyncio.get_running_loop().create_future())
        with self._changed:
            self._enqueue(task)
            self._changed.notify()
        return await task.done

    def _enqueue(self, task: Task) -> None:
        """
        Append a task; the lock is held.

        Raises:
            Refused: UNAVAILABLE; the version's queues are full even without their dead tasks.
        """
        if self._full(task):
            self._bury(task.version, self.clock())
        if self._full(task):
            raise Refused(
                grpc.StatusCode.UNAVAILABLE,
                QUEUE_FULL.format(tasks=self._waiting[task.version], rows=self.batching.rows_waiting_max),
            )
        self._queues.setdefault(key_of(task), deque()).append(task)
        self._waiting[task.version] += task.question.rows

    def _full(self, task: Task) -> bool:
        waiting = self._waiting[task.version]
        # A request that is larger than the whole bound may still wait alone.
        return waiting > 0 and waiting + task.question.rows > self.batching.rows_waiting_max

    def _bury(self, version: Runnable, now: float) -> None:
        """Take the dead tasks of a version out of its queues; the lock is held."""
        for key in [key for key in self._queues if key[0] is version]:
            for task in list(self._queues[key]):
                if task.dead(now):
                    self._queues[key].remove(task)
                    self._drop(task)
            if not self._queues[key]:
                del self._queues[key]

    def _left(self, task: Task) -> None:
        """Count a task out of its version's queues."""
        self._waiting[task.version] -= task.question.rows
        if not self._waiting[task.version]:
            del self._waiting[task.version]

    def _drop(self, task: Task) -> None:
        """Count a dead task out, and say so to whoever may still listen."""
        self._left(task)
        _deliver(task, Refused(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _take(self) -> list[Task]:
        """Wait for work and take it out of a queue; nothing means that the scheduler is closed and empty."""
        with self._changed:
            while True:
                now = self.clock()
                batch, wait = self._next(now)
                if batch or (self._closed and not self._queues):
                    return batch
                self._changed.wait(wait)

    def _next(self, now: float) -> tuple[list[Task], float | None]:
        """Return the next batch, or how long to wait for one (None: until something changes); the lock is held."""
        waits: list[float] = []
        for key, queue in list(self._queues.items()):
            wait = 0.0 if self._closed else wait_s(queue[0].queued, _rows(queue), now, self.batching)
            if wait > 0:
                waits.append(wait)
                continue
            # The queue goes to the end of the line, so that a busy model does not starve another.
            self._queues.move_to_end(key)
            batch = self._pop(key, now)
            if batch:
                return batch, None
        return [], min(waits, default=None)

    def _pop(self, key: QueueKey, now: float) -> list[Task]:
        """Take one batch of living tasks out of a queue; the lock is held."""
        queue = self._queues[key]
        for task in [task for task in queue if task.dead(now)]:
            queue.remove(task)
            self._drop(task)
        rows = [task.question.rows for task in queue]
        batch = [
            queue.popleft() for _ in range(tasks_to_take(rows, rows_max=self._rows_max(queue), workers=self.workers))
        ]
        for task in batch:
            self._left(task)
        if not queue:
            del self._queues[key]
        return batch

    def _rows_max(self, queue: deque[Task]) -> int:
        return self.batching.rows_max if queue and queue[0].question.batched else 1

    def _work(self, worker: int) -> None:
        """Run batches until the scheduler is closed; the body of a worker thread."""
        while batch := self._take():
            try:
                run_batch(batch, worker)
            except Exception:
                # A worker that died would take a core with it for good.
                logger.exception("batch_failed")
                for task in batch:
                    _deliver(task, Refused(grpc.StatusCode.INTERNAL, "the model server failed"))


def run_batch(batch: Sequence[Task], worker: int) -> None:
    """Run tasks together, deliver each its part; where that fails, each runs alone: one must not spoil the others."""
    first = batch[0]
    inputs = first.question.inputs if len(batch) == 1 else _joined([task.question.inputs for task in batch])
    try:
        outputs = first.version.model.run(worker, first.question.signature, inputs)
    except RunFailed as exc:
        if len(batch) == 1:
            _deliver(first, invalid_argument(str(exc)))
            return
        for task in batch:
            run_batch([task], worker)
        return
    if len(batch) == 1:
        _deliver(first, outputs)
        return
    at = 0
    for task in batch:
        end = at + task.question.rows
        _deliver(task, {alias: array[at:end] for alias, array in outputs.items()})
        at = end


def _joined(inputs: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
    return {alias: np.concatenate([each[alias] for each in inputs]) for alias in inputs[0]}


def _rows(tasks: deque[Task]) -> int:
    return sum(task.question.rows for task in tasks)


def _deliver(task: Task, outcome: Mapping[str, Array] | Refused) -> None:
    """Hand the outcome to the event loop that waits for it."""
    try:
        task.done.get_loop().call_soon_threadsafe(_settle, task.done, outcome)
    except RuntimeError:
        # The loop is closed: the server has gone, and so has whoever asked.
        return


def _settle(done: asyncio.Future[Mapping[str, Array]], outcome: Mapping[str, Array] | Refused) -> None:
    if done.done():
        return
    if isinstance(outcome, Refused):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
