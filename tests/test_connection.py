"""One API server over a real socket: what is asked, what comes back, and what is said when something is wrong."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from apiserver import (
    ApiServer,
    body,
    drip,
    drip_chunks,
    drip_headers,
    flood,
    hang,
    html,
    redirect,
    reset,
    short,
    status,
    tls,
)
from proxyserver import Proxy
from urllib3.exceptions import InsecureRequestWarning

from providers import bounded
from providers.kubernetes import connection, kubeconfig
from providers.kubernetes.connection import Connection, connect
from providers.kubernetes.credentials import ApiAccess, address
from providers.kubernetes.errors import ApiError, ConfigError
from providers.kubernetes.kubeconfig import contexts
from scanner.clusters import server_id
from scanner.model import GapReason

PODS = "/api/v1/pods"
TOKEN = "s3cr3t-token-of-the-scanner"
NAMESPACE = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "kube-system", "uid": "u-1"}}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine: no kubeconfig, proxy, service account or bundle; temporary files in sight."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer([NAMESPACE], token=TOKEN) as running:
        yield running


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config"


Open = Callable[..., Connection]


@pytest.fixture
def open_(config: Path) -> Iterator[Open]:
    """Connect to a server through a kubeconfig. Waiting between attempts is written down in `waits` instead of done."""
    opened: list[Connection] = []

    def connect_to(
        server: ApiServer, *, request_timeout: float = 5.0, deadline: float | None = None, **kubeconfig: Any
    ):
        [context] = contexts(server.kubeconfig(config, **kubeconfig))
        return use(connect(context, request_timeout=request_timeout, deadline=deadline))

    def use(made: Connection) -> Connection:
        opened.append(made)
        made.waits = []
        made.sleep = made.waits.append
        return made

    connect_to.use = use
    yield connect_to
    for made in opened:
        made.close()


def failure(made: Connection, path: str = PODS) -> ApiError:
    with pytest.raises(ApiError) as caught:
        made.get(path)
    error = caught.value
    assert error.detail
    assert error.detail.isprintable()
    assert len(error.detail) < 700
    assert TOKEN not in repr(error) + str(error) + error.detail
    return error


# --- what is asked and what comes back ---


def test_importing_the_module_loads_no_kubernetes_client() -> None:
    code = "import sys, providers.kubernetes.connection; sys.exit(bool({'kubernetes', 'urllib3'} & sys.modules.keys()))"
    root = Path(connection.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_a_get_returns_the_bytes_of_the_body(server: ApiServer, open_: Open) -> None:
    made = open_(server)
    answer = json.loads(made.get("/api/v1/namespaces", {"limit": "500", "continue": ""}))
    assert [item["metadata"]["name"] for item in answer["items"]] == ["kube-system"]
    [request] = server.requests
    assert request.query == {"limit": "500"}
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["accept"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"  # a loopback is faster than gzip


def test_metadata_only(server: ApiServer, open_: Open) -> None:
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    answer = json.loads(open_(server).get("/api/v1/namespaces", accept=accept))
    assert answer["kind"] == "PartialObjectMetadataList"
    assert answer["items"][0].keys() == {"kind", "apiVersion", "metadata"}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_arrives_whole_and_connections_are_reused(open_: Open, chunked: bool) -> None:
    with ApiServer(chunked=chunked) as server:
        server.serve(
            "pods",
            3000,
            lambda start, stop: b",".join([b'{"metadata":{"name":"%s"}}' % (b"x" * 1000)] * (stop - start)),
        )
        made = open_(server)
        for _ in range(3):
            assert len(json.loads(made.get(PODS))["items"]) == 3000
        assert len({request.connection for request in server.requests}) == 1


def test_only_get_leaves_and_only_to_the_server(server: ApiServer, open_: Open) -> None:
    made = open_(server)
    for method, url in (("POST", server.url + PODS), ("DELETE", server.url + PODS), ("GET", "http://127.0.0.1:1/")):
        with pytest.raises(PermissionError):
            made._pool.request(method, url)
    with pytest.raises(PermissionError):
        made._pool.urlopen("PATCH", server.url + PODS)
    assert server.requests == []


def test_identity_follows_the_authority_and_the_url(open_: Open) -> None:
    def identity(ca: bytes | None, server: str = "https://a.example:6443") -> str:
        made = open_.use(connect(ApiAccess(server, ca, lambda: "t"), request_timeout=1))
        return server_id(made.server, made.ca)

    one, other = tls().ca, tls().ca
    assert (
        identity(one)
        == identity(b"# a comment\n" + one.replace(b"\n", b"\r\n"))
        == identity(one, "https://A.example:6443/")
    )
    assert len({identity(one), identity(other), identity(None), identity(one, "https://b.example")}) == 4


def test_several_connections_side_by_side(open_: Open) -> None:
    with ApiServer([NAMESPACE]) as one, ApiServer([NAMESPACE]) as two:
        made = [open_(server) for server in (one, two) for _ in range(4)]
        threads = [threading.Thread(target=c.get, args=("/version",)) for c in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(one.requests) == len(two.requests) == 4


# --- answers that are refusals ---


def test_forbidden_says_what_the_server_said(server: ApiServer, open_: Open) -> None:
    server.deny("pods")
    error = failure(open_(server))
    assert (error.reason, error.status) == (GapReason.FORBIDDEN, 403)
    assert error.detail.startswith('pods is forbidden: User "system:serviceaccount:audit:scanner" cannot list resource')
    assert len(server.requests) == 1


def test_what_the_server_says_is_made_harmless(server: ApiServer, open_: Open) -> None:
    server.inject(PODS, status(403, message=f"you sent {TOKEN} and Bearer xyz\x1b[2J\n\u202eevil" + "a" * 9999))
    detail = failure(open_(server)).detail
    assert detail.startswith("you sent … and … [2J evil")
    assert len(detail) <= 300


def test_not_found(server: ApiServer, open_: Open) -> None:
    error = failure(open_(server), "/apis/networking.gke.io/v1beta1/frontendconfigs")
    assert (error.reason, error.status, error.continue_token) == (GapReason.NOT_FOUND, 404, "")


@pytest.mark.parametrize("fresh", [True, False])
def test_gone_gives_the_fresh_continue_token(server: ApiServer, open_: Open, fresh: bool) -> None:
    server.inject("continue=", status(410, fresh_continue=fresh))
    with pytest.raises(ApiError) as caught:
        open_(server).get(PODS, {"continue": "old"})
    assert caught.value.status == 410
    assert bool(caught.value.continue_token) is fresh


def test_other_refusals_are_bad_data(server: ApiServer, open_: Open) -> None:
    server.inject(PODS, status(400, message="bad continue"))
    error = failure(open_(server))
    assert (error.reason, error.status) == (GapReason.BAD_DATA, 400)
    assert error.detail.endswith("answered 400: bad continue")


def test_html_instead_of_json(server: ApiServer, open_: Open) -> None:
    server.inject(PODS, html())
    error = failure(open_(server))
    assert error.reason is GapReason.BAD_DATA
    assert "text/html instead of JSON" in error.detail


@pytest.mark.parametrize("code", [301, 302, 307])
def test_redirects_are_not_followed(server: ApiServer, open_: Open, code: int) -> None:
    with ApiServer([NAMESPACE]) as elsewhere:
        server.inject(PODS, redirect(elsewhere.url.replace("//", "//u:p@") + PODS, code))
        error = failure(open_(server))
        assert (error.reason, error.status) == (GapReason.BAD_DATA, code)
        assert error.detail.endswith(f"redirects are not followed (this one to 127.0.0.1:{elsewhere.port})")
        assert elsewhere.requests == []


# --- trying again ---


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (status(429), GapReason.THROTTLED),
        (status(500), GapReason.SERVER_ERROR),
        (status(502), GapReason.SERVER_ERROR),
        (status(503), GapReason.SERVER_ERROR),
        (status(504), GapReason.SERVER_ERROR),
        (reset(), GapReason.UNREACHABLE),
        (reset(b""), GapReason.UNREACHABLE),
        (short(), GapReason.BAD_DATA),
    ],
)
def test_passing_faults_are_tried_again_and_lasting_ones_named(
    server: ApiServer, open_: Open, fault: Any, reason: GapReason
) -> None:
    server.inject(PODS, fault, times=4)
    made = open_(server)
    assert json.loads(made.get(PODS))["items"] == []
    assert len(server.requests) == 5
    assert [0.25 * 2**n <= wait <= 0.75 * 2**n for n, wait in enumerate(made.waits)] == [True] * 4
    server.inject(PODS, fault)
    error = failure(made)
    assert error.reason is reason
    assert len(server.requests) == 10


def test_other_faults_are_not_tried_again(server: ApiServer, open_: Open) -> None:
    server.inject(PODS, status(501))
    assert failure(open_(server)).reason is GapReason.BAD_DATA
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("header", "wait"),
    [("2", 2.0), ("86400", 10.0), ("Wed, 21 Oct 2099 07:28:00 GMT", 10.0), ("soon", None), ("-1", None)],
)
def test_retry_after(server: ApiServer, open_: Open, header: str, wait: float | None) -> None:
    server.inject(PODS, body(b"{}", code=429, Retry_After=header), times=1)
    made = open_(server)
    made.get(PODS)
    [waited] = made.waits
    assert waited == wait if wait else 0.25 <= waited <= 0.75


def test_no_attempt_ends_after_the_deadline(server: ApiServer, open_: Open) -> None:
    server.inject(PODS, status(429, retry_after=9))
    made = open_(server, deadline=time.monotonic() + 5)
    error = failure(made)
    assert (error.reason, error.status) == (GapReason.THROTTLED, 429)
    assert made.waits == []
    assert len(server.requests) == 1


def test_after_the_deadline_nothing_is_sent(server: ApiServer, open_: Open) -> None:
    error = failure(open_(server, deadline=time.monotonic() - 1))
    assert error.reason is GapReason.TIMEOUT
    assert server.requests == []


# --- servers that do not answer ---


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (hang(), "did not answer within 0.1 s"),
        (drip(0.01), "did not finish its answer within 0.4 s"),
        (drip_headers(), "did not finish its answer within 0.4 s"),
        (drip_chunks(), "did not finish its answer within 0.4 s"),
    ],
)
def test_a_silent_or_dripping_server_ends_in_time(server: ApiServer, open_: Open, fault: Any, said: str) -> None:
    server.inject(PODS, fault)
    made = open_(server, request_timeout=0.1)
    started = time.monotonic()
    error = failure(made)
    assert error.reason is GapReason.TIMEOUT
    assert said in error.detail
    assert time.monotonic() - started < 2
    assert json.loads(made.get("/version"))["major"] == "1"  # the connection is as good as new


def test_the_deadline_ends_a_request(server: ApiServer, open_: Open) -> None:
    server.inject(PODS, drip(0.01))
    error = failure(open_(server, request_timeout=60, deadline=time.monotonic() + 0.3))
    assert error.reason is GapReason.TIMEOUT
    assert "the time for this cluster was up" in error.detail


def test_refused(open_: Open) -> None:
    with ApiServer() as server:
        made = open_(server)
    error = failure(made)
    assert error.reason is GapReason.UNREACHABLE
    assert "connection refused: check the server's URL" in error.detail
    assert made.waits == []


def test_a_server_that_has_answered_may_come_back(open_: Open) -> None:
    with ApiServer() as server:
        made = open_(server)
        made.get(PODS)
    assert failure(made).reason is GapReason.UNREACHABLE
    assert len(made.waits) == 4


def test_unknown_host(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure(open_.use(connect(ApiAccess("https://nowhere.example", None, lambda: "t"), request_timeout=1)))
    assert error.reason is GapReason.UNREACHABLE
    assert "https://nowhere.example cannot be reached, its name cannot be resolved" in error.detail


# --- bodies that are not what they seem ---


def _raw(data: bytes) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


@pytest.mark.parametrize(
    "fault",
    [
        _raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
        _raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc"),
        _raw(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"),
        body(b"{}", Content_Encoding="br"),
        body(b"not gzip at all", Content_Encoding="gzip"),
        body(gzip.compress(b'{"items":[]}' * 50)[:-9], Content_Encoding="gzip"),
    ],
)
def test_answers_that_cannot_be_read(server: ApiServer, open_: Open, fault: Any) -> None:
    server.inject(PODS, fault)
    made = open_(server)
    assert failure(made).reason is GapReason.BAD_DATA
    assert json.loads(made.get("/version"))["major"] == "1"


@pytest.mark.parametrize(
    "fault",
    [
        body(b" " * 70_000),
        body(gzip.compress(b" " * 70_000), Content_Encoding="gzip"),
        flood(),
        flood(b"-1\r\n" + b" " * 65536),
    ],
)
def test_a_body_has_a_largest_size(server: ApiServer, open_: Open, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    monkeypatch.setattr(bounded, "MAX_BODY", 65_536)
    server.inject(PODS, fault)
    error = failure(open_(server))
    assert error.reason is GapReason.BAD_DATA
    assert "too large" in error.detail


# --- TLS ---


def test_tls_with_a_private_authority(open_: Open, tmp_path: Path) -> None:
    with ApiServer(tls=tls(), token=TOKEN) as server:
        assert open_(server).get(PODS)
        authority = tmp_path / "home" / "ca.crt"
        authority.parent.mkdir()
        authority.write_bytes(server.tls.ca)
        relative = {"certificate-authority-data": "", "certificate-authority": "home/ca.crt"}
        assert open_(server, cluster=relative).get(PODS)
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_tls_with_the_systems_store(
    open_: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with ApiServer(tls=tls(), token=TOKEN) as server:
        (tmp_path / "ca.crt").write_bytes(server.tls.ca)
        monkeypatch.setenv(variable, str(tmp_path / "ca.crt"))
        assert open_.use(connect(ApiAccess(server.url, None, lambda: TOKEN), request_timeout=2)).get(PODS)


def test_tls_with_the_wrong_authority(open_: Open) -> None:
    with ApiServer(tls=tls(), token=TOKEN) as server:
        error = failure(open_(server, ca=tls().ca))
        assert error.reason is GapReason.UNREACHABLE
        assert "is not trusted (" in error.detail
        assert "set the cluster's certificate-authority in the kubeconfig" in error.detail
        assert server.requests == []


def test_tls_with_another_name(open_: Open) -> None:
    with ApiServer(tls=tls("cluster.example"), token=TOKEN) as server:
        error = failure(open_(server))
        assert error.reason is GapReason.UNREACHABLE
        assert "IP address mismatch" in error.detail
        assert "tls-server-name" in error.detail
        assert server.requests == []
        assert open_(server, cluster={"tls-server-name": "cluster.example"}).get(PODS)
        access = ApiAccess(server.url, server.tls.ca, lambda: TOKEN, "cluster.example")
        assert open_.use(connect(access, request_timeout=2)).get(PODS)


def test_tls_unverified_on_request(open_: Open) -> None:
    with ApiServer(tls=tls("other.example"), token=TOKEN) as server:
        made = open_(server, cluster={"insecure-skip-tls-verify": True, "certificate-authority-data": ""})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InsecureRequestWarning)  # urllib3's own, once a process
            assert made.get(PODS)


def test_https_to_a_server_that_speaks_http(server: ApiServer, open_: Open) -> None:
    error = failure(open_(server, cluster={"server": server.url.replace("http:", "https:")}))
    assert error.reason is GapReason.UNREACHABLE
    assert "is it the right port and protocol?" in error.detail


def test_client_certificates(open_: Open, tmp_path: Path) -> None:
    with ApiServer(tls=tls(client_certs=True)) as server:
        in_data = {
            "client-certificate-data": base64.b64encode(server.tls.client_cert).decode(),
            "client-key-data": base64.b64encode(server.tls.client_key).decode(),
        }
        assert open_(server, user=in_data).get(PODS)
        (tmp_path / "me.crt").write_bytes(server.tls.client_cert)
        (tmp_path / "me.key").write_bytes(server.tls.client_key)
        assert open_(server, user={"client-certificate": "me.crt", "client-key": "me.key"}).get(PODS)
        assert failure(open_(server, user={})).reason is GapReason.UNREACHABLE
        assert list(Path(tempfile.gettempdir()).iterdir()) == []
        with pytest.raises(ConfigError, match="needs both client-certificate and client-key"):
            open_(server, user={"client-certificate": "me.crt"})
        with pytest.raises(ConfigError, match="client certificate or its key is not valid PEM"):
            open_(server, user={"client-certificate": "me.crt", "client-key": "me.crt"})


@pytest.mark.parametrize("data", ["bm90IGEgY2VydGlmaWNhdGU=", "@@@@@"])
def test_an_unusable_authority(server: ApiServer, open_: Open, data: str) -> None:
    with pytest.raises(ConfigError, match="certificate-authority"):
        open_(server, cluster={"server": "https://127.0.0.1:1", "certificate-authority-data": data})


# --- what a context names, without asking anything ---


def test_the_address_of_a_context_that_cannot_be_read(config: Path, tmp_path: Path) -> None:
    authority = tls().ca
    (tmp_path / "ca.crt").write_bytes(authority)
    entries = {
        "inline": {"server": "https://a.example/", "certificate-authority-data": base64.b64encode(authority).decode()},
        "file": {"server": "https://b.example:6443", "certificate-authority": "ca.crt"},
        "system": {"server": "https://c.example"},
        "no-file": {"server": "https://d.example", "certificate-authority": "gone.crt"},
        "no-url": {"server": "d.example", "certificate-authority": "ca.crt"},
    }
    names = [*entries, "no-cluster"]
    document = {
        "contexts": [{"name": name, "context": {"cluster": name, "user": "not there"}} for name in names],
        "clusters": [{"name": name, "cluster": cluster} for name, cluster in entries.items()],
    }
    config.write_text(yaml.safe_dump(document))
    assert [address(context) for context in contexts(str(config), ["*"])] == [
        ("https://a.example", authority),
        ("https://b.example:6443", authority),
        ("https://c.example", None),
        ("https://d.example", None),
        ("", None),
        ("", None),
    ]


def test_the_config_of_a_plug_in_that_is_no_json(open_: Open, config: Path) -> None:
    text = """
        current-context: c
        contexts: [{name: c, context: {cluster: c, user: u}}]
        users: [{name: u, user: {exec: {command: "true", apiVersion: v1, provideClusterInfo: true}}}]
        clusters:
        - name: c
          cluster:
            server: https://127.0.0.1:1
            extensions: [{name: client.authentication.k8s.io/exec, extension: {2026-01-01: hush}}]
    """
    config.write_text(text)
    with pytest.raises(ConfigError, match="is no JSON"):
        connect(contexts(str(config))[0], request_timeout=1)


# --- proxies ---


NAME = "cluster.example"


def test_https_proxy_from_the_environment(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiServer(tls=tls(NAME), token=TOKEN) as server, Proxy(server.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)  # as often written, without a scheme
        made = open_(server, cluster={"server": f"https://{NAME}:6443"})
        assert made.get(PODS)
        made.close()
        assert proxy.heads[0].startswith(f"CONNECT {NAME}:6443 ")
        assert TOKEN not in proxy.heads[0]
        assert server.requests[0].headers["accept-encoding"] == "gzip"


def test_proxy_of_the_kubeconfig_with_credentials(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")  # is about the environment's proxies
    with ApiServer(tls=tls(NAME), token=TOKEN) as server, Proxy(server.port) as proxy:
        made = open_(server, cluster={"server": f"https://{NAME}", "proxy-url": f"http://me:pass%21@{proxy.url}"})
        assert made.get(PODS)
        made.close()
        pair = base64.b64encode(b"me:pass!").decode()
        assert f"proxy-authorization: basic {pair}".lower() in proxy.heads[0].lower()
        assert "proxy-authorization" not in server.requests[0].headers


def test_gzip_through_a_plain_proxy(open_: Open) -> None:
    with ApiServer([NAMESPACE], gzip_from=0) as server, Proxy(server.port) as proxy:
        made = open_(server, cluster={"server": f"http://{NAME}", "proxy-url": f"http://{proxy.url}"})
        assert json.loads(made.get("/api/v1/namespaces"))["kind"] == "NamespaceList"
        server.inject(PODS, status(403, message="no"))
        assert failure(made).detail == "no"  # errors are compressed too
        made.close()
        assert server.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy(open_: Open, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, f".other,{NAME}")
    with ApiServer(tls=tls(NAME), token=TOKEN) as server:
        real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *rest: real("127.0.0.1", *rest))
        assert open_(server, cluster={"server": f"https://{NAME}:{server.port}"}).get(PODS)


def test_a_loopback_needs_no_proxy(server: ApiServer, open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert open_(server).get(PODS)


@pytest.mark.parametrize("password", ["hush/hush", "hush#hush", "hush?hush", "hush\\hush", "hush[hush", "hush hush"])
@pytest.mark.parametrize("where", ["kubeconfig", "environment"])
def test_a_password_that_cannot_be_told_from_the_proxys_host(
    server: ApiServer, open_: Open, monkeypatch: pytest.MonkeyPatch, password: str, where: str
) -> None:
    url = f"http://me:{password}@127.0.0.1:9"
    if where == "environment":
        monkeypatch.setenv("HTTPS_PROXY", url)
    cluster = {"server": f"https://{NAME}"} | ({"proxy-url": url} if where == "kubeconfig" else {})
    with pytest.raises(ConfigError, match="must be percent-encoded") as error:
        open_(server, cluster=cluster)
    assert "hush" not in str(error.value)


@pytest.mark.parametrize("password", ["hush%2Fhush", "hu@hush", "hush"])
def test_a_proxy_that_is_not_there_is_told_without_its_password(server: ApiServer, open_: Open, password: str) -> None:
    made = open_(server, cluster={"server": f"https://{NAME}", "proxy-url": f"http://me:{password}@127.0.0.1:9"})
    error = failure(made)
    assert error.reason is GapReason.UNREACHABLE
    assert "through the proxy" in error.detail
    assert "hush" not in error.detail


def test_a_proxy_that_refuses(open_: Open) -> None:
    with ApiServer(tls=tls(NAME), token=TOKEN) as server:
        with Proxy(server.port, b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as proxy:
            made = open_(server, cluster={"server": f"https://{NAME}", "proxy-url": f"http://{proxy.url}"})
            error = failure(made)
        assert error.reason is GapReason.UNREACHABLE
        assert "through the proxy: Tunnel connection failed: 407" in error.detail
        error = failure(open_(server, cluster={"server": f"https://{NAME}", "proxy-url": "http://127.0.0.1:1"}))
        assert error.reason is GapReason.UNREACHABLE
        assert "through the proxy" in error.detail
        assert server.requests == []


@pytest.mark.parametrize("url", ["ftp://proxy", "http://", "socks5://proxy:1080", "http://proxy:hush", "proxy:99999"])
def test_unusable_proxies(server: ApiServer, open_: Open, url: str) -> None:
    with pytest.raises(ConfigError, match="proxy"):
        open_(server, cluster={"server": f"https://{NAME}", "proxy-url": url})


# --- credentials ---


def test_a_token_that_is_not_accepted(server: ApiServer, open_: Open) -> None:
    error = failure(open_(server, token="old"))
    assert (error.reason, error.status) == (GapReason.FORBIDDEN, 401)
    assert error.detail.startswith("credentials were not accepted (401): the token may have expired;")
    assert len(server.requests) == 1
    error = failure(open_(server, user={}))
    assert "asks for credentials (401), and the kubeconfig's user has none" in error.detail


def test_a_token_from_a_cloud_is_renewed_once(server: ApiServer, open_: Open) -> None:
    tokens = iter(["expired", TOKEN])
    made = open_.use(connect(ApiAccess(server.url, None, lambda: next(tokens)), request_timeout=2))
    assert made.get(PODS)
    assert made.get(PODS)
    assert [r.headers["authorization"].split()[1] for r in server.requests] == ["expired", TOKEN, TOKEN]
    minted: list[str] = []

    def useless() -> str:
        minted.append("x")
        return "never right"

    made = open_.use(connect(ApiAccess(server.url, None, useless), request_timeout=2))
    assert failure(made).reason is failure(made).reason is GapReason.FORBIDDEN
    assert len(minted) == 2  # the first, and one more


def test_a_token_file_is_read_again(server: ApiServer, open_: Open, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    made = open_(server, user={"tokenFile": "token", "token": "ignored"})
    assert made.get(PODS)
    server.token = "rotated"
    file.write_text(server.token)
    assert made.get(PODS)
    file.unlink()
    server.token = "again"
    assert "token file" in failure(made).detail


@pytest.mark.parametrize("token", [f"{TOKEN}\nX-Evil: 1", f"{TOKEN}\u20ac", "  "])
def test_a_token_that_no_header_can_hold(server: ApiServer, open_: Open, token: str) -> None:
    with pytest.raises(ConfigError, match="holds characters that a token cannot hold") as caught:
        open_(server, token=token)
    assert TOKEN not in str(caught.value)


def test_credentials_never_travel_unencrypted(open_: Open) -> None:
    with pytest.raises(ConfigError, match="never sent unencrypted"):
        connect(ApiAccess("http://cluster.example", None, lambda: TOKEN), request_timeout=1)
    with pytest.raises(ConfigError, match="never sent unencrypted"), ApiServer(token=TOKEN) as server:
        open_(server, cluster={"proxy-url": "http://proxy.example"})


def test_basic_credentials_and_impersonation(open_: Open) -> None:
    with ApiServer() as server:
        extra = {"as": "auditor", "as-groups": ["readers", "others"], "as-user-extra": {"reason": ["scan"]}}
        open_(server, user={"username": "me", "password": "pass"} | extra).get(PODS)
        headers = server.requests[0].headers
        assert headers["authorization"] == "Basic " + base64.b64encode(b"me:pass").decode()
        assert (headers["impersonate-user"], headers["impersonate-extra-reason"]) == ("auditor", "scan")
        assert headers["impersonate-group"] == "readers, others"


def test_retired_auth_providers(server: ApiServer, open_: Open) -> None:
    held = {"name": "oidc", "config": {"id-token": TOKEN, "refresh-token": "r"}}
    assert open_(server, user={"auth-provider": held}).get(PODS)
    with pytest.raises(ConfigError, match="auth-provider 'azure' holds no token"):
        open_(server, user={"auth-provider": {"name": "azure", "config": {}}})


# --- credential plug-ins ---

BETA = "client.authentication.k8s.io/v1beta1"


def plugin(tmp_path: Path, code: str, **extra: Any) -> dict[str, Any]:
    """A kubeconfig user whose plug-in runs this Python code with `info` and `answer(**status)` at hand."""
    script = tmp_path / "plugin.py"
    head = (
        "import json, os, sys, time, pathlib\n"
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "here = pathlib.Path(__file__).parent\n"
        "def answer(**status):\n"
        f"    print(json.dumps({{'apiVersion': {BETA!r}, 'kind': 'ExecCredential', 'status': status}}))\n"
    )
    script.write_text(head + code)
    return {"exec": {"apiVersion": BETA, "command": sys.executable, "args": ["-I", str(script)], **extra}}


def test_a_plugin_gives_a_token(server: ApiServer, open_: Open, tmp_path: Path) -> None:
    code = (
        "assert info['spec']['cluster']['server'] and info['spec']['interactive'] is False\n"
        "answer(token=os.environ['MINE'])"
    )
    made = open_(server, user=plugin(tmp_path, code, env=[{"name": "MINE", "value": TOKEN}], provideClusterInfo=True))
    assert made.get(PODS)
    assert made.get(PODS)


def test_a_plugin_is_run_again_when_its_token_is_refused(server: ApiServer, open_: Open, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    made = open_(server, user=plugin(tmp_path, "answer(token=(here / 'token').read_text())"))
    assert made.get(PODS)
    server.token = "rotated"
    (tmp_path / "token").write_text("rotated")
    assert made.get(PODS)
    (tmp_path / "plugin.py").write_text("import sys; sys.exit('session expired, log in with: az login')")
    server.token = "again"
    error = failure(made)
    assert error.reason is GapReason.FORBIDDEN
    assert "failed (exit code 1): session expired, log in with: az login" in error.detail


def test_a_plugin_is_run_again_when_its_token_expires(
    server: ApiServer, open_: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=60)).isoformat().replace("+00:00", "Z")
    code = f"(here / 'runs').open('a').write('x')\nanswer(token={TOKEN!r}, expirationTimestamp={soon!r})"
    made = open_(server, user=plugin(tmp_path, code))
    made.get(PODS)
    assert (tmp_path / "runs").read_text() == "x"
    real = time.monotonic
    monkeypatch.setattr(connection.time, "monotonic", lambda: real() + 61)
    made.get(PODS)
    assert (tmp_path / "runs").read_text() == "xx"


def test_a_plugin_gives_a_client_certificate(open_: Open, tmp_path: Path) -> None:
    with ApiServer(tls=tls(client_certs=True)) as server:
        certificate, key = server.tls.client_cert.decode(), server.tls.client_key.decode()
        code = f"answer(clientCertificateData={certificate!r}, clientKeyData={key!r})"
        assert open_(server, user=plugin(tmp_path, code)).get(PODS)


@pytest.mark.parametrize("hint", ["get it from\nhttps://example.com/\x1b[31m", None])
def test_a_plugin_that_is_not_installed_is_named(server: ApiServer, open_: Open, hint: str | None) -> None:
    user = {"exec": {"apiVersion": BETA, "command": "kubelogin-of-nobody", "installHint": hint}}
    with pytest.raises(ConfigError) as caught:
        open_(server, user=user)
    said = str(caught.value)
    assert said.startswith("context local: credential plug-in 'kubelogin-of-nobody' is not installed or not on PATH: ")
    assert said.endswith("get it from https://example.com/ [31m" if hint else "use a kubeconfig that does without")
    assert server.requests == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "print('noise', file=sys.stderr); sys.exit('not logged in \\x1b[2J eyJhbGciOiJIUzI1NiJ9.e30.abc')",
            "(exit code 1): noise not logged in [2J …",
        ),
        ("print('<html>')", "did not print an ExecCredential"),
        ("print('{}')", "did not print an ExecCredential"),
        ("print('[' * 100000)", "did not print an ExecCredential"),
        ("answer(token='t', expirationTimestamp='tomorrow')", "did not print an ExecCredential"),
        ("answer()", "neither a token nor a client certificate"),
        ("print(json.dumps({'apiVersion': 'v9', 'status': {'token': 't'}}))", "speaks v9, the kubeconfig asks for"),
        ("time.sleep(60)", "did not finish within"),
    ],
)
def test_a_plugin_that_fails_says_why_and_nothing_is_sent(
    server: ApiServer, open_: Open, tmp_path: Path, code: str, said: str
) -> None:
    deadline = time.monotonic() + 0.5 if "sleep" in code else None
    with pytest.raises(ConfigError) as caught:
        open_(server, user=plugin(tmp_path, code), deadline=deadline)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert server.requests == []


@pytest.mark.parametrize("wrong", [7, "x", ["x"], {"x": "y"}, [None], True])
def test_entries_of_the_wrong_type_crash_nothing(server: ApiServer, open_: Open, tmp_path: Path, wrong: Any) -> None:
    user = plugin(tmp_path, f"answer(token={TOKEN!r})", env=wrong, provideClusterInfo=True, installHint=wrong)
    made = open_(server, user=user | {"as-groups": wrong, "as-user-extra": wrong}, cluster={"extensions": wrong})
    assert made.get(PODS)
    for key in ("exec", "auth-provider", "tokenFile", "client-key-data", "username"):
        with pytest.raises((ConfigError, ApiError)):
            open_(server, user={key: wrong}).get(PODS)
    with pytest.raises(ConfigError):
        open_(server, cluster={"server": wrong})


def test_a_plugin_that_needs_a_terminal(server: ApiServer, open_: Open, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wants a terminal"):
        open_(server, user=plugin(tmp_path, "answer(token='t')", interactiveMode="Always"))


# --- contexts ---


def write(path: Path, *names: str, current: str | None = None, **more: Any) -> str:
    value: dict[str, Any] = {"current-context": current, "contexts": [], "clusters": [], "users": []}
    for name in names:
        value["contexts"].append({"name": name, "context": {"cluster": name, "user": name, "namespace": f"ns-{name}"}})
        value["clusters"].append({"name": name, "cluster": {"server": f"https://{path.name}.example"}})
        value["users"].append({"name": name, "user": {"token": TOKEN}})
    path.write_text(yaml.safe_dump(value | more))
    return str(path)


def names(kubeconfig: str | None, *patterns: str) -> list[str]:
    return [context.name for context in contexts(kubeconfig, patterns)]


def test_contexts_by_glob(config: Path) -> None:
    file = write(config, "prod-eu", "prod-us", "Prod-x", "dev", "odd[1]", current="dev")
    assert names(file) == ["dev"]
    assert names(file, "prod-*") == ["prod-eu", "prod-us"]
    assert names(file, "*-us", "prod-*", "dev") == ["prod-eu", "prod-us", "dev"]
    assert names(file, "odd[1]") == ["odd[1]"]
    [context] = contexts(file, ["prod-eu"])
    assert (context.namespace, context.cluster) == ("ns-prod-eu", {"server": "https://config.example"})
    assert TOKEN not in repr(context)


def test_a_glob_without_a_match_names_the_nearest(config: Path) -> None:
    file = write(config, "prod-eu", "prod-us", "dev")
    with pytest.raises(ConfigError, match=r"no context matches 'prod-ue' \(there is prod-us, prod-eu\)"):
        names(file, "dev", "prod-ue")
    with pytest.raises(ConfigError, match=r"no context matches 'zzz' \(there is prod-eu, prod-us, dev\)"):
        names(file, "zzz")
    with pytest.raises(ConfigError, match=r"no current-context is set: name one with --context"):
        names(file)
    with pytest.raises(ConfigError, match=r"current-context 'gone' does not exist"):
        names(write(config, "dev", current="gone"))
    with pytest.raises(ConfigError, match=r"there are none"):
        names(write(config))


def test_several_kubeconfigs_as_kubectl_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = write(tmp_path / "one", "a", "both"), write(tmp_path / "two", "b", "both", current="both")
    third = write(tmp_path / "three", "c", current="c")
    monkeypatch.setenv("KUBECONFIG", ":".join([first, str(tmp_path / "absent"), "", second, third]))
    assert names(None) == ["both"]
    assert names(None, "*") == ["a", "both", "b", "c"]
    [both] = contexts(None, ["both"])
    made = connect(both, request_timeout=1)
    assert made.server == "https://one.example"
    made.close()


def test_the_kubeconfig_at_home(tmp_path: Path) -> None:
    (tmp_path / "home" / ".kube").mkdir(parents=True)
    write(tmp_path / "home" / ".kube" / "config", "home", current="home")
    assert names(None) == ["home"]
    assert names("~/.kube/config") == ["home"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"users:\n- token: {TOKEN}\n  - {{", "(line 3)"),
        ("- a\n- b", "is not a kubeconfig"),
        ("contexts: 7", "contexts must be a list"),
        ("contexts: [7]", "an entry of contexts is not a mapping"),
        ("contexts: null", "no current-context is set"),
        ("", "no current-context is set"),
        ("\x00", "is not valid YAML"),
    ],
)
def test_broken_kubeconfigs(config: Path, text: str, said: str) -> None:
    config.write_text(text)
    with pytest.raises(ConfigError) as caught:
        names(str(config))
    assert said in str(caught.value)
    assert str(config) in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"kubeconfig .*/absent cannot be read: No such file"):
        names(str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"there is no kubeconfig at ~/\.kube/config"):
        names(None)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"there is no kubeconfig at .*/absent"):
        names(None, "prod-*")


def test_a_broken_context_does_not_stop_its_neighbours(config: Path) -> None:
    file = write(config, "good", "bad", clusters=[{"name": "good", "cluster": {"server": "https://a.example"}}])
    good, bad = contexts(file, ["*"])
    connect(good, request_timeout=1).close()
    with pytest.raises(ConfigError, match="context bad: its cluster is not in the kubeconfig"):
        connect(bad, request_timeout=1)
    [lonely] = contexts(write(config, "x", users=[]), ["x"])
    with pytest.raises(ConfigError, match="context x: its user is not in the kubeconfig"):
        connect(lonely, request_timeout=1)


@pytest.mark.parametrize(
    "server", ["", "cluster:6443", "ftp://a", "https://", "https://u:p@a", "https://a:x", "https://a?b"]
)
def test_unusable_servers(config: Path, server: str) -> None:
    [context] = contexts(write(config, "x", clusters=[{"name": "x", "cluster": {"server": server}}]), ["x"])
    with pytest.raises(ConfigError, match="context x: the server must be an https"):
        connect(context, request_timeout=1)


def test_the_service_account_of_a_pod(open_: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiServer(tls=tls(), token=TOKEN) as server:
        monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        (tmp_path / "ca.crt").write_bytes(server.tls.ca)
        (tmp_path / "namespace").write_text("audit")
        (tmp_path / "token").write_text(TOKEN)
        [context] = contexts()
        assert (context.name, context.namespace) == ("in-cluster", "audit")
        made = open_.use(connect(context, request_timeout=2))
        assert made.get(PODS)
        server.token = "rotated"
        (tmp_path / "token").write_text("rotated")
        assert made.get(PODS)
        with pytest.raises(ConfigError, match="no context matches 'prod'"):
            contexts(None, ["prod"])
        (tmp_path / "ca.crt").unlink()
        with pytest.raises(ConfigError, match=r"in-cluster: certificate-authority .*/ca\.crt cannot be read"):
            connect(context, request_timeout=2)
