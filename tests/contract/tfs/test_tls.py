"""--ssl_config_file: the gRPC API speaks TLS, and nobody gets in without it."""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format

from healthguard.install.certificates import Pair, issue, make_authority
from serving.tfs.ssl_config_pb2 import SSLConfig
from tests.contract.tfs.harness import QUICK, Server, add_version, floats, folder, ours, request, running, wait_until
from tests.contract.tfs.stubs import PredictionServiceStub

NOW = datetime.datetime.now(datetime.UTC)
NAME = "models.test"
GOOD = request({"x": floats((1, 2))})

AUTHORITY, STRANGER = make_authority(NOW), make_authority(NOW)
SERVER = issue(AUTHORITY, [NAME], NOW)
CLIENT = issue(AUTHORITY, ["client.test"], NOW, client=True)


def ssl_config(pair: Pair, *, client_verify: bool = False) -> str:
    """Return the file's text."""
    config = SSLConfig(
        server_key=pair.key.decode(),
        server_cert=pair.certificate.decode(),
        custom_ca=AUTHORITY.certificate.decode(),
        client_verify=client_verify,
    )
    return text_format.MessageToString(config)


@contextmanager
def serving(home: Path, *, client_verify: bool = False) -> Iterator[Server]:
    """Run a server with TLS."""
    add_version(home / "arithmetic", 1)
    (home / "ssl.config").write_text(ssl_config(SERVER, client_verify=client_verify))
    flags = (f"--model_base_path={home / 'arithmetic'}", "--model_name=arithmetic")
    with running(*flags, f"--ssl_config_file={home / 'ssl.config'}", *QUICK, credentials=trusting()) as started:
        yield started


def trusting(authority: Pair = AUTHORITY, client: Pair | None = None) -> grpc.ChannelCredentials:
    """Return what a client connects with."""
    key, certificate = (client.key, client.certificate) if client else (None, None)
    return grpc.ssl_channel_credentials(authority.certificate, key, certificate)


def code_of(server: Server, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """Ask once over a new connection and return how it ended."""
    options = [("grpc.ssl_target_name_override", NAME)]
    channel = (
        grpc.secure_channel(server.address, credentials, options)
        if credentials
        else grpc.insecure_channel(server.address)
    )
    with channel:
        try:
            PredictionServiceStub(channel).Predict(GOOD, timeout=20)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Make a folder."""
    with folder() as path:
        yield path


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    """Run a server with TLS that asks for no client certificate."""
    with serving(home) as started:
        yield started


def test_tls_answers_who_trusts_the_certificate(server: Server) -> None:
    """A client with the authority's certificate is answered."""
    assert list(server.predict(GOOD).outputs["y"].float_val) == [2, 4]


def test_tls_refuses_plaintext_and_is_refused_by_strangers(server: Server) -> None:
    """A plaintext client gets nothing, and one who trusts another authority sends nothing."""
    assert code_of(server, None) is grpc.StatusCode.UNAVAILABLE
    assert code_of(server, trusting(STRANGER)) is grpc.StatusCode.UNAVAILABLE
    assert code_of(server, trusting()) is grpc.StatusCode.OK


def test_tls_asks_for_client_certificates_where_told_to() -> None:
    """With client_verify, only who holds a certificate of custom_ca is answered."""
    with folder() as home, serving(home, client_verify=True) as server:
        assert code_of(server, trusting()) is grpc.StatusCode.UNAVAILABLE
        assert code_of(server, trusting(client=issue(STRANGER, ["x.test"], NOW, client=True))) is (
            grpc.StatusCode.UNAVAILABLE
        )
        assert code_of(server, trusting(client=CLIENT)) is grpc.StatusCode.OK


@ours("the original reads the file once")
def test_tls_takes_renewed_certificates_without_a_restart(server: Server, home: Path) -> None:
    """A new certificate in the file serves the next connections; a broken file changes nothing."""
    file = home / "ssl.config"
    file.write_text("server_key: 'nothing of use'")
    assert code_of(server, trusting()) is grpc.StatusCode.OK
    wait_until(lambda: "tls_configuration_not_renewed" in server.log.read_text())
    file.write_text(ssl_config(issue(STRANGER, [NAME], NOW)))
    assert code_of(server, trusting(STRANGER)) is grpc.StatusCode.OK
    assert code_of(server, trusting()) is grpc.StatusCode.UNAVAILABLE
    file.write_text(ssl_config(SERVER))
    assert code_of(server, trusting()) is grpc.StatusCode.OK
    assert "PRIVATE KEY" not in server.log.read_text()
