"""Limits on control groups of version 2, which most hosts have: of an engine inside a machine, whose kernel has no others.

this host, v1 or v2 ── bothy run --vm --privileged ──▶ Debian, this checkout ── bothy run ──▶ containers
                                                       kernel of the machine: cgroup v2, no nftables, no bridges
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bothy.paths import Paths
from tests.support.engine import BOTHY, REPOSITORY, Result, TestEngine, await_
from tests.support.settle import assert_settled, snapshot

pytestmark = pytest.mark.qemu

NAME = "t-inner"
GROUPS = "/sys/fs/cgroup"
# Folders of containers have to be on a file system with id mappings, which the machine's root, an overlay, is not: so on its disk.
STATE, RUN = Path("/mnt/bothy"), Path("/run/inner")
ENVIRON = {"BOTHY_ROOT": STATE, "BOTHY_RUN": RUN, "BOTHY_SPARES": 0}
OURS = f"{GROUPS}/{Paths(STATE, RUN).scope}"
MAIN = "mount -t ext4 /dev/vdb /mnt && exec sleep infinity"


@dataclass(frozen=True)
class Inner:
    """The engine inside the machine."""

    outer: TestEngine

    def sh(self, script: str, *args: str) -> Result:
        """Run a script in the machine, with the engine's command line as `$0`."""
        environ = [word for name, value in ENVIRON.items() for word in ("-e", f"{name}={value}")]
        return self.outer("exec", *environ, NAME, "sh", "-euc", script, str(BOTHY), *args)

    def __call__(self, *args: str) -> Result:
        """Run one bothy command in the machine."""
        return self.sh('exec "$0" "$@"', *args)

    def run(self, *args: str) -> Result:
        return self("run", "--network", "none", *args)

    def inspect(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self("inspect", name).ok().out)
        return found[0]

    def group(self, *files: str) -> list[str]:
        """What files of the only container's group say, as the machine sees them."""
        return self.sh(f"cd {OURS}/*; cat {' '.join(files)}").ok().out.splitlines()

    def left(self) -> list[str]:
        """The engine's group and those in it, and the engine's processes, by name."""
        processes = "grep -hx -e bothyd -e 'bothy-.*' /proc/[0-9]*/comm | grep -vx bothy-agent"
        return self.sh(f"find {OURS} -type d 2> /dev/null || true; {processes} || true").ok().out.split()


@pytest.fixture(scope="module")
def machine(engine: TestEngine, machines: None, debian: str) -> Iterator[Inner]:
    """A machine with an engine that has a busybox image; afterwards everything must have settled, in it and here."""
    before = snapshot(engine)
    places = [path for path in {REPOSITORY, Path(sys.prefix)} if path == REPOSITORY or REPOSITORY not in path.parents]
    binds = [word for path in places for word in ("-v", f"{path}:{path}:ro")]
    engine("run", "-d", "--vm", "--privileged", "--network", "none", "--name", NAME, *binds, debian, "sh", "-c", MAIN).ok()
    try:
        inner = Inner(engine)
        inner("image", "bootstrap", "busybox").ok()
        yield inner
        inner("system", "shutdown", "--teardown").ok()
        assert inner.left() == []
    finally:
        engine("rm", "-f", NAME).ok()
    assert_settled(engine, before)


@pytest.fixture
def inner(machine: Inner) -> Iterator[Inner]:
    """The engine; after the test it has no containers, and of groups and processes none but its own."""
    yield machine
    machine.sh('"$0" ps -aq | xargs -r "$0" rm -f').ok()
    await_(lambda: set(machine.left()) <= {OURS, "bothyd", "bothy-spawner", "bothy-zygote"}, "the engine in the machine to settle")


def test_without_bridges_the_engine_works_and_says_so(inner: Inner) -> None:
    told = inner("info").ok().out
    assert "Cgroup version: 2\n" in told
    assert "WARNING: No nftables support: only --network none and host work\n" in told
    assert "limit support" not in told
    refused = inner("run", "--rm", "busybox", "true")
    assert refused.code == 125
    assert refused.err.startswith("bothy: this kernel has no nftables\n  hint: ")
    assert inner("run", "--rm", "--network", "host", "busybox", "ls", "/sys/class/net").ok().out == "lo\n"


def test_memory(inner: Inner) -> None:
    script = f"cat {GROUPS}/memory.max {GROUPS}/memory.swap.max; dd if=/dev/zero of=/dev/null bs=64M count=1"
    done = inner.run("--name", "t-oom", "--memory", "32m", "--memory-swap", "48m", "busybox", "sh", "-c", f"{script}; exit 3")
    assert done.code == 3  # dd was killed, not the shell
    assert done.out == f"{32 << 20}\n{16 << 20}\n"
    assert "Killed" in done.err
    done = inner.run("--name", "t-eat", "--memory", "32m", "busybox", "sh", "-c", "x=a; while :; do x=$x$x; done")
    assert done.code == 137
    assert [inner.inspect(name)["State"]["OOMKilled"] for name in ("t-oom", "t-eat")] == [True, True]


def test_pids(inner: Inner) -> None:
    script = "for i in 1 2 3 4; do sleep 60 & done; echo four; sleep 60 & echo five"
    done = inner.run("--rm", "--pids-limit", "5", "busybox", "sh", "-c", script)
    assert done.out == "four\n"
    assert "can't fork" in done.err


def test_disk(inner: Inner) -> None:
    flags = ("--device-read-bps", "/dev/vda:1mb", "--device-write-iops", "/dev/vda:50")
    limits = inner.run("--rm", *flags, "busybox", "cat", f"{GROUPS}/io.max").ok().line.split()
    assert limits[1:] == ["rbps=1048576", "wbps=max", "riops=max", "wiops=50"]


def test_cpu(inner: Inner) -> None:
    flags = ("--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0", "--memory-reservation", "16m")
    # Ends once the kernel has held it back: more than half a processor it does not get.
    script = f"cd {GROUPS}; until grep -q 'nr_throttled [1-9]' cpu.stat; do :; done; cat cpu.max cpu.weight cpuset.cpus memory.low"
    assert inner.run("--rm", *flags, "busybox", "sh", "-c", script).ok().out == f"50000 100000\n20\n0\n{16 << 20}\n"


def test_a_running_container(inner: Inner) -> None:
    limits = ("--memory", "32m", "--pids-limit", "9", "--cpus", "0.1")
    inner.run("-d", "--name", "t-busy", *limits, "busybox", "sh", "-c", "while :; do :; done").ok()
    # One that was exec'ed is in the group too, which is its whole hierarchy, and not to be written.
    seen = inner(
        "exec", "t-busy", "sh", "-c", f"cat /proc/self/cgroup; cd {GROUPS}; cat pids.max; ! mkdir x && ! echo 1 > pids.max"
    )
    assert seen.ok().out == "0::/\n9\n"
    assert "Read-only file system" in seen.err
    stats = json.loads(inner("stats", "--no-stream", "--format", "json", "t-busy").ok().out)
    assert stats["PIDs"] == "1"
    assert stats["MemUsage"].endswith(" / 32MiB")
    inner("update", "--memory", "48m", "--memory-swap", "64m", "--pids-limit", "-1", "--cpus", "0.2", "t-busy").ok()
    assert inner.group("memory.max", "memory.swap.max", "pids.max", "cpu.max") == [
        f"{48 << 20}",
        f"{16 << 20}",
        "max",
        "20000 100000",
    ]
    assert "while :" in inner("top", "t-busy").ok().out

    inner("pause", "t-busy").ok()
    still = inner.group("cgroup.freeze", "cpu.stat")[:2]  # what follows are periods, which go on
    assert still[0] == "1"
    assert still[1].startswith("usage_usec ")
    assert inner.group("cgroup.freeze", "cpu.stat")[:2] == still
    inner("unpause", "t-busy").ok()
    assert inner.group("cgroup.freeze") == ["0"]
    inner("pause", "t-busy").ok()
    inner("kill", "t-busy").ok()
    assert inner("wait", "t-busy").ok().out == "137\n"


def test_devices(inner: Inner) -> None:
    """The program on the group decides, not who owns the device: with the host's own root, what was made by mknod opens not."""
    number = "$(sed 's/:/ /' /sys/block/vda/dev)"
    script = f"mknod /disk b {number}; mknod /zero c 1 5; head -c 3 /zero | wc -c; head -c 3 /disk"
    done = inner.run("--rm", "--userns", "host", "busybox", "sh", "-c", script)
    assert done.out == "3\n"
    assert done.err == "head: /disk: Operation not permitted\n"
    script = "head -c 3 /dev/disk | wc -c; echo > /dev/disk"
    done = inner.run("--rm", "--userns", "host", "--device", "/dev/vda:/dev/disk:r", "busybox", "sh", "-c", script)
    assert done.out == "3\n"
    assert done.err == "sh: can't create /dev/disk: Operation not permitted\n"


def test_an_engine_in_a_cgroup_namespace(machine: Inner) -> None:
    """As in a container of another engine: processes are in the root that it sees, which forbids limits below until they move."""
    machine("system", "shutdown", "--teardown").ok()
    limited = '"$0" run --rm --network none --memory 64m --pids-limit 7 busybox sh -c "cd /sys/fs/cgroup; cat memory.max pids.max"'
    inside = f"umount {GROUPS}; mount -t cgroup2 cgroup2 {GROUPS}; {limited}; cat /proc/self/cgroup; $0 system shutdown --teardown"
    script = f"""
        echo '+memory +pids' > {GROUPS}/cgroup.subtree_control
        mkdir {GROUPS}/box
        (echo 0 > {GROUPS}/box/cgroup.procs; exec unshare --cgroup --mount sh -ec '{inside}' "$0")
        until rmdir {GROUPS}/box/init; do sleep 0.1; done 2> /dev/null
        rmdir {GROUPS}/box
    """
    assert machine.sh(script).ok().out == f"{64 << 20}\n7\n0::/init\n"
