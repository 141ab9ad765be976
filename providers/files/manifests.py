"""Manifests from files, directories and standard input.

A document that cannot be read costs itself: it becomes one `error` on its file, and the rest goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from msgspec import Raw

from providers.files import documents
from providers.files.document import Document, DocumentError, JsonItem, JsonList
from providers.files.paths import STDIN, content, expand, name_of
from scanner import wire
from scanner.inventory import Inventory
from scanner.kube import BY_NAME, Resource, Source, printable
from scanner.model import Gap, GapReason
from scanner.normalize import NotUnderstood, decode
from scanner.owners import kind_of, misspelt
from scanner.workloads import Fold

SUFFIXES = (".yaml", ".yml", ".json")
MAX_YAML = 64 * 2**20  # bytes; composing YAML takes some hundred times its size
MAX_JSON = 512 * 2**20
MAX_LISTS = 5  # Lists inside Lists
MAX_VALUES = 10_000_000  # of one YAML file, aliases expanded


@dataclass(frozen=True, slots=True)
class Found:
    """`name` tells this set of files apart from others: the paths it was read from."""

    name: str
    inventory: Inventory
    locate: Callable[[Source, str], int]


def read(
    paths: Sequence[str], default_namespace: str, kinds: frozenset[str], progress: Callable[[str, int], None]
) -> Found:
    """Every Kubernetes object below the paths; never raises for what a file holds."""
    reader = Reader(Fold(kinds, default_namespace=default_namespace), _base(Path.cwd()))
    for path in expand(paths, SUFFIXES, reader.fail):
        progress(path, reader.fold.counts.read)
        reader.read_file(path)
    name = ", ".join(sorted({reader.scope(p) for p in paths}))
    return Found(name, reader.fold.finish(), reader.locate)


def read_sample(folder: Path, kinds: frozenset[str]) -> Inventory:
    """Files as if an API server had answered them: without places in files, and with one namespace refused."""
    fold = Fold(kinds | {"namespaces"})
    fold.lookups.in_cluster = True
    for file in sorted(folder.glob("*.yaml")):
        for found in documents.read(file.read_bytes()):
            if isinstance(found, DocumentError):
                raise NotUnderstood(f"{file.name}: {found.message}")
            value = found.value
            data = msgspec.json.encode(value)
            kind = kind_of(decode(data, wire.Header))
            if kind and kind.plural in fold.kinds:
                fold.add(kind, data)
    if "pods" in kinds:
        fold.gap(_sample_gap())
    return fold.finish()


def _sample_gap() -> Gap:
    detail = 'pods is forbidden: User "auditor" cannot list resource "pods" in the namespace "payments"'
    right = "list pods in namespace payments"
    return Gap(what="pods", reason=GapReason.FORBIDDEN, detail=detail, permission=right, namespace="payments")


def _base(start: Path) -> Path:
    """The git root, else the working directory: finding ids do not change with the directory one scans from."""
    return next((p for p in (start, *start.parents) if (p / ".git").exists()), start)


class _Header(wire.Wire, frozen=True):
    """Everything raw, so that a field of the wrong type can be told from one that is missing."""

    kind: Raw | msgspec.UnsetType = msgspec.UNSET
    api_version: Raw | msgspec.UnsetType = msgspec.UNSET
    items: Raw | msgspec.UnsetType = msgspec.UNSET


@dataclass(slots=True)
class Reader:
    """Feeds what files hold into a fold, and remembers where each document's fields stand."""

    fold: Fold
    base: Path
    _places: dict[tuple[str, int, int], Document | JsonItem] = field(default_factory=dict)

    def read_file(self, path: str) -> None:
        broken = self.fold.counts.invalid
        try:
            data = content(path, _limit(path))
        except OSError as error:
            self.fail(path, f"cannot be read: {error.strerror or error}")
        except ValueError as error:
            self.fail(path, str(error))
        else:
            self._read_documents(path, data)
        failed = self.fold.counts.invalid > broken
        self.fold.counts.files_failed += failed
        self.fold.counts.files_read += not failed

    def fail(self, path: str, message: str, line: int = 1, document: int = 1) -> None:
        """One `error` whose subject is the file."""
        self.fold.counts.lists_asked += 1
        resource = Resource(
            group="", kind="File", namespace="", name=self.scope(path), source=self._source(path, line, document)
        )
        self.fold.not_understood(resource, printable(message, 300))

    def scope(self, path: str) -> str:
        """The path that ids are built on: relative to the base where it lies below it, in POSIX form."""
        if path == STDIN:
            return STDIN
        absolute, below = os.path.abspath(path), os.path.join(self.base, "")
        return name_of(absolute.removeprefix(below) if absolute != str(self.base) else ".").replace(os.sep, "/")

    def locate(self, source: Source, path: str) -> int:
        """The line of a path inside an object, or of its nearest ancestor that is there."""
        place = self._places.get((source.path, source.document, source.item))
        if place is None:
            return source.line
        return place.line_of(".".join(part for part in (source.base, path) if part))

    # -- documents ----------------------------------------------------------------------------------------------------

    def _read_documents(self, path: str, data: bytes) -> None:
        dump = documents.read_json(data)
        if dump is not None:
            self._read_dump(path, dump)
            return
        left = MAX_VALUES
        for found in documents.read(data):
            if isinstance(found, DocumentError):
                self.fail(path, found.message, found.line, found.index)
                continue
            left -= found.size
            if left < 0:
                self.fail(
                    path, f"holds more than {MAX_VALUES:,} values, aliases expanded: the rest is not read", found.line
                )
                return
            self._read_document(path, found)

    def _read_dump(self, path: str, dump: JsonList) -> None:
        """`kubectl get -o json`: items are decoded straight from the file's bytes."""
        self._documents_read(1)
        for number, item in enumerate(dump.items, 1):
            source = self._source(path, item.line, 1, item=number)
            self._places[source.path, 1, number] = item
            self._add(item.raw, source, _item_kind(dump.kind))

    def _read_document(self, path: str, document: Document) -> None:
        source = self._source(path, document.line, document.index)
        try:
            raw = msgspec.json.encode(document.value)
        except (OverflowError, UnicodeEncodeError, RecursionError, ValueError) as error:
            self.fail(path, f"cannot be read: {error}", document.line, document.index)
            return
        document.value = None
        self._documents_read(1)
        self._places[source.path, document.index, 0] = document
        objects = self.fold.counts.read
        self._add(raw, source)
        if self.fold.counts.read == objects:  # no Kubernetes object: its lines are of no use
            del self._places[source.path, document.index, 0]

    def _add(self, raw: bytes | Raw, source: Source, item_of: str | None = None, depth: int = 0) -> None:
        """One object, or each object of a List. `item_of` is the kind that a typed list leaves out in its items."""
        try:
            header = decode(raw, _Header)
        except NotUnderstood:
            self.fold.skip()  # not even an object
            return
        kind, version = _text(header.kind) or item_of, _text(header.api_version)
        if kind is None or (version is None and item_of is None):
            self._no_object(kind, version, raw, source, depth)
        elif kind.lower().endswith("list") and not isinstance(header.items, msgspec.UnsetType):
            self._add_list(header.items, kind, source, depth)
        elif known := kind_of(wire.Header(version, kind)) if version else BY_NAME.get(kind):
            if isinstance(header.items, msgspec.UnsetType):
                self.fold.add(known, raw, source)
            else:
                self.fold.add_broken(known, raw, "has items, as only a List does", source)
        elif built_in := misspelt(version or "", kind):
            self.fold.add_broken(built_in, raw, f"there is no kind {kind} in apiVersion {version}", source)
        else:
            self.fold.skip_kind()

    def _add_list(self, items: Raw, kind: str, source: Source, depth: int) -> None:
        if depth >= MAX_LISTS:
            self.fail(source.path, f"more than {MAX_LISTS} Lists inside one another", source.line, source.document)
            return
        try:
            found = decode(items, tuple[Raw, ...] | None) or ()  # type: ignore[arg-type]
        except NotUnderstood as error:
            self.fail(source.path, f"items of {kind}: {error}", source.line, source.document)
            return
        for i, item in enumerate(found):
            base = f"{source.base}.items[{i}]".lstrip(".")
            place = msgspec.structs.replace(source, base=base)
            inside = msgspec.structs.replace(place, line=self.locate(place, ""))
            self._add(item, inside, _item_kind(kind), depth + 1)

    def _no_object(self, kind: str | None, version: str | None, raw: bytes | Raw, source: Source, depth: int) -> None:
        """Neither field: some other file. One of them: an object that the API server would refuse."""
        if kind in BY_NAME:
            self.fold.add_broken(BY_NAME[kind], raw, "apiVersion is missing or no text", source)
        elif kind is None and version is None and not depth:
            self.fold.skip()
        else:
            missing = "kind" if kind is None else "apiVersion"
            self.fail(source.path, f"{missing} is missing or no text", source.line, source.document)

    def _documents_read(self, n: int) -> None:
        self.fold.counts.lists_asked += n
        self.fold.counts.lists_read += n

    def _source(self, path: str, line: int, document: int, item: int = 0) -> Source:
        return Source(path=name_of(path), line=line, document=document, scope=self.scope(path), item=item)


def _text(value: Raw | msgspec.UnsetType) -> str | None:
    try:
        return None if isinstance(value, msgspec.UnsetType) else decode(value, str)
    except NotUnderstood:
        return None


def _item_kind(list_kind: str) -> str | None:
    """PodList -> Pod; a plain List says nothing about its items."""
    return list_kind.removesuffix("List") or None


def _limit(path: str) -> int:
    return MAX_JSON if path == STDIN or path.lower().endswith(".json") else MAX_YAML
