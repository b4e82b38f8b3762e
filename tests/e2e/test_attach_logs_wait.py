"""attach, logs and wait."""

from __future__ import annotations

import subprocess

from tests.e2e.conftest import Walled
from tests.support.engine import await_


def converse(bothy: Walled, name: str, said: bytes) -> tuple[int, bytes]:
    """Attach, say something, and listen until the end: exit code and stdout. The input stays open: its end would end the attachment."""
    process = bothy.engine.popen("attach", name, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    process.stdin.write(said)
    process.stdin.flush()
    heard = process.stdout.read()
    process.stdin.close()
    process.stdout.close()
    return process.wait(60), heard


def test_attach_follows_to_the_end(bothy: Walled) -> None:
    bothy("run", "-d", "-i", "--name", "t-att", "busybox", "sh", "-c", "read x; echo got $x; exit 4").ok()
    assert converse(bothy, "t-att", b"word\n") == (4, b"got word\n")
    bothy("rm", "t-att").ok()


def test_two_clients_see_the_same(bothy: Walled) -> None:
    bothy("run", "-d", "-i", "--name", "t-two", "busybox", "sh", "-c", "read x; echo line; read y; exit 0").ok()
    watching = bothy.engine.popen("attach", "--no-stdin", "t-two", stdout=subprocess.PIPE)
    await_(
        lambda: "attach" in bothy("events", "--since", "60s", "--until", "0s", "--filter", "container=t-two").out,
        "the attach event",
    )
    assert converse(bothy, "t-two", b"a\nb\n") == (0, b"line\n")
    assert watching.stdout
    assert watching.stdout.read() == b"line\n"
    watching.stdout.close()
    assert watching.wait(60) == 0
    bothy("rm", "t-two").ok()


def test_logs_keep_both_streams(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-logs", "busybox", "sh", "-c", "for i in 1 2 3; do echo out$i; echo err$i >&2; done").ok()
    assert bothy("wait", "t-logs").ok().line == "0"
    done = bothy("logs", "t-logs").ok()
    assert done.out == "out1\nout2\nout3\n"
    assert done.err == "err1\nerr2\nerr3\n"
    assert (
        bothy("logs", "--tail", "2", "t-logs").ok().out.count("out") + bothy("logs", "--tail", "2", "t-logs").err.count("err") == 2
    )
    stamped = bothy("logs", "-t", "t-logs").ok().out.splitlines()[0]
    assert stamped.endswith(" out1")
    assert stamped[10] == "T"
    moment = stamped.split()[0]
    assert bothy("logs", "--since", moment, "t-logs").ok().out == "out1\nout2\nout3\n"
    assert bothy("logs", "--until", "2001-01-01T00:00:00Z", "t-logs").ok().out == ""
    bothy("rm", "t-logs").ok()


def test_logs_follow_until_the_end(bothy: Walled) -> None:
    bothy("run", "-d", "-i", "--name", "t-follow", "busybox", "sh", "-c", "echo first; read x; echo $x").ok()
    follow = bothy.engine.popen("logs", "-f", "t-follow", stdout=subprocess.PIPE)
    assert follow.stdout
    assert follow.stdout.readline() == b"first\n"
    assert converse(bothy, "t-follow", b"second\n")[0] == 0
    assert follow.stdout.read() == b"second\n"
    follow.stdout.close()
    assert follow.wait(60) == 0
    bothy("rm", "t-follow").ok()


def test_logs_rotate_and_stay_readable(bothy: Walled) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo line-$i-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; i=$((i+1)); done"
    bothy("run", "--name", "t-rot", "--log-opt", "max-size=64k", "--log-opt", "max-file=3", "busybox", "sh", "-c", script).ok()
    lines = bothy("logs", "t-rot").ok().out.splitlines()
    assert lines[-1].startswith("line-1999-")
    assert 500 < len(lines) < 2000
    numbers = [int(line.split("-")[1]) for line in lines]
    assert numbers == list(range(numbers[0], 2000))
    bothy("rm", "t-rot").ok()


def test_long_lines_are_whole(bothy: Walled) -> None:
    bothy("run", "--name", "t-long", "busybox", "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo; echo next").ok()
    assert bothy("logs", "t-long").ok().out == "x" * 100000 + "\nnext\n"
    bothy("rm", "t-long").ok()


def test_wait_for_several(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-w1", "busybox", "sh", "-c", "exit 1").ok()
    bothy("run", "-d", "--name", "t-w2", "busybox", "sh", "-c", "exit 2").ok()
    assert bothy("wait", "t-w1", "t-w2").ok().out == "1\n2\n"
    bothy("rm", "t-w1", "t-w2").ok()
