"""Whether clusters and nodes run versions that are still supported, and stay there."""

from __future__ import annotations

import re

from scanner.azure import AksCluster
from scanner.check import check
from scanner.cloud import Facts, Setting, expect
from scanner.model import Evidence, Gap, GapReason, MissingEvidence, Severity, Verdict, fail, text

_UPDATES = ("Apply system updates",)
_CHANNEL = "properties.autoUpgradeProfile.upgradeChannel"
_VERSIONS = "kubernetesVersions"
_LONG_TERM = "AKSLongTermSupport"


@check(
    "azure-aks-auto-upgrade",
    Severity.MEDIUM,
    controls=_UPDATES,
    fix="Run `az aks update -g GROUP -n CLUSTER --auto-upgrade-channel patch`.",
    refs=(
        "azure-policy-1:5c345cdf-2049-47e0-b8fe-b0e96bc2df35",
        "checkov:CKV_AZURE_171",
        "prowler:aks_cluster_auto_upgrade_enabled",
    ),
)
def aks_auto_upgrade(c: AksCluster) -> Verdict:
    """AKS clusters should upgrade Kubernetes automatically

    Fixes of Kubernetes itself come every month. A cluster that waits for a person falls behind, then out of support.
    The channel node-image leaves the version of Kubernetes alone.
    """
    channel = c.text(_CHANNEL)
    return expect(channel.equals("rapid", "stable", "patch"), "Kubernetes is not upgraded automatically", channel)


@check(
    "azure-aks-node-os-upgrade",
    Severity.LOW,
    controls=_UPDATES,
    fix="Run `az aks update -g GROUP -n CLUSTER --node-os-upgrade-channel NodeImage`.",
    refs=(
        "azure-policy-1:04408ca5-aa10-42ce-8536-98955cdddd4c",
        "prowler:aks_cluster_node_os_upgrade_channel_enabled",
    ),
)
def aks_node_os_upgrade(c: AksCluster) -> Verdict:
    """AKS nodes should get security updates of their operating system automatically

    Containers share the node's kernel: its holes are theirs. With the channel Unmanaged nodes patch themselves without
    a restart, with None not at all.
    """
    nodes = c.text("properties.autoUpgradeProfile.nodeOSUpgradeChannel")
    if nodes.equals("NodeImage", "SecurityPatch"):
        return expect(True, "", nodes)
    cluster = c.text(_CHANNEL)
    return expect(cluster.equals("node-image"), "nodes are not updated automatically", nodes, cluster)


@check(
    "azure-aks-supported-version",
    Severity.MEDIUM,
    controls=_UPDATES,
    fix="See `az aks get-upgrades -g GROUP -n CLUSTER` and run `az aks upgrade -g GROUP -n CLUSTER "
    "--kubernetes-version VERSION`.",
    refs=("prowler:aks_cluster_uses_a_supported_version",),
    needs=(_VERSIONS,),
)
def aks_supported_version(c: AksCluster) -> Verdict:
    """AKS clusters should run a supported version of Kubernetes

    A version that Azure no longer offers gets no fixes. Which are offered is asked of Azure, for the cluster's region.
    """
    version, minor, patch = _version(c)
    offered = {o.text("version").value: o.wire for o in c.listed(_VERSIONS)}
    if not offered:
        raise _not_understood(_VERSIONS, "Azure listed no version for the region")
    if minor not in offered:
        known = Evidence(_VERSIONS, text(sorted(offered)))
        return fail(f"Kubernetes {minor} is not supported any more", version.evidence, known, reason="not_offered")
    line = Facts(offered[minor], f"{_VERSIONS}[{minor}]")
    plans, plan = line.words("capabilities.supportPlan"), c.text("properties.supportPlan")
    long_term_only = [p.casefold() for p in plans.value] == [_LONG_TERM.casefold()]
    if long_term_only and not plan.equals(_LONG_TERM):
        message = f"Kubernetes {minor} is supported only under long-term support, which the cluster does not have"
        return expect(False, message, version, plans, plan, reason="long_term_only")
    patches = line.part("patchVersions")
    if patch and patches.wire and patch not in patches.wire:
        newest = Evidence(patches.path, text([*patches.wire]))
        message = f"Kubernetes {patch} is not offered any more, other patches of {minor} are"
        return fail(message, version.evidence, newest, reason="old_patch", severity=Severity.LOW)
    return expect(True, "", version, *([line.flag("isPreview")] if line.get("isPreview") else []))


def _version(c: AksCluster) -> tuple[Setting[str], str, str]:
    """The version that runs, as sent, and its 1.33 and 1.33.2; the latter is "" where only a minor version is known."""
    version = c.text("properties.currentKubernetesVersion")
    if not version.value:
        version = c.text("properties.kubernetesVersion")
    match = re.fullmatch(r"(\d+\.\d+)(\.\d+)?", version.value)
    if match is None:
        raise _not_understood(version.path, f"{version.path} is {version.value[:60]!r} and not a version")
    return version, match[1], version.value if match[2] else ""


def _not_understood(what: str, detail: str) -> MissingEvidence:
    return MissingEvidence(Gap(what=what, reason=GapReason.BAD_DATA, detail=detail))
