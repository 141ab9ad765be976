"""Cloud resources as the checks see them: the JSON that the cloud sent, read by path.

Names are those of the wire, so that evidence reads as in the cloud's own documentation and tools. An absent field and
an explicit null are the same. Of each resource only the paths in `KEEP` stay in memory and in bundles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from scanner.model import Collected, Evidence, Gap, GapReason, MissingEvidence, Status, Verdict, text

T = TypeVar("T")

# What other readings of the same scan say of a resource, filled in when all are there: by name, with the kinds that
# Azure is asked for because of it. Agents run inside the cluster, and arcConfig is what those of Azure Arc keep there.
JOINED: Mapping[str, tuple[str, ...]] = {
    "agents": (),
    "arcConfig": (),
    "arcClusters": ("connectedClusters", "extensions"),
    "connectors": ("securityConnectors",),
}
Json = dict[str, Any]
_Template = dict[str, Any]


class Setting(msgspec.Struct, Generic[T], frozen=True):
    """One field: `sent` is None where the cloud sent none, and the platform's documented default then holds."""

    path: str
    sent: T | None
    default: T

    @property
    def value(self) -> T:
        return self.default if self.sent is None else self.sent

    @property
    def evidence(self) -> Evidence:
        unset = self.sent is None and self.default not in ("", ())
        shown = text(self.sent)  # whoever may write a ConfigMap or a bundle decides how long it is
        return Evidence(
            self.path, shown if len(shown) <= 500 else f"{shown[:499]}…", text(self.default) if unset else None
        )

    def equals(self, *words: str) -> bool:
        """Whether the text is one of these, whatever its case: clouds are not strict about the case of enums."""
        return str(self.value).casefold() in {word.casefold() for word in words}


def expect(
    ok: bool, message: str, *settings: Setting[Any] | Evidence, reason: str = "", severity: Any = None
) -> Verdict:
    """Pass, or fail with the message; either way with what it rests on."""
    evidence = tuple(s if isinstance(s, Evidence) else s.evidence for s in settings)
    if ok:
        return Verdict(Status.PASS, evidence=evidence)
    return Verdict(Status.FAIL, reason, message, evidence, severity)


def stated(setting: Setting[T], sender: str) -> Setting[T]:
    """The setting; raises MissingEvidence where the cloud did not send it."""
    if setting.sent is None:
        detail = f"{sender} did not send {setting.path}"
        raise MissingEvidence(Gap(what=setting.path, reason=GapReason.BAD_DATA, detail=detail))
    return setting


def malformed(where: str, what: str) -> MissingEvidence:
    return MissingEvidence(Gap(what=where, reason=GapReason.BAD_DATA, detail=f"{where} is not {what}"))


def wrong(items: Iterable[T], judge: Callable[[T], list[Evidence]]) -> list[Evidence]:
    """What is wrong with any of the items; raises MissingEvidence where nothing is, but not all were understood."""
    found: list[Evidence] = []
    gaps: list[Gap] = []
    for item in items:
        try:
            found += judge(item)
        except MissingEvidence as missing:
            gaps += missing.gaps
    if gaps and not found:
        raise MissingEvidence(*gaps)
    return found


class Facts(msgspec.Struct):
    """A JSON object and the path that leads to it. A value of an unexpected type raises MissingEvidence: it is not
    understood, and never taken for absent."""

    wire: Json
    path: str = ""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {}  # where an absent field is not false, "" or ()

    def get(self, path: str) -> Any:
        """The raw value at a dotted path, None where some part of the path is absent or null."""
        value: Any = self.wire
        done: list[str] = []
        for key in path.split("."):
            if value is None:
                return None
            if not isinstance(value, dict):
                raise self._not_understood(".".join(done), value, "an object")
            value = value.get(key)
            done.append(key)
        return value

    def flag(self, path: str) -> Setting[bool]:
        return self._setting(path, "true or false", False, lambda value: isinstance(value, bool))

    def text(self, path: str) -> Setting[str]:
        return self._setting(path, "a text", "", lambda value: isinstance(value, str))

    def words(self, path: str) -> Setting[tuple[str, ...]]:
        """A list of texts."""
        setting: Setting[Any] = self._setting(path, "a list of texts", (), _is_words)
        return msgspec.structs.replace(setting, sent=None if setting.sent is None else tuple(setting.sent))

    def part(self, path: str) -> Facts:
        """The object at a path, an empty one where there is none."""
        value = self.get(path)
        if value is not None and not isinstance(value, dict):
            raise self._not_understood(path, value, "an object")
        return Facts(value or {}, self._full(path))

    def parts(self, path: str, label: str = "name") -> list[Facts]:
        """The objects of a list, each under its label: properties.agentPoolProfiles[system]."""
        value = self.get(path)
        if value is not None and (not isinstance(value, list) or not all(isinstance(item, dict) for item in value)):
            raise self._not_understood(path, value, "a list of objects")
        return list(labelled(value or (), self._full(path), label))

    def _setting(self, path: str, wanted: str, default: Any, understood: Callable[[Any], bool]) -> Setting[Any]:
        value = self.get(path)
        if value is not None and not understood(value):
            raise self._not_understood(path, value, wanted)
        return Setting(self._full(path), value, self.DEFAULTS.get(path, default))

    def _full(self, path: str) -> str:
        return f"{self.path}.{path}" if self.path else path

    def _not_understood(self, path: str, value: object, wanted: str) -> MissingEvidence:
        where = self._full(path)
        return MissingEvidence(
            Gap(what=where, reason=GapReason.BAD_DATA, detail=f"{where} is {str(value)[:60]!r} and not {wanted}")
        )


def labelled(items: Iterable[Json], path: str, label: str) -> Iterator[Facts]:
    """Objects of a list under the path that names each, by number where it has no name."""
    for number, item in enumerate(items):
        name = item.get(label)
        yield Facts(item, f"{path}[{name if isinstance(name, str) and name else number}]")


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


class CloudResource(Facts, kw_only=True):
    """One resource of a cloud. `related` holds what was asked for beside it, by name, complete or with its gaps."""

    id: str  # as the cloud writes it
    name: str
    account: str
    region: str | None = None
    tags: dict[str, str] = {}
    unread: Gap | None = None  # where it was listed, but what it is could not be asked
    related: dict[str, Collected[Json]] = {}

    provider: ClassVar[str]
    group: ClassVar[str]
    kind: ClassVar[str]  # of the resource; as a plural it names the list of them in gaps
    scope_name: ClassVar[str]
    inside: ClassVar[bool] = False  # whether it is a cluster whose inside is read too
    KEEP: ClassVar[tuple[str, ...]] = ()
    PARTS: ClassVar[tuple[type[CloudPart], ...]] = ()

    @property
    def unjudged(self) -> str:
        """Why no check applies to it now, "" where they do."""
        return ""

    @property
    def lives(self) -> bool:
        """Whether checks apply to it now; where even its state is unreadable, each says what it can."""
        try:
            return not self.unjudged
        except MissingEvidence:
            return True

    def components(self) -> Iterable[CloudPart]:
        """What checks judge one by one inside the resource; raises MissingEvidence where it cannot be told."""
        return ()

    def listed(self, what: str) -> list[Facts]:
        """What was asked for beside the resource; raises MissingEvidence where that is not complete."""
        if what not in self.related:
            raise MissingEvidence(Gap(what=what, reason=GapReason.NOT_CONFIGURED, detail="was not asked for"))
        return list(labelled(self.related[what].all(), what, "name"))


class CloudPart(Facts, kw_only=True):
    """A part of a cloud resource that is judged on its own, such as a node pool."""

    name: str
    owner: CloudResource

    kind: ClassVar[str]
    scope_name: ClassVar[str]


def scope_id(id: str) -> str:
    """What finding ids of a resource rest on: Azure's come back in any case."""
    return id.lower() if id.lower().startswith("/subscriptions/") else id


def kept(data: Json, paths: Iterable[str]) -> Json:
    """A copy that holds only these dotted paths; `*` stands for any key, and lists are looked through."""
    template: _Template = {}
    for path in paths:
        node = template
        for key in path.split("."):
            node = node.setdefault(key, {})
    found = _kept(data, template)
    return found if isinstance(found, dict) else {}


def _kept(value: Any, template: _Template) -> Any:
    if not template:
        return value
    if isinstance(value, list):
        return [_kept(item, template) for item in value]
    if not isinstance(value, dict):
        return value  # of another type than expected: whoever reads it says so
    by_key = {key: template.get(key, template.get("*")) for key in value}
    return {key: _kept(value[key], below) for key, below in by_key.items() if below is not None}
