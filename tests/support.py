"""What the tests of judging share: objects in, findings out, without files, network or command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import yaml

import checks
from providers.azure.reader import understood
from scanner import config, engine, findings, kube, normalize, owners, resources, wire, workloads
from scanner.check import IMAGES
from scanner.cloud import CloudResource, kept
from scanner.exemptions import Exemptions
from scanner.image_join import Images
from scanner.images import Group, RegistryImage
from scanner.model import ClusterRef, Collected, Finding, Gap, GapReason, Status
from scanner.summary import Tally
from scanner.vulnerabilities import Scans

FIXTURES = Path(__file__).parent.parent / "fixtures"
TODAY = date(2026, 9, 1)
NOW = datetime(2026, 9, 1, tzinfo=UTC)
EVERY_STATUS = frozenset(Status)
UID = "0b9e4a1c-5c3e-4a3c-9f0e-3a2f6f1f7f10"

Object = dict[str, Any]
Objects = str | Object | Sequence[Object]


def objects(source: Objects) -> list[Object]:
    """YAML text, one object or several, as a list of objects."""
    if isinstance(source, str):
        return [o for o in yaml.load_all(source, Loader=yaml.CSafeLoader) if o is not None]
    return [source] if isinstance(source, dict) else list(source)


def gap(what: str, reason: str = "forbidden", namespace: str = "*", permission: str = "") -> Gap:
    return Gap(what=what, reason=GapReason(reason), namespace=namespace, permission=permission)


def inventory(
    source: Objects,
    *,
    live: bool = False,
    gaps: Iterable[Gap] = (),
    namespace: str = "default",
    keep: frozenset[str] | None = None,
    gke: bool = False,
    kinds: Iterable[str] = kube.KINDS,
) -> workloads.Inventory:
    """Folded objects. `live` is a cluster: pods run, and what they are looked up by is read before them."""
    fold = workloads.Fold(frozenset(kinds), default_namespace=namespace)
    if keep is not None:
        fold.keep = lambda name: name in keep
    fold.lookups.in_cluster = live
    fold.ingress_facts.gke = gke
    for entry in gaps:
        fold.gap(entry)
    found = list(enumerate(objects(source), 1))
    for document, item in sorted(found, key=lambda n: n[1].get("kind") == "Pod"):
        data = msgspec.json.encode(_running(item) if live else item)
        kind = owners.kind_of(normalize.decode(data, wire.Header))
        place = None if live else kube.Source(path="input.yaml", document=document, scope="input.yaml")
        if kind is None:
            fold.skip()
        else:
            fold.add(kind, data, place)
    return fold.finish()


def _running(item: Object) -> Object:
    """The object as an API server shows it."""
    return {"status": {"phase": "Running"}, **item} if item.get("kind") == "Pod" else item


def settings(
    check: str | Sequence[str] = (),
    *,
    profile: str | None = None,
    params: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    catalogue: Mapping[str, Any] | None = None,
) -> config.Settings:
    """`params` are those of the one check asked for, `parameters` are by check. Without a check asked for: those of
    what runs inside clusters, but for its images."""
    wanted = [check] if isinstance(check, str) else list(check)
    given = {k: dict(v) for k, v in (parameters or {}).items()}
    if params:
        (only,) = wanted
        given[only] = dict(params)
    selection = config.Selection(profile=profile, checks=wanted)
    chosen = config.settings(catalogue or checks.load(), config.Config(parameters=given), selection)
    if wanted:
        return chosen
    inside = [plan for plan in chosen.only().plans if plan.check.category == "data_plane"]
    return replace(chosen, plans=tuple(inside))


def evaluate(
    inv: workloads.Inventory,
    chosen: config.Settings,
    *,
    live: bool = False,
    exemptions: Exemptions | None = None,
    tally: Tally | None = None,
    listed: frozenset[Status] = EVERY_STATUS,
    groups: Sequence[Group] = (),
) -> list[Finding]:
    cluster = ClusterRef(UID, UID, "prod") if live else None
    context = findings.Context(
        scan_id="scan",
        scope_id=UID if live else "files",
        name="prod" if live else "files",
        provider="kubernetes" if live else "files",
        observed_at=NOW,
        cluster=cluster,
    )
    unused = Exemptions((), TODAY)
    return list(engine.evaluate(inv, chosen, context, tally or Tally(), exemptions or unused, listed, groups))


def judge(
    source: Objects,
    check: str | Sequence[str] = (),
    *,
    profile: str | None = None,
    params: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    exemptions: Exemptions | None = None,
    tally: Tally | None = None,
    listed: frozenset[Status] = EVERY_STATUS,
    live: bool = False,
    **folding: Any,
) -> list[Finding]:
    """Every finding on some objects; `folding` goes to `inventory`."""
    chosen = settings(check, profile=profile, params=params, parameters=parameters)
    inv = inventory(source, live=live, **folding)
    return evaluate(inv, chosen, live=live, exemptions=exemptions, tally=tally, listed=listed)


def statuses(findings: Iterable[Finding]) -> set[str]:
    return {f.status.value for f in findings}


def merged(base: Object, *changes: Mapping[str, Any]) -> Object:
    """A deep copy of `base` with every change laid over it; mappings merge, everything else replaces."""
    result = {k: merged(v) if isinstance(v, dict) else v for k, v in base.items()}
    for change in changes:
        for key, value in change.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result


def container(name: str = "a", **fields: Any) -> Object:
    return {"name": name, "image": "r.io/x:1", **fields}


def secured(**fields: Any) -> Object:
    """A container with a security context."""
    return container(securityContext=fields)


def pod(
    *containers: Object, name: str = "p", namespace: str = "n", annotations: Object | None = None, **spec: Any
) -> Object:
    """A Pod; without containers it gets one that sets nothing."""
    meta: Object = {"name": name, "namespace": namespace}
    if annotations is not None:
        meta["annotations"] = annotations
    body = {"containers": list(containers) or [container()], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body}


def owned(item: Object, kind: str, name: str, api: str = "apps/v1", labels: Object | None = None) -> Object:
    """The object under a controller."""
    owner = {"apiVersion": api, "kind": kind, "name": name, "controller": True}
    meta: Object = {"ownerReferences": [owner]}
    return merged(item, {"metadata": {**meta, "labels": labels} if labels else meta})


def deployment(
    *containers: Object, name: str = "d", namespace: str = "n", kind: str = "Deployment", **spec: Any
) -> Object:
    """A workload of any kind that keeps its template at spec.template."""
    api = {"Job": "batch/v1", "ReplicationController": "v1"}.get(kind, "apps/v1")
    template = {"spec": {"containers": list(containers) or [container()], **spec}}
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": template},
    }


# ---------------------------------------------------------------------------------------------------------------------
# Fixtures

_OPTION = re.compile(r"# (params|profile|gap|live|gke): (.+)")
_CLOUD = {r.__struct_config__.tag: r for r in resources.RESOURCES}


def options(text: str) -> dict[str, Any]:
    """The `# key: value` lines that a fixture starts with; other comments are prose."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if match := _OPTION.fullmatch(line):
            found[match[1]] = yaml.load(match[2], Loader=yaml.CSafeLoader)
    return found


def judge_fixture(path: Path) -> list[Finding]:
    """Findings of the check that the fixture's folder is named after, and of what could not be understood."""
    text = path.read_text(encoding="utf-8")
    wants = options(text)
    if "\nscans:" in text:
        return judge_images(text, path.parent.name, params=wants.get("params"))
    if "\nwire:" in text:
        return judge_cloud(text, path.parent.name, profile=wants.get("profile"), params=wants.get("params"))
    gaps = [gap(**wants["gap"])] if "gap" in wants else []
    return judge(
        text, path.parent.name, profile=wants.get("profile"), params=wants.get("params"),
        live=wants.get("live", False), gke=wants.get("gke", False), gaps=gaps,
    )  # fmt: skip


def cloud_resource(entry: Object) -> CloudResource:
    """From `type`, `wire` as the cloud sends it, and `related`: lists, or gaps in place of them."""
    kind, wire = _CLOUD[entry["type"]], entry["wire"]
    if kind.provider == "azure":
        resource = understood(kind, wire, "11111111-2222-3333-4444-555555555555")
    elif kind.provider == "gcp":
        path = wire.get("selfLink", "").partition("/v1/")[2] or wire["name"]
        _, account, _, region, _, name = path.split("/")
        resource = kind(
            wire=kept(wire, kind.KEEP), id=f"//{kind.group}/{path}", name=name, account=account, region=region,
            related={},
        )  # fmt: skip
    else:
        id, name = (wire.get(key) or wire.get(f"repository{key.capitalize()}") for key in ("arn", "name"))
        region = id.split(":")[3] if ":" in id else id.partition("/")[2]
        resource = kind(
            wire=kept(wire, kind.KEEP), id=id, name=name, account="111122223333", region=region,
            tags=wire.get("tags") or {}, related={},
        )  # fmt: skip
    for what, items in entry.get("related", {}).items():
        missing = isinstance(items, dict)
        gaps = [gap(what, items["gap"], permission=items.get("permission", ""))] if missing else []
        resource.related[what] = Collected([] if missing else items, gaps)
    return resource


def judge_cloud(source: Objects, check: str, *, exemptions: Exemptions | None = None, **choice: Any) -> list[Finding]:
    """Every finding on some cloud resources."""
    chosen = settings(check, **choice)
    found = [cloud_resource(entry) for entry in objects(source)]
    kinds = chosen.cloud_kinds() | {resource.kind for resource in found}
    inventory = workloads.Inventory(kinds=sorted(kinds), cloud=found)
    return evaluate(inventory, chosen, live=True, exemptions=exemptions)


def judge_images(source: Objects, check: str, **choice: Any) -> list[Finding]:
    """Every finding on what runs, or on what is in registries; `scans` of a document are what sources said."""
    chosen = settings(check, **choice)
    documents = objects(source)
    images = Images(NOW)
    for said in (d for d in documents if "scans" in d):
        images.take(msgspec.convert(said, Scans))
    running = inventory([d for d in documents if "scans" not in d], live=True)
    (plan,) = chosen.plans
    groups = list(images.running(running.roots))
    if plan.check.scope is RegistryImage:
        groups = [group for _, group in images.registered(plan.check.of)]
    judged = workloads.Inventory(kinds=[*running.kinds, IMAGES], gaps=running.gaps, invalid=running.invalid)
    return evaluate(judged, chosen, live=True, groups=groups)


def line(finding: Finding) -> str:
    """One finding as the golden texts show it."""
    r = finding.resource
    where = f"{r.kind}/{r.namespace or ''}/{r.name}" + (f"#{r.container}" if r.container else "")
    shown = [f"{e.path}={e.value}" + ("" if e.default is None else f" ({e.default})") for e in finding.evidence]
    return " | ".join((finding.status.value, where, finding.reason, ", ".join(shown), finding.message))
