"""The command line that `ps` shows of the calling process, written over the one that it was started with. Source: proc(5)."""

from __future__ import annotations

import ctypes

from bothy.linux import syscalls

_ARG_START, _ARG_END = 48, 49  # fields of /proc/<pid>/stat, counted from 1


def set_title(text: str) -> None:
    """Show `text` (as much as there was room for) instead of the arguments, and as the short name too.

    For processes of ours that people see from inside a container, where the host's paths are nobody's business. Needs the host's
    /proc; where the addresses are hidden (zero) only the short name is set.
    """
    syscalls.set_name(text)
    with open("/proc/self/stat", "rb", buffering=0) as stat:
        fields = stat.read().rpartition(b")")[2].split()  # from the third field on: the second may hold anything
    start, end = int(fields[_ARG_START - 3]), int(fields[_ARG_END - 3])
    if not 0 < start < end:
        return
    room = end - start
    ctypes.memmove(start, text.encode()[: room - 1].ljust(room, b"\0"), room)
