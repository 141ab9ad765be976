"""Image references, read tolerantly: what is not a legal reference still gets a registry, a path, a tag or none.

Source of the rules: github.com/distribution/reference (normalize.go, regexp.go).
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

_DOCKER = "docker.io"
_DOCKER_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io"})

# Shorter digests are not accepted by any runtime; asking for 32 digits also keeps "user@host:443" from being one.
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}")

# What could make a reader and a runtime see different hosts or paths: user info, ports, URL syntax. The grammar forbids
# more, but templates hold placeholders such as "<customer-registry>.azurecr.io".
_ODD = frozenset(" @:/\\?#%[]")


class ImageRef(msgspec.Struct, frozen=True):
    """One image reference. Nothing is validated; `tag` and `digest` are None where the text has none to be read."""

    registry: str  # host and port, lower case; "docker.io" for short names
    repository: str  # path inside the registry, "library/redis" for the short name "redis"
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The normalised name, such as "docker.io/library/redis"."""
        return f"{self.registry}/{self.repository}"


@lru_cache(maxsize=4096)
def parse(image: str) -> ImageRef:
    """The parts of `image`; never raises.

    An "@" that starts no digest stays where it is, and a last segment holding one has no tag: such a reference can
    not be pulled, so nothing in it should count as a pin.
    """
    rest, digest = _split_digest(image)
    rest, tag = _split_tag(rest)
    host, slash, path = rest.partition("/")
    if not slash or not _is_host(host):
        host, path = _DOCKER, rest
    registry = _normal_host(host)
    if registry == _DOCKER and "/" not in path:
        path = f"library/{path}"
    return ImageRef(registry, path, tag, digest)


def in_registry(image: str, allowed: str) -> bool:
    """Whether `image` comes from the allowed registry, or from below the allowed path of it; never raises.

    `allowed` is "host[:port][/path]", and the host may start with "*.", which stands for one label or more:
    "registry.example.com", "europe-docker.pkg.dev/acme-prod", "docker.io/library", "*.azurecr.io".
    Short names are docker.io/library/..., hosts are compared without case, paths with case and by whole segments.
    A port is part of the host: an entry without one does not allow "registry.example.com:8443" nor ":443".
    References with odd characters or with empty, "." or ".." segments are in no registry.
    """
    ref = parse(image)
    host, wanted = _allowed_parts(allowed)
    segments = ref.repository.split("/")
    return (
        _host_matches(ref.registry, host)
        and all(map(_is_plain, segments))
        and not {".", ".."}.intersection(segments)
        and tuple(segments[: len(wanted)]) == wanted
    )


def _split_digest(image: str) -> tuple[str, str | None]:
    rest, at, digest = image.rpartition("@")
    return (rest, digest) if at and _DIGEST.fullmatch(digest) else (image, None)


def _split_tag(rest: str) -> tuple[str, str | None]:
    last = rest.rpartition("/")[2]
    if ":" not in last or "@" in last:
        return rest, None
    rest, _, tag = rest.rpartition(":")
    return rest, tag or None


def _is_host(head: str) -> bool:
    # Repository paths are lower case, so upper case can only be a host.
    return "." in head or ":" in head or head == "localhost" or head != head.lower()


def _normal_host(host: str) -> str:
    # Only ASCII is folded: lower() turns the Kelvin sign into a plain "k".
    host = host.lower() if host.isascii() else host
    return _DOCKER if host in _DOCKER_ALIASES else host


@lru_cache(maxsize=256)
def _allowed_parts(allowed: str) -> tuple[str, tuple[str, ...]]:
    host, _, path = allowed.removesuffix("/").partition("/")
    return _normal_host(host), tuple(path.split("/")) if path else ()


def _host_matches(host: str, allowed: str) -> bool:
    if not allowed.startswith("*."):
        return host == allowed
    base = allowed[1:]
    labels = host.removesuffix(base)
    return len(base) > 1 and labels != host and all(map(_is_plain, labels.split(".")))


def _is_plain(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and _ODD.isdisjoint(text)
