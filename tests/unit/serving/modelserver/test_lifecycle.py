"""Versions are loaded before others go, and a bad one keeps its error and touches no other."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest

from serving.modelserver import lifecycle
from serving.modelserver.backend import Servable
from serving.modelserver.config import All, Batching, ConfiguredModel, Latest, Policy, Specific
from serving.modelserver.folders import version_folders
from serving.modelserver.lifecycle import (
    Labels,
    Load,
    Models,
    NothingToServe,
    Standing,
    State,
    Unload,
    availability_preserving,
    resource_preserving,
    standing,
    wanted_versions,
    wrong_label,
)
from serving.modelserver.model_spec import Asked
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
    assert availability_preserving(wanted, states) == steps


RESOURCE_STEPS: dict[str, tuple[set[int], dict[int, State], list[Load | Unload]]] = {
    "a first version is loaded": ({1}, {}, [Load(1)]),
    "the old one goes before the new one loads": ({2}, {1: AVAILABLE}, [Unload(1)]),
    "nothing loads while the old one unloads": ({2}, {1: UNLOADING}, []),
    "nothing loads while an unwanted one still loads": ({2}, {1: LOADING}, []),
    "the new one loads once the old one has ended": ({2}, {1: END}, [Load(2)]),
    "what is wanted and serves stays": ({1, 2}, {1: AVAILABLE}, [Load(2)]),
    "what is not wanted any more goes": (set(), {1: AVAILABLE}, [Unload(1)]),
}


@pytest.mark.parametrize(("wanted", "states", "steps"), RESOURCE_STEPS.values(), ids=RESOURCE_STEPS.keys())
def test_next_steps_preserve_resources(wanted: set[int], states: dict[int, State], steps: list[Load | Unload]) -> None:
    """Nothing loads while something unwanted is in memory."""
    assert resource_preserving(wanted, states) == steps


@pytest.mark.parametrize(
    ("labels", "before", "allowed", "wrong"),
    [
        ({"a": 1}, {}, Labels.NONE, False),
        ({"a": 9}, {}, Labels.NONE, True),
        ({"a": 9}, {"a": 9}, Labels.NONE, True),
        ({"a": 9}, {}, Labels.NEW, False),
        ({"a": 9}, {"a": 1}, Labels.NEW, True),
        ({"a": 9}, {"a": 9}, Labels.NEW, False),
        ({"a": 9}, {"a": 1}, Labels.ANY, False),
        ({"a": 1, "b": 9}, {}, Labels.NONE, True),
    ],
    ids=[
        "on an available version",
        "on a missing version",
        "on a version that has gone",
        "a new label may wait for its version",
        "a label in use may not be moved to a missing version",
        "a label that stays may stay",
        "any label anywhere",
        "one wrong label of two",
    ],
)
def test_labels_point_to_available_versions(
    labels: dict[str, int], before: dict[str, int], allowed: Labels, wrong: bool
) -> None:
    """A label needs an available version, unless it is new, or all are, allowed to wait for theirs."""
    found = wrong_label(ConfiguredModel("m", Path("/m"), labels=labels), before, {1, 2}, allowed)
    assert (found is not None) is wrong
    if found:
        assert "version 9 of model m, which is not currently available" in found


@pytest.mark.parametrize(
    ("versions", "more_may_come", "expected"),
    [
        ([(AVAILABLE, False), (END, True)], True, Standing.AVAILABLE),
        ([(LOADING, False)], True, Standing.COMING),
        ([(AVAILABLE, False), (LOADING, False)], True, Standing.COMING),
        ([(AVAILABLE, False), (LOADING, True)], True, Standing.AVAILABLE),
        ([(LOADING, True)], True, Standing.WAITING),
        ([(END, True)], True, Standing.FAILED),
        ([], True, Standing.WAITING),
        ([], False, Standing.FAILED),
    ],
    ids=[
        "one serves",
        "the first try runs",
        "another one's first try runs",
        "another one is tried again",
        "it is tried again",
        "it ended",
        "no folder yet",
        "no folder ever",
    ],
)
def test_standing_tells_whether_to_open_the_port(
    versions: list[tuple[State, bool]], more_may_come: bool, expected: Standing
) -> None:
    """A model that fails, or is not there, does not keep the others from serving."""
    assert standing(versions, more_may_come=more_may_come) is expected


class Loads:
    """A loader that fails as often as it is told, by version."""

    def __init__(self, **failures: int) -> None:
        self.failures = {int(name.removeprefix("v")): count for name, count in failures.items()}
        self.tried: list[int] = []

    def __call__(self, path: Path) -> Servable:
        """Load, or fail."""
        number = int(path.name)
        self.tried.append(number)
        if self.failures.get(number, 0) > 0:
            self.failures[number] -= 1
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "bad file")
        return Servable(FakeModel(), Batching())


Start = Callable[..., Models]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Start]:
    """Make models over `tmp_path/m`, and close them."""
    made: list[Models] = []

    def build(load: Loads, *, retries: int = 0, poll_s: float = 0.01) -> Models:
        made.append(Models(load, retries=retries, retry_s=0, poll_s=poll_s))
        return made[-1]

    yield build
    for models in made:
        await models.close()


def configs(folder: Path, *names: str) -> list[ConfiguredModel]:
    """Return a configuration of these models; without a name, of `m`."""
    return [ConfiguredModel(name, folder / name) for name in names or ("m",)]


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
    await models.start(configs(tmp_path))
    await until(lambda: states(models) == {1: AVAILABLE})
    assert (load.tried, models.versions("m")[0].error) == ([1, 1, 1], None)


async def test_models_without_anything_to_serve_say_so(make: Start, tmp_path: Path) -> None:
    """When every version ended with an error, starting fails and names it."""
    add(tmp_path / "m", 1)
    with pytest.raises(NothingToServe, match="m version 1: bad file"):
        await make(Loads(v1=9)).start(configs(tmp_path))


async def test_models_that_are_read_once_do_not_wait(make: Start, tmp_path: Path) -> None:
    """Without polling, a missing folder is an end, not a wait for ever."""
    with pytest.raises(NothingToServe):
        await make(Loads(), poll_s=0).start(configs(tmp_path))


async def test_models_start_without_the_bad_one(make: Start, tmp_path: Path) -> None:
    """A bad model and a missing one do not keep the good one from serving."""
    add(tmp_path / "m", 1)
    add(tmp_path / "bad", 7)
    models = make(Loads(v7=9))
    await models.start(configs(tmp_path, "m", "bad", "absent"))
    assert (states(models), states(models, "bad"), states(models, "absent")) == ({1: AVAILABLE}, {7: END}, {})


async def test_models_keep_a_version_that_is_in_use(make: Start, tmp_path: Path) -> None:
    """A replaced version unloads only when the last request on it has ended, and takes no new ones meanwhile."""
    add(tmp_path / "m", 1)
    models = make(Loads())
    await models.start(configs(tmp_path))
    with models.serving(Asked("m")) as held:
        add(tmp_path / "m", 2)
        await until(lambda: states(models) == {1: UNLOADING, 2: AVAILABLE})
        assert held.loaded is not None
        with models.serving(Asked("m")) as newest:
            assert newest.number == 2
        with pytest.raises(Refused, match=r"Specific\(m, 1\)"), models.serving(Asked("m", 1)):
            pass
    await until(lambda: states(models) == {1: END, 2: AVAILABLE})
    assert held.loaded is None


async def test_models_load_again_what_comes_back(make: Start, tmp_path: Path) -> None:
    """A version that ended without an error is loaded again when its folder returns; one with an error is not."""
    add(tmp_path / "m", 1, 2)
    load = Loads()
    models = make(load)
    await models.start(configs(tmp_path))
    (tmp_path / "m" / "2").rename(tmp_path / "m" / "away")
    await until(lambda: states(models) == {1: AVAILABLE, 2: END})
    (tmp_path / "m" / "away").rename(tmp_path / "m" / "2")
    await until(lambda: states(models) == {1: END, 2: AVAILABLE})
    assert load.tried == [2, 1, 2]


async def test_models_survive_a_loader_that_crashes(make: Start, tmp_path: Path) -> None:
    """An exception that nobody foresaw ends the version with INTERNAL and stops nothing else."""

    class Crashes(Loads):
        def __call__(self, path: Path) -> Servable:
            if path.name == "2":
                raise MemoryError
            return super().__call__(path)

    add(tmp_path / "m", 1)
    models = make(Crashes())
    await models.start(configs(tmp_path))
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
    models = make(Loads())
    await models.start(configs(tmp_path, "stuck", "m"))
    assert states(models) == {1: AVAILABLE}
    add(tmp_path / "m", 2)
    await until(lambda: states(models) == {1: END, 2: AVAILABLE})
    assert states(models, "stuck") == {}
    released.set()
    await until(lambda: states(models, "stuck") == {1: AVAILABLE})


async def test_models_are_configured_anew(make: Start, tmp_path: Path) -> None:
    """A model that is left out is unloaded and stays listed; one that is new is said to be so; labels follow."""
    add(tmp_path / "m", 1)
    add(tmp_path / "other", 1)
    models = make(Loads())
    await models.start(configs(tmp_path))
    (kept,) = configs(tmp_path, "other")
    assert models.configure([kept]) == ["other"]
    await models.available(["other"])
    await until(lambda: states(models) == {1: END})
    assert (states(models, "other"), models.configured("m"), models.names()) == ({1: AVAILABLE}, False, ["m", "other"])
    assert models.configure([ConfiguredModel("other", kept.base_path, labels={"stable": 1})]) == []
    with models.serving(Asked("other", label="stable")) as version:
        assert version.number == 1
    assert models.configure([*configs(tmp_path), kept]) == ["m"]
    with pytest.raises(Refused, match="Unrecognized servable version label: stable"):
        models.labelled(Asked("other", label="stable"))
    await models.available(["m"])
    assert states(models) == {1: AVAILABLE}


async def test_models_keep_their_configuration_when_a_label_is_wrong(make: Start, tmp_path: Path) -> None:
    """A refused configuration changes nothing, not even for its models that are right."""
    add(tmp_path / "m", 1)
    add(tmp_path / "other", 1)
    models = make(Loads())
    await models.start(configs(tmp_path))
    wrong = ConfiguredModel("other", tmp_path / "other", labels={"stable": 1})
    with pytest.raises(Refused, match="not currently available"):
        models.configure([wrong])
    assert (models.configured("m"), models.configured("other"), states(models)) == (True, False, {1: AVAILABLE})


async def test_models_say_which_did_not_become_available(make: Start, tmp_path: Path) -> None:
    """Waiting for new models ends with the failed ones' versions and reasons."""
    add(tmp_path / "m", 1)
    add(tmp_path / "bad", 7)
    models = make(Loads(v7=9))
    await models.start(configs(tmp_path))
    new = models.configure(configs(tmp_path, "m", "bad"))
    with pytest.raises(Refused) as caught:
        await models.available(new)
    assert (caught.value.code, caught.value.details) == (
        grpc.StatusCode.UNKNOWN,
        "1 model(s) did not become available: {{{name: bad version: 7} due to error: INVALID_ARGUMENT: bad file}, }",
    )


async def test_models_try_again_what_changed_and_came_to_rest(make: Start, tmp_path: Path) -> None:
    """A version that failed is loaded again after its files changed, and not otherwise."""
    add(tmp_path / "m", 1, 2)
    load = Loads(v2=1)
    models = make(load)
    await models.start([ConfiguredModel("m", tmp_path / "m", All())])
    assert states(models) == {1: AVAILABLE, 2: END}
    looks = 0
    scan = lifecycle._scan

    def count(base_path: Path, failed: dict[int, Path]) -> tuple[dict[int, Path], dict[int, str]]:
        nonlocal looks
        looks += 1
        return scan(base_path, failed)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lifecycle, "_scan", count)
        await until(lambda: looks > 3)
        assert load.tried.count(2) == 1
        (tmp_path / "m" / "2" / "model.tflite").write_bytes(b"whole now")
        await until(lambda: states(models) == {1: AVAILABLE, 2: AVAILABLE})
    assert load.tried.count(2) == 2


async def test_models_wait_until_a_copy_has_ended(make: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a failed version's files still change from look to look it is left alone."""
    add(tmp_path / "m", 1, 2)
    load = Loads(v2=1)
    prints: list[str] = []

    def grows(base_path: Path, failed: dict[int, Path]) -> tuple[dict[int, Path], dict[int, str]]:
        size = min(len(prints), 5)
        prints.append(f"{size} files")
        return version_folders(base_path), dict.fromkeys(failed, prints[-1])

    monkeypatch.setattr(lifecycle, "_scan", grows)
    models = make(load)
    await models.start([ConfiguredModel("m", tmp_path / "m", All())])
    await until(lambda: len(prints) > 4)
    assert load.tried.count(2) == 1
    await until(lambda: states(models) == {1: AVAILABLE, 2: AVAILABLE})
    assert prints.count("5 files") >= 2


async def test_models_close_what_they_unload(make: Start, tmp_path: Path) -> None:
    """The backend is told to let a version go, and only after its last request."""
    add(tmp_path / "m", 1)
    models = make(Loads())
    await models.start(configs(tmp_path))
    with models.serving(Asked("m")) as held:
        model = held.servable.model
        assert isinstance(model, FakeModel)
        models.configure([])
        await until(lambda: states(models) == {1: UNLOADING})
        assert not model.closed
    await until(lambda: states(models) == {1: END})
    assert model.closed


async def test_models_come_back_that_still_unload(make: Start, tmp_path: Path) -> None:
    """A model that is taken out and back in while a request holds it is loaded again, also where nobody looks twice."""
    add(tmp_path / "m", 1)
    models = make(Loads(), poll_s=0)
    await models.start(configs(tmp_path))
    with models.serving(Asked("m")):
        models.configure([])
        await until(lambda: states(models) == {1: UNLOADING})
        waiting = asyncio.create_task(models.available(models.configure(configs(tmp_path))))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 20)
    assert states(models) == {1: AVAILABLE}


async def test_models_try_again_what_was_taken_out(make: Start, tmp_path: Path) -> None:
    """A version that failed is tried anew when its model comes back, and when its model's base path moves."""
    add(tmp_path / "m", 1, 2)
    add(tmp_path / "moved", 1, 2)
    load = Loads(v2=2)
    models = make(load, poll_s=0)
    await models.start([ConfiguredModel("m", tmp_path / "m", All())])
    there = ConfiguredModel("m", tmp_path / "moved", All())
    models.configure([there])
    await until(lambda: load.tried.count(2) == 2 and states(models) == {1: AVAILABLE, 2: END})
    models.configure([])
    await until(lambda: states(models) == {1: END, 2: END})
    await models.available(models.configure([there]))
    await until(lambda: states(models) == {1: AVAILABLE, 2: AVAILABLE})


async def test_models_tell_who_waits_for_one_that_was_taken_out(make: Start, tmp_path: Path) -> None:
    """A reload that waits for a model ends when a later one takes that model out."""
    models = make(Loads())
    waiting = asyncio.create_task(models.available(models.configure(configs(tmp_path, "absent"))))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    models.configure([])
    with pytest.raises(Refused, match="1 model"):
        await asyncio.wait_for(waiting, 20)


async def test_models_give_up_at_once_what_is_wanted_no_more(tmp_path: Path) -> None:
    """A version that waits for its next try ends when it is taken out, and not after the wait."""
    add(tmp_path / "m", 1)
    models = Models(Loads(v1=9), retries=9, retry_s=3600, poll_s=0)
    models.configure(configs(tmp_path))
    await until(lambda: any(version.error for version in models.versions("m")))
    models.configure([])
    await until(lambda: states(models) == {1: END})
    await models.close()


async def test_models_end_a_version_that_does_not_close(make: Start, tmp_path: Path) -> None:
    """A runtime that fails to let go keeps no version in UNLOADING."""
    add(tmp_path / "m", 1)
    model = FakeModel()

    def fail() -> None:
        raise RuntimeError

    model.close = fail  # type: ignore[method-assign]
    models = make(lambda _: Servable(model, Batching()))
    await models.start(configs(tmp_path))
    models.configure([])
    await until(lambda: states(models) == {1: END})
