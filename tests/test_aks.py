"""`scan aks`, from the command line to the report: a local Resource Manager, and local API servers of its clusters."""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema_rs
import pytest
from apiserver import ApiServer, hang, tls
from apiserver import status as refuse
from armserver import ArmServer, reset, status
from azure_data import (
    ABSENT,
    AKS_SERVER_ID,
    DEV,
    PROD,
    SECRETS,
    Estate,
    Subscription,
    connected_cluster,
    deleting_cluster,
    diagnostic_setting,
    entra_cluster,
    extension,
    guid,
    kubernetes_versions,
    pricings,
    private_cluster,
    public_cluster,
    registry,
    sample_estate,
    stopped_cluster,
    windows_cluster,
)
from cli import kubeposture
from scans import Scan, evaluate, scan_kubeconfig
from support import deployment, secured

from providers.azure import session
from scanner.report import schema

VALID = jsonschema_rs.validator_for(schema.report_schema())
UID, OTHER_UID = "3f6b7a52-1c1e-4f0b-9d2e-0c1d5a4b7e10", "9d2e7a52-1c1e-4f0b-9d2e-0c1d5a4b7e11"
PRIVILEGED = "k8s-privileged-container"
BAD = deployment(secured(privileged=True), name="bad", namespace="a")
AKS = "/providers/Microsoft.ContainerService/managedClusters"
CREDENTIALS = "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action"
CLOSED = "https://127.0.0.1:9"
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No credential but the one that a test gives, no long waits, and no names but those that a test resolves."""
    for name in tuple(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_", "REQUESTS_CA", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "LONGEST_WAIT", 0.02)
    resolve(monkeypatch)


def resolve(monkeypatch, **ports):
    """Let these names, with _ for dots, lead to ports of this machine, and all others nowhere."""
    known = {name.replace("_", "."): port for name, port in ports.items()}

    def getaddrinfo(host, port, *args, **kwargs):
        if host in known:
            return genuine("127.0.0.1", known[host], *args, **kwargs)
        if host not in ("127.0.0.1", "localhost"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return genuine(host, port, *args, **kwargs)

    genuine = _GETADDRINFO
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


_GETADDRINFO = socket.getaddrinfo


@pytest.fixture
def servers():
    """Takes servers into the test. They may not be sent anything that changes something, or gives more than asked."""
    with contextlib.ExitStack() as stack:
        started = []

        def start(server):
            started.append(server)
            return stack.enter_context(server)

        yield start
    for request in (r for server in started for r in server.requests):
        assert request.method == "GET" or request.path.endswith(("/listClusterUserCredential", session.GRAPH))
        assert "secrets" not in request.path


@pytest.fixture
def serve(servers, monkeypatch):
    def start(*clusters, estate=None, **options):
        arm = servers(ArmServer(estate or Estate.of(subscription(*clusters)), **options))
        for name, value in arm.environment.items():
            monkeypatch.setenv(name, value)
        return arm

    return start


@pytest.fixture
def inside(servers):
    """Starts the API server of a cluster in which one Deployment is privileged."""

    def start(*objects, uid=UID, namespaces=("a",), **options):
        system = {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": uid}}
        others = [{"kind": "Namespace", "metadata": {"name": name}} for name in namespaces]
        return servers(ApiServer([system, *others, BAD, *objects], **{"tls": tls(), **options}))

    return start


def subscription(*clusters, id=PROD, name="Production", arc=(), **more):
    """With settings about which there is nothing to say."""
    return Subscription(
        id,
        name,
        clusters=list(clusters),
        connected_clusters=list(arc),
        pricings=pricings("Containers", subscription=id),
        versions={"koreacentral": kubernetes_versions()},
        diagnostics={cluster["id"]: [diagnostic_setting(cluster["id"])] for cluster in clusters},
        **more,
    )


def scan(arm, *args):
    options = ("--arm-endpoint", arm.url, "--status", "all", "-o", "json")
    return Scan(kubeposture("scan", "aks", *options, *args))


def collect_aks(arm, path, *args):
    kubeposture("collect", "aks", "--arm-endpoint", arm.url, "-o", path, *args)
    return path


def collect_kubeconfig(config, path):
    assert kubeposture("collect", "kubeconfig", "--kubeconfig", config, "-o", path).code == 0
    return path


def posts(arm):
    """Those that are no query of Resource Graph."""
    return [request.path for request in arm.requests if request.method != "GET" and request.path != session.GRAPH]


# -- both planes of one cluster


def test_one_report_holds_both_planes_of_a_cluster(serve, inside, tmp_path):
    arm, api = serve(entra_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    found = scan(arm)
    assert (found.code, found.gaps) == (0, [])
    row = found.row()
    assert (row["uid"], row["control_plane"], row["data_plane"]) == (UID, "complete", "complete")
    assert (row["id"], row["id_source"]) == (arm.estate.cluster("aks-entra")["id"].lower(), "cloud")
    refs = {(f["category"], f["cluster"]["id"], f["cluster"]["uid"]) for f in found.report["findings"] if f["cluster"]}
    assert refs == {(plane, row["id"], UID) for plane in ("control_plane", "data_plane", "vulnerability")}
    assert "fail" in {f["status"] for f in found.report["findings"] if f["check"] == PRIVILEGED}
    assert found.report["coverage"]["clusters"] == {"expected": 1, "judged": 1, "partial": 0, "unread": 0}

    alone = scan_kubeconfig(api.kubeconfig(tmp_path / "config"))
    assert alone.statuses("data_plane") == found.statuses("data_plane")


def test_the_api_server_gets_a_token_of_its_own(serve, inside):
    arm, api = serve(entra_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    scan(arm)
    tokens = {f"Bearer {t.token}": t.resource for t in arm.tokens}
    assert {tokens[r.headers["authorization"]] for r in api.requests} == {AKS_SERVER_ID}
    assert AKS_SERVER_ID not in {tokens[r.authorization] for r in arm.requests}
    assert [path.rpartition("/")[2] for path in posts(arm)] == ["listClusterUserCredential"]


def test_clusters_of_one_name_are_two(serve, inside):
    one, two = inside(), inside(uid=OTHER_UID)
    arm = serve(
        estate=Estate.of(
            subscription(entra_cluster("twin")),
            subscription(entra_cluster("twin", subscription=DEV), id=DEV, name="Development"),
        )
    )
    for part, api in zip(arm.estate.subscriptions.values(), (one, two), strict=True):
        Estate.of(part).connect("twin", api.url, api.tls.ca)
    found = scan(arm)
    assert (found.code, len(found.report["clusters"])) == (0, 2)
    assert {c["uid"] for c in found.report["clusters"]} == {UID, OTHER_UID}


# -- the same cluster, reached in several ways


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_scan_and_bundles_agree_on_a_cluster_and_its_findings(serve, inside, tmp_path, order):
    arm, api = serve(entra_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    whole = scan(arm)
    bundles = (
        collect_aks(arm, tmp_path / "aks"),
        collect_kubeconfig(api.kubeconfig(tmp_path / "config"), tmp_path / "inside"),
    )
    found = evaluate(*[bundles[number] for number in order])
    assert (found.code, found.row()["id"], found.row()["uid"]) == (0, whole.row()["id"], UID)
    assert found.statuses() == whole.statuses()
    assert {f["cluster"]["id"] for f in found.report["findings"] if f["cluster"]} == {whole.row()["id"]}
    assert found.report["summary"]["by_status"] == whole.report["summary"]["by_status"]


def test_a_bundle_of_a_scan_with_refusals_gives_the_same_report(serve, inside, tmp_path):
    arm, api = serve(estate=sample_estate()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    arm.deny("/registries", subscription=DEV)
    arm.deny("/managedClusters", subscription=DEV)
    arm.inject("aks-windows/.*/diagnosticSettings$", status(403))
    whole, saved = scan(arm), evaluate(collect_aks(arm, tmp_path / "aks"))
    assert saved.code == whole.code == 3
    assert saved.statuses() == whole.statuses()
    for part in ("summary", "coverage"):
        assert saved.report[part] == whole.report[part]
    for part in ("gaps", "clusters"):
        ignored = ("time", "observed_at")
        rows = [[{k: v for k, v in row.items() if k not in ignored} for row in r.report[part]] for r in (saved, whole)]
        assert sorted(rows[0], key=str) == sorted(rows[1], key=str)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("account", [entra_cluster, public_cluster])
def test_a_bundle_from_inside_stands_in_for_an_api_server_that_was_not_read(serve, inside, tmp_path, order, account):
    arm, api = serve(account()), inside()
    name = account()["name"]
    arm.estate.connect(name, CLOSED, api.tls.ca)
    alone = scan(arm)
    assert (alone.code, alone.planes()) == (3, {name: ("complete", "not_read")})
    bundles = (
        collect_aks(arm, tmp_path / "aks"),
        collect_kubeconfig(api.kubeconfig(tmp_path / "config"), tmp_path / "inside"),
    )
    found = evaluate(*[bundles[number] for number in order])
    assert (found.code, found.gaps) == (0, [])
    assert found.planes() == {name: ("complete", "complete")}
    assert (found.row()["uid"], found.row()["id"]) == (UID, alone.row()["id"])
    assert "unknown" not in found.statuses().values()
    assert found.report["summary"]["by_status"]["unknown"] == 0
    assert found.statuses("data_plane") == scan_kubeconfig(tmp_path / "config").statuses("data_plane")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("make", [entra_cluster, private_cluster])
def test_the_name_of_an_api_server_tells_whose_bundle_it_is(serve, inside, tmp_path, monkeypatch, order, make):
    """The inside is read through the server's own name, as somebody in the private network would."""
    arm = serve(make())
    properties = make()["properties"]
    host = properties.get("fqdn") or properties["privateFQDN"]
    bundles = [collect_aks(arm, tmp_path / "aks", "--planes", "control")]
    api = inside(tls=tls(host))
    resolve(monkeypatch, **{host.replace(".", "_"): api.port})
    config = api.kubeconfig(tmp_path / "config", cluster={"server": f"https://{host}:443"})
    bundles.append(collect_kubeconfig(config, tmp_path / "inside"))
    found = evaluate(*[bundles[number] for number in order])
    assert (found.code, found.planes()) == (0, {make()["name"]: ("complete", "complete")})
    assert (found.row()["uid"], found.row()["account"]) == (UID, PROD)


def test_bundles_of_other_clusters_stay_apart(serve, inside, tmp_path):
    arm, api, other = serve(entra_cluster()), inside(), inside(uid=OTHER_UID)
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    found = evaluate(
        collect_aks(arm, tmp_path / "aks"),
        collect_kubeconfig(other.kubeconfig(tmp_path / "config"), tmp_path / "other"),
    )
    assert found.rows.keys() == {"aks-entra", "local"}
    assert {c["uid"] for c in found.report["clusters"]} == {UID, OTHER_UID}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("distribution", ["eks", "gke"])
def test_a_cluster_connected_by_arc_counts_once(serve, inside, tmp_path, order, distribution):
    arc = connected_cluster("shop", distribution)
    arm = serve(estate=Estate.of(subscription(arc=[arc], extensions={arc["id"]: [extension(arc["id"])]})))
    config_map = {
        "kind": "ConfigMap",
        "metadata": {"name": "azure-clusterconfig", "namespace": "azure-arc"},
        "data": {
            "AZURE_SUBSCRIPTION_ID": PROD,
            "AZURE_RESOURCE_GROUP": "RG-Arc",  # agents write what they were told, in any case
            "AZURE_RESOURCE_NAME": "shop",
        },
    }
    api = inside(config_map, namespaces=("a", "azure-arc"))
    bundles = (
        collect_aks(arm, tmp_path / "aks"),
        collect_kubeconfig(api.kubeconfig(tmp_path / "config"), tmp_path / "inside"),
    )
    found = evaluate(*[bundles[number] for number in order])
    assert found.report["coverage"]["clusters"]["expected"] == 1
    assert found.planes() == {"shop": ("complete", "complete")}
    assert (found.row()["id"], found.row()["uid"]) == (arc["id"].lower(), UID)
    assert {f["cluster"]["name"] for f in found.report["findings"] if f["cluster"]} == {"shop"}
    assert found.statuses("data_plane") == scan_kubeconfig(tmp_path / "config").statuses("data_plane")


# -- insides that cannot be read


def test_a_local_account_is_not_used_unless_that_is_allowed(serve, inside):
    arm, api = serve(public_cluster()), inside(tls=tls(client_certs=True))
    keys = {"cert": api.tls.client_cert, "key": api.tls.client_key, "token": ""}
    arm.estate.connect("aks-public", api.url, api.tls.ca, **keys)
    found = scan(arm)
    assert (found.code, api.requests) == (3, [])
    assert found.planes() == {"aks-public": ("complete", "not_read")}
    assert found.why("aks-public") == {("local_account_only", "")}
    assert "--allow-local-account" in found.gaps[0]["detail"]

    found = scan(arm, "--allow-local-account")
    assert (found.code, found.planes()) == (0, {"aks-public": ("complete", "complete")})
    assert found.row()["uid"] == UID


def test_a_token_of_a_local_account_is_used_where_that_is_allowed(serve, inside):
    arm, api = serve(public_cluster()), inside(token="static")
    arm.estate.connect("aks-public", api.url, api.tls.ca, cert=b"", key=b"", token="static")
    assert scan(arm).why("aks-public") == {("local_account_only", "")}
    assert scan(arm, "--allow-local-account").row()["uid"] == UID


def test_an_api_server_that_nobody_can_reach_leaves_the_control_plane_judged(serve):
    arm = serve(private_cluster(), entra_cluster(), windows_cluster())
    authority = tls().ca
    for name in ("aks-private", "aks-entra"):
        host = arm.estate.cluster(name)["properties"].get("fqdn", "private.azmk8s.io")
        arm.estate.connect(name, f"https://{host}:443", authority)
    arm.estate.connect("aks-windows", CLOSED, authority)
    found = scan(arm, "-c", PRIVILEGED, "-c", "azure-aks-rbac")
    assert found.code == 3
    assert set(found.planes().values()) == {("complete", "not_read")}
    assert {g["reason"] for g in found.gaps} == {"unreachable"}
    by_check = found.report["summary"]["by_check"]
    assert by_check["azure-aks-rbac"] == {"pass": 3}
    assert by_check[PRIVILEGED].keys() == {"unknown"}


def test_a_stopped_cluster_is_judged_and_its_inside_not_asked_for(serve):
    arm = serve(stopped_cluster())
    found = scan(arm)
    assert (found.code, posts(arm)) == (3, [])
    assert found.planes() == {"aks-stopped": ("complete", "not_read")}
    assert {g["detail"] for g in found.gaps} == {"the cluster is stopped"}
    assert "fail" in found.statuses("control_plane").values()


@pytest.mark.parametrize("state", ["Deleting", "Creating"])
def test_a_cluster_that_comes_or_goes_is_listed_and_not_judged(serve, state):
    leaving = deleting_cluster()
    leaving["properties"]["provisioningState"] = state
    arm = serve(leaving, entra_cluster())
    found = scan(arm, "--planes", "both", "--cluster", "aks-deleting")
    assert (found.code, found.gaps, posts(arm)) == (0, [], [])
    assert found.planes() == {"aks-deleting": ("complete", "not_asked")}
    about = [f for f in found.report["findings"] if f["cluster"]]
    assert {(f["status"], f["reason"]) for f in about} == {("not_applicable", "lifecycle")}
    assert not [r.path for r in arm.requests if r.path.endswith("/diagnosticSettings")]


@pytest.mark.parametrize(
    ("fault", "reason", "permission"),
    [
        (status(403), "forbidden", CREDENTIALS),
        (status(404), "not_found", CREDENTIALS),
        (status(429), "throttled", ""),
        (status(500), "server_error", ""),
    ],
)
def test_a_kubeconfig_that_is_refused_leaves_the_control_plane_judged(serve, fault, reason, permission):
    arm = serve(entra_cluster())
    arm.inject("/listClusterUserCredential$", fault)
    found = scan(arm)
    assert (found.code, found.planes()) == (3, {"aks-entra": ("complete", "not_read")})
    assert found.why("aks-entra") == {(reason, permission)}
    unknown = [f for f in found.report["findings"] if f["status"] == "unknown"]
    assert {f["category"] for f in unknown} == {"data_plane", "vulnerability"}
    assert all(permission in f["message"] for f in unknown if f["reason"] != "no_source")


@pytest.mark.parametrize("fault", [status(429), status(429, retry_after=0.01), status(502), status(503), reset()])
def test_a_passing_fault_of_a_kubeconfig_leaves_no_trace(serve, inside, fault):
    arm, api = serve(entra_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    arm.inject("/listClusterUserCredential$", fault, times=1)
    found = scan(arm, "-c", PRIVILEGED)
    assert (found.code, found.planes()["aks-entra"][1]) == (0, "complete")


def kubeconfig(cluster=None, user=None, **more):
    authority = base64.b64encode(tls().ca).decode()
    place = {"server": CLOSED, "certificate-authority-data": authority} | (cluster or {})
    return {"clusters": [{"cluster": place}], "users": [{"user": {"exec": {}} if user is None else user}]} | more


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("text", "cannot be understood"),
        ([7], "cannot be understood"),
        ({"clusters": 7}, "cannot be understood"),
        (kubeconfig(clusters=[]), "cannot be understood"),
        (kubeconfig(users=[{"user": None}]), "cannot be understood"),
        (kubeconfig(users=7), "cannot be understood"),
        (kubeconfig({"server": "http://127.0.0.1:9"}), "names no https server"),
        (kubeconfig({"server": 7}), "names no https server"),
        (kubeconfig({"server": "https://[::1"}), "names no https server"),
        (kubeconfig({"server": "https://host:port"}), "names no https server"),
        (kubeconfig({"certificate-authority-data": None}), "holds no certificate authority"),
        (kubeconfig({"certificate-authority-data": "&"}), "is no base64"),
        (kubeconfig({"certificate-authority-data": "QUFB"}, {"exec": {"command": "x"}}), "no usable PEM"),
        (kubeconfig({"server": "https://user:pass@127.0.0.1:9"}, {"exec": {"command": "x"}}), "https://host[:port]"),
        (kubeconfig(user={}), "local account"),
    ],
)
def test_a_kubeconfig_that_is_none_is_a_gap(serve, config, said):
    arm = serve(entra_cluster())
    arm.estate.subscriptions[PROD].kubeconfigs[arm.estate.cluster("aks-entra")["id"]] = config
    found = scan(arm, "-c", PRIVILEGED)
    assert found.row()["data_plane"] == "not_read"
    assert said in found.gaps[0]["detail"]


def test_what_the_api_server_refuses_is_unknown(serve, inside):
    arm, api = serve(entra_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    api.deny("pods")
    found = scan(arm)
    assert (found.code, found.planes()) == (3, {"aks-entra": ("complete", "partial")})
    assert found.why("aks-entra") == {("forbidden", "list pods")}
    api.inject("/api", refuse(401))
    found = scan(arm)
    assert (found.code, found.planes()) == (3, {"aks-entra": ("complete", "not_read")})
    assert {g["reason"] for g in found.gaps} == {"forbidden"}
    assert {f["status"] for f in found.report["findings"] if f["category"] == "data_plane"} == {"unknown"}


@pytest.mark.parametrize("name", ["[::1", "a:port", "a\nb", "\x1b[2J", "a/b", " ", 7, None, ["a"]])
def test_an_address_that_is_none_loses_no_cluster(serve, name):
    odd = entra_cluster("odd\x1b[2J\n")
    odd["properties"] |= {"fqdn": name, "privateFQDN": name}
    odd["id"] = odd["id"].replace("odd\x1b[2J\n", "odd")
    found = scan(serve(odd), *CONTROL)
    assert (found.code, found.error) == (0, "")
    assert found.row()["cloud_id"] == odd["id"]
    assert "pass" in found.statuses().values()


# -- subscriptions


@pytest.fixture
def two(serve):
    """Two subscriptions with one cluster each, which need no data plane."""
    return serve(
        estate=Estate.of(
            subscription(entra_cluster("aks-prod"), registries=[registry("acrprod")]),
            subscription(
                entra_cluster("aks-dev", subscription=DEV),
                id=DEV,
                name="Development",
                registries=[registry("acrdev", subscription=DEV)],
            ),
        )
    )


CONTROL = ("--planes", "control")


def test_half_of_the_subscriptions_refused_leaves_the_others_judged(serve):
    ids = [guid("subscription", number) for number in range(6)]
    arm = serve(
        estate=Estate.of(
            *(subscription(entra_cluster(f"aks-{n}", subscription=id), id=id, name=f"S{n}") for n, id in enumerate(ids))
        )
    )
    for id in ids[::2]:
        arm.deny("", subscription=id)
    found = scan(arm, *CONTROL)
    assert found.code == 3
    assert found.rows.keys() == {"aks-1", "aks-3", "aks-5"}
    coverage = found.report["coverage"]
    assert coverage["accounts"] == {"expected": 6, "read": 3, "refused": 3}
    assert coverage["clusters"]["expected"] is None
    assert {g["account"] for g in found.gaps if g["what"] != "defender"} == set(ids[::2])
    named = {g["permission"] for g in found.gaps if g["what"] == "managedClusters"}
    assert named == {"Microsoft.ContainerService/managedClusters/read"}
    refused = [f for f in found.report["findings"] if f["account"] in ids[::2]]
    assert {f["status"] for f in refused} == {"unknown"}
    assert len({f["check"] for f in refused}) == len({f["check"] for f in found.report["findings"]})


@pytest.mark.parametrize("name", [PROD, PROD.upper(), "Production", " production "])
def test_a_subscription_is_chosen_by_id_or_name(two, name):
    found = scan(two, *CONTROL, "--subscription", name)
    assert (found.code, list(found.rows)) == (0, ["aks-prod"])
    assert not [r.path for r in two.requests if DEV in r.path]


def test_a_subscription_that_is_chosen_twice_is_read_once(two):
    found = scan(two, *CONTROL, "--subscription", PROD, "--subscription", "Production")
    assert (found.code, found.report["coverage"]["accounts"]["expected"]) == (0, 1)


def test_every_subscription_of_a_name_is_read(serve):
    arm = serve(
        estate=Estate.of(
            subscription(entra_cluster("one"), name="Shared"),
            subscription(entra_cluster("two", subscription=DEV), id=DEV, name="Shared"),
        )
    )
    assert list(scan(arm, *CONTROL, "--subscription", "shared").rows) == ["one", "two"]


def test_a_subscription_that_is_not_listed_is_tried_all_the_same(two):
    two.deny("/subscriptions")
    found = scan(two, *CONTROL, "--subscription", PROD)
    assert (found.code, found.gaps, list(found.rows)) == (0, [], ["aks-prod"])


def test_a_subscription_that_is_not_there_is_named(two):
    wrong = guid("not there")
    found = scan(two, *CONTROL, "--subscription", wrong)
    assert found.code == 4
    assert {g["account"] for g in found.gaps if g["what"] != "defender"} == {wrong}
    assert all(wrong in g["detail"] for g in found.gaps if g["what"] != "defender")


def test_a_name_of_no_subscription_is_named_with_the_nearest(two):
    found = scan(two, *CONTROL, "--subscription", "Prodution", "--subscription", DEV)
    assert (found.code, list(found.rows)) == (3, ["aks-dev"])
    [detail] = {g["detail"] for g in found.gaps}
    assert "'Prodution'" in detail
    assert "did you mean 'Production'?" in detail
    alone = scan(two, *CONTROL, "--subscription", "Prodution")
    assert (alone.code, alone.rows) == (4, {})


def test_an_identity_that_sees_no_subscription_has_read_nothing(serve):
    found = scan(serve(estate=Estate.of()))
    assert (found.code, found.rows) == (4, {})
    [detail] = {g["detail"] for g in found.gaps}
    assert "no subscription" in detail
    assert {g["permission"] for g in found.gaps} == {"Microsoft.Resources/subscriptions/read"}


def test_subscriptions_that_cannot_be_listed_are_a_gap(two):
    two.deny("/subscriptions")
    found = scan(two, *CONTROL)
    assert (found.code, found.rows) == (4, {})
    assert {g["permission"] for g in found.gaps} == {"Microsoft.Resources/subscriptions/read"}


def test_a_subscription_without_clusters_is_complete(serve):
    found = scan(serve())
    assert (found.code, found.gaps, found.rows) == (0, [], {})
    assert found.report["coverage"]["clusters"]["expected"] == 0
    assert found.report["coverage"]["accounts"] == {"expected": 1, "read": 1, "refused": 0}


def test_insides_of_clusters_that_could_not_be_listed_are_unknown(two):
    two.deny("/managedClusters", subscription=DEV)
    found = scan(two, "-c", PRIVILEGED, "--planes", "data")
    assert DEV in {f["account"] for f in found.report["findings"] if f["status"] == "unknown"}


# -- filters


@pytest.fixture
def three(serve):
    return serve(
        entra_cluster("shop-prod", tags={"Team": "shop", "environment": "production"}),
        entra_cluster("shop-test", tags={"Team": "shop", "environment": "test"}),
        entra_cluster("bank", tags=None),
    )


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ((), ["bank", "shop-prod", "shop-test"]),
        (("--cluster", "bank"), ["bank"]),
        (("--cluster", "SHOP-*"), ["shop-prod", "shop-test"]),
        (("--cluster", "bank", "--cluster", "*-test"), ["bank", "shop-test"]),
        (("--tag", "team"), ["shop-prod", "shop-test"]),
        (("--tag", "team=shop", "--tag", "environment=test"), ["shop-test"]),
        (("--cluster", "*-prod", "--tag", "team"), ["shop-prod"]),
    ],
)
def test_clusters_are_chosen_by_name_and_tag(three, filters, names):
    found = scan(three, *CONTROL, *filters)
    assert (found.code, found.gaps, list(found.rows)) == (0, [], names)
    asked = [r.path.split("/")[8] for r in three.requests if r.path.endswith("/diagnosticSettings")]
    assert sorted(asked) == names


@pytest.mark.parametrize("tag", ["", " ", "=", "=value"])
def test_a_tag_without_a_name_is_a_usage_error(tag):
    result = kubeposture("scan", "aks", "--tag", tag)
    assert (result.code, result.stdout) == (2, "")
    assert "--tag" in result.stderr


@pytest.mark.parametrize("planes", ["control", "data", "both"])
def test_a_cluster_that_was_asked_for_and_is_not_there_is_named(three, planes):
    found = scan(three, "--planes", planes, "--cluster", "shop-prd")
    assert found.code in (3, 4)
    assert "'shop-prd'" in found.gaps[0]["detail"]
    assert found.planes().keys() == {"shop-prd"}


@pytest.mark.parametrize("tag", ["team=Shop", "absent"])
def test_a_tag_that_no_cluster_has_is_named(three, tag):
    found = scan(three, *CONTROL, "--tag", tag)
    assert found.code in (3, 4)
    assert found.planes().keys() == {tag}
    assert "has these tags" in found.gaps[0]["detail"]


# -- planes and checks


def test_what_is_not_asked_for_is_not_incomplete(serve):
    arm = serve(entra_cluster())
    found = scan(arm, *CONTROL)
    assert (found.code, found.planes()) == (0, {"aks-entra": ("complete", "not_asked")})
    assert (posts(arm), AKS_SERVER_ID in {t.resource for t in arm.tokens}) == ([], False)
    assert {f["category"] for f in found.report["findings"]} == {"control_plane", "vulnerability"}
    assert not [f for f in found.report["findings"] if f["check"].endswith("running-image-vulns")]


def test_the_data_plane_alone_asks_azure_only_for_clusters(serve, inside):
    arm, api = serve(entra_cluster(), private_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    found = scan(arm, "--planes", "data", "--cluster", "aks-entra")
    assert (found.code, found.gaps) == (0, [])
    assert found.planes() == {"aks-entra": ("not_asked", "complete")}
    assert {f["category"] for f in found.report["findings"]} == {"data_plane", "vulnerability"}
    lists = {r.path.rpartition("/")[2] for r in arm.requests}
    assert lists == {"subscriptions", "permissions", "managedClusters", "listClusterUserCredential", "resources"}


def test_checks_of_the_inside_alone_ask_azure_only_for_clusters(serve, inside):
    arm, api = serve(entra_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    found = scan(arm, "-c", "k8s-*")
    assert (found.code, found.planes()) == (0, {"aks-entra": ("not_asked", "complete")})
    lists = {r.path.rpartition("/")[2] for r in arm.requests}
    assert lists == {"subscriptions", "permissions", "managedClusters", "listClusterUserCredential"}


@pytest.mark.parametrize(
    ("check", "lists"),
    [
        ("azure-aks-rbac", set()),
        ("azure-aks-diagnostic-logs", {"diagnosticSettings"}),
        ("azure-aks-supported-version", {"kubernetesVersions"}),
        ("azure-acr-admin-user", {"registries"}),
        ("azure-arc-policy-extension", {"connectedClusters", "extensions"}),
        ("azure-defender-containers-plan", {"pricings"}),
        ("aws-connector-defender-containers", {"securityConnectors"}),
        ("azure-registry-image-vulns", {"registries", "resources"}),
    ],
)
def test_one_check_asks_only_for_what_it_needs(serve, check, lists):
    arc = connected_cluster("shop")
    arm = serve(
        estate=Estate.of(
            subscription(entra_cluster(), arc=[arc], registries=[registry("acr")], extensions={arc["id"]: []})
        )
    )
    found = scan(arm, "-c", check)
    assert (found.code in (0, 4), found.gaps) == (True, [])
    assert {f["check"] for f in found.report["findings"]} == {check}
    asked = {r.path.rpartition("/")[2] for r in arm.requests}
    assert asked == {"subscriptions", "permissions", "managedClusters"} | lists


def test_no_check_of_a_plane_is_a_usage_error(serve):
    result = kubeposture("scan", "aks", "--planes", "data", "-c", "azure-aks-rbac")
    assert (result.code, result.stdout) == (2, "")


def test_the_profile_defender_gives_microsofts_answers(serve):
    arm = serve(public_cluster())
    assert {o for f in scan(arm, *CONTROL).report["findings"] for o in parameter_origins(f)} <= {"default"}
    found = scan(arm, *CONTROL, "--profile", "defender")
    assert "profile" in {o for f in found.report["findings"] for o in parameter_origins(f)}
    assert found.report["scan"]["profile"] == "defender"


def parameter_origins(finding):
    return {p["origin"] for p in finding["parameters"]}


def test_an_exemption_may_go_by_a_clusters_tag(serve, tmp_path):
    arm = serve(public_cluster("old") | {"tags": {"legacy": "yes"}}, public_cluster("new"))
    (tmp_path / "kubeposture.yaml").write_text(
        'exemptions: [{checks: [azure-*], reason: on its way out, resources: {labels: {legacy: "yes"}}}]'
    )
    found = scan(arm, *CONTROL, "-c", "azure-aks-run-command")
    assert {(f["cluster"]["name"], f["status"], f["exemption"] is not None) for f in found.report["findings"]} == {
        ("old", "fail", True),
        ("new", "fail", False),
    }
    assert found.report["summary"]["exempted"] == 1


def test_each_line_of_ndjson_says_which_cluster_and_account_it_is_of(serve):
    arm = serve(entra_cluster())
    result = kubeposture("scan", "aks", "--arm-endpoint", arm.url, *CONTROL, "-o", "ndjson", "--status", "all")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) > 20
    assert {line["account"] for line in lines} == {PROD}
    assert {line["cluster"]["name"] for line in lines if line["scope"] in ("cluster", "node_pool")} == {"aks-entra"}


# -- secrets


def test_no_output_shows_a_secret(serve, inside, tmp_path):
    arm = serve(estate=sample_estate(), page_size=2)
    api, local = inside(), inside(uid=OTHER_UID, tls=tls(client_certs=True))
    for name in ("aks-entra", "aks-private"):
        arm.estate.connect(name, api.url, api.tls.ca)
    arm.estate.connect("aks-legacy", local.url, local.tls.ca, cert=local.tls.client_cert, key=local.tls.client_key)
    arm.deny("/registries")
    arm.inject("/pricings$", status(400, "Bad", f"the header Authorization: Bearer {arm.issue()} is odd"))
    outputs = [f"-o{name}={tmp_path / name}" for name in ("json", "ndjson", "ocsf", "table")]
    shared = ("--arm-endpoint", arm.url, "--allow-local-account", "-v")
    scanned = kubeposture("scan", "aks", *shared, *outputs, "-o", "json", "--status", "all")
    collected = kubeposture("collect", "aks", *shared, "-o", tmp_path / "bundle")
    assert (scanned.code, collected.code) == (3, 3)
    assert scanned.stdout.count('"status"') > 100
    texts = [scanned.stdout, scanned.stderr, collected.stderr]
    texts += [(tmp_path / name).read_text() for name in ("json", "ndjson", "ocsf", "table")]
    texts.append(subprocess.run(["gzip", "-dc", tmp_path / "bundle"], capture_output=True, check=True).stdout.decode())
    key = local.tls.client_key.decode()
    secrets = [*SECRETS, *(t.token for t in arm.tokens), key, key.splitlines()[1], base64.b64encode(key.encode())]
    secrets += [t.token.rpartition(".")[2] for t in arm.tokens]
    for secret in secrets:
        text = secret.decode() if isinstance(secret, bytes) else secret
        assert not [number for number, shown in enumerate(texts) if text in shown], text[:20]


# -- interrupted


@pytest.fixture
def interrupt(tmp_path):
    """Sends Ctrl-C to a scan once a request for this path came, which then gets no answer."""

    def run(arm, path, *args):
        def wait(handler):
            reached.set()
            return hang()(handler)

        reached = threading.Event()
        arm.inject(path, wait)
        command = [sys.executable, "-m", "scanner", "scan", "aks", "--arm-endpoint", arm.url, "-o", "json=report", "-q"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            [*command, *CONTROL, *args], env=environment, stderr=subprocess.PIPE, text=True
        ) as scanning:
            try:
                assert reached.wait(60)
                scanning.send_signal(signal.SIGINT)
                _, error = scanning.communicate(timeout=60)
            finally:
                scanning.kill()
        assert scanning.returncode == 130, error
        report = json.loads((tmp_path / "report").read_text())
        VALID.validate(report)
        assert report["scan"]["complete"] is False
        assert {g["reason"] for g in report["gaps"]} == {"timeout"}
        return report

    return run


def test_an_interrupted_scan_lists_every_cluster_that_was_found(serve, interrupt):
    names = [f"aks-{number}" for number in range(6)]
    arm = serve(*map(entra_cluster, names))
    report = interrupt(arm, "aks-[2-5]/providers/.*/diagnosticSettings$", "--concurrency", "2")
    assert [c["name"] for c in report["clusters"]] == names
    planes = {c["name"]: c["control_plane"] for c in report["clusters"]}
    assert planes["aks-5"] == "partial"
    logs = [f for f in report["findings"] if f["check"] == "azure-aks-diagnostic-logs" and f["cluster"]]
    assert {"aks-2", "aks-3", "aks-4", "aks-5"} <= {f["cluster"]["name"] for f in logs if f["status"] == "unknown"}


def test_an_interrupted_scan_names_the_subscriptions_that_were_not_listed(serve, interrupt):
    arm = serve(
        estate=Estate.of(
            subscription(entra_cluster("aks-prod")),
            subscription(entra_cluster("aks-dev", subscription=DEV), id=DEV, name="Development"),
        )
    )
    report = interrupt(arm, f"^/subscriptions/{DEV}{AKS}$", "--concurrency", "1")
    assert DEV in {g["account"] for g in report["gaps"]}
    assert report["coverage"]["clusters"]["expected"] is None


def test_an_interrupted_scan_lists_both_clusters_of_one_name(serve, interrupt):
    arm = serve(
        estate=Estate.of(
            subscription(entra_cluster("twin")),
            subscription(entra_cluster("twin", subscription=DEV), id=DEV, name="Development"),
        )
    )
    report = interrupt(arm, f"^/subscriptions/{DEV}/.*/diagnosticSettings$", "--concurrency", "1")
    assert [(c["name"], c["account"]) for c in report["clusters"]] == [("twin", PROD), ("twin", DEV)]


# -- readings that are put together


def test_ids_inside_agree_where_the_uid_may_not_be_read(serve, inside, tmp_path):
    arm, api = serve(entra_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    api.inject("/namespaces/kube-system", refuse(403))
    alone = scan_kubeconfig(api.kubeconfig(tmp_path / "config"))
    found = scan(arm)
    assert found.row()["uid"] is None
    assert found.statuses("data_plane") == alone.statuses("data_plane")


def test_results_are_counted_under_the_row_that_readings_became(serve, inside, tmp_path):
    arm, api = serve(entra_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    alone = collect_kubeconfig(api.kubeconfig(tmp_path / "config"), tmp_path / "alone")
    outside = collect_aks(arm, tmp_path / "outside", *CONTROL)
    both = collect_aks(arm, tmp_path / "both")
    for bundles in ((alone, both), (both, alone), (alone, outside, both)):
        found = evaluate(*bundles)
        row = found.row()
        assert row["id"] in found.report["summary"]["by_cluster"]
        assert UID not in found.report["summary"]["by_cluster"]
        assert {f["cluster"]["id"] for f in found.report["findings"] if f["cluster"]} == {row["id"]}


def test_an_account_that_one_look_read_is_read(serve, tmp_path):
    arm = serve(entra_cluster())
    read = collect_aks(arm, tmp_path / "read", *CONTROL)
    arm.deny("/managedClusters")
    refused = collect_aks(arm, tmp_path / "refused", *CONTROL)
    for order in ((read, refused), (refused, read)):
        assert evaluate(*order).report["coverage"]["accounts"] == {"expected": 1, "read": 1, "refused": 0}
    assert evaluate(refused).report["coverage"]["accounts"] == {"expected": 1, "read": 0, "refused": 1}


@pytest.mark.parametrize(("planes", "category"), [("control", "control_plane"), ("data", "data_plane")])
def test_a_plane_that_was_not_collected_is_not_unknown(serve, tmp_path, planes, category):
    arm = serve(entra_cluster())
    arm.deny("/managedClusters")
    found = evaluate(collect_aks(arm, tmp_path / "b", "--planes", planes))
    unknown = {f["category"] for f in found.report["findings"] if f["status"] == "unknown"}
    assert unknown - {"vulnerability"} == {category}


# -- user credentials of every kind


def user_of(arm, **user):
    """Let the cluster hand out a kubeconfig with this user."""
    for subscription_, item in arm.estate.clusters():
        config = arm.estate.kubeconfig(item["id"])
        config["users"][0]["user"] = user
        subscription_.kubeconfigs[item["id"]] = config


def test_a_retired_entra_stanza_is_entra_too(serve, inside):
    arm, api = serve(entra_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    user_of(arm, **{"auth-provider": {"name": "azure", "config": {"apiserver-id": "x"}}})
    assert scan(arm).planes() == {"aks-entra": ("complete", "complete")}


@pytest.mark.parametrize("half", ["client-certificate-data", "client-key-data"])
def test_half_a_certificate_is_no_credential(serve, inside, half):
    arm, api = serve(entra_cluster()), inside()
    arm.estate.connect("aks-entra", api.url, api.tls.ca)
    user_of(arm, **{half: "eA=="})
    found = scan(arm, "--allow-local-account")
    assert found.planes() == {"aks-entra": ("complete", "not_read")}
    assert api.requests == []


def test_a_state_that_cannot_be_read_hides_nothing_of_a_cluster(serve):
    odd = entra_cluster()
    odd["properties"]["provisioningState"] = ["Deleting"]
    arm = serve(odd)
    found = scan(arm, *CONTROL, "-c", "azure-aks-diagnostic-logs", "-c", "azure-aks-rbac")
    assert {f["status"] for f in found.report["findings"]} == {"pass"}


# -- what must not read as clean


@pytest.mark.parametrize("properties", [None, {}, ABSENT])
def test_a_cluster_of_which_nothing_is_said_is_unknown(serve, properties):
    empty = entra_cluster("empty")
    if properties is ABSENT:
        del empty["properties"]
    else:
        empty["properties"] = properties
    found = scan(serve(empty), *CONTROL)
    assert {f["status"] for f in found.report["findings"] if f["cluster"]} == {"unknown"}
    assert (found.code, found.rows["empty"]["control_plane"]) == (3, "not_read")
    assert [g["what"] for g in found.gaps] == ["managedClusters"]


def test_a_registry_of_which_nothing_is_said_is_a_gap(serve):
    empty = {**registry("empty"), "properties": {}}
    one = subscription(entra_cluster("one"), registries=[registry("full"), empty])
    found = scan(serve(estate=Estate.of(one)), *CONTROL)
    judged = {f["status"] for f in found.report["findings"] if f["resource"]["name"] == "empty"}
    assert (found.code, judged, [g["what"] for g in found.gaps]) == (3, {"unknown"}, ["registries"])


def test_two_answers_about_one_cluster_that_differ_are_neither_believed(serve):
    one = entra_cluster("one")
    other = json.loads(json.dumps(one))
    other["properties"]["enableRBAC"] = False
    found = scan(serve(one, other), *CONTROL)
    assert {f["status"] for f in found.report["findings"] if f["cluster"]} == {"unknown"}


@pytest.mark.parametrize("pools", [[], None])
def test_a_cluster_without_any_node_pool_is_not_believed(serve, pools):
    odd = entra_cluster("odd")
    odd["properties"]["agentPoolProfiles"] = pools
    found = scan(serve(odd), *CONTROL, "--status", "all")
    of_pools = {f["status"] for f in found.report["findings"] if f["resource"]["kind"].endswith("agentPools")}
    assert of_pools == {"unknown"}


def test_two_ids_that_only_look_alike_are_not_one_cluster(serve):
    found = scan(serve(entra_cluster("aks-k"), entra_cluster("aks-\u212a")), *CONTROL)
    assert found.code == 3
    assert "managedClusters" in {g["what"] for g in found.gaps}


def test_two_clusters_that_claim_one_uid_stay_two(serve, inside):
    arm = serve(entra_cluster("one"), entra_cluster("two"))
    for name in ("one", "two"):
        api = inside()
        arm.estate.connect(name, api.url, api.tls.ca)
    assert sorted(scan(arm).rows) == ["one", "two"]


def test_what_a_bundle_was_not_asked_for_is_unknown(serve, tmp_path):
    arm = serve(estate=sample_estate())
    found = evaluate(collect_aks(arm, tmp_path / "b", *CONTROL, "-e", "azure-arc-*"))
    assert {f["status"] for f in found.report["findings"] if f["check"].startswith("azure-arc-")} == {"unknown"}


def test_a_refused_subscription_is_below_any_coverage(serve):
    arm = serve(estate=sample_estate())
    arm.deny("/managedClusters", subscription=DEV)
    assert scan(arm, *CONTROL, "--min-coverage", "1%").code == 3


def test_no_token_goes_through_a_proxy_without_tls(serve, servers, monkeypatch):
    proxy = servers(ArmServer(Estate.of(subscription())))
    arm = serve(entra_cluster())
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    scan(arm, *CONTROL)
    assert [r for r in proxy.requests if r.authorization] == []
