"""The command line as a person has it: start-up time, lists, ids in files, pipes that break, programs that ignore Ctrl-C."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import BOTHY, TestEngine, await_, kill9
from tests.support.settle import reap


def _milliseconds(argv: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, check=True, timeout=60)
    return (time.perf_counter() - began) * 1000


def test_ps_costs_at_most_40_ms_more_than_an_empty_program(settled: TestEngine) -> None:
    pairs = [
        (_milliseconds([str(BOTHY), "ps"], settled.env), _milliseconds([sys.executable, "-I", "-c", "pass"], settled.env))
        for _ in range(15)
    ]
    assert statistics.median(ours - empty for ours, empty in pairs) <= 40


def test_lists_in_every_form(bothy: Walled) -> None:
    ident = bothy("run", "-d", "--name", "c-list", "-l", "team=blue", "busybox", "sleep", "300").ok().line
    engine = bothy.engine
    assert engine("ps", "-q").line == ident[:12]
    assert engine("ps", "-q", "--no-trunc").line == ident
    assert engine("ps", "--format", "{{.Names}}|{{.Wall}}|{{.State}}").line == f"c-list|{bothy.wall}|running"
    assert engine("ps", "--format", '{{.Label "team"}}').line == "blue"
    assert json.loads(engine("ps", "--format", "json").line)["Names"] == "c-list"
    assert engine("ps", "--format", "table {{.Names}}\\t{{.Image}}").out == "NAMES    IMAGE\nc-list   busybox\n"
    assert engine("ps", "--filter", "label=team=red").out.count("\n") == 1
    assert engine("inspect", "-f", "{{.Config.Labels.team}} {{json .Config.Cmd}}", "c-list").line == 'blue ["sleep","300"]'
    bothy("rm", "-f", "c-list").ok()


def test_the_id_goes_into_a_file(bothy: Walled, tmp_path: Path) -> None:
    path = tmp_path / "id"
    ident = bothy("run", "-d", "--cidfile", str(path), "busybox", "sleep", "300").ok().line
    assert path.read_text() == ident
    again = bothy("run", "-d", "--cidfile", str(path), "busybox", "true")
    assert (again.code, "exists already" in again.err) == (125, True)
    bothy("rm", "-f", ident).ok()


def test_the_third_interrupt_lets_go_of_a_program_that_ignores_them(bothy: Walled) -> None:
    script = "trap '' INT; echo ready; while :; do read x; done"
    process = bothy.engine.popen(
        *bothy.words("run", "--name", "c-deaf", "-i", "busybox", "sh", "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline() == b"ready\n"
    for _ in range(3):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.05)  # the kernel merges signals that are pending at the same time; people do not press that fast
    assert process.wait(30) == 130
    assert bothy.engine.inspect("c-deaf")["State"]["Running"] is True
    process.stdin.close()
    process.stdout.close()
    bothy("rm", "-f", "c-deaf").ok()


def test_a_pipe_that_ends_early_is_quiet(bothy: Walled) -> None:
    process = bothy.engine.popen(
        *bothy.words("run", "--name", "c-yes", "busybox", "yes"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stderr
    assert process.stdout.read(2) == b"y\n"
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""
    process.stderr.close()
    bothy("rm", "-f", "c-yes").ok()


def test_a_long_pipe_through_a_slow_program_is_whole(bothy: Walled) -> None:
    data = bytes(range(256)) * 16384
    done = subprocess.run(
        bothy.engine.command(*bothy.words("run", "--rm", "-i", "busybox", "sh", "-c", "sleep 1; exec cat")),
        input=data, env=bothy.engine.env, capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_a_signal_to_the_command_line_is_one_to_the_program(bothy: Walled) -> None:
    script = "trap 'echo got term; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    process = bothy.engine.popen(*bothy.words("run", "--rm", "busybox", "sh", "-c", script), stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.stdout.read() == b"got term\n"
    assert process.wait(30) == 9
    process.stdout.close()


def test_several_names_are_each_tried(bothy: Walled) -> None:
    bothy("create", "--name", "c-one", "busybox", "true").ok()
    done = bothy("rm", "c-none", "c-one", "c-nil")
    assert (done.code, done.out) == (1, "c-one\n")
    assert done.err.count("bothy: ") == 2


def test_events_are_told_as_they_happen(settled: TestEngine) -> None:
    process = settled.popen("events", "-f", "event=die", "--format", "{{.Actor.Attributes.exitCode}}", stdout=subprocess.PIPE)
    assert process.stdout
    seen: list[bytes] = []

    def told() -> bool:
        # The subscription begins at a moment that nobody tells us: end programs until one is seen.
        settled("run", "--rm", "busybox", "sh", "-c", "exit 6")
        os.set_blocking(process.stdout.fileno(), False)  # type: ignore[union-attr]
        seen.append(process.stdout.read() or b"")  # type: ignore[union-attr]
        return bool(seen[-1])

    await_(told, "an event")
    assert seen[-1].splitlines()[0] == b"6"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    process.stdout.close()


@pytest.mark.parametrize("extra", [[], ["--rm"]], ids=["kept", "removed"])
def test_run_tells_the_exit_code_also_if_the_daemon_was_killed_meanwhile(bothy: Walled, extra: list[str]) -> None:
    process = bothy.engine.popen(
        *bothy.words("run", *extra, "-i", "busybox", "sh", "-c", "echo ready; read x; echo got $x; exit 11"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline() == b"ready\n"
    old = bothy.engine.pid_of("bothyd")
    kill9(old)
    await_(lambda: reap() or [p for p, n in bothy.engine.processes().items() if n == "bothyd" and p != old], "bothyd to come back")
    process.stdin.write(b"word\n")
    process.stdin.close()
    assert process.stdout.read() == b"got word\n"
    assert process.wait(60) == 11
    process.stdout.close()
