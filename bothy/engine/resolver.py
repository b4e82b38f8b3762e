"""bothyd's side of the DNS server: starts it with the first network, adopts the one that is there, starts another when it dies.

    bothyd ── serve {network} + sockets ──▶ bothy-names       drop {network} · end {}
           ── take {} ──▶ ◀── sockets {network} + duplicates  (a bothyd that has come back has none)

The sockets are made by the networks room, and duplicates are held here: a server that is killed leaves them behind with the
queries that wait in them, for the next one. One of another version is told to end and followed in the same way.
Nothing waits for the server: the first network's first query waits in its socket while the process starts.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
from typing import Any

from bothy import __version__
from bothy.engine.wire import Link
from bothy.errors import BothyError
from bothy.linux import channel
from bothy.log import logger
from bothy.networks.dns import SOCKET, TITLE, listening, table
from bothy.networks.dns.listening import Listeners, Listening
from bothy.paths import Paths

_log = logger("engine")
_PATIENCE = 2.0
_MAX_RESTARTS, _RESTART_WINDOW, _RESTART_DELAY = 5, 10.0, 1.0
_LISTENER = 3  # the server's only descriptor but stdio


class Resolver:
    """`listeners` are the networks' sockets; `resolv_conf` is the path of the file that names the host's own servers."""

    def __init__(self, paths: Paths, listeners: Listeners, resolv_conf: str) -> None:
        self._paths, self._listeners, self._resolv_conf = paths, listeners, resolv_conf
        self._link: Link | None = None
        self._pid = 0
        self._pidfd = -1
        self._gone: asyncio.Future[None] | None = None
        self._restarts: list[float] = []
        self._later: asyncio.TimerHandle | None = None
        self._closing = False
        listeners.on_serve = self._serve
        listeners.on_drop = self._drop

    @property
    def pid(self) -> int:
        """The server's process; 0 while there is none."""
        return self._pid

    async def adopt(self) -> None:
        """Take over the server that the last daemon left, before any network is looked at; nothing if there is none."""
        try:
            sock = channel.connect(str(self._paths.run), SOCKET)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        self._meet(sock, _peer(sock))
        assert self._link is not None
        try:
            answer = await asyncio.wait_for(self._link.request("take"), _PATIENCE)
        except (TimeoutError, BothyError) as exc:
            _log.warning("the DNS server (pid %d) does not answer: %s; starting another", self._pid, exc or "it took too long")
        else:
            if answer.get("version") == __version__:
                return
        self._part()

    def settle(self, running: set[str]) -> None:
        """To be called when networks and workloads are known again: whatever else there was goes."""
        for network in self._listeners.forget_left():
            self._drop(network)
        for workload in table.told(self._paths) - running:
            table.forget(self._paths, workload)

    async def close(self, *, end: bool) -> None:
        """Let go of the server; with `end` it ends too, and nothing of it is left in the run folder."""
        self._closing = True
        if self._later is not None:
            self._later.cancel()
        if end:
            if self._link is not None:
                self._tell({"op": "end"})
                await self._wait_for_its_end()
            self._sweep()
        self._part(kill=end)

    # -- networks

    def _serve(self, network: Listening) -> None:
        if self._link is None:
            self._start_soon()
        else:
            self._tell({"op": "serve", "network": network.told}, network.fds())

    def _drop(self, network: str) -> None:
        if self._link is not None:
            self._tell({"op": "drop", "network": network})

    def _tell(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        assert self._link is not None
        try:
            self._link.tell(message, fds or [])
        except OSError:
            pass  # it is gone, which `_ended` deals with

    # -- the process

    def _start_soon(self, delay: float = 0.0) -> None:
        """Start the server when whoever has just made a network is done."""
        if self._later is None and not self._closing:
            self._later = asyncio.get_running_loop().call_later(delay, self._start)

    def _start(self) -> None:
        self._later = None
        if not self._listeners.all():
            return
        run = str(self._paths.run)
        try:
            os.makedirs(table.folder(self._paths), mode=0o700, exist_ok=True)
            door = channel.listen(run, SOCKET)
            try:
                pid = self._spawn(run, door.fileno())
            finally:
                door.close()
            self._meet(channel.connect(run, SOCKET), pid)
        except OSError as exc:
            _log.error("the DNS server can not be started: %s", exc)
            self._start_soon(_RESTART_DELAY)
            return
        for network in self._listeners.all():
            self._serve(network)

    def _spawn(self, run: str, listener: int) -> int:
        actions = [(os.POSIX_SPAWN_DUP2, listener, _LISTENER), (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        return os.posix_spawn(sys.executable, listening.argv(run, _LISTENER, self._resolv_conf), os.environ, file_actions=actions)

    def _meet(self, sock: channel.Socket, pid: int) -> None:
        self._link = Link(sock, TITLE, self._event, self._ended)
        self._pid, self._pidfd = pid, -1
        loop = asyncio.get_running_loop()
        self._gone = loop.create_future()
        try:
            self._pidfd = os.pidfd_open(pid)
            loop.add_reader(self._pidfd, self._died, pid, self._pidfd, self._gone)
        except OSError:
            pass  # it is gone already, which the link tells too

    def _event(self, message: dict[str, Any], fds: list[int]) -> None:
        if message.get("event") == "sockets":
            self._listeners.adopt(str(message.get("network")), fds)
        else:
            channel.close_all(fds)

    def _ended(self) -> None:
        """The link is at its end, so the process is: nobody else may serve these sockets."""
        if self._closing:
            return
        _log.warning("the DNS server (pid %d) has ended; starting another", self._pid)
        self._part()
        now = asyncio.get_running_loop().time()
        self._restarts = [t for t in self._restarts if now - t < _RESTART_WINDOW] + [now]
        self._start_soon(_RESTART_DELAY if len(self._restarts) > _MAX_RESTARTS else 0.0)

    def _part(self, *, kill: bool = True) -> None:
        """Forget the process; with `kill` it is made sure that there is none. It is buried when it is dead."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._pidfd < 0:
            return
        if kill:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
        else:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
        self._pid, self._pidfd = 0, -1

    def _died(self, pid: int, pidfd: int, gone: asyncio.Future[None]) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass  # the last daemon's child
        if pidfd == self._pidfd:
            self._pidfd = -1
        if not gone.done():
            gone.set_result(None)

    async def _wait_for_its_end(self) -> None:
        if self._gone is not None and self._pidfd >= 0:
            try:
                await asyncio.wait_for(asyncio.shield(self._gone), _PATIENCE)
            except TimeoutError:
                _log.warning("the DNS server (pid %d) does not end; killing it", self._pid)

    def _sweep(self) -> None:
        """What a server and its engine leave in the run folder."""
        for workload in table.told(self._paths):
            table.forget(self._paths, workload)
        for remove, path in ((os.unlink, f"{self._paths.run}/{SOCKET}"), (os.rmdir, table.folder(self._paths))):
            try:
                remove(path)
            except OSError:
                continue


def _peer(sock: channel.Socket) -> int:
    """The process at the other end of a connection (SO_PEERCRED, unix(7))."""
    return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
