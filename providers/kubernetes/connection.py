"""One Kubernetes API server: GET with bytes for an answer, tried again where that may help, and what went wrong."""

from __future__ import annotations

import http.client
import json
import math
import random
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from providers import bounded
from providers.bounded import Endless, Limit
from providers.kubernetes import transport
from providers.kubernetes.credentials import ApiAccess, Endpoint, Mint, resolve
from providers.kubernetes.errors import LOGIN, ApiError, ConfigError
from providers.kubernetes.kubeconfig import Context, mapping, text
from scanner.model import GapReason
from scanner.plain import plain

_ATTEMPTS = 5
_SHORTEST_SECRET = 8  # characters; a shorter one would blank out parts of ordinary words
_BACKOFF = 0.5  # seconds before the second attempt, doubled for each further one
_LONGEST_WAIT = 10.0
_CONNECT_TIMEOUT = 5.0
_WHOLE_ANSWER = 4  # times the read time-out: what a server that sends a byte now and then may take
_TRANSIENT = {429: GapReason.THROTTLED} | dict.fromkeys((500, 502, 503, 504), GapReason.SERVER_ERROR)


def connect(source: Context | ApiAccess, *, request_timeout: float, deadline: float | None = None) -> Connection:
    """A connection to a context or to what a cloud's inventory named. Runs the credential plug-in, sends nothing yet.

    `request_timeout` is how long the server may be silent, in seconds; `deadline` the time.monotonic() at which
    everything about this cluster ends. Raises ConfigError, and what an ApiAccess's token raises.
    """
    endpoint, mint = resolve(source, deadline)
    return Connection(endpoint, mint, request_timeout, deadline)


class Connection:
    """GET from one API server. For one thread; several connections may run side by side."""

    def __init__(self, endpoint: Endpoint, mint: Mint, request_timeout: float, deadline: float | None) -> None:
        self.server = endpoint.server
        self.sleep = time.sleep  # replaced in tests
        self._endpoint = endpoint
        self._mint = mint
        self._timeout = request_timeout
        self._deadline = math.inf if deadline is None else deadline
        self._limit = Limit()
        self._credential = mint()
        self._refused = False  # a fresh credential was not accepted either: do not mint one for every further request
        self.answered = False  # whether any answer has come, of whatever status
        self._compress = not endpoint.loopback
        if self.server.startswith("http:") and self._credential.authorization and (self._compress or endpoint.proxy):
            raise ConfigError(f"{self.server}: credentials are never sent unencrypted: use an https server")
        self._pool = transport.open_pool(endpoint, self._credential.certificate, self._limit)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.clear()

    @property
    def ca(self) -> bytes | None:
        return self._endpoint.ca

    def get(self, path: str, query: Mapping[str, str] | None = None, accept: str = "application/json") -> bytes:
        """The body of a 200 answer. `path` starts with "/"; raises ApiError.

        429, 5xx and broken connections are tried again, up to five times in all and never past the deadline.
        """
        url = f"{self.server}{path}?{urlencode(query)}" if query else self.server + path
        for attempt in range(1, _ATTEMPTS):
            try:
                return self._get_once(url, accept)
            except ApiError as error:
                if not error.retry:
                    raise
                self._wait(attempt, error)
        return self._get_once(url, accept)

    def _wait(self, attempt: int, error: ApiError) -> None:
        """Sleep before the next attempt; raise the last error where that would end after the deadline."""
        seconds = error.wait or _BACKOFF * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - only jitter
        seconds = min(seconds, _LONGEST_WAIT)
        if time.monotonic() + seconds >= self._deadline:
            raise error
        self.sleep(seconds)

    def _get_once(self, url: str, accept: str) -> bytes:
        if time.monotonic() >= self._credential.until:
            self._renew()
        status, headers, body = self._exchange(url, accept)
        if status == 401 and not self._refused and self._credential.until < math.inf:
            self._renew()
            status, headers, body = self._exchange(url, accept)
            self._refused = status == 401
        if status != 200:
            raise self._refusal(status, headers, body)
        kind = headers.get("Content-Type", "")
        if kind and "json" in accept and "json" not in kind:
            raise ApiError(
                GapReason.BAD_DATA,
                f"{self.server} answered with {plain(kind)} instead of JSON: check the server's URL, and whether a "
                "proxy or a sign-in page is in between",
                status,
            )
        return body

    def _renew(self) -> None:
        try:
            fresh = self._mint()
            if fresh.certificate != self._credential.certificate:
                self._pool.clear()
                self._pool = transport.open_pool(self._endpoint, fresh.certificate, self._limit)
        except ConfigError as error:
            raise ApiError(GapReason.FORBIDDEN, str(error), 401) from error
        self._credential = fresh

    def _exchange(self, url: str, accept: str) -> tuple[int, Mapping[str, str], bytes]:
        """One request: status, headers and decoded body, whatever the status."""
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        now = time.monotonic()
        if now >= self._deadline:
            raise ApiError(GapReason.TIMEOUT, f"the time for {self.server} was up before the request was sent")
        self._limit.at = min(now + _WHOLE_ANSWER * self._timeout, self._deadline)
        self._limit.size = bounded.MAX_BODY
        left = self._limit.at - now
        timeout = Timeout(connect=min(_CONNECT_TIMEOUT, left), read=min(self._timeout, left))
        response = None
        try:
            response = self._pool.request(
                "GET",
                url,
                headers=self._headers(accept),
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            body = transport.read_body(response)
        except HTTPError as error:
            raise self._failure(error) from error
        except Endless as error:
            raise self._endless(error) from None
        except ValueError as error:  # a chunk size, length or address that cannot be
            raise ApiError(
                GapReason.BAD_DATA, f"{self.server} sent an answer that cannot be read: {plain(str(error))}"
            ) from error
        finally:
            if response is not None:
                response.close()  # after a whole body the connection is back in the pool, and stays open
        self.answered = True
        return response.status, response.headers, body

    def _headers(self, accept: str) -> Any:
        from urllib3 import HTTPHeaderDict

        headers = HTTPHeaderDict(self._endpoint.impersonate)
        headers["Accept"] = accept
        headers["Accept-Encoding"] = "gzip" if self._compress else "identity"
        headers["User-Agent"] = "kubeposture"
        if self._credential.authorization:
            headers["Authorization"] = self._credential.authorization
        return headers

    # --- what went wrong, in one sentence ---

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
        said, token = _status_object(body)
        said = self._clean(said)
        named = f"{self.server} answered {status}"
        told = f"{named}: {said}" if said else named
        if 300 <= status < 400:
            target = plain(urlsplit(headers.get("Location", "")).netloc.rpartition("@")[2]) or "somewhere"
            return ApiError(GapReason.BAD_DATA, f"{named}: redirects are not followed (this one to {target})", status)
        if status == 401:
            return ApiError(GapReason.FORBIDDEN, self._not_accepted(), status)
        if status == 403:
            return ApiError(GapReason.FORBIDDEN, said or f"{named} (forbidden)", status)
        if status in _TRANSIENT:
            wait = _retry_after(headers.get("Retry-After", ""))
            return ApiError(_TRANSIENT[status], told, status, retry=True, wait=wait)
        reason = GapReason.NOT_FOUND if status == 404 else GapReason.BAD_DATA
        return ApiError(reason, told, status, token if status == 410 else "")

    def _not_accepted(self) -> str:
        if not self._credential.authorization and not self._credential.certificate:
            return f"{self.server} asks for credentials (401), and the kubeconfig's user has none"
        return f"credentials were not accepted (401): the token may have expired; {LOGIN}"

    def _clean(self, text: str) -> str:
        """What the server said, for people. It may have quoted what it was sent."""
        secret = self._credential.authorization.partition(" ")[2]
        return plain(text.replace(secret, "…") if len(secret) >= _SHORTEST_SECRET else text)

    def _failure(self, error: Exception) -> ApiError:
        from urllib3 import exceptions

        if isinstance(error, exceptions.ProxyError):
            why = self._clean(str(error.original_error))
            return ApiError(GapReason.UNREACHABLE, f"{self.server} cannot be reached through the proxy: {why}")
        if isinstance(error, exceptions.SSLError):
            return self._tls_failure(error.args[0] if error.args else error)
        if isinstance(error, exceptions.NewConnectionError):  # by its class a time-out too, which it is not
            return self._no_connection(error)
        if isinstance(error, exceptions.TimeoutError):
            return ApiError(GapReason.TIMEOUT, self._too_slow(error))
        return self._broken(error.args[1] if len(error.args) > 1 else error)

    def _endless(self, error: Endless) -> ApiError:
        if not error.slow:
            return ApiError(GapReason.BAD_DATA, f"{self.server} sent an answer that is too large")
        return ApiError(GapReason.TIMEOUT, self._too_slow(error))

    def _too_slow(self, error: Exception) -> str:
        from urllib3.exceptions import ConnectTimeoutError

        if time.monotonic() >= self._deadline:
            return f"the time for this cluster was up while {self.server} was answering"
        if isinstance(error, ConnectTimeoutError):
            return f"{self.server} took no connection within {_CONNECT_TIMEOUT:g} s: can this machine reach it?"
        if time.monotonic() >= self._limit.at:
            return f"{self.server} did not finish its answer within {_WHOLE_ANSWER * self._timeout:g} s"
        return f"{self.server} did not answer within {self._timeout:g} s"

    def _tls_failure(self, error: Any) -> ApiError:
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return ApiError(GapReason.UNREACHABLE, f"{self.server} broke off the TLS connection", retry=True)
        if not isinstance(error, ssl.SSLCertVerificationError):
            why = plain(str(getattr(error, "reason", None) or error))
            return ApiError(
                GapReason.UNREACHABLE, f"TLS with {self.server} failed ({why}): is it the right port and protocol?"
            )
        why = plain(error.verify_message)
        if error.verify_code in (62, 64):  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
            advice = "use a name that the certificate holds, or set tls-server-name in the kubeconfig"
        else:
            advice = "set the cluster's certificate-authority in the kubeconfig, or SSL_CERT_FILE"
        return ApiError(GapReason.UNREACHABLE, f"the certificate of {self.server} is not trusted ({why}): {advice}")

    def _no_connection(self, error: Exception) -> ApiError:
        from urllib3.exceptions import NameResolutionError

        # Once it has answered, a server that is gone for a moment is being restarted.
        if isinstance(error, NameResolutionError):
            why = "its name cannot be resolved: check the server's URL, DNS, and whether a VPN or a proxy is needed"
        else:
            why = plain(str(getattr(error.__cause__, "strerror", None) or "no connection")).lower()
            why += ": check the server's URL, and whether this machine can reach it"
        return ApiError(GapReason.UNREACHABLE, f"{self.server} cannot be reached, {why}", retry=self.answered)

    def _broken(self, error: Any) -> ApiError:
        if isinstance(error, http.client.IncompleteRead):
            return ApiError(GapReason.BAD_DATA, f"{self.server} ended its answer before it was complete", retry=True)
        if isinstance(error, ConnectionError):
            return ApiError(GapReason.UNREACHABLE, f"{self.server} broke off the connection", retry=True)
        why = self._clean(str(error)) or type(error).__name__
        return ApiError(GapReason.BAD_DATA, f"{self.server} sent an answer that is not HTTP: {why}")


def _status_object(body: bytes) -> tuple[str, str]:
    """Message and continue token of a Kubernetes Status; empty for anything else."""
    try:
        status = json.loads(body) if len(body) < 1024 * 1024 else None
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(status, dict) or status.get("kind") != "Status":
        return "", ""
    return text(status.get("message")), text(mapping(status.get("metadata")).get("continue"))


def _retry_after(value: str) -> float | None:
    """Seconds, given as such or as a date; None where the header is absent or senseless."""
    if value.strip().isdecimal():
        return float(value)
    try:
        seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return max(seconds, 0.0)
