"""Splunk: every event arrives as it is, answers mean what they say, and the searches of docs/splunk.md find it."""

import gzip
import json
import os
import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import apiserver
import pytest
from armserver import ArmServer
from azure_data import DEV, sample_estate
from cli import kubeposture
from registryserver import Reply, Server
from sinkserver import GUID, Collector, Token, hec
from spl import Search, row
from test_ocsf import HOSTILE, NOW, finding

from scanner import config
from scanner.config import ConfigError
from scanner.model import ClusterRef, ExemptionNote, Lifecycle, ResourceRef, Status
from scanner.report.ocsf import finding_event
from scanner.report.ocsf_event import LIMIT, line
from scanner.sinks import Packed, Refused, Unavailable, Unusable, post, splunk
from scanner.sinks.settings import SplunkSink

PAGE = (Path(__file__).parent.parent / "docs/splunk.md").read_text()
TOKEN = "5a0f9c1e-hec-token"
GOOD = {TOKEN: Token(("main", "kubeposture"))}
GZIP = (("Content-Encoding", "gzip"),)
ACKS = {TOKEN: Token(acks=True)}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPLUNK_HEC_TOKEN", TOKEN)
    monkeypatch.setattr(post, "_TIMEOUT", 20)
    monkeypatch.setattr(splunk, "_PAUSES", (0.001, 0.01))
    monkeypatch.setattr(splunk, "_ACKNOWLEDGED_WITHIN", 0.3)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """Of a scan: findings of all verdicts, what was not read, what was scanned."""
    path = tmp_path_factory.mktemp("demo") / "events"
    kubeposture("demo", "--status", "all", "-q", "-o", f"ocsf={path}")
    return [json.loads(text) for text in path.read_text().splitlines()]


def opened(url, **settings):
    return splunk.open_sink(SplunkSink(url, **settings))


def packed(sink, events):
    return [Packed(event["metadata"]["uid"], sink.pack(event)) for event in events]


def sent(collector, events, *, tls=None, path="", **settings):
    """What send() answers or raises, and the requests."""
    with Server(collector, tls) as server:
        sink = opened(server.url + path, **settings)
        try:
            return sink.send(packed(sink, events)), server.requests
        finally:
            sink.close()


def failure(kind, collector, events, **options):
    with pytest.raises((Unavailable, Refused, Unusable)) as caught:
        sent(collector, events, **options)
    assert type(caught.value) is kind, caught.value
    assert TOKEN not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value


def one():
    return [finding_event(finding())]


# -- what arrives


def test_a_scan_arrives_as_it_is(events):
    collector = Collector(GOOD)
    with Server(collector) as server:
        sink = opened(server.url, index="kubeposture")
        batch = packed(sink, events)
        half = len(batch) // 2
        for part in (batch[:half], batch[half:]):
            assert len(part) <= sink.most_events
            assert sum(len(p.body) for p in part) + len(part) < sink.most_bytes + sink.most_events <= 1_000_000
            assert sink.send(part) == {}
        sink.close()
        requests = server.requests
    assert [envelope["event"] for envelope in collector.events] == events
    for envelope in collector.events:
        assert envelope["time"] * 1000 == pytest.approx(envelope["event"]["time"], abs=0.01)
        assert {envelope[key] for key in ("source", "sourcetype", "index")} == {
            "kubeposture",
            "ocsf:kubeposture",
        }
    assert len(collector.channels) == 1
    assert GUID.fullmatch(*collector.channels)
    assert {r.headers["content-encoding"] for r in requests} == {"gzip"}
    assert all(len(r.body) < len(gzip.decompress(r.body)) / 3 for r in requests)


def test_each_run_has_a_channel_of_its_own():
    collector = Collector(GOOD)
    sent(collector, one())
    sent(collector, one())
    assert len(collector.channels) == 2


def test_time_is_in_seconds_with_milliseconds():
    collector = Collector(GOOD)
    sent(collector, [finding_event(finding(observed_at=NOW.replace(microsecond=123_000)))])
    assert collector.events[0]["time"] == 1_788_265_815.123


def test_the_host_is_what_it_is_about(events):
    sink = opened("https://a.example")
    hosts = {event["metadata"]["uid"]: json.loads(sink.pack(event))["host"] for event in events}
    scan, clusters = events[-1], [e for e in events if e["class_uid"] == 6007 and "cluster" in e["unmapped"]]
    assert hosts[scan["metadata"]["uid"]] == "kubeposture"
    assert len(clusters) == 7
    assert [hosts[e["metadata"]["uid"]] for e in clusters] == [e["unmapped"]["cluster"]["name"] for e in clusters]
    unread = [e for e in events if e["metadata"]["event_code"] == "coverage-cluster" and e["class_uid"] == 2003]
    assert [hosts[e["metadata"]["uid"]] for e in unread] == [e["resources"][1]["name"] for e in unread]
    alone = finding(cluster=None, resource=ResourceRef("", "Image", None, "r.io/web@sha256:0a"))
    assert json.loads(sink.pack(finding_event(alone)))["host"] == alone.account
    for name in HOSTILE:
        hostile = json.loads(sink.pack(finding_event(finding(cluster=ClusterRef("a", None, name)))))
        assert hostile["host"].isprintable()
        assert len(hostile["host"]) <= 200


def test_what_is_gone_carries_less():
    whole = finding_event(finding(lifecycle=Lifecycle("resolved", NOW, NOW, NOW, "deleted")))
    for left_out in (set(), {"resources"}, {"unmapped"}, {"resources", "unmapped", "compliance", "cloud"}):
        collector = Collector(GOOD)
        sent(collector, [{key: value for key, value in whole.items() if key not in left_out}])
        [envelope] = collector.events
        assert envelope["event"]["activity_name"] == "Close"
        assert set(envelope["event"]) == set(whole) - left_out


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_one_short_line(text):
    event = finding_event(finding(message=text, remediation=text, pods=(text,) * 10, title=text))
    body = opened("https://a.example").pack(event)
    assert len(body) < LIMIT + 500
    assert body.decode().isprintable()
    assert json.loads(body)["event"]["finding_info"]["uid"] == finding().id


def test_fields_come_before_evidence(events):
    """Splunk takes no fields from what is beyond 10,240 characters."""
    sink = opened("https://a.example")
    for event in events:
        text = sink.pack(event).decode()
        assert ("compliance" not in event) or text.index('"compliance"') > text.index('"unmapped"')
        assert list(json.loads(text)["event"].get("compliance", {"control": 0, "status_id": 0}))[:2] == [
            "control",
            "status_id",
        ]


# -- addresses and secrets


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "/",
        "/services/collector",
        "/services/collector/",
        "/services/collector/event",
        "/services/collector/event/1.0",
    ],
)
@pytest.mark.parametrize("base", ["", "/siem/hec"])
def test_addresses(base, tail):
    collector = Collector(GOOD, base=base)
    sent(collector, one(), path=base + tail)
    assert len(collector.events) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("splunk.example:8088", "no address"),
        ("https://", "no address"),
        ("https://a:0", "no address"),
        ("https://a..b", "no address"),
        ("https://h%00.x", "no address"),
        ("https://*.example", "no address"),
        (f"https://{'a' * 64}.example", "no address"),
        (f"https://{'a.' * 127}example", "no address"),
        ("https://a:99999", "no address"),
        ("https://a b", "no address"),
        ("https://ä.example", "no address"),
        ("https://a/\n", "no address"),
        ("https://[::1", "no address"),
        ("http://splunk.example:8088", "unencrypted"),
        ("http://localhost:8088", "unencrypted"),
        ("ftp://127.0.0.1", "unencrypted"),
        ("https://admin:hunter2@splunk.example", "without a login"),
        ("https://splunk.example/?token=hunter2", "without a login"),
        ("https://splunk.example/#hunter2", "without a login"),
    ],
)
def test_unusable_addresses(url, said):
    with pytest.raises(ConfigError, match=said) as caught:
        opened(url)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_token_of_a_file_goes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLUNK_HEC_TOKEN", "of-the-variable")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    collector = Collector(GOOD)
    sent(collector, one(), token_file=str(tmp_path / "token"))
    assert len(collector.events) == 1


@pytest.mark.parametrize("value", ["", f"Splunk {TOKEN}", f"{TOKEN}ä", f"{TOKEN}\nHost: x"])
def test_unusable_tokens(value, monkeypatch):
    monkeypatch.setenv("OTHER", value)
    with pytest.raises(ConfigError, match="the token of sink splunk") as caught:
        opened("https://a.example", token_env="OTHER")
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("key", ["token_env", "token_file"])
@pytest.mark.parametrize("value", [TOKEN, TOKEN.replace("-", "_"), f"\u202e{TOKEN}", f"{TOKEN}\0"])
def test_a_token_in_place_of_a_name_is_not_shown(key, value):
    with pytest.raises(ConfigError, match=f"{key} names") as caught:
        opened("https://a.example", **{key: value})
    assert "hec" not in str(caught.value)


def test_the_usual_variable_is_named(monkeypatch):
    monkeypatch.delenv("SPLUNK_HEC_TOKEN")
    with pytest.raises(ConfigError, match="set the environment variable SPLUNK_HEC_TOKEN, or"):
        opened("https://a.example")


@pytest.mark.parametrize("kind", ["pipe", "directory", "device"])
def test_a_token_of_what_is_no_file(tmp_path, kind):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    file = "/dev/zero" if kind == "device" else tmp_path / kind
    with pytest.raises(ConfigError, match="no regular file"):
        opened("https://a.example", token_file=str(file))


def test_the_token_is_not_shown():
    sink = opened("https://a.example")
    assert TOKEN not in repr(sink)
    assert TOKEN not in sink.pack(finding_event(finding())).decode()


# -- answers


@pytest.mark.parametrize(
    ("tokens", "index", "said"),
    [
        ({}, None, "answered 403, code 4: the token is not known"),
        ({TOKEN: Token(disabled=True)}, None, "answered 403, code 1: the token is disabled"),
        (GOOD, "other", "answered 400, code 7: incorrect index"),
    ],
)
def test_what_somebody_has_to_change(tokens, index, said, events):
    collector = Collector(tokens)
    assert said in str(failure(Unusable, collector, events[:3], index=index))
    assert collector.events == []


@pytest.mark.parametrize("code", range(30))
@pytest.mark.parametrize("status", [200, 400, 401, 403, 413, 429, 500, 503])
def test_every_code_with_every_status(code, status):
    """Only a 200 with a code that says so is a success."""
    collector = Collector(GOOD, replies=[hec(code, status)])
    if status == 200 and code in (0, 24, 25):
        sent(collector, one())
        return
    expected = (
        Unavailable
        if status in (429, 500, 503) or code in (8, 9, 18, 19, 20, 23, 26, 27)
        else Refused
        if code in (5, 6, 12, 13, 15)
        else Unusable
        if code in (1, 2, 3, 4, 7, 10, 11, 14, 16, 21, 22) or status != 413
        else Refused
    )
    error = failure(expected, collector, one())
    assert str(status) in str(error)


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (Reply(200, b"<html>log in"), Unusable, "as no HTTP Event Collector does"),
        (Reply(200, {"text": "Success"}), Unusable, "as no HTTP Event Collector does"),
        (Reply(200, {"code": "0"}), Unusable, "as no HTTP Event Collector does"),
        (Reply(204), Unusable, "as no HTTP Event Collector does"),
        (Reply(400, b"Bad Request"), Unusable, "as no HTTP Event Collector does"),
        (Reply(200, b"\xff\xfe"), Unusable, "as no HTTP Event Collector does"),
        (Reply(302, b"", (("Location", "https://other.example"),)), Unusable, "redirects are not followed"),
        (Reply(401, b"who?"), Unusable, "check the token"),
        (Reply(404, {"text": "not found", "code": 404}), Unusable, "check the url"),
        (Reply(413, b"<html>nginx"), Refused, "answered 413"),
        (Reply(408), Unavailable, "answered 408"),
        (Reply(500, b"oops"), Unavailable, "answered 500"),
        (Reply(502), Unavailable, "answered 502"),
        (Reply("hang"), Unavailable, "did not answer in time"),
        (Reply("reset"), Unavailable, "broke off"),
        (Reply(200, b"x" * 70_000), Unusable, "as no HTTP Event Collector does"),
        (Reply(200, b"x" * 400_000), Unusable, "as no HTTP Event Collector does"),
        (Reply(200, b"x", GZIP), Unusable, "as no HTTP Event Collector does"),
        (Reply(200, b'{"code":0,"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}"), Unusable, "as no HTTP Event Collector"),
        (Reply(401, b"x", GZIP), Unusable, "check the token"),
        (Reply(403, b"x" * 400_000), Unusable, "check the token, and what it may do"),
        (Reply(413, b"x", GZIP), Refused, "answered 413"),
        (Reply(503, b"x", GZIP), Unavailable, "answered 503"),
    ],
)
def test_other_answers(reply, kind, said, events, monkeypatch):
    if reply.status == "hang":
        monkeypatch.setattr(post, "_TIMEOUT", 0.3)
    assert said in str(failure(kind, Collector(GOOD, replies=[reply]), events[:2]))


def test_what_it_was_told_is_not_repeated():
    replies = [Reply(400, {"text": f"hostile \x1b[2J {TOKEN}", "code": 6})]
    assert "hostile" not in str(failure(Refused, Collector(GOOD, replies=replies), one()))


@pytest.mark.parametrize("status", [429, 503, 500, 408])
def test_how_long_it_wants_to_be_left_alone(status):
    def wait(value):
        headers = (("Retry-After", value),) if value else ()
        return failure(Unavailable, Collector(GOOD, replies=[Reply(status, b"", headers)]), one()).wait

    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert wait("7") == 7.0
    assert wait(format_datetime(soon, usegmt=True)) == pytest.approx(90, abs=10)
    assert wait("Sun, 06 Nov 1994 08:49:37 GMT") == 0.0
    for odd in ("", "soon", "-5", "9" * 400, "Sun, 99 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 9999 23:59:59 -0000"):
        assert wait(odd) is None or wait(odd) > 10**9


def test_nobody_is_there():
    with Server(Collector(GOOD)) as server:
        url = server.url
    sink = opened(url)
    with pytest.raises(Unavailable, match="cannot be reached"):
        sink.send(packed(sink, one()))


def test_a_certificate_is_believed_only_by_its_authority(tmp_path, monkeypatch):
    tls = apiserver.tls("localhost")
    (tmp_path / "ca.pem").write_bytes(tls.ca)
    collector = Collector(GOOD)
    assert "REQUESTS_CA_BUNDLE" in str(failure(Unusable, collector, one(), tls=tls.context))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    sent(collector, one(), tls=tls.context)
    assert len(collector.events) == 1
    other = apiserver.tls("elsewhere.example").context
    failure(Unusable, collector, one(), tls=other)
    (tmp_path / "ca.pem").write_text("nothing")
    assert "no usable PEM" in str(failure(Unusable, collector, one(), tls=tls.context))


def test_of_a_batch_with_a_bad_event_no_other_is_lost(events):
    """What stands before it may be taken already: it comes twice, and is the same."""
    collector = Collector(GOOD)
    with Server(collector) as server:
        sink = opened(server.url)
        batch = packed(sink, events[:9])
        batch[6] = Packed("bad", b'{"event": "}')
        with pytest.raises(Refused, match="code 6: invalid data format"):
            sink.send(batch)
        assert len(collector.events) == 6
        assert halved(sink, batch) == ["bad"]
        sink.close()
    uids = [envelope["event"]["metadata"]["uid"] for envelope in collector.events]
    assert set(uids) == {e["metadata"]["uid"] for i, e in enumerate(events[:9]) if i != 6}
    assert len(uids) > 8


def halved(sink, batch):
    """The uids of what is refused alone."""
    try:
        sink.send(batch)
    except Refused:
        half = len(batch) // 2
        return halved(sink, batch[:half]) + halved(sink, batch[half:]) if half else [batch[0].uid]
    return []


def test_too_large_a_batch_arrives_in_parts(events):
    collector = Collector(GOOD, most=20_000)
    with Server(collector) as server:
        sink = opened(server.url)
        batch = packed(sink, events[:40])
        assert halved(sink, batch) == []
        sink.close()
    assert [envelope["event"] for envelope in collector.events] == events[:40]


# -- acknowledgment


def test_acknowledged(events):
    collector = Collector(ACKS, polls=4)
    with Server(collector) as server:
        sink = opened(server.url)
        for part in (events[:3], events[3:5]):
            assert sink.send(packed(sink, part)) == {}
        sink.close()
        asked = [json.loads(r.body) for r in server.requests if r.path.endswith("/ack")]
    assert asked == [{"acks": [0]}] * 4 + [{"acks": [1]}] * 4
    assert len(collector.events) == 5
    assert len(collector.channels) == 1


def test_only_the_indexer_that_took_it_can_acknowledge(events):
    collector = Collector(ACKS, indexers=3, polls=2)
    with Server(collector) as server:
        sink = opened(server.url)
        for event in events[:4]:
            sink.send(packed(sink, [event]))
        sink.close()
        cookies = [r.headers.get("cookie") for r in server.requests]
    assert cookies == [c for n in (1, 2, 0, 1) for c in (None, *[f"indexer={n}; other=1"] * 2)]


def test_never_acknowledged():
    error = failure(Unavailable, Collector(ACKS, polls=10**6), one())
    assert "no indexer acknowledged them within 0.3 seconds" in str(error)


@pytest.mark.parametrize("reply", [Reply(503), Reply("hang"), Reply("reset"), Reply(429)])
def test_a_question_that_fails_is_asked_again(reply, monkeypatch):
    monkeypatch.setattr(splunk, "_ACKNOWLEDGED_WITHIN", 60)
    if reply.status == "hang":
        monkeypatch.setattr(post, "_TIMEOUT", 1.5)
    collector = Collector(ACKS, ack_replies=[reply, None, reply])
    sent(collector, one())
    assert len(collector.events) == 1


@pytest.mark.parametrize("reply", [Reply(404), hec(4), hec(14), hec(10), Reply(302), Reply(413)])
def test_events_are_not_refused_for_the_question(reply):
    error = failure(Unusable, Collector(ACKS, ack_replies=[reply]), one())
    assert f"answered {reply.status} when asked for an acknowledgment" in str(error)


@pytest.mark.parametrize("body", [b"", b"<html>", {"acks": {"1": True}}, {"acks": {"0": False}}, {"acks": {"0": 1}}])
def test_what_is_no_acknowledgment(body):
    failure(Unavailable, Collector(ACKS, ack_replies=[Reply(200, body)] * 1000), one())


# -- the documentation

SEARCHES = re.findall(r"```spl\n(.*?)```", PAGE, re.DOTALL)
OPEN, CAME, RESOLVED, UNREAD, SILENT = range(5)
DAY = timedelta(days=1)
TODAY = datetime(2026, 9, 20, 6, tzinfo=UTC)


def searched(number, rows, now=TODAY):
    return Search(SEARCHES[number], now.timestamp())(rows)


def rows_of(events):
    """As Splunk has them."""
    collector = Collector({TOKEN: Token(("kubeposture",))}, most=10**9)
    sent(collector, events, index="kubeposture")
    return [row(envelope) for envelope in collector.events]


def told(name, state, days_ago, **fields):
    """A finding as a scan some days ago has told of it."""
    at = TODAY - days_ago * DAY
    lifecycle = Lifecycle(state, at, at, at, "fixed" if state == "resolved" else None)
    baseline = fields.pop("baseline", False)
    event = finding_event(finding(id=name, observed_at=at, lifecycle=lifecycle, **fields))
    event["unmapped"]["baseline"] = True
    if not baseline:
        del event["unmapped"]["baseline"]
    return event


@pytest.fixture(scope="module")
def nights():
    """What was delivered in some nights, by what has become of it."""
    note = ExemptionNote("why", "", None)
    return [
        told("open", "new", 9, baseline=True),
        told("quiet", "new", 300, baseline=True),
        told("mended", "new", 9, baseline=True),
        told("mended", "resolved", 3),
        told("mended long ago", "new", 40),
        told("mended long ago", "resolved", 30),
        told("back", "new", 40),
        told("back", "resolved", 5),
        told("back", "reopened", 1),
        told("fresh", "new", 0.1),
        told("fresh", "open", 0.05, message="changed"),
        told("fresh and gone", "new", 1),
        told("fresh and gone", "resolved", 0.1),
        told("nobody knows", "new", 0.1, status=Status.UNKNOWN),
        told("worse", "new", 9, status=Status.UNKNOWN),
        told("worse", "open", 0.1),
        told("known at last", "new", 9, status=Status.UNKNOWN),
        told("known at last", "resolved", 2, status=Status.UNKNOWN),
        told("exempted", "new", 9),
        told("exempted", "open", 2, exemption=note),
        told("first told today", "new", 0.1, baseline=True),
    ]


def found(rows):
    return {"".join(map(str, r["finding_info.uid"])) for r in rows}


@pytest.mark.parametrize("order", [1, -1])
def test_the_searches_find_what_they_say(nights, order):
    rows = rows_of((nights + nights[::3])[::order])  # some of it twice
    still = {"open", "quiet", "back", "fresh", "nobody knows", "worse", "first told today"}
    assert found(searched(OPEN, rows)) == still
    assert len(searched(OPEN, rows)) == len(still)
    assert found(searched(CAME, rows)) == {"back", "fresh", "fresh and gone", "nobody knows"}
    assert found(searched(RESOLVED, rows)) == {"mended", "fresh and gone", "known at last"}
    assert searched(UNREAD, rows) == []
    [one] = [r for r in searched(OPEN, rows) if r["finding_info.uid"] == ["open"]]
    assert (one["cluster"], one["namespace"], one["object"]) == ("shop", "prod", "web")
    assert {r["status_detail"][0] for r in searched(RESOLVED, rows)} == {"fixed"}


def test_the_searches_find_what_was_not_read(events):
    rows = rows_of(events)
    now = datetime.fromtimestamp(events[-1]["time"] / 1000, UTC)
    unread = [e for e in events if e["class_uid"] == 2003 and e["metadata"]["event_code"].startswith("coverage-")]
    shown = searched(UNREAD, rows, now)
    assert found(shown) == {e["finding_info"]["uid"] for e in unread}
    assert len(shown) == len(unread) == 7
    wrong = [e for e in events if e["class_uid"] == 2003 and e["status_id"] == 1 and e not in unread]
    assert found(searched(OPEN, rows, now)) == found(searched(CAME, rows, now)) - found(shown)
    assert found(searched(OPEN, rows, now)) == {e["finding_info"]["uid"] for e in wrong}
    gone = [{**e, "activity_id": 3, "status_id": 4, "time": e["time"] + 1000} for e in unread]
    assert searched(UNREAD, rows_of(events + gone), now) == []


def test_the_searches_find_silence(events):
    now = datetime.fromtimestamp(events[-1]["time"] / 1000, UTC)
    scans = [e for e in events if e["class_uid"] == 6007]
    rows = rows_of(scans)
    assert searched(SILENT, rows, now + timedelta(hours=25)) == []
    assert len(searched(SILENT, rows, now + timedelta(hours=27))) == len(scans) == 8
    later = [{**e, "time": e["time"] + 20 * 3_600_000} for e in scans]
    later[2] |= {"status_id": 2, "status": "Failure"}
    del later[1]
    silent = searched(SILENT, rows_of(scans + later), now + timedelta(hours=27))
    names = [scans[n]["unmapped"]["cluster"]["name"] for n in (1, 2)]
    assert {r["name"]: r["status"] for r in silent} == {names[0]: scans[1]["status"], names[1]: "Failure"}
    read = [time.strftime("%F %T", time.gmtime(scans[n]["time"] / 1000)) for n in (1, 2)]
    assert sorted(r["last_read"] for r in silent) == sorted(read)


def test_the_fields_of_the_searches_are_there(events, nights, monkeypatch):
    with ArmServer(sample_estate(), page_size=2) as arm:
        for name, value in arm.environment.items():
            monkeypatch.setenv(name, value)
        arm.deny("/registries", subscription=DEV)
        result = kubeposture("scan", "aks", "--arm-endpoint", arm.url, "--planes", "control", "-q", "-o", "ocsf")
    denied = [json.loads(text) for text in result.stdout.splitlines()]
    names = {name for r in rows_of(events + nights + denied) for name in r}
    for text in SEARCHES:
        asked = Search(text, 0).asked
        assert len(asked) > 4
        assert asked <= names
    assert len(SEARCHES) == 5


def test_no_search_filters_before_it_knows_the_latest():
    for number in (OPEN, RESOLVED, UNREAD):
        head = SEARCHES[number].partition("| dedup")[0]
        assert not re.search(r"(?<!\w)(status|status_id|activity_id|compliance\S*|severity\S*)!?=", head)


def test_the_configuration_is_understood(tmp_path):
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "kubeposture.yaml").write_text(text)
    [sink] = config.load(tmp_path / "kubeposture.yaml").sinks
    assert sink.splunk == SplunkSink("https://splunk.example:8088", "kubeposture")
    splunk.open_sink(sink.splunk).close()
    table = PAGE.partition("| key |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(SplunkSink.__struct_fields__)


def test_the_source_type_fits(events):
    [props, limits] = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    assert f"[{splunk.SOURCETYPE}]" in props
    values = dict(re.findall(r"^(\w+) = (.*)$", props + limits, re.MULTILINE))
    assert int(values["TRUNCATE"]) > LIMIT
    assert int(values["maxchars"]) > LIMIT
    for event in events:
        text = line(event).decode()
        at = re.search(values["TIME_PREFIX"], text).end()
        assert text[at : at + 14] == f"{event['time']},"
        assert len(row({"time": 0, "host": 0, "source": 0, "sourcetype": 0, "index": 0, "event": event})) < int(
            values["limit"]
        )


def test_the_answers_that_are_told_are_those_that_are_known():
    table = PAGE.partition("| answer |")[2].partition("\n\n")[0].splitlines()[2:]

    def codes(text):
        named = re.findall(r"codes? ((?:\d+(?: to \d+)?(?:, | or )?)+)", text.partition("|")[2].partition("|")[0])
        ranges = [r.partition(" to ") for r in re.split(", | or ", ", ".join(named).strip(", ")) if r]
        return {n for first, _, last in ranges for n in range(int(first), int(last or first) + 1)}

    known = [splunk._TAKEN, splunk._LATER, splunk._EVENTS, splunk._SETTINGS]
    assert [codes(text) for text in table] == list(map(set, known))
    numbers = [code for group in known for code in group]
    assert len(numbers) == len(set(numbers))
    assert set(range(28)) - set(numbers) == {17}  # of the health check alone
    later, refused = table[1], table[2]
    assert all(str(status) in later for status in post._LATER)
    assert all(str(status) in refused for status in post._REFUSED[1:])
