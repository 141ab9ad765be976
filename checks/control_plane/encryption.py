"""What is encrypted at rest, and with whose keys."""

from __future__ import annotations

from typing import Annotated

from scanner.aws import EcrRepository, EksCluster
from scanner.azure import AksCluster, AksNodePool, ContainerRegistry
from scanner.check import check
from scanner.cloud import expect
from scanner.gcp import ArtifactRepository, GkeCluster, GkeNodePool, is_one_of
from scanner.model import Evidence, Severity, Verdict, fail, text

_AT_REST = ("Enable encryption at rest",)


@check(
    "azure-aks-kms-etcd",
    Severity.MEDIUM,
    controls=_AT_REST,
    question="secret-encryption",
    fix="Run `az aks update -g GROUP -n CLUSTER --enable-azure-keyvault-kms --azure-keyvault-kms-key-id KEY_ID`, then "
    "rewrite the secrets with `kubectl get secrets -A -o json | kubectl replace -f -`.",
    refs=(
        "azure-policy-1:dbbdc317-9734-4dd8-9074-993b29c69008",
        "cis-aks-1.8:5.3.1",
        "prowler:aks_cluster_kms_cmk_encryption_enabled",
    ),
)
def aks_kms_etcd(
    c: AksCluster, *, azure_rules: Annotated[bool, "only a key of your own in Key Vault counts"] = False
) -> Verdict:
    """AKS clusters should encrypt Kubernetes secrets with a key management service

    In etcd secrets are only as secret as the disk and its backups. With KMS each is encrypted by a key that is kept
    elsewhere: your own in Key Vault, or one that the service manages.
    """
    own = c.flag("properties.securityProfile.azureKeyVaultKms.enabled")
    message = "secrets in etcd are not encrypted by a key management service"
    if own.value or azure_rules:
        return expect(own.value, message, own)
    managed = c.text("properties.securityProfile.kubernetesResourceObjectEncryptionProfile.infrastructureEncryption")
    return expect(managed.equals("Enabled"), message, own, managed)


@check(
    "azure-aks-encryption-at-host",
    Severity.LOW,
    controls=_AT_REST,
    fix="Add a pool with `az aks nodepool add --enable-encryption-at-host`, move the workloads and delete this one.",
    refs=("azure-policy-1:41425d9f-d1a5-499a-9932-f8ed8453932c", "checkov:CKV_AZURE_227"),
)
def aks_encryption_at_host(p: AksNodePool) -> Verdict:
    """AKS node pools should encrypt temporary disks and caches at the host

    Without it the caches and temporary disks of nodes, with what containers write to them, lie unencrypted on the
    host.
    """
    enabled = p.flag("enableEncryptionAtHost")
    return expect(enabled.value, "temporary disks and caches are not encrypted at the host", enabled)


@check(
    "azure-aks-disk-encryption-set",
    Severity.LOW,
    controls=_AT_REST,
    fix="A disk encryption set can be chosen only when a cluster is created: `az aks create "
    "--node-osdisk-diskencryptionset-id SET_ID`.",
    refs=("azure-policy-1:7d7be79c-23ba-4033-84dd-45e2a5ccdd67", "checkov:CKV_AZURE_117"),
    on=False,
)
def aks_disk_encryption_set(c: AksCluster) -> Verdict:
    """(Enable if required) AKS clusters should encrypt disks with a customer-managed key

    Disks are always encrypted, by default with keys that Microsoft manages. A key of your own is needed only where
    rules demand it, so the check is off unless selected.
    """
    key = c.text("properties.diskEncryptionSetID")
    return expect(bool(key.value), "disks are encrypted with a key that Microsoft manages", key)


@check(
    "azure-aks-fips",
    Severity.INFO,
    controls=("Implement security best practices",),
    fix="Add a pool with `az aks nodepool add --enable-fips-image`, move the workloads and delete this one.",
    refs=(),
)
def aks_fips(p: AksNodePool) -> Verdict:
    """AKS node pools should run FIPS-validated node images

    Public authorities and their suppliers may have to use validated cryptography; for others it is a choice.
    """
    pool = p.flag("enableFIPS")
    if pool.value:
        return expect(True, "", pool)
    cluster = p.owner.flag("properties.enableFIPS")
    return expect(cluster.value, "the node image has no FIPS-validated cryptography", pool, cluster)


@check(
    "azure-acr-cmk",
    Severity.LOW,
    controls=("Implement security best practices",),
    fix="A customer-managed key can be chosen only when a registry is created: `az acr create --sku Premium "
    "--identity IDENTITY_ID --key-encryption-key KEY_ID`.",
    refs=("mdc:af560c4d-9c05-e073-b9f1-f7a94958ff25", "azure-policy-1:5b9159ae-1701-4a6f-9a7a-aa9c8ddd0580"),
    on=False,
)
def acr_cmk(r: ContainerRegistry) -> Verdict:
    """(Enable if required) Container registries should be encrypted with a customer-managed key (CMK)

    Registries are always encrypted, by default with keys that Microsoft manages. A key of your own is needed only where
    rules demand it, so the check is off unless selected.
    """
    status = r.text("properties.encryption.status")
    if not status.equals("enabled"):
        return expect(False, "images are encrypted with a key that Microsoft manages", status)
    key = r.part("properties.encryption.keyVaultProperties")
    shown = (
        Evidence(f"{key.path}.{name}", text(key.wire.get(name))) for name in ("keyIdentifier", "keyRotationEnabled")
    )
    return expect(True, "", status, *shown)


@check(
    "aws-eks-secrets-cmk",
    Severity.MEDIUM,
    controls=_AT_REST,
    question="secret-encryption",
    fix="Run `aws eks associate-encryption-config --cluster-name CLUSTER --encryption-config "
    '\'[{"resources": ["secrets"], "provider": {"keyArn": "KEY_ARN"}}]\'`; it cannot be undone.',
    refs=(
        "fsbp:EKS.3",
        "cis-eks-1.8.0:5.3.1",
        "checkov:CKV_AWS_58",
        "prowler:eks_cluster_kms_cmk_encryption_in_secrets_enabled",
    ),
)
def eks_secrets_cmk(c: EksCluster) -> Verdict:
    """EKS clusters should encrypt Kubernetes secrets with a customer-managed key

    With a key of your own you decide who may decrypt, you see it in CloudTrail, and you can withdraw it. From
    Kubernetes 1.28 on EKS encrypts secrets in any case, by default with a key that AWS owns; a cluster without
    encryptionConfig has no key of yours.
    """
    configs = c.parts("encryptionConfig")
    keys = [config.text("provider.keyArn") for config in configs if "secrets" in config.words("resources").value]
    own = [key for key in keys if key.value]
    message = "secrets are not encrypted with a key of your own"
    if not keys:
        return fail(message, Evidence("encryptionConfig", "nothing for secrets" if configs else text(None)))
    return expect(bool(own), message, *(own or keys))


@check(
    "aws-ecr-kms",
    Severity.LOW,
    controls=_AT_REST,
    fix="Encryption can be chosen only when a repository is created: `aws ecr create-repository --repository-name "
    "REPOSITORY --encryption-configuration encryptionType=KMS,kmsKey=KEY_ARN`.",
    refs=("checkov:CKV_AWS_136", "prowler:ecr_repository_encrypted_with_cmk"),
    on=False,
)
def ecr_kms(r: EcrRepository) -> Verdict:
    """(Enable if required) ECR repositories should be encrypted with KMS

    Images are always encrypted, by default with keys that S3 manages. KMS is needed only where rules demand it, so the
    check is off unless selected.
    """
    kind = r.text("encryptionConfiguration.encryptionType")
    if not kind.equals("KMS", "KMS_DSSE"):
        return expect(False, "images are encrypted with a key that S3 manages", kind)
    return expect(True, "", kind, r.text("encryptionConfiguration.kmsKey"))


# ---------------------------------------------------------------------------------------------------------------------
# GCP

# Of databaseEncryption, in the two enums that say it.
_ENCRYPTED = (
    "ENCRYPTED",
    "ALL_OBJECTS_ENCRYPTION_ENABLED",
    "CURRENT_STATE_ENCRYPTED",
    "CURRENT_STATE_ALL_OBJECTS_ENCRYPTION_ENABLED",
)
_NOT_ENCRYPTED = (
    "",
    "UNKNOWN",
    "DECRYPTED",
    "CURRENT_STATE_DECRYPTED",
    "CURRENT_STATE_ENCRYPTION_PENDING",
    "CURRENT_STATE_ENCRYPTION_ERROR",
    "CURRENT_STATE_DECRYPTION_PENDING",
    "CURRENT_STATE_DECRYPTION_ERROR",
    "CURRENT_STATE_ALL_OBJECTS_ENCRYPTION_PENDING",
    "CURRENT_STATE_ALL_OBJECTS_ENCRYPTION_ERROR",
)


@check(
    "gcp-gke-secrets-cmek",
    Severity.MEDIUM,
    controls=_AT_REST,
    question="secret-encryption",
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --database-encryption-key "
    "projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY`, then rewrite the secrets with `kubectl get "
    "secrets -A -o json | kubectl replace -f -`.",
    refs=("cis-gke-1.9:5.3.1",),
)
def gke_secrets_cmek(c: GkeCluster) -> Verdict:
    """GKE clusters should encrypt Kubernetes secrets with a key in Cloud KMS

    Disks are always encrypted, but whoever reads the API server's store or a backup of it reads the secrets. With a key
    of your own you decide who may decrypt, and can withdraw it. What holds now counts, not what was asked for.
    """
    now = c.text("databaseEncryption.currentState")
    state = c.text("databaseEncryption.state") if now.sent is None else now
    encrypted = is_one_of(state, _ENCRYPTED, _NOT_ENCRYPTED)
    return expect(
        encrypted, "secrets are not encrypted with a key of your own", state, c.text("databaseEncryption.keyName")
    )


@check(
    "gcp-gke-boot-disk-cmek",
    Severity.LOW,
    controls=_AT_REST,
    fix="A key can be chosen only when a pool is created: `gcloud container node-pools create --boot-disk-kms-key "
    "projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY`.",
    refs=("cis-gke-1.9:5.9.2",),
    on=False,
)
def gke_boot_disk_cmek(p: GkeNodePool) -> Verdict:
    """(Enable if required) GKE node pools should encrypt boot disks with a customer-managed key

    Disks are always encrypted, by default with keys that Google manages. A key of your own is needed only where rules
    demand it, so the check is off unless selected.
    """
    key = p.text("config.bootDiskKmsKey")
    return expect(bool(key.value), "boot disks are encrypted with a key that Google manages", key)


@check(
    "gcp-gke-confidential-nodes",
    Severity.INFO,
    controls=("Implement security best practices",),
    fix="Add a pool with `gcloud container node-pools create --enable-confidential-nodes --machine-type "
    "n2d-standard-4`, move the workloads and delete this one.",
    refs=(),
)
def gke_confidential_nodes(p: GkeNodePool) -> Verdict:
    """GKE node pools should be confidential nodes

    Confidential nodes keep their memory encrypted while it is in use. Some rules ask for it; for others it is a choice.
    """
    pool = p.flag("config.confidentialNodes.enabled")
    if pool.value:
        return expect(True, "", pool)
    cluster = p.owner.flag("confidentialNodes.enabled")
    return expect(cluster.value, "the nodes' memory is not encrypted", pool, cluster)


@check(
    "gcp-gke-in-transit-encryption",
    Severity.INFO,
    controls=("Encrypt data in transit",),
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --in-transit-encryption=inter-node-"
    "transparent`; it needs Dataplane V2.",
    refs=(),
)
def gke_in_transit_encryption(c: GkeCluster) -> Verdict:
    """GKE clusters should encrypt traffic between nodes

    What pods say to one another without TLS crosses Google's network as they said it. Inter-node transparent encryption
    hides it without a change to the pods.
    """
    setting = c.text("networkConfig.inTransitEncryptionConfig")
    off = ("", "IN_TRANSIT_ENCRYPTION_CONFIG_UNSPECIFIED", "IN_TRANSIT_ENCRYPTION_DISABLED")
    on = is_one_of(setting, ("IN_TRANSIT_ENCRYPTION_INTER_NODE_TRANSPARENT",), off)
    return expect(on, "traffic between nodes is not encrypted by GKE", setting)


@check(
    "gcp-gar-cmek",
    Severity.LOW,
    controls=_AT_REST,
    fix="A key can be chosen only when a repository is created: `gcloud artifacts repositories create REPOSITORY "
    "--kms-key projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY`.",
    refs=("checkov:CKV_GCP_84",),
    on=False,
)
def gar_cmek(r: ArtifactRepository) -> Verdict:
    """(Enable if required) Artifact Registry repositories should be encrypted with a customer-managed key

    Images are always encrypted, by default with keys that Google manages. A key of your own is needed only where rules
    demand it, so the check is off unless selected.
    """
    key = r.text("kmsKeyName")
    return expect(bool(key.value), "images are encrypted with a key that Google manages", key)
