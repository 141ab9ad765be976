"""Where objects live."""

from __future__ import annotations

from typing import Annotated, Literal

from scanner.check import check
from scanner.kube import Resource
from scanner.model import PASS, Severity, Verdict, not_applicable, require

Kind = Literal["Workload", "Service", "ServiceAccount", "ConfigMap", "Secret"]


@check(
    "k8s-default-namespace",
    Severity.LOW,
    controls=("Implement security best practices",),
    fix="Create a namespace per application and deploy there.",
    refs=(
        "mdc:ff87e0b4-17df-d338-5b19-80e71e0dcc9d",
        "azure-policy-4:9f061a12-e40d-4183-a00e-171812443373",
        "cis-k8s-1.12:5.6.4",
        "cis-aks-1.8:4.6.3",
        "cis-eks-1.8.0:4.5.2",
        "cis-gke-1.9.0:4.6.4",
        "nsa:Namespaces",
    ),
)
def default_namespace(
    o: Resource,
    *,
    kinds: Annotated[tuple[Kind, ...], "kinds judged; Workload stands for every kind with a pod spec"] = (
        "Workload",
        "Service",
        "ServiceAccount",
        "ConfigMap",
    ),
    azure_rules: Annotated[bool, "without the exemptions that Microsoft lacks"] = False,
) -> Verdict:
    """Kubernetes clusters should not use the default namespace

    The default namespace has no owner: policies, quotas and permissions cannot tell its applications apart.
    """
    kind = "Workload" if o.workload else o.kind
    if kind not in kinds:
        return not_applicable("kind_not_selected")
    if o.namespace != "default":
        return PASS
    if not o.workload and (_made_by_kubernetes(o) or (not azure_rules and _made_by_others(o))):
        return not_applicable("created_by_the_platform")
    reason = "namespace_default" if o.namespace_set else "namespace_not_set"
    value = o.namespace if o.namespace_set else None
    return require(
        False, "lives in the default namespace", "metadata.namespace", value, default="default", reason=reason
    )


def _made_by_kubernetes(o: Resource) -> bool:
    if o.kind == "Secret":
        return o.type == "kubernetes.io/service-account-token" and o.service_account == "default"
    return (o.kind, o.name) in {
        ("ServiceAccount", "default"),
        ("Service", "kubernetes"),
        ("ConfigMap", "kube-root-ca.crt"),
    }


def _made_by_others(o: Resource) -> bool:
    helm = o.kind == "Secret" and o.type == "helm.sh/release.v1"
    return helm or (o.kind, o.name) == ("ConfigMap", "openshift-service-ca.crt")
