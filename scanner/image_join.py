"""Joins what runs, and what registries hold, with what sources say of images."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from scanner import image_ref
from scanner.images import Group, Manifest, Match, RegistryImage, RunningContainer, told
from scanner.inventory import Root, RunningImage
from scanner.kube import Resource
from scanner.model import Account, Gap, ImageCounts
from scanner.vulnerabilities import INSIDE, SOURCES, ImageScan, Platform, Scans, Shared, registry_kind

BY_DIGEST, BY_TAG, NOT_SCANNED, NO_DIGEST = "by_digest", "by_tag", "not_scanned", "no_digest"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_RUNTIMES = ("docker-pullable://", "docker://")
_CACHED = 1000  # images that are not looked up twice
_ENTRIES = 1000  # of an index


@dataclass(frozen=True, slots=True)
class _Registered:
    """An image in a registry: where, by which digest, or tag where nobody tells that, and under which tags."""

    host: str
    repository: str
    name: str
    tags: set[str] = field(default_factory=set)
    accounts: set[tuple[str | None, str | None]] = field(default_factory=set)


@dataclass(slots=True)
class Images:
    """Gathers what sources say from every reading, and gives it when all are there."""

    as_of: datetime
    known_exploited: frozenset[str] = frozenset()
    gaps: list[Gap] = field(default_factory=list)  # of sources that may know any image
    placed: list[tuple[Account, Gap]] = field(default_factory=list)  # of those that know images of one account alone
    refused: dict[tuple[str, str], Gap] = field(default_factory=dict)  # registry and repository, "" for all of it
    indexes: dict[str, list[Platform]] = field(default_factory=dict)
    scanned: set[tuple[str, str]] = field(default_factory=set)  # kinds of registries, and looks that tell of them
    silent: set[str] = field(default_factory=set)  # sources that know images, and of some of them nothing
    used: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # parts of registries, by their kind
    _digests: dict[str, list[ImageScan]] = field(default_factory=lambda: defaultdict(list))
    _configs: dict[str, list[ImageScan]] = field(default_factory=lambda: defaultdict(list))
    _names: dict[str, list[ImageScan]] = field(default_factory=lambda: defaultdict(list))  # by repository:tag
    _registered: dict[str, dict[tuple[str, str, str], _Registered]] = field(default_factory=lambda: defaultdict(dict))
    _runs_on: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # platforms by digest
    _parents: dict[str, list[tuple[str, str]]] | None = None  # indexes of a digest, and its platform there
    _cache: dict[tuple[object, ...], tuple[tuple[Manifest, ...], str]] = field(default_factory=dict)
    _shared: Shared = field(default_factory=Shared)

    def take(self, scans: Scans) -> None:
        self._cache.clear()
        for digest, entries in scans.indexes.items():
            self.add_index(digest, entries)
        for scan in scans.scans:
            scan.cluster = scans.cluster
            scan.vulnerabilities = [self._shared.one(found) for found in scan.vulnerabilities]
            if scan.told:
                self.scanned.add((registry_kind(scan.registry), scan.cluster))
            else:
                self.silent.add(scan.source)
            self._register(scan)
            if scan.digest:
                self._digests[scan.digest].append(scan)
            if scan.config_digest:
                self._configs[scan.config_digest].append(scan)
            for tag in scan.tags or ():
                self._names[f"{scan.registry}/{scan.repository}:{tag}"].append(scan)

    def add_index(self, digest: str, entries: list[Platform]) -> None:
        """One of more entries than anybody builds counts as one whose entries are not known."""
        self.indexes[digest] = entries if len(entries) <= _ENTRIES else []
        self._parents = None
        self._cache.clear()

    def _register(self, scan: ImageScan) -> None:
        kind = registry_kind(scan.registry) or ("jfrog" if scan.source == "xray" else "")  # under any name
        if not kind or scan.tags == () or scan.source == INSIDE:
            return  # of no registry that a check is about, or nothing points to it, or it tells of what runs
        for name in [scan.digest] if scan.digest else scan.tags or ():
            key = (scan.registry, scan.repository, name)
            known = self._registered[kind].setdefault(key, _Registered(*key))
            known.tags.update(scan.tags or ())
            known.accounts.add((scan.account, scan.region))

    def tells_of(self, source: str, kind: str) -> bool:
        """Whether a source may know images of such a registry; "" for one of no cloud."""
        told = SOURCES.get(source, "")
        return told in ("", kind) or (source == "xray" and not kind)  # it has names of its own

    def knows(self, kinds: Set[str], looks: Set[str]) -> bool:
        """Whether any source has scanned any image of such registries, or looked at what runs in this cluster."""
        return any(look in looks or (not look and kind in kinds) for kind, look in self.scanned)

    # -- what runs ----------------------------------------------------------------------------------------------------

    def running(
        self, roots: Iterable[Root], gaps: Sequence[Gap] = (), looks: Set[str] = frozenset()
    ) -> Iterator[Group]:
        """Every container of a cluster with its images. `gaps` are of the cluster's own sources, `looks` those looks
        inside that are of this cluster."""
        for root in roots:
            here = [gap for gap in gaps if gap.namespace in ("*", root.resource.namespace)]
            for name, images in _by_container(root):
                subjects = [self._container(image, here, looks) for image in images]
                yield Group(root.resource, name, subjects, tuple(root.labels))

    def unsure(self, roots: Iterable[Root]) -> Iterator[tuple[str, str, str]]:
        """Registry, repository and digest of what runs and may be an index: no source knows it for this platform."""
        for root in roots:
            for image in root.images:
                ref, digest = image_ref.parse(_bare(image.image_id)), digest_of(image.image_id)
                if digest and digest not in self.indexes and not self._is_known(digest, image.platform):
                    yield ref.registry, ref.repository, digest

    def unsure_stored(self) -> Iterator[tuple[str, str, str]]:
        """The same of what registries hold."""
        for stored in self._registered.values():
            for host, repository, name in stored:
                if _digest(name) and name not in self.indexes and not self._is_known(name, ""):
                    yield host, repository, name

    def _is_known(self, digest: str, platform: str) -> bool:
        scans = (scan for scan in self._digests.get(digest, ()) if not scan.cluster)
        return any(scan.platform is None or (platform and _match(scan, platform)) for scan in scans)

    def counts(self, roots: Iterable[Root], looks: Set[str] = frozenset()) -> tuple[ImageCounts, set[tuple[str, str]]]:
        """How the images of a cluster were found, and the kinds and parts of the registries that they are of."""
        counts, parts = ImageCounts(), set()
        for root in roots:
            for image in root.images:
                ref = image_ref.parse(image.image)
                kind = registry_kind(ref.registry)
                parts.add((kind, part := part_of(kind, ref.registry, ref.repository)))
                self.used[kind].add(part)
                if image.platform and (digest := digest_of(image.image_id)) in self._digests:
                    self._runs_on[digest].add(image.platform)
                counts.count(self._found(image, looks)[1])
        return counts, parts

    def _container(self, image: RunningImage, gaps: Sequence[Gap], looks: Set[str]) -> RunningContainer:
        manifests, _ = self._found(image, looks)
        ref = image_ref.parse(image.image)
        refused = (*gaps, *self._gaps_of(ref.registry, ref.repository))
        return RunningContainer(
            name=image.container,
            pods=image.pods,
            images=(image.image,),
            manifests=_with(_believed(manifests, looks), refused),
            known_exploited=self.known_exploited,
            as_of=self.as_of,
        )

    def _found(self, image: RunningImage, looks: Set[str]) -> tuple[tuple[Manifest, ...], str]:
        """Thousands of containers run a few images."""
        key = (image.image, image.image_id, image.platform, looks)
        if key not in self._cache:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            self._cache[key] = self._search(image, looks)
        return self._cache[key]

    def _search(self, image: RunningImage, looks: Set[str]) -> tuple[tuple[Manifest, ...], str]:
        """By the digest that the node tells, else that of its configuration or the one asked for, else by tag. That
        another cluster calls it clean ends no search."""

        def tells(found: Iterable[Manifest]) -> bool:
            scans = (match.scan for manifest in found for match in manifest.matches)
            return any(scan.told and (scan.vulnerabilities or _is_own(scan, looks)) for scan in scans)

        ref = image_ref.parse(image.image)
        own, asked, config = digest_of(image.image_id), _digest(ref.digest or ""), _config_digest(image.image_id)
        if own and tells(found := self._of_digest(own, image.platform)):
            return found, BY_DIGEST
        if asked and asked != own and tells(found := self._of_digest(asked, image.platform)):
            entry = any(entry.digest == own for entry in self.indexes.get(asked, ()))
            return found if not own or entry else _doubted(found, "the node tells another digest"), BY_DIGEST
        if config and tells(
            found := (Manifest(config, image.platform, tuple(map(Match, self._configs.get(config, ())))),)
        ):
            return found, BY_DIGEST
        seen = own or asked or config
        tagged = () if ref.digest else self._of_tag(f"{ref.name}:{ref.tag or 'latest'}", image.platform)
        if tells(tagged):
            return tuple(msgspec.structs.replace(m, digest=seen) for m in tagged), BY_TAG
        if own or asked:
            return self._of_digest(seen, image.platform), NOT_SCANNED
        return (Manifest(config, image.platform, ()),), NOT_SCANNED if config else NO_DIGEST

    def _of_digest(self, digest: str, platform: str) -> tuple[Manifest, ...]:
        """Of one for several platforms, the manifest for this one; all of them where the platform is not known."""
        scans = self._digests.get(digest, [])
        if digest not in self.indexes:
            elsewhere = {scan.platform for scan in scans if scan.platform and not _match(scan, platform)}
            matches = (*_matches(scans, platform), *self._of_indexes(digest))
            return (Manifest(digest, platform, matches, tuple(sorted(elsewhere))),)
        entries = self.indexes[digest]
        mine = [e for e in entries if not e.name or _same(e.name, platform)] if platform else entries
        if not mine:  # it lacks this platform, or is not understood
            found = (Manifest(digest, platform, tuple(_matches(scans, platform))),)
            return _doubted(found, "its index does not tell of this platform")
        return tuple(
            Manifest(e.digest, e.name, (*map(Match, self._digests.get(e.digest, ())), *self._of_index(digest, e)))
            for e in mine
        )

    def _of_index(self, digest: str, entry: Platform) -> Iterator[Match]:
        """What an index was scanned as, of the entry that is for that platform: of which one, if there are several,
        nobody knows."""
        for scan in self._digests.get(digest, ()):
            same = [e for e in self.indexes[digest] if scan.platform and _same(e.name, scan.platform)]
            if entry in same:
                yield Match(scan, "" if len(same) == 1 else "the index has several entries for this platform")
            elif not scan.platform:
                yield Match(scan, "the scan does not say for which platform it is")

    def _of_indexes(self, digest: str) -> Iterator[Match]:
        """What is said of this manifest under the digests of indexes that it is in."""
        if self._parents is None:
            self._parents = {}
            for index, entries in self.indexes.items():
                for entry in entries:
                    self._parents.setdefault(entry.digest, []).append((index, entry.name))
        for index, name in self._parents.get(digest, ()):
            yield from self._of_index(index, Platform(digest, name))

    def _of_tag(self, name: str, platform: str) -> tuple[Manifest, ...]:
        found = (Manifest("", platform, tuple(_matches(self._names.get(name, ()), platform))),)
        return _doubted(found, "it was found by its tag, which may have moved")

    def _gaps_of(self, host: str, repository: str) -> tuple[Gap, ...]:
        asked = (self.refused.get((host, name)) for name in (repository, ""))
        kind = registry_kind(host)
        return (*filter(None, asked), *self.gaps_of({(kind, part_of(kind, host, repository))}))

    def gaps_of(self, parts: Set[tuple[str, str]]) -> list[Gap]:
        """Why sources may not have told of images of these registries: kinds, with parts of them."""
        own = [gap for account, gap in self.placed if any(holds(account, kind, part) for kind, part in parts)]
        return [*own, *(gap for gap in self.gaps if any(self.tells_of(gap.what, kind) for kind, _ in parts))]

    # -- what registries hold -----------------------------------------------------------------------------------------

    def registered(self, kind: str) -> Iterator[tuple[set[tuple[str | None, str | None]], Group]]:
        """Every image of a kind of registries, with the accounts and regions that it is in."""
        stored = self._registered.get(kind, {})
        tagged = {(e.host, e.repository, tag) for e in stored.values() if _digest(e.name) for tag in e.tags}
        for key in sorted(stored):
            if key in tagged:
                continue  # told by its digest, too
            entry = stored[key]
            name = f"{entry.host}/{entry.repository}"
            subject = RegistryImage(
                images=tuple(f"{name}:{tag}" for tag in sorted(entry.tags)) or (name,),
                manifests=_with(
                    _believed(self._stored(entry), frozenset()), self._gaps_of(entry.host, entry.repository)
                ),
                known_exploited=self.known_exploited,
                as_of=self.as_of,
            )
            full = f"{name}{'@' if _digest(entry.name) else ':'}{entry.name}"
            yield entry.accounts, Group(Resource(group="", kind="Image", namespace="", name=full), "", [subject])

    def parts(self, kind: str) -> set[str]:
        """Of which parts of registries some image is told."""
        return {part_of(kind, host, repository) for host, repository, _ in self._registered.get(kind, ())}

    def _stored(self, entry: _Registered) -> tuple[Manifest, ...]:
        """For each platform that it is known for: by its index, or as it was scanned for it, or runs on it."""
        digest = _digest(entry.name)
        if not digest:
            return self._tagged(entry, [entry.name])
        platforms = [""]
        if digest not in self.indexes:
            scanned = {scan.platform for scan in self._digests[digest] if scan.platform}
            platforms = sorted(scanned | self._runs_on.get(digest, set())) or [""]
        found = tuple(manifest for platform in platforms for manifest in self._of_digest(digest, platform))
        tagged = () if told(found) else self._tagged(entry, sorted(entry.tags))
        return (*found, *tagged) if told(tagged) else found

    def _tagged(self, entry: _Registered, tags: Iterable[str]) -> tuple[Manifest, ...]:
        """What is said of its tags, by whoever tells no digest."""
        names = (f"{entry.host}/{entry.repository}:{tag}" for tag in tags)
        scans = [scan for name in names for scan in self._names.get(name, ()) if not scan.digest]
        found = (Manifest("", "", tuple(map(Match, scans))),)
        return _doubted(found, "no source tells the digest that its registry has")


def holds(account: Account, kind: str, part: str) -> bool:
    """Whether a part of a registry belongs to an account of AWS or Google Cloud, by its name."""
    if account.provider != kind:
        return False
    if kind == "aws":
        host = part.partition("/")[0]
        return host.startswith(f"{account.id}.") and (not account.region or f".{account.region}." in host)
    return kind == "gcp" and part.endswith(f"/{account.id}")


def part_of(kind: str, host: str, repository: str) -> str:
    """What of a registry belongs to one account: a host, of Google's a project on it."""
    return f"{host}/{repository.partition('/')[0]}" if kind == "gcp" else host


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
    if not _same(scan.platform, platform):
        return None
    # All of arm64 is one variant; of others the node does not tell its own.
    several = scan.platform.count("/") != platform.count("/") and "/arm64" not in scan.platform
    return Match(scan, "the node does not tell its variant of the platform" if several else "")


def _doubted(manifests: Iterable[Manifest], doubt: str) -> tuple[Manifest, ...]:
    return tuple(
        msgspec.structs.replace(found, matches=tuple(Match(match.scan, doubt) for match in found.matches))
        for found in manifests
    )


def _believed(manifests: Iterable[Manifest], looks: Set[str]) -> tuple[Manifest, ...]:
    """Whoever controls another cluster can say there what they like."""
    return tuple(
        msgspec.structs.replace(found, matches=tuple(_foreign(match, looks) for match in found.matches))
        if any(match.scan.cluster for match in found.matches)
        else found
        for found in manifests
    )


def _with(manifests: Iterable[Manifest], gaps: tuple[Gap, ...]) -> tuple[Manifest, ...]:
    return tuple(msgspec.structs.replace(found, gaps=gaps) for found in manifests) if gaps else tuple(manifests)


def _is_own(scan: ImageScan, looks: Set[str]) -> bool:
    return not scan.cluster or scan.cluster in looks


def _foreign(match: Match, looks: Set[str]) -> Match:
    own = _is_own(match.scan, looks)
    return match if match.doubt or own else Match(match.scan, "that is what another cluster says")


def _same(one: str, other: str) -> bool:
    """Nodes do not tell the variant of their architecture."""
    a, b = one.split("/"), other.split("/")
    return a[:2] == b[:2] and (len(a) < 3 or len(b) < 3 or a[2] == b[2])
