"""AWS Security Hub: findings in the AWS Security Finding Format, by BatchImportFindings. docs/security-hub.md has the
whole mapping.

The hub keeps the state of each finding, not its events: what comes last counts, if its UpdatedAt is later than what the
hub has. Lengths are those of AwsSecurityFinding in the API reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from providers.aws.errors import AwsError, UsageError
from providers.aws.session import NO_ACCESS, REGION, AwsAccount, assumed, refuse_writes, session
from scanner import __project__
from scanner.config import ConfigError
from scanner.kube import printable
from scanner.model import GapReason
from scanner.plain import plain
from scanner.report.ocsf_event import CLOSE, COMPLIANCE, LIMIT, SEVERITIES, bounded, line
from scanner.sinks import Refused, Unavailable, Unusable

if TYPE_CHECKING:
    from scanner.report.ocsf_event import Event
    from scanner.sinks import Packed
    from scanner.sinks.settings import SecurityHubSink

SERVICE, IMPORT = "securityhub", "BatchImportFindings"
SCHEMA = "2018-10-08"
_TIMEOUT = 60.0  # seconds
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
_ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+")

# The values of status_id that are no call to do anything.
_SUPPRESSED, _RESOLVED = 3, 4
# What is neither is WARNING: "some information is missing".
_VERDICTS = {"pass": "PASSED", "fail": "FAILED", "not_applicable": "NOT_AVAILABLE"}
_CHECKS = "Software and Configuration Checks"
_TYPES = {"vulnerability": f"{_CHECKS}/Vulnerabilities", "coverage": f"{_CHECKS}/Kubernetes Posture/Coverage"}
_POSTURE = f"{_CHECKS}/Kubernetes Posture"
_ARN = re.compile(
    r"arn:(?P<partition>aws|aws-cn|aws-us-gov):"
    r"(?:eks:(?P<eks>[a-z0-9-]{1,16}):\d{12}:cluster/(?P<cluster>[\w-]+)"
    r"|ecr:(?P<ecr>[a-z0-9-]{1,16}):\d{12}:repository/(?P<repository>[a-z0-9._/-]+))"
)
_MOST_DETAILS = 20

# Codes that are about findings. AWS names none of those of single ones: what is not known here is never held against a
# finding.
_INVALID = frozenset(
    {
        *("InvalidInput", "InvalidInputException", "ValidationException", "SerializationException"),
        *("RequestEntityTooLargeException", "RequestTooLargeException", "413"),
    }
)
_NOBODY_CAN = frozenset({GapReason.NOT_CONFIGURED, GapReason.FORBIDDEN, GapReason.NOT_FOUND})


class _Failed(msgspec.Struct, rename="pascal"):
    id: str
    error_code: str
    error_message: str | None = None


class _Answer(msgspec.Struct, rename="pascal"):
    """Of BatchImportFindings."""

    failed_count: int
    success_count: int
    failed_findings: list[_Failed] | None = None


class SecurityHub:
    """The Security Hub of one region, in the account of the credentials."""

    most_events = 100
    # Of 6 MB, less what each finding gets when it is sent. None comes near the 240 KB that one may have.
    most_bytes = 5 * 1024 * 1024

    def __init__(self, account: AwsAccount, region: str, base: AwsAccount | None = None) -> None:
        """`base` is who assumes the role of `account`."""
        self._account, self._region, self._base = account, region, base

    def pack(self, event: Event) -> bytes | None:
        """ASFF without what only the account's credentials tell, and the time of sending."""
        if event["class_uid"] != COMPLIANCE.uid:
            return None
        # In ASCII, as boto3 sends it: so what is counted here is what the hub counts.
        return json.dumps(_finding(msgspec.json.decode(line(event)))).encode()

    def send(self, batch: Sequence[Packed]) -> Mapping[str, str]:
        findings: dict[str, Any] = {}
        uids: dict[str, list[str]] = {}
        for packed in batch:
            finding = msgspec.json.decode(packed.body)
            findings[finding["Id"]] = finding  # the later one: the hub has no place for both
            uids.setdefault(finding["Id"], []).append(packed.uid)
        try:
            if not self._account.id:
                self._account.identify()
            stamp = self._stamp()
            answer = self._account.call(
                SERVICE, self._region, IMPORT, Findings=[finding | stamp for finding in findings.values()]
            )
        except AwsError as error:
            raise self._failure(error) from None
        reasons = self._refused(answer, len(findings))
        if not reasons.keys() <= uids.keys():
            raise Refused("Security Hub refused findings without saying which")
        return {uid: reason for id, reason in reasons.items() for uid in uids[id]}

    def close(self) -> None:
        self._account.close()
        if self._base:
            self._base.close()

    def _stamp(self) -> dict[str, str]:
        """The same for each finding of a batch. The hub ignores an update, and does not say so, unless its UpdatedAt is
        later than the last: the time of what was seen stays the same where a bundle is judged again."""
        id, region = self._account.id, self._region
        return {
            "AwsAccountId": id,
            "ProductArn": f"arn:{self._account.partition}:{SERVICE}:{region}:{id}:product/{id}/default",
            "Region": region,
            "UpdatedAt": _time(datetime.now(UTC)),
        }

    def _refused(self, answer: Mapping[str, Any], sent: int) -> dict[str, str]:
        """Why, by id of the finding. Raises where the answer is about more than single findings, or not about all."""
        try:
            told = msgspec.convert(answer, _Answer)
        except msgspec.ValidationError:
            raise Unavailable(f"the answer to {IMPORT} does not say what has failed") from None
        failed = told.failed_findings or []
        codes = {found.error_code for found in failed} - _INVALID
        if {"InvalidAccess", "InvalidAccessException"} & codes:
            raise Unusable(self._not_enabled())
        named = plain(", ".join(sorted(codes)))
        if codes & NO_ACCESS:
            raise Unusable(f"Security Hub in {self._region} does not take findings from these credentials: {named}")
        if codes:
            raise Unavailable(f"Security Hub could not take all findings: {named}")
        if told.failed_count and not failed:
            raise Unavailable(f"Security Hub refused {told.failed_count} findings, and does not say why")
        if told.success_count + told.failed_count != sent:
            raise Unavailable(
                f"Security Hub was sent {sent} findings, and says that it took {told.success_count} "
                f"and refused {told.failed_count}"
            )
        reasons = {found.id: plain(f"{found.error_code}: {found.error_message or 'no reason'}") for found in failed}
        if len(reasons) != told.failed_count:
            raise Refused(f"Security Hub refused {told.failed_count} findings, and names {len(reasons)}")
        return reasons

    def _failure(self, error: AwsError) -> Exception:
        if error.code == "InvalidAccessException":
            return Unusable(self._not_enabled())
        if error.code in _INVALID:
            return Refused(error.detail)
        if error.reason not in _NOBODY_CAN:
            return Unavailable(error.detail)
        needed = f"; needed: {error.action}" if error.action else ""
        return Unusable(f"Security Hub in {self._region}: {error.detail}{needed}")

    def _not_enabled(self) -> str:
        return (
            f"Security Hub CSPM is not enabled for account {self._account.id} in {self._region}: "
            f"aws securityhub enable-security-hub --region {self._region}"
        )


def open_sink(settings: SecurityHubSink) -> SecurityHub:
    """Asks nothing yet. Raises ConfigError."""
    region, role = settings.region, settings.role_arn
    if role is not None and not _ROLE.fullmatch(role):
        raise ConfigError("security_hub: role_arn is no role: arn:aws:iam::123456789012:role/findings is one")
    if settings.external_id is not None and not role:
        raise ConfigError("security_hub: external_id goes with role_arn")
    if settings.external_id is not None and not _EXTERNAL_ID.fullmatch(settings.external_id):
        raise ConfigError("security_hub: external_id has 2 to 1224 letters, digits and + = , . @ : / _ -")
    try:
        found = session(settings.aws_profile)
        region = region or found.region_name
        if not region:
            raise ConfigError("security_hub: name its region, as in region: eu-west-1, or set AWS_DEFAULT_REGION")
        if not REGION.fullmatch(region):
            raise ConfigError(f"security_hub: {printable(region)!r} is no region: eu-west-1 is one")
        if not role:
            return SecurityHub(_account(found, region, _imports_only), region)
        base = _account(found, region)
        return SecurityHub(_account(assumed(base, role, settings.external_id), region, _imports_only), region, base)
    except UsageError as error:
        raise ConfigError(f"security_hub: {error}") from None
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("providers", "scanner"):
            raise
        raise ConfigError("security_hub needs the AWS SDK: pip install 'kubeposture[aws]'") from None


def _account(boto_session: Any, region: str, guard: Any = None) -> AwsAccount:
    # One attempt: who sends tries again.
    account = AwsAccount(boto_session, request_timeout=_TIMEOUT, connections=1, attempts=1, guard=guard)
    account.home = region
    return account


def _imports_only(model: Any, **_: Any) -> None:
    """A botocore event hook: the one call that writes, and what a scan may call."""
    if (model.service_model.service_name, model.name) != (SERVICE, IMPORT):
        refuse_writes(model)


# ---------------------------------------------------------------------------------------------------------------------
# The mapping


def _finding(event: Event) -> dict[str, Any]:
    info, check = event["finding_info"], event["metadata"]["event_code"]
    last = info.get("last_seen_time", event["time"])
    first = info.get("first_seen_time", last)
    title = _text(info.get("title"), 256) or _text(check, 256)
    closed = event["activity_id"] == CLOSE
    found = {
        "SchemaVersion": SCHEMA,
        "Id": info["uid"],
        "ProductName": __project__,
        "CompanyName": __project__,
        "GeneratorId": _id(check),
        "CreatedAt": _moment(first),
        "FirstObservedAt": _moment(first),
        "LastObservedAt": _moment(last),
        "Title": title,
        "Description": _text(event.get("message"), 1024) or title,
        "FindingProviderFields": {
            "Severity": {"Label": SEVERITIES[event["severity_id"]].upper()},
            "Types": [_TYPES.get(kind, _POSTURE) for kind in info.get("types", [""])],
        },
        "Resources": _resources(event),
        "Compliance": _compliance(event["compliance"], closed=closed),
        "ProductFields": _fields(event),
        # Workflow is the customer's: set by an import, no later import could take it back.
        "RecordState": "ARCHIVED" if closed or event["status_id"] in (_SUPPRESSED, _RESOLVED) else "ACTIVE",
    }
    if advice := _text(event.get("remediation", {}).get("desc"), 512):
        found["Remediation"] = {"Recommendation": {"Text": advice}}
    return found


def _compliance(compliance: Mapping[str, Any], *, closed: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Status": "PASSED" if closed else _VERDICTS.get(compliance.get("status_code", ""), "WARNING")
    }
    requirements = [text for what in compliance.get("requirements", [])[:32] if (text := _text(what, 64))]
    if requirements:
        found["RelatedRequirements"] = requirements
    return found


def _resources(event: Event) -> list[dict[str, Any]]:
    """The object, and its cluster where that is another."""
    found: dict[str, dict[str, Any]] = {}
    for resource in event["resources"][:32]:
        asff = _resource(resource)
        found.setdefault(asff["Id"], asff)
    return list(found.values())


def _resource(resource: Mapping[str, Any]) -> dict[str, Any]:
    """A type of AWS only where the id is the ARN that goes with it: the hub knows none for what is not of AWS."""
    uid = resource["uid"]
    match = _ARN.fullmatch(uid)
    found: dict[str, Any] = {"Type": "Other", "Id": _id(uid)}
    details: dict[str, Any] = {"Other": dict(_told(resource))}
    if match and match["cluster"]:
        found["Type"] = "AwsEksCluster"
        details["AwsEksCluster"] = {"Arn": uid, "Name": match["cluster"]}
    elif match:
        found["Type"] = "AwsEcrRepository"
        details["AwsEcrRepository"] = {"Arn": uid, "RepositoryName": match["repository"]}
    if match:
        found |= {"Partition": match["partition"], "Region": match["eks"] or match["ecr"]}
    return found | {"Details": details}


def _told(resource: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    data = resource.get("data", {})
    source = data.get("source")
    values = {
        "Kind": resource.get("type"),
        "Name": resource.get("name"),
        "Namespace": resource.get("namespace"),
        "ApiGroup": resource.get("group", {}).get("name"),
        "Version": resource.get("version"),
        "Region": resource.get("region"),
        "Uid": resource.get("uid_alt"),
        "Container": data.get("container"),
        "ManagedBy": data.get("managed_by"),
        "Source": source and f"{source['path']}:{source['line']}",
        "Labels": ", ".join(resource.get("labels", [])),
    }
    for key, value in values.items():
        if text := _text(value, 1024):
            yield key, text


def _fields(event: Event) -> dict[str, str]:
    """What has no place in ASFF."""
    compliance, unmapped, cloud = event["compliance"], event.get("unmapped", {}), event.get("cloud", {})
    parameters = (f"{found['name']}={found['value']}" for found in compliance.get("control_parameters", []))
    values = {
        "check": event["metadata"]["event_code"],
        "status": compliance.get("status_code"),
        "lifecycle": event["status"],
        "note": event.get("status_detail"),
        "reason": unmapped.get("reason"),
        "occurrences": unmapped.get("occurrences"),
        "parameters": ", ".join(parameters),
        "provider": cloud.get("provider"),
        "account": cloud.get("account", {}).get("uid"),
        "region": cloud.get("region"),
        "scan": event["metadata"]["correlation_uid"],
        "event": event["metadata"]["uid"],
    }
    details = compliance.get("status_details", [])[:_MOST_DETAILS]
    values |= {f"detail/{number:02}": text for number, text in enumerate(details, 1)}
    return {f"{__project__}/{key}": text for key, value in values.items() if (text := _text(value, 1024))}


def _text(value: object, most: int) -> str:
    """ "" for what there is not: the hub refuses empty texts."""
    return "" if value is None else printable(value, most).strip()


def _id(uid: str) -> str:
    return bounded(printable(uid, LIMIT)) or "-"


def _moment(milliseconds: int) -> str:
    return _time(datetime.fromtimestamp(milliseconds / 1000, UTC))


def _time(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
