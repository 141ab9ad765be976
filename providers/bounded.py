"""Answers that end. Time-outs of sockets never fire on a server that sends a byte now and then, and HTTP clients read
whatever comes into memory."""

from __future__ import annotations

import functools
import http.client
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_BODY = 256 * 1024 * 1024  # as it comes, and decoded; the largest pages are about 4 MB


class Endless(Exception):
    """An answer that took too long, or else grew too large. None that HTTP clients catch, wrap or try again."""

    def __init__(self, *, slow: bool) -> None:
        super().__init__("the answer took too long" if slow else "the answer is too large")
        self.slow = slow


@dataclass
class Limit:
    """When an answer has to be over, by time.monotonic(), and how many bytes of it may still be read."""

    at: float = math.inf
    size: int = 0


class _Bounded(io.RawIOBase):
    """A socket's stream that ends at the limit, also while HTTP reads headers or chunk sizes."""

    def __init__(self, raw: Any, sock: Any, limit: Limit) -> None:
        self._raw, self._sock, self._limit = raw, sock, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._limit.at - time.monotonic()
        if left <= 0:
            raise Endless(slow=True)
        usual = self._sock.gettimeout()
        if usual is None or left < usual:
            self._sock.settimeout(left)
        try:
            count: int = self._raw.readinto(buffer) or 0
        except TimeoutError:
            if time.monotonic() < self._limit.at:
                raise
            raise Endless(slow=True) from None
        self._limit.size -= count
        if self._limit.size < 0:
            raise Endless(slow=False)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _response(limit: Callable[[], Limit], sock: Any, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(sock, *args, **kwargs)
    response.fp = io.BufferedReader(_Bounded(response.fp.detach(), sock, limit()), 64 * 1024)
    return response


def pool_classes(classes: dict[str, Any], limit: Callable[[], Limit]) -> dict[str, Any]:
    """A urllib3 manager's `pool_classes_by_scheme` with answers that end. `limit` is called for each answer."""
    return {scheme: _pool_class(kind, limit) for scheme, kind in classes.items()}


def _pool_class(kind: Any, limit: Callable[[], Limit]) -> Any:
    answer = staticmethod(functools.partial(_response, limit))
    connection = type("Connection", (kind.ConnectionCls,), {"response_class": answer})
    return type("Pool", (kind,), {"ConnectionCls": connection})


def for_each_answer(seconds: float) -> Callable[[], Limit]:
    """A limit of its own for each answer, from when its request is sent."""
    return lambda: Limit(time.monotonic() + seconds, MAX_BODY)
