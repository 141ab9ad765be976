"""Files of Trivy and Grype: what they say of images, what they prove, and what broken ones cost."""

import io
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_data import (
    descriptor,
    digest,
    grype,
    match,
    metadata,
    result,
    scans,
    target,
    trivy,
    trivy_text,
    vulnerability,
)

from providers.files import scans as files
from scanner.cli.image_sources import scan_file_tasks
from scanner.collect import run
from scanner.model import GapReason
from scanner.vulnerabilities import Level, Vulnerability

FIXTURES = Path(__file__).parent.parent / "fixtures" / "scans"
INDEX, MANIFEST, CONFIG = digest("index"), digest("manifest"), digest("config")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(*paths):
    """Every scan and gap below the paths."""
    batches = list(files.read([str(path) for path in paths], lambda path, n: None))
    return [s for b in batches for s in b.scans], [g for b in batches for g in b.gaps]


def read_report(*reports):
    """Scans and gaps of a file with these reports, one after another."""
    texts = (r if isinstance(r, bytes) else json.dumps(r).encode() for r in reports)
    Path("report.json").write_bytes(b"\n".join(texts))
    return read("report.json")


def scans_of(report):
    found, gaps = read_report(report)
    assert not gaps
    return found


def scan_of(report):
    [scan] = scans_of(report)
    return scan


def gap_of(*reports):
    found, [gap] = read_report(*reports)
    assert not found
    return gap


def ids(scan):
    return [v.id for v in scan.vulnerabilities]


# ---------------------------------------------------------------------------------------------------------------------
# Trivy


def test_a_report_of_trivy():
    [first, second], gaps = read(FIXTURES / "trivy-image.json")
    assert not gaps
    assert (first.source, first.registry, first.repository, first.digest) == (
        *("trivy", "registry.example.com", "shop/web"),
        INDEX,
    )
    assert (first.tags, first.platform, first.config_digest) == (("1.0", "latest"), "linux/amd64", CONFIG)
    assert first.scanned_at == datetime(2026, 5, 4, 3, 2, 1, 123457, tzinfo=UTC)
    assert (first.unfinished, first.detail, first.only_fixed) == ("", "", False)
    assert first.vulnerabilities == [
        Vulnerability("CVE-2026-0101", Level.HIGH, "libcrypto3", "3.5.0-r0", "3.5.1-r0", 7.5),
        Vulnerability("CVE-2026-0101", Level.HIGH, "libssl3", "3.5.0-r0", "3.5.1-r0", 7.5),
        Vulnerability("CVE-2026-0102", Level.CRITICAL, "busybox", "1.37.0-r18", "", 9.1),  # rated by its score alone
        Vulnerability("CVE-2026-0104", Level.CRITICAL, "stdlib", "v1.24.0", "1.23.9, 1.24.3", 9.8),
    ]
    assert (second.registry, second.digest, second.tags) == ("docker.io", "", ("1.0",))
    assert second.vulnerabilities is first.vulnerabilities


def test_a_report_of_a_cluster_has_the_images_and_no_time():
    [first, second], [gap] = read(FIXTURES / "trivy-k8s.json")
    assert (first.digest, second.tags) == (INDEX, ("1.0",))
    assert len(first.vulnerabilities) == 3
    assert (first.scanned_at, first.unfinished) == (None, "")
    assert (gap.what, gap.reason) == ("trivy", GapReason.BAD_DATA)
    assert "shop/Job/import was not scanned: scan error: unable to find" in gap.detail


def test_cluster_objects_whose_images_are_mixed_or_whose_scan_failed_are_not_finished():
    other = metadata(ImageID=digest("other"), RepoDigests=[], RepoTags=["b:2"])
    report = {
        "ClusterName": "c",
        "Resources": [
            {"Kind": "Pod", "Name": "first", "Metadata": [metadata()], "Results": [result(vulnerability())]},
            {"Kind": "Pod", "Name": "mixed", "Metadata": [metadata(), other], "Results": [result(vulnerability())]},
            {"Kind": "Pod", "Name": "failed", "Metadata": metadata(), "Results": [], "Error": "timed out"},
        ],
    }
    found = scans_of(report)
    assert [s.unfinished for s in found] == ["", "not_attributed", "not_attributed", "failed"]
    assert [len(s.vulnerabilities) for s in found] == [1, 0, 0, 0]
    assert found[-1].detail == "timed out"


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"ClusterName": "c", "Resources": [{"Kind": "Pod", "Results": [result(vulnerability())]}]}, "names no image"),
        ({"ClusterName": "c"}, "names no image"),
        ({"ClusterName": "c", "Findings": []}, "summary of a cluster"),
        ({"ClusterName": "c", "Resources": [{"Kind": 1}]}, "could not be understood"),
    ],
)
def test_cluster_reports_without_images_say_what_to_run(report, said):
    gap = gap_of(report)
    assert gap.what == "trivy"
    assert said in gap.detail


def test_a_clean_report_is_proof():
    scan = scan_of(trivy(Results=[result()]))
    assert (scan.unfinished, scan.vulnerabilities) == ("", [])
    assert scan.scanned_at == datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


LISTED = [{"Name": "musl", "Version": "1.2.5"}]
UNPROVEN = {
    "other scanners": [{"Target": "key", "Class": "secret", "Secrets": []}, {"Target": "x", "Class": "config"}],
    "nothing": [],
    "null": None,
    # Trivy 0.67 and later list all packages, whichever scanners run.
    "only packages": [result(Packages=LISTED), result(kind="lang-pkgs", Packages=LISTED)],
    "only packages and licences": [result(Packages=LISTED), {"Target": "OS Packages", "Class": "license"}],
    "no package of the system": [result(), result(vulnerability(), kind="lang-pkgs", Packages=LISTED)],
    "empty lists": [result(Packages=LISTED, Vulnerabilities=[])],
}


@pytest.mark.parametrize("results", UNPROVEN.values(), ids=UNPROVEN.keys())
def test_results_that_prove_nothing(results):
    assert scan_of(trivy(Results=results)).unfinished == "nothing_scanned"


def test_packages_beside_vulnerabilities_are_proof():
    listed = [result(vulnerability(), Packages=LISTED), result(kind="lang-pkgs", Packages=LISTED)]
    assert scan_of(trivy(Results=listed)).unfinished == ""


def test_results_may_be_left_out():
    report = trivy()
    del report["Results"]
    assert scan_of(report).unfinished == "nothing_scanned"


@pytest.mark.parametrize("found", [[], [vulnerability()]], ids=["clean", "found"])
def test_a_system_past_its_end_of_life_proves_nothing(found):
    scan = scan_of(
        trivy(Metadata=metadata(OS={"Family": "debian", "Name": "9.9", "EOSL": True}), Results=[result(*found)])
    )
    assert scan.unfinished == "end_of_life"
    assert "debian 9.9" in scan.detail
    assert len(scan.vulnerabilities) == len(found)


def test_a_system_that_was_not_scanned_proves_nothing():
    scan = scan_of(trivy(Metadata=metadata(OS={"Family": "void"}), Results=[result(kind="lang-pkgs")]))
    assert (scan.unfinished, "void" in scan.detail) == ("unsupported_os", True)


@pytest.mark.parametrize("family", ["fedora", "centos-stream", "bottlerocket", "coreos", "Fedora"])
def test_packages_of_a_system_that_are_listed_are_not_compared(family):
    """Trivy lists them whatever the system is, beside what it found in programs."""
    results = [result(Packages=LISTED), result(vulnerability(Severity="LOW"), kind="lang-pkgs", Packages=LISTED)]
    scan = scan_of(trivy(Metadata=metadata(OS={"Family": family, "Name": "42"}), Results=results))
    assert (scan.unfinished, len(scan.vulnerabilities)) == ("unsupported_os", 1)


def test_a_system_that_findings_are_told_of_was_compared():
    results = [result(vulnerability(), Packages=LISTED)]
    assert scan_of(trivy(Metadata=metadata(OS={"Family": "alt", "Name": "p10"}), Results=results)).unfinished == ""


@pytest.mark.parametrize("system", [None, {"Family": "none", "Name": ""}])
def test_an_image_without_a_system_is_proven_by_its_programs(system):
    assert scan_of(trivy(Metadata=metadata(OS=system), Results=[result(kind="lang-pkgs")])).unfinished == ""


def test_what_does_not_affect_is_left_out_and_other_states_are_not():
    states = ["not_affected", "affected", "will_not_fix", "end_of_life", "unknown", None]
    found = [vulnerability(f"CVE-2026-{i}", Status=state) for i, state in enumerate(states)]
    assert ids(scan_of(trivy(Results=[result(*found)]))) == [f"CVE-2026-{i}" for i in range(1, 6)]


@pytest.mark.parametrize("created", [None, "", "soon", "0001-01-01T00:00:00Z", "2026-05-04T03:02:01", "20260504"])
def test_a_time_is_never_invented(created):
    scan = scan_of(trivy(CreatedAt=created))
    assert scan.scanned_at is None
    assert ids(scan) == ["CVE-2026-1000"]


@pytest.mark.parametrize(
    ("config", "platform"),
    [
        ({"os": "linux", "architecture": "arm64", "variant": "v8"}, "linux/arm64/v8"),
        ({"os": "", "architecture": ""}, ""),
        ({"os": "linux"}, ""),
        ({"os": "linux", "architecture": "am\x1bd64"}, ""),
        (None, ""),
    ],
)
def test_the_platform_is_what_the_configuration_says_and_never_assumed(config, platform):
    assert scan_of(trivy(Metadata=metadata(ImageConfig=config))).platform == platform


def test_each_repository_and_digest_is_an_image():
    other = digest("other")
    names = {
        "RepoDigests": [f"a.example.com/x@{INDEX}", f"a.example.com/x@{other.upper()}", f"redis@{INDEX}"],
        "RepoTags": ["a.example.com/x:1", "b.example.com:5000/y:2", "<none>:<none>", "a.example.com/x:1"],
    }
    found = scans_of(trivy(Metadata=metadata(**names)))
    assert [(s.registry, s.repository, s.digest, s.tags) for s in found] == [
        ("a.example.com", "x", INDEX, ("1",)),
        ("a.example.com", "x", other, ("1",)),
        ("docker.io", "library/redis", INDEX, None),
        ("b.example.com:5000", "y", "", ("2",)),
    ]


def test_names_fall_back_on_what_was_asked_for_and_then_on_the_image_id():
    unnamed = metadata(RepoDigests=None, RepoTags=[])
    asked = scan_of(trivy(Metadata=unnamed))
    assert (asked.registry, asked.repository, asked.tags) == ("registry.example.com", "shop/web", ("1.0",))
    for archive in ("web.tar", "/tmp/web:1.tar", "./web:1", None, "x" * 600 + ":1", "a/b@sha256:12"):
        scan = scan_of(trivy(Metadata=unnamed, ArtifactName=archive))
        assert (scan.registry, scan.repository, scan.tags, scan.config_digest) == ("", "", None, CONFIG)
    gap = gap_of(trivy(Metadata=metadata(RepoDigests=[], RepoTags=[], ImageID="sha256:12"), ArtifactName="web.tar"))
    assert "names no image" in gap.detail


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (trivy(ArtifactType="filesystem"), "of a filesystem, not of an image: run `trivy image --format json`"),
        (trivy(ArtifactType="repository"), "of a repository"),
        (trivy(ArtifactType=None, Metadata={}), "not of an image"),
        (trivy(ArtifactType=None, Metadata=None), "not of an image"),
        (trivy(SchemaVersion=1), "SchemaVersion 1"),
        (trivy(SchemaVersion="2"), 'SchemaVersion "2"'),
        (trivy(Metadata=metadata(RepoDigests="x")), "Expected"),
        (trivy(Metadata=[]), "Expected"),
    ],
)
def test_what_trivy_did_not_find_in_an_image_is_an_error(report, said):
    gap = gap_of(report)
    assert (gap.what, gap.reason) == ("trivy", GapReason.BAD_DATA)
    assert gap.detail.startswith("report.json: ")
    assert said in gap.detail


def test_an_old_report_without_a_type_is_of_an_image_if_it_names_one():
    report = trivy()
    del report["ArtifactType"]
    assert scan_of(report).digest == INDEX


# ---------------------------------------------------------------------------------------------------------------------
# Grype


def test_a_report_of_grype():
    found, gaps = read(FIXTURES / "grype-image.json")
    assert not gaps
    assert [(s.registry, s.repository, s.digest, s.tags, s.platform) for s in found] == [
        ("docker.io", "shop/web", INDEX, ("1.0",), "linux/amd64"),
        ("docker.io", "shop/web", MANIFEST, ("1.0",), "linux/amd64"),
    ]
    assert {s.source for s in found} == {"grype"}
    assert found[0].scanned_at == datetime(2026, 5, 3, 4, 15, tzinfo=UTC)  # of its database, which is older
    assert (found[0].unfinished, found[0].config_digest, found[0].only_fixed) == ("", CONFIG, False)
    assert found[0].vulnerabilities == [
        Vulnerability("CVE-2026-0201", Level.HIGH, "golang.org/x/net", "v0.30.0", "0.38.0", 7.5),
        Vulnerability("CVE-2026-0202", Level.NEGLIGIBLE, "libc6", "2.41-12"),
    ]


@pytest.mark.parametrize(
    ("id", "related", "shown"),
    [
        ("GHSA-1", ["CVE-1-1"], "CVE-1-1"),
        ("GHSA-1", ["CVE-1-1", "CVE-1-1"], "CVE-1-1"),
        ("GHSA-1", ["CVE-1-1", "CVE-1-2"], "GHSA-1"),
        ("GHSA-1", ["GHSA-2"], "GHSA-1"),
        ("GHSA-1", [], "GHSA-1"),
        ("ALAS-1", ["CVE-1-1"], "ALAS-1"),
    ],
)
def test_a_github_advisory_goes_by_its_only_cve(id, related, shown):
    assert ids(scans_of(grype(matches=[match(id, tuple(related))]))[0]) == [shown]


@pytest.mark.parametrize(
    ("told", "platforms"),
    [
        ({}, ["linux/arm64/v8", "linux/arm64/v8"]),
        ({"architecture": "", "os": ""}, ["", None]),
        ({"architecture": "", "manifestDigest": INDEX}, [None]),
    ],
)
def test_a_manifest_is_of_one_platform_and_a_digest_of_a_repository_may_be_of_several(told, platforms):
    found = scans_of(grype(source={"type": "image", "target": target(**told)}))
    assert [s.platform for s in found] == platforms


def test_a_manifest_without_names_goes_by_what_was_asked_for():
    source = {"type": "image", "target": target(tags=[], repoDigests=[])}
    scan = scan_of(grype(source=source))
    assert (scan.registry, scan.repository, scan.digest, scan.tags) == ("docker.io", "shop/web", MANIFEST, ("1.0",))


@pytest.mark.parametrize(
    ("options", "only_fixed", "unfinished"),
    [
        ({}, False, ""),
        ({"only-fixed": True}, True, ""),
        ({"ignore-wontfix": "wont-fix,not-fixed"}, True, ""),
        ({"ignore-wontfix": "unknown, fixed"}, True, "filtered"),
        ({"only-notfixed": True}, False, "filtered"),
    ],
)
def test_options_that_leave_vulnerabilities_out(options, only_fixed, unfinished):
    scan = scans_of(grype(matches=[], descriptor=descriptor(**options)))[0]
    assert (scan.only_fixed, scan.unfinished) == (only_fixed, unfinished)


@pytest.mark.parametrize(
    ("alert", "unfinished"),
    [
        ("distro-eol", "end_of_life"),
        ("distro-disabled", "unsupported_os"),
        ("distro-unknown", "unsupported_os"),
        ("x", ""),
    ],
)
def test_alerts_of_the_distribution(alert, unfinished):
    alerts = [{"package": {"name": "a"}, "alerts": []}, {"package": {"name": "b"}, "alerts": [{"type": alert}]}]
    assert scans_of(grype(matches=[], alertsByPackage=alerts))[0].unfinished == unfinished


@pytest.mark.parametrize("distro", [None, {"name": "", "version": "", "idLike": None}])
def test_an_image_without_a_distribution_is_no_failure(distro):
    scan = scans_of(grype(matches=[], distro=distro))[0]
    assert (scan.unfinished, scan.vulnerabilities) == ("", [])


def test_ignored_matches_are_left_out():
    report = grype(matches=[match("CVE-2026-1")], ignoredMatches=[match("CVE-2026-2")])
    assert ids(scans_of(report)[0]) == ["CVE-2026-1"]


@pytest.mark.parametrize(
    ("report", "unfinished"),
    [
        (grype(matches=None), "incomplete"),
        (grype(matches={}), "incomplete"),
        (grype(matches=[], alertsByPackage=[1]), "incomplete"),
    ],
)
def test_reports_of_grype_that_prove_nothing(report, unfinished):
    assert {s.unfinished for s in scans_of(report)} == {unfinished}


@pytest.mark.parametrize("told", [None, {**descriptor(), "timestamp": ""}])
def test_grype_may_have_been_told_to_tell_no_time(told):
    assert {(s.scanned_at, s.unfinished) for s in scans_of(grype(matches=[], descriptor=told))} == {(None, "")}


OLD, SCANNED = datetime(2025, 1, 2, tzinfo=UTC), datetime(2026, 5, 4, 3, 2, 1, 123457, tzinfo=UTC)


@pytest.mark.parametrize(
    ("db", "time"),
    [
        ({"status": {"built": "2025-01-02T00:00:00Z"}}, OLD),
        ({"built": "2025-01-02T00:00:00Z", "schemaVersion": 5}, OLD),
        ({"status": {"built": "2026-05-04T04:00:00Z"}}, SCANNED),
        ({"built": "0001-01-01T00:00:00Z"}, SCANNED),
        (None, SCANNED),
    ],
)
def test_a_scan_is_no_newer_than_what_it_compares_with(db, time):
    told = scans_of(grype(matches=[], descriptor={**descriptor(), "db": db}))
    assert {scan.scanned_at for scan in told} == {time}


@pytest.mark.parametrize("kind", ["directory", "file", "sbom-file", None])
def test_what_grype_did_not_find_in_an_image_is_an_error(kind):
    gap = gap_of(grype(source={"type": kind, "target": "."}))
    assert gap.what == "grype"
    assert "not of an image: run `grype IMAGE -o json`" in gap.detail


def test_a_source_of_another_shape_is_an_error():
    assert "Expected" in gap_of(grype(source={"type": "image", "target": "."})).detail
    assert "names no image" in gap_of(grype(source={"type": "image"})).detail


# ---------------------------------------------------------------------------------------------------------------------
# Findings


def test_a_broken_vulnerability_does_not_take_the_others_with_it():
    broken = [{}, vulnerability(""), vulnerability(CVSS=3), vulnerability(CVSS={"nvd": {"V3Score": 99}}), None, "x"]
    scan = scan_of(trivy(Results=[result(vulnerability("CVE-1"), *broken, vulnerability("CVE-2"))]))
    assert (ids(scan), scan.unfinished) == (["CVE-1", "CVE-2026-1000", "CVE-2"], "incomplete")
    assert scan.vulnerabilities[1].level is Level.UNKNOWN  # nothing but its id is believed
    assert scan.detail.startswith("6 entries of the report could not be understood: ")
    scan = scans_of(grype(matches=[match("CVE-1"), {"vulnerability": {"id": "x"}}, {"artifact": {}}, match("CVE-2")]))[
        0
    ]
    assert (ids(scan), scan.unfinished) == (["CVE-1", "x", "CVE-2"], "incomplete")


@pytest.mark.parametrize("results", [5, [5], [result(Vulnerabilities={})], [result(), {"Class": []}]])
def test_broken_lists_are_not_empty_ones(results):
    scan = scan_of(trivy(Results=results))
    assert (scan.unfinished, scan.vulnerabilities) == ("incomplete", [])


def test_text_that_is_no_utf8_costs_its_vulnerability():
    text = json.dumps(trivy(Results=[result(vulnerability("A-1"), vulnerability("A-2"))])).encode()
    [scan], gaps = read_report(text.replace(b"A-2", b"\xff\xfe"))
    assert (ids(scan), scan.unfinished, gaps) == (["A-1"], "incomplete", [])


def test_of_equal_findings_the_gravest_is_kept_and_then_the_one_with_a_fix():
    found = [
        vulnerability(Severity="LOW"),
        vulnerability(Severity="HIGH", FixedVersion=""),
        vulnerability(Severity="HIGH"),
        vulnerability(Severity="MEDIUM"),
    ]
    scan = scan_of(trivy(Results=[result(*found[:2]), result(*found[2:], kind="lang-pkgs")]))
    assert [(v.level, v.fixed) for v in scan.vulnerabilities] == [(Level.HIGH, "3.5.1-r0")]


def test_text_is_bounded_and_shows_nothing_but_itself():
    hostile = vulnerability(
        "C" * 10_000_000, PkgName="\x1b[31m[red]\u202e", InstalledVersion="1" * 500, FixedVersion="2" * 500
    )
    [found] = scan_of(trivy(Results=[result(hostile)])).vulnerabilities
    assert (len(found.id), len(found.installed), len(found.fixed)) == (100, 100, 100)
    assert found.package == "\\x1b[31m[red]\\u202e"
    assert msgspec.json.encode(found)
    many = match(fix={"versions": ["9" * 1000] * 100_000, "state": "fixed"})
    assert len(scans_of(grype(matches=[many]))[0].vulnerabilities[0].fixed) == 100


def test_names_of_images_that_no_registry_could_know_are_left_out():
    names = {"RepoTags": ["x" * 10_000_000 + ":1", "\x1b[2J:1"], "RepoDigests": ["a\u202eb@" + INDEX]}
    scan = scan_of(trivy(Metadata=metadata(**names)))
    assert (scan.repository, scan.digest) == ("shop/web", "")


def test_messages_are_plain():
    Path("\x1b[31m.json").write_text(json.dumps(trivy(ArtifactType="\x1b]0;" + "x" * 10_000)))
    _, [gap] = read(".")
    assert gap.detail.isprintable()
    assert len(gap.detail) <= 400


def test_equal_findings_of_several_images_are_one_object():
    first, second = scans_of([trivy(), trivy(Metadata=metadata(RepoDigests=[f"b/c@{INDEX}"], RepoTags=[]))])
    assert first.vulnerabilities[0] is second.vulnerabilities[0]


# ---------------------------------------------------------------------------------------------------------------------
# Files


def test_a_file_may_hold_several_reports():
    reports = [trivy(), grype(), trivy(Metadata=metadata(RepoTags=[]))]
    apart = read_report(*reports)
    assert [s.source for s in apart[0]] == ["trivy", "grype", "grype", "trivy"]
    assert read_report(reports) == apart
    assert read_report(b"".join(json.dumps(r).encode() for r in reports)) == apart
    assert read_report(reports[:2], reports[2]) == apart


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_shell_may_have_written_another_encoding(encoding):
    [scan], gaps = read_report(json.dumps(trivy()).encode(encoding))
    assert (scan.digest, gaps) == (INDEX, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b"[]", "empty list"),
        (b"{}", "no report of Trivy or Grype: run `trivy image --format json` or `grype IMAGE -o json`"),
        (b"[[]]", "is no report"),
        (b"5", "is no report"),
        (b"null", "is no report"),
        (b"usage: trivy", "not valid JSON"),
        (b'{"SchemaVersion": 2, "ArtifactName": "\\ud800"}', "not valid JSON"),
        (b"\xff\xfea", "UTF-16"),
        (b'{"SchemaVersion": 2, "Results": [', "cut off"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"apiVersion": "v1", "kind": "Pod"}', "no report of Trivy or Grype"),
        (b'{"version": "2.1.0", "runs": []}', "a SARIF document"),
        (b'{"spdxVersion": "SPDX-2.3"}', "an SPDX document"),
        (b'{"artifacts": [], "source": {"type": "image"}}', "no report of Trivy or Grype"),
    ],
)
def test_other_files_are_an_error(text, said):
    gap = gap_of(text)
    assert (gap.what, gap.reason) == ("vulnerability files", GapReason.BAD_DATA)
    assert said in gap.detail


def test_a_document_that_is_cut_off_does_not_take_those_before_it():
    [scan], [gap] = read_report(trivy(), b'{"SchemaVersion": 2')
    assert scan.digest == INDEX
    assert "document 2 is not valid JSON, or was cut off" in gap.detail


def test_of_a_file_full_of_other_documents_some_are_told(folder):
    other = [{"level": "info"}] * 5000
    found, gaps = read_report(*other[:2500], trivy(Results=[result()]), *other)
    assert (len(found), len(gaps)) == (1, files.PROBLEMS + 1)
    assert gaps[-1].detail == "report.json: holds 7,480 more that cannot be understood"


def test_a_broken_file_does_not_take_the_others_with_it(folder):
    (folder / "a.json").write_text("{")
    (folder / "deep").mkdir()
    (folder / "deep" / "b.json").write_text(json.dumps(trivy()))
    (folder / "deep" / "b.txt").write_text("no report")
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "c.json").symlink_to(folder / "deep" / "b.json")
    found, [gap] = read(folder, "missing.json")[0], read(folder)[1]
    assert len(found) == 1
    assert "a.json" in gap.detail


@pytest.mark.parametrize(
    ("path", "said", "reason"),
    [
        ("missing.json", "does not exist", GapReason.NOT_FOUND),
        ("fifo.json", "is no regular file", GapReason.BAD_DATA),
        ("empty", "holds no file that ends in .json", GapReason.BAD_DATA),
        ("dangling.json", "does not exist", GapReason.NOT_FOUND),
        ("huge.json", "more than the 512 MiB", GapReason.BAD_DATA),
    ],
)
def test_paths_that_cannot_be_read_are_named(folder, path, said, reason):
    os.mkfifo(folder / "fifo.json")
    (folder / "empty").mkdir()
    (folder / "dangling.json").symlink_to("nowhere")
    with (folder / "huge.json").open("wb") as file:
        file.truncate(files.MAX_FILE + 1)
    found, [gap] = read(path)
    assert not found
    assert (gap.what, gap.reason) == ("vulnerability files", reason)
    assert gap.detail.startswith(f"{path}: ")
    assert said in gap.detail


@pytest.fixture
def as_nobody(folder):
    """Root may read everything."""
    if os.geteuid():
        yield
        return
    folder.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_files_that_may_not_be_read_are_named(folder, request):
    (folder / "a.json").write_text("{}")
    (folder / "a.json").chmod(0)
    request.getfixturevalue("as_nobody")
    _, [gap] = read("a.json")
    assert "Permission denied" in gap.detail


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(trivy()).encode())))
    [scan], gaps = read("-")
    assert (scan.digest, gaps) == (INDEX, [])


def test_fixtures_of_other_tools_are_errors():
    found, gaps = read(
        FIXTURES / "trivy-filesystem.json", FIXTURES / "grype-directory.json", FIXTURES / "cyclonedx.json"
    )
    assert not found
    assert [gap.what for gap in gaps] == ["trivy", "grype", "vulnerability files"]


# ---------------------------------------------------------------------------------------------------------------------
# Many of them


def test_images_come_in_batches_that_name_their_sources(folder):
    scans(folder, images=files.BATCH + 1, vulnerabilities=4)
    (folder / "z.json").write_text(json.dumps(grype()))
    (folder / "zz.json").write_text("{")
    first, second = files.read([str(folder)], lambda path, n: None)
    assert [len(b.scans) for b in (first, second)] == [files.BATCH, 3]
    assert (first.asked, second.asked, len(second.gaps)) == (["trivy"], ["trivy", "grype"], 1)
    assert {s.unfinished for s in first.scans} == {""}
    assert len({s.digest for s in first.scans}) == files.BATCH


def test_data_for_benchmarks_is_the_same_every_time(folder):
    scans(folder, images=2, vulnerabilities=200)
    assert (folder / "image-00001.json").read_text() == trivy_text(1, 200)
    first, second = read(folder)[0]
    assert len(first.vulnerabilities) == 200
    assert ids(first) != ids(second)


def test_a_hundred_thousand_vulnerabilities_take_a_second(folder):
    """About as long as decoding them takes; the bound leaves room for a busy machine."""
    (folder / "a.json").write_text(trivy_text(0, 100_000))
    started = time.process_time()
    [scan] = read("a.json")[0]
    assert time.process_time() - started < 10
    assert len(scan.vulnerabilities) == 40_000  # each id once


def test_the_task_gives_each_batch_a_name_of_its_own(folder, monkeypatch):
    monkeypatch.setattr(files, "BATCH", 2)
    scans(folder, images=5, vulnerabilities=1)
    [task] = scan_file_tasks(["."])
    readings = list(run([task], 1, lambda task, what, n: None))
    assert [len(r.estate.scans.scans) for r in readings] == [2, 2, 1]
    assert [r.estate.name for r in readings] == [". (part 1)", ". (part 2)", ". (part 3)"]
    assert all(r.estate.cluster is None and not r.estate.inventory.kinds for r in readings)
    assert scan_file_tasks([]) == []


def test_files_that_were_not_all_read_are_a_gap(folder, monkeypatch):
    monkeypatch.setattr(files, "BATCH", 1)
    scans(folder, images=2, vulnerabilities=1)
    pending = []
    readings = run(scan_file_tasks(["."]), 1, lambda task, what, n: None, pending)
    next(readings)
    [entry] = pending
    readings.close()
    rest = entry.rest(GapReason.TIMEOUT, "interrupted")
    assert rest is not None
    assert [(g.what, g.reason) for g in rest.estate.scans.gaps] == [("vulnerability files", GapReason.TIMEOUT)]


# ---------------------------------------------------------------------------------------------------------------------
# Properties

TEXTS = [json.dumps(trivy()).encode(), json.dumps(grype()).encode(), json.dumps([trivy(), grype()]).encode()]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TEXTS), st.data())
def test_no_prefix_of_a_file_is_a_finished_scan(text, data):
    cut = data.draw(st.integers(0, len(text) - 1))
    found, [gap] = read_report(text[:cut])
    assert not found
    assert gap.reason is GapReason.BAD_DATA


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TEXTS[:2]), st.data())
def test_no_change_of_a_file_is_a_crash_or_silence(text, data):
    at = data.draw(st.integers(0, len(text) - 1))
    size = data.draw(st.integers(0, 30))
    instead = data.draw(st.sampled_from([b"", b"null", b"[]", b"{}", b"1e999", b'"', b"\xff", b"-1", b"true", b"[{"]))
    found, gaps = read_report(text[:at] + instead + text[at + size :])
    assert found or gaps


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Class", "OS", "id"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(trivy())), VALUES)
def test_no_field_of_another_type_makes_a_clean_scan(field, value):
    found, gaps = read_report({**trivy(), field: value})
    clean = [s for s in found if s.scanned_at and not (s.unfinished or s.vulnerabilities)]
    assert found or gaps
    assert not clean
