"""cp, export and commit against workloads and archives that mean harm: nothing of the host is read, written or held up."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.e2e.conftest import Walled
from tests.support.archives import entry, tar
from tests.support.engine import TestEngine, await_
from tests.support.http import api


def put(bothy: Walled, path: str, data: bytes) -> int:
    return api(bothy.engine.run_folder / "bothy.sock", "PUT", f"/containers/t-bad/archive?path={path}", data)[0]


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file of the host that nobody may read or change."""
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "secret").write_text("the host's")
    return folder


def test_archives_that_climb(bothy: Walled, marker: Path) -> None:
    bothy("run", "-d", "--name", "t-bad", "busybox", "sleep", "1000").ok()
    up = "../" * 20 + str(marker).lstrip("/")
    assert put(bothy, "/tmp", tar((f"{up}/climbed", b"x"))) == 400
    assert put(bothy, "/tmp", tar(entry("hard", tarfile.LNKTYPE, f"{up}/secret"))) == 400
    assert put(bothy, "/tmp", tar(entry("hard", tarfile.LNKTYPE, f"{marker}/secret"))) == 400
    assert put(bothy, "/tmp", tar((f"{marker}/absolute", b"x"))) == 200
    for target in (str(marker), up):
        through = tar(entry("out", tarfile.SYMTYPE, target), ("out/through", b"x"))
        assert put(bothy, "/tmp", through) == 200
    assert os.listdir(marker) == ["secret"]
    seen = bothy("exec", "t-bad", "sh", "-c", f"cat /tmp{marker}/absolute; ls {marker}").ok().out
    assert seen == "xthrough\n"


def test_links_of_the_workload(bothy: Walled, marker: Path, tmp_path: Path) -> None:
    script = (
        f"ln -s {marker} /abs; ln -s ../../../../..{marker} /rel; ln -s /proc/1/root/etc /proc-link; ln -s /loop /loop; sleep 1000"
    )
    bothy("run", "-d", "--name", "t-bad", "busybox", "sh", "-c", script).ok()
    bothy("exec", "t-bad", "sh", "-c", "until [ -L /loop ]; do sleep 0.05; done").ok()
    for state in ("running", "stopped"):
        for link in ("/abs", "/rel"):
            done = bothy("cp", f"t-bad:{link}/secret", str(tmp_path / "taken"))
            assert (done.code, "Could not find the file" in done.err) == (1, True)
            assert put(bothy, link, tar(("written", b"x"))) == 404
        assert bothy("cp", "t-bad:/loop/x", str(tmp_path / "taken")).code == 1
        assert bothy("cp", "t-bad:/proc-link/hostname", str(tmp_path / "taken")).code == 1
        if state == "running":
            bothy("kill", "t-bad").ok()
    assert os.listdir(marker) == ["secret"]


def test_a_workload_that_swaps_links_meanwhile(bothy: Walled, marker: Path, tmp_path: Path) -> None:
    script = (
        f"mkdir -p /a/real /swap; echo mine > /a/real/secret; ln -s {marker} /a/evil; cp -a /a/real /swap/d; ready=1; touch /ready; "
        "while true; do mv /swap/d /swap/old; ln -s /a/evil /swap/d; rm /swap/d; mv /swap/old /swap/d; done"
    )
    bothy("run", "-d", "--name", "t-bad", "busybox", "sh", "-c", script).ok()
    bothy("exec", "t-bad", "sh", "-c", "until [ -e /ready ]; do sleep 0.05; done").ok()
    for number in range(15):
        taken = tmp_path / f"taken{number}"
        bothy("cp", "t-bad:/swap/d/secret", str(taken))
        assert not taken.exists() or taken.read_text() == "mine\n"
        bothy("cp", "t-bad:/swap", str(tmp_path / f"all{number}"))
        assert put(bothy, "/swap/d", tar((f"n{number}", b"x"), ("deep/er/file", b"y"))) in (200, 400, 404, 500)
    for found in tmp_path.glob("all*/**/secret"):
        assert found.is_symlink() or found.read_text() == "mine\n"
    assert os.listdir(marker) == ["secret"]


def test_devices_and_pipes(bothy: Walled, tmp_path: Path) -> None:
    bothy("run", "-d", "--name", "t-bad", "busybox", "sh", "-c", "mkdir /d; mkfifo /d/pipe; touch /d/ok; exec sleep 1000").ok()
    bothy("exec", "t-bad", "sh", "-c", "until [ -e /d/ok ]; do sleep 0.05; done").ok()
    bothy("cp", "t-bad:/d", str(tmp_path), timeout=30).ok()
    assert (tmp_path / "d/pipe").is_fifo()
    bothy("cp", "t-bad:/dev", str(tmp_path), timeout=30).ok()
    assert not [
        entry
        for entry in (tmp_path / "dev").rglob("*")
        if not entry.is_symlink() and (entry.is_char_device() or entry.is_block_device())
    ]
    nodes = tar(entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=0), entry("kmsg", tarfile.CHRTYPE, devmajor=1, devminor=11))
    assert put(bothy, "/d", nodes) == 200
    if bothy.wall == "container":
        assert bothy("exec", "t-bad", "ls", "/d").ok().out == "ok\npipe\n"
    assert put(bothy, "/d", tar(entry("p2", tarfile.FIFOTYPE), ("ok", b"new"))) == 200
    assert bothy("exec", "t-bad", "cat", "/d/ok").ok().out == "new"


def test_rights_do_not_come_out(bothy: Walled, tmp_path: Path) -> None:
    script = "cp /bin/busybox /suid; chmod 6755 /suid; mkdir /g; chmod 2777 /g; exec sleep 1000"
    bothy("run", "-d", "--name", "t-bad", "busybox", "sh", "-c", script).ok()
    bothy("exec", "t-bad", "sh", "-c", "until [ -g /g ]; do sleep 0.05; done").ok()
    bothy("cp", "t-bad:/suid", str(tmp_path / "suid")).ok()
    bothy("cp", "t-bad:/g", str(tmp_path / "g")).ok()
    assert (tmp_path / "suid").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "g").stat().st_mode & 0o7777 == 0o777
    bothy("cp", "-a", "t-bad:/suid", str(tmp_path / "kept")).ok()
    assert (tmp_path / "kept").stat().st_mode & 0o7777 == 0o6755


def test_a_tree_without_bottom(bothy: Walled, tmp_path: Path) -> None:
    bothy("run", "-d", "--name", "t-bad", "busybox", "sleep", "1000").ok()
    deep = "/".join(["d"] * 1040)
    assert put(bothy, "/tmp", tar((f"{deep}/file", b"x"), ("ready", b""))) == 200
    for words in (("cp", "t-bad:/tmp/d", "-"), ("export", "t-bad"), ("diff", "t-bad"), ("commit", "t-bad")):
        done = bothy(*words)
        assert done.code == 1, words
        assert "nested too deeply" in done.err or "closed the connection" in done.err, (words, done.err)
    assert put(bothy, "/tmp", tar(("d", b"a file"))) in (200, 400, 500)
    bothy("cp", "t-bad:/tmp/ready", str(tmp_path / "ready")).ok()


def test_a_visit_has_no_rights(settled: TestEngine) -> None:
    """While it waits for an archive it is looked at from outside."""
    settled("run", "-d", "--name", "t-bad", "busybox", "sleep", "1000").ok()
    for state in ("running", "stopped"):
        process = settled.popen("cp", "-", "t-bad:/tmp", stdin=subprocess.PIPE)
        assert process.stdin
        process.stdin.write(tar(("x", bytes(1 << 16)))[: 1 << 15])
        process.stdin.flush()
        await_(lambda: [pid for pid in _visits(settled) if _enclosed(pid)], "the visit to begin")
        (pid,) = _visits(settled)
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert int(status["Uid"].split()[0]) >= 1 << 20
        assert status["NoNewPrivs"] == "1"
        assert status["CapEff"] == status["CapBnd"] == status["CapPrm"]
        assert int(status["CapEff"], 16) & (1 << 21) == 0, "CAP_SYS_ADMIN"
        assert settled.inspect("t-bad")["Id"] not in Path(f"/proc/{pid}/cgroup").read_text()
        assert Path(f"/proc/{pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()
        mounted = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        assert "/" in [words[4] for words in mounted]
        assert not [words[4] for words in mounted if words[4].startswith(str(settled.root))]
        assert all("nodev" in words[5].split(",") for words in mounted)
        process.stdin.close()
        process.wait(60)
        await_(lambda: not _visits(settled), "the visit to end")
        if state == "running":
            settled("kill", "t-bad").ok()


def test_who_stalls_keeps_nobody_waiting(bothy: Walled) -> None:
    """A client that sends no more of its archive holds up neither the start nor the removal of what it writes to."""
    bothy("create", "--name", "t-bad", "busybox", "sleep", "1000").ok()
    for verb in (("start", "t-bad"), ("rm", "-f", "t-bad")):
        process = bothy.engine.popen("cp", "-", "t-bad:/tmp", stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdin
        process.stdin.write(tar(("x", bytes(1 << 16)))[: 1 << 15])
        process.stdin.flush()
        bothy("cp", "t-bad:/etc/passwd", "/dev/null", timeout=60)
        bothy(*verb, timeout=60).ok()
        process.stdin.close()
        process.wait(60)


def _visits(engine: TestEngine) -> list[int]:
    return [pid for pid, name in engine.processes().items() if name == "bothy-visit"]


def _enclosed(pid: int) -> bool:
    return "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()
