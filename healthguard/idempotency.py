"""
The Idempotency-Key header: what makes a request that stores something safe to send again.

Source: draft-ietf-httpapi-idempotency-key-header, "The Idempotency-Key HTTP Request Header Field".
"""

from hashlib import sha256
from typing import Annotated

from fastapi import Header
from pydantic import StringConstraints

IdempotencyText = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]

IdempotencyKey = Annotated[
    IdempotencyText | None,
    Header(
        alias="Idempotency-Key",
        description="The same key again, with the same request, does it once; with another request it is refused.",
    ),
]


def fingerprint(*parts: str) -> bytes:
    """Return the hash of what must be the same when a key is sent again: 32 bytes. No part may be a secret."""
    return sha256("\0".join(parts).encode()).digest()
