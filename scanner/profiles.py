"""Profiles: named sets of checks and parameters. Lists replace, never merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from scanner.check import Check


@dataclass(frozen=True, slots=True)
class Profile:
    """`microsoft` takes Azure Policy's own rules and exclusions for every check that differs from them.

    `unconfigured_per_object` lists a missing required parameter once for each object, as Microsoft does.
    """

    name: str
    doc: str
    microsoft: bool = False
    unconfigured_per_object: bool = False
    switch_on: tuple[str, ...] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def values(self, check: Check) -> dict[str, Any]:
        """This profile's parameter values for one check."""
        values: dict[str, Any] = {}
        if self.microsoft and check.system_namespaces:
            values["excluded_namespaces"] = list(check.system_namespaces)
        if self.microsoft and "azure_rules" in check.parameters:
            values["azure_rules"] = True
        return values | dict(self.parameters.get(check.id, {}))


_NOT_ROOT = [{"min": 1, "max": -1}]
_SIXTEEN_BIT = [{"min": 1, "max": 65535}]

_DEFENDER: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "k8s-privilege-escalation": {"require_explicit_false": False},
        "k8s-read-only-root-fs": {"include_ephemeral": True},
        "k8s-https-only": {"unknown_controllers": "pass"},
        "k8s-default-namespace": {"kinds": ["Workload", "Service", "ServiceAccount"]},
        # Since February 2025 a workload without runAsGroup is unhealthy, runAsNonRoot or not.
        "k8s-run-as-root": {"run_as_group_rule": "MustRunAs", "run_as_group_ranges": _NOT_ROOT},
    }
)

_DEFENDER_2021: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        **_DEFENDER,
        "k8s-container-limits": {"cpu_limit": "0", "memory_limit": "0"},
        "k8s-apparmor-profile": {"allowed_profiles": []},
        "k8s-https-only": {"unknown_controllers": "pass", "require_allow_http_false": True},
        "k8s-default-namespace": {"kinds": ["Workload", "Service", "ServiceAccount", "ConfigMap", "Secret"]},
        "k8s-run-as-root": {
            "run_as_group_ranges": _SIXTEEN_BIT,
            "supplemental_groups_ranges": _SIXTEEN_BIT,
            "fs_group_ranges": _SIXTEEN_BIT,
        },
    }
)

PROFILES = {
    p.name: p
    for p in (
        Profile("recommended", "kubeposture's own rules: Microsoft's, closed where they let known-bad settings pass"),
        Profile(
            "defender",
            "the answers of Microsoft Defender for Cloud today (initiative 57.56.0)",
            microsoft=True,
            unconfigured_per_object=True,
            parameters=_DEFENDER,
        ),
        Profile(
            "defender-2021",
            "the answers of November 2021 (initiative 36.0.0), container ports included",
            microsoft=True,
            unconfigured_per_object=True,
            switch_on=("k8s-container-allowed-ports",),
            parameters=_DEFENDER_2021,
        ),
    )
}
