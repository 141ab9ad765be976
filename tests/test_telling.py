"""What sinks are told from night to night: what changed, once, and nothing that was not proven."""

import json
import sqlite3
import time
from collections import Counter

import pytest
from apiserver import ApiServer, hang, status
from cli import kubeposture
from msgspec.structs import replace
from support import container, pod
from test_history import FINDING, PLACE, cover, seen
from test_history import night as look_at
from test_history_live import BAD, ESTATE, GOOD, LIMITS, PRIVILEGED, SOME, Cluster, deny_cluster_wide, lone, replica
from test_live import UID, namespace
from test_ocsf import check, read

from providers.kubernetes import connection
from scanner.cli import deliver
from scanner.history import outbox as outboxes
from scanner.history.database import Database
from scanner.history.lifecycle import About, compare
from scanner.history.outbox import Letter, Outbox
from scanner.history.recorder import ScanRow
from scanner.history.store import SqliteStore
from scanner.history.telling import DAY, HEARTBEAT, Look, Telling, packed, unpacked

CREATE, UPDATE, CLOSE = 1, 2, 3


class Receiver:
    """A sink in this process, which takes everything that is valid."""

    most_events, most_bytes = 50, 1_000_000

    def __init__(self):
        self.events = []

    def pack(self, event):
        return json.dumps(event).encode()

    def send(self, batch):
        self.events += [check(json.loads(packed.body)) for packed in batch]
        return {}

    def close(self):
        pass


class Nights(Cluster):
    """Nights of one cluster, each with what a receiver was told of it."""

    def __init__(self, path, receiver):
        super().__init__(path)
        self.receiver = receiver

    def told(self, *objects, args=SOME, **how):
        self.receiver.events.clear()
        self.report = self.night(*objects, args=(*args, "--deliver"), **how).report
        return self.findings()

    def findings(self):
        """(activity, check, namespace/name) of each event that is about a finding or a gap."""
        events = [e for e in self.receiver.events if e["class_uid"] == 2003]
        return Counter((e["activity_id"], e["metadata"]["event_code"], self.name(e)) for e in events)

    @staticmethod
    def name(event):
        thing = event["resources"][0]
        return f"{thing.get('namespace', '')}/{thing['name'] if thing['name'] != '*' else thing['type']}"

    def evaluate(self, *args):
        return super().evaluate(*args)


@pytest.fixture
def receiver(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "_BACKOFF", 0.01)
    monkeypatch.setattr(connection, "_LONGEST_WAIT", 0.05)
    (tmp_path / "kubeposture.yaml").write_text("sinks: [{webhook: {url: 'https://127.0.0.1:1'}}]")
    receiver = Receiver()
    monkeypatch.setattr(deliver, "_open", lambda sink: receiver)
    return receiver


@pytest.fixture
def nights(tmp_path, receiver):
    return Nights(tmp_path, receiver)


def opened(*names):
    return Counter((CREATE, check, name) for check in (PRIVILEGED, LIMITS) for name in names)


ALL = ("a/x", "b/y", "b/web")


def test_each_finding_is_told_once_and_each_scan(nights):
    assert nights.told(*ESTATE) == opened(*ALL)
    assert all(e["unmapped"]["baseline"] for e in nights.receiver.events if e["class_uid"] == 2003)
    assert [e["metadata"]["event_code"] for e in nights.receiver.events][-2:] == ["coverage-cluster", "scan"]
    first = nights.receiver.events[0]
    assert (first["status"], first["compliance"]["status"]) == ("New", "Fail")
    assert nights.told(*ESTATE) == Counter()
    assert [e["class_uid"] for e in nights.receiver.events] == [6007, 6007]
    assert nights.told(*ESTATE, lone("z", "a")) == opened("a/z")
    assert not any("baseline" in e["unmapped"] for e in nights.receiver.events)


def test_what_is_fixed_and_what_is_gone_is_closed_and_may_come_back(nights):
    nights.told(*ESTATE)
    first = {e["finding_info"]["uid"]: e for e in nights.receiver.events if e["class_uid"] == 2003}
    told = nights.told(lone("x", "a", GOOD), ESTATE[2])
    gone = ((CLOSE, PRIVILEGED, "a/x"), (CLOSE, PRIVILEGED, "b/y"), (CLOSE, LIMITS, "b/y"))
    assert told == Counter(gone)
    closed = [e for e in nights.receiver.events if e["class_uid"] == 2003]
    assert {(nights.name(e), e["status_detail"]) for e in closed} == {("a/x", "fixed"), ("b/y", "deleted")}
    for event in closed:
        before = first[event["finding_info"]["uid"]]
        assert (event["status"], event["compliance"]["status"]) == ("Resolved", "Pass")
        for same in ("cloud", "remediation", "severity"):
            assert event.get(same) == before.get(same)
        labels = before["resources"][0].pop("labels")
        assert (event["resources"], labels) == (
            before["resources"],
            ["team=a" if nights.name(event) == "a/x" else "team=b"],
        )
        assert event["finding_info"]["title"] == before["finding_info"]["title"]
        assert event["metadata"]["uid"] != before["metadata"]["uid"]
    assert nights.told(lone("x", "a", GOOD), ESTATE[2]) == Counter()
    assert nights.told(*ESTATE) == Counter((CREATE, *of) for _, *of in gone)


def test_a_file_of_events_has_what_is_resolved_too(nights):
    nights.night(*ESTATE)
    nights.night(lone("x", "a", GOOD), ESTATE[2], args=(*SOME, "-o", "ocsf=events", "--status", "all"))
    events = read((nights.path / "events").read_text())
    closed = [e for e in events if e["activity_id"] == CLOSE]
    resolved = {r["id"]: r for r in nights.rows("resolved")}
    assert {e["finding_info"]["uid"] for e in closed} == resolved.keys()
    assert len(closed) == len(resolved) == 3
    for event in closed:
        row = resolved[event["finding_info"]["uid"]]
        assert (event["status_detail"], event["compliance"]["status"]) == (row["close_reason"], "Pass")
    nights.night(*ESTATE, args=(*SOME, "-o", "ocsf=events"))
    back = [e for e in read((nights.path / "events").read_text()) if e["class_uid"] == 2003 and e["status_id"] == 1]
    assert {(e["finding_info"]["uid"], e["activity_id"]) for e in back} == {(id, CREATE) for id in resolved}


def test_only_what_changes_the_answer_is_an_update(nights, tmp_path):
    nights.told(*ESTATE)
    more = pod(BAD, container("b", securityContext={"privileged": False}), name="x", namespace="a")
    assert nights.told(*ESTATE[:2], replica(3, BAD, of="web", namespace="b")) == Counter()  # occurrences
    config = tmp_path / "kubeposture.yaml"
    plain = config.read_text()
    config.write_text(f"{plain}\nchecks: {{severity: {{{PRIVILEGED}: critical}}}}")
    assert nights.told(*ESTATE) == Counter((UPDATE, PRIVILEGED, name) for name in ALL)
    assert {e["severity"] for e in nights.receiver.events if e["class_uid"] == 2003} == {"Critical"}
    config.write_text(
        f"{plain}\nchecks: {{severity: {{{PRIVILEGED}: critical}}}}\n"
        f"exemptions: [{{checks: [{PRIVILEGED}], resources: {{namespace: a}}, reason: planned}}]"
    )
    assert nights.told(*ESTATE) == Counter([(UPDATE, PRIVILEGED, "a/x")])
    [event] = [e for e in nights.receiver.events if e["class_uid"] == 2003]
    assert (event["status"], event["status_detail"]) == ("Suppressed", "exempted: planned")
    assert more


def test_rollouts_names_order_and_bundles_are_no_news(nights):
    nights.told(*ESTATE)
    rolled = (replica(7, BAD, of="web", namespace="b"), lone("y", "b"), lone("x", "a"))
    assert nights.told(*rolled) == Counter()
    assert nights.told(*rolled, name="renamed") == Counter()
    assert nights.told(*rolled, by=nights.bundle) == Counter()


def test_a_denied_namespace_is_one_event_and_over_the_night_after(nights):
    nights.told(*ESTATE)

    def denied(server):
        deny_cluster_wide(server)
        server.deny("pods", "b")
        server.deny("jobs", "b")

    assert nights.told(*ESTATE, prepare=denied) == Counter([(CREATE, "coverage-gap", "b/lists")])
    assert nights.told(*ESTATE, prepare=denied) == Counter()
    assert nights.told(*ESTATE, args=(*SOME, "-n", "a")) == Counter()
    assert nights.told(*ESTATE, args=("-c", LIMITS)) == Counter()
    assert nights.told(*ESTATE) == Counter([(CLOSE, "coverage-gap", "b/lists")])
    [event] = [e for e in nights.receiver.events if e["class_uid"] == 2003]
    assert (event["status"], event["compliance"]["status"]) == ("Resolved", "Pass")
    assert event["metadata"]["correlation_uid"] == nights.report["scan"]["id"]
    assert nights.told(*ESTATE) == Counter()


@pytest.mark.parametrize("answer", [status(401), hang()], ids=["refuses", "hangs"])
@pytest.mark.parametrize("path", [r"^/", r"^/api/v1/namespaces/kube-system"], ids=["at all", "its uid"])
def test_a_cluster_that_cannot_be_read_is_told_and_closes_nothing(nights, path, answer):
    args = (*SOME, "--timeout", "2", "--request-timeout", "0.3", "--deliver")
    with ApiServer([namespace("kube-system", UID), *map(namespace, "ab"), *ESTATE]) as server:
        config = server.kubeconfig(nights.path / "config")
        nights.scan(config, *args)
        server.inject(path, answer)
        nights.receiver.events.clear()
        nights.scan(config, *args)
        assert nights.code == (4 if path == r"^/" else 3)
        told = nights.findings()
        assert {activity for activity, *_ in told} == {CREATE}
        if path != r"^/":
            assert told == Counter([(CREATE, "coverage-gap", "kube-system/namespaces")])
        assert {code for _, code, _ in told} <= {"coverage-gap", "coverage-cluster"}
        server._rules.clear()
        nights.receiver.events.clear()
        nights.scan(config, *args)
        assert nights.findings() == Counter({(CLOSE, code, name): n for (_, code, name), n in told.items()})
        nights.receiver.events.clear()
        nights.scan(config, *args)
        assert nights.findings() == Counter()


def test_a_sink_hears_of_what_is_open_every_25_days(nights, monkeypatch):
    nights.told(*ESTATE)
    assert nights.told(*ESTATE) == Counter()
    monkeypatch.setattr(outboxes, "HEARTBEAT", -1)
    assert nights.told(*ESTATE) == Counter((UPDATE, check, name) for check in (PRIVILEGED, LIMITS) for name in ALL)
    assert outboxes.HEARTBEAT == -1
    monkeypatch.undo()
    assert outboxes.HEARTBEAT == 25 * DAY


def test_an_interrupted_scan_tells_that_it_was_and_nothing_else(nights, monkeypatch):
    from scanner.cli.judge import Scan as Judge

    def interrupted(self):
        raise KeyboardInterrupt

    real = Judge._judge_waiting

    def night(*objects):
        calls = []
        stop = lambda self: real(self) if calls else interrupted(calls.append(1))  # noqa: E731
        with monkeypatch.context() as patch:
            patch.setattr(Judge, "_judge_waiting", stop)
            told = nights.told(*objects)
        assert (nights.code, nights.report["scan"]["exit_reasons"][0], told) == (130, "interrupted", Counter())

    def scans():
        return [e["activity_name"] for e in nights.receiver.events if e["metadata"]["event_code"] == "scan"]

    night(*ESTATE)
    assert (nights.told(*ESTATE), scans()) == (opened(*ALL), ["Completed"])  # it knew of nothing then
    night(ESTATE[2])
    assert (nights.told(*ESTATE), scans()) == (Counter(), ["Cancelled", "Completed"])


def test_scans_that_deliver_nothing_are_made_up_for(nights):
    nights.told(*ESTATE)
    nights.receiver.events.clear()
    nights.night(ESTATE[2])
    assert nights.receiver.events == []
    told = nights.told(ESTATE[2], lone("z", "a"))
    closed = Counter((CLOSE, check, name) for check in (PRIVILEGED, LIMITS) for name in ("a/x", "b/y"))
    assert told == closed + opened("a/z")


def test_a_sink_that_comes_later_gets_its_own_baseline(nights, tmp_path):
    nights.night(*ESTATE)
    assert nights.told(*ESTATE) == opened(*ALL)
    config = tmp_path / "kubeposture.yaml"
    config.write_text(config.read_text().replace("{webhook", "{name: first, webhook"))
    assert nights.told(*ESTATE) == opened(*ALL)
    assert all(e["unmapped"]["baseline"] for e in nights.receiver.events if e["class_uid"] == 2003)


def test_a_narrower_look_does_not_make_a_gap_smaller(nights):
    def denied(server):
        deny_cluster_wide(server)
        server.deny("pods", "b")
        server.deny("services", "b")

    wide = (*SOME, "-c", "k8s-service-allowed-ports")
    nights.told(*ESTATE, args=wide, prepare=denied)
    assert nights.told(*ESTATE, args=("-c", LIMITS), prepare=denied) == Counter()
    assert {code for _, code, _ in nights.told(*ESTATE, args=("-c", LIMITS))} == {LIMITS}
    assert nights.told(*ESTATE, args=wide)[CLOSE, "coverage-gap", "b/lists"] == 1


def test_another_reason_is_an_update_of_the_same_gap(nights):
    def answers(code):
        def prepare(server):
            deny_cluster_wide(server)
            server.inject(r"^/api/v1/namespaces/b/pods", status(code))

        return prepare

    assert nights.told(*ESTATE, prepare=answers(403))[CREATE, "coverage-gap", "b/pods"] == 1
    assert nights.told(*ESTATE, prepare=answers(500)) == Counter([(UPDATE, "coverage-gap", "b/pods")])
    assert (CLOSE, "coverage-gap", "b/pods") in nights.told(*ESTATE)


def test_an_older_bundle_neither_opens_nor_closes_a_gap(nights, monkeypatch):
    def denied(server):
        deny_cluster_wide(server)
        server.deny("pods", "b")

    with ApiServer([namespace("kube-system", UID), *map(namespace, "ab"), *ESTATE]) as server:
        config = server.kubeconfig(nights.path / "config")
        kubeposture("collect", "kubeconfig", "--kubeconfig", config, "-o", "whole")
        denied(server)
        kubeposture("collect", "kubeconfig", "--kubeconfig", config, "-o", "part")
    later = Look(frozenset(), frozenset(), WIDE, at=2)
    assert not later.covers(Look(frozenset(), frozenset(), WIDE, at=3))
    time.sleep(1.1)  # times are in seconds
    nights.told(*ESTATE, prepare=denied)
    nights.receiver.events.clear()
    kubeposture("evaluate", "whole", "-o", "json", "--history", "h.db", "--deliver", *SOME)
    assert nights.findings() == Counter()
    told = nights.told(*ESTATE)
    assert {(activity, code) for activity, code, _ in told} == {
        (CREATE, PRIVILEGED),
        (CREATE, LIMITS),
        (CLOSE, "coverage-gap"),
    }
    nights.receiver.events.clear()
    kubeposture("evaluate", "part", "-o", "json", "--history", "h.db", "--deliver", *SOME)
    assert nights.findings() == Counter()


def test_a_clock_that_was_ahead_silences_nothing(nights):
    nights.told(*ESTATE)
    with sqlite3.connect(nights.path / "h.db") as connection:
        connection.execute("update coverage set observed_at = observed_at + 40000000")
        connection.execute("update told set at = at + 40000000")
    connection.close()
    assert nights.told(*ESTATE, lone("z", "a"))[CREATE, PRIVILEGED, "a/z"] == 1
    assert nights.told(*ESTATE[1:])[CLOSE, PRIVILEGED, "a/x"] == 1


@pytest.mark.parametrize(
    "damage",
    [
        "update told_unread set event = x'00'",
        "update told_unread set look = x'00'",
        "update findings set status = 'odd'",
        "update findings set severity = 'odd'",
    ],
)
def test_a_damaged_row_costs_only_itself(nights, damage):
    nights.told(*ESTATE, prepare=lambda server: server.deny("jobs"))
    nights.night(ESTATE[2])
    with sqlite3.connect(nights.path / "h.db") as connection:
        connection.execute(damage)
    connection.close()
    told = nights.told(ESTATE[2], lone("z", "a"))
    assert told[CREATE, PRIVILEGED, "a/z"] == 1
    assert nights.receiver.events[-1]["metadata"]["event_code"] == "scan"
    assert nights.told(ESTATE[2], lone("z", "a")) == Counter()


def test_another_cluster_of_the_same_context_closes_nothing(nights, tmp_path):
    broken = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: /nowhere/plugin, interactiveMode: Never}}"
    (tmp_path / "a").write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],"
        f" clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1'}}}}], users: [{{name: u, user: {broken}}}]}}"
    )
    nights.scan(tmp_path / "a", *SOME, "--deliver")
    lost = nights.findings()
    assert {activity for activity, *_ in lost} == {CREATE}
    assert not any(activity == CLOSE for activity, *_ in nights.told(*ESTATE, name="c"))


class Server:
    """One API server of one cluster, which may hold something else each night, and hide its identity."""

    def __init__(self, nights, server):
        self.nights, self.server = nights, server
        self.config = server.kubeconfig(nights.path / "config")

    def night(self, *objects, hidden="", answer=403, args=()):
        self.server._rules.clear()
        self.server._store.clear()
        self.server.add(namespace("kube-system", UID), *map(namespace, "ab"), *objects)
        if hidden:
            self.server.inject(hidden, status(answer))
        self.nights.receiver.events.clear()
        self.nights.scan(self.config, *SOME, "--deliver", *args)
        return self.nights.findings()


HIDDEN = r"^/api/v1/namespaces/kube-system$"
NAMELESS = (CREATE, "coverage-gap", "kube-system/namespaces")


def test_a_cluster_whose_identity_becomes_known_keeps_no_double(nights):
    with ApiServer([]) as api:
        server = Server(nights, api)
        assert server.night(*ESTATE, hidden=HIDDEN) == opened(*ALL)
        first = {r["id"]: r["first_seen"] for r in nights.rows("open")}
        named = server.night(*ESTATE)
        assert named == opened(*ALL) + Counter((CLOSE, check, name) for _, check, name in opened(*ALL))
        closed = [e for e in nights.receiver.events if e["activity_id"] == CLOSE]
        assert {e["finding_info"]["uid"] for e in closed} == first.keys()
        assert all(e["status_detail"].startswith("goes by kp1_") for e in closed)
        assert sorted(r["first_seen"] for r in nights.rows("open")) == sorted(first.values())
        assert server.night(*ESTATE) == Counter()
        assert server.night() == Counter((CLOSE, check, name) for _, check, name in opened(*ALL))


def test_a_cluster_that_hides_its_identity_closes_nothing_and_says_so(nights):
    with ApiServer([]) as api:
        server = Server(nights, api)
        server.night(*ESTATE, hidden=HIDDEN)
        server.night(*ESTATE)
        assert server.night(lone("q", "a"), hidden=HIDDEN) == Counter([NAMELESS])
        assert nights.code == 3
        assert server.night(hidden=HIDDEN) == Counter()
        assert server.night(*ESTATE) == Counter([(CLOSE, *NAMELESS[1:])])


@pytest.mark.parametrize(("hidden", "answer"), [(r"^/", 401), (HIDDEN, 403)], ids=["all", "uid"])
def test_an_id_of_the_configuration_is_another_name_of_the_same_cluster(nights, tmp_path, hidden, answer):
    config = tmp_path / "kubeposture.yaml"
    config.write_text(f"{config.read_text()}\ncluster_ids: {{local: shop-1}}")
    with ApiServer([]) as api:
        server = Server(nights, api)
        server.night(*ESTATE)
        told = server.night(*ESTATE, hidden=hidden, answer=answer)
        assert {code for _, code, _ in told} <= {"coverage-gap", "coverage-cluster"}
        assert server.night(*ESTATE, hidden=hidden, answer=answer) == Counter()
        assert server.night(*ESTATE) == Counter({(CLOSE, code, name): n for (_, code, name), n in told.items()})
        assert server.night(*ESTATE) == Counter()


WIDE = ("*",)


@pytest.mark.parametrize(
    ("tonight", "then", "covered"),
    [
        (Look(frozenset("ab"), frozenset("d"), WIDE), Look(frozenset("a"), frozenset("d"), WIDE), True),
        (Look(frozenset("a"), frozenset("d"), WIDE), Look(frozenset("ab"), frozenset("d"), WIDE), False),
        (Look(frozenset("a"), frozenset("c"), WIDE), Look(frozenset("a"), frozenset("cd"), WIDE), False),
        (Look(frozenset("a"), frozenset("d"), WIDE), Look(frozenset("a"), frozenset("d"), ("b",)), True),
        (Look(frozenset("a"), frozenset("d"), ("b",)), Look(frozenset("a"), frozenset("d"), ("b",)), True),
        (Look(frozenset("a"), frozenset("d"), ("b",)), Look(frozenset("a"), frozenset("d"), WIDE), False),
        (Look(frozenset("a"), frozenset("d"), WIDE, ("x*",)), Look(frozenset("a"), frozenset("d"), WIDE), False),
        (Look(frozenset("a"), frozenset("d"), WIDE, ("x*",)), Look(frozenset("a"), frozenset("d"), ()), True),
    ],
)
def test_what_one_look_covers_of_another(tonight, then, covered):
    assert tonight.covers(then) is covered


def test_two_looks_at_one_thing_are_one():
    one = Look(frozenset("ab"), frozenset("c"), ("n",), ("x",), 5)
    two = Look(frozenset("bd"), frozenset("d"), ("m", "n"), ("w", "x"), 3)
    both = Look(frozenset("b"), frozenset("cd"), ("m", "n"), ("w", "x"), 5)
    assert one.beside(two) == two.beside(one) == both
    telling = Telling((), "", {}, None)
    for look in (one, two):
        telling.look("somewhere", look)
    assert telling.looks == {"somewhere": both}


# -- the outbox alone -------------------------------------------------------------------------------------------------


NOW, SCAN_ID = 100 * DAY, "0198a000-0000-7000-8000-000000000000"
UNREAD = {
    "severity_id": 3, "status_id": 1, "unmapped": {}, "finding_info": {"uid": "gap"}, "metadata": {}, "compliance": {},
}  # fmt: skip
SUMMARY = {"class_uid": 6007}
ALL_OF_IT = Look(frozenset(), frozenset(), ("*",))


class Book:
    """A history of one place, each night at its own time."""

    def __init__(self, path, *sinks):
        self.path, self.sinks = path, sinks or ("soc",)

    def store(self, now=NOW):
        return SqliteStore(Database(self.path / "h.db", now=now))

    def night(self, *ids, now=NOW, sinks=None, unread=(), look=None, taken=None, observed=NOW, **more):
        """What each sink is to be told of findings of these ids; `taken` are those whose events are at hand."""
        sinks = self.sinks if sinks is None else sinks
        store = self.store(now)
        before = store.load(sinks)
        telling = Telling(sinks, SCAN_ID, {}, self.path)
        tonight = look_at({id: seen(observed=observed, **more) for id in ids}, observed=observed)
        if "check" in more:
            tonight.cover((PLACE, more["check"]), cover(observed=observed))
        for id in ids if taken is None else taken:
            telling.take(replace(FINDING, id=id, scan_id=SCAN_ID))
        telling.looks = {PLACE: look} if look else {}
        telling.end([(PLACE, event) for event in unread], [SUMMARY])
        changes = dict(compare(before.known, tonight, before.last))
        store.save(ScanRow("scan", now - 1, now, True), tonight, before, changes, telling)
        telling.close()
        return self

    @property
    def outbox(self):
        return Outbox(Database(self.path / "h.db", now=NOW))

    def waiting(self, sink="soc"):
        return self.outbox.letters(sink, 0, 100)

    def sent(self, sink="soc"):
        """Activity and id of each event, which is then gone."""
        letters = self.waiting(sink)
        self.outbox.settle([letter.number for letter in letters], {})
        return [(letter.activity, uid(letter)) for letter in letters]


def uid(letter: Letter):
    return unpacked(letter.event).get("finding_info", {}).get("uid", "scan")


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path)


SCANNED = (0, "scan")


def test_a_finding_under_a_new_id_is_closed_under_the_old_one_first(book):
    assert book.night("old", "other").sent() == [(CREATE, "old"), (CREATE, "other"), SCANNED]
    assert book.night("new", observed=NOW - 1, previous_ids=("old",)).sent() == [SCANNED]  # an older look
    book.night("new", check="k8s-new", previous_ids=("older", "old"), sinks=("late", "soc"))
    assert book.sent("late") == [(CREATE, "new"), SCANNED]
    close, create, *rest = book.waiting()
    assert (close.activity, uid(close)) == (CLOSE, "old")
    event = unpacked(close.event)
    assert (event["status"], event["status_detail"]) == ("Resolved", "goes by new from now on")
    assert event["metadata"]["uid"] != unpacked(create.event)["metadata"]["uid"]
    assert (create.activity, uid(create)) == (CREATE, "new")
    assert [(letter.activity, uid(letter)) for letter in rest] == [(CLOSE, "other"), SCANNED]
    book.sent()
    assert book.night("new", check="k8s-new", previous_ids=("older", "old")).sent() == [SCANNED]


def test_what_a_sink_knows_is_told_again_after_25_days(book):
    book.night("f", unread=[UNREAD], look=ALL_OF_IT).sent()
    for now in (NOW - DAY, NOW + HEARTBEAT - 1):
        assert book.night("f", now=now, unread=[UNREAD], look=ALL_OF_IT).sent() == [SCANNED]
        assert book.store(now).load(book.sinks).behind == frozenset()
    for now in (NOW - DAY - 1, NOW - DAY - 1 + HEARTBEAT):
        assert book.store(now).load(book.sinks).behind == {"f"}
        told = book.night("f", now=now, unread=[UNREAD], look=ALL_OF_IT).sent()
        assert told == [(UPDATE, "f"), (UPDATE, "gap"), SCANNED]


def test_who_is_behind_is_known_for_each_sink(book):
    assert book.store().load(["soc"]).behind is None
    book.night("f", sinks=("a", "b"))
    book.night("f", "g", sinks=("a",))
    assert [book.store().load(names).behind for names in ("a", "b", "ab", "ba", "ac")] == [
        frozenset(), {"g"}, {"g"}, {"g"}, None,
    ]  # fmt: skip
    book.night("f", "g", sinks=("a", "b", "c"))
    told = {name: [(letter.activity, uid(letter), letter.baseline) for letter in book.waiting(name)] for name in "abc"}
    assert told == {
        "a": [(CREATE, "f", True), (*SCANNED, False), (CREATE, "g", False), (*SCANNED, False), (*SCANNED, False)],
        "b": [(CREATE, "f", True), (*SCANNED, False), (CREATE, "g", False), (*SCANNED, False)],
        "c": [(CREATE, "f", True), (CREATE, "g", True), (*SCANNED, False)],
    }
    standings = {standing.name: standing for standing in book.outbox.standings()}
    assert {name: (standing.open, standing.waiting, standing.refused) for name, standing in standings.items()} == {
        "a": (2, 5, 0), "b": (2, 4, 0), "c": (2, 3, 0),
    }  # fmt: skip


def test_what_came_and_went_between_is_not_told(book):
    book.night("f").sent()
    book.night("f", "g", sinks=())
    book.night("f", sinks=())
    assert book.night("f").sent() == [SCANNED]
    book.night("f", "h", sinks=("team",))
    book.night("f")
    assert book.sent() == [SCANNED]  # nobody told it of h


def test_what_another_scan_has_found_waits_for_its_event(book):
    book.night("f", taken=())
    assert book.sent() == [SCANNED]
    assert book.night("f").sent() == [(CREATE, "f"), SCANNED]


def test_a_list_is_told_as_what_could_not_be_read_alone(book):
    assert book.night("f", about=About.LIST).sent() == [SCANNED]
    assert book.store().load(book.sinks).behind == frozenset()


@pytest.mark.parametrize("then", [None, Look(frozenset("c"), frozenset("d"), ("a",))], ids=["nobody asked", "a look"])
def test_a_gap_is_closed_by_a_look_that_covers_it(book, then):
    assert book.night(unread=[UNREAD], look=then).sent() == [(CREATE, "gap"), SCANNED]
    narrow = [None] if then is None else [None, replace(then, checks=frozenset()), replace(then, asked=("b",))]
    other = UNREAD | {"unmapped": {"reason": "other"}}
    for look in narrow:
        assert book.night(look=look).sent() == [SCANNED]
        assert book.night(look=look, unread=[other]).sent() == [SCANNED]
    look = Look(frozenset("c"), frozenset("d"), ("*",))
    assert book.night(look=look, unread=[other]).sent() == [(UPDATE, "gap"), SCANNED]
    assert book.night(look=look).sent() == [(CLOSE, "gap"), SCANNED]
    assert book.night(look=look).sent() == [SCANNED]


def test_what_is_closed_is_so_for_each_sink_and_leaves_the_rest_open(book):
    book.sinks, other = ("soc", "team"), UNREAD | {"finding_info": {"uid": "other"}}
    book.night("f", "g", unread=[UNREAD, other], look=ALL_OF_IT)
    book.night("g", unread=[other], look=ALL_OF_IT)
    book.night(look=ALL_OF_IT)
    opened = [(CREATE, "f"), (CREATE, "g"), (CREATE, "gap"), (CREATE, "other"), SCANNED]
    closed = [(CLOSE, "f"), (CLOSE, "gap"), SCANNED, (CLOSE, "g"), (CLOSE, "other"), SCANNED]
    assert book.sent("soc") == book.sent("team") == opened + closed


def test_a_scan_that_changes_nothing_tells_only_whom_it_told_before(book):
    telling = Telling(("soc",), SCAN_ID, {}, book.path, summaries=[packed(SUMMARY)])
    book.store().tell(telling)
    assert (book.sent(), book.outbox.standings()) == ([], [])
    book.night("f").sent()
    book.store().tell(telling)
    assert [(letter.activity, letter.baseline) for letter in book.waiting()] == [(0, False)]


def test_what_is_dropped_is_forgotten_as_it_was_told_to_that_sink(book):
    book.sinks = ("soc", "team")
    book.night("f", "g").sent("team")
    book.outbox.settle([], {letter.number: "no" for letter in book.waiting()})
    book.night("f", "g", digest="e", now=NOW + 1, taken=("g",)).sent()
    assert book.sent("team") == [(UPDATE, "g"), SCANNED]
    assert book.outbox.drop("soc") == 3
    book.night("f", "g", digest="e", now=NOW + 2)
    assert book.sent() == [(CREATE, "f"), SCANNED]  # g was told since
    assert book.sent("team") == [(UPDATE, "f"), SCANNED]


def test_what_was_refused_is_sent_again_where_it_is_still_so(book):
    def refuse():
        outbox, letters = book.outbox, book.waiting()
        outbox.settle([], {letter.number: "no" for letter in letters})
        return len(letters)

    book.night("f", "g", unread=[UNREAD], look=ALL_OF_IT)
    assert refuse() == 4
    book.night("f", now=NOW + 1, look=ALL_OF_IT).sent()  # g and the gap are closed
    assert book.outbox.retry("other") == 0
    assert book.outbox.retry("soc") == 2
    assert book.sent() == [(CREATE, "f"), SCANNED]
    book.night("f", "h", now=NOW + 2, unread=[UNREAD], look=ALL_OF_IT)
    assert refuse() == 3
    book.night("f", "h", now=NOW + 3, unread=[UNREAD], look=ALL_OF_IT).sent()
    assert (book.outbox.drop("other"), book.outbox.drop("soc"), book.outbox.retry("soc")) == (0, 3, 0)
    told = book.night("f", "h", now=NOW + 4, unread=[UNREAD], look=ALL_OF_IT).sent()
    assert told == [(CREATE, "h"), (CREATE, "gap"), SCANNED]
    book.night(now=NOW + 5, look=ALL_OF_IT)
    assert refuse() == 4
    assert book.outbox.retry("soc") == 4  # closed, and not open again
    assert book.sent() == [(CLOSE, "f"), (CLOSE, "h"), (CLOSE, "gap"), SCANNED]
