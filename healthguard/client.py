"""
A small client of HealthGuard's HTTP API.

    with Client("http://127.0.0.1:8004", token) as client:
        stored = client.predict("cancer", Path("left.png"))

Every call has a timeout; every refusal is a `ProblemError`. What stores something carries an idempotency key of its
own, so it is repeated safely while the service says "not now" or the connection is lost, within one deadline.

    ClientError
    ├── Unreachable    nothing answers at this address, or the answer is not HealthGuard's
    └── ProblemError   the service refused, and says why (RFC 9457)
"""

import mimetypes
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from healthguard import faults, tls
from healthguard.faults import Fault
from healthguard.results import Model, OutcomeCount, Prediction, Statistics, Tokens

CONNECT_S = 3.0
CALL_S = 20.0
PREDICT_DEADLINE_S = 30.0
STORE_DEADLINE_S = CALL_S
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
PAGE = 100
ANSWER_BYTES_MAX = 8 * 1024 * 1024
ERRORS_MAX = 8


class ClientError(Exception):
    """A call did not succeed; the text is one sentence for a person."""


class Unreachable(ClientError):
    """Nothing answers at the address, or something that is not HealthGuard; `fault` is none for the latter."""

    def __init__(self, text: str, fault: Fault | None = None) -> None:
        super().__init__(text)
        self.fault = fault


class ProblemError(ClientError):
    """The service refused; the fields are those of its problem document."""

    def __init__(
        self,
        status: int,
        title: str,
        *,
        type: str = "about:blank",  # noqa: A002 - RFC 9457's name
        detail: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        key_id: str | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        places = ", ".join(f"{location}: {code}" for location, code in errors)
        sentence = f"{title} ({places})." if places else f"{title}."
        super().__init__(f"{sentence} {detail}" if detail else sentence)
        self.status = status
        self.title = title
        self.type = type
        self.detail = detail
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        """How long the service asks to wait before the next try; seconds."""
        self.key_id = key_id
        """The API key that the same request has made before, and that is not shown again."""
        self.errors = tuple(errors)
        """What is not valid: the place, such as body.file, and a code, such as empty."""


Record = TypeVar("Record")


class Client:
    """A connection to one HealthGuard; close it, or use it as a context."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca_file: Path | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            url: the address of the gateway, such as http://127.0.0.1:8004.
            token: an access token; none: only calls that need none, until `login`.
            ca_file: a certificate of an authority to trust, PEM, besides those that the system trusts.

        Raises:
            OSError: *ca_file* cannot be read, or holds no certificate.
        """
        self.url = url.rstrip("/")
        self._sleep = sleep
        self._clock = clock
        headers = {"User-Agent": "healthguard-client", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # The proxies of the environment are for the world outside: images must not pass through one by accident.
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(CALL_S, connect=CONNECT_S),
            transport=transport,
            verify=_trusted(ca_file),
            trust_env=False,
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def register(self, email: str, password: str) -> None:
        """
        Open an account, as a patient; an administrator gives other roles.

        Raises:
            ProblemError: the service refused, with 409 where the e-mail has an account already.
            Unreachable: nothing answers.
        """
        self._store("/api/v1/auth/register", {"email": email, "password": password})

    def login(self, email: str, password: str) -> Tokens:
        """
        Log in: later calls carry the person's access token. Return the tokens too.

        Raises:
            ProblemError: the service refused, with 401 where e-mail and password don't belong together.
            Unreachable: nothing answers.
        """
        body = {"email": email, "password": password}
        tokens = record(Tokens, self._call("POST", "/api/v1/auth/login", json=body))
        self._http.headers["Authorization"] = f"Bearer {tokens.access_token}"
        return tokens

    def refresh(self, refresh_token: str) -> Tokens:
        """
        Return new tokens for a refresh token, which is used up by it.

        Raises:
            ProblemError: the service refused, with 401 where the log-in has ended.
            Unreachable: nothing answers.
        """
        return record(Tokens, self._call("POST", "/api/v1/auth/refresh", json={"refresh_token": refresh_token}))

    def logout(self, refresh_token: str) -> None:
        """
        End a log-in.

        Raises:
            ProblemError: the service refused.
            Unreachable: nothing answers.
        """
        self._call("POST", "/api/v1/auth/logout", json={"refresh_token": refresh_token})

    def trade(self, api_key: str) -> Tokens:
        """
        Return a short access token for an API key.

        Raises:
            ProblemError: the service refused, with 401 where the key does not hold.
            Unreachable: nothing answers.
        """
        return record(Tokens, self._call("POST", "/api/v1/auth/token", json={"api_key": api_key}))

    def create_api_key(self, name: str) -> str:
        """
        Return a new API key of this caller; this is the only time that it is shown.

        Where the answer was lost that showed it, that key is revoked and another made.

        Raises:
            ProblemError: the service refused.
            Unreachable: nothing answers.
        """
        try:
            return self._new_api_key(name)
        except ProblemError as exc:
            # Our key is new, so only an earlier try of ours can have made what is there.
            if exc.key_id is None:
                raise
            self._call("DELETE", f"/api/v1/auth/keys/{exc.key_id}")
        return self._new_api_key(name)

    def _new_api_key(self, name: str) -> str:
        return str(self._store("/api/v1/auth/keys", {"name": name})["key"])

    def predict(
        self,
        model: str,
        image: Path | bytes,
        *,
        filename: str | None = None,
        patient: str | None = None,
        idempotency_key: str | None = None,
        deadline_s: float = PREDICT_DEADLINE_S,
    ) -> Prediction:
        """
        Return the stored prediction for an image.

        Args:
            image: a PNG or JPEG file, or its bytes.
            filename: kept with the prediction; that of the file if none is given.
            patient: whom it is about, as the hospital numbers patients; only doctors may name one.
            idempotency_key: made here if none is given; with the same key the same image is stored once only.
            deadline_s: how long all tries together may take; seconds.

        Raises:
            OSError: the file cannot be read.
            ProblemError: the service refused.
            Unreachable: nothing answers.
        """
        name = filename or (image.name if isinstance(image, Path) else None)
        data = image.read_bytes() if isinstance(image, Path) else image
        content_type = mimetypes.guess_type(name or "")[0] or "application/octet-stream"
        headers = _under_key(idempotency_key)
        found = self._repeat(
            deadline_s,
            "POST",
            f"/api/v1/models/{model}/predictions",
            files={"file": (name, data, content_type)},
            data={"patient": patient} if patient else None,
            headers=headers,
        )
        return record(Prediction, found)

    def prediction(self, prediction_id: str) -> Prediction:
        """
        Return one stored prediction.

        Raises:
            ProblemError: the service refused, with 404 where there is none that this caller may see.
            Unreachable: nothing answers.
        """
        return record(Prediction, self._call("GET", f"/api/v1/predictions/{prediction_id}"))

    def predictions(self, **filters: str) -> Iterator[Prediction]:
        """
        Yield the history, newest first, page by page.

        Args:
            filters: model, outcome, created_from, created_to.

        Raises:
            ProblemError: the service refused.
            Unreachable: nothing answers.
        """
        query: dict[str, str] = {"limit": str(PAGE), **filters}
        while True:
            page = self._call("GET", "/api/v1/predictions", params=query)
            yield from (record(Prediction, item) for item in page["items"])
            if not page.get("next_cursor"):
                return
            query["cursor"] = page["next_cursor"]

    def statistics(self) -> Statistics:
        """
        Return the history in numbers.

        Raises:
            ProblemError: the service refused.
            Unreachable: nothing answers.
        """
        found = self._call("GET", "/api/v1/predictions/stats/summary")
        return Statistics(found["total"], tuple(record(OutcomeCount, count) for count in found["counts"]))

    def models(self) -> list[Model]:
        """
        Return what is served.

        Raises:
            ProblemError: the service refused.
            Unreachable: nothing answers.
        """
        return [record(Model, item) for item in self._call("GET", "/api/v1/models")["models"]]

    def _store(self, path: str, body: Mapping[str, str]) -> Any:
        """Post *body*, again while the answer is "not now"; under a key, so that it is stored once."""
        return self._repeat(STORE_DEADLINE_S, "POST", path, json=body, headers=_under_key())

    def _repeat(self, deadline_s: float, method: str, path: str, **request: Any) -> Any:
        """Call again while the answer is "not now" and time is left; only for calls that are safe to repeat."""
        ends_at = self._clock() + deadline_s
        tries = 0
        while True:
            try:
                left_s = max(0.1, ends_at - self._clock())
                return self._call(
                    method, path, timeout=httpx.Timeout(left_s, connect=min(CONNECT_S, left_s)), **request
                )
            except (ProblemError, Unreachable) as exc:
                tries += 1
                wait_s = wait_before_retry_s(exc, tries, ends_at - self._clock())
                if wait_s is None:
                    raise
                self._sleep(wait_s)

    def _call(self, method: str, path: str, **request: Any) -> Any:
        """Return the JSON of a good answer (none for 204), or raise what the answer says."""
        try:
            answer = self._http.request(method, path, **request)
        except httpx.HTTPError as exc:
            fault = faults.of(exc)
            raise Unreachable(f"Nothing answers at {self.url}: {fault.value}.", fault) from exc
        if answer.is_success:
            return _json(answer, self.url) if answer.content else None
        raise problem_of(answer)


def _trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts whom the system trusts, and the authority in *ca_file*."""
    context = tls.trusting(None)
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def _under_key(key: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": key or uuid.uuid4().hex}


def wait_before_retry_s(error: ClientError, tries: int, left_s: float) -> float | None:
    """
    Return how long to wait before the next try; none where there shall be none.

    Args:
        tries: how many were made.
        left_s: what is left of the deadline.
    """
    if isinstance(error, Unreachable) and error.fault in faults.LASTING:
        return None
    wait_s = float(min(RETRY_FIRST_S * 2 ** (tries - 1), RETRY_MAX_S))
    if isinstance(error, ProblemError):
        if error.status != 503:
            return None
        # The service may ask for more patience than ours, never for less.
        wait_s = max(wait_s, error.retry_after_s or 0.0)
    return wait_s if wait_s < left_s else None


def problem_of(answer: httpx.Response) -> ProblemError:
    """Return the error that an answer tells; an answer without a problem document has its status as the title."""
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    return ProblemError(
        answer.status_code,
        str(document.get("title") or f"The service answered {answer.status_code} {answer.reason_phrase}".strip()),
        type=str(document.get("type") or "about:blank"),
        detail=document.get("detail"),
        request_id=document.get("request_id") or answer.headers.get("X-Request-Id"),
        retry_after_s=_retry_after_s(answer, document),
        key_id=document.get("key_id"),
        errors=_errors(document.get("errors")),
    )


def _errors(found: Any) -> list[tuple[str, str]]:
    """Return the places and codes of a failed validation; what is not of that form is passed over."""
    entries = found[:ERRORS_MAX] if isinstance(found, list) else []
    return [
        (str(e["location"]), str(e["code"]))
        for e in entries
        if isinstance(e, dict) and {"location", "code"} <= e.keys()
    ]


def _retry_after_s(answer: httpx.Response, document: Mapping[str, Any]) -> float | None:
    """Return the wait that the service asks for: the finer member if there is one, else the header in seconds."""
    if isinstance(ms := document.get("retry_after_ms"), int | float):
        return float(ms) / 1000
    header = answer.headers.get("Retry-After", "")
    return float(header) if header.isdigit() else None


def record(kind: type[Record], document: Any) -> Record:
    """
    Return *document* as *kind*; fields that this version does not know are passed over.

    Raises:
        Unreachable: it is not of that form, so it does not come from HealthGuard.
    """
    try:
        known = {entry.name: document[entry.name] for entry in fields(kind) if entry.name in document}  # type: ignore[arg-type]
        return kind(**known)
    except TypeError as exc:
        raise Unreachable("What answers is not HealthGuard, or a version that this client does not know.") from exc


def _json(answer: httpx.Response, url: str) -> Any:
    if len(answer.content) > ANSWER_BYTES_MAX:
        raise Unreachable(f"What answers at {url} sends more than HealthGuard does.")
    try:
        return answer.json()
    except ValueError as exc:
        raise Unreachable(f"What answers at {url} is not HealthGuard.") from exc
