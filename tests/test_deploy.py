"""What is deployed, held against the code: the image, the manifests, the systemd units, and docs/nightly.md."""

import configparser
import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

import kubernetes_validate
import pytest
import typer
import yaml
from apiserver import ApiServer, tls
from cli import kubeposture
from registryserver import Server
from sinkserver import Collector, Token
from typer.core import TyperGroup

import scanner
from providers.kubernetes import kubeconfig
from scanner import cli, config

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())
RESOURCES = [
    resource
    for name in KUSTOMIZATION["resources"]
    for resource in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text())
]
BY_KIND = {resource["kind"]: resource for resource in RESOURCES}
JOB = BY_KIND["CronJob"]["spec"]["jobTemplate"]["spec"]
POD = JOB["template"]["spec"]
[CONTAINER] = POD["containers"]
VERSIONS = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]

DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
INSTRUCTIONS = [line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if line and line[0] not in "# "]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

NIGHTLY = (ROOT / "docs/nightly.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", NIGHTLY, re.DOTALL)
README = (ROOT / "README.md").read_text()
CONFIG, HISTORY = "/etc/kubeposture/kubeposture.yaml", "/var/lib/kubeposture/history.db"
COMMAND = ["scan", "all", "--config", CONFIG, "--history", HISTORY, "--deliver"]
STATE = str(PurePosixPath(HISTORY).parent)


def unit(name):
    """A unit file; of a key that is repeated, the last value."""
    parser = configparser.RawConfigParser(strict=False, delimiters="=", comment_prefixes="#")
    parser.optionxform = str
    parser.read(DEPLOY / "systemd" / name)
    return parser


SERVICE, TIMER = unit("kubeposture.service"), unit("kubeposture.timer")


# ---------------------------------------------------------------------------------------------------------------------
# The command


def commands():
    """What is run of kubeposture anywhere, as words after its name."""
    text = "\n".join(text for _, text in BLOCKS).replace("\\\n", "")
    shown = re.findall(r"^(?:docker run .* registry\.example\.com/)?kubeposture(?::[\d.]+)? +(.*)$", text, re.MULTILINE)
    words = [shlex.split(line, comments=True) for line in shown]
    return [CONTAINER["args"], shlex.split(SERVICE["Service"]["ExecStart"])[1:], *words]


def test_the_same_is_run_everywhere():
    assert [words for words in commands() if words[0] == "scan"] == [COMMAND] * 4


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_are_understood(words):
    command = typer.main.get_command(cli.app)
    while isinstance(command, TyperGroup):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("kubeposture", words)


def test_the_config_is_understood_and_its_sinks_have_their_secrets(tmp_path):
    (tmp_path / "kubeposture.yaml").write_text(BY_KIND["ConfigMap"]["data"]["kubeposture.yaml"])
    loaded = config.load(tmp_path / "kubeposture.yaml")
    assert [target.kubeconfig for target in loaded.targets] == [config.KubeconfigTarget()]
    [sink] = loaded.sinks
    assert PurePosixPath(sink.settings.token_file).parent == PurePosixPath(mounts()["sinks"]["mountPath"])
    [secret] = [volume["secret"] for volume in POD["volumes"] if "secret" in volume]
    name = PurePosixPath(sink.settings.token_file).name
    assert f"create secret generic {secret['secretName']} --from-file={name}\n" in NIGHTLY


# ---------------------------------------------------------------------------------------------------------------------
# Kubernetes


def mounts():
    return {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}


def test_every_manifest_is_listed_once():
    files = {path.name for path in (DEPLOY / "kubernetes").iterdir()} - {"kustomization.yaml"}
    assert sorted(KUSTOMIZATION["resources"]) == sorted(files)
    assert len(BY_KIND) == len(RESOURCES)


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(version):
    assert [kubernetes_validate.validate(resource, version, strict=True) for resource in RESOURCES] == [version] * 8


def test_what_is_valid_is_looked_at_closely():
    broken = json.loads(json.dumps(BY_KIND["CronJob"]))
    broken["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privilegd"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="privilegd"):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_the_role_is_the_one_of_the_readme_and_reads_no_secrets():
    [shown] = [
        yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "ClusterRole" in text
    ]
    role = BY_KIND["ClusterRole"]
    assert role["rules"] == shown["rules"]
    verbs, resources = ({value for rule in role["rules"] for value in rule[key]} for key in ("verbs", "resources"))
    assert verbs == {"get", "list"}
    assert not {"secrets", "*"} & resources


def test_names_lead_to_each_other():
    [namespace] = {resource["metadata"].get("namespace", "kubeposture") for resource in RESOURCES}
    assert namespace == BY_KIND["Namespace"]["metadata"]["name"]
    binding = BY_KIND["ClusterRoleBinding"]
    account = BY_KIND["ServiceAccount"]["metadata"]["name"]
    assert binding["roleRef"]["name"] == BY_KIND["ClusterRole"]["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert POD["serviceAccountName"] == account
    assert volumes["config"]["configMap"]["name"] == BY_KIND["ConfigMap"]["metadata"]["name"]
    assert (
        volumes["state"]["persistentVolumeClaim"]["claimName"] == BY_KIND["PersistentVolumeClaim"]["metadata"]["name"]
    )
    assert sorted(volumes) == sorted(mounts())


def test_only_the_state_and_temporary_files_can_be_written():
    writable = {mount["mountPath"] for mount in CONTAINER["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {STATE, "/tmp"}
    assert str(PurePosixPath(CONFIG).parent) == mounts()["config"]["mountPath"]
    assert BY_KIND["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_the_token_is_mounted_where_it_is_looked_for_and_nowhere_else():
    assert POD["automountServiceAccountToken"] is BY_KIND["ServiceAccount"]["automountServiceAccountToken"] is False
    assert mounts()["token"]["mountPath"] == str(kubeconfig.SERVICE_ACCOUNT)
    [volume] = [volume["projected"] for volume in POD["volumes"] if volume["name"] == "token"]
    token, ca, namespace = volume["sources"]
    assert token["serviceAccountToken"]["path"] == "token"
    assert [item["path"] for item in (*ca["configMap"]["items"], *namespace["downwardAPI"]["items"])] == [
        "ca.crt",
        "namespace",
    ]


@pytest.mark.parametrize(
    ("selected", "told"),
    [
        ((), "k8s-automount-api-credentials"),
        (("--ref", "pss:restricted"), "k8s-run-as-root"),
        (("--ref", "pss:baseline"), "k8s-privileged-container"),
    ],
)
def test_kubeposture_finds_nothing_in_its_own_manifests(selected, told):
    registry = CONTAINER["image"].partition("/")[0]
    trusted = f"k8s-trusted-registries.allowed_registries={registry}"
    result = kubeposture(
        *("scan", "manifests", DEPLOY / "kubernetes", "--param", trusted, "--status", "all", "-o", "json", *selected)
    )
    findings = json.loads(result.stdout)["findings"]
    assert result.code == 0, result.stderr
    assert {finding["status"] for finding in findings} <= {"pass", "not_applicable"}
    assert told in {finding["check"] for finding in findings if finding["status"] == "pass"}
    assert BY_KIND["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_cluster_that_it_runs_in_is_read(tmp_path, monkeypatch):
    """With the shipped configuration, the mounted token, and its history."""
    system = {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": "u-1"}}
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path)
    (tmp_path / "kubeposture.yaml").write_text(BY_KIND["ConfigMap"]["data"]["kubeposture.yaml"])
    with ApiServer([system, BY_KIND["CronJob"]], tls=tls(), token="bound") as api:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
        (tmp_path / "ca.crt").write_bytes(api.tls.ca)
        (tmp_path / "token").write_text("bound")
        args = ["scan", "all", "--config", tmp_path / "kubeposture.yaml", "--history", tmp_path / "history.db"]
        result = kubeposture(*args, "-o", "json", "--status", "all")
    report = json.loads(result.stdout)
    assert [(cluster["id"], cluster["data_plane"]) for cluster in report["clusters"]] == [("u-1", "complete")]
    assert report["changes"] is not None
    passed = {f["check"] for f in report["findings"] if f["status"] == "pass" and f["resource"]["kind"] == "CronJob"}
    assert "k8s-automount-api-credentials" in passed


class Nights:
    """The CronJob's own command, each night in new directories but for the one volume that it keeps."""

    def __init__(self, path, monkeypatch, collector_url):
        self.path, self.monkeypatch, self.night = path, monkeypatch, 0
        pod = BY_KIND["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        [container] = pod["containers"]
        claims = {v["name"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        self.args = container["args"]
        self.kept, self.fresh = (
            {mounts[name] for name in mounts if (name in claims) is is_kept} for is_kept in (True, False)
        )
        text = BY_KIND["ConfigMap"]["data"]["kubeposture.yaml"]
        self.config = text.replace("https://splunk.example.com:8088", collector_url)

    def run(self, api):
        self.night += 1
        here = self.path / f"night-{self.night}"
        places = {place: here / place.strip("/").replace("/", "-") for place in self.fresh}
        places |= dict.fromkeys(self.kept, self.path / "volume")
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
        token = places["/var/run/secrets/kubernetes.io/serviceaccount"]
        (token / "ca.crt").write_bytes(api.tls.ca)
        (token / "token").write_text("bound")
        (places["/run/secrets/kubeposture"] / "splunk-token").write_text("hec")
        (places["/etc/kubeposture"] / "kubeposture.yaml").write_text(self._moved(self.config, places))
        (here / "home").mkdir()
        self.monkeypatch.chdir(here / "home")
        self.monkeypatch.setenv("HOME", str(here / "home"))
        self.monkeypatch.setenv("TMPDIR", str(places["/tmp"]))
        self.monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", token)
        return kubeposture(*(self._moved(arg, places) for arg in self.args))

    @staticmethod
    def _moved(text, places):
        return re.sub("|".join(f"{place}/" for place in places), lambda found: f"{places[found[0][:-1]]}/", text)


def test_the_second_night_has_nothing_to_tell(tmp_path, monkeypatch):
    bad = {"containers": [{"name": "c", "image": "nginx", "securityContext": {"privileged": True}}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad", "namespace": "a", "uid": "u-2"}, "spec": bad}
    spaces = [{"kind": "Namespace", "metadata": {"name": name, "uid": f"u-{name}"}} for name in ("kube-system", "a")]
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    collector = Collector({"hec": Token()})
    with Server(collector) as splunk, ApiServer([*spaces, pod], tls=tls(), token="bound") as api:
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
        nights = Nights(tmp_path, monkeypatch, splunk.url)
        first = nights.run(api)
        assert first.code == 0, first.stderr
        events = [e["event"] for e in collector.events]
        assert Counter(e["activity_name"] for e in events if e["class_uid"] == 2003).keys() == {"Create"}
        assert "k8s-privileged-container" in {e["metadata"]["event_code"] for e in events}
        collector.events.clear()
        second = nights.run(api)
    assert second.code == 0, second.stderr
    assert [e["event"]["metadata"]["event_code"] for e in collector.events] == ["coverage-cluster", "scan"]
    assert {path.name for path in (tmp_path / "volume").iterdir()} == {"history.db", "history.db-lock"}
    assert not list(tmp_path.glob("night-*/home/*")) + list(tmp_path.glob("night-*/tmp/*"))


# ---------------------------------------------------------------------------------------------------------------------
# The image


def copied():
    """What the Dockerfile takes from the repository, as paths in it."""
    sources = [rest.split()[:-1] for word, rest in INSTRUCTIONS if word == "COPY" and "--from" not in rest]
    return [path for paths in sources for path in paths]


def let_in(path):
    """Whether .dockerignore lets a path through: the last pattern that matches it, or what it is in, decides."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    ignored = False
    for pattern in patterns:
        if any(fnmatch.fnmatch(str(part), pattern.lstrip("!")) for part in (path, *list(path.parents)[:-1])):
            ignored = not pattern.startswith("!")
    return not ignored


def test_the_image_is_built_of_what_reaches_it(tmp_path):
    for path in copied():
        assert let_in(PurePosixPath(path)), path
        at = ROOT / path
        if at.is_dir():
            shutil.copytree(at, tmp_path / at.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(at, tmp_path / at.name)
    assert not [path for path in ("scanner/__pycache__", ".git/config", "deploy") if let_in(PurePosixPath(path))]
    build = ["pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "wheel"), str(tmp_path)]
    assert "pip wheel --no-deps --no-build-isolation" in DOCKERFILE
    subprocess.run([sys.executable, "-m", *build], check=True, capture_output=True)
    [wheel] = (tmp_path / "wheel").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = [path for name in ("checks", "providers", "scanner") for path in (ROOT / name).rglob("*")]
    wanted = {str(path.relative_to(ROOT)) for path in shipped if path.is_file() and "__pycache__" not in path.parts}
    assert wanted <= set(names)


def test_the_image_holds_every_extra():
    [extras] = re.findall(r'"\$1\[([a-z,]+)\]"', DOCKERFILE)
    assert sorted(extras.split(",")) == sorted(PROJECT["optional-dependencies"].keys() - {"dev"})
    assert f"'.[{extras}]'" in NIGHTLY


def test_the_image_runs_as_the_user_that_the_manifests_name():
    last = {word: rest for word, rest in INSTRUCTIONS if word != "RUN"}
    user, group = last["USER"].split(":")
    context = POD["securityContext"]
    assert [int(user), int(group)] == [context["runAsUser"], context["runAsGroup"]]
    assert int(user) > 0
    assert context["runAsGroup"] == context["fsGroup"]
    assert f"install -d -m 0700 -o {user} -g {group} {STATE}" in DOCKERFILE
    assert f"The container is user {user}." in NIGHTLY
    assert json.loads(last["ENTRYPOINT"]) == [SERVICE["Service"]["ExecStart"].split()[0]]


def test_versions_and_names_of_the_image_agree():
    image = CONTAINER["image"]
    assert image == f"registry.example.com/kubeposture:{scanner.__version__}"
    assert f'image.version="{scanner.__version__}"' in DOCKERFILE
    named = set(re.findall(r"registry\.example\.com/kubeposture:[\w.]+", DOCKERFILE + NIGHTLY))
    assert named == {image}
    [overlay] = [block for block in map(yaml.safe_load, yaml_blocks()) if block["kind"] == "Kustomization"]
    assert [(entry["name"], entry["newTag"]) for entry in overlay["images"]] == [tuple(image.split(":"))]
    [generated] = overlay["configMapGenerator"]
    assert (generated["name"], generated["files"]) == ("kubeposture", list(BY_KIND["ConfigMap"]["data"]))


def test_base_images_are_pinned_to_a_version():
    bases = [rest for word, rest in INSTRUCTIONS if word == "ARG"]
    assert [re.fullmatch(r"BASE=python:3\.\d+-slim-\w+", base) is not None for base in bases] == [True]
    assert {rest.split()[0] for word, rest in INSTRUCTIONS if word == "FROM"} == {"${BASE}"}


# ---------------------------------------------------------------------------------------------------------------------
# systemd


def test_the_service_may_write_its_state_and_nothing_else():
    service = SERVICE["Service"]
    assert f"/var/lib/{service['StateDirectory']}" == STATE
    assert service["StateDirectoryMode"] == "0700"
    assert (service["ProtectSystem"], service["ProtectHome"], service["DynamicUser"]) == ("strict", "yes", "yes")
    assert "ReadWritePaths" not in service
    assert service["CapabilityBoundingSet"] == ""
    hardened = ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "RestrictNamespaces", "MemoryDenyWriteExecute")
    assert {service[key] for key in hardened} == {"yes"}
    assert service["EnvironmentFile"] == "-/etc/kubeposture/environment"


def test_the_timer_makes_up_for_a_missed_night():
    timer = TIMER["Timer"]
    assert (timer["Persistent"], TIMER["Install"]["WantedBy"]) == ("true", "timers.target")
    hour, minute = re.fullmatch(r"\*-\*-\* (\d\d):(\d\d):00", timer["OnCalendar"]).groups()
    assert BY_KIND["CronJob"]["spec"]["schedule"] == f"{int(minute)} {int(hour)} * * *"


# ---------------------------------------------------------------------------------------------------------------------
# Exit codes, and the rest of what docs/nightly.md says


def rows(text):
    """The tables of exit codes: by code, the cells beside it."""
    found = re.findall(r"^\| (\d+) \| (.*)\|$", text, re.MULTILINE)
    return {int(code): [cell.strip() for cell in cells.split("|")] for code, cells in found}


def test_exit_codes_mean_the_same_to_jobs_to_units_and_to_readers():
    told = rows(NIGHTLY)
    at_once = [code for code, (_, outcome, _) in told.items() if outcome == "fail at once"]
    assert [code for code, (_, outcome, _) in told.items() if outcome == "succeed"] == [0]
    _, rule = JOB["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailJob", "In")
    assert rule["onExitCodes"]["containerName"] == CONTAINER["name"]
    assert rule["onExitCodes"]["values"] == at_once == [1, 2, 3, 5]
    assert SERVICE["Service"]["RestartPreventExitStatus"].split() == [str(code) for code in at_once]
    assert (SERVICE["Service"]["Restart"], "SuccessExitStatus" in SERVICE["Service"]) == ("on-failure", False)
    assert rows(README).keys() <= told.keys()


def test_a_unit_that_fails_again_and_again_is_given_up_before_the_next_night():
    """systemd counts the starts of an interval: more of them have to fit into it than are allowed."""
    service, unit = SERVICE["Service"], SERVICE["Unit"]
    burst, hours = int(unit["StartLimitBurst"]), int(unit["StartLimitIntervalSec"].removesuffix("h"))
    longest = int(service["TimeoutStartSec"].removesuffix("min")) + int(service["RestartSec"].removesuffix("min"))
    assert (burst - 1) * longest < burst * longest <= hours * 60 < 24 * 60
    assert JOB["activeDeadlineSeconds"] < 24 * 3600
    assert (JOB["backoffLimit"] + 1, JOB["activeDeadlineSeconds"], burst) == (3, 3 * 3600, 5)
    assert "tries three times in three hours, the service five times, 15 minutes apart" in " ".join(NIGHTLY.split())


def yaml_blocks():
    return [text for language, text in BLOCKS if language == "yaml"]


def test_ports_and_policies_that_are_told_are_real():
    policy = BY_KIND["NetworkPolicy"]["spec"]
    ports = [port["port"] for rule in policy["egress"] for port in rule["ports"] if port["protocol"] == "TCP"]
    assert ports == [53, 443, 6443, 8088]
    assert "out to DNS and the ports 443, 6443 and 8088" in " ".join(NIGHTLY.split())
    assert (policy["ingress"], policy["podSelector"]) == ([], {})
    shown = [block for block in map(yaml.safe_load, yaml_blocks()) if block["kind"] == "NetworkPolicy"]
    assert [kubernetes_validate.validate(block, VERSIONS[0], strict=True) for block in shown] == VERSIONS[:1]
    assert shown[0]["metadata"]["namespace"] == BY_KIND["NetworkPolicy"]["metadata"]["namespace"]


def test_what_is_fed_to_systemd_is_a_drop_in_for_the_service():
    [drop_in] = [text for language, text in BLOCKS if language == "ini"]
    name, source = re.fullmatch(r"\[Service\]\nLoadCredential=([\w-]+):(\S+)\n", drop_in).groups()
    assert f"/run/credentials/kubeposture.service/{name}" in NIGHTLY
    assert f"install -m 0600 {name} {source}" in NIGHTLY


def test_paths_in_the_clone_exist():
    text = "\n".join(text for _, text in BLOCKS)
    named = set(re.findall(r"(?<![\w/])(?:\.\./)?((?:deploy|\.ci)/[\w./*]+)", text))
    assert {"deploy/kubernetes", "deploy/systemd/kubeposture.*", ".ci/constraints.txt"} <= named
    assert [path for path in named if not list(ROOT.glob(path))] == []
