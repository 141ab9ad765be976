"""The bundle: what was read, saved, so that it can be judged elsewhere or again.

Gzipped JSON lines: a header, then one estate a line. Redacted by construction, as an estate holds only what checks
read: no environment, no Secret or ConfigMap data, no annotation that no check knows.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from scanner import __version__
from scanner.collect import Estate
from scanner.kube import printable
from scanner.model import utc_now

FORMAT = "kubeposture-bundle"
VERSION = 1
MAX_LINE = 2**30  # bytes of one estate


class BundleError(Exception):
    """A bundle that cannot be read or written: one sentence."""


class Header(msgspec.Struct, frozen=True):
    format: str
    version: int
    tool_version: str
    created_at: datetime


class Writer:
    """Writes beside the path and renames at the end: a bundle is there whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path, self._temporary = path, path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._file = gzip.open(self._temporary, "wb", compresslevel=6)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise BundleError(f"{path}: cannot be written: {error.strerror}") from None
        self._line(Header(FORMAT, VERSION, __version__, utc_now()))

    def add(self, estate: Estate) -> None:
        self._line(estate)

    def _line(self, value: object) -> None:
        self._file.write(msgspec.json.encode(value) + b"\n")

    def close(self, *, keep: bool) -> None:
        self._file.close()
        if keep:
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink(missing_ok=True)


def read(path: Path) -> Iterator[Estate]:
    """Every estate of a bundle; raises BundleError naming the file."""
    try:
        with gzip.open(path, "rb") as file:
            lines = _lines(file, path)
            _check_header(next(lines, b""), path)
            decoder = msgspec.json.Decoder(Estate)
            for line in lines:
                yield decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: is damaged: {printable(error)}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BundleError(f"{path}: is not a whole bundle: {printable(error)}") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or printable(error)}") from None


def _lines(file: gzip.GzipFile, path: Path) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise BundleError(f"{path}: a line is longer than {MAX_LINE >> 20} MiB")
        yield line


def _check_header(line: bytes, path: Path) -> None:
    header = msgspec.json.decode(line or b"{}", type=dict[str, msgspec.Raw])
    if "format" not in header or bytes(header["format"]) != f'"{FORMAT}"'.encode():
        raise BundleError(f"{path}: is not a kubeposture bundle")
    version = msgspec.json.decode(header.get("version", msgspec.Raw(b"0")))
    if version != VERSION:
        raise BundleError(f"{path}: has bundle version {version}; this kubeposture reads version {VERSION}")
