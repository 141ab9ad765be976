"""What separates workloads from one another on the network."""

from __future__ import annotations

import json
from typing import Annotated, Any

from scanner.aws import EksCluster
from scanner.azure import AksCluster
from scanner.check import NETWORK, check
from scanner.cloud import Facts, Setting, expect, labelled
from scanner.gcp import COMPARISON, GkeCluster, guaranteed, is_one_of
from scanner.model import Gap, GapReason, MissingEvidence, Severity, Verdict


@check(
    "azure-aks-network-policy",
    Severity.MEDIUM,
    controls=NETWORK,
    question="network-policy",
    fix="Run `az aks update -g GROUP -n CLUSTER --network-policy cilium --network-dataplane cilium`.",
    refs=("cis-aks-1.8:5.4.4", "checkov:CKV_AZURE_7", "prowler:aks_network_policy_enabled"),
)
def aks_network_policy(c: AksCluster) -> Verdict:
    """AKS clusters should have a network policy engine

    Without an engine NetworkPolicy objects are accepted and do nothing: every pod reaches every other.
    """
    policy = c.text("properties.networkProfile.networkPolicy")
    dataplane = c.text("properties.networkProfile.networkDataplane")
    message = "no engine enforces network policies"
    if policy.sent is None:  # the Cilium data plane brings its own engine, unless `none` was asked for
        return expect(dataplane.equals("cilium"), message, policy, dataplane)
    return expect(policy.equals("azure", "calico", "cilium"), message, policy, dataplane)


_VPC_CNI = "vpc-cni"
_ENGINES = ("calico-node", "cilium")
_ARGUMENT = "--enable-network-policy"
_TRUE = ("true", "True", "TRUE", "t", "T", "1")  # as Go's strconv.ParseBool has it


@check(
    "aws-eks-network-policy",
    Severity.MEDIUM,
    controls=NETWORK,
    question="network-policy",
    fix="Run `aws eks update-addon --cluster-name CLUSTER --addon-name vpc-cni --resolve-conflicts PRESERVE "
    '--configuration-values \'{"enableNetworkPolicy": "true"}\'`, with the values that are set already.',
    refs=("cis-eks-1.8.0:5.4.4", "prowler:eks_cluster_vpc_cni_network_policy_enforced"),
    needs=("addons", "agents"),
)
def eks_network_policy(c: EksCluster) -> Verdict:
    """EKS clusters should have a network policy engine

    Without an engine NetworkPolicy objects are accepted and do nothing: every pod reaches every other. The VPC CNI
    add-on brings one that is off by default. Plugins that are no add-on, and Calico or Cilium beside one, are seen
    where the inside of the cluster is read; what Auto Mode does is set up in a ConfigMap that is not. An engine that
    is switched on and of which no pod is ready, or whose add-on is not ACTIVE, is not known to enforce anything.
    """
    message = "nothing enforces network policies"
    addon = next((a for a in c.named("addons", "addonName") if a.text("addonName").equals(_VPC_CNI)), None)
    inside = c.related.get("agents")
    agents = list(labelled(inside.items, "agents", "name")) if inside else []
    engine = next((a for a in agents if a.text("name").equals(*_ENGINES) and a.flag("ready").value), None)
    if engine:
        return expect(True, message, engine.text("name"), engine.flag("ready"))
    if c.flag("computeConfig.enabled").value:
        where = "ConfigMap kube-system/amazon-vpc-cni"
        raise _elsewhere(where, "EKS Auto Mode sets network policy up inside the cluster")
    plugin = next((a for a in agents if a.text("name").equals("aws-node")), None)
    if addon:
        looked = "agents" in c.related and not c.related["agents"].gaps
        return _by_addon(addon, plugin, message, absent=looked and plugin is None)
    if plugin is None:
        c.listed("agents")
        raise _elsewhere(f"addons[{_VPC_CNI}]", "the network plugin is none whose engine is known")
    return _by_plugin(plugin, message)


def _by_addon(addon: Facts, plugin: Facts | None, message: str, *, absent: bool) -> Verdict:
    """`plugin` is what runs of it, where that was seen: its arguments say more than what was asked of the add-on.
    `absent` is whether somebody has looked and there is nothing of it."""
    enabled = _enforced(addon)
    if not (enabled.value is True or enabled.equals("true")):
        return expect(False, message, enabled)
    if plugin and _switched(plugin) is not None:
        return _by_plugin(plugin, message, enabled)
    status = addon.text("status")
    if not status.equals("ACTIVE"):
        raise _elsewhere(status.path, f"whether its engine runs is not known: it is {status.value[:60]!r}")
    if plugin:
        _running(plugin)
    if absent:
        raise _elsewhere("agents[aws-node]", "the add-on is on, but its DaemonSet is not in the cluster")
    return expect(True, message, enabled)


def _by_plugin(plugin: Facts, message: str, *beside: Setting[Any]) -> Verdict:
    arguments = plugin.words("args")
    if not _switched(plugin):
        return expect(False, message, *beside, arguments)
    _running(plugin)
    return expect(True, message, *beside, arguments)


def _switched(plugin: Facts) -> bool | None:
    """Whether arguments of the VPC CNI's agent switch its engine on, None where none says. As Go reads flags: the last
    counts, and one without a value is true."""
    given = [argument.partition("=") for argument in plugin.words("args").value]
    values = [value if equals else "true" for name, equals, value in given if name == _ARGUMENT]
    return values[-1] in _TRUE if values else None


def _running(plugin: Facts) -> None:
    ready = plugin.flag("ready")
    if not ready.value:
        raise _elsewhere(ready.path, "network policy is switched on, but no pod of its agent is ready")


def _enforced(addon: Facts) -> Setting[bool] | Setting[str]:
    """enableNetworkPolicy, which may be a flag or a word, in the JSON that the add-on was given."""
    values = addon.text("configurationValues")
    try:
        given = json.loads(values.value) if values.value.strip() else {}
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        detail = f"{values.path} is no JSON object"
        raise MissingEvidence(Gap(what=values.path, reason=GapReason.BAD_DATA, detail=detail))
    inside, name = Facts(given, values.path), "enableNetworkPolicy"
    return inside.text(name) if isinstance(given.get(name), str) else inside.flag(name)


def _elsewhere(what: str, detail: str) -> MissingEvidence:
    return MissingEvidence(Gap(what=what, reason=GapReason.NOT_CONFIGURED, detail=detail))


# ---------------------------------------------------------------------------------------------------------------------
# GCP


@check(
    "gcp-gke-network-policy",
    Severity.MEDIUM,
    controls=NETWORK,
    question="network-policy",
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --update-addons NetworkPolicy=ENABLED`, "
    "then the same with `--enable-network-policy`; new clusters take `--enable-dataplane-v2`.",
    refs=("mdc:fd06513a-1e03-4d40-9159-243f76dcdcb7", "checkov:CKV_GCP_12"),
)
def gke_network_policy(
    c: GkeCluster,
    *,
    azure_rules: Annotated[bool, "the add-on alone counts, not Dataplane V2 or the nodes"] = False,
) -> Verdict:
    """Network policy should be enabled on GKE clusters

    Without an engine NetworkPolicy objects are accepted and do nothing: every pod reaches every other. Dataplane V2
    enforces them by itself, though it shows the add-on as disabled; elsewhere both add-on and nodes must be set.
    """
    addon = c.flag("addonsConfig.networkPolicyConfig.disabled")
    listed = c.get("addonsConfig.networkPolicyConfig") is not None
    if azure_rules:
        return expect(listed and not addon.value, "the network policy add-on is off", addon)
    datapath = c.text("networkConfig.datapathProvider")
    if is_one_of(datapath, ("ADVANCED_DATAPATH",), ("LEGACY_DATAPATH", "DATAPATH_PROVIDER_UNSPECIFIED")):
        return expect(True, "", datapath)
    nodes = c.flag("networkPolicy.enabled")
    enforced = nodes.value and not addon.value
    return expect(enforced, "no engine enforces network policies", datapath, addon, nodes)


@check(
    "gcp-gke-alias-ip",
    Severity.LOW,
    controls=NETWORK,
    fix="It can be chosen only when a cluster is created, and is on by default: make a new cluster with `gcloud "
    "container clusters create --enable-ip-alias` and move the workloads.",
    refs=("mdc:49016ecd-d4d6-4f48-a64f-42af93e15120", "cis-gke-1.9:5.6.2", "checkov:CKV_GCP_23"),
)
def gke_alias_ip(c: GkeCluster) -> Verdict:
    """GKE clusters should have alias IP ranges enabled

    With alias addresses the VPC knows which are pods': firewall rules can name them, and nobody else can take them.
    Private clusters and much else need them.
    """
    message = "pods have addresses by routes, not by alias ranges"
    routes = c.flag("ipAllocationPolicy.useRoutes")
    if routes.value:
        return expect(False, message, routes)
    path = "ipAllocationPolicy.useIpAliases"
    if always := guaranteed(c, path, COMPARISON):
        return expect(True, "", always)
    alias = c.flag(path)
    return expect(alias.value, message, alias)


@check(
    "gcp-gke-intranode-visibility",
    Severity.LOW,
    controls=NETWORK,
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --enable-intra-node-visibility`.",
    refs=("cis-gke-1.9:5.6.1", "checkov:CKV_GCP_61"),
)
def gke_intranode_visibility(c: GkeCluster) -> Verdict:
    """GKE clusters should have intranode visibility

    Without it traffic between pods of one node never passes the VPC: no flow log, firewall rule or mirror sees it.
    """
    visible = c.flag("networkConfig.enableIntraNodeVisibility")
    return expect(visible.value, "the VPC does not see traffic between pods of one node", visible)
