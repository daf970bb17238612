"""What is wrong with a request's head, and who is too slow."""

import pytest

from healthguard.edge import BODY_BYTES_PER_S_MIN, HEADERS_MAX, TARGET_BYTES_MAX, UNREAD_S_MAX, Clock, trouble_with
from healthguard.problems import HeadTooLarge, InvalidRequest, Problem

HOST = (b"host", b"healthguard.example:443")
LENGTH = (b"content-length", b"1")
SLOW_S = 9.0


def test_usual_heads_are_fine() -> None:
    """What browsers, curl and gRPC-less clients send."""
    headers = [HOST, (b"accept", b"*/*"), (b"content-length", b"12"), (b"x-patient", "Zoë".encode())]
    assert trouble_with(b"/api/v1/predictions?limit=2&model=cancer", "1.1", headers) is None
    assert trouble_with(b"/", "1.1", [(b"host", b"[::1]:8004"), (b"transfer-encoding", b"Chunked")]) is None
    assert trouble_with(b"/", "1.0", []) is None


WRONG: dict[str, tuple[bytes, str, list[tuple[bytes, bytes]], type[Problem]]] = {
    "no host": (b"/", "1.1", [], InvalidRequest),
    "two hosts": (b"/", "1.1", [HOST, HOST], InvalidRequest),
    "two hosts in 1.0": (b"/", "1.0", [HOST, HOST], InvalidRequest),
    "a host with a path": (b"/", "1.1", [(b"host", b"a/b")], InvalidRequest),
    "two hosts in one": (b"/", "1.1", [(b"host", b"a b")], InvalidRequest),
    "a target of another server": (b"http://elsewhere/", "1.1", [HOST], InvalidRequest),
    "a target that some take for a host": (b"//elsewhere/", "1.1", [HOST], InvalidRequest),
    "an authority": (b"elsewhere:443", "1.1", [HOST], InvalidRequest),
    "an asterisk": (b"*", "1.1", [HOST], InvalidRequest),
    "a fragment": (b"/a#b", "1.1", [HOST], InvalidRequest),
    "bytes beyond ASCII in the target": (b"/\xc3\xa9", "1.1", [HOST], InvalidRequest),
    "another version": (b"/", "2.0", [HOST], InvalidRequest),
    "length and encoding": (b"/", "1.1", [HOST, LENGTH, (b"transfer-encoding", b"chunked")], InvalidRequest),
    "two lengths": (b"/", "1.1", [HOST, LENGTH, LENGTH], InvalidRequest),
    "a signed length": (b"/", "1.1", [HOST, (b"content-length", b"+1")], InvalidRequest),
    "a length of forty digits": (b"/", "1.1", [HOST, (b"content-length", b"1" * 40)], InvalidRequest),
    "an unknown encoding": (b"/", "1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")], InvalidRequest),
    "an encoding in 1.0": (b"/", "1.0", [HOST, (b"transfer-encoding", b"chunked")], InvalidRequest),
    "an unknown expectation": (b"/", "1.1", [HOST, (b"expect", b"the best")], InvalidRequest),
    "a line break in a value": (b"/", "1.1", [HOST, (b"x-a", b"b\r\nx-c: d")], InvalidRequest),
    "a long target": (b"/" + b"a" * TARGET_BYTES_MAX, "1.1", [HOST], HeadTooLarge),
    "many headers": (b"/", "1.1", [HOST, *[(b"x", b"y")] * HEADERS_MAX], HeadTooLarge),
    "long headers": (b"/", "1.1", [HOST, (b"x", b"y" * 33_000)], HeadTooLarge),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_head_is_refused(name: str) -> None:
    """Each for one thing that is wrong with it."""
    target, version, headers, problem = WRONG[name]
    assert trouble_with(target, version, headers) is problem


def test_clock_cuts_a_head_that_takes_too_long() -> None:
    """At its time and not before; a connection that owes nothing is never late."""
    clock = Clock(SLOW_S, head_since=100.0)
    assert not clock.late(108.9)
    assert clock.late(109.0)
    assert not Clock(SLOW_S, head_since=None).late(1e9)


def test_clock_lets_a_body_go_on_while_it_comes() -> None:
    """For as long as it takes, at no less than the least speed."""
    clock = Clock(SLOW_S, head_since=None)
    clock.begin_body(0.0)
    for second in range(1, 100):
        clock.paid(BODY_BYTES_PER_S_MIN, float(second))
        assert not clock.late(second + 0.9)


def test_clock_cuts_a_body_that_falls_silent() -> None:
    """As soon after a burst as after nothing; single bytes buy next to no time."""
    clock = Clock(SLOW_S, head_since=None)
    clock.begin_body(0.0)
    clock.paid(10_000_000, 1.0)
    assert not clock.late(9.9)
    assert clock.late(10.0)
    clock.begin_body(0.0)
    for second in range(1, 10):
        clock.paid(1, float(second))
    assert clock.late(9.1)


def test_clock_cuts_who_takes_no_answer() -> None:
    """Neither what is written nor the end of a closed connection may wait for ever."""
    assert Clock(SLOW_S, head_since=None, unread_since=0.0).stuck(UNREAD_S_MAX)
    assert Clock(SLOW_S, head_since=None, closing_since=0.0).stuck(UNREAD_S_MAX)
    assert not Clock(SLOW_S, head_since=None, unread_since=1.0).stuck(UNREAD_S_MAX)
    assert not Clock(SLOW_S, head_since=None).stuck(1e9)
