"""Programs in the guest: each a child of the agent, run by the same last stage as a container's.

The first one is forked before the template is saved and waits as a *stem*: a fork costs tens of milliseconds under emulation, and
so it is paid once. It gets its orders, and the descriptors to use, by a socket.

    agent ── order {process} + [root, status, stdin, stdout, stderr | terminal] ──▶ stem ── exec ──▶ program
          ◀── status: lines {warnings} and {failure}, end of file ──────────────┘      without a failure it runs
"""

from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import replace
from typing import Any, NoReturn

from bothy.containers import process as stages
from bothy.containers import users
from bothy.errors import StageError, failure_of
from bothy.jsonable import PLAIN
from bothy.keeper import processes
from bothy.keeper.workload import STDOUT
from bothy.linux import capabilities, channel, syscalls, terminal
from bothy.oci.runtime import Process


class Stem:
    """A child that waits to become a program, in the programs' `cgroup` (a descriptor of its folder)."""

    def __init__(self, cgroup: int) -> None:
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.pid = syscalls.fork_into_cgroup(cgroup)
        if not self.pid:
            mine.close()
            _wait(its)
        its.close()
        self._socket = mine

    def order(self, text: bytes, fds: list[int]) -> None:
        """Tell it what to become; it is used up then."""
        with self._socket as sock:
            socket.send_fds(sock, [text], fds)
            sock.shutdown(socket.SHUT_WR)


def _wait(orders: socket.socket) -> NoReturn:
    """The stem's life."""
    _detach()
    text, fds, _, _ = socket.recv_fds(orders, 65536, 8)
    while piece := orders.recv(65536):
        text += piece
    orders.close()
    _run(text, fds)


def start(order: dict[str, Any], *, stem: Stem | None, cgroup: int) -> tuple[int, processes.Streams, list[str]]:
    """Run a program in the current root; returns its pid, our ends of its streams, and warnings about limits that were clamped.

    `order`: `process`, the JSON text of a process of the OCI spec, which only the child reads; and what we have to know of it:
    `terminal`, with its `size` (height and width), or whether there is a `stdin`. `cgroup`: a descriptor of the programs' folder.

    Raises StageError or OSError; nothing is left then but a zombie for the loop to reap.
    """
    wants_terminal = bool(order["terminal"])
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    status, its_status = os.pipe2(os.O_CLOEXEC)
    ends: tuple[int, ...] = ()
    if wants_terminal:
        master, slave = terminal.open_pty(root)
        streams, ends = processes.terminal(master), (slave,)
    else:
        streams, ends = processes.pipes(stdin=bool(order["stdin"]))
    try:
        pid = _launch(order["process"].encode(), [root, its_status, *(fd for fd in ends if fd >= 0)], stem, cgroup)
    finally:
        channel.close_all([root, its_status, *(fd for fd in ends if fd >= 0)])
    with open(status, "rb", buffering=0) as answer:
        told = _status(answer.readall())
    if failure := told.get("failure"):
        streams.close()
        raise StageError(failure["stage"], failure["message"], errno=failure["errno"], path=failure["path"])
    if wants_terminal and order.get("size"):
        height, width = order["size"]
        terminal.set_size(streams.outputs[STDOUT], height, width)
    return pid, streams, told.get("warnings", [])


def _status(text: bytes) -> dict[str, Any]:
    """What the program's last stage has told, line by line."""
    told: dict[str, Any] = {}
    for line in text.splitlines():
        told.update(json.loads(line))
    return told


def _tell(status: int, **message: Any) -> None:
    os.write(status, json.dumps(message).encode() + b"\n")


def _launch(text: bytes, fds: list[int], stem: Stem | None, cgroup: int) -> int:
    if stem is not None:
        stem.order(text, fds)
        return stem.pid
    pid = syscalls.fork_into_cgroup(cgroup)
    if not pid:
        _detach()
        _run(text, fds)
    return pid


def _detach() -> None:
    """A session of its own, and signals as a fresh program expects them."""
    stages.reset_signals()
    os.setsid()


def _run(text: bytes, fds: list[int]) -> NoReturn:
    """Become the program; what fails is told on the status pipe."""
    root, status, *stdio = fds
    try:
        os.fchdir(root)
        os.chroot(".")
        os.chdir("/")
        process = PLAIN.from_data(Process, json.loads(text))
        _take_stdio(process, stdio)
        warnings = stages.set_oom_score(process.oom_score_adj) + stages.set_rlimits(process.rlimits)
        if warnings:
            _tell(status, warnings=warnings)
        identity = users.identity(root, process.user)
        if stdio:
            _give_stdio(identity.uid)
        stages.become(process, identity)
        os.set_inheritable(status, False)
        syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC)
        stages.execute(process, identity)
    except BaseException as exc:
        _tell(status, failure=failure_of(exc, "start"))
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def rehearse(process: Process) -> None:
    """Go through the motions of `_run` in this process, harmlessly: what the library builds at the first use is built then."""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    stages.set_rlimits([])
    stages.set_oom_score(None)
    users.identity(root, process.user)
    os.close(root)
    everything = capabilities.effective()
    capabilities.limit_bounding(everything)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)
    capabilities.clear_ambient()
    capabilities.capset(everything, everything, everything)
    capabilities.mask(process.capabilities.bounding if process.capabilities else [])
    syscalls.close_range(1 << 20, flags=syscalls.CLOSE_RANGE_CLOEXEC)
    try:
        stages.execute(replace(process, args=["no-such-program"]), users.Identity())
    except StageError:
        pass
    try:
        syscalls.mount("", "/no-such-folder", None)
    except OSError:
        pass
    try:
        syscalls.move_mount(-1, -1)
    except OSError:
        pass


def _take_stdio(process: Process, stdio: list[int]) -> None:
    """The pipes (without a stdin: /dev/null), or the terminal as the controlling one."""
    if process.terminal:
        terminal.take_control(stdio[0])
        return
    if len(stdio) == 2:
        stdio = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), *stdio]
    for fd, source in enumerate(stdio):
        os.dup2(source, fd, inheritable=True)


def _give_stdio(uid: int) -> None:
    """The program may open its /dev/stdout anew, also when it is not root."""
    if uid:
        for fd in (0, 1, 2):
            try:
                os.fchown(fd, uid, -1)
            except OSError:
                pass
