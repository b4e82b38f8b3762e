"""Bringing the daemon back after it died without a word: same command, same environment, same listening socket.

The spawner holds a duplicate of the listening socket, so clients that connect in between wait instead of failing. It starts the
daemon and ends, the daemon starts a spawner of its own; keepers need neither. How often this has happened in a row goes along
in the environment (BOTHY_REVIVED), for the back-off. Not under systemd (INVOCATION_ID), which does all this itself.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

REVIVED = "BOTHY_REVIVED"
STEADY = 20.0
ATTEMPTS = 60
LONGEST = 2.0
_LISTEN_FD = 3


@dataclass(frozen=True)
class Revival:
    """`command` of the daemon and its listening socket, which is owned by this object. `attempts` were made in a row before;
    `begun` is when the daemon that is served now was started (time.monotonic)."""

    command: list[str]
    listener: int
    attempts: int
    begun: float

    @classmethod
    def of_environ(cls, command: list[str], listener: int) -> Revival | None:
        """None where it is not for us to bring the daemon back."""
        if "INVOCATION_ID" in os.environ:
            os.close(listener)
            return None
        text = os.environ.get(REVIVED, "")
        return cls(command, listener, int(text) if text.isdecimal() else 0, time.monotonic())

    @property
    def count(self) -> int:
        """Attempts in a row, of which the coming one is not yet one: none if the daemon has lived for a while."""
        return 0 if time.monotonic() - self.begun > STEADY else self.attempts

    @property
    def delay(self) -> float | None:
        """Seconds to wait before the daemon is started; None when it is time to give up."""
        if self.count >= ATTEMPTS:
            return None
        return min(LONGEST, 0.05 * 2.0 ** min(self.count, 10)) if self.count else 0.0

    def start(self) -> int:
        """Run the daemon with its socket (LISTEN_FDS, see sd_listen_fds(3)); its pid. Raises OSError."""
        environ = os.environ | {"LISTEN_FDS": "1", REVIVED: str(self.count + 1)}
        pid = os.fork()
        if pid:
            return pid
        try:
            if self.listener != _LISTEN_FD:
                os.dup2(self.listener, _LISTEN_FD)
            os.set_inheritable(_LISTEN_FD, True)
            os.closerange(_LISTEN_FD + 1, 1 << 20)
            os.setsid()
            os.execve(self.command[0], self.command, environ | {"LISTEN_PID": str(os.getpid())})
        finally:
            os._exit(127)
