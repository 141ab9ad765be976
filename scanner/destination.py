"""Where reports and bundles are written: a file that is there whole or not at all, or standard output."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path
from typing import IO

from scanner.kube import printable

# For terminals that cannot show these: what looks most like them, and is as wide.
_PLAIN = str.maketrans({"─": "-", "·": "-", "…": "+"})


class OutputError(Exception):
    """Something that cannot be written, and why: one sentence."""


class PipeClosed(Exception):
    """The reader of standard output has seen enough."""


class Destination:
    """Takes bytes for a file, or for standard output where `path` is None.

    A file is written beside its path and renamed by close(). Written in place are devices and pipes, as a rename would
    put a file where they are, and `streamed` files, as their lines are of use while the scan runs.
    """

    def __init__(self, path: Path | None, *, streamed: bool = False) -> None:
        self.path = path
        self._streamed = streamed
        self._final = self._temporary = Path()  # of a file that is not written in place
        try:
            self._file = self._open()
        except (OSError, ValueError) as error:  # ValueError: a path with a null character
            raise self._failure(error) from None

    @property
    def is_terminal(self) -> bool:
        return self.path is None and sys.stdout.isatty()

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failure(error) from None

    def write_text(self, text: str) -> None:
        """As UTF-8 to files, and as what standard output can show."""
        encoding = "utf-8" if self.path else sys.stdout.encoding
        try:
            data = text.encode(encoding)
        except UnicodeEncodeError:
            data = text.translate(_PLAIN).encode(encoding, "replace")
        self.write(data)

    def close(self) -> None:
        """Everything is written: now the file takes the place of the old one."""
        try:
            self._file.flush()
            if self.path:
                self._file.close()
            if self._temporary.name:
                os.replace(self._temporary, self._final)
        except OSError as error:
            raise self._failure(error) from None

    def discard(self) -> None:
        """Leave the old file as it was and nothing beside it. After close() this does nothing."""
        if self.path:
            with contextlib.suppress(OSError):
                self._file.close()
        if self._temporary.name:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def _open(self) -> IO[bytes]:
        if self.path is None:
            if sys.stdout is None:  # started with it closed: >&-
                raise ValueError("it is closed")
            return sys.stdout.buffer
        if self._streamed or (os.path.exists(self.path) and not os.path.isfile(self.path)):
            return self.path.open("wb")
        self._final = Path(os.path.realpath(self.path))  # a link stays a link
        # A name that nobody can foresee, short enough where the path's own name is as long as names may be.
        self._temporary = self._final.with_name(f".{self._final.name[:40]}.{secrets.token_hex(4)}")
        return self._temporary.open("xb")

    def _failure(self, error: OSError | ValueError) -> Exception:
        if self.path is None and sys.stdout is not None:
            drop_stdout()
            if isinstance(error, BrokenPipeError):
                return PipeClosed()
        reason = error.strerror if isinstance(error, OSError) else None
        return OutputError(f"{printable(self.path or 'standard output')}: cannot be written: {reason or error}")


def drop_stdout() -> None:
    """After a failure: what is left in its buffer would fail once more at the interpreter's end, with exit code 120."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
