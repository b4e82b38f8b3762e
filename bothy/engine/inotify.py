"""Being told when something in a folder changes: one inotify(7) instance for the whole engine, shared by all who follow a log.

(One for each would run into fs.inotify.max_user_instances, 128 by default.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator

from bothy.linux import inotify


class Inotify:
    """Made on first use; `close` ends it."""

    def __init__(self) -> None:
        self._fd = -1
        self._watches: dict[int, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def changes(self, folder: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever a file in the folder was written, made or renamed into place. Raises OSError."""
        if self._fd < 0:
            self._open()
        mask = inotify.MODIFY | inotify.MOVED_TO | inotify.CREATE | inotify.DELETE_SELF | inotify.ONLYDIR
        watch = inotify.add(self._fd, folder, mask)
        event = asyncio.Event()
        self._watches.setdefault(watch, set()).add(event)
        try:
            yield event
        finally:
            listeners = self._watches.get(watch, set())
            listeners.discard(event)
            if not listeners:
                self._watches.pop(watch, None)
                inotify.remove(self._fd, watch)

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = inotify.init()
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        for watch, _, _ in inotify.events(os.read(self._fd, inotify.ROOM)):
            # Watch -1: the queue overflowed, so anything may have happened.
            for listeners in [self._watches.get(watch, set())] if watch >= 0 else self._watches.values():
                for event in listeners:
                    event.set()
