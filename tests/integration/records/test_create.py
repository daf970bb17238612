"""Saving a model's answer: who may, what is stored, and what a repeat does."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest

from records.settings import RecordsSettings
from tests.asgi import client_of
from tests.factories import model_answer, risk_answer
from tests.integration.records.service import ANONYMOUS, FROM_GATEWAY, problem, records_app, save
from tests.issuer import Issuer

URL = "/v1/predictions"


async def test_create_stores_what_the_model_answered(client: httpx.AsyncClient, issuer: Issuer) -> None:
    """A 201 has the whole record, and the same record is there to read afterwards."""
    me = issuer.authorization()
    answer = model_answer()

    created = await client.post(URL, json=answer, headers=me | FROM_GATEWAY)

    record = created.json()
    assert created.status_code == 201
    assert {name: record[name] for name in answer} == answer
    assert (record["source"], record["review_state"], record["number"]) == ("model", "preliminary", 1)
    assert uuid.UUID(record["id"]).version == 7
    assert record["created_at"].endswith("Z")
    assert (await client.get(f"{URL}/{record['id']}", headers=me)).json() == record


async def test_create_names_no_owner(client: httpx.AsyncClient, issuer: Issuer) -> None:
    """Who asked is stored and never told, not even to themselves."""
    me = str(uuid.uuid4())

    record = await save(client, issuer.authorization(sub=me))

    assert "owner" not in record
    assert me not in str(record)


@pytest.mark.parametrize("sent", [{}, {"X-HealthGuard-Gateway": "x" * 32}, {"X-HealthGuard-Gateway": ""}], ids=str)
async def test_create_is_for_the_gateway_alone(
    client: httpx.AsyncClient, issuer: Issuer, database: Any, sent: dict[str, str]
) -> None:
    """A token alone does not make a model's answer: who could post one could forge a finding."""
    refused = await client.post(URL, json=model_answer(), headers=issuer.authorization("doctor") | sent)

    assert problem(refused) == (403, "gateway-only")
    assert await database.fetchval("select count(*) from predictions") == 0


async def test_create_needs_a_caller_beside_the_gateway(client: httpx.AsyncClient) -> None:
    """The gateway speaks for somebody, or says that it is for nobody."""
    assert problem(await client.post(URL, json=model_answer(), headers=FROM_GATEWAY)) == (401, "unauthorized")


async def test_create_for_nobody_when_the_gateway_vouches(client: httpx.AsyncClient, database: Any) -> None:
    """An anonymous prediction has no owner."""
    created = await client.post(URL, json=risk_answer(), headers=ANONYMOUS)

    assert created.status_code == 201
    assert await database.fetch("select owner, model from predictions") == [(None, "anemia")]


async def test_create_with_a_bad_token_is_never_anonymous(client: httpx.AsyncClient) -> None:
    """An expired token must not turn a person's finding into nobody's."""
    sent = ANONYMOUS | Issuer().authorization("patient")

    assert problem(await client.post(URL, json=model_answer(), headers=sent)) == (401, "unauthorized")


@pytest.mark.parametrize(
    "overrides",
    [{"exp": 1}, {"iss": "another"}, {"aud": "another"}, {"sub": "nobody"}, {"role": "root"}],
    ids=str,
)
async def test_create_refuses_a_token_that_does_not_hold(
    client: httpx.AsyncClient, issuer: Issuer, overrides: dict[str, Any]
) -> None:
    """Expired, of another issuer, for another audience, of no person, of no role."""
    sent = {"Authorization": f"Bearer {issuer.token(**({'role': 'patient'} | overrides))}"} | FROM_GATEWAY

    assert problem(await client.post(URL, json=model_answer(), headers=sent)) == (401, "unauthorized")


async def test_create_keeps_the_patient_number_apart_and_encrypted(
    client: httpx.AsyncClient, issuer: Issuer, database: Any
) -> None:
    """Beside the finding stands the pseudonym; the number is nowhere in the open."""
    doctor = issuer.authorization("doctor")

    record = await save(client, doctor, patient="MRN-4711-0815", site="north")
    again = await save(client, doctor, patient="MRN-4711-0815", site="north")

    assert record["patient"] == again["patient"]
    assert "4711" not in str(record)
    stored = await database.fetch("select p::text as row from predictions p union all select p::text from patients p")
    assert len(stored) == 3
    assert not any("4711" in row["row"] for row in stored)
    assert b"4711" not in await database.fetchval("select number_encrypted from patients")


@pytest.mark.parametrize("role", ["patient", "admin", None])
async def test_create_about_a_patient_is_not_for_everybody(
    client: httpx.AsyncClient, issuer: Issuer, database: Any, role: str | None
) -> None:
    """Only doctors name a patient: a finding that another forges must not stand in that patient's history."""
    sent = ANONYMOUS if role is None else FROM_GATEWAY | issuer.authorization(role)

    refused = await client.post(URL, json=model_answer(patient="4711"), headers=sent)

    assert problem(refused) == (403, "patient-not-allowed")
    assert await database.fetchval("select count(*) from patients") == 0


@pytest.mark.parametrize("secret", ["MRN-4711", "holiday-\u0007.png"])
async def test_create_echoes_nothing_that_it_refuses(client: httpx.AsyncClient, issuer: Issuer, secret: str) -> None:
    """A refusal names the field and what is wrong there, never the value."""
    body = model_answer(filename=secret, outcome=secret, nothing_of_ours=secret) | {secret: 1}

    refused = await client.post(URL, json=body, headers=issuer.authorization() | FROM_GATEWAY)

    assert problem(refused) == (422, "validation-failed")
    assert secret.strip("\u0007.png") not in refused.text


async def test_create_refuses_a_long_body(client: httpx.AsyncClient, issuer: Issuer) -> None:
    """Announced or not, more than the limit is not read."""

    async def endless() -> Any:
        while True:
            yield b" " * 8192

    sent = issuer.authorization() | FROM_GATEWAY
    announced = await client.post(URL, content=b" " * 40_000, headers=sent)
    streamed = await client.post(URL, content=endless(), headers=sent)

    assert problem(announced) == problem(streamed) == (413, "payload-too-large")


# --- Idempotency-Key


async def test_repeat_under_a_key_gets_the_first_record(
    client: httpx.AsyncClient, issuer: Issuer, database: Any
) -> None:
    """Even where the repeat was answered by another version: one image, one record."""
    me = issuer.authorization()
    image = "ab" * 32

    first = await save(client, me, "k-1", image_hmac=image)
    again = await save(client, me, "k-1", image_hmac=image, version=2, score=0.91)

    assert again == first
    assert await database.fetchval("select count(*) from predictions") == 1


@pytest.mark.parametrize("other", [{"image_hmac": "cd" * 32}, {"model": "another"}, {"patient": "4712"}], ids=str)
async def test_key_is_refused_for_something_else(
    client: httpx.AsyncClient, issuer: Issuer, other: dict[str, Any]
) -> None:
    """Another image, model or patient under a used key is a mistake, and the earlier record is no answer to it."""
    doctor = issuer.authorization("doctor")
    asked = {"image_hmac": "ab" * 32, "patient": "4711"}
    await save(client, doctor, "k-1", **asked)

    body = model_answer(**(asked | other))
    refused = await client.post(URL, json=body, headers=doctor | FROM_GATEWAY | {"Idempotency-Key": "k-1"})

    assert problem(refused) == (422, "idempotency-mismatch")


async def test_key_of_another_caller_is_another_key(client: httpx.AsyncClient, issuer: Issuer) -> None:
    """Two people may choose the same key, and neither gets the other's record."""
    image = "ab" * 32

    mine = await save(client, issuer.authorization(), "k-1", image_hmac=image)
    theirs = await save(client, issuer.authorization(), "k-1", image_hmac=image)

    assert mine["id"] != theirs["id"]


async def test_anonymous_repeat_gets_the_first_record(client: httpx.AsyncClient) -> None:
    """The gateway may repeat a save for nobody, too."""
    image = "ab" * 32
    sent = ANONYMOUS | {"Idempotency-Key": "k-1"}

    first = await client.post(URL, json=risk_answer(image_hmac=image), headers=sent)
    again = await client.post(URL, json=risk_answer(image_hmac=image), headers=sent)

    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()


async def test_many_repeats_at_once_make_one_record(settings: RecordsSettings, issuer: Issuer, database: Any) -> None:
    """The others wait for the first to commit and get its record; two replicas share nothing but the database."""
    await database.execute("truncate predictions, patients, idempotency_keys")
    me = issuer.authorization()
    image = "ab" * 32
    async with client_of(records_app(settings, issuer)) as one, client_of(records_app(settings, issuer)) as two:
        for key in map(str, range(10)):
            repeats = (save(client, me, key, image_hmac=image) for client in (one, two) * 4)
            found = await asyncio.gather(*repeats)
            assert len({record["id"] for record in found}) == 1

    assert await database.fetchval("select count(*) from predictions") == 10


async def test_failed_save_does_not_use_its_key_up(client: httpx.AsyncClient, issuer: Issuer, database: Any) -> None:
    """Key and record are one transaction: where the record did not come about, the key is free."""
    await database.execute("alter table predictions add constraint broken check (filename <> 'broken.png')")
    sent = issuer.authorization() | FROM_GATEWAY | {"Idempotency-Key": "k-1"}
    body = model_answer(filename="broken.png")
    try:
        failed = await client.post(URL, json=body, headers=sent)
    finally:
        await database.execute("alter table predictions drop constraint broken")

    assert problem(failed) == (500, "internal-error")
    assert (await client.post(URL, json=body, headers=sent)).status_code == 201


async def test_key_past_its_life_makes_a_new_record(client: httpx.AsyncClient, issuer: Issuer, database: Any) -> None:
    """A day later the same key is a new one."""
    me = issuer.authorization()
    image = "ab" * 32
    first = await save(client, me, "k-1", image_hmac=image)
    await database.execute("update idempotency_keys set created_at = now() - interval '25 hours'")

    second = await save(client, me, "k-1", image_hmac=image)

    assert second["id"] != first["id"]


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 129, "é"])
async def test_key_is_bounded(client: httpx.AsyncClient, issuer: Issuer, key: str) -> None:
    """A key is at most 128 visible ASCII characters."""
    sent = issuer.authorization() | FROM_GATEWAY
    headers = [*(pair for pair in sent.items()), ("Idempotency-Key", key.encode())]

    refused = await client.post(URL, json=model_answer(), headers=headers)  # type: ignore[arg-type]  # bytes are taken

    assert problem(refused) == (422, "validation-failed")


async def test_saved_are_counted_once_they_are_stored(client: httpx.AsyncClient, issuer: Issuer) -> None:
    """By source, and neither repeats nor failures."""
    me = issuer.authorization()
    await save(client, me, "k-1", image_hmac="ab" * 32)
    await save(client, me, "k-1", image_hmac="ab" * 32)
    await client.post("/predictions", json={"prediction": "Positive", "confidence": 1, "filename": "a"}, headers=me)

    metrics = (await client.get("/metrics")).text

    assert 'healthguard_records_saved_total{source="model"} 1.0' in metrics
    assert 'healthguard_records_saved_total{source="client"} 1.0' in metrics


async def test_clients_own_record_is_stored_once_under_a_key(client: httpx.AsyncClient, issuer: Issuer) -> None:
    """A repeat answers with the first row; the same key for another record is refused; another person has their own."""
    me, record = issuer.authorization(), {"prediction": "Positive", "confidence": 0.9, "filename": "a.png"}
    keyed = me | {"Idempotency-Key": "k-1"}
    first, again = [await client.post("/predictions", json=record, headers=keyed) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    for change in ({"prediction": "Negative"}, {"confidence": 0.8}, {"filename": "b.png"}):
        refused = await client.post("/predictions", json=record | change, headers=keyed)
        assert problem(refused) == (422, "idempotency-mismatch")
    other = await client.post("/predictions", json=record, headers=issuer.authorization() | {"Idempotency-Key": "k-1"})
    assert other.json()["id"] != first.json()["id"]
    assert len((await client.get("/predictions", headers=me)).json()) == 1


def together(*saves: tuple[str | None, dict[str, Any]]) -> dict[str, Any]:
    """Return the body that stores several answers, each with its caller's token."""
    return {"saves": [{"token": token, "record": record} for token, record in saves]}


async def test_together_stores_each_for_its_own_caller(client: httpx.AsyncClient, issuer: Issuer) -> None:
    """What comes back is in the order of what was sent, and each caller finds theirs and no other's."""
    ann, ben = issuer.token(), issuer.token("patient", sub=str(uuid.uuid4()))
    answers = [model_answer(filename="ann.png"), risk_answer(filename="ben.png"), model_answer(filename="anyone.png")]

    created = await client.post(
        f"{URL}/together", json=together(*zip((ann, ben, None), answers, strict=True)), headers=FROM_GATEWAY
    )

    saved = created.json()["saved"]
    assert created.status_code == 201
    assert [record["filename"] for record in saved] == ["ann.png", "ben.png", "anyone.png"]
    assert sorted(record["number"] for record in saved) == [1, 2, 3]
    for token, record in zip((ann, ben), saved, strict=False):
        listed = (await client.get(URL, headers={"Authorization": f"Bearer {token}"})).json()["items"]
        assert listed == [record]


async def test_together_knows_the_patients(client: httpx.AsyncClient, issuer: Issuer) -> None:
    """A doctor's patients have the pseudonyms that they have anywhere, also two of one patient at once."""
    doctor = issuer.authorization("doctor")
    token = doctor["Authorization"].removeprefix("Bearer ")
    alone = await save(client, doctor, patient="4711")

    created = await client.post(
        f"{URL}/together",
        json=together(*((token, model_answer(patient=number)) for number in ("4711", "4712", "4711"))),
        headers=FROM_GATEWAY,
    )

    pseudonyms = [record["patient"] for record in created.json()["saved"]]
    assert pseudonyms == [alone["patient"], pseudonyms[1], alone["patient"]]
    assert pseudonyms[1] not in (None, alone["patient"])


@pytest.mark.parametrize("wrong", ["token", "record", "patient"])
async def test_together_stores_all_or_none(
    client: httpx.AsyncClient, issuer: Issuer, database: Any, wrong: str
) -> None:
    """One that is refused leaves nothing of the others: the gateway then sends each by itself."""
    token, answer = issuer.token(), model_answer()
    bad = {
        "token": ("e30.e30.e30", answer),
        "record": (token, answer | {"score": 2.0}),
        "patient": (token, answer | {"patient": "4711"}),
    }[wrong]

    refused = await client.post(f"{URL}/together", json=together((token, answer), bad), headers=FROM_GATEWAY)

    assert (
        problem(refused)
        == {
            "token": (401, "unauthorized"),
            "record": (422, "validation-failed"),
            "patient": (403, "patient-not-allowed"),
        }[wrong]
    )
    assert await database.fetchval("select count(*) from predictions") == 0


async def test_together_is_for_the_gateway_alone(client: httpx.AsyncClient, issuer: Issuer) -> None:
    """Tokens alone store nothing."""
    body = together((issuer.token("doctor"), model_answer()))
    assert problem(await client.post(f"{URL}/together", json=body)) == (403, "gateway-only")
