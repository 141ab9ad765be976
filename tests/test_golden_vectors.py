"""What Azure's own policy templates answered, under profile `defender`; and where `recommended` differs.

P pass, F fail, N not applicable, U unknown: the worst status that a check gives to the objects.
"""

from __future__ import annotations

from typing import Any

import pytest
from support import FIXTURES, Object, container, deployment, gap, judge, merged, objects, owned, pod, secured

from scanner.model import WORST_FIRST, Finding

LETTER = {"pass": "P", "fail": "F", "not_applicable": "N", "unknown": "U", "error": "E"}
LIMITS, IMAGES = "k8s-container-limits", "k8s-trusted-registries"
HOST_NS, APPARMOR = "k8s-host-namespaces", "k8s-apparmor-profile"
ESCALATION, ROOT_FS = "k8s-privilege-escalation", "k8s-read-only-root-fs"
HTTPS, AUTOMOUNT = "k8s-https-only", "k8s-automount-api-credentials"
SYS_ADMIN, NAMESPACE = "k8s-cap-sys-admin", "k8s-default-namespace"
CAPABILITIES, PRIVILEGED = "k8s-least-privileged-capabilities", "k8s-privileged-container"
ROOT, SERVICE_PORTS = "k8s-run-as-root", "k8s-service-allowed-ports"
CONTAINER_PORTS, HOST_NET = "k8s-container-allowed-ports", "k8s-host-network-ports"
HOST_PATH = "k8s-hostpath-volumes"

WINDOWS = {"nodeSelector": {"kubernetes.io/os": "windows"}}
OS_WINDOWS = {"os": {"name": "windows"}}
Case = tuple[str, Any, dict[str, Any] | None, str]


def answer(findings: list[Finding]) -> str:
    assert findings, "nothing was judged"
    assert {f.check for f in findings} != {"k8s-invalid-object"}
    return LETTER[min((f.status for f in findings), key=WORST_FIRST.index)]


def ids(cases: list[Case]) -> list[str]:
    return [f"{check.removeprefix('k8s-')}-{i}-{want}" for i, (check, _, _, want) in enumerate(cases)]


def ephemeral(**fields: Any) -> list[Object]:
    return [container("debug", **fields)]


def limits(**values: Any) -> Object:
    return container(resources={"limits": values})


FINE = {"limits": {"cpu": "1", "memory": "1Gi"}}
AA = "container.apparmor.security.beta.kubernetes.io/"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"

# fmt: off
LIMIT_VECTORS: list[Case] = [
    *[(LIMITS, pod(limits(cpu=v, memory="1Gi")), None, "P") for v in ("0.5", 0.5, "500m", "1", 1, "0.1", 0.1, "32",
     32, "32000m", "0")],
    *[(LIMITS, pod(limits(cpu=v, memory="1Gi")), None, "F") for v in ("32001m", "1e3", ".5", "+1", "1k", "1000n",
     "1000u", "", None)],
    *[(LIMITS, pod(limits(cpu="1", memory=v)), None, "P")
      for v in ("500Mi", "129M", "0.5Gi", "65536Mi", "68719476736", 68719476736, "68719476736000m", "0")],
    *[(LIMITS, pod(limits(cpu="1", memory=v)), None, "F")
      for v in ("68719476737", "1E", "1Ei", "100K", "1 Gi", "1Gib", "129e6", "1n", "1u", "", None)],
    (LIMITS, pod(container(resources=FINE), initContainers=[container("i")]), None, "F"),
    (LIMITS, pod(container(resources=FINE), ephemeralContainers=ephemeral()), None, "P"),
    (LIMITS, pod(**WINDOWS), None, "F"),
    (LIMITS, pod(), {"excluded_images": ["r.io/*"]}, "N"),
    (LIMITS, pod(), {"excluded_images": ["r.io/x:1"]}, "N"),
    (LIMITS, pod(), {"excluded_images": ["r.io/x"]}, "F"),
    (LIMITS, pod(limits(memory="1Gi")), None, "F"),
    (LIMITS, pod(limits()), None, "F"),
    (LIMITS, pod(container(resources={"requests": FINE["limits"]})), None, "F"),
    (LIMITS, pod(resources=FINE), None, "F"),
    (LIMITS, pod(limits(cpu="200m", memory="1Gi")), {"cpu_limit": "200m", "memory_limit": "1Gi"}, "P"),
]

ANCHORED = r"^[^\/]+\.azurecr\.io\/.+$"
IMAGE_VECTORS: list[Case] = [
    *[(IMAGES, pod({"name": "a", "image": image}), {"allowed_images_regex": pattern}, want) for image, pattern,
     want in [
        ("redis:latest", "azurecr.io", "F"), ("acr.azurecr.io/redis:1", "azurecr.io", "P"),
        ("evil.com/acr.azurecr.io/x", "azurecr.io", "P"), ("redis:latest", ANCHORED, "F"),
        ("acr.azurecr.io/redis:1", ANCHORED, "P"), ("evil.com/acr.azurecr.io/x", ANCHORED, "F"),
        ("ACR.AZURECR.IO/redis:1", ANCHORED, "F"), ("<customer-registry>.azurecr.io/redis:latest", ANCHORED, "P"),
    ]],
    (IMAGES, pod({"name": "a", "image": "acr.azurecr.io/r:1"}, ephemeralContainers=[{"name": "e", "image": "busybox"}]),
     {"allowed_images_regex": ANCHORED}, "F"),
    (IMAGES, pod(**WINDOWS), {"allowed_images_regex": ANCHORED}, "F"),
    (IMAGES, pod(), {"allowed_images_regex": ANCHORED, "excluded_containers": ["a"]}, "N"),
    (IMAGES, pod(), None, "F"),
]

HOST_NAMESPACE_VECTORS: list[Case] = [
    (HOST_NS, pod(hostPID=True), None, "F"),
    (HOST_NS, pod(hostIPC=True), None, "F"),
    (HOST_NS, pod(hostPID=False, hostIPC=False), None, "P"),
    (HOST_NS, pod(hostNetwork=True), None, "P"),
    (HOST_NS, pod(shareProcessNamespace=True), None, "P"),
    (HOST_NS, pod(hostPID=True, **WINDOWS), None, "N"),
    (HOST_NS, pod(hostPID=True, **OS_WINDOWS), None, "F"),
    (HOST_NS, pod(hostPID=True), {"excluded_images": ["r.io/x:1"]}, "N"),
    (HOST_NS, pod(hostPID=True, ephemeralContainers=[{"name": "e", "image": "busybox"}]),
     {"excluded_images": ["r.io/*"]}, "F"),
]

RUNTIME = {"allowed_profiles": ["runtime/default"]}
APPARMOR_VECTORS: list[Case] = [
    (APPARMOR, pod(), RUNTIME, "P"),
    (APPARMOR, pod(), None, "P"),
    *[(APPARMOR, pod(annotations={AA + "a": value}), RUNTIME, want) for value, want in [
        ("runtime/default", "P"), ("unconfined", "F"), ("localhost/foo", "F"), ("docker/default", "F"), ("", "F")]],
    (APPARMOR, pod(secured(appArmorProfile={"type": "Unconfined"})), RUNTIME, "P"),
    (APPARMOR, pod(securityContext={"appArmorProfile": {"type": "Unconfined"}}), RUNTIME, "P"),
    (APPARMOR, pod(annotations={AA + "other": "unconfined"}), RUNTIME, "P"),
    (APPARMOR, pod(annotations={"apparmor.security.beta.kubernetes.io/pod": "unconfined"}), RUNTIME, "P"),
    (APPARMOR, pod(), {"allowed_profiles": []}, "F"),
    (APPARMOR, pod(annotations={AA + "a": "localhost/foo"}), {"allowed_profiles": ["localhost/*"]}, "F"),
    (APPARMOR, pod(), {"allowed_profiles": ["*"]}, "F"),
    (APPARMOR, pod(annotations={AA + "debug": "unconfined"}, ephemeralContainers=ephemeral()), RUNTIME, "F"),
    (APPARMOR, pod(annotations={AA + "a": "unconfined"}, **WINDOWS), RUNTIME, "N"),
]

ESCALATION_VECTORS: list[Case] = [
    (ESCALATION, pod(), None, "P"),
    (ESCALATION, pod(secured(allowPrivilegeEscalation=True)), None, "F"),
    (ESCALATION, pod(secured(allowPrivilegeEscalation=False)), None, "P"),
    (ESCALATION, pod(secured(runAsUser=1000)), None, "F"),
    (ESCALATION, pod(secured(runAsUser=1000, allowPrivilegeEscalation=False)), None, "P"),
    (ESCALATION, pod(secured(runAsUser=0)), None, "P"),
    (ESCALATION, pod(securityContext={"runAsUser": 1000}), None, "F"),
    (ESCALATION, pod(secured(runAsUser=0), securityContext={"runAsUser": 1000}), None, "P"),
    (ESCALATION, pod(secured(runAsNonRoot=True)), None, "P"),
    (ESCALATION, pod(secured(privileged=True)), None, "P"),
    (ESCALATION, pod(secured(capabilities={"add": ["SYS_ADMIN"]})), None, "P"),
    (ESCALATION, pod(ephemeralContainers=ephemeral(securityContext={"allowPrivilegeEscalation": True})), None, "F"),
    (ESCALATION, pod(secured(allowPrivilegeEscalation=True), **WINDOWS), None, "N"),
    (ESCALATION, pod(secured(allowPrivilegeEscalation=True), **OS_WINDOWS), None, "F"),
]

ROOT_FS_VECTORS: list[Case] = [
    (ROOT_FS, pod(secured(readOnlyRootFilesystem=True)), None, "P"),
    (ROOT_FS, pod(secured(readOnlyRootFilesystem=False)), None, "F"),
    (ROOT_FS, pod(), None, "F"),
    (ROOT_FS, pod(secured()), None, "F"),
    (ROOT_FS, pod(secured(readOnlyRootFilesystem=True), ephemeralContainers=ephemeral()), None, "F"),
    (ROOT_FS, pod(**WINDOWS), None, "N"),
]


def mounting(path: str, **spec: Any) -> Object:
    return pod(container(volumeMounts=[{"name": "token", "mountPath": path}]), **spec)


# Live pods: admission has written what it decided into them.
AUTOMOUNT_VECTORS: list[Case] = [
    (AUTOMOUNT, pod(), None, "P"),
    (AUTOMOUNT, pod(automountServiceAccountToken=True), None, "F"),
    (AUTOMOUNT, pod(automountServiceAccountToken=False), None, "P"),
    (AUTOMOUNT, mounting(TOKEN), None, "F"),
    (AUTOMOUNT, mounting(TOKEN, automountServiceAccountToken=False), None, "P"),
    (AUTOMOUNT, mounting(TOKEN + "/"), None, "P"),
    (AUTOMOUNT, pod(automountServiceAccountToken=None), None, "P"),
    (AUTOMOUNT, pod(automountServiceAccountToken=True, **WINDOWS), None, "F"),
    (AUTOMOUNT, pod(initContainers=[container("i", volumeMounts=[{"name": "t", "mountPath": TOKEN}])]), None, "F"),
    (AUTOMOUNT, pod(ephemeralContainers=ephemeral(volumeMounts=[{"name": "t", "mountPath": TOKEN}])), None, "F"),
    (AUTOMOUNT, [pod(automountServiceAccountToken=True, serviceAccountName="sa"),
                 {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sa", "namespace": "n"},
                  "automountServiceAccountToken": False}], None, "F"),
]

SYS_ADMIN_VECTORS: list[Case] = [
    *[(SYS_ADMIN, pod(secured(capabilities={"add": [name]})), None, want) for name, want in [
        ("SYS_ADMIN", "F"), ("CAP_SYS_ADMIN", "P"), ("sys_admin", "P"), ("ALL", "P"), ("NET_ADMIN", "P")]],
    (SYS_ADMIN, pod(secured(privileged=True)), None, "P"),
    (SYS_ADMIN, pod(secured(capabilities={"add": ["CHOWN", "SYS_ADMIN"]}), **WINDOWS), None, "N"),
]


def capabilities(add: list[str] | None = None, drop: list[str] | None = None) -> Object:
    return pod(secured(capabilities={"add": add, "drop": drop}))


CAPABILITY_VECTORS: list[Case] = [
    (CAPABILITIES, pod(), None, "P"),
    *[(CAPABILITIES, capabilities(add=[add]), {"allowed_capabilities": allowed}, want) for add, allowed, want in [
        ("NET_BIND_SERVICE", [], "F"), ("net_bind_service", ["NET_BIND_SERVICE"], "P"), ("CAP_CHOWN", ["CHOWN"], "F"),
        ("ALL", ["*"], "P"), ("ALL", ["CHOWN"], "F"), ("ALL", ["all"], "P")]],
    *[(CAPABILITIES, capabilities(drop=[drop]), {"required_drop_capabilities": required}, want) for drop, required,
     want in [
        ("ALL", ["NET_RAW"], "P"), ("all", ["NET_RAW"], "P"), ("NET_RAW", ["NET_RAW", "MKNOD"], "F"),
        ("NET_RAW", ["ALL"], "F"), ("ALL", ["ALL"], "P")]],
    (CAPABILITIES, pod(), {"required_drop_capabilities": ["ALL"]}, "F"),
    (CAPABILITIES, merged(capabilities(add=["CHOWN"]), {"spec": WINDOWS}), None, "N"),
]

PRIVILEGED_VECTORS: list[Case] = [
    (PRIVILEGED, pod(), None, "P"),
    (PRIVILEGED, pod(secured(privileged=False)), None, "P"),
    (PRIVILEGED, pod(secured(privileged=True)), None, "F"),
    (PRIVILEGED, pod(initContainers=[merged(secured(privileged=True), {"name": "i"})]), None, "F"),
    (PRIVILEGED, pod(ephemeralContainers=ephemeral(securityContext={"privileged": True})), None, "F"),
    (PRIVILEGED, pod(secured(windowsOptions={"hostProcess": True})), None, "P"),
    (PRIVILEGED, pod(secured(privileged=True), **WINDOWS), None, "N"),
]

GROUP_RULES = (
    {"run_as_group_rule": "RunAsAny"},
    {"run_as_group_rule": "MayRunAs", "run_as_group_ranges": [{"min": 1, "max": -1}]},
    None,  # the profile's own: MustRunAs [1, -1]
)
NONROOT: dict[str, Any] = {"runAsNonRoot": True}
UID_RANGE = {"run_as_user_rule": "MustRunAs", "run_as_user_ranges": [{"min": 100, "max": 200}],
 "run_as_group_rule": "RunAsAny"}
MAY = GROUP_RULES[1]
USER_VECTORS: list[Case] = [
    *[(ROOT, subject, rule, want)
      for subject, wants in [
          (pod(), "FFF"),
          (pod(secured(**NONROOT)), "PPF"),
          (pod(secured(runAsUser=1000)), "PPF"),
          (pod(secured(runAsUser=1000, runAsNonRoot=False)), "PPF"),
          (pod(secured(runAsUser=0, **NONROOT)), "FFF"),
          (pod(securityContext=NONROOT), "PPF"),
          (pod(secured(runAsNonRoot=False), securityContext=NONROOT), "FFF"),
          (pod(secured(**NONROOT), securityContext={"runAsNonRoot": False}), "PPF"),
          (pod(secured(runAsUser=1000), securityContext={"runAsUser": 0}), "PPF"),
          (pod(secured(runAsUser=0), securityContext={"runAsUser": 1000}), "FFF"),
          (pod(secured(runAsGroup=1000, **NONROOT)), "PPP"),
          (pod(secured(runAsGroup=0, **NONROOT)), "PFF"),
          (pod(secured(**NONROOT), securityContext={"runAsGroup": 1}), "PPP"),
      ]
      for rule, want in zip(GROUP_RULES, wants, strict=True)],
    (ROOT, pod(secured(**NONROOT), securityContext={"fsGroup": 0}), MAY, "F"),
    (ROOT, pod(secured(**NONROOT), securityContext={"supplementalGroups": [0, 5]}), MAY, "F"),
    (ROOT, pod(secured(**NONROOT), securityContext={"supplementalGroups": []}), MAY, "P"),
    (ROOT, pod(secured(**NONROOT), securityContext={"supplementalGroups": [5]}),
     {**MAY, "supplemental_groups_ranges": []}, "F"),
    (ROOT, pod(secured(runAsUser=0), hostUsers=False), MAY, "F"),
    (ROOT, pod(secured(runAsUser=0), **WINDOWS), None, "N"),
    *[(ROOT, pod(secured(runAsUser=uid) if uid else container()), UID_RANGE, want)
      for uid, want in [(99, "F"), (100, "P"), (200, "P"), (201, "F"), (None, "F")]],
]


def service(*ports: int, name: str = "s", namespace: str = "n", **spec: Any) -> Object:
    body = {"ports": [{"port": p} for p in ports], **spec} if ports else spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": body}


SERVICE_VECTORS: list[Case] = [
    *[(SERVICE_PORTS, service(80), {"allowed_ports": allowed}, want) for allowed, want in [
        (["-1"], "F"), (["80"], "P"), (["80-90"], "P"), ([], "F"), (["80", "443"], "P")]],
    (SERVICE_PORTS, service(80, 8080), {"allowed_ports": ["80"]}, "F"),
    (SERVICE_PORTS, service(type="ExternalName", externalName="x.example"), {"allowed_ports": ["80"]}, "N"),
    (SERVICE_PORTS, service(443, name="kubernetes", namespace="default"), {"allowed_ports": ["80"]}, "N"),
    (SERVICE_PORTS, service(443, name="kubernetes", namespace="x"), {"allowed_ports": ["80"]}, "F"),
    (SERVICE_PORTS, service(8080, clusterIP="None"), {"allowed_ports": ["80"]}, "F"),
    (SERVICE_PORTS, merged(service(), {"spec": {"ports": [{"port": 80, "nodePort": 30000, "targetPort": 9}]}}),
     {"allowed_ports": ["80"]}, "P"),
    (SERVICE_PORTS, service(80), None, "F"),
]


def listening(port: int, **fields: Any) -> Object:
    return container(ports=[{"containerPort": port, **fields}])


CONTAINER_PORT_VECTORS: list[Case] = [
    (CONTAINER_PORTS, pod(listening(80)), {"allowed_ports": ["80"]}, "P"),
    (CONTAINER_PORTS, pod(listening(80)), {"allowed_ports": ["70-90"]}, "F"),
    (CONTAINER_PORTS, pod(listening(80)), {"allowed_ports": ["-1"]}, "F"),
    (CONTAINER_PORTS, pod(initContainers=[container("i", ports=[{"containerPort": 81}])]), {"allowed_ports": ["80"]},
     "F"),
    (CONTAINER_PORTS, pod(ephemeralContainers=ephemeral(ports=[{"containerPort": 81}])), {"allowed_ports": ["80"]},
     "P"),
    (CONTAINER_PORTS, pod(), {"allowed_ports": ["80"]}, "P"),
    (CONTAINER_PORTS, pod(listening(81), **WINDOWS), {"allowed_ports": ["80"]}, "F"),
    (CONTAINER_PORTS, pod(listening(80)), None, "F"),
]

RANGE = {"min_port": 80, "max_port": 8000}
HOST_NETWORK_VECTORS: list[Case] = [
    (HOST_NET, pod(hostNetwork=True), None, "F"),
    (HOST_NET, pod(listening(80, hostPort=80)), None, "F"),
    (HOST_NET, pod(listening(80, hostPort=0)), None, "P"),
    (HOST_NET, pod(listening(80)), None, "P"),
    (HOST_NET, pod(listening(80, hostPort=8000)), RANGE, "P"),
    (HOST_NET, pod(listening(80, hostPort=8001)), RANGE, "F"),
    (HOST_NET, pod(listening(80, hostPort=79)), RANGE, "F"),
    (HOST_NET, pod(listening(80, hostPort=0)), RANGE, "F"),
    (HOST_NET, pod(hostNetwork=True), {"allow_host_network": True}, "P"),
    (HOST_NET, pod(hostNetwork=True), {"excluded_images": ["r.io/*"]}, "N"),
    (HOST_NET, pod(hostNetwork=True, **WINDOWS), None, "N"),
    (HOST_NET, pod(initContainers=[container("i", ports=[{"containerPort": 1, "hostPort": 1}])]), None, "F"),
]


def mounted(path: str, *, read_only: bool | None = None, init: bool = False, debug: bool = False) -> Object:
    mount = {"name": "v", "mountPath": "/mnt"} | ({} if read_only is None else {"readOnly": read_only})
    user = container("u", volumeMounts=[mount])
    spec: Object = {"volumes": [{"name": "v", "hostPath": {"path": path}}]}
    if init:
        return pod(initContainers=[user], **spec)
    return pod(ephemeralContainers=[user], **spec) if debug else pod(user, **spec)


def allowed(*rules: tuple[str, bool]) -> dict[str, Any]:
    return {"allowed_host_paths": [{"path_prefix": p, "read_only": ro} for p, ro in rules]}


VAR_LOG = allowed(("/var/log", True))
HOST_PATH_VECTORS: list[Case] = [
    (HOST_PATH, mounted("/tmp"), None, "F"),
    (HOST_PATH, pod(volumes=[{"name": "v", "hostPath": {"path": "/tmp"}}]), None, "P"),
    (HOST_PATH, mounted("/tmp", init=True), None, "F"),
    (HOST_PATH, mounted("/tmp", debug=True), None, "P"),
    (HOST_PATH, mounted("/tmp", read_only=True), allowed(("/tmp", True)), "P"),
    *[(HOST_PATH, mounted(path, read_only=ro), VAR_LOG, want) for path, ro, want in [
        ("/var/log", True, "P"), ("/var/log", False, "F"), ("/var/log", None, "F"), ("/var/log/pods", True, "P"),
        ("/var/logs", True, "F"), ("/var/log/", True, "P"), ("/var", True, "F"), ("/", True, "F"),
         ("/var//log", True, "F")]],
    (HOST_PATH, mounted("/var/log"), allowed(("/var/log", False)), "P"),
    (HOST_PATH, mounted("/etc", read_only=True), allowed(("/", True)), "P"),
    (HOST_PATH, mounted("/etc"), allowed(("/", True)), "F"),
    (HOST_PATH, mounted("/var/log/x"), allowed(("/var", True), ("/var/log", False)), "F"),
    (HOST_PATH, mounted("/tmp"), {"excluded_containers": ["u"]}, "N"),
    (HOST_PATH, merged(mounted("/tmp"), {"spec": WINDOWS}), None, "N"),
]

NGINX = "nginx.ingress.kubernetes.io/"
TLS = {"tls": [{"secretName": "cert"}]}
HOST = {"rules": [{"host": "a.example"}]}
NO_HOST: dict[str, Any] = {"rules": [{}]}


def ingress(class_name: str | None = None, annotations: Object | None = None, name: str = "i", **spec: Any) -> Object:
    if class_name is not None:
        spec["ingressClassName"] = class_name
    meta = {"name": name, "namespace": "n", "annotations": annotations}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec}


FORCE, REDIRECT = NGINX + "force-ssl-redirect", NGINX + "ssl-redirect"
CLASS = "kubernetes.io/ingress.class"
AGIC = {CLASS: "azure/application-gateway"}
INGRESS_VECTORS: list[Case] = [
    (HTTPS, ingress(**HOST), None, "P"),
    (HTTPS, ingress("nginx", **HOST), None, "F"),
    (HTTPS, ingress("nginx", **HOST, **TLS), None, "P"),
    (HTTPS, ingress("nginx", **NO_HOST, **TLS), None, "F"),
    (HTTPS, ingress("nginx", {FORCE: "true"}, **NO_HOST, **TLS), None, "P"),
    (HTTPS, ingress("nginx", {REDIRECT: "false"}, **HOST, **TLS), None, "F"),
    (HTTPS, ingress("nginx", {REDIRECT: "false", FORCE: "true"}, **HOST, **TLS), None, "P"),
    (HTTPS, ingress("nginx", {FORCE: "true", NGINX + "auth-tls-secret": "n/ca"}, **NO_HOST), None, "P"),
    (HTTPS, ingress("nginx", {NGINX + "ssl-passthrough": "true"}, **HOST), None, "P"),
    (HTTPS, ingress(None, {CLASS: "nginx"}, **HOST), None, "F"),
    (HTTPS, ingress("other", {CLASS: "nginx"}, **HOST), None, "P"),
    *[(HTTPS, ingress(name, **HOST), None, "P") for name in ("nginx-internal", "alb", "gce",
     "azure-application-gateway")],
    (HTTPS, ingress(None, AGIC, **HOST), None, "F"),
    (HTTPS, ingress(None, AGIC, **HOST, **TLS), None, "P"),
    (HTTPS, ingress(None, {**AGIC, "appgw.ingress.kubernetes.io/appgw-ssl-certificate": "c"}, **HOST), None, "P"),
    (HTTPS, ingress(None, AGIC, tls=[], **HOST), None, "F"),
    (HTTPS, ingress("nginx", defaultBackend={}, **TLS), None, "F"),
    (HTTPS, ingress("nginx", {FORCE: "true"}, defaultBackend={}, **TLS), None, "P"),
    (HTTPS, service(80), None, "N"),
]


def plain(kind: str, name: str, namespace: str | None = "default", annotations: Object | None = None,
 **fields: Any) -> Object:
    meta = {"name": name, "namespace": namespace, "annotations": annotations}
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, **fields}


FIVE_KINDS = {"kinds": ["Workload", "Service", "ServiceAccount", "ConfigMap", "Secret"]}
TOKEN_OF = {"type": "kubernetes.io/service-account-token"}
ACCOUNT = "kubernetes.io/service-account.name"
NAMESPACE_VECTORS: list[Case] = [
    (NAMESPACE, service(443, name="kubernetes", namespace="default"), FIVE_KINDS, "N"),
    (NAMESPACE, plain("ServiceAccount", "default"), FIVE_KINDS, "N"),
    (NAMESPACE, plain("ConfigMap", "kube-root-ca.crt"), FIVE_KINDS, "N"),
    (NAMESPACE, plain("Secret", "default-token-x", annotations={ACCOUNT: "default"}, **TOKEN_OF), FIVE_KINDS, "N"),
    (NAMESPACE, plain("Secret", "other-token-x", annotations={ACCOUNT: "other"}, **TOKEN_OF), FIVE_KINDS, "F"),
    (NAMESPACE, plain("ServiceAccount", "other"), FIVE_KINDS, "F"),
    (NAMESPACE, plain("ConfigMap", "other"), FIVE_KINDS, "F"),
    (NAMESPACE, plain("Secret", "other"), FIVE_KINDS, "F"),
    (NAMESPACE, plain("ConfigMap", "other"), None, "N"),  # three kinds in the initiative
    (NAMESPACE, service(80, namespace="default"), None, "F"),
    (NAMESPACE, pod(namespace="x"), None, "P"),
    (NAMESPACE, pod(namespace="default"), None, "F"),
    (NAMESPACE, plain("ServiceAccount", "other", None), None, "F"),
]
# fmt: on

VECTORS = [
    *LIMIT_VECTORS, *IMAGE_VECTORS, *HOST_NAMESPACE_VECTORS, *APPARMOR_VECTORS, *ESCALATION_VECTORS, *ROOT_FS_VECTORS,
    *SYS_ADMIN_VECTORS, *CAPABILITY_VECTORS, *PRIVILEGED_VECTORS, *USER_VECTORS, *SERVICE_VECTORS,
    *CONTAINER_PORT_VECTORS, *HOST_NETWORK_VECTORS, *HOST_PATH_VECTORS, *INGRESS_VECTORS, *NAMESPACE_VECTORS,
]  # fmt: skip


@pytest.mark.parametrize(("check", "source", "params", "want"), VECTORS, ids=ids(VECTORS))
def test_azure_answers(check: str, source: Any, params: dict[str, Any] | None, want: str) -> None:
    """The same for running pods and for manifests, which the templates do not tell apart."""
    for live in (True, False):
        assert answer(judge(source, check, profile="defender", params=params, live=live)) == want


@pytest.mark.parametrize(("check", "source", "params", "want"), AUTOMOUNT_VECTORS, ids=ids(AUTOMOUNT_VECTORS))
def test_azure_answers_for_running_pods(check: str, source: Any, params: dict[str, Any] | None, want: str) -> None:
    assert answer(judge(source, check, profile="defender", params=params, live=True)) == want


CLOSED, OPEN = ({"kubernetes.io/ingress.allow-http": value} for value in ("false", "true"))
# fmt: off
RULE_OF_2021: list[tuple[Object, str, str]] = [
    *[(ingress(name, CLOSED, **HOST, **TLS), "P", "") for name in (None, "nginx", "alb", "gce", "own")],
    *[(ingress(name, CLOSED, **HOST), "F", "no_tls") for name in (None, "nginx", "alb", "gce", "own")],
    (ingress("nginx", CLOSED, tls=[], **HOST), "F", "no_tls"),
    (ingress("own", CLOSED, **NO_HOST, **TLS), "P", ""),  # nobody looks which hosts have a certificate
    *[(ingress(None, {"kubernetes.io/ingress.allow-http": value}, **HOST, **TLS), "F", "")
      for value in ("true", "False", "0", "")],  # the text "false" alone counts
    (ingress("nginx", **HOST, **TLS), "F", ""),
    (ingress("nginx", {FORCE: "true", REDIRECT: "true"}, **HOST, **TLS), "F", ""),
    (ingress(None, {**AGIC, "appgw.ingress.kubernetes.io/appgw-ssl-certificate": "c", **CLOSED}, **HOST), "F",
     "no_tls"),
]
# fmt: on


@pytest.mark.parametrize(("source", "want", "reason"), RULE_OF_2021)
def test_https_rule_of_2021(source: Object, want: str, reason: str) -> None:
    (finding,) = judge(source, HTTPS, profile="defender-2021")
    assert (LETTER[finding.status], finding.reason) == (want, reason)


@pytest.mark.parametrize(("annotations", "value", "default"), [(None, "not set", "true"), (OPEN, "true", None)])
def test_https_rule_of_2021_shows_what_it_looked_at(
    annotations: Object | None, value: str, default: str | None
) -> None:
    (finding,) = judge(ingress("nginx", annotations, **HOST, **TLS), HTTPS, profile="defender-2021")
    at = "metadata.annotations['kubernetes.io/ingress.allow-http']"
    assert [(e.path, e.value, e.default) for e in finding.evidence] == [(at, value, default)]


@pytest.mark.parametrize("items", [[" 80"], [80]])
def test_azure_compares_ports_literally(items: list[Any]) -> None:
    assert answer(judge(service(80), SERVICE_PORTS, profile="defender", params={"allowed_ports": items})) == "F"


def test_one_of_two_ports_is_the_evidence() -> None:
    (finding,) = judge(service(80, 8080), SERVICE_PORTS, profile="defender", params={"allowed_ports": ["80"]})
    assert [(e.path, e.value) for e in finding.evidence] == [("spec.ports[1].port", "8080")]


def test_empty_limits_give_both_reasons_in_one_finding() -> None:
    (finding,) = judge(pod(limits()), LIMITS, profile="defender")
    assert len(finding.evidence) == 2


# ---------------------------------------------------------------------------------------------------------------------
# Where kubeposture's own profile differs


def account(automount: bool | None, name: str = "sa", namespace: str = "n") -> Object:
    base = plain("ServiceAccount", name, namespace)
    return base if automount is None else {**base, "automountServiceAccountToken": automount}


def limit_range(**default: str) -> Object:
    return plain("LimitRange", "lr", "n", spec={"limits": [{"type": "Container", "default": default}]})


def ingress_class(name: str, controller: str, *, default: bool = False) -> Object:
    marks = {"ingressclass.kubernetes.io/is-default-class": "true"} if default else None
    meta = {"name": name, "annotations": marks}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": meta,
        "spec": {"controller": controller},
    }


def frontend(enabled: bool) -> Object:
    body = {"redirectToHttps": {"enabled": enabled}}
    return {
        "apiVersion": "networking.gke.io/v1beta1",
        "kind": "FrontendConfig",
        "metadata": {"name": "f", "namespace": "n"},
        "spec": body,
    }


PORTS, CERT = "alb.ingress.kubernetes.io/listen-ports", {"alb.ingress.kubernetes.io/certificate-arn": "arn:x"}
ALB_REDIRECT = "alb.ingress.kubernetes.io/ssl-redirect"
BOTH_PORTS = {PORTS: '[{"HTTP": 80}, {"HTTPS": 443}]', **CERT}
GROUP = {"alb.ingress.kubernetes.io/group.name": "g"}
MANAGED = {"networking.gke.io/managed-certificates": "m"}
HTTP_OFF = {"kubernetes.io/ingress.allow-http": "false"}
MINION, MASTER = {"nginx.org/mergeable-ingress-type": "minion"}, {"nginx.org/mergeable-ingress-type": "master"}
MANUAL = {
    "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
    "automountServiceAccountToken": False,
}
MANUAL_MOUNT = container(volumeMounts=[{"name": "t", "mountPath": "/tokens"}])
BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b", "namespace": "n"},
    "subjects": [{"kind": "ServiceAccount", "name": "sa"}],
}  # fmt: skip

# fmt: off
DEVIATIONS: list[Case] = [
    # 3.1: the whole grammar, zero and negative limit nothing, limits of the pod count
    *[(LIMITS, pod(limits(cpu=cpu, memory="1Gi")), None, want) for cpu, want in [
        ("1e1", "P"), (".5", "P"), ("+1", "P"), ("1000u", "P"), ("1000n", "P"), ("1e3", "F"), ("1k", "F"),
        ("0", "F"), (0, "F"), ("-1", "F"), ("x", "F"), ("32", "P"), ("32001m", "F")]],
    *[(LIMITS, pod(limits(cpu="1", memory=memory)), None, want) for memory, want in [
        ("129e6", "P"), ("1u", "P"), ("0", "F"), ("-1Gi", "F"), ("64Gi", "P"), ("65Gi", "F"), ("100K", "F")]],
    (LIMITS, pod(resources=FINE), None, "P"),
    (LIMITS, pod(resources={"limits": {"cpu": "64", "memory": "1Gi"}}), None, "F"),
    (LIMITS, pod(resources={"limits": {"cpu": "1"}}), None, "F"),
    (LIMITS, [deployment(), limit_range(cpu="1", memory="1Gi")], None, "F"),  # static: off
    (LIMITS, [deployment(), limit_range(cpu="1", memory="1Gi")], {"apply_limit_ranges": True}, "P"),
    (LIMITS, [deployment(), limit_range(cpu="64", memory="1Gi")], {"apply_limit_ranges": True}, "F"),
    (LIMITS, pod(container(resources=FINE), ephemeralContainers=ephemeral()), None, "P"),
    # 3.2: an empty pattern is none; registries on whole host and path segments
    (IMAGES, pod(), {"allowed_images_regex": ""}, "F"),
    *[(IMAGES, pod({"name": "a", "image": image}), {"allowed_registries": ["r.io/team", "docker.io/library"]}, want)
      for image, want in [("r.io/team/x:1", "P"), ("r.io/teams/x:1", "F"), ("r.io.evil/team/x", "F"),
       ("redis:latest", "P"),
                          ("user/redis", "F"), ("R.IO/team/x", "P"), ("evil/r.io/team/x", "F")]],
    *[(IMAGES, pod({"name": "a", "image": image}), {"allowed_images_regex": ".*"}, "F") for image in (None, "")],
    # 3.3
    (HOST_NS, pod(hostNetwork=True), {"include_host_network": True}, "F"),
    (HOST_NS, pod(hostPID=True, **OS_WINDOWS), None, "N"),
    (HOST_NS, pod(hostPID=True, nodeSelector={"beta.kubernetes.io/os": "windows"}), None, "N"),
    # 3.4: the field counts, in the order container field, annotation, pod field
    (APPARMOR, pod(secured(appArmorProfile={"type": "Unconfined"})), None, "F"),
    (APPARMOR, pod(secured(appArmorProfile={"type": "RuntimeDefault"}), annotations={AA + "a": "unconfined"}), None,
     "P"),
    (APPARMOR,
     pod(annotations={AA + "a": "unconfined"}, securityContext={"appArmorProfile": {"type": "RuntimeDefault"}}), None,
      "F"),
    (APPARMOR, pod(securityContext={"appArmorProfile": {"type": "Unconfined"}}), None, "F"),
    (APPARMOR, pod(secured(appArmorProfile={"type": "RuntimeDefault"}),
     securityContext={"appArmorProfile": {"type": "Unconfined"}}), None, "P"),
    (APPARMOR, pod(secured(appArmorProfile={"type": "Localhost", "localhostProfile": "k/x"})), None, "F"),
    (APPARMOR, pod(secured(appArmorProfile={"type": "Localhost", "localhostProfile": "k/x"})),
     {"allowed_profiles": ["localhost/k/*"]}, "P"),
    (APPARMOR, pod(secured(appArmorProfile={"type": "Localhost", "localhostProfile": "k/x"})),
     {"allowed_profiles": ["Localhost"]}, "P"),
    (APPARMOR, pod(secured(appArmorProfile={"type": "RuntimeDefault"})), {"allowed_profiles": ["RuntimeDefault"]}, "P"),
    (APPARMOR, pod(), {"require_explicit": True}, "F"),
    (APPARMOR, pod(secured(privileged=True)), None, "P"),
    (APPARMOR, pod(secured(privileged=True)), {"privileged_counts_as_unconfined": True}, "F"),
    # 3.5: only an explicit false
    (ESCALATION, pod(), None, "F"),
    (ESCALATION, pod(secured(runAsUser=0)), None, "F"),
    (ESCALATION, pod(secured(allowPrivilegeEscalation=False)), None, "P"),
    (ESCALATION, pod(secured(allowPrivilegeEscalation=False, privileged=True)), None, "F"),
    (ESCALATION, pod(secured(allowPrivilegeEscalation=False, capabilities={"add": ["CAP_SYS_ADMIN"]})), None, "F"),
    # 3.6: debug containers are left out
    (ROOT_FS, pod(secured(readOnlyRootFilesystem=True), ephemeralContainers=ephemeral()), None, "P"),
    (ROOT_FS, pod(secured(readOnlyRootFilesystem=True), ephemeralContainers=ephemeral()), {"include_ephemeral": True},
     "F"),
    # 3.7: every controller has its own rule, an unknown one needs TLS for each host
    (HTTPS, ingress(**HOST), None, "F"),
    (HTTPS, ingress(**HOST, **TLS), None, "P"),
    (HTTPS, ingress("own", rules=[{"host": "a.x"}, {"host": "b.x"}], tls=[{"hosts": ["a.x"]}]), None, "F"),
    (HTTPS, ingress("own", rules=[{"host": "a.x"}, {"host": "b.x"}], tls=[{"hosts": ["a.x"]}, {"hosts": ["*.x"]}]),
     None, "P"),
    (HTTPS, ingress("own", rules=[{"host": "a.b.x"}], tls=[{"hosts": ["*.x"]}]), None, "F"),
    (HTTPS, ingress("own", tls=[{"hosts": ["a.x"]}], **NO_HOST), None, "F"),
    (HTTPS, ingress("own", **HOST), {"unknown_controllers": "pass"}, "P"),
    (HTTPS, ingress("azure-application-gateway", **HOST), None, "F"),
    (HTTPS, ingress("azure-application-gateway", **HOST, **TLS), None, "P"),
    (HTTPS, [ingress("internal", **NO_HOST, **TLS), ingress_class("internal", "k8s.io/ingress-nginx")], None, "F"),
    (HTTPS, [ingress("internal", {FORCE: "true"}, **NO_HOST, **TLS),
     ingress_class("internal", "k8s.io/ingress-nginx")], None, "P"),
    (HTTPS, [ingress(**NO_HOST, **TLS), ingress_class("main", "k8s.io/ingress-nginx", default=True)], None, "F"),
    (HTTPS, [ingress("nginx", **NO_HOST, **TLS), ingress_class("nginx", "example.com/own")], None, "P"),
    (HTTPS, ingress("gce", **HOST, **TLS), None, "F"),
    (HTTPS, ingress("gce", HTTP_OFF, **HOST, **TLS), None, "P"),
    (HTTPS, ingress("gce", {**HTTP_OFF, **MANAGED}, **HOST), None, "P"),
    (HTTPS, ingress("gce", HTTP_OFF, **HOST), None, "F"),
    (HTTPS, [ingress("gce", {"networking.gke.io/v1beta1.FrontendConfig": "f", **MANAGED}, **HOST), frontend(True)],
     None, "P"),
    (HTTPS, [ingress("gce", {"networking.gke.io/v1beta1.FrontendConfig": "f", **MANAGED}, **HOST), frontend(False)],
     None, "F"),
    (HTTPS, ingress("alb", **HOST), None, "F"),
    (HTTPS, ingress("alb", CERT, **HOST), None, "P"),
    (HTTPS, ingress("alb", BOTH_PORTS, **HOST), None, "F"),
    (HTTPS, ingress("alb", {**BOTH_PORTS, ALB_REDIRECT: "443"}, **HOST), None, "P"),
    (HTTPS, [ingress("alb", {**BOTH_PORTS, **GROUP}), ingress("alb", {**BOTH_PORTS, **GROUP, ALB_REDIRECT: "443"},
     name="j")], None, "P"),
    (HTTPS, ingress("alb", {PORTS: '[{"HTTPS": 8443}]', **CERT}), None, "P"),
    (HTTPS, ingress("alb", {PORTS: "HTTPS:443", **CERT}), None, "F"),
    (HTTPS, [ingress("nginx", MINION, **HOST), ingress("nginx", MASTER, name="m", **HOST, **TLS)], None, "P"),
    (HTTPS, [ingress("nginx", MINION, **HOST), ingress("nginx", {**MASTER, FORCE: "true"}, name="m", **HOST)], None,
     "F"),
    # annotations as the controllers read them: Go's booleans, and an empty value is none
    *[(HTTPS, ingress("nginx", {REDIRECT: off}, **HOST, **TLS), None, "F") for off in ("False", "FALSE", "0", "f",
     "F")],
    *[(HTTPS, ingress("nginx", {FORCE: on}, **NO_HOST, **TLS), None, "P") for on in ("True", "1", "t")],
    (HTTPS, ingress("nginx", {REDIRECT: "no"}, **HOST, **TLS), None, "P"),  # not a boolean: the default holds
    (HTTPS, ingress("nginx", {FORCE: "true", NGINX + "auth-tls-secret": ""}, **HOST), None, "F"),
    (HTTPS, ingress("gce", {"kubernetes.io/ingress.allow-http": "0", **MANAGED}, **HOST), None, "P"),
    (HTTPS, ingress("gce", {**HTTP_OFF, "ingress.gcp.kubernetes.io/pre-shared-cert": ""}, **HOST), None, "F"),
    (HTTPS, [ingress("gce", {"networking.gke.io/v1beta1.FrontendConfig": "", **MANAGED}),
             merged(frontend(True), {"metadata": {"name": None}})], None, "F"),
    *[(HTTPS, ingress("alb", {PORTS: ports, **CERT}), None, "F") for ports in ("[]", "[{}]", '[{"https": 443}]', "5",
     "null")],
    (HTTPS, ingress("alb", {"alb.ingress.kubernetes.io/certificate-arn": ""}), None, "F"),
    (HTTPS, ingress("alb", {**BOTH_PORTS, ALB_REDIRECT: ""}), None, "F"),
    (HTTPS, [ingress("alb", BOTH_PORTS),
             ingress("alb", {**BOTH_PORTS, ALB_REDIRECT: "443", "alb.ingress.kubernetes.io/group.name": ""}, name="j")],
     None, "F"),
    # 3.8: templates are judged as admission would, running pods by their mounts
    (AUTOMOUNT, deployment(), None, "F"),
    (AUTOMOUNT, deployment(automountServiceAccountToken=None), None, "F"),
    (AUTOMOUNT, deployment(automountServiceAccountToken=True), None, "F"),
    (AUTOMOUNT, deployment(automountServiceAccountToken=False), None, "P"),
    (AUTOMOUNT, [deployment(serviceAccountName="sa"), account(False)], None, "P"),
    (AUTOMOUNT, [deployment(serviceAccount="sa"), account(False)], None, "P"),
    (AUTOMOUNT, [deployment(), account(False, "default")], None, "P"),
    (AUTOMOUNT, [deployment(serviceAccountName="sa"), account(None)], None, "F"),
    (AUTOMOUNT, [deployment(serviceAccountName="sa"), account(False, namespace="other")], None, "F"),
    (AUTOMOUNT, [deployment(serviceAccountName="sa", automountServiceAccountToken=True), account(False)], None, "F"),
    *[(AUTOMOUNT, [deployment(serviceAccountName="sa"), account(one), account(other)], None, "F")
      for one, other in [(None, False), (False, None), (True, False), (False, True)]],
    (AUTOMOUNT, deployment(MANUAL_MOUNT, **MANUAL), None, "P"),
    (AUTOMOUNT, deployment(MANUAL_MOUNT, **MANUAL), {"flag_manual_tokens": True}, "F"),
    # 3.9: names in any spelling, ALL contains it
    *[(SYS_ADMIN, capabilities(add=[name]), None, want) for name, want in [
        ("SYS_ADMIN", "F"), ("CAP_SYS_ADMIN", "F"), ("sys_admin", "F"), ("ALL", "F"), ("all", "F"),
         ("NET_ADMIN", "P")]],
    (SYS_ADMIN, pod(secured(privileged=True)), None, "P"),
    # 3.10: workloads of every kind and ConfigMaps; what platforms and Helm make is left out
    (NAMESPACE, deployment(namespace="default"), None, "F"),
    (NAMESPACE, plain("ConfigMap", "settings"), None, "F"),
    (NAMESPACE, plain("Secret", "s"), None, "N"),
    (NAMESPACE, plain("ConfigMap", "openshift-service-ca.crt"), None, "N"),
    (NAMESPACE, plain("Secret", "sh.helm.release.v1.x", type="helm.sh/release.v1"), FIVE_KINDS, "N"),
    (NAMESPACE, plain("Secret", "opaque", type="Opaque"), FIVE_KINDS, "F"),
    # a pod does not become the platform's by naming its ConfigMap as controller
    *[(NAMESPACE, owned(pod(namespace="default"), kind, name, "v1"), None, "F")
      for kind, name in [("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default"), ("Service", "kubernetes")]],
    # 3.11: CAP_ or not
    (CAPABILITIES, capabilities(add=["CAP_CHOWN"]), {"allowed_capabilities": ["CHOWN"]}, "P"),
    (CAPABILITIES, capabilities(add=["chown"]), {"allowed_capabilities": ["CAP_CHOWN"]}, "P"),
    (CAPABILITIES, capabilities(add=["CHOWN"]), None, "F"),
    (CAPABILITIES, capabilities(drop=["CAP_ALL"]), {"required_drop_capabilities": ["ALL"]}, "F"),
    (CAPABILITIES, capabilities(drop=["CAP_ALL"]), {"required_drop_capabilities": ["NET_RAW"]}, "F"),
    (CAPABILITIES, capabilities(drop=["CAP_NET_RAW"]), {"required_drop_capabilities": ["NET_RAW"]}, "P"),
    # 3.13: a missing group is no failure, the root group is
    (ROOT, pod(secured(**NONROOT)), None, "P"),
    (ROOT, pod(secured(runAsGroup=0, **NONROOT)), None, "F"),
    (ROOT, pod(secured(runAsUser=0), hostUsers=False), None, "F"),
    (ROOT, pod(secured(runAsUser=0), hostUsers=False), {"exempt_user_namespaces": True}, "P"),
    (ROOT, pod(secured(runAsUser=0), hostUsers=None), {"exempt_user_namespaces": True}, "F"),
    # 3.14, 3.15: one grammar of port lists
    *[(SERVICE_PORTS, service(80), {"allowed_ports": items}, want) for items, want in [
        ([" 80"], "P"), ([80], "P"), (["70 - 90"], "P"), ([-1], "F"), ([81], "F")]],
    (CONTAINER_PORTS, pod(listening(80)), {"allowed_ports": ["70-90"]}, "P"),
    # 3.16: 0 is none; implied ports fold into the host network
    (HOST_NET, pod(listening(80, hostPort=0)), RANGE, "P"),
    (HOST_NET, pod(listening(80, hostPort=8080)), {"allowed_host_ports": ["8000-8999"]}, "P"),
    (HOST_NET, pod(listening(80, hostPort=80)), {"allowed_host_ports": ["8000-8999"]}, "F"),
    # 3.17: paths are cleaned, debug containers count, Windows has its own list
    (HOST_PATH, mounted("/var//log", read_only=True), VAR_LOG, "P"),
    (HOST_PATH, mounted("/var/log/../../etc", read_only=True), VAR_LOG, "F"),
    (HOST_PATH, mounted("/var/./log/pods", read_only=True), VAR_LOG, "P"),
    (HOST_PATH, mounted("/tmp", debug=True), None, "F"),
    (HOST_PATH, pod(volumes=[{"name": "v", "hostPath": {"path": "/tmp"}}]), None, "P"),
    (HOST_PATH, pod(volumes=[{"name": "v", "hostPath": {"path": "/tmp"}}]), {"include_unmounted": True}, "F"),
    (HOST_PATH, merged(mounted("C:\\ProgramData\\x"), {"spec": WINDOWS}), None, "F"),
    (HOST_PATH, merged(mounted("C:\\ProgramData\\x"), {"spec": OS_WINDOWS}),
     {"windows_allowed_host_paths": [{"path_prefix": "c:/programdata"}]}, "P"),
    (HOST_PATH, merged(mounted("C:\\ProgramDatax"), {"spec": OS_WINDOWS}),
     {"windows_allowed_host_paths": [{"path_prefix": "c:/programdata"}]}, "F"),
]
# fmt: on


@pytest.mark.parametrize(("check", "source", "params", "want"), DEVIATIONS, ids=ids(DEVIATIONS))
def test_recommended(check: str, source: Any, params: dict[str, Any] | None, want: str) -> None:
    assert answer(judge(source, check, params=params)) == want


# fmt: off
LIVE: list[Case] = [
    (AUTOMOUNT, mounting(TOKEN), None, "F"),
    (AUTOMOUNT, mounting(TOKEN + "/"), None, "F"),
    *[(AUTOMOUNT, mounting(path), None, "F") for path in (
        "/var/run//secrets/kubernetes.io/./serviceaccount", "/" + TOKEN, TOKEN[1:], "/var/run/x/.." + TOKEN[8:])],
    (HOST_NET, pod(listening(80, hostPort=80), hostNetwork=True), {"allow_host_network": True}, "F"),
    (HOST_NET, pod(listening(80, hostPort=80), hostNetwork=True),
     {"allow_host_network": True, "allowed_host_ports": ["80"]}, "P"),
    (AUTOMOUNT, pod(), None, "P"),
    (AUTOMOUNT, pod(automountServiceAccountToken=None), None, "P"),
    (AUTOMOUNT, mounting(TOKEN, automountServiceAccountToken=None), None, "F"),
    (LIMITS, [deployment(), limit_range(cpu="1", memory="1Gi")], None, "P"),
    (LIMITS, [deployment(), limit_range(cpu="1")], None, "F"),
    (LIMITS, [pod(), limit_range(cpu="1", memory="1Gi")], None, "F"),  # admission did not apply it: the pod is older
    (LIMITS, [deployment(), limit_range(cpu="1", memory="1Gi")], {"apply_limit_ranges": False}, "F"),
    (HTTPS, ingress(**HOST, **TLS), None, "P"),
    (PRIVILEGED, [pod(secured(privileged=True), nodeName="w1"),
                  {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "w1",
                   "labels": {"kubernetes.io/os": "windows"}}}], None, "N"),
    (PRIVILEGED, [pod(secured(privileged=True), nodeName="l1"),
                  {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "l1",
                   "labels": {"kubernetes.io/os": "linux"}}}], None, "F"),
]
# fmt: on


@pytest.mark.parametrize(("check", "source", "params", "want"), LIVE, ids=ids(LIVE))
def test_recommended_in_a_cluster(check: str, source: Any, params: dict[str, Any] | None, want: str) -> None:
    assert answer(judge(source, check, params=params, live=True)) == want


def test_host_ports_of_the_host_network_are_one_cause() -> None:
    (finding,) = judge(pod(listening(80, hostPort=80), hostNetwork=True), HOST_NET, live=True)
    assert [e.path for e in finding.evidence] == ["spec.hostNetwork"]


def test_ingress_without_class_on_gke_is_gces() -> None:
    assert answer(judge(ingress(**HOST, **TLS), HTTPS, gke=True)) == "F"
    assert answer(judge(ingress(annotations=HTTP_OFF, **HOST, **TLS), HTTPS, gke=True)) == "P"


def test_service_account_that_is_not_in_the_input_is_named() -> None:
    (finding,) = judge(deployment(serviceAccountName="sa"), AUTOMOUNT)
    assert finding.reason == "service_account_not_in_input"
    (known,) = (f for f in judge([deployment(serviceAccountName="sa"), account(None)], AUTOMOUNT))
    assert known.reason == ""


@pytest.mark.parametrize("live", [True, False])
def test_a_bound_account_needs_its_token(live: bool) -> None:
    source = [pod(serviceAccountName="sa", automountServiceAccountToken=True), BINDING]
    (finding,) = judge(source, AUTOMOUNT, params={"exempt_with_rbac": True}, live=live)
    assert (finding.status, finding.severity, finding.reason) == ("fail", "info", "bound_by_rbac")
    (plainly,) = judge(source, AUTOMOUNT, live=live)
    assert plainly.severity == "high"


def test_manual_token_is_information() -> None:
    (finding,) = judge(deployment(MANUAL_MOUNT, **MANUAL), AUTOMOUNT, params={"flag_manual_tokens": True})
    assert (finding.severity, finding.reason) == ("info", "manual_token")


@pytest.mark.parametrize(
    ("namespace", "reason"), [("default", "namespace_default"), (None, "namespace_not_set"), ("", "namespace_not_set")]
)
def test_default_namespace_reasons(namespace: str | None, reason: str) -> None:
    source = merged(deployment(), {"metadata": {"namespace": namespace}})
    (finding,) = judge(source, NAMESPACE)
    assert finding.reason == reason
    assert answer(judge(source, NAMESPACE, namespace="app")) == ("F" if namespace else "P")


def test_contradiction_is_named() -> None:
    (finding,) = judge(pod(secured(allowPrivilegeEscalation=False, privileged=True)), ESCALATION)
    assert finding.reason == "contradictory"


UNKNOWN: list[tuple[str, Any, str, str]] = [
    (AUTOMOUNT, deployment(), "serviceaccounts", "U"),
    (AUTOMOUNT, deployment(automountServiceAccountToken=True), "serviceaccounts", "F"),
    (AUTOMOUNT, deployment(automountServiceAccountToken=False), "serviceaccounts", "P"),
    (AUTOMOUNT, pod(), "serviceaccounts", "P"),
    (AUTOMOUNT, mounting(TOKEN), "serviceaccounts", "F"),
    (LIMITS, deployment(), "limitranges", "U"),
    (LIMITS, deployment(limits(cpu="1", memory="1Gi")), "limitranges", "P"),
    (LIMITS, deployment(limits(cpu="64", memory="1Gi")), "limitranges", "F"),
    (LIMITS, deployment(limits(cpu="64")), "limitranges", "F"),
    (LIMITS, pod(), "limitranges", "F"),
    (HTTPS, ingress("own", **HOST), "ingressclasses", "U"),
    (HTTPS, ingress("nginx", **HOST), "ingressclasses", "F"),
    (HTTPS, ingress("gce", {"networking.gke.io/v1beta1.FrontendConfig": "f", **MANAGED}), "frontendconfigs", "U"),
    (HTTPS, ingress("gce", MANAGED), "frontendconfigs", "F"),
    (HTTPS, ingress("gce", {"networking.gke.io/v1beta1.FrontendConfig": "f", **HTTP_OFF, **MANAGED}),
     "frontendconfigs", "P"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "source", "denied", "want"), UNKNOWN)
def test_denied_evidence(check: str, source: Any, denied: str, want: str) -> None:
    """Unknown where the answer hangs on it; what is proven without it stands."""
    assert answer(judge(source, check, live=True, gaps=[gap(denied)])) == want


# ---------------------------------------------------------------------------------------------------------------------
# The seeds

SUITABLE = {
    IMAGES: {"allowed_images_regex": ANCHORED},
    SERVICE_PORTS: {"allowed_ports": ["80"]},
    CONTAINER_PORTS: {"allowed_ports": ["80"]},
    APPARMOR: RUNTIME,
    LIMITS: {"cpu_limit": "200m", "memory_limit": "1Gi"},
    ROOT: {"run_as_group_rule": "MayRunAs"},
}

# columns: healthy defender, 2021, recommended, suitable; unhealthy defender, 2021, recommended
SEEDS = {
    LIMITS: "PFPP FFF",
    IMAGES: "CCCP FFF",
    HOST_NS: "PPPP FFF",
    APPARMOR: "PFPP PFP",
    ESCALATION: "PPPP FFF",
    ROOT_FS: "PPPP FFF",
    HTTPS: "NNNN NNN",
    AUTOMOUNT: "FFFP FFF",
    SYS_ADMIN: "PPPP PPP",
    NAMESPACE: "222P 222",
    CAPABILITIES: "PPPP FFF",
    PRIVILEGED: "PPPP FFF",
    ROOT: "FPPP FFF",
    SERVICE_PORTS: "CCCP FFF",
    CONTAINER_PORTS: "-C-P -F-",
    HOST_NET: "PPPP FFF",
    HOST_PATH: "PPPP FFF",
}
PROFILES = ("defender", "defender-2021", "recommended")


def seed(name: str, profile: str) -> list[Finding]:
    source = (FIXTURES / "seeds" / f"{name}.yaml").read_text(encoding="utf-8")
    if profile != "suitable":
        return judge(source, profile=profile)
    deployed = [*objects(source), plain("ServiceAccount", "default", "app", automountServiceAccountToken=False)]
    return judge(deployed, [*SEEDS], parameters=SUITABLE, namespace="app")


@pytest.mark.parametrize(
    ("name", "profile", "column"),
    [
        *(("healthy", p, i) for i, p in enumerate((*PROFILES, "suitable"))),
        *(("unhealthy", p, i + 5) for i, p in enumerate(PROFILES)),
    ],
)
def test_seeds(name: str, profile: str, column: int) -> None:
    found = seed(name, profile)
    assert {check: _letter(found, check, SEEDS[check][column]) for check in SEEDS} == {
        c: SEEDS[c][column] for c in SEEDS
    }


def _letter(findings: list[Finding], check: str, want: str) -> str:
    """C is a failure for want of configuration, 2 are two failures, - is a check that did not run."""
    mine = [f for f in findings if f.check == check]
    if not mine:
        return "-"
    fails = [f for f in mine if f.status == "fail"]
    if fails and all(f.reason == "configuration_required" for f in fails):
        return "C" if want == "C" else "F"
    return str(len(fails)) if want == "2" else answer(mine)


def test_healthy_seed_under_recommended_fails_exactly_these() -> None:
    found = {
        (f.check, f.resource.kind)
        for f in seed("healthy", "recommended")
        if f.status != "pass" and f.status != "not_applicable"
    }
    configured = {(IMAGES, "Files"), (SERVICE_PORTS, "Files")}
    assert found == configured | {(AUTOMOUNT, "Deployment"), (NAMESPACE, "Deployment"), (NAMESPACE, "Service")}
