"""bothyd's side of one keeper: the requests of `bothy.keeper.model` as methods, its events as calls.

A keeper is met twice: at its birth, by the socket pair that the spawner passes on, and by a daemon that comes back, which connects
to `control.sock` in the keeper's folder.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bothy.engine.model import Connection
from bothy.engine.wire import Link
from bothy.jsonable import PLAIN
from bothy.keeper import exits
from bothy.keeper.model import Client, ExecPlan, Exit
from bothy.linux import channel
from bothy.linux.hosts import HostsChange
from bothy.linux.links import Attachment, Interface
from bothy.log import logger

_log = logger("engine")


class Listener(Protocol):
    """Who is told what a keeper says."""

    def keeper_exec_exited(self, exec_id: str, code: int) -> None: ...

    def keeper_detached(self, exec_id: str) -> None: ...

    def keeper_oom(self) -> None: ...

    def keeper_closed(self, exit_: Exit | None) -> None:
        """The end: no trace on the host is left, with how the program ended. None: the keeper went without a word."""


@dataclass(frozen=True)
class Running:
    """What a keeper says about its workload; `pid` is 0 before the start."""

    pid: int = 0
    started: str = ""
    paused: bool = False
    oom: bool = False
    execs: list[dict[str, Any]] = field(default_factory=list)
    ended: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Keeper:
    def __init__(self, workload: str, folder: str, sock: channel.Socket, listener: Listener) -> None:
        self._folder, self._listener = folder, listener
        self._link = Link(sock, f"the keeper of {workload[:12]}", self._event, self._ended)
        self._exit: Exit | None = None
        self._told = False

    def close(self) -> None:
        """Let go of the connection; the keeper goes on. The listener is not told."""
        self._told = True
        self._link.close()

    async def start(self, clients: Sequence[tuple[Connection, Client]]) -> Running:
        """Run the program. The clients' fds are ours until this returns, then both sides have them: close ours.

        Raises what went wrong (`stage`, `errno`); then the keeper ends and has left nothing. Unavailable: it is gone already.
        """
        fields = {"clients": [PLAIN.to_data(client) for _, client in clients]}
        return PLAIN.from_data(Running, await self._link.request("start", fields, [c.fd for c, _ in clients]))

    async def attach(self, connection: Connection, client: Client) -> None:
        await self._link.request("attach", {"client": PLAIN.to_data(client)}, [connection.fd])

    async def exec(self, plan: ExecPlan, connection: Connection | None, client: Client | None) -> int:
        """Run one more program; its pid. Raises what went wrong; nothing is left then."""
        fields = {"plan": PLAIN.to_data(plan)}
        if client is not None:
            fields["client"] = PLAIN.to_data(client)
        return int((await self._link.request("exec", fields, [connection.fd] if connection else ())).get("pid") or 0)

    async def visit(self, line: int) -> None:
        """Have a machine's guest serve the visit at the other end of a line (a socket, which stays the caller's)."""
        await self._link.request("visit", {}, [line])

    async def signal(self, number: int, exec_id: str = "") -> None:
        await self._link.request("signal", {"number": number, **({"exec": exec_id} if exec_id else {})})

    async def kill(self, *, discard: bool = False) -> None:
        """SIGKILL to all that runs inside. `discard`: it is removed then, nobody will look at its files."""
        await self._link.request("kill", {"discard": True} if discard else {})

    async def resize(self, height: int, width: int, exec_id: str = "") -> None:
        await self._link.request("resize", {"height": height, "width": width, **({"exec": exec_id} if exec_id else {})})

    async def pause(self) -> None:
        await self._link.request("pause")

    async def resume(self) -> None:
        await self._link.request("resume")

    async def top(self, args: str) -> tuple[list[str], list[list[str]]]:
        answer = await self._link.request("top", {"args": args})
        return answer["titles"], answer["processes"]

    def stats(self) -> asyncio.Future[dict[str, Any]]:
        return self._link.request("stats")

    async def update(self, resources: dict[str, Any]) -> None:
        await self._link.request("update", {"resources": resources})

    async def connect(self, attachment: Attachment) -> None:
        """Give the workload one more interface. Raises what went wrong; nothing of it is left then."""
        await self._link.request("connect", {"attachment": PLAIN.to_data(attachment)})

    async def disconnect(self, link: str, heir: Interface | None = None) -> None:
        """Take an interface away by its outer end; `heir` gets the routes that it names. Raises what went wrong."""
        await self._link.request("disconnect", {"link": link, "heir": PLAIN.to_data(heir) if heir else None})

    async def hosts(self, change: HostsChange) -> None:
        """Have a machine's guest change its hosts file. Raises what went wrong."""
        await self._link.request("hosts", {"change": PLAIN.to_data(change)})

    async def status(self) -> Running:
        return PLAIN.from_data(Running, await self._link.request("status"))

    def _event(self, message: dict[str, Any], fds: list[int]) -> None:
        channel.close_all(fds)
        what = message.get("event")
        if what == "exec-exit":
            self._listener.keeper_exec_exited(str(message["exec"]), int(message["code"]))
        elif what == "detach":
            self._listener.keeper_detached(str(message.get("exec") or ""))
        elif what == "oom":
            self._listener.keeper_oom()
        elif what == "exit":
            self._exit = PLAIN.from_data(Exit, message)
        elif what == "closed":
            self._ended()

    def _ended(self) -> None:
        if self._told:
            return
        self._told = True
        self._link.close()
        found = self._exit or left_exit(self._folder)
        self._listener.keeper_closed(found)


def left_exit(folder: str) -> Exit | None:
    """The exit that a keeper left in its folder; None if there is none that can be read."""
    try:
        return exits.read(folder)
    except (OSError, ValueError) as exc:
        _log.error("%s/%s can not be read: %s", folder, exits.NAME, exc)
        return None


def connect(workload: str, folder: str, listener: Listener) -> Keeper | None:
    """The keeper that listens in the folder; None if there is none (any more)."""
    try:
        sock = channel.connect(folder, "control.sock")
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return None
    return Keeper(workload, folder, sock, listener)


def folders(run: str) -> list[str]:
    """The ids of the workloads that have a keeper's folder."""
    try:
        return sorted(os.listdir(os.path.join(run, "keepers")))
    except FileNotFoundError:
        return []
