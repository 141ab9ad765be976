"""The local Google Cloud that other tests rely on, asked by Google's own libraries and by plain HTTP."""

import json
import time

import grpc
import pytest
import requests
from gcp_data import (
    ABSENT,
    AUDITOR,
    DEV,
    EMPTY,
    ORGANIZATION,
    PROD,
    SCANNER,
    SEOUL,
    Estate,
    Project,
    cluster,
    large_estate,
    merged,
    number,
    pool,
    sample_estate,
)
from gcpserver import GcpServer, body, disabled, garbage, info, new_key, refuse, silent, status
from google.api_core import exceptions
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request as AuthRequest
from google.cloud.container_v1.services.cluster_manager import ClusterManagerClient
from google.cloud.container_v1.services.cluster_manager.transports import ClusterManagerGrpcTransport
from google.oauth2 import service_account

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@pytest.fixture
def gcp():
    with GcpServer(sample_estate(), page_size=2) as server:
        yield server


@pytest.fixture
def client(gcp):
    with grpc.insecure_channel(gcp.endpoints["container"].removeprefix("http://")) as channel:
        yield ClusterManagerClient(transport=ClusterManagerGrpcTransport(channel=channel))


@pytest.fixture
def token(gcp, tmp_path):
    credentials = service_account.Credentials.from_service_account_file(gcp.key_file(tmp_path), scopes=[SCOPE])
    credentials.refresh(AuthRequest())
    return credentials.token


def listed(client, token, project, **options):
    metadata = [("authorization", f"Bearer {token}")] if token else []
    options = {"retry": None, "timeout": 10} | options
    return client.list_clusters(parent=f"projects/{project}/locations/-", metadata=metadata, **options)


def got(gcp, path, token=None, **query):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.get(f"{gcp.url}{path}", params=query, headers=headers, timeout=10)


def test_clusters_are_listed(gcp, client, token):
    answer = listed(client, token, PROD)
    assert [c.name for c in answer.clusters] == ["gke-shop", "gke-auto", "gke-old"]
    assert answer.clusters[1].autopilot.enabled
    assert [p.name for p in answer.clusters[2].node_pools] == ["pool-1", "pool-2", "pool-3", "pool-4"]
    [request] = gcp.requests
    assert (request.method, request.path) == ("ListClusters", f"projects/{PROD}/locations/-")
    assert gcp.tokens == [SCANNER]


def test_a_project_is_found_by_its_number_too(client, token):
    assert len(listed(client, token, number(DEV)).clusters) == 1


def test_locations_that_do_not_answer_are_named(gcp, client, token):
    gcp.load(Estate.of(Project(PROD, clusters=[cluster()], missing=["us-west1-a", "us-west1-b"])))
    assert list(listed(client, token, PROD).missing_zones) == ["us-west1-a", "us-west1-b"]


def test_fields_that_gke_does_not_have_are_a_mistake_of_the_test():
    with pytest.raises(Exception, match="noSuchField"):
        GcpServer(Estate.of(Project(PROD, clusters=[cluster(noSuchField=1)])))


def test_changes_merge_and_absent_removes():
    changed = cluster(networkConfig={"datapathProvider": ABSENT}, nodePools=[pool("one", management={})])
    assert "datapathProvider" not in changed["networkConfig"]
    assert changed["networkConfig"]["defaultEnablePrivateNodes"] is True
    assert changed["nodePools"][0]["management"] == {"autoUpgrade": True, "autoRepair": True}
    assert merged({"a": {"b": 1}}, {"a": {"b": ABSENT}}) == {"a": {}}


@pytest.mark.parametrize("given", ["", "ya29.of-somebody-else"])
def test_nobody_is_served_without_a_token(gcp, client, given):
    with pytest.raises(exceptions.Unauthenticated) as caught:
        listed(client, given, PROD)
    assert caught.value.reason == "ACCESS_TOKEN_INVALID"
    for path in (f"/v1/projects/{PROD}/locations", "/v3/projects", f"/v3/projects/{PROD}"):
        answer = got(gcp, path, given)
        assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


def test_tokens_end_and_can_be_revoked(gcp, client, token):
    gcp.revoke()
    with pytest.raises(exceptions.Unauthenticated):
        listed(client, token, PROD)
    gcp.token_seconds = -1
    late, _ = gcp.issue(SCANNER)
    with pytest.raises(exceptions.Unauthenticated):
        listed(client, late, PROD)


def test_a_key_that_is_not_the_servers_gets_no_token(gcp, tmp_path):
    with GcpServer(sample_estate(), key=new_key()) as other:
        key = other.key_file(tmp_path, token_uri=f"{gcp.url}/token")
    credentials = service_account.Credentials.from_service_account_file(key, scopes=[SCOPE])
    with pytest.raises(RefreshError, match="invalid_grant: Invalid JWT Signature"):
        credentials.refresh(AuthRequest())
    assert gcp.tokens == []


def test_a_token_of_another_account_takes_one_of_ones_own(gcp, token):
    url = f"{gcp.url}/v1/projects/-/serviceAccounts/{AUDITOR}:generateAccessToken"
    assert requests.post(url, json={}, timeout=10).status_code == 401
    answer = requests.post(url, json={}, headers={"Authorization": f"Bearer {token}"}, timeout=10).json()
    assert answer["expireTime"].endswith("Z")
    assert gcp.tokens == [SCANNER, AUDITOR]
    assert gcp.requests == []  # those for tokens do not count


def test_what_is_denied_says_which_permission_it_takes(gcp, client, token):
    gcp.deny("container.clusters.list", DEV)
    with pytest.raises(exceptions.PermissionDenied) as caught:
        listed(client, token, DEV)
    assert caught.value.reason == "IAM_PERMISSION_DENIED"
    assert caught.value.metadata["permission"] == "container.clusters.list"
    assert listed(client, token, PROD).clusters
    gcp.deny("artifactregistry.repositories.list")
    path = f"/v1/projects/{PROD}/locations/{SEOUL}/repositories"
    error = got(gcp, path, token).json()["error"]
    assert (error["code"], error["status"]) == (403, "PERMISSION_DENIED")
    assert error["details"][0]["metadata"] == {"permission": "artifactregistry.repositories.list"}


def test_a_project_that_is_not_there_is_not_told_from_a_closed_one(gcp, client, token):
    with pytest.raises(exceptions.PermissionDenied):
        listed(client, token, "no-such-project")
    assert got(gcp, "/v3/projects/no-such-project", token).status_code == 403


def test_an_api_that_is_off_says_in_which_project(gcp, client, token):
    with pytest.raises(exceptions.PermissionDenied) as caught:
        listed(client, token, EMPTY)
    assert caught.value.reason == "SERVICE_DISABLED"
    assert caught.value.metadata["consumer"] == f"projects/{number(EMPTY)}"
    error = got(gcp, f"/v1/projects/{EMPTY}/locations", token).json()["error"]
    [detail] = error["details"]
    assert detail == disabled("artifactregistry", f"projects/{number(EMPTY)}")[1]
    assert error["message"].startswith("API artifactregistry.googleapis.com has not been used in project ")


def test_lists_have_pages_and_empty_ones_are_left_out(gcp, token):
    top = f"/v1/projects/{PROD}/locations"
    first = got(gcp, top, token).json()
    assert (len(first["locations"]), first["nextPageToken"]) == (2, "2")
    assert "nextPageToken" not in got(gcp, top, token, pageToken="2").json()
    assert got(gcp, f"{top}/us/repositories", token).json() == {}
    assert len(got(gcp, f"{top}/{SEOUL}/repositories", token).json()["repositories"]) == 2
    assert got(gcp, "/v3/folders", token, parent="folders/200").json() == {}


def test_projects_and_folders_are_listed_below_their_parents(gcp, token):
    assert [p["projectId"] for p in got(gcp, "/v3/projects", token, parent="folders/200").json()["projects"]] == [DEV]
    found = got(gcp, "/v3/folders", token, parent=ORGANIZATION).json()["folders"]
    assert [folder["name"] for folder in found] == ["folders/100"]
    assert got(gcp, f"/v3/projects/{PROD}", token).json()["name"] == f"projects/{number(PROD)}"


def test_policies(gcp, token):
    path = f"/v1/projects/{PROD}/locations/{SEOUL}/repositories"
    public = got(gcp, f"{path}/public:getIamPolicy", token).json()
    assert public["bindings"][0]["members"] == ["user:ci@example.com", "allUsers"]
    assert got(gcp, f"{path}/images:getIamPolicy", token).json() == {"etag": "ACAB"}
    assert got(gcp, f"{path}/none:getIamPolicy", token).status_code == 404


def test_it_only_reads(gcp, client, token):
    answer = requests.post(f"{gcp.url}/v3/projects", headers={"Authorization": f"Bearer {token}"}, timeout=10)
    assert answer.status_code == 405
    with pytest.raises(exceptions.MethodNotImplemented):
        client.get_server_config(name=f"projects/{PROD}/locations/-", retry=None, timeout=5)
    assert got(gcp, "/v1/other", token).headers["Content-Type"].startswith("text/html")


def test_faults_of_calls(gcp, client, token):
    gcp.inject_call(refuse("UNAVAILABLE", "try later", info("BACKEND", zone="a")), project=PROD, times=1)
    with pytest.raises(exceptions.ServiceUnavailable, match="try later") as caught:
        listed(client, token, PROD)
    assert (caught.value.reason, caught.value.metadata) == ("BACKEND", {"zone": "a"})
    assert listed(client, token, PROD).clusters
    gcp.inject_call(garbage(), times=1)
    with pytest.raises(exceptions.InternalServerError, match="deserializing"):
        listed(client, token, PROD)
    gcp.inject_call(silent(), project=DEV)
    assert listed(client, token, PROD).clusters
    started = time.monotonic()
    with pytest.raises(exceptions.DeadlineExceeded):
        listed(client, token, DEV, timeout=0.2)
    assert time.monotonic() - started < 5


def test_faults_of_requests(gcp, token):
    path = f"/v1/projects/{PROD}/locations"
    gcp.inject("/locations", status(429, "slow down", info("RATE_LIMIT_EXCEEDED")), times=1, after=1)
    gcp.inject("^/v3/", body(json.dumps([1]).encode()))
    assert got(gcp, path, token).status_code == 200
    error = got(gcp, path, token).json()["error"]
    assert (error["code"], error["status"], error["message"]) == (429, "RESOURCE_EXHAUSTED", "slow down")
    assert got(gcp, path, token).status_code == 200
    assert got(gcp, "/v3/projects").json() == [1]


def test_what_breaks_inside_the_server_is_raised():
    server = GcpServer(sample_estate()).__enter__()
    server.inject("/v3/", lambda handler: 1 / 0)
    with pytest.raises(requests.ConnectionError):
        got(server, "/v3/projects")
    with pytest.raises(ZeroDivisionError):
        server.__exit__()


def test_a_large_estate_is_spread_over_projects():
    estate = large_estate(3, 10)
    assert [len(project.clusters) for project in estate.projects.values()] == [4, 3, 3]
