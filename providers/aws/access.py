"""The way into an EKS cluster: endpoint and authority from its description, a presigned STS request as the token."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from providers.aws.errors import AwsError
from providers.aws.session import AwsAccount
from scanner.model import GapReason
from scanner.plain import plain

SECONDS = 60  # that a presigned request is good for; API servers accept it for 15 minutes


@dataclass(frozen=True)
class Access:
    server: str
    ca: bytes
    token: Callable[[], str] = field(repr=False)


def api_access(account: AwsAccount, region: str, description: dict[str, Any]) -> Access:
    """From what eks:DescribeCluster gave. Raises AwsError."""
    server, authority = description.get("endpoint"), description.get("certificateAuthority")
    if not isinstance(server, str) or not server.startswith("https://"):
        raise AwsError(GapReason.BAD_DATA, "AWS gave no https endpoint for its API server")
    try:
        ca = base64.b64decode(str((authority or {}).get("data") or ""), validate=True)
    except (AttributeError, binascii.Error):
        ca = b""
    if not ca:
        raise AwsError(GapReason.BAD_DATA, "AWS gave no usable certificate authority for its API server")
    name = str(description.get("name", ""))
    return Access(server, ca, lambda: token(account, region, name))


def token(account: AwsAccount, region: str, cluster: str) -> str:
    """Says who we are to one cluster and nobody else: sts:GetCallerIdentity, signed with the cluster's name. Raises
    AwsError."""
    from botocore.exceptions import BotoCoreError
    from botocore.signers import RequestSigner

    sts = account.client("sts", region)
    credentials = account.credentials()
    signer = RequestSigner(
        sts.meta.service_model.service_id, region, "sts", "v4", credentials, sts.meta.events
    )  # fmt: skip
    # Where an API server looks the caller up: never a redirected endpoint.
    host = account.sts_host(region)
    request = {
        "method": "GET",
        "url": f"https://{host}/?Action=GetCallerIdentity&Version=2011-06-15",
        "body": {},
        "headers": {"x-k8s-aws-id": cluster},
        "context": {},
    }
    try:
        url = signer.generate_presigned_url(request, region_name=region, expires_in=SECONDS, operation_name="")
    except BotoCoreError as error:
        raise AwsError(GapReason.NOT_CONFIGURED, plain(str(error))) from None
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
