"""Sends what waits in the outbox: in batches, again and again while a receiver is away, and around what it refuses."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol

from scanner.history.outbox import AS_IT_IS, Letter
from scanner.history.telling import Damaged, unpacked
from scanner.report.ocsf_event import with_activity
from scanner.sinks import Packed, Refused, Sink, Unavailable, Unusable

PATIENCE = 300.0  # seconds for which a receiver may be away
_BACKOFF, _LONGEST_WAIT = 1.0, 60.0
_PAGE = 500  # events read at once
_BLIND = 20  # events that may be refused one after the other: then something else is wrong
_LONGEST_REASON = 500


class Queue(Protocol):
    """Where events wait. Raises HistoryError."""

    def letters(self, sink: str, after: int, limit: int) -> list[Letter]: ...

    def settle(self, done: Sequence[int], refused: dict[int, str]) -> None: ...


class _Parcel(NamedTuple):
    number: int
    packed: Packed


class _Stopped(Exception):
    """Nothing more can be sent now; says why."""


@dataclass(slots=True)
class Delivery:
    """To one sink, in one thread. `problem` is why something is left, "" where all is sent."""

    name: str
    sink: Sink
    queue: Queue
    stop: threading.Event = field(default_factory=threading.Event)
    show: Callable[[int], None] = lambda sent: None
    say: Callable[[str], None] = lambda problem: None
    patience: float = PATIENCE
    sent: int = 0
    refused: int = 0
    problem: str = ""
    _after: int = 0
    _left: list[Letter] = field(default_factory=list)  # read and not sent
    _in_a_row: int = 0  # events that were refused since one was taken
    _away_since: float | None = None

    def run(self) -> None:
        """Until nothing waits, or nothing can be sent. Raises HistoryError."""
        try:
            while not self.stop.is_set() and (batch := self._next()):
                self._send(batch)
            if self.stop.is_set():
                self.problem = "interrupted"
        except _Stopped as stopped:
            self.problem = str(stopped)
        finally:
            self.sink.close()

    def _next(self) -> list[_Parcel]:
        """As much as one request takes; empty at the end."""
        batch: list[_Parcel] = []
        size, skipped, damaged = 0, [], {}
        while len(batch) < self.sink.most_events:
            if not self._left:
                self._left = self.queue.letters(self.name, self._after, _PAGE)
                if not self._left:
                    break
            letter = self._left[0]
            try:
                packed = self._pack(letter)
            except Damaged as error:
                damaged[letter.number] = str(error)
                packed = None
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                damaged[letter.number] = f"cannot be written for this sink: {type(error).__name__}"
                packed = None
            if packed and batch and size + len(packed.body) > self.sink.most_bytes:
                break
            self._left.pop(0)
            self._after = letter.number
            if packed:
                batch.append(_Parcel(letter.number, packed))
                size += len(packed.body)
            elif letter.number not in damaged:
                skipped.append(letter.number)  # the sink has no place for it
        if skipped or damaged:
            self._settle(skipped, damaged)
        return batch

    def _pack(self, letter: Letter) -> Packed | None:
        event = unpacked(letter.event)
        if letter.activity != AS_IT_IS:
            event = with_activity(event, letter.activity)
        if letter.baseline:
            event["unmapped"] = {**event.get("unmapped", {}), "baseline": True}
        body = self.sink.pack(event)
        return None if body is None else Packed(event["metadata"]["uid"], body)

    def _send(self, batch: Sequence[_Parcel]) -> None:
        """What is refused as a whole is sent in halves, down to the one that will never be taken."""
        try:
            refused = self._attempt(batch)
        except Refused as error:
            if len(batch) > 1:
                half = len(batch) // 2
                self._send(batch[:half])
                self._send(batch[half:])
                return
            refused = {batch[0].packed.uid: str(error)}
        bad = {number: refused[packed.uid][:_LONGEST_REASON] for number, packed in batch if packed.uid in refused}
        taken = [number for number, _ in batch if number not in bad]
        room = len(bad) if taken else _BLIND - self._in_a_row
        why = next(iter(bad.values()), "")
        bad = dict(islice(bad.items(), room))
        self._settle(taken, bad)
        self._in_a_row = 0 if taken else self._in_a_row + len(bad)
        self.sent += len(taken)
        self.show(self.sent)
        if self._in_a_row >= _BLIND:
            raise _Stopped(f"refuses everything: {why}")

    def _attempt(self, batch: Sequence[_Parcel]) -> dict[str, str]:
        attempts = 0
        while True:
            try:
                refused = dict(self.sink.send([parcel.packed for parcel in batch]))
            except Unavailable as error:
                self._wait(error, attempts)
                attempts += 1
            except Unusable as error:
                raise _Stopped(str(error)) from None
            else:
                self._away_since = None
                return refused

    def _wait(self, error: Unavailable, attempts: int) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            self.say(str(error))
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - it is no secret
        wait = max(error.wait or 0.0, min(_LONGEST_WAIT, _BACKOFF * 2**attempts) * jitter)
        if now + wait > self._away_since + self.patience:
            raise _Stopped(str(error))
        if self.stop.wait(wait):
            raise _Stopped("interrupted")

    def _settle(self, done: Sequence[int], refused: dict[int, str]) -> None:
        self.queue.settle(done, refused)
        self.refused += len(refused)
