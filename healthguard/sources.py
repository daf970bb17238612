"""Where a request comes from, and who counts as one caller where requests are counted by that."""

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

from starlette.requests import Request

Network = IPv4Network | IPv6Network

IPV6_NETWORK_BITS = 64
"""One subscriber commonly has a whole /64 network, and with it any number of addresses."""


def source_of(address: str) -> str:
    """
    Return what is counted as one caller: an IPv4 address, the /64 network of an IPv6 one, or the text as it is.

    An IPv4 address in IPv6's form, as a socket for both kinds gives it, is the IPv4 address: all of them share one /64.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return str(ipaddress.ip_network((parsed, IPV6_NETWORK_BITS), strict=False))
        parsed = parsed.ipv4_mapped
    return str(parsed)


def address_of(request: Request, trusted_hops: int, proxies: Sequence[Network] = ()) -> str:
    """
    Return the address that a request comes from, as the outermost proxy of ours saw it.

    Each proxy appends the address that it saw, so ours are counted from the right: what stands further left the client
    may have invented. Where that place is missing or holds no address, the request did not come through them all.

    Args:
        trusted_hops: how many proxies of ours a request passes; 0: none, and the header is not read.
        proxies: where the last of them stands; who connects from elsewhere is not believed. None named: anywhere.
    """
    peer = request.client.host if request.client else "unknown"
    entries = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    if not 0 < trusted_hops <= len(entries) or (proxies and not _within(peer, proxies)):
        return peer
    try:
        return str(ipaddress.ip_address(entries[-trusted_hops].strip()))
    except ValueError:
        return peer


def _within(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)
