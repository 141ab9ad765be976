"""Where a connection goes, and the credentials that it takes there.

A credential plug-in that is missing or fails is an error here; the official client logs that and goes on without any.
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import json
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from providers.kubernetes.errors import LOGIN, ConfigError
from providers.kubernetes.kubeconfig import Context, Object, elements, mapping, text
from scanner.plain import plain

_PLUGIN_TIMEOUT = 60.0
_REREAD = 60.0  # seconds that a token from a file or a callable is kept, since bound tokens rotate
_YEARS = 10 * 365 * 86400.0


@dataclass(frozen=True)
class ApiAccess:
    """An API server that a cloud's inventory named. `ca` is PEM, None = the system's store; `token` is called again
    every minute, and when the server refuses the last one; it may raise ConfigError or ApiError. `certificate` is PEM,
    with its key."""

    server: str
    ca: bytes | None
    token: Callable[[], str] | None = field(default=None, repr=False)
    tls_server_name: str | None = None
    certificate: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Endpoint:
    server: str
    ca: bytes | None = None
    tls_server_name: str | None = None
    insecure: bool = False
    proxy: str = ""  # "" = from the environment
    impersonate: tuple[tuple[str, str], ...] = ()

    @property
    def loopback(self) -> bool:
        host = urlsplit(self.server).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


@dataclass(frozen=True)
class Credential:
    authorization: str = field(default="", repr=False)
    certificate: bytes = field(default=b"", repr=False)  # PEM, with its key
    until: float = math.inf  # time.monotonic() after which another is to be had; infinite = there is no other


Mint = Callable[[], Credential]


def resolve(source: Context | ApiAccess, deadline: float | None) -> tuple[Endpoint, Mint]:
    """Where to connect to, and where credentials come from, each time they are needed. Raises ConfigError."""
    if isinstance(source, ApiAccess):
        server = _server_url(source.server, "the cloud's inventory")
        endpoint = Endpoint(server, source.ca, source.tls_server_name)
        if source.token is None:
            return endpoint, functools.partial(Credential, "", source.certificate)
        return endpoint, functools.partial(_token_from_call, source.token)
    name = f"context {plain(source.name)}"
    cluster, user = source.cluster, source.user
    if cluster is None:
        raise ConfigError(f"{name}: its cluster is not in the kubeconfig")
    if user is None:
        raise ConfigError(f"{name}: its user is not in the kubeconfig")
    endpoint = Endpoint(
        server=_server_url(text(cluster.get("server")), name),
        ca=_file_or_data(cluster, "certificate-authority", name),
        tls_server_name=text(cluster.get("tls-server-name")) or None,
        insecure=cluster.get("insecure-skip-tls-verify") is True,
        proxy=text(cluster.get("proxy-url")),
        impersonate=tuple(_impersonation(user)),
    )
    return endpoint, _user_mint(name, cluster, user, endpoint, deadline)


def address(context: Context) -> tuple[str, bytes | None]:
    """Server and authority (PEM) that a context names, without asking anything but its own files: what tells its
    cluster where nothing could be read of it. "" and None for what is not there, or cannot be used."""
    cluster = context.cluster or {}
    try:
        server = _server_url(text(cluster.get("server")), context.name)
    except ConfigError:
        return "", None
    try:
        return server, _file_or_data(cluster, "certificate-authority", context.name)
    except ConfigError:
        return server, None


def _server_url(url: str, source: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or parts.query or parts.fragment:
        raise ConfigError(f"{source}: the server must be an https://host[:port] URL")
    return url.rstrip("/")


def _user_mint(name: str, cluster: Object, user: Object, endpoint: Endpoint, deadline: float | None) -> Mint:
    """Where the user's credentials come from, in kubectl's order."""
    certificate = _client_certificate(user, name)
    if path := text(user.get("tokenFile")):
        return functools.partial(_token_from_file, path, certificate)
    if token := text(user.get("token")) or _provider_token(user, name):
        return functools.partial(Credential, _bearer(token, name), certificate)
    if user.get("exec"):
        return functools.partial(_run_plugin, name, mapping(user["exec"]), cluster, endpoint, deadline)
    if user.get("username"):
        pair = f"{text(user.get('username'))}:{text(user.get('password'))}".encode()
        return functools.partial(Credential, f"Basic {base64.b64encode(pair).decode()}", certificate)
    return functools.partial(Credential, "", certificate)


def _provider_token(user: Object, name: str) -> str:
    """The token that a retired auth-provider stanza holds. It is used as it is: refreshing would need more than GET."""
    provider = user.get("auth-provider")
    if not isinstance(provider, dict):
        return ""
    config = mapping(provider.get("config"))
    token = text(config.get("id-token")) or text(config.get("access-token"))
    if not token:
        kind = plain(text(provider.get("name")))
        raise ConfigError(f"{name}: auth-provider {kind!r} holds no token: use a credential plug-in (exec) instead")
    return token


def _client_certificate(user: Object, name: str) -> bytes:
    certificate = _file_or_data(user, "client-certificate", name)
    key = _file_or_data(user, "client-key", name)
    if bool(certificate) != bool(key):
        raise ConfigError(f"{name}: a client certificate needs both client-certificate and client-key")
    return certificate + b"\n" + key if certificate and key else b""


def _file_or_data(entry: Object, key: str, name: str) -> bytes | None:
    """None only where the entry names neither: what is named and unusable must not fall back to a default."""
    path = text(entry.get(key))
    try:
        if data := entry.get(f"{key}-data"):
            content = base64.b64decode("".join(text(data).split()), validate=True)
        elif path:
            content = Path(path).read_bytes()
        else:
            return None
    except ValueError:
        raise ConfigError(f"{name}: {key}-data is not valid base64") from None
    except OSError as error:
        raise ConfigError(f"{name}: {key} {plain(path)} cannot be read: {error.strerror}") from None
    if not content.strip():
        raise ConfigError(f"{name}: {key} is empty")
    return content


def _impersonation(user: Object) -> Iterator[tuple[str, str]]:
    """Dropping these, as the official client does, would read with other rights than the user chose."""
    if name := text(user.get("as")):
        yield "Impersonate-User", name
    if uid := text(user.get("as-uid")):
        yield "Impersonate-Uid", uid
    for group in elements(user.get("as-groups")):
        yield "Impersonate-Group", text(group)
    for key, values in mapping(user.get("as-user-extra")).items():
        for value in elements(values):
            yield f"Impersonate-Extra-{key}", text(value)


def _token_from_file(path: str, certificate: bytes) -> Credential:
    try:
        token = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):  # ValueError: no UTF-8, or a NUL in the path
        raise ConfigError(f"token file {plain(path)} cannot be read") from None
    return Credential(_bearer(token, f"token file {plain(path)}"), certificate, time.monotonic() + _REREAD)


def _token_from_call(token: Callable[[], str]) -> Credential:
    return Credential(_bearer(token(), "the cloud's token"), until=time.monotonic() + _REREAD)


def _bearer(token: str, source: str) -> str:
    token = token.strip()
    # What a header cannot hold would be quoted, token and all, in the HTTP library's exception.
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError(f"{source}: the token is empty or holds characters that a token cannot hold: {LOGIN}")
    return f"Bearer {token}"


# --- credential plug-ins (kubernetes.io: "client-go credential plugins") ---


def _run_plugin(name: str, plugin: Object, cluster: Object, endpoint: Endpoint, deadline: float | None) -> Credential:
    program = text(plugin.get("command"))
    if not program:
        raise ConfigError(f"{name}: exec names no command")
    named = f"{name}: credential plug-in {plain(program)!r}"
    path = shutil.which(program)
    if path is None:
        hint = plain(text(plugin.get("installHint"))) or "install it, or use a kubeconfig that does without"
        raise ConfigError(f"{named} is not installed or not on PATH: {hint}")
    if plugin.get("interactiveMode") == "Always":
        raise ConfigError(f"{named} wants a terminal, and a scan has none: use a login that needs no questions")
    command = [path, *(text(arg) for arg in elements(plugin.get("args")))]
    output = _plugin_output(command, _plugin_environment(plugin, cluster, endpoint), deadline, named)
    return _plugin_credential(output, plugin, named)


def _plugin_environment(plugin: Object, cluster: Object, endpoint: Endpoint) -> dict[str, str]:
    spec: dict[str, Any] = {"interactive": False}
    if plugin.get("provideClusterInfo") is True:
        spec["cluster"] = _cluster_info(cluster, endpoint)
    info = {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": spec}
    pairs = ((text(item.get("name")), text(item.get("value"))) for item in map(mapping, elements(plugin.get("env"))))
    own = {name: value for name, value in pairs if name}
    try:
        told = json.dumps(info, default=str)
    except TypeError:  # YAML has keys that JSON lacks
        raise ConfigError(f"{endpoint.server}: the config of its credential plug-in is no JSON") from None
    return {**os.environ, **own, "KUBERNETES_EXEC_INFO": told}


def _cluster_info(cluster: Object, endpoint: Endpoint) -> dict[str, Any]:
    keep = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
    info = {key: cluster[key] for key in keep if key in cluster}
    if endpoint.ca:
        info["certificate-authority-data"] = base64.b64encode(endpoint.ca).decode()
    for extension in map(mapping, elements(cluster.get("extensions"))):
        if extension.get("name") == "client.authentication.k8s.io/exec":
            info["config"] = extension.get("extension")
    return info


def _plugin_output(command: list[str], environment: dict[str, str], deadline: float | None, named: str) -> bytes:
    seconds = _PLUGIN_TIMEOUT if deadline is None else min(_PLUGIN_TIMEOUT, max(0.1, deadline - time.monotonic()))
    try:
        done = subprocess.run(  # noqa: S603 - the user's kubeconfig names it, as for kubectl
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{named} did not finish within {seconds:.3g} s; it may be waiting for a login: {LOGIN}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument or variable
        raise ConfigError(f"{named} cannot be run: {getattr(error, 'strerror', error)}") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-250:]
        raise ConfigError(f"{named} failed (exit code {done.returncode}): {plain(said) or 'it said nothing'}; {LOGIN}")
    return done.stdout


def _plugin_credential(output: bytes, plugin: Object, named: str) -> Credential:
    try:
        answer = json.loads(output)
        status = answer["status"]
        expiry = status.get("expirationTimestamp")
        left = (datetime.fromisoformat(expiry) - datetime.now(UTC)).total_seconds() if expiry else _YEARS
        version, token = answer["apiVersion"], status.get("token")
        certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{named} did not print an ExecCredential: run it by hand to see what it prints") from None
    if version != plugin.get("apiVersion"):
        raise ConfigError(f"{named} speaks {plain(str(version))}, the kubeconfig asks for {plugin.get('apiVersion')}")
    if not token and not (certificate and key):
        raise ConfigError(f"{named} gave neither a token nor a client certificate: {LOGIN}")
    # At most every 10 seconds, lest a clock that is off runs the plug-in before every page.
    until = time.monotonic() + max(left - 5, 10)
    pem = f"{certificate}\n{key}".encode() if certificate and key else b""
    return Credential(_bearer(str(token), named) if token else "", pem, until)
