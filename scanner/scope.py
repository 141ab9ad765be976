"""Scope parameters: what a check leaves out, by namespace, label, image or container."""

from __future__ import annotations

from collections.abc import Mapping

from scanner.check import LabelSelector, matches
from scanner.config import Plan
from scanner.images import RunningContainer
from scanner.kube import Container, Workload


def in_namespace(plan: Plan, namespace: str) -> bool:
    """Whether the check judges objects of this namespace."""
    if any(matches(namespace, entry) for entry in plan.values["excluded_namespaces"]):
        return False
    return not plan.values["namespaces"] or namespace in plan.values["namespaces"]


def excludes(plan: Plan, c: Container | RunningContainer) -> bool:
    values = plan.values
    return c.name in values.get("excluded_containers", ()) or any(
        matches(c.image, entry) for entry in values.get("excluded_images", ())
    )


def windows(plan: Plan, subject: Container | Workload) -> bool:
    return subject.pod.windows_selector if plan.values.get("azure_rules") else subject.pod.windows


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
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
