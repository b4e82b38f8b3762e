"""The wall of a container: `bothy.keeper.workload.Workload` over `bothy.containers`.

Programs are children of the keeper, their pipes and terminals its file descriptors. They are started by helpers: the main one by
the helper that is born with the keeper (`birth.py`), the others by one each (`helpers.py`):

    keeper                                      helper
      │── fork ──────────────────────────────────▶│ reads the plan, starts the program as the keeper's child
      │◀── {pid, …} + pidfd, pipes or terminal ───│ ends
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from bothy.containers import network
from bothy.containers.cgroups.hierarchies import of_this_host
from bothy.containers.running import Running
from bothy.containers.start import Container, Started, Stdio
from bothy.errors import StageError
from bothy.jsonable import PLAIN
from bothy.keeper import helpers, processes, top
from bothy.keeper import workload as wall
from bothy.keeper.loop import IN, PRI, Loop
from bothy.keeper.model import SPEC, ExecPlan, KeeperPlan
from bothy.keeper.processes import Streams
from bothy.linux import channel
from bothy.linux.hosts import HostsChange
from bothy.linux.links import Attachment, Interface
from bothy.oci.runtime import Resources

_OOM_DELAY = 0.1


def read_plan(folder: str) -> KeeperPlan:
    """The plan in `folder`/spec.json. Raises OSError, or ValueError naming what is wrong in it."""
    with open(f"{folder}/{SPEC}", "rb") as file:
        return PLAIN.loads(KeeperPlan, file.read())


def run_program(start: Callable[[Stdio], Started], *, terminal: bool, stdin: bool) -> tuple[Started, list[tuple[str, int]]]:
    """Start a program with fresh pipes, or on the terminal that it comes with; the descriptors that its keeper needs, by name.

    For helpers, whose end closes everything. Raises StageError or OSError; nothing is left.
    """
    if terminal:
        begun = start(Stdio())
        fds = [("terminal", begun.terminal)]
    else:
        streams, ends = processes.pipes(stdin=stdin)
        begun = start(Stdio(*ends))
        fds = [("stdin", streams.stdin), ("stdout", streams.outputs[wall.STDOUT]), ("stderr", streams.outputs[wall.STDERR])]
    fds += [("pidfd", begun.pidfd), ("root", begun.root)]
    return begun, [(name, fd) for name, fd in fds if fd >= 0]


class ContainerWorkload:
    """A container that runs. `state` and `fds` are what its helper handed over, `folder` holds the plan."""

    error = ""

    def __init__(self, loop: Loop, state: dict[str, Any], fds: dict[str, list[int]], folder: str) -> None:
        self._loop = loop
        self._folder = folder
        self._state = state
        self._fds = {name: given[0] for name, given in fds.items()}
        # fds["root"] is held as long as this process lives, see `Started`.
        cgroup = of_this_host().at(str(state["cgroup"]))
        own_network = bool(state["own_network"])
        self._running = Running(cgroup, int(state["pid"]), self._fds["pidfd"], own_network=own_network)

    def main(self, session: wall.Session) -> wall.Process:
        """The main program's process."""
        return self._process(session, self._state, self._fds, self._signal)

    def start(self, session: wall.Session, started: wall.Started) -> None:
        raise StageError("start", "a container starts once")

    def exec(self, plan: ExecPlan, session: wall.Session, started: wall.Started) -> None:
        running = self._running
        if running.frozen:
            raise StageError("exec", "the container is paused")

        def work(sock: channel.Socket) -> None:
            container = read_plan(self._folder).container
            assert container is not None

            def start(stdio: Stdio) -> Started:
                return inside.exec(plan.process, stdio, privileged=plan.privileged)

            try:
                inside = Container.of_init(container, running.pid, running.pidfd)
            except OSError as exc:
                raise StageError("exec", "the container does not run", errno=exc.errno or 0) from exc
            begun, fds = run_program(start, terminal=plan.process.terminal, stdin=plan.stdin)
            names = [name for name, _ in fds]
            channel.send(sock, {"pid": begun.pid, "warnings": list(begun.warnings), "names": names}, [fd for _, fd in fds])

        def begun(message: channel.Message, given: list[int]) -> None:
            fds = dict(zip(message["names"], given, strict=True))
            os.close(fds["pidfd"])
            started(self._process(session, message, fds, os.kill))

        helpers.await_message(self._loop, helpers.fork(work), begun, started)

    def visit(self, session: wall.Session, started: wall.Started) -> None:
        raise StageError("visit", "containers are visited by the spawner's children")

    def visited(self) -> None:
        return

    def kill(self, *, discard: bool = False) -> None:
        self._running.kill()

    def pause(self, done: wall.Done) -> None:
        self._running.pause()
        done({})

    def resume(self, done: wall.Done) -> None:
        self._running.resume()
        done({})

    def top(self, args: str, done: wall.Done) -> None:
        done(top.table(args, self._running.pids(), id_base=int(self._state["id_base"])))

    def stats(self, done: wall.Done) -> None:
        done(self._running.stats())

    def update(self, resources: Resources, done: wall.Done) -> None:
        self._running.update(resources)
        done({})

    def connect(self, attachment: Attachment, done: wall.Done) -> None:
        self._change_network(lambda pidfd: network.attach_running(pidfd, attachment), done)

    def disconnect(self, link: str, heir: Interface | None, done: wall.Done) -> None:
        def change(pidfd: int) -> None:
            network.detach(link)
            if heir is not None:
                network.reroute(pidfd, heir)

        self._change_network(change, done)

    def _change_network(self, change: Callable[[int], None], done: wall.Done) -> None:
        """Do something to the network namespace in a helper: the kernel takes its time to delete a link."""
        if not self._state["own_network"]:
            raise StageError("network", "the container has no network of its own")
        pidfd = self._running.pidfd

        def work(sock: channel.Socket) -> None:
            change(pidfd)
            channel.send(sock, {})

        helpers.await_message(self._loop, helpers.fork(work), lambda _message, _fds: done({}), done)

    def hosts(self, change: HostsChange, done: wall.Done) -> None:
        raise StageError("hosts", "a container's hosts file is the daemon's to change")

    def watch_oom(self, call: Callable[[], None]) -> None:
        """Call whenever memory has run out inside: a moment later, when the kernel has had time to kill."""

        def event(_events: int) -> None:
            try:
                os.read(fd, 8) if "oom" in self._fds else os.pread(fd, 4096, 0)
            except OSError:
                self._loop.forget(fd)
            self._loop.later(_OOM_DELAY, call)

        fd = self._fds.get("oom", self._fds.get("oom-exception", -1))
        if fd >= 0:
            self._loop.watch(fd, IN if "oom" in self._fds else PRI, event)

    def oom_count(self) -> int:
        return self._running.oom_count()

    def close(self) -> None:
        self._running.cleanup()

    def _signal(self, _pid: int, number: int) -> None:
        self._running.signal(number)

    def _process(
        self, session: wall.Session, message: dict[str, Any], fds: dict[str, int], on_signal: Callable[[int, int], None]
    ) -> processes.ChildProcess:
        """The process that a helper has told of, with the descriptors that came along."""
        if "terminal" in fds:
            streams = processes.terminal(fds["terminal"])
        else:
            streams = Streams(fds.get("stdin", -1), {wall.STDOUT: fds["stdout"], wall.STDERR: fds["stderr"]})
        warnings = tuple(message["warnings"])
        return processes.ChildProcess(self._loop, session, int(message["pid"]), streams, warnings=warnings, on_signal=on_signal)
