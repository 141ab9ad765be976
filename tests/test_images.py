"""How images are joined with what sources say of them, and what that proves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import NOW, evaluate, judge_images, settings

from scanner.check import IMAGES
from scanner.image_join import Images, digest_of, holds, part_of
from scanner.image_ref import parse
from scanner.inventory import Inventory, Root, RunningImage
from scanner.kube import Resource
from scanner.model import Account, Evidence, Finding, Gap, GapReason
from scanner.running import Packed
from scanner.vulnerabilities import ImageScan, Level, Platform, Scans, Vulnerability, level_of, registry_kind

A, B, INDEX, CONFIG = (f"sha256:{letter * 64}" for letter in "abcd")
REPO = "registry.example.com/shop/web"
IMAGE = f"{REPO}:v1"
RUNNING = "k8s-running-image-vulns"
AMD, ARM = "linux/amd64", "linux/arm64"


def found(id: str = "CVE-2026-1", level: Level = Level.HIGH, **more: Any) -> Vulnerability:
    return Vulnerability(id, level, **{"package": "openssl", "installed": "3.0", "fixed": "3.1", **more})


def scan(*vulnerabilities: Vulnerability, digest: str = A, source: str = "trivy", **more: Any) -> ImageScan:
    ref = parse(IMAGE)
    given: dict[str, Any] = {
        "registry": ref.registry, "repository": ref.repository, "digest": digest, "platform": AMD,
        "scanned_at": NOW - timedelta(days=1),
    }  # fmt: skip
    return ImageScan(source=source, vulnerabilities=list(vulnerabilities), **{**given, **more})


def running(image_id: str = f"{REPO}@{A}", image: str = IMAGE, platform: str = AMD, pods: int = 1) -> RunningImage:
    return RunningImage("app", image, image_id, platform, pods)


def groups(images: list[RunningImage], scans: list[ImageScan], **said: Any) -> tuple[Any, dict[str, int]]:
    store = Images(NOW, said.pop("known_exploited", frozenset()), list(said.get("gaps", ())))
    store.take(Scans(scans=scans, **said))
    root = Root(Resource("apps", "Deployment", "shop", "web"), [], images)
    counts, _ = store.counts([root])
    return list(store.running(Packed([root]))), {name: getattr(counts, name) for name in counts.__struct_fields__}


def judged(images: list[RunningImage], scans: list[ImageScan], *, params: Any = None, **said: Any) -> Finding:
    """The one finding on a container."""
    chosen = settings(RUNNING, params=params)
    subjects, _ = groups(images, scans, **said)
    inventory = Inventory(kinds=["pods", "nodes", "namespaces", IMAGES])
    (finding,) = evaluate(inventory, chosen, live=True, groups=subjects)
    return finding


def why(finding: Finding) -> tuple[str, str]:
    return finding.status.value, finding.reason


# -- by what a scan is found -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_id", "digest"),
    [
        (f"{REPO}@{A}", A),
        (f"docker-pullable://{REPO}@{A}", A),
        (f"docker://{A}", ""),
        (A, ""),
        ("", ""),
        (f"{REPO}@sha256:short", ""),
        (f"{REPO}@{A.upper()}", ""),
        (f"x@{A}@{B}", B),
    ],
)
def test_the_manifest_that_a_node_tells(image_id, digest):
    assert digest_of(image_id) == digest


def test_a_finished_scan_of_the_digest_proves_that_there_is_nothing():
    assert why(judged([running()], [scan()])) == ("pass", "")


@pytest.mark.parametrize("image_id", [CONFIG, f"docker://{CONFIG}"])
def test_some_nodes_tell_the_configuration_alone(image_id):
    scans = [scan(digest="", config_digest=CONFIG)]
    assert why(judged([running(image_id)], scans)) == ("pass", "")
    assert groups([running(image_id)], scans)[1]["by_digest"] == 1


def test_a_config_digest_is_no_manifest():
    assert why(judged([running(A)], [scan()])) == ("unknown", "not_scanned")


def test_before_the_node_tells_the_digest_that_was_asked_for_counts():
    pinned = f"{REPO}@{A}"
    assert why(judged([running("", image=pinned)], [scan()])) == ("pass", "")
    assert why(judged([running("", image=pinned)], [scan(found())])) == ("fail", "vulnerable")


def test_what_is_asked_for_by_digest_is_never_looked_up_by_tag():
    assert why(judged([running("", image=f"{IMAGE}@{B}")], [scan(found(), tags=("v1",))])) == ("unknown", "not_scanned")


@pytest.mark.parametrize("image_id", ["", f"{REPO}@{B}"])
def test_a_tag_may_prove_a_fail_and_never_a_pass(image_id):
    fails = judged([running(image_id)], [scan(found(), tags=("v1",))])
    assert why(fails) == ("fail", "vulnerable")
    assert "by its tag, which may have moved" in fails.message
    assert why(judged([running(image_id)], [scan(tags=("v1",))])) == ("unknown", "not_certain")
    assert groups([running(image_id)], [scan(tags=("v1",))])[1]["by_tag"] == 1


def test_a_tag_that_is_not_given_is_latest():
    bare = running("", image=REPO)
    assert why(judged([bare], [scan(found(), tags=("latest",))])) == ("fail", "vulnerable")
    assert why(judged([bare], [scan(found(), tags=("v1",))])) == ("unknown", "no_digest")


def test_mirrors_share_what_is_known_of_a_digest():
    mirrored = running(f"mirror.example.com/hub/web@{A}", image="mirror.example.com/hub/web:x")
    assert why(judged([mirrored], [scan(found())])) == ("fail", "vulnerable")


def test_short_names_are_docker_hubs():
    scans = [scan(found(), digest="", registry="docker.io", repository="library/redis", tags=("7",))]
    for name in ("redis:7", "docker.io/library/redis:7", "index.docker.io/redis:7"):
        assert why(judged([running("", image=name)], scans)) == ("fail", "vulnerable")


def test_the_ways_of_being_found_add_up():
    images = [
        running(),
        running(f"{REPO}@{B}"),
        running("", image=f"{REPO}:v2"),
        running(f"{REPO}@{INDEX}", image=f"{REPO}:v3"),
    ]
    _, counts = groups(images, [scan(tags=("v1",))])
    assert counts == {"running": 4, "by_digest": 1, "by_tag": 1, "not_scanned": 1, "no_digest": 1}


IDS = st.sampled_from(["", A, f"{REPO}@{A}", f"{REPO}@{B}", f"docker://{CONFIG}", "nonsense", f"{REPO}@{INDEX}"])
NAMES = st.sampled_from([IMAGE, REPO, f"{REPO}@{A}", "redis", "", "@", f"{REPO}:v9"])
PLATFORMS = st.sampled_from(["", AMD, ARM, "windows/amd64"])
RUNS = st.builds(RunningImage, st.just("app"), NAMES, IDS, PLATFORMS, st.integers(1, 9))
SCANS = st.builds(
    scan,
    digest=st.sampled_from([A, B, ""]),
    config_digest=st.sampled_from(["", CONFIG]),
    platform=st.sampled_from([None, "", AMD, ARM]),
    tags=st.sampled_from([None, (), ("v1",), ("latest", "v9")]),
    unfinished=st.sampled_from(["", "", "not_scanned"]),
    scanned_at=st.sampled_from([None, NOW, NOW - timedelta(days=400), NOW + timedelta(days=3)]),
)


@given(st.lists(RUNS, min_size=1, max_size=4, unique=True), st.lists(SCANS, max_size=4), st.booleans())
def test_every_running_image_is_counted_once_and_no_pass_lacks_its_proof(images, scans, indexed):
    indexes = {INDEX: [Platform(A, AMD), Platform(B, ARM)]} if indexed else {}
    _, counts = groups(images, scans, indexes=indexes)
    assert counts.pop("running") == len(images) == sum(counts.values())
    finding = judged(images, scans, indexes=indexes)
    proofs = [s for s in scans if not s.unfinished and s.scanned_at == NOW and (s.platform != "" or s.config_digest)]
    assert finding.status.value in ("pass", "unknown")
    assert finding.status.value == "unknown" or proofs


# -- platforms -------------------------------------------------------------------------------------------------------

MULTI = {INDEX: [Platform(A, AMD), Platform(B, f"{ARM}/v8")]}


@pytest.mark.parametrize(
    ("platform", "status"), [(AMD, "pass"), (ARM, "fail"), ("", "fail"), ("linux/s390x", "unknown")]
)
def test_each_nodes_platform_is_judged(platform, status):
    scans = [scan(platform=None), scan(found(), digest=B, platform=None)]
    image = running(f"{REPO}@{INDEX}", platform=platform)
    assert judged([image], scans, indexes=MULTI).status == status


def test_on_two_platforms_the_worse_one_counts():
    scans = [scan(platform=None), scan(found(), digest=B, platform=None)]
    on = [running(f"{REPO}@{INDEX}", platform=AMD, pods=3), running(f"{REPO}@{INDEX}", platform=ARM, pods=2)]
    finding = judged(on, scans, indexes=MULTI)
    assert (finding.status, finding.occurrences) == ("fail", 2)
    assert [e.value for e in finding.evidence if e.path == "digest"] == [f"{A} ({AMD})", f"{B} ({ARM}/v8)"]


def test_where_the_platform_is_not_known_all_must_be_clean():
    image = running(f"{REPO}@{INDEX}", platform="")
    assert why(judged([image], [scan(platform=None)], indexes=MULTI)) == ("unknown", "not_scanned")
    both = [scan(platform=None), scan(digest=B, platform=None)]
    assert why(judged([image], both, indexes=MULTI)) == ("pass", "")


def test_a_scan_of_an_index_is_of_one_platform():
    """Trivy tells the digest of the index and which platform it has looked at."""
    scans = [scan(digest=INDEX, platform=AMD)]
    assert why(judged([running(f"{REPO}@{INDEX}")], scans)) == ("pass", "")
    assert why(judged([running(f"{REPO}@{INDEX}")], scans, indexes=MULTI)) == ("pass", "")
    for indexes in ({}, MULTI):
        elsewhere = running(f"{REPO}@{INDEX}", platform=ARM)
        assert why(judged([elsewhere], scans, indexes=indexes)) == ("unknown", "not_scanned")
    alone = judged([running(f"{REPO}@{INDEX}", platform=ARM)], scans)
    assert alone.message == "it was scanned for linux/amd64, and not for linux/arm64"


@pytest.mark.parametrize(("of_scan", "of_node"), [("", AMD), (AMD, ""), ("", "")])
def test_a_platform_that_nobody_tells_proves_no_pass(of_scan, of_node):
    image = running(platform=of_node)
    assert why(judged([image], [scan(platform=of_scan)])) == ("unknown", "not_certain")
    assert why(judged([image], [scan(found(), platform=of_scan)])) == ("fail", "vulnerable")


def test_a_scan_of_an_index_is_of_none_of_several_entries():
    """Two builds of Windows, or variants of arm, have one name."""
    indexes = {INDEX: [Platform(A, "linux/arm/v6"), Platform(B, "linux/arm/v7")]}
    image = running(f"{REPO}@{INDEX}", platform="linux/arm")
    assert why(judged([image], [scan(digest=INDEX, platform="linux/arm")], indexes=indexes)) == (
        "unknown",
        "not_certain",
    )
    assert why(judged([image], [scan(found(), digest=INDEX, platform="linux/arm")], indexes=indexes))[0] == "fail"


@pytest.mark.parametrize(("platform", "status"), [("linux/arm/v6", "unknown"), ("linux/arm64/v8", "pass")])
def test_a_variant_that_the_node_does_not_tell_is_a_doubt(platform, status):
    image = running(platform=platform.rpartition("/")[0])
    assert judged([image], [scan(platform=platform)]).status == status


def test_an_entry_without_a_platform_may_be_what_runs():
    indexes = {INDEX: [Platform(A, AMD), Platform(B, "")]}
    image = running(f"{REPO}@{INDEX}")
    scans = [scan(platform=None), scan(found(), digest=B, platform=None)]
    assert why(judged([image], scans, indexes=indexes)) == ("fail", "vulnerable")
    assert why(judged([image], scans[:1], indexes=indexes)) == ("unknown", "not_scanned")


@pytest.mark.parametrize("entries", [[], [Platform(B, ARM)], [Platform(B, ARM)] * 2000])
def test_an_index_that_lacks_the_platform_proves_nothing(entries):
    image = running(f"{REPO}@{INDEX}")
    for platform in (None, AMD):
        finding = judged([image], [scan(digest=INDEX, platform=platform)], indexes={INDEX: entries})
        assert finding.status == "unknown"


def test_what_names_an_index_without_a_platform_is_not_lost():
    """Defender does not always tell what kind of manifest a digest is of."""
    image = running(f"{REPO}@{INDEX}")
    clean = scan(platform=None)
    found_in_index = scan(found(), digest=INDEX, platform=None, source="defender")
    assert why(judged([image], [clean, found_in_index], indexes=MULTI)) == ("fail", "vulnerable")
    assert why(judged([image], [scan(digest=INDEX, platform=None)], indexes=MULTI)) == ("unknown", "not_certain")


def test_what_is_said_of_an_index_is_said_of_the_entry_that_a_node_tells():
    scans = [scan(found(), digest=INDEX, platform=AMD)]
    assert why(judged([running()], scans, indexes=MULTI)) == ("fail", "vulnerable")
    assert why(judged([running(f"{REPO}@{B}", platform=ARM)], scans, indexes=MULTI)) == ("unknown", "not_scanned")


def test_a_digest_that_was_asked_for_proves_nothing_where_the_node_tells_another():
    image = running(f"{REPO}@{B}", image=f"{REPO}@{A}")
    assert why(judged([image], [scan()])) == ("unknown", "not_certain")
    assert why(judged([image], [scan(found())])) == ("fail", "vulnerable")
    pinned = running(f"{REPO}@{A}", image=f"{REPO}@{INDEX}")
    assert why(judged([pinned], [scan(digest=INDEX)], indexes=MULTI)) == ("pass", "")


def test_an_index_that_does_not_hold_what_the_node_tells_vouches_for_nothing():
    other = {INDEX: [Platform(A, AMD)]}
    image = running(f"{REPO}@{B}", image=f"{REPO}@{INDEX}")
    assert why(judged([image], [scan(platform=None)], indexes=other)) == ("unknown", "not_certain")


def test_variants_are_other_platforms():
    indexes = {INDEX: [Platform(A, "linux/arm/v6"), Platform(B, "linux/arm/v7")]}
    image = running(f"{REPO}@{B}", platform="linux/arm")
    scans = [scan(digest=B, platform=None), scan(found(), digest=INDEX, platform="linux/arm/v6")]
    assert why(judged([image], scans, indexes=indexes)) == ("pass", "")


def test_registries_are_asked_of_what_they_hold_too():
    store = Images(NOW)
    told = [scan(registry="acme.azurecr.io", tags=("v1",)), scan(registry="acme.azurecr.io", digest=B, platform=None)]
    by_tag = scan(registry="acme.azurecr.io", digest="", tags=("v2",))
    store.take(Scans(scans=[*told, by_tag]))
    assert list(store.unsure_stored()) == [("acme.azurecr.io", "shop/web", A)]
    store.add_index(A, [Platform(B, AMD)])
    assert list(store.unsure_stored()) == []


AWS, GCP = "111122223333.dkr.ecr.eu-west-1.amazonaws.com", "europe-docker.pkg.dev/shop"


@pytest.mark.parametrize(
    ("account", "region", "provider", "kind", "part", "own"),
    [
        ("111122223333", "eu-west-1", "aws", "aws", AWS, True),
        ("111122223333", None, "aws", "aws", AWS, True),
        ("111122223333", "eu-west-2", "aws", "aws", AWS, False),
        ("222233334444", "eu-west-1", "aws", "aws", AWS, False),
        ("shop", None, "gcp", "gcp", GCP, True),
        ("op", None, "gcp", "gcp", GCP, False),
        ("shop", None, "gcp", "aws", GCP, False),
        ("shop", None, "azure", "azure", "shop.azurecr.io", False),
    ],
)
def test_whose_registry_it_is(account, region, provider, kind, part, own):
    assert holds(Account(id=account, provider=provider, name="x", region=region), kind, part) is own


@pytest.mark.parametrize(("kind", "part"), [("gcp", "h/p"), ("aws", "h"), ("azure", "h"), ("", "h")])
def test_what_of_a_registry_belongs_to_one_account(kind, part):
    assert part_of(kind, "h", "p/r/i") == part


def test_what_was_refused_in_a_namespace_is_no_reason_elsewhere():
    store = Images(NOW)
    roots = [Root(Resource("apps", "Deployment", name, "web"), [], [running()]) for name in ("a", "b")]
    gaps = [Gap(what="trivy-operator", reason=GapReason.FORBIDDEN, namespace="a")]
    refused = {group.resource.namespace: group.subjects[0].manifests[0].gaps for group in store.running(roots, gaps)}
    assert refused == {"a": (gaps[0],), "b": ()}


def test_who_knows_images_of_a_cluster():
    store = Images(NOW)
    store.take(Scans(scans=[scan(registry="acme.azurecr.io"), scan(registry="docker.io", unfinished="not_scanned")]))
    store.take(Scans(scans=[scan(registry="quay.io", source="trivy-operator")], cluster="look 1"))
    assert store.knows({"azure"}, frozenset())
    assert not store.knows({"dockerhub", ""}, frozenset())
    assert store.knows({"dockerhub"}, frozenset({"look 1"}))
    assert not store.knows({"dockerhub"}, frozenset({"look 2"}))


def asked_of_registries(images, scans, **said):
    store = Images(NOW)
    store.take(Scans(scans=scans, **said))
    return list(store.unsure([Root(Resource("apps", "Deployment", "shop", "web"), [], images)]))


def test_registries_are_asked_of_what_no_source_knows_for_the_platform():
    index = running(f"{REPO}@{INDEX}", platform=ARM)
    asked = [("registry.example.com", "shop/web", INDEX)]
    assert asked_of_registries([index], []) == asked
    assert asked_of_registries([index], [scan(digest=INDEX, platform=AMD)]) == asked
    assert asked_of_registries([index], [scan(digest=INDEX, platform=ARM)]) == []
    assert asked_of_registries([index], [scan(digest=INDEX, platform=None)]) == []
    assert asked_of_registries([index], [], indexes=MULTI) == []
    assert asked_of_registries([index], [scan(digest=INDEX, platform=ARM)], cluster="look 1") == asked


# -- what proves that there is nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scan_", "reason"),
    [
        (scan(scanned_at=None), "scan_time_unknown"),
        (scan(scanned_at=NOW + timedelta(days=2)), "scan_time_unknown"),
        (scan(scanned_at=NOW - timedelta(days=31)), "stale_scan"),
        (scan(scanned_at=(NOW - timedelta(days=31)).replace(tzinfo=None)), "stale_scan"),
        (scan(unfinished="in_progress"), "in_progress"),
        (scan(unfinished="failed"), "failed"),
        (scan(only_fixed=True), "only_fixed"),
    ],
)
def test_a_scan_that_proves_nothing(scan_, reason):
    assert why(judged([running()], [scan_])) == ("unknown", reason)
    assert why(judged([running()], [scan_, scan(source="grype")])) == ("pass", "")


def test_a_scan_of_the_future_takes_the_place_of_none():
    later = scan(scanned_at=NOW + timedelta(days=400))
    assert why(judged([running()], [scan(found()), later])) == ("fail", "vulnerable")
    assert why(judged([running()], [scan(), later])) == ("pass", "")


def test_the_age_of_a_proof_has_no_end():
    assert why(judged([running()], [scan()], params={"max_scan_age": 10**12})) == ("pass", "")


def test_the_age_of_a_proof_can_be_set():
    old = [scan(scanned_at=NOW - timedelta(days=31))]
    assert why(judged([running()], old, params={"max_scan_age": 40})) == ("pass", "")


def test_what_leaves_out_what_has_no_fix_is_enough_where_only_fixable_ones_count():
    assert why(judged([running()], [scan(only_fixed=True)], params={"fixable_only": True})) == ("pass", "")


@pytest.mark.parametrize("unfinished", ["incomplete", "failed"])
def test_what_was_found_before_a_scan_failed_counts(unfinished):
    assert why(judged([running()], [scan(found(), unfinished=unfinished)])) == ("fail", "vulnerable")


def test_vulnerabilities_in_an_old_scan_still_count():
    assert why(judged([running()], [scan(found(), scanned_at=NOW - timedelta(days=900))])) == ("fail", "vulnerable")


def test_of_one_source_the_newest_scan_counts():
    old, new = NOW - timedelta(days=9), NOW - timedelta(days=1)
    for scans in (
        [scan(found(), scanned_at=old), scan(scanned_at=new)],
        [scan(scanned_at=new), scan(found(), scanned_at=old)],
    ):
        assert why(judged([running()], scans)) == ("pass", "")
    assert why(judged([running()], [scan(scanned_at=old), scan(found(), scanned_at=new)])) == ("fail", "vulnerable")


def test_a_narrower_scan_does_not_take_the_place_of_a_wider_one():
    scans = [scan(found(fixed=""), scanned_at=NOW - timedelta(days=9)), scan(only_fixed=True)]
    assert why(judged([running()], scans)) == ("fail", "vulnerable")


def test_two_digests_of_a_roll_out_are_one_finding():
    both = [running(pods=2), running(f"{REPO}@{B}", pods=3)]
    finding = judged(both, [scan(), scan(found(), digest=B)])
    assert (finding.status, finding.occurrences) == ("fail", 3)
    assert why(judged(both, [scan()])) == ("unknown", "not_scanned")
    alone = judged([running(f"{REPO}@{B}")], [scan(found(), digest=B)])
    assert alone.id == finding.id


def test_a_rebuild_with_the_same_vulnerabilities_is_the_same_finding():
    one = judged([running()], [scan(found())])
    two = judged([running(f"{REPO}@{B}", image=f"{REPO}:v2")], [scan(found(), digest=B)])
    assert (one.id, one.message) == (two.id, two.message)


# -- what counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "floor", "status"),
    [
        (Level.LOW, "low", "fail"),
        (Level.NEGLIGIBLE, "low", "pass"),
        (Level.NEGLIGIBLE, "negligible", "fail"),
        (Level.MEDIUM, "high", "pass"),
        (Level.HIGH, "high", "fail"),
        (Level.UNKNOWN, "low", "fail"),
        (Level.UNKNOWN, "negligible", "fail"),
        (Level.UNKNOWN, "medium", "unknown"),
        (Level.UNKNOWN, "critical", "unknown"),
    ],
)
def test_the_floor(level, floor, status):
    finding = judged([running()], [scan(found(level=level))], params={"min_severity": floor})
    assert finding.status == status


def test_what_has_no_fix_can_be_left_out():
    scans = [scan(found(fixed=""))]
    assert why(judged([running()], scans)) == ("fail", "vulnerable")
    assert why(judged([running()], scans, params={"fixable_only": True})) == ("pass", "")
    unrated = [scan(found(level=Level.UNKNOWN, fixed=""))]
    assert why(judged([running()], unrated, params={"fixable_only": True, "min_severity": "high"})) == ("pass", "")


def test_the_worst_that_counts_decides_how_much_a_finding_weighs():
    finding = judged([running()], [scan(found("CVE-1", Level.MEDIUM), found("CVE-2", Level.LOW))])
    assert finding.severity == "medium"
    assert Evidence("recommendation.severity", "high") in finding.evidence
    assert judged([running()], [scan(found("CVE-1", Level.CRITICAL))]).severity == "critical"


def test_a_vulnerability_that_two_sources_know_is_one():
    one = found("CVE-2026-1", Level.LOW, fixed="")
    other = found("CVE-2026-1", Level.CRITICAL)
    scans = [scan(other, source="grype"), scan(one, source="defender", platform=None)]
    finding = judged([running()], scans)
    assert finding.message.startswith("1 vulnerability (1 low), none with a fix")
    named = [e.path for e in finding.evidence if e.path.startswith("source[")]
    assert named == ["source[defender]", "source[grype]"]
    preferred = judged([running()], scans, params={"sources": ["grype"]})
    assert preferred.message.startswith("1 vulnerability (1 critical), 1 with a fix")


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_versions_of_a_package_the_graver_record_counts(turned):
    both = [found(level=Level.LOW, installed="1"), found(level=Level.CRITICAL, installed="2")]
    both = both[::-1] if turned else both
    assert judged([running()], [scan(*both)]).severity == "critical"
    assert judged([running()], [scan(both[0]), scan(both[1])]).severity == "critical"


def test_twenty_are_shown_the_worst_first_and_all_are_counted():
    many = [found(f"CVE-2026-{n}", Level.LOW if n < 900 else Level.CRITICAL) for n in range(1000)]
    finding = judged([running()], [scan(*many)])
    shown = [e for e in finding.evidence if e.path.startswith("CVE-")]
    assert len(shown) == 20
    assert all(e.value.startswith("critical") for e in shown)
    assert Evidence("found", "100 critical, 900 low") in finding.evidence


def test_what_is_known_to_be_exploited_comes_first():
    scans = [scan(found("CVE-2026-1", Level.CRITICAL, cvss=10.0), found("CVE-2026-2", Level.LOW))]
    finding = judged([running()], scans, known_exploited=frozenset({"CVE-2026-2"}))
    shown = [e for e in finding.evidence if e.path.startswith("CVE-")]
    assert shown[0].path == "CVE-2026-2[openssl]"
    assert shown[0].value.startswith("known exploited, low")
    assert "1 known to be exploited; first CVE-2026-2" in finding.message
    assert finding.severity == "critical"


# -- sources that were refused ---------------------------------------------------------------------------------------


def test_a_source_that_was_refused_is_the_reason():
    gap = Gap(what="defender", reason=GapReason.FORBIDDEN, permission="Microsoft.Security/assessments/read")
    finding = judged([running()], [scan(digest=B)], gaps=[gap])
    assert why(finding) == ("unknown", "forbidden")
    assert "Microsoft.Security/assessments/read" in finding.message
    assert why(judged([running()], [scan()], gaps=[gap])) == ("pass", "")
    assert why(judged([running()], [scan(found())], gaps=[gap])) == ("fail", "vulnerable")


@pytest.mark.parametrize(
    ("scan_", "reason"),
    [
        (scan(unfinished="not_scanned"), "forbidden"),
        (scan(unfinished="failed"), "failed"),
        (scan(scanned_at=NOW - timedelta(days=31)), "stale_scan"),
    ],
)
def test_what_is_known_of_the_image_itself_is_a_better_reason(scan_, reason):
    gap = Gap(what="defender", reason=GapReason.FORBIDDEN)
    assert why(judged([running()], [scan_], gaps=[gap])) == ("unknown", reason)


def test_what_one_scan_is_sure_of_is_no_doubt():
    sure, unsure = scan(found(), source="grype"), scan(found(), platform="")
    assert "platform" in judged([running()], [unsure]).message
    for scans in ([sure, unsure], [unsure, sure]):
        assert "platform" not in judged([running()], scans).message
    two = judged([running(), running(f"{REPO}@{B}")], [sure, scan(found(), digest=B, platform="")])
    assert "platform" not in two.message


def test_a_proof_is_as_old_as_it_may_be():
    for days, status in ((30, "pass"), (31, "unknown")):
        assert judged([running()], [scan(scanned_at=NOW - timedelta(days=days))]).status == status
    for ahead, status in ((timedelta(days=1), "pass"), (timedelta(days=1, seconds=1), "unknown")):
        assert judged([running()], [scan(scanned_at=NOW + ahead)]).status == status


def test_the_reason_does_not_depend_on_the_order_of_readings():
    gaps = [Gap(what="xray", reason=GapReason.THROTTLED), Gap(what="defender", reason=GapReason.FORBIDDEN)]
    for given_ in (gaps, gaps[::-1]):
        assert why(judged([running()], [scan(digest=B)], gaps=given_)) == ("unknown", "forbidden")


def test_a_source_of_other_registries_is_no_reason():
    gap = Gap(what="ecr", reason=GapReason.FORBIDDEN)
    assert why(judged([running()], [scan(digest=B)], gaps=[gap])) == ("unknown", "not_scanned")


# -- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "cvss", "level"),
    [
        ("CRITICAL", None, "critical"),
        ("Important", None, "high"),
        ("moderate", 9.9, "medium"),
        ("MINIMAL", None, "negligible"),
        ("INFORMATIONAL", None, "negligible"),
        ("UNDEFINED", None, "unknown"),
        ("", 9.0, "critical"),
        (None, 8.9, "high"),
        ("UNTRIAGED", 3.9, "low"),
        (None, 0.0, "unknown"),
    ],
)
def test_words_of_sources(word, cvss, level):
    assert level_of(word, cvss) == level


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("acme.azurecr.io", "azure"),
        ("acme.azurecr.cn", "azure"),
        ("111122223333.dkr.ecr.eu-west-1.amazonaws.com", "aws"),
        ("111122223333.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "aws"),
        ("111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn", "aws"),
        ("111122223333.dkr-ecr.eu-west-1.on.aws", "aws"),
        ("111122223333.dkr.ecr.eusc-de-east-1.amazonaws.eu", "aws"),
        ("111122223333.dkr.ecr.eu-west-1.amazonaws.com.example.com", ""),
        ("europe-docker.pkg.dev", "gcp"),
        ("eu.gcr.io", "gcp"),
        ("gcr.io", "gcp"),
        ("docker.io", "dockerhub"),
        ("acme.jfrog.io", "jfrog"),
        ("public.ecr.aws", ""),
        ("azurecr.io.example.com", ""),
        ("mcr.microsoft.com", ""),
    ],
)
def test_kinds_of_registries(host, kind):
    assert registry_kind(host) == kind


@pytest.mark.parametrize(("platform", "status"), [(AMD, "pass"), (ARM, "unknown"), ("", "pass")])
def test_what_runs_on_another_platform_too_is_not_clean_in_its_registry(platform, status):
    store = Images(NOW)
    store.take(Scans(scans=[scan(registry="acme.azurecr.io", tags=("v1",))]))
    root = Root(Resource("apps", "Deployment", "shop", "web"), [], [running(platform=platform)])
    store.counts([root])
    subjects = [group for _, group in store.registered("azure")]
    chosen = settings("azure-registry-image-vulns")
    [finding] = evaluate(Inventory(kinds=[IMAGES]), chosen, groups=subjects)
    assert finding.status == status


def stored(*scans, check="azure-registry-image-vulns"):
    """Status and reason by the name of what is in registries."""
    store = Images(NOW)
    store.take(Scans(scans=list(scans)))
    chosen = settings(check)
    groups = [group for _, group in store.registered("azure")]
    findings = evaluate(Inventory(kinds=[IMAGES]), chosen, groups=groups)
    return {f.resource.name.removeprefix("acme.azurecr.io/shop/web"): why(f) for f in findings}


def at_acme(*vulnerabilities, **more):
    return scan(*vulnerabilities, **{"registry": "acme.azurecr.io", "tags": ("v1",), **more})


@pytest.mark.parametrize("other", [{"unfinished": "failed"}, {"scanned_at": NOW - timedelta(days=900)}])
def test_a_registrys_image_is_clean_for_every_platform_that_was_looked_at(other):
    assert stored(at_acme()) == {f"@{A}": ("pass", "")}
    assert stored(at_acme(), at_acme(platform=ARM, **other))[f"@{A}"][0] == "unknown"
    assert stored(at_acme(), at_acme(found(), platform=ARM))[f"@{A}"][0] == "fail"


def test_what_is_known_by_its_tag_alone_is_no_proof():
    assert stored(at_acme(digest="")) == {":v1": ("unknown", "not_certain")}
    assert stored(at_acme(found(), digest="")) == {":v1": ("fail", "vulnerable")}
    assert stored(at_acme(found(), digest=""), at_acme()) == {f"@{A}": ("pass", "")}
    unscanned = at_acme(unfinished="not_scanned")
    assert stored(at_acme(found(), digest=""), unscanned) == {f"@{A}": ("fail", "vulnerable")}
    assert stored(at_acme(digest=""), unscanned)[f"@{A}"][0] == "unknown"


def test_a_registry_is_judged_by_each_digest_that_a_tag_points_to():
    host = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
    document = {
        "scans": [
            {"source": "ecr", "registry": host, "repository": "a", "digest": digest, "tags": tags}
            for digest, tags in ((A, ["v1", "v2"]), (B, ["old"]), (INDEX, []))
        ]
    }  # fmt: skip
    findings = judge_images(document, "aws-registry-image-vulns")
    assert [f.resource.name.rpartition("@")[2] for f in findings] == [A, B]
