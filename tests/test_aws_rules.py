"""AWS's rules against JSON as its API sends it, as it could send it, and as it never should.

Answers are P pass, F fail, N not applicable, U unknown.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

import checks
from scanner.aws import AwsRegion, EcrRepository, EksCluster
from scanner.check import Check
from scanner.cloud import CloudResource, Setting, kept
from scanner.model import Collected, Gap, GapReason, MissingEvidence, Severity, Status, Verdict
from scanner.resources import resource_of

Object = dict[str, Any]
LETTERS = {Status.PASS: "P", Status.FAIL: "F", Status.NOT_APPLICABLE: "N"}
OURS = (EksCluster, EcrRepository, AwsRegion)
AWS = [c for c in checks.load().values() if resource_of(c.scope) in OURS]
ACCOUNT = "111122223333"


def resource(kind: type[CloudResource], wire: Object, related: Object, *, keep: bool = True) -> CloudResource:
    return kind(
        id=f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/x",
        name="x",
        account=ACCOUNT,
        wire=kept(wire, kind.KEEP) if keep else wire,
        related={what: items if isinstance(items, Collected) else Collected(items) for what, items in related.items()},
    )


def verdicts(check: Check, wire: Object, related: Object | None = None, *, keep: bool = True) -> Iterator[Verdict]:
    kind = resource_of(check.scope)
    assert kind is not None
    subject = resource(kind, wire, related or {}, keep=keep)
    for one in [subject] if check.scope is kind else subject.components():
        yield check.run(one)


def ask(id: str, wire: Object, *, related: Object | None = None, keep: bool = True) -> str:
    """The letters of the check's answers, one for each subject; U alone where not even these can be told."""
    try:
        found = list(verdicts(checks.load()[id], wire, related, keep=keep))
    except MissingEvidence:
        return "U"
    assert all(v.message for v in found if v.status is Status.FAIL)
    assert all(v.evidence for v in found if v.status in (Status.PASS, Status.FAIL))
    return "".join(LETTERS[v.status] for v in found)


def severity(id: str, wire: Object, related: Object | None = None) -> Severity | None:
    (verdict,) = verdicts(checks.load()[id], wire, related)
    assert verdict.status is Status.FAIL
    return verdict.severity


# ---------------------------------------------------------------------------------------------------------------------
# Vectors

OPEN, PRIVATE_ONLY, PRIVATE = (
    f"aws-eks-endpoint-{word}" for word in ("public-open", "private-only", "private-enabled")
)
LOGGING, SECRETS = "aws-eks-control-plane-logging", "aws-eks-secrets-cmk"
TYPES = ["api", "audit", "authenticator", "controllerManager", "scheduler"]


def vpc(**fields: Any) -> Object:
    return {"resourcesVpcConfig": fields}


def public(*ranges: Any) -> Object:
    return vpc(endpointPublicAccess=True, publicAccessCidrs=list(ranges))


@pytest.mark.parametrize(
    ("wire", "answer"),
    [
        ({}, "F"),
        (vpc(), "F"),
        (vpc(endpointPublicAccess=None, publicAccessCidrs=None), "F"),
        (vpc(endpointPublicAccess=True), "F"),
        (vpc(endpointPublicAccess=False), "P"),
        (vpc(endpointPublicAccess=False, publicAccessCidrs=["0.0.0.0/0"]), "P"),
        (vpc(publicAccessCidrs=["203.0.113.0/24"]), "P"),
        (public(), "F"),
        (public("203.0.113.0/24"), "P"),
        (public("203.0.113.7"), "P"),
        (public("10.0.0.0/8", "0.0.0.0/0"), "F"),
        (public("10.0.0.0/8", "::/0"), "F"),
        (public("0.0.0.0/1", "128.0.0.0/1"), "F"),
        (public("::/1", "8000::/1"), "F"),
        (public("0.0.0.0/1"), "P"),
        (public("10.0.0.0/8", "home"), "U"),
        (public("home", "0.0.0.0/0"), "F"),
        (public("home", "128.0.0.0/1", "0.0.0.0/1"), "F"),
        (public(7), "U"),
        (vpc(endpointPublicAccess="false"), "U"),
        ({"resourcesVpcConfig": "x"}, "U"),
    ],
)
def test_public_endpoint(wire: Object, answer: str) -> None:
    assert ask(OPEN, wire) == answer


@pytest.mark.parametrize(("sent", "only", "enabled"), [(True, "F", "P"), (False, "P", "F"), (None, "F", "F")])
def test_endpoints(sent: bool | None, only: str, enabled: str) -> None:
    assert ask(PRIVATE_ONLY, vpc(endpointPublicAccess=sent)) == only
    assert ask(PRIVATE, vpc(endpointPrivateAccess=sent)) == enabled


def logs(*entries: tuple[Any, Any]) -> Object:
    return {"logging": {"clusterLogging": [{"types": types, "enabled": on} for types, on in entries]}}


@pytest.mark.parametrize(
    ("wire", "answer", "weight"),
    [
        (logs((TYPES, True)), "P", None),
        (logs((TYPES[:2], True), (TYPES[2:], True)), "P", None),
        (logs((TYPES[2:], False), (TYPES, True)), "P", None),
        (logs((["api"], False), (["audit"], True)), "F", None),
        (logs((["audit"], False), (TYPES[2:], True), (["api"], True)), "F", Severity.HIGH),
        (logs((TYPES, False)), "F", Severity.HIGH),
        (logs((TYPES, None)), "F", Severity.HIGH),
        (logs((None, True)), "F", Severity.HIGH),
        (logs(), "F", Severity.HIGH),
        ({"logging": {"clusterLogging": None}}, "F", Severity.HIGH),
        ({"logging": None}, "F", Severity.HIGH),
        ({}, "F", Severity.HIGH),
        (logs((TYPES, "true")), "U", None),
        (logs(("audit", True)), "U", None),
    ],
)
def test_logging_is_what_all_entries_say_together(wire: Object, answer: str, weight: Severity | None) -> None:
    assert ask(LOGGING, wire) == answer
    if answer == "F":
        assert severity(LOGGING, wire) is weight


# Present and good, present and bad, absent: absent is what AWS documents for DescribeCluster, else unknown.
@pytest.mark.parametrize(
    ("id", "good", "bad", "absent"),
    [
        ("aws-eks-access-entries", *({"accessConfig": {"authenticationMode": m}} for m in ("API", "CONFIG_MAP")), "U"),
        (
            "aws-eks-bootstrap-admin",
            *({"accessConfig": {"bootstrapClusterCreatorAdminPermissions": on}} for on in (False, True)),
            "U",
        ),
        ("aws-eks-deletion-protection", *({"deletionProtection": on} for on in (True, False)), "U"),
        ("aws-eks-upgrade-policy", *({"upgradePolicy": {"supportType": s}} for s in ("STANDARD", "EXTENDED")), "U"),
        (
            SECRETS,
            *({"encryptionConfig": [{"resources": r, "provider": {"keyArn": "k"}}]} for r in (["secrets"], [])),
            "F",
        ),
        (PRIVATE_ONLY, *(vpc(endpointPublicAccess=on) for on in (False, True)), "F"),
        (OPEN, vpc(endpointPublicAccess=False), vpc(endpointPublicAccess=True), "F"),
        (PRIVATE, *(vpc(endpointPrivateAccess=on) for on in (True, False)), "F"),
    ],
)
def test_present_and_absent(id: str, good: Object, bad: Object, absent: str) -> None:
    assert (ask(id, good), ask(id, bad), ask(id, {})) == ("P", "F", absent)
    assert ask(id, dict.fromkeys(good)) == absent


@pytest.mark.parametrize(
    ("configs", "answer"),
    [
        ([], "F"),
        ([{"resources": ["secrets"], "provider": {"keyArn": ""}}], "F"),
        ([{"resources": ["secrets"], "provider": None}], "F"),
        ([{"resources": None, "provider": {"keyArn": "k"}}], "F"),
        ([{"resources": []}, {"resources": ["secrets"], "provider": {"keyArn": "k"}}], "P"),
        ([{"resources": "secrets", "provider": {"keyArn": "k"}}], "U"),
    ],
)
def test_key_of_your_own(configs: list[Object], answer: str) -> None:
    assert ask(SECRETS, {"encryptionConfig": configs}) == answer


VERSION = "aws-eks-supported-version"


@pytest.mark.parametrize(
    ("item", "answer", "weight"),
    [
        ({"versionStatus": "STANDARD_SUPPORT"}, "P", None),
        ({"versionStatus": "standard_support"}, "P", None),
        ({"status": "standard-support"}, "P", None),
        ({"versionStatus": "UNSUPPORTED", "status": "unsupported"}, "F", None),
        ({"status": "unsupported"}, "F", None),
        ({"versionStatus": "EXTENDED_SUPPORT"}, "F", Severity.LOW),
        ({"versionStatus": None, "status": "extended-support"}, "F", Severity.LOW),
        ({"versionStatus": "RETIRED"}, "U", None),
        ({}, "U", None),
        ({"versionStatus": "STANDARD_SUPPORT", "clusterVersion": "1.3"}, "U", None),
        ({"versionStatus": "STANDARD_SUPPORT", "clusterVersion": "1.330"}, "U", None),
        ({"versionStatus": "STANDARD_SUPPORT", "clusterVersion": 1.33}, "U", None),
    ],
)
def test_version_is_what_aws_says_of_it(item: Object, answer: str, weight: Severity | None) -> None:
    related = {
        "clusterVersions": [{"clusterVersion": "1.34", "versionStatus": "X"}, {"clusterVersion": "1.33", **item}]
    }
    assert ask(VERSION, {"version": "1.33"}, related=related) == answer
    assert (
        ask(VERSION, {}, related=related) == ask(VERSION, {"version": "1.33"}, related={"clusterVersions": []}) == "U"
    )
    if answer == "F":
        assert severity(VERSION, {"version": "1.33"}, related) is weight


def test_a_version_with_two_answers_has_none() -> None:
    both_ways = [{"clusterVersion": "1.33", "versionStatus": word} for word in ("STANDARD_SUPPORT", "UNSUPPORTED")]
    assert ask(VERSION, {"version": "1.33"}, related={"clusterVersions": both_ways}) == "U"
    assert ask(VERSION, {"version": "1.33"}, related={"clusterVersions": [both_ways[0], both_ways[0]]}) == "P"


ADMINS = "aws-eks-cluster-admin-entries"
ROLE, USER, STRANGER = (
    f"arn:aws:iam::{account}:{name}"
    for account, name in ((ACCOUNT, "role/ops"), (ACCOUNT, "user/alice"), ("444455556666", "role/vendor"))
)


def entry(principal: Any, policy: str = "AmazonEKSClusterAdminPolicy", scope: Any = "cluster") -> Object:
    arn = f"arn:aws:eks::aws:cluster-access-policy/{policy}"
    return {"principalArn": principal, "policies": [{"policyArn": arn, "accessScope": {"type": scope}}]}


@pytest.mark.parametrize(
    ("entries", "answer"),
    [
        ([], "P"),
        ([entry(ROLE)], "P"),
        ([entry(ROLE), entry(USER)], "F"),
        ([entry(ROLE), entry(STRANGER)], "F"),
        ([entry(STRANGER.replace("role/", "user/"))], "F"),
        ([entry(USER.replace("arn:aws:", "arn:aws-cn:"))], "F"),
        ([entry(USER, scope="namespace"), entry(STRANGER, "AmazonEKSAdminPolicy")], "P"),
        ([{"principalArn": USER, "policies": []}], "P"),
        ([{"principalArn": USER, "policies": None}], "U"),
        ([entry(USER, scope=None)], "U"),
        ([entry("alice")], "U"),
        ([entry(None)], "U"),
        ([entry(f"arn:aws:iam::{ACCOUNT}:root")], "U"),
        ([entry("alice"), entry(USER)], "F"),
    ],
)
def test_cluster_admins(entries: list[Object], answer: str) -> None:
    wire = {"accessConfig": {"authenticationMode": "API"}}
    assert ask(ADMINS, wire, related={"accessEntries": entries}) == answer
    assert ask(ADMINS, {"accessConfig": {"authenticationMode": "CONFIG_MAP"}}) == "N"


NETWORK_POLICY = "aws-eks-network-policy"


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ('{"enableNetworkPolicy": "true"}', "P"),
        ('{"enableNetworkPolicy": true}', "P"),
        ('{"enableNetworkPolicy": "false"}', "F"),
        ('{"enableNetworkPolicy": false}', "F"),
        ('{"enableNetworkPolicy": null}', "F"),
        ('{"env": {"enableNetworkPolicy": "true"}}', "F"),
        ("{}", "F"),
        ("", "F"),
        (None, "F"),
        ('{"enableNetworkPolicy": 1}', "U"),
        ("enableNetworkPolicy: 'true'", "U"),
        ("true", "U"),
        ("[" * 100_000, "U"),
        ({"enableNetworkPolicy": "true"}, "U"),
    ],
)
def test_network_policy_of_the_add_on(values: Any, answer: str) -> None:
    addons = [{"addonName": "coredns"}, {"addonName": "vpc-cni", "status": "ACTIVE", "configurationValues": values}]
    assert ask(NETWORK_POLICY, {}, related={"addons": addons}) == answer
    assert ask(NETWORK_POLICY, {"computeConfig": {"enabled": False}}, related={"addons": addons}) == answer
    assert ask(NETWORK_POLICY, {"computeConfig": {"enabled": True}}, related={"addons": addons}) == "U"
    assert ask(NETWORK_POLICY, {}, related={"addons": addons[:1]}) == "U"


PLUGIN = {"name": "aws-node", "kind": "DaemonSet", "namespace": "kube-system", "ready": True}


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ([], "F"),
        (["--enable-network-policy=true"], "P"),
        (["--enable-network-policy"], "P"),
        *(([f"--enable-network-policy={word}"], "P") for word in ("1", "t", "T", "TRUE", "True")),
        *(([f"--enable-network-policy={word}"], "F") for word in ("0", "f", "false", "FALSE", "", "yes", "tRUE")),
        (["--enable-network-policy=false", "--enable-network-policy"], "P"),
        (["--enable-network-policy=true", "--enable-network-policy=false"], "F"),
        (["--enable-network-policy=true", "--enable-network-policy-logs=false"], "P"),
        (["--enable-network-policy-logs=true"], "F"),
        ("--enable-network-policy=true", "U"),
    ],
)
def test_network_policy_of_a_plugin_of_ones_own(arguments: Any, answer: str) -> None:
    plugin = PLUGIN | {"args": arguments}
    others = [{"name": "calico-node", "ready": False}, plugin]
    gap = Gap(what="agents", reason=GapReason.FORBIDDEN)
    assert ask(NETWORK_POLICY, {}, related={"addons": [], "agents": others}) == answer
    assert ask(NETWORK_POLICY, {}, related={"addons": [], "agents": Collected(others, [gap])}) == answer
    others[-1] = plugin | {"ready": False}
    assert ask(NETWORK_POLICY, {}, related={"addons": [], "agents": others}) == ("U" if answer == "P" else answer)


ON = "--enable-network-policy=true"


@pytest.mark.parametrize(
    ("status", "agents", "answer"),
    [
        ("ACTIVE", None, "P"),
        (None, None, "U"),
        *((word, None, "U") for word in ("CREATING", "CREATE_FAILED", "UPDATE_FAILED", "DEGRADED", "DELETING", "new")),
        ("ACTIVE", [PLUGIN | {"args": []}], "P"),
        ("ACTIVE", [PLUGIN | {"args": [], "ready": False}], "U"),
        ("ACTIVE", [PLUGIN | {"args": [ON], "ready": False}], "U"),
        ("ACTIVE", [PLUGIN | {"args": ["--enable-network-policy=false"]}], "F"),
        ("DEGRADED", [PLUGIN | {"args": []}], "U"),
        ("DEGRADED", [PLUGIN | {"args": [ON], "ready": False}], "U"),
        ("DEGRADED", [PLUGIN | {"args": [ON]}], "P"),
        ("CREATE_FAILED", [{"name": "cilium", "ready": False}], "U"),
        ("CREATE_FAILED", [{"name": "cilium", "ready": True}], "P"),
    ],
)
def test_an_add_on_enforces_nothing_unless_it_runs(status: Any, agents: Any, answer: str) -> None:
    addon = {"addonName": "vpc-cni", "status": status, "configurationValues": '{"enableNetworkPolicy": "true"}'}
    related = {"addons": [{"addonName": "coredns", "status": "ACTIVE"}, addon]}
    if agents is None:
        gap = Gap(what="agents", reason=GapReason.FORBIDDEN)
        assert ask(NETWORK_POLICY, {}, related=related) == answer
        assert ask(NETWORK_POLICY, {}, related=related | {"agents": Collected([], [gap])}) == answer
    else:
        assert ask(NETWORK_POLICY, {}, related=related | {"agents": agents}) == answer
    off = addon | {"configurationValues": "{}"}
    assert ask(NETWORK_POLICY, {}, related={"addons": [off]}) == "F"


def test_evidence_is_short_whatever_was_sent() -> None:
    assert Setting("path", "x" * 300_000, "").evidence.value == "x" * 499 + "…"
    assert Setting("path", "x" * 500, "").evidence.value == "x" * 500
    assert len(Setting("path", ("y" * 100_000, "z"), ()).evidence.value) == 500


NODES = "aws-eks-nodes-private"
LOCAL = {"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local"}
NAT = {"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}


def subnet(*routes: Object, gives: Any = False) -> Object:
    return {"SubnetId": "subnet-1", "MapPublicIpOnLaunch": gives, "routes": list(routes)}


def to_internet(destination: str, version: str = "") -> Object:
    return {f"Destination{version}CidrBlock": destination, "GatewayId": "igw-1"}


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (subnet(LOCAL), "P"),
        (subnet(LOCAL, NAT), "P"),
        (subnet(LOCAL, {**NAT, "NatGatewayId": None, "GatewayId": "vgw-1"}), "P"),
        (subnet(LOCAL, {"DestinationIpv6CidrBlock": "::/0", "EgressOnlyInternetGatewayId": "eigw-1"}), "P"),
        (subnet(LOCAL, to_internet("203.0.113.0/24")), "P"),
        (subnet(LOCAL, {"DestinationPrefixListId": "pl-1", "GatewayId": "vpce-1"}), "P"),
        (subnet(LOCAL, to_internet("0.0.0.0/0")), "F"),
        (subnet(LOCAL, NAT, to_internet("::/0", "Ipv6")), "F"),
        (subnet(LOCAL, to_internet("0.0.0.0/1"), to_internet("128.0.0.0/1")), "F"),
        (subnet(LOCAL, gives=True), "F"),
        (subnet(gives=True), "F"),
        (subnet(LOCAL, to_internet("0.0.0.0/0"), gives=None), "F"),
        (subnet(LOCAL, gives=None), "U"),
        (subnet(LOCAL, gives="false"), "U"),
        (subnet(), "U"),
        (subnet(LOCAL, to_internet("everywhere")), "U"),
    ],
)
def test_private_subnets(found: Object, answer: str) -> None:
    assert ask(NODES, {}, related={"subnets": [subnet(LOCAL, NAT), found]}) == answer


def test_every_node_group_is_judged_by_itself() -> None:
    key = {"ec2SshKey": "k"}
    groups = [
        {"nodegroupName": "a", "amiType": "AL2023_x86_64_STANDARD", "remoteAccess": None},
        {"nodegroupName": "b", "amiType": "CUSTOM", "remoteAccess": {**key, "sourceSecurityGroups": ["sg-1"]}},
        {"nodegroupName": "c", "amiType": "WINDOWS_CORE_2022_x86_64", "remoteAccess": {"sourceSecurityGroups": []}},
        {"nodegroupName": "d", "amiType": "AL2_ARM_64", "remoteAccess": {**key, "sourceSecurityGroups": []}},
        {"nodegroupName": "e", "amiType": "AL2_x86_64_GPU", "remoteAccess": key},
    ]
    assert ask("aws-eks-nodegroup-ssh-open", {}, related={"nodegroups": groups}) == "PPPFF"
    assert ask("aws-eks-nodegroup-ami", {}, related={"nodegroups": groups}) == "PNPFF"


GUARDDUTY = "aws-eks-guardduty"


def detector(audit: Any, runtime: Any, agent: Any, name: str = "RUNTIME_MONITORING", **more: Any) -> Object:
    extra = [{"Name": "EC2_AGENT_MANAGEMENT", "Status": "ENABLED"}, {"Name": "EKS_ADDON_MANAGEMENT", "Status": agent}]
    features = [
        {"Name": "EKS_AUDIT_LOGS", "Status": audit},
        {"Name": name, "Status": runtime, "AdditionalConfiguration": extra},
    ]
    return {"Status": "ENABLED", "Features": features, **more}


E, D = "ENABLED", "DISABLED"


@pytest.mark.parametrize(
    ("detectors", "answer"),
    [
        ([], "F"),
        ([detector(E, E, E)], "P"),
        ([detector(E, E, E, "EKS_RUNTIME_MONITORING")], "P"),
        ([detector(D, E, E)], "F"),
        ([detector(E, D, E)], "F"),
        ([detector(E, E, D)], "F"),
        ([detector(E, E, None)], "F"),
        ([detector(E, E, E, Status=D)], "F"),
        ([detector(E, E, E, Status=D), detector(E, E, E)], "P"),
        ([detector(E, E, E, Features=[])], "F"),
        ([detector(E, E, E, Features=None)], "U"),
        ([detector(E, E, E, Status=None)], "U"),
        ([detector(E, True, E)], "U"),
    ],
)
def test_guardduty(detectors: list[Object], answer: str) -> None:
    assert ask(GUARDDUTY, {}, related={"detectors": detectors}) == answer


def test_an_issue_of_any_add_on_counts() -> None:
    def addons(**last: Any) -> str:
        found = [{"addonName": name, "status": "ACTIVE", "health": {"issues": []}} for name in ("a", "b")]
        return ask("aws-eks-addon-health", {}, related={"addons": [*found, {"addonName": "c", **last}]})

    assert [addons(status=s) for s in ("ACTIVE", "UPDATING", "DEGRADED", "CREATE_FAILED", None)] == [*"PPFFU"]
    assert addons(status="ACTIVE", health={"issues": [{"code": "AccessDenied"}]}) == "F"
    assert addons(health={"issues": [{"code": "AccessDenied"}]}) == "F"
    assert ask("aws-eks-addon-health", {}, related={"addons": []}) == "N"


# ---------------------------------------------------------------------------------------------------------------------
# Repositories

PUBLIC = "aws-ecr-public-policy"
LIMIT = {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}


def allow(principal: Any = None, **more: Any) -> Object:
    return {"Effect": "Allow", "Principal": principal, "Action": "ecr:*", **more}


@pytest.mark.parametrize(
    ("statements", "answer"),
    [
        ([allow("*")], "F"),
        (allow("*"), "F"),
        ([allow({"AWS": "*"})], "F"),
        ([allow({"AWS": ["arn:aws:iam::1:root", "*"]})], "F"),
        ([allow({"*": "*"})], "F"),
        ([allow({"AWS": "arn:aws:iam::1:root"}), allow("*")], "F"),
        ([allow(NotPrincipal={"AWS": "arn:aws:iam::1:root"})], "F"),
        ([allow("*", Condition={})], "F"),
        ([allow("*", Condition=None)], "F"),
        ([{"Effect": "Deny", "Principal": {"AWS": "1"}}, allow("*")], "F"),
        ([allow("*", Condition=LIMIT)], "P"),
        ([allow({"AWS": ["1", "2"]}), allow({"Service": "codebuild.amazonaws.com"})], "P"),
        ([{"Effect": "Deny", "Principal": "*"}], "P"),
        ([{"Effect": "Deny", "NotPrincipal": {"AWS": "1"}}], "P"),
        ([allow("everyone")], "U"),
        ([allow("*", Condition="x")], "U"),
        ([allow(None)], "U"),
        ([allow({})], "U"),
        ([allow([])], "U"),
        ([allow({"AWS": []})], "U"),
        ([allow({"AWS": [None]})], "U"),
        ([allow({"Everyone": "x"})], "U"),
        ([{"Principal": "*"}], "U"),
        ([{"Effect": "Permit", "Principal": "*"}], "U"),
        ([allow(None), allow("*")], "F"),
        (["x"], "U"),
        ("x", "U"),
        ([], "U"),
        (None, "U"),
    ],
)
def test_public_policy(statements: Any, answer: str) -> None:
    assert ask(PUBLIC, {}, related={"policy": [{"document": {"Statement": statements}}]}) == answer


def test_repository_without_policy_is_its_accounts_own() -> None:
    assert ask(PUBLIC, {}, related={"policy": []}) == "P"
    assert ask(PUBLIC, {}, related={"policy": [{"document": None}]}) == "U"


@pytest.mark.parametrize(
    ("frequency", "pushed", "answer"),
    [
        ("SCAN_ON_PUSH", True, "P"),
        ("CONTINUOUS_SCAN", False, "P"),
        ("MANUAL", False, "F"),
        ("MANUAL", None, "F"),
        (None, True, "P"),
        (None, False, "F"),
        (None, None, "U"),
        (True, True, "U"),
        ("MANUAL", "true", "U"),
    ],
)
def test_scanning_is_judged_by_what_holds_in_the_end(frequency: Any, pushed: Any, answer: str) -> None:
    effective = {"repositoryName": "x", "scanFrequency": frequency, "scanOnPush": pushed}
    for own in (None, {"scanOnPush": False}, {"scanOnPush": True}):
        wire = {"imageScanningConfiguration": own}
        assert ask("aws-ecr-scan-on-push", wire, related={"scanning": [effective]}) == answer


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        ("IMMUTABLE", "P"),
        ("IMMUTABLE_WITH_EXCLUSION", "P"),
        ("MUTABLE", "F"),
        ("MUTABLE_WITH_EXCLUSION", "F"),
        (None, "F"),
        (False, "U"),
    ],
)
def test_immutable_tags(sent: Any, answer: str) -> None:
    assert ask("aws-ecr-tag-immutability", {"imageTagMutability": sent}) == answer


def test_only_kms_of_ecr_is_off_unless_selected() -> None:
    assert [c.id for c in AWS if not c.on] == ["aws-ecr-kms"]


DENIED: Collected[Object] = Collected(gaps=[Gap(what="x", reason=GapReason.FORBIDDEN)])


@pytest.mark.parametrize("check", [c for c in AWS if c.needs], ids=lambda c: c.id)
@pytest.mark.parametrize("related", [{}, "denied"])
def test_what_was_not_listed_is_unknown(check: Check, related: Any) -> None:
    assert ask(check.id, {"version": "1.34"}, related=dict.fromkeys(check.needs, DENIED) if related else {}) == "U"


# ---------------------------------------------------------------------------------------------------------------------
# What others get wrong


def test_every_logging_entry_counts_and_not_only_the_first() -> None:
    assert ask(LOGGING, logs((["api"], False), (TYPES, True))) == "P"
    assert ask(LOGGING, logs((["api", "audit"], True), (TYPES[2:], False))) == "F"


def test_a_security_group_is_no_network_policy() -> None:
    wire = vpc(clusterSecurityGroupId="sg-1", securityGroupIds=["sg-2"])
    assert ask(NETWORK_POLICY, wire, related={"addons": [{"addonName": "vpc-cni"}]}) == "F"


def test_a_private_endpoint_makes_no_private_nodes() -> None:
    wire = vpc(endpointPrivateAccess=True, endpointPublicAccess=False)
    assert ask(NODES, wire, related={"subnets": [subnet(LOCAL, to_internet("0.0.0.0/0"))]}) == "F"
    assert ask(NODES, vpc(endpointPublicAccess=True), related={"subnets": [subnet(LOCAL, NAT)]}) == "P"


def test_deletion_protection_that_was_not_sent_is_no_protection() -> None:
    assert ask("aws-eks-deletion-protection", {"deletionProtection": None}) == "U"


@pytest.mark.parametrize("version", ["1.10", "1.29", "1.99", "2.0"])
def test_no_version_is_good_or_bad_by_itself(version: str) -> None:
    def said(word: str) -> str:
        items = [{"clusterVersion": version, "versionStatus": word}]
        return ask(VERSION, {"version": version}, related={"clusterVersions": items})

    assert (said("STANDARD_SUPPORT"), said("UNSUPPORTED")) == ("P", "F")


def test_ipv6_counts_as_everyone() -> None:
    assert ask(OPEN, public("203.0.113.0/24", "::/0")) == "F"


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
ARC = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kubernetes/connectedClusters/x"
ISSUER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/sts.windows.net/33e01921-4d64-4f8c-a055-5bdaffd5e33d/"
DEFENDER = ["eks:*", "logs:*", "iam:PassRole", "firehose:*", "sqs:*"]
CLUSTER = both(
    {
        "status": "ACTIVE",
        "version": ("1.34", "1.25"),
        "endpoint": "https://x.example.com",
        "platformVersion": "eks.1",
        "resourcesVpcConfig": {
            "endpointPublicAccess": OFF,
            "endpointPrivateAccess": ON,
            "publicAccessCidrs": (["203.0.113.0/24"], ["203.0.113.0/24", "0.0.0.0/0"]),
        },
        "kubernetesNetworkConfig": {"ipFamily": "ipv4"},
        "logging": {"clusterLogging": [{"types": [kind], "enabled": ON} for kind in TYPES]},
        "encryptionConfig": [{"resources": ["secrets"], "provider": {"keyArn": ("arn:aws:kms:k", "")}}],
        "accessConfig": {
            "authenticationMode": ("API", "CONFIG_MAP"),
            "bootstrapClusterCreatorAdminPermissions": OFF,
        },
        "upgradePolicy": {"supportType": ("STANDARD", "EXTENDED")},
        "deletionProtection": ON,
        "computeConfig": {"enabled": False},
    }
)
LISTS = both(
    {
        "nodegroups": [
            {
                "nodegroupName": name,
                "amiType": ("BOTTLEROCKET_x86_64", "AL2_x86_64"),
                "releaseVersion": "1",
                "remoteAccess": {"ec2SshKey": "k", "sourceSecurityGroups": (["sg-1"], [])},
                "nodeRepairConfig": {"enabled": ON},
            }
            for name in ("system", "user")
        ],
        "addons": [
            {
                "addonName": "vpc-cni",
                "status": ("ACTIVE", "DEGRADED"),
                "health": {"issues": ([], [{"code": "AccessDenied"}])},
                "configurationValues": tuple(json.dumps({"enableNetworkPolicy": word}) for word in ("true", "false")),
            }
        ],
        "accessEntries": ([entry(ROLE)], [entry(ROLE), entry(USER)]),
        "clusterVersions": [
            {"clusterVersion": "1.34", "versionStatus": "STANDARD_SUPPORT"},
            {"clusterVersion": "1.25", "versionStatus": "UNSUPPORTED"},
        ],
        "subnets": ([subnet(LOCAL, NAT)], [subnet(LOCAL, NAT), subnet(LOCAL, to_internet("0.0.0.0/0"))]),
        "detectors": ([detector(E, E, E)], [detector(E, E, D)]),
        "defenderRoles": [
            {
                "roleName": "MDCContainersK8sRole",
                "exists": True,
                "arn": f"arn:aws:iam::{ACCOUNT}:role/MDCContainersK8sRole",
                "trustPolicy": {
                    "document": {
                        "Statement": [
                            {
                                "Effect": "Allow",
                                "Principal": {"Federated": ISSUER},
                                "Action": "sts:AssumeRoleWithWebIdentity",
                                "Condition": {"StringEquals": {f"{ISSUER.partition('/')[2]}:aud": ["api://x"]}},
                            }
                        ]
                    }
                },
                "policies": [
                    {
                        "name": "x",
                        "document": {
                            "Statement": [
                                {"Effect": "Allow", "Action": DEFENDER, "Resource": "*"},
                                {"Effect": "Allow", "Action": ("s3:*", "s3:Get*"), "Resource": ["arn:aws:s3:::*"]},
                            ]
                        },
                    }
                ],
                "boundary": [],
            },
            {"roleName": "DefenderForCloud-Containers-K8s", "exists": False},
        ],
        "arcConfig": [{"id": ARC}],
        "arcClusters": [
            {
                "id": ARC,
                "name": "x",
                "properties": {"distribution": "eks", "connectivityStatus": "Connected"},
                "extensions": [
                    {
                        "name": "defender",
                        "properties": {
                            "extensionType": "microsoft.azuredefender.kubernetes",
                            "provisioningState": ("Succeeded", "Failed"),
                        },
                    }
                ],
            }
        ],
        "agents": [{"kind": "DaemonSet", "namespace": "kube-system", "name": "aws-node", "ready": True, "args": []}],
        "templateRoles": [{"roleName": "MDCContainersK8sKinesisToS3Role", "exists": False}],
        "oidcProviders": [{"Arn": ISSUER}],
        "subscriptionFilters": [
            {"destinationArn": f"arn:aws:firehose:eu-west-1:{ACCOUNT}:deliverystream/azuredefender-x"}
        ],
        "connectors": [
            {
                "name": "aws",
                "properties": {
                    "environmentName": "AWS",
                    "hierarchyIdentifier": ACCOUNT,
                    "offerings": [
                        {
                            "offeringType": "DefenderForContainersAws",
                            "kubernetesService": {"cloudRoleArn": f"arn:aws:iam::{ACCOUNT}:role/MDCContainersK8sRole"},
                            "mdcContainersAgentlessDiscoveryK8s": {"enabled": True},
                        }
                    ],
                },
            }
        ],
    }
)
REPOSITORY = both(
    {
        "repositoryUri": "x.example.com/x",
        "imageTagMutability": ("IMMUTABLE_WITH_EXCLUSION", "MUTABLE"),
        "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "latest"}],
        "imageScanningConfiguration": {"scanOnPush": ON},
        "encryptionConfiguration": {"encryptionType": ("KMS", "AES256"), "kmsKey": "k"},
    }
)
DOCUMENTS = both(
    {
        "policy": [{"document": {"Version": "2012-10-17", "Statement": [allow(({"AWS": "1"}, {"AWS": ["1", "*"]}))]}}],
        "lifecyclePolicy": [{"document": {"rules": ([{"rulePriority": 1, "action": {"type": "expire"}}], [])}}],
        "scanning": [
            {"repositoryName": "x", "scanOnPush": ON, "scanFrequency": ("SCAN_ON_PUSH", "MANUAL")},
        ],
    }
)
INSPECTOR = both(
    {"inspector": [{"accountId": ACCOUNT, "state": {"status": E}, "resourceState": {"ecr": {"status": (E, D)}}}]}
)

Case = tuple[type[CloudResource], Object, Object]
CONFIG_MAP_OFF = {**CLUSTER[1], "accessConfig": {"authenticationMode": "API"}}
GOOD: list[Case] = [
    (EksCluster, CLUSTER[0], LISTS[0]),
    (EcrRepository, REPOSITORY[0], DOCUMENTS[0]),
    (AwsRegion, {}, INSPECTOR[0]),
]
BAD: list[Case] = [
    (EksCluster, CLUSTER[1], LISTS[1]),
    (EksCluster, CONFIG_MAP_OFF, {**LISTS[1], "subnets": [subnet(LOCAL, gives=True)], "detectors": []}),
    (EcrRepository, REPOSITORY[1], DOCUMENTS[1]),
    (EcrRepository, {}, {"policy": [{"document": {"Statement": [allow("*")]}}], "lifecyclePolicy": []}),
    (AwsRegion, {}, INSPECTOR[1]),
]


def answers(case: Case, *, keep: bool = True) -> dict[str, str]:
    kind, wire, related = case
    found = [c for c in AWS if resource_of(c.scope) is kind]
    return {c.id: ask(c.id, wire, related=related, keep=keep) for c in found}


def test_the_good_ones_pass_and_the_bad_ones_fail() -> None:
    for cases, letter in ((GOOD, "P"), (BAD, "F")):
        found = {id for case in cases for id, answer in answers(case).items() if set(answer) == {letter}}
        assert found == {c.id for c in AWS}


@pytest.mark.parametrize("case", [*GOOD, *BAD], ids=lambda c: c[0].__name__)
def test_what_is_kept_is_enough(case: Case) -> None:
    assert answers(case) == answers(case, keep=False)


def has(value: Any, path: str) -> bool:
    key, _, rest = path.partition(".")
    return isinstance(value, dict) and key in value and (not rest or has(value[key], rest))


@pytest.mark.parametrize("case", GOOD, ids=lambda c: c[0].__name__)
def test_samples_hold_every_path_that_is_kept(case: Case) -> None:
    kind, wire, _ = case
    elsewhere = {"connectorConfig.provider"}  # of clusters that run elsewhere, which no check judges
    assert {path for path in kind.KEEP if not has(wire, path)} <= elsewhere


# Where nothing sent means nothing is wrong.
GOOD_BY_DEFAULT = {ADMINS, PUBLIC}


def nulls(value: Any) -> Any:
    """The same shape with every leaf null."""
    if isinstance(value, dict):
        return {k: nulls(v) for k, v in value.items()}
    return [nulls(item) for item in value] if isinstance(value, list) else None


@pytest.mark.parametrize("case", GOOD, ids=lambda c: c[0].__name__)
def test_null_is_absent_and_absent_is_no_pass(case: Case) -> None:
    kind, wire, related = case
    empty = {what: [] for what in related}
    for outline in ({}, dict.fromkeys(wire)):
        found = answers((kind, outline, empty))
        assert {id for id, answer in found.items() if "P" in answer} == GOOD_BY_DEFAULT & set(found)
        assert found == answers((kind, {}, empty))
    found = answers((kind, nulls(wire), nulls(related)))
    assert {id for id, answer in found.items() if "P" in answer} <= {"aws-eks-nodegroup-ssh-open"}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys, so that the value there can be replaced."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


NONSENSE = ("true", "x", 7, 0.5, True, [], ["x"], [None], [[]], [{"name": 7}], {}, {"x": None}, {"enabled": "true"})


def mutated(case: Case) -> Iterator[tuple[Any, Any, Case]]:
    """The case with one value replaced, over and over; items of lists beside the resource stay objects."""
    kind, wire, related = copy.deepcopy(case)
    roots = [wire, *(item for items in related.values() for item in items)]
    for container, key in [place for root in roots for place in places(root)]:
        before = container[key]
        for value in NONSENSE:
            container[key] = value
            yield before, value, (kind, wire, related)
        container[key] = before


@pytest.mark.parametrize("case", [*GOOD, *BAD], ids=lambda c: c[0].__name__)
def test_nonsense_never_breaks_a_check(case: Case) -> None:
    for _, _, changed in mutated(case):
        assert all(set(answer) <= set("PFNU") for answer in answers(changed).values())


@pytest.mark.parametrize("path", [(k, p) for k in OURS for p in k.KEEP], ids=lambda p: p[1])
def test_nonsense_where_a_kept_field_should_be(path: tuple[type[CloudResource], str]) -> None:
    kind, dotted = path
    for value in NONSENSE:
        wire: Any = value
        for key in reversed(dotted.split(".")):
            wire = {key: wire}
        related = next(related for case_kind, _, related in GOOD if case_kind is kind)
        assert all(set(answer) <= set("PFNU") for answer in answers((kind, wire, related)).values())


def is_wrong(before: Any, value: Any) -> bool:
    """Whether it is of another type than AWS's, and no other spelling of it: IAM takes a name or a list of names."""
    names = isinstance(before, str | list) and "*" in before and value in ("true", "x", ["x"])
    return type(value) is not type(before) and not names


@pytest.mark.parametrize("case", BAD, ids=lambda c: c[0].__name__)
def test_what_is_not_understood_never_helps_to_pass(case: Case) -> None:
    bad = {id for id, answer in answers(case).items() if set(answer) == {"F"}}
    for before, value, changed in mutated(case):
        if is_wrong(before, value):
            found = answers(changed)
            assert {id: found[id] for id in bad if not set(found[id]) <= set("FU")} == {}
