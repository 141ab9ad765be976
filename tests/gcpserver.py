"""Google Cloud on loopback sockets: GKE's ClusterManager over gRPC, and over HTTP the APIs of Artifact Registry, of
Artifact Analysis, of projects and folders, and of the tokens for all of these; it misbehaves on request.

    with GcpServer(sample_estate(), page_size=2) as gcp:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcp.key_file(tmp_path))
        gcp.deny("artifactregistry.repositories.list", DEV)
        gcp.inject(":getIamPolicy$", status(429), times=2)
        gcp.inject_call(refuse("UNAVAILABLE"), project=PROD, times=2)
        session = Session(endpoints=gcp.endpoints, request_timeout=10, connections=4)
        session.log_in()
        assert [c["name"] for c, _ in session.clusters(PROD).clusters] == ["gke-shop", "gke-auto", "gke-old"]
        assert {r.method for r in gcp.requests} == {"GET", "ListClusters"}

`python tests/gcpserver.py --projects 50 --clusters 1000` serves a large estate until standard input is closed, from a
process of its own, so that its CPU time and memory are not counted with the scanner's.
"""

from __future__ import annotations

import argparse
import base64
import functools
import json
import re
import secrets
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import apiserver
import grpc
import trustme
from apiserver import Fault, body, delay, drip, hang, html, redirect
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from gcp_data import LOCATIONS, ORGANIZATION, PROD, SCANNER, Estate, Project, large_estate, number
from google.cloud.container_v1.types import ListClustersRequest, ListClustersResponse
from google.protobuf import any_pb2, json_format
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

__all__ = [
    "GcpServer",
    "Request",
    "body",
    "delay",
    "disabled",
    "drip",
    "garbage",
    "hang",
    "html",
    "info",
    "redirect",
    "refuse",
    "reset",
    "silent",
    "status",
]

Object = dict[str, Any]
CallFault = Callable[["GcpServer", str, Any], bytes | None]  # takes the server, the project and gRPC's context

TOKENS = "/token"
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Request(NamedTuple):
    method: str  # that of HTTP, or ListClusters
    path: str  # or the parent whose clusters are listed
    query: dict[str, str]
    headers: dict[str, str]  # lower-case names


# --- what can go wrong ---


def info(reason: str, **metadata: str) -> Object:
    """google.rpc.ErrorInfo, as JSON: the machine's part of a refusal."""
    type_url = "type.googleapis.com/google.rpc.ErrorInfo"
    return {"@type": type_url, "reason": reason, "domain": "googleapis.com", "metadata": metadata}


def disabled(service: str, consumer: str) -> tuple[str, Object]:
    """Message and details of the refusal of an API that is not enabled in a project ("projects/...")."""
    host, project = f"{service}.googleapis.com", consumer.removeprefix("projects/")
    message = (
        f"API {host} has not been used in project {project} before or it is disabled. Enable it by visiting "
        f"https://console.developers.google.com/apis/api/{host}/overview?project={project} then retry."
    )
    return message, info("SERVICE_DISABLED", service=host, consumer=consumer, containerInfo=project)


def status(code: int, message: str = "injected", *details: Object, name: str = "") -> Fault:
    """An HTTP answer with an error in the shape of Google's REST APIs."""

    def answer(handler: _Handler) -> None:
        handler.reply_error(code, message, *details, name=name)

    return answer


def reset() -> Fault:
    """Half a page, then RST."""
    return apiserver.reset(b'{"repositories":[')


def refuse(code: str, message: str = "injected", *details: Object) -> CallFault:
    """A gRPC status with its details."""

    def fault(server: GcpServer, project: str, context: Any) -> None:
        context.abort_with_status(_grpc_status(code, message, details))

    return fault


def silent() -> CallFault:
    """Say nothing until the server stops."""

    def fault(server: GcpServer, project: str, context: Any) -> None:
        server.stopping.wait()
        context.abort(grpc.StatusCode.CANCELLED, "stopped")

    return fault


def garbage(data: bytes = b"<!DOCTYPE html><html>Sign in</html>") -> CallFault:
    """These bytes in place of the message."""
    return lambda server, project, context: data


def _grpc_status(code: str, message: str, details: tuple[Object, ...]) -> Any:
    """Of google.rpc.Status, with the details packed."""
    packed = []
    for detail in details:
        kind = getattr(error_details_pb2, detail["@type"].rpartition(".")[2])
        held = json_format.ParseDict({k: v for k, v in detail.items() if k != "@type"}, kind())
        packed.append(any_pb2.Any(type_url=detail["@type"], value=held.SerializeToString()))
    number_of = grpc.StatusCode[code].value[0]
    return rpc_status.to_status(status_pb2.Status(code=number_of, message=message, details=packed))


@dataclass
class _CallRule:
    project: str | None
    fault: CallFault
    times: int | None
    seen: int = 0

    def takes(self, project: str) -> bool:
        if self.project not in (None, project):
            return False
        self.seen += 1
        return self.times is None or self.seen <= self.times


def new_key() -> Any:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


shared_key = functools.cache(new_key)


@dataclass
class GcpServer:
    """A context manager. Call `load` after changes to the estate. After the block, whatever broke inside the server
    (not what tests injected) is raised."""

    estate: Estate
    page_size: int = 1000
    latency: float = 0.0
    token_seconds: int = 3600
    gzip_from: int = 128 * 1024
    chunked: bool = False
    tls: Any = False  # True for certificates of an authority of its own, whose path is `ca`
    key: Any = None  # with which the service account signs; else one that all servers share
    requests: list[Request] = field(default_factory=list)  # without those for tokens
    tokens: list[str] = field(default_factory=list)  # who asked for each
    errors: list[BaseException] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[apiserver._Rule] = []
        self._call_rules: list[_CallRule] = []
        self._denied: set[tuple[str, str | None]] = set()
        self._issued: dict[str, float] = {}  # expiry by token
        self._key = self.key or shared_key()
        self.load(self.estate)
        self._folder = tempfile.TemporaryDirectory()
        self.ca = str(Path(self._folder.name) / "ca.pem")
        credentials = self._certify() if self.tls else None
        self._http = _Http(self)
        self._scheme = "https" if self.tls else "http"
        self.url = f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._pool = futures.ThreadPoolExecutor(32)
        self._grpc = grpc.server(self._pool, options=[("grpc.max_send_message_length", -1)])
        self._grpc.add_generic_rpc_handlers((_cluster_manager(self),))
        add_port = functools.partial(self._grpc.add_secure_port, server_credentials=credentials)
        self._grpc_port = (add_port if self.tls else self._grpc.add_insecure_port)("127.0.0.1:0")

    def __enter__(self) -> GcpServer:
        self._thread.start()
        self._grpc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._grpc.stop(None).wait()
        self._pool.shutdown()
        self._http.shutdown()
        self._http.drop_connections()
        self._http.server_close()  # joins the handlers
        self._thread.join()
        self._folder.cleanup()
        if self.errors:
            raise self.errors[0]

    def _certify(self) -> Any:
        """Certificates for both servers; in place of True there is then what the HTTP server takes."""
        authority = trustme.CA()
        own = authority.issue_cert("127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.configure_cert(context)
        authority.cert_pem.write_to_path(self.ca)
        self.tls = apiserver.Tls(context, authority.cert_pem.bytes(), b"", b"")
        chain = b"".join(blob.bytes() for blob in own.cert_chain_pems)
        return grpc.ssl_server_credentials([(own.private_key_pem.bytes(), chain)])

    @property
    def endpoints(self) -> dict[str, str]:
        """What a session takes in place of Google's addresses."""
        names = ("artifactregistry", "containeranalysis", "cloudresourcemanager", "iamcredentials")
        return {"container": f"{self._scheme}://127.0.0.1:{self._grpc_port}", **dict.fromkeys(names, self.url)}

    def key_file(self, folder: Path, **changes: Any) -> str:
        """Writes the key of a service account, for GOOGLE_APPLICATION_CREDENTIALS, and returns its path."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key = {
            "type": "service_account",
            "project_id": PROD,
            "private_key_id": "7f1d6c2b",
            "private_key": pem.decode(),
            "client_email": SCANNER,
            "client_id": "103947562839102934756",
            "token_uri": self.url + TOKENS,
            **changes,
        }
        path = folder / "key.json"
        path.write_text(json.dumps(key), encoding="utf-8")
        return str(path)

    def load(self, estate: Estate) -> None:
        """Serve this from now on. Clusters are encoded here, so that a call costs little."""
        self.estate = estate
        self._clusters = {project.id: _encoded(project) for project in estate.projects.values()}

    def deny(self, permission: str, project: str | None = None) -> None:
        """Refuse what takes this permission, everywhere or in one project (or below one folder or organization)."""
        self._denied = self._denied | {(permission, project)}  # others may be reading it

    def inject(self, path: str, fault: Fault, times: int | None = None, *, after: int = 0) -> None:
        """Answer the requests whose "path?query" matches with `fault`, except the first `after`, at most `times`."""
        with self._lock:
            self._rules.append(apiserver._Rule(re.compile(path), fault, after, times))

    def inject_call(self, fault: CallFault, project: str | None = None, times: int | None = None) -> None:
        """Answer ListClusters with `fault`, of one project or of all, at most `times`."""
        with self._lock:
            self._call_rules.append(_CallRule(project, fault, times))

    def heal(self) -> None:
        """From now on nothing is denied, and no fault injected."""
        self._denied = set()
        with self._lock:
            self._rules.clear()
            self._call_rules.clear()

    def issue(self, who: str) -> tuple[str, float]:
        token, expiry = f"ya29.{secrets.token_urlsafe(24)}", time.time() + self.token_seconds
        with self._lock:
            self.tokens.append(who)
            self._issued[token] = expiry
        return token, expiry

    def revoke(self) -> None:
        """Refuse the tokens handed out so far."""
        with self._lock:
            self._issued.clear()

    # --- called by the handlers, from many threads ---

    def fault(self, target: str) -> Fault | None:
        with self._lock:
            return next((rule.fault for rule in self._rules if rule.takes(target)), None)

    def call_fault(self, project: str) -> CallFault | None:
        with self._lock:
            return next((rule.fault for rule in self._call_rules if rule.takes(project)), None)

    def knows(self, authorization: str) -> bool:
        return self._issued.get(authorization.removeprefix("Bearer "), 0) > time.time()

    def is_denied(self, permission: str, place: str) -> bool:
        return bool({(permission, place), (permission, None)} & self._denied)

    def clusters(self, project: Project) -> bytes:
        return self._clusters[project.id]

    def verified(self, assertion: str) -> str:
        """Who signed it; raises InvalidSignature where nobody did."""
        signed, _, signature = assertion.rpartition(".")
        self._key.public_key().verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), SHA256())
        claims = json.loads(_decoded(signed.split(".")[1]))
        assert {"cloud-platform", "iam"} & {scope.rpartition("/")[2] for scope in claims["scope"].split()}
        return str(claims["iss"])


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _encoded(project: Project) -> bytes:
    """A field that GKE's own client does not know is a mistake in the test's data, and raises."""
    answer = {"clusters": project.clusters, "missingZones": project.missing}
    pb = ListClustersResponse.pb()
    return json_format.ParseDict(answer, pb()).SerializeToString()


# --- gRPC ---


def _cluster_manager(server: GcpServer) -> Any:
    def list_clusters(request: Any, context: Any) -> bytes:
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        server.requests.append(Request("ListClusters", request.parent, {}, headers))
        if server.latency:
            server.stopping.wait(server.latency)
        place = request.parent.split("/")[1]
        fault = server.call_fault(place)
        if fault and (data := fault(server, place, context)) is not None:
            return data
        problem = _problem(server, "container", place, "container.clusters.list", headers.get("authorization", ""))
        if problem:
            code, message, details = problem
            context.abort_with_status(_grpc_status(_CODES[code], message, details))
        project = server.estate.find(place)
        assert project
        return server.clusters(project)

    handler = grpc.unary_unary_rpc_method_handler(
        list_clusters, request_deserializer=ListClustersRequest.deserialize, response_serializer=lambda data: data
    )
    return grpc.method_handlers_generic_handler("google.container.v1.ClusterManager", {"ListClusters": handler})


def _problem(
    server: GcpServer, service: str, place: str, permission: str, authorization: str
) -> tuple[int, str, tuple[Object, ...]] | None:
    """Why a request about a project is refused: HTTP status, message and details."""
    if not server.knows(authorization):
        return 401, "Request had invalid authentication credentials.", (info("ACCESS_TOKEN_INVALID"),)
    project = server.estate.find(place)
    refused = f"Permission '{permission}' denied on resource '//{service}.googleapis.com/projects/{place}'"
    if project is None:  # Google does not say whether there is such a project
        return 403, f"{refused} (or it may not exist).", (info("IAM_PERMISSION_DENIED", permission=permission),)
    if service in project.off:
        message, detail = disabled(service, f"projects/{number(project.id)}")
        return 403, message, (detail,)
    if server.is_denied(permission, project.id):
        return 403, refused, (info("IAM_PERMISSION_DENIED", permission=permission),)
    return None


# --- HTTP ---


class _Http(apiserver._Http):
    def __init__(self, gcp: GcpServer) -> None:
        super().__init__(gcp)  # it has all that the transport asks of an ApiServer
        self.RequestHandlerClass = _Handler


_PROJECT = r"projects/(?P<project>[^/]+)"
_REPOSITORY = rf"{_PROJECT}/locations/[^/]+/repositories"
_ROUTES = (
    (rf"/v1/{_PROJECT}/locations", "artifactregistry.locations.list", "_locations"),
    (rf"/v1/{_REPOSITORY}", "artifactregistry.repositories.list", "_repositories"),
    (rf"/v1/{_REPOSITORY}/[^/]+:getIamPolicy", "artifactregistry.repositories.getIamPolicy", "_policy"),
    (rf"/v1/{_REPOSITORY}/[^/]+/dockerImages", "artifactregistry.dockerimages.list", "_images"),
    (rf"/v1/{_PROJECT}/occurrences", "containeranalysis.occurrences.list", "_occurrences"),
)


class _Handler(apiserver._Handler):
    """The transport of the Kubernetes server, with Google's answers."""

    asked: Request

    @property
    def gcp(self) -> GcpServer:
        return self.server.api

    def do_GET(self) -> None:  # noqa: N802
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.asked = Request(self.command, url.path, dict(parse_qsl(url.query)), headers)
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        mints = url.path == TOKENS or url.path.endswith(":generateAccessToken")
        if not mints:
            self.gcp.requests.append(self.asked)
        if self.gcp.latency:
            self.gcp.stopping.wait(self.gcp.latency)
        fault = self.gcp.fault(self.path)
        if fault is not None and fault(self) != "pass":
            return
        if mints:
            self._mint(url.path, data)
        elif self.command != "GET":
            self.reply_error(405, "this server only reads")
        else:
            self._answer(url.path)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - so that a write is seen

    def _answer(self, path: str) -> None:
        if path.startswith("/v3/"):
            self._resource_manager(path)
            return
        for pattern, permission, answer in _ROUTES:
            if match := re.fullmatch(pattern, path):
                self._about_project(match["project"], permission, getattr(self, answer))
                return
        self.reply(404, b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>", "text/html; charset=UTF-8")

    def _about_project(self, place: str, permission: str, answer: Callable[[Project], None]) -> None:
        authorization = self.asked.headers.get("authorization", "")
        if problem := _problem(self.gcp, permission.partition(".")[0], place, permission, authorization):
            code, message, details = problem
            self.reply_error(code, message, *details)
        else:
            project = self.gcp.estate.find(place)
            assert project
            answer(project)

    def _locations(self, project: Project) -> None:
        top = f"projects/{project.id}/locations"
        items = [{"name": f"{top}/{name}", "locationId": name, "displayName": name} for name in LOCATIONS]
        self._page("locations", items)

    def _repositories(self, project: Project) -> None:
        parent = self.asked.path.removeprefix("/v1/")
        self._page("repositories", [item for item in project.repositories if item["name"].startswith(f"{parent}/")])

    def _policy(self, project: Project) -> None:
        name = self.asked.path.removeprefix("/v1/").removesuffix(":getIamPolicy")
        if any(item["name"] == name for item in project.repositories):
            self.reply_json(project.policies.get(name, {"etag": "ACAB"}))
        else:
            self.reply_error(404, "Requested entity was not found.")

    def _images(self, project: Project) -> None:
        parent = self.asked.path.removeprefix("/v1/").removesuffix("/dockerImages")
        [found] = [item for item in project.repositories if item["name"] == parent]
        if found["format"] == "DOCKER":
            held = [item for item in project.images if item["name"].startswith(f"{parent}/dockerImages/")]
            self._page("dockerImages", held)
        else:
            self.reply_error(400, "the repository has another format")

    def _occurrences(self, project: Project) -> None:
        wanted = re.fullmatch(r'kind="([A-Z]+)"', self.asked.query["filter"])
        assert wanted
        self._page("occurrences", [item for item in project.occurrences if item["kind"] == wanted[1]])

    def _resource_manager(self, path: str) -> None:
        what, _, name = path.removeprefix("/v3/").partition("/")
        parent = self.asked.query.get("parent", "")
        permission = f"resourcemanager.{what}.{'get' if name else 'list'}"
        if not self.gcp.knows(self.asked.headers.get("authorization", "")):
            self.reply_error(401, "Request had invalid authentication credentials.", info("ACCESS_TOKEN_INVALID"))
        elif self.gcp.is_denied(permission, name or parent):
            self.reply_error(403, "The caller does not have permission")  # it has no details
        elif name:
            self._project(name)
        else:
            estate = self.gcp.estate
            held: list[Any] = [*estate.projects.values()] if what == "projects" else estate.folders
            self._page(what, [item.wire() for item in held if item.parent == parent])

    def _project(self, name: str) -> None:
        project = self.gcp.estate.find(name)
        if project:
            self.reply_json(project.wire())
        else:
            self.reply_error(403, "The caller does not have permission")

    def _page(self, items: str, found: list[Object]) -> None:
        start = int(self.asked.query.get("pageToken") or 0)
        stop = start + min(self.gcp.page_size, int(self.asked.query.get("pageSize", 1000)))
        page: Object = {items: found[start:stop]} if found[start:stop] else {}  # an empty list is left out
        self.reply_json(page | ({"nextPageToken": str(stop)} if stop < len(found) else {}))

    def _mint(self, path: str, data: bytes) -> None:
        if path == TOKENS:
            self._grant(dict(parse_qsl(data.decode()))["assertion"])
        elif self.gcp.knows(self.asked.headers.get("authorization", "")):
            token, expiry = self.gcp.issue(path.split("/")[-1].removesuffix(":generateAccessToken"))
            when = datetime.fromtimestamp(expiry, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self.reply_json({"accessToken": token, "expireTime": when})
        else:
            self.reply_error(401, "Request had invalid authentication credentials.")

    def _grant(self, assertion: str) -> None:
        try:
            token, _ = self.gcp.issue(self.gcp.verified(assertion))
        except InvalidSignature:
            refused = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            self.reply(400, json.dumps(refused).encode(), "application/json; charset=UTF-8")
            return
        self.reply_json({"access_token": token, "expires_in": self.gcp.token_seconds, "token_type": "Bearer"})

    def reply_error(self, code: int, message: str, *details: Object, name: str = "") -> None:
        error: Object = {"code": code, "message": message, "status": name or _CODES.get(code, "UNKNOWN")}
        if details:
            error["details"] = list(details)
        self.reply(code, json.dumps({"error": error}).encode(), "application/json; charset=UTF-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a large estate until standard input is closed.")
    parser.add_argument("--projects", type=int, default=50)
    parser.add_argument("--clusters", type=int, default=1000, help="in all projects together")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    args = parser.parse_args()
    estate = large_estate(args.projects, args.clusters)
    with GcpServer(estate, latency=args.latency) as gcp, tempfile.TemporaryDirectory() as folder:
        key = gcp.key_file(Path(folder))
        environment = {"GOOGLE_APPLICATION_CREDENTIALS": key}
        place = {"endpoints": gcp.endpoints, "environment": environment, "organization": ORGANIZATION}
        print(json.dumps(place), flush=True)
        sys.stdin.read()
        print(len(gcp.requests))  # for the benchmark, which divides by its rounds


if __name__ == "__main__":
    main()
