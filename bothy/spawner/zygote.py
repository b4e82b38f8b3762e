"""The zygote: the process that keepers are forked from. It does nothing else, so that nearly all of their memory stays shared.

    bothyd ══ spawner ══ zygote ── fork ─▶ keeper
                │          └────── fork ─▶ keeper
                │ order + descriptors ─▶
                │ ◀─ born PID, gone PID STATUS, failed ERRNO

What a process touches after a fork is no longer shared with the one that it forked: a spawner that talks to a daemon and makes
sandboxes would leave each keeper with old copies of its own working memory. So the zygote is forked from it first, and only
receives and forks.
"""

from __future__ import annotations

import array
import gc
import os
import select
import signal
import traceback

from bothy.keeper import parking
from bothy.keeper.handover import set_name
from bothy.linux import channel, syscalls

TITLE = b"bothy-zygote"
_ROOM = 16 * 1024
_ROOM_FOR_FDS = 256
_CLOEXEC = 0x40000000  # MSG_CMSG_CLOEXEC
_IN = select.POLLIN


def start() -> channel.Socket:
    """Fork the zygote, frozen as everything is now; the spawner's end of its channel. Raises OSError."""
    ours, theirs = channel.narrow_pair()
    if os.fork():
        theirs.close()
        return ours
    status = 1
    try:
        ours.close()
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        set_name(TITLE)
        shed((0, 1, 2, theirs.fileno()))
        gc.disable()
        status = _serve(theirs)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def shed(keep: tuple[int, ...]) -> None:
    """In a forked child: close every descriptor but these, which are in order. Signals stay caught, but are told to nobody."""
    signal.set_wakeup_fd(-1)
    low = 0
    for fd in keep:
        if fd > low:  # closerange(0, 0) would be close_range(0, UINT_MAX)
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 30)


def _serve(sock: channel.Socket) -> int:
    """Fork as ordered until the spawner is gone."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(sock.fileno(), _IN)
    poll.register(read, _IN)
    while True:
        for fd, _ in poll.poll():
            if fd == read:
                os.read(read, 4096)
                _bury(sock)
                continue
            order, ancillary, _, _ = sock.recvmsg(_ROOM, _ROOM_FOR_FDS, _CLOEXEC)
            if not order:
                return 0
            fds = array.array("i")
            for _, _, payload in ancillary:
                fds.frombytes(payload)
            _fork(sock, order, fds)


def _fork(sock: channel.Socket, order: bytes, fds: array.array[int]) -> None:
    try:
        pid = os.fork()
    except OSError as exc:
        sock.send(b"failed %d" % (exc.errno or 0))
    else:
        if not pid:
            _be_keeper(order, fds)
        sock.send(b"born %d" % pid)
    for fd in fds:
        os.close(fd)


def _be_keeper(order: bytes, fds: array.array[int]) -> None:
    """Objects of the zygote whose descriptors are closed here are never let go of, since this never returns."""
    status = 1
    try:
        shed((0, 1, 2, *sorted(fds)))
        status = parking.run(order, list(fds))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _bury(sock: channel.Socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        sock.send(b"gone %d %d" % (pid, status))
