"""A prediction from the upload to the stored record, through a real gateway and real records."""

import hashlib
import hmac

import numpy as np
import pytest

from gateway.contracts import InputSpec
from gateway.images import check, decode
from healthguard.tokens import Role
from tests.integration.gateway.conftest import Building, Door
from tests.pictures import jpeg, png

SPEC = InputSpec(height=224, width=224, channels="RGB", resize="area", fit="stretch")


async def test_prediction_is_stored_and_found_at_its_location(door: Door) -> None:
    """What a 201 says is what the history has, under the address of the Location header."""
    caller = door.authorization()
    response = await door.client.post(
        "/api/v1/models/cancer/predictions", files={"file": ("left.jpg", jpeg())}, headers=caller
    )
    assert response.status_code == 201
    made = response.json()
    assert (made["model"], made["version"], made["outcome"], made["source"]) == ("cancer", 1, "Positive", "model")
    assert made["score"] == pytest.approx(0.9)
    assert made["confidence"] == pytest.approx(0.9)
    assert made["filename"] == "left.jpg"
    assert made["weights_digest"] == door.cancer.contract["weights_digest"]
    assert made["timings"].keys() == {"read_ms", "decode_ms", "inference_ms"}
    found = await door.client.get(response.headers["Location"], headers=caller)
    assert found.status_code == 200
    of_this_answer_alone = {"cached": False, "explanation": None}
    assert found.json() | of_this_answer_alone == made


async def test_raw_body_is_the_same_picture_as_a_form_field(door: Door) -> None:
    """Both ways of sending give the model the same pixels, and the record the same keyed hash of them."""
    content = png(seed=5)
    form = await door.predict(content)
    raw = await door.client.post(
        "/api/v1/models/cancer/predictions",
        content=content,
        headers=door.authorization() | {"Content-Type": "image/png"},
    )
    assert raw.status_code == 201
    first, second = door.cancer.images
    np.testing.assert_array_equal(first, second)
    assert raw.json()["image_hmac"] == form.json()["image_hmac"]
    pixels = decode(check(content, pixels_max=10**6), SPEC)
    np.testing.assert_array_equal(first[0], pixels)
    message = b"".join(side.to_bytes(4) for side in pixels.shape) + pixels.tobytes()
    expected = hmac.new(door.settings.hmac_key(), message, hashlib.sha256).hexdigest()
    assert raw.json()["image_hmac"] == expected


async def test_image_unlike_the_training_data_is_indeterminate(door: Door) -> None:
    """Above the contract's limit there is no finding and no confidence; the record says so, too."""
    door.cancer.ood_score = 12.4
    response = await door.predict(jpeg())
    assert response.status_code == 201
    assert response.json()["outcome"] == "Indeterminate"
    assert response.json()["confidence"] is None


async def test_trace_leads_to_the_model_server(door: Door) -> None:
    """A caller's trace is that of the call for scores; without one there is none."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for seed, sent in enumerate(({"traceparent": trace}, {})):
        await door.client.post(
            "/api/v1/models/cancer/predictions",
            files={"file": ("a.jpg", jpeg(seed))},
            headers=door.authorization() | sent,
        )
    assert door.cancer.traceparents == [trace, None]


async def test_idempotency_key_stores_once(door: Door) -> None:
    """The same key and image again give the first record; the same key with another image is refused."""
    headers = door.authorization() | {"Idempotency-Key": "k-1"}

    async def send(seed: int) -> tuple[int, str]:
        response = await door.client.post(
            "/api/v1/models/cancer/predictions", files={"file": ("a.jpg", jpeg(seed))}, headers=headers
        )
        body = response.json()
        return response.status_code, body["id"] if response.status_code == 201 else body["type"]

    first, again, other = await send(1), await send(1), await send(2)
    assert first[0] == 201
    assert again == first
    assert other == (422, "urn:healthguard:problem:idempotency-mismatch")


@pytest.mark.parametrize("in_header", [True, False], ids=["in a header", "in a form field"])
async def test_doctor_names_a_patient_who_is_stored_as_a_pseudonym(door: Door, in_header: bool) -> None:
    """The hospital's number goes in, a pseudonym comes back, the same for the same patient."""
    response = await door.client.post(
        "/api/v1/models/cancer/predictions",
        files={"file": ("a.jpg", jpeg())},
        data={} if in_header else {"patient": "H-4711"},
        headers=door.authorization(role=Role.DOCTOR) | ({"X-Patient": "H-4711"} if in_header else {}),
    )
    assert response.status_code == 201
    assert response.json()["patient"]
    assert "4711" not in response.text


async def test_patient_may_not_name_a_patient(door: Door) -> None:
    """A forged finding would stand in somebody's history."""
    response = await door.predict(jpeg(), **{"X-Patient": "H-4711"})
    assert response.status_code == 403
    assert door.cancer.predict_calls == 0


async def test_patient_named_twice_differently_is_refused(door: Door) -> None:
    """Form field and header must agree."""
    response = await door.client.post(
        "/api/v1/models/cancer/predictions",
        files={"file": ("a.jpg", jpeg())},
        data={"patient": "H-1"},
        headers=door.authorization(role=Role.DOCTOR) | {"X-Patient": "H-2"},
    )
    assert response.status_code == 422
    assert "H-1" not in response.text


async def test_risk_confidence_comes_from_the_contracts_table(door: Door) -> None:
    """0.5 lies in the second bin of the table, and between the thresholds."""
    door.anemia.probability = 0.5
    response = await door.predict(jpeg(), model="anemia")
    assert (response.json()["outcome"], response.json()["confidence"]) == ("MEDIUM", 0.6)


async def test_models_are_described_with_state_and_contract(door: Door) -> None:
    """The list and the single model say the same; a token is needed."""
    listed = await door.client.get("/api/v1/models", headers=door.authorization())
    single = await door.client.get("/api/v1/models/cancer", headers=door.authorization())
    assert single.json() in listed.json()["models"]
    assert single.json()["versions"] == [{"version": 1, "state": "AVAILABLE", "replicas": 1}]
    told = single.json()["contract"]
    assert told["explain"] == door.cancer.contract["explain"] | {"reason": None}
    assert told == door.cancer.contract | {"explain": told["explain"], "limitations": []}
    assert (await door.client.get("/api/v1/models")).status_code == 401


async def test_metrics_count_predictions_under_old_and_new_names(door: Door) -> None:
    """Dashboards of the replaced application find their series; phases and outcomes stand beside them."""
    await door.predict(jpeg())
    text = (await door.client.get("/metrics")).text
    for line in (
        'healthguard_predictions_total{condition="cancer",outcome="Positive",version="1"} 1.0',
        'healthguard_prediction_duration_seconds_count{condition="cancer"} 1.0',
        'healthguard_api_requests_total{endpoint="/api/v1/models/{model}/predictions",method="POST"} 1.0',
        *(
            f'healthguard_prediction_phase_seconds_count{{model="cancer",phase="{phase}",version="1"}} 1.0'
            for phase in ("read", "queue", "decode", "inference", "save")
        ),
    ):
        assert line in text


async def test_answers_carry_security_headers(door: Door) -> None:
    """Findings are kept by no cache, and no browser guesses what an answer is."""
    response = await door.predict(jpeg())
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Request-Id"]


async def test_cors_answers_only_origins_of_the_list(building: Building) -> None:
    """A page of another origin gets no permission."""
    door = await building.door(cors_origins=["https://clinic.example"])
    for origin, allowed in (("https://clinic.example", "https://clinic.example"), ("https://evil.example", None)):
        response = await door.client.get("/health", headers={"Origin": origin})
        assert response.headers.get("Access-Control-Allow-Origin") == allowed


async def test_faults_of_ours_carry_the_same_headers(building: Building, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page can read a 500, and no cache keeps it."""

    def fault(*_: object) -> None:
        raise RuntimeError

    door = await building.door(cors_origins=["https://clinic.example"])
    monkeypatch.setattr("gateway.routes.models.describe", fault)
    headers = door.authorization() | {"Origin": "https://clinic.example"}
    response = await door.client.get("/api/v1/models", headers=headers)
    assert (response.status_code, response.json()["type"]) == (500, "urn:healthguard:problem:internal-error")
    assert response.headers["Access-Control-Allow-Origin"] == "https://clinic.example"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Request-Id"] == response.json()["request_id"]
