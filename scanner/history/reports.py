"""Compares two JSON reports as scans are compared, by what they say themselves."""

from __future__ import annotations

from pathlib import Path

import msgspec

from scanner.config import ConfigError
from scanner.history.lifecycle import Change, Clean, Cover, Tonight, compare
from scanner.history.recorder import digest_of, seconds_of, seen_of
from scanner.kube import printable
from scanner.model import Finding, Status
from scanner.summary import Summary


class _Gap(msgspec.Struct):
    namespace: str
    cluster_id: str | None


class _Scan(msgspec.Struct):
    exit_reasons: list[str]


class Report(msgspec.Struct):
    """What of a JSON report is compared."""

    scan: _Scan
    gaps: list[_Gap]
    summary: Summary
    findings: list[Finding]


LISTED = (Status.FAIL, Status.UNKNOWN, Status.ERROR)


def read(path: Path) -> Report:
    """Raises ConfigError for what is no report, and for one that leaves out what it found."""
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except OSError as error:
        raise ConfigError(f"{printable(path)}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{printable(path)}: is no JSON report of this kubeposture: scan with -o json=FILE") from None
    counted = sum(report.summary.by_status.get(status.value, 0) for status in LISTED) + report.summary.exempted
    if counted > sum(finding.status in LISTED for finding in report.findings):
        raise ConfigError(f"{printable(path)}: does not list all that it found: scan without --status, or --status all")
    return report


def compare_reports(old: Report, new: Report) -> dict[str, Change]:
    """By finding id. A finding is resolved where the new report lists a better answer for it, with the same parameters
    and no gap in its place."""
    before = _tonight(old)
    known = {id: change.after for id, change in compare({}, before, {}) if change.after}
    return dict(compare(known, _tonight(new), {place: cover.observed for place, cover in before.covers.items()}))


def _tonight(report: Report) -> Tonight:
    tonight = Tonight()
    anywhere = frozenset("*" for _ in report.gaps)
    for finding in report.findings:
        place = finding.cluster.id if finding.cluster else finding.account or "files"
        params = digest_of([(p.name, p.value) for p in finding.parameters])
        own = {gap.namespace for gap in report.gaps if finding.cluster and gap.cluster_id == place}
        # A source of vulnerabilities is of no cluster.
        refused = anywhere if finding.category == "vulnerability" or not finding.cluster else frozenset(own)
        observed = seconds_of(finding.observed_at)
        if (place, finding.check) not in tonight.covers:
            tonight.cover((place, finding.check), Cover(params=params, observed=observed, refused=refused))
        if finding.status in LISTED:
            tonight.seen[finding.id] = seen_of(finding, place, params, observed)
        else:
            for id in (finding.id, *finding.previous_ids):
                tonight.clean[id] = Clean(place, finding.check, finding.resource.namespace or "", params)
    return tonight
