"""Ingresses -> judged views: which controller serves one, and which settings it shares with others."""

from __future__ import annotations

from dataclasses import dataclass, field

from scanner import kube, wire
from scanner.normalize import Lookups, NotUnderstood, texts

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
MINION = "nginx.org/mergeable-ingress-type"
GROUP = "alb.ingress.kubernetes.io/group.name"
SSL_REDIRECT = "alb.ingress.kubernetes.io/ssl-redirect"
FRONTEND_CONFIG = "networking.gke.io/v1beta1.FrontendConfig"

# What checks read of an Ingress's annotations; the others may hold configuration that is nobody's business.
_READ_ANNOTATIONS = frozenset(
    {
        CLASS_ANNOTATION,
        MINION,
        GROUP,
        SSL_REDIRECT,
        FRONTEND_CONFIG,
        "kubernetes.io/ingress.allow-http",
        "nginx.ingress.kubernetes.io/force-ssl-redirect",
        "nginx.ingress.kubernetes.io/ssl-redirect",
        "nginx.ingress.kubernetes.io/ssl-passthrough",
        "nginx.ingress.kubernetes.io/auth-tls-secret",
        "appgw.ingress.kubernetes.io/appgw-ssl-certificate",
        "alb.ingress.kubernetes.io/listen-ports",
        "alb.ingress.kubernetes.io/certificate-arn",
        "ingress.gcp.kubernetes.io/pre-shared-cert",
        "networking.gke.io/managed-certificates",
    }
)

_CONTROLLERS = {
    "k8s.io/ingress-nginx": "nginx",
    "nginx.org/ingress-controller": "nginx",
    "webapprouting.kubernetes.azure.com/nginx": "nginx",
    "azure/application-gateway": "appgw",
    "ingress.k8s.aws/alb": "alb",
    "eks.amazonaws.com/alb": "alb",
}
_CLASS_NAMES = {
    "nginx": "nginx",
    "webapprouting.kubernetes.azure.com": "nginx",
    "azure/application-gateway": "appgw",
    "azure-application-gateway": "appgw",
    "alb": "alb",
    "gce": "gce",
    "gce-internal": "gce",
}


@dataclass(slots=True)
class IngressFacts:
    """What Ingresses need to know of one another and of their classes; filled before `ingresses` is called."""

    gke: bool = False  # an Ingress without a class belongs to the GKE controller
    classes: dict[str, str] = field(default_factory=dict)  # class name -> spec.controller
    default_class: str | None = None
    redirecting_frontends: set[tuple[str, str]] = field(default_factory=set)

    def add_class(self, given: wire.IngressClass) -> None:
        meta = given.metadata or wire.Meta()
        name = meta.name or ""
        self.classes[name] = (given.spec.controller if given.spec else None) or ""
        if texts(meta.annotations).get(DEFAULT_CLASS) == "true":
            self.default_class = name

    def add_frontend(self, given: wire.FrontendConfig, namespace: str) -> None:
        redirect = given.spec.redirect_to_https if given.spec else None
        if redirect and redirect.enabled and given.metadata and given.metadata.name:
            self.redirecting_frontends.add((namespace, given.metadata.name))


def ingresses(
    wires: list[tuple[wire.Ingress, kube.Resource]], facts: IngressFacts, lookups: Lookups
) -> list[kube.Ingress]:
    """Every Ingress with its controller and shared settings resolved."""
    redirecting: set[str] = set()
    masters: set[tuple[str, str]] = set()
    for given, resource in wires:
        notes = notes_of(given.metadata)
        if notes.get(GROUP) and notes.get(SSL_REDIRECT):
            redirecting.add(notes[GROUP])
        if notes.get(MINION) == "master" and given.spec and given.spec.tls:
            masters.update((resource.namespace, rule.host) for rule in given.spec.rules or () if rule.host)
    return [_ingress(given, resource, facts, lookups, redirecting, masters) for given, resource in wires]


def notes_of(meta: wire.Meta | None) -> dict[str, str]:
    """The annotations that checks read; raises NotUnderstood where one is not text: `false` is not "false"."""
    notes = {k: v for k, v in ((meta and meta.annotations) or {}).items() if k in _READ_ANNOTATIONS and v is not None}
    for name, value in notes.items():
        if not isinstance(value, str):
            raise NotUnderstood(f"annotation {name} is not text but {type(value).__name__}")
    return notes


def _ingress(
    given: wire.Ingress,
    resource: kube.Resource,
    facts: IngressFacts,
    lookups: Lookups,
    redirecting: set[str],
    masters: set[tuple[str, str]],
) -> kube.Ingress:
    spec = given.spec or wire.IngressSpec()
    notes = notes_of(given.metadata)
    hosts = tuple(rule.host or "" for rule in spec.rules or ())
    frontend = notes.get(FRONTEND_CONFIG)
    return kube.Ingress(
        resource=resource,
        class_name=spec.ingress_class_name,
        class_annotation=notes.get(CLASS_ANNOTATION),
        controller=_controller(spec.ingress_class_name or notes.get(CLASS_ANNOTATION), facts),
        annotations=notes,
        tls=tuple(entry.hosts or () for entry in spec.tls or ()),
        hosts=hosts,
        group_redirect=notes.get(GROUP, "") in redirecting,
        frontend_redirect=(resource.namespace, frontend or "") in facts.redirecting_frontends,
        master_tls=notes.get(MINION) == "minion"
        and bool(hosts)
        and all((resource.namespace, host) in masters for host in hosts),
        class_gap=lookups.gap("ingressclasses", "*"),
        frontend_gap=lookups.gap("frontendconfigs", resource.namespace) if frontend else None,
    )


def _controller(class_name: str | None, facts: IngressFacts) -> str:
    name = class_name or facts.default_class
    if name is None:
        return "gce" if facts.gke else "other"
    by_class = facts.classes.get(name, "")
    family = _CONTROLLERS.get(by_class) or ("gce" if by_class.startswith("ingress.gcp.kubernetes.io") else None)
    if family:
        return family
    # A class object of an unknown controller is an answer too; only without one does the name have to serve.
    return "other" if by_class else _CLASS_NAMES.get(name, "other")
