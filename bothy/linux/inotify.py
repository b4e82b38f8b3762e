"""Being told when something in a folder changes: inotify(7), which the standard library has no functions for.

    fd = init()                      non-blocking, close-on-exec
    watch = add(fd, folder, MOVED_TO | DELETE)
    for watch, mask, name in events(os.read(fd, ROOM)): …

An event is there when the call that caused it returns.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

MODIFY, MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x2, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800
IGNORED, OVERFLOW, ONLYDIR = 0x8000, 0x4000, 0x1000000
ROOM = 64 * 1024
_HEADER = 16
_libc = ctypes.CDLL(None, use_errno=True)


def init() -> int:
    """A new instance, which the caller owns. OSError(EMFILE) when this user has too many (fs.inotify.max_user_instances)."""
    fd = int(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
    if fd < 0:
        raise _failed("inotify")
    return fd


def add(fd: int, path: str, mask: int) -> int:
    """Watch a file or folder; the number of the watch, the same again for one that is watched already. Raises OSError."""
    watch = int(_libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask)))
    if watch < 0:
        raise _failed(path)
    return watch


def remove(fd: int, watch: int) -> None:
    """End a watch; one that is gone already, because its folder is, is no error."""
    _libc.inotify_rm_watch(fd, watch)


def events(data: bytes) -> Iterator[tuple[int, int, str]]:
    """What read(2) returned: (watch, mask, name in the folder). Watch -1 with OVERFLOW: anything may have happened."""
    at = 0
    while at < len(data):
        watch = int.from_bytes(data[at : at + 4], "little", signed=True)
        mask = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + _HEADER + int.from_bytes(data[at + 12 : at + 16], "little")
        yield watch, mask, os.fsdecode(data[at + _HEADER : end].rstrip(b"\0"))
        at = end


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
