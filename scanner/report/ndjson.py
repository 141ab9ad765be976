"""NDJSON: one self-contained finding a line, written while the scan runs."""

from __future__ import annotations

import msgspec

from scanner.model import Finding
from scanner.report import Destination, Ending


class NdjsonOutput:
    def __init__(self, path: str | None) -> None:
        self.destination = Destination(path, streamed=True)
        self._encoder = msgspec.json.Encoder()

    def add(self, finding: Finding) -> None:
        self.destination.write(self._encoder.encode(finding) + b"\n")

    def discard(self) -> None:
        self.destination.discard()

    def finish(self, ending: Ending) -> None:
        self.destination.close()
