"""Whether policies are enforced on what enters a cluster."""

from __future__ import annotations

import re

from scanner.azure import AksCluster, ArcCluster
from scanner.check import ACCESS, NETWORK, check
from scanner.cloud import Setting, expect
from scanner.gcp import GkeCluster, is_one_of
from scanner.model import Severity, Verdict, not_applicable

# Microsoft counts it in each control whose recommendations the policies decide.
_CONTROLS = (
    *ACCESS,
    *NETWORK,
    "Remediate security configurations",
    "Remediate vulnerabilities",
    "Protect applications against DDoS attack",
)


@check(
    "azure-aks-azure-policy-addon",
    Severity.HIGH,
    controls=_CONTROLS,
    fix="Run `az aks enable-addons -g GROUP -n CLUSTER --addons azure-policy`.",
    refs=(
        "mdc:08e628db-e2ed-4793-bc91-d13e684401c3",
        "azure-policy-1:0a15ec92-a229-4763-bb14-0ea34a568f8d",
        "checkov:CKV_AZURE_116",
    ),
)
def aks_azure_policy_addon(c: AksCluster) -> Verdict:
    """Azure Kubernetes Service clusters should have the Azure Policy add-on for Kubernetes installed

    The add-on checks objects against Azure Policy as they are created. Without it nothing stops a privileged container,
    and Defender for Cloud cannot say what runs in the cluster.
    """
    enabled = c.addon("azurepolicy").flag("enabled")
    if not enabled.value and _older_than_1_14(c.text("properties.kubernetesVersion")):
        return not_applicable("needs_kubernetes_1_14")
    return expect(enabled.value, "the Azure Policy add-on is not enabled", enabled)


def _older_than_1_14(version: Setting[str]) -> bool:
    """A version that is not known is not old."""
    match = re.match(r"(\d+)\.(\d+)", version.value)
    return match is not None and (int(match[1]), int(match[2])) < (1, 14)


@check(
    "azure-arc-policy-extension",
    Severity.HIGH,
    controls=_CONTROLS,
    fix="Run `az k8s-extension create --cluster-type connectedClusters -g GROUP --cluster-name CLUSTER "
    "--name azurepolicy --extension-type Microsoft.PolicyInsights`.",
    refs=("mdc:0642d770-b189-42ef-a2ce-9dcc3ec6c169", "azure-policy-1:6b2122c1-8120-4ff5-801b-17625a355590"),
    needs=("extensions",),
)
def arc_policy_extension(c: ArcCluster) -> Verdict:
    """Azure Arc-enabled Kubernetes clusters should have the Azure Policy extension installed

    The extension checks objects against Azure Policy as they are created, with the same rules on premises and in every
    cloud.
    """
    if c.text("properties.distribution").equals("aks"):
        return not_applicable("judged_as_aks")
    state = c.extension("microsoft.policyinsights")
    problem = "not installed" if state.sent is None else "installed but not working"
    return expect(state.equals("Succeeded"), f"the Azure Policy extension is {problem}", state)


@check(
    "gcp-gke-binary-authorization",
    Severity.MEDIUM,
    controls=("Remediate vulnerabilities",),
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION "
    "--binauthz-evaluation-mode=PROJECT_SINGLETON_POLICY_ENFORCE` once the project's policy names what may run.",
    refs=("checkov:CKV_GCP_66",),
)
def gke_binary_authorization(c: GkeCluster) -> Verdict:
    """GKE clusters should use Binary Authorization

    Binary Authorization lets only images run that the project's policy allows, such as signed ones. What the policy
    itself says is not judged here.
    """
    message = "every image may run"
    mode = c.text("binaryAuthorization.evaluationMode")
    former = c.flag("binaryAuthorization.enabled")  # Google ignores it where a mode is set
    if mode.sent is None or mode.equals("EVALUATION_MODE_UNSPECIFIED"):
        return expect(former.value, message, mode, former)
    enforcing = ("PROJECT_SINGLETON_POLICY_ENFORCE", "POLICY_BINDINGS_AND_PROJECT_SINGLETON_POLICY_ENFORCE")
    return expect(is_one_of(mode, enforcing, ("DISABLED", "POLICY_BINDINGS")), message, mode)
