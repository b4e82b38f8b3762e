"""A keeper: the process that stays with one workload. Parent of the program, owner of its stdio, writer of its log and exit file.

    spawner ─fork─▶ run() ─▶ spec.json ─▶ loop:   control socket(s) ─ requests ─▶ core ─▶ wall (container or machine)
                                                  clients, log     ◀─ sessions ◀─ feed, eof, exited ┘

If the keeper itself is killed, the kernel kills the program (PR_SET_PDEATHSIG) and the daemon sees the end of the stream. It
ignores the signals of a terminal session; SIGTERM it passes on to the program.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback

from bothy.containers.sandbox import Sandbox
from bothy.errors import StageError, failure_of
from bothy.keeper import container, helpers
from bothy.keeper.container import ContainerWorkload
from bothy.keeper.core import Keeper
from bothy.keeper.loop import Loop, nothing
from bothy.keeper.machine import MachineWorkload
from bothy.keeper.model import KeeperPlan, LogPlan
from bothy.linux import channel

TITLE = "bothy-keeper"
CAUGHT = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ)


def run(folder: str, control: channel.Socket, sandbox: Sandbox | None, network: str = "private") -> int:
    """Be the keeper of the workload whose plan is in `folder`, until it has ended; returns the exit status for the process.

    To be called in a process of its own (forked from the spawner) that has no children and no other use. `sandbox` is one made
    ahead of need, whose descriptors are taken; without it the container's is made at start, with `network` as in
    `bothy.containers.sandbox.make`.
    """
    loop = Loop()
    become()
    try:
        keeper = _make(loop, folder, control, sandbox, network)
    except (StageError, OSError, ValueError) as exc:
        _refuse(control, exc)
        return 1
    return serve(loop, keeper)


def serve(loop: Loop, keeper: Keeper) -> int:
    """Run the loop; the exit status for the process. A bug ends the workload, with word of it."""
    loop.reap()
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


def become() -> None:
    """A session and a name of its own."""
    os.setsid()
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, TITLE.encode())
    os.close(fd)


def _make(loop: Loop, folder: str, control: channel.Socket, sandbox: Sandbox | None, network: str) -> Keeper:
    """The core and its wall, with the plan read by a helper. Raises StageError, OSError or ValueError."""
    helper = helpers.fork(lambda sock: container.attend(sock, folder, sandbox, network))
    if sandbox is not None:
        sandbox.close()
    facts, _ = helpers.receive(helper)
    if facts.get("machine"):
        helper.close()
        plan = container.read_plan(folder)
        assert plan.machine is not None
        return Keeper(loop, plan, folder, control, MachineWorkload(loop, plan.machine, folder, stdin=plan.stdin))
    if facts["orphans"]:
        container.adopt_orphans()
    tty, stdin, stdin_once = bool(facts["tty"]), bool(facts["stdin"]), bool(facts["stdin_once"])
    plan = KeeperPlan(str(facts["id"]), LogPlan(**facts["log"]), tty=tty, stdin=stdin, stdin_once=stdin_once)
    return Keeper(loop, plan, folder, control, ContainerWorkload(loop, facts, helper, folder))


def _refuse(control: channel.Socket, exc: Exception) -> None:
    """Answer the first request, which is start, with why there will be none; then end."""
    print(f"{TITLE}: {exc}", file=sys.stderr, flush=True)
    control.setblocking(True)
    message, fds = channel.receive(control)
    channel.close_all(fds)
    if message is not None:
        channel.send(control, {"seq": message.get("seq"), "error": failure_of(exc, "plan")})
