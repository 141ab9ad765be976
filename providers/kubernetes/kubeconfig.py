"""Which clusters there are: the contexts of kubeconfig files, read and merged as kubectl does, or the pod's own.

The official client is not asked: with several files it lets the last one win, and it drops impersonation.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from providers.kubernetes.errors import ConfigError
from scanner import safe_yaml
from scanner.plain import plain

Object = Mapping[str, Any]

IN_CLUSTER = "in-cluster"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Context:
    """A context with its entries, which hold credentials and are kept out of `repr`; None where there is no entry."""

    name: str
    namespace: str | None
    cluster: Object | None = field(repr=False)
    user: Object | None = field(repr=False)


def contexts(kubeconfig: str | None = None, patterns: Sequence[str] = ()) -> list[Context]:
    """The contexts that match any of the globs, in the order of the kubeconfig; without patterns the current context.

    Without a `kubeconfig`: $KUBECONFIG (of several files the first to name something wins), ~/.kube/config, then the
    service account of the pod. Raises ConfigError; but a context whose cluster or user is missing fails in connect(),
    so that it does not stop its neighbours.
    """
    files = _existing_files() if kubeconfig is None else [os.path.expanduser(kubeconfig)]
    source = plain(os.pathsep.join(files)) or "the service account of this pod"
    current, known = _read_contexts(files) if files else _service_account()
    if not patterns:
        return [_current(current, known, source)]
    chosen = {name for pattern in patterns for name in _matches(pattern, known, source)}
    return [context for name, context in known.items() if name in chosen]


def _existing_files() -> list[str]:
    named = os.environ.get("KUBECONFIG") or os.path.join("~", ".kube", "config")
    return [path for path in map(os.path.expanduser, named.split(os.pathsep)) if path and os.path.exists(path)]


def _service_account() -> tuple[str, dict[str, Context]]:
    """The pod that this process runs in, as if a kubeconfig named what Kubernetes mounts into it."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT") or "443"
    if not host:
        named = plain(os.environ.get("KUBECONFIG") or "~/.kube/config")
        raise ConfigError(f"there is no kubeconfig at {named}: give one with --kubeconfig or $KUBECONFIG")
    try:
        namespace = (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        namespace = ""
    address = f"[{host}]" if ":" in host else host
    cluster = {"server": f"https://{address}:{port}", "certificate-authority": str(SERVICE_ACCOUNT / "ca.crt")}
    user = {"tokenFile": str(SERVICE_ACCOUNT / "token")}
    return IN_CLUSTER, {IN_CLUSTER: Context(IN_CLUSTER, namespace or None, cluster, user)}


def _read_contexts(files: Sequence[str]) -> tuple[str, dict[str, Context]]:
    current = ""
    entries: dict[str, dict[str, Object]] = {"contexts": {}, "clusters": {}, "users": {}}
    for path in files:
        document = _read_yaml(path)
        current = current or text(document.get("current-context"))
        for part, merged in entries.items():
            for name, entry in _named_entries(document, part, path):
                merged.setdefault(name, _with_absolute_paths(entry, os.path.dirname(os.path.abspath(path))))
    known = {}
    for name, entry in entries["contexts"].items():
        cluster, user = text(entry.get("cluster")), text(entry.get("user"))
        user_entry = entries["users"].get(user) if user else {}
        known[name] = Context(name, text(entry.get("namespace")) or None, entries["clusters"].get(cluster), user_entry)
    return current, known


def _read_yaml(path: str) -> Object:
    try:
        document: Any = safe_yaml.load(Path(path).read_bytes()) or {}
    except OSError as error:
        raise ConfigError(f"kubeconfig {plain(path)} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"kubeconfig {plain(path)} is not valid YAML: {plain(str(error))}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"kubeconfig {plain(path)} is not a kubeconfig: it must be a mapping with contexts")
    return document


def _named_entries(document: Object, part: str, path: str) -> Iterator[tuple[str, Object]]:
    entries = document.get(part) or []
    if not isinstance(entries, list):
        raise ConfigError(f"kubeconfig {plain(path)}: {part} must be a list")
    for item in entries:
        entry = mapping(item).get(part[:-1])
        if not isinstance(item, dict) or not isinstance(entry, dict | None):
            raise ConfigError(
                f"kubeconfig {plain(path)}: an entry of {part} is not a mapping with name and {part[:-1]}"
            )
        yield text(item.get("name")), entry or {}


_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def _with_absolute_paths(entry: Object, base: str) -> Object:
    """Paths in a kubeconfig are relative to it; after merging several nobody knows to which."""
    found: dict[str, Any] = {key: os.path.join(base, path) for key in _PATHS if (path := text(entry.get(key)))}
    command = text(mapping(entry.get("exec")).get("command"))
    if os.path.dirname(command):  # a bare name is looked up on PATH
        found["exec"] = {**entry["exec"], "command": os.path.join(base, command)}
    return {**entry, **found}


def _current(current: str, known: Mapping[str, Context], source: str) -> Context:
    if current in known:
        return known[current]
    problem = f"current-context {plain(current)!r} does not exist" if current else "no current-context is set"
    raise ConfigError(f"{source}: {problem}: name one with --context ({_some(known)})")


def _matches(pattern: str, known: Mapping[str, Context], source: str) -> list[str]:
    if pattern in known:  # a context's name may hold what a glob would take for a wildcard
        return [pattern]
    names = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
    if not names:
        near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.5)
        raise ConfigError(f"{source}: no context matches {plain(pattern)!r} ({_some(near or known)})")
    return names


def _some(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(plain(name) for name in names[:5])
    return f"there is {shown}{', …' if names[5:] else ''}" if names else "there are none"


# A kubeconfig is not validated before it is used: each value is read as what it has to be, or as absent.


def text(value: object) -> str:
    """A scalar as kubectl means it; anything else is empty."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def elements(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def mapping(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
