"""Attached sessions: what `run`, `start -a`, `attach` and `exec` have in common around the loop of `streams`."""

from __future__ import annotations

from bothy.cli import signals, terminal
from bothy.cli.errors import ENGINE_FAILED, Failure, note
from bothy.cli.streams import Attachment
from bothy.errors import BothyError, NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bothy.api.client import Hijacked, Pending, Response
    from bothy.cli.context import Context

ATTEMPTS = 5  # to ask an engine that dies again and again
PATIENCE = 3  # the Ctrl-C that lets go of a program which ignores it


class LetGo(Exception):
    """A signal ended this side of the session; `number` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Behaviour:
    """What signals do: pass them on to the workload, follow the terminal's size, or end this side."""

    def __init__(self, context: Context, base: str, *, tty: bool, proxy: bool) -> None:
        self._context = context
        self._base = base
        self._proxy = proxy
        self._interrupts = 0
        follows = tty and terminal.size() != (0, 0)
        self.numbers = ((signals.WINCH,) if follows else ()) + (signals.PROXIED if proxy else signals.DEADLY)

    def resize(self) -> None:
        """Tell the engine our terminal's size. A program that has ended meanwhile is no failure."""
        height, width = terminal.size()
        if height and width:
            self._try(f"{self._base}/resize", {"h": height, "w": width})

    def on_signal(self, number: int) -> None:
        """Raises LetGo."""
        if number == signals.WINCH:
            self.resize()
        elif not self._proxy:
            raise LetGo(number)
        else:
            if number in (signals.INT, signals.TERM):
                self._interrupts += 1
                if self._interrupts >= PATIENCE:
                    note("let go of the program, which runs on (it ignored three signals)")
                    raise LetGo(number)
            self._try(f"{self._base}/kill", {"signal": number})

    def _try(self, path: str, query: dict[str, Any]) -> None:
        try:
            self._context.client.request("POST", path, query).read()
        except BothyError:
            pass  # it has ended, or has not begun


def attach_query(streams: set[str], keys: str) -> dict[str, Any]:
    """The parameters of `POST /containers/ID/attach`."""
    return {"stream": 1, "detachKeys": keys or None, **dict.fromkeys(streams, 1)}


class Manner:
    """How a session is: whether our stdin is sent, whether there is a terminal and which keys detach from it, whether signals are
    passed on, and whether the end of our input is the end of the program's."""

    __slots__ = ("closes", "keys", "proxy", "stdin", "tty")

    def __init__(self, *, stdin: bool, tty: bool, keys: bytes, proxy: bool, closes: bool = True) -> None:
        self.stdin = stdin
        self.tty = tty
        self.keys = keys
        self.proxy = proxy
        self.closes = closes


class Verdict:
    """The exit code of a workload, asked for before it may end. An engine that dies before it has told it is asked again.

    `condition` is the API's: next-exit, removed or not-running.
    """

    def __init__(self, context: Context, base: str, condition: str) -> None:
        self._context = context
        self._path = f"{base}/wait"
        self._condition = condition
        self._pending = self._ask()
        self._answer: Response | None = None
        self._told: dict[str, Any] | None = None

    def _ask(self) -> Pending:
        return self._context.client.begin("POST", self._path, {"condition": self._condition})

    def stand_by(self) -> None:
        """Return when the engine is watching. Raises BothyError."""
        self._answer = self._pending.response()
        if self._answer.buffered:
            self._told = self._answer.json()

    def fileno(self) -> int:
        """What to poll, -1 when the code is known."""
        return self._answer.fileno() if self._answer is not None and self._told is None else -1

    def arrived(self) -> None:
        """Read what has come. Raises Failure where the engine ended, came back, and does not know the workload any more."""
        for attempt in range(ATTEMPTS):
            try:
                if self._answer is None:
                    self._pending = self._ask()
                    self.stand_by()
                    return
                self._told = self._answer.json()
                return
            except NotFound:
                raise Failure("the exit code is not known: the engine ended before the program did", code=ENGINE_FAILED) from None
            except Unavailable:
                if attempt == ATTEMPTS - 1:
                    raise
                self._answer = None
                if self._condition == "next-exit":
                    self._condition = "not-running"  # it has been started: an exit in between counts

    def code(self) -> int:
        """The exit code. Raises Failure where something of ours ended the workload."""
        if self._told is None:
            self.arrived()
        return exit_code(self._told or {})


def run_attached(context: Context, workload: str, manner: Manner, *, streams: set[str], detach_keys: str, is_removed: bool) -> int:
    """Attach, start and wait for a workload that was made; the exit code. With `is_removed`, it is gone when this returns.
    `detach_keys` as they were given: the other end of the connection looks for the same.

    Raises BothyError where it can not be started.
    """
    client, base = context.client, f"/containers/{workload}"
    attaching = client.begin("POST", f"{base}/attach", attach_query(streams, detach_keys), upgrade=True)
    verdict = Verdict(context, base, "removed" if is_removed else "next-exit")
    taken = attaching.hijacked()
    verdict.stand_by()
    client.request("POST", f"{base}/start").read()
    return converse(context, base, taken, verdict, manner)


def converse(context: Context, base: str, taken: Hijacked, verdict: Verdict, manner: Manner) -> int:
    """Be attached until the workload ends or the detach keys are typed; the exit code (0 after the keys)."""
    behaviour = Behaviour(context, base, tty=manner.tty, proxy=manner.proxy)
    try:
        detached = exchange(taken, behaviour, manner, also=verdict, before=behaviour.resize if manner.tty else None)
    except LetGo as exc:
        return 128 + exc.number
    return 0 if detached else verdict.code()


def exchange(
    taken: Hijacked, behaviour: Behaviour, manner: Manner, *, also: Verdict | None = None, before: Callable[[], None] | None = None
) -> bool:
    """Run the loop, our terminal raw if there is one and stdin is sent, signals taken; True if the detach keys were typed."""
    is_raw = manner.tty and manner.stdin and terminal.is_terminal(0)
    with signals.Watch(behaviour.numbers) as watch, terminal.Raw(wanted=is_raw):
        if before is not None:
            before()
        attachment = Attachment(
            taken,
            stdin=manner.stdin,
            tty=manner.tty,
            keys=terminal.DetachKeys(manner.keys) if is_raw else None,
            signals=watch,
            on_signal=behaviour.on_signal,
            also=also,
            closes=manner.closes,
        )
        return attachment.run()


def exit_code(answer: dict[str, Any]) -> int:
    """The code of an answer to wait. Raises Failure where the engine could not tell."""
    error = answer.get("Error") or {}
    if error.get("Message"):
        raise Failure(str(error["Message"]), code=ENGINE_FAILED)
    return int(answer.get("StatusCode", ENGINE_FAILED))
