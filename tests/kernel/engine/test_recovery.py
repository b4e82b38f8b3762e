"""kill -9 of the daemon, the spawner and a keeper at any moment: what runs goes on, the records come true again, nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bothy.api.client import Client
from bothy.errors import BothyError
from bothy.paths import Paths
from tests.kernel.engine.conftest import left
from tests.support.engine import parent_of


class Daemon:
    """A bothyd in a process of its own, with its client."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.env = {**os.environ, "BOTHY_ROOT": str(paths.root), "BOTHY_RUN": str(paths.run)}
        self._first: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = open(self.paths.run / "daemon.log", "ab")  # noqa: SIM115
        with log:
            self._first = subprocess.Popen(
                [sys.executable, "-P", "-m", "bothy.daemon"], env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.until(lambda: self.call("GET", "/_ping") is not None, "the daemon")

    @property
    def pid(self) -> int:
        return int((self.paths.run / "daemon.lock").read_text() or 0)

    def children(self) -> dict[int, str]:
        """This engine's processes, by pid, without those in containers."""
        mark = f"BOTHY_RUN={self.paths.run}".encode()
        found = {}
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    found[int(entry)] = Path(f"/proc/{entry}/comm").read_text().strip()
        return found

    def one(self, name: str) -> int:
        """The process of that name; of the spawner's the one that the daemon has started (its helpers have its name for a moment)."""
        pids = [pid for pid, comm in self.children().items() if comm == name]
        if name == "bothy-spawner":
            pids = [pid for pid in pids if parent_of(pid) == self.pid]
        if len(pids) != 1:
            raise LookupError(f"{name}: {self.children()}")
        return pids[0]

    def kill(self) -> None:
        """kill -9 the daemon and wait until another one answers."""
        old = self.pid
        os.kill(old, signal.SIGKILL)
        if self._first is not None and self._first.pid == old:
            self._first.wait()
        self.until(lambda: self.pid != old and self.call("GET", "/_ping") is not None, "another daemon")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        with Client(str(self.paths.socket), run="") as client:
            response = client.request(method, path, body=body)
            data = response.read()
            return data if path == "/_ping" or not data else json.loads(data)

    def run(self, *cmd: str, **host: Any) -> str:
        made = self.call(
            "POST", "/containers/create", {"Image": "busybox", "Cmd": list(cmd), "HostConfig": {"NetworkMode": "none", **host}}
        )
        self.call("POST", f"/containers/{made['Id']}/start")
        return str(made["Id"])

    def state(self, ref: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/containers/{ref}/json")["State"]
        return found

    def until(self, condition: Callable[[], object], what: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(BothyError, OSError, ValueError, LookupError):
                if condition():
                    return
            assert time.monotonic() < end, f"{what} did not come; {(self.paths.run / 'daemon.log').read_text()[-2000:]}"
            time.sleep(0.02)

    def end(self) -> None:
        for entry in self.call("GET", "/containers/json?all=1"):
            with contextlib.suppress(BothyError):
                self.call("DELETE", f"/containers/{entry['Id']}?force=1&v=1")
        self.call("POST", "/bothy/shutdown")
        if self._first is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._first.wait(10)
        self.until(lambda: not self.children(), "the end of all processes")


@pytest.fixture
def daemon(paths: Paths) -> Iterator[Daemon]:
    found = Daemon(paths)
    found.start()
    try:
        yield found
    finally:
        found.end()
        assert not left(paths)


def test_killed_daemon_comes_back_and_knows_everything(daemon: Daemon) -> None:
    script = "trap 'exit 4' USR1; i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"
    runs = daemon.run("sh", "-c", script, NetworkMode="bridge")
    frozen = daemon.run("sleep", "100")
    daemon.call("POST", f"/containers/{frozen}/pause")
    ended = daemon.run("sh", "-c", "exit 9")
    before = {ref: daemon.call("GET", f"/containers/{ref}/json") for ref in (runs, frozen)}
    daemon.kill()
    assert daemon.state(runs)["Status"] == "running"
    assert daemon.state(runs)["Pid"] == before[runs]["State"]["Pid"]
    assert daemon.state(frozen)["Status"] == "paused"
    after = daemon.call("GET", f"/containers/{runs}/json")
    assert after["NetworkSettings"] == before[runs]["NetworkSettings"]
    daemon.until(lambda: daemon.state(ended)["ExitCode"] == 9, "the exit code")
    daemon.kill()
    daemon.call("POST", f"/containers/{runs}/kill?signal=USR1")
    assert daemon.call("POST", f"/containers/{runs}/wait")["StatusCode"] == 4
    log = (daemon.paths.container(runs) / "container.log").read_text().splitlines()
    assert [json.loads(line)["log"] for line in log] == [f"{number}\n" for number in range(len(log))]
    daemon.call("POST", f"/containers/{frozen}/unpause")
    assert daemon.state(frozen)["Status"] == "running"


def test_what_ends_while_no_daemon_is_there_is_recorded(daemon: Daemon) -> None:
    ending = daemon.run("sh", "-c", "sleep 0.5; exit 6")
    removed = daemon.run("sh", "-c", "sleep 0.5; exit 6", AutoRemove=True)
    spawner, old = daemon.one("bothy-spawner"), daemon.pid
    with stopped(spawner):  # nobody brings it back for now
        os.kill(old, signal.SIGKILL)
        for ref in (ending, removed):
            daemon.until((daemon.paths.keeper(ref) / "exit.json").exists, "the exit file")
    daemon.until(lambda: daemon.pid != old and daemon.state(ending)["ExitCode"] == 6, "the exit code")
    assert daemon.state(ending)["Status"] == "exited"
    daemon.until(lambda: len(daemon.call("GET", "/containers/json?all=1")) == 1, "the removal")


def test_an_exec_that_ends_while_no_daemon_is_there_has_its_code(daemon: Daemon) -> None:
    runs = daemon.run("sleep", "100")
    request = {"Cmd": ["sh", "-c", "sleep 0.5; exit 11"]}
    session = daemon.call("POST", f"/containers/{runs}/exec", request)["Id"]
    daemon.call("POST", f"/exec/{session}/start", {"Detach": True})
    spawner, old = daemon.one("bothy-spawner"), daemon.pid
    root = f"/proc/{daemon.state(runs)['Pid']}/root"
    with stopped(spawner):  # nobody brings it back for now
        os.kill(old, signal.SIGKILL)
        daemon.until(lambda: len(programs(root)) == 1, "the exec's end")
    daemon.until(lambda: daemon.pid != old and not daemon.call("GET", f"/exec/{session}/json")["Running"], "the daemon")
    assert daemon.call("GET", f"/exec/{session}/json")["ExitCode"] == 11


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Hold a process up for the time of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def programs(root: str) -> list[str]:
    """The pids inside of a container, as it sees them."""
    return [entry for entry in os.listdir(f"{root}/proc") if entry.isdigit()]


def test_killed_spawner_is_replaced_and_nothing_ends(daemon: Daemon) -> None:
    runs = daemon.run("sleep", "100")
    old = daemon.one("bothy-spawner")
    os.kill(old, signal.SIGKILL)
    daemon.until(lambda: daemon.one("bothy-spawner") != old, "another spawner")
    assert daemon.state(runs)["Status"] == "running"
    other = daemon.run("sh", "-c", "exit 3")
    assert daemon.call("POST", f"/containers/{other}/wait")["StatusCode"] == 3
    daemon.call("POST", f"/containers/{runs}/stop?t=0")
    assert daemon.state(runs)["ExitCode"] == 137


def test_killed_keeper_takes_its_program_along(daemon: Daemon) -> None:
    runs = daemon.run("sleep", "100", NetworkMode="bridge")
    program = daemon.state(runs)["Pid"]
    os.kill(parent_of(program), signal.SIGKILL)
    daemon.until(lambda: daemon.state(runs)["Status"] == "exited", "its end")
    assert daemon.state(runs)["ExitCode"] == 137
    assert "keeper" in daemon.state(runs)["Error"]
    daemon.until(lambda: not os.path.exists(f"/proc/{program}"), "the program's end")
    daemon.until(lambda: not left_cgroups(daemon.paths), "the cgroups' end")
    daemon.call("POST", f"/containers/{runs}/start")
    assert daemon.state(runs)["Status"] == "running"


def left_cgroups(paths: Paths) -> dict[str, list[str]]:
    return {place: names for place, names in left(paths).items() if "cgroup" in place}


def test_a_second_daemon_is_told_who_is_there(daemon: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bothy.daemon"], env=daemon.env, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1
    assert str(daemon.pid) in done.stderr
    assert daemon.call("GET", "/_ping")


def test_killed_at_random_moments_under_load(daemon: Daemon) -> None:
    """Run and remove in four threads while daemon and spawner are killed again and again; then everything told is true."""
    stop = threading.Event()
    finished: list[str] = []
    wrong: list[str] = []

    def load(number: int) -> None:
        chance = random.Random(number)
        while not stop.is_set():
            with contextlib.suppress(BothyError, OSError, ValueError):
                options = {"AutoRemove": chance.random() < 0.5, "NetworkMode": chance.choice(["none", "bridge"])}
                ref = daemon.run("sh", "-c", f"sleep 0.{chance.randrange(10)}; exit 5", **options)
                if chance.random() < 0.3:
                    daemon.call("DELETE", f"/containers/{ref}?force=1")
                elif not options["AutoRemove"]:
                    code = daemon.call("POST", f"/containers/{ref}/wait")["StatusCode"]
                    finished.append(ref)
                    if code != 5:
                        wrong.append(f"{ref}: {code}")

    threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    chance = random.Random(1)
    try:
        for turn in range(8):
            time.sleep(chance.uniform(0.1, 0.9))
            if turn % 4 == 3:
                with contextlib.suppress(LookupError, ProcessLookupError):
                    os.kill(daemon.one("bothy-spawner"), signal.SIGKILL)
            else:
                daemon.kill()
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert finished
    assert not wrong
    daemon.until(lambda: not [c for c in daemon.call("GET", "/containers/json?all=1") if c["State"] == "running"], "all ends")
    for entry in daemon.call("GET", "/containers/json?all=1"):
        assert entry["State"] in ("exited", "created")
        if daemon.call("GET", f"/containers/{entry['Id']}/json")["HostConfig"]["AutoRemove"]:
            # Created only: whoever wanted to start it met no daemon.
            assert entry["State"] == "created"
    daemon.until(lambda: "bothy-keeper" not in daemon.children().values(), "the end of all keepers")
