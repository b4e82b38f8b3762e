"""run: the program, its streams, its environment and its exit code."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Walled


@pytest.fixture
def settled_host_pid() -> Iterator[int]:
    """The pid of a process of the host, larger than any that a fresh pid namespace or guest has."""
    sleepers = [subprocess.Popen(["sleep", "300"])]
    try:
        yield sleepers[0].pid
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


def test_output_and_exit_code_come_back(bothy: Walled) -> None:
    done = bothy("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")


def test_stdin_is_passed_and_its_end_too(bothy: Walled) -> None:
    assert bothy("run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end", stdin="one\ntwo").ok().out == "one\ntwoend\n"


def test_large_input_and_output_are_whole(bothy: Walled) -> None:
    data = bytes(range(256)) * 4096
    digest = hashlib.sha256(data).hexdigest()
    assert bothy("run", "--rm", "-i", "busybox", "sha256sum", stdin=data).ok().out.split()[0] == digest
    out = bothy("run", "--rm", "busybox", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' y").ok().out
    assert out == "y" * 3000000


def test_without_stdin_the_program_reads_nothing(bothy: Walled) -> None:
    assert bothy("run", "--rm", "busybox", "sh", "-c", "cat; echo end", stdin="lost").ok().out == "end\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("no-such-program",), 127),
        (("/etc/passwd",), 126),
        (("/etc",), 126),
        (("sh", "-c", "sh -c 'kill -TERM $$'; exit $?"), 143),
        (("false",), 1),
    ],
)
def test_exit_codes_are_dockers(bothy: Walled, command: tuple[str, ...], code: int) -> None:
    done = bothy("run", "--rm", "busybox", *command)
    assert done.code == code
    if code in (126, 127):
        assert command[0] in done.err


def test_environment(bothy: Walled) -> None:
    done = bothy("run", "--rm", "-e", "A=1", "-e", "B=two words", "-e", "HOST_VALUE", "--hostname", "box", "busybox", "env")
    lines = done.ok().out.splitlines()
    assert "A=1" in lines
    assert "B=two words" in lines
    assert "HOSTNAME=box" in lines
    assert any(line.startswith("PATH=/usr/local/sbin:") for line in lines)
    assert "HOME=/root" in lines
    assert not any(line.startswith("HOST_VALUE") for line in lines)


def test_env_file(bothy: Walled, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("env") / "env"
    file.write_text("# comment\nX=1\n\nY=a=b\n")
    out = bothy("run", "--rm", "--env-file", str(file), "busybox", "sh", "-c", "echo $X $Y").ok().out
    assert out == "1 a=b\n"


def test_working_directory_is_made(bothy: Walled) -> None:
    assert bothy("run", "--rm", "-w", "/srv/deep/er", "busybox", "pwd").ok().line == "/srv/deep/er"


@pytest.mark.parametrize(
    ("user", "ids"), [("1000", "1000:0"), ("1000:2000", "1000:2000"), ("nobody", "65534:65534"), ("root", "0:0")]
)
def test_user(bothy: Walled, user: str, ids: str) -> None:
    assert bothy("run", "--rm", "-u", user, "busybox", "sh", "-c", "echo $(id -u):$(id -g)").ok().line == ids


def test_unknown_user_is_told(bothy: Walled) -> None:
    done = bothy("run", "--rm", "-u", "ghost", "busybox", "true")
    assert done.code == 125
    assert "ghost" in done.err


def test_entrypoint(bothy: Walled) -> None:
    assert bothy("run", "--rm", "--entrypoint", "echo", "busybox", "a", "b").ok().out == "a b\n"


def test_hostname_and_hosts(bothy: Walled) -> None:
    out = (
        bothy("run", "--rm", "--hostname", "box", "busybox", "sh", "-c", "hostname; cat /etc/hostname; grep -c box /etc/hosts")
        .ok()
        .out
    )
    assert out == "box\nbox\n1\n"


def test_read_only_root_with_tmpfs(bothy: Walled) -> None:
    script = "touch /x 2>/dev/null && echo writable; touch /scratch/y && echo scratch; grep -q ' /scratch tmpfs' /proc/mounts && echo tmpfs"
    out = bothy("run", "--rm", "--read-only", "--tmpfs", "/scratch:size=1m", "busybox", "sh", "-c", script).ok().out
    assert out == "scratch\ntmpfs\n"


def test_volume_is_shared_both_ways(bothy: Walled, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("share")
    (folder / "in").write_text("from the host\n")
    out = bothy("run", "--rm", "-v", f"{folder}:/data", "busybox", "sh", "-c", "cat /data/in; echo back > /data/out").ok().out
    assert out == "from the host\n"
    assert (folder / "out").read_text() == "back\n"
    assert (folder / "out").stat().st_uid == 0


def test_read_only_volume_and_single_file(bothy: Walled, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("share")
    (folder / "file").write_text("content\n")
    script = "cat /etc/file; touch /data/x 2>/dev/null || echo refused"
    out = (
        bothy("run", "--rm", "-v", f"{folder}/file:/etc/file:ro", "-v", f"{folder}:/data:ro", "busybox", "sh", "-c", script)
        .ok()
        .out
    )
    assert out == "content\nrefused\n"


def test_detached_prints_the_id_and_runs_on(bothy: Walled) -> None:
    ident = bothy("run", "-d", "--name", "t-run", "busybox", "sleep", "300").ok().line
    assert len(ident) == 64
    assert bothy.engine.inspect("t-run")["State"]["Running"] is True
    bothy("rm", "-f", "t-run").ok()


def test_rm_removes_after_exit(bothy: Walled) -> None:
    bothy("run", "--rm", "--name", "t-gone", "busybox", "true").ok()
    assert bothy("inspect", "t-gone").code == 1


def test_program_sees_only_itself(bothy: Walled, settled_host_pid: int) -> None:
    out = bothy("run", "--rm", "busybox", "sh", "-c", f"ls /proc; cat /proc/{settled_host_pid}/environ 2>&1 || true").ok().out
    assert str(settled_host_pid) not in out.split()
    assert "No such file" in out


def test_an_image_that_is_not_here(bothy: Walled) -> None:
    done = bothy("run", "--rm", "nobody/has:this", "true")
    assert done.code == 125
    assert "nobody/has:this" in done.err
    assert "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) <= 2


def test_init_reaps_and_forwards(bothy: Walled) -> None:
    script = "(sleep 0.1 &) ; sleep 0.4; ps -o stat | grep -c '^Z' || true"
    assert bothy("run", "--rm", "--init", "busybox", "sh", "-c", script).ok().line == "0"
