"""
Who a model server is to others: one certificate for all model pods of an installation, shown by servers and probers.

A name for each pod or version would have to be certified anew with every change of a model; what a server holds is
proved by its golden cases and its contract, not by its name.
"""

import hashlib
import json
import ssl
from pathlib import Path, PurePosixPath

from serving.tfs.client import Tls

SECRET = PurePosixPath("/etc/healthguard/tls")
"""Where a pod finds the certificate, its key and the authority, under the names of a Secret of type tls."""

SSL_CONFIG = PurePosixPath("/run/model-server/ssl.config")
"""Where a server reads them, in its own form; in memory, since a key is in it."""

_BYTES_MAX = 256 * 1024


class Unusable(Exception):
    """What is mounted is no certificate with its key and authority."""


def ssl_config(folder: Path) -> str:
    """
    Return TensorFlow Serving's SSLConfig, as text: clients have to show a certificate of the same authority.

    Raises:
        Unusable: *folder* does not hold a certificate with its key and authority.
    """
    tls = read(folder, "")
    certificate, key = (tls.certificate or b"").decode(), (tls.key or b"").decode()
    texts = {"server_key": key, "server_cert": certificate, "custom_ca": tls.authority.decode()}
    # JSON's escapes of a text are among those of protobuf's text form.
    return "".join(f"{field}: {json.dumps(text)}\n" for field, text in texts.items()) + "client_verify: true\n"


def read(folder: Path, server_name: str) -> Tls:
    """
    Return what *folder* holds.

    Raises:
        Unusable: it does not hold a certificate with its key and authority.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(folder / "ca.crt")
        # A wrong pair would end the server without a word that a person could use.
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        authority, certificate, key = (
            (folder / name).read_bytes()[:_BYTES_MAX] for name in ("ca.crt", "tls.crt", "tls.key")
        )
    except OSError as error:
        raise Unusable("the Secret with the model servers' certificate lacks tls.crt, tls.key or ca.crt") from error
    return Tls(authority, server_name, certificate, key)


def fingerprint(cert_file: Path | None) -> str:
    """
    Return what tells one certificate from the next; an empty text where there is to be none.

    Raises:
        Unusable: there is to be one, and it cannot be read; taken for none, it would replace every model pod.
    """
    if cert_file is None:
        return ""
    try:
        return hashlib.sha256(cert_file.read_bytes()[:_BYTES_MAX]).hexdigest()[:16]
    except OSError as error:
        raise Unusable("the model servers' certificate cannot be read") from error
