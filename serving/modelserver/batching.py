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

from serving.modelserver.backend import RunFailed, Servable
from serving.modelserver.config import Batching
from serving.modelserver.observer import Observer
from serving.modelserver.predict import NO_ROWS, UNEQUAL_ROWS, Question
from serving.modelserver.refusals import Refused, invalid_argument
from serving.tfs.tensors import Array

logger = structlog.get_logger()

JOIN_S = 1.0

QUEUE_FULL = (
    "The batch scheduling queue to which this task was submitted is full; {rows} rows are waiting, "
    "max_enqueued_batches limits them to {limit}"
)


class Runnable(Protocol):
    """A version that requests are run on."""

    @property
    def model_name(self) -> str:
        """The model that it is a version of."""

    @property
    def number(self) -> int:
        """The version's number."""

    @property
    def servable(self) -> Servable:
        """The model in memory, and how requests to it are run together."""

    def hold(self) -> None:
        """Keep the version in memory; on the event loop."""

    def release(self) -> None:
        """Let it go again; on the event loop."""


@dataclass(eq=False)
class Task:
    """
    One request on its way through the queue; times are of the monotonic clock, seconds.

    It holds its version until no worker has it any more, which may be long after whoever asked has gone.
    """

    version: Runnable
    question: Question
    deadline: float
    queued: float
    done: asyncio.Future[Mapping[str, Array]]
    left: bool = False
    """Whether it has let go of its version."""

    def dead(self, now: float) -> bool:
        """Whether nobody waits for the answer any more."""
        return now >= self.deadline or self.done.done()


QueueKey = tuple[Runnable, str, tuple[tuple[int, ...], ...]]


def key_of(task: Task) -> QueueKey:
    """
    Return what requests must share to run together: version, signature and the shape of a row.

    TensorFlow Serving lets requests with rows of different shapes meet, and fails them all; here they never meet.
    Where inputs are padded to each other's shape, they need only share the number of dimensions.
    """
    arrays = task.question.inputs.values()
    pad = task.version.servable.batching.pad_inputs
    return task.version, task.question.signature, tuple((array.ndim,) if pad else array.shape[1:] for array in arrays)


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


def padding_for(rows: int, allowed: Sequence[int]) -> int:
    """Return how many rows fill a batch up to the next allowed size; none where there is no such size."""
    return next((size - rows for size in allowed if size >= rows), 0)


@dataclass
class Scheduler:
    """The queues, and the threads that empty them."""

    workers: int
    observer: Observer = field(default_factory=Observer)
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
        batching = version.servable.batching
        if batching.enabled and question.rows > batching.rows_max:
            raise invalid_argument(
                f"Task size {question.rows} is larger than maximum input batch size {batching.rows_max}"
            )
        if batching.enabled and (wrong := _no_batch(version, question)):
            raise invalid_argument(wrong)
        now = self.clock()
        deadline = math.inf if time_left_s is None else now + time_left_s
        task = Task(version, question, deadline, now, asyncio.get_running_loop().create_future())
        with self._changed:
            self._enqueue(task)
            version.hold()
            self._changed.notify()
        return await task.done

    def waiting(self) -> dict[tuple[str, int], int]:
        """Return how many rows wait, by model and version; a version without any is not named."""
        with self._changed:
            return {(version.model_name, version.number): rows for version, rows in self._waiting.items()}

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
                QUEUE_FULL.format(
                    rows=self._waiting[task.version], limit=task.version.servable.batching.rows_waiting_max
                ),
            )
        self._queues.setdefault(key_of(task), deque()).append(task)
        self._waiting[task.version] += task.question.rows

    def _full(self, task: Task) -> bool:
        waiting = self._waiting[task.version]
        # A request that is larger than the whole bound may still wait alone.
        return waiting > 0 and waiting + task.question.rows > task.version.servable.batching.rows_waiting_max

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
            wait = 0.0 if self._closed else wait_s(queue[0].queued, _rows(queue), now, key[0].servable.batching)
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
            self._tell_queued(task, now)
        if not queue:
            del self._queues[key]
        return batch

    def _tell_queued(self, task: Task, now: float) -> None:
        version = task.version
        self.observer.queued(
            model=version.model_name, version=version.number, rows=task.question.rows, waited_s=now - task.queued
        )

    def _rows_max(self, queue: deque[Task]) -> int:
        if not queue or not queue[0].question.batched:
            return 1
        batching = queue[0].version.servable.batching
        return batching.run_rows_max or batching.rows_max

    def _work(self, worker: int) -> None:
        """Run batches until the scheduler is closed; the body of a worker thread."""
        while batch := self._take():
            try:
                run_batch(batch, worker, self.observer)
            except Exception:
                # A worker that died would take a core with it for good.
                logger.exception("batch_failed")
                for task in batch:
                    _deliver(task, Refused(grpc.StatusCode.INTERNAL, "the model server failed"))


def _no_batch(version: Runnable, question: Question) -> str | None:
    """Say what keeps a request out of any batch, although its signature has a batch dimension, or None."""
    if question.batched or not version.servable.model.signatures[question.signature].batched:
        return None
    return UNEQUAL_ROWS if all(array.ndim for array in question.inputs.values()) else NO_ROWS


def run_batch(batch: Sequence[Task], worker: int, observer: Observer) -> None:
    """Run tasks together, deliver each its part; where that fails, each runs alone: one must not spoil the others."""
    batching = batch[0].version.servable.batching
    inputs = joined([task.question.inputs for task in batch], pad=batching.pad_inputs)
    try:
        outputs = _run(batch, inputs, worker, observer)
    except RunFailed as exc:
        if len(batch) == 1:
            _deliver(batch[0], Refused(exc.code, str(exc)))
            return
        for task in batch:
            run_batch([task], worker, observer)
        return
    if len(batch) == 1:
        _deliver(batch[0], outputs)
        return
    at = 0
    for task in batch:
        end = at + task.question.rows
        _deliver(task, {alias: array[at:end] for alias, array in outputs.items()})
        at = end


def _run(batch: Sequence[Task], inputs: Mapping[str, Array], worker: int, observer: Observer) -> Mapping[str, Array]:
    """
    Run joined inputs, in several runs where they are larger than one may be.

    Raises:
        RunFailed: the runtime refused.
    """
    first, batching = batch[0], batch[0].version.servable.batching
    rows = sum(task.question.rows for task in batch)
    size = batching.run_rows_max if first.question.batched and batching.run_rows_max else max(1, rows)
    parts = []
    for at in range(0, max(1, rows), size):
        part = inputs if size >= rows else {alias: array[at : at + size] for alias, array in inputs.items()}
        parts.append(_run_filled(batch, part, min(size, rows - at), worker, observer))
    if len(parts) == 1:
        return parts[0]
    return {alias: np.concatenate([part[alias] for part in parts]) for alias in parts[0]}


def _run_filled(
    batch: Sequence[Task], inputs: Mapping[str, Array], rows: int, worker: int, observer: Observer
) -> Mapping[str, Array]:
    """
    Run one batch, filled up to an allowed size with copies of a row; the answers to the copies are cut off.

    Raises:
        RunFailed: the runtime refused.
    """
    first = batch[0]
    padding = padding_for(rows, first.version.servable.batching.allowed_sizes) if first.question.batched else 0
    if padding:
        inputs = {alias: np.concatenate([array, np.repeat(array[:1], padding, 0)]) for alias, array in inputs.items()}
    started = time.monotonic()
    outputs = first.version.servable.model.run(worker, first.question.signature, inputs)
    if padding or len(batch) > 1:
        _check_rows(outputs, rows + padding)
    observer.ran(
        model=first.version.model_name,
        version=first.version.number,
        platform=first.version.servable.model.platform,
        signature=first.question.signature,
        rows=rows,
        padding=padding,
        tasks=len(batch),
        seconds=time.monotonic() - started,
    )
    return {alias: array[:rows] for alias, array in outputs.items()} if padding else outputs


def _check_rows(outputs: Mapping[str, Array], rows: int) -> None:
    """
    Hold the outputs of several requests to a row for each row; otherwise somebody would get somebody else's.

    Raises:
        RunFailed: FAILED_PRECONDITION; an output has another number of rows, or none.
    """
    for array in outputs.values():
        if array.ndim == 0 or len(array) != rows:
            raise RunFailed(
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors",
                grpc.StatusCode.FAILED_PRECONDITION,
            )


def joined(inputs: Sequence[Mapping[str, Array]], *, pad: bool) -> Mapping[str, Array]:
    """Return the rows of several requests as one batch; with *pad*, filled up with zeros to a common shape."""
    if len(inputs) == 1:
        return inputs[0]
    arrays = {alias: [each[alias] for each in inputs] for alias in inputs[0]}
    return {alias: np.concatenate(_padded(each) if pad else each) for alias, each in arrays.items()}


def _padded(arrays: Sequence[Array]) -> list[Array]:
    """Fill arrays up to the largest size in each dimension but the first; strings are filled with empty ones."""
    largest = [max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True)]
    return [
        np.pad(
            array,
            [(0, 0), *((0, most - size) for most, size in zip(largest, array.shape[1:], strict=True))],
            constant_values=b"" if array.dtype.kind == "O" else 0,
        )
        for array in arrays
    ]


def _rows(tasks: deque[Task]) -> int:
    return sum(task.question.rows for task in tasks)


def _deliver(task: Task, outcome: Mapping[str, Array] | Refused) -> None:
    """Hand the outcome to the event loop that waits for it."""
    try:
        task.done.get_loop().call_soon_threadsafe(_settle, task, outcome)
    except RuntimeError:
        # The loop is closed: the server has gone, and so has whoever asked.
        return


def _settle(task: Task, outcome: Mapping[str, Array] | Refused) -> None:
    """Let the version go, and answer if somebody still waits; a batch that crashed may bring a second outcome."""
    if not task.left:
        task.left = True
        task.version.release()
    if task.done.done():
        return
    if isinstance(outcome, Refused):
        task.done.set_exception(outcome)
    else:
        task.done.set_result(outcome)
