"""
Refresh tokens: one log-in is a family; each refresh replaces the token by its successor.

A token is `hgr_` and the base64url of the family's id (16 bytes) and a secret (32 bytes). The successor's secret is an
HMAC of the predecessor's under a key of ours, so that a client whose answer was lost gets the same successor when it
asks again, while the database keeps nothing but SHA-256 hashes. Grace is for the immediate predecessor and for ten
seconds; any other token of the family means that two parties hold it, and ends the family.

Source: RFC 9700 §4.14.2 (rotation), RFC 2104 (HMAC), RFC 5869 (HKDF).
"""

import base64
import hashlib
import hmac
import os
import re
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from auth.problems import RefreshRefused

MARK = "hgr_"
SECRET_BYTES = 32
TOKEN_CHARS = len(MARK) + 64
"""The base64 of 16 + 32 bytes has 64 characters and no padding."""

_FORM = re.compile(rf"{MARK}[0-9A-Za-z_-]{{64}}")

GRACE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token, taken apart."""

    family: uuid.UUID
    secret: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Return the first token of a new family."""
        return cls(uuid.uuid4(), os.urandom(SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Return the token that *text* spells.

        Raises:
            RefreshRefused: it spells none.
        """
        # The decoder alone would also take padding and the other base64 alphabet, and so a second spelling of a token.
        if not _FORM.fullmatch(text):
            raise RefreshRefused
        raw = base64.urlsafe_b64decode(text.removeprefix(MARK))
        return cls(uuid.UUID(bytes=raw[:16]), raw[16:])

    def __str__(self) -> str:
        """Return the token as the client gets it."""
        return MARK + base64.urlsafe_b64encode(self.family.bytes + self.secret).decode()

    def hash(self) -> bytes:
        """Return what is stored. A plain hash is enough for 256 random bits; a slow one is for what people choose."""
        return hashlib.sha256(self.secret).digest()

    def successor(self, key: bytes) -> "RefreshToken":
        """Return the next token of the family; only who holds *key* can."""
        return RefreshToken(self.family, hmac.digest(key, self.family.bytes + self.secret, "sha256"))


def successor_key(key_encryption_key: bytes) -> bytes:
    """Derive the key of `RefreshToken.successor`, so that one secret serves two uses that cannot meet."""
    return HKDF(SHA256(), 32, salt=None, info=b"healthguard/auth/refresh-successor").derive(key_encryption_key)


@dataclass(frozen=True, slots=True)
class FamilyState:
    """What is stored of a family."""

    current_hash: bytes
    previous_hash: bytes | None
    rotated_at: datetime | None
    expires_at: datetime
    revoked_at: datetime | None


class Verdict(Enum):
    """What to do with a refresh token that was presented."""

    ROTATE = auto()
    """It is the newest: make its successor the newest."""
    REPEAT = auto()
    """Its successor was made a moment ago: the answer was lost, or two asked at once. Give the same successor."""
    REVOKE = auto()
    """It was replaced before: somebody else holds the family too. End it."""
    REFUSE = auto()
    """The family has ended."""


def judge(token: RefreshToken, family: FamilyState, now: datetime) -> Verdict:
    """Decide about *token* of *family*."""
    if family.revoked_at is not None or now >= family.expires_at:
        return Verdict.REFUSE
    presented = token.hash()
    if hmac.compare_digest(presented, family.current_hash):
        return Verdict.ROTATE
    if family.previous_hash is None or family.rotated_at is None:
        return Verdict.REVOKE
    is_predecessor = hmac.compare_digest(presented, family.previous_hash)
    return Verdict.REPEAT if is_predecessor and now - family.rotated_at <= GRACE else Verdict.REVOKE
