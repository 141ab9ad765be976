"""Google Cloud's rules against JSON as its API sends it, as it could send it, and as it never should.

Answers are P pass, F fail, N not applicable, U unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.cloud import container_v1
from test_aws_rules import NONSENSE, both, mutated, nulls

import checks
from providers.gcp.session import as_json
from scanner.check import Check
from scanner.cloud import CloudResource, kept
from scanner.gcp import COMPARISON, WORKLOAD_IDENTITY, ArtifactRepository, GkeCluster
from scanner.model import Collected, Gap, GapReason, MissingEvidence, Status, Verdict
from scanner.profiles import PROFILES
from scanner.resources import resource_of

Object = dict[str, Any]
LETTERS = {Status.PASS: "P", Status.FAIL: "F", Status.NOT_APPLICABLE: "N"}
OURS = (GkeCluster, ArtifactRepository)
GCP = [c for c in checks.load().values() if resource_of(c.scope) in OURS]
AUTOPILOT: Object = {"autopilot": {"enabled": True}}


def resource(kind: type[CloudResource], wire: Object, related: Object, *, keep: bool = True) -> CloudResource:
    return kind(
        id="//container.googleapis.com/projects/p/locations/l/clusters/x",
        name="x",
        account="p",
        wire=kept(wire, kind.KEEP) if keep else wire,
        related={what: items if isinstance(items, Collected) else Collected(items) for what, items in related.items()},
    )


def verdicts(check: Check, wire: Object, related: Object, *, keep: bool = True, **params: Any) -> Iterator[Verdict]:
    kind = resource_of(check.scope)
    assert kind is not None
    subject = resource(kind, wire, related, keep=keep)
    for one in [subject] if check.scope is kind else subject.components():
        yield check.run(one, **params)


def ask(id: str, wire: Object, *, related: Object | None = None, keep: bool = True, **params: Any) -> str:
    """The letters of the check's answers, one for each subject; U alone where not even these can be told."""
    try:
        found = list(verdicts(checks.load()[id], wire, related or {}, keep=keep, **params))
    except MissingEvidence:
        return "U"
    assert all(v.message for v in found if v.status is Status.FAIL)
    assert all(v.evidence for v in found if v.status in (Status.PASS, Status.FAIL))
    return "".join(LETTERS[v.status] for v in found)


def at(path: str, value: Any) -> Object:
    for key in reversed(path.split(".")):
        value = {key: value}
    result: Object = value
    return result


def pools(*found: Object) -> Object:
    return {"nodePools": [{"name": f"pool-{number}", **pool} for number, pool in enumerate(found, 1)]}


def config(**fields: Any) -> Object:
    return {"config": fields}


# ---------------------------------------------------------------------------------------------------------------------
# Vectors

REPAIR, UPGRADE = "gcp-gke-auto-repair", "gcp-gke-auto-upgrade"


def managed(**flags: Any) -> Object:
    return {"management": flags}


@pytest.mark.parametrize(
    ("id", "flag", "other"), [(REPAIR, "autoRepair", "autoUpgrade"), (UPGRADE, "autoUpgrade", "autoRepair")]
)
def test_management_of_every_pool(id: str, flag: str, other: str) -> None:
    on, off = managed(**{flag: True}), managed(**{other: True})
    assert ask(id, {**AUTOPILOT, **pools({})}) == "P"
    assert ask(id, AUTOPILOT) == "P"
    assert ask(id, pools(off)) == "F"
    assert ask(id, {}) == ask(id, {"nodePools": []}) == "N"
    assert [ask(id, pools(on, on, on, last)) for last in (on, off, {}, managed(**{flag: "true"}))] == [*"PFFU"]
    assert ask(id, pools(managed(**{flag: "true"}), on, on, off)) == "F"


MAKES_POOLS = at("autoscaling.enableNodeAutoprovisioning", True)


@pytest.mark.parametrize(
    ("management", "answer"),
    [
        ({"autoRepair": True, "autoUpgrade": True}, "P"),
        ({"autoRepair": False, "autoUpgrade": False}, "F"),
        ({}, "F"),
        (None, "U"),
        ({"autoRepair": "true", "autoUpgrade": "true"}, "U"),
    ],
)
@pytest.mark.parametrize("id", [REPAIR, UPGRADE])
def test_management_of_pools_that_gke_makes(id: str, management: Any, answer: str) -> None:
    on, off = managed(autoRepair=True, autoUpgrade=True), managed(autoRepair=False, autoUpgrade=False)
    setup = {"enableNodeAutoprovisioning": True, "autoprovisioningNodePoolDefaults": {"management": management}}
    assert ask(id, {"autoscaling": setup}) == answer
    assert ask(id, {"autoscaling": setup, **pools(on, on)}) == answer
    assert ask(id, {"autoscaling": setup, **pools(on, off)}) == "F"
    assert ask(id, {"autoscaling": {**setup, "enableNodeAutoprovisioning": False}, **pools(on)}) == "P"


LOGGING, MONITORING = "gcp-gke-logging", "gcp-gke-monitoring"


def components(*names: Any) -> Object:
    return {"componentConfig": {"enableComponents": list(names)}}


@pytest.mark.parametrize(
    ("service", "setup", "answer"),
    [
        (None, None, "P"),
        ("", None, "P"),
        ("none", None, "F"),
        ("{}.googleapis.com", None, "P"),
        ("{}.googleapis.com/kubernetes", None, "P"),
        ("elsewhere", None, "U"),
        (7, None, "U"),
        (None, {}, "F"),
        (None, {"componentConfig": {}}, "F"),
        (None, {"componentConfig": None}, "F"),
        ("{}.googleapis.com/kubernetes", {"componentConfig": {}}, "F"),
        ("{}.googleapis.com/kubernetes", components("WORKLOADS"), "F"),
        (None, components("WORKLOADS", 97), "F"),
        (None, components("SYSTEM_COMPONENTS"), "P"),
        (None, components(97, "SYSTEM_COMPONENTS"), "P"),
        ("none", components("SYSTEM_COMPONENTS"), "P"),
        (None, components("SYSTEM_COMPONENTS", True), "U"),
        (None, {"componentConfig": {"enableComponents": "SYSTEM_COMPONENTS"}}, "U"),
        (None, "SYSTEM_COMPONENTS", "U"),
    ],
)
@pytest.mark.parametrize(("id", "name"), [(LOGGING, "logging"), (MONITORING, "monitoring")])
def test_what_is_collected(id: str, name: str, service: Any, setup: Any, answer: str) -> None:
    told = service.format(name) if isinstance(service, str) else service
    assert ask(id, {f"{name}Service": told, f"{name}Config": setup}) == answer


@pytest.mark.parametrize(
    ("addons", "answer"),
    [
        (None, "P"),
        ({}, "P"),
        ({"kubernetesDashboard": None}, "P"),
        ({"kubernetesDashboard": {"disabled": True}}, "P"),
        ({"kubernetesDashboard": {}}, "F"),
        ({"kubernetesDashboard": {"disabled": False}}, "F"),
        ({"kubernetesDashboard": {"disabled": None}}, "F"),
        ({"kubernetesDashboard": []}, "U"),
        ({"kubernetesDashboard": True}, "U"),
        ([], "U"),
    ],
)
def test_dashboard_that_is_listed_is_on_unless_it_says_otherwise(addons: Any, answer: str) -> None:
    assert ask("gcp-gke-web-dashboard", {"addonsConfig": addons}) == answer


AUTHORIZED, PRIVATE_ENDPOINT = "gcp-gke-authorized-networks", "gcp-gke-private-endpoint"


def blocks(*ranges: Any) -> Object:
    return {"enabled": True, "cidrBlocks": [{"cidrBlock": each} for each in ranges]}


def endpoints(**fields: Any) -> Object:
    return at("controlPlaneEndpointsConfig.ipEndpointsConfig", fields)


def old(**fields: Any) -> Object:
    return {"masterAuthorizedNetworksConfig": fields}


PUBLIC = endpoints(enabled=True, enablePublicEndpoint=True)


@pytest.mark.parametrize(
    ("wire", "answer", "strict"),
    [
        ({}, "F", "F"),
        (old(**blocks("10.0.0.0/8")), "P", "P"),
        (old(**blocks("0.0.0.0/0")), "F", "P"),
        (old(**blocks("10.0.0.0/8", "::/0")), "F", "P"),
        (old(**blocks("0.0.0.0/1", "128.0.0.0/1")), "F", "P"),
        (old(**blocks("0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3")), "F", "P"),
        (old(**blocks("10.0.0.0/8", "home")), "U", "P"),
        (old(**blocks("home", "0.0.0.0/0")), "F", "P"),
        (old(**blocks("10.0.0.0/8", None)), "U", "P"),
        (old(enabled=True), "P", "P"),
        (old(), "F", "F"),
        (old(enabled=False, cidrBlocks=[{"cidrBlock": "10.0.0.0/8"}]), "F", "F"),
        (old(enabled="true"), "U", "U"),
        (old(enabled=True, gcpPublicCidrsAccessEnabled=True), "P", "P"),
        (endpoints(enabled=True, enablePublicEndpoint=True, authorizedNetworksConfig={"enabled": True}), "P", "P"),
        (endpoints(enablePublicEndpoint=True, authorizedNetworksConfig=blocks("0.0.0.0/0")), "F", "P"),
        ({**endpoints(authorizedNetworksConfig={}), **old(**blocks("10.0.0.0/8"))}, "F", "F"),
        ({**endpoints(authorizedNetworksConfig=None), **old(**blocks("10.0.0.0/8"))}, "P", "P"),
        ({**PUBLIC, **old(**blocks("10.0.0.0/8"))}, "P", "P"),
        (endpoints(enabled=False), "P", "F"),
        (endpoints(enabled=False, enablePublicEndpoint=True), "P", "F"),
        (endpoints(enabled=True), "F", "F"),
        (endpoints(enabled=True, enablePublicEndpoint=False), "P", "F"),
        (endpoints(enabled="false"), "U", "F"),
        (PUBLIC, "F", "F"),
        (at("privateClusterConfig.enablePrivateEndpoint", True), "P", "F"),
        ({**PUBLIC, **at("privateClusterConfig.enablePrivateEndpoint", True)}, "F", "F"),
        (at("privateClusterConfig", {"enablePrivateNodes": True}), "F", "F"),
        (AUTOPILOT, "F", "F"),
    ],
)
def test_authorized_networks(wire: Object, answer: str, strict: str) -> None:
    assert ask(AUTHORIZED, wire) == answer
    assert ask(AUTHORIZED, wire, azure_rules=True) == strict


@pytest.mark.parametrize(
    ("dns", "answer"),
    [
        ({}, "P"),
        ({"allowExternalTraffic": True}, "P"),
        ({"allowExternalTraffic": True, "enableK8sTokensViaDns": False, "enableK8sCertsViaDns": False}, "P"),
        ({"allowExternalTraffic": True, "enableK8sTokensViaDns": True}, "F"),
        ({"allowExternalTraffic": True, "enableK8sTokensViaDns": False, "enableK8sCertsViaDns": True}, "F"),
        ({"allowExternalTraffic": False, "enableK8sTokensViaDns": True, "enableK8sCertsViaDns": True}, "P"),
        ({"enableK8sTokensViaDns": True}, "P"),
        ({"allowExternalTraffic": "true"}, "U"),
        ({"allowExternalTraffic": True, "enableK8sTokensViaDns": 1}, "U"),
        ([], "U"),
    ],
)
@pytest.mark.parametrize("id", [AUTHORIZED, PRIVATE_ENDPOINT])
def test_the_name_is_judged_where_it_does_not_ask_iam(id: str, dns: Any, answer: str) -> None:
    def with_address(**address: Any) -> Object:
        return {"controlPlaneEndpointsConfig": {"dnsEndpointConfig": dns, "ipEndpointsConfig": address}}

    for private in ({"enabled": False}, {"enabled": True, "enablePublicEndpoint": False}):
        assert ask(id, with_address(**private)) == answer
    assert ask(id, with_address(enabled=True, enablePublicEndpoint=True)) == "F"
    fenced = with_address(enablePublicEndpoint=True, authorizedNetworksConfig=blocks("10.0.0.0/8"))
    assert ask(id, fenced) == ("F" if id == PRIVATE_ENDPOINT else answer)
    assert ask(id, with_address(enabled="odd")) == ("F" if answer == "F" else "U")


@pytest.mark.parametrize(
    ("wire", "answer"),
    [
        ({}, "F"),
        (AUTOPILOT, "F"),
        (PUBLIC, "F"),
        (endpoints(), "F"),
        (endpoints(enabled=True, enablePublicEndpoint=False), "P"),
        (endpoints(enabled=False), "P"),
        (at("privateClusterConfig", {}), "F"),
        (at("privateClusterConfig.enablePrivateEndpoint", True), "P"),
        ({**PUBLIC, **at("privateClusterConfig.enablePrivateEndpoint", True)}, "F"),
        (
            {**endpoints(enablePublicEndpoint=False), **at("privateClusterConfig.enablePrivateEndpoint", False)},
            "P",
        ),
        (old(**blocks("10.0.0.0/8")), "F"),
        (endpoints(enablePublicEndpoint=7), "U"),
    ],
)
def test_private_endpoint(wire: Object, answer: str) -> None:
    assert ask(PRIVATE_ENDPOINT, wire) == answer


PRIVATE = "gcp-gke-private-cluster"
NEW, OLD = "networkConfig.defaultEnablePrivateNodes", "privateClusterConfig.enablePrivateNodes"


def own(value: Any) -> Object:
    return at("networkConfig.enablePrivateNodes", value)


@pytest.mark.parametrize(
    ("wire", "answer"),
    [
        ({}, "F"),
        (AUTOPILOT, "F"),
        (at("privateClusterConfig", {}), "F"),
        (at(OLD, True), "P"),
        (at(NEW, True), "P"),
        ({**at(NEW, False), **at(OLD, True)}, "F"),
        ({**at(NEW, True), **at(OLD, False)}, "P"),
        ({**at(NEW, True), **pools({}, {}, {}, own(False))}, "F"),
        ({**at(NEW, False), **pools(own(True), own(True))}, "P"),
        ({**at(NEW, False), **pools(own(True), {})}, "F"),
        ({**at(OLD, True), **pools({}, own(None))}, "P"),
        (pools(own(True), own(True), own(True), {}), "F"),
        ({**at(NEW, True), **pools(own("true"), {})}, "U"),
        ({**at(NEW, True), **pools(own("true"), own(False))}, "F"),
        (at(NEW, "true"), "U"),
        ({**at(NEW, False), **MAKES_POOLS, **pools(own(True))}, "F"),
        ({**MAKES_POOLS, **pools(own(True), own(True))}, "F"),
        ({**at(NEW, True), **MAKES_POOLS, **pools(own(True))}, "P"),
        ({**at(NEW, False), **AUTOPILOT, **pools(own(True))}, "F"),
        ({**at(NEW, False), **MAKES_POOLS, **pools(own("true"))}, "F"),
    ],
)
def test_private_nodes(wire: Object, answer: str) -> None:
    assert ask(PRIVATE, wire) == answer


NETWORK_POLICY = "gcp-gke-network-policy"


def addon(setting: Any) -> Object:
    return at("addonsConfig.networkPolicyConfig", setting)


V2 = at("networkConfig.datapathProvider", "ADVANCED_DATAPATH")
NODES = at("networkPolicy.enabled", True)


@pytest.mark.parametrize(
    ("wire", "answer", "strict"),
    [
        ({}, "F", "F"),
        (V2, "P", "F"),
        ({**addon({"disabled": True}), **V2}, "P", "F"),
        (addon({}), "F", "P"),
        ({**addon({}), **NODES}, "P", "P"),
        ({**addon({"disabled": True}), **NODES}, "F", "F"),
        (NODES, "P", "F"),
        ({**addon(None), **NODES}, "P", "F"),
        (addon({"disabled": True}), "F", "F"),
        ({**addon({}), **at("networkPolicy.provider", "CALICO")}, "F", "P"),
        (AUTOPILOT, "F", "F"),
        ({**AUTOPILOT, **V2}, "P", "F"),
        (at("networkConfig.datapathProvider", 7), "U", "F"),
        ({**addon({}), **NODES, **at("networkConfig.datapathProvider", "THIRD")}, "U", "P"),
    ],
)
def test_network_policy(wire: Object, answer: str, strict: str) -> None:
    assert ask(NETWORK_POLICY, wire) == answer
    assert ask(NETWORK_POLICY, wire, azure_rules=True) == strict


def test_profile_defender_asks_for_microsofts_answers() -> None:
    strict = {c.id for c in GCP if PROFILES["defender"].values(c).get("azure_rules")}
    assert strict == {AUTHORIZED, NETWORK_POLICY}


# Present and good, present and bad, absent.
FLAGS = [
    ("gcp-gke-legacy-abac", "legacyAbac.enabled", False, True, "P"),
    ("gcp-gke-alias-ip", "ipAllocationPolicy.useIpAliases", True, False, "F"),
    ("gcp-gke-shielded-nodes", "shieldedNodes.enabled", True, False, "F"),
    ("gcp-gke-intranode-visibility", "networkConfig.enableIntraNodeVisibility", True, False, "F"),
    ("gcp-gke-client-certificate", "masterAuth.clientCertificateConfig.issueClientCertificate", False, True, "P"),
    ("gcp-gke-client-certificate", "masterAuth.clientCertificate", "", "LS0t", "P"),
    ("gcp-gke-basic-auth", "masterAuth.username", "", "admin", "P"),
    ("gcp-gke-google-groups", "authenticatorGroupsConfig.enabled", True, False, "F"),
    ("gcp-gke-alpha-cluster", "enableKubernetesAlpha", False, True, "P"),
    ("gcp-gke-workload-identity", "workloadIdentityConfig.workloadPool", "p.svc.id.goog", "", "F"),
    ("gcp-gke-binary-authorization", "binaryAuthorization.enabled", True, False, "F"),
]


@pytest.mark.parametrize(("id", "path", "good", "bad", "absent"), FLAGS)
def test_present_and_absent(id: str, path: str, good: Any, bad: Any, absent: str) -> None:
    assert (ask(id, at(path, good)), ask(id, at(path, bad)), ask(id, {})) == ("P", "F", absent)
    assert ask(id, at(path, None)) == ask(id, {path.partition(".")[0]: None}) == absent
    assert ask(id, at(path, 7)) == "U"


ENUMS = container_v1
WORDS: list[tuple[str, str, Any, set[str]]] = [
    ("gcp-gke-release-channel", "releaseChannel.channel", ENUMS.ReleaseChannel.Channel,
     {"RAPID", "REGULAR", "STABLE", "EXTENDED"}),
    ("gcp-gke-anonymous-auth", "anonymousAuthenticationConfig.mode", ENUMS.AnonymousAuthenticationConfig.Mode,
     {"LIMITED"}),
    ("gcp-gke-security-posture", "securityPostureConfig.mode", ENUMS.SecurityPostureConfig.Mode,
     {"BASIC", "ENTERPRISE"}),
    ("gcp-gke-binary-authorization", "binaryAuthorization.evaluationMode", ENUMS.BinaryAuthorization.EvaluationMode,
     {"PROJECT_SINGLETON_POLICY_ENFORCE"}),
    ("gcp-gke-secrets-cmek", "databaseEncryption.state", ENUMS.DatabaseEncryption.State,
     {"ENCRYPTED", "ALL_OBJECTS_ENCRYPTION_ENABLED"}),
    ("gcp-gke-in-transit-encryption", "networkConfig.inTransitEncryptionConfig", ENUMS.InTransitEncryptionConfig,
     {"IN_TRANSIT_ENCRYPTION_INTER_NODE_TRANSPARENT"}),
    (NETWORK_POLICY, "networkConfig.datapathProvider", ENUMS.DatapathProvider, {"ADVANCED_DATAPATH"}),
]  # fmt: skip


@pytest.mark.parametrize(("id", "path", "enum", "good"), WORDS, ids=lambda v: v if isinstance(v, str) else "")
def test_every_word_that_google_has_is_understood(id: str, path: str, enum: Any, good: set[str]) -> None:
    answers = {value.name: ask(id, at(path, value.name)) for value in enum}
    assert good <= set(answers)
    assert answers == {name: "P" if name in good else "F" for name in answers}
    assert ask(id, at(path, 97)) == ask(id, at(path, "BETTER")) == "U"


def test_the_state_that_holds_counts_and_not_the_one_that_was_asked_for() -> None:
    def state(wanted: Any, now: Any) -> str:
        return ask("gcp-gke-secrets-cmek", {"databaseEncryption": {"state": wanted, "currentState": now}})

    good = {"CURRENT_STATE_ENCRYPTED", "CURRENT_STATE_ALL_OBJECTS_ENCRYPTION_ENABLED"}
    names = [s.name for s in ENUMS.DatabaseEncryption.CurrentState if s.value]
    assert {name: state("ENCRYPTED", name) for name in names} == {n: "P" if n in good else "F" for n in names}
    assert state("DECRYPTED", "CURRENT_STATE_ENCRYPTED") == "P"
    assert state("ENCRYPTED", 99) == "U"


def test_binary_authorization_ignores_the_old_flag_where_a_mode_is_set() -> None:
    def setup(mode: Any, flag: Any = None) -> str:
        return ask("gcp-gke-binary-authorization", {"binaryAuthorization": {"evaluationMode": mode, "enabled": flag}})

    assert [setup("DISABLED", True), setup(None, True), setup("EVALUATION_MODE_UNSPECIFIED", True)] == [*"FPP"]
    assert [setup("POLICY_BINDINGS"), setup("POLICY_BINDINGS_AND_PROJECT_SINGLETON_POLICY_ENFORCE")] == [*"FP"]


@pytest.mark.parametrize(
    ("unauthenticated", "authenticated", "answer"),
    [(False, False, "P"), (False, True, "F"), (True, False, "F"), (False, None, "F"), (None, False, "F"),
     (None, None, "F"), (False, "false", "U")],
)  # fmt: skip
def test_bindings_to_everyone_are_allowed_unless_both_are_refused(
    unauthenticated: Any, authenticated: Any, answer: str
) -> None:
    name = "enableInsecureBindingSystem"
    setup = {f"{name}Unauthenticated": unauthenticated, f"{name}Authenticated": authenticated}
    assert ask("gcp-gke-insecure-rbac-bindings", {"rbacBindingConfig": setup}) == answer


# ---------------------------------------------------------------------------------------------------------------------
# Node pools

ACCOUNT, SCOPES = "gcp-gke-default-service-account", "gcp-gke-oauth-scopes"
OWN = "nodes@p.iam.gserviceaccount.com"


@pytest.mark.parametrize(
    ("account", "default"),
    [
        (OWN, False),
        ("default", True),
        ("Default", True),
        ("", True),
        (None, True),
        ("480562348923-compute@developer.gserviceaccount.com", True),
        ("x480562348923-compute@developer.gserviceaccount.com.example.com", False),
        ("my-default@p.iam.gserviceaccount.com", False),
    ],
)
def test_default_account_by_any_name(account: str | None, default: bool) -> None:
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    last = config(serviceAccount=account, oauthScopes=scopes)
    others = [config(serviceAccount=OWN, oauthScopes=scopes)] * 3
    assert ask(ACCOUNT, pools(*others, last)) == "PF"[default]
    assert ask(SCOPES, pools(*others, last)) == "PPP" + "PF"[default]
    made = at("autoscaling.autoprovisioningNodePoolDefaults.serviceAccount", account)
    assert ask(ACCOUNT, {**AUTOPILOT, **made}) == "PF"[default]
    assert ask(ACCOUNT, {**pools(*others), **made}) == "P"
    made["autoscaling"]["enableNodeAutoprovisioning"] = True
    assert ask(ACCOUNT, {**pools(*others), **made}) == "PF"[default]


def test_scopes_of_the_default_account() -> None:
    def scopes(*names: Any) -> str:
        return ask(SCOPES, pools(config(serviceAccount="default", oauthScopes=list(names))))

    full = "https://www.googleapis.com/auth/"
    assert [scopes(), scopes(f"{full}devstorage.read_only"), scopes("cloud-platform")] == [*"PPF"]
    assert [scopes(f"{full}cloud-platform.read-only"), scopes(f"{full}compute", f"{full}cloud-platform")] == [*"PF"]
    assert scopes(f"{full}devstorage.read_only", f"{full}cloud-platform/") == "F"
    assert scopes(7) == "U"


def shielded(**fields: Any) -> Object:
    return config(shieldedInstanceConfig=fields)


# check -> a good pool, bad pools, one that is not understood
OF_POOLS: dict[str, tuple[Object, list[Object], Object]] = {
    "gcp-gke-metadata-server": (
        config(workloadMetadataConfig={"mode": "GKE_METADATA"}),
        [{}, config(workloadMetadataConfig={}), config(workloadMetadataConfig={"mode": "GCE_METADATA"})],
        config(workloadMetadataConfig={"mode": 9}),
    ),
    "gcp-gke-legacy-metadata": (
        config(metadata={"disable-legacy-endpoints": "true"}),
        [{}, config(metadata={}), config(metadata={"disable-legacy-endpoints": "false"})],
        config(metadata={"disable-legacy-endpoints": True}),
    ),
    "gcp-gke-cos-image": (
        config(imageType="COS_CONTAINERD"),
        [config(imageType="UBUNTU_CONTAINERD"), config(imageType="")],
        {},
    ),
    "gcp-gke-integrity-monitoring": (
        shielded(enableIntegrityMonitoring=True),
        [{}, shielded(enableSecureBoot=True)],
        shielded(enableIntegrityMonitoring="true"),
    ),
    "gcp-gke-secure-boot": (
        shielded(enableSecureBoot=True),
        [{}, shielded(enableIntegrityMonitoring=True), config(accelerators=[])],
        shielded(enableSecureBoot="true"),
    ),
    "gcp-gke-boot-disk-cmek": (config(bootDiskKmsKey="k"), [{}, config(bootDiskKmsKey="")], config(bootDiskKmsKey=7)),
    "gcp-gke-confidential-nodes": (
        config(confidentialNodes={"enabled": True}),
        [{}, config(confidentialNodes={})],
        config(confidentialNodes={"enabled": "true"}),
    ),
}


@pytest.mark.parametrize("id", OF_POOLS)
def test_every_pool_is_judged_by_itself(id: str) -> None:
    good, bad, odd = OF_POOLS[id]
    assert [ask(id, pools(good, good, good, one)) for one in bad] == ["PPPF"] * len(bad)
    assert ask(id, pools(odd)) == "U"
    assert ask(id, {}) == ask(id, {"nodePools": None}) == ""


def test_windows_and_gpus() -> None:
    assert ask("gcp-gke-cos-image", pools(config(imageType="WINDOWS_LTSC_CONTAINERD"))) == "N"

    def gpu(image: Any) -> str:
        with_gpu = config(imageType=image, accelerators=[{"acceleratorType": "nvidia-l4"}])
        return ask("gcp-gke-secure-boot", pools(with_gpu))

    images = ("UBUNTU_CONTAINERD", "WINDOWS_LTSC_CONTAINERD", "COS_CONTAINERD", "cos", None, 7)
    assert [gpu(image) for image in images] == [*"NNFFUU"]
    both_set = config(
        accelerators=[{"acceleratorType": "nvidia-l4"}], shieldedInstanceConfig={"enableSecureBoot": True}
    )
    assert ask("gcp-gke-secure-boot", pools(both_set)) == "P"


def test_confidential_nodes_of_the_whole_cluster() -> None:
    assert ask("gcp-gke-confidential-nodes", {**at("confidentialNodes.enabled", True), **pools({}, {})}) == "PP"


def test_one_pool_for_untrusted_pods_is_enough() -> None:
    def sandbox(*types: Any) -> str:
        return ask("gcp-gke-sandbox", pools(*(config(sandboxConfig={"type": kind}) for kind in types)))

    assert [sandbox(None, "GVISOR"), sandbox("UNSPECIFIED", None), sandbox(None, 9), sandbox()] == [*"PFUN"]
    assert ask("gcp-gke-sandbox", {**AUTOPILOT, **pools({})}) == "N"
    assert ask("gcp-gke-sandbox", MAKES_POOLS) == "U"


PORT = "gcp-gke-insecure-kubelet-port"
SETTING = "insecureKubeletReadonlyPortEnabled"
BY_DEFAULT = f"nodePoolDefaults.nodeConfigDefaults.nodeKubeletConfig.{SETTING}"
MADE, MADE_ONCE = (
    f"nodePoolAutoConfig.nodeKubeletConfig.{SETTING}",
    f"autoscaling.autoprovisioningNodePoolDefaults.{SETTING}",
)


def port(value: Any) -> Object:
    return config(kubeletConfig={SETTING: value})


@pytest.mark.parametrize(
    ("wire", "answer"),
    [
        ({}, "N"),
        (at(BY_DEFAULT, False), "N"),
        (at(BY_DEFAULT, True), "F"),
        (pools(port(False), port(False)), "P"),
        (pools(port(False), port(False), port(False), port(True)), "F"),
        (pools(port(False), {}), "U"),
        (pools({}, port(True)), "F"),
        ({**pools({}, {}), **at(BY_DEFAULT, False)}, "P"),
        ({**pools({}, {}), **at(BY_DEFAULT, True)}, "F"),
        ({**pools(port(False)), **at(BY_DEFAULT, True)}, "F"),
        ({**pools(port(False)), **at(MADE, True)}, "F"),
        ({**pools(port(False)), **at(MADE_ONCE, True)}, "F"),
        ({**pools(port(False)), **at(MADE_ONCE, "true")}, "U"),
        ({**pools(port(True)), **at(MADE_ONCE, "true")}, "F"),
        ({**pools({}), **at(MADE, False)}, "U"),
        (AUTOPILOT, "U"),
        ({**AUTOPILOT, **at(MADE, False)}, "P"),
        ({**AUTOPILOT, **at(MADE, True)}, "F"),
        ({**AUTOPILOT, **pools({}), **at(MADE, False)}, "P"),
        ({**AUTOPILOT, **pools({}), **at(BY_DEFAULT, False)}, "U"),
        ({**AUTOPILOT, **at(BY_DEFAULT, False)}, "U"),
        (MAKES_POOLS, "U"),
        ({**MAKES_POOLS, **pools(port(False))}, "U"),
        ({**MAKES_POOLS, **at(MADE, False)}, "P"),
        ({**MAKES_POOLS, **pools(port(False)), **at(MADE, False)}, "P"),
        ({**MAKES_POOLS, **pools(port(False)), **at(MADE, True)}, "F"),
    ],
)
def test_kubelet_port(wire: Object, answer: str) -> None:
    assert ask(PORT, wire) == answer


# ---------------------------------------------------------------------------------------------------------------------
# Autopilot

FIXED = {
    REPAIR: COMPARISON,
    UPGRADE: COMPARISON,
    "gcp-gke-alias-ip": COMPARISON,
    "gcp-gke-cos-image": COMPARISON,
    "gcp-gke-secure-boot": COMPARISON,
    "gcp-gke-shielded-nodes": COMPARISON,
    "gcp-gke-metadata-server": WORKLOAD_IDENTITY,
    "gcp-gke-workload-identity": WORKLOAD_IDENTITY,
}


CLUSTER_CHECKS = [c for c in GCP if resource_of(c.scope) is GkeCluster]


@pytest.mark.parametrize("check", [c for c in CLUSTER_CHECKS if c.id in FIXED], ids=lambda c: c.id)
def test_autopilot_passes_where_google_says_so(check: Check) -> None:
    (verdict,) = verdicts(check, {**AUTOPILOT, **pools({})}, {})
    assert verdict.status is Status.PASS
    assert [e.value.rpartition(": ")[2] for e in verdict.evidence if e.path == "autopilot.enabled"] == [FIXED[check.id]]
    assert ask(check.id, {"autopilot": {"enabled": "true"}, **pools({})}) == "U"


SECURE_BOOT = "gcp-gke-secure-boot"
ON_EVERY_NODE = "gcp-gke-shielded-nodes"


# What is not sent is as Google says; what is sent counts; and what is missing where its neighbours are sent is unknown.
@pytest.mark.parametrize(
    ("id", "sent", "answer"),
    [
        ("gcp-gke-metadata-server", {}, "PP"),
        ("gcp-gke-metadata-server", config(imageType="COS_CONTAINERD"), "PP"),
        ("gcp-gke-metadata-server", config(workloadMetadataConfig={"mode": "GKE_METADATA"}), "PP"),
        ("gcp-gke-metadata-server", config(workloadMetadataConfig={"mode": "GCE_METADATA"}), "PF"),
        ("gcp-gke-cos-image", {}, "PP"),
        ("gcp-gke-cos-image", config(imageType="COS_CONTAINERD"), "PP"),
        ("gcp-gke-cos-image", config(imageType="UBUNTU_CONTAINERD"), "PF"),
        (SECURE_BOOT, {}, "PP"),
        (SECURE_BOOT, shielded(enableSecureBoot=True), "PP"),
        (SECURE_BOOT, shielded(enableSecureBoot=False), "PF"),
        (UPGRADE, {}, "P"),
        (UPGRADE, managed(autoUpgrade=True), "P"),
        (UPGRADE, managed(autoUpgrade=False), "F"),
        (UPGRADE, managed(autoRepair=True), "U"),
        (REPAIR, managed(autoRepair=False), "F"),
        (REPAIR, managed(), "U"),
    ],
)
def test_standard_pools_of_autopilot_clusters(id: str, sent: Object, answer: str) -> None:
    assert ask(id, {**AUTOPILOT, **pools({}, sent)}) == answer


@pytest.mark.parametrize(
    ("id", "sent"),
    [
        ("gcp-gke-metadata-server", config(workloadMetadataConfig={})),
        (SECURE_BOOT, shielded(enableIntegrityMonitoring=True)),
        (SECURE_BOOT, shielded()),
    ],
)
def test_what_autopilot_pools_withhold_is_unknown(id: str, sent: Object) -> None:
    assert ask(id, {**AUTOPILOT, **pools(sent)}) == "U"


@pytest.mark.parametrize(
    ("id", "sent", "answer"),
    [
        (ON_EVERY_NODE, {"shieldedNodes": {"enabled": False}}, "F"),
        (ON_EVERY_NODE, {"shieldedNodes": {}}, "U"),
        (ON_EVERY_NODE, {"shieldedNodes": None}, "P"),
        ("gcp-gke-alias-ip", {"ipAllocationPolicy": {"useRoutes": True}}, "F"),
        ("gcp-gke-alias-ip", {"ipAllocationPolicy": {"useIpAliases": False}}, "F"),
        ("gcp-gke-alias-ip", {"ipAllocationPolicy": {"useIpAliases": True}}, "P"),
        ("gcp-gke-alias-ip", {"ipAllocationPolicy": {"useRoutes": False}}, "U"),
        ("gcp-gke-workload-identity", {"workloadIdentityConfig": {"workloadPool": ""}}, "F"),
        ("gcp-gke-workload-identity", {"workloadIdentityConfig": {"workloadPool": "p.svc.id.goog"}}, "P"),
        ("gcp-gke-workload-identity", {"workloadIdentityConfig": {}}, "U"),
    ],
)
def test_autopilot_clusters_that_say_otherwise(id: str, sent: Object, answer: str) -> None:
    assert ask(id, {**AUTOPILOT, **sent}) == answer


@pytest.mark.parametrize("check", [c for c in CLUSTER_CHECKS if c.id not in FIXED], ids=lambda c: c.id)
def test_autopilot_alone_makes_nothing_else_pass(check: Check) -> None:
    standard, autopilot = (ask(check.id, {**wire, **pools({})}) for wire in ({}, AUTOPILOT))
    assert autopilot == standard or set(autopilot) <= set("FNU")


@pytest.mark.parametrize("setting", [{}, {"enabled": False}, None])
def test_what_is_no_autopilot_cluster(setting: Any) -> None:
    for check in CLUSTER_CHECKS:
        assert ask(check.id, {"autopilot": setting, **pools({})}) == ask(check.id, pools({}))


# ---------------------------------------------------------------------------------------------------------------------
# Repositories

PUBLIC_REPOSITORY = "gcp-gar-public"


@pytest.mark.parametrize(
    ("bindings", "answer"),
    [
        ([], "P"),
        (None, "P"),
        ([["user:a@example.com"]], "P"),
        ([[]], "P"),
        ([["user:a@example.com", "allUsers"]], "F"),
        ([["user:a@example.com"], ["allAuthenticatedUsers"]], "F"),
        ([["ALLUSERS"]], "F"),
        ([["domain:example.com", "principalSet://goog/public:all"]], "F"),
        ([["user:allUsers@example.com"]], "P"),
        ([None], "U"),
        (["allUsers"], "U"),
        ([[7]], "U"),
        ([None, ["allUsers"]], "F"),
    ],
)
def test_public_repository(bindings: Any, answer: str) -> None:
    listed = bindings and [{"role": f"roles/{n}", "members": members} for n, members in enumerate(bindings)]
    assert ask(PUBLIC_REPOSITORY, {}, related={"iamPolicy": [{"bindings": listed}]}) == answer


def test_a_policy_that_was_not_told_is_unknown() -> None:
    assert ask(PUBLIC_REPOSITORY, {}, related={"iamPolicy": []}) == "U"
    assert ask(PUBLIC_REPOSITORY, {}, related={"iamPolicy": [{"bindings": "x"}]}) == "U"
    assert ask(PUBLIC_REPOSITORY, {}) == "U"
    denied = Collected[Object](gaps=[Gap(what="iamPolicy", reason=GapReason.FORBIDDEN)])
    assert ask(PUBLIC_REPOSITORY, {}, related={"iamPolicy": denied}) == "U"


@pytest.mark.parametrize(
    ("format", "mode", "scanning", "tags"),
    [
        ("DOCKER", None, "P", "P"),
        ("DOCKER", "STANDARD_REPOSITORY", "P", "P"),
        ("DOCKER", "REMOTE_REPOSITORY", "P", "N"),
        ("DOCKER", "VIRTUAL_REPOSITORY", "N", "N"),
        ("MAVEN", "STANDARD_REPOSITORY", "N", "N"),
        ("FORMAT_UNSPECIFIED", "STANDARD_REPOSITORY", "U", "U"),
        ("NEWER", "STANDARD_REPOSITORY", "U", "U"),
        ("", "STANDARD_REPOSITORY", "U", "U"),
        (None, "STANDARD_REPOSITORY", "U", "U"),
        (9, "STANDARD_REPOSITORY", "U", "U"),
        ("DOCKER", 9, "U", "U"),
    ],
)
def test_kinds_of_repositories(format: Any, mode: Any, scanning: str, tags: str) -> None:
    wire = {
        "format": format,
        "mode": mode,
        "vulnerabilityScanningConfig": {"enablementState": "SCANNING_ACTIVE"},
        "dockerConfig": {"immutableTags": True},
    }
    assert (ask("gcp-gar-vulnerability-scanning", wire), ask("gcp-gar-immutable-tags", wire)) == (scanning, tags)


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        ("SCANNING_ACTIVE", "P"),
        ("SCANNING_DISABLED", "F"),
        ("SCANNING_UNSUPPORTED", "F"),
        ("ENABLEMENT_STATE_UNSPECIFIED", "U"),
        (None, "U"),
        (9, "U"),
    ],
)
def test_scanning_is_judged_by_what_holds_in_the_end(state: Any, answer: str) -> None:
    for wanted in (None, "INHERITED", "DISABLED"):
        setup = {"enablementState": state, "enablementConfig": wanted}
        wire = {"format": "DOCKER", "vulnerabilityScanningConfig": setup}
        assert ask("gcp-gar-vulnerability-scanning", wire) == answer


def test_what_is_off_unless_selected() -> None:
    assert {c.id for c in GCP if not c.on} == {"gcp-gke-sandbox", "gcp-gke-boot-disk-cmek", "gcp-gar-cmek"}


@pytest.mark.parametrize("status", ["PROVISIONING", "STOPPING", "RUNNING", "RECONCILING", "ERROR", "DEGRADED", None])
def test_clusters_that_come_or_go_are_not_judged(status: str | None) -> None:
    cluster = resource(GkeCluster, {"status": status}, {})
    assert cluster.unjudged == ("lifecycle" if status in ("PROVISIONING", "STOPPING") else "")


# ---------------------------------------------------------------------------------------------------------------------
# What others get wrong


def test_an_account_that_is_not_sent_is_the_default_one() -> None:
    assert ask(ACCOUNT, {**AUTOPILOT, "nodePools": [{"name": "a", "config": {}}]}) == "F"
    assert ask(ACCOUNT, {"nodePools": [{"name": "a"}]}) == "F"


@pytest.mark.parametrize("account", [OWN, "default"])
def test_no_check_stops_at_the_first_pool(account: str) -> None:
    good = config(serviceAccount=OWN)
    assert ask(ACCOUNT, pools(good, good, good, config(serviceAccount=account))) == {OWN: "P", "default": "F"}[account]


def test_a_block_that_exists_says_nothing_by_itself() -> None:
    assert ask(PRIVATE, {"privateClusterConfig": {}}) == ask(PRIVATE, at(OLD, False)) == "F"
    assert ask(AUTHORIZED, old()) == ask(AUTHORIZED, old(cidrBlocks=[])) == "F"
    assert ask(PRIVATE_ENDPOINT, {"privateClusterConfig": {"enablePrivateNodes": True}}) == "F"
    assert ask("gcp-gke-alias-ip", {"ipAllocationPolicy": {}}) == "F"


def test_dataplane_v2_needs_no_network_policy_block() -> None:
    assert ask(NETWORK_POLICY, V2) == "P"


def test_a_logging_service_alone_does_not_make_logs() -> None:
    assert ask(LOGGING, {"loggingService": "logging.googleapis.com/kubernetes", "loggingConfig": {}}) == "F"


def test_private_nodes_are_no_private_endpoint_and_the_other_way_round() -> None:
    assert ask(PRIVATE_ENDPOINT, at(OLD, True)) == "F"
    assert ask(PRIVATE, endpoints(enablePublicEndpoint=False)) == "F"


# ---------------------------------------------------------------------------------------------------------------------
# Google's own definition of a cluster


def field(message: Any, path: str) -> Any:
    """The descriptor of a field by its path in JSON; raises KeyError."""
    key, _, rest = path.partition(".")
    found = message.fields_by_camelcase_name[key]
    is_map = found.message_type is not None and found.message_type.GetOptions().map_entry
    return field(found.message_type, rest) if rest and not is_map else found


DESCRIPTOR = container_v1.Cluster.pb().DESCRIPTOR


@pytest.mark.parametrize("path", [*GkeCluster.KEEP, *GkeCluster.DEFAULTS])
def test_google_knows_every_path(path: str) -> None:
    assert field(DESCRIPTOR, path)


def test_a_cluster_as_the_client_library_reads_it() -> None:
    v1 = container_v1
    off = v1.NodeManagement(auto_repair=False, auto_upgrade=True)
    cluster = v1.Cluster(
        addons_config=v1.AddonsConfig(kubernetes_dashboard=v1.KubernetesDashboard(disabled=False)),
        network_config=v1.NetworkConfig(datapath_provider="ADVANCED_DATAPATH", default_enable_private_nodes=False),
        private_cluster_config=v1.PrivateClusterConfig(enable_private_nodes=True),
        logging_config=v1.LoggingConfig(component_config=v1.LoggingComponentConfig()),
        monitoring_config=v1.MonitoringConfig(component_config={"enable_components": [1, 97]}),
        release_channel=v1.ReleaseChannel(channel=97),
        node_pools=[
            v1.NodePool(name="a", management=off),
            v1.NodePool(name="b", network_config={"enable_private_nodes": True}),
        ],
    )
    wire = as_json(v1.Cluster.pb(cluster))
    found = {c.id: ask(c.id, wire) for c in CLUSTER_CHECKS}
    answers = {
        "gcp-gke-web-dashboard": "F",
        NETWORK_POLICY: "P",
        PRIVATE: "F",
        LOGGING: "F",
        MONITORING: "P",
        "gcp-gke-release-channel": "U",
        REPAIR: "F",
        UPGRADE: "F",
        "gcp-gke-legacy-abac": "P",
    }
    assert {id: found[id] for id in answers} == answers


# ---------------------------------------------------------------------------------------------------------------------
# Nothing sent, and nonsense sent

ON, OFF = (True, False), (False, True)
CLUSTER = both(
    {
        "status": "RUNNING",
        "currentMasterVersion": "1.34.1-gke.100",
        "endpoint": "203.0.113.1",
        "addonsConfig": {"kubernetesDashboard": {"disabled": ON}, "networkPolicyConfig": {"disabled": OFF}},
        "anonymousAuthenticationConfig": {"mode": ("LIMITED", "ENABLED")},
        "authenticatorGroupsConfig": {"enabled": ON},
        "autopilot": {"enabled": False},
        "autoscaling": {
            "enableNodeAutoprovisioning": True,
            "autoprovisioningNodePoolDefaults": {
                SETTING: OFF,
                "management": {"autoRepair": ON, "autoUpgrade": ON},
                "serviceAccount": (OWN, "default"),
            },
        },
        "binaryAuthorization": {"enabled": False, "evaluationMode": ("PROJECT_SINGLETON_POLICY_ENFORCE", "DISABLED")},
        "confidentialNodes": {"enabled": ON},
        "controlPlaneEndpointsConfig": {
            "dnsEndpointConfig": {
                "allowExternalTraffic": False,
                "enableK8sCertsViaDns": False,
                "enableK8sTokensViaDns": False,
                "endpoint": "gke-1.example.com",
            },
            "ipEndpointsConfig": {
                "enabled": True,
                "enablePublicEndpoint": OFF,
                "authorizedNetworksConfig": (blocks("203.0.113.0/24"), blocks("203.0.113.0/24", "0.0.0.0/0")),
            },
        },
        "databaseEncryption": {
            "state": ("ENCRYPTED", "DECRYPTED"),
            "currentState": ("CURRENT_STATE_ENCRYPTED", "CURRENT_STATE_DECRYPTED"),
            "keyName": "k",
        },
        "enableKubernetesAlpha": OFF,
        "ipAllocationPolicy": {"useIpAliases": ON, "useRoutes": False},
        "legacyAbac": {"enabled": OFF},
        "loggingConfig": components(("SYSTEM_COMPONENTS", "WORKLOADS")),
        "loggingService": "logging.googleapis.com/kubernetes",
        "masterAuth": {
            "username": ("", "admin"),
            "clientCertificate": ("", "LS0t"),
            "clientCertificateConfig": {"issueClientCertificate": OFF},
        },
        "masterAuthorizedNetworksConfig": {"enabled": ON},
        "monitoringConfig": components(("SYSTEM_COMPONENTS", "WORKLOADS")),
        "monitoringService": "monitoring.googleapis.com/kubernetes",
        "networkConfig": {
            "datapathProvider": ("ADVANCED_DATAPATH", "LEGACY_DATAPATH"),
            "defaultEnablePrivateNodes": ON,
            "enableIntraNodeVisibility": ON,
            "inTransitEncryptionConfig": (
                "IN_TRANSIT_ENCRYPTION_INTER_NODE_TRANSPARENT",
                "IN_TRANSIT_ENCRYPTION_DISABLED",
            ),
        },
        "networkPolicy": {"enabled": ON},
        "nodePoolAutoConfig": {"nodeKubeletConfig": {SETTING: OFF}},
        "nodePoolDefaults": {"nodeConfigDefaults": {"nodeKubeletConfig": {SETTING: OFF}}},
        "nodePools": [
            {
                "name": name,
                "config": {
                    "accelerators": ([{"acceleratorType": "nvidia-l4"}], []),
                    "bootDiskKmsKey": ("k", ""),
                    "confidentialNodes": {"enabled": ON},
                    "imageType": ("COS_CONTAINERD", "UBUNTU_CONTAINERD"),
                    "kubeletConfig": {SETTING: OFF},
                    "metadata": {"disable-legacy-endpoints": ("true", "false")},
                    "oauthScopes": (["https://www.googleapis.com/auth/cloud-platform"]),
                    "sandboxConfig": {"type": ("GVISOR", "UNSPECIFIED")},
                    "serviceAccount": (OWN, "default"),
                    "shieldedInstanceConfig": {"enableIntegrityMonitoring": ON, "enableSecureBoot": ON},
                    "workloadMetadataConfig": {"mode": ("GKE_METADATA", "GCE_METADATA")},
                },
                "management": {"autoRepair": ON, "autoUpgrade": ON},
                "networkConfig": {"enablePrivateNodes": ON},
            }
            for name in ("system", "user")
        ],
        "privateClusterConfig": {"enablePrivateEndpoint": ON, "enablePrivateNodes": ON},
        "rbacBindingConfig": {
            "enableInsecureBindingSystemAuthenticated": OFF,
            "enableInsecureBindingSystemUnauthenticated": OFF,
        },
        "releaseChannel": {"channel": ("REGULAR", "UNSPECIFIED")},
        "securityPostureConfig": {"mode": ("BASIC", "DISABLED"), "vulnerabilityMode": "VULNERABILITY_BASIC"},
        "shieldedNodes": {"enabled": ON},
        "workloadIdentityConfig": {"workloadPool": ("p.svc.id.goog", "")},
    }
)
# The same with the fields that came before.
FORMER = {
    **CLUSTER[1],
    "controlPlaneEndpointsConfig": None,
    "loggingConfig": None,
    "loggingService": "none",
    "monitoringConfig": None,
    "monitoringService": "none",
    "networkConfig": None,
}
REPOSITORY = both(
    {
        "format": "DOCKER",
        "mode": "STANDARD_REPOSITORY",
        "dockerConfig": {"immutableTags": ON},
        "kmsKeyName": ("k", ""),
        "vulnerabilityScanningConfig": {
            "enablementConfig": "INHERITED",
            "enablementState": ("SCANNING_ACTIVE", "SCANNING_DISABLED"),
            "enablementStateReason": "x",
        },
    }
)
POLICY = both(
    {
        "iamPolicy": [
            {"bindings": [{"role": "r", "members": (["user:a@example.com"], ["user:a@example.com", "allUsers"])}]}
        ]
    }
)

Case = tuple[type[CloudResource], Object, Object]
ARC = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kubernetes/connectedClusters/x"
CONNECTED = both(
    {
        "connectors": [
            {
                "name": "x",
                "properties": {
                    "environmentName": "GCP",
                    "environmentData": {"projectDetails": {"projectId": "p"}},
                },
            }
        ],
        "arcConfig": [{"id": ARC}],
        "arcClusters": [
            {
                "id": ARC,
                "name": "x",
                "properties": {"distribution": "gke", "connectivityStatus": "Connected"},
                "extensions": [
                    {"name": kind, "properties": {"extensionType": kind, "provisioningState": ("Succeeded", "Failed")}}
                    for kind in ("microsoft.azuredefender.kubernetes", "microsoft.policyinsights")
                ],
            }
        ],
    }
)


@pytest.mark.parametrize(
    ("properties", "answer"),
    [
        ({"environmentName": "GCP", "environmentData": {"projectDetails": {"projectId": "p"}}}, "P"),
        ({"environmentName": "GCP", "environmentData": {"projectDetails": {"projectId": "other"}}}, "N"),
        ({"environmentName": "AWS", "hierarchyIdentifier": "1"}, "N"),
        ({"environmentName": "GCP", "environmentData": {"projectDetails": {"projectNumber": "1"}}}, "P"),
        ({"environmentName": "GCP", "environmentData": {"projectDetails": {"projectId": ""}}}, "P"),
        ({"environmentName": "GCP", "hierarchyIdentifier": "1"}, "P"),
        ({"environmentName": "", "hierarchyIdentifier": "1"}, "P"),
        ({}, "P"),
    ],
)
def test_a_connector_that_could_be_the_projects_counts(properties: Object, answer: str) -> None:
    other = {"name": "other", "properties": {"environmentName": "AWS"}}
    related = {**CONNECTED[0], "connectors": [other, {"name": "last", "properties": properties}]}
    for id in ("gcp-gke-defender-arc-extension", "gcp-gke-azure-policy-extension"):
        assert ask(id, {}, related=related) == answer


GOOD: list[Case] = [(GkeCluster, CLUSTER[0], CONNECTED[0]), (ArtifactRepository, REPOSITORY[0], POLICY[0])]
BAD: list[Case] = [
    (GkeCluster, CLUSTER[1], CONNECTED[1]),
    (GkeCluster, FORMER, CONNECTED[1]),
    (ArtifactRepository, REPOSITORY[1], POLICY[1]),
]


def answers(case: Case, *, keep: bool = True) -> dict[str, str]:
    kind, wire, related = case
    found = [c for c in GCP if resource_of(c.scope) is kind]
    return {c.id: ask(c.id, wire, related=related, keep=keep) for c in found}


def test_the_good_ones_pass_and_the_bad_ones_fail() -> None:
    for cases, letter in ((GOOD, "P"), (BAD, "F")):
        found = {id for case in cases for id, answer in answers(case).items() if set(answer) == {letter}}
        assert found == {c.id for c in GCP}


@pytest.mark.parametrize("case", [*GOOD, *BAD], ids=lambda c: c[0].__name__)
def test_what_is_kept_is_enough(case: Case) -> None:
    assert answers(case) == answers(case, keep=False)


def has(value: Any, path: str) -> bool:
    if isinstance(value, list):
        return bool(value) and all(has(item, path) for item in value)
    key, _, rest = path.partition(".")
    return isinstance(value, dict) and key in value and (not rest or has(value[key], rest))


@pytest.mark.parametrize("case", GOOD, ids=lambda c: c[0].__name__)
def test_samples_hold_every_path_that_is_kept(case: Case) -> None:
    kind, wire, _ = case
    assert [path for path in kind.KEEP if not has(wire, path)] == []


# Where nothing sent means nothing is wrong.
GOOD_BY_DEFAULT = {
    LOGGING,
    MONITORING,
    "gcp-gke-web-dashboard",
    "gcp-gke-legacy-abac",
    "gcp-gke-client-certificate",
    "gcp-gke-basic-auth",
    "gcp-gke-alpha-cluster",
}


@pytest.mark.parametrize("case", GOOD, ids=lambda c: c[0].__name__)
def test_null_is_absent_and_absent_is_no_pass(case: Case) -> None:
    kind, wire, related = case
    empty = {what: [] for what in related}
    for outline in ({}, dict.fromkeys(wire)):
        found = answers((kind, outline, empty))
        assert {id for id, answer in found.items() if "P" in answer} == GOOD_BY_DEFAULT & set(found)
        assert found == answers((kind, {}, empty))
    found = answers((kind, nulls(wire), nulls(related)))
    assert {id for id, answer in found.items() if "P" in answer} <= {*GOOD_BY_DEFAULT, SCOPES}


@pytest.mark.parametrize("case", [*GOOD, *BAD], ids=lambda c: c[0].__name__)
def test_nonsense_never_breaks_a_check(case: Case) -> None:
    for _, _, changed in mutated(case):
        assert all(set(answer) <= set("PFNU") for answer in answers(changed).values())


@pytest.mark.parametrize("path", [(k, p) for k in OURS for p in k.KEEP], ids=lambda p: p[1])
def test_nonsense_where_a_kept_field_should_be(path: tuple[type[CloudResource], str]) -> None:
    kind, dotted = path
    for value in NONSENSE:
        related = next(related for case_kind, _, related in GOOD if case_kind is kind)
        found = answers((kind, at(dotted, value), related))
        assert all(set(answer) <= set("PFNU") for answer in found.values())


@pytest.mark.parametrize("case", BAD, ids=lambda c: c[0].__name__)
def test_what_is_not_understood_never_helps_to_pass(case: Case) -> None:
    bad = {id for id, answer in answers(case).items() if set(answer) == {"F"}}
    for before, value, changed in mutated(case):
        if before is not None and type(value) is not type(before):
            found = answers(changed)
            assert {id: found[id] for id in bad if not set(found[id]) <= set("FU")} == {}
