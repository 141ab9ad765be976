"""What AWS answers, as boto3 gives it: full-size, under the keys of each service, with the gaps that AWS leaves.

    good = cluster("eks-1", account=PROD, region=SEOUL)                               # no rule complains
    open_ = cluster("eks-2", resourcesVpcConfig={"endpointPublicAccess": ABSENT})     # changes merge; ABSENT removes
    local = cluster("eks-3", endpoint=api.url, certificateAuthority=authority(api.tls.ca))
    whole = eks("eks-4", nodegroups=[nodegroup("a", "eks-4"), bad_nodegroup("b", "eks-4")])  # all that belongs to it
    estate = estate_of(whole, private_cluster("eks-5"))                               # one account, one region
    estate = sample_estate()                                                          # two accounts, for AwsServer

Every function that makes something takes changes by the names of its outermost keys; mappings merge, all else replaces.
Times are `datetime` where boto3 has them, so that what boto3 reads equals what is here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from azure_data import ABSENT, Object, merged

PROD = "123456789012"  # the account that azure_data's connector is for
DEV = "210987654321"
SEOUL, VIRGINIA, HONG_KONG = "ap-northeast-2", "us-east-1", "ap-east-1"
REGIONS = (
    SEOUL,
    VIRGINIA,
    "ap-northeast-1",
    "ap-south-1",
    "ap-southeast-1",
    "ca-central-1",
    "eu-central-1",
    "eu-west-1",
    "sa-east-1",
    "us-west-2",
)
AUDIT_ROLE, EXTERNAL_ID = "KubepostureAudit", "kubeposture-4711"  # how the second account of the sample is reached

# What the answers below hold that no report may show.
ACTIVATION_CODE = "0Zk3qSecretActivationCode"
ADDON_SECRET = "addon-s3cret-Passw0rd"
SECRETS = (ACTIVATION_CODE, ADDON_SECRET)

VERSION, OLD_VERSION, UNSUPPORTED_VERSION = "1.34", "1.31", "1.27"
LOG_TYPES = ("api", "audit", "authenticator", "controllerManager", "scheduler")
ALL_IPV4, ALL_IPV6 = "0.0.0.0/0", "::/0"
_TIME = datetime(2026, 3, 2, 9, 15, 27, tzinfo=UTC)
_MILLIS = int(_TIME.timestamp() * 1000)


def arn(service: str, region: str, account: str, resource: str) -> str:
    return f"arn:{partition(region)}:{service}:{region}:{account}:{resource}"


def iam_arn(account: str, resource: str) -> str:
    return f"arn:aws:iam::{account}:{resource}"


def partition(region: str) -> str:
    return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(region.rsplit("-", 2)[0], "aws")


def digits(*parts: object, length: int = 17) -> str:
    """The same parts always give the same hexadecimal digits."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:length]


def _tags(**tags: str) -> list[Object]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


# ---------------------------------------------------------------------------------------------------------------------
# Clusters


def cluster(name: str, *, account: str = PROD, region: str = SEOUL, **changes: Any) -> Object:
    """A cluster with which no rule finds fault, as DescribeCluster shows it."""
    seed = digits(account, region, name, length=32).upper()
    good: Object = {
        "name": name,
        "arn": arn("eks", region, account, f"cluster/{name}"),
        "createdAt": _TIME.replace(microsecond=577000),
        "version": VERSION,
        "endpoint": f"https://{seed}.gr7.{region}.eks.amazonaws.com",
        "roleArn": iam_arn(account, f"role/eks-cluster-{name}"),
        "resourcesVpcConfig": {
            "subnetIds": subnet_ids(account, region),
            "securityGroupIds": [f"sg-{digits(seed, 'extra')}"],
            "clusterSecurityGroupId": f"sg-{digits(seed, 'cluster')}",
            "vpcId": vpc_id(account, region),
            "endpointPublicAccess": False,
            "endpointPrivateAccess": True,
            "publicAccessCidrs": [ALL_IPV4],  # stays so when the public endpoint is switched off
        },
        "kubernetesNetworkConfig": {
            "serviceIpv4Cidr": "172.20.0.0/16",
            "ipFamily": "ipv4",
            "elasticLoadBalancing": {"enabled": False},
        },
        "logging": logging(*LOG_TYPES),
        "identity": {"oidc": {"issuer": f"https://oidc.eks.{region}.amazonaws.com/id/{seed}"}},
        "status": "ACTIVE",
        "certificateAuthority": authority(_certificate(seed)),
        "platformVersion": "eks.14",
        "tags": {"Environment": "production", "cost-center": "4711", "CreatedBy": "terraform"},
        "encryptionConfig": [
            {"resources": ["secrets"], "provider": {"keyArn": arn("kms", region, account, f"key/{_uuid(seed)}")}}
        ],
        "health": {"issues": []},
        "accessConfig": {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False},
        "upgradePolicy": {"supportType": "STANDARD"},
        "zonalShiftConfig": {"enabled": False},
        "computeConfig": {"enabled": False, "nodePools": []},
        "storageConfig": {"blockStorage": {"enabled": False}},
        "deletionProtection": True,
        "controlPlaneScalingConfig": {"tier": "standard"},
    }
    return merged(good, changes)


def authority(pem: bytes) -> Object:
    """The value of certificateAuthority for this certificate."""
    return {"data": base64.b64encode(pem).decode()}


def logging(*enabled: str, split: bool = False) -> Object:
    """The value of `logging`: EKS has one entry for the types that are enabled and one for the others, or, with
    `split`, one for each type."""
    disabled = [text for text in LOG_TYPES if text not in enabled]
    groups = [[text] for text in LOG_TYPES] if split else [list(enabled), disabled]
    entries = [{"types": types, "enabled": types[0] in enabled} for types in groups if types]
    return {"clusterLogging": entries}


def _certificate(seed: str) -> bytes:
    text = base64.b64encode(hashlib.sha512(seed.encode()).digest() * 12).decode()
    lines = "\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n".encode()


def _uuid(*parts: object) -> str:
    text = digits("uuid", *parts, length=32)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


# ---------------------------------------------------------------------------------------------------------------------
# What belongs to a cluster


def nodegroup(
    name: str, cluster_name: str = "eks", *, account: str = PROD, region: str = SEOUL, **changes: Any
) -> Object:
    """A good one: no SSH, private subnets, Amazon Linux 2023."""
    own = _uuid(account, region, cluster_name, name)
    good: Object = {
        "nodegroupName": name,
        "nodegroupArn": arn("eks", region, account, f"nodegroup/{cluster_name}/{name}/{own}"),
        "clusterName": cluster_name,
        "version": VERSION,
        "releaseVersion": "1.34.2-20260813",
        "createdAt": _TIME,
        "modifiedAt": _TIME,
        "status": "ACTIVE",
        "capacityType": "ON_DEMAND",
        "scalingConfig": {"minSize": 3, "maxSize": 9, "desiredSize": 3},
        "instanceTypes": ["m7i.large"],
        "subnets": subnet_ids(account, region),
        "amiType": "AL2023_x86_64_STANDARD",
        "nodeRole": iam_arn(account, f"role/eks-node-{cluster_name}"),
        "labels": {"example.com/team": "platform"},
        "taints": [],
        "resources": {"autoScalingGroups": [{"name": f"eks-{name}-{own}"}]},
        "diskSize": 50,
        "health": {"issues": []},
        "updateConfig": {"maxUnavailable": 1},
        "nodeRepairConfig": {"enabled": True},
        "tags": {"Environment": "production"},
    }
    return merged(good, changes)


def bad_nodegroup(name: str, cluster_name: str = "eks", **changes: Any) -> Object:
    """SSH from anywhere, a public subnet, an image whose support has ended."""
    place = {key: changes[key] for key in ("account", "region") if key in changes}
    bad = {
        "remoteAccess": {"ec2SshKey": "ops"},
        "subnets": subnet_ids(kind="public", **place),
        "amiType": "AL2_x86_64",
        "releaseVersion": "1.32.9-20251108",
    }
    return nodegroup(name, cluster_name, **(bad | changes))


def fargate_profile(
    name: str, cluster_name: str = "eks", *, account: str = PROD, region: str = SEOUL, **changes: Any
) -> Object:
    own = f"fargateprofile/{cluster_name}/{name}/{_uuid(account, region, cluster_name, name)}"
    good = {
        "fargateProfileName": name,
        "fargateProfileArn": arn("eks", region, account, own),
        "clusterName": cluster_name,
        "createdAt": _TIME,
        "podExecutionRoleArn": iam_arn(account, f"role/eks-fargate-{cluster_name}"),
        "subnets": subnet_ids(account, region),
        "selectors": [{"namespace": name, "labels": {"compute": "fargate"}}],
        "status": "ACTIVE",
        "tags": {},
        "health": {"issues": []},
    }
    return merged(good, changes)


ADDONS = {
    "vpc-cni": "v1.20.4-eksbuild.2",
    "coredns": "v1.12.4-eksbuild.1",
    "kube-proxy": "v1.34.1-eksbuild.2",
    "eks-pod-identity-agent": "v1.3.9-eksbuild.5",
    "aws-guardduty-agent": "v1.11.0-eksbuild.4",
}


def addon(name: str, cluster_name: str = "eks", *, account: str = PROD, region: str = SEOUL, **changes: Any) -> Object:
    """A healthy add-on; vpc-cni has network policies enabled, by a text as the console writes it."""
    own = f"addon/{cluster_name}/{name}/{_uuid(account, region, cluster_name, name)}"
    good: Object = {
        "addonName": name,
        "clusterName": cluster_name,
        "status": "ACTIVE",
        "addonVersion": ADDONS.get(name, "v1.0.0-eksbuild.1"),
        "health": {"issues": []},
        "addonArn": arn("eks", region, account, own),
        "createdAt": _TIME,
        "modifiedAt": _TIME,
        "tags": {},
    }
    if name == "vpc-cni":
        good["configurationValues"] = configuration(enableNetworkPolicy="true")
        good["serviceAccountRoleArn"] = iam_arn(account, f"role/eks-vpc-cni-{cluster_name}")
    return merged(good, changes)


def configuration(**values: Any) -> str:
    """The value of an add-on's configurationValues, with a secret that is nobody's business."""
    return json.dumps(values | {"env": {"UPSTREAM_PASSWORD": ADDON_SECRET}})


def addons(cluster_name: str, **place: Any) -> list[Object]:
    return [addon(name, cluster_name, **place) for name in ADDONS]


def access_entry(
    principal: str, cluster_name: str = "eks", *, account: str = PROD, region: str = SEOUL, **changes: Any
) -> Object:
    """An entry for the role or user of this ARN, or of this name ("role/admin") in the cluster's account."""
    who = principal if principal.startswith("arn:") else iam_arn(account, principal)
    kind, _, name = who.rsplit(":", 1)[1].partition("/")
    owner, short = who.split(":")[4], name.rsplit("/", 1)[-1]
    own = f"access-entry/{cluster_name}/{kind}/{owner}/{short}/{_uuid(cluster_name, who)}"
    session = f"arn:aws:sts::{owner}:assumed-role/{short}/{{{{SessionName}}}}"
    good = {
        "clusterName": cluster_name,
        "principalArn": who,
        "kubernetesGroups": [],
        "accessEntryArn": arn("eks", region, account, own),
        "createdAt": _TIME,
        "modifiedAt": _TIME,
        "tags": {},
        "username": session if kind == "role" else who,
        "type": "STANDARD",
    }
    return merged(good, changes)


def access_policy(name: str = "AmazonEKSViewPolicy", *namespaces: str, **changes: Any) -> Object:
    """What ListAssociatedAccessPolicies shows; without namespaces it is for the whole cluster."""
    good = {
        "policyArn": f"arn:aws:eks::aws:cluster-access-policy/{name}",
        "accessScope": {"type": "namespace" if namespaces else "cluster", "namespaces": list(namespaces)},
        "associatedAt": _TIME,
        "modifiedAt": _TIME,
    }
    return merged(good, changes)


CLUSTER_ADMIN = "AmazonEKSClusterAdminPolicy"
DISCOVERY_ROLE = "MDCContainersAgentlessDiscoveryK8sRole"
_ADMIN = "role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Administrator_0123456789abcdef"


@dataclass
class Eks:
    """A cluster and all that belongs to it; policies are by the ARN of the principal."""

    cluster: Object
    nodegroups: list[Object] = field(default_factory=list)
    fargate_profiles: list[Object] = field(default_factory=list)
    addons: list[Object] = field(default_factory=list)
    access_entries: list[Object] = field(default_factory=list)
    access_policies: dict[str, list[Object]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.cluster["name"])

    def admit(self, principal: str, *policies: Object, **changes: Any) -> None:
        """One more access entry."""
        _, _, _, region, account, _ = self.cluster["arn"].split(":", 5)
        entry = access_entry(principal, self.name, account=account, region=region, **changes)
        self.access_entries.append(entry)
        self.access_policies[entry["principalArn"]] = list(policies)


def eks(
    name: str,
    *,
    account: str = PROD,
    region: str = SEOUL,
    nodegroups: list[Object] | None = None,
    fargate_profiles: list[Object] | None = None,
    addons: list[Object] | None = None,
    **changes: Any,
) -> Eks:
    """A cluster in good order with two node groups, five add-ons and four access entries."""
    place = {"account": account, "region": region}
    whole = Eks(
        cluster(name, **place, **changes),
        [nodegroup(text, name, **place) for text in ("system", "apps")] if nodegroups is None else nodegroups,
        fargate_profiles or [],
        [addon(text, name, **place) for text in ADDONS] if addons is None else addons,
    )
    whole.admit(f"role/eks-node-{name}", type="EC2_LINUX", username="system:node:{{EC2PrivateDNSName}}")
    whole.admit(_ADMIN, access_policy(CLUSTER_ADMIN))
    whole.admit(f"role/{DISCOVERY_ROLE}", access_policy("AmazonEKSViewPolicy"))
    whole.admit("role/developers", access_policy("AmazonEKSEditPolicy", "team-a", "team-b"))
    return whole


# ---------------------------------------------------------------------------------------------------------------------
# Every kind of cluster


def private_cluster(name: str = "eks-private", **place: Any) -> Eks:
    return eks(name, **place)


def restricted_cluster(name: str = "eks-restricted", **place: Any) -> Eks:
    """Public, but only for some addresses; one entry for each type of log; a Fargate profile beside its nodes."""
    network = {"endpointPublicAccess": True, "publicAccessCidrs": ["203.0.113.0/24", "2001:db8:4711::/48"]}
    profiles = [fargate_profile("batch", name, **place)]
    logs = logging(*LOG_TYPES, split=True)
    return eks(name, resourcesVpcConfig=network, logging=logs, fargate_profiles=profiles, **place)


def auto_mode_cluster(name: str = "eks-auto", **place: Any) -> Eks:
    """EKS Auto Mode: no node groups and no add-ons of one's own."""
    role = iam_arn(place.get("account", PROD), "role/eks-auto-node")
    changes = {
        "computeConfig": {"enabled": True, "nodePools": ["general-purpose", "system"], "nodeRoleArn": role},
        "storageConfig": {"blockStorage": {"enabled": True}},
        "kubernetesNetworkConfig": {"elasticLoadBalancing": {"enabled": True}},
    }
    return eks(name, nodegroups=[], addons=[], **changes, **place)


def ipv6_cluster(name: str = "eks-ipv6", **place: Any) -> Eks:
    """Open to the world by IPv6 alone; the audit log is all that it keeps, in one of two entries."""
    network = {"endpointPublicAccess": True, "publicAccessCidrs": ["198.51.100.0/24", ALL_IPV6]}
    family = {"ipFamily": "ipv6", "serviceIpv6Cidr": "fd12:3456:789a::/108", "serviceIpv4Cidr": ABSENT}
    changes = {"resourcesVpcConfig": network, "kubernetesNetworkConfig": family, "logging": logging("audit")}
    return eks(name, **changes, **place)


def outpost_cluster(name: str = "eks-outpost", **place: Any) -> Eks:
    """A local cluster on an Outpost: an id, self-managed nodes, and only the ConfigMap says who may enter."""
    account, region = place.get("account", PROD), place.get("region", SEOUL)
    outpost = {
        "outpostArns": [arn("outposts", region, account, f"outpost/op-{digits(name)}")],
        "controlPlaneInstanceType": "m5.xlarge",
        "controlPlanePlacement": {"groupName": "eks-control-plane"},
    }
    changes = {
        "id": _uuid(name),
        "outpostConfig": outpost,
        "identity": ABSENT,
        "accessConfig": {"authenticationMode": "CONFIG_MAP", "bootstrapClusterCreatorAdminPermissions": ABSENT},
    }
    for key in ("upgradePolicy", "zonalShiftConfig", "computeConfig", "storageConfig", "controlPlaneScalingConfig"):
        changes[key] = ABSENT
    whole = eks(name, nodegroups=[], addons=[], **changes, **place)
    whole.access_entries.clear()
    whole.access_policies.clear()
    return whole


def sparse_cluster(name: str = "eks-sparse", **place: Any) -> Eks:
    """Without the fields that AWS added over the years."""
    gone = ("accessConfig", "deletionProtection", "upgradePolicy", "encryptionConfig", "health", "tags", "logging")
    newer = ("zonalShiftConfig", "computeConfig", "storageConfig", "controlPlaneScalingConfig")
    network = dict.fromkeys(("endpointPublicAccess", "endpointPrivateAccess", "publicAccessCidrs"), ABSENT)
    changes: Object = dict.fromkeys((*gone, *newer), ABSENT)
    return eks(name, resourcesVpcConfig=network, **changes, **place)


def connected_cluster(name: str = "eks-connected", **place: Any) -> Eks:
    """Somebody else's cluster, registered with EKS Connector; ListClusters shows it only when asked for all."""
    shape = cluster(name, **place)
    connector = {
        "activationId": _uuid(name, "activation"),
        "activationCode": ACTIVATION_CODE,
        "activationExpiry": _TIME,
        "provider": "OTHER",
        "roleArn": iam_arn(place.get("account", PROD), "role/AmazonEKSConnectorAgentRole"),
    }
    kept = {key: shape[key] for key in ("name", "arn", "createdAt", "status", "tags")}
    return Eks(kept | {"connectorConfig": connector})


def creating_cluster(name: str = "eks-creating", **place: Any) -> Eks:
    """Without an endpoint and a certificate, which come later; in its VPC configuration everything is open."""
    gone = dict.fromkeys(("endpoint", "certificateAuthority", "identity", "health"), ABSENT)
    return Eks(merged(public_cluster(name, **place).cluster, gone | {"status": "CREATING"}))


def deleting_cluster(name: str = "eks-deleting", **place: Any) -> Eks:
    whole = public_cluster(name, **place)
    whole.cluster["status"] = "DELETING"
    for group in whole.nodegroups:
        group["status"] = "DELETING"
    return whole


def failed_cluster(name: str = "eks-failed", **place: Any) -> Eks:
    issue = {"code": "Ec2SubnetNotFound", "message": "The subnet does not exist.", "resourceIds": ["subnet-0"]}
    shape = creating_cluster(name, **place).cluster
    return Eks(merged(shape, {"status": "FAILED", "health": {"issues": [issue]}}))


def old_cluster(name: str = "eks-old", **place: Any) -> Eks:
    """From years ago: a version that is no longer supported, the ConfigMap, the old Amazon Linux, a sick add-on."""
    issue = {"code": "ConfigurationConflict", "message": "Conflicts found when trying to apply.", "resourceIds": []}
    sick = addon("vpc-cni", name, status="DEGRADED", health={"issues": [issue]}, configurationValues=ABSENT, **place)
    whole = eks(
        name,
        nodegroups=[nodegroup("workers", name, amiType="AL2_x86_64", version=UNSUPPORTED_VERSION, **place)],
        addons=[sick],
        version=UNSUPPORTED_VERSION,
        platformVersion="eks.41",
        accessConfig={"authenticationMode": "CONFIG_MAP"},
        upgradePolicy={"supportType": "EXTENDED"},
        **place,
    )
    whole.access_entries.clear()
    whole.access_policies.clear()
    return whole


def public_cluster(name: str = "eks-public", **place: Any) -> Eks:
    """Open to the world, with everything off; the bad node group, add-on and access entries are the last ones."""
    off = {
        "version": OLD_VERSION,
        "resourcesVpcConfig": {
            "endpointPublicAccess": True,
            "endpointPrivateAccess": False,
            "publicAccessCidrs": ["203.0.113.0/24", ALL_IPV4, ALL_IPV6],
        },
        "logging": logging(),
        "encryptionConfig": ABSENT,
        "accessConfig": {"authenticationMode": "API_AND_CONFIG_MAP", "bootstrapClusterCreatorAdminPermissions": True},
        "upgradePolicy": {"supportType": "EXTENDED"},
        "deletionProtection": False,
        "tags": {},
    }
    groups = [nodegroup("good", name, **place), bad_nodegroup("open", name, **place)]
    plain = [addon("kube-proxy", name, **place)]
    plain.append(addon("vpc-cni", name, configurationValues=configuration(enableNetworkPolicy="false"), **place))
    whole = eks(name, nodegroups=groups, addons=plain, **off, **place)
    whole.admit("user/alice", access_policy(CLUSTER_ADMIN))
    whole.admit("arn:aws:iam::999988887777:role/vendor", access_policy(CLUSTER_ADMIN))
    return whole


VARIANTS: tuple[Callable[..., Eks], ...] = (
    private_cluster,
    restricted_cluster,
    auto_mode_cluster,
    ipv6_cluster,
    outpost_cluster,
    sparse_cluster,
    connected_cluster,
    creating_cluster,
    deleting_cluster,
    failed_cluster,
    old_cluster,
    public_cluster,
)


def cluster_versions() -> list[Object]:
    """What DescribeClusterVersions knows: 1.34 is the default, 1.31 costs extra, 1.27 has had its time."""
    standard, extended, unsupported = "STANDARD_SUPPORT", "EXTENDED_SUPPORT", "UNSUPPORTED"
    return [
        _version("1.35.1", standard, (2026, 1, 27), (2027, 3, 27)),
        _version("1.34.2", standard, (2025, 10, 2), (2026, 12, 2), defaultVersion=True),
        _version("1.33.6", standard, (2025, 5, 29), (2026, 7, 29)),
        _version("1.32.10", extended, (2025, 1, 23), (2026, 3, 23)),
        _version("1.31.14", extended, (2024, 9, 26), (2025, 11, 26)),
        _version("1.27.16", unsupported, (2023, 5, 24), (2024, 7, 24)),
    ]


def _version(
    patch: str, status: str, released: tuple[int, int, int], ended: tuple[int, int, int], **changes: Any
) -> Object:
    end = datetime(*ended, tzinfo=UTC)
    shape = {
        "clusterVersion": patch.rpartition(".")[0],
        "clusterType": "eks",
        "defaultPlatformVersion": "eks.14",
        "defaultVersion": False,
        "releaseDate": datetime(*released, tzinfo=UTC),
        "endOfStandardSupportDate": end,
        "endOfExtendedSupportDate": end.replace(year=end.year + 1),
        "status": status,
        "versionStatus": status,
        "kubernetesPatchVersion": patch,
    }
    return shape | changes


# ---------------------------------------------------------------------------------------------------------------------
# Networks: one VPC in each region of each account

ZONES = ("a", "b", "c")


def vpc_id(account: str = PROD, region: str = SEOUL) -> str:
    return f"vpc-{digits(account, region)}"


def subnet_ids(account: str = PROD, region: str = SEOUL, kind: str = "private") -> list[str]:
    """Kinds are private, public, and isolated; the last have no route table of their own."""
    return [f"subnet-{digits(account, region, kind, zone)}" for zone in ZONES]


def subnet(
    kind: str = "private", zone: str = "a", *, account: str = PROD, region: str = SEOUL, **changes: Any
) -> Object:
    own = f"subnet-{digits(account, region, kind, zone)}"
    third = {"private": 0, "public": 64, "isolated": 128}[kind] + 8 * ZONES.index(zone)
    good = {
        "AvailabilityZoneId": f"{digits(region, length=4)}-az{ZONES.index(zone) + 1}",
        "MapCustomerOwnedIpOnLaunch": False,
        "OwnerId": account,
        "AssignIpv6AddressOnCreation": False,
        "Ipv6CidrBlockAssociationSet": [],
        "Tags": _tags(Name=f"{kind}-{zone}"),
        "SubnetArn": arn("ec2", region, account, f"subnet/{own}"),
        "EnableDns64": False,
        "Ipv6Native": False,
        "SubnetId": own,
        "State": "available",
        "VpcId": vpc_id(account, region),
        "CidrBlock": f"10.0.{third}.0/21",
        "AvailableIpAddressCount": 2017,
        "AvailabilityZone": f"{region}{zone}",
        "DefaultForAz": False,
        "MapPublicIpOnLaunch": kind == "public",
    }
    return merged(good, changes)


def subnets(account: str = PROD, region: str = SEOUL) -> list[Object]:
    kinds = ("private", "public", "isolated")
    return [subnet(kind, zone, account=account, region=region) for kind in kinds for zone in ZONES]


def route_table(
    name: str, *routes: Object, associated: tuple[str, ...] = (), main: bool = False, **place: Any
) -> Object:
    """A table of these routes besides the local one, for these subnets, or for those that have none of their own."""
    account, region = place.get("account", PROD), place.get("region", SEOUL)
    own = f"rtb-{digits(account, region, name)}"
    local = {
        "DestinationCidrBlock": "10.0.0.0/16",
        "GatewayId": "local",
        "Origin": "CreateRouteTable",
        "State": "active",
    }
    return {
        "Associations": [_association(own, main=True)] if main else [_association(own, text) for text in associated],
        "PropagatingVgws": [],
        "RouteTableId": own,
        "Routes": [local, *routes],
        "Tags": _tags(Name=name),
        "VpcId": vpc_id(account, region),
        "OwnerId": account,
    }


def _association(table: str, subnet: str = "", *, main: bool = False) -> Object:
    shape = {
        "Main": main,
        "RouteTableAssociationId": f"rtbassoc-{digits(table, subnet)}",
        "RouteTableId": table,
        "AssociationState": {"State": "associated"},
    }
    return shape | ({} if main else {"SubnetId": subnet})


def route(target: str, destination: str = ALL_IPV4) -> Object:
    """A route to `nat-…`, `igw-…`, `eigw-…` or `tgw-…`."""
    keys = {"nat": "NatGatewayId", "tgw": "TransitGatewayId", "eigw": "EgressOnlyInternetGatewayId"}
    block = "DestinationIpv6CidrBlock" if ":" in destination else "DestinationCidrBlock"
    key = keys.get(target.split("-")[0], "GatewayId")
    return {block: destination, key: target, "Origin": "CreateRoute", "State": "active"}


def route_tables(account: str = PROD, region: str = SEOUL) -> list[Object]:
    """Private subnets go out through NAT, public ones through the internet gateway, isolated ones nowhere."""
    place = {"account": account, "region": region}
    gateway = f"igw-{digits(account, region)}"
    private = [route(f"nat-{digits(account, region)}"), route(f"eigw-{digits(account, region)}", ALL_IPV6)]
    public = [route(gateway), route(gateway, ALL_IPV6)]
    return [
        route_table("main", main=True, **place),
        route_table("private", *private, associated=tuple(subnet_ids(**place)), **place),
        route_table("public", *public, associated=tuple(subnet_ids(kind="public", **place)), **place),
    ]


# ---------------------------------------------------------------------------------------------------------------------
# IAM: the roles of Defender for Cloud, as its template makes them

DEFENDER_TENANT = "33e01921-4d64-4f8c-a055-5bdaffd5e33d"
AAD_TENANT = "5e3ce6c0-2b1f-4285-8d4b-75ee78787346"
ISSUER = f"sts.windows.net/{DEFENDER_TENANT}/"
K8S_ROLE, OLD_K8S_ROLE = "MDCContainersK8sRole", "DefenderForCloud-Containers-K8s"
K8S_POLICY = "SecurityCenterKubernetesPolicy"
_CONTAINERS_APP = "api://6610e979-c931-41ec-adc7-b9920c9d52f1"
_STREAMS_APP = "api://1462b192-27f7-4cb9-8523-0f4ecb54b47e"


@dataclass
class Role:
    """A role, the ARNs of the policies attached to it, and the documents of those within it."""

    role: Object
    attached: list[str] = field(default_factory=list)
    inline: dict[str, Object] = field(default_factory=dict)


@dataclass
class Policy:
    policy: Object
    versions: dict[str, Object] = field(default_factory=dict)


def role(name: str, trust: Object, *, account: str = PROD, path: str = "/", **changes: Any) -> Object:
    good = {
        "Path": path,
        "RoleName": name,
        "RoleId": f"AROA{digits(account, name).upper()}",
        "Arn": iam_arn(account, f"role{path}{name}"),
        "CreateDate": _TIME,
        "AssumeRolePolicyDocument": trust,
        "Description": "Microsoft Defender for Cloud",
        "MaxSessionDuration": 3600,
        "RoleLastUsed": {"LastUsedDate": _TIME, "Region": VIRGINIA},
    }
    return merged(good, changes)


def document(*statements: Object) -> Object:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(*actions: str, on: str | list[str] = "*", effect: str = "Allow") -> Object:
    return {"Effect": effect, "Action": list(actions), "Resource": on}


def defender_trust(account: str = PROD, audience: str = _CONTAINERS_APP, issuer: str = ISSUER) -> Object:
    """Entra ID's tokens for Defender's application may take the role."""
    condition = {
        "StringLike": {
            f"{issuer}:aud": [audience],
            "sts:RoleSessionName": [f"MicrosoftDefenderForClouds_{AAD_TENANT}"],
        }
    }
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": iam_arn(account, f"oidc-provider/{issuer}")},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": condition,
    }
    return document(statement)


def service_trust(service: str, external_id: str = "") -> Object:
    condition = {"Condition": {"StringEquals": {"sts:ExternalId": external_id}}} if external_id else {}
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return document(statement | condition)


def kubernetes_policy(account: str = PROD) -> Object:
    """What Defender's role for Kubernetes has to be allowed."""
    passed = ["azuredefender-*", "msdefender-*", "MDCContainersK8s*"]
    return document(
        allow(
            "logs:PutSubscriptionFilter",
            "logs:DescribeSubscriptionFilters",
            "logs:DescribeLogGroups",
            "logs:PutRetentionPolicy",
            on=[f"arn:aws:logs:*:{account}:log-group:*:*"],
        ),
        allow("firehose:*", on=[f"arn:aws:firehose:*:{account}:deliverystream/azuredefender-*"]),
        allow("iam:PassRole", on=[iam_arn(account, f"role/{text}") for text in passed]),
        allow("eks:UpdateClusterConfig", "eks:DescribeCluster", on=[f"arn:aws:eks:*:{account}:*"]),
        allow("sqs:*", on=[f"arn:aws:sqs:*:{account}:azuredefender-*"]),
        allow("s3:*", on=["arn:aws:s3:::azuredefender-*"]),
    )


def policy(name: str, *documents: Object, account: str = PROD, path: str = "/") -> Policy:
    """A managed policy of one's own; the last of its versions (v1, v2, …) is the default one."""
    versions = {f"v{number}": text for number, text in enumerate(documents, 1)}
    shape = {
        "PolicyName": name,
        "PolicyId": f"ANPA{digits(account, name).upper()}",
        "Arn": iam_arn(account, f"policy{path}{name}"),
        "Path": path,
        "DefaultVersionId": f"v{len(versions)}",
        "AttachmentCount": 1,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "CreateDate": _TIME,
        "UpdateDate": _TIME,
    }
    return Policy(shape, versions)


def defender_policies(account: str = PROD) -> list[Policy]:
    """The one for Kubernetes is in its second version; the first lacked most."""
    stream = allow("firehose:*", on=[f"arn:aws:firehose:*:{account}:deliverystream/azuredefender-*"])
    clusters = allow("eks:UpdateClusterConfig", "eks:DescribeCluster", on=[f"arn:aws:eks:*:{account}:*"])
    return [
        policy(K8S_POLICY, document(stream), kubernetes_policy(account), account=account),
        policy("SecurityCenterCloudWatchToKinesis", document(stream), account=account),
        policy("MDCContainersAgentlessDiscoveryK8sPolicy", document(clusters), account=account),
    ]


def defender_roles(account: str = PROD) -> list[Role]:
    """The six roles of the template for containers; their rights are in policies attached, within, or of AWS."""

    def own(name: str) -> str:
        return iam_arn(account, f"policy/{name}")

    def of_microsoft(name: str, audience: str = _CONTAINERS_APP) -> Object:
        return role(name, defender_trust(account, audience), account=account)

    streams = ["arn:aws:s3:::azuredefender-*"]
    reads = document(
        allow("sqs:ReceiveMessage", "sqs:DeleteMessage", on=[f"arn:aws:sqs:*:{account}:azuredefender-*"]),
        allow("s3:GetObject", "s3:GetBucketLocation", on=streams),
    )
    writes = document(allow("s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket", "s3:PutObject", on=streams))
    to_kinesis = role("MDCContainersK8sCloudWatchToKinesisRole", service_trust("logs.amazonaws.com"), account=account)
    to_s3 = role("MDCContainersK8sKinesisToS3Role", service_trust("firehose.amazonaws.com", account), account=account)
    return [
        Role(of_microsoft(K8S_ROLE), [own(K8S_POLICY)]),
        Role(
            of_microsoft("MDCContainersK8sDataCollectionRole", _STREAMS_APP),
            inline={"AzureDefenderKubernetesScubaReader": reads},
        ),
        Role(to_kinesis, [own("SecurityCenterCloudWatchToKinesis")]),
        Role(to_s3, inline={"SecurityCenterKinesisToS3Policy": writes}),
        Role(of_microsoft("MDCContainersImageAssessmentRole"), [AWS_POLICY["Arn"]]),
        Role(of_microsoft(DISCOVERY_ROLE), [own("MDCContainersAgentlessDiscoveryK8sPolicy")]),
    ]


AWS_POLICY = {
    "PolicyName": "AmazonEC2ContainerRegistryReadOnly",
    "PolicyId": "ANPAIFYZPA37OOHVIH7KQ",
    "Arn": "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryReadOnly",
    "Path": "/",
    "DefaultVersionId": "v3",
    "AttachmentCount": 1,
    "PermissionsBoundaryUsageCount": 0,
    "IsAttachable": True,
    "CreateDate": datetime(2015, 12, 21, 17, 4, 15, tzinfo=UTC),
    "UpdateDate": datetime(2019, 12, 10, 20, 56, 22, tzinfo=UTC),
}
_AWS_DOCUMENT = document(
    allow("ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:DescribeImages", "ecr:DescribeRepositories")
)


def oidc_provider(url: str = ISSUER, **changes: Any) -> Object:
    """Entra ID as a provider of identities; IAM leaves out "https://"."""
    good = {
        "Url": url,
        "ClientIDList": [_CONTAINERS_APP, _STREAMS_APP],
        "ThumbprintList": ["626d44e704d1ceabe3bf0d53397464ac8080142c"],
        "CreateDate": _TIME,
        "Tags": [],
    }
    return merged(good, changes)


# ---------------------------------------------------------------------------------------------------------------------
# Logs


def log_group(cluster_name: str, *, account: str = PROD, region: str = SEOUL, **changes: Any) -> Object:
    name = f"/aws/eks/{cluster_name}/cluster"
    own = arn("logs", region, account, f"log-group:{name}")
    good = {
        "logGroupName": name,
        "creationTime": _MILLIS,
        "retentionInDays": 30,
        "metricFilterCount": 0,
        "arn": f"{own}:*",
        "storedBytes": 48211374,
        "logGroupClass": "STANDARD",
        "logGroupArn": own,
    }
    return merged(good, changes)


def subscription_filter(cluster_name: str, *, account: str = PROD, region: str = SEOUL, **changes: Any) -> Object:
    """Defender's: it sends the audit log on to a stream of Firehose."""
    good = {
        "filterName": "azuredefender",
        "logGroupName": f"/aws/eks/{cluster_name}/cluster",
        "filterPattern": '{ $.kind = "Event" }',
        "destinationArn": arn("firehose", region, account, f"deliverystream/azuredefender-{cluster_name}"),
        "roleArn": iam_arn(account, "role/MDCContainersK8sCloudWatchToKinesisRole"),
        "distribution": "ByLogStream",
        "creationTime": _MILLIS,
    }
    return merged(good, changes)


# ---------------------------------------------------------------------------------------------------------------------
# Registries, GuardDuty, Inspector


def repository(name: str, *, account: str = PROD, region: str = SEOUL, **changes: Any) -> Object:
    """A good one: tags do not move, images are scanned, the key is one's own."""
    good = {
        "repositoryArn": arn("ecr", region, account, f"repository/{name}"),
        "registryId": account,
        "repositoryName": name,
        "repositoryUri": f"{account}.dkr.ecr.{region}.amazonaws.com/{name}",
        "createdAt": _TIME,
        "imageTagMutability": "IMMUTABLE",
        "imageScanningConfiguration": {"scanOnPush": True},
        "encryptionConfiguration": {
            "encryptionType": "KMS",
            "kmsKey": arn("kms", region, account, f"key/{_uuid(account, region, 'ecr')}"),
        },
    }
    return merged(good, changes)


def bad_repository(name: str, **changes: Any) -> Object:
    bad = {
        "imageTagMutability": "MUTABLE",
        "imageScanningConfiguration": {"scanOnPush": False},
        "encryptionConfiguration": {"encryptionType": "AES256", "kmsKey": ABSENT},
    }
    return repository(name, **(bad | changes))


def repository_policy(principal: Any = "*", *actions: str, **more: Any) -> Object:
    """Who may do what with a repository; by default everybody may pull."""
    pulls = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    return document({"Effect": "Allow", "Principal": principal, "Action": list(actions) or pulls} | more)


def lifecycle_policy(days: int = 14) -> Object:
    count = {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": days}
    return {"rules": [{"rulePriority": 1, "selection": count, "action": {"type": "expire"}}]}


def registry_scanning(scan_type: str = "ENHANCED", frequency: str = "CONTINUOUS_SCAN", match: str = "*") -> Object:
    """A registry's rules; no rule at all with an empty `match`."""
    filters = [{"filter": match, "filterType": "WILDCARD"}]
    rules = [{"scanFrequency": frequency, "repositoryFilters": filters}] if match else []
    return {"scanType": scan_type, "rules": rules}


def repository_scanning(repository: Object, frequency: str = "CONTINUOUS_SCAN", match: str = "*") -> Object:
    """What the registry's rules make of one repository."""
    return {
        "repositoryArn": repository["repositoryArn"],
        "repositoryName": repository["repositoryName"],
        "scanOnPush": frequency == "SCAN_ON_PUSH",
        "scanFrequency": frequency,
        "appliedScanFilters": [{"filter": match, "filterType": "WILDCARD"}] if match else [],
    }


def detector(account: str = PROD, *, off: tuple[str, ...] = (), **changes: Any) -> Object:
    """GuardDuty with both protections of EKS, except for the features named in `off`."""

    def status(name: str) -> str:
        return "DISABLED" if name in off else "ENABLED"

    agents = ("EKS_ADDON_MANAGEMENT", "ECS_FARGATE_AGENT_MANAGEMENT", "EC2_AGENT_MANAGEMENT")
    features: list[Object] = [
        {"Name": name, "Status": status(name), "UpdatedAt": _TIME}
        for name in ("CLOUD_TRAIL", "DNS_LOGS", "FLOW_LOGS", "S3_DATA_EVENTS", "EKS_AUDIT_LOGS", "RUNTIME_MONITORING")
    ]
    features[-1]["AdditionalConfiguration"] = [
        {"Name": name, "Status": status(name), "UpdatedAt": _TIME} for name in agents
    ]
    good = {
        "CreatedAt": "2026-03-02T09:15:27.041Z",
        "FindingPublishingFrequency": "SIX_HOURS",
        "ServiceRole": iam_arn(
            account, "role/aws-service-role/guardduty.amazonaws.com/AWSServiceRoleForAmazonGuardDuty"
        ),
        "Status": "ENABLED",
        "UpdatedAt": "2026-03-02T09:15:27.041Z",
        "DataSources": {
            "CloudTrail": {"Status": "ENABLED"},
            "DNSLogs": {"Status": "ENABLED"},
            "FlowLogs": {"Status": "ENABLED"},
            "S3Logs": {"Status": "ENABLED"},
            "Kubernetes": {"AuditLogs": {"Status": status("EKS_AUDIT_LOGS")}},
        },
        "Tags": {},
        "Features": features,
    }
    return merged(good, changes)


def inspector_status(account: str = PROD, *, off: tuple[str, ...] = (), **changes: Any) -> Object:
    """What Inspector scans in an account, except for the kinds named in `off`; with all of them it is disabled."""
    kinds = ("ec2", "ecr", "lambda", "lambdaCode")
    states = {kind: _inspected("DISABLED" if kind in off else "ENABLED") for kind in kinds}
    whole = _inspected("DISABLED" if set(kinds) <= set(off) else "ENABLED")
    return merged({"accountId": account, "state": whole, "resourceState": states}, changes)


def _inspected(status: str) -> Object:
    return {"status": status, "errorCode": "ALREADY_ENABLED" if status == "ENABLED" else "RESOURCE_NOT_FOUND"}


# ---------------------------------------------------------------------------------------------------------------------
# Images, and what was found in them

OCI, DOCKER = "application/vnd.oci.image", "application/vnd.docker"
SCANNED = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)  # scans that are old prove nothing


def digest(*name: object) -> str:
    return f"sha256:{digits(*name, length=64)}"


def image(name: str, repository_name: str = "shop/web", *, account: str = PROD, **changes: Any) -> Object:
    """An image in which basic scanning found nothing, as DescribeImages shows it; its tag and digest come of the
    name."""
    good = {
        "registryId": account,
        "repositoryName": repository_name,
        "imageDigest": digest(name),
        "imageTags": [name],
        "imageSizeInBytes": 31415926,
        "imagePushedAt": _TIME,
        "imageScanStatus": {"status": "COMPLETE", "description": "The scan was completed successfully."},
        "imageScanFindingsSummary": {
            "imageScanCompletedAt": SCANNED,
            "vulnerabilitySourceUpdatedAt": SCANNED,
            "findingSeverityCounts": {},
        },
        "imageManifestMediaType": f"{OCI}.manifest.v1+json",
        "artifactMediaType": f"{OCI}.config.v1+json",
        "imageStatus": "ACTIVE",
    }
    return merged(good, changes)


def unscanned(name: str, *where: str, **changes: Any) -> Object:
    """One of which DescribeImages tells nothing: nobody scanned it, or today's basic scanning did."""
    return image(name, *where, **({"imageScanStatus": ABSENT, "imageScanFindingsSummary": ABSENT} | changes))


def index(name: str, *where: str, media: str = f"{OCI}.index.v1+json", **changes: Any) -> Object:
    return unscanned(name, *where, **({"imageManifestMediaType": media, "artifactMediaType": ABSENT} | changes))


def index_manifest(*names: tuple[str, str], **extra: Object) -> str:
    """An index of images by name, each with its platform ("linux/arm64/v8"); `extra` are more entries."""
    entries = []
    for name, text in names:
        keys = zip(("os", "architecture", "variant"), text.split("/"), strict=False)
        entries.append({"mediaType": f"{OCI}.manifest.v1+json", "digest": digest(name), "platform": dict(keys)})
    return json.dumps(
        {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [*entries, *extra.values()]}
    )


def basic_finding(id: str = "CVE-2026-1001", package: str = "openssl", severity: str = "HIGH", **more: str) -> Object:
    """A finding of basic scanning."""
    about = {"package_name": package, "package_version": "3.0.2-0ubuntu1", "CVSS3_SCORE": "7.5"} | more
    return {
        "name": id,
        "description": "What is wrong.",
        "uri": f"https://ubuntu.com/security/{id}",
        "severity": severity,
        "attributes": [{"key": key, "value": value} for key, value in about.items()],
    }


def basic_scan(*findings: Object, status: str = "COMPLETE", **changes: Any) -> Object:
    """What DescribeImageScanFindings says of an image."""
    counts: dict[str, int] = {}
    for item in findings:
        counts[item["severity"]] = counts.get(item["severity"], 0) + 1
    good = {
        "imageScanStatus": {"status": status, "description": "The scan was completed successfully."},
        "imageScanFindings": {
            "imageScanCompletedAt": SCANNED,
            "vulnerabilitySourceUpdatedAt": SCANNED,
            "findings": list(findings),
            "findingSeverityCounts": counts,
        },
    }
    return merged(good, changes)


def image_arn(name: str, repository_name: str = "shop/web", *, account: str = PROD, region: str = SEOUL) -> str:
    return f"{arn('ecr', region, account, f'repository/{repository_name}')}/{digest(name)}"


def coverage(name: str, repository_name: str = "shop/web", *, account: str = PROD, **changes: Any) -> Object:
    """What Inspector covers: an image that it has scanned."""
    good = {
        "resourceType": "AWS_ECR_CONTAINER_IMAGE",
        "resourceId": image_arn(name, repository_name, account=account),
        "accountId": account,
        "scanType": "PACKAGE",
        "scanStatus": {"statusCode": "ACTIVE", "reason": "SUCCESSFUL"},
        "resourceMetadata": {"ecrImage": {"tags": [name]}},
        "lastScannedAt": SCANNED,
    }
    return merged(good, changes)


def vulnerable_package(name: str = "openssl", **changes: Any) -> Object:
    good = {
        "name": name,
        "version": "1.1.1k",
        "release": "9.el8",
        "epoch": 1,
        "arch": "X86_64",
        "packageManager": "OS",
        "fixedInVersion": "1:1.1.1k-12.el8",
    }
    return merged(good, changes)


def inspector_finding(
    id: str, name: str, repository_name: str = "shop/web", *packages: Object, account: str = PROD, **changes: Any
) -> Object:
    """An active finding of Inspector on an image."""
    details = {
        "repositoryName": repository_name,
        "imageTags": [name],
        "pushedAt": _TIME,
        "architecture": "amd64",
        "imageHash": digest(name),
        "registry": account,
        "platform": "UBUNTU_22_04",
    }
    good = {
        "findingArn": arn("inspector2", SEOUL, account, f"finding/{digits(id, name, length=32)}"),
        "awsAccountId": account,
        "type": "PACKAGE_VULNERABILITY",
        "description": "What is wrong.",
        "title": f"{id} - openssl",
        "remediation": {"recommendation": {"text": "None Provided"}},
        "severity": "HIGH",
        "firstObservedAt": _TIME,
        "lastObservedAt": _TIME,
        "updatedAt": _TIME,
        "status": "ACTIVE",
        "resources": [
            {
                "type": "AWS_ECR_CONTAINER_IMAGE",
                "id": image_arn(name, repository_name, account=account),
                "partition": "aws",
                "region": SEOUL,
                "details": {"awsEcrContainerImage": details},
            }
        ],
        "inspectorScore": 7.5,
        "packageVulnerabilityDetails": {
            "vulnerabilityId": id,
            "vulnerablePackages": list(packages) or [vulnerable_package()],
            "source": "UBUNTU_CVE",
            "cvss": [
                {"baseScore": 5.0, "scoringVector": "AV:N/AC:L/Au:N/C:P/I:N/A:N", "version": "2.0", "source": "NVD"},
                {"baseScore": 7.5, "scoringVector": "CVSS:3.1/AV:N/AC:L", "version": "3.1", "source": "NVD"},
            ],
        },
        "fixAvailable": "YES",
        "exploitAvailable": "NO",
    }
    return merged(good, changes)


# ---------------------------------------------------------------------------------------------------------------------
# Estates


@dataclass
class Region:
    """All that one account has in one region; `opt_in` is what DescribeRegions says of it."""

    name: str
    account: str
    opt_in: str = "opt-in-not-required"
    clusters: list[Eks] = field(default_factory=list)
    versions: list[Object] = field(default_factory=list)
    subnets: list[Object] = field(default_factory=list)
    route_tables: list[Object] = field(default_factory=list)
    log_groups: list[Object] = field(default_factory=list)
    subscription_filters: dict[str, list[Object]] = field(default_factory=dict)  # by the log group's name
    repositories: list[Object] = field(default_factory=list)
    repository_policies: dict[str, Object] = field(default_factory=dict)  # by the repository's name, as the next two
    lifecycle_policies: dict[str, Object] = field(default_factory=dict)
    repository_scanning: dict[str, Object] = field(default_factory=dict)
    registry_scanning: Object = field(default_factory=lambda: registry_scanning("BASIC", match=""))
    images: dict[str, list[Object]] = field(default_factory=dict)  # by the repository's name
    manifests: dict[str, str] = field(default_factory=dict)  # of indexes, by digest
    image_scans: dict[str, Object] = field(default_factory=dict)  # what basic scanning says of images, by digest
    detectors: dict[str, Object] = field(default_factory=dict)  # by id
    inspector: Object | None = None
    inspector_coverage: list[Object] = field(default_factory=list)
    inspector_findings: list[Object] = field(default_factory=list)

    @property
    def enabled(self) -> bool:
        return self.opt_in != "not-opted-in"

    def wire(self) -> Object:
        """As DescribeRegions shows it."""
        return {"OptInStatus": self.opt_in, "RegionName": self.name, "Endpoint": f"ec2.{self.name}.amazonaws.com"}

    def add_repository(self, item: Object, *, access: Object | None = None, lifecycle: Object | None = None) -> None:
        name = item["repositoryName"]
        self.repositories.append(item)
        if access:
            self.repository_policies[name] = access
        if lifecycle:
            self.lifecycle_policies[name] = lifecycle
        rules = self.registry_scanning["rules"]
        how = (rules[0]["scanFrequency"], rules[0]["repositoryFilters"][0]["filter"]) if rules else ("MANUAL", "")
        self.repository_scanning[name] = repository_scanning(item, *how)


@dataclass
class Account:
    """All that AWS has of one account; `assumable` are the roles that others may take, by the external id they need."""

    id: str
    name: str
    status: str = "ACTIVE"
    regions: dict[str, Region] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)  # by ARN
    oidc_providers: dict[str, Object] = field(default_factory=dict)  # by ARN
    assumable: dict[str, str] = field(default_factory=dict)

    def wire(self, organization: str) -> Object:
        """As ListAccounts shows it to the organization's management account."""
        return {
            "Id": self.id,
            "Arn": f"arn:aws:organizations::{organization}:account/{ORGANIZATION}/{self.id}",
            "Email": f"aws-{self.name.lower()}@example.com",
            "Name": self.name,
            "Status": self.status,
            "State": self.status,
            "JoinedMethod": "INVITED" if self.id == organization else "CREATED",
            "JoinedTimestamp": _TIME,
        }

    def onboard(self, *roles: Role, policies: list[Policy] | None = None) -> None:
        """Have these roles of Defender for Cloud, or all of them, with the policies and the provider they need."""
        for item in roles or defender_roles(self.id):
            self.roles[item.role["RoleName"]] = item
        for entry in policies or defender_policies(self.id):
            self.policies[entry.policy["Arn"]] = entry
        self.policies[AWS_POLICY["Arn"]] = Policy(AWS_POLICY, {"v3": _AWS_DOCUMENT})
        self.oidc_providers[iam_arn(self.id, f"oidc-provider/{ISSUER}")] = oidc_provider()


ORGANIZATION = "o-exampleorgid"


@dataclass
class Estate:
    """`home` is the account whose credentials one starts with; `management` the organization's, "" without one."""

    accounts: dict[str, Account]  # by id
    home: str
    management: str = ""

    @classmethod
    def of(cls, *accounts: Account, organization: bool = True) -> Estate:
        home = accounts[0].id
        return cls({account.id: account for account in accounts}, home, home if organization else "")

    def clusters(self) -> Iterator[tuple[Region, Eks]]:
        for account in self.accounts.values():
            for region in account.regions.values():
                for item in region.clusters:
                    yield region, item

    def eks(self, name: str) -> Eks:
        """The cluster of this name, with all that belongs to it."""
        return next(item for _, item in self.clusters() if item.name == name)

    def cluster(self, name: str) -> Object:
        """The cluster of this name, as DescribeCluster shows it."""
        return self.eks(name).cluster

    def region(self, account: str = PROD, name: str = SEOUL) -> Region:
        return self.accounts[account].regions[name]

    def connect(self, name: str, server: str, ca: bytes | None = None) -> None:
        """Let a cluster's endpoint lead to this server, whose certificate this authority (PEM) signed."""
        self.cluster(name)["endpoint"] = server
        if ca:
            self.cluster(name)["certificateAuthority"] = authority(ca)


def region_of(account: str, name: str, *clusters: Eks) -> Region:
    """A region with a network, versions, log groups with Defender's filters, GuardDuty, Inspector and a registry."""
    place = {"account": account, "region": name}
    found = Region(name, account, clusters=list(clusters), versions=cluster_versions())
    found.subnets, found.route_tables = subnets(**place), route_tables(**place)
    for item in clusters:
        if item.cluster.get("logging") and item.cluster["status"] == "ACTIVE":
            group = log_group(item.name, **place)
            found.log_groups.append(group)
            found.subscription_filters[group["logGroupName"]] = [subscription_filter(item.name, **place)]
    found.registry_scanning = registry_scanning()
    for text in ("shop/web", "shop/api"):
        readers = {"AWS": iam_arn(DEV, "root")}
        found.add_repository(repository(text, **place), access=repository_policy(readers), lifecycle=lifecycle_policy())
    found.detectors = {digits(account, name, "detector", length=32): detector(account)}
    found.inspector = inspector_status(account)
    return found


def closed_region(account: str, name: str = HONG_KONG) -> Region:
    """A region that the account did not opt into: nothing there can be asked."""
    return Region(name, account, opt_in="not-opted-in")


def estate_of(*clusters: Eks) -> Estate:
    """One account, with Defender on board, and one region: those of the clusters."""
    _, _, _, name, account, _ = clusters[0].cluster["arn"].split(":", 5) if clusters else ("", "", "", SEOUL, PROD, "")
    home = Account(account, "Production", regions={name: region_of(account, name, *clusters)})
    home.onboard()
    return Estate.of(home)


def sample_estate() -> Estate:
    """An account in good order, and one that is not and has to be entered by a role; one region is closed to both."""
    return Estate.of(_production(), _development())


def _production() -> Account:
    seoul = {"account": PROD, "region": SEOUL}
    virginia = {"account": PROD, "region": VIRGINIA}
    tidy = [make(**seoul) for make in (private_cluster, restricted_cluster, auto_mode_cluster, outpost_cluster)]
    odd = [make(**virginia) for make in (sparse_cluster, connected_cluster, ipv6_cluster)]
    regions = (region_of(PROD, SEOUL, *tidy), region_of(PROD, VIRGINIA, *odd), closed_region(PROD))
    account = Account(PROD, "Production", regions={found.name: found for found in regions})
    account.onboard()
    return account


def _development() -> Account:
    """Defender's role lacks most of what it needs, and the registry is open."""
    seoul = {"account": DEV, "region": SEOUL}
    makers = (creating_cluster, deleting_cluster, failed_cluster, old_cluster, public_cluster)
    busy = region_of(DEV, SEOUL, *(make(**seoul) for make in makers))
    busy.subscription_filters.clear()
    busy.registry_scanning = registry_scanning("BASIC", match="")
    busy.repositories.clear()
    busy.repository_policies.clear()
    busy.lifecycle_policies.clear()
    busy.repository_scanning.clear()
    busy.add_repository(bad_repository("sandbox", **seoul), access=repository_policy("*"))
    busy.detectors = {key: detector(DEV, off=("EKS_AUDIT_LOGS", "EKS_ADDON_MANAGEMENT")) for key in busy.detectors}
    busy.inspector = inspector_status(DEV, off=("ecr",))
    empty = Region(VIRGINIA, DEV, versions=cluster_versions(), inspector=inspector_status(DEV, off=_ALL_KINDS))
    regions = (busy, empty, closed_region(DEV))
    account = Account(DEV, "Development", regions={found.name: found for found in regions})
    poor = Role(
        role(K8S_ROLE, defender_trust(DEV), account=DEV), inline={"little": document(allow("eks:DescribeCluster"))}
    )
    account.onboard(poor)
    account.assumable[AUDIT_ROLE] = EXTERNAL_ID
    return account


_ALL_KINDS = ("ec2", "ecr", "lambda", "lambdaCode")


def large_estate(accounts: int, regions: int, clusters: int) -> Estate:
    """Clusters of every kind, spread over accounts and regions; half of them are in good order."""
    found = []
    for number in range(accounts):
        own = f"{100000000000 + number:012d}"
        account = Account(own, f"Account {number:03d}", assumable={AUDIT_ROLE: EXTERNAL_ID} if number else {})
        account.regions = {name: region_of(own, name, *()) for name in REGIONS[:regions]}
        account.onboard()
        found.append(account)
    places = [region for account in found for region in account.regions.values()]
    for number in range(clusters):
        _add_cluster(places[number % len(places)], number)
    return Estate.of(*found)


def _add_cluster(target: Region, number: int) -> None:
    make = VARIANTS[number // 2 % len(VARIANTS)] if number % 2 else private_cluster
    place = {"account": target.account, "region": target.name}
    item = make(f"eks-{number:05d}", **place)
    target.clusters.append(item)
    group = log_group(item.name, **place)
    target.log_groups.append(group)
    target.subscription_filters[group["logGroupName"]] = [subscription_filter(item.name, **place)]
    if number % 10 < 2:
        target.add_repository((bad_repository if number % 10 else repository)(f"team/image-{number:05d}", **place))


# The VPC CNI inside a cluster.
AWS_NODE = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "aws-node", "namespace": "kube-system"},
    "spec": {"template": {"spec": {"containers": [{"name": "aws-node", "image": "amazon-k8s-cni:v1.20.4"}]}}},
    "status": {"numberReady": 1},
}
