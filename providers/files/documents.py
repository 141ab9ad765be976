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

import codecs
import re
from collections.abc import Iterator

from providers.files import json_reader
from providers.files.document import Document, DocumentError, JsonItem, JsonList, document_error
from providers.files.yaml_reader import MAX_DEPTH, TOO_DEEP, read_yaml

# A line `---` starts a document, and `...` ends one. Where text follows on the line (`--- {a: 1}`) kubectl does not
# split, reads the first document and drops the others in silence; we read them all.
_BOUNDARY = re.compile(rb"\n(?:---(?=[ \t\r\n]|\Z)|\.\.\.[ \t\r]*(?:#[^\n]*)?(?=\n|\Z))")
_PROLOGUE = re.compile(rb"(?:[ \t\r]*(?:[#%][^\n]*)?\n)*")  # comments and directives belong to the `---` that follows
_JSON_CHUNK = re.compile(rb"(?:---[ \t]*(?:#[^\n]*)?\r?\n)?[ \t\r\n]*[{\[]")
_BYTE_ORDER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read(data: bytes) -> Iterator[Document | DocumentError]:
    """Documents of a file in their order. Each is parsed alone: a broken one costs only itself. Never raises."""
    try:
        text = utf8(data)
    except UnicodeDecodeError:
        yield document_error(1, 1, "the text starts like UTF-16 but is not")
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
        text = utf8(data)
    except UnicodeDecodeError:
        return None
    found = json_reader.read_list(text)
    if found is None:
        return None
    items = enumerate(json_reader.items_with_lines(text, found.items or []), 1)
    return JsonList(found.kind, found.api_version, (JsonItem(raw, index, line) for index, (raw, line) in items))


def utf8(data: bytes) -> bytes:
    """The text without its byte order mark; raises UnicodeDecodeError where it starts like UTF-16 but is not."""
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
        found = json_reader.first_value(memoryview(chunk)[start:])
        if found is None:
            break
        value, size = found
        text = chunk[start : start + size]
        if json_reader.is_deeper(value, text, MAX_DEPTH):
            yield document_error(index, line, TOO_DEEP)
        else:
            yield Document(value, index, line, line, text)
        index += 1
        line += text.count(b"\n")
        start += size
    if start < len(chunk):
        yield from read_yaml(chunk[start:], line, index)
