"""make bench: CPU seconds and peak memory of the real command, beside the budgets, with growth exponents.

CPU seconds count user and system time of the scanner's own process; servers and generators run in others. The best of
a few rounds is shown, as noise only ever adds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from manifest_data import manifests
from scan_data import scans

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "scanner"]
REPLICAS = 10
VULNERABILITIES = 200  # in each image


class Cost(NamedTuple):
    cpu: float  # seconds
    memory: float  # MB, peak
    findings: int
    wall: float  # seconds


def measure(
    command: Sequence[str | Path], rounds: int, report: Path | None = None, environment: Mapping[str, str] | None = None
) -> Cost:
    """The cheapest of some runs; exit codes above 1 are failures of the benchmark."""
    costs = []
    for _ in range(rounds):
        started = time.monotonic()
        child = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, **(environment or {})}
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode > 1:
            raise SystemExit(f"{' '.join(map(str, command))}: exit code {child.returncode}")
        costs.append((usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, time.monotonic() - started))
    cpu, memory, wall = map(min, zip(*costs, strict=True))
    return Cost(cpu, memory, fails(report) if report else 0, wall)


def fails(report: Path) -> int:
    """From the report's head alone: this process stays small, as a child's peak memory starts with its parent's."""
    with report.open("rb") as file:
        head, _, _ = file.read(1 << 24).partition(b',"findings":[')
    return int(json.loads(head + b"}")["summary"]["by_status"]["fail"])


@contextlib.contextmanager
def api_server(pods: int, folder: Path) -> Iterator[Path]:
    """A local API server in a process of its own, so that its cost is not the scanner's."""
    kubeconfig = folder / f"kubeconfig-{pods}"
    server = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "tests/apiserver.py")),
            *("--pods", str(pods), "--replicas", str(REPLICAS), "--kubeconfig", str(kubeconfig)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout
        assert server.stdin
        server.stdout.readline()  # it prints one line when it is ready
        yield kubeconfig
    finally:
        server.stdin.close()
        server.wait(timeout=30)
        server.stdout.close()


def write_manifests(count: int, folder: Path) -> Path:
    target = folder / f"manifests-{count}"
    for name, text in manifests(count):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return target


# Reads the same files with PyYAML's C loader and nothing else, as the yardstick for manifests.
YARDSTICK = """
import pathlib, sys, yaml
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.yaml")):
    list(yaml.load_all(path.read_bytes(), yaml.CSafeLoader))
"""


def exponent(points: Sequence[tuple[int, float]]) -> str:
    """Slope between the first and the last point on a double logarithmic scale: 1.0 is linear."""
    (n, a), (m, b) = points[0], points[-1]
    return f"{math.log(b / a) / math.log(m / n):.2f}" if m > n and a > 0 and b > 0 else "-"


class Table:
    def __init__(self) -> None:
        self.over = False
        print(f"{'work':<40}{'CPU s':>9}{'budget':>9}{'MB':>8}{'budget':>9}{'findings':>11}")

    def row(self, work: str, cost: Cost, cpu: float | None = None, memory: float | None = None) -> None:
        over = (cpu is not None and cost.cpu > cpu) or (memory is not None and cost.memory > memory)
        self.over |= over
        budgets = [f"{b:g}" if b is not None else "" for b in (cpu, memory)]
        print(
            f"{work:<40}{cost.cpu:>9.2f}{budgets[0]:>9}{cost.memory:>8.0f}{budgets[1]:>9}{cost.findings:>11,}"
            f"{'  OVER' if over else ''}",
            flush=True,
        )


def bench_start(table: Table, rounds: int) -> Cost:
    help_cost = measure([*COMMAND, "--help"], rounds)
    table.row("--help", help_cost, 0.25)
    table.row("checks list", measure([*COMMAND, "checks", "list"], rounds), 0.25)
    return help_cost


def bench_pods(table: Table, sizes: Sequence[int], rounds: int, folder: Path) -> None:
    budgets = {10_000: (1.5, 120.0), 100_000: (8.0, 160.0)}
    report, costs = folder / "report.json", []
    for pods in sizes:
        with api_server(pods, folder) as kubeconfig:
            command = [*COMMAND, "scan", "kubeconfig", "--kubeconfig", str(kubeconfig), "-o", f"json={report}", "-q"]
            cost = measure(command, rounds, report)
        table.row(f"{pods:,} pods, {pods // REPLICAS:,} workloads", cost, *budgets.get(pods, (None, None)))
        costs.append((pods, cost))
    print(
        f"  growth exponents: CPU {exponent([(n, c.cpu) for n, c in costs])},"
        f" memory {exponent([(n, c.memory) for n, c in costs])}"
    )


def bench_manifests(table: Table, sizes: Sequence[int], rounds: int, folder: Path, start: Cost) -> None:
    report, costs = folder / "report.json", []
    for count in sizes:
        target = write_manifests(count, folder)
        command = [*COMMAND, "scan", "manifests", str(target), "-o", f"json={report}", "-q"]
        yardstick = measure([sys.executable, "-c", YARDSTICK, str(target)], rounds)
        cost = measure(command, rounds, report)
        table.row(f"{count:,} manifests", cost)
        ratio = (cost.cpu - start.cpu) / yardstick.cpu
        over = count == 1000 and ratio > 1
        table.over |= over
        print(
            f"  less --help, over CSafeLoader alone ({yardstick.cpu:.2f} s): {ratio:.2f} x (budget 1.0 at 1,000)"
            f"{'  OVER' if over else ''}"
        )
        costs.append((count, cost))
    print(
        f"  growth exponents: CPU {exponent([(n, c.cpu - start.cpu) for n, c in costs])},"
        f" memory {exponent([(n, c.memory) for n, c in costs])}"
    )


LATENCY = 0.05  # seconds for each answer of a cloud
CONCURRENCY = 16


CLOUDS = {
    "AKS": (
        ["armserver.py"],
        lambda clusters: ["--subscriptions", str(max(1, clusters // 50))],
        lambda place: ["aks", "--arm-endpoint", place["url"]],
    ),
    "EKS": (
        ["awsserver.py"],
        lambda clusters: ["--accounts", "1", "--regions", "10"],
        lambda place: ["eks"],
    ),
    "GKE": (
        ["gcpserver.py"],
        lambda clusters: ["--projects", str(max(1, clusters // 20))],
        lambda place: [
            *("gke", "--organization", place["organization"]),
            *(f"--gcp-endpoint={service}={url}" for service, url in place["endpoints"].items()),
        ],
    ),
}


def bench_cloud(table: Table, cloud: str, sizes: Sequence[int], rounds: int, folder: Path) -> None:
    """The control planes of many clusters, beside the time that waiting for the answers alone takes, or judging where
    they are few."""
    report, costs = folder / "report.json", []
    [script], shape, target = CLOUDS[cloud]
    for clusters in sizes:
        server = subprocess.Popen(
            [
                *(sys.executable, str(ROOT / "tests" / script), "--latency", str(LATENCY)),
                *("--clusters", str(clusters), *shape(clusters)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdin
        assert server.stdout
        place = json.loads(server.stdout.readline())
        command = [
            *(*COMMAND, "scan", *target(place), "--planes", "control"),
            *("--concurrency", str(CONCURRENCY), "-o", f"json={report}", "-q", "--allow-incomplete"),
        ]
        cost = measure(command, rounds, report, place["environment"])
        server.stdin.close()
        requests = int(server.stdout.readline()) // rounds
        server.wait(timeout=30)
        server.stdout.close()
        budget = 200.0 if clusters == 1000 else None
        table.row(f"{clusters:,} {cloud} clusters, {requests:,} requests", cost, None, budget)
        waiting = requests * LATENCY / CONCURRENCY
        ratio = cost.wall / max(waiting, cost.cpu)
        over = clusters == 1000 and ratio > 1.3
        table.over |= over
        print(
            f"  wall time {cost.wall:.1f} s, {waiting:.1f} s of waiting: of the longer of that and the CPU time"
            f" {ratio:.2f} x (budget 1.3){'  OVER' if over else ''}"
        )
        costs.append((clusters, cost))
    print(
        f"  growth exponents: CPU {exponent([(n, c.cpu) for n, c in costs])},"
        f" memory {exponent([(n, c.memory) for n, c in costs])}"
    )


def bench_images(table: Table, sizes: Sequence[int], rounds: int, folder: Path) -> None:
    """Trivy's reports of images in a registry and in a cluster that runs a few of them."""
    budgets = {5_000: 500.0}
    report, costs = folder / "report.json", []
    for images in sizes:
        reports = folder / f"images-{images}"
        reports.mkdir()
        scans(reports, images, VULNERABILITIES)
        with api_server(1_000, folder) as kubeconfig:
            command = [*COMMAND, "scan", "kubeconfig", "--kubeconfig", str(kubeconfig), "-c", "*-image-vulns"]
            given = ["--vulnerabilities", str(reports), "-o", f"json={report}", "-q"]
            cost = measure([*command, *given, "--allow-incomplete"], rounds, report)
        shutil.rmtree(reports)
        table.row(f"{images:,} images, {images * VULNERABILITIES:,} found", cost, None, budgets.get(images))
        costs.append((images, cost))
    print(
        f"  growth exponents: CPU {exponent([(n, c.cpu) for n, c in costs])},"
        f" memory {exponent([(n, c.memory) for n, c in costs])}"
    )


# One night of so many findings in 100 clusters, of which from the second on a twentieth is new and as many are gone.
NIGHT = """
import gc, os, sys
from datetime import UTC, datetime
from pathlib import Path
from scanner.history.lifecycle import Cover
from scanner.model import ClusterRef, Evidence, Finding, ParameterValue, ResourceRef, Severity, Status
sys.excepthook = lambda *error: (sys.__excepthook__(*error), os._exit(2))
gc.disable()
SCAN = "6a4d6a55-6a2f-4b5e-8e5c-1f6f0f3b9a11"
path, count, night = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
at = datetime.fromtimestamp(1_790_000_000 + 86_400 * night, UTC)
def findings():
    for n in range(count):
        name = n + (count if night > 1 and n % 20 == 0 else 0)
        yield Finding(
            schema_version="1", scan_id=SCAN, id=f"kp1_{name:032x}", check=f"k8s-{n % 120:03}", title="A title " * 6,
            status=Status.FAIL, reason="", severity=Severity.HIGH, category="data_plane", scope="container",
            provider="kubernetes", cluster=ClusterRef(f"cluster-{n % 100}", f"uid-{n % 100}", f"prod-{n % 100}"),
            resource=ResourceRef("apps", "Deployment", f"ns-{n % 300}", f"web-{name}", "web", labels={"team": "shop"}),
            message="runs with privileges that it does not need", remediation="Set it to false. " * 4,
            evidence=(Evidence("containers[web].securityContext.privileged", "true"),),
            parameters=(ParameterValue("excluded_images", "[]", "default"),), occurrences=3, observed_at=at)
"""
HISTORY = """
from scanner.history.database import Database
from scanner.history.recorder import Recorder, ScanRow, digest_of
from scanner.history.store import SqliteStore
from scanner.history.telling import Telling
database, sinks = Database(path, now=int(at.timestamp())), tuple(sys.argv[4:])
telling = Telling(sinks, SCAN, {}, path.parent) if sinks else None
recorder = Recorder(SqliteStore(database), at, False, telling)
recorder._params = {f"k8s-{n:03}": "p" * 16 for n in range(120)}
for finding in findings():
    place = finding.cluster.uid
    if (place, finding.check) not in recorder.tonight.covers:
        cover = Cover(params="p" * 16, observed=int(at.timestamp()), asked=("*",), lists=True)
        recorder.tonight.cover((place, finding.check), cover)
    recorder.take(finding, place)
recorder.compare()
recorder.save(ScanRow(SCAN, night, night, True))
if telling:
    telling.close()
"""
DELIVERY = """
from scanner.history.database import Database
from scanner.history.outbox import Outbox
from scanner.sinks.delivery import Delivery
from scanner.sinks.objects import Objects
database = Database(path, now=int(at.timestamp()))
delivery = Delivery("files", Objects(lambda path, data: None, ""), Outbox(database))
delivery.run()
assert delivery.sent, delivery.problem
database.shrink()
"""
NDJSON = """
from scanner.destination import Destination
from scanner.report.ndjson import NdjsonOutput
from scanner.report.ocsf import OcsfOutput
kind = {"ndjson": NdjsonOutput, "ocsf": OcsfOutput}[sys.argv[4]]
output = kind(Destination(path))
for finding in findings():
    output.add(finding)
"""
REPORT = """
import msgspec
names = ("fail", "unknown", "error", "pass", "not_applicable")
summary = {"by_status": dict.fromkeys(names, 0), "by_severity": {}, "exempted": 0, "by_check": {}, "by_cluster": {},
           "score": dict.fromkeys(("value", "low", "high"))}
report = {"scan": {"exit_reasons": []}, "gaps": [], "summary": summary, "findings": list(findings())}
path.write_bytes(msgspec.json.encode(report))
"""


def bench_history(table: Table, count: int, folder: Path) -> None:
    """So many findings, with and without somebody to tell; what delivers, compares and writes as many."""

    def night(name: str, code: str, path: Path, number: int, *more: str) -> None:
        command = [sys.executable, "-c", NIGHT + code, path, str(count), str(number), *more]
        table.row(f"{name}, {count:,}", measure(command, 1))

    alone, told = folder / "alone.db", folder / "told.db"
    for number, which in ((1, "first night"), (2, "second")):
        night(f"history, {which}", HISTORY, alone, number)
    for number, which in ((1, "baseline"), (2, "5% changes")):
        night(f"history and outbox, {which}", HISTORY, told, number, "files")
        print(f"  {told.stat().st_size / 1e6:.0f} MB on disk, {alone.stat().st_size / 1e6:.0f} MB without the outbox")
        night(f"delivery, {which}", DELIVERY, told, number)
    for kind in ("ndjson", "ocsf"):
        night(f"-o {kind}", NDJSON, folder / "findings", 1, kind)
    reports = [folder / "a.json", folder / "b.json"]
    for number, path in enumerate(reports, 1):
        measure([sys.executable, "-c", NIGHT + REPORT, path, str(count), str(number)], 1)
    table.row(f"diff, {count:,}", measure([*COMMAND, "diff", *reports, "-o", "json"], 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pods", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--manifests", type=int, nargs="*", default=[200, 1_000, 5_000])
    parser.add_argument("--clusters", type=int, nargs="*", default=[100, 1_000])
    parser.add_argument("--images", type=int, nargs="*", default=[1_000, 5_000])
    parser.add_argument("--history", type=int, default=200_000)
    options = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = bench_start(table, options.rounds)
        if options.pods:
            bench_pods(table, options.pods, options.rounds, folder)
        if options.manifests:
            bench_manifests(table, options.manifests, options.rounds, folder, start)
        if options.images:
            bench_images(table, options.images, options.rounds, folder)
        if options.history:
            bench_history(table, options.history, folder)
        for cloud in CLOUDS:
            if options.clusters:
                bench_cloud(table, cloud, options.clusters, options.rounds, folder)
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"all runs together: {own.ru_utime + own.ru_stime:.0f} CPU s")
    if table.over:
        raise SystemExit("a budget does not hold")


if __name__ == "__main__":
    main()
