"""AWS's resources as checks see them: which of their fields are kept, and what an absent one means there.

Kinds are named as in CloudFormation, Config and Security Hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from scanner import cloud
from scanner.cloud import CloudPart, CloudResource, Facts, Setting, labelled

T = TypeVar("T")


# What Microsoft's template calls the role by which Defender for Containers acts on clusters: today, and earlier.
DEFENDER_ROLES = ("MDCContainersK8sRole", "DefenderForCloud-Containers-K8s")
PIPELINE_ROLES = ("MDCContainersK8sCloudWatchToKinesisRole", "MDCContainersK8sKinesisToS3Role")  # which it passes on
DISCOVERY_ROLE = "MDCContainersAgentlessDiscoveryK8sRole"
TEMPLATE_ROLES = (  # all others of the template for containers
    *PIPELINE_ROLES,
    "MDCContainersK8sDataCollectionRole",
    "MDCContainersImageAssessmentRole",
    DISCOVERY_ROLE,
)


def stated(setting: Setting[T]) -> Setting[T]:
    """The setting; raises MissingEvidence where AWS did not send it and documents no value for that."""
    return cloud.stated(setting, "AWS")


class EksCluster(CloudResource, kw_only=True, tag="eks"):
    """What eks:DescribeCluster says. Beside it, each where a check needs it:

    nodegroups, fargateProfiles and addons, as their Describe calls give them; accessEntries, each with its `policies`;
    clusterVersions of the region; subnets of the cluster, each with the `routes` that hold for it; subscriptionFilters
    of its log group, where Defender has a role; detectors, GuardDuty's of the region; defenderRoles, one entry for each
    name looked for: roleName and exists, of those that do also arn, trustPolicy, policies and boundary; templateRoles,
    the other roles of Defender, and oidcProviders of the account, where it has one of these; connectors, Microsoft's
    that Azure lists; arcClusters, where it is connected to Azure.
    """

    provider = "aws"
    group = "eks"
    kind = "AWS::EKS::Cluster"
    scope_name = "cluster"
    inside = True
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "resourcesVpcConfig.endpointPublicAccess": True,
        "resourcesVpcConfig.publicAccessCidrs": ("0.0.0.0/0",),
    }
    KEEP = (
        "status",
        "version",
        "endpoint",
        "platformVersion",
        "resourcesVpcConfig",
        "kubernetesNetworkConfig.ipFamily",
        "logging",
        "encryptionConfig",
        "accessConfig",
        "upgradePolicy",
        "deletionProtection",
        "connectorConfig.provider",
        "computeConfig.enabled",
    )

    @property
    def unjudged(self) -> str:
        if self.get("connectorConfig") is not None:
            return "connected_cluster"  # it runs elsewhere: EKS only shows it
        return "lifecycle" if self.text("status").equals("CREATING", "DELETING", "FAILED") else ""

    def named(self, what: str, label: str) -> list[Facts]:
        """What was asked for beside it, each under the name that AWS gives it."""
        return list(labelled((item.wire for item in self.listed(what)), what, label))

    def components(self) -> Iterator[EksNodegroup]:
        for group in self.listed("nodegroups"):
            name = group.text("nodegroupName").value
            yield EksNodegroup(wire=group.wire, path=f"nodegroups[{name}]", name=name, owner=self)


class EksNodegroup(CloudPart, kw_only=True):
    """What eks:DescribeNodegroup says."""

    kind = "AWS::EKS::Nodegroup"
    scope_name = "node_pool"


EksCluster.PARTS = (EksNodegroup,)


class EcrRepository(CloudResource, kw_only=True, tag="ecr"):
    """What ecr:DescribeRepositories says. Beside it: policy and lifecyclePolicy, of at most one entry with its parsed
    `document`; scanning, the effective configuration that ecr:BatchGetRepositoryScanningConfiguration gives."""

    provider = "aws"
    group = "ecr"
    kind = "AWS::ECR::Repository"
    scope_name = "repository"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "imageTagMutability": "MUTABLE",
        "encryptionConfiguration.encryptionType": "AES256",
    }
    KEEP = (
        "repositoryUri",
        "imageTagMutability",
        "imageTagMutabilityExclusionFilters",
        "imageScanningConfiguration",
        "encryptionConfiguration",
    )


class AwsRegion(CloudResource, kw_only=True, tag="awsregion"):
    """One region of an account that has clusters or repositories. Beside it: inspector, what is switched on there."""

    provider = "aws"
    group = "account"
    kind = "AWS::Region"
    scope_name = "account"
