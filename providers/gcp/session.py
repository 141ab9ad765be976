"""Google Cloud's calls that read: GKE's over gRPC through google-cloud-container, all others as JSON over HTTP.

Retries and deadlines are our own: Google's client asks a silent server anew for twenty seconds, and gives up at once
where it is told that it asks too often.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from providers.gcp.credentials import ACCOUNT, Credential
from providers.gcp.errors import GcpError, UsageError, WriteRefused, refusal
from scanner import __project__, __version__
from scanner.model import GapReason
from scanner.plain import plain

Json = dict[str, Any]
T = TypeVar("T")

SERVICES = ("container", "artifactregistry", "containeranalysis", "cloudresourcemanager", "iamcredentials")
ATTEMPTS = {429: 8, 502: 4, 503: 4}  # by status; all others are asked once. Quotas are counted by the minute
LONGEST_WAIT = 20.0
MAX_BODY = 256 * 1024 * 1024
MAX_PAGES = 10_000
_PAGE_SIZE = 1000
_STEP = 1024 * 1024
_NAME = r"(?!\.)[\w.-]+"  # nothing that a server could decode into other parts of a path
_PROJECT_NAME = r"(?:[\w-]+(?:\.[\w-]+)+:)?[\w-]+"  # old ones start with a domain
_CALLS = frozenset({"/google.container.v1.ClusterManager/ListClusters"})
_PATHS = {
    "artifactregistry": re.compile(
        rf"/v1/projects/{_PROJECT_NAME}/locations"
        rf"(?:/{_NAME}/repositories(?:/{_NAME}(?::getIamPolicy|/dockerImages))?)?",
        re.ASCII,
    ),
    "containeranalysis": re.compile(rf"/v1/projects/{_PROJECT_NAME}/occurrences", re.ASCII),
    "cloudresourcemanager": re.compile(rf"/v3/(?:folders|projects(?:/{_PROJECT_NAME})?)", re.ASCII),
}
PROJECT_ID = re.compile(r"(?:[a-z0-9.-]{1,100}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_NETLOC = re.compile(r"[\w.-]+(?::\d+)?|\[[\da-f:.]+\](?::\d+)?", re.ASCII)  # without a user
_NO_CONNECTION = re.compile(r"failed to connect|dns resolution|socket closed|connection|recvmsg|handshake|goaway", re.I)
_TOO_LARGE = re.compile(r"message larger than max", re.I)


def check_project(text: str) -> str:
    """The id of a project. Raises UsageError."""
    if not PROJECT_ID.fullmatch(text):
        raise UsageError(f"{plain(text)[:100]!r} is no id of a project: my-project-123 is one (not its name or number)")
    return text


def check_parent(kind: str, text: str) -> str:
    """The resource name of an organization or folder, given by its number. Raises UsageError."""
    number = text.removeprefix(f"{kind}s/")
    if not re.fullmatch(r"[0-9]{1,25}", number):
        raise UsageError(f"--{kind} {plain(text)[:100]!r} is no {kind}: it takes its number, such as 123456789012")
    return f"{kind}s/{number}"


def check_endpoint(service: str, url: str) -> str:
    """Where tokens may be sent to in place of Google's own address: https, or http to this machine. Raises
    UsageError."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        usable = (
            bool(_NETLOC.fullmatch(parts.netloc)) and parts.port != 0 and not (parts.path.strip("/") or parts.query)
        )
    except ValueError:
        usable = False
    if service not in SERVICES or not usable or parts.scheme not in ("http", "https") or "#" in url:
        raise UsageError(f"{plain(service)}={plain(url)!r} is no endpoint: container=https://host[:port] is one")
    if parts.scheme == "http" and not _loopback(host):
        raise UsageError(f"{service}={plain(url)!r}: http would show the token on the network; use https")
    return f"{parts.scheme}://{parts.netloc}"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Listed:
    """GKE's list of a project's clusters, as its REST API writes it. Beside a cluster that is not understood stands
    why: then there is nothing of it but name, location, zone and resourceLabels."""

    clusters: list[tuple[Json, GcpError | None]]
    missing_zones: list[str]


class Session:
    """One identity in Google Cloud. May be used by many threads, once it is logged in."""

    credential: Credential

    def __init__(
        self,
        *,
        impersonate: str | None = None,
        endpoints: Mapping[str, str] | None = None,
        request_timeout: float,
        connections: int,
    ) -> None:
        """`endpoints` are URLs in place of Google's own, by service. Raises UsageError."""
        if impersonate is not None and not ACCOUNT.fullmatch(impersonate):
            offer = "audit@my-project.iam.gserviceaccount.com is one"
            raise UsageError(f"--impersonate {plain(impersonate)[:100]!r} is no service account: {offer}")
        self._acts_as = impersonate
        self._endpoints = {service: check_endpoint(service, url) for service, url in (endpoints or {}).items()}
        self._timeout = request_timeout
        self._http = _http(connections)
        self._channel: Any = None
        self._gke: Any = None

    def close(self) -> None:
        self._http.close()
        if self._channel is not None:
            self._channel.close()

    def log_in(self) -> None:
        """Raises GcpError where there is no usable credential, before anything is asked with it."""
        self.credential = Credential(
            self._http,
            impersonate=self._acts_as,
            iam=self._endpoints.get("iamcredentials"),
            request_timeout=self._timeout,
        )
        self.credential.headers()
        self._channel, self._gke = _cluster_manager(self._endpoint("container"))

    @property
    def project(self) -> str | None:
        """The one that the credentials or the environment name."""
        return self.credential.project

    def _endpoint(self, service: str) -> str:
        return self._endpoints.get(service) or f"https://{service}.{self.credential.universe}"

    # -- GKE ----------------------------------------------------------------------------------------------------------

    def clusters(self, project: str) -> Listed:
        """Those of all locations of a project. Raises GcpError."""
        request = {"parent": f"projects/{project}/locations/-"}
        permission = "container.clusters.list"
        answer = self._patiently(lambda headers: self._call("list_clusters", request, headers, permission))
        return Listed([_understood(cluster) for cluster in answer.clusters], list(answer.missing_zones))

    def _call(self, method: str, request: Json, headers: Mapping[str, str], permission: str) -> Any:
        from google.api_core.exceptions import GoogleAPICallError
        from google.protobuf.message import DecodeError

        try:
            answer = getattr(self._gke, method)(
                request=request, retry=None, timeout=self._timeout, metadata=list(headers.items())
            )
        except GoogleAPICallError as error:
            raise _refused_call(error, permission) from None
        except WriteRefused as error:
            raise GcpError(GapReason.BAD_DATA, str(error)) from None
        except (DecodeError, ValueError) as error:  # of a status whose details are not what they should be
            detail = f"the answer of GKE is not understood ({type(error).__name__})"
            raise GcpError(GapReason.BAD_DATA, detail) from None
        return type(answer).pb(answer)

    # -- everything else ----------------------------------------------------------------------------------------------

    def get(self, service: str, path: str, permission: str, **query: str | int) -> Json:
        """One object. Raises GcpError."""
        return self._patiently(lambda headers: self._get(service, path, query, headers, permission))

    def pages(self, service: str, path: str, items: str, permission: str, **query: str | int) -> Iterator[list[Any]]:
        """Every page of a list. Raises GcpError, also for an answer that is no list, and after the last page where
        Google says that places are missing."""
        seen: set[str] = set()
        missing: object = None
        query["pageSize"] = _PAGE_SIZE
        while len(seen) < MAX_PAGES:
            answer = self.get(service, path, permission, **query)
            # Google leaves an empty list out. What is there in its place is then nothing at all.
            page = answer.get(items, None if answer.keys() - {"nextPageToken", "unreachable"} else [])
            if not isinstance(page, list):
                raise GcpError(GapReason.BAD_DATA, f"the answer holds no list {items!r}")
            yield page
            token, missing = answer.get("nextPageToken"), answer.get("unreachable") or missing
            if token is None or token == "":
                break
            if not isinstance(token, str):
                raise GcpError(GapReason.BAD_DATA, "the answer names no page that could follow")
            if token in seen:
                raise GcpError(GapReason.BAD_DATA, "the pages go round in circles")
            seen.add(token)
            query["pageToken"] = token
        else:
            raise GcpError(GapReason.BAD_DATA, f"the list has more than {MAX_PAGES:,} pages")
        if missing:
            detail = f"Google could not say what is in {plain(str(missing)[:200])}"
            raise GcpError(GapReason.LOCATION_MISSING, detail)

    def _get(
        self, service: str, path: str, query: Mapping[str, str | int], headers: Mapping[str, str], permission: str
    ) -> Json:
        try:
            check_path(service, path)
        except WriteRefused as error:
            raise GcpError(GapReason.BAD_DATA, str(error)) from None
        code, body = self._exchange(f"{self._endpoint(service)}{path}", query, headers)
        if code != 200:
            raise _refused_request(code, body, service, permission)
        return _object(body)

    def _exchange(self, url: str, query: Mapping[str, str | int], headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body, in time and of a bearable size. Raises GcpError."""
        import requests
        import urllib3

        until = time.monotonic() + self._timeout
        # To this machine a token travels without TLS: never by way of a proxy.
        direct = {"proxies": {"http": ""}} if url.startswith("http:") else {}
        try:
            with self._http.get(
                url,
                params=query,
                headers={**headers, "Accept": "application/json"},
                timeout=(min(self._timeout, 10), self._timeout),
                allow_redirects=False,
                stream=True,
                **direct,
            ) as response:
                return response.status_code, _body(response.raw, until)
        except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
            raise GcpError(GapReason.TIMEOUT, f"Google did not answer: {plain(str(error))}") from None
        except (OSError, urllib3.exceptions.HTTPError) as error:
            detail = f"Google could not be asked: {plain(str(error))}"
            raise GcpError(GapReason.UNREACHABLE, detail, code=503) from None

    # -- patience -----------------------------------------------------------------------------------------------------

    def _patiently(self, ask: Callable[[Mapping[str, str]], T]) -> T:
        """Asks again what may succeed later, and once where a token is refused. All answers together may take as long
        as one."""
        tried, spent, renewed = 0, 0.0, False
        while True:
            headers = self.credential.headers()
            started = time.monotonic()
            try:
                return ask(headers)
            except GcpError as error:
                spent += time.monotonic() - started
                if error.code == 401 and not renewed:
                    renewed = True
                    self.credential.renew(headers)
                    continue
                tried += 1
                if tried >= ATTEMPTS.get(error.code, 1) or spent >= self._timeout:
                    raise
                time.sleep(_pause(tried, error.wait))


def _pause(tried: int, wait: float | None) -> float:
    """Seconds until the next attempt: twice as long each time, and not the same for all threads."""
    usual: float = 0.5 * 2 ** (tried - 1)
    return min(usual if wait is None else max(wait, 0.1), LONGEST_WAIT) * random.uniform(0.75, 1.25)  # noqa: S311


def check_path(service: str, path: str) -> None:
    """Raises WriteRefused for whatever is not among the few paths that are read."""
    allowed = _PATHS.get(service)
    if allowed is None or not allowed.fullmatch(path):
        raise WriteRefused(f"refused to ask {plain(service)} for {plain(path)[:100]}")


def _http(connections: int) -> Any:
    import requests
    from requests.adapters import HTTPAdapter

    http = requests.Session()
    adapter = HTTPAdapter(pool_maxsize=connections, max_retries=0)
    http.mount("https://", adapter)
    http.mount("http://", adapter)
    http.headers["User-Agent"] = f"{__project__}/{__version__}"
    http.auth = lambda request: request  # else ~/.netrc counts, and could take the place of the token
    return http


def _cluster_manager(endpoint: str) -> tuple[Any, Any]:
    """A channel that all threads share, and GKE's client on it."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it has to say on standard error is in the errors it raises
    for name in ("google", "grpc"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    import grpc
    from google.cloud.container_v1.services.cluster_manager import ClusterManagerClient
    from google.cloud.container_v1.services.cluster_manager.transports import ClusterManagerGrpcTransport

    parts = urlsplit(endpoint)
    options = [
        ("grpc.max_receive_message_length", MAX_BODY),
        ("grpc.primary_user_agent", f"{__project__}/{__version__}"),
        ("grpc.enable_http_proxy", int(parts.scheme == "https")),
    ]
    if parts.scheme == "https":
        target = parts.netloc if parts.port else f"{parts.netloc}:443"
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(_authorities()), options)
    else:  # to this machine only, see check_endpoint
        channel = grpc.insecure_channel(parts.netloc, options)
    guarded = grpc.intercept_channel(channel, _guard(grpc.UnaryUnaryClientInterceptor))
    return channel, ClusterManagerClient(transport=ClusterManagerGrpcTransport(channel=guarded))


def as_json(message: Any) -> Json:
    """A protobuf message as Google's REST API writes it: a field that is there stays there, also if it is empty; an
    enum value that is not known stays a number. Raises GcpError."""
    from google.protobuf.json_format import MessageToDict, SerializeToJsonError

    try:
        found: Json = MessageToDict(message)
    except (SerializeToJsonError, TypeError, ValueError) as error:
        detail = f"the answer of GKE is not understood ({type(error).__name__})"
        raise GcpError(GapReason.BAD_DATA, detail) from None
    return found


def _understood(cluster: Any) -> tuple[Json, GcpError | None]:
    try:
        return as_json(cluster), None
    except GcpError as error:
        labels = dict(cluster.resource_labels)
        known = {"name": cluster.name, "location": cluster.location, "zone": cluster.zone, "resourceLabels": labels}
        return known, error


def _guard(interceptor: Any) -> Any:
    """Comes last before the wire: raises WriteRefused for whatever is not among the few methods that are called."""

    class ReadOnly(interceptor):  # type: ignore[misc]
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            if details.method not in _CALLS:
                raise WriteRefused(f"refused to call {plain(str(details.method))}")
            return continuation(details, request)

    return ReadOnly()


def _authorities() -> bytes | None:
    """Those that requests believes, where the environment names some; else gRPC's own. Raises GcpError."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or ""
    if not bundle or os.path.isdir(bundle):
        return None
    try:
        with open(bundle, "rb") as file:
            return file.read()
    except OSError as error:
        raise GcpError(GapReason.NOT_CONFIGURED, f"the certificates cannot be read: {plain(str(error))}") from None


def _refused_call(error: Any, permission: str) -> GcpError:
    """What gRPC says of a call that was not fulfilled."""
    status = getattr(error.grpc_status_code, "name", "UNKNOWN")
    message = str(error.message)
    if _TOO_LARGE.search(message):  # of which gRPC says that a quota is exhausted
        return GcpError(GapReason.BAD_DATA, "the answer of GKE is too large")
    if status == "INTERNAL" and "deserializing response" in message:
        return GcpError(GapReason.BAD_DATA, "the answer of GKE is not understood")
    if status == "UNAVAILABLE" and _NO_CONNECTION.search(message):
        return GcpError(GapReason.UNREACHABLE, f"Google could not be asked: {plain(message)}", code=503)
    code = int(error.code or 500)
    return refusal(code, status, message, _details(error), service="container", permission=permission)


def _details(error: Any) -> list[Json]:
    """Those that say why, in the form that they have in JSON."""
    from google.protobuf.json_format import MessageToDict

    kinds = ("google.rpc.ErrorInfo", "google.rpc.RetryInfo")  # others may be of types that are not known here
    known = [detail for detail in error.details if detail.DESCRIPTOR.full_name in kinds]
    return [{"@type": detail.DESCRIPTOR.full_name, **MessageToDict(detail)} for detail in known]


def _refused_request(code: int, body: bytes, service: str, permission: str) -> GcpError:
    """What an HTTP answer says of a request that was not fulfilled."""
    try:
        error = _object(body).get("error")
    except GcpError:
        error = None
    error = error if isinstance(error, dict) else {}
    details = error.get("details")
    return refusal(
        code,
        f"HTTP {code} {error.get('status') or ''}".rstrip(),
        str(error.get("message") or ""),
        details if isinstance(details, list) else (),
        service=service,
        permission=permission,
    )


def _body(raw: Any, until: float) -> bytes:
    """All of an answer. Time-outs of single reads never fire on a server that sends a byte now and then."""
    parts: list[bytes] = []
    size = 0
    while part := raw.read1(_STEP, decode_content=True):
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            raise GcpError(GapReason.BAD_DATA, "the answer is too large")
        if time.monotonic() > until:
            raise TimeoutError("the answer took too long")
    return b"".join(parts)


def _object(body: bytes) -> Json:
    try:
        return msgspec.json.decode(body, type=Json)
    except (ValueError, RecursionError):  # msgspec.DecodeError is a ValueError, as is what is not UTF-8
        start = body[:40].decode("utf-8", "replace")
        raise GcpError(GapReason.BAD_DATA, f"the answer is no JSON object (it starts {plain(start)!r})") from None
