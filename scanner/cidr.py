"""Address ranges that a network rule lets in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse(text: str) -> _Network:
    """A range or a single address; raises ValueError."""
    return ipaddress.ip_network(text.strip(), strict=False)


def cover_everything(ranges: Iterable[str]) -> bool:
    """Whether they let in all of IPv4 or all of IPv6, be it in pieces: 0.0.0.0/1 and 128.0.0.0/1. Raises ValueError."""
    networks = [parse(text) for text in ranges]
    v4 = [n for n in networks if isinstance(n, ipaddress.IPv4Network)]
    v6 = [n for n in networks if isinstance(n, ipaddress.IPv6Network)]
    collapsed = (ipaddress.collapse_addresses(v4), ipaddress.collapse_addresses(v6))
    return any(network.prefixlen == 0 for family in collapsed for network in family)
