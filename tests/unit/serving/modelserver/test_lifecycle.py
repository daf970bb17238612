"""Versions are loaded before others go, and a bad one keeps its error and touches no other."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest

from serving.modelserver import lifecycle
from serving.modelserver.backend import LoadedModel
from serving.modelserver.config import All, ConfiguredModel, Latest, Policy, Specific
from serving.modelserver.lifecycle import (
    Load,
    Models,
    NothingToServe,
    Standing,
    State,
    Unload,
    next_steps,
    standing,
    version_folders,
    wanted_versions,
)
from serving.modelserver.refusals import Refused
from tests.unit.serving.modelserver.fakes import FakeModel

START, LOADING, AVAILABLE, UNLOADING, END = State


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (Latest(), {5}),
        (Latest(2), {3, 5}),
        (Latest(9), {1, 3, 5}),
        (All(), {1, 3, 5}),
        (Specific(frozenset({1, 4})), {1}),
    ],
)
def test_wanted_versions_follow_the_policy(policy: Policy, wanted: set[int]) -> None:
    """Each policy wants its versions, of those that are there."""
    assert wanted_versions({1, 3, 5}, policy) == wanted


STEPS: dict[str, tuple[set[int], dict[int, State], list[Load | Unload]]] = {
    "nothing is wanted, nothing is there": (set(), {}, []),
    "a new version is loaded": ({1}, {}, [Load(1)]),
    "the highest is loaded first": ({1, 3, 2}, {}, [Load(3), Load(2), Load(1)]),
    "the old one stays while the new one loads": ({2}, {1: AVAILABLE, 2: LOADING}, []),
    "the old one goes once the new one serves": ({2}, {1: AVAILABLE, 2: AVAILABLE}, [Unload(1)]),
    "the old one stays when the new one failed": ({2}, {1: AVAILABLE, 2: END}, []),
    "what is not wanted any more goes": (set(), {1: AVAILABLE}, [Unload(1)]),
    "an ended version is not tried again": ({1}, {1: END}, []),
    "one that is unloading is left alone": ({2}, {1: UNLOADING, 2: AVAILABLE}, []),
    "all old ones go together": ({3}, {1: AVAILABLE, 2: AVAILABLE, 3: AVAILABLE}, [Unload(1), Unload(2)]),
}


@pytest.mark.parametrize(("wanted", "states", "steps"), STEPS.values(), ids=STEPS.keys())
def test_next_steps_preserve_availability(
    wanted: set[int], states: dict[int, State], steps: list[Load | Unload]
) -> None:
    """Nothing that serves goes before something wanted serves."""
    assert next_steps(wanted, states) == steps


@pytest.mark.parametrize(
    ("versions", "more_may_come", "expected"),
    [
        ([(AVAILABLE, False), (END, True)], True, Standing.AVAILABLE),
        ([(LOADING, False)], True, Standing.COMING),
        ([(LOADING, True)], True, Standing.WAITING),
        ([(END, True)], True, Standing.FAILED),
        ([], True, Standing.WAITING),
        ([], False, Standing.FAILED),
    ],
    ids=["one serves", "the first try runs", "it is tried again", "it ended", "no folder yet", "no folder ever"],
)
def test_standing_tells_whether_to_open_the_port(
    versions: list[tuple[State, bool]], more_may_come: bool, expected: Standing
) -> None:
    """A model that fails, or is not there, does not keep the others from serving."""
    assert standing(versions, more_may_come=more_may_come) is expected


def test_version_folders_are_numbers(tmp_path: Path) -> None:
    """Only folders whose names are numbers are versions; leading zeros do not count."""
    for name in ("1", "00000002", "3-staged", "-4", "五", str(2**63)):
        (tmp_path / name).mkdir()
    (tmp_path / "6").write_text("")
    assert version_folders(tmp_path) == {1: tmp_path / "1", 2: tmp_path / "00000002"}


def test_version_folders_of_the_same_number_are_one(tmp_path: Path) -> None:
    """Of two folders with one number, one is the version."""
    (tmp_path / "01").mkdir()
    (tmp_path / "1").mkdir()
    assert set(version_folders(tmp_path)) == {1}


class Loads:
    """A loader that fails as often as it is told, by version."""

    def __init__(self, **failures: int) -> None:
        self.failures = {int(name.removeprefix("v")): count for name, count in failures.items()}
        self.tried: list[int] = []

    def __call__(self, path: Path, instances: int) -> LoadedModel:
        """Load, or fail."""
        number = int(path.name)
        self.tried.append(number)
        if self.failures.get(number, 0) > 0:
            self.failures[number] -= 1
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "bad file")
        return FakeModel()


Start = Callable[..., Models]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Start]:
    """Make models over `tmp_path/m`, and close them."""
    made: list[Models] = []

    def build(load: Loads, *, retries: int = 0, poll_s: float = 0.01, names: tuple[str, ...] = ("m",)) -> Models:
        configs = [ConfiguredModel(name, tmp_path / name) for name in names]
        made.append(Models(configs, load, 1, retries=retries, retry_s=0, poll_s=poll_s))
        return made[-1]

    yield build
    for models in made:
        await models.close()


def add(base_path: Path, *versions: int) -> None:
    """Make version folders."""
    for version in versions:
        (base_path / str(version)).mkdir(parents=True)


async def until(condition: Callable[[], bool]) -> None:
    """Look until *condition* holds, at most 20 seconds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def states(models: Models, name: str = "m") -> dict[int, State]:
    """Return the state of each version."""
    return {version.number: version.state for version in models.versions(name)}


async def test_models_retry_as_often_as_told(make: Start, tmp_path: Path) -> None:
    """A version that fails twice is available at the third try, and its error is forgotten."""
    add(tmp_path / "m", 1)
    load = Loads(v1=2)
    models = make(load, retries=2)
    await models.start()
    await until(lambda: states(models) == {1: AVAILABLE})
    assert (load.tried, models.versions("m")[0].error) == ([1, 1, 1], None)


async def test_models_without_anything_to_serve_say_so(make: Start, tmp_path: Path) -> None:
    """When every version ended with an error, starting fails and names it."""
    add(tmp_path / "m", 1)
    with pytest.raises(NothingToServe, match="m version 1: bad file"):
        await make(Loads(v1=9)).start()


async def test_models_that_are_read_once_do_not_wait(make: Start) -> None:
    """Without polling, a missing folder is an end, not a wait for ever."""
    with pytest.raises(NothingToServe):
        await make(Loads(), poll_s=0).start()


async def test_models_start_without_the_bad_one(make: Start, tmp_path: Path) -> None:
    """A bad model and a missing one do not keep the good one from serving."""
    add(tmp_path / "m", 1)
    add(tmp_path / "bad", 7)
    models = make(Loads(v7=9), names=("m", "bad", "absent"))
    await models.start()
    assert (states(models), states(models, "bad"), states(models, "absent")) == ({1: AVAILABLE}, {7: END}, {})


async def test_models_keep_a_version_that_is_in_use(make: Start, tmp_path: Path) -> None:
    """A replaced version unloads only when the last request on it has ended, and takes no new ones meanwhile."""
    add(tmp_path / "m", 1)
    models = make(Loads())
    await models.start()
    with models.serving("m", None) as held:
        add(tmp_path / "m", 2)
        await until(lambda: states(models) == {1: UNLOADING, 2: AVAILABLE})
        assert held.loaded is not None
        with models.serving("m", None) as newest:
            assert newest.number == 2
        with pytest.raises(Refused, match=r"Specific\(m, 1\)"), models.serving("m", 1):
            pass
    await until(lambda: states(models) == {1: END, 2: AVAILABLE})
    assert held.loaded is None


async def test_models_load_again_what_comes_back(make: Start, tmp_path: Path) -> None:
    """A version that ended without an error is loaded again when its folder returns; one with an error is not."""
    add(tmp_path / "m", 1, 2)
    load = Loads()
    models = make(load)
    await models.start()
    (tmp_path / "m" / "2").rename(tmp_path / "m" / "away")
    await until(lambda: states(models) == {1: AVAILABLE, 2: END})
    (tmp_path / "m" / "away").rename(tmp_path / "m" / "2")
    await until(lambda: states(models) == {1: END, 2: AVAILABLE})
    assert load.tried == [2, 1, 2]


async def test_models_survive_a_loader_that_crashes(make: Start, tmp_path: Path) -> None:
    """An exception that nobody foresaw ends the version with INTERNAL and stops nothing else."""

    class Crashes(Loads):
        def __call__(self, path: Path, instances: int) -> LoadedModel:
            if path.name == "2":
                raise MemoryError
            return super().__call__(path, instances)

    add(tmp_path / "m", 1)
    models = make(Crashes())
    await models.start()
    add(tmp_path / "m", 2)
    await until(lambda: states(models) == {1: AVAILABLE, 2: END})
    error = models.versions("m")[1].error
    assert error is not None
    assert error.code == grpc.StatusCode.INTERNAL


async def test_models_serve_beside_a_base_path_that_hangs(
    make: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount that does not answer keeps neither another model from serving, nor its new versions from being found."""
    released = threading.Event()

    def hangs(base_path: Path) -> dict[int, Path]:
        if base_path.name == "stuck":
            released.wait(20)
        return version_folders(base_path)

    monkeypatch.setattr(lifecycle, "version_folders", hangs)
    monkeypatch.setattr(lifecycle, "SCAN_S", 0.05)
    add(tmp_path / "m", 1)
    add(tmp_path / "stuck", 1)
    models = make(Loads(), names=("stuck", "m"))
    await models.start()
    assert states(models) == {1: AVAILABLE}
    add(tmp_path / "m", 2)
    await until(lambda: states(models) == {1: END, 2: AVAILABLE})
    assert states(models, "stuck") == {}
    released.set()
    await until(lambda: states(models, "stuck") == {1: AVAILABLE})
