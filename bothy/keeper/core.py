"""The core of a keeper: requests in, events out, the workload's life in between.

    born ── start ──▶ running ── exited ──▶ over ── clients flushed ──▶ the loop stops
      └─ daemon vanishes, or start fails ───▶ over

The end of the main program: the wall is closed (cgroups go), exit.json is written, the event is sent; clients get the rest of
their output, then the loop stops.
"""

from __future__ import annotations

import enum
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from bothy.errors import Conflict, Invalid, NotFound
from bothy.jsonable import PLAIN
from bothy.keeper import exits
from bothy.keeper.control import Control, Request
from bothy.keeper.logs import Log
from bothy.keeper.loop import Loop
from bothy.keeper.model import Client, ExecPlan, Exit, KeeperPlan
from bothy.keeper.sessions import Session
from bothy.keeper.workload import Process, Workload
from bothy.linux import channel
from bothy.linux.hosts import HostsChange
from bothy.linux.links import Attachment, Interface
from bothy.oci.runtime import Resources

_KEPT_CODES = 64


class State(enum.Enum):
    BORN = "born"
    STARTING = "starting"
    RUNNING = "running"
    OVER = "over"


class Keeper:
    """The core: requests in, events out. `folder` is the keeper's own, below the run folder; `connected` are daemons that are
    there already, `listener` the socket for others (made if None). Without a `log` nothing is logged."""

    def __init__(
        self,
        loop: Loop,
        plan: KeeperPlan,
        folder: str,
        wall: Workload,
        log: Log | None,
        connected: Iterable[channel.Socket],
        listener: channel.Socket | None = None,
    ) -> None:
        self._loop = loop
        self._plan = plan
        self._folder = folder
        self._wall = wall
        self._state = State.BORN
        self._paused = False
        self._started = ""
        self._oom = 0
        self._execs: dict[str, Session] = {}
        self._codes: dict[str, int] = {}
        self._visits = 0
        self._log = log
        self._main = self._session("", tty=plan.tty, stdin=plan.stdin, ends_input=plan.stdin_once, log=self._log)
        self._control = Control(loop, folder, connected, self._handle, self._alone, listener)

    def take_over(self, started: str, clients: Iterable[tuple[int, Client]], run: Callable[[Session], Process]) -> None:
        """Go on with a program that was started in our name: its clients, and `run`, which gives the process for the session."""
        self._state = State.RUNNING
        self._started = started
        for fd, client in clients:
            try:
                self._main.attach(fd, client, first=True)
            except (OSError, ValueError) as exc:
                print(f"bothy-keeper {self._plan.id}: a client is lost: {exc}", file=sys.stderr, flush=True)
                os.close(fd)
        self._main.started(run(self._main))

    def terminate(self) -> None:
        """SIGTERM: the program's business."""
        if self._main.process is not None and not self._main.over:
            _try_signal(self._main.process, signal.SIGTERM)

    def fail(self, error: str) -> None:
        """The keeper itself went wrong (the loop has ended): kill what runs and leave word of it."""
        if self._state is State.OVER:
            return
        if self._state is State.RUNNING:
            self._wall.kill(discard=True)
        self._state = State.OVER
        self._wall.close()
        end = Exit(code=137, started=self._started, finished=exits.now(), oom=bool(self._oom), error=error)
        self._write_exit(end)
        self._control.event("exit", **PLAIN.to_data(end))
        self._leave()

    # Requests.

    def _handle(self, request: Request) -> None:
        action = self._ACTIONS.get(request.op)
        try:
            if action is None:
                raise Invalid(f"unknown request {request.op!r}")
            action(self, request)
        except Exception as exc:
            request.fail(exc)

    def _start(self, request: Request) -> None:
        if self._state is not State.BORN:
            raise Conflict(f"the keeper is {self._state.value}, it starts once")
        if request.is_abandoned:
            self._never_mind()
            return
        self._state = State.STARTING
        try:
            for data in request.message.get("clients") or []:
                self._attach_client(self._main, request, data, first=True)
            exits.note_begin(self._folder)
            self._wall.start(self._main, lambda outcome: self._begun(request, outcome))
        except Exception as exc:
            self._begun(request, exc)

    def _begun(self, request: Request, outcome: Process | BaseException) -> None:
        if isinstance(outcome, BaseException):
            self._fail_start(request, outcome)
            return
        self._started = exits.now()
        self._state = State.RUNNING
        request.ok(pid=outcome.pid, started=self._started, warnings=list(outcome.warnings))
        self._main.started(outcome)

    def _fail_start(self, request: Request, exc: BaseException) -> None:
        self._wall.close()
        self._state = State.OVER
        if not self._control.connected:
            self._write_exit(Exit(code=128, finished=exits.now(), error=str(exc)))
        self._control.give_up_folder()
        request.fail(exc)
        self._main.abandon()
        self._leave()

    def _attach(self, request: Request) -> None:
        if self._state is State.OVER:
            raise Conflict("the program has ended")
        self._attach_client(self._main, request, request.message.get("client") or {})
        request.ok()

    def _exec(self, request: Request) -> None:
        if self._state is not State.RUNNING:
            raise Conflict("the program does not run")
        plan = PLAIN.from_data(ExecPlan, request.message.get("plan"))
        if plan.id in self._execs:
            raise Conflict(f"exec {plan.id!r} runs already")
        session = self._session(plan.id, tty=plan.process.terminal, stdin=plan.stdin, ends_input=True)
        if request.message.get("client") is not None:
            self._attach_client(session, request, request.message["client"], first=True)
        self._execs[plan.id] = session

        def started(outcome: Process | BaseException) -> None:
            if isinstance(outcome, BaseException):
                self._execs.pop(plan.id, None)
                session.abandon(told_elsewhere=True)
                request.fail(outcome)
                return
            box = plan.process.console_size
            if box is not None:
                outcome.resize(box.height, box.width)
            request.ok(pid=outcome.pid, warnings=list(outcome.warnings))
            session.started(outcome)

        try:
            self._wall.exec(plan, session, started)
        except Exception as exc:
            started(exc)

    def _visit(self, request: Request) -> None:
        """As an exec, of our own code, of which nobody is told but who asked."""
        self._running()
        self._visits += 1
        name = f"visit {self._visits}"
        session = self._session(name, tty=False, stdin=True, ends_input=True, on_exit=lambda *_: self._wall.visited())
        fd = request.take()
        try:
            session.attach(fd, Client(stdin=True, stderr=False), first=True)
        except BaseException:
            os.close(fd)
            raise
        self._execs[name] = session

        def started(outcome: Process | BaseException) -> None:
            if isinstance(outcome, BaseException):
                self._execs.pop(name, None)
                session.abandon()
                request.fail(outcome)
                return
            request.ok()
            session.started(outcome)

        self._wall.visit(session, started)

    def _signal(self, request: Request) -> None:
        try:
            self._process(request).signal(int(request.message["number"]))
        except ProcessLookupError:
            raise Conflict("the program has ended") from None
        request.ok()

    def _resize(self, request: Request) -> None:
        self._process(request).resize(int(request.message["height"]), int(request.message["width"]))
        request.ok()

    def _kill(self, request: Request) -> None:
        self._running()
        self._wall.kill(discard=bool(request.message.get("discard")))
        request.ok()

    def _pause(self, request: Request) -> None:
        self._running()
        self._wall.pause(self._answer(request, paused=True))

    def _resume(self, request: Request) -> None:
        self._running()
        self._wall.resume(self._answer(request, paused=False))

    def _top(self, request: Request) -> None:
        self._running()
        self._wall.top(str(request.message.get("args") or ""), self._answer(request))

    def _stats(self, request: Request) -> None:
        self._running()
        self._wall.stats(self._answer(request))

    def _update(self, request: Request) -> None:
        self._running()
        self._wall.update(PLAIN.from_data(Resources, request.message.get("resources")), self._answer(request))

    def _connect(self, request: Request) -> None:
        self._running()
        self._wall.connect(PLAIN.from_data(Attachment, request.message.get("attachment")), self._answer(request))

    def _disconnect(self, request: Request) -> None:
        self._running()
        heir = request.message.get("heir")
        interface = PLAIN.from_data(Interface, heir) if heir else None
        self._wall.disconnect(str(request.message["link"]), interface, self._answer(request))

    def _hosts(self, request: Request) -> None:
        self._running()
        self._wall.hosts(PLAIN.from_data(HostsChange, request.message.get("change")), self._answer(request))

    def _status(self, request: Request) -> None:
        execs = [{"exec": name, "pid": s.process.pid} for name, s in self._execs.items() if s.process is not None and not s.over]
        process = self._main.process
        self.check_oom()
        request.ok(
            pid=process.pid if process is not None else 0,
            started=self._started,
            paused=self._paused,
            oom=bool(self._oom),
            execs=execs,
            ended=[{"exec": name, "code": code} for name, code in self._codes.items()],
        )

    def _answer(self, request: Request, *, paused: bool | None = None) -> Callable[[dict[str, Any] | BaseException], None]:
        """A `Done` that answers the request; once it went well, the workload is paused or not as told."""

        def done(outcome: dict[str, Any] | BaseException) -> None:
            if isinstance(outcome, BaseException):
                request.fail(outcome)
                return
            if paused is not None:
                self._paused = paused
            request.ok(**outcome)

        return done

    def _attach_client(self, session: Session, request: Request, data: dict[str, Any], *, first: bool = False) -> None:
        client = PLAIN.from_data(Client, data)
        fd = request.take()
        try:
            session.attach(fd, client, first=first)
        except BaseException:
            os.close(fd)
            raise

    def _running(self) -> None:
        if self._state is not State.RUNNING:
            raise Conflict("the program does not run")

    def _process(self, request: Request) -> Process:
        """The process that a request names: an exec's, or the main one."""
        name = str(request.message.get("exec") or "")
        session = self._execs.get(name) if name else self._main
        if session is None:
            raise NotFound(f"no exec {name!r} runs")
        if session.process is None or session.over:
            raise Conflict("the program does not run")
        return session.process

    # What happens.

    def _session(
        self,
        name: str,
        *,
        tty: bool,
        stdin: bool,
        ends_input: bool,
        log: Log | None = None,
        on_exit: Callable[[Session, int], None] | None = None,
    ) -> Session:
        return Session(
            self._loop,
            name,
            tty=tty,
            stdin=stdin,
            ends_input=ends_input,
            on_exit=on_exit or (self._exited if name else self._ended),
            on_detach=self._detached,
            on_empty=self._emptied,
            log=log,
        )

    def _exited(self, session: Session, code: int) -> None:
        """An exec has ended. Its code is kept for a daemon that comes back, as long as there are not many newer ones."""
        self.check_oom()
        while len(self._codes) >= _KEPT_CODES:
            del self._codes[next(iter(self._codes))]
        self._codes[session.name] = code
        self._control.event("exec-exit", exec=session.name, code=code)

    def _ended(self, _session: Session, code: int) -> None:
        """The main program has ended, and with it all else inside."""
        self.check_oom()
        self._state = State.OVER
        self._wall.close()
        if self._log is not None:
            self._log.close()
        end = Exit(code=code, started=self._started, finished=exits.now(), oom=bool(self._oom), error=self._wall.error)
        self._write_exit(end)
        self._control.event("exit", **PLAIN.to_data(end))
        self._leave()

    def _detached(self, session: Session) -> None:
        self._control.event("detach", **({"exec": session.name} if session.name else {}))

    def _emptied(self, session: Session) -> None:
        self._execs.pop(session.name, None)
        self._end_if_done()

    def _alone(self) -> None:
        """No daemon is connected: one that comes back finds control.sock, unless there is nothing to come back for."""
        if self._state is State.BORN:
            self._never_mind()

    def _never_mind(self) -> None:
        """There will be no start; also none that a daemon asked for which has died since: the next may have looked for us before
        we could be found, and have given back the workload's address."""
        self._state = State.OVER
        self._wall.close()
        self._main.abandon()
        self._leave()

    def check_oom(self) -> None:
        """Tell if the kernel has killed inside for want of memory since this was asked last."""
        if self._state is not State.RUNNING:
            return
        count = self._wall.oom_count()
        if count > self._oom:
            self._oom = count
            self._control.event("oom")

    def _leave(self) -> None:
        """Let go of the folder and of the daemons. Then wait for the clients alone."""
        self._control.leave()
        self._loop.later(0, self._end_if_done)

    def _end_if_done(self) -> None:
        if self._state is State.OVER and self._main.empty and not self._execs:
            self._loop.stop()

    def _write_exit(self, end: Exit) -> None:
        try:
            exits.write(self._folder, end)
        except OSError as exc:
            print(f"bothy-keeper {self._plan.id}: exit.json: {exc.strerror}", file=sys.stderr, flush=True)

    _ACTIONS: ClassVar[dict[str, Callable[[Keeper, Request], None]]] = {
        "start": _start,
        "attach": _attach,
        "exec": _exec,
        "visit": _visit,
        "signal": _signal,
        "resize": _resize,
        "kill": _kill,
        "pause": _pause,
        "resume": _resume,
        "top": _top,
        "stats": _stats,
        "update": _update,
        "connect": _connect,
        "disconnect": _disconnect,
        "hosts": _hosts,
        "status": _status,
    }


def _try_signal(process: Process, number: int) -> None:
    try:
        process.signal(number)
    except ProcessLookupError:
        pass
