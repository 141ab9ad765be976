"""`scan gke`, from the command line to the report: a local Google Cloud, and local API servers of its clusters."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import jsonschema_rs
import pytest
from apiserver import ApiServer, hang, tls
from apiserver import redirect as lead_away
from apiserver import status as refuse_inside
from cli import kubeposture, process
from gcp_data import (
    ABSENT,
    AUDITOR,
    DEV,
    EMPTY,
    IOWA,
    ORGANIZATION,
    PROD,
    SCANNER,
    SECRETS,
    SEOUL,
    Estate,
    Project,
    analysis,
    autopilot,
    bad_cluster,
    bad_repository,
    cluster,
    digest,
    index,
    number,
    policy,
    pool,
    repository,
    sample_estate,
    uri,
    vulnerability,
)
from gcpserver import GcpServer, disabled, garbage, info, refuse, silent, status
from scans import Scan, collect, evaluate, scan_kubeconfig
from support import container, deployment, merged, pod, secured

from providers.gcp import session
from scanner.report import schema

VALID = jsonschema_rs.validator_for(schema.report_schema())
UID, OTHER_UID = "3f6b7a52-1c1e-4f0b-9d2e-0c1d5a4b7e10", "9d2e7a52-1c1e-4f0b-9d2e-0c1d5a4b7e11"
PRIVILEGED = "k8s-privileged-container"
BAD = deployment(secured(privileged=True), name="bad", namespace="a")
CLUSTERS, REPOSITORIES = "container.googleapis.com/Cluster", "artifactregistry.googleapis.com/Repository"
CONTROL = ("--planes", "control")
ABAC = (*CONTROL, "-c", "gcp-gke-legacy-abac")
CLOSED = "127.0.0.1:9"
OPEN_NETWORKS = {"masterAuthorizedNetworksConfig": ABSENT}
ROOT = Path(__file__).parent.parent
GETADDRINFO = socket.getaddrinfo


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No credential but the one that a test gives, no long waits, no network but this machine, and no names but those
    that a test resolves."""
    for name in tuple(os.environ):
        if re.match("GOOGLE_|GCLOUD_|CLOUDSDK_|GRPC_|GCE_|KUBE|SSL_CERT|REQUESTS_CA|CURL_CA|(?i:.*_proxy$)", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "_pause", lambda tried, wait: 0.01)
    resolve(monkeypatch, {})
    genuine = socket.socket.connect

    def connect_here(self, address):
        if address[0] != "127.0.0.1":
            raise ConnectionRefusedError
        genuine(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


def resolve(monkeypatch, ports):
    """Let these names lead to ports of this machine, and all others nowhere."""

    def getaddrinfo(host, port, *args, **kwargs):
        if host in ports:
            return GETADDRINFO("127.0.0.1", ports[host], *args, **kwargs)
        if host not in ("127.0.0.1", "localhost"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return GETADDRINFO(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


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
                assert request.method in ("GET", "ListClusters")


@pytest.fixture
def serve(servers, tmp_path, monkeypatch):
    def start(*clusters, estate=None, **options):
        gcp = servers(GcpServer(estate or Estate.of(Project(PROD, clusters=list(clusters))), **options))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcp.key_file(tmp_path))
        endpoints = (f"{service}={url}" for service, url in gcp.endpoints.items())
        monkeypatch.setenv("KUBEPOSTURE_GCP_ENDPOINTS", " ".join(endpoints))
        return gcp

    return start


@pytest.fixture
def inside(servers):
    """Starts the API server of a cluster in which one Deployment is privileged."""

    def start(*objects, uid=UID, **options):
        system = {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": uid}}
        team = {"kind": "Namespace", "metadata": {"name": "a"}}
        return servers(ApiServer([system, team, BAD, *objects], **{"tls": tls(), **options}))

    return start


def connect(gcp, name, api, project=PROD):
    gcp.estate.connect(name, f"127.0.0.1:{api.port}", api.tls.ca, project)
    gcp.load(gcp.estate)


def scan(*args):
    return Scan(kubeposture("scan", "gke", "--status", "all", "-o", "json", *args))


def bearers(server):
    return {r.headers.get("authorization", "").removeprefix("Bearer ") for r in server.requests}


def dns_name(name, **place):
    return cluster(name, **place)["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["endpoint"]


def by_dns(name, **endpoints):
    """A cluster whose DNS endpoint takes traffic from outside its network."""
    changes = {"dnsEndpointConfig": {"allowExternalTraffic": True}, **endpoints}
    return cluster(name, controlPlaneEndpointsConfig=changes)


# -- both planes of one cluster


def test_one_report_holds_both_planes_of_a_cluster(serve, inside, tmp_path):
    gcp, api = serve(cluster("shop")), inside()
    connect(gcp, "shop", api)
    found = scan()
    assert (found.code, found.gaps) == (0, [])
    row = found.row()
    assert (row["uid"], row["control_plane"], row["data_plane"]) == (UID, "complete", "complete")
    id = f"//container.googleapis.com/projects/{PROD}/locations/{SEOUL}/clusters/shop"
    assert (row["id"], row["id_source"], row["cloud_id"]) == (id, "cloud", id)
    assert (row["provider"], row["account"], row["region"]) == ("gcp", PROD, SEOUL)
    assert row["tags"] == {"team": "platform"}  # others may hold anything
    refs = {(f["category"], f["cluster"]["id"], f["cluster"]["uid"]) for f in found.report["findings"] if f["cluster"]}
    assert refs == {(plane, id, UID) for plane in ("control_plane", "data_plane", "vulnerability")}
    assert "fail" in {f["status"] for f in found.report["findings"] if f["check"] == PRIVILEGED}
    assert found.report["coverage"]["clusters"] == {"expected": 1, "judged": 1, "partial": 0, "unread": 0}
    assert found.report["coverage"]["accounts"] == {"expected": 1, "read": 1, "refused": 0}

    alone = scan_kubeconfig(api.kubeconfig(tmp_path / "config"))
    assert alone.statuses("data_plane") == found.statuses("data_plane")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["CVE-1"], {"on-amd64": ("fail", "vulnerable"), "on-arm64": ("unknown", "not_scanned")}),
        ([], {"on-amd64": ("pass", ""), "on-arm64": ("unknown", "not_scanned")}),
    ],
)
def test_what_runs_is_judged_by_what_google_found_in_its_image(serve, inside, found, expected):
    """The node tells the digest of the index, of which Google scans one platform."""
    at = uri("images/app")
    image = index("images/app", "v1", platforms={f"linux/{arch}": digest(arch) for arch in ("arm64", "amd64")})
    said = [analysis(at, lastScanTime=datetime.now(UTC).isoformat()), *(vulnerability(at, id) for id in found)]
    gcp = serve(
        estate=Estate.of(
            Project(PROD, clusters=[cluster("shop")], repositories=[repository()], images=[image], occurrences=said)
        )
    )
    connect(gcp, "shop", inside(*(item for arch in ("amd64", "arm64") for item in runs_on(arch, at))))
    report = scan().report
    told = [f for f in report["findings"] if f["check"] == "gcp-running-image-vulns" and f["resource"]["kind"] == "Pod"]
    assert {f["resource"]["name"]: (f["status"], f["reason"] or "") for f in told} == expected


def runs_on(arch, image):
    """A node, and a pod on it."""
    node = {
        "kind": "Node",
        "metadata": {"name": arch, "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": arch}},
        "status": {"nodeInfo": {"operatingSystem": "linux", "architecture": arch}},
    }
    name = image.partition("@")[0]
    running = {"name": "a", "image": f"{name}:v1", "imageID": image}
    status = {"phase": "Running", "containerStatuses": [running]}
    item = pod(container(image=f"{name}:v1"), name=f"on-{arch}", namespace="a", nodeName=arch)
    return node, merged(item, {"status": status})


def test_the_token_is_shown_to_google_and_to_the_clusters_that_it_names(serve, inside):
    one, two = inside(), inside(uid=OTHER_UID)
    gcp = serve(cluster("one"), cluster("two"))
    connect(gcp, "one", one)
    connect(gcp, "two", two)
    assert scan().code == 0
    assert gcp.tokens == [SCANNER]  # one for everything
    [token] = bearers(gcp)
    assert token.startswith("ya29.")
    assert (bearers(one), bearers(two)) == ({token}, {token})


@pytest.mark.parametrize("misled", ["authority", "redirect", "name"])
def test_no_other_server_is_shown_a_token(serve, inside, monkeypatch, misled):
    gcp, api, other = serve(by_dns("shop")), inside(), inside()
    connect(gcp, "shop", api)
    listed = gcp.estate.cluster("shop")
    if misled == "authority":  # somebody else answers at the address
        gcp.estate.connect("shop", f"127.0.0.1:{other.port}", api.tls.ca)
        listed["controlPlaneEndpointsConfig"]["dnsEndpointConfig"] = {}
    elif misled == "redirect":
        listed["controlPlaneEndpointsConfig"]["dnsEndpointConfig"] = {}
        api.inject("/api", lead_away(other.url))
    else:
        listed["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["endpoint"] = "shop.gke.goog.example"
        resolve(monkeypatch, {"shop.gke.goog.example": other.port})
    gcp.load(gcp.estate)
    found = scan()
    assert (found.code, found.planes()) == (3, {"shop": ("complete", "not_read")})
    assert other.requests == []
    assert bool(api.requests) == (misled == "redirect")


def test_clusters_of_one_name_in_two_projects_and_places_are_three(serve, inside):
    one, two, three = inside(), inside(uid=OTHER_UID), inside(uid="third")
    twins = [cluster("twin"), cluster("twin", location=IOWA)]
    gcp = serve(estate=Estate.of(Project(PROD, clusters=twins), Project(DEV, clusters=[cluster("twin", project=DEV)])))
    for item, api in ((twins[0], one), (twins[1], two), (gcp.estate.cluster("twin", DEV), three)):
        item["endpoint"] = f"127.0.0.1:{api.port}"
        item["masterAuth"] = {"clusterCaCertificate": base64.b64encode(api.tls.ca).decode()}
    gcp.load(gcp.estate)
    found = scan("--project", PROD, "--project", DEV)
    assert (found.code, found.gaps, len(found.report["clusters"])) == (0, [], 3)
    places = {(c["account"], c["region"]): c["uid"] for c in found.report["clusters"]}
    assert places == {(PROD, SEOUL): UID, (PROD, IOWA): OTHER_UID, (DEV, SEOUL): "third"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_scan_and_bundles_agree_on_a_cluster_and_its_findings(serve, inside, tmp_path, order):
    gcp, api = serve(cluster("shop")), inside()
    connect(gcp, "shop", api)
    whole = scan()
    config = api.kubeconfig(tmp_path / "config")
    bundles = (
        collect(tmp_path / "gke", "gke"),
        collect(tmp_path / "inside", "kubeconfig", "--kubeconfig", config),
    )
    found = evaluate(*[bundles[number] for number in order])
    assert (found.code, found.row()["id"], found.row()["uid"]) == (0, whole.row()["id"], UID)
    assert found.statuses() == whole.statuses()
    assert found.report["summary"]["by_status"] == whole.report["summary"]["by_status"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(
    "known_by", ["authority", "authority of another endpoint", "name", "name of a closed endpoint"]
)
def test_a_bundle_from_inside_stands_in_for_an_api_server_that_was_not_read(
    serve, inside, tmp_path, monkeypatch, known_by, order
):
    """One row needs the key of the API server, which is known without asking it, or even a way to it."""
    host = dns_name("shop")
    by_name = known_by.startswith("name")
    api = inside(tls=tls(host) if by_name else tls())
    listed = cluster("shop", controlPlaneEndpointsConfig={"ipEndpointsConfig": {"enabled": not by_name}})
    if known_by in ("authority of another endpoint", "name"):
        listed["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["allowExternalTraffic"] = True
    gcp = serve(listed)
    if not by_name:
        connect(gcp, "shop", api)
    bundles = [collect(tmp_path / "gke", "gke", *CONTROL)]
    resolve(monkeypatch, {host: api.port})
    config = api.kubeconfig(tmp_path / "config", cluster={"server": f"https://{host}:443"} if by_name else {})
    bundles.append(collect(tmp_path / "inside", "kubeconfig", "--kubeconfig", config))
    found = evaluate(*[bundles[number] for number in order])
    assert (found.code, found.planes()) == (0, {"shop": ("complete", "complete")})
    assert (found.row()["uid"], found.row()["account"]) == (UID, PROD)


def test_bundles_of_other_clusters_stay_apart(serve, inside, tmp_path):
    gcp, api, other = serve(cluster("shop")), inside(), inside(uid=OTHER_UID)
    connect(gcp, "shop", api)
    config = other.kubeconfig(tmp_path / "config")
    found = evaluate(
        collect(tmp_path / "gke", "gke"), collect(tmp_path / "other", "kubeconfig", "--kubeconfig", config)
    )
    assert {c["uid"] for c in found.report["clusters"]} == {UID, OTHER_UID}


# -- the endpoint with a name


@pytest.fixture
def by_name(serve, inside, monkeypatch, tmp_path):
    """A cluster that is reached by its DNS endpoint, which a public authority vouches for."""

    def start(**endpoints):
        host = dns_name("shop")
        gcp, api = serve(by_dns("shop", **endpoints)), inside(tls=tls(host))
        resolve(monkeypatch, {host: api.port})
        (tmp_path / "system.pem").write_bytes(api.tls.ca)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
        return gcp, api

    return start


@pytest.mark.parametrize("endpoints", [{}, {"ipEndpointsConfig": {"enabled": False}}])
def test_a_cluster_is_read_through_its_dns_endpoint(by_name, endpoints):
    gcp, api = by_name(**endpoints)
    found = scan()
    assert (found.code, found.gaps, found.planes()) == (0, [], {"shop": ("complete", "complete")})
    assert found.row()["uid"] == UID
    assert {r.headers["host"] for r in api.requests} == {dns_name("shop")}
    assert bearers(api) == bearers(gcp)


def test_a_dns_endpoint_that_nobody_vouches_for_is_shown_no_token(by_name, monkeypatch):
    _, api = by_name()
    monkeypatch.delenv("SSL_CERT_FILE")
    found = scan()
    assert (found.code, found.planes(), api.requests) == (3, {"shop": ("complete", "not_read")}, [])


def test_without_an_endpoint_for_us_nobody_is_asked(serve):
    endpoints = {"ipEndpointsConfig": {"enabled": False}}
    serve(cluster("shop", controlPlaneEndpointsConfig=endpoints))
    found = scan()
    assert (found.code, found.planes()) == (3, {"shop": ("complete", "not_read")})
    assert {g["reason"] for g in found.gaps} == {"unreachable"}
    assert all("--enable-dns-access" in g["detail"] for g in found.gaps)


# -- insides that cannot be read


@pytest.mark.parametrize("code", [401, 403])
def test_an_api_server_that_lets_nobody_in_says_which_role_is_missing(serve, inside, code):
    gcp, api = serve(cluster("shop")), inside()
    connect(gcp, "shop", api)
    api.inject("/api", refuse_inside(code))
    found = scan()
    assert (found.code, found.planes()) == (3, {"shop": ("complete", "not_read")})
    forbidden = [g for g in found.gaps if g["reason"] == "forbidden"]
    assert forbidden
    wanted = f"bind a ClusterRole that may read to {SCANNER}, or give it roles/container.viewer in {PROD}"
    assert all(wanted in g["detail"] for g in forbidden)
    assert "clusters.connect" not in found.text
    unknown = [f for f in found.about("shop") if f["category"] == "data_plane"]
    assert {f["status"] for f in unknown} == {"unknown"}
    assert "roles/container.viewer" in unknown[0]["message"]


def test_the_role_is_for_the_account_that_is_acted_as(serve, inside):
    gcp, api = serve(cluster("shop")), inside()
    connect(gcp, "shop", api)
    api.inject("/api", refuse_inside(403))
    found = scan("--impersonate", AUDITOR)
    assert f"may read to {AUDITOR}," in found.gaps[0]["detail"]


@pytest.mark.parametrize("email", ["me@example.com", f"{SCANNER}; rm -rf /", ""])
def test_an_account_without_a_usable_name_is_not_named(serve, inside, monkeypatch, tmp_path, email):
    gcp, api = serve(cluster("shop")), inside()
    connect(gcp, "shop", api)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcp.key_file(tmp_path, client_email=email))
    api.inject("/api", refuse_inside(403))
    found = scan()
    assert "may read to the account that scans, or" in found.gaps[0]["detail"]


def test_a_dns_endpoint_takes_a_permission_too(by_name):
    _, api = by_name()
    api.inject("/", refuse_inside(403))
    found = scan()
    assert found.code == 3
    assert "container.clusters.connect" in found.gaps[0]["detail"]


def test_rights_in_some_namespaces_only_are_no_reason_to_advise(serve, inside):
    gcp, api = serve(cluster("shop")), inside()
    connect(gcp, "shop", api)
    api.deny("pods")
    found = scan()
    assert (found.code, found.planes()) == (3, {"shop": ("complete", "partial")})
    assert "roles/container.viewer" not in found.text


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({}, "its endpoint is private: "),
        ({"masterAuth": ABSENT}, ""),
        ({"masterAuth": {"clusterCaCertificate": "no base64"}}, ""),
        ({"masterAuth": {"clusterCaCertificate": "aGVsbG8="}}, ""),
        ({"endpoint": ABSENT}, "--enable-dns-access"),
        ({"endpoint": "shop.example"}, ""),
        ({"endpoint": "127.0.0.1:99999"}, ""),
    ],
)
def test_an_api_server_that_cannot_be_reached_leaves_the_control_plane_judged(serve, changes, hint):
    gcp = serve(cluster("shop"))
    gcp.estate.connect("shop", CLOSED, tls().ca)
    clean = scan(*CONTROL)
    [item] = gcp.estate.projects[PROD].clusters
    item |= changes
    for key in [key for key, value in item.items() if value is ABSENT]:
        del item[key]
    gcp.load(gcp.estate)
    found = scan("--request-timeout", "1")
    assert (found.code, found.planes()) == (3, {"shop": ("complete", "not_read")})
    same = {id: s for id, s in found.statuses("control_plane").items() if s != "unknown"}
    assert same.items() <= clean.statuses("control_plane").items()
    assert clean.statuses("control_plane").keys() <= found.statuses("control_plane").keys()
    assert {f["status"] for f in found.findings.values() if f["category"] == "data_plane"} == {"unknown"}
    assert all(g["reason"] in ("unreachable", "timeout", "bad_data", "not_configured") for g in found.gaps)
    assert all(hint in g["detail"] for g in found.gaps)


@pytest.mark.parametrize("state", ["PROVISIONING", "STOPPING"])
def test_a_cluster_that_is_not_to_be_judged_is_listed(serve, inside, state):
    gcp, api = serve(bad_cluster("odd", status=state)), inside()
    connect(gcp, "odd", api)
    found = scan()
    assert (found.code, found.gaps, api.requests) == (0, [], [])
    assert found.planes() == {"odd": ("complete", "not_asked")}
    about = found.about("odd")
    assert len(about) > 30
    assert {f["status"] for f in about} == {"not_applicable"}
    assert "lifecycle" in {f["reason"] for f in about} <= {"lifecycle", "no_subjects"}


@pytest.mark.parametrize("state", ["RECONCILING", "ERROR", "DEGRADED"])
def test_a_cluster_in_any_other_state_is_judged(serve, state):
    serve(bad_cluster("odd", status=state))
    assert "fail" in set(scan(*CONTROL).verdicts("odd").values())


# -- what is judged


def test_the_last_of_twelve_clusters_is_judged_like_the_first(serve):
    serve(*(cluster(f"gke-{n:02}") for n in range(11)), cluster("gke-99", legacyAbac={"enabled": True}))
    found = scan(*ABAC)
    statuses = {f["cluster"]["name"]: f["status"] for f in found.report["findings"]}
    assert len(statuses) == 12
    assert {name for name, text in statuses.items() if text == "fail"} == {"gke-99"}
    assert (found.code, found.report["summary"]["by_status"]["fail"]) == (0, 1)
    assert kubeposture("scan", "gke", *ABAC, "--fail-on", "high").code == 1


def test_of_four_pools_the_last_is_judged_like_the_first(serve):
    pools = [*(pool(f"pool-{n}") for n in (1, 2, 3)), bad_cluster()["nodePools"][-1]]
    serve(cluster("good"), cluster("last", nodePools=pools))
    found = scan(*CONTROL)
    good, last = found.verdicts("good"), found.verdicts("last")
    of_clusters = ("auto-repair", "auto-upgrade", "private-cluster")
    for check in of_clusters:
        assert (good[f"gcp-gke-{check}"], last[f"gcp-gke-{check}"]) == ("pass", "fail"), check
    bad = {(f["check"], f["resource"]["name"]) for f in found.about("last") if f["status"] == "fail"}
    for check in ("integrity-monitoring", "secure-boot", "metadata-server", "legacy-metadata"):
        assert [name for known, name in bad if known == f"gcp-gke-{check}"] == ["pool-4"], check


def test_autopilot_is_judged_by_what_google_says_of_it(serve):
    serve(autopilot("auto"))
    found = scan(*CONTROL)
    assert (found.code, found.gaps) == (0, [])
    verdicts = found.verdicts("auto")
    assert {verdicts[f"gcp-gke-{check}"] for check in ("alias-ip", "network-policy", "auto-repair")} == {"pass"}
    assert not [check for check, text in verdicts.items() if text == "fail" and check.startswith("gcp-gke-auto")]


def test_an_alpha_cluster_is_found(serve):
    serve(cluster("good"), cluster("alpha", enableKubernetesAlpha=True))
    found = scan(*CONTROL, "-c", "gcp-gke-alpha-cluster")
    assert {f["cluster"]["name"]: f["status"] for f in found.findings.values()} == {"good": "pass", "alpha": "fail"}


def test_values_that_are_too_new_are_unknown_and_never_good(serve):
    """An enum's value that the client library does not know arrives as a number."""
    new = cluster(
        "new",
        databaseEncryption={"state": 99, "currentState": 99},
        binaryAuthorization={"evaluationMode": 99},
        networkConfig={"datapathProvider": 99},
        releaseChannel={"channel": 99},
        securityPostureConfig={"mode": 99},
        anonymousAuthenticationConfig={"mode": 99},
    )
    serve(cluster("good"), new)
    found = scan(*CONTROL)
    good, now = found.verdicts("good"), found.verdicts("new")
    assert found.code in (3, 4)
    for check in ("secrets-cmek", "binary-authorization", "release-channel", "security-posture", "anonymous-auth"):
        assert good[f"gcp-gke-{check}"] == "pass", check
        assert now[f"gcp-gke-{check}"] == "unknown", check
    assert now["gcp-gke-network-policy"] != "pass"


def test_absent_settings_are_never_taken_for_good(serve):
    bare = {key: cluster("bare")[key] for key in ("name", "location", "status", "currentMasterVersion")}
    serve(bare)
    verdicts = scan(*CONTROL).verdicts("bare")
    assert len(verdicts) > 30
    for check in ("authorized-networks", "alias-ip", "private-cluster", "network-policy", "workload-identity"):
        assert verdicts[f"gcp-gke-{check}"] in ("fail", "unknown"), check
    for check in ("secrets-cmek", "shielded-nodes", "release-channel", "google-groups", "intranode-visibility"):
        assert verdicts[f"gcp-gke-{check}"] != "pass", check


def test_a_cluster_of_which_nothing_is_said_is_unknown_to_every_check(serve):
    serve(cluster("shop"), {key: cluster("mute")[key] for key in ("name", "location")})
    found = scan(*CONTROL)
    assert (found.code, found.planes()["mute"]) == (3, ("not_read", "not_asked"))
    assert found.verdicts("mute").keys() >= found.verdicts("shop").keys()
    assert set(found.verdicts("mute").values()) == {"unknown"}
    assert found.report["coverage"]["clusters"]["unread"] == 1


def test_repositories_are_judged_in_the_project(serve):
    public = bad_repository()
    held = Project(
        PROD,
        clusters=[cluster("shop")],
        repositories=[repository(), public],
        policies={public["name"]: policy("user:ci@example.com", "allUsers")},
    )
    serve(estate=Estate.of(held))
    found = scan(*CONTROL, "-c", "gcp-gar-public")
    assert {f["resource"]["name"]: f["status"] for f in found.findings.values()} == {"images": "pass", "public": "fail"}
    assert {(f["account"], f["region"], f["cluster"]) for f in found.findings.values()} == {(PROD, SEOUL, None)}


# -- projects


@pytest.fixture
def company(serve):
    """An organization: Production, Development two folders down, and a project that uses no containers."""
    return serve(estate=sample_estate())


def test_by_default_the_project_of_the_credentials_is_read(company):
    found = scan(*CONTROL)
    assert (found.code, found.gaps) == (0, [])
    assert found.rows.keys() == {"gke-shop", "gke-auto", "gke-old"}
    assert {r.path for r in company.requests if r.method == "ListClusters"} == {f"projects/{PROD}/locations/-"}


def test_projects_are_read_once_each(company):
    found = scan(*CONTROL, "--project", DEV, "--project", PROD, "--project", DEV)
    assert (found.code, found.gaps, len(found.rows), found.expected()) == (0, [], 4, 4)
    assert found.report["coverage"]["accounts"] == {"expected": 2, "read": 2, "refused": 0}
    assert sorted(r.path.split("/")[1] for r in company.requests if r.method == "ListClusters") == [DEV, PROD]


@pytest.mark.parametrize(
    ("parent", "projects"),
    [
        (("--organization", ORGANIZATION), [DEV, PROD, EMPTY]),
        (("--organization", ORGANIZATION.partition("/")[2]), [DEV, PROD, EMPTY]),
        (("--folder", "100"), [DEV, EMPTY]),
        (("--folder", "200"), [DEV]),
        (("--folder", "100", "--folder", "200", "--project", PROD), [DEV, PROD, EMPTY]),
    ],
)
def test_every_project_below_is_read(company, parent, projects):
    found = scan(*CONTROL, *parent)
    assert (found.code, found.gaps) == (0, [])
    assert sorted(r.path.split("/")[1] for r in company.requests if r.method == "ListClusters") == projects
    with_clusters = {PROD, DEV} & set(projects)
    assert {c["account"] for c in found.report["clusters"]} == with_clusters
    # Below an organization a project that does not use containers is nothing to tell of.
    assert found.report["coverage"]["accounts"] == {
        "expected": len(with_clusters),
        "read": len(with_clusters),
        "refused": 0,
    }


def test_a_project_without_gke_that_was_asked_for_has_no_clusters(company):
    found = scan(*CONTROL, "--project", EMPTY)
    assert (found.code, found.gaps, found.rows, found.expected()) == (0, [], {}, 0)
    assert found.report["scan"]["complete"] is True
    assert found.report["coverage"]["accounts"] == {"expected": 1, "read": 1, "refused": 0}


@pytest.mark.parametrize("named", [("--project", EMPTY), ("--organization", ORGANIZATION)])
def test_an_api_that_is_off_in_the_project_that_is_charged_proves_nothing(company, named):
    """The same refusal, but it names the project of the credentials: that one's clusters nobody could count."""
    message, detail = disabled("container", f"projects/{number(PROD)}")
    company.inject_call(refuse("PERMISSION_DENIED", message, detail), project=EMPTY)
    found = scan(*CONTROL, *named)
    assert (found.code in (3, 4), found.expected()) == (True, None)
    [gap] = found.gaps
    assert (gap["what"], gap["reason"], gap["account"]) == (CLUSTERS, "forbidden", EMPTY)
    assert f"not enabled in projects/{number(PROD)}, which is not this project" in gap["detail"]
    assert found.report["coverage"]["accounts"]["refused"] == 1
    unknown = {f["check"] for f in found.findings.values() if (f["account"], f["status"]) == (EMPTY, "unknown")}
    assert "gcp-gke-legacy-abac" in unknown


def test_a_project_that_is_refused_is_a_gap_and_the_others_are_read(company):
    company.deny("container.clusters.list", DEV)
    found = scan(*CONTROL, "--organization", ORGANIZATION)
    assert (found.code, found.rows.keys()) == (3, {"gke-shop", "gke-auto", "gke-old"})
    assert found.expected() is None
    assert found.report["coverage"]["accounts"] == {"expected": 2, "read": 1, "refused": 1}
    [gap] = found.gaps
    assert (gap["what"], gap["provider"], gap["account"]) == (CLUSTERS, "gcp", DEV)
    assert (gap["permission"], gap["cluster_id"]) == ("container.clusters.list", None)
    refused = [f for f in found.findings.values() if f["account"] == DEV and f["resource"]["name"] == "*"]
    assert {f["status"] for f in refused} == {"unknown"}
    assert all("container.clusters.list" in f["message"] for f in refused)
    score = found.report["summary"]["score"]
    assert (score["low"], score["high"]) == (0, 100)
    # Its repositories could be read, and still are.
    assert "dev" in {f["resource"]["name"] for f in found.findings.values() if f["status"] == "pass"}


def test_a_project_that_is_not_there_is_a_gap(company):
    found = scan(*CONTROL, "--project", "no-such-project")
    assert (found.code, found.rows, found.expected()) == (4, {}, None)
    assert {(g["account"], g["reason"]) for g in found.gaps} == {("no-such-project", "forbidden")}


@pytest.mark.parametrize("what", ["projects", "folders"])
@pytest.mark.parametrize("place", [ORGANIZATION, "folders/200"])
def test_a_folder_that_may_not_be_listed_is_a_gap_and_the_rest_is_read(company, what, place):
    company.deny(f"resourcemanager.{what}.list", place)
    found = scan(*CONTROL, "--organization", ORGANIZATION)
    assert (found.code, found.expected()) == (3, None)
    assert {(g["account"], g["permission"]) for g in found.gaps} == {(ORGANIZATION, f"resourcemanager.{what}.list")}
    assert all(place in g["detail"] for g in found.gaps)
    unread = PROD if place == ORGANIZATION else DEV  # whose projects, or whose folder, nobody could list
    unread = {"projects": {unread}, "folders": {DEV} if place == ORGANIZATION else set()}[what]
    assert {c["account"] for c in found.report["clusters"]} == {PROD, DEV} - unread


def test_all_that_is_missing_below_an_organization_is_told_at_once(company):
    for what in ("projects", "folders"):
        company.deny(f"resourcemanager.{what}.list")
    found = scan(*CONTROL, "--organization", ORGANIZATION)
    assert (found.code, found.rows, found.expected()) == (4, {}, None)
    assert {g["permission"] for g in found.gaps} == {"resourcemanager.projects.list, resourcemanager.folders.list"}


def test_an_organization_without_projects_is_not_clean(serve):
    serve(estate=Estate.of(Project(PROD, parent="folders/1")))
    found = scan(*CONTROL, "--organization", ORGANIZATION)
    assert (found.code, found.expected()) == (4, None)
    assert found.gaps[0]["detail"].startswith("Google listed no active project")


def test_locations_that_did_not_answer_are_a_gap(serve):
    serve(estate=Estate.of(Project(PROD, clusters=[cluster("shop")], missing=["us-east1", "us-west1-a"])))
    found = scan(*CONTROL)
    assert (found.code, list(found.rows), found.expected()) == (3, ["shop"], None)
    assert sorted((g["reason"], g["what"]) for g in found.gaps) == [("location_missing", CLUSTERS)] * 2
    assert all(place in found.text for place in ("us-east1", "us-west1-a"))
    missed = [f for f in found.findings.values() if f["resource"]["name"] == "*"]
    assert {f["check"] for f in missed} >= {"gcp-gke-legacy-abac"}
    assert {f["status"] for f in missed} == {"unknown"}
    assert found.verdicts("shop")["gcp-gke-legacy-abac"] == "pass"


# -- a Google that is ill


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_what_fails_and_then_works_is_read(serve, code):
    gcp = serve(bad_cluster("shop"))
    gcp.inject_call(refuse(code), times=2)
    gcp.inject("/locations$", status(503), times=1)
    found = scan(*CONTROL)
    assert (found.code, found.gaps, list(found.rows)) == (0, [], ["shop"])
    assert len([r for r in gcp.requests if r.method == "ListClusters"]) == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (refuse("PERMISSION_DENIED"), "forbidden"),
        (refuse("UNAUTHENTICATED"), "forbidden"),
        (refuse("NOT_FOUND"), "not_found"),
        (refuse("RESOURCE_EXHAUSTED"), "throttled"),
        (refuse("UNAVAILABLE"), "server_error"),
        (refuse("INTERNAL"), "server_error"),
        (garbage(), "bad_data"),
        (garbage(b"\x0a\x03abc"), "bad_data"),
        (silent(), "timeout"),
    ],
)
def test_what_never_works_is_never_clean(serve, fault, reason):
    gcp = serve(bad_cluster("shop"))
    gcp.inject_call(fault)
    found = scan(*CONTROL, "--request-timeout", "1", "-c", "gcp-gke-*")
    assert (found.code in (3, 4), found.rows, found.expected()) == (True, {}, None)
    assert {g["reason"] for g in found.gaps} == {reason}
    assert {f["status"] for f in found.findings.values()} == {"unknown"}
    assert "gcp-gke-legacy-abac" in {f["check"] for f in found.findings.values()}


def test_a_silent_google_costs_one_deadline(serve):
    gcp = serve(cluster("shop"))
    gcp.inject_call(silent())
    started = time.monotonic()
    scan(*CONTROL, "--request-timeout", "1", "-c", "gcp-gke-*")
    assert time.monotonic() - started < 10  # its own client asks for twenty seconds
    assert len([r for r in gcp.requests if r.method == "ListClusters"]) == 1


def test_a_silent_api_server_leaves_the_rest_judged(serve, inside):
    gcp, api = serve(cluster("shop"), cluster("mute")), inside()
    connect(gcp, "shop", api)
    other = inside(uid=OTHER_UID)
    other.inject("/", hang())
    connect(gcp, "mute", other)
    found = scan("--request-timeout", "1")
    assert found.planes() == {"shop": ("complete", "complete"), "mute": ("complete", "not_read")}
    assert {g["reason"] for g in found.gaps if g["cluster"] == "mute"} == {"timeout"}


# -- who asks


def test_without_credentials_nothing_is_clean(serve, monkeypatch):
    gcp = serve(cluster("shop"))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    found = scan(*CONTROL)
    assert (found.code in (3, 4), found.rows, gcp.requests) == (True, {}, [])
    assert {g["reason"] for g in found.gaps} == {"not_configured"}
    assert "gcloud auth application-default login" in found.gaps[0]["detail"]
    assert {f["status"] for f in found.findings.values()} == {"unknown"}


def test_credentials_without_a_project_say_what_to_name(serve, monkeypatch, tmp_path):
    gcp = serve(cluster("shop"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcp.key_file(tmp_path, project_id=None))
    found = scan(*CONTROL)
    assert (found.code in (3, 4), found.rows, gcp.requests) == (True, {}, [])
    assert "--project" in found.gaps[0]["detail"]
    assert scan(*CONTROL, "--project", PROD).code == 0


def test_another_service_account_can_be_acted_as(serve, inside):
    gcp, api = serve(cluster("shop")), inside()
    connect(gcp, "shop", api)
    found = scan("--impersonate", AUDITOR)
    assert (found.code, found.gaps, gcp.tokens) == (0, [], [SCANNER, AUDITOR])
    assert len(bearers(gcp)) == 1
    assert bearers(gcp) == bearers(api)


def test_a_service_account_that_may_not_be_acted_as(serve):
    gcp = serve(cluster("shop"))
    named = info("IAM_PERMISSION_DENIED", permission="iam.serviceAccounts.getAccessToken")
    gcp.inject(":generateAccessToken", status(403, "denied", named))
    found = scan(*CONTROL, "--impersonate", AUDITOR)
    assert (found.code in (3, 4), found.rows, gcp.requests) == (True, {}, [])
    assert {g["permission"] for g in found.gaps} == {"iam.serviceAccounts.getAccessToken"}
    assert AUDITOR in found.gaps[0]["detail"]


@pytest.mark.parametrize(
    "args",
    [
        ("--project", "Shop Production"),
        ("--project", number(PROD)),
        ("--project", ""),
        ("--organization", "example.com"),
        ("--folder", "organizations/12"),
        ("--impersonate", "me@example.com"),
        ("--gcp-endpoint", "container"),
        ("--gcp-endpoint", "container=http://example.com"),
        ("--gcp-endpoint", "compute=https://example.com"),
        ("--tag", "=x"),
    ],
)
def test_options_that_cannot_be_used_are_usage_errors(serve, args):
    gcp = serve(cluster("shop"))
    result = kubeposture("scan", "gke", *args)
    assert (result.code, result.stdout, gcp.requests, gcp.tokens) == (2, "", [], [])
    assert result.stderr.startswith("kubeposture: ")


# -- filters, planes and checks


@pytest.fixture
def three(serve):
    return serve(
        cluster("shop-prod", resourceLabels={"team": "shop", "env": "prod"}),
        cluster("shop-test", resourceLabels={"team": "shop", "env": "test"}),
        cluster("bank", resourceLabels=ABSENT),
    )


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ((), ["bank", "shop-prod", "shop-test"]),
        (("--cluster", "bank"), ["bank"]),
        (("--cluster", "SHOP-*"), ["shop-prod", "shop-test"]),
        (("--tag", "team"), ["shop-prod", "shop-test"]),
        (("--tag", "team=shop", "--tag", "env=test"), ["shop-test"]),
        (("--cluster", "*-prod", "--tag", "team"), ["shop-prod"]),
    ],
)
def test_clusters_are_chosen_by_name_and_tag(three, filters, names):
    found = scan(*CONTROL, *filters)
    assert (found.code, found.gaps, list(found.rows)) == (0, [], names)


def test_tags_that_no_cluster_has_are_told(three):
    found = scan(*CONTROL, "--tag", "team=bank")
    assert (found.code in (3, 4), list(found.rows)) == (True, ["team=bank"])
    assert found.gaps[0]["detail"] == "no cluster that this identity sees has these tags"


@pytest.mark.parametrize("planes", ["control", "data", "both"])
def test_a_cluster_that_was_asked_for_and_is_not_there_is_named(three, planes):
    found = scan("--planes", planes, "--cluster", "shop-prd")
    assert found.code in (3, 4)
    assert "'shop-prd'" in found.gaps[0]["detail"]
    assert found.planes().keys() == {"shop-prd"}


def test_a_cluster_is_not_missed_before_the_last_project_is_listed(company):
    found = scan(*CONTROL, "--organization", ORGANIZATION, "--cluster", "gke-dev")
    assert (found.code, found.gaps, list(found.rows)) == (0, [], ["gke-dev"])


def test_what_is_not_asked_for_is_not_incomplete(serve, inside):
    gcp, api = serve(cluster("shop")), inside()
    connect(gcp, "shop", api)
    found = scan(*CONTROL)
    assert (found.code, found.planes(), api.requests) == (0, {"shop": ("complete", "not_asked")}, [])
    assert {f["category"] for f in found.report["findings"]} == {"control_plane", "vulnerability"}
    assert not [f for f in found.report["findings"] if f["check"].endswith("running-image-vulns")]


@pytest.mark.parametrize("args", [("--planes", "data"), ("-c", "k8s-*")])
def test_the_inside_alone_asks_google_only_for_clusters(serve, inside, args):
    gcp, api = serve(cluster("shop")), inside()
    connect(gcp, "shop", api)
    found = scan(*args, "-e", "gcp-*-image-vulns", "-e", "*-registry-image-vulns")
    assert (found.code, found.gaps, found.planes()) == (0, [], {"shop": ("not_asked", "complete")})
    assert [r.method for r in gcp.requests] == ["ListClusters"]


LIST, PLACES = "ListClusters", "/v1/projects/*/locations"


@pytest.mark.parametrize(
    ("check", "asked"),
    [
        ("gcp-gke-legacy-abac", {LIST}),
        ("gcp-gke-boot-disk-cmek", {LIST}),
        ("gcp-gar-immutable-tags", {LIST, PLACES, f"{PLACES}/*/repositories"}),
        ("gcp-gar-public", {LIST, PLACES, f"{PLACES}/*/repositories", f"{PLACES}/*/repositories/*:getIamPolicy"}),
    ],
)
def test_one_check_asks_only_for_what_it_needs(company, check, asked):
    found = scan(*CONTROL, "-c", check)
    assert (found.code, found.gaps) == (0, [])
    assert {f["check"] for f in found.report["findings"]} == {check}
    parts = r"(?<=projects/)[^/]+|(?<=locations/)[^/]+|(?<=repositories/)[^/:]+"
    assert {LIST if r.method == LIST else re.sub(parts, "*", r.path) for r in company.requests} == asked


def test_no_check_of_a_plane_is_a_usage_error(serve):
    gcp = serve(cluster("shop"))
    for args in (("--planes", "data", "-c", "gcp-gke-legacy-abac"), ("-c", "azure-aks-rbac")):
        result = kubeposture("scan", "gke", *args)
        assert (result.code, result.stdout, gcp.requests) == (2, "", [])


def test_a_project_without_clusters_is_complete(serve):
    serve()
    found = scan()
    assert (found.code, found.gaps, found.rows, found.expected()) == (0, [], {}, 0)
    assert found.report["scan"]["complete"] is True
    assert found.report["coverage"]["accounts"] == {"expected": 1, "read": 1, "refused": 0}


def test_a_denied_list_leaves_the_inside_of_unlisted_clusters_unknown(serve):
    serve(cluster("shop")).deny("container.clusters.list")
    found = scan("-c", PRIVILEGED, "--planes", "data")
    assert found.code in (3, 4)
    assert PROD in {f["account"] for f in found.report["findings"] if f["status"] == "unknown"}


# -- hostile texts and secrets


def test_hostile_labels_and_names_reach_no_terminal(serve):
    escape, override = "\x1b[2J\x1b]0;owned\x07", "\u202eevil"
    odd = cluster("odd", resourceLabels={f"key{escape}": f"value{override}"})
    odd["currentMasterVersion"] = f"1.34{escape}"
    odd["nodePools"][-1] = pool(f"pool{escape}{override}", management=ABSENT)
    nameless = cluster(f"..{escape}/../x")
    serve(odd, nameless)
    found = scan(*CONTROL)
    assert (found.code, list(found.rows)) == (3, ["odd"])
    assert [g["reason"] for g in found.gaps] == ["bad_data"]
    table = kubeposture("scan", "gke", *CONTROL, "-v", "--status", "all", "--color", "never")
    for text in (table.stdout, table.stderr, found.error):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_no_output_shows_a_secret(serve, inside, tmp_path):
    gcp, api = serve(estate=sample_estate(), page_size=2), inside()
    connect(gcp, "gke-shop", api)
    connect(gcp, "gke-old", api)
    gcp.deny("artifactregistry.repositories.getIamPolicy", DEV)
    outputs = [f"-o{name}={tmp_path / name}" for name in ("json", "ndjson", "ocsf", "table")]
    shared = ("--organization", ORGANIZATION, "--impersonate", AUDITOR, "-v")
    scanned = kubeposture("scan", "gke", *shared, *outputs, "-o", "json", "--status", "all")
    assert scanned.code == 3
    assert scanned.stdout.count('"status"') > 100
    texts = [scanned.stdout, scanned.stderr]
    texts += [(tmp_path / name).read_text() for name in ("json", "ndjson", "ocsf", "table")]
    bundle = collect(tmp_path / "bundle", "gke", *shared)
    texts.append(subprocess.run(["gzip", "-dc", bundle], capture_output=True, check=True).stdout.decode())
    key = json.loads((tmp_path / "key.json").read_text())
    secrets = {*SECRETS, "ya29.", key["private_key"].splitlines()[1], key["private_key_id"]}
    secrets |= {base64.b64encode(api.tls.ca).decode(), api.tls.ca.decode().splitlines()[1]}
    secrets |= bearers(api) | bearers(gcp)
    assert len(secrets) > 7
    assert [s[:12] for s in secrets if [t for t in texts if s in t]] == []


def test_the_command_says_nothing_that_its_libraries_say(serve):
    """gRPC and google-auth write to standard error by themselves, which only a process of its own shows."""
    serve(cluster("shop"))
    result = process("scan", "gke", *ABAC, "-o", "json", "-q", PYTHONPATH=str(ROOT))
    assert (result.code, result.stderr) == (0, "")


# -- interrupted


def test_an_interrupted_scan_lists_every_cluster_that_was_found(serve, inside, tmp_path):
    names = [f"gke-{n}" for n in range(6)]
    gcp, api = serve(*map(cluster, names)), inside()
    reached = threading.Event()
    stop = hang()

    def wait(handler):
        reached.set()
        return stop(handler)

    api.inject("/", wait)
    for name in names:
        gcp.estate.connect(name, f"127.0.0.1:{api.port}", api.tls.ca)
    gcp.load(gcp.estate)
    scanning = subprocess.Popen(
        [sys.executable, "-m", "scanner", "scan", "gke", "-o", "json=report", "-q", "--concurrency", "2"],
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
    inside_unknown = {f["cluster"]["name"] for f in report["findings"] if f["check"] == PRIVILEGED and f["cluster"]}
    assert inside_unknown == set(names)
