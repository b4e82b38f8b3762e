"""Limits as writes, hierarchies found, numbers read; on folders made up for the purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothy.containers.cgroups import files, v1, v2
from bothy.containers.cgroups.hierarchies import Hierarchies, discover
from bothy.errors import StageError
from bothy.oci.runtime import Cpu, DeviceRule, Memory, Pids, Resources

HYBRID = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 31 0:32 / /elsewhere/memory rw,relatime - cgroup cgroup rw,memory
"""
LIMITS = Resources(
    memory=Memory(limit=64 << 20, swap=128 << 20, reservation=32 << 20),
    cpu=Cpu(shares=512, quota=50000, period=100000, cpus="0"),
    pids=Pids(100),
)


def lines(plan: list[files.Write]) -> list[str]:
    return [f"{write.file}={write.value}" for write in plan]


def test_discover_hybrid() -> None:
    found = discover(HYBRID)
    assert found.v1["cpu"] == found.v1["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert found.v1["memory"] == "/sys/fs/cgroup/memory"
    assert "name=systemd" not in found.v1
    assert (found.v2, found.version) == ("/sys/fs/cgroup/unified", 1)


def test_discover_v2_and_nothing() -> None:
    found = discover("30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n")
    assert (found.v1, found.v2, found.version) == ({}, "/sys/fs/cgroup", 2)
    assert discover("garbage\n").version == 0


def test_v1_writes_memory_before_memory_and_swap() -> None:
    assert lines(v1.writes(LIMITS)) == [
        "memory.limit_in_bytes=67108864",
        "memory.memsw.limit_in_bytes=134217728",
        "memory.soft_limit_in_bytes=33554432",
        "cpu.shares=512",
        "cpu.cfs_period_us=100000",
        "cpu.cfs_quota_us=50000",
        "cpuset.cpus=0",
        "pids.max=100",
    ]


def test_v2_writes_swap_apart() -> None:
    assert lines(v2.writes(LIMITS)) == [
        "memory.max=67108864",
        "memory.swap.max=67108864",
        "memory.low=33554432",
        "cpu.weight=20",
        "cpu.max=50000 100000",
        "cpuset.cpus=0",
        "pids.max=100",
    ]


def test_unlimited() -> None:
    free = Resources(memory=Memory(limit=-1, swap=-1), pids=Pids(-1), cpu=Cpu(quota=-1))
    assert lines(v1.writes(free)) == [
        "memory.limit_in_bytes=-1",
        "memory.memsw.limit_in_bytes=-1",
        "cpu.cfs_quota_us=-1",
        "pids.max=max",
    ]
    assert lines(v2.writes(free)) == ["memory.max=max", "memory.swap.max=max", "cpu.max=max 100000", "pids.max=max"]


def test_nothing_asked_nothing_written() -> None:
    assert v1.writes(Resources()) == v2.writes(Resources()) == []


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000), (0, 1), (999999, 10000)])
def test_weights(shares: int, weight: int) -> None:
    assert v2.weight(shares) == weight


def test_device_rules_in_v1s_words() -> None:
    rules = [
        DeviceRule(allow=False),
        DeviceRule(allow=True, type="c", major=1, minor=3),
        DeviceRule(allow=True, type="b", access="m"),
    ]
    assert lines(v1.writes(Resources(devices=rules))) == ["devices.deny=a", "devices.allow=c 1:3 rwm", "devices.allow=b *:* m"]


def fake_v2(root: Path, controllers: str) -> V2Fixture:
    root.mkdir()
    (root / "cgroup.controllers").write_text(controllers)
    (root / "cgroup.subtree_control").write_text("")
    return V2Fixture(root)


class V2Fixture:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.group = Hierarchies({}, str(root)).at("/scope/one")


def test_v2_delegates_what_is_there_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    fixture = fake_v2(tmp_path / "cg", "cpu memory hugetlb")
    with pytest.raises(StageError, match=r"memory\.max = 67108864: this host has no such limit$") as caught:
        fixture.group.create(LIMITS)
    assert caught.value.stage == "cgroup"
    assert (fixture.root / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert not (fixture.root / "scope/one").exists()


def test_controllers(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory hugetlb\n")
    assert Hierarchies({}, str(tmp_path)).controllers() == {"cpu", "memory", "hugetlb"}
    assert Hierarchies({"pids": "/p", "cpu": "/c"}, str(tmp_path)).controllers() == {"pids", "cpu"}
    assert Hierarchies().controllers() == set()


def test_a_limit_of_a_group_that_is_gone(tmp_path: Path) -> None:
    fixture = fake_v2(tmp_path / "cg", "")
    with pytest.raises(StageError, match=r": No such file or directory$"):
        fixture.group.update(LIMITS)


def test_v1_failure_leaves_nothing(tmp_path: Path) -> None:
    roots = {name: str(tmp_path / name) for name in ("memory", "pids", "freezer")}
    for root in roots.values():
        Path(root).mkdir()
    with pytest.raises(StageError, match=r"memory\.limit_in_bytes"):
        Hierarchies(roots).at("/scope/one").create(LIMITS)
    assert [list((tmp_path / name / "scope").iterdir()) for name in roots] == [[], [], []]


def test_v1_stats(tmp_path: Path) -> None:
    roots = {name: str(tmp_path / name) for name in ("memory", "cpu", "cpuacct", "pids", "blkio")}
    group = {name: tmp_path / name / "one" for name in roots}
    for folder in group.values():
        folder.mkdir(parents=True)
    (group["memory"] / "memory.usage_in_bytes").write_text("4096\n")
    (group["memory"] / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (group["memory"] / "memory.stat").write_text("cache 1\nrss 2\n")
    (group["memory"] / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (group["cpuacct"] / "cpuacct.usage").write_text("55\n")
    (group["pids"] / "pids.current").write_text("7\n")
    (group["pids"] / "pids.max").write_text("max\n")
    (group["blkio"] / "blkio.throttle.io_service_bytes_recursive").write_text("8:0 Read 512\n8:0 Total 512\nTotal 512\n")
    cgroup = Hierarchies(roots).at("/one")
    stats = cgroup.stats()
    assert stats["memory_stats"]["usage"] == 4096
    assert stats["memory_stats"]["limit"] == 0
    assert stats["memory_stats"]["stats"] == {"cache": 1, "rss": 2}
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] == 55
    assert stats["pids_stats"] == {"current": 7, "limit": 0}
    assert stats["blkio_stats"]["io_service_bytes_recursive"][0] == {"major": 8, "minor": 0, "op": "read", "value": 512}
    assert cgroup.oom_count() == 3


def test_v2_stats(tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    (one / "cpu.stat").write_text("usage_usec 7\nuser_usec 3\nsystem_usec 4\nnr_throttled 2\nthrottled_usec 9\n")
    (one / "memory.current").write_text("4096\n")
    (one / "memory.max").write_text("max\n")
    (one / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (one / "io.stat").write_text("254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n254:1\n")
    (one / "cgroup.procs").write_text("11\n12\n")
    (one / "below").mkdir()
    (one / "below/cgroup.procs").write_text("13\n")
    cgroup = Hierarchies({}, str(tmp_path)).at("/one")
    stats = cgroup.stats()
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] == 7000
    assert stats["cpu_stats"]["throttling_data"]["throttled_time"] == 9000
    assert stats["memory_stats"]["limit"] == 0
    assert stats["blkio_stats"]["io_service_bytes_recursive"] == [
        {"major": 254, "minor": 0, "op": "read", "value": 10},
        {"major": 254, "minor": 0, "op": "write", "value": 20},
    ]
    assert cgroup.oom_count() == 1
    assert cgroup.pids() == [11, 12, 13]


def test_a_group_that_is_gone_reads_as_nothing(tmp_path: Path) -> None:
    cgroup = Hierarchies({}, str(tmp_path)).at("/gone")
    assert cgroup.pids() == []
    assert cgroup.oom_count() == 0
    assert cgroup.remove()
