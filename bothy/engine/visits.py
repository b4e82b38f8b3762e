"""A visit as the engine sees it: a line to our own code in a workload's root (see `bothy.containers.visits`), over both walls.

    visit = Visit(sock, …)
    found = await visit.begin(request)        what it found; raises what keeps it from doing its work
    async for data in visit.data(): …         an archive that comes out
    await visit.put(archive)                  one that goes in
    visit.close()                             in any case; what is not finished by then is broken off

What comes over the line of a machine was said by its guest, and that of a container read by code that handles what a stranger
wrote: lengths and shapes are checked here.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from bothy.containers.visits import wire
from bothy.containers.visits.model import Place, Request
from bothy.containers.visits.wire import Frame, WireError
from bothy.errors import BothyError, Broken, Conflict, Forbidden, Invalid, NotFound, Unavailable
from bothy.jsonable import PLAIN

_READ = 256 * 1024
_NOTICE, _STALLED = 1.0, 5.0  # seconds
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Visit:
    """Owns the socket. `place` is for containers. `kill` is called by `close` if the visit has not come to its end by itself."""

    def __init__(self, sock: socket.socket, place: Place | None = None, kill: Callable[[], None] = lambda: None) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._place = place
        self._kill = kill
        self._loop = asyncio.get_running_loop()
        self._decoder = wire.Decoder()
        self._frames: deque[Frame] = deque()
        self._answer: asyncio.Task[dict[str, Any]] | None = None
        self._closed = asyncio.Event()
        self._task = asyncio.current_task()
        self._moved = self._loop.time()
        self.over = False

    async def begin(self, request: Request) -> dict[str, Any]:
        """Say where to go (containers) and what to do; what was found there. Raises what the visit says went wrong."""
        words = b"" if self._place is None else wire.encode_message(PLAIN.to_data(self._place))
        await self._write(words + wire.encode_message(PLAIN.to_data(request)))
        found = (await self._message()).get("ok")
        if not isinstance(found, dict):
            raise Broken("the visit's answer is no answer")
        return found

    async def data(self) -> AsyncIterator[bytes]:
        """The archive. Raises what the visit says went wrong in the middle of it."""
        while True:
            frame = await self._frame()
            if frame.kind == wire.DATA:
                yield frame.payload
            else:
                self._end(frame)
                return

    async def put(self, archive: AsyncIterator[bytes]) -> None:
        """Send an archive; returns when it has been put there. Raises what the visit says went wrong, as soon as it says so."""
        answer = self._answer = asyncio.ensure_future(self._message())
        while True:
            coming = asyncio.ensure_future(anext(archive, None))
            await asyncio.wait({coming, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
                break
            piece = coming.result()
            if piece is None:
                break
            await self._send(piece)
        await self._finish()

    async def _send(self, data: bytes) -> None:
        """A piece of an archive."""
        for at in range(0, len(data), wire.MAX_FRAME):
            try:
                await self._write(wire.encode(wire.DATA, data[at : at + wire.MAX_FRAME]))
            except OSError:
                return  # it has something to say

    async def _finish(self) -> None:
        """The archive is complete, or the visit has had enough of it."""
        assert self._answer is not None
        if not self._answer.done():
            try:
                await self._write(wire.encode(wire.END))
            except OSError:
                pass  # it has something to say
        if "end" not in await self._answer:
            raise Broken("the visit ended without a word")
        self.over = True

    def close(self) -> None:
        """Let go of it."""
        if self._answer is not None:
            self._answer.cancel()
        self._sock.close()
        if not self.over:
            self._kill()
        self._closed.set()

    async def abandon(self) -> None:
        """Have it broken off, whoever is at it, and wait until it is closed. A client that does not notice is hung up on."""
        self._kill()
        try:
            await asyncio.wait_for(self._closed.wait(), _NOTICE)
        except TimeoutError:
            if self._task is not None:
                self._task.cancel()
            await self._closed.wait()

    @property
    def stalled(self) -> bool:
        """Nothing has passed for some seconds."""
        return self._loop.time() - self._moved > _STALLED

    def _end(self, frame: Frame) -> None:
        if frame.kind != wire.MESSAGE or "end" not in self._told(frame):
            raise Broken("the visit ended without a word")
        self.over = True

    async def _message(self) -> dict[str, Any]:
        return self._told(await self._frame())

    def _told(self, frame: Frame) -> dict[str, Any]:
        if frame.kind != wire.MESSAGE:
            raise Broken("the visit's answer is no answer")
        try:
            message = wire.message_of(frame.payload)
        except WireError as exc:
            raise Broken(f"the visit's answer can not be read: {exc}") from None
        if "error" in message:
            self.over = True
            raise Failed(message["error"])
        return message

    async def _frame(self) -> Frame:
        self._moved = self._loop.time()
        while not self._frames:
            try:
                data = await self._loop.sock_recv(self._sock, _READ)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Unavailable("the visit of the files was ended before it was done", hint="has the workload ended?")
            try:
                self._frames.extend(self._decoder.feed(data))
            except WireError as exc:
                raise Broken(f"the visit's answer can not be read: {exc}") from None
        return self._frames.popleft()

    async def _write(self, data: bytes) -> None:
        self._moved = self._loop.time()
        await self._loop.sock_sendall(self._sock, data)


class Failed(Exception):
    """A failure as the visit tells it; not checked: `translated` makes an error of ours of it."""

    def __init__(self, said: object) -> None:
        fields = said if isinstance(said, dict) else {}
        number = fields.get("errno")
        self.errno = number if isinstance(number, int) and not isinstance(number, bool) else 0
        self.stage, self.message, self.path = (str(fields.get(key) or "")[:1000] for key in ("stage", "message", "path"))
        super().__init__(self.message)


def translated(exc: Failed, path: str, container: str, readonly: Callable[[str], str]) -> BothyError:
    """The engine's error for what went wrong at `path` in `container`. `readonly` has the words for a place that is read-only."""
    if exc.stage == "gone":
        return Conflict(f"container {container} is not running", hint="it has just ended; try again")
    if exc.stage in ("archive", "target", "user"):
        return Invalid(exc.message)
    if exc.stage == "readonly" or exc.errno == errno.EROFS:
        return Forbidden(readonly(exc.path))
    if exc.stage == "visit" and (exc.errno == errno.ENOENT or (exc.errno == errno.ENOTDIR and not path.endswith(("/", "/.")))):
        return NotFound(f"Could not find the file {path} in container {container}", errno=exc.errno)
    words = f"{exc.path}: {exc.message}" if exc.path else exc.message
    if exc.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR):
        return Invalid(words or path, errno=exc.errno)
    if exc.errno in _FULL:
        return Unavailable(words, errno=exc.errno, hint="free some space there")
    return Broken(words or "the visit failed", stage=exc.stage, errno=exc.errno)
