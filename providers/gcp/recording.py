"""Answers of Google Cloud from a file, in place of a session: what the demo reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from providers.gcp.errors import refusal
from providers.gcp.session import Listed
from scanner import safe_yaml

Json = dict[str, Any]


class Recording:
    """The same reading methods as a session's. A path that is not in the file is refused.

    The file holds `projects` and `answers`: by service and path the answer, or the status of a refusal.
    """

    def __init__(self, path: Path) -> None:
        found = safe_yaml.load(path.read_bytes())
        self.projects: list[str] = found["projects"]
        self._answers: Json = found["answers"]

    @property
    def recorded(self) -> list[str]:
        return list(self._answers)

    def clusters(self, project: str) -> Listed:
        """Raises GcpError."""
        path = f"/v1/projects/{project}/locations/-/clusters"
        found = self.get("container", path, "container.clusters.list")
        return Listed([(cluster, None) for cluster in found["clusters"]], found.get("missingZones", []))

    def pages(self, service: str, path: str, items: str, permission: str, **query: str | int) -> Iterator[list[Any]]:
        """One page. Raises GcpError."""
        yield self.get(service, path, permission, **query)[items]

    def get(self, service: str, path: str, permission: str, **query: str | int) -> Json:
        """One object. Raises GcpError."""
        found = self.answer(f"{service} {path}")
        if isinstance(found, int):
            raise refusal(found, f"HTTP {found}", "", (), service=service, permission=permission)
        return found

    def answer(self, name: str) -> Json | int:
        found: Json | int = self._answers.get(name, 403)
        return found
