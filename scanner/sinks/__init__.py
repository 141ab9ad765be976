"""Sinks: who is told of findings. One module per receiver; delivery.py sends them what waits.

An event leaves the outbox when its receiver has said that it has it: it may come twice, with the same id, but is not
lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from scanner.report.ocsf_event import Event


class Packed(NamedTuple):
    """One event as its receiver wants it: JSON in UTF-8, on one line, without its end. `uid` is metadata.uid."""

    uid: str
    body: bytes


class Unavailable(Exception):
    """Nothing is known to have been taken, and later it may be. `wait` is for how many seconds the receiver wants to be
    left alone, None where it did not say."""

    def __init__(self, detail: str, wait: float | None = None) -> None:
        super().__init__(detail)
        self.wait = wait


class Refused(Exception):
    """These events will never be taken as they are: sent in smaller batches, some of them may be."""


class Unusable(Exception):
    """Nothing will be taken before somebody changes something: a token, an address, a right. Says what."""


class Sink(Protocol):
    """One receiver. A batch holds at most `most_events` events, and at most `most_bytes` bytes of bodies."""

    most_events: int
    most_bytes: int

    def pack(self, event: Event) -> bytes | None:
        """The body for an OCSF event; None for one that the receiver has no place for."""

    def send(self, batch: Sequence[Packed]) -> Mapping[str, str]:
        """The events that were refused, by uid, with the reason; all others have been taken. Raises Unavailable,
        Refused and Unusable."""

    def close(self) -> None: ...
