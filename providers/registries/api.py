"""The OCI distribution protocol, for one thing alone: which platforms a multi-platform image has.

Only registries that a Docker configuration file holds credentials for are asked. Helpers that it names (credsStore,
credHelpers) are programs, and are not run: what they keep is not known here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Raw

from providers.http import Answer, Http, HttpError, UsageError, is_address, is_loopback, refusal
from scanner import image_ref, wire
from scanner.model import GapReason
from scanner.normalize import NotUnderstood, decode
from scanner.plain import plain
from scanner.vulnerabilities import Platform

log = logging.getLogger("kubeposture")

MOST = 4 * 1024 * 1024  # bytes of a manifest, as registries take them
INDEXES = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")  # of the OCI protocol
_LONGEST_REPOSITORY = 255
_CHALLENGE = re.compile(r'([A-Za-z_]+)="([^"]*)"')
_LARGEST_FILE = 1024 * 1024
_DOCKER = {"docker.io": "registry-1.docker.io"}  # where its registry is


# -- what an index says -----------------------------------------------------------------------------------------------


class _Os(wire.Wire, frozen=True):
    os: str | None = None
    architecture: str | None = None
    variant: str | None = None


class _Entry(wire.Wire, frozen=True):
    digest: str
    platform: _Os | None = None
    annotations: dict[str, str] | None = None


class _Index(wire.Wire, frozen=True):
    manifests: tuple[Raw, ...] | None = None


def platforms(body: bytes) -> list[Platform] | None:
    """The entries of an index, without attestations; None for a manifest of one platform. Raises NotUnderstood."""
    entries = decode(body, _Index).manifests
    if entries is None:
        return None
    found = []
    for item in entries:
        entry = decode(item, _Entry)
        system = entry.platform or _Os()
        parts = [system.os or "", system.architecture or "", *([system.variant] if system.variant else ())]
        if (entry.annotations or {}).get("vnd.docker.reference.type") == "attestation-manifest":
            continue
        if parts[:2] == ["unknown", "unknown"]:
            continue  # as the same are marked where annotations are lost
        if not DIGEST.fullmatch(entry.digest) or any(len(part) > 40 for part in parts):
            raise NotUnderstood("an entry names no manifest")
        found.append(Platform(entry.digest, "/".join(parts) if all(parts) else ""))
    return found


# -- credentials ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Login:
    """For one registry: a user with a password, or a token that stands for both."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class _Auth(msgspec.Struct, frozen=True, rename="lower"):
    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None


class _Config(wire.Wire, frozen=True):
    auths: dict[str, _Auth] | None = None
    creds_store: str | None = None
    cred_helpers: dict[str, str] | None = None


def logins(path: Path) -> dict[str, Login]:
    """Those of a Docker configuration file, by the registry's host; raises UsageError."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"{plain(str(path))} cannot be read: {plain(error.strerror or '')}") from None
    if len(data) > _LARGEST_FILE:
        raise UsageError(f"{plain(str(path))} is too large for a Docker configuration file")
    try:
        config = decode(data, _Config)
    except NotUnderstood as error:
        raise UsageError(f"{plain(str(path))} is no Docker configuration file: {error}") from None
    if config.creds_store or config.cred_helpers:
        log.warning("%s: credentials that helpers keep are not used: helpers are not run", plain(str(path)))
    found: dict[str, Login] = {}
    for name, given in (config.auths or {}).items():
        host, login = host_of(name), _login(given)
        if host and login:
            found.setdefault(host, login)  # Docker keeps tokens of other services under longer names of its registry
    return found


def host_of(name: str) -> str:
    """A registry as image references name it; files write it with or without a scheme and a path."""
    host = name.partition("://")[2] or name
    host = host.partition("/")[0]
    ref = image_ref.parse(f"{host}/x/x")
    return ref.registry if ref.repository == "x/x" else ""


def _login(given: _Auth) -> Login | None:
    user, password, identity = given.username or "", given.password or "", given.identitytoken or ""
    if given.auth:
        try:
            user, colon, password = base64.b64decode(given.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        password = password.rstrip("\0") if colon else ""
    if user == "<token>":
        identity = identity or password
    return Login(user, password, identity) if identity or (user and password) else None


# -- registries -------------------------------------------------------------------------------------------------------


class _Token(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None


class Registries:
    """Those that there are credentials for. For one thread."""

    def __init__(self, known: Mapping[str, Login], request_timeout: float, deadline: float | None = None) -> None:
        self.http = Http(request_timeout, deadline)
        self._known = known
        self._granted: dict[tuple[str, str], str] = {}  # by registry and repository

    def index(self, registry: str, repository: str, digest: str) -> list[Platform] | None:
        """The platforms of a multi-platform image, as image_ref names it. None where the registry is not to be asked,
        has none of that digest, or it is a manifest of one platform. Raises HttpError."""
        login = self._known.get(registry)
        usable = _REPOSITORY.fullmatch(repository) and len(repository) <= _LONGEST_REPOSITORY
        if login is None or not usable or not DIGEST.fullmatch(digest):
            return None
        url = f"{_base(registry)}/v2/{repository}/manifests/{digest}"
        answer = self._get(registry, repository, login, url)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise refusal(url, answer)
        if hashlib.sha256(answer.body).hexdigest() != digest.removeprefix("sha256:"):
            raise HttpError(GapReason.BAD_DATA, f"{registry} answered with something else than {digest}")
        try:
            return platforms(answer.body)
        except NotUnderstood as error:
            raise HttpError(GapReason.BAD_DATA, f"an index of {registry} is not understood: {error}") from None

    def _get(self, registry: str, repository: str, login: Login, url: str) -> Answer:
        granted = self._granted.get((registry, repository), "")
        headers = {"Accept": INDEXES}
        answer = self.http.ask("GET", url, _with(headers, granted), most=MOST)
        if answer.status == 401:
            granted = self._grant(registry, repository, login, answer)
            answer = self.http.ask("GET", url, _with(headers, granted), most=MOST)
            if answer.status == 200:
                self._granted[registry, repository] = granted
        return answer

    def _grant(self, registry: str, repository: str, login: Login, answer: Answer) -> str:
        """What to send along, by what the registry asks for. Raises HttpError."""
        scheme, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
        asked = {name.lower(): value for name, value in _CHALLENGE.findall(rest)}
        if scheme.lower() == "basic" and login.password and login.user != "<token>":
            return login.basic
        if scheme.lower() != "bearer" or "realm" not in asked:
            detail = f"{registry} asks for credentials in a way that is not known here"
            raise HttpError(GapReason.BAD_DATA, detail, 401)
        realm = self._realm(registry, asked["realm"])
        about = {"service": asked.get("service", ""), "scope": f"repository:{repository}:pull"}
        if login.identity:
            form = {
                "grant_type": "refresh_token",
                "client_id": "kubeposture",
                "refresh_token": login.identity,
                **about,
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            found = self.http.ask("POST", realm, headers, urlencode(form).encode(), most=MOST)
        else:
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(about)}"
            found = self.http.ask("GET", url, {"Authorization": login.basic}, most=MOST)
        if found.status != 200:
            raise refusal(realm, found)
        return f"Bearer {_token(registry, found.body)}"

    def _realm(self, registry: str, url: str) -> str:
        """Where a registry says that tokens are had: over TLS, and on its own host, one beside or above it, or one
        that there are credentials for, so that no answer can send ours, or a request, anywhere else."""
        base = urlsplit(_base(registry))
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise _untrusted(registry, "") from None
        own = (parts.scheme, host, port) == (base.scheme, base.hostname, base.port)
        beside = parts.scheme == "https" and port in (None, 443) and self._trusts(host, base.hostname or "")
        if not (own or beside) or parts.username is not None or parts.fragment or not url.isprintable():
            raise _untrusted(registry, host)
        return url

    def _trusts(self, host: str, registry: str) -> bool:
        above = registry.partition(".")[2]
        family = "." in above and not is_address(registry) and (host == above or host.endswith(f".{above}"))
        return host in self._known or family


def _untrusted(registry: str, host: str) -> HttpError:
    detail = f"{registry} sends to {plain(host) or 'nowhere'} for a token, which is not trusted with credentials"
    return HttpError(GapReason.BAD_DATA, detail, 401)


def _base(registry: str) -> str:
    host = _DOCKER.get(registry, registry)
    name = host.rpartition(":")[0] or host
    return f"{'http' if is_loopback(name) else 'https'}://{host}"


def _with(headers: Mapping[str, str], granted: str) -> dict[str, str]:
    return {**headers, "Authorization": granted} if granted else dict(headers)


def _token(registry: str, body: bytes) -> str:
    try:
        found = decode(body, _Token)
    except NotUnderstood:
        found = _Token()
    token = found.token or found.access_token or ""
    if not token or not token.isascii() or not token.isprintable():
        raise HttpError(GapReason.BAD_DATA, f"what gives tokens for {registry} gave none", 401)
    return token
