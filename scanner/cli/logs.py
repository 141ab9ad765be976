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


# What these have to say is in the errors that they raise. In their logs it comes with tracebacks and with whole URLs,
# whose paths and queries may be secrets.
_SILENT = ("azure", "botocore", "google", "msal", "urllib3")


def set_up(verbose: bool, format: LogFormat) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(levelname)s %(message)s")
    handler.setFormatter(_JsonLines() if format is LogFormat.JSON else text)
    logging.basicConfig(handlers=[handler], level=logging.INFO if verbose else logging.WARNING, force=True)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
