"""From readings to reports and an exit code: what scan, evaluate and demo share."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

import msgspec

from scanner import collect, resources
from scanner.cli.ending import decided, ending_of, is_incomplete, is_tolerated, notes
from scanner.cli.interrupts import interrupts
from scanner.cli.judge_images import ImageJudging, IndexOf, keep, source_row
from scanner.cli.options import Reporting
from scanner.cli.progress import progress
from scanner.cli.settings import percentage, statuses
from scanner.cloud import JOINED, CloudResource
from scanner.clusters import Clusters, Row, known_by
from scanner.collect import Estate, Pending, Reading, Task
from scanner.config import Config, ConfigError, Plan, Settings
from scanner.destination import PipeClosed, drop_stdout
from scanner.engine import LISTED, UNCONFIGURED, evaluate
from scanner.exemptions import Exemptions
from scanner.findings import Context, shown
from scanner.images import Group
from scanner.inventory import Counts, Inventory
from scanner.joined import Joined
from scanner.kube import KINDS
from scanner.model import (
    WORST_FIRST,
    Account,
    Cluster,
    ClusterRef,
    Finding,
    Gap,
    GapReason,
    PlaneState,
    Severity,
    Status,
    utc_now,
)
from scanner.report import outputs
from scanner.summary import Tally
from scanner.vulnerable import Vulnerable

if TYPE_CHECKING:
    from scanner.cli.remember import Memory

NOT_ASKED = PlaneState.NOT_ASKED
_CLEAN = (Status.PASS, Status.NOT_APPLICABLE)


class Scan:
    """One run: takes readings, judges each, feeds the outputs, and ends with an exit code."""

    def __init__(
        self, settings: Settings, config: Config, reporting: Reporting, index_of: IndexOf | None = None
    ) -> None:
        self.settings, self.reporting = settings, reporting
        self.listed = statuses(reporting.status)
        self.min_coverage = percentage(reporting.min_coverage)
        self.id = str(uuid.uuid4())
        self.started_at = utc_now()
        self.plans_of = _by_resource(plan for plan in settings.plans if plan.check.category != "vulnerability")
        self.index_of = index_of
        self.images = ImageJudging.of(settings.plans, self.started_at, settings.known_exploited)
        self.tally = Tally()
        self.exemptions = Exemptions(settings.exemptions, date.today())
        self.clusters = Clusters()
        self.accounts: dict[tuple[str, str | None], Account] = {}
        self.account_rows: dict[tuple[str, str | None], str] = {}  # what results of accounts are counted under
        self.gaps: list[tuple[Cluster | Account | None, Gap]] = []
        self.counts = Counts()
        self.warnings: list[str] = []
        self.scopes: set[tuple[str, str]] = set()
        self.answers: dict[str, tuple[Status, Severity, bool]] = {}  # by finding id; the last: counted, not exempted
        self.pending: list[Pending] = []
        self.waiting: list[_Waiting] = []  # insides of clusters of which other readings may know more
        self.of_files = False
        self.mixed = False  # whether one cluster may be reached in several ways
        self.joined = Joined()
        self.late: list[tuple[Row, Reading, tuple[Plan, ...]]] = []  # whose checks need what other readings say
        self.judging: Cluster | None = None
        self.inside: list[tuple[Row, str]] = []  # scopes of what was judged inside clusters
        self.specs = outputs.parse(reporting.output or config.outputs or ["table"])
        self.memory = _memory(reporting, config, settings, self.id, self.started_at)
        self.history = self.memory.recorder if self.memory else None
        if self.memory:
            self.memory.lists_resolved = self._has_events
        self.incomplete = False
        self.former: dict[str, ClusterRef] = {}
        self.vulnerable = self._vulnerable() if reporting.emit_cves else None
        self.interrupted = False

    def run(self, tasks: Sequence[Task], concurrency: int, *, quiet: bool) -> int:
        """The exit code. Interrupted, it reports what is complete and names what was not read."""
        self.of_files = any(task.provider == "files" for task in tasks)
        ways = [task.provider for task in tasks if task.provider not in ("files", "images")]
        self.mixed = len(ways) > 1 and set(ways) != {"kubernetes"}
        opened = outputs.opened(self.specs, color=not self.reporting.no_color)
        with _collector_off(), opened as self.outputs, interrupts() as self.stop:
            try:
                # The progress ends before a report is printed: it would wipe out lines of it.
                with (
                    progress(quiet) as show,
                    contextlib.closing(collect.run(tasks, concurrency, show, self.pending, self.stop)) as readings,
                ):
                    for reading in readings:
                        self._judge(reading)
                self._judge_waiting()
            except KeyboardInterrupt:
                self.interrupted = True
                self._give_up()
                if self.history:  # what was not reached is not gone, what was new is new the next time too
                    self.warnings.append("interrupted: the history stays as it was")
            return self._finish()

    @property
    def _has_events(self) -> bool:
        return any(spec.name == "ocsf" for spec in self.specs)

    def _vulnerable(self) -> Vulnerable:
        """Raises ConfigError where there is nothing to gather, or nobody to tell it to."""
        if not self._has_events:
            raise ConfigError("--emit-cves needs events to write to: -o ocsf or -o ocsf=PATH")
        if not self.settings.needs_scans:
            raise ConfigError("--emit-cves needs a check of images, such as -c '*-image-vulns': none is selected")
        return Vulnerable(self.settings.known_exploited)

    def _give_up(self) -> None:
        if self.index_of:
            self.index_of = None  # nothing more is asked
            gap = Gap(what="registries", reason=GapReason.TIMEOUT, detail="interrupted", time=utc_now())
            self.gaps.append((source_row(gap.what), gap))
        if self.judging:  # what it has not shown yet is lost
            gap = Gap(what="findings", reason=GapReason.TIMEOUT, detail="interrupted while judging", time=utc_now())
            self.gaps.append((self.judging, gap))
            self.judging.data_plane = PlaneState.PARTIAL
        for entry in list(self.pending):  # what still runs may find more
            if reading := entry.rest(GapReason.TIMEOUT, "interrupted"):
                self._judge(reading)
        self._judge_waiting()

    def _judge(self, reading: Reading) -> None:
        """At once, but for what other readings may know more of."""
        estate = reading.estate
        cluster, account, gaps = estate.cluster, estate.account, estate.inventory.gaps
        self.joined.take(estate)
        if self.history:
            self.history.take_sources(estate.scans)
        self.images.take(estate)
        if account:
            self._take_account(account, estate.scope)
        if not cluster:
            self._judge_without_cluster(reading)
            return
        self.counts.add(estate.inventory.counts)
        row, again = self.clusters.join(estate, cluster)
        if self.memory:
            self.memory.look_at(row, estate)
        if again:
            self.warnings.append(f"{estate.name} is a cluster that another target shows too: it is reported once")
        self.gaps += [(row.cluster, gap) for gap in (*gaps, *estate.scans.gaps) if gap.what not in KINDS]
        self._judge_outside(row, reading)
        if cluster.data_plane is not NOT_ASKED:
            named = row.cluster.uid and row.cluster.cloud_id
            if cluster.data_plane is PlaneState.NOT_READ or (self.mixed and not named):
                self.waiting.append(_Waiting(row, cluster.data_plane, zlib.compress(msgspec.msgpack.encode(estate), 1)))
            else:
                self._judge_inside(row, reading)

    def _take_account(self, account: Account, scope: str) -> None:
        known = self.accounts.setdefault((account.id, account.region), account)
        known.refused = known.refused and account.refused  # refused by one look and read by another is read
        known.closed = known.closed and account.closed
        self.account_rows[account.id, account.region] = scope

    def _judge_without_cluster(self, reading: Reading) -> None:
        """Files, an account, or a source of vulnerabilities and nothing else."""
        estate = reading.estate
        account, gaps = estate.account, estate.inventory.gaps
        if account and account.closed:
            return  # told for all regions of the account together, at the end
        self.counts.add(estate.inventory.counts)
        if self.memory:
            self.memory.look(estate)
        if not (account or estate.inventory.kinds):
            self.gaps += [(source_row(estate.name), gap) for gap in estate.scans.gaps]
            return
        self.gaps += [(account, gap) for gap in (*gaps, *estate.scans.gaps)]
        self._evaluate(reading, estate.scope or f"files:{estate.name}", None, self._plans(estate), "account")
        if self.history and account and not account.refused and account.data_plane is not NOT_ASKED:
            self.history.listed(self.plans_of.get(None, ()), estate.scope, estate.observed_at)

    def _judge_outside(self, row: Row, reading: Reading) -> None:
        """What its cloud says of the cluster."""
        estate = reading.estate
        plans = [
            plan for kind in {type(item) for item in estate.inventory.cloud} for plan in self.plans_of.get(kind, ())
        ]
        late = tuple(plan for plan in plans if JOINED.keys() & set(plan.needs))
        at_once = tuple(plan for plan in plans if not JOINED.keys() & set(plan.needs))
        part = ", ".join(sorted(type(item).kind for item in estate.inventory.cloud))  # Arc's is not the cloud's own
        self._evaluate(reading, row.cluster.id, row, at_once, part)
        if late:
            inventory = Inventory(kinds=estate.inventory.kinds, cloud=estate.inventory.cloud)
            alone = Estate(estate.name, inventory, estate.cluster, observed_at=estate.observed_at)
            self.late.append((row, Reading(alone), late))

    def _judge_inside(self, row: Row, reading: Reading) -> None:
        estate = reading.estate
        self.gaps += [(row.cluster, gap) for gap in estate.inventory.gaps if gap.what in KINDS]
        scope = row.cluster.uid or estate.scope or row.cluster.id
        self.inside.append((row, scope))
        self.images.take_inside(row, scope, estate)
        self._evaluate(reading, scope, row, self.plans_of.get(None, ()), "inside")

    def _judge_waiting(self) -> None:
        """When all that is known of each cluster is together. What no reading has shown of its inside is unknown."""
        for waiting in sorted(self.waiting, key=lambda waiting: _FULLEST.index(waiting.plane)):
            row, estate = self.clusters.row_of(waiting.row), waiting.estate()
            if waiting.plane is not PlaneState.NOT_READ or row.cluster.data_plane is PlaneState.NOT_READ:
                self._judge_inside(row, Reading(estate))
            else:
                self.counts.lists_asked -= estate.inventory.counts.lists_unread
        self.waiting.clear()
        self.joined.finish(self.clusters.rows)
        for joined, reading, plans in self.late:
            row = self.clusters.row_of(joined)
            needs = {name for plan in plans for name in plan.needs}
            for resource in reading.estate.inventory.cloud:
                beside = self.joined.beside(resource, row)
                resource.related = {**resource.related, **beside}
                # Azure's are told by its accounts.
                self.gaps += [(row.cluster, gap) for name in row.agents if name in needs for gap in beside[name].gaps]
            self._evaluate(reading, row.cluster.id, row, plans, "late")
        self.late.clear()
        if self.index_of:
            for gap in self.images.resolve(self.index_of, self.stop.is_set):
                self.gaps.append((source_row(gap.what), gap))
                if self.history:
                    self.history.sources_lack = True
            if self.memory:
                for registry in self.images.asked:
                    self.memory.look(Estate(registry, Inventory(kinds=[])))
        self.images.judge(self._evaluate_images, self.clusters.row_of)

    def _evaluate_images(
        self,
        estate: Estate,
        scope_id: str,
        row: Row | None,
        plans: tuple[Plan, ...],
        part: str,
        images: Iterable[Group],
    ) -> None:
        self._evaluate(Reading(estate), scope_id, row, plans, part, images)

    def _evaluate(
        self,
        reading: Reading,
        scope_id: str,
        row: Row | None,
        plans: tuple[Plan, ...],
        part: str,
        images: Iterable[Group] = (),
    ) -> None:
        estate = reading.estate
        cluster, account = row.cluster if row else None, estate.account
        if not plans:
            return
        again = (scope_id, part) in self.scopes
        self.scopes.add((scope_id, part))
        context = Context(
            scan_id=self.id,
            scope_id=scope_id,
            name=estate.name,
            provider=cluster.provider if cluster else account.provider if account else "files",
            observed_at=estate.observed_at,
            cluster=cluster.ref if cluster else None,
            account=cluster.account if cluster else account.id or None if account else None,
            region=cluster.region if cluster else account.region if account else None,
            tags=cluster.tags if cluster else {},
            locate=reading.locate,
            unlisted=resources.clusters_of(account.provider) if account and part == "account" else (),
        )
        self.judging = cluster
        tally = Tally() if again else self.tally
        settings = dataclasses.replace(self.settings, plans=plans)
        listed = self.listed | LISTED
        if self.history:
            former = {row.cluster.id, *row.former, *estate.former} - {scope_id} if row else set()
            self.history.cover(
                plans,
                scope_id,
                estate.inventory,
                estate.observed_at,
                inside=part in ("inside", "running"),
                hidden=context.unlisted,
                also=former if part == "inside" else (),
                aliases=[id for id in estate.former if known_by(id) and id != scope_id] if part == "inside" else (),
            )
            listed |= self.history.wanted
        on_vulnerable = functools.partial(keep, self.vulnerable) if self.vulnerable else None
        found = evaluate(estate.inventory, settings, context, tally, self.exemptions, listed, images, on_vulnerable)
        for finding in found:
            self._add(finding, scope_id, again=again, counted_as=cluster.id if cluster else scope_id)
        if again and not decided(self):
            self.tally.counts.update({key: n for key, n in tally.counts.items() if key[3] in _CLEAN})
        self.judging = None
        gc.collect()
        gc.freeze()

    def _plans(self, estate: Estate) -> tuple[Plan, ...]:
        """The checks that are about files, or an account. A plane that was not asked for leaves nothing unknown."""
        account = estate.account
        if not account:
            return self.plans_of.get(None, ())
        # Clusters come one by one; an account answers for those that could not be listed.
        hidden = account.refused and account.data_plane is not NOT_ASKED
        inside = (*self.plans_of.get(None, ()), *self.images.of_running(account.provider)) if hidden else ()
        outside = (
            plan
            for kind, plans in self.plans_of.items()
            if kind and kind.provider == account.provider and account.control_plane is not NOT_ASKED
            if kind.scope_name != "cluster"
            or estate.inventory.gaps_of((kind.kind,))
            or kind.kind not in estate.inventory.kinds
            for plan in plans
        )
        return (*inside, *outside)

    def _add(self, finding: Finding, place: str, *, again: bool, counted_as: str) -> None:
        """An id is reported once, however many ways lead to its subject: the worst answer stands.

        `again` is whether this is a second look at its scope, which adds what the first did not show.
        """
        if self.history and finding.status in _CLEAN:
            self.history.clean(finding, place)
            if finding.status not in self.listed:
                return
        before = self.answers.get(finding.id)
        if before and WORST_FIRST.index(before[0]) <= WORST_FIRST.index(finding.status):
            return
        self.answers[finding.id] = (finding.status, finding.severity, finding.exemption is None)
        if again and finding.status in LISTED:
            self._recount(counted_as, finding, before)
        if self.history and finding.status in LISTED:
            finding = self.history.take(finding, place)
        if finding.status in self.listed:
            self.outputs.add(finding)

    def _recount(self, row: str, finding: Finding, before: tuple[Status, Severity, bool] | None) -> None:
        """What a second look shows takes the place of what the first one showed."""
        if before:
            status, severity, counted = before
            if counted:
                self.tally.add(row, finding.check, severity, status, -1)
            else:
                self.tally.add_exempted(row, finding.check, status, -1)
        if finding.exemption:
            self.tally.add_exempted(row, finding.check, finding.status)
            return
        self.tally.add(row, finding.check, finding.severity, finding.status)
        if finding.reason == UNCONFIGURED:
            self.tally.ungated[finding.severity] += 1

    def _closed(self) -> Iterator[tuple[Account, Gap]]:
        """Of each account one gap for its regions that are closed on purpose."""
        by_id: dict[str, list[Account]] = {}
        for account in self.accounts.values():
            if account.closed:
                by_id.setdefault(account.id, []).append(account)
        for id, rows in by_id.items():
            regions = sorted(row.region or "" for row in rows)
            detail = f"closed by a service control policy: {', '.join(regions)}"
            gap = Gap(what="regions", reason=GapReason.FORBIDDEN, detail=detail, by_policy=True, time=utc_now())
            yield Account(id=id, provider=rows[0].provider, name=id, refused=True), gap

    def _nameless(self) -> Iterator[tuple[Cluster, Gap]]:
        """Clusters of which nobody can tell tonight that they are known: all that is in them would be new."""
        scopes = self.history.nameless if self.history else ()
        found = [self.clusters.row_of(row) for row, scope in self.inside if scope in scopes]
        for number, row in enumerate(found):
            if row not in found[:number]:
                why = "so nothing in this cluster is compared with what is known of it"
                gap = Gap(
                    what="namespaces",
                    namespace="kube-system",
                    reason=GapReason.FORBIDDEN,
                    detail=f"its uid is not known, {why}",
                    permission="get namespace kube-system",
                    time=utc_now(),
                )
                yield row.cluster, gap

    def _finish(self) -> int:
        self.gaps += [*self._closed(), *self._nameless()]
        self.gaps.sort(key=lambda row: (row[0].name if row[0] else "", row[1].what, row[1].namespace))
        self.former = {old: row.cluster.ref for row in self.clusters.rows for old in row.former}
        self.tally.rename({old: ref.id for old, ref in self.former.items()})
        for row in self.clusters.rows:
            row.cluster.tags = shown(row.cluster.tags, self.settings.labels)
        self.warnings += [*notes(self), *self.exemptions.warnings()]
        self.incomplete = is_incomplete(self) and not is_tolerated(self)
        if self.memory:
            self._keep(self.memory)
        ending = ending_of(self)
        try:
            self.outputs.finish(ending)
        except PipeClosed:
            drop_stdout()  # `| head` has seen enough: that changes nothing about the answer
        return ending.exit_code

    def _keep(self, memory: Memory) -> None:
        """To the history. What cannot be written there is in the report all the same."""
        if self.interrupted:
            self.history = None
            memory.give_up(ending_of(self))
        else:
            memory.save(
                self.id, self.started_at, lambda: ending_of(self), lambda row: self.clusters.row_of(row).cluster.id
            )
        memory.close()
        if memory.failed:
            self.warnings.append(f"history: {memory.failed}")


@dataclasses.dataclass(frozen=True, slots=True)
class _Waiting:
    """The inside of a cluster, packed: of large clusters many may wait."""

    row: Row
    plane: PlaneState
    packed: bytes

    def estate(self) -> Estate:
        return msgspec.msgpack.decode(zlib.decompress(self.packed), type=Estate)


def _memory(reporting: Reporting, config: Config, settings: Settings, id: str, at: datetime) -> Memory | None:
    """Imported on use: most runs remember nothing."""
    if not (reporting.history or reporting.fail_on_new or reporting.deliver):
        return None
    from scanner.cli.remember import remember

    return remember(reporting, config, settings, id, at)


# A second look at a cluster adds what the first one did not show.
_FULLEST = (PlaneState.COMPLETE, PlaneState.PARTIAL, PlaneState.NOT_READ)


def _by_resource(plans: Iterable[Plan]) -> dict[type[CloudResource] | None, tuple[Plan, ...]]:
    """Under the cloud resource that each check judges, None for what runs inside clusters or stands in files."""
    found: dict[type[CloudResource] | None, tuple[Plan, ...]] = {}
    for plan in plans:
        kind = resources.resource_of(plan.check.scope)
        found[kind] = (*found.get(kind, ()), plan)
    return found


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
