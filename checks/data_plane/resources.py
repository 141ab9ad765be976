"""CPU and memory of containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from scanner import quantity
from scanner.check import AZURE_SYSTEM_WITH_DEFENDER, BOTH, Limit, check
from scanner.kube import Container, Quantity
from scanner.model import PASS, Evidence, MissingEvidence, Severity, Verdict, fail, text


@check(
    "k8s-container-limits",
    Severity.MEDIUM,
    controls=("Protect applications against DDoS attack",),
    fix="Set resources.limits.cpu and .memory on every container and init container, at or below the agreed maximum.",
    refs=(
        "mdc:405c9ae6-49f9-46c4-8873-a86690f27818",
        "azure-policy-9:e345eecc-fa47-480f-9e88-67dcc122b164",
        "nsa:Resource policies",
        "mitre:T1499",
        "mitre:T1496",
    ),
    exclude=BOTH,
    excluded_namespaces=AZURE_SYSTEM_WITH_DEFENDER,
    ephemeral=False,
    needs=("limitranges",),
)
def container_limits(
    c: Container,
    *,
    cpu_limit: Annotated[Limit, "largest CPU limit allowed"] = "32",  # type: ignore[assignment]
    memory_limit: Annotated[Limit, "largest memory limit allowed"] = "64Gi",  # type: ignore[assignment]
    apply_limit_ranges: Annotated[
        bool | None, "count the defaults of the namespace's LimitRange for templates; unset: in live clusters only"
    ] = None,
    azure_rules: Annotated[
        bool, "Azure's quantity grammar; 0 is a limit; limits of the whole pod do not count"
    ] = False,
) -> Verdict:
    """Container CPU and memory limits should be enforced

    A container without limits can take the node's CPU and memory from its neighbours, by mistake or on purpose.
    """
    apply = c.pod.in_cluster if apply_limit_ranges is None else apply_limit_ranges
    found: list[tuple[str, Evidence]] = []
    missing: MissingEvidence | None = None
    for resource, own, maximum in (("cpu", c.cpu_limit, cpu_limit), ("memory", c.memory_limit, memory_limit)):
        try:
            problem = _problem(c, resource, own, maximum, apply, azure_rules)
        except MissingEvidence as error:
            missing = error  # what the other resource proves stands
        else:
            found += [problem] if problem else []
    if found:
        return fail("; ".join(message for message, _ in found), *(evidence for _, evidence in found))
    if missing:
        raise missing
    return PASS


def _problem(
    c: Container, resource: str, own: Quantity, maximum: Limit, apply_limit_ranges: bool, azure_rules: bool
) -> tuple[str, Evidence] | None:
    value, at = own, c.where(f"resources.limits.{resource}")
    if _absent(value) and not azure_rules:
        value = getattr(c.pod, f"{resource}_limit")
        at = at if _absent(value) else f"{c.pod.path}.resources.limits.{resource}"
    if _absent(value) and apply_limit_ranges:
        if c.pod.limit_range_gap:
            raise MissingEvidence(c.pod.limit_range_gap)
        value = getattr(c.pod, f"default_{resource}_limit")
    if _absent(value):
        return f"no {resource} limit", Evidence(at, text(own))
    assert value is not None  # noqa: S101 - for the type checker: absent includes None
    try:
        limit = _grammar(resource, azure_rules)(value)
    except quantity.QuantityError as error:
        return f"{resource} limit cannot be read: {error}", Evidence(at, text(value))
    if limit < 0 or (limit == 0 and not azure_rules):
        return f"{resource} limit {text(value)} limits nothing", Evidence(at, text(value))
    if limit > maximum.nanos:
        return f"{resource} limit {text(value)} is above {maximum.text}", Evidence(at, text(value))
    return None


def _absent(value: Quantity) -> bool:
    return value is None or value == ""


def _grammar(resource: str, azure_rules: bool) -> Callable[[str | int | float], int]:
    if not azure_rules:
        return quantity.parse
    return quantity.parse_azure_cpu if resource == "cpu" else quantity.parse_azure_memory
