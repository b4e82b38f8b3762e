"""The spawner: the pool, what keepers inherit, its end, and the daemon that it brings back."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bothy.spawner import command
from tests.support.keepers import children
from tests.support.spawners import ID_BASE, SpawnerHarness, kill, remove_cgroups, wait_gone


def descriptors(pid: int) -> list[str]:
    links = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            continue  # closed meanwhile
    return sorted(links)


def test_pool_is_filled_and_used(spawned: SpawnerHarness) -> None:
    base = ID_BASE + 65536
    spawned.spawner.tell("pool", size=2, id_bases=[base, base + 65536, base + 2 * 65536])
    pid = spawned.process.pid
    ready: set[str] = set()
    while len(ready) < 2:
        assert spawned.process.poll() is None
        ready = {link for link in descriptors(pid) if link.startswith("net:")}
    daemon = spawned.keeper("sleep", "600", id_base=base)
    spawned.start(daemon)
    init = daemon.request("status")["pid"]
    assert os.readlink(f"/proc/{init}/ns/net") in ready
    assert Path(f"/proc/{init}/uid_map").read_text().split() == ["0", str(base), "65536"]
    other = spawned.keeper("sleep", "600", id_base=base + 100 * 65536)
    spawned.start(other)
    assert os.readlink(f"/proc/{other.request('status')['pid']}/ns/net") not in ready


def test_keepers_inherit_only_what_is_theirs(spawned: SpawnerHarness) -> None:
    spawned.spawner.tell("pool", size=3, id_bases=[ID_BASE + 65536 * n for n in range(10, 13)])
    for _ in range(3):
        spawned.start(spawned.keeper("sleep", "600"))
    keepers = [spawned.spawner.event("keeper")["pid"] for _ in range(3)]
    for keeper in keepers:
        links = descriptors(keeper)
        assert not [link for link in links if link.startswith(("user:", "net:", "ipc:", "uts:"))]
        assert len(links) <= 14, links
        assert Path(f"/proc/{keeper}/comm").read_text() == "bothy-keeper\n"
    assert Path(f"/proc/{spawned.process.pid}/comm").read_text() == "bothy-spawner\n"


def test_programs_inherit_nothing_of_ours(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sleep", "600")
    spawned.start(daemon)
    spawned.exec(daemon, "e", "sleep", "600")
    status = daemon.request("status")
    for pid in (status["pid"], status["execs"][0]["pid"]):
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
        text = Path(f"/proc/{pid}/status").read_text()
        ignored = int(next(line for line in text.splitlines() if line.startswith("SigIgn")).split()[1], 16)
        assert ignored == 0


def test_spawner_does_not_grow(spawned: SpawnerHarness) -> None:
    def one() -> None:
        daemon = spawned.keeper("true")
        spawned.start(daemon)
        daemon.event("closed")
        spawned.spawner.event("gone")

    one()
    before = descriptors(spawned.process.pid)
    for _ in range(10):
        one()
    assert descriptors(spawned.process.pid) == before
    assert children(spawned.process.pid) == [spawned.zygote]
    assert children(spawned.zygote) == []


def test_requests_that_make_no_sense_are_refused(spawned: SpawnerHarness) -> None:
    assert "unknown request" in spawned.spawner.request("dance")["error"]["message"]
    assert "descriptor is missing" in spawned.spawner.request("keeper", id="x", folder="/x")["error"]["message"]
    assert spawned.spawner.event("gone")["error"]["stage"] == "spawner"


def test_bye_ends_the_spawner_and_no_keeper(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sleep", "600")
    spawned.start(daemon)
    spawned.spawner.tell("bye")
    assert spawned.process.wait(10) == 0
    assert daemon.request("status")["pid"] > 0


def test_spawner_without_daemon_ends(tmp_path: Path) -> None:
    harness = SpawnerHarness(tmp_path)
    harness.spawner.sock.close()
    assert harness.process.wait(10) == 0


@pytest.fixture
def listener(tmp_path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "sock"))
    sock.listen()
    return sock


DAEMON = """
import os, socket, sys
assert os.environ["LISTEN_FDS"] == "1" and os.environ["LISTEN_PID"] == str(os.getpid())
sock = socket.socket(fileno=3)
client, _ = sock.accept()
client.sendall(f"{os.getpid()} {os.environ['BOTHY_REVIVED']} {sorted(os.listdir('/proc/self/fd'))}".encode())
"""


def test_dead_daemon_is_brought_back_with_its_socket(tmp_path: Path, listener: socket.socket) -> None:
    harness = SpawnerHarness(tmp_path)
    argv = [sys.executable, "-c", textwrap.dedent(DAEMON)]
    harness.spawner.tell("hello", (listener.fileno(),), daemon=argv)
    listener.close()
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(tmp_path / "sock"))  # nobody accepts yet
    harness.spawner.sock.close()
    client.settimeout(20)
    pid, revived, fds = client.recv(1000).decode().split(" ", 2)
    assert revived == "1"
    assert fds == "['0', '1', '2', '3', '4', '5']"  # the listener, the connection, and the folder being listed
    assert harness.process.wait(10) == 0
    wait_gone(int(pid))
    client.close()


@pytest.mark.parametrize(("environ", "bye"), [({"INVOCATION_ID": "x"}, False), ({}, True), ({"BOTHY_REVIVED": "60"}, False)])
def test_daemon_is_not_brought_back(tmp_path: Path, listener: socket.socket, environ: dict[str, str], bye: bool) -> None:
    harness = SpawnerHarness(tmp_path, environ=environ)
    mark = tmp_path / "mark"
    harness.spawner.tell("hello", (listener.fileno(),), daemon=["/usr/bin/touch", str(mark)])
    listener.close()
    if bye:
        harness.spawner.tell("bye")
    harness.spawner.sock.close()
    assert harness.process.wait(10) == 0
    assert not mark.exists()


def test_help_and_usage() -> None:
    argv = command.argv(0)[:-2]
    assert "fork" in subprocess.run([*argv, "--help"], capture_output=True, text=True, check=True).stdout
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 2


def test_kill_of_a_keeper_is_told(spawned: SpawnerHarness) -> None:
    daemon = spawned.keeper("sleep", "600")
    spawned.start(daemon)
    init = daemon.request("status")["pid"]
    kill(spawned.spawner.event("keeper")["pid"])
    assert spawned.spawner.event("gone")["status"] == 137
    wait_gone(init)
    remove_cgroups()
