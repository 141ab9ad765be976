"""What leaves for Google Cloud and what comes back: Google's own libraries against a local one that misbehaves."""

import base64
import json
import os
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import gcp_data
import pytest
from gcp_data import (
    ABSENT,
    AUDITOR,
    AUTHORITY,
    DEV,
    EMPTY,
    IOWA,
    ORGANIZATION,
    PROD,
    SCANNER,
    SECRETS,
    SEOUL,
    ZONE,
    Estate,
    Folder,
    Project,
    bad_cluster,
    bad_repository,
    cluster,
    number,
    policy,
    pool,
    repository,
    sample_estate,
)
from gcpserver import (
    GcpServer,
    body,
    delay,
    disabled,
    drip,
    garbage,
    hang,
    html,
    info,
    new_key,
    redirect,
    refuse,
    reset,
    silent,
    status,
)
from google.cloud.container_v1.types import ListClustersResponse

from providers.gcp import reader, session
from providers.gcp.access import WAY, api_access, identity
from providers.gcp.errors import GcpError, UsageError, WriteRefused
from providers.gcp.reader import CLUSTERS, POLICY, REPOSITORIES, Reader
from providers.gcp.session import Session
from scanner.cloud import kept
from scanner.model import GapReason

LOCATIONS = f"/v1/projects/{PROD}/locations"
LISTS = rf"^{LOCATIONS}/{SEOUL}/repositories(\?|$)"
ALL = (CLUSTERS, REPOSITORIES, POLICY)
UNGUARDED = (CLUSTERS, REPOSITORIES)  # without policies: some repositories of these tests exist only in lists
LIST = "container.clusters.list"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No credential but the one that a test gives, no network but this machine, and no long waits."""
    for name in tuple(os.environ):
        if re.match("GOOGLE_|GCLOUD_|CLOUDSDK_|GRPC_|GCE_|REQUESTS_CA|CURL_CA|(?i:.*_proxy$)", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "_pause", lambda tried, wait: 0.01)
    connect = socket.socket.connect

    def connect_here(self, address):
        assert address[0] == "127.0.0.1", f"{address} is not this machine"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Starts a Google Cloud that gives credentials. It may never be asked for anything but reads."""

    def start(estate=None, **options):
        gcp = GcpServer(estate or sample_estate(), **options)
        servers.append(gcp.__enter__())
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcp.key_file(tmp_path))
        return gcp

    servers = []
    yield start
    for server in servers:
        server.__exit__()
        assert {request.method for request in server.requests} <= {"GET", "ListClusters"}


@pytest.fixture
def connect():
    """A session that is logged in."""

    def start(gcp, **options):
        options = {"endpoints": gcp.endpoints, "request_timeout": 10, "connections": 8} | options
        opened = Session(**options)
        sessions.append(opened)
        opened.log_in()
        return opened

    sessions = []
    yield start
    for opened in sessions:
        opened.close()


@pytest.fixture
def read(connect):
    """Everything of one project."""

    def start(gcp, project=PROD, *, kinds=ALL, **options):
        *_, found = Reader(connect(gcp, **options), kinds).read(reader.Project(project))
        return found

    return start


def one(*clusters, **more):
    return Estate.of(Project(PROD, clusters=list(clusters), **more))


def gap(gaps):
    """The only one there is."""
    [found] = gaps
    assert "\n" not in found.detail
    return found


def names(found):
    return [item.name for item in found.items]


def page(*repositories, **more):
    return body(json.dumps({"repositories": repositories} | more).encode())


def failure(opened, project=PROD):
    with pytest.raises(GcpError) as caught:
        opened.clusters(project)
    assert "\n" not in caught.value.detail
    return caught.value


def asked(gcp, path=""):
    return [request for request in gcp.requests if re.search(path, request.path)]


def patient(monkeypatch):
    """The waits between attempts, which are not waited for."""
    waits = []
    usual = session._pause
    monkeypatch.setattr(session, "_pause", lambda tried, wait: waits.append((tried, wait)) or usual(tried, wait))
    return waits


# -- what is asked for


def test_a_project_is_read_as_a_whole(serve, read):
    gcp = serve(page_size=1)
    found = read(gcp)
    assert (found.gaps, found.off) == ([], False)
    assert names(found.clusters) == ["gke-shop", "gke-auto", "gke-old"]
    assert names(found.repositories) == ["images", "public", "mirror"]
    assert (found.counts.lists_asked, found.counts.lists_read) == (9, 9)
    assert (found.counts.read, found.counts.judged) == (6, 6)
    assert len(asked(gcp, "clusters|locations/-$")) == 1  # one call for all locations
    first = found.clusters.items[0]
    assert first.id == f"//container.googleapis.com/projects/{PROD}/locations/{SEOUL}/clusters/gke-shop"
    assert (first.account, first.region, first.tags) == (PROD, SEOUL, {"env": "prod", "team": "platform"})
    assert found.clusters.items[2].region == ZONE
    last = found.repositories.items[2]
    assert last.id == f"//artifactregistry.googleapis.com/projects/{PROD}/locations/{IOWA}/repositories/mirror"
    assert (last.account, last.region, last.tags) == (PROD, IOWA, {"team": "platform"})
    assert last.wire["vulnerabilityScanningConfig"]["enablementState"] == "SCANNING_ACTIVE"


def test_a_project_is_given_twice(serve, connect):
    gcp = serve()
    steps = Reader(connect(gcp), ALL).read(reader.Project(PROD))
    found = next(steps)
    assert len(found.clusters.items) == 3
    assert not asked(gcp, "repositories")
    assert next(steps) is found
    assert len(found.repositories.items) == 3


@pytest.mark.parametrize(
    ("kinds", "paths"),
    [
        ((CLUSTERS,), {f"projects/{PROD}/locations/-"}),
        ((), {f"projects/{PROD}/locations/-"}),
        ((REPOSITORIES,), {f"projects/{PROD}/locations/-", LOCATIONS, f"{LOCATIONS}/#/repositories"}),
    ],
)
def test_only_what_the_checks_need_is_asked_for(serve, read, kinds, paths):
    gcp = serve()
    assert read(gcp, kinds=kinds).gaps == []
    assert {re.sub("locations/[^/-][^/]*", "locations/#", request.path) for request in gcp.requests} == paths


def test_policies_stand_beside_their_repositories(serve, read):
    gcp = serve()
    none, public, _ = (r.related[POLICY].all()[0] for r in read(gcp).repositories.items)
    assert none == {}
    binding = {"role": "roles/artifactregistry.reader", "members": ["allUsers"], "otherMembers": 1}
    assert public == {"bindings": [binding]}
    assert {r.query["options.requestedPolicyVersion"] for r in asked(gcp, "getIamPolicy")} == {"3"}


# -- clusters, as they are on the wire


def test_fields_know_whether_they_were_set(serve, read):
    found = cluster(
        "presence",
        addonsConfig={"kubernetesDashboard": {"disabled": ABSENT}, "networkPolicyConfig": ABSENT},
        networkConfig={"defaultEnablePrivateNodes": False},
        nodePools=[pool("set", networkConfig={"enablePrivateNodes": False}), pool("unset", networkConfig=ABSENT)],
        legacyAbac={},
        shieldedNodes=ABSENT,
    )
    [wire] = [c.wire for c in read(serve(one(found))).clusters.items]
    assert wire["addonsConfig"]["kubernetesDashboard"] == {}
    assert "networkPolicyConfig" not in wire["addonsConfig"]
    assert wire["networkConfig"]["defaultEnablePrivateNodes"] is False
    assert [p.get("networkConfig") for p in wire["nodePools"]] == [{"enablePrivateNodes": False}, None]
    assert wire["legacyAbac"] == {}
    assert "shieldedNodes" not in wire
    assert wire["rbacBindingConfig"]["enableInsecureBindingSystemAuthenticated"] is False


def test_what_is_kept_is_what_the_server_has(serve, read):
    """Word for word as in REST: names of enums, numbers as they are, and nothing that no check reads."""
    original = cluster("whole")
    [found] = read(serve(one(original))).clusters.items
    assert found.wire == kept(original, type(found).KEEP)
    assert found.wire["networkConfig"]["datapathProvider"] == "ADVANCED_DATAPATH"
    assert not {"masterAuth.clusterCaCertificate", "description", "selfLink"} & set(found.wire)


def test_of_passwords_and_certificates_stays_that_they_are_set(serve, read):
    [found] = read(serve(one(bad_cluster("old")))).clusters.items
    issued = {"clientCertificateConfig": {"issueClientCertificate": True}}
    assert found.wire["masterAuth"] == issued | {"username": "set", "clientCertificate": "set"}
    [found] = read(serve(one(cluster("new")))).clusters.items
    assert found.wire["masterAuth"] == {"clientCertificateConfig": {}}


def test_values_that_are_too_new_stay(serve, read):
    gcp = serve()
    answer = ListClustersResponse.pb()()
    new = answer.clusters.add(name="new", location=SEOUL, status=99)
    new.network_config.datapath_provider = 77
    new.logging_config.component_config.enable_components.extend([1, 55])
    gcp.inject_call(garbage(answer.SerializeToString() + b"\xfa\xff\x7f\x02hi"))  # and a field that is too new
    found = read(gcp, kinds=(CLUSTERS,))
    [wire] = [c.wire for c in found.clusters.items]
    assert found.gaps == []
    assert (wire["status"], wire["networkConfig"]["datapathProvider"]) == (99, 77)
    assert wire["loggingConfig"]["componentConfig"]["enableComponents"] == ["SYSTEM_COMPONENTS", 55]


def test_no_secret_is_kept(serve, read):
    found = read(serve(one(bad_cluster())))
    text = json.dumps([found.clusters.items[0].wire, found.ways])
    assert not [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize(
    "odd",
    [
        cluster(""),
        cluster("Shouted"),
        cluster("../other"),
        cluster("a\nb"),
        cluster("nowhere", location=""),
        cluster("bad-place", location="us/../eu"),
    ],
)
def test_a_cluster_that_does_not_say_which_it_is_costs_only_itself(serve, read, odd):
    found = read(serve(one(cluster("good"), odd)), kinds=(CLUSTERS,))
    assert names(found.clusters) == ["good"]
    only = gap(found.gaps)
    assert (only.what, only.reason) == (CLUSTERS, "bad_data")
    assert found.counts.lists_read == 0


def test_a_cluster_that_cannot_be_written_down_stays_unread(serve, read):
    gcp = serve()
    answer = ListClustersResponse.pb()()
    answer.clusters.add(name="good", location=SEOUL, status=2)
    bad = answer.clusters.add(name="bad", location=SEOUL, status=2)
    bad.maintenance_policy.window.recurring_window.window.start_time.seconds = 10**17
    gcp.inject_call(garbage(answer.SerializeToString()))
    good, bad = read(gcp, kinds=(CLUSTERS,)).clusters.items
    assert (good.unread, bad.name, bad.wire) == (None, "bad", {})
    assert bad.unread.reason == GapReason.BAD_DATA


@pytest.mark.parametrize("status", [ABSENT, "STATUS_UNSPECIFIED"])
def test_a_cluster_of_which_nothing_is_said_is_not_judged(serve, read, status):
    silent, good = read(serve(one(cluster("silent", status=status), cluster("good")))).clusters.items
    assert (silent.name, silent.unread.reason, good.unread) == ("silent", "bad_data", None)


def test_a_repository_of_which_nothing_is_said_is_not_judged(serve, read):
    bare = {"name": repository("bare")["name"]}
    found = read(serve(one(repositories=[bare, repository("good")])))
    assert [bool(r.unread) for r in found.repositories.items] == [True, False]
    assert (gap(found.gaps).what, gap(found.gaps).reason) == (REPOSITORIES, "bad_data")


def test_the_older_field_for_the_location_counts(serve, read):
    old = cluster("old", location=ZONE)
    del old["location"]
    found = read(serve(one(old)), kinds=(CLUSTERS,))
    assert [c.region for c in found.clusters.items] == [ZONE]


def test_a_cluster_that_is_listed_twice_is_one(serve, read):
    again = cluster("twice", location=IOWA)  # of the same name, but another cluster
    found = read(serve(one(cluster("twice"), cluster("twice"), again)), kinds=(CLUSTERS,))
    assert [(c.name, c.region) for c in found.clusters.items] == [("twice", SEOUL), ("twice", IOWA)]


def test_what_is_listed_twice_and_not_alike_is_not_believed(serve, read):
    estate = one(
        *(cluster("same"), cluster("same"), cluster("odd"), cluster("odd", legacyAbac={"enabled": True})),
        repositories=[*(repository("same"), repository("same")), *(repository("odd"), bad_repository("odd"))],
    )
    found = read(serve(estate))
    for listed in (found.clusters, found.repositories):
        assert [(r.name, r.unread and r.unread.reason) for r in listed.items] == [
            ("same", None),
            ("odd", GapReason.BAD_DATA),
        ]


def test_locations_that_do_not_answer_are_gaps(serve, read):
    found = read(serve(one(cluster(), missing=["us-west1-a", "us-west1-b"])), kinds=(CLUSTERS,))
    assert names(found.clusters) == ["gke-shop"]
    assert [g.reason for g in found.gaps] == ["location_missing", "location_missing"]
    assert "us-west1-b" in found.gaps[1].detail
    assert found.counts.lists_read == 0


# -- refusals


REFUSALS = [
    (403, "PERMISSION_DENIED", (), "forbidden", LIST),
    (
        403,
        "PERMISSION_DENIED",
        (info("IAM_PERMISSION_DENIED", permission="container.a.b"),),
        "forbidden",
        "container.a.b",
    ),
    (403, "PERMISSION_DENIED", (info("IAM_PERMISSION_DENIED", permission="<b>\n"),), "forbidden", LIST),
    (403, "PERMISSION_DENIED", (info("BILLING_DISABLED"),), "forbidden", ""),
    (403, "PERMISSION_DENIED", (info("USER_PROJECT_DENIED"),), "forbidden", "serviceusage.services.use"),
    (403, "PERMISSION_DENIED", (info("RATE_LIMIT_EXCEEDED"),), "throttled", ""),
    (401, "UNAUTHENTICATED", (), "forbidden", ""),
    (404, "NOT_FOUND", (), "not_found", ""),
    (400, "INVALID_ARGUMENT", (), "bad_data", ""),
    (429, "RESOURCE_EXHAUSTED", (), "throttled", ""),
    (500, "INTERNAL", (), "server_error", ""),
    (503, "UNAVAILABLE", (), "server_error", ""),
    (504, "DEADLINE_EXCEEDED", (), "timeout", ""),
]


@pytest.mark.parametrize(("code", "name", "details", "reason", "permission"), REFUSALS)
def test_a_refusal_is_the_same_over_grpc_and_rest(serve, connect, code, name, details, reason, permission):
    gcp = serve()
    gcp.inject_call(refuse(name, "no\nsuch luck", *details))
    gcp.inject("/v3/", status(code, "no\nsuch luck", *details, name=name))
    opened = connect(gcp)
    with pytest.raises(GcpError) as by_rest:
        opened.get("cloudresourcemanager", f"/v3/projects/{PROD}", LIST)
    for error in (failure(opened), by_rest.value):
        assert (error.reason, error.permission) == (reason, permission)
        assert f"{name}: no such luck" in error.detail


def test_what_is_refused_leaves_a_gap_and_the_rest(serve, read):
    gcp = serve()
    gcp.deny(LIST)
    gcp.deny("artifactregistry.repositories.getIamPolicy")
    found = read(gcp)
    clusters, policies = found.gaps
    assert (clusters.what, clusters.reason, clusters.permission) == (CLUSTERS, "forbidden", LIST)
    assert (policies.what, policies.permission) == (POLICY, "artifactregistry.repositories.getIamPolicy")
    assert policies.detail.endswith("(and 2 more like this)")
    assert names(found.repositories) == ["images", "public", "mirror"]
    assert all(len(r.related[POLICY].gaps) == 1 for r in found.repositories.items)
    assert (found.counts.lists_asked, found.counts.lists_read) == (9, 5)


@pytest.mark.parametrize("permission", ["locations.list", "repositories.list"])
def test_repositories_that_may_not_be_listed_are_a_gap(serve, read, permission):
    gcp = serve()
    gcp.deny(f"artifactregistry.{permission}")
    found = read(gcp)
    only = gap(found.gaps)
    assert (only.what, only.reason, only.permission) == (REPOSITORIES, "forbidden", f"artifactregistry.{permission}")
    assert len(found.clusters.items) == 3


def test_a_project_that_is_not_there_is_a_gap(serve, read):
    found = read(serve(), "no-such-project")
    assert [(g.what, g.reason) for g in found.gaps] == [(CLUSTERS, "forbidden"), (REPOSITORIES, "forbidden")]
    assert not found.off


# -- an API that is off


def off(service, consumer, *, change=None):
    message, detail = disabled(service, consumer)
    if change:
        detail["metadata"] |= change
    return message, detail


def over_grpc(gcp, *answers):
    for message, *details in answers:
        gcp.inject_call(refuse("PERMISSION_DENIED", message, *details))


def over_rest(gcp, *answers):
    for message, *details in answers:
        gcp.inject(f"^{LOCATIONS}", status(403, message, *details))


@pytest.fixture(params=["container", "artifactregistry"])
def turn_off(request):
    """Lets the first API or the other answer that it is off, and gives what was then read of it: whether the project
    is taken for one that does not use it, and the gaps."""

    def start(gcp, read, consumer, *more, change=None):
        answer = (*off(request.param, consumer, change=change), *more)
        (over_grpc if request.param == "container" else over_rest)(gcp, answer)
        found = read(gcp)
        if request.param == "container":
            return found.off, found.clusters.gaps
        assert not found.off
        return not found.repositories.gaps, found.repositories.gaps

    start.service = request.param
    return start


def test_a_project_that_does_not_use_an_api_has_nothing_there(serve, read):
    gcp = serve()
    found = read(gcp, EMPTY)
    assert (found.off, found.gaps, found.clusters.items, found.repositories.items) == (True, [], [], [])
    assert (found.counts.lists_asked, found.counts.lists_read) == (2, 2)
    assert len(asked(gcp, "/v3/")) == 1  # its number, as Google says only that


@pytest.mark.parametrize("consumer", [PROD, number(PROD)])
def test_only_in_the_very_project_that_was_asked_about(serve, read, turn_off, consumer):
    assert turn_off(serve(), read, f"projects/{consumer}") == (True, [])


@pytest.mark.parametrize("consumer", [DEV, number(DEV), "764086051850", PROD + "-2", number(PROD)[:-1]])
def test_an_api_that_is_off_where_requests_are_charged_is_a_gap(serve, read, turn_off, consumer):
    skipped, gaps = turn_off(serve(), read, f"projects/{consumer}")
    only = gap(gaps)
    assert not skipped
    assert (only.reason, only.permission) == ("forbidden", "")
    assert f"is not enabled in projects/{consumer}, which is not this project" in only.detail


def test_where_the_number_of_a_project_cannot_be_asked_it_is_a_gap(serve, read, turn_off):
    gcp = serve()
    gcp.deny("resourcemanager.projects.get")
    skipped, gaps = turn_off(gcp, read, f"projects/{number(PROD)}")
    assert not skipped
    assert "whether that is this project could not be asked" in gap(gaps).detail
    assert "resourcemanager.projects.get" in gap(gaps).detail


@pytest.mark.parametrize(
    "answer", [{"name": "projects/x"}, {"name": f"projects/{number(PROD)}", "projectId": DEV}, {}, {"name": 7}]
)
def test_a_number_that_is_none_proves_nothing(serve, read, turn_off, answer):
    gcp = serve()
    gcp.inject("/v3/", body(json.dumps(answer).encode()))
    skipped, gaps = turn_off(gcp, read, f"projects/{number(PROD)}")
    assert (skipped, gap(gaps).reason) == (False, "forbidden")


@pytest.mark.parametrize(
    "change",
    [
        {"service": "cloudresourcemanager.googleapis.com"},
        {"consumer": f"folders/{number(PROD)}"},
        {"consumer": f"projects/{PROD} "},
        {"consumer": ""},
    ],
)
def test_other_words_for_it_prove_nothing(serve, read, turn_off, change):
    skipped, gaps = turn_off(serve(), read, f"projects/{PROD}", change=change)
    assert (skipped, gap(gaps).reason) == (False, "forbidden")


def test_two_reasons_prove_nothing(serve, read, turn_off):
    skipped, gaps = turn_off(serve(), read, f"projects/{PROD}", info("BILLING_DISABLED"))
    assert (skipped, gap(gaps).reason) == (False, "forbidden")


@pytest.mark.parametrize("code", [400, 404])
def test_only_a_refusal_proves_anything(serve, read, code):
    gcp = serve()
    gcp.inject(f"^{LOCATIONS}", status(code, *off("artifactregistry", f"projects/{PROD}")))
    assert gap(read(gcp).gaps).what == REPOSITORIES


INVALID = info("CONSUMER_INVALID", service="container.googleapis.com", consumer=f"projects/{PROD}")


@pytest.mark.parametrize("details", [(), (INVALID,)])
def test_the_sentence_alone_proves_nothing(serve, read, details):
    message, _ = disabled("container", f"projects/{PROD}")
    gcp = serve()
    over_grpc(gcp, (message, *details))
    found = read(gcp, kinds=(CLUSTERS,))
    assert (found.off, gap(found.gaps).reason) == (False, "forbidden")


@pytest.mark.parametrize(
    "error",
    ["text", {"details": "text"}, {"details": ["text", None]}, {"details": [{"@type": 7, "metadata": 5}]}, [], None],
)
def test_a_refusal_in_no_known_shape_is_a_gap(serve, read, error):
    gcp = serve()
    gcp.inject(f"^{LOCATIONS}", body(json.dumps({"error": error}).encode(), code=403))
    found = read(gcp)
    assert (gap(found.gaps).reason, gap(found.gaps).permission) == ("forbidden", "artifactregistry.locations.list")


# -- answers that are not what they should be


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (html(), "bad_data"),
        (body(b'{"repositories":['), "bad_data"),
        (body(b"[]"), "bad_data"),
        (body(b""), "bad_data"),
        (body(b'{"repositories":[{"name":"\\ud800"}]}'), "bad_data"),
        (body(b'{"repositories":[{"size":NaN}]}'), "bad_data"),
        (body(b'{"repositories":[{"name":"\xed\xa0\x80"}]}'), "bad_data"),
        (body(b'{"repositories":' + b"[" * 9999 + b"]" * 9999 + b"}"), "bad_data"),
        (body(b'{"repositories":{}}'), "bad_data"),
        (body(b'{"repositories":null}'), "bad_data"),
        (body(b'{"error":{"code":403}}'), "bad_data"),
        (body(b'{"clusters":[]}'), "bad_data"),
        (body(b"{}", Content_Encoding="gzip"), "unreachable"),
        (body(b"<html>Proxy</html>", code=502, content_type="text/html"), "server_error"),
        (redirect("http://127.0.0.1:1/"), "bad_data"),
        (reset(), "unreachable"),
    ],
)
def test_an_answer_that_is_no_list_is_never_an_empty_one(serve, read, fault, reason):
    gcp = serve()
    gcp.inject(LISTS, fault)
    found = read(gcp)
    only = gap(found.gaps)
    assert (only.what, only.reason) == (REPOSITORIES, reason)
    assert only.detail.startswith(f"{SEOUL}: ")
    assert names(found.repositories) == ["mirror"]


@pytest.mark.parametrize("empty", [b"{}", b'{"repositories":[]}', b'{"nextPageToken":""}'])
def test_an_empty_list_is_left_out(serve, read, empty):
    gcp = serve()
    gcp.inject(LISTS, body(empty))
    found = read(gcp)
    assert (found.gaps, names(found.repositories)) == ([], ["mirror"])


@pytest.mark.parametrize("answer", [{}, {"locations": []}])
def test_there_is_always_some_location(serve, read, answer):
    gcp = serve()
    gcp.inject(rf"^{LOCATIONS}\?", body(json.dumps(answer).encode()))
    found = read(gcp)
    assert "which is never true" in gap(found.gaps).detail


@pytest.mark.parametrize("odd", [{"locationId": "us/../eu"}, {"locationId": 7}, {}, "us", None])
def test_a_location_without_a_name_is_a_gap(serve, read, odd):
    gcp = serve()
    gcp.inject(rf"^{LOCATIONS}\?", body(json.dumps({"locations": [{"locationId": SEOUL}, odd]}).encode()))
    found = read(gcp)
    assert gap(found.gaps).reason == "bad_data"
    assert names(found.repositories) == ["images", "public"]


@pytest.mark.parametrize(
    "odd",
    [
        "text",
        None,
        {},
        {"name": 7},
        repository("other", project=DEV),
        repository("other", location=IOWA),
        repository("a/../b"),
        repository(""),
        repository("x" * 200),
    ],
)
def test_entries_that_are_no_repositories_cost_only_themselves(serve, read, odd):
    gcp = serve()
    gcp.inject(LISTS, page(repository("good"), odd))
    found = read(gcp, kinds=UNGUARDED)
    assert gap(found.gaps).reason == "bad_data"
    assert names(found.repositories) == ["good", "mirror"]


def test_labels_that_are_none_are_left_out(serve, read):
    odd = [repository("a", labels={"x": 1, "y": "2"}), repository("b", labels=[]) | {"labels": ["x"]}]
    found = read(serve(one(repositories=odd)))
    assert [r.tags for r in found.repositories.items] == [{"team": "platform", "y": "2"}, {}]


@pytest.mark.parametrize(
    "answer",
    [
        {"bindings": {}},
        {"bindings": ["allUsers"]},
        {"bindings": [{"role": "r"}]},
        {"bindings": [{"members": ["allUsers"]}]},
        {"bindings": [{"role": "r", "members": "allUsers"}]},
        {"bindings": [{"role": "r", "members": ["a"]}, {"role": "r", "members": ["a", 7]}]},
        {"error": {"code": 403}},
        {"policy": {}},
    ],
)
def test_a_policy_that_is_none_is_a_gap(serve, read, answer):
    gcp = serve()
    gcp.inject("images:getIamPolicy", body(json.dumps(answer).encode()))
    found = read(gcp)
    assert (gap(found.gaps).what, gap(found.gaps).reason) == (POLICY, "bad_data")
    assert found.repositories.items[1].related[POLICY].all()


def test_conditions_are_kept(serve, read):
    condition = {"title": "t", "description": "d", "expression": "request.time < timestamp('2027-01-01T00:00:00Z')"}
    conditional = policy("allUsers")
    conditional["bindings"][0]["condition"] = condition
    images = repository()
    found = read(serve(one(repositories=[images], policies={images["name"]: conditional})))
    [binding] = found.repositories.items[0].related[POLICY].all()[0]["bindings"]
    assert binding["condition"] == {"expression": condition["expression"]}


@pytest.mark.parametrize("data", [b"<!DOCTYPE html>", b"\xff\xff\xff", b"\x0a\x03abc"])
def test_a_message_that_is_none_is_a_gap(serve, read, data):
    gcp = serve()
    gcp.inject_call(garbage(data))
    found = read(gcp, kinds=(CLUSTERS,))
    assert (gap(found.gaps).reason, found.clusters.items) == ("bad_data", [])


def test_a_server_that_does_not_speak_grpc_is_a_gap(serve, read):
    gcp = serve()
    found = read(gcp, kinds=(CLUSTERS,), endpoints=gcp.endpoints | {"container": gcp.url})
    assert gap(found.gaps).reason in ("unreachable", "server_error")
    assert found.clusters.items == []


def test_answers_are_bounded(serve, read, monkeypatch):
    monkeypatch.setattr(session, "MAX_BODY", 100_000)
    many = one(*(cluster(f"gke-{n:02}") for n in range(40)))
    gcp = serve(many)
    gcp.inject(rf"^{LOCATIONS}\?", body(b'{"locations":[' + b" " * 200_000 + b"]}"))
    found = read(gcp)
    assert [(g.reason, "too large" in g.detail) for g in found.gaps] == [("bad_data", True), ("bad_data", True)]
    assert len(asked(gcp, "/-$")) == 1  # gRPC calls it an exhausted quota, which would be asked again


@pytest.mark.parametrize("chunked", [False, True])
def test_compressed_and_chunked_answers_are_read(serve, read, chunked):
    gcp = serve(gzip_from=0, chunked=chunked)
    found = read(gcp)
    assert (found.gaps, len(found.repositories.items)) == ([], 3)


# -- pages


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_every_page_of_every_list_is_read(serve, read, size):
    images = [repository(f"images-{n}") for n in range(5)]
    found = read(serve(one(repositories=images), page_size=size))
    assert (found.gaps, names(found.repositories)) == ([], [f"images-{n}" for n in range(5)])


def test_pages_that_overlap_give_each_repository_once(serve, read):
    gcp = serve()
    gcp.inject(LISTS, page(repository("one"), repository("two"), nextPageToken="more"), times=1)
    gcp.inject(LISTS, page(repository("two"), repository("one"), nextPageToken=None))
    found = read(gcp, kinds=UNGUARDED)
    assert (found.gaps, names(found.repositories)) == ([], ["one", "two", "mirror"])


@pytest.mark.parametrize("token", [0, 7, False, True, [], {}, ["x"]])
def test_a_token_that_is_none_is_a_gap(serve, read, token):
    gcp = serve()
    gcp.inject(LISTS, page(repository("one"), nextPageToken=token))
    found = read(gcp, kinds=UNGUARDED)
    assert gap(found.gaps).reason == "bad_data"
    assert names(found.repositories) == ["one", "mirror"]


@pytest.mark.parametrize("tokens", [["a"], ["a", "b"]])
def test_pages_that_go_round_in_circles_are_a_gap(serve, read, tokens):
    gcp = serve()
    for turn in range(9):
        gcp.inject(LISTS, page(repository("one"), nextPageToken=tokens[turn % len(tokens)]), times=1)
    found = read(gcp, kinds=UNGUARDED)
    assert "round in circles" in gap(found.gaps).detail
    assert names(found.repositories) == ["one", "mirror"]
    assert len(asked(gcp, f"{SEOUL}/repositories$")) == len(tokens) + 1


def test_lists_without_end_are_a_gap(serve, read, monkeypatch):
    monkeypatch.setattr(session, "MAX_PAGES", 3)
    gcp = serve()
    for turn in range(9):
        gcp.inject(LISTS, page(repository(f"r{turn}"), nextPageToken=str(turn)), times=1)
    found = read(gcp, kinds=UNGUARDED)
    assert "more than 3 pages" in gap(found.gaps).detail
    assert names(found.repositories) == ["r0", "r1", "r2", "mirror"]


def test_what_came_before_a_page_that_fails_is_kept(serve, read):
    gcp = serve(page_size=1)
    gcp.inject(LISTS, status(403), after=1)
    found = read(gcp)
    assert gap(found.gaps).reason == "forbidden"
    assert names(found.repositories) == ["images", "mirror"]


# -- patience


@pytest.mark.parametrize(("code", "attempts"), [("RESOURCE_EXHAUSTED", 8), ("UNAVAILABLE", 4)])
def test_calls_are_made_again_but_not_for_ever(serve, connect, monkeypatch, code, attempts):
    gcp = serve()
    opened, waits = connect(gcp), patient(monkeypatch)
    gcp.inject_call(refuse(code), times=attempts - 1)
    assert opened.clusters(PROD).clusters
    assert waits == [(n, None) for n in range(1, attempts)]
    gcp.requests.clear()
    gcp.inject_call(refuse(code))
    failure(opened)
    assert len(gcp.requests) == attempts


@pytest.mark.parametrize(("code", "attempts"), [(429, 8), (502, 4), (503, 4)])
def test_requests_are_made_again_but_not_for_ever(serve, connect, code, attempts):
    gcp = serve()
    opened = connect(gcp)
    gcp.inject("/v3/", status(code), times=attempts - 1)
    assert opened.get("cloudresourcemanager", f"/v3/projects/{PROD}", "")["projectId"] == PROD
    gcp.requests.clear()
    gcp.inject("/v3/", status(code))
    with pytest.raises(GcpError):
        opened.get("cloudresourcemanager", f"/v3/projects/{PROD}", "")
    assert len(gcp.requests) == attempts


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "NOT_FOUND", "INTERNAL", "INVALID_ARGUMENT"])
def test_other_refusals_are_final(serve, connect, code):
    gcp = serve()
    gcp.inject_call(refuse(code))
    failure(connect(gcp))
    assert len(gcp.requests) == 1


def test_google_may_say_when_to_ask_again(serve, connect, monkeypatch):
    gcp = serve()
    opened, waits = connect(gcp), patient(monkeypatch)
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.500s"}
    gcp.inject_call(refuse("RESOURCE_EXHAUSTED", "later", retry), times=1)
    gcp.inject("/v3/", status(429, "later", retry), times=1)
    gcp.inject("/v3/", status(429, "later", retry | {"retryDelay": "soon"}), times=1)
    opened.clusters(PROD)
    opened.get("cloudresourcemanager", f"/v3/projects/{PROD}", "")
    assert waits == [(1, 3.5), (1, 3.5), (2, None)]


def test_pauses_grow_differ_and_end(monkeypatch):
    monkeypatch.undo()
    first, last = ([session._pause(tried, None) for _ in range(50)] for tried in (1, 9))
    assert 0.37 < min(first) < max(first) < 0.63
    assert 15 <= min(last) < max(last) <= 25
    assert session._pause(1, 3600) <= 25
    assert 0 < session._pause(1, 0) < 0.2


def test_a_silent_server_costs_one_deadline(serve, connect):
    gcp = serve()
    opened = connect(gcp, request_timeout=0.4)
    gcp.inject_call(silent())
    gcp.inject("/v3/", hang())
    started = time.monotonic()
    assert failure(opened).reason == "timeout"
    with pytest.raises(GcpError) as caught:
        opened.get("cloudresourcemanager", f"/v3/projects/{PROD}", "")
    assert caught.value.reason == "timeout"
    assert time.monotonic() - started < 3
    assert len(gcp.requests) == 2


def test_a_server_that_sends_a_byte_now_and_then_costs_one_deadline(serve, connect):
    gcp = serve()
    opened = connect(gcp, request_timeout=0.4)
    gcp.inject("/v3/", drip())
    started = time.monotonic()
    with pytest.raises(GcpError) as caught:
        opened.get("cloudresourcemanager", f"/v3/projects/{PROD}", "")
    assert caught.value.reason == "timeout"
    assert time.monotonic() - started < 3
    assert len(gcp.requests) == 1


def test_a_server_that_is_slow_to_refuse_is_not_asked_for_long(serve, connect):
    gcp = serve()
    gcp.latency = 0.3
    gcp.inject_call(refuse("UNAVAILABLE"))
    error = failure(connect(gcp, request_timeout=0.5))
    assert error.reason == "server_error"
    assert len(gcp.requests) == 2  # of four


def test_repositories_of_a_silent_server_are_given_up(serve, read):
    gcp = serve()
    gcp.inject("/repositories", hang())
    started = time.monotonic()
    found = read(gcp, request_timeout=0.4)
    assert time.monotonic() - started < 3
    assert len(asked(gcp, "/repositories$")) == 2  # of four
    assert gap(found.gaps).reason == "timeout"
    assert "(and 3 more like this)" in gap(found.gaps).detail


def test_policies_of_a_silent_server_are_given_up(serve, read):
    gcp = serve(one(repositories=[repository(f"r{n}") for n in range(9)]))
    gcp.inject("getIamPolicy", hang())
    found = read(gcp, request_timeout=0.4)
    assert len(asked(gcp, "getIamPolicy")) == 2
    assert all(r.related[POLICY].gaps for r in found.repositories.items)
    assert len(found.repositories.items) == 9


def test_one_silent_location_costs_only_itself(serve, read):
    gcp = serve()
    gcp.inject(LISTS, hang())
    found = read(gcp, request_timeout=0.4)
    assert names(found.repositories) == ["mirror"]
    assert gap(found.gaps).detail.startswith(f"{SEOUL}: Google did not answer")


def test_a_server_that_is_not_there_is_unreachable(serve, connect):
    gcp = serve()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    endpoints = gcp.endpoints | {"container": nobody, "cloudresourcemanager": nobody}
    opened = connect(gcp, endpoints=endpoints)
    assert failure(opened).reason == "unreachable"
    with pytest.raises(GcpError) as caught:
        opened.get("cloudresourcemanager", f"/v3/projects/{PROD}", "")
    assert caught.value.reason == "unreachable"


def test_a_connection_that_breaks_is_made_anew(serve, read):
    gcp = serve()
    gcp.inject(LISTS, reset(), times=1)
    found = read(gcp)
    assert (found.gaps, len(found.repositories.items)) == ([], 3)


def test_many_threads_share_a_session(serve, connect):
    gcp = serve(gcp_data.large_estate(20, 60))
    gcp.latency = 0.02
    every = Reader(connect(gcp, connections=16), ALL)

    def read_one(name):
        *_, found = every.read(reader.Project(name))
        return found

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(read_one, gcp.estate.projects))
    assert [len(project.clusters.items) for project in found] == [3] * 20
    assert [g for project in found for g in project.gaps] == []
    assert gcp.tokens == [SCANNER]


# -- tokens


def test_a_token_that_is_refused_is_renewed_once(serve, connect):
    gcp = serve()
    opened = connect(gcp)
    opened.clusters(PROD)
    gcp.revoke()
    assert opened.clusters(PROD).clusters
    assert gcp.tokens == [SCANNER, SCANNER]
    gcp.revoke()
    assert opened.get("cloudresourcemanager", f"/v3/projects/{PROD}", "")["projectId"] == PROD
    assert len(gcp.tokens) == 3


def test_many_threads_renew_a_token_once(serve, connect):
    gcp = serve()
    opened = connect(gcp)
    gcp.revoke()
    start = threading.Barrier(8)

    def ask(_):
        start.wait()
        return len(opened.clusters(PROD).clusters)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {3}
    assert len(gcp.tokens) == 2


def test_a_token_that_stays_refused_is_not_asked_with_for_ever(serve, connect):
    gcp = serve()
    opened = connect(gcp)
    gcp.inject_call(refuse("UNAUTHENTICATED"))
    assert failure(opened).reason == "forbidden"
    assert (len(gcp.requests), len(gcp.tokens)) == (2, 2)


def test_a_token_is_renewed_before_it_ends(serve, connect):
    gcp = serve(token_seconds=120)
    opened = connect(gcp)
    opened.clusters(PROD)
    opened.clusters(PROD)
    assert len(gcp.tokens) == 3


def test_the_project_that_requests_are_charged_to_is_named(serve, read, monkeypatch):
    gcp = serve()
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", DEV)
    assert read(gcp).gaps == []
    assert {r.headers["x-goog-user-project"] for r in gcp.requests} == {DEV}


def test_no_token_travels_to_this_machine_through_a_proxy(serve, connect, monkeypatch):
    gcp = serve()
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")  # which is read when the channel is made
    opened = connect(gcp)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert opened.clusters(PROD).clusters
    assert opened.get("cloudresourcemanager", f"/v3/projects/{PROD}", "")


def test_no_netrc_takes_the_place_of_the_token(serve, connect, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    (tmp_path / ".netrc").chmod(0o600)
    opened = connect(serve())
    assert opened.get("cloudresourcemanager", f"/v3/projects/{PROD}", "")["projectId"] == PROD


def test_the_credentials_name_the_project(serve, connect, monkeypatch):
    gcp = serve()
    assert connect(gcp).project == PROD
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", DEV)
    assert connect(gcp).project == DEV


# -- credentials


def not_logged_in(connect, gcp, **options):
    with pytest.raises(GcpError) as caught:
        connect(gcp, **options)
    assert "\n" not in caught.value.detail
    assert "PRIVATE KEY" not in caught.value.detail
    assert gcp.requests == []
    return caught.value


def test_without_credentials_nothing_is_asked(serve, connect, monkeypatch):
    gcp = serve()
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    error = not_logged_in(connect, gcp)
    assert error.reason == "not_configured"
    assert "gcloud auth application-default login" in error.detail


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "no json",
        "[]",
        "{}",
        '"text"',
        '{"type": "service_account"}',
        '{"type": "service_account", "private_key": "x", "client_email": "a@b", "token_uri": "http://127.0.0.1:1/"}',
        '{"type": "authorized_user"}',
        '{"type": "external_account"}',
        '{"type": ["x"]}',
    ],
)
def test_a_file_that_is_no_credential_is_said_in_a_sentence(serve, connect, monkeypatch, tmp_path, content):
    gcp = serve()
    path = tmp_path / "credential.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    error = not_logged_in(connect, gcp)
    assert (error.reason, "GOOGLE_APPLICATION_CREDENTIALS" in error.detail) == ("not_configured", True)


def test_a_key_that_google_does_not_know(serve, connect, tmp_path):
    gcp = serve()
    with GcpServer(sample_estate(), key=new_key()) as other:
        other.key_file(tmp_path, token_uri=f"{gcp.url}/token")
    error = not_logged_in(connect, gcp)
    assert error.reason == "not_configured"
    assert "Invalid JWT Signature" in error.detail


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (html(), "not_configured"),
        (body(b"[]"), "not_configured"),
        (body(b'{"access_token": 7, "expires_in": 3600}'), "not_configured"),
        (body(b'{"access_token": "a\\nb", "expires_in": 3600}'), "bad_data"),
        (body(b'{"access_token": "a", "expires_in": "soon"}'), "not_configured"),
        (body(b'{"expires_in": 3600}'), "not_configured"),
        (status(403), "not_configured"),
        (reset(), "unreachable"),
    ],
)
def test_a_token_that_is_none_is_said_in_a_sentence(serve, connect, fault, reason):
    gcp = serve()
    gcp.inject("^/token", fault)
    assert not_logged_in(connect, gcp).reason == reason


def test_a_silent_token_server_costs_one_deadline(serve, connect):
    gcp = serve()
    gcp.inject("^/token", hang())
    started = time.monotonic()
    assert not_logged_in(connect, gcp, request_timeout=0.4).reason == "timeout"
    assert time.monotonic() - started < 3


def test_another_service_account_can_be_acted_as(serve, read):
    gcp = serve()
    assert read(gcp, impersonate=AUDITOR).gaps == []
    assert gcp.tokens == [SCANNER, AUDITOR]


def test_a_service_account_that_may_not_be_acted_as(serve, connect):
    gcp = serve()
    denied = info("IAM_PERMISSION_DENIED", permission="iam.serviceAccounts.getAccessToken")
    gcp.inject("generateAccessToken", status(403, "Permission denied on resource (or it may not exist).", denied))
    error = not_logged_in(connect, gcp, impersonate=AUDITOR)
    assert (error.reason, error.permission) == ("forbidden", "iam.serviceAccounts.getAccessToken")
    assert AUDITOR in error.detail


@pytest.mark.parametrize("fault", [html(), body(b"{}"), body(b'{"accessToken":"a","expireTime":7}')])
def test_a_token_of_another_account_that_is_none(serve, connect, fault):
    gcp = serve()
    gcp.inject("generateAccessToken", fault)
    assert not_logged_in(connect, gcp, impersonate=AUDITOR).reason == "not_configured"


def test_a_bundle_of_authorities_that_is_not_there(serve, connect, monkeypatch):
    gcp = serve()
    endpoints = gcp.endpoints | {"container": "https://127.0.0.1:1"}
    opened = connect(gcp, endpoints=endpoints)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    with pytest.raises(GcpError) as caught:
        opened.log_in()
    assert caught.value.reason == "not_configured"


# -- TLS


def test_everything_works_over_tls(serve, read, monkeypatch):
    gcp = serve(tls=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", gcp.ca)
    found = read(gcp)
    assert (found.gaps, len(found.clusters.items), len(found.repositories.items)) == ([], 3, 3)


def test_a_server_that_nobody_vouches_for_gets_no_token(serve, connect, monkeypatch):
    gcp, other = serve(tls=True), serve(tls=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", other.ca)  # whose key file counts too
    opened = connect(gcp)
    assert failure(opened).reason == "unreachable"
    with pytest.raises(GcpError) as caught:
        opened.get("cloudresourcemanager", f"/v3/projects/{PROD}", "")
    assert caught.value.reason == "unreachable"
    assert "certificate" in caught.value.detail.lower()
    assert gcp.requests == []


# -- the guard


def test_only_two_kinds_of_calls_leave(serve, connect):
    gcp = serve()
    opened = connect(gcp)
    for call in (opened._gke.delete_cluster, opened._gke.get_cluster, opened._gke.set_legacy_abac):
        with pytest.raises(WriteRefused):
            call(name=f"projects/{PROD}/locations/-/clusters/x", retry=None, timeout=1)
    assert gcp.requests == []


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("artifactregistry", f"{LOCATIONS}/us/repositories/x:setIamPolicy"),
        ("artifactregistry", f"{LOCATIONS}/us/repositories/x"),
        ("artifactregistry", f"{LOCATIONS}/../us/repositories"),
        ("artifactregistry", f"{LOCATIONS}/us/repositories?alt=media"),
        ("artifactregistry", "/v1/projects/p%2f../locations"),
        ("artifactregistry", f"{LOCATIONS}/us/repositories/x/dockerImages/y"),
        ("containeranalysis", f"/v1/projects/{PROD}/notes"),
        ("containeranalysis", f"/v1/projects/{PROD}/occurrences:batchCreate"),
        ("cloudresourcemanager", "/v3/organizations"),
        ("cloudresourcemanager", f"/v3/projects/{PROD}:undelete"),
        ("cloudresourcemanager", "@example.com/v3/projects"),
        ("iamcredentials", "/v3/projects"),
        ("container", "/v1/projects"),
        ("example", "/v3/projects"),
    ],
)
def test_only_a_few_paths_are_asked_for(serve, connect, service, path):
    gcp = serve()
    opened = connect(gcp)
    with pytest.raises(WriteRefused):
        session.check_path(service, path)
    with pytest.raises(GcpError, match="refused to ask"):
        opened.get(service, path, "")
    assert gcp.requests == []


@pytest.mark.parametrize(
    "given",
    [
        "container=http://example.com",
        "container=http://127.0.0.1.example.com",
        "container=ftp://127.0.0.1",
        "container=https://user@host",
        "container=https://host\\@other",
        "container=https://host/path",
        "container=https://host?query",
        "container=https://host#part",
        "container=https://host:0",
        "container=https://host:99999",
        "container=https://",
        "container=",
        "compute=https://host",
    ],
)
def test_tokens_are_not_sent_just_anywhere(given):
    service, _, url = given.partition("=")
    with pytest.raises(UsageError):
        Session(endpoints={service: url}, request_timeout=1, connections=1)


@pytest.mark.parametrize("url", ["https://host", "https://host:8443/", "http://127.0.0.1:1", "http://localhost:1"])
def test_endpoints_that_are_taken(url):
    assert session.check_endpoint("container", url) == url.rstrip("/")


@pytest.mark.parametrize(
    "account", ["", "me", "me@example.com", "a@b.gserviceaccount.com/../x", "a b@c.gserviceaccount.com"]
)
def test_what_is_no_service_account_is_not_acted_as(account):
    with pytest.raises(UsageError, match="--impersonate"):
        Session(impersonate=account, request_timeout=1, connections=1)


@pytest.mark.parametrize("text", ["", "x", "123456789012", "My-Project", "my-project-", "a/b", "my project", "é" * 9])
def test_what_is_no_project(text):
    with pytest.raises(UsageError, match="my-project-123"):
        session.check_project(text)


def test_what_are_projects_and_parents():
    assert session.check_project("example.com:my-project") == "example.com:my-project"
    assert session.check_parent("organization", "123") == "organizations/123"
    assert session.check_parent("folder", "folders/123") == "folders/123"
    for text in ("", "my-folder", "folders/x", "organizations/123", "٣"):
        with pytest.raises(UsageError, match="--folder"):
            session.check_parent("folder", text)


def test_other_universes_have_other_addresses(serve, connect, tmp_path, monkeypatch):
    gcp = serve()
    gcp.key_file(tmp_path, universe_domain="apis.example.test")
    opened = connect(gcp, endpoints={"container": gcp.endpoints["container"]})
    assert opened._endpoint("artifactregistry") == "https://artifactregistry.apis.example.test"
    with pytest.raises(UsageError):
        session.check_endpoint("container", "http://apis.example.test")


# -- projects of an organization


def below(gcp, connect, parent=ORGANIZATION):
    return Reader(connect(gcp), ALL).below(parent)


@pytest.mark.parametrize("size", [1, 1000])
def test_projects_are_found_in_all_folders(serve, connect, size):
    found = below(serve(page_size=size), connect)
    assert found.gaps == []
    assert {(p.id, p.number, p.name) for p in found.items} == {
        (PROD, number(PROD), "Production"),
        (EMPTY, number(EMPTY), "Sandbox"),
        (DEV, number(DEV), "Development"),
    }


def test_projects_below_one_folder(serve, connect):
    assert [p.id for p in below(serve(), connect, "folders/200").items] == [DEV]


def test_projects_that_are_being_deleted_are_left_out(serve, connect):
    gone, strange = Project("gone-project", state="DELETE_REQUESTED"), Project("odd-project", state="SOMETHING_NEW")
    found = below(serve(Estate.of(gone, strange)), connect)
    assert ([p.id for p in found.items], found.gaps) == (["odd-project"], [])


def test_an_organization_without_projects_is_a_gap(serve, connect):
    only = gap(below(serve(Estate.of()), connect).gaps)
    assert (only.what, only.reason) == ("projects", "not_found")


def test_folders_that_go_round_in_circles_are_read_once(serve, connect):
    circle = (Folder("folders/1", "a"), Folder("folders/2", "b", "folders/1"), Folder("folders/1", "a", "folders/2"))
    gcp = serve(Estate.of(Project(PROD), Project(DEV, parent="folders/2"), folders=circle))
    found = below(gcp, connect)
    assert ({p.id for p in found.items}, found.gaps) == ({PROD, DEV}, [])
    assert len(gcp.requests) == 6


def test_folders_without_end_are_a_gap(serve, connect, monkeypatch):
    monkeypatch.setattr(reader, "MAX_FOLDERS", 3)
    many = tuple(Folder(f"folders/{n}", "x", f"folders/{n - 1}" if n else ORGANIZATION) for n in range(9))
    found = below(serve(Estate.of(Project(PROD), folders=many)), connect)
    only = gap(found.gaps)
    assert (only.what, only.reason, "were not read" in only.detail) == ("folders", "bad_data", True)
    assert [p.id for p in found.items] == [PROD]


def test_folders_of_a_silent_server_are_given_up(serve, connect):
    many = tuple(Folder(f"folders/{n}", "x") for n in range(9))
    gcp = serve(Estate.of(Project(PROD), folders=many))
    gcp.inject("parent=folders", hang())
    found = Reader(connect(gcp, request_timeout=0.3), ALL).below(ORGANIZATION)
    assert [p.id for p in found.items] == [PROD]
    assert len(gcp.requests) == 6  # two of the organization, and two each of two folders
    assert (found.gaps[-1].what, found.gaps[-1].reason) == ("folders", "timeout")
    assert found.gaps[-1].detail.startswith("7 folders")


@pytest.mark.parametrize("what", ["projects", "folders"])
def test_a_folder_that_may_not_be_listed_is_a_gap(serve, connect, what):
    gcp = serve()
    gcp.deny(f"resourcemanager.{what}.list", "folders/200" if what == "projects" else "folders/100")
    found = below(gcp, connect)
    only = gap(found.gaps)
    assert (only.what, only.permission) == (what, f"resourcemanager.{what}.list")
    assert only.detail.startswith("folders/")
    assert {p.id for p in found.items} == {PROD, EMPTY}


@pytest.mark.parametrize(
    ("what", "odd"),
    [
        ("projects", {}),
        ("projects", {"projectId": PROD}),
        ("projects", {"projectId": "a/b/c/d", "name": "projects/1"}),
        ("projects", {"projectId": 7, "name": "projects/1"}),
        ("folders", {}),
        ("folders", {"name": "folders/x"}),
        ("folders", {"name": "organizations/1"}),
        ("folders", "text"),
    ],
)
def test_entries_that_name_nothing_are_gaps(serve, connect, what, odd):
    gcp = serve(Estate.of(Project(PROD)))
    good = {"projects": Project(DEV).wire(), "folders": Folder("folders/9", "x").wire()}[what]
    gcp.inject(f"/v3/{what}", body(json.dumps({what: [good, odd]}).encode()), times=1)
    found = below(gcp, connect)
    assert (gap(found.gaps).what, gap(found.gaps).reason) == (what, "bad_data")
    assert [p.id for p in found.items] == [DEV if what == "projects" else PROD]


def test_the_number_of_a_listed_project_is_known(serve, connect):
    gcp = serve()
    every = Reader(connect(gcp), ALL)
    for project in every.below(ORGANIZATION).items:
        *_, found = every.read(project)
        assert (found.off, found.gaps) == (project.id == EMPTY, [])
    assert not asked(gcp, "/v3/projects/")


# -- the way into a cluster

PUBLIC = {"ipEndpointsConfig": {"authorizedNetworksConfig": ABSENT}}
DNS_ON = {"dnsEndpointConfig": {"allowExternalTraffic": True}}
PRIVATE = {"ipEndpointsConfig": {"enablePublicEndpoint": False, "authorizedNetworksConfig": ABSENT}}
NO_IP = {"ipEndpointsConfig": {"enabled": False}}
OLD_PRIVATE = {"enablePrivateEndpoint": True}
OLD = {"controlPlaneEndpointsConfig": ABSENT}


def named(host):
    return {"controlPlaneEndpointsConfig": {"dnsEndpointConfig": {"allowExternalTraffic": True, "endpoint": host}}}


@pytest.fixture
def way_into(serve, read, connect):
    def start(**changes):
        gcp = serve(one(cluster("way", **{"masterAuthorizedNetworksConfig": ABSENT} | changes)))
        found = read(gcp, kinds=(CLUSTERS,))
        [way] = found.ways.values()
        return api_access(connect(gcp), way)

    return start


def test_an_open_endpoint_is_reached_by_its_address(way_into):
    access = way_into(controlPlaneEndpointsConfig=PUBLIC | DNS_ON)
    assert (access.server, access.ca, access.hint) == ("https://34.64.10.20", AUTHORITY, "")
    assert access.token().startswith("ya29.")
    assert "ya29." not in repr(access)


@pytest.mark.parametrize(
    ("changes", "endpoint"),
    [
        ({"controlPlaneEndpointsConfig": DNS_ON}, "34.64.10.20"),  # only authorized networks reach the address
        ({"controlPlaneEndpointsConfig": PUBLIC | DNS_ON}, "10.10.0.2"),
        ({"controlPlaneEndpointsConfig": PRIVATE | DNS_ON}, "34.64.10.20"),
        ({"controlPlaneEndpointsConfig": NO_IP | DNS_ON}, "34.64.10.20"),
        ({"controlPlaneEndpointsConfig": DNS_ON}, ABSENT),
        ({"controlPlaneEndpointsConfig": PUBLIC | DNS_ON, "privateClusterConfig": OLD_PRIVATE}, "34.64.10.20"),
    ],
)
def test_else_by_its_name(way_into, changes, endpoint):
    access = way_into(endpoint=endpoint, **changes)
    assert re.fullmatch(r"https://gke-[0-9a-f]{8}-\d+\.asia-northeast3\.gke\.goog", access.server)
    assert (access.ca, access.hint) == (None, "")


@pytest.mark.parametrize(
    ("changes", "endpoint", "why"),
    [
        ({}, "34.64.10.20", "answers only authorized networks"),
        ({"controlPlaneEndpointsConfig": PUBLIC}, "10.10.0.2", "is private"),
        ({"controlPlaneEndpointsConfig": PRIVATE}, "34.64.10.20", "is private"),
        (OLD | {"masterAuthorizedNetworksConfig": {"enabled": True}}, "34.64.10.20", "authorized networks"),
        (OLD, "34.64.10.20", ""),
        (OLD | {"privateClusterConfig": OLD_PRIVATE}, "34.64.10.20", "is private"),
        ({"controlPlaneEndpointsConfig": PUBLIC}, "127.0.0.1:8443", "is private"),
    ],
)
def test_where_an_address_may_not_answer_it_says_what_to_do(way_into, changes, endpoint, why):
    access = way_into(endpoint=endpoint, **changes)
    assert (access.server, access.ca) == (f"https://{endpoint}", AUTHORITY)
    assert why in access.hint
    assert bool(access.hint) == bool(why) == ("--enable-dns-access" in access.hint)


def no_way(way_into, **changes):
    with pytest.raises(GcpError) as caught:
        way_into(**changes)
    return caught.value


@pytest.mark.parametrize("changes", [{"controlPlaneEndpointsConfig": NO_IP}, {"endpoint": ABSENT}])
def test_a_cluster_without_an_endpoint_for_us_is_unreachable(way_into, changes):
    error = no_way(way_into, **changes)
    assert error.reason == "unreachable"
    assert "--enable-dns-access" in error.detail


@pytest.mark.parametrize(
    "changes",
    [
        {"masterAuth": ABSENT},
        {"masterAuth": {"clusterCaCertificate": "no base64!"}},
        {"endpoint": "evil.example.com"},
        {"endpoint": "34.64.10.20@evil.example.com"},
        {"endpoint": "999.1.1.1"},
        named("evil.example.com"),
        named("gke.goog.evil.com"),
        named("evilgke.goog"),
        named("a@b.gke.goog"),
        named("b.gke.goog/x"),
    ],
)
def test_no_token_goes_where_the_answer_makes_no_sense(way_into, changes):
    changes = {"controlPlaneEndpointsConfig": PUBLIC} | changes
    assert no_way(way_into, **changes).reason == "bad_data"


def test_the_way_is_not_kept_beside_the_cluster(serve, read):
    found = read(serve(), kinds=(CLUSTERS,))
    authority = base64.b64encode(AUTHORITY).decode()
    assert authority not in json.dumps([c.wire for c in found.clusters.items])
    assert set(found.ways) == {c.id for c in found.clusters.items}
    assert all(kept(way, WAY) == way for way in found.ways.values())


def test_a_server_that_is_slow_is_waited_for(serve, read):
    gcp = serve()
    gcp.inject("/locations", delay(0.1))
    assert read(gcp).gaps == []


def test_an_authority_that_may_sign_for_several_clusters_tells_none_of_them_apart():
    whole = gcp_data.cluster()
    own = {**whole, "userManagedKeysConfig": {"clusterCa": f"projects/{PROD}/locations/{SEOUL}/caPools/gke"}}
    assert identity(kept(whole, WAY))[1]
    assert identity(kept(own, WAY)) == (identity(kept(whole, WAY))[0], None)
