"""Who tells of images, beside clouds and clusters: files of scanners, JFrog Xray, registries of what indexes hold."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

from providers.files import scans
from scanner.cli.judge_images import IndexOf
from scanner.cli.options import ImageSources, Running
from scanner.collect import Estate, Progress, Reading, Task
from scanner.config import ConfigError, Settings
from scanner.inventory import Inventory
from scanner.model import Gap, GapReason, utc_now
from scanner.vulnerabilities import Platform, Scans

PROVIDER = "images"
JFROG_TOKEN = "JFROG_ACCESS_TOKEN"  # noqa: S105 - the variable that holds it


def source_tasks(sources: ImageSources, settings: Settings, running: Running) -> list[Task]:
    """None where no check of images is selected. Raises ConfigError for sources that cannot be used."""
    if not settings.needs_scans:
        return []
    token = os.environ.get(JFROG_TOKEN, "")
    jfrog = [xray_task(sources.jfrog_url, token, running)] if sources.jfrog_url else []
    return [*scan_file_tasks(sources.vulnerabilities), *jfrog]


def index_of(sources: ImageSources, running: Running) -> IndexOf | None:
    """What registries say of indexes, where there are credentials for any. Raises ConfigError."""
    if sources.registry_auth is None:
        return None
    from providers.http import HttpError, UsageError
    from providers.registries import api

    try:
        known = api.logins(sources.registry_auth)
    except UsageError as error:
        raise ConfigError(str(error)) from None
    if not known:
        raise ConfigError(f"{sources.registry_auth} holds no credentials of any registry")
    registries = api.Registries(known, running.request_timeout)

    def index(registry: str, repository: str, digest: str) -> list[Platform] | Gap | None:
        try:
            return registries.index(registry, repository, digest)
        except HttpError as error:
            return Gap(what=registry, reason=error.reason, detail=error.detail, time=utc_now())

    return index


def scan_file_tasks(paths: list[str]) -> list[Task]:
    """One task that gives some images at a time, none for no paths."""
    if not paths:
        return []
    name = ", ".join(paths)

    def read(progress: Progress) -> Iterator[Reading]:
        for number, found in enumerate(scans.read(paths, progress), 1):
            yield _reading(f"{name} (part {number})", found)

    def lost(reason: GapReason, detail: str) -> Reading:
        return _reading(name, Scans(gaps=[Gap(what=scans.WHAT, reason=reason, detail=detail, time=utc_now())]))

    return [Task(name, read, frozenset(), PROVIDER, lost)]


def _reading(name: str, found: Scans) -> Reading:
    return Reading(Estate(name, Inventory(kinds=[]), scans=found))


def xray_task(url: str, token: str, running: Running) -> Task:
    """What JFrog Xray says of the images of an Artifactory; raises ConfigError where it cannot be asked."""
    from providers.http import UsageError
    from providers.registries import xray

    try:
        url = xray.check(url, token)
    except UsageError as error:
        raise ConfigError(str(error) if token else f"{error}: put one into {JFROG_TOKEN}") from None

    def read(progress: Progress) -> Iterable[Reading]:
        scans = Scans()
        for some in xray.read(url, token, running.request_timeout, time.monotonic() + running.timeout):
            scans.asked += some.asked
            scans.scans += some.scans
            scans.indexes |= some.indexes
            scans.gaps += some.gaps
            progress("images", len(scans.scans))
        return [Reading(Estate(url, Inventory(kinds=[]), scans=scans))]

    def lost(reason: GapReason, detail: str) -> Reading:
        gap = Gap(what=xray.SOURCE, reason=reason, detail=detail, time=utc_now())
        return Reading(Estate(url, Inventory(kinds=[]), scans=Scans(asked=[xray.SOURCE], gaps=[gap])))

    return Task(url, read, frozenset(), PROVIDER, lost)
