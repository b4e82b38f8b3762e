"""The client against servers that say what they are told to: every way an answer can come, and not come."""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bothy import errors
from bothy.api import bootstrap
from bothy.api.client import Client, Lost, query_text


class Script:
    """A server that answers each connection's requests with the bytes it was given, and keeps what it was sent."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.listener.settimeout(10)
        self.got: list[bytes] = []
        self.thread: threading.Thread | None = None

    def answer(self, *connections: list[bytes]) -> None:
        """For each connection its answers, one a request; then it is closed."""
        self.thread = threading.Thread(target=self._serve, args=(connections,))
        self.thread.start()

    def _serve(self, connections: tuple[list[bytes], ...]) -> None:
        for answers in connections:
            sock, _ = self.listener.accept()
            with sock:
                sock.settimeout(10)
                for answer in answers:
                    self.got.append(self._request(sock))
                    for at in range(0, len(answer), 7):
                        sock.sendall(answer[at : at + 7])

    def _request(self, sock: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(1)
        head = data.lower()
        if b"content-length: " in head:
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            while length > 0:
                part = sock.recv(length)
                data, length = data + part, length - len(part)
        elif b"transfer-encoding: chunked" in head:
            while not data.endswith(b"0\r\n\r\n"):
                data += sock.recv(65536)
        return data

    def close(self) -> None:
        if self.thread is not None:
            self.thread.join()
        self.listener.close()


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    server = Script(str(tmp_path / "s"))
    yield server
    server.close()


JSON = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}'
LINES = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\nA\r\n:1}\n{"b":2\r\n3;x=y\r\n}\n\n\r\n0\r\n\r\n'


def test_connections_are_kept(script):
    script.answer([JSON, LINES, b"HTTP/1.1 204 No Content\r\n\r\n", JSON])
    with Client(script.path) as client:
        assert client.request(
            "GET", "/one", {"all": True, "n": None, "s": "a b&ü", "f": {"label": ["x"]}, "l": ["1", "2"]}
        ).json() == {"a": 1}
        assert list(client.request("GET", "/two").lines()) == [{"a": 1}, {"b": 2}]
        assert client.request("POST", "/three", body={"x": [1]}).status == 204
        assert client.request("PUT", "/four", body=b"raw").read() == b'{"a": 1}'
    assert script.got[0].startswith(b"GET /one?all=1&s=a%20b%26%C3%BC&f=%7B%22label%22%3A%5B%22x%22%5D%7D&l=1&l=2 HTTP/1.1\r\n")
    assert script.got[2].endswith(b'\r\n\r\n{"x":[1]}')
    assert b"Content-Type: application/json" in script.got[2]
    assert script.got[3].endswith(b"\r\n\r\nraw")


def test_files_are_sent_in_chunks(script, tmp_path):
    script.answer([JSON])
    (tmp_path / "f").write_bytes(b"x" * 300_000)
    with Client(script.path) as client, open(tmp_path / "f", "rb") as file:
        client.request("POST", "/images/load", body=file).read()
    body = script.got[0].split(b"\r\n\r\n", 1)[1]
    assert body.startswith(b"40000\r\nxxx")
    assert body.count(b"x") == 300_000


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.Invalid), (401, errors.Unauthorized), (403, errors.Forbidden), (404, errors.NotFound), (405, errors.Broken),
        (409, errors.Conflict), (500, errors.Broken), (501, errors.Unsupported), (503, errors.Unavailable),
    ],
)  # fmt: skip
def test_errors_come_as_they_were_raised(script, status, kind):
    body = b'{"message":"m","hint":"h","stage":"exec","errno":2}'
    script.answer([b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body), JSON])
    with Client(script.path) as client:
        with pytest.raises(kind) as raised:
            client.request("GET", "/")
        assert type(raised.value) is kind
        told = raised.value
        assert (told.message, told.hint, told.stage, told.errno) == ("m", "h", "exec", 2)
        assert client.request("GET", "/").json() == {"a": 1}


@pytest.mark.parametrize("body", [b"", b"plain words", b"[1]"])
def test_errors_without_a_body_of_ours(script, body):
    script.answer([b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)])
    with Client(script.path) as client, pytest.raises(errors.Broken) as raised:
        client.request("GET", "/")
    assert raised.value.message


def test_unchanged_is_an_answer(script):
    script.answer([b"HTTP/1.1 304 Not Modified\r\n\r\n"])
    with Client(script.path) as client:
        assert client.request("POST", "/containers/x/start").status == 304


def test_an_answer_up_to_the_end_of_the_connection(script):
    script.answer([b"HTTP/1.0 200 OK\r\n\r\nall of it"])
    with Client(script.path) as client:
        assert client.request("GET", "/").read() == b"all of it"


def test_continue_is_passed_over(script):
    script.answer([b"HTTP/1.1 100 Continue\r\n\r\n" + JSON])
    with Client(script.path) as client:
        assert client.request("GET", "/").json() == {"a": 1}


def test_a_hijacked_connection_with_what_came_behind_the_head(script):
    head = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\n\r\n"
    script.answer([head + b"early"])
    with Client(script.path) as client:
        taken = client.hijack("POST", "/containers/x/attach", {"stream": True})
        data = taken.leftover
        while part := taken.sock.recv(100):
            data += part
        taken.sock.close()
    assert taken.framed
    assert data == b"early"
    assert b"Upgrade: tcp\r\n" in script.got[0]


def test_a_hijack_that_is_refused(script):
    script.answer([b'HTTP/1.1 404 No\r\nContent-Length: 15\r\n\r\n{"message":"m"}'])
    with Client(script.path) as client, pytest.raises(errors.NotFound):
        client.hijack("POST", "/containers/x/attach")


def test_requests_may_overlap(script):
    script.answer([JSON], [JSON])
    with Client(script.path) as client:
        first, second = client.begin("POST", "/a"), client.begin("POST", "/b")
        assert second.response().json() == {"a": 1}
        assert first.response().json() == {"a": 1}


def test_a_kept_connection_that_was_closed_is_not_used(script):
    script.answer([JSON], [JSON])
    with Client(script.path) as client:
        client.request("POST", "/one").json()
        assert select.select([client._idle[0].sock], [], [], 5)[0]
        assert client.request("POST", "/two").json() == {"a": 1}
    assert [g.split()[1] for g in script.got] == [b"/one", b"/two"]


def test_what_was_not_read_is_sent_again_and_what_was_read_only_if_it_asks(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor() as pool:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(10)

        def serve(reading: bytes) -> bool:
            """The first connection is closed, after reading `reading`; true if a second one came with the request."""
            sock, _ = listener.accept()
            while reading and b"\r\n\r\n" not in reading:
                reading += sock.recv(100)
            if not reading:
                select.select([sock], [], [], 5)
            sock.close()
            listener.settimeout(0.3)
            try:
                sock, _ = listener.accept()
            except TimeoutError:
                return False
            with sock:
                Script._request(Script.__new__(Script), sock)
                sock.sendall(JSON)
            return True

        for method, reading, again in (("POST", b"", True), ("POST", b"-", False), ("GET", b"-", True)):
            listener.settimeout(10)
            served = pool.submit(serve, reading)
            with Client(str(tmp_path / "s")) as client:
                if again:
                    assert client.request(method, "/").json() == {"a": 1}
                else:
                    with pytest.raises(Lost):
                        client.request(method, "/")
            assert served.result() is again


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"])
def test_an_answer_that_breaks_off(script, answer):
    script.answer([answer])
    with Client(script.path) as client, pytest.raises(Lost) as raised:
        client.request("POST", "/").json()
    assert raised.value.early == (answer == b"")


def test_what_does_not_speak_http(script):
    script.answer([b"hello\r\n\r\n"])
    with Client(script.path) as client, pytest.raises(errors.Unavailable, match="does not speak HTTP"):
        client.request("GET", "/")


def test_nobody_there_and_none_to_start(tmp_path):
    with pytest.raises(errors.Unavailable, match="no engine listens"):
        Client(str(tmp_path / "none")).request("GET", "/")


def test_query_text():
    assert query_text(None) == ""
    assert query_text({"a": False, "b": []}) == ""
    assert query_text({"a": 0, "b": ""}) == "?a=0&b="


def test_the_client_is_quick_to_import():
    """Neither http.client nor anything else that is slow: what it loads is counted, not timed."""
    code = "import sys; before = set(sys.modules); import bothy.api.client; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {os.getcwd()!r}); {code}"],
        capture_output=True,
        text=True,
    )
    loaded = done.stdout.split()
    assert "bothy.api.client" in loaded
    assert not {"http.client", "asyncio", "typing", "re", "dataclasses", "inspect", "email", "ssl", "logging"} & set(loaded)
    assert len(loaded) < 20, loaded


class TestBootstrap:
    """The start of a daemon, with an interpreter whose `bothy.daemon` is the test's."""

    @pytest.fixture
    def daemon(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        def make(source: str) -> None:
            package = tmp_path / "lib" / "bothy"
            package.mkdir(parents=True)
            (package / "__init__.py").touch()
            (package / "daemon.py").write_text(source)
            runner = tmp_path / "python"
            runner.write_text(f'#!/bin/sh\nshift\nPYTHONPATH={tmp_path}/lib exec {sys.executable} -S "$@"\n')
            runner.chmod(0o755)
            monkeypatch.setattr(sys, "executable", str(runner))

        return make

    SERVE = """
import os, socket, sys
assert os.environ["LISTEN_FDS"] == "1" and os.environ["LISTEN_PID"] == str(os.getpid())
assert os.getcwd() == "/" and os.getsid(0) != os.getppid()
assert sorted(os.listdir("/proc/self/fd")) == ["0", "1", "2", "3", "4"], os.listdir("/proc/self/fd")
listener = socket.socket(fileno=3)
open(os.environ["BOTHY_RUN"] + "/started", "a").write("x")
sock, _ = listener.accept()
sock.recv(1000)
sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nOK")
sock.close()
"""

    def test_it_gets_the_listening_socket_and_answers(self, tmp_path, monkeypatch, daemon):
        daemon(self.SERVE)
        run = tmp_path / "run"
        monkeypatch.setenv("BOTHY_RUN", str(run))
        with Client.from_environ() as client:
            assert client.request("GET", "/_ping").read() == b"OK", (run / "daemon.log").read_text()
        assert stat.S_IMODE((run / "bothy.sock").stat().st_mode) == 0o660

    def test_many_at_once_start_one(self, tmp_path, monkeypatch, daemon):
        loop = "for _ in range(12):\n    sock, _ = listener.accept()\n    sock.recv(1000)\n    sock.sendall"
        daemon(self.SERVE.replace("sock, _ = listener.accept()\nsock.recv(1000)\nsock.sendall", loop))
        run = tmp_path / "run"
        ask = f"import sys; sys.executable = {sys.executable!r}; from bothy.api.client import Client"
        ask += "; print(Client.from_environ().request('POST', '/').read())"
        environ = {**os.environ, "BOTHY_RUN": str(run)}
        python = os.path.realpath("/proc/self/exe")
        many = [
            subprocess.Popen([python, "-c", ask], stdout=subprocess.PIPE, text=True, env={**environ, "PYTHONPATH": os.getcwd()})
            for _ in range(12)
        ]
        assert [process.communicate(timeout=60)[0] for process in many] == ["b'OK'\n"] * 12
        assert (run / "started").read_text() == "x"

    def test_one_that_dies_is_explained(self, tmp_path, monkeypatch, daemon):
        daemon("import sys; sys.exit('the database is from the future')")
        monkeypatch.setenv("BOTHY_RUN", str(tmp_path / "run"))
        with Client.from_environ() as client:
            for method in ("GET", "POST"):
                with pytest.raises(errors.Unavailable, match="the database is from the future") as raised:
                    client.request(method, "/")
                assert "daemon.log" in raised.value.hint

    def test_one_that_dies_after_the_request_was_read(self, tmp_path, monkeypatch, daemon):
        daemon(self.SERVE.replace("sock.sendall", "sys.exit('out of luck'); sock.sendall"))
        monkeypatch.setenv("BOTHY_RUN", str(tmp_path / "run"))
        with Client.from_environ() as client, pytest.raises(errors.Unavailable, match="out of luck"):
            client.request("POST", "/")

    def test_an_interpreter_that_is_gone(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
        monkeypatch.setenv("BOTHY_RUN", str(tmp_path / "run"))
        with Client.from_environ() as client, pytest.raises(errors.Unavailable, match="no-python"):
            client.request("GET", "/")

    def test_a_socket_that_was_left_behind_makes_way(self, tmp_path):
        path = str(tmp_path / "s")
        bootstrap.listen(path).close()
        assert bootstrap.connect(path) is None
        with bootstrap.listen(path) as listener:
            sock = bootstrap.connect(path)
            assert sock is not None
            sock.close()
            assert listener.fileno() >= 0

    def test_a_path_that_is_too_long(self, tmp_path):
        with pytest.raises(errors.Unavailable) as raised:
            bootstrap.listen(str(tmp_path / ("x" * 120)))
        assert "107" in raised.value.hint
