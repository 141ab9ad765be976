"""The local Amazon Web Services, asked through boto3."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from apiserver import ApiServer, tls
from aws_data import (
    ABSENT,
    AUDIT_ROLE,
    AWS_POLICY,
    CLUSTER_ADMIN,
    DEV,
    EXTERNAL_ID,
    HONG_KONG,
    ISSUER,
    K8S_POLICY,
    K8S_ROLE,
    PROD,
    SEOUL,
    UNSUPPORTED_VERSION,
    VARIANTS,
    VIRGINIA,
    Estate,
    Object,
    access_policy,
    cluster,
    cluster_versions,
    defender_trust,
    eks,
    estate_of,
    iam_arn,
    kubernetes_policy,
    large_estate,
    private_cluster,
    sample_estate,
    subnet_ids,
    vpc_id,
)
from awsserver import (
    LOADER,
    SCP,
    AwsServer,
    body,
    closed,
    delay,
    empty,
    expired,
    gone,
    hang,
    opt_in_required,
    reset,
    status,
    throttle,
)
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError, ResponseStreamingError

ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1}, read_timeout=5)
AUDIT = iam_arn(DEV, f"role/{AUDIT_ROLE}")
OWN = {"clusterName": "eks-private"}


@pytest.fixture
def estate() -> Estate:
    return sample_estate()


@pytest.fixture(autouse=True)
def _nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def aws(estate, monkeypatch) -> Iterator[AwsServer]:
    """Everything is the server's own answer."""
    with AwsServer(estate, moto=False) as server:
        _set(monkeypatch, server)
        yield server


@pytest.fixture
def with_moto(estate, monkeypatch) -> Iterator[AwsServer]:
    with AwsServer(estate) as server:
        _set(monkeypatch, server)
        yield server


def _set(monkeypatch: pytest.MonkeyPatch, server: AwsServer) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


Client = Callable[..., Any]


@pytest.fixture
def client() -> Iterator[Client]:
    made = []
    core = botocore.session.Session()
    core.register_component("data_loader", LOADER)
    session = boto3.Session(botocore_session=core)  # boto3.client would keep the credentials of its first call

    def make(service: str, region: str = SEOUL, config: Config = ONCE, **options: Any) -> Any:
        made.append(session.client(service, region_name=region, config=config, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def answer(client: Any, operation: str, **parameters: Any) -> Object:
    found = client._make_api_call(operation, parameters)
    del found["ResponseMetadata"]
    return found


def refusal(client: Any, operation: str, **parameters: Any) -> tuple[int, str, str]:
    """HTTP status, code and message of an error."""
    with pytest.raises(ClientError) as caught:
        client._make_api_call(operation, parameters)
    error = caught.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"], error["Error"]["Message"]


def assumed(client: Client, service: str, region: str = SEOUL) -> Any:
    """A client of the second account."""
    given = {"RoleArn": AUDIT, "RoleSessionName": "kubeposture", "ExternalId": EXTERNAL_ID}
    found = answer(client("sts"), "AssumeRole", **given)["Credentials"]
    keys = ("AccessKeyId", "SecretAccessKey", "SessionToken")
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    return client(service, region, **dict(zip(names, map(found.get, keys), strict=True)))


# --- what is served ---


def test_each_operation_of_eks(aws, client, estate):
    sdk, whole = client("eks"), estate.eks("eks-private")
    admin = whole.access_entries[1]
    policies = whole.access_policies[admin["principalArn"]]
    named = OWN | {"principalArn": admin["principalArn"]}
    assert answer(sdk, "ListClusters")["clusters"] == ["eks-private", "eks-restricted", "eks-auto", "eks-outpost"]
    assert answer(sdk, "DescribeCluster", name="eks-private") == {"cluster": whole.cluster}
    assert answer(sdk, "ListNodegroups", **OWN) == {"nodegroups": ["system", "apps"]}
    assert answer(sdk, "DescribeNodegroup", nodegroupName="apps", **OWN) == {"nodegroup": whole.nodegroups[1]}
    assert answer(sdk, "ListFargateProfiles", **OWN) == {"fargateProfileNames": []}
    (profile,) = estate.eks("eks-restricted").fargate_profiles
    given = {"clusterName": "eks-restricted", "fargateProfileName": "batch"}
    assert answer(sdk, "DescribeFargateProfile", **given) == {"fargateProfile": profile}
    assert answer(sdk, "ListAddons", **OWN)["addons"][0] == "vpc-cni"
    assert answer(sdk, "DescribeAddon", addonName="vpc-cni", **OWN) == {"addon": whole.addons[0]}
    assert len(answer(sdk, "ListAccessEntries", **OWN)["accessEntries"]) == 4
    wanted = {"associatedPolicyArn": policies[0]["policyArn"]}
    assert answer(sdk, "ListAccessEntries", **OWN, **wanted) == {"accessEntries": [admin["principalArn"]]}
    assert answer(sdk, "DescribeAccessEntry", **named) == {"accessEntry": admin}
    assert answer(sdk, "ListAssociatedAccessPolicies", **named) == named | {"associatedAccessPolicies": policies}


def test_versions_and_those_that_have_had_their_time(aws, client):
    sdk, every = client("eks"), cluster_versions()

    def minors(**wanted: Any) -> list[str]:
        return [item["clusterVersion"] for item in answer(sdk, "DescribeClusterVersions", **wanted)["clusterVersions"]]

    assert answer(sdk, "DescribeClusterVersions", includeAll=True) == {"clusterVersions": every}
    assert UNSUPPORTED_VERSION not in minors()
    assert minors(clusterVersions=[UNSUPPORTED_VERSION]) == [UNSUPPORTED_VERSION]
    assert minors(versionStatus="EXTENDED_SUPPORT") == ["1.32", "1.31"]
    assert minors(defaultOnly=True) == ["1.34"]


def test_each_operation_of_other_services(aws, client, estate):
    account, region = estate.accounts[PROD], estate.region()
    role, policy = account.roles[K8S_ROLE], account.policies[iam_arn(PROD, f"policy/{K8S_POLICY}")]
    (own, provider), (detector, features) = *account.oidc_providers.items(), *region.detectors.items()
    web = {"repositoryName": "shop/web"}
    group = region.log_groups[0]
    texts = region.repository_policies["shop/web"], region.lifecycle_policies["shop/web"]
    inline = "MDCContainersK8sDataCollectionRole"
    reader = "AzureDefenderKubernetesScubaReader"
    version = {"VersionId": "v2", "IsDefaultVersion": True, "CreateDate": policy.policy["UpdateDate"]}
    attached = {"PolicyName": K8S_POLICY, "PolicyArn": policy.policy["Arn"]}
    regions = answer(client("ec2"), "DescribeRegions", AllRegions=True)["Regions"]
    expected: list[tuple[str, str, Object, Object]] = [
        ("iam", "GetRole", {"RoleName": K8S_ROLE}, {"Role": role.role}),
        (
            "iam",
            "ListAttachedRolePolicies",
            {"RoleName": K8S_ROLE},
            {"AttachedPolicies": [attached], "IsTruncated": False},
        ),
        ("iam", "ListRolePolicies", {"RoleName": inline}, {"PolicyNames": [reader], "IsTruncated": False}),
        (
            "iam",
            "GetRolePolicy",
            {"RoleName": inline, "PolicyName": reader},
            {"RoleName": inline, "PolicyName": reader, "PolicyDocument": account.roles[inline].inline[reader]},
        ),
        ("iam", "GetPolicy", {"PolicyArn": policy.policy["Arn"]}, {"Policy": policy.policy}),
        (
            "iam",
            "GetPolicyVersion",
            {"PolicyArn": policy.policy["Arn"], "VersionId": "v2"},
            {"PolicyVersion": version | {"Document": kubernetes_policy()}},
        ),
        ("iam", "ListOpenIDConnectProviders", {}, {"OpenIDConnectProviderList": [{"Arn": own}]}),
        ("iam", "GetOpenIDConnectProvider", {"OpenIDConnectProviderArn": own}, provider),
        ("logs", "DescribeLogGroups", {"logGroupNamePrefix": "/aws/eks/eks-private"}, {"logGroups": [group]}),
        (
            "logs",
            "DescribeSubscriptionFilters",
            {"logGroupName": group["logGroupName"]},
            {"subscriptionFilters": region.subscription_filters[group["logGroupName"]]},
        ),
        ("ec2", "DescribeRegions", {}, {"Regions": regions[:2]}),
        ("ec2", "DescribeRegions", {"RegionNames": [VIRGINIA]}, {"Regions": regions[1:2]}),
        ("ec2", "DescribeSubnets", {"SubnetIds": subnet_ids(kind="public")}, {"Subnets": region.subnets[3:6]}),
        (
            "ec2",
            "DescribeSubnets",
            {"Filters": [{"Name": "vpc-id", "Values": [vpc_id()]}]},
            {"Subnets": region.subnets},
        ),
        (
            "ec2",
            "DescribeRouteTables",
            {"Filters": [{"Name": "association.subnet-id", "Values": subnet_ids(kind="public")}]},
            {"RouteTables": region.route_tables[2:]},
        ),
        ("ecr", "DescribeRepositories", {}, {"repositories": region.repositories}),
        ("ecr", "GetRepositoryPolicy", web, web | {"registryId": PROD, "policyText": json.dumps(texts[0])}),
        ("ecr", "GetLifecyclePolicy", web, web | {"registryId": PROD, "lifecyclePolicyText": json.dumps(texts[1])}),
        (
            "ecr",
            "GetRegistryScanningConfiguration",
            {},
            {"registryId": PROD, "scanningConfiguration": region.registry_scanning},
        ),
        (
            "ecr",
            "BatchGetRepositoryScanningConfiguration",
            {"repositoryNames": ["shop/web"]},
            {"scanningConfigurations": [region.repository_scanning["shop/web"]], "failures": []},
        ),
        ("guardduty", "ListDetectors", {}, {"DetectorIds": [detector]}),
        ("guardduty", "GetDetector", {"DetectorId": detector}, features),
        ("inspector2", "BatchGetAccountStatus", {}, {"accounts": [region.inspector], "failedAccounts": []}),
    ]
    clients = {service: client(service) for service in {service for service, *_ in expected}}
    aws.requests.clear()
    for service, operation, parameters, wanted in expected:
        assert answer(clients[service], operation, **parameters) == wanted, operation
    assert [(r.service, r.operation, r.parameters) for r in aws.requests] == [item[:3] for item in expected]
    assert {(r.account, r.region) for r in aws.requests} == {(PROD, SEOUL)}


def test_accounts_of_the_organization(aws, client, estate):
    found = answer(client("organizations"), "ListAccounts")["Accounts"]
    assert {item["Id"]: item["Status"] for item in found} == {PROD: "ACTIVE", DEV: "ACTIVE"}
    assert answer(client("organizations"), "DescribeOrganization")["Organization"]["MasterAccountId"] == PROD
    assert refusal(assumed(client, "organizations"), "ListAccounts")[1] == "AccessDeniedException"
    estate.management = ""
    aws.load(estate)
    assert refusal(client("organizations"), "ListAccounts")[1] == "AWSOrganizationsNotInUseException"


def test_keys_are_those_that_boto3_knows(estate):
    """What is misspelt here would never reach a rule."""
    model = botocore.session.Session().get_service_model("eks")
    shapes = {name: set(model.shape_for(name).members) for name in ("Cluster", "Nodegroup", "Addon", "AccessEntry")}
    nested = {name: set(shape.members) for name, shape in _structures(model.shape_for("Cluster"))}
    for _, item in estate.clusters():
        assert item.cluster.keys() <= shapes["Cluster"]
        for key, value in item.cluster.items():
            assert not isinstance(value, dict) or key == "tags" or value.keys() <= nested[key], key
        for kind, entries in (
            ("Nodegroup", item.nodegroups),
            ("Addon", item.addons),
            ("AccessEntry", item.access_entries),
        ):
            assert all(entry.keys() <= shapes[kind] for entry in entries)


def _structures(shape: Any) -> list[tuple[str, Any]]:
    return [(name, member) for name, member in shape.members.items() if member.type_name == "structure"]


def test_twelve_clusters_that_differ(aws, client):
    shapes = [make().cluster for make in VARIANTS]
    assert len({json.dumps(shape, default=str) for shape in shapes}) == 12
    assert shapes[-1]["resourcesVpcConfig"]["endpointPublicAccess"]
    aws.load(estate_of(*(make() for make in VARIANTS)))
    sdk = client("eks")
    names = answer(sdk, "ListClusters", include=["all"])["clusters"]
    assert [answer(sdk, "DescribeCluster", name=name)["cluster"] for name in names] == shapes
    assert set(names) - set(answer(sdk, "ListClusters")["clusters"]) == {"eks-connected"}


def test_absent_stays_absent(aws, client):
    gone = dict.fromkeys(("accessConfig", "deletionProtection", "upgradePolicy", "encryptionConfig"), ABSENT)
    aws.load(estate_of(eks("bare", resourcesVpcConfig={"endpointPublicAccess": ABSENT}, **gone)))
    found = answer(client("eks"), "DescribeCluster", name="bare")["cluster"]
    assert found.keys() == cluster("bare").keys() - gone.keys()
    assert "endpointPublicAccess" not in found["resourcesVpcConfig"]


@pytest.mark.parametrize(
    ("operation", "parameters", "text"),
    [
        ("DescribeCluster", {"name": "nope"}, "No cluster found for name: nope."),
        ("ListAddons", {"clusterName": "nope"}, "No cluster found for name: nope."),
        ("DescribeNodegroup", OWN | {"nodegroupName": "nope"}, "No node group found for name: nope."),
        ("DescribeFargateProfile", OWN | {"fargateProfileName": "nope"}, "No Fargate Profile found with name: nope."),
        ("DescribeAddon", OWN | {"addonName": "nope"}, "No addon: nope found in cluster: eks-private"),
        ("DescribeAccessEntry", OWN | {"principalArn": "nope"}, "The specified principalArn could not be found."),
    ],
)
def test_what_is_not_there(aws, client, operation, parameters, text):
    sdk = client("eks")
    with pytest.raises(sdk.exceptions.ResourceNotFoundException) as caught:
        answer(sdk, operation, **parameters)
    assert caught.value.response["Error"]["Message"].startswith(text)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "code"),
    [
        ("eks", "ListAccessEntries", {"clusterName": "eks-outpost"}, "InvalidRequestException"),
        ("iam", "GetRole", {"RoleName": "nope"}, "NoSuchEntity"),
        ("logs", "DescribeSubscriptionFilters", {"logGroupName": "/nope"}, "ResourceNotFoundException"),
        ("ec2", "DescribeSubnets", {"SubnetIds": ["subnet-1"]}, "InvalidSubnetID.NotFound"),
        ("ec2", "DescribeSubnets", {"Filters": [{"Name": "x", "Values": ["y"]}]}, "InvalidParameterValue"),
        ("ecr", "GetRepositoryPolicy", {"repositoryName": "nope"}, "RepositoryNotFoundException"),
        (
            "ecr",
            "BatchGetRepositoryScanningConfiguration",
            {"repositoryNames": ["aa"] * 26},
            "InvalidParameterException",
        ),
        ("guardduty", "GetDetector", {"DetectorId": "a" * 32}, "BadRequestException"),
    ],
)
def test_other_errors(aws, client, service, operation, parameters, code):
    assert refusal(client(service), operation, **parameters)[1] == code


def test_a_repository_without_policies(aws, client):
    sdk, sandbox = assumed(client, "ecr"), {"repositoryName": "sandbox"}
    assert refusal(sdk, "GetLifecyclePolicy", **sandbox)[1] == "LifecyclePolicyNotFoundException"
    assert json.loads(answer(sdk, "GetRepositoryPolicy", **sandbox)["policyText"])["Statement"][0]["Principal"] == "*"


# --- pages ---


def test_more_than_a_hundred_clusters(aws, client):
    aws.load(estate_of(*(private_cluster(f"eks-{number:03d}") for number in range(230))))
    pages = list(client("eks").get_paginator("list_clusters").paginate())
    assert [len(page["clusters"]) for page in pages] == [100, 100, 30]
    assert pages[-1]["clusters"][-1] == "eks-229"
    assert [sorted(r.parameters) for r in aws.requests] == [[], ["nextToken"], ["nextToken"]]


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "key", "pages"),
    [
        ("eks", "list_addons", OWN, "addons", 3),
        ("eks", "describe_cluster_versions", {}, "clusterVersions", 3),
        ("iam", "list_attached_role_policies", {"RoleName": K8S_ROLE}, "AttachedPolicies", 1),
        ("organizations", "list_accounts", {}, "Accounts", 1),
        ("ec2", "describe_subnets", {}, "Subnets", 5),
        ("ecr", "describe_repositories", {}, "repositories", 1),
        ("logs", "describe_log_groups", {}, "logGroups", 2),
        ("guardduty", "list_detectors", {}, "DetectorIds", 1),
    ],
)
def test_pages_of_each_protocol(aws, client, service, operation, parameters, key, pages):
    whole = list(client(service).get_paginator(operation).paginate(**parameters))
    aws.page_size = 2
    parts = list(client(service).get_paginator(operation).paginate(**parameters))
    assert (len(whole), len(parts)) == (1, pages)
    assert [item for part in parts for item in part[key]] == whole[0][key]


def test_forged_tokens_are_refused(aws, client):
    assert refusal(client("eks"), "ListClusters", nextToken="forged")[1] == "InvalidParameterException"


# --- who asks ---


def test_an_assumed_role_is_in_the_other_account(aws, client):
    sdk = assumed(client, "eks")
    assert "eks-public" in answer(sdk, "ListClusters")["clusters"]
    assume, listing = aws.requests
    assert (assume.action, assume.account, assume.parameters["ExternalId"]) == ("sts:AssumeRole", PROD, EXTERNAL_ID)
    assert (listing.action, listing.account) == ("eks:ListClusters", DEV)
    (session,) = aws.sessions
    assert (session.account, session.principal) == (
        DEV,
        f"arn:aws:sts::{DEV}:assumed-role/{AUDIT_ROLE}/kubeposture",
    )
    assert answer(assumed(client, "sts"), "GetCallerIdentity")["Arn"] == session.principal
    assert answer(client("sts"), "GetCallerIdentity")["Arn"] == iam_arn(PROD, "user/scanner")


@pytest.mark.parametrize(
    "given",
    [{"RoleArn": AUDIT}, {"RoleArn": AUDIT, "ExternalId": "wrong"}, {"RoleArn": iam_arn(PROD, "role/none")}],
)
def test_roles_that_may_not_be_assumed(aws, client, given):
    number, code, message = refusal(client("sts"), "AssumeRole", RoleSessionName="kubeposture", **given)
    assert (number, code) == (403, "AccessDenied")
    assert message.endswith(f"is not authorized to perform: sts:AssumeRole on resource: {given['RoleArn']}")


def test_sessions_end(aws, client):
    aws.session_seconds = 60
    given = {"RoleArn": AUDIT, "RoleSessionName": "kubeposture", "ExternalId": EXTERNAL_ID}
    found = answer(client("sts"), "AssumeRole", **given)["Credentials"]
    assert (found["Expiration"] - datetime.now(UTC)).total_seconds() == pytest.approx(60, abs=5)
    clients = {service: assumed(client, service) for service in ("eks", "ecr", "sts", "ec2")}
    aws.revoke()
    operations = {
        "eks": "ListClusters",
        "ecr": "DescribeRepositories",
        "sts": "GetCallerIdentity",
        "ec2": "DescribeRegions",
    }
    assert {service: refusal(sdk, operations[service])[1] for service, sdk in clients.items()} == {
        "eks": "ExpiredTokenException",
        "ecr": "ExpiredTokenException",
        "sts": "ExpiredToken",
        "ec2": "RequestExpired",
    }


def test_a_user_of_another_account(aws, client, monkeypatch):
    for name, value in aws.environment_of(DEV).items():
        monkeypatch.setenv(name, value)
    assert answer(client("sts"), "GetCallerIdentity")["Account"] == DEV


def test_unknown_keys(aws, client):
    sdk = client("eks", aws_access_key_id="AKIAUNKNOWN", aws_secret_access_key="x")
    assert refusal(sdk, "ListClusters")[:2] == (403, "UnrecognizedClientException")
    assert aws.requests[-1].account == ""


def test_presigned_identity_as_clusters_check_it(aws, client):
    sdk = client("sts")
    sdk.meta.events.register(
        "before-sign.sts.GetCallerIdentity",
        lambda request, **_: request.headers.add_header("x-k8s-aws-id", "eks-private"),
    )
    url = sdk.generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
    assert url.startswith(aws.url)
    with urllib.request.urlopen(urllib.request.Request(url, headers={"x-k8s-aws-id": "eks-private"})) as response:
        assert f"<Account>{PROD}</Account>" in response.read().decode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(aws.url + "/clusters")
    with caught.value as error:
        assert error.code == 403


@pytest.mark.parametrize("region", [HONG_KONG, "eu-south-2"])
def test_regions_that_are_closed(aws, client, region):
    invalid = "The security token included in the request is invalid."
    assert refusal(client("eks", region), "ListClusters") == (403, "UnrecognizedClientException", invalid)
    assert refusal(client("ecr", region), "DescribeRepositories") == (400, "UnrecognizedClientException", invalid)
    assert refusal(client("sts", region), "GetCallerIdentity") == (403, "InvalidClientTokenId", invalid)
    assert refusal(client("ec2", region), "DescribeSubnets")[:2] == (401, "AuthFailure")
    assert answer(client("iam", region), "GetRole", RoleName=K8S_ROLE)  # not of any region


def test_regions_say_whether_they_are_open(aws, client):
    found = answer(client("ec2"), "DescribeRegions", AllRegions=True)["Regions"]
    open_ = "opt-in-not-required"
    states = {item["RegionName"]: item["OptInStatus"] for item in found}
    assert states == {SEOUL: open_, VIRGINIA: open_, HONG_KONG: "not-opted-in"}


# --- what can go wrong ---


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "status_code", "code", "resource"),
    [
        ("eks", "ListNodegroups", OWN, 403, "AccessDeniedException", f"arn:aws:eks:{SEOUL}:{PROD}:cluster/eks-private"),
        ("ecr", "DescribeRepositories", {}, 400, "AccessDeniedException", f"arn:aws:ecr:{SEOUL}:{PROD}:repository/*"),
        ("iam", "GetRole", {"RoleName": K8S_ROLE}, 403, "AccessDenied", f"role {K8S_ROLE}"),
        ("ec2", "DescribeSubnets", {}, 403, "UnauthorizedOperation", ""),
    ],
)
def test_denied_in_the_words_of_each_protocol(aws, client, service, operation, parameters, status_code, code, resource):
    action = f"{service}:{operation}"
    aws.deny(action)
    start = "You are not authorized to perform this operation. " if service == "ec2" else ""
    on = f" on resource: {resource}" if resource else ""
    text = f"{start}User: {iam_arn(PROD, 'user/scanner')} is not authorized to perform: {action}{on}"
    assert refusal(client(service), operation, **parameters) == (
        status_code,
        code,
        f"{text} because no identity-based policy allows the {action} action",
    )


def test_denied_by_a_service_control_policy_somewhere(aws, client):
    aws.deny("eks:*", account=PROD, region=VIRGINIA, because=SCP)
    number, code, message = refusal(client("eks", VIRGINIA), "DescribeCluster", name="x")
    assert (number, code) == (403, "AccessDeniedException")
    assert message.endswith("cluster/x with an explicit deny in a service control policy")
    assert answer(client("eks"), "ListClusters")["clusters"]
    assert answer(assumed(client, "eks", VIRGINIA), "ListClusters") == {"clusters": []}
    aws.heal()
    assert answer(client("eks", VIRGINIA), "ListClusters")["clusters"] == ["eks-sparse", "eks-ipv6"]


def test_denied_for_one_thing_only(aws, client):
    aws.deny("EKS:Describe*", where={"name": "eks-private"})
    assert refusal(client("eks"), "DescribeCluster", name="eks-private")[1] == "AccessDeniedException"
    assert answer(client("eks"), "DescribeCluster", name="eks-auto")


def test_throttled_in_the_words_of_each_protocol(aws, client):
    aws.inject(".", throttle())
    asked = {"eks": "ListClusters", "ecr": "DescribeRepositories", "sts": "GetCallerIdentity", "ec2": "DescribeRegions"}
    assert {service: refusal(client(service), operation)[:2] for service, operation in asked.items()} == {
        "eks": (429, "TooManyRequestsException"),
        "ecr": (400, "ThrottlingException"),
        "sts": (400, "Throttling"),
        "ec2": (503, "RequestLimitExceeded"),
    }


@pytest.mark.parametrize("service", ["eks", "ecr"])
def test_throttling_is_tried_again(aws, client, service, monkeypatch):
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    aws.inject(f"^{service}:", throttle(), times=2)
    sdk = client(service, config=Config(retries={"mode": "standard", "max_attempts": 5}))
    assert answer(sdk, "ListClusters" if service == "eks" else "DescribeRepositories")
    assert len(aws.requests) == 3


def test_faults_wait_for_their_turn(aws, client):
    aws.inject("^eks:ListClusters$", status(503), times=1, after=1, region=SEOUL)
    sdk = client("eks")
    answer(client("eks", VIRGINIA), "ListClusters")
    answer(sdk, "ListClusters")
    assert refusal(sdk, "ListClusters") == (503, "ServiceUnavailableException", "injected")
    answer(sdk, "ListClusters")


def test_a_cluster_that_goes_away(aws, client):
    aws.inject("^eks:(Describe|List)", gone(), after=1)
    sdk = client("eks")
    assert "eks-private" in answer(sdk, "ListClusters")["clusters"]
    for operation, parameters in (("DescribeCluster", {"name": "eks-private"}), ("ListNodegroups", OWN)):
        wanted = (404, "ResourceNotFoundException", "No cluster found for name: eks-private.")
        assert refusal(sdk, operation, **parameters) == wanted


def test_other_faults(aws, client):
    faults = [closed(), opt_in_required(), expired(), status(400, "Odd", "text")]
    for fault in faults:
        aws.inject("^eks:", fault, times=1)
    sdk = client("eks")
    codes = [refusal(sdk, "ListClusters")[1] for _ in faults]
    assert codes == ["UnrecognizedClientException", "OptInRequired", "ExpiredTokenException", "Odd"]


def test_connections_break_hang_and_answer_nonsense(aws, client):
    aws.inject("^eks:", reset(), times=1)
    aws.inject("^eks:", hang(), times=1)
    aws.inject("^eks:", body(b"<html>", content_type="text/html"), times=1)
    aws.inject("^eks:", delay(0.05), times=1)
    sdk = client("eks", config=ONCE.merge(Config(read_timeout=0.6)))
    # Half a body is one or the other, by whether the reset overtakes the answer's head.
    with pytest.raises((ConnectionClosedError, ResponseStreamingError)):
        answer(sdk, "ListClusters")
    with pytest.raises(ReadTimeoutError):
        answer(sdk, "ListClusters")
    assert answer(sdk, "ListClusters") == {}  # boto3 takes what is no JSON for an answer in which all is absent
    start = time.monotonic()
    assert answer(sdk, "ListClusters")["clusters"]
    assert time.monotonic() - start >= 0.05
    assert len(aws.requests) == 4


def test_empty_answers_have_the_form_of_the_operation(aws, client):
    aws.inject(".", empty())
    assert answer(client("eks"), "ListClusters") == {"clusters": []}
    assert answer(client("ec2"), "DescribeSubnets") == {"Subnets": []}
    assert answer(client("iam"), "ListRolePolicies", RoleName="x") == {"PolicyNames": []}


def test_latency(aws, client):
    aws.latency = 0.05
    start = time.monotonic()
    answer(client("eks"), "ListClusters")
    assert time.monotonic() - start >= 0.05


def test_writes_are_seen(aws, client):
    assert refusal(client("eks"), "DeleteCluster", name="eks-private")[:2] == (404, "UnknownOperationException")
    (request,) = aws.requests
    assert (request.action, request.method, request.path) == ("eks:DeleteCluster", "DELETE", "/clusters/eks-private")


# --- moto ---

_MADE_UP = {"CreateDate", "UpdateDate", "RoleId", "PolicyId", "RoleLastUsed", "creationTime", "createdAt", "UpdatedAt"}
_MADE_UP |= {"CreatedAt", "DataSources", "storedBytes", "logGroupClass", "lastEvaluatedAt", "DetectorId"}
_MADE_UP |= {"PermissionsBoundaryUsageCount", "Tags", "ServiceRole"}


def _plain(value: Any) -> Any:
    """Without what moto makes up: ids, dates and defaults."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in _MADE_UP}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def test_moto_answers_as_the_server_does(with_moto, client, estate):
    asked: list[tuple[str, str, Object]] = [
        ("iam", "ListOpenIDConnectProviders", {}),
        ("iam", "GetOpenIDConnectProvider", {"OpenIDConnectProviderArn": iam_arn(PROD, f"oidc-provider/{ISSUER}")}),
        ("iam", "GetPolicy", {"PolicyArn": AWS_POLICY["Arn"]}),
        ("logs", "DescribeLogGroups", {}),
        ("logs", "DescribeSubscriptionFilters", {"logGroupName": "/aws/eks/eks-private/cluster"}),
        ("ecr", "GetRepositoryPolicy", {"repositoryName": "shop/web"}),
        ("ecr", "GetLifecyclePolicy", {"repositoryName": "shop/web"}),
        ("ecr", "GetRegistryScanningConfiguration", {}),
    ]
    for name, role in estate.accounts[PROD].roles.items():
        own = {"RoleName": name}
        asked += [("iam", operation, own) for operation in ("GetRole", "ListAttachedRolePolicies", "ListRolePolicies")]
        asked += [("iam", "GetRolePolicy", own | {"PolicyName": text}) for text in role.inline]
    for own, policy in estate.accounts[PROD].policies.items():
        if own != AWS_POLICY["Arn"]:
            asked.append(("iam", "GetPolicy", {"PolicyArn": own}))
            versions = [("iam", "GetPolicyVersion", {"PolicyArn": own, "VersionId": text}) for text in policy.versions]
            asked += versions
    clients = {service: client(service) for service in ("iam", "logs", "ecr", "guardduty")}

    def answers() -> list[Any]:
        found = [answer(clients[service], operation, **parameters) for service, operation, parameters in asked]
        (detector,) = answer(clients["guardduty"], "ListDetectors")["DetectorIds"]  # its id lasts until moto is reset
        return [_plain(item) for item in (*found, answer(clients["guardduty"], "GetDetector", DetectorId=detector))]

    theirs = answers()
    with_moto.moto = False
    for index, (his, ours) in enumerate(zip(theirs, answers(), strict=True)):
        assert his == ours, [*asked, ""][index]


def test_moto_knows_each_account_and_what_changed(with_moto, client, estate):
    def trusted(sdk: Any) -> Object:
        return answer(sdk, "GetRole", RoleName=K8S_ROLE)["Role"]["AssumeRolePolicyDocument"]

    here, there = client("iam"), assumed(client, "iam")
    assert (trusted(here), trusted(there)) == (defender_trust(PROD), defender_trust(DEV))
    assert answer(here, "ListRolePolicies", RoleName=K8S_ROLE)["PolicyNames"] == []
    assert answer(there, "ListRolePolicies", RoleName=K8S_ROLE)["PolicyNames"] == ["little"]
    del estate.accounts[PROD].roles[K8S_ROLE]
    with_moto.load(estate)
    assert refusal(here, "GetRole", RoleName=K8S_ROLE)[1] == "NoSuchEntity"
    assert trusted(there) == defender_trust(DEV)
    with_moto.deny("iam:GetRole")
    assert refusal(there, "GetRole", RoleName=K8S_ROLE)[1] == "AccessDenied"


def test_moto_has_what_the_server_does_not_know(with_moto, client):
    assert answer(client("sqs"), "ListQueues") == {}
    assert (with_moto.requests[0].action, with_moto.requests[0].account) == ("sqs:ListQueues", PROD)


def test_what_breaks_in_moto_is_told(estate, client, monkeypatch):
    def ask() -> None:
        with AwsServer(estate) as server:
            _set(monkeypatch, server)
            refusal(client("ecr"), "GetAccountSetting", name="BASIC_SCAN_TYPE_VERSION")

    with pytest.raises(RuntimeError, match="moto: ecr:GetAccountSetting: 500"):
        ask()


# --- how it runs ---


def test_a_cluster_can_be_a_local_server(aws, client, estate):
    with ApiServer(token="t", tls=tls()) as api:
        estate.connect("eks-private", api.url, api.tls.ca)
        estate.eks("eks-private").admit("user/scanner", access_policy(CLUSTER_ADMIN))
        aws.load(estate)
        found = answer(client("eks"), "DescribeCluster", name="eks-private")["cluster"]
        context = ssl.create_default_context(cadata=_pem(found["certificateAuthority"]["data"]))
        request = urllib.request.Request(found["endpoint"] + "/version", headers={"Authorization": "Bearer t"})
        with urllib.request.urlopen(request, context=context) as response:
            assert json.load(response)["major"] == "1"


def _pem(data: str) -> str:
    return base64.b64decode(data).decode()


def test_a_large_estate_is_spread(estate):
    large = large_estate(3, 4, 120)
    assert len(large.accounts) == 3
    assert {len(region.clusters) for account in large.accounts.values() for region in account.regions.values()} == {10}
    assert len({item.name for _, item in large.clusters()}) == 120


def test_process_of_its_own(client, monkeypatch):
    options = ["--accounts", "2", "--regions", "2", "--clusters", "24", "--latency", "0.01"]
    command = [sys.executable, Path(__file__).with_name("awsserver.py"), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        ready = json.loads(process.stdout.readline())
        for name, value in ready["environment"].items():
            monkeypatch.setenv(name, value)
        assert len(answer(client("eks"), "ListClusters")["clusters"]) == 6
        given = {"RoleArn": ready["roles"][0], "RoleSessionName": "bench", "ExternalId": EXTERNAL_ID}
        assert answer(client("sts"), "AssumeRole", **given)["AssumedRoleUser"]
        process.stdin.close()
        assert json.loads(process.stdout.read()) == 2
        assert process.wait(timeout=10) == 0
