"""What leaves for AWS and what comes back: boto3 itself against a local AWS that misbehaves."""

import ast
import base64
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

import jsonschema_rs
import pytest
from aws_data import (
    DEV,
    EXTERNAL_ID,
    HONG_KONG,
    PROD,
    SEOUL,
    VIRGINIA,
    Account,
    Estate,
    closed_region,
    eks,
    iam_arn,
    region_of,
)
from awsserver import (
    AwsServer,
    body,
    closed,
    delay,
    denied,
    drip,
    drip_chunks,
    drip_headers,
    empty,
    expired,
    flood,
    hang,
    opt_in_required,
    reset,
    status,
    throttle,
)
from botocore.retries.standard import ExponentialBackoff
from cli import kubeposture
from proxyserver import Proxy

from providers import bounded
from providers.aws import access, session
from providers.aws.errors import WriteRefused
from scanner.report import schema

VALID = jsonschema_rs.validator_for(schema.report_schema())
CLUSTERS = "AWS::EKS::Cluster"
LIST = "^eks:ListClusters$"
HANG = hang()


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No credential but the one that a test gives, and no long waits."""
    for name in tuple(os.environ):
        if name.startswith(("AWS_", "BOTO", "KUBE")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


@pytest.fixture
def serve(monkeypatch):
    """Starts an AWS that gives credentials. It may never be asked for anything but reads."""

    def start(*clusters, estate=None, **options):
        aws = AwsServer(estate or small_estate(*clusters), moto=False, **options)
        servers.append(aws.__enter__())
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)
        return aws

    servers = []
    yield start
    for server in servers:
        server.__exit__()
        for request in server.requests:
            assert request.operation.startswith(("List", "Describe", "Get", "BatchGet", "AssumeRole", "POST /"))


def small_estate(*clusters):
    """The clusters in Seoul; one cluster in Virginia; Hong Kong is closed."""
    seoul = region_of(PROD, SEOUL, *(clusters or (eks("eks-one"), eks("eks-two"))))
    virginia = region_of(PROD, VIRGINIA, eks("eks-us", region=VIRGINIA))
    regions = (seoul, virginia, closed_region(PROD))
    return Estate.of(Account(PROD, "Production", regions={r.name: r for r in regions}))


class Scan:
    def __init__(self, result):
        assert result.stdout, result.stderr
        self.code, self.error = result.code, result.stderr
        self.report = json.loads(result.stdout)
        VALID.validate(self.report)
        self.gaps = self.report["gaps"]
        self.clusters = sorted(c["name"] for c in self.report["clusters"])
        self.statuses = {f["id"]: f["status"] for f in self.report["findings"]}

    def gap(self, what=CLUSTERS):
        """The only gap there is."""
        assert {g["what"] for g in self.gaps} == {what}
        assert (self.code, self.report["scan"]["complete"]) == (3, False)
        [gap] = self.gaps
        return gap

    def sentence(self):
        """The only thing there is to say of an AWS of which nothing could be read."""
        assert (self.code, self.error, self.clusters) == (4, "", [])
        assert self.report["scan"]["exit_reasons"] == ["nothing_read", "incomplete"]
        [found] = {(g["reason"], g["detail"]) for g in self.gaps}
        assert "\n" not in found[1]
        return found


def scan(*args, planes="control"):
    options = ("--planes", planes, "--request-timeout", "10", "--status", "all", "-o", "json")
    return Scan(kubeposture("scan", "eks", *options, *args))


def impatient(fault):
    return ("--request-timeout", "0.3") if fault is HANG else ()


def page(*names, **more):
    return body(json.dumps({"clusters": names} | more).encode())


# -- pages


def test_every_page_is_read(serve):
    names = [f"eks-{number:03}" for number in range(230)]
    aws = serve(*(eks(name, nodegroups=[], addons=[]) for name in names))
    found = scan("-c", "aws-eks-deletion-protection")
    assert (found.code, found.gaps) == (0, [])
    assert found.clusters == [*names, "eks-us"]
    assert len([r for r in aws.requests if r.operation == "ListClusters" and r.region == SEOUL]) == 3
    assert found.report["coverage"]["clusters"]["expected"] == 231


def test_every_page_of_every_list_is_read(serve):
    clusters = [eks(f"eks-{number}") for number in range(3)]
    serve(*clusters)
    whole = scan()
    serve(*clusters, page_size=1)
    found = scan()
    assert (found.code, found.gaps, found.statuses) == (0, [], whole.statuses)


def test_pages_that_overlap_give_each_cluster_once(serve):
    aws = serve(eks("one"), eks("two"))
    aws.inject(LIST, page("one", "two", nextToken="more"), times=1, region=SEOUL)
    aws.inject(LIST, page("two", "one"), times=1, region=SEOUL)
    found = scan()
    assert (found.code, found.gaps, found.clusters) == (0, [], ["eks-us", "one", "two"])


@pytest.mark.parametrize("end", [None, ""])
def test_an_empty_token_ends_a_list(serve, end):
    aws = serve()
    aws.inject(LIST, page("eks-one", nextToken=end), region=SEOUL)
    found = scan()
    assert (found.code, found.clusters) == (0, ["eks-one", "eks-us"])


@pytest.mark.parametrize("token", [0, 7, False, True, [], {}, ["x"], {"a": 1}])
def test_a_token_that_is_none_is_a_gap(serve, token):
    aws = serve()
    aws.inject(LIST, page("eks-one", nextToken=token), region=SEOUL)
    found = scan()
    assert found.gap()["reason"] == "bad_data"
    assert found.clusters == ["eks-one", "eks-us"]


@pytest.mark.parametrize("tokens", [["a"], ["a", "b"]])
def test_pages_that_go_round_in_circles_are_a_gap(serve, tokens):
    aws = serve()
    for number in range(9):
        answer = page("eks-one", nextToken=tokens[number % len(tokens)])
        aws.inject(LIST, answer, times=1, region=SEOUL)
    found = scan()
    gap = found.gap()
    assert (gap["reason"], "round in circles" in gap["detail"]) == ("bad_data", True)
    assert found.clusters == ["eks-one", "eks-us"]
    assert len([r for r in aws.requests if r.operation == "ListClusters" and r.region == SEOUL]) == len(tokens) + 1


def test_what_came_before_a_page_that_fails_is_kept(serve):
    aws = serve(page_size=1)
    aws.inject(LIST, denied(), after=1, region=SEOUL)
    found = scan()
    gap = found.gap()
    assert (gap["reason"], gap["permission"]) == ("forbidden", "eks:ListClusters")
    assert found.clusters == ["eks-one", "eks-us"]
    assert found.report["coverage"]["clusters"]["expected"] is None


def test_entries_that_are_no_names_cost_only_themselves(serve):
    aws = serve()
    aws.inject(LIST, page("eks-one", 7, None, {}, [], ""), region=SEOUL)
    found = scan()
    assert (found.code, {g["reason"] for g in found.gaps}) == (3, {"bad_data"})
    assert found.clusters == ["eks-one", "eks-us"]


# -- refusals and faults


@pytest.mark.parametrize(
    ("fault", "reason", "permission"),
    [
        (denied(), "forbidden", "eks:ListClusters"),
        (status(403, "ForbiddenException"), "forbidden", "eks:ListClusters"),
        (expired(), "forbidden", ""),
        (closed(), "forbidden", ""),
        (opt_in_required(), "forbidden", ""),
        (status(404), "not_found", "eks:ListClusters"),
        (status(400), "bad_data", ""),
        (status(409), "bad_data", ""),
        (throttle(), "throttled", ""),
        (status(429, retry_after=0.01), "throttled", ""),
        (status(400, "ThrottlingException"), "throttled", ""),
        (status(400, "RequestThrottled"), "throttled", ""),
        (status(500), "server_error", ""),
        (status(503), "server_error", ""),
        (HANG, "timeout", ""),
        (reset(), "unreachable", ""),
        (body(b"", code=204), "bad_data", ""),
        (body(b""), "bad_data", ""),
        (body(b"\xff\xfe{}"), "bad_data", ""),
        (body(b"[" * 50_000), "bad_data", ""),
        (body(b"<html>Sign in</html>", content_type="text/html"), "bad_data", ""),
        (body(b"<html>Forbidden</html>", code=403, content_type="text/html"), "forbidden", "eks:ListClusters"),
        (body(b"", code=302, Location="https://login.example"), "bad_data", ""),
        (body(b"null"), "bad_data", ""),
        (body(b"[]"), "bad_data", ""),
        (body(b"7"), "bad_data", ""),
        (body(b"{}"), "bad_data", ""),
        (body(b'{"clusters":null}'), "bad_data", ""),
        (body(b'{"__type":"AccessDeniedException"}'), "bad_data", ""),
    ],
)
def test_a_lasting_fault_is_a_gap_and_all_else_is_judged(serve, fault, reason, permission):
    aws = serve()
    clean = scan()
    assert (clean.code, clean.gaps) == (0, [])
    aws.inject(LIST, fault, region=SEOUL)
    found = scan(*impatient(fault))
    gap = found.gap()
    assert (gap["reason"], gap["permission"]) == (reason, permission)
    assert gap["detail"]
    assert "internal error" not in gap["detail"]
    assert found.clusters == ["eks-us"]
    assert found.report["coverage"]["clusters"]["expected"] is None
    assert found.report["coverage"]["regions"] == {"expected": 2, "read": 1, "refused": 1}
    kept = found.statuses.keys() & clean.statuses.keys()
    assert {found.statuses[id] for id in found.statuses.keys() - kept} == {"unknown"}
    assert all(found.statuses[id] == clean.statuses[id] for id in kept)


@pytest.mark.parametrize(
    "fault",
    [throttle(), status(429, retry_after=0.01), status(500), status(503, retry_after=1), reset(), HANG]
    + [body(b"", code=502, Retry_After=text) for text in ("soon", "-1", "nan")],
)
def test_a_passing_fault_leaves_no_trace(serve, fault):
    aws = serve()
    clean = scan()
    for action in (LIST, "^ec2:DescribeSubnets$", "^ecr:DescribeRepositories$", "^sts:GetCallerIdentity$"):
        aws.inject(action, fault, times=1)
    found = scan(*impatient(fault))
    assert (found.code, found.gaps, found.statuses) == (0, [], clean.statuses)


def test_throttling_is_borne_a_while_and_not_for_ever(serve):
    aws = serve()
    aws.inject(LIST, throttle(), times=session.ATTEMPTS - 1, region=SEOUL)
    assert scan().code == 0
    aws.heal()
    aws.requests.clear()
    aws.inject(LIST, throttle(), region=SEOUL)
    assert scan().gap()["reason"] == "throttled"
    asked = [r for r in aws.requests if r.operation == "ListClusters" and r.region == SEOUL]
    assert len(asked) == session.ATTEMPTS


def test_a_server_that_is_silent_for_ever_is_given_up_on(serve):
    aws = serve()
    aws.inject(".", hang())
    started = time.monotonic()
    reason, _ = scan("--request-timeout", "0.1").sentence()
    assert reason == "timeout"
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("fault", [drip(0.01), drip_headers(), drip_chunks()])
def test_an_answer_that_drips_for_ever_is_a_gap_and_not_asked_for_again(serve, fault):
    aws = serve()
    aws.inject(LIST, fault, region=SEOUL)
    started = time.monotonic()
    gap = scan("--request-timeout", "0.2").gap()
    assert time.monotonic() - started < 15
    assert (gap["reason"], gap["detail"]) == ("timeout", "AWS did not finish its answer within 2 s")
    assert len([r for r in aws.requests if r.operation == "ListClusters" and r.region == SEOUL]) == 1


@pytest.mark.parametrize("fault", [flood(), body(b" " * 3_000_000), body(b" " * 3_000_000, code=500)])
def test_an_answer_that_is_too_large_is_a_gap_and_not_asked_for_again(serve, monkeypatch, fault):
    monkeypatch.setattr(bounded, "MAX_BODY", 2 << 20)
    aws = serve()
    aws.inject(LIST, fault, region=SEOUL)
    gap = scan().gap()
    assert (gap["reason"], gap["detail"]) == ("bad_data", "AWS sent an answer of more than 2 MiB")
    assert len([r for r in aws.requests if r.operation == "ListClusters" and r.region == SEOUL]) == 1


def test_answers_end_through_a_proxy_too(serve, monkeypatch):
    aws = serve()
    with Proxy(aws.port) as proxy:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://{proxy.url}")
        aws.inject(LIST, drip(0.01), region=SEOUL)
        assert "did not finish its answer" in scan("--request-timeout", "0.2").gap()["detail"]
    assert "http://127.0.0.1" in proxy.heads[0]


@pytest.mark.parametrize("password", ["hush/hush", "hush#hush", "hush?hush", "hush\\hush", "hush[hush", "hüsh"])
def test_a_proxy_whose_password_would_be_shown_is_a_usage_error(serve, monkeypatch, password):
    aws = serve()
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{password}@127.0.0.1:9")
    result = kubeposture("scan", "eks")
    assert (result.code, result.stdout, aws.requests) == (2, "", [])
    assert "the proxy that HTTPS_PROXY names cannot be used" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "sh" not in result.stderr.replace("such", "")


@pytest.mark.parametrize("password", ["hush%2Fhush", "hush@hush", "hush"])
def test_a_proxy_that_does_not_answer_is_named_without_its_password(serve, monkeypatch, password):
    serve()
    monkeypatch.setenv("HTTP_PROXY", f"http://me:{password}@127.0.0.1:9")
    found = scan()
    assert found.code == 4
    assert "127.0.0.1:9" in found.gaps[0]["detail"]
    assert "hush" not in json.dumps(found.report) + found.error


@pytest.mark.parametrize("protocol", ["rest-json", "json", "query", "ec2"])
def test_a_refusal_names_the_right_in_each_protocol(serve, protocol):
    action = {
        "rest-json": "eks:DescribeClusterVersions",
        "json": "ecr:DescribeRepositories",
        "query": "sts:GetCallerIdentity",
        "ec2": "ec2:DescribeRouteTables",
    }[protocol]
    aws = serve()
    aws.deny(action)
    found = scan()
    assert found.code in (3, 4)
    assert {(g["reason"], g["permission"]) for g in found.gaps} == {("forbidden", action)}
    aws.heal()
    aws.inject(f"^{action}$", throttle())
    assert {(g["reason"], g["permission"]) for g in scan().gaps} == {("throttled", "")}


GARBAGE = (b"<html>Sign in", b"", b"null", b"\xff", b"{}", b"<a/>")


@pytest.mark.parametrize(
    "action",
    [
        "sts:GetCallerIdentity",
        "ec2:DescribeRegions",
        "eks:DescribeCluster",
        "eks:DescribeClusterVersions",
        "eks:ListNodegroups",
        "eks:DescribeNodegroup",
        "eks:ListAddons",
        "eks:DescribeAddon",
        "eks:ListAccessEntries",
        "eks:ListAssociatedAccessPolicies",
        "ec2:DescribeSubnets",
        "ec2:DescribeRouteTables",
        "guardduty:ListDetectors",
        "guardduty:GetDetector",
        "ecr:DescribeRepositories",
        "ecr:GetRepositoryPolicy",
        "ecr:GetLifecyclePolicy",
        "ecr:BatchGetRepositoryScanningConfiguration",
        "inspector2:BatchGetAccountStatus",
    ],
)
def test_an_answer_that_is_garbage_is_a_gap_and_never_clean(serve, action):
    aws = serve(eks("eks-one"))
    clean = scan()
    for data in GARBAGE:
        aws.heal()
        aws.inject(f"^{action}$", body(data))
        found = scan()
        assert action in {r.action for r in aws.requests}
        assert found.code in (3, 4), data
        assert not [g for g in found.gaps if "internal error" in g["detail"]], data
        assert {g["reason"] for g in found.gaps} == {"bad_data"}, data
        for id, now in found.statuses.items():
            assert now in (clean.statuses.get(id), "unknown"), data


# -- regions


def test_a_region_that_is_not_enabled_is_not_asked(serve):
    aws = serve()
    found = scan()
    assert (found.code, found.gaps) == (0, [])
    assert {r.region for r in aws.requests if r.service not in ("sts", "ec2")} == {SEOUL, VIRGINIA}
    assert found.report["coverage"]["accounts"] == {"expected": 1, "read": 1, "refused": 0}


def test_a_region_that_is_not_enabled_and_was_asked_for_is_named(serve):
    serve()
    found = scan("--region", HONG_KONG, "--region", SEOUL)
    assert (found.code, found.clusters) == (3, ["eks-one", "eks-two"])
    assert found.report["coverage"]["clusters"]["expected"] is None
    assert "not enabled" in found.gaps[0]["detail"]
    assert HONG_KONG in json.dumps(found.gaps)


@pytest.mark.parametrize("name", ["", "no region", "-", "a" * 80, "seoul.example.com/", "\x1b[2J"])
def test_what_cannot_be_the_name_of_a_region_is_a_usage_error(serve, name):
    aws = serve()
    result = kubeposture("scan", "eks", "--region", name)
    assert (result.code, result.stdout, aws.requests) == (2, "", [])
    assert result.stderr.startswith("kubeposture: --region ")
    assert "\x1b" not in result.stderr


def test_a_region_that_does_not_exist_is_a_gap(monkeypatch):
    """Its name leads nowhere."""
    account = session.AwsAccount(boto(), request_timeout=1, connections=1)
    with pytest.raises(session.AwsError) as error:
        account.call("eks", "xx-nowhere-1", "ListClusters")
    assert error.value.reason == "unreachable"


def boto(**options):
    import boto3

    return boto3.Session(aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="secret", **options)


def test_without_a_configured_region_all_of_them_are_found_all_the_same(serve, monkeypatch):
    serve()
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    found = scan()
    assert (found.code, found.clusters) == (0, ["eks-one", "eks-two", "eks-us"])


# -- who we are


def test_no_credential_is_one_sentence(serve, monkeypatch):
    aws = serve()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    reason, detail = scan().sentence()
    assert (reason, aws.requests) == ("not_configured", [])
    assert "credentials" in detail


def test_half_a_credential_is_one_sentence(serve, monkeypatch):
    aws = serve()
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    reason, detail = scan().sentence()
    assert (reason, aws.requests) == ("not_configured", [])
    assert "AWS_SECRET_ACCESS_KEY" in detail


def test_credentials_that_aws_does_not_know_are_told_apart_from_closed_regions(serve, monkeypatch):
    serve()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWNUNKNOWN00")
    reason, detail = scan().sentence()
    assert reason == "not_configured"
    assert "InvalidClientTokenId" in detail
    assert "region" not in detail


def test_a_wrong_secret_is_no_missing_right(serve):
    aws = serve()
    aws.inject("GetCallerIdentity", status(403, "SignatureDoesNotMatch", "The request signature does not match"))
    found = scan()
    assert found.sentence()[0] == "not_configured"
    assert {g["permission"] for g in found.gaps} == {""}


def test_credentials_that_have_expired_are_one_sentence(serve):
    aws = serve()
    aws.inject(".", expired())
    reason, detail = scan().sentence()
    assert (reason, detail) == ("forbidden", session.EXPIRED)


@pytest.mark.parametrize("action", ["eks:ListClusters", "ecr:DescribeRepositories", "ec2:DescribeRegions"])
def test_each_service_says_in_its_own_words_that_credentials_have_expired(serve, action):
    aws = serve()
    aws.inject(f"^{action}$", expired())
    found = scan()
    assert {(g["reason"], g["detail"], g["permission"]) for g in found.gaps} == {("forbidden", session.EXPIRED, "")}


def test_a_session_that_expires_in_mid_scan_loses_no_cluster_and_no_finding(serve, monkeypatch):
    aws = serve(eks("eks-one"), eks("eks-two"))
    clean = scan()
    account = SimpleNamespace(**aws.issue(PROD, "audit", "me", 3600)._asdict())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", account.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", account.secret_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", account.token)
    aws.inject("^eks:ListAddons$", lambda handler: handler.aws.revoke() or "pass", times=1)
    found = scan("--concurrency", "1")
    assert found.code == 3
    assert {g["reason"] for g in found.gaps} == {"forbidden"}
    assert {g["detail"] for g in found.gaps} == {session.EXPIRED}
    assert set(found.clusters) <= set(clean.clusters)
    assert {found.statuses[id] for id in found.statuses if found.statuses[id] != clean.statuses.get(id)} == {"unknown"}


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_profile_that_does_not_exist_is_a_usage_error(serve, monkeypatch, how):
    aws = serve()
    if how == "environment":
        monkeypatch.setenv("AWS_PROFILE", "wrong")
    args = ("--aws-profile", "wrong") if how == "option" else ()
    result = kubeposture("scan", "eks", *args)
    assert (result.code, result.stdout, aws.requests) == (2, "", [])
    assert result.stderr.startswith("kubeposture: ")
    assert "wrong" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_configuration_that_cannot_be_read_is_a_usage_error(serve, monkeypatch, tmp_path):
    aws = serve()
    (tmp_path / "config").write_text("[profile\nsecret = hush-hush")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    result = kubeposture("scan", "eks")
    assert (result.code, result.stdout, aws.requests) == (2, "", [])
    assert result.stderr.startswith("kubeposture: ")
    assert "hush-hush" not in result.stderr


def profile(aws, monkeypatch, tmp_path, text, **more):
    """Credentials and region come from a profile alone."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    user = aws.user(PROD)
    keys = f"aws_access_key_id = {user.access_key}\naws_secret_access_key = {user.secret_key}\n"
    (tmp_path / "config").write_text(f"[profile work]\nregion = {SEOUL}\n{keys}\n{text}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def test_a_profile_gives_credentials_and_region(serve, monkeypatch, tmp_path):
    aws = serve()
    profile(aws, monkeypatch, tmp_path, "")
    found = scan("--aws-profile", "work")
    assert (found.code, found.clusters) == (0, ["eks-one", "eks-two", "eks-us"])
    assert {r.region for r in aws.requests if r.operation in ("GetCallerIdentity", "DescribeRegions")} == {SEOUL}


def test_a_profile_whose_role_is_assumed(serve, monkeypatch, tmp_path):
    aws = serve()
    aws.estate.accounts[PROD].assumable["audit"] = ""
    profile(
        aws,
        monkeypatch,
        tmp_path,
        f"[profile role]\nregion = {SEOUL}\nrole_arn = {iam_arn(PROD, 'role/audit')}\nsource_profile = work\n",
    )
    found = scan("--aws-profile", "role")
    assert (found.code, found.clusters) == (0, ["eks-one", "eks-two", "eks-us"])
    assert len(aws.sessions) == 1


def test_roles_are_assumed_from_a_profile(serve, monkeypatch, tmp_path):
    """With its region, which no variable gives."""
    aws = serve(estate=two_accounts())
    profile(aws, monkeypatch, tmp_path, "")
    found = scan("--aws-profile", "work", "--role-arn", iam_arn(DEV, "role/audit"), "--external-id", EXTERNAL_ID)
    assert (found.code, found.gaps, found.clusters) == (0, [], ["eks-dev"])


def two_accounts():
    own = Account(PROD, "Production", regions={SEOUL: region_of(PROD, SEOUL, eks("eks-prod"))})
    other = Account(DEV, "Development", regions={SEOUL: region_of(DEV, SEOUL, eks("eks-dev", account=DEV))})
    other.assumable["audit"] = EXTERNAL_ID
    return Estate.of(own, other)


def test_a_role_of_a_workload_is_taken_with_its_web_identity(serve, monkeypatch, tmp_path):
    """As in a pod with a role, or in a pipeline: boto3 itself has to trade a token for credentials."""
    aws = serve()
    found = aws.issue(PROD, "audit", "me", 3600)
    keys = {"AccessKeyId": found.access_key, "SecretAccessKey": found.secret_key, "SessionToken": found.token}
    words = (
        "".join(f"<{k}>{escape(v)}</{k}>" for k, v in keys.items()) + "<Expiration>2099-01-01T00:00:00Z</Expiration>"
    )
    name = "AssumeRoleWithWebIdentity"
    answer = f"<{name}Response><{name}Result><Credentials>{words}</Credentials></{name}Result></{name}Response>"
    aws.inject("^:", body(answer.encode(), content_type="text/xml"))
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    (tmp_path / "token").write_text("a.b.c")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", iam_arn(PROD, "role/audit"))
    scanned = scan()
    assert (scanned.code, scanned.clusters) == (0, ["eks-one", "eks-two", "eks-us"])


def test_a_session_of_a_role_is_renewed_before_it_ends(serve):
    aws = serve(estate=two_accounts(), session_seconds=60)  # boto3 renews in the last fifteen minutes
    found = scan("--role-arn", iam_arn(DEV, "role/audit"), "--external-id", EXTERNAL_ID)
    assert (found.code, found.clusters) == (0, ["eks-dev"])
    assert len(aws.sessions) > 2


def test_a_session_of_a_role_that_ends_in_mid_scan_is_followed_by_another(serve):
    """boto3 renews it in its last fifteen minutes, so that nothing is ever asked with the one that ends."""
    aws = serve(estate=two_accounts(), session_seconds=60)
    ended = []

    def end(handler):
        handler.aws.revoke()
        ended.extend(aws.sessions)
        body(b'{"nodegroups":[]}')(handler)

    aws.inject("^eks:ListNodegroups$", end)
    # One request at a time: what is under way when a session is taken away was signed with it.
    one = ("--concurrency", "1")
    found = scan("--role-arn", iam_arn(DEV, "role/audit"), "--external-id", EXTERNAL_ID, *one)
    assert (found.code, found.gaps, found.clusters) == (0, [], ["eks-dev"])
    assert 0 < len(ended) < len(aws.sessions)


def test_a_role_that_can_no_longer_be_assumed_says_so_in_the_same_words(serve):
    aws = serve(estate=two_accounts(), session_seconds=60)
    aws.inject("^sts:AssumeRole$", expired(), after=2)
    found = scan("--role-arn", iam_arn(DEV, "role/audit"), "--external-id", EXTERNAL_ID)
    assert found.code in (3, 4)
    assert {g["detail"] for g in found.gaps} == {session.EXPIRED}


# -- where API servers look callers up


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "sts.eu-central-1.amazonaws.com"),
        ("us-east-1", "sts.us-east-1.amazonaws.com"),
        ("us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
        ("us-iso-east-1", "sts.us-iso-east-1.c2s.ic.gov"),
        ("us-isob-east-1", "sts.us-isob-east-1.sc2s.sgov.gov"),
        ("eu-isoe-west-1", "sts.eu-isoe-west-1.cloud.adc-e.uk"),
        ("us-isof-south-1", "sts.us-isof-south-1.csp.hci.ic.gov"),
        ("eusc-de-east-1", "sts.eusc-de-east-1.amazonaws.eu"),
        ("eu-central-77", "sts.eu-central-77.amazonaws.com"),  # newer than this botocore, in a partition that it knows
    ],
)
def test_a_token_is_signed_for_the_regions_own_sts(monkeypatch, region, host):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS"):
        monkeypatch.setenv(name, "https://elsewhere.example")
    account = session.AwsAccount(boto(), request_timeout=1, connections=1)
    made = access.token(account, region, "shop").removeprefix("k8s-aws-v1.")
    url = urlsplit(base64.urlsafe_b64decode(made + "=" * (-len(made) % 4)).decode())
    assert (url.scheme, url.netloc, url.path) == ("https", host, "/")
    query = dict(parse_qsl(url.query))
    assert query["X-Amz-Credential"].split("/")[2:] == [region, "sts", "aws4_request"]
    assert query["X-Amz-SignedHeaders"] == "host;x-k8s-aws-id"


def test_the_list_of_partitions_has_none_more():
    import botocore.session

    partitions = botocore.session.get_session().get_available_partitions()
    assert set(partitions) == {
        *("aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "aws-iso-e", "aws-iso-f", "aws-eusc"),
    }


def test_a_region_of_no_partition_has_no_sts():
    account = session.AwsAccount(boto(), request_timeout=1, connections=1)
    with pytest.raises(session.AwsError, match="xx-nowhere-1") as error:
        access.token(account, "xx-nowhere-1", "shop")
    assert error.value.reason == "not_configured"


# -- what may leave


def asked(service, operation):
    return SimpleNamespace(name=operation, service_model=SimpleNamespace(service_name=service))


ROOT = Path(__file__).parent.parent
LOGINS = {
    *("sts:AssumeRoleWithSAML", "sts:AssumeRoleWithWebIdentity", "sso:GetRoleCredentials"),
    *("sso-oidc:CreateToken", "signin:CreateOAuth2Token"),
}
# Of the next checks: Fargate, the rights of node roles, and where logs go.
PLANNED = {
    *("eks:ListFargateProfiles", "eks:DescribeFargateProfile", "logs:DescribeLogGroups"),
    *("logs:DescribeSubscriptionFilters", "iam:GetRole", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies"),
    *("iam:GetRolePolicy", "iam:GetPolicy", "iam:GetPolicyVersion", "iam:ListOpenIDConnectProviders"),
    "iam:GetOpenIDConnectProvider",
}


# What other services call by the names of operations that are asked for.
NAMESAKES = {"ec2:DescribeImages", "guardduty:ListCoverage", "guardduty:ListFindings", "inspector:ListFindings"}


def called():
    """Each operation that the code names, of each service that it names; apart from the list itself."""
    import botocore.session

    inner = botocore.session.get_session()
    words = set()
    for path in (*(ROOT / "providers" / "aws").glob("*.py"), ROOT / "scanner" / "cli" / "eks.py"):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if "_ALLOWED" not in ast.unparse(getattr(statement, "target", ast.Pass())):
                words |= {n.value for n in ast.walk(statement) if isinstance(n, ast.Constant)}
    services = words & set(inner.get_available_services())
    return {f"{s}:{o}" for s in services for o in words & set(inner.get_service_model(s).operation_names)}


def test_what_the_code_calls_may_leave_and_nothing_else():
    listed = {f"{service}:{operation}" for service, found in session._ALLOWED.items() for operation in found}
    assert len(called()) > 20
    assert called() > NAMESAKES
    assert listed == called() - NAMESAKES | LOGINS | PLANNED


def test_operations_have_the_names_that_botocore_gives_them():
    import botocore.session

    inner = botocore.session.get_session()
    for service, operations in session._ALLOWED.items():
        assert operations <= set(inner.get_service_model(service).operation_names)


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("ecr", "GetAuthorizationToken"),
        ("ecr-public", "GetAuthorizationToken"),
        ("sts", "GetSessionToken"),
        ("sts", "GetFederationToken"),
        ("secretsmanager", "GetSecretValue"),
        ("ssm", "GetParameter"),
        ("ec2", "GetPasswordData"),
        ("ec2", "DescribeInstances"),
        ("ec2", "DescribeImages"),
        ("guardduty", "ListFindings"),
        ("iam", "GetAccountAuthorizationDetails"),
        ("ecr", "ListClusters"),
        ("s3", "ListBuckets"),
        ("eks", "CreateAccessEntry"),
        ("eks", "DeleteCluster"),
        ("eks", "UpdateClusterConfig"),
        ("eks", "TagResource"),
        ("eks", "AssociateAccessPolicy"),
        ("ecr", "PutImage"),
        ("ecr", "StartImageScan"),
        ("ecr", "BatchDeleteImage"),
        ("iam", "CreateRole"),
        ("ec2", "RunInstances"),
        ("eks", "AssumeRole"),
        ("eks", "CreateToken"),
        ("eks", "listClusters"),
        ("eks", "List"),
        ("eks", "Listen"),
        ("eks", "ListClusters\n"),
        ("eks", " ListClusters"),
        ("eks", ""),
    ],
)
def test_the_guard_refuses(service, name):
    with pytest.raises(WriteRefused):
        session.refuse_writes(asked(service, name))


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("eks", "ListClusters"),
        ("ec2", "DescribeRegions"),
        ("sts", "GetCallerIdentity"),
        ("sts", "AssumeRole"),
        ("sts", "AssumeRoleWithWebIdentity"),
        ("sts", "AssumeRoleWithSAML"),
        ("sso", "GetRoleCredentials"),
        ("sso-oidc", "CreateToken"),
        ("signin", "CreateOAuth2Token"),
        ("ecr", "BatchGetRepositoryScanningConfiguration"),
    ],
)
def test_the_guard_lets_reads_and_logins_pass(service, name):
    session.refuse_writes(asked(service, name))


@pytest.mark.parametrize(
    ("service", "operation", "parameters"),
    [
        ("eks", "DeleteCluster", {"name": "eks-one"}),
        ("ecr", "GetAuthorizationToken", {}),
        ("sts", "GetSessionToken", {}),
        ("eks", "TagResource", {"resourceArn": "arn:aws:eks:a:1:cluster/x", "tags": {"a": "b"}}),
        ("ecr", "PutImage", {"repositoryName": "shop/web", "imageManifest": "{}"}),
        ("ec2", "CreateTags", {"Resources": ["i-1"], "Tags": []}),
        ("iam", "DeleteRole", {"RoleName": "admin"}),
    ],
)
def test_no_write_leaves(serve, service, operation, parameters):
    aws = serve()
    account = session.AwsAccount(session.session(None), request_timeout=5, connections=1)
    with pytest.raises(WriteRefused, match=operation):
        account.call(service, SEOUL, operation, **parameters)
    assert aws.requests == []


def test_a_client_of_an_assumed_role_is_guarded_too(serve):
    aws = serve(estate=two_accounts())
    base = session.AwsAccount(session.session(None), request_timeout=5, connections=1)
    inner = session.assumed(base, iam_arn(DEV, "role/audit"), EXTERNAL_ID)
    account = session.AwsAccount(inner, request_timeout=5, connections=1)
    with pytest.raises(WriteRefused):
        account.call("eks", SEOUL, "DeleteCluster", name="eks-dev")
    assert "DeleteCluster" not in {r.operation for r in aws.requests}


# -- slowness


def test_regions_are_read_side_by_side(serve):
    aws = serve()
    aws.inject(LIST, delay(0.5))
    started = time.monotonic()
    assert scan("-c", "aws-eks-deletion-protection").code == 0
    assert time.monotonic() - started < 4


def test_an_empty_list_of_regions_is_never_true(serve):
    aws = serve()
    aws.inject("^ec2:DescribeRegions$", empty())
    found = scan()
    assert (found.code, found.clusters) == (4, [])
    assert {g["reason"] for g in found.gaps} == {"bad_data"}
