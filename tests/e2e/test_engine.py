"""The engine itself: it starts by itself, tells about itself, cleans up, and does not mind a neighbour."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import BOTHY, TestEngine, await_, parallel
from tests.support.settle import reap


def test_info_version_df(settled: TestEngine) -> None:
    info = json.loads(settled("info", "--format", "{{json .}}").ok().out)
    assert info["OSType"] == "linux"
    assert info["NCPU"] == os.cpu_count()
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert "vm" in info["Runtimes"]
    text = settled("info").ok().out
    assert "Accelerator" in text
    version = settled("version").ok().out
    assert "Client" in version
    assert "Server" in version
    assert "Images" in settled("system", "df").ok().out


def test_events_tell_the_story(settled: TestEngine) -> None:
    settled("run", "--rm", "--name", "t-story", "busybox", "true").ok()
    seen = settled("events", "--since", "2m", "--until", "0s", "--filter", "container=t-story", "--format", "{{json .}}").ok().out
    actions = [json.loads(line)["Action"] for line in seen.splitlines()]
    for earlier, later in (("create", "attach"), ("attach", "start"), ("start", "die"), ("die", "destroy")):
        assert actions.index(earlier) < actions.index(later), actions


def test_prune_removes_the_stopped(settled: TestEngine) -> None:
    settled("run", "--name", "t-stopped", "busybox", "true").ok()
    settled("run", "-d", "--name", "t-running", "busybox", "sleep", "300").ok()
    settled("system", "prune", "-f").ok()
    assert settled("ps", "-a", "--format", "{{.Names}}").ok().line == "t-running"
    assert settled("image", "inspect", "busybox").code == 0
    settled("rm", "-f", "t-running").ok()


@pytest.mark.qemu
def test_templates_are_listed_and_rebuilt(settled: TestEngine, machines: None) -> None:
    rows = [json.loads(line) for line in settled("machine", "template", "ls", "--format", "json").ok().out.splitlines()]
    assert rows
    settled("machine", "template", "rm", *settled("machine", "template", "ls", "-q").out.split()).ok()
    assert settled("machine", "template", "ls", "-q").ok().out == ""
    done = settled("run", "--rm", "--vm", "busybox", "echo", "again")
    assert done.ok().out == "again\n"
    assert "template" in done.err


def test_many_commands_start_one_daemon(another: Callable[..., TestEngine]) -> None:
    engine = another()
    commands = [engine.popen("ps", stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    for done in parallel(commands):
        assert done.code == 0, done.err
    assert sorted(engine.processes().values()).count("bothyd") == 1


def test_neighbours_do_not_meet(settled: TestEngine, another: Callable[..., TestEngine]) -> None:
    other = another()
    other("image", "bootstrap", "busybox").ok()
    settled("run", "-d", "--name", "t-same", "busybox", "sleep", "300").ok()
    other("run", "-d", "--name", "t-same", "-p", "80", "busybox", "sleep", "300").ok()
    one, two = settled.inspect("t-same"), other.inspect("t-same")
    assert one["Id"] != two["Id"]
    assert one["NetworkSettings"]["Gateway"] != two["NetworkSettings"]["Gateway"]
    settled("rm", "-f", "t-same").ok()
    assert other("exec", "t-same", "true").code == 0
    other("rm", "-f", "t-same").ok()


def test_a_full_disk_is_told_and_leaves_nothing(another: Callable[..., TestEngine], tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "small", str(tmp_path)], check=True)
    try:
        engine = another(root=tmp_path)
        engine("image", "bootstrap", "busybox").ok()
        with (tmp_path / "filler").open("wb") as filler:
            try:
                while filler.write(b"\0" * 65536):
                    filler.flush()
            except OSError:
                pass
        done = engine("run", "--rm", "busybox", "true")
        assert done.code == 125
        assert "full" in done.err or "no space" in done.err.lower()
        assert "Traceback" not in done.err
        (tmp_path / "filler").unlink()
        engine("run", "--rm", "busybox", "true").ok()
        done = engine("run", "--name", "t-fill", "busybox", "sh", "-c", "cat /dev/zero > /big")
        assert done.code == 1
        assert "No space" in done.err
        engine("rm", "t-fill").ok()
        archive = tmp_path.parent / "big.tar"
        with archive.open("wb") as out:
            subprocess.run(["tar", "-C", "/usr/bin", "-c", "."], stdout=out, check=True)
        done = engine("import", str(archive), "t/big")
        archive.unlink()
        assert done.code == 1
        assert "no space" in done.err.lower()
        assert engine("image", "inspect", "t/big").code == 1
        engine("run", "--rm", "busybox", "true").ok()
        engine.shutdown()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_missing_qemu_is_told(another: Callable[..., TestEngine], tmp_path: Path) -> None:
    for folder in ("/usr/bin", "/usr/sbin"):
        for entry in Path(folder).iterdir():
            if not entry.name.startswith("qemu-system"):
                (tmp_path / entry.name).unlink(missing_ok=True)
                (tmp_path / entry.name).symlink_to(entry)
    engine = another(extra={"PATH": str(tmp_path)})
    engine("image", "bootstrap", "busybox").ok()
    done = engine("run", "--rm", "--vm", "busybox", "true")
    assert done.code == 125
    assert "qemu-system-x86" in done.err
    assert engine("run", "--rm", "busybox", "true").code == 0
    assert engine("ps", "-aq").ok().out == ""


def test_a_second_daemon_is_refused(settled: TestEngine) -> None:
    done = subprocess.run([str(BOTHY.parent / "bothyd")], env=settled.env, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert str(settled.pid_of("bothyd")) in done.stderr


def test_an_orderly_end_leaves_workloads_running(another: Callable[..., TestEngine]) -> None:
    engine = another()
    engine("image", "bootstrap", "busybox").ok()
    engine("run", "-d", "--name", "t-on", "busybox", "sleep", "300").ok()
    pid = engine.inspect("t-on")["State"]["Pid"]
    engine("system", "shutdown").ok()
    await_(lambda: reap() or "bothyd" not in engine.processes().values(), "the daemon to end")
    assert Path(f"/proc/{pid}").exists()
    assert engine.inspect("t-on")["State"]["Pid"] == pid
    engine("rm", "-f", "t-on").ok()


def test_completion_and_help(settled: TestEngine) -> None:
    assert shutil.which("bash")
    script = settled("completion", "bash").ok().out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for verb in ("run", "exec", "ps", "image", "machine"):
        assert "Usage" in settled(verb, "--help").ok().out or "usage" in settled(verb, "--help").ok().out
