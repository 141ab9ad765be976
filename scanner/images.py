"""Joins what runs, and what registries hold, with what sources say of images."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from scanner import image_ref
from scanner.inventory import Root, RunningImage
from scanner.kube import Resource
from scanner.model import Gap, ImageCounts
from scanner.vulnerabilities import INSIDE, SOURCES, ImageScan, Platform, Scans, Shared, registry_kind

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_RUNTIMES = ("docker-pullable://", "docker://")

_CHUNK = 1 << 14  # bytes of packed roots that are unpacked at once
BY_DIGEST, BY_TAG, NOT_SCANNED, NO_DIGEST = "by_digest", "by_tag", "not_scanned", "no_digest"


class Packed:
    """Roots with what they run, in a tenth of their memory; may be gone through again and again."""

    def __init__(self, roots: Iterable[Root]) -> None:
        packer = zlib.compressobj(1)
        encode = msgspec.json.Encoder().encode
        lines = (encode(Root(root.resource, [], root.images)) + b"\n" for root in roots if root.images)
        self._data = b"".join([*map(packer.compress, lines), packer.flush()])

    def __iter__(self) -> Iterator[Root]:
        unpacker, decode = zlib.decompressobj(), msgspec.json.Decoder(Root).decode
        rest = b""
        for start in range(0, len(self._data), _CHUNK):
            *lines, rest = (rest + unpacker.decompress(self._data[start : start + _CHUNK])).split(b"\n")
            yield from map(decode, lines)


class Match(msgspec.Struct, frozen=True):
    """A scan that speaks of an image. Unless it is `sure` to be of the very same one it may prove a fail, never a
    pass: `doubt` is why."""

    scan: ImageScan
    doubt: str = ""

    @property
    def sure(self) -> bool:
        return not self.doubt


class Manifest(msgspec.Struct, frozen=True):
    """One image for one platform, with all that is said of it."""

    digest: str
    platform: str
    matches: tuple[Match, ...]
    elsewhere: tuple[str, ...] = ()  # platforms that it was scanned for, and this is not one of them


class ScannedImage(msgspec.Struct, frozen=True, kw_only=True):
    """What is judged: every manifest counts. `images` are the names of what it is.

    `gaps` are sources that were refused and might know it; `known_exploited` are ids of vulnerabilities, `as_of` the
    time that ages of scans are counted to.
    """

    images: tuple[str, ...]
    manifests: tuple[Manifest, ...]
    gaps: tuple[Gap, ...] = ()
    known_exploited: frozenset[str] = frozenset()
    as_of: datetime


class RunningContainer(ScannedImage, frozen=True, kw_only=True):
    """One container of a root controller, with one image on one platform or with all; `pods` run it."""

    name: str
    pods: int

    @property
    def image(self) -> str:
        return self.images[0]


class RegistryImage(ScannedImage, frozen=True, kw_only=True):
    """An image in a registry that a tag points to."""


def together(containers: Sequence[RunningContainer]) -> RunningContainer:
    """All images of a container: during a roll-out there are two."""
    return RunningContainer(
        name=containers[0].name,
        pods=sum(c.pods for c in containers),
        images=tuple(dict.fromkeys(image for c in containers for image in c.images)),
        manifests=tuple(manifest for c in containers for manifest in c.manifests),
        gaps=tuple(gap for c in containers for gap in c.gaps),
        known_exploited=containers[0].known_exploited,
        as_of=containers[0].as_of,
    )


@dataclass(frozen=True, slots=True)
class Group:
    """What one finding is about: all images of a container, or one in a registry."""

    resource: Resource
    key: str
    subjects: list[RunningContainer] | list[RegistryImage]

    @property
    def told(self) -> bool:
        """Whether any source has scanned any of it."""
        return any(_told(subject.manifests) for subject in self.subjects)


@dataclass(frozen=True, slots=True)
class _Registered:
    """An image in a registry: where, and under which tags."""

    host: str
    repository: str
    digest: str
    tags: set[str] = field(default_factory=set)
    accounts: set[tuple[str | None, str | None]] = field(default_factory=set)


@dataclass(slots=True)
class Images:
    """Gathers what sources say from every reading, and gives it when all are there."""

    as_of: datetime
    known_exploited: frozenset[str] = frozenset()
    gaps: list[Gap] = field(default_factory=list)
    refused: dict[str, Gap] = field(default_factory=dict)  # registries that do not tell what indexes hold
    indexes: dict[str, list[Platform]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)  # kinds of registries that running images come from
    _digests: dict[str, list[ImageScan]] = field(default_factory=lambda: defaultdict(list))
    _configs: dict[str, list[ImageScan]] = field(default_factory=lambda: defaultdict(list))
    _names: dict[str, list[ImageScan]] = field(default_factory=lambda: defaultdict(list))  # by repository:tag
    _registered: dict[tuple[str, str, str], _Registered] = field(default_factory=dict)
    _kinds: dict[str, set[tuple[str, str, str]]] = field(default_factory=lambda: defaultdict(set))
    _runs_on: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # platforms by digest
    _shared: Shared = field(default_factory=Shared)
    known: bool = False  # whether any source has scanned any image
    silent: set[str] = field(default_factory=set)  # sources that know images, and of some of them nothing

    def take(self, scans: Scans, cluster: str = "") -> None:
        """`cluster` is the one inside which they were found."""
        self.indexes |= scans.indexes
        for scan in scans.scans:
            scan.cluster = cluster
            self.known = self.known or scan.told
            if not scan.told:
                self.silent.add(scan.source)
            scan.vulnerabilities = [self._shared.one(found) for found in scan.vulnerabilities]
            if scan.digest:
                self._digests[scan.digest].append(scan)
                self._register(scan)
            if scan.config_digest:
                self._configs[scan.config_digest].append(scan)
            for tag in scan.tags or ():
                self._names[f"{scan.registry}/{scan.repository}:{tag}"].append(scan)

    def _register(self, scan: ImageScan) -> None:
        kind = registry_kind(scan.registry) or ("jfrog" if scan.source == "xray" else "")  # under any name
        if not kind or scan.tags == () or scan.source == INSIDE:
            return  # of no registry that a check is about, or nothing points to it, or it tells of what runs
        key = (scan.registry, scan.repository, scan.digest)
        known = self._registered.setdefault(key, _Registered(*key))
        known.tags.update(scan.tags or ())
        known.accounts.add((scan.account, scan.region))
        self._kinds[kind].add(key)

    def tells_of(self, source: str, kind: str) -> bool:
        """Whether a source may know images of such a registry."""
        return SOURCES.get(source, "") in ("", kind)

    # -- what runs ----------------------------------------------------------------------------------------------------

    def running(self, roots: Iterable[Root], gaps: Sequence[Gap] = (), cluster: str = "") -> Iterator[Group]:
        """Every container of a cluster with its images; `gaps` are of the cluster's own sources."""
        for root in roots:
            here = [gap for gap in gaps if gap.namespace in ("*", root.resource.namespace)]
            for name, images in _by_container(root):
                yield Group(root.resource, name, [self._container(image, here, cluster) for image in images])

    def unknown(self, roots: Iterable[Root]) -> Iterator[tuple[str, str, str]]:
        """Registry, repository and digest of what may be an index: no source knows it as what is of one platform."""
        for root in roots:
            for image in root.images:
                ref = image_ref.parse(_bare(image.image_id))
                digest = digest_of(image.image_id)
                known = any(scan.platform is None for scan in self._digests.get(digest, ()))
                if digest and digest not in self.indexes and not known:
                    yield ref.registry, ref.repository, digest

    def counts(self, roots: Iterable[Root]) -> ImageCounts:
        """How the images of a cluster were found."""
        counts = ImageCounts()
        for root in roots:
            for image in root.images:
                self.used.add(registry_kind(image_ref.parse(image.image).registry))
                if image.platform and (digest := digest_of(image.image_id)) in self._digests:
                    self._runs_on[digest].add(image.platform)
                counts.count(self._found(image)[1])
        return counts

    def _container(self, image: RunningImage, gaps: Sequence[Gap], cluster: str) -> RunningContainer:
        manifests, _ = self._found(image)
        return RunningContainer(
            name=image.container,
            pods=image.pods,
            images=(image.image,),
            manifests=_believed(manifests, cluster),
            gaps=(*gaps, *self._gaps_of(image_ref.parse(image.image).registry)),
            known_exploited=self.known_exploited,
            as_of=self.as_of,
        )

    def _found(self, image: RunningImage) -> tuple[tuple[Manifest, ...], str]:
        """By the digest that the node tells, else that of its configuration or the one asked for, else by tag."""
        ref = image_ref.parse(image.image)
        digests = list(dict.fromkeys(d for d in (digest_of(image.image_id), _digest(ref.digest or "")) if d))
        for digest in digests:
            manifests = self._of_digest(digest, image.platform)
            if _told(manifests):
                return manifests, BY_DIGEST
        config = _config_digest(image.image_id)
        if config and (scans := self._configs.get(config)):
            manifests = (Manifest("", image.platform, tuple(map(Match, scans))),)
            if _told(manifests):
                return manifests, BY_DIGEST
        tagged = () if ref.digest else self._of_tag(f"{ref.name}:{ref.tag or 'latest'}", image.platform)
        seen = digests[0] if digests else config
        if _told(tagged):
            return tuple(msgspec.structs.replace(m, digest=seen) for m in tagged), BY_TAG
        if digests:
            return self._of_digest(seen, image.platform), NOT_SCANNED
        known = tuple(map(Match, self._configs.get(config, ())))
        return (Manifest(config, image.platform, known),), NOT_SCANNED if config else NO_DIGEST

    def _of_digest(self, digest: str, platform: str) -> tuple[Manifest, ...]:
        """Of one for several platforms, the manifest for this one; all of them where the platform is not known."""
        if entries := self.indexes.get(digest):
            mine = [entry for entry in entries if _same(entry.name, platform)] if platform else entries
            if mine:
                # Of what the index itself was scanned as, the part that is about this platform.
                return tuple(
                    Manifest(
                        entry.digest,
                        entry.name,
                        (
                            *map(Match, self._digests.get(entry.digest, ())),
                            *(
                                match
                                for match in _matches(self._digests.get(digest, ()), entry.name)
                                if match.scan.platform is not None
                            ),
                        ),
                    )
                    for entry in mine
                )
        scans = self._digests.get(digest, [])
        elsewhere = {scan.platform for scan in scans if scan.platform and not _match(scan, platform)}
        return (Manifest(digest, platform, tuple(_matches(scans, platform)), tuple(sorted(elsewhere))),)

    def _of_tag(self, name: str, platform: str) -> tuple[Manifest, ...]:
        scans = self._names.get(name, ())
        matches = tuple(
            Match(match.scan, "it was found by its tag, which may have moved") for match in _matches(scans, platform)
        )
        return (Manifest("", platform, matches),)

    def _gaps_of(self, host: str) -> tuple[Gap, ...]:
        kind = registry_kind(host)
        asked = [self.refused[host]] if host in self.refused else []
        return (*asked, *(gap for gap in self.gaps if self.tells_of(gap.what, kind)))

    # -- what registries hold -----------------------------------------------------------------------------------------

    def registered(self, kind: str) -> Iterator[tuple[set[tuple[str | None, str | None]], Group]]:
        """Every image of a kind of registries, with the accounts and regions that it is in."""
        for key in sorted(self._kinds.get(kind, ())):
            entry = self._registered[key]
            tags = tuple(sorted(entry.tags))
            name = f"{entry.host}/{entry.repository}"
            subject = RegistryImage(
                images=tuple(f"{name}:{tag}" for tag in tags) or (name,),
                manifests=_believed(self._stored(entry.digest), ""),
                gaps=self._gaps_of(entry.host),
                known_exploited=self.known_exploited,
                as_of=self.as_of,
            )
            resource = Resource(group="", kind="Image", namespace="", name=f"{name}@{entry.digest}")
            yield entry.accounts, Group(resource, "", [subject])

    def _stored(self, digest: str) -> tuple[Manifest, ...]:
        """A scan for one platform is taken for one of the image unless the image is known to have several: by its
        index, or as it runs on others."""
        if digest in self.indexes:
            return self._of_digest(digest, "")
        scans = self._digests[digest]
        manifests = [self._of_digest(digest, platform)[0] for platform in sorted(self._runs_on.get(digest, ()))]
        matches = (_match(scan, scan.platform or "") for scan in scans)
        return (Manifest(digest, "", tuple(filter(None, matches))), *manifests)


def digest_of(image_id: str) -> str:
    """The manifest digest that a node tells, "" where it tells none: `docker-pullable://repository@sha256:…`."""
    return _digest(_bare(image_id).rpartition("@")[2]) if "@" in image_id else ""


def _config_digest(image_id: str) -> str:
    """Some runtimes tell the digest of the image's configuration alone."""
    return "" if "@" in image_id else _digest(_bare(image_id))


def _bare(image_id: str) -> str:
    for prefix in _RUNTIMES:
        image_id = image_id.removeprefix(prefix)
    return image_id


def _digest(text: str) -> str:
    return text if _DIGEST.fullmatch(text) else ""


def _by_container(root: Root) -> Iterator[tuple[str, list[RunningImage]]]:
    found: dict[str, list[RunningImage]] = defaultdict(list)
    for image in root.images:
        found[image.container].append(image)
    yield from found.items()


def _matches(scans: Iterable[ImageScan], platform: str) -> Iterator[Match]:
    return filter(None, (_match(scan, platform) for scan in scans))


def _match(scan: ImageScan, platform: str) -> Match | None:
    """None for a scan of another platform. Where either is not known it may be one."""
    if scan.platform is None:
        return Match(scan)
    if not scan.platform:
        return Match(scan, "the scan does not say for which platform it is")
    if not platform:
        return Match(scan, "the platform of the node is not known")
    return Match(scan) if _same(scan.platform, platform) else None


def _believed(manifests: Iterable[Manifest], cluster: str) -> tuple[Manifest, ...]:
    """Whoever controls another cluster can say there what they like."""
    return tuple(
        msgspec.structs.replace(found, matches=tuple(_foreign(match, cluster) for match in found.matches))
        if any(match.scan.cluster for match in found.matches)
        else found
        for found in manifests
    )


def _foreign(match: Match, cluster: str) -> Match:
    if match.doubt or match.scan.cluster in ("", cluster):
        return match
    return Match(match.scan, "that is what another cluster says")


def _same(one: str, other: str) -> bool:
    """Nodes do not tell the variant of their architecture."""
    a, b = one.split("/"), other.split("/")
    return a[:2] == b[:2] and (len(a) < 3 or len(b) < 3 or a[2] == b[2])


def _told(manifests: Iterable[Manifest]) -> bool:
    """Whether anything is said that could decide."""
    return any(match.scan.told for found in manifests for match in found.matches)
