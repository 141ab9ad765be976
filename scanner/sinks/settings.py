"""`sinks` of kubeposture.yaml. Secrets are in none of it: only the environment variable or file that holds them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec


class SecretError(Exception):
    """A secret that is not there: one sentence."""


class _Sink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One receiver of events."""


class SplunkSink(_Sink, frozen=True):
    """A HTTP Event Collector. `index` is the token's own where none is named."""

    url: str
    index: str | None = None
    token_env: str = "SPLUNK_HEC_TOKEN"  # noqa: S105 - the name of a variable
    token_file: str | None = None


class SentinelSink(_Sink, frozen=True):
    """A Log Analytics workspace: `rule` is the immutable id of its data collection rule (dcr-…)."""

    endpoint: str
    rule: str
    stream: str = "Custom-Kubeposture_CL"
    tenant: str | None = None
    cloud: Literal["AzureCloud", "AzureUSGovernment", "AzureChinaCloud"] = "AzureCloud"


class SecurityHubSink(_Sink, frozen=True):
    """AWS Security Hub of one account and region, that of the credentials where none is named."""

    region: str | None = None
    aws_profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = None


class ObjectsSink(_Sink, frozen=True):
    """Files of events below s3://BUCKET/PREFIX, https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX, gs://BUCKET/PREFIX
    or file:///DIRECTORY."""

    url: str
    region: str | None = None
    aws_profile: str | None = None


class WebhookSink(_Sink, frozen=True):
    """Any HTTPS address. The token is sent as a bearer, the secret signs each body."""

    url: str
    token_env: str | None = None
    token_file: str | None = None
    secret_env: str | None = None
    secret_file: str | None = None


Settings = SplunkSink | SentinelSink | SecurityHubSink | ObjectsSink | WebhookSink


class NamedSink(_Sink, frozen=True):
    """Exactly one of its keys, and a name where several are of one kind."""

    name: str | None = None
    splunk: SplunkSink | None = None
    sentinel: SentinelSink | None = None
    security_hub: SecurityHubSink | None = None
    objects: ObjectsSink | None = None
    webhook: WebhookSink | None = None

    def __post_init__(self) -> None:
        kinds = self.__struct_fields__[1:]
        if sum(getattr(self, kind) is not None for kind in kinds) != 1:
            raise ValueError(f"a sink has exactly one of the keys {', '.join(kinds)}")

    @property
    def kind(self) -> str:
        return next(kind for kind in self.__struct_fields__[1:] if getattr(self, kind) is not None)

    @property
    def label(self) -> str:
        """What it is known under from scan to scan."""
        return self.name or self.kind

    @property
    def settings(self) -> Settings:
        found: Settings = getattr(self, self.kind)
        return found


_MOST = 64 * 1024  # bytes of a file with a secret


def secret(variable: str | None, file: str | None, what: str) -> str:
    """From the file where one is named, else from the variable; raises SecretError."""
    if file:
        try:
            with Path(file).open("rb") as opened:
                value = opened.read(_MOST + 1).decode().strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SecretError(f"{what}: {file} cannot be read: {reason}") from None
        if not value or len(value) >= _MOST or not value.isprintable():
            raise SecretError(f"{what}: {file} holds no secret on one line")
        return value
    value = os.environ.get(variable or "", "").strip()
    if not value or not value.isprintable():
        raise SecretError(f"{what}: set the environment variable {variable}, or name a file that holds it")
    return value
