"""Who we are in Azure: azure-identity's own chain, for one tenant and cloud."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import threading
import time
from dataclasses import dataclass
from typing import Any

from providers.azure.errors import ArmError, UsageError
from scanner.model import GapReason
from scanner.plain import plain

# The server application of AKS, the same in every cloud: Entra tokens for API servers are minted for it.
AKS_SERVER = "6dae42f8-4368-4678-94ff-3960e28e3630/.default"


@dataclass(frozen=True)
class Cloud:
    """One Azure cloud: where its Resource Manager and its logins are."""

    name: str
    arm: str
    authority: str
    audience: str

    @property
    def scope(self) -> str:
        return f"{self.audience}/.default"


CLOUDS = {
    cloud.name: cloud
    for cloud in (
        Cloud(
            "AzureCloud",
            "https://management.azure.com",
            "login.microsoftonline.com",
            "https://management.azure.com",
        ),
        Cloud(
            "AzureUSGovernment",
            "https://management.usgovcloudapi.net",
            "login.microsoftonline.us",
            "https://management.core.usgovcloudapi.net",
        ),
        Cloud(
            "AzureChinaCloud",
            "https://management.chinacloudapi.cn",
            "login.chinacloudapi.cn",
            "https://management.chinacloudapi.cn",
        ),
    )
}


RENEWED = 300  # seconds before a token ends


class Credential:
    """azure-identity's default chain, asked for tokens of one tenant if one is named. May be used by many threads."""

    def __init__(self, cloud: Cloud, tenant: str | None) -> None:
        """Raises UsageError where the environment describes a credential that cannot be."""
        from azure.identity import DefaultAzureCredential

        # What they have to say is in the errors that they raise, which are told in one sentence and without secrets.
        for name in ("azure", "msal"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # In the usual cloud AZURE_AUTHORITY_HOST keeps its meaning.
        own_cloud = {} if cloud.name == "AzureCloud" else {"authority": cloud.authority}
        tenants: dict[str, Any] = {"additionally_allowed_tenants": [tenant]} if tenant else {}
        if _is_name(tenant):
            tenants["exclude_managed_identity_credential"] = True
        try:
            self._chain = DefaultAzureCredential(**own_cloud, **tenants)
        except (ValueError, OSError) as error:
            problem = f"the Azure credential of this environment cannot be used: {plain(str(error))}"
            raise UsageError(problem + (f"; {_BY_NAME}" if _is_name(tenant) else "")) from None
        self._tenant = tenant
        self._kept: dict[str, tuple[str, float]] = {}  # by scope, with the time until which it is used
        self._lock = threading.Lock()

    def get_token_info(self, *scopes: str, options: Any = None) -> Any:
        if self._tenant:
            options = {**(options or {}), "tenant_id": self._tenant}
        return self._chain.get_token_info(*scopes, options=options)

    def get_token(self, *scopes: str, **options: Any) -> Any:
        if self._tenant:
            options["tenant_id"] = self._tenant
        return self._chain.get_token(*scopes, **options)

    def close(self) -> None:
        self._chain.close()

    def token(self, scope: str) -> str:
        """A bearer token, of the tenant that was asked for. Raises ArmError."""
        with self._lock:  # the Azure CLI keeps no token: it would be started for each cluster
            if (kept := self._kept.get(scope)) and kept[1] > time.time():
                return kept[0]
            return self._minted(scope)

    def _minted(self, scope: str) -> str:
        from azure.core.exceptions import AzureError

        try:
            found = self.get_token_info(scope)
            token: str = found.token
        except (AzureError, ValueError, OSError) as error:
            raise ArmError(GapReason.NOT_CONFIGURED, explain(str(error), self._tenant)) from None
        tenant = _tenant_of(token)
        if self._tenant and tenant and not _is_name(self._tenant) and tenant != self._tenant.lower():
            raise ArmError(
                GapReason.NOT_CONFIGURED,
                f"the credential belongs to tenant {tenant}, not to tenant {self._tenant} that --tenant names",
            )
        self._kept[scope] = token, found.expires_on - RENEWED
        return token


_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# It has tokens of its own tenant alone, whatever is asked for, and those name the tenant by its id.
_BY_NAME = "a managed identity is used only where --tenant is the tenant's id, and not its name"
_TRIED = re.compile(r"^\s*(\w+Credential): ?(.*)", re.MULTILINE)
_NOT_THERE = re.compile(r"unavailable|could not be found|not found on path|not installed|\brequires\b")


def _is_name(tenant: str | None) -> bool:
    return bool(tenant) and not _GUID.fullmatch(tenant or "")


def _tenant_of(token: str) -> str:
    """The tenant that a token says it is of; "" where it is no JWT. Only compared, never trusted."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return str(claims.get("tid", "")).lower()
    except (IndexError, ValueError, AttributeError, binascii.Error):
        return ""


def explain(message: str, tenant: str | None) -> str:
    """One sentence of what azure-identity says over many lines: what was tried, and what the last of them said."""
    tried = _TRIED.findall(message)
    names = ", ".join(dict.fromkeys(name.removesuffix("Credential") for name, _ in tried))
    # The chain stops at one that is configured and refused; those before it are only not there.
    said = next((text for _, text in reversed(tried) if text and not _NOT_THERE.search(text)), "")
    said = said or ("" if tried else message)
    where = f" for tenant {plain(tenant)}" if tenant else ""
    sentence = f"no Azure credential{where} worked" + (f"; tried: {names}" if names else "")
    if said:
        sentence += f"; it said: {plain(said)[:250]}"
    if _is_name(tenant):
        sentence += f"; {_BY_NAME}"
    return f"{sentence}; log in with `az login`, or set AZURE_CLIENT_ID, AZURE_TENANT_ID and a secret or certificate"
