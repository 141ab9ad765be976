"""Runs provider tasks side by side and hands over what each read as soon as it is there.

One task reads one cluster or one set of files. Beside those being read, two estates are held at most.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from queue import Full, Queue

import msgspec

from scanner.inventory import Inventory
from scanner.kube import Source
from scanner.model import Cluster, Gap, GapReason, PlaneState, utc_now

THREADS = "collect"  # name of the threads that read
log = logging.getLogger("kubeposture")


class Estate(msgspec.Struct):
    """What was read of one target: facts and gaps. Without a cluster it is a set of files, told apart by `name`."""

    name: str
    inventory: Inventory
    cluster: Cluster | None = None
    observed_at: datetime = msgspec.field(default_factory=utc_now)


def _object_line(source: Source, path: str) -> int:
    return source.line


@dataclass(frozen=True, slots=True)
class Reading:
    """An estate, and how to find lines in the files that it came from."""

    estate: Estate
    locate: Callable[[Source, str], int] = _object_line


Progress = Callable[[str, int], None]  # what is being read, objects so far


@dataclass(frozen=True, slots=True)
class Task:
    """One target. `read` may raise only for bugs: whatever the outside world does becomes a gap.

    `kinds` are the plurals that would be read; they become gaps if it does raise.
    """

    name: str
    read: Callable[[Progress], Iterable[Reading]]
    kinds: frozenset[str]
    provider: str


Show = Callable[[Task, str, int], None]  # the same, of which task


def run(
    tasks: Iterable[Task], concurrency: int, progress: Show, done: Callable[[Task], None] = lambda task: None
) -> Generator[Reading, None, None]:
    """Readings in the order in which they are complete; `done` is told of each task that has given all of its own.

    Closing the iterator starts nothing more and does not wait.
    """
    ready: Queue[Reading | Task] = Queue(maxsize=1)
    closed = threading.Event()

    def hand_over(reading: Reading | Task) -> None:
        while not closed.is_set():
            with contextlib.suppress(Full):
                ready.put(reading, timeout=0.2)
                return

    pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix=THREADS)
    running = [pool.submit(_attempt, task, progress, hand_over) for task in tasks]
    left = len(running)
    try:
        while left:
            reading = ready.get()
            if isinstance(reading, Task):
                left -= 1
                done(reading)
            else:
                yield reading
    finally:
        closed.set()
        pool.shutdown(wait=not left, cancel_futures=True)


def _attempt(task: Task, progress: Show, hand_over: Callable[[Reading | Task], None]) -> None:
    """Hand over what the task reads, then the task itself."""
    try:
        for reading in task.read(lambda what, n: progress(task, what, n)):
            hand_over(reading)
    except Exception as error:  # one target's crash may not take the others' results with it
        name = type(error).__name__
        log.error("reading %s crashed: %s", task.name, name, exc_info=log.isEnabledFor(logging.INFO))
        detail = f"internal error while reading: {name}; run with -v and report it"
        hand_over(unread(task.name, task.provider, task.kinds, GapReason.BAD_DATA, detail))
    finally:
        hand_over(task)


def unread(name: str, provider: str, kinds: Iterable[str], reason: GapReason, detail: str, id: str = "") -> Reading:
    """A target of which nothing was read is in the report all the same: every kind is a gap."""
    now = utc_now()
    inventory = Inventory(kinds=sorted(kinds))
    inventory.gaps = [Gap(what=kind, reason=reason, detail=detail, time=now) for kind in inventory.kinds]
    inventory.counts.lists_asked = len(inventory.kinds)
    cluster = Cluster(
        id=id or f"context:{name}",
        id_source="config" if id else "context",
        provider=provider,
        name=name,
        data_plane=PlaneState.NOT_READ,
        observed_at=now,
    )
    return Reading(Estate(name, inventory, cluster))
