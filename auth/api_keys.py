"""
API keys: `hg_live_`, 22 characters that carry 128 random bits or more, an underscore, and a checksum of 6 characters.

The mark lets scanners find a key that was committed somewhere; the checksum lets them, and us, tell a key from
something like it without asking the database.
"""

import hashlib
import re
import secrets
import string
import zlib

MARK = "hg_live_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_CHARS = 22
"""62 to the power of 22 is more than 2 to the power of 130."""
CHECKSUM_CHARS = 6
"""62 to the power of 6 is more than 2 to the power of 32: a CRC-32 fits."""
PREFIX_CHARS = len(MARK) + 4
"""What is shown of a key: enough to tell one's own keys apart, 24 bits of 130."""
KEY_CHARS_MAX = 64

_FORM = re.compile(rf"{MARK}([0-9A-Za-z]{{{SECRET_CHARS}}})_([0-9A-Za-z]{{{CHECKSUM_CHARS}}})")


def new_key() -> str:
    """Return a new key; it is shown once."""
    body = MARK + "".join(secrets.choice(ALPHABET) for _ in range(SECRET_CHARS))
    return f"{body}_{checksum(body)}"


def is_well_formed(key: str) -> bool:
    """Tell whether *key* has the form and the checksum of one of ours; says nothing of whether it exists."""
    match = _FORM.fullmatch(key)
    return match is not None and checksum(MARK + match[1]) == match[2]


def checksum(body: str) -> str:
    """Return the CRC-32 of *body* in base 62. It guards against typing errors, not against anyone who invents keys."""
    rest = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECKSUM_CHARS):
        rest, digit = divmod(rest, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def hash_of(key: str) -> bytes:
    """Return what is stored: SHA-256, which is enough for 128 random bits and can be looked up by an index."""
    return hashlib.sha256(key.encode()).digest()


def prefix_of(key: str) -> str:
    """Return the part of *key* that may be shown."""
    return key[:PREFIX_CHARS]
