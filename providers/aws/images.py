"""What ECR's basic scanning or Amazon Inspector found in the images of one region.

Where Inspector scans the registry it is asked, with two lists for the whole region; else ECR, about one image at a
time, but for those of which DescribeImages says that nothing was found. The tags of an index are those of the images in
it. Entries of a registry that are no images (charts, attestations) are left out unless somebody did scan them.

Sources: API references of ECR (ImageDetail, ImageScanFindings) and of Inspector (CoveredResource, Finding); for indexes
the OCI image specification, and BuildKit's documentation of attestations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

from msgspec.structs import replace

from providers.aws.errors import AwsError, gap_of
from providers.aws.iam import Account
from scanner.inventory import Counts
from scanner.kube import printable
from scanner.model import Collected, GapReason
from scanner.plain import plain
from scanner.vulnerabilities import ImageScan, Platform, Scans, Shared, Vulnerability, distinct, level_of

Json = dict[str, Any]

ECR, INSPECTOR = "ecr", "inspector"
OS_ONLY = "basic scanning of ECR looks at packages of the operating system alone"
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_OF_IMAGES = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_IN_ECR = ("AWS_ECR_CONTAINER_IMAGE",)
_IN_OTHER_CLOUDS = (
    "Microsoft.ContainerRegistry/registry/containerImage",
    "artifactregistry.googleapis.com/DockerImage",
)
_DOMAINS: Mapping[str, str] = {  # of partitions of AWS and, by Inspector's names, of Azure
    "aws": "amazonaws.com",
    "aws-cn": "amazonaws.com.cn",
    "aws-us-gov": "amazonaws.com",
    "aws-eusc": "amazonaws.eu",
    "aws-iso": "c2s.ic.gov",
    "aws-iso-b": "sc2s.sgov.gov",
    "aws-iso-e": "cloud.adc-e.uk",
    "aws-iso-f": "csp.hci.ic.gov",
    "AzureChinaCloud": "azurecr.cn",
    "AzureUSGovernment": "azurecr.us",
}
_BATCH = 100  # images in one call
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,59}")
_IDS = {
    "ecr": re.compile(
        r"arn:(?P<partition>[\w-]+):ecr:(?P<region>[\w-]+):(?P<account>\d{12}):repository/(?P<repository>.+)/(?P<digest>sha256:.+)"
    ),
    "azure": re.compile(
        r"/.+/registries/(?P<registry>[^/]+)/repositories/(?P<repository>.+)/images?/(?P<digest>sha256:.+)",
        re.IGNORECASE,
    ),
    "gcp": re.compile(
        r"(?:.*/)?projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/repositories/(?P<repository>[^/]+)"
        r"/dockerImages/(?P<name>.+)@(?P<digest>sha256:.+)"
    ),
}
# After one of these, which are nothing about one image, no further image is asked about.
_LASTING = (GapReason.THROTTLED, GapReason.TIMEOUT, GapReason.UNREACHABLE)


class _Place(NamedTuple):
    registry: str
    repository: str
    digest: str


class _Entry(NamedTuple):
    """Of an index; `image` is whether it is one to run."""

    platform: Platform
    image: bool


def scans_of(
    account: Account,
    region: str,
    repositories: Collected[str],
    inspector: Collected[Json] | None,
    counts: Counts,
    shared: Shared,
) -> Scans:
    """What is known of the images in these repositories, and of others that Inspector tells of here.

    `inspector` is the account's status there, None where it was not worth asking.
    """
    enabled = _scans_registry(account, inspector)
    source = INSPECTOR if enabled else ECR
    reader = _Images(account, region, source, counts, shared)
    reader.scans.gaps += [replace(gap, what=source) for gap in repositories.gaps]
    reader.scans.listed = not repositories.gaps
    if inspector is not None and enabled is None:
        reader.scans.asked.append(INSPECTOR)
        reader.scans.gaps += inspector.gaps or [
            gap_of(INSPECTOR, _bad("AWS did not say whether Inspector scans images"))
        ]
    for repository in repositories.items:
        reader.repository(repository)
    if enabled:
        reader.inspect()
    return reader.finish()


def _scans_registry(account: Account, status: Collected[Json] | None) -> bool | None:
    """Whether Inspector does; None where that is not known."""
    if status is None:
        return False
    own = [item for item in status.items if item.get("accountId") == account.id]
    state = _part(_part(own[0], "resourceState"), "ecr").get("status") if own else None
    return state == "ENABLED" if isinstance(state, str) else None


class _Images:
    """The images of one region, as one source knows them."""

    def __init__(self, account: Account, region: str, source: str, counts: Counts, shared: Shared) -> None:
        self.account, self.region, self.source, self.counts, self.shared = account, region, source, counts, shared
        self.registry = f"{account.id}.dkr.ecr.{region}.{_DOMAINS.get(account.partition, _DOMAINS['aws'])}"
        self.scans = Scans(asked=[source])
        self.images: dict[_Place, ImageScan] = {}
        self.indexes: set[_Place] = set()
        self.no_images: set[_Place] = set()
        self.stopped = ""  # why asking about further images has no sense

    # -- repositories -------------------------------------------------------------------------------------------------

    def repository(self, name: str) -> None:
        indexes: dict[str, tuple[str, ...]] = {}
        unsettled: dict[_Place, bool] = {}
        self.counts.lists_asked += 1
        try:
            for page in self.account.pages(
                "ecr", self.region, "DescribeImages", "imageDetails", repositoryName=name, maxResults=1000
            ):
                for item in page:
                    self._listed(name, item, indexes, unsettled)
            self.counts.lists_read += 1
        except AwsError as error:
            self._failed(error)
            self.scans.listed = False
        self._resolve(name, indexes)
        if self.source == ECR:
            self._ask(name, unsettled)

    def _listed(
        self, repository: str, item: Any, indexes: dict[str, tuple[str, ...]], unsettled: dict[_Place, bool]
    ) -> None:
        """`unsettled` are those that ECR has to be asked about, and whether it says that there are findings."""
        digest = _digest(item.get("imageDigest")) if isinstance(item, dict) else ""
        if not digest:
            self._failed(_bad(f"images of {repository} have no digest"))
            self.scans.listed = False
            return
        place = _Place(self.registry, repository, digest)
        tags = _tags(item.get("imageTags"))
        if item.get("imageManifestMediaType") in _INDEXES:
            self.indexes.add(place)
            indexes[digest] = tags
            return
        scan = self._image(place, tags)
        if item.get("artifactMediaType") not in (None, *_OF_IMAGES):
            self.no_images.add(place)
        if self.source == ECR and _unsettled(scan, item):
            unsettled[place] = item.get("imageScanStatus") is not None

    def _image(self, place: _Place, tags: tuple[str, ...] | None) -> ImageScan:
        """The image of this name, as long as nothing else is known of it."""
        if place not in self.images:
            self.images[place] = ImageScan(
                source=self.source,
                registry=place.registry,
                repository=place.repository,
                digest=place.digest,
                tags=tags,
                unfinished="not_scanned",
                account=self.account.id,
                region=self.region,
            )
        return self.images[place]

    # -- indexes ------------------------------------------------------------------------------------------------------

    def _resolve(self, repository: str, indexes: dict[str, tuple[str, ...]]) -> None:
        entries: dict[str, list[_Entry]] = {}
        why = ""
        digests = list(indexes)
        for start in range(0, len(digests), _BATCH):
            batch = digests[start : start + _BATCH]
            self.counts.lists_asked += 1
            try:
                entries |= self._manifests(repository, batch)
                if not entries.keys() >= set(batch):
                    raise _bad(f"AWS did not show what is in all indexes of {repository}")
                self.counts.lists_read += 1
            except AwsError as error:
                why = self._failed(error)
        run: set[_Place] = set()
        others: set[_Place] = set()
        for digest, tags in indexes.items():
            if digest in entries:
                self._tag(repository, digest, tags, _leaves(digest, entries), run, others)
            else:
                _incomplete(self._image(_Place(self.registry, repository, digest), tags), why)
        self.no_images |= {place for place in others - run if place in self.images and not self.images[place].tags}

    def _manifests(self, repository: str, digests: list[str]) -> dict[str, list[_Entry]]:
        answer = self.account.call(
            "ecr", self.region, "BatchGetImage",
            repositoryName=repository,
            imageIds=[{"imageDigest": digest} for digest in digests],
            acceptedMediaTypes=list(_INDEXES),
        )  # fmt: skip
        found: dict[str, list[_Entry]] = {}
        for item in _objects(answer.get("images")):
            digest, entries = _digest(_part(item, "imageId").get("imageDigest")), _entries(item.get("imageManifest"))
            if digest in digests and entries is not None:
                found[digest] = entries
        return found

    def _tag(
        self,
        repository: str,
        index: str,
        tags: tuple[str, ...],
        inside: list[_Entry],
        run: set[_Place],
        others: set[_Place],
    ) -> None:
        self.scans.indexes[index] = [entry.platform for entry in inside if entry.image]
        for entry in inside:
            place = _Place(self.registry, repository, entry.platform.digest)
            (run if entry.image else others).add(place)
            if entry.image and place in self.images:
                scan = self.images[place]
                scan.tags = tuple(dict.fromkeys([*(scan.tags or ()), *tags]))

    # -- ECR's own findings -------------------------------------------------------------------------------------------

    def _ask(self, repository: str, unsettled: dict[_Place, bool]) -> None:
        refused = ""
        for place, scanned in unsettled.items():
            if place in self.no_images and not scanned:
                continue
            scan = self.images[place]
            self.counts.lists_asked += 1
            if why := self.stopped or refused:
                _incomplete(scan, why)
                continue
            try:
                self._findings(repository, scan)
                self.counts.lists_read += 1
            except AwsError as error:
                why = self._failed(error)
                _incomplete(scan, why)
                self.stopped = why if error.reason in _LASTING else ""
                refused = why if error.reason is GapReason.FORBIDDEN else ""
            scan.vulnerabilities = distinct(scan.vulnerabilities)

    def _findings(self, repository: str, scan: ImageScan) -> None:
        counted, detail = False, OS_ONLY
        unclear: AwsError | None = None
        scanned_at: datetime | None = None
        try:
            for answer in self.account.answers(
                "ecr", self.region, "DescribeImageScanFindings",
                repositoryName=repository, imageId={"imageDigest": scan.digest}, maxResults=1000,
            ):  # fmt: skip
                if not _usable(scan, _part(answer, "imageScanStatus")):
                    return
                found = _part(answer, "imageScanFindings")
                if not any(isinstance(found.get(what), list) for what in ("findings", "enhancedFindings")):
                    raise _bad("the answer to DescribeImageScanFindings holds no findings")
                for what, read in (("findings", self._basic), ("enhancedFindings", self._inspected)):
                    if what in found:
                        unclear = _add(scan, found[what], read) or unclear
                detail = "" if "enhancedFindings" in found else detail
                counted = counted or any(_part(found, "findingSeverityCounts").values())
                scanned_at = _time(found.get("imageScanCompletedAt")) or scanned_at
        except AwsError as error:
            if error.code != "ScanNotFoundException":
                raise
            scan.unfinished, scan.detail = "not_scanned", ""
            return
        if unclear:
            raise unclear
        if counted and not scan.vulnerabilities:
            raise _bad("ECR counts vulnerabilities that it does not show")
        _finish(scan, scanned_at, detail)

    def _basic(self, finding: Json) -> Iterator[Vulnerability]:
        about = {str(each.get("key")): each.get("value") for each in _objects(finding.get("attributes", []))}
        scores = (_number(about.get(f"CVSS{version}_SCORE")) for version in (3, 4, 2))
        package = {"name": about.get("package_name"), "version": about.get("package_version")}
        yield self._vulnerability(finding.get("name"), finding.get("severity"), package, scores)

    # -- Inspector ----------------------------------------------------------------------------------------------------

    def inspect(self) -> None:
        self._inspect(_IN_ECR)
        own, self.images = self.images, {}
        self._inspect(_IN_OTHER_CLOUDS)
        self.images |= own

    def _inspect(self, kinds: tuple[str, ...]) -> None:
        if not self._coverage(kinds):
            return
        why = self._active(kinds)
        for scan in self.images.values():
            scan.vulnerabilities = distinct(scan.vulnerabilities)
            if why and not scan.unfinished:
                _incomplete(scan, why)

    def _coverage(self, kinds: tuple[str, ...]) -> bool:
        """Whether there may be findings."""
        found, covered = False, set[_Place]()
        wanted, own = [_equals(kind) for kind in kinds], [_equals(self.account.id)]
        self.counts.lists_asked += 1
        try:
            for page in self.account.pages(
                "inspector2", self.region, "ListCoverage", "coveredResources",
                filterCriteria={"resourceType": wanted, "accountId": own}, maxResults=200,
            ):  # fmt: skip
                for item in page:
                    found = True
                    self._covered(item, covered)
        except AwsError as error:
            if kinds is not _IN_OTHER_CLOUDS or error.code != "ValidationException":
                why = self._failed(error)
                for place in self.images.keys() - covered:
                    _incomplete(self.images[place], why)
                return True
            # Inspector knows no other clouds in this region.
        self.counts.lists_read += 1
        return found

    def _active(self, kinds: tuple[str, ...]) -> str:
        """Why not all findings were read, or it is not known what some are of; "" where neither is so."""
        wanted, own = [_equals(kind) for kind in kinds], [_equals(self.account.id)]
        self.counts.lists_asked += 1
        lost = 0
        try:
            for page in self.account.pages(
                "inspector2", self.region, "ListFindings", "findings",
                filterCriteria={"resourceType": wanted, "awsAccountId": own, "findingStatus": [_equals("ACTIVE")]},
                maxResults=100,
            ):  # fmt: skip
                lost += sum(not self._found(item, kinds) for item in page)
            if lost:
                raise _bad("findings of Inspector name no image")
        except AwsError as error:
            return self._failed(error)
        self.counts.lists_read += 1
        return ""

    def _covered(self, item: Any, covered: set[_Place]) -> None:
        place = self._named(item.get("resourceId"), item.get("providerPartition")) if isinstance(item, dict) else None
        if place is None:
            self._failed(_bad("Inspector covers something that is no image"))
            return
        if place in self.indexes:
            return
        metadata = _part(item, "resourceMetadata")
        tags = _part(metadata, "ecrImage").get("tags", _part(metadata, "containerImage").get("imageTags"))
        scan = self._image(place, None if tags is None else _tags(tags))
        if place.registry != self.registry:
            scan.account = _text(item.get("providerAccountId"), 100) or None
            scan.region = _text(item.get("providerRegion"), 100) or None
        status = _part(item, "scanStatus")
        if place in covered and scan.unfinished:
            return
        covered.add(place)
        if (status.get("statusCode"), status.get("reason")) == ("ACTIVE", "SUCCESSFUL"):
            _finish(scan, _time(item.get("lastScannedAt")), "")
            return
        why = status.get("reason")
        scan.unfinished = _code(why) if why != "SUCCESSFUL" else "inactive"
        scan.detail = plain(f"Inspector says {status.get('statusCode')}, {why}")

    def _found(self, item: Any, kinds: tuple[str, ...]) -> bool:
        """Whether it can be told which images a finding is of."""
        if not isinstance(item, dict):
            return False
        if item.get("type") in ("NETWORK_REACHABILITY", "CODE_VULNERABILITY"):
            return True
        resources = item.get("resources")
        listed = resources if isinstance(resources, list) else []
        places = [self._place_of(each) for each in listed if isinstance(each, dict) and each.get("type") in kinds]
        scans = [self._image(place, None) for place in places if place]
        try:
            for found in self._inspected(item):
                for scan in scans:
                    scan.vulnerabilities.append(found)
        except AwsError as error:
            why = self._failed(error)
            for scan in scans:
                _incomplete(scan, why)
        return bool(places) and None not in places

    def _place_of(self, resource: Json) -> _Place | None:
        details = _part(resource, "details")
        ecr, other = _part(details, "awsEcrContainerImage"), _part(details, "image")
        named = self._named(resource.get("id"), resource.get("partition"))
        digest = _digest(ecr.get("imageHash") or other.get("imageDigest"))
        if named or not digest:
            return named
        registry = self.registry if ecr else _text(other.get("registry"), 300).lower()
        return _Place(registry, _text(ecr.get("repositoryName") or other.get("repositoryName"), 300), digest)

    def _named(self, id: Any, partition: Any) -> _Place | None:
        """The image that an id of a resource means."""
        for kind, pattern in _IDS.items():
            match = pattern.fullmatch(id) if isinstance(id, str) and len(id) < 2048 else None
            if match is None or not _digest(match["digest"]):
                continue
            if kind == "ecr":
                domain = _DOMAINS.get(match["partition"], _DOMAINS["aws"])
                registry = f"{match['account']}.dkr.ecr.{match['region']}.{domain}"
                return _Place(registry, match["repository"], match["digest"])
            if kind == "azure":
                domain = _DOMAINS.get(str(partition), "azurecr.io")
                return _Place(f"{match['registry'].lower()}.{domain}", match["repository"], match["digest"])
            path = f"{match['project']}/{match['repository']}/{unquote(match['name'])}"
            return _Place(f"{match['location'].lower()}-docker.pkg.dev", path, match["digest"])
        return None

    def _inspected(self, finding: Json) -> Iterator[Vulnerability]:
        """Of each package that is vulnerable. Raises AwsError."""
        if finding.get("status") in ("SUPPRESSED", "CLOSED"):
            return
        details = _part(finding, "packageVulnerabilityDetails")
        scores = list(_objects(details.get("cvss", [])))
        scores.sort(key=lambda score: not str(score.get("version")).startswith("3"))
        for package in _objects(details.get("vulnerablePackages") or [{}]):
            numbers = (_number(score.get("baseScore")) for score in scores)
            yield self._vulnerability(details.get("vulnerabilityId"), finding.get("severity"), package, numbers)

    # -- both ---------------------------------------------------------------------------------------------------------

    def _vulnerability(self, id: Any, severity: Any, package: Json, scores: Iterable[float | None]) -> Vulnerability:
        """`package` as Inspector describes it. Raises AwsError where there is no id."""
        if not isinstance(id, str) or not id:
            raise _bad("vulnerabilities have no id")
        cvss = next((score for score in scores if score is not None), None)
        fixed = _text(package.get("fixedInVersion"), 100)
        return self.shared.one(
            Vulnerability(
                id=_text(id, 100),
                level=level_of(severity if isinstance(severity, str) else None, cvss),
                package=_text(package.get("name"), 200),
                installed=_installed(package),
                fixed="" if fixed == "NotAvailable" else fixed,
                cvss=cvss,
            )
        )

    def _failed(self, error: AwsError) -> str:
        """What has failed, in one sentence. One refusal of many repositories is one gap."""
        gap = gap_of(self.source, error)
        if (gap.what, gap.reason, gap.permission) not in [(g.what, g.reason, g.permission) for g in self.scans.gaps]:
            self.scans.gaps.append(gap)
        return gap.sentence

    def finish(self) -> Scans:
        self.scans.scans = [
            scan
            for place, scan in self.images.items()
            if place not in self.no_images or scan.vulnerabilities or not scan.unfinished
        ]
        return self.scans


def _add(scan: ImageScan, items: Any, read: Callable[[Json], Iterable[Vulnerability]]) -> AwsError | None:
    """What is in a list of findings. Why one was not understood: that takes none of the others with it."""
    unclear = None
    for item in items if isinstance(items, list) else [items]:
        try:
            scan.vulnerabilities += read(*_objects([item]))
        except AwsError as error:
            unclear = error
    return unclear


def _unsettled(scan: ImageScan, item: Json) -> bool:
    """Whether ECR has to be asked what it found; where DescribeImages tells all, the scan then says so.

    Of what today's basic scanning found DescribeImages tells nothing at all.
    """
    if item.get("imageScanStatus") is None:
        return True
    status, summary = _part(item, "imageScanStatus"), _part(item, "imageScanFindingsSummary")
    if not _usable(scan, status):
        return False
    counts, scanned_at = summary.get("findingSeverityCounts"), _time(summary.get("imageScanCompletedAt"))
    none = isinstance(counts, dict) and all(type(count) is int and count == 0 for count in counts.values())
    if status["status"] == "COMPLETE" and none and scanned_at:
        _finish(scan, scanned_at, OS_ONLY)
        return False
    return True


def _usable(scan: ImageScan, status: Json) -> bool:
    """Whether there are findings of a scan; the reason if there are none."""
    word = status.get("status")
    if word in ("COMPLETE", "ACTIVE"):
        return True
    scan.unfinished, scan.detail = _code(word), plain(_text(status.get("description"), 500))
    return False


def _finish(scan: ImageScan, scanned_at: datetime | None, detail: str) -> None:
    scan.scanned_at, scan.unfinished, scan.detail = scanned_at, "", detail
    if scanned_at is None:  # what Inspector has in hand ECR calls complete, without a time
        scan.unfinished, scan.detail = "no_scan_time", "AWS does not say when it was scanned"


def _incomplete(scan: ImageScan, why: str) -> None:
    scan.unfinished, scan.detail = "incomplete", why


def _entries(text: Any) -> list[_Entry] | None:
    """Of an index, as it was pushed; None where that is not understood."""
    try:
        manifests = json.loads(text)["manifests"]
        return [_entry(item) for item in _objects(manifests)]
    except (AwsError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _entry(item: Json) -> _Entry:
    if not _digest(item.get("digest")):
        raise _bad("an entry of an index has no digest")
    platform = _part(item, "platform")
    parts = [_text(platform.get(part), 50) for part in ("os", "architecture", "variant")]
    attests = _part(item, "annotations").get("vnd.docker.reference.type") == "attestation-manifest"
    name = "/".join(part for part in parts if part)
    return _Entry(Platform(item["digest"], name), not attests and parts[:2] != ["unknown", "unknown"])


def _leaves(index: str, entries: dict[str, list[_Entry]]) -> list[_Entry]:
    """What is in an index, and in the indexes in it."""
    found: list[_Entry] = []
    seen, waiting = {index}, [index]
    while waiting:
        for entry in entries[waiting.pop()]:
            digest = entry.platform.digest
            if digest not in entries:
                found.append(entry)
            elif digest not in seen:
                seen.add(digest)
                waiting.append(digest)
    return found


def _installed(package: Json) -> str:
    """The whole version: 1:1.1.1k-12.el8."""
    epoch, release = package.get("epoch"), _text(package.get("release"), 50)
    start = f"{epoch}:" if type(epoch) is int and epoch else ""
    return f"{start}{_text(package.get('version'), 100)}{f'-{release}' if release else ''}"[:100]


def _objects(items: Any) -> list[Json]:
    """Raises AwsError where it is no list of objects."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _bad("the answer is not what it should be")
    return items


def _part(item: Json, name: str) -> Json:
    found = item.get(name)
    return found if isinstance(found, dict) else {}


def _equals(value: str) -> Json:
    return {"comparison": "EQUALS", "value": value}


def _tags(value: Any) -> tuple[str, ...]:
    return tuple(_text(tag, 300) for tag in value if isinstance(tag, str)) if isinstance(value, list) else ()


def _digest(value: Any) -> str:
    return value if isinstance(value, str) and _DIGEST.fullmatch(value) else ""


def _code(word: Any) -> str:
    """AWS's word for a state as a reason code."""
    return word.lower() if isinstance(word, str) and _CODE.fullmatch(word) else "unknown_state"


def _text(value: Any, limit: int) -> str:
    text = value[:limit] if isinstance(value, str) else ""
    return text if text.isprintable() else printable(text, limit)


def _number(value: Any) -> float | None:
    try:
        score = float(value)
    except (OverflowError, TypeError, ValueError):
        return None
    return score if 0 <= score <= 10 else None


def _time(value: Any) -> datetime | None:
    try:
        return value.astimezone(UTC) if isinstance(value, datetime) else None
    except (OverflowError, ValueError):
        return None


def _bad(detail: str) -> AwsError:
    return AwsError(GapReason.BAD_DATA, detail)
