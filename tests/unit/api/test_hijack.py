"""Connections that stop being HTTP: whatever a client sends after its request, and whenever, reaches the workload, once."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace

import pytest

from bothy.api import frames
from bothy.engine.model import Config, ExecRequest, ExecSession, Status
from bothy.errors import Broken, Conflict
from tests.unit.api.conftest import Door, read_head
from tests.unit.api.double import ID, recv_all, workload

ATTACH = f"/v1.47/containers/{ID}/attach?stream=1&stdin=1&stdout=1&stderr=1"
UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


def attach_head(extra: str = UPGRADE, path: str = ATTACH) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: 0\r\n\r\n".encode()


async def until_attached(door: Door) -> tuple[int, bytes]:
    while not door.engine.containers.attached:
        await asyncio.sleep(0.001)
    connection, client = door.engine.containers.attached[-1]
    assert client.initial.encode("latin-1") == connection.initial
    return connection.fd, connection.initial


def test_an_upgrade_is_answered_as_docker_answers(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=Status.RUNNING)
        reader, writer = await door.open()
        writer.write(attach_head())
        raw = await reader.readuntil(b"\r\n\r\n")
        assert raw.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        for line in (b"Connection: Upgrade", b"Upgrade: tcp", b"Content-Type: application/vnd.docker.multiplexed-stream"):
            assert line in raw.split(b"\r\n")
        fd, _ = await until_attached(door)
        _, client = door.engine.containers.attached[0]
        assert (client.framing, client.stdin, client.stdout, client.stderr) == ("mux", True, True, True)
        os.write(fd, b"from the program")
        assert await reader.readexactly(16) == b"from the program"
        writer.write(b"to the program")
        await writer.drain()
        await asyncio.sleep(0.01)
        assert os.read(fd, 100) == b"to the program"
        writer.close()

    at_door(scenario)


@pytest.mark.parametrize(
    ("version", "tty", "expected"),
    [("1.41", False, "raw"), ("1.42", False, "multiplexed"), ("1.47", True, "raw"), ("1.47", False, "multiplexed")],
)
def test_the_content_type_tells_the_framing_since_1_42(at_door, version, tty, expected):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=Status.RUNNING, config=Config(tty=tty))
        reader, writer = await door.open()
        writer.write(attach_head(path=f"/v{version}/containers/web/attach?stream=1"))
        _, headers = await read_head(reader)
        assert headers["content-type"] == f"application/vnd.docker.{expected}-stream"
        await until_attached(door)
        assert door.engine.containers.attached[0][1].framing == ("raw" if tty else "mux")
        writer.close()

    at_door(scenario)


@pytest.mark.parametrize("extra", [UPGRADE, ""], ids=["upgrade", "plain"])
@pytest.mark.parametrize(
    "early", [b"x", b"GET / HTTP/1.1\r\n\r\n", os.urandom(300_000), b"\r\n\r\n"], ids=["byte", "http", "much", "lines"]
)
@pytest.mark.parametrize("half_close", [False, True])
def test_what_is_sent_with_the_request_arrives_whole(at_door, extra, early, half_close):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=Status.RUNNING)
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(door.path)

        def send() -> None:
            sock.sendall(attach_head(extra) + early)
            if half_close:
                sock.shutdown(socket.SHUT_WR)

        sending = asyncio.create_task(asyncio.to_thread(send))
        fd, initial = await until_attached(door)
        os.set_blocking(fd, True)
        got = initial
        while len(got) < len(early):
            got += await asyncio.to_thread(os.read, fd, 65536)
        await sending
        assert got == early
        if half_close:
            assert os.read(fd, 1) == b""
        head = sock.recv(4096)
        assert head.startswith(
            b"HTTP/1.1 101" if extra else b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
        )
        os.write(fd, b"answer")
        assert sock.recv(100) == b"answer"
        sock.close()

    at_door(scenario)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_request_in_small_pieces(at_door, size):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=Status.RUNNING)
        reader, writer = await door.open()
        data = attach_head() + b"stdin"
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await asyncio.sleep(0)
        await read_head(reader)
        fd, got = await until_attached(door)
        while got != b"stdin":
            await asyncio.sleep(0.001)
            os.set_blocking(fd, True)
            got += os.read(fd, 100)
        writer.close()

    at_door(scenario)


def test_the_exec_body_is_read_and_what_follows_is_stdin(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=Status.RUNNING)
        session = ExecSession(id="e1", workload=ID, request=ExecRequest(attach_stdin=True, attach_stdout=True, cmd=["cat"]))
        door.engine.execs.sessions["e1"] = session
        reader, writer = await door.open()
        body = b'{"Detach": false, "Tty": false, "ConsoleSize": [24, 80]}'
        head = f"POST /v1.47/exec/e1/start HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{UPGRADE}\r\n".encode()
        writer.write(head + body[:10])
        await asyncio.sleep(0.01)
        writer.write(body[10:] + b"stdin")
        status, _ = await read_head(reader)
        assert status == 101
        connection, client, tty, size = door.engine.execs.started[0]
        assert connection is not None
        assert (connection.initial, client.stdin, client.stdout, client.stderr, tty, size) == (
            b"stdin",
            True,
            True,
            False,
            False,
            [24, 80],
        )
        writer.close()

    at_door(scenario)


def test_an_error_is_http_and_what_followed_is_the_next_request(at_door):
    async def scenario(door: Door) -> None:
        reader, writer = await door.open()
        writer.write(attach_head(path="/containers/nobody/attach?stream=1") + b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers = await read_head(reader)
        assert status == 404
        assert b"No such container: nobody" in await reader.readexactly(int(headers["content-length"]))
        status, headers = await read_head(reader)
        assert status == 200
        assert await reader.readexactly(2) == b"OK"
        writer.close()

    at_door(scenario)


def test_a_kept_connection_can_be_hijacked_later(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=Status.RUNNING)
        reader, writer = await door.open()
        for _ in range(3):
            writer.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            await read_head(reader)
            await reader.readexactly(2)
        writer.write(attach_head() + b"stdin")
        status, _ = await read_head(reader)
        assert status == 101
        assert (await until_attached(door))[1] == b"stdin"
        writer.close()

    at_door(scenario)


def test_a_paused_container_is_not_attached_to(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=Status.PAUSED)
        status, _, body = await door.ask("POST", ATTACH)
        assert status == 409
        assert b"paused" in body

    at_door(scenario)


@pytest.mark.parametrize("tty", [False, True])
def test_a_failure_behind_the_head_is_told_in_the_stream(at_door, tty):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=Status.RUNNING)
        request = ExecRequest(attach_stdout=True, cmd=["nothing"], tty=tty)
        door.engine.execs.sessions["e1"] = ExecSession(id="e1", workload=ID, request=request)
        door.engine.execs.failure = Broken("no such program", hint="check the name")
        reader, writer = await door.open()
        writer.write(f"POST /exec/e1/start HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n{UPGRADE}\r\n{{}}".encode())
        await read_head(reader)
        words = b"no such program (check the name)\r\n"
        assert await reader.read() == (words if tty else frames.encode(2, words))
        writer.close()

    at_door(scenario)


@pytest.mark.parametrize(
    ("session", "status", "message"),
    [
        ({"running": True}, Status.RUNNING, b"already running"),
        ({"exit_code": 0}, Status.RUNNING, b"already run"),
        ({}, Status.PAUSED, b"is paused"),
        ({}, Status.EXITED, b"is not running"),
    ],
)
def test_execs_that_can_not_start_are_conflicts(at_door, session, status, message):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=status)
        known = ExecSession(id="e1", workload=ID, request=ExecRequest(cmd=["x"]))
        door.engine.execs.sessions["e1"] = replace(known, **session)
        code, _, body = await door.ask("POST", "/exec/e1/start", {}, UPGRADE)
        assert code == 409
        assert message in body

    at_door(scenario)


def test_a_client_that_is_gone_leaves_nothing(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=Status.RUNNING)
        for _ in range(20):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(door.path)
            sock.sendall(attach_head())
            sock.close()
        await door.ask("GET", "/_ping")
        for connection, _ in door.engine.containers.attached:
            with socket.socket(fileno=os.dup(connection.fd)) as taken:
                taken.settimeout(2)
                assert taken.recv(100) == b""

    at_door(scenario)


def test_attach_failures_do_not_leak_the_connection(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=Status.RUNNING)
        door.engine.containers.attach_failure = Conflict("it has just ended")
        reader, writer = await door.open()
        writer.write(attach_head())
        await read_head(reader)
        assert await reader.read() == frames.encode(2, b"it has just ended\r\n")
        writer.close()

    at_door(scenario)


def test_the_taken_socket_outlives_the_server(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=Status.RUNNING)
        reader, writer = await door.open()
        writer.write(attach_head())
        await read_head(reader)
        fd, _ = await until_attached(door)
        await door.runner.close()
        os.write(fd, b"still here")
        assert await reader.readexactly(10) == b"still here"
        writer.close()
        await writer.wait_closed()
        assert recv_all(fd) == b""

    at_door(scenario)
