"""Where a request comes from, behind proxies that are ours and others that are not; which addresses are one caller."""

from ipaddress import ip_network

import pytest
from starlette.requests import Request

from healthguard.sources import address_of, source_of

PEER = "10.0.0.9"


def request(*forwarded: str) -> Request:
    """Return a request of `PEER` with these X-Forwarded-For headers."""
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return Request({"type": "http", "client": (PEER, 1), "headers": headers})


@pytest.mark.parametrize(
    ("hops", "sent", "address"),
    [
        pytest.param(0, ["1.1.1.1"], PEER, id="no proxy of ours"),
        pytest.param(1, ["1.1.1.1"], "1.1.1.1", id="our proxy saw the client"),
        pytest.param(1, ["6.6.6.6, 1.1.1.1"], "1.1.1.1", id="what the client invented is not looked at"),
        pytest.param(1, ["6.6.6.6", "1.1.1.1"], "1.1.1.1", id="in two headers"),
        pytest.param(2, ["6.6.6.6, 1.1.1.1, 10.0.0.2"], "1.1.1.1", id="two proxies"),
        pytest.param(2, ["1.1.1.1"], PEER, id="fewer entries than proxies"),
        pytest.param(1, ["nobody"], PEER, id="no address"),
        pytest.param(1, ["x" * 1000], PEER, id="an endless entry"),
        pytest.param(1, [], PEER, id="no header"),
        pytest.param(1, ["2001:DB8::1"], "2001:db8::1", id="one form of each address"),
    ],
)
def test_address_is_what_our_outermost_proxy_saw(hops: int, sent: list[str], address: str) -> None:
    """Counted from the right: what stands further left the client may have written."""
    assert address_of(request(*sent), hops) == address


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        (["10.0.0.0/8"], "1.1.1.1"),
        (["192.0.2.0/24", "10.0.0.9/32"], "1.1.1.1"),
        (["192.0.2.0/24"], PEER),
        (["2001:db8::/32"], PEER),
    ],
)
def test_only_proxies_of_ours_are_believed(networks: list[str], address: str) -> None:
    """Who reaches the service past the proxies cannot say who they are."""
    proxies = [ip_network(network) for network in networks]
    assert address_of(request("1.1.1.1"), 1, proxies) == address


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
