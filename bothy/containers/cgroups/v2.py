"""Control groups, version 2: one hierarchy. Source: the kernel's Documentation/admin-guide/cgroup-v2.rst.

Processes are born inside (clone3 with CLONE_INTO_CGROUP): moving one waits for an RCU grace period. Devices are guarded by a BPF
program on the folder (`devices.py`), which goes with the folder.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from typing import Any

from bothy.containers.cgroups import devices, files
from bothy.containers.cgroups.files import Write
from bothy.errors import StageError
from bothy.oci.runtime import BlockIO, Cpu, Memory, Resources

_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")
_INIT = "/init"
_EVACUATIONS = 5  # processes may be born while others are moved
_FREEZE_SECONDS = 10.0


def writes(resources: Resources) -> list[Write]:
    """The limits as writes."""
    plan = _memory(resources.memory) if resources.memory else []
    plan += _cpu(resources.cpu) if resources.cpu else []
    if resources.pids:
        plan.append(Write("", "pids.max", str(resources.pids.limit) if resources.pids.limit > 0 else "max"))
    return plan + (_block_io(resources.block_io) if resources.block_io else [])


def _block_io(wanted: BlockIO) -> list[Write]:
    kinds = (
        ("rbps", wanted.throttle_read_bps_device), ("wbps", wanted.throttle_write_bps_device),
        ("riops", wanted.throttle_read_iops_device), ("wiops", wanted.throttle_write_iops_device),
    )  # fmt: skip
    return [Write("", "io.max", f"{t.major}:{t.minor} {kind}={t.rate}") for kind, all_ in kinds for t in all_]


def _memory(memory: Memory) -> list[Write]:
    """v2 counts swap apart from memory; the spec counts them together."""
    plan = []
    if memory.limit is not None:
        plan.append(Write("", "memory.max", str(memory.limit) if memory.limit > 0 else "max"))
    if memory.swap is not None and memory.swap != 0:
        limit = memory.limit or 0
        swap = "max" if memory.swap < 0 else str(max(0, memory.swap - max(0, limit)))
        plan.append(Write("", "memory.swap.max", swap, optional=True))
    if memory.reservation:
        plan.append(Write("", "memory.low", str(memory.reservation)))
    return plan


def weight(shares: int) -> int:
    """cpu.weight (1 to 10000) of v1's shares (2 to 262144), as the other runtimes have it."""
    return 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142


def _cpu(cpu: Cpu) -> list[Write]:
    plan = []
    if cpu.shares:
        plan.append(Write("", "cpu.weight", str(weight(cpu.shares))))
    if cpu.quota or cpu.period:
        quota = str(cpu.quota) if cpu.quota and cpu.quota > 0 else "max"
        plan.append(Write("", "cpu.max", f"{quota} {cpu.period or 100000}"))
    if cpu.cpus:
        plan.append(Write("", "cpuset.cpus", cpu.cpus))
    if cpu.mems:
        plan.append(Write("", "cpuset.mems", cpu.mems))
    return plan


class V2:
    """One container's group below the hierarchy mounted at `root`. State on disk only."""

    def __init__(self, root: str, path: str) -> None:
        self._root = root
        self._path = path
        self._folder = root + path
        self._fork_fd = -1

    def create(self, resources: Resources) -> None:
        """Make the group and set the limits. StageError names the write that failed; then nothing is left."""
        try:
            files.make(self._root, self._path)
            self._delegate()
            self._apply(writes(resources))
            if resources.devices:
                devices.attach(self._folder, resources.devices)
        except StageError:
            self.remove()
            raise
        except OSError as exc:
            self.remove()
            raise StageError("cgroup", exc.strerror or str(exc), errno=exc.errno or 0, path=str(exc.filename or "")) from exc

    def _delegate(self) -> None:
        """Have every controller that is there in every folder above ours."""
        at = self._root
        for part in ["", *self._path.strip("/").split("/")[:-1]]:
            at = f"{at}/{part}" if part else at
            there = files.read(at, "cgroup.controllers").split()
            given = files.read(at, "cgroup.subtree_control").split()
            missing = [controller for controller in _CONTROLLERS if controller in there and controller not in given]
            if missing:  # the root of all has no cgroup.type
                _hand_down(at, missing, evacuate=at == self._root and os.path.exists(f"{at}/cgroup.type"))

    def _apply(self, plan: list[Write]) -> None:
        for write in plan:
            try:
                files.write(self._folder, write.file, write.value)
            except OSError as exc:
                if not write.optional:
                    raise files.refused(write, exc) from exc

    def update(self, resources: Resources) -> None:
        """Change limits of running processes. StageError names the write that failed; earlier ones hold."""
        self._apply(writes(resources))

    def fork_fd(self) -> int:
        """A descriptor of the folder for `syscalls.fork_into_cgroup`; it belongs to this object."""
        if self._fork_fd < 0:
            self._fork_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fork_fd

    def join(self) -> None:
        """Nothing: the process was born inside, by `fork_fd`."""

    def folders(self) -> list[tuple[str, str]]:
        """The container's folder, which is all that its /sys/fs/cgroup shows."""
        return [("", self._folder)]

    def pids(self) -> list[int]:
        """Every process inside, as the caller's pid namespace numbers them."""
        return files.processes(self._folder)

    def freeze(self) -> None:
        """Stop all processes; returns when they have stopped. StageError if they do not within ten seconds (they run on)."""
        fd = os.open(f"{self._folder}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            files.write(self._folder, "cgroup.freeze", "1")
            events = select.poll()
            events.register(fd, select.POLLPRI)
            end = time.monotonic() + _FREEZE_SECONDS
            while not files.pairs(os.pread(fd, 4096, 0).decode()).get("frozen"):
                left = end - time.monotonic()
                if left <= 0:
                    self.thaw()
                    raise StageError("freeze", "the processes do not stop")
                events.poll(left * 1000)
        finally:
            os.close(fd)

    def thaw(self) -> None:
        """Let all processes go on."""
        files.write(self._folder, "cgroup.freeze", "0")

    def kill(self) -> None:
        """SIGKILL everything inside, frozen or not."""
        try:
            files.write(self._folder, "cgroup.kill", "1")
        except OSError:  # before Linux 5.14
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def remove(self) -> bool:
        """Remove the group. False if processes are still in it."""
        if self._fork_fd >= 0:
            os.close(self._fork_fd)
            self._fork_fd = -1
        return files.remove(self._folder)

    def oom_watch(self) -> tuple[int, bool]:
        """(a descriptor, True): has an exceptional event (POLLPRI) when memory has run out, among others, until it is read; -1
        if that can not be told."""
        try:
            return os.open(f"{self._folder}/memory.events", os.O_RDONLY | os.O_CLOEXEC), True
        except OSError:
            return -1, True

    def oom_count(self) -> int:
        return files.pairs(files.read(self._folder, "memory.events")).get("oom_kill", 0)

    def stats(self) -> dict[str, Any]:
        """cpu_stats, memory_stats, pids_stats, blkio_stats of the Docker Engine API (which has nanoseconds for v2's micro)."""
        cpu = files.pairs(files.read(self._folder, "cpu.stat"))
        return {
            "cpu_stats": {
                "cpu_usage": {
                    "total_usage": cpu.get("usage_usec", 0) * 1000,
                    "usage_in_usermode": cpu.get("user_usec", 0) * 1000,
                    "usage_in_kernelmode": cpu.get("system_usec", 0) * 1000,
                },
                "throttling_data": {
                    "periods": cpu.get("nr_periods", 0),
                    "throttled_periods": cpu.get("nr_throttled", 0),
                    "throttled_time": cpu.get("throttled_usec", 0) * 1000,
                },
            },
            "memory_stats": {
                "usage": files.number(files.read(self._folder, "memory.current")),
                "limit": files.number(files.read(self._folder, "memory.max")),
                "stats": files.pairs(files.read(self._folder, "memory.stat")),
            },
            "pids_stats": {
                "current": files.number(files.read(self._folder, "pids.current")),
                "limit": files.number(files.read(self._folder, "pids.max")),
            },
            "blkio_stats": _io(files.read(self._folder, "io.stat")),
        }


def _hand_down(folder: str, controllers: list[str], *, evacuate: bool) -> None:
    """Give controllers to the groups below a folder, as far as the kernel lets us.

    It refuses (EBUSY) while processes are in the folder itself: the "no internal processes" rule, from which only the root of all
    is exempt. An engine in another engine's container sees the root of a cgroup namespace, where it is itself, and all else that
    runs in that container: with `evacuate` that moves into a group of its own.
    """
    for _ in range(_EVACUATIONS if evacuate else 1):
        try:
            files.write(folder, "cgroup.subtree_control", " ".join(f"+{controller}" for controller in controllers))
            return
        except OSError as exc:
            if exc.errno != errno.EBUSY or not evacuate:
                break
        _evacuate(folder)
    for controller in controllers:  # some are refused at times (cpuset with odd partitions): take what we get
        try:
            files.write(folder, "cgroup.subtree_control", f"+{controller}")
        except OSError:
            continue


def _evacuate(folder: str) -> None:
    """Move the processes of a folder into its group `init`. What can not be moved stays."""
    try:
        leaf = files.make(folder, _INIT)
    except OSError:
        return
    for pid in files.read(folder, "cgroup.procs").split():
        if pid == "0":  # of a pid namespace that is not ours; written it would mean ourselves
            continue
        try:
            files.write(leaf, "cgroup.procs", pid)
        except OSError:  # it has ended
            continue


def _io(text: str) -> dict[str, Any]:
    """`8:0 rbytes=1 wbytes=2 rios=3 wios=4 …` lines."""
    data: list[dict[str, Any]] = []
    count: list[dict[str, Any]] = []
    for line in text.splitlines():
        device, *words = line.split()
        major, _, minor = device.partition(":")
        values = dict(word.split("=", 1) for word in words if "=" in word)
        for key, op, found in (
            ("rbytes", "read", data),
            ("wbytes", "write", data),
            ("rios", "read", count),
            ("wios", "write", count),
        ):
            if values.get(key, "").isdecimal():
                found.append({"major": int(major), "minor": int(minor), "op": op, "value": int(values[key])})
    return {"io_service_bytes_recursive": data, "io_serviced_recursive": count}
