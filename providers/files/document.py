"""What a manifest file holds: documents, errors, items of a JSON list; and the line that a path in them leads to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from providers.files import json_reader

MAX_MESSAGE = 200  # characters

Steps = list[str | int]


class Document(msgspec.Struct):
    """One document that could be read. `value` may be dropped (`document.value = None`), `line_of` does not need it."""

    value: Any
    index: int  # 1-based number in the file, broken documents counted, empty ones not
    line: int  # 1-based line that its content starts on
    _first: int  # line of the file that the lines in `_places` count from
    _places: list[Any] | bytes  # YAML: table of lines (see yaml_reader); JSON: the text itself

    @property
    def size(self) -> int:
        """About how many values it holds, aliases expanded."""
        return len(self._places) // 3

    def line_of(self, path: str) -> int:
        """1-based line of what stands at `path`, or else of its nearest ancestor that exists."""
        if isinstance(self._places, bytes):
            return self.line + json_reader.lines_before(self._places, _steps(path))
        found = _table_line(self._places, _steps(path))
        return self.line if found is None else self._first + found


class DocumentError(msgspec.Struct):
    """One document that could not be read. `message` is a plain sentence that starts with "line N: "."""

    index: int
    line: int
    message: str


class JsonItem(msgspec.Struct):
    """One object of a JSON list, still as bytes."""

    raw: msgspec.Raw
    index: int  # 1-based position in the list
    line: int  # 1-based line that the object starts on

    def line_of(self, path: str) -> int:
        """1-based line of what stands at `path` in this object, or else of its nearest ancestor that exists."""
        return self.line + json_reader.lines_before(bytes(self.raw), _steps(path))


class JsonList(msgspec.Struct):
    kind: str  # "List", "PodList" …
    api_version: str | None
    items: Iterator[JsonItem]


def document_error(index: int, line: int, problem: str, chunk: bytes = b"") -> DocumentError:
    """`problem` becomes a short printable message; `chunk` is the document's text, which may be a Helm template."""
    if b"{{" in chunk:
        problem = f"looks like a Helm template, which has to be rendered first (helm template): {problem}"
    message = "".join(c if c.isprintable() else " " for c in f"line {line}: {problem}"[: MAX_MESSAGE + 1])
    return DocumentError(index, line, message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…")


_STEP = re.compile(r"\.?([A-Za-z0-9_-]+)|\[([0-9]+)\]|\['((?:[^'\\]|\\.)*)'\]", re.DOTALL)


def _steps(path: str) -> Steps:
    """Keys and positions of a path; what cannot be understood, and all behind it, is left out."""
    steps: Steps = []
    end = 0
    while (step := _STEP.match(path, end)) is not None:
        end = step.end()
        key, position, quoted = step.groups()
        if position is not None:
            steps.append(int(position))
        else:
            steps.append(key if key is not None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
    return steps


def _table_line(table: list[Any], steps: Steps) -> int | None:
    line = None
    at, end = 0, len(table)
    for step in steps:
        while at < end and table[at] != step:
            at = table[at + 2] or at + 3
        if at >= end:
            break
        line, end = table[at + 1], table[at + 2]
        at += 3
    return line
