"""The installation's own authority: what it gives is trusted by name, for a time, and by those who know it."""

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from healthguard.install import certificates
from healthguard.install.certificates import LIFE, BadAuthority, Pair, is_due, issue, make_authority
from healthguard.tls import trusting
from tests.handshake import shake_hands

NOW = datetime.datetime.now(datetime.UTC)
NAMES = ["hg-auth", "hg-auth.clinic.svc"]


@pytest.fixture(scope="module")
def authority() -> Pair:
    """Return an authority."""
    return make_authority(NOW)


def test_certificate_is_for_servers_with_these_names_only(authority: Pair) -> None:
    """It can neither sign others nor speak for a client."""
    found = x509.load_pem_x509_certificate(issue(authority, NAMES, NOW).certificate)
    extensions = found.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert names == NAMES
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usages = list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usages == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_certificate_of_a_client_says_so(authority: Pair) -> None:
    """Only who has to call others with it may: a stolen key of another server would pass for nobody."""
    found = x509.load_pem_x509_certificate(issue(authority, NAMES, NOW, client=True).certificate)
    usages = list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usages == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize(
    ("age", "names", "due"),
    [
        pytest.param(datetime.timedelta(0), NAMES, False, id="a new one is kept"),
        pytest.param(LIFE * 0.6, NAMES, False, id="one in its middle is kept"),
        pytest.param(LIFE * 0.7, NAMES, True, id="one in its last third is replaced"),
        pytest.param(LIFE * 2, NAMES, True, id="an expired one is replaced"),
        pytest.param(datetime.timedelta(0), [*NAMES, "other"], True, id="one for other names is replaced"),
    ],
)
def test_certificate_is_replaced_when_it_is_due(
    authority: Pair, age: datetime.timedelta, names: list[str], due: bool
) -> None:
    """Pods restart with a certificate that holds for long."""
    assert is_due(issue(authority, NAMES, NOW - age).certificate, authority, names, NOW) is due


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_certificate_for_other_uses_is_replaced(authority: Pair, held: bool, wanted: bool) -> None:
    """Who becomes a client would be refused with its old one, and who is none any more could still pass for one."""
    certificate = issue(authority, NAMES, NOW, client=held).certificate
    assert is_due(certificate, authority, NAMES, NOW, client=wanted) is (held is not wanted)


def test_certificate_of_another_authority_is_replaced(authority: Pair) -> None:
    """Nobody would trust it."""
    other = make_authority(NOW)
    assert is_due(issue(other, NAMES, NOW).certificate, authority, NAMES, NOW)
    assert is_due(b"no certificate", authority, NAMES, NOW)


def test_broken_authority_is_refused_and_not_replaced() -> None:
    """A new one would be trusted by nobody who knows the old."""
    with pytest.raises(BadAuthority):
        certificates.issue(Pair(b"no", b"no"), NAMES, NOW)


def test_handshake_succeeds_for_the_name_and_fails_for_others(authority: Pair, tmp_path: Path) -> None:
    """Python's own TLS agrees, in memory, without a socket."""
    pair = issue(authority, NAMES, NOW)
    for name, content in (("ca.crt", authority.certificate), ("tls.crt", pair.certificate), ("tls.key", pair.key)):
        (tmp_path / name).write_bytes(content)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    client = trusting(tmp_path / "ca.crt")
    shake_hands(client, server, "hg-auth")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(client, server, "hg-records")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        shake_hands(trusting(None), server, "hg-auth")
