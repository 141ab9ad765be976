"""HTTPS to what is no cloud: only to hosts that were named, without redirects, and with answers that end."""

from __future__ import annotations

import functools
import ipaddress
import math
import os
import random
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from providers import proxies
from providers.bounded import Endless, Limit, pool_classes
from providers.errors import CloudError
from scanner import __project__, __version__
from scanner.model import GapReason
from scanner.plain import plain

_ATTEMPTS = 5
_BACKOFF = 0.5  # seconds before the second attempt, doubled for each further one
_LONGEST_WAIT = 10.0
_CONNECT_TIMEOUT = 10.0
_WHOLE_ANSWER = 4  # times the read time-out: what a server that sends a byte now and then may take
_HEADERS = 256 * 1024  # bytes that an answer may have beside its body
_STEP = 1024 * 1024
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.IGNORECASE | re.ASCII)
_TRANSIENT = {429: GapReason.THROTTLED} | dict.fromkeys((502, 503, 504), GapReason.SERVER_ERROR)
_NO_LOGIN = "Tunnel connection failed: 407"  # as http.client says it
_REASONS = {401: GapReason.FORBIDDEN, 403: GapReason.FORBIDDEN, 404: GapReason.NOT_FOUND} | _TRANSIENT


class HttpError(CloudError):
    """A request that got no usable answer. `status` is the HTTP status, if there was one; `too_large` that less might
    be answered."""

    def __init__(
        self,
        reason: GapReason,
        detail: str,
        status: int | None = None,
        *,
        retry: bool = False,
        wait: float | None = None,
        too_large: bool = False,
    ) -> None:
        super().__init__(reason, detail)
        self.status = status
        self.retry = retry  # whether the same request may succeed later
        self.wait = wait  # after how many seconds, if the server said so
        self.too_large = too_large


class UsageError(Exception):
    """An address, token or file that cannot be used: one sentence that says what would be right."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in any case
    body: bytes
    whole: bool = True  # False where the body was left out


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether that is an address of this machine: the only kind that is talked to without TLS."""
    return is_address(host) and ipaddress.ip_address(host).is_loopback


def is_host(host: str) -> bool:
    """Whether that can be the host of a URL: an address, or a name that DNS takes (RFC 1035, section 2.3.4)."""
    return is_address(host) or bool(_NAME.fullmatch(host.removesuffix(".")) and len(host) < 255)


def check_url(url: str) -> str:
    """https://host[:port], or http to an address of this machine; raises UsageError."""
    try:
        parts = urlsplit(url)
        usable = is_host(parts.hostname or "") and parts.port != 0 and not (parts.path.strip("/") or parts.query)
    except ValueError:
        usable = False
    shown = plain(url.rpartition("@")[2])[:100]  # before it may be a password
    if not usable or not url.isascii() or not url.isprintable() or set("@#\\ ") & set(url):
        raise UsageError(f"{shown!r} is no address: https://example.jfrog.io is one")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise UsageError(f"{shown!r}: credentials are never sent unencrypted: use https")
    return f"{parts.scheme}://{parts.netloc.lower()}"


class Http:
    """Requests to a few servers. For one thread."""

    def __init__(self, request_timeout: float, deadline: float | None = None, *, attempts: int = _ATTEMPTS) -> None:
        """`request_timeout` is how long a server may be silent, in seconds; `deadline` the time.monotonic() at which
        everything ends; `attempts` how often a request is sent at most."""
        self.sleep = time.sleep  # replaced in tests
        self._timeout = request_timeout
        self._attempts = attempts
        self._deadline = math.inf if deadline is None else deadline
        self._limit = Limit()
        self._managers: dict[str, Any] = {}

    def close(self) -> None:
        for manager in self._managers.values():
            manager.clear()

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        most: int,
        whole: bool = True,
    ) -> Answer:
        """The answer, of whatever status, with a body of at most `most` bytes. Raises HttpError, also for a body that
        is longer, or encoded; unless `whole` is False: then such a body is left out.

        429, 502 to 504 and broken connections are tried again, never past the deadline: so nothing may be asked that
        must not be done twice.
        """
        for attempt in range(1, self._attempts):
            try:
                return self._ask_once(method, url, headers, body, most, whole)
            except HttpError as error:
                if not error.retry:
                    raise
                self._wait(attempt, error)
        return self._ask_once(method, url, headers, body, most, whole)

    def _wait(self, attempt: int, error: HttpError) -> None:
        seconds = error.wait or _BACKOFF * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - only jitter
        seconds = min(seconds, _LONGEST_WAIT)
        if time.monotonic() + seconds >= self._deadline:
            raise error
        self.sleep(seconds)

    def _ask_once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, most: int, whole: bool
    ) -> Answer:
        answer = self._exchange(method, url, headers, body, most, whole)
        if answer.status in _TRANSIENT:
            raise refusal(url, answer)
        return answer

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, most: int, whole: bool
    ) -> Answer:
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        now = time.monotonic()
        if now >= self._deadline:
            raise HttpError(GapReason.TIMEOUT, f"the time was up before {_host(url)} was asked")
        self._limit.at = min(now + _WHOLE_ANSWER * self._timeout, self._deadline)
        self._limit.size = most + _HEADERS
        left = self._limit.at - now
        response = None
        try:
            response = self._manager(url).request(
                method,
                url,
                body=body,
                headers={"User-Agent": f"{__project__}/{__version__}", "Accept-Encoding": "identity", **headers},
                timeout=Timeout(connect=min(_CONNECT_TIMEOUT, left), read=min(self._timeout, left)),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            return _answer(response, most, whole)
        except HTTPError as error:
            raise _failure(url, error) from error
        except Endless as error:
            reason = GapReason.TIMEOUT if error.slow else GapReason.BAD_DATA
            raise HttpError(reason, f"{_host(url)}: {error}", too_large=not error.slow) from None
        except ValueError as error:  # a chunk size, length or encoding that cannot be
            detail = f"{_host(url)} sent an answer that cannot be read: {plain(str(error))}"
            raise HttpError(GapReason.BAD_DATA, detail) from error
        finally:
            if response is not None:
                response.close()

    def _manager(self, url: str) -> Any:
        """A pool for one server, by way of the environment's proxy unless it is on this machine."""
        origin = "://".join(urlsplit(url)[:2])
        if origin not in self._managers:
            manager = _open(origin)
            manager.pool_classes_by_scheme = pool_classes(manager.pool_classes_by_scheme, lambda: self._limit)
            self._managers[origin] = manager
        return self._managers[origin]


def _answer(response: Any, most: int, whole: bool) -> Answer:
    try:
        return Answer(response.status, response.headers, _body(response, most))
    except (Endless, ValueError) as error:
        if whole or (isinstance(error, Endless) and error.slow):
            raise
        return Answer(response.status, response.headers, b"", whole=False)


def _body(response: Any, most: int) -> bytes:
    body = b"".join(iter(functools.partial(response.read, _STEP, decode_content=False), b""))
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ValueError("its encoding was not asked for")
    if len(body) > most:
        raise Endless(slow=False)
    return body


def _open(origin: str) -> Any:
    import urllib3

    parts = urlsplit(origin)
    options: dict[str, Any] = {"ssl_context": _tls()} if parts.scheme == "https" else {}
    found = getproxies_environment()
    proxy = found.get(parts.scheme) or found.get("all") or ""
    if not proxy or is_loopback(parts.hostname or "") or proxy_bypass(parts.netloc):
        return urllib3.PoolManager(maxsize=1, **options)
    if not proxies.has_usable_login(proxy):
        raise HttpError(GapReason.NOT_CONFIGURED, f"the proxy to {parts.netloc} cannot be used: {proxies.ADVICE}")
    way = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if way.scheme not in ("http", "https") or not way.hostname:
        raise HttpError(GapReason.NOT_CONFIGURED, f"the proxy to {parts.netloc} must be an http or https URL")
    login = f"{unquote(way.username)}:{unquote(way.password or '')}" if way.username else None
    bare = way._replace(netloc=way.netloc.rpartition("@")[2]).geturl()
    try:
        headers = urllib3.make_headers(proxy_basic_auth=login)
        return urllib3.ProxyManager(bare, maxsize=1, proxy_headers=headers, **options)
    except (urllib3.exceptions.HTTPError, ValueError):
        raise HttpError(GapReason.NOT_CONFIGURED, f"the proxy to {parts.netloc} has no usable URL") from None


def _tls() -> ssl.SSLContext:
    """With the authorities that requests would believe."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or None
    try:
        if bundle and os.path.isdir(bundle):
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        detail = f"{plain(bundle or 'the system')} holds no usable PEM certificates"
        raise HttpError(GapReason.NOT_CONFIGURED, detail) from None


def refusal(url: str, answer: Answer) -> HttpError:
    """What an answer says that is no success."""
    reason = _REASONS.get(answer.status, GapReason.SERVER_ERROR if answer.status >= 500 else GapReason.BAD_DATA)
    detail = f"{_host(url)} answered {answer.status}"
    if 300 <= answer.status < 400:
        detail += ": redirects are not followed"
    wait = _seconds(answer.headers.get("Retry-After", "").strip())
    return HttpError(reason, detail, answer.status, retry=answer.status in _TRANSIENT, wait=wait)


def _seconds(after: str) -> float | None:
    """Of a Retry-After: it has seconds or a date (RFC 9110, section 10.2.3)."""
    if after.isdecimal():
        return float(after) if len(after) < 10 else None
    try:
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _failure(url: str, error: Exception) -> HttpError:
    from urllib3 import exceptions

    host = _host(url)
    if isinstance(error, exceptions.ProxyError):
        detail = f"{host} cannot be reached through the proxy: {plain(str(error.original_error))}"
        if _NO_LOGIN in detail:
            return HttpError(GapReason.NOT_CONFIGURED, detail, 407)
        return HttpError(GapReason.UNREACHABLE, detail)
    if isinstance(error, exceptions.SSLError):
        why = error.args[0] if error.args else error
        told = getattr(why, "verify_message", "") or getattr(why, "reason", "") or why
        return HttpError(GapReason.UNREACHABLE, f"TLS with {host} failed: {plain(str(told))}")
    if isinstance(error, exceptions.NewConnectionError):  # by its class a time-out too, which it is not
        why = getattr(error.__cause__, "strerror", None) or "no connection"
        return HttpError(GapReason.UNREACHABLE, f"{host} cannot be reached: {plain(str(why)).lower()}")
    if isinstance(error, exceptions.TimeoutError):
        return HttpError(GapReason.TIMEOUT, f"{host} did not answer in time")
    why = error.args[1] if len(error.args) > 1 else error
    detail = f"{host} broke off its answer: {plain(str(why)) or type(why).__name__}"
    return HttpError(GapReason.UNREACHABLE, detail, retry=True)


def _host(url: str) -> str:
    return plain(urlsplit(url).netloc)
