"""Docker's filters: times and labels of prunes, and what is refused."""

from __future__ import annotations

import time

import pytest

from bothy.engine import filters, times
from bothy.errors import Invalid


def test_bound_is_a_time_or_none() -> None:
    assert filters.bound({}) == 0
    assert filters.bound({"until": ["2026-01-01T00:00:00Z"]}) == times.nanoseconds("2026-01-01T00:00:00Z")
    assert filters.bound({"until": ["10"]}) == 10 * 10**9
    assert abs(filters.bound({"until": ["1h"]}) - (time.time_ns() - 3600 * 10**9)) < 60 * 10**9


@pytest.mark.parametrize("values", [["1h", "2h"], ["yesterday"]])
def test_bad_bounds_are_refused(values: list[str]) -> None:
    with pytest.raises(Invalid):
        filters.bound({"until": values})


@pytest.mark.parametrize(
    ("created", "limit", "older"),
    [
        ("2026-01-01T00:00:00Z", 0, True),
        ("2026-01-01T00:00:00Z", times.nanoseconds("2026-01-01T00:00:00Z"), True),
        ("2026-01-01T00:00:01Z", times.nanoseconds("2026-01-01T00:00:00Z"), False),
        ("2026-01-01T02:00:00+02:00", times.nanoseconds("2026-01-01T00:00:00Z"), True),
        ("", 0, True),
        ("", 10, False),
    ],
)
def test_what_was_made_by_then(created: str, limit: int, *, older: bool) -> None:
    assert filters.is_older(created, limit) is older


@pytest.mark.parametrize(
    ("asked", "matches"),
    [
        ({"label": ["a"]}, True),
        ({"label": ["a=1"]}, True),
        ({"label": ["a=2"]}, False),
        ({"label": ["a", "c"]}, False),
        ({"label!": ["a"]}, False),
        ({"label!": ["a=2", "c"]}, True),
        ({"label": ["a"], "label!": ["b=x"]}, False),
        ({}, True),
    ],
)
def test_labels(asked: dict[str, list[str]], *, matches: bool) -> None:
    assert filters.labels_match(asked, {"a": "1", "b": "x"}) is matches
