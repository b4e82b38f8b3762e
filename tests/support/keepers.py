"""Keepers and spawners for tests: real processes and sockets; the wall may be a local program instead of a container."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bothy.containers.model import ContainerPlan, Rootfs
from bothy.jsonable import PLAIN
from bothy.keeper import main, processes, top
from bothy.keeper import workload as wall
from bothy.keeper.core import Keeper
from bothy.keeper.logs import Log
from bothy.keeper.loop import Loop
from bothy.keeper.model import Client, ExecPlan, Exit, KeeperPlan, LogPlan
from bothy.linux import channel
from bothy.oci.runtime import Process, Resources, Root, Spec


class LocalWorkload:
    """A wall that isolates nothing: programs are children of the keeper in this system, as those of a container are."""

    error = ""

    def __init__(self, loop: Loop, process: Process, *, stdin: bool) -> None:
        self._loop = loop
        self._process = process
        self._stdin = stdin
        self._pids: list[int] = []

    def start(self, session: wall.Session, started: wall.Started) -> None:
        started(self._run(session, self._process, stdin=self._stdin))

    def exec(self, plan: ExecPlan, session: wall.Session, started: wall.Started) -> None:
        started(self._run(session, plan.process, stdin=plan.stdin))

    def kill(self, *, discard: bool = False) -> None:
        for pid in self._pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def pause(self, done: wall.Done) -> None:
        os.kill(self._pids[0], signal.SIGSTOP)
        done({})

    def resume(self, done: wall.Done) -> None:
        os.kill(self._pids[0], signal.SIGCONT)
        done({})

    def top(self, args: str, done: wall.Done) -> None:
        done(top.table(args, self._pids))

    def stats(self, done: wall.Done) -> None:
        done({"pids_stats": {"current": len(self._pids)}})

    def update(self, resources: Resources, done: wall.Done) -> None:
        done({})

    def oom_count(self) -> int:
        return 0

    def close(self) -> None:
        self.kill()

    def _run(self, session: wall.Session, process: Process, *, stdin: bool) -> processes.ChildProcess:
        running, signal_fd = os.pipe2(os.O_CLOEXEC)
        if process.terminal:
            pid, master = pty.fork()
            if not pid:
                _exec(process)
            streams = processes.terminal(master)
        else:
            streams, ends = processes.pipes(stdin=stdin)
            pid = os.fork()
            if not pid:
                for number, fd in enumerate(ends):
                    os.dup2(fd if fd >= 0 else os.open("/dev/null", os.O_RDONLY), number)
                _exec(process)
            channel.close_all(fd for fd in ends if fd >= 0)
        os.close(signal_fd)
        os.read(running, 1)  # the end comes with exec
        os.close(running)
        self._pids.append(pid)
        return processes.ChildProcess(self._loop, session, pid, streams)


def _exec(process: Process) -> None:
    try:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvpe(process.args[0], process.args, dict(os.environ))
    finally:
        os._exit(127)


def local_plan(
    folder: Path, *args: str, tty: bool = False, stdin: bool = False, stdin_once: bool = False, **log: Any
) -> KeeperPlan:
    """The plan of a program that runs here; its log is `folder`/log."""
    process = Process(args=list(args), terminal=tty)
    container = ContainerPlan("local", Spec(process, Root("/")), Rootfs("/", [], "/", "/"))
    plan = LogPlan(str(folder / "log"), **log)
    return KeeperPlan("local", plan, container, tty=tty, stdin=stdin, stdin_once=stdin_once)


class Daemon:
    """The daemon's end of a channel: requests answered in order, events collected."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.events: list[dict[str, Any]] = []
        self._seq = 0
        sock.settimeout(20)

    def request(self, op: str, fds: tuple[int, ...] = (), **fields: Any) -> dict[str, Any]:
        """Send, and wait for the answer: its `ok`, or `{"error": ...}`."""
        self._seq += 1
        channel.send(self.sock, {"op": op, "seq": self._seq, **fields}, fds)
        while True:
            message = self.read()
            assert message is not None, f"no answer to {op}"
            if message.get("seq") == self._seq:
                return message.get("ok", message)

    def tell(self, op: str, fds: tuple[int, ...] = (), **fields: Any) -> None:
        channel.send(self.sock, {"op": op, **fields}, fds)

    def read(self) -> dict[str, Any] | None:
        """The next message; events are kept too."""
        message, fds = channel.receive(self.sock)
        channel.close_all(fds)
        if message is not None and "event" in message:
            self.events.append(message)
        return message

    def event(self, name: str) -> dict[str, Any]:
        """The next event of that name, one seen already included; each is given once."""
        while True:
            for known in self.events:
                if known["event"] == name:
                    self.events.remove(known)
                    return known
            assert self.read() is not None, f"the stream ended without {name}"

    def close(self) -> None:
        self.sock.close()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process stand still meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@dataclass
class Peer:
    """A client's end of an attached connection."""

    sock: socket.socket
    data: bytes = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def until(self, text: bytes) -> bytes:
        """Read until that text is there (or the end)."""
        while text not in self.data:
            more = self.sock.recv(65536)
            if not more:
                break
            self.data += more
        return self.data

    def rest(self) -> bytes:
        """Everything until the end."""
        while more := self.sock.recv(1 << 16):
            self.data += more
        return self.data

    def close(self) -> None:
        self.sock.close()


def connection() -> tuple[Peer, int]:
    """A client's connection: its own end, and the descriptor that is handed over."""
    mine, other = socket.socketpair()
    mine.settimeout(20)
    return Peer(mine), other.detach()


@dataclass
class Harness:
    """Makes keepers in a folder; `close` ends what was made and checks that each has gone."""

    folder: Path
    _pids: list[int] = field(default_factory=list)
    _open: list[Any] = field(default_factory=list)

    def keeper(self, *args: str, make: Callable[..., wall.Workload] = LocalWorkload, **options: Any) -> Daemon:
        """A keeper of a local program, born and not started."""
        plan = local_plan(self.folder, *args, **options)
        mine, other = channel.pair()
        pid = os.fork()
        if not pid:
            try:
                mine.close()
                self._be_keeper(plan, other, make)
            finally:
                os._exit(99)
        other.close()
        self._pids.append(pid)
        daemon = Daemon(mine)
        self._open.append(daemon)
        return daemon

    @property
    def pid(self) -> int:
        return self._pids[-1]

    def _be_keeper(self, plan: KeeperPlan, control: socket.socket, make: Callable[..., wall.Workload]) -> None:
        try:
            main.catch_signals()
            main.adopt_orphans()
            os.setsid()
            loop = Loop()
            loop.reap()
            assert plan.container is not None
            wall_ = make(loop, plan.container.spec.process, stdin=plan.stdin)
            log = Log(loop, plan.log) if plan.log.driver == "json-file" else None
            keeper = Keeper(loop, plan, str(self.folder), wall_, log, [control])
            os._exit(main.serve(loop, keeper))
        except BaseException:
            traceback.print_exc()

    def client(self, **fields: Any) -> tuple[Peer, int, dict[str, Any]]:
        """A connection and the description that goes with it. The descriptor is the caller's to close (`hand_over`)."""
        peer, fd = connection()
        self._open.append(peer)
        return peer, fd, PLAIN.to_data(Client(**fields))

    def start(self, daemon: Daemon, **fields: Any) -> Peer:
        """Start the program with one client."""
        peer, fd, data = self.client(**fields)
        answer = daemon.request("start", (fd,), clients=[data])
        os.close(fd)
        assert answer.get("pid"), answer
        return peer

    def attach(self, daemon: Daemon, **fields: Any) -> Peer:
        peer, fd, data = self.client(**fields)
        answer = daemon.request("attach", (fd,), client=data)
        os.close(fd)
        assert "error" not in answer, answer
        return peer

    def exec(self, daemon: Daemon, name: str, *args: str, tty: bool = False, stdin: bool = False, **fields: Any) -> Peer:
        peer, fd, data = self.client(stdin=stdin, **fields)
        plan = PLAIN.to_data(ExecPlan(name, Process(list(args), terminal=tty), stdin=stdin))
        answer = daemon.request("exec", (fd,), plan=plan, client=data)
        os.close(fd)
        assert answer.get("pid"), answer
        return peer

    def exit(self) -> Exit:
        """What the keeper left. Raises FileNotFoundError when it left nothing."""
        return PLAIN.loads(Exit, (self.folder / "exit.json").read_bytes())

    def wait(self, timeout: float = 20) -> int:
        """The exit status of the last keeper, when it has ended."""
        pid = self._pids.pop()
        fd = os.pidfd_open(pid)
        try:
            assert select.select([fd], [], [], timeout)[0], f"keeper {pid} does not end"
        finally:
            os.close(fd)
        return processes.exit_code(os.waitpid(pid, 0)[1])

    def close(self) -> None:
        for thing in self._open:
            thing.close()
        while self._pids:
            pid = self._pids[-1]
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                select.select([], [], [], 0.01)
            if not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                os.kill(pid, signal.SIGKILL)
                self.wait()
                raise AssertionError(f"keeper {pid} had to be killed")
            self.wait()


def children(pid: int) -> list[int]:
    """The children of a process."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
