"""Lists of allowed ports: "80", "8000-8080", 443."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

_MAX_PORT = 65535
_ITEM = re.compile(r"([0-9]{1,9})(?: *- *([0-9]{1,9}))?")
_AZURE_RANGE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")


class PortRanges(msgspec.Struct, frozen=True):
    """Inclusive ranges of ports; none allow nothing."""

    ranges: tuple[tuple[int, int], ...] = ()

    def allows(self, port: int) -> bool:
        return any(low <= port <= high for low, high in self.ranges)


def parse_ports(items: Iterable[str | int]) -> PortRanges:
    """The ports that a configured list allows.

    An item is a number or "A-B" with 0 <= A <= B <= 65535; -1 is Azure's spelling of "nothing" and adds no port.
    Raises ValueError naming the first item that is neither.
    """
    if isinstance(items, str):  # would be read digit by digit
        raise ValueError(f"expected a list of ports, got the text {items!r}")
    parsed = (_parse_item(item) for item in items)
    return PortRanges(tuple(item for item in parsed if item is not None))


def azure_allows(items: Iterable[str | int], port: int, *, ranges: bool = True) -> bool:
    """Whether Azure Policy's template for Service ports would find `port` in `items`; never raises.

    It compares literally, so " 80", "080", "*" and the number 80 match nothing, and nor does a malformed range.
    Its template for container ports knows no ranges at all: pass `ranges=False`.
    """
    return any(item == str(port) or (ranges and _in_azure_range(item, port)) for item in items)


def _parse_item(item: str | int) -> tuple[int, int] | None:
    text = "" if isinstance(item, bool) else str(item).strip()
    if text == "-1":
        return None
    match = _ITEM.fullmatch(text)
    if not match:
        raise ValueError(f"not a port or a range of ports: {item!r}")
    low, high = int(match[1]), int(match[2] or match[1])
    if not low <= high <= _MAX_PORT:
        raise ValueError(f"not a port or a range of ports from 0 to {_MAX_PORT}: {item!r}")
    return low, high


def _in_azure_range(item: str | int, port: int) -> bool:
    match = _AZURE_RANGE.fullmatch(item) if isinstance(item, str) else None
    return match is not None and int(match[1]) <= port <= int(match[2])
