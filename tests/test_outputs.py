"""Where reports and bundles go: old files are replaced by whole ones or stay, and every failure is one sentence."""

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli import kubeposture, process

from scanner import bundle
from scanner.config import ConfigError
from scanner.destination import Destination, OutputError
from scanner.inventory import Counts
from scanner.kube import printable
from scanner.model import (
    Account,
    Cluster,
    ClusterRef,
    ExemptionNote,
    Finding,
    Gap,
    GapReason,
    PlaneState,
    ResourceRef,
    Severity,
    Status,
)
from scanner.report import Coverage, Ending, ScanInfo, coverage, outputs
from scanner.summary import Score, Tally

ROOT = Path(__file__).parent.parent
SEEDS = ROOT / "fixtures/seeds"
UNHEALTHY = SEEDS / "unhealthy.yaml"
SCAN = ("scan", "manifests", UNHEALTHY)
FORMATS = sorted(outputs.FORMATS)
FULL = "/dev/full"
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason="this system has no /dev/full")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(command):
    """`$K` is the command; its standard streams are what the shell makes of them."""
    environment = {**os.environ, "K": f"{sys.executable} -m scanner", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def is_one_sentence(stderr):
    return stderr.startswith("kubeposture: ") and stderr.count("\n") == 1 and "internal error" not in stderr


# -- what cannot be is said before any file is touched


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["json=x.json", "bogus"], "is none of table, json, ndjson"),
        (["json=x.json", "jsno=y"], "did you mean json?"),
        (["json=x.json", "table=x.json"], "two outputs go to"),
        (["json=x.json", "table=./sub/../x.json"], "two outputs go to"),
        (["ndjson=old.ndjson"], "two outputs go to"),
        (["json=x.json", "table", "json=-"], "only one output can go to standard output, not table and json"),
        (["table", "json=/dev/stdout"], "only one output can go to standard output"),
        (["json=x.json", "table="], "names no file after the ="),
        (["json=x.json", "table=no/such/folder/t.txt"], "no/such/folder/t.txt: cannot be written: No such file"),
        (["json=x.json", "table=."], ".: cannot be written: Is a directory"),
        (["json=x.json", "table=/"], "/: cannot be written: Is a directory"),
    ],
)
def test_impossible_output_leaves_every_file_as_it_was(folder, specs, message):
    (folder / "old.ndjson").write_text("old")
    result = kubeposture(*SCAN, "-o", "ndjson=old.ndjson", *(word for spec in specs for word in ("-o", spec)))
    assert (result.code, result.stdout) == (2, "")
    assert message in result.stderr
    assert is_one_sentence(result.stderr)
    assert names(folder) == ["old.ndjson"]
    assert (folder / "old.ndjson").read_text() == "old"


@pytest.mark.parametrize("format", FORMATS)
def test_folder_is_no_file(folder, format):
    result = kubeposture(*SCAN, "-o", f"{format}={folder}")
    assert (result.code, names(folder)) == (2, [])
    assert "Is a directory" in result.stderr


def test_outputs_of_the_configuration_are_checked_alike(folder):
    (folder / "kubeposture.yaml").write_text('outputs: ["json=a\\0b"]')
    result = kubeposture(*SCAN)
    assert result.code == 2
    assert is_one_sentence(result.stderr)


@pytest.mark.parametrize("path", ["no/such/folder/b.bundle", ".", "/"])
def test_bundle_that_cannot_be_written(folder, path):
    result = kubeposture("collect", "manifests", UNHEALTHY, "-o", path)
    assert result.code == 2
    assert "cannot be written" in result.stderr
    assert is_one_sentence(result.stderr)
    assert names(folder) == []


# -- whole or not at all


def test_old_file_is_replaced_when_the_new_one_is_whole(folder):
    path = folder / "r.json"
    path.write_text("old")
    file = Destination(path)
    file.write(b"new")
    assert path.read_text() == "old"
    file.close()
    file.discard()
    assert path.read_text() == "new"
    assert names(folder) == ["r.json"]


def test_streamed_file_can_be_read_while_the_scan_runs(folder):
    with outputs.opened(outputs.parse(["ndjson=r.ndjson"]), color=False):
        assert names(folder) == ["r.ndjson"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_report_leaves_the_old_one(folder, error):
    (folder / "r.json").write_text("old")
    with contextlib.suppress(error), outputs.opened(outputs.parse(["json=r.json", "table=t.txt"]), color=False):
        assert len(names(folder)) == 3
        raise error
    assert names(folder) == ["r.json"]
    assert (folder / "r.json").read_text() == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_bundle_leaves_the_old_one(folder, error):
    (folder / "b.bundle").write_text("old")
    with contextlib.suppress(error), bundle.written(folder / "b.bundle"):
        assert len(names(folder)) == 2
        raise error
    assert names(folder) == ["b.bundle"]
    assert (folder / "b.bundle").read_text() == "old"


def test_rename_that_fails_leaves_nothing_behind(folder):
    file = Destination(folder / "r.json")
    (folder / "r.json").mkdir()
    with pytest.raises(OutputError, match=r"r\.json: cannot be written: Is a directory"):
        file.close()
    file.discard()
    assert names(folder) == ["r.json"]


def test_link_stays_a_link(folder):
    (folder / "reports").mkdir()
    (folder / "r.json").symlink_to("reports/today.json")
    for _ in range(2):
        kubeposture(*SCAN, "-o", "json=r.json")
        assert (folder / "r.json").is_symlink()
        assert json.loads((folder / "reports/today.json").read_bytes())["schema_version"]
    assert names(folder / "reports") == ["today.json"]


def test_path_may_have_the_longest_name_there_is(folder):
    name = "x" * 255
    assert kubeposture(*SCAN, "-o", f"json={name}").code == 0
    assert names(folder) == [name]


@pytest.mark.parametrize(
    "command",
    [
        *(f"$K scan manifests {SEEDS} -o {format}=old" for format in ("table", "json")),
        f"$K collect manifests {SEEDS} -o old",
    ],
)
def test_full_disk_leaves_the_old_file(folder, command):
    (folder / "old").write_text("old")
    done = shell(f"ulimit -f 0; {command}")  # no file may grow: the next thing to a full disk
    assert done.returncode == 2
    assert "old: cannot be written: File too large" in done.stderr
    assert is_one_sentence(done.stderr)
    assert names(folder) == ["old"]
    assert (folder / "old").read_text() == "old"


# -- devices and pipes are written in place


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout", "-"])
def test_device(folder, format, path):
    result = kubeposture(*SCAN, "-o", f"{format}={path}")
    assert (result.code, result.stderr) == (0, "")
    assert bool(result.stdout) == (path != "/dev/null")
    assert not Path("/dev/null").is_file()
    assert names(folder) == []


def test_bundle_to_a_device():
    assert kubeposture("collect", "manifests", UNHEALTHY, "-o", "/dev/null").code == 0
    assert not Path("/dev/null").is_file()


def read_in_background(path):
    """What arrives at a named pipe."""
    arrived = []
    thread = threading.Thread(target=lambda: arrived.append(path.read_bytes()), daemon=True)
    thread.start()
    return thread, arrived


@pytest.mark.parametrize("format", FORMATS)
def test_named_pipe(folder, format):
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    thread, arrived = read_in_background(pipe)
    assert kubeposture(*SCAN, "-o", f"{format}={pipe}").code == 0
    thread.join(10)
    assert arrived[0]
    assert pipe.is_fifo()


def test_bundle_to_a_named_pipe(folder):
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    thread, arrived = read_in_background(pipe)
    assert kubeposture("collect", "manifests", UNHEALTHY, "-o", pipe).code == 0
    thread.join(10)
    (folder / "b.bundle").write_bytes(arrived[0])
    (estate,) = bundle.read(folder / "b.bundle")
    assert estate.inventory.roots


# -- standard output and full devices


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("redirection", "why"), [(">&-", "it is closed"), (f"> {FULL}", "No space left on device")])
def test_standard_output_that_takes_nothing(format, redirection, why):
    if FULL in redirection and not os.path.exists(FULL):
        pytest.skip("this system has no /dev/full")
    done = shell(f"$K scan manifests {UNHEALTHY} -o {format} {redirection}")
    assert done.returncode == 2
    assert done.stderr == f"kubeposture: standard output: cannot be written: {why}\n"


def test_file_needs_no_standard_output(folder):
    done = shell(f"$K scan manifests {UNHEALTHY} -o json=r.json >&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((folder / "r.json").read_bytes())


def test_report_needs_no_standard_error():
    done = shell(f"$K scan manifests {UNHEALTHY} -o json 2>&-")
    assert done.returncode == 0
    assert json.loads(done.stdout)


@needs_full
@pytest.mark.parametrize("format", FORMATS)
def test_full_device(format):
    result = process(*SCAN, "-o", f"{format}={FULL}", PYTHONPATH=str(ROOT))
    assert result.code == 2
    assert result.stderr == f"kubeposture: {FULL}: cannot be written: No space left on device\n"


@needs_full
def test_bundle_to_a_full_device():
    result = process("collect", "manifests", UNHEALTHY, "-o", FULL, PYTHONPATH=str(ROOT))
    assert result.code == 2
    assert result.stderr == f"kubeposture: {FULL}: cannot be written: No space left on device\n"


@needs_full
def test_output_that_fails_does_not_take_the_others_with_it(folder):
    (folder / "full").symlink_to(FULL)
    result = kubeposture(*SCAN, "-o", f"json={FULL}", "-o", "ndjson=full", "-o", "table", "-o", "json=r")
    assert result.code == 2
    assert is_one_sentence(result.stderr)
    assert "Privileged containers should be avoided" in result.stdout
    assert json.loads((folder / "r").read_bytes())


def without_reader(*args):
    """Run the command with a standard output that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-m", "scanner", *map(str, args)],
            stdout=writer,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize("format", FORMATS)
def test_reader_that_is_gone_is_no_error(format):
    done = without_reader(*SCAN, "-o", format)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("format", FORMATS)
def test_reader_that_is_gone_costs_no_other_report_and_no_gate(folder, format):
    done = without_reader(*SCAN, "-o", format, "-o", "json=r.json", "--fail-on", "high")
    assert (done.returncode, done.stderr) == (1, b"")
    assert json.loads((folder / "r.json").read_bytes())["scan"]["exit_reasons"] == ["gate_failed"]


# -- the table


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
def test_table_on_any_terminal(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "scanner", "demo", "--status", "all"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        timeout=60,
        check=True,
    )
    text = done.stdout.decode(encoding)
    rule, more = ("─", "… ") if encoding == "utf-8" else ("-", "+ ")
    assert rule * 100 in text.splitlines()
    assert any(line.strip().startswith(more) for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 100


def test_file_is_utf_8_whatever_the_terminal_is(folder):
    process("demo", "-o", f"table={folder / 't.txt'}", PYTHONIOENCODING="ascii", PYTHONPATH=str(ROOT))
    assert "─" * 100 in (folder / "t.txt").read_text("utf-8")


def test_no_line_ends_in_blanks():
    lines = kubeposture("demo", "--status", "all").stdout.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []


def test_no_heading_over_nothing_but_exemptions(folder):
    exemption = {"checks": ["k8s-run-as-root"], "reason": "vendor image"}
    (folder / "kubeposture.yaml").write_text(json.dumps({"exemptions": [exemption]}))
    shown = kubeposture(*SCAN, "-c", "k8s-run-as-root").stdout
    assert "1 exempted" in shown
    assert "Fails" not in shown


def on_a_terminal(*args):
    """All that the command writes when standard output and error are one terminal."""
    ours, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    command = [sys.executable, "-m", "scanner", *map(str, args)]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment):
        os.close(terminal)
        written = b""
        with contextlib.suppress(OSError):  # EIO: the command has ended
            while block := os.read(ours, 65536):
                written += block
    os.close(ours)
    return written.decode()


def test_progress_is_gone_before_the_report_is_printed():
    written = on_a_terminal("scan", "manifests", SEEDS)
    progress, report = written.split("Fails", 1)
    assert "\x1b[2K" in progress
    assert "\x1b[2K" not in report
    assert "\x1b[1A" not in report


# -- what goes into reports


@pytest.mark.parametrize(
    ("given", "listed"),
    [
        (None, {"fail"}),
        ("all", {"pass", "fail", "not_applicable"}),
        (" pass", {"pass"}),
        ("pass, fail", {"pass", "fail"}),
    ],
)
def test_status(given, listed):
    report = json.loads(kubeposture(*SCAN, "-o", "json", *(("--status", given) if given else ())).stdout)
    assert {finding["status"] for finding in report["findings"]} == listed


@pytest.mark.parametrize("given", ["fial", "fail,fial", "pass,fial,fail"])
def test_what_is_no_status(given):
    result = kubeposture(*SCAN, "--status", given)
    assert result.code == 2
    assert "--status 'fial' is none of" in result.stderr
    assert "did you mean fail?" in result.stderr


def test_no_status_at_all():
    assert kubeposture(*SCAN, "--status", "").code == 2


def test_counts_add_up_in_every_field():
    one = Counts(*range(1, 1 + len(Counts.__struct_fields__)))
    total = Counts()
    total.add(one)
    total.add(one)
    assert [getattr(total, f) for f in Counts.__struct_fields__] == [
        2 * getattr(one, f) for f in Counts.__struct_fields__
    ]


def test_parsing_opens_nothing(folder):
    with pytest.raises(ConfigError):
        outputs.parse(["json=a", "ndjson=b", "json=a"])
    assert [spec.path for spec in outputs.parse(["json=a", "ndjson=-", "table=b"])] == [Path("a"), None, Path("b")]
    assert names(folder) == []


# -- what the table says of gates and exemptions


@pytest.mark.parametrize(
    ("gate", "code", "sentence"),
    [
        ("high", 1, "gate failed: 2 of severity high or worse"),
        ("critical", 0, "gate passed: nothing of severity critical"),
    ],
)
def test_gate_is_named(gate, code, sentence):
    result = kubeposture("scan", "manifests", UNHEALTHY, "--fail-on", gate)
    assert result.code == code
    assert sentence in result.stdout.splitlines()[-1]


def test_exemptions_are_shown_with_reason_owner_and_end(folder):
    entry = {"checks": ["k8s-run-as-root"], "reason": "vendor image", "owner": "platform", "expires": "2999-12-31"}
    (folder / "kubeposture.yaml").write_text(json.dumps({"exemptions": [entry]}))
    shown = kubeposture("scan", "manifests", UNHEALTHY).stdout
    assert "Exempted" in shown
    assert "k8s-run-as-root until 2999-12-31, platform: vendor image" in " ".join(shown.split())


@pytest.mark.parametrize("share", ["0.95", "1", "-1", "101", "most"])
def test_coverage_that_may_mean_a_share_is_refused(share):
    result = kubeposture("scan", "manifests", UNHEALTHY, "--min-coverage", share)
    assert result.code == 2
    assert "is not a percentage such as 95%" in result.stderr


def test_coverage_is_told_where_it_counts():
    result = kubeposture("scan", "manifests", UNHEALTHY, "missing.yaml", "--min-coverage", "60%")
    assert result.code == 0
    assert "coverage: 67% of lists and documents were read, 60% asked for" in result.stdout


# -- several clusters, accounts and regions: what each is called, and what was not read of it

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COMPLETE, PARTIAL, NOT_READ = PlaneState.COMPLETE, PlaneState.PARTIAL, PlaneState.NOT_READ
A, B = "11111111-2222-4333-8444-555555555555", "11111111-9999-4333-8444-555555555555"  # which start alike
AZURE = "/subscriptions/{}/resourcegroups/{}/providers/microsoft.containerservice/managedclusters/shop"


def cluster(id, name="shop", state=COMPLETE, **fields):
    planes = {"control_plane": state, "data_plane": state}
    return Cluster(
        **{"id_source": "cloud", "provider": "azure", "observed_at": NOW, "id": id, "name": name, **planes, **fields}
    )


def account(id, region=None, name="", **fields):
    return Account(id=id, provider="aws", name=name or f"{id} {region or ''}".strip(), region=region, **fields)


def gap(what="pods", detail="HTTP 403", permission="", reason=GapReason.FORBIDDEN, **fields):
    return Gap(what=what, reason=reason, detail=detail, permission=permission, **fields)


def finding(cluster=None, name="web", status=Status.FAIL, **fields):
    values = {
        "schema_version": "1.0",
        "scan_id": "s",
        "id": f"kp1_{name}",
        "check": "k8s-x",
        "title": "X",
        "reason": "",
        "severity": Severity.HIGH,
        "category": "data_plane",
        "scope": "pod",
        "provider": "azure",
        "message": "bad",
        "remediation": "mend",
        "occurrences": 1,
        "observed_at": NOW,
        "status": status,
        "cluster": cluster.ref if cluster else None,
        "resource": ResourceRef("", "Pod", "a", name),
    }
    return Finding(**{**values, **fields})


def report(format, *clusters, accounts=(), gaps=(), findings=(), former=None, tally=None):
    """What is written of a scan that ended so."""
    read, regions = coverage(accounts)
    ending = Ending(
        scan=ScanInfo("s", NOW, NOW, "recommended", not gaps, [], []),
        clusters=list(clusters),
        gaps=list(gaps),
        counts=Counts(),
        cluster_counts={},
        accounts=read,
        regions=regions,
        former=former or {},
        summary=(tally or Tally()).summary(),
        exit_code=0,
        gate="",
    )
    path = Path("report")
    with outputs.opened(outputs.parse([f"{format}={path}"]), color=False) as written:
        for item in findings:
            written.add(item)
        written.finish(ending)
    text = path.read_text("utf-8")
    assert format != "table" or max(map(len, text.splitlines())) <= 100
    return text


def lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


SAME_NAME = {
    "account": ([(AZURE.format(A, "rg"), A, "koreacentral"), (AZURE.format(B, "rg"), B, "koreacentral")], [A, B]),
    "account, shortened": ([("a", A, "eu"), ("b", "22" + A[2:], "eu")], ["11111111…", "22111111…"]),
    "account of digits": ([("a", "111122223333", "eu"), ("b", "111122224444", "eu")], ["111122223333", "111122224444"]),
    "region": ([("a", A, "koreacentral"), ("b", A, "westeurope")], ["koreacentral", "westeurope"]),
    "one of each": (
        [("a", "1", "koreacentral"), ("b", "2", "koreacentral"), ("c", "2", "westeurope")],
        ["1, koreacentral", "2, koreacentral", "2, westeurope"],
    ),
    "resource group": ([(AZURE.format(A, "blue"), A, "eu"), (AZURE.format(A, "green"), A, "eu")], ["blue", "green"]),
    "context": ([(A, None, None), ("22" + A[2:], None, None)], ["11111111…", "22111111…"]),
}


@pytest.mark.parametrize("case", SAME_NAME)
def test_table_tells_clusters_of_one_name_apart(case):
    given, told = SAME_NAME[case]
    clusters = [cluster(id, account=account, region=region) for id, account, region in given]
    found = [finding(c, name=f"web-{i}") for i, c in enumerate(clusters)]
    text = report("table", cluster("other", name="other"), *clusters, findings=found)
    assert lines(text, "Cluster shop") == [f"Cluster shop ({t})  both planes read completely" for t in told]
    assert [line for line in text.splitlines() if "a/Pod/web-" in line] == [
        f"         shop ({t}): a/Pod/web-{i}  bad" for i, t in enumerate(told)
    ]
    assert "Cluster other  " in text


def test_names_that_only_look_alike_when_cut_are_told_apart():
    text = report("table", *(cluster(id, name="x" * 300) for id in ("first", "second")))
    assert [line.rpartition("(")[2] for line in lines(text, "Cluster")] == [
        "first)  both planes read completely",
        "second)  both planes read completely",
    ]


def test_finding_about_one_of_two_clusters_of_a_name_says_which():
    clusters = [cluster("a", account="1"), cluster("b", account="2"), cluster("c", name="other")]
    found = [
        finding(c, name=c.name, resource=ResourceRef("", "managedClusters", None, c.name, cloud_id=c.id))
        for c in clusters
    ]
    text = report("table", *clusters, findings=found)
    assert [line.strip() for line in text.splitlines() if "managedClusters/" in line] == [
        "shop (1): managedClusters/shop  bad",
        "shop (2): managedClusters/shop  bad",
        "managedClusters/other  bad",
    ]


def test_unread_cluster_does_not_hide_what_was_refused_of_another_of_its_name():
    unread = [finding(c, name="*", status=Status.UNKNOWN) for c in (cluster("a"), cluster("b"))]
    text = report("table", cluster("a", account="1", state=NOT_READ), cluster("b", account="2"), findings=unread)
    _, undecided = text.split("Undecided", 1)
    assert lines(undecided, "  ") == ["  shop (2): Pod in a  1 check undecided"]


def test_unread_cluster_says_so_once_under_whatever_id():
    unread = [finding(c, name="*", status=Status.UNKNOWN) for c in (cluster("context:b"), cluster("b"))]
    former = {"context:b": ClusterRef("b", None, "shop")}
    rows = (cluster("a", account="1"), cluster("b", account="2", state=NOT_READ))
    assert "Undecided" not in report("table", *rows, findings=unread, former=former)


def test_finding_under_the_former_id_of_a_cluster_is_shown_with_its_name():
    clusters = [cluster("a", account="1"), cluster("b", account="2")]
    found = [
        finding(cluster("context:b", name="ctx")),
        finding(cluster("context:b", name="ctx"), name="*", status=Status.UNKNOWN),
        finding(clusters[1], name="*", status=Status.UNKNOWN),
        finding(cluster("context:b", name="ctx"), exemption=ExemptionNote("vendor", "me", None)),
    ]
    text = report("table", *clusters, findings=found, former={"context:b": ClusterRef("b", None, "shop")})
    assert "shop (2): a/Pod/web  bad" in text
    assert "shop (2): Pod in a  2 checks undecided" in text
    assert "shop (2): a/Pod/web  k8s-x  for good, me: vendor" in text
    assert "ctx" not in text


def test_findings_of_accounts_say_which_account_and_region():
    found = [finding(name=f"repository-{r}", account="111122223333", region=r) for r in ("eu-west-1", "us-east-1")]
    rows = [account("111122223333", r) for r in ("eu-west-1", "us-east-1")]
    text = report("table", cluster("a"), accounts=rows, findings=found)
    assert "111122223333 us-east-1: a/Pod/repository-us-east-1  bad" in text


def test_clusters_that_do_not_fit_are_counted_by_what_was_read():
    states = [COMPLETE, COMPLETE, COMPLETE, *[PARTIAL] * 11, *[NOT_READ] * 11]
    rows = [cluster(f"{i:02}", name=f"c{i:02}", state=state) for i, state in enumerate(states)]
    told = report("table", *rows, gaps=[(rows[0], gap())])
    assert "… and 5 more clusters, 2 of them not read completely" in told  # most have said so in their account
    assert len(lines(told, "Cluster")) == 20
    assert "NOT READ" in lines(told, "Cluster")[0]
    complete = [cluster(f"{i:02}", name=f"c{i:02}") for i in range(25)]
    assert "… and 5 more clusters, none of them not read completely" in report("table", *complete)


def test_unread_accounts_and_insides_name_the_right_that_is_missing():
    row, inside = account("111122223333", refused=True), cluster("a", state=NOT_READ)
    closed = [gap(what, "not authorized", "sts:AssumeRole") for what in ("clusters", "repositories")]
    listed = [gap(what, "HTTP 403", f"list {what} in namespace a", namespace="a") for what in ("pods", "jobs")]
    text = report("table", inside, accounts=[row], gaps=[*((row, g) for g in closed), *((inside, g) for g in listed)])
    assert lines(text, "  ") == [
        "  not authorized; needed: sts:AssumeRole",
        "  HTTP 403; needed: list pods, list jobs in namespace a",
    ]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ([gap("pods", "HTTP 403", "list pods")], "pods: forbidden; needed: list pods"),
        ([gap("pods", "HTTP 403"), gap("jobs", "HTTP 403")], "pods, jobs: HTTP 403"),
        ([gap("keys", "no audit log", "k/read", GapReason.NOT_CONFIGURED)], "keys: no audit log; needed: k/read"),
        ([gap("keys", "needs k/read", "k/read", GapReason.NOT_CONFIGURED)], "keys: needs k/read"),
        ([gap("keys", "not k/read", "k/read"), gap("pods", "HTTP 403", "list pods")],
         "keys, pods: forbidden; needed: k/read, list pods"),
    ],
)  # fmt: skip
def test_gap_names_what_is_missing_and_why(given, shown):
    row = cluster("a", state=PARTIAL)
    assert lines(report("table", row, gaps=[(row, g) for g in given]), "  ") == [f"  not read: {shown}"]


def test_gaps_say_where_they_are():
    inside, region = cluster("id-b", account="1", region="eu"), account("111122223333", "us-east-1", refused=True)
    given = [(cluster("id-a"), gap()), (inside, gap()), (region, gap("clusterVersions", by_policy=True)), (None, gap())]
    rows = json.loads(report("json", gaps=given))["gaps"]
    names = ("provider", "account", "region", "cluster", "cluster_id", "what", "by_policy")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("azure", None, None, "shop", "id-a", "pods", False),
        ("azure", "1", "eu", "shop", "id-b", "pods", False),
        ("aws", "111122223333", "us-east-1", None, None, "clusterVersions", True),
        ("files", None, None, None, None, "pods", False),
    ]


# -- how much of accounts and regions was read

ROWS = {
    "nothing": ([], (0, 0, 0), (0, 0, 0), ""),
    "an account without regions": ([account("1")], (1, 1, 0), (0, 0, 0), "1 account read; 0 clusters"),
    "two, one refused": (
        [account("1"), account("2", refused=True)],
        (2, 1, 1),
        (0, 0, 0),
        "1 of 2 accounts read; at least 0 clusters",
    ),
    "some regions refused": (
        [account("1", "a"), account("1", "b"), account("1", "c", refused=True)],
        (1, 1, 0),
        (3, 2, 1),
        "1 account, 2 of 3 regions read; at least 0 clusters",
    ),
    "all regions refused": (
        [account("1", "a"), account("2", "a", refused=True), account("2", "b", refused=True)],
        (2, 1, 1),
        (3, 1, 2),
        "1 of 2 accounts, 1 of 3 regions read; at least 0 clusters",
    ),
    "its regions could not all be listed": (
        [account("1", "a"), account("1", refused=True)],
        (1, 0, 1),
        (1, 1, 0),
        "0 of 1 account, 1 region read; at least 0 clusters",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_coverage_of_accounts_and_regions(case):
    rows, accounts, regions, told = ROWS[case]
    assert coverage(rows) == (Coverage(*accounts), Coverage(*regions))
    found = json.loads(report("json", accounts=rows))["coverage"]
    assert [tuple(found[name].values()) for name in ("accounts", "regions")] == [accounts, regions]
    assert found["clusters"]["expected"] == (None if accounts[2] or regions[2] else 0)
    assert lines(report("table", accounts=rows), "Cloud") == ([f"Cloud  {told}"] if told else [])


def test_regions_that_are_closed_on_purpose_are_one_line_an_account():
    told = "closed by a service control policy: " + ", ".join(f"ap-east-{i}" for i in range(9))
    one, two = account("111122223333", refused=True), account("444455556666", "us-east-1", refused=True)
    gaps = [(one, gap("regions", told, by_policy=True)), (two, gap("a", by_policy=True)), (two, gap("b", "HTTP 403"))]
    text = report("table", accounts=[one, two], gaps=gaps)
    assert lines(text, "Account") == [
        "Account 444455556666 us-east-1  NOT READ",
        "Account 111122223333  closed in part",
    ]
    assert "\n  regions closed by a service control policy: ap-east-0, " in text


# -- the score


def counted(**statuses):
    tally = Tally()
    for status, n in statuses.items():
        tally.add("c", "k8s-x", Severity.HIGH, Status(status), n)
    return tally


@pytest.mark.parametrize(
    ("counts", "bounded", "score"),
    [
        ({"pass": 3, "fail": 1}, True, Score(75.0, 75.0, 75.0)),
        ({"pass": 2, "fail": 1, "unknown": 1}, True, Score(66.6, 50.0, 75.0)),
        ({"pass": 3, "fail": 1}, False, Score(75.0, 0.0, 100.0)),
        ({"pass": 3, "unknown": 1}, False, Score(100.0, 0.0, 100.0)),
        ({}, False, Score(None, 0.0, 100.0)),
        ({}, True, Score(None, None, None)),
    ],
)
def test_score_of_what_was_read_and_its_bounds(counts, bounded, score):
    assert counted(**counts).summary(bounded=bounded).score == score


def test_score_may_be_anything_where_a_cluster_could_not_be_read(folder):
    kubeposture("collect", "manifests", UNHEALTHY, "-o", "good.bundle")
    (folder / "broken.bundle").write_bytes(b"broken")
    done = kubeposture("evaluate", "good.bundle", "broken.bundle", "-o", "json=r.json", "-o", "table")
    score = json.loads((folder / "r.json").read_bytes())["summary"]["score"]
    assert (score["low"], score["high"]) == (0, 100)
    assert f"score {score['value']} of 100 for what was read; with what was not, anything from 0 to 100" in done.stdout


# -- text from outside


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("shop 한글 é 🙂", "shop 한글 é 🙂"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),  # turns what follows around
        ("a\u200bb\u200dc\ufeff", "a\\u200bb\\u200dc\\ufeff"),  # takes no place
        ("a\U000e0041\U000e007f", "a\\U000e0041\\U000e007f"),  # says something that nobody sees
        ("a\x1b[31m\r\n\x9b\u2028", "a\\x1b[31m\\r\\n\\x9b\\u2028"),
        ("a\u00ad\u061c\xa0\ud800", "a\\xad\\u061c\\xa0\\ud800"),
        (ValueError("x\ty"), "x\\ty"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
        ("\u202e" * 10**6, ("\\u202e" * 200)[:199] + "…"),
    ],
)
def test_what_cannot_be_seen_is_shown_by_its_number(given, shown):
    assert printable(given) == shown


def test_table_shows_no_text_that_cannot_be_seen():
    evil = "a\u202e\u200b\U000e0041\x1b[31m"
    row, other = cluster("a", name=evil, version=evil, account="1"), cluster("b", name=evil, account=evil)
    owner = account("1", evil, name=evil, refused=True)
    closed = account("2", evil, refused=True)
    found = [
        finding(row, name=evil, message=evil, title=evil),
        finding(row, name="*", status=Status.UNKNOWN, resource=ResourceRef("", evil, evil, "*")),
        finding(account=evil, region=evil),
        finding(other, name="x", exemption=ExemptionNote(evil, evil, None)),
        finding(cluster(evil, name=evil)),
    ]
    gaps = [(row, gap(evil, evil, evil)), (owner, gap(evil, evil, evil)), (closed, gap(by_policy=True))]
    text = report("table", row, other, accounts=[owner, closed], gaps=gaps, findings=found)
    assert {c for c in text if not c.isprintable()} == {"\n"}
    assert text.count("\\u202e") > 10
