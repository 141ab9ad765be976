"""Nights over whole estates: what sinks are told of AKS, EKS, GKE, registries and accounts."""

import json
import os
import time
from collections import Counter

import pytest
from apiserver import status
from armserver import ArmServer
from aws_data import sample_estate as aws_estate
from awsserver import AwsServer
from azure_data import DEV
from azure_data import sample_estate as azure_estate
from cli import kubeposture
from gcp_data import PROD as PROJECT
from gcp_data import sample_estate as google_estate
from gcpserver import GcpServer
from test_aks import PRIVILEGED, alone, collect_kubeconfig, entra_cluster, inside, serve, servers  # noqa: F401 - fixtures
from test_telling import Receiver

from scanner.cli import deliver

CREATE, UPDATE, CLOSE = 1, 2, 3
LOCAL_ACCOUNTS = "azure-aks-local-accounts"
VERDICTS = {"fail": 3, "unknown": 2, "error": 99}
SEVERITIES = {"info": 1, "low": 2, "medium": 3, "high": 4, "critical": 5}


@pytest.fixture
def receiver(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kubeposture.yaml").write_text("sinks: [{webhook: {url: 'https://127.0.0.1:1'}}]")
    receiver = Receiver()
    monkeypatch.setattr(deliver, "_open", lambda sink: receiver)
    return receiver


@pytest.fixture
def aks(monkeypatch):
    with ArmServer(azure_estate()) as arm:
        _set(monkeypatch, arm.environment)
        yield ("aks", "--arm-endpoint", arm.url), lambda: arm.deny("/registries", subscription=DEV), arm.heal


@pytest.fixture
def eks(monkeypatch):
    with AwsServer(aws_estate(), moto=False) as aws:
        _set(monkeypatch, aws.environment)
        yield ("eks",), lambda: aws.deny("ecr:*"), aws.heal


@pytest.fixture
def gke(tmp_path, monkeypatch):
    with GcpServer(google_estate()) as gcp:
        endpoints = " ".join(f"{service}={url}" for service, url in gcp.endpoints.items())
        key = str(gcp.key_file(tmp_path))
        _set(monkeypatch, {"GOOGLE_APPLICATION_CREDENTIALS": key, "KUBEPOSTURE_GCP_ENDPOINTS": endpoints})
        refuse = lambda: gcp.deny("artifactregistry.repositories.list", PROJECT)  # noqa: E731
        yield ("gke", "--project", PROJECT), refuse, gcp.heal


def _set(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def told(receiver, *args):
    """The report of one night."""
    receiver.events.clear()
    result = kubeposture("scan", *args, "-q", "-o", "json", "--history", "h.db", "--deliver")
    assert result.stdout, result.stderr
    return json.loads(result.stdout)


def findings(receiver):
    return [e for e in receiver.events if e["class_uid"] == 2003]


def activities(receiver):
    return [(e["finding_info"]["uid"], e["activity_id"]) for e in findings(receiver)]


@pytest.mark.parametrize("cloud", ["aks", "eks", "gke"])
def test_an_estate_is_told_once_and_a_refusal_closes_nothing(receiver, request, cloud):
    args, refuse, allow = request.getfixturevalue(cloud)
    args = (*args, "--planes", "control")
    report = told(receiver, *args)
    listed = {f["id"]: f for f in report["findings"]}
    events = {e["finding_info"]["uid"]: e for e in findings(receiver)}
    of_findings = {uid: event for uid, event in events.items() if uid.startswith("kp1_")}
    lists = {id for id, f in listed.items() if f["resource"]["name"] == "*"}  # told as what could not be read
    assert of_findings.keys() == listed.keys() - lists
    assert len({f["check"] for f in listed.values()}) > 5
    for uid, event in of_findings.items():
        finding = listed[uid]
        assert event["compliance"]["status_id"] == VERDICTS[finding["status"]]
        assert event["severity_id"] == SEVERITIES[finding["severity"]]
        assert (event["activity_id"], event["status"]) == (CREATE, "New")
        assert event["cloud"]["account"]["uid"] == finding["account"]
        assert event["unmapped"]["baseline"] is True
    told(receiver, *args)
    assert findings(receiver) == []
    refuse()
    told(receiver, *args)
    assert {e["activity_id"] for e in findings(receiver)} == {CREATE}
    assert {e["metadata"]["event_code"] for e in findings(receiver)} <= {"coverage-gap", "coverage-account"}
    refused = Counter(e["finding_info"]["uid"] for e in findings(receiver))
    told(receiver, *args)
    assert findings(receiver) == []
    allow()
    told(receiver, *args)
    assert Counter(e["finding_info"]["uid"] for e in findings(receiver)) == refused
    assert {e["activity_id"] for e in findings(receiver)} == {CLOSE}
    told(receiver, *args)
    assert findings(receiver) == []


def test_a_bundle_of_another_plane_closes_no_gap(receiver, gke, tmp_path):
    args, refuse, allow = gke

    def night(planes):
        bundle = tmp_path / f"{planes}-{time.monotonic_ns()}"
        kubeposture("collect", *args, "--planes", planes, "-o", bundle)
        receiver.events.clear()
        kubeposture("evaluate", bundle, "-o", "json", "--history", "h.db", "--deliver")
        return {uid: activity for uid, activity in activities(receiver) if uid.startswith("kpc1_")}

    refuse()
    refused = night("control")
    assert set(refused.values()) == {CREATE}
    allow()
    time.sleep(1.1)  # times are in seconds
    assert CLOSE not in night("data").values()
    assert refused.keys() <= {uid for uid, activity in night("control").items() if activity == CLOSE}


@pytest.mark.parametrize("action", ["eks:DescribeCluster", "eks:List*"])
def test_a_cluster_of_a_cloud_that_cannot_be_described_is_over_the_night_after(receiver, monkeypatch, action):
    def night():
        told(receiver, "eks", "--planes", "control")
        return {uid: activity for uid, activity in activities(receiver) if uid.startswith("kpc1_")}

    with AwsServer(aws_estate(), moto=False) as aws:
        _set(monkeypatch, aws.environment)
        night()
        aws.deny(action)
        lost = night()
        assert set(lost.values()) == {CREATE}
        assert night() == {}
        aws.heal()
        assert night() == dict.fromkeys(lost, CLOSE)
        assert night() == {}


def test_one_cluster_by_its_cloud_its_kubeconfig_and_a_bundle(receiver, serve, inside, tmp_path, monkeypatch):  # noqa: F811
    arm, api = serve(entra_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    args = ("-e", "*-image-vulns")
    told(receiver, "aks", "--arm-endpoint", arm.url, *args)
    first = {e["finding_info"]["uid"] for e in findings(receiver)}
    assert PRIVILEGED in {e["metadata"]["event_code"] for e in findings(receiver)}
    config = api.kubeconfig(tmp_path / "config")
    bundle = collect_kubeconfig(config, tmp_path / "inside")
    told(receiver, "kubeconfig", "--kubeconfig", config, *args)
    assert findings(receiver) == []
    kubeposture("evaluate", bundle, "-o", "json", "--history", "h.db", "--deliver", *args)
    assert findings(receiver) == []
    weak = entra_cluster()
    weak["properties"]["disableLocalAccounts"] = False
    other = serve(weak)
    other.estate.connect("aks-entra", api.url, api.tls.ca)
    told(receiver, "aks", "--arm-endpoint", other.url, *args)
    assert [(e["metadata"]["event_code"], e["activity_id"]) for e in findings(receiver)] == [(LOCAL_ACCOUNTS, CREATE)]
    [created] = findings(receiver)
    _set(monkeypatch, arm.environment)
    told(receiver, "aks", "--arm-endpoint", arm.url, *args)
    assert [(e["metadata"]["event_code"], e["activity_id"]) for e in findings(receiver)] == [(LOCAL_ACCOUNTS, CLOSE)]
    [closed] = findings(receiver)
    assert closed["cloud"] == created["cloud"]
    assert [(r["uid"], r.get("uid_alt")) for r in closed["resources"]] == [
        (r["uid"], r.get("uid_alt")) for r in created["resources"]
    ]
    (tmp_path / "h.db").unlink()
    told(receiver, "kubeconfig", "--kubeconfig", config, *args)
    inside_it = {e["finding_info"]["uid"] for e in findings(receiver)}
    assert inside_it < first
    assert {e["unmapped"]["scope"] for e in findings(receiver)} == {"container", "workload"}


def test_a_night_without_credentials_is_over_the_night_after(receiver, aks, monkeypatch):
    args, *_ = aks
    told(receiver, *args, "--planes", "control")
    with monkeypatch.context() as patch:
        for name in tuple(os.environ):
            if name.startswith(("AZURE_", "IDENTITY_")):
                patch.delenv(name)
        told(receiver, *args, "--planes", "control")
    lost = Counter(e["finding_info"]["uid"] for e in findings(receiver))
    assert {e["activity_id"] for e in findings(receiver)} == {CREATE}
    assert "High" in {e["severity"] for e in findings(receiver)}
    told(receiver, *args, "--planes", "control")
    assert {e["activity_id"] for e in findings(receiver)} == {CLOSE}
    assert Counter(e["finding_info"]["uid"] for e in findings(receiver)) == lost


@pytest.mark.parametrize("first", ["aks", "kubeconfig"])
def test_a_cloud_cluster_that_hides_its_identity_is_a_gap(receiver, serve, inside, tmp_path, first):  # noqa: F811
    arm, api = serve(entra_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    args = ("-e", "*-image-vulns")
    if first == "kubeconfig":
        told(receiver, "kubeconfig", "--kubeconfig", api.kubeconfig(tmp_path / "config"), *args)
    told(receiver, "aks", "--arm-endpoint", arm.url, *args)
    api.inject(r"^/api/v1/namespaces/kube-system$", status(403))
    report = told(receiver, "aks", "--arm-endpoint", arm.url, *args)
    assert [(e["metadata"]["event_code"], e["activity_id"]) for e in findings(receiver)] == [("coverage-gap", CREATE)]
    assert report["scan"]["exit_reasons"] == ["incomplete"]
    told(receiver, "aks", "--arm-endpoint", arm.url, *args)
    assert findings(receiver) == []
    api._rules.clear()
    told(receiver, "aks", "--arm-endpoint", arm.url, *args)
    assert [(e["metadata"]["event_code"], e["activity_id"]) for e in findings(receiver)] == [("coverage-gap", CLOSE)]
