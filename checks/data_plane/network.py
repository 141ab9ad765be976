"""What listens, and whether it is encrypted: Services, container ports, Ingresses."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from scanner.check import AZURE_SYSTEM, NETWORK, Ports, check
from scanner.kube import Annotation, Container, Ingress, Service
from scanner.model import PASS, Evidence, Severity, Verdict, fail, not_applicable, require, text
from scanner.ports import azure_allows


@check(
    "k8s-service-allowed-ports",
    Severity.MEDIUM,
    controls=NETWORK,
    fix="Change the Service to an approved port, or extend the list.",
    refs=(
        "mdc:add45209-73f6-4fa5-a5a5-74a451b07fbe",
        "azure-policy-8:233a2a17-77ca-4fb1-9b6b-69223d272a44",
        "nsa:Network policies",
        "mitre:T1133",
        "mitre:T1046",
    ),
    excluded_namespaces=AZURE_SYSTEM,
    required=("allowed_ports",),
)
def service_allowed_ports(
    s: Service,
    *,
    allowed_ports: Annotated[Ports | None, "ports that Services may listen on: numbers and ranges A-B"] = None,
    azure_rules: Annotated[bool, "compare list items literally"] = False,
) -> Verdict:
    """Services should listen on allowed ports only

    A short list of ports keeps forgotten debug, admin and database ports from being served.
    """
    if (s.resource.namespace, s.resource.name) == ("default", "kubernetes"):
        return not_applicable("created_by_the_platform")
    if not s.ports:
        return not_applicable("no_ports")
    bad = [(i, p) for i, p in enumerate(s.ports) if not _allows(allowed_ports, p, azure_rules)]
    if not bad:
        return PASS
    evidence = (Evidence(f"spec.ports[{i}].port", str(p)) for i, p in bad)
    return fail(f"listens on {', '.join(str(p) for _, p in bad)}, which is not allowed", *evidence)


def _allows(ports: Ports | None, port: int, literal: bool, *, ranges: bool = True) -> bool:
    if ports is None:
        return False
    return azure_allows(ports.items, port, ranges=ranges) if literal else ports.ranges.allows(port)


@check(
    "k8s-container-allowed-ports",
    Severity.MEDIUM,
    controls=NETWORK,
    fix="Declare only approved container ports, or extend the list.",
    refs=(
        "mdc:5f88450f-9546-4b78-a181-a2d9162bb441",
        "azure-policy-6.2.0:440b515e-a580-421e-abeb-b159a61ddcbc",
        "nsa:Network policies",
    ),
    exclude=("containers",),
    excluded_namespaces=AZURE_SYSTEM,
    required=("allowed_ports",),
    ephemeral=False,
    on=False,
)
def container_allowed_ports(
    c: Container,
    *,
    allowed_ports: Annotated[Ports | None, "container ports that may be declared: numbers and ranges A-B"] = None,
    azure_rules: Annotated[bool, "compare list items literally, without ranges"] = False,
) -> Verdict:
    """Containers should listen on allowed ports only

    Declared ports are informational in Kubernetes: a process can listen on others. Microsoft removed this
    recommendation in December 2021; it is off unless selected.
    """
    bad = [
        p
        for p in c.ports
        if p.container_port is not None and not _allows(allowed_ports, p.container_port, azure_rules, ranges=False)
    ]
    if not bad:
        return PASS
    message = f"declares {', '.join(str(p.container_port) for p in bad)}, which is not allowed"
    return fail(message, *(Evidence(f"{p.path}.containerPort", str(p.container_port)) for p in bad))


_GCE_CERTIFICATES = (Annotation.GCE_CERTIFICATE, Annotation.GCE_MANAGED_CERTIFICATES)


@check(
    "k8s-https-only",
    Severity.HIGH,
    controls=("Encrypt data in transit",),
    fix="Add a TLS certificate to the Ingress and force the redirection of plain HTTP.",
    refs=(
        "mdc:c6d87087-9ebe-b31f-b452-0bf3bbbaccd2",
        "azure-policy-8:1a5b4dca-0b6f-4cf5-907c-56316bc1bf3d",
        "cis-aks-1.8:5.4.5",
        "cis-eks-1.8.0:5.4.5",
        "cis-gke-1.9.0:5.6.7",
        "nsa:Encryption",
        "mitre:T1557",
    ),
    excluded_namespaces=AZURE_SYSTEM,
    needs=("ingressclasses", "frontendconfigs"),
)
def https_only(
    i: Ingress,
    *,
    unknown_controllers: Annotated[
        Literal["pass", "require_tls"], "Ingresses of other controllers pass, or need TLS for each host"
    ] = "require_tls",
    require_allow_http_false: Annotated[
        bool, "the rule of 2021: spec.tls and annotation kubernetes.io/ingress.allow-http: false, whatever the class"
    ] = False,
    azure_rules: Annotated[bool, "recognise only the classes that Azure Policy recognises"] = False,
) -> Verdict:
    """Kubernetes clusters should be accessible only over HTTPS

    Over plain HTTP anyone on the path reads and changes what users send. How an Ingress ends TLS depends on its
    controller, so each is judged by the settings that it reads.
    """
    if require_allow_http_false:
        return _rule_of_2021(i)
    family = _azure_family(i) if azure_rules else i.family()
    if family == "appgw":
        return _application_gateway(i)
    if family == "nginx":
        return _nginx(i, azure_rules)
    if family == "gce":
        return _gce(i)
    if family == "alb":
        return _alb(i)
    return PASS if unknown_controllers == "pass" else _covered_hosts(i)


def _rule_of_2021(i: Ingress) -> Verdict:
    if not i.tls:
        return _no_tls()
    value = i.annotations.get(Annotation.ALLOW_HTTP)
    return require(value == "false", "allows plain HTTP", _at(Annotation.ALLOW_HTTP), value, default="true")


def _azure_family(i: Ingress) -> str:
    if i.class_annotation == "azure/application-gateway":
        return "appgw"
    nginx = (i.class_annotation if i.class_name is None else i.class_name) == "nginx"
    return "nginx" if nginx else "other"


def _at(annotation: Annotation) -> str:
    return f"metadata.annotations['{annotation}']"


def _no_tls() -> Verdict:
    return fail("has no TLS certificate", Evidence("spec.tls", text(None)), reason="no_tls")


# What Go's strconv.ParseBool takes, which the controllers read their annotations with.
_SWITCHES = {**dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True)}
_SWITCHES |= dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False)
_AZURE_SWITCHES = {"true": True, "false": False}


def _application_gateway(i: Ingress) -> Verdict:
    return PASS if i.tls or i.annotations.get(Annotation.APPGW_CERTIFICATE) else _no_tls()


def _nginx(i: Ingress, azure_rules: bool) -> Verdict:
    notes = i.annotations
    if i.master_tls and not azure_rules:
        return PASS
    switches = _AZURE_SWITCHES if azure_rules else _SWITCHES
    passthrough = switches.get(notes.get(Annotation.NGINX_SSL_PASSTHROUGH, ""))
    forced = switches.get(notes.get(Annotation.NGINX_FORCE_SSL_REDIRECT, ""))
    redirect = switches.get(notes.get(Annotation.NGINX_SSL_REDIRECT, ""))
    if not (i.tls or notes.get(Annotation.NGINX_AUTH_TLS_SECRET) or passthrough):
        return _no_tls()
    if forced:
        return PASS
    if redirect is not False and i.hosts and all(i.hosts):
        # The controller redirects a host only where it has a certificate for it; Azure Policy does not look.
        return PASS if azure_rules or not i.tls else _covered_hosts(i)
    name = Annotation.NGINX_SSL_REDIRECT if redirect is False else Annotation.NGINX_FORCE_SSL_REDIRECT
    message = (
        "does not redirect plain HTTP to HTTPS" if redirect is False else "has a rule without host and no redirect"
    )
    default = None if name in notes else "false"
    return fail(message, Evidence(_at(name), text(notes.get(name)), default), reason="no_redirect")


def _gce(i: Ingress) -> Verdict:
    if not (i.tls or any(i.annotations.get(name) for name in _GCE_CERTIFICATES)):
        return _no_tls()
    value = i.annotations.get(Annotation.ALLOW_HTTP)
    if _SWITCHES.get(value or "") is False or i.redirects_by_frontend():
        return PASS
    evidence = Evidence(_at(Annotation.ALLOW_HTTP), text(value), "true" if value is None else None)
    return fail("serves plain HTTP beside HTTPS", evidence, reason="no_redirect")


def _alb(i: Ingress) -> Verdict:
    at = Annotation.ALB_LISTEN_PORTS
    certificate = bool(i.annotations.get(Annotation.ALB_CERTIFICATE))
    written = i.annotations.get(at)
    default = '[{"HTTPS": 443}]' if certificate else '[{"HTTP": 80}]'
    protocols = _alb_protocols(written or default)
    if not protocols or not protocols <= {"HTTP", "HTTPS"}:
        evidence = Evidence(_at(at), text(written))
        return fail("has listen-ports that cannot be read", evidence, reason="bad_listen_ports")
    redirects = i.group_redirect or i.annotations.get(Annotation.ALB_SSL_REDIRECT, "").isdigit()
    if "HTTP" not in protocols or ("HTTPS" in protocols and redirects):
        return PASS
    evidence = Evidence(_at(at), text(written), None if written else default)
    return fail("serves plain HTTP", evidence, reason="no_redirect" if "HTTPS" in protocols else "no_tls")


def _alb_protocols(listen_ports: str) -> set[str]:
    """Empty where the annotation cannot be read; the controller refuses such an Ingress."""
    try:
        listeners = msgspec.json.decode(listen_ports, type=list[dict[str, int]])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return set()
    return {protocol for listener in listeners for protocol in listener}


def _covered_hosts(i: Ingress) -> Verdict:
    if not i.tls:
        return _no_tls()
    if any(not hosts for hosts in i.tls):
        return PASS
    covered = {host for hosts in i.tls for host in hosts}
    bare = [host or "*" for host in i.hosts if not _covers(covered, host)] if i.hosts else ["*"]
    if not bare:
        return PASS
    evidence = Evidence("spec.tls", text(sorted(covered)))
    return fail(f"has no TLS certificate for {', '.join(bare)}", evidence, reason="host_not_covered")


def _covers(covered: set[str], host: str) -> bool:
    parent = host.partition(".")[2]
    return host in covered or (bool(parent) and f"*.{parent}" in covered)
