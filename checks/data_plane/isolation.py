"""What separates a container from its node: namespaces, network, file systems, AppArmor."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

from scanner.check import (
    ACCESS,
    AZURE_SYSTEM,
    AZURE_SYSTEM_WITH_DEFENDER,
    BOTH,
    NETWORK,
    AllowedHostPath,
    Ports,
    check,
    matches,
)
from scanner.kube import APP_ARMOR, Container, HostPath, Mount, Workload
from scanner.model import PASS, Evidence, Severity, Verdict, fail, not_applicable, require, text


@check(
    "k8s-host-namespaces",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Remove hostPID and hostIPC, or set them to false.",
    refs=(
        "mdc:802c0637-5a8c-4c98-abd7-7c96d89d6010",
        "azure-policy-5:47a1ee2f-2a2a-4576-bf2a-e0e36709c2b8",
        "pss:baseline",
        "cis-k8s-1.12:5.2.3",
        "cis-k8s-1.12:5.2.4",
        "cis-aks-1.8:4.2.2",
        "cis-aks-1.8:4.2.3",
        "cis-eks-1.8.0:4.2.2",
        "cis-eks-1.8.0:4.2.3",
        "cis-gke-1.9.0:4.2.1",
        "nsa:Pod security enforcement",
        "mitre:T1611",
    ),
    exclude=("images",),
    excluded_namespaces=AZURE_SYSTEM,
    linux_only=True,
)
def host_namespaces(
    w: Workload,
    *,
    include_host_network: Annotated[bool, "hostNetwork fails here too, not only in k8s-host-network-ports"] = False,
) -> Verdict:
    """Containers sharing sensitive host namespaces should be avoided

    In the node's process or IPC namespace a container sees and signals the processes of everyone else on the node.
    """
    shared = {"hostPID": w.host_pid, "hostIPC": w.host_ipc, "hostNetwork": include_host_network and w.host_network}
    fields = [name for name, on in shared.items() if on]
    if not fields:
        return PASS
    return fail(f"shares {', '.join(fields)} with the node", *(Evidence(w.where(f), "true") for f in fields))


@check(
    "k8s-host-network-ports",
    Severity.MEDIUM,
    controls=NETWORK,
    fix="Drop hostNetwork and hostPort; expose the workload through a Service.",
    refs=(
        "mdc:ebc68898-5c0f-4353-a426-4a5f1e737b12",
        "azure-policy-6:82985f06-dc18-4a48-bc1c-b9f4f0098cfe",
        "pss:baseline",
        "cis-k8s-1.12:5.2.5",
        "cis-k8s-1.12:5.2.12",
        "cis-aks-1.8:4.2.4",
        "cis-eks-1.8.0:4.2.4",
        "cis-gke-1.9.0:4.2.1",
        "nsa:Pod security enforcement",
        "nsa:Network policies",
        "mitre:T1557",
    ),
    exclude=BOTH,
    excluded_namespaces=AZURE_SYSTEM,
    linux_only=True,
)
def host_network_ports(
    w: Workload,
    *,
    allow_host_network: Annotated[bool, "hostNetwork is allowed"] = False,
    allowed_host_ports: Annotated[Ports, "host ports that may be used: numbers and ranges"] = (),  # type: ignore[assignment]
    min_port: Annotated[int, "Azure's older form: lowest allowed host port; 0 with max_port 0 allows none"] = 0,
    max_port: Annotated[int, "Azure's older form: highest allowed host port"] = 0,
    azure_rules: Annotated[
        bool, "an explicit hostPort 0 is outside min_port..max_port where min_port is above 0"
    ] = False,
) -> Verdict:
    """Usage of host networking and ports should be restricted

    On the node's network a container reaches what listens on the node only, and network policies do not hold it.
    """
    evidence, messages = [], []
    if w.host_network and not allow_host_network:
        messages.append("shares the node's network")
        evidence.append(Evidence(w.where("hostNetwork"), "true"))
    # The API server writes hostPort = containerPort into running pods on the host network: one cause, one report.
    implied = w.host_network and w.pod.live and not allow_host_network
    for port in (p for c in w.containers for p in c.ports):
        number = port.host_port
        if number is None or (number == 0 and not azure_rules) or (implied and number == port.container_port):
            continue
        if not (allowed_host_ports.ranges.allows(number) or min_port <= number <= max_port):
            messages.append(f"uses host port {number}")
            evidence.append(Evidence(f"{port.path}.hostPort", str(number)))
    return fail(", ".join(dict.fromkeys(messages)), *evidence) if evidence else PASS


@check(
    "k8s-apparmor-profile",
    Severity.HIGH,
    controls=("Remediate security configurations",),
    fix="Delete the override, or set appArmorProfile type RuntimeDefault (before 1.30: annotation runtime/default).",
    refs=(
        "mdc:86f91051-9d6a-47c3-a07f-bd14cb214b45",
        "azure-policy-6:511f5417-5d12-434d-ab2e-816901e72a5e",
        "pss:baseline",
        "nsa:Hardening container environments",
        "mitre:T1611",
    ),
    exclude=BOTH,
    excluded_namespaces=AZURE_SYSTEM_WITH_DEFENDER,
    linux_only=True,
)
def apparmor_profile(
    c: Container,
    *,
    allowed_profiles: Annotated[tuple[str, ...], "allowed profiles; an entry may end in *"] = ("runtime/default",),
    require_explicit: Annotated[bool, "a container without any profile fails"] = False,
    privileged_counts_as_unconfined: Annotated[bool, "runtimes start privileged containers without a profile"] = False,
    azure_rules: Annotated[bool, "read the annotation only and compare literally"] = False,
) -> Verdict:
    """Containers should only use allowed AppArmor profiles

    AppArmor confines what files and capabilities a process may use; an override to unconfined takes that wall away.
    """
    profile, at = _app_armor(c, azure_rules)
    if privileged_counts_as_unconfined and c.privileged and not azure_rules:
        return fail("runs privileged, so without a profile", Evidence(c.where("securityContext.privileged"), "true"))
    if profile is None and require_explicit:
        return fail("sets no AppArmor profile", Evidence(at, text(None)))
    effective = "runtime/default" if profile is None else profile
    allowed = any(_profile_matches(effective, entry, azure_rules) for entry in allowed_profiles)
    return require(allowed, f"AppArmor profile {effective} is not allowed", at, profile, default="runtime/default")


def _app_armor(c: Container, azure_rules: bool) -> tuple[str | None, str]:
    """The effective profile and its place: container field, else annotation, else pod field."""
    annotation_path = f"metadata.annotations['{APP_ARMOR}{c.name}']"
    field = "securityContext.appArmorProfile"
    if azure_rules:
        return c.app_armor_annotation, annotation_path
    if c.app_armor is not None:
        return c.app_armor, f"{c.path}.{field}"
    if c.app_armor_annotation is not None:
        return c.app_armor_annotation, annotation_path
    if c.pod.app_armor is not None:
        return c.pod.app_armor, f"{c.pod.path}.{field}"
    return None, f"{c.path}.{field}"


_SPELLINGS = {"RuntimeDefault": "runtime/default", "Unconfined": "unconfined", "Localhost": "localhost/*"}


def _profile_matches(profile: str, entry: str, literal: bool) -> bool:
    return profile == entry if literal else matches(profile, _SPELLINGS.get(entry, entry))


@check(
    "k8s-read-only-root-fs",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Set readOnlyRootFilesystem: true and mount emptyDir volumes where the process must write.",
    refs=(
        "mdc:27d6f0e9-b4d5-468b-ae7e-03d5473fd864",
        "azure-policy-6:df49d893-a74c-421d-bc95-c663042e5b80",
        "nsa:Immutable container file systems",
    ),
    exclude=BOTH,
    excluded_namespaces=AZURE_SYSTEM_WITH_DEFENDER,
    linux_only=True,
)
def read_only_root_fs(
    c: Container,
    *,
    include_ephemeral: Annotated[bool, "judge debug containers too, which cannot set it through kubectl debug"] = False,
) -> Verdict:
    """Immutable (read-only) root filesystem should be enforced for containers

    On a writable root file system an intruder can change binaries and leave tools behind.
    """
    if c.kind == "ephemeral" and not include_ephemeral:
        return not_applicable("ephemeral_container")
    at = c.where("securityContext.readOnlyRootFilesystem")
    value = c.read_only_root_filesystem
    return require(value is True, "can write to its root file system", at, value, default=False)


@check(
    "k8s-hostpath-volumes",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Replace hostPath by a managed volume type, or put the path on the allowed list with read-only access.",
    refs=(
        "mdc:f0debc84-981c-4a0d-924d-aa4bd7d55fef",
        "azure-policy-6:098fc59e-46c7-4d99-9b16-64990e543d75",
        "pss:baseline",
        "cis-k8s-1.12:5.2.11",
        "nsa:Pod security enforcement",
        "mitre:T1611",
    ),
    exclude=BOTH,
    excluded_namespaces=AZURE_SYSTEM_WITH_DEFENDER,
)
def hostpath_volumes(
    w: Workload,
    *,
    allowed_host_paths: Annotated[tuple[AllowedHostPath, ...], "allowed prefixes, by whole path segments"] = (),
    windows_allowed_host_paths: Annotated[tuple[AllowedHostPath, ...], "the same for Windows pods"] = (),
    include_unmounted: Annotated[bool, "a volume that no container mounts fails too"] = False,
    azure_rules: Annotated[bool, "no path clean-up, Linux only, mounts of ephemeral containers do not count"] = False,
) -> Verdict:
    """Usage of pod HostPath volume mounts should be restricted to a known list to restrict node access from compromised containers

    A mounted path of the node is the shortest way out of a container: its files, sockets and credentials belong to the node.
    """  # noqa: E501 - Microsoft's title
    windows = w.pod.windows_selector if azure_rules else w.pod.windows
    if windows and azure_rules:
        return not_applicable("windows")
    rules = windows_allowed_host_paths if windows else allowed_host_paths
    clean = _segments if azure_rules else (_windows_segments if windows else _clean_segments)
    in_scope = {c.path for c in w.containers if not (azure_rules and c.kind == "ephemeral")}
    problems: list[tuple[str, list[Evidence]]] = []
    for volume in w.host_paths:
        mounts = [m for m in volume.mounts if m.container in in_scope]
        if mounts or include_unmounted:
            problems += _host_path_problems(volume, mounts, rules, clean)
    if not problems:
        return PASS
    return fail("; ".join(m for m, _ in problems), *(e for _, found in problems for e in found))


def _host_path_problems(
    volume: HostPath,
    mounts: list[Mount],
    rules: Iterable[AllowedHostPath],
    segments: Callable[[str], list[str]],
) -> Iterator[tuple[str, list[Evidence]]]:
    path = segments(volume.host_path)
    covering = [r for r in rules if path[: len(prefix := segments(r.path_prefix))] == prefix]
    evidence = Evidence(volume.path, volume.host_path)
    if not covering:
        yield f"mounts {volume.host_path} of the node", [evidence]
    elif any(r.read_only for r in covering):
        # One read-only rule is enough to demand it, even where another rule would let the mount write.
        writable = [m for m in mounts if not m.read_only]
        if writable:
            found = [Evidence(f"{m.path}.readOnly", "false") for m in writable]
            yield f"mounts {volume.host_path} of the node writable", [evidence, *found]


def _segments(path: str) -> list[str]:
    """Azure's reading: a slash at the end is ignored, `//` and `..` are not resolved."""
    return path.rstrip("/").split("/")


def _clean_segments(path: str) -> list[str]:
    return _segments(posixpath.normpath("/" + path.lstrip("/")))


def _windows_segments(path: str) -> list[str]:
    return _clean_segments(re.sub(r"[\\/]+", "/", path).lower())
