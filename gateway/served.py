"""The models that are served here, and what each of their servers says of itself, kept fresh."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
import structlog

from gateway.balancer import Replica, RetryBudget, connect
from gateway.contracts import BadContract, Contract, fetch_contract
from gateway.discovery import DeclaredModel
from gateway.problems import ModelUnavailable
from serving.tfs.client import CallFailed

log = structlog.get_logger()

# A server that is not ready is asked again soon, and then less often; soon at first, so that a start is seen.
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 2.0


@dataclass(eq=False)
class ServedModel:
    """A declared model, its stable version and its replicas."""

    name: str
    stable: int
    replicas: Sequence[Replica]
    in_flight: int = 0
    retries: RetryBudget = field(default_factory=RetryBudget)

    def contract(self) -> Contract:
        """
        Return the stable version's contract.

        Raises:
            ModelUnavailable: no replica has the version loaded.
        """
        for replica in self.replicas:
            if replica.contract is not None:
                return replica.contract
        raise ModelUnavailable

    def serving(self, contract: Contract) -> Sequence[Replica]:
        """
        Return the replicas that have the version loaded, with this contract: only their scores mean what it says.

        Raises:
            ModelUnavailable: there is none.
        """
        found = [replica for replica in self.replicas if replica.contract == contract]
        if not found:
            raise ModelUnavailable
        return found

    async def ready(self) -> None:
        """
        Return when the version can be asked.

        Raises:
            ModelUnavailable: no replica has it loaded.
        """
        self.contract()


def connect_model(declared: DeclaredModel) -> ServedModel:
    """Return a declared model with a channel to each of its endpoints."""
    return ServedModel(declared.name, declared.stable, [connect(target) for target in declared.endpoints])


class Watch:
    """Asks every replica of every model for its state, each in a task of its own, until closed."""

    def __init__(self, models: Mapping[str, ServedModel], *, interval_s: float, timeout_s: float) -> None:
        self._models = models
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to ask."""
        for model in self._models.values():
            self._tasks += [asyncio.create_task(self._watch(model, replica)) for replica in model.replicas]

    async def close(self) -> None:
        """Stop asking, and close the channels."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for model in self._models.values():
            for replica in model.replicas:
                await replica.client.close()

    async def _watch(self, model: ServedModel, replica: Replica) -> None:
        backoff_s = BACKOFF_MIN_S
        while True:
            replica.doubted.clear()
            await refresh(model, replica, timeout_s=self._timeout_s)
            wait_s = backoff_s if replica.contract is None else self._interval_s
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S) if replica.contract is None else BACKOFF_MIN_S
            await _wait(replica.doubted, wait_s)


async def refresh(model: ServedModel, replica: Replica, *, timeout_s: float) -> None:
    """
    Ask one replica for the state of its versions and, where the stable one is AVAILABLE, for its contract.

    The contract is asked for each time and not kept from the last: a server that was replaced in between may hold other
    weights under the same number.
    """
    try:
        replica.versions = await replica.client.status(model.name, timeout_s=timeout_s)
        if any(status.available and status.version == model.stable for status in replica.versions):
            replica.contract = await fetch_contract(replica.client, model.name, model.stable, timeout_s=timeout_s)
            trouble = None
        else:
            trouble = "model_version_not_available"
    except CallFailed as exc:
        replica.versions = ()
        trouble = "model_unknown_to_server" if exc.code is grpc.StatusCode.NOT_FOUND else "model_server_unreachable"
    except BadContract:
        trouble = "model_contract_refused"
    # A watch that ended by a fault of ours would leave the replica out, or in, until the next restart.
    except Exception as exc:
        log.exception("model_watch_failed", model=model.name, exception=type(exc).__qualname__)
        trouble = "model_watch_failed"
    _note(model, replica, trouble)


def _note(model: ServedModel, replica: Replica, trouble: str | None) -> None:
    """Take a replica in trouble out, and log what has changed."""
    if trouble is not None:
        replica.contract = None
    if trouble == replica.trouble:
        return
    replica.trouble = trouble
    if trouble is None:
        log.info("model_available", model=model.name, version=model.stable)
    else:
        log.warning(trouble, model=model.name, version=model.stable)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for *event*, at most *timeout_s*."""
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        # Nothing happened; but a doubt that comes with every call must not become a call of ours each.
        return
    await asyncio.sleep(BACKOFF_MIN_S)
