"""Small YAML files of our own users: configuration, kubeconfigs, values of the command line."""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 100  # levels; libyaml's parser recurses in C and would crash the process on a few ten thousand


class _TooDeep(Exception):
    pass


class _Loader(yaml.CSafeLoader):
    depth = 0

    def descend_resolver(self, parent: Any, index: Any) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _TooDeep
        super().descend_resolver(parent, index)

    def ascend_resolver(self) -> None:
        self.depth -= 1
        super().ascend_resolver()


def load(data: bytes | str) -> Any:
    """The one document that `data` holds. Raises ValueError that names a line and quotes nothing of the text."""
    try:
        return yaml.load(data, Loader=_Loader)  # noqa: S506 - a safe loader, which also counts
    except _TooDeep:
        raise ValueError(f"more than {MAX_DEPTH} levels of nesting") from None
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise ValueError(f"{error.problem or 'not YAML'}{line}") from None
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError):
        raise ValueError("not YAML") from None
