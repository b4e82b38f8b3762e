"""The answers: JSON, nothing, text, a stream for as long as there is more, and a connection that was taken.

Every answer has Docker's headers. Endless ones end when the client goes away, or the engine does.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp.web_response import Response, StreamResponse

from bothy import __version__
from bothy.api.server import errors
from bothy.errors import BothyError
from bothy.log import logger

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from bothy.api.server.call import Call

_log = logger("api")
API_VERSION = (1, 51)
MIN_API_VERSION = (1, 24)


def dotted(version: tuple[int, int]) -> str:
    """An API version as it is written: `1.51`."""
    return f"{version[0]}.{version[1]}"


HEADERS = {
    "Api-Version": dotted(API_VERSION),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"bothy/{__version__} (linux)",
}
_JSON = {**HEADERS, "Content-Type": "application/json"}
_TEXT = {**HEADERS, "Content-Type": "text/plain; charset=utf-8"}


def to_json(data: Any) -> bytes:
    """One line, with its end."""
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def reply(data: Any, status: int = 200) -> Response:
    """Data as JSON."""
    return Response(body=to_json(data), status=status, headers=_JSON)


def made(body: bytes) -> Response:
    """JSON that is text already."""
    return Response(body=body, headers=_JSON)


def nothing(status: int = 204) -> Response:
    """An answer that is only a status."""
    return Response(status=status, headers=HEADERS)


def text(body: str, extra: dict[str, str] | None = None) -> Response:
    """A line of text."""
    return Response(body=body.encode(), headers={**_TEXT, **(extra or {})})


def failure(exc: BothyError, *, spoken: bool = False) -> Response:
    """An error as an answer; `spoken`: with the hint in the message, for clients that show nothing else."""
    status = errors.status_of(exc)
    if status == 304:
        return nothing(304)
    body = errors.body_of(exc)
    return reply({**body, "message": errors.text_of(exc)} if spoken else body, status)


def message(status: int, words: str) -> Response:
    """An error that is the door's own."""
    return reply({"message": words}, status)


class Stream:
    """A chunked answer that is made as it goes. Its head goes out with the first bytes, or with `begin`.

    When the client goes away the task that makes it is cancelled.
    """

    def __init__(self, call: Call, content_type: str = "application/json") -> None:
        self._call = call
        self.begun = False
        self.response = StreamResponse(headers={**HEADERS, "Content-Type": content_type})

    def watch_loss(self) -> None:
        """From now on the client's going away ends the current task."""
        self._call.connection.cancel_on_loss()

    async def begin(self) -> None:
        """Send the head."""
        if not self.begun:
            self.begun = True
            self.watch_loss()
            await self.response.prepare(self._call.request)

    async def send(self, data: bytes) -> None:
        """Bytes to the client, as fast as it takes them."""
        await self.begin()
        await self.response.write(data)

    async def line(self, data: Any) -> None:
        """A line of JSON to the client."""
        await self.send(to_json(data))

    @asynccontextmanager
    async def whole_or_broken(self) -> AsyncIterator[None]:
        """A failure in the block, once the head is out, ends the connection: nobody takes what was sent for the whole."""
        try:
            yield
        except BothyError as exc:
            transport = self._call.request.transport
            if not self.begun or transport is None:
                raise
            _log.warning("%s broke off: %s", self._call.request.path, exc)
            transport.abort()
            raise ConnectionResetError(str(exc)) from exc

    async def end(self) -> StreamResponse:
        """Nothing more comes."""
        await self.begin()
        await self.response.write_eof()
        return self.response


class TakenAway(StreamResponse):
    """Stands for an answer where there is none to give: the connection belongs to somebody else by now."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: BaseRequest) -> None:
        return

    async def write_eof(self, data: bytes = b"") -> None:
        return
