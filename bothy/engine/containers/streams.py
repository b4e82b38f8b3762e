"""attach, logs, resize, top, stats: what goes on while it runs."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

from bothy.engine import logs, times
from bothy.engine.hall import Hall
from bothy.engine.keepers import Keeper
from bothy.engine.model import Connection, LogEntry, Status
from bothy.engine.workloads import Live
from bothy.errors import Conflict, NotFound, Unsupported
from bothy.keeper.model import Client


async def attach(hall: Hall, live: Live, connection: Connection, client: Client, *, with_logs: bool, stream: bool) -> None:
    """Give a client to the keeper; before a start it is held, and gets the output from the first byte on. Owns the fd.

    `with_logs` first sends what is in the log; without `stream` that is all. Raises Conflict (paused), Unsupported (no log).
    """
    ours = True
    try:
        if with_logs:
            await _send_log(hall, live, connection.fd, client)
        if not stream:
            return
        if live.record.status is Status.RUNNING and not live.lock.locked():
            await _hand_over(hall, live, connection, client)
            return
        async with live.lock:
            if live.removed:
                raise NotFound(f"No such container: {live.id}")
            if live.record.status is Status.PAUSED:
                raise Conflict(f"container {live.record.name} is paused, unpause the container before attach")
            if live.record.status is Status.RUNNING:
                await _hand_over(hall, live, connection, client)
            else:
                live.held.append((connection, client))
                ours = False
                hall.tell(live.record, "attach")
    finally:
        if ours:
            os.close(connection.fd)


async def _hand_over(hall: Hall, live: Live, connection: Connection, client: Client) -> None:
    if live.keeper is None:
        raise Conflict(f"container {live.record.name} is not running")
    await live.keeper.attach(connection, client)
    hall.tell(live.record, "attach")


async def _send_log(hall: Hall, live: Live, fd: int, client: Client) -> None:
    """What the log has, framed as the client wants it."""
    wanted = logs.Wanted(client.stdout, client.stderr)
    sock = socket.socket(fileno=os.dup(fd))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        async for entry in logs.read(_path(live), wanted):
            head = b""
            if client.framing == "mux":
                which = 2 if entry.stream == "stderr" else 1
                head = bytes((which, 0, 0, 0)) + len(entry.data).to_bytes(4, "big")
            await loop.sock_sendall(sock, head + entry.data)
    except ConnectionError:
        pass  # the client went; the keeper finds that out too
    finally:
        sock.close()


async def read_logs(
    hall: Hall, live: Live, *, stdout: bool, stderr: bool, since: str, until: str, tail: int, follow: bool
) -> AsyncIterator[LogEntry]:
    """Entries of the log; with `follow` until the workload ends. Raises Invalid for times, Unsupported without a log."""
    bounds = [times.rfc3339(at) if (at := times.instant(text)) > 0 else "" for text in (since, until)]
    wanted = logs.Wanted(stdout, stderr, bounds[0], bounds[1], tail)
    path = _path(live)
    if not (follow and live.record.status.is_up):
        async for entry in logs.read(path, wanted):
            yield entry
        return
    until_at = times.instant(until)
    ended: asyncio.Future[Any] = live.watch("not-running")
    timer = None
    if until_at:
        delay = max(0.0, until_at / 1e9 - time.time())
        timer = asyncio.get_running_loop().call_later(delay, ended.cancel)
    try:
        async for entry in logs.follow(path, wanted, hall.inotify, ended):
            yield entry
    finally:
        if timer is not None:
            timer.cancel()
        ended.cancel()


def _path(live: Live) -> str:
    if not live.record.log_path:
        raise Unsupported("configured logging driver does not support reading", hint="use --log-driver json-file")
    return live.record.log_path


async def resize(hall: Hall, live: Live, height: int, width: int) -> None:
    """Set the terminal's size. Raises Conflict when it does not run."""
    await _keeper(live).resize(height, width)
    hall.tell(live.record, "resize", height=str(height), width=str(width))


async def top(live: Live, ps_args: str) -> tuple[list[str], list[list[str]]]:
    """Its processes, as ps(1) with these arguments has them. Raises Conflict when it does not run."""
    return await _keeper(live).top(ps_args)


async def stats(live: Live) -> dict[str, Any]:
    """What it uses, in the API's shapes. Raises Conflict when it does not run."""
    return dict(await _keeper(live).stats())


def _keeper(live: Live) -> Keeper:
    if live.keeper is None or not live.record.status.can_signal:
        raise Conflict(f"container {live.id} is not running")
    return live.keeper
