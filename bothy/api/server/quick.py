"""The two questions that clients ask most, answered where their bytes come in: a container inspected, the running ones listed.

A whole request in one read, a GET of one of two shapes, nothing to be negotiated: the answer is found and written at once,
without a parser, a task or a response object (a tenth of the time). Whatever looks otherwise, and whatever fails, takes the
ordinary way, which gives the same answers; nothing is decided here.
"""

from __future__ import annotations

import re
import time

from bothy.api.server import replies
from bothy.api.server.call import Context
from bothy.errors import BothyError

_REQUEST = re.compile(
    rb"GET (?:/v1\.([0-9]{1,3}))?/containers/(?:json|([A-Za-z0-9][A-Za-z0-9_.-]*)/json) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[ \t]?[\x20-\x7e]*\r\n){1,32})\r\n"
)
# A body, a protocol, a connection of another kind: not for us.
_OTHERWISE = re.compile(rb"^(?:content-length|transfer-encoding|upgrade|expect|connection:(?![ \t]*keep-alive\r))", re.I | re.M)
_HOST = re.compile(rb"^host:", re.I | re.M)
_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    + b"".join(f"{name}: {value}\r\n".encode() for name, value in {**replies.HEADERS, "Content-Type": "application/json"}.items())
    + b"Content-Length: "
)
_LONGEST = 4096


class Quick:
    """Answers, or None for what takes the ordinary way."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def answer(self, data: bytes) -> bytes | None:
        """The whole answer to the request in `data`."""
        if not data.startswith(b"GET ") or len(data) > _LONGEST:
            return None
        match = _REQUEST.fullmatch(data)
        if match is None or _OTHERWISE.search(match[3]) or not _HOST.search(match[3]):
            return None
        if match[1] is not None and not replies.MIN_API_VERSION <= (1, int(match[1])) <= replies.API_VERSION:
            return None
        context = self._context
        try:
            if match[2] is None:
                found = context.engine.containers.list(all_=False, limit=0, filters={})
                body = context.shown.listing(found, time.time())
            else:
                workload = context.engine.containers.get(match[2].decode())
                execs = context.engine.execs.running(workload.id)
                body = context.shown.inspect(workload, context.paths.container(workload.id), execs)
        except BothyError:
            return None
        return b"%b%d\r\n\r\n%b" % (_HEAD, len(body), body)
