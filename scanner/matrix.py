"""The three clouds' answers side by side: clusters and the questions that checks of several clouds answer."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from scanner.check import Check
from scanner.model import WORST_FIRST, Cluster, PlaneState, Status
from scanner.questions import QUESTIONS
from scanner.resources import clusters_of, resource_of
from scanner.summary import Tally

NO_SETTING = "no_setting"
NOT_JUDGED = "not_judged"  # no check of it was selected, or what it is about was not asked for


class Cell(msgspec.Struct, frozen=True):
    """`answer` is the worst status of the question's checks, no_setting or not_judged. `exempted` is whether that rests
    on exempted findings alone. `reason` says why there is no setting."""

    answer: str
    exempted: bool = False
    checks: tuple[str, ...] = ()
    reason: str = ""


class MatrixRow(msgspec.Struct):
    """One cluster; `cells` by question."""

    cluster_id: str
    cluster: str
    provider: str
    account: str | None
    region: str | None
    cells: dict[str, Cell]


class MatrixQuestion(msgspec.Struct):
    id: str
    title: str
    criterion: str


class Matrix(msgspec.Struct):
    """Nothing in it where no cluster of a cloud was judged by a check that answers a question."""

    questions: list[MatrixQuestion] = []
    clusters: list[MatrixRow] = []


def matrix(
    tally: Tally, clusters: Iterable[Cluster], checks: Iterable[Check], accounts: Mapping[tuple[str, str | None], str]
) -> Matrix:
    """`checks` are those that were selected, `accounts` the rows of the tally by account and region: what is judged of
    an account holds for each of its clusters."""
    asked: _Asked = defaultdict(list)
    for check in checks:
        resource = resource_of(check.scope)
        asked[check.provider, check.question].append((check.id, bool(resource and resource.inside)))
    statuses = _statuses(tally)
    rows = [
        MatrixRow(c.id, c.name, c.provider, c.account, c.region, _cells(c, asked, statuses, accounts))
        for c in clusters
        if clusters_of(c.provider)
        and c.control_plane is not PlaneState.NOT_ASKED
        and "/connectedclusters/" not in c.id.lower()
    ]
    if not rows or not any(question for _, question in asked):
        return Matrix()
    return Matrix([MatrixQuestion(id, q.title, q.criterion) for id, q in QUESTIONS.items()], rows)


# cloud, question -> ids of checks, and whether each judges clusters and not what their account has
_Asked = dict[tuple[str | None, str | None], list[tuple[str, bool]]]
_Statuses = dict[tuple[str, str], tuple[set[Status], set[Status]]]  # row, check -> counted and exempted ones


def _statuses(tally: Tally) -> _Statuses:
    found: _Statuses = defaultdict(lambda: (set(), set()))
    for (row, check, _, status), n in tally.counts.items():
        if n > 0:
            found[row, check][0].add(status)
    for (row, check, status), n in tally.exempt.items():
        if n > 0:
            found[row, check][1].add(status)
    return dict(found)


def _cells(
    cluster: Cluster, asked: _Asked, statuses: _Statuses, accounts: Mapping[tuple[str, str | None], str]
) -> dict[str, Cell]:
    places = [(cluster.account or "", cluster.region), (cluster.account or "", None)]
    # What an account says of clusters is about those that it could not list.
    rows = {True: [cluster.id], False: [accounts[place] for place in places if place in accounts]}
    cells = {}
    for id, question in QUESTIONS.items():
        if cluster.provider in question.absent:
            cells[id] = Cell(NO_SETTING, reason=question.absent[cluster.provider])
            continue
        own = asked.get((cluster.provider, id), [])
        found = [statuses[row, check] for check, inside in own for row in rows[inside] if (row, check) in statuses]
        cells[id] = _cell([check for check, _ in own], found)
    return cells


def _cell(checks: list[str], found: list[tuple[set[Status], set[Status]]]) -> Cell:
    counted = {status for statuses, _ in found for status in statuses}
    exempted = {status for _, statuses in found for status in statuses}
    worst = next((status for status in WORST_FIRST if status in counted | exempted), None)
    if worst is None:
        return Cell(NOT_JUDGED, checks=tuple(checks))
    return Cell(worst.value, worst not in counted, tuple(checks))


def totals(found: Matrix) -> dict[str, dict[str, Counter[str]]]:
    """By question and cloud, how many clusters have which answer."""
    counts: dict[str, dict[str, Counter[str]]] = {q.id: defaultdict(Counter) for q in found.questions}
    for row in found.clusters:
        for id, cell in row.cells.items():
            counts[id][row.provider][cell.answer] += 1
    return counts
