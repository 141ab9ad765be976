"""Who may act on a cluster, and as whom the cluster and its workloads act."""

from __future__ import annotations

import re
from typing import Annotated

from scanner.aws import EksCluster, stated
from scanner.azure import AksCluster
from scanner.check import ACCESS, check
from scanner.cloud import Facts, Setting, expect, wrong
from scanner.gcp import WORKLOAD_IDENTITY, GkeCluster, GkeNodePool, guaranteed, is_one_of
from scanner.model import Evidence, Gap, GapReason, MissingEvidence, Severity, Verdict, not_applicable, text

_ENTRA = "properties.aadProfile"


@check(
    "azure-aks-rbac",
    Severity.HIGH,
    controls=ACCESS,
    question="access",
    fix="RBAC can be chosen only when a cluster is created, and then is on by default: make a new cluster with "
    "`az aks create` and move the workloads.",
    refs=(
        "mdc:b0fdc63a-38e7-4bab-a7c4-2c2665abbaa9",
        "azure-policy-1:ac4a19c2-fa67-49b4-8ae5-0b2e78c49457",
        "checkov:CKV_AZURE_5",
        "prowler:aks_cluster_rbac_enabled",
    ),
)
def aks_rbac(c: AksCluster) -> Verdict:
    """Role-Based Access Control should be used on Kubernetes Services

    Without RBAC everyone who gets into the cluster, and every pod with a token, may do everything in it.
    """
    enabled = c.flag("properties.enableRBAC")
    return expect(enabled.value, "Kubernetes RBAC is off", enabled)


@check(
    "azure-aks-local-accounts",
    Severity.HIGH,
    controls=ACCESS,
    question="access",
    fix="Run `az aks update -g GROUP -n CLUSTER --disable-local-accounts`; it needs Microsoft Entra integration.",
    refs=(
        "azure-policy-1:993c2fcd-2b29-49d2-9eb0-df2c3a730c32",
        "checkov:CKV_AZURE_141",
        "prowler:aks_cluster_local_accounts_disabled",
    ),
)
def aks_local_accounts(c: AksCluster) -> Verdict:
    """AKS clusters should have local accounts disabled

    The local account is a cluster-admin certificate that is shared, cannot be revoked for one person, and leaves no
    name in the audit log.
    """
    disabled = c.flag("properties.disableLocalAccounts")
    return expect(disabled.value, "the local cluster-admin account can be used", disabled)


@check(
    "azure-aks-entra-integration",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Run `az aks update -g GROUP -n CLUSTER --enable-aad`.",
    refs=("azure-policy-1:450d2877-ebea-41e8-b00c-e286317d21bf", "cis-aks-1.8:5.5.1"),
)
def aks_entra_integration(
    c: AksCluster,
    *,
    azure_rules: Annotated[bool, "the retired integration with applications of your own passes too"] = False,
) -> Verdict:
    """AKS clusters should use managed Microsoft Entra integration

    With Entra ID people sign in as themselves, with multi-factor authentication, and lose access when they leave.
    """
    if azure_rules:
        exists = c.get(_ENTRA) is not None
        evidence = Evidence(_ENTRA, "set" if exists else text(None))
        return expect(exists, "sign-in does not use Microsoft Entra ID", evidence)
    managed = c.flag(f"{_ENTRA}.managed")
    return expect(managed.value, "sign-in does not use managed Microsoft Entra integration", managed)


@check(
    "azure-aks-azure-rbac",
    Severity.LOW,
    controls=ACCESS,
    fix="Run `az aks update -g GROUP -n CLUSTER --enable-azure-rbac` and assign the Azure Kubernetes Service RBAC "
    "roles.",
    refs=("cis-aks-1.8:5.2.2",),
)
def aks_azure_rbac(c: AksCluster) -> Verdict:
    """AKS clusters should use Azure RBAC for Kubernetes authorization

    Role assignments in Azure are reviewed, time-limited and inherited in one place; bindings inside each cluster drift.
    """
    if c.get(_ENTRA) is None:
        return not_applicable("no_entra_integration")
    enabled = c.flag(f"{_ENTRA}.enableAzureRBAC")
    return expect(enabled.value, "permissions in the cluster are not managed by Azure RBAC", enabled)


@check(
    "azure-aks-managed-identity",
    Severity.MEDIUM,
    controls=ACCESS,
    question="node-identity",
    fix="Run `az aks update -g GROUP -n CLUSTER --enable-managed-identity`, then upgrade the node pools.",
    refs=("azure-policy-1:da6e2401-19da-4532-9141-fb8fbde08431",),
)
def aks_managed_identity(c: AksCluster) -> Verdict:
    """AKS clusters should use a managed identity

    A service principal has a secret that lies on every node, leaks, and expires; a managed identity has none.
    """
    client = c.text("properties.servicePrincipalProfile.clientId")
    return expect(client.equals("msi"), "the cluster acts as a service principal with a secret", client)


@check(
    "azure-aks-workload-identity",
    Severity.LOW,
    controls=ACCESS,
    question="workload-identity",
    fix="Run `az aks update -g GROUP -n CLUSTER --enable-oidc-issuer --enable-workload-identity`.",
    refs=("azure-policy-1:2cc2e023-0dac-4046-875b-178f683929d5",),
)
def aks_workload_identity(
    c: AksCluster, *, azure_rules: Annotated[bool, "the OIDC issuer does not count"] = False
) -> Verdict:
    """AKS clusters should enable workload identity

    Workload identity gives each workload an Azure identity of its own, without stored secrets and without the node's.
    """
    enabled = c.flag("properties.securityProfile.workloadIdentity.enabled")
    message = "workloads cannot have Azure identities of their own"
    if azure_rules or not enabled.value:
        return expect(enabled.value, message, enabled)
    issuer = c.flag("properties.oidcIssuerProfile.enabled")
    return expect(issuer.value, f"{message}: the cluster has no OIDC issuer", enabled, issuer)


@check(
    "azure-aks-pod-identity-legacy",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Move the workloads to workload identity, then run `az aks update -g GROUP -n CLUSTER --disable-pod-identity`.",
    refs=(),
)
def aks_pod_identity_legacy(c: AksCluster) -> Verdict:
    """AKS clusters should not use Microsoft Entra pod-managed identities

    The add-on is deprecated and gets no security fixes. It intercepts the node's metadata endpoint, so that a pod that
    gets past it holds the identities of its neighbours.
    """
    enabled = c.flag("properties.podIdentityProfile.enabled")
    return expect(not enabled.value, "the deprecated pod identity add-on is on", enabled)


# ---------------------------------------------------------------------------------------------------------------------
# AWS

_MODE = "accessConfig.authenticationMode"
_CLUSTER_ADMIN = "AmazonEKSClusterAdminPolicy"


def _not_understood(what: str, detail: str) -> MissingEvidence:
    return MissingEvidence(Gap(what=what, reason=GapReason.BAD_DATA, detail=detail))


@check(
    "aws-eks-access-entries",
    Severity.MEDIUM,
    controls=ACCESS,
    question="access",
    fix="Run `aws eks update-cluster-config --name CLUSTER --access-config authenticationMode=API_AND_CONFIG_MAP`, "
    "make access entries of what is in aws-auth, then set API.",
    refs=("cis-eks-1.8.0:4.1.7",),
)
def eks_access_entries(c: EksCluster) -> Verdict:
    """EKS clusters should manage access with access entries

    The aws-auth ConfigMap is changed by whoever may edit it inside the cluster, past IAM and CloudTrail, and a slip in
    it locks everyone out. AWS documents no mode for a cluster that sends none.
    """
    mode = stated(c.text(_MODE))
    if not mode.equals("API", "API_AND_CONFIG_MAP", "CONFIG_MAP"):
        raise _not_understood(_MODE, f"{_MODE} is {mode.value[:60]!r}, which is no known mode")
    return expect(not mode.equals("CONFIG_MAP"), "only the aws-auth ConfigMap says who has access", mode)


@check(
    "aws-eks-bootstrap-admin",
    Severity.LOW,
    controls=ACCESS,
    fix="It can be chosen only when a cluster is created: `aws eks create-cluster --access-config "
    "bootstrapClusterCreatorAdminPermissions=false`. In an existing cluster delete the creator's access entry.",
    refs=(),
)
def eks_bootstrap_admin(c: EksCluster) -> Verdict:
    """EKS clusters should not make their creator cluster admin

    Whoever created the cluster, often a pipeline, is cluster admin without anyone having decided so. Older clusters do
    not say whether theirs is: AWS documents no value for them.
    """
    creator = stated(c.flag("accessConfig.bootstrapClusterCreatorAdminPermissions"))
    return expect(not creator.value, "the cluster's creator was made cluster admin", creator)


@check(
    "aws-eks-cluster-admin-entries",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Give the access to a role of the cluster's own account with `aws eks create-access-entry` and `aws eks "
    "associate-access-policy`, then run `aws eks delete-access-entry --cluster-name CLUSTER --principal-arn ARN`.",
    refs=(),
    needs=("accessEntries",),
)
def eks_cluster_admin_entries(c: EksCluster) -> Verdict:
    """EKS cluster admins should be roles of the cluster's own account

    IAM users have keys that do not expire. Who may use a principal of another account is decided there.
    """
    if c.text(_MODE).equals("CONFIG_MAP"):
        return not_applicable("no_access_entries")
    admins = 0
    risky: list[Evidence] = []
    gaps: list[Gap] = []
    for entry in c.named("accessEntries", "principalArn"):
        try:
            if _is_cluster_admin(entry):
                admins += 1
                risky += _risk(entry, c.account)
        except MissingEvidence as missing:
            gaps += missing.gaps
    if gaps and not risky:
        raise MissingEvidence(*gaps)
    shown = risky or [Evidence("accessEntries", f"cluster admins, all roles of the account: {admins}")]
    return expect(not risky, "cluster admins are IAM users or of another account", *shown)


def _is_cluster_admin(entry: Facts) -> bool:
    """Raises MissingEvidence where a policy, or what it holds for, is not told."""
    if entry.get("policies") is None:
        raise _not_understood(f"{entry.path}.policies", "AWS did not send the policies")
    return any(
        stated(policy.text("policyArn")).value.rpartition("/")[2] == _CLUSTER_ADMIN
        and stated(policy.text("accessScope.type")).equals("cluster")
        for policy in entry.parts("policies", "policyArn")
    )


def _risk(entry: Facts, account: str) -> list[Evidence]:
    """What is wrong with a cluster admin, [] for a role of the account."""
    principal = stated(entry.text("principalArn")).value
    parts = principal.split(":", 5)
    if len(parts) < 6 or not parts[4] or not parts[5].startswith(("role/", "user/")):
        raise _not_understood(entry.path, f"{principal[:60]!r} is the ARN of neither a user nor a role")
    why = [
        *(["an IAM user"] if parts[5].startswith("user/") else []),
        *([f"of account {parts[4]}"] if parts[4] != account else []),
    ]
    return [Evidence(f"{entry.path}.principalArn", ", ".join(why))] if why else []


# ---------------------------------------------------------------------------------------------------------------------
# GCP

_UPDATE = "Run `gcloud container clusters update CLUSTER --location LOCATION"


@check(
    "gcp-gke-legacy-abac",
    Severity.HIGH,
    controls=ACCESS,
    question="access",
    fix=f"{_UPDATE} --no-enable-legacy-authorization`.",
    refs=("mdc:bd1096e1-73cf-41ab-8f2a-257b78aed9dc", "cis-gke-1.9:5.8.3", "checkov:CKV_GCP_7"),
)
def gke_legacy_abac(c: GkeCluster) -> Verdict:
    """Legacy Authorization should be disabled on GKE clusters

    Legacy authorization gives every service account and every node far-reaching rights in the cluster, whatever RBAC
    and IAM say.
    """
    enabled = c.flag("legacyAbac.enabled")
    return expect(not enabled.value, "legacy authorization grants rights past RBAC and IAM", enabled)


@check(
    "gcp-gke-client-certificate",
    Severity.HIGH,
    controls=ACCESS,
    question="access",
    fix="It can be chosen only when a cluster is created, and is off by default: make a new cluster with `gcloud "
    "container clusters create --no-issue-client-certificate` and move the workloads.",
    refs=("cis-gke-1.9:5.8.1", "checkov:CKV_GCP_13"),
)
def gke_client_certificate(c: GkeCluster) -> Verdict:
    """GKE clusters should issue no client certificate

    The certificate is shared, cannot be revoked for one person, and leaves no name in the audit log.
    """
    issued = c.flag("masterAuth.clientCertificateConfig.issueClientCertificate")
    certificate = _set_or_not(c.text("masterAuth.clientCertificate"))
    none = not issued.value and certificate.value == text(None)
    return expect(none, "a client certificate opens the cluster", issued, certificate)


@check(
    "gcp-gke-basic-auth",
    Severity.HIGH,
    controls=ACCESS,
    question="access",
    fix=f"{_UPDATE} --no-enable-basic-auth`; from version 1.19 on GKE knows no basic authentication.",
    refs=("checkov:CKV_GCP_19",),
)
def gke_basic_auth(c: GkeCluster) -> Verdict:
    """GKE clusters should not accept a password

    The password is shared, never changes by itself, and leaves no name in the audit log.
    """
    username = _set_or_not(c.text("masterAuth.username"))
    return expect(username.value == text(None), "a password opens the cluster", username)


def _set_or_not(setting: Setting[str]) -> Evidence:
    """That a value is set, without the value. An empty one is not."""
    return Evidence(setting.path, "set" if setting.value else text(None))


@check(
    "gcp-gke-google-groups",
    Severity.LOW,
    controls=ACCESS,
    fix=f"{_UPDATE} --security-group gke-security-groups@EXAMPLE.COM`.",
    refs=("cis-gke-1.9:5.8.2", "checkov:CKV_GCP_65"),
)
def gke_google_groups(c: GkeCluster) -> Verdict:
    """GKE clusters should manage access with Google Groups

    Groups are reviewed in one place, and who leaves one loses access; bindings of single people inside each cluster
    drift.
    """
    enabled = c.flag("authenticatorGroupsConfig.enabled")
    return expect(enabled.value, "roles in the cluster cannot be bound to Google Groups", enabled)


@check(
    "gcp-gke-anonymous-auth",
    Severity.LOW,
    controls=ACCESS,
    fix=f"{_UPDATE} --anonymous-authentication-config=LIMITED`.",
    refs=(),
)
def gke_anonymous_auth(c: GkeCluster) -> Verdict:
    """GKE clusters should limit anonymous requests to health checks

    Otherwise one wrong binding to system:anonymous or system:unauthenticated opens the cluster to whoever reaches it.
    """
    mode = c.text("anonymousAuthenticationConfig.mode")
    limited = is_one_of(mode, ("LIMITED",), ("", "MODE_UNSPECIFIED", "ENABLED"))
    return expect(limited, "requests without credentials are accepted on every endpoint", mode)


@check(
    "gcp-gke-insecure-rbac-bindings",
    Severity.MEDIUM,
    controls=ACCESS,
    fix=f"{_UPDATE} --no-enable-insecure-binding-system-unauthenticated`, then the same with "
    "`--no-enable-insecure-binding-system-authenticated`.",
    refs=(),
)
def gke_insecure_rbac_bindings(c: GkeCluster) -> Verdict:
    """GKE clusters should refuse bindings to everyone

    system:authenticated holds everyone with a Google account, not only your own people: a role that is bound to it, or
    to system:unauthenticated, is everyone's. GKE allows such bindings unless it is told not to.
    """
    kinds = ("Unauthenticated", "Authenticated")
    flags = [c.flag(f"rbacBindingConfig.enableInsecureBindingSystem{kind}") for kind in kinds]
    allowed = [flag for flag in flags if flag.value]
    return expect(not allowed, "roles can be bound to everyone", *(allowed or flags))


# The Compute Engine default service account, as GKE names it and by its address.
_DEFAULT_ACCOUNT = re.compile(r"(?:default|\d+-compute@developer\.gserviceaccount\.com)?", re.IGNORECASE)
_NEW_POOLS_ACCOUNT = "autoscaling.autoprovisioningNodePoolDefaults.serviceAccount"


def _is_default(account: Setting[str]) -> bool:
    return _DEFAULT_ACCOUNT.fullmatch(account.value.strip()) is not None


@check(
    "gcp-gke-default-service-account",
    Severity.MEDIUM,
    controls=ACCESS,
    question="node-identity",
    fix="Add a pool with `gcloud container node-pools create --service-account NAME@PROJECT.iam.gserviceaccount.com`, "
    "whose account has roles/container.defaultNodeServiceAccount and no more, move the workloads and delete this one.",
    refs=("cis-gke-1.9:5.2.1", "prowler:gke_cluster_no_default_service_account"),
)
def gke_default_service_account(c: GkeCluster) -> Verdict:
    """GKE nodes should not use the Compute Engine default service account

    In many projects the default account may edit everything, and whoever breaks out of a pod acts as it. Judged are all
    node pools, and what GKE gives to those that it makes itself.
    """
    accounts: list[tuple[Facts, str]] = [(pool, "config.serviceAccount") for pool in c.components()]
    if c.makes_pools:
        accounts.append((c, _NEW_POOLS_ACCOUNT))
    if not accounts:
        return not_applicable("no_node_pools")
    found = wrong(accounts, lambda each: _default_account(*each))
    shown = found or [facts.text(path).evidence for facts, path in accounts]
    return expect(not found, "nodes use the Compute Engine default service account", *shown)


def _default_account(facts: Facts, path: str) -> list[Evidence]:
    account = facts.text(path)
    return [account.evidence] if _is_default(account) else []


@check(
    "gcp-gke-oauth-scopes",
    Severity.LOW,
    controls=ACCESS,
    fix="Add a pool with `gcloud container node-pools create --service-account NAME@PROJECT.iam.gserviceaccount.com`, "
    "move the workloads and delete this one.",
    refs=(),
)
def gke_oauth_scopes(p: GkeNodePool) -> Verdict:
    """GKE node pools should not give the default service account every scope

    With the scope cloud-platform nothing but IAM limits the node's token, and the default account often may edit
    everything in the project. An account of its own, with few roles, may have the scope.
    """
    account, scopes = p.text("config.serviceAccount"), p.words("config.oauthScopes")
    every = any(scope.strip().rstrip("/").rpartition("/")[2].casefold() == "cloud-platform" for scope in scopes.value)
    return expect(not (every and _is_default(account)), "the default service account has every scope", account, scopes)


@check(
    "gcp-gke-workload-identity",
    Severity.MEDIUM,
    controls=ACCESS,
    question="workload-identity",
    fix=f"{_UPDATE} --workload-pool PROJECT.svc.id.goog`, then set the metadata server of each pool with `gcloud "
    "container node-pools update POOL --cluster CLUSTER --workload-metadata GKE_METADATA`.",
    refs=("cis-gke-1.9:5.2.2",),
)
def gke_workload_identity(c: GkeCluster) -> Verdict:
    """GKE clusters should use Workload Identity Federation

    It gives each workload an identity of its own in Google Cloud, without stored keys and without the node's.
    """
    path = "workloadIdentityConfig.workloadPool"
    if always := guaranteed(c, path, WORKLOAD_IDENTITY):
        return expect(True, "", always)
    pool = c.text(path)
    return expect(bool(pool.value), "workloads cannot have identities of their own in Google Cloud", pool)
