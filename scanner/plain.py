"""Text from outside, made fit to show: what a server, a plug-in or a library said."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"(?i)bearer\s+\S+|(?<=//)[^/\s]+@|eyJ[\w-]{8,}(?:\.[\w-]+)*|k8s-aws-v1\.\S+"
    r"|(?:password|passwd|secret|token|api[_-]?key|credential)s?[\"']?\s*[=:]\s*\S+"
)


def plain(text: str) -> str:
    """One short line for people: no control or direction characters, nothing that looks like a token."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[:4000]).split())
    line = _SECRET.sub("…", line)
    return line if len(line) <= 300 else line[:299] + "…"
