"""What the agent in a guest was asked and has not answered yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bothy.errors import StageError
from bothy.keeper import workload as wall
from bothy.keeper.loop import Loop
from bothy.machines import wire


class Questions:
    """`send` takes encoded frames."""

    def __init__(self, loop: Loop, send: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._send = send
        self._seq = 0
        self._replies: dict[int, wall.Done] = {}

    def ask(self, message: dict[str, Any], reply: wall.Done, *, limit: float = 0) -> None:
        """Have `reply` called with the answer, or with why there is none: also after `limit` seconds, if there is one."""
        self._seq += 1
        seq = self._seq
        self._replies[seq] = reply
        if limit:
            late = StageError(str(message["op"]), f"no answer from the guest in {limit:.0f} s")
            timer = self._loop.later(limit, lambda: self._replies.pop(seq)(late))

            def timely(answer: dict[str, Any] | BaseException) -> None:
                timer.cancel()
                reply(answer)

            self._replies[seq] = timely
        self._send(wire.encode_order({**message, "seq": seq}))

    def answered(self, message: dict[str, Any]) -> None:
        """A message that is no event. One that answers nothing is passed over."""
        seq = message.get("seq")
        reply = self._replies.pop(seq, None) if isinstance(seq, int) else None
        if reply is not None:
            answer = message.get("ok")
            reply(answer if isinstance(answer, dict) else _failure(message.get("error")))

    def give_up(self, failure: StageError) -> None:
        """There will be no answer any more."""
        for seq in tuple(self._replies):
            self._replies.pop(seq)(failure)


def _failure(error: object) -> StageError:
    """The guest's error, with its shape checked."""
    said = error if isinstance(error, dict) else {}
    number = said.get("errno")
    stage, message, path = (str(said.get(key, ""))[:1000] for key in ("stage", "message", "path"))
    return StageError(stage or "guest", message or "unknown failure", errno=number if isinstance(number, int) else 0, path=path)
