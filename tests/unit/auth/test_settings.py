"""Auth's settings: what must be said, and what is refused without being repeated."""

import base64

import pytest
from pydantic import ValidationError

from auth.settings import AuthSettings

DSN = "postgresql+asyncpg://auth@/auth"
KEY = base64.b64encode(b"k" * 32).decode()


def test_settings_need_database_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the database is and what encrypts the keys, a person decides; all else has a default."""
    monkeypatch.delenv("AUTH_DSN", raising=False)
    monkeypatch.delenv("AUTH_KEY_ENCRYPTION_KEY", raising=False)

    with pytest.raises(ValidationError) as missing:
        AuthSettings()

    assert {error["loc"] for error in missing.value.errors()} == {("dsn",), ("key_encryption_key",)}


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field is `AUTH_` and its name."""
    for name, value in {"DSN": DSN, "KEY_ENCRYPTION_KEY": KEY, "PORT": "18000"}.items():
        monkeypatch.setenv(f"AUTH_{name}", value)

    settings = AuthSettings()

    assert (settings.port, settings.dsn.get_secret_value()) == (18000, DSN)
    assert settings.key_encryption_key_bytes() == b"k" * 32


@pytest.mark.parametrize("key", ["not base64!", base64.b64encode(b"short-canary").decode(), KEY[:-2]])
def test_settings_refuse_a_bad_key_without_repeating_it(key: str) -> None:
    """A key that is not base64 of 32 bytes stops the start; the message does not hold it."""
    with pytest.raises(ValidationError) as refused:
        AuthSettings(dsn=DSN, key_encryption_key=key)

    assert key not in str(refused.value)


def test_settings_show_no_secret() -> None:
    """Neither secret is in the settings' repr."""
    shown = repr(AuthSettings(dsn="postgresql+asyncpg://auth:canary@/auth", key_encryption_key=KEY))

    assert "canary" not in shown
    assert KEY not in shown
