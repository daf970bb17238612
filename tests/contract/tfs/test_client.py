"""Our client against a real server: typed results, typed errors, a deadline on every call."""

import math
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import numpy as np
import pytest

from serving.tfs.client import CallFailed, Client
from tests.contract.tfs.harness import Server, floats

ROW = floats((1, 2))


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    """Connect to the shared server."""
    async with Client(server.address) as connected:
        yield connected


async def test_client_predicts(client: Client) -> None:
    """Arrays go and come, with the version that answered."""
    answer = await client.predict("arithmetic", None, "", {"x": ROW}, timeout_s=20)
    assert (answer.model, answer.version, answer.signature) == ("arithmetic", 2, "serving_default")
    np.testing.assert_array_equal(answer.outputs["y"], ROW * 2)


async def test_client_asks_for_a_version_and_a_signature(client: Client) -> None:
    """Version and signature are honoured; strings come as bytes."""
    answer = await client.predict("arithmetic", 1, "text", {"n": np.zeros(1, np.int32)}, timeout_s=20)
    assert (answer.version, answer.outputs["json"].tolist()) == (1, [b'{"schema": "test"}'])


async def test_client_raises_the_code_of_a_refusal(client: Client) -> None:
    """A refusal carries its gRPC code, and its text only where nobody prints it by accident."""
    with pytest.raises(CallFailed) as caught:
        await client.predict("patient-name", None, "", {"x": ROW}, timeout_s=20)
    assert caught.value.code == grpc.StatusCode.NOT_FOUND
    assert "Latest(patient-name)" in caught.value.details
    assert "patient-name" not in str(caught.value)


async def test_client_ends_a_call_at_its_deadline(client: Client) -> None:
    """A call that takes too long ends with DEADLINE_EXCEEDED."""
    with pytest.raises(CallFailed) as caught:
        await client.predict("arithmetic", None, "slow", {"rounds": np.array([3000], np.int32)}, timeout_s=0.05)
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("timeout_s", [0, -1, math.inf, math.nan])
async def test_client_refuses_a_call_without_an_end(client: Client, timeout_s: float) -> None:
    """No call goes out without a positive, finite deadline."""
    with pytest.raises(ValueError, match="deadline"):
        await client.status("arithmetic", timeout_s=timeout_s)


async def test_client_reads_states_newest_first(client: Client) -> None:
    """States come typed."""
    found = await client.status("arithmetic", timeout_s=20)
    assert [(each.version, each.state, each.available, each.error_code) for each in found] == [
        (2, "AVAILABLE", True, 0),
        (1, "AVAILABLE", True, 0),
    ]


async def test_client_reads_signatures(client: Client) -> None:
    """The metadata says what each signature takes and gives."""
    version, found = await client.metadata("arithmetic", None, timeout_s=20)
    assert version == 2
    assert found["brightness"].inputs["image"].shape == (-1, 4, 4, 3)
    assert found["text"].outputs["json"].dtype == np.dtype("O")


async def test_client_speaks_over_a_channel_that_stays_its_owners(server: Server) -> None:
    """A channel that was handed in is not closed with the client."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        async with Client(channel) as first:
            await first.status("arithmetic", timeout_s=20)
        assert await Client(channel).status("arithmetic", timeout_s=20)


async def test_client_reports_nobody_there(server: Server) -> None:
    """An address where nobody listens is UNAVAILABLE."""
    async with Client(server.address + "-nobody") as client:
        with pytest.raises(CallFailed) as caught:
            await client.status("arithmetic", timeout_s=20)
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
