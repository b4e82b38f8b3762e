"""How the daemon comes to be: by systemd's convention of sockets, by its own hand, in folders of one's choice; and its units."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bothy.paths import Paths
from tests.support.engine import BOTHY, REPOSITORY, TestEngine, await_
from tests.support.settle import reap

BOTHYD = str(BOTHY.parent / "bothyd")

# What systemd does with a socket unit: fd 3 listens, and the variables say that it is meant for this very process.
ACTIVATE = """
import os, sys
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"], os.environ["LISTEN_FDNAMES"] = str(os.getpid()), "1", "bothy.socket"
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.argv[2], sys.argv[2:])
"""


def bridge_of(engine: TestEngine) -> str:
    key = Paths(engine.root, engine.run_folder).key
    return f"by{key}0" if key else "bothy0"


def ping(path: Path) -> bytes:
    """The answer to GET /_ping on a unix socket; nothing, if nobody listens."""
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.settimeout(20)
        client.connect(str(path))
        connection = http.client.HTTPConnection("bothy")
        connection.sock = client
        connection.request("GET", "/_ping")
        return connection.getresponse().read()
    return b""


@pytest.fixture
def activated(another: Callable[..., TestEngine]) -> Iterator[Callable[..., tuple[TestEngine, subprocess.Popen[bytes]]]]:
    """Starts a daemon on a socket that it finds open, at a place of the test's."""
    started: list[subprocess.Popen[bytes]] = []

    def start(extra: dict[str, str] | None = None) -> tuple[TestEngine, subprocess.Popen[bytes]]:
        engine = another(extra=extra)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(engine.run_folder / "bothy.sock"))
            listener.listen(16)
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", ACTIVATE, str(listener.fileno()), BOTHYD],
                    env=engine.env,
                    pass_fds=[listener.fileno()],
                    stderr=subprocess.DEVNULL,
                )
            )
        return engine, started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


def test_a_daemon_takes_the_socket_that_it_is_given(activated: Callable[..., tuple[TestEngine, subprocess.Popen[bytes]]]) -> None:
    engine, process = activated()
    inode = (engine.run_folder / "bothy.sock").stat().st_ino
    assert ping(engine.run_folder / "bothy.sock") == b"OK"
    assert engine.pid_of("bothyd") == process.pid
    engine("image", "bootstrap", "busybox").ok()
    assert engine("run", "--rm", "busybox", "sh", "-c", "echo ${LISTEN_FDS-none}").ok().line == "none"
    assert (engine.run_folder / "bothy.sock").stat().st_ino == inode


def test_below_systemd_the_spawner_leaves_the_rebirth_to_it(
    activated: Callable[..., tuple[TestEngine, subprocess.Popen[bytes]]],
) -> None:
    """systemd marks its services by INVOCATION_ID: a second daemon beside the one that systemd starts would be one too many."""
    engine, process = activated({"INVOCATION_ID": "0123456789abcdef0123456789abcdef"})
    assert ping(engine.run_folder / "bothy.sock") == b"OK"
    process.kill()
    process.wait(20)
    await_(lambda: reap() or not engine.processes(), "the spawner to go too")
    engine("version").ok()


def test_a_daemon_that_can_not_start_is_not_started_again_and_again(another: Callable[..., TestEngine]) -> None:
    engine = another()
    engine("image", "bootstrap", "busybox").ok()
    engine("create", "--name", "d-torn", "busybox").ok()
    engine("system", "shutdown").ok()
    with contextlib.closing(sqlite3.connect(Paths(engine.root, engine.run_folder).database, isolation_level=None)) as database:
        (state,) = database.execute("SELECT state FROM workloads").fetchone()
        database.execute("UPDATE workloads SET state = '{'")
        for _ in range(2):
            done = engine("ps", timeout=20)
            assert done.code == 1
            assert "the record of d-torn" in done.err
            await_(lambda: reap() or not engine.processes(), "the daemon and its spawner to end")
        database.execute("UPDATE workloads SET state = ?", (state,))
    assert engine("ps", "-aq").ok().line


def test_folders_of_ones_choice(another: Callable[..., TestEngine]) -> None:
    engine = another()
    engine("image", "bootstrap", "busybox").ok()
    assert json.loads(engine("info", "--format", "{{json .}}").out)["DockerRootDir"] == str(engine.root)
    assert (engine.run_folder / "bothy.sock").stat().st_mode & 0o777 == 0o660
    assert (engine.root / "images").is_dir()
    assert engine.root.stat().st_mode & 0o007 <= 0o005
    paths = Paths(engine.root, engine.run_folder)
    engine("run", "-d", "--name", "d-own", "busybox", "sleep", "300").ok()
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert f"table ip {paths.scope}\n" in tables
    assert Path("/sys/class/net", bridge_of(engine)).exists()
    pid = engine.inspect("d-own")["State"]["Pid"]
    assert f"/{paths.scope}/" in Path(f"/proc/{pid}/cgroup").read_text()
    engine("rm", "-f", "d-own").ok()


def test_teardown_leaves_no_trace_on_the_host(another: Callable[..., TestEngine]) -> None:
    engine = another()
    engine("image", "bootstrap", "busybox").ok()
    engine("run", "--rm", "-p", "80", "busybox", "true").ok()
    paths = Paths(engine.root, engine.run_folder)
    bridge = bridge_of(engine)
    engine("system", "shutdown", "--teardown").ok()
    await_(lambda: reap() or not engine.processes(), "the engine's processes to end")
    assert not Path("/sys/class/net", bridge).exists()
    assert paths.scope not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    folders = [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if folder.endswith(f"/{paths.scope}")]
    assert not folders
    assert str(engine.root) not in Path("/proc/self/mountinfo").read_text()
    assert sorted(entry.name for entry in engine.run_folder.iterdir()) == ["daemon.lock", "daemon.log", "keepers", "start.lock"]


def test_teardown_of_an_engine_whose_daemon_has_ended(another: Callable[..., TestEngine]) -> None:
    engine = another()
    engine("image", "bootstrap", "busybox").ok()
    engine("run", "-d", "--name", "d-on", "busybox", "sleep", "300").ok()
    pid, bridge = engine.inspect("d-on")["State"]["Pid"], bridge_of(engine)
    engine("system", "shutdown").ok()
    await_(lambda: "bothyd" not in engine.processes().values(), "the daemon's end")
    assert Path(f"/proc/{pid}").exists()
    engine("system", "shutdown", "--teardown", "--force").ok()
    await_(lambda: reap() or not engine.processes(), "the engine's processes to end")
    assert not Path("/sys/class/net", bridge).exists()
    await_(lambda: reap() or not Path(f"/proc/{pid}").exists(), "the workload's end")


def test_by_hand_and_ended_by_a_signal(another: Callable[..., TestEngine]) -> None:
    engine = another()
    flags = ["--root", str(engine.root), "--run", str(engine.run_folder)]
    env = {key: value for key, value in engine.env.items() if not key.startswith("BOTHY_")}
    process = subprocess.Popen([BOTHYD, *flags], env=env, stderr=subprocess.DEVNULL)
    await_(lambda: ping(engine.run_folder / "bothy.sock") == b"OK", "the daemon")
    assert engine.json("info", "--format", "{{json .}}")["DockerRootDir"] == str(engine.root)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    await_(lambda: reap() or not engine.processes(), "the spawner to go too")


def test_a_run_folder_that_can_not_be_is_told(another: Callable[..., TestEngine], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = another()
    engine.env["BOTHY_RUN"] = str(tmp_path / "file" / "run")
    done = engine("ps")
    assert done.code == 1
    assert done.err.startswith("bothy: ")
    assert str(tmp_path / "file") in done.err
    engine.env["BOTHY_RUN"] = str(engine.run_folder)
    engine.env["BOTHY_ROOT"] = str(tmp_path / "file" / "root")
    done = engine("ps")
    engine.env["BOTHY_ROOT"] = str(engine.root)
    assert (done.code, str(tmp_path / "file") in done.err, "Traceback" in done.err) == (1, True, False)


def test_the_units_are_good(tmp_path: Path) -> None:
    """systemd's own opinion, and what bothy's processes need of it: the workloads outlive the service."""
    units = [REPOSITORY / "packaging" / f"bothy.{kind}" for kind in ("service", "socket")]
    service, sock = (unit.read_text() for unit in units)
    assert "KillMode=process" in service
    assert "Delegate=yes" in service
    assert "ListenStream=/run/bothy/bothy.sock" in sock
    if tool := shutil.which("systemd-analyze"):
        for unit in units:
            shutil.copy(unit, tmp_path)
        done = subprocess.run(
            [tool, "verify", "--man=no", *(str(tmp_path / unit.name) for unit in units)],
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        ours = [line for line in done.stderr.splitlines() if "bothy" in line]
        assert not ours, done.stderr


def test_a_missing_kernel_is_told(another: Callable[..., TestEngine], tmp_path: Path) -> None:
    """The folders in which a kernel could be are empty, in a mount namespace that only this engine sees."""
    places = [place for place in ("/boot", "/usr/local/lib/bothy/kernels") if Path(place).is_dir()]
    covers = " && ".join(f"mount -t tmpfs none {place}" for place in places)
    engine = another()
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f'{covers} && exec "$0"', BOTHYD], env=engine.env, stderr=subprocess.DEVNULL
    )
    await_(lambda: ping(engine.run_folder / "bothy.sock") == b"OK", "the daemon")
    engine("image", "bootstrap", "busybox").ok()
    done = engine("run", "--rm", "--vm", "busybox", "true")
    assert (done.code, "no kernel for machines" in done.err, "linux-image" in done.err) == (125, True, True)
    assert engine("run", "--rm", "busybox", "true").code == 0
    assert engine("ps", "-aq").ok().out == ""
    assert engine("machine", "template", "ls", "-q").ok().out == ""
    process.terminate()
    process.wait(30)


def test_info_says_which_accelerator_and_why(settled: TestEngine) -> None:
    machines = next(line for line in settled("info").ok().out.splitlines() if line.startswith("Accelerator: "))
    name, _, why = machines.removeprefix("Accelerator: ").partition(" ")
    assert name in ("kvm", "tcg")
    assert len(why) > 10
    if name == "kvm":
        assert os.access("/dev/kvm", os.R_OK | os.W_OK)


def test_df_counts_what_is_there(settled: TestEngine, machines: None) -> None:
    def rows() -> dict[str, dict[str, str]]:
        lines = settled("system", "df", "--format", "json").ok().out.splitlines()
        return {row["Type"]: row for row in map(json.loads, lines)}

    before = rows()
    settled(
        "run", "--name", "d-df", "-v", "d-vol:/data", "busybox", "sh", "-c", "head -c 1000000 /dev/zero > /big; cp /big /data"
    ).ok()
    after = rows()
    assert int(after["Containers"]["TotalCount"]) == int(before["Containers"]["TotalCount"]) + 1
    assert int(after["Volumes"]["TotalCount"]) == int(before["Volumes"]["TotalCount"]) + 1
    settled("system", "prune", "-f").ok()
    assert int(rows()["Containers"]["TotalCount"]) == 0
    settled("volume", "rm", "d-vol").ok()


def test_prune_asks_and_takes_all(settled: TestEngine, tmp_path: Path) -> None:
    done = settled("system", "prune")
    assert done.code == 1
    assert "--force" in done.err
    settled("tag", "busybox", "d/extra").ok()
    settled("run", "-d", "--name", "d-user", "busybox", "sleep", "300").ok()
    settled("run", "--name", "d-old", "-v", "/anonymous", "busybox", "true").ok()
    told = settled("system", "prune", "-f", "--volumes").ok().out
    assert "Total reclaimed space" in told
    assert settled("ps", "-a", "--format", "{{.Names}}").ok().line == "d-user"
    assert settled("image", "inspect", "busybox").code == 0
    settled("rmi", "d/extra")
    settled("rm", "-f", "d-user").ok()


@pytest.mark.qemu
def test_templates_are_removed_and_pruned(settled: TestEngine, machines: None) -> None:
    listed = settled("machine", "template", "ls", "-q").ok().out.split()
    assert listed
    done = settled("machine", "template", "rm", "no-such-template")
    assert (done.code, "no-such-template" in done.err) == (1, True)
    settled("run", "-d", "--vm", "--name", "d-user", "busybox", "sleep", "300").ok()
    settled("machine", "template", "prune", "-f").ok()
    kept = settled("machine", "template", "ls", "-q").ok().out.split()
    assert kept
    assert set(kept) <= set(listed)
    assert settled("exec", "d-user", "true").code == 0
    settled("rm", "-f", "d-user").ok()


@pytest.mark.qemu
def test_a_template_is_made_anew_when_an_input_changes(settled: TestEngine, machines: None) -> None:
    """Another amount of memory is another key; what was made for the other is still there afterwards."""
    before = set(settled("machine", "template", "ls", "-q").ok().out.split())
    first = settled("run", "--rm", "--vm", "--memory", "192m", "busybox", "true", timeout=180).ok()
    assert "making a machine template (1 vCPU, 192 MiB" in first.err
    after = set(settled("machine", "template", "ls", "-q").ok().out.split())
    assert len(after - before) == 1
    assert settled("run", "--rm", "--vm", "--memory", "192m", "busybox", "true").ok().err == ""
    settled("machine", "template", "rm", *(after - before)).ok()
    assert set(settled("machine", "template", "ls", "-q").ok().out.split()) == before
