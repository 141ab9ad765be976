"""Every fixture below fixtures/checks/<check id>/: what it is named after, and what it says, word for word.

`UPDATE_GOLDEN=1 pytest tests/test_checks.py` writes the texts anew; read the difference before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import FIXTURES, judge_fixture, line, objects, statuses

import checks
from scanner.aws import AwsRegion, EcrRepository
from scanner.azure import AzureSubscription, SecurityConnector
from scanner.gcp import ArtifactRepository
from scanner.model import Finding

FOLDER = FIXTURES / "checks"
PATHS = sorted(FOLDER.glob("*/*.yaml"))
FOLDERS = sorted({p.parent for p in PATHS})

# name of a fixture up to its first dash -> (one of these, and none of these)
MEANING = {
    "pass": ({"pass"}, {"fail", "unknown", "error"}),
    "fail": ({"fail"}, set()),
    "na": ({"not_applicable"}, {"pass", "fail", "unknown", "error"}),
    "unknown": ({"unknown"}, {"fail", "error"}),
}
WORKLOAD_KINDS = {
    "Pod", "PodTemplate", "ReplicationController", "ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job",
    "CronJob",
}  # fmt: skip


def expected(path: Path) -> str:
    return path.stem.partition("-")[0]


def mine(path: Path) -> list[Finding]:
    return [f for f in judge_fixture(path) if f.check == path.parent.name]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_fixture_shows_what_it_is_named_after(path: Path) -> None:
    some, none = MEANING[expected(path)]
    found = statuses(mine(path))
    assert some <= found
    assert not found & none


@pytest.mark.parametrize("path", PATHS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_fixture_is_understood(path: Path) -> None:
    assert not [line(f) for f in judge_fixture(path) if f.check == "k8s-invalid-object"]


def golden(folder: Path) -> str:
    """All findings of one check's fixtures, one a line."""
    blocks = (f"# {p.name}\n" + "".join(f"{line(f)}\n" for f in mine(p)) for p in sorted(folder.glob("*.yaml")))
    return "\n".join(blocks)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_findings_read_as_before(folder: Path) -> None:
    path = folder / "expected.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(golden(folder), encoding="utf-8")
    assert golden(folder) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("check", checks.load())
@pytest.mark.parametrize("answer", MEANING)
def test_every_check_has_every_answer(check: str, answer: str) -> None:
    if answer == "na" and checks.load()[check].scope in (
        AzureSubscription,
        SecurityConnector,
        EcrRepository,
        AwsRegion,
        ArtifactRepository,
    ):
        return  # they are not created or deleted while a scan looks
    assert [p for p in PATHS if p.parent.name == check and expected(p) == answer], f"no fixture {check}/{answer}-*.yaml"


def test_no_fixture_without_its_check() -> None:
    assert {p.name for p in FOLDERS} == set(checks.load())
    assert {expected(p) for p in PATHS} <= set(MEANING)
    assert {p.parent for p in FOLDER.glob("*/*")} == set(FOLDERS)


def test_every_workload_kind_appears() -> None:
    kinds = {o.get("kind") for p in PATHS for o in objects(p.read_text(encoding="utf-8"))}
    assert kinds >= WORKLOAD_KINDS
