"""Why a service could not be spoken to, from the error that a connection ended with."""

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from enum import Enum
from urllib.parse import urlsplit

_LOOK_S = 3.0
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})
# Source: X509_V_ERR_… of OpenSSL's x509_vfy.h.
_OUT_OF_DATE = frozenset({9, 10})
_OTHER_NAME = frozenset({62, 64})


class Fault(Enum):
    """What is in the way; the value is the end of a sentence that begins with "Nothing answers at …"."""

    NO_NAME = "its name cannot be looked up"
    REFUSED = "the connection was refused"
    SLOW = "it took too long"
    LOST = "the connection failed"
    UNTRUSTED = "its certificate is of an authority that is not trusted here"
    OUT_OF_DATE = "its certificate is out of date, or not valid yet"
    OTHER_NAME = "its certificate is for another name"
    NOT_TLS = "what is there speaks plain HTTP, and not HTTPS"


LASTING = frozenset({Fault.UNTRUSTED, Fault.OUT_OF_DATE, Fault.OTHER_NAME, Fault.NOT_TLS})
"""Those that no second try mends."""


def of(error: BaseException) -> Fault:
    """Return what an error of a connection means; libraries wrap the system's own, which knows most."""
    for cause in _causes(error):
        match cause:
            case socket.gaierror():
                return Fault.NO_NAME
            case TimeoutError():
                return Fault.SLOW
            case ssl.SSLCertVerificationError(verify_code=code):
                return _of_certificate(code)
            case ssl.SSLError(reason=reason) if reason in _NOT_TLS:
                return Fault.NOT_TLS
            case ConnectionRefusedError():
                return Fault.REFUSED
    return Fault.LOST


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_certificate(code: int) -> Fault:
    if code in _OUT_OF_DATE:
        return Fault.OUT_OF_DATE
    return Fault.OTHER_NAME if code in _OTHER_NAME else Fault.UNTRUSTED


def is_local(url: str) -> bool:
    """Tell whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def speaks_tls(url: str) -> bool:
    """
    Try a handshake with what is at a plain *url*, and send nothing else.

    A server of TLS that gets plain HTTP ends the connection in as many ways as there are servers; only this tells.
    """
    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Whose certificate it is does not matter: nothing is told to whoever holds it.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 80), timeout=_LOOK_S) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname),
        ):
            return True
    except OSError:
        return False
