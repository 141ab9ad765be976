"""Roles of IAM: whom they trust, and the policies that say what they may do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from providers.aws.errors import AwsError
from scanner.cloud import kept

Json = dict[str, Any]

_KEEP = (
    "Version",
    *(f"Statement.{element}" for element in ("Sid", "Effect", "Condition")),
    *(f"Statement.{no}{element}" for element in ("Principal", "Action", "Resource") for no in ("", "Not")),
)


class Account(Protocol):
    """Where answers come from: the calls of one identity in one account of AWS, or a recording of them."""

    id: str
    partition: str
    home: str

    def call(self, service: str, region: str | None, operation: str, **parameters: Any) -> Json: ...

    def pages(
        self, service: str, region: str | None, operation: str, items: str, **parameters: Any
    ) -> Iterator[list[Any]]: ...

    def answers(self, service: str, region: str | None, operation: str, **parameters: Any) -> Iterator[Json]: ...


def existence(account: Account, name: str) -> Json:
    """`roleName`, `exists`, and the `arn` of one that does. Raises AwsError."""
    return _named(name, _role(account, name))


def role(account: Account, name: str) -> Json:
    """The same with `trustPolicy`, all `policies` of the role, attached or within it, and the `boundary` that limits
    them, a list of one or none; each of these with its `name` and parsed `document`, of conditions only operators and
    keys. Raises AwsError; KeyError or TypeError for an answer that is not understood."""
    found = _role(account, name)
    if found is None:
        return _named(name, None)
    limit = found.get("PermissionsBoundary")
    attached = [
        _managed(account, item["PolicyArn"])
        for page in account.pages("iam", account.home, "ListAttachedRolePolicies", "AttachedPolicies", RoleName=name)
        for item in page
    ]
    inline = [
        _inline(account, name, policy)
        for page in account.pages("iam", account.home, "ListRolePolicies", "PolicyNames", RoleName=name)
        for policy in page
    ]
    return {
        **_named(name, found),
        "trustPolicy": {"document": _document(found["AssumeRolePolicyDocument"])},
        "policies": [*attached, *inline],
        "boundary": [_managed(account, limit["PermissionsBoundaryArn"])] if limit is not None else [],
    }


def _role(account: Account, name: str) -> Json | None:
    try:
        found = account.call("iam", account.home, "GetRole", RoleName=name)["Role"]
    except AwsError as error:
        if error.code == "NoSuchEntity":
            return None
        raise
    return _object(found)


def _named(name: str, found: Json | None) -> Json:
    return {"roleName": name, "exists": True, "arn": found["Arn"]} if found else {"roleName": name, "exists": False}


def _managed(account: Account, arn: str) -> Json:
    """A managed policy in the version that counts."""
    policy = account.call("iam", account.home, "GetPolicy", PolicyArn=arn)["Policy"]
    version = policy["DefaultVersionId"]
    found = account.call("iam", account.home, "GetPolicyVersion", PolicyArn=arn, VersionId=version)["PolicyVersion"]
    return {"name": arn, "document": _document(found["Document"])}


def _inline(account: Account, role_name: str, name: str) -> Json:
    found = account.call("iam", account.home, "GetRolePolicy", RoleName=role_name, PolicyName=name)
    return {"name": name, "document": _document(found["PolicyDocument"])}


def _object(found: Any) -> Json:
    """Documents were parsed by boto3, which leaves what is no JSON as the text that it was."""
    if not isinstance(found, dict) or not found:
        raise TypeError
    return found


def _document(found: Any) -> Json:
    document = kept(_object(found), _KEEP)
    told = document.get("Statement")
    for statement in told if isinstance(told, list) else [told]:
        if isinstance(statement, dict) and isinstance(statement.get("Condition"), dict):
            statement["Condition"] = {how: _without_values(tests) for how, tests in statement["Condition"].items()}
    return document


def _without_values(tests: Any) -> Json | None:
    """The keys of a condition, not what they are compared with: nobody judges that, and an external id is a secret."""
    return dict.fromkeys(tests) if isinstance(tests, dict) else None
