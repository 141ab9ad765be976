"""What the receivers that are posted to over HTTPS have in common: their addresses, secrets, and what answers mean."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from providers.http import Answer, Http, HttpError, is_host, is_loopback, refusal
from scanner.config import ConfigError
from scanner.model import GapReason
from scanner.plain import plain
from scanner.sinks import Refused, Unavailable, Unusable
from scanner.sinks.settings import SecretError, SplunkSink, WebhookSink, secret

_TIMEOUT = 30.0  # seconds for which a receiver may be silent
_LONGEST_ANSWER = 64 * 1024  # bytes
# 409 and 423: the same is being taken already; 425: the connection is too new for a request that changes something.
_LATER = (408, 409, 423, 425, 429)
_REFUSED = (400, 413, 422)
_ADVICE = {
    401: "check the token",
    403: "check the token, and what it may do",
    404: "check the url",
    405: "check the url",
    407: "check the login of the proxy",
    410: "check the url",
}


def http() -> Http:
    """For one thread. What is sent again, and when, is not decided here."""
    return Http(_TIMEOUT, attempts=1)


def checked_url(url: str, sink: str, *, query: bool = False) -> str:
    """https://host[:port][/path][?query], or http to an address of this machine. Raises ConfigError, which shows the
    host alone: what follows may be a secret."""
    try:
        parts = urlsplit(url)
        usable = is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        parts, usable = SplitResult("", "", "", "", ""), False
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if not usable or not url.isascii() or not url.isprintable() or set('"<>\\ ') & set(url):
        raise ConfigError(f"sink {sink}: url is no address: https://host.example is one")
    if "@" in parts.netloc or "#" in url or ("?" in url and not query):
        what = "a login, a fragment or a query" if not query else "a login or a fragment"
        raise ConfigError(f"sink {sink}: {plain(shown)}: a url is used without {what}")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise ConfigError(f"sink {sink}: {plain(shown)}: findings are never sent unencrypted: use https")
    return url


def known(settings: SplunkSink | WebhookSink, key: Literal["token", "secret"], sink: str) -> str:
    """A secret; raises ConfigError."""
    try:
        return secret(settings, key)
    except SecretError as error:
        raise ConfigError(f"the {key} of sink {sink}: {error}") from None


def token(settings: SplunkSink | WebhookSink, sink: str) -> str:
    """A secret that can stand in a header; raises ConfigError."""
    found = known(settings, "token", sink)
    if not found.isascii() or " " in found:
        raise ConfigError(f"the token of sink {sink}: give the token alone, without a word before it")
    return found


def post(client: Http, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """What the receiver answers that is not to be asked again later; its status counts, whatever comes with it. Raises
    Unavailable and Unusable."""
    try:
        answer = client.ask("POST", url, headers, body, most=_LONGEST_ANSWER, whole=False)
    except HttpError as error:
        raise _no_answer(error) from None
    if answer.status in _LATER or answer.status >= 500:
        later = refusal(url, answer)
        raise Unavailable(later.detail, later.wait)
    return answer


def rejection(url: str, answer: Answer) -> Refused | Unusable:
    """What an answer of post() means that is no success."""
    error = refusal(url, answer)
    return Refused(error.detail) if answer.status in _REFUSED else _advised(error)


def _advised(error: HttpError) -> Unusable:
    advice = _ADVICE.get(error.status or 0)
    return Unusable(f"{error.detail}: {advice}" if advice else error.detail)


def _no_answer(error: HttpError) -> Unavailable | Unusable:
    if _is_distrust(error):
        return Unusable(f"{error.detail}: name a file with the certificate of its authority in REQUESTS_CA_BUNDLE")
    if error.reason is GapReason.NOT_CONFIGURED:
        return _advised(error)
    return Unavailable(error.detail, error.wait)


def _is_distrust(error: HttpError) -> bool:
    """Whether it is the receiver's certificate that is not believed, rather than a connection that broke."""
    cause = error.__cause__
    return cause is not None and any(isinstance(arg, ssl.SSLCertVerificationError) for arg in cause.args)
