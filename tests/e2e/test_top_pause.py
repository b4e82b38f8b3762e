"""top, pause and unpause."""

from __future__ import annotations

from tests.e2e.conftest import Walled
from tests.support.engine import await_


def test_top_shows_the_programs(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-top", "busybox", "sh", "-c", "sleep 301 & exec sleep 300").ok()
    await_(lambda: "sleep 301" in bothy("top", "t-top").out, "the second program", timeout=60)
    lines = bothy("top", "t-top").ok().out.splitlines()
    assert "PID" in lines[0]
    assert "CMD" in lines[0] or "COMMAND" in lines[0]
    assert sum("sleep 300" in line for line in lines) == 1
    bothy("rm", "-f", "t-top").ok()
    assert bothy("top", "t-top").code == 1


def test_pause_stops_the_clock_of_the_program(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-pause", "busybox", "sh", "-c", "while :; do echo tick; sleep 0.05; done").ok()
    await_(lambda: "tick" in bothy("logs", "t-pause").out, "the first tick", timeout=60)
    bothy("pause", "t-pause").ok()
    assert bothy.engine.inspect("t-pause")["State"]["Status"] == "paused"
    assert "(Paused)" in bothy("ps", "--filter", "name=t-pause").out
    still = bothy("logs", "t-pause").out
    assert bothy("logs", "t-pause").out == still
    assert bothy("pause", "t-pause").code == 1
    assert bothy("exec", "t-pause", "true").code == 1
    bothy("unpause", "t-pause").ok()
    await_(lambda: len(bothy("logs", "t-pause").out) > len(still), "another tick", timeout=60)
    assert bothy("unpause", "t-pause").code == 1
    bothy("rm", "-f", "t-pause").ok()


def test_a_paused_one_can_be_stopped(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-frozen", "busybox", "sleep", "300").ok()
    bothy("pause", "t-frozen").ok()
    bothy("stop", "-t", "1", "t-frozen").ok()
    assert bothy.engine.inspect("t-frozen")["State"]["Status"] == "exited"
    bothy("rm", "t-frozen").ok()
