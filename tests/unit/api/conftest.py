from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bothy.api.server import app
from tests.unit.api.double import Double


class Door:
    """A running server with a double behind it, and the means to talk to it byte by byte."""

    def __init__(self, engine: Double, path: str, runner: app.Runner) -> None:
        self.engine = engine
        self.path = path
        self.runner = runner

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def ask(
        self, method: str, path: str, body: bytes | dict[str, Any] = b"", headers: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers (lower case), body."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        reader, writer = await self.open()
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        status, got = await read_head(reader)
        answer = await read_body(reader, got, empty=method == "HEAD" or status in (204, 304))
        writer.close()
        await writer.wait_closed()
        return status, got, answer

    async def json(self, method: str, path: str, body: bytes | dict[str, Any] = b"") -> Any:
        status, _, answer = await self.ask(method, path, body)
        assert status < 300, answer
        return json.loads(answer)


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
    first, *rest = head.strip().split("\r\n")
    pairs = (line.partition(": ") for line in rest)
    return int(first.split()[1]), {k.lower(): v for k, _, v in pairs}


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str], *, empty: bool) -> bytes:
    if empty:
        return b""
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            size = int(await reader.readline(), 16)
            body += (await reader.readexactly(size + 2))[:-2]
            if not size:
                return body
    return await reader.readexactly(int(headers["content-length"]))


Scenario = Callable[[Door], Awaitable[None]]


@pytest.fixture
def at_door(tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario against a server; afterwards no task, no descriptor and no spool file of it may be left."""

    def run(scenario: Scenario) -> None:
        before = len(os.listdir("/proc/self/fd"))
        asyncio.run(main(scenario))
        assert len(os.listdir("/proc/self/fd")) == before
        assert not list(tmp_path.glob("tmp/*"))

    async def main(scenario: Scenario) -> None:
        path = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
            sock.listen(64)
            engine = Double(tmp_path)
            runner = await app.start(engine, sock)
            try:
                async with asyncio.timeout(20):
                    await scenario(Door(engine, path, runner))
            finally:
                await runner.close()
                for connection, _ in engine.containers.attached:
                    os.close(connection.fd)
                for connection, *_ in engine.execs.started:
                    if connection is not None:
                        os.close(connection.fd)
        for _ in range(10):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    return run
