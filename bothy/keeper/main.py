"""A keeper: the process that stays with one workload. Parent of the program, owner of its stdio, writer of its log and exit file.

    spawner ─fork─▶ run() ─▶ spec.json ─▶ loop:   control socket(s) ─ requests ─▶ core ─▶ wall (container or machine)
                                                  clients, log     ◀─ sessions ◀─ feed, eof, exited ┘

If the keeper itself is killed, the kernel kills the program (PR_SET_PDEATHSIG) and the daemon sees the end of the stream. It
ignores the signals of a terminal session; SIGTERM it passes on to the program.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from types import FrameType

from bothy.containers.sandbox import Sandbox
from bothy.errors import failure_of
from bothy.jsonable import PLAIN
from bothy.keeper.container import ContainerWorkload
from bothy.keeper.core import SPEC, Keeper
from bothy.keeper.loop import Loop
from bothy.keeper.machine import MachineWorkload
from bothy.keeper.model import KeeperPlan
from bothy.keeper.workload import Workload
from bothy.linux import channel, syscalls

TITLE = "bothy-keeper"


def run(folder: str, control: socket.socket, sandbox: Sandbox | None, network: str = "private") -> int:
    """Be the keeper of the workload whose plan is in `folder`, until it has ended; returns the exit status for the process.

    To be called in a process of its own (forked from the spawner) that has no children and no other use. `sandbox` is one made
    ahead of need; without it the container's is made at start, with `network` as in `bothy.containers.sandbox.make`.
    """
    loop = Loop()
    try:
        plan = read_plan(folder)
        keeper = Keeper(loop, plan, folder, control, _wall(loop, plan, folder, sandbox, network))
    except (OSError, ValueError) as exc:
        _refuse(control, exc)
        return 1
    return serve(loop, keeper)


def serve(loop: Loop, keeper: Keeper) -> int:
    """Take the traits of a keeper and run the loop; the exit status for the process. A bug ends the workload, with word of it."""
    become(keeper)
    try:
        loop.run()
    except Exception as exc:
        traceback.print_exc()
        keeper.fail(f"the keeper failed: {type(exc).__name__}: {exc}")
        return 1
    return 0


def read_plan(folder: str) -> KeeperPlan:
    """The plan in `folder`/spec.json. Raises OSError, or ValueError naming what is wrong in it."""
    with open(f"{folder}/{SPEC}", "rb") as file:
        return PLAIN.loads(KeeperPlan, file.read())


def become(keeper: Keeper) -> None:
    """Take the traits of a keeper: a session of its own, its name, orphans, and what signals do.

    Handlers, not SIG_IGN: what is ignored would stay so in the programs.
    """
    os.setsid()
    syscalls.set_name(TITLE)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, _nothing)
    signal.signal(signal.SIGTERM, lambda _number, _frame: keeper.terminate())


def _wall(loop: Loop, plan: KeeperPlan, folder: str, sandbox: Sandbox | None, network: str) -> Workload:
    if plan.container is not None:
        return ContainerWorkload(loop, plan.container, sandbox, network, stdin=plan.stdin)
    if plan.machine is not None:
        return MachineWorkload(loop, plan.machine, folder, stdin=plan.stdin)
    raise ValueError("the plan names neither container nor machine")


def _refuse(control: socket.socket, exc: Exception) -> None:
    """Answer the first request, which is start, with why there will be none; then end."""
    print(f"{TITLE}: {exc}", file=sys.stderr, flush=True)
    control.setblocking(True)
    message, fds = channel.receive(control)
    channel.close_all(fds)
    if message is not None:
        channel.send(control, {"seq": message.get("seq"), "error": failure_of(exc, "plan")})


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A signal that a keeper does not care about."""
