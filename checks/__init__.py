"""Pure functions that judge one subject each; they know nothing of providers or SDKs.

`load()` imports every module below this package and collects its Check objects: there is no registry to forget.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from scanner.check import Check

__project__ = "kubeposture"


@cache
def load() -> dict[str, Check]:
    """Every check by id, sorted; raises ValueError where two share an id."""
    found: dict[str, Check] = {}
    for module in pkgutil.walk_packages(__path__, __name__ + "."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Check) and found.setdefault(value.id, value) is not value:
                raise ValueError(f"two checks are named {value.id}")
    return dict(sorted(found.items()))
