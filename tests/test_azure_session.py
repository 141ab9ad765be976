"""What leaves for Azure and what comes back: Azure's own libraries against a local Resource Manager that misbehaves."""

import gzip
import json
import os
import socketserver
import threading
import time

import jsonschema_rs
import pytest
from armserver import (
    ArmServer,
    body,
    drip,
    drip_chunks,
    drip_headers,
    empty,
    flood,
    foreign_next_link,
    hang,
    redirect,
    reset,
    status,
    unknown_api_version,
    unregistered,
)
from azure_data import (
    CLUSTER_USER,
    DEV,
    PROD,
    TENANT,
    Estate,
    Subscription,
    diagnostic_setting,
    entra_cluster,
    guid,
    kubernetes_versions,
    pricings,
    private_cluster,
    public_cluster,
    registry,
)
from cli import kubeposture
from proxyserver import Proxy

from providers import bounded
from providers.azure import session
from providers.azure.errors import UsageError, WriteRefused
from providers.azure.reader import Permissions
from scanner.report import schema

VALID = jsonschema_rs.validator_for(schema.report_schema())
AKS = "/providers/Microsoft.ContainerService/managedClusters"
LIST = rf"^/subscriptions/{PROD}{AKS}$"
ARM = "https://management.azure.com"
READ_CLUSTERS = "Microsoft.ContainerService/managedClusters/read"
HANG = hang()


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No credential but the one that a test gives, and no long waits."""
    for name in tuple(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_", "REQUESTS_CA", "KUBEPOSTURE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "LONGEST_WAIT", 0.02)


@pytest.fixture
def serve(monkeypatch):
    """Starts a Resource Manager that gives tokens. It may never be sent anything but GET, and queries."""

    def start(*clusters, estate=None, **options):
        arm = ArmServer(estate or small_estate(*clusters), **options)
        servers.append(arm.__enter__())
        for name, value in arm.environment.items():
            monkeypatch.setenv(name, value)
        return arm

    servers = []
    yield start
    for server in servers:
        server.__exit__()
        assert {request.method for request in server.requests if request.path != session.GRAPH} <= {"GET"}


def small_estate(*clusters):
    """The clusters in Production; one cluster in Development."""
    clusters = clusters or (private_cluster(), entra_cluster())
    return Estate.of(
        subscription(PROD, "Production", *clusters),
        subscription(DEV, "Development", private_cluster("aks-dev", subscription=DEV)),
    )


def subscription(id, name, *clusters):
    return Subscription(
        id,
        name,
        clusters=list(clusters),
        registries=[registry(f"acr{name.lower()}", subscription=id)],
        pricings=pricings("Containers", subscription=id),
        versions={"koreacentral": kubernetes_versions()},
        diagnostics={cluster["id"]: [diagnostic_setting(cluster["id"])] for cluster in clusters},
    )


class Scan:
    def __init__(self, result):
        self.code, self.error = result.code, result.stderr
        self.report = json.loads(result.stdout)
        VALID.validate(self.report)
        self.gaps = {(g["account"], g["what"]): g for g in self.report["gaps"]}
        self.clusters = [c["name"] for c in self.report["clusters"]]
        self.statuses = {f["id"]: f["status"] for f in self.report["findings"]}

    def gap(self, what="managedClusters", account=PROD):
        """The only gap there is."""
        assert self.gaps.keys() == {(account, what)}
        assert (self.code, self.report["scan"]["complete"]) == (3, False)
        return self.gaps[account, what]


def scan(arm, *args, planes="control"):
    endpoint = getattr(arm, "url", arm)
    options = ("--arm-endpoint", endpoint, "--planes", planes, "--request-timeout", "10", "--status", "all")
    return Scan(kubeposture("scan", "aks", *options, "-o", "json", *args))


def impatient(fault):
    return ("--request-timeout", "1") if fault is HANG else ()


def page(*items, **more):
    return body(json.dumps({"value": items} | more).encode())


# -- pages


def test_every_page_is_read(serve):
    names = [f"aks-{number}" for number in range(5)]
    arm = serve(*map(private_cluster, names), page_size=2)
    found = scan(arm)
    assert (found.code, found.gaps) == (0, {})
    assert found.clusters == [*names, "aks-dev"]
    assert len([r for r in arm.requests if r.path.startswith(f"/subscriptions/{PROD}/") and r.path.endswith(AKS)]) == 3


def test_pages_that_overlap_give_each_cluster_once(serve):
    one, two = private_cluster("one"), private_cluster("two")
    arm = serve(one, two)
    shouted = two | {"id": two["id"].upper().replace("/SUBSCRIPTIONS/", "/subscriptions/")}
    more = f"{arm.url}{LIST[1:-1]}?api-version=1&$skiptoken=more"
    arm.inject(LIST, page(one, two, nextLink=more), times=1)
    arm.inject(LIST, page(shouted, one), times=1)
    found = scan(arm)
    assert (found.code, found.gaps) == (0, {})
    assert found.clusters == ["aks-dev", "one", "two"]


def test_a_list_that_says_unregistered_on_its_second_page_is_a_gap(serve):
    arm = serve(private_cluster("one"))
    more = f"{arm.url}{LIST[1:-1]}?api-version=1&$skiptoken=more"
    arm.inject(LIST, page(private_cluster("one"), nextLink=more), times=1)
    arm.inject(LIST, unregistered("Microsoft.ContainerService"), times=1)
    found = scan(arm)
    assert found.code == 3
    assert "one" in found.clusters


@pytest.mark.parametrize("end", [None, ""])
def test_an_empty_link_ends_a_list(serve, end):
    arm = serve()
    arm.inject(LIST, page(private_cluster(), nextLink=end))
    assert (scan(arm).code, scan(arm).clusters) == (0, ["aks-dev", "aks-private"])


@pytest.mark.parametrize("link", [0, 7, False, True, [], {}, ["x"], "/relative", "https://", "http://[::1", " ", "\n"])
def test_a_link_that_is_none_is_a_gap(serve, link):
    arm = serve()
    arm.inject(LIST, page(private_cluster(), nextLink=link))
    found = scan(arm)
    assert found.gap()["reason"] == "bad_data"
    assert found.clusters == ["aks-dev", "aks-private"]


def test_a_list_that_leads_back_to_itself_is_a_gap(serve):
    arm = serve()
    arm.inject(LIST, page(private_cluster(), nextLink=f"{arm.url}{LIST[1:-1]}?api-version=1&$skiptoken=x"))
    found = scan(arm)
    assert "already read" in found.gap()["detail"]
    assert len([r for r in arm.requests if r.path == LIST[1:-1]]) == 2


@pytest.mark.parametrize(
    "host",
    [
        "{other}",
        "{other}\\@{own}",  # what urlsplit takes for a user name is the host to the HTTP client
        "{scheme}://{own}@{where}",
        "{scheme}://user:secret@{own}",
        "https://{own}",
        "{scheme}://{own}.example",
        "{scheme}:{own}",
    ],
)
def test_no_token_follows_a_link_to_another_host(serve, host):
    with ArmServer(small_estate()) as other:
        arm = serve()
        own, where = (server.url.partition("//")[2] for server in (arm, other))
        arm.inject(LIST, foreign_next_link(host.format(other=other.url, own=own, where=where, scheme="http")))
        found = scan(arm)
    assert other.requests == []
    gap = found.gap()
    assert (gap["reason"], gap["permission"]) == ("bad_data", "")
    assert "another host" in gap["detail"]
    assert found.clusters == ["aks-dev", "aks-entra", "aks-private"]


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_redirects_are_not_followed(serve, code):
    with ArmServer(small_estate()) as other:
        arm = serve()
        arm.inject(LIST, redirect(f"{other.url}{LIST[1:-1]}", code))
        found = scan(arm)
    assert other.requests == []
    assert f"HTTP {code}" in found.gap()["detail"]


# -- refusals and faults


@pytest.mark.parametrize(
    ("fault", "reason", "permission"),
    [
        (status(403), "forbidden", READ_CLUSTERS),
        (status(404), "not_found", READ_CLUSTERS),
        (status(400), "bad_data", ""),
        (status(409), "bad_data", ""),
        (status(429), "throttled", ""),
        (status(429, retry_after=0.01), "throttled", ""),
        (status(408), "timeout", ""),
        (status(500), "server_error", ""),
        (status(503), "server_error", ""),
        (status(504, retry_after=0.01), "server_error", ""),
        (HANG, "timeout", ""),
        (reset(), "unreachable", ""),
        (body(b"", code=204), "bad_data", ""),
        (body(b""), "bad_data", ""),
        (body(b"\xff\xfe{}"), "bad_data", ""),
        (body(b"[" * 50_000), "bad_data", ""),
        (body(b"<html>Sign in</html>", content_type="text/html"), "bad_data", ""),
        (body(b"<html>Forbidden</html>", code=403, content_type="text/html"), "forbidden", READ_CLUSTERS),
        (body(b'{"error":7}', code=404), "not_found", READ_CLUSTERS),
        (body(b"null"), "bad_data", ""),
        (body(b"[]"), "bad_data", ""),
        (body(b"{}"), "bad_data", ""),
        (body(b'{"value":null}'), "bad_data", ""),
        (body(b'{"value":{}}'), "bad_data", ""),
        (body(b'{"value":"none"}'), "bad_data", ""),
        (body(b'{"error":{"code":"AuthorizationFailed"}}'), "bad_data", ""),
    ],
)
def test_a_lasting_fault_is_a_gap_and_all_else_is_judged(serve, fault, reason, permission):
    arm = serve()
    clean = scan(arm)
    assert (clean.code, clean.gaps) == (0, {})
    arm.inject(LIST, fault)
    found = scan(arm, *impatient(fault))
    gap = found.gap()
    assert (gap["reason"], gap["permission"]) == (reason, permission)
    assert gap["detail"]
    assert found.clusters == ["aks-dev"]
    assert found.report["coverage"]["clusters"]["expected"] is None
    assert found.report["coverage"]["accounts"] == {"expected": 2, "read": 1, "refused": 1}
    kept = found.statuses.keys() & clean.statuses.keys()
    assert {found.statuses[id] for id in found.statuses.keys() - kept} == {"unknown"}
    assert all(found.statuses[id] == clean.statuses[id] for id in kept)


@pytest.mark.parametrize(
    "fault",
    [
        status(429, retry_after=0.01),
        status(429),
        status(500),
        status(503, retry_after=1),
        reset(),
        HANG,
        body(b"", code=502, Retry_After="soon"),
        body(b"", code=502, Retry_After="Wed, 21 Oct 2099 07:28:00 GMT"),
        body(b"", code=502, Retry_After="-1"),
        body(b"", code=502, Retry_After="nan"),
    ],
)
def test_a_passing_fault_leaves_no_trace(serve, fault):
    arm = serve()
    clean = scan(arm)
    arm.inject(LIST, fault, times=1)
    found = scan(arm, *impatient(fault))
    assert (found.code, found.gaps, found.statuses) == (0, {}, clean.statuses)


def test_a_server_that_asks_for_two_minutes_does_not_get_them(serve):
    arm = serve()
    arm.inject(LIST, status(429, retry_after=120))
    started = time.monotonic()
    assert scan(arm).gap()["reason"] == "throttled"
    assert time.monotonic() - started < 60
    assert len([r for r in arm.requests if r.path == LIST[1:-1]]) == session.ATTEMPTS


def test_an_answer_that_stops_in_its_middle_is_a_gap(serve):
    arm = serve()

    def half(handler):
        handler.start_body(200, 1 << 20)
        handler.wfile.write(b'{"value":[')
        handler.api.stopping.wait()
        handler.close_connection = True

    arm.inject(LIST, half)
    assert scan(arm, "--request-timeout", "1").gap()["reason"] in ("timeout", "unreachable")


BOMB = gzip.compress(b" " * 3_000_000)


@pytest.mark.parametrize("fault", [drip(0.01), drip_headers(), drip_chunks()])
def test_an_answer_that_drips_for_ever_is_a_gap_and_not_asked_for_again(serve, fault):
    arm = serve()
    arm.inject(LIST, fault)
    started = time.monotonic()
    gap = scan(arm, "--request-timeout", "0.2").gap()
    assert time.monotonic() - started < 15
    assert (gap["reason"], gap["detail"]) == ("timeout", "Azure did not finish its answer within 2 s")
    assert len([r for r in arm.requests if r.path == LIST[1:-1]]) == 1


@pytest.mark.parametrize(
    "fault", [flood(), body(b" " * 3_000_000), body(BOMB, Content_Encoding="gzip"), body(b" " * 3_000_000, code=403)]
)
def test_an_answer_that_is_too_large_is_a_gap_and_not_asked_for_again(serve, monkeypatch, fault):
    monkeypatch.setattr(bounded, "MAX_BODY", 2 << 20)
    arm = serve()
    arm.inject(LIST, fault)
    gap = scan(arm).gap()
    assert (gap["reason"], gap["detail"]) == ("bad_data", "Azure sent an answer of more than 2 MiB")
    assert len([r for r in arm.requests if r.path == LIST[1:-1]]) == 1


def test_answers_end_through_a_proxy_too(serve, monkeypatch):
    arm = serve(tls=True)
    with Proxy(arm.port) as proxy:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://{proxy.url}")
        arm.inject(LIST, drip(0.01))
        gap = scan(arm, "--request-timeout", "0.2").gap()
    assert "did not finish its answer" in gap["detail"]
    assert proxy.heads[0].startswith("CONNECT ")


@pytest.mark.parametrize(
    "password", ["hush/hush", "hush#hush", "hush?hush", "hush\\hush", "hush@hu/sh", "hush hush", "hüsh"]
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_whose_password_would_be_shown_is_a_usage_error(serve, monkeypatch, password, variable):
    arm = serve()
    for url in (f"http://me:{password}@127.0.0.1:9", f"me:{password}@127.0.0.1:9", f"//me:{password}@127.0.0.1:9"):
        monkeypatch.setenv(variable, url)
        result = kubeposture("scan", "aks", "--arm-endpoint", arm.url)
        assert (result.code, result.stdout, arm.requests) == (2, "", [])
        assert f"the proxy that {variable.upper()} names cannot be used" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert "sh" not in result.stderr.replace("such", "")


@pytest.mark.parametrize(
    "url", ["http://me:hush%2Fhush@127.0.0.1:9", "me:hush@127.0.0.1:9", "http://me:hu@sh@127.0.0.1:9"]
)
def test_a_proxy_that_does_not_answer_is_named_without_its_password(serve, monkeypatch, url):
    with ArmServer(small_estate(), tls=True) as arm:
        serve()
        monkeypatch.setenv("HTTPS_PROXY", url)
        result = kubeposture("scan", "aks", "--arm-endpoint", arm.url, "--planes", "control")
    assert "hu" not in result.stdout.replace("Thu", "") + result.stderr


def test_a_provider_that_was_never_registered_has_no_clusters(serve):
    arm = serve()
    arm.inject(LIST, unregistered("Microsoft.ContainerService"))
    found = scan(arm)
    assert (found.code, found.gaps, found.clusters) == (0, {}, ["aks-dev"])
    assert found.report["coverage"]["clusters"]["expected"] == 1
    assert not [r.path for r in arm.requests if "register" in r.path]


def test_not_registered_is_no_clusters_for_whoever_asks(serve):
    arm = serve()
    arm.permit(PROD, CLUSTER_USER)
    arm.inject(LIST, unregistered("Microsoft.ContainerService"))
    assert (PROD, "managedClusters") not in scan(arm).gaps


@pytest.mark.parametrize("what", ["pricings", "diagnosticSettings"])
def test_settings_of_a_provider_that_was_never_registered_are_unknown(serve, what):
    arm = serve(private_cluster())
    arm.inject(rf"^/subscriptions/{PROD}/.*{what}$", unregistered("Microsoft.Security"))
    found = scan(arm)
    assert "not registered" in found.gap(what)["detail"]


def test_entries_that_are_no_clusters_cost_only_themselves(serve):
    arm = serve()
    odd = ({}, {"id": None, "name": "a"}, {"id": 7}, {"id": "elsewhere"}, {"id": ""}, 7, None, "text", [])
    arm.inject(LIST, page(*odd, private_cluster()))
    found = scan(arm)
    assert found.gap()["reason"] == "bad_data"
    assert found.clusters == ["aks-dev", "aks-private"]
    assert len(found.report["gaps"]) == 6  # one for those that are no objects


def test_half_a_character_costs_no_report(serve):
    """JSON may hold half of a surrogate pair, which is no text that could be written anywhere."""
    arm = serve(private_cluster("odd"))
    odd = private_cluster("odd") | {"name": "aks-\ud83d", "tags": {"team": "\udc00", "owner": "\U0001f600"}}
    arm.inject(LIST, page(odd))
    found = scan(arm, "--tag", "team=?")
    assert (found.code, found.clusters) == (0, ["aks-?"])
    assert found.report["clusters"][0]["tags"]["owner"] == "\U0001f600"


# -- lists that may lack what the identity may not see


def test_an_empty_list_is_read_where_all_may_be_seen(serve):
    arm = serve()
    arm.inject(LIST, empty())
    found = scan(arm)
    assert (found.code, found.gaps, found.clusters) == (0, {}, ["aks-dev"])


@pytest.mark.parametrize("permissions", [(), (CLUSTER_USER,), ({"actions": ["*/read"], "notActions": ["*"]},)])
def test_an_empty_list_is_a_gap_where_not_all_may_be_seen(serve, permissions):
    arm = serve(private_cluster())
    arm.permit(PROD, *permissions)
    arm.inject("/registries$", empty())
    found = scan(arm)
    assert found.code == 3
    gap = found.gaps[PROD, "registries"]
    assert (gap["reason"], gap["permission"]) == ("forbidden", "Microsoft.ContainerRegistry/registries/read")
    assert (DEV, "registries") not in found.gaps


@pytest.mark.parametrize("fault", [status(403), status(404), status(429), page("odd"), body(b"{}")])
def test_what_may_be_seen_has_to_be_known(serve, fault):
    """With a role in one resource group Azure answers with the clusters of that group, as if those were all."""
    arm = serve()
    arm.inject(rf"^/subscriptions/{PROD}/providers/Microsoft.Authorization/permissions$", fault)
    found = scan(arm)
    assert found.code == 3
    assert found.clusters == ["aks-dev", "aks-entra", "aks-private"]
    gap = found.gaps[PROD, "managedClusters"]
    assert "could not be asked" in gap["detail"]
    assert gap["permission"] in ("", "Microsoft.Authorization/permissions/read")
    assert found.report["coverage"]["clusters"]["expected"] is None


def test_what_one_resource_answers_is_whole(serve):
    arm = serve(private_cluster())
    arm.permit(PROD, CLUSTER_USER)
    assert (PROD, "diagnosticSettings") not in scan(arm).gaps
    arm.inject("/diagnosticSettings$", empty())
    assert scan(arm).gaps[PROD, "diagnosticSettings"]["permission"] == "Microsoft.Insights/diagnosticSettings/read"


# -- api-versions


@pytest.mark.parametrize("code", ["NoRegisteredProviderFound", "InvalidResourceType"])
def test_a_cloud_with_older_api_versions_is_asked_in_its_own(serve, code):
    arm = serve(page_size=1)
    supported = ["2024-05-01", "2025-02-01", "2025-03-02-preview", *(f"2019-{m:02}-01" for m in range(1, 13))] * 20
    arm.inject(f"{AKS}$", unknown_api_version(supported, code))
    found = scan(arm, "--concurrency", "1")
    assert (found.code, found.gaps) == (0, {})
    assert found.clusters == ["aks-dev", "aks-entra", "aks-private"]
    asked = [r.query["api-version"] for r in arm.requests if r.path.endswith(AKS)]
    assert (len(asked), asked.count("2025-02-01")) == (4, 3)


def test_a_cloud_without_any_known_api_version_is_a_gap(serve):
    arm = serve()
    arm.inject(LIST, unknown_api_version([]))
    assert scan(arm).gap()["reason"] == "bad_data"
    arm.inject(LIST, unknown_api_version(["2020-01-01"]), after=1)
    assert len([r for r in arm.requests if r.path == LIST[1:-1]]) == 1


# -- what may leave


@pytest.mark.parametrize("name", ["aks-1", "AKS_1.b", "a(b)"])
def test_the_guard_lets_reads_pass(name):
    group = f"{ARM}/subscriptions/{PROD}/resourceGroups/rg-1"
    session.check_request("GET", f"{ARM}/subscriptions?api-version=1", ARM)
    session.check_request("GET", f"{ARM}:443{LIST[1:-1]}", ARM)
    session.check_request("POST", f"{group}{AKS}/{name}/listClusterUserCredential?api-version=1", ARM)
    session.check_request("POST", f"{group.lower()}{AKS.lower()}/{name}/LISTCLUSTERUSERCREDENTIAL", ARM)
    session.check_request("POST", f"{ARM}/providers/Microsoft.ResourceGraph/resources?api-version=1", ARM)


_HOME = f"/subscriptions/{PROD}/resourceGroups/rg{AKS}"
_CREDENTIAL = f"{_HOME}/a/listClusterUserCredential"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "get", "post", "Post", ""])
def test_the_guard_refuses_every_other_method(method):
    with pytest.raises(WriteRefused):
        session.check_request(method, f"{ARM}{_CREDENTIAL}", ARM)


@pytest.mark.parametrize(
    "path",
    [
        f"{_HOME}/a/listClusterAdminCredential",
        f"{_HOME}/a/runCommand",
        f"{_HOME}/a/stop",
        f"{_HOME}/a/stop?x={_CREDENTIAL}",
        f"{_HOME}/a/stop#{_CREDENTIAL}",
        f"{_HOME}/a/stop;{_CREDENTIAL}",
        f"{_HOME}/a/stop?/listClusterUserCredential",
        f"{_HOME}/a%2Fstop%3F/listClusterUserCredential",
        f"{_HOME}/a%2fstop/listClusterUserCredential",
        f"{_HOME}/../listClusterUserCredential",
        f"{_HOME}/./listClusterUserCredential",
        f"{_HOME}/a\\stop/listClusterUserCredential",
        f"{_HOME}//listClusterUserCredential",
        f"{_CREDENTIAL}/stop",
        f"{_CREDENTIAL}/",
        f"{_CREDENTIAL}/../stop",
        f"{_CREDENTIAL}%0A",
        f"{_CREDENTIAL}\n",
        f"/x{_CREDENTIAL}",
        "/subscriptions/../resourceGroups/rg/providers/Microsoft.ContainerService/register",
        f"/subscriptions/{PROD}/providers/Microsoft.ContainerService/register",
        "/providers/Microsoft.ResourceGraph/resources/",
        "/providers/Microsoft.ResourceGraph/resources/x",
        "/providers/Microsoft.ResourceGraph/resources\n",
        "/providers/Microsoft_ResourceGraph/resources",
        "/providers/Microsoft.ResourceGraph/../resources",
        f"/subscriptions/{PROD}/providers/Microsoft.ResourceGraph/resources",
    ],
)
def test_the_guard_refuses_every_other_post(path):
    with pytest.raises(WriteRefused):
        session.check_request("POST", f"{ARM}{path}", ARM)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example",
        "http://management.azure.com",
        "https://management.azure.com:8443",
        "https://management.azure.com.evil.example",
        "https://management.azure.com@evil.example",
        "https://evil.example\\@management.azure.com",
        "https://evil.example#@management.azure.com",
        "https://user@management.azure.com",
        "https://management.azure.com:443:80",
        "https://management.azure.com\t",
        " https://management.azure.com",
        "//management.azure.com",
        "management.azure.com",
        "file:///etc",
        "https://[::1",
        "",
    ],
)
def test_the_guard_refuses_every_other_host(url):
    with pytest.raises(WriteRefused):
        session.check_request("GET", f"{url}/subscriptions", ARM)


def test_a_cluster_whose_id_would_lead_elsewhere_is_not_asked_for_credentials(serve):
    odd = private_cluster("odd")
    odd["id"] = odd["id"].replace("/odd", "/odd/stop?")
    arm = serve(odd, entra_cluster())
    found = scan(arm, "--cluster", "odd", planes="both")
    assert found.clusters == ["odd"]
    assert found.report["clusters"][0]["data_plane"] == "not_read"
    assert "refused to send POST" in found.gaps[PROD, "pods"]["detail"]


# -- the endpoint


@pytest.mark.parametrize(
    "url",
    [
        "http://management.azure.com",
        "http://10.0.0.1",
        "http://127.0.0.1.example",
        "http://0.0.0.0:80",
        "ftp://127.0.0.1",
        "https://",
        "https:///path",
        "https://host/path",
        "https://host?query",
        "https://host/?",
        "https://host#part",
        "https://user:secret@host",
        "https://host:0",
        "https://host:99999",
        "https://host:port",
        "https://ho st",
        "https://host\\@other",
        "https://[::1",
        "host",
        "127.0.0.1:8080",
        "\x1b[2J",
        " ",
        "",
    ],
)
def test_an_endpoint_that_tokens_may_not_go_to_is_a_usage_error(url):
    result = kubeposture("scan", "aks", "--arm-endpoint", url)
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.startswith("kubeposture: --arm-endpoint ")
    assert len(result.stderr.splitlines()) == 1
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    "url", ["https://host", "https://HOST:8443/", "http://localhost:1", "http://127.0.0.2", "http://[::1]:8"]
)
def test_an_endpoint_is_a_host_with_tls_or_this_machine(url):
    assert session.check_endpoint(url).lower() == url.lower().rstrip("/")


def test_an_endpoint_with_credentials_is_not_repeated_in_full():
    with pytest.raises(UsageError) as error:
        session.check_endpoint("https://host?token=verysecret")
    assert "verysecret" not in str(error.value)


# -- TLS


def test_the_authority_of_a_private_cloud_comes_from_the_environment(serve):
    arm = serve(tls=True)
    found = scan(arm)
    assert (found.code, found.gaps) == (0, {})
    assert found.clusters == ["aks-dev", "aks-entra", "aks-private"]


@pytest.mark.parametrize("bundle", ["", "/no/such/file"])
def test_an_authority_that_is_not_known_is_a_gap(serve, monkeypatch, bundle):
    with ArmServer(small_estate(), tls=True) as arm:
        serve()  # the tokens come from here, so that it is this server that is not trusted
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
        found = scan(arm)
    assert (found.code, arm.requests) == (4, [])
    assert {g["reason"] for g in found.report["gaps"]} == {"unreachable"}
    assert "Azure did not answer" in found.gaps["azure", "managedClusters"]["detail"]


# -- who we are


@pytest.mark.parametrize(
    ("cloud", "audience"),
    [
        ("AzureCloud", ARM),
        ("AzureUSGovernment", "https://management.core.usgovcloudapi.net"),
        ("AzureChinaCloud", "https://management.chinacloudapi.cn"),
    ],
)
def test_each_cloud_has_tokens_of_its_own(serve, cloud, audience):
    arm = serve()
    scan(arm, "--cloud", cloud)
    assert {token.resource for token in arm.tokens} == {audience}


def test_the_tenant_that_was_asked_for_is_the_one_that_is_read(serve):
    found = scan(serve(), "--tenant", TENANT.upper())
    assert (found.code, found.gaps) == (0, {})


def test_a_credential_of_another_tenant_is_named_and_not_used(serve):
    arm = serve()
    wrong = guid("another tenant")
    found = scan(arm, "--tenant", wrong)
    assert (found.code, arm.requests) == (4, [])
    detail = found.gaps["azure", "managedClusters"]["detail"]
    assert wrong in detail
    assert TENANT in detail


def test_a_managed_identity_is_not_used_for_a_tenant_that_only_has_a_name(serve, monkeypatch, tmp_path):
    """It would give a token of its own tenant, and there is nothing that this could be compared with."""
    arm = serve()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    found = scan(arm, "--tenant", "contoso.onmicrosoft.com")
    assert (found.code, arm.requests, arm.tokens) == (4, [], [])
    [detail] = {g["detail"] for g in found.report["gaps"]}
    assert "for tenant contoso.onmicrosoft.com" in detail
    assert "a managed identity is used only where --tenant is the tenant's id" in detail


def test_a_managed_identity_that_was_chosen_is_not_used_for_a_name_either(serve, monkeypatch):
    arm = serve()
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    result = kubeposture("scan", "aks", "--arm-endpoint", arm.url, "--tenant", "contoso.onmicrosoft.com")
    assert (result.code, result.stdout, arm.requests, arm.tokens) == (2, "", [], [])
    assert "a managed identity is used only where --tenant is the tenant's id" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def az(folder, monkeypatch, token):
    """An Azure CLI that writes down its arguments, and prints this token."""
    answer = {"accessToken": token, "expires_on": int(time.time()) + 3600, "tokenType": "Bearer"}
    (folder / "answer.json").write_text(json.dumps(answer))
    (folder / "az").write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\ncat {folder}/answer.json\n')
    (folder / "az").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")


@pytest.mark.parametrize("tenant", [TENANT, "contoso.onmicrosoft.com"])
def test_the_tenant_is_passed_on_to_the_credential(serve, monkeypatch, tmp_path, tenant):
    arm = serve()
    az(tmp_path, monkeypatch, arm.issue())
    found = scan(arm, "--tenant", tenant)
    assert (found.code, found.gaps) == (0, {})
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked
    assert all(f"--tenant {tenant}" in line for line in asked)


def test_without_a_tenant_the_credential_chooses(serve, monkeypatch, tmp_path):
    arm = serve()
    az(tmp_path, monkeypatch, arm.issue())
    assert scan(arm).code == 0
    assert "--tenant" not in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("cloud", "authority"),
    [("AzureUSGovernment", "login.microsoftonline.us"), ("AzureChinaCloud", "login.chinacloudapi.cn")],
)
def test_a_sovereign_cloud_has_an_authority_of_its_own(monkeypatch, cloud, authority):
    """Whatever the environment says; only there is the secret of a service principal sent."""
    with Listener() as proxy:
        for name, value in {
            "AZURE_CLIENT_ID": guid("scanner"),
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_SECRET": "secret",
            "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
            "AZURE_AUTHORITY_HOST": "login.example",
            "HTTPS_PROXY": proxy.url,
        }.items():
            monkeypatch.setenv(name, value)
        found = scan("http://127.0.0.1:9", "--cloud", cloud)
    assert found.code == 4
    assert set(proxy.asked) == {f"CONNECT {authority}:443 HTTP/1.0"}


class Listener(socketserver.ThreadingTCPServer):
    """A proxy that writes down what is asked of it, and refuses it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Refuse)
        self.asked, self.url = [], f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class _Refuse(socketserver.StreamRequestHandler):
    def handle(self):
        self.server.asked.append(self.rfile.readline().decode().strip().replace("HTTP/1.1", "HTTP/1.0"))
        self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")


def test_a_netrc_does_not_take_the_place_of_the_token(serve, monkeypatch, tmp_path):
    arm = serve()
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password hush\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert scan(arm).code == 0
    assert {r.authorization.partition(" ")[0] for r in arm.requests} == {"Bearer"}


@pytest.mark.parametrize("seconds", [0.7, 0.9])
def test_a_retry_waits_as_long_as_azure_asks(serve, monkeypatch, seconds):
    monkeypatch.setattr(session, "LONGEST_WAIT", 20)
    arm = serve()
    busy, times = status(429, retry_after=seconds), []

    def once(handler):
        times.append(time.monotonic())
        return busy(handler) if len(times) == 1 else "pass"

    arm.inject(LIST, once)
    assert scan(arm).code == 0
    assert times[1] - times[0] >= seconds


@pytest.mark.parametrize("chain", ["EnvironmentCredential", "dev"])
def test_no_credential_is_one_sentence_that_names_what_was_tried(monkeypatch, tmp_path, chain):
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", chain)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    found = scan("http://127.0.0.1:9")
    assert (found.code, found.error) == (4, "")
    assert found.report["scan"]["exit_reasons"] == ["nothing_read", "incomplete"]
    assert {g["reason"] for g in found.report["gaps"]} == {"not_configured"}
    [detail] = {g["detail"] for g in found.report["gaps"]}
    tried = {"EnvironmentCredential": "tried: Environment;", "dev": "AzureCli, "}[chain]
    assert "\n" not in detail
    assert tried in detail
    assert "az login" in detail


def test_a_refused_credential_is_told_apart_from_none(serve, monkeypatch):
    arm = serve()
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    found = scan(arm)
    [detail] = {g["detail"] for g in found.report["gaps"]}
    assert found.code == 4
    assert "tried: ManagedIdentity; it said: " in detail
    assert "X-IDENTITY-HEADER" in detail


@pytest.mark.parametrize(
    "environment",
    [
        {"AZURE_TOKEN_CREDENTIALS": "bogus"},
        {"AZURE_AUTHORITY_HOST": "http://login.example"},
        {"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_CERTIFICATE_PATH": "/no/such/file"},
        {"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "no tenant", "AZURE_CLIENT_SECRET": "hush-hush"},
    ],
)
def test_a_credential_that_cannot_be_is_a_usage_error(serve, monkeypatch, environment):
    arm = serve()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = kubeposture("scan", "aks", "--arm-endpoint", arm.url)
    assert (result.code, result.stdout, arm.requests) == (2, "", [])
    assert result.stderr.startswith("kubeposture: the Azure credential of this environment cannot be used: ")
    assert len(result.stderr.splitlines()) == 1
    assert "hush-hush" not in result.stderr


def test_a_token_that_ends_in_mid_scan_is_renewed(serve):
    arm = serve(token_seconds=1, page_size=1)
    arm.inject("/diagnosticSettings$", lambda handler: handler.arm.revoke() or "pass", times=1)
    found = scan(arm, "--concurrency", "1")
    assert (found.code, found.gaps) == (0, {})
    assert len({request.authorization for request in arm.requests}) > 2


def test_a_token_that_is_taken_away_in_mid_scan_loses_no_cluster_and_no_finding(serve):
    arm = serve(private_cluster(), entra_cluster(), public_cluster())
    clean = scan(arm, "--concurrency", "1")
    assert (clean.code, clean.gaps) == (0, {})
    arm.inject("/diagnosticSettings$", lambda handler: handler.arm.revoke() or "pass", times=1)
    found = scan(arm, "--concurrency", "1")
    assert (found.code, found.clusters) == (3, clean.clusters)
    assert {(g["what"], g["reason"]) for g in found.report["gaps"]} == {("diagnosticSettings", "forbidden")}
    assert "ExpiredAuthenticationToken" in found.report["gaps"][0]["detail"]
    assert found.statuses.keys() == clean.statuses.keys()
    changed = {f["status"] for f in found.report["findings"] if clean.statuses[f["id"]] != f["status"]}
    assert changed == {"unknown"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_no_json_are_a_gap(serve, number):
    arm = serve()
    odd = json.dumps({"value": [private_cluster()]}).replace(
        '"enableNodePublicIP": false', f'"enableNodePublicIP": {number}'
    )
    assert number in odd
    arm.inject(LIST, body(odd.encode()))
    found = scan(arm)
    assert found.code == 3
    assert found.gap()["reason"] == "bad_data"


def test_an_api_version_that_lacks_fields_is_not_asked_instead(serve):
    """In 2019 registries had no anonymous pull: its absence would read as off."""
    arm = serve()
    arm.inject("/registries$", unknown_api_version(["2019-05-01", "2017-10-01"]))
    found = scan(arm)
    assert found.code == 3
    asked = {r.query["api-version"] for r in arm.requests if r.path.endswith("/registries")}
    assert len(asked) == 1


def test_an_entry_of_a_megabyte_is_a_gap(serve):
    arm = serve(private_cluster("x" * 1_000_000), private_cluster("whole"))
    found = scan(arm)
    assert found.code == 3
    assert "whole" in found.clusters


READ = "Microsoft.ContainerService/managedClusters/read"


@pytest.mark.parametrize(
    ("granted", "allowed"),
    [
        ([{"actions": ["*/read"]}], True),
        ([{"actions": ["*"]}], True),
        ([{"actions": ["microsoft.containerservice/*/READ"]}], True),
        ([{"actions": [READ]}, {"actions": []}], True),
        ([{"actions": ["*"], "notActions": ["Microsoft.ContainerService/*"]}], False),
        ([{"actions": ["*"], "notActions": ["Microsoft.ContainerService/*"]}, {"actions": ["*/read"]}], True),
        ([{"actions": ["Microsoft.ContainerService/managedClusters"]}], False),
        ([{"actions": ["Microsoft.ContainerService/managedClusters/read/x", "*/write"]}], False),
        ([{"actions": "*"}, {"actions": None}, {}], False),
        ([], False),
    ],
)
def test_what_a_role_allows(granted, allowed):
    assert Permissions(tuple(granted)).allows(READ) is allowed
