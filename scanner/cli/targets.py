"""The composition root: wires providers to tasks. The only module that imports providers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from providers.files import manifests
from scanner import bundle
from scanner.cli.options import Contexts, Namespaces, Running
from scanner.clusters import server_id, server_keys
from scanner.collect import Estate, Progress, Reading, Task, unread
from scanner.config import ConfigError
from scanner.inventory import Inventory
from scanner.kube import KINDS
from scanner.model import Cluster, Collected, GapReason, PlaneState, utc_now
from scanner.vulnerabilities import Scans

if TYPE_CHECKING:
    from providers.kubernetes.connection import Connection
    from providers.kubernetes.credentials import ApiAccess
    from providers.kubernetes.kubeconfig import Context
    from providers.kubernetes.reader import Scope

Json = dict[str, Any]


def manifest_task(paths: list[str], namespace: str | None) -> Task:
    """Files are read whole, whichever checks will judge them."""
    kinds = frozenset(KINDS)

    def read(progress: Progress) -> list[Reading]:
        found = manifests.read(paths, namespace or "default", kinds, progress)
        return [Reading(Estate(found.name, found.inventory), found.locate)]

    return Task(", ".join(paths), read, kinds, "files")


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
class Inside:
    """What is read inside a cluster, and how; `agents` where a check of the control plane looks at those of clouds,
    `scans` where a check asks what was found in images."""

    kinds: frozenset[str]
    namespaces: Namespaces
    running: Running
    cluster_ids: Mapping[str, str]
    agents: bool = False
    scans: bool = False

    def __post_init__(self) -> None:
        for name in self.namespaces.namespace:
            if any(fnmatchcase(name, pattern) for pattern in self.namespaces.exclude_namespace):
                raise ConfigError(f"namespace {name!r} is both asked for and left out")


@dataclass(frozen=True)
class Look:
    """What a look inside a cluster showed; `scope` is the base of finding ids, and `source` where that comes from.
    `server` is the id that it has where the uid cannot be read."""

    inventory: Inventory
    uid: str | None
    version: str | None
    scope: str
    source: str
    keys: list[str]
    plane: PlaneState
    agents: dict[str, Collected[Json]] = field(default_factory=dict)
    scans: Scans = field(default_factory=Scans)
    server: str = ""


def look_inside(access: Context | ApiAccess, name: str, inside: Inside, progress: Progress) -> Look:
    """Raises ApiError and ConfigError of the Kubernetes provider where not even a connection can be had."""
    from providers.kubernetes import reader
    from providers.kubernetes.connection import connect

    deadline = time.monotonic() + inside.running.timeout
    wanted = inside.namespaces
    fallback = getattr(access, "namespace", None)
    with connect(access, request_timeout=inside.running.request_timeout, deadline=deadline) as server:
        facts = reader.facts(server)
        scope = reader.Scope(inside.kinds, wanted.namespace, wanted.exclude_namespace, fallback)
        inventory = reader.read(server, scope, facts.version, progress)
        found = _agents(server, inventory, inside)
        scans = _scans(server, inventory, inside, scope)
    arc = found["arcConfig"].items if "arcConfig" in found else []
    keys = [*server_keys(server.server, server.ca), *(f"id:{item['id'].lower()}" for item in arc)]
    identity = server_id(server.server, server.ca)
    if facts.uid:
        id, source = facts.uid, "kube_system_uid"
    elif name in inside.cluster_ids:
        id, source = inside.cluster_ids[name], "config"
    else:
        id, source = identity, "api_server"
    return Look(inventory, facts.uid, facts.version, id, source, keys, _plane(inventory), found, scans, identity)


def _agents(server: Connection, inventory: Inventory, inside: Inside) -> dict[str, Collected[Json]]:
    from providers.kubernetes import agents

    if not inventory.counts.lists_read:
        return {}  # it lets nobody in, or is not there
    wanted = inside.namespaces
    chosen = wanted.namespace or wanted.exclude_namespace or inventory.gaps_of(("namespaces",))
    namespaces = None if chosen else inventory.namespace_labels
    found: dict[str, Collected[Json]] = {}
    if inside.agents or agents.ARC in inventory.namespace_labels:
        absent = namespaces is not None and agents.ARC not in namespaces
        found["arcConfig"] = Collected() if absent else agents.arc(server)
    if inside.agents:
        found["agents"] = agents.running(server, namespaces)
    return found


def _scans(server: Connection, inventory: Inventory, inside: Inside, scope: Scope) -> Scans:
    from providers.kubernetes import trivy_operator

    if not inside.scans or not inventory.counts.lists_read:
        return Scans()  # nobody asks, or it lets nobody in
    platform = "" if inventory.gaps_of(("nodes",)) else inventory.platform_of_nodes
    return trivy_operator.read(server, scope, inventory, platform)


def kubeconfig_tasks(wanted: Contexts, inside: Inside) -> list[Task]:
    """One task a context; raises ConfigError where the kubeconfig or a context is missing."""
    from providers.kubernetes.errors import ConfigError as Unusable
    from providers.kubernetes.kubeconfig import contexts

    try:
        chosen = contexts(str(wanted.kubeconfig) if wanted.kubeconfig else None, wanted.context)
    except Unusable as error:
        raise ConfigError(str(error)) from None
    return [_context_task(context, inside) for context in chosen]


def _context_task(context: Context, inside: Inside) -> Task:
    from providers.kubernetes import errors
    from providers.kubernetes.credentials import address

    def lost(reason: GapReason, detail: str) -> Reading:
        server, ca = address(context)
        id = inside.cluster_ids.get(context.name, "")
        reading = unread(context.name, "kubernetes", inside.kinds, reason, detail, id)
        reading.estate.keys = server_keys(server, ca)
        if reading.estate.cluster and server and not id:  # of several behind one address each is one
            reading.estate.cluster.id = f"{server_id(server, ca)}/{context.name}"
            reading.estate.cluster.id_source = "api_server"
        return reading

    def read(progress: Progress) -> Iterable[Reading]:
        try:
            look = look_inside(context, context.name, inside, progress)
        except (errors.ConfigError, errors.ApiError) as error:
            reason = error.reason if isinstance(error, errors.ApiError) else GapReason.NOT_CONFIGURED
            yield lost(reason, str(error))
            return
        named = inside.cluster_ids.get(context.name)
        former = [look.server, f"{look.server}/{context.name}", f"context:{context.name}", *([named] if named else [])]
        cluster = Cluster(
            id=look.scope,
            uid=look.uid,
            id_source=look.source,
            provider="kubernetes",
            name=context.name,
            version=look.version,
            data_plane=look.plane,
            observed_at=utc_now(),
        )
        yield Reading(
            Estate(
                context.name,
                look.inventory,
                cluster,
                scope=look.scope,
                keys=look.keys,
                former=[id for id in former if id != look.scope],
                agents=look.agents,
                scans=look.scans,
            )
        )

    return Task(context.name, read, inside.kinds, "kubernetes", lost)


def _plane(inventory: Inventory) -> PlaneState:
    if not inventory.counts.lists_read:
        return PlaneState.NOT_READ
    return PlaneState.COMPLETE if inventory.complete else PlaneState.PARTIAL
