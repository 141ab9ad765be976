"""The composition root: wires providers to tasks. The only module that imports providers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from providers.files import manifests
from scanner import bundle
from scanner.cli.options import ClusterScope, Running
from scanner.collect import Estate, Progress, Reading, Task, unread
from scanner.config import ConfigError
from scanner.inventory import Inventory
from scanner.kube import KINDS
from scanner.model import Cluster, GapReason, PlaneState, utc_now

if TYPE_CHECKING:
    from providers.kubernetes.kubeconfig import Context

SAMPLE = Path(__file__).parent.parent / "demo"


def manifest_task(paths: list[str], namespace: str | None) -> Task:
    """Files are read whole, whichever checks will judge them."""
    kinds = frozenset(KINDS)

    def read(progress: Progress) -> list[Reading]:
        found = manifests.read(paths, namespace or "default", kinds, progress)
        return [Reading(Estate(found.name, found.inventory), found.locate)]

    return Task(", ".join(paths), read, kinds, "files")


def demo_task(kinds: frozenset[str]) -> Task:
    """The sample cluster as a live scan would have read it, its one refused list included."""

    def read(progress: Progress) -> list[Reading]:
        inventory = manifests.read_sample(SAMPLE, kinds)
        cluster = Cluster(
            id="demo",
            uid="5f0c2f3e-8d1b-4c57-9d0a-demo00000001",
            id_source="kube_system_uid",
            provider="kubernetes",
            name="demo-shop",
            version="v1.34.2",
            data_plane=PlaneState.PARTIAL,
            observed_at=utc_now(),
        )
        return [Reading(Estate(cluster.name, inventory, cluster))]

    return Task("demo-shop", read, kinds, "kubernetes")


def bundle_tasks(paths: list[Path], kinds: frozenset[str]) -> list[Task]:
    return [_bundle_task(path, kinds) for path in paths]


def _bundle_task(path: Path, kinds: frozenset[str]) -> Task:
    def read(progress: Progress) -> Iterator[Reading]:
        """What stands before the damage is judged; the rest is as unread as a cluster that does not answer."""
        try:
            yield from map(Reading, bundle.read(path))
        except bundle.BundleError as error:
            yield unread(str(path), "bundle", kinds, GapReason.BAD_DATA, str(error))

    return Task(str(path), read, kinds, "bundle")


@dataclass(frozen=True)
class ClusterTarget:
    """Everything that reading one context needs."""

    kinds: frozenset[str]
    scope: ClusterScope
    running: Running
    cluster_ids: Mapping[str, str]


def kubeconfig_tasks(target: ClusterTarget) -> list[Task]:
    """One task a context; raises ConfigError where the kubeconfig or a context is missing."""
    from providers.kubernetes.errors import ConfigError as Unusable
    from providers.kubernetes.kubeconfig import contexts

    for name in target.scope.namespace:
        if any(fnmatchcase(name, pattern) for pattern in target.scope.exclude_namespace):
            raise ConfigError(f"namespace {name!r} is both asked for and left out")
    kubeconfig = str(target.scope.kubeconfig) if target.scope.kubeconfig else None
    try:
        chosen = contexts(kubeconfig, target.scope.context)
    except Unusable as error:
        raise ConfigError(str(error)) from None
    return [_context_task(context, target) for context in chosen]


def _context_task(context: Context, target: ClusterTarget) -> Task:
    from providers.kubernetes import errors, reader
    from providers.kubernetes.connection import connect

    def read(progress: Progress) -> Iterable[Reading]:
        deadline = time.monotonic() + target.running.timeout
        try:
            server = connect(context, request_timeout=target.running.request_timeout, deadline=deadline)
        except (errors.ConfigError, errors.ApiError) as error:
            reason = error.reason if isinstance(error, errors.ApiError) else GapReason.NOT_CONFIGURED
            id = target.cluster_ids.get(context.name, "")
            yield unread(context.name, "kubernetes", target.kinds, reason, str(error), id)
            return
        with server:
            facts = reader.facts(server)
            scope = reader.Scope(
                target.kinds, target.scope.namespace, target.scope.exclude_namespace, context.namespace
            )
            inventory = reader.read(server, scope, facts.version, progress)
        id, source = _identity(context.name, facts.uid, target, f"api_server:{server.identity()}")
        cluster = Cluster(
            id=id,
            uid=facts.uid,
            id_source=source,
            provider="kubernetes",
            name=context.name,
            version=facts.version,
            data_plane=_plane(inventory),
            observed_at=utc_now(),
        )
        yield Reading(Estate(context.name, inventory, cluster))

    return Task(context.name, read, target.kinds, "kubernetes")


def _identity(name: str, uid: str | None, target: ClusterTarget, fallback: str) -> tuple[str, str]:
    if uid:
        return uid, "kube_system_uid"
    if name in target.cluster_ids:
        return target.cluster_ids[name], "config"
    return fallback, "api_server"


def _plane(inventory: Inventory) -> PlaneState:
    if not inventory.counts.lists_read:
        return PlaneState.NOT_READ
    return PlaneState.COMPLETE if inventory.complete else PlaneState.PARTIAL
