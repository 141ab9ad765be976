"""`scan eks` of an account that was made with boto3: what one asks AWS to create is what the report says of it.

moto answers what it can: CreateCluster, CreateNodegroup and the calls that list and describe these; all of iam,
guardduty and logs; the subnets and route tables of ec2; of ecr everything. AwsServer answers what moto lacks or bends:

- eks: ListAddons, DescribeAddon, ListAccessEntries, ListAssociatedAccessPolicies, DescribeClusterVersions;
- sts GetCallerIdentity, ec2 DescribeRegions, inspector2 BatchGetAccountStatus and ListCoverage.

Of a cluster moto drops `LACKING`, makes up an API server, and sends an empty encryptionConfig where none was asked for.
"""

import base64
import contextlib
import json
import os

import boto3
import jsonschema_rs
import pytest
from apiserver import ApiServer, tls
from aws_data import ALL_IPV4, AWS_NODE, LOG_TYPES, PROD, SEOUL, Account, Eks, Estate, eks, iam_arn, region_of
from awsserver import AwsServer, amended
from cli import kubeposture
from support import deployment, secured

from scanner.report import schema

VALID = jsonschema_rs.validator_for(schema.report_schema())
FROM_MOTO = frozenset(
    {
        *(f"eks:{what}" for what in ("ListClusters", "DescribeCluster", "ListNodegroups", "DescribeNodegroup")),
        *("ec2:DescribeSubnets", "ec2:DescribeRouteTables"),
        *("ecr:DescribeRepositories", "ecr:BatchGetRepositoryScanningConfiguration", "ecr:DescribeImages"),
    }
)
LACKING = ("accessConfig", "deletionProtection", "upgradePolicy")
KEY = f"arn:aws:kms:{SEOUL}:{PROD}:key/0b1c"
GOOD, BAD, BARE = "shop-a", "shop-b", "bare"
OF_BOTH = {
    "aws-eks-node-auto-repair",
    "aws-eks-defender-arc-extension",
    "aws-eks-guardduty",
}  # no Azure Arc inside, no GuardDuty in the region
OF_REPOSITORY = {"aws-ecr-public-policy", "aws-ecr-tag-immutability"}
OF_BAD = {
    "k8s-privileged-container",
    "aws-eks-access-entries",
    "aws-eks-bootstrap-admin",
    "aws-eks-control-plane-logging",
    "aws-eks-deletion-protection",
    "aws-eks-endpoint-private-enabled",
    "aws-eks-endpoint-private-only",
    "aws-eks-endpoint-public-open",
    "aws-eks-nodegroup-ami",
    "aws-eks-nodegroup-ssh-open",
    "aws-eks-nodes-private",
    "aws-eks-secrets-cmk",
    "aws-eks-upgrade-policy",
}
SETTINGS = {
    GOOD: {
        "resourcesVpcConfig": {"endpointPublicAccess": False, "endpointPrivateAccess": True},
        "accessConfig": {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False},
        "deletionProtection": True,
        "upgradePolicy": {"supportType": "STANDARD"},
        "encryptionConfig": [{"resources": ["secrets"], "provider": {"keyArn": KEY}}],
        "logging": {"clusterLogging": [{"types": list(LOG_TYPES), "enabled": True}]},
    },
    BAD: {
        "resourcesVpcConfig": {
            "endpointPublicAccess": True,
            "endpointPrivateAccess": False,
            "publicAccessCidrs": ["203.0.113.0/24", ALL_IPV4],
        },
        "accessConfig": {"authenticationMode": "CONFIG_MAP", "bootstrapClusterCreatorAdminPermissions": True},
        "deletionProtection": False,
        "upgradePolicy": {"supportType": "EXTENDED"},
        "encryptionConfig": [],
        "logging": {"clusterLogging": [{"types": list(LOG_TYPES), "enabled": False}]},
    },
    BARE: {},
}


@pytest.fixture(scope="module")
def made():
    """AWS, with three clusters and two repositories made there, and the API server of each cluster. Only read."""
    region = region_of(PROD, SEOUL, *(Eks(eks(name).cluster, addons=eks(name).addons) for name in SETTINGS))
    region.repositories.clear()
    region.detectors.clear()
    account = Account(PROD, "Production", regions={SEOUL: region})
    account.onboard()
    with contextlib.ExitStack() as stack:
        aws = stack.enter_context(AwsServer(Estate.of(account), from_moto=FROM_MOTO))
        aws.empty_moto()
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in tuple(os.environ):
            if name.startswith(("AWS_", "BOTO", "KUBE")):
                patch.delenv(name)
        for name, value in aws.environment.items():
            patch.setenv(name, value)
        create_account(boto3.Session())
        insides = {name: stack.enter_context(inside(name)) for name in SETTINGS}
        for name, api in insides.items():
            aws.inject("^eks:DescribeCluster$", amended(as_asked(name, api)), where={"name": name})
        aws.requests.clear()
        yield
        aws.empty_moto()  # what was made here is nobody else's
    reads = ("List", "Describe", "Get", "BatchGet")
    assert [request.action for request in aws.requests if not request.operation.startswith(reads)] == []
    assert [request for api in insides.values() for request in api.requests if request.method != "GET"] == []


def create_account(aws):
    """The bad one of everything comes last."""
    subnets = create_network(aws.client("ec2"))
    clusters = aws.client("eks")
    for name, wanted in SETTINGS.items():
        network = {"subnetIds": list(subnets.values()), **wanted.get("resourcesVpcConfig", {})}
        given = wanted | {"resourcesVpcConfig": network}
        role = iam_arn(PROD, "role/eks")
        created = clusters.create_cluster(name=name, version="1.34", roleArn=role, **given)["cluster"]
        assert not set(LACKING) & created.keys()  # else moto has learnt it
        groups = {"private": "AL2023_x86_64_STANDARD", **({"public": "AL2_x86_64"} if name == BAD else {})}
        for group, image in groups.items():
            clusters.create_nodegroup(
                clusterName=name,
                nodegroupName=group,
                subnets=[subnets[group]],
                amiType=image,
                nodeRole=iam_arn(PROD, "role/node"),
                remoteAccess={"ec2SshKey": "ops", "sourceSecurityGroups": ["sg-1"] if group == "private" else []},
            )
    ecr = aws.client("ecr")
    pull = {"Effect": "Allow", "Principal": "*", "Action": "ecr:BatchGetImage"}
    for name, mutability in (("kept", "IMMUTABLE"), ("public", "MUTABLE")):
        ecr.create_repository(repositoryName=name, imageTagMutability=mutability)
    ecr.set_repository_policy(repositoryName="public", policyText=json.dumps({"Statement": [pull]}))
    aws.client("guardduty").create_detector(Enable=False)


def create_network(ec2):
    """A private and a public subnet, by name."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    found = {
        name: ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"]
        for number, name in enumerate(("private", "public"))
    }
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock=ALL_IPV4, GatewayId=gateway)
    ec2.associate_route_table(RouteTableId=table, SubnetId=found["public"])
    return found


def inside(name):
    """An API server with one Deployment, privileged in the bad cluster alone."""
    system = {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": f"uid-of-{name}"}}
    team = {"kind": "Namespace", "metadata": {"name": "team"}}
    app = deployment(secured(privileged=True) if name == BAD else secured(), name="app", namespace="team")
    return ApiServer([system, team, app, AWS_NODE], tls=tls())


def as_asked(name, api):
    """Changes what moto says of a cluster to what AWS would."""

    def change(answer):
        wanted = SETTINGS[name]
        cluster = answer["cluster"]
        cluster["endpoint"] = api.url
        cluster["certificateAuthority"] = {"data": base64.b64encode(api.tls.ca).decode()}
        cluster |= {key: wanted[key] for key in LACKING if key in wanted}
        if "encryptionConfig" not in wanted:
            del cluster["encryptionConfig"]

    return change


class Scan:
    def __init__(self, *args):
        result = kubeposture("scan", "eks", "--region", SEOUL, "--status", "all", "-o", "json", *args)
        assert result.stdout, result.stderr
        self.code, self.report = result.code, json.loads(result.stdout)
        VALID.validate(self.report)
        self.planes = {c["name"]: (c["control_plane"], c["data_plane"]) for c in self.report["clusters"]}

    def answers(self, name):
        """By check, of a cluster with all that is in it or of a repository; of several findings the worst."""
        order = ("not_applicable", "pass", "fail", "unknown", "error")
        found = [f for f in self.report["findings"] if (f["cluster"] or f["resource"])["name"] == name]
        return {f["check"]: f["status"] for f in sorted(found, key=lambda f: order.index(f["status"]))}


def test_one_report_of_both_planes(made):
    found = Scan("--cluster", "shop-*")
    assert found.report["gaps"] == []
    assert (found.code, found.planes) == (0, dict.fromkeys((GOOD, BAD), ("complete", "complete")))
    assert found.report["scan"]["complete"]
    coverage = found.report["coverage"]
    assert coverage["clusters"] == {"expected": 2, "judged": 2, "partial": 0, "unread": 0}
    assert coverage["accounts"] == coverage["regions"] == {"expected": 1, "read": 1, "refused": 0}
    assert {c["name"]: c["uid"] for c in found.report["clusters"]} == {GOOD: f"uid-of-{GOOD}", BAD: f"uid-of-{BAD}"}

    good, bad = found.answers(GOOD), found.answers(BAD)
    assert {"unknown", "error"} & {*good.values(), *bad.values()} == set()
    fails = {check for check, status in good.items() if status == "fail"}
    assert {check for check in fails if check.startswith("aws-")} == OF_BOTH
    assert {check for check in bad.keys() - fails if bad[check] == "fail"} == OF_BAD
    assert good.keys() == bad.keys()

    kept, public = found.answers("kept"), found.answers("public")
    assert {check for check in kept if (kept[check], public[check]) == ("pass", "fail")} == OF_REPOSITORY


def test_what_fails_trips_the_gate(made):
    assert Scan("--cluster", "shop-*", "--fail-on", "high").code == 1
    assert Scan("--cluster", GOOD, "-c", "aws-eks-endpoint-*", "--fail-on", "low").code == 0


@pytest.fixture(scope="module")
def outside(made):
    return Scan("--planes", "control", "-c", "aws-eks-*")


# Asked for and good, asked for and bad, not asked for: what AWS documents for DescribeCluster then, else unknown.
@pytest.mark.parametrize(
    ("check", "absent"),
    [
        ("aws-eks-access-entries", "unknown"),
        ("aws-eks-bootstrap-admin", "unknown"),
        ("aws-eks-deletion-protection", "unknown"),
        ("aws-eks-upgrade-policy", "unknown"),
        ("aws-eks-secrets-cmk", "fail"),
        ("aws-eks-endpoint-public-open", "fail"),
        ("aws-eks-endpoint-private-only", "fail"),
        ("aws-eks-endpoint-private-enabled", "fail"),
    ],
)
def test_present_and_absent(outside, check, absent):
    assert [outside.answers(name)[check] for name in (GOOD, BAD, BARE)] == ["pass", "fail", absent]


def test_what_is_not_known_makes_the_scan_incomplete(outside):
    assert (outside.code, outside.planes[BARE]) == (3, ("complete", "not_asked"))
    assert outside.report["gaps"] == []
