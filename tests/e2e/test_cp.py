"""cp: files in and out of a workload, over both walls, in every state; by bothy's and by Docker's command line."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import TestEngine, await_, kill9
from tests.support.http import api

TREE = "mkdir -p /d/e/f && echo x > /d/e/x && ln -s e/x /d/l && ln -s /d /dl && touch /d/e/f/y && chmod 640 /d/e/x"


def running(bothy: Walled, name: str, script: str = TREE, *flags: str) -> None:
    """A workload in which the script has been run, and that goes on."""
    bothy("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", f"{script}; touch /ready; exec sleep 1000").ok()
    bothy("exec", name, "sh", "-c", "until [ -e /ready ]; do sleep 0.05; done").ok()


def names(archive: bytes) -> list[str]:
    """The names in a tar."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        return found.getnames()


def test_out_by_the_rules(bothy: Walled, tmp_path: Path) -> None:
    running(bothy, "t-out")
    here = str(tmp_path)
    bothy("cp", "t-out:/d/e/x", f"{here}/file").ok()
    assert (tmp_path / "file").read_text() == "x\n"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    bothy("cp", "t-out:/d", here).ok()
    assert (tmp_path / "d/e/x").read_text() == "x\n"
    assert (tmp_path / "d/l").readlink() == Path("e/x")
    bothy("cp", "t-out:/d", f"{here}/new").ok()
    assert sorted(os.listdir(tmp_path / "new")) == ["e", "l"]
    bothy("cp", "t-out:/d/.", f"{here}/contents").ok()
    assert sorted(os.listdir(tmp_path / "contents")) == ["e", "l"]
    bothy("cp", "t-out:/dl", f"{here}/link").ok()
    assert (tmp_path / "link").readlink() == Path("/d")
    bothy("cp", "-L", "t-out:/dl", here).ok()
    assert sorted(os.listdir(tmp_path / "dl")) == ["e", "l"]
    bothy("cp", "t-out:/d/e/x", f"{here}/new").ok()
    assert (tmp_path / "new/x").read_text() == "x\n"
    refused = bothy("cp", "t-out:/d", f"{here}/file")
    assert (refused.code, "cannot copy directory" in refused.err) == (1, True)
    missing = bothy("cp", "t-out:/nope", here)
    assert (missing.code, missing.err) == (1, "bothy: Could not find the file /nope in container t-out\n")


def test_in_by_the_rules(bothy: Walled, tmp_path: Path) -> None:
    running(bothy, "t-in", "mkdir -p /w; ln -s /w /wl")
    source = tmp_path / "s"
    (source / "t").mkdir(parents=True)
    (source / "t/1").write_text("one")
    (source / "t/1").chmod(0o604)
    (source / "l").symlink_to("t/1")
    os.chown(source / "t/1", 1234, 1234)
    bothy("cp", str(source), "t-in:/w").ok()
    bothy("cp", f"{source}/.", "t-in:/named").ok()
    bothy("cp", f"{source}/t/1", "t-in:/one").ok()
    bothy("cp", f"{source}/t/1", "t-in:/wl/").ok()
    bothy("cp", "-a", f"{source}/t/1", "t-in:/w/owned").ok()
    script = "cat /w/s/t/1 /named/t/1 /one /w/1 /w/owned; echo; readlink /w/s/l; stat -c '%u:%g %a' /one /w/owned"
    assert bothy("exec", "t-in", "sh", "-c", script).ok().out == "oneoneoneoneone\nt/1\n0:0 604\n1234:1234 604\n"
    refused = bothy("cp", str(source), "t-in:/one")
    assert (refused.code, "cannot copy directory" in refused.err) == (1, True)
    assert "no such directory" in bothy("cp", f"{source}/t/1", "t-in:/nothing/").err
    replaced = bothy("cp", f"{source}/t/1", "t-in:/w/s/t")
    assert replaced.code == 0
    assert bothy("exec", "t-in", "cat", "/w/s/t/1").ok().out == "one"


def test_archives_by_stdin_and_stdout(bothy: Walled) -> None:
    running(bothy, "t-tar", "mkdir -p /d; echo 1 > /d/a; mkdir /new")
    done = subprocess.run(bothy.engine.command("cp", "t-tar:/d", "-"), env=bothy.engine.env, capture_output=True, check=True)
    assert names(done.stdout) == ["d", "d/a"]
    bothy("cp", "-", "t-tar:/new", stdin=done.stdout).ok()
    bothy("cp", "-", "t-tar:/tmp", stdin=gzip.compress(done.stdout)).ok()
    assert bothy("exec", "t-tar", "cat", "/new/d/a", "/tmp/d/a").ok().out == "1\n1\n"
    assert "must be a directory" in bothy("cp", "-", "t-tar:/new/d/a", stdin=done.stdout).err


@pytest.mark.parametrize("state", ["paused", "stopped", "created", "restarted"])
def test_every_state(bothy: Walled, tmp_path: Path, state: str) -> None:
    (tmp_path / "in").write_text("put")
    if state == "created":
        bothy("create", "--name", "t-state", "busybox", "sleep", "1000").ok()
    else:
        running(bothy, "t-state", "echo made > /made")
    if state in ("stopped", "restarted"):
        bothy("kill", "t-state").ok()
    if state == "restarted":
        bothy("start", "t-state").ok()
    if state == "paused":
        bothy("pause", "t-state").ok()
    before = bothy.engine.inspect("t-state")["State"]
    bothy("cp", str(tmp_path / "in"), "t-state:/put").ok()
    bothy("cp", "t-state:/put", str(tmp_path / "back")).ok()
    assert (tmp_path / "back").read_text() == "put"
    bothy("cp", "t-state:/etc/passwd", str(tmp_path / "passwd")).ok()
    assert "root" in (tmp_path / "passwd").read_text()
    if state != "created":
        bothy("cp", "t-state:/made", str(tmp_path / "made")).ok()
        assert (tmp_path / "made").read_text() == "made\n"
    assert bothy.engine.inspect("t-state")["State"] == before
    if state == "paused":
        bothy("unpause", "t-state").ok()
    elif state != "restarted":
        bothy("start", "t-state").ok()
    assert bothy("exec", "t-state", "cat", "/put").ok().out == "put"


def test_a_paused_workload_stands_still(bothy: Walled, tmp_path: Path) -> None:
    script = "n=0; (while true; do n=$((n+1)); echo $n > /count.new; mv /count.new /count; done) &"
    running(bothy, "t-still", f"{script} until [ -e /count ]; do sleep 0.05; done")
    bothy("pause", "t-still").ok()
    seen = []
    for name in ("one", "two"):
        bothy("cp", "t-still:/count", str(tmp_path / name)).ok()
        seen.append((tmp_path / name).read_text())
    assert seen[0] == seen[1]
    bothy("unpause", "t-still").ok()
    moved = f"until [ $(cat /count) -gt {seen[0].strip()} ]; do sleep 0.05; done"
    bothy("exec", "t-still", "sh", "-c", moved).ok()


def test_volumes_and_binds(bothy: Walled, tmp_path: Path) -> None:
    bound, file = tmp_path / "bound", tmp_path / "in"
    bound.mkdir()
    file.write_text("in")
    flags = ("-v", f"{bound}:/b", "-v", "t-cpvol:/v", "-v", "t-cpvol:/ro:ro")
    bothy("create", "--name", "t-vol", *flags, "busybox", "sleep", "1000").ok()
    bothy("cp", str(file), "t-vol:/v/stopped").ok()
    bothy("cp", str(file), "t-vol:/b/stopped").ok()
    assert (bound / "stopped").read_text() == "in"
    assert "mounted volume is marked read-only" in bothy("cp", str(file), "t-vol:/ro/x").err
    bothy("start", "t-vol").ok()
    bothy("cp", str(file), "t-vol:/v/up").ok()
    bothy("cp", str(file), "t-vol:/b/up").ok()
    assert "mounted volume is marked read-only" in bothy("cp", str(file), "t-vol:/ro/x").err
    assert bothy("exec", "t-vol", "sh", "-c", "cat /v/stopped /v/up /b/up; ls /ro").ok().out == "ininin" + "stopped\nup\n"
    bothy("cp", "t-vol:/v", str(tmp_path)).ok()
    assert sorted(os.listdir(tmp_path / "v")) == ["stopped", "up"]
    bothy("rm", "-f", "t-vol").ok()
    bothy("volume", "rm", "t-cpvol").ok()


def test_a_read_only_root(bothy: Walled, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("in")
    bothy("run", "-d", "--name", "t-ro", "--read-only", "--tmpfs", "/tmp", "busybox", "sleep", "1000").ok()
    for _ in ("running", "stopped"):
        assert "container rootfs is marked read-only" in bothy("cp", str(tmp_path / "in"), "t-ro:/x").err
        bothy("cp", "t-ro:/etc/passwd", str(tmp_path / "passwd")).ok()
        if bothy.engine.inspect("t-ro")["State"]["Running"]:
            bothy("cp", str(tmp_path / "in"), "t-ro:/tmp/x").ok()
            assert bothy("exec", "t-ro", "cat", "/tmp/x").ok().out == "in"
        bothy("kill", "t-ro")


def test_docker_cp(bothy: Walled, tmp_path: Path) -> None:
    docker = shutil.which("docker")
    assert docker, "the docker command line is missing"
    env = {**os.environ, "DOCKER_HOST": f"unix://{bothy.engine.run_folder}/bothy.sock"}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([docker, *words], env=env, capture_output=True, text=True, timeout=120, check=False)

    running(bothy, "t-docker")
    (tmp_path / "in").write_text("in")
    assert call("cp", "t-docker:/d", str(tmp_path)).returncode == 0
    assert (tmp_path / "d/e/x").read_text() == "x\n"
    assert call("cp", str(tmp_path / "in"), "t-docker:/d/e/").returncode == 0
    assert call("cp", str(tmp_path / "d"), "t-docker:/copied").returncode == 0
    assert bothy("exec", "t-docker", "sh", "-c", "cat /d/e/in /copied/e/x").ok().out == "inx\n"
    missing = call("cp", "t-docker:/nope", str(tmp_path))
    assert missing.stderr.strip() == "Error response from daemon: Could not find the file /nope in container t-docker"
    assert call("cp", "-L", "t-docker:/d/l", str(tmp_path / "followed")).returncode == 0
    assert (tmp_path / "followed").read_text() == "x\n"


def test_the_api(bothy: Walled) -> None:
    running(bothy, "t-api", f"{TREE}; chmod 6755 /d/e; ln -s ../nowhere/x /broken")
    socket = bothy.engine.run_folder / "bothy.sock"

    def stat_of(path: str) -> dict[str, object]:
        status, headers, body = api(socket, "HEAD", f"/v1.47/containers/t-api/archive?path={path}")
        assert (status, body) == (200, b"")
        return json.loads(base64.b64decode(headers["x-docker-container-path-stat"]))

    found = stat_of("/d/e")
    assert (found["name"], found["mode"], found["linkTarget"]) == ("e", 1 << 31 | 1 << 23 | 1 << 22 | 0o755, "")
    assert stat_of("/d/e/x") | {"mtime": ""} == {"name": "x", "size": 2, "mode": 0o640, "linkTarget": "", "mtime": ""}
    assert stat_of("/dl")["linkTarget"] == "/d"
    assert stat_of("/broken")["linkTarget"] == "/nowhere/x"
    assert stat_of("/dl/")["mode"] == 1 << 31 | 0o755
    assert stat_of("/dev/null")["mode"] == 1 << 26 | 1 << 21 | 0o666
    assert api(socket, "HEAD", "/containers/t-api/archive?path=/nope")[0] == 404
    status, _, body = api(socket, "GET", "/containers/t-api/archive")
    assert (status, json.loads(body)["message"]) == (400, "bad parameter: 'path' cannot be empty")
    assert names(api(socket, "GET", "/containers/t-api/archive?path=/d/.")[2])[:2] == [".", "./e"]
    for body, expected in ((b"nonsense" * 100, 400), (b"", 200)):
        assert api(socket, "PUT", "/containers/t-api/archive?path=/d", body)[0] == expected
    status, _, body = api(socket, "PUT", "/containers/t-api/archive?path=/d/e/x", b"")
    assert (status, json.loads(body)["message"]) == (400, "extraction point is not a directory")
    packed = _tar({"e": b"a file"})
    status, _, body = api(socket, "PUT", "/containers/t-api/archive?path=/d&noOverwriteDirNonDir=1", packed)
    assert (status, "cannot overwrite directory" in json.loads(body)["message"]) == (400, True)
    for data in (packed, gzip.compress(packed)):
        assert api(socket, "PUT", "/containers/t-api/archive?path=/d", data)[0] == 200
        assert bothy("exec", "t-api", "cat", "/d/e").ok().out == "a file"
    assert api(socket, "PUT", "/containers/t-api/archive?path=/d", gzip.compress(packed)[:-9])[0] == 400


def test_as_the_workloads_user(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-user", "-u", "nobody", "busybox", "sleep", "1000").ok()
    socket = bothy.engine.run_folder / "bothy.sock"
    assert api(socket, "PUT", "/containers/t-user/archive?path=/tmp&copyUIDGID=1", _tar({"x": b"1"}))[0] == 200
    assert bothy("exec", "t-user", "stat", "-c", "%u:%g", "/tmp/x").ok().out == "65534:65534\n"


def test_what_archives_can_hold(bothy: Walled, tmp_path: Path) -> None:
    """Hard links, holes, long names, extended attributes and times come through both ways."""
    source = tmp_path / "s"
    source.mkdir()
    long = "n" * 200
    (source / long).write_text("long")
    os.link(source / long, source / "hard")
    with open(source / "holes", "wb") as file:
        file.write(b"begin")
        file.truncate(1 << 40)
        file.seek((1 << 40) - 3)
        file.write(b"end")
    os.setxattr(source / "hard", "user.note", b"kept")
    os.utime(source / long, (1_000_000_000, 1_000_000_000))
    running(bothy, "t-hold", "true")
    bothy("cp", str(source), "t-hold:/").ok()
    script = f"stat -c '%h %Y' /s/hard /s/{long}; stat -c %s /s/holes; du -k /s/holes | cut -f1; tail -c 3 /s/holes"
    seen = bothy("exec", "t-hold", "sh", "-c", script).ok().out.split("\n")
    assert seen[:3] == ["2 1000000000", "2 1000000000", str(1 << 40)]
    assert int(seen[3]) < 1024
    assert seen[4] == "end"
    bothy("cp", "t-hold:/s", str(tmp_path / "back")).ok()
    back = tmp_path / "back"
    assert (back / "hard").stat().st_nlink == 2
    assert (back / "holes").stat().st_size == 1 << 40
    assert (back / "holes").stat().st_blocks < 2048
    assert os.getxattr(back / "hard", "user.note") == b"kept"
    assert (back / long).stat().st_mtime == 1_000_000_000


def test_much(bothy: Walled, tmp_path: Path) -> None:
    size = 48 << 20
    (tmp_path / "much").write_bytes(os.urandom(1 << 20) * 48)
    running(bothy, "t-much", "true")
    bothy("cp", str(tmp_path / "much"), "t-much:/much").ok()
    bothy("cp", "t-much:/much", str(tmp_path / "back")).ok()
    assert (tmp_path / "back").stat().st_size == size
    assert subprocess.run(["cmp", tmp_path / "much", tmp_path / "back"], check=False).returncode == 0


def test_a_client_that_hangs_up_leaves_nothing(bothy: Walled) -> None:
    running(bothy, "t-gone", "dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null")
    for words in (("cp", "t-gone:/big", "-"), ("cp", "-", "t-gone:/")):
        process = bothy.engine.popen(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdin
        assert process.stdout
        if words[1] == "-":
            process.stdin.write(_tar({"x": bytes(1 << 20)})[: 1 << 19])
            process.stdin.flush()
        else:
            assert process.stdout.read(1 << 16)
        kill9(process.pid)
        process.wait()
        process.stdin.close()
        process.stdout.close()
    await_(lambda: not _visits(bothy.engine), "visits to end")
    bothy("cp", "t-gone:/big", "/dev/null")
    assert bothy("exec", "t-gone", "true").ok().code == 0


def test_a_visit_of_a_killed_daemon_ends(bothy: Walled) -> None:
    running(bothy, "t-killed", "dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null")
    bothy("kill", "t-killed").ok()
    process = bothy.engine.popen("cp", "t-killed:/big", "-", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    assert process.stdout.read(1 << 16)
    kill9(bothy.engine.pid_of("bothyd"))
    process.stdout.close()
    process.wait(60)
    await_(lambda: not _visits(bothy.engine), "visits to end")
    assert bothy.engine.inspect("t-killed")["State"]["Status"] == "exited"
    bothy("start", "t-killed").ok()
    assert bothy("exec", "t-killed", "ls", "/big").ok().out == "/big\n"


def _visits(engine: TestEngine) -> list[str]:
    return [name for name in engine.processes().values() if name == "bothy-visit"]


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()
