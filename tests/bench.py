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
        print(f"{'work':<34}{'CPU s':>9}{'budget':>9}{'MB':>8}{'budget':>9}{'findings':>11}")

    def row(self, work: str, cost: Cost, cpu: float | None = None, memory: float | None = None) -> None:
        over = (cpu is not None and cost.cpu > cpu) or (memory is not None and cost.memory > memory)
        self.over |= over
        budgets = [f"{b:g}" if b is not None else "" for b in (cpu, memory)]
        print(
            f"{work:<34}{cost.cpu:>9.2f}{budgets[0]:>9}{cost.memory:>8.0f}{budgets[1]:>9}{cost.findings:>11,}"
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


HISTORY = """
import gc, sys
from pathlib import Path
from scanner.history.database import Database
from scanner.history.lifecycle import About, Cover, Seen, Tonight, compare
from scanner.history.recorder import ScanRow
from scanner.history.store import SqliteStore
path, count, night = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
gc.disable()
history = SqliteStore(Database(path, now=night))
before, tonight = history.load(), Tonight()
for n in range(count):
    check, cluster = f"k8s-{n % 120:03}", f"cluster-{n % 100}"
    tonight.cover((cluster, check), Cover(params="p" * 16, observed=night, asked=("*",), lists=True))
    id = f"kp1_{n + (count if night > 1 and n % 20 == 0 else 0):032x}"
    tonight.seen[id] = Seen(
        check=check, place=cluster, namespace=f"ns-{n % 300}", kind="Deployment", name=f"web-{n}", container="web",
        cluster=cluster, account="", severity="high", status="fail", reason="", exempted=False, about=About.OBJECT,
        params="p" * 16, digest=f"{n:016x}", observed=night, fails=True)
changes = dict(compare(before.known, tonight, before.last))
history.save(ScanRow("scan", night, night, True), tonight, before, changes)
"""


def bench_history(table: Table, count: int, folder: Path) -> None:
    """The first night of so many findings, and the second, when a twentieth is new and as many are gone."""
    path = folder / "history.db"
    for night, name in ((1, "first"), (2, "second")):
        cost = measure([sys.executable, "-c", HISTORY, str(path), str(count), str(night)], 1)
        table.row(f"history, {count:,} findings, {name}", cost)
    print(f"  {path.stat().st_size / 1e6:.0f} MB on disk")


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
