"""Add-ons that open a cluster, or that are set up badly."""

from __future__ import annotations

from scanner.aws import EksCluster, stated
from scanner.azure import AksCluster
from scanner.check import NETWORK, check
from scanner.cloud import Facts, expect, wrong
from scanner.gcp import GkeCluster
from scanner.model import Evidence, Severity, Verdict, not_applicable, text


@check(
    "azure-aks-kube-dashboard",
    Severity.MEDIUM,
    controls=NETWORK,
    fix="Run `az aks disable-addons -g GROUP -n CLUSTER --addons kube-dashboard`.",
    refs=("checkov:CKV_AZURE_8",),
)
def aks_kube_dashboard(c: AksCluster) -> Verdict:
    """AKS clusters should not run the Kubernetes dashboard add-on

    The dashboard acts with rights of its own for whoever reaches it, and the add-on is retired.
    """
    enabled = c.addon("kubeDashboard").flag("enabled")
    return expect(not enabled.value, "the Kubernetes dashboard add-on is on", enabled)


@check(
    "azure-aks-http-app-routing",
    Severity.LOW,
    controls=NETWORK,
    fix="Move to the application routing add-on, then run `az aks disable-addons -g GROUP -n CLUSTER "
    "--addons http_application_routing`.",
    refs=("checkov:CKV_AZURE_246",),
)
def aks_http_app_routing(c: AksCluster) -> Verdict:
    """AKS clusters should not run the HTTP application routing add-on

    The add-on is retired and gets no fixes. It publishes applications over plain HTTP under names in a public zone.
    """
    enabled = c.addon("httpApplicationRouting").flag("enabled")
    return expect(not enabled.value, "the HTTP application routing add-on is on", enabled)


@check(
    "azure-aks-secret-rotation",
    Severity.LOW,
    controls=("Implement security best practices",),
    fix="Run `az aks addon update -g GROUP -n CLUSTER --addon azure-keyvault-secrets-provider "
    "--enable-secret-rotation`.",
    refs=("checkov:CKV_AZURE_172",),
)
def aks_secret_rotation(c: AksCluster) -> Verdict:
    """AKS clusters should rotate secrets from Key Vault automatically

    Without rotation pods keep a secret that was changed in the vault, often because it leaked, until they restart.
    """
    provider = c.addon("azureKeyvaultSecretsProvider")
    if not provider.flag("enabled").value:
        return not_applicable("addon_off")
    rotation = provider.text("config.enableSecretRotation")
    return expect(rotation.equals("true"), "secrets from Key Vault are not rotated", rotation)


@check(
    "aws-eks-addon-health",
    Severity.LOW,
    controls=("Implement security best practices",),
    fix="See the issues with `aws eks describe-addon --cluster-name CLUSTER --addon-name ADDON`, repair what they "
    "name, then run `aws eks update-addon`.",
    refs=(),
    needs=("addons",),
)
def eks_addon_health(c: EksCluster) -> Verdict:
    """EKS add-ons should be healthy

    An add-on that is degraded or was not updated may leave nodes without network policies, storage or the GuardDuty
    agent.
    """
    addons = c.named("addons", "addonName")
    if not addons:
        return not_applicable("no_addons")
    ill = wrong(addons, _symptoms)
    shown = ill or [addon.text("status").evidence for addon in addons]
    return expect(not ill, "add-ons have issues", *shown)


def _symptoms(addon: Facts) -> list[Evidence]:
    codes = [issue.text("code").value or "no code" for issue in addon.parts("health.issues", "code")]
    issues = [Evidence(f"{addon.path}.health.issues", ", ".join(codes))] if codes else []
    if issues and addon.get("status") is None:
        return issues
    status = stated(addon.text("status"))
    working = status.equals("ACTIVE", "CREATING", "UPDATING", "DELETING")
    return [*([] if working else [status.evidence]), *issues]


@check(
    "gcp-gke-web-dashboard",
    Severity.HIGH,
    controls=NETWORK,
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --update-addons "
    "KubernetesDashboard=DISABLED`.",
    refs=("mdc:d8fa5c03-a8e8-467b-992c-ad8b2db0f55e", "cis-gke-1.9:5.10.1"),
)
def gke_web_dashboard(c: GkeCluster) -> Verdict:
    """GKE web dashboard should be disabled

    The dashboard acts with rights of its own for whoever reaches it, and the add-on is retired. A cluster that does not
    list it does not have it; one that lists it has it on unless it says that it is disabled.
    """
    path = "addonsConfig.kubernetesDashboard"
    if c.get(path) is None:
        return expect(True, "", Evidence(path, text(None)))
    disabled = c.flag(f"{path}.disabled")
    return expect(disabled.value, "the Kubernetes dashboard add-on is on", disabled)
