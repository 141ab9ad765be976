"""Delivery: nothing is lost, whoever dies; what is refused is kept apart; and every problem is said in one line."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from cli import kubeposture
from registryserver import Reply, Server
from sinkserver import Collector, Receiver, Token, hec
from test_ocsf import check

from scanner.history.outbox import Letter
from scanner.history.telling import packed
from scanner.sinks import Refused, Unavailable, Unusable, delivery, webhook
from scanner.sinks.delivery import Delivery

TOKEN = "f1e2d3c4-secret-of-the-collector"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLUNK_HEC_TOKEN", TOKEN)
    monkeypatch.setattr(delivery, "_BACKOFF", 0.01)
    return tmp_path


def configure(folder, **sinks):
    rows = [{"name": name, kind: {"url": url}} for name, (kind, url) in sinks.items()]
    (folder / "kubeposture.yaml").write_text(json.dumps({"sinks": rows}))


def pods(*names):
    spec = {"containers": [{"name": "c", "image": "nginx", "securityContext": {"privileged": True}}]}
    items = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec} for name in names]
    return json.dumps({"kind": "List", "apiVersion": "v1", "items": items})


def scan(*names, args=()):
    args = ("-c", "k8s-privileged-container", "-o", "json", "--history", "h.db", "--deliver", *args)
    return kubeposture("scan", "manifests", "-", *args, stdin=pods(*names))


def deliver(*args):
    return kubeposture("deliver", "--history", "h.db", *args)


def sinks():
    return {row["name"]: row for row in json.loads(kubeposture("history", "sinks", "h.db", "-o", "json").stdout)}


def findings(collector):
    return [e["event"] for e in collector.events if e["event"]["class_uid"] == 2003]


def test_twenty_thousand_events_arrive_though_sender_and_receiver_are_killed(folder):
    (folder / "all.json").write_text(pods(*(f"pod-{n}" for n in range(3_000))))
    collector = Collector({TOKEN: Token(disabled=True)})
    with Server(collector) as first:
        configure(folder, splunk=("splunk", first.url))
        more = ("-q", "-o", "json=report", "--history", "h.db", "--deliver")
        result = kubeposture("scan", "manifests", "all.json", *more)
        assert result.code == 5, result.stderr
        assert "the token is disabled: enable it" in result.stderr
        found = {f["id"] for f in json.loads((folder / "report").read_text())["findings"]}
        waiting = sinks()["splunk"]["waiting"]
        assert len(found) >= 20_000
        assert waiting == len(found) + 1  # and the scan itself
        collector.tokens[TOKEN].disabled = False
        for kill in range(4):
            child = start()
            until(lambda n=kill, c=child: len(collector.events) >= (n + 1) * 3_000 or c.poll() is not None)
            child.kill()
            child.wait()
            assert child.returncode == -signal.SIGKILL
        last = start(subprocess.PIPE)
        until(lambda: len(collector.events) >= 15_000)
    time.sleep(0.5)  # nobody listens
    with Server(collector, port=first.port):
        _, said = last.communicate(timeout=120)
    assert last.returncode == 0, said
    uids = Counter(e["event"]["metadata"]["uid"] for e in collector.events)
    assert len(uids) == waiting
    assert {e["finding_info"]["uid"] for e in findings(collector)} == found
    assert 0 < sum(uids.values()) - len(uids) <= 5 * 1_000  # at most the batch that was under way, each time
    assert deliver().code == 0
    assert (sinks()["splunk"]["waiting"], sinks()["splunk"]["open"]) == (0, len(found))
    assert (folder / "h.db").stat().st_size < 10_000_000  # the room of what was sent is given back


def start(stderr=subprocess.DEVNULL):
    command = [sys.executable, "-m", "scanner", "deliver", "--history", "h.db", "-q"]
    return subprocess.Popen(command, stderr=stderr, text=True, env={**os.environ, "PYTHONPATH": ROOT})


ROOT = os.getcwd()


def until(done):
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_is_refused_is_kept_apart_and_may_be_sent_again(folder):
    poison = "pod-13"
    collector = Collector({TOKEN: Token()})

    def picky(request):
        before = len(collector.events)
        reply = collector(request)
        if any(poison in e["event"]["message"] for e in collector.events[before:]):
            del collector.events[before:]
            return hec(6)
        return reply

    with Server(picky) as server:
        configure(folder, soc=("splunk", server.url))
        result = scan(*(f"pod-{n:02}" for n in range(40)))
        assert result.code == 5
        assert "soc: 40 delivered, 1 refused (see `kubeposture history sinks`)" in result.stderr
        assert len({e["finding_info"]["uid"] for e in findings(collector)}) == 39
        [refused] = sinks()["soc"]["why"]
        assert refused["reason"].endswith("answered 400, code 6: invalid data format")
        table = kubeposture("history", "sinks", "h.db").stdout
        assert refused["id"] in table
        assert deliver().code == 5  # it is not forgotten
        assert deliver("--retry-refused").code == 5
        poison = "nothing"
        assert deliver("--retry-refused").code == 0
    assert len({e["finding_info"]["uid"] for e in findings(collector)}) == 40
    assert sinks()["soc"]["refused"] == 0


def test_what_is_refused_can_be_dropped(folder):
    with Server(lambda request: hec(6)) as server:
        configure(folder, splunk=("splunk", server.url))
        assert scan("a").code == 5
        assert sinks()["splunk"]["refused"] == 2
        assert deliver("--drop-refused").code == 0
        both = deliver("--drop-refused", "--retry-refused")
        assert (both.code, "exclude each other" in both.stderr) == (2, True)


def test_what_was_refused_does_not_undo_what_came_later(folder):
    """A Close that was refused, and sent again when the finding was back, would have the last word."""
    collector, refusing = Collector({TOKEN: Token()}), False

    def answer(request):
        return hec(6) if refusing else collector(request)

    with Server(answer) as server:
        configure(folder, splunk=("splunk", server.url))
        args = ("scan", "manifests", "a.json", "-c", "k8s-privileged-container", "--history", "h.db", "--deliver")
        (folder / "a.json").write_text(pods("a"))
        assert kubeposture(*args).code == 0
        (folder / "a.json").write_text(pods("a").replace('"privileged": true', '"privileged": false'))
        refusing = True
        assert kubeposture(*args).code == 5
        refusing = False
        (folder / "a.json").write_text(pods("a"))
        assert kubeposture(*args).code == 5
        assert deliver("--retry-refused").code == 0
    assert [e["event"]["activity_name"] for e in collector.events if e["event"]["class_uid"] == 2003] == ["Create"] * 2


def test_what_was_dropped_is_told_anew_where_it_is_still_so(folder):
    collector, refusing = Collector({TOKEN: Token()}), True
    with Server(lambda request: hec(6) if refusing else collector(request)) as server:
        configure(folder, splunk=("splunk", server.url))
        assert scan("a").code == 5
        assert deliver("--drop-refused").code == 0
        refusing = False
        assert scan("a").code == 0
    assert [e["event"]["activity_name"] for e in collector.events if e["event"]["class_uid"] == 2003] == ["Create"]


def test_only_one_delivers_at_a_time(folder):
    receiver, inside, most = Receiver(), [], []

    def slow(request):
        inside.append(request)
        most.append(len(inside))
        time.sleep(0.2)
        inside.pop()
        return receiver(request)

    with Server(slow) as server:
        configure(folder, webhook=("webhook", server.url))
        scan("a", "b")
        kubeposture("history", "forget", "webhook", "h.db")
        children = [start(subprocess.PIPE) for _ in range(2)]
        assert [child.wait(60) for child in children] == [0, 0]
        for child in children:
            child.stderr.close()
    assert max(most) == 1
    assert len(receiver.keys) == len({*receiver.keys})


def test_what_one_sink_breaks_is_not_lost_on_the_others(folder, monkeypatch):
    receiver = Receiver()
    with Server(receiver) as server:
        configure(folder, a=("webhook", server.url), b=("webhook", server.url))
        genuine = webhook.Webhook.send
        broken = []

        def send(self, batch):
            if not broken:
                broken.append(self)
                raise RecursionError
            return genuine(self, batch)

        monkeypatch.setattr(webhook.Webhook, "send", send)
        with pytest.raises(RecursionError):
            scan("a")
    assert len(receiver.events) == 2


def test_a_receiver_that_refuses_everything_keeps_what_waits(folder):
    with Server(lambda request: hec(6)) as server:
        configure(folder, splunk=("splunk", server.url))
        result = scan(*(f"pod-{n}" for n in range(60)))
        assert result.code == 5
        assert "refuses everything" in result.stderr
        rows = sinks()["splunk"]
        assert (rows["refused"], rows["waiting"]) == (20, 41)


def test_one_sink_that_is_away_holds_up_no_other(folder):
    collector, receiver = Collector({TOKEN: Token(disabled=True)}), Receiver()
    with Server(collector) as one, Server(receiver) as other:
        configure(folder, soc=("splunk", one.url), team=("webhook", other.url))
        result = scan("a", "b", args=("--fail-on", "low"))
        assert result.code == 1  # the gate says more
        assert "team: 3 delivered\n" in result.stderr
        assert len(receiver.events) == 3
        collector.tokens[TOKEN].disabled = False
        assert deliver("--sink", "team").code == 0
        assert deliver("--sink", "soc").code == 0
    assert len(collector.events) == 3
    assert deliver("--sink", "sco").stderr.count("did you mean soc?") == 1


def test_a_receiver_says_when_to_come_back(folder):
    busy = Reply(503, {"text": "Server is busy", "code": 9}, (("Retry-After", "1"),))
    collector = Collector({TOKEN: Token()}, replies=[busy])
    with Server(collector) as server:
        configure(folder, splunk=("splunk", server.url))
        started = time.monotonic()
        assert scan("a").code == 0
        assert time.monotonic() - started >= 1
        assert len(server.requests) == 2
    assert len(collector.events) == 2


def test_every_request_is_within_the_bounds(folder):
    (folder / "all.json").write_text(pods(*(f"pod-{n}" for n in range(300))))
    receiver = Receiver()
    with Server(receiver) as server:
        configure(folder, webhook=("webhook", server.url))
        kubeposture("scan", "manifests", "all.json", "-q", "-o", "json=report", "--history", "h.db", "--deliver")
        assert max(len(request.body) for request in server.requests) <= 1_000_000
        assert max(len(request.body.splitlines()) for request in server.requests) <= 1_000
        assert len(server.requests) > 3
    found = json.loads((folder / "report").read_text())["findings"]
    assert Counter(e["finding_info"]["uid"] for e in receiver.events if e["class_uid"] == 2003) == Counter(
        f["id"] for f in found
    )


def test_what_was_forgotten_is_told_anew(folder):
    receiver = Receiver()
    with Server(receiver) as server:
        configure(folder, webhook=("webhook", server.url))
        scan("a")
        scan("a")
        assert kubeposture("history", "forget", "webhook", "h.db").code == 0
        assert sinks() == {}
        scan("a")
        assert [e["unmapped"]["baseline"] for e in receiver.events if e["class_uid"] == 2003] == [True, True]
    again = kubeposture("history", "forget", "webhoook", "h.db")
    assert (again.code, "was ever told" in again.stderr) == (2, True)


def test_no_secret_is_kept_or_said(folder):
    with Server(Collector({TOKEN: Token(disabled=True)})) as server:
        configure(folder, splunk=("splunk", server.url))
        said = scan("a")
        told = deliver("-v")
    assert TOKEN not in said.stdout + said.stderr + told.stdout + told.stderr
    for path in folder.iterdir():
        assert TOKEN.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{}", "there is nobody to deliver to"),
        ("sinks: [{splunk: {url: 'http://example.com'}}]", "never sent unencrypted"),
        (
            "sinks: [{splunk: {url: 'https://example.com', token_env: NONE}}]",
            "the environment variable that token_env names",
        ),
        ("sinks: [{webhook: {url: 'https://a'}}, {webhook: {url: 'https://b'}}]", "two sinks are called webhook"),
        ("sinks: [{webhook: {url: 'https://a'}}]\nsinks: []", "a key that stands twice"),
        ("sinks: [{name: x}]", "exactly one of the keys splunk, sentinel"),
        ("sinks: [{splunk: {url: 'https://a', token: secret}}]", "unknown field `token`"),
    ],
)
def test_what_cannot_be_delivered_to_is_said_before_the_scan(folder, config, said):
    (folder / "kubeposture.yaml").write_text(config)
    for result in (scan("a"), deliver()):
        assert (result.code, result.stdout) == (2, "")
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (folder / "h.db").exists()


def test_a_sink_is_tried_without_a_scan(folder):
    collector, receiver = Collector({TOKEN: Token(disabled=True)}), Receiver()
    with Server(collector) as one, Server(receiver) as other:
        configure(folder, soc=("splunk", one.url), team=("webhook", other.url))
        tried = kubeposture("deliver", "--test")
        assert tried.code == 5
        assert "soc: 127.0.0.1" in tried.stdout
        assert "the token is disabled: enable it" in tried.stdout
        assert "team: took the test event\n" in tried.stdout
        [event] = receiver.events
        assert (check(event)["class_uid"], event["unmapped"]) == (6007, {"test": True})
        collector.tokens[TOKEN].disabled = False
        assert kubeposture("deliver", "--test", "--sink", "soc").code == 0
    assert not (folder / "h.db").exists()


def test_what_waits_for_a_sink_that_is_gone_is_said(folder):
    collector, receiver = Collector({TOKEN: Token(disabled=True)}), Receiver()
    with Server(collector) as one, Server(receiver) as other:
        configure(folder, soc=("splunk", one.url), team=("webhook", other.url))
        scan("a")
        configure(folder, team=("webhook", other.url))
        result = deliver()
    assert result.code == 5
    assert "soc: no such sink in the configuration, 2 events left" in result.stderr
    assert kubeposture("history", "forget", "soc", "h.db").stdout == "soc is forgotten, with what waited for it\n"
    assert deliver().code == 0


def test_without_a_history_there_is_nothing_to_deliver(folder):
    configure(folder, webhook=("webhook", "https://127.0.0.1:1"))
    missing = deliver()
    assert (missing.code, "no such history" in missing.stderr) == (2, True)
    off = scan("a", args=("--history", "off"))
    assert (off.code, "--deliver needs a history" in off.stderr) == (2, True)


def test_a_damaged_event_is_kept_apart(folder):
    collector = Collector({TOKEN: Token(disabled=True)})
    with Server(collector) as server:
        configure(folder, splunk=("splunk", server.url))
        scan("a", "b")
        with sqlite3.connect("h.db") as connection:
            connection.execute("update outbox set event = x'00' where number = 1")
        connection.close()
        collector.tokens[TOKEN].disabled = False
        assert deliver().code == 5
    assert len(collector.events) == 2
    assert "damaged" in sinks()["splunk"]["why"][0]["reason"]


def test_a_history_that_breaks_while_it_is_delivered_is_said(folder):
    def breaks(request):
        with sqlite3.connect("h.db") as connection:
            connection.execute("drop table outbox")
        connection.close()
        return Reply(200, {})

    with Server(breaks) as server:
        configure(folder, webhook=("webhook", server.url))
        result = scan("a")
        assert (result.code, len(json.loads(result.stdout)["findings"])) == (5, 1)
        assert "h.db: cannot be read: no such table: outbox" in result.stderr
        again = deliver()
    assert (again.code, "no such table: outbox" in again.stderr) == (2, True)


def test_an_interruption_of_the_delivery_is_its_exit_code(folder):
    collector, stopping = Collector({TOKEN: Token()}), True

    def answer(request):
        if stopping:
            os.kill(os.getpid(), signal.SIGINT)
            return hec(9)
        return collector(request)

    with Server(answer) as server:
        configure(folder, splunk=("splunk", server.url))
        for result in (scan("a", args=("--fail-on", "low")), deliver()):
            assert (result.code, "splunk: 0 delivered, " in result.stderr) == (130, True)
            assert ": interrupted\n" in result.stderr
        stopping = False
        assert deliver().code == 0
    assert len(collector.events) == 2


def test_what_is_left_counts_only_where_the_scan_says_no_more(folder):
    with Server(lambda request: hec(6)) as server:
        configure(folder, splunk=("splunk", server.url))
        assert scan("a").code == 5
        (folder / "b.yaml").write_text("kind: [")
        args = ("-c", "k8s-privileged-container", "--history", "h.db", "--deliver")
        (folder / "a.json").write_text(pods("a"))
        assert kubeposture("scan", "manifests", ".", *args).code == 3
        assert kubeposture("scan", "manifests", "b.yaml", *args).code == 4


DYING = """
import os, signal, sys
sys.path[:0] = {paths!r}
from scanner.history import outbox, store
def die(*args):
    real(*args)
    os.kill(os.getpid(), signal.SIGKILL)
where = {{"outbox": outbox, "store": store}}[{module!r}]
real = getattr(where, {name!r})
setattr(where, {name!r}, die)
sys.argv[1:] = {args!r}
from scanner.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("module", "name"), [("store", "_write"), ("outbox", "_sink"), ("outbox", "queue_summaries"), ("outbox", "queue")]
)
def test_a_scan_that_is_killed_while_it_writes_has_told_nobody(folder, module, name):
    receiver = Receiver()
    with Server(receiver) as server:
        configure(folder, webhook=("webhook", server.url))
        (folder / "a.json").write_text(pods("a", "b"))
        args = ["scan", "manifests", "a.json", "-c", "k8s-privileged-container", "--history", "h.db", "--deliver"]
        code = DYING.format(paths=[ROOT], module=module, name=name, args=args)
        done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=60)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert deliver().code == 0
        assert (receiver.events, sinks()) == ([], {})
        assert kubeposture(*args).code == 0
    events = [e for e in receiver.events if e["class_uid"] == 2003]
    assert [(e["activity_name"], e["unmapped"]["baseline"]) for e in events] == [("Create", True)] * 2


def test_two_scans_at_once_tell_each_finding_once(folder):
    receiver = Receiver()
    with Server(receiver) as server:
        configure(folder, webhook=("webhook", server.url))
        (folder / "a.json").write_text(pods(*(f"pod-{n}" for n in range(50))))
        command = [sys.executable, "-m", "scanner", "scan", "manifests", "a.json", "-c", "k8s-privileged-container"]
        run = [*command, "--history", "h.db", "--deliver", "-q", "-o", "json=/dev/null"]
        children = [subprocess.Popen(run, env={**os.environ, "PYTHONPATH": ROOT}) for _ in range(3)]
        assert [child.wait(60) for child in children] == [0, 0, 0]
    events = {e["metadata"]["uid"]: e for e in receiver.events}  # while two deliver, an event may come twice
    found = Counter(e["finding_info"]["uid"] for e in events.values() if e["class_uid"] == 2003)
    assert (len(found), set(found.values()), len(events)) == (50, {1}, 50 + 3)


# -- the loop alone ---------------------------------------------------------------------------------------------------


class Outbox:
    def __init__(self, count):
        event = {"metadata": {"uid": ""}, "class_uid": 6007}
        self.left = {
            n: Letter(n, 0, False, packed(event | {"metadata": {"uid": f"u{n}"}})) for n in range(1, count + 1)
        }
        self.dead = {}

    def letters(self, sink, after, limit):
        return [self.left[n] for n in sorted(self.left) if n > after][:limit]

    def settle(self, done, refused):
        for n in (*done, *refused):
            del self.left[n]
        self.dead |= refused


class Sink:
    most_events, most_bytes = 8, 10_000

    def __init__(self, answer):
        self.answer, self.batches, self.closed = answer, [], False

    def pack(self, event):
        return json.dumps(event["metadata"]["uid"]).encode()

    def send(self, batch):
        uids = [p.uid for p in batch]
        self.batches.append(uids)
        return self.answer(uids)

    def close(self):
        self.closed = True


def run(count, answer, **how):
    outbox, sink = Outbox(count), Sink(answer)
    done = Delivery("s", sink, outbox, **how)
    done.run()
    assert sink.closed
    return outbox, sink, done


def test_halves_find_each_event_that_is_refused():
    def answer(uids):
        if {"u3", "u16", "u20"} & set(uids):
            raise Refused("no")
        return {}

    outbox, sink, done = run(20, answer)
    assert outbox.dead == {3: "no", 16: "no", 20: "no"}
    assert (outbox.left, done.sent, done.refused, done.problem) == ({}, 17, 3, "")
    assert max(map(len, sink.batches)) == 8


def test_events_that_a_receiver_names_are_refused_and_the_others_are_there():
    outbox, _, done = run(10, lambda uids: {uid: "odd" for uid in uids if uid.endswith("7")})
    assert (outbox.dead, outbox.left, done.sent) == ({7: "odd"}, {}, 9)


def test_refusals_in_a_row_are_no_poison():
    taken = []

    def answer(uids):
        if len(taken) >= 8:
            raise Refused("no")
        taken.extend(uids)
        return {}

    outbox, _, done = run(100, answer)
    assert (len(outbox.dead), done.sent, done.problem) == (20, 8, "refuses everything: no")
    assert len(outbox.left) == 72
    outbox, _, done = run(100, lambda uids: dict.fromkeys(uids, "odd"))
    assert (len(outbox.dead), len(outbox.left)) == (20, 80)


def test_a_receiver_that_wants_to_be_asked_at_once_is_not_asked_too_often(monkeypatch):
    monkeypatch.setattr(delivery, "_BACKOFF", 0.05)

    def away(uids):
        raise Unavailable("busy", 0.0)

    _, sink, _ = run(3, away, patience=1.0)
    assert 2 < len(sink.batches) < 20


@pytest.mark.parametrize("error", [KeyError, OverflowError, TypeError, ValueError])
def test_an_event_that_a_sink_cannot_write_is_kept_apart(monkeypatch, error):
    def pack(self, event):
        if event["metadata"]["uid"] == "u2":
            raise error
        return b"{}"

    monkeypatch.setattr(Sink, "pack", pack)
    outbox, sink, done = run(3, lambda uids: {})
    assert (outbox.dead, outbox.left) == ({2: f"cannot be written for this sink: {error.__name__}"}, {})
    assert (sink.batches, done.sent, done.refused, done.problem) == ([["u1", "u3"]], 2, 1, "")


def test_what_a_sink_has_no_place_for_waits_no_longer(monkeypatch):
    monkeypatch.setattr(Sink, "pack", lambda self, event: b"{}" if event["metadata"]["uid"] == "u2" else None)
    outbox, sink, done = run(30, lambda uids: {})
    assert (outbox.left, outbox.dead, sink.batches) == ({}, {}, [["u2"]])
    assert (done.sent, done.refused, done.problem) == (1, 0, "")


def test_batches_are_as_large_as_a_sink_takes_them_and_in_order(monkeypatch):
    monkeypatch.setattr(delivery, "_PAGE", 4)
    monkeypatch.setattr(Sink, "most_bytes", 20)
    monkeypatch.setattr(Sink, "pack", lambda self, event: b"x" * (50 if event["metadata"]["uid"] == "u4" else 10))
    shown = []
    _, sink, _ = run(9, lambda uids: {}, show=shown.append)
    assert sink.batches == [["u1", "u2"], ["u3"], ["u4"], ["u5", "u6"], ["u7", "u8"], ["u9"]]
    assert shown == [2, 3, 4, 6, 8, 9]


def test_an_event_is_sent_as_what_has_happened_since(monkeypatch):
    packed_events = []
    monkeypatch.setattr(Sink, "pack", lambda self, event: packed_events.append(event) or b"{}")
    outbox, event = Outbox(0), {"metadata": {"uid": "u"}, "activity_id": 1, "unmapped": {"scope": "workload"}}
    outbox.left = {1: Letter(1, 3, True, packed(event)), 2: Letter(2, 0, False, packed(event))}
    Delivery("s", Sink(lambda uids: {}), outbox).run()
    first, second = packed_events
    assert (first["activity_id"], first["activity_name"], first["type_uid"]) == (3, "Close", 200303)
    assert first["type_name"] == "Compliance Finding: Close"
    assert first["unmapped"] == {"scope": "workload", "baseline": True}
    assert second == event


def test_a_reason_is_of_bounded_length():
    outbox, *_ = run(1, lambda uids: {"u1": "x" * 10_000})
    assert outbox.dead == {1: "x" * 500}


def test_outages_that_end_cost_no_patience(monkeypatch):
    monkeypatch.setattr(delivery, "_BACKOFF", 0.1)
    asked = Counter()

    def busy(uids):
        asked[uids[0]] += 1
        if asked[uids[0]] == 1:
            raise Unavailable("busy")
        return {}

    outbox, _, done = run(80, busy, patience=0.3)
    assert (outbox.left, done.sent, done.problem) == ({}, 80, "")


def test_refusals_among_what_is_taken_go_on():
    outbox, _, done = run(80, lambda uids: dict.fromkeys(uids[:7], "odd"))
    assert (len(outbox.dead), outbox.left, done.sent, done.problem) == (70, {}, 10, "")


def test_an_interruption_ends_it_after_what_is_under_way():
    stop = threading.Event()
    outbox, sink, done = run(20, lambda uids: stop.set() or {}, stop=stop)
    assert (len(outbox.left), len(sink.batches), done.sent, done.problem) == (12, 1, 8, "interrupted")


def test_a_receiver_that_stays_away_is_asked_less_and_less(monkeypatch):
    waits = []
    monkeypatch.setattr(delivery, "_BACKOFF", 1.0)
    monkeypatch.setattr(threading.Event, "wait", lambda self, seconds: waits.append(seconds))

    def away(uids):
        raise Unavailable("away")

    monkeypatch.setattr(delivery.random, "uniform", lambda low, high: high)
    monkeypatch.setattr(delivery.time, "monotonic", lambda: sum(waits))
    _, _, done = run(3, away)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert done.problem == "away"


def test_patience_ends(monkeypatch):
    monkeypatch.setattr(delivery, "_BACKOFF", 0.01)

    def away(uids):
        raise Unavailable("host is away")

    outbox, sink, done = run(3, away, patience=0.2)
    assert (len(outbox.left), done.problem) == (3, "host is away")
    assert len(sink.batches) > 2
    later = lambda uids: (_ for _ in ()).throw(Unavailable("busy", 3600.0))  # noqa: E731
    outbox, sink, done = run(3, later)
    assert (len(outbox.left), done.problem, len(sink.batches)) == (3, "busy", 1)


def test_what_somebody_has_to_change_ends_the_delivery_at_once():
    def locked(uids):
        raise Unusable("no right")

    outbox, sink, done = run(30, locked)
    assert (len(outbox.left), done.problem, len(sink.batches)) == (30, "no right", 1)


def test_an_interruption_is_heard_while_it_waits():
    stop = threading.Event()

    def away(uids):
        stop.set()
        raise Unavailable("away", 60.0)

    started = time.monotonic()
    outbox, _, done = run(3, away, stop=stop)
    assert (len(outbox.left), done.problem) == (3, "interrupted")
    assert time.monotonic() - started < 5
