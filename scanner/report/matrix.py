"""The matrix as lines of text: questions down, clusters or clouds across."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from scanner.kube import printable
from scanner.matrix import NO_SETTING, NOT_JUDGED, Matrix, MatrixQuestion, MatrixRow, totals

_SHOWN = {"not_applicable": "n/a", NO_SETTING: "-", NOT_JUDGED: ""}
_CLOUDS = {"azure": "AKS", "aws": "EKS", "gcp": "GKE"}
_ANSWERS = ("fail", "error", "unknown", "pass")  # worst first
_COLUMN = 11


def answer(row: MatrixRow, question: MatrixQuestion) -> str:
    """`*` where all that it rests on is exempted."""
    said = row.answers.get(question.id, NOT_JUDGED)
    return _SHOWN.get(said, printable(said, _COLUMN - 1)) + ("*" if question.id in row.exempted else "")


def clusters(matrix: Matrix, width: int) -> Iterator[str]:
    """A block for as many clusters as fit side by side, with a legend of what is not there."""
    first = _first(matrix)
    size = max(1, (width - first) // (_COLUMN + 2))
    rows = sorted(matrix.clusters, key=lambda row: (row.provider, row.cluster, row.cluster_id))
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        yield from _heads([_head(row) for row in block], first)
        for question in matrix.questions:
            yield _line(_title(question), first, (answer(row, question) for row in block))
        yield ""
    yield from _legend(matrix, width)


def clouds(matrix: Matrix) -> Iterator[str]:
    """Of each cloud the worst answer, how many of its clusters give it, and beside fails how many are not known."""
    first, counts = _first(matrix), totals(matrix)
    providers = [name for name in _CLOUDS if any(row.provider == name for row in matrix.clusters)]
    yield _line("", first, (_CLOUDS[name] for name in providers), wide=True)
    for question in matrix.questions:
        yield _line(_title(question), first, (_total(counts[question.id][name]) for name in providers), wide=True)


def _total(counts: dict[str, int]) -> str:
    answered = sum(n for answer, n in counts.items() if answer in _ANSWERS)
    for answer in _ANSWERS:
        if n := counts.get(answer, 0):
            unsure = sum(counts.get(other, 0) for other in ("error", "unknown")) if answer == "fail" else 0
            return f"{n} of {answered} {answer}" + (f", {unsure}?" if unsure else "")
    return next((_SHOWN[answer] for answer in ("not_applicable", NO_SETTING) if counts.get(answer)), "")


def _first(matrix: Matrix) -> int:
    return max(len(_title(question)) for question in matrix.questions) + 2


def _title(question: MatrixQuestion) -> str:
    return printable(question.title, 40)


def _head(row: MatrixRow) -> tuple[str, str, str]:
    place = printable(row.region or row.account or "", 40)
    return _cloud(row.provider), place, printable(row.cluster, 60)


def _cloud(provider: str) -> str:
    return _CLOUDS.get(provider) or printable(provider, _COLUMN)


def _heads(heads: Sequence[tuple[str, str, str]], first: int) -> Iterator[str]:
    """Cloud, place, and the name on as many lines as it takes."""
    names = [textwrap.wrap(name, _COLUMN, break_on_hyphens=True) for _, _, name in heads]
    yield _line("", first, (cloud for cloud, _, _ in heads))
    places = [textwrap.wrap(place, _COLUMN) for _, place, _ in heads]
    for wrapped in (places, names):
        for cells in zip_longest(*wrapped, fillvalue=""):
            yield _line("", first, cells)


def _line(title: str, first: int, cells: Iterable[str], *, wide: bool = False) -> str:
    column = 2 * _COLUMN if wide else _COLUMN
    return f"{title:<{first}}{'  '.join(f'{cell:<{column}}' for cell in cells)}".rstrip()


def _legend(matrix: Matrix, width: int) -> Iterator[str]:
    clouds_here = {row.provider for row in matrix.clusters}
    absent = [
        f"{_title(question)} on {_cloud(provider)}: {printable(why, 200)}"
        for question in matrix.questions
        for provider, why in question.absent.items()
        if provider in clouds_here
    ]
    if absent:
        yield "- no such setting:"
    for sentence in absent:
        yield from textwrap.wrap(sentence, width, initial_indent="  ", subsequent_indent="    ")
    if any(row.exempted for row in matrix.clusters):
        yield "* exempted"
    yield "What each question asks:"
    for question in matrix.questions:
        sentence = f"{_title(question)}: {printable(question.criterion, 300)}"
        yield from textwrap.wrap(sentence, width, initial_indent="  ", subsequent_indent="    ")
