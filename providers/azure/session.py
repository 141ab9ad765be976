"""Azure Resource Manager: GET with wire JSON for an answer, and the two POSTs that read. Nothing else leaves.

The client is azure-mgmt-containerservice's, with a pipeline of our own: its default one registers resource providers,
which is a write, and follows links to any host with the bearer token attached.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from providers import bounded, proxies
from providers.azure.credentials import Cloud, Credential, explain
from providers.azure.errors import ArmError, UsageError, WriteRefused
from scanner import __project__, __version__
from scanner.model import GapReason
from scanner.plain import plain

Json = dict[str, Any]

LONGEST_WAIT = 20.0  # seconds that a Retry-After, or a quota that is used up, is waited for
ATTEMPTS = 4
MAX_PAGES = 10_000
WHOLE_ANSWER = 10  # times the read time-out: what a server that sends a byte now and then may take
CREDENTIALS = "listClusterUserCredential"
GRAPH = "/providers/Microsoft.ResourceGraph/resources"
GRAPH_VERSION = "2021-03-01"
_NAME = r"(?!\.+/)[\w.()-]+"  # nothing that a server could decode into other parts of a path
_POST = re.compile(
    rf"/subscriptions/{_NAME}/resourceGroups/{_NAME}/providers/Microsoft\.ContainerService/managedClusters/{_NAME}/{CREDENTIALS}"
    rf"|{re.escape(GRAPH)}",
    re.IGNORECASE,
)
_HOST = re.compile(r"[\w.-]+(:\d+)?|\[[\da-f:.]+\](:\d+)?", re.IGNORECASE)  # without a user, a backslash and the like
# Before these, fields that checks read did not exist: their absence would be taken for a good default.
OLDEST = {
    "microsoft.containerservice/managedclusters": "2023-01-01",
    "microsoft.containerregistry/registries": "2025-04-01",
}
_SUPPORTED = re.compile(r"supported (?:api-versions|versions) are '([^']+)'", re.IGNORECASE)
_ACTION = re.compile(r"to perform action '([\w./*-]+)'")
_TRANSIENT = {429: GapReason.THROTTLED, 408: GapReason.TIMEOUT}
_VERSION_CODES = frozenset({"NoRegisteredProviderFound", "InvalidApiVersionParameter", "InvalidResourceType"})


def check_endpoint(url: str) -> str:
    """An --arm-endpoint that tokens may be sent to: https, or http to this machine. Raises UsageError."""
    scheme, host, port = _origin(url)
    if scheme not in ("http", "https") or not port or urlsplit(url).path.strip("/") or "?" in url or "#" in url:
        raise UsageError(f"--arm-endpoint {plain(url)!r} is not an https://host[:port] URL")
    if scheme == "http" and not _loopback(host):
        raise UsageError(f"--arm-endpoint {plain(url)!r}: http would show the token on the network; use https")
    return f"{scheme}://{urlsplit(url).netloc}"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Session:
    """One identity at one Resource Manager. May be used by many threads."""

    def __init__(
        self, cloud: Cloud, *, tenant: str | None, endpoint: str | None, request_timeout: float, connections: int
    ) -> None:
        from azure.mgmt.containerservice import ContainerServiceClient

        self.endpoint = check_endpoint(cloud.arm if endpoint is None else endpoint)
        if problem := proxies.unusable():
            raise UsageError(problem)
        self.credential = Credential(cloud, tenant)
        self._scope = cloud.scope
        self._versions: dict[str, str] = {}  # api-versions that this cloud has in place of the usual ones
        self._quota_resets = 0.0  # by time.monotonic(): when Resource Graph may be asked again
        self._seconds = WHOLE_ANSWER * request_timeout
        self._options: dict[str, Any] = {
            "connection_timeout": min(request_timeout, 10),
            "read_timeout": request_timeout,
            "retry_on_methods": ["GET", "POST"],  # as the POSTs that leave only read
        }
        if self.endpoint.startswith("http:"):
            self._options["enforce_https"] = False  # to this machine only, see check_endpoint
        self._client = ContainerServiceClient(
            credential=self.credential,
            subscription_id="-",
            base_url=self.endpoint,
            credential_scopes=[cloud.scope],
            policies=_policies(self.credential, cloud.scope, self.endpoint),
            transport=transport(self.endpoint, connections, self._seconds),
        )

    def close(self) -> None:
        self._client.close()
        self.credential.close()

    def log_in(self) -> None:
        """Raises ArmError where there is no usable credential, before anything is asked with it."""
        self.credential.token(self._scope)

    def get(self, path: str, version: str, query: Mapping[str, str] | None = None) -> Json:
        """One object. Raises ArmError."""
        return self._ask("GET", f"{self.endpoint}{path}", version, query)

    def post(self, path: str, version: str) -> Json:
        """For listClusterUserCredential, which only reads; the guard refuses any other. Raises ArmError."""
        return self._ask("POST", f"{self.endpoint}{path}", version, None)

    def graph(self, query: Json) -> Json:
        """One page of what Resource Graph finds, after a wait where its last answer used up the quota. Raises
        ArmError."""
        time.sleep(max(0.0, min(self._quota_resets - time.monotonic(), LONGEST_WAIT)))
        return self._ask("POST", f"{self.endpoint}{GRAPH}", GRAPH_VERSION, None, query)

    def pages(self, path: str, version: str, items: str = "value") -> Iterator[list[Any]]:
        """Every page of a list. Raises ArmError, also for an answer that is no list: that is never an empty one."""
        body = self.get(path, version)
        asked: set[str] = set()
        while len(asked) < MAX_PAGES:
            page = body.get(items)
            if not isinstance(page, list):
                raise ArmError(GapReason.BAD_DATA, f"the answer holds no list {items!r}", status=200)
            yield page
            link = body.get("nextLink")
            if link is None or link == "":
                return
            url = self._same_host(link)
            if url in asked:
                raise ArmError(GapReason.BAD_DATA, "the list leads back to a page that was already read")
            asked.add(url)
            body = self._ask("GET", url, "", None)
        raise ArmError(GapReason.BAD_DATA, f"the list has more than {MAX_PAGES:,} pages")

    def _same_host(self, link: object) -> str:
        if isinstance(link, str) and _origin(link) == _origin(self.endpoint):
            return link
        raise ArmError(
            GapReason.BAD_DATA,
            f"the next page is said to be at another host ({plain(str(link))[:100]}), so it was not asked for",
        )

    def _ask(
        self, method: str, url: str, version: str, query: Mapping[str, str] | None, body: Json | None = None
    ) -> Json:
        kind = _kind_of(url)
        asked = self._versions.get(kind, version) if version else ""
        try:
            return self._answer(method, url, asked, query, body)
        except ArmError as error:
            newest = _newest_supported(error, OLDEST.get(kind, ""))
            if not asked or not newest or newest == asked:
                raise
        self._versions[kind] = newest
        return self._answer(method, url, newest, query, body)

    def _answer(self, method: str, url: str, version: str, query: Mapping[str, str] | None, body: Json | None) -> Json:
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.core.rest import HttpRequest

        parameters = {**({"api-version": version} if version else {}), **(query or {})}
        try:
            for last in (False, True):
                request = HttpRequest(method, url, params=parameters, headers={"Accept": "application/json"}, json=body)
                response = self._client.send_request(request, **self._options)
                if response.status_code != 401 or last:
                    break  # the pipeline has dropped the refused token: the second attempt has a new one
            if response.status_code != 200:
                raise _refusal(response)
            if wait := _quota_wait(response.headers):
                self._quota_resets = time.monotonic() + wait
            return _object(response)
        except WriteRefused as error:
            raise ArmError(GapReason.BAD_DATA, str(error)) from None
        except bounded.Endless as error:
            raise self._endless(error) from None
        except ClientAuthenticationError as error:
            raise ArmError(GapReason.NOT_CONFIGURED, explain(str(error), None)) from None
        except AzureError as error:
            raise _failure(error) from None

    def _endless(self, error: bounded.Endless) -> ArmError:
        if error.slow:
            return ArmError(GapReason.TIMEOUT, f"Azure did not finish its answer within {self._seconds:g} s")
        return ArmError(GapReason.BAD_DATA, f"Azure sent an answer of more than {bounded.MAX_BODY >> 20} MiB")


def _policies(credential: Credential, scope: str, endpoint: str) -> list[Any]:
    """Retries, then a token, then the guard: nothing comes between it and the wire."""
    from azure.core.exceptions import ServiceResponseError
    from azure.core.pipeline import policies as core
    from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

    class Patience(core.RetryPolicy[Any, Any]):
        def get_retry_after(self, response: Any) -> float | None:
            try:
                seconds = super().get_retry_after(response)
            except (TypeError, ValueError, OverflowError):  # neither seconds nor a date
                return None
            seconds = seconds or _quota_wait(response.http_response.headers)
            return min(seconds, LONGEST_WAIT) if seconds else seconds

    class Token(ARMChallengeAuthenticationPolicy):
        def on_request(self, request: Any) -> None:
            try:
                super().on_request(request)
            except AttributeError:  # another thread has just dropped the token, as it was refused
                super().on_request(request)

    class ReadOnly(core.HTTPPolicy[Any, Any]):
        def send(self, request: Any) -> Any:
            check_request(request.http_request.method, request.http_request.url, endpoint)
            try:
                return self.next.send(request)
            except OSError as error:  # the transport lets some of them through, such as a time-out within a body
                raise ServiceResponseError(str(error), error=error) from error

    return [
        core.RequestIdPolicy(),
        core.UserAgentPolicy(f"{__project__}/{__version__}"),
        Patience(
            retry_total=ATTEMPTS - 1,
            retry_connect=1,
            retry_read=1,
            retry_backoff_factor=0.4,
            retry_backoff_max=LONGEST_WAIT,
        ),
        Token(credential, scope),
        ReadOnly(),
    ]


def check_request(method: str, url: str, endpoint: str) -> None:
    """Raises WriteRefused for whatever might change something, and for any other host."""
    if _origin(url) != _origin(endpoint):
        raise WriteRefused(f"refused to send a token to {plain(url)[:100]}")
    path = urlsplit(url).path
    if method != "GET" and not (method == "POST" and _POST.fullmatch(path)):
        raise WriteRefused(f"refused to send {plain(method)} {plain(path)}")


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port. All empty for what the HTTP client might read otherwise: it sees the host before the `\\`
    of http://host\\@other/, and urlsplit the one after it."""
    try:
        parts = urlsplit(url)
        if not (url.isprintable() and url == url.strip() and _HOST.fullmatch(parts.netloc)):
            return "", "", None
        port = {"https": 443, "http": 80}.get(parts.scheme) if parts.port is None else parts.port
        return parts.scheme, (parts.hostname or "").lower(), port
    except ValueError:
        return "", "", None


def transport(endpoint: str, connections: int, seconds: float) -> Any:
    """Keeps as many connections as there are readers; the default of ten would close and open the others anew.
    `seconds` is what one answer may take."""
    import requests
    from azure.core.pipeline.transport import RequestsTransport

    session = requests.Session()
    adapter = _adapter(bounded.for_each_answer(seconds), connections)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # The environment's proxies and CA are looked up here, and not for each request, where ~/.netrc would count too and
    # could take the place of the token.
    found = session.merge_environment_settings(endpoint, {}, None, None, None)
    # To this machine the token travels without TLS: never by way of a proxy.
    session.trust_env, session.proxies = False, {} if endpoint.startswith("http:") else found["proxies"]
    verify = True if found["verify"] is None else found["verify"]
    return RequestsTransport(session=session, connection_verify=verify)


def _adapter(limit: Callable[[], bounded.Limit], connections: int) -> Any:
    from requests.adapters import HTTPAdapter

    lock = threading.Lock()

    class Adapter(HTTPAdapter):  # type: ignore[misc, unused-ignore]
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options)
            self._bound(self.poolmanager)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            with lock:
                new = proxy not in self.proxy_manager
                manager = super().proxy_manager_for(proxy, **options)
                if new:
                    self._bound(manager)
            return manager

        def _bound(self, manager: Any) -> None:
            manager.pool_classes_by_scheme = bounded.pool_classes(manager.pool_classes_by_scheme, limit)

        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            """Reads the body here, as requests itself would decode any number of bytes."""
            response = super().send(request, *args, **options)
            parts, size = [], 0
            for part in response.iter_content(64 * 1024):
                parts.append(part)
                size += len(part)
                if size > bounded.MAX_BODY:
                    response.close()
                    raise bounded.Endless(slow=False)
            response._content = b"".join(parts)
            return response

    return Adapter(pool_connections=1, pool_maxsize=connections, max_retries=0)


def _quota_wait(headers: Mapping[str, str]) -> int:
    """Seconds until Resource Graph takes the next query; 0 where it takes one now, or does not say."""
    left = headers.get("x-ms-user-quota-remaining", "").strip()
    resets = re.fullmatch(r"(\d{1,2}):(\d\d):(\d\d)", headers.get("x-ms-user-quota-resets-after", "").strip())
    if left != "0" or not resets:
        return 0
    hours, minutes, seconds = map(int, resets.groups())
    return hours * 3600 + minutes * 60 + seconds


def _kind_of(url: str) -> str:
    """The resource type of a path: what api-versions belong to."""
    parts = urlsplit(url).path.lower().rpartition("/providers/")[2].split("/")
    return "/".join(parts[:1] + parts[1::2])


def _newest_supported(error: ArmError, oldest: str) -> str:
    """The newest api-version that a refusal offers, a stable one if there is any, and none that is too old."""
    match = _SUPPORTED.search(error.detail) if error.code in _VERSION_CODES else None
    named = re.findall(r"\d{4}-\d{2}-\d{2}(?:-[a-z]+)?", match[1]) if match else []
    offered = [version for version in named if version >= oldest]
    stable = [version for version in offered if len(version) == len("2026-01-01")]
    return max(stable or offered, default="")


def _refuse_number(text: str) -> None:
    """NaN and Infinity are no JSON, and a bundle could not hold them."""
    raise ValueError(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse_number(text)
    return value


def _object(response: Any) -> Json:
    try:
        body = json.loads(response.content, parse_constant=_refuse_number, parse_float=_finite)
        if b"\\ud" in response.content.lower():  # may be half a character, which no report could hold
            body = json.loads(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        start = response.content[:40].decode("utf-8", "replace")
        raise ArmError(GapReason.BAD_DATA, f"the answer is not JSON (it starts {plain(start)!r})", status=200) from None
    if not isinstance(body, dict):
        raise ArmError(GapReason.BAD_DATA, f"the answer is a {type(body).__name__} and not an object", status=200)
    return body


def _refusal(response: Any) -> ArmError:
    """What ARM says of a request that it did not fulfil."""
    status: int = response.status_code
    try:
        error = _object(response).get("error")
    except ArmError:
        error = None
    error = error if isinstance(error, dict) else {}
    details = error.get("details")
    unnamed = error.get("code") in ("BadRequest", None)
    if unnamed and isinstance(details, list) and details and isinstance(details[0], dict):
        error = details[0]  # where Resource Graph says what is wrong
    code, message = str(error.get("code") or ""), str(error.get("message") or "")
    action = _ACTION.search(message)
    if status in (401, 403):
        reason = GapReason.FORBIDDEN
    elif status == 404:
        reason = GapReason.NOT_FOUND
    else:
        reason = _TRANSIENT.get(status, GapReason.SERVER_ERROR if status >= 500 else GapReason.BAD_DATA)
    said = f" ({code}): {message}" if code else ""
    # Version lists are long, and are read from the sentence: they may not be cut off.
    detail = message[:4000] if code in _VERSION_CODES else plain(f"HTTP {status}{said}")
    return ArmError(reason, detail, status=status, code=code, action=action[1] if action else "")


def _failure(error: Exception) -> ArmError:
    """What happened on the way to ARM or back."""
    from azure.core import exceptions as azure

    timeouts = (azure.ServiceRequestTimeoutError, azure.ServiceResponseTimeoutError)
    silent = isinstance(error, timeouts) or "timed out" in str(error).lower()
    reason = GapReason.TIMEOUT if silent else GapReason.UNREACHABLE
    return ArmError(reason, f"Azure did not answer: {plain(str(error))}")
