"""What every cloud's errors have in common."""

from __future__ import annotations

from scanner.model import GapReason


class CloudError(Exception):
    """A call that got no usable answer, in one plain sentence that is safe to show."""

    def __init__(self, reason: GapReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
