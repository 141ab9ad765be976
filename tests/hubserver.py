"""AWS Security Hub and STS on a loopback socket, for the real boto3: as strict as AWS's documentation is.

    with HubServer() as hub:
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        ...
    assert hub.findings["kp1_…"]["RecordState"] == "ACTIVE"

What breaks a rule that is written down anywhere is refused, as AWS would, and noted in `breaches`, which the end of the
block raises: nothing that is sent may break one. `answers` holds what is said in place of the next answers.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from registryserver import Reply, Request, Server

ACCOUNT, OTHER, REGION = "111122223333", "444455556666", "eu-west-1"
ROLE = f"arn:aws:iam::{OTHER}:role/findings"
EXTERNAL_ID = "shared"
KEYS = {"AKIAHOME": ACCOUNT, "ASIAOTHER": OTHER}

REQUIRED = {
    *("AwsAccountId", "CreatedAt", "Description", "GeneratorId", "Id", "ProductArn", "Resources", "SchemaVersion"),
    *("Title", "UpdatedAt"),
}
# BatchImportFindings may not update these, or should not.
CUSTOMERS = {
    *("Note", "UserDefinedFields", "VerificationState", "Workflow", "WorkflowState"),
    *("Confidence", "Criticality", "RelatedFindings", "Severity", "Types"),
}
LENGTHS = {
    "Id": 512,
    "ProductArn": 2048,
    "GeneratorId": 512,
    "Title": 256,
    "Description": 1024,
    "Region": 16,
    "ProductName": 128,
    "CompanyName": 128,
}
LABELS = {"INFORMATIONAL", "LOW", "MEDIUM", "HIGH", "CRITICAL"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
TYPE = re.compile(r"(Software and Configuration Checks|TTPs|Effects)(/[^/]+){0,2}")
ARNS = {
    "AwsEksCluster": re.compile(r"arn:aws(-cn|-us-gov)?:eks:[\w-]+:\d{12}:cluster/[\w-]+"),
    "AwsEcrRepository": re.compile(r"arn:aws(-cn|-us-gov)?:ecr:[\w-]+:\d{12}:repository/[\w./-]+"),
}
MOST_BODY, MOST_FINDING = 6_000_000, 240_000


@dataclass
class HubServer:
    account: str = ACCOUNT
    region: str = REGION
    partition: str = "aws"
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)
    answers: list[Reply] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        self.server = Server(self._answer)
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()
        assert self.breaches == []

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.server.url,
            "AWS_ACCESS_KEY_ID": "AKIAHOME",
            "AWS_SECRET_ACCESS_KEY": "a-secret-that-is-not-told",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def _answer(self, request: Request) -> Reply:
        scope = re.search(r"Credential=(\w+)/\d{8}/([\w-]+)/(\w+)/aws4_request", request.headers["authorization"])
        assert scope, "not signed"
        key, region, service = scope.groups()
        caller = KEYS[key].replace(ACCOUNT, self.account)
        if region != self.region:
            self.breaches.append(f"{service} was asked in {region}")
        if service == "sts":
            return self._identity(parse_qs(request.body.decode()), caller)
        if self.answers:
            return self.answers.pop(0)
        assert (service, request.method, request.path) == ("securityhub", "POST", "/findings/import")
        return self._import(request.body, caller)

    def _identity(self, asked: dict[str, list[str]], caller: str) -> Reply:
        [action] = asked["Action"]
        if action == "GetCallerIdentity":
            arn = f"arn:{self.partition}:iam::{caller}:user/scanner"
            found = f"<Arn>{arn}</Arn><Account>{caller}</Account>"
        else:
            assert (action, asked["RoleArn"], asked["ExternalId"]) == ("AssumeRole", [ROLE], [EXTERNAL_ID])
            found = (
                "<Credentials><AccessKeyId>ASIAOTHER</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
                "<SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
            )
        body = f"<{action}Response><{action}Result>{found}</{action}Result></{action}Response>"
        return Reply(200, body.encode(), (("Content-Type", "text/xml"),))

    def _import(self, body: bytes, caller: str) -> Reply:
        findings = json.loads(body)["Findings"]
        self.batches.append(len(findings))
        if len(body) > MOST_BODY or not 1 <= len(findings) <= 100:
            self.breaches.append(f"{len(findings)} findings in {len(body)} bytes")
        ids = [finding["Id"] for finding in findings]
        if len(set(ids)) != len(ids):
            self.breaches.append("a finding twice in a batch")
        failed = []
        for finding in findings:
            wrong = [*self._wrong(finding, caller), *self._stale(finding)]
            if wrong:
                self.breaches.append(f"{finding['Id']}: {wrong}")
                failed.append({"Id": finding["Id"], "ErrorCode": "InvalidInput", "ErrorMessage": str(wrong)})
            else:
                self.findings[finding["Id"]] = finding
        counts = {"FailedCount": len(failed), "SuccessCount": len(findings) - len(failed)}
        return Reply(200, {**counts, "FailedFindings": failed})

    def _stale(self, finding: dict[str, Any]) -> list[str]:
        """What AWS ignores without a word."""
        known = self.findings.get(finding["Id"])
        return ["UpdatedAt is not later"] if known and finding["UpdatedAt"] <= known["UpdatedAt"] else []

    def _wrong(self, finding: dict[str, Any], caller: str) -> list[str]:
        product = f"arn:{self.partition}:securityhub:{self.region}:{caller}:product/{caller}/default"
        rules = {
            "size": len(json.dumps(finding).encode()) <= MOST_FINDING,
            "required": finding.keys() >= REQUIRED,
            "customers'": not finding.keys() & CUSTOMERS,
            "account": finding.get("AwsAccountId") == caller,
            "product": finding.get("ProductArn") == product,
            "region": finding.get("Region") == self.region,
            "schema": finding.get("SchemaVersion") == "2018-10-08",
            "lengths": all(len(finding.get(name, "x")) <= most for name, most in LENGTHS.items()),
            "blank": all(text.strip() for text in _texts(finding)),
            "times": all(TIME.fullmatch(finding[name]) for name in finding if name.endswith("At")),
            "order": finding["CreatedAt"] <= finding["UpdatedAt"],
            "severity": finding["FindingProviderFields"]["Severity"]["Label"] in LABELS,
            "types": all(TYPE.fullmatch(kind) for kind in finding["FindingProviderFields"]["Types"]),
            "advice": len(finding.get("Remediation", {}).get("Recommendation", {}).get("Text", "x")) <= 512,
            "fields": _fits(finding.get("ProductFields", {}), 2048),
            "verdict": finding["Compliance"]["Status"] in {"PASSED", "WARNING", "FAILED", "NOT_AVAILABLE"},
            "requirements": len(finding["Compliance"].get("RelatedRequirements", [])) <= 32
            and all(len(text) <= 64 for text in finding["Compliance"].get("RelatedRequirements", [])),
            "state": finding.get("RecordState") in {"ACTIVE", "ARCHIVED"},
            "resources": 1 <= len(finding["Resources"]) <= 32 and all(map(_is_resource, finding["Resources"])),
        }
        return [rule for rule, holds in rules.items() if not holds]


def _is_resource(resource: dict[str, Any]) -> bool:
    kind, id, details = resource["Type"], resource["Id"], resource["Details"]
    if kind != "Other" and not ARNS[kind].fullmatch(id):
        return False
    of_aws = kind != "Other"
    place = resource.get("Partition") in {"aws", "aws-cn", "aws-us-gov"} and len(resource.get("Region", "")) in range(
        1, 17
    )
    return (
        len(id) <= 512
        and place == of_aws
        and set(details) == ({"Other", kind} if of_aws else {"Other"})
        and _fits(details["Other"], 1024)
    )


def _fits(fields: dict[str, str], most: int) -> bool:
    return len(fields) <= 50 and all(
        isinstance(value, str) and len(key) <= 128 and len(value) <= most for key, value in fields.items()
    )


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    values = value.values() if isinstance(value, dict) else value
    return [text for item in values for text in _texts(item)]
