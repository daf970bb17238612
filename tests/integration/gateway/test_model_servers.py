"""The fake model server and the real one answer the same, as far as the gateway asks."""

import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from gateway.contracts import BadContract, fetch_contract, parse_contract
from serving.tfs.client import CallFailed, Client
from tests.factories import contract
from tests.fakes import FakeModelServer
from tests.integration.gateway.stack import process, write_server_config

TIMEOUT_S = 20.0


@pytest.fixture(params=["fake", "real"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """Return a client of a server that has one version of the model cancer."""
    if request.param == "fake":
        async with FakeModelServer(contract()) as fake, Client(fake.address) as client:
            yield client
        return
    folder = Path(tempfile.mkdtemp(prefix="hg-ms-"))
    flags = ["--port=0", f"--grpc_socket_path={folder / 's'}", f"--model_config_file={write_server_config(folder)}"]
    try:
        with process("serving.modelserver", folder, args=flags):
            deadline = time.monotonic() + TIMEOUT_S
            while "model_server_started" not in (folder / "serving.modelserver.log").read_text():
                assert time.monotonic() < deadline, (folder / "serving.modelserver.log").read_text()
                time.sleep(0.05)  # noqa: ASYNC251 - nothing else runs here
            async with Client(f"unix:{folder / 's'}") as client:
                yield client
    finally:
        shutil.rmtree(folder)


async def test_model_server_keeps_what_the_gateway_relies_on(server: Client) -> None:
    """State, contract for one row, scores for one picture, and NOT_FOUND for what is not there."""
    (status,) = await server.status("cancer", timeout_s=TIMEOUT_S)
    assert (status.state, status.available) == ("AVAILABLE", True)
    number = status.version
    found = await fetch_contract(server, "cancer", number, timeout_s=TIMEOUT_S)
    assert parse_contract(found.model_dump_json(by_alias=True).encode(), "cancer", number) == found
    picture = np.zeros((1, found.input.height, found.input.width, 3), np.uint8)
    answer = await server.predict("cancer", number, "serving_default", {"image": picture}, timeout_s=TIMEOUT_S)
    assert answer.version == number
    for output in ("probability", "ood_score"):
        assert answer.outputs[output].shape == (1,)
        assert answer.outputs[output].dtype == np.float32
    explained = await server.predict("cancer", number, "explain", {"image": picture}, timeout_s=TIMEOUT_S)
    heat = explained.outputs["heatmap"]
    assert heat.shape == (1, *found.explain.grid)
    assert heat.dtype == np.float32
    for call in (
        server.status("nose", timeout_s=TIMEOUT_S),
        server.predict("cancer", 9, "serving_default", {"image": picture}, timeout_s=TIMEOUT_S),
        server.predict("nose", 1, "serving_default", {"image": picture}, timeout_s=TIMEOUT_S),
    ):
        with pytest.raises(CallFailed) as refused:
            await call
        assert refused.value.code is grpc.StatusCode.NOT_FOUND


async def test_contract_of_another_version_is_refused() -> None:
    """A server that answers with another version's contract is not believed."""
    async with FakeModelServer(contract()) as fake, Client(fake.address) as client:
        fake.contract = contract()
        with pytest.raises((BadContract, CallFailed)):
            await fetch_contract(client, "cancer", 2, timeout_s=TIMEOUT_S)
