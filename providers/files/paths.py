"""Paths that somebody named -> files, each once, and what stands in them."""

from __future__ import annotations

import functools
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

STDIN = "-"

Fail = Callable[[str, str], None]  # a path, and what is wrong with it


def expand(paths: Sequence[str], suffixes: tuple[str, ...], fail: Fail) -> Iterator[str]:
    """Files in a stable order, each once, however many links lead to it; links to directories are followed.

    A directory that holds none is an error: somebody expected it to.
    """
    seen: set[str] = set()
    real_folder = functools.cache(os.path.realpath)

    def real(path: str) -> str:
        folder, name = os.path.split(os.path.normpath(path))
        whole = os.path.islink(path) or name in (".", "..")
        return os.path.realpath(path) if whole else os.path.join(real_folder(folder), name)

    def is_new(path: str) -> bool:
        place = real(path)
        new = place not in seen
        seen.add(place)
        return new

    for path in paths:
        if path == STDIN or not os.path.isdir(path):
            yield from filter(is_new, [path])
            continue
        files = list(_walk(path, suffixes, fail, is_new))
        below = os.path.join(real(path), "")
        if not files and not any(p.startswith(below) and p.lower().endswith(suffixes) for p in seen):
            fail(path, f"holds no file that ends in {', '.join(suffixes)}")
        yield from filter(is_new, files)


def _walk(directory: str, suffixes: tuple[str, ...], fail: Fail, is_new: Callable[[str], bool]) -> Iterator[str]:
    def refused(error: OSError) -> None:
        fail(str(error.filename), f"cannot be read: {error.strerror}")

    for folder, folders, files in os.walk(directory, onerror=refused, followlinks=True):
        if not is_new(folder):
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if f != ".git")
        yield from (os.path.join(folder, f) for f in sorted(files) if f.lower().endswith(suffixes))


def content(path: str, limit: int) -> bytes:
    """Of a regular file, or of standard input; raises OSError, or ValueError for what is larger than so many bytes."""
    if path == STDIN and sys.stdin is None:
        raise ValueError("standard input is closed")
    if path == STDIN:
        data = sys.stdin.buffer.read(limit + 1)
        _bound(len(data), limit)
        return data
    mode = os.stat(path)
    if not stat.S_ISREG(mode.st_mode):
        raise ValueError("is no regular file")
    _bound(mode.st_size, limit)
    return Path(path).read_bytes()


def _bound(size: int, limit: int) -> None:
    if size > limit:
        most = f"the {limit >> 20} MiB that are read of one file"
        raise ValueError(f"has {size / 2**20:,.0f} MiB, more than {most}: split it")


def name_of(path: str) -> str:
    """A path as text: a file name may hold bytes that are no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
