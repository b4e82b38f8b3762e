"""-t and -i: a terminal with a size, resize, and the detach keys."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Walled


class Terminal:
    """A bothy command on a pty of the test's."""

    def __init__(self, bothy: Walled, *args: str, rows: int = 24, columns: int = 80) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.process = bothy.engine.popen(*bothy.words(*args), stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str | bytes) -> None:
        os.write(self.master, text.encode() if isinstance(text, str) else text)

    def expect(self, text: str, timeout: float = 60) -> str:
        """Read until `text` has been seen, and consume what came up to it."""
        end = time.monotonic() + timeout
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, f"waited for {text!r}, saw {self.seen!r}"
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                piece = b""
            assert piece, f"the terminal closed before {text!r}; saw {self.seen!r}"
            self.seen += piece
        before, _, self.seen = self.seen.partition(text.encode())
        return before.decode(errors="replace")

    def wait(self) -> int:
        while select.select([self.master], [], [], 60)[0]:
            try:
                if not os.read(self.master, 65536):
                    break
            except OSError:  # EIO: the last holder of the slave is gone
                break
        return self.process.wait(60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_interactive_shell(bothy: Walled, terminals: list[Terminal]) -> None:
    terminal = Terminal(bothy, "run", "--rm", "-it", "busybox", "sh", rows=33, columns=99)
    terminals.append(terminal)
    terminal.type("echo size=$(stty size)=\r")
    terminal.expect("size=33 99=")
    terminal.type("tty\r")
    terminal.expect("/dev/")
    terminal.type("exit 5\r")
    assert terminal.wait() == 5


def test_resize_reaches_the_program(bothy: Walled, terminals: list[Terminal]) -> None:
    terminal = Terminal(
        bothy,
        "run",
        "--rm",
        "-it",
        "busybox",
        "sh",
        "-c",
        "trap 'echo now=$(stty size)=' WINCH; echo ready; while :; do read x; done",
    )
    terminals.append(terminal)
    terminal.expect("ready")
    terminal.resize(40, 120)
    os.kill(terminal.process.pid, signal.SIGWINCH)
    terminal.type("\r")
    terminal.expect("now=40 120=")
    terminal.type(b"\x03")
    terminal.wait()


def test_detach_keys_leave_it_running_and_attach_comes_back(bothy: Walled, terminals: list[Terminal]) -> None:
    terminal = Terminal(bothy, "run", "-it", "--name", "t-tty", "busybox", "sh")
    terminals.append(terminal)
    terminal.type("echo fir''st\r")
    terminal.expect("first")
    terminal.type(b"\x10\x11")
    terminal.wait()
    assert bothy.engine.inspect("t-tty")["State"]["Running"] is True
    again = Terminal(bothy, "attach", "t-tty")
    terminals.append(again)
    again.type("echo sec''ond\r")
    again.expect("second")
    again.type("exit 3\r")
    assert again.wait() == 3
    bothy("rm", "-f", "t-tty").ok()


def test_custom_detach_keys(bothy: Walled, terminals: list[Terminal]) -> None:
    terminal = Terminal(bothy, "run", "-it", "--detach-keys", "ctrl-x,x", "--name", "t-keys", "busybox", "sh")
    terminals.append(terminal)
    terminal.type("echo h''i\r")
    terminal.expect("hi")
    terminal.type(b"\x18x")
    terminal.wait()
    assert bothy.engine.inspect("t-keys")["State"]["Running"] is True
    bothy("rm", "-f", "t-keys").ok()


def test_exec_with_a_terminal(bothy: Walled, terminals: list[Terminal]) -> None:
    bothy("run", "-d", "--name", "t-exec-tty", "busybox", "sleep", "300").ok()
    terminal = Terminal(bothy, "exec", "-it", "t-exec-tty", "sh", rows=31, columns=91)
    terminals.append(terminal)
    terminal.type("echo size=$(stty size)=\r")
    terminal.expect("size=31 91=")
    terminal.type("exit 4\r")
    assert terminal.wait() == 4
    bothy("rm", "-f", "t-exec-tty").ok()


def test_a_terminal_needs_one(bothy: Walled) -> None:
    done = bothy("run", "--rm", "-it", "busybox", "true")
    assert done.code in (1, 125)
    assert "tty" in done.err.lower() or "terminal" in done.err.lower()


def test_half_close_of_a_pipe(bothy: Walled) -> None:
    process = bothy.engine.popen(
        *bothy.words("run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo after"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"before\n")
    process.stdin.close()
    assert process.stdout.read() == b"before\nafter\n"
    process.stdout.close()
    assert process.wait(60) == 0
