"""What an idle keeper is: as little as possible of a Python process, waiting in poll(2).

    spawner's zygote ─ fork ─▶ keeper ── fork ─▶ helper (birth.py): plan, requests up to start, the container itself
                                 │◀─── state, descriptors ── ends
                                 │ parked: nothing but poll(2)
                                 ▼ output, input, a request, a signal, the end of the program
                               the keeper at work (main.py)

After a fork every page that a process writes to becomes its own, and in Python looking at an object writes its reference count. So
everything that runs before it is needed runs in a helper, whose pages go when it ends: a parked keeper has about 0.5 MB of its own
instead of 2.2 MB. This module calls C functions and touches as few objects as it can; what it leaves out (enums, `socket.socket`,
f-strings, JSON) it leaves out for that reason.
"""

from __future__ import annotations

import array
import os
import select
import signal

from bothy.keeper import birth, main
from bothy.keeper.handover import EXCEPTION, HANGUP, MACHINE, READABLE, WRITABLE, set_name
from bothy.linux import channel

TITLE = b"bothy-keeper"
_ROOM = 256 * 1024
_ROOM_FOR_FDS = 1024 + 64
_CHILD_ENDED = b"\x11"  # SIGCHLD, as the wakeup pipe tells it
_CLOEXEC = 0x40000000  # MSG_CMSG_CLOEXEC
_IN, _OUT, _PRI = select.POLLIN, select.POLLOUT, select.POLLPRI
_ONLY_HANGUP = 0  # POLLHUP and POLLERR are told anyway


def run(order: bytes, fds: list[int]) -> int:
    """Be the keeper that is ordered (see `birth.Order`), until its workload has ended; the exit status for the process.

    `fds`: the control socket, then the sandbox's, which are taken. To be called in a process of its own, forked from the spawner's
    zygote, which has no children and no other descriptors but the standard ones.
    """
    os.setsid()
    set_name(TITLE)
    ours, theirs = channel.narrow_pair()
    wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    keeper = os.getpid()
    helper = os.fork()
    if not helper:
        try:
            ours.close()
            birth.attend(order, fds, theirs, keeper)
        finally:
            os._exit(0)
    signal.set_wakeup_fd(wake[1], warn_on_full_buffer=False)
    theirs.close()
    for fd in fds[1:]:
        os.close(fd)
    state, ancillary, _, _ = ours.recvmsg(_ROOM, _ROOM_FOR_FDS, _CLOEXEC)
    ours.close()
    if state == MACHINE:
        return main.machine(order, fds[0], wake)
    os.close(fds[0])
    if not state:
        return 0
    kept = array.array("i")
    for _, _, payload in ancillary:
        kept.frombytes(payload)
    signals = _park(state, kept, wake[0], helper)
    return main.awake(order, state, list(kept), wake, signals)


def _park(state: bytes, kept: array.array[int], wake: int, helper: int) -> bytes:
    """Wait until there is something to do; the signals that have come. The end of the helper is nothing to do."""
    poll = select.poll()
    poll.register(wake, _IN)
    for index in range(len(kept)):
        if state[index] == READABLE:
            poll.register(kept[index], _IN)
        elif state[index] == HANGUP:
            poll.register(kept[index], _ONLY_HANGUP)
        elif state[index] == EXCEPTION:
            poll.register(kept[index], _PRI)
        elif state[index] == WRITABLE:
            poll.register(kept[index], _OUT)
    while True:
        for fd, _ in poll.poll():
            if fd != wake:
                return b""
        signals = os.read(wake, 4096)
        if signals.strip(_CHILD_ENDED):
            return signals
        try:
            os.waitpid(helper, os.WNOHANG)
        except ChildProcessError:
            pass  # it has been buried, and this was an orphan; there will be time for that
