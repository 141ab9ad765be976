"""The way into a GKE cluster: one of its endpoints, and the access token of the identity that scans."""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from providers.gcp.errors import GcpError
from providers.gcp.session import Session
from scanner.cloud import Facts
from scanner.model import GapReason, MissingEvidence

# What of a cluster says where its API server is. Only `api_access` takes it: it is not kept beside the cluster.
WAY = (
    "endpoint",
    "masterAuth.clusterCaCertificate",
    "controlPlaneEndpointsConfig",
    "masterAuthorizedNetworksConfig.enabled",
    "privateClusterConfig.enablePrivateEndpoint",
    "userManagedKeysConfig.clusterCa",
)
CONNECT = "container.clusters.connect"  # what a DNS endpoint asks IAM for, before the API server is asked
_OWN_CA = "userManagedKeysConfig.clusterCa"
_DNS = "controlPlaneEndpointsConfig.dnsEndpointConfig"
_IP = "controlPlaneEndpointsConfig.ipEndpointsConfig"
# A bearer token of all of Google Cloud is sent there: to no other domain, whatever an answer says.
_DNS_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,6}gke\.goog", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:([0-9.]+)|\[([0-9a-f:.]+)\])(?::[0-9]{1,5})?", re.IGNORECASE)
_DO = (
    "run the scan where it can be reached, or let traffic from outside to its DNS endpoint "
    "(gcloud container clusters update NAME --enable-dns-access)"
)


@dataclass(frozen=True)
class Access:
    """`ca` is None where the system's authorities vouch for the server. `hint` is what to do where it does not answer,
    "" where nothing in its configuration would keep it from that."""

    server: str
    ca: bytes | None
    token: Callable[[], str] = field(repr=False)
    hint: str = ""


def api_access(session: Session, way: dict[str, Any]) -> Access:
    """From what GKE lists of a cluster. Its IP endpoint is taken where that is open to all addresses, as nothing but
    IAM guards the one with a DNS name. Raises GcpError."""
    try:
        facts = Facts(way)
        host, dns = _host(facts), _dns_name(facts)
        private, fenced = _is_private(facts, host), _is_fenced(facts)
        ca = _authority(facts)
    except MissingEvidence as missing:
        raise GcpError(GapReason.BAD_DATA, missing.gaps[0].detail) from None
    if dns and (not host or private or fenced):
        return Access(f"https://{dns}", None, session.credential.token)
    if not host:
        off = "its IP endpoints are off, and its DNS endpoint takes no traffic from outside"
        raise GcpError(GapReason.UNREACHABLE, f"it has no endpoint that is open to this scan: {off}; {_DO}")
    if not ca:
        raise GcpError(GapReason.BAD_DATA, "Google gave no usable certificate authority for its API server")
    return Access(f"https://{host}", ca, session.credential.token, _hint(private, fenced))


def identity(way: dict[str, Any]) -> tuple[str, bytes | None]:
    """By what others know its API server, whether or not there is a way to it from here: the URL of its DNS endpoint,
    "" where that is not told, and its authority."""
    facts = Facts(way)
    name, ca = "", b""
    with contextlib.suppress(MissingEvidence):
        name = facts.text(f"{_DNS}.endpoint").value
    with contextlib.suppress(MissingEvidence):
        # One that the user manages may sign for several clusters.
        ca = b"" if facts.text(_OWN_CA).value else _authority(facts)
    return f"https://{name.lower()}" if _DNS_HOST.fullmatch(name) else "", ca or None


def _hint(private: bool, fenced: bool) -> str:
    if private:
        return f"its endpoint is private: {_DO}"
    return f"its endpoint answers only authorized networks: {_DO}" if fenced else ""


def _host(facts: Facts) -> str:
    """The address of the IP endpoint, with a port if it has one; "" where there is no such endpoint. Raises GcpError,
    MissingEvidence."""
    text = facts.text("endpoint").value
    if not text or facts.flag(f"{_IP}.enabled").sent is False:
        return ""
    if _ip(text) is None:
        raise GcpError(GapReason.BAD_DATA, "Google gave an endpoint for its API server that is no address")
    return text


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    match = _ADDRESS.fullmatch(host)
    try:
        return ipaddress.ip_address(match[1] or match[2]) if match else None
    except ValueError:
        return None


def _is_private(facts: Facts, host: str) -> bool:
    """Whether the address is one of the cluster's network: Google may have given it a public one for use in there."""
    address = _ip(host)
    public = facts.flag(f"{_IP}.enablePublicEndpoint").sent is not False
    older = facts.flag("privateClusterConfig.enablePrivateEndpoint").value
    return address is not None and (not address.is_global or not public or older)


def _dns_name(facts: Facts) -> str:
    """That of the endpoint which takes traffic from outside its network, "" where there is none."""
    name = facts.text(f"{_DNS}.endpoint").value
    if not name or not facts.flag(f"{_DNS}.allowExternalTraffic").value:
        return ""
    if not _DNS_HOST.fullmatch(name):
        raise GcpError(GapReason.BAD_DATA, "Google gave a DNS endpoint for its API server that is not below gke.goog")
    return name.lower()


def _is_fenced(facts: Facts) -> bool:
    """Whether only some networks may connect: the older field counts where the newer one is not there."""
    newer = facts.get(f"{_IP}.authorizedNetworksConfig")
    place = "masterAuthorizedNetworksConfig" if newer is None else f"{_IP}.authorizedNetworksConfig"
    return facts.flag(f"{place}.enabled").value


def _authority(facts: Facts) -> bytes:
    try:
        return base64.b64decode(facts.text("masterAuth.clusterCaCertificate").value, validate=True)
    except (ValueError, binascii.Error):
        return b""
