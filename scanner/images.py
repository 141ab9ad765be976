"""Images as the checks see them: what runs or lies in a registry, with what sources say of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from scanner.kube import Resource
from scanner.model import Gap
from scanner.vulnerabilities import ImageScan


class Match(msgspec.Struct, frozen=True):
    """A scan that speaks of an image. Unless it is `sure` to be of the very same one it may prove a fail, never a
    pass: `doubt` is why."""

    scan: ImageScan
    doubt: str = ""

    @property
    def sure(self) -> bool:
        return not self.doubt


class Manifest(msgspec.Struct, frozen=True):
    """One image for one platform, with all that is said of it."""

    digest: str
    platform: str
    matches: tuple[Match, ...]
    elsewhere: tuple[str, ...] = ()  # platforms that it was scanned for, and this is not one of them
    gaps: tuple[Gap, ...] = ()  # sources that were refused and might know it


class ScannedImage(msgspec.Struct, frozen=True, kw_only=True):
    """What is judged: every manifest counts. `images` are the names of what it is, `known_exploited` ids of
    vulnerabilities, `as_of` is the time that ages of scans are counted to."""

    images: tuple[str, ...]
    manifests: tuple[Manifest, ...]
    known_exploited: frozenset[str] = frozenset()
    as_of: datetime


class RunningContainer(ScannedImage, frozen=True, kw_only=True):
    """One container of a root controller, with one image on one platform or with all; `pods` run it."""

    name: str
    pods: int

    @property
    def image(self) -> str:
        return self.images[0]


class RegistryImage(ScannedImage, frozen=True, kw_only=True):
    """An image in a registry that a tag points to."""


def together(containers: Sequence[RunningContainer]) -> RunningContainer:
    """All images of a container: during a roll-out there are two."""
    return RunningContainer(
        name=containers[0].name,
        pods=sum(c.pods for c in containers),
        images=tuple(dict.fromkeys(image for c in containers for image in c.images)),
        manifests=tuple(manifest for c in containers for manifest in c.manifests),
        known_exploited=containers[0].known_exploited,
        as_of=containers[0].as_of,
    )


@dataclass(frozen=True, slots=True)
class Group:
    """What one finding is about: all images of a container, or one in a registry."""

    resource: Resource
    key: str
    subjects: list[RunningContainer] | list[RegistryImage]
    labels: tuple[Mapping[str, str], ...] = ()  # of its pods, where they differ from the resource's own

    @property
    def told(self) -> bool:
        """Whether any source has scanned any of it."""
        return any(told(subject.manifests) for subject in self.subjects)


def told(manifests: Iterable[Manifest]) -> bool:
    """Whether anything is said that could decide."""
    return any(match.scan.told for found in manifests for match in found.matches)
