"""Kubernetes objects as the checks see them.

Views hold effective values: defaults applied, pod and container settings merged, Windows decided. They are frozen and
hashable, so that equal pods are judged once.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from scanner.model import Gap, MissingEvidence

Quantity = str | int | float | None


class View(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Base of all judged views."""


class Source(View, frozen=True):
    """Where in a file an object stands: the path as opened, 1-based line and document.

    `scope` is the path that finding ids are built on; `base` is the object's place inside its document, for Lists;
    `item` its number in a JSON dump.
    """

    path: str
    line: int = 1
    document: int = 1
    scope: str = ""
    base: str = ""
    item: int = 0


class Resource(View, frozen=True):
    """Identity and metadata of one judged object; for a pod with a controller, of its root controller."""

    group: str
    kind: str
    namespace: str
    name: str
    labels: dict[str, str] = {}
    managed_by: str | None = None
    namespace_set: bool = True  # False: a manifest without a namespace, so `default` was applied
    workload: bool = False  # carries a pod spec, or is the root of objects that do
    type: str = ""  # of a Secret
    service_account: str = ""  # that a token Secret belongs to
    source: Source | None = None
    cloud_id: str = ""  # of what lives in a cloud, not in a cluster: the id that the cloud gave it


class PodContext(View, frozen=True):
    """What all containers of a pod share."""

    path: str  # of the pod spec inside its object: "spec", "spec.template.spec" …
    in_cluster: bool = False  # read from an API server, not from files
    live: bool = False  # a running pod, seen after defaulting and admission; not a template
    windows: bool = False  # by spec.os.name, a node selector, or the node it runs on
    windows_selector: bool = False  # by node selector kubernetes.io/os alone: the only sign Azure Policy reads
    host_users: bool | None = None
    fs_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    cpu_limit: Quantity = None  # pod-level resources
    memory_limit: Quantity = None
    default_cpu_limit: Quantity = None  # what a LimitRange of the namespace would set
    default_memory_limit: Quantity = None
    limit_range_gap: Gap | None = None
    app_armor: str | None = None


class Port(View, frozen=True):
    path: str
    container_port: int | None = None
    host_port: int | None = None  # an explicit 0 equals none in Kubernetes, but not in Azure Policy


class Container(View, frozen=True):
    """One container with its effective security context.

    `kind` is init, regular or ephemeral; `path` is its place inside the object; `inherited` names the settings that
    came from the pod.
    """

    name: str
    kind: str
    path: str
    pod: PodContext
    image: str = ""
    privileged: bool = False
    allow_privilege_escalation: bool | None = None
    read_only_root_filesystem: bool | None = None
    run_as_non_root: bool | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    capabilities_added: tuple[str, ...] = ()
    capabilities_dropped: tuple[str, ...] = ()
    app_armor: str | None = None  # from the container's field, in annotation spelling
    app_armor_annotation: str | None = None
    cpu_limit: Quantity = None
    memory_limit: Quantity = None
    ports: tuple[Port, ...] = ()
    inherited: tuple[str, ...] = ()

    def where(self, field: str) -> str:
        """The path that the effective value came from (container or pod), or would be set at."""
        owner = self.pod.path if field.rpartition(".")[2] in self.inherited else self.path
        return f"{owner}.{field}"


class Mount(View, frozen=True):
    """A hostPath volume inside one container."""

    container: str  # path of the container
    path: str
    read_only: bool


class HostPath(View, frozen=True):
    """A hostPath volume of a pod, with every mount of it."""

    host_path: str
    path: str
    mounts: tuple[Mount, ...] = ()


class Workload(View, frozen=True):
    """One pod shape: of running pods, or of a template."""

    pod: PodContext
    containers: tuple[Container, ...]
    labels: tuple[tuple[str, str], ...] = ()
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    automount: bool | None = None
    service_account: str = "default"
    service_account_automount: bool | None = None
    service_account_seen: bool = False
    service_account_gap: Gap | None = None
    service_account_bound: bool = False  # some RoleBinding or ClusterRoleBinding names it
    token_mount: str = ""  # path at which a container mounts the API token, as written
    manual_token: str = ""  # path of a token volume written by hand: projected without audience, or a token Secret
    host_paths: tuple[HostPath, ...] = ()
    invalid_containers: bool = False  # some container could not be understood: nothing may pass for the whole pod

    def where(self, field: str) -> str:
        return f"{self.pod.path}.{field}"

    def automount_of_service_account(self) -> bool | None:
        """The ServiceAccount's own setting, None when unset; raises MissingEvidence where reading it was refused."""
        if self.service_account_gap:
            raise MissingEvidence(self.service_account_gap)
        return self.service_account_automount


class Service(View, frozen=True):
    resource: Resource
    type: str = "ClusterIP"
    ports: tuple[int, ...] = ()


class Ingress(View, frozen=True):
    """An Ingress with its controller resolved.

    `controller` is the family: nginx, appgw, gce, alb, other. `frontend_redirect` says that the GKE FrontendConfig
    redirects to HTTPS; `group_redirect` that a member of the ALB IngressGroup does; `master_tls` that the master of
    an NGINX Inc. mergeable Ingress ends TLS.
    """

    resource: Resource
    class_name: str | None = None
    class_annotation: str | None = None
    controller: str = "other"
    annotations: dict[Annotation, str] = {}
    tls: tuple[tuple[str, ...], ...] = ()
    hosts: tuple[str, ...] = ()  # one entry a rule, "" for a rule without host
    group_redirect: bool = False
    frontend_redirect: bool = False
    master_tls: bool = False
    class_gap: Gap | None = None
    frontend_gap: Gap | None = None

    def family(self) -> str:
        """The controller family; raises MissingEvidence where the classes could not be read and the name is no help."""
        if self.class_gap and self.controller == "other":
            raise MissingEvidence(self.class_gap)
        return self.controller

    def redirects_by_frontend(self) -> bool:
        """Whether the named GKE FrontendConfig redirects; raises MissingEvidence where those could not be read."""
        if self.frontend_gap:
            raise MissingEvidence(self.frontend_gap)
        return self.frontend_redirect


# ---------------------------------------------------------------------------------------------------------------------
# Names on the wire that reader and checks must spell alike

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - where admission mounts the API token
APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"  # and the container's name


class Annotation(StrEnum):
    """What is read of an Ingress's annotations; the others may hold configuration that is nobody's business.

    A check reads these members only: what is not here never reaches it, and would look absent.
    """

    CLASS = "kubernetes.io/ingress.class"
    ALLOW_HTTP = "kubernetes.io/ingress.allow-http"
    NGINX_FORCE_SSL_REDIRECT = "nginx.ingress.kubernetes.io/force-ssl-redirect"
    NGINX_SSL_REDIRECT = "nginx.ingress.kubernetes.io/ssl-redirect"
    NGINX_SSL_PASSTHROUGH = "nginx.ingress.kubernetes.io/ssl-passthrough"
    NGINX_AUTH_TLS_SECRET = "nginx.ingress.kubernetes.io/auth-tls-secret"  # noqa: S105 - a name
    NGINX_MERGEABLE = "nginx.org/mergeable-ingress-type"
    APPGW_CERTIFICATE = "appgw.ingress.kubernetes.io/appgw-ssl-certificate"
    ALB_LISTEN_PORTS = "alb.ingress.kubernetes.io/listen-ports"
    ALB_CERTIFICATE = "alb.ingress.kubernetes.io/certificate-arn"
    ALB_SSL_REDIRECT = "alb.ingress.kubernetes.io/ssl-redirect"
    ALB_GROUP = "alb.ingress.kubernetes.io/group.name"
    GCE_CERTIFICATE = "ingress.gcp.kubernetes.io/pre-shared-cert"
    GCE_MANAGED_CERTIFICATES = "networking.gke.io/managed-certificates"
    GCE_FRONTEND_CONFIG = "networking.gke.io/v1beta1.FrontendConfig"


# ---------------------------------------------------------------------------------------------------------------------
# Kinds


class Kind(msgspec.Struct, frozen=True):
    """One kind that some check reads: its canonical group, API path and list name."""

    name: str
    plural: str
    group: str
    version: str
    namespaced: bool = True
    optional: bool = False  # a custom resource: 404 means that no such kind exists here

    @property
    def api(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


KINDS = {
    k.plural: k
    for k in (
        Kind("Pod", "pods", "", "v1"),
        Kind("PodTemplate", "podtemplates", "", "v1"),
        Kind("ReplicationController", "replicationcontrollers", "", "v1"),
        Kind("Deployment", "deployments", "apps", "v1"),
        Kind("ReplicaSet", "replicasets", "apps", "v1"),
        Kind("StatefulSet", "statefulsets", "apps", "v1"),
        Kind("DaemonSet", "daemonsets", "apps", "v1"),
        Kind("Job", "jobs", "batch", "v1"),
        Kind("CronJob", "cronjobs", "batch", "v1"),
        Kind("Service", "services", "", "v1"),
        Kind("Ingress", "ingresses", "networking.k8s.io", "v1"),
        Kind("ServiceAccount", "serviceaccounts", "", "v1"),
        Kind("ConfigMap", "configmaps", "", "v1"),
        Kind("Secret", "secrets", "", "v1"),
        Kind("Namespace", "namespaces", "", "v1", namespaced=False),
        Kind("Node", "nodes", "", "v1", namespaced=False),
        Kind("LimitRange", "limitranges", "", "v1"),
        Kind("IngressClass", "ingressclasses", "networking.k8s.io", "v1", namespaced=False),
        Kind("FrontendConfig", "frontendconfigs", "networking.gke.io", "v1beta1", optional=True),
        Kind("RoleBinding", "rolebindings", "rbac.authorization.k8s.io", "v1"),
        Kind("ClusterRoleBinding", "clusterrolebindings", "rbac.authorization.k8s.io", "v1", namespaced=False),
    )
}
BY_NAME = {k.name: k for k in KINDS.values()}

# The kinds that carry a pod spec, which is the list that the Pod Security Standards evaluate.
WORKLOADS = (
    "pods",
    "podtemplates",
    "replicationcontrollers",
    "deployments",
    "replicasets",
    "statefulsets",
    "daemonsets",
    "jobs",
    "cronjobs",
)


def printable(text: object, limit: int = 200) -> str:
    """Text from outside, fit for a message: what does not show, or changes how other text shows, is escaped.

    So are control, direction, zero-width and tag characters, surrogates, and every space but the plain one.
    """
    line = str(text)[: limit + 1]
    if not line.isprintable():
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"
