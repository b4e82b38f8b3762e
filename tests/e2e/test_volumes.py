"""Volumes over both walls: quotas, driver options, snapshots and clones, copies; the same one on both sides at once."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bothy.api.client import Client
from tests.e2e.conftest import Walled
from tests.support.engine import TestEngine, await_, kill9

MIB = 1 << 20


@pytest.fixture
def volume(engine: TestEngine) -> Iterator[Callable[..., str]]:
    """Makes volumes, of which nothing is left afterwards."""
    made: list[str] = []

    def make(name: str, *options: str) -> str:
        made.append(name)
        return engine("volume", "create", *(word for option in options for word in ("--opt", option)), name).ok().line

    yield make
    engine("rm", "-f", *engine("ps", "-aq").out.split())
    engine("volume", "rm", "-f", *made)


def mountpoint(engine: TestEngine, name: str) -> Path:
    return Path(engine("volume", "inspect", "-f", "{{.Mountpoint}}", name).ok().line)


def is_mounted(engine: TestEngine, name: str) -> bool:
    point = str(mountpoint(engine, name))
    return any(line.split()[4] == point for line in Path("/proc/self/mountinfo").read_text().splitlines())


# -- quotas


def test_a_quota_holds(bothy: Walled, volume: Callable[..., str]) -> None:
    volume("v-quota", "size=32m")
    script = "dd if=/dev/zero of=/data/big bs=1M count=64; wc -c < /data/big; df -m /data | tail -1"
    done = bothy("run", "--rm", "-v", "v-quota:/data", "busybox", "sh", "-c", script).ok()
    assert "No space left on device" in done.err
    written, table = done.out.splitlines()
    assert 20 * MIB < int(written) < 32 * MIB
    assert int(table.split()[1]) <= 32
    script = "rm /data/big; echo fits > /data/small; cat /data/small; ls -A /data"
    assert bothy("run", "--rm", "-v", "v-quota:/data", "busybox", "sh", "-c", script).ok().out.split() == ["fits", "small"]


def test_a_quota_that_grows(bothy: Walled, volume: Callable[..., str]) -> None:
    volume("v-grow", "size=16m")
    bothy("run", "--rm", "-v", "v-grow:/data", "busybox", "sh", "-c", "echo kept > /data/file").ok()
    await_(lambda: not is_mounted(bothy.engine, "v-grow"), "the volume to be unmounted")
    assert bothy("volume", "resize", "v-grow", "64m").ok().line == "v-grow"
    script = "cat /data/file; dd if=/dev/zero of=/data/big bs=1M count=40 2>&1 | tail -1"
    assert "kept" in bothy("run", "--rm", "-v", "v-grow:/data", "busybox", "sh", "-c", script).ok().out
    assert bothy("volume", "resize", "v-grow", "32m").code == 1


def test_both_walls_at_once(settled: TestEngine, machines: None, volume: Callable[..., str]) -> None:
    """A container and a machine have the same volumes, plain and with a quota: each sees at once what the other writes."""
    volume("v-plain")
    volume("v-quota", "size=32m")
    mounts = ("-v", "v-plain:/plain", "-v", "v-quota:/quota")
    settled("run", "-d", "--name", "v-container", *mounts, "busybox", "sleep", "600").ok()
    settled("run", "-d", "--vm", "--name", "v-machine", *mounts, "busybox", "sleep", "600").ok()
    for place in ("/plain", "/quota"):
        for here, there in (("v-container", "v-machine"), ("v-machine", "v-container")):
            settled("exec", here, "sh", "-c", f"echo {here} >> {place}/log; chown 1000:1000 {place}/log").ok()
            seen = settled("exec", there, "sh", "-c", f"stat -c '%u %g' {place}/log; tail -1 {place}/log").ok().out.split()
            assert seen == ["1000", "1000", here]
    settled("exec", "v-machine", "sh", "-c", "dd if=/dev/zero of=/quota/big bs=1M count=64 2>/dev/null; true").ok()
    full = settled("exec", "v-container", "sh", "-c", "dd if=/dev/zero of=/quota/more bs=1M count=1")
    assert "No space left on device" in full.err
    settled("rm", "-f", "v-container").ok()
    assert is_mounted(settled, "v-quota")
    assert settled("exec", "v-machine", "tail", "-1", "/quota/log").ok().line == "v-machine"
    settled("rm", "-f", "v-machine").ok()
    await_(lambda: not is_mounted(settled, "v-quota"), "the volume to be unmounted")


# -- driver options


def test_memory_and_folders_as_volumes(bothy: Walled, volume: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("the host's\n")
    volume("v-memory", "type=tmpfs", "device=tmpfs", "o=size=1m,uid=1000,mode=1770")
    volume("v-folder", "type=none", "o=bind", f"device={tmp_path}")
    script = "stat -c '%u %a' /memory; dd if=/dev/zero of=/memory/x bs=64k count=32 2>/dev/null; wc -c < /memory/x; cat /folder/file; echo new > /folder/new"
    out = (
        bothy("run", "--rm", "-v", "v-memory:/memory", "-v", "v-folder:/folder", "busybox", "sh", "-c", script)
        .ok()
        .out.splitlines()
    )
    assert out == ["1000 1770", str(MIB), "the host's"]
    assert (tmp_path / "new").read_text() == "new\n"
    found = bothy.engine.json("volume", "inspect", "v-folder")[0]
    assert found["Mountpoint"] == str(bothy.engine.root / "volumes" / "v-folder" / "_data")
    assert found["Options"] == {"type": "none", "o": "bind", "device": str(tmp_path)}
    await_(lambda: not is_mounted(bothy.engine, "v-memory"), "the volume to be unmounted")
    assert bothy("run", "--rm", "-v", "v-memory:/memory", "busybox", "ls", "-A", "/memory").ok().out == ""
    bothy("volume", "rm", "v-folder").ok()
    assert (tmp_path / "new").exists()


def test_what_can_not_be_mounted_is_told_and_nothing_is_left(bothy: Walled, volume: Callable[..., str]) -> None:
    volume("v-server", "type=nfs", "o=addr=127.0.0.1,soft,timeo=1,retrans=1", "device=:/export")
    done = bothy("run", "--name", "v-none", "-v", "v-server:/data", "busybox", "true")
    assert done.code == 125
    point = mountpoint(bothy.engine, "v-server")
    assert f"failed to mount local volume: mount :/export:{point}, data: addr=127.0.0.1,soft,timeo=1,retrans=1:" in done.err
    assert "v-none" not in bothy.engine("ps", "-a").ok().out
    assert not is_mounted(bothy.engine, "v-server")


def test_words_of_errors(settled: TestEngine, volume: Callable[..., str]) -> None:
    volume("v-used")
    workload = settled("create", "-v", "v-used:/data", "busybox").ok().line
    for args, words in (
        (("rm", "v-used"), f"remove v-used: volume is in use - [{workload}]"),
        (("rename", "v-used", "v-new"), f"rename v-used: volume is in use - [{workload}]"),
        (("rm", "v-nope"), "get v-nope: no such volume"),
        (("create", "--opt", "colour=red", "v-x"), 'create v-x: invalid option: "colour"'),
        (("create", "-d", "rexray", "v-x"), 'create v-x: error looking up volume plugin rexray: plugin "rexray" not found'),
        (("snapshot", "rm", "v-used@never"), "get v-used@never: no such snapshot"),
        (("snapshot", "rm", "v-used"), "'v-used' is not the name of a snapshot"),
    ):
        done = settled("volume", *args)
        assert done.code != 0
        assert words in done.err, done.err
    settled("rm", workload).ok()


# -- snapshots


@pytest.mark.parametrize("option", [(), ("size=32m",)], ids=["plain", "quota"])
def test_snapshots_and_clones(bothy: Walled, volume: Callable[..., str], option: tuple[str, ...]) -> None:
    volume("v-data", *option)
    write = "echo {} > /data/file; sync"
    bothy(
        "run", "-d", "--name", "v-writer", "-v", "v-data:/data", "busybox", "sh", "-c", write.format("before") + "; sleep 600"
    ).ok()
    await_(lambda: bothy("exec", "v-writer", "cat", "/data/file").out == "before\n", "the file")
    taken = bothy("volume", "snapshot", "v-data", "monday").ok()
    assert taken.line == "v-data@monday"
    assert ("was in use" in taken.err) == (not option)
    bothy("exec", "v-writer", "sh", "-c", write.format("after")).ok()
    cloned = bothy("volume", "clone", "v-data", "v-clone")
    try:
        cloned.ok()
        assert "restore v-data: volume is in use" in bothy("volume", "snapshot", "restore", "-f", "v-data@monday").err
        bothy("stop", "-t", "0", "v-writer").ok()
        bothy("volume", "snapshot", "restore", "-f", "v-data@monday").ok()
        bothy("start", "v-writer").ok()
        for name, words in (("v-data", "before"), ("v-clone", "after")):
            await_(lambda: bothy("run", "--rm", "-v", f"{name}:/data", "busybox", "cat", "/data/file").out == f"{words}\n", words)  # noqa: B023
        rows = [json.loads(line) for line in bothy("volume", "snapshot", "ls", "--format", "json").ok().out.splitlines()]
        assert [(row["Snapshot"], row["Atomic"]) for row in rows] == [("v-data@monday", "yes" if option else "no")]
        bothy("rm", "-f", "v-writer").ok()
        assert "volume has snapshots - [monday]" in bothy("volume", "rm", "v-data").err
        bothy("volume", "snapshot", "rm", "v-data@monday").ok()
        assert bothy("volume", "snapshot", "ls", "-q").ok().out == ""
    finally:
        bothy("rm", "-f", "v-writer")
        bothy("volume", "rm", "-f", "v-clone").ok()


def test_a_paused_writer_does_not_spoil_a_snapshot(bothy: Walled, volume: Callable[..., str]) -> None:
    volume("v-data")
    bothy("run", "-d", "--name", "v-writer", "-v", "v-data:/data", "busybox", "sleep", "600").ok()
    bothy("pause", "v-writer").ok()
    assert bothy("volume", "snapshot", "v-data").ok().err == ""
    bothy("unpause", "v-writer").ok()


# -- copies


def test_files_go_in_out_and_across(settled: TestEngine, volume: Callable[..., str], tmp_path: Path) -> None:
    volume("v-one")
    volume("v-two", "size=32m")
    (tmp_path / "site" / "sub").mkdir(parents=True)
    (tmp_path / "site" / "index").write_text("hello")
    (tmp_path / "site" / "sub" / "file").write_text("deep")
    settled("volume", "cp", str(tmp_path / "site"), "v-one:/").ok()
    settled("volume", "cp", "v-one:/.", "v-two:/").ok()
    settled("volume", "cp", "v-two:/site/sub", "v-two:/renamed").ok()
    settled("volume", "cp", "v-two:/site/index", "v-one:/start").ok()
    script = "find /one /two -type f | sort"
    found = settled("run", "--rm", "-v", "v-one:/one", "-v", "v-two:/two", "busybox", "sh", "-c", script).ok().out.split()
    assert found == [
        "/one/site/index", "/one/site/sub/file", "/one/start", "/two/renamed/file", "/two/site/index", "/two/site/sub/file",
    ]  # fmt: skip
    settled("volume", "cp", "v-two:/renamed", str(tmp_path / "out")).ok()
    assert (tmp_path / "out" / "file").read_text() == "deep"
    archive = subprocess.run(settled.command("volume", "cp", "v-one:/site", "-"), env=settled.env, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        assert sorted(tar.getnames()) == ["site", "site/index", "site/sub", "site/sub/file"]
    assert "Could not find the file /nope in volume v-one" in settled("volume", "cp", "v-one:/nope", str(tmp_path)).err
    assert "get v-nope: no such volume" in settled("volume", "cp", "v-nope:/x", str(tmp_path)).err


def test_links_in_a_volume_never_lead_out_of_it(settled: TestEngine, volume: Callable[..., str], tmp_path: Path) -> None:
    volume("v-links")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("secret")
    script = f"ln -s {tmp_path}/secret /data/out; ln -s ../../../../../../../../{tmp_path}/secret /data/up; ln -s /proc/1/root /data/root"
    settled("run", "--rm", "-v", "v-links:/data", "busybox", "sh", "-c", script).ok()
    (tmp_path / "mine").write_text("mine")
    for link in ("out", "up", "root"):
        assert settled("volume", "cp", f"v-links:/{link}/file", str(tmp_path / "got")).code != 0
        assert settled("volume", "cp", str(tmp_path / "mine"), f"v-links:/{link}/").code != 0
    assert not (tmp_path / "got").exists()
    assert [p.name for p in (tmp_path / "secret").iterdir()] == ["file"]


def test_a_copy_into_a_full_volume_says_so(settled: TestEngine, volume: Callable[..., str], tmp_path: Path) -> None:
    volume("v-small", "size=8m")
    (tmp_path / "big").write_bytes(b"x" * 16 * MIB)
    assert "no space left on device" in settled("volume", "cp", str(tmp_path / "big"), "v-small:/").err
    await_(lambda: not is_mounted(settled, "v-small"), "the volume to be unmounted")


# -- what is seen of volumes


def test_events_tell_what_happens_to_volumes(bothy: Walled, volume: Callable[..., str]) -> None:
    begin = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    flags = ("--since", begin, "--filter", "type=volume", "--format", "json")
    with bothy.engine.popen("events", *flags, stdout=subprocess.PIPE) as events:
        assert events.stdout is not None
        volume("v-told")
        bothy("run", "--rm", "-v", "v-told:/data:ro", "busybox", "true").ok()
        bothy("volume", "rm", "v-told").ok()
        seen = []
        for line in events.stdout:
            event = json.loads(line)
            seen.append((event["Action"], event["Actor"]["Attributes"]))
            if event["Action"] == "destroy":
                break
        events.terminate()
    assert [action for action, _ in seen] == ["create", "mount", "unmount", "destroy"]
    assert all(attributes["driver"] == "local" for _, attributes in seen)
    assert (seen[1][1]["destination"], seen[1][1]["read/write"]) == ("/data", "false")
    assert seen[1][1]["container"] == seen[2][1]["container"]


def test_filters_and_usage(settled: TestEngine, volume: Callable[..., str]) -> None:
    volume("v-free")
    volume("v-taken", "size=16m")
    workload = settled("create", "-v", "v-taken:/data", "busybox").ok().line

    def listed(*filters: str) -> set[str]:
        flags = [word for text in filters for word in ("-f", text)]
        return {name for name in settled("volume", "ls", "-q", *flags).ok().out.split() if name.startswith("v-")}

    assert listed("dangling=true") == {"v-free"}
    assert listed("dangling=false") == {"v-taken"}
    assert listed("name=v-f") == {"v-free"}
    assert listed("driver=local", "name=v-") == {"v-free", "v-taken"}
    assert settled("volume", "ls", "-f", "colour=red").code == 1
    with Client(str(settled.run_folder / "bothy.sock"), run="") as client:
        usage = {v["Name"]: v["UsageData"] for v in client.request("GET", "/system/df").json()["Volumes"]}
    assert usage["v-free"]["RefCount"] == 0
    assert usage["v-taken"]["RefCount"] == 1
    assert 0 < usage["v-taken"]["Size"] < 16 * MIB
    settled("rm", workload).ok()


# -- crashes


def test_what_runs_keeps_its_quota_over_a_crash_of_the_engine(bothy: Walled, volume: Callable[..., str]) -> None:
    engine = bothy.engine
    volume("v-kept", "size=32m")
    volume("v-idle", "size=32m")
    bothy("run", "-d", "--name", "v-runner", "-v", "v-kept:/data", "busybox", "sleep", "600").ok()
    image = engine.root / "volumes" / "v-idle" / "disk.ext4"
    subprocess.run(["mount", "-o", "loop", image, mountpoint(engine, "v-idle")], check=True)  # as a crash would have left it
    kill9(engine.pid_of("bothyd"))
    await_(lambda: not is_mounted(engine, "v-idle"), "the engine to recover")
    assert is_mounted(engine, "v-kept")
    bothy("exec", "v-runner", "sh", "-c", "echo on > /data/file").ok()
    assert (mountpoint(engine, "v-kept") / "file").read_text() == "on\n"
    bothy("rm", "-f", "v-runner").ok()
    await_(lambda: not is_mounted(engine, "v-kept"), "the volume to be unmounted")


@pytest.mark.parametrize("verb", ["create", "clone", "snapshot", "frozen"])
def test_a_kill_in_the_middle_leaves_nothing(settled: TestEngine, volume: Callable[..., str], verb: str) -> None:
    """The engine dies while a volume is being made or copied: the next one has swept everything away, and all works again."""
    volume("v-source", "size=400m") if verb == "frozen" else volume("v-source")
    fill = "dd if=/dev/urandom of=/data/big bs=1M count=200 2>/dev/null; sync"
    settled("run", "--rm", "-v", "v-source:/data", "busybox", "sh", "-c", fill).ok()
    if verb == "frozen":
        settled("run", "-d", "--name", "v-writer", "-v", "v-source:/data", "busybox", "sleep", "600").ok()
    commands = {
        "create": ("volume", "create", "--opt", "size=4t", "v-new"), "clone": ("volume", "clone", "v-source", "v-new"),
        "snapshot": ("volume", "snapshot", "v-source", "s1"), "frozen": ("volume", "snapshot", "v-source", "s1"),
    }  # fmt: skip
    folder = settled.root / "volumes"
    asked = settled.popen(*commands[verb], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    await_(lambda: any(p.stat().st_size for p in folder.glob(".new-*/**/*") if p.is_file()), "the copy to have begun")
    kill9(settled.pid_of("bothyd"))
    asked.wait(timeout=60)
    names = set(settled("volume", "ls", "-q").ok().out.split())
    assert "v-source" in names
    assert list(folder.glob(".*")) == []
    snapshots = settled("volume", "snapshot", "ls", "-q").ok().out.split()
    if verb == "frozen":
        script = "echo thawed > /data/file; sync; cat /data/file"
        assert settled("exec", "v-writer", "sh", "-c", script, timeout=30).ok().line == "thawed"
        settled("rm", "-f", "v-writer").ok()
    if asked.returncode:
        assert "v-new" not in names
        assert snapshots == []
    for name in names & {"v-new"}:
        settled("volume", "rm", name).ok()
    settled("volume", "snapshot", "v-source", "s2").ok()
    assert "v-source@s2" in settled("volume", "snapshot", "ls", "-q").ok().out.split()


def test_many_at_once(settled: TestEngine, volume: Callable[..., str]) -> None:
    """Workloads that come and go with one volume: it is mounted as long as one of them is there, and nothing is lost."""
    volume("v-busy", "size=32m")
    results: list[int] = []

    def work(number: int) -> None:
        for turn in range(3):
            done = settled("run", "--rm", "-v", "v-busy:/data", "busybox", "sh", "-c", f"echo x > /data/{number}-{turn}")
            results.append(done.code)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0] * 12
    found = settled("run", "--rm", "-v", "v-busy:/data", "busybox", "ls", "/data").ok().out.split()
    assert len(found) == 12
    await_(lambda: not is_mounted(settled, "v-busy"), "the volume to be unmounted")
    assert os.listdir(mountpoint(settled, "v-busy")) == []
