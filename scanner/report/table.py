"""The report for people, at most 100 columns wide: coverage first, then what fails, grouped by check."""

from __future__ import annotations

import bisect
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from scanner.destination import Destination
from scanner.inventory import Counts
from scanner.kube import printable
from scanner.matrix import Matrix
from scanner.model import (
    Account,
    Changes,
    Cluster,
    ExemptionNote,
    Finding,
    Gap,
    GapReason,
    PlaneState,
    Severity,
    Status,
)
from scanner.report import Coverage, Ending, matrix
from scanner.summary import Score, Summary

WIDTH = 100
EXAMPLES = 4  # objects shown for each check
UNREAD = 12  # refused lists shown
CLUSTERS = 20  # clusters and accounts shown
INDENT = 9
COLOURS = {
    Severity.CRITICAL: "bold white on red",
    Severity.HIGH: "bold red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: "dim",
}
_HEADINGS = {
    Status.FAIL: "Fails",
    Status.ERROR: "Could not be understood",
    Status.UNKNOWN: "Unknown: evidence is missing",
    Status.PASS: "Passes",
    Status.NOT_APPLICABLE: "Not applicable",
}
_STATES = {
    PlaneState.COMPLETE: ("read completely", "green"),
    PlaneState.PARTIAL: ("read in part", "magenta"),
    PlaneState.NOT_READ: ("NOT READ", "bold magenta"),
    PlaneState.NOT_ASKED: ("not asked for", "dim"),
}


class _Where(NamedTuple):
    """The id of the cluster that a finding is about, else its account."""

    id: str
    itself: bool = False  # the place names the cluster already


class _Example(NamedTuple):
    rank: int  # 0 for the worst, which are shown first
    where: _Where
    place: str
    message: str
    source: str  # file and line


@dataclass(slots=True)
class _Group:
    """All findings of one check with one status: only as many objects as are shown are kept."""

    title: str
    severity: Severity
    fix: str
    count: int = 0
    to_configure: bool = False  # there is nothing to fix before a parameter is set
    examples: list[_Example] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        self.count += 1
        self.to_configure = finding.resource.kind in ("Cluster", "Files", "Account")
        if finding.severity.rank < self.severity.rank:
            self.severity = finding.severity
        if len(self.examples) < EXAMPLES or finding.severity.rank < self.examples[-1].rank:
            example = _Example(
                finding.severity.rank,
                _where(finding),
                _place(finding),
                printable(finding.message, 400),
                _source(finding),
            )
            bisect.insort(self.examples, example, key=lambda e: e.rank)
            del self.examples[EXAMPLES:]


class TableOutput:
    def __init__(self, destination: Destination, *, color: bool = True) -> None:
        self._destination = destination
        self._groups: dict[tuple[Status, str], _Group] = {}
        self._unread: Counter[tuple[_Where, str]] = Counter()  # refused list -> checks that it leaves undecided
        self._exempted: list[tuple[_Where, str, ExemptionNote]] = []
        self._several = False  # clusters, accounts or regions: only then is each object shown with its own
        self._labels: dict[str, str] = {}  # cluster id -> what it is called
        self._shared: set[str] = set()  # ids of clusters whose name another one has too
        self._told: set[str] = set()  # clusters and regions of which it has been said that nothing was read
        terminal = destination.is_terminal
        colored = terminal and color and "NO_COLOR" not in os.environ
        self._buffer = io.StringIO()
        self._console = Console(
            file=self._buffer,
            width=min(WIDTH, Console().width) if terminal else WIDTH,
            force_terminal=colored,
            no_color=not colored,
            highlight=False,
            emoji=False,
        )

    def add(self, finding: Finding) -> None:
        if finding.exemption:
            self._exempted.append((_where(finding), f"{_place(finding)}  {finding.check}", finding.exemption))
            return
        if finding.reason == GapReason.NO_SOURCE:
            return  # one note tells it for all
        if finding.status is Status.UNKNOWN and finding.resource.name == "*":
            self._unread[_where(finding), _place(finding)] += 1
            return
        key = (finding.status, finding.check)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(finding.title, finding.severity, finding.remediation)
        group.add(finding)

    def finish(self, ending: Ending) -> None:
        self._several = max(len(ending.clusters), ending.accounts.expected, ending.regions.expected) > 1
        self._name(ending)
        self._coverage(ending)
        for status in _HEADINGS:
            self._section(status)
        self._undecided()
        self._matrix(ending.matrix)
        self._exemptions()
        self._totals(ending.summary)
        self._notes(ending)
        # The layout fills lines up with blanks, which would be in the way when they are copied.
        self._destination.write_text("\n".join(line.rstrip(" ") for line in self._buffer.getvalue().split("\n")))
        self._destination.close()

    # -- parts --------------------------------------------------------------------------------------------------------

    def _name(self, ending: Ending) -> None:
        """What each cluster is called: its name, and what tells it from others of that name."""
        same: dict[str, list[Cluster]] = defaultdict(list)
        for cluster in ending.clusters:
            same[printable(cluster.name, 60)].append(cluster)
        self._told = {cluster.id for cluster in ending.clusters if cluster.data_plane is PlaneState.NOT_READ}
        for name, clusters in same.items():
            self._shared |= {cluster.id for cluster in clusters if len(clusters) > 1}
            for cluster, difference in zip(clusters, _differences(clusters), strict=True):
                self._labels[cluster.id] = f"{printable(name, 40)} ({difference})" if difference else name
        for old, ref in ending.former.items():
            self._labels[old] = self._labels[ref.id]
            for ids in (self._shared, self._told):
                if ref.id in ids:
                    ids.add(old)

    def _coverage(self, ending: Ending) -> None:
        out = self._console
        gaps: dict[int, list[Gap]] = defaultdict(list)
        for owner, gap in ending.gaps:
            gaps[id(owner)].append(gap)
        self._accounts(ending, gaps)
        # Those that lack something first: they are what the reader has to know of.
        rows = ending.clusters
        if len(rows) > CLUSTERS:
            rows = sorted(rows, key=lambda c: (c.state is not PlaneState.NOT_READ, not _lacks(c), not gaps[id(c)]))
        for cluster in rows[:CLUSTERS]:
            out.print(_cluster_line(cluster, self._labels[cluster.id], ending.cluster_counts.get(id(cluster))))
            self._gaps(gaps[id(cluster)], whole=cluster.data_plane is PlaneState.NOT_READ)
        if left := rows[CLUSTERS:]:
            lacking = sum(map(_lacks, left))
            out.print(Text(f"… and {_n(len(left), 'more cluster')}, {lacking or 'none'} of them not read completely"))
        counts = ending.counts
        if counts.files_read or counts.files_failed:
            failed = f", {counts.files_failed} with errors" if counts.files_failed else ""
            skipped = f", {counts.skipped} skipped" if counts.skipped else ""
            out.print(
                Text.assemble(
                    ("Files", "bold"),
                    f"  {_n(counts.files_read, 'file')} read{failed}; {_n(counts.read, 'object')}{skipped}",
                )
            )

    def _accounts(self, ending: Ending, gaps: dict[int, list[Gap]]) -> None:
        """How many clouds' accounts were read, and what was not."""
        out = self._console
        refused = ending.accounts.refused or ending.regions.refused
        read = _read(ending.accounts, "account")
        if ending.regions.expected:
            read += f", {_read(ending.regions, 'region')}"
        found = f"{read} read; {'at least ' if refused else ''}{_n(len(ending.clusters), 'cluster')}"
        if ending.accounts.expected:
            out.print(Text.assemble(("Cloud  ", "bold"), (found, "bold magenta" if refused else "")))
        owners = {id(owner): owner for owner, _ in ending.gaps if isinstance(owner, Account)}
        on_purpose = {key for key in owners if all(gap.by_policy for gap in gaps[key])}
        lacking = sorted((owner for key, owner in owners.items() if key not in on_purpose), key=lambda o: not o.refused)
        for owner in lacking[:CLUSTERS]:
            state = ("read in part", "magenta")
            if owner.refused:
                state = ("CLUSTERS NOT ALL LISTED" if owner.clusters else "NOT READ", "bold magenta")
            kind = "Source " if owner.provider == "images" else "Account "
            out.print(Text.assemble((kind, "bold"), (printable(owner.name, 60), "bold"), "  ", state))
            self._gaps(gaps[id(owner)], whole=owner.refused and not owner.clusters)
        if len(lacking) > CLUSTERS:
            out.print(Text(f"… and {_n(len(lacking) - CLUSTERS, 'more account')} not read completely"))
        for owner in [owners[key] for key in owners if key in on_purpose][:CLUSTERS]:
            out.print(Text.assemble(("Account ", "bold"), (printable(owner.name, 60), "bold"), "  closed in part"))
            for gap in gaps[id(owner)]:
                out.print(_indented(Text(f"{printable(gap.what)} {printable(gap.detail, 400)}"), 2))

    def _gaps(self, gaps: list[Gap], *, whole: bool) -> None:
        for line in _gap_lines(gaps, whole=whole):
            self._console.print(_indented(Text(line, style="magenta"), 2))

    def _section(self, status: Status) -> None:
        """Checks with findings of this status, worst first."""
        groups = sorted(
            ((id, group) for (s, id), group in self._groups.items() if s is status and group.count),
            key=lambda item: (item[1].severity.rank, -item[1].count, item[0]),
        )
        if groups:
            self._console.print()
            self._console.print(Text(_HEADINGS[status], style="bold"))
        for id, group in groups:
            self._group(id, group, status)

    def _group(self, id: str, group: _Group, status: Status) -> None:
        out = self._console
        head = Table.grid(padding=(0, 1), expand=True)
        head.add_column(width=8, no_wrap=True)
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        head.add_row(
            Text(group.severity.value.upper(), style=COLOURS[group.severity]),
            Text.assemble((printable(group.title), "bold"), "\n", (id, "dim")),
            Text(f"{group.count}"),
        )
        out.print()
        out.print(head)
        for e in group.examples:
            source = f"  {e.source}" if e.source else ""
            line = Text.assemble(self._prefix(e.where), e.place, "  ", (e.message, "dim"), (source, "dim cyan"))
            out.print(_indented(line))
        if group.count > len(group.examples):
            out.print(_indented(Text(f"… {group.count - len(group.examples)} more", style="dim")))
        if status is Status.FAIL and not group.to_configure:
            out.print(_indented(Text.assemble(("fix  ", "green"), group.fix)))

    def _undecided(self) -> None:
        """A refused list leaves many checks undecided for one reason: one line each."""
        unread: Counter[tuple[str, str]] = Counter()
        for (where, place), checks in self._unread.items():
            if where.id not in self._told:
                unread[self._prefix(where), place] += checks
        if not unread:
            return
        out = self._console
        out.print()
        out.print(Text("Undecided: not read, so not clean", style="bold"))
        for (prefix, place), checks in list(unread.items())[:UNREAD]:
            line = Text.assemble(prefix, (place, "magenta"), f"  {_n(checks, 'check')} undecided")
            out.print(_indented(line, 2))
        if len(unread) > UNREAD:
            out.print(_indented(Text(f"… {len(unread) - UNREAD} more", style="dim"), 2))

    def _exemptions(self) -> None:
        if not self._exempted:
            return
        out = self._console
        out.print()
        out.print(Text("Exempted", style="bold"))
        for where, place, note in self._exempted[:UNREAD]:
            until = f"until {note.expires}" if note.expires else "for good"
            why = f"  {until}{', ' + note.owner if note.owner else ''}: {note.reason}"
            out.print(_indented(Text.assemble(self._prefix(where), place, (printable(why, 200), "dim")), 2))
        if len(self._exempted) > UNREAD:
            out.print(_indented(Text(f"… {len(self._exempted) - UNREAD} more", style="dim"), 2))

    def _prefix(self, where: _Where) -> str:
        if not where.id or not self._several or (where.itself and where.id not in self._shared):
            return ""
        return f"{self._labels.get(where.id) or printable(where.id, 60)}: "

    def _totals(self, summary: Summary) -> None:
        out, by_status, by_severity = self._console, summary.by_status, summary.by_severity
        out.print()
        out.rule(style="dim")
        line = Text.assemble((f"{by_status['fail']} fail", "bold red" if by_status["fail"] else ""), "  ")
        for severity in Severity:
            if by_severity[severity.value]:
                line.append(f"{by_severity[severity.value]} {severity.value}  ", style=COLOURS[severity])
        line.append(f"· {by_status['unknown']} unknown · {by_status['error']} error · {by_status['pass']} pass")
        if summary.exempted:
            line.append(f" · {summary.exempted} exempted")
        out.print(line)
        out.print(Text(_score(summary.score)))

    def _matrix(self, found: Matrix) -> None:
        """One cluster alone has nothing beside it."""
        if len(found.clusters) < 2:
            return
        self._console.print()
        self._console.print(
            Text(
                "Side by side: the worst answer, how many clusters give it, and how many are not known (?)",
                style="bold",
            )
        )
        for line in matrix.clouds(found):
            self._console.print(Text(line))
        self._console.print(Text("each cluster: scan with -o json=report.json, then kubeposture matrix report.json"))

    def _notes(self, ending: Ending) -> None:
        for warning in ending.scan.warnings:
            self._console.print(Text(f"note: {printable(warning, 300)}", style="yellow"))
        for sentence in _next_steps(self._groups, ending):
            self._console.print(Text(sentence, style="cyan"))
        if ending.changes:
            self._console.print(Text(_changes(ending.changes)))
        if ending.gate:
            self._console.print(
                Text(ending.gate, style="bold red" if "gate_failed" in ending.scan.exit_reasons else "green")
            )


def _changes(changes: Changes) -> str:
    """What is news comes first."""
    news = ("new", "reopened", "changed", "resolved")
    counted = [f"{getattr(changes, name):,} {name}" for name in news]
    others = f"{changes.unchanged:,} unchanged, {changes.incomparable:,} incomparable"
    return f"since earlier scans: {', '.join(counted)}; {others}"


def _indented(content: Text, by: int = INDENT) -> Padding:
    return Padding(content, (0, 0, 0, by), expand=False)


def _place(finding: Finding) -> str:
    r = finding.resource
    if r.name == "*":
        inside = f" in {r.namespace}" if r.namespace and r.namespace != "*" else ""
        text = f"{r.kind}{inside}"
    elif r.kind in ("Cluster", "Files", "Account"):
        text = "to configure:"
    elif r.kind == "Image":
        name, _, digest = r.name.rpartition("@")
        text = f"{printable(name, 120)}@{digest[:19]}"  # as many as tell it apart
    elif r.cloud_id:
        text = f"{r.kind.rpartition('/')[2]}/{printable(r.name, 80)}"
    else:
        container = f" ({printable(r.container, 63)})" if r.container else ""
        text = f"{r.namespace + '/' if r.namespace else ''}{r.kind}/{printable(r.name, 80)}{container}"
        if finding.pods and finding.occurrences > 1:
            text += f", {finding.occurrences:,} pods"
    return printable(text, 300)


def _where(finding: Finding) -> _Where:
    if finding.cluster:
        itself = bool(finding.resource.cloud_id) and finding.resource.name == finding.cluster.name
        return _Where(finding.cluster.id, itself)
    return _Where(printable(f"{finding.account or ''} {finding.region or ''}".strip(), 60))


def _differences(clusters: list[Cluster]) -> list[str]:
    """What tells clusters of one name apart, in few words: account, region, or else the parts of their ids."""
    parts = [(c.account or "", c.region or "", *re.split("[/:]", c.id)) for c in clusters]
    chosen: list[tuple[str, ...]] = [() for _ in clusters]
    for column in zip_longest(*parts, fillvalue=""):
        more = [(*before, value) for before, value in zip(chosen, _shortened(column), strict=True)]
        if len(set(more)) > len(set(chosen)):
            chosen = more
    return [", ".join(filter(None, values)) for values in chosen]


def _shortened(values: tuple[str, ...]) -> list[str]:
    """Ids that are long are told by how they start, where that differs."""
    short = [printable(value if len(value) <= 24 else f"{value[:8]}…", 24) for value in values]
    return short if len(set(short)) == len(set(values)) else [printable(value, 200) for value in values]


def _lacks(cluster: Cluster) -> bool:
    return cluster.state in (PlaneState.PARTIAL, PlaneState.NOT_READ)


def _source(finding: Finding) -> str:
    source = None if finding.resource.kind == "File" else finding.resource.source
    return printable(f"{source.path}:{source.line}", 160) if source else ""


def _cluster_line(cluster: Cluster, label: str, counts: Counts | None) -> Text:
    inside = cluster.data_plane not in (PlaneState.NOT_READ, PlaneState.NOT_ASKED)
    read = f"; {counts.judged:,} judged of {_n(counts.read, 'object')}" if counts and inside else ""
    version = f" {printable(cluster.version, 30)}" if cluster.version else ""
    line = Text.assemble(("Cluster ", "bold"), (label, "bold"), f"{version}  ")
    planes = [("control plane ", cluster.control_plane), ("inside ", cluster.data_plane)]
    if cluster.control_plane is PlaneState.NOT_ASKED:
        planes = [("", cluster.data_plane)]
    elif cluster.control_plane is cluster.data_plane:
        planes = [("both planes ", cluster.data_plane)]
    for i, (name, state) in enumerate(planes):
        words, style = _STATES[state]
        line.append(f"{', ' if i else ''}{name}").append(words, style=style)
    return line.append(read)


def _gap_lines(gaps: list[Gap], *, whole: bool) -> list[str]:
    """Gaps with one cause are one line; where nothing at all was read for one cause, only that is told."""
    causes = {gap.detail for gap in gaps}
    if whole and len(causes) == 1:
        return [printable(detail, 400) + _needed(gaps, detail) for detail in causes]
    merged: dict[tuple[str, str, str], list[Gap]] = {}
    for gap in gaps:
        refused = gap.reason is GapReason.FORBIDDEN and gap.permission  # the right tells it all
        merged.setdefault((gap.reason.value, gap.namespace, "" if refused else gap.detail), []).append(gap)
    lines = []
    for (reason, namespace, detail), same in list(merged.items())[:8]:
        where = "" if namespace == "*" else f" in {namespace}"
        why = detail or ("" if same[0].permission else same[0].detail) or reason
        what = printable(f"not read: {_some([g.what for g in same])}{where}: {why}", 400)
        lines.append(what + _needed(same, why))
    if len(merged) > 8:
        lines.append(f"… and {len(merged) - 8} more gaps: see the JSON report")
    return lines


def _needed(gaps: Iterable[Gap], said: str) -> str:
    """The rights that would close the gaps, but for those that `said` has named already."""
    rights = dict.fromkeys(gap.permission for gap in gaps if gap.permission and gap.permission not in said)
    if not rights:
        return ""
    place = {f" in namespace {right.partition(' in namespace ')[2]}" for right in rights if " in namespace " in right}
    names = _some([right.partition(" in namespace ")[0] for right in rights])
    return printable(f"; needed: {names}{place.pop() if len(place) == 1 else ''}", 400)


def _some(words: list[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def _score(score: Score) -> str:
    if score.value is None:
        return "score: none, nothing was judged"
    if (score.low, score.high) == (0, 100):
        return f"score {score.value} of 100 for what was read; with what was not, anything from 0 to 100"
    unsure = score.low != score.high
    return f"score {score.value} of 100" + (
        f" (between {score.low} and {score.high} with what is unknown)" if unsure else ""
    )


def _next_steps(groups: dict[tuple[Status, str], _Group], ending: Ending) -> list[str]:
    steps = []
    failing = [(g.severity.rank, -g.count, id) for (s, id), g in groups.items() if s is Status.FAIL and g.count]
    if failing:
        steps.append(f"next: kubeposture checks show {min(failing)[2]}")
        steps.append("      add -o json=report.json for every finding with its evidence")
    if not ending.scan.complete:
        code = " (exit code 3)" if ending.exit_code == 3 else ""
        steps.append(f"this scan is incomplete: see above what was not read{code}")
    return steps


def _read(coverage: Coverage, noun: str) -> str:
    """Of how many: 3 accounts, 12 of 14 regions."""
    return f"{f'{coverage.read} of ' if coverage.refused else ''}{_n(coverage.expected, noun)}"


def _n(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
