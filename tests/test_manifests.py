"""`scan manifests` from the command line: what files hold, and what broken ones cost."""

import json
import os

import jsonschema_rs
import msgspec
import pytest
from cli import kubeposture

from scanner.report import schema

VALID = jsonschema_rs.validator_for(schema.report_schema())
BAD = """
apiVersion: v1
kind: Pod
metadata: {name: bad, namespace: shop}
spec:
  containers:
  - {name: first, image: a}
  - name: last
    image: b
    securityContext:
      privileged: true
"""
GOOD = BAD.replace("true", "false").replace("bad", "good")


def scan(*args, check="k8s-privileged-container", **more):
    """Exit code and report; every report is valid under the published schema."""
    result = kubeposture("scan", "manifests", *args, "-o", "json", "-c", check, **more)
    report = json.loads(result.stdout)
    VALID.validate(report)
    return result.code, report


def found(report, status="fail"):
    return [(f["resource"]["name"], f["resource"]["container"]) for f in report["findings"] if f["status"] == status]


def errors(report):
    return {f["resource"]["name"]: f["message"] for f in report["findings"] if f["status"] == "error"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_finding_carries_file_line_and_document(folder):
    (folder / "a.yaml").write_text(GOOD + "---\n" + BAD)
    code, report = scan("a.yaml")
    (finding,) = report["findings"]
    assert code == 0
    assert finding["resource"]["source"] == {"path": "a.yaml", "line": 23, "document": 2}


def test_directories_are_read_recursively_and_other_files_are_not(folder):
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/one.yml").write_text(BAD)
    (folder / "deep/two.json").write_text(json.dumps(msgspec.yaml.decode(BAD) | {"metadata": {"name": "json"}}))
    (folder / "deep/three.txt").write_text(BAD)
    _, report = scan("deep")
    assert sorted(found(report)) == [("bad", "last"), ("json", "last")]
    assert report["coverage"]["files"] == {"read": 2, "failed": 0}


def test_standard_input(folder):
    code, report = scan("-", stdin=BAD)
    assert (code, found(report)) == (0, [("bad", "last")])
    assert report["findings"][0]["resource"]["source"]["path"] == "-"


@pytest.mark.parametrize("dump", [True, False])
def test_lists_as_kubectl_writes_them(folder, dump):
    items = [msgspec.yaml.decode(GOOD), msgspec.yaml.decode(BAD)]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1)
    (folder / "dump.json").write_text(text)
    (folder / "dump.yaml").write_text(msgspec.yaml.encode(json.loads(text)).decode())
    _, report = scan("dump.json" if dump else "dump.yaml")
    assert found(report) == [("bad", "last")]
    assert report["findings"][0]["resource"]["source"]["line"] > 20


def test_typed_list_whose_items_name_no_kind(folder):
    pod = msgspec.yaml.decode(BAD)
    del pod["kind"], pod["apiVersion"]
    (folder / "pods.json").write_text(json.dumps({"apiVersion": "v1", "kind": "PodList", "items": [pod]}))
    _, report = scan("pods.json")
    assert found(report) == [("bad", "last")]


def test_what_is_no_kubernetes_object_is_skipped_and_counted(folder):
    (folder / "a.yaml").write_text("just: data\n---\n- a list\n---\n# nothing\n---\n" + BAD)
    (folder / "crd.yaml").write_text("apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n")
    code, report = scan(".")
    assert code == 0
    assert report["coverage"]["objects"] == {"read": 2, "judged": 1, "skipped": 3, "invalid": 0}


def test_broken_file_of_ten_costs_only_itself(folder):
    for i in range(10):
        (folder / f"{i}.yaml").write_text(BAD.replace("bad", f"bad{i}"))
    (folder / "3.yaml").write_text("a: [1\nb: 2\n")
    code, report = scan(".")
    assert code == 3
    assert len(found(report)) == 9
    assert list(errors(report)) == ["3.yaml"]
    assert "line" in errors(report)["3.yaml"]
    assert report["coverage"]["files"] == {"read": 9, "failed": 1}


def test_helm_template_is_named_for_what_it_is(folder):
    (folder / "t.yaml").write_text("{{- if .Values.on }}\nkind: Pod\n{{- end }}\n")
    (folder / "b.yaml").write_text(BAD)
    code, report = scan(".")
    assert code == 3
    assert "helm template" in errors(report)["t.yaml"]
    assert found(report) == [("bad", "last")]


WRONG = {
    "privileged": "containers: [{name: a, image: x}, {name: b, image: y, securityContext: {privileged: 'yes'}}]",
    "containers": "containers: {}",
    "empty": "containers: []",
    "volumes": "containers: [{name: a, image: x}]\n  volumes: nope",
    "hostPID": "containers: [{name: a, image: x}]\n  hostPID: 'true'",
    "ports": "containers: [{name: a, image: x}, {name: b, image: y, ports: [{containerPort: '80'}]}]",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_type_is_an_error_and_never_a_pass(folder, wrong):
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: odd, namespace: shop}\nspec:\n  " + WRONG[wrong] + "\n"
    (folder / "odd.yaml").write_text(text)
    (folder / "bad.yaml").write_text(BAD)
    code, report = scan(".", "--status", "all", check="k8s-*")
    odd = [f for f in report["findings"] if f["resource"]["name"] == "odd"]
    assert code == 3
    assert ("bad", "last") in found(report)
    assert [f["check"] for f in odd if f["status"] == "error"] == ["k8s-invalid-object"]
    whole = {f["status"] for f in odd if f["resource"]["container"] is None and f["scope"] == "workload"}
    assert "pass" not in whole
    assert not [f for f in odd if f["resource"]["container"] == "b" and f["status"] == "pass"]


@pytest.mark.parametrize(
    ("field", "message"),
    [("apiVersion", "apiVersion is missing"), ("kind", "kind is missing")],
)
def test_object_without_version_or_kind_is_an_error(folder, field, message):
    (folder / "a.yaml").write_text(BAD.replace(field, "x" + field))
    code, report = scan(".")
    assert code == 4
    assert message in "".join(errors(report).values())


def test_unreadable_path_is_named(folder):
    (folder / "b.yaml").write_text(BAD)
    code, report = scan("b.yaml", "missing.yaml")
    assert code == 3
    assert "No such file" in errors(report)["missing.yaml"]


def test_fifo_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe.yaml")
    code, report = scan("pipe.yaml")
    assert code == 4
    assert "no regular file" in errors(report)["pipe.yaml"]


def test_huge_file_is_refused_before_it_is_read(folder):
    with (folder / "huge.yaml").open("wb") as file:
        file.truncate(2**30)
    (folder / "b.yaml").write_text(BAD)
    code, report = scan(".")
    assert code == 3
    assert "1,024 MiB" in errors(report)["huge.yaml"]
    assert found(report) == [("bad", "last")]


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 50_000,
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
    ],
    ids=["nested", "bomb"],
)
def test_hostile_yaml_is_an_error(folder, text):
    (folder / "evil.yaml").write_text(text)
    (folder / "b.yaml").write_text(BAD)
    code, report = scan(".")
    assert code == 3
    assert "line" in errors(report)["evil.yaml"]
    assert found(report) == [("bad", "last")]


def test_two_containers_of_one_name_are_one_finding(folder):
    (folder / "a.yaml").write_text(BAD.replace("first", "last"))
    _, report = scan("a.yaml")
    assert found(report) == [("bad", "last")]


def test_overlays_that_define_one_object_twice_are_two_findings(folder):
    for overlay in ("dev", "prod"):
        (folder / overlay).mkdir()
        (folder / overlay / "pod.yaml").write_text(BAD)
    _, report = scan(".")
    assert len({f["id"] for f in report["findings"]}) == 2


def test_ids_do_not_depend_on_where_one_scans_from(folder, monkeypatch):
    (folder / ".git").mkdir()
    (folder / "deploy").mkdir()
    (folder / "deploy/a.yaml").write_text(BAD)
    _, here = scan("deploy")
    monkeypatch.chdir(folder / "deploy")
    _, there = scan("a.yaml")
    assert [f["id"] for f in here["findings"]] == [f["id"] for f in there["findings"]]


def test_directory_without_manifests_is_named_and_not_clean(folder):
    (folder / "empty/deep").mkdir(parents=True)
    (folder / "b.yaml").write_text(BAD)
    code, report = scan("empty")
    assert (code, "nothing_read" in report["scan"]["exit_reasons"]) == (4, True)
    code, report = scan("b.yaml", "empty")
    assert (code, found(report)) == (3, [("bad", "last")])
    assert "holds no file" in errors(report)["empty"]


@pytest.mark.parametrize("paths", [(".", "deploy"), ("deploy", "./deploy/"), ("deploy/", ".")])
def test_directory_that_was_read_already_is_no_error(folder, paths):
    (folder / "deploy/sub").mkdir(parents=True)
    (folder / "deploy/sub/b.yaml").write_text(BAD)
    code, report = scan(*paths)
    assert (code, report["coverage"]["files"]) == (0, {"read": 1, "failed": 0})


@pytest.mark.parametrize("content", ["", "# only a comment\n"])
def test_empty_input_is_not_clean(folder, content):
    (folder / "empty").mkdir()
    (folder / "empty/a.yaml").write_text(content)
    code, report = scan("empty")
    assert code == 4
    assert report["scan"]["exit_reasons"] == ["nothing_read"]


def test_namespace_option_fills_in_what_is_missing(folder):
    (folder / "a.yaml").write_text(BAD.replace(", namespace: shop", ""))
    _, report = scan("a.yaml", "-n", "app", check="k8s-default-namespace")
    assert report["findings"] == []


@pytest.mark.parametrize(
    "version_and_kind",
    ["v1 Deployment", "apps Deployment", "apps/v1 Pod", "apps/v1 deployment", "Apps/v1 Deployment", "v1 pod"],
)
def test_kind_that_its_api_does_not_have_is_an_error(folder, version_and_kind):
    version, kind = version_and_kind.split()
    (folder / "a.yaml").write_text(BAD.replace("apiVersion: v1", f"apiVersion: {version}").replace("Pod", kind))
    code, report = scan("a.yaml")
    assert code == 4
    assert "there is no kind" in "".join(errors(report).values())


def test_custom_kinds_may_share_a_name(folder):
    (folder / "a.yaml").write_text(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\n---\n" + BAD
    )
    code, report = scan("a.yaml")
    assert (code, report["coverage"]["objects"]["skipped"]) == (0, 1)


@pytest.mark.parametrize("depth", [3, 9])
def test_lists_inside_lists(folder, depth):
    value = msgspec.yaml.decode(BAD)
    for _ in range(depth):
        value = {"apiVersion": "v1", "kind": "List", "items": [value]}
    (folder / "a.json").write_text(json.dumps(value))
    code, report = scan("a.json")
    assert code == (0 if depth == 3 else 4)
    assert bool(found(report)) == (depth == 3)


def test_item_without_kind_in_a_list_is_an_error(folder):
    pod = msgspec.yaml.decode(BAD)
    del pod["kind"], pod["apiVersion"]
    (folder / "a.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod]}))
    assert scan("a.json")[0] == 4


def test_links_are_followed_and_each_file_is_read_once(folder):
    (folder / "real").mkdir()
    (folder / "real/a.yaml").write_text(BAD)
    (folder / "in").mkdir()
    (folder / "in/link").symlink_to("../real")
    (folder / "in/again.yaml").symlink_to("../real/a.yaml")
    (folder / "in/loop").symlink_to("../in")
    _, report = scan("in")
    assert len(report["findings"]) == 1
    assert report["coverage"]["files"]["read"] == 1


def test_file_name_need_not_be_utf8(folder):
    (folder / os.fsdecode(b"\xff.yaml")).write_text(BAD)
    code, report = scan(".")
    assert code == 0
    assert report["findings"][0]["resource"]["source"]["path"] == "./\\xff.yaml"


def test_aliases_may_not_blow_up_a_file(folder, monkeypatch):
    monkeypatch.setattr("providers.files.manifests.MAX_VALUES", 10_000)
    items = "[" + ",".join("x" * 90) + "]"
    bomb = f"a: &a {items}\nb: [{','.join(['*a'] * 90)}]\n"
    (folder / "a.yaml").write_text("---\n".join([bomb, bomb, BAD]))
    (folder / "b.yaml").write_text(BAD)
    code, report = scan(".")
    assert code == 3
    assert "aliases expanded" in errors(report)["a.yaml"]
    assert found(report) == [("bad", "last")]


def test_error_quotes_no_value(folder):
    (folder / "a.yaml").write_text("apiVersion: v1\nkind: Secret\nstringData: {password: !!int hunter2-hunter2}\n")
    _, report = scan("a.yaml")
    assert "hunter2" not in json.dumps(report)


def test_secret_data_never_reaches_a_report_or_bundle(folder):
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n"
    pod = BAD + "    env: [{name: P, value: hunter2}]\n"
    (folder / "a.yaml").write_text(secret + "---\n" + pod)
    _, report = scan("a.yaml", "--status", "all", check="k8s-*")
    kubeposture("collect", "manifests", "a.yaml", "-o", "b.bundle")
    import gzip

    assert "hunter2" not in json.dumps(report)
    assert b"hunter2" not in gzip.decompress((folder / "b.bundle").read_bytes())


# -- a file may claim anything


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Running"])
def test_status_in_a_manifest_hides_nothing(folder, phase):
    (folder / "a.yaml").write_text(BAD + f"status: {{phase: {phase}}}\n")
    _, report = scan("a.yaml")
    assert found(report) == [("bad", "last")]
    _, report = scan("a.yaml", check="k8s-automount-api-credentials")
    assert [f["reason"] for f in report["findings"]] == ["service_account_not_in_input"]


@pytest.mark.parametrize("order", [1, -1])
def test_service_account_may_stand_before_or_after_its_pod(folder, order):
    account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: shop}\n"
    account += "automountServiceAccountToken: false\n"
    (folder / "a.yaml").write_text("---\n".join([account, GOOD][::order]))
    _, report = scan("a.yaml", check="k8s-automount-api-credentials")
    assert report["findings"] == []


@pytest.mark.parametrize(
    ("field", "check"),
    [
        ("runAsUser: -1", "k8s-run-as-root"),
        ("runAsUser: 4294967296", "k8s-run-as-root"),
        ("appArmorProfile: {type: runtime/default}", "k8s-apparmor-profile"),
    ],
)
def test_value_that_the_api_server_refuses_is_no_pass(folder, field, check):
    (folder / "a.yaml").write_text(BAD.replace("privileged: true", field))
    _, report = scan("a.yaml", "--status", "all", check=check)
    assert ("bad", "last") not in found(report, "pass")
    assert {"fail", "error"} & {f["status"] for f in report["findings"]}


def test_value_that_json_cannot_carry_is_an_error(folder):
    (folder / "a.yaml").write_text(GOOD.replace("image: b", 'image: "\\ud800"'))
    (folder / "b.yaml").write_text(BAD)
    code, report = scan(".")
    assert code == 3
    assert list(errors(report)) == ["a.yaml"]
    assert found(report) == [("bad", "last")]


def test_list_whose_items_are_none_is_an_error(folder):
    (folder / "a.yaml").write_text("apiVersion: v1\nkind: List\nitems: {}\n---\n" + BAD)
    code, report = scan("a.yaml")
    assert code == 3
    assert "items of List" in errors(report)["a.yaml"]
    assert found(report) == [("bad", "last")]


@pytest.mark.parametrize("kind", ["Pod", "list"])
def test_items_of_what_is_no_list_are_not_overlooked(folder, kind):
    value = {"apiVersion": "v1", "kind": kind, "items": [msgspec.yaml.decode(BAD)]}
    (folder / "a.json").write_text(json.dumps(value))
    code, report = scan("a.json")
    assert (code, bool(found(report))) == ((4, False) if kind == "Pod" else (0, True))
