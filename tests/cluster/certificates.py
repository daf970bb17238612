"""Make the cluster's certificate authority, its certificates, and the kubeconfigs that hold them."""

import datetime
import ipaddress
import json
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from tests.cluster.network import API_PORT, API_SERVICE, NODE, NODE_ADDRESS

_LIFETIME = datetime.timedelta(days=30)
_API_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
_API_ADDRESSES = ("127.0.0.1", NODE_ADDRESS, API_SERVICE)

_SIGNS = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)

USERS = {
    "admin": ("healthguard:admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "proxy": ("system:kube-proxy", None),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "policies": ("healthguard:policies", None),
    "storage": ("healthguard:storage", None),
}
"""Who speaks to the API server: file name → (user, group)."""


@dataclass(frozen=True)
class _Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def write_all(folder: Path) -> None:
    """Write to *folder* the authorities, a pair a server, a pair and a kubeconfig a user, and the `sa` keys."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = _authority("healthguard-cluster")
    _write(folder, "ca", authority.certificate, authority.key)
    _issue(folder, "apiserver", authority, "kube-apiserver", names=_API_NAMES, addresses=_API_ADDRESSES)
    _issue(folder, "kubelet-server", authority, NODE, names=(NODE,), addresses=(NODE_ADDRESS, "127.0.0.1"))
    _issue(folder, "kubelet-client", authority, "kube-apiserver-kubelet", group="system:masters")
    front = _authority("healthguard-front-proxy")
    _write(folder, "front-ca", front.certificate, front.key)
    _issue(folder, "front-proxy", front, "front-proxy")
    for name, (user, group) in USERS.items():
        _issue(folder, name, authority, user, group=group)
        write_kubeconfig(folder / f"{name}.kubeconfig", folder, name, f"https://{NODE_ADDRESS}:{API_PORT}")
    accounts = ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / "sa.key", accounts)
    (folder / "sa.pub").write_bytes(accounts.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def write_server(folder: Path, name: str, hosts: tuple[str, ...]) -> None:
    """Write `ca.crt`, `NAME.crt` and `NAME.key` to *folder*: a server of its own authority, for an ingress to show."""
    authority = _authority(f"{name}-authority")
    _write(folder, "ca", authority.certificate, authority.key)
    _issue(folder, name, authority, hosts[0], names=hosts)


def write_kubeconfig(target: Path, folder: Path, user: str, server: str) -> None:
    """Write a kubeconfig for *user* to reach *server*, with everything in it, readable by the owner alone."""

    def embedded(name: str) -> str:
        return b64encode((folder / name).read_bytes()).decode()

    # JSON is YAML, and needs no library to write it.
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "healthguard",
        "clusters": [
            {"name": "healthguard", "cluster": {"server": server, "certificate-authority-data": embedded("ca.crt")}}
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": embedded(f"{user}.crt"),
                    "client-key-data": embedded(f"{user}.key"),
                },
            }
        ],
        "contexts": [{"name": "healthguard", "context": {"cluster": "healthguard", "user": user}}],
    }
    target.touch(mode=0o600)
    target.write_text(json.dumps(config, indent=1))


def _authority(name: str) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name, None)
    builder = (
        _builder(subject, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_SIGNS, critical=True)
    )
    return _Authority(key, builder.sign(key, hashes.SHA256()))


def _issue(
    folder: Path,
    name: str,
    authority: _Authority,
    common_name: str,
    *,
    group: str | None = None,
    names: tuple[str, ...] = (),
    addresses: tuple[str, ...] = (),
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_subject(common_name, group), authority.certificate.subject, key).add_extension(
        # Without it, Python 3.13 and newer refuse the chain.
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
        critical=False,
    )
    alternatives: list[x509.GeneralName] = [x509.DNSName(text) for text in names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(text)) for text in addresses]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    _write(folder, name, builder.sign(authority.key, hashes.SHA256()), key)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # An hour of grace, for clocks that were set back.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
    )


def _subject(common_name: str, group: str | None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if group:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(attributes)


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    _write_key(folder / f"{name}.key", key)


def _write_key(target: Path, key: ec.EllipticCurvePrivateKey) -> None:
    target.touch(mode=0o600)
    target.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
