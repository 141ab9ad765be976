"""Reports of Trivy and Grype from files, directories and standard input.

A file that cannot be understood becomes a gap, and the rest goes on. Reports are read one after another and forgotten:
what stays are the common records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from msgspec import UNSET, Raw

from providers.files import grype, json_reader, trivy
from providers.files.documents import utf8
from providers.files.image_report import Problem, RawOrUnset, bounded
from providers.files.paths import content, expand, name_of
from scanner.kube import printable
from scanner.model import Gap, GapReason, utc_now
from scanner.normalize import NotUnderstood, decode
from scanner.vulnerabilities import SOURCES, ImageScan, Scans, Shared

WHAT = "vulnerability files"
SUFFIXES = (".json",)
MAX_FILE = 512 * 2**20  # bytes
BATCH = 200  # images
PROBLEMS = 20  # of one file that are told one by one

_RUN = f"{trivy.RUN} or {grype.RUN.removeprefix('run ')}"


class _Header(msgspec.Struct, frozen=True, gc=False):
    """Fields that tell formats apart, all raw."""

    schema: RawOrUnset = msgspec.field(name="SchemaVersion", default=UNSET)
    artifact: RawOrUnset = msgspec.field(name="ArtifactType", default=UNSET)
    name: RawOrUnset = msgspec.field(name="ArtifactName", default=UNSET)
    results: RawOrUnset = msgspec.field(name="Results", default=UNSET)
    cluster: RawOrUnset = msgspec.field(name="ClusterName", default=UNSET)
    summary: RawOrUnset = msgspec.field(name="Findings", default=UNSET)
    matches: RawOrUnset = UNSET
    source: RawOrUnset = UNSET
    cyclonedx: RawOrUnset = msgspec.field(name="bomFormat", default=UNSET)
    spdx: RawOrUnset = msgspec.field(name="spdxVersion", default=UNSET)
    sarif: RawOrUnset = msgspec.field(name="runs", default=UNSET)


def read(paths: Sequence[str], progress: Callable[[str, int], None]) -> Iterator[Scans]:
    """Everything below the paths, some images at a time; never raises for what a file holds.

    A file may hold a report, several one after another, or a list of them.
    """
    shared = Shared()
    count = 0
    batch = Scans()

    def fail(path: str, message: str, what: str = WHAT, reason: GapReason = GapReason.BAD_DATA) -> None:
        detail = printable(f"{name_of(path)}: {message}", 400)
        batch.gaps.append(Gap(what=what, reason=reason, detail=detail, time=utc_now()))

    for path in expand(paths, SUFFIXES, fail):
        progress(path, count)
        try:
            data = content(path, MAX_FILE)
        except FileNotFoundError:
            fail(path, "does not exist", reason=GapReason.NOT_FOUND)
            continue
        except OSError as error:
            fail(path, f"cannot be read: {error.strerror or error}")
            continue
        except ValueError as error:
            fail(path, str(error))
            continue
        for found in _told(_reports(data, shared)):
            if isinstance(found, Problem):
                fail(path, found.message, found.what)
                continue
            batch.scans.append(found)
            count += 1
            if len(batch.scans) == BATCH:
                yield _asked(batch)
                batch = Scans()
    if batch.scans or batch.gaps:
        yield _asked(batch)


def _asked(batch: Scans) -> Scans:
    named = {scan.source for scan in batch.scans} | {gap.what for gap in batch.gaps}
    batch.asked = [source for source in SOURCES if source in named]
    return batch


def _told(found: Iterable[ImageScan | Problem]) -> Iterator[ImageScan | Problem]:
    """A file may hold a million documents that are no reports: of the later ones their number alone is told."""
    problems = 0
    for one in found:
        problems += isinstance(one, Problem)
        if isinstance(one, ImageScan) or problems <= PROBLEMS:
            yield one
    if problems > PROBLEMS:
        yield Problem(WHAT, f"holds {problems - PROBLEMS:,} more that cannot be understood")


def _reports(data: bytes, shared: Shared) -> Iterator[ImageScan | Problem]:
    try:
        text = memoryview(utf8(data))
    except UnicodeDecodeError:
        yield Problem(WHAT, "the text starts like UTF-16 but is not")
        return
    for raw in _documents(text):
        if isinstance(raw, Problem):
            yield raw
        else:
            yield from _report(raw, shared)


def _documents(text: memoryview) -> Iterator[Raw | Problem]:
    """JSON values that follow one another; of lists what they hold."""
    number = 0
    while text or not number:
        number += 1
        try:
            size = _size(text)
        except NotUnderstood as error:
            yield _no_json(text, str(error), number)
            return
        yield from _items(Raw(text[:size]))
        text = text[size:]


def _items(document: Raw) -> list[Raw] | list[Problem]:
    try:
        return decode(document, list[Raw]) or [Problem(WHAT, "holds an empty list")]
    except NotUnderstood:
        return [document]


def _size(text: memoryview) -> int:
    """Length of the JSON value that the text starts with; raises NotUnderstood."""
    try:
        msgspec.json.decode(text, type=Raw)
    except msgspec.DecodeError as error:
        end = json_reader.end_of_first(text, str(error))
        if end is None:
            raise NotUnderstood(printable(error)) from None
        return end
    except RecursionError:
        raise NotUnderstood("nested too deeply") from None
    return len(text)


def _no_json(text: memoryview, problem: str, number: int) -> Problem:
    if not bytes(text[:1000]).strip():
        return Problem(WHAT, "is empty")
    where = f"document {number} " if number > 1 else ""
    return Problem(WHAT, f"{where}is not valid JSON, or was cut off: {problem}")


def _report(raw: Raw, shared: Shared) -> Iterator[ImageScan | Problem]:
    try:
        header = decode(raw, _Header)
    except NotUnderstood as error:
        yield Problem(WHAT, f"is no report: {error}")
        return
    if header.matches is not UNSET and header.source is not UNSET:
        yield from grype.read(raw, shared)
    elif header.cluster is not UNSET and header.summary is UNSET:
        yield from trivy.read_cluster(raw, shared)
    elif header.cluster is not UNSET:
        yield Problem(trivy.TOOL, "is a summary of a cluster: run `trivy k8s --report all --format json`")
    elif header.schema is not UNSET and any(f is not UNSET for f in (header.results, header.artifact, header.name)):
        yield from _trivy(raw, header.schema, shared)
    else:
        yield Problem(WHAT, _stranger(header))


def _trivy(raw: Raw, schema: RawOrUnset, shared: Shared) -> Iterator[ImageScan | Problem]:
    version = bytes(schema) if isinstance(schema, Raw) else b""
    if version == b"2":
        yield from trivy.read(raw, shared)
    else:
        shown = bounded(version.decode("utf-8", "replace"), 20)
        yield Problem(trivy.TOOL, f"has SchemaVersion {shown}, of which nothing is known: only 2 is")


def _stranger(header: _Header) -> str:
    kinds = {
        "a CycloneDX document": header.cyclonedx,
        "an SPDX document": header.spdx,
        "a SARIF document": header.sarif,
    }
    kind = next((name for name, field in kinds.items() if field is not UNSET), "no report of Trivy or Grype")
    return f"is {kind}: {_RUN}"
