"""A keeper at work: parent of the program, owner of its stdio, writer of its log and exit file, server of its clients.

    parking.run() ─▶ awake() │ machine() ─▶ loop:   control socket(s) ─ requests ─▶ core ─▶ wall (container or machine)
                                                    clients, log     ◀─ sessions ◀─ feed, eof, exited ┘

If the keeper itself is killed, the kernel kills the program (PR_SET_PDEATHSIG) and the daemon sees the end of the stream. It
ignores the signals of a terminal session; SIGTERM it passes on to the program.
"""

from __future__ import annotations

import signal
import socket
import sys
import traceback

from bothy.jsonable import PLAIN
from bothy.keeper import birth, handover
from bothy.keeper.container import ContainerWorkload, read_plan
from bothy.keeper.control import told
from bothy.keeper.core import Keeper
from bothy.keeper.logs import Log
from bothy.keeper.loop import IN, Loop, nothing
from bothy.keeper.machine import MachineWorkload
from bothy.keeper.model import Client, KeeperPlan, LogPlan
from bothy.linux import channel, syscalls

CAUGHT = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ)


def awake(order: bytes, state: bytes, fds: list[int], wake: tuple[int, int], signals: bytes = b"") -> int:
    """Go on with the container that a helper has started; returns the exit status for the process when its workload has ended.

    `state` and `fds` as handed over, `wake` is the pipe that tells of signals, `signals` came already.
    """
    folder = birth.Order.decode(order).folder
    data, given = handover.unpack(state, fds)
    if data["orphans"]:
        adopt_orphans()
    plan = KeeperPlan(data["id"], LogPlan(**data["log"]), tty=data["tty"], stdin=data["stdin"], stdin_once=data["stdin_once"])
    loop = Loop()
    loop.reap(wake)
    wall = ContainerWorkload(loop, data, given, folder)
    connected = [channel.adopt(fd) for fd in given.get("control", [])]
    keeper = Keeper(loop, plan, folder, wall, _log(loop, plan.log), connected, channel.adopt(given["listener"][0]))
    clients = [PLAIN.from_data(Client, client) for client in data["clients"]]
    keeper.take_over(data["started"], zip(given.get("client", []), clients, strict=True), wall.main)
    wall.watch_oom(keeper.check_oom)
    loop.collect_later()
    if signal.SIGTERM in signals:
        loop.later(0, keeper.terminate)
    return serve(loop, keeper)


def machine(order: bytes, control: int, wake: tuple[int, int]) -> int:
    """Be the keeper of a machine, from its birth."""
    folder = birth.Order.decode(order).folder
    sock = channel.adopt(control)
    loop = Loop()
    loop.reap(wake)
    wall: MachineWorkload | None = None
    try:
        plan = read_plan(folder)
        if plan.machine is None:
            raise ValueError("the plan names no machine")
        wall = MachineWorkload(loop, plan.machine, folder, stdin=plan.stdin)
        if plan.spare:
            if not _wait_to_be_used(loop, wall, sock):
                return 0
            plan = read_plan(folder)
            assert plan.machine is not None
            wall.assign(plan.machine, stdin=plan.stdin)
        log = Log(loop, plan.log) if plan.log.driver == "json-file" else None
        keeper = Keeper(loop, plan, folder, wall, log, [sock])
    except Exception as exc:
        if wall is not None:
            wall.close()
        birth.refuse(sock, exc)
        return 1
    return serve(loop, keeper)


def _wait_to_be_used(loop: Loop, wall: MachineWorkload, sock: channel.Socket) -> bool:
    """Keep a machine ready until the daemon asks for its start. False: it does not want it any more, or QEMU has ended."""
    wanted = False
    try:
        wall.wait_ahead(lambda: channel.send(sock, {"event": "ready"}))
        loop.watch(sock.fileno(), IN, lambda _: loop.stop())
        loop.run()
        loop.forget(sock.fileno())
        wanted = not wall.is_lost and bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except Exception as exc:
        print(f"bothy-keeper: a spare machine: {told(exc, 'spare')['message']}", file=sys.stderr, flush=True)
    if not wanted:
        wall.close()
    return wanted


def serve(loop: Loop, keeper: Keeper) -> int:
    """Run the loop; the exit status for the process. A bug ends the workload, with word of it."""
    loop.on_signal(signal.SIGTERM, keeper.terminate)
    try:
        loop.run()
    except Exception as exc:
        traceback.print_exc()
        keeper.fail(f"the keeper failed: {type(exc).__name__}: {exc}")
        return 1
    return 0


def catch_signals() -> None:
    """Have signals told to the loop. Handlers, not SIG_IGN: what is ignored would stay so in the programs.

    The spawner does it for its keepers, who inherit it: the enums of `signal` cost each of them 60 pages.
    """
    for number in CAUGHT:
        signal.signal(number, nothing)


def adopt_orphans() -> None:
    """Become the parent of what programs leave behind, which otherwise is for the init of their pid namespace."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)


def _log(loop: Loop, plan: LogPlan) -> Log | None:
    """The log of a program that runs; one that can not be opened (any more) is no reason to stop it."""
    if plan.driver != "json-file":
        return None
    try:
        return Log(loop, plan)
    except OSError as exc:
        print(f"bothy-keeper: log {plan.path!r}: {exc.strerror}; nothing is logged", file=sys.stderr, flush=True)
        return None
