"""JSON text: the value it starts with, the items of a list, and the lines that they and what is in them start on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

_BYTE = re.compile(r" \(byte ([0-9]+)\)$")  # where msgspec says that it stopped
_LOOKS = re.compile(rb'\{[ \t\r\n]*["}]|\[[ \t\r\n]*["\[{]')  # and not a Helm template or a YAML flow mapping
_KEY = re.compile(rb'[ \t\r\n,{]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:[ \t\r\n]*')
_BETWEEN = re.compile(rb"[ \t\r\n,]*()")
_ITEMS = re.compile(rb'"items"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*')


class ListShape(msgspec.Struct, rename="camel"):
    kind: str
    items: list[msgspec.Raw] | None
    api_version: str | None = None


def first_value(text: memoryview) -> tuple[Any, int] | None:
    """The JSON value that the text starts with, and its length. None: to be read as YAML, as kubectl does."""
    try:
        try:
            return msgspec.json.decode(text), len(text)
        except msgspec.DecodeError as error:
            end = end_of_first(text, str(error))
            return None if end is None else (msgspec.json.decode(text[:end]), end)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def end_of_first(text: memoryview, problem: str) -> int | None:
    """Where the first value ends, if another one follows: msgspec tells it, one byte too far in some versions."""
    byte = _BYTE.search(problem)
    if byte is None or "trailing characters" not in problem:
        return None
    at = int(byte[1])
    return next((end for end in (at - 1, at) if bytes(text[end : end + 1]) in (b"{", b"[")), None)


def is_deeper(value: Any, text: bytes, levels: int) -> bool:
    """Whether a mapping or list, and the text it was read from, has more than so many levels of nesting."""
    if text.count(b"{") + text.count(b"[") <= levels:
        return False
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    return bool(level)


def problem_of(text: bytes) -> tuple[str, int] | None:
    """What is wrong with a text that looks like JSON, and on which of its lines, the first being 0."""
    try:
        if _LOOKS.match(text):
            msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        byte = _BYTE.search(str(error))
        return _BYTE.sub("", str(error)), text.count(b"\n", 0, int(byte[1]) if byte else len(text.rstrip()))
    except (UnicodeDecodeError, RecursionError):
        pass
    return None


def read_list(text: bytes) -> ListShape | None:
    """An object with a kind `…List` and a list of items, these not decoded."""
    try:
        found = msgspec.json.decode(text, type=ListShape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if found.kind.endswith("List") else None


def items_with_lines(text: bytes, raws: list[msgspec.Raw]) -> Iterator[tuple[msgspec.Raw, int]]:
    """The items of the list that the text is, each with the 1-based line that it starts on."""
    line, counted = 1, 0
    end = _items_start(text, raws)
    for raw in raws:
        between = _BETWEEN.match(text, end)
        start = between.end() if between else end
        line += text.count(b"\n", counted, start)
        counted, end = start, start + memoryview(raw).nbytes
        yield raw, line


def _items_start(text: bytes, raws: list[msgspec.Raw]) -> int:
    """Position behind the bracket that opens the items: msgspec does not tell where it found them."""
    first = bytes(raws[0]) if raws else b""
    return next((m.end() for m in _ITEMS.finditer(text) if text.startswith(first, m.end())), 0)


def lines_before(text: bytes, steps: list[str | int]) -> int:
    """Line ends in front of what stands at the path, or of its nearest ancestor that exists."""
    place, start, inner = 0, 0, text
    for step in steps:
        found = _member(inner, step)
        if found is None:
            break
        at_key, at_value, inner = found
        place, start = start + at_key, start + at_value
    return text.count(b"\n", 0, place)


def _member(text: bytes, step: str | int) -> tuple[int, int, bytes] | None:
    """Position of a key or item, of its value, and the value's text. Decodes one level, the members only raw."""
    members: Iterable[tuple[str | int, msgspec.Raw]]
    try:
        if isinstance(step, str):
            pattern, members = _KEY, msgspec.json.decode(text, type=dict[str, msgspec.Raw]).items()
        else:
            pattern, members = _BETWEEN, enumerate(msgspec.json.decode(text, type=list[msgspec.Raw]))
    except msgspec.DecodeError:
        return None
    end = 1
    for name, raw in members:
        place = pattern.match(text, end)
        if place is None or not text.startswith(bytes(raw), place.end()):
            return None  # a key that occurs twice
        if name == step:
            return place.start(1), place.end(), bytes(raw)
        end = place.end() + memoryview(raw).nbytes
    return None
