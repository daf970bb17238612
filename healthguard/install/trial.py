"""
`helm test`: use the installed product as a client does, through the gateway's Service.

It registers a person of its own, who is nobody and has a random password that is kept nowhere; predicts with every
model of which the models image has known answers; reads each record back, and removes it; and looks for the predictions
in the gateway's metrics. A model from elsewhere has no image here that could be sent to it: of it only that it is ready
is looked at, and that is said.
"""

import json
import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

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


class Served(NamedTuple):
    """A model, and which version of it answers."""

    name: str
    version: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read NAME@VERSION.

        Raises:
            ValueError: it is not of that form.
        """
        name, _, version = text.partition("@")
        if not name:
            raise ValueError("a model is named NAME@VERSION")
        return cls(name, int(version))


def run(
    url: str, models: Sequence[Served], golden: Path, deadline_s: float, tell: Tell, *, trusted: ssl.SSLContext
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
            tried = (_try(client, http, token, model, golden=golden, ends_at=ends_at, tell=tell) for model in models)
            predicted = [model.name for model, was_asked in zip(models, tried, strict=True) if was_asked]
        _check_metrics(url, predicted, trusted)
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


def _try(
    client: Client, http: httpx.Client, token: str, model: Served, *, golden: Path, ends_at: float, tell: Tell
) -> bool:
    """Try one model, and tell whether it was asked for a prediction."""
    case = _case(golden, model)
    if case is None:
        _wait_until_loaded(http, token, model, ends_at)
        tell(f"{model.name}: ready; the models image has no golden cases of version {model.version} to predict with")
        return False
    image, label = case
    _predict_and_read_back(client, http, token, model=model.name, image=image, label=label, ends_at=ends_at)
    tell(f"{model.name}: predicted, stored, read back, removed")
    return True


def _predict_and_read_back(
    client: Client, http: httpx.Client, token: str, *, model: str, image: Path, label: str, ends_at: float
) -> None:
    made = client.predict(model, image, deadline_s=max(1.0, ends_at - time.monotonic()))
    if made.outcome != label:
        raise NotRight(f"{model}: {image.name} is {label}, and the answer was {made.outcome}")
    if client.prediction(made.id) != made:
        raise NotRight(f"{model}: what was stored is not what was answered")
    _remove(http, token, made)


def _wait_until_loaded(http: httpx.Client, token: str, model: Served, ends_at: float) -> None:
    """Ask the gateway for the model until it can be asked."""
    where = f"/v2/models/{model.name}/versions/{model.version}/ready"
    while (status := _status(http, where, token)) != httpx.codes.OK:
        if time.monotonic() > ends_at:
            raise NotRight(f"{model.name}: version {model.version} did not become ready in time ({status})")
        time.sleep(_POLL_S)


def _status(http: httpx.Client, path: str, token: str) -> int | str:
    """Return what a call answers: its status, or the kind of failure."""
    try:
        return http.get(path, headers={"Authorization": f"Bearer {token}"}).status_code
    except httpx.TransportError as error:
        return type(error).__name__


def _remove(http: httpx.Client, token: str, made: Prediction) -> None:
    answer = http.delete(f"/api/v1/predictions/{made.id}", headers={"Authorization": f"Bearer {token}"})
    if answer.status_code not in {200, 204}:
        raise NotRight(f"{made.model}: removing the record answered {answer.status_code}")


def _case(golden: Path, model: Served) -> tuple[Path, str] | None:
    """Return the first golden case of the version that answers: its image and its class; none where there is none."""
    folder = golden / model.name / str(model.version) / "assets.extra" / "golden"
    listed = folder / "cases.json"
    if not listed.is_file():
        return None
    first = json.loads(listed.read_bytes()[:_CASES_BYTES_MAX])["cases"][0]
    return folder / first["file"], str(first["label"])


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
