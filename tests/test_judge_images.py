"""What is said of registries as a whole: refused sources, accounts of which nobody tells, images that nobody scans."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from support import NOW, settings

from scanner.azure import ContainerRegistry
from scanner.cli.judge_images import ImageJudging
from scanner.collect import Estate
from scanner.inventory import Inventory
from scanner.model import Account, Gap, GapReason
from scanner.vulnerabilities import ImageScan, Scans

A, B = (f"sha256:{letter * 64}" for letter in "ab")
ECR, ACR = "111122223333.dkr.ecr.eu-west-1.amazonaws.com", "acme.azurecr.io"
REFUSED = Gap(what="ecr", reason=GapReason.FORBIDDEN, permission="ecr:DescribeImages")
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"


def scan(digest: str = A, host: str = ECR, **more: Any) -> ImageScan:
    given = {"source": "ecr", "tags": ("v1",), "account": "111122223333", "region": "eu-west-1", "scanned_at": NOW}
    return ImageScan(registry=host, repository="web", digest=digest, **{**given, **more})


def unscanned(digest: str = A) -> ImageScan:
    return scan(digest, unfinished="not_scanned")


def aws(*scans: ImageScan, gaps: tuple[Gap, ...] = (), listed: bool = True, refused: bool = False) -> Estate:
    account = Account(id="111122223333", provider="aws", name="111122223333", region="eu-west-1", refused=refused)
    said = Scans(asked=["ecr"], scans=list(scans), gaps=list(gaps), listed=listed)
    return Estate("aws", Inventory(kinds=["clusters"]), account=account, scope="aws:111122223333:eu-west-1", scans=said)


def azure(*registries: str, kinds: tuple[str, ...] = (ContainerRegistry.kind,), gaps: tuple[Gap, ...] = ()) -> Estate:
    account = Account(id=SUBSCRIPTION, provider="azure", name="prod")
    found = [ContainerRegistry(wire={}, id=f"/r/{name}", name=name, account=SUBSCRIPTION) for name in registries]
    inventory = Inventory(kinds=list(kinds), cloud=list(found), gaps=list(gaps))
    return Estate("prod", inventory, account=account, scope=f"/subscriptions/{SUBSCRIPTION}")


def defender(*scans: ImageScan, gaps: tuple[Gap, ...] = ()) -> Estate:
    said = Scans(asked=["defender"], scans=list(scans), gaps=list(gaps))
    return Estate("Microsoft Defender for Cloud", Inventory(kinds=[]), scans=said)


def seen_by_defender(digest: str = A, host: str = ACR) -> ImageScan:
    return scan(digest, host, source="defender", account=SUBSCRIPTION, region=None)


def judged(check: str, *estates: Estate) -> list[tuple[str, int, list[str]]]:
    """Scope, number of images, and reasons of gaps of each thing that is judged."""
    judging = ImageJudging.of(settings(check).plans, NOW + timedelta(hours=1), frozenset())
    for estate in estates:
        judging.take(estate)
    found: list[tuple[str, int, list[str]]] = []
    judging.judge(
        lambda estate, scope, row, plans, part, images: found.append(
            (scope, len(list(images)), [f"{gap.what}: {gap.reason}" for gap in estate.inventory.gaps])
        ),
        lambda row: row,
    )
    return found


IMAGES, ACCOUNT = "registry:aws", "aws:111122223333:eu-west-1"
CHECK, AZURE = "aws-registry-image-vulns", "azure-registry-image-vulns"
ALL_OF_AZURE, OWN = "registry:azure", f"/subscriptions/{SUBSCRIPTION}"


@pytest.mark.parametrize(
    ("estate", "expected"),
    [
        (aws(), [(ACCOUNT, 0, [])]),
        (aws(scan(), unscanned(B)), [(IMAGES, 2, [])]),
        (aws(unscanned(), unscanned(B)), [(ACCOUNT, 0, ["images: no_source"])]),
        (aws(gaps=(REFUSED,)), [(ACCOUNT, 0, ["images: forbidden"])]),
        (aws(scan(), gaps=(REFUSED,)), [(IMAGES, 1, []), (ACCOUNT, 0, ["images: forbidden"])]),
        (aws(listed=False), [(ACCOUNT, 0, ["images: no_source"])]),
        (aws(scan(tags=())), [(ACCOUNT, 0, [])]),
    ],
    ids=["empty", "scanned", "never scanned", "refused", "refused in part", "not listed", "untagged"],
)
def test_what_is_said_of_an_account(estate, expected):
    assert judged(CHECK, estate) == expected


def test_of_two_looks_at_an_account_the_fuller_one_counts():
    for estates in ((aws(gaps=(REFUSED,)), aws()), (aws(), aws(gaps=(REFUSED,)))):
        assert judged(CHECK, *estates) == [(ACCOUNT, 0, [])]


def test_what_two_looks_saw_is_put_together():
    bare, full = azure(kinds=("managedClusters",)), azure("acme", "lab")
    expected = [(ALL_OF_AZURE, 1, []), (OWN, 0, ["images: no_source"])]
    for estates in ((bare, full), (full, bare)):
        assert judged(AZURE, defender(seen_by_defender()), *estates) == expected
    for estates in ((aws(listed=False), aws()), (aws(), aws(listed=False))):
        assert judged(CHECK, *estates) == [(ACCOUNT, 0, [])]


def test_a_closed_region_says_nothing_of_the_others():
    closed = Account(id="111122223333", provider="aws", name="x", region="us-east-1", closed=True)
    gap = Gap(what="ecr", reason=GapReason.FORBIDDEN, by_policy=True)
    region = Estate("closed", Inventory(kinds=["clusters"]), account=closed, scans=Scans(asked=["ecr"], gaps=[gap]))
    for estates in ((region, aws(unscanned())), (aws(unscanned()), region)):
        assert judged(CHECK, *estates) == [(ACCOUNT, 0, ["images: no_source"])]


def test_what_was_refused_in_one_account_is_no_reason_in_another():
    other = aws(gaps=(REFUSED,))
    other.account.id, other.scope = "999988887777", "aws:999988887777:eu-west-1"
    found = judged(CHECK, aws(unscanned()), other)
    assert sorted(found) == [(ACCOUNT, 0, ["images: no_source"]), (other.scope, 0, ["images: forbidden"])]


def test_inspector_answers_for_ecr_alone():
    estates = aws(scan(source="inspector", unfinished="not_scanned")), azure("acme")
    assert judged(CHECK, *estates) == [(ACCOUNT, 0, ["images: not_scanned"])]
    estates = aws(scan(source="inspector", unfinished="not_scanned")), azure("acme")
    assert judged(AZURE, *estates) == [(OWN, 0, ["images: no_source"])]


def test_an_account_that_could_not_be_read_is_unknown():
    estate = aws(listed=False, refused=True)
    estate.scans.asked, estate.inventory.gaps = [], [Gap(what="clusters", reason=GapReason.FORBIDDEN)]
    assert judged(CHECK, estate) == [(ACCOUNT, 0, ["images: forbidden"])]


@pytest.mark.parametrize(
    ("estates", "expected"),
    [
        ((azure(),), [(OWN, 0, [])]),
        ((azure(kinds=("managedClusters",)),), [(OWN, 0, ["images: no_source"])]),
        ((azure("acme"),), [(OWN, 0, ["images: no_source"])]),
        ((azure("acme"), defender(seen_by_defender())), [(ALL_OF_AZURE, 1, [])]),
        ((defender(seen_by_defender(host="acme-d4f3.azurecr.io")), azure("Acme")), [(ALL_OF_AZURE, 1, [])]),
        (
            (azure("acme", "lab"), defender(seen_by_defender())),
            [(ALL_OF_AZURE, 1, []), (OWN, 0, ["images: no_source"])],
        ),
        (
            (azure("acme"), defender(gaps=(Gap(what="defender", reason=GapReason.THROTTLED),))),
            [(OWN, 0, ["images: throttled"])],
        ),
        (
            (azure(gaps=(Gap(what=ContainerRegistry.kind, reason=GapReason.FORBIDDEN),)),),
            [(OWN, 0, ["images: no_source"])],
        ),
    ],
    ids=["no registry", "not asked", "silent", "told", "hash in host", "one of two silent", "throttled", "refused"],
)
def test_what_is_said_of_a_subscription(estates, expected):
    assert judged(AZURE, *estates) == expected


def test_images_of_accounts_that_nobody_reads_stand_for_themselves():
    assert judged(CHECK, defender(scan(source="defender", account="999"))) == [(IMAGES, 1, [])]


@pytest.mark.parametrize("turned", [False, True])
def test_a_source_that_was_refused_in_part_leaves_the_rest_unknown(turned):
    gap = Gap(what="defender", reason=GapReason.THROTTLED)
    estates = [azure("acme"), defender(seen_by_defender(), gaps=(gap,))]
    found = judged(AZURE, *(estates[::-1] if turned else estates))
    assert found == [(ALL_OF_AZURE, 1, []), (OWN, 0, ["images: throttled"])]


def test_an_account_stands_for_its_regions():
    told = seen_by_defender()
    told.region = "westeurope"
    assert judged(AZURE, azure("acme"), defender(told)) == [(ALL_OF_AZURE, 1, [])]


def test_xray_that_was_refused_leaves_its_registries_unknown():
    gap = Gap(what="xray", reason=GapReason.UNREACHABLE)
    source = Estate("jfrog", Inventory(kinds=[]), scans=Scans(asked=["xray"], gaps=[gap]))
    assert judged("jfrog-registry-image-vulns", source) == [("registry:jfrog", 0, ["images: unreachable"])]
    other = Estate("files", Inventory(kinds=[]), scans=Scans(scans=[scan(host="acme.jfrog.io", source="trivy")]))
    found = judged("jfrog-registry-image-vulns", source, other)
    assert found == [("registry:jfrog", 1, []), ("registry:jfrog", 0, ["images: unreachable"])]


def test_nothing_is_said_of_clouds_that_nobody_uses():
    assert judged(CHECK, azure("acme")) == []
