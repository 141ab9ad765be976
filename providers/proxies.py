"""Proxies with a password, as the environment names them.

URL parsers end the host at `/`, `#`, `?` and `\\`. They take what comes before it for a host and a port, and say in
their errors what they have found: a part of a password that holds one of these as it is, where it had to be encoded.
"""

from __future__ import annotations

import re
from urllib.request import getproxies_environment

ADVICE = "its user or password holds characters that must be percent-encoded, such as %2F for /"
_LOGIN = re.compile(r"(?:[\w+.-]+://|//)?(.*)@", re.DOTALL)
_AMBIGUOUS = re.compile(r"[/?#\\\[\]]|[^!-~]")


def has_usable_login(url: str) -> bool:
    """Whether user and password of a proxy's URL, if it has any, can be told from its host by every HTTP library."""
    match = _LOGIN.match(url)
    return match is None or not _AMBIGUOUS.search(match[1])


def unusable() -> str:
    """What is wrong with the environment's proxies, one sentence without anything of their URLs; "" if nothing is."""
    found = getproxies_environment()
    for scheme in ("https", "http", "all"):
        if not has_usable_login(found.get(scheme, "")):
            return f"the proxy that {scheme.upper()}_PROXY names cannot be used: {ADVICE}"
    return ""
