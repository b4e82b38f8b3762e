"""Restart policies over both walls: counted, given up by hand, and what a new daemon starts."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import await_, kill9
from tests.support.settle import reap


def status(bothy: Walled, name: str) -> str:
    return str(state(bothy, name)["Status"])


def state(bothy: Walled, name: str) -> dict[str, Any]:
    found: dict[str, Any] = bothy.engine.inspect(name)["State"]
    return found


def test_failures_are_counted_and_a_start_by_hand_counts_anew(bothy: Walled) -> None:
    bothy("run", "-d", "--restart", "on-failure:2", "--name", "t-fails", "busybox", "sh", "-c", "echo ran; exit 3").ok()
    for runs in (3, 6):
        await_(lambda: status(bothy, "t-fails") == "exited", "the last failure", timeout=60)
        found = bothy.engine.inspect("t-fails")
        assert (found["State"]["ExitCode"], found["RestartCount"]) == (3, 2)
        assert bothy("logs", "t-fails").ok().out.split() == ["ran"] * runs
        if runs == 3:
            bothy("start", "t-fails").ok()
    bothy("rm", "t-fails").ok()


def test_wait_and_logs_end_with_each_run(bothy: Walled) -> None:
    """As Docker's: neither goes on to the next run that the policy brings."""
    script = "test -e /ran && { echo again; exec sleep 300; }; echo once; touch /ran; sleep 1; exit 6"
    bothy("run", "-d", "--restart", "always", "--name", "t-each", "busybox", "sh", "-c", script).ok()
    waiting = bothy.engine.popen("wait", "t-each", stdout=subprocess.PIPE)
    assert bothy("logs", "-f", "t-each").ok().out == "once\n"
    assert waiting.communicate(timeout=60)[0] == b"6\n"
    await_(lambda: "again" in bothy("logs", "t-each").out, "the second run", timeout=60)
    bothy("rm", "-f", "t-each").ok()


def test_success_ends_on_failure(bothy: Walled) -> None:
    bothy("run", "-d", "--restart", "on-failure", "--name", "t-works", "busybox", "true").ok()
    assert bothy("wait", "t-works").ok().line == "0"
    assert bothy.engine.inspect("t-works")["RestartCount"] == 0
    bothy("rm", "t-works").ok()


@pytest.mark.parametrize("end", [("stop",), ("kill",), ("rm", "-f")], ids=" ".join)
def test_what_waits_to_be_started_again_stays_down_when_stopped(bothy: Walled, end: tuple[str, ...]) -> None:
    bothy("run", "-d", "--restart", "always", "--name", "t-waits", "busybox", "sh", "-c", "exit 5").ok()
    # By then it waits for longer than all of this takes.
    await_(lambda: bothy.engine.inspect("t-waits")["RestartCount"] >= 5, "restarts", timeout=60)
    await_(lambda: status(bothy, "t-waits") == "restarting", "it to wait")
    bothy(*end, "t-waits").ok()
    if end[0] == "rm":
        assert bothy("inspect", "t-waits").code == 1
        return
    found = bothy.engine.inspect("t-waits")
    assert (found["State"]["Status"], found["State"]["ExitCode"]) == ("exited", 5)
    bothy("start", "t-waits").ok()
    assert bothy.engine.inspect("t-waits")["RestartCount"] <= found["RestartCount"] - 3
    bothy("rm", "-f", "t-waits").ok()


def test_what_a_new_daemon_starts(bothy: Walled) -> None:
    """All three were stopped by their user: `always` means always."""
    for policy in ("always", "unless-stopped", "on-failure"):
        bothy("run", "-d", "--restart", policy, "--name", f"t-{policy}", "busybox", "sleep", "300").ok()
        bothy("kill", f"t-{policy}").ok()
        assert state(bothy, f"t-{policy}")["ExitCode"] == 137
    bothy.engine("system", "shutdown").ok()
    await_(lambda: status(bothy, "t-always") == "running", "the one that always runs", timeout=60)
    assert bothy.engine.inspect("t-always")["RestartCount"] == 0
    assert status(bothy, "t-unless-stopped") == "exited"
    assert status(bothy, "t-on-failure") == "exited"
    bothy("rm", "-f", "t-always", "t-unless-stopped", "t-on-failure").ok()


def test_what_died_with_its_keeper_and_the_daemon_is_started(bothy: Walled) -> None:
    """As after a power cut: nobody was there to see it end."""
    before = set(bothy.engine.processes())
    bothy("run", "-d", "--restart", "on-failure:5", "--name", "t-power", "busybox", "sleep", "300").ok()
    keepers = [pid for pid, name in bothy.engine.processes().items() if pid not in before and name == "bothy-keeper"]
    for victim in (bothy.engine.pid_of("bothy-spawner"), bothy.engine.pid_of("bothyd"), *keepers):
        kill9(victim)
    await_(lambda: reap() or status(bothy, "t-power") == "running", "it to run again", timeout=60)
    found = bothy.engine.inspect("t-power")
    assert (found["RestartCount"], found["State"]["ExitCode"]) == (1, 0)
    bothy("rm", "-f", "t-power").ok()


def test_a_restart_that_is_waited_for_outlives_the_daemon(bothy: Walled) -> None:
    bothy("run", "-d", "--restart", "on-failure:6", "--name", "t-outlives", "busybox", "sh", "-c", "exit 4").ok()
    await_(lambda: bothy.engine.inspect("t-outlives")["RestartCount"] >= 4, "restarts", timeout=60)
    kill9(bothy.engine.pid_of("bothyd"))
    await_(lambda: status(bothy, "t-outlives") == "exited", "the last failure", timeout=60)
    assert bothy("wait", "t-outlives").ok().line == "4"
    assert bothy.engine.inspect("t-outlives")["RestartCount"] == 6
    bothy("rm", "t-outlives").ok()
