"""How nodes are reached, and who may change them."""

from __future__ import annotations

from scanner.aws import EksNodegroup
from scanner.azure import AksCluster, AksNodePool
from scanner.check import ACCESS, NETWORK, check
from scanner.cloud import expect
from scanner.model import Severity, Verdict, not_applicable


@check(
    "azure-aks-node-public-ip",
    Severity.HIGH,
    controls=NETWORK,
    fix="Add a pool without --enable-node-public-ip, move the workloads and delete this one.",
    refs=(
        "cis-aks-1.8:5.4.3",
        "checkov:CKV_AZURE_143",
        "prowler:aks_clusters_created_with_private_nodes",
    ),
)
def aks_node_public_ip(p: AksNodePool) -> Verdict:
    """AKS nodes should have no public IP addresses

    A node with a public address is one network rule away from the internet, kubelet and SSH included.
    """
    public = p.flag("enableNodePublicIP")
    return expect(not public.value, "every node of the pool has a public IP address", public)


@check(
    "azure-aks-ssh",
    Severity.LOW,
    controls=ACCESS,
    fix="Run `az aks nodepool update -g GROUP --cluster-name CLUSTER -n POOL --ssh-access disabled`.",
    refs=("azure-policy-1:28257686-e9db-403e-b9e2-a5eecbe03da9",),
)
def aks_ssh(p: AksNodePool) -> Verdict:
    """AKS nodes should not accept SSH with a local key

    One key opens all nodes, is never rotated and names nobody. kubectl debug does the same under the cluster's own
    permissions.
    """
    if not p.text("osType").equals("Linux"):
        return not_applicable("windows")
    access = p.text("securityProfile.sshAccess")
    return expect(access.equals("Disabled", "EntraId"), "nodes accept SSH with a local key", access)


@check(
    "azure-aks-image-cleaner",
    Severity.LOW,
    controls=("Remediate vulnerabilities",),
    fix="Run `az aks update -g GROUP -n CLUSTER --enable-image-cleaner`.",
    refs=("azure-policy-1:af3c26b2-6fad-493e-9236-9c68928516ab",),
)
def aks_image_cleaner(c: AksCluster) -> Verdict:
    """AKS clusters should remove unused images from nodes

    Old images with known vulnerabilities stay on nodes, ready to be started again without a pull.
    """
    enabled = c.flag("properties.securityProfile.imageCleaner.enabled")
    return expect(enabled.value, "unused images with vulnerabilities stay on nodes", enabled)


@check(
    "azure-aks-nrg-lockdown",
    Severity.LOW,
    controls=ACCESS,
    fix="Run `az aks update -g GROUP -n CLUSTER --nrg-lockdown-restriction-level ReadOnly`.",
    refs=(),
)
def aks_nrg_lockdown(c: AksCluster) -> Verdict:
    """AKS node resource groups should be locked down

    Whoever may change the virtual machines, disks and load balancers behind a cluster changes it past Kubernetes.
    """
    level = c.text("properties.nodeResourceGroupProfile.restrictionLevel")
    return expect(level.equals("ReadOnly"), "the nodes' resources can be changed past the cluster", level)


@check(
    "aws-eks-nodegroup-ssh-open",
    Severity.HIGH,
    controls=NETWORK,
    fix="Create a node group without an SSH key, or with `--remote-access ec2SshKey=KEY,sourceSecurityGroups=GROUP`, "
    "move the workloads and delete this one; Session Manager needs no open port.",
    refs=("checkov:CKV_AWS_100",),
    needs=("nodegroups",),
)
def eks_nodegroup_ssh_open(g: EksNodegroup) -> Verdict:
    """EKS node groups should not open SSH to the internet

    With a key and no source security group EKS opens port 22, or RDP on Windows, to every address. What a launch
    template of your own opens is not seen from here.
    """
    key = g.text("remoteAccess.ec2SshKey")
    if not key.value:
        return expect(True, "", key)
    groups = g.words("remoteAccess.sourceSecurityGroups")
    return expect(bool(groups.value), "remote access to nodes is open to every address", key, groups)
