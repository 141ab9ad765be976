"""trivy-operator's reports over a real socket: which scans they become, and what is said where they cannot be read."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime

import pytest
from apiserver import ApiServer, body, hang, status, truncated

from providers.kubernetes import connection, trivy_operator
from providers.kubernetes.connection import connect
from providers.kubernetes.kubeconfig import contexts
from providers.kubernetes.reader import Scope
from scanner.cli.options import Contexts, Namespaces, Running
from scanner.cli.targets import Inside, kubeconfig_tasks, look_inside
from scanner.inventory import Inventory
from scanner.model import Gap, GapReason
from scanner.vulnerabilities import Level, Vulnerability

LISTS = r"/vulnerabilityreports"
GROUP = r"^/apis/aquasecurity.github.io/v1alpha1$"
RIGHT = "list vulnerabilityreports.aquasecurity.github.io"
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(connection, "_BACKOFF", 0.01)


def found(id="CVE-2024-1", severity="HIGH", **more):
    return {
        "vulnerabilityID": id,
        "resource": "openssl",
        "installedVersion": "3.0.1",
        "fixedVersion": "3.0.2",
        "severity": severity,
        "score": 7.5,
        "title": "a title",
        "links": [],
        **more,
    }


def report(*vulnerabilities, name="replicaset-web-1-app", namespace="a", tag="", digest=A, time=NOW, **more):
    counts = {"criticalCount": 0, "highCount": len(vulnerabilities), "mediumCount": 0, "lowCount": 0, "unknownCount": 0}
    data = {
        "artifact": {
            "repository": "library/nginx",
            **({"tag": tag} if tag else {}),
            **({"digest": digest} if digest else {}),
        },
        "registry": {"server": "index.docker.io"},
        "os": {"family": "debian", "name": "12.5"},
        "scanner": {"name": "Trivy", "vendor": "Aqua Security", "version": "0.57.1"},
        "summary": counts,
        "updateTimestamp": time.isoformat().replace("+00:00", "Z") if isinstance(time, datetime) else time,
        "vulnerabilities": list(vulnerabilities),
    } | more
    return {"kind": "VulnerabilityReport", "metadata": {"name": name, "namespace": namespace}, "report": data}


def read(
    server, tmp_path, *, namespaces=(), exclude=(), listed=("a", "b"), gap=False, fallback=None, platform="linux/amd64"
):
    [context] = contexts(server.kubeconfig(tmp_path / "config"))
    inventory = Inventory(kinds=["pods"], namespace_labels={name: {} for name in listed})
    if gap:
        inventory.gaps.append(Gap(what="namespaces", reason=GapReason.FORBIDDEN))
    with connect(context, request_timeout=2.0) as made:
        scope = Scope(frozenset({"pods"}), namespaces, exclude, fallback)
        return trivy_operator.read(made, scope, inventory, platform)


def scans(*reports, tmp_path, **options):
    with ApiServer(reports) as server:
        return read(server, tmp_path, **options)


# --- what a report becomes ---


def test_a_report_of_an_image_by_digest(tmp_path):
    given = scans(report(found(), found("CVE-2024-2", "LOW", fixedVersion="", score=None)), tmp_path=tmp_path)
    assert (given.asked, given.gaps, given.indexes, given.listed) == (["trivy-operator"], [], {}, False)
    [scan] = given.scans
    assert (scan.source, scan.registry, scan.repository) == ("trivy-operator", "docker.io", "library/nginx")
    assert (scan.digest, scan.config_digest, scan.tags) == (A, "", None)
    assert (scan.platform, scan.scanned_at, scan.unfinished) == ("linux/amd64", NOW, "")
    assert scan.vulnerabilities == [
        Vulnerability("CVE-2024-1", Level.HIGH, "openssl", "3.0.1", "3.0.2", 7.5),
        Vulnerability("CVE-2024-2", Level.LOW, "openssl", "3.0.1"),
    ]


def test_beside_a_tag_the_digest_may_be_that_of_the_configuration(tmp_path):
    [scan] = scans(report(tag="1.16"), tmp_path=tmp_path, platform="").scans
    assert (scan.digest, scan.config_digest, scan.tags, scan.platform) == (A, A, ("1.16",), "")
    [scan] = scans(report(tag="1.16", digest=""), tmp_path=tmp_path).scans
    assert (scan.digest, scan.config_digest, scan.tags) == ("", "", ("1.16",))


@pytest.mark.parametrize("server", ["ghcr.io", "GHCR.io"])
def test_registries_are_spelt_as_references_are(tmp_path, server):
    given = report(
        registry={"server": server}, artifact={"repository": "acme/app", "digest": A.upper().replace("SHA", "sha")}
    )
    [scan] = scans(given, tmp_path=tmp_path).scans
    assert (scan.registry, scan.repository, scan.digest) == ("ghcr.io", "acme/app", A)


def test_of_several_reports_of_one_image_the_newest_counts(tmp_path):
    reports = [
        report(found("CVE-2024-2"), name="one", time=NOW),
        report(found("CVE-2024-3"), name="two", time=NOW.replace(hour=13)),
        report(found("CVE-2024-4"), name="three", namespace="b", time=NOW.replace(hour=11)),
        report(found("CVE-2024-5"), name="four", time="soon"),
        report(name="other", digest=B),
    ]
    given = scans(*reports, tmp_path=tmp_path)
    assert {scan.digest: [v.id for v in scan.vulnerabilities] for scan in given.scans} == {A: ["CVE-2024-3"], B: []}
    assert scans(*reversed(reports), tmp_path=tmp_path).scans[-1].vulnerabilities[0].id == "CVE-2024-3"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "2026-08-01T12:00:00", "yesterday", None, ""])
def test_without_a_time_nothing_is_proven(tmp_path, time):
    [scan] = scans(report(time=time), tmp_path=tmp_path).scans
    assert scan.scanned_at is None


def test_a_vulnerability_counts_once_a_package_and_as_the_gravest(tmp_path):
    given = report(
        found(severity="LOW"), found(severity="CRITICAL"), found(resource="libssl3"), found(severity="MEDIUM")
    )
    [scan] = scans(given, tmp_path=tmp_path).scans
    assert [(v.package, v.level) for v in scan.vulnerabilities] == [("openssl", "critical"), ("libssl3", "high")]


def test_equal_records_are_kept_once(tmp_path):
    given = scans(report(found()), report(found(), digest=B), tmp_path=tmp_path)
    first, second = (scan.vulnerabilities[0] for scan in given.scans)
    assert first is second


def test_texts_and_scores_are_bounded(tmp_path):
    long = found(
        "C" * 10_000, resource="r" * 10_000, installedVersion="i" * 10_000, fixedVersion="f" * 10_000, score=-3
    )
    [scan] = scans(report(long), tmp_path=tmp_path).scans
    [one] = scan.vulnerabilities
    assert [len(text) for text in (one.id, one.package, one.installed, one.fixed)] == [100, 200, 100, 100]
    assert one.cvss is None


# --- what is not whole ---


@pytest.mark.parametrize(
    ("given", "why", "left"),
    [
        (report(found(), summary={"highCount": 1, "lowCount": 1}), "incomplete", 1),
        (report(found(), summary=None), "incomplete", 1),
        (report(vulnerabilities=None), "incomplete", 0),
        (report(found(), found("CVE-2024-2", severity=5)), "incomplete", 2),
        (report(found(), {**found(), "vulnerabilityID": ""}), "incomplete", 1),
        (report(found(), "CVE-2024-1"), "incomplete", 1),
        (report(os={"family": "debian", "name": "8", "eosl": True}), "end_of_life", 0),
        (report(found(), os={"family": "debian", "name": "8", "eosl": True}), "end_of_life", 1),
        (report(found(), os={"family": "debian", "name": "8", "eosl": False}), "", 1),
        (report(found(), os=None, summary={"highCount": 1, "criticalCount": -1, "noneCount": 7}), "", 1),
        (report(os={"family": "fedora", "name": "42"}), "unsupported_os", 0),
        (report(found(), os={"family": "centos-stream", "name": "9"}), "unsupported_os", 1),
        (report(os={"family": "Wolfi"}), "", 0),
        (report(os={"family": "none"}), "nothing_scanned", 0),
        (report(os=None), "nothing_scanned", 0),
    ],
)
def test_what_is_not_whole_proves_no_pass(tmp_path, given, why, left):
    [scan] = scans(report(digest=B), given, tmp_path=tmp_path).scans[1:]
    assert (scan.unfinished, len(scan.vulnerabilities)) == (why, left)
    assert bool(scan.detail) == bool(why)


@pytest.mark.parametrize(
    "odd",
    [
        {"report": 5},
        {"report": {"artifact": {"repository": ["x"], "digest": A}}},
        {"report": {"artifact": {"repository": "x", "digest": "sha256:short"}}},
        {"report": {"artifact": {"digest": A}}},
        {"report": {"artifact": {"repository": "x" * 1000, "digest": A}}},
        {"report": {"artifact": {"repository": "x", "tag": "t" * 200}}},
        {"report": {"artifact": {"repository": "x", "digest": A}, "vulnerabilities": {}}},
        {},
    ],
)
def test_a_report_that_is_not_understood_is_a_gap_and_the_others_count(tmp_path, odd):
    broken = {"kind": "VulnerabilityReport", "metadata": {"name": "o\x1bdd", "namespace": "a"}, **odd}
    given = scans(report(), broken, report(digest=B), tmp_path=tmp_path)
    assert [scan.digest for scan in given.scans] == [A, B]
    [gap] = given.gaps
    assert (gap.what, gap.reason, gap.permission) == ("trivy-operator", "bad_data", "")
    assert gap.detail.startswith("1 reports are not understood; the first, a/o\\x1bdd: ")


def test_reports_that_vanish_while_they_are_read_are_a_gap(tmp_path):
    items = [report(digest="sha256:" + f"{n:064x}", name=f"r-{n:04}") for n in range(60)]
    with ApiServer(items) as server:
        server.inject(r"continue=", status(404))
        given = read(server, tmp_path)
    assert (given.asked, len(given.scans)) == (["trivy-operator"], 50)
    assert [(gap.what, gap.reason) for gap in given.gaps] == [("trivy-operator", "not_found")]


def test_a_namespace_without_reports_does_not_hide_those_of_others(tmp_path):
    with ApiServer([report(found())]) as server:
        server.inject(r"/namespaces/b/vulnerabilityreports", status(404))
        given = read(server, tmp_path, namespaces=("a", "b"))
    assert [len(scan.vulnerabilities) for scan in given.scans] == [1]
    assert [(gap.reason, gap.namespace) for gap in given.gaps] == [("not_found", "b")]


# --- where it is, and where it may be read ---


def test_an_operator_that_is_not_there_is_not_asked(tmp_path):
    with ApiServer() as server:
        assert read(server, tmp_path).asked == []
        assert [request.path for request in server.requests] == ["/apis/aquasecurity.github.io/v1alpha1"]


def test_a_group_without_reports_is_no_operator(tmp_path):
    with ApiServer([report()]) as server:
        server.inject(GROUP, body(b'{"kind":"APIResourceList","resources":[{"name":"configauditreports"}]}'))
        given = read(server, tmp_path)
        assert (given.asked, given.scans, given.gaps) == ([], [], [])


@pytest.mark.parametrize("fault", [status(403), status(500), truncated(), body(b"{}"), body(b'{"resources":null}')])
def test_where_nobody_tells_what_is_installed_the_list_is_asked(tmp_path, fault):
    with ApiServer([report()]) as server:
        server.inject(GROUP, fault)
        assert len(read(server, tmp_path).scans) == 1
    with ApiServer() as server:
        server.inject(GROUP, fault)
        given = read(server, tmp_path)
        assert (given.asked, given.gaps) == ([], [])


def test_refused_everywhere(tmp_path):
    with ApiServer([report()]) as server:
        server.deny("vulnerabilityreports")
        given = read(server, tmp_path)
    assert (given.asked, given.scans) == (["trivy-operator"], [])
    [gap] = given.gaps
    assert (gap.what, gap.reason, gap.permission, gap.namespace) == ("trivy-operator", "forbidden", RIGHT, "*")


def test_refused_where_there_is_none_perhaps(tmp_path):
    """Without discovery a role without the right cannot be told from a cluster without the kind."""
    with ApiServer([report()]) as server:
        server.inject(GROUP, status(403))
        server.inject(LISTS, status(403))
        assert [gap.permission for gap in read(server, tmp_path).gaps] == [RIGHT]


def test_namespace_by_namespace_where_only_that_is_allowed(tmp_path):
    with ApiServer([report(), report(namespace="b", digest=B), report(namespace="c", digest="", tag="1")]) as server:
        server.deny_cluster_wide("vulnerabilityreports")
        given = read(server, tmp_path, exclude=("c",), listed=("a", "b", "c"))
        assert ([scan.digest for scan in given.scans], given.gaps) == ([A, B], [])
        server.deny("vulnerabilityreports", "b")
        given = read(server, tmp_path, exclude=("c",), listed=("a", "b", "c"))
        assert [(gap.namespace, gap.permission) for gap in given.gaps] == [("b", f"{RIGHT} in namespace b")]
        assert [scan.digest for scan in given.scans] == [A]


def test_where_namespaces_cannot_be_listed_others_may_hold_reports(tmp_path):
    with ApiServer([report()]) as server:
        server.deny_cluster_wide("vulnerabilityreports")
        given = read(server, tmp_path, listed=(), gap=True, fallback="a")
        assert len(given.scans) == 1
        assert [(gap.namespace, gap.permission) for gap in given.gaps] == [("*", RIGHT)]


def test_chosen_namespaces_alone_are_asked(tmp_path):
    with ApiServer([report(), report(namespace="b", digest=B)]) as server:
        assert [scan.digest for scan in read(server, tmp_path, namespaces=("b",)).scans] == [B]
        lists = [request.path for request in server.requests if request.path.endswith("reports")]
        assert lists == ["/apis/aquasecurity.github.io/v1alpha1/namespaces/b/vulnerabilityreports"]
        server.deny("vulnerabilityreports", "b")
        assert [gap.namespace for gap in read(server, tmp_path, namespaces=("a", "b")).gaps] == ["b"]


def test_reports_of_namespaces_that_are_left_out_do_not_count(tmp_path):
    given = scans(report(), report(namespace="kube-b", digest=B), tmp_path=tmp_path, exclude=("kube-*",))
    assert [scan.digest for scan in given.scans] == [A]


def test_every_page_is_read(tmp_path):
    items = [report(digest="sha256:" + f"{n:064x}", name=f"r-{n:04}") for n in range(120)]
    with ApiServer(items) as server:
        assert len(read(server, tmp_path).scans) == 120
        limits = [r.query["limit"] for r in server.requests if r.path.endswith("reports")]
        assert limits == ["50"] * 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(status(500), "server_error"), (truncated(), "bad_data"), (status(401), "forbidden"), (hang(), "timeout")],
)
def test_what_was_read_before_a_failure_is_kept(tmp_path, fault, reason):
    items = [report(digest="sha256:" + f"{n:064x}", name=f"r-{n:04}") for n in range(60)]
    with ApiServer(items) as server:
        server.inject(r"continue=", fault)
        given = read(server, tmp_path)
    assert len(given.scans) == 50
    assert [(gap.reason, gap.permission, gap.namespace) for gap in given.gaps] == [(reason, "", "*")]


def test_memory_of_large_reports_is_one_page_at_a_time(tmp_path):
    text = "d" * 2000
    many = [found(f"CVE-2024-{n}", description=text) for n in range(250)]
    data = json.dumps(report(*many)).replace(A, "sha256:%064x")

    with ApiServer() as server:
        server.serve(
            "vulnerabilityreports", 200, lambda start, stop: ",".join(data % n for n in range(start, stop)).encode()
        )
        tracemalloc.start()
        try:
            given = read(server, tmp_path)
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert sum(len(scan.vulnerabilities) for scan in given.scans) == 50_000
    assert len({id(v) for scan in given.scans for v in scan.vulnerabilities}) == 250
    assert kept < 20_000_000


# --- inside of a look at a cluster ---


def look(server, tmp_path, *, wanted):
    [context] = contexts(server.kubeconfig(tmp_path / "config"))
    kinds = frozenset({"pods", "nodes", "namespaces"})
    inside = Inside(kinds, Namespaces(), Running(), {}, scans=wanted)
    return look_inside(context, context.name, inside, lambda *_: None)


def test_a_look_asks_only_where_a_check_does(tmp_path):
    with ApiServer([{"kind": "Namespace", "metadata": {"name": "a"}}, report(found())]) as server:
        seen = look(server, tmp_path, wanted=False)
        assert seen.scans.asked == []
        assert not [request for request in server.requests if "aquasecurity" in request.path]
        seen = look(server, tmp_path, wanted=True)
        assert [len(scan.vulnerabilities) for scan in seen.scans.scans] == [1]


AMD64 = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
ARM64 = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}


@pytest.mark.parametrize(
    ("nodes", "platform"),
    [((AMD64, AMD64), "linux/amd64"), ((AMD64, ARM64), ""), ((AMD64, {"kubernetes.io/os": "linux"}), ""), ((), "")],
)
def test_a_scan_is_of_the_platform_that_every_node_has(tmp_path, nodes, platform):
    items = [{"kind": "Node", "metadata": {"name": f"n{i}", "labels": labels}} for i, labels in enumerate(nodes)]
    with ApiServer([{"kind": "Namespace", "metadata": {"name": "a"}}, report(), *items]) as server:
        assert [scan.platform for scan in look(server, tmp_path, wanted=True).scans.scans] == [platform]
        server.deny("nodes")
        assert [scan.platform for scan in look(server, tmp_path, wanted=True).scans.scans] == [""]


def test_the_estate_of_a_context_carries_the_scans(tmp_path):
    with ApiServer([{"kind": "Namespace", "metadata": {"name": "a"}}, report(found())]) as server:
        path = server.kubeconfig(tmp_path / "config")
        inside = Inside(frozenset({"pods", "namespaces"}), Namespaces(), Running(), {}, scans=True)
        [task] = kubeconfig_tasks(Contexts(kubeconfig=path), inside)
        [reading] = task.read(lambda *_: None)
    assert reading.estate.scans.asked == ["trivy-operator"]
    assert len(reading.estate.scans.scans) == 1


def test_who_is_not_let_in_is_not_asked_again(tmp_path):
    with ApiServer([report()], token="other") as server:
        server.inject(r".", status(401))
        seen = look(server, tmp_path, wanted=True)
        assert seen.scans.asked == []
