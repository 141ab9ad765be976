"""What a container may do on its node: privileges, capabilities, user and group ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from scanner.check import ACCESS, AZURE_SYSTEM, AZURE_SYSTEM_WITH_DEFENDER, BOTH, Range, check
from scanner.kube import Container
from scanner.model import PASS, Evidence, Severity, Verdict, fail, require, text


@check(
    "k8s-privileged-container",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Remove privileged; grant single capabilities or use a device plug-in instead.",
    refs=(
        "mdc:5d90913f-a1c5-4429-ad54-2c6c17fb3c73",
        "azure-policy-9:95edb821-ddaf-4404-9732-666045e056b4",
        "pss:baseline",
        "cis-k8s-1.12:5.2.2",
        "cis-aks-1.8:4.2.1",
        "cis-eks-1.8.0:4.2.1",
        "cis-gke-1.9.0:4.2.1",
        "nsa:Pod security enforcement",
        "mitre:T1611",
        "mitre:T1610",
    ),
    exclude=BOTH,
    excluded_namespaces=AZURE_SYSTEM_WITH_DEFENDER,
    linux_only=True,
)
def privileged_container(c: Container) -> Verdict:
    """Privileged containers should be avoided

    A privileged container has every capability of the host and sees all its devices: one break-out owns the node.
    """
    return require(not c.privileged, "runs privileged", c.where("securityContext.privileged"), c.privileged)


@check(
    "k8s-privilege-escalation",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Set securityContext.allowPrivilegeEscalation: false on each container.",
    refs=(
        "mdc:43dc2a2e-ce69-4d42-923e-ab7d136f2cfe",
        "azure-policy-7:1c6e92c9-99f0-4e55-9cf2-0c234dc48f99",
        "pss:restricted",
        "cis-k8s-1.12:5.2.6",
        "cis-aks-1.8:4.2.5",
        "cis-eks-1.8.0:4.2.5",
        "nsa:Pod security enforcement",
        "mitre:T1068",
    ),
    exclude=BOTH,
    excluded_namespaces=AZURE_SYSTEM,
    linux_only=True,
)
def privilege_escalation(
    c: Container,
    *,
    require_explicit_false: Annotated[bool, "an absent field fails too, because Kubernetes then allows it"] = True,
) -> Verdict:
    """Container with privilege escalation should be avoided

    Without allowPrivilegeEscalation: false a process can gain more privileges than its parent, through setuid binaries
    for instance: Kubernetes allows it where the field is absent.
    """
    at, value = c.where("securityContext.allowPrivilegeEscalation"), c.allow_privilege_escalation
    if value is False:
        if contradiction := _contradiction(c):
            message = f"forbids privilege escalation but {contradiction}: the API server refuses the two together"
            return fail(message, Evidence(at, "false"), reason="contradictory")
        return PASS
    # Microsoft's rule: an absent field matters only where the container is set to run as another user than root.
    not_root = c.run_as_user not in (None, 0)
    ok = value is None and not require_explicit_false and not not_root
    return require(ok, "may gain more privileges than its parent process", at, value, default=True)


def _contradiction(c: Container) -> str:
    if c.privileged:
        return "runs privileged"
    return "adds CAP_SYS_ADMIN" if "SYS_ADMIN" in map(_bare, c.capabilities_added) else ""


@check(
    "k8s-cap-sys-admin",
    Severity.HIGH,
    controls=ACCESS,
    fix="Remove SYS_ADMIN and ALL from the added capabilities.",
    refs=(
        "mdc:aba14f78-27c5-af84-848e-9105d18dfd92",
        "azure-policy-5:d2e7ea85-6b44-4317-a0be-1b951587f626",
        "pss:baseline",
        "cis-k8s-1.12:5.2.9",
        "nsa:Pod security enforcement",
        "mitre:T1611",
    ),
    exclude=BOTH,
    excluded_namespaces=AZURE_SYSTEM_WITH_DEFENDER,
    linux_only=True,
)
def cap_sys_admin(
    c: Container,
    *,
    azure_rules: Annotated[bool, "only the exact name SYS_ADMIN counts, not ALL or CAP_SYS_ADMIN"] = False,
) -> Verdict:
    """Kubernetes clusters should not grant CAPSYSADMIN security capabilities

    CAP_SYS_ADMIN opens mounts, namespaces and much of the kernel's administration: it is nearly root on the node.
    """
    if azure_rules:
        granted = "SYS_ADMIN" in c.capabilities_added
    else:
        granted = any(_bare(name) in ("SYS_ADMIN", "ALL") for name in c.capabilities_added)
    at = c.where("securityContext.capabilities.add")
    return require(not granted, "adds CAP_SYS_ADMIN", at, c.capabilities_added)


def _bare(capability: str) -> str:
    return capability.upper().removeprefix("CAP_")


@check(
    "k8s-least-privileged-capabilities",
    Severity.MEDIUM,
    controls=ACCESS,
    fix="Drop ALL capabilities and add back only those on the approved list.",
    refs=(
        "mdc:11c95609-3553-430d-b788-fd41cde8b2db",
        "azure-policy-6:c26596ff-4d70-4e6a-9a30-c2506bd2f80c",
        "pss:baseline",
        "pss:restricted",
        "cis-k8s-1.12:5.2.8",
        "cis-k8s-1.12:5.2.9",
        "nsa:Pod security enforcement",
        "mitre:T1611",
    ),
    exclude=BOTH,
    excluded_namespaces=AZURE_SYSTEM_WITH_DEFENDER,
    linux_only=True,
)
def least_privileged_capabilities(
    c: Container,
    *,
    allowed_capabilities: Annotated[tuple[str, ...], "capabilities that may be added; * for any"] = (),
    required_drop_capabilities: Annotated[tuple[str, ...], "capabilities that must be dropped"] = (),
    azure_rules: Annotated[bool, "compare names as written: CAP_CHOWN is not CHOWN"] = False,
) -> Verdict:
    """Least privileged Linux capabilities should be enforced for containers

    Each capability beyond the runtime's default set is a part of root's power that an intruder inherits.
    """
    name = str.upper if azure_rules else _bare
    allowed = set(map(name, allowed_capabilities))
    extra = () if "*" in allowed else tuple(a for a in c.capabilities_added if name(a) not in allowed)
    # Runtimes know ALL by this name only: CAP_ALL drops nothing.
    everything = "ALL" in map(str.upper, c.capabilities_dropped)
    dropped = set(map(name, c.capabilities_dropped)) - {"ALL"}
    kept = () if everything else tuple(r for r in required_drop_capabilities if name(r) not in dropped)
    if not extra and not kept:
        return PASS
    evidence, messages = [], []
    if extra:
        messages.append(f"adds {text(extra)}")
        evidence.append(Evidence(c.where("securityContext.capabilities.add"), text(c.capabilities_added)))
    if kept:
        messages.append(f"does not drop {text(kept)}")
        evidence.append(Evidence(c.where("securityContext.capabilities.drop"), text(c.capabilities_dropped)))
    return fail(", ".join(messages), *evidence)


UserRule = Literal["MustRunAs", "MustRunAsNonRoot", "RunAsAny"]
GroupRule = Literal["MustRunAs", "MayRunAs", "RunAsAny"]
ANY_BUT_ROOT = (Range(1, -1),)


@check(
    "k8s-run-as-root",
    Severity.HIGH,
    controls=ACCESS,
    fix="Set runAsNonRoot: true with a non-zero runAsUser and runAsGroup, on the pod or on each container.",
    refs=(
        "mdc:9b795646-9130-41a4-90b7-df9eae2437c8",
        "azure-policy-6:f06ddb64-5fa3-4b77-b166-acb36f7f6042",
        "pss:restricted",
        "cis-k8s-1.12:5.2.7",
        "nsa:Non-root containers",
        "mitre:T1611",
    ),
    exclude=BOTH,
    excluded_namespaces=AZURE_SYSTEM_WITH_DEFENDER,
    linux_only=True,
)
def run_as_root(
    c: Container,
    *,
    run_as_user_rule: Annotated[UserRule, "rule for runAsUser and runAsNonRoot"] = "MustRunAsNonRoot",
    run_as_user_ranges: Annotated[tuple[Range, ...], "for MustRunAs: allowed user ids"] = (),
    run_as_group_rule: Annotated[GroupRule, "rule for runAsGroup"] = "MayRunAs",
    run_as_group_ranges: Annotated[tuple[Range, ...], "allowed group ids"] = ANY_BUT_ROOT,
    supplemental_groups_rule: Annotated[GroupRule, "rule for supplementalGroups"] = "MayRunAs",
    supplemental_groups_ranges: Annotated[tuple[Range, ...], "allowed group ids"] = ANY_BUT_ROOT,
    fs_group_rule: Annotated[GroupRule, "rule for fsGroup"] = "MayRunAs",
    fs_group_ranges: Annotated[tuple[Range, ...], "allowed group ids"] = ANY_BUT_ROOT,
    exempt_user_namespaces: Annotated[
        bool, "pods with hostUsers: false pass: their root is nobody on the node"
    ] = False,
) -> Verdict:
    """Running containers as root user should be avoided

    Root in a container is root on the node as soon as it breaks out. The user that an image names cannot be seen from
    here, so a container that sets neither runAsNonRoot nor a user id fails.
    """
    if exempt_user_namespaces and c.pod.host_users is False:
        return PASS
    problems = list(_user_problems(c, run_as_user_rule, run_as_user_ranges))
    pod_security = f"{c.pod.path}.securityContext"
    group = () if c.run_as_group is None else (c.run_as_group,)
    fs_group = () if c.pod.fs_group is None else (c.pod.fs_group,)
    supplemental = c.pod.supplemental_groups
    problems += _group_problems(c.where("securityContext.runAsGroup"), group, run_as_group_rule, run_as_group_ranges)
    problems += _group_problems(
        f"{pod_security}.supplementalGroups", supplemental, supplemental_groups_rule, supplemental_groups_ranges
    )
    problems += _group_problems(f"{pod_security}.fsGroup", fs_group, fs_group_rule, fs_group_ranges)
    if not problems:
        return PASS
    return fail("; ".join(message for message, _ in problems), *(evidence for _, evidence in problems))


def _user_problems(c: Container, rule: str, ranges: Iterable[Range]) -> Iterator[tuple[str, Evidence]]:
    uid, at = c.run_as_user, c.where("securityContext.runAsUser")
    if rule == "MustRunAs" and (uid is None or not _within(uid, ranges)):
        yield f"runAsUser {text(uid)} is not in the allowed ranges", Evidence(at, text(uid))
    elif rule == "MustRunAsNonRoot" and uid == 0:
        yield "runs as root (user id 0)", Evidence(at, "0")
    elif rule == "MustRunAsNonRoot" and uid is None and c.run_as_non_root is not True:
        at = c.where("securityContext.runAsNonRoot")
        default = "false" if c.run_as_non_root is None else None
        yield "may run as root: the image decides", Evidence(at, text(c.run_as_non_root), default)


def _group_problems(
    at: str, groups: tuple[int, ...], rule: str, ranges: Iterable[Range]
) -> Iterator[tuple[str, Evidence]]:
    field = at.rpartition(".")[2]
    if rule == "RunAsAny":
        return
    if not groups and rule == "MustRunAs":
        yield f"{field} is not set", Evidence(at, text(None))
    outside = [g for g in groups if not _within(g, ranges)]
    if outside:
        value = groups if field == "supplementalGroups" else groups[0]
        yield f"{field} {', '.join(map(str, outside))} is not in the allowed ranges", Evidence(at, text(value))


def _within(value: int, ranges: Iterable[Range]) -> bool:
    return any(r.min <= value and (r.max == -1 or value <= r.max) for r in ranges)
