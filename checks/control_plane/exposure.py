"""Who reaches an API server, a registry or nodes over the network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from scanner import cidr
from scanner.aws import EksCluster, stated
from scanner.azure import AksCluster, ContainerRegistry
from scanner.check import NETWORK, check
from scanner.cloud import Facts, Setting, expect, wrong
from scanner.gcp import GkeCluster, GkeNodePool
from scanner.model import Evidence, Gap, GapReason, MissingEvidence, Severity, Verdict, fail, not_applicable, text

_PRIVATE_CLUSTER = "properties.apiServerAccessProfile.enablePrivateCluster"
_PUBLIC_ACCESS = "properties.publicNetworkAccess"


def _is_public(access: Setting[str]) -> bool:
    """Raises MissingEvidence for any third word: a network security perimeter has rules of its own, not read here."""
    if access.equals("Enabled", "Disabled"):
        return access.equals("Enabled")
    detail = f"{access.path} is {access.value[:60]!r}, neither Enabled nor Disabled"
    raise MissingEvidence(Gap(what=access.path, reason=GapReason.BAD_DATA, detail=detail))


def _let_everyone_in(path: str, ranges: Iterable[str]) -> bool:
    """Raises MissingEvidence where a range cannot be understood, unless the others are everything already."""
    understood, strange = [], []
    for item in ranges:
        try:
            cidr.parse(item)
            understood.append(item)
        except ValueError:
            strange.append(item)
    if cidr.cover_everything(understood):
        return True
    if strange:
        detail = f"{path} holds {strange[0][:60]!r}, which is no address range"
        raise MissingEvidence(Gap(what=path, reason=GapReason.BAD_DATA, detail=detail))
    return False


@check(
    "azure-aks-api-server-restricted",
    Severity.HIGH,
    controls=NETWORK,
    question="authorized-networks",
    fix="Run `az aks update -g GROUP -n CLUSTER --api-server-authorized-ip-ranges 203.0.113.0/24` with your own "
    "ranges, or make the cluster private.",
    refs=(
        "mdc:1a2b5b4c-f80d-46e7-ac81-b51a9fb363de",
        "azure-policy-2:0e246bcf-5f6f-4f87-bc6f-775d4712c7ea",
        "cis-aks-1.8:5.4.1",
        "checkov:CKV_AZURE_6",
    ),
)
def aks_api_server_restricted(
    c: AksCluster,
    *,
    azure_rules: Annotated[
        bool, "any list of authorized ranges passes, even an empty one; publicNetworkAccess does not count"
    ] = False,
) -> Verdict:
    """Kubernetes API server should be configured with restricted access

    An API server that everyone reaches is one stolen credential, or one flaw, away from everyone. 0.0.0.0/32 in the
    list stands for the cluster's own outbound address and opens nothing.
    """
    private = c.flag(_PRIVATE_CLUSTER)
    if private.value:
        public_name = "properties.apiServerAccessProfile.enablePrivateClusterPublicFQDN"
        return expect(True, "", private, Evidence(public_name, text(c.get(public_name))))
    access = c.text(_PUBLIC_ACCESS)
    if not azure_rules and not _is_public(access):
        return expect(True, "", private, access)
    ranges = c.words("properties.apiServerAccessProfile.authorizedIPRanges")
    if azure_rules:
        return expect(ranges.sent is not None, "the API server has no authorized address ranges", private, ranges)
    restricted = bool(ranges.value) and not _let_everyone_in(ranges.path, ranges.value)
    return expect(restricted, "the API server is reachable from every address", private, access, ranges)


@check(
    "azure-aks-private-cluster",
    Severity.MEDIUM,
    controls=NETWORK,
    question="api-exposure",
    fix="Create the cluster with `az aks create --enable-private-cluster`; a cluster with API Server VNet Integration "
    "takes `az aks update -g GROUP -n CLUSTER --enable-private-cluster`.",
    refs=(
        "azure-policy-1:040732e8-d947-40b8-95d6-854c95024bf8",
        "cis-aks-1.8:5.4.2",
        "checkov:CKV_AZURE_115",
        "prowler:aks_clusters_public_access_disabled",
    ),
)
def aks_private_cluster(
    c: AksCluster,
    *,
    azure_rules: Annotated[bool, "only a private cluster passes, not one with public network access disabled"] = False,
) -> Verdict:
    """AKS clusters should have a private API server

    Without a public endpoint only networks that were connected on purpose reach the API server, and traffic between
    nodes and API server stays private.
    """
    private = c.flag(_PRIVATE_CLUSTER)
    message = "the API server has a public endpoint"
    if private.value or azure_rules:
        return expect(private.value, message, private)
    access = c.text(_PUBLIC_ACCESS)
    return expect(not _is_public(access), message, private, access)


@check(
    "azure-aks-run-command",
    Severity.LOW,
    controls=NETWORK,
    fix="Run `az aks update -g GROUP -n CLUSTER --disable-run-command`.",
    refs=("azure-policy-1:89f2d532-c53c-4f8f-9afa-4927b1114a0d",),
)
def aks_run_command(c: AksCluster) -> Verdict:
    """AKS clusters should not accept run command

    `az aks command invoke` runs commands in the cluster through Azure's own API, past a private endpoint and past
    authorized address ranges.
    """
    disabled = c.flag("properties.apiServerAccessProfile.disableRunCommand")
    return expect(disabled.value, "run command gets past the API server's network restrictions", disabled)


@check(
    "azure-acr-network-restricted",
    Severity.MEDIUM,
    controls=NETWORK,
    fix="Run `az acr update -n REGISTRY --default-action Deny` and allow your ranges with `az acr network-rule add`. "
    "It needs the Premium tier: `az acr update -n REGISTRY --sku Premium`.",
    refs=(
        "mdc:9b828565-a0ed-61c2-6bf3-1afc99a9b2ca",
        "azure-policy-2:d0793b48-0edc-4296-a390-4c75d1bdfd71",
        "prowler:containerregistry_network_access_restricted",
    ),
)
def acr_network_restricted(
    r: ContainerRegistry,
    *,
    azure_rules: Annotated[
        bool, "any other default action than Allow passes, whatever addresses the rules let in"
    ] = False,
) -> Verdict:
    """Container registries should not allow unrestricted network access

    A registry that answers on the whole internet can be tried with every leaked or guessed credential from anywhere.
    """
    access = r.text(_PUBLIC_ACCESS)
    if not azure_rules and not _is_public(access):
        return expect(True, "", access)
    action = r.text("properties.networkRuleSet.defaultAction")
    message = "the registry accepts connections from every address"
    if azure_rules:
        return expect(not (access.equals("Enabled") and action.equals("Allow")), message, access, action)
    if not action.equals("Deny"):
        return expect(False, message, access, action, r.text("sku.name"))
    path = "properties.networkRuleSet.ipRules"
    rules = [rule.text("value") for rule in r.parts(path, "value")]
    open_to_all = _let_everyone_in(path, (rule.value for rule in rules))
    return expect(not open_to_all, message, access, action, *rules)


@check(
    "azure-acr-private-link",
    Severity.MEDIUM,
    controls=NETWORK,
    fix="Create a private endpoint with `az network private-endpoint create --group-id registry "
    "--private-connection-resource-id REGISTRY_ID …` and approve its connection. It needs the Premium tier.",
    refs=(
        "mdc:13e7d036-6903-821c-6018-962938929bf0",
        "azure-policy-1:e8eef0a8-67cf-4eb4-9386-14b0e78733d4",
        "prowler:containerregistry_uses_private_link",
    ),
)
def acr_private_link(r: ContainerRegistry) -> Verdict:
    """Container registries should use private link

    Through a private endpoint images travel over your own network, and the registry needs no public address at all.
    """
    path = "properties.privateEndpointConnections"
    states = [p.text("properties.privateLinkServiceConnectionState.status") for p in r.parts(path)]
    message = "the registry has no approved private endpoint"
    if not states:
        return fail(message, Evidence(path, text(r.get(path))))
    approved = [state for state in states if state.equals("Approved")]
    return expect(bool(approved), message, *(approved[:1] or states))


@check(
    "azure-acr-public-access",
    Severity.MEDIUM,
    controls=NETWORK,
    fix="Create a private endpoint, then run `az acr update -n REGISTRY --public-network-enabled false`.",
    refs=(
        "azure-policy-1:0fdf0491-d080-4575-b627-ad0e843cba0f",
        "checkov:CKV_AZURE_139",
        "prowler:containerregistry_not_publicly_accessible",
    ),
)
def acr_public_access(r: ContainerRegistry) -> Verdict:
    """Container registries should have public network access disabled

    With public access off only private endpoints are left, and no firewall rule that is too wide opens the registry.
    """
    access = r.text(_PUBLIC_ACCESS)
    return expect(not _is_public(access), "the registry has a public endpoint", access)


@check(
    "azure-acr-trusted-services",
    Severity.INFO,
    controls=NETWORK,
    fix="Run `az acr update -n REGISTRY --allow-trusted-services false` where no Azure service needs the way in.",
    refs=(),
)
def acr_trusted_services(r: ContainerRegistry) -> Verdict:
    """Container registries should not let trusted Azure services past their firewall

    Services such as ACR Tasks or Machine Learning reach the registry although its network rules deny them. They still
    have to sign in.
    """
    bypass = r.text("properties.networkRuleBypassOptions")
    return expect(bypass.equals("None"), "trusted Azure services get past the registry's network rules", bypass)


# ---------------------------------------------------------------------------------------------------------------------
# AWS

_EKS_PUBLIC = "resourcesVpcConfig.endpointPublicAccess"


@check(
    "aws-eks-endpoint-public-open",
    Severity.HIGH,
    controls=NETWORK,
    question="authorized-networks",
    fix="Run `aws eks update-cluster-config --name CLUSTER --resources-vpc-config "
    "publicAccessCidrs=203.0.113.0/24` with your own ranges, or switch the public endpoint off.",
    refs=(
        "fsbp:EKS.1",
        "cis-eks-1.8.0:5.4.1",
        "checkov:CKV_AWS_38",
        "prowler:eks_cluster_not_publicly_accessible",
    ),
)
def eks_endpoint_public_open(c: EksCluster) -> Verdict:
    """EKS API servers should not be reachable from every address

    An API server that everyone reaches is one stolen credential, or one flaw, away from everyone. AWS's default is a
    public endpoint that is open to all addresses.
    """
    public = c.flag(_EKS_PUBLIC)
    if not public.value:
        return expect(True, "", public)
    ranges = c.words("resourcesVpcConfig.publicAccessCidrs")
    restricted = bool(ranges.value) and not _let_everyone_in(ranges.path, ranges.value)
    return expect(restricted, "the API server is reachable from every address", public, ranges)


@check(
    "aws-eks-endpoint-private-only",
    Severity.MEDIUM,
    controls=NETWORK,
    question="api-exposure",
    fix="Run `aws eks update-cluster-config --name CLUSTER --resources-vpc-config "
    "endpointPublicAccess=false,endpointPrivateAccess=true` once its users reach the VPC.",
    refs=(
        "fsbp:EKS.1",
        "cis-eks-1.8.0:5.4.2",
        "checkov:CKV_AWS_39",
    ),
)
def eks_endpoint_private_only(c: EksCluster) -> Verdict:
    """EKS clusters should have no public API server endpoint

    Without a public endpoint only networks that were connected on purpose reach the API server, and no range that is
    too wide opens it.
    """
    public = c.flag(_EKS_PUBLIC)
    return expect(not public.value, "the API server has a public endpoint", public)


@check(
    "aws-eks-endpoint-private-enabled",
    Severity.LOW,
    controls=NETWORK,
    fix="Run `aws eks update-cluster-config --name CLUSTER --resources-vpc-config endpointPrivateAccess=true`.",
    refs=("cis-eks-1.8.0:5.4.2",),
)
def eks_endpoint_private_enabled(c: EksCluster) -> Verdict:
    """EKS clusters should have a private API server endpoint

    Without it nodes talk to the API server's public addresses, and the allowed ranges must be wide enough to let them.
    AWS's default is no private endpoint.
    """
    private = c.flag("resourcesVpcConfig.endpointPrivateAccess")
    return expect(private.value, "nodes reach the API server over its public endpoint", private)


@check(
    "aws-eks-nodes-private",
    Severity.MEDIUM,
    controls=NETWORK,
    question="private-nodes",
    fix="Create node groups in subnets that have no route to an internet gateway and give out no public addresses, "
    "move the workloads and delete the old ones.",
    refs=("cis-eks-1.8.0:5.4.3",),
    needs=("subnets",),
)
def eks_nodes_private(c: EksCluster) -> Verdict:
    """EKS node groups should be in private subnets

    A node in a public subnet is one security group rule away from the internet, kubelet and SSH included. Judged are
    the subnets of managed node groups; where Auto Mode or Karpenter start nodes is set inside the cluster.
    """
    subnets = c.named("subnets", "SubnetId")
    if not subnets:
        return not_applicable("no_node_groups")
    public = wrong(subnets, _way_in)
    private = [] if public else [subnet.flag("MapPublicIpOnLaunch").evidence for subnet in subnets]
    return expect(not public, "node groups are in public subnets", *public, *private)


def _way_in(subnet: Facts) -> list[Evidence]:
    """What makes a subnet public, [] where nothing does."""
    given = subnet.flag("MapPublicIpOnLaunch")
    if given.value:
        return [given.evidence]
    routes = subnet.parts("routes", "GatewayId")
    if not routes:  # every route table has at least the local route
        where = f"{subnet.path}.routes"
        raise MissingEvidence(Gap(what=where, reason=GapReason.BAD_DATA, detail=f"{where} is empty"))
    out = [route for route in routes if route.text("GatewayId").value.startswith("igw-")]
    names = ("DestinationCidrBlock", "DestinationIpv6CidrBlock")
    destinations = [setting for route in out for name in names if (setting := route.text(name)).value]
    everywhere = _let_everyone_in(f"{subnet.path}.routes", (setting.value for setting in destinations))
    if everywhere:
        return [setting.evidence for setting in destinations]
    stated(given)
    return []


# ---------------------------------------------------------------------------------------------------------------------
# GCP

_GKE_ENDPOINTS = "controlPlaneEndpointsConfig.ipEndpointsConfig"
_GKE_DNS = "controlPlaneEndpointsConfig.dnsEndpointConfig"
_GKE_DNS_OUTSIDE = f"{_GKE_DNS}.allowExternalTraffic"


def _gke_public(c: GkeCluster) -> tuple[bool, Setting[bool]]:
    """Whether the API server has a public address, and what says so: the new fields, where they were sent."""
    reached = c.flag(f"{_GKE_ENDPOINTS}.enabled")
    if reached.sent is False:  # only the DNS endpoint is left, which asks IAM first
        return False, reached
    public = c.flag(f"{_GKE_ENDPOINTS}.enablePublicEndpoint")
    if public.sent is not None:
        return public.sent, public
    private = c.flag("privateClusterConfig.enablePrivateEndpoint")
    return not private.value, private


def _gke_named(c: GkeCluster) -> list[Evidence]:
    """What lets everyone in the world try a token or a certificate of Kubernetes at the API server's name, instead of
    asking IAM first; [] where nothing does."""
    outside = c.flag(_GKE_DNS_OUTSIDE)
    past_iam = [c.flag(f"{_GKE_DNS}.{name}") for name in ("enableK8sTokensViaDns", "enableK8sCertsViaDns")]
    found = [flag.evidence for flag in past_iam if flag.value]
    return [outside.evidence, *found] if outside.value and found else []


def _gke_addressed(c: GkeCluster) -> list[Evidence]:
    """What lets every address reach the API server's own, [] where nothing does."""
    public, why = _gke_public(c)
    if not public:
        return []
    path = _gke_networks(c)
    enabled = c.flag(f"{path}.enabled")
    if not enabled.value:
        return [why.evidence, enabled.evidence]
    ranges = _gke_ranges(c, path)
    everyone = _let_everyone_in(f"{path}.cidrBlocks", ranges)
    return [why.evidence, enabled.evidence, Evidence(f"{path}.cidrBlocks", text(ranges))] if everyone else []


def _gke_networks(c: GkeCluster) -> str:
    """Where the authorized networks are that count: the new place, where it was sent."""
    new = f"{_GKE_ENDPOINTS}.authorizedNetworksConfig"
    return "masterAuthorizedNetworksConfig" if c.get(new) is None else new


def _gke_ranges(c: GkeCluster, path: str) -> list[str]:
    return [block.text("cidrBlock").value for block in c.parts(f"{path}.cidrBlocks", "cidrBlock")]


@check(
    "gcp-gke-authorized-networks",
    Severity.HIGH,
    controls=NETWORK,
    question="authorized-networks",
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --enable-master-authorized-networks "
    "--master-authorized-networks 203.0.113.0/24` with your own ranges.",
    refs=("mdc:24df9ba4-8c98-42f2-9f64-50b095eca06f", "cis-gke-1.9:5.6.3", "checkov:CKV_GCP_20"),
)
def gke_authorized_networks(
    c: GkeCluster,
    *,
    azure_rules: Annotated[
        bool, "any authorized networks pass, whatever they let in; having no public address does not count"
    ] = False,
) -> Verdict:
    """Control Plane Authorized Networks should be enabled on GKE clusters

    An API server that everyone reaches is one stolen credential, or one flaw, away from everyone. The DNS endpoint can
    be reached from everywhere and asks IAM first: it counts only where tokens or certificates of Kubernetes get past
    that. Google Cloud's own public addresses are shown and not judged.
    """
    path = _gke_networks(c)
    enabled = c.flag(f"{path}.enabled")
    if azure_rules:
        return expect(enabled.value, "control plane authorized networks are off", enabled)
    found = wrong((_gke_addressed, _gke_named), lambda way: way(c))
    if found:
        return fail("the API server is reachable from every address", *found)
    public, why = _gke_public(c)
    google = f"{path}.gcpPublicCidrsAccessEnabled"
    ranges = Evidence(f"{path}.cidrBlocks", text(_gke_ranges(c, path)))
    restricted = [enabled.evidence, ranges, Evidence(google, text(c.get(google)))] if public else []
    return expect(True, "", why, *restricted, c.flag(_GKE_DNS_OUTSIDE))


@check(
    "gcp-gke-private-endpoint",
    Severity.MEDIUM,
    controls=NETWORK,
    question="api-exposure",
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --enable-private-endpoint` once its users "
    "reach the VPC.",
    refs=("cis-gke-1.9:5.6.4", "checkov:CKV_GCP_18", "checkov:CKV_GCP_25"),
)
def gke_private_endpoint(c: GkeCluster) -> Verdict:
    """GKE clusters should have no public API server address

    Without a public address only networks that were connected on purpose reach the API server, and no range that is too
    wide opens it. The DNS endpoint can be reached from everywhere too, and asks IAM first: it counts only where tokens
    or certificates of Kubernetes get past that.
    """
    found = wrong((_gke_open, _gke_named), lambda way: way(c))
    if found:
        named = found[0].path == _GKE_DNS_OUTSIDE
        return fail(f"the API server has a {'name that does not ask IAM first' if named else 'public address'}", *found)
    return expect(True, "", _gke_public(c)[1], c.flag(_GKE_DNS_OUTSIDE))


def _gke_open(c: GkeCluster) -> list[Evidence]:
    public, why = _gke_public(c)
    return [why.evidence] if public else []


@check(
    "gcp-gke-private-cluster",
    Severity.HIGH,
    controls=NETWORK,
    question="private-nodes",
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --enable-private-nodes`, and for pools that "
    "have a setting of their own `gcloud container node-pools update POOL --cluster CLUSTER --enable-private-nodes`.",
    refs=("mdc:d3e70cff-e4db-47b1-b646-0ac5ed8ada36", "cis-gke-1.9:5.6.5", "checkov:CKV_GCP_64"),
)
def gke_private_cluster(c: GkeCluster) -> Verdict:
    """GKE clusters should have Private clusters enabled

    A node with a public address is one firewall rule away from the internet, kubelet and SSH included. A pool's own
    setting goes before the cluster's, which new pools get that GKE makes itself.
    """
    default = c.flag("networkConfig.defaultEnablePrivateNodes")
    if default.sent is None:
        default = c.flag("privateClusterConfig.enablePrivateNodes")
    pools: list[GkeNodePool | None] = [*c.components()]
    if c.makes_pools or not pools:
        pools.append(None)
    public = wrong(pools, lambda pool: [] if (it := _private_nodes(pool, default)).value else [it.evidence])
    shown = public or [_private_nodes(pool, default).evidence for pool in pools]
    return expect(not public, "nodes have public addresses", *dict.fromkeys([*shown, default.evidence]))


def _private_nodes(pool: GkeNodePool | None, default: Setting[bool]) -> Setting[bool]:
    """Of a pool, and the default where there is no pool yet."""
    if pool is None:
        return default
    own = pool.flag("networkConfig.enablePrivateNodes")
    return Setting(own.path, own.sent, default.value)
