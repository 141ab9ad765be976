"""Roles of IAM: whom they trust, and the policies that say what they may do."""

from __future__ import annotations

from typing import Any

from providers.aws.errors import AwsError
from providers.aws.session import AwsAccount

Json = dict[str, Any]


def existence(account: AwsAccount, name: str) -> Json:
    """`roleName`, `exists`, and the `arn` of one that does. Raises AwsError."""
    return _named(name, _role(account, name))


def role(account: AwsAccount, name: str) -> Json:
    """The same with `trustPolicy`, all `policies` of the role, attached or within it, and the `boundary` that limits
    them, a list of one or none; each of these with its `name` and parsed `document`. Raises AwsError; KeyError or
    TypeError for an answer that is not understood."""
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
        "trustPolicy": {"document": _object(found["AssumeRolePolicyDocument"])},
        "policies": [*attached, *inline],
        "boundary": [_managed(account, limit["PermissionsBoundaryArn"])] if limit is not None else [],
    }


def _role(account: AwsAccount, name: str) -> Json | None:
    try:
        found = account.call("iam", account.home, "GetRole", RoleName=name)["Role"]
    except AwsError as error:
        if error.code == "NoSuchEntity":
            return None
        raise
    return _object(found)


def _named(name: str, found: Json | None) -> Json:
    return {"roleName": name, "exists": True, "arn": found["Arn"]} if found else {"roleName": name, "exists": False}


def _managed(account: AwsAccount, arn: str) -> Json:
    """A managed policy in the version that counts."""
    policy = account.call("iam", account.home, "GetPolicy", PolicyArn=arn)["Policy"]
    version = policy["DefaultVersionId"]
    found = account.call("iam", account.home, "GetPolicyVersion", PolicyArn=arn, VersionId=version)["PolicyVersion"]
    return {"name": arn, "document": _object(found["Document"])}


def _inline(account: AwsAccount, role_name: str, name: str) -> Json:
    found = account.call("iam", account.home, "GetRolePolicy", RoleName=role_name, PolicyName=name)
    return {"name": name, "document": _object(found["PolicyDocument"])}


def _object(found: Any) -> Json:
    """Documents were parsed by boto3, which leaves what is no JSON as the text that it was."""
    if not isinstance(found, dict) or not found:
        raise TypeError
    return found
