"""A keeper over a local program: start, stdio, exit, signals, exec, control."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import pytest

from bothy.jsonable import PLAIN
from bothy.keeper import workload as wall
from bothy.keeper.model import ExecPlan
from bothy.linux import channel
from bothy.oci.runtime import Process
from tests.support.keepers import Daemon, Harness, LocalWorkload, children, stopped


def test_program_runs_and_its_end_is_told_and_written(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "echo out; echo err >&2; exit 7")
    peer = harness.start(daemon)
    assert sorted(peer.rest().splitlines()) == [b"err", b"out"]
    event = daemon.event("exit")
    assert (event["code"], event["oom"], event["error"]) == (7, False, "")
    assert event["started"] <= event["finished"]
    assert daemon.event("closed")
    assert daemon.read() is None
    assert harness.wait() == 0
    assert harness.exit().code == 7
    assert sorted(os.listdir(harness.folder)) == ["exit.json", "log"]


def test_mux_framing_tells_streams_apart(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "echo out; sleep 0.1; echo err >&2")
    data = harness.start(daemon, framing="mux").rest()
    assert data == struct.pack(">BxxxL", 1, 4) + b"out\n" + struct.pack(">BxxxL", 2, 4) + b"err\n"


def test_client_gets_only_what_it_asked_for(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "echo out; echo err >&2")
    assert harness.start(daemon, stdout=False).rest() == b"err\n"


def test_death_by_signal_is_128_and_more(harness: Harness) -> None:
    daemon = harness.keeper("sleep", "60")
    harness.start(daemon)
    assert daemon.request("signal", number=int(signal.SIGKILL)) == {}
    assert daemon.event("exit")["code"] == 137


def test_kill_ends_everything(harness: Harness) -> None:
    daemon = harness.keeper("sleep", "60")
    harness.start(daemon)
    assert daemon.request("kill") == {}
    assert daemon.event("exit")["code"] == 137


def test_status_top_stats_pause(harness: Harness) -> None:
    daemon = harness.keeper("sleep", "60")
    assert daemon.request("status")["pid"] == 0
    harness.start(daemon)
    status = daemon.request("status")
    assert status["paused"] is False
    assert status["execs"] == []
    table = daemon.request("top", args="-o pid,comm")
    assert table == {"titles": ["PID", "COMMAND"], "processes": [[str(status["pid"]), "sleep"]]}
    assert daemon.request("stats")["pids_stats"] == {"current": 1}
    assert daemon.request("pause") == {}
    assert daemon.request("status")["paused"] is True
    assert daemon.request("resume") == {}
    assert daemon.request("status")["paused"] is False
    assert "unknown column" in daemon.request("top", args="-o nonsense")["error"]["message"]
    assert "unknown request" in daemon.request("dance")["error"]["message"]


def test_requests_out_of_turn_are_refused(harness: Harness) -> None:
    daemon = harness.keeper("sleep", "60")
    assert "does not run" in daemon.request("stats")["error"]["message"]
    assert "does not run" in daemon.request("signal", number=9)["error"]["message"]
    assert "does not run" in daemon.request("exec", plan={"id": "a", "process": {"args": ["true"]}})["error"]["message"]
    harness.start(daemon)
    assert "starts once" in daemon.request("start")["error"]["message"]
    assert "descriptor is missing" in daemon.request("attach", client={})["error"]["message"]


def test_failed_start_is_answered_and_leaves_nothing(harness: Harness) -> None:
    class Refuses:
        def __init__(self, *_: object, **__: object) -> None: ...
        def start(self, *_: object) -> None:
            raise FileNotFoundError(2, "no such thing", "/nowhere")

        def close(self) -> None: ...

    daemon = harness.keeper("true", make=Refuses)  # type: ignore[arg-type]
    peer, fd, data = harness.client()
    error = daemon.request("start", (fd,), clients=[data])["error"]
    os.close(fd)
    assert error == {"stage": "start", "message": "no such thing", "errno": 2, "path": "/nowhere"}
    assert peer.rest() == b""
    assert harness.wait() == 0
    assert os.listdir(harness.folder) == ["log"]


def test_a_bug_is_answered_and_logged_and_the_program_goes_on(capfd: pytest.CaptureFixture[str], harness: Harness) -> None:
    class Buggy(LocalWorkload):
        def exec(self, plan: ExecPlan, session: wall.Session, started: wall.Started) -> None:
            raise NameError("name 'x' is not defined")

        def stats(self, done: wall.Done) -> None:
            raise KeyError("usage")

    daemon = harness.keeper("sleep", "60", make=Buggy)
    harness.start(daemon)
    error = daemon.request("stats")["error"]
    assert (error["stage"], error["message"]) == ("stats", "internal error: KeyError: 'usage'")
    plan = PLAIN.to_data(ExecPlan("e", Process(["true"])))
    error = daemon.request("exec", plan=plan)["error"]
    assert (error["stage"], error["message"]) == ("exec", "internal error: NameError: name 'x' is not defined")
    assert daemon.request("status")["execs"] == []
    assert daemon.request("kill") == {}
    assert daemon.event("exit")["error"] == ""
    told = capfd.readouterr().err
    assert "Traceback" in told
    assert "NameError: name 'x' is not defined" in told


def test_a_bug_in_the_start_is_answered_and_leaves_nothing(capfd: pytest.CaptureFixture[str], harness: Harness) -> None:
    class Buggy(LocalWorkload):
        def start(self, session: wall.Session, started: wall.Started) -> None:
            raise IndexError("list index out of range")

    daemon = harness.keeper("true", make=Buggy)
    assert daemon.request("start")["error"]["message"] == "internal error: IndexError: list index out of range"
    assert daemon.event("closed")
    assert harness.wait() == 0
    assert "Traceback" in capfd.readouterr().err


def test_keeper_without_daemon_before_start_ends(harness: Harness) -> None:
    daemon = harness.keeper("true")
    assert daemon.request("status")["pid"] == 0
    daemon.close()
    assert harness.wait() == 0
    assert os.listdir(harness.folder) == ["log"]


def test_start_that_a_dead_daemon_asked_for_is_not_carried_out(harness: Harness, tmp_path: Path) -> None:
    daemon = harness.keeper("touch", str(tmp_path / "ran"))
    assert daemon.request("status")["pid"] == 0
    with stopped(harness.pid):
        daemon.tell("start", seq=99)
        daemon.close()
    assert harness.wait() == 0
    assert os.listdir(harness.folder) == ["log"]


def test_daemons_come_and_go(harness: Harness) -> None:
    first = harness.keeper("sh", "-c", "read line; echo got $line; exit 3", stdin=True)
    peer = harness.start(first, stdin=True)
    pid = first.request("status")["pid"]
    first.close()
    second = Daemon(channel.connect(str(harness.folder), "control.sock"))
    third = Daemon(channel.connect(str(harness.folder), "control.sock"))
    assert second.request("status")["pid"] == pid
    assert third.request("status")["pid"] == pid
    second.close()
    peer.send(b"hello\n")
    assert peer.rest() == b"got hello\n"
    assert third.event("exit")["code"] == 3
    third.close()


def test_end_without_any_daemon_is_on_disk(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "read line; exit 5", stdin=True)
    peer = harness.start(daemon, stdin=True)
    daemon.close()
    peer.send(b"\n")
    assert peer.rest() == b""
    assert harness.wait() == 0
    assert harness.exit().code == 5


def test_exec_beside_the_program(harness: Harness) -> None:
    daemon = harness.keeper("sleep", "60")
    harness.start(daemon)
    peer = harness.exec(daemon, "one", "sh", "-c", "cat; exit 4", stdin=True, framing="raw")
    assert [e["exec"] for e in daemon.request("status")["execs"]] == ["one"]
    peer.send(b"typed")
    peer.half_close()
    assert peer.rest() == b"typed"
    other = harness.exec(daemon, "two", "sh", "-c", "echo ok; exit 4")
    assert other.rest() == b"ok\n"
    codes = {}
    while len(codes) < 2:
        event = daemon.event("exec-exit")
        codes[event["exec"]] = event["code"]
    assert codes == {"one": 4, "two": 4}
    assert daemon.request("status")["execs"] == []


def test_hundred_execs_at_once(harness: Harness) -> None:
    daemon = harness.keeper("sleep", "60")
    harness.start(daemon)
    before = len(os.listdir(f"/proc/{harness.pid}/fd"))
    peers = [harness.exec(daemon, f"e{n}", "sh", "-c", f"echo {n}; exit {n}") for n in range(100)]
    for number, peer in enumerate(peers):
        assert peer.rest() == f"{number}\n".encode()
    codes = {e["exec"]: e["code"] for e in (daemon.event("exec-exit") for _ in range(100))}
    assert codes == {f"e{n}": n for n in range(100)}
    assert daemon.request("status")["execs"] == []
    assert len(os.listdir(f"/proc/{harness.pid}/fd")) == before
    assert len(children(harness.pid)) == 1


def test_exec_ends_though_something_holds_its_output(harness: Harness) -> None:
    daemon = harness.keeper("sleep", "60")
    harness.start(daemon)
    peer = harness.exec(daemon, "bg", "sh", "-c", "echo first; (sleep 0.3; echo late; exec sleep 30) & exit 2")
    assert peer.rest() == b"first\nlate\n"
    assert daemon.event("exec-exit")["code"] == 2


def test_orphans_are_reaped(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "(sh -c 'echo orphan; exit 1' &) ; sleep 60")
    assert harness.start(daemon).until(b"orphan\n") == b"orphan\n"
    while len(children(harness.pid)) != 1:
        daemon.request("status")
    assert children(harness.pid) == [daemon.request("status")["pid"]]


def test_sigterm_is_passed_on(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    peer = harness.start(daemon)
    peer.until(b"ready\n")
    os.kill(harness.pid, signal.SIGTERM)
    assert peer.rest() == b"ready\nbye\n"
    assert daemon.event("exit")["code"] == 9
