"""How a run of a workload ends, however it came to that: recorded, told, given back; then removed or started again if so asked.

keeper says closed │ keeper vanishes │ found dead by recovery
                   ▼
                finish  ── record exited ─ events ─ network, ids, keeper's folder given back ─ watchers woken
                   │
      auto-remove ─┴─ restart policy ── wait 0.1 s … 1 min ── start
"""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import time
from typing import Any

from bothy.containers.cgroups import hierarchies as cgroups
from bothy.engine import times
from bothy.engine.containers import mounting, network
from bothy.engine.hall import Hall
from bothy.engine.model import Status, Workload
from bothy.engine.workloads import Live
from bothy.errors import BothyError, StageError
from bothy.keeper.model import Exit
from bothy.log import logger

_log = logger("engine")
_FIRST_DELAY, _LONGEST_DELAY, _STEADY = 0.1, 60.0, 10.0
_PATIENCE = 5.0
_TRIES = 10
KILLED = 137


class KeeperListener:
    """What a keeper says about one workload, turned into state and events (`bothy.engine.keepers.Listener`)."""

    def __init__(self, hall: Hall, live: Live) -> None:
        self._hall, self._live = hall, live
        self.early: Exit | None = None
        self.starting = True

    def keeper_exec_exited(self, exec_id: str, code: int) -> None:
        self._hall.execs.exited(self._live, exec_id, code)
        self._hall.healths.exited(self._live, exec_id, code)

    def keeper_detached(self, exec_id: str) -> None:
        self._hall.tell(self._live.record, "detach", **({"execID": exec_id} if exec_id else {}))

    def keeper_oom(self) -> None:
        self._live.oom = True
        self._hall.tell(self._live.record, "oom")

    def keeper_closed(self, exit_: Exit | None) -> None:
        if self.starting:
            # The answer to the start is on its way to who asked: it says what to do.
            self.early = exit_ or lost()
        else:
            finish(self._hall, self._live, exit_ or lost())


def lost() -> Exit:
    """The exit of a workload whose keeper vanished without leaving one."""
    return Exit(KILLED, finished=times.now(), error="the keeper of this workload was killed")


def finish(hall: Hall, live: Live, exit_: Exit) -> None:
    """A run has ended. Never fails: what can not be written or given back now is logged and repaired later."""
    hall.healths.end(live)
    record = live.record
    live.keeper = None
    if exit_.error:
        live.cleaning = asyncio.ensure_future(asyncio.to_thread(kill_left, hall.paths.scope, live.id))
    hall.execs.ended_with(live.id)
    oom = exit_.oom or live.oom
    finished = exit_.finished or times.now()
    started = exit_.started or record.started
    ran = max(0, times.nanoseconds(finished) - times.nanoseconds(started)) if started else 0
    delay = restart_delay(live, exit_.code, ran)
    changes: dict[str, Any] = {
        "status": Status.EXITED if delay is None else Status.RESTARTING, "pid": 0, "exit_code": exit_.code, "error": exit_.error,
        "oom_killed": oom, "started": started, "finished": finished, "id_base": 0, "endpoints": [], "ports": [],
        "restart_count": record.restart_count + (delay is not None),
    }  # fmt: skip
    endpoints = record.endpoints
    if record.host_config.auto_remove:
        # The record is deleted in a moment; should that not come to pass, a recovery finds no keeper and does it.
        hall.workloads.show(live, **changes)
    else:
        hall.workloads.note(live, **changes)
    give_back(hall, live.id, record.id_base)
    hall.tell(record, "die", exitCode=str(exit_.code), execDuration=str(ran // 10**9))
    for endpoint in endpoints:
        network.announce(hall, record, "disconnect", endpoint)
    for mount in record.mounts:
        if mount.type == "volume":
            hall.events.publish("volume", "unmount", mount.name, {"container": live.id, "driver": "local"})
    if live.ended is not None and not live.ended.done():
        live.ended.set_result(exit_)
    live.tell(exit_, "next-exit", "not-running")  # the latter also where it comes back in a moment, as in Docker
    if delay is None:
        live.drop_held()
        if record.host_config.auto_remove and not hall.closing:
            hall.background(hall.auto_remove(hall, live), f"the removal of {live.id[:12]}")
    elif not hall.closing:
        live.restart_timer = asyncio.get_running_loop().call_later(delay, _restart, hall, live)


def give_back(hall: Hall, workload: str, id_base: int) -> None:
    """Names, addresses, ports, id range and the keeper's folder."""
    network.forget_names(hall, workload)
    try:
        hall.networks.release(workload)
    except (BothyError, OSError) as exc:
        _log.error("the network of %s was not given back: %s", workload[:12], exc)
    hall.ranges.give_back(id_base)
    mounting.release(hall, workload)
    remove_keeper_folder(hall, workload)


def remove_keeper_folder(hall: Hall, workload: str) -> None:
    """Also while a keeper that ends takes out what is its own, or leaves its last word. What can not be removed is logged: the next
    start of the engine tries again."""
    folder = str(hall.paths.keeper(workload))
    for _ in range(_TRIES):
        try:
            for name in os.listdir(folder):
                _remove_entry(f"{folder}/{name}")
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError as exc:
            problem = exc
        else:
            return
    _log.error("%s can not be removed: %s", folder, problem)


def _remove_entry(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        shutil.rmtree(path, ignore_errors=True)


def kill_left(scope: str, workload: str) -> None:
    """Kill what a vanished keeper left running, wait for its death, take its cgroups away. To be called in a thread.

    What can not be killed is logged; the next start of the engine tries again.
    """
    group = cgroups.of_this_host().at(f"/{scope}/{workload}")
    try:
        waiting = [os.pidfd_open(pid) for pid in group.pids() if os.path.exists(f"/proc/{pid}")]
        group.kill()
        end = time.monotonic() + _PATIENCE
        for fd in waiting:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(max(0.0, end - time.monotonic()) * 1000)
            os.close(fd)
        if not group.remove():
            _log.error("cgroup /%s/%s can not be removed yet", scope, workload)
    except (OSError, StageError) as exc:
        _log.error("what is left of %s can not be killed: %s", workload[:12], exc)


async def settle(live: Live) -> None:
    """Wait until nothing of an earlier run is left, also nobody who is still busy with its files."""
    for visit in list(live.visits):
        await visit.abandon()
    if live.cleaning is not None:
        await asyncio.shield(live.cleaning)
        live.cleaning = None


# -- restart policies ------------------------------------------------------------------------------------------------


def restart_delay(live: Live, code: int, ran: int) -> float | None:
    """Seconds until the policy wants a workload started again that ended with `code` after `ran` nanoseconds; None: it does not.

    Doubled from run to run, from 0.1 to 60; a run of ten seconds begins anew. Source: moby restartmanager/restartmanager.go.
    """
    policy = live.record.host_config.restart_policy
    if live.stopping or live.record.manually_stopped:
        return None
    if policy.name == "on-failure":
        if code == 0 or (policy.maximum_retry_count and live.record.restart_count >= policy.maximum_retry_count):
            return None
    elif policy.name not in ("always", "unless-stopped"):
        return None
    if ran >= _STEADY * 10**9:
        live.restart_delay = 0.0
    live.restart_delay = min(_LONGEST_DELAY, live.restart_delay * 2 or _FIRST_DELAY)
    return live.restart_delay


def _restart(hall: Hall, live: Live) -> None:
    if not hall.closing and live.record.status is Status.RESTARTING:
        hall.background(hall.start_again(hall, live), f"the restart of {live.id[:12]}")


def after_boot(record: Workload) -> bool:
    """Whether a new daemon starts this workload, which does not run: one whose restart was waited for, one that runs `always`, even
    if its user has stopped it, and with `unless-stopped` one that the user has not stopped. Not one that was never started.

    `on-failure` is about failures, which the beginning of a daemon is not.
    Source: docs.docker.com/engine/containers/start-containers-automatically.
    """
    if record.status is Status.RESTARTING:
        return True
    if record.status is not Status.EXITED or not record.started:
        return False
    policy = record.host_config.restart_policy.name
    return policy == "always" or (policy == "unless-stopped" and not record.manually_stopped)


def cancel_restart(live: Live) -> None:
    if live.restart_timer is not None:
        live.restart_timer.cancel()
        live.restart_timer = None
