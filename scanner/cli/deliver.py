"""kubeposture deliver, and what scan --deliver does at its end."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from scanner import __project__
from scanner.cli.history import ConfigOption, HistoryOption, existing
from scanner.cli.interrupts import interrupts
from scanner.cli.options import EXIT_INTERRUPTED, Logging, takes_options
from scanner.config import Config, ConfigError, nearest
from scanner.model import utc_now

if TYPE_CHECKING:
    from scanner.history.outbox import Outbox, Standing
    from scanner.report.ocsf_event import Event
    from scanner.sinks import Sink
    from scanner.sinks.delivery import Delivery
    from scanner.sinks.settings import NamedSink

UNDELIVERED = 5
_LAST_ANSWER = 20.0  # seconds: what stops us kills us after 30 at the earliest


def open_sinks(config: Config, names: Iterable[str] = ()) -> dict[str, Sink]:
    """The sinks of the configuration, or those named, by name. Raises ConfigError."""
    if not config.sinks:
        raise ConfigError("there is nobody to deliver to: name `sinks:` in kubeposture.yaml")
    known = {sink.label: sink for sink in config.sinks}
    for name in names:
        if name not in known:
            raise ConfigError(f"no sink is called {name!r}; there are {', '.join(known)}{nearest(name, known)}")
    return {name: _open(sink) for name, sink in known.items() if not names or name in names}


def _open(sink: NamedSink) -> Sink:
    """Of the module that is called as the sink's kind, imported on use: of five receivers most people have one."""
    try:
        opened: Sink = import_module(f"scanner.sinks.{sink.kind}").open_sink(sink.settings)
    except ConfigError as error:
        raise ConfigError(f"sink {sink.name}: {error}" if sink.name else str(error)) from None
    return opened


def send(outbox: Outbox, sinks: Mapping[str, Sink], known: Iterable[str], *, quiet: bool) -> int:
    """Send what waits, to these sinks side by side, and say how it went on standard error; the exit code. `known` are
    all that the configuration names. Raises HistoryError."""
    from scanner.sinks.delivery import Delivery

    with interrupts() as stop, _progress(_waiting(outbox), quiet) as show, outbox.alone(stop, _wait) as alone:
        if not alone:
            typer.echo("kubeposture: another kubeposture delivers, and has not come to its end", err=True)
            return EXIT_INTERRUPTED if stop.is_set() else UNDELIVERED
        runs = [Delivery(name, sink, outbox, stop, show(name), _says(name)) for name, sink in sinks.items()]
        failures = _side_by_side(runs, stop)
        outbox.shrink()
    standings = {standing.name: standing for standing in outbox.standings()}
    left = [_say(run, standings.get(run.name)) for run in runs]
    left += [_say_gone(standing) for name, standing in standings.items() if name not in known]
    if any(left):
        typer.echo("kubeposture: the next scan with --deliver goes on, or `kubeposture deliver`", err=True)
    for failure in failures:
        raise failure
    return EXIT_INTERRUPTED if stop.is_set() else UNDELIVERED if any(left) else 0


def _wait() -> None:
    typer.echo("kubeposture: another kubeposture delivers: waiting for its end", err=True)


def _says(name: str) -> Callable[[str], None]:
    """That a sink is away, at once: it is tried again for minutes."""
    from scanner.kube import printable

    def say(problem: str) -> None:
        typer.echo(f"kubeposture: {printable(name)}: {printable(problem, 500)}; trying again", err=True)

    return say


def _waiting(outbox: Outbox) -> dict[str, int]:
    return {standing.name: standing.waiting for standing in outbox.standings()}


def _side_by_side(runs: Sequence[Delivery], stop: threading.Event) -> list[BaseException]:
    """What went wrong beyond what sinks say. Once it is to stop, receivers have a while to answer what they were sent:
    what they answer later is not heard, and sent again."""
    from concurrent.futures import ThreadPoolExecutor, wait

    from scanner.collect import THREADS
    from scanner.history.recorder import HistoryError

    pool = ThreadPoolExecutor(max_workers=len(runs), thread_name_prefix=f"{THREADS}-deliver")
    futures = [pool.submit(run.run) for run in runs]
    until = math.inf
    while wait(futures, timeout=0.2).not_done and time.monotonic() < until:  # in between, a second Ctrl-C is heard
        until = min(until, time.monotonic() + _LAST_ANSWER) if stop.is_set() else math.inf
    pool.shutdown(wait=all(future.done() for future in futures))
    failures = []
    for run, future in zip(runs, futures, strict=True):
        error = future.exception() if future.done() else None
        if isinstance(error, HistoryError):
            run.problem = str(error)
        elif error:
            run.problem = f"internal error: {type(error).__name__}"
            failures.append(error)
    return failures


def _say_gone(standing: Standing) -> int:
    """Of a sink that the configuration no longer names."""
    from scanner.kube import printable

    left = standing.waiting + standing.refused
    if left:
        name = printable(standing.name)
        advice = f"name it again, or drop them: kubeposture history forget {name}"
        typer.echo(f"kubeposture: {name}: no such sink in the configuration, {left:,} events left: {advice}", err=True)
    return left


@contextlib.contextmanager
def _progress(waiting: Mapping[str, int], quiet: bool) -> Iterator[Callable[[str], Callable[[int], None]]]:
    """A line for each sink, only where someone watches."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda name: lambda sent: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:

        def line(name: str) -> Callable[[int], None]:
            task = bar.add_task(escape(name), total=waiting.get(name, 0))
            return lambda sent: bar.update(task, completed=sent)

        yield line


def _say(run: Delivery, standing: Standing | None) -> int:
    """How it went; how many events are left."""
    from scanner.kube import printable

    waiting, refused = (standing.waiting, standing.refused) if standing else (0, 0)
    if not run.problem:
        waiting = 0  # what has come since is another scan's, which sends it too
    said = [f"{run.sent:,} delivered"]
    if waiting:
        said.append(f"{waiting:,} waiting")
    if refused:
        said.append(f"{refused:,} refused (see `kubeposture history sinks`)")
    problem = f": {printable(run.problem, 500)}" if run.problem else ""
    typer.echo(f"kubeposture: {printable(run.name)}: {', '.join(said)}{problem}", err=True)
    return waiting + refused


Names = Annotated[
    list[str] | None,
    typer.Option("--sink", help="Only this sink; repeatable.", show_default=False, rich_help_panel="Target"),
]


@takes_options
def deliver(
    logging: Logging,
    history: HistoryOption = None,
    config: ConfigOption = None,
    sink: Names = None,
    retry_refused: Annotated[
        bool, typer.Option("--retry-refused", help="Send again what was refused.", rich_help_panel="Target")
    ] = False,
    drop_refused: Annotated[
        bool, typer.Option("--drop-refused", help="Forget what was refused.", rich_help_panel="Target")
    ] = False,
    test: Annotated[
        bool, typer.Option("--test", help="Send each sink one event that says it is a test.", rich_help_panel="Target")
    ] = False,
) -> None:
    """Send the events that earlier scans with --deliver have left, to the sinks of kubeposture.yaml.

    Exit codes: 0 nothing is left, 5 something is.
    """
    from scanner.cli import logs
    from scanner.cli.settings import config_at
    from scanner.history.recorder import HistoryError

    logs.set_up(logging.verbose, logging.log_format)
    if retry_refused and drop_refused:
        raise ConfigError("--retry-refused and --drop-refused exclude each other")
    found = config_at(config)
    sinks = open_sinks(found, sink or ())
    if test:
        raise typer.Exit(_test(sinks))
    try:
        database = existing(history)
        from scanner.history.outbox import Outbox

        outbox = Outbox(database)
        for name in sinks:
            if retry_refused:
                outbox.retry(name)
            elif drop_refused:
                outbox.drop(name)
        code = send(outbox, sinks, [each.label for each in found.sinks], quiet=logging.quiet)
    except HistoryError as error:
        raise ConfigError(str(error)) from None
    raise typer.Exit(code)


def _test(sinks: Mapping[str, Sink]) -> int:
    """Whether each sink takes an event; the exit code."""
    from scanner.kube import printable
    from scanner.sinks import Packed, Refused, Unavailable, Unusable

    event = _test_event()
    failed = False
    for name, sink in sinks.items():
        try:
            body = sink.pack(event)
            reasons = {} if body is None else sink.send([Packed(event["metadata"]["uid"], body)])
            problem = next(iter(reasons.values()), "")
        except (Refused, Unavailable, Unusable) as error:
            body, problem = b"", str(error)
        finally:
            sink.close()
        failed |= bool(problem)
        said = problem or ("took the test event" if body else "takes findings alone, so that it cannot be tried")
        typer.echo(f"{printable(name)}: {printable(said, 500)}")
    return UNDELIVERED if failed else 0


def _test_event() -> Event:
    from scanner.report.ocsf_event import COMPLETED, SCAN, Place, event

    id = str(uuid.uuid4())
    found = event(
        SCAN,
        COMPLETED,
        1,
        (1, "Success"),
        utc_now(),
        Place("files", None, None),
        scan_id=id,
        key="test",
        code="test",
        message="a test of this sink: nothing was scanned",
    )
    return found | {"scan": {"uid": id, "name": __project__, "type_id": 99, "type": "Test"}, "unmapped": {"test": True}}
