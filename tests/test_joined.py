"""What several clouds and looks inside say together: `scan all` over AWS, Azure and API servers."""

import base64
import contextlib
import itertools
import json
import os

import pytest
import yaml
from apiserver import ApiServer, tls
from apiserver import status as refuse
from armserver import ArmServer
from armserver import status as arm_status
from aws_data import PROD as ACCOUNT
from aws_data import Account, eks, region_of
from aws_data import Estate as AwsEstate
from awsserver import AwsServer
from azure_data import (
    PROD,
    Estate,
    Subscription,
    connected_cluster,
    diagnostic_setting,
    entra_cluster,
    extension,
    kubernetes_versions,
    pricings,
)
from cli import kubeposture

ARC_EXTENSION = "aws-eks-defender-arc-extension"
POLICY = "aws-eks-network-policy"
PRIVILEGED = "k8s-privileged-container"
SENSOR = "microsoft-defender-collector-ds"
POD = {
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "a"},
    "spec": {"containers": [{"name": "web", "image": "r.io/web:1", "securityContext": {"privileged": True}}]},
    "status": {"phase": "Running"},
}
ARC_LIST = "/providers/Microsoft.Kubernetes/connectedClusters"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for name in tuple(os.environ):
        if name.startswith(("AWS_", "AZURE_", "BOTO", "KUBE", "IDENTITY_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def namespace(name, uid="n"):
    return {"kind": "Namespace", "metadata": {"name": name, "uid": uid}}


def daemon_set(name, namespace, *args, ready=1):
    containers = [{"name": "agent", "image": "r.io/agent:1", "args": list(args)}]
    return {
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": {"containers": containers}}},
        "status": {"numberReady": ready},
    }


def arc_config(name):
    data = {"AZURE_SUBSCRIPTION_ID": PROD, "AZURE_RESOURCE_GROUP": "RG-ARC", "AZURE_RESOURCE_NAME": name}
    metadata = {"name": "azure-clusterconfig", "namespace": "azure-arc"}
    return {"kind": "ConfigMap", "metadata": metadata, "data": data}


def connected(arc, *objects):
    """What is inside a cluster that is connected to Azure Arc."""
    return [namespace("azure-arc"), arc_config(arc), *objects]


class World:
    """EKS clusters, each with its API server, and a subscription with their Arc connections."""

    def __init__(self, start, monkeypatch, insides, arc):
        self.apis = {
            name: start(ApiServer([namespace("kube-system", f"uid-{name}"), namespace("a"), POD, *objects], tls=tls()))
            for name, objects in insides.items()
        }
        clusters = [
            eks(name, endpoint=api.url, certificateAuthority={"data": base64.b64encode(api.tls.ca).decode()})
            for name, api in self.apis.items()
        ]
        region = region_of(ACCOUNT, "ap-northeast-2", *clusters)
        account = Account(ACCOUNT, "Production", regions={region.name: region})
        account.onboard()
        self.aws = start(AwsServer(AwsEstate.of(account), moto=False))
        clusters = [connected_cluster(name, "eks") for name in arc]
        kinds = {name: f"microsoft.{kind}" for name, kind in arc.items()}
        installed = {c["id"]: [extension(c["id"], kinds[c["name"]])] for c in clusters}
        aks = entra_cluster("aks")
        subscription = Subscription(
            PROD,
            "Production",
            clusters=[aks],
            connected_clusters=clusters,
            extensions=installed,
            pricings=pricings("Containers"),
            versions={"koreacentral": kubernetes_versions()},
            diagnostics={aks["id"]: [diagnostic_setting(aks["id"])]},
        )
        self.arm = start(ArmServer(Estate.of(subscription)))
        for name, value in {**self.aws.environment, **self.arm.environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("KUBEPOSTURE_ARM_ENDPOINT", self.arm.url)

    def scan(self, *targets, checks=(ARC_EXTENSION,)):
        with open("kubeposture.yaml", "w") as file:
            yaml.safe_dump({"targets": list(targets) or [{"eks": {}}, {"aks": {"planes": "control"}}]}, file)
        return Scan("scan", "all", *[arg for check in checks for arg in ("-c", check)])


class Scan:
    def __init__(self, *args):
        result = kubeposture(*args, "--status", "all", "-o", "json")
        assert result.stdout, result.stderr
        self.code, self.report = result.code, json.loads(result.stdout)
        self.statuses = {f["id"]: f["status"] for f in self.report["findings"]}
        assert len(self.statuses) == len(self.report["findings"])

    def of(self, check):
        """By the name of the cluster, what the check says of it."""
        findings = [f for f in self.report["findings"] if f["check"] == check]
        return {f["resource"]["name"]: f["status"] for f in findings}


@pytest.fixture
def world(monkeypatch):
    with contextlib.ExitStack() as stack:
        yield lambda insides, arc=(): World(stack.enter_context, monkeypatch, insides, dict(arc))


DEFENDER, OTHER = "azuredefender.kubernetes", "policyinsights"


def test_one_report_of_two_clouds(world):
    found = world({"shop": [], "bank": []}).scan(checks=("*",))
    rows = {(c["provider"], c["name"]): (c["control_plane"], c["data_plane"]) for c in found.report["clusters"]}
    inside = ("complete", "complete")
    assert rows == {("aws", "bank"): inside, ("aws", "shop"): inside, ("azure", "aks"): ("complete", "not_asked")}
    providers = {f["provider"] for f in found.report["findings"] if f["category"] == "control_plane"}
    assert providers == {"aws", "azure"}
    assert found.report["coverage"]["clusters"]["expected"] == 3


def test_the_arc_connection_that_a_cluster_names_decides(world):
    insides = {
        "good": connected("good-arc"),
        "unconnected": [],
        "bare": connected("bare-arc"),
        "bad": connected("bad-arc"),
    }
    found = world(insides, {"good-arc": DEFENDER, "bare-arc": DEFENDER, "bad-arc": OTHER, "bad": DEFENDER}).scan()
    assert found.of(ARC_EXTENSION) == {"good": "pass", "unconnected": "fail", "bare": "pass", "bad": "fail"}
    assert {c["name"] for c in found.report["clusters"]} >= insides.keys()


def test_an_account_that_nobody_connected_to_defender_needs_no_extension(world):
    scene = world({"shop": []})
    scene.aws.estate.accounts[ACCOUNT].roles.clear()
    scene.aws.load(scene.aws.estate)
    for targets in ([{"eks": {}}], [{"eks": {}}, {"aks": {"planes": "control"}}]):
        assert scene.scan(*targets).of(ARC_EXTENSION) == {"shop": "not_applicable"}


def test_where_the_inside_is_closed_the_name_decides(world):
    scene = world({"good": [], "bad": [], "nameless": []}, {"good": DEFENDER, "bad": OTHER})
    for api in scene.apis.values():
        api.inject("/", refuse(401))
    assert scene.scan().of(ARC_EXTENSION) == {"good": "pass", "bad": "fail", "nameless": "unknown"}


def test_where_azure_is_closed_the_sensor_decides(world):
    sensor = [namespace("mdc"), daemon_set(SENSOR, "mdc")]
    idle = [namespace("mdc"), daemon_set(SENSOR, "mdc", ready=0)]
    insides = {"good": connected("a", *sensor), "helm": sensor, "bare": connected("c"), "bad": connected("d", *idle)}
    scene = world(insides, {"a": DEFENDER, "c": DEFENDER, "d": DEFENDER})
    scene.arm.inject(ARC_LIST, arm_status(403))
    expected = {"good": "pass", "helm": "fail", "bare": "fail", "bad": "fail"}
    assert scene.scan().of(ARC_EXTENSION) == expected
    assert scene.scan({"eks": {}}).of(ARC_EXTENSION) == expected


def test_a_sensor_that_may_not_be_looked_for_is_not_absent(world):
    scene = world({"shop": connected("a", namespace("mdc"), daemon_set(SENSOR, "mdc"))})
    scene.apis["shop"].inject("/apis/apps/v1/namespaces/mdc/daemonsets", refuse(403))
    found = scene.scan({"eks": {}})
    assert (found.code, found.of(ARC_EXTENSION)) == (4, {"shop": "unknown"})
    [gap] = found.report["gaps"]
    assert (gap["what"], gap["permission"]) == ("agents", "list daemonsets.apps in namespace mdc")


def test_a_connection_that_may_not_be_looked_for_is_not_absent(world):
    scene = world({"shop": connected("a")}, {"a": DEFENDER})
    scene.apis["shop"].inject("/api/v1/namespaces/azure-arc/configmaps", refuse(403))
    found = scene.scan()
    assert found.of(ARC_EXTENSION) == {"shop": "unknown"}
    assert "get configmaps in namespace azure-arc" in {g["permission"] for g in found.report["gaps"]}


def test_a_connection_that_two_clusters_claim_is_nobodys(world):
    found = world({"one": connected("arc"), "two": connected("arc")}, {"arc": DEFENDER}).scan()
    assert found.of(ARC_EXTENSION) == {"one": "unknown", "two": "unknown"}


def test_a_connection_of_another_platform_is_nobodys(world):
    sensor = [namespace("mdc"), daemon_set(SENSOR, "mdc")]
    scene = world({"shop": connected("factory", *sensor)}, {"factory": DEFENDER})
    factory = scene.arm.estate.subscriptions[PROD].connected_clusters[0]
    factory["properties"]["distribution"] = "k3s"
    scene.arm.load(scene.arm.estate)
    found = scene.scan()
    assert found.of(ARC_EXTENSION) == {"shop": "unknown"}
    assert {c["name"] for c in found.report["clusters"]} == {"shop", "factory", "aks"}


def test_a_connection_that_another_cluster_names_is_not_taken_by_name(world):
    scene = world({"owner": connected("shop"), "shop": []}, {"shop": DEFENDER})
    scene.apis["shop"].inject("/", refuse(401))
    assert scene.scan().of(ARC_EXTENSION) == {"owner": "pass", "shop": "unknown"}


def test_clusters_of_one_name_do_not_share_the_connection_of_their_name(world):
    scene = world({"shop": []}, {"shop": DEFENDER})
    scene.apis["shop"].inject("/", refuse(401))
    assert scene.scan().of(ARC_EXTENSION) == {"shop": "pass"}
    twin = eks("shop", region="us-east-1", endpoint=scene.apis["shop"].url)
    region = region_of(ACCOUNT, "us-east-1", twin)
    scene.aws.estate.accounts[ACCOUNT].regions[region.name] = region
    scene.aws.load(scene.aws.estate)
    found = scene.scan()
    assert [f["status"] for f in found.report["findings"] if f["check"] == ARC_EXTENSION] == ["unknown", "unknown"]


@pytest.mark.parametrize("order", [0, 1])
def test_two_looks_that_do_not_agree_are_both_not_believed(world, tmp_path, order):
    scene = world({"shop": []}, {"arc": DEFENDER})
    chosen = ("-c", ARC_EXTENSION, "-c", PRIVILEGED)
    assert kubeposture("collect", "eks", "-o", tmp_path / "before", *chosen).code == 0
    scene.apis["shop"].add(namespace("azure-arc"), arc_config("arc"))
    assert kubeposture("collect", "eks", "-o", tmp_path / "after", *chosen).code == 0
    found = Scan("evaluate", *sorted((tmp_path / "before", tmp_path / "after"), reverse=bool(order)), *chosen)
    assert found.of(ARC_EXTENSION) == {"shop": "unknown"}


@pytest.mark.parametrize("order", [0, 1])
def test_a_subscription_that_is_read_twice_counts_as_its_better_look(world, tmp_path, order):
    scene = world({"shop": connected("arc")}, {"arc": OTHER})
    assert kubeposture("collect", "eks", "-o", tmp_path / "eks", "-c", ARC_EXTENSION).code == 0
    assert kubeposture("collect", "aks", "-o", tmp_path / "a", "--planes", "control").code == 0
    scene.arm.inject("/extensions$", arm_status(403))
    assert kubeposture("collect", "aks", "-o", tmp_path / "b", "--planes", "control").code == 3
    azure = sorted((tmp_path / "a", tmp_path / "b"), reverse=bool(order))
    assert Scan("evaluate", tmp_path / "eks", *azure, "-c", ARC_EXTENSION).of(ARC_EXTENSION) == {"shop": "fail"}


def test_what_was_lost_with_a_bundle_is_not_absent(world, tmp_path):
    world({"shop": []})
    assert kubeposture("collect", "eks", "-o", tmp_path / "eks", "-c", ARC_EXTENSION).code == 0
    assert kubeposture("collect", "aks", "-o", tmp_path / "aks", "--planes", "control").code == 0
    (tmp_path / "half").write_bytes((tmp_path / "aks").read_bytes()[:300])
    found = Scan("evaluate", tmp_path / "eks", tmp_path / "half", "-c", ARC_EXTENSION, "--min-coverage", "1%")
    assert "incomplete" in found.report["scan"]["exit_reasons"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_bundles_say_the_same_in_any_order(world, tmp_path, order):
    scene = world(
        {"good": connected("good-arc"), "bad": connected("bad-arc")}, {"good-arc": DEFENDER, "bad-arc": OTHER}
    )
    whole = scene.scan({"eks": {}}, {"aks": {"planes": "control"}}, checks=(ARC_EXTENSION, PRIVILEGED, POLICY))
    inside = tmp_path / "config"
    scene.apis["bad"].kubeconfig(inside)
    chosen = ("-c", ARC_EXTENSION, "-c", PRIVILEGED, "-c", POLICY)
    bundles = [tmp_path / name for name in ("eks", "aks", "inside")]
    assert kubeposture("collect", "eks", "-o", bundles[0], *chosen).code == 0
    assert kubeposture("collect", "aks", "-o", bundles[1], "--planes", "control").code == 0
    assert kubeposture("collect", "kubeconfig", "--kubeconfig", inside, "-o", bundles[2], *chosen).code == 0
    found = Scan("evaluate", *[bundles[number] for number in order], *chosen)
    assert found.of(ARC_EXTENSION) == {"good": "pass", "bad": "fail"}
    assert found.statuses == whole.statuses
    assert found.report["summary"]["by_check"] == whole.report["summary"]["by_check"]


@pytest.mark.parametrize(
    "names", [("whole", "blind"), ("whole", "blind", "other"), ("other", "blind", "whole", "cloud")]
)
def test_reports_do_not_depend_on_the_order_of_what_they_rest_on(world, tmp_path, names):
    """Looks at one cluster that know more or less of it, and one at another."""
    scene = world({"shop": connected("arc"), "bank": []}, {"arc": DEFENDER})
    for name in ("shop", "bank"):
        scene.apis[name].kubeconfig(tmp_path / name)
    chosen = ("-c", PRIVILEGED, "-c", ARC_EXTENSION)

    def collect(name, *args):
        kubeposture("collect", *args, "-o", tmp_path / f"{name}.bundle", *chosen)

    collect("cloud", "eks")
    collect("whole", "kubeconfig", "--kubeconfig", tmp_path / "shop")
    collect("other", "kubeconfig", "--kubeconfig", tmp_path / "bank")
    scene.apis["shop"].inject("/api/v1/namespaces/kube-system$", refuse(403))
    collect("blind", "kubeconfig", "--kubeconfig", tmp_path / "shop")
    reports = set()
    for order in itertools.permutations(names):
        found = Scan("evaluate", *[tmp_path / f"{name}.bundle" for name in order], *chosen)
        rows = [(c["id"], c["uid"], c["control_plane"], c["data_plane"]) for c in found.report["clusters"]]
        gaps = sorted((g["what"], g["reason"]) for g in found.report["gaps"])
        summary = found.report["summary"]
        reports.add(
            repr((found.code, sorted(found.statuses.items()), rows, gaps, summary["by_check"], summary["score"]))
        )
    assert len(reports) == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("blind", ["cloud", "kubeconfig", "both"])
def test_a_cluster_keeps_its_finding_ids_whoever_may_read_its_uid(world, tmp_path, order, blind):
    """One of two ways into a cluster may not read the UID of kube-system, and so does not know which one it is."""
    scene = world({"shop": []})
    api, system = scene.apis["shop"], "/api/v1/namespaces/kube-system"
    bundles = [tmp_path / "eks", tmp_path / "inside"]

    def collect(bundle, may, *args):
        if not may:
            api.inject(system, refuse(403), times=1)
        assert kubeposture("collect", *args, "-o", bundle, "-c", PRIVILEGED).code == 0

    collect(bundles[0], blind == "kubeconfig", "eks")
    collect(bundles[1], blind == "cloud", "kubeconfig", "--kubeconfig", api.kubeconfig(tmp_path / "config"))
    with open("kubeposture.yaml", "w") as file:
        exemption = {"checks": [PRIVILEGED], "resources": {"cluster": "shop"}, "reason": "known"}
        yaml.safe_dump({"exemptions": [exemption]}, file)
    found = Scan("evaluate", *[bundles[number] for number in order], "-c", PRIVILEGED)
    [row] = found.report["clusters"]
    findings = [f for f in found.report["findings"] if f["resource"]["name"] == "web"]
    assert (row["name"], len(findings)) == ("shop", 1)
    assert findings[0]["exemption"]["reason"] == "known"
