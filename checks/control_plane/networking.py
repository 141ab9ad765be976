"""What separates workloads from one another on the network."""

from __future__ import annotations

import json

from scanner.aws import EksCluster
from scanner.azure import AksCluster
from scanner.check import NETWORK, check
from scanner.cloud import Facts, Setting, expect
from scanner.model import Gap, GapReason, MissingEvidence, Severity, Verdict


@check(
    "azure-aks-network-policy",
    Severity.MEDIUM,
    controls=NETWORK,
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


@check(
    "aws-eks-network-policy",
    Severity.MEDIUM,
    controls=NETWORK,
    fix="Run `aws eks update-addon --cluster-name CLUSTER --addon-name vpc-cni --resolve-conflicts PRESERVE "
    '--configuration-values \'{"enableNetworkPolicy": "true"}\'`, with the values that are set already.',
    refs=("cis-eks-1.8.0:5.4.4", "prowler:eks_cluster_vpc_cni_network_policy_enforced"),
    needs=("addons", "agents"),
)
def eks_network_policy(c: EksCluster) -> Verdict:
    """EKS clusters should have a network policy engine

    Without an engine NetworkPolicy objects are accepted and do nothing: every pod reaches every other. The VPC CNI
    add-on brings one that is off by default. Plugins that are no add-on, and Calico or Cilium beside one, are seen
    where the inside of the cluster is read; what Auto Mode does is set up in a ConfigMap that is not.
    """
    message = "nothing enforces network policies"
    addon = next((a for a in c.named("addons", "addonName") if a.text("addonName").equals(_VPC_CNI)), None)
    inside = c.related.get("agents")
    agents = c.listed("agents") if inside and not inside.gaps else []
    engine = next((a for a in agents if a.text("name").equals(*_ENGINES) and a.flag("ready").value), None)
    if engine:
        return expect(True, message, engine.text("name"), engine.flag("ready"))
    if c.flag("computeConfig.enabled").value:
        where = "ConfigMap kube-system/amazon-vpc-cni"
        raise _elsewhere(where, "EKS Auto Mode sets network policy up inside the cluster")
    if addon:
        enabled = _enforced(addon)
        return expect(enabled.value is True or enabled.equals("true"), message, enabled)
    plugin = next((a for a in c.listed("agents") if a.text("name").equals("aws-node")), None)
    if plugin is None:
        raise _elsewhere(f"addons[{_VPC_CNI}]", "the network plugin is none whose engine is known")
    arguments = plugin.words("args")
    return expect("--enable-network-policy=true" in arguments.value, message, arguments)


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
