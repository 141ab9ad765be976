"""Which identity a pod carries towards the API server."""

from __future__ import annotations

from typing import Annotated

from scanner.check import ACCESS, AZURE_SYSTEM_WITH_DEFENDER, check
from scanner.kube import TOKEN_PATH, Workload
from scanner.model import PASS, Evidence, Severity, Verdict, fail, require, text


@check(
    "k8s-automount-api-credentials",
    Severity.HIGH,
    controls=ACCESS,
    fix="Set automountServiceAccountToken: false on the pod template, or on its ServiceAccount for all its pods.",
    refs=(
        "mdc:32060ac3-f17f-4848-db8e-e7cf2c9a53eb",
        "azure-policy-4:423dd1ba-798e-40e4-9c4d-b6902674b423",
        "cis-k8s-1.12:5.1.6",
        "cis-aks-1.8:4.1.6",
        "cis-eks-1.8.0:4.1.6",
        "cis-gke-1.9.0:4.1.5",
        "nsa:Protecting Pod service account tokens",
        "mitre:T1528",
    ),
    exclude=("images",),
    excluded_namespaces=AZURE_SYSTEM_WITH_DEFENDER,
    needs=("serviceaccounts",),
    needs_if={"exempt_with_rbac": ("rolebindings", "clusterrolebindings")},
)
def automount_api_credentials(
    w: Workload,
    *,
    exempt_with_rbac: Annotated[
        bool, "only info where the ServiceAccount is bound to a role: it needs its token"
    ] = False,
    flag_manual_tokens: Annotated[bool, "a token volume written by hand fails too, where automounting is off"] = False,
    azure_rules: Annotated[bool, "compare the mount path of running pods literally"] = False,
) -> Verdict:
    """Kubernetes clusters should disable automounting API credentials

    Whoever breaks into a pod with a token speaks to the API server in its name. Most workloads never call it.
    """
    # What a file says of a running pod is a claim: there a missing mount proves nothing.
    decided = w.pod.live and (w.pod.in_cluster or bool(w.token_mount))
    verdict = _running(w, azure_rules) if decided else _template(w)
    if verdict is PASS and flag_manual_tokens and w.manual_token:
        evidence = Evidence(w.manual_token, "service account token")
        return fail("mounts a token by hand", evidence, reason="manual_token", severity=Severity.INFO)
    if verdict is not PASS and exempt_with_rbac and w.service_account_bound:
        return fail(verdict.message, *verdict.evidence, reason="bound_by_rbac", severity=Severity.INFO)
    return verdict


def _running(w: Workload, literal: bool) -> Verdict:
    """Admission has decided already: a running pod that has the token shows its mount."""
    at = w.where("automountServiceAccountToken")
    if w.automount is not None:
        return require(not w.automount, "mounts the API token", at, w.automount)
    mounted = w.token_mount == TOKEN_PATH if literal else bool(w.token_mount)
    if not mounted:
        return PASS
    return fail(
        "mounts the API token",
        Evidence(at, text(None), "true"),
        Evidence(w.where("containers[*].volumeMounts"), w.token_mount),
    )


def _template(w: Workload) -> Verdict:
    """Pod field, else the ServiceAccount's, else true: the order in which admission decides."""
    at = w.where("automountServiceAccountToken")
    if w.automount is not None:
        return require(not w.automount, "will mount the API token", at, w.automount)
    by_account = w.automount_of_service_account()
    if by_account is False:
        return PASS
    reason = "" if w.service_account_seen else "service_account_not_in_input"
    account = Evidence(f"ServiceAccount/{w.service_account}.automountServiceAccountToken", text(by_account), "true")
    return fail("will mount the API token", Evidence(at, text(None), "true"), account, reason=reason)
