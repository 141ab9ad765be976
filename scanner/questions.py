"""The questions that checks of several clouds answer, each by one criterion: what the matrix lays side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Question(NamedTuple):
    """`absent` says of a cloud that has no check of it why: no such setting, or none that its API tells."""

    title: str
    criterion: str
    absent: Mapping[str, str] = {}


QUESTIONS: dict[str, Question] = {
    "api-exposure": Question("Private API server", "The API server has no public IP address."),
    "authorized-networks": Question("Authorized networks", "Not every IP address can reach the API server."),
    "access": Question(
        "RBAC, no local accounts",
        "Identities of the cloud and RBAC decide on access; no shared credential gets past them.",
    ),
    "audit-logs": Question(
        "Cluster logs",
        "The cloud's log service keeps the logs of the cluster's system, the control plane's where that is a choice.",
    ),
    "secret-encryption": Question("Secrets encrypted", "Secrets in etcd are encrypted with a key of a key service."),
    "network-policy": Question("Network policy", "An engine in the cluster enforces NetworkPolicy objects."),
    "private-nodes": Question("Private nodes", "No node has a public address, nor a subnet that gives it one."),
    "node-identity": Question(
        "Node identity",
        "Nodes have an identity of their own: no stored secret, not the project's default one.",
        {"aws": "nodes always have a role of their own; what it may do is not judged"},
    ),
    "auto-upgrade": Question(
        "Automatic upgrades",
        "The cloud upgrades Kubernetes without being asked.",
        {"aws": "EKS upgrades by itself only when support of a version ends"},
    ),
    "auto-repair": Question(
        "Automatic repair",
        "The cloud replaces nodes that fail.",
        {"azure": "AKS always repairs nodes"},
    ),
    "supported-version": Question(
        "Supported version",
        "The cloud still supports the Kubernetes version that runs.",
        {"gcp": "GKE upgrades control planes before support ends, whoever is asked"},
    ),
    "workload-identity": Question(
        "Workload identity",
        "Pods can have identities of the cloud without stored keys.",
        {"aws": "every cluster has an issuer for its pods' identities"},
    ),
    "metadata-protection": Question(
        "Metadata protection",
        "Pods cannot get the node's token from the metadata server.",
        {
            "azure": "AKS has no setting for that which is generally available",
            "aws": "launch templates set it, which EKS does not show",
        },
    ),
    "image-scanning": Question("Image scanning", "Registries of the account have images scanned without being asked."),
    "deletion-protection": Question(
        "Deletion protection",
        "One call cannot delete the cluster.",
        {"azure": "locks of the resource group do that, which are not read", "gcp": "GKE's API has no such setting"},
    ),
    "threat-detection": Question(
        "Threat detection", "A service of the cloud watches this very cluster for attacks and weaknesses."
    ),
}
