"""Exemptions of the configuration file: a field beside a finding's status, never a change of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from fnmatch import fnmatchcase

import msgspec

from scanner.model import ExemptionNote, Finding


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Globs; an exemption matches a finding that every one of them matches. Labels must be equal."""

    cluster: str = "*"
    namespace: str = "*"
    kind: str = "*"
    name: str = "*"
    container: str = "*"
    labels: dict[str, str] = {}


class Exemption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    checks: tuple[str, ...]
    reason: str
    owner: str = ""
    expires: date | None = None
    resources: Resources = msgspec.field(default_factory=Resources)

    def matches(self, finding: Finding, labels: dict[str, str]) -> bool:
        """`labels` are all labels of the resource, not only those that the report shows."""
        cluster = (finding.cluster.name, finding.cluster.id) if finding.cluster else ("",)
        want, r = self.resources, finding.resource
        return (
            any(fnmatchcase(finding.check, pattern) for pattern in self.checks)
            and any(fnmatchcase(c, want.cluster) for c in cluster)
            and fnmatchcase(r.namespace or "", want.namespace)
            and fnmatchcase(r.kind, want.kind)
            and fnmatchcase(r.name, want.name)
            and fnmatchcase(r.container or "", want.container)
            and want.labels.items() <= labels.items()
        )


class Exemptions:
    """The exemptions in force today; remembers which were used, so that the others can be reported."""

    def __init__(self, entries: Iterable[Exemption], today: date) -> None:
        self.entries = tuple(entries)
        self.today = today
        self._used: set[int] = set()

    def note(self, finding: Finding, labels: dict[str, str]) -> ExemptionNote | None:
        """What to write beside a finding; the first exemption that matches and has not expired."""
        for i, entry in enumerate(self.entries):
            if not _expired(entry, self.today) and entry.matches(finding, labels):
                self._used.add(i)
                expires = entry.expires.isoformat() if entry.expires else None
                return ExemptionNote(entry.reason, entry.owner, expires)
        return None

    def warnings(self) -> list[str]:
        """One sentence for each exemption that has expired or matched nothing."""
        sentences = []
        for i, entry in enumerate(self.entries):
            what = f"exemption {i + 1} ({', '.join(entry.checks)}: {entry.reason})"
            if _expired(entry, self.today):
                sentences.append(f"{what} expired on {entry.expires}: its findings count again")
            elif i not in self._used:
                sentences.append(f"{what} matches no finding: remove it, or correct its checks and resources")
        return sentences


def _expired(entry: Exemption, today: date) -> bool:
    """An exemption is in force up to and including its last day."""
    return entry.expires is not None and entry.expires < today
