"""Kubernetes objects as they stand on the wire.

Structs hold only the fields that some check reads, each optional and nullable, because explicit null equals absent in
Kubernetes. They are decoded strictly from JSON bytes: a value of the wrong type is an error, never a guess.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from scanner.kube import Quantity

# What the API server accepts; anything else is not understood rather than judged.
Id = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
PortNumber = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Wire(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Base of all wire structs; unknown fields are skipped without becoming Python objects."""


class OwnerReference(Wire, frozen=True):
    api_version: str | None = None
    kind: str | None = None
    name: str | None = None
    controller: bool | None = None


class Meta(Wire, frozen=True):
    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    labels: dict[str, Any] | None = None
    annotations: dict[str, Any] | None = None
    owner_references: tuple[OwnerReference, ...] | None = None


class Header(Wire, frozen=True):
    """What tells an object's kind."""

    api_version: str | None = None
    kind: str | None = None


class MetaOnly(Wire, frozen=True):
    metadata: Meta | None = None


class Capabilities(Wire, frozen=True):
    add: tuple[str, ...] | None = None
    drop: tuple[str, ...] | None = None


class AppArmorProfile(Wire, frozen=True):
    type: str | None = None
    localhost_profile: str | None = None


class SecurityContext(Wire, frozen=True):
    """Of a container."""

    privileged: bool | None = None
    allow_privilege_escalation: bool | None = None
    read_only_root_filesystem: bool | None = None
    run_as_non_root: bool | None = None
    run_as_user: Id | None = None
    run_as_group: Id | None = None
    capabilities: Capabilities | None = None
    app_armor_profile: AppArmorProfile | None = None


class PodSecurityContext(Wire, frozen=True):
    run_as_non_root: bool | None = None
    run_as_user: Id | None = None
    run_as_group: Id | None = None
    fs_group: Id | None = None
    supplemental_groups: tuple[Id, ...] | None = None
    app_armor_profile: AppArmorProfile | None = None


class Port(Wire, frozen=True):
    container_port: PortNumber | None = None
    host_port: PortNumber | None = None


class Resources(Wire, frozen=True):
    limits: dict[str, Quantity] | None = None


class VolumeMount(Wire, frozen=True):
    name: str | None = None
    mount_path: str | None = None
    read_only: bool | None = None


class Container(Wire, frozen=True):
    name: str | None = None
    image: str | None = None
    ports: tuple[Port, ...] | None = None
    resources: Resources | None = None
    volume_mounts: tuple[VolumeMount, ...] | None = None
    security_context: SecurityContext | None = None


class HostPathSource(Wire, frozen=True):
    path: str | None = None


class TokenSource(Wire, frozen=True):
    audience: str | None = None


class ProjectedItem(Wire, frozen=True):
    service_account_token: TokenSource | None = None


class ProjectedSource(Wire, frozen=True):
    sources: tuple[ProjectedItem, ...] | None = None


class SecretSource(Wire, frozen=True):
    secret_name: str | None = None


class Volume(Wire, frozen=True):
    name: str | None = None
    secret: SecretSource | None = None
    host_path: HostPathSource | None = None
    projected: ProjectedSource | None = None


class PodOS(Wire, frozen=True):
    name: str | None = None


class PodSpec(Wire, frozen=True):
    """Containers stay raw: each is decoded alone, so that one that cannot be understood costs only itself."""

    containers: tuple[Raw, ...] | None = None
    init_containers: tuple[Raw, ...] | None = None
    ephemeral_containers: tuple[Raw, ...] | None = None
    volumes: tuple[Volume, ...] | None = None
    security_context: PodSecurityContext | None = None
    resources: Resources | None = None
    host_network: bool | None = None
    host_pid: bool | None = msgspec.field(name="hostPID", default=None)
    host_ipc: bool | None = msgspec.field(name="hostIPC", default=None)
    host_users: bool | None = None
    automount_service_account_token: bool | None = None
    service_account_name: str | None = None
    service_account: str | None = None
    node_name: str | None = None
    node_selector: dict[str, Any] | None = None
    os: PodOS | None = None


class PodMeta(Wire, frozen=True):
    """Annotations stay raw: on most pods nothing reads them."""

    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None
    labels: dict[str, Any] | None = None
    annotations: Raw | UnsetType = UNSET
    owner_references: tuple[OwnerReference, ...] | None = None


class ContainerStatus(Wire, frozen=True):
    name: str | None = None
    image_id: str | None = msgspec.field(name="imageID", default=None)


class PodStatus(Wire, frozen=True):
    """What runs stays raw: where that is not understood, the pod itself is judged all the same."""

    phase: str | None = None
    container_statuses: Raw | UnsetType = UNSET
    init_container_statuses: Raw | UnsetType = UNSET
    ephemeral_container_statuses: Raw | UnsetType = UNSET


class Pod(Wire, frozen=True):
    metadata: PodMeta | None = None
    spec: Raw | UnsetType = UNSET
    status: PodStatus | None = None


class Template(Wire, frozen=True):
    metadata: Meta | None = None
    spec: Raw | UnsetType = UNSET


class ControllerSpec(Wire, frozen=True):
    replicas: int | None = None
    template: Template | None = None


class Condition(Wire, frozen=True):
    type: str | None = None
    status: str | None = None


class ControllerStatus(Wire, frozen=True):
    conditions: tuple[Condition, ...] | None = None


class Controller(Wire, frozen=True):
    spec: ControllerSpec | None = None
    status: ControllerStatus | None = None


class JobTemplate(Wire, frozen=True):
    spec: ControllerSpec | None = None


class CronJobSpec(Wire, frozen=True):
    job_template: JobTemplate | None = None


class CronJob(Wire, frozen=True):
    spec: CronJobSpec | None = None


class PodTemplate(Wire, frozen=True):
    template: Template | None = None


class ServicePort(Wire, frozen=True):
    port: PortNumber | None = None


class ServiceSpec(Wire, frozen=True):
    type: str | None = None
    ports: tuple[ServicePort, ...] | None = None


class Service(Wire, frozen=True):
    metadata: Meta | None = None
    spec: ServiceSpec | None = None


class TLS(Wire, frozen=True):
    hosts: tuple[str, ...] | None = None


class Rule(Wire, frozen=True):
    host: str | None = None


class IngressSpec(Wire, frozen=True):
    ingress_class_name: str | None = None
    tls: tuple[TLS, ...] | None = None
    rules: tuple[Rule, ...] | None = None


class Ingress(Wire, frozen=True):
    metadata: Meta | None = None
    spec: IngressSpec | None = None


class IngressClassSpec(Wire, frozen=True):
    controller: str | None = None


class IngressClass(Wire, frozen=True):
    metadata: Meta | None = None
    spec: IngressClassSpec | None = None


class RedirectToHttps(Wire, frozen=True):
    enabled: bool | None = None


class FrontendConfigSpec(Wire, frozen=True):
    redirect_to_https: RedirectToHttps | None = None


class FrontendConfig(Wire, frozen=True):
    metadata: Meta | None = None
    spec: FrontendConfigSpec | None = None


class ServiceAccount(Wire, frozen=True):
    metadata: Meta | None = None
    automount_service_account_token: bool | None = None


class Secret(Wire, frozen=True):
    """Type and name only: data of Secrets never becomes a Python object."""

    metadata: Meta | None = None
    type: str | None = None


class LimitRangeItem(Wire, frozen=True):
    type: str | None = None
    default: dict[str, Quantity] | None = None


class LimitRangeSpec(Wire, frozen=True):
    limits: tuple[LimitRangeItem, ...] | None = None


class LimitRange(Wire, frozen=True):
    metadata: Meta | None = None
    spec: LimitRangeSpec | None = None


class Subject(Wire, frozen=True):
    kind: str | None = None
    name: str | None = None
    namespace: str | None = None


class Binding(Wire, frozen=True):
    metadata: Meta | None = None
    subjects: tuple[Subject, ...] | None = None
