"""What the catalogue says of every check, and which module may import which."""

from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

import msgspec
import pytest
from cli import kubeposture, process

import checks
from providers.aws.reader import BESIDE
from providers.azure.reader import LISTS
from providers.gcp import reader as gcp
from scanner import config
from scanner.check import (
    AZURE_SYSTEM,
    AZURE_SYSTEM_WITH_DEFENDER,
    PROVIDER_MANAGED,
    Check,
    Pattern,
    Range,
    check,
    parse_ref,
    type_name,
)
from scanner.cli.catalogue import catalogue
from scanner.cloud import JOINED
from scanner.images import RegistryImage, RunningContainer
from scanner.kube import KINDS, Container
from scanner.model import PASS, Severity, Verdict
from scanner.profiles import PROFILES
from scanner.vulnerabilities import SOURCES

ROOT = Path(__file__).parent.parent
ACCESS, HARDENING = "Manage access and permissions", "Remediate security configurations"
NETWORK = "Restrict unauthorized network access"


class Row(NamedTuple):
    """What Microsoft publishes of one recommendation: `policy` is major version and definition id."""

    title: str
    key: str
    policy: str
    severity: str
    control: str
    agents: bool  # Defender's own namespaces are left out too


# fmt: off
MICROSOFT = {
    "k8s-container-limits": Row(
        "Container CPU and memory limits should be enforced", "405c9ae6-49f9-46c4-8873-a86690f27818",
        "9:e345eecc-fa47-480f-9e88-67dcc122b164", "medium", "Protect applications against DDoS attack", True),
    "k8s-trusted-registries": Row(
        "Container images should be deployed from trusted registries only", "8d244d29-fa00-4332-b935-c3a51d525417",
        "9:febd0533-8e55-448f-b837-bd0e06f16469", "high", "Remediate vulnerabilities", True),
    "k8s-host-namespaces": Row(
        "Containers sharing sensitive host namespaces should be avoided", "802c0637-5a8c-4c98-abd7-7c96d89d6010",
        "5:47a1ee2f-2a2a-4576-bf2a-e0e36709c2b8", "medium", ACCESS, False),
    "k8s-apparmor-profile": Row(
        "Containers should only use allowed AppArmor profiles", "86f91051-9d6a-47c3-a07f-bd14cb214b45",
        "6:511f5417-5d12-434d-ab2e-816901e72a5e", "high", HARDENING, True),
    "k8s-privilege-escalation": Row(
        "Container with privilege escalation should be avoided", "43dc2a2e-ce69-4d42-923e-ab7d136f2cfe",
        "7:1c6e92c9-99f0-4e55-9cf2-0c234dc48f99", "medium", ACCESS, False),
    "k8s-read-only-root-fs": Row(
        "Immutable (read-only) root filesystem should be enforced for containers",
         "27d6f0e9-b4d5-468b-ae7e-03d5473fd864",
        "6:df49d893-a74c-421d-bc95-c663042e5b80", "medium", ACCESS, True),
    "k8s-https-only": Row(
        "Kubernetes clusters should be accessible only over HTTPS", "c6d87087-9ebe-b31f-b452-0bf3bbbaccd2",
        "8:1a5b4dca-0b6f-4cf5-907c-56316bc1bf3d", "high", "Encrypt data in transit", False),
    "k8s-automount-api-credentials": Row(
        "Kubernetes clusters should disable automounting API credentials", "32060ac3-f17f-4848-db8e-e7cf2c9a53eb",
        "4:423dd1ba-798e-40e4-9c4d-b6902674b423", "high", ACCESS, True),
    "k8s-cap-sys-admin": Row(
        "Kubernetes clusters should not grant CAPSYSADMIN security capabilities",
         "aba14f78-27c5-af84-848e-9105d18dfd92",
        "5:d2e7ea85-6b44-4317-a0be-1b951587f626", "high", ACCESS, True),
    "k8s-default-namespace": Row(
        "Kubernetes clusters should not use the default namespace", "ff87e0b4-17df-d338-5b19-80e71e0dcc9d",
        "4:9f061a12-e40d-4183-a00e-171812443373", "low", "Implement security best practices", False),
    "k8s-least-privileged-capabilities": Row(
        "Least privileged Linux capabilities should be enforced for containers", "11c95609-3553-430d-b788-fd41cde8b2db",
        "6:c26596ff-4d70-4e6a-9a30-c2506bd2f80c", "medium", ACCESS, True),
    "k8s-privileged-container": Row(
        "Privileged containers should be avoided", "5d90913f-a1c5-4429-ad54-2c6c17fb3c73",
        "9:95edb821-ddaf-4404-9732-666045e056b4", "medium", ACCESS, True),
    "k8s-run-as-root": Row(
        "Running containers as root user should be avoided", "9b795646-9130-41a4-90b7-df9eae2437c8",
        "6:f06ddb64-5fa3-4b77-b166-acb36f7f6042", "high", ACCESS, True),
    "k8s-service-allowed-ports": Row(
        "Services should listen on allowed ports only", "add45209-73f6-4fa5-a5a5-74a451b07fbe",
        "8:233a2a17-77ca-4fb1-9b6b-69223d272a44", "medium", NETWORK, False),
    "k8s-container-allowed-ports": Row(
        "Containers should listen on allowed ports only", "5f88450f-9546-4b78-a181-a2d9162bb441",
        "6.2.0:440b515e-a580-421e-abeb-b159a61ddcbc", "medium", NETWORK, False),
    "k8s-host-network-ports": Row(
        "Usage of host networking and ports should be restricted", "ebc68898-5c0f-4353-a426-4a5f1e737b12",
        "6:82985f06-dc18-4a48-bc1c-b9f4f0098cfe", "medium", NETWORK, False),
    "k8s-hostpath-volumes": Row(
        "Usage of pod HostPath volume mounts should be restricted to a known list to restrict node access from "
        "compromised containers", "f0debc84-981c-4a0d-924d-aa4bd7d55fef",
        "6:098fc59e-46c7-4d99-9b16-64990e543d75", "medium", ACCESS, True),
}
# Of images: title, and every key that stands or stood for it; the last of Azure's were Qualys'.
MICROSOFT_IMAGES = {
    "azure-registry-image-vulns": (
        "Container images in Azure registry should have vulnerability findings resolved",
        "33422d8f-ab1e-42be-bc9a-38685bb567b9", "c0b7cfc6-3172-465a-b378-53c7ff2cc0d5",
        "dbd0cb49-b563-45e7-9724-889e799fa648"),
    "azure-running-image-vulns": (
        "Containers running in Azure should have vulnerability findings resolved",
        "c5045ea3-afc6-4006-ab8f-86c8574dbf3d", "e9acaf48-d2cf-45a3-a6e7-3caa2ef769e0",
        "c609cf0f-71ab-41e9-a3c6-9a1f7fe1b8d5", "41503391-efa5-47ee-9282-4eff6131462c"),
    "aws-registry-image-vulns": (
        "Container images in AWS registry should have vulnerability findings resolved",
        "2a139383-ec7e-462a-90ac-b1b60e87d576", "c27441ae-775c-45be-8ffa-655de37362ce"),
    "aws-running-image-vulns": (
        "Containers running in AWS should have vulnerability findings resolved",
        "8749bb43-cd24-4cf9-848c-2a50f632043c", "d5d1e526-363a-4223-b860-f4b6e710859f",
        "682b2595-d045-4cff-b5aa-46624eb2dd8f"),
    "gcp-registry-image-vulns": (
        "Container images in GCP registry should have vulnerability findings resolved",
        "24e37609-dcf5-4a3b-b2b0-b7d76f2e4e04", "5cc3a2c1-8397-456f-8792-fe9d0d4c9145"),
    "gcp-running-image-vulns": (
        "Containers running in GCP should have vulnerability findings resolved",
        "1b3abfa4-9e53-46f1-9627-51f2957f8bba", "c7c1d31d-a604-4b86-96df-63448618e165",
        "e538731a-80c8-4317-a119-13075e002516"),
    "dockerhub-registry-image-vulns": (
        "Container images in Docker Hub registry should have vulnerability findings resolved",),
    "jfrog-registry-image-vulns": (
        "Container images in Jfrog Artifactory registry should have vulnerability findings resolved",),
}
# Of clouds: title, assessment key, policy definition, severity.
MICROSOFT_CLOUD = {
    "azure-aks-defender-profile": (
        "Azure Kubernetes Service clusters should have Defender profile enabled",
        "56a83a6e-c417-42ec-b567-1e6fcb3d09a9", "a1840de2-8088-4ea8-b153-b4c723e9cb01", "high"),
    "azure-aks-azure-policy-addon": (
        "Azure Kubernetes Service clusters should have the Azure Policy add-on for Kubernetes installed",
        "08e628db-e2ed-4793-bc91-d13e684401c3", "0a15ec92-a229-4763-bb14-0ea34a568f8d", "high"),
    "azure-aks-rbac": (
        "Role-Based Access Control should be used on Kubernetes Services",
        "b0fdc63a-38e7-4bab-a7c4-2c2665abbaa9", "ac4a19c2-fa67-49b4-8ae5-0b2e78c49457", "high"),
    "azure-aks-api-server-restricted": (
        "Kubernetes API server should be configured with restricted access",
        "1a2b5b4c-f80d-46e7-ac81-b51a9fb363de", "0e246bcf-5f6f-4f87-bc6f-775d4712c7ea", "high"),
    "azure-aks-diagnostic-logs": (
        "Diagnostic logs in Kubernetes services should be enabled",
        "bb318338-de6a-42ff-8428-8274c897d564", "245fc9df-fa96-4414-9a0b-3738c2f7341c", "low"),
    "azure-acr-cmk": (
        "(Enable if required) Container registries should be encrypted with a customer-managed key (CMK)",
        "af560c4d-9c05-e073-b9f1-f7a94958ff25", "5b9159ae-1701-4a6f-9a7a-aa9c8ddd0580", "low"),
    "azure-acr-network-restricted": (
        "Container registries should not allow unrestricted network access",
        "9b828565-a0ed-61c2-6bf3-1afc99a9b2ca", "d0793b48-0edc-4296-a390-4c75d1bdfd71", "medium"),
    "azure-acr-private-link": (
        "Container registries should use private link",
        "13e7d036-6903-821c-6018-962938929bf0", "e8eef0a8-67cf-4eb4-9386-14b0e78733d4", "medium"),
    "azure-defender-containers-plan": (
        "Microsoft Defender for Containers should be enabled",
        "e599a9fe-30e3-47c6-a173-8b4b6d9d3255", "1c988dd6-ade4-430f-a608-2a3e5b0a6d38", "high"),
    "azure-arc-policy-extension": (
        "Azure Arc-enabled Kubernetes clusters should have the Azure Policy extension installed",
        "0642d770-b189-42ef-a2ce-9dcc3ec6c169", "6b2122c1-8120-4ff5-801b-17625a355590", "high"),
    "azure-arc-defender-extension": (
        "Azure Arc-enabled Kubernetes clusters should have the Defender extension installed",
        "3ef9848c-c2c8-4ff3-8b9c-4c8eb8ddfce6", "8dfab9c4-fe7b-49ad-85e4-1e9be085358f", "high"),
    "aws-eks-defender-permissions": (
        "EKS clusters should grant the required AWS permissions to Microsoft Defender for Cloud",
        "7d3a977e-46f1-419a-9046-4bd44db80aac", "", "high"),
    "aws-connector-defender-containers": (
        "Microsoft Defender for Containers should be enabled on AWS connectors",
        "11d0f4af-6924-4a2e-8b66-781a4553c828", "", "high"),
    "gcp-gke-defender-arc-extension": (
        "GKE clusters should have Microsoft Defender's extension for Azure Arc installed",
        "0faf27b6-f1d5-4f50-b22a-5d129cba0113", "", "high"),
    "gcp-gke-azure-policy-extension": (
        "GKE clusters should have the Azure Policy extension installed",
        "6273e20b-8814-4fda-a297-42a70b16fcbf", "", "high"),
    "aws-eks-defender-arc-extension": (
        "EKS clusters should have Microsoft Defender's extension for Azure Arc installed",
        "38307993-84fb-4636-8ce7-3a64466bb5cc", "", "high"),
    "gcp-connector-defender-containers": (
        "Microsoft Defender for Containers should be enabled on GCP connectors",
        "d42ac63d-0592-43b2-8bfa-ff9199da595e", "", "high"),
    "gcp-connector-defender-advanced": (
        "Advanced configuration of Defender for Containers should be enabled on GCP connectors",
        "b7683ca3-3a11-49b6-b9d4-a112713edfa3", "", "high"),
    "gcp-gke-auto-repair": (
        "GKE cluster's auto repair feature should be enabled",
        "6aeb69dc-0d01-4228-88e9-7e610891d5dd", "", "medium"),
    "gcp-gke-auto-upgrade": (
        "GKE cluster's auto upgrade feature should be enabled",
        "1680e053-2e9b-4e77-a1c7-793ae286155e", "", "high"),
    "gcp-gke-monitoring": (
        "Monitoring on GKE clusters should be enabled",
        "6a7b7361-5100-4a8c-b23e-f712d7dad39b", "", "medium"),
    "gcp-gke-logging": (
        "Logging for GKE clusters should be enabled",
        "fa160a2c-e976-41cb-acff-1e1e3f1ed032", "", "high"),
    "gcp-gke-web-dashboard": (
        "GKE web dashboard should be disabled",
        "d8fa5c03-a8e8-467b-992c-ad8b2db0f55e", "", "high"),
    "gcp-gke-legacy-abac": (
        "Legacy Authorization should be disabled on GKE clusters",
        "bd1096e1-73cf-41ab-8f2a-257b78aed9dc", "", "high"),
    "gcp-gke-authorized-networks": (
        "Control Plane Authorized Networks should be enabled on GKE clusters",
        "24df9ba4-8c98-42f2-9f64-50b095eca06f", "", "high"),
    "gcp-gke-alias-ip": (
        "GKE clusters should have alias IP ranges enabled",
        "49016ecd-d4d6-4f48-a64f-42af93e15120", "", "low"),
    "gcp-gke-private-cluster": (
        "GKE clusters should have Private clusters enabled",
        "d3e70cff-e4db-47b1-b646-0ac5ed8ada36", "", "high"),
    "gcp-gke-network-policy": (
        "Network policy should be enabled on GKE clusters",
        "fd06513a-1e03-4d40-9159-243f76dcdcb7", "", "medium"),
}
# fmt: on
FRAMEWORKS = {
    *("mdc", "azure-policy", "pss", "cis-k8s", "cis-aks", "cis-eks", "cis-gke", "nsa", "mitre"),
    *("checkov", "prowler", "fsbp"),
}
CATALOGUE = checks.load()


def refs(item: Check, framework: str) -> list[str]:
    return [f"{r.version}:{r.id}" if r.version else r.id for r in item.refs if r.framework == framework]


def test_all_of_microsofts_are_there() -> None:
    assert set(CATALOGUE) >= {*MICROSOFT, *MICROSOFT_CLOUD}
    keys = [key for item in CATALOGUE.values() for key in item.assessment_keys]
    of_images = sum(len(keys) for _, *keys in MICROSOFT_IMAGES.values())
    assert len(keys) == len(set(keys)) == len(MICROSOFT) + len(MICROSOFT_CLOUD) + of_images


@pytest.mark.parametrize("id", MICROSOFT_IMAGES)
def test_what_microsoft_publishes_of_images(id: str) -> None:
    title, *keys = MICROSOFT_IMAGES[id]
    item = CATALOGUE[id]
    assert (item.title, item.severity, item.assessment_keys) == (f"[Preview] {title}", "high", tuple(keys))


def test_every_check_of_images_takes_the_same_parameters() -> None:
    of_images = [item for item in CATALOGUE.values() if item.category == "vulnerability"]
    assert {item.of for item in of_images} == {"azure", "aws", "gcp", "dockerhub", "jfrog", "kubernetes"}
    shapes = {tuple((name, repr(item.parameters[name])) for name in item.passed) for item in of_images}
    assert len(shapes) == 1
    listed = of_images[0].parameters["sources"].type
    assert set(get_args(get_args(listed)[0])) == set(SOURCES)


@pytest.mark.parametrize("id", MICROSOFT_CLOUD)
def test_what_microsoft_publishes_of_clouds(id: str) -> None:
    title, key, policy, severity = MICROSOFT_CLOUD[id]
    item = CATALOGUE[id]
    assert (item.title, item.severity, item.assessment_keys) == (title, severity, (key,))
    assert {r.id for r in item.refs if r.framework == "azure-policy"} == ({policy} if policy else set())


@pytest.mark.parametrize("id", MICROSOFT)
def test_what_microsoft_publishes(id: str) -> None:
    item, row = CATALOGUE[id], MICROSOFT[id]
    assert (item.title, item.severity, item.controls) == (row.title, row.severity, (row.control,))
    assert item.assessment_keys == (row.key,)
    assert refs(item, "azure-policy") == [row.policy]


@pytest.mark.parametrize("id", MICROSOFT)
def test_namespaces_that_microsoft_leaves_out(id: str) -> None:
    system = AZURE_SYSTEM_WITH_DEFENDER if MICROSOFT[id].agents else AZURE_SYSTEM
    item = CATALOGUE[id]
    if id == "k8s-default-namespace":
        system = ()
    assert item.system_namespaces == system
    assert item.parameters["excluded_namespaces"].default == ((*system, *PROVIDER_MANAGED) if system else ())
    assert PROFILES["defender"].values(item).get("excluded_namespaces", []) == list(system)


@pytest.mark.parametrize("item", CATALOGUE.values(), ids=lambda c: c.id)
def test_a_person_can_read_it(item: Check) -> None:
    assert not item.title.endswith(".")
    assert item.why.endswith(".")
    assert item.fix.endswith(".")
    of_images = item.scope in (RunningContainer, RegistryImage)
    plane = "data_plane" if item.id.startswith("k8s-") else "control_plane"
    assert item.category == ("vulnerability" if of_images else plane)
    for parameter in item.parameters.values():
        assert parameter.doc
        assert not parameter.doc.endswith(".")


@pytest.mark.parametrize("item", CATALOGUE.values(), ids=lambda c: c.id)
def test_references(item: Check) -> None:
    assert {r.framework for r in item.refs} <= FRAMEWORKS
    assert len(set(item.refs)) == len(item.refs)
    assert all(r.version for r in item.refs if r.framework.startswith(("cis", "azure-policy")))


def test_of_microsofts_only_the_deprecated_one_is_off() -> None:
    assert [id for id in MICROSOFT if not CATALOGUE[id].on] == ["k8s-container-allowed-ports"]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_profiles_name_checks_and_parameters_that_exist(profile: Any) -> None:
    assert set(profile.switch_on) <= set(CATALOGUE)
    for id, values in profile.parameters.items():
        assert set(values) <= set(CATALOGUE[id].parameters)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("mdc:5d90913f", ("mdc", None, "5d90913f")),
        ("cis-k8s-1.12:5.2.2", ("cis-k8s", "1.12", "5.2.2")),
        ("cis-eks-1.8.0:4.2.1", ("cis-eks", "1.8.0", "4.2.1")),
        ("nsa:Network policies", ("nsa", None, "Network policies")),
    ],
)
def test_parse_ref(text: str, parts: tuple[str, str | None, str]) -> None:
    ref = parse_ref(text)
    assert (ref.framework, ref.version, ref.id) == parts
    assert str(ref) == text


# ---------------------------------------------------------------------------------------------------------------------
# What `checks` and the configuration make of it

EVERY = catalogue()


def test_one_check_is_always_on() -> None:
    assert [id for id, item in EVERY.items() if item.always] == [*EVERY.keys() - CATALOGUE.keys()]


@pytest.mark.parametrize("item", EVERY.values(), ids=lambda c: c.id)
def test_page(item: Check) -> None:
    page = kubeposture("checks", "show", item.id).stdout
    words = " ".join(page.split())
    for part in (item.title, item.why, item.fix, *map(str, item.refs), *item.controls):
        assert " ".join(part.split()) in words
    for p in item.parameters.values():
        assert f"{p.name} = {config.shown(p.default)} {p.doc} ({type_name(p.type)})" in words
    assert (f"requires {' or '.join(item.required)}" in words) is bool(item.required)
    assert ("off unless selected" in words, "always on" in words) == (not item.on, item.always)
    assert max(map(len, page.splitlines()[1:])) <= 96


@pytest.mark.parametrize("item", EVERY.values(), ids=lambda c: c.id)
def test_what_machines_read(item: Check) -> None:
    shown = msgspec.json.decode(kubeposture("checks", "show", item.id, "-o", "json").stdout)
    assert (shown["id"], shown["title"], shown["severity"]) == (item.id, item.title, item.severity)
    assert shown["on"] is item.on
    assert [p["name"] for p in shown["parameters"]] == [*item.parameters]
    assert shown["required"] == [*item.required]


@pytest.mark.parametrize("item", CATALOGUE.values(), ids=lambda c: c.id)
def test_defaults_can_be_configured_as_they_are_shown(item: Check) -> None:
    shown = msgspec.json.decode(kubeposture("checks", "show", item.id, "-o", "json").stdout)
    given = {p["name"]: p["default"] for p in shown["parameters"]}
    only = config.Selection(checks=[item.id])
    plans = [
        config.settings(CATALOGUE, config.Config(parameters={item.id: values}), only).plans[0] for values in ({}, given)
    ]
    assert plans[0].values == plans[1].values
    assert plans[1].parameters == tuple(
        config.ParameterValue(p.name, config.shown(p.default), "config") for p in item.parameters.values()
    )


@pytest.mark.parametrize("item", CATALOGUE.values(), ids=lambda c: c.id)
def test_names_inside_a_declaration_exist(item: Check) -> None:
    assert set(item.required) | set(item.needs_if) | set(item.passed) <= set(item.parameters)
    known = {"azure": {*LISTS}, "aws": {*BESIDE, *JOINED}, "gcp": {*gcp.BESIDE, *JOINED}, None: set(KINDS)}[
        item.provider
    ]
    assert {*item.needs, *(kind for kinds in item.needs_if.values() for kind in kinds)} <= known


def test_list_is_the_same_each_time() -> None:
    lists = {process("checks", "list", "-o", "json", PYTHONHASHSEED=seed).stdout for seed in "12"}
    assert len(lists) == 1
    listed = msgspec.json.decode(lists.pop())
    assert [entry["id"] for entry in listed] == sorted(EVERY)
    assert {e["id"]: e["on"] for e in listed} == {id: item.on for id, item in EVERY.items()}


def test_list_for_people_shows_every_check_within_100_columns() -> None:
    lines = process("checks", "list").stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[:2] for line in lines if not line.startswith(" ")] == [
        ["check", "severity"],
        *([id, item.severity.value] for id, item in sorted(EVERY.items())),
    ]
    words = " ".join(" ".join(lines).split())
    assert all(item.title in words for item in EVERY.values() if len(item.title) < 40)
    assert words.count("(off)") == sum(not item.on for item in EVERY.values())


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, "not set"),
        (True, "true"),
        ("a", "a"),
        ((), "[]"),
        (["a", 1], "[a, 1]"),
        ({}, "{}"),
        ({"match_labels": {"a": "b"}}, '{"match_labels":{"a":"b"}}'),
        ([{"min": 1, "max": -1}], '[{"min":1,"max":-1}]'),
        ((Range(1, -1),), '[{"min":1,"max":-1}]'),
    ],
)
def test_value_on_one_line(value: object, line: str) -> None:
    assert config.shown(value) == line


def two_patterns(
    c: Container,
    *,
    first: Annotated[Pattern | None, "help"] = None,
    second: Annotated[Pattern | None, "help"] = None,
    third: Annotated[Pattern | None, "help"] = None,
) -> Verdict:
    """Title

    Why.
    """
    return PASS


def test_every_pattern_that_is_not_anchored_is_warned_of() -> None:
    given = config.Config(parameters={"k8s-x": {"first": "^a$", "second": "^a", "third": "a$"}})
    warnings = config.settings({"k8s-x": declare(two_patterns)}, given, config.Selection()).warnings
    assert [w.partition(" ")[0] for w in warnings] == ["k8s-x.second", "k8s-x.third"]


# ---------------------------------------------------------------------------------------------------------------------
# Declarations that are refused


def documented(c: Container) -> Verdict:
    """Title

    Why.
    """
    return PASS


def undocumented(c: Container) -> Verdict:
    return PASS


def title_only(c: Container) -> Verdict:
    """Title"""
    return PASS


def bare_parameter(c: Container, *, limit: int = 1) -> Verdict:
    """Title

    Why.
    """
    return PASS


def positional(c: Container, limit: Annotated[int, "help"] = 1) -> Verdict:
    """Title

    Why.
    """
    return PASS


def without_default(c: Container, *, limit: Annotated[int, "help"]) -> Verdict:
    """Title

    Why.
    """
    return PASS


def unknown_scope(c: int) -> Verdict:
    """Title

    Why.
    """
    return PASS


def declare(function: Callable[..., Verdict], **changes: Any) -> Check:
    return check("k8s-x", Severity.LOW, **{"fix": "Fix.", "controls": (), "refs": (), **changes})(function)


REFUSED = [undocumented, title_only, bare_parameter, positional, without_default, unknown_scope]


@pytest.mark.parametrize("function", REFUSED, ids=lambda f: f.__name__)
def test_declaration_is_refused(function: Callable[..., Verdict]) -> None:
    with pytest.raises(TypeError, match="k8s-x"):
        declare(function)


def test_declaration_needs_a_fix_and_readable_references() -> None:
    assert declare(documented).title == "Title"
    with pytest.raises(TypeError, match="k8s-x"):
        declare(documented, fix="")
    with pytest.raises(ValueError, match="framework"):
        declare(documented, refs=("no colon",))


def test_two_checks_of_one_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("checks.data_plane.identity")
    twin = dataclasses.replace(CATALOGUE["k8s-run-as-root"], title="Another")
    monkeypatch.setattr(module, "twin", twin, raising=False)
    with pytest.raises(ValueError, match="k8s-run-as-root"):
        checks.load.__wrapped__()


# ---------------------------------------------------------------------------------------------------------------------
# Imports

SDKS = ("azure", "boto3", "botocore", "google", "kubernetes", "msrest")
FOR_CHECKS = {
    f"scanner.{m}"
    for m in (
        *("model", "kube", "cloud", "azure", "aws", "gcp", "check"),
        *("cidr", "quantity", "image_ref", "images", "ports", "iam", "vulnerabilities"),
    )
}
FOR_PROVIDERS = {
    f"scanner.{m}"
    for m in (
        *("model", "kube", "wire", "normalize", "inventory", "owners", "workloads", "bundle", "collect"),
        *("safe_yaml", "cloud", "azure", "aws", "gcp", "plain", "image_ref", "vulnerabilities"),
        *("__project__", "__version__"),
    )
} | {"providers.bounded", "providers.proxies", "providers.trivy"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Names of modules that a module imports anywhere, functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found |= _names(node)
    return found


def _names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    if node.module in ("scanner", "providers", "checks"):
        return {f"{node.module}.{alias.name}" for alias in node.names}
    return {"." * node.level + (node.module or "")}


def imported_on_start(path: Path) -> Iterator[str]:
    """Names imported when the module is: not those inside functions or under TYPE_CHECKING."""
    pending: list[ast.AST] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or "TYPE_CHECKING" in _test_of(node):
            continue
        yield from _names(node)
        pending += ast.iter_child_nodes(node)


def _test_of(node: ast.AST) -> str:
    return ast.unparse(node.test) if isinstance(node, ast.If) else ""


def of_project(names: set[str]) -> set[str]:
    return {n for n in names if n.partition(".")[0] in ("scanner", "providers", "checks") or n.startswith(".")}


def inside(name: str, allowed: set[str]) -> bool:
    return any(name == a or name.startswith(a + ".") for a in allowed)


@pytest.mark.parametrize("path", modules("checks"), ids=lambda p: str(p.relative_to(ROOT)))
def test_checks_know_no_providers(path: Path) -> None:
    strangers = {n for n in of_project(imported(path)) if not inside(n, {*FOR_CHECKS, "checks"})}
    assert not strangers
    assert not {n for n in imported(path) if n.partition(".")[0] in SDKS}


@pytest.mark.parametrize("path", modules("providers"), ids=lambda p: str(p.relative_to(ROOT)))
def test_providers_know_no_checks_and_no_other_provider(path: Path) -> None:
    own = ".".join(path.relative_to(ROOT).parts[:2])
    assert not {
        n
        for n in of_project(imported(path))
        if not inside(n, {*FOR_PROVIDERS, "providers.errors", "providers.http", own})
    }


# The command line wires everything together, the entry point makes sure that the packages are ours, and what sends
# shares the clients of what reads.
WIRING = (ROOT / "scanner" / "cli", ROOT / "scanner" / "__main__.py", ROOT / "scanner" / "sinks")
SCANNER = [p for p in modules("scanner") if p not in WIRING and not set(WIRING) & set(p.parents)]


@pytest.mark.parametrize("path", SCANNER, ids=lambda p: str(p.relative_to(ROOT)))
def test_scanner_knows_neither(path: Path) -> None:
    assert not {n for n in imported(path) if n.partition(".")[0] in ("providers", "checks")}


@pytest.mark.parametrize(
    "path", [*modules("scanner"), *modules("providers"), *modules("checks")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_sdk_is_imported_on_start(path: Path) -> None:
    assert not {n for n in imported_on_start(path) if n.partition(".")[0] in SDKS}
