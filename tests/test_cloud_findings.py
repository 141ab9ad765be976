"""Findings on cloud resources: their ids, parts, gaps, tags and exemptions."""

from datetime import date

import pytest
from support import gap, judge_cloud, settings

from scanner import engine, findings
from scanner.exemptions import Exemption, Exemptions, Resources
from scanner.inventory import Inventory
from scanner.summary import Tally

SUBSCRIPTION = "/subscriptions/11111111-2222-3333-4444-555555555555"
PUBLIC_IP, LOCAL, DIAGNOSTICS = "azure-aks-node-public-ip", "azure-aks-local-accounts", "azure-aks-diagnostic-logs"


def aks(name="prod", group="rg", **properties):
    id = f"{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.ContainerService/managedClusters/{name}"
    tags = {"team": "shop", "secret": "not shown"}
    return {"type": "aks", "wire": {"id": id, "name": name, "location": "westeurope", "tags": tags,
                                    "properties": properties}}  # fmt: skip


def account(kinds, gaps=(), checks=(LOCAL,)):
    """Findings of a subscription of which lists are missing."""
    chosen = settings(list(checks))
    context = findings.Context(
        scan_id="scan", scope_id=SUBSCRIPTION, name="shop", provider="azure", account="s",
        observed_at=judge_cloud(aks(), LOCAL)[0].observed_at,
    )  # fmt: skip
    inventory = Inventory(kinds=sorted(kinds), gaps=list(gaps))
    return list(engine.evaluate(inventory, chosen, context, Tally(), Exemptions((), date(2026, 1, 1))))


def test_the_resource_id_is_the_scope_whatever_its_case():
    (one,) = judge_cloud(aks("Prod", "RG"), LOCAL)
    (other,) = judge_cloud(aks("prod", "rg"), LOCAL)
    assert one.id == other.id
    assert one.resource.name == "Prod"
    assert one.resource.cloud_id.endswith(
        "/resourceGroups/RG/providers/Microsoft.ContainerService/managedClusters/Prod"
    )
    assert judge_cloud(aks("prod", "other"), LOCAL)[0].id != one.id


def test_region_and_tags_are_those_of_the_resource():
    (found,) = judge_cloud(aks(), LOCAL)
    assert (found.region, found.tags, found.scope, found.category) == (
        "westeurope", {"team": "shop"}, "cluster", "control_plane",
    )  # fmt: skip


def test_each_pool_is_a_finding_of_its_own_and_keeps_its_id_when_pools_move():
    pools = [{"name": "a"}, {"name": "b", "enableNodePublicIP": True}]
    first = {f.resource.name: f for f in judge_cloud(aks(agentPoolProfiles=pools), PUBLIC_IP)}
    moved = {f.resource.name: f for f in judge_cloud(aks(agentPoolProfiles=pools[::-1]), PUBLIC_IP)}
    assert {name: f.status for name, f in first.items()} == {"a": "pass", "b": "fail"}
    assert {name: f.id for name, f in first.items()} == {name: f.id for name, f in moved.items()}
    assert first["b"].resource.cloud_id.endswith("/managedClusters/prod/agentPools/b")
    assert first["b"].evidence[0].path == "properties.agentPoolProfiles[b].enableNodePublicIP"


def test_two_pools_of_one_name_are_one_finding_and_the_worst():
    pools = [{"name": "a"}, {"name": "a", "enableNodePublicIP": True}, {"name": "a"}]
    (found,) = judge_cloud(aks(agentPoolProfiles=pools), PUBLIC_IP)
    assert found.status == "fail"


@pytest.mark.parametrize("pools", ["text", {"name": "a"}, [1], [{"name": "a"}, "b"], [{"name": 5}]])
def test_pools_that_cannot_be_read_are_unknown_and_not_absent(pools):
    (found,) = judge_cloud(aks(agentPoolProfiles=pools), PUBLIC_IP)
    assert (found.status, found.reason, found.resource.name) == ("unknown", "bad_data", "*")


@pytest.mark.parametrize("state", ["Creating", "deleting"])
def test_a_cluster_that_comes_or_goes_is_not_judged(state):
    pools = [{"name": "a", "enableNodePublicIP": True}]
    for check in (LOCAL, PUBLIC_IP):
        (found,) = judge_cloud(aks(provisioningState=state, agentPoolProfiles=pools), check)
        assert (found.status, found.reason) == ("not_applicable", "lifecycle")


def test_a_state_that_cannot_be_read_hides_nothing():
    (found,) = judge_cloud(aks(provisioningState=["Deleting"]), LOCAL)
    assert found.status == "fail"


def test_a_refused_list_is_one_unknown_for_each_check():
    found = account({"managedClusters"}, [gap("managedClusters", permission="x/read")], (LOCAL, PUBLIC_IP))
    assert {(f.check, f.status, f.resource.kind, f.resource.name) for f in found} == {
        (LOCAL, "unknown", "managedClusters", "*"),
        (PUBLIC_IP, "unknown", "managedClusters", "*"),
    }
    assert all("needed: x/read" in f.message for f in found)


def test_what_was_not_collected_is_unknown():
    (found,) = account({"managedClusters"}, checks=(DIAGNOSTICS,))
    assert (found.status, found.reason, found.resource.kind) == ("unknown", "not_collected", "diagnosticSettings")


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Resources(labels={"team": "shop"}), True),
        (Resources(labels={"team": "other"}), False),
        (Resources(kind="managedClusters", name="prod"), True),
        (Resources(kind="registries"), False),
    ],
)
def test_exemptions_match_by_tag_kind_and_name(wanted, matches):
    entry = Exemption(checks=(LOCAL,), reason="ticket", resources=wanted)
    (found,) = judge_cloud(aks(), LOCAL, exemptions=Exemptions((entry,), date(2026, 1, 1)))
    assert bool(found.exemption) is matches
