"""What becomes of a scan when one call is refused, derived from the wire: each call of a clean run is refused in turn,
and what rests on it has to turn unknown, and nothing else may change."""

import json
import os
from typing import NamedTuple

import pytest
from apiserver import ApiServer, tls
from aws_data import (
    ABSENT,
    AWS_NODE,
    DEV,
    K8S_ROLE,
    PROD,
    SEOUL,
    Account,
    Estate,
    allow,
    bad_nodegroup,
    bad_repository,
    basic_finding,
    basic_scan,
    coverage,
    detector,
    digest,
    digits,
    document,
    eks,
    iam_arn,
    image,
    index,
    index_manifest,
    inspector_finding,
    inspector_status,
    region_of,
    repository_policy,
)
from awsserver import AwsServer, empty, throttle
from botocore.retries.standard import ExponentialBackoff
from cli import kubeposture
from support import deployment, secured

from scanner.check import SCOPES
from scanner.cli.catalogue import catalogue
from scanner.images import RunningContainer

CHECKS = catalogue()
ROLES = [option for account in (PROD, DEV) for option in ("--role-arn", iam_arn(account, "role/audit"))]
# What an operation is asked for: the names that checks give to it. "" is everything.
RESTS_ON = {
    "sts:GetCallerIdentity": "",
    "sts:AssumeRole": "",
    "ec2:DescribeRegions": "",
    "eks:ListClusters": "",
    "eks:DescribeCluster": "AWS::EKS::Cluster",
    "eks:DescribeClusterVersions": "clusterVersions",
    "eks:ListNodegroups": "nodegroups subnets",
    "eks:DescribeNodegroup": "nodegroups subnets",
    "eks:ListAddons": "addons",
    "eks:DescribeAddon": "addons",
    "eks:ListAccessEntries": "accessEntries",
    "eks:ListAssociatedAccessPolicies": "accessEntries",
    "ec2:DescribeSubnets": "subnets",
    "ec2:DescribeRouteTables": "subnets",
    "guardduty:ListDetectors": "detectors",
    "guardduty:GetDetector": "detectors",
    "ecr:DescribeRepositories": "AWS::ECR::Repository inspector images",
    "ecr:GetRepositoryPolicy": "policy",
    "ecr:GetLifecyclePolicy": "lifecyclePolicy",
    "ecr:BatchGetRepositoryScanningConfiguration": "scanning",
    "inspector2:BatchGetAccountStatus": "inspector images",
    "ecr:DescribeImages": "images",
    "ecr:BatchGetImage": "images",
    "ecr:DescribeImageScanFindings": "images",
    "inspector2:ListCoverage": "images",
    "inspector2:ListFindings": "images",
    "iam:GetRole": "defenderRoles templateRoles",
    "iam:ListAttachedRolePolicies": "defenderRoles",
    "iam:GetPolicy": "defenderRoles",
    "iam:GetPolicyVersion": "defenderRoles",
    "iam:ListRolePolicies": "defenderRoles",
    "iam:GetRolePolicy": "defenderRoles",
    "iam:ListOpenIDConnectProviders": "oidcProviders",
    "logs:DescribeSubscriptionFilters": "subscriptionFilters",
}
# Where AWS refuses whoever may not see all, so that an empty list is the truth.
MAY_BE_EMPTY = (
    "eks:ListClusters",
    "eks:ListNodegroups",
    "eks:ListAddons",
    "eks:ListAccessEntries",
    "eks:ListAssociatedAccessPolicies",
    "guardduty:ListDetectors",
    "ecr:DescribeRepositories",
    "ecr:DescribeImages",
    "inspector2:ListFindings",
    "iam:ListAttachedRolePolicies",
    "iam:ListRolePolicies",
    "iam:ListOpenIDConnectProviders",
    "logs:DescribeSubscriptionFilters",
)
LISTS = (
    *MAY_BE_EMPTY,
    "ec2:DescribeRegions",
    "eks:DescribeClusterVersions",
    "ec2:DescribeSubnets",
    "ec2:DescribeRouteTables",
    "ecr:BatchGetRepositoryScanningConfiguration",
    "ecr:BatchGetImage",
    "inspector2:BatchGetAccountStatus",
    "inspector2:ListCoverage",
)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for name in tuple(os.environ):
        if name.startswith(("AWS_", "BOTO", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


class Run(NamedTuple):
    code: int
    findings: dict
    gaps: list
    clusters: set


def run(*args):
    result = kubeposture("scan", "eks", *ROLES, "--status", "all", "-o", "json", *args)
    report = json.loads(result.stdout)
    clusters = {c["id"] for c in report["clusters"]}
    return Run(result.code, {f["id"]: f for f in report["findings"]}, report["gaps"], clusters)


def account(id, name, cluster, *, good):
    region = region_of(id, SEOUL, cluster)
    if not good:
        place = {"account": id, "region": SEOUL}
        region.repositories.clear()
        region.add_repository(bad_repository("sandbox", **place), access=repository_policy("*"))
        region.repository_scanning["sandbox"] |= {"scanOnPush": False, "scanFrequency": "MANUAL"}
        off = ("EKS_AUDIT_LOGS", "EKS_ADDON_MANAGEMENT")
        region.detectors = {digits(id, "detector", length=32): detector(id, off=off)}
        region.inspector = inspector_status(id, off=("ecr",))
    add_images(region, "shop/web" if good else "sandbox")
    found = Account(id, name, regions={SEOUL: region}, assumable={"audit": ""})
    found.onboard()
    for extra in found.roles.values():
        extra.inline["more"] = document(allow("eks:CreateAccessEntry"))
    if not good:
        found.roles[K8S_ROLE].attached = [iam_arn(id, "policy/SecurityCenterCloudWatchToKinesis")]
    return found


def add_images(region, repository):
    """An index of one image that is clean, and one image that is not; as Inspector and as basic scanning see them."""
    whole, clean, bad = (f"{repository}-{name}".replace("/", "-") for name in ("index", "clean", "bad"))
    counted = {"imageScanFindingsSummary": {"findingSeverityCounts": {"HIGH": 1}}}
    region.images[repository] = [index(whole), image(clean, imageTags=ABSENT), image(bad, **counted)]
    region.manifests[digest(whole)] = index_manifest((clean, "linux/amd64"))
    region.image_scans[digest(bad)] = basic_scan(basic_finding())
    region.inspector_coverage = [coverage(name, repository, account=region.account) for name in (clean, bad)]
    region.inspector_findings = [inspector_finding("CVE-2026-1001", bad, repository, account=region.account)]


@pytest.fixture
def aws(monkeypatch):
    """Two accounts, one of them in good order; every list has something in it, and every cluster can be read."""
    bad = eks("bad", account=DEV, nodegroups=[bad_nodegroup("apps", "bad", account=DEV)], deletionProtection=False)
    estate = Estate.of(
        account(PROD, "Production", eks("good"), good=True), account(DEV, "Development", bad, good=False)
    )
    with (
        ApiServer(inside("1", privileged=False), tls=tls()) as one,
        ApiServer(inside("2", privileged=True), tls=tls()) as two,
        AwsServer(estate, moto=False) as aws,
    ):
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)
        estate.connect("good", one.url, one.tls.ca)
        estate.connect("bad", two.url, two.tls.ca)
        yield aws


def inside(uid, **container):
    system = {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": uid}}
    team = {"kind": "Namespace", "metadata": {"name": "a"}}
    return [system, team, deployment(secured(**container), namespace="a"), AWS_NODE]


def concerns(action, finding, accounts):
    if finding["account"] not in accounts:
        return False
    names = RESTS_ON[action].split()
    if not names:
        return True
    check = CHECKS[finding["check"]]
    if finding["category"] == "data_plane" or check.scope is RunningContainer:
        return action == "eks:DescribeCluster"
    return bool({*SCOPES[check.scope], *check.needs} & set(names))


def stands_for(now, finding):
    """What is in the report for a finding that could not be made: of its account, or of all of AWS."""
    return [
        f
        for f in now.findings.values()
        if (f["check"], f["status"]) == (finding["check"], "unknown") and f["account"] in (finding["account"], "aws")
    ]


def problems(action, clean, now, *, accounts=(PROD, DEV), proven=False, named=True):
    """Whatever a report says that it may not."""
    if not proven and now.code not in (3, 4):
        yield f"exit code {now.code}"
    if named and not [g for g in now.gaps if g["permission"] == action]:
        yield "no gap names the right"
    if [g for g in now.gaps if "internal error" in g["detail"]]:
        yield "something crashed"
    for id, before in clean.findings.items():
        found = now.findings.get(id)
        if found is None:
            kept = concerns(action, before, accounts) and (proven or stands_for(now, before))
            problem = "" if kept else "is lost"
        else:
            problem = changed(before, found, action if named else "", concerns(action, before, accounts), proven)
        if problem:
            yield f"{before['check']} of {before['resource']['name']}: {before['status']} {problem}"
    for id in now.findings.keys() - clean.findings.keys():
        found = now.findings[id]
        if found["status"] != "unknown" and not (proven and found["status"] in ("not_applicable", "fail")):
            yield f"{found['check']} of {found['resource']['name']}: {found['status']} is new"


def changed(before, found, right, concerned, proven):
    if found["status"] == before["status"]:
        return ""
    if not concerned:
        return f"became {found['status']} without cause"
    if found["status"] == "unknown":
        return "" if right in found["message"] else f"does not say what right is needed: {found['message']}"
    return "" if proven and found["status"] in ("fail", "not_applicable") else f"became {found['status']}"


def shown(found):
    return "\n".join(f"{action}: {problem}" for action, each in found.items() for problem in each)


def asked(aws):
    found = sorted({r.action for r in aws.requests})
    assert set(found) == set(RESTS_ON)
    return found


def test_what_is_denied_turns_what_rests_on_it_unknown_and_nothing_else(aws):
    clean = run()
    assert (clean.code, clean.gaps) == (0, [])
    found = {}
    for action in asked(aws):
        aws.deny(action)
        now = run()
        found[action] = list(problems(action, clean, now))
        if RESTS_ON[action] and now.clusters != clean.clusters:
            found[action].append("clusters are lost")
        aws.heal()
    assert shown(found) == ""


def test_what_is_denied_in_one_account_leaves_the_other_alone(aws):
    clean = run()
    found = {}
    assert asked(aws)
    for action in sorted({r.action for r in aws.requests if r.account == DEV}):
        if not action.startswith("sts:"):
            aws.deny(action, account=DEV)
            found[action] = list(problems(action, clean, run(), accounts=(DEV,)))
            aws.heal()
    assert shown(found) == ""


def test_what_is_throttled_for_ever_turns_what_rests_on_it_unknown(aws):
    clean = run()
    found = {}
    for action in asked(aws):
        aws.inject(f"^{action}$", throttle())
        found[action] = list(problems(action, clean, run(), named=False))
        aws.heal()
    assert shown(found) == ""


def test_an_empty_list_is_believed_only_where_it_can_be_true(aws):
    clean = run()
    found = {}
    for action in sorted(set(asked(aws)) & set(LISTS)):
        aws.inject(f"^{action}$", empty())
        found[action] = list(problems(action, clean, run(), proven=action in MAY_BE_EMPTY, named=False))
        aws.heal()
    assert len(found) == len(LISTS)
    # Without node groups no node of one is public, without access entries nobody is administrator by one, and images
    # without findings are clean.
    true = {
        "eks:ListNodegroups": "became pass",
        "eks:ListAccessEntries": "became pass",
        "eks:ListAssociatedAccessPolicies": "became pass",
        "inspector2:ListFindings": "became pass",
    }
    for action, text in true.items():
        found[action] = [problem for problem in found[action] if not problem.endswith(text)]
    assert shown(found) == ""


def test_what_checks_need_is_asked_for(aws):
    """Else they would never be able to answer."""
    assert not [f["check"] for f in run("--planes", "control").findings.values() if "was not asked for" in f["message"]]
