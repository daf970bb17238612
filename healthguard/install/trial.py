"""
`helm test`: use the installed product as a client does, through the gateway's Service.

It registers a person of its own, who is nobody and has a random password that is kept nowhere; predicts with every
model; reads each record back, and removes it; and looks for the predictions in the gateway's metrics.
"""

import json
import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from healthguard.client import Client
from healthguard.results import Prediction

_CALL_S = 15.0
_POLL_S = 2.0
_CASES_BYTES_MAX = 1024 * 1024
_METRICS_S = 30.0

Tell = Callable[[str], None]


class NotRight(Exception):
    """The product runs, and does not do what it must; the message says what."""


def run(
    url: str, models: Sequence[str], golden: Path, deadline_s: float, tell: Tell, *, trusted: ssl.SSLContext
) -> None:
    """
    Try the product at *url* with each of *models*.

    Args:
        golden: folder with MODEL/VERSION/assets.extra/golden, as in the models image.
        trusted: who the gateway may be, where it speaks TLS.

    Raises:
        NotRight: an answer was not what it must be.
        ClientError: a call failed.
    """
    ends_at = time.monotonic() + deadline_s
    with httpx.Client(base_url=url, timeout=_CALL_S, trust_env=False, verify=trusted) as http:
        _wait_until_ready(http, ends_at, tell)
        token = _log_in(http, url, trusted)
        tell("a new person has registered and logged in")
        with Client(url, token, transport=httpx.HTTPTransport(verify=trusted)) as client:
            for model in models:
                _predict_and_read_back(client, http, token, model=model, golden=golden, ends_at=ends_at)
                tell(f"{model}: predicted, stored, read back, removed")
        _check_metrics(url, models, trusted)
        tell("the predictions are counted in the gateway's metrics")


def _wait_until_ready(http: httpx.Client, ends_at: float, tell: Tell) -> None:
    """Wait for all that a prediction needs, and say what it waits for when that changes."""
    told: object = None
    while True:
        state = _health(http)
        if state.get("status") == "ready":
            return
        if state != told:
            tell(f"waiting: {json.dumps(state)}")
            told = state
        if time.monotonic() > ends_at:
            raise NotRight(f"it did not become ready in time: {json.dumps(state)}")
        time.sleep(_POLL_S)


def _health(http: httpx.Client) -> dict[str, Any]:
    try:
        found = http.get("/health/ready").json()
    except (httpx.HTTPError, ValueError) as error:
        return {"status": "unreachable", "reason": type(error).__name__}
    return found if isinstance(found, dict) else {}


def _log_in(http: httpx.Client, url: str, trusted: ssl.SSLContext) -> str:
    email, password = f"helm-test-{secrets.token_hex(8)}@healthguard.example", secrets.token_urlsafe(24)
    answer = http.post("/api/v1/auth/register", json={"email": email, "password": password})
    if answer.status_code != 201:
        raise NotRight(f"registration answered {answer.status_code}")
    with Client(url, transport=httpx.HTTPTransport(verify=trusted)) as client:
        return client.login(email, password).access_token


def _predict_and_read_back(
    client: Client, http: httpx.Client, token: str, *, model: str, golden: Path, ends_at: float
) -> None:
    image, label = _case(golden, model)
    made = client.predict(model, image, deadline_s=max(1.0, ends_at - time.monotonic()))
    if made.outcome != label:
        raise NotRight(f"{model}: {image.name} is {label}, and the answer was {made.outcome}")
    if client.prediction(made.id) != made:
        raise NotRight(f"{model}: what was stored is not what was answered")
    _remove(http, token, made)


def _remove(http: httpx.Client, token: str, made: Prediction) -> None:
    answer = http.delete(f"/api/v1/predictions/{made.id}", headers={"Authorization": f"Bearer {token}"})
    if answer.status_code not in {200, 204}:
        raise NotRight(f"{made.model}: removing the record answered {answer.status_code}")


def _case(golden: Path, model: str) -> tuple[Path, str]:
    """Return the first golden case of the newest version that is there: its image and its class."""
    folders = sorted(golden.glob(f"{model}/[0-9]*/assets.extra/golden"), key=lambda path: int(path.parts[-3]))
    if not folders:
        raise NotRight(f"{model}: the models image has no golden cases of it")
    cases = json.loads((folders[-1] / "cases.json").read_bytes()[:_CASES_BYTES_MAX])["cases"]
    return folders[-1] / cases[0]["file"], str(cases[0]["label"])


def _check_metrics(url: str, models: Sequence[str], trusted: ssl.SSLContext) -> None:
    """Look for the predictions in the metrics of the gateways: each pod counts its own, so ask until one has them."""
    wanted = set(models)
    ends_at = time.monotonic() + _METRICS_S
    while True:
        text = _metrics(url, trusted)
        wanted -= {model for model in wanted if _counted(text, model)}
        if not wanted:
            return
        time.sleep(_POLL_S)
        if time.monotonic() > ends_at:
            raise NotRight(f"the gateway's metrics do not know of predictions with {', '.join(sorted(wanted))}")


def _metrics(url: str, trusted: ssl.SSLContext) -> str:
    """Return one gateway's metrics; none of a pod that leaves at this moment: the next question finds another."""
    try:
        # A connection of its own each time, so that the Service may choose another pod.
        return httpx.get(f"{url}/metrics", timeout=_CALL_S, trust_env=False, verify=trusted).text
    except httpx.TransportError:
        return ""


def _counted(metrics: str, model: str) -> bool:
    """Tell whether a prediction of *model* is counted."""
    lines = (line for line in metrics.splitlines() if line.startswith("healthguard_predictions_total{"))
    return any(f'condition="{model}"' in line and float(line.rsplit(" ", 1)[1]) > 0 for line in lines)
