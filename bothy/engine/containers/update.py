"""update: other limits and another restart policy for a workload, whether it runs or not.

    asked ─▶ merged with what it has, checked ─▶ recorded ─▶ [running] told to its keeper ─▶ event
                                                     └── taken back when the kernel refuses ──┘

Source of the rules and of the words: moby daemon/update.go, container/container_unix.go `UpdateContainer`. One rule is kinder:
where there was no limit of memory and swap together, a new memory limit brings one of twice its size along, as at creation.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace

from bothy.engine import limits
from bothy.engine.containers import create
from bothy.engine.hall import Hall
from bothy.engine.model import HostConfig, Status, Wall
from bothy.engine.workloads import Live
from bothy.errors import BothyError, Conflict, NotFound, Unsupported
from bothy.jsonable import PLAIN
from bothy.log import logger
from bothy.oci.runtime import Cpu, Memory, Pids, Resources

_log = logger("engine")
_FIELDS = (
    "cpu_shares", "nano_cpus", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems", "memory", "memory_swap",
    "memory_reservation",
)  # fmt: skip
_EXCLUSIVE = (
    ("nano_cpus", "cpu_period", "Nano CPUs cannot be updated as CPU Period has already been set"),
    ("nano_cpus", "cpu_quota", "Nano CPUs cannot be updated as CPU Quota has already been set"),
    ("cpu_period", "nano_cpus", "CPU Period cannot be updated as NanoCPUs has already been set"),
    ("cpu_quota", "nano_cpus", "CPU Quota cannot be updated as NanoCPUs has already been set"),
)


async def update(hall: Hall, live: Live, asked: HostConfig) -> list[str]:
    """Change the limits of `asked` that are not zero (`pids_limit`: not None), and the restart policy if it names one; warnings.

    Raises Invalid, Conflict, Unsupported, NotFound; what the kernel or a guest refuses as Broken. Then nothing has changed.
    """
    async with live.lock:
        if live.removed:
            raise NotFound(f"No such container: {live.id}")
        record = live.record
        if record.status in (Status.REMOVING, Status.DEAD):
            raise Conflict(f'Cannot update container {live.id}: container is marked for removal and cannot be "update"')
        before = record.host_config
        create.check_policy(HostConfig(restart_policy=asked.restart_policy))
        try:
            after = merged(before, asked, machine=record.wall is Wall.VM)
        except Conflict as exc:
            raise Conflict(f"Cannot update container {live.id}: {exc.message}", hint=exc.hint) from None
        warnings = limits.check(after, hall.host, machine=record.wall is Wall.VM)
        hall.workloads.amend(live, host_config=after)
        if record.status in (Status.RUNNING, Status.PAUSED) and live.keeper is not None and _resources(before, asked, after):
            try:
                await live.keeper.update(PLAIN.to_data(_resources(before, asked, after)))
            except BaseException as exc:
                await _take_back(hall, live, before, asked)
                if isinstance(exc, BothyError):
                    exc.message = f"Cannot update container {live.id}: {exc.message}"
                raise
        if asked.restart_policy.name:
            live.restart_delay = 0.0
        hall.tell(live.record, "update")
        return [w for w in warnings if w not in record.warnings]


def merged(before: HostConfig, asked: HostConfig, *, machine: bool) -> HostConfig:
    """What it will have. Raises Conflict, Unsupported, Invalid for changes that are none."""
    if asked.blkio_weight:
        raise Unsupported("block I/O weight can not be updated: bothy does not set it", hint="leave out --blkio-weight")
    if asked.cpu_realtime_period or asked.cpu_realtime_runtime:
        raise Unsupported("realtime CPU limits can not be updated: bothy does not set them", hint="leave out --cpu-rt-*")
    for wanted, has, problem in _EXCLUSIVE:
        if getattr(asked, wanted) > 0 and getattr(before, has) > 0:
            raise Conflict(f"Conflicting options: {problem}")
    changes = {name: getattr(asked, name) for name in _FIELDS if getattr(asked, name)}
    if asked.memory and not asked.memory_swap:
        if machine or not before.memory_swap:
            changes["memory_swap"] = 2 * asked.memory
        elif 0 < before.memory_swap < asked.memory:
            raise Conflict(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
                hint=f"--memory-swap {2 * asked.memory >> 20}m too, or -1",
            )
    if asked.pids_limit is not None:
        changes["pids_limit"] = asked.pids_limit
    if asked.restart_policy.name:
        if before.auto_remove and asked.restart_policy.name != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        changes["restart_policy"] = asked.restart_policy
    return replace(before, **changes)


def _resources(before: HostConfig, asked: HostConfig, after: HostConfig) -> Resources | None:
    """The limits to set in a running workload; None where only the policy changes."""
    wanted = {f.name for f in dataclasses.fields(HostConfig) if getattr(before, f.name) != getattr(after, f.name)}
    wanted |= {name for name in _FIELDS if getattr(asked, name)}
    full = limits.resources(after, [])
    about_memory = bool(wanted & {"memory", "memory_swap", "memory_reservation"})
    about_cpu = bool(wanted & {name for name in _FIELDS if "cpu" in name})
    pids = Pids(after.pids_limit or -1) if asked.pids_limit is not None else None
    if not (about_memory or about_cpu or pids):
        return None
    return Resources(memory=full.memory if about_memory else None, cpu=full.cpu if about_cpu else None, pids=pids)


def _unlimited(old: Resources, asked: HostConfig) -> Resources:
    """What there was no limit of, as such: what is not named would stay as it is."""
    memory, cpu = old.memory, old.cpu
    if asked.memory and (memory is None or memory.limit is None):
        memory = replace(memory or Memory(), limit=-1, swap=-1)
    if (asked.nano_cpus or asked.cpu_quota) and (cpu is None or cpu.quota is None):
        cpu = replace(cpu or Cpu(), quota=-1)
    return replace(old, memory=memory, cpu=cpu)


async def _take_back(hall: Hall, live: Live, before: HostConfig, asked: HostConfig) -> None:
    """After a refusal: the record as it was, and of the limits those that there were. What fails is logged."""
    try:
        hall.workloads.amend(live, host_config=before)
        if live.keeper is not None and (old := _resources(before, asked, before)):
            await live.keeper.update(PLAIN.to_data(_unlimited(old, asked)))
    except BothyError as exc:
        _log.warning("the limits of %s were not taken back: %s", live.id[:12], exc)
