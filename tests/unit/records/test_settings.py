"""The service starts with whole settings, or says which one is missing, and repeats none."""

import base64

import pytest
from pydantic import ValidationError

from healthguard.settings import DatabaseSettings
from records.settings import RecordsSettings

WHOLE = {
    "RECORDS_DSN": "postgresql://records:dsn-password@db/records",
    "RECORDS_JWKS_URL": "http://auth:8000/.well-known/jwks.json",
    "RECORDS_GATEWAY_SECRET": "g" * 32,
    "RECORDS_PSEUDONYM_KEY": base64.b64encode(bytes(range(32))).decode(),
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Set the whole environment, to be changed by the test."""
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_settings_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    """The names that the chart sets are the names that are read."""
    environment.setenv("RECORDS_POOL_SIZE", "3")

    settings = RecordsSettings()

    assert settings.port == 8002
    assert settings.pool_size == 3
    assert settings.pseudonym_key_bytes() == bytes(range(32))


@pytest.mark.parametrize("name", WHOLE)
def test_settings_without_a_decision_are_refused(environment: pytest.MonkeyPatch, name: str) -> None:
    """Nothing secret has a default, and the error names what is missing."""
    environment.delenv(name)

    with pytest.raises(ValidationError, match=name.removeprefix("RECORDS_").lower()):
        RecordsSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECORDS_GATEWAY_SECRET", "too-short-secret"),
        ("RECORDS_PSEUDONYM_KEY", "not base64!"),
        ("RECORDS_PSEUDONYM_KEY", base64.b64encode(b"only-16-bytes-xx").decode()),
    ],
)
def test_settings_with_a_weak_secret_are_refused_and_not_repeated(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The error goes to a log: it must not hold the secret."""
    environment.setenv(name, value)

    with pytest.raises(ValidationError) as caught:
        RecordsSettings()
    assert value not in str(caught.value)


def test_settings_do_not_print_their_secrets(environment: pytest.MonkeyPatch) -> None:
    """A settings object that lands in a log tells nothing."""
    shown = repr(RecordsSettings())

    assert "dsn-password" not in shown
    assert "gggg" not in shown


def test_migrations_need_only_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """The migration job holds no key and no secret of the gateway's."""
    monkeypatch.setenv("RECORDS_DSN", WHOLE["RECORDS_DSN"])

    assert DatabaseSettings(_env_prefix="RECORDS_").dsn.get_secret_value() == WHOLE["RECORDS_DSN"]
