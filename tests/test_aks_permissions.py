"""What becomes of a scan when one request is refused, derived from the wire: each request of a clean run is refused in
turn, and all that rests on it has to turn unknown, and nothing else may change."""

import json
import os
import re
from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from apiserver import ApiServer, tls
from armserver import ArmServer, action, body, empty, status
from azure_data import (
    DEV,
    PROD,
    READER,
    Estate,
    Subscription,
    aws_connector,
    bad_diagnostic_setting,
    basic_registry,
    connected_cluster,
    diagnostic_setting,
    entra_cluster,
    extension,
    gcp_connector,
    image_assessment,
    kubernetes_versions,
    permission,
    pricings,
    registry,
    sub_assessment,
    windows_cluster,
)
from cli import kubeposture
from support import deployment, secured

from providers.azure import images, session
from scanner.cli.catalogue import catalogue
from scanner.resources import SCOPES

GRAPH = session.GRAPH
PERMISSIONS = "Microsoft.Authorization/permissions/read"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for name in tuple(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_", "REQUESTS_CA", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "LONGEST_WAIT", 0.02)


class Asked(NamedTuple):
    """One request of the clean run."""

    method: str
    path: str

    @property
    def subscription(self):
        """ "" for what is asked of all of Azure."""
        found = re.match("/subscriptions/([^/]+)", self.path)
        return found[1] if found else ""

    @property
    def what(self):
        return self.path.rpartition("/")[2]

    @property
    def cluster(self):
        """The cluster that it is about, "" for others."""
        found = re.match(r".*/providers/[^/]+/(?:managed|connected)Clusters/[^/]+", self.path)
        return found[0].lower() if found else ""

    @property
    def actions(self):
        """The right that it takes, or of which a refusal may speak: those to see the rows."""
        return {action(self.method, self.path), *(images.ACTIONS if self.path == GRAPH else ())}

    @property
    def action(self):
        return action(self.method, self.path)

    def concerns(self, finding):
        """Whether the finding may rest on this: of the same subscription and cluster, by a check that asks for it."""
        account = finding["account"] or ""
        if self.subscription and self.subscription != account:
            return False
        if self.cluster and (finding["cluster"] or {}).get("id") != self.cluster:
            return False
        inside = finding["category"] == "data_plane" or "-running-" in finding["check"]
        if self.path == GRAPH:
            return finding["category"] == "vulnerability"
        if self.what in ("subscriptions", "permissions", "managedClusters"):
            return True
        if finding["category"] == "vulnerability" and not inside:
            return False
        if self.what == "listClusterUserCredential":
            return inside
        check = CHECKS[finding["check"]]
        return not inside and self.what in (*SCOPES.get(check.scope, ()), *check.needs)


CHECKS = catalogue()
MAY_BE_EMPTY = (
    "managedClusters",
    "connectedClusters",
    "registries",
    "securityConnectors",
    "diagnosticSettings",
    "extensions",
)


class Run(NamedTuple):
    code: int
    findings: dict
    gaps: list

    def unknown(self, finding):
        """What stands in the report for a finding that could not be made: of its subscription, or of all of Azure."""
        return [
            f
            for f in self.findings.values()
            if (f["check"], f["status"]) == (finding["check"], "unknown")
            and f["account"] in (finding["account"], "azure")
        ]


def run(arm, *args):
    options = ("--arm-endpoint", arm.url, "--status", "all", "-o", "json")
    result = kubeposture("scan", "aks", *options, *args)
    report = json.loads(result.stdout)
    return Run(result.code, {f["id"]: f for f in report["findings"]}, report["gaps"])


def subscription(id, name, setting, image_registry, connector, cluster, *plans):
    place = {"subscription": id}
    arc = connected_cluster(f"arc-{name}", **place)
    return Subscription(
        id,
        name,
        clusters=[cluster],
        registries=[image_registry(f"acr{name}", **place)],
        connected_clusters=[arc],
        pricings=pricings(*plans, subscription=id),
        connectors=[connector(**place)],
        permissions=[READER],
        versions={"koreacentral": kubernetes_versions()},
        diagnostics={cluster["id"]: [setting(cluster["id"])]},
        extensions={arc["id"]: [extension(arc["id"])]},
        security=found_in_images(id, f"acr{name}"),
    )


def found_in_images(id, name):
    """An image with a vulnerability, and one without."""
    place, now = {"subscription": id, "host": f"{name}.azurecr.io"}, datetime.now(UTC).isoformat()
    clean = image_assessment("Healthy", "shop/api", status={"statusChangeDate": now}, **place)
    return [sub_assessment(timeGenerated=now, **place), clean]


@pytest.fixture
def arm(monkeypatch):
    """Two subscriptions, one of them in good order; every list has something in it, and every cluster can be read."""
    good, bad = entra_cluster("good"), windows_cluster("bad", subscription=DEV)
    estate = Estate.of(
        subscription(PROD, "production", diagnostic_setting, registry, aws_connector, good, "Containers"),
        subscription(DEV, "development", bad_diagnostic_setting, basic_registry, gcp_connector, bad),
    )
    with (
        ApiServer(inside("1", privileged=False), tls=tls()) as one,
        ApiServer(inside("2", privileged=True), tls=tls()) as two,
        ArmServer(estate) as arm,
    ):
        for name, value in arm.environment.items():
            monkeypatch.setenv(name, value)
        estate.connect("good", one.url, one.tls.ca)
        estate.connect("bad", two.url, two.tls.ca)
        yield arm


def inside(uid, **container):
    system = {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": uid}}
    team = {"kind": "Namespace", "metadata": {"name": "a"}}
    return [system, team, deployment(secured(**container), namespace="a")]


def requests(arm):
    return sorted({Asked(r.method, r.path) for r in arm.requests})


def deny(arm, asked):
    arm.deny(asked.path, subscription=asked.subscription or None)


def not_found(arm, asked):
    arm.inject(f"^{re.escape(asked.path)}$", status(404))


def nothing(arm, asked):
    arm.inject(f"^{re.escape(asked.path)}$", empty())


def problems(asked, clean, run, *, emptied=False):
    """Whatever a report says that it may not."""
    proven = emptied and asked.what in MAY_BE_EMPTY
    if not proven and run.code not in (3, 4):
        yield f"exit code {run.code}"
    if not proven and not [g for g in run.gaps if g["permission"] in asked.actions]:
        yield "no gap names the right"
    for id, before in clean.findings.items():
        now = run.findings.get(id)
        if now is None and "-running-" in before["check"] and asked.what in ("subscriptions", "managedClusters"):
            continue  # of a cluster that is not listed, the other checks of its inside are told as unknown
        if now is None:
            problem = "" if asked.concerns(before) and (proven or run.unknown(before)) else "is lost"
        else:
            problem = changed(before, now, asked, proven)
        if problem:
            yield f"{before['check']} of {before['resource']['name']}: {before['status']} {problem}"
    for id in run.findings.keys() - clean.findings.keys():
        found = run.findings[id]
        if found["status"] != "unknown" and not (proven and found["status"] == "not_applicable"):
            yield f"{found['check']} of {found['resource']['name']}: {found['status']} is new"


def changed(before, now, asked, proven):
    if now["status"] == before["status"]:
        return ""
    if not asked.concerns(before):
        return f"became {now['status']} without cause"
    if now["status"] == "unknown":
        return (
            ""
            if any(right in now["message"] for right in asked.actions)
            else f"does not say what right is needed: {now['message']}"
        )
    return "" if proven and now["status"] == "fail" else f"became {now['status']}"


def report(found):
    return "\n".join(f"{r.method} {r.path}: {problem}" for r, each in found.items() for problem in each)


@pytest.mark.parametrize("refuse", [deny, not_found, nothing])
def test_what_is_refused_turns_what_rests_on_it_unknown_and_nothing_else(arm, refuse):
    clean = run(arm)
    assert (clean.code, clean.gaps) == (0, [])
    asked = requests(arm)
    assert len(asked) == 22
    assert Asked("POST", GRAPH) in asked
    found = {}
    for request in asked:
        if (refuse, request.path) == (nothing, GRAPH):
            continue  # see below
        refuse(arm, request)
        found[request] = list(problems(request, clean, run(arm), emptied=refuse is nothing))
        if (refuse, request.what) == (nothing, "permissions"):  # then it is the other rights that are missing
            found[request].remove("no gap names the right")
        arm.heal()
    assert report(found) == ""


@pytest.mark.parametrize("fault", [empty(), body(b"<html>"), body(b"{}"), status(503)])
def test_without_a_word_of_defender_no_image_is_clean(arm, fault):
    clean = run(arm)
    arm.inject(f"^{GRAPH}$", fault)
    found = run(arm)
    of_images = [f for f in found.findings.values() if "image-vulns" in f["check"] and f["status"] != "not_applicable"]
    assert {(f["check"], f["status"], f["account"]) for f in of_images} == {
        ("azure-registry-image-vulns", "unknown", PROD),
        ("azure-registry-image-vulns", "unknown", DEV),
    }
    rest = {id: f["status"] for id, f in clean.findings.items() if "image-vulns" not in f["check"]}
    assert {id: f["status"] for id, f in found.findings.items() if "image-vulns" not in f["check"]} == rest
    assert [g["what"] for g in found.gaps] == ([] if found.code == 0 else ["defender"])


@pytest.mark.parametrize("denied", [True, False])
def test_an_empty_list_is_a_gap_where_it_is_not_proven_that_all_may_be_seen(arm, denied):
    clean = run(arm)
    found = {}
    for request in requests(arm):
        if request.what in MAY_BE_EMPTY:
            nothing(arm, request)
            if denied:
                arm.deny("/permissions", subscription=request.subscription)
            else:
                arm.permit(request.subscription, permission("*/read", without=(request.action,)))
            found[request] = list(false_comfort(request, clean, run(arm), PERMISSIONS if denied else request.action))
            arm.permit(request.subscription, READER)
            arm.heal()
    assert len(found) == 12
    assert report(found) == ""


def false_comfort(asked, clean, run, right):
    if run.code != 3:
        yield f"exit code {run.code}"
    if (named := {g["permission"] for g in run.gaps if g["what"] == asked.what}) != {right}:
        yield f"gaps name {named}"
    before = {id: f["status"] for id, f in clean.findings.items()}
    for id, finding in run.findings.items():
        if finding["status"] == "pass" and before.get(id) != "pass":
            yield f"{finding['check']} of {finding['resource']['name']} became pass"
