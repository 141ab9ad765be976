"""Address ranges that let everyone in."""

import pytest

from scanner import cidr


@pytest.mark.parametrize(
    "ranges",
    [
        ["0.0.0.0/0"],
        ["10.0.0.0/8", "0.0.0.0/0"],
        ["0.0.0.0/1", "128.0.0.0/1"],
        ["128.0.0.0/1", "64.0.0.0/2", "0.0.0.0/2"],
        ["::/0"],
        ["10.0.0.0/8", "8000::/1", "::/1"],
        ["1.2.3.4/0"],  # host bits are set: the length decides
        [" 0.0.0.0/0 "],
    ],
)
def test_everything(ranges):
    assert cidr.cover_everything(ranges)


@pytest.mark.parametrize(
    "ranges",
    [
        [],
        ["0.0.0.0/32"],
        ["0.0.0.0/1"],
        ["0.0.0.0/1", "8000::/1"],
        ["203.0.113.7"],
        ["::1"],
        ["10.0.0.0/8", "fd00::/8"],
    ],
)
def test_less_than_everything(ranges):
    assert not cidr.cover_everything(ranges)


@pytest.mark.parametrize("text", ["", "everyone", "10.0.0.0/33", "10.0.0/8", "0.0.0.0/-1", "10.0.0.0/8,0.0.0.0/0"])
def test_what_is_no_range_is_an_error_and_not_nothing(text):
    with pytest.raises(ValueError, match=r".*"):
        cidr.cover_everything(["10.0.0.0/8", text])
