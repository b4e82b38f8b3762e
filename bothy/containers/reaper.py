"""`--init`: a process 1 that reaps orphans, passes signals on, and ends as its one child ends.

It is the init stage itself, which stays behind instead of becoming the program: a Python process that shares nearly all of its
memory with the spawner, waits in one system call, and has the ids, capabilities and seccomp program of the container.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from bothy.linux import capabilities, syscalls

# those that mean a mistake of our own, and those that nobody can catch
_OWN = frozenset({signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS})
_PASSED = frozenset(signal.valid_signals()) - _OWN - {signal.SIGKILL, signal.SIGSTOP, signal.SIGTTIN, signal.SIGTTOU}


def split(close: Callable[[], None], *, terminal: bool) -> None:
    """Fork. Returns in the child, which goes on to exec, with a process group of its own (in front, on a terminal).

    The parent calls `close` (so that the keeper sees the child's exec) and never returns.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        os.setpgid(0, 0)
        if terminal:
            os.tcsetpgrp(0, os.getpgrp())
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return
    close()
    os.closerange(0, 3)
    if os.getuid():  # what exec would have taken away
        capabilities.capset(0, 0, 0)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    _reap(child)


def _reap(child: int) -> None:
    """Wait for signals until the child is gone; then end with its code, which also ends everything else in the pid namespace."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.set_name("init")
    while True:
        number = signal.sigwaitinfo(_PASSED).si_signo
        if number != signal.SIGCHLD:
            try:
                os.kill(child, number)
            except ProcessLookupError:
                pass
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(0)
            if pid == 0:
                break
            if pid == child:
                os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
