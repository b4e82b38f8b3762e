"""kill -9 of every process of ours, while workloads run and while they come and go."""

from __future__ import annotations

import os
import random
import subprocess
import threading

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import TestEngine, await_, kill9, parent_of
from tests.support.settle import reap

LOOP = "i=0; while :; do i=$((i+1)); echo line-$i; sleep 0.02; done"


@pytest.mark.parametrize("victim", ["bothyd", "bothy-spawner"])
def test_running_workloads_do_not_notice(bothy: Walled, victim: str) -> None:
    bothy("run", "-d", "--name", "t-alive", "busybox", "sh", "-c", LOOP).ok()
    attached = bothy.engine.popen("attach", "--no-stdin", "t-alive", stdout=subprocess.PIPE)
    assert attached.stdout
    attached.stdout.readline()
    old = bothy.engine.pid_of(victim)
    kill9(old)
    await_(
        lambda: reap() or [p for p, n in bothy.engine.processes().items() if n == victim and p != old],
        f"{victim} to come back by itself",
        timeout=60,
    )
    first = int(attached.stdout.readline().split(b"-")[1])
    numbers = [int(attached.stdout.readline().split(b"-")[1]) for _ in range(20)]
    assert numbers == list(range(first + 1, first + 21))
    assert bothy.engine.inspect("t-alive")["State"]["Running"] is True
    assert bothy("exec", "t-alive", "echo", "still").ok().line == "still"
    bothy("stop", "-t", "1", "t-alive").ok()
    attached.stdout.close()
    attached.wait(30)
    lines = bothy("logs", "t-alive").ok().out.split()
    assert lines == [f"line-{n}" for n in range(1, len(lines) + 1)]
    bothy("rm", "t-alive").ok()


def test_an_exit_while_the_daemon_is_dead_is_told(bothy: Walled) -> None:
    bothy("run", "-d", "-i", "--name", "t-exit", "busybox", "sh", "-c", "read x; echo bye; exit 42").ok()
    attached = bothy.engine.popen("attach", "t-exit", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert attached.stdin
    assert attached.stdout
    await_(lambda: "attach" in bothy("events", "--since", "60s", "--until", "0s", "--filter", "container=t-exit").out, "the attach")
    for victim in ("bothy-spawner", "bothyd"):
        kill9(bothy.engine.pid_of(victim))
    attached.stdin.write(b"go\n")
    attached.stdin.flush()
    assert attached.stdout.read() == b"bye\n"
    attached.stdin.close()
    attached.stdout.close()
    attached.wait(30)
    await_(lambda: bothy.engine.inspect("t-exit")["State"]["Status"] == "exited", "the exit to be recorded")
    assert bothy.engine.inspect("t-exit")["State"]["ExitCode"] == 42
    assert bothy("logs", "t-exit").ok().out == "bye\n"
    bothy("rm", "t-exit").ok()


def test_a_killed_keeper_takes_its_workload_along(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-keeper", "busybox", "sleep", "300").ok()
    pid = bothy.engine.inspect("t-keeper")["State"]["Pid"]
    keeper = parent_of(pid)
    assert bothy.engine.processes()[keeper] == "bothy-keeper"
    kill9(keeper)
    await_(lambda: bothy.engine.inspect("t-keeper")["State"]["Status"] == "exited", "the end to be recorded")
    state = bothy.engine.inspect("t-keeper")["State"]
    assert state["ExitCode"] == 137
    assert state["Error"]
    await_(lambda: reap() or not os.path.exists(f"/proc/{pid}"), "the program to be gone")
    bothy("start", "t-keeper").ok()
    assert bothy.engine.inspect("t-keeper")["State"]["Running"] is True
    bothy("rm", "-f", "t-keeper").ok()


def states(engine: TestEngine) -> list[str]:
    return engine("ps", "-a", "--format", "{{.State}}").ok().out.split()


@pytest.mark.parametrize("victim", ["bothyd", "bothy-spawner", "bothy-keeper"])
def test_killed_at_random_under_load(settled: TestEngine, victim: str) -> None:
    """Clients run and remove while the victim is killed again and again; then everything is true and tidy, and nothing runs that
    nobody knows of."""
    rng = random.Random(victim)
    stop = threading.Event()
    failures: list[str] = []

    def client(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            name = f"t-load-{number}-{count}"
            wall = ["--vm"] if number == 0 else []
            commands = [["run", "--rm", *wall, "--name", name, "busybox", "true"]]
            if number == 3:
                commands = [["run", "-d", "--rm", "--name", name, "busybox", "sleep", "300"], ["rm", "-f", name]]
            for command in commands:
                done = settled(*command)
                if "Traceback" in done.err or (done.code not in (0, 1, 125, 137)):
                    failures.append(f"{done.code}: {done.err}")

    clients = [threading.Thread(target=client, args=(n,)) for n in range(4)]
    for thread in clients:
        thread.start()
    for _ in range(8):
        stop.wait(rng.uniform(0.05, 0.8))
        pids = [pid for pid, name in settled.processes().items() if name.startswith(victim)]
        if pids:
            try:
                kill9(rng.choice(pids))
            except ProcessLookupError:
                pass
        reap()
    stop.set()
    for thread in clients:
        thread.join(120)
    assert not failures
    settled("run", "--rm", "busybox", "true").ok()
    for name in settled("ps", "-a", "--filter", "name=t-load-3", "--format", "{{.Names}}").ok().out.split():
        settled("rm", "-f", name)  # if its client could not
    # What had been created and not started may be there for ever; all else ends, and is removed as asked.
    await_(lambda: set(states(settled)) <= {"created"}, "what was started to be gone", timeout=60)
