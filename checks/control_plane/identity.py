"""Who may act on a cluster, and as whom the cluster and its workloads act."""

from __future__ import annotations

from typing import Annotated

from scanner.azure import AksCluster
from scanner.check import ACCESS, check
from scanner.cloud import expect
from scanner.model import Evidence, Severity, Verdict, not_applicable, text

_ENTRA = "properties.aadProfile"


@check(
    "azure-aks-rbac",
    Severity.HIGH,
    controls=ACCESS,
    fix="RBAC can be chosen only when a cluster is created, and then is on by default: make a new cluster with "
    "`az aks create` and move the workloads.",
    refs=(
        "mdc:b0fdc63a-38e7-4bab-a7c4-2c2665abbaa9",
        "azure-policy-1:ac4a19c2-fa67-49b4-8ae5-0b2e78c49457",
        "checkov:CKV_AZURE_5",
        "prowler:aks_cluster_rbac_enabled",
    ),
)
def aks_rbac(c: AksCluster) -> Verdict:
    """Role-Based Access Control should be used on Kubernetes Services

    Without RBAC everyone who gets into the cluster, and every pod with a token, may do everything in it.
    """
    enabled = c.flag("properties.enableRBAC")
    return expect(enabled.value, "Kubernetes RBAC is off", enabled)


@check(
    "azure-aks-local-accounts",
    Severity.HIGH,
    controls=ACCESS,
    fix="Run `az aks update -g GROUP -n CLUSTER --disable-local-accounts`; it needs Microsoft Entra integration.",
    refs=(
        "azure-policy-1:993c2fcd-2b29-49d2-9eb0-df2c3a730c32",
        "checkov:CKV_AZURE_141",
        "prowler:aks_cluster_local_accounts_disabled",
    ),
)
def aks_local_accounts(c: AksCluster) -> Verdict:
    """AKS clusters should have local accounts disabled

    The local account is a cluster-admin certificate that is shared, cannot be revoked for one person, and leaves no
    name in the audit log.
    """
    disabled = c.flag("properties.disableLocalAccounts")
    return expect(disabled.value, "the local cluster-admin account can be used", disabled)


@check(
    "azure-aks-entra-integration",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Run `az aks update -g GROUP -n CLUSTER --enable-aad`.",
    refs=("azure-policy-1:450d2877-ebea-41e8-b00c-e286317d21bf", "cis-aks-1.8:5.5.1"),
)
def aks_entra_integration(
    c: AksCluster,
    *,
    azure_rules: Annotated[bool, "the retired integration with applications of your own passes too"] = False,
) -> Verdict:
    """AKS clusters should use managed Microsoft Entra integration

    With Entra ID people sign in as themselves, with multi-factor authentication, and lose access when they leave.
    """
    if azure_rules:
        exists = c.get(_ENTRA) is not None
        evidence = Evidence(_ENTRA, "set" if exists else text(None))
        return expect(exists, "sign-in does not use Microsoft Entra ID", evidence)
    managed = c.flag(f"{_ENTRA}.managed")
    return expect(managed.value, "sign-in does not use managed Microsoft Entra integration", managed)


@check(
    "azure-aks-azure-rbac",
    Severity.LOW,
    controls=ACCESS,
    fix="Run `az aks update -g GROUP -n CLUSTER --enable-azure-rbac` and assign the Azure Kubernetes Service RBAC "
    "roles.",
    refs=("cis-aks-1.8:5.2.2",),
)
def aks_azure_rbac(c: AksCluster) -> Verdict:
    """AKS clusters should use Azure RBAC for Kubernetes authorization

    Role assignments in Azure are reviewed, time-limited and inherited in one place; bindings inside each cluster drift.
    """
    if c.get(_ENTRA) is None:
        return not_applicable("no_entra_integration")
    enabled = c.flag(f"{_ENTRA}.enableAzureRBAC")
    return expect(enabled.value, "permissions in the cluster are not managed by Azure RBAC", enabled)


@check(
    "azure-aks-managed-identity",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Run `az aks update -g GROUP -n CLUSTER --enable-managed-identity`, then upgrade the node pools.",
    refs=("azure-policy-1:da6e2401-19da-4532-9141-fb8fbde08431",),
)
def aks_managed_identity(c: AksCluster) -> Verdict:
    """AKS clusters should use a managed identity

    A service principal has a secret that lies on every node, leaks, and expires; a managed identity has none.
    """
    client = c.text("properties.servicePrincipalProfile.clientId")
    return expect(client.equals("msi"), "the cluster acts as a service principal with a secret", client)


@check(
    "azure-aks-workload-identity",
    Severity.LOW,
    controls=ACCESS,
    fix="Run `az aks update -g GROUP -n CLUSTER --enable-oidc-issuer --enable-workload-identity`.",
    refs=("azure-policy-1:2cc2e023-0dac-4046-875b-178f683929d5",),
)
def aks_workload_identity(
    c: AksCluster, *, azure_rules: Annotated[bool, "the OIDC issuer does not count"] = False
) -> Verdict:
    """AKS clusters should enable workload identity

    Workload identity gives each workload an Azure identity of its own, without stored secrets and without the node's.
    """
    enabled = c.flag("properties.securityProfile.workloadIdentity.enabled")
    message = "workloads cannot have Azure identities of their own"
    if azure_rules or not enabled.value:
        return expect(enabled.value, message, enabled)
    issuer = c.flag("properties.oidcIssuerProfile.enabled")
    return expect(issuer.value, f"{message}: the cluster has no OIDC issuer", enabled, issuer)


@check(
    "azure-aks-pod-identity-legacy",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Move the workloads to workload identity, then run `az aks update -g GROUP -n CLUSTER --disable-pod-identity`.",
    refs=(),
)
def aks_pod_identity_legacy(c: AksCluster) -> Verdict:
    """AKS clusters should not use Microsoft Entra pod-managed identities

    The add-on is deprecated and gets no security fixes. It intercepts the node's metadata endpoint, so that a pod that
    gets past it holds the identities of its neighbours.
    """
    enabled = c.flag("properties.podIdentityProfile.enabled")
    return expect(not enabled.value, "the deprecated pod identity add-on is on", enabled)
