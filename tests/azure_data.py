"""What Azure Resource Manager answers, as it is on the wire: full-size, camelCase, with Azure's own inconsistencies.

    good = cluster("aks-1", subscription=PROD, location="koreacentral")            # no rule complains
    open_ = cluster("aks-2", properties={"apiServerAccessProfile": ABSENT})        # changes merge; ABSENT removes a key
    nodes = cluster("aks-3", properties={"agentPoolProfiles": [pool("system"), pool("user", enableNodePublicIP=True)]})
    estate = sample_estate()                                                       # for ArmServer

Every function that makes something takes changes by the names of its outermost keys; mappings merge, all else replaces.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

TENANT = "5e3ce6c0-2b1f-4285-8d4b-75ee78787346"
PROD = "1b8c0f4e-6a55-4c0d-9b39-0f6d3f6f0a01"
DEV = "2c9d1a5f-7b66-4d1e-8c4a-1a7e4a7a1b02"
AKS_SERVER_ID = "6dae42f8-4368-4678-94ff-3960e28e3630"  # the Entra application of every AKS API server
ABSENT = object()

# What the answers below hold that no report may show.
PROXY_PASSWORD = "Pr0xy-s3cret"
WORKSPACE_KEY = "d29ya3NwYWNlLWtleS1mb3ItdGVzdHM="
CLIENT_KEY = b"client key of a local account, for tests"
LOCAL_TOKEN = "0123456789abcdef-local-account-token"
SECRETS = (PROXY_PASSWORD, WORKSPACE_KEY, base64.b64encode(CLIENT_KEY).decode(), LOCAL_TOKEN)

VERSION = "1.34.2"
LOCATIONS = ("koreacentral", "westeurope", "eastus2")
_TIME = "2026-03-02T09:15:27.0418264Z"
_AGENT_KEY = base64.b64encode(b"public key of the Arc agent" * 9).decode()
_SSH_KEY = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ" + "C7vK9pQ2mX4tR8" * 24 + "= azureuser@example"
_SUBNET = "/subscriptions/{}/resourceGroups/rg-network/providers/Microsoft.Network/virtualNetworks/vnet-hub/subnets/{}"


def merged(base: Object, changes: Mapping[str, Any]) -> Object:
    """A copy of `base` with the changes laid over it; what is changed to ABSENT is left out."""
    result = {key: merged(value, {}) if isinstance(value, dict) else value for key, value in base.items()}
    for key, value in changes.items():
        old = result.get(key)
        if value is ABSENT:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = merged(old if isinstance(old, dict) else {}, value)
        else:
            result[key] = value
    return result


def guid(*parts: object) -> str:
    """The same parts always give the same GUID."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(map(str, parts))))


def _group(subscription: str, name: str, spelling: str = "resourceGroups") -> str:
    return f"/subscriptions/{subscription}/{spelling}/{name}"


def _system_data(author: str = "platform@example.com", kind: str = "User") -> Object:
    return {
        "createdBy": author,
        "createdByType": kind,
        "createdAt": _TIME,
        "lastModifiedBy": author,
        "lastModifiedByType": kind,
        "lastModifiedAt": _TIME,
    }


# ---------------------------------------------------------------------------------------------------------------------
# Managed clusters


def pool(name: str = "system", **changes: Any) -> Object:
    """A good Linux node pool."""
    mode = "System" if name == "system" else "User"
    good: Object = {
        "name": name,
        "count": 3,
        "vmSize": "Standard_D4ds_v5",
        "osDiskSizeGB": 150,
        "osDiskType": "Ephemeral",
        "kubeletDiskType": "OS",
        "workloadRuntime": "OCIContainer",
        "vnetSubnetID": _SUBNET.format(PROD, "snet-aks-nodes"),
        "maxPods": 110,
        "type": "VirtualMachineScaleSets",
        "availabilityZones": ["1", "2", "3"],
        "maxCount": 6,
        "minCount": 3,
        "enableAutoScaling": True,
        "scaleDownMode": "Delete",
        "provisioningState": "Succeeded",
        "powerState": {"code": "Running"},
        "orchestratorVersion": VERSION,
        "currentOrchestratorVersion": VERSION,
        "enableNodePublicIP": False,
        "nodeLabels": {"example.com/team": "platform"},
        "nodeTaints": ["CriticalAddonsOnly=true:NoSchedule"] if mode == "System" else [],
        "mode": mode,
        "enableEncryptionAtHost": True,
        "enableUltraSSD": False,
        "osType": "Linux",
        "osSKU": "AzureLinux",
        "nodeImageVersion": "AKSAzureLinux-V3gen2fips-202608.05.0",
        "upgradeSettings": {"maxSurge": "10%", "maxUnavailable": "0"},
        "enableFIPS": True,
        "networkProfile": {},
        "securityProfile": {"sshAccess": "Disabled", "enableVTPM": True, "enableSecureBoot": True},
        "eTag": guid("pool", name),
    }
    return merged(good, changes)


def bad_pool(name: str = "user", **changes: Any) -> Object:
    """A Linux node pool with everything off, as `az aks nodepool add` made them for years."""
    bad = {
        "enableNodePublicIP": True,
        "enableEncryptionAtHost": False,
        "enableFIPS": False,
        "osSKU": "Ubuntu",
        "nodeImageVersion": "AKSUbuntu-2204gen2containerd-202608.05.0",
        "securityProfile": {"sshAccess": "LocalUser", "enableVTPM": False, "enableSecureBoot": False},
    }
    return merged(pool(name, **bad), changes)


def windows_pool(name: str = "win", **changes: Any) -> Object:
    windows = {
        "osType": "Windows",
        "osSKU": "Windows2022",
        "osDiskType": "Managed",
        "nodeImageVersion": "AKSWindows-2022-containerd-20348.4052.260811",
        "windowsProfile": {"disableOutboundNat": False},
        "enableEncryptionAtHost": False,
        "enableFIPS": False,
        "securityProfile": ABSENT,  # not there on Windows
    }
    return merged(pool(name, **windows), changes)


def cluster(
    name: str,
    *,
    subscription: str = PROD,
    location: str = "koreacentral",
    resource_group: str = "rg-kubernetes",
    **changes: Any,
) -> Object:
    """A cluster with which no rule finds fault: private, Entra only, two pools."""
    # AKS writes "resourcegroups" and "ManagedClusters" where its own paths say otherwise.
    home = _group(subscription, resource_group, "resourcegroups")
    nodes = f"MC_{resource_group}_{name}_{location}"
    good = {
        "id": f"{home}/providers/Microsoft.ContainerService/managedClusters/{name}",
        "name": name,
        "type": "Microsoft.ContainerService/ManagedClusters",
        "location": location,
        "kind": "Base",
        "eTag": guid("cluster", home, name),
        "tags": {"environment": "production", "cost-center": "4711"},
        "sku": {"name": "Base", "tier": "Standard"},
        "identity": {
            "type": "SystemAssigned",
            "principalId": guid("principal", home, name),
            "tenantId": TENANT,
        },
        "systemData": _system_data(),
        "properties": _properties(name, subscription, location, nodes),
    }
    return merged(good, changes)


def _properties(name: str, subscription: str, location: str, nodes: str) -> Object:
    dns = f"{name}-{guid('dns', subscription, name)[:8]}"
    return {
        "provisioningState": "Succeeded",
        "powerState": {"code": "Running"},
        "kubernetesVersion": VERSION,
        "currentKubernetesVersion": VERSION,
        "dnsPrefix": name,
        "privateFQDN": f"{dns}.{guid('zone', subscription)}.privatelink.{location}.azmk8s.io",
        "azurePortalFQDN": f"{guid('portal', dns)[:12]}-priv.portal.hcp.{location}.azmk8s.io",
        "agentPoolProfiles": [pool("system"), pool("user")],
        "linuxProfile": {"adminUsername": "azureuser", "ssh": {"publicKeys": [{"keyData": _SSH_KEY}]}},
        "windowsProfile": {"adminUsername": "azureuser", "enableCSIProxy": True},
        "servicePrincipalProfile": {"clientId": "msi"},
        "addonProfiles": _addons(name, subscription, nodes),
        "oidcIssuerProfile": {
            "enabled": True,
            "issuerURL": f"https://{location}.oic.prod-aks.azure.com/{TENANT}/{guid('issuer', name)}/",
        },
        "nodeResourceGroup": nodes,
        "nodeResourceGroupProfile": {"restrictionLevel": "ReadOnly"},
        "enableRBAC": True,
        "supportPlan": "KubernetesOfficial",
        "enableFIPS": True,
        "networkProfile": _network(subscription, nodes),
        "aadProfile": {
            "managed": True,
            "adminGroupObjectIDs": [guid("admins")],
            "adminUsers": None,
            "enableAzureRBAC": True,
            "tenantID": TENANT,
        },
        "autoUpgradeProfile": {"upgradeChannel": "patch", "nodeOSUpgradeChannel": "NodeImage"},
        "autoScalerProfile": _autoscaler(),
        "apiServerAccessProfile": {
            "enablePrivateCluster": True,
            "privateDNSZone": "system",
            "enablePrivateClusterPublicFQDN": False,
            "disableRunCommand": True,
        },
        "diskEncryptionSetID": f"{_group(subscription, 'rg-keys')}/providers/Microsoft.Compute/diskEncryptionSets/des",
        "identityProfile": {"kubeletidentity": _identity(subscription, nodes, f"{name}-agentpool")},
        "privateLinkResources": [
            {
                "id": f"{_group(subscription, nodes)}/privateLinkResources/management",
                "name": "management",
                "type": "Microsoft.ContainerService/managedClusters/privateLinkResources",
                "groupId": "management",
                "requiredMembers": ["management"],
            }
        ],
        "disableLocalAccounts": True,
        "securityProfile": _security(subscription),
        "storageProfile": {
            "diskCSIDriver": {"enabled": True, "version": "v1"},
            "fileCSIDriver": {"enabled": True},
            "snapshotController": {"enabled": True},
            "blobCSIDriver": {"enabled": False},
        },
        "ingressProfile": {"webAppRouting": {"enabled": False}},
        "workloadAutoScalerProfile": {"keda": {"enabled": True}, "verticalPodAutoscaler": {"enabled": False}},
        "azureMonitorProfile": {
            "metrics": {"enabled": True, "kubeStateMetrics": {"metricLabelsAllowlist": ""}},
            "containerInsights": {"enabled": True, "logAnalyticsWorkspaceResourceId": _workspace(subscription)},
        },
        "resourceUID": guid("uid", subscription, name).replace("-", "")[:24],
        "metricsProfile": {"costAnalysis": {"enabled": True}},
        "nodeProvisioningProfile": {"mode": "Manual", "defaultNodePools": "Auto"},
        "bootstrapProfile": {"artifactSource": "Direct"},
    }


def _addons(name: str, subscription: str, nodes: str) -> Object:
    return {
        "azurepolicy": {
            "enabled": True,
            "config": None,
            "identity": _identity(subscription, nodes, f"azurepolicy-{name}"),
        },
        "azureKeyvaultSecretsProvider": {
            "enabled": True,
            "config": {"enableSecretRotation": "true", "rotationPollInterval": "2m"},
            "identity": _identity(subscription, nodes, f"azurekeyvaultsecretsprovider-{name}"),
        },
        "omsagent": {
            "enabled": True,
            "config": {"logAnalyticsWorkspaceResourceID": _workspace(subscription), "useAADAuth": "true"},
            "identity": _identity(subscription, nodes, f"omsagent-{name}"),
        },
        "kubeDashboard": {"enabled": False, "config": None},
    }


def _identity(subscription: str, group: str, name: str) -> Object:
    home = _group(subscription, group, "resourcegroups")
    return {
        "resourceId": f"{home}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}",
        "clientId": guid("client", home, name),
        "objectId": guid("object", home, name),
    }


def _workspace(subscription: str) -> str:
    home = _group(subscription, "rg-monitoring")
    return f"{home}/providers/Microsoft.OperationalInsights/workspaces/log-central"


def _network(subscription: str, nodes: str) -> Object:
    address = guid("outbound", subscription, nodes)
    outbound = f"{_group(subscription, nodes)}/providers/Microsoft.Network/publicIPAddresses/{address}"
    return {
        "networkPlugin": "azure",
        "networkPluginMode": "overlay",
        "networkPolicy": "cilium",
        "networkDataplane": "cilium",
        "advancedNetworking": {
            "enabled": True,
            "observability": {"enabled": True},
            "security": {"enabled": True, "advancedNetworkPolicies": "FQDN"},
        },
        "loadBalancerSku": "standard",
        "loadBalancerProfile": {
            "managedOutboundIPs": {"count": 1},
            "effectiveOutboundIPs": [{"id": outbound}],
            "backendPoolType": "nodeIPConfiguration",
        },
        "podCidr": "10.244.0.0/16",
        "serviceCidr": "10.0.0.0/16",
        "dnsServiceIP": "10.0.0.10",
        "outboundType": "loadBalancer",
        "podCidrs": ["10.244.0.0/16"],
        "serviceCidrs": ["10.0.0.0/16"],
        "ipFamilies": ["IPv4"],
        "podLinkLocalAccess": "IMDS",
    }


def _security(subscription: str) -> Object:
    vault = f"{_group(subscription, 'rg-keys')}/providers/Microsoft.KeyVault/vaults/kv-etcd"
    return {
        "defender": {
            "logAnalyticsWorkspaceResourceId": _workspace(subscription),
            "securityMonitoring": {"enabled": True},
            "securityGating": {"enabled": True, "identities": []},
        },
        "azureKeyVaultKms": {
            "enabled": True,
            "keyId": "https://kv-etcd.vault.azure.net/keys/etcd/0c1d2e3f405162738495a6b7c8d9eafb",
            "keyVaultNetworkAccess": "Private",
            "keyVaultResourceId": vault,
        },
        "workloadIdentity": {"enabled": True},
        "imageCleaner": {"enabled": True, "intervalHours": 168},
    }


def _autoscaler() -> Object:
    return {
        "balance-similar-node-groups": "false",
        "daemonset-eviction-for-empty-nodes": False,
        "daemonset-eviction-for-occupied-nodes": True,
        "expander": "random",
        "ignore-daemonsets-utilization": False,
        "max-empty-bulk-delete": "10",
        "max-graceful-termination-sec": "600",
        "max-node-provision-time": "15m",
        "max-total-unready-percentage": "45",
        "new-pod-scale-up-delay": "0s",
        "ok-total-unready-count": "3",
        "scale-down-delay-after-add": "10m",
        "scale-down-delay-after-delete": "10s",
        "scale-down-delay-after-failure": "3m",
        "scale-down-unneeded-time": "10m",
        "scale-down-unready-time": "20m",
        "scale-down-utilization-threshold": "0.5",
        "scan-interval": "10s",
        "skip-nodes-with-local-storage": "false",
        "skip-nodes-with-system-pods": "true",
    }


def private_cluster(name: str = "aks-private", **place: str) -> Object:
    return cluster(name, **place)


def public_cluster(name: str = "aks-public", **place: str) -> Object:
    """Open to the world, with everything off: what `az aks create` gives without options."""
    location = place.get("location", "koreacentral")
    off = {
        "fqdn": f"{name}-dns.hcp.{location}.azmk8s.io",
        "privateFQDN": ABSENT,
        "azurePortalFQDN": f"{name}-dns.portal.hcp.{location}.azmk8s.io",
        "agentPoolProfiles": [pool("system"), bad_pool("user")],
        "addonProfiles": ABSENT,
        "oidcIssuerProfile": {"enabled": False, "issuerURL": ABSENT},
        "nodeResourceGroupProfile": ABSENT,
        "enableFIPS": ABSENT,
        "networkProfile": {"networkPolicy": "none", "networkDataplane": "azure", "advancedNetworking": ABSENT},
        "aadProfile": ABSENT,
        "autoUpgradeProfile": {"upgradeChannel": ABSENT, "nodeOSUpgradeChannel": "Unmanaged"},
        "apiServerAccessProfile": ABSENT,
        "diskEncryptionSetID": ABSENT,
        "privateLinkResources": ABSENT,
        "disableLocalAccounts": False,
        "securityProfile": dict.fromkeys(("defender", "azureKeyVaultKms", "workloadIdentity", "imageCleaner"), ABSENT),
        "azureMonitorProfile": ABSENT,
    }
    return cluster(name, sku={"tier": "Free"}, tags=ABSENT, properties=off, **place)


def entra_cluster(name: str = "aks-entra", **place: str) -> Object:
    """Public, but only for some addresses; no local accounts. One add-on in the spelling of another tool."""
    location = place.get("location", "koreacentral")
    access = {
        "enablePrivateCluster": False,
        "privateDNSZone": ABSENT,
        "enablePrivateClusterPublicFQDN": ABSENT,
        "authorizedIPRanges": ["203.0.113.0/24", "198.51.100.7"],
        "enableVnetIntegration": True,
    }
    properties = {
        "fqdn": f"{name}-dns.hcp.{location}.azmk8s.io",
        "privateFQDN": ABSENT,
        "privateLinkResources": ABSENT,
        "apiServerAccessProfile": access,
        "addonProfiles": {"azurepolicy": ABSENT, "azurePolicy": {"enabled": True, "config": {"version": "v2"}}},
        "agentPoolProfiles": [pool("system"), pool("user", securityProfile={"sshAccess": "EntraId"})],
    }
    return cluster(name, properties=properties, **place)


def windows_cluster(name: str = "aks-windows", **place: str) -> Object:
    """With a Windows pool, and a proxy whose address holds a password."""
    proxy = f"http://proxyuser:{PROXY_PASSWORD}@proxy.corp.example:3128/"
    properties = {
        "agentPoolProfiles": [pool("system"), windows_pool("win")],
        "windowsProfile": {"licenseType": "Windows_Server", "gmsaProfile": {"enabled": False}},
        "networkProfile": {"networkPolicy": "calico", "networkDataplane": "azure", "advancedNetworking": ABSENT},
        "httpProxyConfig": {
            "httpProxy": proxy,
            "httpsProxy": proxy,
            "noProxy": ["localhost", "127.0.0.1", "10.0.0.0/8", "168.63.129.16", ".corp.example"],
            "trustedCa": base64.b64encode(b"certificate of the corporate proxy").decode(),
        },
    }
    return cluster(name, properties=properties, **place)


def legacy_cluster(name: str = "aks-legacy", **place: str) -> Object:
    """From years ago: kubenet, a service principal, pod identity, a version that is no longer supported."""
    old = {"orchestratorVersion": "1.27.9", "currentOrchestratorVersion": "1.27.9"}
    last = bad_pool("user", vmSize="Standard_DS2_v2", osDiskType="Managed")
    properties = {
        "kubernetesVersion": "1.27",
        "currentKubernetesVersion": "1.27.9",
        "agentPoolProfiles": [pool("system") | old, last | old],
        "servicePrincipalProfile": {"clientId": guid("service-principal", name)},
        "podIdentityProfile": {"enabled": True, "allowNetworkPluginKubenet": True},
        "addonProfiles": {
            "httpApplicationRouting": {
                "enabled": True,
                "config": {"HTTPApplicationRoutingZoneName": f"{name}.westeurope.aksapp.io"},
            },
            "kubeDashboard": {"enabled": True, "config": None},
            "azureKeyvaultSecretsProvider": {"enabled": True, "config": {"enableSecretRotation": "false"}},
        },
        "networkProfile": {
            "networkPlugin": "kubenet",
            "networkPluginMode": ABSENT,
            "networkDataplane": ABSENT,
            "loadBalancerSku": "Basic",
            "dockerBridgeCidr": "172.17.0.1/16",
        },
        "autoUpgradeProfile": ABSENT,
        "identityProfile": ABSENT,
    }
    return merged(public_cluster(name, **place), {"identity": ABSENT, "properties": properties})


def null_cluster(name: str = "aks-nulls", **place: str) -> Object:
    """Few fields, and null where others have an object, a list or a text."""
    shape = cluster(name, **place)
    properties = _nulls(
        shape["properties"],
        {"provisioningState", "kubernetesVersion", "currentKubernetesVersion", "dnsPrefix", "nodeResourceGroup"},
    )
    named = {"name", "count", "vmSize", "mode", "type", "provisioningState"}
    properties["agentPoolProfiles"] = [_nulls(pool(text), named) for text in ("system", "user")]
    return _nulls(shape, {"id", "name", "type", "location"}) | {"properties": properties}


def _nulls(item: Object, kept: set[str]) -> Object:
    return {key: value if key in kept else None for key, value in item.items()}


def stopped_cluster(name: str = "aks-stopped", **place: str) -> Object:
    pools = [p | {"powerState": {"code": "Stopped"}} for p in (pool("system"), bad_pool("user"))]
    properties = {"powerState": {"code": "Stopped"}, "agentPoolProfiles": pools}
    return cluster(name, properties=properties, **place)


def deleting_cluster(name: str = "aks-deleting", **place: str) -> Object:
    shape = public_cluster(name, **place)
    pools = [p | {"provisioningState": "Deleting"} for p in shape["properties"]["agentPoolProfiles"]]
    return merged(shape, {"properties": {"provisioningState": "Deleting", "agentPoolProfiles": pools}})


VARIANTS: tuple[Callable[..., Object], ...] = (
    private_cluster,
    public_cluster,
    entra_cluster,
    windows_cluster,
    legacy_cluster,
    null_cluster,
    stopped_cluster,
    deleting_cluster,
)

# ---------------------------------------------------------------------------------------------------------------------
# Diagnostic settings

LOG_CATEGORIES = (
    "kube-apiserver",
    "kube-audit",
    "kube-audit-admin",
    "kube-controller-manager",
    "kube-scheduler",
    "cluster-autoscaler",
    "cloud-controller-manager",
    "guard",
    "csi-azuredisk-controller",
    "csi-azurefile-controller",
    "csi-snapshot-controller",
)


def diagnostic_setting(resource_id: str, name: str = "to-workspace", **changes: Any) -> Object:
    """A good one: the audit logs that matter go to a workspace."""
    subscription = resource_id.split("/")[2]
    good = {
        "id": f"{resource_id.lower()}/providers/microsoft.insights/diagnosticSettings/{name}",
        "type": "Microsoft.Insights/diagnosticSettings",
        "name": name,
        "location": None,
        "kind": None,
        "tags": None,
        "properties": {
            "storageAccountId": None,
            "serviceBusRuleId": None,
            "workspaceId": _workspace(subscription),
            "eventHubAuthorizationRuleId": None,
            "eventHubName": None,
            "metrics": [_log("AllMetrics", False)],
            "logs": logs("kube-apiserver", "kube-audit-admin", "guard"),
            "logAnalyticsDestinationType": "Dedicated",
        },
        "identity": None,
    }
    return merged(good, changes)


def bad_diagnostic_setting(resource_id: str, name: str = "to-storage", **changes: Any) -> Object:
    """The scheduler's log for a month in a storage account, and every metric."""
    home = _group(resource_id.split("/")[2], "rg-monitoring")
    kept = {"enabled": True, "days": 30}
    properties = {
        "workspaceId": None,
        "storageAccountId": f"{home}/providers/Microsoft.Storage/storageAccounts/stlogs",
        "metrics": [_log("AllMetrics", True)],
        "logs": [log | {"retentionPolicy": kept} for log in logs("kube-scheduler")],
        "logAnalyticsDestinationType": None,
    }
    return merged(diagnostic_setting(resource_id, name, properties=properties), changes)


def logs(*enabled: str) -> list[Object]:
    """One entry for each category of AKS; those named are enabled."""
    return [_log(category, category in enabled) for category in LOG_CATEGORIES]


def group_logs(group: str, enabled: bool = True) -> list[Object]:
    """What a setting for a whole group of categories holds: "allLogs" or "audit"."""
    return [_log(None, enabled) | {"categoryGroup": group}]


def _log(category: str | None, enabled: bool) -> Object:
    off = {"enabled": False, "days": 0}
    return {"category": category, "categoryGroup": None, "enabled": enabled, "retentionPolicy": off}


# ---------------------------------------------------------------------------------------------------------------------
# Registries


def registry(
    name: str,
    *,
    subscription: str = PROD,
    location: str = "koreacentral",
    resource_group: str = "rg-images",
    **changes: Any,
) -> Object:
    """A Premium registry with which no rule finds fault."""
    home = _group(subscription, resource_group)
    own_id = f"{home}/providers/Microsoft.ContainerRegistry/registries/{name}"
    identity = f"{home}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-{name}"
    good = {
        "id": own_id,
        "name": name,
        "type": "Microsoft.ContainerRegistry/registries",
        "location": location,
        "tags": {"environment": "production"},
        "sku": {"name": "Premium", "tier": "Premium"},
        "identity": {
            "type": "UserAssigned",
            "userAssignedIdentities": {
                identity: {"principalId": guid("principal", identity), "clientId": guid("client", identity)}
            },
        },
        "systemData": _system_data(),
        "properties": {
            "loginServer": f"{name}.azurecr.io",
            "creationDate": _TIME,
            "provisioningState": "Succeeded",
            "adminUserEnabled": False,
            "networkRuleSet": {"defaultAction": "Deny", "ipRules": [{"action": "Allow", "value": "203.0.113.0/24"}]},
            "policies": _registry_policies("enabled", "disabled"),
            "encryption": {
                "status": "enabled",
                "keyVaultProperties": {
                    "keyIdentifier": "https://kv-images.vault.azure.net/keys/acr",
                    "versionedKeyIdentifier": "https://kv-images.vault.azure.net/keys/acr/5f3c1a2b4d6e8f90",
                    "identity": guid("client", identity),
                    "keyRotationEnabled": True,
                    "lastKeyRotationTimestamp": _TIME,
                },
            },
            "dataEndpointEnabled": True,
            "dataEndpointHostNames": [f"{name}.{location}.data.azurecr.io"],
            "privateEndpointConnections": [private_endpoint(own_id, "pe-hub", "Approved")],
            "publicNetworkAccess": "Disabled",
            "networkRuleBypassOptions": "None",
            "zoneRedundancy": "Enabled",
            "anonymousPullEnabled": False,
            "metadataSearch": "Disabled",
        },
    }
    return merged(good, changes)


def basic_registry(name: str = "acrbasic", **place: str) -> Object:
    """A Basic registry with everything open; it has no rules for networks at all."""
    bad = {
        "adminUserEnabled": True,
        "networkRuleSet": ABSENT,
        "policies": _registry_policies("disabled", "enabled"),
        "encryption": {"status": "disabled", "keyVaultProperties": ABSENT},
        "dataEndpointEnabled": False,
        "dataEndpointHostNames": [],
        "privateEndpointConnections": [],
        "publicNetworkAccess": "Enabled",
        "networkRuleBypassOptions": "AzureServices",
        "zoneRedundancy": "Disabled",
        "anonymousPullEnabled": True,
    }
    return registry(name, sku={"name": "Basic", "tier": "Basic"}, identity=ABSENT, properties=bad, **place)


def private_endpoint(registry_id: str, name: str, status: str) -> Object:
    """A connection in the state Approved, Pending, Rejected or Disconnected."""
    home = registry_id.split("/providers/")[0]
    return {
        "id": f"{registry_id}/privateEndpointConnections/{name}",
        "name": name,
        "type": "Microsoft.ContainerRegistry/registries/privateEndpointConnections",
        "properties": {
            "privateEndpoint": {"id": f"{home}/providers/Microsoft.Network/privateEndpoints/{name}"},
            "privateLinkServiceConnectionState": {
                "status": status,
                "description": "Auto-Approved" if status == "Approved" else "",
                "actionsRequired": "None",
            },
            "provisioningState": "Succeeded",
        },
    }


def _registry_policies(content: str, access: str) -> Object:
    return {
        "quarantinePolicy": {"status": content},
        "trustPolicy": {"type": "Notary", "status": content},
        "retentionPolicy": {"days": 7, "lastUpdatedTime": _TIME, "status": content},
        "exportPolicy": {"status": access},
        "azureADAuthenticationAsArmPolicy": {"status": access},
        "softDeletePolicy": {"retentionDays": 7, "lastUpdatedTime": _TIME, "status": "disabled"},
    }


# ---------------------------------------------------------------------------------------------------------------------
# Arc


def connected_cluster(
    name: str,
    distribution: str = "k3s",
    *,
    subscription: str = PROD,
    location: str = "koreacentral",
    resource_group: str = "rg-arc",
    **changes: Any,
) -> Object:
    """A cluster of another cloud or of one's own, connected by Azure Arc."""
    home = _group(subscription, resource_group)
    infrastructure = {"eks": "aws", "gke": "gcp", "aks": "azure"}.get(distribution, "generic")
    shape: Object = {
        "id": f"{home}/providers/Microsoft.Kubernetes/connectedClusters/{name}",
        "name": name,
        "type": "microsoft.kubernetes/connectedclusters",
        "location": location,
        "tags": {},
        "identity": {"type": "SystemAssigned", "principalId": guid("principal", home, name), "tenantId": TENANT},
        "systemData": _system_data(),
        "properties": {
            "provisioningState": "Succeeded",
            "connectivityStatus": "Connected",
            "agentPublicKeyCertificate": _AGENT_KEY,
            "agentVersion": "1.28.5",
            "distribution": distribution,
            "distributionVersion": None,
            "infrastructure": infrastructure,
            "kubernetesVersion": "1.33.4",
            "totalNodeCount": 3,
            "totalCoreCount": 12,
            "lastConnectivityTime": "2026-09-01T06:12:44.109Z",
            "managedIdentityCertificateExpirationTime": "2026-11-02T20:15:00Z",
            "offering": None,
            "azureHybridBenefit": "NotApplicable",
            "privateLinkState": "Disabled",
            "privateLinkScopeResourceId": None,
            "miscellaneousProperties": {},
            "arcAgentProfile": {"agentAutoUpgrade": "Enabled", "agentState": "Succeeded", "agentErrors": []},
            "arcAgentryConfigurations": None,
            "oidcIssuerProfile": {"enabled": False},
            "securityProfile": {"workloadIdentity": {"enabled": False}},
        },
    }
    return merged(shape, changes)


DEFENDER_EXTENSION = "microsoft.azuredefender.kubernetes"
POLICY_EXTENSION = "microsoft.policyinsights"


def extension(cluster_id: str, extension_type: str = DEFENDER_EXTENSION, name: str = "", **changes: Any) -> Object:
    """An extension of a connected cluster, or of a managed one."""
    name = name or extension_type
    shape = {
        "id": f"{cluster_id}/providers/Microsoft.KubernetesConfiguration/extensions/{name}",
        "name": name,
        "type": "Microsoft.KubernetesConfiguration/extensions",
        "identity": {"type": "SystemAssigned", "principalId": guid("principal", cluster_id, name), "tenantId": None},
        "plan": None,
        "systemData": _system_data(guid("installer"), "Application"),
        "properties": {
            "extensionType": extension_type,
            "autoUpgradeMinorVersion": True,
            "releaseTrain": "stable",
            "version": None,
            "currentVersion": "1.4.2",
            "scope": {"cluster": {"releaseNamespace": "mdc"}},
            "configurationSettings": {
                "logAnalyticsWorkspaceResourceID": _workspace(cluster_id.split("/")[2]),
                "auditLogPath": "/var/log/kube-apiserver/audit.log",
                "omsagent.secret.key": WORKSPACE_KEY,  # belongs in the protected settings, which are never shown
            },
            "configurationProtectedSettings": {},
            "provisioningState": "Succeeded",
            "statuses": [],
            "errorInfo": None,
            "isSystemExtension": False,
            "packageUri": None,
        },
    }
    return merged(shape, changes)


# ---------------------------------------------------------------------------------------------------------------------
# Defender for Cloud

PLANS = (
    "VirtualMachines",
    "SqlServers",
    "AppServices",
    "StorageAccounts",
    "SqlServerVirtualMachines",
    "KubernetesService",
    "ContainerRegistry",
    "KeyVaults",
    "Dns",
    "Arm",
    "OpenSourceRelationalDatabases",
    "CosmosDbs",
    "Containers",
    "CloudPosture",
    "Api",
    "AI",
    "Discovery",
    "FoundationalCspm",
)
_REPLACED = {"KubernetesService": ["Containers"], "ContainerRegistry": ["Containers"], "Dns": ["VirtualMachines"]}
CONTAINERS_EXTENSIONS = (
    "ContainerRegistriesVulnerabilityAssessments",
    "AgentlessDiscoveryForKubernetes",
    "AgentlessVmScanning",
    "ContainerSensor",
    "ContainerIntegrityContribution",
)


def pricing(name: str, tier: str = "Free", *, subscription: str = PROD, **changes: Any) -> Object:
    standard = tier == "Standard"
    properties: Object = {
        "pricingTier": tier,
        "freeTrialRemainingTime": "PT0S",
        "enforce": "False",
        "resourcesCoverageStatus": "FullyCovered" if standard else "NotCovered",
    }
    if standard:
        properties["enablementTime"] = _TIME
    if name in _REPLACED:
        properties |= {"deprecated": True, "replacedBy": _REPLACED[name]}
    if name == "Containers" and standard:
        properties["extensions"] = containers_extensions()
    shape = {
        "id": f"/subscriptions/{subscription}/providers/Microsoft.Security/pricings/{name}",
        "name": name,
        "type": "Microsoft.Security/pricings",
        "properties": properties,
    }
    return merged(shape, changes)


def containers_extensions(*off: str) -> list[Object]:
    """The parts of the plan for containers; whether one is enabled is a text here."""
    more = {
        "AgentlessVmScanning": {"ExclusionTags": "[]"},
        "ContainerSensor": {"SecurityGatingEnabled": "True"},
    }
    return [
        {"name": name, "isEnabled": "False" if name in off else "True"}
        | ({"additionalExtensionProperties": more[name]} if name in more else {})
        for name in CONTAINERS_EXTENSIONS
    ]


def pricings(*standard: str, subscription: str = PROD) -> list[Object]:
    """Every plan; those named are Standard."""
    return [pricing(name, "Standard" if name in standard else "Free", subscription=subscription) for name in PLANS]


def _connector(name: str, subscription: str, cloud: str, properties: Object, changes: Mapping[str, Any]) -> Object:
    home = _group(subscription, "rg-defender")
    shape = {
        "id": f"{home}/providers/Microsoft.Security/securityConnectors/{name}",
        "name": name,
        "type": "Microsoft.Security/securityConnectors",
        "etag": f'"{guid("etag", name)}"',
        "kind": "",
        "location": "centralus",
        "tags": {},
        "systemData": _system_data(),
        "properties": {"environmentName": cloud} | properties,
    }
    return merged(shape, changes)


def aws_connector(
    name: str = "aws-production", *, subscription: str = PROD, account: str = "123456789012", **changes: Any
) -> Object:
    def role(text: str) -> Object:
        return {"cloudRoleArn": f"arn:aws:iam::{account}:role/{text}"}

    containers = {
        "offeringType": "DefenderForContainersAws",
        "kubernetesService": role("MDCContainersK8sRole"),
        "kubernetesDataCollection": role("MDCContainersK8sDataCollectionRole"),
        "cloudWatchToKinesis": role("MDCContainersK8sCloudWatchToKinesisRole"),
        "kinesisToS3": role("MDCContainersK8sKinesisToS3Role"),
        "enableAuditLogsAutoProvisioning": True,
        "enableDefenderAgentAutoProvisioning": True,
        "enablePolicyAgentAutoProvisioning": True,
        "kubeAuditRetentionTime": 30,
        "mdcContainersImageAssessment": {"enabled": True} | role("MDCContainersImageAssessmentRole"),
        "mdcContainersAgentlessDiscoveryK8s": {"enabled": True} | role("MDCContainersAgentlessDiscoveryK8sRole"),
    }
    posture = {"offeringType": "CspmMonitorAws", "nativeCloudConnection": role("CspmMonitorAws")}
    properties = {
        "hierarchyIdentifier": account,
        "environmentData": {
            "environmentType": "AwsAccount",
            "accountName": name,
            "regions": ["ap-northeast-2", "us-east-1"],
            "scanInterval": 4,
        },
        "offerings": [posture, containers],
    }
    return _connector(name, subscription, "AWS", properties, changes)


def gcp_connector(
    name: str = "gcp-production", *, subscription: str = PROD, project: str = "shop-production", **changes: Any
) -> Object:
    def account(text: str) -> Object:
        email = f"{text}@{project}.iam.gserviceaccount.com"
        return {"workloadIdentityProviderId": text, "serviceAccountEmailAddress": email}

    containers = {
        "offeringType": "DefenderForContainersGcp",
        "nativeCloudConnection": account("containers"),
        "dataPipelineNativeCloudConnection": account("containers-streams"),
        "enableAuditLogsAutoProvisioning": True,
        "enableDefenderAgentAutoProvisioning": True,
        "enablePolicyAgentAutoProvisioning": True,
        "mdcContainersImageAssessment": {"enabled": True} | account("mdc-containers-artifact-assess"),
        "mdcContainersAgentlessDiscoveryK8s": {"enabled": True} | account("mdc-containers-k8s-operator"),
        "vmScanners": {"enabled": True, "configuration": {"scanningMode": "Default", "exclusionTags": {}}},
    }
    posture = {"offeringType": "CspmMonitorGcp", "nativeCloudConnection": account("cspm")}
    details = {"projectNumber": "884213770012", "projectId": project, "workloadIdentityPoolId": guid(project)}
    properties = {
        "hierarchyIdentifier": "884213770012",
        "environmentData": {"environmentType": "GcpProject", "projectDetails": details, "scanInterval": 4},
        "offerings": [posture, containers],
    }
    return _connector(name, subscription, "GCP", properties, changes)


def docker_hub_connector(name: str = "docker-hub", *, subscription: str = PROD, **changes: Any) -> Object:
    properties = {
        "hierarchyIdentifier": "exampleorg",
        "environmentData": {
            "environmentType": "DockerHubOrganization",
            "authentication": {"authenticationType": "AccessToken", "username": "exampleorg"},
            "scanInterval": 24,
        },
        "offerings": [{"offeringType": "CspmMonitorDockerHub"}, {"offeringType": "DefenderForContainersDockerHub"}],
    }
    return _connector(name, subscription, "DockerHub", properties, changes)


# ---------------------------------------------------------------------------------------------------------------------
# Images: rows of the table securityresources, as Resource Graph has them

SCANNED = "2026-11-20T06:12:44.0772799Z"
IMAGE_KEY = "33422d8f-ab1e-42be-bc9a-38685bb567b9"  # [Preview] Container images in Azure registry …
REGISTRY_KEY = "c0b7cfc6-3172-465a-b378-53c7ff2cc0d5"  # generally available, of a registry as a whole
RUNNING_KEY = "c5045ea3-afc6-4006-ab8f-86c8574dbf3d"  # [Preview] Containers running in Azure …


def digest(*parts: object) -> str:
    """The same parts always give the same digest."""
    return f"sha256:{hashlib.sha256(repr(parts).encode()).hexdigest()}"


def _graph_row(id: str, kind: str, subscription: str, properties: Object, changes: Mapping[str, Any]) -> Object:
    shape = {
        "id": id,
        "name": id.rpartition("/")[2],
        "type": kind,
        "tenantId": TENANT,
        "kind": "",
        "location": "",
        "resourceGroup": "rg-images",
        "subscriptionId": subscription,
        "managedBy": "",
        "sku": None,
        "plan": None,
        "properties": properties,
        "tags": None,
        "identity": None,
        "zones": None,
        "extendedLocation": None,
    }
    return merged(shape, {"properties": changes})


def _image_home(subscription: str, host: str) -> str:
    return f"{_group(subscription, 'rg-images')}/providers/Microsoft.ContainerRegistry/registries/{host.split('.')[0]}"


def sub_assessment(
    cve: str = "CVE-2021-39537",
    package: str = "libncursesw5",
    repository: str = "shop/web",
    *,
    subscription: str = PROD,
    host: str = "acrproduction.azurecr.io",
    key: str = REGISTRY_KEY,
    kind: str = "AzureContainerRegistryVulnerability",
    severity: str = "High",
    code: str = "Unhealthy",
    **changes: Any,
) -> Object:
    """One vulnerability of an image, by Microsoft Defender Vulnerability Management."""
    properties = {
        "id": cve,
        "displayName": cve,
        "description": "This vulnerability affects the following vendors: Gnu, Apple, Red_Hat, Ubuntu, Debian.",
        "status": {"code": code, "severity": severity},
        "remediation": f"Create new image with updated package {package} with version 6.2-0ubuntu2.1 or higher.",
        "timeGenerated": SCANNED,
        "resourceDetails": {"id": f"/repositories/{repository}/images/{digest(repository)}", "source": "Azure"},
        "additionalData": {
            "assessedResourceType": kind,
            "cvssV30Score": 7.8,
            "artifactDetails": {
                "repositoryName": repository,
                "registryHost": host,
                "digest": digest(repository),
                "tags": ["1.4.2"],
                "artifactType": "ContainerImage",
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "lastPushedToRegistryUTC": "2026-05-15T16:00:40.2938142Z",
            },
            "softwareDetails": {
                "osDetails": {"osPlatform": "linux", "osVersion": "ubuntu_linux_20.04"},
                "packageName": package,
                "category": "OS",
                "fixReference": {"id": "USN-6099-1", "url": "https://ubuntu.com/security/notices/USN-6099-1"},
                "vendor": "ubuntu",
                "version": "6.2-0ubuntu2",
                "evidence": [f"dpkg-query -f '${{Package}}:${{Source}}:\\n' -W | grep -e ^{package}:.*"],
                "language": "",
                "fixedVersion": "6.2-0ubuntu2.1",
                "fixStatus": "FixAvailable",
            },
            "vulnerabilityDetails": {
                "cveId": cve,
                "references": [{"title": cve, "link": f"https://nvd.nist.gov/vuln/detail/{cve}"}],
                "cvss": {"2.0": None, "3.0": {"base": 7.8, "cvssVectorString": "CVSS:3.0/AV:L/AC:L/PR:N/UI:R/S:U"}},
                "workarounds": [],
                "publishedDate": "2020-08-04T00:00:00",
                "lastModifiedDate": "2023-07-07T00:00:00",
                "severity": severity,
                "weaknesses": {"cwe": [{"id": "CWE-787"}]},
            },
        },
    }
    id = f"{_image_home(subscription, host)}/providers/Microsoft.Security/assessments/{key}/subassessments/"
    id += guid(key, cve, package, repository, host)
    return _graph_row(id, "microsoft.security/assessments/subassessments", subscription, properties, changes)


def aws_sub_assessment(cve: str = "CVE-2023-32700", account: str = "123456789012", **changes: Any) -> Object:
    host, repository = f"{account}.dkr.ecr.us-east-1.amazonaws.com", "shop/ledger"
    resource = {
        "id": f"{host}/{repository}@{digest(repository)}",
        "source": "Aws",
        "connectorId": guid("aws-production"),
        "region": "us-east-1",
        "nativeCloudUniqueIdentifier": f"arn:aws:ecr:us-east-1:{account}:image/{repository}",
        "resourceProvider": "ecr",
        "resourceType": "repository",
        "resourceName": repository,
        "hierarchyId": account,
    }
    place = {"host": host, "kind": "AwsContainerRegistryVulnerability", "key": "c27441ae-775c-45be-8ffa-655de37362ce"}
    return sub_assessment(cve, "libptexenc1", repository, **place, **merged({"resourceDetails": resource}, changes))


def gcp_sub_assessment(cve: str = "CVE-2017-11613", project: str = "shop-production", **changes: Any) -> Object:
    host, repository = "us-central1-docker.pkg.dev", f"{project}/apps/nginx"
    native = f"projects/{project}/locations/us-central1/repositories/apps/dockerImages/nginx@{digest(repository)}"
    resource = {
        "id": f"{host}/{repository}@{digest(repository)}",
        "source": "Gcp",
        "resourceType": "repository",
        "nativeCloudUniqueIdentifier": native,
        "resourceProvider": "gar",
        "resourceName": repository,
        "hierarchyId": "884213770012",
        "connectorId": guid("gcp-production"),
        "region": "us-central1",
    }
    place = {"host": host, "kind": "GcpContainerRegistryVulnerability", "key": "5cc3a2c1-8397-456f-8792-fe9d0d4c9145"}
    changes = merged({"resourceDetails": resource}, changes)
    return sub_assessment(cve, "tiff", repository, **place, severity="Low", **changes)


def qualys_sub_assessment(*cves: str, repository: str = "shop/old", subscription: str = PROD, **changes: Any) -> Object:
    """One vulnerability of an image as Qualys told it until 2024: no package, and no host but the registry's id."""
    key, host = "dbd0cb49-b563-45e7-9724-889e799fa648", "acrproduction.azurecr.io"
    properties = {
        "id": "177993",
        "displayName": "Debian Security Update for systemd",
        "category": "Debian",
        "status": {"code": "Unhealthy", "severity": "Medium"},
        "timeGenerated": SCANNED,
        "resourceDetails": {"id": f"/repositories/{repository}/images/{digest(repository)}", "source": "Azure"},
        "additionalData": {
            "assessedResourceType": "ContainerRegistryVulnerability",
            "type": "Vulnerability",
            "imageDigest": digest(repository),
            "repositoryName": repository,
            "patchable": True,
            "publishedTime": "2023-01-18T08:20:57Z",
            "cve": [{"title": cve, "link": f"http://web.nvd.nist.gov/view/vuln/detail?vulnId={cve}"} for cve in cves],
            "cvss": {"2.0": {"base": 5.0}, "3.0": {"base": 5.5}},
            "vendorReferences": [],
        },
    }
    id = f"{_image_home(subscription, host)}/providers/Microsoft.Security/assessments/{key}/subassessments/"
    id += guid(key, repository, *cves)
    return _graph_row(id, "microsoft.security/assessments/subassessments", subscription, properties, changes)


def image_assessment(
    code: str = "Healthy",
    repository: str = "shop/web",
    *,
    subscription: str = PROD,
    host: str = "acrproduction.azurecr.io",
    key: str = IMAGE_KEY,
    **changes: Any,
) -> Object:
    """What the grouped recommendation says of an image as a whole."""
    image = f"{_image_home(subscription, host)}/repositories-{repository.replace('/', '-')}-images-{digest(repository)}"
    properties = {
        "displayName": "[Preview] Container images in Azure registry should have vulnerability findings resolved",
        "status": {
            "code": code,
            "firstEvaluationDate": "2026-10-02T04:00:01.5571234Z",
            "statusChangeDate": "2026-11-18T05:30:00.1234567Z",
        },
        "metadata": {"severity": "High", "assessmentType": "BuiltIn", "recommendationCategory": "Unknown"},
        "resourceDetails": {
            "Id": image,
            "Source": "Azure",
            "ResourceType": ".containerimage",
            "ResourceName": repository.rpartition("/")[2],
            "ResourceProvider": "Azure Container Registry",
        },
        "resourceAdditionalData": json.dumps(
            {
                "Digest": digest(repository),
                "ImageUri": f"{host}/{repository}@{digest(repository)}",
                "LastPushedToRegistryUTC": "2026-05-15T16:00:40.2938142Z",
                "RepositoryDetails": {"RegistryHost": host, "RepositoryName": repository},
            }
        ),
        "additionalData": None,
    }
    id = f"{image}/providers/Microsoft.Security/assessments/{key}"
    return _graph_row(id, "microsoft.security/assessments", subscription, properties, changes)


def package_assessment(
    *cves: Object | str,
    package: str = "openssl",
    repository: str = "shop/web",
    code: str = "Unhealthy",
    name: str = "",
    **changes: Any,
) -> Object:
    """An individual recommendation: one package of an image, with all its vulnerabilities inside a text."""
    more = {
        "displayName": f"Update {package}",
        "metadata": {"recommendationCategory": "SoftwareUpdate"},
        "additionalData": {
            "SoftwareName": package,
            "SoftwareVendor": "openssl",
            "PackageType": "OS",
            "ScannerName": "MdvmAgent",
            "MaxCvssScore": "8.4",
            "DetectedSoftwareVersions": json.dumps(["3.0.2", "3.0.7"]),
            "ScannersDetails": json.dumps({"mdvm": {"DetectedSoftwareVersions": ["3.0.2", "3.0.7"]}}),
            "FixedVersion": "",
            "CvesDetails": json.dumps([one_cve(cve) if isinstance(cve, str) else cve for cve in cves]),
        },
    }
    place = {key: changes.pop(key) for key in ("subscription", "host") if key in changes}
    key = name or guid("recommendation", package)
    return image_assessment(code, repository, **place, key=key, **merged(more, changes))


def one_cve(cve: str, severity: str = "Medium", **changes: Any) -> Object:
    """One entry of an individual recommendation."""
    shape = {
        "CveId": cve,
        "AdditionalIdentifiers": [],
        "Description": "Summary: OpenSSL is vulnerable to a denial of service. Remediation: update to 3.0.8.",
        "Cvss": [{"Key": "3.1", "Value": {"Base": 5.9, "CvssVectorString": "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U"}}],
        "Severity": severity,
        "FixStatus": "FixAvailable",
        "FixedVersion": "3.0.8",
        "Tags": [],
    }
    return merged(shape, changes)


# ---------------------------------------------------------------------------------------------------------------------
# Versions, subscriptions, permissions, kubeconfigs


def kubernetes_versions() -> list[Object]:
    """What AKS runs in a location: 1.32 for those who pay for long-term support, 1.36 as a preview."""
    official, long_term = "KubernetesOfficial", "AKSLongTermSupport"
    return [
        _version("1.32", [long_term], {"1.32.9": ["1.32.10", "1.33.2", "1.33.6"], "1.32.10": ["1.33.2", "1.33.6"]}),
        _version("1.33", [official, long_term], {"1.33.2": ["1.33.6", "1.34.1"], "1.33.6": ["1.34.1", VERSION]}),
        _version("1.34", [official, long_term], {"1.34.1": [VERSION, "1.35.1"], VERSION: ["1.35.1"]}, isDefault=True),
        _version("1.35", [official], {"1.35.1": ["1.36.0"]}),
        _version("1.36", [official], {"1.36.0": []}, isPreview=True),
    ]


def _version(minor: str, plans: list[str], patches: Mapping[str, list[str]], **flags: bool) -> Object:
    upgrades = {patch: {"upgrades": later} for patch, later in patches.items()}
    return {"version": minor, **flags, "capabilities": {"supportPlan": plans}, "patchVersions": upgrades}


def permission(*actions: str, data: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> Object:
    """What one role assignment allows."""
    return {"actions": list(actions), "notActions": list(without), "dataActions": list(data), "notDataActions": []}


READER = permission("*/read")
CLUSTER_USER = permission(
    "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action",
    "Microsoft.ContainerService/managedClusters/read",
)


def entra_kubeconfig(name: str, server: str, ca: bytes | None = None) -> Object:
    """What AKS hands out for a cluster with Entra: no credential, but a command to get one."""
    options = {
        "--environment": "AzurePublicCloud",
        "--server-id": AKS_SERVER_ID,
        "--client-id": "80faf920-1908-4b52-b5ef-a8e7bedfc67a",
        "--tenant-id": TENANT,
        "--login": "devicecode",
    }
    command = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "args": ["get-token", *(text for option in options.items() for text in option)],
        "command": "kubelogin",
        "env": None,
        "installHint": "\nkubelogin is not installed which is required to connect to AAD enabled cluster.\n",
        "provideClusterInfo": False,
    }
    return _kubeconfig(name, server, ca, {"exec": command})


def local_kubeconfig(
    name: str,
    server: str,
    ca: bytes | None = None,
    *,
    cert: bytes = b"client certificate of a local account",
    key: bytes = CLIENT_KEY,
    token: str = LOCAL_TOKEN,
) -> Object:
    """What AKS hands out for a cluster with local accounts: an administrator's credential."""
    user = {
        "client-certificate-data": base64.b64encode(cert).decode(),
        "client-key-data": base64.b64encode(key).decode(),
        "token": token,
    }
    return _kubeconfig(name, server, ca, {k: v for k, v in user.items() if v})


def _kubeconfig(name: str, server: str, ca: bytes | None, user: Object) -> Object:
    login = f"clusterUser_rg-kubernetes_{name}"
    trust = {"certificate-authority-data": base64.b64encode(ca).decode()} if ca else {}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": trust | {"server": server}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": login}}],
        "current-context": name,
        "preferences": {},
        "users": [{"name": login, "user": user}],
    }


# ---------------------------------------------------------------------------------------------------------------------
# Estates


@dataclass
class Subscription:
    """All that ARM has in one subscription; diagnostics, extensions and kubeconfigs are by the id of a resource."""

    id: str
    name: str
    state: str = "Enabled"
    clusters: list[Object] = field(default_factory=list)
    registries: list[Object] = field(default_factory=list)
    connected_clusters: list[Object] = field(default_factory=list)
    pricings: list[Object] = field(default_factory=list)
    connectors: list[Object] = field(default_factory=list)
    permissions: list[Object] = field(default_factory=lambda: [READER])
    versions: dict[str, list[Object]] = field(default_factory=dict)  # by location
    diagnostics: dict[str, list[Object]] = field(default_factory=dict)
    extensions: dict[str, list[Object]] = field(default_factory=dict)
    kubeconfigs: dict[str, Object] = field(default_factory=dict)  # others are made from the cluster
    security: list[Object] = field(default_factory=list)  # rows of Resource Graph

    def wire(self) -> Object:
        """The subscription itself, as GET /subscriptions shows it."""
        policies = {"locationPlacementId": "Public_2014-09-01", "quotaId": "EnterpriseAgreement_2014-09-01"}
        return {
            "id": f"/subscriptions/{self.id}",
            "authorizationSource": "RoleBased",
            "managedByTenants": [],
            "subscriptionId": self.id,
            "tenantId": TENANT,
            "displayName": self.name,
            "state": self.state,
            "subscriptionPolicies": policies | {"spendingLimit": "Off"},
        }


@dataclass
class Estate:
    subscriptions: dict[str, Subscription]  # by id

    @classmethod
    def of(cls, *subscriptions: Subscription) -> Estate:
        return cls({s.id: s for s in subscriptions})

    def clusters(self) -> Iterator[tuple[Subscription, Object]]:
        for subscription in self.subscriptions.values():
            for item in subscription.clusters:
                yield subscription, item

    def cluster(self, name: str) -> Object:
        """The managed cluster of this name."""
        return next(item for _, item in self.clusters() if item["name"] == name)

    def kubeconfig(self, resource_id: str) -> Object | None:
        """What the cluster of this id hands out, in any spelling; None if there is none."""
        for subscription, item in self.clusters():
            if item["id"].lower() == resource_id.lower():
                return subscription.kubeconfigs.get(item["id"]) or _default_kubeconfig(item)
        return None

    def connect(self, name: str, server: str, ca: bytes | None = None, **local: Any) -> None:
        """Let a cluster's kubeconfig lead to this server; `local` is for clusters with local accounts only."""
        subscription, item = next(found for found in self.clusters() if found[1]["name"] == name)
        subscription.kubeconfigs[item["id"]] = _default_kubeconfig(item, server, ca, **local)


def _default_kubeconfig(item: Object, server: str = "", ca: bytes | None = None, **local: Any) -> Object:
    properties = item["properties"]
    host = properties.get("fqdn") or properties.get("privateFQDN") or f"{item['name']}.example"
    make = entra_kubeconfig if properties.get("aadProfile") else local_kubeconfig
    return make(item["name"], server or f"https://{host}:443", ca or b"certificate authority", **local)


def sample_estate() -> Estate:
    """A subscription in good order, and one that is not; every kind of cluster, and of everything else, is there."""
    return Estate.of(_production(), _development())


def _production() -> Subscription:
    place = {"subscription": PROD, "location": "koreacentral"}
    clusters = [make(**place) for make in (private_cluster, entra_cluster, windows_cluster, stopped_cluster)]
    shop, edge = connected_cluster("shop", "eks", **place), connected_cluster("aks-edge", "aks", **place)
    both = [extension(shop["id"], DEFENDER_EXTENSION), extension(shop["id"], POLICY_EXTENSION, "azurepolicy")]
    return Subscription(
        PROD,
        "Production",
        clusters=clusters,
        registries=[registry("acrproduction", **place)],
        connected_clusters=[shop, edge],
        pricings=pricings("Containers", "CloudPosture", "VirtualMachines", subscription=PROD),
        connectors=[make(subscription=PROD) for make in (aws_connector, gcp_connector, docker_hub_connector)],
        permissions=[READER, CLUSTER_USER],
        versions={"koreacentral": kubernetes_versions()},
        diagnostics={item["id"]: [diagnostic_setting(item["id"])] for item in clusters},
        extensions={shop["id"]: both},
    )


def _development() -> Subscription:
    place = {"subscription": DEV, "location": "westeurope", "resource_group": "rg-sandbox"}
    clusters = [make(**place) for make in (public_cluster, legacy_cluster, null_cluster, deleting_cluster)]
    lab = connected_cluster("lab", "k3s", properties={"connectivityStatus": "Offline"}, **place)
    broken = extension(lab["id"], "Microsoft.AzureDefender.Kubernetes", properties={"provisioningState": "Failed"})
    return Subscription(
        DEV,
        "Development",
        clusters=clusters,
        registries=[basic_registry("acrsandbox", **place)],
        connected_clusters=[lab],
        pricings=pricings(subscription=DEV),
        versions={"westeurope": kubernetes_versions()},
        diagnostics={clusters[0]["id"]: [bad_diagnostic_setting(clusters[0]["id"])]},
        extensions={lab["id"]: [broken]},
    )


def large_estate(subscriptions: int, clusters: int) -> Estate:
    """Clusters of every kind, spread over subscriptions and locations; half of them are in good order."""
    ids = [guid("subscription", number) for number in range(subscriptions)]
    estate = Estate.of(*(Subscription(text, f"Subscription {n:03d}") for n, text in enumerate(ids)))
    for text in ids:
        target = estate.subscriptions[text]
        target.pricings = pricings("Containers", subscription=text)
        target.versions = {location: kubernetes_versions() for location in LOCATIONS}
    for number in range(clusters):
        _add_cluster(estate.subscriptions[ids[number % subscriptions]], number)
    return estate


def _add_cluster(target: Subscription, number: int) -> None:
    make = VARIANTS[number // 2 % len(VARIANTS)] if number % 2 else private_cluster
    place = {"subscription": target.id, "location": LOCATIONS[number % len(LOCATIONS)]}
    item = make(f"aks-{number:05d}", resource_group=f"rg-team-{number % 40:02d}", **place)
    target.clusters.append(item)
    good = make is private_cluster
    target.diagnostics[item["id"]] = [(diagnostic_setting if good else bad_diagnostic_setting)(item["id"])]
    if number % 10 < 2:
        target.registries.append((registry if number % 10 else basic_registry)(f"acr{number:05d}", **place))
    if number % 20 == 0:
        arc = connected_cluster(f"arc-{number:05d}", "eks", **place)
        target.connected_clusters.append(arc)
        target.extensions[arc["id"]] = [extension(arc["id"])]
