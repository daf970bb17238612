"""Refresh tokens: their form, their successors, and what is decided about them."""

import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.problems import RefreshRefused
from auth.refresh import GRACE, TOKEN_CHARS, FamilyState, RefreshToken, Verdict, judge, successor_key

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
KEY = b"k" * 32

FIRST = RefreshToken.new()
NEXT = FIRST.successor(KEY)
NEWEST = NEXT.successor(KEY)

# A log-in that was refreshed twice, the last time five seconds ago.
FAMILY = FamilyState(NEWEST.hash(), NEXT.hash(), NOW - 5 * SECOND, NOW + timedelta(hours=1), None)
UNUSED = FamilyState(FIRST.hash(), None, None, NOW + timedelta(hours=1), None)


@pytest.mark.parametrize(
    ("token", "family", "verdict"),
    [
        pytest.param(FIRST, UNUSED, Verdict.ROTATE, id="the first token is used"),
        pytest.param(NEWEST, FAMILY, Verdict.ROTATE, id="the newest token is used"),
        pytest.param(NEXT, FAMILY, Verdict.REPEAT, id="its predecessor is used within the grace"),
        pytest.param(
            NEXT, replace(FAMILY, rotated_at=NOW - GRACE), Verdict.REPEAT, id="its predecessor, at the grace's end"
        ),
        pytest.param(
            NEXT,
            replace(FAMILY, rotated_at=NOW - GRACE - SECOND),
            Verdict.REVOKE,
            id="its predecessor is used after the grace",
        ),
        pytest.param(FIRST, FAMILY, Verdict.REVOKE, id="an older token is used, even within the grace"),
        pytest.param(RefreshToken(FIRST.family, b"?" * 32), UNUSED, Verdict.REVOKE, id="an invented secret is used"),
        pytest.param(NEWEST, replace(FAMILY, revoked_at=NOW), Verdict.REFUSE, id="the family was revoked"),
        pytest.param(NEWEST, replace(FAMILY, expires_at=NOW), Verdict.REFUSE, id="the family has expired"),
    ],
)
def test_judge(token: RefreshToken, family: FamilyState, verdict: Verdict) -> None:
    """What happens when a token is used."""
    assert judge(token, family, NOW) is verdict


def test_token_survives_its_spelling() -> None:
    """What a client sends back is the token that it got, of a fixed length."""
    token = RefreshToken.new()

    assert len(str(token)) == TOKEN_CHARS
    assert RefreshToken.parse(str(token)) == token


@given(st.text(max_size=TOKEN_CHARS + 4))
def test_parse_takes_a_token_or_refuses(text: str) -> None:
    """Whatever is sent, the answer is a token that spells the same, or the refusal."""
    with contextlib.suppress(RefreshRefused):
        assert str(RefreshToken.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["hgr_" + "A" * 63 + "=", "hgr_" + "A" * 63 + "é", "hgx_" + "A" * 64, "hgr_" + "+" * 64]
)
def test_parse_refuses_other_spellings(text: str) -> None:
    """Padding, other alphabets and other marks are not read as tokens."""
    with pytest.raises(RefreshRefused):
        RefreshToken.parse(text)


def test_successor_is_the_same_again_and_needs_the_key() -> None:
    """A repeated refresh gives the same token; without our key nobody computes it, nor from another token."""
    assert FIRST.successor(KEY) == NEXT
    assert FIRST.successor(b"?" * 32) != NEXT
    assert RefreshToken.new().successor(KEY).secret != NEXT.secret
    assert NEXT.family == FIRST.family


def test_successor_key_is_not_the_key_that_encrypts() -> None:
    """One secret of the settings serves two uses that cannot meet."""
    assert successor_key(KEY) != KEY
    assert successor_key(KEY) == successor_key(KEY)


def test_secret_is_not_in_the_repr() -> None:
    """A token that slips into a log or a traceback shows its family only."""
    assert repr(FIRST.secret) not in repr(FIRST)
