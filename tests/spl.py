"""As much of Splunk's search language as the searches of docs/splunk.md use, over events as HEC takes them.

Fields are named as automatic extraction names them: objects by dots, items of lists by `{}`, with all their values.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

Row = dict[str, Any]  # a field's value, or the list of its values
_SECONDS = {"h": 3600, "d": 86_400}
_TERM = re.compile(r'(NOT )?([\w.{}]+)(!?=)("[^"]*"|\S+)')
_TOKEN = re.compile(r"""\s*('[^']+'|"[^"]*"|\w+(?=\()|[\w.]+|[<>!=]+|[(),-])""")
_FUNCTIONS = {"coalesce", "mvindex", "if", "null", "isnull", "relative_time", "now", "strftime"}


def row(envelope: dict[str, Any]) -> Row:
    found: Row = {"_time": envelope["time"]} | {k: envelope[k] for k in ("host", "source", "sourcetype", "index")}
    for name, value in _flat("", envelope["event"]):
        found.setdefault(name, []).append(value)
    return found


def _flat(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}" if name else key, item)
    elif isinstance(value, list):
        for item in value:
            yield from _flat(f"{name}{{}}", item)
    elif value is not None:
        yield name, {True: "true", False: "false"}[value] if isinstance(value, bool) else value


def first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


class Search:
    """`asked` are the fields of events that it names."""

    def __init__(self, text: str, now: float) -> None:
        self.now = now
        self.asked: set[str] = set()
        self._made: set[str] = {"_time", "earliest"}
        self._stages = [self._stage(part) for part in re.split(r"\n\| ", f"search {text.strip()}")]

    def __call__(self, rows: Iterable[Row]) -> list[Row]:
        found = list(rows)
        for stage in self._stages:
            found = stage(found)
        return found

    def _stage(self, text: str) -> Callable[[list[Row]], list[Row]]:
        command, _, rest = text.partition(" ")
        make: Callable[[str], Callable[[list[Row]], list[Row]]] = getattr(self, f"_{command}")
        return make(rest)

    def _field(self, name: str) -> str:
        if name not in self._made:
            self.asked.add(name)
        return name

    def _search(self, text: str) -> Callable[[list[Row]], list[Row]]:
        assert not _TERM.sub("", text).strip(), text
        terms = [(bool(no), self._field(name), op, value.strip('"')) for no, name, op, value in _TERM.findall(text)]

        def holds(found: Row, no: bool, name: str, op: str, value: str) -> bool:
            if name == "earliest":
                return bool(found["_time"] >= self._since(value))
            values = found.get(name, [])
            among = any(fnmatchcase(str(v), value) for v in (values if isinstance(values, list) else [values]))
            # != is true of events that have the field, NOT also of those that have not
            return not among if no else bool(values) and not among if op == "!=" else among

        return lambda rows: [r for r in rows if all(holds(r, *term) for term in terms)]

    def _since(self, value: str) -> float:
        if value == "0":
            return 0
        number, unit, snap = re.fullmatch(r"-(\d+)([hd])(@d)?", value).groups()  # type: ignore[union-attr]
        since = self.now - int(number) * _SECONDS[unit]
        return since - since % 86_400 if snap else since

    def _dedup(self, text: str) -> Callable[[list[Row]], list[Row]]:
        name = re.fullmatch(r"(\S+) sortby -_time", text)[1]  # type: ignore[index]
        self._field(name)

        def latest(rows: list[Row]) -> list[Row]:
            found: dict[Any, Row] = {}
            for r in sorted(rows, key=lambda r: -r["_time"]):
                if name in r:
                    found.setdefault(first(r[name]), r)
            return list(found.values())

        return latest

    def _sort(self, text: str) -> Callable[[list[Row]], list[Row]]:
        name = self._field(re.fullmatch(r"0 -(\S+)", text)[1])  # type: ignore[index]
        return lambda rows: sorted(rows, key=lambda r: -first(r[name]))

    def _table(self, text: str) -> Callable[[list[Row]], list[Row]]:
        names = [self._field(name) for name in text.split(", ")]
        return lambda rows: [{name: r.get(name) for name in names} for r in rows]

    def _stats(self, text: str) -> Callable[[list[Row]], list[Row]]:
        aggregates, by = re.fullmatch(r"(.*) BY (\w+)", text).groups()  # type: ignore[union-attr]
        wanted = [re.fullmatch(r"(max|latest)\((\w+)\) AS (\w+)", a).groups() for a in aggregates.split(", ")]  # type: ignore[union-attr]
        for _, name, _ in wanted:
            self._field(name)

        def grouped(rows: list[Row]) -> list[Row]:
            groups: dict[Any, list[Row]] = {}
            for r in sorted(rows, key=lambda r: r["_time"]):
                groups.setdefault(first(r[by]), []).append(r)
            found = []
            for key, members in groups.items():
                values = {as_: [first(m[n]) for m in members if m.get(n) is not None] for _, n, as_ in wanted}
                made = {
                    as_: (max(values[as_]) if f == "max" else values[as_][-1]) for f, _, as_ in wanted if values[as_]
                }
                found.append({by: key} | made)
            return found

        self._made |= {by, *(as_ for _, _, as_ in wanted)}
        return grouped

    def _where(self, text: str) -> Callable[[list[Row]], list[Row]]:
        condition = self._expression(text)
        return lambda rows: [r for r in rows if condition(r)]

    def _eval(self, text: str) -> Callable[[list[Row]], list[Row]]:
        made = []
        for part in re.split(r", (?=\w+=)", text):
            name, _, expression = part.partition("=")
            made.append((name, self._expression(expression)))
            self._made.add(name)

        def added(rows: list[Row]) -> list[Row]:
            for name, value in made:
                rows = [r | {name: value(r)} for r in rows]
            return rows

        return added

    def _expression(self, text: str) -> Callable[[Row], Any]:
        tokens = _TOKEN.findall(text)
        assert "".join(tokens) == re.sub(r"\s(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", "", text), text
        code = compile(" ".join(map(self._python, tokens)), text, "eval")
        return lambda r: eval(code, {"field": lambda name: _single(r.get(name)), **self._names()})

    def _python(self, token: str) -> str:
        if token in _FUNCTIONS:
            return f"{token}_"
        if token[0] in '"(),<>-' or token.isdecimal():
            return token
        if token in ("=", "OR"):
            return {"=": "==", "OR": "or"}[token]
        return f"field({self._field(token.strip(chr(39)))!r})"

    def _names(self) -> dict[str, Any]:
        return {
            "coalesce_": lambda *values: next((v for v in values if v is not None), None),
            "mvindex_": lambda values, at: _item(values, at),
            "if_": lambda condition, yes, no: yes if condition else no,
            "null_": lambda: None,
            "isnull_": lambda value: value is None,
            "now_": lambda: self.now,
            "relative_time_": lambda at, by: at - int(by[1:-1]) * _SECONDS[by[-1]],
            "strftime_": lambda at, form: at and time.strftime(form, time.gmtime(at)),
        }


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _item(values: Any, at: int) -> Any:
    found = values if isinstance(values, list) else [] if values is None else [values]
    return found[at] if at < len(found) else None
