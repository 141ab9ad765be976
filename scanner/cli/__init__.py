"""The command line. One module per group; options.py declares the shared options, targets.py wires the providers.

What reads and judges is imported when a command runs, so that --help and `checks` stay quick.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from types import TracebackType
from typing import NoReturn

import typer

from scanner import __version__
from scanner.cli import bundles, catalogue, deliver, demo, history, matrix, scan
from scanner.cli.options import EXIT_INTERRUPTED
from scanner.config import ConfigError
from scanner.destination import OutputError, PipeClosed, drop_stdout

INTERNAL_ERROR = 70

app = typer.Typer(
    name="kubeposture",
    help="""Judge the security posture of Kubernetes clusters and manifests.

    What could not be read is unknown, never clean. Exit codes: 0 done, 1 a gate failed, 2 usage, 3 incomplete,
    4 nothing was read, 5 events are not delivered, 70 internal error.""",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None if os.environ.get("TERM") == "dumb" else "rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(scan.app, name="scan")
app.add_typer(bundles.collect, name="collect")
app.command("evaluate")(bundles.evaluate)
app.command("matrix")(matrix.show_matrix)
app.command("deliver")(deliver.deliver)
app.add_typer(history.app, name="history")
app.command("diff")(history.diff)
app.add_typer(catalogue.app, name="checks")
app.command()(demo.demo)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"kubeposture {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def run() -> None:
    """Run the command; every error is one sentence on standard error and an exit code of its own."""
    sys.excepthook = _internal_error
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows what it can
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped job reports what it has, as with Ctrl-C
    try:
        typer.main.get_command(app)()  # app() would put an exception hook of its own in place
    except (ConfigError, OutputError) as error:
        _say(str(error))
        _leave(2)
    except PipeClosed:
        _leave(0)  # `| head` is not an error
    except OSError as error:  # of --help and `checks`, which print: all else that reads or writes says what failed
        drop_stdout()
        _say(f"standard output: cannot be written: {error.strerror}")
        _leave(2)
    except SystemExit as stop:
        _leave(stop.code)
    except KeyboardInterrupt:
        _leave(EXIT_INTERRUPTED)


def _leave(code: str | int | None) -> NoReturn:
    """Exit now: a thread that is still waiting for some server would hold up an ordinary exit until its time-out."""
    if isinstance(code, int) and threading.active_count() > 1 and _still_reading():
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None where they were closed from the start
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _still_reading() -> bool:
    from scanner.collect import THREADS

    return any(thread.name.startswith(THREADS) for thread in threading.enumerate())


def _internal_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    """A bug: say so in one sentence, with the traceback only where it was asked for, as it may show what was read."""
    if {"-v", "--verbose"} & set(sys.argv):
        traceback.print_exception(kind, error, trace)
    _say(f"internal error: {kind.__name__}; run again with -v and report it")
    sys.stderr.flush()
    os._exit(INTERNAL_ERROR)  # an exception hook cannot set the exit code otherwise


def _say(message: str) -> None:
    if sys.stderr is not None:  # print() would turn to standard output
        print(f"kubeposture: {message}", file=sys.stderr)  # noqa: T201
