"""Where reports and bundles go: old files are replaced by whole ones or stay, and every failure is one sentence."""

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cli import kubeposture, process

from scanner import bundle
from scanner.config import ConfigError
from scanner.destination import Destination, OutputError
from scanner.inventory import Counts
from scanner.report import outputs

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
