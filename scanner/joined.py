"""What the readings of one scan say of each other's resources: Microsoft's checks of EKS and GKE clusters look at
Azure, and into the cluster, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from scanner.azure import ArcCluster, SecurityConnector
from scanner.cloud import JOINED, CloudResource
from scanner.clusters import Row
from scanner.collect import Estate
from scanner.model import Collected, Gap, GapReason, MissingEvidence

Json = dict[str, Any]
Beside = dict[str, Collected[Json]]

_DISTRIBUTIONS = {"aws": "eks", "gcp": "gke"}


class Joined:
    """Gathers from each estate what others need, and gives it when all are there."""

    def __init__(self) -> None:
        self._asked: set[str] = set()  # of JOINED, what Azure was asked for
        self._gaps: dict[str, list[Gap]] = {}
        self._arc: dict[str, ArcCluster] = {}
        self._arc_by_name: dict[tuple[str, str], list[ArcCluster]] = {}
        self._connectors: list[Json] = []
        self._claims: Counter[str] = Counter()  # Arc connections, by how many clusters say that they are theirs

    def take(self, estate: Estate) -> None:
        inventory = estate.inventory
        for resource in inventory.cloud:
            if isinstance(resource, ArcCluster):
                self._take_arc(resource)
            elif isinstance(resource, SecurityConnector) and resource.unread:
                self._gaps.setdefault("connectors", []).append(resource.unread)
            elif isinstance(resource, SecurityConnector):
                self._connectors.append({"id": resource.id, "name": resource.name, **resource.wire})
        if estate.account and estate.account.provider == "azure":
            for name, kinds in JOINED.items():
                if kinds and kinds[0] in inventory.kinds:
                    self._asked.add(name)
                    self._gaps.setdefault(name, []).extend(inventory.gaps_of(kinds[:1]))

    def _take_arc(self, cluster: ArcCluster) -> None:
        self._arc[cluster.id.lower()] = cluster
        try:
            distribution = cluster.text("properties.distribution").value
        except MissingEvidence as missing:  # it may be any cluster's
            self._gaps.setdefault("arcClusters", []).extend(missing.gaps)
        else:
            self._arc_by_name.setdefault((distribution.lower(), cluster.name.lower()), []).append(cluster)

    def finish(self, rows: Iterable[Row]) -> None:
        """To be called when every estate was taken."""
        for row in rows:
            config = row.agents.get("arcConfig")
            self._claims.update(str(item.get("id")).lower() for item in (config.items if config else ()))

    def beside(self, resource: CloudResource, row: Row) -> Beside:
        """What is known of a cluster, by the names of JOINED; what nobody was asked for is not among it."""
        found: Beside = dict(row.agents)
        if "connectors" in self._asked:
            found["connectors"] = Collected(self._connectors, self._gaps["connectors"])
        if "arcClusters" in self._asked:
            found["arcClusters"] = self._arc_of(resource, row.agents.get("arcConfig"))
        return found

    def _arc_of(self, resource: CloudResource, config: Collected[Json] | None) -> Collected[Json]:
        """The Arc connection that the cluster itself names; where it could not be asked, those of its name."""
        if config is None or config.gaps:
            key = _DISTRIBUTIONS.get(resource.provider, ""), resource.name.lower()
            return _collected(self._arc_by_name.get(key, []), self._gaps["arcClusters"])
        if not config.items:
            return Collected()
        id = str(config.items[0].get("id"))
        if self._claims[id.lower()] > 1:
            detail = f"{self._claims[id.lower()]} clusters say that they are {id}"
            return Collected([], [Gap(what=ArcCluster.kind, reason=GapReason.BAD_DATA, detail=detail)])
        if known := self._arc.get(id.lower()):
            return _collected([known], [])
        gaps = self._gaps["arcClusters"] or [
            Gap(what=ArcCluster.kind, reason=GapReason.NOT_FOUND, detail=f"{id} is not among those that were read")
        ]
        return Collected([], gaps)


def _collected(clusters: list[ArcCluster], gaps: list[Gap]) -> Collected[Json]:
    """Each with its extensions; lists of them that could not be read are gaps."""
    lists = [c.related.get("extensions", Collected[Json]()) for c in clusters]
    items = [
        {"id": c.id, "name": c.name, **c.wire, "extensions": found.items}
        for c, found in zip(clusters, lists, strict=True)
    ]
    unread = [c.unread for c in clusters if c.unread]
    return Collected(items, [*gaps, *unread, *(gap for found in lists for gap in found.gaps)])
