"""Reports: one module per output format, all listed in outputs.py.

Each takes findings one by one, then what is known at the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec

from scanner.inventory import Counts
from scanner.matrix import Matrix
from scanner.model import Account, Changes, Cluster, ClusterRef, Finding, Gap, Lifecycle
from scanner.summary import Summary
from scanner.vulnerable import VulnerableImage


class ScanInfo(msgspec.Struct):
    id: str
    started_at: datetime
    finished_at: datetime
    profile: str
    complete: bool
    exit_reasons: list[str]
    warnings: list[str]


class Coverage(msgspec.Struct):
    """Of accounts, or of their regions: `refused` are those whose clusters could not be listed in full."""

    expected: int
    read: int
    refused: int


def coverage(accounts: Iterable[Account]) -> tuple[Coverage, Coverage]:
    """Of accounts, and of the regions that are rows of their own.

    An account is refused where its own row or every region is: of one that is read in some regions the rest is told by
    the regions.
    """
    regions: dict[tuple[str, str], list[bool]] = defaultdict(list)
    whole: dict[tuple[str, str], bool] = {}
    for row in accounts:
        account = (row.provider, row.id)
        if row.region is None:
            whole[account] = row.refused
        else:
            regions[account].append(row.refused)
    refused = [whole.get(account, False) or all(regions.get(account, [False])) for account in {**whole, **regions}]
    return _coverage(refused), _coverage([refused for rows in regions.values() for refused in rows])


def _coverage(refused: list[bool]) -> Coverage:
    return Coverage(len(refused), refused.count(False), refused.count(True))


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known when the last finding is out. `gaps` are with their cluster or account, None for files.

    `former` are ids under which clusters went into findings before it was known which clusters they are, `lifecycles`
    those of findings, by id, that went out with another. `changes` is None without a history. `resolved` are findings
    of earlier scans, with what is left to say of them; nothing where no output asks for them. `vulnerable` are images,
    where single vulnerabilities are asked for: each output may go through them.
    """

    scan: ScanInfo
    clusters: list[Cluster]
    gaps: list[tuple[Cluster | Account | None, Gap]]
    counts: Counts
    cluster_counts: Mapping[int, Counts]  # by identity of the Cluster object: names may repeat
    accounts: Coverage
    regions: Coverage
    former: Mapping[str, ClusterRef]
    summary: Summary
    exit_code: int
    gate: str  # a sentence about --fail-on, "" without
    matrix: Matrix = field(default_factory=Matrix)
    changes: Changes | None = None
    lifecycles: Mapping[str, Lifecycle | None] = field(default_factory=dict)
    vulnerable: Iterable[VulnerableImage] = ()
    resolved: Sequence[Finding] = ()


class Output(Protocol):
    """A report in one format, on its way to one place."""

    def add(self, finding: Finding) -> None: ...

    def finish(self, ending: Ending) -> None: ...
