"""Control groups, version 1: one hierarchy a controller (or a few). Source: the kernel's Documentation/admin-guide/cgroup-v1.

A process joins by writing `0` to `tasks` itself: moving another one, or by `cgroup.procs`, takes a lock that waits for an RCU grace
period (measured: 6 ms a hierarchy, against 0.1).
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from bothy.containers.cgroups import files
from bothy.containers.cgroups.files import UNLIMITED, Write
from bothy.errors import StageError
from bothy.oci.runtime import BlockIO, Cpu, DeviceRule, Memory, Resources

ALWAYS = ("memory", "cpu", "cpuacct", "pids", "devices", "freezer", "blkio")
_FREEZE_SECONDS = 10.0


def writes(resources: Resources) -> list[Write]:
    """The limits as writes, in the order in which the kernel takes them on a fresh group."""
    plan = _memory(resources.memory) if resources.memory else []
    plan += _cpu(resources.cpu) if resources.cpu else []
    if resources.pids:
        plan.append(Write("pids", "pids.max", str(resources.pids.limit) if resources.pids.limit > 0 else "max"))
    plan += _block_io(resources.block_io) if resources.block_io else []
    return plan + [_device(rule) for rule in resources.devices]


def _memory(memory: Memory) -> list[Write]:
    plan = []
    if memory.limit is not None:
        plan.append(Write("memory", "memory.limit_in_bytes", str(memory.limit or UNLIMITED)))
    if memory.swap is not None and memory.swap != 0:
        plan.append(Write("memory", "memory.memsw.limit_in_bytes", str(memory.swap), optional=True))
    if memory.reservation:
        plan.append(Write("memory", "memory.soft_limit_in_bytes", str(memory.reservation)))
    if memory.disable_oom_killer:
        plan.append(Write("memory", "memory.oom_control", "1"))
    if memory.swappiness is not None:
        plan.append(Write("memory", "memory.swappiness", str(memory.swappiness), optional=True))
    return plan


def _cpu(cpu: Cpu) -> list[Write]:
    plan = []
    if cpu.shares:
        plan.append(Write("cpu", "cpu.shares", str(cpu.shares)))
    if cpu.period:
        plan.append(Write("cpu", "cpu.cfs_period_us", str(cpu.period)))
    if cpu.quota:
        plan.append(Write("cpu", "cpu.cfs_quota_us", str(cpu.quota)))
    if cpu.cpus:
        plan.append(Write("cpuset", "cpuset.cpus", cpu.cpus))
    if cpu.mems:
        plan.append(Write("cpuset", "cpuset.mems", cpu.mems))
    return plan


def _block_io(wanted: BlockIO) -> list[Write]:
    kinds = (
        ("read_bps", wanted.throttle_read_bps_device), ("write_bps", wanted.throttle_write_bps_device),
        ("read_iops", wanted.throttle_read_iops_device), ("write_iops", wanted.throttle_write_iops_device),
    )  # fmt: skip
    return [Write("blkio", f"blkio.throttle.{kind}_device", f"{t.major}:{t.minor} {t.rate}") for kind, all_ in kinds for t in all_]


def _device(rule: DeviceRule) -> Write:
    if rule.type == "a":
        return Write("devices", "devices.allow" if rule.allow else "devices.deny", "a")
    major, minor = ("*" if n is None else str(n) for n in (rule.major, rule.minor))
    return Write("devices", "devices.allow" if rule.allow else "devices.deny", f"{rule.type} {major}:{minor} {rule.access}")


class V1:
    """One container's groups. `roots` are the mount points of the hierarchies by controller; `path` is the same below each.

    State on disk only: an object made later for the same path does the same.
    """

    def __init__(self, roots: dict[str, str], path: str) -> None:
        self._roots = roots
        self._path = path

    def _folder(self, controller: str) -> str:
        root = self._roots.get(controller)
        return root + self._path if root else ""

    def create(self, resources: Resources) -> None:
        """Make the groups and set the limits. StageError names the write that failed; then nothing is left."""
        plan = writes(resources)
        wanted = [name for name in (*ALWAYS, "cpuset") if name in self._roots]
        if not any(write.controller == "cpuset" for write in plan):
            wanted = [name for name in wanted if name != "cpuset"]
        try:
            for root in dict.fromkeys(self._roots[name] for name in wanted):
                files.make(root, self._path)
            if "cpuset" in wanted:
                self._fill_cpuset()
            self._apply(plan)
        except StageError:
            self.remove()
            raise
        except OSError as exc:
            self.remove()
            raise StageError("cgroup", exc.strerror or str(exc), errno=exc.errno or 0, path=str(exc.filename or "")) from exc

    def update(self, resources: Resources) -> None:
        """Change limits of running processes. StageError names the write that failed; earlier ones hold."""
        plan = writes(resources)
        if any(write.controller == "cpuset" for write in plan) and not os.path.isdir(self._folder("cpuset")):
            files.make(self._roots["cpuset"], self._path)
            self._fill_cpuset()
            for pid in self.pids():
                files.write(self._folder("cpuset"), "cgroup.procs", str(pid))
        limit = next((w for w in plan if w.file == "memory.limit_in_bytes"), None)
        swap = next((w for w in plan if w.file == "memory.memsw.limit_in_bytes"), None)
        if limit and swap and self._grows(int(limit.value)):  # memory may never exceed memory plus swap, also on the way
            plan.remove(swap)
            plan.insert(plan.index(limit), swap)
        self._apply(plan)

    def _grows(self, limit: int) -> bool:
        now = files.number(files.read(self._folder("memory"), "memory.memsw.limit_in_bytes"))
        return bool(now) and (limit < 0 or limit > now)

    def _apply(self, plan: list[Write]) -> None:
        """Write everything; the files of one folder that take several values stay open between them."""
        opened: dict[tuple[str, str], int] = {}
        try:
            for write in plan:
                key = write.controller, write.file
                try:
                    if key not in opened:
                        opened[key] = os.open(f"{self._folder(write.controller)}/{write.file}", os.O_WRONLY | os.O_CLOEXEC)
                    os.write(opened[key], write.value.encode())
                except OSError as exc:
                    if not write.optional:
                        raise files.refused(write, exc) from exc
        finally:
            for fd in opened.values():
                os.close(fd)

    def _fill_cpuset(self) -> None:
        """A new cpuset has no processors and takes no process until it has: give each level its parent's."""
        root, at = self._roots["cpuset"], ""
        for part in self._path.strip("/").split("/"):
            above, at = root + at, f"{at}/{part}"
            for name in ("cpuset.cpus", "cpuset.mems"):
                if not files.read(root + at, name).strip():
                    files.write(root + at, name, files.read(above, name).strip())

    def fork_fd(self) -> int:
        """-1: no hierarchy of this version can be born into."""
        return -1

    def join(self) -> None:
        """Move the calling (single-threaded) process in."""
        for root in dict.fromkeys(self._roots.values()):
            folder = root + self._path
            try:
                files.write(folder, "tasks", "0")
            except FileNotFoundError:
                continue

    def folders(self) -> list[tuple[str, str]]:
        """(name, path) of the container's folders, as its /sys/fs/cgroup shows them."""
        roots = dict.fromkeys(root for name, root in self._roots.items() if name in (*ALWAYS, "cpuset"))
        found = [(os.path.basename(root), root + self._path) for root in roots]
        return [(name, folder) for name, folder in found if os.path.isdir(folder)]

    def pids(self) -> list[int]:
        """Every process inside, as the caller's pid namespace numbers them."""
        return files.processes(self._folder("freezer") or self._folder("pids"))

    def freeze(self) -> None:
        """Stop all processes; returns when they have stopped. StageError if they do not within ten seconds (they run on)."""
        folder = self._folder("freezer")
        end = time.monotonic() + _FREEZE_SECONDS
        pause = 0.0005
        while time.monotonic() < end:
            files.write(folder, "freezer.state", "FROZEN")  # once more each time: it catches tasks that were being born
            if files.read(folder, "freezer.state").strip() == "FROZEN":
                return
            time.sleep(pause)  # the kernel has no event for this
            pause = min(pause * 2, 0.05)
        self.thaw()
        raise StageError("freeze", "the processes do not stop")

    def thaw(self) -> None:
        """Let all processes go on."""
        files.write(self._folder("freezer"), "freezer.state", "THAWED")

    def kill(self) -> None:
        """SIGKILL everything inside, frozen or not."""
        for _ in range(64):
            found = self.pids()
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if set(self.pids()) <= set(found):
                break
        if os.path.isdir(self._folder("freezer")):
            self.thaw()

    def remove(self) -> bool:
        """Remove the groups. False if processes are still in them."""
        gone = [files.remove(root + self._path) for root in dict.fromkeys(self._roots.values())]
        return all(gone)

    def oom_watch(self) -> tuple[int, bool]:
        """(a descriptor, False): readable when memory has run out, just before the kernel kills; -1 if that can not be told."""
        folder = self._folder("memory")
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(f"{folder}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                files.write(folder, "cgroup.event_control", f"{event} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(event)
            return -1, False
        return event, False

    def oom_count(self) -> int:
        return files.pairs(files.read(self._folder("memory"), "memory.oom_control")).get("oom_kill", 0)

    def stats(self) -> dict[str, Any]:
        """cpu_stats, memory_stats, pids_stats, blkio_stats of the Docker Engine API."""
        memory, cpu, cpuacct, pids = (self._folder(name) for name in ("memory", "cpu", "cpuacct", "pids"))
        usage = {key: files.number(files.read(cpuacct, f"cpuacct.{name}")) for key, name in _CPU_USAGE.items()}
        per_cpu = [int(n) for n in files.read(cpuacct, "cpuacct.usage_percpu").split()]
        throttled = files.pairs(files.read(cpu, "cpu.stat"))
        return {
            "cpu_stats": {
                "cpu_usage": {**usage, "percpu_usage": per_cpu},
                "throttling_data": {
                    "periods": throttled.get("nr_periods", 0),
                    "throttled_periods": throttled.get("nr_throttled", 0),
                    "throttled_time": throttled.get("throttled_time", 0),
                },
            },
            "memory_stats": {
                "usage": files.number(files.read(memory, "memory.usage_in_bytes")),
                "max_usage": files.number(files.read(memory, "memory.max_usage_in_bytes")),
                "failcnt": files.number(files.read(memory, "memory.failcnt")),
                "limit": files.number(files.read(memory, "memory.limit_in_bytes")),
                "stats": files.pairs(files.read(memory, "memory.stat")),
            },
            "pids_stats": {
                "current": files.number(files.read(pids, "pids.current")),
                "limit": files.number(files.read(pids, "pids.max")),
            },
            "blkio_stats": {
                "io_service_bytes_recursive": _blkio(files.read(self._folder("blkio"), _BLKIO.format("service_bytes"))),
                "io_serviced_recursive": _blkio(files.read(self._folder("blkio"), _BLKIO.format("serviced"))),
            },
        }


_CPU_USAGE = {"total_usage": "usage", "usage_in_usermode": "usage_user", "usage_in_kernelmode": "usage_sys"}
_BLKIO = "blkio.throttle.io_{}_recursive"


def _blkio(text: str) -> list[dict[str, Any]]:
    """`8:0 Read 4096` lines."""
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        parts = line.split()
        if len(parts) == 3:
            major, _, minor = parts[0].partition(":")
            found.append({"major": int(major), "minor": int(minor), "op": parts[1].lower(), "value": int(parts[2])})
    return found
