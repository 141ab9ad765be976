"""The sample cluster that `kubeposture demo` judges: what a newcomer sees first, with every check's both answers."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from apiserver import ApiServer
from cli import kubeposture

import checks
from providers.files import documents
from scanner.cli.targets import SAMPLE
from scanner.kube import KINDS, WORKLOADS

WIDTH = 100
DEFAULT_CHECKS = sorted(id for id, check in checks.load().items() if check.on and not check.provider)
# Two checks judge nothing before they are told what is allowed.
CONFIGURED = (
    "--param=k8s-trusted-registries.allowed_registries=acmeshop.azurecr.io",
    "--param=k8s-service-allowed-ports.allowed_ports=443,8443",
)
VARYING = re.compile(r'"(scan_id|id|started_at|finished_at|observed_at)":"([^"]*)"')

Report = dict[str, Any]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a kubeposture.yaml that would be read."""
    monkeypatch.chdir(tmp_path)


def table(*options: str) -> str:
    result = kubeposture("demo", *options)
    assert result.code == 0, result.stderr
    return result.stdout


def report(*options: str) -> Report:
    found: Report = json.loads(table("-o", "json", *options))
    return found


def answers(findings: list[Report]) -> dict[str, set[str]]:
    """Statuses by check."""
    found: dict[str, set[str]] = defaultdict(set)
    for finding in findings:
        found[finding["check"]].add(finding["status"])
    return found


@pytest.mark.parametrize("path", sorted(SAMPLE.glob("*.yaml")), ids=lambda p: p.name)
def test_every_document_of_the_sample_can_be_read(path: Path) -> None:
    for found in documents.read(path.read_bytes()):
        assert isinstance(found, documents.Document), found
        assert {"apiVersion", "kind", "metadata"} <= found.value.keys()


def test_the_demo_ends_well_and_says_nothing_on_standard_error() -> None:
    result = kubeposture("demo")
    assert result.code == 0
    assert result.stderr == ""


def test_every_default_check_passes_and_fails_somewhere() -> None:
    found = answers(report("--status", "all", *CONFIGURED)["findings"])
    assert sorted(found) == DEFAULT_CHECKS
    assert [id for id in DEFAULT_CHECKS if not found[id] >= {"pass", "fail"}] == []


def test_without_configuration_the_rest_fails_too() -> None:
    demo = report()
    assert all("fail" in statuses for statuses in answers(demo["findings"]).values())
    unset = [f["check"] for f in demo["findings"] if f["reason"] == "configuration_required"]
    assert unset == ["k8s-trusted-registries", "k8s-service-allowed-ports"]
    assert 35 <= len(demo["findings"]) <= 60
    assert all(demo["summary"]["by_severity"][severity] for severity in ("high", "medium", "low"))


def test_all_nine_workload_kinds_are_judged() -> None:
    findings = report("--status", "all")["findings"]
    judged = {f["resource"]["kind"] for f in findings if f["scope"] in ("container", "workload")}
    assert judged >= {KINDS[plural].name for plural in WORKLOADS}


def test_a_finding_is_of_the_workload_not_of_its_pods() -> None:
    by_name = {(f["check"], f["resource"]["name"]): f for f in report()["findings"]}
    collector = by_name["k8s-hostpath-volumes", "log-collector"]
    assert (collector["resource"]["kind"], collector["occurrences"]) == ("DaemonSet", 2)
    sidecar = by_name["k8s-container-limits", "cart"]
    assert (sidecar["resource"]["container"], sidecar["occurrences"]) == ("mesh-proxy", 2)
    assert by_name["k8s-run-as-root", "cart"]["resource"]["container"] == "~ephemeral"


def test_owners_and_environments_are_named() -> None:
    resources = [f["resource"] for f in report("--status", "all")["findings"]]
    assert {r["managed_by"] for r in resources} > {"argocd:shop", "flux:flux-system/payments", "helm:data/orders-db"}
    assert {r["labels"].get("team") for r in resources} > {"shop", "payments", "back-office"}


def test_the_gap_is_told_with_the_permission_that_would_close_it() -> None:
    shown = " ".join(table().split())
    assert "not read: pods in payments: forbidden" in shown
    assert "list pods in namespace payments" in shown
    assert "exit code 3" not in shown  # as the demo's is 0
    demo = report()
    assert not demo["scan"]["complete"]
    assert [(g["what"], g["namespace"], g["permission"]) for g in demo["gaps"]] == [
        ("pods", "payments", "list pods in namespace payments")
    ]


def test_what_could_not_be_read_is_unknown_for_each_check_that_reads_pods() -> None:
    unknown = [f["check"] for f in report()["findings"] if f["status"] == "unknown"]
    assert sorted(unknown) == sorted(set(DEFAULT_CHECKS) - {"k8s-https-only", "k8s-service-allowed-ports"})


@pytest.mark.parametrize("options", [(), ("--status", "all"), ("--profile", "defender")], ids=" ".join)
def test_no_line_of_the_table_is_too_wide(options: tuple[str, ...]) -> None:
    assert [line for line in table(*options).splitlines() if len(line) > WIDTH] == []


def test_the_best_namespaces_are_clean() -> None:
    failing = {f["resource"]["namespace"] for f in report()["findings"] if f["status"] == "fail"}
    assert "payments" not in failing
    assert "kube-system" not in failing


def test_an_api_server_with_the_same_objects_gives_the_same_findings(tmp_path: Path) -> None:
    found = (d for path in sorted(SAMPLE.glob("*.yaml")) for d in documents.read(path.read_bytes()))
    with ApiServer(
        [d.value for d in found if isinstance(d, documents.Document)], token="sample-token-of-the-demo"
    ) as api:
        api.deny_cluster_wide("pods")
        api.deny("pods", namespace="payments")
        scan = kubeposture("scan", "kubeconfig", "-o", "json", "--kubeconfig", api.kubeconfig(tmp_path / "config"))
    assert scan.code == 3, scan.stderr
    assert _answers_by_subject(json.loads(scan.stdout)) == _answers_by_subject(report())


def _answers_by_subject(demo: Report) -> list[list[Any]]:
    """Everything that does not depend on how the cluster was reached."""
    keys = ("check", "status", "severity", "reason", "evidence", "occurrences", "pods")
    subject = ("kind", "namespace", "container", "labels", "managed_by")
    return [[f[k] for k in keys] + [f["resource"][k] for k in subject] for f in demo["findings"]]


def test_a_gate_still_fails() -> None:
    assert kubeposture("demo", "--fail-on", "high").code == 1


def test_a_second_run_says_the_same() -> None:
    assert table() == table()
    first, second = (_without_ids(table("-o", "json", "--status", "all")) for _ in range(2))
    assert first == second


def _without_ids(text: str) -> str:
    """The report without what is new in each run; ids of findings stay."""
    return VARYING.sub(lambda m: m[0] if m[2].startswith("kp1_") else f'"{m[1]}":""', text)
