"""diff, export and commit: what a workload has changed, its root as an archive, and an image of it; over both walls."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

from tests.e2e.conftest import Walled
from tests.support.http import api

CHANGES = (
    "echo new > /new; mkdir -p /dir/sub; touch /dir/sub/file; rm /etc/group; echo 'x' >> /etc/passwd; chmod 700 /var/tmp; "
    "rm -rf /var/www; ln -s /new /link; touch -c /etc/shells /etc/profile; rm -rf /usr/sbin; mkdir /usr/sbin; echo 1 > /usr/sbin/own"
)
EXPECTED = """A /dir
A /dir/sub
A /dir/sub/file
C /etc
D /etc/group
C /etc/passwd
A /link
A /new
C /usr
A /usr/sbin/own
C /var
C /var/tmp
D /var/www
"""


def changed(bothy: Walled, name: str, script: str = CHANGES, *flags: str) -> None:
    bothy("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", f"{script}; touch /tmp/ready; exec sleep 1000").ok()
    bothy("exec", name, "sh", "-c", "until [ -e /tmp/ready ]; do sleep 0.05; done; rm /tmp/ready").ok()


def entries(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        return {entry.name: entry for entry in found.getmembers()}


def exported(bothy: Walled, name: str) -> dict[str, tarfile.TarInfo]:
    done = subprocess.run(bothy.engine.command("export", name), env=bothy.engine.env, capture_output=True, check=True)
    return entries(done.stdout)


def test_diff(bothy: Walled) -> None:
    changed(bothy, "t-diff")
    seen = [line for line in bothy("diff", "t-diff").ok().out.splitlines() if "/usr/sbin/" not in line or line.endswith("/own")]
    wanted = EXPECTED.splitlines()
    assert [line for line in seen if line not in ("C /usr/sbin", "C /tmp")] == wanted
    deleted = [line for line in bothy("diff", "t-diff").ok().out.splitlines() if line.startswith("D /usr/sbin/")]
    in_image = bothy("run", "--rm", "busybox", "ls", "/usr/sbin").ok().out.split()
    assert [line.removeprefix("D /usr/sbin/") for line in deleted] == sorted(in_image)
    bothy("kill", "t-diff").ok()
    after = bothy("diff", "t-diff").ok().out.splitlines()
    assert [line for line in after if line not in ("C /tmp",)] == [
        line for line in sorted([*wanted, *deleted, "C /usr/sbin"], key=lambda line: line[2:]) if line in after
    ]


def test_nothing_has_changed(bothy: Walled) -> None:
    bothy("create", "--name", "t-same", "busybox", "sleep", "1000").ok()
    assert bothy("diff", "t-same").ok().out == ""
    bothy("start", "t-same").ok()
    assert bothy("diff", "t-same").ok().out == ""
    assert api(bothy.engine.run_folder / "bothy.sock", "GET", "/containers/t-same/changes")[2].strip() == b"[]"
    image = bothy("commit", "t-same").ok().line
    assert bothy("run", "--rm", image, "echo", "runs").ok().line == "runs"
    bothy("rmi", "-f", image).ok()


def test_export(bothy: Walled, tmp_path: Path) -> None:
    changed(bothy, "t-export", CHANGES, "-v", "t-exvol:/vol")
    bothy("exec", "t-export", "sh", "-c", "echo hidden > /vol/hidden; echo hidden > /dev/shm/hidden").ok()
    for state in ("running", "paused", "stopped"):
        if state == "paused":
            bothy("pause", "t-export").ok()
        if state == "stopped":
            bothy("unpause", "t-export").ok()
            bothy("kill", "t-export").ok()
        found = exported(bothy, "t-export")
        assert {"new", "dir/sub/file", "bin/busybox", "vol", "etc/passwd", "dev"} <= found.keys()
        assert not {"etc/group", "var/www", "vol/hidden", "dev/shm/hidden", "proc/self", "."} & found.keys()
        assert (found["var/tmp"].mode, found["link"].linkname) == (0o700, "/new")
    bothy("export", "-o", str(tmp_path / "root.tar"), "t-export").ok()
    bothy("import", "-c", 'CMD ["cat", "/new"]', str(tmp_path / "root.tar"), "t-flat").ok()
    assert bothy("run", "--rm", "t-flat").ok().line == "new"
    bothy("rmi", "t-flat").ok()
    bothy("rm", "-f", "t-export").ok()
    bothy("volume", "rm", "t-exvol").ok()


def test_commit(bothy: Walled) -> None:
    changed(bothy, "t-commit", CHANGES, "-e", "KEPT=yes", "-l", "color=blue")
    words = ("-a", "me", "-m", "why", "-c", 'CMD ["cat", "/new"]', "-c", "ENV ADDED=1", "t-commit", "t-image:one")
    image = bothy("commit", *words).ok().line
    assert bothy.engine.inspect("t-commit")["State"]["Status"] == "running"
    shown = bothy.engine.json("image", "inspect", "t-image:one")[0]
    assert (shown["Id"], shown["Author"], shown["Comment"]) == (image, "me", "why")
    assert {"KEPT=yes", "ADDED=1"} <= set(shown["Config"]["Env"])
    assert (shown["Config"]["Cmd"], shown["Config"]["Labels"]) == (["cat", "/new"], {"color": "blue"})
    history = json.loads(api(bothy.engine.run_folder / "bothy.sock", "GET", "/images/t-image:one/history")[2])
    assert (history[0]["Comment"], history[0]["Id"], len(history)) == ("why", image, 2)
    assert history[0]["CreatedBy"].startswith("sh -c echo new")
    assert bothy("run", "--rm", "t-image:one").ok().line == "new"
    script = "cat /link /usr/sbin/own; ls /usr/sbin | wc -l; ls /etc/group /var/www 2>&1 | grep -c 'No such'; stat -c %a /var/tmp"
    assert bothy("run", "--rm", "t-image:one", "sh", "-c", script).ok().out == "new\n1\n1\n2\n700\n"
    bothy("kill", "t-commit").ok()
    assert bothy("diff", "t-commit").ok().out
    bothy("commit", "t-commit", "t-image:two").ok()
    assert bothy("run", "--rm", "t-image:two", "cat", "/dir/sub/file", "/new").ok().line == "new"
    bothy("rmi", "-f", "t-image:one", "t-image:two").ok()


def test_commit_of_a_commit(bothy: Walled) -> None:
    changed(bothy, "t-first", "echo 1 > /one; mkdir /both; touch /both/a")
    bothy("commit", "t-first", "t-chain:1").ok()
    bothy("run", "-d", "--name", "t-second", "t-chain:1", "sh", "-c", "rm /one /both/a; touch /both/b; touch /ok; sleep 1000").ok()
    bothy("exec", "t-second", "sh", "-c", "until [ -e /ok ]; do sleep 0.05; done").ok()
    assert bothy("diff", "t-second").ok().out == "C /both\nD /both/a\nA /both/b\nA /ok\nD /one\n"
    bothy("commit", "t-second", "t-chain:2").ok()
    assert bothy("run", "--rm", "t-chain:2", "sh", "-c", "ls /both; ls /one 2>&1 | grep -c 'No such'").ok().out == "b\n1\n"
    bothy("rm", "-f", "t-first", "t-second").ok()
    bothy("rmi", "-f", "t-chain:1", "t-chain:2").ok()


def test_commit_tells_and_refuses(bothy: Walled) -> None:
    changed(bothy, "t-tell", "echo 1 > /one")
    socket = bothy.engine.run_folder / "bothy.sock"
    events = bothy.engine.popen("events", "--filter", "event=commit", stdout=subprocess.PIPE)
    assert events.stdout
    status, _, body = api(socket, "POST", "/v1.47/commit?container=t-tell&repo=t-told&tag=x&pause=0", b"null")
    assert status == 201
    assert "commit" in events.stdout.readline().decode()
    events.terminate()
    events.wait()
    events.stdout.close()
    assert json.loads(body)["Id"].startswith("sha256:")
    for query, expected in (
        ("container=nope", 404),
        ("repo=x", 400),
        ("container=t-tell&repo=Bad--NAME!", 400),
        ("container=t-tell&changes=NONSENSE%20x", 400),
        ("container=t-tell&tag=only", 400),
    ):
        assert api(socket, "POST", f"/commit?{query}", b"{}")[0] == expected, query
    bothy("rmi", "-f", "t-told:x").ok()
