"""exec: another program in a running workload."""

from __future__ import annotations

import subprocess

from tests.e2e.conftest import Walled
from tests.support.engine import parallel


def test_exec_shares_the_workload(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-exec", "--hostname", "box", "busybox", "sh", "-c", "echo mark > /mark; exec sleep 300").ok()
    done = bothy("exec", "t-exec", "sh", "-c", "hostname; echo err >&2; exit 6")
    assert (done.code, done.out, done.err) == (6, "box\n", "err\n")
    assert bothy("exec", "t-exec", "sh", "-c", "until cat /mark 2>/dev/null; do sleep 0.05; done").ok().line == "mark"
    assert bothy("exec", "-i", "t-exec", "cat", stdin="piped").ok().out == "piped"
    assert (
        bothy("exec", "-e", "A=1", "-w", "/tmp", "-u", "nobody", "t-exec", "sh", "-c", "echo $A $(pwd) $(id -u)").ok().line
        == "1 /tmp 65534"
    )
    assert "sleep" in bothy("exec", "t-exec", "ps").ok().out
    bothy("rm", "-f", "t-exec").ok()


def test_exec_exit_codes(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-codes", "busybox", "sleep", "300").ok()
    assert bothy("exec", "t-codes", "no-such").code == 127
    assert bothy("exec", "t-codes", "/etc/passwd").code == 126
    assert bothy("exec", "t-codes", "sh", "-c", "kill -KILL $$").code == 137
    bothy("rm", "-f", "t-codes").ok()


def test_exec_detached(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-bg", "busybox", "sleep", "300").ok()
    bothy("exec", "-d", "t-bg", "sh", "-c", "echo late > /late").ok()
    assert bothy("exec", "t-bg", "sh", "-c", "until cat /late 2>/dev/null; do sleep 0.05; done").ok().line == "late"
    bothy("rm", "-f", "t-bg").ok()


def test_exec_needs_a_running_one(bothy: Walled) -> None:
    bothy("create", "--name", "t-idle", "busybox", "true").ok()
    done = bothy("exec", "t-idle", "true")
    assert done.code == 1
    assert "not running" in done.err
    assert bothy("exec", "t-nothing", "true").code == 1
    bothy("rm", "t-idle").ok()


def test_many_execs_at_once(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-many", "busybox", "sleep", "300").ok()
    commands = [
        bothy.engine.popen("exec", "t-many", "sh", "-c", f"echo {n}; exit {n}", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for n in range(12)
    ]
    for number, done in enumerate(parallel(commands)):
        assert (done.code, done.out) == (number, f"{number}\n"), done.err
    bothy("rm", "-f", "t-many").ok()


def test_exec_ends_with_the_workload(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-end", "busybox", "sleep", "300").ok()
    process = bothy.engine.popen("exec", "t-end", "sh", "-c", "echo in; exec sleep 300", stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"in\n"
    bothy("kill", "t-end").ok()
    process.stdout.close()
    assert process.wait(60) == 137
    bothy("rm", "t-end").ok()
