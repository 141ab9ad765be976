"""Azure Monitor's Logs Ingestion API on a loopback socket, over TLS, with the identity endpoint that hands out its
tokens; it misbehaves on request.

    with IngestServer(template=template) as azure:
        for name, value in azure.environment.items():
            monkeypatch.setenv(name, value)
        azure.inject("/streams/", status(429, retry_after=7), times=2)
        sink = open_sink(SentinelSink(azure.url, RULE))
        sink.send(batch)
        assert azure.rows

It keeps of each row what the stream declares, as Azure does, but does not bear a value of another type.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import armserver
from armserver import ArmServer, Object
from azure_data import Estate

RULE = "dcr-0f1e2d3c4b5a69788796a5b4c3d2e1f0"
LIMIT = 1024 * 1024  # bytes of a call, before compression
_PLACE = re.compile(r"/datacollectionrules/([^/]*)/streams/([^/]*)")
_ROLE = (
    "The authentication token provided does not have access to ingest data for the data collection rule with immutable "
    "Id '{}' PipelineAccessResult: AccessGranted: False, IsRbacPresent: False, IsDcrDceBindingValid: ."
)


@dataclass
class IngestServer(ArmServer):
    """`template` is an ARM template with a table and the rule that feeds it."""

    estate: Estate = field(default_factory=Estate.of)
    template: Object = field(default_factory=dict)
    audience: str = "https://monitor.azure.com"
    granted: bool = True  # whether the caller has the role
    poison: str = ""  # a call that holds this text is refused
    rows: list[Object] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)  # the rows of each call that was taken

    def __post_init__(self) -> None:
        self.tls = self.tls or True
        super().__post_init__()
        self._http.RequestHandlerClass = _Handler
        self._taking = threading.Lock()

    def unauthorized(self, authorization: str) -> tuple[str, str] | None:
        resource, _ = self._issued.get(authorization.removeprefix("Bearer "), ("", 0))
        if resource.rstrip("/") == self.audience:
            return None
        return "InvalidToken", f"The audience of the token is not {self.audience}."

    @property
    def streams(self) -> dict[str, dict[str, str]]:
        """The type of each column, by stream."""
        [rule] = [r for r in self.template["resources"] if r["type"] == "Microsoft.Insights/dataCollectionRules"]
        declared = rule["properties"]["streamDeclarations"]
        return {name: {c["name"]: c["type"] for c in stream["columns"]} for name, stream in declared.items()}

    def take(self, stream: str, rows: list[Object]) -> None:
        columns = self.streams[stream]
        kept = [{name: value for name, value in row.items() if name in columns} for row in rows]
        for row in kept:
            for name, value in row.items():
                assert fits(columns[name], value), (name, value)
        with self._taking:
            self.rows += kept
            self.calls.append(len(kept))


def fits(type: str, value: Any) -> bool:
    """Whether a JSON value is of the type of a column."""
    match type:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31
        case "datetime":
            return value.endswith("Z") and datetime.fromisoformat(value).tzinfo is not None
        case "dynamic":
            return isinstance(value, dict | list) and len(json.dumps(value, ensure_ascii=False).encode()) < 64 * 1024
    raise AssertionError(type)


class _Handler(armserver._Handler):
    def _answer(self, path: str) -> None:
        place = _PLACE.fullmatch(self.place)
        if self.place == armserver.IDENTITY:
            self._identity()
        elif self.command != "POST" or not place or self.asked.query != {"api-version": "2023-01-01"}:
            self.reply_error(404, "NotFound", "The requested resource does not exist.")
        elif problem := self.arm.unauthorized(self.asked.authorization):
            self._challenge(*problem)
        else:
            self._ingest(place[1], path.rpartition("/")[2])

    def _ingest(self, rule: str, stream: str) -> None:
        azure = self.arm
        assert isinstance(azure, IngestServer)
        assert self.headers["Content-Type"] == "application/json"
        assert self.headers["Content-Encoding"] == "gzip"
        body = gzip.decompress(self.asked.body)
        if rule != RULE:
            self.reply_error(404, "NotFound", f"Data collection rule with immutable Id '{rule}' not found.")
        elif not azure.granted:
            self.reply_error(403, "OperationFailed", _ROLE.format(rule))
        elif stream not in azure.streams:
            text = f"The stream {stream} was not configured in the data collection rule with immutable Id {rule}."
            self.reply_error(400, "InvalidStream", text)
        elif len(body) > LIMIT:
            text = f"Maximum allowed content length: {LIMIT} bytes (1 MB). Provided content length: {len(body)} bytes."
            self.reply_error(413, "ContentLengthLimitExceeded", text)
        elif azure.poison and azure.poison.encode() in body:
            self.reply_error(400, "InvalidPayload", "The payload could not be read.")
        else:
            azure.take(stream, json.loads(body))
            self.reply(204, b"", "application/json")
