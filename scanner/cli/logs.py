"""Logs on standard error, as text or JSON lines."""

from __future__ import annotations

import json
import logging
import sys

from scanner.cli.options import LogFormat


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": self.formatTime(record), "level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up(verbose: bool, format: LogFormat) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(levelname)s %(message)s")
    handler.setFormatter(_JsonLines() if format is LogFormat.JSON else text)
    logging.basicConfig(handlers=[handler], level=logging.INFO if verbose else logging.WARNING, force=True)
