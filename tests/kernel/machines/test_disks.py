"""A machine's own disk over its lives: whatever ended one of them, and whatever template the next one goes on from."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace

import pytest

from bothy.machines.model import MachinePlan
from bothy.machines.templates import MIB, Templates
from bothy.paths import Paths
from tests.support.machines import Machines

pytestmark = pytest.mark.qemu


def again(plan: MachinePlan, script: str) -> MachinePlan:
    """The same machine with another program."""
    return replace(plan, spec=replace(plan.spec, process=replace(plan.spec.process, args=["sh", "-c", script])))


def check(disk: str) -> None:
    """The file system is sound, once its journal has been taken in (e2fsck(8): 0, or 1 where it did just that)."""
    done = subprocess.run(["e2fsck", "-f", "-y", disk], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout
    assert "FILE SYSTEM WAS MODIFIED" not in done.stdout or "recovering journal" in done.stdout, done.stdout
    for word in ("checksum", "Inode", "bitmap", "corrupt"):
        assert word not in done.stdout.replace("Checking inodes", ""), done.stdout


def test_another_template_has_the_disk_as_it_was(machines: Machines, paths: Paths) -> None:
    plan = machines.plan("sh", "-c", "echo kept > /kept; mkdir /a; echo b > /a/b")
    assert machines.machine(plan).run().code == 0
    other = Templates(paths).ensure(1, 192 * MIB)
    try:
        for _ in range(2):
            done = machines.machine(replace(again(plan, "cat /kept /a/b; echo more >> /kept"), template=str(other))).run()
            assert done.text.startswith("kept\n"), done
            done = machines.machine(again(plan, "cat /kept /a/b")).run()
            assert done.text.startswith("kept\nmore\n"), done
    finally:
        Templates(paths).remove(other.name)
    check(plan.scratch.path)


def test_what_was_synced_outlives_a_killed_qemu(machines: Machines) -> None:
    """Also what is only in the journal."""
    plan = machines.plan(
        "sh", "-c", "mkdir /d; i=0; while :; do i=$((i+1)); echo $i | dd of=/d/$i conv=fsync 2> /dev/null; echo $i; done"
    )
    machine = machines.machine(plan)
    machine.start()
    machine.until(lambda: machine.main.text.count("\n") > 30)
    os.kill(machine.qemu, signal.SIGKILL)
    machine.until(lambda: machine.main.over)
    machine.close()
    told = int(machine.main.text.split()[-1])
    done = machines.machine(again(plan, "cd /d; for i in $(ls); do cat $i; done")).run()
    assert done.code == 0, done
    assert set(range(1, told + 1)) <= {int(word) for word in done.text.split()}
    check(plan.scratch.path)
