"""Counting results: by status, severity, check and cluster, and the score."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from scanner.model import Severity, Status

# How much one subject weighs in the score. Microsoft's secure score has no published weights per severity.
WEIGHTS = {Severity.CRITICAL: 10, Severity.HIGH: 6, Severity.MEDIUM: 3, Severity.LOW: 1, Severity.INFO: 0}


class Score(msgspec.Struct):
    value: float | None
    low: float | None
    high: float | None


class Summary(msgspec.Struct):
    by_status: dict[str, int]
    by_severity: dict[str, int]
    by_check: dict[str, dict[str, int]]
    by_cluster: dict[str, dict[str, int]]
    exempted: int
    score: Score


@dataclass(slots=True)
class Tally:
    """Counts every verdict once, exempted ones apart. Gates and score read nothing else."""

    counts: Counter[tuple[str, str, Severity, Status]] = field(default_factory=Counter)  # cluster, check, …
    exempt: Counter[tuple[str, str, Status]] = field(default_factory=Counter)  # the same of exempted ones
    ungated: Counter[Severity] = field(default_factory=Counter)  # fails that never trip a gate
    unasked: int = 0  # unknowns of which nobody set up a source: a scan is complete all the same

    def add(self, cluster: str, check: str, severity: Severity, status: Status, n: int = 1) -> None:
        self.counts[cluster, check, severity, status] += n

    @property
    def exempted(self) -> int:
        return self.exempt.total()

    def add_exempted(self, cluster: str, check: str, status: Status, n: int = 1) -> None:
        self.exempt[cluster, check, status] += n

    def rename(self, clusters: Mapping[str, str]) -> None:
        """Counts of clusters that turned out to be others go to those."""
        for cluster, check, severity, status in [key for key in self.counts if key[0] in clusters]:
            n = self.counts.pop((cluster, check, severity, status))
            self.add(clusters[cluster], check, severity, status, n)
        for cluster, check, status in [key for key in self.exempt if key[0] in clusters]:
            self.add_exempted(clusters[cluster], check, status, self.exempt.pop((cluster, check, status)))

    def failing(self) -> Counter[Severity]:
        """Fails that a gate counts, by severity."""
        fails: Counter[Severity] = Counter()
        for (_, _, severity, status), n in self.counts.items():
            if status is Status.FAIL:
                fails[severity] += n
        return fails - self.ungated

    def total(self, status: Status) -> int:
        return sum(n for key, n in self.counts.items() if key[3] is status)

    def summary(self, *, bounded: bool = True) -> Summary:
        """`bounded` as score() takes it."""
        by_status: Counter[str] = Counter({s.value: 0 for s in Status})
        by_severity: Counter[str] = Counter({s.value: 0 for s in Severity})
        by_check: dict[str, Counter[str]] = defaultdict(Counter)
        by_cluster: dict[str, Counter[str]] = defaultdict(Counter)
        for (cluster, check, severity, status), n in self.counts.items():
            by_status[status.value] += n
            by_check[check][status.value] += n
            by_cluster[cluster][status.value] += n
            if status is Status.FAIL:
                by_severity[severity.value] += n
        return Summary(
            by_status=dict(by_status),
            by_severity=dict(by_severity),
            by_check={k: dict(sorted(v.items())) for k, v in sorted(by_check.items())},
            by_cluster={k: dict(sorted(v.items())) for k, v in sorted(by_cluster.items())},
            exempted=self.exempted,
            score=self.score(bounded=bounded),
        )

    def score(self, *, bounded: bool = True) -> Score:
        """Weighted share of passes, 0 to 100; `low` and `high` take every unknown and error for a fail or a pass.

        `bounded` is whether it is known how much is unknown. It is not where an account or a cluster could not be read,
        as that may hold any number of subjects: the score of everything may then be anything.
        """
        passed = self._weight((Status.PASS,))
        failed = self._weight((Status.FAIL,))
        undecided = self._weight((Status.UNKNOWN, Status.ERROR))
        total = passed + failed + undecided
        value = _percent(passed, passed + failed)
        if not bounded:
            return Score(value, low=0.0, high=100.0)
        return Score(value, low=_percent(passed, total), high=_percent(passed + undecided, total))

    def _weight(self, statuses: Iterable[Status]) -> int:
        return sum(n * WEIGHTS[severity] for (_, _, severity, status), n in self.counts.items() if status in statuses)


def _percent(part: int, whole: int) -> float | None:
    """Rounded down to a tenth, so that 100 means all of it."""
    return part * 1000 // whole / 10 if whole else None
