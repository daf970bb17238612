"""
Who may ask the external metrics API: the API server alone, by the client certificate of its front proxy.

The cluster says which authority signs it, and under which names, in a ConfigMap that every extension of the API reads.
The API server has authenticated and authorised the caller before it passes a request on, so nothing is asked twice.
"""

import json
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from healthguard.install.certificates import Pair
from serving.operator.kubernetes import Api

NAMESPACE, NAME = "kube-system", "extension-apiserver-authentication"
_CA, _NAMES = "requestheader-client-ca-file", "requestheader-allowed-names"


class NotConfigured(Exception):
    """The cluster does not say whose certificates its front proxy has: it has no aggregation of APIs."""


class Door:
    """The TLS of a server that lets in the front proxy and nobody else."""

    def __init__(self) -> None:
        """Begin with nobody trusted."""
        self.context = _context()
        """What a server is made with; each connection gets the newest one in its place."""
        self.context.sni_callback = self._choose
        self._newest = _context()
        self._pair: Pair | None = None
        self._authority = ""
        self._names: frozenset[str] = frozenset()

    def show(self, pair: Pair) -> None:
        """Show this certificate from now on."""
        self._pair = pair
        _load(self._newest, pair)

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest

    def knows(self, connection: ssl.SSLObject | None) -> bool:
        """Tell whether a connection was made under the authority of now; one that was withdrawn lets in nobody."""
        return connection is not None and connection.context is self._newest

    async def refresh(self, api: Api) -> None:
        """
        Read whom the cluster lets in; a new authority counts from the next connection on.

        Raises:
            NotConfigured: it does not say, or what it says is no authority; who was let in before still is.
            CallFailed: the API server refused, or did not answer.
        """
        found = await api.get("ConfigMap", NAMESPACE, NAME)
        authority, names = read(found or {})
        if authority != self._authority:
            self._newest = self._trusting(authority)
        self._authority, self._names = authority, names

    def _trusting(self, authority: str) -> ssl.SSLContext:
        """
        Return a context that trusts this authority alone; of one that is there nothing can be taken out.

        Raises:
            NotConfigured: it is no certificate.
        """
        made = _context()
        try:
            made.load_verify_locations(cadata=authority)
        except (ssl.SSLError, ValueError, TypeError) as error:
            raise NotConfigured(f"{_CA} holds no certificates") from error
        if self._pair is not None:
            _load(made, self._pair)
        return made

    def lets_in(self, certificate: Mapping[str, Any] | None) -> bool:
        """Tell whether a certificate of that authority, as Python's `getpeercert` has it, is the front proxy's."""
        parts = [part for parts in (certificate or {}).get("subject", ()) for part in parts]
        named = {value for name, value in parts if name == "commonName"}
        # As Kubernetes has it: an empty list lets in every name of that authority.
        return certificate is not None and (not self._names or bool(named & self._names))


def _context() -> ssl.SSLContext:
    """Return the TLS of a server to which nobody is known yet."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Nothing is resumed: who comes back is asked again, by the authority of then. TLS 1.2 has no switch for that.
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.num_tickets = 0
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    """Have a server show this certificate; Python reads keys from files only."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        certificate.write_bytes(pair.certificate)
        key.touch(mode=0o600)
        key.write_bytes(pair.key)
        context.load_cert_chain(certificate, key)


def read(found: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    """
    Return the authority, PEM, and the names that the ConfigMap holds.

    Raises:
        NotConfigured: it holds none.
    """
    data = found.get("data", {})
    try:
        names = frozenset(str(name) for name in json.loads(data.get(_NAMES, "[]")))
    except (ValueError, TypeError) as error:
        raise NotConfigured(f"{_NAMES} is no list") from error
    if not data.get(_CA):
        raise NotConfigured(f"there is no {_CA}: aggregated APIs are off in this cluster")
    return str(data[_CA]), names
