"""What can go wrong between here and AWS, in one plain sentence that is safe to show."""

from __future__ import annotations

from providers.errors import CloudError
from scanner.model import Gap, GapReason, utc_now
from scanner.plain import plain


class AwsError(CloudError):
    """A call that got no usable answer. `code` is AWS's own error code, `action` the right that would close the gap,
    `by_policy` whether a service control policy denies it explicitly, `said` AWS's own words."""

    def __init__(
        self,
        reason: GapReason,
        detail: str,
        *,
        code: str = "",
        action: str = "",
        by_policy: bool = False,
        said: str = "",
    ) -> None:
        super().__init__(reason, detail)
        self.code = code
        self.action = action
        self.by_policy = by_policy
        self.said = said


class UsageError(Exception):
    """A profile, role or region that cannot be used: one sentence that says what would be right."""


class WriteRefused(Exception):
    """The guard stopped a call that might change something."""


def gap_of(what: str, error: AwsError) -> Gap:
    """The gap that a failed call leaves, with the right that would close it."""
    return Gap(
        what=what,
        reason=error.reason,
        detail=plain(error.detail),
        permission=error.action,
        time=utc_now(),
        by_policy=error.by_policy,
    )
