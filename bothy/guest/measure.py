"""How the guest fares: processes, memory, processor time, network counters, in the shapes of the Docker Engine API. See proc(5)."""

from __future__ import annotations

import os
from typing import Any

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def pids() -> list[int]:
    """Every process of the guest but the kernel's own threads and the agent."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                if _read(f"/proc/{name}/cmdline") or "\nVmSize:" in _read(f"/proc/{name}/status"):
                    found.append(int(name))
            except OSError:
                continue
    return found


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since the boot."""
    return _table("/proc/vmstat").get("oom_kill", 0)


def stats() -> dict[str, Any]:
    memory = {name: 1024 * value for name, value in _table("/proc/meminfo").items()}
    cache = memory.get("Cached", 0) + memory.get("Buffers", 0)
    usage = memory["MemTotal"] - memory["MemFree"] - cache
    return {
        "cpu_stats": _cpu(),
        "memory_stats": {"usage": usage, "limit": memory["MemTotal"], "stats": {"cache": cache, "inactive_file": 0}},
        "pids_stats": {"current": len(pids())},
        "blkio_stats": {"io_service_bytes_recursive": _disks()},
        "networks": _networks(),
    }


def _cpu() -> dict[str, Any]:
    """user, nice, system, idle, iowait, irq, softirq, steal, in ticks."""
    lines = [line.split() for line in _read("/proc/stat").splitlines() if line.startswith("cpu")]
    ticks = [int(word) * _TICK for word in lines[0][1:9]]
    user, system = ticks[0] + ticks[1], ticks[2] + ticks[5] + ticks[6]
    return {
        "cpu_usage": {"total_usage": user + system, "usage_in_kernelmode": system, "usage_in_usermode": user},
        "system_cpu_usage": sum(ticks),
        "online_cpus": len(lines) - 1,
    }


def _disks() -> list[dict[str, Any]]:
    found = []
    for line in _read("/proc/diskstats").splitlines():
        words = line.split()
        if words[2].startswith("vd"):
            place = {"major": int(words[0]), "minor": int(words[1])}
            found += [{**place, "op": "read", "value": int(words[5]) * 512}, {**place, "op": "write", "value": int(words[9]) * 512}]
    return found


def _networks() -> dict[str, Any]:
    names = ("bytes", "packets", "errors", "dropped")
    found = {}
    for line in _read("/proc/net/dev").splitlines()[2:]:
        name, _, counters = line.partition(":")
        numbers = [int(word) for word in counters.split()]
        if name.strip() != "lo":
            rx = {f"rx_{key}": numbers[index] for index, key in enumerate(names)}
            found[name.strip()] = rx | {f"tx_{key}": numbers[8 + index] for index, key in enumerate(names)}
    return found


def _table(path: str) -> dict[str, int]:
    return {words[0].rstrip(":"): int(words[1]) for words in map(str.split, _read(path).splitlines())}


def _read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.readall().decode(errors="replace")
