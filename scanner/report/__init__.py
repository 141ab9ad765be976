"""Reports: one module per output format. Each takes findings one by one, then what is known at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

from scanner.inventory import Counts
from scanner.model import Cluster, Finding, Gap


class ScanInfo(msgspec.Struct):
    id: str
    started_at: datetime
    finished_at: datetime
    profile: str
    complete: bool
    exit_reasons: list[str]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known when the last finding is out. `gaps` are with the cluster they belong to, None for files."""

    scan: ScanInfo
    clusters: list[Cluster]
    gaps: list[tuple[Cluster | None, Gap]]
    counts: Counts
    cluster_counts: Mapping[str, Counts]
    accounts: Mapping[str, int]
    summary: Mapping[str, Any]
    exit_code: int


class Output(Protocol):
    """One place that a report goes to."""

    def add(self, finding: Finding) -> None: ...

    def finish(self, ending: Ending) -> None: ...

    def discard(self) -> None: ...


class OutputError(Exception):
    """A report that cannot be written: one sentence."""


class PipeClosed(Exception):
    """The reader of standard output has seen enough."""


class Destination:
    """Standard output, or a file that replaces the old one only when it is whole.

    `streamed` files are written in place, because their lines are of use while the scan runs.
    """

    def __init__(self, path: str | None, *, streamed: bool = False) -> None:
        self.path = Path(path) if path and path != "-" else None
        self._target = self.path
        if self.path and not streamed:
            self._target = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.file: IO[bytes] = self._target.open("wb") if self._target else sys.stdout.buffer
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None

    def write(self, data: bytes) -> None:
        try:
            self.file.write(data)
        except BrokenPipeError:
            raise PipeClosed from None
        except OSError as error:
            raise OutputError(f"{self.path or 'standard output'}: cannot be written: {error.strerror}") from None

    def close(self) -> None:
        try:
            self.file.flush()
        except BrokenPipeError:
            raise PipeClosed from None
        if self.path and self._target:
            self.file.close()
            os.replace(self._target, self.path)

    def discard(self) -> None:
        """Leave the old file as it was."""
        if self.path and self._target and self._target != self.path:
            self.file.close()
            self._target.unlink(missing_ok=True)
