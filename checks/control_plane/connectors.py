"""Accounts of other clouds that are connected to Microsoft Defender for Cloud."""

from __future__ import annotations

from scanner.azure import SecurityConnector
from scanner.check import check
from scanner.cloud import Facts, Setting, expect
from scanner.model import Evidence, Gap, GapReason, MissingEvidence, Severity, Verdict, fail, not_applicable, text

_DEFENDER = ("Enable enhanced security features",)
_ENVIRONMENT = "properties.environmentName"
_OFFERINGS = "properties.offerings"


def _connects(c: SecurityConnector, cloud: str) -> bool:
    """Raises MissingEvidence where the connector does not say what it connects: it could be this cloud."""
    environment = c.text(_ENVIRONMENT)
    if not environment.value:
        detail = f"{_ENVIRONMENT} is not set"
        raise MissingEvidence(Gap(what=_ENVIRONMENT, reason=GapReason.BAD_DATA, detail=detail))
    return environment.equals(cloud)


def _offering(c: SecurityConnector, kind: str) -> Facts | None:
    offerings = c.parts(_OFFERINGS, "offeringType")
    return next((o for o in offerings if o.text("offeringType").equals(kind)), None)


def _has_plan(c: SecurityConnector, kind: str) -> Verdict:
    offering = _offering(c, kind)
    if offering:
        return expect(True, "", offering.text("offeringType"))
    kinds = [o.text("offeringType").value for o in c.parts(_OFFERINGS)]
    return fail("the Defender for Containers plan is off", Evidence(_OFFERINGS, text(kinds)))


@check(
    "aws-connector-defender-containers",
    Severity.HIGH,
    controls=_DEFENDER,
    fix="In Defender for Cloud, Environment settings, open the AWS connector and switch the Containers plan on; then "
    "update its CloudFormation stack.",
    refs=("mdc:11d0f4af-6924-4a2e-8b66-781a4553c828",),
)
def aws_connector_defender_containers(c: SecurityConnector) -> Verdict:
    """Microsoft Defender for Containers should be enabled on AWS connectors

    Without the plan Defender for Cloud neither watches the account's EKS clusters nor scans its images.
    """
    if not _connects(c, "AWS"):
        return not_applicable("other_environment")
    return _has_plan(c, "DefenderForContainersAws")


@check(
    "gcp-connector-defender-containers",
    Severity.HIGH,
    controls=_DEFENDER,
    fix="In Defender for Cloud, Environment settings, open the GCP connector and switch the Containers plan on; then "
    "run its onboarding script.",
    refs=("mdc:d42ac63d-0592-43b2-8bfa-ff9199da595e",),
)
def gcp_connector_defender_containers(c: SecurityConnector) -> Verdict:
    """Microsoft Defender for Containers should be enabled on GCP connectors

    Without the plan Defender for Cloud neither watches the project's GKE clusters nor scans its images.
    """
    if not _connects(c, "GCP"):
        return not_applicable("other_environment")
    return _has_plan(c, "DefenderForContainersGcp")


# What each switch is called in the API versions of 2024 and of 2023.
_SWITCHES = {
    "audit logs": ("enableAuditLogsAutoProvisioning", "auditLogsAutoProvisioningFlag"),
    "Defender sensor": ("enableDefenderAgentAutoProvisioning", "defenderAgentAutoProvisioningFlag"),
    "Azure Policy": ("enablePolicyAgentAutoProvisioning", "policyAgentAutoProvisioningFlag"),
    "agentless discovery": ("mdcContainersAgentlessDiscoveryK8s.enabled",),
    "image assessment": ("mdcContainersImageAssessment.enabled",),
}


@check(
    "gcp-connector-defender-advanced",
    Severity.HIGH,
    controls=_DEFENDER,
    fix="In Defender for Cloud, Environment settings, open the GCP connector, then the settings of the Containers "
    "plan, and switch every component on.",
    refs=("mdc:b7683ca3-3a11-49b6-b9d4-a112713edfa3",),
)
def gcp_connector_defender_advanced(c: SecurityConnector) -> Verdict:
    """Advanced configuration of Defender for Containers should be enabled on GCP connectors

    With a component off the plan is paid for in full and protects in part. Microsoft does not publish which components
    count: here all do but the scanning of virtual machines.
    """
    if not _connects(c, "GCP"):
        return not_applicable("other_environment")
    offering = _offering(c, "DefenderForContainersGcp")
    if offering is None:
        return not_applicable("plan_off")
    switches = {name: _switch(offering, paths) for name, paths in _SWITCHES.items()}
    off = [name for name, switch in switches.items() if not switch.value]
    scanners = Evidence(f"{offering.path}.vmScanners.enabled", text(offering.get("vmScanners.enabled")))
    return expect(not off, f"switched off: {', '.join(off)}", *switches.values(), scanners)


def _switch(offering: Facts, paths: tuple[str, ...]) -> Setting[bool]:
    """Under the name that was sent; two names that disagree count as off."""
    spelled = [offering.flag(path) for path in paths]
    sent = [switch for switch in spelled if switch.sent is not None]
    return min(sent, key=lambda switch: switch.value, default=spelled[0])
