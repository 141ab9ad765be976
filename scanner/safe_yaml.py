"""Small YAML files of our own users: configuration, kubeconfigs, values of the command line."""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 100  # levels; libyaml's parser recurses in C and would crash the process on a few ten thousand
MAX_VALUES = 1_000_000  # with what aliases and merges repeat: a few lines of them can stand for billions
_TOO_DEEP = f"more than {MAX_DEPTH} levels of nesting"


class _TooMuch(Exception):
    pass


class _Loader(yaml.CSafeLoader):
    depth = 0

    def descend_resolver(self, parent: Any, index: Any) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _TooMuch(_TOO_DEEP)
        super().descend_resolver(parent, index)

    def ascend_resolver(self) -> None:
        self.depth -= 1
        super().ascend_resolver()

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _count(node, {})
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # of thousands of digits, as hexadecimals may have them, it fails wherever it is shown
            return value
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # PyYAML takes a value at its tag's word: `!!timestamp foo`, but also 2026-99-99, which needs no tag.
            problem = "a value is not of the type that its form or its tag gives it"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _refuse_tag(_: Any, __: Any, node: Any) -> None:
    raise yaml.constructor.ConstructorError(None, None, "a tag that is not one of YAML's own", node.start_mark)


_Loader.add_multi_constructor("", _refuse_tag)


def _count(node: Any, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Values that a node stands for, and the levels of them. Raises _TooMuch, also for a node that contains itself."""
    if id(node) in known:
        if not known[id(node)][0]:
            raise _TooMuch("a value that contains itself")
        return known[id(node)]
    known[id(node)] = 0, 0
    parts = node.value if isinstance(node, yaml.CollectionNode) else ()
    inner = (part for pair in parts for part in pair) if isinstance(node, yaml.MappingNode) else parts
    values, levels = 1, 0
    for part_values, part_levels in (_count(part, known) for part in inner):
        values, levels = values + part_values, max(levels, part_levels)
    if levels >= MAX_DEPTH:
        raise _TooMuch(_TOO_DEEP)
    if values > MAX_VALUES:
        raise _TooMuch(f"more than {MAX_VALUES:,} values, with those that aliases repeat")
    known[id(node)] = values, levels + 1
    return known[id(node)]


class _Strict(_Loader):
    """Of a key that stands twice the later one would count, and the other be lost without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if names.count(key.value) > 1 and key.value != "<<":
                problem = "a key that stands twice, so that one of its values would be lost"
                raise yaml.constructor.ConstructorError(None, None, problem, node.value[-1][0].start_mark)
        return super().construct_mapping(node, deep)


def load(data: bytes | str, *, strict: bool = False) -> Any:
    """The one document that `data` holds; where that is `strict`, without keys that stand twice. Raises ValueError that
    names a line and quotes nothing of the text."""
    try:
        return yaml.load(data, Loader=_Strict if strict else _Loader)  # noqa: S506 - safe loaders, which also count
    except _TooMuch as error:
        raise ValueError(str(error)) from None
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        problem = (error.problem or "not YAML").partition(":")[0]  # of base64 what follows quotes
        raise ValueError(f"{problem}{line}") from None
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError):
        raise ValueError("not YAML") from None
