"""NDJSON: one self-contained finding a line, written while the scan runs."""

from __future__ import annotations

import msgspec

from scanner.destination import Destination
from scanner.model import Finding
from scanner.report import Ending


class NdjsonOutput:
    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._encoder = msgspec.json.Encoder()

    def add(self, finding: Finding) -> None:
        self._destination.write(self._encoder.encode(finding) + b"\n")

    def finish(self, ending: Ending) -> None:
        self._destination.close()
