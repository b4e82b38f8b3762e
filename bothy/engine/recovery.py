"""What a daemon does when it starts: makes the records true again, whatever happened to the one before it.

record says up, keeper answers         → adopted: address, ports and id range taken back
record says up, exit.json left         → its exit recorded
record says up, neither                → what is left of it is killed, exit 137 with an error
record says starting, no keeper        → the start never was: created or exited as before
exited with a folder gone              → its removal was under way: removed
keeper, folder, cgroup without record  → removed
auto-remove and down                   → removed
down, and its policy wants it up       → started again, once all of the above is done
"""

from __future__ import annotations

import asyncio
import os

from bothy.containers.cgroups import hierarchies as cgroups
from bothy.engine import keepers, secrets, trees
from bothy.engine.containers import ending, mounting, network, remove
from bothy.engine.hall import Hall
from bothy.engine.keepers import Keeper, Running
from bothy.engine.model import Status
from bothy.engine.workloads import Live
from bothy.errors import BothyError, Broken, Unavailable
from bothy.keeper.model import Exit
from bothy.log import logger
from bothy.networks.model import Published, way_out

_log = logger("engine")
_START_SECONDS = 30.0
_POLL = 0.02


async def recover(hall: Hall) -> None:
    """Reconcile records, keepers, folders, networks and cgroups. Raises Unavailable or Broken when the state can not be read."""
    hall.workloads.load()
    hall.execs.load()
    for live in hall.workloads:
        hall.ranges.adopt(live.record.id_base)  # each gives it back at its end, also those whose end is found below
    found = await _meet_keepers(hall)
    for live in hall.workloads:
        if live.id in found:
            # First of all: what runs keeps its address, its ports and its ids, whatever is started meanwhile.
            _take_up(hall, live, *found[live.id])
    await asyncio.to_thread(mounting.recover, hall)
    hall.networks.reconcile()
    for live in hall.workloads:
        if live.id not in found:
            await _repair(hall, live)
    secrets.sweep(hall)
    await asyncio.to_thread(_sweep_files, hall)
    await asyncio.to_thread(_sweep_cgroups, hall.paths.scope, {live.id for live in hall.workloads if live.keeper is not None})
    for live in hall.workloads:
        if live.record.host_config.auto_remove and live.record.status in (Status.EXITED, Status.DEAD):
            hall.background(hall.auto_remove(hall, live), f"the removal of {live.id[:12]}")
    hall.recovered.set()
    for live in hall.workloads:
        if live.restart_timer is None and ending.after_boot(live.record):
            _start_again(hall, live)


async def _meet_keepers(hall: Hall) -> dict[str, tuple[Keeper, Running, ending.KeeperListener]]:
    """The keepers that answer, asked all at once; one of a workload without a record is told to end."""
    answers = await asyncio.gather(*(_meet(hall, workload) for workload in keepers.folders(str(hall.paths.run))))
    return {workload: answer for workload, answer in answers if answer is not None}


async def _meet(hall: Hall, workload: str) -> tuple[str, tuple[Keeper, Running, ending.KeeperListener] | None]:
    folder = str(hall.paths.keeper(workload))
    live = hall.workloads.by_id(workload)
    if live is None:
        await asyncio.to_thread(ending.kill_left, hall.paths.scope, workload)
        ending.remove_keeper_folder(hall, workload)
        return workload, None
    listener = ending.KeeperListener(hall, live)
    keeper = keepers.connect(workload, folder, listener)
    if keeper is None:
        return workload, None
    try:
        running = await _answer(keeper)
    except Unavailable:
        return workload, None  # it has just ended; what it left tells how
    except BothyError as exc:
        _log.error("the keeper of %s does not answer: %s", workload[:12], exc)
        keeper.close()
        return workload, None
    return workload, (keeper, running, listener)


async def _answer(keeper: Keeper) -> Running:
    """The keeper's word; one that is still starting its program (a machine takes a moment) is given time."""
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not (running := await keeper.status()).pid:
                await asyncio.sleep(_POLL)  # a keeper has no event for this
            return running
    except TimeoutError:
        raise Broken(f"there was no word of a running program in {_START_SECONDS:.0f} s") from None


def _take_up(hall: Hall, live: Live, keeper: Keeper, running: Running, listener: ending.KeeperListener) -> None:
    """One that has a keeper: it runs, or has ended since we asked."""
    _adopt(hall, live, keeper, running)
    listener.starting = False
    if listener.early is not None:
        ending.finish(hall, live, listener.early)


async def _repair(hall: Hall, live: Live) -> None:
    """Make the record of one that has no keeper true."""
    record = live.record
    if record.status.is_up and record.status is not Status.RESTARTING:
        left = keepers.left_exit(str(hall.paths.keeper(live.id)))
        if left is None or left.error:
            await asyncio.to_thread(ending.kill_left, hall.paths.scope, live.id)
        if left is None and record.status is Status.STARTING:
            _never_started(hall, live)
        else:
            ending.finish(hall, live, left or _lost())
    elif record.status is not Status.RESTARTING and record.started and not os.path.isdir(hall.paths.container(live.id)):
        await remove.remove(hall, live, force=True, volumes=record.host_config.auto_remove)
        return
    ending.remove_keeper_folder(hall, live.id)


def _start_again(hall: Hall, live: Live) -> None:
    """Have it started now. A restart that an earlier daemon waited for goes on counting, as if that daemon had not gone."""
    if live.record.status is not Status.RESTARTING:
        hall.workloads.note(live, status=Status.RESTARTING, restart_count=0)
    hall.background(hall.start_again(hall, live), f"the restart of {live.id[:12]}")


def _lost() -> Exit:
    exit_ = ending.lost()
    return Exit(
        exit_.code, finished=exit_.finished, error="neither its keeper nor its exit code was found after a restart of the engine"
    )


def _never_started(hall: Hall, live: Live) -> None:
    record = live.record
    hall.ranges.give_back(record.id_base)
    # What has been counted was a restart: it is to come.
    status = Status.RESTARTING if record.restart_count else Status.EXITED if record.finished else Status.CREATED
    error = "the engine was killed while this was being started"
    hall.workloads.note(live, status=status, error=error, id_base=0, endpoints=[], ports=[], pid=0)
    if live.record.host_config.auto_remove:
        hall.background(hall.auto_remove(hall, live), f"the removal of {live.id[:12]}")


def _adopt(hall: Hall, live: Live, keeper: Keeper, running: Running) -> None:
    """Go on where the last daemon was."""
    record = live.record
    live.keeper = keeper
    live.ended = asyncio.get_running_loop().create_future()
    live.oom = running.oom
    leases = [network.lease_of(record, endpoint) for endpoint in record.endpoints if endpoint.address]
    for lease in leases:
        ports = [p for p in record.ports if lease is way_out(leases, 6 if ":" in p.host_ip else 4)]
        try:
            hall.networks.adopt(lease, [Published(p.container_port, p.protocol, p.host_ip, p.host_port) for p in ports])
        except BothyError as exc:
            _log.error("the network of %s is not what it was: %s", live.id[:12], exc)
    network.tell_names(hall, record)
    status = Status.PAUSED if running.paused else Status.RUNNING
    started = running.started or record.started
    if (record.status, record.pid, record.started) != (status, running.pid, started):
        hall.workloads.note(live, status=status, pid=running.pid, started=started, exit_code=0, error="", finished="")
    ended = {str(entry["exec"]): int(entry["code"]) for entry in running.ended}
    hall.execs.reconcile(live, {str(entry["exec"]) for entry in running.execs}, ended)
    hall.healths.begin(live)


def _sweep_files(hall: Hall) -> None:
    """Folders of workloads that have no record any more, and what a removal had only renamed."""
    parent = hall.paths.root / "containers"
    try:
        names = os.listdir(parent)
    except FileNotFoundError:
        names = []
    for name in names:
        if name.startswith(trees.TRASH):
            trees.delete(str(parent / name))
        elif hall.workloads.by_id(name) is None:
            _sweep_folder(str(parent / name))


def _sweep_folder(folder: str) -> None:
    """Renamed first, so that a keeper which does not know yet that it is not wanted can make nothing in it while it is emptied."""
    try:
        trees.delete(trees.discard(folder))
    except OSError as exc:
        _log.error("%s can not be removed: %s", folder, exc)


def _sweep_cgroups(scope: str, running: set[str]) -> None:
    """Kill and remove the groups of this engine that belong to no running workload."""
    found = cgroups.of_this_host()
    for root in {*found.v1.values(), *([found.v2] if found.v2 else [])}:
        try:
            names = [entry.name for entry in os.scandir(f"{root}/{scope}") if entry.is_dir()]
        except OSError:
            continue
        for name in names:
            if name not in running:
                ending.kill_left(scope, name)


def remove_parent_cgroups(scope: str) -> None:
    """Take the engine's own, empty groups away."""
    found = cgroups.of_this_host()
    for root in {*found.v1.values(), *([found.v2] if found.v2 else [])}:
        try:
            os.rmdir(f"{root}/{scope}")
        except OSError:
            continue
