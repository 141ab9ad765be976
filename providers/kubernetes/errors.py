"""What can go wrong between here and an API server, each in one plain sentence that is safe to show."""

from __future__ import annotations

from scanner.model import GapReason

LOGIN = "log in again, for example by running kubectl against this cluster once"


class ApiError(Exception):
    """A GET that got no usable answer.

    `detail` is one plain sentence without control characters or credentials; `status` the HTTP status, if there was
    one; `continue_token` what a 410 answer gave to read the rest of the list with, else "".
    """

    def __init__(
        self,
        reason: GapReason,
        detail: str,
        status: int | None = None,
        continue_token: str = "",
        *,
        retry: bool = False,
        wait: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.status = status
        self.continue_token = continue_token
        self.retry = retry  # whether the same request may succeed later
        self.wait = wait  # after how many seconds, if the server said so


class ConfigError(Exception):
    """A kubeconfig, context or credential plug-in that cannot be used: one sentence that names it and what to do."""
