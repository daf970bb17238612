"""Which addresses are one caller."""

import pytest

from healthguard.sources import source_of


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("unknown", "unknown", True),
    ],
)
def test_callers_are_told_apart_by_network(one: str, other: str, same: bool) -> None:
    """An IPv6 subscriber has a whole /64 and could otherwise be as many callers as they like; IPv4 ones are single."""
    assert (source_of(one) == source_of(other)) is same
