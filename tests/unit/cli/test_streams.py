"""The attach loop on real sockets and pipes, in a process of its own: its stdio is what it is about."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothy.api.frames import STDERR, STDOUT, encode

ROOT = str(Path(__file__).resolve().parents[3])
PROGRAM = """
import sys, _socket
sys.path.append({root!r})
from bothy.api.client import Hijacked
from bothy.cli import signals
from bothy.cli.streams import Attachment
from bothy.cli.terminal import DetachKeys
sock = _socket.socket(fileno=int(sys.argv[1]))
def got(number):
    sys.stderr.write(f"signal {{number}}\\n"); sys.stderr.flush()
with signals.Watch((signals.USR1,)) as watch:
    keys = DetachKeys(b"\\x10\\x11") if {keys} else None
    attachment = Attachment(Hijacked(sock, {leftover!r}, framed={framed}), stdin={stdin}, tty=False, keys=keys, signals=watch, on_signal=got)
    sys.stderr.write("ready\\n"); sys.stderr.flush()
    detached = attachment.run()
    sys.stderr.write(f"detached {{detached}}\\n")
"""


class Session:
    """An attachment in a process, and the engine's end of its connection."""

    def __init__(self, *, stdin: bool = True, framed: bool = True, keys: bool = False, leftover: bytes = b"") -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(20)
        program = PROGRAM.format(root=ROOT, stdin=stdin, framed=framed, keys=keys, leftover=leftover)
        pipe = subprocess.PIPE
        argv = [sys.executable, "-IS", "-c", program, str(theirs.fileno())]
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, pass_fds=[theirs.fileno()])
        theirs.close()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdin, self.stdout, self.stderr = self.process.stdin, self.process.stdout, self.process.stderr
        assert self.stderr.readline() == b"ready\n"

    def finish(self) -> tuple[bytes, bytes]:
        """The rest of what it printed."""
        out, err = self.process.communicate(timeout=20)
        return out, err

    def close(self) -> None:
        self.sock.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for file in (self.stdin, self.stdout, self.stderr):
            file.close()


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    made: list[Session] = []
    yield made
    for session in made:
        session.close()


def begin(sessions: list[Session], **options: object) -> Session:
    sessions.append(Session(**options))  # type: ignore[arg-type]
    return sessions[-1]


def test_frames_go_to_their_streams(sessions: list[Session]) -> None:
    session = begin(sessions, leftover=encode(STDOUT, b"first ")[:11])
    session.sock.sendall(encode(STDOUT, b"first ")[11:] + encode(STDERR, b"oops\n") + encode(STDOUT, b"last"))
    session.sock.close()
    assert session.finish() == (b"first last", b"oops\ndetached False\n")


def test_raw_bytes_go_to_stdout(sessions: list[Session]) -> None:
    session = begin(sessions, framed=False)
    session.sock.sendall(b"\x01\x00anything")
    session.sock.close()
    assert session.finish()[0] == b"\x01\x00anything"


def test_input_is_sent_and_half_closed(sessions: list[Session]) -> None:
    session = begin(sessions)
    session.stdin.write(b"some input")
    session.stdin.close()
    session.process.stdin = None
    data = b""
    while part := session.sock.recv(100):
        data += part
    assert data == b"some input"
    session.sock.sendall(encode(STDOUT, b"still heard"))
    session.sock.close()
    assert session.finish()[0] == b"still heard"


def test_a_program_that_does_not_read_does_not_stop_its_output(sessions: list[Session]) -> None:
    """Both directions full at once: output keeps coming while much more input waits than the socket holds."""
    session = begin(sessions)
    os.set_blocking(session.stdin.fileno(), False)
    offered = 0
    for _ in range(200):  # far more than a pipe and a socket hold; what does not fit is not our matter here
        try:
            offered += os.write(session.stdin.fileno(), b"x" * 65536)
        except BlockingIOError:
            session.sock.sendall(encode(STDOUT, b"y" * 1000))
            assert session.stdout.read(1000) == b"y" * 1000
    assert offered > 65536
    session.sock.close()
    assert session.process.wait(timeout=20) == 0


def test_input_whose_writer_is_gone_is_sent_whole(sessions: list[Session]) -> None:
    """The writer has ended before all is read, and nobody takes anything for a while: nothing is skipped."""
    session = begin(sessions)
    data = bytes(range(256)) * 4096
    writer = threading.Thread(target=lambda: (session.stdin.write(data), session.stdin.close()))
    writer.start()
    received = b""
    while part := session.sock.recv(1000 if len(received) < 200_000 else 65536):
        received += part
    writer.join()
    session.process.stdin = None
    assert received == data
    session.sock.close()
    assert session.finish()[1] == b"detached False\n"


def test_detach_keys_end_the_session_only(sessions: list[Session]) -> None:
    session = begin(sessions, keys=True, framed=False)
    session.stdin.write(b"abc\x10\x11")
    session.stdin.flush()
    assert session.sock.recv(100) == b"abc"
    assert session.sock.recv(100) == b""
    assert session.finish()[1] == b"detached True\n"


def test_signals_are_told_while_it_waits(sessions: list[Session]) -> None:
    session = begin(sessions)
    session.process.send_signal(signal.SIGUSR1)
    assert session.stderr.readline() == b"signal 10\n"
    session.sock.close()
    assert session.finish()[1] == b"detached False\n"


def test_a_stream_that_is_none_is_a_failure(sessions: list[Session]) -> None:
    session = begin(sessions)
    session.sock.sendall(b"HTTP/1.1 500 what\r\n\r\n")
    assert b"the engine's stream is broken" in session.finish()[1]
    assert session.process.returncode == 1
