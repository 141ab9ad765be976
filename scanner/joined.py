"""What the readings of one scan say of each other's resources: Microsoft's checks of EKS and GKE clusters look at
Azure, and into the cluster, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

from scanner.azure import ArcCluster, SecurityConnector
from scanner.cloud import JOINED, CloudResource
from scanner.clusters import Row
from scanner.collect import Estate
from scanner.model import Collected, Gap, GapReason, MissingEvidence

R = TypeVar("R", bound=CloudResource)
Json = dict[str, Any]
Beside = dict[str, Collected[Json]]

_DISTRIBUTIONS = {"aws": "eks", "gcp": "gke"}


class Joined:
    """Gathers from each estate what others need, and gives it when all are there."""

    def __init__(self) -> None:
        self._asked: set[str] = set()  # of JOINED, what Azure was asked for
        self._gaps: dict[str, list[Gap]] = {}
        self._arc: dict[str, ArcCluster] = {}
        self._connectors: dict[str, SecurityConnector] = {}
        self._claims: Counter[str] = Counter()  # Arc connections, by how many clusters say that they are theirs
        self._names: Counter[tuple[str, str]] = Counter()  # clusters by cloud and name

    def take(self, estate: Estate) -> None:
        inventory = estate.inventory
        for resource in inventory.cloud:
            if isinstance(resource, ArcCluster):
                self._arc[resource.id.lower()] = _better(self._arc.get(resource.id.lower()), resource)
            elif isinstance(resource, SecurityConnector):
                self._connectors[resource.id.lower()] = _better(self._connectors.get(resource.id.lower()), resource)
        if estate.cluster and estate.cluster.provider == "bundle":  # unread: nobody knows what else was in it
            for name in JOINED:
                self._lack(name, inventory.gaps[:1])
        if estate.account and estate.account.provider == "azure":
            for name, kinds in JOINED.items():
                if kinds and kinds[0] in inventory.kinds:
                    self._lack(name, inventory.gaps_of(kinds[:1]))

    def _lack(self, name: str, gaps: list[Gap]) -> None:
        self._asked.add(name)
        self._gaps.setdefault(name, []).extend(gaps)

    def finish(self, rows: Iterable[Row]) -> None:
        """To be called when every estate was taken."""
        self._claims, self._names = Counter(), Counter()
        for row in rows:
            config = row.agents.get("arcConfig")
            self._claims.update(str(item.get("id")).lower() for item in (config.items if config else ()))
            self._names[row.cluster.provider, row.cluster.name.lower()] += 1

    def beside(self, resource: CloudResource, row: Row) -> Beside:
        """What is known of a cluster, by the names of JOINED; what nobody was asked for is not among it."""
        found: Beside = dict(row.agents)
        if "connectors" in self._asked:
            known = self._connectors.values()
            items = [{"id": c.id, "name": c.name, **c.wire} for c in known if not c.unread]
            unread = [c.unread for c in known if c.unread]
            found["connectors"] = Collected(items, [*self._gaps["connectors"], *unread])
        if "arcClusters" in self._asked:
            found["arcClusters"] = self._arc_of(resource, row.agents.get("arcConfig"))
        return found

    def _arc_of(self, resource: CloudResource, config: Collected[Json] | None) -> Collected[Json]:
        """The Arc connection that the cluster itself names; where it could not be asked, those of its name."""
        distribution = _DISTRIBUTIONS.get(resource.provider, "")
        if config is None or config.gaps:
            return self._of_name(resource, distribution)
        if not config.items:
            return Collected()
        id = str(config.items[0].get("id"))
        known = self._arc.get(id.lower())
        if self._claims[id.lower()] > 1:
            return _unknown(f"{self._claims[id.lower()]} clusters say that they are {id}")
        if known is None:
            return (
                Collected([], self._gaps["arcClusters"])
                if self._gaps["arcClusters"]
                else _unknown(f"{id} was not read", GapReason.NOT_FOUND)
            )
        if _distribution(known) not in (distribution, "generic"):
            return _unknown(
                f"{id} is no connection of such a cluster, but of {_distribution(known) or 'an unknown one'}"
            )
        return _collected([known], [])

    def _of_name(self, resource: CloudResource, distribution: str) -> Collected[Json]:
        if self._names[resource.provider, resource.name.lower()] > 1:
            return _unknown("several clusters have this name, and their insides were not read")
        candidates = [
            arc
            for id, arc in self._arc.items()
            if arc.name.lower() == resource.name.lower()
            and _distribution(arc) in (distribution, "")
            and not self._claims[id]
        ]
        if any(not _distribution(arc) for arc in candidates):
            return _unknown("a connection of its name does not say what it connects")
        return _collected(candidates, self._gaps["arcClusters"])


def _better(known: R | None, found: R) -> R:
    """Of two looks at one resource the one that lacks less."""
    return found if known is None or _lacks(found) < _lacks(known) else known


def _lacks(resource: CloudResource) -> int:
    return bool(resource.unread) + sum(len(found.gaps) for found in resource.related.values())


def _distribution(arc: ArcCluster) -> str:
    """ "" where it is not understood: it may be any."""
    try:
        return arc.text("properties.distribution").value.lower()
    except MissingEvidence:
        return ""


def _unknown(detail: str, reason: GapReason = GapReason.BAD_DATA) -> Collected[Json]:
    return Collected([], [Gap(what=ArcCluster.kind, reason=reason, detail=detail)])


def _collected(clusters: list[ArcCluster], gaps: list[Gap]) -> Collected[Json]:
    """Each with its extensions; lists of them that could not be read are gaps."""
    lists = [c.related.get("extensions", Collected[Json]()) for c in clusters]
    items = [
        {"id": c.id, "name": c.name, **c.wire, "extensions": found.items}
        for c, found in zip(clusters, lists, strict=True)
    ]
    unread = [c.unread for c in clusters if c.unread]
    return Collected(items, [*gaps, *unread, *(gap for found in lists for gap in found.gaps)])
