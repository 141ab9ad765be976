"""What the documentation promises, held against the code."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from apiserver import ApiServer
from cli import kubeposture
from typer.core import TyperGroup

import checks
from providers.azure import images
from providers.azure.access import ACTION
from providers.azure.reader import LISTS
from providers.gcp.reader import FOLDERS, PROJECTS
from providers.gcp.session import SERVICES
from providers.kubernetes import agents
from providers.kubernetes.reader import GKE_ONLY
from providers.kubernetes.trivy_operator import KIND as REPORTS
from scanner import cli, config
from scanner.kube import KINDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README, AWS, AZURE = ((ROOT / path).read_text() for path in ("README.md", "docs/aws.md", "docs/azure.md"))
BLOCKS = [block for path in PAGES for block in re.findall(r"```(\w*)\n(.*?)```", path.read_text(), re.DOTALL)]
COMMAND = re.compile(r"^(?:.* \| )?kubeposture (.*?)(?: +#.*)?$", re.MULTILINE)
COMMANDS = [words for _, text in BLOCKS for words in COMMAND.findall(text.replace("\\\n", ""))]
CONFIGS = [text for language, text in BLOCKS if language == "yaml" and "targets:" in text]
CLUSTER_ROLE = next(yaml.safe_load(text) for language, text in BLOCKS if "kind: ClusterRole" in text)
ROLE = json.loads(re.search(r"```json\n(.*?)```", AZURE, re.DOTALL)[1])
GOOGLE = (ROOT / "docs/gcp.md").read_text()
GOOGLES_ROLE = yaml.safe_load(re.search(r"```yaml\n(.*?)```", GOOGLE, re.DOTALL)[1])
DEFAULT = config.settings(checks.load(), config.Config(), config.Selection())


def test_the_role_holds_every_right_that_is_used_and_no_other():
    assert sorted(ROLE["Actions"]) == sorted([ACTION, *images.ACTIONS, *(wanted.action for wanted in LISTS.values())])
    assert not [action for action in ROLE["Actions"] if not action.endswith("/read") and action != ACTION]


def test_the_roles_data_actions_are_the_kinds_that_the_default_checks_read():
    prefix = "Microsoft.ContainerService/managedClusters/"
    kinds = [KINDS[plural] for plural in DEFAULT.kinds() - GKE_ONLY]
    wanted = [f"{prefix}{kind.group + '/' if kind.group else ''}{kind.plural}/read" for kind in kinds]
    assert sorted(ROLE["DataActions"]) == sorted(wanted)


@pytest.mark.parametrize("action", ROLE["Actions"])
def test_each_right_says_what_becomes_unknown_without_it(action):
    rows = [line for line in AZURE.splitlines() if line.startswith("| `")]
    assert [row for row in rows if "/".join(action.split("/")[-2:]) in row]


def test_the_checks_that_are_named_exist():
    named = re.findall(r"`((?:aws|gcp|azure-(?:aks|acr|arc|defender))-[a-z-]+[a-z])`", AWS + AZURE + GOOGLE)
    assert "aws-eks-defender-permissions" in set(named) <= set(checks.load())


def test_the_policy_holds_every_call_that_is_made_and_no_other():
    policy = json.loads(re.search(r"```json\n(.*?)```", AWS, re.DOTALL)[1])
    source = "".join(path.read_text() for path in (ROOT / "providers/aws").glob("*.py"))
    made = {f"{service}:{name}" for service, name in re.findall(r'"(\w+)",\s*[\w.]+,\s*"([A-Z]\w+)"', source)}
    made |= {f"ecr:{name}" for name in re.findall(r'"(Get\w+Policy)", "\w+Text"', source)}
    elsewhere = {"sts:AssumeRole", "organizations:ListAccounts"}  # told beside the policy
    assert sorted(policy["Statement"][0]["Action"]) == sorted(made - elsewhere)


def asked(request):
    """Verb, group, plural and name that a GET request for objects needs; None for one that everybody may send."""
    path = re.fullmatch(r"/api(?:s/([^/]+))?/v1(?:/namespaces/[^/]+(?=/))?/([^/]+)(?:/([^/]+))?", request.path)
    return path and ("get" if path[3] else "list", path[1] or "", path[2], path[3] or "")


def granted(verb, group, plural, name):
    for rule in CLUSTER_ROLE["rules"]:
        here = verb in rule["verbs"] and group in rule["apiGroups"] and plural in rule["resources"]
        if here and name in rule.get("resourceNames", [name]):
            return True
    return False


def test_the_cluster_role_allows_what_is_read_inside_and_no_other_list(tmp_path):
    places = sorted({agents.ARC, *(namespace for _, namespace in agents._PLACES)})
    lone = {"kind": "ReplicaSet", "metadata": {"name": "lone", "namespace": "mdc"}, "spec": {"replicas": 0}}
    with ApiServer([*({"kind": "Namespace", "metadata": {"name": name}} for name in places), lone]) as api:
        api.kubeconfig(tmp_path / "config")
        kubeposture("collect", "kubeconfig", "--kubeconfig", tmp_path / "config", "-o", tmp_path / "bundle")
        wanted = {asked(request) for request in api.requests} - {None}
    assert ("get", "", "configmaps", "azure-clusterconfig") in wanted
    assert [right for right in wanted if not granted(*right)] == []
    lists = {(group, plural) for verb, group, plural, _ in wanted if verb == "list"}
    lists |= {(KINDS[plural].group, plural) for plural in GKE_ONLY} | {(REPORTS.group, REPORTS.plural)}
    allowed = [rule for rule in CLUSTER_ROLE["rules"] if rule["verbs"] == ["list"]]
    assert sorted(lists) == sorted(
        (group, plural) for r in allowed for group in r["apiGroups"] for plural in r["resources"]
    )


def test_the_namespaces_of_agents_are_told():
    rows = dict(re.findall(r"^\| list (\w+) \| (.*) \|$", AWS, re.MULTILINE))
    told = {(plural, namespace) for plural, cell in rows.items() for namespace in re.findall(r"`([\w-]+)`", cell)}
    assert told == set(agents._PLACES)
    assert f"| `{agents.ARC}` |" in AWS


def test_the_demo_prints_what_is_shown():
    [shown] = [text for _, text in BLOCKS if text.startswith("Cloud ")]
    assert set(shown.splitlines()) - {"…", "         …"} <= set(kubeposture("demo").stdout.splitlines())


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line):
    command, words = typer.main.get_command(cli.app), shlex.split(line)
    while isinstance(command, TyperGroup):
        command = command.commands[words.pop(0)]
    command.make_context("kubeposture", words)


@pytest.mark.parametrize("text", CONFIGS)
def test_configurations_are_understood(text, tmp_path):
    (tmp_path / "kubeposture.yaml").write_text(text)
    assert config.load(tmp_path / "kubeposture.yaml").targets


def test_googles_role_holds_every_right_that_is_used_and_no_other():
    source = "".join(path.read_text() for path in (ROOT / "providers/gcp").glob("*.py"))
    used = set(
        re.findall(r'"((?:container|artifactregistry|containeranalysis|resourcemanager)\.[a-z]+\.[A-Za-z]+)"', source)
    )
    assert 'f"resourcemanager.{what}.list"' in source
    used |= {f"resourcemanager.{what}.list" for what in (PROJECTS, FOLDERS)}
    assert sorted(GOOGLES_ROLE["includedPermissions"]) == sorted(used)


@pytest.mark.parametrize("permission", GOOGLES_ROLE["includedPermissions"])
def test_each_permission_says_what_becomes_unknown_without_it(permission):
    assert [line for line in GOOGLE.splitlines() if line.startswith(f"| `{permission}` | ")]


def test_the_services_that_can_be_elsewhere_are_told():
    told = re.search(r"the services are ([^.;]*?)\.\n", GOOGLE, re.DOTALL)[1]
    assert re.findall(r"`(\w+)`", told) == list(SERVICES)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", path.read_text()):
        page = path.parent / target if target else path
        assert page.exists(), target
        headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
        assert anchor in {"", *(re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings)}, (
            anchor
        )
