"""What is known of a project's images: Artifact Registry says which there are, Artifact Analysis what it found in them.

Nothing is asked for here. Pages are translated as they come, as a project may have a million vulnerabilities.
Sources: the REST references of artifactregistry v1 (dockerImages) and containeranalysis v1 (occurrences).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from scanner.image_ref import ImageRef, parse
from scanner.plain import plain
from scanner.vulnerabilities import ImageScan, Level, Platform, Shared, Vulnerability, distinct, level_of, registry_kind

Json = dict[str, Any]

SOURCE = "artifact-analysis"
# Whoever may write occurrences can claim an analysis of an image, but not in the name of Google's own note.
_ANALYSIS = re.compile(r"projects/goog-analysis/(?:locations/[a-z0-9-]+/)?notes/PACKAGE_VULNERABILITY")
_STATES = {
    "": "not_scanned",
    "ANALYSIS_STATUS_UNSPECIFIED": "not_scanned",
    "PENDING": "in_progress",
    "SCANNING": "in_progress",
    "FINISHED_SUCCESS": "",
    "COMPLETE": "",  # another name of the same value
    "FINISHED_FAILED": "failed",
    "FINISHED_UNSUPPORTED": "unsupported_image",
}
_SCANNED = "linux/amd64"  # of a multi-platform image Google scans the first one of these, and no other
_ATTESTATION = "unknown/unknown"  # what BuildKit gives as the platform of what is no image
_IMAGE_TYPES = ("application/vnd.oci.image.", "application/vnd.docker.")
_SIGNATURE = re.compile(r"sha256-[0-9a-f]{64}(?:\.[a-z]+)?")  # tags of what cosign keeps beside an image
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_WORD = re.compile(r"[\w.+-]{1,40}", re.ASCII)
_LONGEST_URI = 1000
_DOCKER = "-docker.pkg.dev"
# The path of a repository that Artifact Registry serves under gcr.io; old projects have the name of a domain before.
_GCR = re.compile(r"(?P<project>[^/]+(?:/[^/]+)??)/(?P<host>(?:[a-z]+\.)?gcr\.io)/(?P<rest>.+)")


class _Unclear(Exception):
    """An entry that is not understood, and why."""


@dataclass(frozen=True, slots=True)
class _Analysis:
    """How far Google is with an image. `unfinished` and `detail` are those of an ImageScan."""

    unfinished: str
    detail: str
    time: datetime | None


@dataclass(slots=True)
class _Image:
    """`listed` is whether Artifact Registry lists it as an image of one platform, and `platform` which that is where an
    index says it; `unclear` is whether anything that is said of it is not understood."""

    ref: ImageRef
    tags: set[str] = field(default_factory=set)
    listed: bool = False
    platform: str | None = None
    analysis: _Analysis | None = None
    found: list[Vulnerability] = field(default_factory=list)
    unclear: bool = False


_Key = tuple[str, str, str]


class Images:
    """Those of one project. Each method takes a page of a list, and says why entries of it were not understood."""

    def __init__(self, project: str) -> None:
        self.indexes: dict[str, list[Platform]] = {}
        self._account, self._path = project, project.replace(":", "/") + "/"
        self._images: dict[_Key, _Image] = {}
        self._artifacts: set[_Key] = set()  # signatures, charts and such
        self._shared = Shared()
        self._unplaced = False  # whether something was found in nobody knows which image

    def take_images(self, page: Iterable[Any]) -> list[str]:
        """Of a repository's dockerImages."""
        return _each(page, self._list)

    def take_analyses(self, page: Iterable[Any]) -> list[str]:
        """Of occurrences of the kind DISCOVERY."""
        return _each(page, self._analyse)

    def take_vulnerabilities(self, page: Iterable[Any]) -> list[str]:
        """Of occurrences of the kind VULNERABILITY. To be asked for after those of DISCOVERY: of an image that is being
        scanned meanwhile not all is among them."""
        return _each(page, self._find)

    def scans(self, *, listed: bool, analysed: bool, found: bool) -> list[ImageScan]:
        """Of every image; an index of several platforms is none. The flags say which lists were read to their end."""
        self._hand_down()
        return [
            self._scan(image, listed=listed, analysed=analysed, found=found)
            for key, image in sorted(self._images.items())
            if image.found or not (key in self._artifacts or image.ref.digest in self.indexes)
        ]

    # -- pages --------------------------------------------------------------------------------------------------------

    def _list(self, item: Json) -> None:
        ref = _reference(item.get("uri"))
        if ref is None or not ref.digest:
            raise _unnamed(item.get("uri"))
        tags, platforms = _tags(item), _platforms(item)
        if _is_artifact(item, tags):
            self._artifacts.add(_key(ref))
            return
        for platform in platforms:
            part = replace(ref, digest=platform.digest)
            if platform.name == _ATTESTATION:
                self._artifacts.add(_key(part))
            else:
                self._listed(part, tags, platform.name or None)
        real = [platform for platform in platforms if platform.name != _ATTESTATION]
        if real:
            self.indexes[ref.digest] = real
        if real or _is_index(item):
            self._image(ref).tags |= tags
        else:
            self._listed(ref, tags)

    def _listed(self, ref: ImageRef, tags: set[str], platform: str | None = None) -> None:
        image = self._image(ref)
        image.listed, image.platform = True, image.platform or platform
        image.tags |= tags

    def _analyse(self, item: Json) -> None:
        if not _ANALYSIS.fullmatch(_text(item, "noteName")):
            return
        ref = _reference(item.get("resourceUri"))
        if ref is None:
            return
        image = self._image(ref)
        try:
            image.analysis = _joined(image.analysis, _analysis(_object(item, "discovery")))
        except _Unclear:
            image.unclear = True
            raise

    def _find(self, item: Json) -> None:
        try:
            ref = _reference(item.get("resourceUri"))
        except _Unclear:
            self._unplaced = True
            raise
        if ref is None:
            return
        image = self._image(ref)
        try:
            for found in self._vulnerabilities(item):
                image.found.append(self._shared.one(found))
        except _Unclear:
            image.unclear = True
            raise

    def _vulnerabilities(self, item: Json) -> Iterator[Vulnerability]:
        """One for each package."""
        told = _object(item, "vulnerability")
        id = _text(item, "noteName").rpartition("/")[2][:100]
        if not id:
            raise _Unclear("a vulnerability has no name")
        if _text(_object(told, "vexAssessment"), "state") == "NOT_AFFECTED":
            return
        issues = told.get("packageIssue") or [{}]
        if not isinstance(issues, list) or not all(isinstance(issue, dict) for issue in issues):
            raise _Unclear("a vulnerability does not say which packages have it")
        cvss = _score(told.get("cvssScore"))
        for issue in issues:
            yield Vulnerability(
                id=self._shared.text(id),
                level=_level(issue, told, cvss),
                package=self._shared.text(_text(issue, "affectedPackage")[:200]),
                installed=self._shared.text(_version(_object(issue, "affectedVersion"))),
                fixed=self._shared.text(_fixed(issue)),
                cvss=cvss,
            )

    def _image(self, ref: ImageRef) -> _Image:
        return self._images.setdefault(_key(ref), _Image(ref, {ref.tag} if ref.tag and not ref.digest else set()))

    # -- scans --------------------------------------------------------------------------------------------------------

    def _hand_down(self) -> None:
        """What Google says of an index of platforms, it says of the one that it scans."""
        for image in [*self._images.values()]:
            scanned = next((p for p in self.indexes.get(image.ref.digest or "", ()) if p.name == _SCANNED), None)
            if scanned:
                part = self._image(replace(image.ref, digest=scanned.digest))
                part.analysis = part.analysis or image.analysis
                part.found, image.found = part.found + image.found, []
                part.unclear |= image.unclear

    def _scan(self, image: _Image, *, listed: bool, analysed: bool, found: bool) -> ImageScan:
        ref, analysis = image.ref, image.analysis
        if analysis is None and analysed:
            analysis = _Analysis("not_scanned", "Google knows of no analysis of it", None)
        elif analysis is None:
            analysis = _Analysis("incomplete", "what Google says of its analysis was not all read", None)
        elif not analysis.unfinished and (image.unclear or self._unplaced or not found):
            analysis = _Analysis("incomplete", "what Google found in it was not all read", analysis.time)
        own = ref.repository.startswith(self._path) and registry_kind(ref.registry) == "gcp"
        return ImageScan(
            source=SOURCE,
            registry=self._shared.text(ref.registry),
            repository=self._shared.text(ref.repository),
            tags=tuple(sorted(image.tags)) if image.tags or (listed and own) else None,
            digest=ref.digest or "",
            platform=image.platform if image.listed else "",
            scanned_at=analysis.time,
            unfinished=analysis.unfinished,
            detail=analysis.detail,
            vulnerabilities=distinct(image.found),
            account=self._account,
        )


def may_hold_images(repository: Json) -> bool:
    """Whether a repository of Artifact Registry has images of its own, as one of an unknown format may."""
    kind, mode = _text(repository, "format"), _text(repository, "mode")
    return kind.upper() in ("", "DOCKER") and mode.upper() != "VIRTUAL_REPOSITORY"


def _each(page: Iterable[Any], take: Callable[[Json], None]) -> list[str]:
    """The first reason stands for all of the page."""
    unclear: list[str] = []
    for item in page:
        try:
            if not isinstance(item, dict):
                raise _unnamed(item)
            take(item)
        except _Unclear as why:
            unclear.append(str(why))
    return unclear[:1]


def _key(ref: ImageRef) -> _Key:
    return ref.registry, ref.repository, ref.digest or f":{ref.tag}"


def _unnamed(entry: object) -> _Unclear:
    return _Unclear(f"an entry names no image: {plain(str(entry)[:200])[:80]!r}")


def _reference(uri: object) -> ImageRef | None:
    """The image that a URI names by its digest, or else its tag; None for what is no image, such as a Maven package.
    Raises _Unclear."""
    if not isinstance(uri, str) or not uri.isprintable() or len(uri) > _LONGEST_URI:
        raise _unnamed(uri)
    ref = parse(uri.removeprefix("https://").removeprefix("http://"))
    ref = replace(ref, digest=ref.digest and ref.digest.lower())
    if (match := _GCR.fullmatch(ref.repository)) and ref.registry.endswith(_DOCKER):
        ref = replace(ref, registry=match["host"], repository=f"{match['project']}/{match['rest']}")
    if ref.digest and _DIGEST.fullmatch(ref.digest):
        return ref
    if uri and not (ref.registry.endswith((_DOCKER, ".gcr.io")) or ref.registry == "gcr.io"):
        return None
    if ref.digest or not (ref.tag and _TAG.fullmatch(ref.tag)):
        raise _unnamed(uri)
    return ref


def _tags(item: Json) -> set[str]:
    tags = item.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in tags):
        raise _Unclear("the tags of an image are none")
    return set(tags)


def _platforms(item: Json) -> list[Platform]:
    """The images that an index lists; none for an image of one platform."""
    parts = item.get("imageManifests") or []
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise _Unclear("the platforms of an image are not understood")
    return [_platform(part) for part in parts]


def _platform(part: Json) -> Platform:
    digest = _text(part, "digest").lower()
    if not _DIGEST.fullmatch(digest):
        raise _Unclear("a platform of an image has no digest")
    words = [_text(part, name) for name in ("os", "architecture", "variant")]
    told = all(words[:2]) and all(_WORD.fullmatch(word) for word in words if word)
    return Platform(digest, "/".join(word for word in words if word) if told else "")


def _is_index(item: Json) -> bool:
    return _text(item, "mediaType").endswith((".image.index.v1+json", ".manifest.list.v2+json"))


def _is_artifact(item: Json, tags: set[str]) -> bool:
    """Whether it is something else than an image: a chart, a signature, a bill of materials."""
    kind = _text(item, "artifactType")
    return bool(kind and not kind.startswith(_IMAGE_TYPES)) or bool(tags and all(map(_SIGNATURE.fullmatch, tags)))


def _analysis(told: Json) -> _Analysis:
    status, time = _text(told, "analysisStatus"), _time(told.get("lastScanTime"))
    unfinished = _STATES.get(status, "incomplete")
    if unfinished:
        said = plain(_text(_object(told, "analysisStatusError"), "message"))
        detail = f"Google says {plain(status)[:60] or 'nothing'} of its analysis"
        return _Analysis(unfinished, f"{detail}: {said}" if said else detail, time)
    if told.get("analysisError"):
        return _Analysis("incomplete", "Google says that there were errors in its analysis", time)
    if told.get("archiveTime"):
        return _Analysis("expired", "Google has archived what it found, and no longer looks for more", time)
    if time is None and _text(told, "continuousAnalysis") == "INACTIVE":
        return _Analysis("stale", "Google no longer looks for more in it, and does not say since when", time)
    return _Analysis("", "", time)


def _joined(one: _Analysis | None, other: _Analysis) -> _Analysis:
    """Of two that Google tells of one image the unfinished, else the later."""
    if one is None:
        return other
    if one.unfinished or other.unfinished:
        return one if one.unfinished else other
    return max((one, other), key=lambda analysis: analysis.time.timestamp() if analysis.time else -math.inf)


def _time(text: object) -> datetime | None:
    try:
        found = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
    return found if found.tzinfo else None


def _level(issue: Json, told: Json, cvss: float | None) -> Level:
    """As Google advises, that of the package before that of the vulnerability, which is the gravest of all packages."""
    words = (_text(issue, "effectiveSeverity"), _text(told, "effectiveSeverity"), _text(told, "severity"))
    rated = (level_of(word) for word in words)
    return next((level for level in rated if level is not Level.UNKNOWN), level_of(None, cvss))


def _score(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and type(value) is not bool and 0 < value <= 10 else None


def _fixed(issue: Json) -> str:
    """The version without the vulnerability; MAXIMUM stands for one that will never be."""
    version = _object(issue, "fixedVersion")
    if _text(version, "kind") == "MAXIMUM":
        return ""
    return _version(version) or ("a later version" if issue.get("fixAvailable") is True else "")


def _version(version: Json) -> str:
    parts = [part for part in (_text(version, "name"), _text(version, "revision")) if part]
    return (_text(version, "fullName") or "-".join(parts))[:100]


def _object(holder: Json, name: str) -> Json:
    """A nested object; an absent one is empty. Raises _Unclear."""
    found = holder.get(name)
    if found is not None and not isinstance(found, dict):
        raise _Unclear(f"{name} is no object")
    return found or {}


def _text(holder: Json, name: str) -> str:
    """A text; an absent one is empty. Raises _Unclear."""
    found = holder.get(name)
    if found is not None and not isinstance(found, str):
        raise _Unclear(f"{name} is no text")
    return found or ""
