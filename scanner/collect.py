"""Runs provider tasks side by side and hands over what each read as soon as it is there.

One task reads one cluster or one set of files. At most `concurrency` estates are held at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

import msgspec

from scanner.kube import Source
from scanner.model import Cluster, Gap, GapReason, PlaneState, utc_now
from scanner.workloads import Inventory

log = logging.getLogger("kubeposture")


class Estate(msgspec.Struct):
    """What was read of one target: facts and gaps. Without a cluster it is a set of files, told apart by `name`."""

    name: str
    inventory: Inventory
    cluster: Cluster | None = None


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

    `kinds` are the plurals that would be read; they become gaps if it does raise. `cluster` is the target's stand-in
    in the report until the real one is known.
    """

    name: str
    read: Callable[[Progress], Iterable[Reading]]
    kinds: frozenset[str]
    provider: str


def run(tasks: Iterable[Task], concurrency: int, progress: Callable[[Task, str, int], None]) -> Iterator[Reading]:
    """Readings in the order in which they are complete."""
    waiting = iter(tasks)
    with ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="collect") as pool:
        running: set[Future[list[Reading]]] = set()
        try:
            while True:
                for task in islice(waiting, concurrency - len(running)):
                    running.add(pool.submit(_attempt, task, progress))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:
            for future in running:
                future.cancel()


def _attempt(task: Task, progress: Callable[[Task, str, int], None]) -> list[Reading]:
    try:
        return list(task.read(lambda what, n: progress(task, what, n)))
    except Exception as error:  # one target's crash may not take the others' results with it
        log.error("reading %s crashed: %s", task.name, type(error).__name__, exc_info=log.isEnabledFor(logging.INFO))
        return [_crashed(task, error)]


def _crashed(task: Task, error: Exception) -> Reading:
    detail = f"internal error while reading: {type(error).__name__}; run with -v and report it"
    inventory = Inventory(kinds=sorted(task.kinds))
    inventory.gaps = [Gap(what=kind, reason=GapReason.BAD_DATA, detail=detail) for kind in sorted(task.kinds)]
    inventory.counts.lists_asked = len(task.kinds)
    cluster = Cluster(
        id=f"{task.provider}:{task.name}",
        id_source="name",
        provider=task.provider,
        name=task.name,
        data_plane=PlaneState.NOT_READ,
        observed_at=utc_now(),
    )
    return Reading(Estate(task.name, inventory, cluster))
