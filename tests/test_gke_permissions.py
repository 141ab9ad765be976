"""What becomes of a scan when one call is refused, derived from the wire: each call of a clean run is refused in turn,
and what rests on it has to turn unknown, and nothing else may change."""

import json
import os
import re
from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from apiserver import ApiServer, body, tls
from cli import kubeposture
from gcp_data import (
    DEV,
    IOWA,
    PROD,
    Estate,
    Folder,
    Project,
    analysis,
    bad_cluster,
    bad_repository,
    cluster,
    image,
    policy,
    repository,
    uri,
    vulnerability,
)
from gcpserver import GcpServer, garbage, refuse, status
from support import deployment, secured

from providers.gcp import session
from scanner.cli.catalogue import catalogue

CHECKS = catalogue()
ORGANIZATION, FOLDER = "organizations/715382904611", "folders/100"
CLUSTERS, PLACES = "container.clusters.list", "artifactregistry.locations.list"
PROJECTS, FOLDERS = "resourcemanager.projects.list", "resourcemanager.folders.list"
REPOSITORIES, POLICY = "artifactregistry.repositories.list", "artifactregistry.repositories.getIamPolicy"
IMAGES, OCCURRENCES = "artifactregistry.dockerimages.list", "containeranalysis.occurrences.list"
SCANS = (IMAGES, OCCURRENCES)  # what vulnerabilities alone rest on
REGISTRY = "gcp-registry-image-vulns"


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
    """`findings` are those that are not about vulnerabilities, which are `images`."""

    code: int
    findings: dict
    images: dict
    gaps: list
    clusters: set


def run(*args):
    result = kubeposture("scan", "gke", "--organization", ORGANIZATION, "--status", "all", "-o", "json", *args)
    report = json.loads(result.stdout)
    clusters = {c["id"] for c in report["clusters"]}
    of = {
        id: {f["id"]: f for f in report["findings"] if (f["category"] == "vulnerability") == id} for id in (False, True)
    }
    return Run(result.code, of[False], of[True], report["gaps"], clusters)


@pytest.fixture
def gcp(tmp_path, monkeypatch):
    """Two projects, one of them in good order and one in a folder; every list has something in it, and every cluster
    can be read."""
    public = bad_repository("sandbox", project=DEV, location=IOWA)
    app, tool = uri("images/app"), uri("dev/tool", project=DEV, location=IOWA)
    now = datetime.now(UTC).isoformat()
    estate = Estate.of(
        Project(
            PROD,
            "Production",
            clusters=[cluster("good")],
            repositories=[repository()],
            images=[image("images/app", "v1")],
            occurrences=[analysis(app, lastScanTime=now)],
        ),
        Project(
            DEV,
            "Development",
            parent=FOLDER,
            clusters=[bad_cluster("bad", project=DEV)],
            repositories=[repository("dev", project=DEV, location=IOWA), public],
            policies={public["name"]: policy("allUsers")},
            images=[image("dev/tool", "v1", project=DEV, location=IOWA)],
            occurrences=[analysis(tool, project=DEV, lastScanTime=now), vulnerability(tool, project=DEV)],
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


_REST = re.compile(
    r"/v1/projects/([^/]+)/(?:occurrences|locations(?:/([^/]+)/repositories(?:/([^/:]+)[:/](getIamPolicy|dockerImages))?)?)"
)


def asked(gcp, *, scans=False):
    """Every request so far, once: those about vulnerabilities alone, or all others."""
    return sorted(one for one in {_asked(request) for request in gcp.requests} if (one.right in SCANS) == scans)


def _asked(request):
    if request.method == "ListClusters":
        return Asked(CLUSTERS, request.path, request.path.split("/")[1])
    if request.path.startswith("/v3/"):
        parent = request.query["parent"]
        right = {"/v3/projects": PROJECTS, "/v3/folders": FOLDERS}[request.path]
        return Asked(right, f"{request.path}?parent={parent.replace('/', '%2F')}", place=parent)
    project, place, name, beside = _REST.fullmatch(request.path).groups()
    if request.path.endswith("/occurrences"):
        kind = request.query["filter"].split('"')[1]
        return Asked(OCCURRENCES, f"{request.path}?filter=kind%3D%22{kind}%22", project)
    right = {"getIamPolicy": POLICY, "dockerImages": IMAGES}.get(beside, REPOSITORIES if place else PLACES)
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
    requests, scans = asked(gcp), asked(gcp, scans=True)
    assert {one.right for one in requests} == {PROJECTS, FOLDERS, CLUSTERS, PLACES, REPOSITORIES, POLICY}
    assert len(requests) == 2 * 2 + 2 * (1 + 1 + 4) + 3
    assert {one.right for one in scans} == set(SCANS)
    assert len(scans) == 3 + 2 * 2


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


LISTS_OF_IMAGES = (PLACES, REPOSITORIES, IMAGES)


@pytest.mark.parametrize("code", [403, 404])
def test_where_images_or_what_was_found_in_them_is_refused_none_passes(gcp, code):
    clean = run()
    assert {f["account"]: f["status"] for f in registered(clean)} == {PROD: "pass", DEV: "fail"}
    found = {}
    for one in [*asked(gcp, scans=True), *(o for o in asked(gcp) if o.right in LISTS_OF_IMAGES)]:
        one.refuse(gcp, code)
        found[one] = list(unproven(one, clean, run(), right=one.right if code == 403 else ""))
        gcp.heal()
    assert len(found) == 3 + 2 * 2 + 2 * (1 + 4)
    assert shown(found) == ""


def registered(now):
    """Findings on images themselves."""
    return [f for f in now.images.values() if f["check"] == REGISTRY and f["resource"]["kind"] == "Image"]


def unproven(one, clean, now, *, right):
    """Whatever is wrong in what is said of vulnerabilities."""
    if now.code not in (3, 4):
        yield f"exit code {now.code}"
    if one.right in SCANS and (now.clusters, statuses(now.findings)) != (clean.clusters, statuses(clean.findings)):
        yield "something else has changed"
    told = [f for f in now.images.values() if f["account"] == one.project and f["status"] == "unknown"]
    if not [f for f in told if f["check"] == REGISTRY and right in f["message"]]:
        yield f"does not say that {right} is needed: {told}"
    for id, before in ((f["id"], f) for f in registered(clean)):
        one_for_all = [f["status"] for f in told if f["check"] == REGISTRY and f["resource"]["name"] == "*"]
        after = now.images[id]["status"] if id in now.images else (one_for_all or ["lost"])[0]
        if after != (wanted := left(one, before)):
            yield f"{before['resource']['name']} is {after}, not {wanted}"
    for id in now.images.keys() - clean.images.keys():
        if now.images[id]["status"] != "unknown":
            yield f"{now.images[id]['resource']['name']}: {now.images[id]['status']} is new"


def left(one, before):
    """What can still be said of an image: what was found in it stays."""
    elsewhere = one.right == REPOSITORIES and f"/{one.place}-docker" not in f"/{before['resource']['name']}"
    empty = one.right == IMAGES and f"/{one.repository}/" not in before["resource"]["name"]
    if before["account"] != one.project or elsewhere or empty:
        return before["status"]
    if one.right == OCCURRENCES and "VULNERABILITY" in one.target:
        return "unknown"
    return {"pass": "unknown", "fail": "fail"}[before["status"]]


def statuses(findings):
    return {id: f["status"] for id, f in findings.items()}


def test_empty_lists_of_images_and_of_what_was_found_in_them_are_believed(gcp):
    """An image that is not listed is not there, one without an analysis was never scanned."""
    clean = run()
    found = {}
    for one in asked(gcp, scans=True):
        one.empty(gcp)
        now = run()
        after = {f["account"]: f["status"] for f in registered(now)}
        found[one] = [f"gaps: {now.gaps}"] if now.gaps else []
        if after != (wanted := believed(one)):
            found[one].append(f"{after}, not {wanted}")
        if statuses(now.findings) != statuses(clean.findings):
            found[one].append("something else has changed")
        gcp.heal()
    assert shown(found) == ""


def believed(one):
    """What is said of the image of each project."""
    said = {PROD: "pass", DEV: "fail"}
    if one.repository in ("images", "dev"):
        del said[one.project]
    elif "VULNERABILITY" in one.target:
        said[one.project] = "pass"
    elif "DISCOVERY" in one.target and one.project == PROD:
        del said[PROD]  # one unknown stands for all images of a project of which none was scanned
    return said


@pytest.mark.parametrize("fault", [refuse("RESOURCE_EXHAUSTED"), refuse("UNAVAILABLE"), garbage()])
def test_clusters_that_are_never_told_are_unknown_in_that_project_alone(gcp, fault):
    clean = run()
    [one] = [one for one in asked(gcp) if (one.right, one.project) == (CLUSTERS, DEV)]
    gcp.inject_call(fault, project=DEV)
    assert list(problems(one, clean, run(), named=False)) == []


def test_what_checks_need_is_asked_for(gcp):
    """Else they would never be able to answer."""
    assert not [f["check"] for f in run("--planes", "control").findings.values() if "was not asked for" in f["message"]]
