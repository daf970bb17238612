"""Where a request comes from, behind proxies that are ours and others that are not."""

import pytest
from starlette.requests import Request

from auth.deps import address_of


@pytest.mark.parametrize(
    ("hops", "forwarded", "source"),
    [
        pytest.param(1, ["198.51.100.7"], "198.51.100.7", id="the gateway saw the client"),
        pytest.param(1, ["10.9.9.9, 198.51.100.7"], "198.51.100.7", id="what the client invented is not looked at"),
        pytest.param(2, ["10.9.9.9, 198.51.100.7, 10.0.0.2"], "198.51.100.7", id="an ingress before the gateway"),
        pytest.param(2, ["10.9.9.9, 198.51.100.7", "10.0.0.2"], "198.51.100.7", id="in two headers"),
        pytest.param(2, ["198.51.100.7"], "192.0.2.50", id="fewer entries than proxies"),
        pytest.param(1, [], "192.0.2.50", id="no header"),
        pytest.param(0, ["198.51.100.7"], "192.0.2.50", id="no proxy of ours"),
        pytest.param(1, ["x" * 1000], "x" * 64, id="an endless entry"),
    ],
)
def test_address_of(hops: int, forwarded: list[str], source: str) -> None:
    """The source is the address that our outermost proxy saw, else the peer's."""
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    request = Request({"type": "http", "headers": headers, "client": ("192.0.2.50", 40000)})

    assert address_of(request, hops) == source
