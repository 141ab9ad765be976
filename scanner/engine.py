"""evaluate(): inventory -> findings. Pure: no I/O, no clock. Owns every loop, so that a check sees one subject."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import msgspec

from scanner import image_ref
from scanner.check import Check, LabelSelector
from scanner.config import Plan, Settings
from scanner.exemptions import Exemptions
from scanner.kube import Container, Ingress, Resource, Service, Source, Workload, printable
from scanner.model import (
    WORST_FIRST,
    ClusterRef,
    Evidence,
    Finding,
    Gap,
    MissingEvidence,
    ResourceRef,
    Severity,
    SourceRef,
    Status,
    Verdict,
    not_applicable,
)
from scanner.summary import Tally
from scanner.workloads import Invalid, Inventory, Root, Shape

SCHEMA_VERSION = "1.0"
EPHEMERAL = "~ephemeral"  # debug containers come and go under made-up names: one subject
LISTED = frozenset({Status.FAIL, Status.UNKNOWN, Status.ERROR})
UNCONFIGURED = "configuration_required"
_RANK = {status: i for i, status in enumerate(WORST_FIRST)}
_EXCLUDED = not_applicable("excluded")
_WINDOWS = not_applicable("windows")
_NO_SUBJECTS = not_applicable("no_subjects")


@dataclass(frozen=True, slots=True)
class Context:
    """What findings of one cluster or file set have in common.

    `scope_id` is the base of ids; for files each object's own path replaces it. `locate` gives the line of a path
    inside an object.
    """

    scan_id: str
    scope_id: str
    name: str
    provider: str
    observed_at: datetime
    cluster: ClusterRef | None = None
    account: str | None = None
    region: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    locate: Callable[[Source, str], int] = lambda source, path: source.line


def evaluate(
    inventory: Inventory,
    settings: Settings,
    context: Context,
    tally: Tally,
    exemptions: Exemptions,
    listed: frozenset[Status] = LISTED,
) -> Iterator[Finding]:
    """Judge everything; yields findings whose status is `listed`, counts all of them in `tally`."""
    run = _Run(inventory, settings, context, tally, exemptions, listed | LISTED)
    for finding in run.findings():
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
        evidence = dict.fromkeys(e for v, _ in self.verdicts if v.status is first.status for e in v.evidence)
        return msgspec.structs.replace(first, evidence=tuple(evidence))

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
        self.judged: Counter[str] = Counter()
        self.unconfigured: dict[str, _Unconfigured] = defaultdict(_Unconfigured)
        self.plans = [plan for plan in settings.plans if self._collected(plan)]
        self.in_namespace = lru_cache(maxsize=None)(self._in_namespace)

    def findings(self) -> Iterator[Finding]:
        containers = [p for p in self.plans if p.check.scope is Container]
        workloads = [p for p in self.plans if p.check.scope is Workload]
        services = [p for p in self.plans if p.check.scope is Service]
        ingresses = [p for p in self.plans if p.check.scope is Ingress]
        objects = [p for p in self.plans if p.check.scope is Resource]
        for root in self.inventory.roots:
            yield from self._root(root, containers, workloads)
            if root.shapes:  # else nothing of it was understood, and one error says so
                yield from self._subjects(objects, root.resource, root.resource, root)
        for service in self.inventory.services:
            yield from self._subjects(services, service, service.resource)
            yield from self._subjects(objects, service.resource, service.resource)
        for ingress in self.inventory.ingresses:
            yield from self._subjects(ingresses, ingress, ingress.resource)
        for other in self.inventory.others:
            yield from self._subjects(objects, other, other)
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
            here = {id for id, p in plans.items() if self._in_scope(p, resource.namespace, labels)}
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
            yield from self._report(plans[id], resource, key, outcome, root)

    def _container_verdict(self, plan: Plan, c: Container) -> Verdict:
        if _excludes(plan, c):
            return _EXCLUDED
        if plan.check.linux_only and _windows(plan, c):
            return _WINDOWS
        return self._run(plan, c)

    def _workload_verdict(self, plan: Plan, view: Workload) -> Verdict:
        if plan.check.linux_only and _windows(plan, view):
            return _WINDOWS
        if plan.values.get("excluded_images") or plan.values.get("excluded_containers"):
            kept = tuple(c for c in view.containers if not _excludes(plan, c))
            if not kept and not view.invalid_containers:
                return _EXCLUDED
            view = msgspec.structs.replace(view, containers=kept)
        return self._run(plan, view)

    def _subjects(
        self, plans: Iterable[Plan], subject: Any, resource: Resource, root: Root | None = None
    ) -> Iterator[Finding]:
        for plan in plans:
            inside = self._in_scope(plan, resource.namespace, resource.labels)
            verdict = self._run(plan, subject) if inside else _EXCLUDED
            yield from self._report(plan, resource, "", _Outcome([(verdict, None)]), root)

    def _run(self, plan: Plan, subject: Any) -> Verdict:
        try:
            verdict: Any = plan.check.run(subject, **plan.kwargs)
        except MissingEvidence as missing:
            gap = missing.gaps[0]
            message = f"depends on {gap.what}, which could not be read: {gap.detail or gap.reason}"
            return Verdict(Status.UNKNOWN, gap.reason.value, printable(message, 400))
        except Exception as error:  # noqa: BLE001 - a check that crashes is a visible result, never a silent pass
            return Verdict(Status.ERROR, "check_crashed", printable(f"{type(error).__name__}: {error}"))
        if not isinstance(verdict, Verdict):
            return Verdict(Status.ERROR, "check_crashed", "the check gave no verdict")
        if verdict.status is Status.FAIL and not plan.configured:
            self._count_unconfigured(plan, subject)
            return msgspec.structs.replace(verdict, reason=UNCONFIGURED, message=_unset(plan.check))
        return verdict

    def _report(
        self, plan: Plan, resource: Resource, key: str, outcome: _Outcome, root: Root | None = None
    ) -> Iterator[Finding]:
        verdict = outcome.worst()
        self.judged[plan.check.id] += 1
        if verdict.status is Status.PASS and root and (root.invalid or (not key and _has_invalid_containers(root))):
            return  # what could not be understood is reported as such, and nothing passes beside it
        if verdict.reason == UNCONFIGURED and not self.settings.profile.unconfigured_per_object:
            return  # told once for all, below
        severity = verdict.severity or plan.severity
        if verdict.status not in self.built:
            self.tally.add(self.context.name, plan.check.id, severity, verdict.status)
            return
        shapes = outcome.shapes(verdict.status)
        pods = tuple(sorted({n for s in shapes for n in s.names})[:10])
        source = next((s.source for s in shapes if s.source), resource.source)
        finding = self._finding(
            plan.check, verdict, severity, resource, key,
            parameters=plan.parameters, occurrences=sum(s.pods for s in shapes) or 1, pods=pods, source=source,
        )  # fmt: skip
        pod_labels = dict(shapes[0].workload.labels) if shapes else {}
        yield self._counted(finding, {**pod_labels, **resource.labels})

    # -- what could not be judged -------------------------------------------------------------------------------------

    def _not_understood(self) -> Iterator[Finding]:
        merged: dict[tuple[Resource | str, ...], list[Invalid]] = defaultdict(list)
        for item in self.inventory.invalid:
            r = item.resource
            scope = r.source.scope if r.source else ""
            merged[scope, r.group, r.kind, r.namespace, r.name, item.container or ""].append(item)
        for items in merged.values():
            first = items[0]
            message = printable("; ".join(sorted({i.message for i in items})), 500)
            verdict = Verdict(Status.ERROR, "not_understood", message)
            finding = self._finding(
                INVALID_OBJECT, verdict, INVALID_OBJECT.severity, first.resource, first.container or "",
                occurrences=len(items), source=first.resource.source,
            )  # fmt: skip
            yield self._counted(finding, first.resource.labels)

    def _gaps(self, plan: Plan) -> Iterator[Finding]:
        """One `unknown` for each list that was refused: what was not seen is not clean."""
        for gap in self.inventory.gaps_of(plan.subjects):
            if gap.namespace != "*" and not self.in_namespace(plan.check.id, gap.namespace):
                continue
            yield from self._unknown(plan, gap.what, gap.namespace, gap.reason.value, _gap_message(gap))
        for plural in self._not_collected(plan):
            message = f"{plural} were not collected: collect again with this check selected"
            yield from self._unknown(plan, plural, "*", "not_collected", message)

    def _unknown(self, plan: Plan, plural: str, namespace: str, reason: str, message: str) -> Iterator[Finding]:
        self.judged[plan.check.id] += 1
        resource = Resource(group="", kind=plural, namespace=namespace, name="*")
        verdict = Verdict(Status.UNKNOWN, reason, printable(message, 400))
        finding = self._finding(plan.check, verdict, plan.severity, resource, "", parameters=plan.parameters)
        yield self._counted(finding, {})

    def _not_collected(self, plan: Plan) -> list[str]:
        have = set(self.inventory.kinds)
        return [plural for plural in (*plan.subjects, *plan.needs) if plural not in have]

    def _collected(self, plan: Plan) -> bool:
        return not self._not_collected(plan)

    def _summary_rows(self, plan: Plan) -> Iterator[Finding]:
        row = Resource(
            group="", kind="Cluster" if self.context.cluster else "Files", namespace="", name=self.context.name
        )
        missing = self.unconfigured.get(plan.check.id)
        if missing and not self.settings.profile.unconfigured_per_object:
            seen = ", ".join(f"{printable(value, 80)} ({n})" for value, n in missing.seen.most_common(5))
            option = f"--param {plan.check.id}.{plan.check.required[-1]}="
            message = f"{_unset(plan.check)}: {missing.subjects} not judged; seen {seen}; set it with {option}…"
            verdict = Verdict(Status.FAIL, UNCONFIGURED, message)
            finding = self._finding(
                plan.check, verdict, plan.severity, row, "", parameters=plan.parameters, occurrences=missing.subjects
            )
            yield self._counted(finding, {})
        elif not self.judged[plan.check.id] and not self.inventory.invalid:  # one of those might be a subject
            self.tally.add(self.context.name, plan.check.id, plan.severity, Status.NOT_APPLICABLE)
            if Status.NOT_APPLICABLE in self.built:
                yield self._finding(plan.check, _NO_SUBJECTS, plan.severity, row, "", parameters=plan.parameters)

    def _count_unconfigured(self, plan: Plan, subject: Container | Service) -> None:
        missing = self.unconfigured[plan.check.id]
        missing.subjects += 1
        if isinstance(subject, Service):
            missing.seen.update(map(str, subject.ports))
        elif plan.check.id == "k8s-trusted-registries":
            ref = image_ref.parse(subject.image)
            missing.seen[ref.registry] += 1
        else:
            missing.seen.update(str(p.container_port) for p in subject.ports)

    # -- scope parameters ---------------------------------------------------------------------------------------------

    def _in_scope(self, plan: Plan, namespace: str, labels: Mapping[str, str]) -> bool:
        return self.in_namespace(plan.check.id, namespace) and _selects(plan.values["label_selector"], labels)

    def _in_namespace(self, id: str, namespace: str) -> bool:
        values = next(p for p in self.settings.plans if p.check.id == id).values
        if any(_prefix_match(namespace, entry) for entry in values["excluded_namespaces"]):
            return False
        return not values["namespaces"] or namespace in values["namespaces"]

    # -- findings -----------------------------------------------------------------------------------------------------

    def _counted(self, finding: Finding, labels: dict[str, str]) -> Finding:
        """With its exemption, counted."""
        note = self.exemptions.note(finding, labels) if finding.status in LISTED else None
        if note:
            self.tally.exempted += 1
            return msgspec.structs.replace(finding, exemption=note)
        self.tally.add(self.context.name, finding.check, finding.severity, finding.status)
        if finding.reason == UNCONFIGURED:
            self.tally.ungated[finding.severity] += 1
        return finding

    def _finding(
        self,
        check: Check,
        verdict: Verdict,
        severity: Severity,
        resource: Resource,
        key: str,
        *,
        parameters: tuple[Any, ...] = (),
        occurrences: int = 1,
        pods: tuple[str, ...] = (),
        source: Source | None = None,
    ) -> Finding:
        context = self.context
        scope_id = source.scope if source else context.scope_id
        return Finding(
            schema_version=SCHEMA_VERSION,
            scan_id=context.scan_id,
            id=finding_id(check.id, scope_id, resource, key),
            check=check.id,
            title=check.title,
            status=verdict.status,
            reason=verdict.reason,
            severity=severity,
            category=check.category,
            scope=check.scope_name,
            assessment_keys=check.assessment_keys,
            controls=check.controls,
            provider=context.provider,
            account=context.account,
            region=context.region,
            cluster=context.cluster,
            tags=self._shown(context.tags),
            resource=self._resource_ref(resource, key, source, verdict.evidence),
            message=verdict.message,
            evidence=verdict.evidence,
            remediation=check.fix,
            refs=check.refs,
            parameters=parameters,
            occurrences=occurrences,
            pods=pods,
            observed_at=context.observed_at,
        )

    def _resource_ref(
        self, resource: Resource, key: str, source: Source | None, evidence: tuple[Evidence, ...]
    ) -> ResourceRef:
        place = None
        if source:
            line = self.context.locate(source, evidence[0].path if evidence else "")
            place = SourceRef(source.path, line, source.document)
        labels = {**self.inventory.namespace_labels.get(resource.namespace, {}), **resource.labels}
        return ResourceRef(
            api_group=resource.group,
            kind=resource.kind,
            namespace=resource.namespace or None,
            name=resource.name,
            container=key or None,
            labels=self._shown(labels),
            managed_by=resource.managed_by,
            source=place,
        )

    def _shown(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Only labels and tags on the allow-list: others may hold anything."""
        return {k: v for k, v in labels.items() if any(fnmatchcase(k, pattern) for pattern in self.settings.labels)}


# ---------------------------------------------------------------------------------------------------------------------


def _badness(verdict: Verdict) -> tuple[int, int, str]:
    """Smallest for the worst; a severity of its own weighs less than the check's."""
    return _RANK[verdict.status], verdict.severity.rank if verdict.severity else -1, verdict.message


def finding_id(check: str, scope_id: str, resource: Resource, key: str) -> str:
    """Stable across scans: no list index, image, message, line, or pod name where a controller exists."""
    identity = [1, check, scope_id, resource.group, resource.kind, resource.namespace, resource.name, key]
    return "kp1_" + hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:32]


INVALID_OBJECT = Check(
    id="k8s-invalid-object",
    severity=Severity.MEDIUM,
    title="Objects should be readable",
    why="An object that cannot be understood cannot be judged: whatever it does wrong stays unseen.",
    fix="Correct the field that the message names; `kubectl apply --dry-run=server` shows what the API server says.",
    controls=("Remediate security configurations",),
    refs=(),
    scope=Resource,
    parameters={},
    run=lambda resource: not_applicable("always_on"),
    passed=(),
    on=False,  # not run by itself: what cannot be read is always reported
)


def _excludes(plan: Plan, c: Container) -> bool:
    values = plan.values
    return c.name in values.get("excluded_containers", ()) or any(
        _prefix_match(c.image, entry) for entry in values.get("excluded_images", ())
    )


def _prefix_match(text: str, entry: str) -> bool:
    """Exact, or a prefix where the entry ends in `*`: Azure's matching of images."""
    return text.startswith(entry[:-1]) if entry.endswith("*") else text == entry


def _windows(plan: Plan, subject: Container | Workload) -> bool:
    return subject.pod.windows_selector if plan.values.get("azure_rules") else subject.pod.windows


def _selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Kubernetes' rule: both parts must hold, an empty selector selects everything."""
    if any(labels.get(k) != v for k, v in selector.match_labels.items()):
        return False
    for expression in selector.match_expressions:
        value = labels.get(expression.key)
        holds = {
            "In": value in expression.values,
            "NotIn": value not in expression.values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[expression.operator]
        if not holds:
            return False
    return True


def _has_invalid_containers(root: Root) -> bool:
    return any(shape.workload.invalid_containers for shape in root.shapes)


def _unset(check: Check) -> str:
    return f"parameter {' or '.join(check.required)} is not set"


def _gap_message(gap: Gap) -> str:
    where = "" if gap.namespace == "*" else f" in namespace {gap.namespace}"
    needed = f"; needed: {gap.permission}" if gap.permission else ""
    return f"{gap.what}{where} could not be read: {gap.detail or gap.reason}{needed}"
