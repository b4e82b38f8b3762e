"""update: limits and restart policies of workloads that run, that are stopped, and after they are started again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import TestEngine, await_

MIB = 1 << 20
FILES = {
    "memory": ("memory/memory.limit_in_bytes", "memory.max"),
    "pids": ("pids/pids.max", "pids.max"),
}


def host(engine: TestEngine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.inspect(name)["HostConfig"]
    return found


def limit(engine: TestEngine, name: str, what: str) -> str:
    """What the container's own control group says, on either version of the hierarchy."""
    places = " ".join(f"/sys/fs/cgroup/{file}" for file in FILES[what])
    return engine("exec", name, "sh", "-c", f"cat {places} 2>/dev/null").line


def test_limits_of_a_running_container(settled: TestEngine) -> None:
    settled("run", "-d", "--name", "t-up", "-m", "100m", "busybox", "sleep", "300").ok()
    assert settled("update", "-m", "150m", "--pids-limit", "30", "--cpus", "0.5", "t-up").ok().out == "t-up\n"
    found = host(settled, "t-up")
    assert (found["Memory"], found["MemorySwap"], found["PidsLimit"], found["NanoCpus"]) == (150 * MIB, 200 * MIB, 30, 500_000_000)
    assert (limit(settled, "t-up", "memory"), limit(settled, "t-up", "pids")) == (str(150 * MIB), "30")
    # both at once, up and down, whichever the kernel wants first
    for memory, swap in ((300, 400), (60, 90)):
        settled("update", "-m", f"{memory}m", "--memory-swap", f"{swap}m", "t-up").ok()
        assert limit(settled, "t-up", "memory") == str(memory * MIB)
    settled("update", "--pids-limit", "-1", "t-up").ok()
    assert limit(settled, "t-up", "pids") == "max"
    settled("restart", "-t", "0", "t-up").ok()
    assert limit(settled, "t-up", "memory") == str(60 * MIB)
    settled("rm", "-f", "t-up").ok()


def test_a_stopped_one_keeps_what_it_was_given(bothy: Walled) -> None:
    bothy("create", "--name", "t-kept", "busybox", "true").ok()
    bothy("update", "-m", "96m", "--memory-swap", "-1", "--cpu-shares", "512", "--restart", "on-failure:3", "t-kept").ok()
    found = host(bothy.engine, "t-kept")
    assert (found["Memory"], found["MemorySwap"], found["CpuShares"]) == (96 * MIB, -1, 512)
    assert found["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    bothy("start", "-a", "t-kept").ok()
    bothy("rm", "t-kept").ok()


def test_the_policy_of_a_running_one(bothy: Walled) -> None:
    """What has ended then comes back; and does not any more when that is taken back."""
    until = "while ! test -e /{}; do sleep 0.05; done"
    script = f"test -e /ran && {{ {until.format('over')}; exit 5; }}; touch /ran; {until.format('end')}; exit 4"
    bothy("run", "-d", "--name", "t-policy", "busybox", "sh", "-c", script).ok()
    bothy("update", "--restart", "always", "t-policy").ok()
    bothy("exec", "t-policy", "touch", "/end")  # which may end with it
    await_(lambda: bothy.engine.inspect("t-policy")["RestartCount"] == 1, "its return", timeout=60)
    await_(lambda: bothy.engine.inspect("t-policy")["State"]["Status"] == "running", "it to run", timeout=60)
    bothy("update", "--restart", "no", "t-policy").ok()
    bothy("exec", "t-policy", "touch", "/over")
    await_(lambda: bothy.engine.inspect("t-policy")["State"]["Status"] == "exited", "its end", timeout=60)
    assert bothy.engine.inspect("t-policy")["RestartCount"] == 1
    bothy("rm", "t-policy").ok()


def test_what_can_not_be_changed_is_refused_and_nothing_is(settled: TestEngine) -> None:
    settled("run", "-d", "--rm", "--name", "t-not", "-m", "64m", "--cpus", "1", "busybox", "sleep", "300").ok()
    before = host(settled, "t-not")
    for flags, words in (
        (("--cpu-quota", "5000"), "CPU Quota cannot be updated as NanoCPUs has already been set"),
        (("-m", "1m"), "Minimum memory limit allowed is 6MB"),
        (("-m", "500m"), "Memory limit should be smaller than already set memoryswap limit"),
        (("-m", "64m", "--memory-swap", "32m"), "Minimum memoryswap limit should be larger than memory limit"),
        (("--restart", "always"), "Restart policy cannot be updated because AutoRemove is enabled"),
        (("--restart", "perhaps"), "unknown policy 'perhaps'"),
        (("--cpuset-cpus", "4000"), "CPUS are not available"),
        (("--blkio-weight", "100"), "block I/O weight"),
        (("--cpu-rt-runtime", "100"), "realtime"),
    ):
        done = settled("update", *flags, "t-not")
        assert done.code == 1, flags
        assert words in done.err, done.err
        assert host(settled, "t-not") == before
    assert settled("update", "t-not").code == 125
    assert settled("update", "-m", "64m", "t-nobody").code == 1
    assert limit(settled, "t-not", "memory") == str(64 * MIB)
    settled("rm", "-f", "t-not").ok()


def test_a_limit_that_the_kernel_refuses_is_taken_back(settled: TestEngine) -> None:
    """Less memory than is in use and can not be written out: on hosts without swap the kernel says no, and the old limit holds."""
    script = "dd if=/dev/zero of=/dev/shm/full bs=1M count=40 2>/dev/null; echo ready; exec sleep 300"
    settled(
        "run", "-d", "--name", "t-full", "-m", "80m", "--memory-swap", "80m", "--shm-size", "64m", "busybox", "sh", "-c", script
    ).ok()
    await_(lambda: "ready" in settled("logs", "t-full").out, "the file")
    if limit(settled, "t-full", "memory") != str(80 * MIB):
        pytest.fail("the limit is not what was asked for")
    done = settled("update", "-m", "10m", "t-full")
    now = host(settled, "t-full")["Memory"]
    if done.code:  # version 1; on version 2 the kernel makes room by killing
        assert f"Cannot update container {settled.inspect('t-full')['Id']}" in done.err
        assert (now, limit(settled, "t-full", "memory")) == (80 * MIB, str(80 * MIB))
    else:
        assert now == 10 * MIB
    settled("rm", "-f", "t-full").ok()


def test_it_is_an_event(settled: TestEngine) -> None:
    settled("create", "--name", "t-event", "busybox", "true").ok()
    settled("update", "--restart", "always", "t-event").ok()
    found = settled("events", "--since", "60s", "--until", "0s", "--filter", "container=t-event", "--format", "{{.Action}}").ok()
    assert found.out.split() == ["create", "update"]
    settled("rm", "t-event").ok()
