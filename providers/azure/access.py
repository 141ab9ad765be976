"""The way into an AKS cluster: its API server from the user's kubeconfig, and an Entra token for it.

The admin credential and run-command are never asked for. A user credential that is a local account is not used unless
that was allowed: it is nobody's own, and often cluster-admin.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from providers.azure.credentials import AKS_SERVER
from providers.azure.errors import ArmError
from providers.azure.reader import AKS_VERSION
from providers.azure.session import CREDENTIALS, Session
from scanner import safe_yaml
from scanner.azure import AksCluster
from scanner.model import GapReason

ACTION = f"Microsoft.ContainerService/managedClusters/{CREDENTIALS}/action"


@dataclass(frozen=True)
class Access:
    """What an API server takes: a token, or a local account's certificate with its key, as PEM."""

    token: Callable[[], str] | None = field(default=None, repr=False)
    certificate: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class ApiServer:
    """Where an API server is, its authority, and the credential of the user kubeconfig."""

    url: str
    ca: bytes
    user: dict[str, Any] = field(repr=False)

    def access(self, session: Session, *, allow_local_account: bool) -> Access:
        """Raises ArmError, also where the only credential is a local account."""
        if self.user.get("exec") or self.user.get("auth-provider"):
            return Access(functools.partial(session.credential.token, AKS_SERVER))
        if not allow_local_account:
            raise ArmError(
                GapReason.LOCAL_ACCOUNT_ONLY,
                "its user credential is a local account, often cluster-admin: enable Entra ID on the cluster, or pass "
                "--allow-local-account",
            )
        certificate, key = _pem(self.user, "client-certificate-data"), _pem(self.user, "client-key-data")
        if certificate and key:
            return Access(certificate=certificate + b"\n" + key)
        token = self.user.get("token")
        if not isinstance(token, str) or not token:
            raise _unusable("holds neither a certificate with its key nor a token")
        return Access(lambda: token)


def api_server(session: Session, cluster: AksCluster) -> ApiServer:
    """Raises ArmError."""
    answer = session.post(f"{cluster.id}/{CREDENTIALS}", AKS_VERSION)
    if answer.get("kubeconfigs") == []:
        raise ArmError(GapReason.BAD_DATA, "Azure gave no kubeconfig", action=ACTION)
    place, user = _first_entry(answer)
    url = place.get("server")
    if not isinstance(url, str) or not _is_https(url):
        raise _unusable("names no https server")
    ca = _pem(place, "certificate-authority-data")
    if not ca:
        raise _unusable("holds no certificate authority")
    return ApiServer(url, ca, user)


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _first_entry(answer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Cluster and user of the kubeconfig in an answer."""
    try:
        config = safe_yaml.load(base64.b64decode(answer["kubeconfigs"][0]["value"], validate=True))
        place, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    except (KeyError, IndexError, TypeError, ValueError, binascii.Error):
        raise _unusable("cannot be understood") from None
    if not isinstance(place, dict) or not isinstance(user, dict):
        raise _unusable("cannot be understood")
    return place, user


def _pem(entry: dict[str, Any], key: str) -> bytes:
    try:
        return base64.b64decode(str(entry.get(key) or ""), validate=True)
    except ValueError:
        raise _unusable(f"has a {key} that is no base64") from None


def _unusable(what: str) -> ArmError:
    return ArmError(GapReason.BAD_DATA, f"the kubeconfig that Azure gave {what}")
