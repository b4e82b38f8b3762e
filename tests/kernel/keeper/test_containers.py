"""Keepers of real containers: the program's life, exec, terminals, limits, and what is left when each of them dies."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothy.jsonable import PLAIN
from bothy.keeper.model import Exit
from bothy.linux import channel
from bothy.oci.runtime import Memory, Resources
from tests.support.keepers import Daemon, children, stopped
from tests.support.spawners import ID_BASE, SpawnerHarness, end_keeper, kill, remove_cgroups, wait_gone


def cgroups() -> set[str]:
    return {str(path) for path in Path("/sys/fs/cgroup").glob(f"**/bothy-test-{os.getpid()}/*") if path.is_dir()}


def test_container_runs_and_leaves_only_its_exit(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sh", "-c", "echo $$; hostname; id -u; exit 3")
    peer = spawned.start(daemon)
    assert peer.rest() == b"1\nc1\n0\n"
    event = daemon.event("exit")
    assert (event["code"], event["error"]) == (3, "")
    assert daemon.event("closed")
    assert daemon.read() is None
    assert spawned.spawner.event("gone")["status"] == 0
    assert os.listdir(spawned.run_folder("c1")) == ["exit.json"]
    assert PLAIN.loads(Exit, (spawned.run_folder("c1") / "exit.json").read_bytes()).code == 3
    lines = [json.loads(line)["log"] for line in spawned.log("c1").read_text().splitlines()]
    assert lines == ["1\n", "c1\n", "0\n"]
    assert cgroups() == set()


def test_program_that_is_not_there(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("/nowhere/program")
    error = daemon.request("start")["error"]
    assert (error["stage"], error["errno"]) == ("exec", 2)
    assert daemon.event("closed")
    assert spawned.spawner.event("gone")["status"] == 0
    assert os.listdir(spawned.run_folder("c1")) == []
    assert cgroups() == set()


def test_start_that_a_dead_daemon_asked_for_is_not_carried_out(spawned: SpawnerHarness) -> None:
    """Nobody would know of the program: the next daemon may have looked for its keeper before there was one to be found."""
    daemon = spawned.keeper("sleep", "600")
    assert daemon.request("status")["pid"] == 0
    (helper,) = children(spawned.spawner.event("keeper")["pid"])
    with stopped(helper):
        daemon.tell("start", seq=99)
        daemon.close()
    assert spawned.spawner.event("gone")["status"] == 0
    assert os.listdir(spawned.run_folder("c1")) == []
    assert cgroups() == set()


def test_keeper_of_a_dead_daemon_leaves_the_folder_alone(spawned: SpawnerHarness) -> None:
    """It may be that of the workload's next keeper already."""
    folder = spawned.run_folder("c1")
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(PLAIN.dumps(spawned.plan("c1", "sleep", "600")))
    ours, theirs = channel.pair()
    channel.send(ours, {"op": "start", "seq": 1})
    ours.close()
    spawned.spawner.tell("keeper", (theirs.fileno(),), id="c1", folder=str(folder), id_base=ID_BASE)
    theirs.close()
    assert spawned.spawner.event("gone")["status"] == 0
    assert os.listdir(folder) == ["spec.json"]
    assert cgroups() == set()


def test_keeper_with_a_bad_plan_says_so(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("true")
    (spawned.run_folder("c2")).mkdir()
    (spawned.run_folder("c2") / "spec.json").write_text('{"id": 7}')
    assert daemon.request("status")["pid"] == 0
    other = _keeper_of_folder(spawned, "c2")
    error = other.request("start")["error"]
    assert error["stage"] == "plan"
    assert "KeeperPlan.id" in error["message"]
    other.close()


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[tuple[SpawnerHarness, Path]]:
    """A spawner, and the file that gets what it and its keepers say on stderr."""
    told = tmp_path / "stderr"
    saved = os.dup(2)
    with told.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        harness = SpawnerHarness(tmp_path)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    yield harness, told
    harness.close()


def test_a_bug_at_birth_is_told_and_logged(heard: tuple[SpawnerHarness, Path]) -> None:
    spawned, told = heard
    daemon = spawned.keeper("true")
    error = daemon.request("start", clients=5)["error"]  # nobody would send it: what is gone through is a number
    assert (error["stage"], error["message"]) == ("start", "internal error: TypeError: 'int' object is not iterable")
    assert daemon.event("closed")
    assert spawned.spawner.event("gone")["status"] == 0
    assert "Traceback" in told.read_text()
    assert cgroups() == set()


def test_a_bug_in_the_container_is_told_and_logged(heard: tuple[SpawnerHarness, Path]) -> None:
    spawned, told = heard
    daemon = spawned.keeper("true")
    path = spawned.run_folder("c1") / "spec.json"
    plan = json.loads(path.read_text())
    plan["container"]["spec"]["linux"]["devices"][0]["fileMode"] = 1 << 40  # nobody would plan it: mknod(2) has no such mode
    path.write_text(json.dumps(plan))
    error = daemon.request("start")["error"]
    assert error["stage"] == "mount"
    assert error["message"].startswith("internal error: OverflowError: ")
    assert spawned.spawner.event("gone")["status"] == 0
    assert "OverflowError" in told.read_text()
    assert cgroups() == set()


def test_exec_terminal_and_half_close(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sleep", "600")
    spawned.start(daemon)
    peer = spawned.exec(daemon, "cat", "cat", stdin=True)
    peer.send(b"through")
    peer.half_close()
    assert peer.rest() == b"through"
    assert daemon.event("exec-exit") == {"event": "exec-exit", "exec": "cat", "code": 0}
    peer = spawned.exec(daemon, "tty", "sh", "-c", "stty -echo; tty; read x; stty size; exit 5", tty=True, stdin=True)
    assert peer.until(b"\r\n").startswith(b"/dev/pts/")
    daemon.request("resize", exec="tty", height=44, width=55)
    peer.send(b"\n")
    assert peer.rest().endswith(b"\r\n44 55\r\n")
    assert daemon.event("exec-exit")["code"] == 5
    error = daemon.request("exec", plan={"id": "x", "process": {"args": ["/nowhere"]}})["error"]
    assert (error["stage"], error["errno"]) == ("exec", 2)


def test_hundred_execs(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sleep", "600")
    spawned.start(daemon)
    peers = [spawned.exec(daemon, f"e{n}", "sh", "-c", f"echo {n}; exit {n}") for n in range(100)]
    assert [peer.rest() for peer in peers] == [b"%d\n" % n for n in range(100)]
    codes = {e["exec"]: e["code"] for e in (daemon.event("exec-exit") for _ in range(100))}
    assert codes == {f"e{n}": n for n in range(100)}


def test_terminal_of_the_main_program(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sh", "-c", "stty -echo; echo ready; read x; stty size; echo $x", tty=True, stdin=True)
    peer = spawned.start(daemon, stdin=True)
    peer.until(b"ready\r\n")
    daemon.request("resize", height=12, width=34)
    peer.send(b"word\n")
    assert peer.rest() == b"ready\r\n12 34\r\nword\r\n"


def test_what_a_client_had_sent_before_reaches_the_program(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("cat", stdin=True, stdin_once=True)
    peer = spawned.start(daemon, stdin=True, initial="early ")
    assert peer.until(b"early ") == b"early "
    peer.send(b"late")
    peer.half_close()
    assert peer.rest() == b"early late"


def test_client_that_leaves_a_parked_keeper_is_let_go(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sleep", "600")
    spawned.start(daemon).close()
    keeper = spawned.spawner.event("keeper")["pid"]
    while sum(link.startswith("socket:") for link in map(os.readlink, map(str, Path(f"/proc/{keeper}/fd").iterdir()))) > 2:
        assert daemon.request("status")["pid"]


def test_sigterm_to_a_parked_keeper_is_passed_on(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done")
    status = Path(f"/proc/{daemon.request('start')['pid']}/status")
    caught = 0
    while not caught >> (signal.SIGTERM - 1) & 1:  # a program that printed something would wake the keeper
        caught = int(next(line for line in status.read_text().splitlines() if line.startswith("SigCgt")).split()[1], 16)
    os.kill(spawned.spawner.event("keeper")["pid"], signal.SIGTERM)
    assert daemon.event("exit")["code"] == 9


def test_refused_starts_say_why(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("true")
    assert "does not run" in daemon.request("top")["error"]["message"]
    peer, pipe = os.pipe()
    error = daemon.request("start", (pipe,), clients=[{}])["error"]
    os.close(pipe)
    assert "no socket" in error["message"]
    assert os.read(peer, 1) == b""
    os.close(peer)
    assert daemon.event("closed")


def test_top_stats_pause_update(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sh", "-c", "sleep 600 & wait")
    spawned.start(daemon)
    table = daemon.request("top")
    while sorted(row[-1] for row in table["processes"]) != ["sh -c sleep 600 & wait", "sleep 600"]:
        table = daemon.request("top")
    assert table["titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert {row[0] for row in table["processes"]} == {"root"}
    assert daemon.request("stats")["memory_stats"]["usage"] > 0
    assert daemon.request("pause") == {}
    assert daemon.request("status")["paused"] is True
    assert "paused" in daemon.request("exec", plan={"id": "x", "process": {"args": ["true"]}})["error"]["message"]
    assert daemon.request("resume") == {}
    assert daemon.request("update", resources=PLAIN.to_data(Resources(memory=Memory(64 << 20)))) == {}
    assert daemon.request("stats")["memory_stats"]["limit"] == 64 << 20


def test_kill_of_a_paused_container(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sleep", "600")
    spawned.start(daemon)
    assert daemon.request("pause") == {}
    assert daemon.request("kill") == {}
    assert daemon.event("exit")["code"] == 137


def test_background_processes_die_with_the_program(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sh", "-c", "sleep 600 & sleep 600 & echo started; exit 0")
    assert spawned.start(daemon).rest() == b"started\n"
    assert daemon.event("exit")["code"] == 0
    assert cgroups() == set()


def test_out_of_memory_is_told(spawned: SpawnerHarness) -> None:
    limits = Resources(memory=Memory(16 << 20, swap=16 << 20))
    daemon = spawned.keeper("sh", "-c", "head -c 100000000 /dev/zero | tail", memory=limits)
    spawned.start(daemon)
    event = daemon.event("exit")
    assert event["oom"] is True
    assert PLAIN.loads(Exit, (spawned.run_folder("c1") / "exit.json").read_bytes()).oom is True


def test_out_of_memory_of_a_child_is_told_at_once(spawned: SpawnerHarness) -> None:
    limits = Resources(memory=Memory(16 << 20, swap=16 << 20))
    daemon = spawned.keeper("sh", "-c", "head -c 100000000 /dev/zero | tail; sleep 600", memory=limits)
    assert daemon.request("start")["pid"]
    assert daemon.event("oom") == {"event": "oom"}
    assert daemon.request("status")["oom"] is True


def test_killed_keeper_takes_its_container_along(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sleep", "600")
    spawned.start(daemon)
    init = daemon.request("status")["pid"]
    kill(spawned.spawner.event("keeper")["pid"])
    assert daemon.read() is None
    wait_gone(init)
    gone = spawned.spawner.event("gone")
    assert (gone["id"], gone["status"]) == ("c1", 128 + signal.SIGKILL)
    assert not (spawned.run_folder("c1") / "exit.json").exists()
    remove_cgroups()


def test_killed_spawner_harms_nobody(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sh", "-c", "read x; echo got $x; exit 6", stdin=True)
    peer = spawned.start(daemon, stdin=True)
    kill(spawned.process.pid)
    peer.send(b"word\n")
    assert peer.rest() == b"got word\n"
    assert daemon.event("exit")["code"] == 6


def test_memory_of_idle_keepers(spawned: SpawnerHarness) -> None:
    """What each idle container adds, in proportional set size of keeper, spawner and zygote, is at most 1 MB."""
    spawned.keeper("true").close()
    spawned.spawner.event("gone")
    ours = (spawned.process.pid, spawned.zygote)
    before = sum(map(pss, ours))
    daemons = [spawned.keeper("sleep", "600") for _ in range(6)]
    for daemon in daemons:
        assert daemon.request("start")["pid"]
    first = spawned.spawner.event("keeper")
    assert first["id"] == "c1"
    keepers = [spawned.spawner.event("keeper")["pid"] for _ in daemons]
    added = (sum(map(pss, ours)) + sum(map(pss, keepers)) - before) / len(keepers)
    for daemon in daemons:
        end_keeper(daemon)
    assert added <= 1024


def pss(pid: int) -> int:
    """Kilobytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1])


def _keeper_of_folder(spawned: SpawnerHarness, name: str) -> Daemon:
    from bothy.linux import channel

    ours, theirs = channel.pair()
    folder = str(spawned.run_folder(name))
    spawned.spawner.tell("keeper", (theirs.fileno(),), id=name, folder=folder, id_base=0, network="host")
    theirs.close()
    return Daemon(ours)
