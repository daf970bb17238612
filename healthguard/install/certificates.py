"""A certificate authority of the installation's own, and the certificates that it gives: no I/O."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = datetime.timedelta(days=3650)
LIFE = datetime.timedelta(days=730)
_GRACE = datetime.timedelta(hours=1)
"""For clocks that are behind."""


class BadAuthority(Exception):
    """What is stored as the authority is none of ours."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both as PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


def make_authority(now: datetime.datetime) -> Pair:
    """Return a new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("HealthGuard internal authority")
    builder = (
        _builder(subject, subject, key, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Pair, names: Sequence[str], now: datetime.datetime, *, client: bool = False) -> Pair:
    """
    Return a certificate for a server with these DNS names.

    Args:
        client: whether its holder may show it to other servers too, to say who is calling.

    Raises:
        BadAuthority: the authority cannot be read.
    """
    signer, issuer = _read(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(names[0][:64]), issuer.subject, key, now, LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_purposes(client=client)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    return _pair(builder.sign(signer, hashes.SHA256()), key)


def is_due(
    certificate: bytes, authority: Pair, names: Sequence[str], now: datetime.datetime, *, client: bool = False
) -> bool:
    """
    Tell whether a new certificate is needed: for other names or uses, of another authority, or in its last third.

    Args:
        client: whether its holder may show it to other servers too, to say who is calling.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate)
        held = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        purposes = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        _, issuer = _read(authority)
        found.verify_directly_issued_by(issuer)
    except Exception:
        return True
    left = found.not_valid_after_utc - now
    # Both ways: who is no client any more is not to keep what passes for one.
    other = set(held.get_values_for_type(x509.DNSName)) != set(names) or set(purposes) != set(_purposes(client=client))
    return other or left < LIFE / 3


def _read(authority: Pair) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = load_pem_private_key(authority.key, password=None)
        certificate = x509.load_pem_x509_certificate(authority.certificate)
    except ValueError as error:
        raise BadAuthority("the authority's key or certificate cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadAuthority("the authority's key is of another kind")
    return key, certificate


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _GRACE)
        .not_valid_after(now + life)
    )


def _purposes(*, client: bool) -> list[x509.ObjectIdentifier]:
    return [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])]


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(certificate.public_bytes(Encoding.PEM), private)
