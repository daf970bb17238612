"""Settings and the models file: what a person must decide has no default, and nonsense stops the start."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.discovery import Endpoint, read_models_file
from gateway.settings import GatewaySettings
from gateway.traffic import Canary, Shadow, Traffic

NEEDED = {
    "auth_url": "http://auth:8000/",
    "records_url": "http://records:8002",
    "models_file": "/models.json",
    "records_secret": "s" * 32,
    "image_hmac_key": base64.b64encode(bytes(range(32))).decode(),
}


def test_settings_need_only_what_a_person_must_decide() -> None:
    """Auth's keys are found from its address."""
    settings = GatewaySettings.model_validate(NEEDED)
    assert settings.jwks_url == "http://auth:8000/.well-known/jwks.json"
    assert settings.port == 8004
    assert settings.cors_origins == ()
    assert not settings.anonymous_anemia
    assert settings.hmac_key() == bytes(range(32))


@pytest.mark.parametrize("name", NEEDED)
def test_settings_refuse_to_start_without(name: str) -> None:
    """Each is named when it is missing."""
    with pytest.raises(ValidationError) as refused:
        GatewaySettings.model_validate({key: value for key, value in NEEDED.items() if key != name})
    assert name in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_hmac_key", base64.b64encode(bytes(31)).decode()),
        ("image_hmac_key", "not base64 at all!"),
        ("records_secret", "hunter2"),
        ("cors_origins", ["*"]),
        ("cors_origins", ["https://*.example.org"]),
        ("records_url", "records:8002"),
        ("image_pixels_max", 10**9),
        ("models_cert_file", "hunter2"),
        ("redis_url", "http://hunter2"),
        ("assets_url", "http://hunter2.example"),
        ("assets_url", "https://hunter2.example; script-src *"),
        ("assets_url", 'https://hunter2.example/"><script>'),
        ("assets_url", "https://*.hunter2.example"),
        ("assets_url", "https://name:hunter2@cdn.example"),
        ("assets_url", "https://hunter2.example/a?b"),
        ("assets_url", "https://hunter2.example/\n"),
        ("unknown", "hunter2"),
    ],
)
def test_settings_refuse_nonsense_without_showing_it(name: str, value: Any) -> None:
    """The value, which may be a secret, stays out of the message."""
    with pytest.raises(ValidationError) as refused:
        GatewaySettings.model_validate(NEEDED | {name: value})
    assert name in str(refused.value)
    assert str(value) not in str(refused.value).replace("base64", "")


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the service's prefix; lists as JSON."""
    for name, value in NEEDED.items():
        monkeypatch.setenv(f"GATEWAY_{name.upper()}", value)
    monkeypatch.setenv("GATEWAY_CORS_ORIGINS", '["https://clinic.example"]')
    monkeypatch.setenv("GATEWAY_JWKS_URL", "http://elsewhere/jwks.json")
    settings = GatewaySettings()
    assert settings.cors_origins == ("https://clinic.example",)
    assert settings.jwks_url == "http://elsewhere/jwks.json"


def models_file(folder: Path, document: object) -> Path:
    """Write a discovery file."""
    path = folder / "models.json"
    path.write_text(json.dumps(document))
    return path


def model(**overrides: object) -> dict[str, object]:
    """Return one entry of it."""
    return {"name": "cancer", "stable": 1, "endpoints": ["127.0.0.1:8500", "unix:/run/s"]} | overrides


def test_models_file_is_read(tmp_path: Path) -> None:
    """Name, stable version and both kinds of endpoint."""
    (declared,) = read_models_file(models_file(tmp_path, {"models": [model()]}))
    assert (declared.name, declared.traffic) == ("cancer", Traffic(1))
    assert declared.endpoints == {1: (Endpoint("127.0.0.1:8500"), Endpoint("unix:/run/s"))}


def test_models_file_splits_traffic(tmp_path: Path) -> None:
    """A canary on the same servers, a shadow on its own."""
    split = {
        "canary": {"version": 2, "percent": 10, "sticky": True},
        "shadow": {"version": 3, "percent": 50},
        "versions": {"3": ["127.0.0.1:8503"]},
    }
    (declared,) = read_models_file(models_file(tmp_path, {"models": [model(**split)]}))
    assert declared.traffic == Traffic(1, Canary(2, 10, sticky=True), Shadow(3, 50))
    assert declared.endpoints[2] == declared.endpoints[1]
    assert declared.endpoints[3] == (Endpoint("127.0.0.1:8503"),)


@pytest.mark.parametrize(
    "document",
    [
        {"models": [model(), model()]},
        {"models": [model(name="../cancer")]},
        {"models": [model(stable=0)]},
        {"models": [model(endpoints=[])]},
        {"models": [model(endpoints=["http://host:1/"])]},
        {"models": [model(extra=1)]},
        {"models": [model(endpoints=None, versions={"2": ["host:1"]})]},
        {"models": [model(canary={"version": 2, "percent": 101})]},
        [],
    ],
    ids=[
        "twice",
        "bad name",
        "version 0",
        "no endpoint",
        "a URL",
        "unknown field",
        "out of reach",
        "percent",
        "a list",
    ],
)
def test_models_file_that_is_wrong_stops_the_start(tmp_path: Path, document: object) -> None:
    """A gateway that serves half of what was meant would be worse."""
    with pytest.raises(ValueError, match="model"):
        read_models_file(models_file(tmp_path, document))
