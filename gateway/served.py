"""The models that are served here, their versions and servers, as discovery says and as each server says of itself."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import grpc
import structlog

from gateway.balancer import Replica, RetryBudget, connect, now_s
from gateway.concurrency import ConcurrencyLimit
from gateway.contracts import BadContract, Contract, fetch_contract
from gateway.discovery import DeclaredModel, Endpoint
from gateway.model_tls import ModelTls, tls_for
from gateway.problems import ModelUnavailable
from gateway.traffic import Traffic, version_for
from serving.tfs.client import CallFailed, Tls

log = structlog.get_logger()

# A server that is not ready is asked again soon, and then less often; soon at first, so that a start is seen.
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 2.0

MISSED_MAX = 2
"""Questions in a row that a server that was well may leave without an answer."""

CERTIFICATES_INTERVAL_S = 10.0
"""How often the certificates' files are looked at."""


@dataclass(eq=False)
class ServedVersion:
    """A version of a model, and its replicas."""

    model: str
    number: int
    replicas: list[Replica] = field(default_factory=list)

    def contract(self) -> Contract | None:
        """Return what the version says of itself; None where no replica has it loaded."""
        for replica in self.replicas:
            if replica.contract is not None:
                return replica.contract
        return None

    def serving(self, contract: Contract) -> Sequence[Replica]:
        """
        Return the replicas that have the version loaded, with this contract: only their scores mean what it says.

        Raises:
            ModelUnavailable: there is none.
        """
        # Equal contracts are one object (`known`): comparing them field by field would cost more than the choice.
        found = [replica for replica in self.replicas if replica.contract is contract]
        if not found:
            raise ModelUnavailable
        return found

    def known(self, contract: Contract) -> Contract:
        """Return the equal contract that another replica has, or *contract* itself."""
        for replica in self.replicas:
            if replica.contract == contract:
                return replica.contract
        return contract


@dataclass(eq=False)
class ServedModel:
    """A declared model: how its requests are split, its versions, and how much of it may be in flight."""

    name: str
    traffic: Traffic
    limit: ConcurrencyLimit
    versions: dict[int, ServedVersion] = field(default_factory=dict)
    retries: RetryBudget = field(default_factory=RetryBudget)

    @property
    def stable(self) -> int:
        """The version that answers unless another was drawn."""
        return self.traffic.stable

    @property
    def replicas(self) -> Sequence[Replica]:
        """Every server of every version."""
        return [replica for version in self.versions.values() for replica in version.replicas]

    def contract(self) -> Contract:
        """
        Return the stable version's contract.

        Raises:
            ModelUnavailable: no replica has the version loaded.
        """
        return self.version(self.stable)[1]

    def version(self, number: int) -> tuple[ServedVersion, Contract]:
        """
        Return a version that can be asked, with its contract.

        Raises:
            ModelUnavailable: no replica has it loaded.
        """
        found = self.versions.get(number)
        contract = found.contract() if found is not None else None
        if found is None or contract is None:
            raise ModelUnavailable
        return found, contract

    def answering(self, draw: float) -> tuple[ServedVersion, Contract]:
        """
        Return the version that answers a request, 0 ≤ draw < 1; for a canary that is away the stable one does.

        Raises:
            ModelUnavailable: no replica has the version loaded.
        """
        number = version_for(self.traffic, draw)
        if number != self.stable:
            try:
                return self.version(number)
            except ModelUnavailable:
                log.debug("canary_unavailable", model=self.name, version=number)
        return self.version(self.stable)

    async def ready(self) -> None:
        """
        Return when the stable version can be asked.

        Raises:
            ModelUnavailable: no replica has it loaded.
        """
        self.contract()


class ServedModels:
    """Keeps what is served as it was last declared, and asks every replica for its state, until closed."""

    def __init__(
        self,
        *,
        interval_s: float,
        timeout_s: float,
        new_limit: Callable[[], ConcurrencyLimit],
        tls: ModelTls | None = None,
        drain_s: float = 10.0,
        changed: Callable[[Mapping[str, ServedModel]], None] = lambda _: None,
    ) -> None:
        """
        Args:
            interval_s: how often a replica that is well is asked for its state.
            timeout_s: deadline of that question.
            drain_s: how long calls in flight may take to end at a replica that is gone.
            changed: is told whenever models come or go.

        Raises:
            OSError, ValueError: the certificates cannot be read.
        """
        self.models: dict[str, ServedModel] = {}
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._new_limit = new_limit
        self._tls_files = tls
        self._tls = tls.read() if tls else None
        self._drain_s = drain_s
        self._changed = changed
        self._declared: Sequence[DeclaredModel] = ()
        self._retiring: dict[asyncio.Task[None], Replica] = {}

    def apply(self, declared: Sequence[DeclaredModel]) -> None:
        """Serve what is declared, and nothing else; what is there already stays connected."""
        self._declared = declared
        for model in declared:
            served = self.models.get(model.name)
            if served is None:
                served = self.models[model.name] = ServedModel(model.name, model.traffic, self._new_limit())
            self._apply(served, model)
        for name in self.models.keys() - {model.name for model in declared}:
            for replica in self.models.pop(name).replicas:
                self._retire(replica)
        self._changed(self.models)

    async def renew_certificates(self, interval_s: float = CERTIFICATES_INTERVAL_S) -> None:
        """Look for new certificates, for ever; each server gets a second connection before its first one goes."""
        while self._tls_files is not None:
            await asyncio.sleep(interval_s)
            try:
                tls = self._tls_files.read()
            except (OSError, ValueError) as exc:
                # They are being replaced at this moment, or were taken away: those in use go on.
                log.warning("model_certificates_unreadable", exception=type(exc).__qualname__)
                continue
            if tls != self._tls:
                self._tls = tls
                log.info("model_certificates_renewed")
                self.apply(self._declared)

    async def close(self) -> None:
        """Stop asking, and close the channels."""
        replicas = [replica for model in self.models.values() for replica in model.replicas]
        tasks = [*self._retiring, *(replica.task for replica in replicas if replica.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for replica in (*replicas, *self._retiring.values()):
            await replica.client.close()

    def _apply(self, served: ServedModel, declared: DeclaredModel) -> None:
        if served.traffic != declared.traffic:
            log.info("model_traffic_changed", model=served.name, stable=declared.traffic.stable)
        served.traffic = declared.traffic
        for number, endpoints in declared.endpoints.items():
            version = served.versions.setdefault(number, ServedVersion(served.name, number))
            self._match(version, endpoints)
        for number in served.versions.keys() - declared.endpoints.keys():
            for replica in served.versions.pop(number).replicas:
                self._retire(replica)

    def _match(self, version: ServedVersion, endpoints: Sequence[Endpoint]) -> None:
        """Let a version's replicas be those of *endpoints*."""
        kept: list[Replica] = []
        for endpoint in endpoints:
            tls = tls_for(endpoint, self._tls)
            olds = [replica for replica in version.replicas if replica.endpoint.address == endpoint.address]
            for old in olds:
                old.endpoint = replace(endpoint, server_name=old.endpoint.server_name)
            if not any(old.tls == tls for old in olds):
                kept.append(self._add(version, endpoint, tls, replaces=bool(olds)))
            kept += olds
        for replica in version.replicas:
            if replica not in kept:
                self._retire(replica)
        version.replicas = kept

    def _add(self, version: ServedVersion, endpoint: Endpoint, tls: Tls | None, *, replaces: bool) -> Replica:
        replica = connect(endpoint, tls)
        replica.replaces = replaces
        replica.task = asyncio.create_task(self._watch(version, replica))
        return replica

    async def _watch(self, version: ServedVersion, replica: Replica) -> None:
        backoff_s = BACKOFF_MIN_S
        while True:
            replica.doubted.clear()
            await refresh(version, replica, timeout_s=self._timeout_s)
            if replica.contract is not None and replica.replaces:
                self._replace(version, replica)
            wait_s = backoff_s if replica.contract is None else self._interval_s
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S) if replica.contract is None else BACKOFF_MIN_S
            await _wait(replica.doubted, wait_s)

    def _replace(self, version: ServedVersion, replica: Replica) -> None:
        """Let go of the same server's older connections, which stand behind the newer ones."""
        replica.replaces = False
        newer = version.replicas.index(replica)
        for old in version.replicas[newer + 1 :]:
            if old.endpoint.address == replica.endpoint.address:
                version.replicas.remove(old)
                self._retire(old)

    def _retire(self, replica: Replica) -> None:
        """Let what is in flight at a replica end, and close its channel."""
        if replica.task is not None:
            replica.task.cancel()
        task = asyncio.create_task(_close(replica, self._drain_s))
        self._retiring[task] = replica
        task.add_done_callback(lambda done: self._retiring.pop(done, None))


async def _close(replica: Replica, drain_s: float) -> None:
    try:
        async with asyncio.timeout(drain_s):
            while replica.in_flight:  # noqa: ASYNC110 - an event would cost each call something, for this rare moment
                await asyncio.sleep(BACKOFF_MIN_S)
    except TimeoutError:
        log.warning("model_calls_cut", in_flight=replica.in_flight)
    finally:
        await replica.client.close()


async def refresh(version: ServedVersion, replica: Replica, *, timeout_s: float) -> None:
    """
    Ask one replica for the state of its versions and, where this one is AVAILABLE, for its contract.

    The contract is asked for each time and not kept from the last: a server that was replaced in between may hold other
    weights under the same number.
    """
    answers = replica.conduct.answers
    try:
        replica.versions = await replica.client.status(version.model, timeout_s=timeout_s)
        if any(status.available and status.version == version.number for status in replica.versions):
            contract = await fetch_contract(replica.client, version.model, version.number, timeout_s=timeout_s)
            replica.contract = version.known(contract)
            trouble = None
        else:
            trouble = "model_version_not_available"
        replica.missed = 0
    except CallFailed as exc:
        late = exc.code is grpc.StatusCode.DEADLINE_EXCEEDED
        if late and replica.contract is not None and replica.conduct.answers > answers:
            # It answers what it is for: under a load as high as that, its state can wait.
            return
        replica.missed += late
        if replica.contract is not None and 0 < replica.missed < MISSED_MAX:
            # One late answer is a busy machine's. The next question follows at once.
            replica.doubted.set()
            return
        replica.versions = ()
        trouble = "model_unknown_to_server" if exc.code is grpc.StatusCode.NOT_FOUND else "model_server_unreachable"
    except BadContract:
        trouble = "model_contract_refused"
    # A watch that ended by a fault of ours would leave the replica out, or in, until the next restart.
    except Exception as exc:
        log.exception("model_watch_failed", model=version.model, exception=type(exc).__qualname__)
        trouble = "model_watch_failed"
    _note(version, replica, trouble)


def _note(version: ServedVersion, replica: Replica, trouble: str | None) -> None:
    """Take a replica in trouble out, and log what has changed."""
    if trouble is not None:
        replica.contract = None
    if trouble == replica.trouble:
        return
    replica.trouble = trouble
    if trouble is None:
        replica.ready_at = now_s()
        log.info("model_available", model=version.model, version=version.number)
    else:
        log.warning(trouble, model=version.model, version=version.number)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for *event*, at most *timeout_s*."""
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        # Nothing happened; but a doubt that comes with every call must not become a call of ours each.
        return
    await asyncio.sleep(BACKOFF_MIN_S)
