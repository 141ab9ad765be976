"""`scan eks`, from the command line to the report: a local AWS, and local API servers of its clusters."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jsonschema_rs
import pytest
from apiserver import ApiServer, body, tls
from apiserver import status as refuse
from aws_data import (
    ALL_IPV4,
    AUDIT_ROLE,
    AWS_NODE,
    DEV,
    EXTERNAL_ID,
    HONG_KONG,
    PROD,
    SECRETS,
    SEOUL,
    VIRGINIA,
    Account,
    Eks,
    Estate,
    closed_region,
    connected_cluster,
    creating_cluster,
    deleting_cluster,
    eks,
    failed_cluster,
    iam_arn,
    public_cluster,
    region_of,
    repository,
    sample_estate,
)
from awsserver import IDENTITY, SCP, AwsServer, gone, hang, status
from botocore.retries.standard import ExponentialBackoff
from cli import kubeposture
from scans import Scan, collect, evaluate, scan_kubeconfig
from support import deployment, secured

from scanner.report import schema

VALID = jsonschema_rs.validator_for(schema.report_schema())
UID, OTHER_UID = "3f6b7a52-1c1e-4f0b-9d2e-0c1d5a4b7e10", "9d2e7a52-1c1e-4f0b-9d2e-0c1d5a4b7e11"
PRIVILEGED = "k8s-privileged-container"
BAD = deployment(secured(privileged=True), name="bad", namespace="a")
CLUSTERS, REPOSITORIES = "AWS::EKS::Cluster", "AWS::ECR::Repository"
TOKYO = "ap-northeast-1"
CLOSED = "https://127.0.0.1:9"
CONTROL = ("--planes", "control")
ABOUT_REGIONS = (*CONTROL, "-c", "aws-eks-endpoint-public-open", "-c", "aws-ecr-tag-immutability")
ROLE = iam_arn(DEV, f"role/{AUDIT_ROLE}")
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No credential but the one that a test gives, and no long waits."""
    for name in tuple(os.environ):
        if name.startswith(("AWS_", "BOTO", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


@pytest.fixture
def servers():
    """Takes servers into the test. They may not be sent anything that changes something."""
    with contextlib.ExitStack() as stack:
        started = []

        def start(server):
            started.append(server)
            return stack.enter_context(server)

        yield start
    for server in started:
        for request in server.requests:
            if isinstance(server, ApiServer):
                assert (request.method, "secrets" in request.path) == ("GET", False)
            else:
                reads = ("List", "Describe", "Get", "BatchGet", "AssumeRole")
                assert not request.operation or request.operation.startswith(reads)  # "" where it was cut off


@pytest.fixture
def serve(servers, monkeypatch):
    def start(*clusters, estate=None, **options):
        aws = servers(AwsServer(estate or Estate.of(account(*clusters)), moto=False, **options))
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)
        return aws

    return start


@pytest.fixture
def inside(servers):
    """Starts the API server of a cluster in which one Deployment is privileged."""

    def start(*objects, uid=UID, **options):
        system = {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": uid}}
        team = {"kind": "Namespace", "metadata": {"name": "a"}}
        return servers(ApiServer([system, team, BAD, AWS_NODE, *objects], **{"tls": tls(), **options}))

    return start


def account(*clusters, id=PROD, name="Production", role="", external_id="", **others):
    """Its region Seoul with the clusters; more regions by name."""
    found = [region_of(id, SEOUL, *clusters), *others.values()]
    return Account(id, name, regions={r.name: r for r in found}, assumable={role: external_id} if role else {})


def scan(*args):
    return Scan(kubeposture("scan", "eks", "--status", "all", "-o", "json", *args))


def presigned(request):
    """The URL in a token."""
    kind, _, token = request.headers["authorization"].partition(" ")
    version, _, text = token.partition(".")
    assert (kind, version, "=" in text) == ("Bearer", "k8s-aws-v1", False)
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()


# -- both planes of one cluster


def test_one_report_holds_both_planes_of_a_cluster(serve, inside, tmp_path):
    aws, api = serve(eks("shop")), inside()
    aws.estate.connect("shop", api.url, api.tls.ca)
    found = scan()
    assert (found.code, found.gaps) == (0, [])
    row = found.row()
    assert (row["uid"], row["control_plane"], row["data_plane"]) == (UID, "complete", "complete")
    assert (row["id"], row["id_source"]) == (aws.estate.cluster("shop")["arn"], "cloud")
    assert (row["provider"], row["account"], row["region"]) == ("aws", PROD, SEOUL)
    refs = {(f["category"], f["cluster"]["id"], f["cluster"]["uid"]) for f in found.report["findings"] if f["cluster"]}
    assert refs == {(plane, row["id"], UID) for plane in ("control_plane", "data_plane", "vulnerability")}
    assert "fail" in {f["status"] for f in found.report["findings"] if f["check"] == PRIVILEGED}
    assert found.report["coverage"]["clusters"] == {"expected": 1, "judged": 1, "partial": 0, "unread": 0}

    alone = scan_kubeconfig(api.kubeconfig(tmp_path / "config"))
    assert alone.statuses("data_plane") == found.statuses("data_plane")


def test_the_token_is_for_one_cluster_and_goes_only_there(serve, inside):
    one, two = inside(), inside(uid=OTHER_UID)
    aws = serve(eks("one"), eks("two"))
    aws.estate.connect("one", one.url, one.tls.ca)
    aws.estate.connect("two", two.url, two.tls.ca)
    assert scan().code == 0
    for api in (one, two):
        for url in {presigned(r) for r in api.requests}:
            query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
            assert urlsplit(url)[:3] == ("https", f"sts.{SEOUL}.amazonaws.com", "/")
            assert (query["Action"], query["X-Amz-SignedHeaders"]) == ("GetCallerIdentity", "host;x-k8s-aws-id")
            assert query["X-Amz-Credential"].split("/")[2:] == [SEOUL, "sts", "aws4_request"]
            assert int(query["X-Amz-Expires"]) <= 900
            assert aws.user(PROD).secret_key not in url
    assert not {presigned(r) for r in one.requests} & {presigned(r) for r in two.requests}


def test_clusters_of_one_name_in_two_regions_are_two(serve, inside):
    one, two = inside(), inside(uid=OTHER_UID)
    other = region_of(PROD, VIRGINIA, eks("twin", region=VIRGINIA))
    aws = serve(estate=Estate.of(account(eks("twin"), other=other)))
    for (_, item), api in zip(aws.estate.clusters(), (one, two), strict=True):
        item.cluster["endpoint"] = api.url
        item.cluster["certificateAuthority"] = {"data": base64.b64encode(api.tls.ca).decode()}
    found = scan()
    assert (found.code, len(found.report["clusters"])) == (0, 2)
    assert {(c["uid"], c["region"]) for c in found.report["clusters"]} == {(UID, SEOUL), (OTHER_UID, VIRGINIA)}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_scan_and_bundles_agree_on_a_cluster_and_its_findings(serve, inside, tmp_path, order):
    aws, api = serve(eks("shop")), inside()
    aws.estate.connect("shop", api.url, api.tls.ca)
    whole = scan()
    config = api.kubeconfig(tmp_path / "config")
    bundles = (
        collect(tmp_path / "eks", "eks"),
        collect(tmp_path / "inside", "kubeconfig", "--kubeconfig", config),
    )
    found = evaluate(*[bundles[number] for number in order])
    assert (found.code, found.row()["id"], found.row()["uid"]) == (0, whole.row()["id"], UID)
    assert found.statuses() == whole.statuses()
    assert found.report["summary"]["by_status"] == whole.report["summary"]["by_status"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_bundle_from_inside_stands_in_for_an_api_server_that_was_not_read(serve, inside, tmp_path, order):
    aws, api = serve(eks("shop")), inside()
    aws.estate.connect("shop", api.url, api.tls.ca)
    bundles = [collect(tmp_path / "eks", "eks", *CONTROL)]
    config = api.kubeconfig(tmp_path / "config")
    bundles.append(collect(tmp_path / "inside", "kubeconfig", "--kubeconfig", config))
    found = evaluate(*[bundles[number] for number in order])
    # One row needs the key of the API server, which is known without asking it.
    assert (found.code, found.planes()) == (0, {"shop": ("complete", "complete")})


# -- insides that cannot be read


@pytest.mark.parametrize("code", [401, 403])
def test_an_api_server_that_lets_nobody_in_says_which_access_entry_to_create(serve, inside, code):
    aws, api = serve(eks("shop")), inside()
    aws.estate.connect("shop", api.url, api.tls.ca)
    api.inject("/api", refuse(code))
    found = scan()
    assert (found.code, found.planes()) == (3, {"shop": ("complete", "not_read")})
    forbidden = [g for g in found.gaps if g["reason"] == "forbidden"]
    assert forbidden
    wanted = f"aws eks create-access-entry --cluster-name shop --region {SEOUL} --principal-arn "
    assert all(wanted + iam_arn(PROD, "user/scanner") in g["detail"] for g in forbidden)
    unknown = [f for f in found.about("shop") if f["category"] == "data_plane"]
    assert {f["status"] for f in unknown} == {"unknown"}
    assert "create-access-entry" in unknown[0]["message"]


def test_the_access_entry_is_for_the_role_and_not_for_its_session(serve, inside):
    dev = account(eks("dev", account=DEV), id=DEV, name="Dev", role=AUDIT_ROLE)
    aws, api = serve(estate=Estate.of(account(), dev)), inside()
    aws.estate.connect("dev", api.url, api.tls.ca)
    api.inject("/api", refuse(401))
    found = scan("--role-arn", ROLE)
    assert f"--principal-arn {ROLE}," in found.gaps[0]["detail"]


@pytest.mark.parametrize(("mode", "who"), [("API", "role/team/a/"), ("CONFIG_MAP", "role/")])
def test_a_role_that_was_assumed_is_named_with_its_path(serve, inside, mode, who):
    """AWS does not tell it; the ConfigMap wants roles without."""
    item = eks("dev", account=DEV, accessConfig={"authenticationMode": mode})
    aws, api = serve(estate=Estate.of(account(), account(item, id=DEV, name="Dev", role="Audit"))), inside()
    aws.estate.connect("dev", api.url, api.tls.ca)
    api.inject("/api", refuse(401))
    found = scan("--role-arn", iam_arn(DEV, "role/team/a/Audit"))
    assert f" {iam_arn(DEV, who)}Audit" in found.gaps[0]["detail"]
    assert "with its path" not in found.gaps[0]["detail"]


def test_of_a_role_of_sso_the_path_is_to_be_added(serve, inside, monkeypatch):
    aws, api = serve(eks("shop")), inside()
    aws.estate.connect("shop", api.url, api.tls.ca)
    api.inject("/api", refuse(401))
    own = aws.issue(PROD, "AWSReservedSSO_Admin_0123456789abcdef", "me", 3600)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", own.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", own.secret_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", own.token)
    [detail] = {g["detail"] for g in scan().gaps}
    assert "role/AWSReservedSSO_Admin_0123456789abcdef (with its path, below aws-reserved/sso.amazon" in detail


def test_where_only_the_config_map_counts_that_is_named(serve, inside):
    old = eks("old", accessConfig={"authenticationMode": "CONFIG_MAP"})
    aws, api = serve(old), inside()
    aws.estate.connect("old", api.url, api.tls.ca)
    api.inject("/api", refuse(401))
    found = scan()
    assert "aws-auth" in found.gaps[0]["detail"]
    assert "create-access-entry" not in found.gaps[0]["detail"]


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": CLOSED},
        {"endpoint": "http://127.0.0.1:9"},
        {"endpoint": "file:///etc/passwd"},
        {"endpoint": None},
        {"certificateAuthority": None},
        {"certificateAuthority": {"data": "no base64"}},
        {"certificateAuthority": {"data": "aGVsbG8="}},
    ],
)
def test_an_api_server_that_cannot_be_reached_leaves_the_control_plane_judged(serve, change):
    aws = serve(eks("shop"))
    clean = scan(*CONTROL)
    aws.estate.connect("shop", CLOSED, tls().ca)
    cluster = aws.estate.cluster("shop")
    for key, value in change.items():
        cluster[key] = value
        if value is None:
            del cluster[key]
    aws.load(aws.estate)
    found = scan()
    assert (found.code, found.planes()) == (3, {"shop": ("complete", "not_read")})
    assert found.statuses("control_plane") == clean.statuses("control_plane")
    assert {f["status"] for f in found.findings.values() if f["category"] == "data_plane"} == {"unknown"}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (creating_cluster, "lifecycle"),
        (deleting_cluster, "lifecycle"),
        (failed_cluster, "lifecycle"),
        (connected_cluster, "connected_cluster"),
    ],
)
def test_a_cluster_that_is_not_to_be_judged_is_listed(serve, make, reason):
    aws = serve(make("odd"))
    found = scan()
    assert (found.code, found.gaps) == (0, [])
    assert found.planes() == {"odd": ("complete", "not_asked")}
    about = found.about("odd")
    assert about
    assert {f["status"] for f in about} == {"not_applicable"}
    assert reason in {f["reason"] for f in about} <= {reason, "no_subjects"}
    if aws:
        assert not {"eks:ListNodegroups", "eks:ListAddons", "eks:ListAccessEntries"} & {r.action for r in aws.requests}


# -- clusters that come, go, or cannot be described


def test_a_cluster_deleted_after_it_was_listed_is_in_the_report(serve):
    aws = serve(eks("gone"), eks("shop"))
    aws.inject("DescribeCluster$", gone(), where={"name": "gone"})
    found = scan(*CONTROL)
    assert (found.code, found.rows.keys()) == (3, {"gone", "shop"})
    assert found.why("gone") == {("not_found", "eks:DescribeCluster")}
    assert {f["status"] for f in found.about("gone")} == {"unknown"}
    assert found.why("shop") == set()


def test_a_cluster_that_may_not_be_described_is_unknown_to_every_check(serve):
    aws = serve(eks("shop"))
    clean = scan(*CONTROL)
    aws.deny("eks:DescribeCluster")
    found = scan()
    assert (found.code, found.planes()) == (3, {"shop": ("not_read", "not_read")})
    checks = {f["check"] for f in clean.about("shop")}
    now = found.about("shop")
    assert checks <= {f["check"] for f in now}
    assert {f["status"] for f in now} == {"unknown"}
    assert all("eks:DescribeCluster" in f["message"] for f in now)
    assert found.report["coverage"]["clusters"]["unread"] == 1


def test_the_last_of_twelve_clusters_is_judged_like_the_first(serve):
    serve(*(eks(f"eks-{number:02}") for number in range(11)), public_cluster("eks-99"))
    found = scan(*CONTROL, "-c", "aws-eks-endpoint-public-open")
    statuses = {f["cluster"]["name"]: f["status"] for f in found.report["findings"]}
    assert len(statuses) == 12
    assert {name for name, text in statuses.items() if text == "fail"} == {"eks-99"}
    assert (found.code, found.report["summary"]["by_status"]["fail"]) == (0, 1)
    assert kubeposture("scan", "eks", *CONTROL, "-c", "aws-eks-endpoint-public-open", "--fail-on", "high").code == 1


# -- regions


def test_a_region_that_is_not_enabled_is_not_asked(serve):
    aws = serve(estate=Estate.of(account(eks("shop"), hong_kong=closed_region(PROD))))
    assert (scan(*CONTROL).code, HONG_KONG in {r.region for r in aws.requests}) == (0, False)


def test_a_region_that_is_refused_is_a_gap(serve):
    aws = serve(estate=two_regions())
    aws.deny("*", region=VIRGINIA)
    found = scan(*CONTROL)
    assert (found.code, found.rows.keys()) == (3, {"seoul"})
    assert found.report["coverage"]["clusters"]["expected"] is None
    assert found.report["coverage"]["accounts"] == {"expected": 1, "read": 1, "refused": 0}
    assert found.report["coverage"]["regions"] == {"expected": 2, "read": 1, "refused": 1}
    [gap] = [g for g in found.gaps if g["what"] == CLUSTERS]
    assert (gap["provider"], gap["account"], gap["region"]) == ("aws", PROD, VIRGINIA)
    assert (gap["cluster_id"], gap["permission"]) == (None, "eks:ListClusters")
    unlisted = {f["region"] for f in found.report["findings"] if not f["cluster"] and f["status"] == "unknown"}
    assert unlisted == {VIRGINIA}
    score = found.report["summary"]["score"]
    assert (score["low"], score["high"]) == (0, 100)


def test_regions_that_a_policy_closes_are_one_gap_and_nobodys_fault(serve):
    tokyo, virginia = (region_of(PROD, name, eks(name, region=name)) for name in (TOKYO, VIRGINIA))
    aws = serve(estate=Estate.of(account(eks("seoul"), tokyo=tokyo, virginia=virginia)))
    for region in (TOKYO, VIRGINIA):
        aws.deny("*", region=region, because=SCP)
    found = scan(*ABOUT_REGIONS)
    assert (found.code, found.rows.keys()) == (0, {"seoul"})
    [gap] = found.gaps
    assert (gap["what"], gap["by_policy"], gap["account"]) == ("regions", True, PROD)
    assert gap["detail"] == f"closed by a service control policy: {TOKYO}, {VIRGINIA}"
    assert not [f for f in found.findings.values() if f["status"] == "unknown"]
    assert found.report["coverage"]["clusters"]["expected"] is None

    named = scan(*ABOUT_REGIONS, "--region", SEOUL, "--region", VIRGINIA)
    assert (named.code, {g["what"] for g in named.gaps}) == (3, {CLUSTERS, REPOSITORIES})


def test_a_region_is_not_closed_where_a_policy_denies_only_a_part(serve):
    virginia = region_of(PROD, VIRGINIA, eks("virginia", region=VIRGINIA))
    virginia.add_repository(repository("shop", region=VIRGINIA))
    aws = serve(estate=Estate.of(account(eks("seoul"), virginia=virginia)))
    aws.deny("eks:*", region=VIRGINIA, because=SCP)
    found = scan(*ABOUT_REGIONS)
    assert (found.code, {g["what"] for g in found.gaps}) == (3, {CLUSTERS})
    assert "shop" in {f["resource"]["name"] for f in found.findings.values()}


@pytest.fixture
def three_regions(serve):
    """Clusters in all of them, a repository in the last."""
    tokyo, virginia = (region_of(PROD, name, eks(name, region=name)) for name in (TOKYO, VIRGINIA))
    virginia.add_repository(repository("shop", region=VIRGINIA))
    return serve(estate=Estate.of(account(eks("seoul"), tokyo=tokyo, virginia=virginia)))


ONE_LIST = [(*CONTROL, "-c", "aws-eks-endpoint-public-open"), ("--planes", "data", "-c", PRIVILEGED)]


@pytest.mark.parametrize("args", ONE_LIST)
def test_a_policy_about_eks_alone_closes_no_region(three_regions, args):
    three_regions.deny("eks:ListClusters", region=VIRGINIA, because=SCP)
    found = scan(*args)
    assert found.code in (3, 4)
    assert [(g["what"], g["region"]) for g in found.gaps if g["region"]][:1] == [(CLUSTERS, VIRGINIA)]
    assert VIRGINIA in {f["region"] for f in found.report["findings"] if f["status"] == "unknown"}
    assert "regions" not in {g["what"] for g in found.gaps}
    asked = {r.region for r in three_regions.requests if r.service == "ecr"}
    assert asked == {VIRGINIA}


@pytest.mark.parametrize(("because", "code"), [(SCP, 0), (IDENTITY, 3)])
def test_where_one_list_is_needed_another_service_confirms_that_a_region_is_closed(three_regions, because, code):
    for region in (TOKYO, VIRGINIA):
        three_regions.deny("eks:*", region=region, because=SCP)
        three_regions.deny("ecr:*", region=region, because=because)
    found = scan(*ONE_LIST[0])
    assert (found.code, found.rows.keys()) == (code, {"seoul"})
    assert {g["what"] for g in found.gaps} == {"regions" if code == 0 else CLUSTERS}


@pytest.mark.parametrize("args", [*ONE_LIST, ABOUT_REGIONS])
def test_an_account_of_which_every_region_is_closed_is_refused(serve, args):
    regions = {name: region_of(DEV, name, eks(name, account=DEV, region=name)) for name in (SEOUL, TOKYO, VIRGINIA)}
    dev = Account(DEV, "Dev", regions=regions, assumable={AUDIT_ROLE: EXTERNAL_ID})
    aws = serve(estate=Estate.of(account(eks("prod")), dev))
    aws.deny("e[ck][rs]:*", account=DEV, because=SCP)
    found = scan(*args, "--organization", AUDIT_ROLE, "--external-id", EXTERNAL_ID)
    assert found.code in (3, 4)
    assert found.report["coverage"]["accounts"] == {"expected": 2, "read": 1, "refused": 1}
    assert {f["status"] for f in found.report["findings"] if f["account"] == DEV} == {"unknown"}
    assert any("closes every region" in g["detail"] and not g["by_policy"] for g in found.gaps)
    assert kubeposture("scan", "eks", *args, "--role-arn", ROLE, "--external-id", EXTERNAL_ID).code == 4


def two_regions():
    return Estate.of(account(eks("seoul"), other=region_of(PROD, VIRGINIA, eks("virginia", region=VIRGINIA))))


def test_one_region_is_read_where_one_is_asked_for(serve):
    aws = serve(estate=two_regions())
    aws.deny("ec2:DescribeRegions")
    found = scan(*CONTROL, "--region", VIRGINIA, "--region", VIRGINIA)
    assert (found.code, found.gaps, list(found.rows)) == (0, [], ["virginia"])
    assert SEOUL not in {r.region for r in aws.requests if r.service not in ("sts", "iam")}


# -- accounts


@pytest.fixture
def two(serve):
    """An organization: Production, and Development that has to be entered by a role."""
    dev = account(eks("dev", account=DEV), id=DEV, name="Dev", role=AUDIT_ROLE, external_id=EXTERNAL_ID)
    return serve(estate=Estate.of(account(eks("prod")), dev))


def test_without_a_role_the_own_account_is_read(two):
    assert list(scan(*CONTROL).rows) == ["prod"]


def test_a_role_is_assumed_with_its_external_id(two):
    found = scan(*CONTROL, "--role-arn", ROLE, "--external-id", EXTERNAL_ID)
    assert (found.code, found.gaps, list(found.rows)) == (0, [], ["dev"])
    assert {(r.account) for r in two.requests if r.service == "eks"} == {DEV}


def test_every_account_of_an_organization_is_read(two):
    found = scan(*CONTROL, "--organization", AUDIT_ROLE, "--external-id", EXTERNAL_ID)
    assert (found.code, found.gaps, list(found.rows)) == (0, [], ["dev", "prod"])
    assert found.report["coverage"]["accounts"] == {"expected": 2, "read": 2, "refused": 0}


def test_suspended_accounts_of_an_organization_are_left_out(two):
    two.estate.accounts[DEV].status = "SUSPENDED"
    two.load(two.estate)
    found = scan(*CONTROL, "--organization", AUDIT_ROLE)
    assert (found.code, list(found.rows)) == (0, ["prod"])


def listing(*accounts):
    return body(json.dumps({"Accounts": accounts}).encode(), content_type="application/x-amz-json-1.1")


@pytest.mark.parametrize("more", [{}, {"State": None}, {"Status": ""}, {"State": "DORMANT"}])
def test_an_account_that_may_be_active_is_a_gap(two, more):
    two.inject("organizations:ListAccounts", listing({"Id": PROD, "Status": "ACTIVE"}, {"Id": DEV} | more))
    asked = (*CONTROL, "--organization", AUDIT_ROLE, "--external-id", EXTERNAL_ID)
    found = scan(*asked)
    assert (found.code, list(found.rows)) == (3, ["prod"])
    assert {(g["account"], g["reason"]) for g in found.gaps} == {(DEV, "bad_data")}
    assert found.report["coverage"]["accounts"] == {"expected": 2, "read": 1, "refused": 1}
    named = scan(*asked, "--role-arn", ROLE)
    assert (named.code, list(named.rows)) == (0, ["dev", "prod"])


def test_of_the_two_words_for_an_accounts_state_the_newer_counts(two):
    newer = {"Id": DEV, "State": "PENDING_CLOSURE", "Status": "ACTIVE"}
    two.inject("organizations:ListAccounts", listing({"Id": PROD, "State": "ACTIVE"}, newer))
    found = scan(*CONTROL, "--organization", AUDIT_ROLE)
    assert (found.code, found.gaps, list(found.rows)) == (0, [], ["prod"])


def test_a_role_that_cannot_be_assumed_is_a_gap_and_the_others_are_read(two):
    found = scan(*CONTROL, "--organization", AUDIT_ROLE, "--external-id", "wrong")
    assert (found.code, list(found.rows)) == (3, ["prod"])
    assert {(g["account"], g["permission"]) for g in found.gaps} == {(DEV, "sts:AssumeRole")}
    assert found.report["coverage"]["clusters"]["expected"] is None
    assert found.report["coverage"]["accounts"] == {"expected": 2, "read": 1, "refused": 1}
    refused = [f for f in found.report["findings"] if f["account"] == DEV]
    assert {f["status"] for f in refused} == {"unknown"}
    assert {f["check"] for f in refused} == {f["check"] for f in found.report["findings"]}


def test_accounts_that_cannot_be_listed_are_a_gap_and_the_own_is_read(two):
    two.deny("organizations:ListAccounts")
    found = scan(*CONTROL, "--organization", AUDIT_ROLE)
    assert (found.code, list(found.rows)) == (3, ["prod"])
    assert {g["permission"] for g in found.gaps} == {"organizations:ListAccounts"}


@pytest.mark.parametrize(
    "args",
    [
        ("--role-arn", "audit"),
        ("--role-arn", iam_arn(DEV, "user/me")),
        ("--role-arn", ROLE, "--role-arn", iam_arn(DEV, "role/other")),
        ("--organization", ROLE),
        ("--organization", ""),
        ("--tag", "=x"),
    ],
)
def test_options_that_cannot_be_used_are_usage_errors(two, args):
    result = kubeposture("scan", "eks", *args)
    assert (result.code, result.stdout, two.requests) == (2, "", [])
    assert result.stderr.startswith("kubeposture: ")


# -- filters, planes and checks


@pytest.fixture
def three(serve):
    return serve(
        eks("shop-prod", tags={"Team": "shop", "environment": "production"}),
        eks("shop-test", tags={"Team": "shop", "environment": "test"}),
        eks("bank", tags={}),
    )


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ((), ["bank", "shop-prod", "shop-test"]),
        (("--cluster", "bank"), ["bank"]),
        (("--cluster", "SHOP-*"), ["shop-prod", "shop-test"]),
        (("--tag", "team"), ["shop-prod", "shop-test"]),
        (("--tag", "team=shop", "--tag", "environment=test"), ["shop-test"]),
        (("--cluster", "*-prod", "--tag", "team"), ["shop-prod"]),
    ],
)
def test_clusters_are_chosen_by_name_and_tag(three, filters, names):
    found = scan(*CONTROL, *filters)
    assert (found.code, found.gaps, list(found.rows)) == (0, [], names)


def test_tags_that_no_cluster_has_are_told(three):
    found = scan(*CONTROL, "--tag", "team=Shop")
    assert (found.code, list(found.rows)) == (3, ["team=Shop"])
    assert found.gaps[0]["detail"] == "no cluster that this identity sees has these tags"


def test_what_cannot_be_described_is_not_taken_for_untagged(three):
    three.deny("eks:DescribeCluster", where={"name": "bank"})
    found = scan(*CONTROL, "--tag", "team")
    assert (found.code, list(found.rows)) == (3, ["bank", "shop-prod", "shop-test"])


@pytest.mark.parametrize("planes", ["control", "data", "both"])
def test_a_cluster_that_was_asked_for_and_is_not_there_is_named(three, planes):
    found = scan("--planes", planes, "--cluster", "shop-prd")
    assert found.code in (3, 4)
    assert "'shop-prd'" in found.gaps[0]["detail"]
    assert found.planes().keys() == {"shop-prd"}


def test_a_cluster_is_not_missed_before_the_last_region_is_listed(serve):
    serve(estate=two_regions())
    found = scan(*CONTROL, "--cluster", "virginia")
    assert (found.code, found.gaps, list(found.rows)) == (0, [], ["virginia"])


def test_what_is_not_asked_for_is_not_incomplete(serve, inside):
    aws, api = serve(eks("shop")), inside()
    aws.estate.connect("shop", api.url, api.tls.ca)
    found = scan(*CONTROL)
    assert (found.code, found.planes(), api.requests) == (0, {"shop": ("complete", "not_asked")}, [])
    assert {f["category"] for f in found.report["findings"]} == {"control_plane", "vulnerability"}
    assert not [f for f in found.report["findings"] if f["check"].endswith("running-image-vulns")]


IDENTITY = {"sts:GetCallerIdentity", "ec2:DescribeRegions", "eks:ListClusters"}
IMAGES = {
    *("ecr:DescribeRepositories", "ecr:DescribeImages"),
    *("inspector2:BatchGetAccountStatus", "inspector2:ListCoverage"),
}


@pytest.mark.parametrize(("args", "images"), [(("--planes", "data"), IMAGES), (("-c", "k8s-*"), set())])
def test_the_inside_alone_asks_aws_only_for_clusters_and_images(serve, inside, args, images):
    aws, api = serve(eks("shop")), inside()
    aws.estate.connect("shop", api.url, api.tls.ca)
    found = scan(*args)
    assert (found.code, found.gaps, found.planes()) == (0, [], {"shop": ("not_asked", "complete")})
    assert {r.action for r in aws.requests} == IDENTITY | {"eks:DescribeCluster"} | images


@pytest.mark.parametrize(
    ("check", "actions"),
    [
        ("aws-eks-endpoint-public-open", {"eks:DescribeCluster"}),
        ("aws-eks-supported-version", {"eks:DescribeCluster", "eks:DescribeClusterVersions"}),
        ("aws-eks-addon-health", {"eks:DescribeCluster", "eks:ListAddons", "eks:DescribeAddon"}),
        (
            "aws-eks-cluster-admin-entries",
            {"eks:DescribeCluster", "eks:ListAccessEntries", "eks:ListAssociatedAccessPolicies"},
        ),
        (
            "aws-eks-nodes-private",
            {
                *("eks:DescribeCluster", "eks:ListNodegroups", "eks:DescribeNodegroup"),
                *("ec2:DescribeSubnets", "ec2:DescribeRouteTables"),
            },
        ),
        ("aws-eks-guardduty", {"eks:DescribeCluster", "guardduty:ListDetectors", "guardduty:GetDetector"}),
        ("aws-ecr-tag-immutability", {"ecr:DescribeRepositories"}),
        ("aws-ecr-public-policy", {"ecr:DescribeRepositories", "ecr:GetRepositoryPolicy"}),
        ("aws-ecr-lifecycle-policy", {"ecr:DescribeRepositories", "ecr:GetLifecyclePolicy"}),
    ],
)
def test_one_check_asks_only_for_what_it_needs(serve, check, actions):
    aws = serve(eks("shop"))
    found = scan(*CONTROL, "-c", check)
    assert (found.code, found.gaps, list(found.rows)) == (0, [], ["shop"])
    assert {f["check"] for f in found.report["findings"]} == {check}
    assert {r.action for r in aws.requests} == IDENTITY | actions


def test_no_check_of_a_plane_is_a_usage_error(serve):
    result = kubeposture("scan", "eks", "--planes", "data", "-c", "aws-eks-access-entries")
    assert (result.code, result.stdout) == (2, "")


def test_a_region_without_clusters_is_complete(serve):
    found = scan(*CONTROL) if serve() else None
    assert (found.code, found.gaps, found.rows) == (0, [], {})
    assert found.report["coverage"]["clusters"]["expected"] == 0
    assert found.report["coverage"]["accounts"] == {"expected": 1, "read": 1, "refused": 0}


def test_only_denied_lists_leave_the_inside_of_unlisted_clusters_unknown(serve):
    aws = serve(eks("shop"))
    aws.deny("eks:ListClusters")
    found = scan("-c", PRIVILEGED, "--planes", "data")
    assert found.code in (3, 4)
    assert PROD in {f["account"] for f in found.report["findings"] if f["status"] == "unknown"}


def test_absent_settings_are_never_taken_for_good(serve):
    bare = Eks({key: eks("bare").cluster[key] for key in ("name", "arn", "status", "version")})
    serve(bare)
    found = scan(*CONTROL)
    assert list(found.rows) == ["bare"]
    by_check = {f["check"]: f["status"] for f in found.about("bare")}
    assert by_check["aws-eks-endpoint-public-open"] in ("fail", "unknown")
    assert by_check["aws-eks-control-plane-logging"] in ("fail", "unknown")
    assert by_check["aws-eks-secrets-cmk"] in ("fail", "unknown")
    for check in ("aws-eks-deletion-protection", "aws-eks-access-entries", "aws-eks-upgrade-policy"):
        assert by_check[check] != "pass", check


# -- secrets


def test_no_output_shows_a_secret(serve, inside, tmp_path):
    aws = serve(estate=sample_estate(), page_size=2)
    api = inside()
    for name in ("eks-private", "eks-old"):
        aws.estate.connect(name, api.url, api.tls.ca)
    aws.deny("guardduty:*")
    user = aws.user(PROD)
    aws.inject("ListAddons", status(400, "Bad", "odd"), where={"clusterName": "eks-old"})
    outputs = [f"-o{name}={tmp_path / name}" for name in ("json", "ndjson", "ocsf", "table")]
    shared = ("--organization", AUDIT_ROLE, "--external-id", EXTERNAL_ID, "-v")
    scanned = kubeposture("scan", "eks", *shared, *outputs, "-o", "json", "--status", "all")
    assert scanned.code == 3
    assert scanned.stdout.count('"status"') > 100
    texts = [scanned.stdout, scanned.stderr]
    texts += [(tmp_path / name).read_text() for name in ("json", "ndjson", "ocsf", "table")]
    secrets = {*SECRETS, user.secret_key, user.access_key, EXTERNAL_ID, "X-Amz-Signature", "k8s-aws-v1."}
    secrets |= {text for s in aws.sessions for text in (s.secret_key, s.token, s.access_key)}
    secrets |= {base64.b64encode(api.tls.ca).decode(), api.tls.ca.decode().splitlines()[1]}
    secrets |= {r.headers["authorization"].partition(" ")[2] for r in api.requests}
    assert len(aws.sessions) > 0
    assert len(api.requests) > 0
    assert [s[:12] for s in secrets if [t for t in texts if s in t]] == []


def test_no_bundle_holds_a_secret(serve, inside, tmp_path):
    aws, api = serve(eks("shop")), inside()
    aws.estate.connect("shop", api.url, api.tls.ca)
    path = collect(tmp_path / "bundle", "eks")
    text = subprocess.run(["gzip", "-dc", path], capture_output=True, check=True).stdout.decode()
    user = aws.user(PROD)
    secrets = {*SECRETS, user.secret_key, user.access_key, api.tls.ca.decode().splitlines()[1]}
    secrets |= {r.headers["authorization"].partition(" ")[2] for r in api.requests}
    assert [s[:12] for s in secrets if s in text] == []


# -- interrupted


def test_an_interrupted_scan_lists_every_cluster_that_was_found(serve, tmp_path):
    names = [f"eks-{number}" for number in range(6)]
    aws = serve(*map(eks, names))
    reached = threading.Event()
    stop = hang()

    def wait(handler):
        reached.set()
        return stop(handler)

    for name in names[2:]:
        aws.inject("ListAddons", wait, where={"clusterName": name})
    command = [sys.executable, "-m", "scanner", "scan", "eks", "-o", "json=report", "-q", *CONTROL]
    scanning = subprocess.Popen(
        [*command, "--concurrency", "2"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert reached.wait(20)
        scanning.send_signal(signal.SIGINT)
        _, error = scanning.communicate(timeout=20)
    finally:
        scanning.kill()
        scanning.wait()
    assert scanning.returncode == 130, error
    report = json.loads((tmp_path / "report").read_text())
    VALID.validate(report)
    assert report["scan"]["complete"] is False
    assert [c["name"] for c in report["clusters"]] == names
    assert {g["reason"] for g in report["gaps"]} == {"timeout"}
    healthy = {
        f["cluster"]["name"] for f in report["findings"] if f["check"] == "aws-eks-addon-health" and f["cluster"]
    }
    assert {"eks-2", "eks-3", "eks-4", "eks-5"} <= healthy


def test_what_is_open_to_the_world_is_found_through_both_kinds_of_addresses(serve):
    network = {"endpointPublicAccess": True, "publicAccessCidrs": [ALL_IPV4]}
    serve(
        eks("four", resourcesVpcConfig=network),
        eks("six", resourcesVpcConfig=network | {"publicAccessCidrs": ["::/0"]}),
    )
    found = scan(*CONTROL, "-c", "aws-eks-endpoint-public-open")
    assert {f["status"] for f in found.report["findings"]} == {"fail"}
