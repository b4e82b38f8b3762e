"""bothyd's side of the spawner: starts it (and another when it dies), asks it for keepers, tells it what to make ahead.

    bothyd ── keeper {id, folder, id_base, network} + control fd ──▶ spawner ── fork ──▶ keeper
           ── pool {id_bases} ──▶ (user namespaces for these ranges, made in idle time)
           ◀── gone {id, status} ──

Nothing waits for the spawner's answer: the keeper reads its first request from the control socket as soon as it exists, and when it
never comes to exist that socket is at its end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from bothy.engine.ranges import Ranges
from bothy.engine.wire import Link
from bothy.errors import Unavailable
from bothy.linux import channel
from bothy.log import logger

_log = logger("engine")
_MAX_RESTARTS, _RESTART_WINDOW = 5, 10.0


class Spawner:
    """`command` makes the argv for the spawner, given the number of its end of the channel; `inherit` are further fds for it."""

    def __init__(self, command: Callable[[int], list[str]], ranges: Ranges, pool: int, inherit: Sequence[int] = ()) -> None:
        self._command, self._ranges, self._inherit = command, ranges, tuple(inherit)
        self._link: Link | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._restarts: list[float] = []
        self._pooled = [ranges.take() for _ in range(pool)]
        self._tell_later: asyncio.Handle | None = None
        self.on_gone: Callable[[str, int], None] = lambda workload, status: None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start the process. Raises Unavailable when that is not possible."""
        ours, theirs = channel.pair()
        fd = theirs.fileno()
        try:
            self._process = subprocess.Popen(
                self._command(fd), pass_fds=(fd, *self._inherit), stdin=subprocess.DEVNULL, start_new_session=True
            )
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError as exc:
            ours.close()
            raise Unavailable(f"the spawner can not be started: {exc}", errno=exc.errno or 0) from exc
        finally:
            theirs.close()
        self._link = Link(ours, "the spawner", self._event, self._ended)
        self._tell_pool()

    def keeper(self, workload: str, folder: str, id_base: int, network: str) -> socket.socket:
        """Have a keeper forked; returns our end of its control socket, at its end if there will be no keeper.

        `network` is `private`, `host` or the path of a namespace. Raises Unavailable when there is no spawner.
        """
        if self._link is None or self._link.closed:
            raise Unavailable("the spawner is not there", hint="try again; if that does not help, restart bothyd")
        ours, theirs = channel.pair()
        try:
            message = {"op": "keeper", "id": workload, "folder": folder, "id_base": id_base, "network": network}
            self._link.tell(message, [theirs.fileno()])
        except OSError as exc:
            ours.close()
            raise Unavailable(f"the spawner can not be asked for a keeper: {exc}") from exc
        finally:
            theirs.close()
        return ours

    def take_range(self) -> int:
        """An id range, with its sandbox made ahead if there is one; a new one is ordered for the next time."""
        base = self._pooled.pop(0) if self._pooled else self._ranges.take()
        self._pooled.append(self._ranges.take())
        if self._tell_later is None:
            # Not now: the spawner would make sandboxes while it should fork.
            self._tell_later = asyncio.get_running_loop().call_later(0.02, self._tell_pool)
        return base

    def close(self, *, goodbye: bool) -> None:
        """Let the spawner end. With `goodbye` this is an orderly end of bothyd; without, the spawner would start another one."""
        if self._tell_later is not None:
            self._tell_later.cancel()
        if self._link is not None and not self._link.closed:
            if goodbye:
                try:
                    self._link.tell({"op": "bye"})
                except OSError:
                    pass
            self._link.close()
        self._reap(wait=True)

    def _tell_pool(self) -> None:
        self._tell_later = None
        if self._link is not None and not self._link.closed:
            try:
                self._link.tell({"op": "pool", "size": len(self._pooled), "id_bases": self._pooled})
            except OSError:
                pass  # it is gone, which `_ended` deals with

    def _event(self, message: dict[str, Any], fds: list[int]) -> None:
        channel.close_all(fds)
        if message.get("event") == "gone":
            self.on_gone(str(message.get("id", "")), int(message.get("status") or 0))

    def _ended(self) -> None:
        _log.warning("the spawner (pid %d) has ended; starting another", self.pid)
        self._reap(wait=True)
        now = asyncio.get_running_loop().time()
        self._restarts = [t for t in self._restarts if now - t < _RESTART_WINDOW] + [now]
        if len(self._restarts) > _MAX_RESTARTS:
            _log.error("the spawner dies again and again; the next try is in %d s", _RESTART_WINDOW)
            asyncio.get_running_loop().call_later(_RESTART_WINDOW, self._again)
        else:
            self._again()

    def _again(self) -> None:
        try:
            self.start()
        except Unavailable as exc:
            _log.error("%s", exc)

    def _reap(self, *, wait: bool) -> None:
        """Bury the process; it has closed its socket or been asked to end, so it goes soon, and is killed if it does not."""
        if self._process is None:
            return
        try:
            self._process.wait(1.0 if wait else 0)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        os.close(self._pidfd)
        self._process = None


def python(module: str, *arguments: str) -> list[str]:
    """The argv of a fast-starting Python (no site, isolated) that runs a module of this very installation."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys; sys.path.insert(0, {root!r}); from {module} import main; sys.exit(main())"
    return [sys.executable, "-I", "-S", "-c", code, *arguments]
