"""Realistic manifest files of any number, about 2.4 KB each, good and bad settings mixed.

Everything follows from an index, so any file can be made alone.
"""

from __future__ import annotations

from collections.abc import Iterator

KINDS = ("Deployment", "Deployment", "Deployment", "StatefulSet", "DaemonSet", "CronJob")
TEAMS = ("payments", "search", "identity", "web", "data", "platform")
IMAGES = ("api", "worker", "gateway", "cache", "exporter")
# What makes a manifest bad, by index % 10; the other numbers are good.
FLAWS = {1: "privileged", 3: "root", 4: "no-limits", 6: "host", 8: "capabilities"}

_META = """\
# {name}: owned by team {team}. Rendered by the platform's templates, edit values instead.
apiVersion: {api}
kind: {kind}
metadata:
  name: {name}
  namespace: {namespace}
  labels:
    app.kubernetes.io/name: {name}
    app.kubernetes.io/part-of: {team}
    app.kubernetes.io/version: "1.{minor}.0"
  annotations:
    example.com/description: "Serves {team}: requests, retries and the nightly import"
    example.com/on-call: '{team}@example.com'
spec:
"""
_REPLICATED = """\
  replicas: {replicas}
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
"""
_SERVICE = """\
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {namespace}
spec:
  type: {service_type}
  selector:
    app.kubernetes.io/name: {name}
  ports:
  - name: http
    port: 80
    targetPort: http
    protocol: TCP
"""
_POD = """\
metadata:
  labels:
    app.kubernetes.io/name: {name}
spec:
  serviceAccountName: {name}
  automountServiceAccountToken: {automount}
{host}\
  securityContext:
    runAsNonRoot: {non_root}
    seccompProfile:
      type: RuntimeDefault
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              app.kubernetes.io/name: {name}
  containers:
  - name: {image}
    image: registry.example.com/{team}/{image}:1.{minor}.0
    args: ["--port=8080", "--log-level=info"]
    ports:
    - name: http
      containerPort: 8080
    env:
    - name: POD_NAME
      valueFrom:
        fieldRef:
          fieldPath: metadata.name
    - name: QUEUE
      value: "jobs-{minor}"
    # the probe answers only after the cache is warm
    readinessProbe:
      httpGet:
        path: /ready
        port: http
      initialDelaySeconds: 5
      periodSeconds: 10
{resources}\
{security}\
    volumeMounts:
    - name: tmp
      mountPath: /tmp
    - name: config
      mountPath: /etc/{name}
      readOnly: true
  volumes:
  - name: tmp
    emptyDir: {{}}
  - name: config
    configMap:
      name: {name}-config
"""
_RESOURCES = """\
    resources:
      requests:
        cpu: 100m
        memory: 128Mi
      limits:
        cpu: {cpu}
        memory: 256Mi
"""
_HOST = """\
  hostNetwork: true
  hostPID: true
"""
_SECURITY = """\
    securityContext:
      allowPrivilegeEscalation: false
      privileged: false
      readOnlyRootFilesystem: true
      runAsUser: {user}
      capabilities:
        drop:
        - ALL
"""
_PRIVILEGED = """\
    securityContext:
      privileged: true
"""
_CAPABILITIES = """\
    securityContext:
      allowPrivilegeEscalation: true
      capabilities:
        add: [NET_ADMIN, SYS_TIME]
"""


def manifests(count: int) -> Iterator[tuple[str, str]]:
    """`count` pairs (file name, text): a workload of some kind, mostly with its Service, as YAML in block style."""
    for index in range(count):
        yield f"{TEAMS[index % len(TEAMS)]}/app-{index:05d}.yaml", manifest(index)


def manifest(index: int) -> str:
    kind = KINDS[index % len(KINDS)]
    values = _values(index, kind)
    head = _META.format_map(values)
    if kind == "CronJob":
        return head + _cron_job(values)
    selector = _REPLICATED if kind != "DaemonSet" else _REPLICATED.replace("  replicas: {replicas}\n", "")
    template = "  template:\n" + _indent(_POD.format_map(values), 4)
    return head + selector.format_map(values) + template + _SERVICE.format_map(values)


def _cron_job(values: dict[str, object]) -> str:
    head = "  schedule: '*/15 * * * *'\n  concurrencyPolicy: Forbid\n  jobTemplate:\n    spec:\n      template:\n"
    return head + _indent(_POD.replace("\nspec:\n", "\nspec:\n  restartPolicy: OnFailure\n").format_map(values), 8)


def _values(index: int, kind: str) -> dict[str, object]:
    flaw = FLAWS.get(index % 10)
    security = {"privileged": _PRIVILEGED, "capabilities": _CAPABILITIES}.get(flaw or "", _SECURITY)
    return {
        "name": f"app-{index:05d}",
        "team": TEAMS[index % len(TEAMS)],
        "namespace": "default" if index % 40 == 39 else TEAMS[index % len(TEAMS)],
        "api": "batch/v1" if kind == "CronJob" else "apps/v1",
        "kind": kind,
        "minor": index % 97,
        "replicas": 1 + index % 5,
        "image": IMAGES[index % len(IMAGES)],
        "automount": "true" if flaw == "root" else "false",
        "non_root": "false" if flaw == "root" else "true",
        "host": _HOST if flaw == "host" else "",
        "resources": "" if flaw == "no-limits" else _RESOURCES.replace("{cpu}", "500m" if index % 2 else '"1"'),
        "security": security.replace("{user}", "0" if flaw == "root" else "10001"),
        "service_type": "LoadBalancer" if index % 7 == 3 else "ClusterIP",
    }


def _indent(text: str, by: int) -> str:
    return "".join(" " * by + line for line in text.splitlines(keepends=True))
