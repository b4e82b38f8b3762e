"""The spawner: warm and single-threaded; has keepers forked, from its zygote, and keeps sandboxes ready for them.

    bothyd ══ SEQPACKET ══ spawner ══ zygote ── fork ─▶ keeper     with its end of a control socket and, perhaps, a sandbox
                             └ pool of sandboxes, filled while nobody waits

    daemon → spawner                                       spawner → daemon
    hello {daemon: [argv]} [+ listening socket]            (how to bring the daemon back)
    keeper {id, folder, id_base, network} + control fd     event keeper {id, pid}
                                                           event gone {id, pid, status, error?}     the keeper has ended
    visit {id_base?} + line                                ok {pid}     (see `visits`; a range for a root of its own)
    leave {pid}                                            (a visit is killed)
    pool {size, id_bases}
    bye {}                                                 (the spawner ends; keepers go on)

`network` is private (the default), host, or the path of a namespace; only private ones come from the pool. A request with `seq`
is answered too (`ok {pid}`). If the daemon goes without `bye` it is started again with its listening socket (see `revival`)
and the spawner ends: the new daemon starts another. Everything is imported before the first fork and then frozen, so that keepers
share those pages.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import deque

from bothy.containers import sandbox as sandboxes
from bothy.containers.sandbox import PRIVATE
from bothy.errors import Invalid, failure_of
from bothy.keeper.birth import Order
from bothy.keeper.control import Connection, Request
from bothy.keeper.loop import IN, Loop, Timer
from bothy.keeper.main import catch_signals
from bothy.keeper.processes import exit_code
from bothy.linux import channel, syscalls
from bothy.spawner import zygote
from bothy.spawner.pool import Pool
from bothy.spawner.revival import Revival
from bothy.spawner.visits import Visits
from bothy.spawner.warm import warm

TITLE = "bothy-spawner"
IDLE = 0.03
PATIENCE = 60.0


class Spawner:
    """Serves one daemon, at the other end of `sock`."""

    def __init__(self, loop: Loop, sock: channel.Socket, zygote: channel.Socket) -> None:
        self._loop = loop
        self._zygote = zygote
        self._ordered: deque[tuple[str, Request]] = deque()
        self._keepers: dict[int, str] = {}
        self._pool = Pool(sandboxes.make)
        self._revival: Revival | None = None
        self._refill: Timer | None = None
        self._visits = Visits(loop)
        loop.reap()
        loop.on_signal(signal.SIGTERM, self._end)
        loop.watch(zygote.fileno(), IN, self._zygote_says)
        self._daemon = Connection(loop, sock, self._handle, self._lost)

    # Requests.

    def _handle(self, request: Request) -> None:
        try:
            if request.op == "keeper":
                self._spawn(request)
            elif request.op == "visit":
                self._visit(request)
            elif request.op == "leave":
                self._visits.end(int(request.message["pid"]))
            elif request.op == "pool":
                self._pool.order(int(request.message["size"]), [int(base) for base in request.message["id_bases"]])
            elif request.op == "hello":
                self._greet(request)
            elif request.op == "bye":
                self._revival = None
                self._end()
            else:
                raise Invalid(f"unknown request {request.op!r}")
        except (OSError, KeyError, ValueError, Invalid) as exc:
            self._refuse(request, exc)
        channel.close_all(request.fds)
        request.fds = []
        self._refill_later()

    def _spawn(self, request: Request) -> None:
        name, folder = str(request.message["id"]), str(request.message["folder"])
        network = str(request.message.get("network") or PRIVATE)
        id_base = int(request.message.get("id_base") or 0)
        control = request.take()
        sandbox = self._pool.take(id_base) if network == PRIVATE else None
        order, fds = Order.of(folder, network, id_base, sandbox)
        try:
            channel.send_bytes(self._zygote, order.encode(), [control, *fds])
        finally:
            os.close(control)
            if sandbox is not None:
                sandbox.close()
        self._ordered.append((name, request))

    def _visit(self, request: Request) -> None:
        id_base = int(request.message.get("id_base") or 0)
        sandbox = self._pool.take(id_base) if id_base else None
        try:
            request.ok(pid=self._visits.begin(request.fds[0], sandbox))
        finally:
            if sandbox is not None:
                sandbox.close()

    def _refuse(self, request: Request, exc: Exception) -> None:
        print(f"{TITLE}: {request.op}: {exc}", file=sys.stderr, flush=True)
        if request.op == "keeper":
            error = failure_of(exc, "spawner")
            self._daemon.send({"event": "gone", "id": request.message.get("id"), "pid": 0, "status": 255, "error": error})
        if request.message.get("seq") is not None:
            request.fail(exc)

    def _greet(self, request: Request) -> None:
        if self._revival is not None:
            raise Invalid("the daemon has said hello before")
        command = [str(word) for word in request.message["daemon"]]
        self._revival = Revival.of_environ(command, request.take())

    # What happens.

    def _zygote_says(self, _events: int) -> None:
        try:
            words = self._zygote.recv(4096).split()
        except OSError:
            words = []
        if not words:
            print(f"{TITLE}: the zygote has died", file=sys.stderr, flush=True)
            self._end()
        elif words[0] == b"born":
            self._born(int(words[1]))
        elif words[0] == b"gone":
            self._gone(int(words[1]), int(words[2]))
        else:
            _, request = self._ordered.popleft()
            self._refuse(request, OSError(int(words[1]), os.strerror(int(words[1]))))

    def _born(self, pid: int) -> None:
        name, request = self._ordered.popleft()
        self._keepers[pid] = name
        self._daemon.send({"event": "keeper", "id": name, "pid": pid})
        if request.message.get("seq") is not None:
            request.ok(pid=pid)

    def _gone(self, pid: int, status: int) -> None:
        name = self._keepers.pop(pid)
        self._daemon.send({"event": "gone", "id": name, "pid": pid, "status": exit_code(status)})

    def _refill_later(self) -> None:
        """Fill the pool once it has been quiet for a moment."""
        if self._refill is not None:
            self._refill.cancel()
        self._refill = self._loop.later(IDLE, self._fill) if self._pool.short else None

    def _fill(self) -> None:
        self._pool.make_one()
        self._refill = self._loop.later(0, self._fill) if self._pool.short else None

    def _lost(self, _connection: Connection) -> None:
        """The daemon is gone without a word."""
        delay = self._revival.delay if self._revival is not None else None
        if delay is None:
            self._end()
        else:
            self._pool.close()
            self._loop.later(delay, self._revive)

    def _revive(self) -> None:
        assert self._revival is not None
        try:
            pid = self._revival.start()
            print(f"{TITLE}: the daemon has died; started it again as process {pid}", file=sys.stderr, flush=True)
        except OSError as exc:
            print(f"{TITLE}: the daemon has died and was not started again: {exc}", file=sys.stderr, flush=True)
        self._end()

    def _end(self) -> None:
        self._pool.close()
        self._loop.stop()


def main(arguments: list[str] | None = None) -> int:
    """Be a spawner until the daemon says bye (see the module's text)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 2 or arguments[0] != "--socket" or not arguments[1].isdecimal():
        print(f"usage: bothy-spawner --socket FD    FD: inherited SEQPACKET socket of the daemon\n\n{__doc__}")
        return 0 if arguments == ["--help"] else 2
    sock = channel.adopt(int(arguments[1]))
    _settle()
    warm()
    gc.collect()
    gc.freeze()
    forked_from = zygote.start()
    loop = Loop()
    Spawner(loop, sock, forked_from)
    loop.run()
    return 0


def _settle() -> None:
    """A session of its own, no terminal, a name; signals of a terminal are not for it."""
    syscalls.leave_terminal(TITLE)
    catch_signals()
