"""Docker's own command line, as it comes from Debian and (where it is here) newer, unchanged, against bothy."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.engine import Result, TestEngine, await_
from tests.support.terminals import Terminal, Terminals

CLIENTS = [path for path in ("/usr/bin/docker", "/usr/local/bin/docker") if Path(path).exists()]


class Docker:
    """One docker command line on one engine."""

    def __init__(self, path: str, engine: TestEngine) -> None:
        self.path = path
        self.engine = engine
        self.env = {**os.environ, "DOCKER_HOST": f"unix://{engine.run_folder}/bothy.sock", "DOCKER_CONFIG": str(engine.run_folder)}

    def __call__(self, *args: str, stdin: bytes | None = None, timeout: float = 60) -> Result:
        done = subprocess.run(
            [self.path, *args], input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True, env=self.env, timeout=timeout, check=False,
        )  # fmt: skip
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def popen(self, *args: str, **kwargs: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([self.path, *args], env=self.env, **kwargs)


@pytest.fixture(params=CLIENTS or [pytest.param("", marks=pytest.mark.skip(reason="no docker command line is installed"))])
def docker(request: pytest.FixtureRequest, settled: TestEngine) -> Docker:
    return Docker(request.param, settled)


@pytest.fixture
def open_terminal(docker: Docker) -> Iterator[Callable[..., Terminal]]:
    """Opens a terminal on which a docker command runs."""
    with Terminals() as terminals:
        yield lambda *args, **size: terminals.open([docker.path, *args], docker.env, **size)


def test_run(docker):
    assert docker("run", "--rm", "busybox", "echo", "hello").ok().out == "hello\n"
    done = docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")
    data = os.urandom(300_000)
    assert docker("run", "--rm", "-i", "busybox", "md5sum", stdin=data).ok().out.split()[0] == hashlib.md5(data).hexdigest()


@pytest.mark.qemu
def test_the_other_wall(docker):
    machine = ("run", "--rm", "-i", "--runtime", "vm", "busybox", "sh", "-c")
    done = docker(*machine, "uname -r; cat; exit 3", stdin=b"through\n", timeout=180)
    assert done.code == 3
    kernel, said = done.out.splitlines()
    assert kernel != os.uname().release
    assert said == "through"


@pytest.mark.parametrize(("program", "code"), [("nothing-of-that-name", 127), ("/etc", 126)])
def test_programs_that_can_not_run(docker, program, code):
    done = docker("run", "--rm", "busybox", program)
    assert done.code == code
    assert program in done.err
    assert docker("run", "-d", "--name", "t-exec", "busybox", "sleep", "300").code == 0
    done = docker("exec", "t-exec", program)
    assert done.code == code
    assert program in done.out + done.err


def test_an_image_that_is_not_here(docker):
    done = docker("run", "--rm", "nothing/of:that", "true")
    assert done.code == 125
    assert "bothy load" in done.err


def test_exec_logs_top_stats_and_the_rest_of_a_life(docker):
    docker(
        "run", "-d", "--name", "t-life", "-p", "127.0.0.1::80", "-e", "A=b", "busybox", "sh", "-c", "echo $A; sleep 300; true"
    ).ok()
    assert docker("exec", "-i", "t-life", "cat", stdin=b"abc").ok().out == "abc"
    assert docker("exec", "t-life", "sh", "-c", "exit 9").code == 9
    await_(lambda: docker("logs", "t-life").out == "b\n", "the log")
    assert "sleep 300" in docker("top", "t-life").ok().out
    assert "t-life" in docker("stats", "--no-stream", "t-life").ok().out
    assert re.match(r"127\.0\.0\.1:\d+", docker("port", "t-life", "80").ok().out)
    assert docker("inspect", "-f", "{{.State.Status}} {{.Config.Image}}", "t-life").ok().line == "running busybox"
    assert re.search(r"t-life$", docker("ps", "--filter", "name=t-life").ok().out, re.MULTILINE)
    docker("pause", "t-life").ok()
    assert "(Paused)" in docker("ps").ok().out
    docker("unpause", "t-life").ok()
    docker("rename", "t-life", "t-other").ok()
    docker("restart", "-t", "0", "t-other").ok()
    docker("stop", "-t", "0", "t-other").ok()
    assert docker("wait", "t-other").ok().line == "137"
    docker("start", "t-other").ok()
    assert docker("rm", "t-other").code == 1
    docker("rm", "-f", "t-other").ok()
    assert docker("ps", "-aq").ok().out == ""


def test_logs_are_followed(docker):
    docker("run", "-d", "--name", "t-follow", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done").ok()
    assert docker("logs", "-f", "t-follow").ok().out == "1\n2\n3\n"
    assert docker("logs", "--tail", "1", "-t", "t-follow").ok().out.endswith("Z 3\n")


def test_events_are_seen_while_they_happen(docker):
    listening = docker.popen("events", "--filter", "type=container", "--format", "{{json .}}", stdout=subprocess.PIPE)
    try:
        assert listening.stdout is not None
        await_(lambda: json.loads(docker("info", "-f", "{{json .}}").out)["NEventsListener"] >= 1, "the listener")
        docker("run", "--rm", "--name", "t-events", "--network", "none", "busybox", "true").ok()
        seen: list[str] = []
        while "destroy" not in seen:
            seen.append(json.loads(listening.stdout.readline())["Action"])
        assert [a for a in seen if a in ("create", "start", "die", "destroy")] == ["create", "start", "die", "destroy"]
    finally:
        listening.terminate()
        listening.communicate()


def test_images_travel(docker, tmp_path):
    file = str(tmp_path / "image.tar")
    docker("save", "busybox", "-o", file).ok()
    docker("tag", "busybox", "t-tag:1").ok()
    docker("rmi", "busybox").ok()
    assert "busybox:latest" in docker("load", "-i", file).ok().out
    docker("rmi", "t-tag:1").ok()
    assert docker("images", "--format", "{{.Repository}}").ok().line == "busybox"
    assert docker("history", "-q", "busybox").ok().line
    imported = docker("import", file, "t-imported:1").ok().line
    assert imported.startswith("sha256:")
    docker("rmi", "t-imported:1").ok()


def test_volumes(docker):
    docker("volume", "create", "t-volume").ok()
    docker("run", "--rm", "-v", "t-volume:/data", "busybox", "sh", "-c", "echo kept > /data/file").ok()
    assert docker("run", "--rm", "--mount", "type=volume,src=t-volume,dst=/d,ro", "busybox", "cat", "/d/file").ok().out == "kept\n"
    docker("volume", "rm", "t-volume").ok()
    assert docker("volume", "inspect", "t-volume").code == 1


def test_what_clients_ask_when_they_begin_and_clean_up(docker):
    assert docker("info", "-f", "{{.OSType}} {{.Swarm.LocalNodeState}}").ok().line == "linux inactive"
    assert docker("version", "-f", "{{.Server.Os}}").ok().line == "linux"
    assert docker("network", "ls", "--format", "{{.Name}}").ok().out.split() == ["bridge", "host", "none"]
    assert docker("system", "df").ok().out
    assert docker("system", "prune", "-f").ok()
    assert docker("service", "ls").code == 1


def test_a_terminal_with_its_size(docker, open_terminal):
    terminal = open_terminal("run", "--rm", "-it", "busybox", "sh", rows=31, columns=97)
    terminal.expect(r"# ")

    def has_size(text: str) -> bool:
        # not what is echoed, which the shell draws anew when a size comes meanwhile
        terminal.type("echo si''ze=$(stty size)=\r")
        return text in terminal.expect(r"size=\d+ \d+=\r\n")

    # docker sends the size after the start: it may arrive after the first prompt
    await_(lambda: has_size("31 97"), "the terminal's size")
    terminal.resize(40, 120)
    os.kill(terminal.process.pid, signal.SIGWINCH)
    await_(lambda: has_size("40 120"), "the terminal's other size")
    terminal.type(b"exit 5\r")
    assert terminal.wait() == 5


def test_detach_and_attach_again(docker, open_terminal):
    terminal = open_terminal("run", "-it", "--name", "t-tty", "busybox", "sh")
    terminal.type(b"echo fir''st\r")
    terminal.expect(r"first\r")
    terminal.type(b"\x10\x11")
    assert terminal.wait() == 0
    assert docker("inspect", "-f", "{{.State.Running}}", "t-tty").ok().line == "true"
    again = open_terminal("attach", "t-tty")
    again.type(b"echo sec''ond\r")
    again.expect(r"second\r")
    again.type(b"exit 3\r")
    assert again.wait() == 3


def test_exec_with_a_terminal(docker, open_terminal):
    docker("run", "-d", "--name", "t-exec-tty", "busybox", "sleep", "300").ok()
    terminal = open_terminal("exec", "-it", "t-exec-tty", "sh")
    terminal.expect(r"# ")
    terminal.type(b"tty; exit 6\r")
    terminal.expect(r"/dev/pts/\d")
    assert terminal.wait() == 6


def test_interrupts_reach_the_program(docker):
    process = docker.popen(
        "run", "--rm", "busybox", "sh", "-c", "trap 'exit 42' INT; echo ready; while :; do sleep 0.05; done", stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 42


def test_many_at_once(docker):
    many: Sequence[subprocess.Popen[bytes]] = [
        docker.popen("run", "--rm", "busybox", "echo", str(n), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for n in range(10)
    ]
    assert sorted(process.communicate(timeout=60)[0] for process in many) == sorted(b"%d\n" % n for n in range(10))
