"""Contexts of TLS: a certificate is renewed without a restart; a name is read from a checked certificate only."""

import datetime
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from healthguard import tls
from healthguard.install.certificates import Pair, issue, make_authority
from tests.handshake import shake_hands

NOW = datetime.datetime.now(datetime.UTC)
AUTHORITY = make_authority(NOW)
OTHER = make_authority(NOW)


def write(folder: Path, pair: Pair, *, tick: int = 0) -> tuple[Path, Path]:
    """Write a certificate and its key, as of *tick* nanoseconds after the epoch, and return where they are."""
    folder.mkdir(exist_ok=True)
    files = folder / "tls.crt", folder / "tls.key"
    for path, content in zip(files, (pair.certificate, pair.key), strict=True):
        path.write_bytes(content)
        os.utime(path, ns=(tick, tick))
    (folder / "ca.crt").write_bytes(AUTHORITY.certificate)
    return files


def shown_to(client: ssl.SSLContext, server: ssl.SSLContext) -> int:
    """Return the serial number of the certificate that *server* shows."""
    ends = shake_hands(client, server, "hg-auth")
    shown = ends[0].getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def serial(pair: Pair) -> int:
    """Return a certificate's serial number."""
    return x509.load_pem_x509_certificate(pair.certificate).serial_number


def test_server_shows_a_renewed_certificate_without_a_restart(tmp_path: Path) -> None:
    """The kubelet swaps a Secret's files: the next handshake has the new ones."""
    first, second = issue(AUTHORITY, ["hg-auth"], NOW), issue(AUTHORITY, ["hg-auth"], NOW)
    server = tls.serving(*write(tmp_path, first, tick=1))
    client = tls.trusting(tmp_path / "ca.crt")
    assert shown_to(client, server) == serial(first)
    write(tmp_path, second, tick=2)
    assert shown_to(client, server) == serial(second)


def test_half_of_a_renewal_changes_nothing(tmp_path: Path) -> None:
    """A certificate whose key is not there yet would end every handshake."""
    first, second = issue(AUTHORITY, ["hg-auth"], NOW), issue(AUTHORITY, ["hg-auth"], NOW)
    server = tls.serving(*write(tmp_path, first, tick=1))
    client = tls.trusting(tmp_path / "ca.crt")
    (tmp_path / "tls.crt").write_bytes(second.certificate)
    assert shown_to(client, server) == serial(first)
    (tmp_path / "tls.key").unlink()
    assert shown_to(client, server) == serial(first)
    write(tmp_path, second, tick=3)
    assert shown_to(client, server) == serial(second)


@pytest.mark.parametrize(
    ("pair", "names"),
    [
        pytest.param(None, set(), id="who shows none has no name, and is let in"),
        pytest.param(issue(AUTHORITY, ["hg-gateway"], NOW, client=True), {"hg-gateway"}, id="who shows one has its"),
    ],
)
def test_server_knows_its_client_by_name(tmp_path: Path, pair: Pair | None, names: set[str]) -> None:
    """The kubelet's probes have no certificate, so none is demanded by the handshake."""
    server = tls.serving(*write(tmp_path, issue(AUTHORITY, ["hg-auth"], NOW)), tmp_path / "ca.crt")
    shown = write(tmp_path / "client", pair) if pair else (None, None)
    ends = shake_hands(tls.trusting(tmp_path / "ca.crt", *shown), server, "hg-auth")
    assert tls.names_in(ends[1].getpeercert()) == names


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        pytest.param(issue(OTHER, ["hg-gateway"], NOW, client=True), "self-signed|unable to get", id="of others"),
        pytest.param(issue(AUTHORITY, ["hg-gateway"], NOW), "unsuitable certificate purpose", id="for servers only"),
    ],
)
def test_server_refuses_a_certificate_that_does_not_hold(tmp_path: Path, pair: Pair, reason: str) -> None:
    """Of another authority, or of a server whose key was taken to pass for the gateway."""
    server = tls.serving(*write(tmp_path, issue(AUTHORITY, ["hg-auth"], NOW)), tmp_path / "ca.crt")
    client = tls.trusting(tmp_path / "ca.crt", *write(tmp_path / "client", pair))
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        shake_hands(client, server, "hg-auth")


def test_peer_is_told_by_the_connection_alone() -> None:
    """A request without the extension, of a server without TLS, is nobody's."""
    assert tls.is_peer({"extensions": {tls.PEER: frozenset({"hg-gateway"})}}, "hg-gateway")
    assert not tls.is_peer({"extensions": {tls.PEER: frozenset({"hg-auth"})}}, "hg-gateway")
    assert not tls.is_peer({}, "hg-gateway")
