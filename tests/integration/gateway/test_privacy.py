"""What identifies a person, and what a finding is, stays out of logs, metrics and errors."""

import pytest

from healthguard.tokens import Role
from tests.integration.gateway.conftest import Door
from tests.pictures import jpeg

PATIENT, FILENAME, SCORE = "H-4711-0815", "Erika-Mustermann.jpg", 0.8765432


async def test_logs_metrics_and_errors_hold_nothing_of_a_person(door: Door, capfd: pytest.CaptureFixture[str]) -> None:
    """Good and bad requests of a doctor about a patient; then everything that was written is searched."""
    door.cancer.probability = SCORE
    authorization = door.authorization(role=Role.DOCTOR)
    headers = authorization | {"X-Patient": PATIENT, "Idempotency-Key": "key-of-the-client"}
    path = "/api/v1/models/cancer/predictions"
    made = await door.client.post(path, files={"file": (FILENAME, jpeg())}, headers=headers)
    assert made.status_code == 201
    errors = [
        await door.client.post(path, files={"file": (FILENAME, jpeg(seed=2))}, headers=headers),
        await door.client.post(path, files={"file": (FILENAME, b"no image")}, headers=headers),
        await door.client.post(path, files={FILENAME: (FILENAME, b"")}, headers=headers),
        await door.client.post(f"/api/v1/models/{PATIENT}/predictions", headers=headers),
        await door.client.get(f"/api/v1/predictions/{PATIENT}?patient={PATIENT}", headers=headers),
        await door.client.post("/api/predictions", json={"prediction": PATIENT, FILENAME: 1}, headers=headers),
    ]
    assert {response.status_code // 100 for response in errors} == {4}
    metrics = (await door.client.get("/metrics")).text
    written = capfd.readouterr()
    assert "request_served" in written.out
    everything = "\n".join([written.out, written.err, metrics, *(response.text for response in errors)])
    token = authorization["Authorization"].removeprefix("Bearer ")
    for secret in (
        PATIENT,
        "Erika",
        str(SCORE)[:6],
        token,
        "key-of-the-client",
        door.settings.records_secret.get_secret_value(),
    ):
        assert secret not in everything
