"""Visits: children of the spawner that look into a container's root, or put something there, for the engine.

    bothyd ── visit {id_base} + line ──▶ spawner ── fork ──▶ visit ◀── line ──▶ bothyd
           ◀──────── ok {pid} ─────────
           ── leave {pid} ─────────────▶ SIGKILL

Of the spawner and not of the container's keeper, which would never be small again. A visit ends when the engine hangs up; one that
can not notice (a file system that does not answer) is killed. It dies with the spawner.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

from bothy.containers.sandbox import Sandbox
from bothy.containers.visits import enter
from bothy.keeper.loop import Loop
from bothy.spawner import zygote


class Visits:
    """Those that are under way."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._pids: set[int] = set()

    def begin(self, line: int, sandbox: Sandbox | None) -> int:
        """Fork a visit for the engine at the other end of `line`; its pid. Both stay the caller's. Raises OSError."""
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            _be_visit(line, sandbox, parent)
        self._pids.add(pid)
        self._loop.child(pid, self._ended(pid))
        return pid

    def end(self, pid: int) -> None:
        """Kill one that is under way."""
        if pid in self._pids:
            os.kill(pid, signal.SIGKILL)

    def _ended(self, pid: int) -> Callable[[int], None]:
        return lambda _status: self._pids.discard(pid)


def _be_visit(line: int, sandbox: Sandbox | None, parent: int) -> None:
    try:
        kept = [] if sandbox is None else [sandbox.userns, sandbox.netns, sandbox.ipcns, sandbox.utsns]
        zygote.shed((0, 1, 2, *sorted(fd for fd in (line, *kept) if fd >= 0)))
        enter.attend(line, sandbox, parent)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
