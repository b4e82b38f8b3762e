"""/containers/{id}/exec and /exec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bothy.api.server import hijack, replies
from bothy.api.server.call import Call
from bothy.api.server.routes.containers import size_of
from bothy.api.server.schema import containers as shape
from bothy.engine.model import ExecRequest, Status
from bothy.errors import BothyError, Conflict, Invalid

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse


@dataclass(frozen=True)
class ExecStart:
    """The body of `POST /exec/{id}/start`. The terminal was decided when the exec was created; `tty` is only repeated."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


async def create(call: Call) -> StreamResponse:
    """Remember what is to be run; `start` runs it, once."""
    request = await call.typed(ExecRequest)
    if not request.cmd:
        raise Invalid("no exec command specified", hint="Cmd is the program and its arguments")
    _check_size(request.console_size)
    hijack.detach_keys(request.detach_keys)
    session = await call.engine.execs.create(call.params["id"], request)
    return replies.reply({"Id": session.id}, 201)


def _check_size(size: list[int] | None) -> None:
    if size is not None and (len(size) != 2 or not all(0 <= n <= 65535 for n in size)):
        raise Invalid(f"invalid ConsoleSize {size}: expected [height, width], each 0 to 65535")


async def start(call: Call) -> StreamResponse:
    """Detached: an answer when the program runs. Attached: from the answer's head on the connection is the keeper's."""
    asked = await call.typed(ExecStart)
    _check_size(asked.console_size)
    session = call.engine.execs.get(call.params["id"])
    request = session.request
    if session.running:
        raise Conflict(f"exec {session.id} is already running")
    if session.exit_code is not None:
        raise Conflict(f"exec {session.id} has already run", hint="an exec runs once: create another")
    workload = call.engine.containers.get(session.workload)
    if workload.status is not Status.RUNNING:
        state = "paused" if workload.status is Status.PAUSED else "not running"
        raise Conflict(
            f"container {workload.name} is {state}", hint="unpause the container before exec" if state == "paused" else ""
        )
    size = asked.console_size or request.console_size
    if asked.detach:
        await call.engine.execs.start(session.id, None, None, tty=request.tty, console_size=size)
        return replies.nothing(200)
    connection = hijack.take(call, tty=request.tty)
    client = hijack.client(
        connection,
        tty=request.tty,
        stdin=request.attach_stdin,
        stdout=request.attach_stdout,
        stderr=request.attach_stderr,
        keys=hijack.detach_keys(request.detach_keys),
    )
    with hijack.Spare(connection, tty=request.tty) as spare:
        try:
            await call.engine.execs.start(session.id, connection, client, tty=request.tty, console_size=size)
        except BothyError as exc:
            spare.tell(exc)
    return replies.TakenAway()


async def resize(call: Call) -> StreamResponse:
    """Tell its terminal `h` rows and `w` columns."""
    height, width = size_of(call)
    await call.engine.execs.resize(call.params["id"], height, width)
    return replies.nothing(200)


async def inspect(call: Call) -> StreamResponse:
    """`GET /exec/{id}/json`: clients read the exit code there."""
    return replies.reply(shape.exec_inspect(call.engine.execs.get(call.params["id"])))
