"""Docker's `filters` parameter: a map of words to lists of values; words are and-ed, values of one word or-ed.

Labels are the exception: every `label` must match. Unknown words are Invalid, as in Docker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from bothy.engine import times
from bothy.errors import Invalid

Filters = Mapping[str, Collection[str]]
Test = Callable[[str], bool]


def check(filters: Filters, known: Collection[str]) -> None:
    """Raises Invalid for a word that is not known."""
    for word in filters:
        if word not in known:
            raise Invalid(f"invalid filter '{word}'", hint=f"known filters: {', '.join(sorted(known))}")


def truth(filters: Filters, word: str) -> bool | None:
    """The value of a boolean filter, None where it is not given. Raises Invalid for what is not a boolean."""
    values = filters.get(word)
    if not values:
        return None
    chosen = set()
    for value in values:
        if value.lower() not in ("1", "t", "true", "0", "f", "false"):
            raise Invalid(f"invalid filter '{word}={value}'", hint="use true or false")
        chosen.add(value.lower() in ("1", "t", "true"))
    if len(chosen) > 1:
        raise Invalid(f"filter '{word}' is given both as true and as false")
    return chosen.pop()


def bound(filters: Filters) -> int:
    """The `until` of a prune in nanoseconds since the epoch: what was made after it stays. 0 where it is not given.

    Raises Invalid for more than one, and for what is no time.
    """
    values = list(filters.get("until", ()))
    if len(values) > 1:
        raise Invalid("more than one until filter specified")
    return times.instant(values[0]) if values else 0


def is_older(created: str, limit: int) -> bool:
    """Whether something was made by then (0: whenever); what does not say when was not."""
    if not limit:
        return True
    try:
        return times.nanoseconds(created) <= limit
    except Invalid:
        return False


def labels_match(filters: Filters, labels: Mapping[str, str], word: str = "label") -> bool:
    """Whether every `key` or `key=value` of the filter is among the labels (and, for `label!`, none is)."""
    return all(_has(labels, wanted) for wanted in filters.get(word, ())) and not any(
        _has(labels, unwanted) for unwanted in filters.get(word + "!", ())
    )


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def pattern_matches(patterns: Collection[str], *texts: str) -> bool:
    """Whether one of the texts contains one of the patterns: regular expressions, plain text where they are not valid."""
    for pattern in patterns:
        try:
            search = re.compile(pattern).search
        except re.error:
            search = re.compile(re.escape(pattern)).search
        if any(search(text) for text in texts):
            return True
    return False
