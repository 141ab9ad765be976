"""Google Cloud's resources as checks see them: which of their fields are kept, and what an absent one means there.

Kinds are named as in Cloud Asset Inventory. Names are those of the REST API, which gcloud shows too. A plain flag that
is false is not sent, so there absent is false. A value of an enum that is too new for the client library comes as a
number: a check that needs it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from scanner import cloud
from scanner.cloud import CloudPart, CloudResource, Setting
from scanner.model import Evidence, Gap, GapReason, MissingEvidence

T = TypeVar("T")

# Documents in which Google says what is always on in Autopilot clusters.
COMPARISON = "Compare features in Autopilot and Standard clusters"
WORKLOAD_IDENTITY = "Authenticate to Google Cloud APIs from GKE workloads"


def stated(setting: Setting[T]) -> Setting[T]:
    """The setting; raises MissingEvidence where Google did not send it and documents no value for that."""
    return cloud.stated(setting, "Google")


def is_one_of(setting: Setting[str], good: Iterable[str], bad: Iterable[str]) -> bool:
    """Whether it is one of the good words; raises MissingEvidence where it is none of the bad ones either."""
    if setting.equals(*good):
        return True
    if setting.equals(*bad):
        return False
    detail = f"{setting.path} is {setting.value[:60]!r}, which is no known value"
    raise MissingEvidence(Gap(what=setting.path, reason=GapReason.BAD_DATA, detail=detail))


class GkeCluster(CloudResource, kw_only=True, tag="gke"):
    """google.container.v1.Cluster."""

    provider = "gcp"
    group = "container.googleapis.com"
    kind = "container.googleapis.com/Cluster"
    scope_name = "cluster"
    inside = True
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "autoscaling.autoprovisioningNodePoolDefaults.serviceAccount": "default",
        "binaryAuthorization.evaluationMode": "DISABLED",
        "loggingService": "logging.googleapis.com/kubernetes",
        "monitoringService": "monitoring.googleapis.com/kubernetes",
        "networkConfig.datapathProvider": "LEGACY_DATAPATH",
        "rbacBindingConfig.enableInsecureBindingSystemAuthenticated": True,
        "rbacBindingConfig.enableInsecureBindingSystemUnauthenticated": True,
    }
    KEEP = (
        "status",
        "currentMasterVersion",
        "endpoint",
        "addonsConfig.kubernetesDashboard.disabled",
        "addonsConfig.networkPolicyConfig.disabled",
        "anonymousAuthenticationConfig.mode",
        "authenticatorGroupsConfig.enabled",
        "autopilot.enabled",
        "autoscaling.enableNodeAutoprovisioning",
        "autoscaling.autoprovisioningNodePoolDefaults.insecureKubeletReadonlyPortEnabled",
        "autoscaling.autoprovisioningNodePoolDefaults.management.autoRepair",
        "autoscaling.autoprovisioningNodePoolDefaults.management.autoUpgrade",
        "autoscaling.autoprovisioningNodePoolDefaults.serviceAccount",
        "binaryAuthorization.enabled",
        "binaryAuthorization.evaluationMode",
        "confidentialNodes.enabled",
        "controlPlaneEndpointsConfig.dnsEndpointConfig.allowExternalTraffic",
        "controlPlaneEndpointsConfig.dnsEndpointConfig.endpoint",
        "controlPlaneEndpointsConfig.ipEndpointsConfig.authorizedNetworksConfig",
        "controlPlaneEndpointsConfig.ipEndpointsConfig.enabled",
        "controlPlaneEndpointsConfig.ipEndpointsConfig.enablePublicEndpoint",
        "databaseEncryption.currentState",
        "databaseEncryption.keyName",
        "databaseEncryption.state",
        "enableKubernetesAlpha",
        "ipAllocationPolicy.useIpAliases",
        "legacyAbac.enabled",
        "loggingConfig.componentConfig.enableComponents",
        "loggingService",
        "masterAuth.clientCertificate",
        "masterAuth.clientCertificateConfig.issueClientCertificate",
        "masterAuth.username",
        "masterAuthorizedNetworksConfig",
        "monitoringConfig.componentConfig.enableComponents",
        "monitoringService",
        "networkConfig.datapathProvider",
        "networkConfig.defaultEnablePrivateNodes",
        "networkConfig.enableIntraNodeVisibility",
        "networkConfig.inTransitEncryptionConfig",
        "networkPolicy.enabled",
        "nodePoolAutoConfig.nodeKubeletConfig.insecureKubeletReadonlyPortEnabled",
        "nodePoolDefaults.nodeConfigDefaults.nodeKubeletConfig.insecureKubeletReadonlyPortEnabled",
        "nodePools.name",
        "nodePools.config.accelerators.acceleratorType",
        "nodePools.config.bootDiskKmsKey",
        "nodePools.config.confidentialNodes.enabled",
        "nodePools.config.imageType",
        "nodePools.config.kubeletConfig.insecureKubeletReadonlyPortEnabled",
        "nodePools.config.metadata.disable-legacy-endpoints",
        "nodePools.config.oauthScopes",
        "nodePools.config.sandboxConfig.type",
        "nodePools.config.serviceAccount",
        "nodePools.config.shieldedInstanceConfig",
        "nodePools.config.workloadMetadataConfig.mode",
        "nodePools.management.autoRepair",
        "nodePools.management.autoUpgrade",
        "nodePools.networkConfig.enablePrivateNodes",
        "privateClusterConfig.enablePrivateEndpoint",
        "privateClusterConfig.enablePrivateNodes",
        "rbacBindingConfig",
        "releaseChannel.channel",
        "securityPostureConfig",
        "shieldedNodes.enabled",
        "workloadIdentityConfig.workloadPool",
    )

    @property
    def unjudged(self) -> str:
        return "lifecycle" if self.text("status").equals("PROVISIONING", "STOPPING") else ""

    @property
    def is_autopilot(self) -> bool:
        return self.flag("autopilot.enabled").value

    def always_on(self, document: str) -> Evidence | None:
        """For what Google fixes in Autopilot clusters, where it says so; None in other clusters."""
        if not self.is_autopilot:
            return None
        return Evidence("autopilot.enabled", f"true, always on according to Google: {document}")

    def names(self, path: str) -> Setting[tuple[str, ...]]:
        """A list of an enum's values, without those that are too new to have a name."""
        items = self.get(path)
        if isinstance(items, list) and all(type(item) in (str, int) for item in items):
            return Setting(path, tuple(item for item in items if isinstance(item, str)), ())
        return self.words(path)

    @property
    def makes_pools(self) -> bool:
        """Whether GKE makes node pools as workloads need them."""
        return self.is_autopilot or self.flag("autoscaling.enableNodeAutoprovisioning").value

    def in_every_pool(self, path: str) -> tuple[bool, list[Evidence]]:
        """Whether a flag is on in every node pool, and what says so, with what pools get that GKE makes by itself.

        Raises MissingEvidence where it is on in all that could be understood, but not in all there are.
        """
        pools = list(self.components())
        off = cloud.wrong(pools, lambda pool: _off(pool.flag(path)))
        shown = off or [pool.flag(path).evidence for pool in pools]
        made = [self.flag(f"autoscaling.autoprovisioningNodePoolDefaults.{path}").evidence] if self.makes_pools else []
        return not off, shown + made

    def components(self) -> Iterator[GkeNodePool]:
        for pool in self.parts("nodePools"):
            yield GkeNodePool(wire=pool.wire, path=pool.path, name=pool.text("name").value, owner=self)


def _off(setting: Setting[bool]) -> list[Evidence]:
    return [] if setting.value else [setting.evidence]


class GkeNodePool(CloudPart, kw_only=True):
    """google.container.v1.NodePool, as a cluster lists it."""

    owner: GkeCluster
    kind = "container.googleapis.com/NodePool"
    scope_name = "node_pool"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"config.serviceAccount": "default"}


GkeCluster.PARTS = (GkeNodePool,)


class ArtifactRepository(CloudResource, kw_only=True, tag="gar"):
    """google.devtools.artifactregistry.v1.Repository. Beside it: iamPolicy, of one entry with its `bindings`."""

    provider = "gcp"
    group = "artifactregistry.googleapis.com"
    kind = "artifactregistry.googleapis.com/Repository"
    scope_name = "repository"
    KEEP = (
        "format",
        "mode",
        "dockerConfig.immutableTags",
        "kmsKeyName",
        "vulnerabilityScanningConfig.enablementConfig",
        "vulnerabilityScanningConfig.enablementState",
        "vulnerabilityScanningConfig.enablementStateReason",
    )
