"""The REST application around a model that answers from Python."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest

from serving.modelserver import rest, rest_json
from serving.modelserver.backend import RunFailed, Servable
from serving.modelserver.batching import Scheduler
from serving.modelserver.config import Batching, ConfiguredModel
from serving.modelserver.inference import Inference
from serving.modelserver.lifecycle import Models
from serving.modelserver.observer import Observer
from serving.modelserver.refusals import Refused
from tests.unit.serving.modelserver.fakes import FakeModel

PREDICT = "/v1/models/m:predict"


@asynccontextmanager
async def client(model: FakeModel, tmp_path: Any, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve *model* as version 1 of `m`, and speak to it."""
    (tmp_path / "1").mkdir()
    models, scheduler = Models(lambda _: Servable(model, Batching()), poll_s=0), Scheduler(2)
    await models.start([ConfiguredModel("m", tmp_path)])
    scheduler.start()
    given = {"timeout_s": 5.0, "at_once": 2, "cors": False, "check_method": False, **settings}
    app = rest.RestApi(Inference(models, scheduler, Observer()), None, **given)
    transport = httpx.ASGITransport(app=app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://m") as speaking:
            yield speaking
    finally:
        scheduler.close()
        await models.close()


async def test_rest_times_out(tmp_path: Any) -> None:
    """A run that takes longer than --rest_api_timeout_in_ms is answered for, and the next one is served."""
    held = threading.Event()
    model = FakeModel(before=lambda x: held.wait(20) if x[0] == 1 else None)  # type: ignore[arg-type]
    async with client(model, tmp_path, timeout_s=0.2) as speaking:
        response = await speaking.post(PREDICT, json={"instances": [1]})
        assert (response.status_code, response.json()) == (504, {"error": "Deadline Exceeded"})
        held.set()
        assert (await speaking.post(PREDICT, json={"instances": [2]})).json() == {"predictions": [4.0]}


@pytest.mark.parametrize("at_once", [1, 2])
async def test_rest_bounds_how_many_documents_it_holds(tmp_path: Any, at_once: int) -> None:
    """While as many requests as may be are inside, another waits outside, and is answered in its turn."""
    held, inside = threading.Event(), threading.Event()

    def before(x: Any) -> None:
        if x[0] == 1:
            inside.set()
            held.wait(20)

    async with client(FakeModel(before=before), tmp_path, timeout_s=20, at_once=at_once) as speaking:
        first = asyncio.ensure_future(speaking.post(PREDICT, json={"instances": [1]}))
        await asyncio.to_thread(inside.wait, 20)
        second = asyncio.ensure_future(speaking.post(PREDICT, json={"instances": [2]}))
        # Long enough to see an answer that should not come; one that should is waited for as long as it takes.
        await asyncio.wait({second}, timeout=0.3 if at_once == 1 else 20)
        assert second.done() is (at_once == 2)
        held.set()
        assert [(await each).status_code for each in (first, second)] == [200, 200]


async def test_rest_tells_a_failed_run_with_its_code(tmp_path: Any) -> None:
    """A refusal of the runtime is the caller's mistake; an exception of ours says nothing of itself."""

    def before(x: Any) -> None:
        if x[0] == 1:
            raise RunFailed("the kernel's words")
        if x[0] == 2:
            raise ValueError("a secret of ours")

    async with client(FakeModel(before=before), tmp_path) as speaking:
        response = await speaking.post(PREDICT, json={"instances": [1]})
        assert (response.status_code, response.json()) == (400, {"error": "the kernel's words"})
        response = await speaking.post(PREDICT, json={"instances": [2]})
        assert response.status_code == 500
        assert "secret" not in response.text


@pytest.mark.parametrize("cors", [True, False])
async def test_rest_answers_browsers_of_other_origins_only_where_asked(tmp_path: Any, cors: bool) -> None:
    """--rest_api_enable_cors_support adds the headers, and answers a preflight."""
    async with client(FakeModel(), tmp_path, cors=cors) as speaking:
        response = await speaking.options(PREDICT)
        assert response.status_code == (200 if cors else 400)
        assert response.headers.get("access-control-allow-origin") == ("*" if cors else None)


async def test_read_body_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that grows beyond the limit is not read to its end."""
    monkeypatch.setattr(rest, "BODY_BYTES_MAX", 10)
    parts = iter([b"12345"] * 5)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(parts), "more_body": True}

    with pytest.raises(rest.TooLarge):
        await rest.read_body({"headers": []}, receive, rest.Held(rest.Bodies()))
    assert len(list(parts)) == 2


async def test_rest_bounds_the_bytes_of_all_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies that are read at the same time share one bound, and give their part back in the end."""
    monkeypatch.setattr(rest, "BODIES_BYTES_MAX", 15)
    bodies = rest.Bodies()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"1234567890"}

    with bodies.reading() as first:
        assert await rest.read_body({"headers": []}, receive, first) == b"1234567890"
        with pytest.raises(Refused) as caught, bodies.reading() as second:
            await rest.read_body({"headers": []}, receive, second)
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    with bodies.reading() as third:
        await rest.read_body({"headers": []}, receive, third)
    assert bodies.size == 0


async def test_rest_lets_nobody_wait_for_a_slow_sender(tmp_path: Any) -> None:
    """A body that never ends takes no place from those that come whole."""

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(20)

    async with client(FakeModel(), tmp_path, at_once=1) as speaking:
        slow = asyncio.ensure_future(speaking.post(PREDICT, content=slowly()))
        await asyncio.sleep(0)
        assert (await speaking.post(PREDICT, json={"instances": [2]})).json() == {"predictions": [4.0]}
        slow.cancel()


@pytest.mark.parametrize(("body", "status"), [(b'{"instances": [1], "also": []}', 400), (b'{"instances": [1]}', 200)])
async def test_rest_bounds_lists(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, body: bytes, status: int) -> None:
    """A document of more lists than memory should hold is refused unparsed; an object counts for four."""
    monkeypatch.setattr(rest_json, "NESTS_MAX", 5)
    async with client(FakeModel(), tmp_path) as speaking:
        assert (await speaking.post(PREDICT, content=body)).status_code == status
