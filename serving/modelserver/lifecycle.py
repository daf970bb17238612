"""
The life of model versions: found, loaded, served, unloaded.

As TensorFlow Serving's availability-preserving policy has it: a new version is loaded before the old one goes, and the
old one stays for as long as no wanted one serves. A version that does not load keeps its error and touches no other.
"""

import asyncio
import enum
import gc
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import structlog

from serving.modelserver.backend import Loader, Servable
from serving.modelserver.config import All, ConfiguredModel, Latest, Policy
from serving.modelserver.folders import fingerprint, version_folders
from serving.modelserver.model_spec import Asked
from serving.modelserver.refusals import Refused, invalid_argument

logger = structlog.get_logger()

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

    model_name: str
    number: int
    path: Path
    state: State = State.START
    error: Refused | None = None
    wanted: bool = True
    loaded: Servable | None = None
    in_flight: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever the last one that held the version has let it go."""

    tried: str = ""
    """The fingerprint of the folder when it was last tried."""
    seen: str = ""
    """The fingerprint of the folder when it was last looked at, of a version that failed."""

    @property
    def available(self) -> bool:
        """Whether requests may go to it."""
        return self.state is State.AVAILABLE

    @property
    def failed(self) -> bool:
        """Whether it ended because it could not be loaded."""
        return self.state is State.END and self.error is not None

    @property
    def servable(self) -> Servable:
        """
        The model in memory.

        Raises:
            RuntimeError: it is not loaded, which a request that holds the version excludes.
        """
        if self.loaded is None:
            raise RuntimeError("the version is not loaded")
        return self.loaded

    def hold(self) -> None:
        """Keep the version in memory; on the event loop."""
        self.in_flight += 1

    def release(self) -> None:
        """Let it go again; on the event loop."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()


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


Steps = list[Load | Unload]
AspiredVersionPolicy = Callable[[Collection[int], Mapping[int, State]], Steps]
"""Decides from the wanted versions, and the state of each that is known, what to start now, highest version first."""


def availability_preserving(wanted: Collection[int], states: Mapping[int, State]) -> Steps:
    """Load first; unload only once something wanted serves. Memory holds both for a while."""
    loads = _loads(wanted, states)
    serving = {number for number, state in states.items() if state is State.AVAILABLE}
    if wanted and not serving & set(wanted):
        return loads
    return [*loads, *(Unload(number) for number in sorted(serving - set(wanted)))]


def resource_preserving(wanted: Collection[int], states: Mapping[int, State]) -> Steps:
    """Unload first, and load only once nothing unwanted is in memory. Nothing serves for a while."""
    in_memory = {State.LOADING, State.AVAILABLE, State.UNLOADING}
    leaving = sorted(number for number, state in states.items() if number not in wanted and state in in_memory)
    if leaving:
        return [Unload(number) for number in leaving if states[number] is State.AVAILABLE]
    return _loads(wanted, states)


def _loads(wanted: Collection[int], states: Mapping[int, State]) -> Steps:
    """Load what has not begun; one that ended is loaded again only after it was forgotten."""
    return [Load(number) for number in sorted(wanted, reverse=True) if states.get(number, State.START) is State.START]


POLICIES: Mapping[str, AspiredVersionPolicy] = {
    "availability_preserving": availability_preserving,
    "resource_preserving": resource_preserving,
}


class Labels(enum.Enum):
    """Which labels may point to a version that is not available."""

    NONE = enum.auto()
    NEW = enum.auto()
    ANY = enum.auto()


def wrong_label(
    config: ConfiguredModel, before: Mapping[str, int], available: Collection[int], allowed: Labels
) -> str | None:
    """
    Say what is wrong with a model's labels, or None.

    Args:
        config: the configuration that is to come.
        before: the labels until now.
        available: the versions that are available now.
        allowed: which labels may point to others.
    """
    for label, number in sorted(config.labels.items()):
        moved = before.get(label, number) != number
        free = allowed is Labels.ANY or (allowed is Labels.NEW and not moved)
        if number not in available and not free:
            return (
                f"Request to assign label to version {number} of model {config.name}, "
                "which is not currently available for inference"
            )
    return None


class Look(enum.Enum):
    """What came of the last look at a base path."""

    NONE = enum.auto()
    READ = enum.auto()
    FAILED = enum.auto()


@dataclass
class Model:
    """A model and its versions; one that the configuration no longer names stays known, as its versions do."""

    config: ConfiguredModel
    configured: bool = True
    versions: dict[int, Version] = field(default_factory=dict)
    look: Look = Look.NONE
    watch: asyncio.Task[None] | None = None
    # A thread of its own: a mount that hangs holds this one, and neither loading nor the other models.
    scans: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="scan"))

    @property
    def available(self) -> list[Version]:
        """The versions that requests may go to, newest first."""
        serving = [version for version in self.versions.values() if version.available]
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
    if any(state in (State.START, State.LOADING) and not failed for state, failed in known):
        return Standing.COMING
    if any(state is State.AVAILABLE for state, _ in known):
        return Standing.AVAILABLE
    if any(state is not State.END for state, _ in known) or (not known and more_may_come):
        return Standing.WAITING
    return Standing.FAILED


class NothingToServe(Exception):
    """Every configured model failed to load; the text says why."""


@dataclass
class Models:
    """All configured models, kept in step with their base paths; all on the event loop, except reading and loading."""

    load: Loader
    retries: int = 5
    retry_s: float = 60.0
    poll_s: float = 1.0
    load_threads: int = 2
    unload_threads: int = 1
    policy: AspiredVersionPolicy = availability_preserving
    labels_allowed: Labels = Labels.NONE

    def __post_init__(self) -> None:
        self._models: dict[str, Model] = {}
        self._loading = ThreadPoolExecutor(self.load_threads, thread_name_prefix="load")
        self._unloading = ThreadPoolExecutor(self.unload_threads, thread_name_prefix="unload")
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def start(self, configs: Sequence[ConfiguredModel]) -> None:
        """
        Read the base paths, load, and return when requests can be answered; go on watching in the background.

        TensorFlow Serving waits until every model is available. Here a model that failed, or whose folder is missing,
        does not keep the others from serving.

        Raises:
            NothingToServe: no model can be served, and none may come.
            Refused: a label points to a version that is not available, which none is yet.
        """
        self.configure(configs)
        while True:
            standings = [self._standing(model) for model in self._models.values()]
            if Standing.COMING not in standings and (Standing.AVAILABLE in standings or not standings):
                return
            if all(each is Standing.FAILED for each in standings):
                raise NothingToServe("; ".join(self._failures()) or "no version was found")
            await self.next_change.wait()

    def configure(self, configs: Sequence[ConfiguredModel]) -> list[str]:
        """
        Serve these models, and no others, from now on.

        Returns:
            The names that were not configured before.

        Raises:
            Refused: FAILED_PRECONDITION; a label points to a version that it must not point to. Nothing was changed.
        """
        for config in configs:
            known = self._models.get(config.name)
            before = known.config.labels if known and known.configured else {}
            available = [version.number for version in known.available] if known else []
            if wrong := wrong_label(config, before, available, self.labels_allowed):
                raise Refused(grpc.StatusCode.FAILED_PRECONDITION, wrong)
        names = {config.name for config in configs}
        for name, model in self._models.items():
            if model.configured and name not in names:
                self._leave_out(model)
        return [config.name for config in configs if self._take_in(config)]

    def _take_in(self, config: ConfiguredModel) -> bool:
        """Serve a model as it is configured now; say whether it was not configured before."""
        model = self._models.get(config.name)
        if model is not None and model.configured and model.config == config:
            return False
        if model is None:
            model = self._models[config.name] = Model(config)
            new = True
        else:
            new = not model.configured
            model.config, model.configured = config, True
        if new:
            model.look = Look.NONE
        if model.watch is not None:
            model.watch.cancel()
        # At once, and not at the next look: whoever changed the policy waits for what it does.
        model.watch = self._spawn(self._watch(model))
        return new

    def _leave_out(self, model: Model) -> None:
        """Unload all versions of a model, and look no more for new ones."""
        model.configured = False
        if model.watch is not None:
            model.watch.cancel()
        self._want(model, {})

    async def available(self, names: Collection[str]) -> None:
        """
        Wait until each of these models has an available version, or none that still may come.

        Raises:
            Refused: UNKNOWN; some models did not become available.
        """
        while True:
            standings = {name: self._standing(self._models[name]) for name in names}
            if all(standing in (Standing.AVAILABLE, Standing.FAILED) for standing in standings.values()):
                break
            await self.next_change.wait()
        failed = [name for name, standing in standings.items() if standing is Standing.FAILED]
        if failed:
            said = "".join(f"{{{self._failure(name)}}}, " for name in failed)
            raise Refused(grpc.StatusCode.UNKNOWN, f"{len(failed)} model(s) did not become available: {{{said}}}")

    def _failure(self, name: str) -> str:
        """Say which version of a model failed, and why, as TensorFlow Serving does."""
        errors = [version for version in self.versions(name) if version.error is not None]
        if not errors or errors[-1].error is None:
            return f"{{name: {name}}}"
        error = errors[-1].error
        return f"{{name: {name} version: {errors[-1].number}}} due to error: {error.code.name}: {error.details}"

    async def close(self) -> None:
        """Stop watching and loading."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pool in (self._loading, self._unloading, *(model.scans for model in self._models.values())):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def next_change(self) -> asyncio.Event:
        """The event that is set when next something changes about a model; take it before looking, then wait."""
        return self._changed

    def _tell(self) -> None:
        """Wake everyone who waits for a change; who comes later waits for the next one."""
        self._changed.set()
        self._changed = asyncio.Event()

    @contextmanager
    def serving(self, asked: Asked) -> Iterator[Version]:
        """
        Hold the version that a request goes to; it is not unloaded meanwhile.

        Raises:
            Refused: NOT_FOUND; there is no such version, or it is not available. INVALID_ARGUMENT: no such label.
        """
        version = self._find(asked)
        version.hold()
        try:
            yield version
        finally:
            version.release()

    def _find(self, asked: Asked) -> Version:
        """
        Return the version asked for, or the newest.

        Raises:
            Refused: NOT_FOUND or INVALID_ARGUMENT.
        """
        number = self.labelled(asked) if asked.label is not None else asked.version
        available = self._models[asked.name].available if asked.name in self._models else []
        for version in available:
            if number is None or version.number == number:
                return version
        what = f"Latest({asked.name})" if number is None else f"Specific({asked.name}, {number})"
        raise Refused(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {what}")

    def labelled(self, asked: Asked) -> int:
        """
        Return the version that a label points to.

        Raises:
            Refused: INVALID_ARGUMENT; there is no such label.
        """
        model = self._models.get(asked.name)
        labels = model.config.labels if model and model.configured else {}
        if asked.label is None or asked.label not in labels:
            raise invalid_argument(f"Unrecognized servable version label: {asked.label}")
        return labels[asked.label]

    def configured(self, name: str) -> bool:
        """Say whether the configuration names this model."""
        return name in self._models and self._models[name].configured

    def names(self) -> list[str]:
        """Return every model that was ever configured."""
        return list(self._models)

    def versions(self, name: str) -> list[Version]:
        """Return every version of a model that was ever wanted, lowest first; none for an unknown model."""
        model = self._models.get(name)
        return [model.versions[number] for number in sorted(model.versions)] if model else []

    def _standing(self, model: Model) -> Standing:
        if not model.configured:
            # Another reload took it out again, while somebody waited for it.
            return Standing.FAILED
        if model.look is Look.NONE:
            return Standing.COMING
        known = [(version.state, version.error is not None) for version in model.versions.values() if version.wanted]
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
        failed = {version.number: version.path for version in model.versions.values() if version.failed}
        scan = asyncio.ensure_future(
            asyncio.get_running_loop().run_in_executor(model.scans, _scan, model.config.base_path, failed)
        )
        finished, _ = await asyncio.wait({scan}, timeout=SCAN_S)
        if not finished:
            self._unreadable(model, "it does not answer")
            await asyncio.wait({scan})
        try:
            found, prints = scan.result()
        except OSError as exc:
            self._unreadable(model, exc.strerror or type(exc).__name__)
            return
        model.look = Look.READ
        self._forget_mended(model, prints)
        self._want(model, found)

    def _forget_mended(self, model: Model, prints: Mapping[int, str]) -> None:
        """
        Forget the failure of a version whose folder has changed since, and has come to rest.

        The original never tries it again, so that a version copied slowly into place stays dead until a restart.
        """
        for number, now in prints.items():
            version = model.versions[number]
            if version.failed and now not in ("", version.tried) and now == version.seen:
                del model.versions[number]
            version.seen = now

    def _unreadable(self, model: Model, reason: str) -> None:
        """Note that a base path could not be read; say so once, not at every look."""
        if model.look is not Look.FAILED:
            logger.warning("base_path_unreadable", model=model.config.name, reason=reason)
        model.look = Look.FAILED
        self._tell()

    def _want(self, model: Model, found: Mapping[int, Path]) -> None:
        """Note which versions are wanted now, and start what follows from it."""
        wanted = wanted_versions(found, model.config.policy)
        for number in wanted:
            known = model.versions.get(number)
            if known is None or (known.failed and (not known.wanted or known.path != found[number])):
                # One that failed is tried again where it was given up meanwhile, or lies elsewhere now.
                model.versions[number] = Version(model.config.name, number, found[number])
        for number, version in model.versions.items():
            version.wanted = number in wanted
            if version.wanted and version.state is State.UNLOADING:
                # Where it is to be loaded from again.
                version.path = found[number]
        self._reconcile(model)

    def _reconcile(self, model: Model) -> None:
        """Start the steps that are due."""
        for number, version in list(model.versions.items()):
            if version.wanted and version.state is State.END and version.error is None:
                # It was wanted again while it still unloaded, or has come back since.
                model.versions[number] = Version(version.model_name, number, version.path)
        wanted = {number for number, version in model.versions.items() if version.wanted}
        states = {number: version.state for number, version in model.versions.items()}
        for step in self.policy(wanted, states):
            version = model.versions[step.version]
            if isinstance(step, Load):
                version.state = State.LOADING
                self._spawn(self._load(model, version))
            else:
                version.state = State.UNLOADING
                self._spawn(self._unload(model, version))
        self._tell()

    async def _load(self, model: Model, version: Version) -> None:
        """Load a version, trying again where it fails; in the end it is available, or ended with its error."""
        log = logger.bind(model=model.config.name, version=version.number)
        for attempt in range(self.retries + 1):
            if attempt:
                await self._pause(version)
            if not version.wanted:
                break
            version.error = await self._try(version)
            if version.error is None:
                version.state = State.AVAILABLE
                log.info("model_version_loaded")
                self._reconcile(model)
                return
            self._tell()
            log.error("model_version_load_failed", code=version.error.code.name, reason=version.error.details)
        version.state = State.END
        self._reconcile(model)

    async def _pause(self, version: Version) -> None:
        """Wait before the next try, or until the version is given up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.retry_s):
                while version.wanted:
                    await self.next_change.wait()

    async def _try(self, version: Version) -> Refused | None:
        """Load once, in a thread, and return what went wrong."""
        loop = asyncio.get_running_loop()
        try:
            version.tried = await loop.run_in_executor(self._loading, fingerprint, version.path)
            version.loaded = await loop.run_in_executor(self._loading, self.load, version.path)
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
            version.idle.clear()
            await version.idle.wait()
        gone, version.loaded = version.loaded, None
        if gone is not None:
            try:
                await asyncio.get_running_loop().run_in_executor(self._unloading, _close, gone)
            except Exception:
                # It serves no more either way, and what waits for its end must go on.
                logger.exception("model_version_unload_failed", model=model.config.name, version=version.number)
        version.state = State.END
        logger.info("model_version_unloaded", model=model.config.name, version=version.number)
        self._reconcile(model)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Forget a task; a bug that ended it is told, not kept until someone asks."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("lifecycle_task_failed", exc_info=error)


def _scan(base_path: Path, failed: Mapping[int, Path]) -> tuple[dict[int, Path], dict[int, str]]:
    """
    Read a base path, and look at the folders of versions that failed.

    Raises:
        OSError: the base path cannot be read.
    """
    return version_folders(base_path), {number: fingerprint(path) for number, path in failed.items()}


def _close(servable: Servable) -> None:
    """Let the memory of a version go."""
    servable.model.close()
    gc.collect()
