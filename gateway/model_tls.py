"""TLS to model servers: whom the gateway trusts, and what it shows of itself, read anew when the files change."""

from dataclasses import dataclass
from pathlib import Path

from gateway.discovery import Endpoint
from serving.tfs.client import Tls


@dataclass(frozen=True)
class ModelTls:
    """The files of one trust; the certificate and its key are for servers that ask for a client's."""

    ca_file: Path
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str = ""
    """What every server's certificate names; empty: what discovery says of each."""

    def read(self) -> Tls:
        """
        Read the files; the name is still to be said.

        Raises:
            OSError: one cannot be read.
            ValueError: one holds no PEM; gRPC would notice only at the first handshake, and not say so.
        """
        return Tls(
            _pem(self.ca_file),
            self.server_name,
            _pem(self.cert_file) if self.cert_file else None,
            _pem(self.key_file) if self.key_file else None,
        )


def tls_for(endpoint: Endpoint, read: Tls | None) -> Tls | None:
    """Return how to connect to *endpoint*; a unix socket is guarded by the file system and has no host to verify."""
    if read is None or endpoint.address.startswith("unix:"):
        return None
    return Tls(read.authority, read.server_name or endpoint.verified_name, read.certificate, read.key)


def _pem(path: Path) -> bytes:
    content = path.read_bytes()
    if b"-----BEGIN " not in content:
        raise ValueError(f"{path} is no PEM file")
    return content
