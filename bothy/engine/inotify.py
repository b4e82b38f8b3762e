"""Being told when something in a folder changes: one inotify(7) instance for the whole engine, shared by all who follow a log.

(One for each would run into fs.inotify.max_user_instances, 128 by default.)
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Iterator

_CLOEXEC, _NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
_MODIFY, _MOVED_TO, _CREATE, _DELETE_SELF, _ONLYDIR = 0x2, 0x80, 0x100, 0x400, 0x1000000
_libc = ctypes.CDLL(None, use_errno=True)


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
        mask = _MODIFY | _MOVED_TO | _CREATE | _DELETE_SELF | _ONLYDIR
        watch = _libc.inotify_add_watch(self._fd, os.fsencode(folder), mask)
        if watch < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
        event = asyncio.Event()
        self._watches.setdefault(watch, set()).add(event)
        try:
            yield event
        finally:
            listeners = self._watches.get(watch, set())
            listeners.discard(event)
            if not listeners:
                self._watches.pop(watch, None)
                _libc.inotify_rm_watch(self._fd, watch)  # gone already if the folder is

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = _libc.inotify_init1(_CLOEXEC | _NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "inotify")
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        data = os.read(self._fd, 65536)
        while data:
            watch = int.from_bytes(data[:4], "little", signed=True)
            length = int.from_bytes(data[12:16], "little")
            data = data[16 + length :]
            # Watch -1: the queue overflowed, so anything may have happened.
            for listeners in [self._watches.get(watch, set())] if watch >= 0 else self._watches.values():
                for event in listeners:
                    event.set()
