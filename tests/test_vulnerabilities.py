"""From what runs and what sources say to the report: clusters, files, an operator inside, a registry, bundles."""

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import scan_data
from apiserver import ApiServer
from cli import kubeposture
from registryserver import Reply, Server
from scans import Scan, collect, evaluate
from support import merged, pod

from scanner.check import Check
from scanner.cli.catalogue import catalogue

ROOT = Path(__file__).parent.parent
TODAY = datetime.now(UTC).replace(microsecond=0)
YESTERDAY = (TODAY - timedelta(days=1)).isoformat()
HOSTS = {
    "azure": "acme.azurecr.io/shop/web",
    "aws": "111122223333.dkr.ecr.eu-west-1.amazonaws.com/shop/web",
    "gcp": "europe-docker.pkg.dev/acme-prod/shop/web",
    "dockerhub": "docker.io/library/redis",
    "jfrog": "acme.jfrog.io/docker/shop/web",
}
AMD64 = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
ARM64 = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}
RUNNING = "k8s-running-image-vulns"


def node(name, labels):
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def runs(name, image, image_id, node="n1"):
    """A pod with one container, as an API server shows it."""
    status = {"phase": "Running", "containerStatuses": [{"name": "a", "imageID": image_id}]}
    item = pod({"name": "a", "image": image}, name=name, namespace="a", nodeName=node)
    return merged(item, {"status": status})


def trivy(folder, name, repository, digest, *found, tags=(), **more):
    """A file of Trivy's about one image."""
    meta = scan_data.metadata(
        RepoTags=list(tags), RepoDigests=[f"{repository}@{digest}"], ImageID=scan_data.digest(name)
    )
    report = scan_data.trivy(
        CreatedAt=YESTERDAY, Metadata=meta, Results=[scan_data.result(*map(scan_data.vulnerability, found))], **more
    )
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(report))
    return path


@pytest.fixture
def api():
    with ApiServer() as server:
        server.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}, node("n1", AMD64))
        yield server


def scan(api, folder, *args):
    config = api.kubeconfig(folder / "config")
    command = ("scan", "kubeconfig", "--kubeconfig", config, "--status", "all", "-o", "json", "-c", "*-image-vulns")
    return Scan(kubeposture(*command, *args))


def told(found, check=RUNNING):
    """Status and reason by the name of what is judged."""
    findings = [f for f in found.report["findings"] if f["check"] == check]
    return {f["resource"]["name"]: (f["status"], f["reason"]) for f in findings}


def sources(finding):
    return [e["path"] for e in finding["evidence"] if e["path"].startswith("source[")]


# -- one estate ------------------------------------------------------------------------------------------------------


def test_images_of_every_registry_are_judged_where_they_run_and_where_they_lie(api, tmp_path):
    folder = tmp_path / "reports"
    for kind, name in HOSTS.items():
        digest = scan_data.digest(kind)
        api.add(runs(kind, f"{name}:1", f"{name}@{digest}"))
        trivy(folder, kind, name, digest, "CVE-2026-1", tags=[f"{name}:1"])
    found = scan(api, tmp_path, "--vulnerabilities", folder)
    assert (found.code, found.gaps) == (0, [])
    assert told(found) == dict.fromkeys(HOSTS, ("fail", "vulnerable"))
    for kind, name in HOSTS.items():
        assert told(found, f"{kind}-registry-image-vulns") == {
            f"{name}@{scan_data.digest(kind)}": ("fail", "vulnerable")
        }
    assert found.row()["images"] == {"running": 5, "by_digest": 5, "by_tag": 0, "not_scanned": 0, "no_digest": 0}


def test_one_digest_that_two_sources_know_is_one_finding_that_names_both(api, tmp_path):
    name, digest = HOSTS["azure"], scan_data.digest("x")
    api.add(runs("web", f"{name}:1", f"{name}@{digest}"))
    trivy(tmp_path / "reports", "one", name, digest, "CVE-2026-1000")
    target = scan_data.target(repoDigests=[f"{name}@{digest}"], tags=[], architecture="amd64", architectureVariant="")
    grype = scan_data.grype(
        source={"type": "image", "target": target},
        matches=[scan_data.match("CVE-2026-1000", ()), scan_data.match("CVE-2026-3000", ())],
        descriptor={**scan_data.descriptor(), "timestamp": YESTERDAY},
    )
    (tmp_path / "reports" / "two.json").write_text(json.dumps(grype))
    found = scan(api, tmp_path, "--vulnerabilities", tmp_path / "reports")
    [running] = [f for f in found.report["findings"] if f["check"] == RUNNING]
    assert sources(running) == ["source[trivy]", "source[grype]"]
    stored = [f for f in found.report["findings"] if f["check"] == "azure-registry-image-vulns"]
    by_digest = {f["resource"]["name"].rpartition("@")[2]: sources(f) for f in stored}
    assert by_digest[digest] == ["source[trivy]", "source[grype]"]


def docker_config(folder, host):
    path = folder / "docker.json"
    path.write_text(json.dumps({"auths": {host: {"username": "reader", "password": "secret-of-the-registry"}}}))
    return path


def test_each_nodes_platform_is_judged(api, tmp_path):
    """The registry says which manifests an index has, and the scanner tells of those."""
    amd, arm = scan_data.digest("amd64"), scan_data.digest("arm64")
    entries = [
        {"digest": digest, "platform": {"os": "linux", "architecture": name}}
        for name, digest in (("amd64", amd), ("arm64", arm))
    ]
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    digest = "sha256:" + hashlib.sha256(index).hexdigest()
    with Server(lambda request: Reply(body=index)) as registry:
        name = f"{registry.host}/shop/web"
        api.add(node("n2", ARM64))
        for number in (1, 2):
            api.add(runs(f"on-n{number}", f"{name}:1", f"{name}@{digest}", node=f"n{number}"))
        folder = tmp_path / "reports"
        for architecture, manifest, ids in (("amd64", amd, ()), ("arm64", arm, ("CVE-2026-1",))):
            path = trivy(folder, architecture, name, manifest, *ids)
            report = json.loads(path.read_text())
            report["Metadata"]["ImageConfig"]["architecture"] = architecture
            path.write_text(json.dumps(report))
        given = ("--vulnerabilities", folder, "--registry-auth", docker_config(tmp_path, registry.host))
        found = scan(api, tmp_path, *given)
        assert told(found) == {"on-n1": ("pass", ""), "on-n2": ("fail", "vulnerable")}
        assert registry.paths() == [f"/v2/shop/web/manifests/{digest}"]  # once for both
        alone = scan(api, tmp_path, "--vulnerabilities", folder)
    assert told(alone) == dict.fromkeys(("on-n1", "on-n2"), ("unknown", "not_scanned"))


def test_an_index_that_a_registry_refuses_to_show_is_a_gap(api, tmp_path):
    trivy(tmp_path / "reports", "other", "quay.io/x/y", scan_data.digest("other"))
    with Server(lambda request: Reply(403 if "/web/" in request.path else 404)) as registry:
        name = f"{registry.host}/shop/web"
        for number in (1, 2):
            digest = scan_data.digest(f"index {number}")
            api.add(runs(f"web-{number}", f"{name}:{number}", f"{name}@{digest}"))
        api.add(runs("other", f"{registry.host}/shop/other", f"{registry.host}/shop/other@{scan_data.digest('o')}"))
        given = ("--vulnerabilities", tmp_path / "reports")
        auth = docker_config(tmp_path, registry.host)
        found = scan(api, tmp_path, *given, "--registry-auth", auth)
        assert sorted(path.split("/")[3] for path in registry.paths()) == ["other", "web"]  # once for each
    assert found.code == 4  # nothing could be decided
    assert [gap["what"] for gap in found.gaps] == [registry.host]
    refused = dict.fromkeys(("web-1", "web-2"), ("unknown", "forbidden"))
    assert told(found) == {**refused, "other": ("unknown", "not_scanned")}
    assert "secret-of-the-registry" not in found.text + found.error


# -- nothing tells ---------------------------------------------------------------------------------------------------


def test_without_any_source_every_recommendation_is_unknown(api, tmp_path):
    for kind, name in HOSTS.items():
        api.add(runs(kind, f"{name}:1", f"{name}@{scan_data.digest(kind)}"))
    found = scan(api, tmp_path)
    assert (found.code, found.gaps) == (0, [])
    statuses = {(f["check"], f["status"], f["reason"]) for f in found.report["findings"]}
    checks = [RUNNING, *(f"{kind}-registry-image-vulns" for kind in HOSTS)]
    assert statuses == {(check, "unknown", "no_source") for check in checks}
    assert len(found.report["findings"]) == len(checks)  # one stands for all images
    assert "--vulnerabilities" in found.report["scan"]["warnings"][0]
    assert found.report["scan"]["complete"]


def test_what_nobody_scans_leaves_the_rest_complete(api, tmp_path):
    api.add(runs("web", "redis", f"docker.io/library/redis@{scan_data.digest('x')}"))
    config = api.kubeconfig(tmp_path / "config")
    found = Scan(kubeposture("scan", "kubeconfig", "--kubeconfig", config, "-o", "json"))
    assert (found.code, found.report["scan"]["complete"]) == (0, True)
    table = kubeposture("scan", "kubeconfig", "--kubeconfig", config)
    assert "vulnerabilities in images are unknown where no source tells of them" in " ".join(table.stdout.split())


def test_where_nothing_runs_there_is_nothing_to_be_known(api, tmp_path):
    assert {f["reason"] for f in scan(api, tmp_path).report["findings"]} == {"no_subjects"}


def test_a_source_that_is_refused_leaves_one_unknown_with_its_reason(api, tmp_path):
    api.add(runs("web", "redis", f"docker.io/library/redis@{scan_data.digest('x')}"))
    api.inject(r"/apis/aquasecurity.github.io/v1alpha1", forbidden)
    found = scan(api, tmp_path)
    assert found.code in (3, 4)
    assert told(found) == {"*": ("unknown", "forbidden")}
    assert [g["permission"] for g in found.gaps] == ["list vulnerabilityreports.aquasecurity.github.io"]


def forbidden(handler):
    handler.send_response(403)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "2")
    handler.end_headers()
    handler.wfile.write(b"{}")


def test_a_file_that_is_not_understood_takes_nothing_from_the_others(api, tmp_path):
    name = HOSTS["azure"]
    for kind in ("known", "unknown"):
        api.add(runs(kind, f"{name}:{kind}", f"{name}@{scan_data.digest(kind)}"))
    trivy(tmp_path / "reports", "known", name, scan_data.digest("known"), "CVE-2026-1")
    (tmp_path / "reports" / "broken.json").write_text('{"SchemaVersion": 2, "Results": [')
    found = scan(api, tmp_path, "--vulnerabilities", tmp_path / "reports")
    assert found.code == 3
    assert told(found) == {"known": ("fail", "vulnerable"), "unknown": ("unknown", "bad_data")}
    assert "broken.json" in found.gaps[0]["detail"]


def test_a_path_that_is_not_there_is_told(api, tmp_path):
    api.add(runs("web", "redis", f"docker.io/library/redis@{scan_data.digest('x')}"))
    found = scan(api, tmp_path, "--vulnerabilities", tmp_path / "nowhere")
    assert "nowhere" in found.gaps[0]["detail"]
    assert told(found) == {"*": ("unknown", "not_found")}


# -- what counts -----------------------------------------------------------------------------------------------------


def test_options_decide_what_counts(api, tmp_path):
    name, digest = HOSTS["azure"], scan_data.digest("x")
    api.add(runs("web", f"{name}:1", f"{name}@{digest}"))
    trivy(tmp_path / "reports", "one", name, digest, "CVE-2026-1")  # high, with a fix
    given = ("--vulnerabilities", tmp_path / "reports")
    assert told(scan(api, tmp_path, *given, "--min-cve-severity", "high", "--fixable-only"))["web"][0] == "fail"
    loose = scan(api, tmp_path, *given, "--min-cve-severity", "critical")
    assert told(loose)["web"][0] == "pass"
    [finding] = [f for f in loose.report["findings"] if f["check"] == RUNNING]
    assert {"name": "min_severity", "value": "critical", "origin": "command line"} in finding["parameters"]
    param = ("--param", f"{RUNNING}.min_severity=critical", "--min-cve-severity", "low")
    assert told(scan(api, tmp_path, *given, *param))["web"][0] == "pass"


def test_what_is_known_to_be_exploited_is_marked(api, tmp_path):
    name, digest = HOSTS["azure"], scan_data.digest("x")
    api.add(runs("web", f"{name}:1", f"{name}@{digest}"))
    trivy(tmp_path / "reports", "one", name, digest, "CVE-2026-1111", "CVE-2026-2222")
    known = tmp_path / "kev.json"
    known.write_text(json.dumps({"vulnerabilities": [{"cveID": "CVE-2026-2222"}]}))
    found = scan(api, tmp_path, "--vulnerabilities", tmp_path / "reports", "--known-exploited", known)
    [finding] = [f for f in found.report["findings"] if f["check"] == RUNNING]
    assert "1 known to be exploited; first CVE-2026-2222" in finding["message"]
    shown = [e for e in finding["evidence"] if e["path"].startswith("CVE-")]
    assert shown[0]["value"].startswith("known exploited")


@pytest.mark.parametrize("text", ["", "{}", '{"vulnerabilities": []}', "cveID\n"])
def test_a_list_of_exploited_ones_that_holds_none_is_an_error(api, tmp_path, text):
    known = tmp_path / "kev.json"
    known.write_text(text)
    result = kubeposture("scan", "manifests", tmp_path, "--known-exploited", known)
    assert (result.code, result.stdout) == (2, "")
    assert "kev.json" in result.stderr


def test_text_of_a_report_does_no_harm(api, tmp_path):
    name, digest = HOSTS["azure"], scan_data.digest("x")
    api.add(runs("web", f"{name}:1", f"{name}@{digest}"))
    path = trivy(tmp_path / "reports", "one", name, digest)
    report = json.loads(path.read_text())
    evil = "\x1b[2J[bold red]<script>\u202e" + "x" * 100_000
    report["Results"] = [
        scan_data.result(scan_data.vulnerability(evil, PkgName=evil, InstalledVersion=evil, FixedVersion=evil))
    ]
    path.write_text(json.dumps(report))
    config = api.kubeconfig(tmp_path / "config")
    command = ("scan", "kubeconfig", "--kubeconfig", config, "-c", RUNNING, "--vulnerabilities", tmp_path / "reports")
    text = kubeposture(*command).stdout
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert len(kubeposture(*command, "-o", "json").stdout) < 20_000


# -- bundles ---------------------------------------------------------------------------------------------------------


def test_a_bundle_holds_what_runs_and_what_sources_said(api, tmp_path):
    name, digest = HOSTS["azure"], scan_data.digest("x")
    api.add(runs("web", f"{name}:1", f"{name}@{digest}"), runs("new", f"{name}:2", ""))
    trivy(tmp_path / "reports", "one", name, digest, "CVE-2026-1")
    live = scan(api, tmp_path, "--vulnerabilities", tmp_path / "reports")
    given = ("kubeconfig", "--kubeconfig", tmp_path / "config")
    whole = collect(tmp_path / "whole", *given, "--vulnerabilities", tmp_path / "reports")
    alone = collect(tmp_path / "alone", *given)
    same = {id: f["status"] for id, f in evaluate(whole).findings.items() if f["category"] == "vulnerability"}
    assert same == live.statuses()
    later = Scan(
        kubeposture("evaluate", alone, "--vulnerabilities", tmp_path / "reports", "--status", "all", "-o", "json")
    )
    assert {id: f["status"] for id, f in later.findings.items() if f["category"] == "vulnerability"} == same


def clusters_with_a_report_in_the_first(stack, tmp_path, image, digest):
    """Kubeconfigs of two clusters whose contexts have one name."""
    paths = []
    for number in (1, 2):
        server = stack.enter_context(ApiServer())
        system = {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": f"uid-{number}"}}
        server.add(system, {"kind": "Namespace", "metadata": {"name": "a"}}, node("n1", AMD64))
        server.add(runs(f"web-{number}", f"{image}:1", f"{image}@{digest}"))
        if number == 1:
            server.add(reported("r1", f"{image}:1", digest))
        paths.append(server.kubeconfig(tmp_path / f"config-{number}"))
    return paths


def test_an_operator_is_not_believed_of_a_cluster_of_the_same_name(tmp_path, monkeypatch):
    digest = scan_data.digest("x")
    with contextlib.ExitStack() as stack:
        paths = clusters_with_a_report_in_the_first(stack, tmp_path, "docker.io/x/web", digest)
        monkeypatch.chdir(tmp_path)
        targets = [{"kubeconfig": {"kubeconfig": str(path)}} for path in paths]
        (tmp_path / "kubeposture.yaml").write_text(json.dumps({"targets": targets}))
        found = Scan(kubeposture("scan", "all", "-c", RUNNING, "--status", "all", "-o", "json"))
    assert told(found) == {"web-1": ("pass", ""), "*": ("unknown", "no_source")}


def test_another_cluster_hides_no_fail(tmp_path, monkeypatch):
    """Its operator calls the digest clean that here is known by its tag alone."""
    digest, image = scan_data.digest("x"), "docker.io/x/web"
    trivy(tmp_path / "reports", "one", image, scan_data.digest("before"), "CVE-2026-1", tags=[f"{image}:1"])
    with contextlib.ExitStack() as stack:
        paths = clusters_with_a_report_in_the_first(stack, tmp_path, image, digest)
        monkeypatch.chdir(tmp_path)
        targets = [{"kubeconfig": {"kubeconfig": str(path)}} for path in paths]
        (tmp_path / "kubeposture.yaml").write_text(json.dumps({"targets": targets}))
        command = ("scan", "all", "-c", RUNNING, "--status", "all", "-o", "json", "--vulnerabilities", "reports")
        found = Scan(kubeposture(*command))
    assert told(found) == {"web-1": ("pass", ""), "web-2": ("fail", "vulnerable")}


@pytest.mark.parametrize("turned", [False, True])
def test_two_looks_at_one_cluster_are_one(api, tmp_path, turned):
    """One sees what an operator found, the other is refused that."""
    digest = scan_data.digest("x")
    api.add({"kind": "Namespace", "metadata": {"name": "kube-system", "uid": "one"}})
    api.add(runs("web", "docker.io/x/web:1", f"docker.io/x/web@{digest}"))
    given = ("kubeconfig", "--kubeconfig", api.kubeconfig(tmp_path / "config"), "-c", RUNNING)
    refused = [collect(tmp_path / "refused", *given)]
    api.add(reported("r1", "docker.io/x/web:1", digest))
    bundles = [collect(tmp_path / "full", *given), *refused]
    found = evaluate(*(bundles[::-1] if turned else bundles), "-c", RUNNING)
    assert told(found) == {"web": ("pass", "")}
    assert found.report["summary"]["by_status"]["pass"] == 1
    assert found.row()["images"]["running"] == 1


def test_a_finding_is_of_the_root_whatever_is_selected(api, tmp_path):
    """Argo's and others' ReplicaSets have no hash in their name: who owns them has to be asked."""
    owner = {"apiVersion": "example.com/v1", "kind": "Canary", "name": "shop", "controller": True}
    replicas = {"kind": "ReplicaSet", "metadata": {"name": "shop-x", "namespace": "a", "ownerReferences": [owner]}}
    api.add({"apiVersion": "apps/v1", **replicas, "spec": {"template": {"spec": {"containers": [{"name": "a"}]}}}})
    own = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-x", "controller": True}
    api.add(merged(runs("shop-x-1", "redis", ""), {"metadata": {"ownerReferences": [own]}}))
    trivy(tmp_path / "reports", "one", "docker.io/library/redis", scan_data.digest("x"), "CVE-2026-1")
    assert told(scan(api, tmp_path, "--vulnerabilities", tmp_path / "reports", "-c", RUNNING)).keys() == {"shop"}


def test_pods_are_selected_by_their_own_labels(api, tmp_path):
    digest = scan_data.digest("x")
    own = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": True}
    meta = {"metadata": {"ownerReferences": [own], "labels": {"app": "web"}}}
    api.add(merged(runs("web-0", "redis", f"docker.io/library/redis@{digest}"), meta))
    template = {"spec": {"containers": [{"name": "a", "image": "redis"}]}}
    api.add({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web", "namespace": "a"},
             "spec": {"template": template}})  # fmt: skip
    trivy(tmp_path / "reports", "one", "docker.io/library/redis", digest, "CVE-2026-1")
    given = ("--vulnerabilities", tmp_path / "reports", "--param")
    wanted = f"{RUNNING}.label_selector={{matchLabels: {{app: web}}}}"
    assert told(scan(api, tmp_path, *given, wanted)) == {"web": ("fail", "vulnerable")}
    assert told(scan(api, tmp_path, *given, wanted.replace("web}", "other}"))) == {
        "web": ("not_applicable", "excluded")
    }


def test_a_node_is_not_what_something_else_calls_so(api, tmp_path):
    digest = scan_data.digest("x")
    api.add(node("n2", ARM64))
    api.add(
        merged(
            runs("web", "redis", f"docker.io/library/redis@{digest}"), {"spec": {"nodeSelector": {"nodeName": "n1"}}}
        )
    )
    pods = api.find("pods", "a")
    pods[0]["spec"] = {"nodeSelector": {"nodeName": "n1"}, **pods[0]["spec"], "nodeName": "n2"}
    trivy(tmp_path / "reports", "one", "docker.io/library/redis", digest)
    found = scan(api, tmp_path, "--vulnerabilities", tmp_path / "reports")
    assert told(found) == {"web": ("unknown", "not_scanned")}


def test_who_selects_the_check_of_another_cloud_is_told(api, tmp_path):
    api.add(runs("web", "redis", ""))
    config = api.kubeconfig(tmp_path / "config", context="mine")
    command = ("scan", "kubeconfig", "--kubeconfig", config, "-c", "azure-running-image-vulns", "-c", "k8s-run-as-root")
    found = Scan(kubeposture(*command, "-o", "json"))
    assert f"images of mine are not judged: {RUNNING} is not selected" in found.report["scan"]["warnings"]


SLOW_REGISTRY = """
import sys, threading, time
from scanner import cli
from scanner.cli import image_sources
genuine = image_sources.index_of
def slow(sources, running):
    def index(registry, repository, digest):
        print("asked", file=sys.stderr, flush=True)
        time.sleep(0.3)
    return index
image_sources.index_of = slow
cli.run()
"""


def test_an_interrupt_ends_the_questions_to_registries(api, tmp_path):
    name = "docker.io/library/redis"
    for number in range(200):
        api.add(runs(f"web-{number}", name, f"{name}@{scan_data.digest(str(number))}"))
    config, auth = api.kubeconfig(tmp_path / "config"), docker_config(tmp_path, "docker.io")
    command = ("scan", "kubeconfig", "--kubeconfig", config, "-c", RUNNING, "--registry-auth", auth, "-o", "json", "-q")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_REGISTRY, *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True,
    ) as child:  # fmt: skip
        assert child.stderr.readline() == "asked\n"
        child.send_signal(signal.SIGINT)
        output, error = child.communicate(timeout=20)
    report = json.loads(output)
    assert child.returncode == 130
    assert error.count("asked") < 5
    assert [(gap["what"], gap["detail"]) for gap in report["gaps"]] == [("registries", "interrupted")]


def test_scan_all_takes_files_too(api, tmp_path, monkeypatch):
    name, digest = HOSTS["azure"], scan_data.digest("x")
    api.add(runs("web", f"{name}:1", f"{name}@{digest}"))
    trivy(tmp_path / "reports", "one", name, digest, "CVE-2026-1")
    monkeypatch.chdir(tmp_path)
    config = {"targets": [{"kubeconfig": {"kubeconfig": str(api.kubeconfig(tmp_path / "config"))}}]}
    (tmp_path / "kubeposture.yaml").write_text(json.dumps(config))
    command = ("scan", "all", "-c", "*-image-vulns", "--status", "all", "-o", "json")
    assert told(Scan(kubeposture(*command, "--vulnerabilities", "reports"))) == {"web": ("fail", "vulnerable")}
    config["targets"].append({"vulnerabilities": {"paths": ["reports"]}})
    (tmp_path / "kubeposture.yaml").write_text(json.dumps(config))
    assert told(Scan(kubeposture(*command))) == {"web": ("fail", "vulnerable")}
    config["targets"].append({"jfrog": {"url": "https://acme.jfrog.io"}})
    (tmp_path / "kubeposture.yaml").write_text(json.dumps(config))
    refused = kubeposture(*command)
    assert (refused.code, "JFROG_ACCESS_TOKEN" in refused.stderr) == (2, True)


# -- whose cluster it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "check"),
    [
        ("kubernetes.azure.com/cluster", "azure-running-image-vulns"),
        ("eks.amazonaws.com/nodegroup", "aws-running-image-vulns"),
        ("cloud.google.com/gke-nodepool", "gcp-running-image-vulns"),
        ("node.kubernetes.io/instance-type", RUNNING),
    ],
)
def test_nodes_tell_which_recommendation_a_cluster_is_under(api, tmp_path, label, check):
    api.add(node("n3", AMD64 | {label: "x"}), runs("web", "redis", f"docker.io/library/redis@{scan_data.digest('x')}"))
    trivy(tmp_path / "reports", "one", "docker.io/library/redis", scan_data.digest("x"), "CVE-2026-1")
    found = scan(api, tmp_path, "--vulnerabilities", tmp_path / "reports")
    running = {f["check"] for f in found.report["findings"] if f["check"].endswith("running-image-vulns")}
    assert running == {check}


def test_every_check_of_images_is_on():
    of_images: list[Check] = [check for check in catalogue().values() if check.category == "vulnerability"]
    assert len(of_images) == 9
    assert all(check.on for check in of_images)


# -- an operator inside ----------------------------------------------------------------------------------------------


def reported(name, image, digest, *ids):
    """A report of trivy-operator."""
    repository = image.rpartition(":")[0]
    found = [{"vulnerabilityID": id, "resource": "zlib", "installedVersion": "1", "severity": "HIGH"} for id in ids]
    artifact = {"repository": repository.partition("/")[2], "digest": digest}
    return {
        "apiVersion": "aquasecurity.github.io/v1alpha1",
        "kind": "VulnerabilityReport",
        "metadata": {"name": name, "namespace": "a"},
        "report": {
            "artifact": artifact,
            "registry": {"server": repository.partition("/")[0]},
            "os": {"family": "alpine", "name": "3.22"},
            "summary": {"highCount": len(found)},
            "updateTimestamp": YESTERDAY,
            "vulnerabilities": found,
        },
    }


def test_what_an_operator_says_proves_a_pass_in_its_own_cluster_alone(api, tmp_path):
    clean, bad = scan_data.digest("clean"), scan_data.digest("bad")
    images = {"clean": ("docker.io/x/clean:1", clean), "bad": ("docker.io/x/bad:1", bad)}
    with ApiServer() as other:
        other.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}, node("n1", AMD64))
        for name, (image, digest) in images.items():
            for server in (api, other):
                server.add(runs(name, image, f"{image.rpartition(':')[0]}@{digest}"))
        api.add(reported("r1", images["clean"][0], clean), reported("r2", images["bad"][0], bad, "CVE-2026-1"))
        config = api.kubeconfig(tmp_path / "config", context="one", others={"two": other})
        command = ("scan", "kubeconfig", "--kubeconfig", config, "--context", "*", "-c", RUNNING)
        found = Scan(kubeposture(*command, "--status", "all", "-o", "json"))
    answers = {
        (f["cluster"]["name"], f["resource"]["name"]): (f["status"], f["reason"]) for f in found.findings.values()
    }
    assert answers == {
        ("one", "clean"): ("pass", ""),
        ("one", "bad"): ("fail", "vulnerable"),
        ("two", "clean"): ("unknown", "not_certain"),
        ("two", "bad"): ("fail", "vulnerable"),
    }
