"""Who counts as one caller where requests are counted by where they come from."""

import ipaddress

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
