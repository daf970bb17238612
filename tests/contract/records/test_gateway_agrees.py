"""The gateway's own idea of a record fits what records takes and gives; the two share no types."""

import httpx

from gateway.schemas import Prediction
from tests.factories import risk_answer
from tests.integration.records.service import save
from tests.issuer import Issuer


async def test_gateway_reads_every_kind_of_record(client: httpx.AsyncClient, issuer: Issuer) -> None:
    """A model's answer, an Indeterminate one, one about a patient, one that a client posted, and one corrected."""
    doctor = issuer.authorization("doctor")
    await save(client, doctor)
    await save(client, doctor, **risk_answer(patient="4711", site="north"))
    await save(client, doctor, outcome="Indeterminate", confidence=None, filename=None)
    corrected = await save(client, doctor)
    await client.put(f"/v1/predictions/{corrected['id']}", json={"outcome": "Negative"}, headers=doctor)
    await client.post("/predictions", json={"prediction": "Positive", "confidence": 1, "filename": "a"}, headers=doctor)

    listed = (await client.get("/v1/predictions", headers=doctor)).json()["items"]

    assert len(listed) == 5
    for record in listed:
        assert str(Prediction.model_validate(record).id) == record["id"]
