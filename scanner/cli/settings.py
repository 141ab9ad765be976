"""What the command line and the configuration file say together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from scanner import config as configuration
from scanner.cli.catalogue import catalogue
from scanner.cli.options import Judging
from scanner.config import Config, ConfigError, Selection, Settings, nearest
from scanner.engine import LISTED
from scanner.model import Status


def settings_from(judging: Judging) -> tuple[Settings, Config]:
    config = config_at(judging.config)
    selection = Selection(
        profile=judging.profile,
        checks=judging.check,
        exclude=judging.exclude_check,
        refs=judging.ref,
        min_severity=judging.min_severity,
        parameters=judging.param,
        include_system_namespaces=judging.include_system_namespaces,
        of_images=_of_images(judging),
    )
    settings = configuration.settings(catalogue(), config, selection)
    return replace(settings, known_exploited=_known_exploited(judging.known_exploited)), config


def _known_exploited(path: Path | None) -> frozenset[str]:
    if path is None:
        return frozenset()
    from scanner import exploited

    return exploited.load(path)


def _of_images(judging: Judging) -> dict[str, Any]:
    """Parameters of the checks of images, by name."""
    given = {
        "min_severity": judging.min_cve_severity and judging.min_cve_severity.value,
        "fixable_only": judging.fixable_only or None,
        "max_scan_age": judging.max_scan_age,
    }
    return {name: value for name, value in given.items() if value is not None}


def config_at(path: Path | None) -> Config:
    default = Path("kubeposture.yaml")
    if path is None and not default.exists():
        return Config()
    return configuration.load(path or default)


def percentage(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1
    share = 0 < value <= 1 and "%" not in text  # 0.95 would be taken for less than one percent
    if share or not 0 <= value <= 100:
        raise ConfigError(f"--min-coverage {text!r} is not a percentage such as 95%")
    return value


def statuses(text: str | None) -> frozenset[Status]:
    """What --status lists."""
    if text is None:
        return LISTED
    if text == "all":
        return frozenset(Status)
    names = [part.strip() for part in text.split(",")]
    valid = [status.value for status in Status]
    for name in names:
        if name not in valid:
            raise ConfigError(f"--status {name!r} is none of {', '.join(valid)}, all{nearest(name, valid)}")
    return frozenset(map(Status, names))
