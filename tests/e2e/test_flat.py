"""Many runs leave nothing behind, and many at once all succeed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.engine import TestEngine, parallel
from tests.support.settle import snapshot


def resident(pid: int) -> int:
    """Private memory of a process in kB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("Private_Dirty", "Private_Clean")))


def test_two_hundred_cycles_are_flat(settled: TestEngine) -> None:
    for _ in range(20):
        settled("run", "--rm", "busybox", "true").ok()
    before = snapshot(settled)
    memory = {name: resident(settled.pid_of(name)) for name in ("bothyd", "bothy-spawner")}
    for _ in range(200):
        settled("run", "--rm", "busybox", "true").ok()
    after = snapshot(settled)
    assert after.daemon_fds <= before.daemon_fds + 3
    assert after.spawner_fds <= before.spawner_fds + 40  # the pool may have been short
    assert len(after.mounts) == len(before.mounts)
    for name, kilobytes in memory.items():
        assert resident(settled.pid_of(name)) < kilobytes + 2048, name


@pytest.mark.qemu
def test_cycles_of_machines_are_flat(settled: TestEngine, machines: None) -> None:
    for _ in range(3):
        settled("run", "--rm", "--vm", "busybox", "true").ok()
    before = snapshot(settled)
    memory = {name: resident(settled.pid_of(name)) for name in ("bothyd", "bothy-spawner")}
    for _ in range(25):
        settled("run", "--rm", "--vm", "busybox", "true").ok()
    after = snapshot(settled)
    assert after.daemon_fds <= before.daemon_fds + 3
    assert len(after.mounts) == len(before.mounts)
    for name, kilobytes in memory.items():
        assert resident(settled.pid_of(name)) < kilobytes + 2048, name


def test_thirty_at_once_over_both_walls(settled: TestEngine) -> None:
    commands = []
    for number in range(30):
        wall = ["--vm"] if number % 5 == 0 else []
        commands.append(
            settled.popen(
                "run",
                "--rm",
                *wall,
                "busybox",
                "echo",
                str(number),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
            )
        )
    for number, done in enumerate(parallel(commands, timeout=300)):
        assert (done.code, done.out) == (0, f"{number}\n"), done.err
