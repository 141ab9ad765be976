"""What keeps running when a part of the cloud does not."""

from __future__ import annotations

from scanner.aws import EksCluster, EksNodegroup, stated
from scanner.azure import AksCluster, ContainerRegistry
from scanner.check import check
from scanner.cloud import expect
from scanner.gcp import COMPARISON, GkeCluster
from scanner.model import Severity, Verdict, not_applicable

_BEST_PRACTICES = ("Implement security best practices",)


@check(
    "azure-aks-free-tier",
    Severity.INFO,
    controls=_BEST_PRACTICES,
    fix="Run `az aks update -g GROUP -n CLUSTER --tier standard`.",
    refs=("checkov:CKV_AZURE_170",),
)
def aks_free_tier(c: AksCluster) -> Verdict:
    """AKS clusters should not use the Free tier in production

    The control plane of the Free tier comes without a service level agreement and is meant for trying things out.
    """
    if c.text("sku.name").equals("Automatic"):
        return not_applicable("automatic")
    tier = c.text("sku.tier")  # Paid is what Standard was called
    return expect(tier.equals("Standard", "Premium", "Paid"), "the control plane has no service level agreement", tier)


@check(
    "azure-acr-zone-redundancy",
    Severity.INFO,
    controls=_BEST_PRACTICES,
    fix="Zone redundancy can be asked for only when a registry is created: `az acr create --sku Premium "
    "--zone-redundancy Enabled`.",
    refs=("azure-policy-1:9d2b0a20-57d6-474c-9d12-44a4a20999c6", "checkov:CKV_AZURE_233"),
    on=False,
)
def acr_zone_redundancy(r: ContainerRegistry) -> Verdict:
    """Container registries should be zone redundant

    A registry that is down stops every new pod. Azure has since made all registries zone redundant in regions that have
    zones, and still shows the property as disabled: the check is off unless selected.
    """
    redundancy = r.text("properties.zoneRedundancy")
    return expect(redundancy.equals("Enabled"), "zone redundancy was not asked for", redundancy)


@check(
    "aws-eks-deletion-protection",
    Severity.LOW,
    controls=_BEST_PRACTICES,
    question="deletion-protection",
    fix="Run `aws eks update-cluster-config --name CLUSTER --deletion-protection`.",
    refs=("prowler:eks_cluster_deletion_protection_enabled",),
)
def eks_deletion_protection(c: EksCluster) -> Verdict:
    """EKS clusters should be protected from deletion

    One wrong call, or one stolen credential, ends everything that runs in the cluster. An SDK that is too old does not
    show the setting: then it is not known.
    """
    protected = stated(c.flag("deletionProtection"))
    return expect(protected.value, "one call deletes the cluster", protected)


@check(
    "aws-eks-node-auto-repair",
    Severity.LOW,
    controls=_BEST_PRACTICES,
    question="auto-repair",
    fix="Run `aws eks update-nodegroup-config --cluster-name CLUSTER --nodegroup-name GROUP --node-repair-config "
    "enabled=true`.",
    refs=(),
    needs=("nodegroups",),
)
def eks_node_auto_repair(g: EksNodegroup) -> Verdict:
    """EKS node groups should repair their nodes

    A node that the monitoring agent finds broken is replaced, not left half alive with what runs on it. It is off
    unless it was asked for; Auto Mode, which has no node groups, does it always.
    """
    repair = g.flag("nodeRepairConfig.enabled")
    return expect(repair.value, "nodes are not repaired automatically", repair)


@check(
    "gcp-gke-auto-repair",
    Severity.MEDIUM,
    controls=_BEST_PRACTICES,
    question="auto-repair",
    fix="Run `gcloud container node-pools update POOL --cluster CLUSTER --location LOCATION --enable-autorepair`.",
    refs=("mdc:6aeb69dc-0d01-4228-88e9-7e610891d5dd", "cis-gke-1.9:5.5.2", "checkov:CKV_GCP_9"),
)
def gke_auto_repair(c: GkeCluster) -> Verdict:
    """GKE cluster's auto repair feature should be enabled

    A node that fails its health checks is rebuilt, not left half alive with what runs on it. Every node pool counts,
    and what those get that GKE makes itself.
    """
    on, shown = c.in_every_pool("management.autoRepair", COMPARISON)
    if not shown:
        return not_applicable("no_node_pools")
    return expect(on, "nodes are not repaired automatically", *shown)
