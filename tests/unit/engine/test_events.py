"""Events, filters, times, names, id ranges: the small things."""

from __future__ import annotations

import asyncio
import time

import pytest

from bothy.engine import filters, names, times
from bothy.engine.events import Events
from bothy.engine.ranges import SIZE, Ranges
from bothy.errors import Conflict, Invalid

SECOND = 10**9


def test_events_are_remembered_filtered_and_streamed() -> None:
    async def scenario() -> list[str]:
        events = Events()
        events.publish("container", "start", "abc", {"name": "one", "l": "v"})
        events.publish("image", "tag", "sha256:def", {"name": "img"})
        seen = []
        stream = events.subscribe(1, 0, {"type": ["container"], "label": ["l=v"]})
        seen.append((await anext(stream)).action)
        waiting = asyncio.ensure_future(_next_action(stream))
        await asyncio.sleep(0)
        events.publish("container", "die", "xyz", {"name": "two"})
        events.publish("container", "die", "abc", {"name": "one", "l": "v"})
        seen.append(await waiting)
        events.close()
        assert [e async for e in stream] == []
        past = [e.action async for e in events.subscribe(1, time.time_ns(), {"container": ["one"], "event": ["die"]})]
        return seen + past

    assert asyncio.run(scenario()) == ["start", "die", "die"]


async def _next_action(stream: object) -> str:
    return str((await anext(stream)).action)  # type: ignore[call-overload]


def test_an_end_in_the_future_is_waited_for() -> None:
    async def scenario() -> float:
        begin = time.monotonic()
        assert [e async for e in Events().subscribe(0, time.time_ns() + SECOND // 20, {})] == []
        return time.monotonic() - begin

    assert 0.03 < asyncio.run(scenario()) < 2


def test_unknown_filters_are_refused() -> None:
    async def scenario() -> None:
        with pytest.raises(Invalid):
            await anext(Events().subscribe(0, 1, {"what": ["x"]}))

    asyncio.run(scenario())


def test_label_filters() -> None:
    labels = {"a": "1", "b": "2"}
    assert filters.labels_match({"label": ["a", "b=2"]}, labels)
    assert not filters.labels_match({"label": ["a=2"]}, labels)
    assert not filters.labels_match({"label!": ["a"]}, labels)
    assert filters.labels_match({"label!": ["a=2", "c"]}, labels)


def test_boolean_filters() -> None:
    assert filters.truth({"dangling": ["true"]}, "dangling") is True
    assert filters.truth({"dangling": ["0"]}, "dangling") is False
    assert filters.truth({}, "dangling") is None
    for bad in (["maybe"], ["true", "false"]):
        with pytest.raises(Invalid):
            filters.truth({"dangling": bad}, "dangling")


def test_patterns_that_are_no_expressions_are_text() -> None:
    assert filters.pattern_matches(["^we"], "web")
    assert filters.pattern_matches(["a(b"], "xa(by")
    assert not filters.pattern_matches(["^b"], "ab")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", 1769860800 * SECOND), ("2026-01-31T12:00:00.5Z", 1769860800 * SECOND + SECOND // 2),
        ("2026-01-31T13:00:00+01:00", 1769860800 * SECOND), ("2026-01-31", 1769817600 * SECOND), ("1769860800.25", 1769860800 * SECOND + SECOND // 4),
        ("", 0), ("0", 0),
    ],
)  # fmt: skip
def test_instants(text: str, expected: int) -> None:
    assert times.instant(text) == expected


def test_durations_are_before_now() -> None:
    assert abs(times.instant("1h30m") - (time.time_ns() - 5400 * SECOND)) < SECOND
    for bad in ("yesterday", "1x", "10m5"):
        with pytest.raises(Invalid):
            times.instant(bad)


def test_times_survive_and_sort() -> None:
    assert times.nanoseconds(times.rfc3339(1_234_567_890_123_456_789)) == 1_234_567_890_123_456_789
    assert times.rfc3339(10 * SECOND) < times.rfc3339(10 * SECOND + 1)


def test_names() -> None:
    assert names.checked("/web-1.x_y") == "web-1.x_y"
    for bad in ("", "x", "-a", "a b", "a/b", "é"):
        with pytest.raises(Invalid):
            names.checked(bad)
    assert names.checked(names.friendly(lambda _: False))
    with pytest.raises(Conflict):
        names.friendly(lambda _: True)
    assert len(names.new_id()) == 64


def test_ranges_do_not_overlap_and_come_back() -> None:
    ranges = Ranges("")
    taken = [ranges.take() for _ in range(100)]
    assert len(set(taken)) == 100
    assert all(base > 1_000_000 and base % SIZE == 0 for base in taken)
    ranges.give_back(taken[3])
    assert ranges.take() == taken[3]
    other = Ranges("abcdef")
    first = other.take()
    assert first != taken[0]
    fresh = Ranges("")
    fresh.adopt(taken[0])
    assert fresh.take() == taken[1]
