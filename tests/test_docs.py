"""What the documentation promises, held against the code."""

import ast
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
from scanner.model import GapReason
from scanner.vulnerabilities import SOURCES

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
IMAGES = (ROOT / "docs/images.md").read_text()
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
    named = re.findall(r"`((?:aws|gcp|azure-(?:aks|acr|arc|defender))-[a-z-]+[a-z])`", AWS + AZURE + GOOGLE + IMAGES)
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


def first_column(heading):
    """What the rows of the tables under a heading are about."""
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", IMAGES, re.DOTALL | re.MULTILINE)
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(.+?)`", cell)]


def test_the_sources_are_told_in_their_order():
    assert first_column("Where findings come from") == list(SOURCES)


def test_the_checks_of_images_are_told():
    assert sorted(first_column("What is judged")) == sorted(id for id in checks.load() if id.endswith("-image-vulns"))


def test_the_options_of_images_are_told():
    told = sorted(words.split()[0] for words in first_column("Options"))
    scan = typer.main.get_command(cli.app).commands["scan"].commands["kubeconfig"]
    assert told == sorted(option.opts[-1] for option in scan.params if option.rich_help_panel == "Images")


def codes(node, tables):
    """What of an expression looks like a reason code, the values of dictionaries that it names included."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and re.fullmatch("[a-z]+(_[a-z]+)*", str(part.value)):
            yield part.value
        elif isinstance(part, ast.Name) and isinstance(tables.get(part.id), ast.Dict):
            for value in tables[part.id].values:
                yield from codes(value, {})


def unfinished(text):
    """Every reason code that the text of a module gives for a scan that proves nothing: what it calls `unfinished`, and
    the first part of each Reason."""
    tree = ast.parse(text)
    tables = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    reasons = re.search(r"\bReason\b", text)
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=[target, _])], value=ast.Tuple(elts=[value, _])):
                found = value if "unfinished" in ast.unparse(target) else None
            case ast.Assign(targets=[target], value=value):
                found = value if "unfinished" in ast.unparse(target) else None
            case ast.keyword(arg="unfinished", value=found) | ast.Call(func=ast.Name("_Analysis"), args=[found, *_]):
                pass
            case ast.Tuple(elts=[value, _]):
                found = value if reasons else None
            case _:
                found = None
        yield from codes(found, tables) if found else ()


def undecided():
    """Every reason code that the rule itself gives in place of a pass."""
    for node in ast.walk(ast.parse((ROOT / "checks/images/rule.py").read_text())):
        match node:
            case ast.Call(func=ast.Name("Verdict"), args=[status, value, *_]) if "UNKNOWN" in ast.unparse(status):
                yield from codes(value, {})
            case ast.Return(ast.Tuple(elts=[*_, ast.Constant() as value, _])):
                yield from codes(value, {})


def test_no_reason_for_unknown_is_left_out():
    told = first_column("What is unknown")
    assert len(told) == len(set(told))
    texts = {path: path.read_text() for path in (ROOT / "providers").rglob("*.py")}
    by_module = {path.stem: set(unfinished(text)) for path, text in texts.items()}
    assert by_module["trivy"] == {"nothing_scanned", "unsupported_os", "end_of_life", "failed", "not_attributed"}
    assert by_module["xray"] == {"not_scanned", "incomplete", "in_progress", "failed", "unsupported_image"}
    own = {*undecided(), GapReason.NO_SOURCE.value}
    assert own > {"unrated", "not_scanned", "no_digest", "not_certain", "only_fixed", "scan_time_unknown", "stale_scan"}
    given = own.union(*(unfinished(text) for text in texts.values()))
    assert sorted(given - set(told)) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", path.read_text()):
        page = path.parent / target if target else path
        assert page.exists(), target
        headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
        assert anchor in {"", *(re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings)}, (
            anchor
        )
