"""Regions of accounts and what is in them: lists that know whether they are complete, as resources to be judged."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.aws import iam, images
from providers.aws.errors import AwsError, gap_of
from providers.aws.iam import Account
from scanner.aws import DEFENDER_ROLES, TEMPLATE_ROLES, AwsRegion, EcrRepository, EksCluster
from scanner.cloud import kept
from scanner.inventory import Counts
from scanner.model import Collected, Gap, GapReason, utc_now
from scanner.plain import plain
from scanner.vulnerabilities import Scans, Shared

Json = dict[str, Any]

CLUSTERS, REPOSITORIES = EksCluster.kind, EcrRepository.kind
# What of these is kept beside a resource, in memory and in bundles.
_KEEP: Mapping[str, tuple[str, ...]] = {
    "nodegroups": (
        *("nodegroupName", "nodegroupArn", "status", "amiType", "releaseVersion", "version", "subnets"),
        *("remoteAccess", "capacityType", "nodeRepairConfig.enabled"),
    ),
    "addons": ("addonName", "addonVersion", "status", "health", "configurationValues"),
    "accessEntries": ("principalArn", "type", "policies"),
    "clusterVersions": ("clusterVersion", "status", "versionStatus"),
    "detectors": ("Status", "Features", "DataSources"),
    "subnets": ("SubnetId", "MapPublicIpOnLaunch", "routes"),
    "scanning": ("repositoryName", "scanOnPush", "scanFrequency"),
    "inspector": ("accountId", "state", "resourceState"),
    "defenderRoles": ("roleName", "exists", "arn", "trustPolicy", "policies", "boundary"),
    "templateRoles": ("roleName", "exists", "arn"),
    "oidcProviders": ("Arn",),
    "subscriptionFilters": ("filterName", "destinationArn"),
}
_OF_ACCOUNT = ("defenderRoles", "templateRoles", "oidcProviders")
_OF_ALL = ("clusterVersions", "detectors", *_OF_ACCOUNT)  # what holds for each cluster of a region
BESIDE = frozenset({*_KEEP, "policy", "lifecyclePolicy"})  # what checks may need beside a resource
PER_CLUSTER = (
    "nodegroups",
    "addons",
    "accessEntries",
    "subnets",
    "subscriptionFilters",
)  # asked for one cluster at a time
_BATCH = 25  # repositories in one call


@dataclass(slots=True)
class Region:
    """One region of an account, with what was read of it. `beside` are lists that hold for each of its clusters."""

    account: Account
    name: str
    clusters: Collected[EksCluster] = field(default_factory=Collected)
    repositories: Collected[EcrRepository] = field(default_factory=Collected)
    resource: AwsRegion | None = None
    beside: dict[str, Collected[Json]] = field(default_factory=dict)
    scans: Scans = field(default_factory=Scans)
    counts: Counts = field(default_factory=Counts)
    other_denied: bool = False  # whether a service control policy denies another service than EKS too

    @property
    def closed(self) -> bool:
        """Whether a service control policy denies whatever was asked, of two services: one may be denied alone."""
        seen = self.clusters.items or self.repositories.items
        denied = bool(self.clusters.gaps) and all(gap.by_policy for gap in [*self.gaps, *self.scans.gaps])
        return not seen and denied and self.other_denied

    @property
    def gaps(self) -> list[Gap]:
        own = [gap for repository in self.repositories.items for c in repository.related.values() for gap in c.gaps]
        beside = [gap for found in self.beside.values() for gap in found.gaps]
        return [*self.clusters.gaps, *self.repositories.gaps, *beside, *_folded(own)]


class Reader:
    """Reads regions of accounts for many threads. `kinds` are the lists that the checks need, `defender_roles` the
    names that the role of Microsoft Defender may have, `scans` whether to read what was found in images."""

    def __init__(
        self, kinds: Iterable[str], *, defender_roles: Iterable[str] = DEFENDER_ROLES, scans: bool = False
    ) -> None:
        self.kinds = frozenset(kinds)
        self.scans = scans
        self._shared = Shared()
        self.defender_roles = tuple(dict.fromkeys(defender_roles))
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}  # by account
        self._defender: dict[str, dict[str, Collected[Json]]] = {}

    # -- accounts and regions -----------------------------------------------------------------------------------------

    def regions(self, account: Account, home: str) -> Collected[str]:
        """The regions that the account has enabled."""
        counts = Counts()
        found = _list(counts, "regions", account.pages, "ec2", home, "DescribeRegions", "Regions")
        names = [item["RegionName"] for item in found.items if isinstance(item.get("RegionName"), str)]
        if not names and not found.gaps:
            return Collected([], [_gap("regions", GapReason.BAD_DATA, "AWS listed no region, which is never true")])
        return Collected(sorted(names), found.gaps)

    def read(self, account: Account, name: str) -> Iterator[Region]:
        """Twice the same object: when the clusters are known, and when the rest is too."""
        region = Region(account, name)
        region.clusters = self._clusters(region)
        if region.clusters.items:
            for what, read in (("clusterVersions", self._versions), ("detectors", self._detectors)):
                if what in self.kinds:
                    region.beside[what] = _projected(what, read(region))
            if "defenderRoles" in self.kinds:
                region.beside |= self._of_account(region)
        yield region
        if REPOSITORIES in self.kinds:
            region.repositories = self._repositories(region)
            region.other_denied = any(gap.by_policy for gap in region.repositories.gaps)
        elif any(gap.by_policy for gap in region.clusters.gaps):
            region.other_denied = _registry_denied(region)
        if "inspector" in self.kinds and (region.repositories.items or region.clusters.items):
            region.resource = self._region(region)
        if self.scans:
            region.scans = self._scans(region)
        yield region

    def _clusters(self, region: Region) -> Collected[EksCluster]:
        account, place = region.account, region.name
        found = _list(
            region.counts,
            CLUSTERS,
            account.pages,
            "eks",
            place,
            "ListClusters",
            "clusters",
            objects=False,
            include=["all"],
        )
        names = [name for name in dict.fromkeys(found.items) if name]
        if "" in found.items:
            found.gaps.append(_gap(CLUSTERS, GapReason.BAD_DATA, "entries of the list have no name"))
        clusters = [
            EksCluster(
                wire={},
                id=f"arn:{account.partition}:eks:{place}:{account.id}:cluster/{name}",
                name=name,
                account=account.id,
                region=place,
                related={},
            )
            for name in names
        ]
        region.counts.read += len(clusters)
        region.counts.judged += len(clusters)
        return Collected(clusters, found.gaps)

    def _versions(self, region: Region) -> Collected[Json]:
        pages = region.account.pages
        found = _list(
            region.counts, "clusterVersions", pages, "eks", region.name, "DescribeClusterVersions", "clusterVersions",
            includeAll=True,
        )  # fmt: skip
        if not found.items and not found.gaps:
            found.gaps.append(_gap("clusterVersions", GapReason.BAD_DATA, "AWS listed no version, which is never true"))
        return found

    def _detectors(self, region: Region) -> Collected[Json]:
        account, place = region.account, region.name
        ids = _list(
            region.counts, "detectors", account.pages, "guardduty", place, "ListDetectors", "DetectorIds", objects=False
        )

        def described(id: str) -> Json:
            found = account.call("guardduty", place, "GetDetector", DetectorId=id)
            return found if "Status" in found else {}

        return _each(region.counts, "detectors", ids, described)

    def _region(self, region: Region) -> AwsRegion:
        account, place = region.account, region.name
        region.beside["inspector"] = self._inspector(region)
        return AwsRegion(
            wire={},
            id=f"{account.id}/{place}",
            name=place,
            account=account.id,
            region=place,
            related={"inspector": region.beside["inspector"]},
        )

    def _inspector(self, region: Region) -> Collected[Json]:
        account, place = region.account, region.name
        found = _list(
            region.counts, "inspector", account.pages, "inspector2", place, "BatchGetAccountStatus", "accounts",
            accountIds=[account.id],
        )  # fmt: skip
        if not found.gaps and not any(item.get("accountId") == account.id for item in found.items):
            found.gaps.append(_gap("inspector", GapReason.BAD_DATA, "AWS did not say what Inspector scans"))
        return _projected("inspector", found)

    # -- Microsoft Defender -------------------------------------------------------------------------------------------

    def _of_account(self, region: Region) -> dict[str, Collected[Json]]:
        """Asked once for all regions of an account: who comes first asks, the others wait."""
        account = region.account
        with self._lock:
            turn = self._turns.setdefault(account.id, threading.Lock())
        with turn:
            if account.id not in self._defender:
                found = self._roles(account, region.counts)
                self._defender[account.id] = {what: _projected(what, each) for what, each in found.items()}
            return self._defender[account.id]

    def _roles(self, account: Account, counts: Counts) -> dict[str, Collected[Json]]:
        """The more is asked only where Defender has a role: most accounts cost one call for each name."""

        def roles(what: str, names: Iterable[str], read: Callable[[Account, str], Json]) -> Collected[Json]:
            return _each(counts, what, Collected(list(names)), lambda name: read(account, name))

        found = {"defenderRoles": roles("defenderRoles", self.defender_roles, iam.role)}
        if _has_role(found):
            found["templateRoles"] = roles("templateRoles", TEMPLATE_ROLES, iam.existence)
            found["oidcProviders"] = _list(
                counts, "oidcProviders", account.pages, "iam", account.home, "ListOpenIDConnectProviders",
                "OpenIDConnectProviderList",
            )  # fmt: skip
        return found

    # -- one cluster --------------------------------------------------------------------------------------------------

    def complete(self, cluster: EksCluster, region: Region, counts: Counts) -> Json:
        """Fills in what has to be asked for one cluster at a time; the answer has endpoint and authority, which are
        not kept. A cluster that cannot be described stays, unread."""
        counts.lists_asked += 1
        try:
            found = region.account.call("eks", region.name, "DescribeCluster", name=cluster.name).get("cluster")
        except AwsError as error:
            cluster.unread = gap_of("DescribeCluster", error)
            return {}
        if not isinstance(found, dict) or not found:
            cluster.unread = _gap("DescribeCluster", GapReason.BAD_DATA, "the answer to DescribeCluster has no cluster")
            return {}
        counts.lists_read += 1
        arn = found.get("arn")
        if isinstance(arn, str) and arn.startswith("arn:"):
            cluster.id = arn
        tags = found.get("tags")
        cluster.tags = {k: v for k, v in tags.items() if isinstance(v, str)} if isinstance(tags, dict) else {}
        cluster.wire = kept(found, EksCluster.KEEP)
        cluster.related.update({what: region.beside[what] for what in _OF_ALL if what in region.beside})
        if cluster.lives:
            self._beside(cluster, region, counts)
        whole: Json = found
        return whole

    def _beside(self, cluster: EksCluster, region: Region, counts: Counts) -> None:
        readers: dict[str, Callable[[EksCluster, Region, Counts], Collected[Json]]] = {
            "nodegroups": self._nodegroups,
            "addons": self._addons,
            "accessEntries": self._access_entries,
            "subnets": self._subnets,
        }
        if _has_role(region.beside):
            readers["subscriptionFilters"] = self._subscription_filters
        for what, read in readers.items():
            if what in self.kinds:
                cluster.related[what] = _projected(what, read(cluster, region, counts))

    def _nodegroups(self, cluster: EksCluster, region: Region, counts: Counts) -> Collected[Json]:
        account, place = region.account, region.name
        names = _list(
            counts, "nodegroups", account.pages, "eks", place, "ListNodegroups", "nodegroups",
            clusterName=cluster.name, objects=False,
        )  # fmt: skip
        return _each(
            counts,
            "nodegroups",
            names,
            lambda name: account.call("eks", place, "DescribeNodegroup", clusterName=cluster.name, nodegroupName=name)[
                "nodegroup"
            ],
        )

    def _addons(self, cluster: EksCluster, region: Region, counts: Counts) -> Collected[Json]:
        account, place = region.account, region.name
        names = _list(
            counts, "addons", account.pages, "eks", place, "ListAddons", "addons", clusterName=cluster.name,
            objects=False,
        )  # fmt: skip
        return _each(
            counts,
            "addons",
            names,
            lambda name: _without_secrets(
                account.call("eks", place, "DescribeAddon", clusterName=cluster.name, addonName=name)["addon"]
            ),
        )

    def _access_entries(self, cluster: EksCluster, region: Region, counts: Counts) -> Collected[Json]:
        """With the policies of each. Where only the aws-auth ConfigMap counts there are none."""
        config = cluster.wire.get("accessConfig")
        if isinstance(config, dict) and config.get("authenticationMode") == "CONFIG_MAP":
            return Collected()
        account, place = region.account, region.name
        arns = _list(
            counts, "accessEntries", account.pages, "eks", place, "ListAccessEntries", "accessEntries",
            clusterName=cluster.name, objects=False,
        )  # fmt: skip

        def described(arn: str) -> Json:
            pages = account.pages(
                "eks", place, "ListAssociatedAccessPolicies", "associatedAccessPolicies", clusterName=cluster.name,
                principalArn=arn,
            )  # fmt: skip
            return {"principalArn": arn, "policies": [policy for page in pages for policy in page]}

        return _each(counts, "accessEntries", arns, described)

    def _subscription_filters(self, cluster: EksCluster, region: Region, counts: Counts) -> Collected[Json]:
        """Without a log group, which EKS makes with the first log, there are none."""
        account, place = region.account, region.name
        counts.lists_asked += 1
        filters: list[Json] = []
        try:
            for page in account.pages(
                "logs", place, "DescribeSubscriptionFilters", "subscriptionFilters",
                logGroupName=f"/aws/eks/{cluster.name}/cluster",
            ):  # fmt: skip
                filters += page
        except AwsError as error:
            if error.code != "ResourceNotFoundException":
                return Collected([], [gap_of("subscriptionFilters", error)])
        counts.lists_read += 1
        return Collected(filters)

    def _subnets(self, cluster: EksCluster, region: Region, counts: Counts) -> Collected[Json]:
        """Those of the node groups, each with the routes that hold for it."""
        groups = cluster.related.get("nodegroups") or self._nodegroups(cluster, region, counts)
        if groups.gaps:
            return Collected([], groups.gaps)
        wanted = sorted({s for group in groups.items for s in group.get("subnets") or () if isinstance(s, str)})
        if not wanted:
            return Collected()
        account, place = region.account, region.name
        subnets = _list(counts, "subnets", account.pages, "ec2", place, "DescribeSubnets", "Subnets", SubnetIds=wanted)
        if not subnets.gaps and (missing := set(wanted) - {s.get("SubnetId") for s in subnets.items}):
            detail = f"AWS did not describe {', '.join(map(plain, sorted(missing)[:3]))}"
            subnets.gaps.append(_gap("subnets", GapReason.BAD_DATA, detail))
        vpcs = sorted({s["VpcId"] for s in subnets.items if isinstance(s.get("VpcId"), str)})
        if not vpcs:
            return Collected(subnets.items, subnets.gaps or [_gap("subnets", GapReason.BAD_DATA, "they name no VPC")])
        tables = _list(
            counts, "subnets", account.pages, "ec2", place, "DescribeRouteTables", "RouteTables",
            Filters=[{"Name": "vpc-id", "Values": vpcs}],
        )  # fmt: skip
        by_subnet = [(subnet, _routes(subnet, tables.items)) for subnet in subnets.items]
        if not tables.gaps and not all(routes for _, routes in by_subnet):  # each has at least that of its VPC
            tables.gaps.append(_gap("subnets", GapReason.BAD_DATA, "AWS listed no route table that holds for a subnet"))
        with_routes = [{**subnet, "routes": routes} for subnet, routes in by_subnet]
        return Collected(with_routes, [*subnets.gaps, *tables.gaps])

    # -- repositories -------------------------------------------------------------------------------------------------

    def _repositories(self, region: Region) -> Collected[EcrRepository]:
        account, place = region.account, region.name
        found = _listed_repositories(region)
        repositories = [
            EcrRepository(
                wire=kept(item, EcrRepository.KEEP),
                id=str(item["repositoryArn"]),
                name=str(item["repositoryName"]),
                account=account.id,
                region=place,
                related={},
            )
            for item in found.items
            if item.get("repositoryArn") and item.get("repositoryName")
        ]
        gaps = list(found.gaps)
        if len(repositories) < len(found.items):
            gaps.append(_gap(REPOSITORIES, GapReason.BAD_DATA, "entries of the list have no name"))
        region.counts.read += len(repositories)
        region.counts.judged += len(repositories)
        for start in range(0, len(repositories), _BATCH):
            self._add_scanning(region, repositories[start : start + _BATCH])
        for repository in repositories:
            self._add_documents(region, repository)
        return Collected(repositories, gaps)

    def _scans(self, region: Region) -> Scans:
        """What was found in the images of its repositories."""
        found = region.repositories
        if REPOSITORIES in self.kinds:
            names = Collected([repository.name for repository in found.items], found.gaps)
        else:
            listed = _listed_repositories(region)
            names = Collected([str(item["repositoryName"]) for item in listed.items if item.get("repositoryName")])
            names.gaps.extend(listed.gaps)
            if len(names.items) < len(listed.items):
                names.gaps.append(_gap(REPOSITORIES, GapReason.BAD_DATA, "entries of the list have no name"))
        status = region.beside.get("inspector")
        if status is None and (names.items or region.clusters.items):
            status = self._inspector(region)
        return images.scans_of(region.account, region.name, names, status, region.counts, self._shared)

    def _add_scanning(self, region: Region, repositories: list[EcrRepository]) -> None:
        if "scanning" not in self.kinds:
            return
        found = _projected(
            "scanning",
            _list(
                region.counts, "scanning", region.account.pages, "ecr", region.name,
                "BatchGetRepositoryScanningConfiguration", "scanningConfigurations",
                repositoryNames=[r.name for r in repositories],
            ),
        )  # fmt: skip
        by_name = {item.get("repositoryName"): item for item in found.items}
        for repository in repositories:
            own, gaps = [by_name[repository.name]] if repository.name in by_name else [], list(found.gaps)
            if not own and not gaps:
                gaps.append(_gap("scanning", GapReason.BAD_DATA, f"AWS did not say how {repository.name} is scanned"))
            repository.related["scanning"] = Collected(own, gaps)

    def _add_documents(self, region: Region, repository: EcrRepository) -> None:
        for what, operation, text in (
            ("policy", "GetRepositoryPolicy", "policyText"),
            ("lifecyclePolicy", "GetLifecyclePolicy", "lifecyclePolicyText"),
        ):
            if what in self.kinds:
                repository.related[what] = _document(region, repository, what, operation, text)


def _document(region: Region, repository: EcrRepository, what: str, operation: str, text: str) -> Collected[Json]:
    """A policy, parsed; AWS says RepositoryPolicyNotFound and LifecyclePolicyNotFound where there is none."""
    region.counts.lists_asked += 1
    try:
        answer = region.account.call("ecr", region.name, operation, repositoryName=repository.name)
        document = json.loads(answer[text])
        if not isinstance(document, dict):
            raise TypeError
    except AwsError as error:
        if not error.code.endswith("PolicyNotFoundException"):
            return Collected([], [gap_of(what, error)])
        region.counts.lists_read += 1
        return Collected()
    except (KeyError, TypeError, ValueError, RecursionError):
        return Collected([], [_gap(what, GapReason.BAD_DATA, f"the {what} of {repository.name} is no JSON")])
    region.counts.lists_read += 1
    return Collected([{"document": document}])


def _listed_repositories(region: Region) -> Collected[Json]:
    account, place = region.account, region.name
    return _list(region.counts, REPOSITORIES, account.pages, "ecr", place, "DescribeRepositories", "repositories")


def _registry_denied(region: Region) -> bool:
    """Asked only where EKS is denied and nothing of ECR is needed."""
    try:
        region.account.call("ecr", region.name, "DescribeRepositories", maxResults=1)
    except AwsError as error:
        return error.by_policy
    return False


def _has_role(beside: dict[str, Collected[Json]]) -> bool:
    return "defenderRoles" in beside and any(role["exists"] for role in beside["defenderRoles"].items)


def _without_secrets(addon: Json) -> Json:
    """An add-on with the one value of its configuration that is judged: others may be anything."""
    text = addon.get("configurationValues")
    if not isinstance(text, str):
        return addon
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {**addon, "configurationValues": "not JSON"}
    judged = ("enableNetworkPolicy",)
    shown = {key: values[key] for key in judged if key in values} if isinstance(values, dict) else None
    return {**addon, "configurationValues": json.dumps(shown)}


def _routes(subnet: Json, tables: list[Json]) -> list[Json]:
    """Of the route table that names the subnet, else of the main one of its VPC."""
    main: list[Json] = []
    for table in tables:
        for association in (a for a in table.get("Associations") or () if isinstance(a, dict)):
            if association.get("SubnetId") == subnet.get("SubnetId"):
                return list(table.get("Routes") or ())
            if association.get("Main") is True and table.get("VpcId") == subnet.get("VpcId"):
                main = list(table.get("Routes") or ())
    return main


def _list(
    counts: Counts,
    what: str,
    pages: Callable[..., Iterator[list[Any]]],
    *call: Any,
    objects: bool = True,
    **options: Any,
) -> Collected[Any]:
    """A list with all its pages, of objects or of words; what came before a failure stays."""
    counts.lists_asked += 1
    items: list[Any] = []
    gaps: list[Gap] = []
    wanted = dict if objects else str
    try:
        for page in pages(*call, **options):
            items += [item for item in page if isinstance(item, wanted)]
            if any(not isinstance(item, wanted) for item in page):
                gaps.append(_gap(what, GapReason.BAD_DATA, "entries of the list are not what they should be"))
    except AwsError as error:
        gaps.append(gap_of(what, error))
    if not gaps:
        counts.lists_read += 1
    return Collected(items, gaps)


def _each(counts: Counts, what: str, names: Collected[str], read: Callable[[str], Json]) -> Collected[Json]:
    """What each of a list of names stands for."""
    found = Collected[Json]([], list(names.gaps))
    for name in names.items:
        counts.lists_asked += 1
        try:
            item = read(name)
            if not isinstance(item, dict) or not item:
                raise TypeError
            found.items.append(item)
            counts.lists_read += 1
        except AwsError as error:
            found.gaps.append(gap_of(what, error))
        except (KeyError, TypeError):
            found.gaps.append(_gap(what, GapReason.BAD_DATA, f"the answer about {plain(name)} is not understood"))
    return found


def _gap(what: str, reason: GapReason, detail: str) -> Gap:
    return Gap(what=what, reason=reason, detail=detail, time=utc_now())


def _folded(gaps: Iterable[Gap]) -> list[Gap]:
    """One refusal of many repositories is one gap."""
    seen: dict[tuple[str, GapReason, str], Gap] = {}
    for gap in gaps:
        seen.setdefault((gap.what, gap.reason, gap.permission), gap)
    return list(seen.values())


def _projected(what: str, found: Collected[Json]) -> Collected[Json]:
    return Collected([kept(item, _KEEP[what]) for item in found.items], found.gaps)
