"""The three clouds' answers side by side: clusters and the questions that checks of several clouds answer."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from scanner.check import Check
from scanner.model import WORST_FIRST, Cluster, PlaneState, Status
from scanner.questions import QUESTIONS, Question
from scanner.resources import clusters_of, resource_of
from scanner.summary import Tally

NO_SETTING = "no_setting"
NOT_JUDGED = "not_judged"  # no check of it was selected, or what it is about was not asked for


class MatrixRow(msgspec.Struct):
    """One cluster. `answers` by question: the worst status of its checks, no_setting or not_judged; `exempted` are the
    questions whose answer rests on exempted findings alone."""

    cluster_id: str
    cluster: str
    provider: str
    account: str | None
    region: str | None
    answers: dict[str, str]
    exempted: list[str] = []


class MatrixQuestion(msgspec.Struct):
    """`checks` answer it, by cloud; of a cloud without any, `absent` says why it has no such setting."""

    id: str
    title: str
    criterion: str
    checks: dict[str, list[str]] = {}
    absent: dict[str, str] = {}


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
        _row(cluster, asked, statuses, accounts)
        for cluster in clusters
        if clusters_of(cluster.provider)
        and cluster.control_plane is not PlaneState.NOT_ASKED
        and "/connectedclusters/" not in cluster.id.lower()
    ]
    if not rows or not any(question for _, question in asked):
        return Matrix()
    return Matrix([_question(id, question, asked) for id, question in QUESTIONS.items()], rows)


def _question(id: str, question: Question, asked: _Asked) -> MatrixQuestion:
    checks = {cloud: [c for c, _ in found] for (cloud, about), found in asked.items() if cloud and about == id}
    return MatrixQuestion(id, question.title, question.criterion, dict(sorted(checks.items())), dict(question.absent))


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


def _row(
    cluster: Cluster, asked: _Asked, statuses: _Statuses, accounts: Mapping[tuple[str, str | None], str]
) -> MatrixRow:
    places = [(cluster.account or "", cluster.region), (cluster.account or "", None)]
    # What an account says of clusters is about those that it could not list.
    rows = {True: [cluster.id], False: [accounts[place] for place in places if place in accounts]}
    answers, exempted = {}, []
    for id, question in QUESTIONS.items():
        own = asked.get((cluster.provider, id), [])
        found = [statuses[row, check] for check, inside in own for row in rows[inside] if (row, check) in statuses]
        counted = {status for several, _ in found for status in several}
        excused = {status for _, several in found for status in several}
        worst = next((status for status in WORST_FIRST if status in counted | excused), None)
        answers[id] = worst.value if worst else NO_SETTING if cluster.provider in question.absent else NOT_JUDGED
        if worst and worst not in counted:
            exempted.append(id)
    return MatrixRow(cluster.id, cluster.name, cluster.provider, cluster.account, cluster.region, answers, exempted)


def totals(found: Matrix) -> dict[str, dict[str, Counter[str]]]:
    """By question and cloud, how many clusters have which answer."""
    counts: dict[str, dict[str, Counter[str]]] = {q.id: defaultdict(Counter) for q in found.questions}
    for row in found.clusters:
        for id, answer in row.answers.items():
            counts[id][row.provider][answer] += 1
    return counts
