"""Attach by websocket: the same bytes as by any other way."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import await_


def attached(bothy: Walled, name: str, send: list[str], until: bytes) -> bytes:
    """What comes by websocket until `until` was seen, or the end if it is empty."""

    async def talk() -> bytes:
        connector = aiohttp.UnixConnector(path=str(bothy.engine.run_folder / "bothy.sock"))
        url = f"http://bothy/v1.41/containers/{name}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1"
        found = b""
        async with aiohttp.ClientSession(connector=connector) as session, session.ws_connect(url) as socket:
            for text in send:
                await socket.send_str(text)
            async for message in socket:
                found += message.data
                if until and until in found:
                    break
        return found

    return asyncio.run(asyncio.wait_for(talk(), 60))


@pytest.mark.parametrize("tty", [(), ("-t",)])
def test_what_is_sent_comes_back(bothy: Walled, tty: tuple[str, ...]) -> None:
    bothy("run", "-d", "-i", *tty, "--name", "t-ws", "busybox", "cat").ok()
    assert b"through\n" in attached(bothy, "t-ws", ["through\n"], b"through").replace(b"\r\n", b"\n") + b"\n"
    assert bothy.engine.inspect("t-ws")["State"]["Running"] is True
    assert b"again" in attached(bothy, "t-ws", ["again\n"], b"again")
    bothy("rm", "-f", "t-ws").ok()


def test_the_end_of_the_program_ends_it(bothy: Walled) -> None:
    bothy("run", "-d", "-i", "--name", "t-ws", "busybox", "sh", "-c", "read x; echo got-$x; exit 4").ok()
    assert attached(bothy, "t-ws", ["it\n"], b"") == b"got-it\n"
    await_(lambda: bothy.engine.inspect("t-ws")["State"]["ExitCode"] == 4, "the exit code")
    bothy("rm", "t-ws").ok()


def test_refusals(bothy: Walled) -> None:
    async def ask(path: str, headers: dict[str, str]) -> tuple[int, str]:
        connector = aiohttp.UnixConnector(path=str(bothy.engine.run_folder / "bothy.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"http://bothy{path}", headers=headers) as answer,
        ):
            return answer.status, json.loads(await answer.text())["message"]

    assert asyncio.run(ask("/containers/nobody/attach/ws", {"Connection": "Upgrade", "Upgrade": "websocket"}))[0] == 404
    assert asyncio.run(ask("/containers/nobody/attach/ws", {}))[0] == 400
