"""bothyd's side of the spawner: starts it (and another when it dies), asks it for keepers, tells it what to make ahead.

    bothyd ── hello {daemon} + listening socket ──▶ spawner      (how to bring bothyd back, should it die)
           ── keeper {id, folder, id_base, network} + control fd ──▶ ── fork ──▶ keeper
           ── pool {id_bases} ──▶ (user namespaces for these ranges, made in idle time)
           ◀── gone {id, status} ──

Nothing waits for the spawner's answer: the keeper reads its first request from the control socket as soon as it exists, and when it
never comes to exist that socket is at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bothy.engine.ranges import Ranges
from bothy.engine.wire import Link
from bothy.errors import Unavailable
from bothy.linux import channel, executable
from bothy.log import logger
from bothy.spawner import command

_log = logger("engine")
_MAX_RESTARTS, _RESTART_WINDOW, _RESTART_DELAY = 5, 10.0, 1.0
_PATIENCE = 5.0


def _start(argv: list[str], fd: int) -> subprocess.Popen[bytes]:
    """Start the spawner with one descriptor; its interpreter runs from a read-only mount, see `linux.executable`."""
    sealed = executable.sealed()
    try:
        path = f"/proc/{os.getpid()}/fd/{sealed}"
        return subprocess.Popen(argv, executable=path, pass_fds=(fd,), stdin=subprocess.DEVNULL)
    finally:
        os.close(sealed)


@dataclass(frozen=True)
class Revival:
    """How a spawner brings bothyd back: its argv, and its listening socket (the spawner gets a duplicate)."""

    command: list[str]
    listener: int


class Spawner:
    """`pool` is how many sandboxes are kept ready. Without `revival` nobody brings bothyd back."""

    def __init__(self, ranges: Ranges, pool: int, revival: Revival | None = None) -> None:
        self._ranges, self._revival = ranges, revival
        self._link: Link | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._restarts: list[float] = []
        self._size = pool
        self._pooled: list[int] = []
        self._tell_later: asyncio.Handle | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self.on_gone: Callable[[str, int], None] = lambda workload, status: None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start the process. Raises Unavailable when that is not possible."""
        ours, theirs = channel.pair()
        fd = theirs.fileno()
        try:
            self._process = _start(command.argv(fd), fd)
        except OSError as exc:
            ours.close()
            raise Unavailable(f"the spawner can not be started: {exc}", errno=exc.errno or 0) from exc
        finally:
            theirs.close()
        self._link = Link(ours, "the spawner", self._event, self._ended)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        if self._revival is not None:
            self._link.tell({"op": "hello", "daemon": self._revival.command}, [self._revival.listener])

    def fill_pool(self) -> None:
        """Have sandboxes made ahead; to be called when the ranges in use are known."""
        self._pooled = [self._ranges.take() for _ in range(self._size)]
        self._tell_pool()

    async def ready(self) -> None:
        """Return when there is a spawner; at once but for the moment after one has died. Raises Unavailable after some seconds."""
        if self._link is not None and not self._link.closed:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await asyncio.wait_for(waiter, _PATIENCE)
        except TimeoutError:
            raise Unavailable("the spawner is not there", hint="try again; if that does not help, restart bothyd") from None

    def keeper(self, workload: str, folder: str, id_base: int, network: str) -> channel.Socket:
        """Have a keeper forked; returns our end of its control socket, at its end if there will be no keeper.

        `network` is `private`, `host` or the path of a namespace.
        """
        ours, theirs = channel.pair()
        with contextlib.closing(theirs):
            if self._link is not None and not self._link.closed:
                message = {"op": "keeper", "id": workload, "folder": folder, "id_base": id_base, "network": network}
                try:
                    self._link.tell(message, [theirs.fileno()])
                except OSError as exc:
                    _log.warning("the spawner can not be asked for a keeper: %s", exc)  # it is gone, which `_ended` deals with
        return ours

    def visit(self, id_base: int) -> tuple[socket.socket, asyncio.Future[dict[str, Any]]]:
        """Have a visit forked (see `bothy.containers.visits`): our end of its line, and the answer, which has its `pid`.

        `id_base` is a range for a root of its own, 0 for a visit of what runs. Raises Unavailable when there is no spawner.
        """
        if self._link is None or self._link.closed:
            raise Unavailable("the spawner is not there", hint="try again; if that does not help, restart bothyd")
        ours, theirs = socket.socketpair()
        with theirs:
            return ours, self._link.request("visit", {"id_base": id_base}, [theirs.fileno()])

    def leave(self, born: asyncio.Future[dict[str, Any]]) -> None:
        """Kill a visit that was broken off, as soon as it is known which (`born`: its answer). Nothing happens if it has ended."""

        def known(answer: asyncio.Future[dict[str, Any]]) -> None:
            if answer.cancelled() or answer.exception() is not None or self._link is None or self._link.closed:
                return
            try:
                self._link.tell({"op": "leave", "pid": int(answer.result()["pid"])})
            except OSError:
                pass  # visits die with their spawner

        born.add_done_callback(known)

    def take_range(self) -> int:
        """An id range, with its sandbox made ahead if there is one; a new one is ordered for the next time."""
        if not self._pooled:
            return self._ranges.take()
        base = self._pooled.pop(0)
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
            _log.error("the spawner dies again and again; the next try is in %d s", _RESTART_DELAY)
            asyncio.get_running_loop().call_later(_RESTART_DELAY, self._again)
        else:
            self._again()

    def _again(self) -> None:
        try:
            self.start()
            self._tell_pool()
        except (Unavailable, OSError) as exc:
            _log.error("the spawner can not be started again: %s", exc)
            asyncio.get_running_loop().call_later(_RESTART_DELAY, self._again)

    def _reap(self, *, wait: bool) -> None:
        """Bury the process; it has closed its socket or been asked to end, so it goes soon, and is killed if it does not."""
        if self._process is None:
            return
        try:
            self._process.wait(1.0 if wait else 0)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._process = None
