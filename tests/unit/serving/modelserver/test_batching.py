"""Which requests run next and together: decided by pure functions, and kept by the scheduler under threads."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from serving.modelserver.backend import RunFailed
from serving.modelserver.batching import Scheduler, Task, joined, key_of, padding_for, tasks_to_take, wait_s
from serving.modelserver.config import Batching
from serving.modelserver.observer import Observer
from serving.modelserver.predict import Question
from serving.modelserver.refusals import Refused
from serving.tfs.signatures import Signature, TensorSpec
from serving.tfs.tensors import Array
from tests.unit.serving.modelserver.fakes import FakeModel, FakeVersion


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


def started(schedulers: list[Scheduler], workers: int = 1) -> Scheduler:
    """Return a running scheduler."""
    scheduler = Scheduler(workers)
    scheduler.start()
    schedulers.append(scheduler)
    return scheduler


async def test_scheduler_runs_what_waits_together(schedulers: list[Scheduler]) -> None:
    """Requests that arrive while the worker is busy run as one batch, and each gets its own rows."""
    gate = Gate()
    version = FakeVersion(FakeModel(gate), Batching(rows_max=8, enabled=True))
    scheduler = started(schedulers)
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
    spec = TensorSpec("x:0", np.dtype("f4"), (3,))
    model = FakeModel(gate, signatures={"serving_default": Signature({"x": spec}, {"y": spec})})
    version = FakeVersion(model, Batching(rows_max=8, enabled=True))
    scheduler = started(schedulers)
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
    version, other = (
        FakeVersion(FakeModel(gate), Batching(rows_waiting_max=2)),
        FakeVersion(FakeModel(), Batching(rows_waiting_max=2)),
    )
    scheduler = started(schedulers)
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
    scheduler = started(schedulers)
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
    scheduler = started(schedulers)
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

    version = FakeVersion(FakeModel(refuse), Batching(rows_max=8, enabled=True))
    scheduler = started(schedulers)
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
    scheduler = started(schedulers)
    with pytest.raises(Refused) as caught:
        await scheduler.run(version, question(0), 20)
    assert caught.value.code == grpc.StatusCode.INTERNAL
    assert (await scheduler.run(version, question(1), 20))["y"].tolist() == [2]


async def test_scheduler_waits_the_window_for_company(schedulers: list[Scheduler]) -> None:
    """With a window, two requests that arrive one after the other run together."""
    version = FakeVersion(FakeModel(), Batching(rows_max=2, window_s=20, enabled=True))
    scheduler = started(schedulers)
    first = asyncio.create_task(scheduler.run(version, question(1), 30))
    await asyncio.sleep(0)
    second = asyncio.create_task(scheduler.run(version, question(2), 30))
    await asyncio.gather(first, second)
    assert version.model.runs == [[1, 2]]


@pytest.mark.parametrize(
    ("rows", "allowed", "padding"),
    [(3, (), 0), (1, (1, 4, 8), 0), (3, (1, 4, 8), 1), (5, (1, 4, 8), 3), (8, (1, 4, 8), 0), (9, (1, 4, 8), 0)],
    ids=["no sizes", "an allowed size", "the next size", "the last size", "the whole batch", "above all"],
)
def test_padding_fills_up_to_the_next_allowed_size(rows: int, allowed: tuple[int, ...], padding: int) -> None:
    """A batch grows to the next allowed size, and never beyond what is needed."""
    assert padding_for(rows, allowed) == padding


async def test_scheduler_fills_batches_and_cuts_the_filling_off(schedulers: list[Scheduler]) -> None:
    """A batch runs with an allowed number of rows, filled with copies of a row; nobody sees the copies' answers."""
    version = FakeVersion(FakeModel(), Batching(rows_max=4, allowed_sizes=(2, 4), enabled=True))
    scheduler = started(schedulers)
    assert (await scheduler.run(version, question(7, 8, 9), 20))["y"].tolist() == [14, 16, 18]
    assert (await scheduler.run(version, question(7), 20))["y"].tolist() == [14]
    assert version.model.runs == [[7, 8, 9, 7], [7, 7]]


async def test_scheduler_splits_a_large_request(schedulers: list[Scheduler]) -> None:
    """With splitting, a request that is larger than one run takes several, each of an allowed size."""
    batching = Batching(rows_max=10, run_rows_max=4, allowed_sizes=(2, 4), enabled=True)
    version = FakeVersion(FakeModel(), batching)
    scheduler = started(schedulers)
    assert (await scheduler.run(version, question(*range(9)), 20))["y"].tolist() == [2 * n for n in range(9)]
    assert version.model.runs == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 8]]
    with pytest.raises(Refused, match="Task size 11 is larger than maximum input batch size 10"):
        await scheduler.run(version, question(*range(11)), 20)


async def test_scheduler_runs_split_requests_one_batch_at_a_time(schedulers: list[Scheduler]) -> None:
    """With splitting, small requests still share a run, up to the size of one."""
    gate = Gate()
    version = FakeVersion(FakeModel(gate), Batching(rows_max=10, run_rows_max=2, enabled=True))
    scheduler = started(schedulers)
    first = asyncio.create_task(scheduler.run(version, question(1), 20))
    await arrival(gate)
    others = [asyncio.create_task(scheduler.run(version, question(n), 20)) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(first, *others)
    assert version.model.runs == [[1], [2, 3], [4]]


async def test_scheduler_gives_each_version_its_own_batching(schedulers: list[Scheduler]) -> None:
    """Sizes are held per version: what one refuses as too large, another takes."""
    small, large = FakeVersion(FakeModel(), Batching(rows_max=1, enabled=True)), FakeVersion(FakeModel())
    scheduler = started(schedulers)
    with pytest.raises(Refused, match="maximum input batch size 1"):
        await scheduler.run(small, question(1, 2), 20)
    assert (await scheduler.run(large, question(1, 2), 20))["y"].tolist() == [2, 4]


def test_joined_pads_rows_to_a_common_shape() -> None:
    """Inputs of several shapes become one batch, zeros where they are shorter; strings are filled with empty ones."""
    inputs = [
        {"x": np.ones((1, 1, 3), np.float32), "s": np.array([[b"a"]], object)},
        {"x": np.ones((2, 2, 1), np.float32), "s": np.array([[b"b", b"c"], [b"d", b"e"]], object)},
    ]
    batch = joined(inputs, pad=True)
    assert batch["x"].tolist() == [
        [[1, 1, 1], [0, 0, 0]],
        [[1, 0, 0], [1, 0, 0]],
        [[1, 0, 0], [1, 0, 0]],
    ]
    assert batch["s"].tolist() == [[b"a", b""], [b"b", b"c"], [b"d", b"e"]]


@pytest.mark.parametrize(("pad", "together"), [(True, True), (False, False)])
async def test_scheduler_keeps_rows_of_other_shapes_apart_unless_they_are_padded(pad: bool, together: bool) -> None:
    """Requests with rows of different lengths share a queue only where they can be made alike."""
    version = FakeVersion(FakeModel(), Batching(rows_max=8, pad_inputs=pad, enabled=True))
    done = asyncio.get_running_loop().create_future()
    keys = [
        key_of(Task(version, Question("s", {"x": np.ones(shape)}, ("y",), 1, batched=True), 0, 0, done))
        for shape in ((1, 2), (1, 3))
    ]
    assert (keys[0] == keys[1]) is together


class Ears(Observer):
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def queued(self, **event: Any) -> None:
        """Note a request that left its queue."""
        assert event.pop("waited_s") >= 0
        self.heard.append(("queued", event))

    def ran(self, **event: Any) -> None:
        """Note a run."""
        assert event.pop("seconds") >= 0
        self.heard.append(("ran", event))


async def test_scheduler_tells_its_observer(schedulers: list[Scheduler]) -> None:
    """Each request that leaves the queue, and each run with its filling, is told with model and version."""
    ears = Ears()
    scheduler = Scheduler(1, ears)
    scheduler.start()
    schedulers.append(scheduler)
    version = FakeVersion(FakeModel(), Batching(rows_max=4, allowed_sizes=(4,), enabled=True), "cancer", 7)
    await scheduler.run(version, question(1, 2, 3), 20)
    here = {"model": "cancer", "version": 7, "rows": 3}
    assert ears.heard == [
        ("queued", here),
        ("ran", {**here, "platform": "fake", "signature": "serving_default", "padding": 1, "tasks": 1}),
    ]


async def test_scheduler_says_how_many_rows_wait(schedulers: list[Scheduler]) -> None:
    """What waits is counted by model and version; what runs does not wait."""
    gate = Gate()
    version = FakeVersion(FakeModel(gate), model_name="cancer", number=3)
    scheduler = started(schedulers)
    busy = asyncio.create_task(scheduler.run(version, question(1), 20))
    await arrival(gate)
    assert scheduler.waiting() == {}
    waiting = asyncio.create_task(scheduler.run(version, question(2, 3), 20))
    await asyncio.sleep(0)
    assert scheduler.waiting() == {("cancer", 3): 2}
    gate.opened.set()
    await asyncio.gather(busy, waiting)
    assert scheduler.waiting() == {}


async def test_scheduler_gives_nobody_the_rows_of_others(schedulers: list[Scheduler]) -> None:
    """A model that answers a batch with another number of rows is asked one by one; filled up, it is refused."""
    gate = Gate()
    model = FakeModel(gate)
    model.rows_out = 1
    version = FakeVersion(model, Batching(rows_max=8, enabled=True))
    scheduler = started(schedulers)
    first = asyncio.create_task(scheduler.run(version, question(1), 20))
    await arrival(gate)
    others = [asyncio.create_task(scheduler.run(version, question(value), 20)) for value in (2, 3)]
    await asyncio.sleep(0)
    gate.opened.set()
    assert [(await each)["y"].tolist() for each in (first, *others)] == [[2], [4], [6]]
    filled = FakeVersion(model, Batching(rows_max=4, allowed_sizes=(4,), enabled=True))
    with pytest.raises(Refused) as caught:
        await scheduler.run(filled, question(1), 20)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(("shape", "words"), [((), "at least one dimension"), ((2,), "equal 0th-dimension size")])
async def test_scheduler_refuses_what_makes_no_batch(
    schedulers: list[Scheduler], shape: tuple[int, ...], words: str
) -> None:
    """With batching, inputs of unequal sizes and scalars are refused where the signature has a batch dimension."""
    uneven = Question("serving_default", {"x": np.ones(shape, np.float32)}, ("y",), 1, batched=False)
    scheduler = started(schedulers)
    with pytest.raises(Refused, match=words):
        await scheduler.run(FakeVersion(FakeModel(), Batching(rows_max=8, enabled=True)), uneven, 20)
    assert (await scheduler.run(FakeVersion(FakeModel()), uneven, 20))["y"].shape == shape


@pytest.mark.parametrize("clients", ["stay", "go"])
async def test_scheduler_holds_versions_until_no_worker_has_them(schedulers: list[Scheduler], clients: str) -> None:
    """Also a request whose client has gone holds its version until it ran or was dropped, and no longer."""
    gate = Gate()
    version = FakeVersion(FakeModel(gate))
    scheduler = started(schedulers)
    calls = [asyncio.create_task(scheduler.run(version, question(1), 20)) for _ in range(3)]
    await arrival(gate)
    if clients == "go":
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert version.in_flight == 3
    gate.opened.set()
    async with asyncio.timeout(20):
        while version.in_flight:
            await asyncio.sleep(0.005)
    await asyncio.gather(*calls, return_exceptions=True)
    assert version.in_flight == 0


async def test_scheduler_lets_a_version_go_once_for_each_request(schedulers: list[Scheduler]) -> None:
    """Also where a crash gives a request a second outcome, after it was answered."""
    gate = Gate()

    def before(x: Array) -> None:
        gate(x)
        if len(x) > 1:
            raise RunFailed("not together")
        if x[0] == 3:
            raise ZeroDivisionError

    version = FakeVersion(FakeModel(before), Batching(rows_max=8, enabled=True))
    scheduler = started(schedulers)
    calls = [asyncio.create_task(scheduler.run(version, question(1), 20))]
    await arrival(gate)
    calls += [asyncio.create_task(scheduler.run(version, question(value), 20)) for value in (2, 3)]
    await asyncio.sleep(0)
    gate.opened.set()
    one, two, three = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(three, Refused)
    assert [each["y"].tolist() for each in (one, two) if not isinstance(each, BaseException)] == [[2], [4]]
    # What the worker told twice has been heard once it has answered another.
    await scheduler.run(version, question(4), 20)
    assert version.in_flight == 0
