"""How the guest fares: processes, memory, processor time, network counters, in the shapes of the Docker Engine API. See proc(5)."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from bothy.guest import early

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


class Memory(NamedTuple):
    """Bytes that are used, for whatever; of these, the programs' own; bytes that are free."""

    used: int = 0
    anon: int = 0
    free: int = 0


def memory() -> Memory:
    """How the machine's memory is used now."""
    known = _memory()
    return Memory(known["MemTotal"] - known["MemFree"], known["AnonPages"], known["MemFree"])


def stats(own: Memory) -> dict[str, Any]:
    """Of the machine as it is seen inside. `own`: how its memory was used before there was any program; the limit of memory is for
    the keeper to tell."""
    known = _memory()
    used = known["MemTotal"] - known["MemFree"]
    kinds = {f"{list_}_{kind}": known[f"{list_.title()}({kind})"] for list_ in ("active", "inactive") for kind in ("anon", "file")}
    kinds |= {"anon": max(0, known["AnonPages"] - own.anon), "file": kinds["active_file"] + kinds["inactive_file"]}
    return {
        "cpu_stats": _cpu(),
        "memory_stats": {"usage": max(used - own.used, kinds["anon"] + kinds["file"]), "limit": known["MemTotal"], "stats": kinds},
        "pids_stats": {"current": len(pids()), "limit": _most_pids()},
        "blkio_stats": _disks(),
        "networks": _networks(),
    }


def _memory() -> dict[str, int]:
    return {name: 1024 * value for name, value in _table("/proc/meminfo").items()}


def _most_pids() -> int:
    """The limit of processes, 0 without one."""
    try:
        limit = _read(f"{early.PROGRAMS}/pids.max").strip()
    except FileNotFoundError:
        return 0
    return int(limit) if limit.isdecimal() else 0


def _cpu() -> dict[str, Any]:
    """user, nice, system, idle, iowait, irq, softirq, steal, in ticks."""
    lines = [line.split() for line in _read("/proc/stat").splitlines() if line.startswith("cpu")]
    ticks = [int(word) * _TICK for word in lines[0][1:9]]
    user, system = ticks[0] + ticks[1], ticks[2] + ticks[5] + ticks[6]
    each = [sum(int(line[at]) for at in (1, 2, 3, 6, 7)) * _TICK for line in lines[1:]]
    return {
        "cpu_usage": {
            "total_usage": user + system, "usage_in_kernelmode": system, "usage_in_usermode": user,
            "percpu_usage": each,
        },
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        "system_cpu_usage": sum(ticks),
        "online_cpus": len(lines) - 1,
    }  # fmt: skip


def _disks() -> dict[str, list[dict[str, Any]]]:
    """Bytes and requests, of the image's disk and of the machine's own. See iostats.rst."""
    sizes, requests = [], []
    for line in _read("/proc/diskstats").splitlines():
        words = line.split()
        if words[2].startswith("vd"):
            for op, at in (("read", 3), ("write", 7)):
                place = {"major": int(words[0]), "minor": int(words[1]), "op": op}
                requests.append({**place, "value": int(words[at])})
                sizes.append({**place, "value": int(words[at + 2]) * 512})
    return {"io_service_bytes_recursive": sizes, "io_serviced_recursive": requests}


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
