"""The wall of a container: `bothy.keeper.workload.Workload` over `bothy.containers`.

Programs are children of the keeper, their pipes and terminals its file descriptors. They are started by helpers (`helpers.py`):

    keeper                                     helper, born with the keeper
      │◀─ facts {log, tty, stdin, cgroup, …} ────│ reads the plan
      │── go ───────────────────────────────────▶│ makes pipes, starts the container
      │◀─ {pid, …} + pidfd, pipes or terminal ───│ ends
                                               helper, one for each exec
      │◀─ {pid, …} + pidfd, pipes or terminal ───│ reads the plan, starts the program, ends
"""

from __future__ import annotations

import os
from collections.abc import Callable

from bothy.containers import sandbox as sandboxes
from bothy.containers.cgroups.hierarchies import of_this_host
from bothy.containers.running import Running
from bothy.containers.sandbox import Sandbox
from bothy.containers.start import Container, Started, Stdio
from bothy.errors import StageError
from bothy.jsonable import PLAIN
from bothy.keeper import helpers, processes, top
from bothy.keeper import workload as wall
from bothy.keeper.loop import Loop
from bothy.keeper.model import SPEC, ExecPlan, KeeperPlan
from bothy.keeper.processes import Streams
from bothy.linux import channel, syscalls
from bothy.oci.runtime import Resources


def read_plan(folder: str) -> KeeperPlan:
    """The plan in `folder`/spec.json. Raises OSError, or ValueError naming what is wrong in it."""
    with open(f"{folder}/{SPEC}", "rb") as file:
        return PLAIN.loads(KeeperPlan, file.read())


def attend(sock: channel.Socket, folder: str, sandbox: Sandbox | None, network: str) -> None:
    """The helper that is born with a keeper: tell it what it has to know, start the container when told to.

    A machine has no use for a helper: `{"machine": true}` is all that is said then.
    """
    plan = read_plan(folder)
    if plan.container is None:
        if plan.machine is None:
            raise ValueError("the plan names neither container nor machine")
        channel.send(sock, {"machine": True})
        return
    container = plan.container
    facts = {
        "id": plan.id,
        "log": vars(plan.log),
        "tty": container.spec.process.terminal,
        "stdin": plan.stdin,
        "stdin_once": plan.stdin_once,
        "cgroup": container.cgroup,
        "id_base": container.id_base,
        "orphans": all(n.type != "pid" or n.path for n in container.spec.linux.namespaces),
        "own_network": any(n.type == "network" for n in container.spec.linux.namespaces),
    }
    channel.send(sock, facts)
    go, _ = channel.receive(sock)
    if go is None:
        return
    sandbox = sandbox or sandboxes.make(container.id_base, network)
    start = Container(container, sandbox, sibling=True).start
    _run(sock, start, terminal=container.spec.process.terminal, stdin=plan.stdin)


def _run(sock: channel.Socket, start: Callable[[Stdio], Started], *, terminal: bool, stdin: bool) -> None:
    """Start a program with fresh pipes, or on the terminal that it comes with, and hand it to the keeper.

    Raises StageError or OSError; nothing is left (pipes end with the helper).
    """
    if terminal:
        begun = start(Stdio())
        fds = {"terminal": begun.terminal}
    else:
        streams, ends = processes.pipes(stdin=stdin)
        begun = start(Stdio(*ends))
        fds = {"stdin": streams.stdin, "stdout": streams.outputs[wall.STDOUT], "stderr": streams.outputs[wall.STDERR]}
    fds |= {"pidfd": begun.pidfd, "root": begun.root}
    fds = {name: fd for name, fd in fds.items() if fd >= 0}
    channel.send(sock, {"pid": begun.pid, "warnings": list(begun.warnings), "fds": list(fds)}, fds.values())


def _by_name(message: channel.Message, fds: list[int]) -> dict[str, int]:
    """The descriptors that `_run` handed over."""
    return dict(zip(message["fds"], fds, strict=True))


class ContainerWorkload:
    """One container. `facts` and `helper`: what `attend` said, and where it waits for its go. `folder` holds the plan."""

    error = ""

    def __init__(self, loop: Loop, facts: channel.Message, helper: channel.Socket, folder: str) -> None:
        self._loop = loop
        self._folder = folder
        self._helper: channel.Socket | None = helper
        self._facts = facts
        self._running: Running | None = None

    def start(self, session: wall.Session, started: wall.Started) -> None:
        helper, self._helper = self._helper, None
        if helper is None:
            raise StageError("start", "a container starts once")
        channel.send(helper, {})

        def begun(message: channel.Message, given: list[int]) -> None:
            fds = _by_name(message, given)
            # fds["root"] is held as long as this process lives, see `Started`.
            cgroup = of_this_host().at(str(self._facts["cgroup"]))
            own_network = bool(self._facts["own_network"])
            self._running = Running(cgroup, int(message["pid"]), fds["pidfd"], own_network=own_network)
            started(self._process(session, message, fds, self._signal))

        helpers.await_message(self._loop, helper, begun, started)

    def exec(self, plan: ExecPlan, session: wall.Session, started: wall.Started) -> None:
        running = self._container
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
            _run(sock, start, terminal=plan.process.terminal, stdin=plan.stdin)

        def begun(message: channel.Message, given: list[int]) -> None:
            fds = _by_name(message, given)
            os.close(fds["pidfd"])
            started(self._process(session, message, fds, os.kill))

        helpers.await_message(self._loop, helpers.fork(work), begun, started)

    def kill(self) -> None:
        self._container.kill()

    def pause(self, done: wall.Done) -> None:
        self._container.pause()
        done({})

    def resume(self, done: wall.Done) -> None:
        self._container.resume()
        done({})

    def top(self, args: str, done: wall.Done) -> None:
        done(top.table(args, self._container.pids(), id_base=int(self._facts["id_base"])))

    def stats(self, done: wall.Done) -> None:
        done(self._container.stats())

    def update(self, resources: Resources, done: wall.Done) -> None:
        self._container.update(resources)
        done({})

    def oom_count(self) -> int:
        return self._container.oom_count()

    def close(self) -> None:
        if self._helper is not None:
            self._helper.close()
            self._helper = None
        if self._running is not None:
            self._running.cleanup()

    @property
    def _container(self) -> Running:
        if self._running is None:
            raise StageError("keeper", "the container was not started")
        return self._running

    def _signal(self, _pid: int, number: int) -> None:
        self._container.signal(number)

    def _process(
        self, session: wall.Session, message: channel.Message, fds: dict[str, int], on_signal: Callable[[int, int], None]
    ) -> processes.ChildProcess:
        """The process that a helper has told of, with the descriptors that came along."""
        if "terminal" in fds:
            streams = processes.terminal(fds["terminal"])
        else:
            streams = Streams(fds.get("stdin", -1), {wall.STDOUT: fds["stdout"], wall.STDERR: fds["stderr"]})
        warnings = tuple(message["warnings"])
        return processes.ChildProcess(self._loop, session, int(message["pid"]), streams, warnings=warnings, on_signal=on_signal)


def adopt_orphans() -> None:
    """Become the parent of what the container leaves behind, which otherwise is for the init of its pid namespace."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
