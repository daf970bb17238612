"""Which requests run next and together: decided by pure functions, and kept by the scheduler under threads."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import numpy as np
import pytest

from serving.modelserver.backend import RunFailed
from serving.modelserver.batching import Scheduler, tasks_to_take, wait_s
from serving.modelserver.config import Batching
from serving.modelserver.predict import Question
from serving.modelserver.refusals import Refused
from serving.tfs.tensors import Array
from tests.unit.serving.modelserver.fakes import FakeModel


@pytest.mark.parametrize(
    ("rows", "rows_max", "workers", "taken"),
    [
        ([], 8, 2, 0),
        ([1], 8, 2, 1),
        ([1, 1, 1, 1], 1, 2, 1),
        ([1, 1, 1, 1], 8, 2, 2),
        ([1, 1, 1, 1], 8, 1, 4),
        ([1] * 20, 8, 1, 8),
        ([5, 1], 8, 4, 1),
        ([3, 3, 3], 7, 1, 2),
    ],
    ids=[
        "nothing waits",
        "a single task is taken although its share is less than a row",
        "without batching each task runs alone",
        "two workers share what waits",
        "one worker takes all that waits",
        "a batch is not larger than its limit",
        "a task larger than the share is not split",
        "tasks stay whole",
    ],
)
def test_tasks_to_take_is_a_fair_share(rows: list[int], rows_max: int, workers: int, taken: int) -> None:
    """A worker takes its share of what waits, at least one task, at most a batch."""
    assert tasks_to_take(rows, rows_max=rows_max, workers=workers) == taken


@pytest.mark.parametrize(
    ("window_s", "rows", "waited_s", "wait"),
    [(0, 1, 0, 0), (0.5, 1, 0, 0.5), (0.5, 1, 0.2, 0.3), (0.5, 1, 0.7, 0), (0.5, 4, 0, 0)],
    ids=["no window", "just queued", "in the window", "past the window", "a full batch"],
)
def test_wait_ends_with_the_window_or_a_full_batch(window_s: float, rows: int, waited_s: float, wait: float) -> None:
    """Only a configured window makes a request wait, and only until its batch is full."""
    batching = Batching(rows_max=4, window_s=window_s)
    assert wait_s(100.0, rows, 100.0 + waited_s, batching) == pytest.approx(wait)


@dataclass(eq=False)
class FakeVersion:
    """A version that requests run on."""

    model: FakeModel


class Gate:
    """Holds runs until it is opened, and says when one has arrived."""

    def __init__(self) -> None:
        self.arrived, self.opened = threading.Event(), threading.Event()

    def __call__(self, _: Array) -> None:
        self.arrived.set()
        assert self.opened.wait(20)


@pytest.fixture
def schedulers() -> Iterator[list[Scheduler]]:
    """Close the schedulers that a test made."""
    made: list[Scheduler] = []
    yield made
    for scheduler in made:
        scheduler.close()


def question(*values: float) -> Question:
    """Return a request of as many rows as values."""
    return Question("serving_default", {"x": np.array(values, np.float32)}, ("y",), len(values), batched=True)


async def arrival(gate: Gate) -> None:
    """Wait until a run has begun."""
    assert await asyncio.to_thread(gate.arrived.wait, 20)


def started(schedulers: list[Scheduler], batching: Batching, workers: int = 1) -> Scheduler:
    """Return a running scheduler."""
    scheduler = Scheduler(batching, workers)
    scheduler.start()
    schedulers.append(scheduler)
    return scheduler


async def test_scheduler_runs_what_waits_together(schedulers: list[Scheduler]) -> None:
    """Requests that arrive while the worker is busy run as one batch, and each gets its own rows."""
    gate = Gate()
    version = FakeVersion(FakeModel(gate))
    scheduler = started(schedulers, Batching(rows_max=8, enabled=True))
    first = asyncio.create_task(scheduler.run(version, question(1), 20))
    await arrival(gate)
    others = [asyncio.create_task(scheduler.run(version, question(*values), 20)) for values in ([2], [3, 4], [5])]
    await asyncio.sleep(0)
    gate.opened.set()
    assert (await first)["y"].tolist() == [2]
    assert [(await other)["y"].tolist() for other in others] == [[4], [6, 8], [10]]
    assert version.model.runs == [[1], [2, 3, 4, 5]]


async def test_scheduler_never_joins_what_has_no_batch_dimension(schedulers: list[Scheduler]) -> None:
    """Requests of an unbatched signature run one by one even with batching on."""
    gate = Gate()
    version = FakeVersion(FakeModel(gate))
    scheduler = started(schedulers, Batching(rows_max=8, enabled=True))
    fixed = Question("serving_default", {"x": np.ones(3, np.float32)}, ("y",), 1, batched=False)
    first = asyncio.create_task(scheduler.run(version, fixed, 20))
    await arrival(gate)
    others = [asyncio.create_task(scheduler.run(version, fixed, 20)) for _ in range(2)]
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(first, *others)
    assert version.model.runs == [[1, 1, 1]] * 3


async def test_scheduler_refuses_above_its_bound(schedulers: list[Scheduler]) -> None:
    """One row more than may wait is UNAVAILABLE at once; another version's queue is its own."""
    gate = Gate()
    version, other = FakeVersion(FakeModel(gate)), FakeVersion(FakeModel())
    scheduler = started(schedulers, Batching(rows_waiting_max=2))
    busy = asyncio.create_task(scheduler.run(version, question(1), 20))
    await arrival(gate)
    waiting = [asyncio.create_task(scheduler.run(version, question(n), 20)) for n in (2, 3)]
    beside = asyncio.create_task(scheduler.run(other, question(9), 20))
    await asyncio.sleep(0)
    with pytest.raises(Refused) as caught:
        await scheduler.run(version, question(4), 20)
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    gate.opened.set()
    await asyncio.gather(busy, *waiting, beside)


async def test_scheduler_never_runs_what_nobody_waits_for(schedulers: list[Scheduler]) -> None:
    """A request that was cancelled, and one whose deadline passed, are not run."""
    gate = Gate()
    version = FakeVersion(FakeModel(gate))
    scheduler = started(schedulers, Batching())
    busy = asyncio.create_task(scheduler.run(version, question(1), 20))
    await arrival(gate)
    expired = asyncio.create_task(scheduler.run(version, question(2), 0.0))
    cancelled = asyncio.create_task(scheduler.run(version, question(3), 20))
    living = asyncio.create_task(scheduler.run(version, question(4), None))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    gate.opened.set()
    with pytest.raises(Refused) as caught:
        await expired
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.gather(busy, living)
    assert version.model.runs == [[1], [4]]


async def test_scheduler_gives_each_version_its_turn(schedulers: list[Scheduler]) -> None:
    """A version with many waiting requests does not keep another's from running."""
    gate = Gate()
    order: list[float] = []

    def note(x: Array) -> None:
        order.append(x[0])
        gate(x)

    busy, quiet = FakeVersion(FakeModel(note)), FakeVersion(FakeModel(note))
    scheduler = started(schedulers, Batching())
    running = [asyncio.create_task(scheduler.run(busy, question(1), 20))]
    await arrival(gate)
    running += [asyncio.create_task(scheduler.run(busy, question(n), 20)) for n in (2, 3, 4)]
    running.append(asyncio.create_task(scheduler.run(quiet, question(9), 20)))
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(*running)
    assert order.index(9) <= 2


async def test_scheduler_keeps_one_bad_request_from_spoiling_others(schedulers: list[Scheduler]) -> None:
    """A batch that the runtime refuses is run request by request; only the bad one fails."""
    gate = Gate()

    def refuse(x: Array) -> None:
        gate(x)
        if 13 in x:
            raise RunFailed("kernel text")

    version = FakeVersion(FakeModel(refuse))
    scheduler = started(schedulers, Batching(rows_max=8, enabled=True))
    first = asyncio.create_task(scheduler.run(version, question(1), 20))
    await arrival(gate)
    good, bad = (asyncio.create_task(scheduler.run(version, question(n), 20)) for n in (2, 13))
    await asyncio.sleep(0)
    gate.opened.set()
    with pytest.raises(Refused, match="kernel text") as caught:
        await bad
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert (await good)["y"].tolist() == [4]
    await first


async def test_scheduler_survives_a_crash_in_a_worker(schedulers: list[Scheduler]) -> None:
    """A bug in a backend fails its request, not the worker."""

    def crash(x: Array) -> None:
        if x[0] == 0:
            raise ZeroDivisionError

    version = FakeVersion(FakeModel(crash))
    scheduler = started(schedulers, Batching())
    with pytest.raises(Refused) as caught:
        await scheduler.run(version, question(0), 20)
    assert caught.value.code == grpc.StatusCode.INTERNAL
    assert (await scheduler.run(version, question(1), 20))["y"].tolist() == [2]


async def test_scheduler_waits_the_window_for_company(schedulers: list[Scheduler]) -> None:
    """With a window, two requests that arrive one after the other run together."""
    version = FakeVersion(FakeModel())
    scheduler = started(schedulers, Batching(rows_max=2, window_s=20, enabled=True))
    first = asyncio.create_task(scheduler.run(version, question(1), 30))
    await asyncio.sleep(0)
    second = asyncio.create_task(scheduler.run(version, question(2), 30))
    await asyncio.gather(first, second)
    assert version.model.runs == [[1, 2]]
