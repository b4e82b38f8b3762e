"""update: what is merged, what is refused, what is told to a keeper. Without root."""

from __future__ import annotations

import pytest

from bothy.engine import limits
from bothy.engine.containers import update
from bothy.engine.model import HostConfig, RestartPolicy
from bothy.errors import BothyError, Conflict, Unsupported
from bothy.oci.runtime import Cpu, Memory, Pids

MIB = 1 << 20


def merged(before: HostConfig, asked: HostConfig, *, machine: bool = False) -> HostConfig:
    return update.merged(before, asked, machine=machine)


def test_zero_is_not_asked_for() -> None:
    before = HostConfig(memory=64 * MIB, memory_swap=128 * MIB, cpu_shares=5, pids_limit=7, restart_policy=RestartPolicy("always"))
    assert merged(before, HostConfig()) == before
    assert merged(before, HostConfig(pids_limit=0)).pids_limit == 0
    assert merged(before, HostConfig(restart_policy=RestartPolicy("no"))).restart_policy.name == "no"


def test_a_first_memory_limit_brings_one_of_swap_along() -> None:
    assert merged(HostConfig(), HostConfig(memory=64 * MIB)).memory_swap == 128 * MIB
    assert merged(HostConfig(memory=9, memory_swap=-1), HostConfig(memory=64 * MIB)).memory_swap == -1
    assert merged(HostConfig(memory=9, memory_swap=18), HostConfig(memory=64 * MIB), machine=True).memory_swap == 128 * MIB


@pytest.mark.parametrize(
    ("before", "asked", "kind"),
    [
        (HostConfig(cpu_quota=5000), HostConfig(nano_cpus=10**9), Conflict),
        (HostConfig(nano_cpus=10**9), HostConfig(cpu_period=5000), Conflict),
        (HostConfig(memory=9, memory_swap=18), HostConfig(memory=64 * MIB), Conflict),
        (HostConfig(auto_remove=True), HostConfig(restart_policy=RestartPolicy("always")), Conflict),
        (HostConfig(), HostConfig(blkio_weight=100), Unsupported),
        (HostConfig(), HostConfig(cpu_realtime_runtime=100), Unsupported),
    ],
)
def test_what_does_not_go_together(before: HostConfig, asked: HostConfig, kind: type[BothyError]) -> None:
    with pytest.raises(kind):
        merged(before, asked)


def test_only_what_changes_is_told() -> None:
    before = HostConfig(memory=64 * MIB, memory_swap=128 * MIB, nano_cpus=10**9)
    asked = HostConfig(pids_limit=-1)
    told = update._resources(before, asked, merged(before, asked))
    assert told is not None
    assert (told.memory, told.cpu, told.pids) == (None, None, Pids(-1))
    asked = HostConfig(restart_policy=RestartPolicy("always"))
    assert update._resources(before, asked, merged(before, asked)) is None


def test_what_had_no_limit_gets_none_back() -> None:
    asked = HostConfig(memory=64 * MIB, nano_cpus=10**9)
    old = update._resources(before := HostConfig(), asked, before)
    assert old is not None
    back = update._unlimited(old, asked)
    assert (back.memory, back.cpu) == (Memory(limit=-1, swap=-1), Cpu(quota=-1))


def test_limits_that_follow_from_others_are_recorded() -> None:
    found = limits.adapted(HostConfig(memory=64 * MIB, cpu_shares=1))
    assert (found.memory_swap, found.cpu_shares) == (128 * MIB, 2)
    assert limits.adapted(HostConfig(memory=64 * MIB, memory_swap=-1)).memory_swap == -1
