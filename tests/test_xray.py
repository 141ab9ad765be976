"""JFrog Xray over a real socket: which images there are, what was found in them, and what is said of failures."""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from datetime import UTC, datetime

import pytest
from proxyserver import Proxy
from registryserver import Reply, Server

from providers import http
from providers.http import UsageError
from providers.registries import xray
from scanner.cli.image_sources import xray_task
from scanner.cli.options import Running
from scanner.config import ConfigError
from scanner.model import GapReason
from scanner.vulnerabilities import Level, Platform, Scans, Vulnerability

TOKEN = "s3cr3t-access-token"
WHEN = datetime(2026, 8, 9, 12, 13, 45, tzinfo=UTC)
DONE = {
    "overall": {"status": "PARTIAL", "time": "2026-08-09T15:14:44+03:00"},
    "details": {"sca": {"status": "DONE", "time": "2026-08-09T15:13:45+03:00"}},
}
MISSING = "Artifact doesn't exist or not indexed/cached in Xray"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(http, "_BACKOFF", 0.001)
    monkeypatch.setattr(http, "_LONGEST_WAIT", 0.01)


def hexed(text):
    return hashlib.sha256(text if isinstance(text, bytes) else text.encode()).hexdigest()


def issue(id="XRAY-1", cve="CVE-2026-1", severity="High", **more):
    return {
        "issue_id": id,
        "severity": severity,
        "issue_type": "security",
        "cves": [{"cve": cve, "cvss_v3": "7.5/CVSS:3.1/AV:N"}],
        "components": [
            {"component_id": "deb://debian:bookworm:libssl3:3.0.1", "fixed_versions": ["[3.0.2]", "[3.1.0]"]}
        ],
        **more,
    }


class JFrog:
    """A platform with one Docker repository, "docker-local", unless others are given."""

    def __init__(self):
        self.repositories = [
            {"key": "docker-local", "type": "LOCAL", "packageType": "Docker"},
            {"key": "docker", "type": "VIRTUAL", "packageType": "Docker"},
            {"key": "npm", "type": "LOCAL", "packageType": "Npm"},
        ]
        self.items = defaultdict(list)
        self.files = {}
        self.issues = {}  # by path; what is not in there is not indexed
        self.status = {}
        self.replies = {}  # by path of the API, in place of all this
        self.range = {}

    def add(self, path, *issues, repo="docker-local", name="manifest.json", sha256="", status=DONE, indexed=True):
        """Gives the digest."""
        sha256 = sha256 or hexed(path)
        self.items[repo].append({"repo": repo, "path": path, "name": name, "sha256": sha256})
        full = f"{repo}/{path}/{name}"
        if indexed:
            self.issues[full] = list(issues)
        self.status[full] = status
        return f"sha256:{sha256}"

    def add_index(self, path, entries, **more):
        body = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        repo = more.get("repo", "docker-local")
        self.files[f"/artifactory/{repo}/{path}/list.manifest.json"] = body
        return self.add(path, name="list.manifest.json", sha256=hexed(body), **more)

    def __call__(self, request):
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Reply(401, {"errors": [{"status": 401, "message": f"bad token {TOKEN}"}]})
        if (reply := self.replies.get(request.path)) is not None:
            reply = reply(request) if callable(reply) else reply
            if reply:
                return reply
        return self.answer(request)

    def answer(self, request):
        if (request.method, request.path) == ("GET", "/artifactory/api/repositories"):
            return Reply(body=self.repositories)
        if (request.method, request.path) == ("POST", "/artifactory/api/search/aql"):
            assert request.headers["content-type"] == "text/plain"
            query = request.body.decode()
            where = json.loads(query.removeprefix("items.find(").partition(").include(")[0])
            assert where["$or"] == [{"name": "manifest.json"}, {"name": "list.manifest.json"}]
            assert query.endswith('.include("repo","path","name","sha256")')
            return Reply(body={"results": self.items[where["repo"]], "range": self.range})
        if (request.method, request.path) == ("POST", "/xray/api/v2/summary/artifact"):
            return Reply(body=self.summary(json.loads(request.body)["paths"]))
        if (request.method, request.path) == ("POST", "/xray/api/v1/artifact/status"):
            asked = json.loads(request.body)
            told = self.status.get(f"{asked['repo']}/{asked['path']}")
            return Reply(404, {"error": "not found"}) if told is None else Reply(body=told)
        if request.method == "GET" and request.path in self.files:
            return Reply(body=self.files[request.path])
        return Reply(404)

    def summary(self, paths):
        assert all(path.startswith("default/") for path in paths)
        names = [path.removeprefix("default/") for path in paths]
        artifacts = [
            {"general": {"path": f"default/{name}", "sha256": "0" * 64}, "issues": self.issues[name]}
            for name in names
            if name in self.issues
        ]
        errors = [{"identifier": f"default/{name}", "error": MISSING} for name in names if name not in self.issues]
        return {"artifacts": artifacts, "errors": errors}


@pytest.fixture
def jfrog():
    return JFrog()


def read(jfrog, *, timeout=2.0, server=None, **options):
    """All that is read, in one. Nothing may be sent but what only reads."""
    with server or Server(jfrog) as running:
        whole = Scans()
        for some in xray.read(running.url, TOKEN, timeout, **options):
            whole.asked += some.asked
            whole.scans += some.scans
            whole.indexes |= some.indexes
            whole.gaps += some.gaps
            assert not some.listed
        posts = {"/artifactory/api/search/aql", "/xray/api/v2/summary/artifact", "/xray/api/v1/artifact/status"}
        assert {r.method for r in running.requests} <= {"GET", "POST"}
        assert set(running.paths("POST")) <= posts
    assert TOKEN not in repr(whole)
    assert whole.asked == ["xray"]
    assert {gap.what for gap in whole.gaps} <= {"xray"}
    assert all(gap.detail.isprintable() for gap in whole.gaps)
    return whole


def by_name(scans):
    return {(scan.repository.removeprefix("docker-local/"), *(scan.tags or ())): scan for scan in scans.scans}


# --- which images there are ---


def test_an_image_with_its_findings(jfrog):
    digest = jfrog.add("team/app/1.0", issue(), issue("XRAY-2", "CVE-2026-2", "Low", components=None))
    server = Server(jfrog)
    given = read(jfrog, server=server)
    [scan] = given.scans
    assert (scan.source, scan.registry, scan.repository) == ("xray", server.host, "docker-local/team/app")
    assert (scan.digest, scan.tags, scan.platform) == (digest, ("1.0",), None)
    assert (scan.unfinished, scan.scanned_at, given.gaps) == ("", WHEN, [])
    assert scan.vulnerabilities == [
        Vulnerability("CVE-2026-1", Level.HIGH, "debian:bookworm:libssl3", "3.0.1", "3.0.2, 3.1.0", 7.5),
        Vulnerability("CVE-2026-2", Level.LOW, cvss=7.5),
    ]


def test_an_image_is_what_has_one_digest_under_all_its_tags(jfrog):
    same = hexed("same")
    for path in ("app/1.0", "app/latest", f"app/sha256:{same}", "other/1.0"):
        jfrog.add(path, sha256=same)
    found = {(scan.repository, scan.tags) for scan in read(jfrog).scans}
    assert found == {("docker-local/app", ("1.0", "latest")), ("docker-local/other", ("1.0",))}


def test_platforms_of_an_index_and_its_parts(jfrog):
    arm, amd = hexed("arm"), hexed("amd")
    jfrog.add(f"app/sha256:{arm}", sha256=arm)
    jfrog.add(f"app/2.0/sha256__{amd}", issue(), sha256=amd)
    entries = [
        {"digest": f"sha256:{amd}", "platform": {"os": "linux", "architecture": "amd64"}},
        {"digest": f"sha256:{arm}", "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
        {"digest": f"sha256:{hexed('x')}", "platform": {"os": "unknown", "architecture": "unknown"}},
    ]
    index = jfrog.add_index("app/2.0", entries, indexed=False)
    given = read(jfrog)
    assert given.indexes == {
        index: [Platform(f"sha256:{amd}", "linux/amd64"), Platform(f"sha256:{arm}", "linux/arm64/v8")]
    }
    found = {scan.digest: scan for scan in given.scans}
    assert {scan.repository for scan in given.scans} == {"docker-local/app"}
    assert (found[index].tags, found[index].platform, found[index].unfinished) == (("2.0",), "", "not_scanned")
    assert [(found[f"sha256:{d}"].tags, found[f"sha256:{d}"].platform) for d in (amd, arm)] == [((), None), ((), None)]
    assert [len(found[f"sha256:{d}"].vulnerabilities) for d in (amd, arm)] == [1, 0]


def test_what_was_found_in_an_index_counts(jfrog):
    index = jfrog.add_index("app/2.0", [{"digest": f"sha256:{hexed('x')}"}])
    jfrog.issues["docker-local/app/2.0/list.manifest.json"] = [issue()]
    [scan] = read(jfrog).scans
    assert (scan.digest, scan.platform, len(scan.vulnerabilities)) == (index, "", 1)


@pytest.mark.parametrize("body", [b'{"manifests": [{"digest": "x"}]}', b'{"manifests": 5}', b"<html>"])
def test_an_index_that_cannot_be_read_is_a_gap_and_stays_an_image(jfrog, body):
    jfrog.add("app/1.0")
    jfrog.add_index("app/2.0", [])
    jfrog.items["docker-local"][-1]["sha256"] = hexed(body)
    jfrog.files["/artifactory/docker-local/app/2.0/list.manifest.json"] = body
    given = read(jfrog)
    assert (len(given.scans), given.indexes) == (2, {})
    assert [gap.reason for gap in given.gaps] == ["bad_data"]


def test_an_index_of_another_digest_is_none(jfrog):
    jfrog.add_index(
        "app/2.0", [{"digest": f"sha256:{hexed('x')}", "platform": {"os": "linux", "architecture": "amd64"}}]
    )
    jfrog.items["docker-local"][0]["sha256"] = hexed("another")
    given = read(jfrog)
    assert (given.indexes, [gap.reason for gap in given.gaps]) == ({}, ["bad_data"])


def test_a_remote_repository_is_read_where_it_is_cached(jfrog):
    jfrog.repositories = [{"key": "hub", "type": "REMOTE", "packageType": "Docker"}]
    jfrog.add("library/nginx/1.27", issue(), repo="hub-cache")
    [scan] = read(jfrog).scans
    assert (scan.repository, scan.tags, len(scan.vulnerabilities)) == ("hub/library/nginx", ("1.27",), 1)
    assert scan.scanned_at == WHEN


def test_every_repository_is_read(jfrog):
    jfrog.repositories += [
        {"key": "oci-b", "type": "FEDERATED", "packageType": "oci"},
        {"key": "../x", "type": "LOCAL", "packageType": "docker"},
    ]
    jfrog.add("app/1")
    jfrog.add("app/1", repo="oci-b")
    given = read(jfrog)
    assert [scan.repository for scan in given.scans] == ["docker-local/app", "oci-b/app"]
    assert [gap.reason for gap in given.gaps] == ["bad_data"]


def test_signatures_are_no_images(jfrog):
    jfrog.add("app/1.0")
    jfrog.add(f"app/sha256-{'a' * 64}.sig")
    jfrog.add(f"app/sha256-{'a' * 64}")
    assert [scan.tags for scan in read(jfrog).scans] == [("1.0",)]


@pytest.mark.parametrize(
    "odd",
    [
        {"path": "app/../../x", "name": "manifest.json", "sha256": "a" * 64},
        {"path": "app", "name": "manifest.json", "sha256": "a" * 64},
        {"path": "app/1", "name": "manifest.json"},
        {"path": "app/1", "name": "manifest.json", "sha256": "a" * 63},
        {"path": "app/\x1b1", "name": "manifest.json", "sha256": "a" * 64},
        {"path": "a/" * 999 + "1", "name": "manifest.json", "sha256": "a" * 64},
        {"path": "app/1", "name": "other.json", "sha256": "a" * 64},
        {"path": 5, "name": "manifest.json"},
        None,
    ],
)
def test_what_is_no_image_is_a_gap(jfrog, odd):
    jfrog.add("app/1.0")
    jfrog.items["docker-local"].insert(0, odd)
    given = read(jfrog)
    assert [scan.tags for scan in given.scans] == [("1.0",)]
    assert [(gap.reason, gap.detail[:9]) for gap in given.gaps] == [("bad_data", "1 images ")]


def test_a_list_that_was_cut_short_is_a_gap(jfrog):
    jfrog.add("app/1.0")
    jfrog.range = {"start_pos": 0, "end_pos": 1, "total": 1, "notification": "AQL query reached the search hard limit"}
    given = read(jfrog)
    assert len(given.scans) == 1
    [gap] = given.gaps
    assert "hard limit" in gap.detail


def test_no_repository_is_a_gap_since_a_token_may_just_not_see_any(jfrog):
    jfrog.repositories = jfrog.repositories[1:]
    [gap] = read(jfrog).gaps
    assert (gap.reason, "Read" in gap.detail) == ("not_found", True)


# --- what Xray says of them ---


def test_what_is_not_indexed_was_not_scanned(jfrog):
    jfrog.add("app/1.0", issue())
    jfrog.add("app/2.0", indexed=False)
    scan = by_name(read(jfrog))["app", "2.0"]
    assert (scan.unfinished, scan.detail, scan.scanned_at) == ("not_scanned", MISSING, None)


def test_an_image_that_is_indexed_under_another_tag(jfrog):
    same = hexed("same")
    for tag, indexed in (("1", False), ("2", False), ("3", True)):
        jfrog.add(f"app/{tag}", issue(), sha256=same, indexed=indexed)
    [scan] = read(jfrog).scans
    assert (scan.unfinished, scan.tags, len(scan.vulnerabilities)) == ("", ("1", "2", "3"), 1)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("NOT_SUPPORTED", "unsupported_image"),
        ("NOT_SCANNED", "not_scanned"),
        ("PENDING", "in_progress"),
        ("SCANNING", "in_progress"),
        ("PARTIAL", "incomplete"),
        ("FAILED", "failed"),
        ("BRAND_NEW", "incomplete"),
        ("DONE", ""),
        (None, "incomplete"),
    ],
)
def test_only_a_scan_that_is_done_has_finished(jfrog, status, why):
    jfrog.add("app/0.9")
    jfrog.add("app/1.0", issue(), status={"details": {"sca": {"status": status, "time": "2026-08-09T12:13:45Z"}}})
    scan = by_name(read(jfrog))["app", "1.0"]
    assert (scan.unfinished, len(scan.vulnerabilities), bool(scan.detail)) == (why, 1, bool(why))


def test_the_scan_as_a_whole_counts_where_its_parts_are_not_told(jfrog):
    jfrog.add("app/1.0", status={"overall": {"status": "DONE", "time": "2026-08-09T12:13:45Z"}})
    jfrog.add("app/2.0", status={})
    found = by_name(read(jfrog))
    assert (found["app", "1.0"].unfinished, found["app", "1.0"].scanned_at) == ("", WHEN)
    assert (found["app", "2.0"].unfinished, found["app", "2.0"].scanned_at) == ("incomplete", None)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "soon", None])
def test_a_time_that_is_none_proves_nothing(jfrog, time):
    jfrog.add("app/1.0", status={"details": {"sca": {"status": "DONE", "time": time}}})
    [scan] = read(jfrog).scans
    assert scan.scanned_at is None


def test_a_version_that_tells_no_time_proves_no_pass(jfrog):
    jfrog.add("app/1.0", issue(), status=None)
    given = read(jfrog)
    [scan] = given.scans
    assert (scan.scanned_at, len(scan.vulnerabilities), given.gaps) == (None, 1, [])
    assert "when" in scan.detail


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (issue(severity="Information", cves=[{"cve": "CVE-1"}]), [("CVE-1", "negligible", None)]),
        (issue(severity="Unknown"), [("CVE-2026-1", "high", 7.5)]),
        (issue(cves=[]), [("XRAY-1", "high", None)]),
        (issue(cves=None), [("XRAY-1", "high", None)]),
        (issue(cves=[{"cvss_v3": "9.8/CVSS:3.1"}]), [("XRAY-1", "high", 9.8)]),
        (
            issue(cves=[{"cve": "A", "cvss_v3_score": "5.0"}, {"cve": "B", "cvss_v3_score": 4}]),
            [("A", "high", 5.0), ("B", "high", 4.0)],
        ),
        (
            issue(cves=[{"cve": "A", "cvss_v3": "bad"}, {"cve": "B", "cvss_v3": "99/x"}]),
            [("A", "high", None), ("B", "high", None)],
        ),
        (issue(cves=[{"cve": "A", "cvss_v3": "nan"}]), [("A", "high", None)]),
    ],
)
def test_ids_and_levels(jfrog, given, expected):
    jfrog.add("app/1.0", given)
    [scan] = read(jfrog).scans
    assert [(v.id, v.level, v.cvss) for v in scan.vulnerabilities] == expected


@pytest.mark.parametrize(
    ("component", "package", "version"),
    [
        ({"component_id": "gav://org.apache:log4j-core:2.14.1"}, "org.apache:log4j-core", "2.14.1"),
        ({"component_id": "npm://lodash", "version": "4.17.20"}, "lodash", "4.17.20"),
        ({"component_id": "npm://lodash:4.17.20", "version": "4.17.20"}, "lodash", "4.17.20"),
        ({"component_id": "org.apache:log4j-core"}, "org.apache:log4j-core", ""),
        ({"component_id": None}, "", ""),
    ],
)
def test_packages(jfrog, component, package, version):
    jfrog.add("app/1.0", issue(components=[component]))
    [scan] = read(jfrog).scans
    assert [(v.package, v.installed) for v in scan.vulnerabilities] == [(package, version)]


@pytest.mark.parametrize("odd", [5, {"issue_id": "", "cves": []}, {"issue_id": 5}, {"components": "x"}, None])
def test_an_issue_that_is_not_understood_leaves_the_image_unfinished(jfrog, odd):
    jfrog.add("app/1.0", issue(), odd)
    [scan] = read(jfrog).scans
    assert (scan.unfinished, len(scan.vulnerabilities)) == ("incomplete", 1)


def test_an_issue_of_endless_pairs_is_not_understood(jfrog):
    endless = issue(cves=[{"cve": f"CVE-{n}"} for n in range(20_000)], components=[{}] * 20_000)
    jfrog.add("app/1.0", issue(), endless)
    started = time.monotonic()
    [scan] = read(jfrog).scans
    assert (scan.unfinished, len(scan.vulnerabilities)) == ("incomplete", 1)
    assert time.monotonic() - started < 10


def test_an_answer_without_issues_proves_nothing(jfrog):
    jfrog.add("app/1.0")
    jfrog.issues["docker-local/app/1.0/manifest.json"] = None
    [scan] = read(jfrog).scans
    assert scan.unfinished == "incomplete"


@pytest.mark.parametrize(
    "artifact", [5, {"general": {"path": "default/docker-local/else/manifest.json"}}, {"general": 5}]
)
def test_an_artifact_that_nobody_asked_about_is_nothing(jfrog, artifact):
    jfrog.add("app/1.0")
    jfrog.add("app/2.0")
    summary = jfrog.summary
    jfrog.summary = lambda paths: {"artifacts": [artifact, *summary(paths[:1])["artifacts"]]}
    found = by_name(read(jfrog))
    assert (found["app", "1.0"].unfinished, found["app", "2.0"].unfinished) == ("", "incomplete")


def test_an_artifact_may_be_told_by_its_digest(jfrog):
    digest = jfrog.add("app/1.0")
    jfrog.summary = lambda paths: {
        "artifacts": [{"general": {"path": "elsewhere", "sha256": digest[7:]}, "issues": [issue()]}],
        "errors": None,
    }
    [scan] = read(jfrog).scans
    assert len(scan.vulnerabilities) == 1


def test_many_images_are_asked_about_fifty_at_a_time(jfrog):
    for number in range(120):
        jfrog.add(f"app/{number}", issue())
    server = Server(jfrog)
    given = read(jfrog, server=server)
    asked = [len(json.loads(r.body)["paths"]) for r in server.requests if r.path.endswith("summary/artifact")]
    assert asked == [50, 50, 20]
    assert len({id(v) for scan in given.scans for v in scan.vulnerabilities}) == 1


def test_an_answer_that_is_too_large_is_asked_for_in_parts(jfrog, monkeypatch):
    monkeypatch.setattr(xray, "_SUMMARIES", 6_000)
    for number in range(20):
        jfrog.add(f"app/{number}", issue(summary="s" * 200_000 if number == 7 else "s" * 500))
    monkeypatch.setattr(http, "_HEADERS", 1_000)
    given = read(jfrog)
    unfinished = [scan.tags for scan in given.scans if scan.unfinished]
    assert unfinished == [("7",)]
    assert [gap.reason for gap in given.gaps] == ["bad_data"]


# --- failures ---


@pytest.mark.parametrize(
    ("path", "permission", "images"),
    [
        ("/artifactory/api/repositories", "Read on the repositories", 0),
        ("/artifactory/api/search/aql", "Read on the repository docker-local", 0),
        ("/xray/api/v2/summary/artifact", "Read on the repository docker-local", 2),
        ("/xray/api/v1/artifact/status", "Read on the repository docker-local", 2),
    ],
)
@pytest.mark.parametrize(
    ("status", "reason"),
    [(403, "forbidden"), (401, "forbidden"), (500, "server_error"), (429, "throttled"), (302, "bad_data")],
)
def test_what_is_refused_is_a_gap_and_no_pass(jfrog, path, permission, images, status, reason):
    jfrog.add("app/1.0", issue())
    jfrog.add("app/2.0")
    jfrog.replies[path] = Reply(
        status, {"errors": [{"message": f"no {TOKEN}"}]}, (("Location", "http://127.0.0.1:1/"),)
    )
    given = read(jfrog)
    assert {gap.reason for gap in given.gaps} == {reason}
    assert {gap.permission for gap in given.gaps} == {permission if status == 403 else ""}
    assert len(given.scans) == images
    assert all(scan.unfinished == "incomplete" for scan in given.scans)


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"artifacts": 5}', b'{"results": {}}', b"null"])
@pytest.mark.parametrize("path", ["/artifactory/api/search/aql", "/xray/api/v2/summary/artifact"])
def test_what_is_no_answer_is_a_gap(jfrog, path, answer):
    jfrog.add("app/1.0")
    jfrog.replies[path] = Reply(200, answer)
    given = read(jfrog)
    assert [gap.reason for gap in given.gaps] == ["bad_data"]
    assert all(scan.unfinished for scan in given.scans)


def test_what_succeeds_later_is_asked_again(jfrog):
    jfrog.add("app/1.0", issue())
    left = [Reply(503, b"", (("Retry-After", "9999"),)), Reply(429)]
    jfrog.replies["/xray/api/v2/summary/artifact"] = lambda _: left.pop() if left else None
    given = read(jfrog)
    assert (given.gaps, len(given.scans[0].vulnerabilities)) == ([], 1)


def test_one_failure_does_not_take_the_rest(jfrog):
    for number in range(100):
        jfrog.add(f"app/{number:03}")
    left = [Reply(500)]
    jfrog.replies["/xray/api/v2/summary/artifact"] = lambda _: left.pop() if left else None
    given = read(jfrog)
    assert [scan.unfinished for scan in given.scans] == ["incomplete"] * 50 + [""] * 50
    assert len(given.gaps) == 1


def test_a_refused_token_is_asked_with_once(jfrog):
    jfrog.replies["/artifactory/api/repositories"] = Reply(401)
    server = Server(jfrog)
    [gap] = read(jfrog, server=server).gaps
    assert (gap.reason, "token" in gap.detail) == ("forbidden", True)
    assert len(server.requests) == 1


def test_a_server_that_says_nothing(jfrog):
    jfrog.replies["/artifactory/api/repositories"] = Reply("hang")
    [gap] = read(jfrog, timeout=0.2).gaps
    assert gap.reason == "timeout"


def test_a_server_that_is_not_there(jfrog):
    with Server(jfrog) as server:
        url = server.url
    gaps = [gap for some in xray.read(url, TOKEN, 1.0) for gap in some.gaps]
    assert [gap.reason for gap in gaps] == ["unreachable"]


def test_after_the_deadline_nothing_is_asked(jfrog):
    server = Server(jfrog)
    [gap] = read(jfrog, server=server, deadline=0.0).gaps
    assert (gap.reason, server.requests) == ("timeout", [])


@pytest.mark.parametrize(
    "url",
    [
        "http://acme.jfrog.io",
        "acme.jfrog.io",
        "https://",
        "https://a@b",
        "https://x/artifactory",
        "https://x:0",
        "https://x:y",
        "ftp://x",
        "https://x?y",
        "https://x\\y",
        "https://x#y",
        "http://localhost:1",
        "",
    ],
)
def test_addresses_that_cannot_be_used(url):
    with pytest.raises(UsageError):
        xray.check(url, TOKEN)
    with pytest.raises(ConfigError):
        xray_task(url, TOKEN, Running())


@pytest.mark.parametrize("token", ["", "a b", "a\nX: y", "tökén"])
def test_tokens_that_cannot_be_used(token):
    with pytest.raises(UsageError):
        xray.check("https://acme.jfrog.io", token)


@pytest.mark.parametrize(
    "url", ["https://me:pass/word@acme.jfrog.io", "https://me:password@acme.jfrog.io", "http://me:pass?word@acme.io"]
)
def test_an_address_with_a_password_is_refused_without_showing_it(url):
    with pytest.raises(UsageError) as error:
        xray.check(url, TOKEN)
    assert "word" not in str(error.value)


def test_an_address_is_read_as_it_is_meant():
    assert xray.check("https://ACME.jfrog.io/", TOKEN) == "https://acme.jfrog.io"


def test_to_this_machine_goes_no_proxy(jfrog, monkeypatch):
    jfrog.add("app/1.0")
    with Server(jfrog) as server, Proxy(server.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.url}")
        assert sum(len(some.scans) for some in xray.read(server.url, TOKEN, 2.0)) == 1
        assert proxy.heads == []


# --- the task ---


def test_the_task_gives_an_estate_of_scans_alone(jfrog):
    jfrog.add("app/1.0", issue())
    jfrog.add("app/2.0", indexed=False)
    seen = []
    with Server(jfrog) as server:
        task = xray_task(server.url, TOKEN, Running())
        [reading] = task.read(lambda what, n: seen.append((what, n)))
    estate = reading.estate
    assert (estate.cluster, estate.account, estate.inventory.kinds) == (None, None, [])
    assert (estate.scans.asked, len(estate.scans.scans)) == (["xray"], 2)
    assert seen[-1] == ("images", 2)
    lost = task.unread(GapReason.TIMEOUT, "it crashed").estate
    assert (lost.name, lost.cluster, lost.scans.asked) == (estate.name, None, ["xray"])
    assert [(gap.what, gap.reason) for gap in lost.scans.gaps] == [("xray", "timeout")]
