"""Azure Resource Manager on a loopback socket, with the identity endpoint that hands out its tokens; it misbehaves on
request.

    with ArmServer(sample_estate(), page_size=2) as arm:
        for name, value in arm.environment.items():
            monkeypatch.setenv(name, value)  # DefaultAzureCredential finds the identity endpoint
        arm.deny("/providers/Microsoft.ContainerRegistry/registries", subscription=DEV)
        arm.inject("/managedClusters$", status(429, retry_after=1), times=2)
        with DefaultAzureCredential() as credential, ContainerServiceClient(credential, PROD, arm.url) as client:
            names = [c.name for c in client.managed_clusters.list(enforce_https=False)]
        assert {r.method for r in arm.requests} == {"GET"}

`python tests/armserver.py --subscriptions 20 --clusters 1000` serves a large estate until standard input is closed,
from a process of its own, so that its CPU time and memory are not counted with the scanner's.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import math
import re
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import apiserver
import yaml
from apiserver import Fault, body, delay, drip, drip_chunks, drip_headers, flood, hang, redirect
from azure_data import LOCATIONS, TENANT, Estate, Subscription, guid, large_estate, permission

__all__ = [
    "ArmServer",
    "Request",
    "Token",
    "action",
    "body",
    "delay",
    "drip",
    "drip_chunks",
    "drip_headers",
    "empty",
    "flood",
    "foreign_next_link",
    "hang",
    "redirect",
    "reset",
    "rows",
    "status",
    "unknown_api_version",
    "unregistered",
]

Object = dict[str, Any]

IDENTITY = "/identity/oauth2/token"
GRAPH = "/providers/microsoft.resourcegraph/resources"
CLIENT_ID, OBJECT_ID = guid("scanner", "client"), guid("scanner", "object")
AUDIENCES = ("https://management.core.windows.net", "https://management.azure.com")
_CREDENTIAL = "/listclusterusercredential"


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    authorization: str
    body: bytes


class Token(NamedTuple):
    resource: str
    token: str


# --- what can go wrong ---
# A fault is a function of the handler. It answers the request itself, or returns "pass" to let the server answer.
# Those of apiserver.py serve here too.


def status(code: int, error_code: str = "", message: str = "injected", *, retry_after: float | None = None) -> Fault:
    """An error in ARM's shape."""
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}

    def answer(handler: _Handler) -> None:
        handler.reply_error(code, error_code or _ERROR_CODES.get(code, "InternalServerError"), message, headers)

    return answer


def reset() -> Fault:
    """Half a page, then RST."""
    return apiserver.reset(b'{"value":[')


def empty() -> Fault:
    """Nothing, in the form that the resource gives it."""
    forms = {"kubernetesversions": "values", _CREDENTIAL.strip("/"): "kubeconfigs"}

    def answer(handler: _Handler) -> None:
        if handler.place == GRAPH:
            handler.reply_json(rows())
        else:
            handler.reply_json({forms.get(handler.place.rsplit("/", 1)[-1], "value"): []})

    return answer


def rows(*data: Any, **more: Any) -> Object:
    """What Resource Graph answers."""
    shape = {
        "totalRecords": len(data),
        "count": len(data),
        "data": list(data),
        "facets": [],
        "resultTruncated": "false",
    }
    return shape | more


def unregistered(namespace: str) -> Fault:
    """What a subscription answers that never used a resource provider."""
    text = (
        f"The subscription is not registered to use namespace '{namespace}'. "
        "See https://aka.ms/rps-not-found for how to register subscriptions."
    )
    return status(409, "MissingSubscriptionRegistration", text)


def unknown_api_version(supported: list[str], error_code: str = "NoRegisteredProviderFound") -> Fault:
    """Refuse api-versions that are not among these; the error lists them. The other code is InvalidResourceType."""

    def answer(handler: _Handler) -> str | None:
        version = handler.asked.query.get("api-version", "")
        if version in supported:
            return "pass"
        handler.reply_error(400, error_code, _unknown_version(handler.asked.path, version, error_code, supported))
        return None

    return answer


def foreign_next_link(url: str) -> Fault:
    """The page that was asked for, but its nextLink leads to this other host."""

    def answer(handler: _Handler) -> str:
        handler.next_host = url
        return "pass"

    return answer


_ERROR_CODES = {
    401: "ExpiredAuthenticationToken",
    403: "AuthorizationFailed",
    404: "ResourceNotFound",
    409: "Conflict",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}


class _List(NamedTuple):
    items: list[bytes]
    key: str = "value"
    paged: bool = True
    last: str = ""  # what the last page has after its items


@dataclass
class ArmServer:
    """A context manager. Call `load` after changes to the estate; only kubeconfigs (`Estate.connect`) need none.

    With `tls`, `ca` is the path of the authority's certificate; `environment` points to it. After the block, whatever
    broke inside the server (not what tests injected) is raised.
    """

    estate: Estate
    tls: Any = False  # True, or what `apiserver.tls()` made
    page_size: int = 100
    graph_rows: int = 1000  # of Resource Graph, in one page
    graph_bytes: int = 16 * 1024 * 1024  # the same
    quota: int = 1000  # queries that Resource Graph takes in each window of `quota_seconds`
    quota_seconds: int = 5
    latency: float = 0.0
    token_seconds: int = 3600  # Azure's libraries renew a token in its last five minutes
    gzip_from: int = 128 * 1024
    chunked: bool = False
    requests: list[Request] = field(default_factory=list)  # without those to the identity endpoint
    tokens: list[Token] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[apiserver._Rule] = []
        self._denied: set[tuple[str, str]] = set()  # end of the path, start of the path
        self._issued: dict[str, tuple[str, float]] = {}  # resource and expiry, by token
        self._window = (0.0, 0)  # of Resource Graph: its end, and the queries so far
        self._identity_header = secrets.token_hex(16)
        self.load(self.estate)
        self.tls = apiserver.tls() if self.tls is True else self.tls or None
        self._folder = tempfile.TemporaryDirectory() if self.tls else None
        self.ca = self._write_ca()
        self._http = _Http(self)
        self.port: int = self._http.server_address[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> ArmServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.drop_connections()
        self._http.server_close()  # joins the handlers
        self._thread.join()
        if self._folder:
            self._folder.cleanup()
        if self.errors:
            raise self.errors[0]

    def _write_ca(self) -> str:
        if self._folder is None:
            return ""
        path = Path(self._folder.name) / "ca.pem"
        path.write_bytes(self.tls.ca)
        return str(path)

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which Azure's libraries get their tokens here, and trust the certificate."""
        found = {"IDENTITY_ENDPOINT": self.url + IDENTITY, "IDENTITY_HEADER": self._identity_header}
        return found | ({"REQUESTS_CA_BUNDLE": self.ca} if self.ca else {})

    def load(self, estate: Estate) -> None:
        """Serve this from now on. Everything is encoded here, so that a request costs little."""
        self.estate = estate
        self._lists = {path.lower(): entry for path, entry in _lists(estate)}
        self._objects = {path.lower(): data for path, data in _objects(estate)}

    def permit(self, subscription: str, *permissions: Object | str) -> None:
        """What the caller's permissions in a subscription are said to be: actions, or whole entries."""
        entries = [permission(p) if isinstance(p, str) else p for p in permissions]
        self._lists[_permissions(subscription).lower()] = _encoded(entries, paged=False)

    def deny(self, path: str, *, subscription: str | None = None) -> None:
        """403 for every path that ends so, everywhere or in one subscription; "" is all of a subscription.

        Nothing that lies below the path is denied with it: "/managedClusters" leaves their diagnosticSettings readable.
        """
        where = f"/subscriptions/{subscription}".lower() if subscription else ""
        self._denied = self._denied | {(path.lower(), where)}  # others may be reading it

    def inject(self, path: str, fault: Fault, times: int | None = None, *, after: int = 0) -> None:
        """Answer the requests whose path (no query) matches with `fault`, except the first `after`, at most `times`."""
        with self._lock:
            self._rules.append(apiserver._Rule(re.compile(path, re.IGNORECASE), fault, after, times))

    def heal(self) -> None:
        """From now on nothing is denied, and no fault injected."""
        self._denied = set()
        with self._lock:
            self._rules.clear()

    def issue(self, resource: str = AUDIENCES[1], seconds: float | None = None) -> str:
        """A token such as the identity endpoint hands out."""
        now = int(time.time())
        expiry = now + (self.token_seconds if seconds is None else seconds)
        claims = {
            "aud": resource,
            "iss": f"https://sts.windows.net/{TENANT}/",
            "iat": now,
            "nbf": now,
            "exp": int(expiry),
            "appid": CLIENT_ID,
            "idtyp": "app",
            "oid": OBJECT_ID,
            "sub": OBJECT_ID,
            "tid": TENANT,
            "uti": secrets.token_urlsafe(16),
            "ver": "1.0",
        }
        token = _jwt(claims)
        with self._lock:
            self.tokens.append(Token(resource, token))
            self._issued[token] = resource, expiry
        return token

    def revoke(self) -> None:
        """Refuse the tokens handed out so far, as expired."""
        with self._lock:
            past = time.time() - 1
            self._issued = {token: (resource, past) for token, (resource, _) in self._issued.items()}

    # --- called by the handler, from many threads ---

    def fault(self, path: str) -> Fault | None:
        with self._lock:
            return next((rule.fault for rule in self._rules if rule.takes(path)), None)

    def is_denied(self, place: str) -> bool:
        return any(place.endswith(end) and f"{place}/".startswith(f"{start}/") for end, start in self._denied)

    def unauthorized(self, authorization: str) -> tuple[str, str] | None:
        """Error code and message for a request with this header; None if it may pass."""
        kind, _, token = authorization.partition(" ")
        if not token or kind.lower() != "bearer":
            return "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing or malformed."
        if token not in self._issued:
            return "InvalidAuthenticationToken", "The access token is invalid."
        resource, expiry = self._issued[token]
        if expiry <= time.time():
            clocks = f"'{_clock(expiry)}' is earlier than current UTC time '{_clock(time.time())}'"
            return "ExpiredAuthenticationToken", f"The access token expiry UTC time {clocks}."
        return None if resource.rstrip("/") in (*AUDIENCES, self.url) else _wrong_audience(resource)

    def entry(self, place: str) -> _List | bytes | None:
        """What is at this path: a list, one object, or nothing."""
        return self._lists.get(place) or self._objects.get(place)

    def query(self) -> tuple[int, float]:
        """One more of Resource Graph: how many more its window takes, -1 where not even this one, and when it ends."""
        with self._lock:
            end, count = self._window
            if (now := time.monotonic()) >= end:
                end, count = now + self.quota_seconds, 0
            self._window = end, count + 1
            return max(self.quota - count - 1, -1), end - now

    def may_ask_identity(self, header: str | None) -> bool:
        return header == self._identity_header


# --- the estate, by path ---


def _lists(estate: Estate) -> Iterator[tuple[str, _List]]:
    subscriptions = list(estate.subscriptions.values())
    count = _dump({"type": "Total", "value": len(subscriptions)}).decode()
    yield "/subscriptions", _encoded([s.wire() for s in subscriptions], last=f',"count":{count}')
    for subscription in subscriptions:
        yield from _subscription_lists(subscription)


def _subscription_lists(s: Subscription) -> Iterator[tuple[str, _List]]:
    providers = f"/subscriptions/{s.id}/providers"
    yield _permissions(s.id), _encoded(s.permissions, paged=False)
    null = ',"nextLink":null'  # some providers leave it out on the last page, others do this
    yield f"{providers}/Microsoft.ContainerService/managedClusters", _encoded(s.clusters)
    yield f"{providers}/Microsoft.ContainerRegistry/registries", _encoded(s.registries)
    yield f"{providers}/Microsoft.Kubernetes/connectedClusters", _encoded(s.connected_clusters, last=null)
    yield f"{providers}/Microsoft.Security/pricings", _encoded(s.pricings, paged=False)
    yield f"{providers}/Microsoft.Security/securityConnectors", _encoded(s.connectors)
    for location, versions in s.versions.items():
        path = f"{providers}/Microsoft.ContainerService/locations/{location}/kubernetesVersions"
        yield path, _encoded(versions, key="values", paged=False)
    for item in (*s.clusters, *s.connected_clusters):
        own = f"{item['id']}/providers"
        settings = s.diagnostics.get(item["id"], [])
        yield f"{own}/Microsoft.Insights/diagnosticSettings", _encoded(settings, paged=False)
        extensions = s.extensions.get(item["id"], [])
        yield f"{own}/Microsoft.KubernetesConfiguration/extensions", _encoded(extensions, last=null)


def _objects(estate: Estate) -> Iterator[tuple[str, bytes]]:
    for subscription in estate.subscriptions.values():
        yield f"/subscriptions/{subscription.id}", _dump(subscription.wire())
        for item in (*subscription.clusters, *subscription.registries, *subscription.connected_clusters):
            yield item["id"], _dump(item)


def _permissions(subscription: str) -> str:
    return f"/subscriptions/{subscription}/providers/Microsoft.Authorization/permissions"


def _encoded(items: list[Object], **how: Any) -> _List:
    return _List([_dump(item) for item in items], **how)


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# --- HTTP ---


class _Http(apiserver._Http):
    def __init__(self, arm: ArmServer) -> None:
        super().__init__(arm)  # it has all that the transport asks of an ApiServer
        self.RequestHandlerClass = _Handler


class _Handler(apiserver._Handler):
    """The transport of the Kubernetes server, with ARM's answers."""

    asked: Request
    place: str  # the path as ARM compares it
    next_host: str

    @property
    def arm(self) -> ArmServer:
        return self.server.api

    def do_GET(self) -> None:  # noqa: N802
        url = urlsplit(self.path)
        self.place, self.next_host = unquote(url.path).lower(), ""
        self.asked = Request(
            self.command,
            url.path,
            dict(parse_qsl(url.query, keep_blank_values=True)),
            self.headers.get("Authorization", ""),
            self.rfile.read(int(self.headers.get("Content-Length", 0))),
        )
        if self.place != IDENTITY:
            self.arm.requests.append(self.asked)
        if self.arm.latency:
            self.arm.stopping.wait(self.arm.latency)
        fault = self.arm.fault(url.path)
        if fault is None or fault(self) == "pass":
            self._answer(url.path)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - so that a write is seen

    def _answer(self, path: str) -> None:
        if self.place == IDENTITY:
            self._identity()
        elif problem := self.arm.unauthorized(self.asked.authorization):
            self._challenge(*problem)
        elif "api-version" not in self.asked.query:
            text = "The api-version query parameter (?api-version=) is required for all requests."
            self.reply_error(400, "MissingApiVersionParameter", text)
        elif self.arm.is_denied(self.place):
            self.reply_error(403, "AuthorizationFailed", _forbidden(self.command, path))
        elif self.command == "GET":
            self._read(path)
        elif self.command == "POST" and self.place.endswith(_CREDENTIAL):
            self._credential(path)
        elif self.command == "POST" and self.place == GRAPH:
            self._graph()
        else:
            self.reply_json({"registrationState": "Registered"})

    def _read(self, path: str) -> None:
        found = self.arm.entry(self.place)
        if found is None:
            self._missing(path)
        elif isinstance(found, bytes):
            self.reply(200, found, "application/json; charset=utf-8")
        else:
            self._page(path, found)

    def _missing(self, path: str) -> None:
        start = "/".join(self.place.split("/")[:3])
        if not start.startswith("/subscriptions/") or self.arm.entry(start):
            self.reply_error(404, *_not_found(path))
        else:
            text = f"The subscription '{start.rpartition('/')[2]}' could not be found."
            self.reply_error(404, "SubscriptionNotFound", text)

    def _page(self, path: str, found: _List) -> None:
        start = _offset(self.asked.query.get("$skiptoken", ""))
        if start is None or start > len(found.items):
            self.reply_error(400, "InvalidSkipToken", "The skip token is not valid.")
            return
        stop = min(start + self.arm.page_size, len(found.items)) if found.paged else len(found.items)
        tail = found.last
        if stop < len(found.items) or self.next_host:
            query = urlencode(self.asked.query | {"$skiptoken": _skip_token(stop)})
            link = f"{self.next_host or self.arm.url}{path}?{query}"
            tail = f',"nextLink":{json.dumps(link)}'
        page = b'{"%b":[%b]%b}' % (found.key.encode(), b",".join(found.items[start:stop]), tail.encode())
        self.reply(200, page, "application/json; charset=utf-8")

    def _credential(self, path: str) -> None:
        config = self.arm.estate.kubeconfig(self.place.removesuffix(_CREDENTIAL))
        if config is None:
            self._missing(path.rsplit("/", 1)[0])
            return
        text = yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False).encode()
        self.reply_json({"kubeconfigs": [{"name": "clusterUser", "value": base64.b64encode(text).decode()}]})

    def _graph(self) -> None:
        """Resource Graph: no more of its language than the scanner's queries have."""
        left, wait = self.arm.query()
        headers = {
            "x-ms-user-quota-remaining": str(max(left, 0)),
            "x-ms-user-quota-resets-after": f"00:00:{math.ceil(wait):02d}",
        }
        if left < 0:
            self.reply_error(429, "RateLimiting", "Client application has been throttled.", headers)
            return
        asked = json.loads(self.asked.body)
        options = asked["options"]
        known = self.arm.estate.subscriptions
        if not any(name in known for name in asked["subscriptions"]):
            text = "There must be at least one subscription that is eligible to contain resources."
            self._graph_error("NoValidSubscriptionsInQueryRequest", text, headers)
            return
        assert len(asked["subscriptions"]) <= 1000
        assert options["resultFormat"] == "objectArray"
        found = _select(
            asked["query"], [r for name in asked["subscriptions"] if name in known for r in known[name].security]
        )
        start = _offset(options.get("$skipToken", ""))
        stop = min(start + min(options["$top"], self.arm.graph_rows), len(found))
        answer = rows(*found[start:stop], totalRecords=len(found))
        if stop < len(found):
            answer["$skipToken"] = _skip_token(stop)
        data = _dump(answer)
        if len(data) > self.arm.graph_bytes:
            text = f"Response payload size is {len(data)}, and has exceeded the limit of {self.arm.graph_bytes}."
            self._graph_error("ResponsePayloadTooLarge", text, headers)
        else:
            self.reply(200, data, "application/json; charset=utf-8", headers)

    def _graph_error(self, code: str, message: str, headers: dict[str, str]) -> None:
        support = "Please provide below info when asking for support: timestamp = …, correlationId = …"
        error = {"code": "BadRequest", "message": support, "details": [{"code": code, "message": message}]}
        self.reply(400, _dump({"error": error}), "application/json; charset=utf-8", headers)

    def _identity(self) -> None:
        """App Service's protocol, version 2019-08-01."""
        query = self.asked.query
        if not self.arm.may_ask_identity(self.headers.get("X-IDENTITY-HEADER")):
            self._identity_error(401, "The X-IDENTITY-HEADER header is missing or wrong.")
        elif self.command != "GET" or query.get("api-version") != "2019-08-01" or not query.get("resource"):
            self._identity_error(400, "Only GET with api-version=2019-08-01 and a resource is known here.")
        else:
            token = self.arm.issue(query["resource"])
            answer = {
                "access_token": token,
                "expires_on": str(_claims(token)["exp"]),
                "resource": query["resource"],
                "token_type": "Bearer",
                "client_id": query.get("client_id", CLIENT_ID),
            }
            self.reply_json(answer)

    def _identity_error(self, code: int, message: str) -> None:
        self.reply(code, _dump({"statusCode": code, "message": message}), "application/json")

    # --- replies ---

    def _challenge(self, error_code: str, message: str) -> None:
        uri = f"https://login.microsoftonline.com/{TENANT}"
        text = f'Bearer authorization_uri="{uri}", error="invalid_token", error_description="{message}"'
        self.reply_error(401, error_code, message, {"WWW-Authenticate": text})

    def reply_error(self, code: int, error_code: str, message: str, headers: dict[str, str] | None = None) -> None:
        answer = {"error": {"code": error_code, "message": message}}
        self.reply(code, _dump(answer), "application/json; charset=utf-8", headers)


# --- ARM's words ---


def _resource(path: str) -> tuple[str, list[str], list[str]]:
    """Scope before the last provider, the provider's namespace (as a list of one, or none), and what follows it."""
    parts = path.strip("/").split("/")
    marks = [number for number, part in enumerate(parts) if part.lower() == "providers"]
    last = marks[-1] if marks else len(parts)
    return "/" + "/".join(parts[:last]), parts[last + 1 : last + 2], parts[last + 2 :]


def action(method: str, path: str) -> str:
    """What one needs to be allowed: `Microsoft.ContainerService/managedClusters/read`."""
    return _action(method, path)[0]


def _forbidden(method: str, path: str) -> str:
    action, scope = _action(method, path)
    who = f"The client '{CLIENT_ID}' with object id '{OBJECT_ID}'"
    return (
        f"{who} does not have authorization to perform action '{action}' over scope '{scope}' or the scope is invalid. "
        "If access was recently granted, please refresh your credentials."
    )


def _action(method: str, path: str) -> tuple[str, str]:
    """What one needs to be allowed, and where: `Microsoft.ContainerService/managedClusters/read`."""
    if path.lower() == GRAPH:
        return "Microsoft.ResourceGraph/resources/read", "/"
    before, namespace, rest = _resource(path)
    if not namespace:
        namespace, rest = ["Microsoft.Resources"], before.strip("/").split("/")
    if method == "POST":  # the last part is the action
        kinds, verb, scope = [*rest[:-1][::2], rest[-1]], "action", path.rsplit("/", 1)[0]
    else:
        kinds, verb = rest[::2], {"GET": "read", "DELETE": "delete"}.get(method, "write")
        scope = path.rsplit("/", 1)[0] if len(rest) % 2 else path  # of a list, what it is a list of
    return "/".join([*namespace, *kinds, verb]), scope or "/"


def _select(query: str, table: list[Object]) -> list[Object]:
    """The rows that a query finds, with the columns that it asks for."""
    kind = re.search(r"where type =~ '([^']+)'", query)[1]
    keys = set(re.findall(r"'([0-9a-f-]{36})'", query))
    paths = dict(re.findall(r"extend (\w+) = tostring\(([\w.]+)\)", query))
    endings = tuple(re.findall(r"assessed endswith '(\w+)'", query))
    category = re.search(r"category =~ '(\w+)'", query)
    columns = [column.partition("=") for column in query.partition("| project ")[2].partition("|")[0].split(",")]

    def wanted(row: Object) -> bool:
        key = re.search(r"(?i)/providers/Microsoft\.Security/assessments/([^/]+)", row["id"])[1].lower()
        ends = str(_at(row, paths["assessed"]) or "").lower().endswith(tuple(ending.lower() for ending in endings))
        inside = not category or str(_at(row, paths["category"])).lower() == category[1].lower()
        return row["type"].lower() == kind and (key in keys or (ends and inside))

    found = sorted((row for row in table if wanted(row)), key=lambda row: row["id"])
    return [{name.strip(): _at(row, path.strip() or name.strip()) for name, _, path in columns} for row in found]


def _at(row: Any, path: str) -> Any:
    for name in path.split("."):
        row = row.get(name) if isinstance(row, dict) else None
    return row


def _not_found(path: str) -> tuple[str, str]:
    before, namespace, rest = _resource(path)
    if "/providers/" in before.lower():  # then what it would belong to is not there either
        return _not_found(before)
    if not namespace or len(rest) % 2:
        return "InvalidResourceType", f"The resource type could not be found at '{path}'."
    parts = before.split("/")
    group = parts[4] if len(parts) > 4 else ""
    return "ResourceNotFound", (
        f"The Resource '{'/'.join([*namespace, *rest])}' under resource group '{group}' was not found. "
        "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    )


def _unknown_version(path: str, version: str, error_code: str, supported: list[str]) -> str:
    _, namespace, rest = _resource(path)
    kind, versions = "/".join(rest[::2]), f"The supported api-versions are '{', '.join(supported)}'."
    if error_code == "InvalidResourceType":
        where = f"in the namespace '{''.join(namespace)}' for api version '{version}'"
        return f"The resource type '{kind}' could not be found {where}. {versions}"
    location = rest[1] if rest[:1] == ["locations"] else ""
    asked = f"for location '{location}' and API version '{version}' for type '{kind}'"
    places = f"The supported locations are '{', '.join(LOCATIONS)}'."
    return f"No registered resource provider found {asked}. {versions} {places}"


def _wrong_audience(resource: str) -> tuple[str, str]:
    allowed = ",".join(f"'{a}/','{a}'" for a in AUDIENCES)
    return "InvalidAuthenticationTokenAudience", (
        f"The access token has been obtained for wrong audience or resource '{resource}'. "
        f"It should exactly match with one of the allowed audiences {allowed}."
    )


def _clock(seconds: float) -> str:
    return time.strftime("%m/%d/%Y %I:%M:%S %p", time.gmtime(seconds))


# --- tokens ---


def _jwt(claims: Object) -> str:
    header = {"typ": "JWT", "alg": "RS256", "kid": "local"}
    return ".".join(map(_base64url, (_dump(header), _dump(claims), secrets.token_bytes(64))))


def _claims(token: str) -> Object:
    part = token.split(".")[1]
    claims: Object = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _skip_token(offset: int) -> str:
    return base64.urlsafe_b64encode(f"offset:{offset:d}".encode()).decode()


def _offset(token: str) -> int | None:
    """Where a skip token leads; None if this server never gave it out."""
    if not token:
        return 0
    try:
        name, _, number = base64.urlsafe_b64decode(token).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return int(number) if name == "offset" and number.isdecimal() else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a large estate until standard input is closed.")
    parser.add_argument("--subscriptions", type=int, default=20)
    parser.add_argument("--clusters", type=int, default=1000, help="in all subscriptions together")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    args = parser.parse_args()
    with ArmServer(large_estate(args.subscriptions, args.clusters), latency=args.latency) as arm:
        print(json.dumps({"url": arm.url, "environment": arm.environment}), flush=True)
        sys.stdin.read()
        print(len(arm.requests))  # for the benchmark, which divides by its rounds


if __name__ == "__main__":
    main()
