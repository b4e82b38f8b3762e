"""Secrets: files in memory, over both walls, and nowhere else."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import TestEngine

WORD = "horse-4f0c9b7ad1"  # in no other file of an image
CONTENT = f"correct {WORD} \0 battery\n staple".encode()
SHOW = "cd /run/secrets && for f in $(find . -type f | sort); do stat -c '%n %a %u:%g' $f; done; grep ' /run/secrets ' /proc/mounts"


@pytest.fixture
def secret(engine: TestEngine, bothy: Walled) -> Iterator[str]:
    """The name of a secret that is there while the test is; workloads that have it are removed before it."""
    engine("secret", "create", "t-secret", "-", stdin=CONTENT).ok()
    yield "t-secret"
    if left := engine("ps", "-aq", "--no-trunc").out.split():
        engine("rm", "-f", "-v", *left).ok()
    engine("secret", "rm", "t-secret").ok()


def raw(engine: TestEngine, *args: str) -> bytes:
    return subprocess.run(engine.command(*args), env=engine.env, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout


def holding(folder: Path, word: bytes) -> list[str]:
    """The files below a folder that have the word in them; holes of disks are passed over (lseek(2), SEEK_DATA)."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and has(path, word)]


def has(path: Path, word: bytes) -> bool:
    with path.open("rb", buffering=0) as file:
        at, rest = 0, b""
        while True:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # there is no more data
                return False
            piece = os.pread(file.fileno(), 1 << 20, start)
            if not piece:
                return False
            rest = (rest if start == at else b"")[-len(word) :] + piece
            if word in rest:
                return True
            at = start + len(piece)


def test_a_secret_is_a_file_in_memory(bothy: Walled, secret: str) -> None:
    bothy("run", "-d", "--name", "t-has", "--secret", secret, "busybox", "sleep", "300").ok()
    assert raw(bothy.engine, "exec", "t-has", "cat", f"/run/secrets/{secret}") == CONTENT
    out = bothy("exec", "t-has", "sh", "-c", SHOW).ok().out
    assert f"./{secret} 444 0:0\n" in out
    assert " tmpfs ro,nosuid,nodev,noexec" in out
    assert bothy("exec", "t-has", "sh", "-c", f"echo x > /run/secrets/{secret} || rm /run/secrets/{secret}").code == 1
    assert bothy("exec", "-u", "1000", "t-has", "cat", f"/run/secrets/{secret}").code == 0


def test_targets_owners_and_modes(bothy: Walled, secret: str) -> None:
    flags = [
        f"{secret},target=a/b,uid=7,gid=8,mode=0400",
        f"source={secret},target=/etc/app/key,mode=400",
        f"{secret},target=third",
    ]
    words = [word for flag in flags for word in ("--secret", flag)]
    script = f"{SHOW}; stat -c '%n %a %u:%g' /etc/app/key; cat /etc/app/key | wc -c; id -u; cat a/b | wc -c"
    out = bothy("run", "--rm", "-u", "7", *words, "busybox", "sh", "-c", script).ok().out
    assert "./a/b 400 7:8\n./third 444 0:0\n" in out
    assert "/etc/app/key 400 0:0\n0\n" in out  # user 7 is not its owner
    assert out.endswith(f"7\n{len(CONTENT)}\n")


def test_what_it_says_is_nowhere_else(bothy: Walled, secret: str, tmp_path: Path) -> None:
    engine = bothy.engine
    bothy(
        "run", "-d", "--name", "t-quiet", "--secret", secret, "--secret", f"{secret},target=/etc/key", "busybox", "sleep", "300"
    ).ok()
    found = engine.inspect("t-quiet")["HostConfig"]["Secrets"]
    assert [entry["Source"] for entry in found] == [secret, secret]
    assert WORD not in engine("inspect", "t-quiet").out + engine("secret", "inspect", secret).out + engine("logs", "t-quiet").out
    assert WORD not in engine("exec", "t-quiet", "env").ok().out
    engine("stop", "-t", "0", "t-quiet").ok()
    image = engine("commit", "t-quiet", "t-quiet:made").ok().line
    engine("save", "-o", str(tmp_path / "image.tar"), "t-quiet:made").ok()
    engine("export", "-o", str(tmp_path / "tree.tar"), "t-quiet").ok()
    places = [tmp_path, engine.root / "containers", engine.run_folder, engine.root / "images"]
    assert [path for place in places for path in holding(place, WORD.encode())] == []
    assert engine("run", "--rm", image, "find", "/run/secrets", "/etc/key", "-size", "+0", "-type", "f").out == ""
    engine("rmi", "t-quiet:made").ok()


def test_another_content_is_for_the_next_start(bothy: Walled, secret: str) -> None:
    bothy("run", "-d", "--name", "t-turns", "--secret", secret, "busybox", "sleep", "300").ok()
    assert bothy.engine("secret", "create", secret, "-", stdin="new").code == 1
    bothy.engine("secret", "create", "--replace", secret, "-", stdin="new").ok()
    assert raw(bothy.engine, "exec", "t-turns", "cat", f"/run/secrets/{secret}") == CONTENT
    bothy("restart", "-t", "0", "t-turns").ok()
    assert raw(bothy.engine, "exec", "t-turns", "cat", f"/run/secrets/{secret}") == b"new"
    assert len(os.listdir(bothy.engine.root / "secrets")) == 1


def test_a_read_only_root_and_the_largest_secret(bothy: Walled, secret: str) -> None:
    bothy.engine("secret", "create", "t-large", "-", stdin=b"x" * 500 * 1024).ok()
    flags = ("--read-only", "--secret", "t-large", "--secret", secret)
    assert bothy("run", "--rm", *flags, "busybox", "sh", "-c", "cat /run/secrets/t-large | wc -c").ok().line == str(500 * 1024)
    bothy.engine("secret", "rm", "t-large").ok()


def test_create_list_inspect_remove(settled: TestEngine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    first = settled("secret", "create", "-l", "app=shop", "t-one", str(tmp_path / "file")).ok().line
    second = settled("secret", "create", "t-two", "-", stdin="2").ok().line
    assert settled("secret", "ls", "--format", "{{.Name}}").ok().out.split() == ["t-one", "t-two"]
    assert settled("secret", "ls", "-q", "-f", "label=app=shop").ok().line == first
    assert settled("secret", "ls", "-f", "name=two", "--format", "{{.ID}}").ok().line == second
    (shown,) = json.loads(settled("secret", "inspect", "t-one").ok().out)
    assert (shown["ID"], shown["Spec"]) == (first, {"Name": "t-one", "Labels": {"app": "shop"}})
    folder = settled.root / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    settled("create", "--name", "t-holds", "--secret", "t-one", "busybox", "true").ok()
    done = settled("secret", "rm", "t-one")
    assert (done.code, "t-holds" in done.err) == (1, True)
    settled("rm", "t-holds").ok()
    assert settled("secret", "rm", first[:12], "t-two").ok().out.split() == [first[:12], "t-two"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("t-nothing", "secret not found: t-nothing"),
        ("t-s,target=../x", "invalid target"),
        ("t-s,target=/", "invalid target"),
        ("t-s,mode=9", "invalid secret"),
        ("t-s,mode=4755", "invalid mode"),
        ("t-s,uid=99999", "invalid owner"),
        ("t-s,type=env", "only be a file"),
        ("t-s,bogus=1", "--secret takes NAME"),
        (",target=x", "--secret takes NAME"),
    ],
)
def test_what_can_not_be_meant(settled: TestEngine, flag: str, words: str) -> None:
    settled("secret", "create", "t-s", "-", stdin="x").ok()
    done = settled("run", "--rm", "--secret", flag, "busybox", "true")
    settled("secret", "rm", "t-s").ok()
    assert (done.code, words in done.err, "Traceback" in done.err) == (125, True, False), done.err


@pytest.mark.parametrize(
    ("name", "content"), [("-x", "x"), ("a b", "x"), ("..", "x"), ("x" * 65, "x"), ("t-empty", ""), ("t-big", "x" * 512001)]
)
def test_what_can_not_be_stored(settled: TestEngine, name: str, content: str) -> None:
    assert settled("secret", "create", "--", name, "-", stdin=content).code == 1
    assert settled("secret", "ls", "-q").ok().out == ""


def test_a_create_that_was_cut_short_is_swept(settled: TestEngine) -> None:
    settled("secret", "create", "t-stays", "-", stdin="x").ok()
    (settled.root / "secrets" / "leftover").write_text("half")
    settled("system", "shutdown").ok()
    assert settled("secret", "ls", "--format", "{{.Name}}").ok().line == "t-stays"
    assert not (settled.root / "secrets" / "leftover").exists()
    settled("secret", "rm", "t-stays").ok()
