"""What Microsoft Defender for Cloud says of images: the scanner's own client against a local Resource Graph."""

import json
import os
import time
import tracemalloc
from datetime import UTC, datetime

import msgspec
import pytest
from armserver import ArmServer, body, empty, hang, reset, rows, status
from azure_data import (
    ABSENT,
    DEV,
    IMAGE_KEY,
    PROD,
    READER,
    REGISTRY_KEY,
    RUNNING_KEY,
    Estate,
    Subscription,
    aws_sub_assessment,
    digest,
    gcp_sub_assessment,
    guid,
    image_assessment,
    one_cve,
    package_assessment,
    permission,
    qualys_sub_assessment,
    sub_assessment,
)
from cli import kubeposture

import checks
from providers.azure import images, session
from providers.azure.credentials import CLOUDS
from providers.azure.reader import Reader
from scanner import collect
from scanner.cli import aks
from scanner.cli.discovery import Asked, Cloud
from scanner.cli.options import AzureScope, Discovery, Namespaces, Running
from scanner.config import Config, Selection, settings
from scanner.inventory import Counts
from scanner.vulnerabilities import Level

WEB, API = digest("shop/web"), digest("shop/api")
GRAPH = "^/providers/Microsoft.ResourceGraph/resources$"
SCANNED = datetime(2026, 11, 20, 6, 12, 44, tzinfo=UTC)
CHANGED = datetime(2026, 11, 18, 5, 30, tzinfo=UTC)
SUB_ASSESSMENTS = "Microsoft.Security/assessments/subAssessments/read"
EXEMPT = {"code": "NotApplicable", "cause": "Exempt", "description": "Disabled by rule"}
OFF = {"code": "NotApplicable", "cause": "Exempt", "description": "Disabled parent assessment"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in tuple(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_", "REQUESTS_CA", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(session, "LONGEST_WAIT", 0.02)
    monkeypatch.setattr(images, "utc_now", lambda: datetime(2026, 11, 22, tzinfo=UTC))


class Asker:
    """What a scan would ask of this Resource Manager."""

    def __init__(self, arm, cloud="AzureCloud", timeout=10):
        self.session = session.Session(
            CLOUDS["AzureCloud"], tenant=None, endpoint=arm.url, request_timeout=timeout, connections=4
        )
        self.reader, self.domain, self.counted = Reader(self.session, ()), images.REGISTRIES[cloud], []

    def read(self, *subscriptions):
        def allowed(name):
            return self.reader.permissions(f"/subscriptions/{name}", Counts())

        return images.read(self.session, subscriptions or (PROD,), allowed, self.domain, self.counted.append)


@pytest.fixture
def serve(monkeypatch):
    """Starts a Resource Graph with these rows of Production and, by name, of Development; what would be asked of it."""
    servers, sessions = [], []

    def start(*rows, dev=(), permissions=(READER,), cloud="AzureCloud", timeout=10, **options):
        estate = Estate.of(
            Subscription(PROD, "Production", security=list(rows), permissions=list(permissions)),
            Subscription(DEV, "Development", security=list(dev)),
        )
        arm = ArmServer(estate, **options)
        servers.append(arm.__enter__())
        for name, value in arm.environment.items():
            monkeypatch.setenv(name, value)
        asker = Asker(arm, cloud, timeout)
        sessions.append(asker.session)
        return arm, asker

    yield start
    for opened in sessions:
        opened.close()
    for server in servers:
        server.__exit__()
        assert {r.path for r in server.requests if r.method != "GET"} <= {session.GRAPH}


@pytest.fixture
def read(serve):
    def start(*rows, **options):
        return serve(*rows, **options)[1].read()

    return start


def only(scans):
    assert (scans.asked, scans.gaps) == (["defender"], [])
    [scan] = scans.scans
    return scan


def named(scan):
    return [(v.id, v.package, v.installed) for v in scan.vulnerabilities]


def verdict(scan):
    """Whether it is finished, with its time, and how many vulnerabilities it has."""
    return scan.unfinished, scan.scanned_at, len(scan.vulnerabilities)


def graph_requests(arm):
    return [json.loads(r.body) for r in arm.requests if r.path == session.GRAPH]


# -- what a row says


def test_a_sub_assessment_is_a_vulnerability_of_an_image(read):
    scan = only(read(sub_assessment()))
    assert (scan.source, scan.registry, scan.repository) == ("defender", "acrproduction.azurecr.io", "shop/web")
    assert (scan.digest, scan.tags, scan.config_digest) == (WEB, ("1.4.2",), "")
    assert (scan.account, scan.region, scan.platform) == (PROD, None, None)
    assert verdict(scan) == ("", SCANNED, 1)
    [found] = scan.vulnerabilities
    assert (found.id, found.level, found.cvss) == ("CVE-2021-39537", Level.HIGH, 7.8)
    assert (found.package, found.installed, found.fixed) == ("libncursesw5", "6.2-0ubuntu2", "6.2-0ubuntu2.1")


def test_images_of_other_clouds_have_their_own_account(read):
    scans = read(aws_sub_assessment(), gcp_sub_assessment()).scans
    aws, gcp = scans
    assert (aws.registry, aws.repository) == ("123456789012.dkr.ecr.us-east-1.amazonaws.com", "shop/ledger")
    assert (aws.account, aws.region) == ("123456789012", "us-east-1")
    assert (gcp.registry, gcp.repository) == ("us-central1-docker.pkg.dev", "shop-production/apps/nginx")
    assert (gcp.account, gcp.region, gcp.vulnerabilities[0].level) == ("shop-production", "us-central1", Level.LOW)


@pytest.mark.parametrize(
    ("make", "resource", "account"),
    [
        (aws_sub_assessment, {"hierarchyId": ABSENT}, "123456789012"),
        (aws_sub_assessment, {"hierarchyId": 7}, "123456789012"),
        (gcp_sub_assessment, {"nativeCloudUniqueIdentifier": ABSENT}, "884213770012"),
        (gcp_sub_assessment, {"nativeCloudUniqueIdentifier": "gcr.io/x", "hierarchyId": None}, None),
        (sub_assessment, {"source": ABSENT}, PROD),
        (sub_assessment, {"source": "DockerHub"}, PROD),
    ],
)
def test_an_account_is_told_as_far_as_the_row_tells_it(read, make, resource, account):
    assert only(read(make(resourceDetails=resource))).account == account


@pytest.mark.parametrize(
    ("host", "repository", "name"),
    [
        ("docker.io", "exampleorg/web", "docker.io/exampleorg/web"),
        ("registry-1.docker.io", "redis", "docker.io/library/redis"),
        ("hub.docker.com", "exampleorg/web", "docker.io/exampleorg/web"),
        ("Registry.Hub.Docker.com", "redis", "docker.io/library/redis"),
        ("Example.JFrog.io", "docker-local/web", "example.jfrog.io/docker-local/web"),
        ("artifacts.example.com:8443", "docker/web", "artifacts.example.com:8443/docker/web"),
        ("ACRProduction.azurecr.cn", "shop/web", "acrproduction.azurecr.cn/shop/web"),
    ],
)
def test_every_registry_is_recognised_by_the_end_of_its_type(read, host, repository, name):
    row = sub_assessment(
        repository=repository, host=host, key=guid("not documented"), kind="SomeoneContainerregistryVULNERABILITY"
    )
    scan = only(read(row))
    assert f"{scan.registry}/{scan.repository}" == name
    assert len(scan.vulnerabilities) == 1


@pytest.mark.parametrize("key", [*images._OF_REGISTRIES, *images._OF_CONTAINERS])
def test_every_key_is_recognised_whatever_its_type(read, key):
    assert len(only(read(sub_assessment(key=key.upper(), kind="K8sSomething"))).vulnerabilities) == 1


def test_other_findings_are_left_alone(read):
    server = sub_assessment(key=guid("servers"), kind="ServerVulnerability")
    node = package_assessment("CVE-2026-1", resourceDetails={"ResourceType": "Microsoft.Compute/virtualMachines"})
    other = image_assessment(key=guid("signed"), code="Unhealthy")
    assert read(server, node, other) == images.Scans()


def test_qualys_names_several_cves_and_no_package(read):
    scan = only(read(qualys_sub_assessment("CVE-2022-1", "CVE-2022-2")))
    assert (scan.registry, scan.repository, scan.digest) == ("acrproduction.azurecr.io", "shop/old", digest("shop/old"))
    assert named(scan) == [("CVE-2022-1", "", ""), ("CVE-2022-2", "", "")]
    assert {(v.level, v.cvss, v.fixed) for v in scan.vulnerabilities} == {(Level.MEDIUM, 5.5, images.LATER)}
    assert named(only(read(qualys_sub_assessment()))) == [("177993", "", "")]
    unpatchable = qualys_sub_assessment("CVE-2022-1", additionalData={"patchable": False})
    assert only(read(unpatchable)).vulnerabilities[0].fixed == ""


@pytest.mark.parametrize(
    ("cloud", "registry"),
    [("AzureCloud", "azurecr.io"), ("AzureUSGovernment", "azurecr.us"), ("AzureChinaCloud", "azurecr.cn")],
)
def test_a_registry_that_only_its_id_names_is_in_the_domain_of_the_cloud(read, cloud, registry):
    assert only(read(qualys_sub_assessment("CVE-2022-1"), cloud=cloud)).registry == f"acrproduction.{registry}"


def test_an_individual_recommendation_is_all_vulnerabilities_of_a_package(read):
    more = one_cve("CVE-2026-2", "Critical", FixedVersion="", Cvss=[{"Key": "2.0", "Value": {"Base": 5.0}}])
    old = one_cve("CVE-2026-3", "Low", FixedVersion="", FixStatus="NoFixAvailable", Cvss=[])
    scan = only(read(package_assessment("CVE-2026-1", more, old)))
    assert (scan.registry, scan.repository, scan.digest) == ("acrproduction.azurecr.io", "shop/web", WEB)
    assert (scan.tags, scan.account, scan.platform) == (None, PROD, None)
    assert verdict(scan) == ("", CHANGED, 3)
    assert [(v.id, v.level, v.cvss, v.fixed) for v in scan.vulnerabilities] == [
        ("CVE-2026-2", Level.CRITICAL, 5.0, images.LATER),
        ("CVE-2026-1", Level.MEDIUM, 5.9, "3.0.8"),
        ("CVE-2026-3", Level.LOW, None, ""),
    ]
    assert {(v.package, v.installed) for v in scan.vulnerabilities} == {("openssl", "3.0.2, 3.0.7")}


@pytest.mark.parametrize(
    ("changes", "installed"),
    [
        ({"ScannersDetails": json.dumps({"agentlessmdvm": {"DetectedSoftwareVersions": ["1.1"]}})}, "1.1"),
        ({"ScannersDetails": {"mdvm": {"DetectedSoftwareVersions": ["1.2"]}}}, "1.2"),
        ({"ScannersDetails": ABSENT}, "3.0.2, 3.0.7"),
        ({"ScannersDetails": ABSENT, "DetectedSoftwareVersions": "3.0.2"}, "3.0.2"),
        ({"ScannersDetails": "{", "DetectedSoftwareVersions": 7}, ""),
    ],
)
def test_what_is_installed_is_told_in_several_ways(read, changes, installed):
    scan = only(read(package_assessment("CVE-2026-1", additionalData=changes)))
    assert named(scan) == [("CVE-2026-1", "openssl", installed)]


def test_what_is_not_rated_is_as_grave_as_its_recommendation(read):
    unrated = [one_cve(f"CVE-2026-{i}", word, Cvss=score) for i, (word, score) in enumerate(_UNRATED)]
    scan = only(read(package_assessment(*unrated, metadata={"severity": "Critical"})))
    assert {v.id: v.level for v in scan.vulnerabilities} == {
        "CVE-2026-0": Level.CRITICAL,
        "CVE-2026-1": Level.CRITICAL,
        "CVE-2026-2": Level.MEDIUM,
    }


_UNRATED = [
    ("Unknown", []),
    (None, [{"Key": "3.1", "Value": None}]),
    ("Unknown", [{"Key": "3.1", "Value": {"Base": 5.1}}]),
]


@pytest.mark.parametrize("cves", [ABSENT, None, "", "{", "[]", "[7]", '[{"Severity":"High"}]', {}, "[" * 50_000])
def test_a_recommendation_that_names_no_cve_is_not_lost(read, cves):
    scan = only(read(package_assessment("CVE-2026-1", additionalData={"CvesDetails": cves})))
    assert [(v.id, v.level) for v in scan.vulnerabilities] == [("Update openssl", Level.HIGH)]


@pytest.mark.parametrize("odd", [7, {"Severity": "Critical"}, {"CveId": 7, "Severity": "Critical"}, {"CveId": " "}])
def test_a_cve_that_is_not_understood_leaves_its_image_unfinished(read, odd):
    cves = json.dumps([{"CveId": "CVE-2026-1", "Severity": "Low"}, odd])
    scan = only(read(package_assessment("CVE-2026-1", additionalData={"CvesDetails": cves})))
    assert ([v.id for v in scan.vulnerabilities], scan.unfinished) == (["CVE-2026-1"], "incomplete")


def test_a_newer_score_counts(read):
    scores = {"3.0": {"base": 9.1}, "4.0": {"base": 9.9}, "2.0": {"base": 1.0}, "5.0": None}
    row = sub_assessment(severity="", additionalData={"cvssV30Score": None, "vulnerabilityDetails": {"cvss": scores}})
    [found] = only(read(row)).vulnerabilities
    assert (found.cvss, found.level) == (9.9, Level.CRITICAL)


@pytest.mark.parametrize("score", [True, "9.8", -1, 11, 10**400, [], {}], ids=range(7))
def test_what_is_no_score_is_none(read, score):
    data = {"cvssV30Score": score, "vulnerabilityDetails": {"cvss": {"3.0": {"base": score}}}}
    [found] = only(read(sub_assessment(additionalData=data))).vulnerabilities
    assert (found.cvss, found.level) == (None, Level.HIGH)


def test_a_fix_of_unknown_version_is_a_fix(read):
    [found] = only(read(sub_assessment(additionalData={"softwareDetails": {"fixedVersion": ""}}))).vulnerabilities
    assert found.fixed == images.LATER
    none = {"fixedVersion": "", "fixStatus": "NoFixAvailable"}
    assert only(read(sub_assessment(additionalData={"softwareDetails": none}))).vulnerabilities[0].fixed == ""


@pytest.mark.parametrize(
    ("row", "platform"),
    [
        (sub_assessment(), None),
        (sub_assessment(key=RUNNING_KEY), None),
        (sub_assessment(key=RUNNING_KEY, additionalData={"artifactDetails": {"mediaType": ""}}), ""),
        (sub_assessment(additionalData={"artifactDetails": {"mediaType": ABSENT}}), None),
        (
            sub_assessment(
                additionalData={"artifactDetails": {"mediaType": "application/vnd.oci.image.index.v1+json"}}
            ),
            "",
        ),
        (package_assessment("CVE-2026-1", resourceDetails={"ResourceType": "K8s-container"}), ""),
    ],
)
def test_a_digest_may_be_of_several_platforms_where_a_container_runs_it(read, row, platform):
    assert only(read(row)).platform == platform


# -- rows of one image


def test_all_recommendations_of_an_image_are_one_scan(read):
    scan = only(
        read(
            sub_assessment("CVE-2021-1"),
            sub_assessment("CVE-2021-1", key=IMAGE_KEY, severity="Critical"),
            sub_assessment("CVE-2021-2", key=RUNNING_KEY, kind="K8s"),
            package_assessment("CVE-2026-1"),
            image_assessment("Unhealthy"),
        )
    )
    assert [(v.id, v.level) for v in scan.vulnerabilities] == [
        ("CVE-2021-1", Level.CRITICAL),
        ("CVE-2021-2", Level.HIGH),
        ("CVE-2026-1", Level.MEDIUM),
    ]


def test_images_are_told_apart_by_registry_repository_and_digest(read):
    scans = read(
        sub_assessment(),
        sub_assessment(repository="shop/api"),
        sub_assessment(host="other.azurecr.io"),
        sub_assessment(additionalData={"artifactDetails": {"digest": API}}),
    ).scans
    assert [(s.registry, s.repository, s.digest) for s in scans] == sorted(
        [
            ("acrproduction.azurecr.io", "shop/web", WEB),
            ("acrproduction.azurecr.io", "shop/api", API),
            ("other.azurecr.io", "shop/web", WEB),
            ("acrproduction.azurecr.io", "shop/web", API),
        ]
    )


def test_equal_vulnerabilities_are_one_record(read):
    first, second = read(sub_assessment(), sub_assessment(repository="shop/api")).scans
    assert first.vulnerabilities[0] is second.vulnerabilities[0]


def test_what_is_said_without_a_repository_belongs_to_every_image_of_the_digest(read):
    bare = image_assessment("Healthy", resourceAdditionalData=None)
    one, two = read(
        sub_assessment(code="NotApplicable", status=OFF), sub_assessment(host="other.azurecr.io", status=OFF), bare
    ).scans
    assert (one.registry, two.registry) == ("acrproduction.azurecr.io", "other.azurecr.io")
    assert verdict(one) == verdict(two) == ("", CHANGED, 0)
    scan = only(read(bare))
    assert (scan.registry, scan.repository, scan.digest) == ("", "", WEB)


def test_tags_are_those_of_the_latest_row(read):
    old = {"artifactDetails": {"tags": ["latest", "1.4.1"]}}
    rows = [
        sub_assessment("CVE-1", additionalData=old, timeGenerated="2026-11-01T00:00:00Z"),
        sub_assessment("CVE-2"),
        sub_assessment("CVE-3", additionalData=old, timeGenerated="2026-11-02T00:00:00Z"),
    ]
    assert only(read(*rows)).tags == ("1.4.2",)


# -- what is finished


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([image_assessment("Healthy")], ("", CHANGED, 0)),
        ([sub_assessment(code="Healthy")], ("", SCANNED, 0)),
        ([package_assessment(code="Healthy")], ("", CHANGED, 0)),
        ([sub_assessment(status=EXEMPT)], ("", SCANNED, 0)),
        ([sub_assessment("CVE-1", status=EXEMPT), sub_assessment("CVE-2")], ("", SCANNED, 1)),
        ([image_assessment("Healthy"), sub_assessment(timeGenerated=ABSENT)], ("", CHANGED, 1)),
        ([sub_assessment(timeGenerated=ABSENT)], ("", None, 1)),
        ([image_assessment(status={"statusChangeDate": ABSENT, "firstEvaluationDate": ABSENT})], ("", None, 0)),
        ([sub_assessment(status=OFF)], ("not_scanned", None, 0)),
        ([sub_assessment(code="NotApplicable")], ("not_scanned", None, 0)),
        ([image_assessment("NotApplicable")], ("not_scanned", None, 0)),
        ([sub_assessment("CVE-1", status=OFF), sub_assessment("CVE-2", key=IMAGE_KEY)], ("", SCANNED, 1)),
        ([image_assessment("Unhealthy")], ("incomplete", CHANGED, 0)),
        ([image_assessment("Unhealthy"), sub_assessment(status=EXEMPT)], ("incomplete", SCANNED, 0)),
        ([image_assessment("Unhealthy"), sub_assessment()], ("", SCANNED, 1)),
        ([image_assessment("Unverified")], ("incomplete", None, 0)),
        ([sub_assessment("CVE-1", code="Strange"), sub_assessment("CVE-2")], ("incomplete", SCANNED, 1)),
        ([image_assessment(status=None), image_assessment("Healthy", key=RUNNING_KEY)], ("incomplete", CHANGED, 0)),
    ],
)
def test_only_what_defender_judges_is_finished(read, rows, found):
    scan = only(read(*rows))
    assert verdict(scan) == found
    assert bool(scan.detail) is bool(scan.unfinished)


def test_a_finding_without_any_name_is_not_lost(read):
    nameless = {"id": None, "displayName": 7, "additionalData": {"vulnerabilityDetails": None}}
    scan = only(read(sub_assessment("CVE-1"), sub_assessment("CVE-2", **nameless)))
    assert verdict(scan) == ("incomplete", SCANNED, 1)


@pytest.mark.parametrize("when", [ABSENT, None, "", "yesterday", 7, "0001-01-01T00:00:00", "2026-11-24T00:00:00Z", {}])
def test_a_time_that_cannot_be_is_none(read, when):
    assert only(read(sub_assessment(timeGenerated=when))).scanned_at is None


@pytest.mark.parametrize("when", ["2026-11-20T06:12:44", "2026-11-20T07:12:44+01:00", "2026-11-20T06:12:44.077Z"])
def test_times_are_in_utc(read, when):
    assert only(read(sub_assessment(timeGenerated=when))).scanned_at == SCANNED


def test_the_time_of_a_scan_is_the_latest_of_its_rows(read):
    early = sub_assessment("CVE-1", timeGenerated="2026-10-01T00:00:00Z")
    assert only(read(early, sub_assessment("CVE-2"), image_assessment("Unhealthy"))).scanned_at == SCANNED
    dates = {"statusChangeDate": None, "firstEvaluationDate": "2026-10-02T04:00:01Z"}
    assert only(read(image_assessment(status=dates))).scanned_at == datetime(2026, 10, 2, 4, 0, 1, tzinfo=UTC)


# -- images that cannot be told


def test_without_a_digest_the_tags_are_who_it_is(read):
    scan = only(read(sub_assessment(additionalData={"artifactDetails": {"digest": "sha256:1"}}, resourceDetails=None)))
    assert (scan.repository, scan.digest, scan.tags) == ("shop/web", "", ("1.4.2",))


@pytest.mark.parametrize(
    "row",
    [
        sub_assessment(resourceDetails=None, additionalData={"artifactDetails": None}),
        sub_assessment(resourceDetails=7, additionalData={"artifactDetails": {"digest": 7, "tags": [7]}}),
        package_assessment("CVE-2026-1", resourceDetails={"Id": "/x"}, resourceAdditionalData="{"),
    ],
)
def test_vulnerabilities_of_an_unknown_image_are_a_gap(read, row):
    scans = read(row, sub_assessment(repository="shop/api"))
    [gap] = scans.gaps
    assert (gap.what, gap.reason) == ("defender", "bad_data")
    assert "without saying in which image" in gap.detail
    assert [verdict(scan) for scan in scans.scans] == [("incomplete", SCANNED, 1)]


def test_what_a_registry_as_a_whole_is_called_is_about_no_image(read):
    registry = {"resourceDetails": {"Id": "/registries/acr"}, "resourceAdditionalData": None, "key": REGISTRY_KEY}
    scans = read(image_assessment("Unhealthy", **registry), image_assessment("Healthy", **registry))
    assert (scans.asked, scans.scans, scans.gaps) == (["defender"], [], [])


# -- hostile rows

HOSTILE = [None, 7, True, "x", [], {}, ["x"], [{}], "x" * 100_000, "\udc00\u202e\n", {"code": []}, "[" * 20_000]


def places(value, *path):
    """Every place inside an object."""
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from places(inner, *path, key)


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("make", [sub_assessment, qualys_sub_assessment, package_assessment])
def test_nothing_in_a_row_is_trusted_and_nothing_odd_makes_an_image_clean(serve, make, value):
    arm, asker = serve(quota=10**6)
    whole = make("CVE-2026-1")
    for path in places(whole["properties"]):
        broken = json.loads(json.dumps(whole))
        home = broken["properties"]
        for key in path[:-1]:
            home = home[key]
        home[path[-1]] = value
        arm.estate.subscriptions[PROD].security = [broken]
        scans = asker.read()
        recognised = path[:2] in _RECOGNISED or path[:1] in _RECOGNISED
        found = scans.gaps or [s for s in scans.scans if s.unfinished or s.vulnerabilities]
        assert found or (recognised and scans == images.Scans()), path
        assert len(msgspec.json.encode(scans)) < 10_000, path
        assert all(s.digest in ("", WEB, digest("shop/old")) for s in scans.scans), path


# Without these, a row is not known to be about an image at all.
_RECOGNISED = (
    ("metadata",),
    ("metadata", "recommendationCategory"),
    ("resourceDetails",),
    ("resourceDetails", "ResourceType"),
)


def test_ids_are_not_trusted_either(serve):
    arm, asker = serve(quota=10**6)
    key = f"/providers/Microsoft.Security/assessments/{IMAGE_KEY}"
    for id in (f"{key}", f"\u202e{key}/x", f"{'x' * 100_000}{key}"):
        arm.estate.subscriptions[PROD].security = [sub_assessment() | {"id": id, "subscriptionId": ["x"]}]
        scan = only(asker.read())
        assert (scan.account, len(scan.vulnerabilities)) == (None, 1)


def test_texts_are_bounded_and_fit_to_show(read):
    long = {"packageName": "p" * 10**6, "version": "v" * 10**6, "fixedVersion": "f\u202e" * 10**5}
    data = {"softwareDetails": long, "vulnerabilityDetails": {"cveId": "C" * 10**6}}
    [found] = only(read(sub_assessment(additionalData=data))).vulnerabilities
    assert [len(text) for text in (found.id, found.package, found.installed, found.fixed)] == [100, 200, 100, 100]
    assert found.fixed.isprintable()


# -- pages and failures


def many(count, repository="shop/web"):
    return [sub_assessment(f"CVE-2026-{number:04d}", repository=repository) for number in range(count)]


def test_every_page_is_read(serve):
    arm, asker = serve(*many(5), graph_rows=2)
    assert len(only(asker.read()).vulnerabilities) == 5
    asked = graph_requests(arm)
    assert [("$skipToken" in request["options"]) for request in asked] == [False, True, True, False]
    assert {request["options"]["$top"] for request in asked} == {1000}
    assert asker.counted == [2, 4, 5, 5]


def test_the_scanned_subscriptions_are_asked_about_and_no_other(serve, monkeypatch):
    arm, asker = serve(sub_assessment(), dev=[sub_assessment(subscription=DEV, repository="shop/api")])
    assert [scan.account for scan in asker.read(DEV).scans] == [DEV]
    monkeypatch.setattr(images, "BATCH", 1)
    arm.requests.clear()
    assert [scan.account for scan in asker.read(DEV, PROD, DEV).scans] == [DEV, PROD]
    assert [request["subscriptions"] for request in graph_requests(arm)] == [[PROD], [DEV]] * 2


def test_pages_that_are_too_large_are_asked_for_anew_in_smaller_ones(serve):
    arm, asker = serve(*many(40), graph_bytes=20_000)
    assert len(only(asker.read()).vulnerabilities) == 40
    assert [request["options"]["$top"] for request in graph_requests(arm)][:5] == [1000, 250, 62, 15, 15]


def test_one_row_that_is_too_large_is_a_gap(serve):
    scans = serve(sub_assessment(), graph_bytes=500)[1].read()
    [gap] = scans.gaps
    assert "ResponsePayloadTooLarge" in gap.detail
    assert (scans.asked, scans.scans) == (["defender"], [])


def test_a_quota_that_is_used_up_is_waited_for(serve, monkeypatch):
    monkeypatch.setattr(session, "LONGEST_WAIT", 5)
    arm, asker = serve(*many(3), graph_rows=1, quota=2, quota_seconds=1)
    started = time.monotonic()
    assert len(only(asker.read()).vulnerabilities) == 3
    assert len(graph_requests(arm)) == 4  # none was refused
    assert 1 <= time.monotonic() - started < 5


def test_a_refusal_for_the_quota_is_waited_for(serve, monkeypatch):
    """As somebody else may use it up, whose answers are not seen."""
    monkeypatch.setattr(session, "LONGEST_WAIT", 5)
    arm, asker = serve(sub_assessment(), quota=1, quota_seconds=2)
    arm.query()
    assert len(only(asker.read()).vulnerabilities) == 1
    assert len(graph_requests(arm)) == 3


def test_a_quota_that_resets_late_is_not_waited_for_long(serve):
    _, asker = serve(*many(3), graph_rows=1, quota=2, quota_seconds=50)
    started = time.monotonic()
    scans = asker.read()
    assert time.monotonic() - started < 5
    assert [gap.reason for gap in scans.gaps] == ["throttled"]
    assert [scan.unfinished for scan in scans.scans] == ["incomplete"]


@pytest.mark.parametrize("left", [{}, {"x-ms-user-quota-remaining": "0"}, {"x-ms-user-quota-resets-after": "00:00:09"}])
@pytest.mark.parametrize("after", ["", "soon", "1", "00:00:-1", "0:0:0:9"])
def test_headers_that_say_nothing_are_not_waited_for(left, after):
    assert session._quota_wait({"x-ms-user-quota-resets-after": after, **left} if after else left) == 0
    given = {"x-ms-user-quota-remaining": "0", "x-ms-user-quota-resets-after": "01:02:03"}
    assert session._quota_wait(given) == 3723


def test_what_came_before_a_failure_stays_but_finishes_nothing(serve):
    arm, asker = serve(*many(4), image_assessment("Healthy", "shop/api"), graph_rows=2)
    arm.inject(GRAPH, status(500), times=4, after=1)
    scans = asker.read()
    assert [gap.reason for gap in scans.gaps] == ["server_error"]
    assert [(s.repository, verdict(s)) for s in scans.scans] == [
        ("shop/api", ("incomplete", CHANGED, 0)),
        ("shop/web", ("incomplete", SCANNED, 2)),
    ]


READ = "Microsoft.Security/assessments/read"


@pytest.mark.parametrize(
    ("fault", "reason", "permission"),
    [
        (status(403), "forbidden", READ),
        (status(404), "not_found", READ),
        (status(400, "BadRequest"), "bad_data", ""),
        (body(b'{"error":{"details":[{"code":"NoValidSubscriptionsInQueryRequest"}]}}', code=400), "forbidden", READ),
        (body(b'{"error":{"details":["x"]}}', code=400), "bad_data", ""),
        (status(429, retry_after=0.01), "throttled", ""),
        (status(503), "server_error", ""),
        (hang(), "timeout", ""),
        (reset(), "unreachable", ""),
        (body(b""), "bad_data", ""),
        (body(b"[]"), "bad_data", ""),
        (body(b"{}"), "bad_data", ""),
        (body(b'{"data":[]}'), "bad_data", ""),
        (body(json.dumps(rows(data={"columns": [], "rows": []})).encode()), "bad_data", ""),
        (body(json.dumps(rows(totalRecords="0")).encode()), "bad_data", ""),
        (body(json.dumps(rows(totalRecords=1)).encode()), "bad_data", ""),
        (body(json.dumps(rows(resultTruncated="true")).encode()), "bad_data", ""),
        (body(json.dumps(rows(resultTruncated=True)).encode()), "bad_data", ""),
        (body(json.dumps(rows(resultTruncated=None)).encode()), "bad_data", ""),
        (body(json.dumps(rows(7, "x", None)).encode()), "bad_data", ""),
        (body(json.dumps(rows(**{"$skipToken": "again"})).encode()), "bad_data", ""),
        (body(json.dumps(rows(**{"$skipToken": 7})).encode()), "bad_data", ""),
    ],
)
@pytest.mark.parametrize("after", [0, 1])
def test_what_is_no_answer_is_a_gap(serve, fault, reason, permission, after):
    """Of either of the two queries."""
    arm, asker = serve(sub_assessment(), image_assessment("Healthy", "shop/api"), timeout=1)
    arm.inject(GRAPH, fault, after=after)
    scans = asker.read()
    assert [(gap.what, gap.reason, gap.permission) for gap in scans.gaps] == [("defender", reason, permission)]
    assert scans.gaps[0].detail
    assert scans.asked == ["defender"]
    assert [scan.unfinished for scan in scans.scans] == ["incomplete"] * after


def test_who_may_ask_about_no_subscription_is_refused(serve):
    _, asker = serve(sub_assessment())
    scans = asker.read(guid("elsewhere"))
    refused, unproven = scans.gaps
    assert (refused.reason, refused.permission) == ("forbidden", READ)
    assert "at least one subscription" in refused.detail
    assert (unproven.reason, unproven.permission) == ("not_found", "Microsoft.Authorization/permissions/read")


def test_a_refusal_names_the_right_that_azure_names(serve):
    arm, asker = serve(sub_assessment())
    arm.deny(session.GRAPH)
    [gap] = asker.read().gaps
    assert (gap.reason, gap.permission) == ("forbidden", "Microsoft.ResourceGraph/resources/read")


def test_a_subscription_that_is_not_seen_is_a_gap_beside_others(serve):
    """Resource Graph passes over it in silence."""
    _, asker = serve(sub_assessment())
    scans = asker.read(PROD, guid("elsewhere"))
    [gap] = scans.gaps
    assert guid("elsewhere") in gap.detail
    assert [scan.unfinished for scan in scans.scans] == [""]


def test_without_rows_nobody_was_asked(serve):
    arm, asker = serve()
    assert asker.read() == images.Scans()
    arm.inject(GRAPH, empty())
    assert asker.read() == images.Scans()


@pytest.mark.parametrize("rows", [[], [image_assessment("Healthy")]])
def test_rows_that_the_identity_may_not_see_are_a_gap(serve, rows):
    """Resource Graph leaves them out and does not say so."""
    _, asker = serve(*rows, permissions=[permission("*/read", without=(SUB_ASSESSMENTS,))])
    scans = asker.read()
    [gap] = scans.gaps
    assert (scans.asked, gap.what, gap.reason, gap.permission) == (
        ["defender"],
        "defender",
        "forbidden",
        SUB_ASSESSMENTS,
    )
    assert PROD in gap.detail


def test_who_may_not_ask_what_may_be_seen_has_a_gap(serve):
    arm, asker = serve(sub_assessment())
    arm.deny("/permissions")
    [gap] = asker.read().gaps
    assert (gap.reason, gap.permission) == ("forbidden", "Microsoft.Authorization/permissions/read")


def test_gaps_of_many_subscriptions_are_one(serve):
    arm, asker = serve(permissions=[])
    names = [PROD, *(guid("elsewhere", number) for number in range(5))]
    arm.inject("/permissions$", body(b'{"value":[]}'))
    gaps = asker.read(*names).gaps
    assert {(gap.reason, gap.permission) for gap in gaps} == {("forbidden", action) for action in images.ACTIONS}
    assert all("and 4 more" in gap.detail for gap in gaps)


def test_many_images_are_kept_small(serve):
    """Nothing of the answers is kept but what is told of them."""
    arm, asker = serve(*many(1000), *many(1000, "shop/api"))
    tracemalloc.start()
    scans = asker.read()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(scan.vulnerabilities) for scan in scans.scans] == [1000, 1000]
    del arm.requests[:]
    assert kept < 3_000_000


# -- the task


def tasks(asker, *subscriptions, needs_scans=True):
    chosen = settings(checks.load(), Config(), Selection())
    asked = Asked(chosen, Discovery(), Namespaces(), Running())
    cloud = Cloud(aks.PROVIDER, "managedClusters", (), asked)
    return aks._Azure(AzureScope(list(subscriptions)), cloud, asker.session, needs_scans).task()


def estates(*tasks):
    return [reading.estate for reading in collect.run(tasks, 2, lambda *_: None)]


def test_defender_is_a_task_of_its_own(serve):
    arm, asker = serve(sub_assessment(), dev=[sub_assessment(subscription=DEV, repository="shop/api")])
    found = [estate for estate in estates(tasks(asker)) if not estate.account]
    [defender] = found
    assert (defender.name, defender.cluster, defender.inventory.gaps) == (images.NAME, None, [])
    assert (defender.scans.asked, len(defender.scans.scans)) == (["defender"], 2)
    assert {scan.account for scan in defender.scans.scans} == {PROD, DEV}
    permissions = [r.path for r in arm.requests if r.path.endswith("/permissions")]
    assert len(permissions) <= 4


def test_only_named_subscriptions_are_asked_about(serve):
    arm, asker = serve(sub_assessment(), dev=[sub_assessment(subscription=DEV, repository="shop/api")])
    [defender] = [estate for estate in estates(tasks(asker, "development")) if not estate.account]
    assert [scan.account for scan in defender.scans.scans] == [DEV]
    assert {tuple(request["subscriptions"]) for request in graph_requests(arm)} == {(DEV,)}


def test_defender_is_asked_only_where_a_check_needs_it(serve):
    arm, asker = serve(sub_assessment())
    assert not [estate for estate in estates(tasks(asker, needs_scans=False)) if not estate.account]
    assert graph_requests(arm) == []


def test_defender_that_has_nothing_to_say_is_not_in_the_report(serve):
    arm, asker = serve()
    assert not [estate for estate in estates(tasks(asker)) if not estate.account]
    assert len(graph_requests(arm)) == 2


def test_defender_unread_is_in_the_report(serve):
    _, asker = serve()
    azure = tasks(asker)
    [defender] = [task for task in azure.read(lambda *_: None) if getattr(task, "name", "") == images.NAME]
    reading = defender.unread("timeout", "interrupted")
    assert reading.estate.name == images.NAME
    assert reading.estate.scans.asked == ["defender"]
    assert [(gap.what, gap.reason, gap.detail) for gap in reading.estate.scans.gaps] == [
        ("defender", "timeout", "interrupted")
    ]


# -- the command


def registry_findings(report):
    found = [f for f in json.loads(report)["findings"] if f["check"] == "azure-registry-image-vulns"]
    return {(f["resource"]["name"].partition("@")[0], f["status"], f["reason"], f["account"]) for f in found}


def test_a_bundle_holds_what_defender_said(serve, tmp_path):
    now = datetime.now(UTC).isoformat()
    clean = image_assessment("Healthy", "shop/api", status={"statusChangeDate": now})
    arm, _ = serve(sub_assessment(timeGenerated=now), clean, image_assessment("Healthy", "shop/old"))
    arm.estate.subscriptions[PROD].security[2]["properties"]["status"] = {
        "code": "Healthy",
        "firstEvaluationDate": "2024-01-01T00:00:00Z",
    }
    bundle, options = tmp_path / "azure.bundle", ("--arm-endpoint", arm.url, "--subscription", PROD)
    kubeposture("collect", "aks", *options, "-o", bundle)
    arm.requests.clear()
    report = ("--status", "all", "-o", "json", "-c", "azure-registry-image-vulns")
    direct = kubeposture("scan", "aks", *options, *report)
    assert registry_findings(direct.stdout) == {
        ("acrproduction.azurecr.io/shop/web", "fail", "vulnerable", PROD),
        ("acrproduction.azurecr.io/shop/api", "pass", "", PROD),
        ("acrproduction.azurecr.io/shop/old", "unknown", "stale_scan", PROD),
    }
    assert registry_findings(kubeposture("evaluate", bundle, *report).stdout) == registry_findings(direct.stdout)


def test_another_resource_manager_is_asked_for_its_graph(serve, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arm, _ = serve(sub_assessment())
    monkeypatch.setenv("KUBEPOSTURE_ARM_ENDPOINT", arm.url)
    found = kubeposture("scan", "aks", "-o", "json", "-c", "azure-registry-image-vulns")
    assert {name for name, *_ in registry_findings(found.stdout)} >= {"acrproduction.azurecr.io/shop/web"}
    assert len(graph_requests(arm)) == 2
