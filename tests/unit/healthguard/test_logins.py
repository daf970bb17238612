"""The log-ins of the command."""

import json
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from healthguard import logins
from healthguard.local import demo
from healthguard.local.demo import Demo
from healthguard.logins import Login


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.mark.usefixtures("_own_home")
def test_logins_are_kept_by_address_and_only_for_us() -> None:
    """Two addresses do not disturb each other; what is forgotten is gone."""
    one = Login("ada@example.org", "token-1", time.time() + 600)
    logins.save("http://one", one)
    logins.save("http://two", replace(one, access_token="token-2"))
    assert _mode(logins.path()) == 0o600
    assert logins.access_token("http://one") == "token-1"
    assert logins.forget("http://one") == one
    assert logins.access_token("http://one") is None
    assert logins.access_token("http://two") == "token-2"
    assert "token" not in repr(one)


@pytest.mark.usefixtures("_own_home")
def test_logins_that_have_ended_are_none() -> None:
    """A token that has expired, with no way to a new one, is as good as no log-in."""
    logins.save("http://one", Login("ada@example.org", "old", time.time() - 1))
    assert logins.access_token("http://one") is None


@pytest.mark.usefixtures("_own_home")
@pytest.mark.parametrize(
    ("known", "first_start", "expected"),
    [
        pytest.param(None, False, "demo", id="nobody is logged in"),
        pytest.param(Login("ada", "t", 0.0), False, "ada", id="a person stays logged in"),
        pytest.param(Login("ada", "t", 0.0), True, "demo", id="of an installation that is gone"),
        pytest.param(Login("demo", "", 0.0, api_key="old"), False, "demo", id="another installation's demo user"),
    ],
)
def test_demo_logs_in_where_it_disturbs_nobody(known: Login | None, first_start: bool, expected: str) -> None:
    """The line to paste works, and a person's own log-in survives a restart."""
    if known is not None:
        logins.save("http://one", known)
    demo.log_in("http://one", Demo("demo", "new"), first_start=first_start)
    found = logins.read(logins.path())["http://one"]
    assert found.email == expected
    assert found.api_key == ("new" if expected == "demo" else None)


@pytest.mark.usefixtures("_own_home")
@pytest.mark.parametrize(
    ("saved", "asked", "expected"),
    [
        ("http://x/", "http://x", "token"),
        ("http://x", "HTTP://X/", "token"),
        ("http://x/hg/", "http://x/hg", "token"),
        ("http://localhost:8004", "http://127.0.0.1:8004", None),
    ],
)
def test_logins_find_an_address_however_it_is_written(saved: str, asked: str, expected: str | None) -> None:
    """A slash at the end and capitals in the host make no difference; another name of the same machine does."""
    logins.save(saved, Login("ada@example.org", "token", time.time() + 600))
    assert logins.access_token(asked) == expected
    assert (logins.forget(asked) is not None) == (expected is not None)


@pytest.mark.usefixtures("_own_home")
@pytest.mark.parametrize(
    "damaged",
    [
        {"email": "ada"},
        {"email": "ada", "access_token": "t", "expires_at": "soon"},
        {"email": "ada", "access_token": "t", "expires_at": 0, "api_key": 7},
        None,
        "text",
    ],
    ids=["a field is missing", "a text for a number", "a number for a key", "nothing", "a text"],
)
def test_damaged_entry_is_as_if_it_were_not_there(damaged: object) -> None:
    """One damaged entry hides no other, and the next log-in at its address repairs it."""
    logins.save("http://good", Login("ada@example.org", "token", time.time() + 600))
    known = json.loads(logins.path().read_text())
    logins.path().write_text(json.dumps({"http://damaged": damaged, **known}))
    assert logins.access_token("http://damaged") is None
    assert logins.access_token("http://good") == "token"
    logins.save("http://damaged", Login("ada@example.org", "new", time.time() + 600))
    assert logins.access_token("http://damaged") == "new"


@pytest.mark.usefixtures("_own_home")
@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"], ids=["empty", "a list", "cut", "no text"])
def test_damaged_file_is_as_if_it_were_not_there(content: bytes) -> None:
    """Then nobody is logged in, which the command says in a sentence."""
    logins.path().parent.mkdir(parents=True)
    logins.path().write_bytes(content)
    assert logins.access_token("http://one") is None
