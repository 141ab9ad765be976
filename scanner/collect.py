"""Runs provider tasks side by side and hands over what each read as soon as it is there.

One task reads one cluster, cloud account or set of files, and may find further tasks on the way. Beside those being
read, two estates are held at most.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from queue import Empty, Full, Queue
from typing import Any

import msgspec

from scanner.inventory import Inventory
from scanner.kube import Source, printable
from scanner.model import Account, Cluster, Collected, Gap, GapReason, PlaneState, utc_now
from scanner.vulnerabilities import Scans

THREADS = "collect"  # name of the threads that read
log = logging.getLogger("kubeposture")


class Estate(msgspec.Struct):
    """What was read of one target: facts and gaps.

    It is of a cluster, else of a cloud account, else of a set of files, told apart by `name`. `scope` is the base of
    finding ids where that is not the cluster's own id; `keys` are what another look at the same cluster would have in
    common with this one, see scanner.clusters; `former` are the ids that it has while less is known of it. `agents` is
    what was found of clouds' own agents inside, by name, and `scans` what sources of vulnerabilities say of images. Of
    those alone an estate may be that holds nothing else.
    """

    name: str
    inventory: Inventory
    cluster: Cluster | None = None
    account: Account | None = None
    scope: str = ""
    keys: list[str] = []
    former: list[str] = []
    agents: dict[str, Collected[dict[str, Any]]] = {}
    scans: Scans = msgspec.field(default_factory=Scans)
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

    It yields what it read, and tasks for what it found on the way. `kinds` are the plurals that would be read; they
    become gaps if it does raise.
    """

    name: str
    read: Callable[[Progress], Iterable[Reading | Task]]
    kinds: frozenset[str]
    provider: str
    lost: Callable[[GapReason, str], Reading] | None = None  # the target unread, where it is no bare cluster

    def unread(self, reason: GapReason, detail: str) -> Reading:
        """The target as it is reported where nothing of it was read: in a plain row where its own would crash too."""
        if self.lost:
            with contextlib.suppress(ValueError, TypeError, LookupError, AttributeError):
                return self.lost(reason, detail)
        return unread(self.name, self.provider, self.kinds, reason, detail)


Show = Callable[[Task, str, int], None]  # the same, of which task


@dataclass(slots=True)
class Pending:
    """A task that has not given all of its own; `given` are the names of the estates that it has."""

    task: Task
    given: list[str] = field(default_factory=list)

    def rest(self, reason: GapReason, detail: str) -> Reading | None:
        """What it still owes, unread; None where that is nothing."""
        reading = self.task.unread(reason, detail)
        plain = not self.task.lost and self.task.provider != "bundle"  # gives one reading
        return None if reading.estate.name in self.given or (plain and self.given) else reading


_TICK = 0.2  # seconds after which a queue that does not move is looked at again


def run(
    tasks: Iterable[Task],
    concurrency: int,
    progress: Show,
    pending: list[Pending] | None = None,
    stop: threading.Event | None = None,
) -> Generator[Reading, None, None]:
    """Readings in the order in which they are complete.

    `pending` always holds the tasks that have not given all of their own, those found on the way included. Closing the
    iterator starts nothing more and does not wait. Raises KeyboardInterrupt between two readings once `stop` is set.
    """
    pending = [] if pending is None else pending
    stop = stop or threading.Event()
    ready: Queue[tuple[Pending, Reading | None]] = Queue(maxsize=1)  # None where the task is done
    closed = threading.Event()

    def hand_over(task: Pending, reading: Reading | None) -> None:
        while not closed.is_set():
            with contextlib.suppress(Full):
                ready.put((task, reading), timeout=_TICK)
                return

    pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix=THREADS)

    def start(task: Task) -> None:
        """Also called by tasks, which are pending themselves meanwhile."""
        entry = Pending(task)
        pending.append(entry)
        with contextlib.suppress(RuntimeError):  # the pool was closed: the task stays pending
            pool.submit(_attempt, entry, progress, start, hand_over)

    try:
        for task in tasks:
            start(task)
        while pending:
            if stop.is_set():
                raise KeyboardInterrupt
            with contextlib.suppress(Empty):
                entry, reading = ready.get(timeout=_TICK)
                if reading is None:
                    pending.remove(entry)
                else:
                    entry.given.append(reading.estate.name)
                    yield reading
    finally:
        closed.set()
        pool.shutdown(wait=not pending, cancel_futures=True)


def _attempt(
    entry: Pending, progress: Show, start: Callable[[Task], None], hand_over: Callable[[Pending, Reading | None], None]
) -> None:
    """Hand over what the task reads, start what it finds, then tell that it is done."""
    task = entry.task
    try:
        for item in task.read(lambda what, n: progress(task, what, n)):
            if isinstance(item, Task):
                start(item)
            else:
                hand_over(entry, item)
    except Exception as error:  # one target's crash may not take the others' results with it
        name = type(error).__name__
        log.error("reading %s crashed: %s", printable(task.name), name, exc_info=log.isEnabledFor(logging.INFO))
        detail = f"internal error while reading: {name}; run with -v and report it"
        hand_over(entry, task.unread(GapReason.BAD_DATA, detail))
    finally:
        hand_over(entry, None)


def unread(name: str, provider: str, kinds: Iterable[str], reason: GapReason, detail: str, id: str = "") -> Reading:
    """A target of which nothing was read is in the report all the same: every kind is a gap."""
    inventory = unread_inventory(kinds, reason, detail)
    cluster = Cluster(
        id=id or f"context:{name}",
        id_source="config" if id else "context",
        provider=provider,
        name=name,
        data_plane=PlaneState.NOT_READ,
        observed_at=utc_now(),
    )
    return Reading(Estate(name, inventory, cluster))


def unread_inventory(kinds: Iterable[str], reason: GapReason, detail: str, permission: str = "") -> Inventory:
    """Nothing but gaps."""
    inventory = Inventory(kinds=sorted(kinds))
    inventory.gaps = [
        Gap(what=kind, reason=reason, detail=detail, permission=permission, time=utc_now()) for kind in inventory.kinds
    ]
    inventory.counts.lists_asked = len(inventory.kinds)
    return inventory
