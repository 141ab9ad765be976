"""Reports: one module per output format, all listed in outputs.py.

Each takes findings one by one, then what is known at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from scanner.inventory import Counts
from scanner.model import Account, Cluster, ClusterRef, Finding, Gap
from scanner.summary import Summary


class ScanInfo(msgspec.Struct):
    id: str
    started_at: datetime
    finished_at: datetime
    profile: str
    complete: bool
    exit_reasons: list[str]
    warnings: list[str]


class AccountCoverage(msgspec.Struct):
    expected: int
    read: int
    refused: int


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known when the last finding is out. `gaps` are with their cluster or account, None for files.

    `former` are ids under which clusters went into findings before it was known which clusters they are.
    """

    scan: ScanInfo
    clusters: list[Cluster]
    gaps: list[tuple[Cluster | Account | None, Gap]]
    counts: Counts
    cluster_counts: Mapping[int, Counts]  # by identity of the Cluster object: names may repeat
    accounts: AccountCoverage
    former: Mapping[str, ClusterRef]
    summary: Summary
    exit_code: int
    gate: str  # a sentence about --fail-on, "" without


class Output(Protocol):
    """A report in one format, on its way to one place."""

    def add(self, finding: Finding) -> None: ...

    def finish(self, ending: Ending) -> None: ...
