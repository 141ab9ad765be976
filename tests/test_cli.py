"""The command as its users meet it: exit codes, gates, configuration, exemptions, outputs, bundles."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema_rs
import pytest
from cli import kubeposture, process

from scanner.report import schema

ROOT = Path(__file__).parent.parent
HEALTHY, UNHEALTHY = (ROOT / "fixtures/seeds" / f"{n}.yaml" for n in ("healthy", "unhealthy"))
VALID = jsonschema_rs.validator_for(schema.report_schema())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scan(*args, config=None):
    if config is not None:
        Path("kubeposture.yaml").write_text(config)
    result = kubeposture("scan", "manifests", *args, "-o", "json")
    report = json.loads(result.stdout) if result.stdout else None
    if report:
        VALID.validate(report)
    return result.code, report, result.stderr


def fails(report):
    return sorted((f["check"], f["resource"]["kind"]) for f in report["findings"] if f["status"] == "fail")


CONFIGURED = (
    *("--param", "k8s-trusted-registries.allowed_images_regex=^[^/]+\\.azurecr\\.io/.+$"),
    *("--param", "k8s-service-allowed-ports.allowed_ports=80,443"),
)


def test_healthy_seed_fails_just_what_it_inherently_violates():
    _, report, _ = scan(HEALTHY)
    inherent = [
        ("k8s-automount-api-credentials", "Deployment"),
        ("k8s-default-namespace", "Deployment"),
        ("k8s-default-namespace", "Service"),
    ]
    unset = [("k8s-service-allowed-ports", "Files"), ("k8s-trusted-registries", "Files")]
    assert fails(report) == inherent + unset
    assert {f["reason"] for f in report["findings"] if f["resource"]["kind"] == "Files"} == {"configuration_required"}
    assert fails(scan(HEALTHY, *CONFIGURED)[1]) == inherent


# -- exit codes


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ([HEALTHY], 0),
        ([UNHEALTHY, "--fail-on", "high"], 1),
        ([UNHEALTHY, "--fail-on", "critical"], 0),
        ([HEALTHY, "--fail-on", "medium", "-c", "k8s-service-allowed-ports"], 0),  # unset parameters trip no gate
        ([HEALTHY, "missing.yaml"], 3),
        ([HEALTHY, "missing.yaml", "--allow-incomplete"], 0),
        ([HEALTHY, "missing.yaml", "--min-coverage", "60%"], 0),
        ([HEALTHY, "missing.yaml", "--min-coverage", "70%"], 3),
        ([UNHEALTHY, "missing.yaml", "--fail-on", "high"], 1),  # a failed gate outranks an incomplete scan
        (["missing.yaml"], 4),
        (["missing.yaml", "--allow-incomplete"], 4),
    ],
)
def test_exit_code(args, code):
    assert scan(*args)[0] == code


USAGE = {
    "check": (["-c", "k8s-privileged-contaner"], "did you mean k8s-privileged-container?"),
    "glob": (["-c", "nothing-*"], "no check matches"),
    "profile": (["--profile", "defnder"], "did you mean defender?"),
    "param": (["--param", "k8s-container-limits.cpu_limt=1"], "did you mean cpu_limit?"),
    "param form": (["--param", "cpu"], "is not CHECK.NAME=VALUE"),
    "quantity": (["--param", "k8s-container-limits.cpu_limit=lots"], "cpu_limit"),
    "port": (["--param", "k8s-service-allowed-ports.allowed_ports=80,http"], "'http'"),
    "regex": (["--param", "k8s-trusted-registries.allowed_images_regex=("], "allowed_images_regex"),
    "status": (["--status", "fial"], "did you mean fail?"),
    "output": (["-o", "jsn=x"], "did you mean json?"),
    "output path": (["-o", "json=no/such/folder/x.json"], "cannot be written"),
    "two outputs": (["-o", "table"], "only one output"),
    "ref": (["--ref", "cis-xyz"], "no check refers to"),
    "coverage": (["--min-coverage", "most"], "not a percentage"),
    "host path": (["--param", 'k8s-hostpath-volumes.allowed_host_paths=[{path_prefix: ""}]'], "path_prefix"),
    "kind": (["--param", "k8s-default-namespace.kinds=workload"], "kinds"),
    "nothing left": (["-c", "k8s-run-as-root", "-e", "k8s-*"], "no check is selected"),
    "value": (["--param", "k8s-default-namespace.kinds=[Secret"], "--param kinds: did not find expected"),
    "choice": (["--param", "k8s-https-only.unknown_controllers=fail"], "pass or require_tls"),
    "select always": (["-c", "k8s-invalid-object"], "k8s-invalid-object is always on"),
    "select always by glob": (["-c", "k8s-invalid-*"], "is always on"),
    "leave out always": (["-e", "k8s-invalid-object"], "k8s-invalid-object is always on"),
    "param of always": (["--param", "k8s-invalid-object.x=1"], "has no parameter 'x'; it has none"),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage_error_is_one_sentence(case):
    args, message = USAGE[case]
    code, report, stderr = scan(HEALTHY, *args)
    assert (code, report) == (2, None)
    assert message in stderr
    assert stderr.count("\n") == 1


BAD_CONFIGS = {
    "key": ("parametrs: {}", "did you mean parameters?"),
    "check": ("checks: {disable: [k8s-run-as-rot]}", "did you mean k8s-run-as-root?"),
    "parameter": ("parameters: {k8s-container-limits: {cpu: 1}}", "has no parameter 'cpu'"),
    "exemption": ("exemptions: [{checks: [k8s-run-as-rot], reason: x}]", "did you mean k8s-run-as-root?"),
    "exemption key": (
        "exemptions: [{checks: [k8s-run-as-root], reason: x, expire: 2030-01-01}]",
        "did you mean expires?",
    ),
    "no reason": ("exemptions: [{checks: [k8s-run-as-root]}]", "reason"),
    "exemption place": ("exemptions: [{checks: [k8s-run-as-root], reason: x, resources: {namspace: a}}]", "namespace?"),
    "severity": ("checks: {severity: {k8s-run-as-root: huge}}", "huge"),
    "severity of": ("checks: {severity: {k8s-run-as-rot: low}}", "did you mean k8s-run-as-root?"),
    "enable always": ("checks: {enable: [k8s-invalid-object]}", "k8s-invalid-object is always on"),
    "disable always": ("checks: {disable: [k8s-invalid-object]}", "k8s-invalid-object is always on"),
    "weigh always": ("checks: {severity: {k8s-invalid-object: low}}", "k8s-invalid-object is always on"),
    "operator": (
        "parameters: {k8s-run-as-root: {label_selector: {matchExpressions: [{key: a, operator: Is}]}}}",
        "Invalid enum value 'Is'",
    ),
    "yaml": ("a: [", "not valid YAML"),
    "nesting": ("[" * 100_000, "not valid YAML: more than 100 levels"),
    "type": ("- a list", "kubeposture.yaml"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_configuration_is_one_sentence(case):
    text, message = BAD_CONFIGS[case]
    code, report, stderr = scan(HEALTHY, config=text)
    assert (code, report) == (2, None)
    assert message in stderr
    assert stderr.count("\n") == 1


def test_namespace_that_is_asked_for_and_left_out_is_refused():
    result = kubeposture("scan", "kubeconfig", "-n", "a", "--exclude-namespace", "?")
    assert (result.code, result.stdout) == (2, "")
    assert "'a' is both asked for and left out" in result.stderr


@pytest.mark.parametrize("where", ["kubeposture.yaml", "--config", "--kubeconfig", "--param"])
def test_nesting_cannot_crash_the_parser(folder, where):
    deep = "[" * 50_000
    (folder / ("kubeposture.yaml" if where == "kubeposture.yaml" else "deep.yaml")).write_text(deep)
    given = {
        "kubeposture.yaml": ["scan", "manifests", HEALTHY],
        "--config": ["scan", "manifests", HEALTHY, "--config", "deep.yaml"],
        "--kubeconfig": ["scan", "kubeconfig", "--kubeconfig", "deep.yaml"],
        "--param": ["scan", "manifests", HEALTHY, "--param", "k8s-run-as-root.label_selector=" + deep],
    }[where]
    result = process(*given)
    assert result.code == 2
    assert "levels of nesting" in result.stderr


@pytest.mark.parametrize("command", ["scan manifests", "scan kubeconfig", "collect kubeconfig", "evaluate"])
def test_help_on_a_terminal_without_unicode(command):
    result = process(*command.split(), "--help", PYTHONIOENCODING="ascii")
    assert (result.code, result.stderr) == (0, "")


# -- configuration


def test_later_sources_of_a_parameter_win():
    config = "profile: defender-2021\nparameters: {k8s-container-limits: {cpu_limit: 2}}\n"
    _, report, _ = scan(
        *(HEALTHY, "--status", "all", "-c", "k8s-container-limits"),
        *("--param", "k8s-container-limits.memory_limit=1Gi"),
        config=config,
    )
    (finding,) = report["findings"]
    shown = {p["name"]: (p["value"], p["origin"]) for p in finding["parameters"]}
    assert shown["cpu_limit"] == ("2", "config")
    assert shown["memory_limit"] == ("1Gi", "command line")
    assert shown["azure_rules"] == ("true", "profile")
    assert shown["apply_limit_ranges"] == ("not set", "default")
    assert finding["status"] == "pass"


SYSTEM_POD = """
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: kube-system}
spec: {containers: [{name: c, image: x, securityContext: {privileged: true}}]}
"""
LEFT_OUT = "parameters: {k8s-privileged-container: {excluded_namespaces: [kube-system]}}"
INCLUDE = "--include-system-namespaces"


@pytest.mark.parametrize(
    ("args", "config", "status"),
    [
        ([], "", "not_applicable"),
        ([INCLUDE], "", "fail"),
        ([INCLUDE], "profile: defender", "fail"),
        ([], LEFT_OUT, "not_applicable"),
        ([INCLUDE], LEFT_OUT, "fail"),  # the command line outranks the file
        # what names one check says more than what speaks of all
        (
            [INCLUDE, "--param", "k8s-privileged-container.excluded_namespaces=kube-system"],
            "",
            "not_applicable",
        ),
    ],
)
def test_system_namespaces_can_be_judged(args, config, status):
    Path("a.yaml").write_text(SYSTEM_POD)
    _, report, _ = scan("a.yaml", "-c", "k8s-privileged-container", "--status", "all", *args, config=config)
    (finding,) = report["findings"]
    assert finding["status"] == status
    shown = [(p["value"], p["origin"]) for p in finding["parameters"] if p["name"] == "excluded_namespaces"]
    if status == "fail":
        assert shown == [("[]", "command line")]


def test_what_cannot_be_read_is_reported_whatever_is_selected():
    Path("a.yaml").write_text(SYSTEM_POD.replace("[{name", "{name").replace("}}]", "}}"))
    for args in (["-e", "k8s-[!r]*"], ["-c", "k8s-run-*"], ["--min-severity", "high"], ["--ref", "pss"]):
        _, report, _ = scan("a.yaml", *args)
        assert [(f["check"], f["status"]) for f in report["findings"]] == [("k8s-invalid-object", "error")]
    for pattern in ("k8s-invalid-object", "k8s-*"):
        _, report, _ = scan("a.yaml", config=exempt(checks=[pattern]))
        assert report["summary"]["exempted"] == 1


def test_named_check_is_switched_on_and_a_glob_does_not():
    _, named, _ = scan(HEALTHY, "-c", "k8s-container-allowed-ports")
    _, glob, _ = scan(HEALTHY, "-c", "k8s-container-*")
    assert list(named["summary"]["by_check"]) == ["k8s-container-allowed-ports"]
    assert list(glob["summary"]["by_check"]) == ["k8s-container-limits"]


def test_selection_by_framework_and_severity():
    _, report, _ = scan(HEALTHY, "--ref", "cis-aks-1.8", "--min-severity", "high")
    assert list(report["summary"]["by_check"]) == [
        "k8s-automount-api-credentials",
        "k8s-https-only",
        "k8s-trusted-registries",
    ]


def test_severity_can_be_raised():
    _, report, _ = scan(UNHEALTHY, config="checks: {severity: {k8s-privileged-container: critical}}")
    (finding,) = [f for f in report["findings"] if f["check"] == "k8s-privileged-container"]
    assert finding["severity"] == "critical"
    assert report["findings"][0] == finding


def exempt(**fields):
    entry = {"checks": ["k8s-run-as-root"], "reason": "vendor image", "owner": "platform", **fields}
    return json.dumps({"exemptions": [entry]})


@pytest.mark.parametrize(
    ("fields", "applies"),
    [
        ({}, True),
        ({"checks": ["k8s-run-*"]}, True),
        ({"resources": {"namespace": "default", "kind": "Deployment", "name": "redis-*", "container": "redis"}}, True),
        ({"resources": {"labels": {"app": "redis"}}}, True),
        ({"resources": {"labels": {"app": "other"}}}, False),
        ({"resources": {"namespace": "other"}}, False),
        ({"resources": {"container": "other"}}, False),
        ({"resources": {"cluster": "prod-*"}}, False),
        ({"expires": "2999-12-31"}, True),
        ({"expires": "2020-01-01"}, False),
    ],
)
def test_exemption(fields, applies):
    code, report, _ = scan(UNHEALTHY, "-c", "k8s-run-as-root", "--fail-on", "low", config=exempt(**fields))
    (finding,) = report["findings"]
    assert finding["status"] == "fail"
    assert code == (0 if applies else 1)
    assert report["summary"]["exempted"] == int(applies)
    assert report["summary"]["by_status"]["fail"] == int(not applies)
    if applies:
        expires = fields.get("expires")
        assert finding["exemption"] == {"reason": "vendor image", "owner": "platform", "expires": expires}
        assert report["scan"]["warnings"] == []
    else:
        assert finding["exemption"] is None
        (warning,) = report["scan"]["warnings"]
        assert ("expired" if "expires" in fields else "matches no finding") in warning


def test_unanchored_pattern_is_warned_of():
    _, report, _ = scan(HEALTHY, "--param", "k8s-trusted-registries.allowed_images_regex=azurecr.io")
    (warning,) = report["scan"]["warnings"]
    assert warning.startswith("k8s-trusted-registries.allowed_images_regex is not anchored")


def test_pattern_of_a_check_that_does_not_run_is_not_warned_of():
    pattern = "k8s-trusted-registries.allowed_images_regex=azurecr.io"
    assert scan(HEALTHY, "-e", "k8s-trusted-*", "--param", pattern)[1]["scan"]["warnings"] == []


@pytest.mark.parametrize("id", ["k8s-trusted-registries", "k8s-service-allowed-ports"])
def test_what_must_be_configured_is_named(id):
    wanted = json.loads(kubeposture("checks", "show", id, "-o", "json").stdout)["required"]
    (finding,) = scan(HEALTHY, "-c", id)[1]["findings"]
    assert finding["message"].startswith(f"parameter {' or '.join(wanted)} is not set: ")
    assert f"to allow these: --param {id}.{wanted[-1]}=" in finding["message"]


@pytest.mark.parametrize("value", ["Secret,Service", "[Secret, Service]", "Service, Secret,"])
def test_list_on_the_command_line(value):
    _, report, _ = scan(HEALTHY, "-c", "k8s-default-namespace", "--param", f"k8s-default-namespace.kinds={value}")
    assert fails(report) == [("k8s-default-namespace", "Service")]


def test_catastrophic_pattern_is_harmless():
    pattern = "k8s-trusted-registries.allowed_images_regex=^(a+)+$"
    text = HEALTHY.read_text().replace("<customer-registry>.azurecr.io/redis:latest", "a" * 5000 + "!")
    Path("a.yaml").write_text(text)
    assert scan("a.yaml", "--param", pattern)[0] == 0


# -- outputs


def test_several_outputs_at_once(folder):
    result = kubeposture("scan", "manifests", UNHEALTHY, "-o", "table", "-o", "json=r.json", "-o", "ndjson=r.ndjson")
    report = json.loads((folder / "r.json").read_bytes())
    lines = [json.loads(line) for line in (folder / "r.ndjson").read_text().splitlines()]
    assert sorted(f["id"] for f in lines) == sorted(f["id"] for f in report["findings"])
    assert "Privileged containers should be avoided" in result.stdout
    assert sorted(p.name for p in folder.iterdir()) == ["r.json", "r.ndjson"]


def test_findings_are_sorted_and_the_order_is_stable():
    ids = [[f["id"] for f in scan(UNHEALTHY, HEALTHY)[1]["findings"]] for _ in range(2)]
    assert ids[0] == ids[1]
    ranks = [f["severity"] for f in scan(UNHEALTHY)[1]["findings"]]
    assert ranks == sorted(ranks, key=["critical", "high", "medium", "low", "info"].index)


def test_table_fits_100_columns_and_shows_no_control_characters(folder):
    name = "x" * 300 + "\\u001b[31m\\r\\u202e"
    text = f'{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"[bold]"}},'
    text += '"spec":{"containers":[{"name":"[red]a","image":"b\\u0007","securityContext":{"privileged":true}}]}}'
    (folder / "a.json").write_text(text)
    out = kubeposture("scan", "manifests", "a.json", UNHEALTHY).stdout
    assert max(map(len, out.splitlines())) <= 100
    assert not {c for c in out if not c.isprintable() and c != "\n"}
    assert "[red]a" in out


def test_reader_of_a_pipe_may_stop(folder):
    command = f"{sys.executable} -m scanner scan manifests {UNHEALTHY} -o ndjson | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


SDKS = {"kubernetes", "boto3", "botocore", "azure.identity", "azure.core", "azure.mgmt", "google", "urllib3", "httpx"}
HEAVY = {
    "ssl",
    "gzip",
    "concurrent.futures",
    "providers.files",
    "scanner.bundle",
    "scanner.collect",
    "scanner.cli.judge",
}


@pytest.mark.parametrize(
    ("args", "unwanted"),
    [
        (["--help"], {*SDKS, *HEAVY, "scanner.engine"}),
        (["scan", "aks", "--help"], {*SDKS, *HEAVY, "scanner.engine"}),
        (["checks", "list"], {*SDKS, *HEAVY, "rich.console"}),
        (["checks", "list", "-o", "json"], {*SDKS, *HEAVY, "rich.console"}),
        (["checks", "show", "k8s-run-as-root"], {*SDKS, *HEAVY, "rich.console"}),
    ],
)
def test_start_loads_only_what_it_needs(args, unwanted):
    code = (
        "import sys\nfrom scanner.__main__ import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout
    assert unwanted & set(done.stderr.splitlines()) == set()


def test_help_shows_defaults(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = kubeposture("scan", "kubeconfig", "--help").stdout
    assert [line.split("[default: ")[1].split("]")[0] for line in out.splitlines() if "[default: " in line] == [
        *("600", "30", "text"),
    ]


def test_foreign_package_named_checks_gets_one_sentence(folder):
    (folder / "checks").mkdir()
    (folder / "checks/__init__.py").write_text("")
    result = process("--help", PYTHONPATH=str(folder))
    assert result.code == 1
    assert "another package is named 'checks'" in result.stderr


def test_bug_exits_70_without_a_traceback(folder):
    (folder / "sitecustomize.py").write_text(
        "import scanner.cli.scan as s\ndef boom(*a, **k): raise RuntimeError('token=hunter2')\ns.judge_tasks = boom\n"
    )
    result = process("scan", "manifests", str(HEALTHY), PYTHONPATH=f"{folder}:{ROOT}")
    assert result.code == 70
    assert "internal error: RuntimeError" in result.stderr
    assert "hunter2" not in result.stderr


# -- bundles


def test_bundle_gives_the_same_report_as_the_scan(folder):
    kubeposture("collect", "manifests", UNHEALTHY, HEALTHY, "-o", "b.bundle")
    judged = json.loads(kubeposture("evaluate", "b.bundle", "-o", "json", "--status", "all").stdout)
    _, scanned, _ = scan(UNHEALTHY, HEALTHY, "--status", "all")
    VALID.validate(judged)

    def essence(report):
        keep = ("id", "status", "message", "evidence", "severity", "occurrences")
        return [{k: f[k] for k in keep} for f in report["findings"]]

    assert essence(judged) == essence(scanned)
    assert judged["summary"] == scanned["summary"]


def test_manifests_are_collected_for_every_check(folder):
    (folder / "a.yaml").write_text("{apiVersion: v1, kind: Secret, metadata: {name: s}}")
    kubeposture("collect", "manifests", "a.yaml", "-o", "b.bundle")
    kinds = "k8s-default-namespace.kinds=Secret"  # which no check reads by default
    result = kubeposture("evaluate", "b.bundle", "-o", "json", "-c", "k8s-default-namespace", "--param", kinds)
    (finding,) = json.loads(result.stdout)["findings"]
    assert (finding["status"], finding["resource"]["kind"]) == ("fail", "Secret")
    refused = kubeposture("collect", "manifests", "a.yaml", "-o", "b.bundle", "-c", "k8s-run-as-root")
    assert (refused.code, "No such option: -c" in refused.stderr) == (2, True)


@pytest.mark.parametrize("content", [b"", b"hello", b'{"format":"other"}', b"\x1f\x8b broken"])
def test_what_is_no_bundle_is_refused(folder, content):
    (folder / "b.bundle").write_bytes(content)
    result = kubeposture("evaluate", "b.bundle")
    assert result.code == 4
    assert "b.bundle" in result.stdout


# -- packaging


def test_wheel_holds_exactly_the_three_packages(folder):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info/" not in n} == {"scanner", "providers", "checks"}
    assert "scanner/report/schemas/report-1.schema.json" in names
    assert any(n.startswith("scanner/demo/") for n in names)
