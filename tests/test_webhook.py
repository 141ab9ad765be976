"""The webhook: what is sent can be verified as docs/webhook.md says, and answers mean what they say."""

import hashlib
import json
import re
import time
from email.message import Message
from pathlib import Path

import apiserver
import pytest
from cli import kubeposture
from registryserver import Reply, Server
from sinkserver import Receiver
from test_ocsf import HOSTILE, finding

from scanner import config
from scanner.config import ConfigError
from scanner.report.ocsf import finding_event
from scanner.report.ocsf_event import LIMIT
from scanner.sinks import Packed, Refused, Unavailable, Unusable, post, webhook
from scanner.sinks.settings import WebhookSink

PAGE = (Path(__file__).parent.parent / "docs/webhook.md").read_text()
TOKEN, SECRET = "bearer-of-the-hook", "a secret, with spaces and ä"
BOTH = {"token_env": "HOOK_TOKEN", "secret_env": "HOOK_SECRET"}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOOK_TOKEN", TOKEN)
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    monkeypatch.setattr(post, "_TIMEOUT", 20)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "events"
    kubeposture("demo", "-q", "-o", f"ocsf={path}")
    return [json.loads(text) for text in path.read_text().splitlines()]


def packed(sink, events):
    return [Packed(event["metadata"]["uid"], sink.pack(event)) for event in events]


def sent(receiver, events, *, tls=None, path="/in", times=1, **settings):
    """The requests."""
    with Server(receiver, tls) as server:
        sink = webhook.open_sink(WebhookSink(server.url + path, **settings))
        try:
            for _ in range(times):
                assert sink.send(packed(sink, events)) == {}
        finally:
            sink.close()
    return server.requests


def failure(kind, receiver, events, **options):
    with pytest.raises((Unavailable, Refused, Unusable)) as caught:
        sent(receiver, events, **options)
    assert type(caught.value) is kind, caught.value
    for hidden in (TOKEN, SECRET, "/in"):
        assert hidden not in str(caught.value)
    return caught.value


def one():
    return [finding_event(finding())]


# -- what is sent


def test_a_scan_arrives_as_it_is(events):
    receiver = Receiver(TOKEN, SECRET)
    [request] = sent(receiver, events, **BOTH)
    assert receiver.events == events
    assert len(request.body) < 1_000_000
    sink = webhook.open_sink(WebhookSink("https://a.example"))
    assert sink.most_bytes + sink.most_events < 1_000_000


@pytest.mark.parametrize("options", [{}, {"token_env": "HOOK_TOKEN"}, {"secret_env": "HOOK_SECRET"}, BOTH])
def test_a_token_and_a_signature_where_they_are_asked_for(options):
    receiver = Receiver(TOKEN if "token_env" in options else "", SECRET if "secret_env" in options else "")
    [request] = sent(receiver, one(), **options)
    assert len(receiver.events) == 1
    assert ("authorization" in request.headers) == ("token_env" in options)
    assert ("x-kubeposture-signature" in request.headers) == ("secret_env" in options)
    assert ("x-kubeposture-timestamp" in request.headers) == ("secret_env" in options)
    assert not [hidden for hidden in (SECRET,) if hidden in str(request)]


def test_the_same_batch_has_the_same_key(events):
    receiver = Receiver()
    sent(receiver, events[:5], times=2)
    assert receiver.events == events[:5]
    assert len(set(receiver.keys)) == 1
    uids = "\n".join(event["metadata"]["uid"] for event in events[:5])
    assert receiver.keys[0] == hashlib.sha256(uids.encode()).hexdigest()
    sent(receiver, events[:4])
    sent(receiver, events[1:5])
    assert len(set(receiver.keys)) == 3


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_one_short_line(text):
    receiver = Receiver()
    [request] = sent(receiver, [finding_event(finding(message=text, pods=(text,) * 10)), *one()])
    assert len(receiver.events) == 2
    assert len(request.body) <= 2 * LIMIT
    assert request.body.decode().replace("\n", "").isprintable()


def test_secrets_of_files(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    receiver = Receiver(TOKEN, SECRET)
    sent(receiver, one(), token_file=str(tmp_path / "token"), secret_file=str(tmp_path / "secret"))
    assert len(receiver.events) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"token_env": "hunter2"}, "the token of sink webhook: set the environment variable that token_env names"),
        ({"secret_env": "hunter2"}, "the secret of sink webhook: set the environment variable that secret_env names"),
        ({"secret_file": "hunter2"}, "the secret of sink webhook: the file that secret_file names cannot be read"),
        ({"token_env": "HOOK_SECRET"}, "give the token alone"),
        ({"url": "http://hooks.example/hunter2"}, "http://hooks.example: findings are never sent unencrypted"),
        ({"url": "https://me:hunter2@hooks.example"}, "https://hooks.example: a url is used without a login"),
        ({"url": "https://hooks.example/#hunter2"}, "https://hooks.example: a url is used without a login"),
        ({"url": "hunter2"}, "no address"),
        ({"url": "https://a..b/hunter2"}, "no address"),
        ({"url": "https://h%00.x/hunter2"}, "no address"),
    ],
)
def test_what_cannot_be_opened(settings, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        webhook.open_sink(WebhookSink(**{"url": "https://hooks.example", **settings}))
    for hidden in (SECRET, TOKEN, "hunter2"):
        assert hidden not in str(caught.value)


@pytest.mark.parametrize("key", ["token_env", "token_file", "secret_env", "secret_file"])
@pytest.mark.parametrize("value", ["", " "])
def test_nothing_is_sent_unsigned_for_a_name_that_is_empty(tmp_path, key, value):
    sink = {"webhook": {"url": "https://hooks.example", **BOTH, key: value}}
    (tmp_path / "kubeposture.yaml").write_text(json.dumps({"sinks": [sink]}))
    with pytest.raises(ConfigError, match=f"{key} is empty"):
        config.load(tmp_path / "kubeposture.yaml")


def test_a_path_and_a_query_are_kept():
    [request] = sent(Receiver(), one(), path="/a/b?sig=x%2Fy&v=1")
    assert (request.path, request.query) == ("/a/b", "sig=x%2Fy&v=1")


def test_secrets_are_not_shown():
    shown = repr(webhook.open_sink(WebhookSink("https://a.example", **BOTH)))
    assert SECRET not in shown
    assert TOKEN not in shown


# -- answers


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_taken(status):
    sent(Receiver(replies=[Reply(status, b"<html>")]), one())


HTML, GZIP = (("Content-Type", "text/html; charset=utf-8"),), (("Content-Encoding", "gzip"),)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"x" * 70_000),
        Reply(200, b"x" * 400_000),  # more than is read
        Reply(200, b"\x1f\x8b\x08", GZIP),
        Reply(200, b"ok", HTML),  # as many frameworks call whatever they are given
        Reply(200, b"", HTML),
        Reply(204, b"", HTML),
    ],
)
def test_the_status_counts_whatever_comes_with_it(reply):
    sent(Receiver(replies=[reply]), one())


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"\n<!DOCTYPE html><title>log in", HTML),
        Reply(200, b"\xef\xbb\xbf<html>", (("Content-Type", "application/xhtml+xml"),)),
        Reply(200, b"<html>" + b"x" * 70_000, HTML),
        Reply(200, b"\x1f\x8b\x08", HTML + GZIP),
        Reply(206, b"part"),
    ],
)
def test_a_page_is_no_receipt(reply):
    error = failure(Unusable, Receiver(replies=[reply]), one(), path="/in?s=1")
    assert "check the url" in str(error)


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(401, b"x", GZIP), Unusable, "answered 401: check the token"),
        (Reply(403, b"x" * 100_000), Unusable, "answered 403: check the token"),
        (Reply(403, b"x" * 400_000), Unusable, "answered 403: check the token"),
        (Reply(413, b"x", GZIP), Refused, "answered 413"),
        (Reply(502, b"x" * 400_000), Unavailable, "answered 502"),
    ],
)
def test_refusals_are_understood_whatever_comes_with_them(reply, kind, words):
    assert words in str(failure(kind, Receiver(replies=[reply]), one()))


def test_a_proxy_that_wants_a_login(monkeypatch):
    with Server(lambda _: Reply(407)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@{proxy.host}")
        sink = webhook.open_sink(WebhookSink("https://hooks.example/in"))
        with pytest.raises(Unusable, match=r"407.*check the login of the proxy") as caught:
            sink.send(packed(sink, one()))
        sink.close()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308, 401, 402, 403, 404, 405, 406, 407, 410, 415, 418, 451])
def test_unusable(status):
    error = failure(Unusable, Receiver(replies=[Reply(status, b"", (("Location", "/in"),))]), one(), path="/in?s=1")
    assert f"answered {status}" in str(error)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_refused(status):
    failure(Refused, Receiver(replies=[Reply(status)]), one())


@pytest.mark.parametrize(
    "reply", [*map(Reply, (408, 409, 423, 425, 429, 500, 501, 502, 503, 504, 599, "hang", "reset"))]
)
def test_unavailable(reply, monkeypatch):
    if reply.status == "hang":
        monkeypatch.setattr(post, "_TIMEOUT", 0.3)
    receiver = Receiver(replies=[reply])
    failure(Unavailable, receiver, one())
    assert receiver.events == []


def test_how_long_it_wants_to_be_left_alone():
    replies = [Reply(503, b"", (("Retry-After", "17"),))]
    assert failure(Unavailable, Receiver(replies=replies), one()).wait == 17.0


def test_wrong_secrets():
    failure(Unusable, Receiver("other"), one(), **BOTH)
    failure(Unusable, Receiver(TOKEN, "other"), one(), **BOTH)
    failure(Unusable, Receiver(TOKEN, SECRET), one(), token_env="HOOK_TOKEN")


def test_over_tls(tmp_path, monkeypatch):
    tls = apiserver.tls("localhost")
    (tmp_path / "ca.pem").write_bytes(tls.ca)
    receiver = Receiver(TOKEN, SECRET)
    assert "REQUESTS_CA_BUNDLE" in str(failure(Unusable, receiver, one(), tls=tls.context, **BOTH))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    sent(receiver, one(), tls=tls.context, **BOTH)
    assert len(receiver.events) == 1


# -- the documentation


def test_the_receiver_of_the_documentation_verifies(events):
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    made = {}
    exec(code, made)
    is_genuine = made["is_genuine"]
    [request] = sent(Receiver(TOKEN, SECRET), events[:3], **BOTH)

    def headers(**changed):
        found = Message()
        for name, value in {**request.headers, **changed}.items():
            found[name] = value
        return found

    stamp, signature = "x-kubeposture-timestamp", "x-kubeposture-signature"
    now = int(request.headers[stamp])
    assert is_genuine(headers(), request.body, SECRET)
    assert not is_genuine(headers(), request.body, "other")
    assert not is_genuine(headers(), request.body + b"\n", SECRET)
    assert not is_genuine(headers(), request.body.replace(b"2003", b"2004", 1), SECRET)
    assert not is_genuine(headers(**{stamp: str(now + 1)}), request.body, SECRET)
    assert not is_genuine(headers(**{signature: "sha256="}), request.body, SECRET)
    assert not is_genuine(headers(**{signature: "ä"}), request.body, SECRET)
    assert not is_genuine(Message(), request.body, SECRET)
    made["time"] = type("Later", (), {"time": lambda: time.time() + 301})
    assert not is_genuine(headers(), request.body, SECRET)


def test_the_configuration_is_understood(tmp_path):
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "kubeposture.yaml").write_text(text)
    [sink] = config.load(tmp_path / "kubeposture.yaml").sinks
    webhook.open_sink(sink.webhook).close()
    table = PAGE.partition("| key |")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert named == list(WebhookSink.__struct_fields__)


def test_the_headers_and_answers_that_are_told_are_there():
    [request] = sent(Receiver(TOKEN, SECRET), one(), **BOTH)
    table = PAGE.partition("| header |")[2].partition("\n\n")[0]
    told = {name.lower() for name in re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)}
    ours = set(request.headers) - {"host", "content-length", "content-type", "user-agent", "accept-encoding"}
    assert told == ours
    rows = PAGE.partition("| answer |")[2].splitlines()
    assert all(str(status) in rows[3] for status in post._LATER)
    assert all(str(status) in rows[4] for status in post._REFUSED)
