"""Execs: one more program in a running workload. A session lives until its workload is removed; it is known again after a restart.

The keeper serves the client itself; what comes here is the beginning and the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bothy.engine import names, spec
from bothy.engine.model import Connection, ExecRequest, ExecSession, Status
from bothy.engine.workloads import Live
from bothy.errors import BothyError, Conflict, NotFound
from bothy.jsonable import PLAIN
from bothy.keeper.model import Client, ExecPlan
from bothy.linux.channel import close_all
from bothy.log import logger

if TYPE_CHECKING:
    from bothy.engine.hall import Hall

_log = logger("engine")
_KIND = "exec"


class Execs:
    """The engine's `execs`."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._sessions: dict[str, ExecSession] = {}

    async def create(self, ref: str, request: ExecRequest) -> ExecSession:
        """A session, not started. Raises NotFound, Conflict (not running, paused), Invalid."""
        live = self._hall.workloads.find(ref)
        _check_running(live)
        spec.exec_process(live.record, request)
        session = ExecSession(names.new_id(), live.id, request)
        self._write(session)
        self._hall.tell(live.record, f"exec_create: {_command(request)}", execID=session.id)
        return session

    async def start(
        self,
        exec_id: str,
        connection: Connection | None,
        client: Client | None,
        *,
        tty: bool,
        console_size: Sequence[int] | None,
    ) -> None:
        """Run it; returns when it runs. The connection's fd is closed here in any case (the keeper has its own by then).

        Raises Conflict, or what went wrong (`stage`, `errno`): the session then has exit code 126 or 127.
        """
        try:
            session = self.get(exec_id)
            live = self._hall.workloads.find(session.workload)
            if session.running or session.exit_code is not None:
                raise Conflict(f"exec {exec_id} has already been run")
            _check_running(live)
            if live.keeper is None:
                raise Conflict(f"container {live.record.name} is not running")
            process = replace(spec.exec_process(live.record, session.request, console_size), terminal=session.request.tty)
            plan = ExecPlan(exec_id, process, stdin=session.request.attach_stdin, privileged=session.request.privileged)
            self._sessions[exec_id] = replace(session, running=True)
            self._hall.tell(live.record, f"exec_start: {_command(session.request)}", execID=exec_id)
            try:
                pid = await live.keeper.exec(plan, connection, client)
            except BothyError as exc:
                self._write(replace(session, running=False, exit_code=start_code(exc.stage, exc.errno)))
                raise
            # It may have ended already: then its exit has been noted while we waited.
            if self._sessions[exec_id].running:
                self._write(replace(session, running=True, pid=pid))
        finally:
            if connection is not None:
                close_all([connection.fd])

    def get(self, exec_id: str) -> ExecSession:
        """By id or the unique beginning of one. Raises NotFound."""
        found = self._sessions.get(exec_id)
        if found is None:
            matching = [s for known, s in self._sessions.items() if known.startswith(exec_id)] if exec_id else []
            if len(matching) != 1:
                raise NotFound(f"No such exec instance: {exec_id}")
            found = matching[0]
        return found

    def running(self, ref: str) -> list[str]:
        """The ids of a workload's running execs."""
        workload = self._hall.workloads.find(ref).id
        return [s.id for s in self._sessions.values() if s.running and s.workload == workload]

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set its terminal's size. Raises Conflict when it does not run."""
        session = self.get(exec_id)
        live = self._hall.workloads.by_id(session.workload)
        if not session.running or live is None or live.keeper is None:
            raise Conflict(f"exec {exec_id} is not running")
        await live.keeper.resize(height, width, session.id)

    # -- what the engine tells

    def exited(self, live: Live, exec_id: str, code: int) -> None:
        """A keeper says that an exec has ended."""
        session = self._sessions.get(exec_id)
        if session is not None:
            self._write(replace(session, running=False, exit_code=code, pid=0))
        self._hall.tell(live.record, "exec_die", execID=exec_id, exitCode=str(code))

    def ended_with(self, workload: str) -> None:
        """The workload has ended, and every exec with it."""
        for session in list(self._sessions.values()):
            if session.workload == workload and session.running:
                self._write(replace(session, running=False, exit_code=137, pid=0))

    def forget(self, workload: str) -> None:
        """The workload is removed."""
        for session in [s for s in self._sessions.values() if s.workload == workload]:
            del self._sessions[session.id]
            try:
                self._hall.records.delete_document(_KIND, session.id)
            except BothyError as exc:
                _log.error("exec %s is still on disk: %s", session.id[:12], exc)

    def load(self) -> None:
        """Read what an earlier daemon wrote; sessions of workloads that are gone are dropped."""
        for key, text in self._hall.records.documents(_KIND).items():
            session = PLAIN.loads(ExecSession, text)
            if self._hall.workloads.by_id(session.workload) is None:
                self._hall.records.delete_document(_KIND, key)
            else:
                self._sessions[key] = session

    def reconcile(self, live: Live, running: set[str], ended: dict[str, int]) -> None:
        """What a keeper says runs is what runs; `ended` has the exit codes of what ended while no daemon was there."""
        for session in list(self._sessions.values()):
            if session.workload == live.id and session.running and session.id not in running:
                self.exited(live, session.id, ended.get(session.id, 137))

    def _write(self, session: ExecSession) -> None:
        self._sessions[session.id] = session
        try:
            self._hall.records.put_document(_KIND, session.id, PLAIN.dumps(session))
        except BothyError as exc:
            _log.error("exec %s is not on disk: %s", session.id[:12], exc)


def start_code(stage: str, errno: int) -> int:
    """Docker's exit code for a program that could not be run: 127 not found, 126 not executable, 128 anything else."""
    if stage != "exec":
        return 128
    return 127 if errno == 2 else 126


def _check_running(live: Live) -> None:
    if live.record.status is Status.PAUSED:
        raise Conflict(f"container {live.record.name} is paused, unpause the container before exec")
    if live.record.status is not Status.RUNNING:
        raise Conflict(f"container {live.id} is not running")


def _command(request: ExecRequest) -> str:
    return " ".join(request.cmd)
