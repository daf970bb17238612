"""The gateway speaks TLS to the model servers that it means and to nobody else; certificates are replaced in use."""

import asyncio
import datetime
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.concurrency import ConcurrencyLimit
from gateway.discovery import DeclaredModel, Endpoint
from gateway.model_tls import ModelTls
from gateway.served import ServedModels
from gateway.traffic import Traffic
from healthguard.install.certificates import Pair, issue, make_authority
from tests import committed
from tests.integration.gateway.stack import free_port, process, until_listening, write_server_config

NAME = "model-cancer-v1.clinic.svc"
WAIT_S = 60.0


@dataclass
class Files:
    """PEM files of one folder, and the authority that signed them."""

    folder: Path
    authority: Pair = field(default_factory=lambda: make_authority(_now()))

    def write(self, name: str, pair: Pair) -> None:
        """Write a certificate and its key."""
        (self.folder / f"{name}.crt").write_bytes(pair.certificate)
        (self.folder / f"{name}.key").write_bytes(pair.key)

    def issue(self, name: str, dns: str, *, client: bool = False) -> None:
        """Write a certificate for *dns*, and its key."""
        self.write(name, issue(self.authority, [dns], _now(), client=client))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def files() -> Iterator[Files]:
    """Return the authority's, the server's and the gateway's files."""
    folder = Path(tempfile.mkdtemp(prefix="hg-tls-"))
    found = Files(folder)
    found.write("ca", found.authority)
    found.write("stranger-ca", make_authority(_now()))
    found.issue("server", NAME)
    found.issue("gateway", "gateway.clinic.svc", client=True)
    yield found
    shutil.rmtree(folder)


def pem(path: Path) -> str:
    """Return a file as a string of the text format of protobuf."""
    return '"' + path.read_text().replace("\n", "\\n") + '"'


@pytest.fixture(scope="module", params=[False, True], ids=["server", "mutual"])
def server(request: pytest.FixtureRequest, files: Files) -> Iterator[tuple[str, bool]]:
    """Run the real model server with TLS; return its address, and whether it asks who is there."""
    port, folder = free_port(), files.folder
    config = folder / f"ssl-{request.param}.config"
    config.write_text(
        f"server_key: {pem(folder / 'server.key')}\nserver_cert: {pem(folder / 'server.crt')}\n"
        f"custom_ca: {pem(folder / 'ca.crt')}\nclient_verify: {str(request.param).lower()}\n"
    )
    flags = [f"--port={port}", f"--ssl_config_file={config}", f"--model_config_file={write_server_config(folder)}"]
    with process("serving.modelserver", folder, args=flags):
        until_listening(port, folder)
        yield f"127.0.0.1:{port}", request.param


@asynccontextmanager
async def served(tls: ModelTls | None, address: str, name: str = NAME) -> AsyncIterator[ServedModels]:
    """Keep the model cancer at *address*."""
    kept = ServedModels(interval_s=0.2, timeout_s=5.0, new_limit=lambda: ConcurrencyLimit(8, 1.0), tls=tls, drain_s=0.5)
    version = committed.version("cancer")
    kept.apply([DeclaredModel("cancer", Traffic(version), {version: (Endpoint(address, name),)})])
    try:
        yield kept
    finally:
        await kept.close()


def available(kept: ServedModels) -> bool:
    """Tell whether the model can be asked."""
    return kept.models["cancer"].versions[committed.version("cancer")].contract() is not None


async def until(condition: Callable[[], bool]) -> None:
    """Return when *condition* holds; fail when it does not in time."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def trust(files: Files, ca: str = "ca", *, client: bool = True) -> ModelTls:
    """Return the gateway's trust."""
    if not client:
        return ModelTls(files.folder / f"{ca}.crt")
    return ModelTls(files.folder / f"{ca}.crt", files.folder / "gateway.crt", files.folder / "gateway.key")


async def test_server_with_the_right_name_is_asked(files: Files, server: tuple[str, bool]) -> None:
    """By an address that its certificate does not name: pods have addresses of a day."""
    async with served(trust(files), server[0]) as kept:
        await until(lambda: available(kept))


async def test_gateway_without_a_certificate_is_let_in_only_where_none_is_asked_for(
    files: Files, server: tuple[str, bool]
) -> None:
    """Mutual TLS is the server's choice, and holds."""
    async with served(trust(files, client=False), server[0]) as kept:
        await refused_or(kept, available_after=not server[1])


@pytest.mark.parametrize("wrong", ["name", "authority", "plaintext"])
async def test_whoever_is_not_meant_is_never_asked(files: Files, server: tuple[str, bool], wrong: str) -> None:
    """A server of another name, one of another authority; and nothing is said in the clear to one that speaks TLS."""
    tls = {"name": trust(files), "authority": trust(files, "stranger-ca"), "plaintext": None}[wrong]
    name = "model-anemia-v1.clinic.svc" if wrong == "name" else NAME
    async with served(tls, server[0], name) as kept:
        await refused_or(kept, available_after=False)


async def refused_or(kept: ServedModels, *, available_after: bool) -> None:
    """Wait until the server was asked; then it is available, or was found unreachable."""
    (replica,) = kept.models["cancer"].replicas
    await until(lambda: replica.trouble != "not_asked_yet")
    assert available(kept) is available_after
    assert replica.trouble == (None if available_after else "model_server_unreachable")


async def test_new_certificates_are_used_without_a_gap(files: Files, server: tuple[str, bool], tmp_path: Path) -> None:
    """The second connection stands before the first one goes; broken files leave all as it was."""
    for name in ("ca.crt", "gateway.crt", "gateway.key"):
        shutil.copy(files.folder / name, tmp_path / name)
    tls = ModelTls(tmp_path / "ca.crt", tmp_path / "gateway.crt", tmp_path / "gateway.key")
    async with served(tls, server[0]) as kept:
        await until(lambda: available(kept))
        (first,) = kept.models["cancer"].replicas
        gaps = 0

        def replaced() -> bool:
            nonlocal gaps
            gaps += not available(kept)
            return kept.models["cancer"].replicas[-1] is not first and len(kept.models["cancer"].replicas) == 1

        renewing = asyncio.create_task(kept.renew_certificates(0.05))
        (tmp_path / "ca.crt").write_text("half of a file")
        await asyncio.sleep(0.2)
        assert kept.models["cancer"].replicas == [first]
        both = files.folder / "ca.crt", files.folder / "stranger-ca.crt"
        (tmp_path / "ca.crt").write_bytes(b"".join(path.read_bytes() for path in both))
        await until(replaced)
        renewing.cancel()
    assert gaps == 0
