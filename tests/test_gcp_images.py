"""What Google found in images, read from a local one that misbehaves."""

import json
import os
import re
import tracemalloc
from datetime import UTC, datetime

import pytest
from gcp_data import (
    ABSENT,
    DEV,
    IOWA,
    PROD,
    SEOUL,
    Estate,
    Project,
    analysis,
    digest,
    image,
    index,
    issue,
    merged,
    number,
    repository,
    uri,
    vulnerability,
)
from gcpserver import GcpServer, body, disabled, hang, status

import checks
from providers.gcp import reader, session
from providers.gcp.images import SOURCE, Images
from providers.gcp.reader import CLUSTERS, POLICY, REPOSITORIES, Reader
from providers.gcp.session import Session
from scanner.cli.discovery import Asked
from scanner.cli.gke import gke_tasks
from scanner.cli.options import Discovery, GcpScope, Namespaces, Planes, Running
from scanner.collect import run
from scanner.config import Config, Selection, settings
from scanner.vulnerabilities import Level, Platform, Vulnerability

SCANNED = datetime(2026, 11, 20, 4, 10, 31, 812943, UTC)
APP, JOB = uri("images/app"), uri("images/job")
HOST = f"{SEOUL}-docker.pkg.dev"
IMAGES = rf"^/v1/projects/{PROD}/locations/{SEOUL}/repositories/images/dockerImages\?"
OCCURRENCES = rf"^/v1/projects/{PROD}/occurrences\?"
ANALYSES, FINDINGS = rf"{OCCURRENCES}.*DISCOVERY", rf"{OCCURRENCES}.*VULNERABILITY"
LIST_IMAGES, LIST_OCCURRENCES = "artifactregistry.dockerimages.list", "containeranalysis.occurrences.list"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for name in tuple(os.environ):
        if re.match("GOOGLE_|GCLOUD_|CLOUDSDK_|GRPC_|GCE_|REQUESTS_CA|CURL_CA|(?i:.*_proxy$)", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setattr(session, "_pause", lambda tried, wait: 0.01)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Starts a Google Cloud that gives credentials. It may never be asked for anything but reads."""

    def start(*projects, **options):
        gcp = GcpServer(Estate.of(*projects), **options)
        servers.append(gcp.__enter__())
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcp.key_file(tmp_path))
        return gcp

    servers = []
    yield start
    for server in servers:
        server.__exit__()
        assert {request.method for request in server.requests} <= {"GET", "ListClusters"}


def read(gcp, project=PROD, *, kinds=(CLUSTERS,), timeout=10):
    """What was read of one project."""
    opened = Session(endpoints=gcp.endpoints, request_timeout=timeout, connections=4)
    try:
        opened.log_in()
        *_, found = Reader(opened, kinds, scans=True).read(reader.Project(project))
    finally:
        opened.close()
    return found


def project(images=(), occurrences=(), **more):
    """With one repository, "images", if no others are given."""
    more = {"repositories": [repository()]} | more
    return Project(PROD, images=list(images), occurrences=list(occurrences), **more)


def scans(gcp, **options):
    return read(gcp, **options).scans


def states(found):
    """Of each image how far it is, and how many vulnerabilities are known."""
    return {scan.repository.rpartition("/")[2]: (scan.unfinished, len(scan.vulnerabilities)) for scan in found.scans}


def translated(*occurrences, images=()):
    """The only scan, without a server."""
    held = Images(PROD)
    assert held.take_images(images) == []
    kinds = ("DISCOVERY", held.take_analyses), ("VULNERABILITY", held.take_vulnerabilities)
    for kind, take in kinds:
        assert take([item for item in occurrences if item["kind"] == kind]) == []
    [scan] = held.scans(listed=True, analysed=True, found=True)
    return scan


def gap(found):
    """The only one there is."""
    [one] = found.gaps
    assert one.what == SOURCE
    return one


def asked(gcp, path=""):
    return [request for request in gcp.requests if re.search(path, request.path)]


# -- what there is


def test_images_are_told_with_what_was_found_in_them(serve):
    occurrences = [
        vulnerability(JOB, "CVE-2026-1", "CRITICAL"),
        analysis(APP),
        vulnerability(JOB, "CVE-2026-2", "LOW", issue("bash", severity="LOW"), issue("tar", severity="MEDIUM")),
        analysis(JOB),
        vulnerability(JOB, "CVE-2026-3"),
    ]
    images = [image("images/app", "v2", "stable"), image("images/new"), image("images/job")]
    gcp = serve(project(images, occurrences), page_size=2)
    found = scans(gcp)
    assert (found.asked, found.gaps, found.listed, found.indexes) == ([SOURCE], [], True, {})
    app, job, new = found.scans
    assert (app.source, app.registry, app.repository) == (SOURCE, HOST, f"{PROD}/images/app")
    assert (app.digest, app.config_digest, app.platform) == (digest("images/app"), "", None)
    assert (app.tags, app.account, app.region) == (("stable", "v2"), PROD, None)  # as the row of a project
    assert (app.scanned_at, app.unfinished, app.detail, app.vulnerabilities) == (SCANNED, "", "", [])
    assert (new.unfinished, new.scanned_at, new.tags) == ("not_scanned", None, ())
    assert [(v.id, v.level, v.package) for v in job.vulnerabilities] == [
        ("CVE-2026-1", "critical", "zlib"),
        ("CVE-2026-2", "low", "bash"),
        ("CVE-2026-2", "medium", "tar"),
        ("CVE-2026-3", "high", "zlib"),
    ]
    assert job.vulnerabilities[0] == Vulnerability(
        "CVE-2026-1", Level.CRITICAL, "zlib", "1:1.2.13.dfsg-1", "1:1.2.13.dfsg-2", 7.5
    )


def test_every_repository_of_images_is_listed_once(serve):
    kept = [
        repository("bash", format="APT"),
        repository("hub", mode="REMOTE_REPOSITORY"),
        repository("every", mode="VIRTUAL_REPOSITORY"),
        repository("images", location=IOWA),
    ]
    held = [image("hub/library/nginx", "1.29"), image("images/app", location=IOWA)]
    gcp = serve(project(held, repositories=kept))
    for kinds, policies in (((CLUSTERS,), 0), ((CLUSTERS, REPOSITORIES, POLICY), 4)):
        gcp.requests.clear()
        found = read(gcp, kinds=kinds)
        assert (found.gaps, found.scans.gaps, found.scans.listed) == ([], [], True)
        assert [(scan.repository, scan.registry) for scan in found.scans.scans] == [
            (f"{PROD}/hub/library/nginx", HOST),
            (f"{PROD}/images/app", f"{IOWA}-docker.pkg.dev"),
        ]
        assert len(asked(gcp, "/repositories$")) == 4  # one for each location
        assert [r.path.split("/")[-2] for r in asked(gcp, "dockerImages$")] == ["hub", "images"]
        assert len(asked(gcp, "getIamPolicy$")) == policies
        assert found.counts.read == found.counts.judged == policies
        assert found.counts.lists_asked == found.counts.lists_read == 1 + 1 + 4 + policies + 2 + 2


def test_nothing_is_asked_for_where_no_check_needs_it(serve):
    gcp = serve(project())
    opened = Session(endpoints=gcp.endpoints, request_timeout=10, connections=4)
    opened.log_in()
    *_, found = Reader(opened, (CLUSTERS, REPOSITORIES)).read(reader.Project(PROD))
    opened.close()
    assert (found.scans.asked, found.scans.listed) == ([], False)
    assert asked(gcp, "dockerImages|occurrences") == []


def test_a_project_without_images_has_none(serve):
    found = scans(serve(project(repositories=[])))
    assert (found.asked, found.scans, found.gaps, found.listed) == ([SOURCE], [], [], True)


def test_how_far_an_image_is_is_asked_before_what_was_found(serve):
    """Else an image that is being scanned meanwhile would seem to have nothing."""
    gcp = serve(project())
    scans(gcp)
    filters = [request.query["filter"] for request in asked(gcp, "occurrences$")]
    assert filters == ['kind="DISCOVERY"', 'kind="VULNERABILITY"']
    assert {request.query["pageSize"] for request in asked(gcp, "occurrences$|dockerImages$")} == {"1000"}


# -- several platforms

AMD, ARM, NOTE = digest("amd64"), digest("arm64"), digest("attestation")
PLATFORMS = {"linux/arm64/v8": ARM, "linux/amd64": AMD, "unknown/unknown": NOTE}


def part(of, *tags):
    """An entry for one of the platforms of images/app."""
    at = f"{HOST}/{PROD}/images/app@{of}"
    return merged(image("images/app", *tags), {"name": f"{image('images/app')['name'][:-71]}{of}", "uri": at})


@pytest.mark.parametrize("backwards", [False, True])
def test_an_index_stands_for_its_platforms(serve, backwards):
    images = [index("images/app", "v1", platforms=PLATFORMS), part(AMD, "v1-amd64"), part(ARM), part(NOTE)]
    found = scans(serve(project(images[::-1] if backwards else images, [analysis(APP), vulnerability(APP)])))
    assert found.gaps == []
    assert found.indexes == {digest("images/app"): [Platform(ARM, "linux/arm64/v8"), Platform(AMD, "linux/amd64")]}
    told = {scan.digest: (scan.tags, scan.unfinished, len(scan.vulnerabilities)) for scan in found.scans}
    assert told == {AMD: (("v1", "v1-amd64"), "", 1), ARM: (("v1",), "not_scanned", 0)}
    assert {scan.digest: scan.platform for scan in found.scans} == {AMD: "linux/amd64", ARM: "linux/arm64/v8"}


def test_platforms_need_no_entries_of_their_own(serve):
    at = f"{HOST}/{PROD}/images/app@"
    occurrences = [analysis(at + ARM), vulnerability(at + ARM), analysis(at + AMD, status="FINISHED_FAILED")]
    [one, other] = scans(serve(project([index("images/app", "v1", platforms=PLATFORMS)], occurrences))).scans
    told = {scan.digest: (scan.tags, scan.unfinished, len(scan.vulnerabilities)) for scan in (one, other)}
    assert told == {ARM: (("v1",), "", 1), AMD: (("v1",), "failed", 0)}


def test_what_is_known_of_a_platform_itself_counts_before_that_of_its_index(serve):
    own = f"{HOST}/{PROD}/images/app@{AMD}"
    occurrences = [
        analysis(APP),
        vulnerability(APP, "CVE-2026-1"),
        analysis(own, status="SCANNING"),
        vulnerability(own),
    ]
    found = scans(serve(project([index("images/app", platforms={"linux/amd64": AMD})], occurrences)))
    [scan] = found.scans
    assert (scan.unfinished, len(scan.vulnerabilities)) == ("in_progress", 2)


def test_what_was_found_in_an_index_is_never_lost(serve):
    images = [index("images/app", "v1", platforms={"linux/arm64": ARM, "windows/amd64": digest("windows")})]
    found = scans(serve(project(images, [analysis(APP), vulnerability(APP)])))
    told = {scan.digest: (scan.unfinished, scan.platform, len(scan.vulnerabilities)) for scan in found.scans}
    assert told.pop(digest("images/app")) == ("", "", 1)
    assert {(state, count) for state, _, count in told.values()} == {("not_scanned", 0)}


def test_of_an_index_without_its_platforms_nobody_says_which_was_scanned():
    """The older answers of Artifact Registry do not list them."""
    scan = translated(analysis(APP), images=[index("images/app", "v1", platforms={})])
    assert (scan.platform, scan.tags, scan.unfinished) == ("", ("v1",), "")


def test_a_platform_that_is_not_told_is_none(serve):
    images = [index("images/app", platforms={"linux": AMD, "linux/<b>": ARM})]
    found = scans(serve(project(images)))
    assert found.indexes == {digest("images/app"): [Platform(AMD, ""), Platform(ARM, "")]}
    assert {scan.platform for scan in found.scans} == {None}


@pytest.mark.parametrize(
    "artifact",
    [
        image("images/app", artifactType="application/vnd.cncf.helm.config.v1+json"),
        image("images/app", f"sha256-{'a' * 64}.sig"),
        index("images/app", f"sha256-{'a' * 64}", platforms={"": ARM}),
    ],
)
def test_what_is_no_image_is_left_out_unless_something_was_found_in_it(serve, artifact):
    gcp = serve(project([artifact], [analysis(APP, status="FINISHED_UNSUPPORTED")]))
    found = scans(gcp)
    assert (found.scans, found.gaps, found.listed) == ([], [], True)
    gcp.estate.projects[PROD].occurrences.append(vulnerability(APP))
    assert states(scans(gcp)) == {"app": ("unsupported_image", 1)}


@pytest.mark.parametrize(
    "real",
    [image("images/app", f"sha256-{'a' * 64}.sig", "v1"), image("images/app", artifactType="application/vnd.docker.x")],
)
def test_what_may_be_an_image_is_one(real):
    assert translated(images=[real]).unfinished == "not_scanned"


# -- analyses


@pytest.mark.parametrize(
    ("changes", "unfinished", "detail"),
    [
        ({}, "", ""),
        ({"analysisStatus": "COMPLETE"}, "", ""),
        ({"analysisStatus": "PENDING"}, "in_progress", "says PENDING of"),
        ({"analysisStatus": "SCANNING"}, "in_progress", "says SCANNING of"),
        ({"analysisStatus": "FINISHED_FAILED"}, "failed", "says FINISHED_FAILED of"),
        (
            {"analysisStatus": "FINISHED_FAILED", "analysisStatusError": {"code": 13, "message": "too\nlarge"}},
            "failed",
            "of its analysis: too large",
        ),
        ({"analysisStatus": "FINISHED_UNSUPPORTED"}, "unsupported_image", "says FINISHED_UNSUPPORTED"),
        ({"analysisStatus": ABSENT}, "not_scanned", "says nothing of"),
        ({"analysisStatus": "ANALYSIS_STATUS_UNSPECIFIED"}, "not_scanned", "UNSPECIFIED"),
        ({"analysisStatus": "FINISHED_TOO_NEW"}, "incomplete", "FINISHED_TOO_NEW"),
        ({"analysisError": [{"code": 3, "message": "no package list"}]}, "incomplete", "errors"),
        ({"archiveTime": "2026-08-01T00:00:00Z"}, "expired", "archived"),
        ({"continuousAnalysis": "INACTIVE"}, "", ""),  # its age says how much it is worth
        ({"continuousAnalysis": "INACTIVE", "lastScanTime": ABSENT}, "stale", "no longer"),
    ],
)
def test_only_an_analysis_that_has_finished_is_finished(changes, unfinished, detail):
    scan = translated(analysis(APP, **changes), vulnerability(APP), images=[image("images/app")])
    assert (scan.unfinished, len(scan.vulnerabilities)) == (unfinished, 1)
    assert detail in scan.detail
    assert bool(scan.detail) == bool(unfinished)


@pytest.mark.parametrize("time", [ABSENT, "", "yesterday", "2026-11-20T04:10:31", 5, {"seconds": 5}])
def test_a_time_is_never_made_up(time):
    assert translated(analysis(APP, lastScanTime=time), images=[image("images/app")]).scanned_at is None


@pytest.mark.parametrize(
    "note",
    [
        "projects/goog-analysis/notes/PACKAGE_VULNERABILITY",
        "projects/goog-analysis/locations/us/notes/PACKAGE_VULNERABILITY",
    ],
)
def test_the_notes_of_google_count(note):
    found = analysis(APP) | {"noteName": note}
    assert translated(found, images=[image("images/app")]).unfinished == ""


@pytest.mark.parametrize(
    "note",
    [
        f"projects/{PROD}/notes/PACKAGE_VULNERABILITY",
        "projects/goog-analysis/notes/SBOM",
        "projects/goog-analysis/notes/PACKAGE_VULNERABILITY/x",
        "projects/x/projects/goog-analysis/notes/PACKAGE_VULNERABILITY",
        None,
    ],
)
def test_what_others_say_of_an_analysis_proves_nothing(note):
    found = analysis(APP) | {"noteName": note}
    assert translated(found, images=[image("images/app")]).unfinished == "not_scanned"


def test_of_two_analyses_the_unfinished_counts_else_the_later():
    old, none = analysis(APP, lastScanTime="2026-01-01T00:00:00Z"), analysis(APP, lastScanTime=ABSENT)
    running = analysis(APP, status="SCANNING")
    for several in ([old, analysis(APP), none], [none, analysis(APP), old]):
        assert translated(*several).scanned_at == SCANNED
        assert translated(*several, running).unfinished == "in_progress"
        assert translated(running, *several).unfinished == "in_progress"


# -- vulnerabilities


def only(*issues, **changes):
    [found] = translated(analysis(APP), vulnerability(APP, "CVE-1", "HIGH", *issues, **changes)).vulnerabilities
    return found


@pytest.mark.parametrize(
    ("of_package", "effective", "severity", "cvss", "level", "score"),
    [
        ("LOW", "CRITICAL", "CRITICAL", 9.8, "low", 9.8),
        (ABSENT, "MEDIUM", "CRITICAL", 9.8, "medium", 9.8),
        ("SEVERITY_UNSPECIFIED", "SEVERITY_UNSPECIFIED", "CRITICAL", 2, "critical", 2.0),
        (ABSENT, ABSENT, ABSENT, 7.0, "high", 7.0),
        ("MINIMAL", ABSENT, ABSENT, ABSENT, "negligible", None),
        (ABSENT, ABSENT, ABSENT, ABSENT, "unknown", None),
        ("GRAVE", ABSENT, ABSENT, 0, "unknown", None),
        ("HIGH", ABSENT, ABSENT, 11, "high", None),
        ("HIGH", ABSENT, ABSENT, True, "high", None),
        ("HIGH", ABSENT, ABSENT, "9.8", "high", None),
    ],
)
def test_the_severity_is_that_of_the_package_first(of_package, effective, severity, cvss, level, score):
    one = merged(issue(), {"effectiveSeverity": of_package})
    found = only(one, effectiveSeverity=effective, severity=severity, cvssScore=cvss)
    assert (found.level, found.cvss) == (level, score)


@pytest.mark.parametrize(
    ("changes", "installed", "fixed"),
    [
        ({}, "1:1.2.13.dfsg-1", "1:1.2.13.dfsg-2"),
        ({"fixedVersion": {"kind": "MAXIMUM"}}, "1:1.2.13.dfsg-1", ""),
        ({"fixedVersion": ABSENT, "fixAvailable": ABSENT}, "1:1.2.13.dfsg-1", ""),
        ({"fixedVersion": ABSENT}, "1:1.2.13.dfsg-1", "a later version"),
        ({"fixAvailable": ABSENT}, "1:1.2.13.dfsg-1", "1:1.2.13.dfsg-2"),
        ({"affectedVersion": {"fullName": ABSENT}}, "1.2.13.dfsg-1", "1:1.2.13.dfsg-2"),
        ({"affectedVersion": {"fullName": ABSENT, "revision": ABSENT}}, "1.2.13.dfsg", "1:1.2.13.dfsg-2"),
        ({"affectedVersion": ABSENT}, "", "1:1.2.13.dfsg-2"),
    ],
)
def test_versions(changes, installed, fixed):
    found = only(issue(**changes))
    assert (found.installed, found.fixed) == (installed, fixed)


def test_a_vulnerability_without_packages_is_one():
    assert only(packageIssue=ABSENT) == Vulnerability("CVE-1", Level.HIGH, cvss=7.5)


@pytest.mark.parametrize(
    ("state", "counts"),
    [("NOT_AFFECTED", 0), ("AFFECTED", 1), ("FIXED", 1), ("UNDER_INVESTIGATION", 1), (ABSENT, 1), ("not_affected?", 1)],
)
def test_what_does_not_affect_the_image_is_left_out(state, counts):
    found = vulnerability(APP, vexAssessment={"cve": "CVE-2026-1001", "state": state})
    assert len(translated(analysis(APP), found).vulnerabilities) == counts


def test_of_several_alike_the_gravest_is_kept():
    alike = [vulnerability(APP, "CVE-1", severity) for severity in ("LOW", "CRITICAL", "MEDIUM")]
    found = translated(analysis(APP), *alike, vulnerability(APP, "CVE-1", "HIGH", issue("bash"))).vulnerabilities
    assert [(v.package, v.level) for v in found] == [("zlib", "critical"), ("bash", "high")]


def test_texts_are_bounded():
    long = "x" * 1_000_000
    one = issue(long, affectedVersion={"fullName": long}, fixedVersion={"fullName": long})
    found = only(one)
    assert (len(found.package), len(found.installed), len(found.fixed)) == (200, 100, 100)
    [found] = translated(vulnerability(APP, long)).vulnerabilities
    assert found.id == "x" * 100
    assert len(translated(analysis(APP, status=long)).detail) < 200


def test_vulnerabilities_that_images_share_are_kept_once():
    """5,000 images with 200 vulnerabilities each have to stay within 500 MB."""
    held = Images(PROD)
    tracemalloc.start()
    for n in range(250):
        at = uri(f"images/app-{n}")
        held.take_vulnerabilities([vulnerability(at, f"CVE-2026-{i}", packages=[]) for i in range(200)])
    found = held.scans(listed=True, analysed=True, found=True)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(scan.vulnerabilities) for scan in found] == [200] * 250
    assert found[0].vulnerabilities[7] is found[-1].vulnerabilities[7]
    assert kept < 250 * 20_000


# -- which image it is about


@pytest.mark.parametrize("host", ["gcr.io", "eu.gcr.io"])
@pytest.mark.parametrize("id", [PROD, "example.com:shop"])
def test_a_repository_that_is_served_under_gcr_is_named_so(host, id):
    path = id.replace(":", "/")
    listed = image("images/app", "v1", uri=f"us-docker.pkg.dev/{path}/{host}/team/app@{digest('images/app')}")
    found = analysis(f"{host}/{path}/team/app@{digest('images/app')}")
    scan = translated(found, images=[listed])
    assert (scan.registry, scan.repository, scan.tags) == (host, f"{path}/team/app", ("v1",))
    assert scan.unfinished == ""


def test_an_image_that_is_no_longer_listed_is_told(serve):
    [scan] = scans(serve(project([], [analysis(APP), vulnerability(APP)]))).scans
    assert (scan.tags, scan.platform, scan.unfinished, len(scan.vulnerabilities)) == ((), "", "", 1)


def test_of_other_registries_tags_are_not_told(serve):
    others = [f"ghcr.io/{PROD}/app@{digest('a')}", f"us-docker.pkg.dev/other/images/app@{digest('b')}"]
    found = scans(serve(project([], [vulnerability(at) for at in others])))
    assert [(scan.registry, scan.tags, scan.unfinished) for scan in found.scans] == [
        ("ghcr.io", None, "not_scanned"),
        ("us-docker.pkg.dev", None, "not_scanned"),
    ]


def test_a_tag_names_an_image_too(serve):
    """Google itself always writes digests, but others may write occurrences."""
    found = scans(serve(project([], [vulnerability(f"gcr.io/{PROD}/app:v1")])))
    [scan] = found.scans
    assert (scan.digest, scan.tags, scan.unfinished, len(scan.vulnerabilities)) == ("", ("v1",), "not_scanned", 1)
    assert found.gaps == []


def test_a_digest_in_capitals_is_the_same_one():
    path, _, of = APP.partition("@sha256:")
    assert translated(analysis(f"{path}@sha256:{of.upper()}"), images=[image("images/app")]).unfinished == ""


@pytest.mark.parametrize(
    "other",
    [
        f"us-maven.pkg.dev/{PROD}/jars/com.example:shop:1.0",
        f"us-npm.pkg.dev/{PROD}/js/shop@1.0",
        f"compute.googleapis.com/projects/{PROD}/zones/us-central1-a/instances/1",
    ],
)
def test_what_is_no_image_is_passed_over(serve, other):
    occurrences = [analysis(APP), analysis(other), vulnerability(other)]
    found = scans(serve(project([image("images/app")], occurrences)))
    assert (found.gaps, states(found)) == ([], {"app": ("", 0)})


# -- entries that are none


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "app",
        {},
        image("images/odd", uri=f"{HOST}/{PROD}/images/odd:v1"),
        image("images/odd", uri=f"{HOST}/{PROD}/images/odd@sha512:{'a' * 128}"),
        image("images/odd", uri=f"{HOST}/{PROD}/images/{'x' * 1000}@{digest('x')}"),
        image("images/odd", uri=f"{HOST}/{PROD}/images/a\u202eb@{digest('x')}"),
        image("images/odd", uri="us-maven.pkg.dev/p/jars/x:1"),
        image("images/odd", uri=7),
        image("images/odd", tags="v1"),
        image("images/odd", tags=["v1", None]),
        image("images/odd", tags=["a b"]),
        image("images/odd", imageManifests={"digest": ARM}),
        image("images/odd", imageManifests=["x"]),
        image("images/odd", imageManifests=[{"os": "linux", "architecture": "arm64"}]),
        image("images/odd", imageManifests=[{"os": 1, "architecture": "arm64", "digest": ARM}]),
        image("images/odd", artifactType=[]),
    ],
)
def test_an_image_that_does_not_say_which_it_is_costs_only_itself(serve, odd):
    gcp = serve(project())
    page = {"dockerImages": [image("images/app", "v1"), odd, image("images/job"), odd]}
    gcp.inject(IMAGES, body(json.dumps(page).encode()))
    found = scans(gcp)
    assert states(found) == {"app": ("not_scanned", 0), "job": ("not_scanned", 0)}
    assert (gap(found).reason, gap(found).permission, found.listed) == ("bad_data", "", False)
    assert gap(found).detail.startswith("images: ")
    assert len(gap(found).detail) < 300
    assert [scan.tags for scan in found.scans] == [("v1",), None]  # there may be a tag that is not known


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        vulnerability(APP) | {"resourceUri": None},
        vulnerability(APP) | {"resourceUri": 7},
        vulnerability(APP) | {"resourceUri": ""},
        vulnerability(f"{HOST}/{PROD}/images"),
        vulnerability(f"gcr.io/{PROD}/app@sha512:{'a' * 128}"),
    ],
)
def test_what_was_found_in_nobody_knows_which_image_may_be_in_any(serve, odd):
    gcp = serve(project([image("images/app"), image("images/job")]))
    pages = {"DISCOVERY": [analysis(APP), analysis(JOB)], "VULNERABILITY": [vulnerability(APP), odd]}
    for kind, items in pages.items():
        gcp.inject(f"{OCCURRENCES}.*{kind}", body(json.dumps({"occurrences": items}).encode()))
    found = scans(gcp)
    assert states(found) == {"app": ("incomplete", 1), "job": ("incomplete", 0)}
    assert (gap(found).reason, found.listed) == ("bad_data", True)


@pytest.mark.parametrize(
    "changes",
    [
        {"vulnerability": "x"},
        {"noteName": None},
        {"noteName": "projects/goog-vulnz/notes/"},
        {"noteName": 5},
        {"vulnerability": {"packageIssue": {"affectedPackage": "zlib"}}},
        {"vulnerability": {"packageIssue": [issue(), "x"]}},
        {"vulnerability": {"effectiveSeverity": 3}},
        {"vulnerability": {"vexAssessment": "NOT_AFFECTED"}},
        {"vulnerability": {"packageIssue": [issue(affectedVersion="1.0")]}},
        {"vulnerability": {"packageIssue": [issue(affectedPackage=["x"])]}},
    ],
)
def test_a_vulnerability_that_is_none_leaves_its_image_incomplete(changes):
    held = Images(PROD)
    held.take_analyses([analysis(APP), analysis(JOB)])
    problems = held.take_vulnerabilities([vulnerability(APP), merged(vulnerability(APP), changes), vulnerability(JOB)])
    app, job = held.scans(listed=True, analysed=True, found=True)
    assert len(problems) == 1
    assert (app.unfinished, len(app.vulnerabilities)) == ("incomplete", 1)
    assert (job.unfinished, len(job.vulnerabilities)) == ("", 1)


def test_of_a_vulnerability_what_is_understood_is_kept():
    held = Images(PROD)
    bad = issue("bash", affectedVersion=7)
    assert held.take_vulnerabilities([vulnerability(APP, "CVE-1", "HIGH", issue(), bad)]) == [
        "affectedVersion is no object"
    ]
    [scan] = held.scans(listed=True, analysed=True, found=True)
    assert [v.package for v in scan.vulnerabilities] == ["zlib"]


@pytest.mark.parametrize(
    "odd", [{"discovery": "x"}, {"discovery": {"analysisStatus": ["FINISHED_SUCCESS"]}}, {"noteName": 1}]
)
def test_an_analysis_that_is_none_is_a_gap(serve, odd):
    gcp = serve(project([image("images/app"), image("images/job")]))
    items = [analysis(APP), merged(analysis(JOB), odd)]
    gcp.inject(ANALYSES, body(json.dumps({"occurrences": items}).encode()))
    found = scans(gcp)
    assert states(found) == {"app": ("", 0), "job": ("incomplete", 0)}
    assert gap(found).reason == "bad_data"


# -- what is refused, missing or empty


@pytest.fixture
def two():
    """An image without findings, and one with."""
    held = [image("images/app"), image("images/job")]
    return project(held, [analysis(APP), analysis(JOB), vulnerability(JOB, "CVE-1"), vulnerability(JOB, "CVE-2")])


def test_images_that_may_not_be_listed_are_a_gap_and_what_was_found_in_them_stays(serve, two):
    gcp = serve(two)
    gcp.deny(LIST_IMAGES, PROD)
    found = scans(gcp)
    assert (gap(found).reason, gap(found).permission, found.asked) == ("forbidden", LIST_IMAGES, [SOURCE])
    assert states(found) == {"app": ("", 0), "job": ("", 2)}
    assert not found.listed
    assert {(scan.tags, scan.platform) for scan in found.scans} == {(None, "")}


def test_occurrences_that_may_not_be_listed_are_a_gap(serve, two):
    gcp = serve(two)
    gcp.deny(LIST_OCCURRENCES, PROD)
    found = scans(gcp)
    assert (gap(found).reason, gap(found).permission, found.asked) == ("forbidden", LIST_OCCURRENCES, [SOURCE])
    assert states(found) == {"app": ("incomplete", 0), "job": ("incomplete", 0)}
    assert found.listed


@pytest.mark.parametrize("right", ["artifactregistry.locations.list", "artifactregistry.repositories.list"])
@pytest.mark.parametrize("kinds", [(CLUSTERS,), (CLUSTERS, REPOSITORIES)])
def test_repositories_that_may_not_be_listed_are_a_gap(serve, two, right, kinds):
    gcp = serve(two)
    gcp.deny(right, PROD)
    found = read(gcp, kinds=kinds)
    assert (gap(found.scans).reason, gap(found.scans).permission, found.scans.listed) == ("forbidden", right, False)
    assert [g.what for g in found.gaps] == [REPOSITORIES] * (REPOSITORIES in kinds)
    assert states(found.scans) == {"app": ("", 0), "job": ("", 2)}


@pytest.mark.parametrize("code", [400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (IMAGES, {"app": ("", 0), "job": ("", 2)}),
        (ANALYSES, {"app": ("incomplete", 0), "job": ("incomplete", 2)}),
        (FINDINGS, {"app": ("incomplete", 0), "job": ("incomplete", 0)}),
    ],
)
def test_each_list_that_fails_is_a_gap_of_its_own(serve, two, code, path, expected):
    gcp = serve(two)
    gcp.inject(path, status(code))
    found = scans(gcp)
    permission = {IMAGES: LIST_IMAGES}.get(path, LIST_OCCURRENCES)
    assert (states(found), found.listed) == (expected, path != IMAGES)
    assert gap(found).permission == (permission if code == 403 else "")


@pytest.mark.parametrize("answer", [b'{"unreachable":["us"],"%s":[]}', b'{"unreachable":["us"]}'])
@pytest.mark.parametrize(
    ("path", "items"), [(IMAGES, b"dockerImages"), (ANALYSES, b"occurrences"), (FINDINGS, b"occurrences")]
)
def test_places_that_do_not_answer_are_a_gap(serve, two, path, items, answer):
    gcp = serve(two)
    gcp.inject(path, body(answer % items if b"%s" in answer else answer))
    found = scans(gcp)
    assert gap(found).reason == "location_missing"
    assert found.listed == (path != IMAGES)
    assert path == IMAGES or states(found)["app"] == ("incomplete", 0)


def test_a_place_that_is_missing_on_the_first_page_is_still_missing_on_the_last(serve, two):
    gcp = serve(two)
    first = {"occurrences": [vulnerability(JOB)], "nextPageToken": "2", "unreachable": ["us", "asia"]}
    gcp.inject(FINDINGS, body(json.dumps(first).encode()), times=1)
    found = scans(gcp)
    assert states(found) == {"app": ("incomplete", 0), "job": ("incomplete", 1)}
    assert "'us', 'asia'" in gap(found).detail


@pytest.mark.parametrize(
    ("path", "page"), [(IMAGES, "dockerImages"), (ANALYSES, "occurrences"), (FINDINGS, "occurrences")]
)
def test_what_came_before_a_failure_stays(serve, two, path, page):
    gcp = serve(two, page_size=1)
    gcp.inject(path, status(403), after=1)
    found = scans(gcp)
    assert gap(found).reason == "forbidden"
    assert (
        states(found)
        == {
            IMAGES: {"app": ("", 0), "job": ("", 2)},
            ANALYSES: {"app": ("", 0), "job": ("incomplete", 2)},
            FINDINGS: {"app": ("incomplete", 0), "job": ("incomplete", 1)},
        }[path]
    )


def test_empty_lists_are_believed(serve, two):
    gcp = serve(two)
    gcp.inject(FINDINGS, body(b"{}"))
    assert states(scans(gcp)) == {"app": ("", 0), "job": ("", 0)}
    gcp.inject(ANALYSES, body(b"{}"))
    assert states(scans(gcp)) == {"app": ("not_scanned", 0), "job": ("not_scanned", 0)}
    gcp.inject(IMAGES, body(b"{}"))
    assert (scans(gcp).scans, scans(gcp).listed, scans(gcp).gaps) == ([], True, [])


@pytest.mark.parametrize("answer", [b'{"items":[]}', b"[]", b'{"occurrences":{}}', b"<html>"])
def test_an_answer_that_is_no_list_is_never_an_empty_one(serve, two, answer):
    gcp = serve(two)
    gcp.inject(FINDINGS, body(answer))
    assert gap(scans(gcp)).reason == "bad_data"
    assert states(scans(gcp))["app"] == ("incomplete", 0)


def test_pages_that_go_round_in_circles_end(serve, two):
    gcp = serve(two)
    gcp.inject(FINDINGS, body(json.dumps({"occurrences": [vulnerability(JOB)], "nextPageToken": "x"}).encode()))
    found = scans(gcp)
    assert "circles" in gap(found).detail
    assert states(found) == {"app": ("incomplete", 0), "job": ("incomplete", 1)}


def test_repositories_that_do_not_answer_are_given_up_and_occurrences_are_asked_for(serve, two):
    many = [repository(f"r{n}") for n in range(5)]
    gcp = serve(project(two.images, two.occurrences, repositories=many))
    gcp.inject("dockerImages", hang())
    found = read(gcp, timeout=0.3)
    assert len(asked(gcp, "dockerImages$")) == 2
    assert (gap(found.scans).reason, found.scans.listed) == ("timeout", False)
    assert "and 4 more like this" in gap(found.scans).detail
    assert states(found.scans) == {"app": ("", 0), "job": ("", 2)}
    assert found.counts.lists_unread == 5


def test_a_repository_without_a_format_may_hold_images(serve, two):
    two.repositories[0].pop("format")
    gcp = serve(two)
    gcp.inject(IMAGES, status(400))
    found = read(gcp, kinds=(CLUSTERS, REPOSITORIES))
    assert (gap(found.scans).reason, found.scans.listed) == ("bad_data", False)


# -- services that are not enabled


def test_where_artifact_analysis_is_off_it_is_not_asked_and_no_image_is_scanned(serve, two):
    two.off.add("containeranalysis")
    gcp = serve(two)
    found = scans(gcp)
    assert (found.asked, found.gaps, found.listed) == ([], [], True)
    assert states(found) == {"app": ("not_scanned", 0), "job": ("not_scanned", 0)}
    assert len(asked(gcp, "occurrences$")) == 1


def test_where_it_is_off_and_images_cannot_be_listed_there_is_a_gap(serve, two):
    two.off.add("containeranalysis")
    gcp = serve(two)
    gcp.deny(LIST_IMAGES)
    found = scans(gcp)
    assert (found.asked, found.scans, gap(found).permission) == ([SOURCE], [], LIST_IMAGES)


@pytest.mark.parametrize(
    ("path", "after", "expected"),
    [
        (ANALYSES, 1, {"app": ("incomplete", 0), "job": ("incomplete", 0)}),
        (FINDINGS, 0, {"app": ("incomplete", 0), "job": ("incomplete", 0)}),
        (FINDINGS, 1, {"app": ("incomplete", 0), "job": ("incomplete", 1)}),
        (IMAGES, 0, {"app": ("", 0), "job": ("", 2)}),
    ],
)
def test_an_api_that_has_answered_is_not_off(serve, two, path, after, expected):
    gcp = serve(two, page_size=1)
    service = "artifactregistry" if path == IMAGES else "containeranalysis"
    message, detail = disabled(service, f"projects/{number(PROD)}")
    gcp.inject(path, status(403, message, detail), after=after)
    if after and path == ANALYSES:
        gcp.inject(FINDINGS, status(403, message, detail))
    found = scans(gcp)
    assert (states(found), found.asked, gap(found).reason) == (expected, [SOURCE], "forbidden")
    assert found.listed == (path != IMAGES)


def test_where_it_is_off_elsewhere_nothing_is_known(serve, two):
    gcp = serve(two, Project(DEV))
    message, detail = disabled("containeranalysis", f"projects/{number(DEV)}")
    gcp.inject(OCCURRENCES, status(403, message, detail))
    found = scans(gcp)
    assert (found.asked, gap(found).reason) == ([SOURCE], "forbidden")
    assert states(found)["app"] == ("incomplete", 0)


def test_a_project_without_artifact_registry_has_no_images(serve):
    found = scans(serve(project(off={"artifactregistry", "containeranalysis"})))
    assert (found.asked, found.scans, found.gaps, found.listed) == ([], [], [], True)


# -- estates


def estates(gcp, *, planes=Planes.BOTH, **scope):
    chosen = settings(checks.load(), Config(), Selection())
    asked = Asked(chosen, Discovery(planes=planes), Namespaces(), Running())
    endpoints = [f"{service}={url}" for service, url in gcp.endpoints.items()]
    with gke_tasks(GcpScope(gcp_endpoint=endpoints, **scope), asked) as tasks:
        return {reading.estate.name: reading.estate for reading in run(tasks, 2, lambda *_: None)}


@pytest.mark.parametrize("planes", list(Planes))
def test_the_estate_of_a_project_holds_what_was_found_in_its_images(serve, two, planes):
    gcp = serve(two)
    found = estates(gcp, planes=planes, project=[PROD])
    assert states(found[PROD].scans) == {"app": ("", 0), "job": ("", 2)}
    assert (found[PROD].scans.listed, found[PROD].account.id) == (True, PROD)


def test_a_project_with_nothing_but_images_is_in_the_report(serve, two):
    top = "organizations/715382904611"
    two.off.add("container")
    gcp = serve(two, Project(DEV, off={"container", "artifactregistry", "containeranalysis"}))
    assert list(estates(gcp, planes=Planes.DATA, organization=[top])) == [PROD]
