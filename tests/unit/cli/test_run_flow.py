"""What `run` asks of the engine and in which order: a scripted engine at the other end of a real socket."""

from __future__ import annotations

import json
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
PROGRAM = f"import sys; sys.path.append({ROOT!r}); from bothy.cli.main import launch; launch()"
IDENT = "c" * 64


class Engine:
    """Answers what a run needs. `answers` replaces the answer to a path's last word; `asked` is what came, in order."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.asked: list[str] = []
        self.bodies: dict[str, dict[str, object]] = {}
        self.answers: dict[str, bytes] = {}
        self.lingering = threading.Event()  # set when prepare was asked for and gets no answer
        self.attached = threading.Event()
        self.dies_once = False
        self._turn = threading.Lock()  # one answer at a time: start and wait come on two connections
        self.started = False
        self._attached: socket.socket | None = None
        self._waiting: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(16)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self._open: list[socket.socket] = []

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                try:
                    data = sock.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                buffer += data
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            length = next(
                (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
            )
            while len(buffer) < length:
                buffer += sock.recv(65536)
            body, buffer = buffer[:length], buffer[length:]
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            word = target.partition("?")[0].rpartition("/")[2]
            self.asked.append(f"{method} {target.replace(IDENT, 'ID')}")
            self.bodies[word] = json.loads(body) if body else {}
            with self._turn:
                goes_on = self._answer(sock, method, word)
            if not goes_on:
                return

    def _answer(self, sock: socket.socket, method: str, word: str) -> bool:
        """False where the connection is no longer HTTP."""
        if word in self.answers:
            sock.sendall(self.answers[word])
        elif word == "create":
            sock.sendall(answer(201, {"Id": IDENT, "Warnings": ["mind the gap"]}))
        elif word == "attach":
            self._attached = sock
            kind = b"application/vnd.docker.multiplexed-stream"
            sock.sendall(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: " + kind + b"\r\n\r\n")
            self.attached.set()
            return False
        elif word == "wait":
            self._waiting = sock
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            if self.started:
                self._end()
        elif word == "prepare":
            self.lingering.set()
        elif word == "start":
            sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            self.started = True
            self._play()
        else:
            sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    def _play(self) -> None:
        """The program: a word on each stream, an end, an exit code."""
        if self._attached is None or self._waiting is None:
            return
        self._attached.sendall(encode(STDOUT, b"out\n") + encode(STDERR, b"err\n"))
        self._attached.shutdown(socket.SHUT_RDWR)
        if self.dies_once:
            self._waiting.shutdown(socket.SHUT_RDWR)
        else:
            self._end()

    def end_attachment(self) -> None:
        assert self._attached is not None
        self._attached.shutdown(socket.SHUT_RDWR)

    def _end(self) -> None:
        assert self._waiting is not None
        said = b'{"StatusCode":7}\n'
        self._waiting.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(said), said))

    def finish(self, rest: bytes) -> None:
        """The rest of an answer that was begun on the last connection."""
        self._open[-1].sendall(rest)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-IS", "-c", PROGRAM, "-H", self.path, *argv]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        for thread in self._threads:
            thread.join(20)


def answer(status: int, body: object) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(data), data)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(f"{tmp_path}/engine.sock")
    yield made
    made.close()


def test_everything_is_attached_before_the_start(engine: Engine) -> None:
    done = engine.run("run", "--rm", "--name", "x", "busybox", "true")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "bothy: warning: mind the gap\nerr\n")
    assert engine.asked[0] == "POST /containers/create?name=x"
    assert {line.partition("?")[0] for line in engine.asked[1:3]} == {"POST /containers/ID/attach", "POST /containers/ID/wait"}
    assert "POST /containers/ID/wait?condition=removed" in engine.asked
    assert engine.asked[3] == "POST /containers/ID/start"
    assert engine.bodies["create"]["HostConfig"] == {"AutoRemove": True, "NetworkMode": "default"}


def test_without_rm_it_waits_for_the_exit(engine: Engine) -> None:
    engine.run("run", "busybox")
    assert "POST /containers/ID/wait?condition=next-exit" in engine.asked


def test_both_ends_look_for_the_same_detach_keys(engine: Engine) -> None:
    engine.run("run", "--detach-keys", "ctrl-x,q", "busybox")
    assert "POST /containers/ID/attach?stream=1&detachKeys=ctrl-x%2Cq&" in "\n".join(engine.asked)


def test_stats_do_without_what_has_ended_meanwhile(engine: Engine) -> None:
    engine.answers["json"] = answer(200, [{"Id": IDENT}])
    engine.answers["stats"] = answer(404, {"message": "no such container"})
    done = engine.run("stats", "--no-stream", "--format", "{{.Name}}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert engine.run("stats", "--no-stream", "x").returncode == 1


def test_shutdown_tells_that_it_can_not_see_the_end(engine: Engine) -> None:
    engine.answers["json"] = answer(200, [])
    done = engine.run("system", "shutdown")
    assert done.returncode == 1
    assert "daemon.lock: No such file or directory" in done.stderr


def test_an_exit_code_that_comes_with_the_head_is_seen(engine: Engine) -> None:
    """The workload ends between two questions: head and body are one packet, and nothing is left to wait for."""
    state = {"Running": True}
    engine.answers["json"] = answer(200, {"Id": IDENT, "State": state, "Config": {}, "HostConfig": {}})
    engine.answers["wait"] = answer(200, {"StatusCode": 5})
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(engine.run("attach", "x").returncode))
    thread.start()
    assert engine.attached.wait(20)
    engine.end_attachment()
    thread.join(30)
    assert done == [5]


def test_an_engine_that_dies_is_asked_again(engine: Engine) -> None:
    engine.dies_once = True
    done = engine.run("run", "busybox")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert [line for line in engine.asked if "/wait" in line] == [
        "POST /containers/ID/wait?condition=next-exit",
        "POST /containers/ID/wait?condition=not-running",
    ]


def test_in_the_background_nothing_is_attached(engine: Engine) -> None:
    done = engine.run("run", "-d", "busybox")
    assert (done.returncode, done.stdout) == (0, IDENT + "\n")
    assert engine.asked == ["POST /containers/create", "POST /containers/ID/start"]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ({"message": "exec: nope: not found", "stage": "exec", "errno": 2}, 127),
        ({"message": "exec: nope: permission denied", "stage": "exec", "errno": 13}, 126),
        ({"message": "mounts: /a: not found", "stage": "mounts", "errno": 2}, 125),
    ],
)
def test_a_program_that_does_not_start(engine: Engine, failure: dict[str, object], code: int) -> None:
    engine.answers["start"] = answer(400, failure)
    done = engine.run("run", "busybox", "nope")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (code, f"bothy: {failure['message']}")


def test_an_image_that_is_not_here(engine: Engine) -> None:
    engine.answers["create"] = answer(404, {"message": "no such image: x", "hint": "make one"})
    done = engine.run("run", "x")
    assert (done.returncode, done.stdout, done.stderr) == (125, "", "bothy: no such image: x\n  hint: make one\n")
    assert engine.run("create", "x").returncode == 1


def test_the_id_file_is_written(engine: Engine, tmp_path: Path) -> None:
    engine.run("create", "--cidfile", str(tmp_path / "id"), "busybox")
    assert (tmp_path / "id").read_text() == IDENT


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_a_machine_is_prepared_leaves_nothing(engine: Engine, sent: signal.Signals, code: int) -> None:
    command = [sys.executable, "-IS", "-c", PROGRAM, "-H", engine.path, "run", "--rm", "--vm", "busybox"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert engine.lingering.wait(20)
    os.kill(process.pid, sent)
    assert process.wait(20) == code
    assert process.stderr is not None
    process.stderr.close()
    assert engine.asked[-1] == "DELETE /containers/ID?force=1&v=1"


def test_what_fails_while_a_machine_is_prepared_is_told(engine: Engine) -> None:
    lines = b'{"status":"making"}\n{"message":"there is no qemu","error":"there is no qemu (x)","hint":"apt install qemu"}\n'
    engine.answers["prepare"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(lines), lines)
    done = engine.run("run", "--rm", "--vm", "busybox")
    assert done.returncode == 125
    assert done.stderr.endswith("bothy: there is no qemu\n  hint: apt install qemu\n")
    assert engine.asked[-1] == "DELETE /containers/ID?force=1&v=1"


def test_what_takes_long_is_told(engine: Engine) -> None:
    """Silent for a second, then the status that was told before it was over."""
    first = b'{"status":"making a template"}\n'
    engine.answers["prepare"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(first) + 14, first)
    command = [sys.executable, "-IS", "-c", PROGRAM, "-H", engine.path, "run", "--rm", "--vm", "busybox"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert [process.stderr.readline() for _ in range(2)] == ["bothy: warning: mind the gap\n", "bothy: making a template\n"]
    engine.finish(b'{"done":true}\n')
    assert process.stderr.read() == "err\n"
    assert process.wait(20) == 7
    process.stderr.close()
