"""--output FORMAT[=PATH]: the formats, and the outputs that one scan writes side by side."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from scanner.config import ConfigError, nearest
from scanner.destination import Destination, OutputError, PipeClosed
from scanner.model import Finding
from scanner.report import Ending, Output

_STDOUT = ("", "-", "/dev/stdout")


class Format(NamedTuple):
    make: Callable[[Destination, bool], Output]  # the bool says whether colours are wanted
    streamed: bool = False  # its lines are of use while the scan runs


# Imported on use: a JSON report does not need the table's library.


def _table(destination: Destination, color: bool) -> Output:
    from scanner.report.table import TableOutput

    return TableOutput(destination, color=color)


def _json(destination: Destination, color: bool) -> Output:
    from scanner.report.to_json import JsonOutput

    return JsonOutput(destination)


def _ndjson(destination: Destination, color: bool) -> Output:
    from scanner.report.ndjson import NdjsonOutput

    return NdjsonOutput(destination)


def _ocsf(destination: Destination, color: bool) -> Output:
    from scanner.report.ocsf import OcsfOutput

    return OcsfOutput(destination)


FORMATS = {
    "table": Format(_table),
    "json": Format(_json),
    "ndjson": Format(_ndjson, streamed=True),
    "ocsf": Format(_ocsf, streamed=True),
}


class Spec(NamedTuple):
    """One --output. `path` is None for standard output."""

    name: str
    path: Path | None

    @property
    def format(self) -> Format:
        return FORMATS[self.name]


def parse(specs: Iterable[str]) -> list[Spec]:
    """Raises ConfigError for what cannot be, before any file is touched."""
    parsed = [_parse(spec) for spec in specs]
    to_stdout = [spec.name for spec in parsed if spec.path is None]
    if len(to_stdout) > 1:
        raise ConfigError(f"only one output can go to standard output, not {' and '.join(to_stdout)}: use FORMAT=PATH")
    paths = [os.path.abspath(spec.path) for spec in parsed if spec.path]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"two outputs go to {path}: give each a path of its own")
    return parsed


def _parse(spec: str) -> Spec:
    name, equals, path = spec.partition("=")
    if name not in FORMATS:
        raise ConfigError(f"--output {name!r} is none of {', '.join(FORMATS)}{nearest(name, FORMATS)}")
    if equals and not path:
        raise ConfigError(f"--output {spec!r} names no file after the =")
    return Spec(name, None if path in _STDOUT else Path(path))


class Outputs:
    """Every output of one scan. One that fails does not take the others with it: its error is raised at the end."""

    def __init__(self, outputs: list[Output]) -> None:
        self._outputs = outputs
        self._failed: OutputError | None = None

    def add(self, finding: Finding) -> None:
        self._each(lambda output: output.add(finding))

    def finish(self, ending: Ending) -> None:
        self._each(lambda output: output.finish(ending))
        if self._failed:
            raise self._failed

    def _each(self, feed: Callable[[Output], None]) -> None:
        for output in tuple(self._outputs):
            try:
                feed(output)
            except (OutputError, PipeClosed) as error:
                self._outputs.remove(output)
                if isinstance(error, OutputError):
                    self._failed = self._failed or error
                if not self._outputs:
                    raise self._failed or error from None


@contextlib.contextmanager
def opened(specs: Iterable[Spec], *, color: bool) -> Iterator[Outputs]:
    """The outputs; what is not finished at the end is discarded."""
    with contextlib.ExitStack() as stack:
        outputs = []
        # Streamed files lose their old content when they are opened: they are opened when all others could be.
        for spec in sorted(specs, key=lambda spec: spec.format.streamed):
            destination = Destination(spec.path, streamed=spec.format.streamed)
            stack.callback(destination.discard)
            outputs.append(spec.format.make(destination, color))
        yield Outputs(outputs)
