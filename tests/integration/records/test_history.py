"""The history in pages: newest first, whole, each row once."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.factories import risk_answer
from tests.integration.records.service import problem, save
from tests.issuer import Issuer

URL = "/v1/predictions"


@pytest.fixture
def me(issuer: Issuer) -> dict[str, str]:
    """Return the headers of one patient."""
    return issuer.authorization("patient")


async def walk(client: httpx.AsyncClient, me: dict[str, str], limit: int, **filters: str) -> list[dict[str, Any]]:
    """Return all rows, page by page."""
    rows: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": limit} | filters
    while True:
        found = await client.get(URL, params=query, headers=me)
        assert found.status_code == 200, found.text
        page = found.json()
        assert len(page["items"]) <= limit
        rows += page["items"]
        if page["next_cursor"] is None:
            return rows
        query["cursor"] = page["next_cursor"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 200])
async def test_pages_hold_every_row_once_newest_first(
    client: httpx.AsyncClient, me: dict[str, str], limit: int
) -> None:
    """Whatever the size of a page, also one that ends exactly at the last row."""
    saved = [await save(client, me) for _ in range(7)]

    assert await walk(client, me, limit) == saved[::-1]


async def test_pages_are_stable_under_inserts(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """A row that arrives between two pages neither repeats a row nor hides one; an offset would do both."""
    saved = [await save(client, me) for _ in range(4)]
    first = (await client.get(URL, params={"limit": 2}, headers=me)).json()
    await save(client, me)

    second = (await client.get(URL, params={"limit": 2, "cursor": first["next_cursor"]}, headers=me)).json()

    assert first["items"] + second["items"] == saved[::-1]


async def test_pages_part_rows_of_one_moment(client: httpx.AsyncClient, me: dict[str, str], database: Any) -> None:
    """Rows that were moved over from an old database may share a time: the id decides."""
    for _ in range(5):
        await save(client, me)
    await database.execute("update predictions set created_at = '2020-01-01T00:00:00Z'")

    assert len({row["id"] for row in await walk(client, me, 2)}) == 5


async def test_filters_narrow_the_history(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """By model, outcome and time, alone and together, on every page."""
    first = await save(client, me, outcome="Positive")
    second = await save(client, me, outcome="Negative")
    third = await save(client, me, **risk_answer())

    async def ids(**filters: str) -> list[str]:
        return [row["id"] for row in await walk(client, me, 1, **filters)]

    assert await ids(model="cancer") == [second["id"], first["id"]]
    assert await ids(outcome="Negative") == [second["id"]]
    assert await ids(model="anemia", outcome="Negative") == []
    assert await ids(created_from=second["created_at"]) == [third["id"], second["id"]]
    assert await ids(created_to=second["created_at"]) == [first["id"]]


@pytest.mark.parametrize("cursor", ["x", "A" * 54, "A" * 64])
async def test_cursor_that_is_none_is_a_400(client: httpx.AsyncClient, me: dict[str, str], cursor: str) -> None:
    """And says so in the form of a problem."""
    assert problem(await client.get(URL, params={"cursor": cursor}, headers=me)) == (400, "invalid-cursor")


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "cursor=" + "A" * 65, "skip=1", "created_from=x"])
async def test_query_is_bounded(client: httpx.AsyncClient, me: dict[str, str], query: str) -> None:
    """A query outside its bounds is a 422."""
    assert problem(await client.get(f"{URL}?{query}", headers=me)) == (422, "validation-failed")


async def test_summary_counts_by_source_model_and_outcome(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """What a client posted is never counted for a model, and neither is a model's answer that a client overwrote."""
    for outcome in ("Positive", "Positive", "Negative", "Indeterminate"):
        await save(client, me, outcome=outcome)
    overwritten = await save(client, me)
    await client.put(f"{URL}/{overwritten['id']}", json={"outcome": "Negative"}, headers=me)
    await client.post("/predictions", json={"prediction": "Positive", "confidence": 1, "filename": "a"}, headers=me)

    summary = (await client.get(f"{URL}/stats/summary", headers=me)).json()

    counts = {(row["source"], row["model"], row["outcome"]): row["count"] for row in summary["counts"]}
    assert summary["total"] == 6
    assert counts == {
        ("client", "cancer", "Negative"): 1,
        ("client", None, "Positive"): 1,
        ("model", "cancer", "Indeterminate"): 1,
        ("model", "cancer", "Negative"): 1,
        ("model", "cancer", "Positive"): 2,
    }


async def test_correction_is_stored_and_told(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """The corrected row is the one that is read from then on, with its time and source."""
    record = await save(client, me)
    before = datetime.now(UTC)

    corrected = await client.put(f"{URL}/{record['id']}", json={"outcome": "Negative", "confidence": 0.6}, headers=me)

    found = (await client.get(f"{URL}/{record['id']}", headers=me)).json()
    assert corrected.json() == found
    assert (found["outcome"], found["confidence"], found["source"]) == ("Negative", 0.6, "client")
    assert (found["score"], found["model"], found["recommendation"]) == (record["score"], "cancer", None)
    assert datetime.fromisoformat(found["corrected_at"]) >= before


async def test_correction_makes_no_finding_without_confidence(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """An Indeterminate row has none; who makes a finding of it says how sure they are."""
    record = await save(client, me, outcome="Indeterminate", confidence=None)
    path = f"{URL}/{record['id']}"

    assert problem(await client.put(path, json={"outcome": "Positive"}, headers=me)) == (422, "validation-failed")
    assert (await client.put(path, json={"filename": "b.png"}, headers=me)).status_code == 200
    assert (await client.put(path, json={"outcome": "Positive", "confidence": 1.0}, headers=me)).status_code == 200


@pytest.mark.parametrize(
    ("row", "outcome", "status"),
    [
        pytest.param({"outcome": "Positive"}, "Indeterminate", 200, id="a label of its task"),
        pytest.param({"outcome": "Positive"}, "HIGH", 422, id="a label of the other task"),
        pytest.param({"outcome": "Positive"}, "Benign", 422, id="a label of no task"),
        pytest.param(risk_answer(), "LOW", 200, id="a risk for a risk"),
        pytest.param(risk_answer(), "Negative", 422, id="a binary finding for a risk"),
        pytest.param({"model": "skin", "outcome": "Malignant"}, "Benign", 200, id="a model with labels of its own"),
        pytest.param({"model": "skin", "outcome": "Malignant"}, "a b!", 422, id="never free text"),
    ],
)
async def test_correction_takes_labels_of_the_rows_task(
    client: httpx.AsyncClient, me: dict[str, str], row: dict[str, Any], outcome: str, status: int
) -> None:
    """A word that no filter and no statistic knows would hide the row from them."""
    record = await save(client, me, **row)

    corrected = await client.put(f"{URL}/{record['id']}", json={"outcome": outcome}, headers=me)

    assert corrected.status_code == status
    found = (await client.get(f"{URL}/{record['id']}", headers=me)).json()
    assert found["outcome"] == (outcome if status == 200 else record["outcome"])


async def test_removed_row_is_gone(client: httpx.AsyncClient, me: dict[str, str], database: Any) -> None:
    """With its idempotency key: the same request again is a new one."""
    record = await save(client, me, "k-1")

    removed = await client.delete(f"{URL}/{record['id']}", headers=me)

    assert (removed.status_code, removed.content) == (204, b"")
    assert (await client.get(f"{URL}/{record['id']}", headers=me)).status_code == 404
    assert await database.fetchval("select count(*) from idempotency_keys") == 0


async def test_path_with_a_slash_too_many_is_not_found(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """A redirect would send the caller to whatever host the request names."""
    answer = await client.get(f"{URL}/", headers=me | {"Host": "host-canary.example"})

    assert problem(answer) == (404, "not-found")
    assert "host-canary" not in answer.text + str(answer.headers)


@pytest.mark.parametrize("record_id", ["1", "x", "../1", "6a4bd0a5"])
async def test_id_of_another_form_is_refused(client: httpx.AsyncClient, me: dict[str, str], record_id: str) -> None:
    """The v1 paths take UUIDs; anything else is a problem that repeats nothing."""
    answer = await client.get(f"{URL}/{record_id}", headers=me)

    assert problem(answer)[0] in {404, 422}


async def correct(client: httpx.AsyncClient, path: str, correction: dict[str, Any], headers: dict[str, str]) -> Any:
    """Correct a row under the key `k-1`, and return the answer."""
    return await client.put(path, json=correction, headers=headers | {"Idempotency-Key": "k-1"})


@pytest.mark.parametrize(("old", "name"), [(False, "outcome"), (True, "prediction")], ids=["v1", "old name"])
async def test_correction_again_under_its_key_undoes_no_later_one(
    client: httpx.AsyncClient, me: dict[str, str], database: Any, *, old: bool, name: str
) -> None:
    """A repeat that arrives late answers with the row as it is, and another row or correction is a mistake."""
    records = [await save(client, me), await save(client, me)]
    path, another = (f"/predictions/{each['number']}" if old else f"{URL}/{each['id']}" for each in records)

    first = await correct(client, path, {name: "Negative"}, me)
    await client.put(path, json={name: "Positive"}, headers=me)
    again = await correct(client, path, {name: "Negative"}, me)

    assert (first.status_code, first.json()[name]) == (200, "Negative")
    assert (again.status_code, again.json()[name]) == (200, "Positive")
    assert problem(await correct(client, path, {name: "Positive"}, me)) == (422, "idempotency-mismatch")
    assert problem(await correct(client, another, {name: "Negative"}, me)) == (422, "idempotency-mismatch")
    await database.execute("update idempotency_keys set created_at = now() - interval '25 hours'")
    assert (await correct(client, path, {name: "Negative"}, me)).json()[name] == "Negative"


async def test_key_of_a_save_is_none_of_a_correction(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """One key, one request: neither takes the other's answer for its own."""
    record = await save(client, me, "k-1")

    refused = await correct(client, f"{URL}/{record['id']}", {"outcome": "Negative"}, me)

    assert problem(refused) == (422, "idempotency-mismatch")


async def test_refused_correction_does_not_use_its_key_up(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """Key and correction are one transaction."""
    record = await save(client, me)
    path = f"{URL}/{record['id']}"

    assert problem(await correct(client, path, {"outcome": "HIGH"}, me)) == (422, "validation-failed")
    assert (await correct(client, path, {"outcome": "Negative"}, me)).status_code == 200


async def test_removed_row_is_not_found_by_a_repeated_correction(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """The key goes with the row; nothing is made anew."""
    record = await save(client, me)
    path = f"{URL}/{record['id']}"
    await correct(client, path, {"outcome": "Negative"}, me)
    await client.delete(path, headers=me)

    assert problem(await correct(client, path, {"outcome": "Negative"}, me)) == (404, "not-found")
