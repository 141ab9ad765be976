"""What Microsoft Defender for Cloud found in images, as Azure Resource Graph tells it.

Grouped recommendations are one assessment of a registry, cluster, image or container, with a sub-assessment for each
vulnerability; since July 2026 individual ones take their place, an assessment for each package of an image. Until
neither is left both are read, and what they say of one image is one scan.
Source: learn.microsoft.com/azure/defender-for-cloud, subassessment-rest-api and
transition-grouped-individual-recommendations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from providers.azure.errors import ArmError
from providers.azure.reader import Permissions
from providers.azure.session import MAX_PAGES
from scanner import image_ref
from scanner.kube import printable
from scanner.model import Gap, GapReason, utc_now
from scanner.plain import plain
from scanner.vulnerabilities import ImageScan, Level, Scans, Shared, Vulnerability, level_of

Json = dict[str, Any]

SOURCE = "defender"
NAME = "Microsoft Defender for Cloud"
# Resource Graph itself asks for no right: it leaves out each row that one may not read.
ACTIONS = ("Microsoft.Security/assessments/read", "Microsoft.Security/assessments/subAssessments/read")
REGISTRIES = {"AzureCloud": "azurecr.io", "AzureUSGovernment": "azurecr.us", "AzureChinaCloud": "azurecr.cn"}
BATCH = 250  # subscriptions asked about at once: fewer than 300 are recommended
PAGE = 1000  # rows, the most that there are in one
LATER = "a later version"  # where a fix is said to exist, but not in which version
_TOO_LARGE = "ResponsePayloadTooLarge"  # more than 16 MB
_NONE_VISIBLE = "NoValidSubscriptionsInQueryRequest"  # in place of a 403
_EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)  # .NET writes the year 1 for a time that is not known

# Assessment keys: generally available, preview, former preview, and by Qualys.
_OF_REGISTRIES = (
    "c0b7cfc6-3172-465a-b378-53c7ff2cc0d5",  # Azure
    "33422d8f-ab1e-42be-bc9a-38685bb567b9",
    "dbd0cb49-b563-45e7-9724-889e799fa648",
    "c27441ae-775c-45be-8ffa-655de37362ce",  # AWS
    "2a139383-ec7e-462a-90ac-b1b60e87d576",
    "5cc3a2c1-8397-456f-8792-fe9d0d4c9145",  # Google Cloud
    "24e37609-dcf5-4a3b-b2b0-b7d76f2e4e04",
)
_OF_CONTAINERS = (
    "c609cf0f-71ab-41e9-a3c6-9a1f7fe1b8d5",  # Azure
    "c5045ea3-afc6-4006-ab8f-86c8574dbf3d",
    "e9acaf48-d2cf-45a3-a6e7-3caa2ef769e0",
    "41503391-efa5-47ee-9282-4eff6131462c",
    "682b2595-d045-4cff-b5aa-46624eb2dd8f",  # AWS
    "8749bb43-cd24-4cf9-848c-2a50f632043c",
    "d5d1e526-363a-4223-b860-f4b6e710859f",
    "e538731a-80c8-4317-a119-13075e002516",  # Google Cloud
    "1b3abfa4-9e53-46f1-9627-51f2957f8bba",
    "c7c1d31d-a604-4b86-96df-63448618e165",
)
_LISTED = ", ".join(f"'{key}'" for key in (*_OF_REGISTRIES, *_OF_CONTAINERS))
# Docker Hub and JFrog have no documented type of their own: they end like the others.
FINDINGS = f"""securityresources
| where type =~ 'microsoft.security/assessments/subassessments'
| extend key = tolower(extract(@'(?i)/providers/Microsoft\\.Security/assessments/([^/]+)', 1, id))
| extend assessed = tostring(properties.additionalData.assessedResourceType)
| where key in ({_LISTED}) or assessed endswith 'ContainerRegistryVulnerability'
| project id, subscriptionId,
    finding = properties.id,
    title = properties.displayName,
    status = properties.status,
    generated = properties.timeGenerated,
    resource = properties.resourceDetails,
    artifact = properties.additionalData.artifactDetails,
    cve = properties.additionalData.vulnerabilityDetails.cveId,
    severity = properties.additionalData.vulnerabilityDetails.severity,
    scores = properties.additionalData.vulnerabilityDetails.cvss,
    score = properties.additionalData.cvssV30Score,
    package = properties.additionalData.softwareDetails.packageName,
    installed = properties.additionalData.softwareDetails.version,
    fixed = properties.additionalData.softwareDetails.fixedVersion,
    fix = properties.additionalData.softwareDetails.fixStatus,
    oldDigest = properties.additionalData.imageDigest,
    oldRepository = properties.additionalData.repositoryName,
    oldCves = properties.additionalData.cve,
    oldScores = properties.additionalData.cvss,
    patchable = properties.additionalData.patchable
| order by id asc"""
ASSESSMENTS = f"""securityresources
| where type =~ 'microsoft.security/assessments'
| extend category = tostring(properties.metadata.recommendationCategory)
| extend assessed = tostring(properties.resourceDetails.ResourceType)
| where tolower(name) in ({_LISTED})
    or (category =~ 'SoftwareUpdate' and (assessed endswith 'containerimage' or assessed endswith 'container'))
| project id, subscriptionId,
    title = properties.displayName,
    status = properties.status,
    severity = properties.metadata.severity,
    resource = properties.resourceDetails,
    image = properties.resourceAdditionalData,
    package = properties.additionalData.SoftwareName,
    installed = properties.additionalData.DetectedSoftwareVersions,
    scanners = properties.additionalData.ScannersDetails,
    fixed = properties.additionalData.FixedVersion,
    cves = properties.additionalData.CvesDetails
| order by id asc"""

_KEY = re.compile(r"/providers/microsoft\.security/assessments/([^/]+)", re.IGNORECASE)
_REGISTRY = re.compile(r"/providers/microsoft\.containerregistry/registries/([a-z0-9-]+)(?:/|$)", re.IGNORECASE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}(?![0-9a-z])")
_PROJECT = re.compile(r"(?:^|/)projects/([^/]+)/")
_AWS_ACCOUNT = re.compile(r"(\d{12})\.dkr[.-]ecr")
_DOCKER_HUB = frozenset({"hub.docker.com", "registry.hub.docker.com"})
_INDEXES = ("manifest.list.v2+json", "image.index.v1+json")


class Graph(Protocol):
    def graph(self, query: Json) -> Json: ...


def read(
    session: Graph,
    subscriptions: Iterable[str],
    allowed: Callable[[str], Permissions],
    domain: str,
    progress: Callable[[int], None],
) -> Scans:
    """What Defender says of the images that it knows in these subscriptions and in what is connected to them.

    `allowed` tells what the identity may do in a subscription, `domain` is that of this cloud's registries; `progress`
    takes the number of rows so far. Resource Graph holds what Defender said last, and not when that was: the time of a
    scan is the latest that its rows tell, and Defender may have looked again since. Without rows and gaps nobody was
    `asked`: whether Defender is off or finds nothing cannot be told.
    """
    names = sorted(set(subscriptions))
    images, gaps, rows = _Images(domain), _Gaps(), 0
    for query, take in ((FINDINGS, images.take_finding), (ASSESSMENTS, images.take_assessment)):
        for start in range(0, len(names), BATCH):
            try:
                for page in _pages(session, query, names[start : start + BATCH]):
                    for row in page:
                        if isinstance(row, dict):
                            take(row)
                        else:
                            gaps.add(GapReason.BAD_DATA, "an entry of the answer is no object")
                    rows += len(page)
                    progress(rows)
            except ArmError as error:
                refused = error.status in (403, 404) or error.code == _NONE_VISIBLE
                reason = GapReason.FORBIDDEN if error.code == _NONE_VISIBLE else error.reason
                gaps.add(reason, error.detail, error.action or (ACTIONS[0] if refused else ""))
    # What is in nobody knows which image may be in any of them.
    scans = images.scans(incomplete=bool(gaps.found) or images.nameless)
    if images.nameless:
        gaps.add(GapReason.BAD_DATA, "Defender tells of vulnerabilities without saying in which image")
    gaps.add_unproven({name: allowed(name) for name in names})
    return Scans(asked=[SOURCE] if rows or gaps.found else [], scans=scans, gaps=gaps.found)


def unread(reason: GapReason, detail: str) -> Scans:
    """In place of what was not read at all."""
    gaps = _Gaps()
    gaps.add(reason, detail)
    return Scans(asked=[SOURCE], gaps=gaps.found)


class _Gaps:
    """Each once, however many batches it is of."""

    def __init__(self) -> None:
        self.found: list[Gap] = []
        self._known: set[tuple[str, ...]] = set()

    def add(self, reason: GapReason, detail: str, permission: str = "") -> None:
        if (key := (reason, detail, permission)) not in self._known:
            self._known.add(key)
            self.found.append(
                Gap(what=SOURCE, reason=reason, detail=plain(detail), permission=permission, time=utc_now())
            )

    def add_unproven(self, allowed: Mapping[str, Permissions]) -> None:
        """For the subscriptions of which rows may be missing, as Resource Graph does not say what it leaves out."""
        lacking: dict[tuple[GapReason, str, str], list[str]] = {}
        for name, permissions in allowed.items():
            for right in ACTIONS:
                if permissions.allows(right):
                    continue
                why = GapReason.FORBIDDEN, right, "the right to read is not held in the whole subscription"
                if gap := permissions.unread:
                    why = gap.reason, gap.permission, f"whether all may be seen could not be asked: {gap.detail}"
                if name not in (names := lacking.setdefault(why, [])):
                    names.append(name)
        for (reason, right, detail), names in lacking.items():
            more = f" and {len(names) - 2} more" if names[2:] else ""
            self.add(reason, f"rows of subscription {', '.join(names[:2])}{more} may be missing: {detail}", right)


# -- pages ------------------------------------------------------------------------------------------------------------


def _pages(session: Graph, query: str, subscriptions: list[str]) -> Iterator[list[Any]]:
    """Every page; all anew in smaller ones where one would have been too large. Raises ArmError."""
    size = PAGE
    while True:
        try:
            yield from _pages_of(session, query, subscriptions, size)
            return
        except ArmError as error:
            if error.code != _TOO_LARGE or size == 1:
                raise
            size = max(1, size // 4)


def _pages_of(session: Graph, query: str, subscriptions: list[str], size: int) -> Iterator[list[Any]]:
    options: Json = {"resultFormat": "objectArray", "$top": size}
    tokens: set[str] = set()
    rows = 0
    while len(tokens) < MAX_PAGES:
        answer = session.graph({"subscriptions": subscriptions, "query": query, "options": options})
        page, total, truncated = (answer.get(key) for key in ("data", "totalRecords", "resultTruncated"))
        if not isinstance(page, list) or not isinstance(total, int) or truncated not in (True, False, "true", "false"):
            raise ArmError(GapReason.BAD_DATA, "Resource Graph did not answer with a list of rows")
        yield page
        rows += len(page)
        token = answer.get("$skipToken")
        if token is None or token == "":
            if rows < total or truncated in (True, "true"):
                raise ArmError(GapReason.BAD_DATA, f"Resource Graph gave {rows:,} of {total:,} rows")
            return
        if not isinstance(token, str) or token in tokens:
            raise ArmError(GapReason.BAD_DATA, "Resource Graph leads back to a page that was already read")
        tokens.add(token)
        options = {**options, "$skipToken": token}
    raise ArmError(GapReason.BAD_DATA, f"Resource Graph has more than {MAX_PAGES:,} pages")


# -- images -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Image:
    """What the rows of one image say together.

    `judged` is whether any says what Defender found, `called_bad` whether one calls the image vulnerable without naming
    anything, `unclear` whether one cannot be understood, `left_out` why one judges nothing.
    """

    scan: ImageScan
    found: set[Vulnerability] = field(default_factory=set)
    judged: bool = False
    called_bad: bool = False
    unclear: bool = False
    left_out: str = ""

    def take(self, status: Json, times: Iterable[Any], found: list[Vulnerability], tags: Any = None) -> None:
        """One row: a vulnerability, a package, or the image itself, of which `found` is empty."""
        code = str(status.get("code") or "").lower()
        why = f"{status.get('cause') or ''} {status.get('description') or ''}".strip()
        # Exempt is what somebody accepted, but also all that a recommendation names once it is switched off itself.
        exempt = str(status.get("cause")).lower() == "exempt" and "parent" not in why.lower()
        if code == "notapplicable" and not exempt:
            self.left_out = self.left_out or printable(why or code)
            return
        if code not in ("healthy", "unhealthy", "notapplicable"):
            self.unclear = True
            return
        self.judged = True
        if code == "unhealthy":
            self.found.update(found)
            self.called_bad = self.called_bad or not found
        when = max(filter(None, map(_time, times)), default=None)
        newest = self.scan.scanned_at
        if isinstance(tags, list) and (self.scan.tags is None or (when and (not newest or when > newest))):
            self.scan.tags = tuple(printable(tag, 128) for tag in tags[:1000] if isinstance(tag, str))
        if when and (not newest or when > newest):
            self.scan.scanned_at = when

    def merge(self, other: _Image) -> None:
        self.found |= other.found
        self.judged, self.called_bad = self.judged or other.judged, self.called_bad or other.called_bad
        self.unclear, self.left_out = self.unclear or other.unclear, self.left_out or other.left_out
        times = [when for when in (self.scan.scanned_at, other.scan.scanned_at) if when]
        self.scan.scanned_at = max(times, default=None)

    def finish(self, *, incomplete: bool) -> ImageScan:
        self.scan.vulnerabilities = _distinct(self.found)
        if incomplete:
            self.scan.unfinished, self.scan.detail = "incomplete", "not all of what Defender says could be read"
        elif self.unclear:
            self.scan.unfinished, self.scan.detail = "incomplete", "not all that Defender says of it is understood"
        elif self.called_bad and not self.found:
            self.scan.unfinished = "incomplete"
            self.scan.detail = "Defender calls it vulnerable, and no vulnerability is named that may be read"
        elif not self.judged:
            self.scan.unfinished = "not_scanned"
            self.scan.detail = f"Defender does not judge it: {self.left_out}"
        return self.scan


class _Images:
    """By registry, repository, and digest or tags. `nameless` is whether a vulnerability was of an unknown image."""

    def __init__(self, domain: str) -> None:
        self._domain = domain
        self._images: dict[tuple[str, ...], _Image] = {}
        self._shared = Shared()
        self.nameless = False

    def take_finding(self, row: Json) -> None:
        """A sub-assessment: one vulnerability of a package of an image."""
        status, artifact = _keys(row.get("status")), _keys(row.get("artifact"))
        image = self._image(
            row,
            host=artifact.get("registryhost"),
            repository=artifact.get("repositoryname") or row.get("oldRepository"),
            digest=artifact.get("digest") or row.get("oldDigest"),
            tags=artifact.get("tags"),
            media_type=artifact.get("mediatype"),
        )
        if image is None:
            self._lose(status)
            return
        found = self._of_finding(row, status) if _is_bad(status) else []
        image.unclear = image.unclear or (_is_bad(status) and not found)
        image.take(status, [row.get("generated")], found, artifact.get("tags"))

    def _of_finding(self, row: Json, status: Json) -> list[Vulnerability]:
        fixable = row.get("fix") == "FixAvailable" or row.get("patchable") is True
        fixed = row.get("fixed") or (LATER if fixable else "")
        scores = [row.get("score"), _score(row.get("scores")), _score(row.get("oldScores"))]
        severity = row.get("severity") or status.get("severity")
        return [
            self._vulnerability(id, severity, scores, row.get("package"), row.get("installed"), fixed)
            for id in _ids(row)
        ]

    def take_assessment(self, row: Json) -> None:
        """The state of an image, or of one package of it with all its vulnerabilities."""
        status, known = _keys(row.get("status")), _keys(_parsed(row.get("image")))
        place = _keys(known.get("repositorydetails"))
        uri = _text(known.get("imageuri"), 1000)
        ref = image_ref.parse(uri) if uri else None
        image = self._image(
            row,
            host=place.get("registryhost") or (ref.registry if ref else None),
            repository=place.get("repositoryname") or (ref.repository if ref else None),
            digest=known.get("digest") or (ref.digest if ref else None),
            tags=None,
            media_type=known.get("mediatype"),
        )
        grouped = _key(row) in (*_OF_REGISTRIES, *_OF_CONTAINERS)
        if image is None:
            if not grouped:  # else it is of a whole registry or cluster, whose images its sub-assessments name
                self._lose(status)
            return
        times = [status.get("statuschangedate"), status.get("firstevaluationdate")]
        bad = _is_bad(status) and not grouped
        listed = _parsed(row.get("cves")) if bad else None
        entries = [_keys(cve) for cve in listed] if isinstance(listed, list) else []
        cves = [cve for cve in entries if _text(cve.get("cveid"), 100)]
        image.unclear = image.unclear or len(cves) < len(entries)
        image.take(status, times, self._of_package(row, cves) if bad else [])

    def _of_package(self, row: Json, cves: list[Json]) -> list[Vulnerability]:
        """The vulnerabilities of an individual recommendation; the recommendation itself where it names none.

        One that is not rated is taken to be as grave as the recommendation.
        """
        severity, package, installed = row.get("severity"), row.get("package"), _versions(row)
        found = []
        for cve in cves or [{"cveid": row.get("title") or _key(row)}]:
            fixed = (
                cve.get("fixedversion") or row.get("fixed") or (LATER if cve.get("fixstatus") == "FixAvailable" else "")
            )
            scores = [_score(cve.get("cvss"))]
            rated = cve.get("severity")
            if level_of(_text(rated, 40)) is Level.UNKNOWN and scores == [None]:
                rated = severity
            found.append(self._vulnerability(cve["cveid"], rated, scores, package, installed, fixed))
        return found

    def _vulnerability(
        self, id: Any, severity: Any, scores: list[Any], package: Any, installed: Any, fixed: Any
    ) -> Vulnerability:
        cvss = next(filter(None, map(_number, scores)), None)
        return self._shared.one(
            Vulnerability(
                id=_text(id, 100),
                level=level_of(_text(severity, 40), cvss),
                package=_text(package, 200),
                installed=_text(installed, 100),
                fixed=_text(fixed, 100),
                cvss=cvss,
            )
        )

    def _image(
        self, row: Json, *, host: Any, repository: Any, digest: Any, tags: Any, media_type: Any
    ) -> _Image | None:
        """None where the row does not say which image it is of."""
        resource = _keys(row.get("resource"))
        where = printable(resource.get("id") or "", 2000)
        found = _DIGEST.fullmatch(_text(digest, 80).lower()) or _DIGEST.search(where.lower())
        named = tuple(_text(tag, 128) for tag in tags[:1000] if isinstance(tag, str)) if isinstance(tags, list) else ()
        if not found and not (repository and named):
            return None
        registry, path = self._place(row, _text(host, 255), _text(repository, 500))
        key = (registry, path, *((found[0],) if found else named))
        if (image := self._images.get(key)) is None:
            image = self._images[key] = _Image(
                ImageScan(
                    source=SOURCE,
                    registry=registry,
                    repository=path,
                    digest=found[0] if found else "",
                    platform=_platform(row, resource, _text(media_type, 100)),
                    account=_account(row, resource, registry),
                    region=_text(resource.get("region"), 40) or None,
                )
            )
        return image

    def _place(self, row: Json, host: str, repository: str) -> tuple[str, str]:
        """Registry and repository as image_ref spells them, "" for what is not told."""
        if not repository:
            return "", ""
        if not host and (registry := _REGISTRY.search(_id(row))):
            host = f"{registry[1]}.{self._domain}"
        if not host:
            return "", repository
        ref = image_ref.parse(f"{'docker.io' if host.lower() in _DOCKER_HUB else host}/{repository}")
        return ref.registry, ref.repository

    def _lose(self, status: Json) -> None:
        self.nameless = self.nameless or str(status.get("code")).lower() not in ("healthy", "notapplicable")

    def scans(self, *, incomplete: bool) -> list[ImageScan]:
        """All, each with what is said of it without its repository."""
        homes: dict[str, list[_Image]] = {}
        for image in self._images.values():
            if image.scan.repository and image.scan.digest:
                homes.setdefault(image.scan.digest, []).append(image)
        scans = []
        for key in sorted(self._images):  # first those without a repository
            image = self._images.pop(key)
            if not image.scan.repository and image.scan.digest in homes:
                for home in homes[image.scan.digest]:
                    home.merge(image)
                continue
            scans.append(image.finish(incomplete=incomplete))
            image.found = set()
        return scans


# -- rows -------------------------------------------------------------------------------------------------------------


def _keys(value: Any) -> Json:
    """An object by keys in lower case, as Defender writes them in several ways; empty for anything else."""
    return {key.lower(): item for key, item in value.items()} if isinstance(value, dict) else {}


def _parsed(value: Any) -> Any:
    """What is JSON within a text, as much of an assessment's additional data is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _is_bad(status: Json) -> bool:
    return str(status.get("code")).lower() == "unhealthy"


def _text(value: Any, longest: int) -> str:
    return printable(value, longest).strip() if isinstance(value, str) else ""


def _id(row: Json) -> str:
    return printable(row.get("id") or "", 2000)


def _key(row: Json) -> str:
    match = _KEY.search(_id(row))
    return match[1].lower() if match else ""


def _ids(row: Json) -> list[str]:
    """The CVEs of a sub-assessment: one, or by Qualys several; its own id or title where it names none."""
    listed = row.get("oldCves")
    old = [_keys(cve).get("title") for cve in listed] if isinstance(listed, list) else []
    named = [row["cve"]] if row.get("cve") else old
    found = [text for id in named if (text := _text(id, 100))]
    return found or [text for id in (row.get("finding"), row.get("title")) if (text := _text(id, 100))][:1]


def _versions(row: Json) -> str:
    """What of a package is installed, as its scanner says or else the assessment."""
    scanners = (_keys(scanner) for scanner in _keys(_parsed(row.get("scanners"))).values())
    told = [_parsed(value) for value in (*(s.get("detectedsoftwareversions") for s in scanners), row.get("installed"))]
    listed = next((value for value in told if isinstance(value, list) and value), None)
    if listed is None:
        return _text(row.get("installed"), 100)
    return ", ".join(_text(version, 100) for version in listed[:10] if isinstance(version, str))


def _number(value: Any) -> float | None:
    """A CVSS score; None for what is none."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable and 0 <= value <= 10 else None


def _score(scores: Any) -> float | None:
    """Of CVSS scores by version, in an object or a list of keys and values, that of the newest."""
    if isinstance(scores, list):
        scores = {str(_keys(entry).get("key")): _keys(entry).get("value") for entry in scores}
    by_version = scores if isinstance(scores, dict) else {}
    found = (_number(_keys(by_version[version]).get("base")) for version in sorted(by_version, reverse=True))
    return next((score for score in found if score is not None), None)


def _time(value: Any) -> datetime | None:
    """None for what is none, or cannot be the time of a scan."""
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) and len(value) < 40 else None
    except ValueError:
        return None
    if when is None:
        return None
    when = (when if when.tzinfo else when.replace(tzinfo=UTC)).replace(microsecond=0)
    return when.astimezone(UTC) if _EARLIEST < when < utc_now() + timedelta(days=1) else None


def _platform(row: Json, resource: Json, media_type: str) -> str | None:
    """Registries' images are assessed by the manifest of each platform; what a container runs may be an index."""
    if media_type:
        return "" if media_type.endswith(_INDEXES) else None
    running = _key(row) in _OF_CONTAINERS or _text(resource.get("resourcetype"), 200).lower().endswith("container")
    return "" if running else None


def _account(row: Json, resource: Json, registry: str) -> str | None:
    """The AWS account or Google Cloud project where the image is, else the subscription that knows of it."""
    source, owner = _text(resource.get("source"), 40).lower(), _text(resource.get("hierarchyid"), 100)
    if source == "aws":
        account = _AWS_ACCOUNT.match(registry)
        return owner or (account[1] if account else None)
    if source == "gcp":
        project = _PROJECT.search(_text(resource.get("nativeclouduniqueidentifier"), 1000))
        return (project[1] if project else owner) or None
    return _text(row.get("subscriptionId"), 100) or None


def _distinct(found: Iterable[Vulnerability]) -> list[Vulnerability]:
    """Each of a package once: the gravest record, and of those one that knows a fix."""
    best: dict[tuple[str, str, str], Vulnerability] = {}
    for one in sorted(
        found, key=lambda v: (v.level.rank, v.id, v.package, v.installed, not v.fixed, v.fixed, v.cvss or 0)
    ):
        best.setdefault((one.id, one.package, one.installed), one)
    return list(best.values())
