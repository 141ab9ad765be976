"""What IAM policy documents allow, told from their text.

Source of the rules: AWS's IAM User Guide, "Policy evaluation logic" and "IAM JSON policy elements". Policies of an
organization and of the session are not seen here: they can only take away.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from scanner.aws import stated
from scanner.cloud import Facts, malformed

_LONGEST = 2048  # characters of an ARN, of an action far fewer
_VARIABLE = re.compile(r"\$\{[^}]*\}")


def statements(policy: Facts) -> list[Facts]:
    """Those of the policy's `document`. IAM takes one statement in place of a list of one; raises MissingEvidence."""
    document = policy.part("document")
    found = document.get("Statement")
    if isinstance(found, dict):
        return [document.part("Statement")]
    if not found:
        raise malformed(f"{document.path}.Statement", "a list of statements")
    return document.parts("Statement", "Sid")


def denies(statement: Facts) -> bool:
    """Raises MissingEvidence where it neither allows nor denies."""
    effect = stated(statement.text("Effect"))
    if not effect.equals("Allow", "Deny"):
        raise malformed(effect.path, "Allow or Deny")
    return effect.equals("Deny")


def allows(policies: Iterable[Facts], action: str, resource: str) -> bool | None:
    """Whether policies of one role together allow an action on a resource; None where that depends on a condition.

    Action and resource may end in `*`: all that starts so has to be allowed, and none of it denied. Raises
    MissingEvidence for a document that is not understood.
    """
    found: set[tuple[bool, bool]] = set()  # (denies, on a condition) of the statements about it
    for statement in (statement for policy in policies for statement in statements(policy)):
        deny = denies(statement)
        if about_action(statement, action, whole=not deny):
            there, variable = _about_resource(statement, resource, whole=not deny)
            if there:
                found.add((deny, variable or bool(statement.part("Condition").wire)))
    if (True, False) in found or not {(False, False), (False, True)} & found:
        return False
    return True if (False, False) in found and (True, True) not in found else None


def about_action(statement: Facts, action: str, *, whole: bool) -> bool:
    """Whether a statement speaks of the whole of an action, or of some of it. Actions have no case."""
    named, others = _element(statement, "Action")
    return _takes_in([n.casefold() for n in named], [o.casefold() for o in others], action.casefold(), whole=whole)


def _about_resource(statement: Facts, resource: str, *, whole: bool) -> tuple[bool, bool]:
    """And whether a policy variable decides, of which only the request knows what it stands for."""
    named, others = _element(statement, "Resource")
    variable = any("${" in pattern for pattern in (*named, *others))
    patterns = [_completed(_VARIABLE.sub("*", pattern)) for pattern in named]
    return _takes_in(patterns, [_completed(o) for o in others], resource, whole=whole), variable


def _element(statement: Facts, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The patterns of an element and of its opposite, of which a statement has exactly one."""
    named, others = one_or_more(statement, name), one_or_more(statement, f"Not{name}")
    if bool(named) == bool(others):
        raise malformed(f"{statement.path}.{name}", f"there: a statement has one of {name} and Not{name}")
    return named, others


def one_or_more(statement: Facts, path: str) -> tuple[str, ...]:
    """The words at a path; IAM takes one in place of a list of one."""
    one = isinstance(statement.get(path), str)
    words = (statement.text(path).value,) if one else statement.words(path).value
    if any(not word or len(word) > _LONGEST for word in words):
        raise malformed(f"{statement.path}.{path}", "what AWS would take")
    return words


def _completed(pattern: str) -> str:
    """IAM fills what an ARN lacks of its six parts with `*`."""
    return pattern + ":*" * (5 - pattern.count(":"))


def _takes_in(named: Iterable[str], others: Iterable[str], wanted: str, *, whole: bool) -> bool:
    if named:
        return any(_matches(pattern, wanted, whole=whole) for pattern in named)
    return not any(_matches(pattern, wanted, whole=not whole) for pattern in others)


@functools.lru_cache(maxsize=1024)  # the same role is judged for each cluster of an account
def _matches(pattern: str, wanted: str, *, whole: bool) -> bool:
    """Whether a pattern (`*` any text, `?` one character) matches a text; one that ends in `*` stands for all texts
    that start so: then the whole of them, or some.

    Steps through the text with all places of the pattern at once, one bit for each: patterns cannot make it slow.
    """
    pattern = re.sub(r"\*+", "*", pattern)
    places: dict[str, int] = {}
    for number, char in enumerate(pattern):
        places[char] = places.get(char, 0) | 1 << number
    star, one, end = places.get("*", 0), places.get("?", 0), 1 << len(pattern)
    reached = 1 | (star & 1) << 1
    for char in wanted.removesuffix("*"):
        reached = reached & star | (reached & (places.get(char, 0) | one)) << 1
        reached |= (reached & star) << 1
    if not wanted.endswith("*"):
        return bool(reached & end)
    return pattern.endswith("*") and bool(reached & end >> 1) if whole else bool(reached)
