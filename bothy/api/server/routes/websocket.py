"""Attach by websocket, for programs in browsers and for docker-py: the same streams, unframed, as binary messages.

    client ◀══ websocket ══▶ bothyd ◀══ socket pair ══▶ keeper

Unlike a hijacked connection it is bothyd's, and ends with it; the workload does not notice.
Source: Docker Engine API, ContainerAttachWebsocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from aiohttp import WSMsgType
from aiohttp.web_ws import WebSocketResponse

from bothy.api.server import hijack
from bothy.api.server.call import Call
from bothy.engine.model import Connection, Status
from bothy.errors import Conflict, Invalid
from bothy.keeper.model import Client

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

_CHUNK = 64 * 1024


async def attach(call: Call) -> StreamResponse:
    """`GET /containers/{id}/attach/ws`: text and binary messages are stdin; a close ends it."""
    if call.request.headers.get("Upgrade", "").lower() != "websocket":
        raise Invalid("this endpoint speaks websocket only", hint="use POST /containers/{id}/attach")
    keys = hijack.detach_keys(call.text("detachKeys"))
    workload = call.engine.containers.get(call.params["id"])
    if workload.status in (Status.PAUSED, Status.RESTARTING):
        raise Conflict(f"container {workload.name} is {workload.status}", hint="unpause the container before attach")
    tty = workload.config.tty
    client = Client(
        framing="raw",
        stdin=call.flag("stdin"),
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        detach_keys=keys if tty else "",
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(ours):
        ours.setblocking(False)
        # The fd is the engine's from here on.
        await call.engine.containers.attach(
            workload.id, Connection(theirs.detach()), client, logs=call.flag("logs"), stream=call.flag("stream")
        )
        answer = WebSocketResponse(heartbeat=None, max_msg_size=4 * 1024 * 1024)
        await answer.prepare(call.request)
        call.connection.cancel_on_loss()
        await _between(answer, ours)
    return answer


async def _between(answer: WebSocketResponse, ours: socket.socket) -> None:
    """Carry bytes both ways until either side is at its end."""
    tasks = [asyncio.create_task(_outwards(answer, ours)), asyncio.create_task(_inwards(answer, ours))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await answer.close()


async def _outwards(answer: WebSocketResponse, ours: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(ours, _CHUNK):
        await answer.send_bytes(data)


async def _inwards(answer: WebSocketResponse, ours: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    async for message in answer:
        if message.type is WSMsgType.TEXT:
            await loop.sock_sendall(ours, message.data.encode())
        elif message.type is WSMsgType.BINARY:
            await loop.sock_sendall(ours, message.data)
