"""The matrix: every cluster of three clouds beside the questions that their checks answer."""

import csv
import io
import json
import os
from typing import NamedTuple

import aws_data
import azure_data
import gcp_data
import pytest
import yaml
from armserver import ArmServer
from awsserver import AwsServer
from azure_data import ABSENT, merged
from cli import kubeposture
from gcpserver import GcpServer

import checks
from scanner.matrix import matrix
from scanner.model import Cluster, PlaneState, Severity, Status, utc_now
from scanner.questions import QUESTIONS
from scanner.report.matrix import clouds, clusters
from scanner.summary import Tally

PUBLIC = {"endpointPublicAccess": True}
IP = "controlPlaneEndpointsConfig.ipEndpointsConfig"
# One weakness by each cloud's own setting, on top of a cluster in good order.
PLANTED = {
    "api-exposure": (
        {"properties.apiServerAccessProfile.enablePrivateCluster": False},
        {"resourcesVpcConfig": PUBLIC | {"publicAccessCidrs": ["203.0.113.0/24"]}},
        {},
    ),
    "authorized-networks": (
        {"properties.apiServerAccessProfile.enablePrivateCluster": False,
         "properties.apiServerAccessProfile.authorizedIPRanges": []},
        {"resourcesVpcConfig": PUBLIC | {"publicAccessCidrs": ["0.0.0.0/0"]}},
        {f"{IP}.authorizedNetworksConfig": {"enabled": False}},
    ),
    "access": (
        {"properties.disableLocalAccounts": False},
        {"accessConfig": {"authenticationMode": "CONFIG_MAP"}},
        {"legacyAbac": {"enabled": True}},
    ),
    "audit-logs": (
        "no diagnostic setting",
        {"logging": aws_data.logging("api")},
        {"loggingService": "none", "loggingConfig": ABSENT},
    ),
    "secret-encryption": (
        {"properties.securityProfile.azureKeyVaultKms.enabled": False},
        {"encryptionConfig": []},
        {"databaseEncryption": {"state": "DECRYPTED", "currentState": "CURRENT_STATE_DECRYPTED"}},
    ),
    "network-policy": (
        {"properties.networkProfile.networkPolicy": "none"},
        "no engine",
        {"networkConfig.datapathProvider": "LEGACY_DATAPATH"},
    ),
    "threat-detection": (
        {"properties.securityProfile.defender": ABSENT},
        "no detector",
        {"securityPostureConfig": {"mode": "DISABLED"}},
    ),
}  # fmt: skip
PRIVATE = {f"{IP}.enablePublicEndpoint": False}


def changed(wire, changes):
    for path, value in changes.items():
        *above, last = path.split(".")
        nested = {last: value}
        for key in reversed(above):
            nested = {key: nested}
        wire = merged(wire, nested)
    return wire


def aks(name, plant):
    return changed(azure_data.private_cluster(name), plant if isinstance(plant, dict) else {})


def eks(name, plant):
    addons = [aws_data.addon("coredns", name), aws_data.addon("vpc-cni", name, configurationValues="{}")]
    return aws_data.eks(
        name, addons=addons if plant == "no engine" else None, **(plant if isinstance(plant, dict) else {})
    )


@pytest.fixture
def scan(tmp_path, monkeypatch):
    """`scan all` of three clouds: a good cluster in each, and one with the weakness."""
    for name in tuple(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "BOTO", "KUBE", "IDENTITY_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(on_azure, on_aws, on_gcp):
        good, bad = aks("aks-good", {}), aks("aks-bad", on_azure)
        logged = {c["id"]: [azure_data.diagnostic_setting(c["id"])] for c in (good, bad)}
        if isinstance(on_azure, str):
            logged[bad["id"]] = []
        subscription = azure_data.Subscription(
            azure_data.PROD,
            "Production",
            clusters=[good, bad],
            pricings=azure_data.pricings("Containers"),
            versions={"koreacentral": azure_data.kubernetes_versions()},
            diagnostics=logged,
        )
        two = [aws_data.region_of(aws_data.PROD, aws_data.SEOUL, eks("eks-good", {}))]
        two.append(aws_data.region_of(aws_data.PROD, aws_data.VIRGINIA, eks("eks-bad", on_aws)))
        if on_aws == "no detector":
            two[1].detectors.clear()
        account = aws_data.Account(aws_data.PROD, "Production", regions={r.name: r for r in two})
        good_gke = changed(gcp_data.cluster("gke-good"), PRIVATE)
        bad_gke = changed(gcp_data.cluster("gke-bad"), on_gcp)
        project = gcp_data.Project(gcp_data.PROD, clusters=[good_gke, bad_gke])
        with (
            ArmServer(azure_data.Estate.of(subscription)) as arm,
            AwsServer(aws_data.Estate.of(account), moto=False) as aws,
            GcpServer(gcp_data.Estate.of(project)) as gcp,
        ):
            for name, value in {**arm.environment, **aws.environment}.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcp.key_file(tmp_path))
            endpoints = [f"{service}={url}" for service, url in gcp.endpoints.items()]
            targets = [
                {"aks": {"planes": "control", "arm_endpoint": arm.url}},
                {"eks": {"planes": "control"}},
                {"gke": {"planes": "control", "gcp_endpoints": endpoints}},
            ]
            with open("kubeposture.yaml", "w") as file:
                yaml.safe_dump({"targets": targets}, file)
            result = kubeposture("scan", "all", "-o", "json=report.json", "-o", "table")
        return result, json.loads((tmp_path / "report.json").read_text())

    return run


def answers(report, question):
    return {row["cluster"]: row["answers"][question] for row in report["matrix"]["clusters"]}


@pytest.mark.parametrize("question", PLANTED)
def test_one_weakness_on_three_clouds_is_three_fails_in_one_row(scan, question):
    _, report = scan(*PLANTED[question])
    good = {f"{cloud}-good": "pass" for cloud in ("aks", "eks", "gke")}
    assert answers(report, question) == good | {f"{cloud}-bad": "fail" for cloud in ("aks", "eks", "gke")}


def test_the_matrix_is_in_the_table_in_json_and_a_command_of_its_own(scan):
    result, report = scan(*PLANTED["access"])
    [line] = [line for line in result.stdout.splitlines() if line.startswith("RBAC")]
    assert line.split() == ["RBAC,", "no", "local", "accounts", *("1", "of", "2", "fail") * 3]
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert [q["id"] for q in report["matrix"]["questions"]] == list(QUESTIONS)
    shown = kubeposture("matrix", "report.json")
    assert (shown.code, max(map(len, shown.stdout.splitlines())) <= 100) == (0, True)
    assert "aks-bad" in shown.stdout
    table = kubeposture("matrix", "report.json", "-o", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(table)))
    assert {row["cluster"]: row["access"] for row in rows} == answers(report, "access")
    assert json.loads(kubeposture("matrix", "report.json", "-o", "json").stdout) == report["matrix"]


def test_findings_carry_their_question(scan):
    _, report = scan(*PLANTED["access"])
    asked = {f["question"] for f in report["findings"] if f["status"] == "fail"}
    assert {None, "access"} <= asked <= {None, *QUESTIONS}


# -- cells


def cluster(id="c", provider="azure", account="1", region=None, plane=PlaneState.COMPLETE):
    return Cluster(
        id=id, id_source="cloud", cloud_id=id, provider=provider, name=id, account=account, region=region,
        control_plane=plane, observed_at=utc_now(),
    )  # fmt: skip


class Cell(NamedTuple):
    answer: str
    exempted: bool
    reason: str


def cell(question, *counted, exempted=(), rows=None, of=None, selected=None):
    tally = Tally()
    for row, check, status in counted:
        tally.add(row, check, Severity.HIGH, Status(status))
    for row, check, status in exempted:
        tally.add_exempted(row, check, Status(status))
    every = [c for c in checks.load().values() if selected is None or c.id in selected]
    found = matrix(tally, [of or cluster()], every, rows or {})
    if not found.clusters:
        return None
    [row], [asked] = found.clusters, [q for q in found.questions if q.id == question]
    return Cell(row.answers[question], question in row.exempted, asked.absent.get(row.provider, ""))


LOCAL, RBAC = "azure-aks-local-accounts", "azure-aks-rbac"


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        ("pass", "fail", "fail"),
        ("fail", "error", "fail"),
        ("error", "unknown", "error"),
        ("unknown", "pass", "unknown"),
        ("pass", "pass", "pass"),
        ("not_applicable", "pass", "pass"),
        ("not_applicable", "not_applicable", "not_applicable"),
    ],
)
def test_a_cell_is_the_worst_of_its_checks(one, other, answer):
    for statuses in ((one, other), (other, one)):
        found = cell("access", *zip("cc", (LOCAL, RBAC), statuses, strict=True))
        assert (found.answer, found.exempted) == (answer, False)


def test_an_exempted_fail_is_still_a_fail_and_says_so():
    found = cell("access", ("c", RBAC, "pass"), exempted=[("c", LOCAL, "fail")])
    assert (found.answer, found.exempted) == ("fail", True)
    found = cell("access", ("c", RBAC, "fail"), exempted=[("c", LOCAL, "fail")])
    assert (found.answer, found.exempted) == ("fail", False)
    found = cell("access", ("c", RBAC, "fail"), exempted=[("c", LOCAL, "unknown")])
    assert (found.answer, found.exempted) == ("fail", False)


def test_what_is_judged_of_an_account_holds_for_its_clusters():
    scan = "aws-ecr-scan-on-push"
    here = cluster(provider="aws", region="eu")
    rows = {("1", "eu"): "aws:1:eu", ("1", "us"): "aws:1:us"}
    assert cell("image-scanning", ("aws:1:eu", scan, "fail"), rows=rows, of=here).answer == "fail"
    assert cell("image-scanning", ("aws:1:us", scan, "fail"), rows=rows, of=here).answer == "not_judged"


def test_clusters_that_an_account_could_not_list_do_not_darken_those_that_it_could():
    rows = {("1", None): "gcp:1"}
    here = cluster(provider="gcp", region="eu")
    legacy = "gcp-gke-legacy-abac"
    found = cell("access", ("c", legacy, "pass"), ("gcp:1", legacy, "unknown"), rows=rows, of=here)
    assert found.answer == "pass"


def test_where_a_cloud_has_no_such_setting_it_says_so():
    found = cell("auto-repair", ("c", RBAC, "pass"))
    assert (found.answer, found.reason) == ("no_setting", "AKS always repairs nodes")


def test_what_was_not_selected_is_not_judged():
    assert cell("network-policy", ("c", RBAC, "pass"), selected=[RBAC]).answer == "not_judged"
    assert cell("access", ("c", LOCAL, "pass"), selected=["k8s-privileged-container"]) is None


@pytest.mark.parametrize(
    "other",
    [
        cluster(provider="kubernetes"),
        cluster(plane=PlaneState.NOT_ASKED),
        cluster("/subscriptions/s/resourceGroups/g/providers/Microsoft.Kubernetes/connectedClusters/x"),
    ],
    ids=["no cloud", "not asked", "only connected"],
)
def test_only_clusters_of_clouds_are_in_it(other):
    assert cell("access", ("c", RBAC, "pass"), of=other) is None


@pytest.mark.parametrize("provider", ["azure", "aws", "gcp"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_each_cloud_answers_each_question_or_says_why_not(provider, question):
    asked = [c for c in checks.load().values() if c.question == question and c.provider == provider]
    assert bool(asked) is not (provider in QUESTIONS[question].absent)
    assert all(check.on for check in asked)


# -- texts


def many(n):
    tally = Tally()
    for i in range(n):
        tally.add(f"c{i}", RBAC, Severity.HIGH, Status.FAIL if i % 3 else Status.UNKNOWN)
    return matrix(tally, [cluster(f"c{i}") for i in range(n)], checks.load().values(), {})


def test_the_overview_counts_what_fails_and_what_is_not_known():
    [line] = [line for line in clouds(many(300)) if line.startswith("RBAC")]
    assert line.split()[-5:] == ["200", "of", "300", "fail,", "100?"]


def test_lines_fit_however_long_the_names():
    tally = Tally()
    long = cluster("x" * 200 + "\u202e", region="asia-northeast3-a-b")
    tally.add(long.id, RBAC, Severity.HIGH, Status.FAIL)
    found = matrix(tally, [long, *(cluster(f"c{i}") for i in range(12))], checks.load().values(), {})
    lines = list(clusters(found, 100))
    assert max(map(len, lines)) <= 100
    assert all(line.isprintable() for line in lines)
    assert "".join(line.split()[0] for line in lines if line.strip().startswith("xxxx")).count("x") >= 40


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot be read"), ("", "no JSON report"), ("[]", "no JSON report"), ("{}", "no JSON report"),
     ('{"matrix": {"questions": 1}}', "no JSON report")],
)  # fmt: skip
def test_a_file_that_is_no_report_is_told(tmp_path, text, said):
    path = tmp_path / "r.json"
    if text is not None:
        path.write_text(text)
    result = kubeposture("matrix", path)
    assert (result.code, result.stdout) == (2, "")
    assert said in result.stderr


ESCAPE = "\x1b[31m"
QUESTION = {"id": "access", "title": f"T{ESCAPE}", "criterion": f"C{ESCAPE}", "absent": {ESCAPE: ESCAPE}}
ROW = {"cluster_id": "i", "cluster": "=n", "provider": ESCAPE, "account": "+a", "region": None}


@pytest.mark.parametrize("answers", [{}, {"access": f"=cmd(){ESCAPE}"}, {"access": "no_setting"}])
@pytest.mark.parametrize("questions", [[], [QUESTION]])
@pytest.mark.parametrize("form", ["table", "csv"])
def test_a_report_that_somebody_made_up_is_harmless(tmp_path, answers, questions, form):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"matrix": {"questions": questions, "clusters": [{**ROW, "answers": answers}]}}))
    result = kubeposture("matrix", path, "-o", form)
    assert result.code == 0
    if form == "table":
        assert {c for c in result.stdout if not c.isprintable()} <= {"\n"}
    else:
        assert not [field for row in csv.reader(io.StringIO(result.stdout)) for field in row if field[:1] in ("=", "+")]


def test_a_report_without_clouds_has_an_empty_matrix(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('{"matrix": {"questions": [], "clusters": []}}')
    assert "no cluster of a cloud" in kubeposture("matrix", path).stdout
