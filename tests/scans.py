"""What a scan of a cloud said, from the command line to the report."""

import json

import jsonschema_rs
from cli import kubeposture

from scanner.report import schema

VALID = jsonschema_rs.validator_for(schema.report_schema())


class Scan:
    """A report that keeps to its schema, each finding once, and the exit code beside it."""

    def __init__(self, result):
        assert result.stdout, result.stderr
        self.code, self.error, self.text = result.code, result.stderr, result.stdout
        self.report = json.loads(result.stdout)
        VALID.validate(self.report)
        self.findings = {f["id"]: f for f in self.report["findings"]}
        assert len(self.findings) == len(self.report["findings"])
        self.rows = {c["name"]: c for c in self.report["clusters"]}
        self.gaps = self.report["gaps"]
        assert not [g for g in self.gaps if "internal error" in g["detail"]]

    def row(self):
        [row] = self.report["clusters"]
        return row

    def planes(self):
        return {name: (row["control_plane"], row["data_plane"]) for name, row in self.rows.items()}

    def statuses(self, category=""):
        return {id: f["status"] for id, f in self.findings.items() if category in ("", f["category"])}

    def why(self, cluster):
        """Reasons of what could not be read of one cluster, with a permission that was named."""
        return {(g["reason"], g["permission"]) for g in self.gaps if g["cluster"] == cluster}

    def about(self, cluster):
        return [f for f in self.report["findings"] if f["cluster"] and f["cluster"]["name"] == cluster]

    def verdicts(self, cluster):
        """Of the checks of a cluster that are about the cluster alone."""
        return {f["check"]: f["status"] for f in self.about(cluster) if f["category"] == "control_plane"}

    def expected(self):
        return self.report["coverage"]["clusters"]["expected"]


def scan_kubeconfig(config, *args):
    return Scan(kubeposture("scan", "kubeconfig", "--kubeconfig", config, "--status", "all", "-o", "json", *args))


def evaluate(*bundles):
    """Of bundles, with further options among them."""
    return Scan(kubeposture("evaluate", *bundles, "--status", "all", "-o", "json"))


def collect(path, *args):
    result = kubeposture("collect", *args, "-o", path)
    assert path.exists(), result.stderr
    return path
