"""Progress on standard error, only where someone watches."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from scanner.collect import Show, Task
from scanner.kube import printable


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[Show]:
    """A line for each target being read; nothing with --quiet or where standard error is no terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda task, what, n: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn())
    # Rich would put a stand-in for standard output in place, which has no encoding; reports do not go through it.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        rows: dict[str, TaskID] = {}

        def show(task: Task, what: str, n: int) -> None:
            if task.name not in rows:
                rows[task.name] = bar.add_task("", total=None)
            text = escape(f"{printable(task.name, 40)}: {printable(what, 40)}, {n:,} objects")
            bar.update(rows[task.name], description=text)

        yield show
