"""stop, kill and restart: signals, timeouts, exit codes."""

from __future__ import annotations

import time

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import await_

TRAP = "trap 'echo got-%s; exit 9' %s; echo ready; while :; do sleep 0.1; done"


def ready(bothy: Walled, name: str) -> None:
    await_(lambda: "ready" in bothy("logs", name).out, f"{name} to be ready", timeout=60)


def test_stop_sends_term_and_waits(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-stop", "busybox", "sh", "-c", TRAP % ("term", "TERM")).ok()
    ready(bothy, "t-stop")
    assert bothy("stop", "t-stop").ok().line == "t-stop"
    state = bothy.engine.inspect("t-stop")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 9)
    assert "got-term" in bothy("logs", "t-stop").out
    bothy("rm", "t-stop").ok()


def test_stop_signal_of_the_workload(bothy: Walled) -> None:
    bothy("run", "-d", "--stop-signal", "USR1", "--name", "t-sig", "busybox", "sh", "-c", TRAP % ("usr1", "USR1")).ok()
    ready(bothy, "t-sig")
    bothy("stop", "t-sig").ok()
    assert "got-usr1" in bothy("logs", "t-sig").out
    bothy("rm", "t-sig").ok()


def test_stop_kills_who_does_not_listen(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-deaf", "busybox", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done").ok()
    ready(bothy, "t-deaf")
    start = time.monotonic()
    bothy("stop", "-t", "1", "t-deaf").ok()
    assert time.monotonic() - start > 0.9
    assert bothy.engine.inspect("t-deaf")["State"]["ExitCode"] == 137
    bothy("rm", "t-deaf").ok()


@pytest.mark.parametrize(("signal", "code"), [("KILL", 137), ("SIGINT", 130), ("15", 143)])
def test_kill_with_a_signal(bothy: Walled, signal: str, code: int) -> None:
    bothy("run", "-d", "--init", "--name", "t-kill", "busybox", "sleep", "300").ok()
    bothy("kill", "-s", signal, "t-kill").ok()
    assert bothy("wait", "t-kill").ok().line == str(code)
    bothy("rm", "t-kill").ok()


def test_kill_of_what_does_not_run(bothy: Walled) -> None:
    bothy("create", "--name", "t-idle", "busybox", "true").ok()
    done = bothy("kill", "t-idle")
    assert done.code == 1
    assert "not running" in done.err
    assert bothy("kill", "-s", "NOSUCH", "t-idle").code == 1
    bothy("rm", "t-idle").ok()


def test_stop_of_a_stopped_one_is_no_error(bothy: Walled) -> None:
    bothy("run", "--name", "t-done", "busybox", "true").ok()
    bothy("stop", "t-done").ok()
    bothy("rm", "t-done").ok()


def test_restart_runs_the_program_anew(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-re", "busybox", "sh", "-c", "echo started; exec sleep 300").ok()
    first = bothy.engine.inspect("t-re")["State"]
    # A machine's program may need longer to its first word than the next command takes to kill it.
    await_(lambda: bothy("logs", "t-re").out == "started\n", "the first start's output", timeout=60)
    bothy("restart", "-t", "0", "t-re").ok()
    second = bothy.engine.inspect("t-re")["State"]
    assert second["Running"] is True
    assert second["StartedAt"] > first["StartedAt"]
    await_(lambda: bothy("logs", "t-re").out == "started\n" * 2, "the second start's output", timeout=60)
    bothy("rm", "-f", "t-re").ok()


def test_what_was_written_before_a_kill_is_in_the_log(bothy: Walled) -> None:
    """Each line is counted, after it was written, in a file that the next start reads."""
    script = 'if [ -e /n ]; then echo; echo "counted $(wc -l < /n)"; exec sleep 300; fi; while :; do echo line; echo x >> /n; done'
    bothy("run", "-d", "--name", "t-lines", "busybox", "sh", "-c", script).ok()
    await_(lambda: bothy("logs", "t-lines").out.count("line\n") > 20, "some lines", timeout=60)
    bothy("restart", "-t", "0", "t-lines").ok()
    await_(lambda: "counted" in bothy("logs", "--tail", "1", "t-lines").out, "the second start's output", timeout=60)
    *lines, counted = bothy("logs", "t-lines").ok().out.split("\n")[:-1]
    assert lines.count("line") - int(counted.split()[1]) in (0, 1)
    bothy("rm", "-f", "t-lines").ok()


def test_ctrl_c_reaches_the_program(bothy: Walled) -> None:
    process = bothy.engine.popen(
        *bothy.words("run", "--rm", "--name", "t-int", "busybox", "sh", "-c", TRAP % ("int", "INT")), stdout=-1
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(2)
    assert process.stdout.readline() == b"got-int\n"
    process.stdout.close()
    assert process.wait(60) == 9
