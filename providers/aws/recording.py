"""Answers of AWS from a file, in place of a session: what the demo reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from providers.aws.errors import AwsError
from scanner import safe_yaml
from scanner.model import GapReason

Json = dict[str, Any]


class Recording:
    """The same reading methods as an account's. A call that is not in the file is refused.

    The file holds `account`, `home` and `answers`: by operation, region and what was named in the call the answer, or
    the code of an error.
    """

    def __init__(self, path: Path) -> None:
        found = safe_yaml.load(path.read_bytes())
        self.id: str = found["account"]
        self.partition = "aws"
        self.home: str = found["home"]
        self._answers: Json = found["answers"]

    @property
    def recorded(self) -> list[str]:
        return list(self._answers)

    def call(self, service: str, region: str | None, operation: str, **parameters: Any) -> Json:
        """One answer. Raises AwsError."""
        return self.answer(" ".join([f"{service}:{operation}", str(region), *_names(parameters)]))

    def pages(
        self, service: str, region: str | None, operation: str, items: str, **parameters: Any
    ) -> Iterator[list[Any]]:
        """One page. Raises AwsError."""
        yield self.call(service, region, operation, **parameters)[items]

    def answers(self, service: str, region: str | None, operation: str, **parameters: Any) -> Iterator[Json]:
        """One answer. Raises AwsError."""
        yield self.call(service, region, operation, **parameters)

    def answer(self, name: str) -> Json:
        found = self._answers.get(name, "AccessDeniedException")
        if isinstance(found, str):
            missing = "NotFound" in found or "NoSuch" in found
            action = name.partition(" ")[0]
            reason = GapReason.NOT_FOUND if missing else GapReason.FORBIDDEN
            raise AwsError(reason, f"{found}: {action}", code=found, action=action)
        answer: Json = found
        return answer


def _names(parameters: Json) -> list[str]:
    """What a call is about: its texts and lists of these."""
    lists = (value if isinstance(value, list) else [value] for value in parameters.values())
    return [text for texts in lists for text in texts if isinstance(text, str)]
