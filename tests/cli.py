"""The real command, run in this process or in one of its own."""

import contextlib
import io
import os
import subprocess
import sys
from typing import NamedTuple
from unittest import mock

from scanner import cli


class Result(NamedTuple):
    code: int
    stdout: str
    stderr: str


def kubeposture(*args: object, stdin: str = "") -> Result:
    """Run the command here. Standard streams are real text streams over bytes, as reports are written as bytes."""
    streams = [io.TextIOWrapper(io.BytesIO(data), encoding="utf-8") for data in (stdin.encode(), b"", b"")]
    hook = sys.excepthook
    with (
        mock.patch.object(sys, "argv", ["kubeposture", *map(str, args)]),
        mock.patch.multiple(sys, stdin=streams[0], stdout=streams[1], stderr=streams[2]),
    ):
        code = 0
        try:
            cli.run()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        finally:
            sys.excepthook = hook
            for stream in streams[1:]:
                with contextlib.suppress(ValueError):
                    stream.flush()
    out, err = (stream.buffer.getvalue().decode() for stream in streams[1:])  # type: ignore[attr-defined]
    return Result(code, out, err)


def process(*args: object, stdin: str = "", **environment: str) -> Result:
    """Run the command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "scanner", *map(str, args)],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)
