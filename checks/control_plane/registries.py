"""Who may pull from a registry, and what leaves it."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from scanner.aws import EcrRepository
from scanner.azure import ContainerRegistry
from scanner.check import ACCESS, check
from scanner.cloud import Facts, expect, malformed, wrong
from scanner.gcp import ArtifactRepository, is_everyone
from scanner.iam import denies, statements
from scanner.model import Evidence, Gap, MissingEvidence, Severity, Verdict

_POLICIES = "properties.policies"
ContentPolicy = Literal["quarantinePolicy", "trustPolicy", "retentionPolicy"]


@check(
    "azure-acr-admin-user",
    Severity.HIGH,
    controls=ACCESS,
    fix="Run `az acr update -n REGISTRY --admin-enabled false` once clients use Entra ID or repository tokens.",
    refs=(
        "azure-policy-1:dc921057-6b28-4fbe-9b83-f7bec05db6c2",
        "checkov:CKV_AZURE_137",
        "prowler:containerregistry_admin_user_disabled",
    ),
)
def acr_admin_user(r: ContainerRegistry) -> Verdict:
    """Container registries should have the admin user disabled

    The admin user is one shared password that may push and delete every image, and leaves no name in the logs.
    """
    enabled = r.flag("properties.adminUserEnabled")
    return expect(not enabled.value, "the admin user with its shared password is on", enabled)


@check(
    "azure-acr-anonymous-pull",
    Severity.HIGH,
    controls=ACCESS,
    fix="Run `az acr update -n REGISTRY --anonymous-pull-enabled false`.",
    refs=("azure-policy-1:9f2dea28-e834-476c-99c5-3507b4728395", "checkov:CKV_AZURE_138"),
)
def acr_anonymous_pull(r: ContainerRegistry) -> Verdict:
    """Container registries should not allow anonymous pull

    Images hold code, and too often configuration and secrets. Anonymous pull gives all of them to whoever asks.
    """
    enabled = r.flag("properties.anonymousPullEnabled")
    return expect(not enabled.value, "everyone can pull every image without signing in", enabled)


@check(
    "azure-acr-arm-audience-token",
    Severity.LOW,
    controls=ACCESS,
    fix="Run `az acr config authentication-as-arm update -r REGISTRY --status disabled`.",
    refs=("azure-policy-1:42781ec6-6127-4c30-bdfa-fb423a0047d3",),
)
def acr_arm_audience_token(r: ContainerRegistry) -> Verdict:
    """Container registries should not accept tokens made for Azure Resource Manager

    A token that leaks from any tool that manages Azure then also opens the registry. Tokens made for registries do not
    open anything else.
    """
    status = r.text(f"{_POLICIES}.azureADAuthenticationAsArmPolicy.status")
    return expect(status.equals("disabled"), "tokens made for Azure Resource Manager open the registry", status)


@check(
    "azure-acr-export",
    Severity.LOW,
    controls=ACCESS,
    fix="With public network access off, run `az resource update --ids REGISTRY_ID --set "
    "properties.policies.exportPolicy.status=disabled`.",
    refs=("azure-policy-1:524b0254-c285-4903-bee6-bb8126cde579",),
)
def acr_export(
    r: ContainerRegistry,
    *,
    azure_rules: Annotated[bool, "public network access must be disabled too"] = False,
) -> Verdict:
    """Container registries should not allow export

    With export on, `az acr import` and transfer pipelines copy images to registries that you do not control.
    """
    status = r.text(f"{_POLICIES}.exportPolicy.status")
    message = "images can be exported to other registries"
    if not azure_rules or not status.equals("disabled"):
        return expect(status.equals("disabled"), message, status)
    access = r.text("properties.publicNetworkAccess")
    return expect(access.equals("Disabled"), "public network access is not disabled", status, access)


@check(
    "azure-acr-content-policies",
    Severity.INFO,
    controls=("Remediate vulnerabilities",),
    fix="Run `az acr config retention update -r REGISTRY --status enabled --days 30 --type UntaggedManifests`, and "
    "`az resource update --ids REGISTRY_ID --set properties.policies.quarantinePolicy.status=enabled`.",
    refs=("checkov:CKV_AZURE_164", "checkov:CKV_AZURE_166", "checkov:CKV_AZURE_167"),
)
def acr_content_policies(
    r: ContainerRegistry,
    *,
    policies: Annotated[tuple[ContentPolicy, ...], "content policies that must be enabled"] = (
        "quarantinePolicy",
        "retentionPolicy",
    ),
) -> Verdict:
    """Container registries should quarantine new images and remove untagged ones

    Quarantine holds an image back until it was scanned; retention removes manifests that nobody can name. Docker
    content trust, trustPolicy, counts only where it is asked for: Azure is retiring it.
    """
    states = [r.text(f"{_POLICIES}.{name}.status") for name in policies]
    off = [name for name, state in zip(policies, states, strict=True) if not state.equals("enabled")]
    return expect(not off, f"not enabled: {', '.join(off)}", *states)


# ---------------------------------------------------------------------------------------------------------------------
# AWS


@check(
    "aws-ecr-public-policy",
    Severity.CRITICAL,
    controls=ACCESS,
    fix="Name accounts or roles in the policy, or limit it with a condition such as aws:PrincipalOrgID, with `aws ecr "
    "set-repository-policy`; without sharing run `aws ecr delete-repository-policy --repository-name REPOSITORY`.",
    refs=("checkov:CKV_AWS_32", "prowler:ecr_repositories_not_publicly_accessible"),
    needs=("policy",),
)
def ecr_public_policy(r: EcrRepository) -> Verdict:
    """ECR repositories should not be open to every AWS account

    A policy that allows every principal, without a condition, opens the repository to all of AWS's customers. Whether
    a condition is narrow enough is not judged: it is shown. A Deny beside it does not make up for it.
    """
    policies = r.listed("policy")
    if not policies:
        return expect(True, "", Evidence("policy", "none"))
    limited: list[Evidence] = []
    public: list[Evidence] = []
    gaps: list[Gap] = []
    for statement in (statement for policy in policies for statement in statements(policy)):
        try:
            if _allows_everyone(statement):
                condition = statement.part("Condition")
                (limited if condition.wire else public).append(_shown(condition if condition.wire else statement))
        except MissingEvidence as missing:
            gaps += missing.gaps
    if gaps and not public:
        raise MissingEvidence(*gaps)
    evidence = public or limited or [Evidence("policy", "names who it allows")]
    return expect(not public, "every AWS account may do what the policy allows", *evidence)


_PRINCIPALS = {"AWS", "CanonicalUser", "Federated", "Service", "*"}


def _allows_everyone(statement: Facts) -> bool:
    """Whether it allows all principals, or all but some; raises MissingEvidence where it is no valid statement."""
    if denies(statement):
        return False
    if statement.get("NotPrincipal") is not None:
        return True
    principal = statement.get("Principal")
    if principal == "*":
        return True
    if not isinstance(principal, dict) or not principal or not set(principal) <= _PRINCIPALS:
        raise malformed(f"{statement.path}.Principal", "a principal")
    groups = [value if isinstance(value, list) else [value] for value in principal.values()]
    names = [name for group in groups for name in group]
    if "*" in names:
        return True
    if not names or not all(isinstance(name, str) for name in names):
        raise malformed(f"{statement.path}.Principal", "a principal")
    return False


def _shown(part: Facts) -> Evidence:
    """A condition in full, of a statement whom it allows."""
    keys = [key for key in ("Principal", "NotPrincipal") if key in part.wire]
    if not keys:
        return Evidence(part.path, json.dumps(part.wire, sort_keys=True)[:200])
    return Evidence(f"{part.path}.{keys[-1]}", json.dumps(part.wire[keys[-1]], sort_keys=True)[:200])


# ---------------------------------------------------------------------------------------------------------------------
# GCP


@check(
    "gcp-gar-public",
    Severity.CRITICAL,
    controls=ACCESS,
    fix="Run `gcloud artifacts repositories remove-iam-policy-binding REPOSITORY --location LOCATION --member allUsers "
    "--role ROLE` for each role, and the same for allAuthenticatedUsers.",
    refs=("checkov:CKV_GCP_101",),
    needs=("iamPolicy",),
)
def gar_public(r: ArtifactRepository) -> Verdict:
    """Artifact Registry repositories should not be open to everyone

    Images hold code, and too often configuration and secrets. allAuthenticatedUsers is everyone with a Google account.
    What the project, a folder or the organization grants is not seen from here.
    """
    policies = r.listed("iamPolicy")
    if not policies:
        raise malformed("iamPolicy", "a policy")
    bindings = [binding for policy in policies for binding in policy.parts("bindings", "role")]
    public = wrong(bindings, _public_members)
    shown = public or [Evidence("iamPolicy", "names who it allows" if bindings else "no bindings")]
    return expect(not public, "everyone may use the repository", *shown)


def _public_members(binding: Facts) -> list[Evidence]:
    members = binding.words("members")
    if members.sent is None:
        raise malformed(members.path, "a list of members")
    return [Evidence(members.path, member) for member in members.value if is_everyone(member)]
