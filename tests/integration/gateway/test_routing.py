"""Versions, deadlines, explanations, kept answers and rates, through the gateway's own door."""

import asyncio
import io
import re
from collections import Counter
from collections.abc import Awaitable, Callable

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image

from tests.factories import contract
from tests.fakes import FakeModelServer
from tests.integration.gateway.conftest import Building, Door
from tests.integration.gateway.fleet import WHOLE
from tests.pictures import jpeg

PREDICTIONS = "/api/v1/models/cancer/predictions"


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when *condition* holds; fail when it does not within a minute."""
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.01)


async def metric(door: Door, name: str) -> dict[str, float]:
    """Return the values of a metric by its labels."""
    text = (await door.client.get("/metrics")).text
    return {labels: float(value) for labels, value in re.findall(rf"^{name}(\{{.*\}})? (.*)$", text, re.MULTILINE)}


async def predict(
    door: Door, seed: int = 0, *, query: str = "", headers: dict[str, str] | None = None
) -> httpx.Response:
    """Make a prediction of the model cancer as a new caller, unless the headers say who."""
    return await door.client.post(
        PREDICTIONS + query, files={"file": ("a.jpg", jpeg(seed))}, headers=door.authorization() | (headers or {})
    )


@pytest.fixture
async def second(building: Building) -> FakeModelServer:
    """Return a server of version 2."""
    return await building.model(contract(version=2))


async def with_version_two(building: Building, second: FakeModelServer, **traffic: object) -> Door:
    """Open a gateway that knows version 2, too, and wait until it can ask it."""
    split = {role: {"version": 2} | dict(part) for role, part in traffic.items()}  # type: ignore[call-overload]
    door = await building.door(cancer_traffic=split | {"versions": {"2": [second.address]}})

    async def both() -> bool:
        answer = await door.client.get("/api/v1/models/cancer", headers=door.authorization())
        return {one["version"] for one in answer.json()["versions"]} == {1, 2}

    await until(both)
    return door


async def test_canary_answers_its_share_and_says_so(building: Building, second: FakeModelServer) -> None:
    """The record names the version that answered; what the canary answered, the stable one is asked, too."""
    door = await with_version_two(building, second, canary={"percent": 50})
    second.probability = 0.2
    answers = [(await predict(door, seed)).json() for seed in range(40)]
    counted = Counter((answer["version"], answer["outcome"]) for answer in answers)
    assert set(counted) == {(1, "Positive"), (2, "Negative")}
    assert 8 <= counted[2, "Negative"] <= 32

    async def compared() -> bool:
        found = await metric(door, "healthguard_version_comparisons_total")
        differ = found.get('{model="cancer",result="differ",version="2"}', 0)
        dropped = found.get('{model="cancer",result="dropped",version="2"}', 0)
        return differ + dropped == counted[2, "Negative"] and differ > 0

    await until(compared)


async def test_canary_of_a_tenth_answers_a_tenth(building: Building, second: FakeModelServer) -> None:
    """Within what chance explains: over 5,000 requests between 8 and 12 percent."""
    door = await with_version_two(building, second, canary={"percent": 10})
    count, low, high = (5000, 0.08, 0.12) if WHOLE else (500, 0.05, 0.16)
    caller, picture = door.authorization() | {"Content-Type": "image/jpeg"}, jpeg(0, 224, 224)
    versions: Counter[int] = Counter()
    for _ in range(count // 10):
        asked = [door.client.post("/api/inference/predict", content=picture, headers=caller) for _ in range(10)]
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
    text = (await door.client.get("/metrics")).text
    for version, made in re.findall(r'healthguard_predictions_total\{.*version="(\d)"\} (\S+)', text):
        versions[int(version)] += int(float(made))
    assert versions.total() == count
    assert low <= versions[2] / count <= high


async def test_sticky_canary_keeps_its_callers(building: Building, second: FakeModelServer) -> None:
    """Each caller has one version, however often they ask."""
    door = await with_version_two(building, second, canary={"percent": 50, "sticky": True})
    versions = set()
    for _ in range(12):
        caller = door.authorization()
        own = {(await predict(door, seed, headers=caller)).json()["version"] for seed in range(3)}
        assert len(own) == 1
        versions |= own
    assert versions == {1, 2}


async def test_canary_that_is_away_costs_nobody_an_answer(building: Building, second: FakeModelServer) -> None:
    """The stable version answers for it, and readiness is that of the stable one."""
    door = await with_version_two(building, second, canary={"percent": 100})
    assert (await predict(door)).json()["version"] == 2
    second.state = "UNLOADING"

    async def stable_answers() -> bool:
        return bool((await predict(door)).json()["version"] == 1)

    await until(stable_answers)
    assert (await door.ready())["status"] == "ready"


async def test_shadow_is_asked_beside_and_its_answers_are_only_compared(
    building: Building, second: FakeModelServer
) -> None:
    """Agreement and distance are counted; the client hears of the stable version alone."""
    door = await with_version_two(building, second, shadow={"percent": 100})
    second.probability = 0.7
    for seed in range(3):
        answer = (await predict(door, seed)).json()
        assert (answer["version"], round(answer["score"], 3)) == (1, 0.9)

        async def compared(count: int = seed + 1) -> bool:
            return second.predict_calls == count

        await until(compared)

    async def counted() -> bool:
        found = await metric(door, "healthguard_version_comparisons_total")
        return found == {'{model="cancer",result="agree",version="2"}': 3.0}

    await until(counted)
    assert (await metric(door, "healthguard_version_score_difference_sum"))['{model="cancer",version="2"}'] == (
        pytest.approx(0.6, abs=1e-3)
    )


async def test_busy_shadow_is_left_alone(building: Building, second: FakeModelServer) -> None:
    """One that hangs holds a few questions and no more; answers come as if it were not there, and drops are counted."""
    door = await with_version_two(building, second, shadow={"percent": 100})
    second.hold = asyncio.Event()
    for seed in range(10):
        assert (await predict(door, seed)).status_code == 201

    async def dropped() -> bool:
        found = await metric(door, "healthguard_version_comparisons_total")
        return found.get('{model="cancer",result="dropped",version="2"}') == 6.0

    await until(dropped)
    assert second.predict_calls <= 4
    second.hold.set()


async def test_shadow_that_fails_is_counted_and_nothing_else(building: Building, second: FakeModelServer) -> None:
    """Its bad day is not the clients'."""
    door = await with_version_two(building, second, shadow={"percent": 100})
    second.failures = [grpc.StatusCode.INTERNAL]
    assert (await predict(door)).status_code == 201

    async def counted() -> bool:
        found = await metric(door, "healthguard_version_comparisons_total")
        return found.get('{model="cancer",result="failed",version="2"}') == 1.0

    await until(counted)
    assert await metric(door, "healthguard_prediction_failures_total") == {}


async def test_calls_are_measured_by_version(building: Building, second: FakeModelServer) -> None:
    """What a rollout is judged by: calls for scores, those that failed, and those that held none; heat maps are not."""
    door = await with_version_two(building, second, canary={"percent": 100})
    version = 'model="cancer",version="2"'
    assert (await predict(door, query="?explain=true")).status_code == 201
    second.failures = [grpc.StatusCode.INTERNAL]
    assert (await predict(door, 1)).status_code == 500
    second.probability = float("nan")
    assert (await predict(door, 2)).status_code == 500
    calls = await metric(door, "healthguard_model_call_duration_seconds_count")
    assert calls[f"{{{version}}}"] == 3
    assert await metric(door, "healthguard_model_call_failures_total") == {
        f'{{code="INTERNAL",{version}}}': 1,
        f'{{code="BAD_SCORES",{version}}}': 1,
    }


async def test_clients_deadline_reaches_the_model(door: Door) -> None:
    """Half a second means half a second, though the gateway would wait for ten; the version is not judged by it."""
    door.cancer.hold = asyncio.Event()
    loop = asyncio.get_running_loop()
    started = loop.time()
    response = await predict(door, headers={"X-Request-Timeout": "0.5"})
    assert response.status_code == 504
    assert loop.time() - started < 5
    assert await metric(door, "healthguard_model_call_duration_seconds_count") == {}
    door.cancer.hold.set()


@pytest.mark.parametrize("value", ["0", "-1", "5e-324", "0.09", "soon", "nan", "1e9"])
async def test_deadline_that_is_none_is_refused(door: Door, value: str) -> None:
    """And not taken for no deadline."""
    assert (await predict(door, headers={"X-Request-Timeout": value})).status_code == 422


async def test_explanation_comes_as_numbers(door: Door) -> None:
    """On the contract's grid, 0..255; without being asked for it, there is none and the model is not asked."""
    assert (await predict(door)).json()["explanation"] is None
    assert door.cancer.explain_calls == 0
    door.cancer.heat = 0.2
    found = (await predict(door, query="?explain=true")).json()
    assert found["explanation"] == {"method": "grad-cam", "rows": 7, "columns": 7, "heat": [[51] * 7] * 7}


async def test_explanation_comes_as_a_picture(door: Door) -> None:
    """For who asks for PNG: of the model's size, with the place of the record that was stored all the same."""
    caller = door.authorization()
    response = await predict(door, query="?explain=true", headers={"Accept": "image/png"} | caller)
    assert (response.status_code, response.headers["Content-Type"]) == (201, "image/png")
    assert np.asarray(Image.open(io.BytesIO(response.content))).shape == (224, 224, 3)
    stored = await door.client.get(response.headers["Location"], headers=caller)
    assert stored.json()["outcome"] == "Positive"


async def test_explanation_that_is_none_leaves_no_record(door: Door) -> None:
    """Who asked for both gets both or a problem."""
    door.cancer.heat = float("nan")
    caller = door.authorization()
    assert (await predict(door, query="?explain=true", headers=caller)).status_code == 500
    assert (await door.client.get("/api/v1/predictions", headers=caller)).json()["items"] == []


async def test_model_without_explanations_says_so(building: Building) -> None:
    """Before anything is stored; without being asked for one it answers."""
    door = await building.door(cancer_contract=contract(explain={"method": "none", "grid": []}))
    assert (await predict(door, query="?explain=true")).json()["type"].endswith(":no-explanation")
    assert (await predict(door)).status_code == 201


async def test_same_pixels_are_asked_once_and_recorded_twice(building: Building) -> None:
    """The second answer is marked, has the same scores, and is a record of its own."""
    door = await building.door(answers_kept_max=10)
    first, again, other = [await predict(door, seed) for seed in (1, 1, 2)]
    assert door.cancer.predict_calls == 2
    assert [answer.json()["cached"] for answer in (first, again, other)] == [False, True, False]
    assert again.headers["Cache-Status"] == "HealthGuard; hit"
    assert "Cache-Status" not in first.headers
    assert first.json()["id"] != again.json()["id"]
    assert first.json()["score"] == again.json()["score"]
    assert (await metric(door, "healthguard_prediction_cache_total"))['{model="cancer",result="hit"}'] == 1.0


async def test_score_that_is_no_probability_is_not_kept(building: Building) -> None:
    """A model that has recovered is asked again."""
    door = await building.door(answers_kept_max=10)
    door.cancer.probability = 1.5
    assert (await predict(door, 1)).status_code == 500
    door.cancer.probability = 0.9
    assert (await predict(door, 1)).status_code == 201


async def test_rate_is_told_and_holds(building: Building) -> None:
    """On every answer to a caller, by who they are; another caller is not concerned."""
    door = await building.door(requests_per_minute=2)
    caller = door.authorization()
    answers = [await door.client.get("/api/v1/models", headers=caller) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert all(answer.headers["RateLimit-Policy"] == '"caller";q=2;w=60' for answer in answers)
    assert [answer.headers["RateLimit"].partition(";t=")[0] for answer in answers] == [
        *('"caller";r=1', '"caller";r=0', '"caller";r=0')
    ]
    assert int(answers[2].headers["Retry-After"]) in range(1, 61)
    assert (await door.client.get("/api/v1/models", headers=door.authorization())).status_code == 200


async def test_metrics_tell_version_caller_and_phase(door: Door) -> None:
    """One prediction is in each of them, and nobody's name is."""
    await predict(door)
    assert (await metric(door, "healthguard_prediction_callers_total")) == {
        '{caller="patient",model="cancer",version="1"}': 1.0
    }
    phases = await metric(door, "healthguard_prediction_phase_seconds_count")
    for phase in ("read", "queue", "decode", "inference", "save"):
        assert phases[f'{{model="cancer",phase="{phase}",version="1"}}'] == 1.0
    assert (await metric(door, "healthguard_predictions_in_flight_limit"))['{model="cancer"}'] == 64.0

    async def lag_is_measured() -> bool:
        return (await metric(door, "healthguard_event_loop_lag_seconds_count"))[""] > 0

    await until(lag_is_measured)
