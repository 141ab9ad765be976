"""What separates workloads from one another on the network."""

from __future__ import annotations

from scanner.azure import AksCluster
from scanner.check import NETWORK, check
from scanner.cloud import expect
from scanner.model import Severity, Verdict


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
