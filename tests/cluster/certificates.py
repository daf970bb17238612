"""
Make the cluster's certificates, and the kubeconfigs that hold them.

The authorities are made as the chart's own are. The certificates are not: who speaks to an API server has a group, and
no DNS name.
"""

import datetime
import ipaddress
import json
from base64 import b64encode
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from healthguard.install.certificates import Pair, make_authority
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


def write_all(folder: Path) -> None:
    """Write to *folder* the authorities, a pair a server, a pair and a kubeconfig a user, and the `sa` keys."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = datetime.datetime.now(datetime.UTC)
    authority, front = make_authority(now), make_authority(now)
    write_pair(folder, "ca", authority)
    write_pair(folder, "front-ca", front)
    _issue(folder, "apiserver", authority, "kube-apiserver", names=_API_NAMES, addresses=_API_ADDRESSES)
    _issue(folder, "kubelet-server", authority, NODE, names=(NODE,), addresses=(NODE_ADDRESS, "127.0.0.1"))
    _issue(folder, "kubelet-client", authority, "kube-apiserver-kubelet", group="system:masters")
    _issue(folder, "front-proxy", front, "front-proxy")
    for name, (user, group) in USERS.items():
        _issue(folder, name, authority, user, group=group)
        write_kubeconfig(folder / f"{name}.kubeconfig", folder, name, f"https://{NODE_ADDRESS}:{API_PORT}")
    accounts = ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / "sa.key", _pem(accounts))
    (folder / "sa.pub").write_bytes(accounts.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def write_pair(folder: Path, name: str, pair: Pair) -> None:
    """Write `NAME.crt` and `NAME.key` to *folder*, the key readable by the owner alone."""
    (folder / f"{name}.crt").write_bytes(pair.certificate)
    _write_key(folder / f"{name}.key", pair.key)


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


def _issue(
    folder: Path,
    name: str,
    authority: Pair,
    common_name: str,
    *,
    group: str | None = None,
    names: tuple[str, ...] = (),
    addresses: tuple[str, ...] = (),
) -> None:
    issuer, signer = x509.load_pem_x509_certificate(authority.certificate), _private_key(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(common_name, group))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(now + _LIFETIME)
        # Without it, Python 3.13 and newer refuse the chain.
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    alternatives: list[x509.GeneralName] = [x509.DNSName(text) for text in names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(text)) for text in addresses]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    write_pair(folder, name, Pair(certificate.public_bytes(Encoding.PEM), _pem(key)))


def _private_key(authority: Pair) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(authority.key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _subject(common_name: str, group: str | None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if group:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(attributes)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_key(target: Path, key: bytes) -> None:
    target.touch(mode=0o600)
    target.write_bytes(key)
