"""Whom a client of ours trusts, what a server of ours shows, and who called it, by the names of their certificates."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

PEER = "healthguard.peer"
"""The ASGI extension in which our server tells a request's names: `scope["extensions"][PEER]`, a frozenset of texts."""


class RenewedContext(ssl.SSLContext):
    """
    A context that shows a certificate and reads it again once its file has changed, so that a renewal needs no restart.

    It looks before each handshake, which costs two calls of `stat` and needs no task of its own.
    """

    _files: tuple[Path, Path]
    _seen: tuple[int, int] = (0, 0)

    @classmethod
    def showing(cls, protocol: int, cert_file: Path, key_file: Path) -> Self:
        """
        Return a context of *protocol* (`ssl.PROTOCOL_TLS_…`) with TLS 1.2 at least.

        Raises:
            OSError: the files cannot be read, or are no certificate with its key.
        """
        context = cls(protocol)
        # Python's default is whatever OpenSSL was built with: 1.2 in most builds, anything at all in Debian 12's.
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context._files = (cert_file, key_file)
        context._seen = context._stamps()
        context.load_cert_chain(cert_file, key_file)
        return context

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a handshake, with the newest certificate."""
        self._renew()
        return super().wrap_bio(*args, **kwargs)

    def _renew(self) -> None:
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return
            # First into another context: one that gets a certificate without its key would be of no use any more.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files)
            self.load_cert_chain(*self._files)
        except OSError:
            # Half of a pair is there, or none: the old one holds still, and the next handshake looks again.
            return
        self._seen = stamps

    def _stamps(self) -> tuple[int, int]:
        certificate, key = (path.stat().st_mtime_ns for path in self._files)
        return certificate, key


def trusting(ca_file: Path | None, cert_file: Path | None = None, key_file: Path | None = None) -> ssl.SSLContext:
    """
    Return a client's context that checks names, and trusts the authority in *ca_file* alone; none: the system's.

    Args:
        cert_file, key_file: what the client shows to servers that ask who it is; none: nothing.

    Raises:
        OSError: a file cannot be read, or does not hold what it should.
    """
    if cert_file is None or key_file is None:
        # Given a file, Python loads no other authority: a public one must not be able to speak for a service inside.
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context = RenewedContext.showing(ssl.PROTOCOL_TLS_CLIENT, cert_file, key_file)
    if ca_file:
        context.load_verify_locations(ca_file)
    else:
        context.load_default_certs()
    return context


def serving(cert_file: Path, key_file: Path, client_ca_file: Path | None = None) -> ssl.SSLContext:
    """
    Return a server's context.

    Args:
        client_ca_file: the authority of clients' certificates. A client that shows one is checked; one that shows none
            is let in, nameless, because the kubelet's probes have none: each route decides by the names.

    Raises:
        OSError: a file cannot be read, or does not hold what it should.
    """
    context = RenewedContext.showing(ssl.PROTOCOL_TLS_SERVER, cert_file, key_file)
    if client_ca_file:
        context.load_verify_locations(client_ca_file)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def names_in(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Return the DNS names of a checked certificate, in the form of `SSLSocket.getpeercert()`; none: no names."""
    alternatives = (certificate or {}).get("subjectAltName", ())
    return frozenset(name for kind, name in alternatives if kind == "DNS")


def is_peer(scope: Mapping[str, Any], name: str) -> bool:
    """Tell whether the client of an ASGI *scope* has shown a certificate with this name."""
    return name in scope.get("extensions", {}).get(PEER, ())
