"""With certificates, records serves its gateway and nobody else, whatever secret and token they have."""

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from healthguard.install.certificates import Pair, issue, make_authority
from healthguard.serve import DrainingServer, server_config
from healthguard.tls import trusting
from records.settings import RecordsSettings
from tests.factories import model_answer
from tests.integration.records.service import ANONYMOUS, FROM_GATEWAY, problem, records_app
from tests.issuer import Issuer

NOW = datetime.datetime.now(datetime.UTC)
AUTHORITY = make_authority(NOW)
GATEWAY = issue(AUTHORITY, ["hg-gateway.clinic.svc"], NOW, client=True)
MODELS = issue(AUTHORITY, ["hg-models.clinic.svc"], NOW, client=True)
PATHS = ("/v1/predictions", "/v1/predictions/stats/summary", "/predictions", "/results")


def write(folder: Path, pair: Pair) -> tuple[Path, Path]:
    """Write a certificate and its key, and return where they are."""
    folder.mkdir(exist_ok=True)
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)
    return folder / "tls.crt", folder / "tls.key"


@pytest.fixture
async def url(settings: RecordsSettings, issuer: Issuer, empty_tables: None, tmp_path: Path) -> AsyncIterator[str]:
    """Run the service under its own server, with TLS."""
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.certificate)
    certificate, key = write(tmp_path / "records", issue(AUTHORITY, ["localhost"], NOW))
    named: dict[str, Any] = {"gateway_name": "hg-gateway.clinic.svc", "tls_client_ca_file": tmp_path / "ca.crt"}
    changed = settings.model_copy(update={"tls_cert_file": certificate, "tls_key_file": key, **named})
    app = records_app(changed, issuer)
    server = DrainingServer(server_config(app, changed), app.state.health, 0)
    async with running(server) as port:
        yield f"https://localhost:{port}"


@asynccontextmanager
async def running(server: DrainingServer) -> AsyncIterator[int]:
    """Serve on a free port for the block; yield the port."""
    server.config.host, server.config.port = "127.0.0.1", 0
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(30):
            while not server.started:
                assert not task.done()
                await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


def client(url: str, folder: Path, pair: Pair | None) -> httpx.AsyncClient:
    """Return a client that shows *pair*."""
    shown = write(folder / "client", pair) if pair else (None, None)
    return httpx.AsyncClient(base_url=url, verify=trusting(folder / "ca.crt", *shown), trust_env=False)


async def test_gateway_writes_and_reads(url: str, issuer: Issuer, tmp_path: Path) -> None:
    """The certificate, the secret and the person's token together store a model's answer; and it is read back."""
    async with client(url, tmp_path, GATEWAY) as gateway:
        headers = {"Authorization": f"Bearer {issuer.token('doctor')}"}
        made = await gateway.post("/v1/predictions", json=model_answer(), headers=headers | FROM_GATEWAY)
        assert made.status_code == 201, made.text
        assert (await gateway.get(f"/v1/predictions/{made.json()['id']}", headers=headers)).json() == made.json()
        refused = await gateway.post("/v1/predictions", json=model_answer(), headers=headers)
        assert problem(refused) == (403, "gateway-only")


@pytest.mark.parametrize(
    "pair", [pytest.param(None, id="without a certificate"), pytest.param(MODELS, id="with a model server's")]
)
async def test_nobody_else_does(url: str, issuer: Issuer, tmp_path: Path, pair: Pair | None) -> None:
    """Not even who has learnt the secret and holds an administrator's token; the kubelet is let in to ask how it is."""
    async with client(url, tmp_path, pair) as somebody:
        headers = {"Authorization": f"Bearer {issuer.token('admin')}"}
        for sent in (headers | FROM_GATEWAY, ANONYMOUS):
            made = await somebody.post("/v1/predictions", json=model_answer(), headers=sent)
            assert problem(made) == (403, "gateway-only")
        for path in PATHS:
            assert problem(await somebody.get(path, headers=headers)) == (403, "gateway-only"), path
        assert (await somebody.get("/livez")).status_code == 200
        assert (await somebody.get("/health/ready")).status_code == 200


async def test_a_plaintext_client_is_refused(url: str) -> None:
    """The port speaks TLS alone."""
    async with httpx.AsyncClient(base_url=url.replace("https", "http"), trust_env=False) as plain:
        with pytest.raises(httpx.TransportError):
            await plain.get("/livez")


async def test_a_client_that_knows_another_name_refuses_the_server(url: str, tmp_path: Path) -> None:
    """The certificate is for localhost, and 127.0.0.1 is somebody else."""
    async with client(url.replace("localhost", "127.0.0.1"), tmp_path, GATEWAY) as gateway:
        with pytest.raises(httpx.ConnectError, match="IP address mismatch"):
            await gateway.get("/livez")
