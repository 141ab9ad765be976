"""Which readings are of one cluster: a cloud's inventory, a kubeconfig and a bundle from inside may all know it.

A reading has keys: uid:… of kube-system, id:… of the cloud (of an Arc connection too), server:… its API server's
address, ca:… its authority. Two readings that share one are of one cluster, unless both know a uid and those differ.
Address and authority only tell that a kubeconfig leads to a cluster that a cloud has named: a proxy in front of many
clusters has one of each.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from scanner.collect import Estate
from scanner.inventory import Counts
from scanner.model import Cluster, Collected, Gap, GapReason, PlaneState

_SOURCES = ("api_server", "config", "kube_system_uid")  # of ids, the surest last
_SHARED = ("server:", "ca:")  # keys that several clusters may have in common


def known_by(id: str) -> bool:
    """Whether an id tells a cluster from others: the name of a context is given to whatever."""
    return not id.startswith("context:")


def server_id(server: str, ca: bytes | None) -> str:
    """Stays the same for one authority and URL: the cluster's id when nothing better is known."""
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----(.*?)-----END", ca or b"", re.DOTALL)
    authority = sorted(b"".join(block.split()) for block in blocks)
    return "api_server:" + hashlib.sha256(b"\n".join([*authority, server.lower().encode()])).hexdigest()[:32]


def server_keys(server: str, ca: bytes | None) -> list[str]:
    """Keys of an API server: its address, unless that means something else elsewhere, and its authority."""
    try:
        parts = urlsplit(server.lower())
        host, port = parts.hostname or "", parts.port
    except ValueError:  # no URL, so nothing that another look could have in common
        host, port = "", None
    keys = []
    if "." in host and not host.endswith((".svc", ".local")) and not host.replace(".", "").isdigit():
        keys.append(f"server:{host}{'' if port in (None, 443) else f':{port}'}{parts.path.rstrip('/')}")
    if authority := _authority(ca):
        keys.append(f"ca:{authority}")
    return keys


def _authority(ca: bytes | None) -> str:
    """A hash of the first certificate, however its lines are broken; "" where there is none."""
    match = re.search(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", ca or b"", re.DOTALL)
    return hashlib.sha256(b"".join(match[1].split())).hexdigest()[:32] if match else ""


@dataclass(slots=True)
class Row:
    """One cluster of the report, of one or more readings."""

    cluster: Cluster
    keys: set[str]
    counts: Counts = field(default_factory=Counts)
    former: set[str] = field(default_factory=set)  # ids under which findings went out before more was known
    agents: dict[str, Collected[dict[str, Any]]] = field(default_factory=dict)  # clouds' own, found inside

    def take_agents(self, agents: Mapping[str, Collected[dict[str, Any]]]) -> None:
        """Of two looks the one that could be read; where both could and do not agree, neither is believed."""
        for name, found in agents.items():
            known = self.agents.get(name)
            if known is None or known.gaps:
                self.agents[name] = found if known is None or not found.gaps else known
            elif not found.gaps and _sorted(known.items) != _sorted(found.items):
                gap = Gap(what=name, reason=GapReason.BAD_DATA, detail="two looks into the cluster do not agree")
                self.agents[name] = Collected([], [gap])


def _sorted(items: list[dict[str, Any]]) -> list[str]:
    return sorted(map(repr, items))


class Clusters:
    """The rows of the report."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._by_key: dict[str | tuple[str, bool], list[Row]] = {}

    def join(self, estate: Estate, cluster: Cluster) -> tuple[Row, bool]:
        """The row that a reading belongs to, and whether an earlier one was of the same cluster."""
        keys = {*estate.keys, f"id:{cluster.id}", *([f"uid:{cluster.uid}"] if cluster.uid else [])}
        places = [_place(key, own=not _own_id(cluster)) for key in sorted(keys)]
        sharing = {id(row): row for place in places for row in self._by_key.get(place, ())}
        same = [row for row in sharing.values() if _same(row, cluster, keys)]
        # Not known, too, where it could be one of several: behind one proxy, or under one name in two networks.
        uids = {row.cluster.uid for row in same} - {None}
        ids = {_own_id(c) for c in (cluster, *(row.cluster for row in same))} - {""}
        known = bool(same) and len(uids) < 2 and len(ids) < 2
        row = same[0] if known else Row(cluster, set())
        if known:
            for other in same:
                self._leave(other)
            for other in same[1:]:
                self.rows = [r for r in self.rows if r is not other]
                _merge(row, other.cluster, other.counts)
                row.former |= other.former
                row.take_agents(other.agents)
                keys |= other.keys
            _merge(row, cluster, estate.inventory.counts)
        else:
            row.counts.add(estate.inventory.counts)
            self.rows.append(row)
        row.take_agents(estate.agents)
        row.keys |= keys
        for key in row.keys:
            self._by_key.setdefault(_place(key, own=bool(_own_id(row.cluster))), []).append(row)
        return row, known

    def _leave(self, row: Row) -> None:
        for key in row.keys:
            place = _place(key, own=bool(_own_id(row.cluster)))
            self._by_key[place] = [r for r in self._by_key[place] if r is not row]

    def row_of(self, row: Row) -> Row:
        """The row that this one has become part of, or the row itself."""
        id = row.cluster.id
        return next(
            (r for r in self._by_key.get(f"id:{id}", ()) if r is row or id == r.cluster.id or id in r.former), row
        )


def _place(key: str, *, own: bool) -> str | tuple[str, bool]:
    """Where rows with this key stand. Of those that a cloud runs thousands may have one authority, which joins none of
    them with another, so they stand apart."""
    return (key, own) if key.startswith(_SHARED) else key


def _same(row: Row, cluster: Cluster, keys: set[str]) -> bool:
    if len({_own_id(row.cluster), _own_id(cluster)} - {""}) == 2:
        return False  # whatever their API servers claim
    if row.cluster.uid and cluster.uid:
        return row.cluster.uid == cluster.uid
    common = row.keys & keys
    if bool(_own_id(row.cluster)) is bool(_own_id(cluster)):
        common = {key for key in common if not key.startswith(_SHARED)}
    return bool(common)


def _merge(row: Row, cluster: Cluster, counts: Counts) -> None:
    """What the cloud says of the cluster names it; each plane is as read as its best reading, less what that lacks."""
    known = row.cluster
    row.counts.add(counts)
    named, other = (known, cluster) if _sureness(known) >= _sureness(cluster) else (cluster, known)
    row.former = (row.former | {known.id, cluster.id}) - {named.id}
    for name in ("id", "id_source", "cloud_id", "provider", "name", "account", "region", "tags"):
        setattr(known, name, getattr(named, name))
    known.uid = known.uid or cluster.uid
    known.version = named.version or other.version
    known.control_plane = _state(known.control_plane, cluster.control_plane)
    known.data_plane = _state(known.data_plane, cluster.data_plane)
    known.observed_at = max(known.observed_at, cluster.observed_at)


def _own_id(cluster: Cluster) -> str:
    """The id that the cloud which runs it gave it, "" for one that no cloud runs."""
    return cluster.id if _naming(cluster) == 2 else ""


def _sureness(cluster: Cluster) -> tuple[int, int]:
    """Of two looks the one that knows better which cluster it is names it."""
    return _naming(cluster), _SOURCES.index(cluster.id_source) if cluster.id_source in _SOURCES else -1


def _naming(cluster: Cluster) -> int:
    """The cloud that runs a cluster names it before one that it is only connected to, and that before a kubeconfig."""
    if not cluster.cloud_id:
        return 0
    return 1 if "/connectedclusters/" in cluster.cloud_id.lower() else 2


def _state(a: PlaneState, b: PlaneState) -> PlaneState:
    """Of two looks: an unread one takes nothing from the other, an incomplete one does."""
    for state in (PlaneState.PARTIAL, PlaneState.COMPLETE, PlaneState.NOT_READ):
        if state in (a, b):
            return state
    return PlaneState.NOT_ASKED
