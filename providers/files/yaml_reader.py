"""One YAML document -> its value and the line of every field, within limits that text from anywhere cannot pass."""

from __future__ import annotations

import base64
import math
import operator
import re
from collections.abc import Iterable, Iterator
from typing import Any, Self

import yaml
from yaml._yaml import CParser
from yaml.nodes import MappingNode, ScalarNode

from providers.files import json_reader
from providers.files.document import Document, DocumentError, document_error

MAX_DEPTH = 100  # levels of nesting, aliases expanded
MAX_NODES = 200_000  # keys and values of one YAML document, aliases expanded; the largest CRDs have about 20,000
MAX_DIGITS = 400  # of one number: Python refuses to print longer ones
TOO_DEEP = f"more than {MAX_DEPTH} levels of nesting, or an alias inside itself"
_TOO_LARGE = f"more than {MAX_NODES:,} values in one document, aliases expanded; lists saved as JSON have no such limit"


class _Refused(Exception):
    """Something kubectl or we do not take. Line 0 is the chunk's first; None: not known yet, a caller has the node."""

    def __init__(self, problem: str, node: Any = None) -> None:
        super().__init__(problem)
        self.line = None if node is None else node.start_mark.line

    def at(self, node: Any) -> Self:
        if self.line is None:
            self.line = node.start_mark.line
        return self


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
            raise _Refused(TOO_DEEP, parent)
        if self.nodes > MAX_NODES:
            raise _Refused(_TOO_LARGE, parent)

    def ascend_resolver(self) -> None:
        self.depth -= 1


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


def read_yaml(chunk: bytes, line: int, index: int) -> Iterator[Document | DocumentError]:
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
        problem, at = json_reader.problem_of(chunk) or _explain(error, chunk)
        yield document_error(index, line + at, problem, chunk)


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
            return _plain(node)
        return node.value if node.tag is False else self._nested(node, 1)

    def _nested(self, node: Any, depth: int) -> Any:
        """A mapping, a sequence, or a scalar with a tag."""
        if node.tag is not None:
            if type(node) is ScalarNode:
                return _tagged(node)
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
                raise refused.at(key) from None
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
                raise refused.at(node) from None
        return out

    def _spend(self, nodes: int, parent: Any, depth: int) -> None:
        self.left -= nodes
        if depth > MAX_DEPTH:
            raise _Refused(TOO_DEEP, parent)
        if self.left < 0:
            raise _Refused(_TOO_LARGE, parent)

    def _merged(self, node: Any, depth: int) -> dict[str, tuple[Any, Any]]:
        """A mapping's own keys and values, then what `<<` adds. Own keys win, then the last `<<`, first in its list.

        kubectl's YAML library lets a `<<` win over own keys before it, others do not: what both set is refused.
        """
        pairs: dict[str, tuple[Any, Any]] = {}
        merges = []
        before: dict[str, Any] = {}  # own keys that some `<<` follows
        for key, value in node.value:
            if _is_merge(key):
                merges.append(value)
                before = dict(pairs)
                continue
            name = _key(key)
            if name in pairs:
                raise _Refused(f"duplicate key '{name}'", key)
            pairs[name] = (key, value)
        for merge in reversed(merges):
            for source in merge.value if isinstance(merge, yaml.SequenceNode) else (merge,):
                for name, pair in self._merged_source(source, depth + 1).items():
                    if name in before:
                        raise _Refused(f"key '{name}' stands before a << that sets it too", pairs[name][0])
                    pairs.setdefault(name, pair)
        return pairs

    def _merged_source(self, node: Any, depth: int) -> dict[str, tuple[Any, Any]]:
        if type(node) is not MappingNode:
            raise _Refused("'<<' takes a mapping or a list of mappings", node)
        self._spend(2 * len(node.value), node, depth)
        return self._merged(node, depth)


def _is_merge(key: Any) -> bool:
    return key.value == "<<" and (key.tag is True or key.tag == f"{_TAG}merge")


# -- scalars


_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}
_NOT_JSON = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
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
    if _NOT_JSON.fullmatch(text):
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


def _plain(node: Any) -> Any:
    try:
        return _PLAIN[node.value]
    except _Refused as refused:
        raise refused.at(node) from None


def _key(node: Any) -> str:
    if not isinstance(node.value, str):
        raise _Refused("a key is a mapping or a list", node)
    if node.tag is True:
        return _KEYS[node.value]
    return _key_text(node.value if node.tag is False else _tagged(node))


def _key_text(value: str | bool | int | float | None) -> str:
    if value is None:
        raise _Refused("a key is null")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _tagged(node: Any) -> Any:
    """Value of a scalar with a written tag."""
    text = node.value
    value = text if node.tag in (f"{_TAG}str", f"{_TAG}binary") else _plain(node)
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
            return _binary(node)
    raise _Refused(f"a value cannot be read with its tag {node.tag.replace(_TAG, '!!')[:40]}", node)


def _binary(node: Any) -> str:
    try:
        return base64.b64decode("".join(node.value.split()), validate=True).decode(errors="replace")
    except ValueError:
        raise _Refused("!!binary without valid base64", node) from None


def _check_collection_tag(node: Any) -> None:
    kind, allowed = ("mapping", ("map", "set")) if type(node) is MappingNode else ("list", ("seq", "omap", "pairs"))
    if node.tag not in [_TAG + name for name in allowed]:
        raise _Refused(f"a {kind} with the unknown tag {node.tag.replace(_TAG, '!!')}", node)
