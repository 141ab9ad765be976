"""What can go wrong between here and Google Cloud, in one plain sentence that is safe to show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from providers.errors import CloudError
from scanner.model import GapReason
from scanner.plain import plain

_REASONS = {
    401: GapReason.FORBIDDEN,
    403: GapReason.FORBIDDEN,
    404: GapReason.NOT_FOUND,
    408: GapReason.TIMEOUT,
    429: GapReason.THROTTLED,
    504: GapReason.TIMEOUT,
}
_PERMISSION = re.compile(r"[a-z]\w*(?:\.\w+){1,3}")
_CONSUMER = re.compile(r"projects/[\w.:-]{1,100}")
_SECONDS = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s")


class GcpError(CloudError):
    """A call that got no usable answer.

    `code` is the HTTP status, or that which a gRPC status stands for; 0 where there was no answer. `permission` is the
    right that would close the gap. `off_in` is the project ("projects/...") in which Google says that the API is not
    enabled; that may be one to which requests are charged, and not the one that was asked about. `wait` is after how
    many seconds Google wants to be asked again.
    """

    def __init__(
        self,
        reason: GapReason,
        detail: str,
        *,
        code: int = 0,
        permission: str = "",
        off_in: str = "",
        wait: float | None = None,
    ) -> None:
        super().__init__(reason, detail)
        self.code = code
        self.permission = permission
        self.off_in = off_in
        self.wait = wait


class UsageError(Exception):
    """A project, service account or endpoint that cannot be used: one sentence that says what would be right."""


class WriteRefused(Exception):
    """The guard stopped a call that might change something."""


def refusal(
    code: int, status: str, message: str, details: Iterable[Any], *, service: str = "", permission: str = ""
) -> GcpError:
    """What Google said instead of an answer. `details` are google.rpc's, in their JSON form; `permission` is the right
    that the call takes."""
    found = [detail for detail in details if isinstance(detail, dict)]
    infos = [detail for detail in found if _is(detail, "ErrorInfo")]
    info = infos[0] if len(infos) == 1 else {}
    why = str(info.get("reason") or "")
    metadata = info.get("metadata")
    said = metadata if isinstance(metadata, dict) else {}
    if why == "RATE_LIMIT_EXCEEDED":
        code = 429
    reason = _REASONS.get(code, GapReason.SERVER_ERROR if code >= 500 else GapReason.BAD_DATA)
    return GcpError(
        reason,
        plain(f"{status}: {message}" if message else status),
        code=code,
        permission=_permission(why, said, permission) if code == 403 else "",
        off_in=_off_in(said, service) if code == 403 and why == "SERVICE_DISABLED" else "",
        wait=next((_wait(detail) for detail in found if _is(detail, "RetryInfo")), None),
    )


def _is(detail: Mapping[str, Any], name: str) -> bool:
    return str(detail.get("@type", "")).endswith(f"google.rpc.{name}")


def _permission(why: str, said: Mapping[str, Any], asked: str) -> str:
    """The right that is missing, "" where rights are not what is missing."""
    named = said.get("permission")
    if isinstance(named, str) and _PERMISSION.fullmatch(named):
        return named
    if why == "USER_PROJECT_DENIED":
        return "serviceusage.services.use"
    return asked if why in ("", "IAM_PERMISSION_DENIED") else ""


def _off_in(said: Mapping[str, Any], service: str) -> str:
    consumer = said.get("consumer")
    if said.get("service") != f"{service}.googleapis.com" or not isinstance(consumer, str):
        return ""
    return consumer if _CONSUMER.fullmatch(consumer) else ""


def _wait(detail: Mapping[str, Any]) -> float | None:
    match = _SECONDS.fullmatch(str(detail.get("retryDelay")))
    return float(match[1]) if match else None
