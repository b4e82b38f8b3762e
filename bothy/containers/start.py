"""One container, from the keeper's side: start, exec, signal, freeze, measure, end.

The keeper is the parent of the init and of every exec: it unshares its pid namespace once, so that its children from then on are
born in the container's. See `stage.py` for what the children do.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

from bothy.containers import network, stage
from bothy.containers.cgroups.hierarchies import Hierarchies, of_this_host
from bothy.containers.model import ContainerPlan
from bothy.containers.running import Running
from bothy.containers.sandbox import Sandbox
from bothy.errors import StageError
from bothy.linux import channel, namespaces, syscalls
from bothy.oci.runtime import Process


@dataclass(frozen=True)
class Stdio:
    """The program's ends of its standard streams, owned (and later closed) by the caller; -1 is the container's /dev/null.

    With `Process.terminal` all three are ignored: the container's own devpts gives a pty, its master is in `Started`.
    """

    stdin: int = -1
    stdout: int = -1
    stderr: int = -1


@dataclass(frozen=True)
class Started:
    """A running program. `pid` as the keeper sees it; it is the keeper's child, to be waited for by the keeper.

    `pidfd` and `terminal` (the pty's master, -1 without a terminal) are owned by who gets this. `warnings` tell of limits that
    had to be clamped and the like. `root` (of a main program whose overlay is not volatile, else -1) is a descriptor of the root
    folder, owned likewise: while someone holds it, the overlay is not unmounted, which would write all that the disk below has
    pending and keep those waiting who wait for the program's end.
    """

    pid: int
    pidfd: int
    terminal: int = -1
    warnings: tuple[str, ...] = ()
    root: int = -1


class Container(Running):
    """A container of which the calling process is the parent, or with `sibling` the calling process's parent: what is started is
    then born as its child (CLONE_PARENT), so that a helper process can do the starting.

    The constructor only takes its arguments. Order of calls: start once, then anything, then cleanup once (also after a failed
    start). The sandbox is the container's from here on: it closes it. `hierarchies`: the control groups to use, this host's
    if None.
    """

    def __init__(
        self, plan: ContainerPlan, sandbox: Sandbox | None, hierarchies: Hierarchies | None = None, *, sibling: bool = False
    ) -> None:
        kinds = _kinds(plan)
        cgroup = (hierarchies or of_this_host()).at(plan.cgroup)
        super().__init__(cgroup, 0, -1, own_network=bool(kinds & syscalls.CLONE_NEWNET))
        self._plan = plan
        self._sandbox = sandbox
        self._kinds = kinds
        self._sibling = sibling

    @classmethod
    def of_init(cls, plan: ContainerPlan, pid: int, pidfd: int) -> Container:
        """The running container of that init, seen by a helper process that is going to start one more program in it for its
        parent. The calling process's children are born in the container from here on."""
        container = cls(plan, None, sibling=True)
        container._pid, container._pidfd = pid, pidfd
        if any(namespace.type == "pid" for namespace in plan.spec.linux.namespaces):
            syscalls.setns(pidfd, syscalls.CLONE_NEWPID)
        return container

    def start(self, stdio: Stdio, about_to_run: Callable[[], None] = lambda: None) -> Started:
        """Make cgroups, namespaces and mounts, and run the program of the plan; returns when it has been exec'ed. `about_to_run` is
        called when nothing but the program's own process has more to do before that.

        Raises StageError: no process, mount, link or cgroup is left, only the record on disk. Stage `exec` with ENOENT, EACCES, …
        is the program's own fault. Call it once: the caller unshares its pid namespace for children.
        """
        plan, sandbox = self._plan, self._sandbox
        if sandbox is None or self._pid:
            raise StageError("start", "a container starts once", errno=errno.EALREADY)
        streams = (stdio.stdin, stdio.stdout, stdio.stderr)

        def connect() -> None:
            self._connect(sandbox)
            about_to_run()

        try:
            self._cgroup.create(plan.spec.linux.resources)
            _be_born_inside(plan)
            started = self._spawn(
                lambda sock: stage.init(plan, sandbox, self._cgroup, sock, streams),
                connect,
            )
        except OSError as exc:
            self.cleanup()
            raise StageError("start", exc.strerror or str(exc), errno=exc.errno or 0) from exc
        except BaseException:
            self.cleanup()
            raise
        self._pid, self._pidfd = started.pid, os.dup(started.pidfd)
        sandbox.close()
        self._sandbox = None
        return replace(started, warnings=(*plan.warnings, *started.warnings))

    def exec(self, process: Process, stdio: Stdio, *, privileged: bool = False) -> Started:
        """Run one more program in the running container; returns when it has been exec'ed. Raises StageError; nothing is left."""
        if not self._pid:
            raise StageError("exec", "the container does not run", errno=errno.ESRCH)
        if self._frozen:
            raise StageError("exec", "the container is paused", errno=errno.EBUSY)
        target, base, kinds = (self._pid, self._pidfd), self._plan.id_base, self._kinds
        program = b""
        if self._plan.seccomp and not privileged:
            with open(self._plan.seccomp, "rb", buffering=0) as file:
                program = file.read()
        streams = (stdio.stdin, stdio.stdout, stdio.stderr)

        def become(sock: socket.socket) -> NoReturn:
            stage.joined(
                target,
                process,
                self._cgroup,
                sock,
                streams,
                id_base=base,
                kinds=kinds,
                program=program,
                privileged=privileged,
            )

        try:
            return self._spawn(become, None)
        except OSError as exc:  # the fork itself: the pid namespace is dead when its init is
            gone = exc.errno == errno.ENOMEM and _ended(self._pidfd)
            message = "the container does not run" if gone else exc.strerror or str(exc)
            raise StageError("fork", message, errno=exc.errno or 0) from exc

    def cleanup(self) -> None:
        """Kill what still runs, remove the cgroups, close fds. Idempotent. Reaps no children (the keeper does)."""
        super().cleanup()
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def _connect(self, sandbox: Sandbox) -> None:
        """The keeper's part of the network: veth pairs, one end of each on its bridge, the other in the sandbox."""
        for attachment in self._plan.attachments:
            if attachment.link and sandbox.netns >= 0:
                network.attach(sandbox.netns, attachment)

    def _spawn(self, become: Callable[[socket.socket], NoReturn], meanwhile: Callable[[], None] | None) -> Started:
        """Fork into the cgroup, do `meanwhile`, let the child go on, and wait for its exec or its end.

        On failure the child has been killed and reaped.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            fork_fd = self._cgroup.fork_fd()
            plain = fork_fd < 0 and not self._sibling
            pid = os.fork() if plain else syscalls.fork_into_cgroup(fork_fd, sibling=self._sibling)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            ours.close()
            become(theirs)
        theirs.close()
        pidfd = -1
        fds: dict[str, int] = {}
        try:
            pidfd = os.pidfd_open(pid)
            if meanwhile is not None:
                meanwhile()
                try:
                    channel.send(ours, {"go": True})
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it has failed already, and said why
            warnings = _await_exec(ours, fds)
        except BaseException:
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so this is still its pid
            if self._sibling:
                _ended(pidfd, wait=True)
            else:
                os.waitpid(pid, 0)
            channel.close_all([*fds.values(), *([pidfd] if pidfd >= 0 else [])])
            raise
        finally:
            ours.close()
        return Started(pid, pidfd, fds.get("terminal", -1), tuple(warnings), fds.get("root", -1))


def _await_exec(sock: socket.socket, given: dict[str, int]) -> list[str]:
    """The warnings, when the child's last word was that exec is next; `given` gets the descriptors that it hands over, by name.

    Raises StageError for anything else.
    """
    warnings: list[str] = []
    exec_next = False
    while True:
        message, fds = channel.receive(sock)
        if message is None:
            break
        given.update(zip(message.get("fds", ()), fds, strict=True))
        failure = message.get("failure")
        if failure:
            sys.stderr.write(message["trace"])
            raise StageError(failure["stage"], failure["message"], errno=failure["errno"], path=failure["path"])
        warnings += message.get("warnings", [])
        exec_next = exec_next or bool(message.get("exec"))
    if not exec_next:
        raise StageError("start", "the init stage ended without a word (was it killed?)")
    return warnings


def _be_born_inside(plan: ContainerPlan) -> None:
    """Have this process's children born in the container's pid namespace: its own, another one's, or the host's."""
    for namespace in plan.spec.linux.namespaces:
        if namespace.type == "pid" and not namespace.path:
            syscalls.unshare(syscalls.CLONE_NEWPID)
        elif namespace.type == "pid":
            fd = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
            namespaces.join(fd, "pid")
            os.close(fd)


def _kinds(plan: ContainerPlan) -> int:
    """The flags of the namespaces that another program has to join to be in the container; pid they have by birth."""
    listed = {namespace.type for namespace in plan.spec.linux.namespaces} - {"pid", "user", "time"}
    kinds = syscalls.CLONE_NEWNS
    for kind in listed:
        kinds |= namespaces.KINDS[kind][0]
    return kinds | (syscalls.CLONE_NEWUSER if plan.id_base else 0)


def _ended(pidfd: int, *, wait: bool = False) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if wait else 0))
