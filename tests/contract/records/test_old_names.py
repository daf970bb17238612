"""The replaced applications' data paths, to the letter: their clients go on working (docs/existing-api.md)."""

import re
from typing import Any

import httpx
import pytest

from tests.factories import risk_answer
from tests.integration.records.service import problem, save
from tests.issuer import Issuer

POSTED = {"prediction": "Positive", "confidence": 0.9, "filename": "a.png"}
OLD_FIELDS = {"id", "prediction", "confidence", "filename", "created_at"}


@pytest.fixture
def me(issuer: Issuer) -> dict[str, str]:
    """Return the headers of one patient."""
    return issuer.authorization("patient")


async def post(client: httpx.AsyncClient, me: dict[str, str], **changes: Any) -> dict[str, Any]:
    """Store a client's record."""
    created = await client.post("/predictions", json=POSTED | changes, headers=me)
    assert created.status_code == 201, created.text
    record: dict[str, Any] = created.json()
    return record


async def test_post_makes_a_record_of_the_client(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """201, the old fields, an integer id; and it says that no model is behind it."""
    record = await post(client, me)

    assert set(record) - OLD_FIELDS == {"source", "uuid"}
    assert {name: record[name] for name in POSTED} == POSTED
    assert isinstance(record["id"], int)
    assert record["source"] == "client"
    shown = (await client.get(f"/v1/predictions/{record['uuid']}", headers=me)).json()
    assert (shown["source"], shown["model"], shown["score"]) == ("client", None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prediction": "positive"},
        {"prediction": "HIGH"},
        {"confidence": 1.1},
        {"confidence": None},
        {"filename": ""},
        {"filename": "a\u0000.png"},
        {"filename": "x" * 256},
    ],
    ids=str,
)
async def test_post_refuses(client: httpx.AsyncClient, me: dict[str, str], wrong: dict[str, Any]) -> None:
    """Values that the old application's rules do not allow either."""
    refused = await client.post("/predictions", json=POSTED | wrong, headers=me)

    assert problem(refused) == (422, "validation-failed")


async def test_list_is_newest_first_with_its_total(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """skip and limit cut a page out of it; X-Total-Count is of the whole."""
    records = [await post(client, me, filename=f"{n}.png") for n in range(5)]

    whole = await client.get("/predictions", headers=me)
    part = await client.get("/predictions?skip=1&limit=2", headers=me)

    assert whole.json() == records[::-1]
    assert part.json() == records[::-1][1:3]
    assert whole.headers["x-total-count"] == part.headers["x-total-count"] == "5"


async def test_list_has_the_binary_findings_only(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """A risk, an unknown image, or another model's finding has no word here: neither listed, counted nor found."""
    finding = await save(client, me)
    risk = await save(client, me, **risk_answer())
    unknown = await save(client, me, outcome="Indeterminate", confidence=None)
    third = await save(client, me, model="pneumonia")

    listed = await client.get("/predictions", headers=me)

    assert [record["id"] for record in listed.json()] == [finding["number"]]
    assert listed.headers["x-total-count"] == "1"
    for absent in (risk, unknown, third):
        assert problem(await client.get(f"/predictions/{absent['number']}", headers=me)) == (404, "not-found")


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "skip=-1", "skip=1000001", "limit=x"])
async def test_list_is_bounded(client: httpx.AsyncClient, me: dict[str, str], query: str) -> None:
    """A page outside the bounds is a 422."""
    assert problem(await client.get(f"/predictions?{query}", headers=me)) == (422, "validation-failed")


@pytest.mark.parametrize("change", [{"prediction": "Negative"}, {"confidence": 0.5}, {"filename": "b.png"}], ids=str)
async def test_put_takes_any_of_the_three(
    client: httpx.AsyncClient, me: dict[str, str], change: dict[str, Any]
) -> None:
    """The others stay."""
    record = await post(client, me)

    corrected = await client.put(f"/predictions/{record['id']}", json=change, headers=me)

    assert corrected.status_code == 200
    assert corrected.json() == record | change
    assert (await client.get(f"/predictions/{record['id']}", headers=me)).json() == record | change


async def test_put_on_a_models_answer_makes_it_the_clients(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """The client gets what it asked for, and the row no longer passes for a model's output."""
    made = await save(client, me)

    corrected = await client.put(f"/predictions/{made['number']}", json={"prediction": "Negative"}, headers=me)

    assert (corrected.json()["prediction"], corrected.json()["source"]) == ("Negative", "client")


async def test_delete_answers_204_and_the_record_is_gone(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """Without a body; a second time it is a 404."""
    record = await post(client, me)
    path = f"/predictions/{record['id']}"

    removed = await client.delete(path, headers=me)

    assert (removed.status_code, removed.content) == (204, b"")
    assert problem(await client.delete(path, headers=me)) == (404, "not-found")


@pytest.mark.parametrize("number", ["0", "-1", "9223372036854775808", "x", "1.5"])
async def test_id_is_an_integer(client: httpx.AsyncClient, me: dict[str, str], number: str) -> None:
    """Any other is a problem, also one that the database's integers could not hold."""
    assert problem(await client.get(f"/predictions/{number}", headers=me)) == (422, "validation-failed")


@pytest.mark.parametrize(
    ("outcomes", "percentage"),
    [([], 0.0), (["Positive"], 100.0), (["Positive", "Negative", "Negative"], 33.33)],
    ids=["none", "all positive", "a third"],
)
async def test_summary_is_the_old_one(
    client: httpx.AsyncClient, me: dict[str, str], outcomes: list[str], percentage: float
) -> None:
    """Clients' records and models' answers together, as it always was; nothing else is counted."""
    for outcome in outcomes:
        await save(client, me, outcome=outcome)
    await save(client, me, **risk_answer())
    await save(client, me, outcome="Indeterminate", confidence=None)
    await save(client, me, model="pneumonia")

    summary = (await client.get("/predictions/stats/summary", headers=me)).json()

    assert summary == {
        "total": len(outcomes),
        "positive": outcomes.count("Positive"),
        "negative": outcomes.count("Negative"),
        "positive_percentage": percentage,
    }


async def test_results_are_the_anemia_history(client: httpx.AsyncClient, me: dict[str, str]) -> None:
    """Newest first, with the old application's words and form of time."""
    await save(client, me, **risk_answer(outcome="LOW"))
    newest = await save(client, me, **risk_answer(outcome="HIGH", recommendation="See a doctor."))
    await save(client, me)
    await save(client, me, **risk_answer(model="stroke"))

    results = (await client.get("/results", headers=me)).json()

    assert [result["risk_level"] for result in results] == ["high", "low"]
    date = results[0].pop("analysis_date")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", date)
    assert date[:-1] == newest["created_at"][: len(date) - 1]
    assert results[0] == {
        "condition": "anemia",
        "risk_level": "high",
        "confidence": 0.78,
        "recommendation": "See a doctor.",
        "message_id": "pred_" + newest["id"].replace("-", ""),
        "source": "model",
    }
