"""
Every path of the two replaced applications, to the letter of docs/existing-api.md, on the whole stack: real auth,
records and model server, each its own process, and the committed models.
"""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests import committed
from tests.integration.gateway.stack import Stack
from tests.pictures import encoded

UTC_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def golden(model: str, label: str) -> Path:
    """Return a golden picture of one class."""
    folder = committed.folder(model) / "assets.extra" / "golden"
    cases = json.loads((folder / "cases.json").read_text())["cases"]
    return folder / str(next(case["file"] for case in cases if case["label"] == label))


def upload(path: Path) -> dict[str, Any]:
    """Return httpx arguments that send the picture as the old clients do."""
    return {"files": {"file": (path.name, path.read_bytes(), "image/png")}}


def photograph() -> bytes:
    """Return a picture that is like nothing the models know: a checkerboard in colours."""
    board = np.indices((224, 224)).sum(axis=0) // 16 % 2
    colours = np.array([[255, 0, 255], [0, 255, 0]], dtype=np.uint8)
    return encoded(colours[board], "PNG")


def test_register_login_verify(stack: Stack) -> None:
    """201 with id, e-mail and date; 409 the second time; a token by JSON and by form; verify tells whose it is."""
    credentials = stack.register()
    with stack.client() as client:
        again = client.post("/api/auth/register", json=credentials)
        assert again.status_code == 409
        by_json = client.post("/api/auth/login", json=credentials)
        form = {"username": credentials["email"], "password": credentials["password"]}
        by_form = client.post("/api/auth/login", data=form)
        for login in (by_json, by_form):
            assert login.status_code == 200
            assert login.json()["token_type"] == "bearer"
            assert login.json()["expires_in"] == 3600
        wrong = client.post("/api/auth/login", json=credentials | {"password": "not the password"})
        assert wrong.status_code == 401
    with stack.client(by_form.json()["access_token"]) as client:
        verified = client.get("/api/auth/verify")
    assert verified.status_code == 200
    body = verified.json()
    assert body["valid"] is True
    assert (body["email"], body["role"]) == (credentials["email"], "patient")
    assert isinstance(body["user_id"], int)
    assert datetime.fromisoformat(body["expires_at"]).tzinfo is not None
    with stack.client("not.a.token") as client:
        assert client.get("/api/auth/verify").status_code == 401


def test_register_answers_id_email_created_at(stack: Stack) -> None:
    """The three fields that clients know, no more."""
    with stack.client() as client:
        response = client.post(
            "/api/auth/register", json={"email": "fields@example.org", "password": "a long password"}
        )
    assert response.status_code == 201
    assert response.json().keys() == {"id", "email", "created_at"}
    assert isinstance(response.json()["id"], int)


@pytest.mark.parametrize("label", ["Positive", "Negative"])
def test_inference_predict_answers_and_stores_nothing(client: httpx.Client, label: str) -> None:
    """Exactly the three old fields; the history stays empty."""
    path = golden("cancer", label)
    response = client.post("/api/inference/predict", **upload(path))
    assert response.status_code == 200
    assert response.json().keys() == {"prediction", "confidence", "filename"}
    assert (response.json()["prediction"], response.json()["filename"]) == (label, path.name)
    assert 0.5 <= response.json()["confidence"] <= 1
    assert client.get("/api/predictions").json() == []


def test_predict_and_save_answers_prediction_and_record(client: httpx.Client) -> None:
    """201 with both; the record is in the history."""
    path = golden("cancer", "Positive")
    response = client.post("/api/workflow/predict-and-save", **upload(path))
    assert response.status_code == 201
    prediction, record = response.json()["prediction"], response.json()["record"]
    assert prediction.keys() == {"prediction", "confidence", "filename"}
    assert {"id", "prediction", "confidence", "filename", "created_at"} <= record.keys()
    assert isinstance(record["id"], int)
    assert {name: record[name] for name in prediction} == prediction
    assert client.get(f"/api/predictions/{record['id']}").json() == record


def test_client_records_are_kept_listed_corrected_and_removed(client: httpx.Client) -> None:
    """The data paths: 201, newest first with X-Total-Count, any of three fields corrected, 204 and gone."""
    made = [
        client.post("/api/predictions", json={"prediction": name, "confidence": 0.5 + n / 10, "filename": f"{n}.png"})
        for n, name in enumerate(["Positive", "Negative", "Negative"])
    ]
    assert [response.status_code for response in made] == [201, 201, 201]
    assert {response.json()["source"] for response in made} == {"client"}
    listed = client.get("/api/predictions", params={"skip": 1, "limit": 1})
    assert listed.headers["X-Total-Count"] == "3"
    assert listed.json() == [made[1].json()]
    number = made[0].json()["id"]
    corrected = client.put(f"/api/predictions/{number}", json={"prediction": "Negative"})
    assert corrected.status_code == 200
    assert (corrected.json()["prediction"], corrected.json()["filename"]) == ("Negative", "0.png")
    removed = client.delete(f"/api/predictions/{number}")
    assert (removed.status_code, removed.content) == (204, b"")
    assert client.get(f"/api/predictions/{number}").status_code == 404


def test_statistics_have_the_old_fields(client: httpx.Client) -> None:
    """One of three is positive."""
    for name in ("Positive", "Negative", "Negative"):
        client.post("/api/predictions", json={"prediction": name, "confidence": 0.9, "filename": "a.png"})
    response = client.get("/api/predictions/stats/summary")
    assert response.status_code == 200
    assert response.json() == {"total": 3, "positive": 1, "negative": 2, "positive_percentage": pytest.approx(33.33)}


@pytest.mark.parametrize("label", ["LOW", "MEDIUM", "HIGH"])
def test_predict_answers_the_old_risk_fields_and_stores(client: httpx.Client, label: str) -> None:
    """Lower-case risk, whole seconds in UTC, an id with its prefix; the same stands in the results."""
    response = client.post("/api/predict", **upload(golden("anemia", label)))
    assert response.status_code == 200
    body = response.json()
    assert body.keys() == {
        "condition",
        "risk_level",
        "confidence",
        "recommendation",
        "analysis_date",
        "message_id",
    }
    assert (body["condition"], body["risk_level"]) == ("anemia", label.lower())
    assert 0 <= body["confidence"] <= 1
    assert UTC_SECONDS.fullmatch(body["analysis_date"])
    assert body["message_id"].startswith("pred_")
    results = client.get("/api/results")
    assert results.status_code == 200
    assert [{name: result[name] for name in body} for result in results.json()] == [body]


def test_results_are_newest_first(client: httpx.Client) -> None:
    """Two predictions, the later one first."""
    made = [client.post("/api/predict", **upload(golden("anemia", label))).json() for label in ("LOW", "HIGH")]
    listed = [result["message_id"] for result in client.get("/api/results").json()]
    assert listed == [made[1]["message_id"], made[0]["message_id"]]


@pytest.mark.parametrize("path", ["/api/predict", "/api/inference/predict", "/api/workflow/predict-and-save"])
def test_picture_unlike_any_is_a_422_and_is_not_stored(client: httpx.Client, path: str) -> None:
    """The old paths have no such answer; they get a problem instead of a number dressed as a finding."""
    response = client.post(path, files={"file": ("board.png", photograph(), "image/png")})
    assert response.status_code == 422
    assert response.json()["type"] == "urn:healthguard:problem:indeterminate"
    assert client.get("/api/v1/predictions").json()["items"] == []


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_paths_answer_200(stack: Stack, path: str) -> None:
    """They are for people and monitors, and need no token."""
    with stack.client() as client:
        assert client.get(path).status_code == 200


def test_metrics_have_the_old_names(client: httpx.Client) -> None:
    """Counter, histogram and request counters, as old dashboards ask for them."""
    client.post("/api/predict", **upload(golden("anemia", "LOW")))
    text = client.get("/metrics").text
    for name in (
        'healthguard_predictions_total{condition="anemia"',
        'healthguard_prediction_duration_seconds_bucket{condition="anemia"',
        'healthguard_api_requests_total{endpoint="/api/predict",method="POST"}',
        "# TYPE healthguard_api_errors_total counter",
    ):
        assert name in text


@pytest.mark.parametrize("model", ["cancer", "anemia"])
def test_golden_pictures_of_both_models_are_stored_as_what_they_are(client: httpx.Client, model: str) -> None:
    """Every golden picture of the version, through the whole path: its class, and its probability within tolerance."""
    folder = committed.folder(model) / "assets.extra" / "golden"
    document = json.loads((folder / "cases.json").read_text())
    for case in document["cases"]:
        response = client.post(f"/api/v1/models/{model}/predictions", **upload(folder / case["file"]))
        assert response.status_code == 201
        assert response.json()["outcome"] == case["label"]
        assert response.json()["score"] == pytest.approx(case["probability"], abs=document["tolerance"])
        assert response.json()["ood_score"] == pytest.approx(case["ood_score"], rel=0.01)
