"""What ECR and Inspector say of images, read from a local AWS."""

import json
import os
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone

import boto3
import pytest
from apiserver import ApiServer, tls
from aws_data import (
    ABSENT,
    DEV,
    DOCKER,
    OCI,
    PROD,
    SCANNED,
    SEOUL,
    Account,
    Estate,
    Region,
    basic_finding,
    basic_scan,
    coverage,
    digest,
    eks,
    image,
    index,
    index_manifest,
    inspector_finding,
    inspector_status,
    repository,
    unscanned,
    vulnerable_package,
)
from awsserver import SCP, AwsServer, _wire, body, empty, reset, status, throttle
from botocore.retries.standard import ExponentialBackoff
from cli import kubeposture
from scans import Scan
from support import container, pod

from providers.aws.images import OS_ONLY
from providers.aws.reader import Reader
from providers.aws.session import AwsAccount, session
from scanner.vulnerabilities import SOURCES, Level, Platform, Vulnerability

HOST = f"{PROD}.dkr.ecr.{SEOUL}.amazonaws.com"
REGISTRY, RUNNING = "aws-registry-image-vulns", "aws-running-image-vulns"
AZURE, GOOGLE = "Microsoft.ContainerRegistry/registry/containerImage", "artifactregistry.googleapis.com/DockerImage"
REGISTRIES = "/subscriptions/s/resourcegroups/g/providers/microsoft.containerregistry/registries"
LOCATIONS = "//artifactregistry.googleapis.com/projects/p/locations"
OPENSSL = Vulnerability(id="CVE-2026-1001", level=Level.HIGH, package="openssl", installed="3.0.2-0ubuntu1", cvss=7.5)
INSPECTED = Vulnerability(
    id="CVE-2026-1001",
    level=Level.HIGH,
    package="openssl",
    installed="1:1.1.1k-9.el8",
    fixed="1:1.1.1k-12.el8",
    cvss=7.5,
)
ACTIONS_OF_ECR = {
    "ecr:DescribeRepositories",
    "ecr:DescribeImages",
    "ecr:BatchGetImage",
    "ecr:DescribeImageScanFindings",
    "inspector2:BatchGetAccountStatus",
}
ACTIONS_OF_INSPECTOR = ACTIONS_OF_ECR - {"ecr:DescribeImageScanFindings"} | {
    "inspector2:ListCoverage",
    "inspector2:ListFindings",
}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for name in tuple(os.environ):
        if name.startswith(("AWS_", "BOTO", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


@pytest.fixture
def serve(monkeypatch):
    """Starts an AWS whose one region has these images by repository."""
    started = []

    def start(images=None, *, inspector=False, **options):
        region = Region(SEOUL, PROD, inspector=inspector_status(PROD, off=() if inspector else ("ecr",)))
        for name, each in (images or {}).items():
            region.add_repository(repository(name))
            region.images[name] = [{**item, "repositoryName": name} for item in each]
        aws = AwsServer(Estate.of(Account(PROD, "Production", regions={SEOUL: region})), moto=False, **options)
        started.append(aws.__enter__())
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)
        return aws, region

    yield start
    for aws in started:
        aws.__exit__()


def account_of(timeout=5.0):
    account = AwsAccount(session(None), request_timeout=timeout, connections=2)
    account.id = PROD
    return account


def read(kinds=(), reader=None, timeout=5.0):
    *_, region = (reader or Reader(kinds, scans=True)).read(account_of(timeout), SEOUL)
    assert not region.gaps
    return region.scans


def by_tag(scans):
    return {scan.tags[0] if scan.tags else scan.digest: scan for scan in scans.scans}


def asked(aws, action):
    return [r.parameters for r in aws.requests if r.action == action]


# -- basic scanning


def test_each_image_says_what_it_is_and_what_was_found(serve):
    _, region = serve({"shop/web": [image("clean"), unscanned("bad")]})
    region.image_scans[digest("bad")] = basic_scan(
        basic_finding(),
        basic_finding(severity="LOW"),
        basic_finding("CVE-2026-1002", "zlib", "INFORMATIONAL", CVSS3_SCORE="x", CVSS2_SCORE="2.1"),
        basic_finding("CVE-2026-1003", "curl", "UNDEFINED", CVSS3_SCORE="9.1"),
    )
    scans = read()
    assert (scans.asked, scans.gaps, scans.listed, scans.indexes) == (["ecr"], [], True, {})
    clean, bad = scans.scans
    for scan, name in ((clean, "clean"), (bad, "bad")):
        assert (scan.registry, scan.repository, scan.digest) == (HOST, "shop/web", digest(name))
        assert (scan.source, scan.tags, scan.account, scan.region) == ("ecr", (name,), PROD, SEOUL)
        assert (scan.platform, scan.unfinished, scan.scanned_at, scan.detail) == (None, "", SCANNED, OS_ONLY)
    assert clean.vulnerabilities == []
    first, second, third = bad.vulnerabilities
    assert first == OPENSSL
    assert (second.level, second.cvss, second.package, second.fixed) == (Level.NEGLIGIBLE, 2.1, "zlib", "")
    assert (third.level, third.cvss) == (Level.CRITICAL, 9.1)


def test_only_what_the_list_does_not_settle_is_asked_about(serve):
    counted = {"imageScanFindingsSummary": {"findingSeverityCounts": {"HIGH": 1}}}
    without = {"imageScanFindingsSummary": {"findingSeverityCounts": ABSENT}}
    null = {"imageScanFindingsSummary": {"findingSeverityCounts": {"HIGH": None}}}
    timeless = {"imageScanFindingsSummary": {"imageScanCompletedAt": ABSENT}}
    failed = {"imageScanStatus": {"status": "FAILED"}}
    active = {"imageScanStatus": {"status": "ACTIVE"}}
    aws, region = serve(
        {
            "team/a": [image("clean"), image("failed", **failed), image("counted", **counted)],
            "team/b": [image("without", **without), image("timeless", **timeless), image("active", **active)],
            "team/c": [unscanned("silent"), image("null", **null)],
        }
    )
    wanted = ("counted", "without", "timeless", "active", "silent", "null")
    region.image_scans = {digest(name): basic_scan(basic_finding()) for name in (*wanted, "clean", "failed")}
    scans = by_tag(read())
    found = [one["imageId"]["imageDigest"] for one in asked(aws, "ecr:DescribeImageScanFindings")]
    assert found == [digest(name) for name in wanted]
    assert {name for name, scan in scans.items() if scan.vulnerabilities} == set(wanted)
    assert (scans["failed"].unfinished, scans["clean"].unfinished) == ("failed", "")


def test_one_thousand_images_are_one_call(serve):
    aws, _ = serve({"shop/web": [image(f"v{number}") for number in range(1200)]})
    scans = read()
    assert (len(scans.scans), len(asked(aws, "ecr:DescribeImages"))) == (1200, 2)
    assert scans.listed


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("IN_PROGRESS", "in_progress"),
        ("PENDING", "pending"),
        ("FAILED", "failed"),
        ("UNSUPPORTED_IMAGE", "unsupported_image"),
        ("SCAN_ELIGIBILITY_EXPIRED", "scan_eligibility_expired"),
        ("FINDINGS_UNAVAILABLE", "findings_unavailable"),
        ("LIMIT_EXCEEDED", "limit_exceeded"),
        ("IMAGE_ARCHIVED", "image_archived"),
        ("IMAGE_SIZE_EXCEEDED", "image_size_exceeded"),
        ("Something else", "unknown_state"),
        (["COMPLETE"], "unknown_state"),
        (None, "unknown_state"),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_a_scan_that_did_not_finish_says_why(serve, word, code, listed):
    state = {"status": word, "description": "A reason\u202e."}
    item = image("a", imageScanStatus=state) if listed else unscanned("a")
    _, region = serve({"shop/web": [item]})
    region.image_scans[digest("a")] = {"imageScanStatus": state}
    (scan,) = read().scans
    assert (scan.unfinished, scan.scanned_at, scan.detail) == (code, None, "A reason\\u202e.")


def test_an_image_that_nobody_scanned_is_not_clean(serve):
    serve({"shop/web": [unscanned("a"), unscanned("b", imageTags=ABSENT)]})
    scans = read()
    assert [(s.unfinished, s.scanned_at, s.tags) for s in scans.scans] == [
        ("not_scanned", None, ("a",)),
        ("not_scanned", None, ()),
    ]
    assert scans.gaps == []


def test_complete_without_a_time_is_no_proof(serve):
    """What ECR says of a scan by Inspector that it has not been told of yet."""
    _, region = serve({"shop/web": [unscanned("a")]})
    found = {"imageScanCompletedAt": ABSENT, "findingSeverityCounts": ABSENT}
    region.image_scans[digest("a")] = basic_scan(imageScanFindings=found)
    (scan,) = read().scans
    assert (scan.unfinished, scan.scanned_at) == ("no_scan_time", None)


def test_findings_that_are_counted_and_not_shown_are_no_proof(serve):
    _, region = serve({"shop/web": [unscanned("a")]})
    region.image_scans[digest("a")] = basic_scan(imageScanFindings={"findingSeverityCounts": {"HIGH": 2}})
    scans = read()
    assert (scans.scans[0].unfinished, scans.gaps[0].reason) == ("incomplete", "bad_data")


def test_a_finding_that_is_not_understood_takes_no_other_with_it(serve):
    _, region = serve({"shop/web": [unscanned("a")]}, page_size=2)
    odd = {name: value for name, value in basic_finding().items() if name != "name"}
    region.image_scans[digest("a")] = basic_scan(odd, *(basic_finding(f"CVE-{number}") for number in range(5)))
    scans = read()
    (scan,) = scans.scans
    assert [one.id for one in scan.vulnerabilities] == [f"CVE-{number}" for number in range(5)]
    assert (scan.unfinished, [gap.reason for gap in scans.gaps]) == ("incomplete", ["bad_data"])


def test_all_pages_of_findings_are_read(serve):
    aws, region = serve({"shop/web": [unscanned("a")]}, page_size=2)
    region.image_scans[digest("a")] = basic_scan(*(basic_finding(f"CVE-{number}") for number in range(5)))
    (scan,) = read().scans
    assert [one.id for one in scan.vulnerabilities] == [f"CVE-{number}" for number in range(5)]
    assert len(asked(aws, "ecr:DescribeImageScanFindings")) == 3


def test_what_came_before_a_page_that_failed_stays_and_proves_nothing_else(serve):
    aws, region = serve({"shop/web": [unscanned("a"), unscanned("b")]}, page_size=2)
    region.image_scans[digest("a")] = basic_scan(*(basic_finding(f"CVE-{number}") for number in range(5)))
    region.image_scans[digest("b")] = basic_scan(basic_finding())
    aws.inject("DescribeImageScanFindings", status(400, "InvalidParameterException"), after=1, times=1)
    scans = read()
    first, second = scans.scans
    assert ([one.id for one in first.vulnerabilities], first.unfinished) == (["CVE-0", "CVE-1"], "incomplete")
    assert (second.vulnerabilities, second.unfinished) == ([OPENSSL], "")
    assert [(gap.what, gap.reason) for gap in scans.gaps] == [("ecr", "bad_data")]


def test_without_inspectors_status_ecr_is_asked_which_shows_its_findings(serve):
    aws, region = serve({"shop/web": [unscanned("a"), unscanned("b")]}, inspector=True)
    closed = inspector_finding("CVE-2", "a", status="CLOSED")
    region.image_scans[digest("a")] = {
        "imageScanStatus": {"status": "ACTIVE", "description": "Continuous scan is selected for image."},
        "imageScanFindings": {
            "imageScanCompletedAt": SCANNED,
            "enhancedFindings": [inspector_finding("CVE-2026-1001", "a"), closed],
            "findingSeverityCounts": {"HIGH": 1},
        },
    }
    region.image_scans[digest("b")] = {
        "imageScanStatus": {"status": "ACTIVE"},
        "imageScanFindings": {"findings": []},
    }
    aws.deny("inspector2:*")
    scans = read()
    first, second = scans.scans
    assert (first.vulnerabilities, first.unfinished, first.detail) == ([INSPECTED], "", "")
    assert (second.vulnerabilities, second.unfinished) == ([], "no_scan_time")
    assert scans.asked == ["ecr", "inspector"]
    assert [(gap.what, gap.permission) for gap in scans.gaps] == [("inspector", "inspector2:BatchGetAccountStatus")]


# -- indexes


def test_an_index_is_no_image_and_gives_its_tags_to_those_in_it(serve):
    names = (("amd", "linux/amd64"), ("arm", "linux/arm64/v8"))
    attestation = {
        "digest": digest("attestation"),
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    aws, region = serve(
        {
            "shop/web": [
                index("1.0", imageTags=["1.0", "latest"]),
                index("listed", media=f"{DOCKER}.distribution.manifest.list.v2+json"),
                image("amd", imageTags=ABSENT),
                image("arm", imageTags=["own"]),
                unscanned("attestation", imageTags=ABSENT),
                unscanned("orphan", imageTags=ABSENT),
            ]
        }
    )
    region.manifests[digest("1.0")] = index_manifest(*names, attestation=attestation)
    region.manifests[digest("listed")] = index_manifest(names[0])
    scans = read()
    assert scans.indexes == {
        digest("1.0"): [Platform(digest("amd"), "linux/amd64"), Platform(digest("arm"), "linux/arm64/v8")],
        digest("listed"): [Platform(digest("amd"), "linux/amd64")],
    }
    assert [(s.digest, s.tags) for s in scans.scans] == [
        (digest("amd"), ("1.0", "latest", "listed")),
        (digest("arm"), ("own", "1.0", "latest")),
        (digest("orphan"), ()),
    ]
    (call,) = asked(aws, "ecr:BatchGetImage")
    assert call["imageIds"] == [{"imageDigest": digest("1.0")}, {"imageDigest": digest("listed")}]
    assert len(call["acceptedMediaTypes"]) == 2
    assert scans.gaps == []


def test_indexes_are_asked_for_by_the_hundred(serve):
    images = [index(f"v{number}") for number in range(250)]
    aws, region = serve({"shop/web": [*images, image("one", imageTags=ABSENT)]})
    region.manifests = {item["imageDigest"]: index_manifest(("one", "linux/amd64")) for item in images}
    scans = read()
    assert [len(call["imageIds"]) for call in asked(aws, "ecr:BatchGetImage")] == [100, 100, 50]
    assert (len(scans.indexes), len(scans.scans), len(scans.scans[0].tags)) == (250, 1, 250)


def test_indexes_may_hold_indexes_even_in_circles(serve):
    _, region = serve({"team/a": [index("outer"), index("inner", imageTags=ABSENT), image("x", imageTags=ABSENT)]})
    region.manifests[digest("outer")] = index_manifest(("inner", ""), ("outer", ""))
    region.manifests[digest("inner")] = index_manifest(("outer", ""), ("x", "linux/amd64"))
    scans = read()
    assert scans.indexes[digest("outer")] == scans.indexes[digest("inner")] == [Platform(digest("x"), "linux/amd64")]
    assert [(s.digest, s.tags) for s in scans.scans] == [(digest("x"), ("outer",))]


def test_an_attestation_that_has_a_tag_or_findings_is_an_image(serve):
    """Whoever can push an index may call an image of others an attestation."""
    nothing = {"platform": {"os": "unknown", "architecture": "unknown"}}
    names = ("tagged", "found", "clean", "run", "gone")
    entries = {name: {"digest": digest(name), **nothing} for name in names}
    rest = {"imageTags": ABSENT}
    aws, region = serve(
        {
            "team/a": [
                *(index("evil"), index("fair")),
                *(unscanned("tagged"), image("found", **rest), image("clean", **rest), unscanned("run", **rest)),
                unscanned("gone", **rest),
            ]
        }
    )
    region.images["team/a"][3]["imageScanFindingsSummary"] = {"findingSeverityCounts": {"HIGH": 1}}
    region.image_scans[digest("found")] = basic_scan(basic_finding())
    region.manifests[digest("evil")] = index_manifest(**entries)
    region.manifests[digest("fair")] = index_manifest(("run", "linux/amd64"))
    scans = read()
    assert [s.digest for s in scans.scans] == [digest(name) for name in names[:-1]]
    assert scans.indexes[digest("evil")] == []
    told = [one["imageId"]["imageDigest"] for one in asked(aws, "ecr:DescribeImageScanFindings")]
    assert told == [digest(name) for name in ("tagged", "found", "run")]


@pytest.mark.parametrize(
    "manifest",
    [
        '{"manifests": [{"digest": "sha512:00", "platform": {"os": "linux", "architecture": "arm64"}}]}',
        *(
            "",
            "{",
            "[]",
            "null",
            '{"manifests": null}',
            '{"manifests": [1]}',
            "[" * 100_000,
            '{"manifests": {"a": 1}}',
            7,
        ),
    ],
)
def test_an_index_that_is_not_understood_is_an_image_of_which_nothing_is_known(serve, manifest):
    _, region = serve({"team/a": [index("odd"), index("even"), image("x", imageTags=ABSENT)]})
    region.manifests = {digest("odd"): manifest, digest("even"): index_manifest(("x", "linux/amd64"))}
    scans = read()
    found = by_tag(scans)
    assert (found["odd"].unfinished, found["odd"].digest) == ("incomplete", digest("odd"))
    assert (found["even"].digest, list(scans.indexes)) == (digest("x"), [digest("even")])
    assert [(gap.what, gap.reason) for gap in scans.gaps] == [("ecr", "bad_data")]
    assert scans.listed


def test_an_index_that_ecr_does_not_give_is_an_image_of_which_nothing_is_known(serve):
    serve({"team/a": [index("lost"), image("x", imageTags=ABSENT)]})
    scans = read()
    assert [(s.unfinished, s.tags) for s in scans.scans] == [("", ()), ("incomplete", ("lost",))]
    assert [gap.reason for gap in scans.gaps] == ["bad_data"]


def test_charts_and_the_like_are_no_images_unless_they_were_scanned(serve):
    chart = {"artifactMediaType": "application/vnd.cncf.helm.config.v1+json"}
    old = {"artifactMediaType": f"{DOCKER}.container.image.v1+json"}
    aws, _ = serve({"team/a": [unscanned("chart", **chart), image("posing", **chart), unscanned("old", **old)]})
    assert list(by_tag(read())) == ["posing", "old"]
    assert len(asked(aws, "ecr:DescribeImageScanFindings")) == 1


# -- Inspector


def with_inspector(serve, **options):
    aws, region = serve(
        {
            "shop/web": [
                index("1.0"),
                *(unscanned(name, imageTags=ABSENT) for name in ("amd", "arm")),
                *(unscanned(name) for name in ("late", "uncovered")),
            ],
            "shop/api": [unscanned("amd", imageTags=["api"])],
        },
        inspector=True,
        **options,
    )
    region.manifests[digest("1.0")] = index_manifest(("amd", "linux/amd64"), ("arm", "linux/arm64"))
    region.inspector_coverage = [
        coverage("amd"),
        coverage("arm"),
        coverage("late", scanStatus={"statusCode": "ACTIVE", "reason": "PENDING_INITIAL_SCAN"}, lastScannedAt=ABSENT),
        coverage("amd", "shop/api"),
        coverage("i-1", resourceType="AWS_EC2_INSTANCE", resourceId="i-0123456789abcdef0"),
        coverage("theirs", account=DEV),
    ]
    suppressed = inspector_finding("CVE-2", "arm", status="SUPPRESSED")
    region.inspector_findings = [
        inspector_finding("CVE-2026-1001", "amd"),
        inspector_finding("CVE-2026-1001", "amd", "shop/api"),
        suppressed,
        inspector_finding("CVE-3", "theirs", account=DEV),
    ]
    return aws, region


def test_inspector_tells_of_all_images_with_two_lists(serve):
    aws, _ = with_inspector(serve)
    scans = read()
    assert (scans.asked, scans.gaps, scans.listed) == (["inspector"], [], True)
    assert list(scans.indexes) == [digest("1.0")]
    found = {(s.repository, s.digest): s for s in scans.scans}
    assert len(found) == len(scans.scans) == 5
    amd, arm = found["shop/web", digest("amd")], found["shop/web", digest("arm")]
    assert (amd.vulnerabilities, amd.unfinished, amd.scanned_at, amd.tags) == ([INSPECTED], "", SCANNED, ("1.0",))
    assert (amd.registry, amd.source, amd.platform, amd.account) == (HOST, "inspector", None, PROD)
    assert (arm.vulnerabilities, arm.unfinished, arm.scanned_at, arm.detail) == ([], "", SCANNED, "")
    assert found["shop/api", digest("amd")].vulnerabilities[0] is amd.vulnerabilities[0]
    late, uncovered = found["shop/web", digest("late")], found["shop/web", digest("uncovered")]
    assert (late.unfinished, late.scanned_at) == ("pending_initial_scan", None)
    assert late.detail == "Inspector says ACTIVE, PENDING_INITIAL_SCAN"
    assert (uncovered.unfinished, uncovered.vulnerabilities) == ("not_scanned", [])
    assert asked(aws, "ecr:DescribeImageScanFindings") == []
    assert (len(asked(aws, "inspector2:ListCoverage")), len(asked(aws, "inspector2:ListFindings"))) == (2, 1)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ({"statusCode": "INACTIVE", "reason": "SUCCESSFUL"}, "inactive"),
        ({"statusCode": "INACTIVE", "reason": "SCAN_ELIGIBILITY_EXPIRED"}, "scan_eligibility_expired"),
        ({"statusCode": "ACTIVE", "reason": "SCAN_FREQUENCY_SCAN_ON_PUSH"}, "scan_frequency_scan_on_push"),
        ({"statusCode": "ACTIVE", "reason": ["SUCCESSFUL"]}, "unknown_state"),
        ({"statusCode": "ACTIVE", "reason": "x" * 1000}, "unknown_state"),
        (None, "unknown_state"),
    ],
)
def test_what_inspector_did_not_finish_proves_nothing(serve, state, code):
    _, region = with_inspector(serve)
    region.inspector_coverage[1]["scanStatus"] = state
    scan = next(s for s in read().scans if s.digest == digest("arm"))
    assert (scan.unfinished, len(scan.detail) <= 300) == (code, True)


def test_a_scan_of_inspector_without_a_time_is_no_proof(serve):
    _, region = with_inspector(serve)
    del region.inspector_coverage[1]["lastScannedAt"]
    assert next(s for s in read().scans if s.digest == digest("arm")).unfinished == "no_scan_time"


def test_of_two_entries_for_an_image_the_one_that_did_not_finish_counts(serve):
    for last in (0, 1):
        _, region = with_inspector(serve)
        pending = coverage("arm", scanStatus={"statusCode": "ACTIVE", "reason": "SCAN_IN_PROGRESS"})
        region.inspector_coverage.insert(last * len(region.inspector_coverage), pending)
        assert next(s for s in read().scans if s.digest == digest("arm")).unfinished == "scan_in_progress"


def test_an_index_that_inspector_covers_is_still_no_image(serve):
    _, region = with_inspector(serve)
    region.inspector_coverage.append(coverage("1.0"))
    assert digest("1.0") not in [scan.digest for scan in read().scans]


def test_what_inspector_knows_and_ecr_does_not_list_is_told_too(serve):
    _, region = with_inspector(serve)
    region.inspector_coverage.append(
        coverage("gone", scanStatus={"statusCode": "INACTIVE", "reason": "IMAGE_ARCHIVED"})
    )
    region.inspector_findings += [inspector_finding("CVE-4", "gone"), inspector_finding("CVE-4", "nobody-covers")]
    found = {s.digest: s for s in read().scans}
    gone, other = found[digest("gone")], found[digest("nobody-covers")]
    assert (gone.unfinished, gone.tags, gone.vulnerabilities[0].id) == ("image_archived", ("gone",), "CVE-4")
    assert (other.unfinished, other.tags, other.vulnerabilities[0].id) == ("not_scanned", None, "CVE-4")


def test_each_package_is_one_vulnerability_as_it_is_rated_worst(serve):
    _, region = with_inspector(serve)
    twice = (vulnerable_package("log4j", filePath="/a"), vulnerable_package("log4j", filePath="/b"))
    bare = vulnerable_package("go", epoch=0, release=ABSENT, fixedInVersion="NotAvailable")
    region.inspector_findings = [
        inspector_finding("CVE-1", "arm", "shop/web", *twice, bare, severity="LOW"),
        inspector_finding("CVE-1", "arm", "shop/web", *twice, severity="CRITICAL"),
        inspector_finding("CVE-5", "arm", severity="UNTRIAGED", packageVulnerabilityDetails={"vulnerablePackages": []}),
    ]
    scan = next(s for s in read().scans if s.digest == digest("arm"))
    assert [(v.id, v.package, v.installed, v.fixed, v.level) for v in scan.vulnerabilities] == [
        ("CVE-1", "log4j", "1:1.1.1k-9.el8", "1:1.1.1k-12.el8", Level.CRITICAL),
        ("CVE-1", "go", "1.1.1k", "", Level.LOW),
        ("CVE-5", "", "", "", Level.HIGH),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda finding: finding.pop("resources"),
        lambda finding: finding.update(resources=[]),
        lambda finding: finding.update(resources=[None]),
        lambda finding: finding["resources"][0].update(id="arn:aws:s3:::x", details={}),
        lambda finding: finding["resources"][0].update(
            id=7, details={"awsEcrContainerImage": {"imageHash": "sha256:1"}}
        ),
        lambda finding: finding["resources"][0].update(type="AWS_ECR_REPOSITORY"),
    ],
)
def test_a_finding_that_names_no_image_may_be_of_any(serve, change):
    aws, _ = with_inspector(serve)
    odd = inspector_finding("CVE-9", "arm")
    change(odd)
    aws.inject("ListFindings", page_of(odd, inspector_finding("CVE-2026-1001", "amd")))
    scans = read()
    assert [gap.reason for gap in scans.gaps] == ["bad_data"]
    assert not [s for s in scans.scans if not s.unfinished]
    assert next(s for s in scans.scans if s.digest == digest("amd")).vulnerabilities == [INSPECTED]


def test_a_finding_without_an_id_leaves_its_image_unfinished_and_no_other(serve):
    aws, _ = with_inspector(serve)
    odd = inspector_finding("CVE-9", "arm", packageVulnerabilityDetails={"vulnerabilityId": ABSENT})
    aws.inject("ListFindings", page_of(odd, inspector_finding("CVE-1", "amd")))
    scans = read()
    found = {s.digest: s for s in scans.scans if s.repository == "shop/web"}
    assert (found[digest("arm")].unfinished, found[digest("amd")].unfinished) == ("incomplete", "")
    assert [gap.reason for gap in scans.gaps] == ["bad_data"]


def test_an_image_that_its_id_does_not_name_is_known_by_its_details(serve):
    aws, _ = with_inspector(serve)
    odd = inspector_finding("CVE-9", "arm")
    odd["resources"][0]["id"] = "something new"
    aws.inject("ListFindings", page_of(odd))
    scans = read()
    assert scans.gaps == []
    assert next(s for s in scans.scans if s.digest == digest("arm")).vulnerabilities[0].id == "CVE-9"


def page_of(*findings):
    """A page of ListFindings, whatever is in the findings."""
    return body(_wire("inspector2").encode("ListFindings", {"findings": list(findings)}))


def test_what_came_before_a_page_of_findings_that_failed_stays(serve):
    aws, region = with_inspector(serve, page_size=1)
    region.inspector_findings += [inspector_finding("CVE-7", "arm")]
    aws.inject("ListFindings", status(400, "ValidationException"), after=1)
    scans = read()
    found = {(s.repository, s.digest): s for s in scans.scans}
    assert found["shop/web", digest("amd")].vulnerabilities == [INSPECTED]
    assert not [s for s in scans.scans if not s.unfinished]
    assert found["shop/web", digest("late")].unfinished == "pending_initial_scan"
    assert [(gap.what, gap.reason) for gap in scans.gaps] == [("inspector", "bad_data")]


def test_coverage_that_was_read_before_a_page_that_failed_counts(serve):
    aws, _ = with_inspector(serve, page_size=1)
    aws.inject("ListCoverage", status(400, "ValidationException"), after=1)
    scans = read()
    found = {(s.repository, s.digest): s for s in scans.scans}
    assert found["shop/web", digest("amd")].unfinished == ""
    assert found["shop/web", digest("arm")].unfinished == "incomplete"
    assert found["shop/api", digest("amd")].vulnerabilities == [INSPECTED]
    assert "inspector" in [gap.what for gap in scans.gaps]


def elsewhere(kind, id, *findings, **more):
    covered = coverage("x", resourceType=kind, resourceId=id, resourceMetadata=ABSENT, **more)
    found = inspector_finding("CVE-8", "x")
    found["resources"] = [{"type": kind, "id": id, "details": {"image": {"imageDigest": digest("x")}}}]
    return covered, found


@pytest.mark.parametrize(
    ("kind", "id", "partition", "registry", "path"),
    [
        (AZURE, f"{REGISTRIES}/Acme/repositories/a/b/images/{{}}", "AzureCloud", "acme.azurecr.io", "a/b"),
        (AZURE, f"{REGISTRIES}/acme/repositories/a/image/{{}}", "AzureChinaCloud", "acme.azurecr.cn", "a"),
        (GOOGLE, f"{LOCATIONS}/us/repositories/r/dockerImages/a%2Fb@{{}}", None, "us-docker.pkg.dev", "p/r/a/b"),
        (GOOGLE, "projects/p/locations/x-1/repositories/r/dockerImages/a@{}", None, "x-1-docker.pkg.dev", "p/r/a"),
    ],
)
def test_images_of_other_clouds_that_inspector_covers(serve, kind, id, partition, registry, path):
    _, region = with_inspector(serve)
    place = {"provider": "OTHER", "providerAccountId": "p", "providerRegion": "r", "providerPartition": partition}
    covered, found = elsewhere(kind, id.format(digest("x")), **place)
    if partition:
        found["resources"][0]["partition"] = partition
    region.inspector_coverage.append(covered)
    region.inspector_findings.append(found)
    scans = read()
    (scan,) = (s for s in scans.scans if s.digest == digest("x"))
    assert (scan.registry, scan.repository, scan.account, scan.region) == (registry, path, "p", "r")
    assert (scan.unfinished, scan.scanned_at, scan.tags) == ("", SCANNED, None)
    assert [one.id for one in scan.vulnerabilities] == ["CVE-8"]
    assert scans.gaps == []


def test_a_region_whose_inspector_knows_no_other_clouds_has_no_gap(serve):
    aws, _ = with_inspector(serve)
    aws.inject("ListCoverage", status(400, "ValidationException"), after=1)
    assert read().gaps == []


# -- what cannot be read


def everything(serve, *, inspector):
    """One image of each kind: clean, bad, in an index."""
    found = {"imageScanFindingsSummary": {"findingSeverityCounts": {"HIGH": 1}}}
    aws, region = serve(
        {
            "team/a": [index("1.0"), image("clean"), image("inside", imageTags=ABSENT)],
            "team/b": [image("bad", **found)],
        },
        inspector=inspector,
    )
    region.manifests[digest("1.0")] = index_manifest(("inside", "linux/amd64"))
    region.image_scans[digest("bad")] = basic_scan(basic_finding())
    region.inspector_coverage = [coverage("clean", "team/a"), coverage("inside", "team/a"), coverage("bad", "team/b")]
    region.inspector_findings = [inspector_finding("CVE-2026-1001", "bad", "team/b")]
    return aws


def verdicts(scans):
    """What the scans prove of each image: bad, clean, or nothing."""
    return {
        scan.digest: "bad" if scan.vulnerabilities else "nothing" if scan.unfinished else "clean"
        for scan in scans.scans
    }


@pytest.mark.parametrize("inspector", [False, True])
def test_what_is_denied_names_the_right_and_makes_nothing_clean(serve, inspector):
    aws = everything(serve, inspector=inspector)
    clean = verdicts(read())
    assert sorted(clean.values()) == ["bad", "clean", "clean"]
    actions = {r.action for r in aws.requests if r.service != "eks"}
    assert actions == (ACTIONS_OF_INSPECTOR if inspector else ACTIONS_OF_ECR)
    for action in sorted(actions):
        for fault in (lambda name: aws.deny(name), lambda name: aws.inject(f"^{name}$", throttle())):
            aws.heal()
            fault(action)
            scans = read()
            now = verdicts(scans)
            assert scans.gaps, action
            assert {gap.what for gap in scans.gaps} <= set(SOURCES) & set(scans.asked)
            if aws._denials:
                assert action in [gap.permission for gap in scans.gaps]
            for name, verdict in now.items():
                assert verdict in (clean.get(name), "nothing") or (verdict, inspector) == ("bad", True), action
            lists = action in ("ecr:DescribeRepositories", "ecr:DescribeImages")
            assert scans.listed is not lists
            if not lists:
                assert set(now) >= set(clean)


@pytest.mark.parametrize("inspector", [False, True])
@pytest.mark.parametrize("fault", [body(b"[]"), body(b"null"), body(b"{}"), body(b"\xff"), reset()])
def test_an_answer_that_is_garbage_makes_nothing_clean(serve, inspector, fault):
    aws = everything(serve, inspector=inspector)
    clean = verdicts(read(timeout=1))
    for action in sorted({r.action for r in aws.requests if r.service != "eks"}):
        aws.heal()
        aws.inject(f"^{action}$", fault)
        scans = read(timeout=1)
        for name, verdict in verdicts(scans).items():
            assert verdict in (clean.get(name), "nothing"), action


@pytest.mark.parametrize("inspector", [False, True])
def test_an_empty_list_makes_nothing_clean_but_one_of_inspectors_findings(serve, inspector):
    aws = everything(serve, inspector=inspector)
    clean = verdicts(read())
    for action in sorted({r.action for r in aws.requests if r.service != "eks"} - {"inspector2:ListFindings"}):
        aws.heal()
        aws.inject(f"^{action}$", empty())
        for name, verdict in verdicts(read()).items():
            assert verdict in (clean.get(name), "nothing") or (verdict, inspector) == ("bad", True), action


def test_a_repository_whose_findings_are_denied_is_not_asked_about_twice(serve):
    aws, region = serve({"team/a": [unscanned("a1"), unscanned("a2")], "team/b": [unscanned("b1")]})
    region.image_scans = {digest(name): basic_scan(basic_finding()) for name in ("a1", "a2", "b1")}
    aws.deny("ecr:DescribeImageScanFindings", where={"repositoryName": "team/a"})
    scans = read()
    assert len(asked(aws, "ecr:DescribeImageScanFindings")) == 2
    assert [s.unfinished for s in scans.scans] == ["incomplete", "incomplete", ""]
    assert [gap.permission for gap in scans.gaps] == ["ecr:DescribeImageScanFindings"]


def test_once_ecr_throttles_for_good_no_further_image_is_asked_about(serve):
    aws, _ = serve({"team/a": [unscanned("a1"), unscanned("a2")], "team/b": [unscanned("b1")]})
    aws.inject("DescribeImageScanFindings", throttle())
    scans = read()
    assert {one["imageId"]["imageDigest"] for one in asked(aws, "ecr:DescribeImageScanFindings")} == {digest("a1")}
    assert [s.unfinished for s in scans.scans] == ["incomplete"] * 3
    assert [gap.reason for gap in scans.gaps] == ["throttled"]


def test_images_that_have_no_digest_are_told(serve):
    _, region = serve({"team/a": [image("x"), image("y"), image("z")]})
    region.images["team/a"][0]["imageDigest"] = "sha256:short"
    region.images["team/a"][1] = None
    scans = read()
    assert [s.tags for s in scans.scans] == [("z",)]
    assert ([gap.reason for gap in scans.gaps], scans.listed) == (["bad_data"], False)


def test_hostile_values_are_cut_and_never_crash(serve):
    long = "A" * 1_000_000
    _, region = serve({"team/a": [unscanned("x", imageTags=["ok", 7, long, None]), unscanned("y"), unscanned("z")]})
    region.image_scans[digest("x")] = basic_scan(
        {
            "name": f"CVE-\u202e{long}",
            "severity": "HIGH",
            "attributes": [
                {"key": "package_name", "value": long},
                {"key": "package_version", "value": 7},
                {"key": ["x"], "value": "1"},
                {"key": "CVSS3_SCORE", "value": "1e999"},
            ],
        }
    )
    region.image_scans[digest("y")] = basic_scan(basic_finding() | {"attributes": 7})
    region.image_scans[digest("z")] = basic_scan(basic_finding() | {"severity": "\ud800", "name": "\ud800"})
    x, y, z = read().scans
    (found,) = x.vulnerabilities
    assert (len(found.id), len(found.package), found.installed, found.cvss) == (100, 200, "", None)
    assert found.id.isprintable()
    assert (x.tags[0], len(x.tags), len(x.tags[1])) == ("ok", 2, 300)
    assert y.unfinished == "incomplete"
    assert (z.vulnerabilities[0].id, z.vulnerabilities[0].level) == ("\\ud800", Level.HIGH)


def test_times_are_kept_in_utc(serve):
    noon = datetime(2026, 3, 9, 21, tzinfo=timezone(timedelta(hours=9)))
    serve({"team/a": [image("x", imageScanFindingsSummary={"imageScanCompletedAt": noon})]})
    (scan,) = read().scans
    assert (scan.scanned_at, scan.scanned_at.tzinfo) == (datetime(2026, 3, 9, 12, tzinfo=UTC), UTC)


def test_many_images_with_the_same_findings_cost_little(serve):
    """1,000 images, 100 findings on each."""
    _, region = serve({"team/a": [unscanned(f"v{number}") for number in range(1000)]})
    findings = basic_scan(*(basic_finding(f"CVE-{number}", f"package-{number}") for number in range(100)))
    region.image_scans = {digest(f"v{number}"): findings for number in range(1000)}
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    scans = read()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert sum(len(s.vulnerabilities) for s in scans.scans) == 100_000
    assert len({id(one) for s in scans.scans for one in s.vulnerabilities}) == 100
    assert held < 30_000_000


# -- regions and accounts


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_registries_are_where_their_partition_is(serve, partition):
    serve({"team/a": [image("x")]})
    account = account_of()
    account.partition = partition
    *_, region = Reader((), scans=True).read(account, SEOUL)
    domain = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
    assert region.scans.scans[0].registry == f"{PROD}.dkr.ecr.{SEOUL}.{domain}"


def test_nobody_is_asked_where_no_check_needs_it(serve):
    aws, _ = serve({"team/a": [image("x")]}, inspector=True)
    *_, region = Reader({"AWS::ECR::Repository"}).read(account_of(), SEOUL)
    assert region.scans.asked == []
    assert {r.action for r in aws.requests} == {"eks:ListClusters", "ecr:DescribeRepositories"}


def test_what_other_checks_asked_for_is_not_asked_twice(serve):
    aws, _ = serve({"team/a": [image("x")]}, inspector=True)
    read({"AWS::ECR::Repository", "inspector"})
    assert len(asked(aws, "ecr:DescribeRepositories")) == len(asked(aws, "inspector2:BatchGetAccountStatus")) == 1


def test_a_region_with_neither_clusters_nor_repositories_costs_one_call_more(serve):
    aws, _ = serve(inspector=True)
    scans = read()
    assert (scans.asked, scans.listed, scans.scans, scans.gaps) == (["ecr"], True, [], [])
    assert [r.action for r in aws.requests] == ["eks:ListClusters", "ecr:DescribeRepositories"]


def test_a_region_that_a_policy_closes_stays_closed(serve):
    aws, _ = serve({"team/a": [image("x")]})
    for action in ("eks:*", "ecr:*"):
        aws.deny(action, because=SCP)
    *_, region = Reader((), scans=True).read(account_of(), SEOUL)
    assert region.closed
    assert [(gap.what, gap.by_policy) for gap in region.scans.gaps] == [("ecr", True)]
    assert region.scans.listed is False


# -- whole scans


def scan(*args):
    return Scan(kubeposture("scan", "eks", "--status", "all", "-o", "json", "-c", REGISTRY, "-c", RUNNING, *args))


def statuses_of(found, check):
    """By the name of the resource, the part before its digest."""
    judged = [f for f in found.report["findings"] if f["check"] == check]
    return {f["resource"]["name"].partition("@")[0]: f["status"] for f in judged}


@pytest.mark.parametrize("planes", ["data", "both"])
@pytest.mark.parametrize("inspector", [False, True])
def test_images_of_registries_are_judged_also_where_only_what_runs_is_asked_for(serve, planes, inspector):
    everything(serve, inspector=inspector)
    found = scan("--planes", planes)
    assert statuses_of(found, REGISTRY) == {f"{HOST}/team/a": "pass", f"{HOST}/team/b": "fail"}
    assert found.gaps == []


def test_what_runs_from_a_multi_platform_image_is_judged_by_the_image_of_its_platform(serve):
    aws = everything(serve, inspector=True)
    region = aws.estate.region()
    region.inspector_findings.append(inspector_finding("CVE-2026-1001", "inside", "team/a"))
    region.clusters.append(eks("shop"))
    image_id = f"{HOST}/team/a@{digest('1.0')}"
    state = {"name": "web", "image": f"{HOST}/team/a:1.0", "imageID": image_id}
    running = pod(container("web", image=f"{HOST}/team/a:1.0"), name="web", namespace="shop", nodeName="one")
    running["status"] = {"phase": "Running", "containerStatuses": [state]}
    names = [{"kind": "Namespace", "metadata": {"name": name, "uid": name}} for name in ("kube-system", "shop")]
    node = {"kind": "Node", "metadata": {"name": "one"}}
    node["status"] = {"nodeInfo": {"operatingSystem": "linux", "architecture": "amd64"}}
    with ApiServer([*names, node, running], tls=tls()) as api:
        aws.estate.connect("shop", api.url, api.tls.ca)
        found = scan()
    (judged,) = [f for f in found.report["findings"] if f["check"] == RUNNING]
    assert (judged["status"], judged["resource"]["name"]) == ("fail", "web")
    assert "CVE-2026-1001" in json.dumps(judged)


def test_a_right_that_is_missing_is_told_beside_what_is_unknown(serve):
    aws = everything(serve, inspector=True)
    aws.deny("inspector2:ListFindings")
    found = scan()
    assert set(statuses_of(found, REGISTRY).values()) == {"unknown"}
    assert [(gap["what"], gap["permission"]) for gap in found.gaps] == [("inspector", "inspector2:ListFindings")]
    assert found.code in (3, 4)


def test_an_account_that_could_not_be_read_is_unknown(serve):
    aws = everything(serve, inspector=True)
    aws.deny("ec2:DescribeRegions")
    found = scan()
    assert found.code in (3, 4)
    (judged,) = [f for f in found.report["findings"] if f["check"] == REGISTRY]
    assert (judged["status"], judged["account"]) == ("unknown", PROD)
    assert "ec2:DescribeRegions" in judged["message"]


# -- moto


def test_what_moto_says_of_images_that_were_pushed_there(monkeypatch):
    """Its DescribeImages tells nothing of scans, as that of today's basic scanning."""
    actions = {f"ecr:{what}" for what in ("DescribeRepositories", "DescribeImages", "DescribeImageScanFindings")}
    region = Region(SEOUL, PROD, inspector=inspector_status(PROD, off=("ecr",)))
    estate = Estate.of(Account(PROD, "Production", regions={SEOUL: region}))
    with AwsServer(estate, from_moto=frozenset({*actions, "ecr:BatchGetImage"})) as aws:
        aws.empty_moto()
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)
        ecr = boto3.Session().client("ecr")
        ecr.create_repository(repositoryName="shop/web")
        own = {"repositoryName": "shop/web"}
        manifest = {
            "config": {"size": 1},
            "layers": [{"digest": digest("layer")}],
            "mediaType": f"{OCI}.manifest.v1+json",
        }
        pushed = ecr.put_image(**own, imageManifest=json.dumps(manifest), imageTag="scanned")
        child = pushed["image"]["imageId"]["imageDigest"]
        other = manifest | {"layers": [{"digest": digest("other")}]}
        ecr.put_image(**own, imageManifest=json.dumps(other), imageTag="unscanned")
        listed = {
            "mediaType": f"{OCI}.index.v1+json",
            "manifests": [{"digest": child, "platform": {"os": "linux", "architecture": "amd64"}}],
        }
        ecr.put_image(
            **own,
            imageManifest=json.dumps(listed),
            imageTag="index",
            imageDigest=digest("index"),
            imageManifestMediaType=f"{OCI}.index.v1+json",
        )
        ecr.start_image_scan(**own, imageId={"imageTag": "scanned"})
        aws.requests.clear()
        scans = read()
        aws.empty_moto()
    found = by_tag(scans)
    assert (scans.gaps, scans.listed, set(found)) == ([], True, {"scanned", "unscanned"})
    assert scans.indexes == {digest("index"): [Platform(child, "linux/amd64")]}
    assert found["scanned"].tags == ("scanned", "index")
    (one,) = found["scanned"].vulnerabilities
    assert (one.id, one.level, one.package, one.installed, one.cvss) == (
        "CVE-9999-9999",
        Level.HIGH,
        "moto_fake",
        "9.9.9",
        7.5,
    )
    assert found["unscanned"].unfinished == "not_scanned"
    assert {r.operation for r in aws.requests if r.service == "ecr"} == {action[4:] for action in actions} | {
        "BatchGetImage"
    }
