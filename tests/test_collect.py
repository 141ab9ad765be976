"""Side by side reading: crashes stay alone, readings stream, an interrupt reports what is there."""

import gzip
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from apiserver import ApiServer, hang
from cli import kubeposture
from cluster_data import populate

from scanner import bundle, collect
from scanner.collect import Estate, Pending, Reading, Task
from scanner.inventory import Inventory
from scanner.model import GapReason, PlaneState

ROOT = Path(__file__).parent.parent


def estate(name):
    return Estate(name, Inventory(kinds=["pods"]))


def task(name, read):
    return Task(name, read, frozenset({"pods"}), "kubernetes")


def readings(*tasks, concurrency=2):
    return {r.estate.name: r.estate for r in collect.run(tasks, concurrency, lambda *_: None)}


def test_a_crash_is_a_gap_of_its_own_target(caplog):
    def crash(progress):
        raise RuntimeError("token=hunter2")

    found = readings(task("good", lambda progress: [Reading(estate("good"))]), task("bad", crash))
    assert found["good"].cluster is None
    bad = found["bad"]
    assert bad.cluster is not None
    assert bad.cluster.data_plane is PlaneState.NOT_READ
    assert [(g.what, g.reason) for g in bad.inventory.gaps] == [("pods", "bad_data")]
    assert "hunter2" not in caplog.text + str(bad)


def test_what_a_task_read_before_it_crashed_counts():
    def read(progress):
        yield Reading(estate("first"))
        raise RuntimeError

    assert set(readings(task("both", read))) == {"first", "both"}


def test_no_more_is_read_than_was_asked_for_at_once():
    running, most = set(), []

    def read(progress):
        running.add(threading.get_ident())
        most.append(len(running))
        time.sleep(0.01)
        running.discard(threading.get_ident())
        return [Reading(estate(str(len(most))))]

    list(collect.run([task(str(i), read) for i in range(8)], 3, lambda *_: None))
    assert max(most) <= 3


def test_many_readings_of_one_task_are_not_held():
    held = []

    def read(progress):
        for i in range(20):
            held.append(i)
            yield Reading(estate(str(i)))

    for seen, _ in enumerate(collect.run([task("bundle", read)], 1, lambda *_: None), 1):
        assert len(held) <= seen + 2


def test_interrupt_ends_at_once_and_reports_what_was_read(tmp_path):
    with ApiServer() as good, ApiServer() as stuck:
        populate(good, 20)
        stuck.inject("/", hang())
        config = good.kubeconfig(tmp_path / "config", context="a-good", others={"b-stuck": stuck})
        command = [sys.executable, "-m", "scanner", "scan", "kubeconfig", "--kubeconfig", config, "--context", "*"]
        child = subprocess.Popen([*command, "-o", f"json={tmp_path / 'r.json'}"], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 20
        while not (
            good.requests and stuck.requests and good.requests[-1].path.startswith("/apis/aquasecurity.github.io/")
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        _, error = child.communicate(timeout=10)
    report = json.loads((tmp_path / "r.json").read_bytes())
    assert child.returncode == 130
    assert {c["name"]: c["data_plane"] for c in report["clusters"]} == {"a-good": "complete", "b-stuck": "not_read"}
    assert {g["detail"] for g in report["gaps"]} == {"interrupted"}
    assert b"Traceback" not in error


# In a process of its own: an interrupted scan leaves without waiting for its threads.
INTERRUPTED = """
import os, signal
from scanner import cli
from scanner.cli import judge
genuine = judge.evaluate
def interrupted(*args):
    judge.evaluate = genuine
    os.kill(os.getpid(), signal.SIGINT)
    return genuine(*args)
judge.evaluate = interrupted
cli.run()
"""


def test_what_is_being_judged_when_interrupted_is_judged_to_its_end(tmp_path):
    with ApiServer() as one, ApiServer() as two:
        populate(one, 20)
        populate(two, 20)
        config = one.kubeconfig(tmp_path / "config", context="a", others={"b": two})
        command = ["scan", "kubeconfig", "--kubeconfig", config, "--context", "*", "--concurrency", "1", "-o", "json"]
        whole = json.loads(kubeposture(*command).stdout)
        python = [sys.executable, "-c", INTERRUPTED]
        result = subprocess.run([*python, *command], capture_output=True, check=False, cwd=ROOT)
    assert result.stdout, result.stderr
    report = json.loads(result.stdout)
    assert (result.returncode, report["scan"]["complete"]) == (130, False)
    assert {c["name"]: c["data_plane"] for c in report["clusters"]} == {"a": "complete", "b": "not_read"}
    assert {g["cluster"] for g in report["gaps"]} == {"b"}
    of_a = [{f["id"] for f in r["findings"] if (f["cluster"] or {}).get("name") == "a"} for r in (whole, report)]
    assert of_a[0] == of_a[1]


def entry(given, lost=None, provider="kubernetes"):
    return Pending(Task("a", lambda progress: [], frozenset({"pods"}), provider, lost), given)


@pytest.mark.parametrize(
    ("pending", "owes"),
    [
        (entry([]), True),
        (entry(["a"]), False),
        (entry(["context of another name"]), False),
        (entry(["first estate"], provider="bundle"), True),
        (entry(["first account"], lost=lambda *_: Reading(estate("all"))), True),
        (entry(["all"], lost=lambda *_: Reading(estate("all"))), False),
    ],
    ids=["nothing given", "itself", "its only one", "one of a bundle's", "one of many", "its last"],
)
def test_what_a_task_still_owes_when_interrupted(pending, owes):
    assert (pending.rest(GapReason.TIMEOUT, "interrupted") is not None) is owes


def test_a_target_that_cannot_even_say_that_it_was_lost_is_in_the_report():
    def crash(*_):
        raise ValueError("odd")

    (only,) = collect.run([Task("a", crash, frozenset({"pods"}), "azure", crash)], 1, lambda *_: None)
    assert only.estate.name == "a"
    assert [gap.what for gap in only.estate.inventory.gaps] == ["pods"]


# -- bundles


def lines(*values):
    return gzip.compress(b"".join(msgspec.json.encode(v) + b"\n" for v in values))


HEADER = {
    "format": bundle.FORMAT,
    "version": bundle.VERSION,
    "tool_version": "0.1.0",
    "created_at": "2026-01-01T00:00:00Z",
}
DAMAGED = {
    "no gzip": (b"hello", "not a whole bundle"),
    "cut short": (lines(HEADER, {"name": "x"})[:-12], "not a whole bundle"),
    "another format": (lines({"format": "zip"}), "is not a kubeposture bundle"),
    "another version": (lines({**HEADER, "version": 99}), "bundle version 99"),
    "no JSON": (gzip.compress(msgspec.json.encode(HEADER) + b"\n{"), "is damaged"),
    "another shape": (lines(HEADER, {"name": 5}), "is damaged"),
    "empty": (b"", "is not a kubeposture bundle"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_bundle_is_unread_and_says_why(tmp_path, case):
    content, message = DAMAGED[case]
    path = tmp_path / "b.bundle"
    path.write_bytes(content)
    result = kubeposture("evaluate", path, "-o", "json")
    report = json.loads(result.stdout)
    assert result.code == 4
    assert report["gaps"][0]["detail"].startswith(str(path))
    assert message in report["gaps"][0]["detail"]
    assert report["summary"]["by_status"]["pass"] == 0


def test_what_stands_before_the_damage_is_judged(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\n"
        "spec: {containers: [{name: a, image: a, securityContext: {privileged: true}}]}\n"
    )
    whole = tmp_path / "b.bundle"
    kubeposture("collect", "manifests", tmp_path / "a.yaml", "-o", whole)
    whole.write_bytes(gzip.compress(gzip.decompress(whole.read_bytes()) + b'{"name":'))
    result = kubeposture("evaluate", whole, "-o", "json", "-c", "k8s-privileged-container")
    assert result.code == 3
    assert {f["status"] for f in json.loads(result.stdout)["findings"]} == {"fail", "unknown"}
