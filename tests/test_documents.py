"""Reading manifest files: kubectl's YAML, limits, lines, and what broken input costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from manifest_data import manifests

from providers.files import yaml_reader
from providers.files.document import MAX_MESSAGE, Document, DocumentError
from providers.files.documents import read, read_json
from providers.files.yaml_reader import MAX_DEPTH


def value_of(text: str | bytes) -> Any:
    [found] = read(text.encode() if isinstance(text, str) else text)
    assert isinstance(found, Document), found
    return found.value


def error_of(text: str | bytes) -> str:
    [found] = read(text.encode() if isinstance(text, str) else text)
    assert isinstance(found, DocumentError), found
    assert found.message.startswith(f"line {found.line}: ")
    assert len(found.message) <= MAX_MESSAGE
    assert found.message.isprintable()
    return found.message


# -- what kubectl reads


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, True) for word in ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")],
        *[(word, False) for word in ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")],
        *[(word, word) for word in ("yES", "oN", "tRUE", "nO", "nULL", "None", "=", "<<", "<", "+", ".", "..", "-x")],
        *[(word, None) for word in ("", "~", "null", "Null", "NULL")],
        ("0", 0),
        ("-0", 0),
        ("00", 0),
        ("12", 12),
        ("+12", 12),
        ("-12", -12),
        ("0644", 420),
        ("-0644", -420),
        ("0o644", 420),
        ("0O644", 420),
        ("0x1F", 31),
        ("0X1f", 31),
        ("-0x1f", -31),
        ("0b101", 5),
        ("-0b101", -5),
        ("1_000", 1000),
        ("0x_0A_74_AE", 685230),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("089", 89),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e-1", 0.1),
        ("1.5", 1.5),
        ("1.0", 1),
        ("1.", 1),
        (".5", 0.5),
        ("-.5", -0.5),
        ("6.8523e+5", 685230),
        ("685_230.15", 685230.15),
        ("1e30", 1e30),
        ("1e400", "1e400"),
        ("_1", "_1"),
        ("1.2.3", "1.2.3"),
        ("10.0.0.1", "10.0.0.1"),
        ("100m", "100m"),
        ("0x", "0x"),
        ("0xg", "0xg"),
        ("1e", "1e"),
        ("--port", "--port"),
        ("-b_c", "-b_c"),
        ("50cent_of_dollar", "50cent_of_dollar"),
        ("12:30:45", "12:30:45"),
        ("190:20:30.15", "190:20:30.15"),
        ("2024-01-01", "2024-01-01"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("inf", "inf"),
        ("nan", "nan"),
        ("text", "text"),
        ("한국", "한국"),
        ("'yes'", "yes"),
        ('"0644"', "0644"),
        ('""', ""),
        ("'~'", "~"),
        ('"\\u0041\\n"', "A\n"),
        ("|\n  yes\n", "yes\n"),
        (">-\n  12\n", "12"),
        ("!!str yes", "yes"),
        ("!!str 12", "12"),
        ("!!str ''", ""),
        ('!!int "5"', 5),
        ("!!int '0x10'", 16),
        ("!!float 5", 5),
        ("!!float '1.5'", 1.5),
        ("!!bool 'no'", False),
        ("!!null ''", None),
        ("!!timestamp '2015-01-01'", "2015-01-01"),
        ("!!binary aGVsbG8=", "hello"),
        ("!!binary |\n  aGVs\n  bG8=\n", "hello"),
        ("!!binary gA==", "�"),
        ("! test", "test"),
        ("! 5", 5),
        ("!!map {a: 1}", {"a": 1}),
        ("!!seq [a]", ["a"]),
        ("!!set {a, b}", {"a": None, "b": None}),
        ("!!omap [a: 1]", [{"a": 1}]),
        ("!!str", ""),
        ("! {a: 1}", {"a": 1}),
        ("&x text", "text"),
    ],
)
def test_values(text: str, value: Any) -> None:
    for found in (value_of(f"a: {text}")["a"], value_of(f"- {text}")[0]):
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize("text", ["yes", "0644", "'yes'", "text", "!!str 5", "[a]", "{a: 1}", "|\n text\n"])
def test_document_may_be_of_any_type(text: str) -> None:
    assert value_of(f"--- {text}") == value_of(f"a: {text}")["a"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80: x", {"80": "x"}),
        ("0x10: x", {"16": "x"}),
        ("true: x", {"true": "x"}),
        ("no: x", {"false": "x"}),
        ("on: x", {"true": "x"}),
        ("y: x", {"true": "x"}),
        ("'y': x", {"y": "x"}),
        ("1.5: x", {"1.5": "x"}),
        ("1.23456789: x", {"1.23456789": "x"}),
        ("2024-01-01: x", {"2024-01-01": "x"}),
        ("? a\n: x", {"a": "x"}),
        ("!!str 80: x", {"80": "x"}),
        ("!!int '80': x", {"80": "x"}),
        ("'': x", {"": "x"}),
        ("a.b/c: x", {"a.b/c": "x"}),
        ("a: &k b\n*k : x", {"a": "b", "b": "x"}),
    ],
)
def test_keys_are_strings(text: str, value: Any) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x {p: 1}\nb: *x", {"a": {"p": 1}, "b": {"p": 1}}),
        ("a: &x [1]\nb: [*x, *x]", {"a": [1], "b": [[1], [1]]}),
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"a": {"p": 1, "q": 2}, "b": {"q": 3, "p": 1}}),
        ("a: &x {p: 1, q: 2}\nb: {r: 3, <<: *x}", {"a": {"p": 1, "q": 2}, "b": {"r": 3, "p": 1, "q": 2}}),
        ("b: {<<: {p: 1}, q: 3}", {"b": {"q": 3, "p": 1}}),
        ("b: {<<: [{p: 1}, {p: 2, r: 4}], q: 3}", {"b": {"q": 3, "p": 1, "r": 4}}),
        ("b: {<<: {p: 1}, <<: {p: 2}}", {"b": {"p": 2}}),
        ("a: &x {<<: {p: 1}, q: 2}\nb: {<<: *x}", {"a": {"q": 2, "p": 1}, "b": {"q": 2, "p": 1}}),
        ("b: {<<: []}", {"b": {}}),
        ("b: {'<<': text}", {"b": {"<<": "text"}}),
        ("b: {'<<': text, <<: {p: 1}}", {"b": {"<<": "text", "p": 1}}),
        ("b: {!!merge <<: {p: {q: 1}}}", {"b": {"p": {"q": 1}}}),
    ],
)
def test_aliases_and_merge_keys(text: str, value: Any) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: duplicate key 'a'"),
        ("x:\n  a: 1\n  'a': 2", "line 3: duplicate key 'a'"),
        ("80: 1\n'80': 2", "line 2: duplicate key '80'"),
        ("yes: 1\ntrue: 2", "line 2: duplicate key 'true'"),
        ("<<: {a: 1}\nb: 1\nb: 2", "line 3: duplicate key 'b'"),
        ("a: 1\n? [b]\n: 2", "line 2: a key is a mapping or a list"),
        ("a: 1\n{b: 1}: 2", "line 2: a key is a mapping or a list"),
        ("a: 1\n~: 2", "line 2: a key is null"),
        ("a: 1\n!!null x: 2", "line 2: a value cannot be read with its tag !!null"),
        ("a: 1\nb: {? : 2}", "line 2: a key is null"),
        ("a:\n- .inf", "line 2: '.inf' is no number that JSON can carry"),
        ("a: -.Inf", "line 1: '-.Inf' is no number that JSON can carry"),
        ("--- .nan", "line 1: '.nan' is no number that JSON can carry"),
        ("a: " + "9" * 5000, "line 1: a number of 5000 digits"),
        ("a: 0x" + "f" * 5000, "line 1: a number of 5002 digits"),
        ("a:\n  b: !Ref x", "line 2: a value cannot be read with its tag !Ref"),
        ("a: !Ref {x: 1}", "line 1: a mapping with the unknown tag !Ref"),
        ("a: !Sub [x]", "line 1: a list with the unknown tag !Sub"),
        ("a: !!str [x]", "line 1: a list with the unknown tag !!str"),
        ("a: !!python/object/apply:os.system ['true']", "line 1: a list with the unknown tag !!python/object/apply:os"),
        ("a: !!python/name:os.system ''", "line 1: a value cannot be read with its tag !!python/name:os.system"),
        ("a: !!int x", "line 1: a value cannot be read with its tag !!int"),
        ("a: !!int 1.5", "line 1: a value cannot be read with its tag !!int"),
        ("a: !!int yes", "line 1: a value cannot be read with its tag !!int"),
        ("a: !!bool 1", "line 1: a value cannot be read with its tag !!bool"),
        ("a: !!timestamp x", "line 1: a value cannot be read with its tag !!timestamp"),
        ("a: !!binary '*'", "line 1: !!binary without valid base64"),
        ("a: &x {p: 1}\nb: {p: 2, <<: *x}", "line 2: key 'p' stands before a << that sets it too"),
        ("a: 1\n<<: 5", "line 2: '<<' takes a mapping or a list of mappings"),
        ("a: 1\n<<: [5]", "line 2: '<<' takes a mapping or a list of mappings"),
        ("a: *b", "line 1: found undefined alias"),
        ("a: &a [*a]", "line 1: more than 100 levels of nesting, or an alias inside itself"),
        ("a: &a {b: *a}", "line 1: more than 100 levels of nesting, or an alias inside itself"),
        ("a: &a {<<: *a}", "line 1: more than 100 levels of nesting, or an alias inside itself"),
        ("a: 1\n  b: 2\n", "line 2: mapping values are not allowed in this context"),
        ("a:\n\tb: 1", "line 2: found character that cannot start any token"),
        ("a: 1\nb: [1\nc: 2\n", "line 3: "),
        ("a: 'b", "line 1: found unexpected end of stream (while scanning a quoted scalar)"),
        ("%YAML 2.0\n---\na: 1", "line 1: found incompatible YAML document"),
        (b"a: 1\nb: \xff\n", "line 2: invalid leading UTF-8 octet"),
        (b"a: 1\nb: \x00\n", "line 2: control characters are not allowed"),
        (b"\xff\xfea", "line 1: the text starts like UTF-16 but is not"),
        ("<html>\n<body>\n", ""),
    ],
)
def test_errors(text: str | bytes, message: str) -> None:
    if message:
        assert error_of(text).startswith(message)
    else:
        value_of(text)  # a page of HTML may be a string in YAML: the caller sees that it is no object


def test_error_messages_are_short_and_printable() -> None:
    message = error_of('"' + "x" * 500 + '\\e[31m": 1\n"' + "x" * 500 + '\\e[31m": 2')
    assert len(message) == MAX_MESSAGE
    assert "\x1b" not in error_of('"\\e[31m": 1\n"\\e[31m": 2')


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kind: Pod\nmetadata:\n  name: {{ .Values.name }}\n", 3),
        ("kind: Pod\n{{- if .Values.on }}\nmetadata: {}\n{{- end }}\n", 2),
        ("{{- if .Values.on }}\nkind: Pod\n{{- end }}\n", 1),
        ('kind: Pod\nmetadata:\n  labels:\n    {{- include "labels" . | nindent 4 }}\n', 4),
    ],
)
def test_helm_templates_are_recognized(text: str, line: int) -> None:
    assert error_of(text).startswith(f"line {line}: looks like a Helm template, which has to be rendered first")


def test_quoted_helm_values_are_plain_strings() -> None:
    assert value_of("image: '{{ .Values.image }}'") == {"image": "{{ .Values.image }}"}


# -- splitting


def outline(text: str | bytes) -> list[Any]:
    """(index, line, value) of documents, (index, line) of errors."""
    return [
        (found.index, found.line, found.value) if isinstance(found, Document) else (found.index, found.line)
        for found in read(text.encode() if isinstance(text, str) else text)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n\n", []),
        ("# only a comment\n", []),
        ("---\n---\n# c\n---\n", []),
        ("a: 1", [(1, 1, {"a": 1})]),
        ("# c\n\na: 1", [(1, 3, {"a": 1})]),
        ("---\na: 1\n---\nb: 2\n", [(1, 2, {"a": 1}), (2, 4, {"b": 2})]),
        ("a: 1\n---\n# empty\n---\nb: 2", [(1, 1, {"a": 1}), (2, 5, {"b": 2})]),
        ("a: 1\n---   \nb: 2", [(1, 1, {"a": 1}), (2, 3, {"b": 2})]),
        ("a: 1\n--- # comment\nb: 2", [(1, 1, {"a": 1}), (2, 3, {"b": 2})]),
        ("--- {a: 1}\n--- |\n text\n--- >-\n b\n", [(1, 1, {"a": 1}), (2, 2, "text\n"), (3, 4, "b")]),
        ("---\r\na: 1\r\n---\r\nb: |\r\n  x\r\n  y\r\n", [(1, 2, {"a": 1}), (2, 4, {"b": "x\ny\n"})]),
        ("a: 1\rb: 2\r---\rc: 3\r", [(1, 1, {"a": 1, "b": 2}), (2, 4, {"c": 3})]),
        ("a: 1\n...\n---\nb: 2\n...\n", [(1, 1, {"a": 1}), (2, 4, {"b": 2})]),
        ("a: 1\n... # end\nb: 2\n", [(1, 1, {"a": 1}), (2, 3, {"b": 2})]),
        ("%YAML 1.1\n---\na: 1\n", [(1, 3, {"a": 1})]),
        ("# c\n%YAML 1.2\n\n---\na: 1\n...\n%YAML 1.1\n---\nb: 2", [(1, 5, {"a": 1}), (2, 9, {"b": 2})]),
        ("%TAG !y! tag:yaml.org,2002:\n---\na: !y!int '1'", [(1, 3, {"a": 1})]),
        ("a: |\n  x\n  ---\n  y\nb: 1", [(1, 1, {"a": "x\n---\ny\n", "b": 1})]),
        ("a: |\n  x\n---\nb: 1", [(1, 1, {"a": "x\n"}), (2, 4, {"b": 1})]),
        ("a: x\n---b: 1", [(1, 1, {"a": "x", "---b": 1})]),
        ("a: 1\n----\nb: 2", [(1, 2)]),
        ("null\n---\n~\n--- ''", [(1, 1, None), (2, 3, None), (3, 4, "")]),
        (b"\xef\xbb\xbfa: 1\n---\nb: 2", [(1, 1, {"a": 1}), (2, 3, {"b": 2})]),
        ("a: é\n---\nb: 2".encode("utf-16"), [(1, 1, {"a": "é"}), (2, 3, {"b": 2})]),
        (b"\xfe\xff" + "a: é".encode("utf-16-be"), [(1, 1, {"a": "é"})]),
    ],
)
def test_splitting(text: str | bytes, expected: list[Any]) -> None:
    assert outline(text) == expected


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_broken_document_costs_only_itself(end: str) -> None:
    parts = [f"# head\nkind: Pod\nmetadata:\n  name: n{i}\n" for i in range(1, 11)]
    parts[2] = "# head\nkind: Pod\nmetadata: [\n  name: n3\n"
    found = list(read("---\n".join(parts).replace("\n", end).encode()))
    assert [f.index for f in found] == list(range(1, 11))
    errors = [f for f in found if isinstance(f, DocumentError)]
    assert [(e.index, 11 <= e.line <= 16) for e in errors] == [(3, True)]
    for one in found:
        if isinstance(one, Document):
            assert one.value["metadata"]["name"] == f"n{one.index}"
            assert one.line == 5 * (one.index - 1) + 2
            assert one.line_of("metadata.name") == 5 * (one.index - 1) + 4


# -- limits


def nested_by_indentation(levels: int) -> str:
    return "".join(" " * i + "a:\n" for i in range(levels))


def nested_without_indentation(levels: int) -> str:
    """A list under a key needs no indentation: two levels per column."""
    return "a:\n" + "".join(" " * i + ("- a:\n" if i % 2 == 0 else "") for i in range(levels))


NESTINGS = {
    "flow lists": lambda n: "[" * n + "]" * n,
    "flow mappings": lambda n: "{a: " * n + "}" * n,
    "compact lists": lambda n: "- " * n + "x",
    "compact keys": lambda n: "? " * n + "x",
    "mappings": nested_by_indentation,
    "lists under keys": nested_without_indentation,
    "JSON lists": lambda n: "[" * n + "1" + "]" * n,
    "JSON objects": lambda n: '{"a":' * n + "1" + "}" * n,
}


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@pytest.mark.parametrize("nesting", NESTINGS.values(), ids=NESTINGS)
def test_depth_is_limited_the_same_by_both_parsers(nesting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for levels in (*range(1, 60), *range(90, 110), 150):
        text = nesting(levels).encode()
        [quick] = read(text)
        with monkeypatch.context() as patch:
            patch.setattr(yaml_reader, "_is_shallow", lambda _chunk: False)
            [counted] = read(text)
        assert type(quick) is type(counted), levels
        assert quick.line == counted.line
        if isinstance(quick, Document):
            assert depth(quick.value) <= MAX_DEPTH
        elif "a key is" not in quick.message:
            assert "levels of nesting" in quick.message
            assert levels > MAX_DEPTH // 2 - 1


@settings(deadline=None)
@given(st.text(st.sampled_from("-?: \n\r\x85\u2028[]{},a&*!|'#"), max_size=120))
def test_shallow_text_is_shallow(text: str) -> None:
    """Text that skips the counting parser never needs it."""
    chunk = text.encode()
    parser = yaml_reader._CountingParser(chunk)
    try:
        while parser.check_node():
            parser.get_node()
    except (yaml.YAMLError, yaml_reader._Refused):
        pass
    if yaml_reader._is_shallow(chunk):
        assert parser.depth <= MAX_DEPTH
        assert parser.nodes <= 2 * len(chunk) + 2


CRASHERS = """
import resource, sys
from providers.files.document import Document
from providers.files.documents import read, read_json
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux hands that of the process that started it down
n = 50_000
texts = [b"[" * n, b"{" * n, b"- " * n, b"? " * n, b"a: [" * n, b'{"a":' * n, b"[" * n + b"]" * n, b"&a [" * n,
         b"- " * n + b"x", b"!!seq [" * n, b"\\n".join(b" " * i + b"a:" for i in range(4_000)),
         b"\\r".join(b" " * i + b"-" for i in range(2_000)),
         b"\\xe2\\x80\\xa8".join(b" " * i + b"-" for i in range(500)),
         b"--- " + b"[" * n, b'{"kind": "List", "items": ' + b"[" * n]
for text in texts:
    for found in read(text):
        assert not isinstance(found, Document), (text[:20], found.line)
    assert read_json(text) is None
levels = "abcdefghijklmnopqrstuvwxyz"
bomb = "a: &a [x, x, x, x, x, x, x, x, x]\\n"
bomb += "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\\n" for a, b in zip(levels, levels[1:]))
merges = "a: &a {x: 1}\\n" + "".join(f"{b}: &{b} {{<<: [*{a}, *{a}]}}\\n" for a, b in zip(levels, levels[1:]))
merges += "".join(f"{b * 2}: &{b * 2} {{<<: [*{a * 2 if a != 'a' else 'z'}, *{a * 2 if a != 'a' else 'z'}]}}\\n"
                  for a, b in zip(levels, levels[1:]))
strings = "a: &a " + "x" * 100_000 + "\\nb: [" + "*a, " * 100_000 + "]"
for text in (bomb, merges, "a: &a [*a, *a, *a]", "a: &a {b: *a, c: *a}", "[" + "a," * 300_000 + "]"):
    [found] = read(text.encode())
    assert not isinstance(found, Document), text[:40]
    print(found.message)
[found] = read(strings.encode())
assert isinstance(found, Document)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) // 1024)
"""


def test_hostile_text_neither_crashes_nor_fills_the_memory() -> None:
    done = subprocess.run([sys.executable, "-c", CRASHERS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *messages, megabytes = done.stdout.splitlines()
    assert [("values in one document" in m, "levels of nesting" in m) for m in messages] == [
        (True, False),
        (True, False),
        (False, True),
        (False, True),
        (True, False),
    ]
    assert int(megabytes) < 400


def test_large_but_honest_documents_are_read() -> None:
    text = "data:\n" + "".join(f"  key-{i}: value\n" for i in range(50_000))
    assert len(value_of(text)["data"]) == 50_000


def test_caches_are_bounded() -> None:
    text = "".join(f"key-{i}: value-{i}\n" for i in range(20_000)) + "last: true\n"
    assert value_of(text)["last"] is True
    assert len(yaml_reader._PLAIN) <= yaml_reader._CACHED
    assert len(yaml_reader._KEYS) <= yaml_reader._CACHED


# -- lines


POD = """\
# a comment
kind: Pod
metadata:
  name: web
  annotations:
    a.b/c: x
    "it's \\\\ here": y
spec:
  containers:
  - name: a
    securityContext: &safe
      privileged: false
  -
    name: b
    securityContext: *safe
  - {name: c, securityContext: {<<: *safe, runAsUser: 0}}
  volumes: []
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", 2),
        ("kind", 2),
        ("metadata.name", 4),
        ("metadata.annotations['a.b/c']", 6),
        ("metadata['annotations']['a.b/c']", 6),
        (r"metadata.annotations['it\'s \\ here']", 7),
        ("metadata.annotations.a.b/c", 5),
        ("spec.containers", 9),
        ("spec.containers[0]", 10),
        ("spec.containers[0].name", 10),
        ("spec.containers[0].securityContext.privileged", 12),
        ("spec.containers[0].securityContext.runAsUser", 11),
        ("spec.containers[1]", 14),
        ("spec.containers[1].name", 14),
        ("spec.containers[1].securityContext", 15),
        ("spec.containers[1].securityContext.privileged", 12),
        ("spec.containers[2].securityContext.runAsUser", 16),
        ("spec.containers[2].securityContext.privileged", 12),
        ("spec.containers[3].name", 9),
        ("spec.containers.name", 9),
        ("spec.volumes", 17),
        ("spec.volumes[0].name", 17),
        ("spec[0]", 8),
        ("status.phase", 2),
        ("kind.name", 2),
        ("[0]", 2),
        ("%$", 2),
        ("spec.containers[", 9),
    ],
)
def test_line_of(path: str, line: int) -> None:
    [found] = read(POD.encode())
    assert isinstance(found, Document)
    assert found.line_of(path) == line
    [_, moved] = read(b"a: 1\n---\n" + POD.encode())
    assert isinstance(moved, Document)
    moved.value = None
    assert moved.line_of(path) == line + 2


def test_lines_of_json() -> None:
    text = (
        '\n\n{\n  "kind": "Pod",\n  "it\\"s": {"a": "b", "n1": 1, "n": 1},\n  "list": [\n    1,\n    {"x": 2}\n  ]\n}\n'
    )
    [found] = read(text.encode())
    assert isinstance(found, Document)
    assert found.line == 3
    paths = ["", "kind", "['it\"s'].n", "list", "list[0]", "list[1]", "list[1].x", "list[2]", "list.x", "no", "kind[0]"]
    assert [found.line_of(path) for path in paths] == [3, 4, 5, 6, 7, 8, 8, 6, 6, 3, 4]


def notation(path: str, step: str | int) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    if re.fullmatch(r"[A-Za-z0-9_-]+", step):
        return f"{path}.{step}" if path else step
    escaped = step.replace("\\", "\\\\").replace("'", "\\'")
    return f"{path}['{escaped}']"


def node_lines(node: yaml.Node, path: str = "") -> Iterator[tuple[str, int]]:
    """Every path of a tree and its line, by PyYAML's own marks."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = notation(path, key.value)
            yield inner, key.start_mark.line + 1
            yield from node_lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            inner = notation(path, index)
            yield inner, value.start_mark.line + 1
            yield from node_lines(value, inner)


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="\x7f") | st.just(" "))
# Strings that PyYAML writes without quotes although go-yaml reads them as something else, such as y and 1e3.
UNLIKE = re.compile(r"[yYnN]|[-+]?[.0-9][0-9a-fA-FoOxX_.+-]*")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text().filter(lambda s: not UNLIKE.fullmatch(s))
)
KEYS = st.text().filter(lambda s: not UNLIKE.fullmatch(s))
DATA = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5))
OBJECTS = st.dictionaries(KEYS, DATA, min_size=1, max_size=5)


@settings(deadline=None)
@given(OBJECTS, st.booleans(), st.sampled_from([None, True, False]))
def test_agrees_with_pyyaml_on_what_it_writes(data: Any, unicode: bool, flow: bool | None) -> None:
    text = yaml.safe_dump(data, allow_unicode=unicode, default_flow_style=flow, sort_keys=False)
    expected = yaml.load(text, yaml.CSafeLoader)
    assert value_of(text) == expected
    if not unicode:  # with it, PyYAML does not quote every line end it should
        assert expected == data


@settings(deadline=None)
@given(OBJECTS, st.sampled_from([None, 2]))
def test_reads_any_json(data: Any, indent: int | None) -> None:
    assert value_of(json.dumps(data, indent=indent)) == json.loads(json.dumps(data))


@settings(deadline=None)
@given(OBJECTS, st.booleans(), st.integers(0, 3))
def test_lines_agree_with_pyyaml(data: Any, unicode: bool, empty_lines: int) -> None:
    text = "\n" * empty_lines + yaml.safe_dump(data, allow_unicode=unicode, width=40)
    [found] = read(text.encode())
    assert isinstance(found, Document)
    assert found.line == empty_lines + 1
    root = yaml.compose(text, yaml.CSafeLoader)
    assert root is not None
    for path, line in node_lines(root):
        assert found.line_of(path) == line
        assert found.line_of(f"{path}.nothing.here[0]") == line


PLAIN_OBJECTS = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
).filter(lambda data: isinstance(data, dict))


@settings(deadline=None)
@given(PLAIN_OBJECTS, st.integers(0, 3))
def test_lines_of_json_agree_with_pyyaml(data: Any, empty_lines: int) -> None:
    text = "\n" * empty_lines + json.dumps(data, indent=2, ensure_ascii=False)
    [found] = read(text.encode())
    assert isinstance(found, Document)
    root = yaml.compose(text, yaml.CSafeLoader)
    assert root is not None
    for path, line in node_lines(root):
        assert found.line_of(path) == line


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(st.sampled_from("-?: \n[]{},a1&*!|>'\"#%<~{}.\r\t"), max_size=200))
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    for position, found in enumerate(read(data), 1):
        assert found.index == position
        assert found.line >= 1
        if isinstance(found, Document):
            msgspec.json.encode(found.value)
        else:
            assert found.message.isprintable()
    read_json(data)


# -- JSON


def test_json_values() -> None:
    assert value_of('{"a": [1, 1.5, "yes", null, true], "a.b": "\\u00e9"}') == {
        "a": [1, 1.5, "yes", None, True],
        "a.b": "é",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}\n{"b": 2}\n', [(1, 1, {"a": 1}), (2, 2, {"b": 2})]),
        ('{"a": 1}{"b": 2}[3]', [(1, 1, {"a": 1}), (2, 1, {"b": 2}), (3, 1, [3])]),
        ('{"a": 1}\n---\n{"b": 2}\n---\nc: 3', [(1, 1, {"a": 1}), (2, 3, {"b": 2}), (3, 5, {"c": 3})]),
        ('---\n{"a": 1}\n', [(1, 2, {"a": 1})]),
        ('{"a": 1}\n{"b": \n}', [(1, 1, {"a": 1}), (2, 2, {"b": None})]),
        ('{"a": 1}\n{"b": \n]', [(1, 1, {"a": 1}), (2, 3)]),
        ("{a: 1, b: yes}", [(1, 1, {"a": 1, "b": True})]),
        ('{"a": 1,}', [(1, 1, {"a": 1})]),
        ('{"a": 1} # comment', [(1, 1, {"a": 1})]),
        ("[1, 0644]", [(1, 1, [1, 420])]),
        ("{}1{", [(1, 1, {}), (2, 1)]),
        ("{}" * 3, [(1, 1, {}), (2, 1, {}), (3, 1, {})]),
    ],
)
def test_json_streams_and_what_only_looks_like_json(text: str, expected: list[Any]) -> None:
    assert outline(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n  "a": 1,\n  "b" 2\n}', "line 3: JSON is malformed: expected ':'"),
        ('{\n  "a": [1, 2,\n', "line 2: Input data was truncated"),
        (b'{\n  "a": "\xff"\n}', "line 2: invalid leading UTF-8 octet"),
        ('{"a":' * 101 + "1" + "}" * 101, "line 1: more than 100 levels of nesting"),
        ('{"a":' * 101 + "[]" + "}" * 101 + '{"a":1}', "line 1: more than 100 levels of nesting"),
    ],
)
def test_broken_json(text: str | bytes, message: str) -> None:
    first = next(iter(read(text.encode() if isinstance(text, str) else text)))
    assert isinstance(first, DocumentError)
    assert first.message.startswith(message)


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_read_json(indent: int | None, mark: bytes) -> None:
    pods = [{"metadata": {"name": f"pod-{i}", "labels": {"items": [1]}}, "spec": {}} for i in range(50)]
    dump = {"apiVersion": "v1", "metadata": {"items": []}, "items": pods, "kind": "PodList"}
    text = json.dumps(dump, indent=indent)
    found = read_json(mark + text.encode())
    assert found is not None
    assert (found.kind, found.api_version) == ("PodList", "v1")
    items = list(found.items)
    assert [msgspec.json.decode(item.raw) for item in items] == pods
    assert [item.index for item in items] == list(range(1, 51))
    expected = [1 + text[: text.index(f'"pod-{i}"')].count("\n") for i in range(50)]
    for i in (*range(50), 3, 40, 0, 49):  # any order
        assert items[i].line_of("metadata.name") == expected[i]
        assert items[i].line == (expected[i] - 2 if indent else 1)
        assert items[i].line_of("nothing") == items[i].line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kind: List\nitems: []",
        "[1]",
        '{"kind": "Pod"}',
        '{"kind": "Pod", "items": []}',
        '{"kind": "List"}',
        '{"kind": "List", "items": {}}',
        '{"kind": 1, "items": []}',
        '{"items": []}',
        '{"kind": "List", "items": [}',
        '{"kind": "List", "items": []} {}',
        b'{"kind": "List\xff", "items": []}',
        b"\xff\xfea",
    ],
)
def test_read_json_leaves_the_rest_to_read(text: str | bytes) -> None:
    assert read_json(text.encode() if isinstance(text, str) else text) is None


def test_read_json_of_an_empty_list() -> None:
    for items in ("[]", "null"):
        found = read_json(f'{{"kind": "List", "apiVersion": null, "items": {items}}}'.encode())
        assert found is not None
        assert list(found.items) == []


# -- the benchmark's manifests


def test_manifests_are_read_like_pyyaml_reads_them() -> None:
    kinds = set()
    for name, text in manifests(60):
        found = list(read(text.encode()))
        assert all(isinstance(f, Document) for f in found), name
        values = [f.value for f in found if isinstance(f, Document)]
        assert values == list(yaml.load_all(text, yaml.CSafeLoader))
        kinds.update(value["kind"] for value in values)
        assert 2_000 < len(text) < 2_900
    assert kinds == {"Deployment", "StatefulSet", "DaemonSet", "CronJob", "Service"}
