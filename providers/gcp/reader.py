"""Projects and what is in them: lists that know whether they are complete, as resources to be judged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec.structs import replace

from providers.gcp.access import WAY
from providers.gcp.errors import GcpError
from providers.gcp.images import SOURCE, Images, may_hold_images
from providers.gcp.session import PROJECT_ID, Listed
from scanner.cloud import kept
from scanner.gcp import ArtifactRepository, GkeCluster, kept_cluster, kept_policy
from scanner.inventory import Counts
from scanner.model import Collected, Gap, GapReason, utc_now
from scanner.plain import plain
from scanner.vulnerabilities import Scans

Json = dict[str, Any]

CLUSTERS, REPOSITORIES, POLICY = GkeCluster.kind, ArtifactRepository.kind, "iamPolicy"
BESIDE = frozenset({POLICY})  # what checks may need beside a resource
PROJECTS, FOLDERS = "projects", "folders"
MAX_FOLDERS = 10_000
SILENT = 2  # requests one after the other without an answer, after which the rest of a list of lists is given up
_ANSWERED = frozenset({"bindings", "version", "etag", "auditConfigs"})  # all that a policy consists of
_PLACE = re.compile(r"[a-z0-9-]{1,60}")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9])?")
_FOLDER = re.compile(r"folders/[0-9]{1,25}")
_PROJECT = re.compile(r"projects/([0-9]{1,25})")


@dataclass(slots=True)
class Project:
    """One project, with what was read of it. `ways` says of each cluster, by its id, where its API server is; `off` is
    whether Google says that the project does not use GKE, so that it has no clusters."""

    id: str
    number: str = ""
    name: str = ""
    clusters: Collected[GkeCluster] = field(default_factory=Collected)
    repositories: Collected[ArtifactRepository] = field(default_factory=Collected)
    scans: Scans = field(default_factory=Scans)
    ways: dict[str, Json] = field(default_factory=dict)
    off: bool = False
    silent: int = 0  # how many of the last requests got no answer
    counts: Counts = field(default_factory=Counts)

    @property
    def gaps(self) -> list[Gap]:
        own = [gap for repository in self.repositories.items for c in repository.related.values() for gap in c.gaps]
        unread = [repository.unread for repository in self.repositories.items if repository.unread]
        return [*self.clusters.gaps, *self.repositories.gaps, *_folded([*unread, *own])]


class Answers(Protocol):
    """Where lists come from: Google Cloud, or a recording of it."""

    def clusters(self, project: str) -> Listed: ...

    def get(self, service: str, path: str, permission: str, **query: str | int) -> Json: ...

    def pages(
        self, service: str, path: str, items: str, permission: str, **query: str | int
    ) -> Iterator[list[Any]]: ...


class Reader:
    """Reads one project after the other for many threads. `kinds` are the lists that the checks need; `scans` is
    whether they need what was found in images."""

    def __init__(self, session: Answers, kinds: Iterable[str], *, scans: bool = False) -> None:
        self.session = session
        self.kinds = frozenset(kinds)
        self.scans = scans

    # -- projects -----------------------------------------------------------------------------------------------------

    def below(self, parent: str) -> Collected[Project]:
        """Every active project of an organization ("organizations/123") or a folder, and of all folders below."""
        found: dict[str, Project] = {}
        gaps: list[Gap] = []
        folders, seen, silent = [parent], {parent}, 0
        while folders and silent < SILENT and len(seen) <= MAX_FOLDERS:
            place = folders.pop()
            known = len(gaps)
            projects, more = self._list_below(PROJECTS, place, gaps), self._list_below(FOLDERS, place, gaps)
            silent = silent + 1 if _is_silence(gaps[known:]) else 0
            found.update((project.id, project) for project in _projects(projects, gaps))
            below = dict.fromkeys(name for name in _folders(more, gaps) if name not in seen)
            seen.update(below)
            folders += below
        gaps = _folded(gaps)
        if folders:
            detail = f"{len(folders)} folders or more below {parent} were not read: there are too many, or no answers"
            gaps.append(_gap(FOLDERS, GapReason.BAD_DATA if silent < SILENT else GapReason.TIMEOUT, detail))
        if not found and not gaps:
            gaps.append(_gap(PROJECTS, GapReason.NOT_FOUND, f"Google listed no active project below {parent}"))
        return Collected(list(found.values()), gaps)

    def _list_below(self, what: str, parent: str, gaps: list[Gap]) -> list[Json]:
        permission = f"resourcemanager.{what}.list"
        pages = self.session.pages("cloudresourcemanager", f"/v3/{what}", what, permission, parent=parent)
        found = _list(Counts(), what, pages)
        # An organization has thousands of folders: each gap says which of them it is about.
        gaps += [_at(gap, parent) for gap in found.gaps]
        return found.items

    def read(self, project: Project) -> Iterator[Project]:
        """Twice the same object: when the clusters are known, and when the rest is too."""
        project.clusters = self._clusters(project)
        yield project
        if REPOSITORIES in self.kinds:
            project.repositories = self._repositories(project)
            project.counts.read += len(project.repositories.items)
            project.counts.judged += len(project.repositories.items)
        if self.scans:
            project.scans = self._scans(project)
        yield project

    # -- GKE ----------------------------------------------------------------------------------------------------------

    def _clusters(self, project: Project) -> Collected[GkeCluster]:
        counts = project.counts
        counts.lists_asked += 1
        try:
            answer = self.session.clusters(project.id)
        except GcpError as error:
            project.off, gaps = self._off(project, CLUSTERS, error)
            counts.lists_read += project.off
            return Collected([], gaps)
        gaps = [_missing(place) for place in answer.missing_zones]
        found: dict[str, GkeCluster] = {}
        for wire, why in answer.clusters:
            cluster = _cluster(wire, why, project, gaps)
            if cluster:
                known = found.setdefault(cluster.id, cluster)
                if known.wire != cluster.wire:
                    known.unread = _listed_twice(CLUSTERS)
        counts.lists_read += not gaps
        counts.read += len(found)
        counts.judged += len(found)
        return Collected(list(found.values()), gaps)

    def _off(self, project: Project, what: str, error: GcpError) -> tuple[bool, list[Gap]]:
        """Whether an API is off in the very project that was asked about, and the gap where that is not so."""
        if not error.off_in:
            return False, [gap_of(what, error)]
        charged = error.off_in.removeprefix("projects/")
        unknown = ""
        if charged != project.id and charged.isdigit() and not project.number:
            project.number, unknown = self._number(project.id)
        if charged in (project.id, project.number):
            return True, []
        why = "which is not this project, but the one that requests are charged to"
        if unknown:
            why = f"and whether that is this project could not be asked: {unknown}"
        detail = f"the API is not enabled in {error.off_in}, {why} ({error.detail})"
        return False, [_gap(what, error.reason, plain(detail))]

    def _number(self, project: str) -> tuple[str, str]:
        """The number of a project, or why it is not known."""
        try:
            answer = self.session.get("cloudresourcemanager", f"/v3/projects/{project}", "resourcemanager.projects.get")
        except GcpError as error:
            return "", f"{error.detail}; needed: {error.permission}" if error.permission else error.detail
        match = _PROJECT.fullmatch(str(answer.get("name")))
        if match is None or answer.get("projectId") != project:
            return "", "the answer names no project"
        return match[1], ""

    # -- Artifact Registry --------------------------------------------------------------------------------------------

    def _repositories(self, project: Project) -> Collected[ArtifactRepository]:
        """Of all locations, each asked on its own: no document says that the list takes a wildcard."""
        top = f"/v1/projects/{project.id}/locations"
        found: list[ArtifactRepository] = []
        project.counts.lists_asked += 1
        try:
            pages = self.session.pages("artifactregistry", top, "locations", "artifactregistry.locations.list")
            places = [item for page in pages for item in page]
        except GcpError as error:
            off, gaps = self._off(project, REPOSITORIES, error)
            project.counts.lists_read += off
            return Collected([], gaps)
        project.counts.lists_read += 1
        names, gaps = _locations(places)
        for name in names:
            listed = self._listed(project, f"{top}/{name}/repositories")
            gaps += [_at(gap, name) for gap in listed.gaps]
            found += self._resources(project, name, listed.items, gaps)
        return Collected(found, _folded(gaps))

    def _listed(self, project: Project, path: str) -> Collected[Json]:
        if project.silent >= SILENT:
            project.counts.lists_asked += 1
            return Collected([], [_unasked(REPOSITORIES)])
        permission = "artifactregistry.repositories.list"
        pages = self.session.pages("artifactregistry", path, "repositories", permission)
        listed = _list(project.counts, REPOSITORIES, pages)
        _heard(project, listed.gaps)
        return listed

    def _resources(self, project: Project, place: str, items: list[Json], gaps: list[Gap]) -> list[ArtifactRepository]:
        found: dict[str, ArtifactRepository] = {}
        start = f"projects/{project.id}/locations/{place}/repositories/"
        for item in items:
            name = item.get("name")
            short = name.removeprefix(start) if isinstance(name, str) and name.startswith(start) else ""
            if not _NAME.fullmatch(short):
                detail = f"an entry of {place} has no usable name: {plain(str(name))[:80]!r}"
                gaps.append(_gap(REPOSITORIES, GapReason.BAD_DATA, detail))
            elif name in found:
                if found[str(name)].wire != kept(item, ArtifactRepository.KEEP):
                    found[str(name)].unread = _listed_twice(REPOSITORIES)
            else:
                found[str(name)] = ArtifactRepository(
                    wire=kept(item, ArtifactRepository.KEEP),
                    id=f"//artifactregistry.googleapis.com/{name}",
                    name=short,
                    account=project.id,
                    region=place,
                    tags=_labels(item.get("labels")),
                    unread=None if item.get("format") else _without_format(),
                    related=self._beside(f"{start}{short}", project),
                )
        return list(found.values())

    def _beside(self, name: str, project: Project) -> dict[str, Collected[Json]]:
        if POLICY not in self.kinds:
            return {}
        project.counts.lists_asked += 1
        if project.silent >= SILENT:
            return {POLICY: Collected([], [_unasked(POLICY)])}
        found = self._policy(name)
        _heard(project, found.gaps)
        project.counts.lists_read += not found.gaps
        return {POLICY: found}

    def _policy(self, name: str) -> Collected[Json]:
        permission = "artifactregistry.repositories.getIamPolicy"
        query: dict[str, str | int] = {"options.requestedPolicyVersion": 3}  # else conditions are left out
        try:
            policy = self.session.get("artifactregistry", f"/v1/{name}:getIamPolicy", permission, **query)
        except GcpError as error:
            return Collected([], [gap_of(POLICY, error)])
        if not _is_policy(policy):
            return Collected([], [_gap(POLICY, GapReason.BAD_DATA, "the answer is no policy of IAM")])
        return Collected([kept_policy(policy)])

    # -- images -------------------------------------------------------------------------------------------------------

    def _scans(self, project: Project) -> Scans:
        """What Artifact Analysis found in the images of a project. Which images there are is told also where its API is
        off."""
        images = Images(project.id)
        repositories = project.repositories if REPOSITORIES in self.kinds else self._repositories(project)
        unlisted = [replace(gap, what=SOURCE) for gap in repositories.gaps]
        for repository in repositories.items:
            if may_hold_images(repository.wire):
                unlisted += [_at(gap, repository.name) for gap in self._docker_images(project, repository, images)]
        project.silent = 0  # the next ones are another service's
        analyses = self._occurrences(project, "DISCOVERY")
        off, unsaid = self._hand_over(project, analyses, images.take_analyses, optional=True)
        unfound: list[Gap] = []
        if not off:
            vulnerabilities = self._occurrences(project, "VULNERABILITY")
            _, unfound = self._hand_over(project, vulnerabilities, images.take_vulnerabilities)
        gaps = _folded([*unlisted, *unsaid, *unfound])
        scans = images.scans(listed=not unlisted, analysed=not unsaid, found=not unfound)
        return Scans([SOURCE] if gaps or not off else [], scans, images.indexes, gaps, listed=not unlisted)

    def _docker_images(self, project: Project, repository: ArtifactRepository, images: Images) -> list[Gap]:
        path = f"/v1/{repository.id.removeprefix('//artifactregistry.googleapis.com/')}/dockerImages"
        permission = "artifactregistry.dockerimages.list"
        pages = self.session.pages("artifactregistry", path, "dockerImages", permission)
        return self._hand_over(project, pages, images.take_images)[1]

    def _occurrences(self, project: Project, kind: str) -> Iterator[list[Any]]:
        path, permission = f"/v1/projects/{project.id}/occurrences", "containeranalysis.occurrences.list"
        return self.session.pages("containeranalysis", path, "occurrences", permission, filter=f'kind="{kind}"')

    def _hand_over(
        self,
        project: Project,
        pages: Iterator[list[Any]],
        take: Callable[[list[Any]], list[str]],
        *,
        optional: bool = False,
    ) -> tuple[bool, list[Gap]]:
        """Page by page. Whether the API is off in the project, and what was not read or not understood. One that is not
        `optional`, or that has already answered, is not off: what it does not tell is missing."""
        project.counts.lists_asked += 1
        if project.silent >= SILENT:
            return False, [_unasked(SOURCE)]
        off = False
        gaps: list[Gap] = []
        try:
            for page in pages:
                optional = False
                gaps += [_gap(SOURCE, GapReason.BAD_DATA, detail) for detail in take(page)]
        except GcpError as error:
            off, unread = self._off(project, SOURCE, error) if optional else (False, [gap_of(SOURCE, error)])
            gaps += unread
        _heard(project, gaps)
        project.counts.lists_read += not gaps
        return off, gaps


def _cluster(wire: Json, why: GcpError | None, project: Project, gaps: list[Gap]) -> GkeCluster | None:
    """A cluster, unread where there is a reason `why`; one that does not say which it is becomes a gap."""
    name, place = wire.get("name", ""), wire.get("location") or wire.get("zone", "")
    if not (_PLACE.fullmatch(place) and _PLACE.fullmatch(name)):
        detail = f"an entry has no usable name and location: {plain(name)[:80]!r} in {plain(place)[:80]!r}"
        gaps.append(_gap(CLUSTERS, GapReason.BAD_DATA, detail))
        return None
    cluster = GkeCluster(
        wire={},
        id=f"//container.googleapis.com/projects/{project.id}/locations/{place}/clusters/{name}",
        name=name,
        account=project.id,
        region=place,
        tags=_labels(wire.get("resourceLabels")),
        related={},
    )
    if why:
        cluster.unread = gap_of(CLUSTERS, why)
        return cluster
    if "status" not in wire:  # each has one: where Google says nothing of a cluster, no absent field is a default
        cluster.unread = _gap(CLUSTERS, GapReason.BAD_DATA, "Google listed it without its status")
    cluster.wire = kept_cluster(wire)
    project.ways[cluster.id] = kept(wire, WAY)
    return cluster


def _is_policy(policy: Json) -> bool:
    """A policy without bindings has none; but any other object is not a policy without bindings."""
    bindings = policy.get("bindings", [])
    if not isinstance(bindings, list) or policy.keys() - _ANSWERED:
        return False
    return all(
        isinstance(binding, dict)
        and isinstance(binding.get("role"), str)
        and isinstance(members := binding.get("members"), list)
        and all(isinstance(member, str) for member in members)
        for binding in bindings
    )


def _projects(items: Iterable[Json], gaps: list[Gap]) -> Iterator[Project]:
    """Active ones; an entry that does not say which project it is becomes a gap."""
    for item in items:
        if item.get("state") == "DELETE_REQUESTED":
            continue
        id, match, title = item.get("projectId"), _PROJECT.fullmatch(str(item.get("name"))), item.get("displayName")
        if isinstance(id, str) and PROJECT_ID.fullmatch(id) and match:
            yield Project(id, match[1], title if isinstance(title, str) else "")
        else:
            gaps.append(_gap(PROJECTS, GapReason.BAD_DATA, f"an entry names no project: {plain(str(id))[:80]!r}"))


def _folders(items: Iterable[Json], gaps: list[Gap]) -> Iterator[str]:
    for item in items:
        name = item.get("name")
        if isinstance(name, str) and _FOLDER.fullmatch(name):
            yield name
        else:
            gaps.append(_gap(FOLDERS, GapReason.BAD_DATA, f"an entry names no folder: {plain(str(name))[:80]!r}"))


def _locations(items: Iterable[Any]) -> tuple[list[str], list[Gap]]:
    """The names of those where Artifact Registry is; there are always some."""
    names = [item.get("locationId") for item in items if isinstance(item, dict)]
    usable = [name for name in dict.fromkeys(names) if isinstance(name, str) and _PLACE.fullmatch(name)]
    if not names:
        detail = "Google listed no location, which is never true"
    elif len(usable) < len(set(map(str, names))) or not all(isinstance(item, dict) for item in items):
        detail = "entries of the list name no location"
    else:
        return usable, []
    return usable, [_gap(REPOSITORIES, GapReason.BAD_DATA, detail)]


def _labels(found: object) -> dict[str, str]:
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def _list(counts: Counts, what: str, pages: Iterator[list[Any]]) -> Collected[Json]:
    """A list with all its pages; what came before a failure stays."""
    counts.lists_asked += 1
    items: list[Json] = []
    gaps: list[Gap] = []
    try:
        for page in pages:
            items += [item for item in page if isinstance(item, dict)]
            if any(not isinstance(item, dict) for item in page):
                gaps.append(_gap(what, GapReason.BAD_DATA, "entries of the list are no objects"))
    except GcpError as error:
        gaps.append(gap_of(what, error))
    if not gaps:
        counts.lists_read += 1
    return Collected(items, gaps)


def gap_of(what: str, error: GcpError) -> Gap:
    """The gap that a failed call leaves, with the right that would close it."""
    return Gap(what=what, reason=error.reason, detail=plain(error.detail), permission=error.permission, time=utc_now())


def _gap(what: str, reason: GapReason, detail: str) -> Gap:
    return Gap(what=what, reason=reason, detail=detail, time=utc_now())


def _unasked(what: str) -> Gap:
    return _gap(what, GapReason.TIMEOUT, "was not asked for, as Google did not answer before")


def _is_silence(gaps: Iterable[Gap]) -> bool:
    return any(gap.reason in (GapReason.TIMEOUT, GapReason.UNREACHABLE) for gap in gaps)


def _heard(project: Project, gaps: Iterable[Gap]) -> None:
    project.silent = project.silent + 1 if _is_silence(gaps) else 0


def _without_format() -> Gap:
    """A repository of which nothing is said: every absent field would read as its default."""
    return _gap(REPOSITORIES, GapReason.BAD_DATA, "Google listed it without its format")


def _listed_twice(what: str) -> Gap:
    return _gap(what, GapReason.BAD_DATA, "Google listed it twice, and not alike")


def _missing(place: str) -> Gap:
    return _gap(CLUSTERS, GapReason.LOCATION_MISSING, f"Google could not say which clusters are in {plain(place)}")


def _at(gap: Gap, place: str) -> Gap:
    return replace(gap, detail=f"{place}: {gap.detail}")


def _folded(gaps: Iterable[Gap]) -> list[Gap]:
    """One refusal of many repositories or locations is one gap, that says how many more there are."""
    seen: dict[tuple[str, GapReason, str], list[Gap]] = {}
    for gap in gaps:
        seen.setdefault((gap.what, gap.reason, gap.permission), []).append(gap)
    return [_first(alike) for alike in seen.values()]


def _first(gaps: list[Gap]) -> Gap:
    more = f" (and {len(gaps) - 1} more like this)" if len(gaps) > 1 else ""
    return replace(gaps[0], detail=f"{gaps[0].detail}{more}")
