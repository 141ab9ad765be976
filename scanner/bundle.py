"""The bundle: what was read, saved, so that it can be judged elsewhere or again.

Gzipped JSON lines: a header, then one estate a line. Redacted by construction, as an estate holds only what checks
read: no environment, no Secret or ConfigMap data, no annotation that no check knows.
"""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from scanner import __version__
from scanner.collect import Estate
from scanner.destination import Destination
from scanner.kube import printable
from scanner.model import utc_now

FORMAT = "kubeposture-bundle"
VERSION = 1
MAX_LINE = 2**30  # bytes of one estate
_GZIP = 31  # wbits: the largest window, with the header and checksum of gzip


class BundleError(Exception):
    """A bundle that cannot be read: one sentence."""


class Header(msgspec.Struct, frozen=True):
    format: str
    version: int
    tool_version: str
    created_at: datetime


@contextlib.contextmanager
def written(path: Path) -> Iterator[Callable[[Estate], None]]:
    """Gives what takes the estates. At the end the bundle is there whole; after an error or interrupt, not at all."""
    file = Destination(path)
    # Not GzipFile: after a failed write it would write once more when it is thrown away.
    packer = zlib.compressobj(level=6, wbits=_GZIP)

    def add(value: object) -> None:
        file.write(packer.compress(msgspec.json.encode(value) + b"\n"))

    try:
        add(Header(FORMAT, VERSION, __version__, utc_now()))
        yield add
        file.write(packer.flush())
        file.close()
    finally:
        file.discard()


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
