"""Bringing the daemon back after it died without a word: same command, same environment, same listening socket.

The spawner holds a duplicate of the listening socket, so clients that connect in between wait instead of failing. Not under
systemd (INVOCATION_ID), which does this itself.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from bothy.spawner.command import SPAWNER_FD

_FIRST_FD = 3
STEADY = 60.0
ATTEMPTS = 8
LONGEST = 30.0


@dataclass
class Revival:
    """`command` of the daemon and its listening socket, which is owned by this object. Counts the attempts for the back-off."""

    command: list[str]
    listener: int
    attempts: int = 0
    begun: float = 0.0

    def delay(self) -> float | None:
        """Seconds until the next attempt; None when it is time to give up. A daemon that lived for a while resets the count."""
        if self.begun and time.monotonic() - self.begun > STEADY:
            self.attempts = 0
        if self.attempts >= ATTEMPTS:
            return None
        wait = min(LONGEST, 0.1 * 4.0**self.attempts) if self.attempts else 0.0
        self.attempts += 1
        return wait

    def start(self, channel_fd: int) -> int:
        """Run the daemon with its socket (LISTEN_FDS, see sd_listen_fds(3)) and an end of a channel to this spawner; its pid."""
        self.begun = time.monotonic()
        pid = os.fork()
        if pid:
            return pid
        try:
            self._become(channel_fd)
        finally:
            os._exit(127)

    def close(self) -> None:
        os.close(self.listener)

    def _become(self, channel_fd: int) -> None:
        """The child: put the descriptors where they are looked for (above all first, so that none is overwritten), then exec."""
        high = [os.dup2(fd, 100 + index) for index, fd in enumerate((self.listener, channel_fd))]
        for index, fd in enumerate(high):
            os.dup2(fd, _FIRST_FD + index, inheritable=True)
        os.closerange(_FIRST_FD + 2, 1 << 20)
        environ = dict(os.environ)
        environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), SPAWNER_FD: str(_FIRST_FD + 1)}
        os.setsid()
        os.execve(self.command[0], self.command, environ)
