"""The comparison of one scan with what was known, without a store."""

import json

import pytest
from cli import kubeposture
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from scanner.history.lifecycle import (
    About,
    Change,
    Clean,
    Closed,
    Cover,
    Event,
    Seen,
    State,
    Tonight,
    compare,
    counts,
)
from scanner.history.recorder import digest
from scanner.model import Evidence, ExemptionNote, Finding, ResourceRef, Severity, Status, utc_now

CHECK, PLACE = "k8s-privileged-container", "uid-1"


def seen(namespace="a", **more):
    fields = {
        "check": CHECK,
        "place": PLACE,
        "namespace": namespace,
        "kind": "Deployment",
        "name": "web",
        "container": "",
        "cluster": "prod",
        "account": "",
        "severity": "high",
        "status": "fail",
        "reason": "",
        "exempted": False,
        "about": About.OBJECT,
        "params": "p",
        "digest": "d",
        "observed": 100,
        "fails": True,
    }
    return Seen(**{**fields, **more})


def cover(**more):
    return Cover(**{"params": "p", "observed": 100, "asked": ("*",), "lists": True, **more})


def night(findings=None, clean=None, **more):
    """A scan that looked at everything, less what is said otherwise."""
    return Tonight(dict(findings or {}), dict(clean or {}), {(PLACE, CHECK): cover(**more)})


def known_after(tonight, known=None, last=None):
    found = dict(compare(known or {}, tonight, last or {}))
    return {**(known or {}), **{id: change.after for id, change in found.items() if change.after}}


def after(known, tonight, last=None):
    """The event of the one finding that there is."""
    [change] = dict(compare(known, tonight, last or {})).values()
    return change


YESTERDAY = known_after(night({"f": seen()}))
CLEAN = Clean(PLACE, CHECK, "a", "p")


def test_what_is_seen_is_new_then_open_then_changed():
    first = after({}, night({"f": seen()}))
    assert (first.event, first.after.state, first.after.first_seen) == (Event.NEW, State.NEW, 100)
    again = after(YESTERDAY, night({"f": seen(observed=200)}, observed=200))
    assert (again.event, again.after.state) == (Event.UNCHANGED, State.OPEN)
    assert (again.after.first_seen, again.after.last_seen) == (100, 200)
    assert after(YESTERDAY, night({"f": seen(digest="e")})).event is Event.CHANGED


def test_a_better_answer_with_the_same_parameters_is_fixed():
    change = after(YESTERDAY, night(clean={"f": CLEAN}, observed=200, lists=False))
    assert (change.event, change.after.close_reason, change.after.resolved_at) == (Event.RESOLVED, Closed.FIXED, 200)
    assert change.after.last_seen == 100


def test_what_a_complete_list_no_longer_holds_is_deleted():
    assert after(YESTERDAY, night()).after.close_reason is Closed.DELETED
    assert after(YESTERDAY, night(asked=("b", "a"))).after.close_reason is Closed.DELETED
    assert after(YESTERDAY, night(refused=frozenset({"b"}))).after.close_reason is Closed.DELETED


@pytest.mark.parametrize("clean", [{}, {"f": CLEAN}], ids=["not seen", "passes"])
@pytest.mark.parametrize(
    "less",
    [
        {"params": "q"},
        {"refused": frozenset({"a"})},
        {"refused": frozenset({"*"})},
        {"observed": 99},
    ],
    ids=lambda less: next(iter(less)),
)
def test_nothing_is_resolved_by_a_look_that_is_not_comparable(less, clean):
    clean = {id: replace(each, params=less.get("params", "p")) for id, each in clean.items()}
    change = after(YESTERDAY, night(clean=clean, **less), {(PLACE, CHECK): 100})
    assert change == Change(Event.INCOMPARABLE, "f")


@pytest.mark.parametrize(
    "less",
    [{"asked": ("b",)}, {"asked": ()}, {"excluded": ("b", "a*")}, {"lists": False}],
    ids=["-n", "not known", "--exclude-namespace", "no lists"],
)
def test_nothing_is_deleted_where_the_place_was_left_out(less):
    assert after(YESTERDAY, night(**less)) == Change(Event.INCOMPARABLE, "f")


@pytest.mark.parametrize("about", [About.OBJECT, About.LIST])
@pytest.mark.parametrize("namespace", ["", "*"])
@pytest.mark.parametrize(
    "less",
    [{"refused": frozenset({"b"})}, {"asked": ("a", "b")}, {"excluded": ("b",)}],
    ids=["refused", "-n", "--exclude-namespace"],
)
def test_what_is_of_no_namespace_is_gone_only_where_all_of_them_were_read(less, namespace, about):
    known = known_after(night({"f": seen(namespace, about=about)}))
    assert after(known, night(**less)) == Change(Event.INCOMPARABLE, "f")
    assert after(known, night()).event is Event.RESOLVED


def test_what_passes_in_no_namespace_does_so_only_where_nothing_is_refused():
    known, clean = known_after(night({"f": seen("")})), {"f": replace(CLEAN, namespace="")}
    assert after(known, night(clean=clean, refused=frozenset({"b"}))) == Change(Event.INCOMPARABLE, "f")
    assert after(known, night(clean=clean)).after.close_reason is Closed.FIXED


def test_what_is_seen_where_nobody_looked_is_not_comparable():
    assert after({}, Tonight({"f": seen()})) == Change(Event.INCOMPARABLE, "")
    assert after(YESTERDAY, Tonight({"f": seen()})) == Change(Event.INCOMPARABLE, "f")


def test_a_check_that_is_not_selected_tells_nothing():
    other = Tonight(covers={(PLACE, "k8s-other"): cover(), ("uid-2", CHECK): cover()})
    assert after(YESTERDAY, other) == Change(Event.INCOMPARABLE, "f")


def test_an_older_look_neither_creates_nor_changes_anything():
    old = night({"f": seen(digest="e", observed=50), "g": seen("b", observed=50)}, observed=50)
    found = dict(compare(YESTERDAY, old, {(PLACE, CHECK): 100}))
    assert found == {"f": Change(Event.INCOMPARABLE, "f"), "g": Change(Event.INCOMPARABLE, "")}


def test_what_comes_back_is_reopened_with_its_age():
    resolved = known_after(night(observed=200), YESTERDAY)
    assert list(compare(resolved, night(observed=300), {})) == []
    change = after(resolved, night({"f": seen(observed=300)}, observed=300))
    assert (change.event, change.after.state, change.after.first_seen) == (Event.REOPENED, State.REOPENED, 100)
    assert (change.after.resolved_at, change.after.close_reason, change.fails) == (None, None, True)
    another = after(resolved, night({"f": seen(digest="e", observed=300)}, observed=300))
    assert (another.event, another.after.state) == (Event.REOPENED, State.REOPENED)


def test_a_finding_of_a_renamed_check_keeps_its_life():
    renamed = night({"g": seen(check="k8s-new-name", previous_ids=("e", "f"), observed=200)}, observed=200)
    renamed.cover((PLACE, "k8s-new-name"), cover(observed=200))
    [(id, change)] = compare(YESTERDAY, renamed, {})
    assert (id, change.was, change.event, change.after.first_seen) == ("g", "f", Event.UNCHANGED, 100)


def test_a_list_that_can_be_read_again_is_fixed():
    denied = known_after(night({"f": seen("b", about=About.LIST, kind="pods", status="unknown", fails=False)}))
    assert after(denied, night(params="q", lists=False)).after.close_reason is Closed.FIXED
    assert after(denied, night(refused=frozenset({"b"}))).event is Event.INCOMPARABLE
    assert after(denied, night(asked=("a",))).event is Event.INCOMPARABLE
    everywhere = known_after(night({"f": seen("*", about=About.LIST, kind="pods", status="unknown", fails=False)}))
    assert after(everywhere, night(refused=frozenset({"b"}))).event is Event.INCOMPARABLE
    assert after(everywhere, night()).after.close_reason is Closed.FIXED


def test_a_parameter_that_is_set_is_fixed_and_one_that_is_not_stays():
    unset = known_after(night({"f": seen("", about=About.PARAMETER, kind="Cluster", fails=False)}))
    assert after(unset, night(params="q")).after.close_reason is Closed.FIXED
    assert after(unset, night(params="q", refused=frozenset({"b"}))).event is Event.INCOMPARABLE
    assert after(unset, night(params="q", configured=False)).event is Event.INCOMPARABLE
    assert after(unset, night()).event is Event.INCOMPARABLE


def test_a_check_of_whatever_is_read_says_nothing_of_kinds_that_were_not():
    assert after(YESTERDAY, night(kinds=frozenset({"Service"}))).event is Event.INCOMPARABLE
    assert after(YESTERDAY, night(kinds=frozenset({"Service", "Deployment"}))).after.close_reason is Closed.FIXED


def test_two_looks_are_as_good_as_the_worse_one():
    tonight = night(observed=200)
    tonight.cover((PLACE, CHECK), cover(observed=150, refused=frozenset({"a"})))
    assert after(YESTERDAY, tonight).event is Event.INCOMPARABLE
    tonight = night()
    tonight.cover((PLACE, CHECK), cover(asked=("b",)))
    assert after(YESTERDAY, tonight).event is Event.INCOMPARABLE
    tonight = night(observed=200)
    tonight.cover((PLACE, CHECK), cover(observed=99))
    assert after(YESTERDAY, tonight, {(PLACE, CHECK): 100}).event is Event.INCOMPARABLE


@pytest.mark.parametrize("worse_first", [True, False])
@pytest.mark.parametrize(
    ("worse", "about"),
    [
        ({"lists": False}, About.OBJECT),
        ({"kinds": frozenset({"Service"})}, About.OBJECT),
        ({"excluded": ("a",)}, About.OBJECT),
        ({"configured": False, "params": "q"}, About.PARAMETER),
    ],
    ids=["lists", "kinds", "excluded", "configured"],
)
def test_what_one_of_two_looks_lacks_both_lack(worse, about, worse_first):
    known = known_after(night({"f": seen(about=about)}))
    better = cover(params=worse.get("params", "p"))
    assert after(known, Tonight(covers={(PLACE, CHECK): better})).event is Event.RESOLVED
    both = [replace(better, **worse), better]
    tonight = Tonight()
    for each in both if worse_first else reversed(both):
        tonight.cover((PLACE, CHECK), each)
    assert after(known, tonight) == Change(Event.INCOMPARABLE, "f")


def test_only_what_did_not_fail_before_fails_anew():
    def fails(known, finding):
        return after(known, night({"f": finding})).fails

    unknown, exempted = seen(status="unknown", fails=False), seen(exempted=True, fails=False)
    assert (fails({}, seen()), fails(YESTERDAY, seen()), fails({}, exempted)) == (True, False, False)
    assert fails(known_after(night({"f": unknown})), seen())  # nobody had seen it fail
    was_unknown = known_after(night({"f": unknown}), YESTERDAY)
    assert not fails(was_unknown, seen())
    assert not fails(known_after(night({"f": exempted})), seen())  # the exemption is over: that is not new


NAMESPACES = ("a", "b", "c")
PARTS = st.frozensets(st.sampled_from([*NAMESPACES, "*"]))


@given(
    st.sets(st.sampled_from(NAMESPACES)),
    st.sets(st.sampled_from(NAMESPACES)),
    PARTS,
    PARTS,
    st.booleans(),
    st.booleans(),
)
def test_nothing_closes_that_was_not_read(gone, passing, refused, asked, same, lists):
    """Whatever subset of the readings is refused, and whatever is missing from the rest of them."""
    known = known_after(night({name: seen(name) for name in NAMESPACES}))
    params = "p" if same else "q"
    rest = {name: seen(name, params=params) for name in NAMESPACES if name not in gone | passing}
    clean = {name: Clean(PLACE, CHECK, name, params) for name in passing - gone}
    tonight = night(rest, clean, params=params, refused=refused, asked=tuple(asked), lists=lists)
    changes = dict(compare(known, tonight, {}))
    resolved = {name for name, change in changes.items() if change.event is Event.RESOLVED}
    assert not {name for name in resolved if refused & {name, "*"}}
    assert not resolved & rest.keys()
    assert not (resolved and not same)
    absent = resolved - clean.keys()
    assert not {name for name in absent if not lists or not {name, "*"} & asked}
    assert set(changes) == set(NAMESPACES)
    assert sum(counts(changes).values()) == len(NAMESPACES)
    # The night after, with everything read as it was, nothing is new that was not resolved.
    later = known_after(tonight, known)
    again = dict(compare(later, night({name: seen(name, observed=300) for name in NAMESPACES}, observed=300), {}))
    assert {name for name, change in again.items() if change.event is Event.REOPENED} == resolved
    assert not [change for change in again.values() if change.event is Event.NEW]


# -- what makes an update ---------------------------------------------------------------------------------------------


FINDING = Finding(
    schema_version="1.0", scan_id="s", id="kp1_" + "0" * 32, check=CHECK, title="t", status=Status.FAIL, reason="r",
    severity=Severity.HIGH, category="data_plane", scope="container", provider="kubernetes", cluster=None,
    resource=ResourceRef("apps", "Deployment", "a", "web"), message="m", remediation="", occurrences=1,
    evidence=(Evidence("spec.image", "nginx@sha256:" + "a" * 64),), observed_at=utc_now(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("more", "changes"),
    [
        ({"occurrences": 9, "pods": ("web-1",), "message": "n", "title": "u", "scan_id": "t"}, False),
        ({"evidence": (Evidence("spec.image", "nginx@sha256:" + "b" * 64),)}, False),
        ({"evidence": (Evidence("spec.image", "httpd"),)}, True),
        ({"evidence": (Evidence("spec.image", "nginx@sha256:" + "a" * 64, "x"),)}, True),
        ({"status": Status.UNKNOWN}, True),
        ({"severity": Severity.LOW}, True),
        ({"reason": "s"}, True),
        ({"exemption": ExemptionNote("why", "", None)}, True),
    ],
)
def test_what_makes_a_finding_a_changed_one(more, changes):
    assert (digest(replace(FINDING, **more)) != digest(FINDING)) is changes


# -- two reports ------------------------------------------------------------------------------------------------------


POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "a"}}


def report(tmp_path, name, privileged, *args, image="nginx"):
    spec = {"containers": [{"name": "c", "image": image, "securityContext": {"privileged": privileged}}]}
    (tmp_path / "pod.json").write_text(json.dumps({**POD, "spec": spec}))
    chosen = ("-c", CHECK, "-o", f"json={tmp_path / name}")
    kubeposture("scan", "manifests", tmp_path / "pod.json", *chosen, *args)
    return tmp_path / name


def test_two_reports_are_compared_as_scans_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = report(tmp_path, "a.json", True)
    all_of_it = report(tmp_path, "b.json", False, "--status", "all")
    said = json.loads(kubeposture("diff", before, all_of_it, "-o", "json").stdout)
    assert said["changes"]["resolved"] == 1
    assert [(row["event"], row["name"]) for row in said["findings"]] == [("resolved", "web")]
    part = report(tmp_path, "c.json", False)
    shown = kubeposture("diff", before, part)
    assert "0 resolved" in shown.stdout
    assert "1 incomparable" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 100
    new = kubeposture("diff", all_of_it, before).stdout
    assert "1 new" in new


def test_a_report_that_leaves_findings_out_is_not_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    part = report(tmp_path, "a.json", True, "--status", "pass")
    refused = kubeposture("diff", part, part)
    assert refused.code == 2
    assert "does not list all" in refused.stderr
    (tmp_path / "no.json").write_text("[]")
    assert kubeposture("diff", part, tmp_path / "no.json").code == 2
    assert kubeposture("diff", tmp_path / "none", part).code == 2
