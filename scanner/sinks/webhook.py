"""Any HTTPS address: OCSF events as NDJSON, signed with a secret that both sides know."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scanner.plain import plain
from scanner.report.ocsf_event import line
from scanner.sinks import Packed, Unusable
from scanner.sinks.post import checked_url, http, known, post, rejection, token
from scanner.sinks.settings import WebhookSink

if TYPE_CHECKING:
    from providers.http import Answer
    from scanner.report.ocsf_event import Event

_PARTIAL = 206  # what nobody asked for: of a cache


def open_sink(settings: WebhookSink) -> Webhook:
    """Raises ConfigError."""
    url = checked_url(settings.url, "webhook", query=True)
    bearer = key = ""
    if settings.token_env is not None or settings.token_file is not None:
        bearer = token(settings, "webhook")
    if settings.secret_env is not None or settings.secret_file is not None:
        key = known(settings, "secret", "webhook")
    return Webhook(url, bearer, key)


def _is_page(answer: Answer) -> bool:
    """Whether it is for people, as one to log in. Many frameworks call each answer HTML, also an empty one or "ok"."""
    html = "html" in answer.headers.get("Content-Type", "").lower()
    return html and (not answer.whole or answer.body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"))


class Webhook:
    """Not compressed: few receivers expect that of a request, and a signature is then of what they see."""

    most_events = 1000
    most_bytes = 990_000  # 1 MB with the ends of lines: many servers take no more unless they are told to

    def __init__(self, url: str, token: str, key: str) -> None:
        self._url = url
        self._key = key.encode()
        self._headers = {"Content-Type": "application/x-ndjson"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._http = http()

    def pack(self, event: Event) -> bytes:
        return line(event)[:-1]

    def send(self, batch: Sequence[Packed]) -> Mapping[str, str]:
        body = b"".join(packed.body + b"\n" for packed in batch)
        answer = post(self._http, self._url, {**self._headers, **self._of(batch, body)}, body)
        if not 200 <= answer.status < 300:
            raise rejection(self._url, answer)
        if answer.status == _PARTIAL or _is_page(answer):
            found = "a page" if _is_page(answer) else "a part of something"
            host = plain(urlsplit(self._url).netloc)
            raise Unusable(f"{host} answered {answer.status} with {found}, as no receiver does: check the url")
        return {}

    def close(self) -> None:
        self._http.close()

    def _of(self, batch: Sequence[Packed], body: bytes) -> Mapping[str, str]:
        """The headers of one batch. Sent again, it has the same key."""
        uids = "\n".join(packed.uid for packed in batch)
        found = {"Idempotency-Key": hashlib.sha256(uids.encode()).hexdigest()}
        if self._key:
            now = str(int(time.time()))
            found["X-Kubeposture-Timestamp"] = now
            signed = hmac.new(self._key, f"{now}.".encode() + body, hashlib.sha256)
            found["X-Kubeposture-Signature"] = f"sha256={signed.hexdigest()}"
        return found
