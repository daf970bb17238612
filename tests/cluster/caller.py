"""
What a caller is answered at an address: without TLS, without a certificate, and as who it is.

The file's text is run inside a pod, by `python -c`, so it needs nothing but Python and what is mounted there.
Arguments: a JSON object, name → [host, port, the name in the certificate]; it writes one, name → answers.
"""

import json
import socket
import ssl
import sys

FOLDER = "/etc/healthguard/tls"
REFUSED, SERVED = "refused", "served"
_TIMEOUT_S = 5.0
# The beginning of HTTP/2: the preface and an empty SETTINGS frame. A server that takes it answers with SETTINGS.
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4
_HTTP1 = b"GET /v1/predictions HTTP/1.1\r\nHost: caller\r\nConnection: close\r\n\r\n"


def plain(host: str, port: int) -> str:
    """Return what is answered without TLS, to HTTP/1.1 or else to HTTP/2."""
    for question in (_HTTP1, _HTTP2):
        try:
            with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
                answer = _ask(connection, question)
        except OSError:
            answer = REFUSED
        if answer != REFUSED:
            return answer
    return REFUSED


def over_tls(host: str, port: int, name: str, context: ssl.SSLContext) -> str:
    """Return what is answered over TLS."""
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with (
            socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection,
            context.wrap_socket(connection, server_hostname=name) as wrapped,
        ):
            return _ask(wrapped, _HTTP2 if wrapped.selected_alpn_protocol() == "h2" else _HTTP1)
    except OSError:
        return REFUSED


def _ask(connection: socket.socket, question: bytes) -> str:
    connection.sendall(question)
    answer = connection.recv(4096)
    if answer.startswith(b"HTTP/1.1 "):
        return answer[9:12].decode()
    return SERVED if answer[3:4] == bytes([_SETTINGS]) else REFUSED


def trusting() -> ssl.SSLContext:
    """Return a context that knows the authority, and shows nothing."""
    return ssl.create_default_context(cafile=f"{FOLDER}/ca.crt")


def known() -> ssl.SSLContext:
    """Return a context that shows who this pod is."""
    context = trusting()
    context.load_cert_chain(f"{FOLDER}/tls.crt", f"{FOLDER}/tls.key")
    return context


def shown(host: str, port: int, name: str) -> str:
    """Return the certificate that is shown there, as PEM."""
    with (
        socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection,
        known().wrap_socket(connection, server_hostname=name) as wrapped,
    ):
        return ssl.DER_cert_to_PEM_cert(wrapped.getpeercert(binary_form=True) or b"")


if __name__ == "__main__":
    told = {
        called: {
            "plain": plain(host, port),
            "nameless": over_tls(host, port, name, trusting()),
            "known": over_tls(host, port, name, known()),
            "another name": over_tls(host, port, f"not-{name}", known()),
            "certificate": shown(host, port, name),
        }
        for called, (host, port, name) in json.loads(sys.argv[1]).items()
    }
    sys.stdout.write(json.dumps(told))
