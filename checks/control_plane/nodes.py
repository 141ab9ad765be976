"""How nodes are reached, and who may change them."""

from __future__ import annotations

from scanner.aws import EksNodegroup
from scanner.azure import AksCluster, AksNodePool
from scanner.check import ACCESS, NETWORK, check
from scanner.cloud import Facts, expect, wrong
from scanner.gcp import COMPARISON, WORKLOAD_IDENTITY, GkeCluster, GkeNodePool, guaranteed, is_one_of, stated
from scanner.model import Evidence, Gap, GapReason, MissingEvidence, Severity, Verdict, not_applicable


@check(
    "azure-aks-node-public-ip",
    Severity.HIGH,
    controls=NETWORK,
    question="private-nodes",
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


# ---------------------------------------------------------------------------------------------------------------------
# GCP

_BEST_PRACTICES = ("Implement security best practices",)


@check(
    "gcp-gke-metadata-server",
    Severity.HIGH,
    controls=ACCESS,
    question="metadata-protection",
    fix="Run `gcloud container node-pools update POOL --cluster CLUSTER --location LOCATION --workload-metadata "
    "GKE_METADATA`; it needs Workload Identity Federation for GKE.",
    refs=("cis-gke-1.9:5.4.1", "checkov:CKV_GCP_69"),
)
def gke_metadata_server(p: GkeNodePool) -> Verdict:
    """GKE node pools should run the GKE metadata server

    Without it every pod gets the node's token, and its bootstrap data, from Compute Engine's metadata server: a pod
    that can be made to fetch an address acts as the node.
    """
    path = "config.workloadMetadataConfig.mode"
    if always := guaranteed(p, path, WORKLOAD_IDENTITY):
        return expect(True, "", always)
    mode = p.text(path)
    hidden = is_one_of(mode, ("GKE_METADATA",), ("", "MODE_UNSPECIFIED", "GCE_METADATA"))
    return expect(hidden, "pods reach the node's metadata and its token", mode)


@check(
    "gcp-gke-legacy-metadata",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Add a pool with `gcloud container node-pools create --metadata disable-legacy-endpoints=true`, move the "
    "workloads and delete this one.",
    refs=("checkov:CKV_GCP_67",),
)
def gke_legacy_metadata(p: GkeNodePool) -> Verdict:
    """GKE node pools should switch legacy metadata endpoints off

    The old endpoints of the metadata server answer without the header that newer ones ask for, so that a pod that can
    be made to fetch an address gives away the node's token. GKE sets it for new pools since version 1.12.
    """
    disabled = p.text("config.metadata.disable-legacy-endpoints")
    return expect(disabled.equals("true"), "legacy metadata endpoints are not switched off", disabled)


@check(
    "gcp-gke-cos-image",
    Severity.LOW,
    controls=_BEST_PRACTICES,
    fix="Run `gcloud container clusters upgrade CLUSTER --location LOCATION --node-pool POOL --image-type "
    "COS_CONTAINERD`.",
    refs=("cis-gke-1.9:5.5.1", "checkov:CKV_GCP_22"),
)
def gke_cos_image(p: GkeNodePool) -> Verdict:
    """GKE node pools should run Container-Optimized OS

    Its root file system cannot be written, it holds little that an attacker could use, and Google patches it first.
    There is none for Windows.
    """
    image = p.text("config.imageType")
    if image.sent is None and (always := p.owner.always_on(COMPARISON)):
        return expect(True, "", always)
    stated(image)
    if image.value.upper().startswith("WINDOWS"):
        return not_applicable("windows")
    return expect(image.value.upper().startswith("COS"), "nodes do not run Container-Optimized OS", image)


@check(
    "gcp-gke-shielded-nodes",
    Severity.MEDIUM,
    controls=_BEST_PRACTICES,
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --enable-shielded-nodes`.",
    refs=("cis-gke-1.9:5.5.5", "checkov:CKV_GCP_71"),
)
def gke_shielded_nodes(c: GkeCluster) -> Verdict:
    """GKE clusters should use Shielded GKE Nodes

    Shielded nodes prove who they are by their hardware. Otherwise whoever reads a node's bootstrap credential in a pod
    can pose as a node, and read its secrets.
    """
    path = "shieldedNodes.enabled"
    if always := guaranteed(c, path, COMPARISON):
        return expect(True, "", always)
    enabled = c.flag(path)
    return expect(enabled.value, "nodes do not prove their identity", enabled)


@check(
    "gcp-gke-integrity-monitoring",
    Severity.LOW,
    controls=_BEST_PRACTICES,
    fix="Add a pool with `gcloud container node-pools create --shielded-integrity-monitoring`, move the workloads and "
    "delete this one.",
    refs=("cis-gke-1.9:5.5.6", "checkov:CKV_GCP_72"),
)
def gke_integrity_monitoring(p: GkeNodePool) -> Verdict:
    """GKE node pools should monitor the integrity of their boot

    Each start is measured and compared with the first: a changed boot loader or kernel is noticed.
    """
    enabled = p.flag("config.shieldedInstanceConfig.enableIntegrityMonitoring")
    return expect(enabled.value, "a changed boot loader or kernel is not noticed", enabled)


@check(
    "gcp-gke-secure-boot",
    Severity.LOW,
    controls=_BEST_PRACTICES,
    fix="Add a pool with `gcloud container node-pools create --shielded-secure-boot`, move the workloads and delete "
    "this one.",
    refs=("cis-gke-1.9:5.5.7", "checkov:CKV_GCP_68"),
)
def gke_secure_boot(p: GkeNodePool) -> Verdict:
    """GKE node pools should use secure boot

    Only signed boot loaders, kernels and drivers then start, so that nothing stays hidden below the operating system.
    Pools with GPUs may need drivers that are not signed; those of Container-Optimized OS are.
    """
    path = "config.shieldedInstanceConfig.enableSecureBoot"
    if always := guaranteed(p, path, COMPARISON):
        return expect(True, "", always)
    enabled = p.flag(path)
    if not enabled.value and p.parts("config.accelerators", "acceleratorType"):
        image = stated(p.text("config.imageType"))
        if not image.value.upper().startswith("COS"):
            return not_applicable("gpu")
    return expect(enabled.value, "unsigned boot components and drivers are started", enabled)


@check(
    "gcp-gke-sandbox",
    Severity.INFO,
    controls=_BEST_PRACTICES,
    fix="Add a pool with `gcloud container node-pools create --sandbox type=gvisor` and give pods that run untrusted "
    "code the runtime class gvisor.",
    refs=("cis-gke-1.9:5.10.3",),
    on=False,
)
def gke_sandbox(c: GkeCluster) -> Verdict:
    """(Enable if required) GKE clusters should have nodes that sandbox pods

    GKE Sandbox puts gVisor between a pod and the node's kernel. Only clusters that run untrusted code need it, so the
    check is off unless selected. In Autopilot clusters each pod asks for it itself.
    """
    if c.is_autopilot:
        return not_applicable("autopilot")
    types = [pool.text("config.sandboxConfig.type") for pool in c.components()]
    if not types and not c.makes_pools:
        return not_applicable("no_node_pools")
    if not types:
        detail = "there are no node pools now, and those that GKE makes are as the pods ask for"
        raise MissingEvidence(Gap(what="nodePools", reason=GapReason.NOT_CONFIGURED, detail=detail))
    sandboxed = [kind for kind in types if is_one_of(kind, ("GVISOR",), ("", "UNSPECIFIED"))]
    return expect(bool(sandboxed), "no node pool sandboxes pods", *(sandboxed or types))


_PORT = "insecureKubeletReadonlyPortEnabled"
_PORT_BY_DEFAULT = f"nodePoolDefaults.nodeConfigDefaults.nodeKubeletConfig.{_PORT}"
_PORT_OF_MADE_POOLS = f"nodePoolAutoConfig.nodeKubeletConfig.{_PORT}"  # of pools that GKE makes by itself
_PORT_OF_MADE_POOLS_ONCE = f"autoscaling.autoprovisioningNodePoolDefaults.{_PORT}"  # what it was called before
_PORTS_OF_NEW_POOLS = (_PORT_BY_DEFAULT, _PORT_OF_MADE_POOLS, _PORT_OF_MADE_POOLS_ONCE)


@check(
    "gcp-gke-insecure-kubelet-port",
    Severity.HIGH,
    controls=NETWORK,
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --no-enable-insecure-kubelet-readonly-port`"
    ", with `--no-autoprovisioning-enable-insecure-kubelet-readonly-port` for pools that GKE makes, and `gcloud "
    "container node-pools update POOL` for pools that have a setting of their own.",
    refs=(),
)
def gke_insecure_kubelet_port(c: GkeCluster) -> Verdict:
    """GKE nodes should not open the kubelet's read-only port

    Port 10255 tells whoever reaches it about every pod of the node, without asking who they are. GKE closes it in
    clusters created with version 1.32 or later; where a cluster does not say, it is not known.
    """
    pools = list(c.components())
    places: list[tuple[Facts, str]] = [(pool, f"config.kubeletConfig.{_PORT}") for pool in pools]
    places += [(c, path) for path in _PORTS_OF_NEW_POOLS]
    open_ports = wrong(places, lambda place: _open_port(*place))
    if open_ports:
        return expect(False, "the kubelet's read-only port is open, or will be in new node pools", *open_ports)
    if not pools and not c.makes_pools:
        return not_applicable("no_node_pools")
    if c.makes_pools and c.get(_PORT_OF_MADE_POOLS_ONCE) is None:
        stated(c.flag(_PORT_OF_MADE_POOLS))
    said = [facts.flag(path) for facts, path in places if facts.get(path) is not None]
    return expect(True, "", *said)


def _open_port(facts: Facts, path: str) -> list[Evidence]:
    """A pool that says nothing has what its cluster says; raises MissingEvidence where that says nothing either."""
    port = facts.flag(path)
    if isinstance(facts, GkeNodePool) and port.sent is None:
        port = stated(facts.owner.flag(_PORT_OF_MADE_POOLS if facts.owner.is_autopilot else _PORT_BY_DEFAULT))
    return [port.evidence] if port.value else []
