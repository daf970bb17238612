"""What goes wrong behind the gateway, and what the client is told; what is not stored is not answered."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import count

import grpc
import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.factories import contract
from tests.fakes import FakeModelServer
from tests.integration.gateway.conftest import Building, Door
from tests.listening import listening
from tests.pictures import jpeg

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def problem(response: httpx.Response) -> tuple[int, str]:
    """Return status and type of a problem."""
    assert response.headers["Content-Type"] == "application/problem+json", response.text
    return response.status_code, response.json()["type"].rpartition(":")[2]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when *condition* holds; fail when it does not within a minute."""
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("code", "expected", "calls"),
    [
        (grpc.StatusCode.NOT_FOUND, (503, "model-unavailable"), 1),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, (503, "overloaded"), 1),
        (grpc.StatusCode.DEADLINE_EXCEEDED, (504, "prediction-timeout"), 1),
        (grpc.StatusCode.INVALID_ARGUMENT, (500, "internal-error"), 1),
        (grpc.StatusCode.FAILED_PRECONDITION, (500, "internal-error"), 1),
        (grpc.StatusCode.INTERNAL, (500, "internal-error"), 1),
    ],
    ids=lambda value: value.name if isinstance(value, grpc.StatusCode) else None,
)
async def test_code_of_the_model_server_becomes_a_problem(
    door: Door, code: grpc.StatusCode, expected: tuple[int, str], calls: int
) -> None:
    """Each code has its meaning; none of these is tried again, and the server's words are not passed on."""
    door.cancer.failures = [code]
    response = await door.predict(jpeg())
    assert problem(response) == expected
    assert door.cancer.predict_calls == calls
    assert "as the test said" not in response.text
    assert ("Retry-After" in response.headers) == (expected[0] == 503)


async def test_only_server_that_says_it_is_full_is_not_asked_again(door: Door) -> None:
    """The client is told; a second call at once would meet the same full queue."""
    door.cancer.failures = [UNAVAILABLE]
    assert problem(await door.predict(jpeg())) == (503, "model-unavailable")
    assert door.cancer.predict_calls == 1
    assert (await door.predict(jpeg())).status_code == 201


async def test_second_try_goes_to_another_replica(building: Building) -> None:
    """A replica that always fails costs nobody an answer while another one works."""
    broken = await building.model(contract())
    door = await building.door(more_cancer=(broken,))
    broken.failures = [UNAVAILABLE] * 1000

    async def both_serve() -> bool:
        answer = await door.client.get("/api/v1/models/cancer", headers=door.authorization())
        return bool(answer.json()["versions"][0]["replicas"] == 2)

    await until(both_serve)
    for seed in count():
        assert (await door.predict(jpeg(seed))).status_code == 201
        if broken.predict_calls == 3:
            break


async def test_replica_with_another_contract_is_not_asked(building: Building) -> None:
    """The same version number with other weights is another model: its scores would be read by the wrong contract."""
    other = await building.model(contract(weights_digest="sha256:" + "d4" * 32, thresholds=[0.95]))
    door = await building.door(more_cancer=(other,))
    digests = {(await door.predict(jpeg(seed))).json()["weights_digest"] for seed in range(10)}
    asked = [server for server in (door.cancer, other) if server.predict_calls]
    assert [server.contract["weights_digest"] for server in asked] == list(digests)


async def test_slow_model_is_a_504_in_time(building: Building) -> None:
    """The deadline holds, whatever the model does; nothing was stored."""
    door = await building.door(predict_timeout_s=0.3)
    door.cancer.hold = asyncio.Event()
    caller = door.authorization()
    response = await door.client.post(
        "/api/v1/models/cancer/predictions", files={"file": ("a.jpg", jpeg())}, headers=caller
    )
    assert problem(response) == (504, "prediction-timeout")
    assert (await door.client.get("/api/v1/predictions", headers=caller)).json()["items"] == []
    door.cancer.hold.set()


async def test_too_many_in_flight_are_refused_early(building: Building) -> None:
    """Over the bound there is a 503 with Retry-After at once, and no queue; afterwards all is as before."""
    door = await building.door(predictions_in_flight_max=2)
    door.cancer.hold = asyncio.Event()
    held = [asyncio.create_task(door.predict(jpeg(seed))) for seed in range(2)]

    async def both_wait() -> bool:
        return door.cancer.predict_calls == 2

    await until(both_wait)
    refused = await door.predict(jpeg(3))
    assert problem(refused) == (503, "overloaded")
    assert refused.headers["Retry-After"] == "1"
    assert door.cancer.predict_calls == 2
    # One model's crowd is not the other's.
    assert (await door.predict(jpeg(4), model="anemia")).status_code == 201
    door.cancer.hold.set()
    assert [response.status_code for response in await asyncio.gather(*held)] == [201, 201]
    assert (await door.predict(jpeg(5))).status_code == 201


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.5], ids=str)
async def test_score_that_is_no_probability_is_never_an_answer(door: Door, score: float) -> None:
    """A model that breaks gives a 500, not a finding."""
    door.cancer.probability = score
    assert problem(await door.predict(jpeg())) == (500, "internal-error")


async def test_readiness_follows_the_model_and_the_pod_stays(building: Building) -> None:
    """A model that goes away turns /health/ready and refuses early; the kubelet's probe stays; it heals by itself."""
    door = await building.door()
    assert (await door.ready())["status"] == "ready"
    address, document = door.cancer.address, door.cancer.contract
    await door.cancer.__aexit__()
    assert problem(await door.predict(jpeg())) == (503, "model-unavailable")

    async def unready() -> bool:
        return bool((await door.ready())["checks"]["model_cancer"] == "unavailable")

    await until(unready)
    assert (await door.client.get("/readyz")).status_code == 200
    assert (await door.predict(jpeg(), model="anemia")).status_code == 201
    async with FakeModelServer(document, address=address):

        async def back() -> bool:
            return (await door.predict(jpeg())).status_code == 201

        await until(back)


async def test_version_that_is_not_available_is_not_asked(door: Door) -> None:
    """LOADING is not AVAILABLE, though the server answers."""
    door.cancer.state = "LOADING"

    async def refused() -> bool:
        return (await door.predict(jpeg())).status_code == 503

    await until(refused)
    assert (await door.ready())["status"] == "unavailable"


async def test_version_without_a_usable_contract_is_not_asked(door: Door) -> None:
    """A contract of another version is none."""
    door.cancer.contract = contract(thresholds=[0.1, 0.2])

    async def refused() -> bool:
        return (await door.predict(jpeg())).status_code == 503

    await until(refused)


def stand_in(answer: Callable[[], Response]) -> Starlette:
    """Return something in the place of records that answers everything with *answer*."""

    async def reply(_request: Request) -> Response:
        return answer()

    return Starlette(routes=[Route("/{path:path}", reply, methods=["GET", "POST", "PUT", "DELETE"])])


def refusal(status: int, slug: str) -> Response:
    """Return a problem as records would word it."""
    body = {"type": f"urn:healthguard:problem:{slug}", "title": "…", "status": status, "detail": "Erika Mustermann"}
    return Response(json.dumps(body), status, media_type="application/problem+json")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda: refusal(503, "unavailable"), (503, "not-stored")),
        (lambda: refusal(500, "internal-error"), (503, "not-stored")),
        (lambda: refusal(422, "idempotency-mismatch"), (422, "idempotency-mismatch")),
        (lambda: refusal(422, "validation-failed"), (502, "bad-upstream")),
        (lambda: refusal(403, "gateway-only"), (502, "bad-upstream")),
        (lambda: refusal(401, "unauthorized"), (401, "unauthorized")),
        (lambda: JSONResponse({"id": "none"}, 201), (502, "bad-upstream")),
        (lambda: Response(b"x" * (5 * 1024 * 1024), 201), (502, "bad-upstream")),
    ],
    ids=["503", "500", "idempotency", "our field", "our secret", "token", "another form", "too long"],
)
async def test_what_records_says_to_a_save(
    building: Building, answer: Callable[[], Response], expected: tuple[int, str]
) -> None:
    """Anything but a stored record is no answer to the client, and none of records' words reach them."""
    url = await building.stack.enter_async_context(listening(stand_in(answer)))
    door = await building.door(records_url=url)
    response = await door.predict(jpeg())
    assert problem(response) == expected
    assert "Erika" not in response.text


async def test_records_away_is_a_503_that_says_how_to_repeat(building: Building) -> None:
    """The prediction was made and is not answered; the problem names the way to repeat it safely."""
    door = await building.door(records_url="http://127.0.0.1:9")
    response = await door.predict(jpeg())
    assert problem(response) == (503, "not-stored")
    assert "Idempotency-Key" in response.json()["detail"]
    assert response.headers["Retry-After"]
    assert (await door.ready())["checks"]["records"] == "unavailable"
    listed = await door.client.get("/api/v1/predictions", headers=door.authorization())
    assert problem(listed) == (503, "upstream-unavailable")


async def test_records_that_never_answers_is_a_503_in_time(building: Building) -> None:
    """A save has a deadline."""
    never = asyncio.Event()

    async def hang(_request: Request) -> Response:
        await never.wait()
        return Response()

    app = Starlette(routes=[Route("/v1/predictions", hang, methods=["POST"])])
    url = await building.stack.enter_async_context(listening(app))
    door = await building.door(records_url=url, records_timeout_s=0.2)
    assert problem(await door.predict(jpeg())) == (503, "not-stored")
    never.set()


async def test_auth_away_leaves_valid_tokens_working(building: Building) -> None:
    """Keys that were seen once go on holding; only auth's own paths are away."""
    door = await building.door(auth_url="http://127.0.0.1:9", jwks_url=await building.auth() + "/.well-known/jwks.json")
    assert (await door.predict(jpeg())).status_code == 201
    response = await door.client.post("/api/auth/login", json={"email": "a@b.c", "password": "x"})
    assert problem(response) == (503, "upstream-unavailable")


async def test_picture_reaches_the_model_as_the_contract_says(door: Door) -> None:
    """One row, uint8, the contract's size."""
    await door.predict(jpeg())
    (rows,) = door.cancer.images
    assert (rows.shape, rows.dtype) == ((1, 224, 224, 3), np.dtype(np.uint8))


async def test_silent_auth_does_not_hold_what_predictions_need(building: Building) -> None:
    """With every connection to auth in use by log-ins that get no answer, predictions are made and stored."""
    never, waiting = asyncio.Event(), 0

    async def hang(_request: Request) -> Response:
        nonlocal waiting
        waiting += 1
        await never.wait()
        return Response()

    app = Starlette(routes=[Route("/auth/login", hang, methods=["POST"])])
    url = await building.stack.enter_async_context(listening(app))
    keys = await building.auth() + "/.well-known/jwks.json"
    door = await building.door(auth_url=url, jwks_url=keys, upstream_connections_max=1)
    login = {"email": "a@b.c", "password": "x"}
    held = [asyncio.create_task(door.client.post("/api/auth/login", json=login)) for _ in range(3)]

    async def full() -> bool:
        return waiting == 1

    await until(full)
    try:
        assert (await door.predict(jpeg())).status_code == 201
        assert not any(task.done() for task in held)
    finally:
        never.set()
    assert {response.status_code for response in await asyncio.gather(*held)} == {200}


async def test_prediction_that_is_not_stored_is_not_counted(building: Building) -> None:
    """Who adds up the counter gets what clients got; an answer that stores nothing counts when it is given."""
    door = await building.door(records_url="http://127.0.0.1:9")
    assert problem(await door.predict(jpeg())) == (503, "not-stored")
    counted = 'healthguard_predictions_total{condition="cancer",outcome="Positive",version="1"} 1.0'
    assert counted not in (await door.client.get("/metrics")).text
    files = {"file": ("a.jpg", jpeg())}
    answered = await door.client.post("/api/inference/predict", files=files, headers=door.authorization())
    assert answered.status_code == 200
    assert counted in (await door.client.get("/metrics")).text
