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
        ["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3"],  # all but what is for multicast, or for nothing
        ["1.0.0.0/8", "2.0.0.0/7", "4.0.0.0/6", "8.0.0.0/5", "16.0.0.0/4", "32.0.0.0/3", "64.0.0.0/2", "128.0.0.0/1"],
        ["0.0.0.0/5", "8.0.0.0/7", "11.0.0.0/8", "12.0.0.0/6", "16.0.0.0/4", "32.0.0.0/3", "64.0.0.0/2", "128.0.0.0/1"],
        ["2000::/3"],
        ["10.0.0.0/8", "2000::/4", "3000::/4"],
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
        ["0.0.0.0/1", "128.0.0.0/2"],
        ["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/4"],
        ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3"],
        ["2000::/4", "8000::/1"],
    ],
)
def test_less_than_everything(ranges):
    assert not cidr.cover_everything(ranges)


@pytest.mark.parametrize("text", ["", "everyone", "10.0.0.0/33", "10.0.0/8", "0.0.0.0/-1", "10.0.0.0/8,0.0.0.0/0"])
def test_what_is_no_range_is_an_error_and_not_nothing(text):
    with pytest.raises(ValueError, match=r".*"):
        cidr.cover_everything(["10.0.0.0/8", text])
