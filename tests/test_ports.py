from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.ports import PortRanges, azure_allows, parse_ports


@pytest.mark.parametrize(
    ("items", "ranges"),
    [
        ([], ()),
        (["-1"], ()),
        ([-1, " -1 "], ()),
        (["80"], ((80, 80),)),
        ([80, " 443 ", "8000-8080"], ((80, 80), (443, 443), (8000, 8080))),
        (["0-65535"], ((0, 65535),)),
        ([" 80 - 90 "], ((80, 90),)),
        (["080"], ((80, 80),)),
        (["-1", "80"], ((80, 80),)),
        (["80-80"], ((80, 80),)),
    ],
)
def test_parse(items: list[str | int], ranges: tuple[tuple[int, int], ...]) -> None:
    assert parse_ports(items) == PortRanges(ranges)


# fmt: off
NOT_PORTS = [
    "*", "http", "-", "-2", "80-", "-80", "80--90", "80-90-100", "90-80", "65536", "0-65536", "8e1", "80.0",
    "0x50", "+80", "80,443", "1_0", "\u0668\u0660", "\uff18\uff10", "99999999999999999999",
]
# fmt: on


@pytest.mark.parametrize("item", [*NOT_PORTS, "", " ", "8 0", -2, 65536, 80.0, True, False, None, [80]])
def test_bad_item_is_named(item: str | int) -> None:
    with pytest.raises(ValueError, match="not a port") as error:
        parse_ports(["80", item])
    assert repr(item) in str(error.value)


def test_text_is_not_a_list() -> None:
    with pytest.raises(ValueError, match="list of ports"):
        parse_ports("8080")


@pytest.mark.parametrize(
    ("port", "items", "allowed"),
    [
        (80, ["-1"], False),
        (80, ["80"], True),
        (80, ["80-90"], True),
        (90, ["80-90"], True),
        (91, ["80-90"], False),
        (80, [], False),
        (80, ["80", "443"], True),
        (8080, ["80"], False),
        (6001, ["80"], False),
        (6001, ["6001"], True),
    ],
)
def test_both_readings_agree(port: int, items: list[str | int], allowed: bool) -> None:
    assert azure_allows(items, port) is allowed
    assert parse_ports(items).allows(port) is allowed


@pytest.mark.parametrize(
    "item", [" 80", "80 ", "*", "080", "+80", "80.0", 80, "-80", "80-", "90-70", "70 - 90", "-1-90"]
)
def test_azure_compares_literally(item: str | int) -> None:
    assert not azure_allows([item], 80)


@pytest.mark.parametrize(
    ("items", "allowed"), [(["80"], True), (["70-90"], False), (["80-80"], False), (["-1"], False), ([], False)]
)
def test_azure_container_ports_know_no_ranges(items: list[str | int], allowed: bool) -> None:
    assert azure_allows(items, 80, ranges=False) is allowed


def test_a_bad_item_does_not_hide_a_good_one_from_azure() -> None:
    assert azure_allows(["x-y", "80"], 80)


ports = st.integers(0, 65535)


@given(st.lists(st.tuples(ports, ports).map(sorted)), ports)
def test_allows_what_a_range_covers(pairs: list[list[int]], port: int) -> None:
    items = [f"{low}-{high}" for low, high in pairs]
    assert parse_ports(items).allows(port) is any(port in range(low, high + 1) for low, high in pairs)
    assert parse_ports(items).allows(port) is azure_allows(items, port)


@given(st.lists(st.one_of(st.text(), st.text("0123456789- ", max_size=12), st.integers())), ports)
def test_parsing_raises_nothing_but_value_error(items: list[str | int], port: int) -> None:
    azure_allows(items, port)
    with suppress(ValueError):
        parse_ports(items).allows(port)
