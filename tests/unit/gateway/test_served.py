"""What is kept of each model server's state, and what the log hears of it."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from gateway import served
from gateway.balancer import connect
from gateway.concurrency import ConcurrencyLimit
from gateway.discovery import Endpoint
from gateway.problems import ModelUnavailable
from gateway.served import ServedModel, ServedVersion, refresh
from gateway.traffic import Traffic
from serving.tfs.client import CallFailed
from tests.factories import contract
from tests.fakes import FakeModelServer

TIMEOUT_S = 10.0


@pytest.fixture
async def server() -> AsyncIterator[FakeModelServer]:
    """Return a server that is well."""
    async with FakeModelServer(contract()) as found:
        yield found


@pytest.fixture
async def model(server: FakeModelServer) -> AsyncIterator[ServedModel]:
    """Return the model with that server as its only replica."""
    replica = connect(Endpoint(server.address))
    version = ServedVersion("cancer", 1, [replica])
    yield ServedModel("cancer", Traffic(1), ConcurrencyLimit(8, 1.0), {1: version})
    await replica.client.close()


async def ask(model: ServedModel) -> list[str]:
    """Ask the replica once; return what was logged."""
    with capture_logs() as logs:
        await refresh(model.versions[1], model.replicas[0], timeout_s=TIMEOUT_S)
    return [str(entry["event"]) for entry in logs]


async def test_available_version_brings_its_contract(model: ServedModel) -> None:
    """Before it was asked there is none; then it is logged once."""
    with pytest.raises(ModelUnavailable):
        model.contract()
    assert await ask(model) == ["model_available"]
    assert model.contract().model == "cancer"
    assert list(model.versions[1].serving(model.contract())) == list(model.replicas)
    assert await ask(model) == []


async def make_unreachable(server: FakeModelServer, _model: ServedModel) -> None:
    """Stop the server."""
    await server.__aexit__()


async def make_loading(server: FakeModelServer, _model: ServedModel) -> None:
    """Let the version load."""
    server.state = "LOADING"


async def make_unknown(server: FakeModelServer, _model: ServedModel) -> None:
    """Let the server have another model."""
    server.contract = contract(model="nose")


async def make_contract_bad(server: FakeModelServer, _model: ServedModel) -> None:
    """Let the contract be none."""
    server.contract = contract(labels=[])


@pytest.mark.parametrize(
    ("make", "event"),
    [
        (make_unreachable, "model_server_unreachable"),
        (make_loading, "model_version_not_available"),
        (make_unknown, "model_unknown_to_server"),
        (make_contract_bad, "model_contract_refused"),
    ],
)
@pytest.mark.parametrize("before", ["never well", "was well"])
async def test_trouble_takes_the_replica_out_and_is_told_once(
    server: FakeModelServer, model: ServedModel, make: Any, event: str, before: str
) -> None:
    """Also a server that was never well is told of: a wrong configuration must be seen."""
    if before == "was well":
        await ask(model)
    await make(server, model)
    assert await ask(model) == [event]
    with pytest.raises(ModelUnavailable):
        model.contract()
    assert await ask(model) == []


async def silent(model: ServedModel, monkeypatch: pytest.MonkeyPatch, *, answers: int = 0) -> None:
    """Ask for a state that does not come in time, while so many calls are answered."""

    async def status(*_: object, **__: object) -> None:
        model.replicas[0].conduct.answers += answers
        raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "")

    with monkeypatch.context() as patched:
        patched.setattr(model.replicas[0].client, "status", status)
        await ask(model)


async def test_one_late_state_is_asked_for_again_and_the_second_takes_the_replica_out(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine is late once; a stopped server always."""
    await ask(model)
    await silent(model, monkeypatch)
    assert model.replicas[0].doubted.is_set()
    model.contract()
    await silent(model, monkeypatch)
    with pytest.raises(ModelUnavailable):
        model.contract()
    assert await ask(model) == ["model_available"]
    await silent(model, monkeypatch)
    model.contract()


async def test_server_that_answers_calls_is_well_however_late_its_state_is(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is for is the better sign."""
    await ask(model)
    for _ in range(5):
        await silent(model, monkeypatch, answers=1)
    model.contract()


async def test_watch_outlives_a_fault_of_its_own(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody thought of takes the replica out until the next asking, and not for ever."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    await ask(model)
    with monkeypatch.context() as patched:
        patched.setattr(served, "fetch_contract", broken)
        assert "model_watch_failed" in await ask(model)
        with pytest.raises(ModelUnavailable):
            model.contract()
    assert await ask(model) == ["model_available"]
