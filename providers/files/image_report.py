"""What reports of image scanners have in common: the names of an image, its platform, times, and lists of findings."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from scanner.image_ref import ImageRef, parse
from scanner.kube import printable
from scanner.normalize import NotUnderstood, decode
from scanner.vulnerabilities import ImageScan, Level, Shared, Vulnerability

MAX_ID = 100  # characters
MAX_PACKAGE = 200
MAX_VERSION = 100
MAX_NAME = 500  # of an image; no registry takes more than 255 for the path

Identifier = Annotated[str, msgspec.Meta(min_length=1)]
Score = Annotated[float, msgspec.Meta(ge=0, le=10)]
RawOrUnset = Raw | msgspec.UnsetType

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9._]{1,40}")  # of a platform

T = TypeVar("T")


class Problem(NamedTuple):
    """A report, or a part of it, that tells of no image. `what` is the tool, or "vulnerability files"."""

    what: str
    message: str


Reason = tuple[str, str]  # a code, and the same in words; "" where it does not hold


def first_reason(*reasons: Reason) -> Reason:
    """Why a scan has not finished: the first reason that holds, or two empty texts."""
    return next((reason for reason in reasons if reason[1]), ("", ""))


def bounded(value: str | None, limit: int) -> str:
    """Text from a report that is fit to be kept: no longer than the limit, and what does not show is escaped."""
    if value is None or (len(value) <= limit and value.isprintable()):
        return value or ""
    return printable(value, limit)


def digest_of(value: str | None) -> str:
    """A SHA-256 digest in lower case; "" for anything else."""
    found = (value or "")[:80].lower()
    return found if _DIGEST.fullmatch(found) else ""


def platform_of(system: str | None, architecture: str | None, variant: str | None) -> str:
    """Such as "linux/arm64/v8"; "" if not told."""
    parts = [system or "", architecture or "", *([variant] if variant else [])]
    return "/".join(parts) if all(map(_PART.fullmatch, parts)) else ""


def time_of(value: str | None) -> datetime | None:
    """A time that can have been the scan's: with its zone, and not the zero of Go, which is in the year 1."""
    try:
        found = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        return None
    return found.astimezone(UTC) if found.tzinfo and 2000 <= found.year < 9999 else None


@dataclass(slots=True)
class Found:
    """The vulnerabilities of one image, each once; what could not be understood is counted."""

    shared: Shared
    broken: int = 0
    _problem: str = ""
    _by_key: dict[tuple[str, str, str], Vulnerability] = field(default_factory=dict)

    @property
    def incomplete(self) -> Reason:
        entries = "1 entry" if self.broken == 1 else f"{self.broken:,} entries"
        return "incomplete", f"{entries} of the report could not be understood: {self._problem}" if self.broken else ""

    @property
    def vulnerabilities(self) -> list[Vulnerability]:
        return list(self._by_key.values())

    def items(self, raw: RawOrUnset, kind: type[T], rest: Callable[[Raw], T] | None = None) -> Iterator[T]:
        """Those of a list that can be understood: each is decoded alone, and only when it is asked for. `rest` gives
        what is left of one that cannot, or raises NotUnderstood."""
        try:
            raws = () if isinstance(raw, msgspec.UnsetType) else decode(raw, list[Raw] | None)  # type: ignore[arg-type]
        except NotUnderstood as error:
            self.fail(error)
            return
        for one in raws or ():
            try:
                yield decode(one, kind)
            except NotUnderstood as error:
                self.fail(error)
                if rest:
                    with contextlib.suppress(NotUnderstood):
                        yield rest(one)

    def fail(self, error: NotUnderstood) -> None:
        self.broken += 1
        self._problem = self._problem or str(error)

    def add(
        self,
        id: str,
        level: Level,
        package: str | None,
        installed: str | None,
        fixed: str | None,
        cvss: float | None,
    ) -> None:
        """Of several with the same id, package and version the gravest is kept, then the one that can be fixed."""
        text = self.shared.text
        key = (
            text(bounded(id, MAX_ID)),
            text(bounded(package, MAX_PACKAGE)),
            text(bounded(installed, MAX_VERSION)),
        )
        new = Vulnerability(key[0], level, key[1], key[2], text(bounded(fixed, MAX_VERSION)), cvss)
        old = self._by_key.get(key)
        if old is None or (new.level.rank, not new.fixed) < (old.level.rank, not old.fixed):
            self._by_key[key] = self.shared.one(new)


class Names(NamedTuple):
    """What a report calls its image: "repo@sha256:…", "repo:tag", and what the scanner was asked to scan.

    `manifest` is the digest of the one platform that was scanned, "" where the report does not tell it.
    """

    digests: Iterable[str]
    tags: Iterable[str]
    asked: str
    manifest: str = ""


def images(scan: ImageScan, names: Names, tool: str) -> Iterator[ImageScan | Problem]:
    """The scan under every name of its image: each repository and digest, or the tags alone where no digest is known.

    The names share one list of vulnerabilities. A digest "repo@…" may be that of an image of several platforms.
    """
    told = scan.platform or ""
    places = _places([*names.digests, *names.tags]) or _places([names.asked])
    if not (places or names.manifest or scan.config_digest):
        yield Problem(tool, "names no image: it has neither a digest nor a tag nor an image id")
        return
    for (registry, repository), (digests, tags) in (places or {("", ""): ({}, {})}).items():
        if names.manifest:
            digests[names.manifest] = None
        for digest in digests or ("",):
            platform = told or (None if digest and digest == names.manifest else "")
            yield msgspec.structs.replace(
                scan,
                registry=registry,
                repository=repository,
                digest=digest,
                tags=tuple(tags) or None,
                platform=platform,
            )


def _places(names: Iterable[str]) -> dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]]:
    """Digests and tags by registry and repository."""
    found: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for name in names:
        ref = _ref(name)
        if ref is None:
            continue
        digests, tags = found.setdefault((ref.registry, ref.repository), ({}, {}))
        if digest := digest_of(ref.digest):
            digests[digest] = None
        elif ref.tag:
            tags[ref.tag] = None
    return found


def _ref(name: str) -> ImageRef | None:
    """None for what no registry could know: the path of an archive, and Docker's "<none>:<none>"."""
    if len(name) > MAX_NAME or not name.isprintable() or "<none>" in name:
        return None
    ref = parse(name)
    named = digest_of(ref.digest) or (ref.tag and not ref.digest)
    return ref if named and "@" not in ref.repository and not name.startswith((".", "/")) else None
