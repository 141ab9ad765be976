"""The local Azure Resource Manager, asked through Azure's own libraries."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from armserver import (
    ArmServer,
    Token,
    body,
    delay,
    empty,
    foreign_next_link,
    hang,
    redirect,
    reset,
    status,
    unknown_api_version,
    unregistered,
)
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ServiceResponseTimeoutError
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.core.rest import HttpRequest, HttpResponse
from azure.identity import DefaultAzureCredential
from azure.mgmt.containerservice import ContainerServiceClient, models
from azure_data import AKS_SERVER_ID, CLUSTER_USER, DEV, PROD, READER, SECRETS, VERSION, Estate, Object, sample_estate

CLUSTERS = f"/subscriptions/{PROD}/providers/Microsoft.ContainerService/managedClusters"
AKS, ACR, DIAGNOSTICS = "2026-08-01", "2025-11-01", "2021-05-01-preview"
ARM = "https://management.azure.com"


@pytest.fixture
def estate() -> Estate:
    return sample_estate()


@pytest.fixture
def arm(estate, monkeypatch) -> Iterator[ArmServer]:
    with ArmServer(estate) as server:
        _set(monkeypatch, server)
        yield server


@pytest.fixture(autouse=True)
def _no_other_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("AZURE_"):
            monkeypatch.delenv(name)


def _set(monkeypatch: pytest.MonkeyPatch, server: ArmServer) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@contextmanager
def client(server: ArmServer, subscription: str = PROD, **options: Any) -> Iterator[ContainerServiceClient]:
    with DefaultAzureCredential(retry_total=0) as credential:
        options = {"retry_total": 0} | options
        with ContainerServiceClient(credential, subscription, server.url, **options) as sdk:
            yield sdk


def get(server: ArmServer, path: str, version: str = AKS, method: str = "GET", **options: Any) -> HttpResponse:
    with client(server, **options) as sdk:
        request = HttpRequest(method, path, params={"api-version": version})
        return sdk.send_request(request, enforce_https=False)


def values(response: HttpResponse) -> list[Object]:
    response.raise_for_status()
    return response.json()["value"]


def names(server: ArmServer, subscription: str = PROD, **options: Any) -> list[str]:
    with client(server, subscription, **options) as sdk:
        return [item.name for item in sdk.managed_clusters.list(enforce_https=False)]


def raw(server: ArmServer, path: str, **headers: str) -> tuple[int, Object]:
    """Without Azure's libraries, as they cannot be made to ask wrongly."""
    request = urllib.request.Request(server.url + path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def error_code(server: ArmServer, authorization: str | None, query: str = "?api-version=1") -> tuple[int, str]:
    headers = {} if authorization is None else {"Authorization": authorization}
    code, answer = raw(server, CLUSTERS + query, **headers)
    return code, answer["error"]["code"]


# --- tokens ---


def test_identity_endpoint_gives_the_token_that_requests_carry(arm):
    assert values(get(arm, "/subscriptions", "2022-12-01"))
    (token,) = arm.tokens
    assert token.resource == ARM
    (request,) = arm.requests
    assert request == ("GET", "/subscriptions", {"api-version": "2022-12-01"}, f"Bearer {token.token}", b"")


def test_tokens_look_like_those_of_entra(arm):
    with DefaultAzureCredential() as credential:
        token = credential.get_token(f"{AKS_SERVER_ID}/.default")
    header, payload, signature = token.token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert json.loads(base64.urlsafe_b64decode(header + "=="))["alg"] == "RS256"
    assert signature
    assert claims["aud"] == AKS_SERVER_ID
    assert {"tid", "oid"} <= claims.keys()
    assert claims["exp"] == pytest.approx(token.expires_on, abs=2)
    assert arm.tokens == [Token(AKS_SERVER_ID, token.token)]
    assert arm.requests == []


def test_a_short_lifetime_makes_clients_ask_again(arm):
    arm.token_seconds = 60
    with client(arm) as sdk:
        for _ in range(3):
            sdk.send_request(HttpRequest("GET", "/subscriptions?api-version=1"), enforce_https=False)
    assert len(arm.tokens) == 3


def test_identity_endpoint_wants_its_header(arm):
    path = "/identity/oauth2/token?api-version=2019-08-01&resource=x"
    assert raw(arm, path)[0] == 401
    assert raw(arm, path, X_IDENTITY_HEADER="guess")[0] == 401
    assert raw(arm, path.split("&")[0], X_IDENTITY_HEADER=arm.environment["IDENTITY_HEADER"])[0] == 400
    assert arm.tokens == []


def test_only_own_tokens_for_arm_that_are_not_revoked_pass(arm):
    token = f"Bearer {arm.issue()}"
    assert error_code(arm, None) == (401, "AuthenticationFailed")
    assert error_code(arm, "Bearer a.b.c") == (401, "InvalidAuthenticationToken")
    assert error_code(arm, f"Bearer {arm.issue(AKS_SERVER_ID)}") == (401, "InvalidAuthenticationTokenAudience")
    assert error_code(arm, f"Bearer {arm.issue(seconds=-1)}") == (401, "ExpiredAuthenticationToken")
    assert error_code(arm, token, query="") == (400, "MissingApiVersionParameter")
    assert raw(arm, CLUSTERS + "?api-version=1", Authorization=token)[0] == 200
    arm.revoke()
    assert error_code(arm, token) == (401, "ExpiredAuthenticationToken")


def test_a_revoked_token_is_an_authentication_error_to_the_library(arm):
    with client(arm) as sdk:
        list(sdk.managed_clusters.list(enforce_https=False))
        arm.revoke()
        with pytest.raises(ClientAuthenticationError, match="ExpiredAuthenticationToken"):
            list(sdk.managed_clusters.list(enforce_https=False))


def test_faults_reach_the_identity_endpoint(arm):
    arm.inject("/identity/", status(500, "Broken"))
    with pytest.raises(ClientAuthenticationError):
        names(arm)
    assert arm.requests == []


# --- what is served ---


def test_typed_list_follows_pages(arm, estate):
    arm.page_size = 3
    assert names(arm) == [item["name"] for item in estate.subscriptions[PROD].clusters]
    first, second = arm.requests
    assert {first.path, second.path} == {CLUSTERS}
    assert "$skiptoken" not in first.query
    assert second.query["api-version"] == first.query["api-version"]
    assert second.query["$skiptoken"]


def test_next_link_is_absolute_and_the_last_page_has_none(arm):
    arm.page_size = 3
    first = get(arm, CLUSTERS).json()
    assert first["nextLink"].startswith(f"{arm.url}{CLUSTERS}?api-version={AKS}&%24skiptoken=")
    assert "nextLink" not in get(arm, first["nextLink"].removeprefix(arm.url)).json()
    forged = get(arm, f"{CLUSTERS}?$skiptoken=forged")
    assert (forged.status_code, forged.json()["error"]["code"]) == (400, "InvalidSkipToken")


def test_wire_names_are_those_that_the_library_knows(estate):
    ours = {"podLinkLocalAccess", "dockerBridgeCidr", "adminUsers"}  # sent by Azure, unknown to the library
    for _, item in estate.clusters():
        properties = item["properties"]
        unknown = properties.keys() - _wire_names(models.ManagedClusterProperties)
        for pool in properties["agentPoolProfiles"]:
            unknown |= pool.keys() - _wire_names(models.ManagedClusterAgentPoolProfile)
        for key, model in _PROFILES.items():
            unknown |= (properties.get(key) or {}).keys() - _wire_names(model)
        assert unknown <= ours, item["name"]


_PROFILES = {
    "networkProfile": models.ContainerServiceNetworkProfile,
    "aadProfile": models.ManagedClusterAADProfile,
    "apiServerAccessProfile": models.ManagedClusterAPIServerAccessProfile,
    "securityProfile": models.ManagedClusterSecurityProfile,
    "autoUpgradeProfile": models.ManagedClusterAutoUpgradeProfile,
    "autoScalerProfile": models.ManagedClusterPropertiesAutoScalerProfile,
    "azureMonitorProfile": models.ManagedClusterAzureMonitorProfile,
    "storageProfile": models.ManagedClusterStorageProfile,
    "httpProxyConfig": models.ManagedClusterHTTPProxyConfig,
    "oidcIssuerProfile": models.ManagedClusterOIDCIssuerProfile,
}


def _wire_names(model: Any) -> set[str]:
    return {field._rest_name for field in model._attr_to_rest_field.values()}


def test_each_subscription_has_its_own(arm):
    subscriptions = values(get(arm, "/subscriptions", "2022-12-01"))
    assert {s["subscriptionId"]: s["state"] for s in subscriptions} == {PROD: "Enabled", DEV: "Enabled"}
    assert get(arm, f"/subscriptions/{DEV}", "2022-12-01").json()["displayName"] == "Development"
    assert names(arm, DEV) == ["aks-public", "aks-legacy", "aks-nulls", "aks-deleting"]


@pytest.mark.parametrize(
    ("resource", "count"),
    [
        ("Microsoft.ContainerRegistry/registries", 1),
        ("Microsoft.Kubernetes/connectedClusters", 2),
        ("Microsoft.Security/pricings", 18),
        ("Microsoft.Security/securityConnectors", 3),
        ("Microsoft.Authorization/permissions", 2),
    ],
)
def test_lists_of_a_subscription(arm, resource, count):
    assert len(values(get(arm, f"/subscriptions/{PROD}/providers/{resource}"))) == count


def test_prices_come_at_once_and_others_in_pages(arm):
    arm.page_size = 1
    prices = get(arm, f"/subscriptions/{PROD}/providers/Microsoft.Security/pricings").json()
    connectors = get(arm, f"/subscriptions/{PROD}/providers/Microsoft.Security/securityConnectors").json()
    assert (len(prices["value"]), "nextLink" in prices) == (18, False)
    assert (len(connectors["value"]), "nextLink" in connectors) == (1, True)


def test_what_belongs_to_a_cluster_in_any_spelling(arm, estate):
    own_id = estate.cluster("aks-private")["id"]
    (setting,) = values(get(arm, f"{own_id}/providers/Microsoft.Insights/diagnosticSettings", DIAGNOSTICS))
    assert setting["properties"]["workspaceId"]
    assert values(get(arm, f"{own_id.upper()}/PROVIDERS/microsoft.insights/DIAGNOSTICSETTINGS", DIAGNOSTICS))
    assert get(arm, own_id.replace("resourcegroups", "resourceGroups")).json()["name"] == "aks-private"
    shop = estate.subscriptions[PROD].connected_clusters[0]["id"]
    extensions = get(arm, f"{shop}/providers/Microsoft.KubernetesConfiguration/extensions").json()
    assert (len(extensions["value"]), extensions["nextLink"]) == (2, None)


def test_typed_kubernetes_versions(arm):
    with client(arm) as sdk:
        found = sdk.managed_clusters.list_kubernetes_versions("koreacentral", enforce_https=False).values_property
    by_minor = {item.version: item for item in found}
    assert by_minor["1.33"].patch_versions["1.33.2"].upgrades
    assert VERSION in by_minor["1.34"].patch_versions
    assert by_minor["1.36"].is_preview


def test_permissions_can_be_set(arm):
    path = f"/subscriptions/{DEV}/providers/Microsoft.Authorization/permissions"
    assert values(get(arm, path)) == [READER]
    arm.permit(DEV, "Microsoft.ContainerService/*/read", CLUSTER_USER)
    assert [entry["actions"][0] for entry in values(get(arm, path))] == [
        "Microsoft.ContainerService/*/read",
        CLUSTER_USER["actions"][0],
    ]


def test_load_serves_another_estate(arm):
    changed = sample_estate()
    del changed.subscriptions[PROD].clusters[1:]
    arm.load(changed)
    assert names(arm) == ["aks-private"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/subscriptions/00000000-0000-0000-0000-000000000000", "SubscriptionNotFound"),
        (f"{CLUSTERS.replace('/providers', '/resourceGroups/rg/providers')}/nope", "ResourceNotFound"),
        (f"{CLUSTERS}/nope/providers/Microsoft.Insights/diagnosticSettings", "ResourceNotFound"),
        (f"/subscriptions/{PROD}/providers/Microsoft.Nothing/things", "InvalidResourceType"),
        ("/", "InvalidResourceType"),
    ],
)
def test_what_is_not_there(arm, path, code):
    response = get(arm, path)
    assert (response.status_code, response.json()["error"]["code"]) == (404, code)


# --- kubeconfigs and writes ---


def _kubeconfig(arm: ArmServer, name: str) -> Object:
    with client(arm) as sdk:
        answer = sdk.managed_clusters.list_cluster_user_credentials("rg-kubernetes", name, enforce_https=False)
    (only,) = answer.kubeconfigs
    assert only.name == "clusterUser"
    return yaml.safe_load(bytes(only.value))


def test_kubeconfig_of_an_entra_cluster_names_a_command(arm, estate):
    estate.connect("aks-entra", "https://127.0.0.1:6443", b"authority")
    config = _kubeconfig(arm, "aks-entra")
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]) == b"authority"
    (user,) = config["users"]
    arguments = user["user"]["exec"]["args"]
    assert arguments[arguments.index("--server-id") + 1] == AKS_SERVER_ID
    (request,) = arm.requests
    assert (request.method, request.path.split("/")[-1]) == ("POST", "listClusterUserCredential")


def test_kubeconfig_of_local_accounts_holds_a_credential(arm, estate):
    estate.subscriptions[PROD].clusters[0]["properties"]["aadProfile"] = None
    user = _kubeconfig(arm, "aks-private")["users"][0]["user"]
    assert user.keys() == {"client-certificate-data", "client-key-data", "token"}
    assert {user["client-key-data"], user["token"]} < set(SECRETS)
    estate.connect("aks-private", "https://127.0.0.1:6443", cert=b"", key=b"", token="mine")
    assert _kubeconfig(arm, "aks-private")["users"][0]["user"] == {"token": "mine"}


def test_writes_are_seen_and_answered(arm):
    path = f"/subscriptions/{PROD}/providers/Microsoft.Security/register"
    assert get(arm, path, method="POST").status_code == 200
    assert get(arm, f"{CLUSTERS}/aks-private", method="DELETE").status_code == 200
    assert [(r.method, r.path) for r in arm.requests] == [("POST", path), ("DELETE", f"{CLUSTERS}/aks-private")]


# --- what can go wrong ---


def test_denied_names_action_and_scope(arm):
    arm.deny("/providers/Microsoft.ContainerService/managedClusters", subscription=PROD)
    with pytest.raises(HttpResponseError) as caught:
        names(arm)
    assert caught.value.status_code == 403
    assert caught.value.error.code == "AuthorizationFailed"
    assert "perform action 'Microsoft.ContainerService/managedClusters/read' over scope" in caught.value.error.message
    assert f"'/subscriptions/{PROD}/providers/Microsoft.ContainerService'" in caught.value.error.message
    assert names(arm, DEV)
    assert get(arm, f"{CLUSTERS}/nope").status_code == 404  # only the list is denied


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("GET", "", "Microsoft.ContainerService/managedClusters/read"),
        (
            "POST",
            "/listClusterUserCredential",
            "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action",
        ),
        ("GET", "/providers/Microsoft.Insights/diagnosticSettings", "Microsoft.Insights/diagnosticSettings/read"),
        ("DELETE", "", "Microsoft.ContainerService/managedClusters/delete"),
    ],
)
def test_denied_actions(arm, estate, method, path, action):
    arm.deny("", subscription=PROD)
    response = get(arm, estate.cluster("aks-private")["id"] + path, method=method)
    assert response.status_code == 403
    assert f"to perform action '{action}' over scope" in response.json()["error"]["message"]


def test_an_unregistered_provider_makes_the_library_register_it(arm):
    class ReadOnly(SansIOHTTPPolicy):
        def on_request(self, request):
            if request.http_request.method != "GET":
                raise PermissionError(request.http_request.url)

    arm.inject("/managedClusters$", unregistered("Microsoft.ContainerService"))
    with pytest.raises(PermissionError, match=f"subscriptions/{PROD}/providers/Microsoft.ContainerService/register"):
        names(arm, per_retry_policies=[ReadOnly()])
    assert {r.method for r in arm.requests} == {"GET"}


@pytest.mark.parametrize("code", ["NoRegisteredProviderFound", "InvalidResourceType"])
def test_an_unknown_version_lists_those_that_are_known(arm, code):
    arm.inject("/registries$", unknown_api_version(["2019-05-01", "2023-07-01"], code))
    path = f"/subscriptions/{PROD}/providers/Microsoft.ContainerRegistry/registries"
    refused = get(arm, path, ACR)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, code)
    assert f"version '{ACR}'" in error["message"]
    assert "The supported api-versions are '2019-05-01, 2023-07-01'." in error["message"]
    assert values(get(arm, path, "2023-07-01"))


def test_throttling_with_retry_after(arm):
    arm.inject("/managedClusters$", status(429, retry_after=0.01), times=2)
    assert names(arm, retry_total=3)
    assert len(arm.requests) == 3


def test_the_library_follows_a_next_link_to_another_host_with_the_token(arm, estate):
    with ArmServer(estate) as other:
        arm.inject("/managedClusters$", foreign_next_link(other.url))
        with pytest.raises(ClientAuthenticationError):
            names(arm)
        (request,) = other.requests
        assert request.authorization == f"Bearer {arm.tokens[0].token}"


def test_connections_break_hang_and_answer_nonsense(arm):
    arm.inject("/managedClusters$", reset(), times=1)
    arm.inject("/managedClusters$", hang(), times=1)
    arm.inject("/managedClusters$", body(b"<html>", content_type="text/html"), times=1)
    arm.inject("/managedClusters$", delay(0.05), times=1)
    with client(arm, read_timeout=0.2) as sdk:
        request = HttpRequest("GET", CLUSTERS, params={"api-version": AKS})
        # Half a body is an HttpResponseError without a response, unless the reset overtakes the answer's head.
        for error in (AzureError, ServiceResponseTimeoutError):
            with pytest.raises(error):
                sdk.send_request(request, enforce_https=False)
        assert sdk.send_request(request, enforce_https=False).text() == "<html>"
        start = time.monotonic()
        assert sdk.send_request(request, enforce_https=False).json()["value"]
        assert time.monotonic() - start >= 0.05
    assert len(arm.requests) == 4


def test_redirects_leave_the_token_behind(arm, estate):
    with ArmServer(estate) as other:
        arm.inject("/managedClusters$", redirect(other.url + CLUSTERS))
        with pytest.raises(ClientAuthenticationError):
            names(arm)
        (request,) = other.requests
        assert request.authorization == ""


def test_empty_answers_have_the_form_of_the_resource(arm, estate):
    arm.inject("/subscriptions", empty())
    assert names(arm) == []
    with client(arm) as sdk:
        assert sdk.managed_clusters.list_kubernetes_versions("x", enforce_https=False).values_property == []
        found = sdk.managed_clusters.list_cluster_user_credentials("rg", "c", enforce_https=False)
    assert found.kubeconfigs == []


def test_latency(arm):
    arm.latency = 0.05
    start = time.monotonic()
    names(arm)
    assert time.monotonic() - start >= 0.1  # the token too


# --- how it runs ---


def test_tls_with_a_private_authority(estate, monkeypatch):
    with ArmServer(estate, tls=True) as arm:
        _set(monkeypatch, arm)
        with client(arm) as sdk:
            assert len(list(sdk.managed_clusters.list())) == 4
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with DefaultAzureCredential(retry_total=0) as credential, pytest.raises(ClientAuthenticationError):
            credential.get_token(ARM + "/.default")
        assert Path(arm.ca).exists()
    assert not Path(arm.ca).exists()


def test_process_of_its_own(monkeypatch):
    command = [sys.executable, Path(__file__).with_name("armserver.py"), "--subscriptions", "3", "--clusters", "20"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        ready = json.loads(process.stdout.readline())
        for name, value in ready["environment"].items():
            monkeypatch.setenv(name, value)
        with DefaultAzureCredential() as credential:
            token = credential.get_token(ARM + "/.default").token
        request = urllib.request.Request(
            ready["url"] + "/subscriptions?api-version=2022-12-01", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request) as response:
            assert len(json.load(response)["value"]) == 3
        process.stdin.close()
        assert process.wait(timeout=10) == 0
