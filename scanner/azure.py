"""Azure's resources as checks see them: which of their fields are kept, and what an absent one means there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from scanner.cloud import CloudPart, CloudResource, Facts, Setting
from scanner.model import Gap, GapReason, MissingEvidence


class AksCluster(CloudResource, kw_only=True, tag="aks"):
    """Microsoft.ContainerService/managedClusters. Beside it: diagnosticSettings, kubernetesVersions."""

    provider = "azure"
    group = "Microsoft.ContainerService"
    kind = "managedClusters"
    scope_name = "cluster"
    inside = True
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "sku.name": "Base",
        "sku.tier": "Free",
        "properties.enableRBAC": True,
        "properties.publicNetworkAccess": "Enabled",
        "properties.supportPlan": "KubernetesOfficial",
        "properties.autoUpgradeProfile.upgradeChannel": "none",
        "properties.networkProfile.networkDataplane": "azure",
        "properties.nodeResourceGroupProfile.restrictionLevel": "Unrestricted",
        "properties.servicePrincipalProfile.clientId": "msi",
    }
    KEEP = (
        "sku.name",
        "sku.tier",
        "properties.provisioningState",
        "properties.powerState.code",
        "properties.kubernetesVersion",
        "properties.currentKubernetesVersion",
        "properties.supportPlan",
        "properties.fqdn",
        "properties.privateFQDN",
        "properties.enableRBAC",
        "properties.disableLocalAccounts",
        "properties.publicNetworkAccess",
        "properties.diskEncryptionSetID",
        "properties.aadProfile.managed",
        "properties.aadProfile.enableAzureRBAC",
        "properties.addonProfiles.*.enabled",
        "properties.addonProfiles.*.config.enableSecretRotation",
        "properties.agentPoolProfiles.name",
        "properties.agentPoolProfiles.osType",
        "properties.agentPoolProfiles.enableNodePublicIP",
        "properties.agentPoolProfiles.enableEncryptionAtHost",
        "properties.agentPoolProfiles.enableFIPS",
        "properties.agentPoolProfiles.securityProfile",
        "properties.apiServerAccessProfile",
        "properties.autoUpgradeProfile",
        "properties.azureMonitorProfile.containerInsights.enabled",
        "properties.azureMonitorProfile.metrics.enabled",
        "properties.enableFIPS",
        "properties.networkProfile.networkPolicy",
        "properties.networkProfile.networkDataplane",
        "properties.networkProfile.networkPlugin",
        "properties.nodeResourceGroupProfile.restrictionLevel",
        "properties.oidcIssuerProfile.enabled",
        "properties.podIdentityProfile.enabled",
        "properties.securityProfile",
        "properties.servicePrincipalProfile.clientId",
    )

    @property
    def unjudged(self) -> str:
        return "lifecycle" if self.text("properties.provisioningState").equals("Creating", "Deleting") else ""

    def addon(self, name: str) -> Facts:
        """One add-on's profile. The case of its key depends on the tool that created it."""
        addons = self.part("properties.addonProfiles")
        key = next((key for key in addons.wire if key.casefold() == name.casefold()), name)
        return addons.part(key)

    def components(self) -> Iterator[AksNodePool]:
        pools = self.parts("properties.agentPoolProfiles")
        if not pools and not self.text("sku.name").equals("Automatic"):  # there Azure may keep the only pool to itself
            detail = "Azure named no node pool"
            raise MissingEvidence(Gap(what="agentPoolProfiles", reason=GapReason.BAD_DATA, detail=detail))
        for pool in pools:
            name = pool.text("name").value
            yield AksNodePool(wire=pool.wire, path=pool.path, name=name, owner=self)


class AksNodePool(CloudPart, kw_only=True):
    """One of a managed cluster's agentPoolProfiles."""

    kind = "managedClusters/agentPools"
    scope_name = "node_pool"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"osType": "Linux", "securityProfile.sshAccess": "LocalUser"}


AksCluster.PARTS = (AksNodePool,)


class ContainerRegistry(CloudResource, kw_only=True, tag="acr"):
    """Microsoft.ContainerRegistry/registries."""

    provider = "azure"
    group = "Microsoft.ContainerRegistry"
    kind = "registries"
    scope_name = "registry"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "properties.publicNetworkAccess": "Enabled",
        "properties.networkRuleSet.defaultAction": "Allow",
        "properties.networkRuleBypassOptions": "AzureServices",
        "properties.encryption.status": "disabled",
        "properties.policies.azureADAuthenticationAsArmPolicy.status": "enabled",
        "properties.policies.exportPolicy.status": "enabled",
        "properties.policies.quarantinePolicy.status": "disabled",
        "properties.policies.trustPolicy.status": "disabled",
        "properties.policies.retentionPolicy.status": "disabled",
        "properties.zoneRedundancy": "Disabled",
    }
    KEEP = (
        "sku.name",
        "sku.tier",
        "properties.provisioningState",
        "properties.adminUserEnabled",
        "properties.anonymousPullEnabled",
        "properties.publicNetworkAccess",
        "properties.networkRuleBypassOptions",
        "properties.networkRuleSet",
        "properties.encryption",
        "properties.policies",
        "properties.privateEndpointConnections.name",
        "properties.privateEndpointConnections.properties.privateLinkServiceConnectionState.status",
        "properties.zoneRedundancy",
    )

    @property
    def unjudged(self) -> str:
        return "lifecycle" if self.text("properties.provisioningState").equals("Creating", "Deleting") else ""


class ArcCluster(CloudResource, kw_only=True, tag="arc"):
    """Microsoft.Kubernetes/connectedClusters: a cluster elsewhere, connected to Azure. Beside it: extensions."""

    provider = "azure"
    group = "Microsoft.Kubernetes"
    kind = "connectedClusters"
    scope_name = "cluster"
    KEEP = (
        "properties.provisioningState",
        "properties.distribution",
        "properties.infrastructure",
        "properties.connectivityStatus",
        "properties.lastConnectivityTime",
        "properties.kubernetesVersion",
    )

    @property
    def unjudged(self) -> str:
        return "lifecycle" if self.text("properties.provisioningState").equals("Deleting") else ""

    def extension(self, type: str) -> Setting[str]:
        """The provisioning state of the extension of a type, that of a working one where there are several."""
        installed = [e for e in self.listed("extensions") if e.text("properties.extensionType").equals(type)]
        states = [e.text("properties.provisioningState") for e in installed]
        none: Setting[str] = Setting(f"extensions[{type}].properties.provisioningState", None, "")
        return next((s for s in states if s.equals("Succeeded")), states[0] if states else none)


class AzureSubscription(CloudResource, kw_only=True, tag="subscription"):
    """An Azure subscription. Beside it: pricings (the Defender plans), and the container resources that it holds."""

    provider = "azure"
    group = "Microsoft.Resources"
    kind = "subscriptions"
    scope_name = "account"
    KEEP = ("displayName", "state")


class SecurityConnector(CloudResource, kw_only=True, tag="connector"):
    """Microsoft.Security/securityConnectors: an account of another cloud or registry, connected to Defender."""

    provider = "azure"
    group = "Microsoft.Security"
    kind = "securityConnectors"
    scope_name = "connector"
    KEEP = (
        "properties.environmentName",
        "properties.hierarchyIdentifier",
        "properties.environmentData.organizationalData.organizationMembershipType",
        "properties.environmentData.organizationalData.excludedAccountIds",
        "properties.environmentData.organizationalData.excludedProjectNumbers",
        "properties.environmentData.projectDetails.projectId",
        "properties.offerings",
    )
