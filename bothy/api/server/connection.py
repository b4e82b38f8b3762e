"""One client's connection: aiohttp's HTTP/1.1 protocol, plus what Docker's API needs and HTTP does not have.

*Hijacking.* After the head of `POST /containers/{id}/attach` or `POST /exec/{id}/start` (and its body) the connection is no
longer HTTP: what follows is the program's stdin, and a client may send it at once, before it is answered. HTTP parsers take it
for the next request. So a gate stands before the parser: it lets such a request through to its last byte and holds back what
follows, until the request has been answered (an error: then it is the next request after all) or the connection is taken.

        head of a request ──▶ AWAITING ──▶ not hijackable ──▶ OPEN      all goes to the parser
                                  │                             ▲
                                  └──▶ hijackable ──▶ BODY ──▶ HELD     all is kept back
                                  ▲                             │ answered
                                  └─────────────────────────────┘

*Half-close.* A client may shut down its sending side (an end of stdin) and still wait for its answer. asyncio would close the
connection; here it stays open while an answer is due, and a hang-up is told from a half-close by poll(2).

*Loss.* Endless answers (logs, events, stats, wait) end when their client goes away: see `cancel_on_loss`.
"""

from __future__ import annotations

import asyncio
import enum
import os
import re
import select
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import StreamResponse, json_response
from aiohttp.web_server import Server

from bothy.engine.model import Connection as Taken

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader

Handler = Callable[[BaseRequest], Awaitable[StreamResponse]]
Quick = Callable[[bytes], bytes | None]

MAX_HEAD = 64 * 1024
MAX_HELD = 64 * 1024
MAX_JSON = 4 * 1024 * 1024

_HIJACKABLE = re.compile(rb"POST (?:/v[0-9.]+)?/(?:containers/[^/ ?]+/attach|exec/[^/ ?]+/start)[? ]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


class Gate(enum.Enum):
    """Where a connection stands between its client and the parser; the drawing is above."""

    AWAITING = "awaiting"
    OPEN = "open"
    BODY = "body"
    HELD = "held"


def request_length(head: bytes) -> int | None:
    """How many bytes a hijackable request has, head and body; 0 for any other; None where more is needed to tell."""
    if not head.startswith(b"POST "[: len(head)]):
        return 0
    end = head.find(b"\r\n\r\n")
    if end < 0:
        return None if len(head) < MAX_HEAD else 0
    if not _HIJACKABLE.match(head) or _CHUNKED.search(head, 0, end + 2):
        return 0
    length = _LENGTH.search(head, 0, end + 2)
    return end + 4 + (int(length[1]) if length else 0)


class ApiConnection(RequestHandler):
    """One client. Until `answered` a request that may be hijacked is the last that the parser sees."""

    __slots__ = ("_answered", "_gate", "_hangup", "_held", "_last_body", "_left", "_quick", "_streaming", "half_closed")

    def __init__(self, manager: ApiServer, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._quick = manager.quick
        self._gate = Gate.AWAITING
        self._held = b""
        self._left = 0
        self._answered = 0
        self._last_body: StreamReader | None = None
        self._streaming: asyncio.Task[Any] | None = None
        self._hangup: select.epoll | None = None
        self.half_closed = False

    # Bytes on their way in

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes from the client, let through or held back as the gate stands."""
        if self._gate is Gate.OPEN:
            self._parse(data)
            return
        if self._gate is Gate.AWAITING:
            if not self._held and self._answer_quickly(data):
                return
            data = self._held + data
            length = request_length(data)
            if length is None:
                self._held = data
                return
            self._held = b""
            self._left = length
            self._gate = Gate.BODY if length else Gate.OPEN
            if not length:
                self._parse(data)
                return
        if self._gate is Gate.BODY:
            part, data = data[: self._left], data[self._left :]
            self._left -= len(part)
            if not self._left:
                self._gate = Gate.HELD
            self._parse(part)
        if data:
            self._held += data
            if len(self._held) >= MAX_HELD and self.transport is not None:
                self.transport.pause_reading()

    def _answer_quickly(self, data: bytes) -> bool:
        """Whether the request has been answered; only where nobody else waits and the client takes its answers."""
        transport = self.transport
        if not self._is_idle or transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return False
        answer = self._quick(data)
        if answer is None:
            return False
        transport.write(answer)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        return True

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._last_body = self._messages[-1][1]

    def answered(self) -> None:
        """Called once a request when its answer is made: what comes next is a request again."""
        self._answered += 1
        if self._gate is Gate.HELD:
            held, self._held, self._gate = self._held, b"", Gate.AWAITING
            if held:
                self._loop.call_soon(self._release, held)
        elif self._gate is Gate.BODY:
            self._gate = Gate.OPEN
        elif self._gate is Gate.OPEN and self._is_idle:
            self._gate = Gate.AWAITING
        if self.half_closed and self._request_count <= self._answered:
            self.close()

    @property
    def _is_idle(self) -> bool:
        complete = self._last_body is None or self._last_body.is_eof()
        return complete and self._request_count <= self._answered

    def _release(self, held: bytes) -> None:
        if self.transport is not None:
            self.data_received(held)
            if self.transport is not None:
                self.transport.resume_reading()

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> StreamResponse:
        """aiohttp: what the client sent is no HTTP. It is told so in Docker's form; the log is not a stranger's to fill."""
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        why = (message or "").partition("\n")[0].rstrip(" :")
        response = json_response({"message": f"malformed request: {why}" if why else "malformed request"}, status=status)
        response.force_close()
        return response

    # Taking the connection

    def take(self, head: bytes) -> Taken:
        """Answer with `head` and take the connection away from HTTP: its fd, and what came behind the request.

        The caller (later the engine) owns the fd. Nothing is awaited between the last read and the dup, so no byte is lost or
        read twice. Raises ConnectionResetError where the client is gone already.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client went away")
        transport.pause_reading()
        unsent = transport.get_write_buffer_size()
        sock = transport.get_extra_info("socket")
        fd = os.dup(sock.fileno())
        try:
            if unsent or os.write(fd, head) != len(head):
                raise ConnectionResetError("the client does not read its answers")
        except OSError as exc:
            os.close(fd)
            raise ConnectionResetError(str(exc)) from exc
        initial, self._held = self._held, b""
        self.force_close()
        return Taken(fd, initial)

    # Ends

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client has shut down its sending side, or has gone. True keeps the connection for an answer that is due."""
        incomplete = self._last_body is not None and not self._last_body.is_eof()
        due = self._request_count > self._answered or self._gate is Gate.HELD
        if self.transport is None or incomplete or not due:
            return None
        sock: socket.socket = self.transport.get_extra_info("socket")
        poll = select.poll()
        poll.register(sock.fileno(), 0)
        if poll.poll(0):
            return None
        self.half_closed = True
        # asyncio stops to watch a connection at its end of input. An epoll with no events in its mask still reports a
        # hang-up, and can itself be watched for reading.
        self._hangup = select.epoll(1)
        self._hangup.register(sock.fileno(), 0)
        self._loop.add_reader(self._hangup.fileno(), self._hung_up)
        return True

    def _hung_up(self) -> None:
        self._unwatch()
        if self.transport is not None:
            self.transport.abort()

    def _unwatch(self) -> None:
        if self._hangup is not None:
            self._loop.remove_reader(self._hangup.fileno())
            self._hangup.close()
            self._hangup = None

    def cancel_on_loss(self) -> None:
        """The current task, which makes an endless answer, is cancelled when the client goes away."""
        if self.transport is None:
            raise ConnectionResetError("the client went away")
        self._streaming = asyncio.current_task()

    def cancel_stream(self) -> None:
        """End an endless answer, if this connection is at one."""
        if self._streaming is not None:
            self._streaming.cancel()

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio: the client has gone; an endless answer to it ends."""
        self._unwatch()
        super().connection_lost(exc)
        self.cancel_stream()


class ApiServer(Server):
    """Makes a connection of ours for each client. `quick` may have the answer to a whole request; see `quick.py`."""

    def __init__(self, handler: Handler, quick: Quick, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self.quick = quick

    def __call__(self) -> ApiConnection:
        return ApiConnection(
            self, loop=self._loop, access_log=None, tcp_keepalive=False, max_line_size=MAX_HEAD, max_field_size=MAX_HEAD
        )


def make_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> BaseRequest:
    """The request as the handlers see it; bodies that are read whole are bounded by MAX_JSON."""
    return BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=MAX_JSON)
