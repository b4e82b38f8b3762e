"""PID 1 of a machine: runs programs for the keeper on the host, over the frames of `bothy.machines.wire`.

    keeper                                              agent
      │                       (template: mounts, modules, a stem) │
      │◀───────────────────────────────────── event ready {}      │   here the template is saved; every clone goes on from here
      │ rehearse {time, entropy, network, process} ──────────────▶│   in a machine that waits to be used
      │ boot {seq, time, entropy, hostname, … process, stdin} ───▶│   this machine's own things, its root, the main program
      │◀───────────────────────────────────── ok {pid} or error   │   (process 0 on the wire)
      │ exec {seq, process, number, stdin} ──────────────────────▶│   ok {pid} or error
      │ signal {process, number}   resize {process, height, width}│
      │ visit {seq, number} ─────────────────────────────────────▶│   ok {pid}; as an exec, of our own code (see `guest.visit`)
      │ freeze {seq, frozen} ────────────────────────────────────▶│   ok {} when all programs stand still, or may go on
      │ clock {time}   top {seq, args}   stats {seq}              │
      │ limit {seq, pids}                                         │   how many processes there may be, 0 for any number
      │ connect {seq, card, interface}                            │   a network card is shown and configured
      │ disconnect {seq, card, heir}                              │   and hidden; the heir (an interface) gets its routes
      │ data, end, credit frames ◀───────────────────────────────▶│
      │◀────────────────── event exit {process, code, oom}        │   after the process's last byte; what it wrote is on disk

As PID 1 it reaps what nobody else does. It never ends: the keeper ends the machine.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from bothy.errors import StageError, failure_of, is_foreseen
from bothy.guest import cards, early, late, measure, programs, still, visit
from bothy.guest.port import Port
from bothy.guest.sessions import Session
from bothy.jsonable import PLAIN
from bothy.keeper import top
from bothy.keeper.loop import Loop
from bothy.keeper.processes import ChildProcess, Streams
from bothy.linux import hosts, links, syscalls
from bothy.machines import wire
from bothy.oci import runtime as oci

MAIN = 0
_TRIAL = wire.MAX_PROCESS  # the process number of a rehearsal's program
_KILLED = 128 + signal.SIGKILL


class Agent:
    """All that the keeper can ask for."""

    def __init__(self, loop: Loop, port_fd: int, kit: early.Kit) -> None:
        self._loop = loop
        self._kit = kit
        self._stem: programs.Stem | None = None
        self._sessions: dict[int, Session] = {}
        self._ephemeral = False
        self._booted = False
        self._own = measure.Memory()
        self._oom = 0
        self._port = Port(loop, port_fd, self._frame, self._room)

    def ready(self) -> None:
        """Prepare for the template, say so, and wait for a keeper."""
        self._loop.reap()
        warm()
        gc.collect()
        gc.freeze()
        self._stem = programs.Stem(self._kit.programs)
        early.empty()
        early.settle()
        self._own = measure.memory()
        self._port.say(event="ready", nic=early.nic_index(), free=self._own.free)

    def _frame(self, frame: wire.Frame) -> None:
        if frame.kind == wire.MESSAGE:
            self._message(wire.order_of(frame))
            return
        session = self._sessions.get(frame.stream >> 2)
        if session is None:
            return  # what crossed its exit on the way
        if frame.kind == wire.DATA:
            session.take(frame.payload)
        elif frame.kind == wire.END:
            session.end_input()
        else:
            session.credit(frame.stream & 3, wire.credit_of(frame))

    def _message(self, message: dict[str, Any]) -> None:
        seq = message.get("seq")
        try:
            answer = self._ACTIONS[message["op"]](self, message)
        except Exception as exc:
            if not is_foreseen(exc):
                sys.excepthook(*sys.exc_info())  # on the console; the module traceback would cost each machine its pages
            if seq is not None:
                self._port.say(seq=seq, error=failure_of(exc, str(message.get("op"))))
            return
        if seq is not None:
            self._port.say(seq=seq, ok=answer or {})

    def _boot(self, message: dict[str, Any]) -> dict[str, Any]:
        self._ephemeral = bool(message.get("ephemeral"))
        self._booted = True
        late.set_up(message, self._kit)
        if message["visit"]:
            return self._visit({"number": MAIN})
        return self._run(MAIN, message)

    def _rehearse(self, message: dict[str, Any]) -> None:
        """In a machine that waits to be used: do once what boot does, so that it is quick then. It is no harm if that fails."""
        try:
            late.rehearse(message, self._kit)
            self._run(_TRIAL, message)
        except (StageError, OSError) as exc:
            print(f"bothy-agent: rehearsal: {exc}", file=sys.stderr, flush=True)
            self._stem = self._stem or programs.Stem(self._kit.programs)

    def _exec(self, message: dict[str, Any]) -> dict[str, Any]:
        return self._run(int(message["number"]), message)

    def _run(self, number: int, message: dict[str, Any]) -> dict[str, Any]:
        stem, self._stem = self._stem, None
        pid, streams, warnings = programs.start(message, stem=stem, cgroup=self._kit.programs)
        self._serve(number, pid, streams)
        return {"pid": pid, "warnings": warnings} if warnings else {"pid": pid}

    def _visit(self, message: dict[str, Any]) -> dict[str, Any]:
        pid, streams = visit.start(self._kit.disk)
        self._serve(int(message["number"]), pid, streams)
        return {"pid": pid}

    def _serve(self, number: int, pid: int, streams: Streams) -> None:
        session = self._sessions[number] = Session(self._port, number, self._exited)
        session.process = ChildProcess(self._loop, session, pid, streams)

    def _exited(self, session: Session, code: int) -> None:
        del self._sessions[session.number]
        if session.number == _TRIAL and not self._booted:
            self._stem = self._stem or programs.Stem(self._kit.programs)
            return
        if session.number == MAIN and not self._ephemeral:
            os.sync()
        if code == _KILLED:
            self._oom = measure.oom_kills()
        self._port.say(event="exit", process=session.number, code=code, oom=self._oom)

    def _signal(self, message: dict[str, Any]) -> None:
        session = self._sessions.get(int(message["process"]))
        if session is not None and session.process is not None:
            try:
                session.process.signal(int(message["number"]))
            except ProcessLookupError:
                pass

    def _resize(self, message: dict[str, Any]) -> None:
        session = self._sessions.get(int(message["process"]))
        if session is not None and session.process is not None:
            session.process.resize(int(message["height"]), int(message["width"]))

    def _clock(self, message: dict[str, Any]) -> None:
        late.set_clock(int(message["time"]))

    def _top(self, message: dict[str, Any]) -> dict[str, Any]:
        return top.table(str(message.get("args") or ""), measure.pids())

    def _stats(self, _: dict[str, Any]) -> dict[str, Any]:
        return measure.stats(self._own)

    def _limit(self, message: dict[str, Any]) -> None:
        late.limit_programs(int(message["pids"]))

    def _connect(self, message: dict[str, Any]) -> None:
        cards.plug(self._kit.cards[int(message["card"])], message["interface"])

    def _disconnect(self, message: dict[str, Any]) -> None:
        cards.hide(self._kit.cards[int(message["card"])])
        if message["heir"]:
            links.add_routes(cards.interface_of(message["heir"]))

    def _hosts(self, message: dict[str, Any]) -> None:
        hosts.change("/etc/hosts", hosts.HostsChange(**message["change"]))

    def _freeze(self, message: dict[str, Any]) -> None:
        still.freeze(frozen=bool(message["frozen"]))

    def _room(self) -> None:
        for session in list(self._sessions.values()):
            session.pump()

    _ACTIONS: dict[str, Callable[[Agent, dict[str, Any]], dict[str, Any] | None]] = {
        "boot": _boot, "rehearse": _rehearse, "exec": _exec, "signal": _signal, "resize": _resize, "clock": _clock,
        "visit": _visit, "freeze": _freeze, "top": _top, "stats": _stats, "connect": _connect, "disconnect": _disconnect,
        "limit": _limit, "hosts": _hosts,
    }  # fmt: skip


def warm() -> None:
    """Do once what would be slow the first time: readers of plans are built, lazy parts of the library are loaded."""
    process = oci.Process(
        args=["true"],
        env=["A=b"],
        console_size=oci.Box(24, 80),
        user=oci.User(additional_gids=[1]),
        capabilities=oci.Capabilities(bounding=["CAP_CHOWN"]),
        rlimits=[oci.Rlimit("RLIMIT_NOFILE", 1, 1)],
    )
    PLAIN.from_data(oci.Process, PLAIN.to_data(process))
    programs.rehearse(process)
    wire.order_of(wire.Decoder().feed(wire.encode_order({"op": "", "nested": [1, None, True]}))[0])


def main() -> None:
    """Be PID 1. An error here ends the machine (the kernel panics), after it was told on the console."""
    try:
        syscalls.set_name("bothy-agent")
        os.environ.clear()
        loop = Loop()
        kit = early.prepare()
        Agent(loop, early.open_port(), kit).ready()
        loop.run()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        raise
