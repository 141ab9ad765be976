"""Security Hub: every event of every kind of scan as a finding that keeps to what AWS has written down, and every
answer of the hub as what it means for delivery."""

import builtins
import json
import re
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from events import closed, of_scans
from hubserver import ACCOUNT, EXTERNAL_ID, OTHER, REGION, ROLE, HubServer
from hypothesis import HealthCheck, given, settings
from registryserver import Reply, Server
from test_ocsf import HOSTILE, MS, NOW, TEXTS, ended, event_of, finding, gap
from test_ocsf import cluster as scanned_cluster

from providers.aws.errors import WriteRefused
from scanner import config
from scanner.config import ConfigError
from scanner.model import (
    Account,
    ClusterRef,
    Evidence,
    ExemptionNote,
    Lifecycle,
    ParameterValue,
    PlaneState,
    Ref,
    ResourceRef,
    Severity,
    SourceRef,
    Status,
)
from scanner.report.ocsf import finding_event
from scanner.sinks import Packed, Refused, Unavailable, Unusable
from scanner.sinks.security_hub import IMPORT, SERVICE, open_sink
from scanner.sinks.settings import SecurityHubSink

PAGE = (Path(__file__).parent.parent / "docs/security-hub.md").read_text()
EKS = "arn:aws:eks:eu-west-1:111122223333:cluster/shop"
ECR = "arn:aws:ecr:eu-west-1:111122223333:repository/team/app"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return of_scans(tmp_path_factory.mktemp("scans"))


@pytest.fixture
def hub(monkeypatch):
    with HubServer() as server:
        use(server, monkeypatch)
        yield server


@pytest.fixture
def sink(hub):
    found = open_sink(SecurityHubSink())
    yield found
    found.close()


def use(server, monkeypatch):
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def packed(sink, *events):
    return [Packed(e["metadata"]["uid"], body) for e in events if (body := sink.pack(e)) is not None]


def sent(sink, hub, *events):
    """The one finding that the hub has then."""
    assert sink.send(packed(sink, *events)) == {}
    [found] = hub.findings.values()
    return found


def next_millisecond():
    before = datetime.now(UTC)
    while datetime.now(UTC) - before < timedelta(milliseconds=2):
        time.sleep(0.001)


# -- real scans


def test_every_event_is_a_finding_that_aws_would_take(sink, hub, scans):
    batch = packed(sink, *scans)
    assert len(batch) == sum(e["class_uid"] == 2003 for e in scans) > 500
    assert sum(e["class_uid"] == 6007 for e in scans) > 10
    assert all(b"\n" not in one.body for one in batch)
    for start in range(0, len(batch), sink.most_events):
        assert sink.send(batch[start : start + sink.most_events]) == {}
    assert set(hub.findings) == {e["finding_info"]["uid"] for e in scans if e["class_uid"] == 2003}
    types = {resource["Type"] for found in hub.findings.values() for resource in found["Resources"]}
    assert types == {"Other", "AwsEksCluster", "AwsEcrRepository"}
    providers = {found["ProductFields"].get("kubeposture/provider") for found in hub.findings.values()}
    assert providers == {"AWS", "Azure", "GCP", None}
    assert {found["Compliance"]["Status"] for found in hub.findings.values()} == {
        *("PASSED", "FAILED", "WARNING", "NOT_AVAILABLE")
    }


def test_every_finding_can_be_closed(sink, hub, scans):
    events = [e for e in scans if e["class_uid"] == 2003]
    for start in range(0, len(events), 100):
        assert sink.send(packed(sink, *events[start : start + 100])) == {}
    next_millisecond()
    for start in range(0, len(events), 100):
        assert sink.send(packed(sink, *map(closed, events[start : start + 100]))) == {}
    assert {(f["RecordState"], f["Compliance"]["Status"]) for f in hub.findings.values()} == {("ARCHIVED", "PASSED")}


def test_no_batch_is_too_large(sink, hub):
    """Of events of the largest size that there are, of characters that boto3 sends as twelve bytes each."""
    evidence = tuple(Evidence("spec", "😀" * 600) for _ in range(12))
    batch = packed(sink, *(finding_event(finding(id=f"kp1_{i}", evidence=evidence)) for i in range(100)))
    assert sum(len(one.body) for one in batch) > sink.most_bytes
    while sum(len(one.body) for one in batch) > sink.most_bytes:
        batch.pop()
    assert sink.send(batch) == {}
    assert len(batch) == len(hub.findings) > 50


# -- one finding


def test_whole_mapping(sink, hub):
    event = event_of(
        provider="aws",
        account="444455556666",
        region="eu-central-1",
        cluster=ClusterRef(EKS, "uid-of-kube-system", "shop"),
        reason="bad_x",
        refs=(Ref("cis-eks", "1.8", "4.2.1"), Ref("nsa", None, "Pods")),
        evidence=(Evidence("spec.x", "true"), Evidence("spec.y", "not set", "false")),
        parameters=(ParameterValue("min", "3", "config"), ParameterValue("max", "5", "config")),
        lifecycle=Lifecycle("open", NOW - timedelta(days=3), NOW, None, None),
    )
    before = datetime.now(UTC)
    found = sent(sink, hub, event)
    updated = datetime.fromisoformat(found.pop("UpdatedAt"))
    assert before - timedelta(milliseconds=1) <= updated <= datetime.now(UTC)
    assert found == {
        "SchemaVersion": "2018-10-08",
        "Id": "kp1_" + "0a" * 16,
        "ProductArn": f"arn:aws:securityhub:{REGION}:{ACCOUNT}:product/{ACCOUNT}/default",
        "ProductName": "kubeposture",
        "CompanyName": "kubeposture",
        "Region": REGION,
        "GeneratorId": "k8s-x",
        "AwsAccountId": ACCOUNT,
        "CreatedAt": "2026-08-29T12:30:15.000Z",
        "FirstObservedAt": "2026-08-29T12:30:15.000Z",
        "LastObservedAt": "2026-09-01T12:30:15.000Z",
        "Title": "X should be",
        "Description": "Deployment prod/web [app]: it is not",
        "FindingProviderFields": {
            "Severity": {"Label": "HIGH"},
            "Types": ["Software and Configuration Checks/Kubernetes Posture"],
        },
        "Resources": [
            {
                "Type": "Other",
                "Id": f"{EKS}|apps/Deployment/prod/web",
                "Details": {
                    "Other": {
                        "Kind": "Deployment",
                        "Name": "web",
                        "Namespace": "prod",
                        "ApiGroup": "apps",
                        "Region": "eu-central-1",
                        "Container": "app",
                        "Labels": "team=web",
                    }
                },
            },
            {
                "Type": "AwsEksCluster",
                "Id": EKS,
                "Partition": "aws",
                "Region": "eu-west-1",
                "Details": {
                    "AwsEksCluster": {"Arn": EKS, "Name": "shop"},
                    "Other": {
                        "Kind": "AWS::EKS::Cluster",
                        "Name": "shop",
                        "Region": "eu-central-1",
                        "Uid": "uid-of-kube-system",
                    },
                },
            },
        ],
        "Compliance": {"Status": "FAILED", "RelatedRequirements": ["cis-eks-1.8:4.2.1", "nsa:Pods"]},
        "ProductFields": {
            "kubeposture/check": "k8s-x",
            "kubeposture/status": "fail",
            "kubeposture/lifecycle": "In Progress",
            "kubeposture/reason": "bad_x",
            "kubeposture/occurrences": "3",
            "kubeposture/parameters": "min=3, max=5",
            "kubeposture/provider": "AWS",
            "kubeposture/account": "444455556666",
            "kubeposture/region": "eu-central-1",
            "kubeposture/scan": event["metadata"]["correlation_uid"],
            "kubeposture/event": event["metadata"]["uid"],
            "kubeposture/detail/01": "it is not",
            "kubeposture/detail/02": "spec.x: true",
            "kubeposture/detail/03": "spec.y: not set (default: false)",
        },
        "RecordState": "ACTIVE",
        "Remediation": {"Recommendation": {"Text": "mend it"}},
    }


@pytest.mark.parametrize(
    ("status", "state", "exempted", "verdict", "record"),
    [
        (Status.FAIL, "new", False, "FAILED", "ACTIVE"),
        (Status.FAIL, "open", False, "FAILED", "ACTIVE"),
        (Status.FAIL, "reopened", False, "FAILED", "ACTIVE"),
        (Status.FAIL, "open", True, "FAILED", "ARCHIVED"),
        (Status.UNKNOWN, "new", False, "WARNING", "ACTIVE"),
        (Status.UNKNOWN, "new", True, "WARNING", "ARCHIVED"),
        (Status.ERROR, "new", False, "WARNING", "ACTIVE"),
        (Status.PASS, None, False, "PASSED", "ARCHIVED"),
        (Status.NOT_APPLICABLE, None, False, "NOT_AVAILABLE", "ARCHIVED"),
        (Status.FAIL, "resolved", False, "PASSED", "ARCHIVED"),
        (Status.UNKNOWN, "resolved", False, "PASSED", "ARCHIVED"),
        (Status.ERROR, "resolved", True, "PASSED", "ARCHIVED"),
    ],
)
def test_status(sink, hub, status, state, exempted, verdict, record):
    lifecycle = Lifecycle(state, NOW, NOW, None, None) if state else None
    note = ExemptionNote("vendor image", "platform", "2999-12-31") if exempted else None
    found = sent(sink, hub, event_of(status=status, lifecycle=lifecycle, exemption=note))
    assert (found["Compliance"]["Status"], found["RecordState"]) == (verdict, record)
    why = "exempted until 2999-12-31 by platform: vendor image" if exempted else None
    assert found["ProductFields"].get("kubeposture/note") == why
    assert found["ProductFields"]["kubeposture/status"] == status.value


def test_what_is_no_longer_exempted_is_active_again(sink, hub):
    before = event_of(exemption=ExemptionNote("later", "", None))
    assert sent(sink, hub, before)["RecordState"] == "ARCHIVED"
    next_millisecond()
    assert sent(sink, hub, event_of())["RecordState"] == "ACTIVE"


@pytest.mark.parametrize(("severity", "label"), [*((s, s.name) for s in Severity if s is not Severity.INFO),
                                                 (Severity.INFO, "INFORMATIONAL")])  # fmt: skip
def test_severity(sink, hub, severity, label):
    fields = sent(sink, hub, event_of(severity=severity))["FindingProviderFields"]
    assert fields["Severity"] == {"Label": label}


@pytest.mark.parametrize(
    ("category", "type"),
    [
        ("data_plane", "Software and Configuration Checks/Kubernetes Posture"),
        ("control_plane", "Software and Configuration Checks/Kubernetes Posture"),
        ("vulnerability", "Software and Configuration Checks/Vulnerabilities"),
    ],
)
def test_types(sink, hub, category, type):
    assert sent(sink, hub, event_of(category=category))["FindingProviderFields"]["Types"] == [type]


def test_what_was_not_read_is_a_finding_and_a_scan_is_none(sink, hub):
    row = scanned_cluster(state=PlaneState.NOT_READ)
    account = Account(id="111122223333", provider="aws", name="Production", refused=True)
    events = ended(row, gaps=[(row, gap(permission="list pods")), (account, gap("regions", by_policy=True))])
    summaries = [e for e in events if e["class_uid"] == 6007]
    assert [sink.pack(e) for e in summaries] == [None, None]
    assert sink.send(packed(sink, *events)) == {}
    found = [
        (f["GeneratorId"], f["Compliance"]["Status"], f["RecordState"], f["FindingProviderFields"]["Severity"]["Label"])
        for f in hub.findings.values()
    ]
    assert found == [
        ("coverage-gap", "WARNING", "ACTIVE", "MEDIUM"),
        ("coverage-gap", "WARNING", "ARCHIVED", "INFORMATIONAL"),
        ("coverage-account", "WARNING", "ARCHIVED", "INFORMATIONAL"),
        ("coverage-cluster", "WARNING", "ACTIVE", "HIGH"),
    ]
    first, *_, last = hub.findings.values()
    assert first["Remediation"]["Recommendation"]["Text"] == "Grant list pods."
    assert last["FindingProviderFields"]["Types"] == ["Software and Configuration Checks/Kubernetes Posture/Coverage"]
    assert len(last["Resources"]) == 1  # named twice in the event


@pytest.mark.parametrize(
    ("cloud_id", "type", "partition"),
    [
        (EKS, "AwsEksCluster", "aws"),
        ("arn:aws-cn:eks:cn-north-1:111122223333:cluster/shop", "AwsEksCluster", "aws-cn"),
        ("arn:aws-us-gov:ecr:us-gov-west-1:111122223333:repository/team/app", "AwsEcrRepository", "aws-us-gov"),
        (ECR, "AwsEcrRepository", "aws"),
        ("arn:aws-iso:eks:us-iso-east-1:111122223333:cluster/shop", "Other", None),
        (f"{EKS}/nodegroup/a", "Other", None),
        (f"{EKS}|Pod/a/b", "Other", None),
        (f"{ECR}:tag", "Other", None),
        ("arn:aws:eks:eu-west-1:1:cluster/shop", "Other", None),
        (f"arn:aws:eks:{'a' * 17}:111122223333:cluster/shop", "Other", None),
        ("/subscriptions/1/resourcegroups/rg", "Other", None),
        ("//container.googleapis.com/projects/p/locations/l/clusters/c", "Other", None),
    ],
)
def test_resource(sink, hub, cloud_id, type, partition):
    resource = ResourceRef("eks", "AWS::EKS::Cluster", None, "shop", cloud_id=cloud_id)
    [found] = sent(sink, hub, event_of(provider="aws", cluster=None, resource=resource))["Resources"]
    assert (found["Id"], found["Type"], found.get("Partition")) == (cloud_id, type, partition)
    own = {
        "AwsEksCluster": {"Arn": cloud_id, "Name": "shop"},
        "AwsEcrRepository": {"Arn": cloud_id, "RepositoryName": "team/app"},
        "Other": found["Details"]["Other"],
    }
    assert found["Details"][type] == own[type]
    assert found.get("Region") == (cloud_id.split(":")[3] if partition else None)


def test_an_object_in_a_file(sink, hub):
    resource = ResourceRef("", "Pod", None, "web", source=SourceRef("a/b.yaml", 7, 2))
    event = event_of(provider="files", account=None, region=None, cluster=None, resource=resource)
    [found] = sent(sink, hub, event)["Resources"]
    assert found["Details"]["Other"] == {"Kind": "Pod", "Name": "web", "Source": "a/b.yaml:7"}


def test_long_texts_are_cut(sink, hub):
    evidence = tuple(Evidence(f"spec[{i}]", "true") for i in range(60))
    refs = tuple(Ref("cis", "1", "x" * 100 + str(i)) for i in range(60))
    long = {"title": "x" * 300, "message": "x" * 1500, "remediation": "x" * 600}
    found = sent(sink, hub, event_of(**long, evidence=evidence, refs=refs))
    assert (len(found["Title"]), len(found["Description"])) == (256, 1024)
    assert len(found["Remediation"]["Recommendation"]["Text"]) == 512
    assert {len(text) for text in found["Compliance"]["RelatedRequirements"]} == {64}
    assert [key for key in found["ProductFields"] if "/detail/" in key][-1] == "kubeposture/detail/20"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, TEXTS, TEXTS)
def test_hostile_finding(sink, hub, name, text, id):
    labels, source = {name[:500]: text[:500]}, SourceRef(name, 1, 1)
    hostile = finding(
        title=text,
        message=text,
        remediation=text,
        reason=text,
        account=id,
        region=text,
        cluster=ClusterRef(id, id, name),
        resource=ResourceRef(text, text, name, name, text, id, labels, text, source),
        evidence=tuple(Evidence(text, name, text) for _ in range(30)),
        refs=tuple(Ref(text[:500], None, str(i)) for i in range(40)),
        parameters=(ParameterValue(name, text, "config"),) * 3,
        exemption=ExemptionNote(text, name, text),
    )
    next_millisecond()
    assert sink.send(packed(sink, finding_event(hostile))) == {}
    assert hub.findings[hostile.id]["Compliance"]["Status"] == "FAILED"


def test_hostile_texts_are_that(sink):
    for text in HOSTILE:
        body = sink.pack(finding_event(finding(message=text, resource=ResourceRef("", "Pod", "a", text))))
        assert body.decode().isprintable()


# -- the state that the hub keeps


def test_the_later_event_of_a_finding_counts(sink, hub):
    events = [finding_event(finding(status=Status.UNKNOWN)), finding_event(finding(), again=True)]
    found = sent(sink, hub, *events)
    assert (hub.batches, found["Compliance"]["Status"]) == ([1], "FAILED")


def test_what_was_seen_at_the_same_time_is_an_update_all_the_same(sink, hub):
    """As when a bundle is judged again: the hub ignores what is not later, and does not say so."""
    sent(sink, hub, event_of(severity=Severity.LOW))
    next_millisecond()
    found = sent(sink, hub, event_of(severity=Severity.HIGH))
    assert found["FindingProviderFields"]["Severity"]["Label"] == "HIGH"
    assert found["LastObservedAt"] == datetime.fromtimestamp(MS / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def test_a_batch_that_is_sent_again_is_taken_again(sink, hub):
    batch = packed(sink, event_of())
    for _ in range(3):
        assert sink.send(batch) == {}
        next_millisecond()
    assert len(hub.findings) == 1


# -- what the hub answers


def three(sink):
    events = [finding_event(finding(id=f"kp1_{i}")) for i in range(3)]
    events.append(finding_event(finding(id="kp1_2", status=Status.UNKNOWN), again=True))
    return packed(sink, *events)


def failed(*entries, count=None):
    found = [{"Id": id, "ErrorCode": code, "ErrorMessage": message} for id, code, message in entries]
    many = len(found) if count is None else count
    return Reply(200, {"FailedCount": many, "SuccessCount": 3 - many, "FailedFindings": found})


def test_all_that_were_refused_are_told_with_the_reason(sink, hub):
    batch = three(sink)
    hub.answers = [
        failed(("kp1_0", "InvalidInput", "data.Title is wrong\x1b[2J"), ("kp1_2", "ValidationException", "too large"))
    ]
    assert sink.send(batch) == {
        batch[0].uid: "InvalidInput: data.Title is wrong [2J",
        batch[2].uid: "ValidationException: too large",
        batch[3].uid: "ValidationException: too large",
    }


UNKNOWN = [
    *("ServiceUnavailableException", "ThrottledException", "RequestLimitExceeded", "SlowDown", "InternalFailure"),
    "SomethingNew",
]
NO_ACCESS = [
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "UnrecognizedClientException",
]


def error(code, type, message="it is so"):
    return Reply(code, {"Message": message}, (("x-amzn-ErrorType", type), ("Content-Type", "application/json")))


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (failed(("kp1_1", "InvalidAccess", "not enabled")), Unusable, "aws securityhub enable-security-hub"),
        (failed(("kp1_0", "InvalidInput", "x"), ("kp1_1", "InternalFailure", "x")), Unavailable, "InternalFailure"),
        (failed(("kp1_1", "ConcurrentUpdateError", "x")), Unavailable, "ConcurrentUpdateError"),
        (failed(("kp1_1", "InvalidInput", "x"), count=2), Refused, "refused 2 findings, and names 1"),
        (failed(count=1), Unavailable, "refused 1 findings, and does not say why"),
        (failed(("kp1_9", "InvalidInput", "x")), Refused, "without saying which"),
        (Reply(200, {}), Unavailable, "does not say what has failed"),
        (Reply(200, {"FailedCount": 0}), Unavailable, "does not say what has failed"),
        (Reply(200, {"FailedCount": 0, "SuccessCount": None}), Unavailable, "does not say what has failed"),
        (Reply(200, {"FailedCount": 1, "SuccessCount": 2, "FailedFindings": ["x"]}), Unavailable, ""),
        (Reply(200, {"FailedCount": 0, "SuccessCount": 0}), Unavailable, "took 0 and refused 0"),
        (Reply(200, {"FailedCount": 0, "SuccessCount": 2}), Unavailable, "sent 3 findings, and says that it took 2"),
        *((failed(("kp1_0", "InvalidInput", "x"), ("kp1_1", code, "x")), Unavailable, code) for code in UNKNOWN),
        *((failed(("kp1_0", "InvalidInput", "x"), ("kp1_1", code, "x")), Unusable, code) for code in NO_ACCESS),
        (Reply(200, b"<html>"), Unavailable, ""),
        (error(401, "InvalidAccessException"), Unusable, "not enabled for account 111122223333 in eu-west-1"),
        (error(403, "AccessDeniedException"), Unusable, "needed: securityhub:BatchImportFindings"),
        (error(403, "ExpiredTokenException"), Unusable, "log in again"),
        (error(403, "UnrecognizedClientException"), Unusable, "not enabled for this account"),
        (error(404, "ResourceNotFoundException"), Unusable, "ResourceNotFoundException"),
        (error(400, "InvalidInputException"), Refused, "it is so"),
        (error(413, "RequestEntityTooLargeException"), Refused, "it is so"),
        (error(429, "LimitExceededException"), Unavailable, "LimitExceededException"),
        (error(429, "TooManyRequestsException"), Unavailable, "TooManyRequestsException"),
        (error(400, "ThrottlingException"), Unavailable, "ThrottlingException"),
        (error(500, "InternalException"), Unavailable, "InternalException"),
        (Reply(503), Unavailable, "503"),
        (Reply(407, b"<html>proxy</html>"), Unavailable, "407"),
    ],
)
def test_what_it_says(sink, hub, answer, kind, words):
    hub.answers = [answer]
    with pytest.raises(kind) as raised:
        sink.send(three(sink))
    assert words in str(raised.value)
    assert "a-secret-that-is-not-told" not in str(raised.value)
    assert str(raised.value).isprintable()
    assert hub.answers == []  # once: who sends tries again
    assert sink.send(three(sink)) == {}
    assert len(hub.findings) == 3


def test_out_of_reach(hub, sink, monkeypatch):
    batch = packed(sink, event_of())
    with socket.socket() as closed_port:
        closed_port.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port.getsockname()[1]}")
        with pytest.raises(Unavailable, match="Could not connect"):
            open_sink(SecurityHubSink()).send(batch)


def test_no_credentials(hub, sink, monkeypatch):
    batch = packed(sink, event_of())
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Unusable, match="no AWS credentials"):
        open_sink(SecurityHubSink()).send(batch)


@pytest.mark.parametrize(("kind", "words"), [("missing", "No such file"), ("directory", "Is a directory")])
def test_a_web_identity_that_cannot_be_read(hub, monkeypatch, tmp_path, kind, words):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "directory").mkdir()
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / kind))
    found = open_sink(SecurityHubSink())
    with pytest.raises(Unusable, match=f"no AWS credentials: {words}"):
        found.send(packed(found, event_of()))
    assert hub.server.requests == []


def test_a_web_identity_that_is_refused(hub, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "token").write_text("eyJhbGciOiJub25lIn0.e30.x")
    body = (
        b"<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>No provider</Message></Error></ErrorResponse>"
    )
    with Server(lambda _: Reply(400, body, (("Content-Type", "text/xml"),))) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL", sts.url)
        monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        found = open_sink(SecurityHubSink())
        with pytest.raises(Unusable, match="AWS does not accept these credentials"):
            found.send(packed(found, event_of()))


def test_a_proxy_that_wants_a_login(hub, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with Server(lambda _: Reply(407)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@{proxy.host}")
        found = open_sink(SecurityHubSink())
        with pytest.raises(Unusable, match="check the login of the proxy") as caught:
            found.send(packed(found, event_of()))
    assert "hunter2" not in str(caught.value)


def test_nothing_else_may_be_written(sink, hub):
    with pytest.raises(WriteRefused):
        sink._account.call("securityhub", REGION, "EnableSecurityHub")
    with pytest.raises(WriteRefused):
        sink._account.call("iam", REGION, "DeleteRole", RoleName="x")


# -- where it goes


def test_a_role_of_another_account(hub):
    found = open_sink(SecurityHubSink(role_arn=ROLE, external_id=EXTERNAL_ID))
    assert found.send(packed(found, event_of())) == {}
    [taken] = hub.findings.values()
    assert taken["AwsAccountId"] == OTHER
    found.close()


def test_the_partition_is_that_of_the_credentials(monkeypatch):
    with HubServer(region="us-gov-west-1", partition="aws-us-gov") as hub:
        use(hub, monkeypatch)
        found = open_sink(SecurityHubSink())
        taken = sent(found, hub, event_of())
        found.close()
    assert taken["ProductArn"] == f"arn:aws-us-gov:securityhub:us-gov-west-1:{ACCOUNT}:product/{ACCOUNT}/default"


@pytest.mark.parametrize(("named", "variable"), [(REGION, ""), (REGION, "us-east-1"), (None, REGION)])
def test_region(hub, monkeypatch, named, variable):
    monkeypatch.setenv("AWS_DEFAULT_REGION", variable)
    found = open_sink(SecurityHubSink(region=named))
    assert sent(found, hub, event_of())["Region"] == REGION
    found.close()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "name its region"),
        ({"region": "Ireland"}, "is no region"),
        ({"region": "eu-west-1.example.com/"}, "is no region"),
        ({"region": REGION, "aws_profile": "absent"}, "absent"),
        ({"region": REGION, "role_arn": "findings"}, "is no role"),
        ({"region": REGION, "external_id": "x"}, "goes with role_arn"),
        ({"region": REGION, "role_arn": ROLE, "external_id": "x"}, "external_id has 2 to 1224"),
        ({"region": REGION, "role_arn": ROLE, "external_id": "x" * 1225}, "external_id has 2 to 1224"),
        ({"region": REGION, "role_arn": ROLE, "external_id": "ä b"}, "external_id has 2 to 1224"),
    ],
)
def test_settings_that_cannot_be_used(hub, monkeypatch, given, words):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ConfigError, match=words):
        open_sink(SecurityHubSink(**given))
    assert hub.server.requests == []


def test_a_proxy_with_a_password_that_would_be_shown(hub, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:pa/ss@proxy:8080")
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as raised:
        open_sink(SecurityHubSink())
    assert "pa/ss" not in str(raised.value)


def test_without_the_sdk(hub, monkeypatch):
    there = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.partition(".")[0] in ("boto3", "botocore"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return there(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigError, match=r"pip install 'kubeposture\[aws\]'"):
        open_sink(SecurityHubSink())


def test_opening_asks_nothing(sink, hub):
    assert hub.server.requests == []


# -- what the documentation says


def test_the_policy_is_the_one_call_and_the_product_that_is_sent(sink, hub):
    [policy] = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    [statement] = policy["Statement"]
    assert statement["Action"] == f"{SERVICE}:{IMPORT}"
    assert sent(sink, hub, event_of())["ProductArn"] == statement["Resource"]
    paths = [(r.method, r.path) for r in hub.server.requests]
    assert paths == [("POST", "/"), ("POST", "/findings/import")]  # GetCallerIdentity needs no right


def test_the_configuration_is_understood(tmp_path):
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "kubeposture.yaml").write_text(text)
    [found] = config.load(tmp_path / "kubeposture.yaml").sinks
    assert found.settings == SecurityHubSink(region=REGION)


def test_every_key_is_told():
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE.split("## ")[0], re.MULTILINE))))
    assert told == set(SecurityHubSink.__struct_fields__)


# -- that the server is strict


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"Title": "x" * 257}, "lengths"),
        ({"Description": " "}, "blank"),
        ({"AwsAccountId": OTHER}, "account"),
        ({"SchemaVersion": "1"}, "schema"),
        ({"CreatedAt": "yesterday"}, "times"),
        ({"Workflow": {"Status": "SUPPRESSED"}}, "customers'"),
        ({"ProductFields": {str(i): "x" for i in range(51)}}, "fields"),
        ({"Resources": [{"Type": "AwsEksCluster", "Id": "shop", "Details": {"Other": {}}}]}, "resources"),
    ],
)
def test_the_server_refuses_what_aws_would(monkeypatch, change, rule):
    with HubServer() as hub:
        use(hub, monkeypatch)
        sink = open_sink(SecurityHubSink())
        body = msgspec.json.decode(sink.pack(event_of())) | change
        sink._account.identify()
        stamped = body | {**sink._stamp(), **{key: change[key] for key in change if key == "AwsAccountId"}}
        [why] = sink._account.call("securityhub", REGION, "BatchImportFindings", Findings=[stamped])["FailedFindings"]
        assert rule in why["ErrorMessage"]
        assert len(hub.breaches) == 1
        hub.breaches.clear()
        assert hub.findings == {}
        sink.close()
