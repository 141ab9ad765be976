"""kubeposture scan all: every target of the configuration file into one report."""

import json

import gcp_data
import pytest
import yaml
from apiserver import ApiServer, tls
from armserver import ArmServer
from azure_data import PROD, Estate, Subscription, entra_cluster
from cli import kubeposture
from gcpserver import GcpServer

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"containers": [{"name": "web", "image": "r.io/web:1", "securityContext": {"privileged": True}}]},
}
SYSTEM = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system", "uid": "u-1"}}
CLOUDS = ("-c", "azure-aks-local-accounts", "-c", "gcp-gke-legacy-abac")
CHECKS = ("-c", "k8s-privileged-container", "-c", "azure-aks-local-accounts")


@pytest.fixture
def estate(tmp_path, monkeypatch):
    """A cluster that Azure lists and a kubeconfig leads to, and a manifest."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/pod.yaml").write_text(yaml.safe_dump(POD))
    running = {**POD, "status": {"phase": "Running"}}
    listed = entra_cluster("shop")
    listed["properties"]["disableLocalAccounts"] = False
    with (
        ApiServer([SYSTEM, running], token="t", tls=tls()) as api,
        ArmServer(Estate.of(Subscription(PROD, "Production", clusters=[listed]))) as arm,
    ):
        for name, value in arm.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("KUBEPOSTURE_ARM_ENDPOINT", arm.url)
        api.kubeconfig(tmp_path / "config", context="ctx")
        yield arm, api


def run(targets, *args):
    with open("kubeposture.yaml", "w") as file:
        yaml.safe_dump({"targets": targets}, file)
    result = kubeposture("scan", "all", "-o", "json", *args)
    return result, json.loads(result.stdout) if result.stdout else None


def test_one_report_of_every_target(estate):
    targets = [
        {"aks": {"planes": "control"}},
        {"kubeconfig": {"contexts": ["ctx"], "kubeconfig": "config"}},
        {"manifests": {"paths": ["deploy"]}},
    ]
    result, report = run(targets, *CHECKS)
    assert result.code == 0, result.stderr
    found = {(f["check"], f["provider"], f["resource"]["name"]) for f in report["findings"]}
    assert found == {
        ("azure-aks-local-accounts", "azure", "shop"),
        ("k8s-privileged-container", "kubernetes", "web"),
        ("k8s-privileged-container", "files", "web"),
    }
    assert report["coverage"]["clusters"]["expected"] == 2


@pytest.fixture
def google(tmp_path, monkeypatch):
    """Two projects with a cluster each, in one of which it is bad."""
    good, bad = gcp_data.cluster("good"), gcp_data.cluster("bad", project=gcp_data.DEV, legacyAbac={"enabled": True})
    projects = gcp_data.Project(gcp_data.PROD, clusters=[good]), gcp_data.Project(gcp_data.DEV, clusters=[bad])
    with GcpServer(gcp_data.Estate.of(*projects)) as gcp:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcp.key_file(tmp_path))
        yield gcp


def test_one_report_of_two_clouds(estate, google):
    endpoints = [f"{service}={url}" for service, url in google.endpoints.items()]
    gke = {"planes": "control", "projects": [gcp_data.PROD, gcp_data.DEV], "gcp_endpoints": endpoints}
    targets = [{"aks": {"planes": "control"}}, {"gke": gke}]
    result, report = run(targets, *CLOUDS, "--status", "all")
    assert (result.code, report["gaps"]) == (0, [])
    found = {(f["check"], f["provider"], f["cluster"]["name"], f["status"]) for f in report["findings"]}
    assert found == {
        ("azure-aks-local-accounts", "azure", "shop", "fail"),
        ("gcp-gke-legacy-abac", "gcp", "good", "pass"),
        ("gcp-gke-legacy-abac", "gcp", "bad", "fail"),
    }
    assert report["coverage"]["accounts"] == {"expected": 3, "read": 3, "refused": 0}
    _, report = run([{"gke": {**gke, "clusters": ["goo*"], "tags": ["team=platform"]}}])
    assert [c["name"] for c in report["clusters"]] == ["good"]


def test_a_cloud_that_refuses_leaves_the_other_judged(estate, google, monkeypatch):
    monkeypatch.setenv("KUBEPOSTURE_GCP_ENDPOINTS", " ".join(f"{s}={url}" for s, url in google.endpoints.items()))
    google.deny("container.clusters.list")
    result, report = run([{"aks": {"planes": "control"}}, {"gke": {"planes": "control"}}], *CLOUDS)
    assert (result.code, {c["name"] for c in report["clusters"]}) == (3, {"shop"})
    assert {(g["provider"], g["account"]) for g in report["gaps"]} == {("gcp", gcp_data.PROD)}


def test_bundles_join_what_the_cloud_lists(estate):
    arm, api = estate
    arm.estate.connect("shop", api.url, api.tls.ca)
    kubeposture("collect", "kubeconfig", "--kubeconfig", "config", "-o", "inside.bundle", *CHECKS[:2])
    api.deny_cluster_wide("pods")
    _, report = run([{"aks": {}}, {"bundles": {"paths": ["inside.bundle"]}}], *CHECKS)
    (row,) = report["clusters"]
    assert (row["name"], row["uid"], row["control_plane"]) == ("shop", "u-1", "complete")
    assert {f["check"] for f in report["findings"] if f["status"] == "fail"} == set(CHECKS) - {"-c"}


def test_targets_that_no_selected_check_is_about_are_left_alone(estate):
    arm, _ = estate
    _, report = run([{"aks": {"planes": "control"}}, {"manifests": {"paths": ["deploy"]}}], *CHECKS[:2])
    assert {f["provider"] for f in report["findings"]} == {"files"}
    assert arm.requests == []


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([], "names none"),
        ([{}], "exactly one of the keys"),
        ([{"aks": {}, "manifests": {"paths": ["."]}}], "exactly one of the keys"),
        ([{"azure": {}}], "unknown field `azure`"),
        ([{"aks": {"subscription": ["a"]}}], "did you mean subscriptions?"),
        ([{"gke": {"folder": ["1"]}}], "unknown field `folder`"),
        ([{"gke": {"projects": ["A Project"]}}], "no id of a project"),
        ([{"manifests": {}}], "paths"),
        ([{"bundles": {"paths": ["absent.bundle"]}}], "absent.bundle: no such bundle"),
        ([{"kubeconfig": {"contexts": ["absent"], "kubeconfig": "config"}}], "absent"),
        ([{"aks": {"planes": "all"}}], "planes"),
    ],
)
def test_targets_that_cannot_be_used_are_usage_errors(estate, targets, said):
    result, _ = run(targets)
    assert (result.code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_no_check_for_any_target(estate):
    result, _ = run([{"manifests": {"paths": ["deploy"]}}], "-c", "azure-aks-rbac")
    assert result.code == 2
