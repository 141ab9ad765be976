"""evaluate(): inventory -> findings. Pure: no I/O, no clock. Owns every loop, so that a check sees one subject."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from scanner import image_ref
from scanner.check import INVALID_OBJECT, Check, LabelSelector
from scanner.cloud import JOINED, CloudPart, CloudResource, scope_id
from scanner.config import Plan, Settings
from scanner.exemptions import Exemptions
from scanner.findings import Context, Findings
from scanner.images import Group, RegistryImage, RunningContainer, together
from scanner.inventory import EPHEMERAL, Invalid, Inventory, Root, Shape
from scanner.kube import Container, Ingress, Resource, Service, Workload, printable
from scanner.model import (
    WORST_FIRST,
    Finding,
    GapReason,
    MissingEvidence,
    Severity,
    Status,
    Verdict,
    not_applicable,
)
from scanner.owners import RootKey
from scanner.scope import excludes, in_namespace, selects, windows
from scanner.summary import Tally

LISTED = frozenset({Status.FAIL, Status.UNKNOWN, Status.ERROR})
UNCONFIGURED = "configuration_required"
OnVulnerable = Callable[[Plan, Group, Finding], None]  # takes images that fail, with the finding
_RANK = {status: i for i, status in enumerate(WORST_FIRST)}
_EXCLUDED = not_applicable("excluded")
_WINDOWS = not_applicable("windows")
_NO_SUBJECTS = not_applicable("no_subjects")


def evaluate(
    inventory: Inventory,
    settings: Settings,
    context: Context,
    tally: Tally,
    exemptions: Exemptions,
    listed: frozenset[Status] = LISTED,
    images: Iterable[Group] = (),
    on_vulnerable: OnVulnerable | None = None,
) -> Iterator[Finding]:
    """Judge everything; yields findings whose status is `listed`, counts all of them in `tally`."""
    run = _Run(inventory, settings, context, tally, exemptions, listed | LISTED)
    run.on_vulnerable = on_vulnerable
    for finding in run.findings(images):
        if finding.status in listed:
            yield finding


@dataclass(slots=True)
class _Outcome:
    """All verdicts on one subject of one check: the worst is the finding's."""

    verdicts: list[tuple[Verdict, Shape | None]] = field(default_factory=list)

    def worst(self) -> Verdict:
        """With the evidence of every verdict that is as bad, each piece once."""
        if len(self.verdicts) == 1:
            return self.verdicts[0][0]
        first = min((v for v, _ in self.verdicts), key=_badness)
        evidence = {e for v, _ in self.verdicts if v.status is first.status for e in v.evidence}
        return msgspec.structs.replace(first, evidence=tuple(sorted(evidence, key=lambda e: (e.path, e.value))))

    def shapes(self, status: Status) -> list[Shape]:
        found = {id(s): s for v, s in self.verdicts if s is not None and v.status is status}
        return list(found.values())


@dataclass(slots=True)
class _Unconfigured:
    """A required parameter that nobody set: what it left undecided, and the values seen."""

    subjects: int = 0
    seen: Counter[str] = field(default_factory=Counter)


class _Run:
    def __init__(
        self,
        inventory: Inventory,
        settings: Settings,
        context: Context,
        tally: Tally,
        exemptions: Exemptions,
        built: frozenset[Status],
    ) -> None:
        self.inventory, self.settings, self.context = inventory, settings, context
        self.tally, self.exemptions, self.built = tally, exemptions, built
        self.row = context.cluster.id if context.cluster else context.scope_id  # what results are counted under
        self.findings_of: dict[str, Findings] = {}  # by cloud id
        self.common = Findings(context, settings.labels, inventory.namespace_labels)
        self.on_vulnerable: OnVulnerable | None = None
        self.broken: dict[RootKey, set[str | None]] = defaultdict(set)  # identity -> containers, None for all
        for item in inventory.invalid:
            self.broken[identity(item.resource)].add(item.container)
        self.judged: Counter[str] = Counter()
        self.unconfigured: dict[str, _Unconfigured] = defaultdict(_Unconfigured)
        self.plans = [plan for plan in settings.plans if self._collected(plan)]
        self._namespaces: dict[tuple[str, str], bool] = {}
        self._here: dict[str, frozenset[str]] = {}
        everything = LabelSelector()
        self.selective = any(p.values.get("label_selector", everything) != everything for p in settings.plans)

    def findings(self, images: Iterable[Group]) -> Iterator[Finding]:
        inventory = self.inventory
        by_scope: dict[type, list[Plan]] = defaultdict(list)
        for plan in self.plans:
            by_scope[plan.check.scope].append(plan)
        for root in inventory.roots:
            yield from self._root(root, by_scope[Container], by_scope[Workload])
        yield from self._subjects(by_scope[Service], [(s, s.resource) for s in inventory.services])
        yield from self._subjects(by_scope[Ingress], [(i, i.resource) for i in inventory.ingresses])
        named = [*(r.resource for r in inventory.roots), *(s.resource for s in inventory.services), *inventory.others]
        yield from self._subjects(by_scope[Resource], [(resource, resource) for resource in named])
        for item in inventory.cloud:
            yield from self._cloud_resource(item, by_scope)
        for group in images:
            yield from self._images(group, by_scope)
        yield from self._not_understood()
        for plan in self.settings.plans:
            yield from self._gaps(plan)
        for plan in self.plans:
            yield from self._summary_rows(plan)

    # -- subjects -----------------------------------------------------------------------------------------------------

    def _root(self, root: Root, containers: list[Plan], workloads: list[Plan]) -> Iterator[Finding]:
        outcomes: dict[tuple[str, str], _Outcome] = defaultdict(_Outcome)
        plans = {p.check.id: p for p in (*containers, *workloads)}
        resource = root.resource
        for shape in root.shapes:
            view = shape.workload
            labels = dict(view.labels)
            here = self._in_scope_here(plans, resource.namespace, labels)
            for plan in workloads:
                verdict = self._workload_verdict(plan, view) if plan.check.id in here else _EXCLUDED
                outcomes[plan.check.id, ""].verdicts.append((verdict, shape))
            for c in view.containers:
                key = EPHEMERAL if c.kind == "ephemeral" else c.name
                for plan in containers:
                    if c.kind == "ephemeral" and not plan.check.ephemeral:
                        continue
                    verdict = self._container_verdict(plan, c) if plan.check.id in here else _EXCLUDED
                    outcomes[plan.check.id, key].verdicts.append((verdict, shape))
        for (id, key), outcome in outcomes.items():
            yield from self._report(plans[id], resource, key, outcome)

    def _container_verdict(self, plan: Plan, c: Container) -> Verdict:
        if excludes(plan, c):
            return _EXCLUDED
        if plan.check.linux_only and windows(plan, c):
            return _WINDOWS
        return self._run(plan, c)

    def _workload_verdict(self, plan: Plan, view: Workload) -> Verdict:
        if plan.check.linux_only and windows(plan, view):
            return _WINDOWS
        if plan.values.get("excluded_images") or plan.values.get("excluded_containers"):
            kept = tuple(c for c in view.containers if not excludes(plan, c))
            if not kept and not view.invalid_containers:
                return _EXCLUDED
            view = msgspec.structs.replace(view, containers=kept)
        return self._run(plan, view)

    def _subjects(self, plans: Iterable[Plan], subjects: Iterable[tuple[Any, Resource]]) -> Iterator[Finding]:
        """Each subject of one identity; several are one finding, the worst."""
        same: dict[RootKey, list[tuple[Any, Resource]]] = defaultdict(list)
        for subject, resource in subjects:
            same[identity(resource)].append((subject, resource))
        for plan in plans:
            for group in same.values():
                outcome = _Outcome([(self._subject_verdict(plan, s, r), None) for s, r in group])
                yield from self._report(plan, group[0][1], "", outcome)

    def _subject_verdict(self, plan: Plan, subject: Any, resource: Resource) -> Verdict:
        return self._run(plan, subject) if self._in_scope(plan, resource.namespace, resource.labels) else _EXCLUDED

    def _cloud_resource(self, resource: CloudResource, by_scope: Mapping[type, list[Plan]]) -> Iterator[Finding]:
        """The resource and each of its parts, under its own region and tags; two parts of one name are one finding."""
        why = _unjudged(resource)
        for scope, row, subjects in _cloud_subjects(resource):
            context = replace(self.context, scope_id=scope_id(row.cloud_id), region=resource.region, tags=resource.tags)
            self.findings_of[row.cloud_id] = Findings(context, self.settings.labels, {})
            for plan in by_scope[scope]:
                outcome = _Outcome([(why or self._run(plan, subject), None) for subject in subjects])
                yield from self._report(plan, row, "", outcome)

    def _images(self, group: Group, by_scope: Mapping[type, list[Plan]]) -> Iterator[Finding]:
        for plan in by_scope[type(group.subjects[0])]:
            verdict, pods = self._image_verdict(plan, group)
            outcome = _Outcome([(verdict, None)])
            for finding in self._report(plan, group.resource, group.key, outcome, occurrences=pods):
                if self.on_vulnerable and finding.status is Status.FAIL:
                    self.on_vulnerable(plan, group, finding)
                yield finding

    def _image_verdict(self, plan: Plan, group: Group) -> tuple[Verdict, int]:
        """Of all images of a container together, and how many pods run one that is as bad."""
        containers = [c for c in group.subjects if isinstance(c, RunningContainer)]
        if not containers:
            return self._run(plan, group.subjects[0]), 1
        labels = group.labels or (group.resource.labels,)
        if not any(self._in_scope(plan, group.resource.namespace, each) for each in labels):
            return _EXCLUDED, 1
        kept = [c for c in containers if not excludes(plan, c)]
        if not kept:
            return _EXCLUDED, 1
        verdict = self._run(plan, together(kept))
        if len(kept) == 1:
            return verdict, kept[0].pods
        return verdict, sum(c.pods for c in kept if self._run(plan, c).status is verdict.status)

    def make(
        self, check: Check, verdict: Verdict, severity: Severity, resource: Resource, *args: Any, **more: Any
    ) -> Finding:
        findings = self.findings_of.get(resource.cloud_id, self.common)
        return findings.make(check, verdict, severity, resource, *args, **more)

    def _run(self, plan: Plan, subject: Any) -> Verdict:
        if isinstance(subject, MissingEvidence):
            return _missing(subject)
        try:
            verdict: Any = plan.check.run(subject, **plan.kwargs)
        except MissingEvidence as missing:
            return _missing(missing)
        except Exception as error:  # noqa: BLE001 - a check that crashes is a visible result, never a silent pass
            return Verdict(Status.ERROR, "check_crashed", printable(f"{type(error).__name__}: {error}"))
        if not isinstance(verdict, Verdict):
            return Verdict(Status.ERROR, "check_crashed", "the check gave no verdict")
        if verdict.status is Status.FAIL and not plan.configured:
            return msgspec.structs.replace(verdict, reason=UNCONFIGURED, message=_unset(plan.check))
        return verdict

    def _beside_broken(self, resource: Resource, key: str) -> bool:
        """Whether this very subject, or the pod that it is a part or the whole of, was in part not understood."""
        broken = self.broken.get(identity(resource), ()) if self.broken else ()
        return None in broken or key in broken or (not key and bool(broken))

    def _report(
        self, plan: Plan, resource: Resource, key: str, outcome: _Outcome, occurrences: int = 0
    ) -> Iterator[Finding]:
        verdict = outcome.worst()
        self.judged[plan.check.id] += 1
        if verdict.status is Status.PASS and self._beside_broken(resource, key):
            return  # what could not be understood is reported as such, and nothing passes beside it
        if verdict.reason == UNCONFIGURED and not self.settings.profile.unconfigured_per_object:
            self._count_unconfigured(plan, verdict)
            return  # told once for all, below
        severity = verdict.severity or plan.severity
        if verdict.status not in self.built:
            self.tally.add(self.row, plan.check.id, severity, verdict.status)
            return
        shapes = outcome.shapes(verdict.status)
        pods = tuple(sorted({n for s in shapes for n in s.names})[:10])
        source = next((s.source for s in shapes if s.source), resource.source)
        finding = self.make(
            plan.check, verdict, severity, resource, key,
            parameters=plan.parameters, occurrences=occurrences or sum(s.pods for s in shapes) or 1, pods=pods,
            source=source,
        )  # fmt: skip
        # An exemption by label holds only where every pod that fails carries the label.
        on_all = dict(set.intersection(*(set(s.workload.labels) for s in shapes))) if shapes else {}
        cloud = self.findings_of.get(resource.cloud_id)
        yield self._counted(finding, {**(cloud.context.tags if cloud else {}), **on_all, **resource.labels})

    # -- what could not be judged -------------------------------------------------------------------------------------

    def _not_understood(self) -> Iterator[Finding]:
        merged: dict[tuple[RootKey, str], list[Invalid]] = defaultdict(list)
        for item in self.inventory.invalid:
            merged[identity(item.resource), item.container or ""].append(item)
        for items in merged.values():
            first = items[0]
            message = printable("; ".join(sorted({i.message for i in items})), 500)
            verdict = Verdict(Status.ERROR, "not_understood", message)
            finding = self.make(
                INVALID_OBJECT, verdict, INVALID_OBJECT.severity, first.resource, first.container or "",
                occurrences=len(items), source=first.resource.source,
            )  # fmt: skip
            yield self._counted(finding, first.resource.labels)

    def _gaps(self, plan: Plan) -> Iterator[Finding]:
        """One `unknown` for each list that was refused: what was not seen is not clean."""
        hidden = () if plan.check.provider else self.context.unlisted
        for gap in self.inventory.gaps_of(hidden or plan.subjects):
            if gap.namespace != "*" and not self._in_namespace(plan, gap.namespace):
                continue
            yield from self._unknown(plan, gap.what, gap.namespace, gap.reason.value, gap.sentence)
        for plural in () if hidden else self._not_collected(plan):
            message = f"{plural} were not collected: collect again with this check selected"
            yield from self._unknown(plan, plural, "*", "not_collected", message)

    def _unknown(self, plan: Plan, plural: str, namespace: str, reason: str, message: str) -> Iterator[Finding]:
        self.judged[plan.check.id] += 1
        provider = plan.check.provider
        outside = provider or self.context.unlisted or plan.check.scope is RegistryImage
        resource = Resource(group="", kind=plural, namespace="" if outside else namespace, name="*")
        verdict = Verdict(Status.UNKNOWN, reason, printable(message, 400))
        finding = self.make(plan.check, verdict, plan.severity, resource, "", parameters=plan.parameters)
        yield self._counted(finding, {})

    def _not_collected(self, plan: Plan) -> list[str]:
        have = set(self.inventory.kinds)
        return [plural for plural in (*plan.subjects, *plan.needs) if plural not in have and plural not in JOINED]

    def _collected(self, plan: Plan) -> bool:
        return not self._not_collected(plan)

    def _summary_rows(self, plan: Plan) -> Iterator[Finding]:
        kind = "Cluster" if self.context.cluster else "Account" if self.context.account else "Files"
        row = Resource(group="", kind=kind, namespace="", name=self.context.scope_id)
        missing = self.unconfigured.get(plan.check.id)
        if missing and not self.settings.profile.unconfigured_per_object:
            seen = ", ".join(f"{printable(value, 80)} ({n})" for value, n in missing.seen.most_common(5))
            # Quoted, as it is there to be pasted and the names come from manifests.
            values = shlex.quote(",".join(printable(value, 80) for value, _ in missing.seen.most_common(5)))
            option = f"--param {plan.check.id}.{plan.check.required[-1]}={values}"
            message = f"{_unset(plan.check)}: {missing.subjects} not judged; seen {seen}; to allow these: {option}"
            verdict = Verdict(Status.FAIL, UNCONFIGURED, message)
            finding = self.make(
                plan.check, verdict, plan.severity, row, "", parameters=plan.parameters, occurrences=missing.subjects
            )
            yield self._counted(finding, {})
        elif not self.judged[plan.check.id] and not self.inventory.invalid:  # one of those might be a subject
            self.tally.add(self.row, plan.check.id, plan.severity, Status.NOT_APPLICABLE)
            if Status.NOT_APPLICABLE in self.built:
                yield self.make(plan.check, _NO_SUBJECTS, plan.severity, row, "", parameters=plan.parameters)

    def _count_unconfigured(self, plan: Plan, verdict: Verdict) -> None:
        missing = self.unconfigured[plan.check.id]
        missing.subjects += 1
        for evidence in verdict.evidence:
            image = evidence.path.endswith(".image")
            missing.seen[image_ref.parse(evidence.value).registry if image else evidence.value] += 1

    # -- scope parameters ---------------------------------------------------------------------------------------------

    def _in_namespace(self, plan: Plan, namespace: str) -> bool:
        key = plan.check.id, namespace
        if key not in self._namespaces:
            self._namespaces[key] = in_namespace(plan, namespace)
        return self._namespaces[key]

    def _in_scope_here(self, plans: Mapping[str, Plan], namespace: str, labels: Mapping[str, str]) -> Set[str]:
        """Ids of the checks of pods that judge this one. Mostly the namespace decides alone, so that is kept."""
        if self.selective:
            return {id for id, plan in plans.items() if self._in_scope(plan, namespace, labels)}
        if namespace not in self._here:
            self._here[namespace] = frozenset(id for id, plan in plans.items() if self._in_namespace(plan, namespace))
        return self._here[namespace]

    def _in_scope(self, plan: Plan, namespace: str, labels: Mapping[str, str]) -> bool:
        return self._in_namespace(plan, namespace) and selects(plan.values["label_selector"], labels)

    def _counted(self, finding: Finding, labels: dict[str, str]) -> Finding:
        """With its exemption, counted."""
        note = self.exemptions.note(finding, labels) if finding.status in LISTED else None
        if note:
            self.tally.add_exempted(self.row, finding.check, finding.status)
            return msgspec.structs.replace(finding, exemption=note)
        self.tally.add(self.row, finding.check, finding.severity, finding.status)
        if finding.reason == UNCONFIGURED:
            self.tally.ungated[finding.severity] += 1
        if finding.reason == GapReason.NO_SOURCE:
            self.tally.unasked += 1
        return finding


def _badness(verdict: Verdict) -> tuple[int, int, str]:
    """Of two fails the graver one comes first, a check's own severity before any that it lowered."""
    return _RANK[verdict.status], verdict.severity.rank if verdict.severity else -1, verdict.message


def identity(resource: Resource) -> RootKey:
    path = resource.source.scope if resource.source else ""
    return RootKey(path, resource.group, resource.kind, resource.namespace, resource.name)


def _unset(check: Check) -> str:
    return f"parameter {' or '.join(check.required)} is not set"


def _cloud_subjects(
    resource: CloudResource,
) -> Iterator[tuple[type, Resource, list[CloudResource | CloudPart | MissingEvidence]]]:
    row = Resource(resource.group, resource.kind, "", resource.name, cloud_id=resource.id)
    unread = MissingEvidence(resource.unread) if resource.unread else None
    yield type(resource), row, [unread or resource]
    same: dict[tuple[type[CloudPart], str], list[CloudResource | CloudPart | MissingEvidence]] = defaultdict(list)
    try:
        if unread:
            raise unread
        for part in resource.components():
            same[type(part), part.name].append(part)
    except MissingEvidence as missing:
        for kind in resource.PARTS:
            same[kind, "*"].append(missing)
    for (kind, name), subjects in same.items():
        id = f"{resource.id}/{kind.kind.rpartition('/')[2]}/{name}"
        yield kind, Resource(resource.group, kind.kind, "", name, cloud_id=id), subjects


def _unjudged(resource: CloudResource) -> Verdict | None:
    try:
        return not_applicable(resource.unjudged) if resource.unjudged else None
    except MissingEvidence:
        return None  # where even its state is unreadable, each check says what it can


def _missing(missing: MissingEvidence) -> Verdict:
    gap = missing.gaps[0]
    return Verdict(Status.UNKNOWN, gap.reason.value, printable(f"undecided: {gap.sentence}", 400))
