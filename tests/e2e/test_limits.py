"""Limits: memory, processors, processes, files; and what the workload sees of them."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import TestEngine

EAT = "x=a; while :; do x=$x$x; done"


def test_memory_limit_kills(bothy: Walled) -> None:
    done = bothy("run", "--name", "t-oom", "--memory", "128m", "--memory-swap", "128m", "busybox", "sh", "-c", EAT)
    assert done.code == 137
    state = bothy.engine.inspect("t-oom")["State"]
    assert state["OOMKilled"] is True
    bothy("rm", "t-oom").ok()


@pytest.mark.qemu
def test_a_machine_may_see_more_memory_than_the_host_has(settled: TestEngine, machines: None) -> None:
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    done = settled(
        "run", "--rm", "--vm", "--memory", f"{host + 8}g", "busybox", "grep", "MemTotal", "/proc/meminfo", timeout=300
    ).ok()
    assert int(done.out.split()[1]) >> 20 > host
    swap = int(Path("/proc/meminfo").read_text().partition("SwapTotal:")[2].split()[0]) >> 20
    assert ("the host has less memory than the machine will see" in done.err) is (swap < 8)


def test_cpus(bothy: Walled) -> None:
    if bothy.wall == "vm":
        assert bothy("run", "--rm", "--cpus", "4", "busybox", "nproc", timeout=300).ok().line == "4"
    else:
        seen = bothy(
            "run",
            "--rm",
            "--cpus",
            "0.5",
            "busybox",
            "sh",
            "-c",
            "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us || cat /sys/fs/cgroup/cpu.max",
        ).ok()
        assert seen.line.split()[0] == "50000"


def test_cpuset(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-set", "--cpuset-cpus", "0", "busybox", "sleep", "300").ok()
    pid = bothy.engine.inspect("t-set")["State"]["Pid"]
    with open(f"/proc/{pid}/status") as status:
        assert "Cpus_allowed_list:\t0\n" in status.read()
    bothy("rm", "-f", "t-set").ok()


def test_pids_limit(bothy: Walled) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 5 & done; echo all"
    done = bothy("run", "--rm", "--pids-limit", "10", "busybox", "sh", "-c", script)
    assert "all" not in done.out
    assert "fork" in done.err


def test_ulimit_is_set_or_clamped_and_told(bothy: Walled) -> None:
    show = ("busybox", "sh", "-c", "ulimit -n; ulimit -Hn; cat /proc/sys/fs/nr_open")
    assert bothy("run", "--rm", "--ulimit", "nofile=100:200", *show).ok().out.startswith("100\n200\n")
    # More than any process of that kernel can have.
    out = bothy("run", "--name", "t-clamped", "--ulimit", f"nofile=100:{1 << 40}", *show).ok().out.split()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if bothy.wall == "container" and not may_raise() else int(out[2])
    assert out[:2] == ["100", str(hard)]
    told = [f"ulimit nofile is clamped to {hard}, bothy may not raise it on this host"]
    assert bothy.engine.inspect("t-clamped")["Warnings"] == told


def may_raise() -> bool:
    """Whether this process, and so the engine, has CAP_SYS_RESOURCE."""
    with open("/proc/self/status") as status:
        return bool(int(next(line.split()[1] for line in status if line.startswith("CapEff")), 16) >> 24 & 1)


def test_shm_size(bothy: Walled) -> None:
    assert "size=8192k" in bothy("run", "--rm", "--shm-size", "8m", "busybox", "grep", "/dev/shm", "/proc/mounts").ok().out


def test_impossible_limits_are_refused(bothy: Walled) -> None:
    for flags in (
        ("--memory", "1m"),
        ("--cpus", "-1"),
        ("--memory", "x"),
        ("--cpuset-cpus", "900"),
        ("--pids-limit", "x"),
        ("--ulimit", "zzz=1"),
    ):
        done = bothy("run", "--rm", *flags, "busybox", "true")
        assert done.code == 125, flags
        assert "Traceback" not in done.err
        assert done.err.startswith("bothy: ")
