"""What happens in a child between fork and exec: the init stage of a container, and the stage of one more program in it.

    keeper                                        child (already in the container's pid namespace)
      │ fork (into the cgroup) ────────────────────▶│ undumpable; joins its cgroups
      │ makes the veth pair, both ends configured   │ opens bind sources, joins net, ipc, uts, unshares mounts,
      │                                             │ builds the root with the host's privileges, pivots
      │── {"go"} (or end: give up) ────────────────▶│ configures an interface that has no veth
      │                                             │ joins the user namespace; copies the mounts into it, so that they
      │                                             │ are locked; limits, seccomp, capabilities, ids
      │◀─ {"warnings"} + pty's master, root folder ─│
      │◀─ {"exec"} ─────────────────────────────────│ the last word before exec
      │◀─ end: exec happened ───────────────────────│ exec closes the channel
      │◀─ {"failure": {stage, message, errno, path}}│ or exec, or anything before it, failed; the child ends

Both wait for the other's end as well as for its words, so neither hangs when the other dies.
"""

from __future__ import annotations

import fcntl
import gc
import os
import socket
import traceback
from dataclasses import replace
from typing import NoReturn

from bothy.containers import process, reaper, rootfs, users
from bothy.containers.build import Builder
from bothy.containers.cgroups.hierarchies import Cgroup
from bothy.containers.model import ContainerPlan
from bothy.containers.sandbox import Sandbox
from bothy.containers.users import Identity
from bothy.errors import StageError, failure_of, is_foreseen
from bothy.linux import capabilities, channel, links, namespaces, syscalls, terminal, title
from bothy.oci.runtime import Process

_SIGKILL = 9
_TRACE = 8192  # characters; of a long one the end tells more


class Child:
    """The child's side of the channel, and what both kinds of child do alike."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.stage = "fork"
        self.warnings: list[str] = []

    def report(self, **fds: int) -> None:
        """Tell the warnings, and hand over descriptors (those that are not -1) by name."""
        given = {name: fd for name, fd in fds.items() if fd >= 0}
        if self.warnings or given:
            channel.send(self._sock, {"warnings": self.warnings, "fds": list(given)}, given.values())

    def fail(self, exc: BaseException) -> NoReturn:
        """Tell what went wrong, and end. Standard error is the program's by now: a bug's traceback is for who is told."""
        trace = "" if is_foreseen(exc) else "".join(traceback.format_exception(exc))[-_TRACE:]
        try:
            channel.send(self._sock, {"failure": failure_of(exc, self.stage), "trace": trace})
        except OSError:
            pass
        os._exit(1)

    def await_go(self) -> None:
        """Wait until the keeper has done its part. It ends without a word if the keeper is gone or has given up."""
        message, _ = channel.receive(self._sock)
        if message is None:
            os._exit(1)

    def isolate(self) -> None:
        """Make ourselves inaccessible to whoever we are about to meet: this is still a process with the host's memory."""
        gc.disable()
        os.umask(0)
        process.reset_signals()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        try:
            syscalls.join_session_keyring()
        except OSError:  # this kernel has no keyrings
            pass

    def streams(self, stdio: tuple[int, int, int], slave: int, null: int) -> None:
        """Standard streams, in a session of our own; with a terminal its slave side, which becomes the controlling terminal.

        Afterwards nothing else is open but the channel: no descriptor of the host's can be reached by the working folder's path.
        """
        os.setsid()
        if slave >= 0:
            slave = fcntl.fcntl(slave, fcntl.F_DUPFD_CLOEXEC, 3)
            terminal.take_control(slave)
        else:
            sources = [fcntl.fcntl(fd if fd >= 0 else null, fcntl.F_DUPFD_CLOEXEC, 3) for fd in stdio]
            for number, fd in enumerate(sources):
                os.dup2(fd, number, inheritable=True)
        kept = self._sock.fileno()
        if kept > 3:
            syscalls.close_range(3, kept - 1)
        syscalls.close_range(kept + 1)

    def last_words(self) -> None:
        """Die with the keeper from here on, then say that exec is next. Ids have changed before, which would undo the former."""
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _SIGKILL)
        channel.send(self._sock, {"exec": True})

    def close(self) -> None:
        self._sock.close()


def own_streams(stdio: tuple[int, int, int], slave: int, identity: Identity, base: int) -> None:
    """Give the program's user its own terminal or pipes, so that it can open /dev/stdout again. Streams of others stay theirs."""
    uid, gid = base + identity.uid, base + identity.gid
    if slave >= 0:
        os.fchown(slave, uid, -1)
        return
    for fd in stdio:
        if fd >= 0:
            try:
                if os.fstat(fd).st_uid != uid and not os.isatty(fd) and os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                    os.fchown(fd, uid, gid)
            except OSError:
                continue


def init(plan: ContainerPlan, sandbox: Sandbox, cgroup: Cgroup, sock: socket.socket, stdio: tuple[int, int, int]) -> NoReturn:
    """Become the container's init. Never returns: exec, or a failure told and the end."""
    child = Child(sock)
    try:
        _init(child, plan, sandbox, cgroup, stdio)
    except BaseException as exc:
        child.fail(exc)


def _init(child: Child, plan: ContainerPlan, sandbox: Sandbox, cgroup: Cgroup, stdio: tuple[int, int, int]) -> NoReturn:
    spec, base = plan.spec, plan.id_base
    child.isolate()
    if plan.init:
        title.set_title("init")
    child.stage = "cgroup"
    cgroup.join()
    child.warnings += process.set_oom_score(spec.process.oom_score_adj)
    child.warnings += process.set_rlimits(spec.process.rlimits)
    program = _read_program(plan.seccomp)
    child.stage = "plan"
    builder = Builder(rootfs.plan(plan), userns=sandbox.userns, id_base=base, cgroup_folders=cgroup.folders())
    if base:
        syscalls.prctl(syscalls.PR_SET_SECUREBITS, syscalls.SECBIT_NO_SETUID_FIXUP)
        syscalls.setfsids(base, base)
    child.stage = "mount"
    builder.sources()
    child.stage = "namespace"
    _join_sandbox(plan, sandbox)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    child.stage = "mount"
    builder.run()
    child.warnings += builder.warnings
    child.stage = "user"
    identity = users.identity(builder.root, spec.process.user)
    child.stage = "streams"
    if builder.slave >= 0 and spec.process.console_size:
        terminal.set_size(builder.slave, spec.process.console_size.height, spec.process.console_size.width)
    own_streams(stdio, builder.slave, identity, base)
    child.stage = "root"
    builder.enter()
    child.stage = "network"
    child.await_go()
    for attachment in plan.attachments:
        if not attachment.link:  # else the keeper has done it, while the mounts were made
            links.configure(attachment.interface)
    child.stage = "namespace"
    _enter_userns(plan, sandbox)
    child.stage = "streams"
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) if min(stdio) < 0 and builder.slave < 0 else -1
    child.report(terminal=builder.master, root=-1 if plan.rootfs.volatile else builder.root)
    child.streams(stdio, builder.slave, null)
    finish(child, spec.process, identity, program, init=plan.init)


def _read_program(path: str) -> bytes:
    if not path:
        return b""
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _join_sandbox(plan: ContainerPlan, sandbox: Sandbox) -> None:
    """Network, ipc and uts, while the host's root: what is mounted next belongs to them."""
    listed = {namespace.type: namespace.path for namespace in plan.spec.linux.namespaces}
    for kind, fd in (("network", sandbox.netns), ("ipc", sandbox.ipcns), ("uts", sandbox.utsns)):
        if kind not in listed:
            continue
        path = listed[kind]
        if path and kind != "network":  # the sandbox was made with the network's path
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if fd >= 0:
            namespaces.join(fd, kind)
    if "uts" in listed and plan.spec.hostname and not listed["uts"]:
        socket.sethostname(plan.spec.hostname)
        if plan.spec.domainname:
            syscalls.setdomainname(plan.spec.domainname)


def _enter_userns(plan: ContainerPlan, sandbox: Sandbox) -> None:
    """Become (container) root. The mount namespace is copied into the user namespace: the kernel locks what was mounted before."""
    flags = 0
    if any(namespace.type == "cgroup" and not namespace.path for namespace in plan.spec.linux.namespaces):
        flags |= syscalls.CLONE_NEWCGROUP
    if sandbox.userns >= 0:
        namespaces.join(sandbox.userns, "user")
        flags |= syscalls.CLONE_NEWNS
        _be_root()
    if flags:
        syscalls.unshare(flags)


def _be_root() -> None:
    """The ids of root in the user namespace that was just joined. Other ids reset the dumpable flag, to fs.suid_dumpable."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def finish(child: Child, plan: Process, identity: Identity, program: bytes, *, init: bool = False) -> NoReturn:
    """The shared end: become the user, say so, exec. With `init` a small reaper stays as the parent."""
    child.stage = "process"
    os.umask(0o022)
    process.become(plan, identity, seccomp=program)
    if init:
        child.stage = "fork"
        reaper.split(child.close, terminal=plan.terminal)
    child.stage = "exec"
    child.last_words()
    process.execute(plan, identity)
    raise AssertionError("exec returned")


def joined(
    target: tuple[int, int],
    plan: Process,
    cgroup: Cgroup,
    sock: socket.socket,
    stdio: tuple[int, int, int],
    *,
    id_base: int,
    kinds: int,
    program: bytes,
    privileged: bool,
) -> NoReturn:
    """Become one more program in the container whose init `target` is (pid as the host sees it, pidfd; its pid namespace is
    ours already).

    `kinds`: the flags of the namespaces to join. Never returns.
    """
    child = Child(sock)
    try:
        child.isolate()
        child.stage = "cgroup"
        cgroup.join()
        child.warnings += process.set_oom_score(plan.oom_score_adj)
        child.warnings += process.set_rlimits(plan.rlimits)
        child.stage = "namespace"
        pid, pidfd = target
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        child.stage = "user"
        identity = users.identity(root, plan.user)
        child.stage = "streams"
        master = slave = -1
        if plan.terminal:
            master, slave = terminal.open_pty(root)
            if plan.console_size:
                terminal.set_size(slave, plan.console_size.height, plan.console_size.width)
        own_streams(stdio, slave, identity, id_base)
        child.stage = "namespace"
        syscalls.setns(pidfd, kinds)
        if kinds & syscalls.CLONE_NEWUSER:
            _be_root()
        child.stage = "streams"
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) if min(stdio) < 0 and slave < 0 else -1
        child.report(terminal=master)
        child.streams(stdio, slave, null)
        if privileged:
            everything = capabilities.names(capabilities.bounding())
            sets = plan.capabilities
            plan = replace(
                plan, capabilities=sets and replace(sets, bounding=everything, permitted=everything, effective=everything)
            )
        finish(child, plan, identity, b"" if privileged else program)
    except BaseException as exc:
        child.fail(exc)


__all__ = ["StageError", "init", "joined"]
