"""Programs that stand still while the machine does not: the freezer of their cgroup, see cgroup-v2.rst.

Before the keeper stops a machine it has its programs frozen. So it can have the machine go on for a moment, for a visit of its
files, without any program of the user's running.
"""

from __future__ import annotations

import os
import select
import time

from bothy.errors import StageError
from bothy.guest import early

_PATIENCE = 1.0


def freeze(*, frozen: bool) -> None:
    """Freeze or thaw all programs; returns when that is done. Raises OSError, StageError if they can not be frozen (and go on)."""
    _write(frozen=frozen)
    if frozen and not _await():
        _write(frozen=False)
        raise StageError("freeze", "the programs could not be stopped")


def _write(*, frozen: bool) -> None:
    fd = os.open(f"{early.PROGRAMS}/cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"1" if frozen else b"0")
    finally:
        os.close(fd)


def _await() -> bool:
    """Whether they are frozen, after at most a second."""
    end = time.monotonic() + _PATIENCE
    fd = os.open(f"{early.PROGRAMS}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while b"frozen 1" not in os.pread(fd, 4096, 0):
            if time.monotonic() > end:
                return False
            poll.poll(max(1.0, (end - time.monotonic()) * 1000))
        return True
    finally:
        os.close(fd)
