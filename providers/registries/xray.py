"""What JFrog Xray found in the images of an Artifactory.

Artifactory tells which images there are, Xray what it found in them and when it scanned them. Source of the rules:
JFrog's REST APIs "Artifactory Query Language", "Artifact Summary" (v2, since v1 tells no components) and "Artifact Scan
Status". Non-administrators are shown what they may read and not told what is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Raw

from providers.http import Answer, Http, HttpError, UsageError, check_url, refusal
from providers.registries.api import MOST, platforms
from scanner import wire
from scanner.kube import printable
from scanner.model import Gap, GapReason, utc_now
from scanner.normalize import NotUnderstood, decode
from scanner.vulnerabilities import (
    ImageScan,
    Level,
    Platform,
    Scans,
    Shared,
    Vulnerability,
    distinct,
    level_of,
    time_of,
)

T = TypeVar("T")

SOURCE = "xray"
BATCH = 50  # images of one question
_REPOSITORIES = "/artifactory/api/repositories"
_AQL = "/artifactory/api/search/aql"
_SUMMARY = "/xray/api/v2/summary/artifact"
_STATUS = "/xray/api/v1/artifact/status"
_LISTS = 256 * 1024 * 1024  # bytes; a million manifests
_SUMMARIES = 64 * 1024 * 1024
_LITTLE = 1024 * 1024
_PACKAGES = frozenset({"docker", "oci"})
_KEY = re.compile(r"[\w.-]{1,200}", re.ASCII)
_MANIFEST, _INDEX = "manifest.json", "list.manifest.json"
_BY_DIGEST = re.compile(r"sha256(?::|__)[0-9a-f]{64}")  # a folder, in place of one named by a tag
_ABOUT = re.compile(r"sha256-[0-9a-f]{64}(?:\.\w+)?")  # tags of signatures and the like, which are no images
_HEX = re.compile(r"[0-9a-f]{64}")
_LONGEST_PATH = 1000
_PLACES = 3  # of one image that Xray is asked about: it may index some repositories or paths and others not
_PAIRS = 100_000  # of CVEs and components in one issue
_FAILURES = 3  # failed questions after which no more are asked

# What a scan's status means that is not DONE.
_UNFINISHED = {
    "NOT_SUPPORTED": "unsupported_image",
    "NOT_SCANNED": "not_scanned",
    "PENDING": "in_progress",
    "SCANNING": "in_progress",
    "PARTIAL": "incomplete",
    "FAILED": "failed",
}


class _Repository(wire.Wire, frozen=True):
    key: str
    type: str = ""
    package_type: str = ""

    @property
    def stored(self) -> str:
        """Where what it holds is: a remote repository has a cache."""
        return f"{self.key}-cache" if self.type.upper() == "REMOTE" else self.key

    @property
    def right(self) -> str:
        return f"Read on the repository {self.key}"


class _Item(wire.Wire, frozen=True):
    path: str
    name: str
    sha256: str = ""


class _Range(wire.Wire, frozen=True):
    notification: str | None = None


class _Items(wire.Wire, frozen=True):
    results: tuple[Raw, ...]
    range: _Range | None = None


class _Snake(msgspec.Struct, frozen=True, gc=False):
    """Base of what Xray answers, in the spelling of its fields."""


class _General(_Snake, frozen=True):
    path: str = ""
    sha256: str = ""


class _Artifact(_Snake, frozen=True):
    general: _General
    issues: tuple[Raw, ...] | None = None


class _Error(_Snake, frozen=True):
    identifier: str = ""
    error: str = ""


class _Summary(_Snake, frozen=True):
    artifacts: tuple[Raw, ...] | None = None
    errors: tuple[_Error, ...] | None = None


class _Cve(_Snake, frozen=True):
    cve: str | None = None
    cvss_v3: str | None = None  # the score, a slash and the vector
    cvss_v3_score: str | float | None = None


class _Component(_Snake, frozen=True):
    component_id: str | None = None
    version: str | None = None
    fixed_versions: tuple[str, ...] | None = None


class _Issue(_Snake, frozen=True):
    issue_id: str | None = None
    severity: str | None = None
    cves: tuple[_Cve, ...] | None = None
    components: tuple[_Component, ...] | None = None


class _Scan(_Snake, frozen=True):
    status: str | None = None
    time: str | None = None


class _Details(_Snake, frozen=True):
    sca: _Scan | None = None  # of packages and their vulnerabilities; the others look for something else


class _Status(_Snake, frozen=True):
    overall: _Scan | None = None
    details: _Details | None = None


@dataclass(slots=True)
class _Image:
    """One manifest, or index of manifests, of a repository: every folder that it is in, and the tags among those."""

    repository: str
    digest: str
    index: bool
    paths: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)


def check(url: str, token: str) -> str:
    """The platform's address, as it is used. Raises UsageError where that or the token cannot be used."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError("the access token for JFrog is empty, or holds characters that no token has")
    return check_url(url)


def read(url: str, token: str, request_timeout: float, deadline: float | None = None) -> Iterator[Scans]:
    """The images of one Docker repository after the other, and at last what could not be read.

    `url` is the platform's, `token` an access token; `request_timeout` is how long the server may be silent, in
    seconds, `deadline` the time.monotonic() at which everything ends. Raises UsageError before anything is asked.
    """
    xray = _Xray(check(url, token), token, Http(request_timeout, deadline))
    try:
        yield Scans(asked=[SOURCE])
        for repository in xray.repositories():
            yield from xray.images(repository)
        yield Scans(gaps=xray.gaps)
    finally:
        xray.http.close()


class _Xray:
    """One platform. Its gaps are complete when everything is read."""

    def __init__(self, base: str, token: str, http: Http) -> None:
        self.http = http
        self.gaps: list[Gap] = []
        self._base, self._host = base, urlsplit(base).netloc
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._shared = Shared()
        self._failures = 0  # of one repository
        self._refused = False  # the token: no further question can succeed
        self._indexes: dict[str, list[Platform]] = {}

    # -- requests -----------------------------------------------------------------------------------------------------

    def _get(self, path: str, most: int) -> bytes:
        return self._answer("GET", path, None, "", most)

    def _post(self, path: str, body: bytes, kind: str, most: int) -> bytes:
        """The questions that are asked with POST change nothing."""
        return self._answer("POST", path, body, kind, most)

    def _answer(self, method: str, path: str, body: bytes | None, kind: str, most: int) -> bytes:
        headers = self._headers | ({"Content-Type": kind} if kind else {})
        answer = self.http.ask(method, self._base + path, headers, body, most=most)
        if answer.status != 200:
            raise _refused(self._base + path, answer)
        return answer.body

    def _decoded(self, body: bytes, kind: type[T]) -> T:
        try:
            return decode(body, kind)
        except NotUnderstood as error:
            raise HttpError(GapReason.BAD_DATA, f"an answer of {self._host} is not understood: {error}") from None

    def _failed(self, error: HttpError, about: str, right: str) -> None:
        self._failures += 1
        self._refused = self._refused or error.status == 401
        self._gap(error, about, right)

    def _gap(self, error: HttpError, about: str, right: str) -> None:
        permission = right if error.status == 403 else ""
        self._add(error.reason, f"{about}: {error.detail}", permission)

    def _add(self, reason: GapReason, detail: str, permission: str = "") -> None:
        self.gaps.append(Gap(what=SOURCE, reason=reason, detail=detail, permission=permission, time=utc_now()))

    @property
    def _given_up(self) -> bool:
        return self._refused or self._failures >= _FAILURES

    # -- Artifactory --------------------------------------------------------------------------------------------------

    def repositories(self) -> list[_Repository]:
        """Those that hold images; virtual ones show again what is in others."""
        try:
            found = self._decoded(self._get(_REPOSITORIES, _SUMMARIES), tuple[_Repository, ...])
        except HttpError as error:
            self._failed(error, "repositories", "Read on the repositories")
            return []
        usable = [r for r in found if r.package_type.lower() in _PACKAGES and r.type.upper() != "VIRTUAL"]
        odd = [r.key for r in usable if not _KEY.fullmatch(r.key)]
        if odd:
            self._add(GapReason.BAD_DATA, f"{len(odd)} repositories have names that cannot be: {printable(odd[0])}")
        if not usable:
            self._add(GapReason.NOT_FOUND, f"{self._host} shows this token no Docker repository: it may lack Read")
        return [r for r in usable if _KEY.fullmatch(r.key)]

    def images(self, repository: _Repository) -> Iterator[Scans]:
        """Every image of a repository, in portions."""
        self._failures = 0
        try:
            listed = self._listed(repository)
        except HttpError as error:
            self._gap(error, f"images of {repository.key}", repository.right)
            return
        self._read_indexes(repository, listed)
        yield from self._scans(repository, listed)

    def _listed(self, repository: _Repository) -> list[_Image]:
        """Raises HttpError."""
        names = [{"name": _MANIFEST}, {"name": _INDEX}]
        where = msgspec.json.encode({"repo": repository.stored, "$or": names}).decode()
        query = f'items.find({where}).include("repo","path","name","sha256")'
        found = self._decoded(self._post(_AQL, query.encode(), "text/plain", _LISTS), _Items)
        if found.range and found.range.notification:
            told = printable(found.range.notification)
            self._add(GapReason.BAD_DATA, f"not all images of {repository.key} are listed: {told}")
        items, odd = [], 0
        for raw in found.results:
            try:
                item = decode(raw, _Item)
            except NotUnderstood:
                odd += 1
                continue
            if not _is_sound(item):
                odd += 1
            elif not _ABOUT.fullmatch(item.path.rpartition("/")[2]):
                items.append(item)
        if odd:
            self._add(GapReason.BAD_DATA, f"{odd} images of {repository.key} are listed without a digest or a path")
        return _images(repository, items)

    def _read_indexes(self, repository: _Repository, listed: Iterable[_Image]) -> None:
        """Which platforms they have. Where that cannot be read they are known by their digests alone."""
        odd: list[HttpError] = []
        for image in listed:
            if image.index and image.digest not in self._indexes:
                try:
                    self._indexes[image.digest] = self._entries(f"{repository.stored}/{image.paths[0]}/{_INDEX}", image)
                except HttpError as error:
                    odd.append(error)
                    if error.status != 404 and error.reason is not GapReason.BAD_DATA:
                        break  # nor could the next
        if odd:
            self._gap(odd[0], f"platforms of {len(odd)} images of {repository.key}, the first", repository.right)

    def _entries(self, path: str, image: _Image) -> list[Platform]:
        """Raises HttpError."""
        body = self._get(f"/artifactory/{quote(path)}", MOST)
        if f"sha256:{hashlib.sha256(body).hexdigest()}" != image.digest:
            raise HttpError(GapReason.BAD_DATA, f"{printable(path)} is not what its digest says")
        try:
            return platforms(body) or []
        except NotUnderstood as error:
            raise HttpError(GapReason.BAD_DATA, f"{printable(path)} is not understood: {error}") from None

    # -- Xray ---------------------------------------------------------------------------------------------------------

    def _scans(self, repository: _Repository, listed: list[_Image]) -> Iterator[Scans]:
        """What Xray says of them; of those that it does not know by one path it is asked by another."""
        waiting = deque((image, 0) for image in listed)
        while waiting:
            batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            scans = Scans()
            answers = self._summaries(repository, batch)
            for image, place in batch:
                answer = answers.get(_path(repository, image, place))
                if answer is None or isinstance(answer, _Error):
                    if answer is not None and place + 1 < min(len(image.paths), _PLACES):
                        waiting.append((image, place + 1))
                        continue
                    scan = self._unknown(repository, image, answer)
                else:
                    scan = self._known(repository, image, image.paths[place], answer)
                scans.scans.append(scan)
                if entries := self._indexes.get(image.digest):
                    scans.indexes[image.digest] = entries
            yield scans

    def _summaries(self, repository: _Repository, batch: list[tuple[_Image, int]]) -> dict[str, _Artifact | _Error]:
        """By path. What is not in there was not asked, or not answered."""
        if self._given_up:
            return {}
        paths = {_path(repository, image, place): image for image, place in batch}
        body = msgspec.json.encode({"paths": [f"default/{path}" for path in paths]})
        try:
            given = self._decoded(self._post(_SUMMARY, body, "application/json", _SUMMARIES), _Summary)
            if given.artifacts is None and given.errors is None:
                raise HttpError(GapReason.BAD_DATA, f"an answer of {self._host} says nothing of any image")
            return self._by_path(given, paths)
        except HttpError as error:
            if error.too_large and len(batch) > 1:
                half = len(batch) // 2
                return self._summaries(repository, batch[:half]) | self._summaries(repository, batch[half:])
            self._failed(error, f"images of {repository.key}", repository.right)
            return {}

    def _by_path(self, given: _Summary, paths: Mapping[str, _Image]) -> dict[str, _Artifact | _Error]:
        """An answer names an artifact by where it is, with the Artifactory's own id in front, and by its digest."""
        found: dict[str, _Artifact | _Error] = {}
        for error in given.errors or ():
            found[_asked(error.identifier, paths)] = error
        by_digest = {image.digest: path for path, image in paths.items()}
        for raw in given.artifacts or ():
            try:
                artifact = decode(raw, _Artifact)
            except NotUnderstood:
                continue  # as if nothing had been said of it
            path = _asked(artifact.general.path, paths) or by_digest.get(f"sha256:{artifact.general.sha256}", "")
            found[path] = artifact
        found.pop("", None)
        return found

    def _scan(self, repository: _Repository, image: _Image) -> ImageScan:
        return ImageScan(
            source=SOURCE,
            registry=self._host,
            repository=f"{repository.key}/{image.repository}",
            tags=tuple(sorted(image.tags)),
            digest=image.digest,
            platform="" if image.index else None,
        )

    def _unknown(self, repository: _Repository, image: _Image, answer: _Error | None) -> ImageScan:
        scan = self._scan(repository, image)
        if answer:
            scan.unfinished, scan.detail = "not_scanned", printable(answer.error)
        else:
            scan.unfinished, scan.detail = "incomplete", "Xray was not asked about it, or did not answer"
        return scan

    def _known(self, repository: _Repository, image: _Image, path: str, artifact: _Artifact) -> ImageScan:
        scan = self._scan(repository, image)
        found, broken = self._vulnerabilities(artifact.issues or ())
        scan.vulnerabilities = distinct(found)
        self._add_status(scan, repository, f"{path}/{_INDEX if image.index else _MANIFEST}")
        if broken:
            scan.unfinished, scan.detail = "incomplete", f"{broken} issues of the answer are not understood"
        elif artifact.issues is None and not scan.unfinished:
            scan.unfinished, scan.detail = "incomplete", "the answer holds no list of issues"
        return scan

    def _add_status(self, scan: ImageScan, repository: _Repository, path: str) -> None:
        """Whether Xray has finished, and when. Old versions do not tell: their answers prove no pass."""
        if self._given_up:
            scan.unfinished, scan.detail = "incomplete", "Xray was not asked whether its scan has finished"
            return
        body = msgspec.json.encode({"repo": repository.stored, "path": path})
        try:
            told = self._decoded(self._post(_STATUS, body, "application/json", _LITTLE), _Status)
        except HttpError as error:
            if error.status == 404:
                scan.detail = "Xray does not tell when it scanned the image"
                return
            self._failed(error, f"scans of {repository.key}", repository.right)
            scan.unfinished, scan.detail = "incomplete", "Xray does not tell whether its scan has finished"
            return
        found = (told.details.sca if told.details else None) or told.overall or _Scan()
        scan.scanned_at = time_of(found.time)
        if found.status != "DONE":
            scan.unfinished = _UNFINISHED.get(found.status or "", "incomplete")
            scan.detail = f"Xray's scan is {printable(found.status or 'of no status', 40)}"

    def _vulnerabilities(self, issues: Iterable[Raw]) -> tuple[list[Vulnerability], int]:
        """And how many issues could not be understood."""
        found: list[Vulnerability] = []
        broken = 0
        for raw in issues:
            try:
                found += self._of_issue(decode(raw, _Issue))
            except NotUnderstood:
                broken += 1
        return found, broken

    def _of_issue(self, issue: _Issue) -> Iterator[Vulnerability]:
        """One for each CVE in each component; under Xray's own id where it has none. Raises NotUnderstood."""
        scores = {cve.cve or issue.issue_id or "": _score(cve) for cve in issue.cves or ()} or {
            issue.issue_id or "": None
        }
        if "" in scores:
            raise NotUnderstood("it has no id")
        if len(scores) * len(issue.components or ()) > _PAIRS:
            raise NotUnderstood("it names too many vulnerabilities and components")
        for id, score in scores.items():
            level = _level(issue.severity, score)
            for component in issue.components or (_Component(),):
                package, version = _package(component)
                fixed = ", ".join(v.strip("[]") for v in component.fixed_versions or ())
                yield self._shared.found(id, level, package, version, fixed, score)


def _refused(url: str, answer: Answer) -> HttpError:
    error = refusal(url, answer)
    if answer.status == 401:
        error.detail += ": the access token was not accepted; it may have expired"
    return error


def _is_sound(item: _Item) -> bool:
    """Whether it is where an image is: in a folder of a folder, with a name that means the same to every server."""
    parts = item.path.split("/")
    return (
        item.name in (_MANIFEST, _INDEX)
        and len(item.path) <= _LONGEST_PATH
        and len(parts) > 1
        and not {"", ".", ".."}.intersection(parts)
        and item.path.isascii()
        and item.path.isprintable()
        and bool(_HEX.fullmatch(item.sha256.lower()))
    )


def _images(repository: _Repository, items: Iterable[_Item]) -> list[_Image]:
    """One for each digest of an image's name. A folder named by a digest may be below one named by a tag."""
    items = sorted(items, key=lambda item: (item.path, item.name))
    tagged = {item.path for item in items if item.name == _INDEX}
    found: dict[tuple[str, str], _Image] = {}
    for item in items:
        name, _, folder = item.path.rpartition("/")
        by_digest = _BY_DIGEST.fullmatch(folder)
        if by_digest and name in tagged and "/" in name:
            name = name.rpartition("/")[0]
        digest = f"sha256:{item.sha256.lower()}"
        image = found.setdefault((name, digest), _Image(name, digest, item.name == _INDEX))
        image.paths.append(item.path)
        if not by_digest:
            image.tags.add(folder)
    return list(found.values())


def _path(repository: _Repository, image: _Image, place: int) -> str:
    return f"{repository.stored}/{image.paths[place]}/{_INDEX if image.index else _MANIFEST}"


def _asked(path: str, paths: Mapping[str, Any]) -> str:
    """Which of `paths` is meant, "" for none."""
    path = path.strip("/")
    return path if path in paths else next(filter(paths.__contains__, [path.partition("/")[2]]), "")


def _package(component: _Component) -> tuple[str, str]:
    """Name and version: ids are type://name:version, or the name alone."""
    name, version = component.component_id or "", component.version or ""
    kind, separator, rest = name.partition("://")
    name = rest if separator else name
    if version:
        return name.removesuffix(f":{version}"), version
    if kind and separator and ":" in name:
        name, _, version = name.rpartition(":")
    return name, version


def _score(cve: _Cve) -> float | None:
    given = cve.cvss_v3_score if cve.cvss_v3_score not in (None, "") else (cve.cvss_v3 or "").partition("/")[0]
    try:
        return float(given or "")
    except ValueError:
        return None


def _level(word: str | None, score: float | None) -> Level:
    return level_of("informational" if (word or "").lower() == "information" else word, score)
