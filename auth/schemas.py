"""What clients send to auth and get from it. Unknown fields are ignored: old clients send some; none is acted upon."""

import re
import unicodedata
import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from auth.api_keys import KEY_CHARS_MAX
from auth.passwords import PASSWORD_CHARS_MAX
from auth.refresh import TOKEN_CHARS
from healthguard.tokens import Role

EMAIL_CHARS_MAX = 254
"""Source: RFC 5321 §4.5.3.1.3, the longest path, less its angle brackets."""

# One @ between two parts without spaces or control characters. Whether an address exists, only a message to it would
# tell; stricter patterns refuse addresses that work.
_EMAIL = re.compile(r"[^\s@\x00-\x1f\x7f]{1,64}@[^\s@\x00-\x1f\x7f.]+(\.[^\s@\x00-\x1f\x7f.]+)*")


def _email(value: str) -> str:
    value = unicodedata.normalize("NFC", value.strip())
    if not _EMAIL.fullmatch(value) or not value.isprintable():
        raise ValueError("not an e-mail address")
    return value


Email = Annotated[str, Field(min_length=3, max_length=EMAIL_CHARS_MAX), AfterValidator(_email)]


class Answer(BaseModel):
    """The base of what auth answers."""

    model_config = ConfigDict(frozen=True)


Password = Annotated[SecretStr, Field(min_length=1, max_length=PASSWORD_CHARS_MAX)]


class Registration(BaseModel):
    """A person who wants an account."""

    model_config = ConfigDict(
        hide_input_in_errors=True, json_schema_extra={"example": {"email": "ada@example.org", "password": "…"}}
    )

    email: Email
    password: Password


class Credentials(BaseModel):
    """
    An e-mail and its password.

    The e-mail is any text here: people who came over from the replaced application log in with whatever it had taken.
    """

    model_config = ConfigDict(
        hide_input_in_errors=True, json_schema_extra={"example": {"email": "ada@example.org", "password": "…"}}
    )

    email: Annotated[str, Field(min_length=1, max_length=EMAIL_CHARS_MAX)]
    password: Password


class Registered(Answer):
    """A person who has just registered."""

    id: int = Field(examples=[7])
    email: str = Field(examples=["ada@example.org"])
    created_at: datetime


class AccessToken(Answer):
    """An access token and its life in seconds."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the name of a scheme, not a secret
    expires_in: int = Field(examples=[3600])


class Login(AccessToken):
    """An access token, and a refresh token to get the next one with, until `refresh_expires_at`."""

    refresh_token: str
    refresh_expires_at: datetime


class Verification(Answer):
    """Whom a valid access token speaks for."""

    valid: Literal[True] = True
    user_id: int = Field(examples=[7])
    subject: uuid.UUID
    email: str = Field(examples=["ada@example.org"])
    role: Role
    expires_at: datetime


class RefreshRequest(BaseModel):
    """A refresh token to be used or ended."""

    model_config = ConfigDict(hide_input_in_errors=True)

    refresh_token: Annotated[SecretStr, Field(max_length=TOKEN_CHARS)]


class ApiKeyTrade(BaseModel):
    """An API key to be traded for an access token."""

    model_config = ConfigDict(hide_input_in_errors=True)

    api_key: Annotated[SecretStr, Field(max_length=KEY_CHARS_MAX)]


class NewApiKey(BaseModel):
    """An API key to be made."""

    name: Annotated[str, Field(min_length=1, max_length=64, examples=["nightly import"])]
    expires_in_days: Annotated[int, Field(ge=1, le=365)] | None = None


class ApiKeyInfo(Answer):
    """An API key as it may be shown."""

    id: uuid.UUID
    name: str
    prefix: str = Field(examples=["hg_live_8fQz"])
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class CreatedApiKey(ApiKeyInfo):
    """An API key at its making: the one answer that shows it."""

    key: str


class ApiKeyList(Answer):
    """A person's API keys, the newest first."""

    items: list[ApiKeyInfo]


class Person(Answer):
    """A person as an admin, or they themselves, see them."""

    id: int
    subject: uuid.UUID
    email: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None


class PersonList(Answer):
    """A page of people, the newest first; `next_cursor` asks for the next page."""

    items: list[Person]
    next_cursor: str | None


class PersonChange(BaseModel):
    """What an admin may change about a person."""

    model_config = ConfigDict(extra="forbid")

    role: Role | None = None
    disabled: bool | None = None


class JwkSet(Answer):
    """Public keys (RFC 7517)."""

    keys: list[dict[str, str]]
