"""Raw streams as curl and a bare socket see them: heads to the letter, frames, half-closes, and where endless answers end."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bothy.api import frames
from tests.e2e.conftest import Walled
from tests.support.engine import await_

FRAMED = b"\1\0\0\0\0\0\0\4out\n\2\0\0\0\0\0\0\4err\n"
HEAD_200 = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: close\r\n\r\n"


class Curl:
    """curl on the engine's socket; workloads are of one wall."""

    def __init__(self, bothy: Walled) -> None:
        self.runtime = "vm" if bothy.wall == "vm" else ""
        self.socket = str(bothy.engine.run_folder / "bothy.sock")

    def argv(self, method: str, target: str, *flags: str) -> list[str]:
        return ["curl", "-sS", "-N", "-X", method, "--unix-socket", self.socket, *flags, f"http://localhost{target}"]

    def __call__(self, method: str, target: str, *flags: str, stdin: bytes | None = None) -> bytes:
        """What curl prints; fails the test if curl fails."""
        done = subprocess.run(self.argv(method, target, *flags), input=stdin, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, method: str, target: str, body: Any = None) -> Any:
        sent = [] if body is None else ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        answer = self(method, target, *sent)
        return json.loads(answer) if answer else None

    def create(self, *cmd: str, **config: Any) -> str:
        body = {"Image": "busybox", "Cmd": list(cmd), "HostConfig": {"NetworkMode": "none", "Runtime": self.runtime}, **config}
        return str(self.json("POST", "/v1.47/containers/create", body)["Id"])

    def start(self, workload: str) -> None:
        assert self("POST", f"/containers/{workload}/start", "-o", "/dev/null", "-w", "%{http_code}") == b"204"

    @contextmanager
    def begun(self, method: str, target: str, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
        """curl whose answer's head has come: it can be followed by what changes the answer."""
        pipe, argv = subprocess.PIPE, self.argv(method, target, "-D", "/dev/stderr", *flags)  # where curl writes heads at once
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def raw(self, method: str, target: str, *headers: str) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(self.socket)
            sock.sendall("\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *headers, "", ""]).encode())
            yield sock


def head(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stderr is not None
    read = b""
    while not read.endswith(b"\r\n\r\n"):
        line = process.stderr.readline()
        assert line, read
        read += line
    return read


def until(sock: socket.socket, wanted: bytes | None = None) -> bytes:
    """What comes up to some bytes, or to the end."""
    read = b""
    while wanted is None or wanted not in read:
        data = sock.recv(65536)
        if not data:
            assert wanted is None, read
            break
        read += data
    return read


@pytest.fixture
def curl(bothy: Walled) -> Curl:
    bothy("ps").ok()
    return Curl(bothy)


def test_plain_hijack_has_frames(curl: Curl) -> None:
    workload = curl.create("sh", "-c", "echo out; sleep 0.1; echo err >&2")
    with curl.begun("POST", f"/v1.41/containers/{workload}/attach?stream=1&stdout=1&stderr=1") as attached:
        assert head(attached) == HEAD_200
        curl.start(workload)
        assert attached.communicate(timeout=60)[0] == FRAMED


@pytest.mark.parametrize(("version", "kind"), [("v1.41", "raw-stream"), ("v1.42", "multiplexed-stream")])
def test_upgrade_and_half_close(curl: Curl, version: str, kind: str) -> None:
    workload = curl.create("sh", "-c", "cat; echo end", OpenStdin=True, StdinOnce=True)
    target = f"/{version}/containers/{workload}/attach?stream=1&stdin=1&stdout=1&stderr=1"
    with curl.raw("POST", target, "Connection: Upgrade", "Upgrade: tcp") as sock:
        expected = (
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.{kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        assert until(sock, b"\r\n\r\n") == expected.encode()
        curl.start(workload)
        sock.sendall(b"typed\n")
        sock.shutdown(socket.SHUT_WR)
        decoded = b"".join(part for stream, part in frames.Decoder().feed(until(sock)) if stream == 1)
    assert decoded == b"typed\nend\n"


def test_a_terminal_is_raw_resized_and_detached_from(curl: Curl) -> None:
    workload = curl.create("sh", Tty=True, OpenStdin=True)
    target = f"/v1.47/containers/{workload}/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,x"
    with curl.raw("POST", target, "Connection: Upgrade", "Upgrade: tcp") as sock:
        assert b"application/vnd.docker.raw-stream\r\n" in until(sock, b"\r\n\r\n")
        curl.start(workload)
        resized = curl("POST", f"/containers/{workload}/resize?h=33&w=101", "-o", "/dev/null", "-w", "%{http_code}")
        assert resized == b"200"
        sock.sendall(b"stty size; echo do''ne\n")
        assert b"33 101\r\n" in until(sock, b"done\r\n")
        sock.sendall(b"\x01x")
        until(sock)
    assert curl.json("GET", f"/containers/{workload}/json")["State"]["Running"]


def test_exec_over_a_plain_hijack(curl: Curl) -> None:
    workload = curl.create("sleep", "300")
    curl.start(workload)
    cmd = {"Cmd": ["sh", "-c", "echo out; sleep 0.1; echo err >&2; exit 4"], "AttachStdout": True, "AttachStderr": True}
    made = curl.json("POST", f"/containers/{workload}/exec", cmd)["Id"]
    answer = curl("POST", f"/exec/{made}/start", "-i", "-H", "Content-Type: application/json", "-d", "{}")
    assert answer == HEAD_200 + FRAMED
    await_(lambda: curl.json("GET", f"/exec/{made}/json")["ExitCode"] == 4, "the exec's exit code")


def test_logs_follow_to_the_end(curl: Curl) -> None:
    workload = curl.create("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done")
    curl.start(workload)
    answer = curl("GET", f"/v1.47/containers/{workload}/logs?stdout=1&stderr=1&follow=1", "-i")
    told, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/vnd.docker.multiplexed-stream" in told
    assert b"Transfer-Encoding: chunked" in told
    assert body == b"".join(b"\1\0\0\0\0\0\0\2%d\n" % n for n in (1, 2, 3))


def test_wait_for_the_next_exit_and_for_the_removal(curl: Curl) -> None:
    workload = curl.create("sh", "-c", "exit 7")
    removed = f"/containers/{workload}/wait?condition=removed"
    with curl.begun("POST", f"/containers/{workload}/wait?condition=next-exit") as exits, curl.begun("POST", removed) as gone:
        assert head(exits).startswith(b"HTTP/1.1 200 OK\r\n")
        assert head(gone).startswith(b"HTTP/1.1 200 OK\r\n")
        curl.start(workload)
        assert json.loads(exits.communicate(timeout=60)[0]) == {"StatusCode": 7}
        assert gone.poll() is None
        curl("DELETE", f"/containers/{workload}")
        assert json.loads(gone.communicate(timeout=60)[0]) == {"StatusCode": 7}


def test_stats_are_one_line(curl: Curl) -> None:
    workload = curl.create("sleep", "300")
    curl.start(workload)
    for query in ("stream=0&one-shot=1", "stream=false"):
        lines = curl("GET", f"/containers/{workload}/stats?{query}").splitlines()
        assert len(lines) == 1
        assert json.loads(lines[0])["memory_stats"]["usage"] > 0


def test_events_between_two_moments(curl: Curl) -> None:
    since = int(time.time())
    workload, other = curl.create("true"), curl.create("true")
    curl("DELETE", f"/containers/{workload}")
    asked = json.dumps({"container": [workload], "type": {"container": True}})
    lines = curl(
        "GET", f"/events?since={since}&until={int(time.time()) + 1}", "-G", "--data-urlencode", f"filters={asked}"
    ).splitlines()
    found = [json.loads(line) for line in lines]
    assert [entry["Action"] for entry in found] == ["create", "destroy"]
    assert {entry["id"] for entry in found} == {workload}
    assert other not in {entry["id"] for entry in found}
    with curl.begun("GET", f"/events?since={int(time.time()) + 2}&until={int(time.time()) + 1}") as refused:
        assert head(refused).startswith(b"HTTP/1.1 400 ")


def test_images_go_out_and_in_by_pieces(curl: Curl, tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    told = curl("GET", "/images/busybox/get", "-D", "-", "-o", str(file))
    assert re.search(
        rb"Content-Type: application/x-tar\r\n.*Transfer-Encoding: chunked|Transfer-Encoding: chunked", told, re.DOTALL
    )
    with file.open("rb") as archive:
        answer = subprocess.run(
            [*curl.argv("POST", "/images/load", "-H", "Transfer-Encoding: chunked", "-H", "Expect:"), "-T", "-"],
            stdin=archive, capture_output=True, timeout=60, check=True,
        )  # fmt: skip
    assert b"Loaded image: busybox:latest" in answer.stdout
    broken = curl("POST", "/images/load", "-w", "%{http_code}", "-T", "-", stdin=os.urandom(100_000))
    assert re.search(rb'"message":|"error":', broken)
