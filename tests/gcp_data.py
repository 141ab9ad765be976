"""What Google Cloud answers, as its REST API and gcloud show it: full-size, camelCase.

    good = cluster("gke-1", project=PROD, location="asia-northeast3")              # no rule complains
    open_ = cluster("gke-2", legacyAbac={"enabled": True}, networkPolicy=ABSENT)   # changes merge; ABSENT removes a key
    pools = cluster("gke-3", nodePools=[pool("system"), pool("user", management={})])
    estate = sample_estate()                                                       # for GcpServer

Every function that makes something takes changes by the names of its outermost keys; mappings merge, all else replaces.
What is false or empty is not there, as Google leaves that out, except where a field knows whether it was set.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from azure_data import ABSENT, Object, merged

__all__ = ["ABSENT", "Estate", "Folder", "Project", "autopilot", "cluster", "merged", "policy", "pool", "repository"]

PROD, DEV, EMPTY = "shop-production", "shop-development", "shop-sandbox"
ORGANIZATION = "organizations/715382904611"
SEOUL, ZONE, IOWA = "asia-northeast3", "asia-northeast3-a", "us-central1"
LOCATIONS = ("asia-northeast3", "europe-west4", "us", "us-central1")  # of Artifact Registry
VERSION = "1.34.2-gke.1450000"
SCANNER = f"scanner@{PROD}.iam.gserviceaccount.com"
AUDITOR = f"auditor@{PROD}.iam.gserviceaccount.com"
AUTHORITY = b"-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIQGKE\n-----END CERTIFICATE-----\n"

# What the answers below hold that no report may show.
PASSWORD = "b4sic-p4ssword-of-the-cluster"
CLIENT_KEY = base64.b64encode(b"key of the client certificate, for tests").decode()
SECRETS = (PASSWORD, CLIENT_KEY)


def number(project: str) -> str:
    """The same id always gives the same number."""
    return str(100_000_000_000 + zlib.crc32(project.encode()))


# ---------------------------------------------------------------------------------------------------------------------
# Clusters


def pool(name: str = "default-pool", *, project: str = PROD, **changes: Any) -> Object:
    """A good node pool of a Standard cluster."""
    good: Object = {
        "name": name,
        "config": {
            "machineType": "e2-standard-4",
            "diskSizeGb": 100,
            "diskType": "pd-balanced",
            "oauthScopes": ["https://www.googleapis.com/auth/cloud-platform"],
            "metadata": {"disable-legacy-endpoints": "true"},
            "imageType": "COS_CONTAINERD",
            "serviceAccount": f"gke-nodes@{project}.iam.gserviceaccount.com",
            "labels": {"team": "platform"},
            "shieldedInstanceConfig": {"enableSecureBoot": True, "enableIntegrityMonitoring": True},
            "workloadMetadataConfig": {"mode": "GKE_METADATA"},
            "kubeletConfig": {"insecureKubeletReadonlyPortEnabled": False, "maxParallelImagePulls": 4},
            "bootDiskKmsKey": f"projects/{project}/locations/{SEOUL}/keyRings/gke/cryptoKeys/disks",
            "windowsNodeConfig": {},
            "effectiveCgroupMode": "EFFECTIVE_CGROUP_MODE_V2",
        },
        "initialNodeCount": 1,
        "locations": [ZONE],
        "networkConfig": {
            "podRange": "pods",
            "podIpv4CidrBlock": "10.8.0.0/14",
            "enablePrivateNodes": True,
            "subnetwork": f"projects/{project}/regions/{SEOUL}/subnetworks/gke",
        },
        "instanceGroupUrls": [
            f"https://www.googleapis.com/compute/v1/projects/{project}/zones/{ZONE}/instanceGroupManagers/gke-{name}-grp"
        ],
        "version": VERSION,
        "status": "RUNNING",
        "autoscaling": {"enabled": True, "maxNodeCount": 6},
        "management": {"autoUpgrade": True, "autoRepair": True},
        "maxPodsConstraint": {"maxPodsPerNode": "110"},
        "podIpv4CidrSize": 24,
        "upgradeSettings": {"maxSurge": 1, "strategy": "SURGE"},
        "queuedProvisioning": {},
    }
    return merged(good, changes)


def cluster(name: str = "gke-shop", *, project: str = PROD, location: str = SEOUL, **changes: Any) -> Object:
    """A good Standard cluster: private nodes, authorized networks, Dataplane V2."""
    home = f"projects/{project}/locations/{location}/clusters/{name}"
    good: Object = {
        "name": name,
        "description": "",
        "nodeConfig": pool(project=project)["config"],
        "masterAuth": {
            "clientCertificateConfig": {},
            "clusterCaCertificate": base64.b64encode(AUTHORITY).decode(),
        },
        "loggingService": "logging.googleapis.com/kubernetes",
        "monitoringService": "monitoring.googleapis.com/kubernetes",
        "network": "shop",
        "clusterIpv4Cidr": "10.8.0.0/14",
        "addonsConfig": {
            "httpLoadBalancing": {},
            "horizontalPodAutoscaling": {},
            "kubernetesDashboard": {"disabled": True},
            "networkPolicyConfig": {"disabled": True},
            "dnsCacheConfig": {"enabled": True},
            "gcePersistentDiskCsiDriverConfig": {"enabled": True},
        },
        "subnetwork": "gke",
        "nodePools": [pool("system", project=project), pool("apps", project=project)],
        "locations": [ZONE],
        "resourceLabels": {"env": "prod", "team": "platform"},
        "labelFingerprint": "78cdf2f6",
        "legacyAbac": {},
        "networkPolicy": {},
        "ipAllocationPolicy": {
            "useIpAliases": True,
            "clusterIpv4Cidr": "10.8.0.0/14",
            "servicesIpv4Cidr": "10.12.0.0/20",
            "stackType": "IPV4",
            "podCidrOverprovisionConfig": {},
        },
        "masterAuthorizedNetworksConfig": {
            "enabled": True,
            "cidrBlocks": [{"displayName": "office", "cidrBlock": "203.0.113.0/24"}],
            "gcpPublicCidrsAccessEnabled": False,
        },
        "maintenancePolicy": {
            "resourceVersion": "ce912209",
            "window": {"dailyMaintenanceWindow": {"startTime": "18:00", "duration": "PT4H0M0S"}},
        },
        "autoscaling": {"autoscalingProfile": "BALANCED"},
        "networkConfig": {
            "network": f"projects/{project}/global/networks/shop",
            "subnetwork": f"projects/{project}/regions/{SEOUL}/subnetworks/gke",
            "enableIntraNodeVisibility": True,
            "datapathProvider": "ADVANCED_DATAPATH",
            "defaultEnablePrivateNodes": True,
            "defaultSnatStatus": {},
            "serviceExternalIpsConfig": {},
        },
        "defaultMaxPodsConstraint": {"maxPodsPerNode": "110"},
        "authenticatorGroupsConfig": {"enabled": True, "securityGroup": "gke-security-groups@example.com"},
        "privateClusterConfig": {
            "enablePrivateNodes": True,
            "privateEndpoint": "10.10.0.2",
            "publicEndpoint": "34.64.10.20",
        },
        "databaseEncryption": {
            "state": "ENCRYPTED",
            "keyName": f"projects/{project}/locations/{location}/keyRings/gke/cryptoKeys/etcd",
            "currentState": "CURRENT_STATE_ENCRYPTED",
        },
        "verticalPodAutoscaling": {"enabled": True},
        "shieldedNodes": {"enabled": True},
        "releaseChannel": {"channel": "REGULAR"},
        "workloadIdentityConfig": {"workloadPool": f"{project}.svc.id.goog"},
        "notificationConfig": {"pubsub": {}},
        "binaryAuthorization": {"evaluationMode": "PROJECT_SINGLETON_POLICY_ENFORCE"},
        "costManagementConfig": {"enabled": True},
        "rbacBindingConfig": {
            "enableInsecureBindingSystemUnauthenticated": False,
            "enableInsecureBindingSystemAuthenticated": False,
        },
        "anonymousAuthenticationConfig": {"mode": "LIMITED"},
        "securityPostureConfig": {"mode": "BASIC", "vulnerabilityMode": "VULNERABILITY_DISABLED"},
        "controlPlaneEndpointsConfig": {
            "dnsEndpointConfig": {
                "endpoint": f"gke-{zlib.crc32(home.encode()):08x}-{number(project)}.{location}.gke.goog",
                "allowExternalTraffic": False,
            },
            "ipEndpointsConfig": {
                "enabled": True,
                "enablePublicEndpoint": True,
                "globalAccess": True,
                "authorizedNetworksConfig": {
                    "enabled": True,
                    "cidrBlocks": [{"displayName": "office", "cidrBlock": "203.0.113.0/24"}],
                    "gcpPublicCidrsAccessEnabled": False,
                },
                "publicEndpoint": "34.64.10.20",
                "privateEndpoint": "10.10.0.2",
            },
        },
        "selfLink": f"https://container.googleapis.com/v1/{home}",
        "zone": location,
        "endpoint": "34.64.10.20",
        "initialClusterVersion": "1.33.4-gke.1036000",
        "currentMasterVersion": VERSION,
        "currentNodeVersion": VERSION,
        "createTime": "2026-03-02T09:15:27+00:00",
        "status": "RUNNING",
        "servicesIpv4Cidr": "10.12.0.0/20",
        "instanceGroupUrls": pool(project=project)["instanceGroupUrls"],
        "currentNodeCount": 6,
        "location": location,
        "autopilot": {},
        "id": f"{zlib.crc32(home.encode()):08x}" * 8,
        "nodePoolDefaults": {"nodeConfigDefaults": {"loggingConfig": {"variantConfig": {"variant": "DEFAULT"}}}},
        "loggingConfig": {"componentConfig": {"enableComponents": ["SYSTEM_COMPONENTS", "WORKLOADS", "APISERVER"]}},
        "monitoringConfig": {
            "componentConfig": {"enableComponents": ["SYSTEM_COMPONENTS", "DAEMONSET", "POD"]},
            "managedPrometheusConfig": {"enabled": True},
        },
        "etag": f"{zlib.crc32(name.encode()):08x}",
    }
    return merged(good, changes)


def autopilot(name: str = "gke-auto", *, project: str = PROD, location: str = SEOUL, **changes: Any) -> Object:
    """An Autopilot cluster: Google runs the nodes, and lists pools of its own."""
    own = {
        "autopilot": {"enabled": True},
        "nodePools": [pool("default-pool", project=project), pool("nap-1abc", project=project)],
        "autoscaling": {
            "enableNodeAutoprovisioning": True,
            "autoprovisioningNodePoolDefaults": {
                "imageType": "COS_CONTAINERD",
                "serviceAccount": f"gke-nodes@{project}.iam.gserviceaccount.com",
                "management": {"autoUpgrade": True, "autoRepair": True},
            },
        },
        "nodePoolAutoConfig": {"nodeKubeletConfig": {"insecureKubeletReadonlyPortEnabled": False}},
    }
    return merged(cluster(name, project=project, location=location, **own), changes)


def bad_cluster(name: str = "gke-old", *, project: str = PROD, location: str = ZONE, **changes: Any) -> Object:
    """A zonal cluster as they were made years ago, with everything off; of its four pools the last is the worst."""
    bad_pool = {
        "config": {
            "serviceAccount": "default",
            "imageType": "UBUNTU_CONTAINERD",
            "metadata": ABSENT,
            "shieldedInstanceConfig": {"enableSecureBoot": ABSENT, "enableIntegrityMonitoring": ABSENT},
            "workloadMetadataConfig": ABSENT,
            "kubeletConfig": {"insecureKubeletReadonlyPortEnabled": True},
            "bootDiskKmsKey": ABSENT,
        },
        "networkConfig": {"enablePrivateNodes": False},
        "management": {"autoUpgrade": ABSENT, "autoRepair": ABSENT},
    }
    old = {
        "masterAuth": {
            "username": "admin",
            "password": PASSWORD,
            "clientCertificateConfig": {"issueClientCertificate": True},
            "clientCertificate": base64.b64encode(b"certificate of the client, for tests").decode(),
            "clientKey": CLIENT_KEY,
        },
        "nodePools": [*(pool(f"pool-{n}", project=project) for n in (1, 2, 3)), pool("pool-4", **bad_pool)],
        "loggingService": "none",
        "monitoringService": "none",
        "loggingConfig": {"componentConfig": {"enableComponents": ABSENT}},
        "monitoringConfig": {"componentConfig": {"enableComponents": ABSENT}},
        "addonsConfig": {"kubernetesDashboard": {"disabled": ABSENT}},
        "legacyAbac": {"enabled": True},
        "ipAllocationPolicy": ABSENT,
        "masterAuthorizedNetworksConfig": {"enabled": ABSENT, "cidrBlocks": ABSENT},
        "networkConfig": {
            "enableIntraNodeVisibility": ABSENT,
            "datapathProvider": ABSENT,
            "defaultEnablePrivateNodes": False,
        },
        "authenticatorGroupsConfig": ABSENT,
        "privateClusterConfig": ABSENT,
        "databaseEncryption": {"state": "DECRYPTED", "keyName": ABSENT, "currentState": "CURRENT_STATE_DECRYPTED"},
        "shieldedNodes": {"enabled": ABSENT},
        "releaseChannel": {"channel": ABSENT},
        "workloadIdentityConfig": ABSENT,
        "binaryAuthorization": {"evaluationMode": ABSENT},
        "rbacBindingConfig": ABSENT,
        "anonymousAuthenticationConfig": {"mode": "ENABLED"},
        "securityPostureConfig": {"mode": "DISABLED"},
        "controlPlaneEndpointsConfig": ABSENT,
    }
    return merged(cluster(name, project=project, location=location, **old), changes)


# ---------------------------------------------------------------------------------------------------------------------
# Artifact Registry


def repository(name: str = "images", *, project: str = PROD, location: str = SEOUL, **changes: Any) -> Object:
    """A good repository of container images."""
    good: Object = {
        "name": f"projects/{project}/locations/{location}/repositories/{name}",
        "format": "DOCKER",
        "labels": {"team": "platform"},
        "createTime": "2026-03-02T09:15:27.041826Z",
        "updateTime": "2026-10-02T09:15:27.041826Z",
        "kmsKeyName": f"projects/{project}/locations/{location}/keyRings/gar/cryptoKeys/images",
        "dockerConfig": {"immutableTags": True},
        "mode": "STANDARD_REPOSITORY",
        "sizeBytes": "1879048192",
        "vulnerabilityScanningConfig": {
            "lastEnableTime": "2026-03-02T09:15:20.104Z",
            "enablementState": "SCANNING_ACTIVE",
        },
        "satisfiesPzi": True,
        "registryUri": f"{location}-docker.pkg.dev/{project}/{name}",
    }
    return merged(good, changes)


def bad_repository(name: str = "public", *, project: str = PROD, location: str = SEOUL, **changes: Any) -> Object:
    bad = {
        "kmsKeyName": ABSENT,
        "dockerConfig": ABSENT,
        "vulnerabilityScanningConfig": {
            "enablementState": "SCANNING_DISABLED",
            "enablementStateReason": "API containerscanning.googleapis.com is not enabled.",
        },
    }
    return merged(repository(name, project=project, location=location, **bad), changes)


def policy(*members: str, role: str = "roles/artifactregistry.reader") -> Object:
    """A policy of IAM that gives one role; without members, one that gives none."""
    bindings = {"bindings": [{"role": role, "members": list(members)}]} if members else {}
    return {"version": 1, "etag": "BwYp3xTn1Zk=", **bindings}


# ---------------------------------------------------------------------------------------------------------------------
# Images


def digest(of: str) -> str:
    """The same text always gives the same digest."""
    return f"sha256:{hashlib.sha256(of.encode()).hexdigest()}"


def uri(path: str, *, project: str = PROD, location: str = SEOUL) -> str:
    """Where an image of a repository is: path "images/app" has the digest of that text."""
    return f"{location}-docker.pkg.dev/{project}/{path}@{digest(path)}"


def image(path: str, *tags: str, project: str = PROD, location: str = SEOUL, **changes: Any) -> Object:
    """A dockerImage of one platform; `path` is that of the repository and of the image in it, "images/app"."""
    repository, _, name = path.partition("/")
    where = f"projects/{project}/locations/{location}/repositories/{repository}/dockerImages"
    wire: Object = {
        "name": f"{where}/{name.replace('/', '%2F')}@{digest(path)}",
        "uri": uri(path, project=project, location=location),
        "imageSizeBytes": "31457280",
        "uploadTime": "2026-11-02T08:01:11.503417Z",
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "buildTime": "2026-11-02T08:00:02.113Z",
        "updateTime": "2026-11-02T08:01:11.503417Z",
    }
    return merged(wire, ({"tags": list(tags)} if tags else {}) | changes)


def index(path: str, *tags: str, platforms: Mapping[str, str], project: str = PROD, **changes: Any) -> Object:
    """A dockerImage of several platforms; `platforms` are their digests by "os/architecture[/variant]"."""
    names = ("os", "architecture", "variant")
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifests = [
        {**dict(zip(names, platform.split("/"), strict=False)), "digest": of, "mediaType": kind}
        for platform, of in platforms.items()
    ]
    changes = {"mediaType": "application/vnd.oci.image.index.v1+json", "imageManifests": manifests} | changes
    return image(path, *tags, project=project, **changes)


def analysis(at: str, *, project: str = PROD, status: str = "FINISHED_SUCCESS", **changes: Any) -> Object:
    """A discovery occurrence; `at` is a uri, and `changes` are those of the analysis."""
    discovery: Object = {
        "continuousAnalysis": "ACTIVE",
        "analysisStatus": status,
        "analysisCompleted": {"analysisType": ["OS", "GO"]},
        "lastScanTime": "2026-11-20T04:10:31.812943Z",
    }
    return _occurrence(
        "DISCOVERY",
        at,
        project,
        noteName=f"projects/goog-analysis/locations/{SEOUL}/notes/PACKAGE_VULNERABILITY",
        discovery=merged(discovery, changes),
    )


def vulnerability(
    at: str,
    id: str = "CVE-2026-1001",
    severity: str = "HIGH",
    /,
    *packages: Object,
    project: str = PROD,
    **changes: Any,
) -> Object:
    """A vulnerability occurrence; `at` is a uri, and `changes` are those of the vulnerability."""
    told: Object = {
        "severity": severity,
        "cvssScore": 7.5,
        "cvssVersion": "CVSS_VERSION_3",
        "effectiveSeverity": severity,
        "fixAvailable": True,
        "longDescription": "NIST vectors: CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H",
        "relatedUrls": [{"label": "More Info", "url": f"https://security-tracker.debian.org/tracker/{id}"}],
        "packageIssue": list(packages) or [issue(severity=severity)],
    }
    return _occurrence(
        "VULNERABILITY",
        at,
        project,
        noteName=f"projects/goog-vulnz/notes/{id}",
        vulnerability=merged(told, changes),
    )


def issue(package: str = "zlib", *, severity: str = "HIGH", **changes: Any) -> Object:
    wire: Object = {
        "affectedCpeUri": "cpe:/o:debian:debian_linux:12",
        "affectedPackage": package,
        "affectedVersion": {"name": "1.2.13.dfsg", "revision": "1", "kind": "NORMAL", "fullName": "1:1.2.13.dfsg-1"},
        "fixedCpeUri": "cpe:/o:debian:debian_linux:12",
        "fixedPackage": package,
        "fixedVersion": {"name": "1.2.13.dfsg", "revision": "2", "kind": "NORMAL", "fullName": "1:1.2.13.dfsg-2"},
        "fixAvailable": True,
        "packageType": "OS",
        "effectiveSeverity": severity,
    }
    return merged(wire, changes)


def _occurrence(kind: str, at: str, project: str, **more: Any) -> Object:
    name = hashlib.sha256(f"{kind} {at} {more}".encode()).hexdigest()[:32]
    return {
        "name": f"projects/{project}/locations/{SEOUL}/occurrences/{name}",
        "resourceUri": f"https://{at}",
        "kind": kind,
        "createTime": "2026-11-02T08:01:20.103417Z",
        "updateTime": "2026-11-20T04:10:31.812943Z",
        **more,
    }


# ---------------------------------------------------------------------------------------------------------------------
# Projects


@dataclass
class Project:
    """One project. `off` are the services that are not enabled in it; `missing` the locations that do not answer."""

    id: str
    name: str = ""
    parent: str = ORGANIZATION
    clusters: list[Object] = field(default_factory=list)
    repositories: list[Object] = field(default_factory=list)
    policies: dict[str, Object] = field(default_factory=dict)  # by the repository's name; else nobody has a role
    images: list[Object] = field(default_factory=list)
    occurrences: list[Object] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    off: set[str] = field(default_factory=set)
    state: str = "ACTIVE"

    def wire(self) -> Object:
        return {
            "name": f"projects/{number(self.id)}",
            "parent": self.parent,
            "projectId": self.id,
            "state": self.state,
            "displayName": self.name or self.id,
            "createTime": "2025-01-14T02:11:53.041826Z",
            "etag": 'W/"88b1a3f3c2ef0d11"',
        }


@dataclass
class Folder:
    id: str  # "folders/1234"
    name: str
    parent: str = ORGANIZATION

    def wire(self) -> Object:
        return {"name": self.id, "parent": self.parent, "displayName": self.name, "state": "ACTIVE"}


@dataclass
class Estate:
    projects: dict[str, Project]
    folders: list[Folder] = field(default_factory=list)

    @classmethod
    def of(cls, *projects: Project, folders: tuple[Folder, ...] = ()) -> Estate:
        return cls({project.id: project for project in projects}, list(folders))

    def find(self, name: str) -> Project | None:
        """A project by its id or number."""
        return next((p for p in self.projects.values() if name in (p.id, number(p.id))), None)

    def cluster(self, name: str, project: str = PROD) -> Object:
        return next(item for item in self.projects[project].clusters if item["name"] == name)

    def connect(self, name: str, address: str, ca: bytes, project: str = PROD) -> None:
        """Let a cluster's IP endpoint lead to this server ("host:port"), with a certificate of this authority (PEM)."""
        found = self.cluster(name, project)
        found["endpoint"] = address
        found["masterAuth"] = found["masterAuth"] | {"clusterCaCertificate": base64.b64encode(ca).decode()}


def sample_estate() -> Estate:
    """Production with a good, an Autopilot and a bad cluster; Development two folders down; a project without GKE."""
    public = bad_repository()
    production = Project(
        PROD,
        "Production",
        clusters=[cluster(), autopilot(), bad_cluster()],
        repositories=[repository(), public, repository("mirror", location=IOWA)],
        policies={public["name"]: policy("user:ci@example.com", "allUsers")},
    )
    development = Project(
        DEV,
        "Development",
        parent="folders/200",
        clusters=[cluster("gke-dev", project=DEV, location=IOWA)],
        repositories=[repository("dev", project=DEV, location=IOWA)],
    )
    sandbox = Project(EMPTY, "Sandbox", parent="folders/100", off={"container", "artifactregistry"})
    folders = (Folder("folders/100", "Teams"), Folder("folders/200", "Shop", parent="folders/100"))
    return Estate.of(production, development, sandbox, folders=folders)


def _authority(of: str) -> Object:
    """Each cluster has one of its own."""
    body = base64.b64encode(of.encode())
    pem = b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n"
    return {"clusterCaCertificate": base64.b64encode(pem).decode()}


def large_estate(projects: int, clusters: int) -> Estate:
    """Clusters of five pools, spread over projects."""

    def each() -> Iterator[Project]:
        for index in range(projects):
            id = f"project-{index:04}"
            pools = [pool(f"pool-{n}", project=id) for n in range(5)]
            count = clusters // projects + (index < clusters % projects)
            own = [
                cluster(f"gke-{n:04}", project=id, nodePools=pools, masterAuth=_authority(f"{id} {n}"))
                for n in range(count)
            ]
            yield Project(id, clusters=own, repositories=[repository(project=id)])

    return Estate.of(*each())
