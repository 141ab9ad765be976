"""Whether clusters and nodes run versions that are still supported, and stay there."""

from __future__ import annotations

import re

from scanner.aws import EksCluster, EksNodegroup, stated
from scanner.azure import AksCluster
from scanner.check import check
from scanner.cloud import Facts, Setting, expect
from scanner.gcp import COMPARISON, GkeCluster, is_one_of
from scanner.model import Evidence, Gap, GapReason, MissingEvidence, Severity, Verdict, fail, not_applicable, text

_UPDATES = ("Apply system updates",)
_CHANNEL = "properties.autoUpgradeProfile.upgradeChannel"
_VERSIONS = "kubernetesVersions"
_LONG_TERM = "AKSLongTermSupport"


@check(
    "azure-aks-auto-upgrade",
    Severity.MEDIUM,
    controls=_UPDATES,
    question="auto-upgrade",
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
    question="supported-version",
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


# ---------------------------------------------------------------------------------------------------------------------
# AWS

_EKS_VERSIONS = "clusterVersions"


@check(
    "aws-eks-supported-version",
    Severity.HIGH,
    controls=_UPDATES,
    question="supported-version",
    fix="Run `aws eks update-cluster-version --name CLUSTER --kubernetes-version VERSION`, one minor version at a "
    "time, then update node groups and add-ons.",
    refs=("fsbp:EKS.2", "checkov:CKV_AWS_339", "prowler:eks_cluster_uses_a_supported_version"),
    needs=(_EKS_VERSIONS,),
)
def eks_supported_version(c: EksCluster) -> Verdict:
    """EKS clusters should run a supported version of Kubernetes

    An unsupported version gets no fixes, and AWS upgrades it when it pleases. Extended support brings fixes at a
    multiple of the price until it ends, and weighs less. Which version is where is asked of AWS.
    """
    version = stated(c.text("version"))
    status = _support(c, version.value)
    if status.equals("UNSUPPORTED"):
        return expect(False, f"Kubernetes {version.value} is not supported any more", version, status)
    message = f"Kubernetes {version.value} is past standard support: extended support costs more, and ends"
    extended = status.equals("EXTENDED_SUPPORT", "extended-support")
    return expect(not extended, message, version, status, reason="extended_support", severity=Severity.LOW)


def _support(c: EksCluster, version: str) -> Setting[str]:
    """What AWS says of a version, in either of its two spellings; raises MissingEvidence where that is not one word."""
    found = [item for item in c.named(_EKS_VERSIONS, "clusterVersion") if item.text("clusterVersion").value == version]
    words = {_word(setting): setting for setting in map(_status, found)}
    if not words:
        raise _not_understood(_EKS_VERSIONS, f"AWS does not list Kubernetes {version[:60]!r}")
    if len(words) == 1 and set(words) <= {"UNSUPPORTED", "STANDARD_SUPPORT", "EXTENDED_SUPPORT"}:
        return next(iter(words.values()))
    raise _not_understood(_EKS_VERSIONS, f"AWS says {', '.join(words)[:60]!r} of Kubernetes {version[:60]}")


def _status(item: Facts) -> Setting[str]:
    status = item.text("versionStatus")
    return status if status.sent is not None else item.text("status")  # the name that came first


def _word(status: Setting[str]) -> str:
    return status.value.upper().replace("-", "_")


@check(
    "aws-eks-upgrade-policy",
    Severity.INFO,
    controls=_UPDATES,
    fix="Run `aws eks update-cluster-config --name CLUSTER --upgrade-policy supportType=STANDARD`.",
    refs=(),
)
def eks_upgrade_policy(c: EksCluster) -> Verdict:
    """EKS clusters should not enter extended support

    With STANDARD AWS upgrades the cluster when standard support ends; with EXTENDED it stays on an old version at a
    multiple of the price. What holds for a cluster that sends neither AWS does not document.
    """
    policy = stated(c.text("upgradePolicy.supportType"))
    if not policy.equals("STANDARD", "EXTENDED"):
        raise _not_understood(policy.path, f"{policy.path} is {policy.value[:60]!r}, neither STANDARD nor EXTENDED")
    return expect(policy.equals("STANDARD"), "the cluster stays on its version into extended support", policy)


@check(
    "aws-eks-nodegroup-ami",
    Severity.LOW,
    controls=_UPDATES,
    fix="Create a node group with `aws eks create-nodegroup --ami-type AL2023_x86_64_STANDARD` or a Bottlerocket "
    "image, move the workloads and delete this one.",
    refs=(),
    needs=("nodegroups",),
)
def eks_nodegroup_ami(g: EksNodegroup) -> Verdict:
    """EKS node groups should not run Amazon Linux 2

    AWS publishes no node images of Amazon Linux 2 since 26 November 2025: kernel and container runtime get no more
    fixes. What is in an image of your own is not seen from here.
    """
    image = stated(g.text("amiType"))
    if image.equals("CUSTOM"):
        return not_applicable("custom_image")
    outdated = image.value.upper().startswith("AL2_")
    return expect(not outdated, "nodes run Amazon Linux 2, which gets no more images", image, g.text("releaseVersion"))


# ---------------------------------------------------------------------------------------------------------------------
# GCP


@check(
    "gcp-gke-auto-upgrade",
    Severity.HIGH,
    controls=_UPDATES,
    question="auto-upgrade",
    fix="Run `gcloud container node-pools update POOL --cluster CLUSTER --location LOCATION --enable-autoupgrade`, or "
    "enrol the cluster in a release channel.",
    refs=("mdc:1680e053-2e9b-4e77-a1c7-793ae286155e", "cis-gke-1.9:5.5.3", "checkov:CKV_GCP_10"),
)
def gke_auto_upgrade(c: GkeCluster) -> Verdict:
    """GKE cluster's auto upgrade feature should be enabled

    Fixes of Kubernetes and of the node's kernel come every month. Nodes that wait for a person fall behind, then out of
    support. Every node pool counts, and what those get that GKE makes itself.
    """
    on, shown = c.in_every_pool("management.autoUpgrade", COMPARISON)
    if not shown:
        return not_applicable("no_node_pools")
    return expect(on, "nodes are not upgraded automatically", *shown)


@check(
    "gcp-gke-release-channel",
    Severity.LOW,
    controls=_UPDATES,
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --release-channel regular`.",
    refs=("cis-gke-1.9:5.5.4", "checkov:CKV_GCP_70"),
)
def gke_release_channel(c: GkeCluster) -> Verdict:
    """GKE clusters should be enrolled in a release channel

    In a channel Google keeps control plane and nodes on versions that it has tried out and still fixes, and automatic
    upgrades cannot be switched off.
    """
    channel = c.text("releaseChannel.channel")
    enrolled = is_one_of(channel, ("RAPID", "REGULAR", "STABLE", "EXTENDED"), ("", "UNSPECIFIED"))
    return expect(enrolled, "the cluster is in no release channel", channel)


@check(
    "gcp-gke-alpha-cluster",
    Severity.HIGH,
    controls=_UPDATES,
    fix="It can be chosen only when a cluster is created: make a new cluster without `--enable-kubernetes-alpha` and "
    "move the workloads before GKE deletes this one.",
    refs=("cis-gke-1.9:5.10.2",),
)
def gke_alpha_cluster(c: GkeCluster) -> Verdict:
    """GKE clusters should not be alpha clusters

    An alpha cluster runs features that are not finished, is never upgraded, and is deleted after thirty days.
    """
    alpha = c.flag("enableKubernetesAlpha")
    return expect(not alpha.value, "the cluster is an alpha cluster: it gets no upgrades", alpha)
