"""An archive that comes in pieces, decompressed if it is compressed.

body ──▶ socket ──▶ worker of the images room (a process) ──▶ pipe ──▶ pieces
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator

from bothy.engine.heavy import heavy
from bothy.errors import BothyError
from bothy.images.inflating import inflate
from bothy.images.magic import ENOUGH, is_compressed

_READ = 256 * 1024


async def plain(archive: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The pieces of a tar. Raises what `archive` does, and Invalid for damaged data."""
    head = b""
    async for piece in archive:
        head += piece
        if len(head) >= ENOUGH:
            break
    if is_compressed(head):
        async with contextlib.aclosing(_inflated(head, archive)) as pieces:
            async for piece in pieces:
                yield piece
        return
    if head:
        yield head
    async for piece in archive:
        yield piece


async def _inflated(head: bytes, archive: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    ours.setblocking(False)
    os.set_blocking(reading, False)
    working = asyncio.ensure_future(_work(theirs, writing))
    feeding = asyncio.ensure_future(_feed(ours, head, archive))
    try:
        while data := await _read(reading):
            yield data
        if feeding.done():
            feeding.result()
        await working
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        ours.close()
        os.close(reading)
        with contextlib.suppress(BothyError):
            await working


async def _work(source: socket.socket, out: int) -> None:
    """The worker; its ends are closed when it has ended, so that nobody waits for more."""
    try:
        await heavy(inflate, source.fileno(), out, "the archive")
    finally:
        source.close()
        os.close(out)


async def _feed(sock: socket.socket, head: bytes, archive: AsyncIterator[bytes]) -> None:
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(sock, head)
        async for piece in archive:
            await loop.sock_sendall(sock, piece)
    except (BrokenPipeError, ConnectionResetError):
        return  # the worker says why it reads no more
    finally:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)


async def _read(fd: int) -> bytes:
    """The next bytes of a non-blocking pipe, empty at its end."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return os.read(fd, _READ)
        except BlockingIOError:
            ready = loop.create_future()
            loop.add_reader(fd, ready.set_result, None)
            try:
                await ready
            finally:
                loop.remove_reader(fd)
