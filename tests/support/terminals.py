"""Commands on terminals of the test's."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence


class Terminal:
    """A command on a pty; `seen` is what it has written and nobody has expected yet."""

    def __init__(self, command: Sequence[str], env: dict[str, str], *, rows: int = 24, columns: int = 80) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True)
        os.close(slave)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        """Another size; the command learns of it by a SIGWINCH, which is the caller's to send."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str | bytes) -> None:
        """Keys."""
        os.write(self.master, text.encode() if isinstance(text, str) else text)

    def expect(self, pattern: str, timeout: float = 60) -> str:
        """Read until the pattern was seen, and take all up to its end away: that is returned."""
        end = time.monotonic() + timeout
        while not (match := re.search(pattern.encode(), self.seen)):
            ready = select.select([self.master], [], [], max(0, end - time.monotonic()))[0]
            assert ready, f"waited for {pattern!r}, saw {self.seen!r}"
            piece = self._read()
            assert piece, f"the terminal closed before {pattern!r}; saw {self.seen!r}"
            self.seen += piece
        told, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return told.decode(errors="replace")

    def wait(self, timeout: float = 60) -> int:
        """Read to the end; the exit code."""
        while select.select([self.master], [], [], timeout)[0] and self._read():
            pass
        return self.process.wait(timeout)

    def _read(self) -> bytes:
        try:
            return os.read(self.master, 65536)
        except OSError:  # EIO: the last holder of the slave is gone
            return b""

    def close(self) -> None:
        """End the command, if it has not ended, and the terminal."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


class Terminals:
    """Opens terminals and closes them all when the context ends."""

    def __init__(self) -> None:
        self._opened: list[Terminal] = []

    def __enter__(self) -> Terminals:
        return self

    def __exit__(self, *_: object) -> None:
        for terminal in self._opened:
            terminal.close()

    def open(self, command: Sequence[str], env: dict[str, str], **size: int) -> Terminal:
        """One more; `rows` and `columns` are its size."""
        self._opened.append(Terminal(command, env, **size))
        return self._opened[-1]
