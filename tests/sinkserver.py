"""What receives events: a HTTP Event Collector as Splunk's, and a webhook that believes nothing unsigned."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

from registryserver import Reply, Request

TEXTS = {
    0: "Success",
    1: "Token disabled",
    2: "Token is required",
    3: "Invalid authorization",
    4: "Invalid token",
    5: "No data",
    6: "Invalid data format",
    7: "Incorrect index",
    9: "Server is busy",
    10: "Data channel is missing",
    11: "Invalid data channel",
    12: "Event field is required",
    13: "Event field cannot be blank",
    14: "ACK is disabled",
}
STATUSES = {0: 200, 1: 403, 2: 401, 3: 401, 4: 403, 9: 503}  # of all others 400
KEYS = {"time", "host", "source", "sourcetype", "index", "event"}
_BLANK = re.compile(r"\s*")
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def hec(code: int, status: int | None = None, **more: Any) -> Reply:
    told = {"text": TEXTS.get(code, "…"), "code": code, **more}
    return Reply(status or STATUSES.get(code, 400), told)


@dataclass
class Token:
    indexes: tuple[str, ...] = ("main",)  # the first where an event names none
    acks: bool = False
    disabled: bool = False


@dataclass
class Collector:
    """A HTTP Event Collector of several indexers, behind a load balancer that only goes by its cookie.

    `replies` are given to the next posts of events, in place of judging them; None judges. `polls` is how often one has
    to ask before an acknowledgment is given, and `ack_replies` are given to the next questions.
    """

    tokens: dict[str, Token]
    base: str = ""
    indexers: int = 1
    polls: int = 1
    most: int = 1_000_000  # bytes of a body
    replies: list[Reply | None] = field(default_factory=list)
    ack_replies: list[Reply | None] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)  # envelopes, with the index that they went to
    channels: set[str] = field(default_factory=set)
    _next: int = 0
    _waiting: dict[tuple[int, str, int], int] = field(default_factory=dict)  # indexer, channel, id: polls to come

    def __call__(self, request: Request) -> Reply:
        assert request.method == "POST"
        kind = {f"{self.base}/services/collector/{kind}": kind for kind in ("event", "ack")}.get(request.path)
        if not kind:
            return Reply(404, {"text": "The requested URL was not found on this server.", "code": 404})
        replies = self.replies if kind == "event" else self.ack_replies
        if replies and (reply := replies.pop(0)):
            return reply
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return hec(2)
        if scheme != "Splunk" or not given:
            return hec(3)
        token = self.tokens.get(given)
        if not token or token.disabled:
            return hec(1 if token else 4)
        channel = request.headers.get("x-splunk-request-channel", "")
        if token.acks and not channel:
            return hec(10)
        if channel and not GUID.fullmatch(channel):
            return hec(11)
        self.channels.add(channel)
        return self._take(request, token, channel) if kind == "event" else self._poll(request, token, channel)

    def _indexer(self, request: Request) -> int:
        stuck = re.search(r"\bindexer=(\d+)", request.headers.get("cookie", ""))
        if stuck:
            return int(stuck[1])
        self._next += 1
        return self._next % self.indexers

    def _take(self, request: Request, token: Token, channel: str) -> Reply:
        body = request.body
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if len(body) > self.most:
            return Reply(413, {"text": "Content-Length of the request is too large", "code": 413})
        taken, refused = self._parse(body.decode(), token)
        self.events += taken  # also what stands before an event that is refused
        if refused:
            return hec(refused, **{"invalid-event-number": len(taken)})
        if not taken:
            return hec(5)
        if not token.acks:
            return hec(0)
        indexer = self._indexer(request)
        ack = sum(key[:2] == (indexer, channel) for key in self._waiting)
        self._waiting[indexer, channel, ack] = self.polls
        cookies = (
            ("Set-Cookie", f"indexer={indexer}; Path=/; Expires=Wed, 09 Jun 2100 10:18:14 GMT"),
            ("Set-Cookie", "other=1; Secure"),
        )
        reply = hec(0, ackId=ack)
        return Reply(reply.status, reply.body, cookies)

    def _parse(self, text: str, token: Token) -> tuple[list[dict[str, Any]], int]:
        """What is taken, and the code of what is not."""
        found: list[dict[str, Any]] = []
        at = len(text) - len(text.lstrip())
        while at < len(text):
            try:
                envelope, end = json.JSONDecoder().raw_decode(text, at)
            except ValueError:
                return found, 6
            at = _BLANK.match(text, end).end()  # type: ignore[union-attr]
            if not isinstance(envelope, dict) or "event" not in envelope:
                return found, 12
            assert set(envelope) <= KEYS, envelope
            if not envelope["event"]:
                return found, 13
            index = envelope.get("index", token.indexes[0])
            if index not in token.indexes:
                return found, 7
            found.append({**envelope, "index": index})
        return found, 0

    def _poll(self, request: Request, token: Token, channel: str) -> Reply:
        if not token.acks:
            return hec(14)
        indexer, told = self._indexer(request), {}
        for ack in json.loads(request.body)["acks"]:
            left = self._waiting.get((indexer, channel, ack), 10**9) - 1
            self._waiting[indexer, channel, ack] = left
            told[str(ack)] = left == 0  # told once, then forgotten
        return Reply(body={"acks": told})


@dataclass
class Receiver:
    """A webhook that stores events once, by the key of their batch. `replies` as a Collector's."""

    token: str = ""
    secret: str = ""
    tolerance: float = 300.0  # seconds
    replies: list[Reply | None] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def __call__(self, request: Request) -> Reply:
        headers = request.headers
        if self.replies and (reply := self.replies.pop(0)):
            return reply
        assert request.method == "POST"
        assert headers["content-type"] == "application/x-ndjson"
        assert "content-encoding" not in headers
        if headers.get("authorization") != (f"Bearer {self.token}" if self.token else None):
            return Reply(401)
        if self.secret and not self._signed(headers, request.body):
            return Reply(403)
        self.keys.append(headers["idempotency-key"])
        if self.keys.count(self.keys[-1]) == 1:
            assert request.body.endswith(b"\n")
            self.events += [json.loads(row) for row in request.body.splitlines()]
        return Reply(204)

    def _signed(self, headers: dict[str, str], body: bytes) -> bool:
        at = headers.get("x-kubeposture-timestamp", "")
        if not at.isdecimal() or abs(time.time() - int(at)) > self.tolerance:
            return False
        wanted = hmac.new(self.secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(headers.get("x-kubeposture-signature", ""), f"sha256={wanted}")
