"""Who reaches an API server or a registry over the network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from scanner import cidr
from scanner.azure import AksCluster, ContainerRegistry
from scanner.check import NETWORK, check
from scanner.cloud import Setting, expect
from scanner.model import Evidence, Gap, GapReason, MissingEvidence, Severity, Verdict, fail, text

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
