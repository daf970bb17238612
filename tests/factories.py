"""Values for tests: whole and valid, each field replaceable, random where two must differ."""

import json
import secrets
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from healthguard.tokens import Caller, Role

GATEWAY_SECRET = "a-secret-of-the-gateway-for-tests-only"


def caller(role: Role = Role.PATIENT, subject: str | None = None) -> Caller:
    """Return a caller as a verified token names one."""
    expires_at = datetime.now(UTC) + timedelta(minutes=10)
    return Caller(subject or str(uuid.uuid4()), role, secrets.token_hex(16), expires_at, "a-token")


def model_answer(**overrides: Any) -> dict[str, Any]:
    """Return the body with which the gateway stores what a binary model answered, about an image of its own."""
    answer: dict[str, Any] = {
        "model": "cancer",
        "version": 1,
        "weights_digest": "sha256:" + "a1" * 32,
        "task": "binary",
        "outcome": "Positive",
        "score": 0.93,
        "confidence": 0.93,
        "ood_score": 1.2,
        "recommendation": "Consult a specialist.",
        "image_hmac": secrets.token_hex(32),
        "image_size_bytes": 20_481,
        "filename": "phantom.png",
        "timings": {"read_ms": 0.4, "decode_ms": 1.1, "inference_ms": 9.8},
    }
    return answer | overrides


def risk_answer(**overrides: Any) -> dict[str, Any]:
    """Return the same for a risk model."""
    risk = {"model": "anemia", "task": "risk", "outcome": "MEDIUM", "score": 0.5, "confidence": 0.78}
    return model_answer(**(risk | overrides))


def email() -> str:
    """Return an e-mail address that nobody has registered with."""
    return f"{secrets.token_hex(8)}@example.org"


def credentials(**overrides: str) -> dict[str, str]:
    """Return the body with which a new person registers and logs in."""
    return {"email": email(), "password": secrets.token_urlsafe(12)} | overrides


def contract(**overrides: Any) -> dict[str, Any]:
    """Return the contract document of a binary model's version."""
    document: dict[str, Any] = {
        "schema": "healthguard.io/contract/v1",
        "model": "cancer",
        "version": 1,
        "task": "binary",
        "labels": ["Negative", "Positive"],
        "thresholds": [0.5],
        "input": {"height": 224, "width": 224, "channels": "RGB", "resize": "area", "fit": "stretch"},
        "calibration": {"method": "temperature", "temperature": 1.0},
        "confidence": {"method": "max"},
        "out_of_distribution": {"method": "mahalanobis", "limit": 12.3},
        "explain": {"method": "grad-cam", "grid": [7, 7]},
        "recommendations": {
            "Negative": "Nothing was found.",
            "Positive": "See a specialist.",
            "Indeterminate": "Take the image again.",
        },
        "intended_use": "Tests.",
        "demonstration": True,
        "weights_digest": "sha256:" + "b2" * 32,
        "card_digest": "sha256:" + "c3" * 32,
    }
    return document | overrides


def risk_contract(**overrides: Any) -> dict[str, Any]:
    """Return the contract document of a risk model's version."""
    risk: dict[str, Any] = {
        "model": "anemia",
        "task": "risk",
        "labels": ["LOW", "MEDIUM", "HIGH"],
        "thresholds": [0.3, 0.7],
        "confidence": {"method": "table", "edges": [0.0, 0.3, 0.7, 1.0], "values": [0.9, 0.6, 0.8]},
        "recommendations": {
            "LOW": "No action is needed.",
            "MEDIUM": "Consult with a healthcare provider",
            "HIGH": "See a healthcare provider soon.",
            "Indeterminate": "Take the image again.",
        },
    }
    return contract(**(risk | overrides))


def contract_bytes(**overrides: Any) -> bytes:
    """Return the same document as a model server answers it."""
    return json.dumps(contract(**overrides)).encode()
