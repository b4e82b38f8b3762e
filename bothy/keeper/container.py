"""The wall of a container: `bothy.keeper.workload.Workload` over `bothy.containers.start.Container`.

The main program and the execs are children of the keeper; their pipes and terminals are its file descriptors.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from bothy.containers import sandbox as sandboxes
from bothy.containers.model import ContainerPlan
from bothy.containers.sandbox import Sandbox
from bothy.containers.start import Container, Started, Stdio
from bothy.errors import StageError
from bothy.keeper import processes, top
from bothy.keeper import workload as wall
from bothy.keeper.loop import Loop
from bothy.keeper.model import ExecPlan
from bothy.linux.channel import close_all
from bothy.oci.runtime import Resources


class ContainerWorkload:
    """One container; `stdin` as in KeeperPlan. A sandbox that was not made ahead is made at start, with `network`."""

    error = ""

    def __init__(self, loop: Loop, plan: ContainerPlan, sandbox: Sandbox | None, network: str, *, stdin: bool) -> None:
        self._loop = loop
        self._plan = plan
        self._stdin = stdin
        self._network = network
        self._sandbox = sandbox
        self._begun: Container | None = None

    @property
    def _container(self) -> Container:
        if self._begun is None:
            raise StageError("keeper", "the container was not started")
        return self._begun

    def start(self, session: wall.Session, started: wall.Started) -> None:
        if self._sandbox is None:
            self._sandbox = sandboxes.make(self._plan.id_base, self._network)
        self._begun = Container(self._plan, self._sandbox)
        terminal = self._plan.spec.process.terminal
        started(self._spawn(session, self._container.start, self._signal, terminal=terminal, stdin=self._stdin))

    def exec(self, plan: ExecPlan, session: wall.Session, started: wall.Started) -> None:
        def run(stdio: Stdio) -> Started:
            return self._container.exec(plan.process, stdio, privileged=plan.privileged)

        started(self._spawn(session, run, os.kill, terminal=plan.process.terminal, stdin=plan.stdin))

    def kill(self) -> None:
        self._container.kill()

    def pause(self, done: wall.Done) -> None:
        self._container.pause()
        done({})

    def resume(self, done: wall.Done) -> None:
        self._container.resume()
        done({})

    def top(self, args: str, done: wall.Done) -> None:
        done(top.table(args, self._container.pids(), id_base=self._plan.id_base))

    def stats(self, done: wall.Done) -> None:
        done(self._container.stats())

    def update(self, resources: Resources, done: wall.Done) -> None:
        self._container.update(resources)
        done({})

    def oom_count(self) -> int:
        return self._container.oom_count()

    def close(self) -> None:
        if self._begun is not None:
            self._begun.cleanup()
        elif self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def _signal(self, _pid: int, number: int) -> None:
        self._container.signal(number)

    def _spawn(
        self,
        session: wall.Session,
        run: Callable[[Stdio], Started],
        on_signal: Callable[[int, int], None],
        *,
        terminal: bool,
        stdin: bool,
    ) -> processes.ChildProcess:
        """Run a program with fresh pipes, or on the terminal that it comes with. Raises StageError or OSError; nothing is left."""
        if terminal:
            begun = run(Stdio())
            streams = processes.terminal(begun.terminal)
        else:
            streams, ends = processes.pipes(stdin=stdin)
            try:
                begun = run(Stdio(*ends))
            except BaseException:
                streams.close()
                raise
            finally:
                close_all(fd for fd in ends if fd >= 0)
        os.close(begun.pidfd)
        return processes.ChildProcess(self._loop, session, begun.pid, streams, warnings=begun.warnings, on_signal=on_signal)
