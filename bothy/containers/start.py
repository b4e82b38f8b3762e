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
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from bothy.containers import stage
from bothy.containers.cgroups import files
from bothy.containers.cgroups.hierarchies import Hierarchies, of_this_host
from bothy.containers.model import ContainerPlan
from bothy.containers.sandbox import Sandbox
from bothy.errors import StageError
from bothy.linux import channel, links, namespaces, syscalls
from bothy.oci.runtime import Process, Resources

_CLEANUP_SECONDS = 10.0


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
    had to be clamped and the like.
    """

    pid: int
    pidfd: int
    terminal: int = -1
    warnings: tuple[str, ...] = ()


class Container:
    """A container of which the calling process is the parent.

    The constructor only takes its arguments. Order of calls: start once, then anything, then cleanup once (also after a failed
    start). The sandbox is the container's from here on: it closes it. `hierarchies`: the control groups to use, this host's
    if None.
    """

    def __init__(self, plan: ContainerPlan, sandbox: Sandbox, hierarchies: Hierarchies | None = None) -> None:
        self._plan = plan
        self._sandbox: Sandbox | None = sandbox
        self._cgroup = (hierarchies or of_this_host()).at(plan.cgroup)
        self._pid = 0
        self._pidfd = -1
        self._frozen = False
        self._kinds = _kinds(plan, sandbox)

    @property
    def pid(self) -> int:
        """The init's pid as the keeper sees it, 0 before the start."""
        return self._pid

    @property
    def pidfd(self) -> int:
        """The init's pidfd, -1 before the start. Owned by this object, closed by cleanup."""
        return self._pidfd

    def start(self, stdio: Stdio) -> Started:
        """Make cgroups, namespaces and mounts, and run the program of the plan; returns when it has been exec'ed.

        Raises StageError: no process, mount, link or cgroup is left, only the record on disk. Stage `exec` with ENOENT, EACCES, …
        is the program's own fault. Call it once: the caller unshares its pid namespace for children.
        """
        plan, sandbox = self._plan, self._sandbox
        if sandbox is None or self._pid:
            raise StageError("start", "a container starts once", errno=errno.EALREADY)
        streams = (stdio.stdin, stdio.stdout, stdio.stderr)
        try:
            self._cgroup.create(plan.spec.linux.resources)
            if any(namespace.type == "pid" and not namespace.path for namespace in plan.spec.linux.namespaces):
                syscalls.unshare(syscalls.CLONE_NEWPID)
            started = self._spawn(
                lambda sock: stage.init(plan, sandbox, self._cgroup, sock, streams),
                lambda: self._connect(sandbox),
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
        return Started(started.pid, started.pidfd, started.terminal, (*plan.warnings, *started.warnings))

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

    def signal(self, number: int) -> None:
        """Send a signal to the init. Raises ProcessLookupError when it is gone."""
        if self._pidfd < 0:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """SIGKILL every process of the container (and thaw it, so that they die)."""
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._cgroup.kill()
        self._frozen = False

    def pause(self) -> None:
        """Freeze every process; returns when all are frozen. Raises StageError (and they run on)."""
        self._cgroup.freeze()
        self._frozen = True

    def resume(self) -> None:
        """Thaw every process."""
        self._cgroup.thaw()
        self._frozen = False

    def pids(self) -> list[int]:
        """Every process of the container, as the host sees them."""
        return self._cgroup.pids()

    def stats(self) -> dict[str, Any]:
        """`cpu_stats`, `memory_stats`, `pids_stats`, `blkio_stats` and `networks` in the shapes of the Docker Engine API."""
        stats = self._cgroup.stats()
        stats["cpu_stats"]["online_cpus"] = os.cpu_count() or 1
        stats["cpu_stats"]["system_cpu_usage"] = _system_usage()
        memory = stats["memory_stats"]
        memory["limit"] = memory["limit"] or _total_memory()
        own_network = self._kinds & syscalls.CLONE_NEWNET
        stats["networks"] = _networks(files.read(f"/proc/{self._pid}/net", "dev")) if self._pid and own_network else {}
        return stats

    def update(self, resources: Resources) -> None:
        """Set the limits that are given, leave the others. Raises StageError naming the one that the kernel refused."""
        try:
            self._cgroup.update(resources)
        except OSError as exc:
            raise StageError("cgroup", exc.strerror or str(exc), errno=exc.errno or 0, path=str(exc.filename or "")) from exc

    def oom_count(self) -> int:
        """How many processes the kernel has killed in this container for want of memory. Valid until cleanup."""
        return self._cgroup.oom_count()

    def cleanup(self) -> None:
        """Kill what still runs, remove the cgroups, close fds. Idempotent. Reaps no children (the keeper does)."""
        if not self._cgroup.remove():
            self._cgroup.kill()
            end, pause = time.monotonic() + _CLEANUP_SECONDS, 0.0005
            while not self._cgroup.remove() and time.monotonic() < end:
                time.sleep(pause)  # the kernel tells nobody when a killed process has left a v1 cgroup
                pause = min(pause * 2, 0.05)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def _connect(self, sandbox: Sandbox) -> None:
        """The keeper's part of the network: a veth pair, one end on the bridge, the other in the sandbox."""
        plan = self._plan
        if plan.veth and plan.interface and sandbox.netns >= 0:
            try:
                links.connect(plan.veth, plan.bridge, sandbox.netns, plan.interface)
            except OSError as exc:
                raise StageError("network", exc.strerror or str(exc), errno=exc.errno or 0, path=plan.veth) from exc

    def _spawn(self, become: Any, meanwhile: Any) -> Started:
        """Fork into the cgroup, do `meanwhile`, let the child go on, and wait for its exec or its end.

        On failure the child has been killed and reaped.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            fork_fd = self._cgroup.fork_fd()
            pid = syscalls.fork_into_cgroup(fork_fd) if fork_fd >= 0 else os.fork()
        except BaseException:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            ours.close()
            become(theirs)
        theirs.close()
        pidfd, master = -1, -1
        try:
            pidfd = os.pidfd_open(pid)
            if meanwhile is not None:
                meanwhile()
                channel.send(ours, {"go": True})
            master, warnings = _await_exec(ours)
            pidfd, pidfd_given = -1, pidfd
            master, master_given = -1, master
            return Started(pid, pidfd_given, master_given, tuple(warnings))
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        finally:
            ours.close()
            for fd in (pidfd, master):
                if fd >= 0:
                    os.close(fd)


def _await_exec(sock: socket.socket) -> tuple[int, list[str]]:
    """(pty master or -1, warnings) when the child's last word was that exec is next. Raises StageError for anything else."""
    master, warnings, exec_next = -1, [], False
    try:
        while True:
            message, fds = channel.receive(sock)
            if fds:
                master = fds[0]
            if message is None:
                break
            failure = message.get("failure")
            if failure:
                raise StageError(failure["stage"], failure["message"], errno=failure["errno"], path=failure["path"])
            warnings += message.get("warnings", [])
            exec_next = exec_next or bool(message.get("exec"))
        if not exec_next:
            raise StageError("start", "the init stage ended without a word (was it killed?)")
    except BaseException:
        if master >= 0:
            os.close(master)
        raise
    return master, warnings


def _kinds(plan: ContainerPlan, sandbox: Sandbox) -> int:
    """The flags of the namespaces that another program has to join to be in the container; pid they have by birth."""
    listed = {namespace.type for namespace in plan.spec.linux.namespaces} - {"pid", "user", "time"}
    kinds = syscalls.CLONE_NEWNS
    for kind in listed:
        kinds |= namespaces.KINDS[kind][0]
    return kinds | (syscalls.CLONE_NEWUSER if sandbox.userns >= 0 else 0)


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _system_usage() -> int:
    """All processors' busy and idle time together, in nanoseconds, as Docker tells it."""
    line = files.read("/proc", "stat").split("\n", 1)[0].split()[1:9]
    return sum(map(int, line)) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _networks(text: str) -> dict[str, dict[str, int]]:
    """The counters of /proc/<pid>/net/dev by interface, without the loopback."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        n = [int(word) for word in rest.split()]
        if name.strip() != "lo" and len(n) >= 12:
            found[name.strip()] = {
                "rx_bytes": n[0], "rx_packets": n[1], "rx_errors": n[2], "rx_dropped": n[3],
                "tx_bytes": n[8], "tx_packets": n[9], "tx_errors": n[10], "tx_dropped": n[11],
            }  # fmt: skip
    return found
