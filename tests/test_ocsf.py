"""OCSF: every event is valid under four versions of the schema, says what the finding says, and has a bounded size."""

import itertools
import json
import re
import subprocess
import sys
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest
from apiserver import ApiServer, tls
from armserver import ArmServer
from aws_data import sample_estate as aws_estate
from awsserver import AwsServer
from azure_data import DEV
from azure_data import sample_estate as azure_estate
from cli import kubeposture
from cluster_data import populate
from gcp_data import PROD as PROJECT
from gcp_data import sample_estate as google_estate
from gcpserver import GcpServer
from hypothesis import given, settings
from hypothesis import strategies as st
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from support import deployment, secured
from test_collect import INTERRUPTED, ROOT

from scanner.inventory import Counts
from scanner.model import (
    Account,
    Cluster,
    ClusterRef,
    Evidence,
    ExemptionNote,
    Finding,
    Gap,
    GapReason,
    ImageCounts,
    Lifecycle,
    ParameterValue,
    PlaneState,
    Ref,
    ResourceRef,
    Severity,
    SourceRef,
    Status,
)
from scanner.report import Ending, ScanInfo, coverage
from scanner.report.ocsf import finding_event
from scanner.report.ocsf_coverage import ending_events
from scanner.report.ocsf_event import LIMIT, bounded, line, uuid5
from scanner.summary import Tally

VERSIONS = ("1.5.0", "1.6.0", "1.7.0", "1.8.0")
CLASSES = {
    2002: ("vulnerability_finding", "Vulnerability Finding"),
    2003: ("compliance_finding", "Compliance Finding"),
    6007: ("scan_activity", "Scan Activity"),
}
SEEDS = Path(__file__).parent.parent / "fixtures/seeds"
SCANS = Path(__file__).parent.parent / "fixtures/scans"
NOW = datetime(2026, 9, 1, 12, 30, 15, tzinfo=UTC)
MS = 1_788_265_815_000
SCAN = "6a4d6a55-6a2f-4b5e-8e5c-1f6f0f3b9a11"
SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
AKS = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg/providers/microsoft.containerservice/managedclusters/shop"
ARC = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg/providers/microsoft.kubernetes/connectedclusters/edge"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@cache
def version(name):
    return OcsfJsonSchemaEmbedded(get_ocsf_schema(version=name))


@cache
def validator(name, class_uid, profiles):
    schema = version(name).get_class_schema(class_name=CLASSES[class_uid][0], profiles=list(profiles))
    return jsonschema_rs.validator_for(schema)


def check(event):
    """Valid under every version, and what no schema says."""
    for name in VERSIONS:
        validator(name, event["class_uid"], tuple(event["metadata"]["profiles"])).validate(event)
    uid, name = event["class_uid"], CLASSES[event["class_uid"]][1]
    assert (event["class_name"], event["type_uid"]) == (name, uid * 100 + event["activity_id"])
    assert event["type_name"] == f"{name}: {event['activity_name']}"
    assert event["metadata"]["version"] == "1.5.0"
    assert event["metadata"]["profiles"] == (["cloud"] if "cloud" in event else [])
    times = [v for o in (event, event.get("finding_info", {})) for k, v in o.items() if re.search("time$", k)]
    assert times
    assert all(time > 10**12 for time in times)
    return event


def read(text):
    """The events of a report, each of them checked."""
    found = []
    for row in text.splitlines(keepends=True):
        assert row.endswith("\n")
        assert row[:-1].isprintable()
        assert len(row.encode()) <= LIMIT
        event = check(json.loads(row))
        assert all(text.isprintable() for text in strings(event))
        found.append(event)
    uids = Counter(event["metadata"]["uid"] for event in found)
    assert [uid for uid, n in uids.items() if n > 1] == []
    return found


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


class Report:
    """Events and findings of one run, held against each other."""

    def __init__(self, *args):
        result = kubeposture(*args, "-q", "-o", "ocsf", "-o", "ndjson=findings", "-o", "json=report")
        assert result.stdout, result.stderr
        self.code, self.events = result.code, read(result.stdout)
        self.findings = [json.loads(row) for row in Path("findings").read_text().splitlines()]
        self.report = json.loads(Path("report").read_text())
        by_code = {"coverage-gap", "coverage-account", "coverage-cluster"}
        self.coverage = [e for e in self.events if e["metadata"]["event_code"] in by_code and e["class_uid"] == 2003]
        self.scans = [e for e in self.events if e["class_uid"] == 6007]
        self.of_findings = self.events[: len(self.events) - len(self.coverage) - len(self.scans)]
        self.hold()

    def hold(self):
        """What is true of every scan."""
        events, findings = self.of_findings, self.findings
        assert [e["finding_info"]["uid"] for e in events] == [f["id"] for f in findings]
        assert [e["class_uid"] for e in events] == [2003] * len(findings)
        verdicts = {"fail": 3, "unknown": 2, "pass": 1, "not_applicable": 99, "error": 99}
        assert [e["compliance"]["status_id"] for e in events] == [verdicts[f["status"]] for f in findings]
        clouds = {"azure": "Azure", "aws": "AWS", "gcp": "GCP"}
        assert [e.get("cloud", {}).get("provider") for e in events] == [clouds.get(f["provider"]) for f in findings]
        assert [e["resources"][1]["uid"] if e["resources"][1:] else None for e in events] == [
            f["cluster"] and f["cluster"]["id"] for f in findings
        ]
        gaps, clusters = self.report["gaps"], self.report["clusters"]
        codes = Counter(e["metadata"]["event_code"] for e in self.coverage)
        told = [d for e in self.coverage if e["metadata"]["event_code"] == "coverage-gap"
                for d in e["compliance"]["status_details"]]  # fmt: skip
        assert {f"detail: {g['detail']}" for g in gaps} <= {*told}
        assert bool(gaps) <= codes["coverage-gap"] <= len(gaps)
        lacking = [c for c in clusters if {"partial", "not_read"} & {c["control_plane"], c["data_plane"]}]
        assert codes["coverage-cluster"] == len(lacking)
        assert [e["unmapped"]["cluster"]["uid"] for e in self.scans[:-1]] == [c["id"] for c in clusters]
        assert self.events[-1] is self.scans[-1]
        assert self.events[-1]["num_detections"] == self.report["summary"]["by_status"]["fail"]
        assert {e["metadata"]["correlation_uid"] for e in self.events} == {self.report["scan"]["id"]}

    def uids(self):
        """Under which a SIEM knows what is told of."""
        return sorted(e["finding_info"]["uid"] for e in self.events if e["class_uid"] == 2003)

    def named(self, check):
        return [e for e in self.of_findings if e["metadata"]["event_code"] == check]


def all_of(*args):
    return Report(*args, "--status", "all")


# -- whole scans


def test_demo():
    first, second = all_of("demo"), all_of("demo")
    assert len(first.findings) > 400
    assert len(first.coverage) == 3 + 1 + 3
    assert first.uids() == second.uids()
    assert len(set(first.uids())) == len(first.uids())
    places = {(e["cloud"]["provider"], e["cloud"]["account"]["type_id"]) for e in first.of_findings
              if "account" in e.get("cloud", {})}  # fmt: skip
    assert places == {("Azure", 13), ("AWS", 10), ("GCP", 11)}
    assert {e["cloud"]["account"]["uid"] for e in first.of_findings if e["resources"][0]["type"] == "Deployment"} == {
        "5ea1c0de-0000-4000-8000-000000000001"
    }


def test_files_are_in_no_cloud(folder):
    (folder / "broken.yaml").write_text("kind: [")
    found = all_of("scan", "manifests", SEEDS, "broken.yaml")
    assert {e["compliance"]["status"] for e in found.of_findings} >= {"Pass", "Fail"}
    assert all(e["metadata"]["profiles"] == [] for e in found.events)
    assert found.scans[0]["num_files"] >= 2
    assert found.scans[0]["status"] == "Partial"


def test_nothing_read_is_a_failed_scan(folder):
    (folder / "empty").mkdir()
    found = Report("scan", "manifests", "empty")
    assert (found.code, {e["compliance"]["status"] for e in found.of_findings}) == (4, {"Error"})
    assert (found.events[-1]["activity_name"], found.events[-1]["status"]) == ("Error", "Failure")


def test_images():
    found = all_of("demo", "-c", "azure-registry-image-vulns")
    [event] = [e for e in found.of_findings if e["resources"][0]["type"] == "Image" and "shop/web" in e["message"]]
    assert event["finding_info"]["types"] == ["vulnerability"]
    assert event["resources"][0]["uid"].startswith("acmeshop.azurecr.io/shop/web@sha256:")
    assert [text for text in event["compliance"]["status_details"] if text.startswith("CVE-2021-44228[")]


def test_cluster_of_a_kubeconfig(folder):
    system = {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": "3f6b7a52-1c1e-4f0b-9d2e-0c1d5a4b7e10"}}
    bad = deployment(secured(privileged=True), name="bad", namespace="a")
    with ApiServer([system, {"kind": "Namespace", "metadata": {"name": "a"}}, bad], tls=tls()) as api:
        api.deny("jobs")
        args = ("scan", "kubeconfig", "--kubeconfig", api.kubeconfig(folder / "config"), "--vulnerabilities", SCANS)
        first, second = all_of(*args), all_of(*args)
    [event] = [e for e in first.named("k8s-privileged-container") if e["compliance"]["status"] == "Fail"]
    assert "cloud" not in event
    thing, cluster = event["resources"]
    assert (thing["type"], thing["namespace"], thing["name"]) == ("Deployment", "a", "bad")
    assert thing["uid"] == f"{cluster['uid']}|apps/Deployment/a/bad"
    assert cluster["type"] == "Kubernetes Cluster"
    assert first.uids() == second.uids()
    [gap] = [e for e in first.coverage if e["resources"][0]["type"] == "jobs"]
    assert gap["resources"][1]["uid"] == cluster["uid"]
    assert {"data_plane", "vulnerability"} <= {type for e in first.of_findings for type in e["finding_info"]["types"]}
    assert [e for e in first.coverage if e["resources"][0]["type"] == "Source"]  # reports that are not understood


def test_aks(folder, monkeypatch):
    with ArmServer(azure_estate(), page_size=2) as arm:
        for name, value in arm.environment.items():
            monkeypatch.setenv(name, value)
        arm.deny("/registries", subscription=DEV)
        found = all_of("scan", "aks", "--arm-endpoint", arm.url, "--planes", "control")
    gaps = [e for e in found.coverage if e["resources"][0]["type"] == "registries"]
    assert [(e["cloud"]["account"]["uid"], e["compliance"]["status"]) for e in gaps] == [(DEV, "Warning")]
    assert {r["uid"] for e in found.events for r in e.get("resources", []) if r["uid"].startswith("/")} == {
        r["uid"].lower() for e in found.events for r in e.get("resources", []) if r["uid"].startswith("/")
    }
    types = {e["resources"][0]["type"] for e in found.of_findings}
    assert {"Microsoft.ContainerService/managedClusters", "Microsoft.ContainerRegistry/registries"} <= types
    assert "Microsoft.Kubernetes/connectedClusters" in {e["unmapped"]["cluster"]["type"] for e in found.scans[:-1]}


def test_eks(monkeypatch):
    with AwsServer(aws_estate(), moto=False) as aws:
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)
        aws.deny("guardduty:*")
        found = all_of("scan", "eks", "--planes", "control")
    assert [e for e in found.coverage if e["metadata"]["event_code"] == "coverage-account"]
    assert {e["resources"][1]["type"] for e in found.of_findings if e["resources"][1:]} == {"AWS::EKS::Cluster"}


def test_gke(folder, monkeypatch):
    with GcpServer(google_estate()) as gcp:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcp.key_file(folder))
        endpoints = (f"{service}={url}" for service, url in gcp.endpoints.items())
        monkeypatch.setenv("KUBEPOSTURE_GCP_ENDPOINTS", " ".join(endpoints))
        gcp.deny("artifactregistry.repositories.getIamPolicy", PROJECT)
        found = all_of("scan", "gke", "--project", PROJECT, "--planes", "control")
    assert found.findings
    assert {e["cloud"]["project_uid"] for e in found.of_findings} == {PROJECT}
    types = {e["resources"][1]["type"] for e in found.of_findings if e["resources"][1:]}
    assert types == {"container.googleapis.com/Cluster"}


def test_exempted(folder):
    entry = {"checks": ["k8s-run-as-root"], "reason": "vendor image", "owner": "platform", "expires": "2999-12-31"}
    (folder / "kubeposture.yaml").write_text(json.dumps({"exemptions": [entry]}))
    found = Report("scan", "manifests", SEEDS / "unhealthy.yaml")
    event = found.named("k8s-run-as-root")[-1]
    assert (event["compliance"]["status"], event["status_id"], event["status"]) == ("Fail", 3, "Suppressed")
    assert event["status_detail"] == "exempted until 2999-12-31 by platform: vendor image"
    assert {e["status"] for e in found.of_findings} == {"New", "Suppressed"}


def test_streamed_beside_others(folder):
    kubeposture("scan", "manifests", SEEDS, "-o", "ocsf=events", "-o", "table=t", "-o", "ocsf=more")
    assert (folder / "events").read_text() == (folder / "more").read_text()
    assert read((folder / "events").read_text())[-1]["class_uid"] == 6007


def test_an_interrupted_scan(folder):
    with ApiServer() as one, ApiServer() as two:
        populate(one, 20)
        populate(two, 20)
        config = one.kubeconfig(folder / "config", context="a", others={"b": two})
        command = ["scan", "kubeconfig", "--kubeconfig", config, "--context", "*", "--concurrency", "1"]
        outputs = ["-o", f"ocsf={folder}/events", "-o", f"json={folder}/report", "-q"]
        result = subprocess.run([sys.executable, "-c", INTERRUPTED, *command, *outputs], check=False, cwd=ROOT)
    whole = read((folder / "events").read_text())[-1]
    assert result.returncode == whole["unmapped"]["exit_code"] == 130
    assert (whole["activity_name"], whole["status"], whole["unmapped"]["complete"]) == ("Cancelled", "Partial", False)
    report = json.loads((folder / "report").read_text())
    assert report["scan"]["exit_reasons"] == whole["unmapped"]["exit_reasons"] == ["interrupted", "incomplete"]


# -- one finding


def finding(**fields):
    values = {
        "schema_version": "1.0",
        "scan_id": SCAN,
        "id": "kp1_" + "0a" * 16,
        "check": "k8s-x",
        "title": "X should be",
        "status": Status.FAIL,
        "reason": "",
        "severity": Severity.HIGH,
        "category": "data_plane",
        "scope": "container",
        "provider": "azure",
        "account": SUBSCRIPTION,
        "region": "westeurope",
        "cluster": ClusterRef(AKS, "uid-of-kube-system", "shop"),
        "resource": ResourceRef("apps", "Deployment", "prod", "web", container="app", labels={"team": "web"}),
        "message": "it is not",
        "remediation": "mend it",
        "occurrences": 3,
        "observed_at": NOW,
    }
    return Finding(**{**values, **fields})


def event_of(**fields):
    [event] = read(line(finding_event(finding(**fields))).decode())
    return event


def test_whole_mapping():
    event = event_of(
        reason="bad_x",
        question="image-scanning",
        assessment_keys=("k1",),
        controls=("Manage access", "Restrict networks"),
        refs=(Ref("cis-aks", "1.8", "4.2.1"), Ref("cis-aks", "1.8", "4.2.2"), Ref("nsa", None, "Pods")),
        evidence=(Evidence("spec.x", "true"), Evidence("spec.y", "not set", "false")),
        parameters=(ParameterValue("min", "3", "config"),),
        tags={"team": "shop"},
        pods=("web-1", "web-2"),
        previous_ids=("kp1_old",),
    )
    assert event["time"] == MS
    assert event["message"] == "Deployment prod/web [app]: it is not"
    assert event["cloud"] == {
        "provider": "Azure",
        "region": "westeurope",
        "account": {"uid": SUBSCRIPTION, "type_id": 13, "type": "Azure Subscription"},
    }
    assert event["metadata"] == {
        "version": "1.5.0",
        "profiles": ["cloud"],
        "product": {"name": "kubeposture", "vendor_name": "kubeposture", "version": "0.1.0"},
        "uid": str(uuid.uuid5(uuid.UUID(SCAN), "kp1_" + "0a" * 16)),
        "correlation_uid": SCAN,
        "event_code": "k8s-x",
        "log_name": "kubeposture",
        "original_time": "2026-09-01T12:30:15Z",
    }
    assert event["finding_info"] == {
        "uid": "kp1_" + "0a" * 16,
        "title": "X should be",
        "desc": "it is not",
        "types": ["data_plane"],
        "analytic": {"type_id": 1, "type": "Rule", "uid": "k8s-x", "name": "X should be"},
        "last_seen_time": MS,
        "tags": [{"name": "team", "value": "shop"}],
    }
    assert event["compliance"] == {
        "control": "k8s-x",
        "category": "Manage access, Restrict networks",
        "standards": ["cis-aks 1.8", "nsa"],
        "requirements": ["cis-aks-1.8:4.2.1", "cis-aks-1.8:4.2.2", "nsa:Pods"],
        "status_id": 3,
        "status": "Fail",
        "status_code": "fail",
        "status_details": ["it is not", "spec.x: true", "spec.y: not set (default: false)"],
        "control_parameters": [{"name": "min", "value": "3"}],
    }
    assert event["remediation"] == {"desc": "mend it"}
    assert event["resources"] == [
        {
            "uid": f"{AKS}|apps/Deployment/prod/web",
            "name": "web",
            "type": "Deployment",
            "group": {"name": "apps"},
            "namespace": "prod",
            "region": "westeurope",
            "labels": ["team=web"],
            "data": {"container": "app"},
        },
        {
            "uid": AKS,
            "uid_alt": "uid-of-kube-system",
            "name": "shop",
            "type": "Microsoft.ContainerService/managedClusters",
            "region": "westeurope",
        },
    ]
    assert event["unmapped"] == {
        "scope": "container",
        "occurrences": 3,
        "reason": "bad_x",
        "question": "image-scanning",
        "assessment_keys": ["k1"],
        "previous_ids": ["kp1_old"],
        "parameter_origins": ["min=config"],
        "pods": ["web-1", "web-2"],
    }


@pytest.mark.parametrize(
    ("severity", "id", "name"),
    [
        (Severity.INFO, 1, "Informational"),
        (Severity.LOW, 2, "Low"),
        (Severity.MEDIUM, 3, "Medium"),
        (Severity.HIGH, 4, "High"),
        (Severity.CRITICAL, 5, "Critical"),
    ],
)
def test_severity(severity, id, name):
    event = event_of(severity=severity)
    assert (event["severity_id"], event["severity"]) == (id, name)


STATES = [None, "new", "open", "reopened", "resolved"]
VERDICTS = {
    Status.PASS: (1, "Pass"),
    Status.FAIL: (3, "Fail"),
    Status.UNKNOWN: (2, "Warning"),
    Status.ERROR: (99, "Error"),
    Status.NOT_APPLICABLE: (99, "Not Applicable"),
}
PROGRESS = {"new": (1, 1), "open": (2, 2), "reopened": (1, 1), "resolved": (3, 4)}


def test_every_status_is_mapped():
    assert set(VERDICTS) == set(Status)


@pytest.mark.parametrize(("status", "state", "exempted"), list(itertools.product(VERDICTS, STATES, [False, True])))
def test_status(status, state, exempted):
    before = NOW - timedelta(days=3)
    lifecycle = Lifecycle(state, before, NOW, None, None) if state else None
    note = ExemptionNote("why", "", None) if exempted else None
    event = event_of(status=status, lifecycle=lifecycle, exemption=note)
    clean = status in (Status.PASS, Status.NOT_APPLICABLE)
    activity, progress = PROGRESS[state] if state else (1, 4 if clean else 1)
    assert event["activity_id"] == activity
    assert event["status_id"] == (3 if exempted and progress != 4 else progress)
    verdict = VERDICTS[Status.PASS] if (status, state) == (Status.FAIL, "resolved") else VERDICTS[status]
    assert (event["compliance"]["status_id"], event["compliance"]["status"]) == verdict
    assert event["compliance"]["status_code"] == status.value
    assert event["finding_info"].get("first_seen_time") == (MS - 3 * 86_400_000 if state else None)
    assert event.get("status_detail") == ("exempted: why" if exempted else None)


def test_why_it_was_closed():
    closed = Lifecycle("resolved", NOW, NOW, NOW, "the object is gone")
    assert event_of(lifecycle=closed)["status_detail"] == "the object is gone"


RESOURCES = {
    "in a file": (
        {"provider": "files", "account": None, "region": None, "cluster": None},
        ResourceRef("", "Pod", None, "web", source=SourceRef("a/b.yaml", 7, 2)),
        "a/b.yaml|Pod//web",
    ),
    "of an account": (
        {"provider": "aws", "account": "111122223333", "region": "eu-west-1", "cluster": None},
        ResourceRef("", "images", None, "*"),
        "aws:111122223333:eu-west-1|images//*",
    ),
    "of a source": (
        {"provider": "dockerhub", "account": None, "region": None, "cluster": None},
        ResourceRef("", "images", None, "*"),
        "dockerhub|images//*",
    ),
    "an image": ({"cluster": None}, ResourceRef("", "Image", None, "r.io/web@sha256:0a"), "r.io/web@sha256:0a"),
    "in Azure": (
        {"cluster": None},
        ResourceRef("Microsoft.ContainerRegistry", "registries", None, "x", cloud_id="/subscriptions/1/R/X"),
        "/subscriptions/1/r/x",
    ),
    "in AWS": (
        {"provider": "aws", "cluster": None},
        ResourceRef("", "AWS::ECR::Repository", None, "X", cloud_id="arn:aws:ecr:X"),
        "arn:aws:ecr:X",
    ),
}


@pytest.mark.parametrize(("fields", "resource", "uid"), RESOURCES.values(), ids=RESOURCES)
def test_resource(fields, resource, uid):
    event = event_of(**fields, resource=resource)
    [thing] = event["resources"]
    assert thing["uid"] == uid
    assert ("cloud" in event) == (fields.get("provider", "azure") in ("azure", "aws"))
    assert thing.get("uid_alt") == (resource.cloud_id if resource.cloud_id and uid != resource.cloud_id else None)


@pytest.mark.parametrize(
    ("provider", "id", "type"),
    [
        ("azure", AKS, "Microsoft.ContainerService/managedClusters"),
        ("azure", ARC, "Microsoft.Kubernetes/connectedClusters"),
        ("aws", "arn:aws:eks:eu-west-1:111122223333:cluster/shop", "AWS::EKS::Cluster"),
        ("gcp", "//container.googleapis.com/projects/p/locations/l/clusters/c", "container.googleapis.com/Cluster"),
        ("kubernetes", "3f6b7a52", "Kubernetes Cluster"),
        ("bundle", "3f6b7a52", "Kubernetes Cluster"),
    ],
)
def test_cluster_type(provider, id, type):
    event = event_of(provider=provider, cluster=ClusterRef(id, None, "shop"))
    assert event["resources"][1]["type"] == type


def test_second_look_that_is_worse_is_an_update_of_its_own(folder):
    first, second = finding(status=Status.UNKNOWN), finding(status=Status.FAIL)
    events = [finding_event(first), finding_event(second, again=True)]
    assert [e["activity_id"] for e in events] == [1, 2]
    assert len({e["finding_info"]["uid"] for e in events}) == 1
    assert len({e["metadata"]["uid"] for e in events}) == 2


@pytest.mark.parametrize("time", [NOW.replace(tzinfo=None), NOW.astimezone(), NOW.replace(microsecond=999_600)])
def test_time_is_in_milliseconds_of_utc(time):
    assert event_of(observed_at=time)["time"] in (MS, MS + 1000)


@given(st.text())
def test_event_uid_is_a_uuid5(key):
    key = key.encode("utf-8", "ignore").decode()
    assert uuid5(SCAN, key) == str(uuid.uuid5(uuid.UUID(SCAN), key))


# -- size and hostile text

HOSTILE = ("x" * 40_000, "\U000e0001" * 600, '"\\' * 600, "\u202e\x1b[2J", "\ud800", "\U0001f600" * 9000)
TEXTS = st.one_of(st.text(max_size=20), st.sampled_from(HOSTILE))


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS, TEXTS, st.sampled_from([0, 1, 60]))
def test_hostile_finding(name, text, id, many):
    labels = {f"{i}{text[:500]}": text[:500] for i in range(many)}
    hostile = finding(
        title=text,
        message=text,
        remediation=text,
        reason=text,
        account=id,
        region=text,
        cluster=ClusterRef(id, id, name),
        resource=ResourceRef(text, text, name, name, text, id, labels, text, SourceRef(name, 1, 1)),
        evidence=tuple(Evidence(text, name, text) for _ in range(many)),
        refs=tuple(Ref(text[:500], None, str(i)) for i in range(many)),
        parameters=tuple(ParameterValue(name, text, "config") for _ in range(many)),
        controls=(text,) * many,
        assessment_keys=(text,) * many,
        tags={str(i): text for i in range(many)},
        pods=(name,) * 10,
        exemption=ExemptionNote(text, name, text),
    )
    [event] = read(line(finding_event(hostile)).decode())
    assert event["finding_info"]["uid"] == hostile.id
    assert event["compliance"]["status_id"] == 3
    assert event["metadata"]["event_code"] == "k8s-x"


def test_what_is_too_long_is_cut_and_said_to_be():
    evidence = tuple(Evidence(f"spec[{i}]", "x" * 300) for i in range(200))
    event = event_of(evidence=evidence)
    assert event["unmapped"]["truncated"] is True
    assert event["unmapped"]["occurrences"] == 3
    assert event["compliance"]["status_details"][:2] == ["it is not", f"spec[0]: {'x' * 300}"]
    assert len(event["compliance"]["status_details"]) == 50
    assert "truncated" not in event_of(evidence=evidence[:20])["unmapped"]


def test_ids_are_whole_whatever_is_cut():
    given = {"resource": ResourceRef("", "Pod", "a", "x" * 200), "check": "k8s-" + "y" * 200}
    short, long = event_of(**given), event_of(**given, evidence=(Evidence("😀" * 900, "😀" * 900),) * 90)
    assert len(long["compliance"]["status_details"]) == 10
    assert len(long["resources"][0]["name"]) == 150
    for event in (short, long):
        assert event["resources"][0]["uid"] == f"{AKS}|Pod/a/{'x' * 200}"
        assert event["metadata"]["event_code"] == event["compliance"]["control"] == given["check"]


def test_long_ids_stay_apart():
    one, other = "/" + "x" * 600 + "a", "/" + "x" * 600 + "b"
    assert bounded(one) != bounded(other)
    assert len(bounded(one)) == 512
    assert bounded("short") == "short"


@pytest.mark.parametrize("char", ["\x00", "\x1b", "\x7f", "\x85", "\u202e", "\u200b", "\U000e0041", "\u2028"])
def test_what_does_not_show_is_escaped(char):
    event = event_of(message=f"a{char}b", resource=ResourceRef("", "Pod", "a", f"x{char}"))
    shown = char.encode("unicode_escape").decode()
    assert event["finding_info"]["desc"] == f"a{shown}b"
    assert event["resources"][0]["uid"].endswith(f"x{shown}")


def test_what_shows_stays_as_it_is():
    text = 'C:\\new\\table "quoted" Größe 日本 😀'
    assert event_of(message=text)["finding_info"]["desc"] == text


# -- the end of a scan


def cluster(name="shop", state=PlaneState.COMPLETE, **fields):
    given = {"id": AKS, "id_source": "cloud", "provider": "azure", "account": SUBSCRIPTION, "region": "westeurope",
             "control_plane": state, "data_plane": state, "observed_at": NOW, "name": name}  # fmt: skip
    return Cluster(**{**given, **fields})


def gap(what="pods", **fields):
    return Gap(**{"what": what, "reason": GapReason.FORBIDDEN, "detail": "HTTP 403", **fields})


def ended(*clusters, gaps=(), accounts=(), complete=False, reasons=(), former=None):
    read_accounts, regions = coverage(accounts)
    tally = Tally()
    for row in clusters:
        tally.add(row.id, "k8s-x", Severity.HIGH, Status.FAIL, 2)
    ending = Ending(
        scan=ScanInfo(SCAN, NOW - timedelta(seconds=90), NOW, "recommended", complete, list(reasons), []),
        clusters=list(clusters),
        gaps=list(gaps),
        counts=Counts(read=7, judged=5, skipped=2),
        cluster_counts={id(row): Counts(read=3) for row in clusters},
        accounts=read_accounts,
        regions=regions,
        former=former or {},
        summary=tally.summary(),
        exit_code=3,
        gate="",
    )
    return read(b"".join(map(line, ending_events(ending))).decode())


def test_end_of_a_complete_scan():
    row = cluster(images=ImageCounts(running=2), version="1.34")
    one, whole = ended(row, complete=True, former={"old": row.ref})
    assert (one["status"], one["severity"], one["total"], one["num_detections"]) == ("Success", "Informational", 3, 2)
    assert one["cloud"]["account"]["uid"] == SUBSCRIPTION
    assert one["unmapped"]["cluster"]["version"] == "1.34"
    assert one["unmapped"]["images"]["running"] == 2
    assert one["unmapped"]["former_uids"] == ["old"]
    assert (whole["status"], whole["duration"], whole["total"], whole["num_skipped_items"]) == ("Success", 90_000, 7, 2)
    assert (whole["start_time"], whole["end_time"]) == (MS - 90_000, MS)
    assert "num_files" not in whole
    assert whole["scan"]["uid"] == SCAN


@pytest.mark.parametrize(
    ("state", "unread", "activity", "status"),
    [
        (PlaneState.COMPLETE, None, "Completed", "Success"),
        (PlaneState.PARTIAL, "Medium", "Completed", "Partial"),
        (PlaneState.NOT_READ, "High", "Error", "Failure"),
        (PlaneState.NOT_ASKED, None, "Completed", "Not Asked"),
    ],
)
def test_each_cluster_ends_with_its_state(state, unread, activity, status):
    *before, one, _ = ended(cluster(state=state))
    assert (one["activity_name"], one["status"]) == (activity, status)
    assert [(e["severity"], e["compliance"]["status_id"], e["status"]) for e in before] == (
        [(unread, 2, "New")] if unread else []
    )


@pytest.mark.parametrize(
    ("complete", "reasons", "status"),
    [(False, [], "Partial"), (True, [], "Success"), (False, ["nothing_read"], "Failure")],
)
def test_an_interrupted_scan_is_cancelled(complete, reasons, status):
    *_, whole = ended(cluster(), complete=complete, reasons=["interrupted", *reasons])
    assert (whole["activity_id"], whole["activity_name"], whole["status"]) == (3, "Cancelled", status)
    assert whole["unmapped"]["exit_reasons"][0] == "interrupted"


def test_everything_that_was_not_read_is_told_in_order():
    row, other = cluster(state=PlaneState.PARTIAL), cluster("b", PlaneState.NOT_READ, id="b", provider="kubernetes")
    account = Account(id="111122223333", provider="aws", name="Production", region="eu-west-1", refused=True)
    source = Account(id="", provider="images", name="xray")
    given = [
        (row, gap(permission="list pods", namespace="prod")),
        (account, gap("clusters")),
        (source, gap("xray")),
        (None, gap("documents", detail="a.yaml: no YAML")),
        (None, gap("documents", detail="b.yaml: no YAML")),
        (None, gap("documents", detail="b.yaml: no YAML")),
    ]
    events = ended(row, other, gaps=given, accounts=[account])
    assert [e["metadata"]["event_code"] for e in events] == [
        *["coverage-gap"] * 5,
        *["coverage-account"] * 2,
        *["coverage-cluster"] * 4,
        "scan",
    ]
    first, of_account, of_source = events[:3]
    assert first["resources"][0] == {"uid": f"{AKS}|pods/prod/*", "name": "*", "type": "pods", "namespace": "prod"}
    assert first["resources"][1]["uid"] == AKS
    assert first["remediation"] == {"desc": "Grant list pods."}
    assert first["message"] == "shop: pods in namespace prod could not be read: HTTP 403; needed: list pods"
    assert of_account["cloud"]["account"]["uid"] == "111122223333"
    assert "cloud" not in of_source
    assert [(e["resources"][0]["uid"], e["severity"]) for e in events[5:7]] == [
        ("aws:111122223333:eu-west-1", "High"),
        ("images:xray", "Medium"),
    ]
    planes = ["control plane: partial", "data plane: partial"]
    assert events[7]["compliance"]["status_details"] == [*planes, given[0][1].sentence]
    assert events[8]["compliance"]["status_details"] == [plane.replace("partial", "not_read") for plane in planes]
    again = ended(row, other, gaps=given, accounts=[account])
    assert [e["metadata"]["uid"] for e in again] == [e["metadata"]["uid"] for e in events]


def test_a_cloud_without_an_account_is_no_account():
    owner = Account(id="", provider="azure", name="azure")
    first, second = ended(gaps=[(owner, gap("images"))])[:2]
    assert first["cloud"] == second["cloud"] == {"provider": "Azure"}
    assert [e["resources"][0]["uid"] for e in (first, second)] == ["azure:azure|images//*", "azure:azure"]


def test_a_gap_keeps_its_uid_whatever_its_detail():
    row = cluster(state=PlaneState.PARTIAL)
    uids = {ended(row, gaps=[(row, gap(detail=text))])[0]["finding_info"]["uid"] for text in ("request 1", "request 2")}
    assert len(uids) == 1
    assert ended(row, gaps=[(row, gap("jobs"))])[0]["finding_info"]["uid"] not in uids


def test_all_that_is_refused_in_a_namespace_is_one_event():
    row = cluster(state=PlaneState.PARTIAL)
    refused = [gap(what, namespace="a", permission=f"list {what}") for what in ("pods", "jobs", "pods")]
    [found, other, *_] = ended(row, gaps=[(row, each) for each in (*refused, gap("pods", namespace="b"))])
    assert found["message"] == "shop: jobs, pods in namespace a could not be read"
    assert found["resources"][0] == {"uid": f"{AKS}|lists/a/*", "name": "*", "type": "lists", "namespace": "a"}
    assert found["remediation"] == {"desc": "Grant list jobs, list pods."}
    assert found["unmapped"]["kinds"] == ["jobs", "pods"]
    assert other["resources"][0]["type"] == "pods"
    [fewer, *_] = ended(row, gaps=[(row, refused[0])])
    assert fewer["finding_info"]["uid"] == found["finding_info"]["uid"] != other["finding_info"]["uid"]


def test_what_is_closed_on_purpose_is_suppressed_and_hides_nothing():
    account = Account(id="111122223333", provider="aws", name="Production", refused=True)
    given = [(account, gap("regions", by_policy=True)), (account, gap("clusters"))]
    events = [e for e in ended(gaps=given, accounts=[account]) if e["class_uid"] == 2003]
    assert [(e["metadata"]["event_code"], e["status"], e["severity"]) for e in events] == [
        ("coverage-gap", "Suppressed", "Informational"),
        ("coverage-gap", "New", "Medium"),
        ("coverage-account", "Suppressed", "Informational"),
        ("coverage-account", "New", "High"),
    ]
    assert all(e["compliance"]["status_id"] == 2 for e in events)


@settings(max_examples=50, deadline=None)
@given(TEXTS, TEXTS)
def test_hostile_end(text, name):
    row = cluster(name, PlaneState.NOT_READ, id=text, uid=text, account=text, region=name, version=text)
    account = Account(id=text, provider="aws", name=name, refused=True)
    given = [(row, gap(text, detail=text, permission=name, namespace=name)), (account, gap(text, detail=name))]
    assert len(ended(row, gaps=given * 20, accounts=[account], former={name: row.ref})) == 2 + 1 + 1 + 1 + 1


def test_the_schema_catches_what_it_should():
    """That the oracle is one."""
    good = event_of()
    for change in ({"status_id": 42}, {"extra": 1}, {"type_uid": 200401}, {"severity_id": "4"}):
        for name, profile in itertools.product(VERSIONS, [("cloud",)]):
            assert not validator(name, 2003, profile).is_valid({**good, **change})
    without = {key: value for key, value in good.items() if key != "cloud"}
    assert not validator("1.8.0", 2003, ("cloud",)).is_valid(without)
    assert msgspec.json.decode(line(finding_event(finding()))) == good
