"""Many runs leave nothing behind, and many at once all succeed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.engine import TestEngine, await_, parallel
from tests.support.settle import Snapshot, snapshot

PROCESSES = ("bothyd", "bothy-spawner")


def resident(pid: int) -> int:
    """Private memory of a process in kB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("Private_Dirty", "Private_Clean")))


def memory(engine: TestEngine) -> dict[str, int]:
    """What the processes that stay have for themselves, in kB."""
    return {name: resident(engine.pid_of(name)) for name in PROCESSES}


def growth(before: tuple[Snapshot, dict[str, int]], engine: TestEngine) -> dict[str, str]:
    """What has grown by more than what comes and goes: connections, the pool of sandboxes, a refilled cache."""
    (old, old_memory), new = before, snapshot(engine)
    found = {
        name: f"{old_memory[name]} kB, then {now} kB" for name, now in memory(engine).items() if now >= old_memory[name] + 2048
    }
    if new.daemon_fds > old.daemon_fds + 3:
        found["descriptors of bothyd"] = f"{old.daemon_fds}, then {new.daemon_fds}"
    if new.spawner_fds > old.spawner_fds + 40:
        found["descriptors of bothy-spawner"] = f"{old.spawner_fds}, then {new.spawner_fds}"
    if len(new.mounts) > len(old.mounts):
        found["mounts"] = f"{set(new.mounts) - set(old.mounts)}"
    return found


def assert_flat(engine: TestEngine, command: list[str], *, first: int, then: int) -> None:
    """Run the command a few times, then many times; once all is at rest nothing may have grown."""
    for _ in range(first):
        engine(*command).ok()
    before = snapshot(engine), memory(engine)
    for _ in range(then):
        engine(*command).ok()
    last: dict[str, str] = {}

    def at_rest() -> bool:
        last.clear()
        last.update(growth(before, engine))
        return not last

    try:
        await_(at_rest, "all to be as before")
    except AssertionError:
        raise AssertionError(f"grown in {then} runs: {last}") from None


def test_two_hundred_cycles_are_flat(settled: TestEngine) -> None:
    assert_flat(settled, ["run", "--rm", "busybox", "true"], first=20, then=200)


@pytest.mark.qemu
def test_cycles_of_machines_are_flat(settled: TestEngine, machines: None) -> None:
    assert_flat(settled, ["run", "--rm", "--vm", "busybox", "true"], first=3, then=25)


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
