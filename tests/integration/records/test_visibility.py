"""Who sees and changes what: another's record is as absent as one that never was."""

import uuid
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.factories import model_answer, risk_answer
from tests.integration.records.service import ANONYMOUS, problem, save
from tests.issuer import Issuer

HISTORIES = ("/v1/predictions", "/predictions", "/results")


@dataclass
class Rows:
    """One binary and one risk row of a patient and an admin each, and of nobody."""

    patient: dict[str, str]
    admin: dict[str, str]
    records: dict[str, dict[str, Any]]


@pytest.fixture
async def rows(client: httpx.AsyncClient, issuer: Issuer) -> Rows:
    """Store the rows."""
    patient, admin = issuer.authorization("patient"), issuer.authorization("admin")
    records = {}
    for name, headers in (("patient", patient), ("admin", admin)):
        records[name] = await save(client, headers)
        await save(client, headers, **risk_answer())
    records["nobody"] = (await client.post("/v1/predictions", json=model_answer(), headers=ANONYMOUS)).json()
    await client.post("/v1/predictions", json=risk_answer(), headers=ANONYMOUS)
    return Rows(patient, admin, records)


async def counts(client: httpx.AsyncClient, headers: dict[str, str]) -> list[int]:
    """Return how many rows each history, and each statistic, shows."""
    v1, old, results = [(await client.get(path, headers=headers)).json() for path in HISTORIES]
    totals = [(await client.get(f"{path}/stats/summary", headers=headers)).json()["total"] for path in HISTORIES[:2]]
    return [len(v1["items"]), len(old), len(results), *totals]


async def test_patients_and_admins_see_their_own_rows(client: httpx.AsyncClient, rows: Rows) -> None:
    """In every history and every statistic; an admin manages people and needs no findings for that."""
    assert await counts(client, rows.patient) == [2, 1, 1, 2, 1]
    assert await counts(client, rows.admin) == [2, 1, 1, 2, 1]


async def test_doctors_see_all_rows(client: httpx.AsyncClient, issuer: Issuer, rows: Rows) -> None:
    """Those of nobody, too."""
    assert await counts(client, issuer.authorization("doctor")) == [6, 3, 3, 6, 3]


async def test_strangers_see_nothing(client: httpx.AsyncClient, issuer: Issuer, rows: Rows) -> None:
    """A new patient has an empty history."""
    assert await counts(client, issuer.authorization("patient")) == [0, 0, 0, 0, 0]


async def test_anonymous_results_are_empty(client: httpx.AsyncClient, rows: Rows) -> None:
    """Nobody in particular owns nothing: not even other anonymous callers' results are shown."""
    answer = await client.get("/results", headers=ANONYMOUS)

    assert (answer.status_code, answer.json()) == (200, [])


async def test_anonymous_results_need_the_gateways_word(client: httpx.AsyncClient, rows: Rows) -> None:
    """Who says so themself is told to log in."""
    assert problem(await client.get("/results", headers={"X-HealthGuard-Anonymous": "1"})) == (401, "unauthorized")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("kind", ["v1", "old"])
@pytest.mark.parametrize("whose", ["admin", "nobody", "never"])
async def test_anothers_row_is_not_found(
    client: httpx.AsyncClient, rows: Rows, method: str, kind: str, whose: str
) -> None:
    """The answer for another's row and for one that never was is the same, byte for byte but for the request id."""
    never: dict[str, Any] = {"id": str(uuid.uuid4()), "number": 999_999}
    sent = {"filename": "mine-now.png"} if method == "PUT" else None

    async def ask(row: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        path = f"/v1/predictions/{row['id']}" if kind == "v1" else f"/predictions/{row['number']}"
        answer = await client.request(method, path, json=sent, headers=rows.patient)
        return answer.status_code, answer.json() | {"request_id": ""}

    found = await ask(rows.records.get(whose, never))

    assert found == await ask(never)
    assert found[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("kind", ["v1", "old"])
async def test_doctors_change_no_others_row(
    client: httpx.AsyncClient, issuer: Issuer, rows: Rows, method: str, kind: str
) -> None:
    """They may see it; another word on it is a review, not a correction."""
    row = rows.records["patient"]
    path = f"/v1/predictions/{row['id']}" if kind == "v1" else f"/predictions/{row['number']}"
    doctor = issuer.authorization("doctor")

    refused = await client.request(method, path, json={"filename": "b.png"}, headers=doctor)

    assert problem(refused) == (403, "not-the-owner")
    assert (await client.get(f"/v1/predictions/{row['id']}", headers=rows.patient)).json() == row


async def test_doctors_clear_up_the_rows_of_nobody(client: httpx.AsyncClient, issuer: Issuer, rows: Rows) -> None:
    """Nobody else could."""
    path = f"/v1/predictions/{rows.records['nobody']['id']}"

    assert (await client.delete(path, headers=issuer.authorization("doctor"))).status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/predictions"),
        ("GET", "/v1/predictions/stats/summary"),
        ("POST", "/v1/predictions/search"),
        ("GET", "/v1/predictions/6a4bd0a5-1f0b-7b6a-8df4-7d8a0a3b2c11"),
        ("PUT", "/v1/predictions/6a4bd0a5-1f0b-7b6a-8df4-7d8a0a3b2c11"),
        ("DELETE", "/v1/predictions/6a4bd0a5-1f0b-7b6a-8df4-7d8a0a3b2c11"),
        ("GET", "/predictions"),
        ("POST", "/predictions"),
        ("GET", "/predictions/stats/summary"),
        ("GET", "/predictions/1"),
        ("PUT", "/predictions/1"),
        ("DELETE", "/predictions/1"),
        ("GET", "/results"),
    ],
)
async def test_every_path_needs_a_token_that_holds(client: httpx.AsyncClient, method: str, path: str) -> None:
    """None, and one of another issuer."""
    for headers in ({}, Issuer().authorization("admin")):
        answer = await client.request(method, path, json={"filename": "a", "patient": "1"}, headers=headers)
        assert answer.status_code in {401, 422}
        if answer.status_code == 422:
            assert path == "/predictions"
            assert method == "POST"


async def test_search_finds_one_patients_rows(client: httpx.AsyncClient, issuer: Issuer) -> None:
    """By number and site, for whom may see them, and for nobody else."""
    doctor = issuer.authorization("doctor")
    about = [await save(client, doctor, patient="4711", site="north") for _ in range(3)]
    await save(client, doctor, patient="4711", site="south")
    await save(client, doctor)

    async def search(headers: dict[str, str], **asked: Any) -> list[str]:
        body = {"patient": "4711", "site": "north"} | asked
        answer = await client.post("/v1/predictions/search", json=body, headers=headers)
        return [item["id"] for item in answer.json()["items"]]

    assert await search(doctor) == [record["id"] for record in reversed(about)]
    assert await search(doctor, patient="4712") == []
    assert await search(issuer.authorization("patient")) == []


async def test_answers_with_findings_are_stored_by_nobody(client: httpx.AsyncClient, rows: Rows) -> None:
    """Browsers and proxies keep no copy."""
    for path in HISTORIES:
        assert (await client.get(path, headers=rows.patient)).headers["cache-control"] == "no-store"
