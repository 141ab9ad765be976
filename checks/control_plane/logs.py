"""What is recorded of a cluster, and where it goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from scanner.aws import EksCluster
from scanner.azure import AksCluster
from scanner.check import check
from scanner.cloud import Facts, Setting, expect
from scanner.gcp import GkeCluster, is_one_of
from scanner.model import Evidence, Gap, GapReason, MissingEvidence, Severity, Verdict, fail, text

_LOGGING = ("Enable auditing and logging",)
_SETTINGS = "diagnosticSettings"
_DESTINATIONS = (
    "properties.workspaceId",
    "properties.storageAccountId",
    "properties.eventHubAuthorizationRuleId",
    "properties.marketplacePartnerId",
)


def _enabled_logs(c: AksCluster) -> Iterator[tuple[Facts, Facts]]:
    """Each diagnostic setting with each of its logs that is on."""
    for setting in c.listed(_SETTINGS):
        for log in setting.parts("properties.logs"):
            if log.flag("enabled").value:
                yield setting, log


def _category(log: Facts) -> Setting[str]:
    """A log's category, or the group of categories that it stands for."""
    category = log.text("category")
    return log.text("categoryGroup") if category.sent is None else category


def _no_logs(c: AksCluster) -> list[Evidence]:
    settings = c.listed(_SETTINGS)
    return [Evidence(f"{s.path}.properties.logs", "none enabled") for s in settings] or [Evidence(_SETTINGS, text([]))]


@check(
    "azure-aks-diagnostic-logs",
    Severity.LOW,
    controls=_LOGGING,
    fix="Run `az monitor diagnostic-settings create --resource CLUSTER_ID --name audit --workspace WORKSPACE_ID "
    '--logs \'[{"categoryGroup": "audit", "enabled": true}]\'` and keep the workspace\'s data for a year.',
    refs=("mdc:bb318338-de6a-42ff-8428-8274c897d564", "azure-policy-1:245fc9df-fa96-4414-9a0b-3738c2f7341c"),
    needs=(_SETTINGS,),
)
def aks_diagnostic_logs(
    c: AksCluster,
    *,
    retention_days: Annotated[int, "days that a storage account must keep logs, where the setting limits them"] = 365,
) -> Verdict:
    """Diagnostic logs in Kubernetes services should be enabled

    Without the control plane's logs nobody can tell afterwards who did what. Metrics are no logs. How long a workspace
    keeps them is set in the workspace and not judged here.
    """
    short = []
    for setting, log in _enabled_logs(c):
        days = _deleted_after(log) if setting.text("properties.storageAccountId").value else 0
        if days == 0 or days >= retention_days:
            destinations = (setting.text(path) for path in _DESTINATIONS)
            return expect(True, "", _category(log), *(d for d in destinations if d.value))
        short.append(Evidence(f"{log.path}.retentionPolicy.days", str(days)))
    if short:
        return fail(f"logs are deleted before {retention_days} days have passed", *short, reason="short_retention")
    return fail("no control plane log is kept", *_no_logs(c))


def _deleted_after(log: Facts) -> int:
    """The days that a storage account keeps a log, 0 for ever."""
    if not log.flag("retentionPolicy.enabled").value:
        return 0
    days = log.get("retentionPolicy.days")
    if days is None:
        return 0
    if isinstance(days, int) and not isinstance(days, bool):
        return days
    where = f"{log.path}.retentionPolicy.days"
    detail = f"{where} is {str(days)[:60]!r} and not a number"
    raise MissingEvidence(Gap(what=where, reason=GapReason.BAD_DATA, detail=detail))


_GROUPS = {"audit", "alllogs"}  # of categories: both hold every audit log


@check(
    "azure-aks-audit-log-category",
    Severity.MEDIUM,
    controls=_LOGGING,
    question="audit-logs",
    fix="Run `az monitor diagnostic-settings create --resource CLUSTER_ID --name audit --workspace WORKSPACE_ID "
    '--logs \'[{"category": "kube-audit-admin", "enabled": true}, {"category": "guard", "enabled": true}]\'`.',
    refs=("cis-aks-1.8:2.1.1",),
    needs=(_SETTINGS,),
)
def aks_audit_log_category(c: AksCluster) -> Verdict:
    """AKS clusters should keep the Kubernetes audit log

    Of all logs of the control plane only the audit log says who asked the API server for what; `guard` says who signed
    in through Entra ID.
    """
    categories = [_category(log) for _, log in _enabled_logs(c)]
    names = {category.value.casefold() for category in categories}
    evidence = categories or _no_logs(c)
    if not names & {"kube-audit", "kube-audit-admin", *_GROUPS}:
        return expect(False, "the Kubernetes audit log is not kept", *evidence)
    signs_in_with_entra = c.get("properties.aadProfile") is not None
    guarded = not signs_in_with_entra or bool(names & {"guard", *_GROUPS})
    return expect(guarded, "the log of sign-ins through Entra ID, guard, is not kept", *evidence, reason="no_guard")


@check(
    "azure-aks-monitoring",
    Severity.LOW,
    controls=_LOGGING,
    fix="Run `az aks enable-addons -g GROUP -n CLUSTER --addons monitoring --workspace-resource-id WORKSPACE_ID`.",
    refs=("checkov:CKV_AZURE_4", "prowler:aks_cluster_azure_monitor_enabled"),
)
def aks_monitoring(c: AksCluster) -> Verdict:
    """AKS clusters should be monitored

    Container Insights or managed Prometheus shows the load, restarts and failures by which many attacks are noticed.
    """
    sources = (
        c.flag("properties.azureMonitorProfile.containerInsights.enabled"),
        c.addon("omsagent").flag("enabled"),
        c.flag("properties.azureMonitorProfile.metrics.enabled"),
    )
    on = [source for source in sources if source.value]
    return expect(bool(on), "nothing collects the cluster's logs and metrics", *(on or sources))


_TYPES = ("api", "audit", "authenticator", "controllerManager", "scheduler")


@check(
    "aws-eks-control-plane-logging",
    Severity.MEDIUM,
    controls=_LOGGING,
    question="audit-logs",
    fix='Run `aws eks update-cluster-config --name CLUSTER --logging \'{"clusterLogging": [{"types": ["api", '
    '"audit", "authenticator", "controllerManager", "scheduler"], "enabled": true}]}\'`.',
    refs=(
        "fsbp:EKS.8",
        "cis-eks-1.8.0:2.1.1",
        "checkov:CKV_AWS_37",
        "prowler:eks_control_plane_logging_all_types_enabled",
    ),
)
def eks_control_plane_logging(c: EksCluster) -> Verdict:
    """EKS clusters should keep every log of their control plane

    The audit log says who asked the API server for what, the authenticator log which IAM principal that was. AWS keeps
    none by default. A cluster without its audit log weighs more than one that lacks another.
    """
    path = "logging.clusterLogging"
    kept = [setup.words("types") for setup in c.parts(path) if setup.flag("enabled").value]
    on = {name for types in kept for name in types.value}
    off = [name for name in _TYPES if name not in on]
    evidence: list[Any] = [*kept] or [Evidence(path, "none enabled")]
    blind = "audit" in off
    return expect(
        not off,
        f"not kept: {', '.join(off)}",
        *evidence,
        reason="no_audit" if blind else "",
        severity=Severity.HIGH if blind else None,
    )


# ---------------------------------------------------------------------------------------------------------------------
# GCP


def _collects_system(c: GkeCluster, subject: str) -> tuple[bool, Setting[Any]]:
    """Whether the system's logs or metrics are collected, and what says so: the new field, where it was sent."""
    if c.get(f"{subject}Config") is not None:
        components = c.names(f"{subject}Config.componentConfig.enableComponents")
        return "SYSTEM_COMPONENTS" in components.value, components
    service = c.text(f"{subject}Service")
    if service.value == "":  # which Google reads as its default
        return True, service
    host = f"{subject}.googleapis.com"
    return is_one_of(service, (f"{host}/kubernetes", host), ("none",)), service


@check(
    "gcp-gke-logging",
    Severity.HIGH,
    controls=_LOGGING,
    question="audit-logs",
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --logging=SYSTEM,WORKLOAD`.",
    refs=("mdc:fa160a2c-e976-41cb-acff-1e1e3f1ed032", "cis-gke-1.9:5.7.1", "checkov:CKV_GCP_1"),
)
def gke_logging(c: GkeCluster) -> Verdict:
    """Logging for GKE clusters should be enabled

    Without the system's logs nobody can tell afterwards what happened on nodes and in the control plane. Logs of
    workloads alone are not enough; Google keeps the audit log of administrators in any case.
    """
    on, setting = _collects_system(c, "logging")
    return expect(on, "the logs of the cluster's system are not collected", setting)


@check(
    "gcp-gke-monitoring",
    Severity.MEDIUM,
    controls=_LOGGING,
    fix="Run `gcloud container clusters update CLUSTER --location LOCATION --monitoring=SYSTEM`.",
    refs=("mdc:6a7b7361-5100-4a8c-b23e-f712d7dad39b", "cis-gke-1.9:5.7.1", "checkov:CKV_GCP_8"),
)
def gke_monitoring(c: GkeCluster) -> Verdict:
    """Monitoring on GKE clusters should be enabled

    The system's metrics show the load, restarts and failures by which many attacks are noticed.
    """
    on, setting = _collects_system(c, "monitoring")
    return expect(on, "the metrics of the cluster's system are not collected", setting)
