"""/containers: attach, logs, wait and stats, whose answers last."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bothy.api import frames
from bothy.api.server import errors, hijack, replies, streams
from bothy.api.server.call import Call
from bothy.api.server.schema import stats as stats_shape
from bothy.engine.model import Status
from bothy.errors import BothyError, Conflict, Invalid, NotFound

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

CONDITIONS = ("not-running", "next-exit", "removed")
SAMPLE_SECONDS = 1.0


async def attach(call: Call) -> StreamResponse:
    """From the answer's head on the connection is the keeper's (before the start: the engine's, which holds it)."""
    await call.body()
    keys = hijack.detach_keys(call.text("detachKeys"))
    workload = call.engine.containers.get(call.params["id"])
    if workload.status in (Status.PAUSED, Status.RESTARTING):
        raise Conflict(f"container {workload.name} is {workload.status}", hint="unpause the container before attach")
    tty = workload.config.tty
    connection = hijack.take(call, tty=tty)
    client = hijack.client(
        connection,
        tty=tty,
        stdin=call.flag("stdin"),
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        keys=keys,
    )
    with hijack.Spare(connection, tty=tty) as spare:
        try:
            await call.engine.containers.attach(workload.id, connection, client, logs=call.flag("logs"), stream=call.flag("stream"))
        except BothyError as exc:
            spare.tell(exc)
    return replies.TakenAway()


async def logs(call: Call) -> StreamResponse:
    """The log from the disk, then (with `follow`) what is added to it until the end of the workload."""
    stdout, stderr = call.flag("stdout"), call.flag("stderr")
    if not (stdout or stderr):
        raise Invalid("bad parameters: you must choose at least one stream", hint="ask with stdout=1, stderr=1 or both")
    tail = _tail(call.text("tail"))
    workload = call.engine.containers.get(call.params["id"])
    tty, stamps = workload.config.tty, call.flag("timestamps")
    found = call.engine.containers.logs(
        workload.id,
        stdout=stdout,
        stderr=stderr,
        since=call.text("since"),
        until=call.text("until"),
        tail=tail,
        follow=call.flag("follow"),
    )
    async with streams.ahead(found) as entries:
        stream = replies.Stream(call, hijack.stream_type(call, tty=tty))
        await stream.begin()
        burst = streams.Burst(stream)
        try:
            async for entry in entries:
                data = f"{entry.time} ".encode() + entry.data if stamps else entry.data
                which = frames.STDERR if entry.stream == "stderr" else frames.STDOUT
                await burst.send(data if tty else frames.encode(which, data))
            await burst.flush()
        finally:
            await burst.close()
        return await stream.end()


def _tail(text: str) -> int:
    """A number of entries, -1 for all of them; what is not a number counts as all, as in Docker."""
    try:
        return max(-1, int(text))
    except ValueError:
        return -1


async def wait(call: Call) -> StreamResponse:
    """The head at once (a client starts the workload when it has seen it), the body when the condition is met."""
    condition = call.text("condition") or "not-running"
    if condition not in CONDITIONS:
        raise Invalid(f"invalid condition: {condition!r}", hint=f"one of {', '.join(CONDITIONS)}")
    exited = call.engine.containers.watch(call.params["id"], condition)
    stream = replies.Stream(call)
    try:
        await stream.begin()
        ended = await exited
        answer: dict[str, object] = {"StatusCode": ended.code}
        if ended.error and ended.started:  # a start that failed was told to who asked for it
            answer["Error"] = {"Message": ended.error}
        await stream.line(answer)
    except BothyError as exc:
        await stream.line({"StatusCode": -1, "Error": {"Message": errors.text_of(exc)}})
    finally:
        exited.cancel()
    return await stream.end()


async def stats(call: Call) -> StreamResponse:
    """Samples, one a second; a single one without `stream` (after a second, so that it has a difference, but for `one-shot`)."""
    workload = call.engine.containers.get(call.params["id"])
    following = call.flag("stream", default=True)
    stream = replies.Stream(call)
    stream.watch_loss()
    previous = None
    if not following and not call.flag("one-shot") and workload.status.can_signal:
        previous = await stats_shape.sample(call.engine.containers, workload)
        await asyncio.sleep(SAMPLE_SECONDS)
    while True:
        try:
            workload = call.engine.containers.get(workload.id)
            current = await stats_shape.sample(call.engine.containers, workload)
        except NotFound:
            break
        await stream.line(stats_shape.stats(workload, current, previous))
        if not following:
            break
        previous = current
        await asyncio.sleep(SAMPLE_SECONDS)
    return await stream.end()
