"""Random nights of two clusters: in the end a receiver has open what fails, and nothing that fails is ever closed."""

import functools
import json
import os
import random
import time
import types
from collections import Counter
from datetime import timedelta

import pytest
from apiserver import ApiServer, status
from cli import kubeposture
from support import pod
from test_live import BAD, GOOD, LIMITS, PRIVILEGED, deny_cluster_wide, namespace, running

from providers.kubernetes import connection
from scanner import model
from scanner.cli import deliver, history
from scanner.history import store
from scanner.sinks import Refused, Unavailable, delivery

CREATE, UPDATE, CLOSE = 1, 2, 3
ALL = ("-c", PRIVILEGED, "-c", LIMITS)
NARROW = (("-c", PRIVILEGED), (*ALL, "-n", "a"), (*ALL, "--exclude-namespace", "b"))
SPACES, PODS = ("a", "b"), ("x", "y")
REFUSALS = ("", "", "", "all", "uid", "pods", "pods of b", "jobs", "namespaces")


class World:
    """A cluster whose pods come, go and change, and which refuses something now and then."""

    def __init__(self, name):
        self.name, self.refused = name, ""
        self.server = ApiServer([])
        self.pods = {}

    def change(self, rng):
        for where in SPACES:
            for name in PODS:
                if rng.random() < 0.25:
                    self.pods[where, name] = rng.choice((None, GOOD, BAD))

    def refuse(self, what):
        """A new night: what it holds, and what it does not tell of it."""
        self.refused = what
        server = self.server
        server._store.clear()
        server._denied.clear()
        server._rules.clear()
        server.add(namespace("kube-system", f"uid-{self.name}"), *map(namespace, SPACES))
        shown = [(where, name, how) for (where, name), how in sorted(self.pods.items()) if how]
        server.add(*(running(pod(how, name=name, namespace=where)) for where, name, how in shown))
        if what == "all":
            server.inject(r"^/", status(401))
        elif what == "uid":
            server.inject(r"^/api/v1/namespaces/kube-system", status(403))
        elif what == "pods of b":
            deny_cluster_wide(server)
            server.deny("pods", "b")
        elif what:
            server.deny(what)
            server.deny_cluster_wide(what)

    @property
    def fails(self):
        found = {(PRIVILEGED, self.name, *of) for of, how in self.pods.items() if how == BAD}
        return found | {(LIMITS, self.name, *of) for of, how in self.pods.items() if how}


class Receiver:
    """Has open what it was told, hears the same event twice now and then, and may be away or refuse something."""

    most_events, most_bytes = 3, 1_000_000

    def __init__(self, rng):
        self.rng, self.mode = rng, "well"
        self.open, self.heard, self.refused, self.events = {}, set(), set(), []

    def pack(self, event):
        return json.dumps(event).encode()

    def send(self, batch):
        if self.mode == "away" or (self.mode == "dying" and self.rng.random() < 0.4):
            raise Unavailable("is away")
        if self.mode == "odd" and self.rng.random() < 0.3:
            if len(batch) == 1:
                self.refused.add(json.loads(batch[0].body).get("finding_info", {}).get("uid"))
            raise Refused("no")
        bad = [packed.uid for packed in batch if self.mode == "odd" and self.rng.random() < 0.15]
        for packed in batch:
            event = json.loads(packed.body)
            if event["class_uid"] != 2003:
                continue
            if packed.uid in bad:
                self.refused.add(event["finding_info"]["uid"])
            elif packed.uid not in self.heard:
                self.heard.add(packed.uid)
                self.events.append(event)
        if self.mode == "dying" and self.rng.random() < 0.3:
            raise Unavailable("died before it answered")
        return dict.fromkeys(bad, "never")

    def close(self):
        pass


def subject(event):
    thing, cluster = event["resources"]
    return (event["metadata"]["event_code"], cluster["name"], thing.get("namespace", ""), thing["name"])


class Nights:
    def __init__(self, path, seed, receiver):
        self.rng, self.receiver = random.Random(seed), receiver
        receiver.rng = self.rng
        self.path, self.worlds = path, [World("c1"), World("c2")]
        self.log, self.opened_by, self.scans, self.day = [], {}, {}, 0

    def __enter__(self):
        for world in self.worlds:
            world.server.__enter__()
        first, second = self.worlds
        self.config = first.server.kubeconfig(self.path / "config", context="c1", others={"c2": second.server})
        return self

    def __exit__(self, *why):
        for world in self.worlds:
            world.server.__exit__(*why)

    def later(self):
        self.day += 1
        model.SHIFT = timedelta(days=self.day)

    def scan(self, chosen, args, *, tell=True):
        """One night; the report. `chosen` are names of clusters."""
        self.later()
        asked = args
        contexts = [each for name in chosen for each in ("--context", name)]
        how = (
            "-q",
            "--concurrency",
            "1",
            "-o",
            "json",
            "--status",
            "fail",
            "--history",
            "h.db",
            *(["--deliver"] if tell else []),
        )
        self.receiver.events.clear()
        result = kubeposture("scan", "kubeconfig", "--kubeconfig", self.config, *contexts, *args, *how)
        assert result.stdout, result.stderr
        report = json.loads(result.stdout)
        fails = set().union(*(world.fails for world in self.worlds))
        refused = {world.name: world.refused for world in self.worlds}
        self.scans[report["scan"]["id"]] = (self.day, fails, refused, chosen, asked)
        return result, report

    def heed(self):
        """What the receiver heard must be true of the night that it is about."""
        closed = []
        for event in self.receiver.events:
            uid, activity, what = event["finding_info"]["uid"], event["activity_id"], subject(event)
            day, fails, refused, chosen, args = self.scans[event["metadata"]["correlation_uid"]]
            told = (activity, what, uid)
            coverage = event["metadata"]["event_code"].startswith("coverage")
            odd = uid in self.receiver.refused
            if activity == CREATE:
                assert odd or uid not in self.receiver.open, (told, "is open already")
                assert coverage or what in fails, (told, "does not fail")
                self.opened_by.setdefault(uid, (day, refused[what[1]], args))
            else:
                assert odd or uid in self.receiver.open, (told, "is not open")
            if activity == CLOSE:
                since, why, by = self.opened_by.pop(uid, (0, "", args))
                # A scan that told nobody may have closed it: what is told then is what was so that night.
                nights = [night for night in self.scans.values() if since <= night[0] <= day and what[1] in night[3]]
                if coverage:
                    assert what[1] in chosen, (told, "nobody looked")
                    assert args in (ALL, by), (told, "closed by less", by, args)
                    closed.append((told, why, refused[what[1]]))
                else:
                    assert any(what not in night[1] for night in nights), (told, "still fails")
                self.receiver.open.pop(uid, None)
            else:
                self.receiver.open[uid] = what
        for told, why, refused in closed:
            unread = [what for what in self.receiver.open.values() if what[0].startswith("coverage")]
            still = why and why == refused  # then something wider must be open in its place
            assert not still or any(what[1] == told[1][1] for what in unread), (told, "is refused still", why)
        self.receiver.events.clear()

    def any_night(self):
        rng, receiver = self.rng, self.receiver
        for world in self.worlds:
            world.change(rng)
            world.refuse(rng.choice(REFUSALS))
        chosen = rng.choice((("c1", "c2"), ("c1", "c2"), ("c1",), ("c2",)))
        args = rng.choice((ALL, ALL, *NARROW))
        receiver.mode = rng.choice(("well", "well", "well", "away", "dying", "odd"))
        tell = rng.random() < 0.8
        self.log.append((self.day + 1, chosen, args, receiver.mode, tell, [w.refused for w in self.worlds]))
        self.scan(chosen, args, tell=tell)
        self.heed()

    def calm_night(self):
        """Everything is read and everybody listens: all that is open is what fails."""
        for world in self.worlds:
            world.refuse("")
        self.receiver.mode = "well"
        self.receiver.events.clear()
        if self.day:
            assert kubeposture("deliver", "--history", "h.db", "--retry-refused", "-q").code == 0
            self.heed()
        self.log.append((self.day + 1, "calm"))
        result, report = self.scan(("c1", "c2"), ALL)
        assert result.code in (0,), (result.code, result.stderr)
        self.heed()
        truth = Counter(what for world in self.worlds for what in world.fails)
        fails = Counter((f["check"], f["cluster"]["name"], f["resource"]["namespace"], f["resource"]["name"])
                        for f in report["findings"])  # fmt: skip
        assert fails == truth
        assert Counter(self.receiver.open.values()) == truth
        result, report = self.scan(("c1", "c2"), ALL)
        heard = [subject(e) for e in self.receiver.events if e["activity_id"] != UPDATE]
        assert heard == []
        self.heed()


@pytest.fixture
def receiver(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "_BACKOFF", 0.001)
    monkeypatch.setattr(connection, "_LONGEST_WAIT", 0.001)
    monkeypatch.setattr(delivery, "_BACKOFF", 0.001)
    monkeypatch.setattr(delivery, "Delivery", functools.partial(delivery.Delivery, patience=0.0))
    (tmp_path / "kubeposture.yaml").write_text("sinks: [{webhook: {url: 'https://127.0.0.1:1'}}]")
    receiver = Receiver(None)
    monkeypatch.setattr(deliver, "_open", lambda sink: receiver)
    return receiver


@pytest.fixture
def clock(monkeypatch):
    """Each night is a day later, of all that tells the time to findings and to the history."""
    monkeypatch.setattr(model, "SHIFT", timedelta(), raising=False)
    monkeypatch.setattr(model.utc_now, "__code__", (lambda: datetime.now(UTC) + SHIFT).__code__)  # noqa: F821
    shifted = types.SimpleNamespace(time=lambda: time.time() + model.SHIFT.total_seconds())
    monkeypatch.setattr(store, "time", shifted)
    monkeypatch.setattr(history, "time", shifted)


FIRST, LAST = int(os.environ.get("NIGHTS_FROM", "0")), int(os.environ.get("NIGHTS_TO", "4"))


@pytest.mark.parametrize("seed", range(FIRST, LAST))
def test_random_nights_converge(tmp_path, receiver, clock, seed):
    with Nights(tmp_path, seed, receiver) as nights:
        try:
            nights.calm_night()  # else findings get other ids when their cluster's identity is first known
            for _ in range(4):
                for _ in range(nights.rng.randint(1, 5)):
                    nights.any_night()
                nights.calm_night()
        except AssertionError:
            print(*nights.log, sep="\n")
            raise
