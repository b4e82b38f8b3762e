"""Limits of machines that run, as `update` changes them, and after the next start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bothy.containers.cgroups import hierarchies
from bothy.paths import Paths
from tests.support.engine import TestEngine
from tests.support.sessions import settling

pytestmark = pytest.mark.qemu

MIB = 1 << 20


@pytest.fixture
def vm(engine: TestEngine, machines: None) -> Iterator[TestEngine]:
    """The engine, with a machine `t-vm` of 256 MiB and two CPUs."""
    with settling(engine):
        engine("run", "-d", "--vm", "--name", "t-vm", "-m", "256m", "--cpus", "2", "busybox", "sleep", "1000", timeout=180).ok()
        yield engine
        engine("rm", "-f", "t-vm").ok()


def total(engine: TestEngine) -> int:
    return int(engine("exec", "t-vm", "grep", "MemTotal", "/proc/meminfo").ok().out.split()[1]) // 1024


def quota(engine: TestEngine) -> str:
    """What QEMU may use of processors, as the kernel has it."""
    scope, found = Paths(engine.root, engine.run_folder).scope, hierarchies.of_this_host()
    ident = engine.inspect("t-vm")["Id"]
    if found.version == 1:
        return Path(found.v1["cpu"], scope, ident, "cpu.cfs_quota_us").read_text().strip()
    return Path(found.v2, scope, ident, "cpu.max").read_text().split()[0]


def test_memory_now_and_after_the_next_start(vm: TestEngine) -> None:
    whole = total(vm)
    vm("update", "--memory", "128m", "t-vm").ok()
    assert vm.inspect("t-vm")["HostConfig"]["Memory"] == 128 * MIB
    assert 110 <= whole - total(vm) <= 160
    assert "128MiB" in vm("stats", "--no-stream", "t-vm").ok().out
    done = vm("update", "--memory", "512m", "t-vm")
    assert done.code
    assert "256 MiB that it was started with" in done.err
    assert vm.inspect("t-vm")["HostConfig"]["Memory"] == 128 * MIB
    vm("update", "--memory", "256m", "t-vm").ok()
    assert total(vm) == whole
    vm("stop", "-t", "0", "t-vm").ok()
    vm("update", "--memory", "384m", "t-vm").ok()
    vm("start", "t-vm", timeout=180).ok()
    assert 110 <= total(vm) - whole <= 140


def test_processors(vm: TestEngine) -> None:
    vm("update", "--cpus", "0.5", "t-vm").ok()
    assert quota(vm) == "50000"
    done = vm("update", "--cpus", "3", "t-vm")
    assert done.code
    assert "the 2 CPUs that it was started with" in done.err
    assert quota(vm) == "50000"
    vm("update", "--cpuset-cpus", "0", "--cpu-shares", "512", "t-vm").ok()
    assert vm("exec", "t-vm", "nproc").ok().line == "2"


def test_processes(vm: TestEngine) -> None:
    vm("update", "--pids-limit", "3", "t-vm").ok()
    assert vm("exec", "t-vm", "sh", "-c", "sleep 1 & sleep 1 & sleep 1 & wait").code
    vm("update", "--pids-limit", "-1", "t-vm").ok()
    assert vm("exec", "t-vm", "sh", "-c", "sleep 1 & sleep 1 & sleep 1 & wait").code == 0
