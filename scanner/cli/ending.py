"""What a scan says at its end: exit code, gates, notes, and all that reports want to know beside findings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from scanner.cli.judge_images import NO_SOURCE
from scanner.cli.options import EXIT_INTERRUPTED
from scanner.matrix import matrix
from scanner.model import Cluster, PlaneState, Status, utc_now
from scanner.report import Ending, ScanInfo, coverage

if TYPE_CHECKING:
    from scanner.cli.judge import Scan

# Several reasons may hold at once: the exit code is the first one's.
EXIT = {"interrupted": EXIT_INTERRUPTED, "nothing_read": 4, "gate_failed": 1, "incomplete": 3, "history_not_written": 3}


def ending_of(scan: Scan) -> Ending:
    """What is known by now."""
    reasons = _exit_reasons(scan)
    code = next((code for reason, code in EXIT.items() if reason in reasons), 0)
    warnings = [*scan.settings.warnings, *scan.warnings]
    profile, complete = scan.settings.profile.name, not is_incomplete(scan)
    info = ScanInfo(scan.id, scan.started_at, utc_now(), profile, complete, reasons, warnings)
    rows = sorted(scan.clusters.rows, key=lambda row: (row.cluster.name, row.cluster.id))
    accounts, regions = coverage(scan.accounts.values())
    unseen = accounts.refused or regions.refused or any(_unseen(row.cluster) for row in rows)
    clusters = [row.cluster for row in rows]
    return Ending(
        scan=info,
        clusters=clusters,
        gaps=scan.gaps,
        counts=scan.counts,
        cluster_counts={id(row.cluster): row.counts for row in rows},
        accounts=accounts,
        regions=regions,
        former=scan.former,
        matrix=matrix(scan.tally, clusters, scan.settings.checks, scan.account_rows),
        summary=scan.tally.summary(bounded=not unseen),
        exit_code=code,
        gate=_gate(scan),
        changes=scan.history.counts if scan.history and not _forgotten(scan) else None,
        lifecycles=scan.history.lifecycles if scan.history else {},
        vulnerable=scan.vulnerable or (),
        resolved=scan.memory.resolved if scan.memory else (),
    )


def notes(scan: Scan) -> Iterator[str]:
    clusters = bool(scan.clusters.rows or scan.accounts)
    if not scan.counts.read and not scan.gaps and not scan.counts.invalid and not clusters:
        hint = " (files must end in .yaml, .yml or .json)" if scan.of_files else ""
        yield f"nothing to judge: no Kubernetes object was found{hint}"
    elsewhere = [
        row.cluster.name
        for row in scan.clusters.rows
        if row.cluster.data_plane is PlaneState.NOT_ASKED and "/connectedclusters/" in row.cluster.id
    ]
    if elsewhere and None in scan.plans_of:
        names = ", ".join(sorted(elsewhere)[:5]) + (f" and {len(elsewhere) - 5} more" if elsewhere[5:] else "")
        yield f"not looked inside clusters connected by Azure Arc ({names}): scan them with `scan kubeconfig`"
    for cloud in sorted({cloud for _, cloud in scan.images.unfit}):
        unfit = sorted(name for name, of in scan.images.unfit if of == cloud)
        check = f"{'k8s' if cloud == 'kubernetes' else cloud}-running-image-vulns"
        some = ", ".join(unfit[:5]) + (f" and {len(unfit) - 5} more" if unfit[5:] else "")
        yield f"images of {some} are not judged: {check} is not selected"
    if scan.tally.unasked:
        yield f"vulnerabilities in images are unknown where {NO_SOURCE}"
    if scan.clusters.rows and any("Secret" in plan.values.get("kinds", ()) for plan in scan.settings.plans):
        yield "Secrets are judged in files only: a cluster is never asked for them"


def decided(scan: Scan) -> int:
    """How many answers there are that say something."""
    return sum(scan.tally.total(s) for s in (Status.FAIL, Status.PASS, Status.NOT_APPLICABLE))


def _exit_reasons(scan: Scan) -> list[str]:
    reasons = ["interrupted"] if scan.interrupted else []
    listed = any(not account.refused for account in scan.accounts.values())  # also where nothing was there
    judged = scan.tally.total(Status.PASS) or scan.tally.total(Status.FAIL)
    reached = judged or scan.counts.read or listed or any(not _unread(row.cluster) for row in scan.clusters.rows)
    if not reached or not (decided(scan) or scan.tally.exempted or scan.tally.unasked):
        reasons.append("nothing_read")
    if _over_gate(scan) or _new_over_gate(scan):
        reasons.append("gate_failed")
    if scan.incomplete:
        reasons.append("incomplete")
    if _forgotten(scan):
        reasons.append("history_not_written")
    return reasons


def _forgotten(scan: Scan) -> bool:
    """Whether the history could not be written."""
    return scan.memory is not None and bool(scan.memory.failed)


def _over_gate(scan: Scan) -> int:
    """Fails of the gate's severity or worse; what only lacks a parameter is not among them."""
    gate = scan.reporting.fail_on
    return sum(n for s, n in scan.tally.failing().items() if s.rank <= gate.rank) if gate else 0


def _new_over_gate(scan: Scan) -> int:
    gate = scan.reporting.fail_on_new
    return scan.history.failing(gate) if gate and scan.history else 0


def _gate(scan: Scan) -> str:
    gate, new = scan.reporting.fail_on, scan.reporting.fail_on_new
    if new and (gate is None or (_new_over_gate(scan) and not _over_gate(scan))):
        over = _new_over_gate(scan)
        if not scan.history:
            return "gate not applied: interrupted, so nobody knows what is new"
        if not over:
            return f"gate passed: nothing new of severity {new} or worse fails"
        return f"gate failed: {over:,} new of severity {new} or worse (--fail-on-new {new}, exit code 1)"
    if gate is None:
        return ""
    over = _over_gate(scan)
    if not over:
        return f"gate passed: nothing of severity {gate} or worse fails"
    return f"gate failed: {over:,} of severity {gate} or worse (--fail-on {gate}, exit code 1)"


def is_incomplete(scan: Scan) -> bool:
    unread = any(not gap.by_policy for _, gap in scan.gaps)
    return bool(unread or scan.counts.invalid or scan.counts.files_failed or scan.tally.total(Status.ERROR)
                or scan.tally.total(Status.UNKNOWN) > scan.tally.unasked)  # fmt: skip


def is_tolerated(scan: Scan) -> bool:
    """Whether what is missing does not count; says why in the scan's warnings."""
    if scan.reporting.allow_incomplete:
        return True
    refused = any(a.refused and not a.closed for a in scan.accounts.values())
    damaged = any(row.cluster.provider == "bundle" for row in scan.clusters.rows)
    if scan.min_coverage is None or refused or damaged:
        return False  # nobody knows what share of all clusters was seen
    # Each gap and each object that was not understood counts as one list or document that was not read.
    read, unread = scan.counts.lists_read, scan.counts.lists_asked - scan.counts.lists_read
    missing = max(unread, len(scan.gaps) + scan.counts.invalid, 1)
    covered = 100 * read / (read + missing)
    scan.warnings.append(f"coverage: {covered:.0f}% of lists and documents were read, {scan.min_coverage:g}% asked for")
    return covered >= scan.min_coverage


def _unread(cluster: Cluster) -> bool:
    return {cluster.control_plane, cluster.data_plane} <= {PlaneState.NOT_READ, PlaneState.NOT_ASKED}


def _unseen(cluster: Cluster) -> bool:
    """Whether there may be any number of things inside that nobody has counted."""
    return PlaneState.NOT_READ in (cluster.data_plane, cluster.state)
