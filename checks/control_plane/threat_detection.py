"""Whether somebody watches what happens in clusters: Microsoft Defender for Containers and its like."""

from __future__ import annotations

from typing import Annotated

from scanner.aws import EksCluster, stated
from scanner.azure import AksCluster, ArcCluster, AzureSubscription
from scanner.check import check
from scanner.cloud import Facts, Setting, expect
from scanner.gcp import GkeCluster, is_one_of
from scanner.model import Evidence, Gap, GapReason, MissingEvidence, Severity, Verdict, fail, not_applicable, text

_DEFENDER = ("Enable enhanced security features",)
_LEFT_OUT = ("ms_defender_container_exclude_sensors", "ms_defender_container_exclude_agents")  # tags


@check(
    "azure-aks-defender-profile",
    Severity.HIGH,
    controls=_DEFENDER,
    question="threat-detection",
    fix="Run `az aks update -g GROUP -n CLUSTER --enable-defender`.",
    refs=(
        "mdc:56a83a6e-c417-42ec-b567-1e6fcb3d09a9",
        "azure-policy-2:a1840de2-8088-4ea8-b153-b4c723e9cb01",
        "prowler:aks_cluster_defender_enabled",
    ),
)
def aks_defender_profile(
    c: AksCluster, *, azure_rules: Annotated[bool, "securityProfile.azureDefender does not count"] = False
) -> Verdict:
    """Azure Kubernetes Service clusters should have Defender profile enabled

    The profile runs Defender's sensor on every node. Without it nobody is told of a break-in at run time. A tag that
    keeps the sensor away from a cluster does not make up for it.
    """
    on = c.flag("properties.securityProfile.defender.securityMonitoring.enabled")
    if not on.value and not azure_rules:
        former = c.flag("properties.securityProfile.azureDefender.enabled")  # its name in earlier API versions
        on = former if former.value else on
    gating = "properties.securityProfile.defender.securityGating.enabled"
    tags = [Evidence(f"tags.{k}", v) for k, v in c.tags.items() if k.casefold() in _LEFT_OUT and v.casefold() == "true"]
    message = "the Defender sensor is not enabled" + (": a tag leaves the cluster out" if tags else "")
    reason = "left_out_by_tag" if tags else ""
    return expect(on.value, message, on, Evidence(gating, text(c.get(gating))), *tags, reason=reason)


@check(
    "azure-aks-defender-gating",
    Severity.INFO,
    controls=_DEFENDER,
    fix="Turn on gated deployment in the settings of the Defender for Containers plan.",
    refs=(),
)
def aks_defender_gating(c: AksCluster) -> Verdict:
    """AKS clusters should use Defender's gated deployment

    With security gating Defender looks at each image's vulnerability findings before its containers start, not after.
    """
    gating = c.flag("properties.securityProfile.defender.securityGating.enabled")
    return expect(gating.value, "images with vulnerabilities are not held back at deployment", gating)


@check(
    "azure-arc-defender-extension",
    Severity.HIGH,
    controls=_DEFENDER,
    fix="Run `az k8s-extension create --cluster-type connectedClusters -g GROUP --cluster-name CLUSTER "
    "--name microsoft.azuredefender.kubernetes --extension-type microsoft.azuredefender.kubernetes`.",
    refs=("mdc:3ef9848c-c2c8-4ff3-8b9c-4c8eb8ddfce6", "azure-policy-6:8dfab9c4-fe7b-49ad-85e4-1e9be085358f"),
    needs=("extensions",),
)
def arc_defender_extension(c: ArcCluster) -> Verdict:
    """Azure Arc-enabled Kubernetes clusters should have the Defender extension installed

    The extension brings Defender's sensor to clusters outside Azure. What an offline cluster last reported may be old.
    """
    distribution = c.text("properties.distribution")
    if distribution.equals("aks", "aks_management"):
        return not_applicable("judged_as_aks")
    if distribution.equals("eks", "gke"):
        return not_applicable("judged_in_its_own_cloud")
    state = c.extension("microsoft.azuredefender.kubernetes")
    problem = "not installed" if state.sent is None else "installed but not working"
    connectivity = "properties.connectivityStatus"
    reached = Evidence(connectivity, text(c.get(connectivity)))
    return expect(state.equals("Succeeded"), f"the Defender extension is {problem}", state, reached)


# ---------------------------------------------------------------------------------------------------------------------
# Plans of a subscription

_PREDECESSORS = ("KubernetesService", "ContainerRegistry")  # plans that Containers has replaced
_TIER = "properties.pricingTier"


def _plans(s: AzureSubscription) -> list[Facts]:
    plans = s.listed("pricings")
    if not plans:  # Azure lists every plan, on or off
        raise MissingEvidence(Gap(what="pricings", reason=GapReason.BAD_DATA, detail="Azure listed no Defender plan"))
    return plans


def _containers(plans: list[Facts]) -> Facts | None:
    return next((plan for plan in plans if plan.text("name").equals("Containers")), None)


@check(
    "azure-defender-containers-plan",
    Severity.HIGH,
    controls=_DEFENDER,
    question="image-scanning",
    fix="Run `az security pricing create --name Containers --tier Standard`.",
    refs=(
        "mdc:e599a9fe-30e3-47c6-a173-8b4b6d9d3255",
        "azure-policy-1:1c988dd6-ade4-430f-a608-2a3e5b0a6d38",
        "prowler:defender_ensure_defender_for_containers_is_on",
    ),
    needs=("pricings",),
    needs_if={"skip_empty": ("managedClusters", "connectedClusters", "registries")},
)
def defender_containers_plan(
    s: AzureSubscription,
    *,
    skip_empty: Annotated[bool, "leave out subscriptions without AKS clusters, Arc clusters and registries"] = False,
) -> Verdict:
    """Microsoft Defender for Containers should be enabled

    The plan pays for the sensor, for scanning images and for watching the control plane. The older plans for Kubernetes
    and for registries do not replace it.
    """
    if skip_empty and _is_empty(s):
        return not_applicable("no_container_resources")
    plans = _plans(s)
    plan = _containers(plans)
    if plan is None:
        return fail("the plan is off", Evidence(f"pricings[Containers].{_TIER}", text(None)))
    tier = plan.text(_TIER)
    if tier.equals("Standard"):
        extensions = plan.parts("properties.extensions")
        return expect(True, "", tier, *(Evidence(f"{e.path}.isEnabled", text(e.get("isEnabled"))) for e in extensions))
    former = [
        p.text(_TIER) for p in plans if p.text("name").equals(*_PREDECESSORS) and p.text(_TIER).equals("Standard")
    ]
    message = "the plan is off, only its deprecated predecessors are on" if former else "the plan is off"
    return expect(False, message, tier, *former)


def _is_empty(s: AzureSubscription) -> bool:
    """Raises MissingEvidence where nothing was seen, but not everything could be listed."""
    seen = s.related.get("containerResources")
    return not (seen and seen.items) and not s.listed("containerResources")


@check(
    "azure-defender-containers-extensions",
    Severity.MEDIUM,
    controls=_DEFENDER,
    question="image-scanning",
    fix="Run `az security pricing create --name Containers --tier Standard --extensions name=ContainerSensor "
    "isEnabled=True` with every extension, or switch them on in the plan's settings.",
    refs=("azure-policy-1:efd4031d-b232-4595-babf-ae817348e91b", "cis-aks-1.8:5.1.1"),
    needs=("pricings",),
)
def defender_containers_extensions(s: AzureSubscription) -> Verdict:
    """Every component of Microsoft Defender for Containers should be enabled

    The plan costs the same with its parts switched off: no sensor means no detection at run time, no registry
    assessment means no vulnerability findings.
    """
    plan = _containers(_plans(s))
    if plan is None or not plan.text(_TIER).equals("Standard"):
        return not_applicable("plan_off")
    extensions = plan.parts("properties.extensions")
    if not extensions:
        detail = "Azure listed no component of the plan"
        raise MissingEvidence(Gap(what=f"{plan.path}.properties.extensions", reason=GapReason.BAD_DATA, detail=detail))
    off: list[Facts] = []
    gaps: list[Gap] = []
    for extension in extensions:
        try:
            if not _enabled(extension).equals("true"):
                off.append(extension)
        except MissingEvidence as missing:
            gaps += missing.gaps
    if gaps and not off:
        raise MissingEvidence(*gaps)
    names = ", ".join(e.text("name").value for e in off)
    shown = off or extensions
    return expect(not off, f"switched off: {names}", *(_enabled(extension) for extension in shown))


def _enabled(extension: Facts) -> Setting[bool] | Setting[str]:
    """Azure sends the words True and False."""
    if isinstance(extension.get("isEnabled"), bool):
        return extension.flag("isEnabled")
    return extension.text("isEnabled")


# ---------------------------------------------------------------------------------------------------------------------
# AWS

_AUDIT, _AGENT = "EKS_AUDIT_LOGS", "EKS_ADDON_MANAGEMENT"
_RUNTIME = ("RUNTIME_MONITORING", "EKS_RUNTIME_MONITORING")  # the second is its predecessor, for EKS alone


@check(
    "aws-eks-guardduty",
    Severity.LOW,
    controls=_DEFENDER,
    question="threat-detection",
    fix='Run `aws guardduty update-detector --detector-id DETECTOR --features \'[{"Name": "EKS_AUDIT_LOGS", '
    '"Status": "ENABLED"}, {"Name": "RUNTIME_MONITORING", "Status": "ENABLED", "AdditionalConfiguration": '
    '[{"Name": "EKS_ADDON_MANAGEMENT", "Status": "ENABLED"}]}]\'`.',
    refs=(
        "fsbp:GuardDuty.5",
        "fsbp:GuardDuty.7",
        "prowler:guardduty_eks_audit_log_enabled",
        "prowler:guardduty_eks_runtime_monitoring_enabled",
    ),
    needs=("detectors",),
)
def eks_guardduty(c: EksCluster) -> Verdict:
    """EKS clusters should be watched by Amazon GuardDuty

    GuardDuty reads the audit log for attacks on the API server, and its agent tells of break-ins on nodes; it is to
    install the agent in every cluster by itself.
    """
    detectors = c.listed("detectors")
    if not detectors:
        return fail("GuardDuty is off in the region", Evidence("detectors", text([])))
    on = [detector for detector in detectors if stated(detector.text("Status")).equals("ENABLED")]
    if not on:
        return expect(False, "GuardDuty is suspended in the region", *(d.text("Status") for d in detectors))
    detector = on[0]
    if detector.get("Features") is None:
        where = f"{detector.path}.Features"
        raise MissingEvidence(Gap(what=where, reason=GapReason.BAD_DATA, detail=f"AWS did not send {where}"))
    audit = _feature(detector, "Features", _AUDIT)
    kinds = [_feature(detector, "Features", name) for name in _RUNTIME]
    runtime = next(filter(_on, kinds), kinds[0])
    agent = _feature(runtime, "AdditionalConfiguration", _AGENT)
    parts = {_AUDIT: audit, _RUNTIME[0]: runtime, _AGENT: agent}
    off = [name for name, part in parts.items() if not _on(part)]
    return expect(not off, f"switched off: {', '.join(off)}", *(part.text("Status") for part in parts.values()))


def _feature(of: Facts, path: str, name: str) -> Facts:
    """One of the features that AWS lists, empty where it is not among them."""
    found = (feature for feature in of.parts(path, "Name") if feature.text("Name").equals(name))
    return next(found, Facts({}, f"{of.path}.{path}[{name}]"))


def _on(feature: Facts) -> bool:
    return feature.text("Status").equals("ENABLED")


# ---------------------------------------------------------------------------------------------------------------------
# GCP


@check(
    "gcp-gke-security-posture",
    Severity.LOW,
    controls=_DEFENDER,
    question="threat-detection",
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --security-posture=standard`.",
    refs=("cis-gke-1.9:5.10.4",),
)
def gke_security_posture(c: GkeCluster) -> Verdict:
    """GKE clusters should use the security posture dashboard

    Google then looks at the cluster's workloads for known misconfigurations and tells of bulletins that concern it.
    Whether it looks for vulnerabilities too is shown and not judged.
    """
    mode = c.text("securityPostureConfig.mode")
    on = is_one_of(mode, ("BASIC", "ENTERPRISE"), ("", "MODE_UNSPECIFIED", "DISABLED"))
    vulnerabilities = "securityPostureConfig.vulnerabilityMode"
    shown = Evidence(vulnerabilities, text(c.get(vulnerabilities)))
    return expect(on, "the cluster's security posture is not watched", mode, shown)
