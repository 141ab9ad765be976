"""A Kubernetes API server on a loopback socket, for tests and benchmarks; it misbehaves on request.

    with ApiServer(objects, token="t") as server:
        server.deny("pods", namespace="team-07")
        server.inject(r"/pods", status(429, retry_after=1), times=2)
        run("--kubeconfig", server.kubeconfig(tmp_path / "config"))
        assert {r.method for r in server.requests} == {"GET"}

`python tests/apiserver.py --pods 100000 --kubeconfig FILE` serves a sample cluster until standard input is closed, from
a process of its own, so that its CPU time and memory are not counted with the scanner's.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import gzip
import json
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import yaml

Object = dict[str, Any]


class Resource(NamedTuple):
    api: str  # "/api/v1", "/apis/apps/v1"
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        return self.api.split("/")[2] if self.api.startswith("/apis/") else ""

    @property
    def api_version(self) -> str:
        return self.api.removeprefix("/apis/").removeprefix("/api/")


_CORE, _APPS, _BATCH, _NET = "/api/v1", "/apis/apps/v1", "/apis/batch/v1", "/apis/networking.k8s.io/v1"
_GKE, _RBAC = "/apis/networking.gke.io/v1beta1", "/apis/rbac.authorization.k8s.io/v1"
_TRIVY = "/apis/aquasecurity.github.io/v1alpha1"
RESOURCES = {
    r.plural: r
    for r in (
        Resource(_CORE, "pods", "Pod"),
        Resource(_CORE, "podtemplates", "PodTemplate"),
        Resource(_CORE, "replicationcontrollers", "ReplicationController"),
        Resource(_CORE, "services", "Service"),
        Resource(_CORE, "serviceaccounts", "ServiceAccount"),
        Resource(_CORE, "configmaps", "ConfigMap"),
        Resource(_CORE, "secrets", "Secret"),
        Resource(_CORE, "limitranges", "LimitRange"),
        Resource(_CORE, "namespaces", "Namespace", False),
        Resource(_CORE, "nodes", "Node", False),
        Resource(_APPS, "deployments", "Deployment"),
        Resource(_APPS, "statefulsets", "StatefulSet"),
        Resource(_APPS, "daemonsets", "DaemonSet"),
        Resource(_APPS, "replicasets", "ReplicaSet"),
        Resource(_BATCH, "jobs", "Job"),
        Resource(_BATCH, "cronjobs", "CronJob"),
        Resource(_NET, "ingresses", "Ingress"),
        Resource(_NET, "ingressclasses", "IngressClass", False),
        Resource(_GKE, "frontendconfigs", "FrontendConfig"),
        Resource(_TRIVY, "vulnerabilityreports", "VulnerabilityReport"),
        Resource(_RBAC, "rolebindings", "RoleBinding"),
        Resource(_RBAC, "clusterrolebindings", "ClusterRoleBinding", False),
    )
}
_BY_KIND = {r.kind: r for r in RESOURCES.values()}
_CUSTOM = {"frontendconfigs", "vulnerabilityreports"}  # groups that are not there until they hold something
VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.2", "platform": "linux/amd64"}
RESOURCE_VERSION = "884213"


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # lower-case names
    connection: int  # the client's port: equal for requests that shared a connection


class Source(NamedTuple):
    """Items that exist only as bytes: `items(start, stop)` gives those JSON objects joined by commas."""

    total: int
    items: Callable[[int, int], bytes]


@dataclass
class Tls:
    """What `tls()` mints: a server context, the authority's certificate, and a client certificate it signed (PEM)."""

    context: ssl.SSLContext
    ca: bytes
    client_cert: bytes
    client_key: bytes


def tls(*names: str, client_certs: bool = False) -> Tls:
    """A private authority and a server certificate for these names ("127.0.0.1" if none are given)."""
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
    if client_certs:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    client = authority.issue_cert(common_name="scanner", organization_name="system:masters")
    return Tls(context, authority.cert_pem.bytes(), client.cert_chain_pems[0].bytes(), client.private_key_pem.bytes())


# --- what can go wrong ---
# A fault is a function of the handler. It answers the request itself, or returns "pass" to let the server answer.

Fault = Callable[["_Handler"], str | None]


def status(code: int, *, message: str = "", retry_after: float | None = None, fresh_continue: bool = False) -> Fault:
    """An error answer; 410 with `fresh_continue` carries a token for the rest of the list, as a real server's does."""

    def answer(handler: _Handler) -> None:
        meta = {"continue": handler.fresh_token()} if fresh_continue else {}
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        handler.reply_status(code, message or _MESSAGES.get(code, "injected"), meta, headers)

    return answer


def delay(seconds: float) -> Fault:
    def wait(handler: _Handler) -> str:
        handler.api.stopping.wait(seconds)
        return "pass"

    return wait


def hang() -> Fault:
    """Say nothing until the server stops."""

    def wait(handler: _Handler) -> None:
        handler.api.stopping.wait()
        handler.close_connection = True

    return wait


def drip(interval: float = 0.02) -> Fault:
    """A byte now and then, for ever: no read ever times out."""

    def answer(handler: _Handler) -> None:
        handler.start_body(200, 1 << 20)
        while not handler.api.stopping.wait(interval):
            handler.wfile.write(b" ")
        handler.close_connection = True

    return answer


def drip_headers(interval: float = 0.01) -> Fault:
    """A header without an end."""

    def answer(handler: _Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
        while not handler.api.stopping.wait(interval):
            handler.wfile.write(b"a")
        handler.close_connection = True

    return answer


def drip_chunks(interval: float = 0.01) -> Fault:
    """Chunks of one byte, for ever."""

    def answer(handler: _Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not handler.api.stopping.wait(interval):
            handler.wfile.write(b"1\r\n \r\n")
        handler.close_connection = True

    return answer


def flood(chunk: bytes = b"10000\r\n" + b" " * 65536 + b"\r\n") -> Fault:
    """A body without an end, as fast as it is read."""

    def answer(handler: _Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not handler.api.stopping.is_set():
            handler.wfile.write(chunk)

    return answer


def reset(body: bytes = b'{"kind":"PodList","items":[') -> Fault:
    """Half a body, then RST."""

    def answer(handler: _Handler) -> None:
        handler.start_body(200, 1 << 20)
        handler.wfile.write(body)
        handler.abort()

    return answer


def short(body: bytes = b'{"kind":"PodList","items":[') -> Fault:
    """Half a body, then an orderly end of the connection."""

    def answer(handler: _Handler) -> None:
        handler.start_body(200, 1 << 20)
        handler.wfile.write(body)
        handler.close_connection = True

    return answer


def body(data: bytes, *, code: int = 200, content_type: str = "application/json", **headers: str) -> Fault:
    """Exactly these bytes; header names with underscores for dashes."""

    def answer(handler: _Handler) -> None:
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.reply(code, data, content_type, extra)

    return answer


def truncated() -> Fault:
    """A page that ends in the middle of its JSON, though HTTP says that it is complete."""
    return body(b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"a"},"spec":{"conta')


def html() -> Fault:
    return body(b"<!DOCTYPE html><html><title>Sign in</title></html>", content_type="text/html")


def redirect(url: str, code: int = 302) -> Fault:
    return body(b"", code=code, content_type="text/plain", Location=url)


_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
_MESSAGES = {
    401: "Unauthorized",
    403: "forbidden: injected",
    410: "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder.",
    429: "the server has received too many requests and has asked us to try again later",
    500: "Internal error occurred: etcdserver: request timed out",
    503: "the server is currently unable to handle the request",
}


@dataclass
class _Rule:
    path: re.Pattern[str]
    fault: Fault
    after: int
    times: int | None
    seen: int = 0

    def takes(self, target: str) -> bool:
        if not self.path.search(target):
            return False
        self.seen += 1
        return self.seen > self.after and (self.times is None or self.seen <= self.after + self.times)


@dataclass
class ApiServer:
    """A context manager. `objects` need `kind`; lists give them without `kind` and `apiVersion`, as real servers do.

    With `token`, requests without it get 401. Bodies of at least `gzip_from` bytes are compressed for those who ask.
    After the block, whatever broke inside the server (not what tests injected) is raised.
    """

    objects: Iterable[Object] = ()
    token: str | None = None
    tls: Tls | None = None
    gzip_from: int = 128 * 1024
    chunked: bool = False  # as real servers answer lists: no Content-Length
    latency: float = 0.0
    requests: list[Request] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._store: dict[tuple[str, str], list[Object]] = {}
        self._sources: dict[tuple[str, str], Source] = {}
        self._denied: set[tuple[str, str, str]] = (
            set()
        )  # verb, plural, namespace ("*" = all, "" = the cluster-wide list)
        self.add(*self.objects)
        self._http = _Http(self)
        self.port: int = self._http.server_address[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> ApiServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.drop_connections()
        self._http.server_close()  # joins the handlers
        self._thread.join()
        if self.errors:
            raise self.errors[0]

    def add(self, *objects: Object) -> None:
        for obj in objects:
            resource = _BY_KIND[obj["kind"]]
            namespace = obj["metadata"].get("namespace", "default") if resource.namespaced else ""
            self._store.setdefault((resource.plural, namespace), []).append(obj)

    def serve(self, plural: str, total: int, items: Callable[[int, int], bytes], namespace: str = "") -> None:
        """Serve a list from bytes: `items(start, stop)` gives JSON objects joined by commas; one per namespace."""
        self._sources[plural, namespace] = Source(total, items)

    def deny(self, plural: str, namespace: str | None = None) -> None:
        """403 for this list and its objects: everywhere, or in one namespace, and then for the cluster-wide list
        too, as only a cluster-wide right would have granted that."""
        where = "*" if namespace is None else namespace
        self._denied |= {("list", plural, where), ("get", plural, where), ("list", plural, "")}

    def deny_cluster_wide(self, plural: str) -> None:
        """403 for the cluster-wide list only: each namespace may still be listed, and objects may be read by name."""
        self._denied.add(("list", plural, ""))

    def inject(self, path: str, fault: Fault, *, after: int = 0, times: int | None = None) -> None:
        """Answer the requests whose "path?query" matches with `fault`, except the first `after`, at most `times`."""
        with self._lock:
            self._rules.append(_Rule(re.compile(path), fault, after, times))

    def kubeconfig(
        self,
        path: Path,
        *,
        context: str = "local",
        token: str | None = None,
        ca: bytes | None = None,
        user: Object | None = None,
        cluster: Object | None = None,
        namespace: str | None = None,
        others: Mapping[str, ApiServer] | None = None,
    ) -> str:
        """Write a kubeconfig and return its path. `user` replaces the entry, `cluster` adds to it; `others` are further
        contexts, each with the token and authority of its server."""
        first = _context(self, token, ca, user, cluster, namespace)
        entries = {context: first} | {
            name: _context(server, None, None, None, None, None) for name, server in (others or {}).items()
        }
        config: Object = {"apiVersion": "v1", "kind": "Config", "current-context": context}
        for part in ("cluster", "user", "context"):
            config[part + "s"] = [{"name": _named(part, name), part: entry[part]} for name, entry in entries.items()]
        for item in config["contexts"]:
            item["context"] |= {"cluster": _named("cluster", item["name"]), "user": _named("user", item["name"])}
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return str(path)

    # --- called by the handler, from many threads ---

    def fault(self, target: str) -> Fault | None:
        with self._lock:
            return next((rule.fault for rule in self._rules if rule.takes(target)), None)

    def is_denied(self, verb: str, plural: str, namespace: str) -> bool:
        return bool({(verb, plural, namespace), (verb, plural, "*")} & self._denied)

    def source(self, plural: str, namespace: str) -> Source | None:
        return self._sources.get((plural, namespace))

    def find(self, plural: str, namespace: str) -> list[Object]:
        if namespace or not RESOURCES[plural].namespaced:
            return self._store.get((plural, namespace), [])
        return [obj for (p, _), objects in sorted(self._store.items()) if p == plural for obj in objects]

    def installed(self, plural: str) -> bool:
        served = any(name == plural for name, _ in self._sources)
        return plural not in _CUSTOM or served or bool(self.find(plural, ""))


def _named(part: str, context: str) -> str:
    return context if part == "context" else f"{context}-{part}"


def _context(
    server: ApiServer,
    token: str | None,
    ca: bytes | None,
    user: Object | None,
    cluster: Object | None,
    namespace: str | None,
) -> dict[str, Object]:
    authority = ca or (server.tls.ca if server.tls else None)
    trust = {"certificate-authority-data": base64.b64encode(authority).decode()} if authority else {}
    bearer = token or server.token
    return {
        "cluster": {"server": server.url} | trust | (cluster or {}),
        "user": user if user is not None else ({"token": bearer} if bearer else {}),
        "context": {"namespace": namespace} if namespace else {},
    }


# --- HTTP ---


class _Http(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close waits for the handlers and nothing outlives the test
    request_queue_size = 128

    def __init__(self, api: ApiServer) -> None:
        self.api = api
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks up the host's name, which costs seconds where DNS is broken.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = super().get_request()
        if self.api.tls:  # the handshake happens in the handler's thread: a silent client must not block the others
            sock = self.api.tls.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._open.add(sock)
        return sock, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        for sock in tuple(self._open):
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                continue  # already gone

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        # Clients that hang up or dislike the certificate are what the tests are about.
        if error is not None and not isinstance(error, OSError):
            self.api.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else headers and body of one answer wait 40 ms for each other
    wbufsize = 0
    server: _Http

    @property
    def api(self) -> ApiServer:
        return self.server.api

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query))
        headers = {name.lower(): ", ".join(self.headers.get_all(name, ())) for name in self.headers}
        self.api.requests.append(Request(self.command, url.path, self.query, headers, self.client_address[1]))
        if self.api.latency:
            time.sleep(self.api.latency)
        fault = self.api.fault(self.path)
        if fault is None or fault(self) == "pass":
            self._answer(url.path)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - so that a write is seen, and refused

    def _answer(self, path: str) -> None:
        if self.command != "GET":
            self.reply_status(405, "this server only reads")
        elif self.api.token and self.headers.get("Authorization") != f"Bearer {self.api.token}":
            self.reply_status(401, "Unauthorized")
        elif path == "/version":
            self.reply_json(VERSION)
        elif found := [r for r in RESOURCES.values() if r.api == path and self.api.installed(r.plural)]:
            kinds = [{"name": r.plural, "kind": r.kind, "namespaced": r.namespaced} for r in found]
            self.reply_json({"kind": "APIResourceList", "groupVersion": found[0].api_version, "resources": kinds})
        else:
            self._resource(path)

    def _resource(self, path: str) -> None:
        found = _route(path)
        if found is None or not self.api.installed(found[0].plural):
            self.reply(404, b"404 page not found\n", "text/plain; charset=utf-8")
            return
        resource, namespace, name = found
        if self.api.is_denied("get" if name else "list", resource.plural, namespace):
            self.reply_status(403, _forbidden(resource, namespace, name))
        elif {"watch", "labelSelector", "fieldSelector"} & self.query.keys():
            self.reply_status(400, "this server knows no selectors and no watches")
        elif name:
            self._single(resource, namespace, name)
        else:
            self._list(resource, namespace)

    def _single(self, resource: Resource, namespace: str, name: str) -> None:
        for obj in self.api.find(resource.plural, namespace):
            if obj["metadata"]["name"] == name:
                full = obj | {"kind": resource.kind, "apiVersion": resource.api_version}
                self.reply_json(_metadata_only(obj) if self._wants("PartialObjectMetadata") else full)
                return
        self.reply_status(404, f'{resource.plural} "{name}" not found')

    def _list(self, resource: Resource, namespace: str) -> None:
        source = self.api.source(resource.plural, namespace)
        objects = self.api.find(resource.plural, namespace)
        total = source.total if source else len(objects)
        start = _offset(self.query.get("continue", ""))
        limit = self.query.get("limit", "0")
        if start is None or start > total or not limit.isdecimal():
            self.reply_status(400, "continue key is not valid: illegal base64 data" if start is None else "bad request")
            return
        stop = min(start + int(limit), total) if int(limit) else total
        partial = self._wants("PartialObjectMetadataList")
        if source and not partial:
            items = source.items(start, stop)
        else:
            items = _dump(resource, self._objects(source, objects, start, stop), partial)
        kind = (
            ("PartialObjectMetadataList", "meta.k8s.io/v1")
            if partial
            else (resource.kind + "List", resource.api_version)
        )
        self.reply(200, _page(*kind, start, stop, total, items), "application/json")

    def _objects(self, source: Source | None, objects: list[Object], start: int, stop: int) -> list[Object]:
        return json.loads(b"[" + source.items(start, stop) + b"]") if source else objects[start:stop]

    def _wants(self, shape: str) -> bool:
        first = self.headers.get("Accept", "").split(",")[0].replace(" ", "")
        return f"as={shape}" in first.split(";")

    def fresh_token(self) -> str:
        return _token(_offset(self.query.get("continue", "")) or 0, fresh=True)

    # --- replies ---

    def reply_json(self, value: object) -> None:
        self.reply(200, json.dumps(value, separators=(",", ":")).encode(), "application/json")

    def reply_status(
        self, code: int, message: str, meta: Object | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        answer = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": meta or {},
            "status": "Failure",
            "message": message,
            "reason": _REASONS.get(code, "Unknown"),
            "code": code,
        }
        self.reply(code, json.dumps(answer).encode(), "application/json", headers)

    def reply(self, code: int, data: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        extra = dict(headers or {})
        asked = "gzip" in self.headers.get("Accept-Encoding", "")
        if asked and len(data) >= self.api.gzip_from and "Content-Encoding" not in extra:
            data = gzip.compress(data, compresslevel=1, mtime=0)
            extra["Content-Encoding"] = "gzip"
        self.start_body(code, len(data), content_type, extra)
        if self.api.chunked:
            self.send_chunks(data)
        elif data:
            self.wfile.write(data)

    def start_body(
        self, code: int, length: int, content_type: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> None:
        framing = ("Transfer-Encoding", "chunked") if self.api.chunked else ("Content-Length", str(length))
        self.send_response(code)
        for name, value in (("Content-Type", content_type), framing, *(headers or {}).items()):
            self.send_header(name, value)
        self.end_headers()

    def send_chunks(self, data: bytes) -> None:
        for start in range(0, len(data), 1 << 20):
            part = data[start : start + (1 << 20)]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def abort(self) -> None:
        """End the connection with RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.rfile.close()
        self.close_connection = True


def _route(path: str) -> tuple[Resource, str, str] | None:
    """Resource, namespace ("" = all, or none) and name ("" = the list) of a path; None for what is not there."""
    core = path.startswith("/api/v1/")
    parts = path.strip("/").split("/")
    api, rest = ("/" + "/".join(parts[:2]), parts[2:]) if core else ("/" + "/".join(parts[:3]), parts[3:])
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    resource = RESOURCES.get(rest[0]) if rest else None
    if resource is None or resource.api != api or len(rest) > 2 or (namespace and not resource.namespaced):
        return None
    return resource, namespace, rest[1] if len(rest) == 2 else ""


def _forbidden(resource: Resource, namespace: str, name: str) -> str:
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    subject = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    verb = "get" if name else "list"
    named = f' "{name}"' if name else ""
    return (
        f'{subject}{named} is forbidden: User "system:serviceaccount:audit:scanner" cannot {verb} resource '
        f'"{resource.plural}" in API group "{resource.group}" {where}'
    )


def _metadata_only(obj: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _dump(resource: Resource, objects: list[Object], partial: bool) -> bytes:
    shapes = (
        _metadata_only(obj) if partial else {k: v for k, v in obj.items() if k not in ("kind", "apiVersion")}
        for obj in objects
    )
    return b",".join(json.dumps(shape, separators=(",", ":")).encode() for shape in shapes)


def _page(kind: str, api_version: str, start: int, stop: int, total: int, items: bytes) -> bytes:
    meta: Object = {"resourceVersion": RESOURCE_VERSION}
    if stop < total:
        meta |= {"continue": _token(stop), "remainingItemCount": total - stop}
    head = {"kind": kind, "apiVersion": api_version, "metadata": meta}
    return json.dumps(head, separators=(",", ":")).encode()[:-1] + b',"items":[' + items + b"]}"


def _token(offset: int, fresh: bool = False) -> str:
    value = {"v": "meta.k8s.io/v1", "rv": -1 if fresh else int(RESOURCE_VERSION), "start": offset}
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def _offset(token: str) -> int | None:
    """Where a continue token leads; None if this server never gave it out."""
    if not token:
        return 0
    try:
        start = json.loads(base64.urlsafe_b64decode(token))["start"]
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None
    return start if isinstance(start, int) and start >= 0 else None


def main() -> None:
    import cluster_data

    parser = argparse.ArgumentParser(description="Serve a sample cluster until standard input is closed.")
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=10, help="pods of one workload")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--kubeconfig", type=Path, required=True, help="where to write it")
    args = parser.parse_args()
    with ApiServer(latency=args.latency) as server:
        cluster_data.populate(server, args.pods, args.replicas)
        path = server.kubeconfig(args.kubeconfig)
        print(json.dumps({"url": server.url, "kubeconfig": path}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
