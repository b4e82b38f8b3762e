"""Short-lived children of a keeper that do for it what needs much code and memory: read the plan, start a program.

    keeper ──── fork ───▶ helper ─ clone(CLONE_PARENT) ─▶ program (the keeper's child)
       ◀─ message, fds ─── │
                           └ ends

A page that a forked process touches is its own from then on; an idle keeper should have few. So the plan is read and the
program started in a helper, which takes its pages along when it ends; the program is born as the keeper's child all the same.
A helper dies with its keeper, and what goes wrong in it is told in its message.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from bothy.errors import StageError
from bothy.keeper.control import told
from bothy.keeper.loop import IN, Loop
from bothy.linux import channel, syscalls

Work = Callable[[channel.Socket], None]


def fork(work: Work) -> channel.Socket:
    """Run `work` in a helper, with its end of a channel whose other end is returned.

    What it raises is said as `{"error": failure}`. Raises OSError if there can be no helper.
    """
    ours, theirs = channel.narrow_pair()
    pid = os.fork()
    if pid:
        theirs.close()
        return ours
    try:
        # Handlers stay as they are: a signal only becomes known to the loop, which is the keeper's.
        signal.set_wakeup_fd(-1)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        ours.close()
        _work(theirs, work)
    finally:
        os._exit(0)


def _work(sock: channel.Socket, work: Work) -> None:
    try:
        work(sock)
    except Exception as exc:
        channel.send(sock, {"error": told(exc, "plan")})


def receive(sock: channel.Socket) -> tuple[channel.Message, list[int]]:
    """What a helper says. Raises StageError for an error of its own, and if it ended without a word."""
    message, fds = channel.receive(sock)
    if message is None:
        raise StageError("keeper", "the helper process ended without a word (was it killed?)")
    error = message.get("error")
    if error is not None:
        raise StageError(str(error["stage"]), str(error["message"]), errno=int(error["errno"]), path=str(error["path"]))
    return message, fds


def await_message(
    loop: Loop, sock: channel.Socket, done: Callable[[channel.Message, list[int]], None], failed: Callable[[StageError], None]
) -> None:
    """Have one of both called, once, with what a helper says. Takes the socket.

    Until then the loop leaves children alone that it does not know: one of them may be the program that the helper tells of.
    """
    loop.strangers += 1

    def readable(_events: int) -> None:
        loop.forget(sock.fileno())
        try:
            message, fds = receive(sock)
        except StageError as exc:
            failed(exc)
        else:
            done(message, fds)
        finally:
            sock.close()
            loop.strangers -= 1
            loop.collect_later()

    loop.watch(sock.fileno(), IN, readable)
