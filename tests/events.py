"""Events of real scans of every kind, for what sends them on."""

import itertools
from functools import cache
from pathlib import Path

import pytest
from armserver import ArmServer
from aws_data import sample_estate as aws_estate
from awsserver import AwsServer
from azure_data import sample_estate as azure_estate
from gcp_data import PROD as PROJECT
from gcp_data import sample_estate as google_estate
from gcpserver import GcpServer
from test_ocsf import SEEDS, all_of

CLOSED = {"activity_id": 3, "activity_name": "Close", "status_id": 4, "status": "Resolved"}


@cache
def of_scans(folder: Path):
    """Of AKS, EKS, GKE, registries, files, and what could not be read of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "broken.yaml").write_text("kind: [")
        found = [all_of("demo"), all_of("scan", "manifests", SEEDS, "broken.yaml")]
        with AwsServer(aws_estate(), moto=False) as aws:
            _set(patch, aws.environment)
            aws.deny("guardduty:*")
            found.append(all_of("scan", "eks", "--planes", "control"))
        with ArmServer(azure_estate()) as arm:
            _set(patch, arm.environment)
            arm.deny("/registries")
            found.append(all_of("scan", "aks", "--arm-endpoint", arm.url, "--planes", "control"))
        with GcpServer(google_estate()) as gcp:
            endpoints = " ".join(f"{service}={url}" for service, url in gcp.endpoints.items())
            key = gcp.key_file(folder)
            _set(patch, {"GOOGLE_APPLICATION_CREDENTIALS": key, "KUBEPOSTURE_GCP_ENDPOINTS": endpoints})
            gcp.deny("artifactregistry.repositories.getIamPolicy", PROJECT)
            found.append(all_of("scan", "gke", "--project", PROJECT, "--planes", "control"))
    return list(itertools.chain.from_iterable(report.events for report in found))


def closed(event):
    """What is left of a finding that is gone."""
    kept = {key: value for key, value in event.items() if key not in ("remediation", "unmapped")}
    compliance = {"control": event["compliance"]["control"], "status_id": 1, "status": "Pass", "status_code": "pass"}
    metadata = {**event["metadata"], "uid": event["metadata"]["uid"] + "-closed"}
    return {**kept, **CLOSED, "compliance": compliance, "metadata": metadata}


def _set(patch, variables):
    for name, value in variables.items():
        patch.setenv(name, value)
