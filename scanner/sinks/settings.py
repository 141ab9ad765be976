"""`sinks` of kubeposture.yaml. Secrets are in none of it: only the environment variable or file that holds them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

import msgspec

SPLUNK_TOKEN = "SPLUNK_HEC_TOKEN"  # noqa: S105 - the name of a variable


class SecretError(Exception):
    """A secret that is not there: one sentence."""


class _Sink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One receiver of events. A key that is there says something: what is empty would fall back to a default that was
    not meant."""

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            if isinstance(value := getattr(self, key), str) and not value.strip():
                raise ValueError(f"{key} is empty: leave it out, or name something")


class SplunkSink(_Sink, frozen=True):
    """A HTTP Event Collector. `index` is the token's own where none is named."""

    url: str
    index: str | None = None
    token_env: str = SPLUNK_TOKEN
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
        super().__post_init__()
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


def secret(settings: SplunkSink | WebhookSink, key: Literal["token", "secret"]) -> str:
    """From the file that KEY_file names, else from the variable that KEY_env names. Raises SecretError, which shows no
    name but the default one: many a name is the secret itself, put into the wrong place."""
    file, variable = getattr(settings, f"{key}_file"), getattr(settings, f"{key}_env")
    if file is not None:
        value = _content(file, f"the file that {key}_file names")
        if not value or len(value) >= _MOST or not value.isprintable():
            raise SecretError(f"the file that {key}_file names holds no secret on one line")
        return value
    value = os.environ.get(variable, "").strip()
    if not value or not value.isprintable():
        named = variable if variable == SPLUNK_TOKEN else f"that {key}_env names"
        raise SecretError(f"set the environment variable {named}, or name a file that holds it in {key}_file")
    return value


def _content(file: str, what: str) -> str:
    try:
        if not stat.S_ISREG(Path(file).stat().st_mode):  # a pipe might wait for ever, a device never end
            raise SecretError(f"{what} is no regular file")
        with Path(file).open("rb") as opened:
            return opened.read(_MOST + 1).decode().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SecretError(f"{what} cannot be read: {reason}") from None
