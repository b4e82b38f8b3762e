"""-t and -i: a terminal with a size, resize, and the detach keys."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Walled
from tests.support.terminals import Terminal, Terminals

Opener = Callable[..., Terminal]


@pytest.fixture
def open_terminal(bothy: Walled) -> Iterator[Opener]:
    """Opens a terminal on which a bothy command runs."""
    with Terminals() as terminals:
        yield lambda *args, **size: terminals.open(bothy.engine.command(*bothy.words(*args)), bothy.engine.env, **size)


def test_interactive_shell(bothy: Walled, open_terminal: Opener) -> None:
    terminal = open_terminal("run", "--rm", "-it", "busybox", "sh", rows=33, columns=99)
    terminal.type("echo size=$(stty size)=\r")
    terminal.expect("size=33 99=")
    terminal.type("tty\r")
    terminal.expect("/dev/")
    terminal.type("exit 5\r")
    assert terminal.wait() == 5


def test_resize_reaches_the_program(bothy: Walled, open_terminal: Opener) -> None:
    terminal = open_terminal(
        "run",
        "--rm",
        "-it",
        "busybox",
        "sh",
        "-c",
        "trap 'echo now=$(stty size)=' WINCH; echo ready; while :; do read x; done",
    )
    terminal.expect("ready")
    terminal.resize(40, 120)
    os.kill(terminal.process.pid, signal.SIGWINCH)
    terminal.type("\r")
    terminal.expect("now=40 120=")
    terminal.type(b"\x03")
    terminal.wait()


def test_detach_keys_leave_it_running_and_attach_comes_back(bothy: Walled, open_terminal: Opener) -> None:
    terminal = open_terminal("run", "-it", "--name", "t-tty", "busybox", "sh")
    terminal.type("echo fir''st\r")
    terminal.expect("first")
    terminal.type(b"\x10\x11")
    terminal.wait()
    assert bothy.engine.inspect("t-tty")["State"]["Running"] is True
    again = open_terminal("attach", "t-tty")
    again.type("echo sec''ond\r")
    again.expect("second")
    again.type("exit 3\r")
    assert again.wait() == 3
    bothy("rm", "-f", "t-tty").ok()


def test_custom_detach_keys(bothy: Walled, open_terminal: Opener) -> None:
    terminal = open_terminal("run", "-it", "--detach-keys", "ctrl-x,x", "--name", "t-keys", "busybox", "sh")
    terminal.type("echo h''i\r")
    terminal.expect("hi")
    terminal.type(b"\x18x")
    terminal.wait()
    assert bothy.engine.inspect("t-keys")["State"]["Running"] is True
    bothy("rm", "-f", "t-keys").ok()


def test_exec_with_a_terminal(bothy: Walled, open_terminal: Opener) -> None:
    bothy("run", "-d", "--name", "t-exec-tty", "busybox", "sleep", "300").ok()
    terminal = open_terminal("exec", "-it", "t-exec-tty", "sh", rows=31, columns=91)
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
