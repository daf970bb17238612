"""Whom a client of ours trusts."""

import ssl
from pathlib import Path


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """
    Return a client's context that checks names, and trusts the authority in *ca_file* alone; none: the system's.

    Raises:
        OSError: the file cannot be read, or holds no certificate.
    """
    # Given a file, Python loads no other authority: a public one must not be able to speak for a service inside.
    return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
