"""Visits of machines: by the agent of one that runs; of one that does not by a clone with its disk and no program.

A machine's disk is a file system that its guest wrote: nobody but a guest of its own ever mounts it. The clone has a keeper and an
id of its own, no network, and nobody is told of it; it ends with its visit, and so with the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

from bothy.engine import names, spec, trees
from bothy.engine.containers import ending, mounting, plans
from bothy.engine.containers.start import write_plan
from bothy.engine.hall import Hall
from bothy.engine.keepers import Keeper
from bothy.engine.model import Connection
from bothy.engine.visits import Visit
from bothy.engine.workloads import Live
from bothy.errors import Conflict, Unavailable
from bothy.keeper.model import Client, Exit, KeeperPlan, LogPlan
from bothy.machines.model import Disk, MachinePlan

_PATIENCE = 20.0  # seconds that a clone may take to end


@contextlib.asynccontextmanager
async def of_running(live: Live) -> AsyncIterator[Visit]:
    """A visit in the guest of a machine that runs, or is paused."""
    if live.keeper is None:
        raise Conflict(f"container {live.record.name} is not running")
    ours, theirs = socket.socketpair()
    visit = Visit(ours)
    try:
        with theirs:
            await live.keeper.visit(theirs.fileno())
        yield visit
    finally:
        visit.close()


@contextlib.asynccontextmanager
async def of_stopped(hall: Hall, live: Live, *, to_write: bool) -> AsyncIterator[Visit]:
    """A visit of a machine that does not run; its lock is held by the caller. Its disk is written to, also when it is only looked
    at (it is mounted), but one that has none yet gets it only if something is to be written there."""
    ident = names.new_id()
    async with contextlib.AsyncExitStack() as undo:
        await undo.enter_async_context(mounting.held(hall, live.record))
        plan = await _plan(hall, live, ident, undo, to_write=to_write)
        listener = _Listener()
        await hall.spawner.ready()
        undo.callback(ending.remove_keeper_folder, hall, ident)
        folder = write_plan(hall, KeeperPlan(ident, LogPlan("", driver="none"), machine=plan, stdin=True, stdin_once=True))
        keeper = Keeper(ident, folder, hall.spawner.keeper(ident, folder, 0, "host"), listener)
        ours, theirs = socket.socketpair()
        visit = Visit(ours)
        try:
            with theirs:
                await keeper.start([(Connection(theirs.fileno()), Client(stdin=True, stderr=False))])
            yield visit
        finally:
            visit.close()
            await _end(hall, ident, keeper, listener)


class _Listener:
    """The end is all that is of interest."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def keeper_exec_exited(self, exec_id: str, code: int) -> None:
        return

    def keeper_detached(self, exec_id: str) -> None:
        return

    def keeper_oom(self) -> None:
        return

    def keeper_closed(self, exit_: Exit | None) -> None:
        self.closed.set()


async def _end(hall: Hall, ident: str, keeper: Keeper, listener: _Listener) -> None:
    """Wait until the clone has written everything to its disk and ended; one that takes too long is killed."""
    try:
        await asyncio.wait_for(listener.closed.wait(), _PATIENCE)
    except TimeoutError:
        pass
    finally:
        keeper.close()
        if not listener.closed.is_set():
            await asyncio.to_thread(ending.kill_left, hall.paths.scope, ident)


async def _plan(hall: Hall, live: Live, ident: str, undo: contextlib.AsyncExitStack, *, to_write: bool) -> MachinePlan:
    """The machine's own plan, with another id, no network and no program. The folder that it needs is made."""
    record = live.record
    plan = await plans.machine_plan(hall, record, spec.Place(), {})
    scratch = plan.scratch
    plan = replace(plan, attachments=[], files={}, visit=True)
    if to_write:
        await hall.spares.take(plan)  # one that it has claimed does not fit this plan, and goes with its disk
        _make(hall.paths.container(live.id))
    elif hall.spares.is_claimed(live.id) or not os.path.exists(scratch.path):
        folder = str(hall.paths.container(ident))
        undo.callback(trees.delete, folder)
        _make(folder)
        scratch = Disk(os.path.join(folder, os.path.basename(scratch.path)))
    return replace(plan, id=ident, scratch=scratch, cgroup=f"/{hall.paths.scope}/{ident}", ephemeral=False)


def _make(folder: str | os.PathLike[str]) -> None:
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as exc:
        raise Unavailable(f"{folder}: {exc.strerror}", errno=exc.errno or 0) from exc
