"""The text of a manifest file -> its documents, read as kubectl reads them, with the line of every field.

    for found in read(data):             # bytes of one file: YAML or JSON, one document or many
        if isinstance(found, DocumentError):
            ...                          # found.index, found.line, found.message
        else:
            found.value                  # dict, list, str, int, float, bool or None
            found.line_of("spec.containers[0].image")

    dump = read_json(data)               # None unless the text is one JSON list, like `kubectl get -o json`
    if dump is not None:
        for item in dump.items:          # item.raw: bytes of one object, to be decoded straight into typed structs
            item.line, item.line_of("spec.nodeName")

Paths: keys of letters, digits, `_` and `-` are joined by dots, positions in lists are written `[0]`, any other key
`['a.b/c']` with `\\'` for a quote and `\\\\` for a backslash.

kubectl's YAML is that of sigs.k8s.io/yaml (go-yaml v2): yes/no/on/off and even y/n are booleans, 0644 and 0o644 are
420, 1_000 is 1000, dates and 12:30:45 stay strings, `80: x` has the key "80", and numbers go through JSON, so 1e3 is
the integer 1000. Stricter here, because a scanner must not guess: duplicate keys, unknown tags and documents beyond the
limits below are errors. A mapping's own key wins over `<<`, wherever that stands.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import math
import operator
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import yaml
from yaml._yaml import CParser
from yaml.nodes import MappingNode, ScalarNode

MAX_DEPTH = 100  # levels of nesting, aliases expanded
MAX_NODES = 200_000  # keys and values of one YAML document, aliases expanded; the largest CRDs have about 20,000
MAX_MESSAGE = 200  # characters
MAX_DIGITS = 400  # of one number: Python refuses to print longer ones

Steps = list[str | int]


class Document(msgspec.Struct):
    """One document that could be read. `value` may be dropped (`document.value = None`), `line_of` does not need it."""

    value: Any
    index: int  # 1-based number in the file, broken documents counted, empty ones not
    line: int  # 1-based line that its content starts on
    _first: int  # line of the file that the lines in `_places` count from
    _places: list[Any] | bytes  # YAML: table of lines (see _Builder); JSON: the text itself

    def line_of(self, path: str) -> int:
        """1-based line of what stands at `path`, or else of its nearest ancestor that exists."""
        if isinstance(self._places, bytes):
            return self.line + _json_lines_before(self._places, _steps(path))
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
    _start: int
    _lines: _Lines

    @property
    def line(self) -> int:
        """1-based line that the object starts on."""
        return self._lines.at(self._start)

    def line_of(self, path: str) -> int:
        """1-based line of what stands at `path` in this object, or else of its nearest ancestor that exists."""
        return self.line + _json_lines_before(bytes(self.raw), _steps(path))


class JsonList(msgspec.Struct):
    kind: str  # "List", "PodList" …
    api_version: str | None
    items: Iterator[JsonItem]


def read(data: bytes) -> Iterator[Document | DocumentError]:
    """Documents of a file in their order. Each is parsed alone: a broken one costs only itself. Never raises."""
    try:
        text = _utf8(data)
    except UnicodeDecodeError:
        yield DocumentError(1, 1, "line 1: the text starts like UTF-16 but is not")
        return
    index = 0
    for chunk, line in _chunks(text):
        for found in _read_chunk(chunk, line, index + 1):
            yield found
            index += 1


def read_json(data: bytes) -> JsonList | None:
    """A JSON text that is one object with a kind `…List` and a list of items, else None (then `read` says what it is).

    Meant for dumps of hundreds of megabytes: the items are not decoded, and share the memory of `data`.
    """
    try:
        text = _utf8(data)
        if not _JSON_OBJECT.match(text):
            return None
        found = msgspec.json.decode(text, type=_ListShape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if found.items is msgspec.UNSET or not found.kind.endswith("List"):
        return None
    return JsonList(found.kind, found.api_version, _json_items(text, found.items or []))


# -- splitting


# A line `---` starts a document, and `...` ends one. Where text follows on the line (`--- {a: 1}`) kubectl does not
# split, reads the first document and drops the others in silence; we read them all.
_BOUNDARY = re.compile(rb"\n(?:---(?=[ \t\r\n]|\Z)|\.\.\.[ \t\r]*(?:#[^\n]*)?(?=\n|\Z))")
_PROLOGUE = re.compile(rb"(?:[ \t\r]*(?:[#%][^\n]*)?\n)*")  # comments and directives belong to the `---` that follows
_BYTE_ORDER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def _utf8(data: bytes) -> bytes:
    if data.startswith(_BYTE_ORDER_MARKS):
        return data.decode("utf-16").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def _chunks(text: bytes) -> Iterator[tuple[bytes, int]]:
    """Texts of one document each, with the line that they start on."""
    start, line = 0, 1
    for boundary in _BOUNDARY.finditer(text):
        dashes = text.startswith(b"-", boundary.start() + 1)
        end = boundary.start() + 1 if dashes else boundary.end()
        if dashes and _PROLOGUE.fullmatch(text, start, end):
            continue
        yield text[start:end], line
        line += text.count(b"\n", start, end)
        start = end
    yield text[start:], line


def _read_chunk(chunk: bytes, line: int, index: int) -> Iterator[Document | DocumentError]:
    """JSON values as long as they follow one another, the rest as YAML."""
    start = 0
    while (opening := _JSON_CHUNK.match(chunk, start)) is not None:
        line += chunk.count(b"\n", start, opening.end() - 1)
        start = opening.end() - 1
        json = _json_value(memoryview(chunk)[start:])
        if json is None:
            break
        value, size = json
        yield _json_document(value, chunk[start : start + size], line, index)
        index += 1
        line += chunk.count(b"\n", start, start + size)
        start += size
    if start < len(chunk):
        yield from _read_yaml(chunk[start:], line, index)


# -- YAML


class _Refused(Exception):
    """Something kubectl or we do not take. Line 0 is the chunk's first; None: not known yet."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


class _Parser(CParser):
    """libyaml's composer without PyYAML's resolver. The tag of a node, where none is written, becomes True (plain
    scalar), False (quoted scalar) or None (mapping, sequence). Only for text that `_is_shallow`."""

    # Called around each node, with two arguments and with none: the cheapest callables that take them and do nothing.
    descend_resolver: Any = operator.is_
    ascend_resolver: Any = [].clear

    def resolve(self, _kind: type, value: str | None, implicit: Any) -> bool | None:
        return implicit[0] if value is not None else None


class _CountingParser(_Parser):
    """Stops at the limits before the composer, which recurses in C, can overflow the stack and crash the process."""

    depth = 0
    nodes = 0

    def descend_resolver(self, parent: Any, _index: Any) -> None:
        self.depth += 1
        self.nodes += 1
        if self.depth > MAX_DEPTH + 1:  # scalars are visited too, but are no level
            raise _Refused(_TOO_DEEP, parent.start_mark.line)
        if self.nodes > MAX_NODES:
            raise _Refused(_TOO_LARGE, parent.start_mark.line)

    def ascend_resolver(self) -> None:
        self.depth -= 1


_TOO_DEEP = f"more than {MAX_DEPTH} levels of nesting, or an alias inside itself"
_TOO_LARGE = f"more than {MAX_NODES:,} values in one document, aliases expanded; lists saved as JSON have no such limit"
_COLUMNS = 36
_BRACKETS = MAX_DEPTH - 2 * _COLUMNS - 4
_UNICODE_LINE_ENDS = ("\x85".encode(), "\u2028".encode(), "\u2029".encode())
_INDENTED = re.compile(rb"\n[ \t?:-]{%d}" % _COLUMNS)


def _is_shallow(chunk: bytes) -> bool:
    """Whether the text alone shows that it stays within the limits, which saves two Python calls per node.

    A block collection starts in a column that only spaces and the signs - ? : can lead to, each column can hold two
    of them (a mapping and a list that is not indented), and flow collections need a bracket each. A byte makes two
    nodes at most. Only line feeds end a line here; text with one of YAML's other line ends is not vouched for.
    """
    return (
        len(chunk) * 2 < MAX_NODES
        and chunk.count(b"\r") == chunk.count(b"\r\n")
        and (chunk.isascii() or not any(end in chunk for end in _UNICODE_LINE_ENDS))
        and chunk.count(b"{") + chunk.count(b"[") <= _BRACKETS
        and _INDENTED.search(b"\n" + chunk) is None
    )


def _read_yaml(chunk: bytes, line: int, index: int) -> Iterator[Document | DocumentError]:
    parser = (_Parser if _is_shallow(chunk) else _CountingParser)(chunk)
    try:
        while parser.check_node():  # one document, but for old Mac line ends, which only the parser understands
            root: Any = parser.get_node()
            if root.tag is True and root.value == "":
                continue  # only comments
            builder = _Builder()
            value = builder.root(root)
            yield Document(value, index, line + root.start_mark.line, line, builder.table)
            index += 1
    except (yaml.YAMLError, _Refused, UnicodeDecodeError) as error:
        problem, at = _json_problem(chunk) or _explain(error, chunk)
        yield _error(index, line + at, problem, chunk)


def _explain(error: Exception, chunk: bytes) -> tuple[str, int]:
    """What is wrong, and on which line of the chunk, the first being 0."""
    if isinstance(error, yaml.reader.ReaderError):
        return str(error.reason), chunk.count(b"\n", 0, error.position)
    if isinstance(error, yaml.MarkedYAMLError):
        # What the scanner could not finish is best sought where it starts: a quote, a key without a colon.
        scanned = error.context_mark if isinstance(error, yaml.scanner.ScannerError) else None
        mark = scanned or error.problem_mark
        problem = " ".join(filter(None, (error.problem, error.context and f"({error.context})")))
        return problem or "not YAML", mark.line if mark else 0
    if isinstance(error, _Refused):
        return str(error), error.line or 0
    return "not UTF-8", 0


def _error(index: int, line: int, problem: str, chunk: bytes) -> DocumentError:
    if b"{{" in chunk:
        problem = f"looks like a Helm template, which has to be rendered first (helm template): {problem}"
    printable = "".join(c if c.isprintable() else " " for c in f"line {line}: {problem}"[: MAX_MESSAGE + 1])
    return DocumentError(
        index, line, printable if len(printable) <= MAX_MESSAGE else printable[: MAX_MESSAGE - 1] + "…"
    )


class _Builder:
    """Node tree -> value and table of lines.

    The table holds three values for each key and each item, in the order of the text: the key or position, its line,
    and where in the table the entries inside it end (0: a scalar). A look-up steps over what it does not want.
    """

    __slots__ = ("left", "table")

    def __init__(self) -> None:
        self.table: list[Any] = []
        self.left = MAX_NODES

    def root(self, node: Any) -> Any:
        if node.tag is True:
            return _at_line(node, _PLAIN.__getitem__, node.value)
        return node.value if node.tag is False else self._nested(node, 1)

    def _nested(self, node: Any, depth: int) -> Any:
        """A mapping, a sequence, or a scalar with a tag."""
        if node.tag is not None:
            if type(node) is ScalarNode:
                return _at_line(node, _tagged, node)
            _check_collection_tag(node)
        size = len(node.value)
        if type(node) is not MappingNode:
            self._spend(size, node, depth)
            return self._sequence(node.value, depth)
        self._spend(2 * size, node, depth)
        start = len(self.table)
        out = self._mapping(node.value, depth)
        if len(out) != size or "<<" in out:
            del self.table[start:]
            out = self._mapping(self._merged(node, depth).values(), depth)
        return out

    def _mapping(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        table = self.table
        for key, value in pairs:
            try:
                name = _KEYS[key.value] if key.tag is True else _key(key)
                table += (name, key.start_mark.line, 0)
                tag = value.tag
                if tag is True:
                    out[name] = _PLAIN[value.value]
                elif tag is False:
                    out[name] = value.value
                else:
                    end = len(table) - 1
                    out[name] = self._nested(value, depth + 1)
                    table[end] = len(table)
            except _Refused as refused:
                raise _located(refused, key) from None
        return out

    def _sequence(self, nodes: list[Any], depth: int) -> list[Any]:
        out: list[Any] = []
        table = self.table
        for position, node in enumerate(nodes):
            try:
                table += (position, node.start_mark.line, 0)
                tag = node.tag
                if tag is True:
                    out.append(_PLAIN[node.value])
                elif tag is False:
                    out.append(node.value)
                else:
                    end = len(table) - 1
                    out.append(self._nested(node, depth + 1))
                    table[end] = len(table)
            except _Refused as refused:
                raise _located(refused, node) from None
        return out

    def _spend(self, nodes: int, parent: Any, depth: int) -> None:
        self.left -= nodes
        if depth > MAX_DEPTH:
            raise _Refused(_TOO_DEEP, parent.start_mark.line)
        if self.left < 0:
            raise _Refused(_TOO_LARGE, parent.start_mark.line)

    def _merged(self, node: Any, depth: int) -> dict[str, tuple[Any, Any]]:
        """A mapping's own keys and values, then what `<<` adds. Own keys win, then the last `<<`, first in its list."""
        pairs: dict[str, tuple[Any, Any]] = {}
        merges = []
        for key, value in node.value:
            if _is_merge(key):
                merges.append(value)
                continue
            name = _key(key)
            if name in pairs:
                raise _Refused(f"duplicate key '{name}'", key.start_mark.line)
            pairs[name] = (key, value)
        for merge in reversed(merges):
            for source in merge.value if isinstance(merge, yaml.SequenceNode) else (merge,):
                for name, pair in self._merged_source(source, depth + 1).items():
                    pairs.setdefault(name, pair)
        return pairs

    def _merged_source(self, node: Any, depth: int) -> dict[str, tuple[Any, Any]]:
        if type(node) is not MappingNode:
            raise _Refused("'<<' takes a mapping or a list of mappings", node.start_mark.line)
        self._spend(2 * len(node.value), node, depth)
        return self._merged(node, depth)


def _located(refused: _Refused, node: Any) -> _Refused:
    if refused.line is None:
        refused.line = node.start_mark.line
    return refused


def _at_line(node: Any, make: Any, argument: Any) -> Any:
    try:
        return make(argument)
    except _Refused as refused:
        raise _located(refused, node) from None


def _is_merge(key: Any) -> bool:
    return key.value == "<<" and (key.tag is True or key.tag == f"{_TAG}merge")


# -- scalars


_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}
_NOT_JSON = frozenset(sign + word for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")) | {
    ".nan",
    ".NaN",
    ".NAN",
}
_NUMERIC = frozenset("+-.0123456789")
_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|(0[0-7]*)|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TAG = "tag:yaml.org,2002:"
_CACHED, _CACHED_LENGTH = 8192, 64


class _Plain(dict[str, Any]):
    """Plain scalar -> value. A cache, because manifests repeat themselves; equal strings are kept once."""

    def __missing__(self, text: str) -> Any:
        value = _WORDS[text] if text in _WORDS else _number(text) if text[0] in _NUMERIC else text
        _remember(self, text, value)
        return value


class _Keys(dict[str, str]):
    """Plain scalar -> key, also a cache."""

    def __missing__(self, text: str) -> str:
        name = _key_text(_PLAIN[text])
        _remember(self, text, name)
        return name


_PLAIN = _Plain()
_KEYS = _Keys()


def _remember(cache: dict[str, Any], text: str, value: Any) -> None:
    if len(text) <= _CACHED_LENGTH:
        if len(cache) >= _CACHED:
            cache.clear()
        cache[text] = value


def _number(text: str) -> str | int | float:
    if text in _NOT_JSON:
        raise _Refused(f"'{text}' is no number that JSON can carry")
    plain = text if text[0] == "." else text.replace("_", "")
    integer = _INTEGER.fullmatch(plain)
    if integer is None and not _FLOAT.fullmatch(plain):
        return text
    if len(plain) > MAX_DIGITS:
        raise _Refused(f"a number of {len(plain)} digits")
    if integer is not None:
        return int(plain, 8 if integer[1] else 0)
    value = float(plain)
    if math.isinf(value):
        return text
    # Go writes a float without a fraction into JSON as an integer, so the API server takes `replicas: 1e1`.
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def _key(node: Any) -> str:
    if not isinstance(node.value, str):
        raise _Refused("a key is a mapping or a list", node.start_mark.line)
    if node.tag is True:
        return _KEYS[node.value]
    return _key_text(node.value if node.tag is False else _tagged(node))


def _key_text(value: str | bool | int | float | None) -> str:
    if value is None:
        raise _Refused("a key is null")
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if float(short) == value else repr(value)


def _tagged(node: Any) -> Any:
    """Value of a scalar with a written tag."""
    text = node.value
    value = text if node.tag in (f"{_TAG}str", f"{_TAG}binary") else _PLAIN[text]
    match node.tag.removeprefix(_TAG), value:
        case ("str", _) | ("null", None) | ("bool", bool()):
            return value
        case ("int", int()) | ("float", int() | float()) if not isinstance(value, bool):
            return value
        case ("merge", "<<"):
            return value
        case ("timestamp", str()) if re.match(r"[0-9]{4}-", text):
            return value
        case ("binary", _):
            return _binary(text)
    raise _Refused(f"'{text[:40]}' cannot be read with the tag {node.tag.replace(_TAG, '!!')}", node.start_mark.line)


def _binary(text: str) -> str:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode(errors="replace")
    except (binascii.Error, ValueError):
        raise _Refused("!!binary without valid base64") from None


def _check_collection_tag(node: Any) -> None:
    allowed = ("map", "set") if type(node) is MappingNode else ("seq", "omap", "pairs")
    if node.tag not in [_TAG + name for name in allowed]:
        kind = "mapping" if type(node) is MappingNode else "list"
        raise _Refused(f"a {kind} with the unknown tag {node.tag.replace(_TAG, '!!')}", node.start_mark.line)


# -- JSON


_JSON_CHUNK = re.compile(rb"(?:---[ \t]*(?:#[^\n]*)?\r?\n)?[ \t\r\n]*[{\[]")
_JSON_OBJECT = re.compile(rb"[ \t\r\n]*\{")
_JSON_LOOKS = re.compile(rb'\{[ \t\r\n]*["}]|\[[ \t\r\n]*["\[{]')  # and not a Helm template or a YAML flow mapping
_JSON_BYTE = re.compile(r" \(byte ([0-9]+)\)$")
_JSON_KEY = re.compile(rb'[ \t\r\n,{]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:[ \t\r\n]*')
_JSON_BETWEEN = re.compile(rb"[ \t\r\n,]*()")
_JSON_ITEMS = re.compile(rb'"items"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*')


class _ListShape(msgspec.Struct):
    kind: str
    api_version: str | None = msgspec.field(default=None, name="apiVersion")
    items: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


class _Lines:
    """Position -> line, counted from the last position asked for: items are mostly asked for in their order."""

    __slots__ = ("_line", "_position", "_text")

    def __init__(self, text: bytes) -> None:
        self._text, self._position, self._line = text, 0, 1

    def at(self, position: int) -> int:
        if position >= self._position:
            self._line += self._text.count(b"\n", self._position, position)
        else:
            self._line -= self._text.count(b"\n", position, self._position)
        self._position = position
        return self._line


def _json_value(text: memoryview) -> tuple[Any, int] | None:
    """The JSON value that the text starts with, and its length. None: to be read as YAML, as kubectl does."""
    try:
        try:
            return msgspec.json.decode(text), len(text)
        except msgspec.DecodeError as error:
            end = _json_end(text, str(error))
            return None if end is None else (msgspec.json.decode(text[:end]), end)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _json_end(text: memoryview, problem: str) -> int | None:
    """Where the first value ends, if another one follows: msgspec tells it, one byte too far in some versions."""
    byte = _JSON_BYTE.search(problem)
    if byte is None or "trailing characters" not in problem:
        return None
    at = int(byte[1])
    return next((end for end in (at - 1, at) if bytes(text[end : end + 1]) in (b"{", b"[")), None)


def _json_document(value: Any, text: bytes, line: int, index: int) -> Document | DocumentError:
    if _json_is_deep(text, value):
        return _error(index, line, _TOO_DEEP, b"")
    return Document(value, index, line, line, text)


def _json_is_deep(text: bytes, value: Any) -> bool:
    if text.count(b"{") + text.count(b"[") <= MAX_DEPTH:
        return False
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in level if isinstance(inner, (dict, list))]
    return bool(level)


def _json_problem(text: bytes) -> tuple[str, int] | None:
    """What is wrong with a text that looks like JSON, and on which of its lines, the first being 0."""
    try:
        if _JSON_LOOKS.match(text):
            msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        byte = _JSON_BYTE.search(str(error))
        return _JSON_BYTE.sub("", str(error)), text.count(b"\n", 0, int(byte[1]) if byte else len(text.rstrip()))
    except (UnicodeDecodeError, RecursionError):
        pass
    return None


def _json_items(text: bytes, raws: list[msgspec.Raw]) -> Iterator[JsonItem]:
    lines = _Lines(text)
    end = _json_items_start(text, raws)
    for index, raw in enumerate(raws, 1):
        between = _JSON_BETWEEN.match(text, end)
        start = between.end() if between else end
        end = start + memoryview(raw).nbytes
        yield JsonItem(raw, index, start, lines)


def _json_items_start(text: bytes, raws: list[msgspec.Raw]) -> int:
    """Position behind the bracket that opens the items: msgspec does not tell where it found them."""
    first = bytes(raws[0]) if raws else b""
    return next((m.end() for m in _JSON_ITEMS.finditer(text) if text.startswith(first, m.end())), 0)


def _json_lines_before(text: bytes, steps: Steps) -> int:
    """Line ends in front of what stands at the path, or of its nearest ancestor that exists."""
    place, start, inner = 0, 0, text
    for step in steps:
        found = _json_member(inner, step)
        if found is None:
            break
        at_key, at_value, inner = found
        place, start = start + at_key, start + at_value
    return text.count(b"\n", 0, place)


def _json_member(text: bytes, step: str | int) -> tuple[int, int, bytes] | None:
    """Position of a key or item, of its value, and the value's text. Decodes one level, the members only raw."""
    members: Iterable[tuple[str | int, msgspec.Raw]]
    try:
        if isinstance(step, str):
            members = msgspec.json.decode(text, type=dict[str, msgspec.Raw]).items()
        else:
            members = enumerate(msgspec.json.decode(text, type=list[msgspec.Raw]))
    except msgspec.DecodeError:
        return None
    pattern = _JSON_KEY if isinstance(step, str) else _JSON_BETWEEN
    end = 1
    for name, raw in members:
        place = pattern.match(text, end)
        if place is None or not text.startswith(bytes(raw), place.end()):
            return None  # a key that occurs twice
        if name == step:
            return place.start(1), place.end(), bytes(raw)
        end = place.end() + memoryview(raw).nbytes
    return None


# -- looking lines up


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
