"""From readings to reports and an exit code: what scan, evaluate and demo share."""

from __future__ import annotations

import contextlib
import difflib
import gc
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import checks
from scanner import collect
from scanner import config as configuration
from scanner.check import Check
from scanner.cli.options import Judging, Reporting, statuses
from scanner.collect import Reading, Task
from scanner.config import Config, ConfigError, Selection, Settings
from scanner.engine import INVALID_OBJECT, evaluate
from scanner.exemptions import Exemptions
from scanner.findings import Context
from scanner.inventory import Counts
from scanner.model import Cluster, Gap, GapReason, PlaneState, Status, utc_now
from scanner.report import Ending, Output, ScanInfo
from scanner.summary import Tally

# Several may hold at once: the exit code is the first of these.
EXIT_INTERRUPTED = 130  # as shells report SIGINT
EXIT = {"usage": 2, "nothing_read": 4, "gate_failed": 1, "incomplete": 3, "undelivered": 5}
FORMATS = ("table", "json", "ndjson")


def catalogue() -> dict[str, Check]:
    """Every check by id, with the one that is always on."""
    return dict(sorted({**checks.load(), INVALID_OBJECT.id: INVALID_OBJECT}.items()))


def settings_from(judging: Judging) -> tuple[Settings, Config]:
    config = _config(judging.config)
    selection = Selection(
        profile=judging.profile,
        checks=judging.check,
        exclude=judging.exclude_check,
        refs=judging.ref,
        min_severity=judging.min_severity,
        parameters=judging.param,
        include_system_namespaces=judging.include_system_namespaces,
    )
    return configuration.settings(catalogue(), config, selection), config


def _config(path: Path | None) -> Config:
    default = Path("kubeposture.yaml")
    if path is None and not default.exists():
        return Config()
    return configuration.load(path or default)


class Scan:
    """One run: takes readings, judges each, feeds the outputs, and ends with an exit code."""

    def __init__(self, settings: Settings, config: Config, reporting: Reporting) -> None:
        self.settings, self.reporting = settings, reporting
        try:
            self.listed = statuses(reporting.status)
        except ValueError:
            names = [s.value for s in Status]
            bad = next((p.strip() for p in (reporting.status or "").split(",") if p.strip() not in names), "")
            close = difflib.get_close_matches(bad, names, n=1)
            raise ConfigError(
                f"--status {bad!r} is none of {', '.join(names)}, all"
                + (f"; did you mean {close[0]}?" if close else "")
            ) from None
        self.min_coverage = _percentage(reporting.min_coverage)
        self.id = str(uuid.uuid4())
        self.started_at = utc_now()
        self.tally = Tally()
        self.exemptions = Exemptions(settings.exemptions, configuration.today())
        self.clusters: list[Cluster] = []
        self.gaps: list[tuple[Cluster | None, Gap]] = []
        self.counts = Counts()
        self.warnings: list[str] = []
        self.cluster_counts: dict[str, Counts] = {}
        self.outputs = open_outputs(reporting.output or list(config.outputs) or ["table"], color=not reporting.no_color)

    def run(self, tasks: Sequence[Task], concurrency: int, show: collect.Show) -> int:
        """The exit code. Interrupted, it reports what is complete and names what was not read."""
        readings = collect.run(tasks, concurrency, show)
        code = 0
        try:
            with _collector_off():
                try:
                    for reading in readings:
                        self._judge(reading)
                except KeyboardInterrupt:
                    code = EXIT_INTERRUPTED
                    readings.close()
                    self._give_up(tasks)
                return code or self._finish()
        except BaseException:
            for output in self.outputs:
                output.discard()
            raise

    def _give_up(self, tasks: Sequence[Task]) -> None:
        done = {cluster.name for cluster in self.clusters}
        for task in tasks:
            if task.name not in done and task.provider != "bundle":
                self._judge(collect.unread(task.name, task.provider, task.kinds, GapReason.TIMEOUT, "interrupted"))
        self._finish()

    def _judge(self, reading: Reading) -> None:
        estate = reading.estate
        cluster, inventory = estate.cluster, estate.inventory
        if cluster:
            seen_before = self._seen_before(cluster)
            self.clusters.append(cluster)
            if seen_before:
                return
            self.cluster_counts[cluster.name] = inventory.counts
        self.gaps += [(cluster, gap) for gap in inventory.gaps]
        for field in Counts.__struct_fields__:
            setattr(self.counts, field, getattr(self.counts, field) + getattr(inventory.counts, field))
        context = Context(
            scan_id=self.id,
            scope_id=cluster.id if cluster else f"files:{estate.name}",
            name=estate.name,
            provider=cluster.provider if cluster else "files",
            observed_at=cluster.observed_at if cluster else self.started_at,
            cluster=cluster.ref if cluster else None,
            account=cluster.account if cluster else None,
            region=cluster.region if cluster else None,
            tags=cluster.tags if cluster else {},
            locate=reading.locate,
        )
        for finding in evaluate(inventory, self.settings, context, self.tally, self.exemptions, self.listed):
            for output in self.outputs:
                output.add(finding)

    def _seen_before(self, cluster: Cluster) -> bool:
        """Two contexts may lead to one cluster: it is judged once, unless the first look at it was not complete."""
        first = next((c for c in self.clusters if cluster.uid and c.uid == cluster.uid), None)
        if first is None or first.data_plane is not PlaneState.COMPLETE:
            return False
        self.warnings.append(f"{cluster.name} is the same cluster as {first.name}: reported once, as {first.name}")
        return True

    def _finish(self) -> int:
        reasons = self._exit_reasons()
        code = next((code for reason, code in EXIT.items() if reason in reasons), 0)
        warnings = [*self.settings.warnings, *self.warnings, *self.exemptions.warnings()]
        if not self.counts.read and not self.gaps and not self.counts.invalid:
            warnings.append("nothing to judge: no Kubernetes object was found (files must end in .yaml, .yml or .json)")
        complete = not self._incomplete()
        info = ScanInfo(self.id, self.started_at, utc_now(), self.settings.profile.name, complete, reasons, warnings)
        ending = Ending(
            scan=info,
            clusters=self.clusters,
            gaps=self.gaps,
            counts=self.counts,
            cluster_counts=self.cluster_counts,
            accounts={"expected": 0, "read": 0, "refused": 0},
            summary=self.tally.summary(),
            exit_code=code,
        )
        for output in self.outputs:
            output.finish(ending)
        return code

    # -- exit ---------------------------------------------------------------------------------------------------------

    def _exit_reasons(self) -> list[str]:
        reasons = []
        decided = sum(self.tally.total(s) for s in (Status.PASS, Status.FAIL, Status.NOT_APPLICABLE))
        reached = self.counts.read or any(c.data_plane is not PlaneState.NOT_READ for c in self.clusters)
        if not reached or not (decided or self.tally.exempted):
            reasons.append("nothing_read")
        if self._gate_failed():
            reasons.append("gate_failed")
        if self._incomplete() and not self._tolerated():
            reasons.append("incomplete")
        return reasons

    def _gate_failed(self) -> bool:
        gate = self.reporting.fail_on
        return gate is not None and any(s.rank <= gate.rank for s in self.tally.failing())

    def _incomplete(self) -> bool:
        return bool(self.gaps or self.counts.invalid or self.counts.files_failed or self.tally.total(Status.ERROR)
                    or self.tally.total(Status.UNKNOWN))  # fmt: skip

    def _tolerated(self) -> bool:
        if self.reporting.allow_incomplete:
            return True
        if self.min_coverage is None or not self.counts.lists_asked:
            return False
        return self.counts.lists_read * 100 >= self.min_coverage * self.counts.lists_asked


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    """Views and findings hold no cycles: walking millions of them again and again would double the CPU time."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _percentage(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1
    if not 0 <= value <= 100:
        raise ConfigError(f"--min-coverage {text!r} is not a percentage such as 95%")
    return value


def open_outputs(specs: Iterable[str], *, color: bool) -> list[Output]:
    """FORMAT[=PATH] each, at most one to standard output. Files are opened now, so that a bad path fails early."""
    opened: list[Output] = []
    to_stdout = []
    for spec in specs:
        format, equals, path = spec.partition("=")
        if format not in FORMATS:
            raise ConfigError(
                f"--output {format!r} is none of {', '.join(FORMATS)}{configuration.nearest(format, FORMATS)}"
            )
        if equals and not path:
            raise ConfigError(f"--output {spec!r} names no file after the =")
        target = path if path and path != "-" else None
        if target is None:
            to_stdout.append(format)
        opened.append(_maker(format, color)(target))
    if len(to_stdout) > 1:
        raise ConfigError(f"only one output can go to standard output, not {' and '.join(to_stdout)}: use FORMAT=PATH")
    return opened


def _maker(format: str, color: bool) -> Callable[[str | None], Any]:
    """Imported on use: a JSON report does not need the table's library."""
    if format == "json":
        from scanner.report.to_json import JsonOutput

        return JsonOutput
    if format == "ndjson":
        from scanner.report.ndjson import NdjsonOutput

        return NdjsonOutput
    from scanner.report.table import TableOutput

    return lambda path: TableOutput(path, color=color)
