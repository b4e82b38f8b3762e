"""What happened, as Docker tells it: published by the verbs, kept for a while, streamed to who listens.

The last `KEPT` events are remembered for `since`; a listener that does not read loses nothing until `BACKLOG` events wait
for it, then its oldest ones.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping

from bothy.engine import filters as matching
from bothy.engine.model import Event

KEPT = 1024
BACKLOG = 4096
_TYPES = ("container", "image", "volume", "network", "daemon", "plugin", "builder")
KNOWN_FILTERS = ("type", "event", "label", "scope", "node", "service", "secret", "config", *_TYPES)


class Events:
    def __init__(self) -> None:
        self._past: deque[Event] = deque(maxlen=KEPT)
        self._listeners: set[_Listener] = set()

    def publish(self, kind: str, action: str, actor: str, attributes: Mapping[str, str]) -> None:
        """Tell everybody who listens. Never fails and never waits."""
        event = Event(kind, action, actor, dict(attributes), time.time_ns())
        self._past.append(event)
        for listener in self._listeners:
            listener.push(event)

    async def subscribe(self, since: int, until: int, filters: matching.Filters) -> AsyncIterator[Event]:
        """Events from `since` (nanoseconds; 0: from now on) to `until` (0: for ever). Raises Invalid for an unknown filter.

        With an `until` in the past only what is remembered is told.
        """
        matching.check(filters, KNOWN_FILTERS)
        listener = _Listener()
        self._listeners.add(listener)
        try:
            if since:
                for event in [e for e in self._past if e.time_nano >= since]:
                    if (not until or event.time_nano <= until) and matches(event, filters):
                        yield event
            while (event_or_end := await listener.next(until)) is not None:
                if matches(event_or_end, filters):
                    yield event_or_end
        finally:
            self._listeners.discard(listener)

    @property
    def listening(self) -> int:
        return len(self._listeners)

    def close(self) -> None:
        """End all streams."""
        for listener in self._listeners:
            listener.push(None)


class _Listener:
    def __init__(self) -> None:
        self._waiting: deque[Event | None] = deque(maxlen=BACKLOG)
        self._arrived = asyncio.Event()

    def push(self, event: Event | None) -> None:
        self._waiting.append(event)
        self._arrived.set()

    async def next(self, until: int) -> Event | None:
        """The next event, None at the end."""
        while not self._waiting:
            self._arrived.clear()
            left = (until - time.time_ns()) / 1e9 if until else None
            if left is not None and left <= 0:
                return None
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return None
        event = self._waiting.popleft()
        return None if event is None or (until and event.time_nano > until) else event


def matches(event: Event, filters: matching.Filters) -> bool:
    """Whether an event passes Docker's event filters (`type`, `event`, `label`, and one word a type: its id or name)."""
    for word, values in filters.items():
        if word == "type" and event.type not in values:
            return False
        if word == "event" and not any(event.action == v or event.action.startswith(v + ":") for v in values):
            return False
        if word == "scope" and "local" not in values:
            return False
        if word in _TYPES and not (event.type == word and _names(event, values)):
            return False
    return matching.labels_match(filters, event.attributes)


def _names(event: Event, values: Collection[str]) -> bool:
    name = event.attributes.get("name", "")
    return any(v == name or event.actor == v or event.actor.removeprefix("sha256:").startswith(v) for v in values)
