"""Azure's rules against wire JSON as Resource Manager sends it, as it could send it, and as it never should.

Answers are P pass, F fail, N not applicable, U unknown.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

import checks
from scanner.azure import AksCluster, ArcCluster, AzureSubscription, ContainerRegistry, SecurityConnector
from scanner.check import Check
from scanner.cloud import CloudResource, kept
from scanner.model import Collected, Gap, GapReason, MissingEvidence, Severity, Status, Verdict
from scanner.resources import resource_of

Object = dict[str, Any]
LETTERS = {Status.PASS: "P", Status.FAIL: "F", Status.NOT_APPLICABLE: "N"}
AZURE = [c for c in checks.load().values() if c.provider == "azure"]


def resource(kind: type[CloudResource], wire: Object, related: Object, *, keep: bool = True) -> CloudResource:
    return kind(
        id="/subscriptions/s/x",
        name="x",
        account="s",
        wire=kept(wire, kind.KEEP) if keep else wire,
        related={what: items if isinstance(items, Collected) else Collected(items) for what, items in related.items()},
    )


def verdicts(check: Check, subject: CloudResource, **params: Any) -> Iterator[Verdict]:
    subjects = [subject] if check.scope is type(subject) else subject.components()
    for one in subjects:
        yield check.run(one, **params)


def ask(id: str, wire: Object, /, *, related: Object | None = None, keep: bool = True, **params: Any) -> str:
    """The letters of the check's answers, one for each subject; U alone where not even these can be told."""
    check = checks.load()[id]
    kind = resource_of(check.scope)
    assert kind is not None
    try:
        found = list(verdicts(check, resource(kind, wire, related or {}, keep=keep), **params))
    except MissingEvidence:
        return "U"
    assert all(v.message for v in found if v.status is Status.FAIL)
    assert all(v.evidence for v in found if v.status in (Status.PASS, Status.FAIL))
    return "".join(LETTERS[v.status] for v in found)


def asked(id: str, properties: Any, **more: Any) -> str:
    return ask(id, {"properties": properties}, **more)


# ---------------------------------------------------------------------------------------------------------------------
# Vectors

API, PROFILE, ADDON = "azure-aks-api-server-restricted", "azure-aks-defender-profile", "azure-aks-azure-policy-addon"
ACR, LINK = "azure-acr-network-restricted", "azure-acr-private-link"


def access(**fields: Any) -> Object:
    return {"apiServerAccessProfile": fields}


def defender(**fields: Any) -> Object:
    return {"securityProfile": {"defender": fields}}


def rules(*ranges: str, action: str = "Deny") -> Object:
    return {"networkRuleSet": {"defaultAction": action, "ipRules": [{"value": r} for r in ranges]}}


def connections(*states: str | None) -> Object:
    link = "privateLinkServiceConnectionState"
    return {"privateEndpointConnections": [{"properties": {link: {"status": state}}} for state in states]}


VECTORS = [
    (API, access(enablePrivateCluster=True), "P"),
    (API, {}, "F"),
    (API, access(authorizedIPRanges=None, enablePrivateCluster=False), "F"),
    (API, access(authorizedIPRanges=[]), "F"),
    (API, access(authorizedIPRanges=["0.0.0.0/32"]), "P"),
    (API, access(authorizedIPRanges=["198.51.100.7"]), "P"),
    (API, access(authorizedIPRanges=["1.2.3.4/32", "0.0.0.0/0"]), "F"),
    (API, access(authorizedIPRanges=["10.0.0.0/8", "::/0"]), "F"),
    (API, access(authorizedIPRanges=["::/1", "8000::/1"]), "F"),
    (API, access(authorizedIPRanges=["0.0.0.0/1"]), "P"),
    (API, access(authorizedIPRanges=["10.0.0.0/8", "home"]), "U"),
    (API, access(authorizedIPRanges=["home", "128.0.0.0/1", "0.0.0.0/1"]), "F"),
    (API, {"publicNetworkAccess": "Disabled"}, "P"),
    (API, {"publicNetworkAccess": "SecuredByPerimeter"}, "U"),
    (API, access(enableVnetIntegration=True), "F"),
    ("azure-aks-rbac", {}, "P"),
    ("azure-aks-rbac", {"enableRBAC": None}, "P"),
    ("azure-aks-rbac", {"enableRBAC": False}, "F"),
    (ADDON, {"addonProfiles": {"azurePolicy": {"enabled": True}}}, "P"),
    (ADDON, {"addonProfiles": {"azurepolicy": {"enabled": True}}}, "P"),
    (ADDON, {"addonProfiles": {"azurepolicy": {"enabled": False}}}, "F"),
    (ADDON, {"addonProfiles": {"azurepolicy": None}}, "F"),
    (ADDON, {"addonProfiles": None}, "F"),
    (ADDON, {"addonProfiles": None, "kubernetesVersion": "1.9.11"}, "N"),
    (ADDON, {"addonProfiles": None, "kubernetesVersion": "1.14.0"}, "F"),
    (ADDON, {"addonProfiles": None, "kubernetesVersion": "a version"}, "F"),
    (PROFILE, defender(securityMonitoring={"enabled": True}), "P"),
    (PROFILE, defender(logAnalyticsWorkspaceResourceId="w"), "F"),
    (PROFILE, {"securityProfile": {"azureDefender": {"enabled": True}}}, "P"),
    (ACR, {}, "F"),
    (ACR, {**rules(), "publicNetworkAccess": "Enabled"}, "P"),
    (ACR, {**rules(action="Allow"), "publicNetworkAccess": "Disabled"}, "P"),
    (ACR, {"networkRuleSet": None, "publicNetworkAccess": "Enabled"}, "F"),
    (ACR, rules("10.0.0.0/8", "0.0.0.0/0"), "F"),
    (ACR, rules("0.0.0.0/1", "128.0.0.0/1"), "F"),
    (ACR, rules("10.0.0.0/8", "home"), "U"),
    (ACR, rules("home", "::/0"), "F"),
    (LINK, connections("Pending"), "F"),
    (LINK, connections("Rejected", "Disconnected", None), "F"),
    (LINK, connections("Pending", "approved"), "P"),
    ("azure-acr-cmk", {"encryption": {"status": "Enabled"}}, "P"),
    ("azure-acr-cmk", {"encryption": None}, "F"),
]


@pytest.mark.parametrize(("id", "properties", "answer"), VECTORS)
def test_vectors(id: str, properties: Object, answer: str) -> None:
    assert asked(id, properties) == answer


LOGS = "azure-aks-diagnostic-logs"
DAYS_30, DAYS_0 = ({"enabled": True, "days": days} for days in (30, 0))


def logs(*entries: Object, **destination: str) -> Object:
    return {"name": "d", "properties": {**(destination or {"workspaceId": "w"}), "logs": list(entries)}}


def entry(category: str | None = "kube-audit", enabled: Any = True, **fields: Any) -> Object:
    return {"category": category, "enabled": enabled, **fields}


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ([], "F"),
        ([logs(entry())], "P"),
        ([logs(entry(enabled=False))], "F"),
        ([logs(entry(retentionPolicy=DAYS_30), storageAccountId="s")], "F"),
        ([logs(entry(retentionPolicy=DAYS_0), storageAccountId="s")], "P"),
        ([logs(entry(retentionPolicy=None), storageAccountId="s")], "P"),
        ([logs(entry(retentionPolicy={**DAYS_30, "enabled": False}), storageAccountId="s")], "P"),
        ([logs(entry(retentionPolicy={"enabled": True, "days": 365}), storageAccountId="s")], "P"),
        ([logs(entry(retentionPolicy=DAYS_30))], "P"),  # a workspace has a retention of its own
        ([logs(entry(retentionPolicy=DAYS_30), storageAccountId="s"), logs(entry())], "P"),
        ([{"properties": {"logs": [], "metrics": [{"enabled": True}]}}], "F"),
        ([{"properties": {"logs": None}}, {"properties": None}, {}], "F"),
        ([logs(entry(retentionPolicy={"enabled": True, "days": True}), storageAccountId="s")], "U"),
    ],
)
def test_diagnostic_logs(settings: list[Object], answer: str) -> None:
    assert ask(LOGS, {}, related={"diagnosticSettings": settings}) == answer


@pytest.mark.parametrize(
    ("categories", "entra", "answer"),
    [
        (["kube-audit"], False, "P"),
        (["kube-audit"], True, "F"),
        (["kube-audit-admin", "guard"], True, "P"),
        (["guard"], True, "F"),
        (["kube-apiserver", "kube-scheduler"], False, "F"),
        ([], False, "F"),
    ],
)
def test_audit_log_category(categories: list[str], entra: bool, answer: str) -> None:
    properties = {"aadProfile": {"managed": True} if entra else None}
    related = {"diagnosticSettings": [logs(*map(entry, categories))]}
    assert asked("azure-aks-audit-log-category", properties, related=related) == answer


@pytest.mark.parametrize("group", ["audit", "allLogs"])
def test_group_holds_every_audit_category(group: str) -> None:
    related = {"diagnosticSettings": [logs(entry(None, categoryGroup=group))]}
    assert asked("azure-aks-audit-log-category", {"aadProfile": {}}, related=related) == "P"
    assert asked(LOGS, {}, related=related) == "P"


DENIED: Collected[Object] = Collected(gaps=[Gap(what="x", reason=GapReason.FORBIDDEN)])


@pytest.mark.parametrize("check", [c for c in AZURE if c.needs], ids=lambda c: c.id)
@pytest.mark.parametrize("related", [{}, "denied"])
def test_what_was_not_listed_is_unknown(check: Check, related: Any) -> None:
    wire = {"properties": {"kubernetesVersion": "1.34", "distribution": "k3s"}}
    assert ask(check.id, wire, related=dict.fromkeys(check.needs, DENIED) if related else {}) == "U"


# ---------------------------------------------------------------------------------------------------------------------
# What others get wrong


def test_registry_is_judged_by_the_field_that_azure_sends() -> None:
    for id in ("azure-acr-public-access", ACR):
        assert asked(id, {"publicNetworkAccess": "Disabled"}) == "P"
        assert asked(id, {"publicNetworkAccessEnabled": False, "public_network_access_enabled": False}) == "F"


@pytest.mark.parametrize(
    ("policy", "dataplane", "answer"),
    [
        ("none", None, "F"),
        ("None", "azure", "F"),
        ("none", "cilium", "F"),
        ("", None, "F"),
        (None, None, "F"),
        (None, "azure", "F"),
        (None, "cilium", "P"),
        ("azure", None, "P"),
        ("Calico", None, "P"),
        ("cilium", "cilium", "P"),
    ],
)
def test_network_policy_none_is_no_policy(policy: str | None, dataplane: str | None, answer: str) -> None:
    network = {"networkPolicy": policy, "networkDataplane": dataplane, "networkPlugin": "azure"}
    assert asked("azure-aks-network-policy", {"networkProfile": network}) == answer


OFFERED = [
    {"version": "1.35", "isPreview": True, "patchVersions": {"1.35.0": {}}},
    {"version": "1.34", "capabilities": {"supportPlan": ["KubernetesOfficial"]}, "patchVersions": {"1.34.2": {}}},
    {"version": "1.31", "capabilities": {"supportPlan": ["AKSLongTermSupport"]}, "patchVersions": {"1.31.9": {}}},
    {"version": "1.30", "capabilities": None, "patchVersions": None},
]


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({}, "U"),
        ({"currentKubernetesVersion": None, "kubernetesVersion": None}, "U"),
        ({"kubernetesVersion": "stable"}, "U"),
        ({"kubernetesVersion": "1.34"}, "P"),
        ({"kubernetesVersion": "1.34", "currentKubernetesVersion": "1.34.2"}, "P"),
        ({"kubernetesVersion": "1.34", "currentKubernetesVersion": "1.34.1"}, "F"),
        ({"kubernetesVersion": "1.33.1"}, "F"),
        ({"kubernetesVersion": "1.3"}, "F"),
        ({"kubernetesVersion": "1.31.9"}, "F"),
        ({"kubernetesVersion": "1.31.9", "supportPlan": "akslongtermsupport"}, "P"),
        ({"kubernetesVersion": "1.30.1"}, "P"),
        ({"kubernetesVersion": "1.35.0"}, "P"),
    ],
)
def test_version_is_compared_with_what_azure_offers(fields: Object, answer: str) -> None:
    assert asked("azure-aks-supported-version", fields, related={"kubernetesVersions": OFFERED}) == answer
    assert asked("azure-aks-supported-version", fields, related={"kubernetesVersions": []}) == "U"


def test_an_old_patch_weighs_less() -> None:
    check = checks.load()["azure-aks-supported-version"]

    def severity(version: str) -> Severity | None:
        wire = {"properties": {"kubernetesVersion": version}}
        (verdict,) = verdicts(check, resource(AksCluster, wire, {"kubernetesVersions": OFFERED}))
        return verdict.severity

    assert (severity("1.34.1"), severity("1.33.1")) == (Severity.LOW, None)


def test_every_pool_is_judged_by_itself() -> None:
    good = {"enableNodePublicIP": False, "enableEncryptionAtHost": True, "securityProfile": {"sshAccess": "Disabled"}}
    bad = {"enableNodePublicIP": True, "enableEncryptionAtHost": False, "securityProfile": {"sshAccess": "LocalUser"}}
    pools = {"agentPoolProfiles": [good, bad, {**bad, "osType": "Windows"}]}
    assert asked("azure-aks-node-public-ip", pools) == "PFF"
    assert asked("azure-aks-encryption-at-host", pools) == "PFF"
    assert asked("azure-aks-ssh", pools) == "PFN"
    assert asked("azure-aks-fips", {**pools, "enableFIPS": True}) == "PPP"


@pytest.mark.parametrize(
    ("id", "properties", "ours", "microsofts"),
    [
        (API, access(authorizedIPRanges=[]), "F", "P"),
        (API, access(authorizedIPRanges=["0.0.0.0/0"]), "F", "P"),
        (API, access(authorizedIPRanges=["home"]), "U", "P"),
        (API, access(authorizedIPRanges=None), "F", "F"),
        (API, {"publicNetworkAccess": "Disabled"}, "P", "F"),
        (API, access(enablePrivateCluster=True), "P", "P"),
        ("azure-aks-private-cluster", {"publicNetworkAccess": "Disabled"}, "P", "F"),
        ("azure-aks-private-cluster", access(enablePrivateCluster=True), "P", "P"),
        (ACR, rules("0.0.0.0/0"), "F", "P"),
        (ACR, {"publicNetworkAccess": "SecuredByPerimeter"}, "U", "P"),
        (ACR, {}, "F", "F"),
        (PROFILE, {"securityProfile": {"azureDefender": {"enabled": True}}}, "P", "F"),
        (PROFILE, defender(securityMonitoring={"enabled": True}), "P", "P"),
        ("azure-aks-entra-integration", {"aadProfile": {"serverAppID": "x"}}, "F", "P"),
        ("azure-aks-entra-integration", {"aadProfile": None}, "F", "F"),
        ("azure-aks-workload-identity", {"securityProfile": {"workloadIdentity": {"enabled": True}}}, "F", "P"),
        ("azure-acr-export", {"policies": {"exportPolicy": {"status": "disabled"}}}, "P", "F"),
    ],
)
def test_where_microsofts_policy_answers_otherwise(id: str, properties: Object, ours: str, microsofts: str) -> None:
    assert (asked(id, properties), asked(id, properties, azure_rules=True)) == (ours, microsofts)


def test_which_are_off_unless_selected() -> None:
    off = {"azure-acr-cmk", "azure-aks-disk-encryption-set", "azure-acr-zone-redundancy"}
    assert {c.id for c in AZURE if not c.on} == off


# ---------------------------------------------------------------------------------------------------------------------
# Subscriptions, connectors, Arc

PLAN = "azure-defender-containers-plan"


def plan(name: str, tier: str | None, **extensions: Any) -> Object:
    listed = [{"name": name, "isEnabled": on} for name, on in extensions.items()]
    return {"name": name, "properties": {"pricingTier": tier, "extensions": listed}}


@pytest.mark.parametrize(
    ("pricings", "answer", "extensions"),
    [
        ([], "U", "U"),
        ([plan("VirtualMachines", "Standard")], "F", "N"),
        ([plan("Containers", "Free")], "F", "N"),
        ([plan("Containers", None)], "F", "N"),
        ([plan("KubernetesService", "Standard"), plan("Containers", "Free")], "F", "N"),
        ([plan("Containers", "Standard")], "P", "U"),
        ([plan("containers", "standard", A="True", B="true")], "P", "P"),
        ([plan("Containers", "Standard", A="True", B="False")], "P", "F"),
        ([plan("Containers", "Standard", A="True", B=None)], "P", "F"),
        ([plan("Containers", "Standard", A=True, B=False)], "P", "F"),
        ([plan("Containers", "Standard", A=1, B="True")], "P", "U"),
        ([plan("Containers", "Standard", A=1, B="False")], "P", "F"),
    ],
)
def test_defender_plan(pricings: list[Object], answer: str, extensions: str) -> None:
    assert ask(PLAN, {}, related={"pricings": pricings}) == answer
    assert ask("azure-defender-containers-extensions", {}, related={"pricings": pricings}) == extensions


@pytest.mark.parametrize(
    ("resources", "answer"),
    [
        ([], "N"),
        ([{"id": "/subscriptions/s/registries/r"}], "F"),
        (DENIED, "U"),
        (Collected([{"id": "/subscriptions/s/registries/r"}], DENIED.gaps), "F"),
    ],
)
def test_subscription_without_containers_may_be_left_out(resources: Any, answer: str) -> None:
    related = {"pricings": [plan("Containers", "Free")], "containerResources": resources}
    assert ask(PLAN, {}, related=related, skip_empty=True) == answer
    assert ask(PLAN, {}, related=related) == "F"


def test_both_spellings_of_a_connectors_switches() -> None:
    def switched(**changes: Any) -> str:
        on = {
            name: {"enabled": True} for name in ("mdcContainersAgentlessDiscoveryK8s", "mdcContainersImageAssessment")
        }
        offering = {"offeringType": "DefenderForContainersGcp", **on, **changes}
        return asked("gcp-connector-defender-advanced", {"environmentName": "GCP", "offerings": [offering]})

    names = ("{}AuditLogsAutoProvisioning", "{}DefenderAgentAutoProvisioning", "{}PolicyAgentAutoProvisioning")
    new = {name.format("enable"): True for name in names}
    old = {name.format("")[0].lower() + name.format("")[1:] + "Flag": True for name in names}
    assert "auditLogsAutoProvisioningFlag" in old
    assert (switched(), switched(**new), switched(**old), switched(**new, **old)) == ("F", "P", "P", "P")
    for name in old:
        assert switched(**{**old, name: False}) == switched(**new, **{**old, name: False}) == "F"
    assert switched(**new, mdcContainersImageAssessment={"enabled": False}) == "F"
    assert switched(**new, mdcContainersAgentlessDiscoveryK8s=None) == "F"
    assert switched(**new, vmScanners={"enabled": False}) == "P"


@pytest.mark.parametrize(
    ("distribution", "policy", "sensor"),
    [("aks", "N", "N"), ("AKS_management", "F", "N"), ("EKS", "F", "N"), ("gke", "F", "N"), (None, "F", "F")],
)
def test_which_connected_clusters_are_judged_elsewhere(distribution: str | None, policy: str, sensor: str) -> None:
    properties = {"distribution": distribution}
    assert asked("azure-arc-policy-extension", properties, related={"extensions": []}) == policy
    assert asked("azure-arc-defender-extension", properties, related={"extensions": []}) == sensor


# ---------------------------------------------------------------------------------------------------------------------
# Nothing sent, and nonsense sent


def both(pairs: Any) -> Any:
    """(good, bad) at the leaves -> the good and the bad JSON."""
    if isinstance(pairs, tuple):
        return pairs
    if isinstance(pairs, dict):
        halves = {key: both(value) for key, value in pairs.items()}
        return {k: v[0] for k, v in halves.items()}, {k: v[1] for k, v in halves.items()}
    if isinstance(pairs, list):
        items = [both(item) for item in pairs]
        return [v[0] for v in items], [v[1] for v in items]
    return pairs, pairs


ON, OFF = (True, False), (False, True)
CLUSTER = both(
    {
        "sku": {"name": "Base", "tier": ("Standard", "Free")},
        "properties": {
            "provisioningState": "Succeeded",
            "powerState": {"code": "Running"},
            "kubernetesVersion": ("1.34", "1.20"),
            "currentKubernetesVersion": ("1.34.2", "1.20.9"),
            "supportPlan": "KubernetesOfficial",
            "fqdn": "x.example.com",
            "privateFQDN": "x.example.com",
            "enableRBAC": ON,
            "disableLocalAccounts": ON,
            "publicNetworkAccess": ("Disabled", "Enabled"),
            "diskEncryptionSetID": ("/subscriptions/s/diskEncryptionSets/x", ""),
            "aadProfile": {"managed": ON, "enableAzureRBAC": ON},
            "addonProfiles": {
                "azurepolicy": {"enabled": ON},
                "omsagent": {"enabled": ON},
                "azureKeyvaultSecretsProvider": {
                    "enabled": True,
                    "config": {"enableSecretRotation": ("true", "false")},
                },
                "kubeDashboard": {"enabled": OFF},
                "httpApplicationRouting": {"enabled": OFF},
            },
            "agentPoolProfiles": [
                {
                    "name": name,
                    "osType": "Linux",
                    "enableNodePublicIP": OFF,
                    "enableEncryptionAtHost": ON,
                    "enableFIPS": ON,
                    "securityProfile": {"sshAccess": ("Disabled", "LocalUser")},
                }
                for name in ("system", "user")
            ],
            "apiServerAccessProfile": {
                "enablePrivateCluster": ON,
                "enablePrivateClusterPublicFQDN": OFF,
                "authorizedIPRanges": (["203.0.113.0/24"], ["203.0.113.0/24", "0.0.0.0/0"]),
                "disableRunCommand": ON,
            },
            "autoUpgradeProfile": {"upgradeChannel": ("patch", "none"), "nodeOSUpgradeChannel": ("NodeImage", "None")},
            "azureMonitorProfile": {"containerInsights": {"enabled": ON}, "metrics": {"enabled": ON}},
            "enableFIPS": ON,
            "networkProfile": {
                "networkPolicy": ("cilium", "none"),
                "networkDataplane": ("cilium", "azure"),
                "networkPlugin": "azure",
            },
            "nodeResourceGroupProfile": {"restrictionLevel": ("ReadOnly", "Unrestricted")},
            "oidcIssuerProfile": {"enabled": ON},
            "podIdentityProfile": {"enabled": OFF},
            "securityProfile": {
                "defender": {"securityMonitoring": {"enabled": ON}, "securityGating": {"enabled": ON}},
                "azureDefender": {"enabled": ON},
                "azureKeyVaultKms": {"enabled": ON},
                "kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": ("Enabled", "Disabled")},
                "workloadIdentity": {"enabled": ON},
                "imageCleaner": {"enabled": ON},
            },
            "servicePrincipalProfile": {"clientId": ("msi", "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9")},
        },
    }
)
LISTS = both(
    {
        "diagnosticSettings": [logs(entry(enabled=ON), entry("guard", enabled=ON), storageAccountId="s")],
        "kubernetesVersions": OFFERED,
    }
)
REGISTRY = both(
    {
        "sku": {"name": "Premium", "tier": "Premium"},
        "properties": {
            "provisioningState": "Succeeded",
            "adminUserEnabled": OFF,
            "anonymousPullEnabled": OFF,
            "publicNetworkAccess": ("Disabled", "Enabled"),
            "networkRuleBypassOptions": ("None", "AzureServices"),
            "networkRuleSet": {"defaultAction": "Deny", "ipRules": [{"value": ("203.0.113.0/24", "0.0.0.0/0")}]},
            "encryption": {"status": ("enabled", "disabled"), "keyVaultProperties": {"keyIdentifier": "k"}},
            "policies": {
                "quarantinePolicy": {"status": ("enabled", "disabled")},
                "retentionPolicy": {"status": ("enabled", "disabled")},
                "exportPolicy": {"status": ("disabled", "enabled")},
                "azureADAuthenticationAsArmPolicy": {"status": ("disabled", "enabled")},
            },
            "privateEndpointConnections": [
                {
                    "name": "p",
                    "properties": {"privateLinkServiceConnectionState": {"status": ("Approved", "Pending")}},
                }
            ],
            "zoneRedundancy": ("Enabled", "Disabled"),
        },
    }
)
ARC = {
    "properties": {
        "provisioningState": "Succeeded",
        "distribution": "k3s",
        "infrastructure": "generic",
        "connectivityStatus": "Connected",
        "lastConnectivityTime": "2026-09-01T00:00:00Z",
        "kubernetesVersion": "1.34.2",
    }
}
ARC_EXTENSIONS = both(
    [
        {"name": name, "properties": {"extensionType": name, "provisioningState": ("Succeeded", "Failed")}}
        for name in ("microsoft.policyinsights", "microsoft.azuredefender.kubernetes")
    ]
)
SUBSCRIPTION = {"displayName": "s", "state": "Enabled"}
GCP = both(
    {
        "properties": {
            "environmentName": "GCP",
            "hierarchyIdentifier": "480562348923",
            "environmentData": {
                "projectDetails": {"projectId": "p"},
                "organizationalData": {
                    "organizationMembershipType": "Organization",
                    "excludedAccountIds": [],
                    "excludedProjectNumbers": [],
                },
            },
            "offerings": [
                {
                    "offeringType": "DefenderForContainersGcp",
                    "enableAuditLogsAutoProvisioning": ON,
                    "enableDefenderAgentAutoProvisioning": ON,
                    "enablePolicyAgentAutoProvisioning": ON,
                    "mdcContainersAgentlessDiscoveryK8s": {"enabled": ON},
                    "mdcContainersImageAssessment": {"enabled": ON},
                    "vmScanners": {"enabled": ON},
                }
            ],
        }
    }
)


def connector(cloud: str, *offerings: str) -> Object:
    return {"properties": {"environmentName": cloud, "offerings": [{"offeringType": kind} for kind in offerings]}}


Case = tuple[type[CloudResource], Object, Object]
GOOD: list[Case] = [
    (AksCluster, CLUSTER[0], LISTS[0]),
    (ContainerRegistry, REGISTRY[0], {}),
    (ArcCluster, ARC, {"extensions": ARC_EXTENSIONS[0]}),
    (AzureSubscription, SUBSCRIPTION, {"pricings": [plan("Containers", "Standard", A="True")]}),
    (SecurityConnector, GCP[0], {}),
    (SecurityConnector, connector("AWS", "CspmMonitorAws", "DefenderForContainersAws"), {}),
]
BAD: list[Case] = [
    (AksCluster, CLUSTER[1], LISTS[1]),
    (ContainerRegistry, REGISTRY[1], {}),
    (ArcCluster, ARC, {"extensions": ARC_EXTENSIONS[1]}),
    (ArcCluster, ARC, {"extensions": []}),
    (AzureSubscription, SUBSCRIPTION, {"pricings": [plan("Containers", "Free"), plan("VirtualMachines", "Standard")]}),
    (AzureSubscription, SUBSCRIPTION, {"pricings": [plan("Containers", "Standard", A="True", B="False")]}),
    (SecurityConnector, GCP[1], {}),
    (SecurityConnector, connector("GCP", "CspmMonitorGcp"), {}),
    (SecurityConnector, connector("AWS", "CspmMonitorAws"), {}),
]


def of_scope(kind: type[CloudResource]) -> list[Check]:
    return [c for c in AZURE if resource_of(c.scope) is kind]


def answers(case: Case, *, keep: bool = True) -> dict[str, str]:
    kind, wire, related = case
    return {c.id: ask(c.id, wire, related=related, keep=keep) for c in of_scope(kind)}


def test_the_good_ones_pass_and_the_bad_ones_fail() -> None:
    for cases, letter in ((GOOD, "P"), (BAD, "F")):
        found = {id for case in cases for id, answer in answers(case).items() if set(answer) == {letter}}
        assert found == {c.id for c in AZURE}


@pytest.mark.parametrize("case", [*GOOD, *BAD], ids=lambda c: c[0].__name__)
def test_what_is_kept_is_enough(case: Case) -> None:
    assert answers(case) == answers(case, keep=False)


def has(value: Any, path: str) -> bool:
    key, _, rest = path.partition(".")
    if isinstance(value, list):
        return any(has(item, path) for item in value)
    values = value.values() if key == "*" else [value[key]] if key in value else []
    return any(not rest or has(v, rest) for v in values)


@pytest.mark.parametrize("case", GOOD[:5], ids=lambda c: c[0].__name__)
def test_samples_hold_every_path_that_is_kept(case: Case) -> None:
    kind, wire, _ = case
    assert not [path for path in kind.KEEP if not has(wire, path)]


# Where nothing sent means nothing is wrong.
GOOD_BY_DEFAULT = {
    "azure-aks-rbac",
    "azure-aks-managed-identity",
    "azure-aks-pod-identity-legacy",
    "azure-aks-kube-dashboard",
    "azure-aks-http-app-routing",
    "azure-acr-admin-user",
    "azure-acr-anonymous-pull",
}


def nulls(value: Any) -> Any:
    """The same shape with every leaf null."""
    if isinstance(value, dict):
        return {k: nulls(v) for k, v in value.items()}
    return [nulls(item) for item in value] if isinstance(value, list) else None


@pytest.mark.parametrize("case", GOOD, ids=lambda c: c[0].__name__)
def test_null_is_absent_and_absent_is_no_pass(case: Case) -> None:
    kind, wire, related = case
    empty = {what: [] for what in related}
    outlines = [{}, dict.fromkeys(wire), {"properties": {}}, {"properties": dict.fromkeys(wire.get("properties", {}))}]
    for outline in outlines:
        found = answers((kind, outline, empty))
        assert {id for id, answer in found.items() if "P" in answer} == GOOD_BY_DEFAULT & set(found)
        assert found == answers((kind, {}, empty))
    for id, answer in answers((kind, nulls(wire), nulls(related))).items():
        assert id in GOOD_BY_DEFAULT or "P" not in answer or id == "azure-aks-node-public-ip"


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys, so that the value there can be replaced."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


NONSENSE = ("true", "x", 7, 0.5, True, [], ["x"], [None], [[]], [{"name": 7}], {}, {"x": None}, {"enabled": "true"})


def mutated(case: Case, replacements: tuple[Any, ...]) -> Iterator[tuple[Any, Any, Case]]:
    """The case with one value replaced, over and over; items of lists beside the resource stay objects."""
    kind, wire, related = copy.deepcopy(case)
    roots = [wire, *(item for items in related.values() for item in items)]
    for container, key in [place for root in roots for place in places(root)]:
        before = container[key]
        for value in replacements:
            container[key] = value
            yield before, value, (kind, wire, related)
        container[key] = before


@pytest.mark.parametrize("case", [*GOOD, *BAD], ids=lambda c: c[0].__name__)
def test_nonsense_never_breaks_a_check(case: Case) -> None:
    for _, _, changed in mutated(case, NONSENSE):
        assert all(set(answer) <= set("PFNU") for answer in answers(changed).values())


def is_wrong(before: Any, value: Any) -> bool:
    """Whether it is of another type than Azure's, and no other spelling of it."""
    return type(value) is not type(before) and not (isinstance(value, bool) and before in ("True", "False"))


@pytest.mark.parametrize("case", BAD, ids=lambda c: c[0].__name__)
def test_what_is_not_understood_never_helps_to_pass(case: Case) -> None:
    bad = {id for id, answer in answers(case).items() if set(answer) == {"F"}}
    for before, value, changed in mutated(case, NONSENSE):
        if is_wrong(before, value):
            found = answers(changed)
            assert {id: found[id] for id in bad if not set(found[id]) <= set("FU")} == {}
