"""Health checks: what they say, how often they look, and what follows from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import await_, kill9
from tests.support.settle import reap

SLEEP = ("busybox", "sh", "-c", "touch /tmp/well; exec sleep 300")
WELL = ("--health-cmd", "test -e /tmp/well", "--health-interval", "300ms", "--health-timeout", "30s")


def health(bothy: Walled, name: str) -> dict[str, Any]:
    found: dict[str, Any] = bothy.engine.inspect(name)["State"]["Health"]
    return found


def becomes(bothy: Walled, name: str, status: str) -> dict[str, Any]:
    await_(lambda: health(bothy, name)["Status"] == status, f"{name} to be {status}", timeout=90)
    return health(bothy, name)


def test_healthy_then_not_then_again(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-well", *WELL, "--health-retries", "2", *SLEEP).ok()
    found = becomes(bothy, "t-well", "healthy")
    assert found["FailingStreak"] == 0
    assert found["Log"][-1]["ExitCode"] == 0
    assert "(healthy)" in bothy("ps", "--filter", "health=healthy", "--format", "{{.Status}}").ok().out
    bothy("exec", "t-well", "rm", "/tmp/well").ok()
    found = becomes(bothy, "t-well", "unhealthy")
    assert found["FailingStreak"] >= 2
    assert found["Log"][-1]["ExitCode"] == 1
    assert bothy("ps", "-q", "--filter", "health=healthy").ok().out == ""
    bothy("exec", "t-well", "touch", "/tmp/well").ok()
    becomes(bothy, "t-well", "healthy")
    told = bothy("events", "--since", "10m", "--until", "0s", "--filter", "container=t-well").ok().out
    words = [word for word in ("health_status: healthy", "health_status: unhealthy") if word in told]
    assert words == ["health_status: healthy", "health_status: unhealthy"]
    bothy("rm", "-f", "t-well").ok()


def test_ready_is_seen_before_the_first_interval(bothy: Walled) -> None:
    check = ("--health-cmd", "test -e /tmp/well", "--health-interval", "1h")
    bothy("run", "-d", "--name", "t-soon", *check, *SLEEP).ok()
    becomes(bothy, "t-soon", "healthy")
    bothy("rm", "-f", "t-soon").ok()


def test_what_a_check_writes_and_when_it_hangs(bothy: Walled) -> None:
    check = ("--health-cmd", "echo to-out; echo to-err >&2; exit 7", "--health-interval", "200ms", "--health-retries", "1")
    bothy("run", "-d", "--name", "t-says", *check, "busybox", "sleep", "300").ok()
    last = becomes(bothy, "t-says", "unhealthy")["Log"][-1]
    assert last["ExitCode"] == 7
    assert sorted(last["Output"].split()) == ["to-err", "to-out"]
    bothy("rm", "-f", "t-says").ok()
    check = ("--health-cmd", "sleep 200", "--health-interval", "200ms", "--health-timeout", "1s", "--health-retries", "1")
    bothy("run", "-d", "--name", "t-hangs", *check, "busybox", "sleep", "300").ok()
    last = becomes(bothy, "t-hangs", "unhealthy")["Log"][-1]
    assert last["ExitCode"] == -1
    assert last["Output"] == "Health check exceeded timeout (1s)"
    await_(lambda: "sleep 200" not in bothy("top", "t-hangs").ok().out, "the check to be killed", timeout=30)
    bothy("rm", "-f", "t-hangs").ok()


def test_failures_in_the_start_period_do_not_count(bothy: Walled) -> None:
    check = (*WELL, "--health-start-period", "1h", "--health-retries", "1", "--health-start-interval", "200ms")
    bothy("run", "-d", "--name", "t-slow", *check, "busybox", "sleep", "300").ok()
    await_(lambda: len(health(bothy, "t-slow")["Log"]) >= 3, "three looks", timeout=60)
    assert health(bothy, "t-slow")["Status"] == "starting"
    assert health(bothy, "t-slow")["FailingStreak"] == 0
    assert "(health: starting)" in bothy("ps", "--format", "{{.Status}}").ok().out
    bothy("exec", "t-slow", "touch", "/tmp/well").ok()
    becomes(bothy, "t-slow", "healthy")
    bothy("rm", "-f", "t-slow").ok()


@pytest.mark.parametrize(("action", "policy", "status", "restarts"), [
    ("stop", "no", "exited", 0), ("kill", "no", "exited", 0), ("kill", "always", "running", 1), ("restart", "no", "running", 0),
])  # fmt: skip
def test_what_follows_on_failure(bothy: Walled, action: str, policy: str, status: str, restarts: int) -> None:
    check = (*WELL, "--health-retries", "1", "--health-on-failure", action, "--restart", policy)
    bothy("run", "-d", "--name", "t-ill", "--stop-timeout", "0", *check, *SLEEP).ok()
    becomes(bothy, "t-ill", "healthy")
    started = bothy.engine.inspect("t-ill")["State"]["StartedAt"]
    bothy("exec", "t-ill", "rm", "/tmp/well").ok()

    def followed() -> bool:
        state = bothy.engine.inspect("t-ill")["State"]
        return state["Status"] == status and (status == "exited" or state["StartedAt"] > started)

    await_(followed, f"what follows on {action}", timeout=90)
    assert bothy.engine.inspect("t-ill")["RestartCount"] == restarts
    bothy("rm", "-f", "t-ill").ok()


def test_paused_ones_are_not_looked_at(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-still", *WELL, *SLEEP).ok()
    becomes(bothy, "t-still", "healthy")
    bothy("pause", "t-still").ok()
    before = time.time()
    bothy("run", "--rm", "busybox", "sleep", "1").ok()  # more than two intervals
    assert health(bothy, "t-still")["Status"] == "healthy"
    bothy("unpause", "t-still").ok()
    await_(lambda: _last(bothy, "t-still") > before, "a look after the pause", timeout=60)
    assert health(bothy, "t-still")["Status"] == "healthy"
    bothy("rm", "-f", "t-still").ok()


def _last(bothy: Walled, name: str) -> float:
    text = health(bothy, name)["Log"][-1]["Start"]
    return time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone


def test_looked_at_again_after_the_daemon_was_killed(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-on", *WELL, *SLEEP).ok()
    becomes(bothy, "t-on", "healthy")
    old = bothy.engine.pid_of("bothyd")
    kill9(old)
    await_(lambda: reap() or [p for p, n in bothy.engine.processes().items() if n == "bothyd" and p != old], "bothyd to come back")
    becomes(bothy, "t-on", "healthy")
    bothy("exec", "t-on", "rm", "/tmp/well").ok()
    becomes(bothy, "t-on", "unhealthy")
    bothy("stop", "-t", "0", "t-on").ok()
    assert health(bothy, "t-on")["Status"] == "unhealthy"
    bothy("rm", "t-on").ok()


def test_the_images_check_and_none(bothy: Walled, tmp_path: Path) -> None:
    archive = tmp_path / "rootfs.tar"
    bothy("create", "--name", "t-made", "busybox").ok()
    bothy("export", "-o", str(archive), "t-made").ok()
    bothy("rm", "t-made").ok()
    bothy("import", "-c", "HEALTHCHECK --interval=300ms CMD true", str(archive), "checked").ok()
    bothy("run", "-d", "--name", "t-theirs", "checked", "sleep", "300").ok()
    becomes(bothy, "t-theirs", "healthy")
    bothy("rm", "-f", "t-theirs").ok()
    bothy("run", "-d", "--name", "t-none", "--no-healthcheck", "checked", "sleep", "300").ok()
    assert "Health" not in bothy.engine.inspect("t-none")["State"]
    bothy("rm", "-f", "t-none").ok()
    bothy("rmi", "checked").ok()


@pytest.mark.parametrize("flags", [
    ("--health-interval", "1us", "--health-cmd", "true"), ("--health-on-failure", "panic"), ("--health-retries", "-1", "--health-cmd", "true"),
])  # fmt: skip
def test_nonsense_is_refused(bothy: Walled, flags: tuple[str, ...]) -> None:
    done = bothy("create", *flags, "busybox")
    assert done.code
    assert "Traceback" not in done.err
