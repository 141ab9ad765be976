"""The published JSON Schemas of the report and of the configuration file.

They are generated from the types that are written and read, so that they cannot drift; a test keeps the files beside
this module equal to what is generated here.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from scanner.check import Check, type_name
from scanner.config import Config
from scanner.findings import SCHEMA_VERSION
from scanner.model import Cluster, Finding, GapReason
from scanner.report import ScanInfo

FOLDER = Path(__file__).parent / "schemas"
REPORT = "report-1.schema.json"
CONFIG = "kubeposture.schema.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Tool(msgspec.Struct):
    name: str
    version: str


class AccountCoverage(msgspec.Struct):
    expected: int
    read: int
    refused: int


class ClusterCoverage(msgspec.Struct):
    expected: int | None
    judged: int
    partial: int
    unread: int


class ObjectCoverage(msgspec.Struct):
    read: int
    judged: int
    skipped: int
    invalid: int


class FileCoverage(msgspec.Struct):
    read: int
    failed: int


class Coverage(msgspec.Struct):
    accounts: AccountCoverage
    clusters: ClusterCoverage
    objects: ObjectCoverage
    files: FileCoverage


class GapRow(msgspec.Struct):
    provider: str
    account: str | None
    region: str | None
    cluster: str | None
    namespace: str
    what: str
    reason: GapReason
    detail: str
    permission: str
    time: datetime | None


class Score(msgspec.Struct):
    value: float | None
    low: float | None
    high: float | None


class Summary(msgspec.Struct):
    by_status: dict[str, int]
    by_severity: dict[str, int]
    by_check: dict[str, dict[str, int]]
    by_cluster: dict[str, dict[str, int]]
    exempted: int
    score: Score


class Report(msgspec.Struct):
    """The JSON report, field for field."""

    schema_version: str
    tool: Tool
    scan: ScanInfo
    coverage: Coverage
    gaps: list[GapRow]
    clusters: list[Cluster]
    summary: Summary
    findings: list[Finding]


def report_schema() -> dict[str, Any]:
    """Closed: a field that is not listed makes a report invalid."""
    schema = msgspec.json.schema(Report)
    for definition in schema["$defs"].values():
        if definition.get("type") == "object" and "properties" in definition:
            definition["required"] = list(definition["properties"])
            definition["additionalProperties"] = False
    schema["$defs"]["Finding"]["properties"]["id"] = {"type": "string", "pattern": "^kp1_[0-9a-f]{32}$"}
    title = f"kubeposture report, version {SCHEMA_VERSION}"
    return {"$schema": _DIALECT, "title": title, **schema}


def config_schema(checks: dict[str, Check]) -> dict[str, Any]:
    """For editors: completes the names of checks and parameters."""
    schema = msgspec.json.schema(Config)
    properties = schema["$defs"]["Config"]["properties"]
    properties["parameters"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {id: _parameters(check) for id, check in checks.items() if check.parameters},
    }
    return {"$schema": _DIALECT, "title": "kubeposture.yaml", **schema}


def _parameters(check: Check) -> dict[str, Any]:
    described = {p.name: {"description": f"{p.doc} ({type_name(p.type)})"} for p in check.parameters.values()}
    return {"type": "object", "additionalProperties": False, "properties": described, "description": check.title}


def files(checks: dict[str, Check]) -> dict[str, bytes]:
    """File name -> content of each published schema."""
    schemas = {REPORT: report_schema(), CONFIG: config_schema(checks)}
    return {name: msgspec.json.format(msgspec.json.encode(s), indent=2) + b"\n" for name, s in schemas.items()}
