"""Address ranges that a network rule lets in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What no packet from the internet comes from, as IANA's registries of special addresses have it: a rule that leaves
# out no more than these leaves out nobody.
_NOT_GLOBAL = tuple(
    map(
        ipaddress.ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
            *("224.0.0.0/3", "::/3", "2001:db8::/32", "4000::/2", "8000::/1"),
        ),
    )
)


def parse(text: str) -> _Network:
    """A range or a single address; raises ValueError."""
    return ipaddress.ip_network(text.strip(), strict=False)


def cover_everything(ranges: Iterable[str]) -> bool:
    """Whether they let in all of IPv4's or IPv6's internet, be it in pieces: 0.0.0.0/1 and 128.0.0.0/1. Raises
    ValueError."""
    networks = [*map(parse, ranges), *_NOT_GLOBAL]
    v4 = [n for n in networks if isinstance(n, ipaddress.IPv4Network)]
    v6 = [n for n in networks if isinstance(n, ipaddress.IPv6Network)]
    collapsed = (ipaddress.collapse_addresses(v4), ipaddress.collapse_addresses(v6))
    return any(network.prefixlen == 0 for family in collapsed for network in family)
