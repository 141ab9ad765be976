"""Objects: each batch is one file, created once, in S3, Azure Blob Storage, Google Cloud Storage and a directory, by
the real obstore over sockets."""

import builtins
import errno
import gzip
import hashlib
import json
import os
import re
import socket
import stat
import sys
from pathlib import Path

import boto3
import pytest
from armserver import ArmServer
from azure_data import sample_estate as azure_estate
from events import of_scans
from gcp_data import sample_estate as google_estate
from gcpserver import GcpServer
from objectserver import ObjectServer, failure
from registryserver import Reply, Server
from test_ocsf import SCAN, event_of, finding, read

from scanner import config
from scanner.config import ConfigError
from scanner.report.ocsf import finding_event
from scanner.sinks import Packed, Unavailable, Unusable, objects
from scanner.sinks.objects import open_sink
from scanner.sinks.settings import ObjectsSink

PAGE = (Path(__file__).parent.parent / "docs/objects.md").read_text()
REGION = "eu-west-1"
AZURE = "https://acme.blob.core.windows.net/events/team/a"
GOOGLE = "gs://acme-events/team/a"
NAME = re.compile(rf"day=2026-09-01/{SCAN}-[0-9a-f]{{32}}\.ndjson\.gz")


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setitem(objects._RETRIES, "max_retries", 0)
    return tmp_path


def packed(sink, *events):
    return [Packed(e["metadata"]["uid"], sink.pack(e)) for e in events]


def two(sink):
    return packed(sink, event_of(), event_of(id="kp1_other"))


def lines(data):
    return gzip.decompress(data).decode()


# -- in a directory


def local(folder):
    return open_sink(ObjectsSink(url=folder.as_uri()))


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_event_of_every_scan_is_there(tmp_path, tmp_path_factory):
    events = of_scans(tmp_path_factory.mktemp("scans"))
    sink = local(tmp_path)
    assert sink.send(packed(sink, *events)) == {}
    [data] = files(tmp_path).values()
    uids = [json.loads(row)["metadata"]["uid"] for row in lines(data).splitlines()]
    assert uids == [e["metadata"]["uid"] for e in events]
    assert {json.loads(row)["class_uid"] for row in lines(data).splitlines()} == {2003, 6007}


def test_a_file_is_called_after_what_is_in_it(tmp_path):
    sink = local(tmp_path)
    batch = two(sink)
    assert sink.send(batch) == sink.send(batch) == sink.send(batch[:1]) == {}
    found = files(tmp_path)
    assert len(found) == 2
    assert all(NAME.fullmatch(name) for name in found)
    assert sorted(len(read(lines(data))) for data in found.values()) == [1, 2]


def test_the_same_batch_is_the_same_file_to_the_byte(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        sink = local(tmp_path / place)
        sink.send(two(sink))
    assert files(tmp_path / "a") == files(tmp_path / "b")
    [data] = files(tmp_path / "a").values()
    assert data[3:8] == bytes(5)  # neither a name nor a time in the head of the gzip


def test_what_is_there_is_never_changed(tmp_path):
    sink = local(tmp_path)
    sink.send(two(sink))
    [name] = files(tmp_path)
    (tmp_path / name).write_bytes(b"mine")
    assert sink.send(two(sink)) == {}
    assert files(tmp_path) == {name: b"mine"}


def test_files_are_for_their_owner_alone(tmp_path):
    sink = local(tmp_path)
    sink.send(two(sink))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {0o700, 0o600}


def test_a_directory_that_is_not_there_is_not_made(tmp_path):
    sink = local(tmp_path / "mount")
    with pytest.raises(Unusable, match="No such file or directory"):
        sink.send(two(sink))
    (tmp_path / "mount").write_text("")
    with pytest.raises(Unusable, match="no directory"):
        sink.send(two(sink))
    assert list(files(tmp_path)) == ["mount"]


def test_a_disk_that_is_full_may_have_room_later(tmp_path, monkeypatch):
    sink = local(tmp_path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left"):
        sink.send(two(sink))
    assert files(tmp_path) == {}
    monkeypatch.undo()
    assert sink.send(two(sink)) == {}
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize(("code", "kind"), [(errno.EROFS, Unusable), (errno.ELOOP, Unusable), (errno.EIO, Unavailable)])
def test_what_a_file_system_says(tmp_path, monkeypatch, code, kind):
    sink = local(tmp_path)

    def failing(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(kind, match=os.strerror(code)):
        sink.send(two(sink))


def test_hostile_events(tmp_path):
    sink = local(tmp_path)
    hostile = finding_event(finding(message="\ud800\n" + "x" * 90_000, scan_id=SCAN))
    hostile["metadata"]["correlation_uid"] = "../../" + "é" * 200
    assert sink.send(packed(sink, hostile)) == {}
    [name] = files(tmp_path)
    assert re.fullmatch(r"day=2026-09-01/[\w-]+\.ndjson\.gz", name, re.ASCII)
    assert lines(files(tmp_path)[name]).count("\n") == 1


def test_nothing_to_send(tmp_path):
    assert local(tmp_path).send([]) == {}
    assert files(tmp_path) == {}


def test_memory_is_bounded(tmp_path):
    sink = local(tmp_path)
    assert sink.most_bytes <= 16 * 1024 * 1024
    [one] = packed(sink, event_of())
    assert b"\n" not in one.body


# -- S3


@pytest.fixture(scope="module")
def moto():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    server._server.server_close()


def aws(monkeypatch, url):
    variables = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "AKIAHOME",
        "AWS_SECRET_ACCESS_KEY": "a-secret-that-is-not-told",
        "AWS_SESSION_TOKEN": "a-session",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def s3(**settings):
    return open_sink(ObjectsSink(**{"url": "s3://acme-events/team/a", "region": REGION, **settings}))


def test_s3(moto, monkeypatch):
    aws(monkeypatch, moto)
    client = boto3.client("s3", region_name=REGION)
    client.create_bucket(Bucket="acme-events", CreateBucketConfiguration={"LocationConstraint": REGION})
    sink = s3()
    batch = two(sink)
    assert sink.send(batch) == {}
    [first] = client.list_objects_v2(Bucket="acme-events")["Contents"]
    assert first["Key"].startswith("team/a/")
    assert NAME.fullmatch(first["Key"].removeprefix("team/a/"))
    data = client.get_object(Bucket="acme-events", Key=first["Key"])["Body"].read()
    assert [e["finding_info"]["uid"] for e in read(lines(data))] == ["kp1_" + "0a" * 16, "kp1_other"]
    assert sink.send(batch) == {}
    [second] = client.list_objects_v2(Bucket="acme-events")["Contents"]
    assert second["LastModified"] == first["LastModified"]
    sink.close()
    with pytest.raises(Unusable, match=r"s3://absent does not exist \(NoSuchBucket\)"):
        s3(url="s3://absent").send(batch)


def took(request):
    return Reply(200, b"", (("ETag", f'"{hashlib.md5(request.body).hexdigest()}"'),))


@pytest.fixture
def stub(monkeypatch):
    """S3 that answers what it is told to, None for what it would."""
    answers = [None]
    with Server(lambda request: answers[0] or took(request)) as server:
        server.answers = answers
        aws(monkeypatch, server.url)
        yield server


def test_what_s3_is_asked(stub):
    sink = s3()
    assert sink.send(two(sink)) == {}
    [request] = stub.requests
    assert (request.method, request.query) == ("PUT", "")
    assert request.path.startswith("/acme-events/team/a/day%3D2026-09-01/")
    assert request.headers["if-none-match"] == "*"
    assert request.headers["x-amz-security-token"] == "a-session"
    assert re.search(rf"Credential=AKIAHOME/\d+/{REGION}/s3/aws4_request", request.headers["authorization"])


@pytest.mark.parametrize("name", ["AWS_SKIP_SIGNATURE", "AWS_CONDITIONAL_PUT"])
def test_no_variable_turns_off_what_counts(stub, monkeypatch, name):
    monkeypatch.setenv(name, {"AWS_SKIP_SIGNATURE": "true", "AWS_CONDITIONAL_PUT": "disabled"}[name])
    sink = s3()
    assert sink.send(two(sink)) == {}
    assert stub.requests[0].headers["if-none-match"] == "*"
    assert "authorization" in stub.requests[0].headers


ANSWERS = [
    (failure(412, "PreconditionFailed"), None, ""),
    # obstore says of each 409 that the object is there already
    (failure(409, "ConditionalRequestConflict"), Unavailable, "ConditionalRequestConflict"),
    (failure(409, "OperationAborted"), Unavailable, "OperationAborted"),
    (failure(404, "NoSuchBucket"), Unusable, "does not exist"),
    (failure(403, "AccessDenied"), Unusable, "AccessDenied): grant"),
    (failure(401, "AuthenticationFailed"), Unusable, "AuthenticationFailed"),
    (failure(400, "ExpiredToken"), Unusable, "log in again"),
    (failure(400, "InvalidRequest"), Unusable, "InvalidRequest"),
    (Reply(301), Unusable, "redirect, which is not followed: it is in another region"),
    (Reply(304), Unusable, "redirect (304)"),
    (Reply(302, b"", (("Location", "/login"),)), Unusable, "redirect (302)"),
    (Reply(307, b"", (("Location", "/login"),)), Unusable, "redirect (307)"),
    (failure(408, "RequestTimeout"), Unavailable, "RequestTimeout"),
    (failure(429, "SlowDown"), Unavailable, "SlowDown"),
    (failure(500, "InternalError"), Unavailable, "InternalError"),
    (failure(503, "SlowDown"), Unavailable, "SlowDown"),
    (Reply(503, b"<html>"), Unavailable, "503"),
    (Reply(200, b""), Unusable, "as no object store does"),  # no ETag: of something else
]


def check(sink, kind, words):
    if kind is None:
        assert sink.send(two(sink)) == {}
        return
    with pytest.raises(kind) as raised:
        sink.send(two(sink))
    text = str(raised.value)
    assert words in text
    assert "a-secret" not in text
    assert "secret-of-a-body" not in text
    assert text.isprintable()
    assert "Debug" not in text


@pytest.mark.parametrize(("answer", "kind", "words"), ANSWERS)
def test_what_s3_says(stub, answer, kind, words):
    stub.answers[0] = answer
    check(s3(), kind, words)
    assert len(stub.requests) == 1


def test_a_prefix_is_no_answer(stub):
    stub.answers[0] = Reply(503)
    check(s3(url="s3://acme-events/error-following-redirect"), Unavailable, "503")


PAGES = [
    Reply(200, b"<html>log in", (("ETag", '"x"'), ("Content-Type", "text/html"))),
    Reply(200, b"<html>log in", (("ETag", '"5d41402abc4b2a76b9719d911017c592"'),)),
    Reply(202, b"", (("ETag", '"x"'),)),
    Reply(204, b"", (("ETag", '"x"'), ("x-amz-version-id", "v1"))),
    Reply(206, b"", (("ETag", 'W/"x"'),)),
]


def logged_in(page):
    """Who has to log in first is sent to a page, which obstore asks for."""
    return lambda request: page if request.path == "/login" else Reply(303, b"", (("Location", "/login"),))


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize("kind", ["s3", "azure", "google"])
def test_what_is_no_object_store_takes_nothing(request, kind, redirected, page):
    server = request.getfixturevalue({"s3": "stub", "azure": "blobs", "google": "buckets"}[kind])
    sink = {"s3": s3, "azure": azure, "google": google}[kind]()
    server = getattr(server, "server", server)
    server.answer = logged_in(page) if redirected else lambda _: page
    check(sink, Unusable, "as no object store does: something else answers")


def test_s3_with_a_kms_key_has_etags_that_prove_nothing(stub):
    """It finds there what it took, so the second answer proves the first."""
    encrypted = Reply(200, b"", (("ETag", '"5d41402abc4b2a76b9719d911017c592"'),))
    answers = iter([encrypted, failure(412, "PreconditionFailed"), encrypted, Reply(503)])
    stub.answer = lambda _: next(answers)
    check(s3(), None, "")
    assert len(stub.requests) == 2
    assert stub.requests[0].path == stub.requests[1].path
    check(s3(), Unavailable, "503")  # later, it is there


def test_few_attempts_of_its_own(stub, monkeypatch):
    monkeypatch.undo()
    aws(monkeypatch, stub.url)
    stub.answers[0] = Reply(503)
    check(s3(), Unavailable, "503")
    assert len(stub.requests) == 3


def test_an_answer_that_got_lost(stub, monkeypatch):
    """The first attempt has made the object: the second finds it there."""
    monkeypatch.setitem(objects._RETRIES, "max_retries", 2)
    answers = iter([Reply(500), failure(412, "PreconditionFailed")])
    stub.answer = lambda _: next(answers)
    check(s3(), None, "")
    assert len(stub.requests) == 2


def test_s3_out_of_reach(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        aws(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}")
        check(s3(), Unavailable, "127.0.0.1")


def test_s3_without_credentials(stub, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    check(s3(), Unusable, "no AWS credentials")
    assert stub.requests == []


@pytest.mark.parametrize("problem", ["AccessDenied", "InvalidIdentityToken", "missing", "a directory"])
def test_a_web_identity_that_does_not_work(stub, monkeypatch, tmp_path, problem):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    file = tmp_path / "token"
    refused = problem in ("AccessDenied", "InvalidIdentityToken")
    if refused:
        file.write_text("eyJhbGciOiJub25lIn0.e30.x")
    elif problem == "a directory":
        file.mkdir()
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/findings")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    body = f"<ErrorResponse><Error><Code>{problem}</Code><Message>no</Message></Error></ErrorResponse>"
    stub.answers[0] = Reply(400, body.encode(), (("Content-Type", "text/xml"),))
    check(s3(), Unusable, {"missing": "No such file", "a directory": "Is a directory"}.get(problem, problem))
    assert [r.path for r in stub.requests] == (["/"] if refused else [])  # of STS


def test_where_s3_is(monkeypatch):
    aws(monkeypatch, "")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    for region, host in (("eu-west-1", "amazonaws.com"), ("cn-north-1", "amazonaws.com.cn")):
        store = s3(region=region)._write.__self__._store
        assert store.config["endpoint"].endswith(f".{region}.{host}")
        assert store.config["region"] == region
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert s3(region=None)._write.__self__._store.config["region"] == "eu-north-1"


# -- Azure Blob Storage


@pytest.fixture
def blobs(monkeypatch):
    with ArmServer(azure_estate()) as arm:
        given = lambda token: token in {t.token for t in arm.tokens if t.resource == "https://storage.azure.com"}  # noqa: E731
        with ObjectServer(given) as server:
            for name, value in {**arm.environment, **server.environment}.items():
                monkeypatch.setenv(name, value)
            server.arm = arm
            yield server


def azure(url=AZURE):
    return open_sink(ObjectsSink(url=url))


def test_azure(blobs):
    sink = azure()
    batch = two(sink)
    assert sink.send(batch) == sink.send(batch) == {}
    [(name, data)] = blobs.objects.items()
    assert name.startswith("events/team/a/")
    assert NAME.fullmatch(name.removeprefix("events/team/a/"))
    assert len(read(lines(data))) == 2
    assert len(blobs.arm.tokens) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (failure(409, "BlobAlreadyExists"), None, ""),
        (failure(409, "BlobImmutableDueToPolicy"), None, ""),
        (failure(409, "ContainerBeingDeleted"), Unavailable, "ContainerBeingDeleted"),
        (failure(404, "ContainerNotFound"), Unusable, "acme.blob.core.windows.net/events does not exist"),
        (failure(403, "AuthorizationPermissionMismatch"), Unusable, "Storage Blob Data Contributor"),
        (failure(503, "ServerBusy"), Unavailable, "ServerBusy"),
    ],
)
def test_what_azure_says(blobs, answer, kind, words):
    blobs.answers = [answer]
    check(azure(), kind, words)


def test_keys_of_an_account_are_not_used(blobs, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    monkeypatch.setenv("AZURE_STORAGE_SAS_KEY", "sig=x")
    sink = azure()
    assert sink.send(two(sink)) == {}


def test_azure_without_credentials(blobs, monkeypatch):
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    check(azure(), Unusable, "no Azure credential worked")
    assert blobs.server.requests == []


@pytest.mark.parametrize("domain", ["core.usgovcloudapi.net", "core.chinacloudapi.cn"])
def test_other_clouds(domain):
    store = azure(f"https://acme.blob.{domain}/events")._write.__self__._store
    assert store.config["endpoint"] == f"https://acme.blob.{domain}"


# -- Google Cloud Storage


@pytest.fixture
def buckets(monkeypatch, tmp_path):
    with GcpServer(google_estate()) as gcp, ObjectServer(gcp.knows) as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcp.key_file(tmp_path))
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def google():
    return open_sink(ObjectsSink(url=GOOGLE))


def test_google(buckets):
    sink = google()
    batch = two(sink)
    assert sink.send(batch) == sink.send(batch) == {}
    [(name, data)] = buckets.objects.items()
    assert name.startswith("acme-events/team/a/")
    assert NAME.fullmatch(name.removeprefix("acme-events/team/a/"))
    assert len(read(lines(data))) == 2


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (failure(412, "PreconditionFailed"), None, ""),
        (failure(409, "Conflict"), Unavailable, "Conflict"),
        (failure(404, "NoSuchBucket"), Unusable, "gs://acme-events does not exist"),
        (failure(403, "AccessDenied"), Unusable, "roles/storage.objectCreator"),
        (failure(429, "SlowDown"), Unavailable, "SlowDown"),
    ],
)
def test_what_google_says(buckets, answer, kind, words):
    buckets.answers = [answer]
    check(google(), kind, words)


def test_google_without_credentials(buckets, monkeypatch, tmp_path):
    (tmp_path / "none.json").write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(Unusable, match="credentials"):
        google().send([Packed("x", b'{"time": 0, "metadata": {"correlation_uid": "s"}}')])
    assert buckets.server.requests == []


# -- what the documentation says


def test_the_policy_and_the_configuration_are_those_of_one_bucket(stub, tmp_path):
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "kubeposture.yaml").write_text(text)
    [found] = config.load(tmp_path / "kubeposture.yaml").sinks
    sink = open_sink(found.settings)
    sink.send(two(sink))
    [statement] = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])["Statement"]
    assert statement["Action"] == "s3:PutObject"
    place = statement["Resource"].removeprefix("arn:aws:s3:::").removesuffix("*")
    assert [(r.method, r.path.startswith(f"/{place}day%3D")) for r in stub.requests] == [("PUT", True)]


# -- what cannot be used


@pytest.mark.parametrize(
    "url",
    [
        *("acme-events", "/var/log/events", "s3:acme", "s3://", "s3:///a", "s3://UP", "ftp://acme/a"),
        *("s3://acme/a//b", "s3://acme/../b", "s3://acme/a/./b", "s3://acme/a%2fb", "s3://acme/a b", "s3://acme/é"),
        *(
            "http://acme.blob.core.windows.net/events",
            "https://acme.blob.core.windows.net",
            "https://example.com/events",
        ),
        *("https://acme.blob.example.com/events", "https://acme.blob.core.windows.net:8443/events"),
        *(
            "https://acme.blob.core.windows.net/events?sig=secret",
            "https://user:secret@acme.blob.core.windows.net/events",
        ),
        *("file:///%2e%2e", "file:///a/../..", "file:///.", "file:///a%00", "file:///\ud800"),
        *("gs://acme?secret", "gs://secret@acme", "s3://[acme/secret", "file://", "file:///", "file://host/a"),
    ],
)
def test_urls_that_cannot_be_used(url):
    with pytest.raises(ConfigError, match=r"^objects: ") as raised:
        open_sink(ObjectsSink(url=url))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "s3://acme"}, "name the bucket's region"),
        ({"url": "s3://acme", "region": REGION, "aws_profile": "absent"}, "absent"),
        ({"url": "s3://acme", "region": "eu west"}, "objects: "),
        ({"url": "s3://acme", "region": "eu-west1"}, "'eu-west1' is no region: eu-west-1 is one"),
        ({"url": "s3://acme", "region": "SECRET"}, "is no region"),
        ({"url": GOOGLE, "region": REGION}, "go with s3:// alone"),
        ({"url": AZURE, "aws_profile": "p"}, "go with s3:// alone"),
    ],
)
def test_settings_that_cannot_be_used(monkeypatch, settings, words):
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(ConfigError, match=re.escape(words)):
        open_sink(ObjectsSink(**settings))


def test_regions_of_others_have_other_names(stub):
    assert s3(region="auto").send([]) == {}


def test_variables_that_cannot_be_used(monkeypatch):
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", "/absent.json")
    with pytest.raises(ConfigError, match=r"/absent\.json"):
        google()


def test_a_proxy_with_a_password_that_would_be_shown(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:pa/ss@proxy:8080")
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as raised:
        google()
    assert "pa/ss" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("s3://acme", "obstore", "objects,aws"),
        ("s3://acme", "boto3", "objects,aws"),
        (AZURE, "azure", "objects,azure"),
        (AZURE, "msal", "objects,azure"),
        (GOOGLE, "google", "objects,gcp"),
    ],
)
def test_without_the_libraries(monkeypatch, url, package, extra):
    there = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return there(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("azure.identity")]:  # what has msal already
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigError, match=re.escape(f"pip install 'kubeposture[{extra}]'")):
        open_sink(ObjectsSink(url=url))
