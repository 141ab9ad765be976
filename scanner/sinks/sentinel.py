"""Microsoft Sentinel: rows of a custom table, by way of Azure Monitor's Logs Ingestion API.

Limits: https://learn.microsoft.com/azure/azure-monitor/fundamentals/service-limits#logs-ingestion-api. The table and
the rule are in deploy/sentinel; docs/sentinel.md has the columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scanner import __project__, __version__
from scanner.config import ConfigError
from scanner.plain import plain
from scanner.report.ocsf_event import line, milliseconds
from scanner.sinks import Packed, Refused, Unavailable, Unusable
from scanner.sinks.settings import SentinelSink

if TYPE_CHECKING:
    from scanner.report.ocsf_event import Event

# Whom tokens are for. The second slash is part of it.
SCOPES = {
    "AzureCloud": "https://monitor.azure.com//.default",
    "AzureUSGovernment": "https://monitor.azure.us//.default",
    "AzureChinaCloud": "https://monitor.azure.cn//.default",
}
ROLE = "Monitoring Metrics Publisher"
_RULE = re.compile(r"dcr-[0-9a-f]+")
_STREAM = re.compile(r"Custom-\w+")
_CONNECT_TIMEOUT = 10.0  # seconds
_READ_TIMEOUT = 60.0
_WHOLE_ANSWER = 120.0
_REFUSED = frozenset({400, 413})
_SUPPRESSED = 3
_LAST_TIME = 253_402_300_799_000  # the year 9999 ends
_NO_STREAM = "InvalidStream"  # comes with 400, though no event is at fault


def open_sink(settings: SentinelSink) -> Sentinel:
    """Raises ConfigError for what cannot be an endpoint, a rule or a stream, and where the SDK is missing."""
    from providers import proxies
    from providers.azure.credentials import CLOUDS, Credential
    from providers.azure.errors import UsageError

    endpoint = _endpoint(settings.endpoint)
    if not _RULE.fullmatch(settings.rule):
        raise ConfigError("sentinel: rule is the immutable id of the data collection rule (dcr-…), not its name")
    if not _STREAM.fullmatch(settings.stream):
        raise ConfigError("sentinel: stream is one that the data collection rule declares: Custom-Kubeposture_CL")
    if problem := proxies.unusable():
        raise ConfigError(f"sentinel: {problem}")
    try:
        credential = Credential(CLOUDS[settings.cloud], settings.tenant)
        return Sentinel(endpoint, settings.rule, settings.stream, credential, SCOPES[settings.cloud])
    except ImportError:
        raise ConfigError("sentinel: its SDK is not installed: pip install 'kubeposture[sentinel]'") from None
    except UsageError as error:
        raise ConfigError(f"sentinel: {error}") from None


def _endpoint(url: str) -> str:
    """https://host[:port]; raises ConfigError."""
    from providers.http import UsageError, check_url

    try:
        checked = check_url(url)
    except UsageError:
        checked = ""
    if not checked.startswith("https://"):
        raise ConfigError(
            "sentinel: endpoint is the address for logs ingestion of the data collection rule, or of its endpoint: "
            "https://NAME.REGION-1.ingest.monitor.azure.com"
        )
    return checked


class Sentinel:
    """The stream of one data collection rule. For one thread."""

    # A call takes 1 MiB before compression. Room is left for TimeGenerated, and for the commas, which the SDK forgets
    # where it splits what it is given.
    most_events = 1000
    most_bytes = 900_000

    def __init__(self, endpoint: str, rule: str, stream: str, credential: Any, scope: str) -> None:
        from azure.core.pipeline import policies
        from azure.monitor.ingestion import LogsIngestionClient

        from providers.azure.session import transport

        class Token(policies.SansIOHTTPPolicy[Any, Any]):
            def on_request(self, request: Any) -> None:
                request.http_request.headers["Authorization"] = f"Bearer {credential.token(scope)}"

        self._endpoint, self._rule, self._stream, self._credential = endpoint, rule, stream, credential
        # The SDK's own pipeline would try again, follow redirects and log as well.
        self._client = LogsIngestionClient(
            endpoint,
            credential,
            policies=[
                policies.RequestIdPolicy(),
                policies.UserAgentPolicy(f"{__project__}/{__version__}"),
                Token(),
            ],
            transport=transport(endpoint, 1, _WHOLE_ANSWER),
        )

    def pack(self, event: Event) -> bytes:
        """A row but for TimeGenerated, as long as the SDK will make it."""
        return json.dumps(columns(json.loads(line(event)))).encode()

    def send(self, batch: Sequence[Packed]) -> Mapping[str, str]:
        # Not the time of the event: a rule that looks at the last hour would never see one that had to wait.
        sent = _time(milliseconds(datetime.now(UTC)))
        rows = [{"TimeGenerated": sent, **json.loads(packed.body)} for packed in batch]
        lost: list[Exception] = []
        self._client.upload(
            self._rule,
            self._stream,
            rows,
            on_error=lambda failed: lost.append(failed.error),
            connection_timeout=_CONNECT_TIMEOUT,
            read_timeout=_READ_TIMEOUT,
        )
        if lost:
            raise self._meaning(lost[0]) from None
        return {}

    def close(self) -> None:
        self._client.close()
        self._credential.close()

    def _meaning(self, error: Exception) -> Exception:
        """What an error that the SDK caught is to the delivery; itself where neither Azure nor the network made it."""
        from azure.core.exceptions import AzureError, HttpResponseError

        from providers.azure.errors import ArmError
        from providers.bounded import Endless

        if isinstance(error, ArmError):  # there is no token
            return Unusable(error.detail)
        if isinstance(error, HttpResponseError) and error.response is not None:
            return self._answered(error)
        if isinstance(error, AzureError | OSError | Endless):
            return Unavailable(f"{urlsplit(self._endpoint).netloc} did not take the events: {plain(str(error))}")
        return error

    def _answered(self, error: Any) -> Exception:
        from providers.http import Answer, refusal

        status: int = error.response.status_code
        told = refusal(self._endpoint, Answer(status, error.response.headers, b""))
        # Of what JSON may hold, not always texts.
        code, text = (str(error.error.code or ""), str(error.error.message or "")) if error.error else ("", "")
        said = f"{told.detail}{f' ({plain(code)})' if code else ''}{f': {plain(text)}' if text else ''}"
        if advice := self._advice(status, code):
            return Unusable(f"{advice}; {said}")
        if status in _REFUSED:
            return Refused(said)
        if status in (408, 429) or status >= 500:
            return Unavailable(said, told.wait)
        return Unusable(f"{said}: nothing that the Logs Ingestion API says; is endpoint its address?")

    def _advice(self, status: int, code: str) -> str:
        """What somebody has to change; "" where it is the events, or time."""
        if status == 401:
            return "the token was not accepted: check tenant and cloud"
        if status == 403:
            return f"the role {ROLE} on the data collection rule {self._rule} is missing, or not half an hour old"
        if status == 404:
            return f"there is no data collection rule {self._rule} at this endpoint: check rule and endpoint"
        if status == 400 and code == _NO_STREAM:
            return f"the data collection rule {self._rule} declares no stream {self._stream}, or not since minutes"
        return ""


def columns(event: Event) -> Event:
    """What the table has a column for, TimeGenerated apart; `event` as read from its line. What an event lacks is left
    out."""
    metadata, cloud, unmapped = event["metadata"], event.get("cloud", {}), event.get("unmapped", {})
    found = {
        "EventTime": _time(event["time"]),
        "EventUid": metadata["uid"],
        "EventCode": metadata["event_code"],
        "ScanUid": metadata["correlation_uid"],
        "ClassUid": event["class_uid"],
        "Activity": event["activity_name"],
        "Status": event["status"],
        "StatusDetail": event.get("status_detail"),
        "Severity": event["severity"],
        "SeverityId": event["severity_id"],
        "Message": event["message"],
        "Baseline": unmapped.get("baseline", False),
        "Provider": cloud.get("provider"),
        "AccountUid": cloud.get("account", {}).get("uid"),
        "Region": cloud.get("region"),
        **_of_finding(event),
        **_of_resources(event),
        "ObjectsRead": event.get("total"),
        "Detections": event.get("num_detections"),
        "OcsfEvent": event,
    }
    return {name: value for name, value in found.items() if value is not None}


def _of_finding(event: Event) -> Event:
    info, compliance = event.get("finding_info"), event.get("compliance", {})
    if info is None:
        return {}
    return {
        "FindingUid": info["uid"],
        "CheckId": compliance.get("control"),
        "CheckTitle": info.get("title"),
        "Category": next(iter(info.get("types", ())), None),
        "Verdict": compliance.get("status"),
        "Reason": event.get("unmapped", {}).get("reason"),
        "Exempted": event["status_id"] == _SUPPRESSED,
        "FirstSeen": _time(info.get("first_seen_time")),
        "LastSeen": _time(info.get("last_seen_time")),
        "Remediation": event.get("remediation", {}).get("desc"),
    }


def _of_resources(event: Event) -> Event:
    """The object, and the cluster that it is in; a Scan Activity is of a cluster alone."""
    resources = event.get("resources", [])
    thing = resources[0] if resources else {}
    cluster = resources[1] if len(resources) > 1 else event.get("unmapped", {}).get("cluster", {})
    return {
        "ClusterName": cluster.get("name"),
        "ClusterUid": cluster.get("uid"),
        "Namespace": thing.get("namespace"),
        "ResourceKind": thing.get("type"),
        "ResourceName": thing.get("name"),
        "ResourceUid": thing.get("uid"),
        "Container": thing.get("data", {}).get("container"),
    }


def _time(time: int | None) -> str | None:
    if time is None:
        return None
    text = datetime.fromtimestamp(min(time, _LAST_TIME) / 1000, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
