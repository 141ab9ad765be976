"""Google Cloud's resources as checks see them: which of their fields are kept, and what an absent one means there.

Kinds are named as in Cloud Asset Inventory. Names are those of the REST API, which gcloud shows too. A plain flag that
is false is not sent, so there absent is false. A value of an enum that is too new for the client library comes as a
number: a check that needs it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from scanner import cloud
from scanner.cloud import CloudPart, CloudResource, Facts, Json, Setting
from scanner.model import Evidence, Gap, GapReason, MissingEvidence

T = TypeVar("T")

# Whom IAM takes for everyone, in lower case: it does not mind the case.
_EVERYONE = ("allusers", "allauthenticatedusers", "principalset://goog/public:all")
_NEW_POOLS = "autoscaling.autoprovisioningNodePoolDefaults"
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
        "controlPlaneEndpointsConfig.dnsEndpointConfig.enableK8sCertsViaDns",
        "controlPlaneEndpointsConfig.dnsEndpointConfig.enableK8sTokensViaDns",
        "controlPlaneEndpointsConfig.dnsEndpointConfig.endpoint",
        "controlPlaneEndpointsConfig.ipEndpointsConfig.authorizedNetworksConfig",
        "controlPlaneEndpointsConfig.ipEndpointsConfig.enabled",
        "controlPlaneEndpointsConfig.ipEndpointsConfig.enablePublicEndpoint",
        "databaseEncryption.currentState",
        "databaseEncryption.keyName",
        "databaseEncryption.state",
        "enableKubernetesAlpha",
        "ipAllocationPolicy.useIpAliases",
        "ipAllocationPolicy.useRoutes",
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
        """For what Google fixes in Autopilot clusters, where it says so; None in other clusters. What Google sent goes
        before it: an Autopilot cluster may have Standard node pools."""
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

    def in_every_pool(self, path: str, document: str) -> tuple[bool, list[Evidence]]:
        """Whether a flag is on in every node pool, and in those that GKE makes by itself, and what says so; the latter
        is empty where there are none.

        Raises MissingEvidence where it is on in all that could be understood, but not in all there are.
        """
        places: list[tuple[Facts, str]] = [(pool, path) for pool in self.components()]
        if self.makes_pools:
            places.append((self, f"{_NEW_POOLS}.{path}"))
        off = cloud.wrong(places, lambda place: [] if (flag := self._is_on(*place, document))[0] else [flag[1]])
        shown = off or [self._is_on(*place, document)[1] for place in places]
        return not off, list(dict.fromkeys(shown))

    def _is_on(self, facts: Facts, path: str, document: str) -> tuple[bool, Evidence]:
        """Raises MissingEvidence where nothing is said of new pools either: Google documents no default of that."""
        if always := guaranteed(facts, path, document):
            return True, always
        flag = facts.flag(path)
        if facts is self and self.get(path.rpartition(".")[0]) is None:
            stated(flag)
        return flag.value, flag.evidence

    def components(self) -> Iterator[GkeNodePool]:
        for pool in self.parts("nodePools"):
            yield GkeNodePool(wire=pool.wire, path=pool.path, name=pool.text("name").value, owner=self)


class GkeNodePool(CloudPart, kw_only=True):
    """google.container.v1.NodePool, as a cluster lists it."""

    owner: GkeCluster
    kind = "container.googleapis.com/NodePool"
    scope_name = "node_pool"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"config.serviceAccount": "default"}


GkeCluster.PARTS = (GkeNodePool,)


def guaranteed(facts: Facts, path: str, document: str) -> Evidence | None:
    """What Google fixes in Autopilot clusters, for a field of a cluster or a pool that was not sent; else None.

    Raises MissingEvidence where the object was sent in which the field would be: it is off there, as in Standard pools
    of Autopilot clusters, or it was withheld.
    """
    cluster = facts.owner if isinstance(facts, GkeNodePool) else facts
    always = cluster.always_on(document) if isinstance(cluster, GkeCluster) else None
    if always is None or facts.get(path) is not None:
        return None
    holder, _, name = path.rpartition(".")
    if facts.get(holder) is not None:
        sent = facts.part(holder).path
        detail = (
            f"Google sent {sent} without {name}, which is always on in Autopilot clusters, but not in Standard pools"
        )
        raise MissingEvidence(Gap(what=f"{sent}.{name}", reason=GapReason.BAD_DATA, detail=detail))
    return always


def kept_cluster(wire: Json) -> Json:
    """What checks need of a cluster; of its password and its certificate no more than that they are set."""
    found = cloud.kept(wire, GkeCluster.KEEP)
    auth = found.get("masterAuth")
    if isinstance(auth, dict):
        found["masterAuth"] = auth | {key: "set" for key in ("clientCertificate", "username") if auth.get(key)}
    return found


def kept_policy(policy: Json) -> Json:
    """What checks need of an IAM policy: the members that stand for everyone, and how many others there are, who may
    be people. Its `bindings` must be understood."""
    return {"bindings": [_kept_binding(binding) for binding in policy["bindings"]]} if "bindings" in policy else {}


def _kept_binding(binding: Json) -> Json:
    everyone = [member for member in binding["members"] if is_everyone(member)]
    others = len(binding["members"]) - len(everyone)
    return cloud.kept(binding, ("role", "condition.expression")) | {"members": everyone, "otherMembers": others}


def is_everyone(member: str) -> bool:
    return member.strip().casefold() in _EVERYONE


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
