"""Every cloud resource that checks may take as their subject."""

from __future__ import annotations

from scanner.aws import AwsRegion, EcrRepository, EksCluster
from scanner.azure import AksCluster, ArcCluster, AzureSubscription, ContainerRegistry, SecurityConnector
from scanner.cloud import CloudResource
from scanner.gcp import ArtifactRepository, GkeCluster

AnyResource = (
    AksCluster
    | ContainerRegistry
    | ArcCluster
    | AzureSubscription
    | SecurityConnector
    | EksCluster
    | EcrRepository
    | AwsRegion
    | GkeCluster
    | ArtifactRepository
)
RESOURCES: tuple[type[CloudResource], ...] = (
    AksCluster,
    ContainerRegistry,
    ArcCluster,
    AzureSubscription,
    SecurityConnector,
    EksCluster,
    EcrRepository,
    AwsRegion,
    GkeCluster,
    ArtifactRepository,
)
# Everything a check may take as its subject, with the plural that names the list it comes from.
SCOPES: dict[type, tuple[str, ...]] = {
    scope: (resource.kind,) for resource in RESOURCES for scope in (resource, *resource.PARTS)
}


_RESOURCE_OF = {scope: resource for resource in RESOURCES for scope in (resource, *resource.PARTS)}


def clusters_of(provider: str) -> tuple[str, ...]:
    """The kinds of a cloud's clusters whose inside is read too."""
    return tuple(resource.kind for resource in RESOURCES if resource.provider == provider and resource.inside)


def resource_of(scope: type) -> type[CloudResource] | None:
    """The resource that a check's subject is or is a part of; None for what lives inside clusters."""
    return _RESOURCE_OF.get(scope)
