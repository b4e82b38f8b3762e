"""The API's client for the command line: HTTP/1.1 on a unix socket, blocking, standard library only, quick to import.

    client = Client.from_environ()                                   starts the engine if none listens
    client.request("GET", "/containers/json", {"all": 1}).json()
    for entry in client.request("GET", "/events").lines(): ...
    taken = client.hijack("POST", f"/containers/{id}/attach", {"stream": 1, "stdin": 1, "stdout": 1})
    taken.sock, taken.leftover, taken.framed                         it is the caller's from here on

Paths have no version prefix: both ends are of one release. Errors of the engine are raised as `bothy.errors` has them, with
message, hint, stage and errno; no answer at all is `Unavailable`. A client keeps connections that are idle; it is not for threads.
"""

from __future__ import annotations

import _socket as socket  # the half in C: what the socket module adds to it takes 6 ms to import, and so does json
import os

from bothy import errors
from bothy import quickjson as json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from bothy.api import bootstrap

    Body = bytes | Mapping[str, Any] | Iterable[bytes] | None
    Query = Mapping[str, Any] | None

CHUNK = 64 * 1024
PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
MAX_HEAD = 64 * 1024
DEFAULT_RUN = "/run/bothy"
KINDS = {
    400: errors.Invalid,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    501: errors.Unsupported,
    503: errors.Unavailable,
}


class Lost(errors.Unavailable):
    """The connection ended where an answer should have been. `early`: before its first byte."""

    def __init__(self, message: str, *, early: bool, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.early = early


class Hijacked:
    """A connection that is no longer HTTP. `leftover` came behind the head; `framed`: the engine sends 8-byte frames."""

    __slots__ = ("framed", "leftover", "sock")

    def __init__(self, sock: socket.socket, leftover: bytes, *, framed: bool) -> None:
        self.sock = sock
        self.leftover = leftover
        self.framed = framed


class _Wire:
    """A connection and what was read from it ahead of need."""

    __slots__ = ("buffer", "sock", "watch")

    def __init__(self, sock: socket.socket, watch: bootstrap.Watch | None) -> None:
        self.sock = sock
        self.buffer = b""
        self.watch = watch

    def fill(self) -> bool:
        """More bytes into the buffer; False at the end of the connection."""
        if self.watch is not None:
            self.watch.wait(self.sock)
            self.watch = None
        data = self.sock.recv(CHUNK)
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes, limit: int = MAX_HEAD) -> bytes:
        """Bytes up to and without `mark`. Raises Lost at the end of the connection."""
        while (at := self.buffer.find(mark)) < 0:
            early = not self.buffer
            if len(self.buffer) > limit or not self.fill():
                raise Lost("the engine closed the connection without an answer", early=early)
        part, self.buffer = self.buffer[:at], self.buffer[at + len(mark) :]
        return part

    def some(self, limit: int) -> bytes:
        """At least one and at most `limit` bytes. Raises Lost at the end of the connection."""
        if not self.buffer and not self.fill():
            raise Lost("the engine closed the connection in the middle of an answer", early=False)
        part, self.buffer = self.buffer[:limit], self.buffer[limit:]
        return part


class Pending:
    """A request that was sent and whose answer was not read yet. Several may be under way, each on a connection of its own."""

    def __init__(self, client: Client, wire: _Wire) -> None:
        self._client = client
        self._wire = wire

    def response(self) -> Response:
        """The answer. Raises as `Client.request` does."""
        return self._client.answer(self._wire, *self._head())

    def hijacked(self) -> Hijacked:
        """The connection as a stream. Raises as `Client.request` does."""
        return self._client.taken(self._wire, *self._head())

    def _head(self) -> tuple[int, dict[str, str]]:
        try:
            return read_head(self._wire)
        except (BrokenPipeError, ConnectionResetError) as exc:
            self._wire.sock.close()
            raise Lost("the engine closed the connection without an answer", early=True) from exc


class Response:
    """An answer whose head was read. Its body is read once, by one of the methods; then the connection is kept."""

    def __init__(self, client: Client, wire: _Wire, status: int, headers: dict[str, str], *, bare: bool) -> None:
        self.status = status
        self.headers = headers
        self._client = client
        self._wire = wire
        self._bare = bare or status in (204, 304) or headers.get("content-length") == "0"
        if self._bare:
            self._done()

    def _done(self) -> None:
        if self.headers.get("connection", "").lower() == "close":
            self._wire.sock.close()
        else:
            self._client.keep(self._wire)

    def fileno(self) -> int:
        """What to poll for more of the body, unless some is `buffered`."""
        return self._wire.sock.fileno()

    @property
    def buffered(self) -> bool:
        """Whether part of the body came with the head: nothing may be left to poll for."""
        return bool(self._wire.buffer)

    def close(self) -> None:
        """Let go of an answer that is not read to its end. One without a body is at its end: its connection is kept."""
        if not self._bare:
            self._wire.sock.close()

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces, as they come. Left before its end, the connection is closed."""
        if self._bare:
            return
        try:
            yield from self._body()
        except BaseException:
            self.close()
            raise
        if self.headers.get("transfer-encoding") or "content-length" in self.headers:
            self._done()
        else:
            self.close()

    def _body(self) -> Iterator[bytes]:
        wire = self._wire
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(wire.until(b"\r\n").split(b";")[0], 16):
                while size:
                    part = wire.some(size)
                    size -= len(part)
                    yield part
                wire.until(b"\r\n")
            wire.until(b"\r\n")
        elif "content-length" in self.headers:
            left = int(self.headers["content-length"])
            while left:
                part = wire.some(left)
                left -= len(part)
                yield part
        else:
            while wire.buffer or wire.fill():
                part, wire.buffer = wire.buffer, b""
                yield part

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks())

    def json(self) -> Any:
        """The whole body as JSON, None if there is none."""
        body = self.read()
        return json.loads(body) if body.strip() else None

    def lines(self) -> Iterator[Any]:
        """The JSON objects of a body of lines, as they come."""
        rest = b""
        for part in self.chunks():
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                if line.strip():
                    yield json.loads(line)
        if rest.strip():
            yield json.loads(rest)


class Client:
    """Speaks to the engine that listens at `socket_path`. With `run` (its run folder) one is started if none does."""

    def __init__(self, socket_path: str, *, run: str = "") -> None:
        self.socket_path = socket_path
        self._run = run
        self._idle: list[_Wire] = []

    @classmethod
    def from_environ(cls) -> Client:
        """The engine of BOTHY_RUN."""
        run = os.path.abspath(os.environ.get("BOTHY_RUN") or DEFAULT_RUN)
        return cls(f"{run}/bothy.sock", run=run)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._idle:
            self._idle.pop().sock.close()

    def keep(self, wire: _Wire) -> None:
        """A connection whose answer was read whole, for the next request."""
        self._idle.append(wire)

    def request(
        self, method: str, path: str, query: Query = None, body: Body = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send a request and read the head of its answer. `body`: a mapping is sent as JSON, bytes as they are, an iterable of
        bytes (an open file) in chunks. Raises the `bothy.errors` of the answer, Unavailable where there is none."""
        target = path + query_text(query)
        wire, status, got = self._exchange(method, target, body, headers or {})
        return self.answer(wire, status, got, bare=method == "HEAD")

    def hijack(self, method: str, path: str, query: Query = None, body: Body = None) -> Hijacked:
        """Send a request after which the connection is a stream. Raises as `request` does."""
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        wire, status, got = self._exchange(method, path + query_text(query), body, upgrade)
        return self.taken(wire, status, got)

    def begin(self, method: str, path: str, query: Query = None, body: Body = None, *, upgrade: bool = False) -> Pending:
        """Send a request and do not wait for its answer. Not tried again where the engine has gone away."""
        wire = self._kept() or self._connect()
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"} if upgrade else {}
        try:
            send(wire.sock, method, path + query_text(query), body, headers)
        except (BrokenPipeError, ConnectionResetError) as exc:
            wire.sock.close()
            raise Lost("the engine closed the connection without an answer", early=True) from exc
        return Pending(self, wire)

    def answer(self, wire: _Wire, status: int, headers: dict[str, str], *, bare: bool = False) -> Response:
        """The response of a head that was read; raises what it tells."""
        response = Response(self, wire, status, headers, bare=bare)
        if status >= 400:
            raise failure(status, response.read())
        return response

    def taken(self, wire: _Wire, status: int, headers: dict[str, str]) -> Hijacked:
        """The stream of a head that was read; raises what it tells."""
        if status >= 400:
            raise failure(status, Response(self, wire, status, headers, bare=False).read())
        framed = headers.get("content-type", "").endswith("multiplexed-stream")
        return Hijacked(wire.sock, wire.buffer, framed=framed)

    def _exchange(self, method: str, target: str, body: Body, headers: Mapping[str, str]) -> tuple[_Wire, int, dict[str, str]]:
        """Send, and read a head. Tried once more where the engine went away (it comes back by itself) and either had not read the
        request, which the kernel tells by a reset, or was only asked; what changes something may have been done."""
        repeatable = body is None or isinstance(body, (bytes, dict))
        again = True
        while True:
            wire = self._kept() or self._connect()
            try:
                send(wire.sock, method, target, body, headers)
                return wire, *read_head(wire)
            except (BrokenPipeError, ConnectionResetError, Lost) as exc:
                wire.sock.close()
                if wire.watch is not None:
                    wire.watch.explain()
                unread = not isinstance(exc, Lost)
                early = not isinstance(exc, Lost) or exc.early
                if again and repeatable and (unread or (early and method in ("GET", "HEAD"))):
                    again = False
                    continue
                hint = f"{self._run}/daemon.log may tell why" if self._run else ""
                raise Lost("the engine closed the connection without an answer", early=early, hint=hint) from exc
            except BaseException:
                wire.sock.close()
                raise

    def _kept(self) -> _Wire | None:
        """A connection from before that is still one."""
        while self._idle:
            wire = self._idle.pop()
            try:
                wire.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return wire
            except OSError:
                pass
            wire.sock.close()
        return None

    def _connect(self) -> _Wire:
        """A new connection, to a new engine if there has to be one. Raises Unavailable, Forbidden."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        watch = None
        try:
            sock.connect(self.socket_path)
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            sock.close()
            if not self._run:
                raise errors.Unavailable(
                    f"no engine listens at {self.socket_path}", hint="is it running? is this the right socket?"
                ) from exc
            from bothy.api import bootstrap

            sock, watch = bootstrap.connect_or_start(self.socket_path, self._run)
        except PermissionError as exc:
            sock.close()
            raise errors.Forbidden(
                f"permission denied at {self.socket_path}", hint="the engine belongs to root: try sudo", errno=exc.errno or 0
            ) from exc
        except OSError as exc:
            sock.close()
            raise errors.Unavailable(f"{self.socket_path}: {exc.strerror or exc}", errno=exc.errno or 0) from exc
        return _Wire(sock, watch)


def query_text(query: Query) -> str:
    """`?a=1&b=x`. True is 1; None, False and empty lists are left out; a list is repeated, a mapping (filters) sent as JSON."""
    pairs: list[tuple[str, str]] = []
    for key, value in (query or {}).items():
        if value is None or value is False:
            continue
        if isinstance(value, dict):
            value = json.dumps(value)
        values = value if isinstance(value, (list, tuple)) else [value]
        pairs += [(key, "1" if v is True else str(v)) for v in values]
    return "?" + "&".join(f"{k}={quoted(v)}" for k, v in pairs) if pairs else ""


def quoted(text: str, safe: str = "") -> str:
    """Percent-encoding (RFC 3986, 2.1) of all but the unreserved characters and `safe`. urllib.parse has it too, for 2 ms."""
    keep = PLAIN.union(safe.encode())
    return "".join(chr(c) if c in keep else f"%{c:02X}" for c in text.encode("utf-8", "surrogateescape"))


def send(sock: socket.socket, method: str, target: str, body: Body, headers: Mapping[str, str]) -> None:
    """Write a request. An error that the engine answers with before it has read all of a long body is left to the reader."""
    head = [f"{method} {target} HTTP/1.1", "Host: bothy", *(f"{k}: {v}" for k, v in headers.items())]
    data = b""
    if body is None:
        if method in ("POST", "PUT"):
            head.append("Content-Length: 0")
    elif isinstance(body, bytes):
        data = body
        head.append(f"Content-Length: {len(data)}")
    elif isinstance(body, dict):
        data = json.dumps(body).encode()
        head += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    else:
        head += ["Content-Type: application/x-tar", "Transfer-Encoding: chunked"]
    sock.sendall("\r\n".join([*head, "", ""]).encode() + data)
    if body is None or isinstance(body, (bytes, dict)):
        return
    try:
        for part in pieces(body):
            sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        sock.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        return


def pieces(body: Any) -> Iterator[bytes]:
    """A file in large pieces, any other iterable as it comes; without empty ones, which would end a chunked body."""
    if hasattr(body, "read"):
        while part := body.read(CHUNK * 4):
            yield part
    else:
        yield from filter(None, body)


def read_head(wire: _Wire) -> tuple[int, dict[str, str]]:
    """Status and headers (names in lower case) of the next answer that is one (not 100 Continue). Raises Lost."""
    while True:
        first, *rest = wire.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not first.startswith("HTTP/1.") or not words[1].isdecimal():
            raise errors.Unavailable(f"what listens there does not speak HTTP: {first[:60]!r}")
        if words[1] == "100":
            continue
        pairs = (line.partition(":") for line in rest)
        return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def failure(status: int, body: bytes) -> errors.BothyError:
    """The exception of an answer that tells an error."""
    try:
        told = json.loads(body)
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    message = str(told.get("message") or body.decode("utf-8", "replace").strip() or f"the engine answered with status {status}")
    return KINDS.get(status, errors.Broken)(
        message, hint=str(told.get("hint") or ""), stage=str(told.get("stage") or ""), errno=int(told.get("errno") or 0)
    )
