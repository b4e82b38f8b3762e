"""What a keeper's core and a wall say to each other. The core serves clients, logs and the daemon; a wall runs programs.

         core (sessions.py, main.py)                     wall (container.py: fds; machine.py: frames of the agent)
              │  Workload.start(session, done)  ─────────────▶ │
              │ ◀──────────────────────  done(Process | error) │   now or later, exactly once
              │ ◀──────────────────  session.feed(1|2, data)   │   output, also before `done`
              │  process.hold(held=True) ────────────────────▶ │   a client is slow: read no more output until held=False
              │  process.write(data) ────────────────────────▶ │   says how many bytes it took
              │ ◀──────────────────────────  session.drained() │   after a short write: there is room again
              │  process.close_input() ──────────────────────▶ │
              │ ◀────────────────────────────  session.eof(1|2)│   that output is at its end (with a terminal there is only 1)
              │ ◀─────────────────────────── session.exited(n) │   exactly once, after the program's last byte was fed

A *session* is the core's side of one program (the main one, or an exec), a *process* the wall's side. All run in one thread
on one `bothy.keeper.loop.Loop`, which the wall is given when it is made; nobody blocks but for what the kernel does at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from bothy.keeper.model import ExecPlan
from bothy.linux.hosts import HostsChange
from bothy.linux.links import Attachment, Interface
from bothy.oci.runtime import Resources

STDOUT, STDERR = 1, 2


class Session(Protocol):
    """The core's side of one program."""

    def feed(self, which: int, data: bytes) -> None:
        """Output of the program; `which` is STDOUT or STDERR (a terminal's output is STDOUT)."""

    def eof(self, which: int) -> None:
        """That stream is at its end. Saying it is optional for streams that end with the program."""

    def drained(self) -> None:
        """Input that `Process.write` had refused will be taken now."""

    def exited(self, code: int) -> None:
        """The program is gone and every byte of its output was fed. `code` as a shell tells it (128 + signal)."""


class Process(Protocol):
    """The wall's side of one program, from its exec until `Session.exited`; later calls do nothing."""

    @property
    def pid(self) -> int:
        """The pid that is shown to people: the host's (for a machine QEMU's), the guest's for execs in a machine."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was not done quite as asked (limits that had to be clamped)."""

    def write(self, data: bytes) -> int:
        """Take stdin; returns how many bytes were taken. Fewer than all: `Session.drained` is called when there is room again.

        A program that closed its stdin (or has none) takes everything and it is lost, as with a broken pipe.
        """

    def close_input(self) -> None:
        """End of stdin. Without meaning for a terminal."""

    def hold(self, *, held: bool) -> None:
        """Stop (or go on) reading output, so that the program waits. A few more bytes may be fed after held=True."""

    def resize(self, height: int, width: int) -> None:
        """Set the terminal's size in characters; nothing without a terminal."""

    def signal(self, number: int) -> None:
        """Send a signal to the program. Raises ProcessLookupError when it is gone already."""


Started = Callable[[Process | BaseException], None]
"""Called once: with the running program, or with why there is none (StageError, OSError)."""

Done = Callable[[dict[str, Any] | BaseException], None]
"""Called once: with the answer to a request, or with why there is none."""


class Workload(Protocol):
    """A wall. Every method may also raise instead of calling `done` with an exception."""

    @property
    def error(self) -> str:
        """What of ours ended the main program; empty where it ended by itself."""

    def start(self, session: Session, started: Started) -> None:
        """Set up and run the main program. After a failure nothing is left; only `close` is called then."""

    def exec(self, plan: ExecPlan, session: Session, started: Started) -> None:
        """Run one more program. A failure leaves nothing."""

    def visit(self, session: Session, started: Started) -> None:
        """Copy files inside, as the session's client asks (`bothy.containers.visits`). Machines only. A failure leaves nothing."""

    def visited(self) -> None:
        """A visit that was begun is over."""

    def kill(self, *, discard: bool = False) -> None:
        """SIGKILL everything that runs inside; `exited` follows as usual. `discard`: what it wrote is of no use to anybody."""

    def pause(self, done: Done) -> None: ...

    def resume(self, done: Done) -> None: ...

    def top(self, args: str, done: Done) -> None:
        """`{"titles": [...], "processes": [[...], ...]}` for the given arguments of ps(1) (`bothy.keeper.top`)."""

    def stats(self, done: Done) -> None:
        """The shapes of the Docker Engine API: cpu_stats, memory_stats, pids_stats, blkio_stats, networks."""

    def update(self, resources: Resources, done: Done) -> None: ...

    def connect(self, attachment: Attachment, done: Done) -> None:
        """One more interface, ready for use when `done` is called; its routes take the place of others to the same destinations.

        A failure leaves nothing of it.
        """

    def disconnect(self, link: str, heir: Interface | None, done: Done) -> None:
        """Take away the interface that leads to `link`, if it is there; then give `heir`, which is there, its routes."""

    def hosts(self, change: HostsChange, done: Done) -> None:
        """Change the hosts file inside. Machines only."""

    def oom_count(self) -> int:
        """How often the kernel has killed inside for want of memory; valid until `close`."""

    def close(self) -> None:
        """After the main program's `exited` or a failed start: remove every trace on the host. Called once, does not raise."""
