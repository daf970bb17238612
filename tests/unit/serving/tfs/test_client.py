"""How requests are written: as protobuf would, whatever is in the picture; and how calls end that no server ends."""

import asyncio

import grpc
import numpy as np
import pytest

from serving.tfs.client import CLOSED, FRAMES_MAX, CallFailed, Client
from serving.tfs.protos import PredictRequest
from serving.tfs.tensors import Array, to_array
from tests.factories import contract
from tests.fakes import FakeModelServer

SHAPE = (1, 64, 64, 3)


@pytest.fixture
async def client() -> Client:
    """Return a client of nobody: nothing is sent."""
    return Client("unix:/nowhere")


def asked(request: bytes) -> tuple[str, int, str, dict[str, Array]]:
    """Return what a server reads."""
    read = PredictRequest.FromString(request)
    spec = read.model_spec
    return spec.name, spec.version.value, spec.signature_name, {name: to_array(t) for name, t in read.inputs.items()}


@pytest.mark.parametrize("first", range(0, 256, 9))
async def test_request_holds_the_picture_that_it_was_written_for(client: Client, first: int) -> None:
    """Plain pictures too, whose bytes could be taken for the message around them; and what was there before is gone."""
    for fill in (first, 255 - first):
        picture = np.full(SHAPE, fill, np.uint8)
        *spec, inputs = asked(client._written("cancer", 3, "serving_default", {"image": picture}))
        assert spec == ["cancer", 3, "serving_default"]
        np.testing.assert_array_equal(inputs["image"], picture)


@pytest.mark.parametrize(
    "inputs",
    [
        {"image": np.zeros(SHAPE, np.uint8)[:, ::2]},
        {"image": np.zeros(SHAPE, np.float32)},
        {"n": np.zeros(1, np.int32)},
        {"one": np.ones(SHAPE, np.uint8), "other": np.zeros(SHAPE, np.uint8)},
    ],
    ids=["not in one piece", "other numbers", "small", "two inputs"],
)
async def test_request_of_another_form_is_written_as_ever(client: Client, inputs: dict[str, Array]) -> None:
    """Each arrives as it is."""
    *_, read = asked(client._written("cancer", None, "", inputs))
    assert read.keys() == inputs.keys()
    for name, array in inputs.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


async def test_forms_that_are_remembered_are_few(client: Client) -> None:
    """A caller who asks for ever other shapes does not fill the memory, and is still understood."""
    for side in range(40, 40 + FRAMES_MAX + 5):
        picture = np.full((1, side, side, 3), side, np.uint8)
        *_, read = asked(client._written("cancer", 1, "", {"image": picture}))
        np.testing.assert_array_equal(read["image"], picture)
    assert len(client._frames) == FRAMES_MAX


async def held(server: FakeModelServer, client: Client) -> "asyncio.Task[object]":
    """Return a prediction that has come to the server, and waits there."""
    task: asyncio.Task[object] = asyncio.create_task(
        client.predict("cancer", 1, "serving_default", {"image": np.zeros(SHAPE, np.uint8)}, timeout_s=60.0)
    )
    async with asyncio.timeout(60):
        while not server.predict_calls:
            await asyncio.sleep(0.01)
    return task


async def test_call_under_which_the_channel_is_closed_is_unavailable() -> None:
    """Nobody cancelled who waits for it: as a CancelledError it would end a request without an answer, and no retry."""
    async with FakeModelServer(contract(), hold=asyncio.Event()) as server:
        client = Client(server.address)
        task = await held(server, client)
        await client.close()
        with pytest.raises(CallFailed) as cut:
            await task
        with pytest.raises(CallFailed) as refused:
            await client.status("cancer", timeout_s=5.0)
    for failed in (cut.value, refused.value):
        assert (failed.code, failed.details) == (grpc.StatusCode.UNAVAILABLE, CLOSED)


async def test_call_whose_task_is_cancelled_stays_cancelled() -> None:
    """Whoever leaves, or whose time is over, is not told of a server's failure instead."""
    async with FakeModelServer(contract(), hold=asyncio.Event()) as server, Client(server.address) as client:
        task = await held(server, client)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await (await held(server, client))
