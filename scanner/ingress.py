"""Ingresses -> judged views: which controller serves one, and which settings it shares with others."""

from __future__ import annotations

from dataclasses import dataclass, field

from scanner import kube, wire
from scanner.kube import Annotation
from scanner.normalize import Lookups, NotUnderstood, texts

DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
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
    frontends: dict[tuple[str, str], bool] = field(default_factory=dict)  # whether a FrontendConfig redirects

    def add_class(self, given: wire.IngressClass) -> None:
        meta = given.metadata or wire.Meta()
        name = meta.name or ""
        controller = (given.spec.controller if given.spec else None) or ""
        # Defined twice with different controllers it is no known one.
        self.classes[name] = controller if self.classes.get(name, controller) == controller else "ambiguous"
        if texts(meta.annotations).get(DEFAULT_CLASS) == "true":
            # Of several defaults the newest counts, which is not known from here: then none is taken for granted.
            self.default_class = name if self.default_class in (None, name) else ""

    def add_frontend(self, given: wire.FrontendConfig, namespace: str) -> None:
        redirect = given.spec.redirect_to_https if given.spec else None
        if given.metadata and given.metadata.name:
            key = namespace, given.metadata.name
            self.frontends[key] = self.frontends.get(key, True) and redirect is not None and redirect.enabled is True


def ingresses(
    wires: list[tuple[wire.Ingress, kube.Resource]], facts: IngressFacts, lookups: Lookups
) -> list[kube.Ingress]:
    """Every Ingress with its controller and shared settings resolved."""
    redirecting: set[str] = set()
    masters: set[tuple[str, str]] = set()
    for given, resource in wires:
        notes, spec = notes_of(given.metadata), given.spec or wire.IngressSpec()
        family = _controller(spec.ingress_class_name or notes.get(Annotation.CLASS), facts)
        if family == "alb" and notes.get(Annotation.ALB_GROUP) and notes.get(Annotation.ALB_SSL_REDIRECT, "").isdigit():
            redirecting.add(notes[Annotation.ALB_GROUP])
        if family == "nginx" and notes.get(Annotation.NGINX_MERGEABLE) == "master":
            masters |= {(resource.namespace, host) for host in _tls_hosts(spec)}
    return [_ingress(given, resource, facts, lookups, redirecting, masters) for given, resource in wires]


def _tls_hosts(spec: wire.IngressSpec) -> set[str]:
    """Hosts of the rules that an Ingress has a certificate for."""
    hosts = {rule.host for rule in spec.rules or () if rule.host}
    entries = [set(entry.hosts or ()) for entry in spec.tls or ()]
    return hosts if any(not entry for entry in entries) else hosts & set().union(*entries)


def notes_of(meta: wire.Meta | None) -> dict[Annotation, str]:
    """The annotations that checks read; raises NotUnderstood where one is not text: `false` is not "false"."""
    given = (meta.annotations if meta else None) or {}
    notes = {name: given[name] for name in Annotation if given.get(name) is not None}
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
    frontend = notes.get(Annotation.GCE_FRONTEND_CONFIG)
    return kube.Ingress(
        resource=resource,
        class_name=spec.ingress_class_name,
        class_annotation=notes.get(Annotation.CLASS),
        controller=_controller(spec.ingress_class_name or notes.get(Annotation.CLASS), facts),
        annotations=notes,
        tls=tuple(entry.hosts or () for entry in spec.tls or ()),
        hosts=hosts,
        group_redirect=notes.get(Annotation.ALB_GROUP, "") in redirecting,
        frontend_redirect=facts.frontends.get((resource.namespace, frontend or ""), False),
        master_tls=notes.get(Annotation.NGINX_MERGEABLE) == "minion"
        and bool(hosts)
        and all((resource.namespace, host) in masters for host in hosts),
        class_gap=lookups.gap("ingressclasses", "*"),
        frontend_gap=lookups.gap("frontendconfigs", resource.namespace) if frontend else None,
    )


def _controller(class_name: str | None, facts: IngressFacts) -> str:
    if class_name is None and facts.gke:
        return "gce"  # a default class counts at admission, and has then been written into the Ingress
    name = class_name or facts.default_class
    if name is None:
        return "other"
    by_class = facts.classes.get(name, "")
    family = _CONTROLLERS.get(by_class) or ("gce" if by_class.startswith("ingress.gcp.kubernetes.io") else None)
    if family:
        return family
    # A class object of an unknown controller is an answer too; only without one does the name have to serve.
    return "other" if by_class else _CLASS_NAMES.get(name, "other")
