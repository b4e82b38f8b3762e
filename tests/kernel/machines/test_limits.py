"""The limits of a machine that runs, and what it tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bothy.errors import StageError
from bothy.oci.runtime import Cpu, Memory, Pids, Resources
from tests.support.machines import MIB, Machine, Machines, Session

pytestmark = pytest.mark.qemu


@pytest.fixture
def machine(machines: Machines) -> Machine:
    """One of 128 MiB that sleeps; what it keeps in /dev/shm is memory."""
    made = machines.machine(machines.plan("sleep", "1000"))
    assert made.start().process is not None, made.main.error
    return made


def update(machine: Machine, **limits: Any) -> Any:
    return machine.ask(_raised(lambda done: machine.wall.update(Resources(**limits), done)))


def _raised(request: Callable[[Any], None]) -> Callable[[Any], None]:
    """What a request raises, as its answer."""

    def ask(done: Any) -> None:
        try:
            request(done)
        except StageError as exc:
            done(exc)

    return ask


def run(machine: Machine, script: str) -> Session:
    session = machine.exec("sh", "-c", script)
    machine.until(lambda: session.over)
    return session


def eat(machine: Machine, mib: int) -> int:
    """The exit code of a program that keeps so much in its own memory for a moment."""
    return run(machine, f"dd if=/dev/zero of=/dev/null bs={mib}M count=1").code or 0


def total(machine: Machine) -> int:
    return int(run(machine, "grep MemTotal /proc/meminfo").text.split()[1]) * 1024


def test_what_runs_in_a_container_of_that_size_runs(machine: Machine) -> None:
    assert eat(machine, 110) == 0


def test_memory_shrinks_and_grows(machine: Machine) -> None:
    whole = total(machine)
    assert update(machine, memory=Memory(limit=64 * MIB)) == {}
    assert whole - total(machine) >= 60 * MIB
    assert machine.ask(machine.wall.stats)["memory_stats"]["limit"] == 64 * MIB
    assert eat(machine, 50) == 0
    assert eat(machine, 80) == 137, "killed for want of memory"
    assert machine.wall.oom_count() == 1
    assert update(machine, memory=Memory(limit=128 * MIB)) == {}
    assert total(machine) == whole
    assert eat(machine, 80) == 0
    assert update(machine, memory=Memory(limit=64 * MIB)) == {}
    assert update(machine, memory=Memory(limit=-1)) == {}
    assert total(machine) == whole


def test_what_is_given_up_is_the_hosts(machine: Machine) -> None:
    assert eat(machine, 80) == 0
    full = resident(machine)
    assert update(machine, memory=Memory(limit=16 * MIB)) == {}
    assert resident(machine) < full - 20 * MIB


def resident(machine: Machine) -> int:
    """Bytes of QEMU's own memory (Private_Dirty, proc(5))."""
    with open(f"/proc/{machine.qemu}/smaps_rollup") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_Dirty"))


def test_memory_that_is_in_use_is_not_taken(machine: Machine) -> None:
    assert run(machine, "mount -t tmpfs -o size=100% food /tmp && head -c 90000000 /dev/zero > /tmp/food").code == 0
    whole = total(machine)
    refusal = update(machine, memory=Memory(limit=20 * MIB))
    assert isinstance(refusal, StageError)
    assert "programs use" in refusal.message
    assert total(machine) == whole
    assert run(machine, "wc -c < /tmp/food").text == "90000000\n"
    assert machine.ask(machine.wall.stats)["memory_stats"]["limit"] == 128 * MIB


def test_not_more_than_it_was_born_with(machine: Machine) -> None:
    refusal = update(machine, memory=Memory(limit=129 * MIB))
    assert isinstance(refusal, StageError)
    assert "128 MiB that it was started with" in refusal.message
    refusal = update(machine, cpu=Cpu(quota=150_000, period=100_000))
    assert isinstance(refusal, StageError)
    assert "the 1 CPUs that it was started with" in refusal.message
    assert update(machine, cpu=Cpu(quota=50_000, period=100_000)) == {}


def test_processes_are_limited(machine: Machine) -> None:
    crowd = "for i in 1 2 3 4 5 6 7 8; do sleep 3 & done; wait"
    assert run(machine, crowd).code == 0
    assert update(machine, pids=Pids(4)) == {}
    assert machine.ask(machine.wall.stats)["pids_stats"]["limit"] == 4
    assert "can't fork" in run(machine, crowd).out[2].decode()
    assert update(machine, pids=Pids(-1)) == {}
    assert run(machine, crowd).code == 0
    assert machine.ask(machine.wall.stats)["pids_stats"]["limit"] == 0


def test_a_paused_machine_is_changed(machine: Machine) -> None:
    whole = total(machine)
    assert machine.ask(machine.wall.pause) == {}
    assert update(machine, memory=Memory(limit=96 * MIB), pids=Pids(9)) == {}
    assert machine.ask(machine.wall.resume) == {}
    assert whole - total(machine) >= 28 * MIB


def test_stats_tell_what_is_used(machine: Machine) -> None:
    before = machine.ask(machine.wall.stats)
    assert before["memory_stats"]["usage"] < 40 * MIB
    assert before["cpu_stats"]["online_cpus"] == 1
    assert run(machine, "head -c 30000000 /dev/urandom > /dev/shm/food; head -c 8000000 /dev/zero > /file; sync").code == 0
    after = machine.ask(machine.wall.stats)
    assert 28_000_000 < after["memory_stats"]["usage"] - before["memory_stats"]["usage"] < 60_000_000
    assert set(after["memory_stats"]["stats"]) >= {"anon", "file", "inactive_file", "active_anon"}
    for key in ("total_usage", "usage_in_kernelmode"):
        assert after["cpu_stats"]["cpu_usage"][key] > before["cpu_stats"]["cpu_usage"][key]
    assert after["cpu_stats"]["system_cpu_usage"] > before["cpu_stats"]["system_cpu_usage"]
    assert len(after["cpu_stats"]["cpu_usage"]["percpu_usage"]) == 1
    assert written(after) - written(before) >= 8_000_000
    assert after["networks"] == {}


def written(stats: dict[str, Any]) -> int:
    return sum(entry["value"] for entry in stats["blkio_stats"]["io_service_bytes_recursive"] if entry["op"] == "write")
