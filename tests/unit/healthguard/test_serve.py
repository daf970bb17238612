"""How a service listens."""

import asyncio
import ssl
from pathlib import Path

import pytest
from fastapi import FastAPI
from pydantic import ValidationError

from healthguard import serve, tls
from healthguard.install import certificates
from healthguard.serve import server_config
from healthguard.settings import Settings
from tests.unit.healthguard.install.test_certificates import NAMES, NOW


def test_server_listens_with_tls_where_a_certificate_is_set(tmp_path: Path) -> None:
    """The certificate's files become a context of TLS 1.2 or newer."""
    pair = certificates.issue(certificates.make_authority(NOW), NAMES, NOW)
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    config = server_config(FastAPI(), Settings(port=8000, tls_cert_file=certificate, tls_key_file=key))
    assert config.ssl is not None
    assert config.ssl.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_handshake_that_never_comes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's clocks begin after it; the loop's own would let a silent client stay for a minute."""
    monkeypatch.setattr(serve, "HANDSHAKE_S", 0.5)
    pair = certificates.issue(certificates.make_authority(NOW), NAMES, NOW)
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)

    async def silent() -> bytes:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=tls.serving(certificate, key))
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return answer

    with asyncio.Runner(loop_factory=serve.ServingLoop) as runner:
        assert runner.run(silent()) == b""


def test_server_listens_plainly_where_none_is_set() -> None:
    """As on one machine."""
    config = server_config(FastAPI(), Settings(port=8000))
    assert config.ssl is None


@pytest.mark.parametrize("alone", ["tls_cert_file", "tls_key_file"])
def test_half_a_pair_is_refused(alone: str) -> None:
    """Plain HTTP must not be what a forgotten key leads to."""
    with pytest.raises(ValidationError, match="belong together"):
        Settings.model_validate({"port": 8000, alone: "/etc/x"})
