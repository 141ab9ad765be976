"""Kubernetes quantities ("500m", "1.5Gi", "1e3") as exact integers, safe to compare and to sort.

Every function returns billionths (`NANO` of them make 1): `parse("1") == NANO`, `parse("500m") == NANO // 2`.
Kubernetes keeps no finer value either; it rounds what is finer away from zero, and so does this module.
Source of the rules: k8s.io/apimachinery/pkg/api/resource/quantity.go.
"""

from __future__ import annotations

import re
from functools import lru_cache

NANO = 10**9

# Larger values saturate here. Kubernetes knows no such bound for decimals, but writing 1e999999999 out would fill the
# memory. No float, and no text without an exponent, is large enough to reach it.
CEILING = 10**400

_CEILING_DIGITS = 400
_BINARY_CEILING = (2**63 - 1) * NANO  # Kubernetes caps binary suffixes, and only these: 8Ei is 2^63-1
_MAX_TEXT = 256  # far beyond any real quantity; bounds the cost of one hostile string

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}

_NUMBER = r"([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))"
_EXPONENT = r"[eE]([+-]?[0-9]+)"
_QUANTITY = re.compile(rf"{_NUMBER}(?:([numkMGTPE]|[KMGTPE]i)|{_EXPONENT})?")
_GO_FLOAT = re.compile(rf"{_NUMBER}(?:{_EXPONENT})?")
_AZURE_NUMBER = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_AZURE_MEMORY_DECIMAL = frozenset("EPTGMkm")


class QuantityError(ValueError):
    """The value is not a quantity. The message is made for the report."""


def parse(value: str | int | float) -> int:
    """Billionths of `value`, by Kubernetes' own grammar; negative values are read, not judged.

    A float stands for its shortest decimal (0.1 is 0.1). Beyond the ceilings above a value saturates, as it does in
    Kubernetes: a huge limit is then reported as too high, which is truer than "not a quantity".
    Raises QuantityError for anything else, including booleans, nan and inf.
    """
    if isinstance(value, str):
        return _parse_text(_bounded(value))
    return _parse_number(value)


def parse_azure_cpu(value: str | int | float) -> int:
    """Billionths of a cpu limit as the Azure Policy container limits template reads it.

    It knows numbers, "N", "N.N" and what ends in "m" once every "m" is removed: "1e3", ".5", "+1", "1k" and "1u" are
    rejected while "1e3m" is not. Raises QuantityError.
    """
    if not isinstance(value, str):
        return _parse_number(value)
    text = _bounded(value)
    if text.endswith("m"):
        return _parse_azure_milli(text)
    match = _AZURE_NUMBER.fullmatch(text)
    if not match:
        raise _not_azure(text)
    return _nanos(match[1], match[2] or "")


def parse_azure_memory(value: str | int | float) -> int:
    """Billionths of a memory limit as the Azure Policy container limits template reads it.

    It knows numbers, and "N" or "N.N" with one of m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei or no suffix. As the
    template does, the suffix is removed wherever it stands ("1MiMi" is 1Mi). Nothing is capped. Raises QuantityError.
    """
    if not isinstance(value, str):
        return _parse_number(value)
    text = _bounded(value)
    suffix = _azure_memory_suffix(text)
    match = _AZURE_NUMBER.fullmatch(text.replace(suffix, "") if suffix else text)
    if not match:
        raise _not_azure(text)
    return _nanos(match[1], match[2] or "", _DECIMAL.get(suffix, 0), _BINARY.get(suffix, 1))


@lru_cache(maxsize=4096)
def _parse_text(text: str) -> int:
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise QuantityError(f"not a Kubernetes quantity: {text!r}")
    sign, whole, fraction, bare_fraction, suffix, exponent = match.groups("")
    if suffix in _BINARY:
        nanos = min(_nanos(whole, fraction + bare_fraction, 0, _BINARY[suffix]), _BINARY_CEILING)
    else:
        nanos = _nanos(whole, fraction + bare_fraction, int(exponent) if exponent else _DECIMAL[suffix])
    return -nanos if sign == "-" else nanos


def _parse_azure_milli(text: str) -> int:
    match = _GO_FLOAT.fullmatch(text.replace("m", ""))
    if not match:
        raise _not_azure(text)
    sign, whole, fraction, bare_fraction, exponent = match.groups("")
    nanos = _nanos(whole, fraction + bare_fraction, int(exponent or 0) - 3)
    return -nanos if sign == "-" else nanos


def _azure_memory_suffix(text: str) -> str:
    if text[-1:] in _AZURE_MEMORY_DECIMAL:
        return text[-1:]
    return text[-2:] if text[-2:] in _BINARY else ""


def _parse_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise QuantityError(f"not a Kubernetes quantity: a value of type {type(value).__name__}")
    if isinstance(value, float):
        return _parse_text(repr(value))
    return max(-CEILING, min(value * NANO, CEILING))


def _nanos(whole: str, fraction: str, power: int = 0, factor: int = 1) -> int:
    """Billionths of whole.fraction * 10^power * factor, rounded up."""
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 0
    shift = power + 9 - len(fraction)
    size = len(digits) + shift
    if size > _CEILING_DIGITS:
        return CEILING
    if size < -19:  # even times 2^60 this is less than a billionth
        return 1
    number = int(digits) * factor
    scale: int = 10 ** abs(shift)
    return number * scale if shift >= 0 else -(-number // scale)


def _bounded(text: str) -> str:
    if len(text) > _MAX_TEXT:
        raise QuantityError(f"not a Kubernetes quantity: longer than {_MAX_TEXT} characters")
    return text


def _not_azure(text: str) -> QuantityError:
    return QuantityError(f"not a quantity Azure Policy understands: {text!r}")
