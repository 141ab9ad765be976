"""What becomes of a scan when one call is refused, derived from the wire: each call of a clean run is refused in turn,
and what rests on it has to turn unknown, and nothing else may change."""

import json
import os
import re
from typing import NamedTuple

import pytest
from apiserver import ApiServer, body, tls
from cli import kubeposture
from gcp_data import DEV, IOWA, PROD, Estate, Folder, Project, bad_cluster, bad_repository, cluster, policy, repository
from gcpserver import GcpServer, garbage, refuse, status
from support import deployment, secured

from providers.gcp import session
from scanner.cli.catalogue import catalogue

CHECKS = catalogue()
ORGANIZATION, FOLDER = "organizations/715382904611", "folders/100"
CLUSTERS, PLACES = "container.clusters.list", "artifactregistry.locations.list"
PROJECTS, FOLDERS = "resourcemanager.projects.list", "resourcemanager.folders.list"
REPOSITORIES, POLICY = "artifactregistry.repositories.list", "artifactregistry.repositories.getIamPolicy"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for name in tuple(os.environ):
        if re.match("GOOGLE_|GCLOUD_|CLOUDSDK_|GRPC_|GCE_|KUBE|SSL_CERT|REQUESTS_CA|CURL_CA|(?i:.*_proxy$)", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "_pause", lambda tried, wait: 0.01)


class Run(NamedTuple):
    code: int
    findings: dict
    gaps: list
    clusters: set


def run(*args):
    result = kubeposture("scan", "gke", "--organization", ORGANIZATION, "--status", "all", "-o", "json", *args)
    report = json.loads(result.stdout)
    clusters = {c["id"] for c in report["clusters"]}
    return Run(result.code, {f["id"]: f for f in report["findings"]}, report["gaps"], clusters)


@pytest.fixture
def gcp(tmp_path, monkeypatch):
    """Two projects, one of them in good order and one in a folder; every list has something in it, and every cluster
    can be read."""
    public = bad_repository("sandbox", project=DEV, location=IOWA)
    estate = Estate.of(
        Project(PROD, "Production", clusters=[cluster("good")], repositories=[repository()]),
        Project(
            DEV,
            "Development",
            parent=FOLDER,
            clusters=[bad_cluster("bad", project=DEV)],
            repositories=[repository("dev", project=DEV, location=IOWA), public],
            policies={public["name"]: policy("allUsers")},
        ),
        folders=(Folder(FOLDER, "Teams"),),
    )
    with (
        ApiServer(inside("1", privileged=False), tls=tls()) as one,
        ApiServer(inside("2", privileged=True), tls=tls()) as two,
    ):
        estate.connect("good", f"127.0.0.1:{one.port}", one.tls.ca)
        estate.connect("bad", f"127.0.0.1:{two.port}", two.tls.ca, DEV)
        with GcpServer(estate) as gcp:
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcp.key_file(tmp_path))
            endpoints = (f"{service}={url}" for service, url in gcp.endpoints.items())
            monkeypatch.setenv("KUBEPOSTURE_GCP_ENDPOINTS", " ".join(endpoints))
            yield gcp


def inside(uid, **container):
    system = {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": uid}}
    team = {"kind": "Namespace", "metadata": {"name": "a"}}
    return [system, team, deployment(secured(**container), namespace="a")]


class Asked(NamedTuple):
    """One request of a clean run, the right that it takes, and what it is about."""

    right: str
    target: str  # the path with what follows it, or the parent whose clusters are listed
    project: str = ""
    place: str = ""  # a location, or what projects are below
    repository: str = ""

    def refuse(self, gcp, code):
        if self.right == CLUSTERS:
            gcp.inject_call(refuse({403: "PERMISSION_DENIED", 404: "NOT_FOUND"}[code]), project=self.project)
        else:
            gcp.inject(f"^{re.escape(self.target)}", status(code))

    def empty(self, gcp):
        if self.right == CLUSTERS:
            gcp.inject_call(garbage(b""), project=self.project)  # a message without any field
        else:
            gcp.inject(f"^{re.escape(self.target)}", body(b'{"etag":"ACAB"}' if self.right == POLICY else b"{}"))

    def concerns(self, finding):
        """Whether a finding could not be made without it."""
        if self.right == PROJECTS:
            return finding["account"] == {ORGANIZATION: PROD, FOLDER: DEV}[self.place]
        if self.right == FOLDERS:
            return self.place == ORGANIZATION and finding["account"] == DEV
        if finding["account"] != self.project:
            return False
        if self.right == CLUSTERS:
            return bool(finding["cluster"])
        if finding["cluster"] or finding["category"] == "data_plane":
            return False
        name, region = finding["resource"]["name"], finding["region"]
        return {
            PLACES: True,
            REPOSITORIES: region == self.place,
            POLICY: name == self.repository and "iamPolicy" in CHECKS[finding["check"]].needs,
        }[self.right]

    def stands_for(self, now, finding):
        """What is in the report for a finding that could not be made."""
        account = ORGANIZATION if self.right in (PROJECTS, FOLDERS) else self.project
        wanted = (finding["check"], "unknown", account)
        return [f for f in now.findings.values() if (f["check"], f["status"], f["account"]) == wanted]


_REST = re.compile(r"/v1/projects/([^/]+)/locations(?:/([^/]+)/repositories(?:/([^/:]+)(:getIamPolicy))?)?")


def asked(gcp):
    """Every request so far, once."""
    return sorted({_asked(request) for request in gcp.requests})


def _asked(request):
    if request.method == "ListClusters":
        return Asked(CLUSTERS, request.path, request.path.split("/")[1])
    if request.path.startswith("/v3/"):
        parent = request.query["parent"]
        right = {"/v3/projects": PROJECTS, "/v3/folders": FOLDERS}[request.path]
        return Asked(right, f"{request.path}?parent={parent.replace('/', '%2F')}", place=parent)
    project, place, name, policy = _REST.fullmatch(request.path).groups()
    right = POLICY if policy else REPOSITORIES if place else PLACES
    return Asked(right, f"{request.path}?", project, place or "", name or "")


def problems(one, clean, now, *, named):
    """Whatever a report says that it may not."""
    if now.code not in (3, 4):
        yield f"exit code {now.code}"
    if named and {g["permission"] for g in now.gaps} != {one.right}:
        yield f"gaps do not name the right: {now.gaps}"
    if [g for g in now.gaps if "internal error" in g["detail"]]:
        yield "something crashed"
    for id, before in clean.findings.items():
        problem = changed(one, before, now, now.findings.get(id), one.right if named else "")
        if problem:
            yield f"{before['check']} of {before['resource']['name']}: {before['status']} {problem}"
    for id in now.findings.keys() - clean.findings.keys():
        found = now.findings[id]
        if found["status"] != "unknown":
            yield f"{found['check']} of {found['resource']['name']}: {found['status']} is new"


def changed(one, before, now, found, right):
    if not one.concerns(before):
        return "" if found and found["status"] == before["status"] else "changed without cause"
    if found is None:
        return "" if one.stands_for(now, before) else "is lost"
    if found["status"] != "unknown":
        return f"is {found['status']} still"
    return "" if right in found["message"] else f"does not say what right is needed: {found['message']}"


def shown(found):
    return "\n".join(f"{one.target}: {problem}" for one, each in found.items() for problem in each)


def test_every_right_is_used_in_a_full_scan(gcp):
    clean = run()
    assert (clean.code, clean.gaps, len(clean.clusters)) == (0, [], 2)
    requests = asked(gcp)
    assert {one.right for one in requests} == {PROJECTS, FOLDERS, CLUSTERS, PLACES, REPOSITORIES, POLICY}
    assert len(requests) == 2 * 2 + 2 * (1 + 1 + 4) + 3


@pytest.mark.parametrize("code", [403, 404])
def test_what_is_refused_turns_what_rests_on_it_unknown_and_nothing_else(gcp, code):
    clean = run()
    found = {}
    for one in asked(gcp):
        one.refuse(gcp, code)
        now = run()
        found[one] = list(problems(one, clean, now, named=code == 403))
        if one.right not in (PROJECTS, FOLDERS, CLUSTERS) and now.clusters != clean.clusters:
            found[one].append("clusters are lost")
        gcp.heal()
    assert shown(found) == ""


def test_an_empty_answer_is_believed_only_where_it_can_be_true(gcp):
    """Google refuses a list to whoever may not see all of it, so that an empty one is the truth; but there are always
    locations. Without bindings a repository is open to nobody."""
    clean = run()
    found = {}
    for one in asked(gcp):
        one.empty(gcp)
        now = run()
        if one.right == PLACES:
            found[one] = list(problems(one, clean, now, named=False))
        else:
            found[one] = list(untrue(one, clean, now))
        gcp.heal()
    assert shown(found) == ""


def untrue(one, clean, now):
    if now.gaps:
        yield f"gaps: {now.gaps}"
    for id in clean.findings.keys() | now.findings.keys():
        before, after = clean.findings.get(id), now.findings.get(id)
        if before and one.concerns(before):
            if after and (one.right, after["status"]) != (POLICY, "pass"):
                yield f"{after['check']}: {before['status']} became {after['status']}"
        elif not (before and after) and (before or after)["status"] != "not_applicable":
            yield f"{(before or after)['check']}: is {'lost' if before else 'new'}"
        elif before and after and before["status"] != after["status"]:
            yield f"{after['check']}: {before['status']} became {after['status']} without cause"


@pytest.mark.parametrize("fault", [refuse("RESOURCE_EXHAUSTED"), refuse("UNAVAILABLE"), garbage()])
def test_clusters_that_are_never_told_are_unknown_in_that_project_alone(gcp, fault):
    clean = run()
    [one] = [one for one in asked(gcp) if (one.right, one.project) == (CLUSTERS, DEV)]
    gcp.inject_call(fault, project=DEV)
    assert list(problems(one, clean, run(), named=False)) == []


def test_what_checks_need_is_asked_for(gcp):
    """Else they would never be able to answer."""
    assert not [f["check"] for f in run("--planes", "control").findings.values() if "was not asked for" in f["message"]]
