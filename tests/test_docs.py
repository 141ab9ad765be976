"""What the documentation promises, held against the code."""

import json
import re
from pathlib import Path

import pytest

import checks
from providers.azure.access import ACTION
from providers.azure.reader import LISTS
from providers.kubernetes.reader import GKE_ONLY
from scanner import config
from scanner.kube import KINDS

ROOT = Path(__file__).parent.parent
AZURE = (ROOT / "docs/azure.md").read_text()
ROLE = json.loads(re.search(r"```json\n(.*?)```", AZURE, re.DOTALL)[1])
DEFAULT = config.settings(checks.load(), config.Config(), config.Selection())


def test_the_role_holds_every_right_that_is_used_and_no_other():
    assert sorted(ROLE["Actions"]) == sorted([ACTION, *(wanted.action for wanted in LISTS.values())])
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


def test_the_checks_that_a_table_names_exist():
    named = set(re.findall(r"`(azure-[a-z-]+[a-z])`", AZURE))
    assert named <= set(checks.load())


def test_the_policy_holds_every_call_that_is_made_and_no_other():
    policy = json.loads(re.search(r"```json\n(.*?)```", (ROOT / "docs/aws.md").read_text(), re.DOTALL)[1])
    source = "".join(path.read_text() for path in (ROOT / "providers/aws").glob("*.py"))
    made = {f"{service}:{name}" for service, name in re.findall(r'"(\w+)",\s*[\w.]+,\s*"([A-Z]\w+)"', source)}
    made |= {f"ecr:{name}" for name in re.findall(r'"(Get\w+Policy)", "\w+Text"', source)}
    elsewhere = {"sts:AssumeRole", "organizations:ListAccounts"}  # told beside the policy
    assert sorted(policy["Statement"][0]["Action"]) == sorted(made - elsewhere)


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
