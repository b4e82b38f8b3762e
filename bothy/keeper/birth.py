"""The birth of a container, in a helper process of its keeper (see `parking.py`): requests up to `start`, and the start itself.

    daemon                          helper                                   keeper
      │── status, start … ───────────▶│ reads the plan, starts the container    │ waits
      │◀───────────────── ok {pid} ───│ (the program is the keeper's child)     │
      │                               │── state, and every descriptor ─────────▶│ parks
                                      └ ends

A machine has no use for this: the keeper is told so, and does it all itself. When there is no start, or it fails, the helper ends
without a word, and so does the keeper.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import traceback
from dataclasses import dataclass
from typing import Any

from bothy.containers import sandbox as sandboxes
from bothy.containers.model import ContainerPlan
from bothy.containers.sandbox import Sandbox
from bothy.containers.start import Container, Started, Stdio
from bothy.errors import Conflict
from bothy.jsonable import PLAIN
from bothy.keeper import detach, exits, handover
from bothy.keeper.container import read_plan, run_program
from bothy.keeper.control import Control, Request, hung_up, told
from bothy.keeper.logs import Log
from bothy.keeper.loop import Loop
from bothy.keeper.model import Client, Exit, KeeperPlan
from bothy.linux import channel, syscalls

_SANDBOX = "unit"  # userns, netns, ipcns, utsns


@dataclass(frozen=True)
class Order:
    """What the spawner orders: a keeper for the plan in `folder`. `network` is for a sandbox that is not made yet, `pattern` tells
    which of its descriptors come with the order."""

    folder: str
    network: str
    id_base: int
    pattern: str = ""

    @classmethod
    def of(cls, folder: str, network: str, id_base: int, sandbox: Sandbox | None) -> tuple[Order, list[int]]:
        """The order, and the sandbox's descriptors that go with it."""
        if sandbox is None:
            return cls(folder, network, id_base), []
        fds = [
            (letter, fd)
            for letter, fd in zip(_SANDBOX, (sandbox.userns, sandbox.netns, sandbox.ipcns, sandbox.utsns), strict=True)
            if fd >= 0
        ]
        return cls(folder, network, id_base, "".join(letter for letter, _ in fds)), [fd for _, fd in fds]

    def encode(self) -> bytes:
        return b"\0".join((os.fsencode(self.folder), os.fsencode(self.network), str(self.id_base).encode(), self.pattern.encode()))

    @classmethod
    def decode(cls, data: bytes) -> Order:
        folder, network, base, pattern = data.split(b"\0")
        return cls(os.fsdecode(folder), os.fsdecode(network), int(base), pattern.decode())

    def sandbox(self, fds: list[int]) -> Sandbox | None:
        """The sandbox of the descriptors that came along."""
        if not self.pattern:
            return None
        given = dict(zip(self.pattern, fds, strict=True))
        return Sandbox(self.id_base, *(given.get(letter, -1) for letter in _SANDBOX))


def attend(data: bytes, fds: list[int], keeper: channel.Socket, parent: int) -> None:
    """Be the helper of the keeper that is process `parent`; returns when there is no more to do.

    `fds`: the control socket, then the sandbox's; all are taken.
    """
    signal.set_wakeup_fd(-1)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # it has died before we could ask to die with it
    if hung_up(fds[0]):
        return  # the daemon has died meanwhile, and the folder may be that of another keeper already
    order = Order.decode(data)
    control = channel.adopt(fds[0])
    try:
        plan = read_plan(order.folder)
        if plan.container is None:
            if plan.machine is None:
                raise ValueError("the plan names neither container nor machine")
            keeper.send(handover.MACHINE)
            return
        loop = Loop()
        birth = Birth(loop, plan, plan.container, order, order.sandbox(fds[1:]), keeper, control)
    except Exception as exc:
        refuse(control, exc)
        return
    try:
        loop.run()
    except Exception:
        traceback.print_exc()
        birth.kill()


def refuse(control: channel.Socket, exc: Exception) -> None:
    """Answer the first request, which is start, with why there will be none."""
    failure = told(exc, "plan")
    print(f"bothy-keeper: {failure['message']}", file=sys.stderr, flush=True)
    control.setblocking(True)
    message, fds = channel.receive(control)
    channel.close_all(fds)
    if message is not None:
        channel.send(control, {"seq": message.get("seq"), "error": failure})


def _joined_user(plan: ContainerPlan) -> str:
    """The path of the user namespace that it joins; empty if it has one of its own, or none."""
    return next((namespace.path for namespace in plan.spec.linux.namespaces if namespace.type == "user"), "")


class Birth:
    """Serves daemons until the container runs or never will, then stops the loop. The constructor raises OSError."""

    def __init__(
        self,
        loop: Loop,
        plan: KeeperPlan,
        container: ContainerPlan,
        order: Order,
        sandbox: Sandbox | None,
        keeper: channel.Socket,
        control: channel.Socket,
    ) -> None:
        self._loop = loop
        self._plan = plan
        self._container = container
        self._order = order
        self._sandbox = sandbox
        self._keeper = keeper
        self._running: Container | None = None
        if plan.log.driver == "json-file":
            Log(loop, plan.log).close()  # what prevents it is told now
        self._control = Control(loop, order.folder, [control], self._handle, self._alone)

    def kill(self) -> None:
        """Something of ours went wrong: nothing is to stay of what was started."""
        if self._running is not None:
            self._running.cleanup()

    def _handle(self, request: Request) -> None:
        try:
            if request.op == "start":
                self._start(request)
            elif request.op == "status":
                request.ok(pid=0, started="", paused=False, oom=False, execs=[])
            else:
                raise Conflict("the program does not run")
        except Exception as exc:
            request.fail(exc)

    def _start(self, request: Request) -> None:
        if request.is_abandoned:
            self._never_mind()
            return
        try:
            self._begin(request)
        except Exception as exc:
            self.kill()
            self._fail(request, exc)

    def _begin(self, request: Request) -> None:
        clients: list[tuple[int, Client]] = []
        process = self._container.spec.process
        for data in request.message.get("clients") or []:
            clients.append(self._client(request, data))
        sandbox = self._sandbox or sandboxes.make(self._container.id_base, self._order.network, _joined_user(self._container))
        container = Container(self._container, sandbox, sibling=True)

        def start(stdio: Stdio) -> Started:
            return container.start(stdio, lambda: exits.note_begin(self._order.folder))

        begun, fds = run_program(start, terminal=process.terminal, stdin=self._plan.stdin)
        self._running = container
        started = exits.now()
        memory = self._container.spec.linux.resources.memory
        if memory is not None and memory.limit is not None:
            oom, exceptional = container.oom_watch()
            fds += [("oom-exception" if exceptional else "oom", oom)] if oom >= 0 else []
        request.ok(pid=begun.pid, started=started, warnings=list(begun.warnings))
        state = {
            **self._facts(),
            "pid": begun.pid,
            "started": started,
            "warnings": list(begun.warnings),
            "clients": [PLAIN.to_data(client) for _, client in clients],
        }
        try:
            handover.give(self._keeper, state, [*fds, *self._control.hand_over(), *(("client", fd) for fd, _ in clients)])
        except OSError as exc:
            # The keeper is dead: nobody would ever be the parent of the program.
            print(f"bothy-keeper {self._plan.id[:12]}: {exc}", file=sys.stderr, flush=True)
            container.kill()
        self._loop.stop()

    def _client(self, request: Request, data: Any) -> tuple[int, Client]:
        client = PLAIN.from_data(Client, data)
        detach.parse(client.detach_keys)
        fd = request.take()
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise ValueError("a client's descriptor is no socket")
        return fd, client

    def _facts(self) -> dict[str, Any]:
        plan, container = self._plan, self._container
        namespaces = container.spec.linux.namespaces
        return {
            "id": plan.id,
            "log": vars(plan.log),
            "tty": container.spec.process.terminal,
            "stdin": plan.stdin,
            "stdin_once": plan.stdin_once,
            "cgroup": container.cgroup,
            "id_base": container.id_base,
            "own_network": any(namespace.type == "network" for namespace in namespaces),
            "orphans": all(namespace.type != "pid" or namespace.path for namespace in namespaces),
        }

    def _fail(self, request: Request, exc: Exception) -> None:
        if not self._control.connected:
            try:
                exits.write(self._order.folder, Exit(code=128, finished=exits.now(), error=str(exc)))
            except OSError:
                pass  # nobody is there to be told but this folder, which is gone
        self._control.give_up_folder()
        request.fail(exc)
        self._control.leave()
        self._loop.stop()

    def _alone(self) -> None:
        """No daemon wants this any more; a program that runs already goes to the keeper all the same."""
        if self._running is None:
            self._never_mind()

    def _never_mind(self) -> None:
        """There will be no start; also none that a daemon asked for which has died since: the next may have looked for us before
        we could be found, and have given back the workload's address."""
        self._control.leave()
        self._loop.stop()
