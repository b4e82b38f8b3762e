"""A session: one program as the keeper's core sees it, with its log and the clients that are attached to it.

                 ┌────────────▶ log
    wall ─ feed ─┼────────────▶ client    every client and the log get every byte; a client that is slow makes the program wait
                 └────────────▶ client
    wall ◀─ write ── input ◀─── clients   what they send, in the order it comes; they wait when the program does not read

A client that came with the program's start may hold it back for as long as it lives, as the reader of a pipe does. One that
attached later and takes nothing at all for STALL seconds while the program waits is closed: an onlooker must not stop a service.
"""

from __future__ import annotations

from collections.abc import Callable

from bothy.keeper.clients import HIGH, LOW, Attachment
from bothy.keeper.logs import Log
from bothy.keeper.loop import Loop, Timer
from bothy.keeper.model import Client
from bothy.keeper.workload import Process

STALL = 30.0


class Session:
    """See `bothy.keeper.workload.Session`. `name` is the exec's id, empty for the main program.

    `stdin`: the program has one. `ends_input`: it ends with the (first) client's. `on_exit(session, code)` is called once, when all
    output is with the log and in the clients' queues, and before clients see their end; `on_empty` when the last client of a
    program that has ended is gone.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        *,
        tty: bool,
        stdin: bool,
        ends_input: bool,
        on_exit: Callable[[Session, int], None],
        on_detach: Callable[[Session], None],
        on_empty: Callable[[Session], None],
        log: Log | None = None,
    ) -> None:
        self.name = name
        self.process: Process | None = None
        self.over = False
        self._loop = loop
        self._tty = tty
        self._stdin = stdin
        self._ends_input = ends_input
        self._on_exit = on_exit
        self._on_detach = on_detach
        self._on_empty = on_empty
        self._log = log
        self._clients: list[Attachment] = []
        self._pending = b""
        self._input_over = not stdin
        self._close_wanted = False
        self._held = False
        self._stall: Timer | None = None

    # What the core calls.

    def attach(self, fd: int, client: Client, *, first: bool = False) -> None:
        """Serve a client; takes the fd. Raises ValueError (detach keys) or OSError (not a socket), the fd is still the caller's."""
        attachment = Attachment(self._loop, self, fd, client, takes_input=client.stdin and self._stdin, tty=self._tty, first=first)
        self._clients.append(attachment)
        if self.over:
            attachment.finish()
        elif self.process is not None and not self._pending:
            attachment.allow_input()

    def started(self, process: Process) -> None:
        """The program runs: its clients' input goes to it from now on."""
        self.process = process
        if self._held:
            process.hold(held=True)
        for client in list(self._clients):
            if not self._pending:
                client.allow_input()

    def abandon(self, *, told_elsewhere: bool = False) -> None:
        """There will be no program: let go of the clients; the daemon may tell them why (`told_elsewhere`)."""
        self.over = True
        for client in list(self._clients):
            if told_elsewhere:
                client.release()
            else:
                client.finish()

    @property
    def empty(self) -> bool:
        return not self._clients

    # What the wall calls.

    def feed(self, which: int, data: bytes) -> None:
        """Output of the program, for the log and all clients."""
        if self._log is not None:
            self._log.feed(which, data)
        for client in tuple(self._clients):
            client.feed(which, data)
            if client.queued > HIGH and not self._held:
                self._hold()

    def eof(self, which: int) -> None:
        """A stream ended: its last, unfinished line is logged."""
        if self._log is not None:
            self._log.finish(which)

    def drained(self) -> None:
        """The program takes input again."""
        if self.process is None or self.over:
            return
        if self._pending:
            self._pending = self._pending[self.process.write(self._pending) :]
        if self._pending:
            return
        if self._close_wanted:
            self.process.close_input()
            return
        for client in tuple(self._clients):
            client.allow_input()

    def exited(self, code: int) -> None:
        """The program is gone; clients see their end when they have all of its output."""
        self.over = True
        self._pending = b""
        if self._stall is not None:
            self._stall.cancel()
        if self._log is not None:
            self._log.finish(1)
            self._log.finish(2)
        self._on_exit(self, code)
        for client in tuple(self._clients):
            client.finish()
        if not self._clients:
            self._on_empty(self)

    # What clients call.

    def take_input(self, data: bytes) -> bool:
        if self._input_over or self.process is None or self.over:
            return True
        if self._pending:
            self._pending += data
            return False
        self._pending = data[self.process.write(data) :]
        if self._pending:
            for client in self._clients:
                client.deny_input()
        return not self._pending

    def input_ended(self, client: Attachment) -> None:
        """As in Docker: stdin ends with the client where asked for; else (and on a terminal) the client ends with its input."""
        if self._tty or not self._ends_input:
            client.finish()
        elif not self._input_over:
            self._input_over = self._close_wanted = True
            if not self._pending and self.process is not None:
                self.process.close_input()

    def detached(self, client: Attachment) -> None:
        self._on_detach(self)

    def relieved(self, client: Attachment) -> None:
        if self._held and all(c.queued <= LOW for c in self._clients):
            self._held = False
            if self._stall is not None:
                self._stall.cancel()
            if self.process is not None and not self.over:
                self.process.hold(held=False)

    def left(self, client: Attachment) -> None:
        self._clients.remove(client)
        self.relieved(client)
        if self.over and not self._clients:
            self._on_empty(self)

    def _hold(self) -> None:
        self._held = True
        if self.process is not None:
            self.process.hold(held=True)
        self._watch_stall()

    def _watch_stall(self) -> None:
        sent = {client: client.sent for client in self._clients}

        def check() -> None:
            for client in tuple(self._clients):
                if client.queued > LOW and not client.first and sent.get(client) == client.sent:
                    client.close()
            if self._held and not self.over:
                self._watch_stall()

        self._stall = self._loop.later(STALL, check)
