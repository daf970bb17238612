"""
The life of model versions: found, loaded, served, unloaded.

As TensorFlow Serving's availability-preserving policy has it: a new version is loaded before the old one goes, and the
old one stays for as long as no wanted one serves. A version that does not load keeps its error and touches no other.
"""

import asyncio
import enum
import gc
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import structlog

from serving.modelserver.backend import LoadedModel, Loader
from serving.modelserver.config import All, ConfiguredModel, Latest, Policy
from serving.modelserver.refusals import Refused

logger = structlog.get_logger()

VERSION_MAX = 2**63 - 1

SCAN_S = 10.0
"""How long a base path may take to be read before it counts as unreadable."""


class State(enum.IntEnum):
    """TensorFlow Serving's states and numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(eq=False)
class Version:
    """One version of one model, from when it was first wanted; an ended one stays listed."""

    number: int
    path: Path
    state: State = State.START
    error: Refused | None = None
    wanted: bool = True
    loaded: LoadedModel | None = None
    in_flight: int = 0

    @property
    def model(self) -> LoadedModel:
        """
        The model in memory.

        Raises:
            RuntimeError: it is not loaded, which a request that holds the version excludes.
        """
        if self.loaded is None:
            raise RuntimeError("the version is not loaded")
        return self.loaded


@dataclass(frozen=True)
class Load:
    """Load this version."""

    version: int


@dataclass(frozen=True)
class Unload:
    """Unload this version."""

    version: int


def wanted_versions(found: Collection[int], policy: Policy) -> set[int]:
    """Return those of the versions found that *policy* wants served."""
    match policy:
        case All():
            return set(found)
        case Latest(count):
            return set(sorted(found)[-count:])
    return set(policy.versions & set(found))


def next_steps(wanted: Collection[int], states: Mapping[int, State]) -> list[Load | Unload]:
    """
    Decide what to start now, highest version first.

    Args:
        wanted: the versions that should serve.
        states: the state of each version that is known; one that ended may be loaded again only after it was forgotten.
    """
    loads = [Load(number) for number in sorted(wanted, reverse=True) if states.get(number, State.START) is State.START]
    serving = {number for number, state in states.items() if state is State.AVAILABLE}
    if wanted and not serving & set(wanted):
        return list(loads)
    return [*loads, *(Unload(number) for number in sorted(serving - set(wanted)))]


def version_folders(base_path: Path) -> dict[int, Path]:
    """
    Return the version folders of a model: the children whose names are numbers.

    Raises:
        OSError: the base path cannot be read.
    """
    found: dict[int, Path] = {}
    for child in sorted(base_path.iterdir()):
        if child.name.isascii() and child.name.isdigit() and int(child.name) <= VERSION_MAX and child.is_dir():
            if int(child.name) in found:
                logger.warning("version_folder_ignored", version=int(child.name), reason="the number is there twice")
                continue
            found[int(child.name)] = child
    return found


class Look(enum.Enum):
    """What came of the last look at a base path."""

    NONE = enum.auto()
    READ = enum.auto()
    FAILED = enum.auto()


@dataclass
class Model:
    """A model and its versions."""

    config: ConfiguredModel
    versions: dict[int, Version] = field(default_factory=dict)
    look: Look = Look.NONE

    @property
    def available(self) -> list[Version]:
        """The versions that requests may go to, newest first."""
        serving = [version for version in self.versions.values() if version.state is State.AVAILABLE]
        return sorted(serving, key=lambda version: version.number, reverse=True)


class Standing(enum.Enum):
    """How far a model is when the server starts."""

    AVAILABLE = enum.auto()
    COMING = enum.auto()
    WAITING = enum.auto()
    FAILED = enum.auto()


def standing(versions: Iterable[tuple[State, bool]], *, more_may_come: bool) -> Standing:
    """
    Say how far a model is.

    Args:
        versions: state of each version, and whether it has an error (which one that is tried again has too).
        more_may_come: whether the base path is looked at again.
    """
    known = list(versions)
    if any(state is State.AVAILABLE for state, _ in known):
        return Standing.AVAILABLE
    if any(state in (State.START, State.LOADING) and not failed for state, failed in known):
        return Standing.COMING
    if any(state is not State.END for state, _ in known) or (not known and more_may_come):
        return Standing.WAITING
    return Standing.FAILED


class NothingToServe(Exception):
    """Every configured model failed to load; the text says why."""


@dataclass
class Models:
    """All configured models, kept in step with their base paths; all on the event loop, except reading and loading."""

    configs: Sequence[ConfiguredModel]
    load: Loader
    instances: int
    retries: int = 5
    retry_s: float = 60.0
    poll_s: float = 1.0
    load_threads: int = 2

    def __post_init__(self) -> None:
        self._models = {config.name: Model(config) for config in self.configs}
        self._pool = ThreadPoolExecutor(self.load_threads, thread_name_prefix="load")
        # A thread for each model: a mount that hangs holds its own, and neither loading nor the other models.
        self._scans = ThreadPoolExecutor(max(1, len(self.configs)), thread_name_prefix="scan")
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """
        Read the base paths, load, and return when requests can be answered; go on watching in the background.

        TensorFlow Serving waits until every model is available. Here a model that failed, or whose folder is missing,
        does not keep the others from serving.

        Raises:
            NothingToServe: no model can be served, and none may come.
        """
        for model in self._models.values():
            self._spawn(self._watch(model))
        while True:
            self._changed.clear()
            standings = [self._standing(model) for model in self._models.values()]
            if Standing.COMING not in standings and Standing.AVAILABLE in standings:
                return
            if all(each is Standing.FAILED for each in standings):
                raise NothingToServe("; ".join(self._failures()) or "no version was found")
            await self._changed.wait()

    async def close(self) -> None:
        """Stop watching and loading."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._scans.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def serving(self, name: str, number: int | None) -> Iterator[Version]:
        """
        Hold the version that a request goes to; it is not unloaded meanwhile.

        Raises:
            Refused: NOT_FOUND; there is no such version, or it is not available.
        """
        version = self._find(name, number)
        version.in_flight += 1
        try:
            yield version
        finally:
            version.in_flight -= 1
            self._changed.set()

    def _find(self, name: str, number: int | None) -> Version:
        """
        Return the version asked for, or the newest.

        Raises:
            Refused: NOT_FOUND.
        """
        available = self._models[name].available if name in self._models else []
        for version in available:
            if number is None or version.number == number:
                return version
        what = f"Latest({name})" if number is None else f"Specific({name}, {number})"
        raise Refused(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {what}")

    def versions(self, name: str) -> list[Version]:
        """Return every version of a model that was ever wanted, lowest first; none for an unknown model."""
        model = self._models.get(name)
        return [model.versions[number] for number in sorted(model.versions)] if model else []

    def _standing(self, model: Model) -> Standing:
        if model.look is Look.NONE:
            return Standing.COMING
        known = [(version.state, version.error is not None) for version in model.versions.values()]
        return standing(known, more_may_come=self.poll_s > 0)

    def _failures(self) -> list[str]:
        return [
            f"{name} version {version.number}: {version.error.details}"
            for name, model in self._models.items()
            for version in model.versions.values()
            if version.error
        ]

    async def _watch(self, model: Model) -> None:
        """Look at a model's base path again and again, or once."""
        while True:
            await self._look(model)
            if self.poll_s <= 0:
                return
            await asyncio.sleep(self.poll_s)

    async def _look(self, model: Model) -> None:
        """Read a base path; one that cannot be read, or hangs, changes nothing for its model or any other."""
        base_path = model.config.base_path
        scan = asyncio.ensure_future(
            asyncio.get_running_loop().run_in_executor(self._scans, version_folders, base_path)
        )
        finished, _ = await asyncio.wait({scan}, timeout=SCAN_S)
        if not finished:
            self._unreadable(model, "it does not answer")
            await asyncio.wait({scan})
        try:
            found = scan.result()
        except OSError as exc:
            self._unreadable(model, exc.strerror or type(exc).__name__)
            return
        model.look = Look.READ
        self._want(model, found)

    def _unreadable(self, model: Model, reason: str) -> None:
        """Note that a base path could not be read; say so once, not at every look."""
        if model.look is not Look.FAILED:
            logger.warning("base_path_unreadable", model=model.config.name, reason=reason)
        model.look = Look.FAILED
        self._changed.set()

    def _want(self, model: Model, found: Mapping[int, Path]) -> None:
        """Note which versions are wanted now, and start what follows from it."""
        wanted = wanted_versions(found, model.config.policy)
        for number, version in list(model.versions.items()):
            version.wanted = number in wanted
        for number in wanted:
            known = model.versions.get(number)
            if known is None or (known.state is State.END and known.error is None):
                model.versions[number] = Version(number, found[number])
        self._reconcile(model)

    def _reconcile(self, model: Model) -> None:
        """Start the steps that are due."""
        wanted = {number for number, version in model.versions.items() if version.wanted}
        states = {number: version.state for number, version in model.versions.items()}
        for step in next_steps(wanted, states):
            version = model.versions[step.version]
            if isinstance(step, Load):
                version.state = State.LOADING
                self._spawn(self._load(model, version))
            else:
                version.state = State.UNLOADING
                self._spawn(self._unload(model, version))
        self._changed.set()

    async def _load(self, model: Model, version: Version) -> None:
        """Load a version, trying again where it fails; in the end it is available, or ended with its error."""
        log = logger.bind(model=model.config.name, version=version.number)
        for attempt in range(self.retries + 1):
            if attempt:
                await asyncio.sleep(self.retry_s)
            if not version.wanted:
                break
            version.error = await self._try(version)
            self._changed.set()
            if version.error is None:
                version.state = State.AVAILABLE
                log.info("model_version_loaded")
                self._reconcile(model)
                return
            log.error("model_version_load_failed", code=version.error.code.name, reason=version.error.details)
        version.state = State.END
        self._reconcile(model)

    async def _try(self, version: Version) -> Refused | None:
        """Load once, in a thread, and return what went wrong."""
        loop = asyncio.get_running_loop()
        try:
            version.loaded = await loop.run_in_executor(self._pool, self.load, version.path, self.instances)
        except Refused as exc:
            return exc
        except Exception:
            # Whatever a runtime does with a bad file, the versions beside it go on serving.
            logger.exception("model_version_load_crashed")
            return Refused(grpc.StatusCode.INTERNAL, "the version failed to load")
        return None

    async def _unload(self, model: Model, version: Version) -> None:
        """Let a version go once the requests on it have finished."""
        while version.in_flight:
            self._changed.clear()
            await self._changed.wait()
        version.loaded = None
        version.state = State.END
        gc.collect()
        logger.info("model_version_unloaded", model=model.config.name, version=version.number)
        self._reconcile(model)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Forget a task; a bug that ended it is told, not kept until someone asks."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("lifecycle_task_failed", exc_info=error)
