"""What waits to be stored goes together, nobody waits for nothing, and each hears of their own record alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import pytest
import structlog

from gateway import saves
from gateway.problems import NotStored
from gateway.saves import BYTES_MAX, TOGETHER_MAX, Save, Saves
from gateway.schemas import NewPrediction
from healthguard.problems import Forbidden

PATIENCE_S = 20.0


def save(number: int, size: int = 20) -> Save:
    """Return a save that is told by its number."""
    return Save("token", b"%d" % number + b" " * size, str(number))


def stored(number: int) -> NewPrediction:
    """Return the record that a save becomes."""
    absent = dict.fromkeys(
        (
            *("model", "version", "weights_digest", "score", "confidence", "ood_score", "recommendation"),
            *("image_hmac", "image_size_bytes", "filename", "timings"),
        )
    )
    return NewPrediction(
        id=UUID(int=number),
        number=number,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        task="binary",
        outcome="Negative",
        source="model",
        review_state="preliminary",
        **absent,
    )


@dataclass
class Store:
    """What stores: notes who came with whom, and answers when it is let."""

    calls: list[list[int]] = field(default_factory=list)
    alone: list[int] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    refuses: bool = False
    fails: bool = False
    forbidden: int | None = None
    contexts: list[str | None] = field(default_factory=list)
    """The request that each call was made for, as its log lines would say; None where it is for several."""

    def note_context(self) -> None:
        """Note whose a log line would be."""
        self.contexts.append(structlog.contextvars.get_contextvars().get("request_id"))

    async def one(self, each: Save, _timeout_s: float | None) -> NewPrediction:
        """Store one."""
        self.alone.append(int(each.request_id))
        self.note_context()
        await self.open.wait()
        if int(each.request_id) == self.forbidden:
            raise Forbidden
        return stored(int(each.request_id))

    async def many(self, together: Sequence[Save]) -> Sequence[NewPrediction] | None:
        """Store several."""
        self.calls.append([int(each.request_id) for each in together])
        self.note_context()
        await self.open.wait()
        if self.fails:
            raise NotStored
        return None if self.refuses else [stored(int(each.request_id)) for each in together]

    def saves(self) -> Saves:
        """Return what brings saves here."""
        return Saves(self.one, self.many)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a call take as long as a test needs; the test of the limit sets its own."""
    monkeypatch.setattr(saves, "LINGER_S", PATIENCE_S)


async def begun(tasks: Sequence["asyncio.Task[NewPrediction]"]) -> None:
    """Let all of *tasks* come to where they wait."""
    for _ in range(3 * len(tasks)):
        await asyncio.sleep(0)


async def several(store: Store, count: int, size: int = 20) -> list["asyncio.Task[NewPrediction]"]:
    """Have so many saved, the first of which is under way when the others come."""
    bringing = store.saves()
    tasks = [asyncio.create_task(bringing.store(save(number, size), PATIENCE_S)) for number in range(count)]
    await begun(tasks)
    return tasks


async def test_save_alone_goes_at_once() -> None:
    """Where none is under way nobody waits for company."""
    store = Store()
    (task,) = await several(store, 1)
    assert store.alone == [0]
    store.open.set()
    assert (await task).number == 0
    assert store.calls == []


async def test_saves_that_wait_go_together_and_each_gets_its_own_record() -> None:
    """Those that come while one is under way are one call, and are answered after it, each with theirs."""
    store = Store()
    tasks = await several(store, 5)
    assert (store.alone, store.calls) == ([0], [])
    assert not any(task.done() for task in tasks)
    store.open.set()
    assert [record.number for record in await asyncio.gather(*tasks)] == list(range(5))
    assert (store.alone, store.calls) == ([0], [[1, 2, 3, 4]])


@pytest.mark.parametrize(
    ("count", "size", "first"),
    [(TOGETHER_MAX + 9, 20, TOGETHER_MAX), (5, BYTES_MAX // 2 - 100, 2), (3, 2 * BYTES_MAX, 1)],
    ids=["by their number", "by their bytes", "one that is too long for company"],
)
async def test_call_holds_no_more_than_records_takes(count: int, size: int, first: int) -> None:
    """What does not fit goes in a further call, in order."""
    store = Store()
    tasks = await several(store, count, size)
    store.open.set()
    await asyncio.gather(*tasks)
    assert len(store.calls[0]) == first
    assert [number for call in store.calls for number in call] == list(range(1, count))


async def test_slow_call_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment they go without waiting for its end."""
    monkeypatch.setattr(saves, "LINGER_S", 0.01)
    store = Store()
    tasks = await several(store, 3)
    async with asyncio.timeout(PATIENCE_S):
        while not store.calls:
            await asyncio.sleep(0.001)
    assert store.calls == [[1, 2]]
    store.open.set()
    await asyncio.gather(*tasks)


async def test_refused_together_are_stored_one_by_one() -> None:
    """One that records refuses is no other's problem."""
    store = Store(refuses=True, forbidden=2)
    tasks = await several(store, 4)
    store.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(each, "number", type(each)) for each in results] == [0, 1, Forbidden, 3]
    assert store.alone == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("refuses", "expected"), [(False, ["0", None]), (True, ["0", None, "1", "2"])], ids=["together", "one by one"]
)
async def test_call_speaks_of_no_other_request(*, refuses: bool, expected: list[str | None]) -> None:
    """Log lines of a call for several name none of them, not the one whose end began it; those for one name it."""
    store = Store(refuses=refuses)
    bringing = store.saves()

    async def one(number: int) -> NewPrediction:
        structlog.contextvars.bind_contextvars(request_id=str(number))
        return await bringing.store(save(number), PATIENCE_S)

    tasks = [asyncio.create_task(one(number)) for number in range(3)]
    await begun(tasks)
    store.open.set()
    await asyncio.gather(*tasks)
    assert store.contexts == expected


async def test_failed_call_fails_all_that_were_in_it_and_no_later_one() -> None:
    """Nobody is told that something is stored which is not known to be."""
    store = Store(fails=True)
    tasks = await several(store, 3)
    store.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in results] == [NewPrediction, NotStored, NotStored]
    store.fails = False
    assert (await store.saves().store(save(9), PATIENCE_S)).number == 9


async def test_who_leaves_before_the_call_has_nothing_stored() -> None:
    """A client that went away while it waited is left out; the others are served."""
    store = Store()
    tasks = await several(store, 4)
    tasks[2].cancel()
    await begun(tasks)
    store.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert store.calls == [[1, 3]]
    assert isinstance(results[2], asyncio.CancelledError)


async def test_who_leaves_during_the_call_does_not_end_it() -> None:
    """The call belongs to all who are in it."""
    store = Store()
    tasks = await several(store, 4)
    tasks[0].cancel()
    await begun(tasks)
    assert store.calls == [[1, 2, 3]]
    tasks[1].cancel()
    store.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(each, "number", None) for each in results] == [None, None, 2, 3]


async def test_wait_ends_with_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request's deadline holds while it waits behind another's call."""
    monkeypatch.setattr(saves, "LINGER_S", 0.01)
    store = Store()
    bringing = store.saves()
    first = asyncio.create_task(bringing.store(save(0), PATIENCE_S))
    await begun([first])
    with pytest.raises(NotStored) as late:
        await bringing.store(save(1), 0.01)
    assert "Idempotency-Key" in (late.value.detail or "")
    store.open.set()
    await first


async def test_failure_of_the_first_does_not_stop_the_rest() -> None:
    """Whoever comes while a call fails is stored by the next one."""
    store = Store(forbidden=0)
    tasks = await several(store, 3)
    store.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(each, "number", type(each)) for each in results] == [Forbidden, 1, 2]
