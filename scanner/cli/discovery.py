"""What `scan` of every cloud does alike: which of the clusters found are asked for, and what a look inside becomes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from scanner.cli.options import Discovery
from scanner.cli.targets import Inside, Look, look_inside
from scanner.cloud import CloudResource
from scanner.collect import Progress, Reading, unread, unread_inventory
from scanner.config import ConfigError
from scanner.model import GapReason, MissingEvidence, PlaneState

if TYPE_CHECKING:
    from providers.kubernetes.credentials import ApiAccess


class Wanted:
    """--cluster and --tag. Remembers which names were found, so that misspelt ones can be told."""

    def __init__(self, discovery: Discovery) -> None:
        for tag in discovery.tag:
            if not tag.partition("=")[0].strip():  # no cluster has it, so all would be clean
                raise ConfigError(f"--tag {tag!r} names no tag: KEY or KEY=VALUE")
        self.names, self.tags = discovery.cluster, discovery.tag
        self.unmatched = set(discovery.cluster)
        self.unlisted = 0  # lists of clusters that are not yet there
        self._lock = threading.Lock()

    def names_match(self, name: str) -> bool:
        matching = [pattern for pattern in self.names if fnmatchcase(name.lower(), pattern.lower())]
        self.unmatched.difference_update(matching)
        return bool(matching or not self.names)

    def tags_match(self, tags: dict[str, str]) -> bool:
        have = {key.lower(): value for key, value in tags.items()}  # Azure does not tell the case of a tag's name
        for wanted in self.tags:
            key, equals, value = wanted.partition("=")
            if key.lower() not in have or (equals and have[key.lower()] != value):
                return False
        return True

    def listed(self, provider: str, kinds: Iterable[str]) -> Iterator[Reading]:
        """To be called for each list of clusters. After the last: names asked for that no cluster has."""
        with self._lock:
            self.unlisted -= 1
            last = not self.unlisted
        for name in sorted(self.unmatched) if last else ():
            detail = f"no cluster that this identity sees is named {name!r}"
            yield unread(name, provider, kinds, GapReason.NOT_FOUND, detail)


class Unreadable(Exception):
    """Why there is no way into a cluster; `keys` is what is known of its API server all the same."""

    def __init__(self, reason: GapReason, detail: str, permission: str = "", keys: Iterable[str] = ()) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.permission, self.keys = reason, detail, permission, tuple(keys)


def look(
    cluster: CloudResource, access: Callable[[], tuple[ApiAccess, list[str]]], inside: Inside, progress: Progress
) -> Look:
    """What runs in a cluster, or the gaps in place of that. `access` gives the way in and the API server's keys, or
    raises Unreadable."""
    from providers.kubernetes.errors import ApiError
    from providers.kubernetes.errors import ConfigError as Unusable

    keys: list[str] = []
    try:
        api, keys = access()
        return look_inside(api, cluster.name, inside, progress)
    except Unreadable as why:
        reason, detail, permission, keys = why.reason, why.detail, why.permission, list(why.keys)
    except ApiError as error:
        reason, detail, permission = error.reason, error.detail, ""
    except Unusable as error:
        reason, detail, permission = GapReason.NOT_CONFIGURED, str(error), ""
    except MissingEvidence as missing:
        reason, detail, permission = missing.gaps[0].reason, missing.gaps[0].sentence, ""
    return unread_look(cluster, inside, reason, detail, permission, keys)


def unread_look(
    cluster: CloudResource,
    inside: Inside,
    reason: GapReason,
    detail: str,
    permission: str = "",
    keys: Iterable[str] = (),
) -> Look:
    inventory = unread_inventory(inside.kinds, reason, detail, permission)
    scope = inside.cluster_ids.get(cluster.name, "")
    return Look(inventory, None, None, scope, "config", list(keys), PlaneState.NOT_READ)
