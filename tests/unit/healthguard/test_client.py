"""The client against a scripted HTTP server: what it sends, what it makes of the answers, when it tries again."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from healthguard.client import Client, ClientError, ProblemError, Unreachable, wait_before_retry_s

STORED: dict[str, Any] = {
    "id": "01a2036d-ee3d-7bd3-bf15-f01951ed408f",
    "number": 1,
    "created_at": "2026-01-28T10:30:00Z",
    "outcome": "Negative",
    "task": "binary",
    "source": "model",
    "review_state": "preliminary",
    "model": "cancer",
    "field_of_a_later_version": True,
}


Answer = tuple[int, dict[str, str], Any]

LOST: Answer = (0, {}, None)
"""No answer: the connection ends when the request has come."""


@dataclass
class Script:
    """Answers to give, one a request, and the requests that came."""

    answers: list[tuple[int, dict[str, str], bytes]]
    url: str = ""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def _serving(*answers: Answer) -> Iterator[Script]:
    script = Script([(status, headers, json.dumps(body).encode()) for status, headers, body in answers])

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            script.requests.append((f"{self.command} {self.path}", dict(self.headers), body))
            status, headers, content = script.answers.pop(0)
            if status == LOST[0]:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()


def _problem(status: int, **members: Any) -> dict[str, Any]:
    return {"type": "urn:healthguard:problem:x", "title": "Not now", "status": status, "request_id": "r1", **members}


def test_client_raises_a_problem_with_all_its_fields() -> None:
    """Type, title, status, request id and the finer wait arrive; the header is only a fallback."""
    with (
        _serving((503, {"Retry-After": "9"}, _problem(503, detail="Later.", retry_after_ms=250))) as script,
        Client(script.url, "token") as client,
        pytest.raises(ProblemError) as refused,
    ):
        client.prediction(STORED["id"])
    error = refused.value
    assert (error.status, error.type, error.title) == (503, "urn:healthguard:problem:x", "Not now")
    assert (error.request_id, error.retry_after_s, str(error)) == ("r1", 0.25, "Not now. Later.")
    assert script.requests[0][1]["Authorization"] == "Bearer token"


def test_predict_repeats_with_the_same_key_while_the_service_says_not_now() -> None:
    """Three tries are one prediction: the idempotency key is the same, and the waits are those asked for."""
    slept: list[float] = []
    not_now = (503, {"Retry-After": "2"}, _problem(503))
    with (
        _serving(not_now, not_now, (201, {}, STORED)) as script,
        Client(script.url, "token", sleep=slept.append) as client,
    ):
        found = client.predict("cancer", b"image", filename="left.png", patient="4711")
    assert (found.id, found.outcome, found.score) == (STORED["id"], "Negative", None)
    assert len({headers["Idempotency-Key"] for _, headers, _ in script.requests}) == 1
    assert slept == [2.0, 2.0]
    path, _, body = script.requests[-1]
    assert path == "POST /api/v1/models/cancer/predictions"
    assert b'filename="left.png"' in body
    assert b"4711" in body


def test_predict_sends_no_name_for_bytes() -> None:
    """A name that nobody gave would be stored with the prediction; what the client does not name is none."""
    stored = STORED | {"site": "north", "corrected_at": "2026-01-29T10:30:00Z"}
    with _serving((201, {}, stored)) as script, Client(script.url, "token") as client:
        found = client.predict("cancer", b"image")
    assert (found.filename, found.site, found.corrected_at) == (None, "north", "2026-01-29T10:30:00Z")
    assert b"filename" not in script.requests[0][2]
    assert b'name="file"' in script.requests[0][2]


def test_problem_names_places_and_codes() -> None:
    """What is not valid is in the sentence; entries of another form are passed over."""
    errors = [{"location": "body.file", "code": "empty"}, "x", {"code": "y"}]
    with (
        _serving((422, {}, _problem(422, errors=errors))) as script,
        Client(script.url) as client,
        pytest.raises(ProblemError, match=r"Not now \(body\.file: empty\)\.") as refused,
    ):
        client.register("a@example.org", "password")
    assert refused.value.errors == (("body.file", "empty"),)
    assert script.requests[0][0] == "POST /api/v1/auth/register"


def test_two_predictions_have_keys_of_their_own() -> None:
    """A key that was used twice would give the second image the first one's answer."""
    with _serving((201, {}, STORED), (201, {}, STORED)) as script, Client(script.url, "token") as client:
        client.predict("cancer", b"one")
        client.predict("cancer", b"two")
    assert len({headers["Idempotency-Key"] for _, headers, _ in script.requests}) == 2


def test_predict_does_not_repeat_a_refusal() -> None:
    """What is wrong with the request stays wrong."""
    with (
        _serving((422, {}, _problem(422))) as script,
        Client(script.url, "token") as client,
        pytest.raises(ProblemError),
    ):
        client.predict("cancer", b"no image")
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("error", "tries", "left_s", "expected"),
    [
        pytest.param(Unreachable(""), 1, 30.0, 0.2, id="a broken connection is tried again soon"),
        pytest.param(Unreachable(""), 3, 30.0, 0.8, id="later tries wait longer"),
        pytest.param(Unreachable(""), 30, 30.0, 5.0, id="but never for long"),
        pytest.param(Unreachable(""), 1, 0.1, None, id="not past the deadline"),
        pytest.param(ProblemError(503, ""), 1, 30.0, 0.2, id="not now, without a wish"),
        pytest.param(ProblemError(503, "", retry_after_s=3.0), 1, 30.0, 3.0, id="as long as the service asks for"),
        pytest.param(ProblemError(503, "", retry_after_s=60.0), 1, 30.0, None, id="not longer than there is time"),
        pytest.param(ProblemError(500, ""), 1, 30.0, None, id="a fault is no 'not now'"),
        pytest.param(ProblemError(429, "", retry_after_s=1.0), 1, 30.0, None, id="nor is a limit"),
    ],
)
def test_wait_before_retry_decides(error: ClientError, tries: int, left_s: float, expected: float | None) -> None:
    """Each case has the wait that its name says."""
    assert wait_before_retry_s(error, tries, left_s) == expected


NOT_NOW: Answer = (503, {}, _problem(503))
SHOWN_KEY = "0190a6de-6d5b-4a5b-9d5f-0c8d5a3c1b2a"


@pytest.mark.parametrize("call", ["register", "create_api_key"])
def test_what_is_stored_is_repeated_under_the_same_key(call: str) -> None:
    """An account or an API key is asked for until there is an answer, and made once; the next has a key of its own."""
    made: Answer = (201, {}, {"key": "hg_live_x"})
    with (
        _serving(NOT_NOW, made, made) as script,
        Client(script.url, "token", sleep=lambda _: None) as client,
    ):
        for _ in range(2):
            if call == "register":
                client.register("a@example.org", "password")
            else:
                assert client.create_api_key("import") == "hg_live_x"
    first, again, next_one = (headers["Idempotency-Key"] for _, headers, _ in script.requests)
    assert first == again != next_one


def test_registration_is_repeated_when_the_connection_is_lost() -> None:
    """The answer that nobody got is asked for again, under the same key."""
    with (
        _serving(LOST, (201, {}, {"id": 1})) as script,
        Client(script.url, sleep=lambda _: None) as client,
    ):
        client.register("a@example.org", "password")
    assert len(script.requests) == 2
    assert len({headers["Idempotency-Key"] for _, headers, _ in script.requests}) == 1


def test_api_key_that_nobody_has_seen_is_revoked_and_another_made() -> None:
    """The repeat says which key the lost answer showed: it goes, and the new one has an idempotency key of its own."""
    shown: Answer = (409, {}, _problem(409, key_id=SHOWN_KEY))
    with (
        _serving(LOST, shown, (200, {}, None), (201, {}, {"key": "hg_live_y"})) as script,
        Client(script.url, "token", sleep=lambda _: None) as client,
    ):
        assert client.create_api_key("import") == "hg_live_y"
    paths = [path for path, _, _ in script.requests]
    create = "POST /api/v1/auth/keys"
    assert paths == [create, create, f"DELETE /api/v1/auth/keys/{SHOWN_KEY}", create]
    keys = [headers.get("Idempotency-Key") for _, headers, _ in script.requests]
    assert keys[0] == keys[1] != keys[3]


def test_api_key_that_is_refused_revokes_none() -> None:
    """Too many keys is a 409 as well, and names none."""
    with (
        _serving((409, {}, _problem(409))) as script,
        Client(script.url, "token") as client,
        pytest.raises(ProblemError),
    ):
        client.create_api_key("import")
    assert len(script.requests) == 1


def test_predictions_follow_the_cursor_to_the_last_page() -> None:
    """All pages come, in their order; the filters go with each."""
    second = {**STORED, "number": 2}
    with (
        _serving(
            (200, {}, {"items": [second], "next_cursor": "abc"}), (200, {}, {"items": [STORED], "next_cursor": None})
        ) as script,
        Client(script.url, "token") as client,
    ):
        found = list(client.predictions(model="cancer"))
    assert [prediction.number for prediction in found] == [2, 1]
    assert all("model=cancer" in path for path, _, _ in script.requests)
    assert "cursor=abc" in script.requests[1][0]


@pytest.mark.parametrize("answer", [(200, {}, "not ours"), (200, {}, {"id": "x"})], ids=["a text", "another object"])
def test_client_knows_an_answer_that_is_not_healthguards(answer: tuple[int, dict[str, str], Any]) -> None:
    """Another program at the same port is named as such, not half believed."""
    with _serving(answer) as script, Client(script.url, "token") as client, pytest.raises(Unreachable):
        client.prediction(STORED["id"])


def test_client_says_that_nothing_answers() -> None:
    """A closed port is one sentence, without the library's words."""
    with Client("http://127.0.0.1:1", "token") as client, pytest.raises(Unreachable, match="Nothing answers at"):
        client.models()


def test_client_shows_no_secret() -> None:
    """What is printed by mistake holds no token."""
    answer = {"access_token": "secret-a", "expires_in": 60, "refresh_token": "secret-r"}
    with _serving((200, {}, answer)) as script, Client(script.url) as client:
        tokens = client.login("ada@example.org", "pw")
    assert tokens.access_token == "secret-a"
    assert "secret" not in repr(tokens)


def test_login_authenticates_the_calls_after_it() -> None:
    """The same client goes on as the person who logged in, in place of whoever it was before."""
    tokens = {"access_token": "fresh", "expires_in": 60}
    with _serving((200, {}, tokens), (200, {}, STORED)) as script, Client(script.url, "old") as client:
        client.login("ada@example.org", "pw")
        client.prediction(STORED["id"])
    assert script.requests[1][1]["Authorization"] == "Bearer fresh"
