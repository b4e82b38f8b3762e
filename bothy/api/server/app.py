"""The API server: HTTP/1.1 on a unix socket, Docker Engine API with and without version prefix, and bothy's own below /bothy.

connection.py   bytes: hijacking, half-close, loss          call.py      a request, typed
router.py       method + path → handler                     replies.py   answers
routes/         one file a noun                             schema/      the engine's model → Docker's JSON (pure)
backend.py      what the routes need of the engine          errors.py    category → status
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import TYPE_CHECKING, cast

from bothy.api.server import replies
from bothy.api.server.call import Call, Context, Version
from bothy.api.server.connection import ApiConnection, ApiServer, make_request
from bothy.api.server.quick import Quick
from bothy.api.server.router import Router
from bothy.api.server.routes.table import ROUTES
from bothy.errors import BothyError
from bothy.log import logger

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest
    from aiohttp.web_response import StreamResponse

    from bothy.api.server.backend import Backend
    from bothy.paths import Paths

LOG = logger("api")
BACKLOG = 1024
GRACE = 2.0
_VERSIONED = re.compile(r"/v(\d+)\.(\d+)(/.*)")


class App:
    """Turns requests into answers; every way in which that can fail ends in an answer of Docker's form."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._router = Router(ROUTES)

    async def handle(self, request: BaseRequest) -> StreamResponse:
        """The one entry for every request."""
        try:
            return await self._dispatch(request)
        except BothyError as exc:
            LOG.debug("%s %s: %s", request.method, request.path, exc)
            return replies.failure(exc, spoken=bool(_VERSIONED.fullmatch(request.path)))
        except ConnectionError:
            return replies.TakenAway()
        except Exception as exc:
            LOG.exception("%s %s failed", request.method, request.path)
            return replies.message(500, f"{type(exc).__name__}: {exc}")
        finally:
            cast("ApiConnection", request.protocol).answered()

    async def _dispatch(self, request: BaseRequest) -> StreamResponse:
        path = request.raw_path.partition("?")[0]
        version: Version = replies.API_VERSION
        if match := _VERSIONED.fullmatch(path):
            version, path = (int(match[1]), int(match[2])), match[3]
            if refusal := refuse_version(version):
                return replies.message(400, refusal)
        handler, params, known = self._router.find(request.method, path)
        if handler is None:
            return replies.message(405, "method not allowed") if known else replies.message(404, "page not found")
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        return await handler(Call(request, params, version, self._context))


def refuse_version(version: Version) -> str:
    """Why a version is not spoken here, in Docker's words; empty if it is."""
    asked = replies.dotted(version)
    if version > replies.API_VERSION:
        return f"client version {asked} is too new. Maximum supported API version is {replies.dotted(replies.API_VERSION)}"
    if version < replies.MIN_API_VERSION:
        return (
            f"client version {asked} is too old. Minimum supported API version is {replies.dotted(replies.MIN_API_VERSION)}, "
            "please upgrade your client to a newer version"
        )
    return ""


class Runner:
    """A running server. `close` ends it: no new connections, endless answers cut, the others given a moment."""

    def __init__(self, server: ApiServer, listener: asyncio.Server) -> None:
        self._server = server
        self._listener = listener

    async def close(self, grace: float = GRACE) -> None:
        """Stop listening (the socket is closed here, not unlinked) and end all connections, after `grace` seconds by force."""
        self._listener.close()
        for connection in self._server.connections:
            cast(ApiConnection, connection).cancel_stream()
        self._server.pre_shutdown()
        await self._server.shutdown(grace)


async def start(engine: Backend, sock: socket.socket, paths: Paths | None = None) -> Runner:
    """Serve `engine` on a bound and listening unix socket, which the runner owns from here on."""
    context = Context(engine, paths or engine.paths)
    server = ApiServer(App(context).handle, Quick(context).answer, request_factory=make_request)
    sock.setblocking(False)
    listener = await asyncio.get_running_loop().create_unix_server(server, sock=sock, backlog=BACKLOG)
    return Runner(server, listener)
