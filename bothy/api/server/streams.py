"""Answers that take their time: a task's progress as lines of JSON, the log as frames, bodies to and from spool files.

A task's answer begins with its first line of progress or with its end: until then a failure is still an answer with a status of
its own, afterwards it is a last line `{"errorDetail": {"message": …}, "error": …}`, as Docker's clients expect it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bothy.api.server import errors, replies
from bothy.errors import BothyError, Invalid, Unavailable

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from bothy.api.server.call import Call

T = TypeVar("T")
BLOCK = 256 * 1024
COALESCED = 64 * 1024


def status_line(words: str) -> dict[str, Any]:
    """A line of progress, as Docker's clients print it."""
    return {"status": words}


async def progress(
    call: Call,
    work: Callable[[Callable[[str], None]], Awaitable[T]],
    last: Callable[[T], list[dict[str, Any]]],
    line: Callable[[str], dict[str, Any]] = status_line,
) -> StreamResponse:
    """Do `work`, which tells its progress to a function (from any thread): `last` shapes its result, `line` what it says."""
    loop = asyncio.get_running_loop()
    said: asyncio.Queue[str | None] = asyncio.Queue()

    def tell(words: str | None) -> None:
        loop.call_soon_threadsafe(said.put_nowait, words)

    stream = replies.Stream(call)
    stream.watch_loss()
    task = asyncio.ensure_future(work(tell))
    task.add_done_callback(lambda _: tell(None))
    try:
        while (words := await said.get()) is not None:
            await stream.line(line(words))
        for entry in last(task.result()):
            await stream.line(entry)
    except BothyError as exc:
        if not stream.begun:
            raise
        detail = errors.body_of(exc)
        await stream.line({**detail, "errorDetail": {"message": errors.text_of(exc)}, "error": errors.text_of(exc)})
    finally:
        task.cancel()
    return await stream.end()


@asynccontextmanager
async def ahead(entries: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """`entries`, of which the first was asked for when the block begins, and so before the answer's head goes out: what the engine
    refuses is raised here and still has a status, and what it subscribes to is subscribed to before the client acts on the head."""
    first = asyncio.ensure_future(anext(entries, None))
    try:
        await asyncio.sleep(0)
        if first.done():
            first.result()
        yield _with_first(first, entries)
    finally:
        first.cancel()


async def _with_first(first: asyncio.Future[T | None], entries: AsyncIterator[T]) -> AsyncIterator[T]:
    entry = await first
    while entry is not None:
        yield entry
        entry = await anext(entries, None)


class Burst:
    """Collects what is sent within one turn of the event loop, so that a long log is not a system call a line."""

    def __init__(self, stream: replies.Stream) -> None:
        self._stream = stream
        self._waiting = bytearray()
        self._flusher: asyncio.Task[None] | None = None

    async def send(self, data: bytes) -> None:
        """Send soon; waits only when much is waiting."""
        self._waiting += data
        if len(self._waiting) >= COALESCED:
            await self.flush()
        elif self._flusher is None or self._flusher.done():
            self._flusher = asyncio.ensure_future(self.flush())

    async def flush(self) -> None:
        """Send now."""
        if self._waiting:
            data, self._waiting = bytes(self._waiting), bytearray()
            await self._stream.send(data)

    async def close(self) -> None:
        """Nothing more comes: send the rest, or forget it if the client has gone."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)


@contextmanager
def spool_file(call: Call) -> Iterator[Path]:
    """`archive.tar` (errors name it) in a folder of its own below the engine's root, gone afterwards.

    Raises Unavailable where the disk does not take it.
    """
    folder = call.context.paths.root / "tmp"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = tempfile.TemporaryDirectory(prefix="spool-", dir=folder, ignore_cleanup_errors=True)
    except OSError as exc:
        raise Unavailable(f"{folder}: {exc.strerror}", errno=exc.errno or 0) from exc
    with own as name:
        yield Path(name) / "archive.tar"


async def spool(call: Call, path: Path) -> int:
    """The request's body into a file, piece by piece; the number of its bytes.

    Raises Invalid for a body that breaks off, Unavailable for a disk that is full.
    """
    size = 0
    try:
        with open(path, "wb", buffering=0) as file:
            async for data in call.request.content.iter_any():
                size += len(data)
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
    except OSError as exc:
        if isinstance(exc, ConnectionError):
            raise
        raise Unavailable(f"the upload could not be stored: {exc.strerror}", errno=exc.errno or 0) from exc
    except Exception as exc:  # aiohttp's several ways to say that a body ended early
        raise Invalid(f"the request's body broke off: {exc}") from exc
    return size


async def send_file(call: Call, path: Path, content_type: str) -> StreamResponse:
    """A file as the answer's body."""
    stream = replies.Stream(call, content_type)
    with open(path, "rb", buffering=0) as file:
        while data := file.read(BLOCK):
            await stream.send(data)
    return await stream.end()
