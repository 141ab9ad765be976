"""The OCI distribution protocol over a real socket: platforms of an index, and where credentials may go."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from urllib.parse import parse_qs

import pytest
import trustme
from proxyserver import Proxy
from registryserver import Reply, Server

from providers import http
from providers.http import HttpError, UsageError
from providers.registries.api import Login, Registries, host_of, logins, platforms
from scanner.normalize import NotUnderstood
from scanner.vulnerabilities import Platform

USER, PASSWORD, GRANTED = "scanner", "pa55:word", "granted-token"
ARM, AMD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
ENTRIES = [
    {"digest": AMD, "size": 1, "mediaType": "x", "platform": {"os": "linux", "architecture": "amd64"}},
    {"digest": ARM, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
]
INDEX = json.dumps({"schemaVersion": 2, "manifests": ENTRIES}).encode()
PLATFORMS = [Platform(AMD, "linux/amd64"), Platform(ARM, "linux/arm64/v8")]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(http, "_BACKOFF", 0.001)
    monkeypatch.setattr(http, "_LONGEST_WAIT", 0.01)


def digest(body):
    return "sha256:" + hashlib.sha256(body).hexdigest()


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Registry:
    """Gives out manifests by digest to whom its own token was given, or with Basic authentication."""

    def __init__(self, *manifests, challenge="Bearer", realm=""):
        self.manifests = {digest(body): body for body in manifests}
        self.challenge, self.realm = challenge, realm
        self.url = ""

    def __call__(self, request):
        if request.path == "/token":
            return self.token(request)
        if request.headers.get("authorization") not in (f"Bearer {GRANTED}", basic(USER, PASSWORD)):
            realm = self.realm or f"{self.url}/token"
            told = f'{self.challenge} realm="{realm}",service="the registry",scope="repository:x:pull,push"'
            return Reply(401, b"{}", (("WWW-Authenticate", told),))
        body = self.manifests.get(request.path.rpartition("/")[2])
        return Reply(404) if body is None else Reply(body=body)

    def token(self, request):
        if request.headers.get("authorization") == basic(USER, PASSWORD):
            return Reply(body={"token": GRANTED})
        form = parse_qs(request.body.decode())
        good = form.get("refresh_token") == ["identity"] and form["grant_type"] == ["refresh_token"]
        return Reply(body={"access_token": GRANTED}) if good else Reply(401)


def always(reply):
    class Fixed(Registry):
        def __call__(self, request):
            return reply

    return Fixed()


def asked(registry, *, login=None, body=INDEX, repository="team/app", wanted="", tls=None, timeout=2.0):
    with Server(registry, tls) as server:
        registry.url = server.url
        known = {server.host: login or Login(USER, PASSWORD)}
        made = Registries(known, timeout)
        try:
            return made.index(server.host, repository, wanted or digest(body)), server.requests
        finally:
            made.http.close()


def failure(registry, **options):
    with pytest.raises(HttpError) as caught:
        asked(registry, **options)
    assert PASSWORD not in str(caught.value)
    assert caught.value.detail.isprintable()
    return caught.value


# --- what an index says ---


def test_platforms_of_an_index():
    more = [
        {"digest": AMD, "platform": {"os": "unknown", "architecture": "unknown"}},
        {
            "digest": AMD,
            "platform": {"os": "linux", "architecture": "amd64"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        },
        {"digest": AMD, "annotations": {"a": "b"}},
    ]
    assert platforms(INDEX) == PLATFORMS
    assert platforms(json.dumps({"manifests": [*more, *ENTRIES]}).encode()) == [Platform(AMD, ""), *PLATFORMS]
    assert platforms(b'{"schemaVersion": 2, "config": {}, "layers": []}') is None
    assert platforms(b'{"manifests": []}') == []


@pytest.mark.parametrize(
    "entry",
    [
        {"digest": "sha256:x"},
        {"digest": AMD.upper()},
        {},
        {"digest": 5},
        {"digest": AMD, "platform": "linux/amd64"},
        {"digest": AMD, "platform": {"os": "l" * 41, "architecture": "a"}},
        None,
    ],
)
def test_of_an_index_that_is_not_understood_no_entry_is_lost_silently(entry):
    with pytest.raises(NotUnderstood):
        platforms(json.dumps({"manifests": [*ENTRIES, entry]}).encode())


# --- credentials ---


def config(tmp_path, value):
    path = tmp_path / "config.json"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


def test_credentials_of_a_docker_configuration(tmp_path):
    auths = {
        "https://index.docker.io/v1/": {"auth": base64.b64encode(b"me:dckr:pat").decode()},
        "GHCR.io": {"username": "me", "password": "p"},
        "acme.azurecr.io": {"auth": base64.b64encode(b"00000000:").decode(), "identitytoken": "i"},
        "quay.io": {"auth": base64.b64encode(b"<token>:t").decode()},
        "127.0.0.1:5000": {"username": "u", "password": "p", "email": "x"},
        "empty.example.com": {},
        "broken.example.com": {"auth": "not base64!"},
        "half.example.com": {"auth": base64.b64encode(b"me").decode()},
        "nodots": {"username": "u", "password": "p"},
    }
    found = logins(config(tmp_path, {"auths": auths, "HttpHeaders": {}}))
    assert found == {
        "docker.io": Login("me", "dckr:pat"),
        "ghcr.io": Login("me", "p"),
        "acme.azurecr.io": Login("00000000", "", "i"),
        "quay.io": Login("<token>", "t", "t"),
        "127.0.0.1:5000": Login("u", "p"),
    }
    assert "dckr" not in repr(found)


def test_of_several_names_of_a_registry_the_first_that_is_usable_counts(tmp_path):
    def auth(text):
        return {"auth": base64.b64encode(text).decode()}

    auths = {
        "https://ghcr.io/v2/": {},
        "ghcr.io": auth(b"me:p"),
        "https://ghcr.io": {},
        "https://index.docker.io/v1/": auth(b"me:password"),
        "https://index.docker.io/v1/access-token": auth(b"me:token of another service"),
    }
    found = logins(config(tmp_path, {"auths": auths}))
    assert found == {"ghcr.io": Login("me", "p"), "docker.io": Login("me", "password")}


def test_helpers_are_told_of_and_not_run(tmp_path, caplog):
    assert logins(config(tmp_path, {"auths": {"ghcr.io": {}}, "credsStore": "/bin/false"})) == {}
    assert "helpers are not run" in caplog.text


@pytest.mark.parametrize(
    "value", [b"{", b"[]", {"auths": []}, {"auths": {"a.b": {"auth": 5}}}, b" " * 2_000_000, b"\xff"]
)
def test_files_that_are_none(tmp_path, value):
    with pytest.raises(UsageError):
        logins(config(tmp_path, value))
    with pytest.raises(UsageError):
        logins(tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("x.io:443/", "x.io:443"),
        ("x", ""),
        ("", ""),
    ],
)
def test_names_of_registries(name, host):
    assert host_of(name) == host


# --- what is asked ---


def test_an_index_by_way_of_a_token():
    found, requests = asked(Registry(b"{}", INDEX))
    assert found == PLATFORMS
    paths = [(r.method, r.path) for r in requests]
    manifest = ("GET", f"/v2/team/app/manifests/{digest(INDEX)}")
    assert paths == [manifest, ("GET", "/token"), manifest]
    assert parse_qs(requests[1].query) == {"service": ["the registry"], "scope": ["repository:team/app:pull"]}
    assert "authorization" not in requests[0].headers
    assert requests[2].headers["authorization"] == f"Bearer {GRANTED}"
    kinds = requests[0].headers["accept"]
    assert "application/vnd.oci.image.index.v1+json" in kinds
    assert "application/vnd.docker.distribution.manifest.list.v2+json" in kinds


def test_a_token_serves_for_more_of_the_same_repository():
    registry = Registry(INDEX)
    with Server(registry) as server:
        registry.url = server.url
        made = Registries({server.host: Login(USER, PASSWORD)}, 2.0)
        assert [made.index(server.host, "team/app", digest(INDEX)) for _ in range(3)] == [PLATFORMS] * 3
        assert server.paths().count("/token") == 1
        made.index(server.host, "team/other", digest(INDEX))
        assert server.paths().count("/token") == 2
        made.http.close()


def test_an_identity_token_is_exchanged():
    found, requests = asked(Registry(INDEX), login=Login("", "", "identity"))
    assert found == PLATFORMS
    [form] = [parse_qs(r.body.decode()) for r in requests if r.method == "POST"]
    assert form["scope"] == ["repository:team/app:pull"]
    assert all("identity" not in r.query for r in requests)


def test_basic_authentication():
    found, requests = asked(Registry(INDEX, challenge="Basic"))
    assert found == PLATFORMS
    assert requests[1].headers["authorization"] == basic(USER, PASSWORD)


def test_what_is_no_index_and_what_is_not_there():
    manifest = b'{"schemaVersion": 2, "config": {}}'
    assert asked(Registry(manifest), body=manifest)[0] is None
    assert asked(Registry(INDEX), wanted=AMD)[0] is None


@pytest.mark.parametrize(
    ("registry", "repository", "wanted"),
    [
        ("other.example.com", "team/app", AMD),
        ("", "team/app", AMD),
        ("known.example.com", "team/../../x", AMD),
        ("known.example.com", "team/app?x=y", AMD),
        ("known.example.com", "Team/app", AMD),
        ("known.example.com", "a" * 300, AMD),
        ("known.example.com", "", AMD),
        ("known.example.com", "team/app", "latest"),
        ("known.example.com", "team/app", AMD + "/../x"),
        ("known.example.com", "team/app", ""),
    ],
)
def test_what_may_not_be_asked_is_not_asked(monkeypatch, registry, repository, wanted):
    made = Registries({"known.example.com": Login(USER, PASSWORD)}, 2.0)
    monkeypatch.setattr(made.http, "ask", lambda *_, **__: pytest.fail("asked"))
    assert made.index(registry, repository, wanted) is None


# --- registries that mislead ---


def test_another_body_than_was_asked_for_is_no_answer():
    registry = Registry()
    registry.manifests[AMD] = INDEX
    error = failure(registry, wanted=AMD)
    assert error.reason == "bad_data"


def test_an_index_that_is_not_understood():
    body = b'{"manifests": [5]}'
    assert failure(Registry(body), body=body).reason == "bad_data"


def test_an_endless_manifest(monkeypatch):
    body = b" " * 5_000_000 + INDEX
    assert failure(Registry(body), body=body).reason == "bad_data"


@pytest.mark.parametrize(
    "realm",
    [
        "https://evil.example.com/token",
        "http://169.254.169.254/latest/meta-data",
        "https://127.0.0.1/token",
        "http://127.0.0.1:1/token",
        "http://localhost/token",
        "//evil/token",
        "file:///etc/passwd",
        "https://[::1",
        "https://a:99999/",
        "",
    ],
)
@pytest.mark.parametrize("login", [Login(USER, PASSWORD), Login("", "", "identity")])
def test_credentials_go_to_no_other_host(realm, login):
    registry = Registry(INDEX, realm=realm or " ")
    error = failure(registry, login=login)
    assert (error.reason, error.status) == ("bad_data", 401)


def test_a_realm_with_a_user_of_its_own_is_none():
    registry = Registry(INDEX)
    with Server(registry) as server:
        registry.realm = server.url.replace("//", "//x@") + "/token"
        made = Registries({server.host: Login(USER, PASSWORD)}, 2.0)
        with pytest.raises(HttpError):
            made.index(server.host, "team/app", digest(INDEX))
        assert "/token" not in server.paths()
        made.http.close()


@pytest.mark.parametrize(
    ("registry", "realm", "trusted"),
    [
        ("docker.io", "https://auth.docker.io/token", True),
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("acme.azurecr.io", "https://acme.azurecr.io/oauth2/token", True),
        ("acme.azurecr.io", "http://acme.azurecr.io/oauth2/token", False),
        ("acme.azurecr.io", "https://acme.azurecr.io.evil.com/token", False),
        ("registry.example.com", "https://sso.known.org/token", True),
        ("registry.example.com", "https://sso.known.org:8443/token", False),
        ("example.com", "https://evil.com/token", False),
        ("10.1.2.3", "https://9.1.2.3/token", False),
        ("10.1.2.3", "https://10.1.2.3/token", True),
        ("acme.io:8443", "https://acme.io:8443/token", True),
    ],
)
def test_who_gives_tokens_for_a_registry(registry, realm, trusted):
    made = Registries({"sso.known.org": Login("a", "b")}, 2.0)
    if trusted:
        assert made._realm(registry, realm) == realm
    else:
        with pytest.raises(HttpError):
            made._realm(registry, realm)


@pytest.mark.parametrize("challenge", ["Negotiate", "", "Bearer-ish"])
def test_a_challenge_that_is_not_known(challenge):
    assert failure(Registry(INDEX, challenge=challenge)).status == 401


@pytest.mark.parametrize("given", [{}, {"token": "a\r\nX: y"}, {"token": 5}, {"token": ""}, [], {"token": "tökén"}])
def test_a_token_that_is_none(given):
    registry = Registry(INDEX)
    registry.token = lambda _: Reply(body=given)
    assert failure(registry).reason == "bad_data"


def test_a_login_that_is_refused():
    assert failure(Registry(INDEX), login=Login("someone", "else")).reason == "forbidden"
    registry = Registry(INDEX)
    registry.token = lambda _: Reply(body={"token": "other"})
    error = failure(registry)
    assert (error.reason, error.status) == ("forbidden", 401)


def test_redirects_are_not_followed():
    with Server(lambda _: Reply()) as elsewhere:
        error = failure(always(Reply(307, b"", (("Location", elsewhere.url),))))
        assert (error.reason, error.status) == ("bad_data", 307)
        assert elsewhere.requests == []


def test_a_registry_that_says_nothing():
    assert failure(always(Reply("hang")), timeout=0.2).reason == "timeout"


def test_a_registry_that_is_busy_is_asked_again():
    registry = Registry(INDEX)
    left = [Reply(429, b"", (("Retry-After", "0"),)), Reply(503)]
    usual = registry.token
    registry.token = lambda request: left.pop() if left else usual(request)
    assert asked(registry)[0] == PLATFORMS


def test_an_encoding_that_nobody_asked_for():
    error = failure(always(Reply(200, b"x", (("Content-Encoding", "gzip"),))))
    assert error.reason == "bad_data"


# --- TLS and proxies ---


@pytest.fixture
def authority(tmp_path):
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert("localhost").configure_cert(context)
    return context, str(tmp_path / "ca.pem")


def test_over_tls_with_a_trusted_authority_alone(authority, monkeypatch):
    context, bundle = authority
    error = failure(Registry(INDEX), tls=context)
    assert (error.reason, "TLS" in error.detail) == ("unreachable", True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    assert asked(Registry(INDEX), tls=context)[0] == PLATFORMS


def test_authorities_that_cannot_be_read(authority, monkeypatch, tmp_path):
    context, _ = authority
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    assert failure(Registry(INDEX), tls=context).reason == "not_configured"


def test_by_way_of_a_proxy(authority, monkeypatch):
    context, bundle = authority
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    registry = Registry(INDEX)
    with Server(registry, context) as server, Proxy(server.port) as proxy:
        registry.url = server.url
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@{proxy.url}")
        made = Registries({server.host: Login(USER, PASSWORD)}, 2.0)
        assert made.index(server.host, "team/app", digest(INDEX)) == PLATFORMS
        made.http.close()
        used = len(proxy.heads)
        assert all(head.startswith(f"CONNECT {server.host} ") for head in proxy.heads)
        assert all(basic("me", "p@ss") in head for head in proxy.heads)
        monkeypatch.setenv("NO_PROXY", "localhost")
        made = Registries({server.host: Login(USER, PASSWORD)}, 2.0)
        assert made.index(server.host, "team/app", digest(INDEX)) == PLATFORMS
        made.http.close()
        assert len(proxy.heads) == used > 0


@pytest.mark.parametrize("url", ["http://me:a/b@127.0.0.1:1", "socks5://127.0.0.1:1", "http://"])
def test_proxies_that_cannot_be_used(authority, monkeypatch, url):
    context, bundle = authority
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    monkeypatch.setenv("HTTPS_PROXY", url)
    error = failure(Registry(INDEX), tls=context)
    assert error.reason == "not_configured"
    assert "a/b" not in error.detail
