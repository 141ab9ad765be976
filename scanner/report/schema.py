"""The published JSON Schemas of the report and of the configuration file.

They are generated from the types that are written and read, so that they cannot drift; a test keeps the files beside
this module equal to what is generated here.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import msgspec

from scanner.check import Check, type_name
from scanner.config import Config
from scanner.findings import SCHEMA_VERSION
from scanner.report.to_json import Report

FOLDER = Path(__file__).parent / "schemas"
REPORT = "report-1.schema.json"
CONFIG = "kubeposture.schema.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def report_schema() -> dict[str, Any]:
    """Closed: a field that is not listed makes a report invalid."""
    schema = msgspec.json.schema(Report)
    for definition in schema["$defs"].values():
        if "description" in definition:  # a docstring, which Python 3.13 has cleaned already
            definition["description"] = inspect.cleandoc(definition["description"])
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
