"""The log-ins of the command."""

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
