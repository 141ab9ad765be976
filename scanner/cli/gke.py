"""Wires Google Cloud to tasks: one finds the projects, each of those its clusters, each of those is read on its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from providers.gcp.access import CONNECT, api_access, identity
from providers.gcp.errors import GcpError, UsageError
from providers.gcp.reader import CLUSTERS, Project, Reader
from providers.gcp.session import Session, check_parent, check_project
from scanner.cli.discovery import Asked, Cloud, Unreadable, advise, minting
from scanner.cli.options import GcpScope
from scanner.cli.targets import Look
from scanner.clusters import server_keys
from scanner.collect import Progress, Reading, Task
from scanner.config import ConfigError
from scanner.gcp import GkeCluster
from scanner.inventory import Counts
from scanner.kube import printable
from scanner.model import Gap, GapReason
from scanner.resources import AnyResource

if TYPE_CHECKING:
    from providers.kubernetes.credentials import ApiAccess

PROVIDER = "gcp"
CONNECTIONS = 64


@contextlib.contextmanager
def gke_tasks(scope: GcpScope, asked: Asked) -> Iterator[list[Task]]:
    """The task that finds all others. Raises ConfigError for options that cannot be used."""
    cloud = Cloud(PROVIDER, CLUSTERS, (), asked)
    try:
        projects = [check_project(text) for text in dict.fromkeys(scope.project)]
        parents = [check_parent("organization", text) for text in dict.fromkeys(scope.organization)]
        parents += [check_parent("folder", text) for text in dict.fromkeys(scope.folder)]
        session = Session(
            impersonate=scope.impersonate,
            endpoints=_endpoints(scope.gcp_endpoint),
            request_timeout=asked.running.request_timeout,
            connections=CONNECTIONS,
        )
    except UsageError as error:
        raise ConfigError(str(error)) from None
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("google", "grpc", "proto"):
            raise
        raise ConfigError("the Google Cloud SDK is not installed: pip install 'kubeposture[gcp]'") from None
    with contextlib.closing(session):
        yield [_Gcp(cloud, session, projects, parents, scans=asked.settings.needs_scans).task()]


def _endpoints(given: list[str]) -> Mapping[str, str]:
    pairs = [text.partition("=") for text in given]
    return {service: url for service, _, url in pairs}


class _Gcp:
    def __init__(self, cloud: Cloud, session: Session, projects: list[str], parents: list[str], *, scans: bool) -> None:
        self.cloud, self.session = cloud, session
        self.projects, self.parents = projects, parents
        self.reader = Reader(session, cloud.asked, scans=scans)

    # -- projects -----------------------------------------------------------------------------------------------------

    def task(self) -> Task:
        return Task("Google Cloud", self._find, self.cloud.kinds, PROVIDER, self._all_unread)

    def _find(self, progress: Progress) -> Iterator[Reading | Task]:
        progress("projects", 0)
        try:
            self.session.log_in()
        except GcpError as error:
            yield self._all_unread(error.reason, error.detail, error.permission)
            return
        named = self.projects or ([self.session.project] if self.session.project and not self.parents else [])
        if not named and not self.parents:
            detail = "no project is known: name one with --project, or all below --organization or --folder"
            yield self._all_unread(GapReason.NOT_CONFIGURED, detail)
        projects = {id: Project(id) for id in named}
        for parent in self.parents:
            found = self.reader.below(parent)
            projects = {project.id: project for project in found.items} | projects
            if found.gaps:
                yield self._unread_below(parent, found.gaps)
        for project in projects.values():
            self.cloud.wanted.expect()
            yield self._project_task(project, named=project.id in named)
        yield from self.cloud.listed()

    def _all_unread(self, reason: GapReason, detail: str, permission: str = "") -> Reading:
        account = self.cloud.account("gcp", "Google Cloud")
        return self.cloud.unread_account(account, "gcp:", reason, detail, permission)

    def _unread(self, id: str, reason: GapReason, detail: str, permission: str = "") -> Reading:
        """A project, or all below an organization or folder, of which nothing could be listed."""
        return self.cloud.unread_account(self.cloud.account(id, id), f"gcp:{id}", reason, detail, permission)

    def _unread_below(self, parent: str, gaps: list[Gap]) -> Reading:
        detail = "; ".join(gap.detail for gap in gaps)
        permission = ", ".join(dict.fromkeys(gap.permission for gap in gaps if gap.permission))
        return self._unread(parent, gaps[0].reason, detail, permission)

    def _project_task(self, project: Project, *, named: bool) -> Task:
        def read(progress: Progress) -> Iterator[Reading | Task]:
            started = False
            for found in self.reader.read(project):
                progress("resources", found.counts.read)
                if not started:
                    yield from self._cluster_tasks(found)
                    yield from self.cloud.listed()
                    started = True
            # Below an organization most projects have nothing to do with containers.
            scanned = found.scans.scans or found.scans.gaps
            if named or not found.off or found.gaps or found.repositories.items or scanned:
                yield project_reading(self.cloud, found)

        return Task(
            f"project {project.id}", read, self.cloud.kinds, PROVIDER, lambda *why: self._unread(project.id, *why)
        )

    # -- clusters -----------------------------------------------------------------------------------------------------

    def _cluster_tasks(self, project: Project) -> Iterator[Task]:
        wanted = self.cloud.wanted
        for cluster in project.clusters.items:
            if wanted.names_match(cluster.name) and wanted.tags_match(None if cluster.unread else cluster.tags):
                yield self._cluster_task(cluster, project.ways.get(cluster.id, {}))

    def _cluster_task(self, cluster: GkeCluster, way: dict[str, Any]) -> Task:
        cloud = self.cloud

        def read(progress: Progress) -> Iterator[Reading]:
            look = (
                cloud.look(cluster, lambda: self._access(cluster, way), progress) if self._has_inside(cluster) else None
            )
            yield self._reading(cluster, way, look)

        def lost(reason: GapReason, detail: str) -> Reading:
            look = cloud.unread_look(cluster, reason, detail) if self._has_inside(cluster) else None
            return self._reading(cluster, way, look)

        return Task(printable(cluster.name), read, cloud.inside.kinds, PROVIDER, lost)

    def _has_inside(self, cluster: GkeCluster) -> bool:
        return bool(self.cloud.inside.kinds) and cluster.lives

    def _access(self, cluster: GkeCluster, way: dict[str, Any]) -> tuple[ApiAccess, list[str]]:
        from providers.kubernetes.credentials import ApiAccess

        if cluster.unread:
            gap = cluster.unread
            raise Unreadable(gap.reason, gap.detail, gap.permission)
        try:
            access = api_access(self.session, way)
        except GcpError as error:
            raise Unreadable(error.reason, error.detail, error.permission) from None
        return ApiAccess(access.server, access.ca, minting(access.token)), _keys(way)

    def _reading(self, cluster: GkeCluster, way: dict[str, Any], look: Look | None) -> Reading:
        if look and not cluster.unread:
            self._advise(look, cluster, way)
        return cluster_reading(self.cloud, cluster, way, look)

    def _advise(self, look: Look, cluster: GkeCluster, way: dict[str, Any]) -> None:
        with contextlib.suppress(GcpError):  # that there is no way in says what to do about it
            access = api_access(self.session, way)
            advise(look, (GapReason.UNREACHABLE, GapReason.TIMEOUT), access.hint)
            advise(look, (GapReason.FORBIDDEN,), _rights(cluster, self.session.credential.account, dns=not access.ca))


def project_reading(cloud: Cloud, project: Project) -> Reading:
    """What is judged of a project itself; its clusters come one by one."""
    judged: list[AnyResource] = [*project.repositories.items]
    reading = cloud.account_reading(cloud.account(project.id, project.id), project, judged, f"gcp:{project.id}")
    reading.estate.scans = project.scans
    return reading


def cluster_reading(cloud: Cloud, cluster: GkeCluster, way: dict[str, Any], look: Look | None) -> Reading:
    version = cluster.wire.get("currentMasterVersion")
    return cloud.reading(cluster, look, Counts(), version=version if isinstance(version, str) else "", keys=_keys(way))


def _rights(cluster: GkeCluster, account: str, *, dns: bool) -> str:
    """What would have to be given where the API server lets nobody in."""
    who = account or "the account that scans"
    also = f", with the permission {CONNECT} for its DNS endpoint" if dns else ""
    return f"bind a ClusterRole that may read to {who}, or give it roles/container.viewer in {cluster.account}{also}"


def _keys(way: dict[str, Any]) -> list[str]:
    """Of its API server, by which a bundle from inside is known to be of this cluster."""
    return server_keys(*identity(way))
