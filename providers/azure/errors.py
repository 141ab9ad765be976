"""What can go wrong between here and Azure, in one plain sentence that is safe to show."""

from __future__ import annotations

from providers.errors import CloudError
from scanner.model import GapReason


class ArmError(CloudError):
    """A request that got no usable answer. `code` is ARM's own, `action` the right that it said is missing."""

    def __init__(
        self, reason: GapReason, detail: str, *, status: int | None = None, code: str = "", action: str = ""
    ) -> None:
        super().__init__(reason, detail)
        self.status = status
        self.code = code
        self.action = action


class UsageError(Exception):
    """A cloud or endpoint that cannot be used: one sentence that says what would be right."""


class WriteRefused(Exception):
    """The guard stopped a request that might change something, or that would have left for another host."""
