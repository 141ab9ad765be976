"""Reading the JSON of clouds by path: defaults, odd types, and what is kept of it."""

import msgspec
import pytest

from scanner.azure import AksCluster
from scanner.cloud import CloudResource, Facts, expect, kept
from scanner.model import Collected, Evidence, Gap, GapReason, MissingEvidence, Status
from scanner.resources import RESOURCES, AnyResource

ID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c"


def aks(**properties):
    return AksCluster(wire={"properties": properties}, id=ID, name="c", account="s", related={})


@pytest.mark.parametrize("wire", [{}, {"a": None}, {"a": {}}, {"a": {"b": None}}])
def test_absent_and_null_are_the_same(wire):
    setting = Facts(wire).flag("a.b")
    assert (setting.sent, setting.value) == (None, False)
    assert setting.evidence == Evidence("a.b", "not set", "false")


def test_a_documented_default_stands_in_and_is_shown():
    assert aks().flag("properties.enableRBAC").evidence == Evidence("properties.enableRBAC", "not set", "true")
    assert aks(enableRBAC=False).flag("properties.enableRBAC").evidence == Evidence("properties.enableRBAC", "false")


@pytest.mark.parametrize(
    ("read", "wire"),
    [
        ("flag", {"a": {"b": "true"}}),
        ("flag", {"a": {"b": 1}}),
        ("flag", {"a": "text"}),
        ("flag", {"a": [{"b": True}]}),
        ("text", {"a": {"b": True}}),
        ("text", {"a": {"b": ["x"]}}),
        ("words", {"a": {"b": "0.0.0.0/0"}}),
        ("words", {"a": {"b": ["x", None]}}),
        ("part", {"a": {"b": [1]}}),
        ("parts", {"a": {"b": {"name": "x"}}}),
        ("parts", {"a": {"b": [{}, "x"]}}),
    ],
)
def test_a_value_of_another_type_is_missing_evidence_and_not_absent(read, wire):
    with pytest.raises(MissingEvidence) as caught:
        getattr(Facts(wire), read)("a.b")
    assert caught.value.gaps[0].reason is GapReason.BAD_DATA
    assert caught.value.gaps[0].detail.startswith("a")


def test_parts_are_named_where_they_have_a_name():
    parts = Facts({"pools": [{"name": "system"}, {}, {"name": ""}]}, "root").parts("pools")
    assert [p.path for p in parts] == ["root.pools[system]", "root.pools[1]", "root.pools[2]"]
    assert parts[0].flag("x").path == "root.pools[system].x"


def test_enums_are_compared_without_case():
    assert Facts({"a": "dIsAbLeD"}).text("a").equals("Disabled", "Off")
    assert not Facts({"a": "Enabled"}).text("a").equals("Disabled")


@pytest.mark.parametrize("ok", [True, False])
def test_a_verdict_carries_what_it_rests_on_either_way(ok):
    setting = Facts({"a": True}).flag("a")
    verdict = expect(ok, "is wrong", setting, Evidence("b", "c"))
    assert verdict.status is (Status.PASS if ok else Status.FAIL)
    assert verdict.message == ("" if ok else "is wrong")
    assert verdict.evidence == (Evidence("a", "true"), Evidence("b", "c"))


def test_only_named_paths_are_kept():
    wire = {
        "id": "x",
        "properties": {
            "addons": {"one": {"enabled": True, "config": {"password": "p"}}, "two": None},
            "pools": [{"name": "a", "secret": "s"}, {"name": "b"}],
            "whole": {"any": ["thing"]},
            "proxy": "http://user:password@host",
        },
    }
    paths = ("properties.addons.*.enabled", "properties.pools.name", "properties.whole", "properties.absent.x")
    assert kept(wire, paths) == {
        "properties": {
            "addons": {"one": {"enabled": True}, "two": None},
            "pools": [{"name": "a"}, {"name": "b"}],
            "whole": {"any": ["thing"]},
        }
    }


def test_what_has_another_shape_than_expected_is_kept_for_the_check_to_say_so():
    assert kept({"a": "text", "b": [1, {"c": 2}]}, ("a.b", "b.c")) == {"a": "text", "b": [1, {"c": 2}]}


def test_what_was_not_asked_for_beside_a_resource_is_missing():
    cluster = aks()
    with pytest.raises(MissingEvidence):
        cluster.listed("diagnosticSettings")
    cluster.related["diagnosticSettings"] = Collected([], [Gap(what="diagnosticSettings", reason=GapReason.FORBIDDEN)])
    with pytest.raises(MissingEvidence):
        cluster.listed("diagnosticSettings")
    cluster.related["diagnosticSettings"] = Collected([{"name": "a"}])
    assert [f.path for f in cluster.listed("diagnosticSettings")] == ["diagnosticSettings[a]"]


@pytest.mark.parametrize("kind", RESOURCES)
def test_resources_survive_a_bundle(kind):
    resource = kind(wire={"a": {"b": [1]}}, id="/x", name="n", account="s", region="r", tags={"t": "v"},
                    related={"r": Collected([{"a": 1}], [Gap(what="r", reason=GapReason.TIMEOUT)])})  # fmt: skip
    again = msgspec.json.decode(msgspec.json.encode(resource), type=AnyResource)
    assert type(again) is kind
    assert again == resource


def test_every_resource_says_what_it_is():
    assert all(issubclass(kind, CloudResource) for kind in RESOURCES)
    assert len({kind.kind for kind in RESOURCES}) == len(RESOURCES)
