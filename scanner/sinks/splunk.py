"""Splunk's HTTP Event Collector (HEC): one envelope for each event, and indexer acknowledgment where the token has it.

https://help.splunk.com/en/splunk-enterprise/get-data-in/collect-http-event-data: what is sent, the codes of answers
(Troubleshoot HTTP Event Collector), and acknowledgment.
"""

from __future__ import annotations

import gzip
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from scanner import __project__
from scanner.kube import printable
from scanner.report.ocsf_event import line
from scanner.sinks import Packed, Refused, Unavailable, Unusable
from scanner.sinks.post import checked_url, http, post, rejection, token
from scanner.sinks.settings import SplunkSink

if TYPE_CHECKING:
    from providers.http import Answer
    from scanner.report.ocsf_event import Event

SOURCETYPE = f"ocsf:{__project__}"  # its prefix is what the OCSF-CIM Add-On goes by
_ENDPOINTS = re.compile(r"(?:/services/collector(?:/(?:event|raw|ack|health))?(?:/1\.0)?)?/*$")
_LONGEST_HOST = 200

_ACKNOWLEDGED_WITHIN = 180.0  # seconds: what Splunk's guides give other senders
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between two questions, the last again and again

# The codes of answers. With 24 and 25 events are taken: what they come into is nearly full.
_TAKEN = (0, 24, 25)
_LATER = (8, 9, 18, 19, 20, 23, 26, 27)
_EVENTS = {
    5: "no data",
    6: "invalid data format",
    12: "an event is required",
    13: "an event cannot be blank",
    15: "error in handling indexed fields",
}
_TOKEN_DISABLED, _TOKEN_UNKNOWN = "the token is disabled: enable it", "the token is not known: check it"
_SETTINGS = {
    1: _TOKEN_DISABLED,
    2: "no token was seen: check what stands between here and Splunk",
    3: "the token was not understood: give it alone",
    4: _TOKEN_UNKNOWN,
    7: "incorrect index: name one that exists and that the token may write to",
    10: "no channel was seen: check what stands between here and Splunk",
    11: "the channel was not understood: check what stands between here and Splunk",
    14: "indexer acknowledgment is disabled: check the token",
    16: "the token was looked for in the url: check what stands between here and Splunk",
    21: _TOKEN_UNKNOWN,
    22: _TOKEN_DISABLED,
}


class _Told(msgspec.Struct, rename="camel"):
    """What HEC answers, as far as it counts."""

    code: int | None = None
    ack_id: int | None = None
    acks: dict[str, bool] = {}


def open_sink(settings: SplunkSink) -> Splunk:
    """Raises ConfigError."""
    base = _ENDPOINTS.sub("", checked_url(settings.url, "splunk"))
    return Splunk(base, token(settings, "splunk"), settings.index)


class Splunk:
    """Events of one batch go to the same index, so where one is refused for the index, all of them are.

    HEC may have taken what stands before an event that it refuses; which one that is it does not count the same way for
    all reasons. So then the whole batch counts as refused: it is sent again in parts, and some events come twice.
    """

    most_events = 1000
    most_bytes = 990_000  # 1 MB with the ends of lines: what HEC took at most for long, and proxies before it still do

    def __init__(self, base: str, token: str, index: str | None) -> None:
        self._base = base
        self._index = index
        self._host = urlsplit(base).netloc
        self._headers = {
            "Authorization": f"Splunk {token}",
            "Content-Type": "application/json",
            "X-Splunk-Request-Channel": str(uuid.uuid4()),
        }
        self._http = http()

    def pack(self, event: Event) -> bytes:
        # Splunk reads fields from the first 10,240 characters alone: what is long, the evidence, comes last.
        last = {key: event[key] for key in ("compliance",) if key in event}
        body = line({key: value for key, value in event.items() if key not in last} | last)
        envelope: dict[str, Any] = {
            "time": event["time"] / 1000,
            "host": printable(_host(event), _LONGEST_HOST),
            "source": __project__,
            "sourcetype": SOURCETYPE,
            "event": msgspec.Raw(body[:-1]),
        }
        if self._index:
            envelope["index"] = self._index
        return msgspec.json.encode(envelope)

    def send(self, batch: Sequence[Packed]) -> Mapping[str, str]:
        body = gzip.compress(b"\n".join(packed.body for packed in batch), 6, mtime=0)
        url = f"{self._base}/services/collector/event"
        answer = post(self._http, url, {**self._headers, "Content-Encoding": "gzip"}, body)
        told = _told(answer)
        if error := self._rejection(url, answer, told.code):
            raise error
        if told.ack_id is not None:
            self._acknowledged(told.ack_id, _cookies(answer))
        return {}

    def close(self) -> None:
        self._http.close()

    def _rejection(self, url: str, answer: Answer, code: int | None) -> Exception | None:
        """What is wrong with an answer. Its code says more than its status."""
        told = f"{self._host} answered {answer.status}, code {code}"
        if answer.status == 200 and code in _TAKEN:
            return None
        if code in _SETTINGS:
            return Unusable(f"{told}: {_SETTINGS[code]}")
        if code in _EVENTS:
            return Refused(f"{told}: {_EVENTS[code]}")
        if code in _LATER:
            return Unavailable(told)
        if 200 <= answer.status < 300 or answer.status == 400:  # nothing of a collector's: a proxy, a page to log in
            return Unusable(f"{told}, as no HTTP Event Collector does: check the url")
        return rejection(url, answer)

    def _acknowledged(self, ack: int, cookies: str) -> None:
        """Return as soon as the indexer has what was sent; raises Unavailable if it does not come to that."""
        end = time.monotonic() + _ACKNOWLEDGED_WITHIN
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            time.sleep(pause)
            if self._has(ack, cookies):
                return
            if time.monotonic() >= end:
                break
        within = f"{_ACKNOWLEDGED_WITHIN:g} seconds"
        raise Unavailable(f"{self._host} took the events, but no indexer acknowledged them within {within}")

    def _has(self, ack: int, cookies: str) -> bool:
        url = f"{self._base}/services/collector/ack"
        headers = {**self._headers, "Cookie": cookies} if cookies else self._headers
        try:
            answer = post(self._http, url, headers, msgspec.json.encode({"acks": [ack]}))
        except Unavailable:
            return False
        if answer.status != 200:
            raise Unusable(f"{self._host} answered {answer.status} when asked for an acknowledgment: check the url")
        return _told(answer).acks.get(str(ack)) is True


def _host(event: Event) -> str:
    """What Splunk calls the host: the cluster, else the account that the event is about."""
    clusters = event.get("resources", [])[1:] or [event.get("unmapped", {}).get("cluster")]
    if clusters[0]:
        return str(clusters[0]["name"])
    return str(event.get("cloud", {}).get("account", {}).get("uid") or __project__)


def _told(answer: Answer) -> _Told:
    try:
        return msgspec.json.decode(answer.body, type=_Told)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # of no collector
        return _Told()


def _cookies(answer: Answer) -> str:
    """What keeps to the indexer that took the events: behind a load balancer only that one can acknowledge them."""
    return "; ".join(re.findall(r"(?:^|,\s*)([\w!#$%&'*+.^`|~-]+=[^;,\s]*)", answer.headers.get("Set-Cookie", "")))
