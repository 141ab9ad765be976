"""Answers of Azure Resource Manager from a file, in place of a session: what the demo reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from providers.azure.errors import ArmError
from scanner import safe_yaml
from scanner.model import GapReason


class Recording:
    """The same reading methods as a session's. A path that is not in the file answers 404."""

    def __init__(self, path: Path) -> None:
        self._answers: dict[str, Any] = {k.lower(): v for k, v in safe_yaml.load(path.read_bytes()).items()}

    @property
    def recorded(self) -> list[str]:
        return list(self._answers)

    def pages(self, path: str, version: str, items: str = "value") -> Iterator[list[Any]]:
        """One page. Raises ArmError."""
        answer = self.answer(path.lower())
        if isinstance(answer, int):
            reason = GapReason.FORBIDDEN if answer == 403 else GapReason.NOT_FOUND
            code = {403: "AuthorizationFailed", 404: "NotFound"}[answer]
            raise ArmError(reason, f"HTTP {answer} {code}", status=answer, code=code)
        yield answer[items]

    def answer(self, path: str) -> Any:
        """The body, or the status of a refusal."""
        return self._answers.get(path, 404)
